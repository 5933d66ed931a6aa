/* test_memory_store.c - the in-memory etcd keeps the promises that the simulator builds on. */
#include "consensus/memory.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static struct dra_instant at(int64_t ms)
{
    return (struct dra_instant){INT64_C(1000000000000) + ms * 1000000};
}

static struct dcs_answer put(struct mem_store *m, int64_t ms, const char *key, const char *value,
                             int64_t lease)
{
    struct dcs_txn t = {.n_success = 1, .success = {{DCS_OP_PUT, key, value, lease}}};
    struct dcs_answer a;
    mem_apply_txn(m, &t, at(ms), &a);
    return a;
}

static struct dcs_answer create(struct mem_store *m, int64_t ms, const char *key, const char *value,
                                int64_t lease)
{
    struct dcs_txn t = {.n_cmps = 1,
                        .cmps = {{DCS_CMP_CREATE_REV, key, 0, NULL}},
                        .n_success = 1,
                        .success = {{DCS_OP_PUT, key, value, lease}},
                        .n_failure = 1,
                        .failure = {{DCS_OP_GET, key, NULL, 0}}};
    struct dcs_answer a;
    mem_apply_txn(m, &t, at(ms), &a);
    return a;
}

static int64_t grant(struct mem_store *m, int64_t ms, int64_t ttl, int64_t want_ttl)
{
    struct dcs_answer a;
    mem_grant(m, ttl, at(ms), &a);
    assert_int_equal(a.err_code, DRA_OK);
    assert_int_equal(a.ttl_s, want_ttl);
    return a.lease;
}

static int keepalive(struct mem_store *m, int64_t ms, int64_t lease)
{
    struct dcs_answer a;
    mem_keepalive(m, lease, at(ms), &a);
    return a.err_code;
}

static void transactions(void **unused)
{
    (void)unused;
    struct mem_store *m = mem_new(1, at(0));
    struct dcs_answer a = create(m, 0, "leader", "a", 0);
    assert_true(a.succeeded);
    assert_int_equal(a.revision, 2);
    a = create(m, 0, "leader", "b", 0);
    assert_int_equal(a.err_code, DRA_OK);
    assert_false(a.succeeded);
    assert_int_equal(a.revision, 2);
    assert_int_equal(a.got_mod_rev, 2);
    assert_string_equal(a.got_value, "a");
    a = put(m, 0, "leader", "a", 77); /* no such lease */
    assert_int_equal(a.err_code, DRA_ENOTFOUND);
    assert_int_equal(mem_revision(m), 2);
    static const struct {
        struct dcs_cmp c;
        bool want;
    } rows[] = {
        {{DCS_CMP_MOD_REV, "leader", 2, NULL}, true}, {{DCS_CMP_MOD_REV, "leader", 3, NULL}, false},
        {{DCS_CMP_MOD_REV, "none", 0, NULL}, true},   {{DCS_CMP_CREATE_REV, "none", 0, NULL}, true},
        {{DCS_CMP_VALUE, "leader", 0, "a"}, true},    {{DCS_CMP_VALUE, "none", 0, ""}, false},
        {{DCS_CMP_LEASE, "leader", 0, NULL}, true},   {{DCS_CMP_LEASE, "leader", 5, NULL}, false},
        {{DCS_CMP_LEASE, "none", 0, NULL}, true},
    };
    for (size_t i = 0; i < DRA_ARRAY_LEN(rows); i++) {
        struct dcs_txn t = {.n_cmps = 1, .cmps = {rows[i].c}};
        mem_apply_txn(m, &t, at(1), &a);
        if (a.succeeded != rows[i].want) {
            fail_msg("compare %zu", i);
        }
    }
    struct dcs_txn two = {.n_success = 3,
                          .success = {{DCS_OP_PUT, "status", "{}", 0},
                                      {DCS_OP_PUT, "sync", "{}", 0},
                                      {DCS_OP_DELETE, "leader", NULL, 0}}};
    mem_apply_txn(m, &two, at(2), &a);
    assert_int_equal(a.revision, 3); /* one revision for all three */
    assert_int_equal(mem_get(m, "status")->mod_revision, 3);
    assert_int_equal(mem_get(m, "sync")->mod_revision, 3);
    assert_null(mem_get(m, "leader"));
    struct dcs_txn twice = {.n_success = 2,
                            .success = {{DCS_OP_PUT, "x", "1", 0}, {DCS_OP_PUT, "x", "2", 0}}};
    mem_apply_txn(m, &twice, at(2), &a);
    assert_int_equal(a.err_code, DRA_EREMOTE);
    assert_null(mem_get(m, "x"));
    mem_delete_prefix(m, at(3), &a);
    const struct dcs_kv *kvs;
    assert_int_equal(mem_read(m, &kvs), 0);
    mem_free(m);
}

struct seen {
    int n;
    char key[64];
    bool deleted;
    int64_t revision;
};

static void on_change(struct mem_store *m, int64_t revision, const char *key, bool deleted,
                      void *arg)
{
    struct seen *s = arg;
    assert_int_equal(mem_revision(m), revision);
    s->n++;
    s->deleted = deleted;
    s->revision = revision;
    assert_int_equal(dra_str_copy(s->key, sizeof s->key, key), DRA_OK);
}

static void leases_expire_at_a_tick(void **unused)
{
    (void)unused;
    struct mem_store *m = mem_new(1, at(0));
    struct seen seen = {0};
    mem_on_change(m, on_change, &seen);
    int64_t l = grant(m, 100, 3, 3);
    assert_true(create(m, 150, "leader", "a", l).succeeded);
    assert_int_equal(put(m, 150, "members/a", "{}", l).err_code, DRA_OK);
    assert_int_equal(seen.n, 2);
    assert_int_equal(mem_next_due(m).ns, at(3500).ns); /* 100 + 3000, then the 500 ms tick */
    assert_int_equal(keepalive(m, 1000, l), DRA_OK);
    assert_int_equal(mem_next_due(m).ns, at(4000).ns);
    assert_int_equal(mem_advance(m, at(3999)), 0);
    assert_non_null(mem_get(m, "leader"));
    assert_int_equal(mem_advance(m, at(4000)), 1);
    assert_null(mem_get(m, "leader"));
    assert_null(mem_get(m, "members/a"));
    assert_int_equal(seen.n, 3);
    assert_true(seen.deleted);
    assert_int_equal(seen.revision, 4); /* both keys in one */
    assert_int_equal(keepalive(m, 4001, l), DRA_ENOTFOUND);
    assert_int_equal(mem_next_due(m).ns, 0);
    mem_free(m);
}

static void past_its_end_a_lease_is_not_revived(void **unused)
{
    (void)unused;
    struct mem_store *m = mem_new(1, at(0));
    int64_t l = grant(m, 100, 1, 2); /* the least that is granted */
    assert_int_equal(keepalive(m, 2099, l), DRA_OK);
    assert_int_equal(keepalive(m, 4150, l), DRA_ENOTFOUND);
    assert_int_equal(put(m, 4200, "k", "v", l).err_code,
                     DRA_OK); /* until the tick it is in the table, as in etcd */
    assert_int_equal(mem_advance(m, at(4500)), 1);
    assert_null(mem_get(m, "k"));
    mem_free(m);
}

static void a_new_leader_counts_anew(void **unused)
{
    (void)unused;
    struct mem_store *m = mem_new(1, at(0));
    struct dcs_answer a;
    int64_t l = grant(m, 0, 3, 3);
    assert_true(create(m, 0, "leader", "a", l).succeeded);
    mem_leader_lost(m);
    assert_false(mem_has_leader(m));
    assert_int_equal(keepalive(m, 1000, l), DRA_ETIMEDOUT);
    assert_int_equal(put(m, 1000, "k", "v", 0).err_code, DRA_ETIMEDOUT);
    assert_int_equal(mem_advance(m, at(60000)), 0); /* nobody revokes */
    uint64_t old_term = mem_term(m);
    mem_leader_elected(m, at(60000), true);
    assert_true(mem_term(m) > old_term);
    assert_non_null(mem_get(m, "leader"));
    mem_keepalive_deposed(m, l, at(61000), &a); /* WIN-31 */
    assert_int_equal(a.err_code, DRA_OK);
    assert_int_equal(a.ttl_s, 3);
    assert_int_equal(a.raft_term, old_term);
    assert_int_equal(mem_lease_expires(m, l).ns, at(63000).ns); /* not renewed by it */
    assert_int_equal(mem_advance(m, at(63000)), 1);
    mem_keepalive_deposed(m, l, at(64000), &a);
    assert_int_equal(a.err_code, DRA_OK); /* still deceives */
    mem_deposed_end(m);
    mem_keepalive_deposed(m, l, at(64000), &a);
    assert_int_equal(a.err_code, DRA_ETIMEDOUT);
    assert_null(mem_get(m, "leader"));
    mem_free(m);
}

static void snapshots(void **unused)
{
    (void)unused;
    struct mem_store *m = mem_new(42, at(0));
    int64_t l = grant(m, 0, 5, 5);
    assert_true(create(m, 0, "leader", "a", l).succeeded);
    struct dcs_snapshot *s = mem_snapshot(m);
    struct dcs_snapshot *t = mem_snapshot(m);
    assert_ptr_equal(s, t);
    assert_string_equal(s->c.leader, "a");
    assert_int_equal(s->c.leader_rev, 2);
    assert_int_equal(s->c.leader_lease, l);
    assert_int_equal(s->c.cluster_id, 42);
    assert_int_equal(s->c.raft_term, mem_term(m));
    assert_int_equal(put(m, 1, "members/a", "{\"state\":\"running\"}", l).err_code, DRA_OK);
    dcs_snapshot_unref(t);
    t = mem_snapshot(m);
    assert_ptr_not_equal(s, t);
    assert_int_equal(s->c.n_members, 0); /* immutable */
    assert_int_equal(t->c.n_members, 1);
    mem_free(m);
    assert_string_equal(t->c.members[0].name, "a"); /* outlives the store */
    dcs_snapshot_unref(s);
    dcs_snapshot_unref(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(transactions),
        cmocka_unit_test(leases_expire_at_a_tick),
        cmocka_unit_test(past_its_end_a_lease_is_not_revived),
        cmocka_unit_test(a_new_leader_counts_anew),
        cmocka_unit_test(snapshots),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
