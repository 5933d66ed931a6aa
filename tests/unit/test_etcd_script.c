/*
 * test_etcd_script.c - the etcd store against a scripted server: lost answers, a stale member
 * (T-DCS-4), a cancelled watch, a watch that keeps back what a range shows, another cluster behind
 * the same address, the cost at rest.
 */
#include "etcd_fixture.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

/* ---- a scripted server
 * ---------------------------------------------------------------------------------------------- */

struct script {
    int requests; /* of the path that the case is about */
    int watches, ranges;
    const char *path; /* only these are counted and answered by `answer` */
    struct fake_answer answer;
    int term, revision;
    const char *cluster;
    char body[512];
    bool cancel_first; /* the first watch is cancelled by a compaction */
};

/* An etcd that tells what the script wants. */
static struct fake_answer scripted(const char *path, const char *body, void *arg)
{
    struct script *s = arg;

    if (s->path != NULL && strcmp(path, s->path) == 0) {
        s->requests++;
        return s->answer;
    }
    if (strcmp(path, "/v3/watch") == 0) {
        s->watches++;
        assert_non_null(strstr(body, "start_revision"));
        bool cancel = s->cancel_first && s->watches == 1;
        assert_int_equal(dra_str_printf(s->body, sizeof s->body,
                                        cancel ? "{\"result\":{\"header\":{\"cluster_id\":\"%s\","
                                                 "\"raft_term\":\"%d\"},\"created\":true}}\n"
                                                 "{\"result\":{\"header\":{},\"canceled\":true,"
                                                 "\"compact_revision\":\"245\"}}\n"
                                               : "{\"result\":{\"header\":{\"cluster_id\":\"%s\","
                                                 "\"raft_term\":\"%d\"},\"created\":true}}\n",
                                        s->cluster, s->term),
                         DRA_OK);
        return (struct fake_answer){.status = 200, .body = s->body, .keep_open = true};
    }
    if (strcmp(path, "/v3/kv/range") == 0 || strcmp(path, "/v3/kv/txn") == 0) {
        s->ranges += strcmp(path, "/v3/kv/range") == 0 ? 1 : 0;
        assert_int_equal(dra_str_printf(s->body, sizeof s->body,
                                        "{\"header\":{\"cluster_id\":\"%s\",\"raft_term\":\"%d\","
                                        "\"revision\":\"%d\"},\"succeeded\":true,"
                                        "\"kvs\":[{\"key\":\"L3AvbGVhZGVy\",\"value\":\"YQ==\","
                                        "\"mod_revision\":\"%d\",\"create_revision\":\"1\"}]}",
                                        s->cluster, s->term, s->revision, s->revision),
                         DRA_OK);
        return (struct fake_answer){.status = 200, .body = s->body};
    }
    return (struct fake_answer){.status = 404, .body = "{\"message\":\"not here\",\"code\":5}"};
}

static const char *fake_hosts(int first, int second)
{
    static char text[160];
    assert_int_equal(
        second != 0
            ? dra_str_printf(text, sizeof text,
                             "{\"hosts\":[\"127.0.0.1:%d\",\"127.0.0.1:%d\"],\"use_proxies\":true}",
                             first, second)
            : dra_str_printf(text, sizeof text, "{\"hosts\":\"127.0.0.1:%d\",\"use_proxies\":true}",
                             first),
        DRA_OK);
    return text;
}

/* What was sent and not answered is sent again only if twice is the same as once. */
static void lost_answers(void **unused)
{
    (void)unused;
    static const struct {
        const char *name;
        struct fake_answer answer;
        bool retry_safe;
        int code, requests_min, requests_max;
    } rows[] = {
        {"hangs, unsafe", {.status = 0}, false, DRA_ETIMEDOUT, 1, 1},
        {"drops, unsafe", {.drop = true}, false, DRA_ECONN, 1, 1},
        {"code 14, unsafe",
         {.status = 503, .body = "{\"error\":\"etcdserver: request timed out\",\"code\":14}"},
         false,
         DRA_ETIMEDOUT,
         1,
         1},
        {"code 4, unsafe",
         {.status = 504,
          .body = "{\"error\":{\"grpc_code\":4,\"message\":\"context deadline exceeded\"}}"},
         false,
         DRA_ETIMEDOUT,
         1,
         1},
        {"no JSON, unsafe", {.status = 200, .body = "oops"}, false, DRA_EREMOTE, 1, 1},
        {"no header, unsafe", {.status = 200, .body = "{}"}, false, DRA_ETIMEDOUT, 1, 1},
        {"drops, safe", {.drop = true}, true, DRA_ECONN, 2, 20},
        {"hangs, safe", {.status = 0}, true, DRA_ETIMEDOUT, 2, 20},
        {"code 14, safe",
         {.status = 503, .body = "{\"message\":\"etcdserver: no leader\",\"code\":14}"},
         true,
         DRA_ETIMEDOUT,
         3,
         20},
        {"definite, safe",
         {.status = 400,
          .body = "{\"message\":\"etcdserver: too many operations in txn request\",\"code\":3}"},
         true,
         DRA_EREMOTE,
         1,
         1},
        {"not v3", {.status = 404, .body = "404 page not found"}, true, DRA_EREMOTE, 1, 1},
        {"not asked for",
         {.status = 400, .body = "{\"error\":\"etcdserver: user name is empty\",\"code\":3}"},
         true,
         DRA_EAUTH,
         1,
         1},
    };
    for (size_t i = 0; i < DRA_ARRAY_LEN(rows); i++) {
        struct script s = {.path = "/v3/kv/txn",
                           .answer = rows[i].answer,
                           .term = 2,
                           .revision = 5,
                           .cluster = "1"};
        struct rig r;
        rig_open(&r);
        struct fake *f = fake_open(&r, scripted, &s);
        struct dcs *d = store_open(&r, fake_hosts(fake_port(f), 0), "/p/", &quick);
        struct dcs_txn t = {.n_cmps = 1,
                            .cmps = {{DCS_CMP_CREATE_REV, "leader", 0, NULL}},
                            .n_success = 1,
                            .success = {{DCS_OP_PUT, "leader", "a", 0}},
                            .retry_safe = rows[i].retry_safe};
        struct dcs_answer a = do_txn(&r, d, &t, 1000);
        if (a.err_code != rows[i].code || s.requests < rows[i].requests_min ||
            s.requests > rows[i].requests_max) {
            fail_msg("%s: code %d (%s), %d requests", rows[i].name, a.err_code, a.err_msg,
                     s.requests);
        }
        d->vt->close(d);
        fake_close(f);
        rig_close(&r);
    }
}

/* Refused connections are no lost answers: even what must not be repeated goes on to the next
 * member. */
static void refused_goes_on(void **unused)
{
    (void)unused;
    struct script s = {.term = 2, .revision = 5, .cluster = "1"};
    struct rig r;
    rig_open(&r);
    struct fake *f = fake_open(&r, scripted, &s);
    struct dcs *d = store_open(&r, fake_hosts(free_port(), fake_port(f)), "/p/", &quick);
    struct dcs_txn t = {.n_success = 1, .success = {{DCS_OP_PUT, "leader", "a", 0}}};
    struct dcs_answer a = do_txn(&r, d, &t, 2000);
    assert_int_equal(a.err_code, DRA_OK);
    assert_true(a.succeeded);
    assert_int_equal(inside(d)->endpoints.preferred, 1);
    d->vt->close(d);
    fake_close(f);
    rig_close(&r);
}

/* T-DCS-4: an answer with a lower raft_term is dropped, the next member is asked. */
static void stale_member(void **unused)
{
    (void)unused;
    static const char lease_of_old[] =
        "{\"result\":{\"header\":{\"cluster_id\":\"1\",\"raft_term\":\"2\",\"revision\":\"3\"},"
        "\"ID\":\"5\",\"TTL\":\"5\"}}";
    static const char lease_of_new[] =
        "{\"result\":{\"header\":{\"cluster_id\":\"1\",\"raft_term\":\"4\",\"revision\":\"9\"},"
        "\"ID\":\"5\",\"TTL\":\"5\"}}";
    struct script old = {.path = "/v3/lease/keepalive",
                         .answer = {.status = 200, .body = lease_of_old},
                         .term = 2,
                         .revision = 3,
                         .cluster = "1"};
    struct script new = {.path = "/v3/lease/keepalive",
                         .answer = {.status = 200, .body = lease_of_new},
                         .term = 4,
                         .revision = 9,
                         .cluster = "1"};
    struct rig r;
    rig_open(&r);
    struct fake *f_old = fake_open(&r, scripted, &old);
    struct fake *f_new = fake_open(&r, scripted, &new);
    struct dcs *d = store_open(&r, fake_hosts(fake_port(f_old), fake_port(f_new)), "/p/", &quick);
    struct dcs_answer a = do_keepalive(&r, d, 5, 1000); /* nothing better is known yet */
    assert_int_equal(a.raft_term, 2);
    inside(d)->endpoints.preferred = 1;
    assert_int_equal(do_read(&r, d, 1000).raft_term, 4);
    inside(d)->endpoints.preferred = 0;
    a = do_keepalive(&r, d, 5, 1000);
    assert_int_equal(a.err_code, DRA_OK);
    assert_int_equal(a.raft_term, 4);
    assert_int_equal(old.requests, 2);
    new.answer.status = 0; /* only the stale one is left: no answer rather than its */
    inside(d)->endpoints.preferred = 0;
    a = do_keepalive(&r, d, 5, 700);
    assert_int_equal(a.err_code, DRA_ETIMEDOUT);
    inside(d)->endpoints.preferred = 0;
    a = do_read(&r, d, 1000);
    assert_int_equal(a.raft_term, 4);
    d->vt->close(d);
    fake_close(f_old);
    fake_close(f_new);
    rig_close(&r);
}

/* A cancelled watch (compaction) does not close its stream: it must be read, and all read again. */
static void cancelled_watch(void **unused)
{
    (void)unused;
    struct script s = {.term = 2, .revision = 5, .cluster = "1", .cancel_first = true};
    struct rig r;
    struct view v;
    rig_open(&r);
    struct fake *f = fake_open(&r, scripted, &s);
    struct dcs *d = store_open(&r, fake_hosts(fake_port(f), 0), "/p/", &quick);
    view_watch(&v, d);
    assert_true(rig_until(&r, has_snapshot, &v, 2000));
    assert_true(rig_until(&r, is_stale, &v, 2000));
    assert_non_null(strstr(v.why, "compaction"));
    assert_true(rig_until(&r, is_current, &v, 2000));
    assert_true(rig_until(&r, watch_is_live, d, 2000));
    assert_int_equal(s.watches, 2);

    /* A range shows what the watch did not bring: taken over at once, the watch replaced. */
    s.revision = 8;
    int snapshots = v.snapshots;
    rig_run_ms(&r, 1500);
    assert_true(v.snapshots > snapshots);
    assert_int_equal(v.last->c.leader_rev, 8);
    assert_true(s.watches >= 3);
    assert_int_equal(v.stales, 1); /* the view itself was never in doubt */

    /* Another cluster behind the same address: nothing that was known holds. */
    s.cluster = "2";
    s.revision = 3;
    s.term = 1;
    assert_true(rig_until(&r, is_stale, &v, 3000));
    assert_true(rig_until(&r, is_current, &v, 3000));
    assert_int_equal(v.last->c.leader_rev, 3);
    assert_int_equal(v.last->c.cluster_id, 2);
    d->vt->close(d);
    fake_close(f);
    rig_close(&r);
    view_deinit(&v);
}

/* At a ttl of 20 s and more: one range per loop_wait; below it two, so that a silent watch is found
 * in time. */
static void cost_at_rest(void **unused)
{
    (void)unused;
    static const struct {
        struct timing t;
        int min, max;
    } rows[] = {{{30000, 1000, 5000}, 4, 5}, {{5000, 1000, 2000}, 6, 9}};
    for (size_t i = 0; i < DRA_ARRAY_LEN(rows); i++) {
        struct script s = {.term = 2, .revision = 5, .cluster = "1"};
        struct rig r;
        struct view v;
        rig_open(&r);
        struct fake *f = fake_open(&r, scripted, &s);
        struct dcs *d = store_open(&r, fake_hosts(fake_port(f), 0), "/p/", &rows[i].t);
        view_watch(&v, d);
        rig_run_ms(&r, 3600);
        assert_in_range(s.ranges, rows[i].min, rows[i].max); /* the first read is one of them */
        assert_int_equal(v.snapshots, 1);
        d->vt->close(d);
        fake_close(f);
        rig_close(&r);
        view_deinit(&v);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lost_answers), cmocka_unit_test(refused_goes_on),
        cmocka_unit_test(stale_member), cmocka_unit_test(cancelled_watch),
        cmocka_unit_test(cost_at_rest),
    };
    struct log_config quiet;
    struct dra_err err;
    log_configure_default(&quiet);
    quiet.level = LOG_LV_CRITICAL;
    if (log_configure(&quiet, &err) != DRA_OK) {
        return 1;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
