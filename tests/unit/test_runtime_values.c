/*
 * test_runtime_values.c - the texts of our member key (DCS-20, 21, 24) and of `status` (DCS-28..30, HA-156).
 */
#include "runtime/values.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define LEASE 77

static struct ha_world *world_new(void)
{
    struct ha_world *w = calloc(1, sizeof *w);
    assert_non_null(w);
    w->now = (struct dra_instant){dra_ms(1000000).ns};
    assert_int_equal(dra_str_copy(w->me, sizeof w->me, "n-1"), 0);
    w->s.use_slots = true;
    w->s.member_slots_ttl = dra_ms(1800 * 1000);
    w->lease.id = LEASE;
    w->pg.state = HA_STATE_RUNNING;
    w->pg.postmaster = DRA_YES;
    w->pg.answered_at = w->now;
    w->pg.timeline = 3;
    return w;
}

static struct values_in inputs(const struct ha_world *w, const struct dcs_snapshot *snap)
{
    return (struct values_in){.w = w,
                              .snap = snap,
                              .conn_url = "postgres://10.0.0.1:5432/postgres",
                              .api_url = "http://10.0.0.1:8008/patroni",
                              .proxy_url = "",
                              .version = "4.1.4",
                              .dragent = "0.1.0"};
}

static void test_member_primary(void **state)
{
    (void)state;
    struct ha_world *w = world_new();
    w->pg.in_recovery = DRA_NO;
    w->pg.wal_lsn = 83886408;
    struct values_in in = inputs(w, NULL);
    char *text = values_member(&in, HA_ROLE_PRIMARY);
    assert_string_equal(text, "{\"conn_url\":\"postgres://10.0.0.1:5432/postgres\",\"api_url\":\"http://10.0.0.1:8008/patroni\","
                              "\"state\":\"running\",\"role\":\"primary\",\"version\":\"4.1.4\",\"dragent\":\"0.1.0\","
                              "\"xlog_location\":83886408,\"timeline\":3}");
    free(text);
    free(w);
}

static void test_member_fields(void **state)
{
    (void)state;
    struct ha_world *w = world_new();
    struct ha_member m;
    struct values_in in = inputs(w, NULL);
    w->pg.in_recovery = DRA_YES;
    w->pg.receive_lsn = 20;
    w->pg.replay_lsn = 30;
    w->pg.replication_state = HA_REPL_STREAMING;
    w->s.pause = true;
    values_member_fill(&in, HA_ROLE_REPLICA, &m);
    assert_true(m.xlog_location == 30 && m.receive_lsn == 20 && m.replay_lsn == 30);
    assert_int_equal(m.replication_state, HA_REPL_STREAMING);
    assert_true(m.pause);
    assert_false(m.left_in_pause);

    w->shutdown = true; /* SAFE-43 */
    w->job.phase = HA_PHASE_RUNNING; /* DCS-91: no positions during a long action */
    w->job.job.kind = HA_JOB_REWIND;
    values_member_fill(&in, HA_ROLE_REPLICA, &m);
    assert_true(m.left_in_pause);
    assert_true(m.xlog_location == 0 && m.timeline == 0);

    w->job.job.kind = HA_JOB_PROMOTE;
    values_member_fill(&in, HA_ROLE_REPLICA, &m);
    assert_true(m.xlog_location == 30);

    w->pg.in_recovery = DRA_UNKNOWN; /* not answered by this postmaster yet */
    values_member_fill(&in, HA_ROLE_REPLICA, &m);
    assert_true(m.xlog_location == 0);
    free(w);
}

static struct dcs_snapshot *snapshot_of(const char *member, const char *status, int64_t lease)
{
    struct dcs_kv kvs[2] = {
        {.key = "members/n-1", .value = member, .value_len = strlen(member), .mod_revision = 5, .create_revision = 5, .lease = lease},
        {.key = "status", .value = status, .value_len = strlen(status), .mod_revision = 6, .create_revision = 6},
    };
    struct dcs_snapshot *s = dcs_cluster_parse(kvs, 2, 9);
    assert_non_null(s);
    return s;
}

/* DCS-24: nothing is written that is there already, under the same lease. */
static void test_member_unchanged(void **state)
{
    (void)state;
    struct ha_world *w = world_new();
    struct values_in in = inputs(w, NULL);
    char *text = values_member(&in, HA_ROLE_REPLICA);
    struct dcs_snapshot *same = snapshot_of(text, "{}", LEASE);
    struct dcs_snapshot *other_lease = snapshot_of(text, "{}", LEASE + 1);
    struct dcs_snapshot *other_text = snapshot_of("{\"state\":\"stopped\"}", "{}", LEASE);
    free(text);
    in.snap = same;
    assert_null(values_member(&in, HA_ROLE_REPLICA));
    in.snap = other_lease;
    text = values_member(&in, HA_ROLE_REPLICA);
    assert_non_null(text);
    free(text);
    in.snap = other_text;
    text = values_member(&in, HA_ROLE_REPLICA);
    assert_non_null(text);
    free(text);
    dcs_snapshot_unref(same);
    dcs_snapshot_unref(other_lease);
    dcs_snapshot_unref(other_text);
    free(w);
}

static const char slots_json[] = "[{\"slot_name\":\"n_2\",\"slot_type\":\"physical\",\"temporary\":false,\"restart_lsn\":\"0/10\"},"
                                 "{\"slot_name\":\"stranger\",\"slot_type\":\"physical\",\"temporary\":false,\"restart_lsn\":\"0/20\"},"
                                 "{\"slot_name\":\"tmp\",\"slot_type\":\"physical\",\"temporary\":true,\"restart_lsn\":\"0/20\"},"
                                 "{\"slot_name\":\"logi\",\"slot_type\":\"logical\",\"temporary\":false,\"restart_lsn\":\"0/20\"},"
                                 "{\"slot_name\":\"fresh\",\"slot_type\":\"physical\",\"temporary\":false,\"restart_lsn\":null}]";

static void member_add(struct ha_cluster *c, const char *name)
{
    assert_int_equal(dra_str_copy(c->members[c->n_members++].name, HA_NAME_MAX, name), 0);
}

static void test_status(void **state)
{
    (void)state;
    struct ha_world *w = world_new();
    struct rt_values v = {0};
    struct json *slots = NULL;
    assert_int_equal(json_parse(slots_json, strlen(slots_json), &slots, NULL), 0);
    member_add(&w->cluster, "n-1");
    member_add(&w->cluster, "n-2");
    w->lease.epoch = 4;
    w->cluster.n_retain = 1; /* HA-156: what the last leader retained is retained by us, too */
    assert_int_equal(dra_str_copy(w->cluster.retain[0], HA_SLOT_NAME_MAX, "gone"), 0);
    struct values_in in = inputs(w, NULL);
    in.slots = slots;

    char *text = values_status(&v, &in, 4096, false);
    assert_string_equal(text, "{\"optime\":4096,\"slots\":{\"n_1\":4096,\"n_2\":16},\"retain_slots\":[\"gone\",\"n_1\",\"n_2\"]}");

    /* DCS-29: unchanged, nothing to write. */
    struct dcs_snapshot *snap = snapshot_of("{}", text, 0);
    free(text);
    in.snap = snap;
    assert_null(values_status(&v, &in, 4096, false));
    dcs_snapshot_unref(snap);
    in.snap = NULL;

    /* A name that belongs to nobody drops out after member_slots_ttl. */
    w->now = dra_after(w->now, dra_ms(1801 * 1000));
    text = values_status(&v, &in, 5000, false);
    assert_string_equal(text, "{\"optime\":5000,\"slots\":{\"n_1\":5000,\"n_2\":16},\"retain_slots\":[\"n_1\",\"n_2\"]}");
    free(text);

    /* DCS-30: the last words carry over what was there. */
    w->cluster.n_slots = 1;
    w->cluster.slots[0] = (struct ha_slot_pos){.name = "n_2", .lsn = 9};
    text = values_status(&v, &in, 6000, true);
    assert_string_equal(text, "{\"optime\":6000,\"slots\":{\"n_2\":9},\"retain_slots\":[\"gone\"]}");
    free(text);
    assert_null(values_status(&v, &in, 0, false));
    json_free(slots);
    free(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_member_primary),
        cmocka_unit_test(test_member_fields),
        cmocka_unit_test(test_member_unchanged),
        cmocka_unit_test(test_status),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
