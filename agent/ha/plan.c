/*
 * plan.c - small helpers that rules use to write their plan.
 */
#include "plan.h"

#include <string.h>

static void text_set(char *dst, size_t size, const char *fmt, va_list ap) __attribute__((format(printf, 3, 0)));

struct ha_effect *plan_add(struct ha_plan *p, enum ha_effect_kind kind)
{
    struct ha_effect *e;

    if (DRA_NEVER(p->n_effects >= HA_EFFECTS_MAX)) {
        e = &p->effects[HA_EFFECTS_MAX - 1];
    } else {
        e = &p->effects[p->n_effects++];
    }
    memset(e, 0, sizeof *e);
    e->kind = kind;
    return e;
}

struct ha_effect *plan_add_once(const struct ha_facts *f, struct ha_plan *p, enum ha_effect_kind kind)
{
    if (f->w->effects[kind].inflight) {
        return NULL;
    }
    for (int i = 0; i < p->n_effects; i++) {
        if (p->effects[i].kind == kind) {
            return NULL;
        }
    }
    return plan_add(p, kind);
}

int plan_ref(const struct ha_plan *p, const struct ha_effect *e)
{
    return (int)(e - p->effects) + 1;
}

void plan_reason(struct ha_plan *p, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    text_set(p->reason, sizeof p->reason, fmt, ap);
    va_end(ap);
}

void plan_detail(struct ha_plan *p, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    text_set(p->detail, sizeof p->detail, fmt, ap);
    va_end(ap);
}

void plan_note(struct ha_plan *p, const char *fmt, ...)
{
    va_list ap;

    if (p->n_notes >= (int)DRA_ARRAY_LEN(p->notes)) {
        return; /* the first ones say enough */
    }
    va_start(ap, fmt);
    text_set(p->notes[p->n_notes], sizeof p->notes[0], fmt, ap);
    va_end(ap);
    p->n_notes++;
}

void plan_wake(struct ha_plan *p, struct dra_instant at)
{
    p->wake_at = dra_earlier(p->wake_at, at);
}

/* What begins in the data directory while the guard is armed, or still ends what a dead postmaster left there, would be
 * killed with it (SAFE-34): the guard lets go first.  A primary's start registers its child with it instead. */
static bool guard_in_the_way(const struct ha_facts *f, struct ha_plan *p, enum ha_job_kind kind)
{
    const struct ha_guard *g = &f->w->guard;

    if (kind == HA_JOB_STOP || kind == HA_JOB_PROMOTE || kind == HA_JOB_START_PRIMARY || kind == HA_JOB_POST_BOOTSTRAP ||
        kind == HA_JOB_DROP_ASIDE || g->alive != DRA_YES || (!g->armed && !g->fenced)) {
        return false;
    }
    if (g->armed && plan_due(f, HA_EFFECT_GUARD_DISARM, dra_ms(5))) {
        (void)plan_add_once(f, p, HA_EFFECT_GUARD_DISARM);
    }
    plan_wake(p, dra_after(f->w->now, dra_ms(5)));
    return true;
}

struct ha_job *plan_job(const struct ha_facts *f, struct ha_plan *p, enum ha_job_kind kind)
{
    if (f->job || guard_in_the_way(f, p, kind)) {
        return NULL;
    }
    memset(&p->job, 0, sizeof p->job);
    p->job.kind = kind;
    return &p->job;
}

void plan_kill(const struct ha_facts *f, struct ha_plan *p)
{
    if (f->w->guard.armed) {
        (void)plan_add_once(f, p, HA_EFFECT_GUARD_FENCE); /* NULL: on its way already */
    }
    plan_stop(f, p, HA_STOP_KILL, false);
}

void plan_stop(const struct ha_facts *f, struct ha_plan *p, enum ha_stop_mode mode, bool checkpoint)
{
    struct ha_job *j;

    if (f->job && f->job_kind == HA_JOB_STOP) {
        /* The ladder of a running stop only gets steeper. */
        if (f->w->job.job.mode < mode && f->w->job.phase == HA_PHASE_RUNNING) {
            p->cancel_job = true;
        }
        return;
    }
    if (f->job) {
        p->cancel_job = f->job_kind != HA_JOB_PROMOTE;
        return;
    }
    j = plan_job(f, p, HA_JOB_STOP);
    if (j != NULL) {
        j->mode = mode;
        j->checkpoint_first = checkpoint;
        if (f->w->shutdown) {
            j->checkpoint_limit = f->w->s.retry_timeout; /* HA-139 [D] */
        }
        j->timeout = f->w->s.primary_stop_timeout.ns > 0 ? f->w->s.primary_stop_timeout : dra_ms(30000);
    }
}

bool plan_due(const struct ha_facts *f, enum ha_effect_kind kind, struct dra_span every)
{
    const struct ha_effect_status *st = &f->w->effects[kind];

    if (st->inflight) {
        return false;
    }
    return !dra_is_set(st->started_at) || dra_reached(f->w->now, dra_after(st->started_at, every));
}

void plan_start_standby(const struct ha_facts *f, struct ha_plan *p, const char *member)
{
    struct ha_job *j;

    if (dra_is_set(f->m->retry_at) && !dra_reached(f->w->now, f->m->retry_at)) {
        plan_wake(p, f->m->retry_at);
        return;
    }
    j = plan_job(f, p, HA_JOB_START_STANDBY);
    if (j != NULL) {
        dra_str_clip(j->member, sizeof j->member, member);
    }
}

void plan_renew(const struct ha_facts *f, struct ha_plan *p)
{
    const struct ha_world *w = f->w;
    const struct ha_lease *l = &w->lease;
    struct dra_instant due;
    struct ha_effect *e;

    if (l->renew_inflight) {
        return;
    }
    if (f->has_lock && l->id != 0 && l->id != w->cluster.leader_lease && !w->cluster_stale) {
        /* A check under another lease than the key's would say "lost": the key moves to ours first (DCS-46). */
        if (!l->given_away && plan_due(f, HA_EFFECT_REATTACH, dra_ms(100))) {
            e = plan_add_once(f, p, HA_EFFECT_REATTACH);
            if (e != NULL) {
                e->epoch = w->cluster.leader_rev;
            }
        }
        plan_wake(p, dra_after(w->now, dra_ms(100)));
        return;
    }
    /* After a success: as often as the lease needs.  Without an answer: again at once, the call has its own deadline. */
    due = dra_after(l->renew_sent_at, dra_is_set(l->unanswered_since) ? dra_ms(100) : ha_renew_every(&w->s));
    if (f->certain && !dra_reached(w->now, due)) {
        plan_wake(p, due);
        return;
    }
    if (!f->certain && dra_is_set(l->renew_sent_at) && l->epoch == w->cluster.leader_rev &&
        !dra_reached(w->now, dra_after(l->renew_sent_at, dra_ms(50)))) {
        plan_wake(p, dra_after(l->renew_sent_at, dra_ms(50)));
        return;
    }
    e = plan_add_once(f, p, HA_EFFECT_RENEW);
    if (e != NULL) {
        e->epoch = w->cluster.leader_rev;
    }
    plan_wake(p, dra_after(w->now, ha_renew_every(&w->s)));
}

void plan_arm(const struct ha_facts *f, struct ha_plan *p)
{
    struct ha_effect *e;

    plan_wake(p, dra_after(f->w->now, dra_ms(20)));
    if (!plan_due(f, HA_EFFECT_GUARD_ARM, dra_ms(20))) {
        return;
    }
    e = plan_add_once(f, p, HA_EFFECT_GUARD_ARM);
    if (e != NULL) {
        e->epoch = f->w->cluster.leader_rev;
        e->not_after = f->fence_at;
    }
}

void plan_keep_lease(const struct ha_facts *f, struct ha_plan *p)
{
    const struct ha_world *w = f->w;
    struct dra_instant due = dra_after(w->lease.refreshed_at, f->beat);

    if (w->lease.id == 0) {
        if (plan_due(f, HA_EFFECT_GRANT, dra_ms(200))) {
            (void)plan_add(p, HA_EFFECT_GRANT);
        }
        plan_wake(p, dra_after(w->now, dra_ms(200)));
        return;
    }
    if (!dra_reached(w->now, due)) {
        plan_wake(p, due);
        return;
    }
    if (plan_due(f, HA_EFFECT_KEEPALIVE, dra_ms(200))) {
        (void)plan_add(p, HA_EFFECT_KEEPALIVE);
    }
    plan_wake(p, dra_after(w->now, dra_ms(200)));
}

static void text_set(char *dst, size_t size, const char *fmt, va_list ap)
{
    dra_str_clipv(dst, size, fmt, ap);
}
