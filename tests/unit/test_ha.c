/*
 * test_ha.c - the pure core: the rows of HA section 30 on hand-made worlds, and an enumeration of small ones.
 */
#include <dragent/world.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#define NOW_MS INT64_C(1000000)
#define EPOCH 50
#define LEASE 11
#define PID 100

static struct dra_instant at(int64_t ms_from_now)
{
    return (struct dra_instant){(NOW_MS + ms_from_now) * INT64_C(1000000)};
}

static void add_member(struct ha_cluster *c, const char *name, enum ha_role role, int64_t lease)
{
    struct ha_member *m = &c->members[c->n_members++];

    dra_str_clip(m->name, sizeof m->name, name);
    assert_int_equal(dra_str_printf(m->conn_url, sizeof m->conn_url, "postgres://%s:5432/postgres", name), 0);
    dra_str_clip(m->dragent, sizeof m->dragent, "1");
    m->role = role;
    m->state = HA_STATE_RUNNING;
    m->timeline = 1;
    m->lease = lease;
    m->mod_revision = 40;
}

static void make_settings(struct ha_settings *s)
{
    s->ttl = dra_ms(30000);
    s->loop_wait = dra_ms(10000);
    s->retry_timeout = dra_ms(10000);
    s->fence_margin = dra_ms(1000);
    s->clock_drift_ppm = 500;
    s->maximum_lag_on_failover = 1048576;
    s->primary_start_timeout = dra_ms(300000);
    s->use_pg_rewind = true;
    s->guard_required = true;
    s->can_bootstrap = true;
    s->tags.failover_priority = 1;
}

/* n1 is this node: a healthy standby at 5000; n2 leads; n3 follows. */
static void make_world(struct ha_world *w, struct ha_memory *m)
{
    struct ha_cluster *c = &w->cluster;
    struct ha_pg *pg = &w->pg;

    memset(w, 0, sizeof *w);
    ha_memory_init(m);
    w->now = at(0);
    w->started_at = at(-60000);
    dra_str_clip(w->me, sizeof w->me, "n1");
    make_settings(&w->s);
    w->cluster_known = true;
    w->cluster_at = at(0);
    c->initialize = HA_INIT_VALID;
    dra_str_clip(c->sysid, sizeof c->sysid, "7000000000000000001");
    dra_str_clip(c->leader, sizeof c->leader, "n2");
    c->leader_rev = EPOCH;
    c->leader_lease = 22;
    c->optime = 5000;
    c->history_timeline = 1;
    c->config_rev = 3;
    c->config_valid = true;
    add_member(c, "n1", HA_ROLE_REPLICA, LEASE);
    add_member(c, "n2", HA_ROLE_PRIMARY, 22);
    add_member(c, "n3", HA_ROLE_REPLICA, 33);
    w->lease = (struct ha_lease){.id = LEASE, .ttl = dra_ms(30000), .asked_ttl = dra_ms(30000), .refreshed_at = at(-1000)};
    w->guard.alive = DRA_YES;
    pg->datadir = HA_DATADIR_VALID;
    dra_str_clip(pg->sysid, sizeof pg->sysid, c->sysid);
    pg->major = 15;
    pg->control = HA_CONTROL_IN_ARCHIVE_RECOVERY;
    pg->control_timeline = pg->timeline = 1;
    pg->standby_signal = pg->started_as_standby = true;
    pg->files_at = at(-10);
    pg->postmaster = DRA_YES;
    pg->leftovers = DRA_NO;
    pg->pid = PID;
    pg->pid_start_ticks = 5;
    pg->state = HA_STATE_RUNNING;
    pg->asked_at = pg->answered_at = at(0);
    pg->accepting = pg->in_recovery = DRA_YES;
    pg->receive_lsn = pg->replay_lsn = 5000;
    pg->replication_state = HA_REPL_STREAMING;
    pg->upstream_known = true;
    dra_str_clip(pg->upstream, sizeof pg->upstream, "n2");
    dra_str_clip(pg->upstream_conn_url, sizeof pg->upstream_conn_url, "postgres://n2:5432/postgres");
    for (int i = 1; i < 3; i++) {
        w->peers[i] = (struct ha_peer){.asked_at = at(0), .answered = true, .in_recovery = DRA_YES, .position = 5000,
                                       .timeline = 1, .failover_priority = 1};
    }
    w->poll_at = at(0);
    w->poll_done = true;
}

/* ---- what a row changes --------------------------------------------------------------------------- */

static void is_primary(struct ha_world *w)
{
    w->pg.in_recovery = DRA_NO;
    w->pg.started_as_standby = w->pg.standby_signal = false;
    w->pg.control = HA_CONTROL_IN_PRODUCTION;
    w->pg.wal_lsn = 5000;
    w->pg.upstream[0] = '\0';
}

static void is_down(struct ha_world *w)
{
    w->pg.postmaster = DRA_NO;
    w->pg.gone_at = at(-2000);
    w->pg.state = HA_STATE_STOPPED;
}

static void arm(struct ha_world *w)
{
    w->guard.armed = true;
    w->guard.pid = w->pg.pid;
    w->guard.pid_start_ticks = w->pg.pid_start_ticks;
    w->guard.epoch = EPOCH;
    w->guard.deadline = at(27000);
}

static void mine(struct ha_world *w, struct ha_memory *m)
{
    dra_str_clip(w->cluster.leader, sizeof w->cluster.leader, "n1");
    w->cluster.leader_lease = LEASE;
    w->lease.epoch = EPOCH;
    w->lease.certain_until = at(29000);
    w->lease.renew_sent_at = at(-1000);
    w->effects[HA_EFFECT_ACQUIRE].epoch = EPOCH; /* an epoch that this agent began */
    m->elected_epoch = EPOCH;
}

static void nobody(struct ha_world *w)
{
    w->cluster.leader[0] = '\0';
    w->cluster.leader_rev = w->cluster.leader_lease = 0;
}

static void set_hold(struct ha_world *w, struct ha_memory *m)
{
    is_primary(w);
    mine(w, m);
    arm(w);
}

static void set_hold_silent(struct ha_world *w, struct ha_memory *m)
{
    set_hold(w, m);
    w->lease.unanswered_since = at(-1000);
}

static void set_outage(struct ha_world *w, struct ha_memory *m)
{
    set_hold(w, m);
    w->lease.unanswered_since = at(-10500);
}

static void set_uncertain(struct ha_world *w, struct ha_memory *m)
{
    set_hold(w, m);
    w->lease.certain_until = at(500);
}

static void set_lost(struct ha_world *w, struct ha_memory *m)
{
    set_hold(w, m);
    w->lease.lost = true;
}

static void set_lost_standby(struct ha_world *w, struct ha_memory *m)
{
    mine(w, m);
    w->lease.lost = true;
}

static void set_switchover(struct ha_world *w, struct ha_memory *m)
{
    set_hold(w, m);
    dra_str_clip(w->cluster.failover.leader, sizeof w->cluster.failover.leader, "n1");
    w->cluster.failover_rev = 60;
}

static void set_switchover_nobody(struct ha_world *w, struct ha_memory *m)
{
    set_switchover(w, m);
    w->peers[1].answered = w->peers[2].answered = false;
}

static void set_promote(struct ha_world *w, struct ha_memory *m)
{
    mine(w, m);
    arm(w);
}

static void set_unguarded(struct ha_world *w, struct ha_memory *m)
{
    mine(w, m);
}

static void set_inherited(struct ha_world *w, struct ha_memory *m)
{
    set_promote(w, m);
    w->effects[HA_EFFECT_ACQUIRE].epoch = 0;
}

static void set_again(struct ha_world *w, struct ha_memory *m)
{
    mine(w, m);
    arm(w);
    w->effects[HA_EFFECT_ACQUIRE].epoch = 0;
    w->effects[HA_EFFECT_REATTACH].epoch = EPOCH;
    m->elected_epoch = 0;
    m->poll_wanted_at = at(0);
    w->peers[2].position = 6000;
}

static void set_other_primary(struct ha_world *w, struct ha_memory *m)
{
    (void)m;
    is_primary(w);
}

static void set_other_upstream(struct ha_world *w, struct ha_memory *m)
{
    (void)m;
    dra_str_clip(w->pg.upstream, sizeof w->pg.upstream, "n3");
}

static void set_nothing(struct ha_world *w, struct ha_memory *m)
{
    (void)w;
    (void)m;
}

static void set_none_primary(struct ha_world *w, struct ha_memory *m)
{
    (void)m;
    is_primary(w);
    nobody(w);
}

static void set_none(struct ha_world *w, struct ha_memory *m)
{
    (void)m;
    nobody(w);
}

static void set_none_lag(struct ha_world *w, struct ha_memory *m)
{
    set_none(w, m);
    w->cluster.optime = 5000 + 1048577;
}

static void set_none_ahead(struct ha_world *w, struct ha_memory *m)
{
    set_none(w, m);
    w->peers[2].position = 5001;
}

static void set_none_alive(struct ha_world *w, struct ha_memory *m)
{
    set_none(w, m);
    w->peers[1].in_recovery = DRA_NO;
}

static void set_none_nofailover(struct ha_world *w, struct ha_memory *m)
{
    set_none(w, m);
    w->s.tags.nofailover = true;
}

static void set_none_timeline(struct ha_world *w, struct ha_memory *m)
{
    set_none(w, m);
    w->cluster.history_timeline = 2;
}

static void set_none_candidate_lags(struct ha_world *w, struct ha_memory *m)
{
    set_none_ahead(w, m);
    w->cluster.optime = 5001;
    dra_str_clip(w->cluster.failover.leader, sizeof w->cluster.failover.leader, "n2");
    dra_str_clip(w->cluster.failover.member, sizeof w->cluster.failover.member, "n1");
}

static void set_none_failover_to_me(struct ha_world *w, struct ha_memory *m)
{
    set_none_lag(w, m);
    dra_str_clip(w->cluster.failover.member, sizeof w->cluster.failover.member, "n1");
}

static void set_none_unfenced(struct ha_world *w, struct ha_memory *m)
{
    set_none(w, m);
    dra_str_clip(w->cluster.unfenced, sizeof w->cluster.unfenced, "n2");
    w->peers[1].answered = false;
}

static void set_none_unfenced_seen(struct ha_world *w, struct ha_memory *m)
{
    set_none_unfenced(w, m);
    w->peers[1].answered = true;
}

static void set_stale(struct ha_world *w, struct ha_memory *m)
{
    set_none(w, m);
    w->cluster_stale = true;
    w->lease.unanswered_since = at(-1000);
}

static void set_crashed(struct ha_world *w, struct ha_memory *m)
{
    is_primary(w);
    mine(w, m);
    is_down(w);
}

static void set_crashed_unconfirmed(struct ha_world *w, struct ha_memory *m)
{
    set_crashed(w, m);
    w->pg.gone_at = at(-500); /* later than the last renewal */
    w->pg.files_at = at(-100);
}

static void set_start_failed(struct ha_world *w, struct ha_memory *m)
{
    set_crashed(w, m);
    m->start_failures = 1;
}

static void set_down_standby(struct ha_world *w, struct ha_memory *m)
{
    mine(w, m);
    is_down(w);
}

static void set_rejoin(struct ha_world *w, struct ha_memory *m)
{
    (void)m;
    is_primary(w);
    is_down(w);
    w->pg.control = HA_CONTROL_SHUT_DOWN;
}

static void set_rejoin_crashed(struct ha_world *w, struct ha_memory *m)
{
    set_rejoin(w, m);
    w->pg.control = HA_CONTROL_IN_PRODUCTION;
}

static void set_rejoin_standby(struct ha_world *w, struct ha_memory *m)
{
    (void)m;
    is_down(w);
}

static void set_leftovers(struct ha_world *w, struct ha_memory *m)
{
    set_crashed(w, m);
    w->pg.leftovers = DRA_YES;
}

static void set_pause_down(struct ha_world *w, struct ha_memory *m)
{
    set_crashed(w, m);
    w->s.pause = true;
}

static void set_pause_other(struct ha_world *w, struct ha_memory *m)
{
    set_other_primary(w, m);
    w->s.pause = true;
}

static void set_foreign(struct ha_world *w, struct ha_memory *m)
{
    (void)m;
    is_down(w);
    dra_str_clip(w->pg.sysid, sizeof w->pg.sysid, "7000000000000000999");
}

static void set_late(struct ha_world *w, struct ha_memory *m)
{
    set_promote(w, m);
    w->late = true;
}

static void set_empty(struct ha_world *w, struct ha_memory *m)
{
    (void)m;
    is_down(w);
    w->pg.datadir = HA_DATADIR_EMPTY;
    w->pg.sysid[0] = '\0';
}

static void set_empty_none(struct ha_world *w, struct ha_memory *m)
{
    set_empty(w, m);
    nobody(w);
}

static void set_new_cluster(struct ha_world *w, struct ha_memory *m)
{
    set_empty_none(w, m);
    w->cluster.initialize = HA_INIT_ABSENT;
    w->cluster.sysid[0] = '\0';
}

/* ---- rows ------------------------------------------------------------------------------------------- */

struct row {
    const char *name;
    void (*set)(struct ha_world *w, struct ha_memory *m);
    const char *rule;
    enum ha_job_kind job;
    enum ha_effect_kind effect; /* has to be in the plan; NONE = not asked */
};
static const struct row rows[] = {
    {"mine, primary: stays (HA-81)", set_hold, "leader.hold", HA_JOB_NONE, HA_EFFECT_NONE},
    {"mine, primary, 1 s without answer: nothing (LIVE-02)", set_hold_silent, "leader.hold", HA_JOB_NONE, HA_EFFECT_RENEW},
    {"mine, no answer for retry_timeout: demote (HA-100)", set_outage, "outage.demote", HA_JOB_STOP, HA_EFFECT_NONE},
    {"mine, lease about to end: kill (SAFE-01)", set_uncertain, "fence.uncertain", HA_JOB_STOP, HA_EFFECT_GUARD_FENCE},
    {"mine, definite no, primary: kill (SAFE-03)", set_lost, "fence.lost", HA_JOB_STOP, HA_EFFECT_GUARD_FENCE},
    {"mine, definite no, standby: nothing (HA section 30)", set_lost_standby, "hold", HA_JOB_NONE, HA_EFFECT_NONE},
    {"mine, primary, switchover: demote (HA-210)", set_switchover, "handover.begin", HA_JOB_STOP, HA_EFFECT_NONE},
    {"mine, primary, switchover to nobody: cleared (LIVE-06)", set_switchover_nobody, "handover.begin", HA_JOB_NONE,
     HA_EFFECT_CLEAR_FAILOVER},
    {"mine, standby, guarded: promote (HA-88)", set_promote, "leader.promote", HA_JOB_PROMOTE, HA_EFFECT_NONE},
    {"mine, standby, no guard: arm first (SAFE-33)", set_unguarded, "guard.arm", HA_JOB_NONE, HA_EFFECT_GUARD_ARM},
    {"mine, an epoch of the agent before: put anew (SAFE-31)", set_inherited, "leader.attach", HA_JOB_NONE, HA_EFFECT_REATTACH},
    {"mine without election, peer ahead: release (SAFE-32)", set_again, "election.again", HA_JOB_NONE, HA_EFFECT_RELEASE},
    {"other, primary: kill (HA-132)", set_other_primary, "fence.lost", HA_JOB_STOP, HA_EFFECT_NONE},
    {"other, standby, another upstream: follow (HA-82)", set_other_upstream, "follow.change", HA_JOB_NONE, HA_EFFECT_FOLLOW},
    {"other, standby: nothing (HA-82)", set_nothing, "follow.hold", HA_JOB_NONE, HA_EFFECT_NONE},
    {"none, primary: kill, never take the key back unseen (SAFE-03)", set_none_primary, "fence.lost", HA_JOB_STOP, HA_EFFECT_NONE},
    {"none, standby, eligible: race (HA-70)", set_none, "election.race", HA_JOB_NONE, HA_EFFECT_ACQUIRE},
    {"none, standby, lags (SAFE-06)", set_none_lag, "election.defer", HA_JOB_NONE, HA_EFFECT_FOLLOW},
    {"none, standby, peer ahead (SAFE-07)", set_none_ahead, "election.defer", HA_JOB_NONE, HA_EFFECT_FOLLOW},
    {"none, standby, a primary lives (HA-73)", set_none_alive, "election.defer", HA_JOB_NONE, HA_EFFECT_FOLLOW},
    {"none, standby, nofailover (SAFE-27)", set_none_nofailover, "election.defer", HA_JOB_NONE, HA_EFFECT_FOLLOW},
    {"none, standby, old timeline (SAFE-05)", set_none_timeline, "election.defer", HA_JOB_NONE, HA_EFFECT_FOLLOW},
    {"none, switchover names me, others have more (WIN-18)", set_none_candidate_lags, "election.defer", HA_JOB_NONE,
     HA_EFFECT_FOLLOW},
    {"none, failover names me: a person's word (HA-72)", set_none_failover_to_me, "election.race", HA_JOB_NONE, HA_EFFECT_ACQUIRE},
    {"none, old leader unfenced after a pause (SAFE-43)", set_none_unfenced, "election.defer", HA_JOB_NONE, HA_EFFECT_FOLLOW},
    {"none, old leader seen as a standby (SAFE-43)", set_none_unfenced_seen, "election.race", HA_JOB_NONE, HA_EFFECT_ACQUIRE},
    {"unreadable, standby: left alone (HA-100)", set_stale, "outage.wait", HA_JOB_NONE, HA_EFFECT_NONE},
    {"mine, crashed: in place (HA-57)", set_crashed, "recover.in-place", HA_JOB_START_PRIMARY, HA_EFFECT_NONE},
    {"mine, crashed, lock not confirmed since: renew first (SAFE-04)", set_crashed_unconfirmed, "recover.in-place", HA_JOB_NONE,
     HA_EFFECT_RENEW},
    {"mine, start failed: give the key away (HA-59)", set_start_failed, "recover.give-up", HA_JOB_NONE, HA_EFFECT_RELEASE},
    {"mine, a standby's copy: start as standby (HA-56)", set_down_standby, "recover.readonly", HA_JOB_START_STANDBY, HA_EFFECT_NONE},
    {"other, former primary, clean: compare (HA-145)", set_rejoin, "rejoin.check", HA_JOB_NONE, HA_EFFECT_CHECK_UPSTREAM},
    {"other, former primary, crashed: recover first (HA-144)", set_rejoin_crashed, "rejoin.crash-recovery", HA_JOB_SINGLE_USER,
     HA_EFFECT_NONE},
    {"other, stopped standby: start (HA-82)", set_rejoin_standby, "rejoin.start", HA_JOB_START_STANDBY, HA_EFFECT_NONE},
    {"leftovers of a dead postmaster: kill (SAFE-34)", set_leftovers, "fence.leftovers", HA_JOB_STOP, HA_EFFECT_NONE},
    {"pause, mine, down: key released, nothing started (HA-250)", set_pause_down, "pause.hold", HA_JOB_NONE, HA_EFFECT_RELEASE},
    {"pause, other leads, primary here: left alone (HA-251)", set_pause_other, "pause.hold", HA_JOB_NONE, HA_EFFECT_NONE},
    {"foreign data: end with a message (HA-41)", set_foreign, "identity.mismatch", HA_JOB_NONE, HA_EFFECT_EXIT},
    {"late turn: look first (SAFE-21)", set_late, "turn.late", HA_JOB_NONE, HA_EFFECT_PROBE},
    {"empty, a leader: copy (HA-46)", set_empty, "data.copy", HA_JOB_BASEBACKUP, HA_EFFECT_NONE},
    {"empty, nobody leads: wait (HA-46)", set_empty_none, "data.wait", HA_JOB_NONE, HA_EFFECT_NONE},
    {"empty, no cluster: race (HA-45)", set_new_cluster, "bootstrap.race", HA_JOB_NONE, HA_EFFECT_INIT_RACE},
};

static bool has_effect(const struct ha_plan *p, enum ha_effect_kind kind)
{
    for (int i = 0; i < p->n_effects; i++) {
        if (p->effects[i].kind == kind) {
            return true;
        }
    }
    return false;
}

static void section_30(void **unused)
{
    static struct ha_world w;
    static struct ha_memory m;
    static struct ha_plan p;

    (void)unused;
    for (size_t i = 0; i < DRA_ARRAY_LEN(rows); i++) {
        const struct row *r = &rows[i];

        make_world(&w, &m);
        r->set(&w, &m);
        ha_decide(&w, &m, &p);
        if (strcmp(ha_rule_doc(p.rule)->name, r->rule) != 0 || p.job.kind != r->job ||
            (r->effect != HA_EFFECT_NONE && !has_effect(&p, r->effect))) {
            fail_msg("%s: want %s, job %s, effect %s; got %s, job %s (%s)", r->name, r->rule, ha_job_to_str(r->job),
                     ha_effect_to_str(r->effect), ha_rule_doc(p.rule)->name, ha_job_to_str(p.job.kind), p.reason);
        }
        assert_true(p.reason[0] != '\0');
    }
}

/* HA-195: without a guard there is no promotion; after 3 s somebody else gets the key. */
static void no_guard_releases(void **unused)
{
    static struct ha_world w;
    static struct ha_memory m;
    static struct ha_plan p;

    (void)unused;
    make_world(&w, &m);
    mine(&w, &m);
    w.guard.alive = DRA_NO;
    ha_decide(&w, &m, &p);
    assert_string_equal(ha_rule_doc(p.rule)->name, "guard.arm");
    assert_false(has_effect(&p, HA_EFFECT_RELEASE));
    w.now = at(4000);
    ha_decide(&w, &m, &p);
    assert_true(has_effect(&p, HA_EFFECT_RELEASE));
    assert_int_equal(p.job.kind, HA_JOB_NONE);
}

/* ---- every small world ---------------------------------------------------------------------------------- */

enum key { KEY_MINE, KEY_OTHER, KEY_NONE, KEYS };
enum cert { CERT_GOOD, CERT_EXPIRED, CERT_LOST, CERT_NEVER, CERT_GIVEN, CERTS };
enum grd { GUARD_ARMED, GUARD_FREE, GUARD_DEAD, GUARD_OTHER_EPOCH, GUARDS };

struct small {
    enum dra_tri postmaster, leftovers, in_recovery;
    int signalled, as_standby, key, cert, pause, guard, job, stale, late;
};

static void make_small(const struct small *x, struct ha_world *w, struct ha_memory *m)
{
    static const enum ha_job_kind jobs[] = {HA_JOB_NONE, HA_JOB_PROMOTE, HA_JOB_STOP};

    make_world(w, m);
    if (x->key == KEY_MINE) {
        mine(w, m);
    } else if (x->key == KEY_NONE) {
        nobody(w);
    }
    w->lease.epoch = x->cert == CERT_NEVER ? 0 : EPOCH;
    w->lease.certain_until = x->cert == CERT_EXPIRED ? at(-1) : x->cert == CERT_GOOD ? at(29000) : (struct dra_instant){0};
    w->lease.lost = x->cert == CERT_LOST;
    w->lease.given_away = x->cert == CERT_GIVEN;
    w->pg.postmaster = x->postmaster;
    w->pg.leftovers = x->leftovers;
    w->pg.in_recovery = x->in_recovery;
    w->pg.accepting = x->in_recovery == DRA_UNKNOWN ? DRA_NO : DRA_YES;
    w->pg.promote_signalled = x->signalled != 0;
    w->pg.started_as_standby = w->pg.standby_signal = x->as_standby != 0;
    w->pg.gone_at = x->postmaster == DRA_NO ? at(-2000) : (struct dra_instant){0};
    w->s.pause = x->pause != 0;
    w->cluster_stale = x->stale != 0;
    w->late = x->late != 0;
    if (x->guard == GUARD_ARMED || x->guard == GUARD_OTHER_EPOCH) {
        arm(w);
        w->guard.epoch = x->guard == GUARD_ARMED ? EPOCH : EPOCH - 1;
    }
    w->guard.alive = dra_tri_of(x->guard != GUARD_DEAD);
    if (x->job != 0) {
        w->job.phase = HA_PHASE_RUNNING;
        w->job.job.kind = jobs[x->job];
        w->job.job.mode = HA_STOP_FAST;
        w->job.id = 1;
        w->job.started_at = at(-100);
    }
}

static void small_fails(const struct small *x, const struct ha_plan *p, const char *what)
{
    fail_msg("%s: postmaster=%d leftovers=%d in_recovery=%d signalled=%d as_standby=%d key=%d cert=%d pause=%d guard=%d job=%d "
             "stale=%d late=%d: %s, job %s (%s)",
             what, x->postmaster, x->leftovers, x->in_recovery, x->signalled, x->as_standby, x->key, x->cert, x->pause, x->guard,
             x->job, x->stale, x->late, ha_rule_doc(p->rule)->name, ha_job_to_str(p->job.kind), p->reason);
}

static void check_small(const struct small *x)
{
    static struct ha_world w;
    static struct ha_memory m;
    static struct ha_plan p;
    bool certain;
    bool ends;
    bool not_ours;
    bool over;

    make_small(x, &w, &m);
    ha_decide(&w, &m, &p);
    certain = x->key == KEY_MINE && x->cert == CERT_GOOD;
    not_ours = x->key != KEY_MINE || x->cert == CERT_LOST;
    over = x->cert == CERT_EXPIRED;
    ends = p.job.kind == HA_JOB_STOP || p.cancel_job || has_effect(&p, HA_EFFECT_GUARD_FENCE) || w.job.job.kind == HA_JOB_STOP ||
           w.job.job.kind == HA_JOB_PROMOTE; /* a promotion is never cancelled: the armed guard ends it, or its own end does */
    if (w.pg.postmaster != DRA_UNKNOWN && !x->pause && ha_pg_may_write(&w.pg) && (not_ours || over) && !ends) {
        small_fails(x, &p, "SAFE-01/03: a server that may write without the key is not ended");
    }
    if (p.job.kind == HA_JOB_PROMOTE &&
        (!certain || x->guard != GUARD_ARMED || p.job.epoch != EPOCH || !dra_is_set(p.job.not_after) || x->late || x->pause)) {
        small_fails(x, &p, "SAFE-02/33: a promotion without certainty or guard");
    }
    if (p.job.kind == HA_JOB_START_PRIMARY && (!certain || p.job.epoch != EPOCH || !dra_is_set(p.job.not_after))) {
        small_fails(x, &p, "SAFE-04: a primary is started without the key");
    }
    if (x->pause && (p.job.kind != HA_JOB_NONE || has_effect(&p, HA_EFFECT_GUARD_FENCE))) {
        small_fails(x, &p, "SAFE-18: something is begun in pause");
    }
    if (has_effect(&p, HA_EFFECT_ACQUIRE) && (x->key != KEY_NONE || x->stale)) {
        small_fails(x, &p, "SAFE-32: the key is taken on a view that does not show it free");
    }
    if (has_effect(&p, HA_EFFECT_GUARD_DISARM) && !x->pause && ha_pg_may_write(&w.pg)) {
        small_fails(x, &p, "SAFE-33: the guard is let go while the server may write");
    }
    if (x->job != 0 && p.job.kind != HA_JOB_NONE) {
        small_fails(x, &p, "HA-30: two jobs");
    }
}

static void small_worlds(void **unused)
{
    static const int counts[] = {3, 2, 3, 2, 2, KEYS, CERTS, 2, GUARDS, 3, 2, 2};
    int digit[DRA_ARRAY_LEN(counts)] = {0};
    size_t seen = 0;
    size_t k = 0;

    (void)unused;
    while (k < DRA_ARRAY_LEN(counts)) {
        struct small x = {(enum dra_tri)digit[0], digit[1] != 0 ? DRA_YES : DRA_NO, (enum dra_tri)digit[2], digit[3], digit[4],
                          digit[5], digit[6], digit[7], digit[8], digit[9], digit[10], digit[11]};

        check_small(&x);
        seen++;
        for (k = 0; k < DRA_ARRAY_LEN(counts) && ++digit[k] == counts[k]; k++) {
            digit[k] = 0;
        }
    }
    assert_int_equal(seen, 3 * 2 * 3 * 2 * 2 * KEYS * CERTS * 2 * GUARDS * 3 * 2 * 2);
}

/* The same world and memory give the same plan, byte for byte in what counts. */
static void pure(void **unused)
{
    static struct ha_world w;
    static struct ha_memory m[2];
    static struct ha_plan p[2];

    (void)unused;
    for (size_t i = 0; i < DRA_ARRAY_LEN(rows); i++) {
        for (int k = 0; k < 2; k++) {
            make_world(&w, &m[k]);
            rows[i].set(&w, &m[k]);
            memset(&p[k], k == 0 ? 0x55 : 0xAA, sizeof p[k]); /* nothing of an old plan shines through */
            ha_decide(&w, &m[k], &p[k]);
        }
        assert_int_equal(p[0].rule, p[1].rule);
        assert_int_equal(p[0].n_effects, p[1].n_effects);
        assert_int_equal(p[0].wake_at.ns, p[1].wake_at.ns);
        assert_string_equal(p[0].reason, p[1].reason);
        assert_string_equal(p[0].detail, p[1].detail);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(section_30),
        cmocka_unit_test(no_guard_releases),
        cmocka_unit_test(small_worlds),
        cmocka_unit_test(pure),
    };

    return cmocka_run_group_tests_name("ha", tests, NULL, NULL);
}
