/*
 * safety.c - the rules that stop a server.  Nothing slow or fallible stands before the signal (SAFE-03).
 */
#include "rules.h"

#include <string.h>

/* A server in pause is not fenced (SAFE-43). */
static bool fencing_applies(const struct ha_facts *f)
{
    return !f->paused;
}

/* ---- start.observe ---------------------------------------------------------------------- */

bool start_observe_when(const struct ha_facts *f)
{
    const struct ha_pg *pg = &f->w->pg;

    return !dra_is_set(pg->files_at) || pg->postmaster == DRA_UNKNOWN;
}

void start_observe_act(const struct ha_facts *f, struct ha_plan *p)
{
    if (plan_due(f, HA_EFFECT_READ_FILES, dra_ms(200))) {
        (void)plan_add(p, HA_EFFECT_READ_FILES);
    }
    plan_keep_lease(f, p);
    plan_wake(p, dra_after(f->w->now, dra_ms(200)));
    plan_reason(p, "looking at the data directory and the server");
}

/* ---- fence.uncertain --------------------------------------------------------------------- */

bool fence_uncertain_when(const struct ha_facts *f)
{
    return HA_ON(FENCE_UNCERTAIN) && fencing_applies(f) && f->may_write && dra_is_set(f->fence_at) &&
           dra_reached(f->w->now, f->fence_at);
}

void fence_uncertain_act(const struct ha_facts *f, struct ha_plan *p)
{
    plan_kill(f, p);
    f->m->demoted = true;
    f->m->rewind = HA_REWIND_CHECK;
    p->role = HA_ROLE_DEMOTED;
    plan_reason(p, "demoted self because the leader lease could not be renewed in time");
}

/* ---- fence.lost ---------------------------------------------------------------------------- */

/* Found running as primary after a start of the agent, with the key gone: nothing proves that nobody else leads. */
bool fence_lost_when(const struct ha_facts *f)
{
    if (!HA_ON(FENCE_LOST) || !fencing_applies(f) || !f->may_write || !f->known) {
        return false;
    }
    if (f->has_lock || f->w->cluster.initialize == HA_INIT_ABSENT) {
        return false;
    }
    if (f->m->handover != HA_HANDOVER_NONE && handover_stopped(f)) {
        return false; /* shut down in order; archiver and walsenders acknowledge nothing (SAFE-34) */
    }
    /* A server that was not asked yet gets one question, whose deadline the runtime sets. */
    return f->w->pg.in_recovery != DRA_UNKNOWN || !f->running || f->w->pg.accepting == DRA_NO;
}

void fence_lost_act(const struct ha_facts *f, struct ha_plan *p)
{
    plan_kill(f, p);
    f->m->demoted = true;
    f->m->rewind = HA_REWIND_CHECK;
    p->role = HA_ROLE_DEMOTED;
    if (f->other) {
        plan_reason(p, "demoted self because the leader lock is held by %s", f->w->cluster.leader);
    } else {
        plan_reason(p, "demoted self because the leader lock is gone");
    }
}

/* ---- turn.late -------------------------------------------------------------------------------- */

bool turn_late_when(const struct ha_facts *f)
{
    return f->w->late;
}

void turn_late_act(const struct ha_facts *f, struct ha_plan *p)
{
    (void)plan_add_once(f, p, HA_EFFECT_PROBE);
    if (f->has_lock && !f->w->lease.renew_inflight && f->w->lease.id == f->w->cluster.leader_lease) {
        struct ha_effect *e = plan_add_once(f, p, HA_EFFECT_RENEW);

        if (e != NULL) {
            e->epoch = f->w->cluster.leader_rev;
        }
    }
    plan_wake(p, f->w->now);
    plan_reason(p, "stood still for a while, looking first");
}

/* ---- fence.leftovers --------------------------------------------------------------------------- */

bool fence_leftovers_when(const struct ha_facts *f)
{
    return HA_ON(ALL_GONE) && f->w->pg.postmaster == DRA_NO && f->w->pg.leftovers != DRA_NO;
}

void fence_leftovers_act(const struct ha_facts *f, struct ha_plan *p)
{
    if (f->w->pg.leftovers == DRA_UNKNOWN) {
        if (plan_due(f, HA_EFFECT_READ_FILES, dra_ms(20))) {
            (void)plan_add(p, HA_EFFECT_READ_FILES);
        }
        plan_wake(p, dra_after(f->w->now, dra_ms(20)));
    } else if (!f->paused) {
        plan_stop(f, p, HA_STOP_KILL, false);
    }
    if (f->has_lock) {
        plan_renew(f, p);
    }
    /* In pause they end by themselves, and only then is the key given up (SAFE-18, SAFE-34). */
    plan_reason(p, f->paused ? "PAUSE: processes of the ended server are still there" : "ending what is left of the server");
}

/* ---- outage.demote -------------------------------------------------------------------------------- */

static struct dra_instant outage_limit(const struct ha_facts *f)
{
    const struct ha_world *w = f->w;
    struct dra_span patience = w->s.retry_timeout;
    struct dra_instant limit;

    /* An election in etcd takes up to 2.6 s; less than 3 s of silence is nothing (HA-100, design.md). */
    if (patience.ns < dra_ms(3000).ns) {
        patience = dra_ms(3000);
    }
    limit = dra_after(w->lease.unanswered_since, patience);
    if (dra_is_set(f->fence_at)) {
        /* Leave a fast stop time to end before the guard strikes: a tenth of the lease, at most a second. */
        int64_t stop_ms = dra_span_ms(w->s.ttl) / 10;

        limit = dra_earlier(limit, dra_before(f->fence_at, dra_ms(stop_ms > 1000 ? 1000 : stop_ms)));
    }
    return limit;
}

bool outage_demote_when(const struct ha_facts *f)
{
    return HA_ON(DEMOTE_OUTAGE) && fencing_applies(f) && f->running && f->may_write && f->job_kind != HA_JOB_STOP &&
           dra_is_set(f->w->lease.unanswered_since) && dra_reached(f->w->now, outage_limit(f));
}

void outage_demote_act(const struct ha_facts *f, struct ha_plan *p)
{
    plan_stop(f, p, HA_STOP_FAST, false);
    plan_renew(f, p);
    f->m->demoted = true;
    f->m->outage_demoted_at = f->w->now;
    p->role = HA_ROLE_DEMOTED;
    plan_wake(p, f->fence_at);
    plan_reason(p, "demoted self because DCS is not accessible and I was a leader");
}

/* Nothing is promoted on the strength of a view that nobody confirms (HA-88 needs "just confirmed"). */
bool outage_wait_when(const struct ha_facts *f)
{
    return dra_is_set(f->w->lease.unanswered_since) && !f->may_write && !f->paused && (f->has_lock || f->w->cluster_stale);
}

void outage_wait_act(const struct ha_facts *f, struct ha_plan *p)
{
    if (f->has_lock) {
        plan_renew(f, p);
    } else {
        plan_keep_lease(f, p);
    }
    if (plan_due(f, HA_EFFECT_READ_DCS, dra_ms(1000))) {
        (void)plan_add(p, HA_EFFECT_READ_DCS);
    }
    p->role = HA_ROLE_REPLICA;
    plan_wake(p, dra_after(f->w->now, dra_ms(1000)));
    plan_reason(p, "DCS is not accessible");
}
