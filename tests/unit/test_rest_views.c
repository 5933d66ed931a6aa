/* test_rest_views.c - the status document, GET /cluster, metrics, explain: exact texts (REST-08, 42..46, 64, 65, 68). */
#include "rest_fixture.h"

#include "rest/node.h"

#define NOW ((struct dra_instant){INT64_C(1000000000000)})
#define PATRONI "\"patroni\": {\"version\": \"4.1.4\", \"scope\": \"demo\", \"name\": \"node1\", \"dragent\": \"" DRA_VERSION "\"}"

static void check(struct fixture *x, const char *want)
{
    char *got = views_status(&x->f);
    assert_string_equal(got, want);
    free(got);
}

static void primary_document(void **unused)
{
    (void)unused;
    struct fixture *x = fx_new(NOW);
    x->replication = fx_json("[{\"pid\":7,\"usename\":\"replicator\",\"application_name\":\"node2\",\"client_addr\":\"10.0.0.2\","
                             "\"state\":\"streaming\",\"sync_state\":\"async\",\"sync_priority\":0}]");
    x->v.replication = x->replication;
    x->reason = fx_json("{\"max_connections\":{\"old_value\":\"50\",\"new_value\":\"60\"}}");
    x->v.pending_restart_reason = x->reason;
    fx_tags(x, "{\"region\":\"eu\",\"nofailover\":false,\"clonefrom\":false}");
    check(x, "{\"state\": \"running\", \"postmaster_start_time\": \"2026-03-01 10:00:00.123456+00:00\", \"role\": \"primary\", "
             "\"server_version\": 160004, \"xlog\": {\"location\": 83886176}, \"timeline\": 3, \"replication\": [{\"usename\": "
             "\"replicator\", \"application_name\": \"node2\", \"client_addr\": \"10.0.0.2\", \"state\": \"streaming\", "
             "\"sync_state\": \"async\", \"sync_priority\": 0}], \"dcs_last_seen\": 1772359200, \"tags\": {\"region\": \"eu\"}, "
             "\"database_system_identifier\": \"7398561211234567890\", \"pending_restart\": true, \"pending_restart_reason\": "
             "{\"max_connections\": {\"old_value\": \"50\", \"new_value\": \"60\"}}, " PATRONI "}");
    fx_free(x);
}

static void replica_document(void **unused)
{
    (void)unused;
    struct fixture *x = fx_new(NOW);
    fx_replica(x);
    fx_sync(x, "true");
    fx_str(x->v.replay_timestamp, sizeof x->v.replay_timestamp, "2026-03-01 10:03:09.500000+00:00");
    x->scheduled = fx_json("{\"schedule\":\"2026-03-02T04:00:00+01:00\",\"restart_pending\":true,\"postmaster_start_time\":\"x\"}");
    x->f.scheduled_restart = x->scheduled;
    check(x, "{\"state\": \"running\", \"postmaster_start_time\": \"2026-03-01 10:00:00.123456+00:00\", \"role\": \"replica\", "
             "\"server_version\": 160004, \"xlog\": {\"received_location\": 83886176, \"replayed_location\": 83886176, "
             "\"replayed_timestamp\": \"2026-03-01 10:03:09.500000+00:00\", \"paused\": false}, \"sync_standby\": true, "
             "\"timeline\": 3, \"replication_state\": \"streaming\", \"dcs_last_seen\": 1772359200, "
             "\"database_system_identifier\": \"7398561211234567890\", " PATRONI
             ", \"scheduled_restart\": {\"schedule\": \"2026-03-02T04:00:00+01:00\", \"restart_pending\": true}}");
    fx_free(x);
}

static void short_documents(void **unused)
{
    (void)unused;
    struct fixture *x = fx_new(NOW);
    fx_replica(x);
    x->w.pg.state = HA_STATE_STARTING;
    x->w.pg.accepting = DRA_NO;
    check(x, "{\"state\": \"starting\", \"role\": \"replica\", \"dcs_last_seen\": 1772359200, \"database_system_identifier\": "
             "\"7398561211234567890\", " PATRONI "}");
    x->w.pg.state = HA_STATE_STOPPED;
    x->w.pg.postmaster = DRA_NO;
    x->w.s.pause = true;
    check(x, "{\"state\": \"stopped\", \"role\": \"replica\", \"pause\": true, \"dcs_last_seen\": 1772359200, "
             "\"database_system_identifier\": \"7398561211234567890\", " PATRONI "}");
    x->w.s.pause = false;
    x->w.pg.state = HA_STATE_INITDB;
    x->w.pg.datadir = HA_DATADIR_EMPTY;
    x->w.pg.sysid[0] = '\0';
    x->w.cluster.leader[0] = '\0';
    x->p.role = HA_ROLE_UNINITIALIZED;
    check(x, "{\"state\": \"initializing new cluster\", \"role\": \"uninitialized\", \"cluster_unlocked\": true, "
             "\"dcs_last_seen\": 1772359200, " PATRONI "}");
    /* running, but the last question failed */
    fx_str(x->w.cluster.leader, sizeof x->w.cluster.leader, "node2");
    x->w.pg.state = HA_STATE_RUNNING;
    x->w.pg.postmaster = DRA_YES;
    x->w.pg.accepting = DRA_UNKNOWN;
    x->p.role = HA_ROLE_REPLICA;
    check(x, "{\"state\": \"unknown\", \"role\": \"replica\", \"dcs_last_seen\": 1772359200, " PATRONI "}");
    fx_free(x);
}

/* REST-42: a full document may say "starting"; REST-47: silence of SQL makes it short. */
static void shape_changes(void **unused)
{
    (void)unused;
    static const struct {
        const char *what;
        enum ha_state state;
        enum dra_tri postmaster, accepting, in_recovery;
        int asked_after_ms; /* 0: the last question was answered */
        int look_after_ms;
        bool full;
        enum ha_state shown;
    } rows[] = {
        {"answered", HA_STATE_RUNNING, DRA_YES, DRA_YES, DRA_NO, 0, 9000, true, HA_STATE_RUNNING},
        {"starting with SQL", HA_STATE_STARTING, DRA_YES, DRA_YES, DRA_YES, 0, 0, true, HA_STATE_STARTING},
        {"asked, not yet late", HA_STATE_RUNNING, DRA_YES, DRA_YES, DRA_NO, 5000, 7900, true, HA_STATE_RUNNING},
        {"asked, late", HA_STATE_RUNNING, DRA_YES, DRA_YES, DRA_NO, 5000, 8000, false, HA_STATE_UNKNOWN},
        {"asked again and again", HA_STATE_RUNNING, DRA_YES, DRA_YES, DRA_NO, 12900, 13000, false, HA_STATE_UNKNOWN},
        {"killed", HA_STATE_RUNNING, DRA_NO, DRA_YES, DRA_NO, 0, 0, false, HA_STATE_CRASHED},
        {"not this postmaster's", HA_STATE_RUNNING, DRA_YES, DRA_YES, DRA_UNKNOWN, 0, 0, false, HA_STATE_UNKNOWN},
        {"stopping", HA_STATE_STOPPING, DRA_YES, DRA_YES, DRA_NO, 0, 0, false, HA_STATE_STOPPING},
    };
    for (size_t i = 0; i < DRA_ARRAY_LEN(rows); i++) {
        struct fixture *x = fx_new(NOW);
        struct views_node n;
        struct views_now now;
        x->w.pg.state = rows[i].state;
        x->w.pg.postmaster = rows[i].postmaster;
        x->w.pg.accepting = rows[i].accepting;
        x->w.pg.in_recovery = rows[i].in_recovery;
        if (rows[i].asked_after_ms != 0) {
            x->w.pg.asked_at = dra_after(NOW, dra_ms(rows[i].asked_after_ms));
        }
        views_node_fill(&n, &x->f);
        views_now_fill(&n, dra_after(NOW, dra_ms(rows[i].look_after_ms)), false, &now);
        if (now.full != rows[i].full || now.state != rows[i].shown) {
            fail_msg("%s: full %d state %s", rows[i].what, now.full, ha_state_to_str(now.state));
        }
        fx_free(x);
    }
}

static void tags_shown(void **unused)
{
    (void)unused;
    static const struct {
        const char *in, *out; /* NULL: none */
    } rows[] = {
        {"{\"nofailover\":false,\"noloadbalance\":\"\",\"nosync\":0,\"nostream\":null,\"clonefrom\":false}", NULL},
        {"{\"nofailover\":false,\"failover_priority\":2}", "{\"nofailover\": false, \"failover_priority\": 2}"},
        {"{\"nosync\":false,\"sync_priority\":1}", "{\"nosync\": false, \"sync_priority\": 1}"},
        {"{\"noloadbalance\":true,\"x\":false,\"s\":\"\xc3\xa9\"}", "{\"noloadbalance\": true, \"x\": false, \"s\": \"\\u00e9\"}"},
        {"{}", NULL},
    };
    for (size_t i = 0; i < DRA_ARRAY_LEN(rows); i++) {
        struct json *in = fx_json(rows[i].in);
        struct json *out = views_tags(in);
        if (rows[i].out == NULL) {
            assert_null(out);
        } else {
            char *text = json_print_spaced(out);
            assert_string_equal(text, rows[i].out);
            free(text);
        }
        json_free(out);
        json_free(in);
    }
    assert_null(views_tags(NULL));
}

static struct dcs_kv kv(const char *key, const char *value)
{
    return (struct dcs_kv){.key = key, .value = value, .value_len = strlen(value), .mod_revision = 5, .create_revision = 5};
}

static void cluster_view(void **unused)
{
    (void)unused;
    const struct dcs_kv kvs[] = {
        kv("config", "{\"synchronous_mode\":true,\"pause\":true}"),
        kv("failover", "{\"leader\":\"node1\",\"member\":\"node2\",\"scheduled_at\":\"2026-03-02T02:00:00+00:00\"}"),
        kv("leader", "node1"),
        kv("members/node1", "{\"conn_url\":\"postgres://10.0.0.1:5432/postgres\",\"api_url\":\"http://10.0.0.1:8008/patroni\","
                            "\"state\":\"running\",\"role\":\"primary\",\"version\":\"4.1.4\",\"xlog_location\":83886176,\"timeline\":3}"),
        kv("members/node2", "{\"conn_url\":\"postgres://DB.example:5432/postgres\",\"api_url\":\"http://10.0.0.2:8008/patroni\","
                            "\"state\":\"running\",\"role\":\"replica\",\"version\":\"4.1.4\",\"xlog_location\":83886080,"
                            "\"replication_state\":\"streaming\",\"receive_lsn\":83886176,\"replay_lsn\":83886080,\"timeline\":3,"
                            "\"tags\":{\"region\":\"eu\"}}"),
        kv("members/node3", "{\"state\":\"stopped\",\"role\":\"replica\",\"api_url\":\"http://10.0.0.3:8008/patroni\"}"),
        kv("status", "{\"optime\":83886176,\"slots\":{}}"),
        kv("sync", "{\"leader\":\"node1\",\"sync_standby\":\"node2\"}"),
    };
    struct dcs_snapshot *s = dcs_cluster_parse(kvs, DRA_ARRAY_LEN(kvs), 9);
    struct json *j = views_cluster(s);
    char *text = json_print_spaced(j);
    assert_string_equal(
        text,
        "{\"members\": [{\"name\": \"node1\", \"role\": \"leader\", \"state\": \"running\", \"api_url\": "
        "\"http://10.0.0.1:8008/patroni\", \"host\": \"10.0.0.1\", \"port\": 5432, \"timeline\": 3}, {\"name\": \"node2\", \"role\": "
        "\"sync_standby\", \"state\": \"streaming\", \"api_url\": \"http://10.0.0.2:8008/patroni\", \"host\": \"db.example\", "
        "\"port\": 5432, \"timeline\": 3, \"tags\": {\"region\": \"eu\"}, \"receive_lag\": 0, \"receive_lsn\": \"0/5000060\", "
        "\"replay_lag\": 96, \"replay_lsn\": \"0/5000000\", \"lag\": 96, \"lsn\": \"0/5000000\"}, {\"name\": \"node3\", \"role\": "
        "\"replica\", \"state\": \"stopped\", \"api_url\": \"http://10.0.0.3:8008/patroni\", \"receive_lsn\": \"unknown\", "
        "\"receive_lag\": \"unknown\", \"replay_lsn\": \"unknown\", \"replay_lag\": \"unknown\", \"lsn\": \"unknown\", \"lag\": "
        "\"unknown\"}], \"pause\": true, \"scheduled_switchover\": {\"at\": \"2026-03-02T02:00:00+00:00\", \"from\": \"node1\", "
        "\"to\": \"node2\"}}");
    free(text);
    json_free(j);
    dcs_snapshot_unref(s);
    s = dcs_cluster_parse(NULL, 0, 1);
    j = views_cluster(s);
    text = json_print_spaced(j);
    assert_string_equal(text, "{\"members\": []}");
    free(text);
    json_free(j);
    dcs_snapshot_unref(s);
}

static int count(const char *s, const char *what)
{
    int n = 0;
    for (const char *p = strstr(s, what); p != NULL; p = strstr(p + 1, what)) {
        n++;
    }
    return n;
}

static void metrics(void **unused)
{
    (void)unused;
    struct fixture *x = fx_new(NOW);
    char *t = views_metrics(&x->f);
    assert_int_equal(count(t, "# HELP patroni_"), 26);
    assert_true(dra_str_starts(t, "# HELP patroni_version Patroni semver without periods.\n# TYPE patroni_version gauge\n"
                                  "patroni_version{scope=\"demo\",name=\"node1\"} 040104\n"));
    assert_non_null(strstr(t, "\npatroni_postgres_running{scope=\"demo\",name=\"node1\"} 1\n"));
    assert_non_null(strstr(t, "\npatroni_postmaster_start_time{scope=\"demo\",name=\"node1\"} 1772359200.123456\n"));
    assert_non_null(strstr(t, "\npatroni_primary{scope=\"demo\",name=\"node1\"} 1\n"));
    assert_non_null(strstr(t, "\n# TYPE patroni_xlog_location counter\npatroni_xlog_location{scope=\"demo\",name=\"node1\"} 83886176\n"));
    assert_non_null(strstr(t, "\npatroni_postgres_state{scope=\"demo\",name=\"node1\"} 5\n"));
    assert_non_null(strstr(t, "\n# Values: 0=initdb, 1=initdb_failed,"));
    assert_non_null(strstr(t, "\ndragent_leader{scope=\"demo\",name=\"node1\"} 1\n"));
    assert_int_equal(t[strlen(t) - 1], '\n');
    free(t);
    /* down: two samples fewer, zeros, an odd scope */
    x->v.postmaster_start_us = 1772359200000000;
    x->w.pg.postmaster = DRA_NO;
    x->f.scope = "a\"b\\c\nd";
    t = views_metrics(&x->f);
    assert_int_equal(count(t, "# HELP patroni_"), 24);
    assert_non_null(strstr(t, "patroni_postgres_running{scope=\"a\\\"b\\\\c\\nd\",name=\"node1\"} 0\n"));
    assert_non_null(strstr(t, "patroni_postmaster_start_time{scope=\"a\\\"b\\\\c\\nd\",name=\"node1\"} 0\n"));
    assert_non_null(strstr(t, "patroni_xlog_location{scope=\"a\\\"b\\\\c\\nd\",name=\"node1\"} 0\n"));
    assert_non_null(strstr(t, "patroni_postgres_state{scope=\"a\\\"b\\\\c\\nd\",name=\"node1\"} 14\n"));
    free(t);
    fx_free(x);
    /* shortest float, unknown state */
    x = fx_new(NOW);
    fx_replica(x);
    x->v.postmaster_start_us = 1772359200000000;
    x->v.replay_timestamp_us = 1772359200500000;
    t = views_metrics(&x->f);
    assert_non_null(strstr(t, "patroni_postmaster_start_time{scope=\"demo\",name=\"node1\"} 1772359200.0\n"));
    assert_non_null(strstr(t, "patroni_xlog_replayed_timestamp{scope=\"demo\",name=\"node1\"} 1772359200.5\n"));
    free(t);
    x->w.pg.accepting = DRA_UNKNOWN;
    t = views_metrics(&x->f);
    assert_non_null(strstr(t, "patroni_postgres_state{scope=\"demo\",name=\"node1\"} -1\n"));
    free(t);
    fx_free(x);
}

static void world(void **unused)
{
    (void)unused;
    struct fixture *x = fx_new(NOW);
    fx_replica(x);
    ha_memory_init(&x->m);
    ha_decide(&x->w, &x->m, &x->p);
    char *text = views_world(&x->w, &x->m, &x->p);
    assert_non_null(text);
    struct json *j = fx_json(text);
    static const char *const strings[] = {"name", "rule", "rule_doc", "rule_spec", "reason", "detail", "role", "state",
                                          "would_promote_reason", "facts.server.postmaster", "facts.server.position"};
    for (size_t i = 0; i < DRA_ARRAY_LEN(strings); i++) {
        const char *s = NULL;
        struct dra_err err = {0};
        if (json_str(j, strings[i], &s, &err) != DRA_OK) {
            fail_msg("%s: %s", strings[i], err.msg);
        }
    }
    assert_string_equal(json_text(json_get(j, "rule")), ha_rule_doc(x->p.rule)->name);
    assert_int_equal(json_type_of(json_get(j, "would_promote")), JSON_BOOL);
    json_free(j);
    free(text);
    fx_free(x);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(primary_document), cmocka_unit_test(replica_document), cmocka_unit_test(short_documents),
        cmocka_unit_test(shape_changes),    cmocka_unit_test(tags_shown),       cmocka_unit_test(cluster_view),
        cmocka_unit_test(metrics),          cmocka_unit_test(world),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
