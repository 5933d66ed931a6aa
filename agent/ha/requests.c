/*
 * requests.c - what people ask for (restart, new copy, stop), and the rule that waits for a running job.
 */
#include "rules.h"

#include <string.h>

static void reply(struct ha_plan *p, uint64_t id, bool ok, const char *text)
{
    struct ha_effect *e = plan_add(p, HA_EFFECT_REPLY);

    e->request_id = id;
    e->ok = ok;
    dra_str_clip(e->text, sizeof e->text, text);
}

static bool pending(const struct ha_facts *f, enum ha_request_kind kind)
{
    return f->w->request.kind == kind && f->w->request.id > f->m->seen_request_id;
}

/* ---- shutdown ------------------------------------------------------------------------------- */

static void plan_end(const struct ha_facts *f, struct ha_plan *p)
{
    struct ha_effect *e = plan_add(p, HA_EFFECT_EXIT);

    e->number = 0;
    f->m->exit_planned = true;
}

static bool tried_since_shutdown(const struct ha_facts *f, enum ha_effect_kind kind)
{
    return f->w->effects[kind].started_at.ns >= f->w->shutdown_at.ns;
}

bool shutdown_paused_when(const struct ha_facts *f)
{
    return f->w->shutdown && f->w->s.pause;
}

void shutdown_paused_act(const struct ha_facts *f, struct ha_plan *p)
{
    const struct ha_world *w = f->w;
    bool overdue = dra_reached(w->now, dra_after(w->shutdown_at, dra_ms(1000))); /* CLI-117: gone within 2 s */

    plan_reason(p, "PAUSE: ending without touching PostgreSQL");
    p->role = f->m->role;
    plan_wake(p, dra_after(w->now, dra_ms(100)));
    if (f->job && f->job_kind != HA_JOB_PROMOTE) {
        p->cancel_job = true;
        return;
    }
    if (w->effects[HA_EFFECT_PUT_MEMBER].inflight && !overdue) {
        return;
    }
    /* SAFE-43: our own key says that a person took us out in pause. */
    if (f->known && w->lease.id != 0 && !overdue && !tried_since_shutdown(f, HA_EFFECT_PUT_MEMBER)) {
        plan_add(p, HA_EFFECT_PUT_MEMBER)->role = f->m->role;
        return;
    }
    plan_end(f, p);
}

bool shutdown_stop_when(const struct ha_facts *f)
{
    return f->w->shutdown && !f->down;
}

void shutdown_stop_act(const struct ha_facts *f, struct ha_plan *p)
{
    struct ha_memory *m = f->m;

    if (f->has_lock) {
        plan_renew(f, p);
    }
    if (f->has_lock && f->primary && m->handover == HA_HANDOVER_NONE) {
        m->handover = HA_HANDOVER_STOP;
        m->handover_at = f->w->now;
        m->handover_stopped_at = (struct dra_instant){0};
        m->handover_to[0] = '\0';
        m->release_for_shutdown = true;
    }
    if (!f->job && f->w->job.last.kind == HA_JOB_STOP && f->w->job.last.started_at.ns >= f->w->shutdown_at.ns &&
        !f->w->job.last.ok) {
        plan_stop(f, p, HA_STOP_KILL, false);
    } else {
        plan_stop(f, p, HA_STOP_FAST, f->primary);
    }
    p->role = m->role;
    plan_wake(p, dra_after(f->w->now, dra_ms(200)));
    plan_reason(p, "stopping PostgreSQL, since the agent was told to stop");
}

bool shutdown_exit_when(const struct ha_facts *f)
{
    return f->w->shutdown && f->down;
}

void shutdown_exit_act(const struct ha_facts *f, struct ha_plan *p)
{
    struct ha_effect *e;
    bool busy = f->w->effects[HA_EFFECT_RELEASE].inflight || f->w->effects[HA_EFFECT_MOVE].inflight ||
                f->w->effects[HA_EFFECT_PUT_MEMBER].inflight || f->w->effects[HA_EFFECT_PUT_STATUS].inflight;

    p->role = f->m->role == HA_ROLE_PRIMARY ? HA_ROLE_DEMOTED : f->m->role;
    plan_reason(p, "PostgreSQL is stopped, ending");
    plan_wake(p, dra_after(f->w->now, dra_ms(200)));
    if (f->job) {
        p->cancel_job = true;
        return;
    }
    if (busy) {
        return;
    }
    if (f->has_lock && !f->w->lease.given_away && !tried_since_shutdown(f, HA_EFFECT_RELEASE)) {
        e = plan_add(p, HA_EFFECT_RELEASE);
        e->epoch = f->w->cluster.leader_rev;
        return;
    }
    if (f->known && f->w->lease.id != 0 && !dra_is_set(f->w->lease.unanswered_since) &&
        f->w->effects[HA_EFFECT_PUT_MEMBER].started_at.ns < dra_later(f->w->shutdown_at, f->w->pg.gone_at).ns) {
        (void)plan_add(p, HA_EFFECT_PUT_MEMBER);
        return;
    }
    plan_end(f, p);
}

/* ---- job.wait ------------------------------------------------------------------------------------ */

static bool guard_has_child(const struct ha_facts *f)
{
    const struct ha_guard *g = &f->w->guard;

    return !f->w->s.guard_required || (g->armed && g->pid == f->w->job.forked_pid && g->epoch == f->w->cluster.leader_rev &&
                                       !dra_reached(f->w->now, g->deadline));
}

/* SAFE-33: the child may exec once the guard has its pidfd and the deadline. */
void forked_child(const struct ha_facts *f, struct ha_plan *p)
{
    struct ha_effect *e;
    /* Also in a pause that began meanwhile: others may lead by now. */
    bool may = f->has_lock && f->certain && f->w->job.job.epoch == f->w->cluster.leader_rev;

    if (!may) {
        e = plan_add_once(f, p, HA_EFFECT_JOB_CONTINUE);
        if (e != NULL) {
            e->ok = false;
        }
        return;
    }
    if (guard_has_child(f) || !HA_ON(ARM_BEFORE_START)) {
        e = plan_add_once(f, p, HA_EFFECT_JOB_CONTINUE);
        if (e != NULL) {
            e->ok = true;
            e->epoch = f->w->cluster.leader_rev;
            e->not_after = f->fence_at;
        }
        return;
    }
    plan_arm(f, p);
}

bool job_wait_when(const struct ha_facts *f)
{
    return f->job;
}

void job_wait_act(const struct ha_facts *f, struct ha_plan *p)
{
    enum ha_job_kind k = f->job_kind;

    if (f->has_lock) {
        plan_renew(f, p);
    } else {
        plan_keep_lease(f, p);
    }
    if (f->has_lock && f->primary && k != HA_JOB_STOP) {
        p->leader = true;
        p->lead_until = f->fence_at;
    }
    if (f->w->job.phase == HA_PHASE_FORKED) {
        forked_child(f, p);
    }
    /* SAFE-02: the key went while pre_promote ran.  Once the promotion was signalled only the fence helps. */
    if (k == HA_JOB_PROMOTE && !f->w->pg.promote_signalled && (!f->has_lock || f->w->job.job.epoch != f->w->cluster.leader_rev)) {
        p->cancel_job = true;
    }
    /* A standby start that a leader's return made pointless is not cancelled: it ends by itself soon enough. */
    plan_reason(p, "%s in progress", ha_job_to_str(k));
    plan_wake(p, dra_after(f->w->now, dra_ms(500)));
}

/* ---- restart --------------------------------------------------------------------------------------- */

static bool restart_has_stopped(const struct ha_facts *f)
{
    const struct ha_job_result *r = &f->w->job.last;

    return f->down || (r->kind == HA_JOB_STOP && r->started_at.ns >= f->w->request.asked_at.ns) ||
           f->w->pg.gone_at.ns >= f->w->request.asked_at.ns;
}

bool restart_go_when(const struct ha_facts *f)
{
    struct ha_memory *m = f->m;

    if (!pending(f, HA_REQ_RESTART)) {
        return false;
    }
    if (m->restart_request != f->w->request.id) {
        m->restart_request = f->w->request.id;
        m->restart_stopped = false;
        m->start_failures = 0;
    }
    if (restart_has_stopped(f)) {
        m->restart_stopped = true;
    }
    /* While it is down the recovery rules start it again; a failure is reported before they give the key away. */
    return !(m->restart_stopped && f->down && m->start_failures == 0);
}

void restart_go_act(const struct ha_facts *f, struct ha_plan *p)
{
    struct ha_memory *m = f->m;

    if (f->has_lock) {
        plan_renew(f, p);
    } else {
        plan_keep_lease(f, p);
    }
    plan_reason(p, "restart initiated by request");
    if (!m->restart_stopped) {
        plan_stop(f, p, HA_STOP_FAST, true);
        return;
    }
    if (m->start_failures > 0) {
        reply(p, m->restart_request, false, "restart failed");
    } else if (f->running && f->w->pg.in_recovery != DRA_UNKNOWN) {
        reply(p, m->restart_request, true, "restarted successfully");
    } else {
        if (plan_due(f, HA_EFFECT_PROBE, dra_ms(50))) {
            (void)plan_add(p, HA_EFFECT_PROBE);
        }
        plan_wake(p, dra_after(f->w->now, dra_ms(50)));
        return;
    }
    m->seen_request_id = m->restart_request;
    m->restart_request = 0;
    plan_wake(p, f->w->now);
}

/* ---- reinit ------------------------------------------------------------------------------------------ */

bool reinit_go_when(const struct ha_facts *f)
{
    return pending(f, HA_REQ_REINIT) || (f->m->reclone && f->other && !f->down && !f->primary);
}

void reinit_go_act(const struct ha_facts *f, struct ha_plan *p)
{
    struct ha_memory *m = f->m;

    plan_keep_lease(f, p);
    plan_reason(p, "reinitialize");
    if (pending(f, HA_REQ_REINIT)) {
        m->seen_request_id = f->w->request.id;
        if (f->has_lock) {
            reply(p, f->w->request.id, false, "I am the leader, can not reinitialize");
            plan_renew(f, p);
            return;
        }
        if (!f->other) {
            reply(p, f->w->request.id, false, "Cluster has no leader, can not reinitialize");
            return;
        }
        m->reinit_request = f->w->request.id;
        m->reclone = true;
        m->start_failures = 0;
        m->retry_at = (struct dra_instant){0};
        reply(p, f->w->request.id, true, "reinitialize started");
        plan_wake(p, f->w->now);
        return;
    }
    plan_stop(f, p, HA_STOP_IMMEDIATE, false);
}
