/* test_rest_health.c - targets, routes, the matrix of health checks (REST-20..23, 50..56, 60, 62). */
#include "rest_fixture.h"

#include "rest/handoff.h"
#include "rest/health.h"
#include "rest/routes.h"
#include "rest/target.h"

#include <pthread.h>

#define NOW ((struct dra_instant){INT64_C(1000000000000)})

static void targets(void **unused)
{
    (void)unused;
    static const struct {
        const char *raw, *path, *segment, *key, *value; /* value NULL: absent */
    } rows[] = {
        {"/", "/", "", "lag", NULL},
        {"", "/", "", "lag", NULL},
        {"//replica?lag=10MB", "/replica", "replica", "lag", "10MB"},
        {"/config/anything", "/config/anything", "config", "lag", NULL},
        {"/%72eplica", "/%72eplica", "%72eplica", "lag", NULL},
        {"http://x/replica?lag=1", "/replica", "replica", "lag", "1"},
        {"http://x", "/", "", "lag", NULL},
        {"/replica;v=1?lag=1#frag", "/replica", "replica", "lag", "1"},
        {"/a;b/replica", "/a;b/replica", "a;b", "lag", NULL},
        {"/replica?tag_a%20b=c+d%21", "/replica", "replica", "tag_a b", "c d!"},
        {"/replica?lag=&lag=2&lag=3", "/replica", "replica", "lag", "2"},
        {"/replica?x=%zz&lag", "/replica", "replica", "x", "%zz"},
        {"/replica?x=%00y", "/replica", "replica", "x", NULL},
        {"/a-segment-much-longer-than-any-we-know", "/a-segment-much-longer-than-any-we-know", "", "x", NULL},
        {"*", "*", "", "x", NULL},
    };
    for (size_t i = 0; i < DRA_ARRAY_LEN(rows); i++) {
        struct rest_target t;
        char *raw = strdup(rows[i].raw);
        rest_target_parse(raw, &t);
        if (!dra_str_eq(t.path, rows[i].path) || !dra_str_eq(t.segment, rows[i].segment) ||
            !dra_str_eq(rest_target_param(&t, rows[i].key), rows[i].value)) {
            fail_msg("%s: path %s segment %s", rows[i].raw, t.path, t.segment);
        }
        free(raw);
    }
}

static void many_parameters(void **unused)
{
    (void)unused;
    char raw[512] = "/replica?";
    struct rest_target t;
    for (size_t len = strlen(raw); len + 5 < sizeof raw; len += 4) {
        (void)snprintf(raw + len, sizeof raw - len, "a=b&");
    }
    rest_target_parse(raw, &t);
    assert_int_equal(t.n_params, REST_PARAMS_MAX);
}

static void route_table(void **unused)
{
    (void)unused;
    static const struct {
        const char *method, *target;
        enum rest_call_kind call; /* NONE: 501 */
        bool protect;
        enum rest_kind kind;
    } rows[] = {
        {"GET", "/patroni", REST_CALL_STATUS, false, REST_NONE},
        {"GET", "/cluster/x", REST_CALL_CLUSTER, false, REST_NONE},
        {"GET", "/Cluster", REST_CALL_HEALTH, false, REST_NONE},
        {"HEAD", "/nosuch", REST_CALL_HEALTH, false, REST_NONE},
        {"OPTIONS", "/liveness", REST_CALL_LIVENESS, false, REST_NONE},
        {"GET", "/dragent/world", REST_CALL_WORLD, false, REST_NONE},
        {"GET", "/dragent/other", REST_CALL_HEALTH, false, REST_NONE},
        {"GET", "/switchover", REST_CALL_HEALTH, false, REST_NONE},
        {"PATCH", "/config", REST_CALL_FORWARD, true, REST_PATCH_CONFIG},
        {"POST", "//switchover", REST_CALL_FORWARD, true, REST_SWITCHOVER},
        {"POST", "/failover", REST_CALL_FORWARD, true, REST_FAILOVER},
        {"POST", "/restart", REST_CALL_FORWARD, true, REST_RESTART},
        {"POST", "/reload", REST_CALL_FORWARD, true, REST_RELOAD},
        {"POST", "/reinitialize", REST_CALL_FORWARD, true, REST_REINIT},
        {"DELETE", "/switchover", REST_CALL_FORWARD, true, REST_DELETE_SWITCHOVER},
        {"DELETE", "/restart", REST_CALL_TEXT, true, REST_NONE},
        {"POST", "/sigterm", REST_CALL_TEXT, true, REST_NONE},
        {"POST", "/mpp", REST_CALL_TEXT, true, REST_NONE},
        {"DELETE", "/failover", REST_CALL_NONE, false, REST_NONE},
        {"POST", "/", REST_CALL_NONE, false, REST_NONE},
        {"PUT", "/x", REST_CALL_NONE, false, REST_NONE},
        {"post", "/restart", REST_CALL_NONE, false, REST_NONE},
        {"POST", "/config", REST_CALL_NONE, false, REST_NONE},
    };
    for (size_t i = 0; i < DRA_ARRAY_LEN(rows); i++) {
        struct rest_target t;
        char *raw = strdup(rows[i].target);
        rest_target_parse(raw, &t);
        const struct rest_route *r = rest_route_find(rows[i].method, &t);
        enum rest_call_kind call = r != NULL ? r->call : REST_CALL_NONE;
        if (call != rows[i].call || (r != NULL && (r->protect != rows[i].protect || r->kind != rows[i].kind))) {
            fail_msg("%s %s: call %d", rows[i].method, rows[i].target, (int)call);
        }
        free(raw);
    }
}

/* ---- the matrix (REST-56) ----------------------------------------------------------------------------------------- */

static void s_primary(struct fixture *x) { (void)x; }
static void s_async(struct fixture *x) { fx_replica(x); }
static void s_noloadbalance(struct fixture *x)
{
    fx_replica(x);
    fx_tags(x, "{\"noloadbalance\":true}");
}
static void s_sync(struct fixture *x)
{
    fx_replica(x);
    fx_sync(x, "true");
}
static void s_quorum(struct fixture *x)
{
    fx_replica(x);
    fx_sync(x, "\"quorum\"");
}
static void s_standby_leader(struct fixture *x)
{
    fx_replica(x);
    fx_str(x->w.cluster.leader, sizeof x->w.cluster.leader, "node1");
    fx_effective(x, "{\"standby_cluster\":{\"host\":\"x\"}}");
    x->p.leader = true;
    x->p.lead_until = dra_after(NOW, dra_ms(20000));
    x->p.role = HA_ROLE_STANDBY_LEADER;
}
static void s_standby_replica(struct fixture *x)
{
    fx_replica(x);
    fx_effective(x, "{\"standby_cluster\":{\"host\":\"x\"}}");
}
static void s_archive(struct fixture *x)
{
    fx_replica(x);
    x->w.pg.replication_state = HA_REPL_ARCHIVE;
}
static void s_starting(struct fixture *x)
{
    fx_replica(x);
    x->w.pg.state = HA_STATE_STARTING;
}
static void s_stopped_pause(struct fixture *x)
{
    fx_replica(x);
    x->w.s.pause = true;
    x->w.pg.state = HA_STATE_STOPPED;
    x->w.pg.postmaster = DRA_NO;
}
static void s_dcs_down(struct fixture *x)
{
    fx_replica(x);
    x->w.cluster_stale = true;
    x->v.latest_end_lsn = 83886176;
}
static void s_ex_primary(struct fixture *x)
{
    fx_replica(x);
    x->w.cluster_stale = true;
    x->w.pg.replication_state = HA_REPL_NONE;
}
static void s_pause_dcs_down(struct fixture *x)
{
    x->w.s.pause = true;
    x->w.cluster_stale = true;
    x->p.leader = false;
    x->p.lead_until = (struct dra_instant){0};
}
static void s_stalled(struct fixture *x) { x->f.valid_until = NOW; }
static void s_lock_over(struct fixture *x) { x->p.lead_until = NOW; }
static void s_pause_stalled(struct fixture *x)
{
    s_pause_dcs_down(x);
    x->f.valid_until = NOW;
}
static void s_promoting(struct fixture *x) /* the lock, but still in recovery */
{
    fx_replica(x);
    fx_str(x->w.cluster.leader, sizeof x->w.cluster.leader, "node1");
    x->p.leader = true;
    x->p.lead_until = dra_after(NOW, dra_ms(20000));
}
static void s_killed(struct fixture *x)
{
    fx_replica(x);
    x->w.pg.postmaster = DRA_NO;
}
static void s_sql_silent(struct fixture *x)
{
    fx_replica(x);
    x->w.pg.answered_at = dra_before(NOW, dra_ms(4000));
    x->w.pg.asked_at = dra_before(NOW, dra_ms(3000));
}

static int ask(struct fixture *x, const char *target)
{
    struct views_node n;
    struct views_now now;
    struct rest_target t;
    char *raw = strdup(target);
    struct json *tags = views_tags(x->f.tags);

    views_node_fill(&n, &x->f);
    views_now_fill(&n, NOW, false, &now);
    rest_target_parse(raw, &t);
    struct rest_ask q = {.node = &n, .now = &now, .tags = tags, .target = &t};
    int status = strcmp(t.segment, "readiness") == 0 ? rest_readiness_status(&q) : rest_health_status(&q);
    json_free(tags);
    free(raw);
    return status;
}

static void matrix(void **unused)
{
    (void)unused;
    static const char *const paths[] = {"/primary", "/leader", "/standby-leader", "/replica",        "/read-only",        "/health",
                                        "/async",   "/sync",   "/quorum",         "/read-only-sync", "/read-only-quorum", "/readiness"};
    static const struct {
        const char *what;
        void (*make)(struct fixture *x);
        const char *want; /* in the order of `paths` */
    } rows[] = {
        {"primary with lock", s_primary, "110011000111"},
        {"async replica streaming", s_async, "000111100001"},
        {"async replica, noloadbalance", s_noloadbalance, "000001000001"},
        {"sync standby", s_sync, "000111010101"},
        {"quorum standby", s_quorum, "000111001011"},
        {"standby leader", s_standby_leader, "011011000111"},
        {"replica in a standby cluster", s_standby_replica, "000111100001"},
        {"replica in archive recovery", s_archive, "000111100000"},
        {"replica starting", s_starting, "000000000000"},
        {"stopped in pause", s_stopped_pause, "000000000000"},
        {"replica, DCS down", s_dcs_down, "000111000001"},
        {"ex-primary restarted read-only, DCS down", s_ex_primary, "000111000000"},
        {"paused, DCS down, running primary", s_pause_dcs_down, "110011000000"},
        {"loop stalled", s_stalled, "000001000000"},
        {"lock expired", s_lock_over, "000001000000"},
        {"paused, DCS down, loop stalled", s_pause_stalled, "000001000000"},
        {"lock holder still promoting", s_promoting, "110111100111"},
        {"replica killed a moment ago", s_killed, "000000000000"},
        {"SQL does not answer any more", s_sql_silent, "000000000000"},
    };
    for (size_t i = 0; i < DRA_ARRAY_LEN(rows); i++) {
        struct fixture *x = fx_new(NOW);
        rows[i].make(x);
        for (size_t p = 0; p < DRA_ARRAY_LEN(paths); p++) {
            int want = rows[i].want[p] == '1' ? 200 : 503;
            int got = ask(x, paths[p]);
            if (got != want) {
                fail_msg("%s: %s: got %d, want %d", rows[i].what, paths[p], got, want);
            }
        }
        fx_free(x);
    }
}

static void selection(void **unused)
{
    (void)unused;
    static const struct {
        const char *path;
        enum rest_check check;
    } rows[] = {
        {"/", REST_CHECK_PRIMARY},           {"/master", REST_CHECK_PRIMARY},
        {"/read-write", REST_CHECK_PRIMARY}, {"/standby_leader", REST_CHECK_STANDBY_LEADER},
        {"/leader-check", REST_CHECK_LEADER}, {"/db/replica/x", REST_CHECK_REPLICA},
        {"/healthz", REST_CHECK_HEALTH},     {"/sync/", REST_CHECK_NONE},
        {"/synchronous", REST_CHECK_SYNC},   {"/asynchronous", REST_CHECK_ASYNC},
        {"/read-only", REST_CHECK_READ_ONLY}, {"/read-only-synchronous", REST_CHECK_READ_ONLY_SYNC},
        {"/read-only-x-sync", REST_CHECK_NONE}, {"/nosuch", REST_CHECK_NONE},
        {"/Replica", REST_CHECK_NONE},
    };
    for (size_t i = 0; i < DRA_ARRAY_LEN(rows); i++) {
        if (rest_check_of(rows[i].path) != rows[i].check) {
            fail_msg("%s", rows[i].path);
        }
    }
}

static void queries(void **unused)
{
    (void)unused;
    static const struct {
        const char *target;
        int lag_bytes; /* of the replica that is asked */
        int want;
    } rows[] = {
        {"/replica?lag=10MB", 1000, 200},
        {"/replica?lag=999", 1000, 503},
        {"/replica?lag=1000", 1000, 200},
        {"/replica?lag=0", 1, 503},
        {"/replica?lag=0", 0, 200},
        {"/replica?lag=10mb", 100000000, 200}, /* not a size: no limit */
        {"/replica?lag=abc", 100000000, 200},
        {"/read-only?lag=1kB", 1025, 503},
        {"/async?lag=0x400", 1025, 503},
        {"/replica?replication_state=streaming", 0, 200},
        {"/replica?replication_state=in+archive+recovery", 0, 503},
        {"/replica?replication_state=", 0, 200},
        {"/replica?tag_region=eu", 0, 200},
        {"/replica?tag_region=EU", 0, 503},
        {"/replica?tag_number=3", 0, 200},
        {"/replica?tag_float=1.5", 0, 200},
        {"/replica?tag_flag=true", 0, 200},
        {"/replica?tag_flag=True", 0, 503},
        {"/replica?tag_nosync=false", 0, 503}, /* hidden */
        {"/replica?tag_none=x", 0, 503},
        {"/replica?tag_region=eu&tag_number=4", 0, 503},
        {"/replica?tag_region=eu&tag_region=us", 0, 200}, /* the first one counts */
        {"/replica?other=x", 0, 200},
        {"/health?tag_region=us", 0, 503},
        {"/leader?tag_region=us", 0, 503},
        {"/readiness", 1048576, 200},
        {"/readiness", 1048577, 503},
        {"/readiness?lag=10", 11, 503},
        {"/readiness?mode=write&lag=10", 11, 200},
    };
    for (size_t i = 0; i < DRA_ARRAY_LEN(rows); i++) {
        struct fixture *x = fx_new(NOW);
        fx_replica(x);
        fx_tags(x, "{\"region\":\"eu\",\"number\":3,\"float\":1.5,\"flag\":true,\"nosync\":false}");
        x->w.cluster.optime = 200000000;
        x->w.pg.receive_lsn = 200000000;
        x->w.pg.replay_lsn = (uint64_t)(200000000 - rows[i].lag_bytes);
        int got = ask(x, rows[i].target);
        if (got != rows[i].want) {
            fail_msg("%s with lag %d: got %d", rows[i].target, rows[i].lag_bytes, got);
        }
        fx_free(x);
    }
    /* a primary is not filtered by tags on the rows where they are ignored */
    struct fixture *x = fx_new(NOW);
    assert_int_equal(ask(x, "/primary?tag_x=y"), 200);
    assert_int_equal(ask(x, "/read-only?tag_x=y"), 503);
    assert_int_equal(ask(x, "/read-only?lag=0"), 200);
    fx_free(x);
}

static void liveness(void **unused)
{
    (void)unused;
    static const struct {
        const char *what;
        enum ha_role role;
        enum dra_tri postmaster;
        bool paused;
        int after_due_ms;
        int want;
    } rows[] = {
        {"primary, in time", HA_ROLE_PRIMARY, DRA_YES, false, 29999, 200}, {"primary, late", HA_ROLE_PRIMARY, DRA_YES, false, 30000, 503},
        {"primary without server", HA_ROLE_PRIMARY, DRA_NO, false, 59999, 200}, {"replica, late", HA_ROLE_REPLICA, DRA_YES, false, 60000, 503},
        {"paused", HA_ROLE_PRIMARY, DRA_YES, true, 900000, 200},
    };
    for (size_t i = 0; i < DRA_ARRAY_LEN(rows); i++) {
        struct fixture *x = fx_new(NOW);
        struct views_node n;
        x->p.role = rows[i].role;
        x->w.pg.postmaster = rows[i].postmaster;
        x->w.s.pause = rows[i].paused;
        views_node_fill(&n, &x->f);
        int got = rest_liveness_status(&n, dra_after(x->f.cycle_due, dra_ms(rows[i].after_due_ms)));
        if (got != rows[i].want) {
            fail_msg("%s: %d", rows[i].what, got);
        }
        fx_free(x);
    }
}

/* ---- slot and mailbox ------------------------------------------------------------------------------------------------ */

#define MAILS 20000
struct letter {
    struct rest_mail mail;
    int from, number;
};
struct sender {
    struct rest_mailbox *box;
    int from;
};

static void *send_all(void *arg)
{
    const struct sender *s = arg;
    for (int i = 0; i < MAILS; i++) {
        struct letter *l = malloc(sizeof *l);
        if (l == NULL) {
            abort();
        }
        l->from = s->from;
        l->number = i;
        rest_mail_send(s->box, &l->mail);
    }
    return NULL;
}

static void mail_in_order(void **unused)
{
    (void)unused;
    struct rest_mailbox box = {.top = NULL};
    struct sender s[2] = {{&box, 0}, {&box, 1}};
    pthread_t t[2];
    int seen[2] = {0, 0};

    for (int i = 0; i < 2; i++) {
        assert_int_equal(pthread_create(&t[i], NULL, send_all, &s[i]), 0);
    }
    while (seen[0] + seen[1] < 2 * MAILS) {
        for (struct rest_mail *m = rest_mail_take(&box), *next; m != NULL; m = next) {
            struct letter *l = (struct letter *)(void *)m;
            next = m->next;
            assert_int_equal(l->number, seen[l->from]);
            seen[l->from]++;
            free(l);
        }
    }
    for (int i = 0; i < 2; i++) {
        assert_int_equal(pthread_join(t[i], NULL), 0);
    }
    assert_null(rest_mail_take(&box));
}

static void slot(void **unused)
{
    (void)unused;
    struct rest_slot s = {.p = NULL};
    int a = 1;
    int b = 2;
    assert_null(rest_slot_take(&s));
    assert_null(rest_slot_put(&s, &a));
    assert_ptr_equal(rest_slot_put(&s, &b), &a); /* never taken: back to the giver */
    assert_ptr_equal(rest_slot_take(&s), &b);
    assert_null(rest_slot_take(&s));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(targets),   cmocka_unit_test(many_parameters), cmocka_unit_test(route_table),   cmocka_unit_test(matrix),
        cmocka_unit_test(selection), cmocka_unit_test(queries),         cmocka_unit_test(liveness),      cmocka_unit_test(mail_in_order),
        cmocka_unit_test(slot),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
