/*
 * handover.c - giving the lead away in order: switchover, manual failover, and the last step of a shutdown.
 *
 * The key goes only when the server is stopped (SAFE-34) and a candidate holds the shutdown checkpoint (SAFE-11).
 * Until then everything can be taken back: the old primary still holds the key and serves again.
 */
#include "rules.h"

#include <string.h>

#define CONFIRM_MS 5000          /* a candidate that was eligible a moment ago has this long to take in the last record */
#define SHUTDOWN_SLACK 8192      /* a page: where the record ends is not always known to the byte */
#define CONFIRM_SHUTDOWN_MS 1000 /* HA-129: an orderly stop of the agent waits less */

static bool request_pending(const struct ha_facts *f)
{
    const struct ha_cluster *c = &f->w->cluster;

    return f->known && c->failover_rev != 0 && c->failover_rev != f->m->clear_rev &&
           (c->failover.leader[0] != '\0' || c->failover.member[0] != '\0' || c->failover.schedule_invalid);
}

static void clear_request(const struct ha_facts *f, struct ha_plan *p)
{
    struct ha_effect *e = plan_add_once(f, p, HA_EFFECT_CLEAR_FAILOVER);

    if (e != NULL) {
        e->number = f->w->cluster.failover_rev;
        f->m->clear_rev = f->w->cluster.failover_rev;
    }
}

/* Seconds until the time that was asked for; negative once it has passed. */
static int64_t due_in_s(const struct ha_facts *f)
{
    return f->w->cluster.failover.scheduled ? f->w->cluster.failover.scheduled_at - f->w->wall_s : 0;
}

static bool is_stale(const struct ha_facts *f)
{
    return f->w->cluster.failover.scheduled && due_in_s(f) * 1000 < -dra_span_ms(f->w->s.loop_wait) * 3 / 2;
}

/* ---- candidates ------------------------------------------------------------------------------- */

/* HA-77, asked of peers that were polled: position at least `need` (0: within the lag limit), on our timeline: positions of
 * different timelines say nothing about each other (SAFE-41). */
static bool eligible(const struct ha_facts *f, int i, uint64_t need)
{
    const struct ha_world *w = f->w;
    const struct ha_member *mb = &w->cluster.members[i];
    const struct ha_peer *peer = &w->peers[i];
    uint64_t mine = ha_pg_position(&w->pg);
    uint32_t timeline = f->running ? w->pg.timeline : w->pg.control_timeline;

    if (peer->timeline != timeline || strcmp(mb->name, w->me) == 0 || !peer->answered || peer->in_recovery != DRA_YES || peer->nofailover ||
        peer->watchdog_failed) {
        return false;
    }
    if (need > 0) {
        /* Nothing follows a shutdown checkpoint: who has more went another way under the same timeline number (WIN-10). */
        return peer->position >= need && (peer->position <= need + SHUTDOWN_SLACK || !HA_ON(CONFIRM_SHUTDOWN));
    }
    return mine <= peer->position || mine - peer->position <= w->s.maximum_lag_on_failover;
}

/* The named candidate, or the best of all: furthest, then priority, then name.  -1: nobody. */
static int best_candidate(const struct ha_facts *f, const char *named, uint64_t need)
{
    const struct ha_world *w = f->w;
    int best = -1;

    for (int i = 0; i < w->cluster.n_members; i++) {
        if ((named[0] != '\0' && strcmp(named, w->cluster.members[i].name) != 0) || !eligible(f, i, need)) {
            continue;
        }
        if (best < 0 || w->peers[i].position > w->peers[best].position ||
            (w->peers[i].position == w->peers[best].position &&
             w->peers[i].failover_priority > w->peers[best].failover_priority)) {
            best = i;
        }
    }
    return best;
}

/* ---- handover.begin ------------------------------------------------------------------------------ */

bool handover_begin_when(const struct ha_facts *f)
{
    if (!f->has_lock || !f->primary || !f->certain || f->job || f->m->handover != HA_HANDOVER_NONE || !request_pending(f)) {
        return false;
    }
    return f->w->cluster.failover.schedule_invalid || is_stale(f) || (due_in_s(f) <= 0 && !(f->w->s.pause && f->w->cluster.failover.scheduled));
}

static const char *refusal(const struct ha_facts *f)
{
    const struct ha_cluster *c = &f->w->cluster;

    if (c->failover.schedule_invalid) {
        return "its time cannot be read or has no zone";
    }
    if (is_stale(f)) {
        return "its time has passed";
    }
    if (c->failover.leader[0] != '\0' && strcmp(c->failover.leader, f->w->me) != 0) {
        return "it names another leader";
    }
    if (strcmp(c->failover.member, f->w->me) == 0) {
        return "the candidate leads already";
    }
    if (f->w->s.pause && c->failover.member[0] == '\0') {
        return "in pause a candidate has to be named";
    }
    if (c->failover.member[0] != '\0' && ha_member_find(c, c->failover.member) < 0) {
        return "the candidate is not a member";
    }
    return NULL;
}

void handover_begin_act(const struct ha_facts *f, struct ha_plan *p)
{
    const struct ha_cluster *c = &f->w->cluster;
    const char *no = refusal(f);
    struct ha_memory *m = f->m;
    int best;

    plan_renew(f, p);
    p->role = HA_ROLE_PRIMARY;
    p->leader = true;
    p->lead_until = f->fence_at;
    if (no != NULL) {
        plan_reason(p, "not doing the %s: %s", c->failover.leader[0] != '\0' ? "switchover" : "failover", no);
        clear_request(f, p);
        return;
    }
    if (m->handover_rev != c->failover_rev) {
        m->handover_rev = c->failover_rev;
        m->handover_at = f->w->now;
    }
    plan_reason(p, "looking for a candidate to hand over to");
    if (!election_informed(f, p, m->handover_at)) {
        return;
    }
    best = best_candidate(f, c->failover.member, 0);
    if (best < 0) {
        plan_reason(p, "not doing the %s: no eligible candidate%s%s within maximum_lag_on_failover",
                    c->failover.leader[0] != '\0' ? "switchover" : "failover", c->failover.member[0] != '\0' ? " " : "",
                    c->failover.member);
        clear_request(f, p);
        return;
    }
    m->handover = HA_HANDOVER_STOP;
    m->handover_at = f->w->now;
    m->handover_stopped_at = (struct dra_instant){0};
    m->release_for_shutdown = false;
    dra_str_clip(m->handover_to, sizeof m->handover_to, c->failover.member);
    plan_stop(f, p, HA_STOP_FAST, true);
    plan_reason(p, "%s: demoting self", c->failover.leader[0] != '\0' ? "switchover" : "manual failover");
    plan_detail(p, "candidate=%s", c->failover.member[0] != '\0' ? c->failover.member : c->members[best].name);
}

/* ---- handover.confirm -------------------------------------------------------------------------------- */

/* SAFE-34: no process lives, or the control file says so while only archiver and walsenders are left. */
bool handover_stopped(const struct ha_facts *f)
{
    const struct ha_pg *pg = &f->w->pg;

    if (f->down) {
        return pg->files_at.ns >= pg->gone_at.ns;
    }
    return f->job && f->job_kind == HA_JOB_STOP && pg->control == HA_CONTROL_SHUT_DOWN &&
           pg->files_at.ns >= f->m->handover_at.ns;
}

static bool handing_over(const struct ha_facts *f)
{
    return f->m->handover == HA_HANDOVER_STOP || f->m->handover == HA_HANDOVER_CONFIRM;
}

bool handover_confirm_when(const struct ha_facts *f)
{
    struct ha_memory *m = f->m;

    if (handing_over(f) && !f->has_lock) {
        m->handover = HA_HANDOVER_GIVEN; /* the key is gone, whoever took it */
        m->demoted = true;
    }
    if (m->handover == HA_HANDOVER_GIVEN && f->standby && !f->has_lock) {
        m->handover = HA_HANDOVER_NONE;
    }
    if (handing_over(f) && m->handover == HA_HANDOVER_STOP && !f->job && f->primary &&
        f->w->job.last.kind == HA_JOB_STOP && f->w->job.last.started_at.ns >= m->handover_at.ns) {
        m->handover = HA_HANDOVER_NONE; /* the stop failed: the old primary goes on serving */
    }
    return handing_over(f) && f->has_lock && !f->w->lease.given_away && handover_stopped(f) &&
           f->w->pg.control == HA_CONTROL_SHUT_DOWN;
}

static void give(const struct ha_facts *f, struct ha_plan *p, int to)
{
    const struct ha_cluster *c = &f->w->cluster;
    struct ha_effect *status = plan_add_once(f, p, HA_EFFECT_PUT_STATUS);
    struct ha_effect *e;
    /* DCS-54a: by name to one of ours; a lease that is gone means release. */
    bool move = to >= 0 && c->members[to].dragent[0] != '\0' && c->members[to].lease != 0 &&
                !(f->w->effects[HA_EFFECT_MOVE].result == DRA_ENOTFOUND &&
                  f->w->effects[HA_EFFECT_MOVE].started_at.ns >= f->m->handover_at.ns);

    if (status != NULL) {
        status->final = true;
        status->lsn = f->w->pg.checkpoint_lsn;
        status->epoch = c->leader_rev;
    }
    e = plan_add_once(f, p, move ? HA_EFFECT_MOVE : HA_EFFECT_RELEASE);
    if (e != NULL) {
        e->epoch = c->leader_rev;
        if (move) {
            dra_str_clip(e->name, sizeof e->name, c->members[to].name);
            e->lease = c->members[to].lease;
        }
        if (status != NULL) {
            e->after = plan_ref(p, status);
        }
        f->m->given_at = f->w->now;
    }
}

void handover_confirm_act(const struct ha_facts *f, struct ha_plan *p)
{
    const struct ha_world *w = f->w;
    struct ha_memory *m = f->m;
    int to;

    p->role = HA_ROLE_DEMOTED;
    if (m->handover != HA_HANDOVER_CONFIRM) {
        m->handover = HA_HANDOVER_CONFIRM;
        m->handover_stopped_at = w->now;
        m->poll_wanted_at = w->now;
    }
    /* The end of the shutdown checkpoint record; without it anything beyond its beginning. */
    m->shutdown_lsn = w->pg.checkpoint_end_lsn != 0 ? w->pg.checkpoint_end_lsn : w->pg.checkpoint_lsn + 1;
    plan_renew(f, p);
    plan_reason(p, "PostgreSQL is shut down; waiting until a candidate has its last record");
    plan_detail(p, "shutdown_lsn=%llu", (unsigned long long)m->shutdown_lsn);
    to = best_candidate(f, m->handover_to, HA_ON(CONFIRM_SHUTDOWN) ? m->shutdown_lsn : 1);
    if (to >= 0 && w->poll_at.ns >= m->handover_stopped_at.ns) {
        plan_reason(p, "handing the leader lock over to %s", w->cluster.members[to].name);
        give(f, p, to);
        return;
    }
    if (!w->effects[HA_EFFECT_POLL_PEERS].inflight && plan_due(f, HA_EFFECT_POLL_PEERS, dra_ms(10))) {
        (void)plan_add(p, HA_EFFECT_POLL_PEERS);
    }
    plan_wake(p, dra_after(w->now, dra_ms(10)));
    if (m->release_for_shutdown && dra_reached(w->now, dra_after(m->handover_stopped_at, dra_ms(CONFIRM_SHUTDOWN_MS))) && f->down) {
        plan_reason(p, "no other member has the last record; releasing the leader lock");
        give(f, p, -1);
        m->handover = HA_HANDOVER_GIVE;
    }
}

/* ---- handover.back ---------------------------------------------------------------------------------------- */

bool handover_back_when(const struct ha_facts *f)
{
    if (!handing_over(f) || f->m->release_for_shutdown || !f->has_lock || !f->down || f->w->lease.given_away) {
        return false;
    }
    if (f->w->effects[HA_EFFECT_MOVE].inflight || f->w->effects[HA_EFFECT_RELEASE].inflight) {
        return false; /* it waits behind the last status and may leave at any moment (SAFE-31) */
    }
    /* Not a clean stop (the ladder had to kill), or nobody confirmed in time. */
    return (f->w->pg.control != HA_CONTROL_SHUT_DOWN && f->w->pg.files_at.ns >= f->w->pg.gone_at.ns) ||
           (f->m->handover == HA_HANDOVER_CONFIRM &&
            dra_reached(f->w->now, dra_after(f->m->handover_stopped_at, dra_ms(CONFIRM_MS))));
}

void handover_back_act(const struct ha_facts *f, struct ha_plan *p)
{
    plan_renew(f, p);
    clear_request(f, p);
    f->m->handover = HA_HANDOVER_NONE;
    f->m->demoted = false;
    p->role = HA_ROLE_DEMOTED;
    plan_wake(p, f->w->now);
    plan_reason(p, "the hand-over is called off: no candidate has the last record; serving again");
}

/* ---- handover.unsure ---------------------------------------------------------------------------------------- */

bool handover_unsure_when(const struct ha_facts *f)
{
    const struct ha_world *w = f->w;

    return f->has_lock && w->lease.given_away && w->lease.epoch == w->cluster.leader_rev &&
           !w->effects[HA_EFFECT_MOVE].inflight && !w->effects[HA_EFFECT_RELEASE].inflight &&
           !(w->shutdown && f->down);
}

void handover_unsure_act(const struct ha_facts *f, struct ha_plan *p)
{
    struct ha_effect *e;

    p->role = HA_ROLE_DEMOTED;
    plan_keep_lease(f, p);
    plan_reason(p, "a hand-over of the leader lock got no answer; putting the lock anew before anything else");
    if (plan_due(f, HA_EFFECT_REATTACH, dra_ms(200))) {
        e = plan_add(p, HA_EFFECT_REATTACH);
        e->epoch = f->w->cluster.leader_rev;
    }
    f->m->handover = HA_HANDOVER_NONE;
    f->m->elected_epoch = 0;
    plan_wake(p, dra_after(f->w->now, dra_ms(200)));
}
