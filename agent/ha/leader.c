/*
 * leader.c - the key names us: attach, confirm, arm, promote, hold.
 *
 * The order is that of SAFE-33: certainty first, then the guard, then the server may become writable.
 */
#include "rules.h"

#include <string.h>

static bool guard_ready(const struct ha_facts *f)
{
    const struct ha_guard *g = &f->w->guard;

    if (!f->w->s.guard_required) {
        return true;
    }
    return g->armed && !g->fenced && g->pid != 0 && g->pid == f->w->pg.pid && g->epoch == f->w->cluster.leader_rev &&
           !dra_reached(f->w->now, g->deadline);
}

/* ---- leader.attach --------------------------------------------------------------------------- */

/* SAFE-31: an epoch that this agent did not begin may have been given away by the one before it, in a request that is still
 * on its way.  Nothing is started or promoted in such an epoch: the key is put anew, which makes that request fail. */
static bool epoch_is_inherited(const struct ha_facts *f)
{
    const struct ha_world *w = f->w;

    return !f->paused && (f->down || w->pg.in_recovery == DRA_YES) && !w->lease.given_away &&
           !w->effects[HA_EFFECT_MOVE].inflight && !w->effects[HA_EFFECT_RELEASE].inflight &&
           !w->effects[HA_EFFECT_ACQUIRE].inflight && /* the watch may be faster than its answer */
           w->effects[HA_EFFECT_ACQUIRE].epoch != w->cluster.leader_rev &&
           w->effects[HA_EFFECT_REATTACH].epoch != w->cluster.leader_rev;
}

bool leader_attach_when(const struct ha_facts *f)
{
    return f->has_lock && !f->w->cluster_stale &&
           (f->w->cluster.leader_lease != f->w->lease.id || epoch_is_inherited(f));
}

void leader_attach_act(const struct ha_facts *f, struct ha_plan *p)
{
    struct ha_effect *e;

    if (f->w->lease.id == 0) {
        plan_keep_lease(f, p);
    } else if (plan_due(f, HA_EFFECT_REATTACH, dra_ms(100))) {
        e = plan_add(p, HA_EFFECT_REATTACH);
        e->epoch = f->w->cluster.leader_rev;
    }
    plan_wake(p, dra_after(f->w->now, dra_ms(100)));
    plan_reason(p, "attaching the leader lock to the current lease");
}

/* ---- lease.renew ------------------------------------------------------------------------------- */

bool leader_confirm_when(const struct ha_facts *f)
{
    return f->has_lock && !f->certain && f->running;
}

void leader_confirm_act(const struct ha_facts *f, struct ha_plan *p)
{
    plan_renew(f, p);
    plan_reason(p, "confirming the leader lock");
    p->role = f->primary ? HA_ROLE_PRIMARY : HA_ROLE_REPLICA;
}

/* ---- guard.arm ------------------------------------------------------------------------------------ */

bool leader_arm_when(const struct ha_facts *f)
{
    if (!f->has_lock || !f->running || f->paused || guard_ready(f)) {
        return false;
    }
    return f->may_write || HA_ON(ARM_BEFORE_PROMOTE);
}

void leader_arm_act(const struct ha_facts *f, struct ha_plan *p)
{
    struct ha_effect *e;

    plan_renew(f, p);
    p->role = f->may_write ? HA_ROLE_PRIMARY : HA_ROLE_REPLICA;
    if (f->may_write) {
        p->leader = true;
        p->lead_until = f->fence_at;
    }
    plan_arm(f, p);
    plan_reason(p, "arming the guard");
    if (!f->may_write && f->w->guard.alive == DRA_NO && dra_is_set(f->m->rule_since) &&
        dra_since(f->w->now, f->m->rule_since).ns > dra_ms(3000).ns &&
        strcmp(ha_rule_doc(f->m->rule)->name, "guard.arm") == 0) {
        e = plan_add_once(f, p, HA_EFFECT_RELEASE);
        if (e != NULL) {
            e->epoch = f->w->cluster.leader_rev;
            f->m->given_at = f->w->now;
            f->m->promote_failed_at = f->w->now;
        }
        plan_reason(p, "Not promoting self because the guard could not be started");
    }
}

/* ---- leader.promote ---------------------------------------------------------------------------------- */

static void release_after_failure(const struct ha_facts *f, struct ha_plan *p)
{
    struct ha_effect *e = plan_add_once(f, p, HA_EFFECT_RELEASE);

    if (e != NULL) {
        e->epoch = f->w->cluster.leader_rev;
        f->m->given_at = f->w->now;
    }
    plan_reason(p, "Promotion cancelled: %s; releasing the leader lock", f->w->job.last.msg);
}

bool leader_promote_when(const struct ha_facts *f)
{
    /* Also when an earlier agent may have asked already: asking twice does no harm. */
    return f->has_lock && f->running && f->w->pg.in_recovery == DRA_YES && !f->paused;
}

void leader_promote_act(const struct ha_facts *f, struct ha_plan *p)
{
    struct ha_job *j;

    plan_renew(f, p);
    p->role = HA_ROLE_REPLICA;
    if (dra_is_set(f->m->promote_failed_at) && !dra_reached(f->w->now, dra_after(f->m->promote_failed_at, f->w->s.ttl))) {
        if (f->w->pg.promote_signalled) { /* SAFE-31: it may still become a primary; the key goes when it has stopped */
            plan_stop(f, p, HA_STOP_IMMEDIATE, false);
            plan_reason(p, "Promotion failed: %s; stopping PostgreSQL before the leader lock is released", f->w->job.last.msg);
            return;
        }
        release_after_failure(f, p);
        return;
    }
    p->role = HA_ROLE_PROMOTED;
    plan_reason(p, "promoted self to leader by acquiring session lock");
    if (f->w->job.last.kind == HA_JOB_PROMOTE && f->w->job.last.ok && f->w->pg.answered_at.ns < f->w->job.last.ended_at.ns) {
        if (plan_due(f, HA_EFFECT_PROBE, dra_ms(5))) {
            (void)plan_add(p, HA_EFFECT_PROBE); /* it ended well; the last answer is older */
        }
        plan_wake(p, dra_after(f->w->now, dra_ms(5)));
        return;
    }
    j = plan_job(f, p, HA_JOB_PROMOTE);
    if (j != NULL) {
        j->epoch = f->w->cluster.leader_rev;
        j->not_after = f->fence_at;
        f->m->checkpoint_done = false;
    }
    plan_detail(p, "epoch=%lld timeline=%u position=%llu", (long long)f->w->cluster.leader_rev, f->w->pg.timeline,
                (unsigned long long)ha_pg_position(&f->w->pg));
}

/* ---- leader.hold --------------------------------------------------------------------------------------- */

bool leader_hold_when(const struct ha_facts *f)
{
    return f->has_lock && f->primary;
}

void leader_hold_act(const struct ha_facts *f, struct ha_plan *p)
{
    plan_renew(f, p);
    p->role = HA_ROLE_PRIMARY;
    p->leader = true;
    p->lead_until = f->fence_at;
    f->m->was_primary = true;
    f->m->rewind = HA_REWIND_NONE;
    f->m->demoted = false;
    if (plan_due(f, HA_EFFECT_PROBE, f->beat)) {
        (void)plan_add(p, HA_EFFECT_PROBE);
    }
    plan_wake(p, dra_after(f->w->effects[HA_EFFECT_PROBE].started_at, f->beat));
    plan_wake(p, f->fence_at);
    if (f->w->lease.unanswered_since.ns != 0) {
        plan_note(p, "DCS does not answer since %lld ms",
                  (long long)dra_span_ms(dra_since(f->w->now, f->w->lease.unanswered_since)) / 500 * 500);
        plan_wake(p, dra_after(f->w->now, dra_ms(100)));
    }
    plan_reason(p, "no action. I am (%s), the leader with the lock", f->w->me);
}

/* ---- leader.starting -------------------------------------------------------------------------------------- */

bool leader_starting_when(const struct ha_facts *f)
{
    return f->has_lock && f->running;
}

void leader_starting_act(const struct ha_facts *f, struct ha_plan *p)
{
    plan_renew(f, p);
    if (plan_due(f, HA_EFFECT_PROBE, dra_ms(50))) {
        (void)plan_add(p, HA_EFFECT_PROBE);
    }
    plan_wake(p, dra_after(f->w->now, dra_ms(50)));
    plan_reason(p, "PostgreSQL is still starting up");
    /* HA-34: past primary_start_timeout another node is to lead, if there is one. */
    if (f->m->start_failures > 0 && f->w->cluster.n_members > 1 && f->w->pg.in_recovery == DRA_UNKNOWN) {
        plan_stop(f, p, HA_STOP_IMMEDIATE, false);
        plan_reason(p, "stopped PostgreSQL because of startup timeout");
    }
}
