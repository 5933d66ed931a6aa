/* test_cluster.c - keys to picture (DCS-02..45, SAFE-17), picture to keys, tags (HA-170..174),
 * history (HA-95). */
#include <dragent/dcs.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct dcs_kv kv(const char *key, const char *value, int64_t mod)
{
    return (struct dcs_kv){.key = key,
                           .value = value,
                           .value_len = strlen(value),
                           .mod_revision = mod,
                           .create_revision = mod};
}

static struct dcs_snapshot *one(const char *key, const char *value)
{
    struct dcs_kv k = kv(key, value, 7);
    struct dcs_snapshot *s = dcs_cluster_parse(&k, 1, 9);
    assert_non_null(s);
    return s;
}

static struct json *js(const char *text)
{
    struct json *j = NULL;
    struct dra_err err = {0};
    if (json_parse(text, strlen(text), &j, &err) != DRA_OK) {
        fail_msg("%s: %s", text, err.msg);
    }
    return j;
}

static void prefixes(void **unused)
{
    (void)unused;
    static const struct {
        const char *ns, *scope, *out;
    } rows[] = {{"service", "demo", "/service/demo/"},
                {"/service/", "demo", "/service/demo/"},
                {"//service", "demo", "/service/demo/"},
                {"a//b", "demo/", "/a/b/demo/"},
                {"", "demo", "/demo/"},
                {NULL, "demo", "/demo/"}};
    for (size_t i = 0; i < DRA_ARRAY_LEN(rows); i++) {
        char out[64];
        assert_int_equal(dcs_prefix(rows[i].ns, rows[i].scope, out, sizeof out), DRA_OK);
        assert_string_equal(out, rows[i].out);
    }
    char small[8];
    assert_int_equal(dcs_prefix("service", "demo", small, sizeof small), DRA_ETOOLONG);
}

static void empty_cluster(void **unused)
{
    (void)unused;
    struct dcs_snapshot *s = dcs_cluster_parse(NULL, 0, 5);
    assert_non_null(s);
    assert_int_equal(s->c.revision, 5);
    assert_int_equal(s->c.initialize, HA_INIT_ABSENT);
    assert_int_equal(s->c.leader_rev, 0);
    assert_int_equal(s->c.n_members, 0);
    assert_null(s->config);
    assert_ptr_equal(dcs_snapshot_ref(s), s);
    dcs_snapshot_unref(s);
    dcs_snapshot_unref(s);
    dcs_snapshot_unref(NULL);
}

static void whole_cluster(void **unused)
{
    (void)unused;
    struct dcs_kv kvs[] = {
        kv("initialize", "7491823650129387456", 11),
        kv("config", "{\"ttl\":30,\"loop_wait\":10}", 12),
        kv("leader", "alpha", 13),
        kv("members/bravo",
           "{\"conn_url\":\"postgres://10.20.0.12:5432/postgres\",\"api_url\":\"https://"
           "10.20.0.12:8008/patroni\","
           "\"state\":\"running\",\"role\":\"replica\",\"version\":\"4.1.4\",\"xlog_location\":"
           "83886408,"
           "\"replay_lsn\":83886400,\"receive_lsn\":83886408,\"replication_state\":\"streaming\","
           "\"timeline\":3,"
           "\"pending_restart\":true,\"pause\":true,\"unknown\":[1]}",
           14),
        kv("members/alpha",
           "{\"conn_url\":\"postgres://10.20.0.11:5432/postgres\",\"api_url\":\"http://"
           "10.20.0.11:8008/patroni\","
           "\"state\":\"running\",\"role\":\"master\",\"version\":\"4.1.4\",\"dragent\":\"0.1.0\","
           "\"checkpoint_after_promote\":false,\"left_in_pause\":true,"
           "\"tags\":{\"clonefrom\":true,\"failover_priority\":\"2\"},\"xlog_location\":83886408,"
           "\"timeline\":3}",
           15),
        kv("members/charlie", "not json", 16),
        kv("members/a/b", "{}", 17), /* two slashes: no member */
        kv("members/", "{}", 17),
        kv("status",
           "{\"optime\":83886408,\"slots\":{\"pg_a\":83886408,\"audit\":\"x\"},\"retain_slots\":["
           "\"pg_a\",\"pg_b\"]}",
           18),
        kv("optime/leader", "1", 19), /* ignored: there is a status */
        kv("failover",
           "{\"leader\":\"alpha\",\"member\":\"bravo\",\"scheduled_at\":\"2026-03-01T04:00:00+02:"
           "00\"}",
           20),
        kv("sync", "{\"leader\":\"alpha\",\"quorum\":1,\"sync_standby\":\"bravo, charlie,,delta\"}",
           21),
        kv("history",
           "[[1,83886496,\"no recovery target "
           "specified\",\"2026-03-01T10:11:12.131415+00:00\",\"bravo\"],"
           "[\"2\",134217888,\"no recovery target specified\"]]",
           22),
        kv("failsafe", "{\"alpha\":\"http://10.20.0.11:8008/patroni\"}", 23),
        kv("something/else", "\xFF", 24),
    };
    kvs[2].lease = INT64_C(7587848094190927361);
    kvs[4].lease = INT64_C(7587848094190927361);
    struct dcs_snapshot *s = dcs_cluster_parse(kvs, DRA_ARRAY_LEN(kvs), 99);
    const struct ha_cluster *c = &s->c;

    assert_int_equal(c->revision, 99);
    assert_int_equal(c->initialize, HA_INIT_VALID);
    assert_string_equal(c->sysid, "7491823650129387456");
    assert_int_equal(c->initialize_rev, 11);
    assert_true(c->config_valid);
    assert_int_equal(c->config_rev, 12);
    assert_string_equal(c->leader, "alpha");
    assert_int_equal(c->leader_rev, 13);
    assert_true(c->leader_lease == INT64_C(7587848094190927361));
    assert_int_equal(c->n_members, 3);
    assert_false(c->too_many_members);
    assert_int_equal(ha_member_find(c, "alpha"), 0);
    assert_int_equal(ha_member_find(c, "bravo"), 1);
    assert_int_equal(ha_member_find(c, "charlie"), 2);
    const struct ha_member *a = &c->members[0];
    assert_int_equal(a->role, HA_ROLE_PRIMARY);
    assert_string_equal(a->dragent, "0.1.0");
    assert_true(a->checkpoint_after_promote_pending);
    assert_true(a->left_in_pause);
    assert_true(a->tags.clonefrom);
    assert_int_equal(a->tags.failover_priority, 2);
    assert_int_equal(a->mod_revision, 15);
    assert_true(a->lease == INT64_C(7587848094190927361));
    const struct ha_member *b = &c->members[1];
    assert_int_equal(b->state, HA_STATE_RUNNING);
    assert_int_equal(b->replication_state, HA_REPL_STREAMING);
    assert_int_equal(b->xlog_location, 83886408);
    assert_int_equal(b->replay_lsn, 83886400);
    assert_int_equal(b->timeline, 3);
    assert_true(b->pending_restart);
    assert_true(b->pause);
    assert_false(b->checkpoint_after_promote_pending);
    assert_string_equal(b->dragent, "");
    assert_null(s->member_raw[2]); /* a member by name all the same */
    assert_int_equal(c->members[2].tags.failover_priority, 1);
    assert_int_equal(c->optime, 83886408);
    assert_int_equal(c->n_slots, 2);
    assert_string_equal(c->slots[1].name, "audit");
    assert_int_equal(c->slots[1].lsn, 0);
    assert_int_equal(c->n_retain, 2);
    assert_string_equal(c->failover.leader, "alpha");
    assert_string_equal(c->failover.member, "bravo");
    assert_true(c->failover.scheduled);
    assert_false(c->failover.schedule_invalid);
    assert_int_equal(c->failover.scheduled_at, 1772330400); /* 02:00 UTC */
    assert_string_equal(c->sync.leader, "alpha");
    assert_int_equal(c->sync.quorum, 1);
    assert_int_equal(c->sync.n_standbys, 3);
    assert_string_equal(c->sync.standbys[1], "charlie");
    assert_int_equal(c->history_timeline, 3);
    assert_int_equal(c->n_history, 2);
    assert_non_null(s->failsafe);
    assert_int_equal(c->failsafe_rev, 23);
    dcs_snapshot_unref(s);
}

static void initialize_values(void **unused)
{
    (void)unused;
    static const struct {
        const char *value;
        enum ha_init_state want;
    } rows[] = {{"", HA_INIT_EMPTY},
                {"1234567890", HA_INIT_VALID},
                {"123456789", HA_INIT_INVALID},
                {"12345678901x", HA_INIT_INVALID},
                {" 1234567890", HA_INIT_INVALID},
                {"123456789012345678901234567890", HA_INIT_INVALID}};
    for (size_t i = 0; i < DRA_ARRAY_LEN(rows); i++) {
        struct dcs_snapshot *s = one("initialize", rows[i].value);
        assert_int_equal(s->c.initialize, rows[i].want);
        assert_int_equal(s->c.initialize_rev, 7);
        dcs_snapshot_unref(s);
    }
}

static void failover_values(void **unused)
{
    (void)unused;
    static const struct {
        const char *value, *leader, *member;
        bool scheduled, invalid;
    } rows[] = {
        {"{}", "", "", false, false},
        {"null", "", "", false, false},
        {"[1]", "", "", false, false},
        {"{\"member\":\"b\"}", "", "b", false, false},
        {"{\"leader\":null,\"member\":\"b\",\"scheduled_at\":null}", "", "b", false, false},
        {"a:b", "a", "b", false, false},
        {" a : b ", "a", "b", false, false},
        {"a", "a", "", false, false},
        {"a:b:c", "a", "b", false, false},
        {"", "", "", false, false},
        {"{\"leader\":1,\"member\":\"b\"}", "", "", false, false},
        {"{\"leader\":\"a\",\"scheduled_at\":\"tomorrow\"}", "a", "", true, true},
        {"{\"leader\":\"a\",\"scheduled_at\":\"2026-02-30T04:00:00+00:00\"}", "a", "", true, true},
        {"{\"leader\":\"a\",\"scheduled_at\":\"2026-03-01T04:00:00\"}", "a", "", true,
         true}, /* no zone */
        {"{\"leader\":\"a\",\"scheduled_at\":17}", "a", "", true, true},
        {"{\"leader\":\"a\",\"scheduled_at\":\"2026-03-01 04:00Z\"}", "a", "", true, false},
    };
    for (size_t i = 0; i < DRA_ARRAY_LEN(rows); i++) {
        struct dcs_snapshot *s = one("failover", rows[i].value);
        if (strcmp(s->c.failover.leader, rows[i].leader) != 0 ||
            strcmp(s->c.failover.member, rows[i].member) != 0 ||
            s->c.failover.scheduled != rows[i].scheduled ||
            s->c.failover.schedule_invalid != rows[i].invalid) {
            fail_msg("row %zu: %s", i, rows[i].value);
        }
        assert_int_equal(s->c.failover_rev, 7);
        if (rows[i].invalid) {
            assert_true(s->c.failover.scheduled_at == INT64_MAX); /* never due */
        }
        dcs_snapshot_unref(s);
    }
}

static void status_values(void **unused)
{
    (void)unused;
    static const struct {
        const char *key, *value;
        uint64_t optime;
        int n_slots, n_retain;
    } rows[] = {
        {"status", "83886408", 83886408, 0, 0},
        {"status", "{\"optime\":\"5\"}", 5, 0, 0},
        {"status", "{\"optime\":-5,\"slots\":[],\"retain_slots\":{}}", 0, 0, 0},
        {"status", "{\"optime\":{},\"slots\":\"{\\\"a\\\":3}\",\"retain_slots\":\"[\\\"a\\\",3]\"}",
         0, 1, 1},
        {"status", "{\"optime\":1,\"slots\":\"[\",\"retain_slots\":\"x\"}", 1, 0, 0},
        {"status", "x", 0, 0, 0},
        {"status", "[3]", 0, 0, 0},
        {"optime/leader", "77", 77, 0, 0},
        {"optime/leader", "-77", 0, 0, 0},
        {"optime/leader", "", 0, 0, 0},
    };
    for (size_t i = 0; i < DRA_ARRAY_LEN(rows); i++) {
        struct dcs_snapshot *s = one(rows[i].key, rows[i].value);
        if (s->c.optime != rows[i].optime || s->c.n_slots != rows[i].n_slots ||
            s->c.n_retain != rows[i].n_retain) {
            fail_msg("row %zu: %s", i, rows[i].value);
        }
        dcs_snapshot_unref(s);
    }
}

static void history_values(void **unused)
{
    (void)unused;
    static const struct {
        const char *value;
        uint32_t tl;
    } rows[] = {{"[]", 1},        {"", 0},     {"{}", 0},  {"[[3,1,\"x\"]]", 4},
                {"[[\"3\"]]", 4}, {"[[]]", 0}, {"[3]", 0}, {"[[\"x\"]]", 0}};
    for (size_t i = 0; i < DRA_ARRAY_LEN(rows); i++) {
        struct dcs_snapshot *s = one("history", rows[i].value);
        assert_int_equal(s->c.history_timeline, rows[i].tl);
        dcs_snapshot_unref(s);
    }
}

static void legacy_member(void **unused)
{
    (void)unused;
    struct dcs_snapshot *s =
        one("members/old",
            "postgres://u:p@h:5432/postgres?application_name=http://h:8008/patroni"); /* DCS-23 */
    assert_int_equal(s->c.n_members, 1);
    assert_string_equal(s->c.members[0].conn_url, "postgres://u:p@h:5432/postgres");
    assert_string_equal(s->c.members[0].api_url, "http://h:8008/patroni");
    assert_non_null(s->member_raw[0]);
    dcs_snapshot_unref(s);
}

/* T-DCS-5: no key's content makes reading fail, and each keeps its revision. */
static void garbage_everywhere(void **unused)
{
    (void)unused;
    static const struct {
        const char *bytes;
        size_t len;
    } garbage[] = {
        {"", 0},
        {"null", 4},
        {"17", 2},
        {"-1e400", 6},
        {"[]", 2},
        {"[[[", 3},
        {"{\"a\"", 4},
        {"\"x\"", 3},
        {"\xFF\xFE{}", 4},
        {"\xED\xA0\x80", 3},
        {"a\0b", 3},
        {"{\"leader\":\"\xC3\"}", 13},
        {"true", 4},
        {"{\"leader\":[],\"slots\":7}", 23},
        {"postgres", 8},
        {"{\"tags\":null,\"state\":7,\"role\":{},\"timeline\":1e99,\"xlog_location\":1.5}", 69}};
    static const char *const keys[] = {"initialize", "config",        "leader",   "members/x",
                                       "status",     "optime/leader", "failover", "sync",
                                       "history",    "failsafe"};
    for (size_t g = 0; g < DRA_ARRAY_LEN(garbage); g++) {
        struct dcs_kv kvs[DRA_ARRAY_LEN(keys)];
        for (size_t k = 0; k < DRA_ARRAY_LEN(keys); k++) {
            kvs[k] = (struct dcs_kv){.key = keys[k],
                                     .value = garbage[g].bytes,
                                     .value_len = garbage[g].len,
                                     .mod_revision = 3};
        }
        struct dcs_snapshot *s = dcs_cluster_parse(kvs, DRA_ARRAY_LEN(keys), 3);
        assert_non_null(s);
        assert_int_equal(s->c.n_members, 1);
        assert_int_equal(s->c.leader_rev, 3);
        assert_int_equal(s->c.failover_rev, 3);
        assert_int_equal(s->c.sync_rev, 3);
        assert_int_equal(s->c.members[0].tags.failover_priority, 1);
        assert_int_equal(s->c.members[0].timeline, 0);
        dcs_snapshot_unref(s);
    }
}

static void too_many(void **unused)
{
    (void)unused;
    static char names[70][32];
    struct dcs_kv kvs[70];
    for (int i = 0; i < 70; i++) { /* handed over in the wrong order */
        assert_int_equal(dra_str_printf(names[i], sizeof names[i], "members/n%02d", 69 - i),
                         DRA_OK);
        kvs[i] = kv(names[i], "{\"state\":\"running\"}", i + 1);
    }
    struct dcs_snapshot *s = dcs_cluster_parse(kvs, 70, 100);
    assert_int_equal(s->c.n_members, HA_MEMBERS_MAX);
    assert_true(s->c.too_many_members);
    assert_string_equal(s->c.members[0].name, "n00");
    assert_string_equal(s->c.members[63].name, "n63");
    assert_int_equal(ha_member_find(&s->c, "n17"), 17);
    dcs_snapshot_unref(s);

    s = dcs_cluster_parse(kvs, 64, 100);
    assert_false(s->c.too_many_members);
    dcs_snapshot_unref(s);

    char longer[200] = "members/";
    memset(longer + 8, 'x', 150);
    s = one(longer, "{}");
    assert_int_equal(s->c.n_members, 0);
    assert_true(s->c.too_many_members);
    dcs_snapshot_unref(s);
    s = one("leader", longer + 8);
    assert_string_equal(s->c.leader, "");
    assert_int_equal(s->c.leader_rev, 7);
    dcs_snapshot_unref(s);
}

static void tags(void **unused)
{
    (void)unused;
    static const struct {
        const char *json;
        bool nofailover, nosync;
        int failover_priority, sync_priority;
        const char *replicatefrom;
    } rows[] = {
        {"{}", false, false, 1, 1, ""},
        {"null", false, false, 1, 1, ""},
        {"[1]", false, false, 1, 1, ""},
        {"{\"nofailover\":true}", true, false, 0, 1, ""},
        {"{\"nofailover\":\"true\"}", true, false, 0, 1, ""}, /* HA-173 */
        {"{\"nofailover\":\"False\"}", false, false, 1, 1, ""},
        {"{\"failover_priority\":0}", true, false, 0, 1, ""}, /* HA-170 */
        {"{\"failover_priority\":\"0\"}", true, false, 0, 1, ""},
        {"{\"failover_priority\":\"5\"}", false, false, 5, 1, ""},
        {"{\"failover_priority\":\"many\"}", false, false, 1, 1, ""},
        {"{\"nofailover\":true,\"failover_priority\":1}", true, false, 0, 1, ""}, /* HA-174 */
        {"{\"nofailover\":false,\"failover_priority\":0}", false, false, 0, 1, ""},
        {"{\"nosync\":1,\"sync_priority\":3,\"replicatefrom\":\"b\"}", false, true, 1, 0, "b"},
        {"{\"sync_priority\":-3,\"replicatefrom\":7}", false, true, 1, 0, "7"},
        {"{\"replicatefrom\":true}", false, false, 1, 1, ""},
    };
    for (size_t i = 0; i < DRA_ARRAY_LEN(rows); i++) {
        struct json *j = js(rows[i].json);
        struct ha_tags t;
        dcs_tags_interpret(j, &t);
        if (t.nofailover != rows[i].nofailover || t.nosync != rows[i].nosync ||
            t.failover_priority != rows[i].failover_priority ||
            t.sync_priority != rows[i].sync_priority ||
            strcmp(t.replicatefrom, rows[i].replicatefrom) != 0) {
            fail_msg("row %zu: %s", i, rows[i].json);
        }
        json_free(j);
    }
    struct ha_tags t;
    dcs_tags_interpret(NULL, &t);
    assert_int_equal(t.failover_priority, 1);
}

static void expect_text(char *got, const char *want)
{
    if (want == NULL) {
        assert_null(got);
    } else {
        assert_non_null(got);
        assert_string_equal(got, want);
    }
    free(got);
}

static void format_member(void **unused)
{
    (void)unused;
    struct ha_member m = {.role = HA_ROLE_PRIMARY,
                          .state = HA_STATE_RUNNING,
                          .xlog_location = 83886408,
                          .timeline = 3};
    assert_int_equal(
        dra_str_copy(m.conn_url, sizeof m.conn_url, "postgres://10.20.0.11:5432/postgres"), 0);
    assert_int_equal(dra_str_copy(m.api_url, sizeof m.api_url, "http://10.20.0.11:8008/patroni"),
                     0);
    assert_int_equal(dra_str_copy(m.version, sizeof m.version, "4.1.4"), 0);
    struct json *tags_in =
        js("{\"zone\":\"a\",\"clonefrom\":true,\"nosync\":false,\"nofailover\":false,"
           "\"failover_priority\":\"1\",\"noloadbalance\":\"\"}");
    struct dcs_member_out o = {.m = &m, .tags = tags_in};
    expect_text(dcs_format_member(&o),
                "{\"conn_url\":\"postgres://10.20.0.11:5432/postgres\",\"api_url\":\"http://"
                "10.20.0.11:8008/patroni\","
                "\"state\":\"running\",\"role\":\"primary\",\"version\":\"4.1.4\","
                "\"tags\":{\"zone\":\"a\",\"clonefrom\":true,\"nofailover\":false,\"failover_"
                "priority\":\"1\"},"
                "\"xlog_location\":83886408,\"timeline\":3}");
    json_free(tags_in);

    struct json *off = js("{\"clonefrom\":false}");
    struct json *reason = js("{\"max_connections\":{\"old_value\":\"100\",\"new_value\":\"200\"}}");
    o = (struct dcs_member_out){
        .m = &m, .tags = off, .pending_restart_reason = reason, .proxy_url = "postgres://p:1/x"};
    m = (struct ha_member){.role = HA_ROLE_REPLICA,
                           .state = HA_STATE_STARTING,
                           .replay_lsn = 1,
                           .receive_lsn = 2,
                           .replication_state = HA_REPL_ARCHIVE,
                           .pending_restart = true,
                           .pause = true,
                           .left_in_pause = true,
                           .checkpoint_after_promote_pending = true};
    assert_int_equal(dra_str_copy(m.dragent, sizeof m.dragent, "0.1.0"), 0);
    char *text = dcs_format_member(&o);
    assert_string_equal(
        text,
        "{\"conn_url\":\"\",\"api_url\":\"\",\"state\":\"starting\",\"role\":\"replica\","
        "\"version\":\"\","
        "\"dragent\":\"0.1.0\",\"proxy_url\":\"postgres://p:1/"
        "x\",\"checkpoint_after_promote\":false,"
        "\"pending_restart\":true,\"pending_restart_reason\":{\"max_connections\":{\"old_value\":"
        "\"100\","
        "\"new_value\":\"200\"}},\"replay_lsn\":1,\"receive_lsn\":2,"
        "\"replication_state\":\"in archive recovery\",\"pause\":true,\"left_in_pause\":true}");
    struct dcs_snapshot *s = one("members/m", text); /* and back */
    const struct ha_member *r = &s->c.members[0];
    assert_int_equal(r->state, m.state);
    assert_int_equal(r->replication_state, m.replication_state);
    assert_true(r->pause && r->left_in_pause && r->pending_restart &&
                r->checkpoint_after_promote_pending);
    dcs_snapshot_unref(s);
    free(text);
    json_free(off);
    json_free(reason);
}

static void format_others(void **unused)
{
    (void)unused;
    static const struct ha_slot_pos slots[] = {{"pg_a", 83886408}, {"pg_b", 83886080}};
    static const char retain[][HA_SLOT_NAME_MAX] = {"pg_a", "pg_b"};
    expect_text(dcs_format_status(83886408, slots, 2, retain, 2),
                "{\"optime\":83886408,\"slots\":{\"pg_a\":83886408,\"pg_b\":83886080},\"retain_"
                "slots\":[\"pg_a\",\"pg_b\"]}");
    expect_text(dcs_format_status(5, NULL, 0, NULL, 0), "{\"optime\":5}");
    expect_text(dcs_format_failover(NULL, NULL, NULL), "{}");
    expect_text(dcs_format_failover("", "b", ""), "{\"member\":\"b\"}");
    expect_text(dcs_format_failover("alpha", "bravo", "2026-03-01T04:00:00+00:00"),
                "{\"leader\":\"alpha\",\"member\":\"bravo\",\"scheduled_at\":\"2026-03-01T04:00:00+"
                "00:00\"}");
    expect_text(dcs_format_failover("alpha", NULL, "soon"), NULL); /* DCS-37 */
    expect_text(dcs_format_failover("alpha", NULL, "2026-03-01T04:00:00"), NULL);
}

static void format_history(void **unused)
{
    (void)unused;
    static const char file[] =
        "1\t0/5000060\tno recovery target specified\n\n2\t0/80000A0\tno \"x\"\tspecified\n"
        "2\t0/80000A0\tno recovery target specified\n";
    static const char both[] = "[[1,83886176,\"no recovery target specified\"],"
                               "[2,134217888,\"no recovery target specified\",\"T\",\"me\"]]";
    static const struct {
        const char *old;
        uint32_t tl;
        const char *file;
        int max;
        const char *want;
    } rows[] = {
        {NULL, 3, file, 0, both},
        {"[]", 3, file, 0, both},
        {"[[2,134217888,\"x\",\"T\",\"me\"]]", 3, file, 0, NULL}, /* complete already */
        {"[[2,134217888,\"x\",\"T\"]]", 3, file, 0, both},        /* not five elements */
        {"[[1,83886176,\"x\",\"T1\",\"you\"]]", 3, file, 0,
         "[[1,83886176,\"no recovery target specified\",\"T1\",\"you\"],"
         "[2,134217888,\"no recovery target specified\",\"T\",\"me\"]]"},
        {"[[1,99,\"x\",\"T1\",\"you\"]]", 3, file, 0,
         both}, /* another position: not carried over */
        {NULL, 3, file, 1, "[[2,134217888,\"no recovery target specified\",\"T\",\"me\"]]"},
        {NULL, 4, file, 1,
         "[[2,134217888,\"no recovery target specified\"]]"}, /* file is not about 3 -> 4 */
        {NULL, 3, "", 0, NULL},
        {NULL, 3, NULL, 0, NULL},
        {NULL, 1, NULL, 0, NULL},
        {"[]", 1, NULL, 0, NULL},
        {"[[1,2,\"x\"]]", 1, NULL, 0, "[]"},
        {NULL, 0, file, 0, NULL},
    };
    for (size_t i = 0; i < DRA_ARRAY_LEN(rows); i++) {
        struct json *old = rows[i].old != NULL ? js(rows[i].old) : NULL;
        expect_text(dcs_format_history(old, rows[i].tl, rows[i].file, "T", "me", rows[i].max),
                    rows[i].want);
        json_free(old);
    }
}

static void iso_times(void **unused)
{
    (void)unused;
    static const struct {
        const char *s;
        bool ok, zone;
        int64_t at;
    } rows[] = {
        {"1970-01-01T00:00:00Z", true, true, 0},
        {"2026-03-01T04:00:00+00:00", true, true, 1772337600},
        {"2026-03-01T04:00:00.123456-0530", true, true, 1772337600 + 19800},
        {"2026-03-01 04:00+02", true, true, 1772337600 - 7200},
        {"2026-03-01 04:00 UTC", true, true, 1772337600},
        {"2026-03-01T04:00:00", true, false, 1772337600},
        {"2024-02-29T00:00:00Z", true, true, 1709164800},
        {"1969-12-31T23:59:59Z", true, true, -1},
        {"2025-02-29T00:00:00Z", false, false, 0},
        {"2026-13-01T00:00:00Z", false, false, 0},
        {"2026-03-01T24:00:00Z", false, false, 0},
        {"2026-03-01T04:00:00+2:00", false, false, 0},
        {"2026-03-01T04:00:00Zx", false, false, 0},
        {"2026-03-01T04:00:00+00:00x", false, false, 0},
        {"2026-03-01", false, false, 0},
        {"", false, false, 0},
        {NULL, false, false, 0},
    };
    for (size_t i = 0; i < DRA_ARRAY_LEN(rows); i++) {
        int64_t at = 0;
        bool zone = false;
        bool ok = dcs_iso_parse(rows[i].s, &at, &zone);
        if (ok != rows[i].ok || zone != rows[i].zone || at != rows[i].at) {
            fail_msg("row %zu (%s): %d %d %lld", i, rows[i].s, ok, zone, (long long)at);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(prefixes),
        cmocka_unit_test(empty_cluster),
        cmocka_unit_test(whole_cluster),
        cmocka_unit_test(initialize_values),
        cmocka_unit_test(failover_values),
        cmocka_unit_test(status_values),
        cmocka_unit_test(history_values),
        cmocka_unit_test(legacy_member),
        cmocka_unit_test(garbage_everywhere),
        cmocka_unit_test(too_many),
        cmocka_unit_test(tags),
        cmocka_unit_test(format_member),
        cmocka_unit_test(format_others),
        cmocka_unit_test(format_history),
        cmocka_unit_test(iso_times),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
