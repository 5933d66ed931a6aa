/*
 * test_etcd.c - the etcd store against real members, and against a scripted server where no real
 * one can be made to misbehave. T-DCS-1..4 and 6; the traps of etcd: silent watch, cancelled watch,
 * unknown lease, no quorum, election, stale member.
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

static struct etcds three; /* shared by most cases; each case uses a prefix of its own */

static int start_three(void **unused)
{
    (void)unused;
    etcds_init(&three, 3);
    etcds_start(&three);
    return 0;
}

static int stop_three(void **unused)
{
    (void)unused;
    etcds_stop(&three);
    return 0;
}

/* A case that failed in the middle must not take the next one with it. */
static int three_again(void **unused)
{
    (void)unused;
    for (int i = 0; i < three.n; i++) {
        if (three.m[i].pid == 0) {
            member_start(&three, i);
        } else {
            member_signal(&three, i, SIGCONT);
        }
    }
    return 0;
}

/* ---- plain working (T-DCS-1)
 * -------------------------------------------------------------------------------- */

static void transactions_and_leases(void **unused)
{
    (void)unused;
    struct rig r;
    rig_open(&r);
    struct dcs *d = store_open(&r, hosts_of(&three, "012", ""), "/t/plain/", &quick);

    struct dra_instant before = dra_now();
    struct dcs_answer g = do_grant(&r, d, 5, 3000);
    assert_int_equal(g.err_code, DRA_OK);
    assert_int_equal(g.ttl_s, 5);
    assert_true(g.lease != 0);
    assert_true(g.sent_at.ns >= before.ns && g.sent_at.ns <= dra_now().ns);
    assert_true(g.raft_term > 0);
    struct dcs_answer least = do_grant(&r, d, 1, 3000);
    assert_int_equal(least.ttl_s, 2); /* what was granted, not what was asked */

    struct dcs_answer a = do_create(&r, d, "leader", "a", g.lease);
    assert_int_equal(a.err_code, DRA_OK);
    assert_true(a.succeeded);
    int64_t epoch = a.revision;
    a = do_create(&r, d, "leader", "b", 0); /* lost: the GET shows who won */
    assert_int_equal(a.err_code, DRA_OK);
    assert_false(a.succeeded);
    assert_int_equal(a.got_mod_rev, epoch);
    assert_int_equal(a.got_lease, g.lease);
    assert_string_equal(a.got_value, "a");

    struct dcs_txn check = {.n_cmps = 3, /* SAFE-29 */
                            .cmps = {{DCS_CMP_VALUE, "leader", 0, "a"},
                                     {DCS_CMP_LEASE, "leader", g.lease, NULL},
                                     {DCS_CMP_MOD_REV, "leader", epoch, NULL}}};
    a = do_txn(&r, d, &check, 3000);
    assert_true(a.succeeded);
    struct dcs_answer k = do_keepalive(&r, d, g.lease, 3000);
    assert_int_equal(k.err_code, DRA_OK);
    assert_int_equal(k.ttl_s, 5);
    assert_int_equal(k.raft_term, a.raft_term);
    check.cmps[2].number = epoch + 1;
    a = do_txn(&r, d, &check, 3000);
    assert_int_equal(a.err_code, DRA_OK);
    assert_false(a.succeeded);

    struct dcs_txn cas = {.n_cmps = 1,
                          .cmps = {{DCS_CMP_MOD_REV, "leader", epoch, NULL}},
                          .n_success = 1,
                          .success = {{DCS_OP_DELETE, "leader", NULL, 0}}};
    a = do_txn(&r, d, &cas, 3000);
    assert_true(a.succeeded);
    a = do_txn(&r, d, &cas, 3000); /* conflict */
    assert_int_equal(a.err_code, DRA_OK);
    assert_false(a.succeeded);

    k = do_keepalive(&r, d, g.lease + 12345, 3000); /* 200 without a TTL */
    assert_int_equal(k.err_code, DRA_ENOTFOUND);
    assert_int_equal(k.ttl_s, 0);
    a = do_put(&r, d, "members/a", "{}", g.lease + 12345);
    assert_int_equal(a.err_code, DRA_ENOTFOUND);
    struct dcs_txn twice = {.n_success = 2,
                            .success = {{DCS_OP_PUT, "x", "1", 0}, {DCS_OP_PUT, "x", "2", 0}}};
    a = do_txn(&r, d, &twice, 3000);
    assert_int_equal(a.err_code, DRA_EREMOTE);
    assert_non_null(strstr(a.err_msg, "duplicate key"));

    assert_int_equal(inside(d)->endpoints.n, 3);
    d->vt->close(d);
    rig_close(&r);
}

static void watch_shows_all(void **unused)
{
    (void)unused;
    struct rig r;
    struct view v;
    rig_open(&r);
    struct dcs *d = store_open(&r, hosts_of(&three, "012", ""), "/t/watch/", &quick);
    struct dcs *other = store_open(&r, hosts_of(&three, "210", ""), "/t/watch/", &quick);
    struct dcs *elsewhere = store_open(&r, hosts_of(&three, "210", ""), "/t/watchx/", &quick);

    view_watch(&v, d);
    assert_int_equal(v.snapshots, 0); /* never inside the call */
    assert_true(rig_until(&r, has_snapshot, &v, 3000));
    assert_int_equal(v.last->c.n_members, 0);
    assert_true(rig_until(&r, watch_is_live, d, 3000));

    struct dcs_answer g = do_grant(&r, other, 2, 3000);
    assert_true(do_create(&r, other, "leader", "a", g.lease).succeeded);
    assert_true(rig_until(&r, leader_is_a, &v, 1000));
    assert_int_equal(v.last->c.leader_lease, g.lease);
    assert_true(v.last->c.raft_term > 0 && v.last->c.cluster_id != 0);

    for (int i = 0; i < 20; i++) { /* own and foreign writes, mixed */
        char value[32];
        assert_int_equal(dra_str_printf(value, sizeof value, "{\"optime\":%d}", i + 1), DRA_OK);
        struct dcs_answer a = do_put(&r, i % 2 == 0 ? d : other, "status", value, 0);
        assert_int_equal(a.err_code, DRA_OK);
        assert_int_equal(do_put(&r, elsewhere, "status", value, 0).err_code,
                         DRA_OK); /* moves only the revision */
        if (i % 2 == 0) {         /* DCS-58: an own write is in the view when its callback runs */
            assert_int_equal(v.last->c.optime, i + 1);
            assert_int_equal(v.last->c.status_rev, a.revision);
        }
    }
    int before = v.snapshots;
    struct dra_instant t0 = dra_now();
    assert_true(
        rig_until(&r, leader_is_gone, &v, 5000)); /* the lease ends: the event comes by itself */
    assert_in_range(ms_since(t0), 500, 3500);
    assert_true(v.snapshots > before);
    assert_int_equal(v.last->c.optime, 20);

    assert_int_equal(do_read(&r, d, 2000).err_code, DRA_OK);
    assert_int_equal(do_remove(&r, other).err_code, DRA_OK);
    rig_run_ms(&r, 300);
    assert_int_equal(v.last->c.status_rev, 0);
    assert_false(v.went_back);
    assert_int_equal(v.stales, 0);
    d->vt->close(d);
    other->vt->close(other);
    elsewhere->vt->close(elsewhere);
    rig_close(&r);
    view_deinit(&v);
}

struct count {
    int n;
    int code;
};

static void on_counted(const struct dcs_answer *a, void *arg)
{
    struct count *c = arg;
    c->n++;
    c->code = a->err_code;
}

static void close_cancels(void **unused)
{
    (void)unused;
    struct rig r;
    struct view v;
    struct count c[4] = {0};
    struct dra_err err;
    rig_open(&r);
    struct dcs *d = store_open(&r, hosts_of(&three, "012", ""), "/t/close/", &quick);
    struct dcs_txn t = {.n_success = 1, .success = {{DCS_OP_PUT, "x", "1", 0}}};
    view_watch(&v, d);
    assert_int_equal(d->vt->grant_start(d, 5, in_ms(2000), on_counted, &c[0], &err), DRA_OK);
    assert_int_equal(d->vt->keepalive_start(d, 5, in_ms(2000), on_counted, &c[1], &err), DRA_OK);
    assert_int_equal(d->vt->txn_start(d, &t, in_ms(2000), on_counted, &c[2], &err), DRA_OK);
    assert_int_equal(d->vt->read_start(d, in_ms(2000), on_counted, &c[3], &err), DRA_OK);
    d->vt->close(d);
    for (int i = 0; i < 4; i++) {
        assert_int_equal(c[i].n, 0); /* not inside close */
    }
    assert_int_equal(d->vt->grant_start(d, 5, in_ms(2000), on_counted, &c[0], &err), DRA_ESTATE);
    rig_run_ms(&r, 200);
    for (int i = 0; i < 4; i++) {
        assert_int_equal(c[i].n, 1);
        assert_int_equal(c[i].code, DRA_ECANCELED);
    }
    assert_int_equal(v.snapshots + v.stales, 0);
    rig_close(&r);
}

static bool three_endpoints(void *arg)
{
    return ((struct etcd *)arg)->endpoints.n == 3;
}

static void members_are_learnt(void **unused)
{
    (void)unused;
    struct rig r;
    rig_open(&r);
    struct dcs *d = store_open(&r, hosts_of(&three, "1", ""), "/t/learn/", &quick);
    assert_true(rig_until(&r, three_endpoints, d, 3000));
    assert_string_equal(inside(d)->endpoints.url[inside(d)->endpoints.preferred],
                        three.m[1].url); /* the current one stays first */
    d->vt->close(d);
    rig_close(&r);
}

/* At rest the store asks next to nothing: one range per loop_wait at most, none if own answers
 * prove the view. */
static void quiet_at_rest(void **unused)
{
    (void)unused;
    static const struct timing calm = {.ttl_ms = 30000, .loop_wait_ms = 2000, .retry_ms = 10000};
    struct rig r;
    struct view v;
    rig_open(&r);
    struct dcs *d = store_open(&r, hosts_of(&three, "012", ""), "/t/rest/", &calm);
    view_watch(&v, d);
    assert_true(rig_until(&r, watch_is_live, d, 3000));
    struct dcs_answer g = do_grant(&r, d, 30, 1000);
    assert_int_equal(do_put(&r, d, "leader", "a", g.lease).err_code, DRA_OK);
    rig_run_ms(&r, 300);
    struct dra_instant proven = inside(d)->watch.proven_at;
    struct dcs_txn check = {.n_cmps = 1, .cmps = {{DCS_CMP_VALUE, "leader", 0, "a"}}};
    assert_true(do_txn(&r, d, &check, 1000).succeeded);
    assert_true(inside(d)->watch.proven_at.ns > proven.ns); /* a renewal proves the view */
    int snapshots = v.snapshots;
    rig_run_ms(&r, 1000);
    assert_int_equal(v.snapshots, snapshots);
    assert_int_equal(v.stales, 0);
    d->vt->close(d);
    rig_close(&r);
    view_deinit(&v);
}

/* ---- members that fail
 * ------------------------------------------------------------------------------------------ */

static int a_follower(void)
{
    int leader = etcds_leader(&three);
    assert_true(leader >= 0);
    return (leader + 1) % 3;
}

static const char *order_from(int first)
{
    static const char *const orders[] = {"012", "120", "201"};
    return orders[first];
}

/* A member that hangs costs only the hedge; the watch on it is found silent and begun elsewhere. */
static void hung_member(void **unused)
{
    (void)unused;
    struct rig r;
    struct view v;
    int f = a_follower();
    rig_open(&r);
    struct dcs *d =
        store_open(&r, hosts_of(&three, order_from(f), "\"use_proxies\":true"), "/t/hung/", &quick);
    struct dcs *other = store_open(
        &r, hosts_of(&three, order_from((f + 1) % 3), "\"use_proxies\":true"), "/t/hung/", &quick);
    struct dcs_answer g = do_grant(&r, d, 20, 3000);
    view_watch(&v, d);
    assert_true(rig_until(&r, watch_is_live, d, 3000));
    assert_string_equal(inside(d)->watch.endpoint, three.m[f].url);

    member_signal(&three, f, SIGSTOP);
    struct dra_instant t0 = dra_now();
    assert_int_equal(do_keepalive(&r, d, g.lease, 2000).err_code, DRA_OK);
    print_message("keepalive past a hung member: %lld ms\n", (long long)ms_since(t0));
    assert_in_range(ms_since(t0), 0, 300);
    struct dcs_txn put = {
        .n_success = 1, .success = {{DCS_OP_PUT, "leader", "b", 0}}, .retry_safe = true};
    t0 = dra_now();
    assert_int_equal(do_txn(&r, d, &put, 3000).err_code,
                     DRA_OK); /* not hedged: one attempt is lost */
    assert_in_range(ms_since(t0), 0, 1300);
    assert_true(do_put(&r, other, "leader", "a", 0).err_code == DRA_OK);
    t0 = dra_now();
    assert_true(rig_until(&r, leader_is_a, &v, 3000));
    print_message("silent watch found out: %lld ms\n", (long long)ms_since(t0));
    assert_true(rig_until(&r, watch_is_live, d, 3000));
    assert_true(do_put(&r, other, "leader", "b", 0).err_code == DRA_OK);
    assert_true(rig_until(&r, leader_is_b, &v, 2000));
    assert_string_not_equal(inside(d)->watch.endpoint, three.m[f].url);
    member_signal(&three, f, SIGCONT);
    assert_false(v.went_back);
    d->vt->close(d);
    other->vt->close(other);
    rig_close(&r);
    view_deinit(&v);
}

/* 2 of 3 stopped: nothing succeeds, each call ends at its own deadline, and a check does not lie.
 */
static void no_quorum(void **unused)
{
    (void)unused;
    struct rig r;
    struct view v;
    rig_open(&r);
    struct dcs *d =
        store_open(&r, hosts_of(&three, "012", "\"use_proxies\":true"), "/t/noquorum/", &quick);
    struct dcs *lone =
        store_open(&r, hosts_of(&three, "0", "\"use_proxies\":true"), "/t/noquorum/", &quick);
    struct dcs_answer g = do_grant(&r, d, 20, 3000);
    assert_true(do_create(&r, d, "leader", "a", g.lease).succeeded);
    view_watch(&v, d);
    assert_true(rig_until(&r, watch_is_live, d, 3000));
    struct dcs_txn check = {.n_cmps = 1, .cmps = {{DCS_CMP_VALUE, "leader", 0, "a"}}};
    assert_true(do_txn(&r, lone, &check, 2000).succeeded);

    member_signal(&three, 1, SIGSTOP);
    member_signal(&three, 2, SIGSTOP);
    static const int deadlines[] = {300, 1000};
    for (size_t i = 0; i < DRA_ARRAY_LEN(deadlines); i++) {
        struct dra_instant t0 = dra_now();
        struct dcs_answer a =
            do_txn(&r, lone, &check, deadlines[i]); /* etcd itself would take 7 s */
        if (a.err_code != DRA_ETIMEDOUT) {
            fail_msg("a check without a quorum: %d %s", a.err_code, a.err_msg);
        }
        assert_in_range(ms_since(t0), deadlines[i] - 200, deadlines[i] + 100);
        t0 = dra_now();
        a = do_txn(&r, d, &check, deadlines[i]);
        assert_int_equal(a.err_code, DRA_ETIMEDOUT);
        assert_in_range(ms_since(t0), deadlines[i] - 200, deadlines[i] + 100);
    }
    struct dcs_txn create = {.n_cmps = 1,
                             .cmps = {{DCS_CMP_CREATE_REV, "x", 0, NULL}},
                             .n_success = 1,
                             .success = {{DCS_OP_PUT, "x", "1", 0}}};
    struct dcs_answer a = do_txn(&r, d, &create, 800);
    assert_int_equal(a.err_code, DRA_ETIMEDOUT); /* unknown */
    a = do_grant(&r, d, 5, 500);
    assert_int_equal(a.err_code, DRA_ETIMEDOUT);
    assert_true(rig_until(&r, is_stale, &v, 6000)); /* the watch says so by itself */
    int stales = v.stales;
    rig_run_ms(&r, 500);
    assert_int_equal(v.stales, stales);

    member_signal(&three, 1, SIGCONT);
    member_signal(&three, 2, SIGCONT);
    assert_true(rig_until(&r, is_current, &v, 6000));
    assert_true(leader_is_a(&v));
    d->vt->close(d);
    lone->vt->close(lone);
    rig_close(&r);
    view_deinit(&v);
}

/* T-DCS-3: etcd's leader is killed; a renewal finds its way through the others. */
static void leader_killed(void **unused)
{
    (void)unused;
    struct rig r;
    struct view v;
    rig_open(&r);
    int leader = etcds_leader(&three);
    assert_true(leader >= 0);
    struct dcs *d =
        store_open(&r, hosts_of(&three, order_from(leader), ""), "/t/election/", &quick);
    struct dcs_answer g = do_grant(&r, d, 20, 3000);
    uint64_t term = g.raft_term;
    assert_true(do_create(&r, d, "leader", "a", g.lease).succeeded);
    view_watch(&v, d);
    assert_true(rig_until(&r, watch_is_live, d, 3000));

    member_signal(&three, leader, SIGKILL);
    struct dra_instant t0 = dra_now();
    struct dcs_answer k = do_keepalive(&r, d, g.lease, 6000);
    if (k.err_code != DRA_OK) {
        fail_msg("keepalive: %s", k.err_msg);
    }
    print_message("keepalive after the death of etcd's leader: %lld ms\n", (long long)ms_since(t0));
    assert_in_range(ms_since(t0), 0, 5000); /* elections here: 1.0 to 2.6 s */
    assert_true(k.sent_at.ns > t0.ns);      /* of the attempt that was answered */
    struct dcs_txn check = {.n_cmps = 1, .cmps = {{DCS_CMP_LEASE, "leader", g.lease, NULL}}};
    struct dcs_answer a = do_txn(&r, d, &check, 3000);
    assert_true(a.succeeded);
    assert_true(a.raft_term > term);
    assert_true(rig_until(&r, is_current, &v, 3000));
    assert_true(rig_until(&r, watch_is_live, d, 3000));
    assert_true(do_put(&r, d, "leader", "b", 0).err_code == DRA_OK);
    assert_true(leader_is_b(&v));
    member_start(&three, leader);
    static const char *const health[] = {"endpoint", "health", NULL};
    for (int i = 0; etcdctl(&three, leader, health) != 0; i++) {
        assert_true(i < 100);
        rig_run_ms(&r, 50);
    }
    assert_false(v.went_back);
    d->vt->close(d);
    rig_close(&r);
    view_deinit(&v);
}

/* ---- single members: late start, authentication, TLS
 * -------------------------------------------------------------------- */

static void late_start_and_auth(void **unused)
{
    (void)unused;
    struct etcds one;
    struct rig r;
    struct view v;
    struct dra_err err;
    rig_open(&r);
    etcds_init(&one, 1);
    const char *hosts = hosts_of(&one, "0", "");
    struct dcs *d = store_open(&r, hosts, "/t/auth/", &quick);
    view_watch(&v, d);
    assert_true(rig_until(&r, is_stale, &v, 4000)); /* nobody is there yet */
    etcds_start(&one);
    assert_true(rig_until(&r, is_current, &v, 5000));
    d->vt->close(d);
    view_deinit(&v);

    static const char *const setup[][8] = {{"user", "add", "root:first"},
                                           {"role", "add", "root"},
                                           {"user", "grant-role", "root", "root"},
                                           {"auth", "enable"}};
    d = store_open(&r, hosts_of(&one, "0", "\"username\":\"root\",\"password\":\"first\""),
                   "/t/auth/", &quick);
    assert_int_equal(do_put(&r, d, "a", "1", 0).err_code,
                     DRA_OK); /* authentication is not enabled: without a token */
    assert_true(inside(d)->auth.off);
    for (size_t i = 0; i < DRA_ARRAY_LEN(setup); i++) {
        assert_int_equal(etcdctl(&one, 0, setup[i]), 0);
    }
    struct dcs_answer a = do_put(&r, d, "a", "2", 0); /* enabled in the middle of a run */
    if (a.err_code != DRA_OK) {
        fail_msg("%d %s", a.err_code, a.err_msg);
    }
    view_watch(&v, d);
    assert_true(rig_until(&r, watch_is_live, d, 3000));

    struct dcs *nobody = store_open(&r, hosts_of(&one, "0", ""), "/t/auth/", &quick);
    struct dcs *wrong =
        store_open(&r, hosts_of(&one, "0", "\"username\":\"root\",\"password\":\"guess\""),
                   "/t/auth/", &quick);
    assert_int_equal(do_put(&r, nobody, "a", "3", 0).err_code, DRA_EAUTH);
    assert_int_equal(do_put(&r, wrong, "a", "3", 0).err_code, DRA_EAUTH);
    nobody->vt->close(nobody);
    wrong->vt->close(wrong);

    member_signal(&one, 0, SIGKILL); /* the tokens die with the member */
    member_start(&one, 0);
    assert_true(rig_until(&r, is_stale, &v, 3000));
    assert_true(rig_until(&r, is_current, &v, 6000));
    struct dcs_txn once = {.n_cmps = 1,
                           .cmps = {{DCS_CMP_CREATE_REV, "b", 0, NULL}},
                           .n_success = 1,
                           .success = {{DCS_OP_PUT, "b", "1", 0}}};
    assert_true(do_txn(&r, d, &once, 3000).succeeded);

    char script[256];
    assert_int_equal(dra_str_printf(script, sizeof script,
                                    "echo second | etcdctl --endpoints=%s --user root:first user "
                                    "passwd root --interactive=false",
                                    one.m[0].url),
                     DRA_OK);
    const char *const sh[] = {"sh", "-c", script, NULL};
    assert_int_equal(run_program(sh), 0);
    a = do_put(&r, d, "a", "4", 0);
    assert_int_equal(a.err_code, DRA_EAUTH);
    struct json *section = NULL;
    hosts = hosts_of(&one, "0", "\"username\":\"root\",\"password\":\"second\"");
    assert_int_equal(json_parse(hosts, strlen(hosts), &section, &err), DRA_OK);
    assert_int_equal(d->vt->reconfigure(d, section, dra_ms(5000), dra_ms(1000), dra_ms(2000), &err),
                     DRA_OK);
    json_free(section);
    a = do_put(&r, d, "a", "5", 0);
    assert_int_equal(a.err_code, DRA_OK);
    d->vt->close(d);
    rig_close(&r);
    view_deinit(&v);
    etcds_stop(&one);
}

static void tls_with_client_certificates(void **unused)
{
    (void)unused;
    struct etcds one;
    struct rig r;
    char script[1024], extra[512], cert[96], key[96], ca[96];
    etcds_init(&one, 1);
    one.tls = true;
    assert_int_equal(
        dra_str_printf(
            script, sizeof script,
            "cd %s && openssl ecparam -name prime256v1 -genkey -noout -out k.pem && cp k.pem "
            "ca.key && "
            "openssl req -x509 -new -key ca.key -subj /CN=ca -days 2 -out ca.pem && "
            "openssl ecparam -name prime256v1 -genkey -noout -out key.pem && "
            "printf 'subjectAltName=IP:127.0.0.1\\nextendedKeyUsage=serverAuth,clientAuth\\n' > "
            "ext && "
            "openssl req -new -key key.pem -subj /CN=member | openssl x509 -req -CA ca.pem -CAkey "
            "ca.key -CAcreateserial -days 2 -extfile ext -out cert.pem && "
            "openssl req -x509 -new -key k.pem -subj /CN=other -days 2 -out other.pem",
            one.dir),
        DRA_OK);
    const char *const sh[] = {"sh", "-c", script, NULL};
    assert_int_equal(run_program(sh), 0);
    assert_int_equal(dra_str_printf(cert, sizeof cert, "%s/cert.pem", one.dir), DRA_OK);
    assert_int_equal(dra_str_printf(key, sizeof key, "%s/key.pem", one.dir), DRA_OK);
    assert_int_equal(dra_str_printf(ca, sizeof ca, "%s/ca.pem", one.dir), DRA_OK);
    const char *const args[] = {"--cert-file",       cert, "--key-file",         key,
                                "--trusted-ca-file", ca,   "--client-cert-auth", NULL};
    one.extra_args = args;
    etcds_start(&one);

    rig_open(&r);
    assert_int_equal(
        dra_str_printf(extra, sizeof extra,
                       "\"protocol\":\"https\",\"cacert\":\"%s\",\"cert\":\"%s\",\"key\":\"%s\"",
                       ca, cert, key),
        DRA_OK);
    struct dcs *d = store_open(&r, hosts_of(&one, "0", extra), "/t/tls/", &quick);
    struct view v;
    struct dcs_answer a = {.err_code = DRA_ECONN};
    for (int i = 0; i < 20 && a.err_code != DRA_OK; i++) {
        a = do_put(&r, d, "leader", "a", 0);
    }
    if (a.err_code != DRA_OK) {
        fail_msg("%s", a.err_msg);
    }
    view_watch(&v, d);
    assert_true(rig_until(&r, leader_is_a, &v, 3000));
    assert_true(rig_until(&r, watch_is_live, d, 3000));
    d->vt->close(d);

    for (int i = 0; i < 2; i++) {
        char more[512];
        if (i == 0) { /* no certificate of ours; a CA that is not theirs */
            assert_int_equal(
                dra_str_printf(more, sizeof more, "\"protocol\":\"https\",\"cacert\":\"%s\"", ca),
                DRA_OK);
        } else {
            assert_int_equal(dra_str_printf(more, sizeof more,
                                            "\"protocol\":\"https\",\"cacert\":\"%s/"
                                            "other.pem\",\"cert\":\"%s\",\"key\":\"%s\"",
                                            one.dir, cert, key),
                             DRA_OK);
        }
        d = store_open(&r, hosts_of(&one, "0", more), "/t/tls/", &quick);
        struct dcs_txn t = {
            .n_success = 1, .success = {{DCS_OP_PUT, "leader", "b", 0}}, .retry_safe = true};
        a = do_txn(&r, d, &t, 700);
        assert_int_equal(a.err_code, DRA_ECONN);
        assert_true(a.err_msg[0] != '\0');
        print_message("refused: %s\n", a.err_msg);
        d->vt->close(d);
    }
    rig_close(&r);
    view_deinit(&v);
    etcds_stop(&one);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(transactions_and_leases),
        cmocka_unit_test(watch_shows_all),
        cmocka_unit_test(close_cancels),
        cmocka_unit_test(members_are_learnt),
        cmocka_unit_test(quiet_at_rest),
        cmocka_unit_test_teardown(hung_member, three_again),
        cmocka_unit_test_teardown(no_quorum, three_again),
        cmocka_unit_test_teardown(leader_killed, three_again),
        cmocka_unit_test(late_start_and_auth),
        cmocka_unit_test(tls_with_client_certificates),
    };
    if (argc > 1) {
        cmocka_set_test_filter(argv[1]); /* one case by hand */
    }
    struct log_config quiet;
    struct dra_err err;
    log_configure_default(&quiet);
    quiet.level = getenv("TEST_LOG") != NULL ? LOG_LV_DEBUG : LOG_LV_CRITICAL;
    if (log_configure(&quiet, &err) != DRA_OK) {
        return 1;
    }
    return cmocka_run_group_tests(tests, start_three, stop_three);
}
