/*
 * engine.c - a turn: world, decision, plan; and the answers from outside.
 *
 * Promises: every effect ends in exactly one status; dangerous ones are checked against their guards with a fresh clock
 * right before they leave; at most one job runs.
 */
#include "engine_priv.h"

#include <stdlib.h>
#include <string.h>

/* A rule that wants another turn at once gets it, but never without letting the loop do its other work. */
#define TURN_PAUSE_NS INT64_C(100000)

int rt_engine_new(const struct rt_engine_config *cfg, struct rt_engine **out)
{
    struct rt_engine *e = calloc(1, sizeof *e);

    if (e == NULL) {
        return DRA_ENOMEM;
    }
    e->cfg = *cfg;
    e->next_token = 1;
    e->lease_generation = 1;
    ha_memory_init(&e->m);
    dra_str_clip(e->w.me, sizeof e->w.me, cfg->me);
    e->w.started_at = cfg->ops->now(cfg->arg);
    *out = e;
    return 0;
}

void rt_engine_free(struct rt_engine *e)
{
    free(e);
}

struct dra_instant engine_now(struct rt_engine *e)
{
    return e->cfg.ops->now(e->cfg.arg);
}

const struct ha_memory *rt_engine_memory(const struct rt_engine *e)
{
    return &e->m;
}

const struct ha_world *rt_engine_world(const struct rt_engine *e)
{
    return &e->w;
}

const struct ha_plan *rt_engine_plan(const struct rt_engine *e)
{
    return &e->p;
}

struct dra_instant rt_engine_wake_at(const struct rt_engine *e)
{
    return e->wake_at;
}

void rt_engine_adopt(struct rt_engine *e, int64_t lease, struct dra_span ttl, int64_t epoch)
{
    (void)epoch; /* the key itself tells; nothing is certain before a renewal (SAFE-37) */
    e->w.lease.id = lease;
    e->w.lease.ttl = ttl;
    e->w.lease.asked_ttl = ttl;
    e->adopted = true;
}

int rt_engine_request(struct rt_engine *e, const struct ha_request *rq)
{
    if (e->request.kind != HA_REQ_NONE) {
        return DRA_EBUSY;
    }
    e->request = *rq;
    return 0;
}

void rt_engine_shutdown(struct rt_engine *e)
{
    if (!e->w.shutdown) {
        e->w.shutdown = true;
        e->w.shutdown_at = engine_now(e);
    }
}

/* ---- the world ------------------------------------------------------------------------------- */

/* What we wrote ourselves is newer than a snapshot of an older revision. */
static void apply_own_write(struct rt_engine *e)
{
    struct ha_cluster *c = &e->w.cluster;

    if (e->own.revision == 0 || !e->w.cluster_known) {
        return;
    }
    if (c->revision >= e->own.revision) {
        e->own.revision = 0;
        return;
    }
    dra_str_clip(c->leader, sizeof c->leader, e->own.leader);
    c->leader_lease = e->own.lease;
    c->leader_rev = e->own.leader[0] != '\0' ? e->own.revision : 0;
}

static void build_world(struct rt_engine *e)
{
    const struct rt_ops *ops = e->cfg.ops;
    void *arg = e->cfg.arg;
    struct ha_world *w = &e->w;
    const struct ha_cluster *c;
    bool stale = false;

    w->wall_s = ops->wall_s(arg);
    w->entropy = ops->entropy(arg);
    w->s = *ops->settings(arg);
    c = ops->cluster(arg, &w->cluster_at, &stale);
    w->cluster_known = c != NULL;
    w->cluster_stale = stale;
    if (c != NULL) {
        w->cluster = *c;
    }
    apply_own_write(e);
    w->pg = *ops->pg(arg);
    ops->guard(arg, &w->guard);
    w->guard.inflight = e->guard_inflight;
    memset(w->peers, 0, sizeof w->peers);
    ops->peers(arg, &w->cluster, w->peers, &w->poll_at, &w->poll_done);
    w->upstream = e->upstream;
    e->job.progress_at = ops->job_progress_at(arg);
    w->job = e->job;
    w->request = e->request;
    /* An agent that took over an armed guard cannot know whether its predecessor asked for a promotion (SAFE-31). */
    if (e->adopted && !e->promoted_by_us && w->guard.armed && w->guard.pid == w->pg.pid && w->pg.in_recovery != DRA_NO) {
        e->suspect_pid = w->pg.pid; /* for all its life: the guard may be let go meanwhile */
    }
    if (e->suspect_pid != 0 && e->suspect_pid == w->pg.pid && w->pg.in_recovery != DRA_NO) {
        w->pg.promote_signalled = true;
    }
}

static void start_job(struct rt_engine *e)
{
    const struct ha_job *j = &e->p.job;
    struct dra_instant now = engine_now(e);
    int rc;

    /* A promotion is cancelled only as long as nothing was signalled: while pre_promote runs. */
    if (e->p.cancel_job && e->job.phase != HA_PHASE_IDLE && e->job.phase != HA_PHASE_CANCELLING &&
        (e->job.job.kind != HA_JOB_PROMOTE || !e->cfg.ops->pg(e->cfg.arg)->promote_signalled)) {
        e->job.phase = HA_PHASE_CANCELLING;
        e->cfg.ops->job_cancel(e->cfg.arg);
    }
    if (j->kind == HA_JOB_NONE || DRA_NEVER(e->job.phase != HA_PHASE_IDLE)) {
        return;
    }
    memset(&e->job.job, 0, sizeof e->job.job);
    e->job.job = *j;
    e->job.id = ++e->next_job;
    e->job.started_at = now;
    e->job.phase = HA_PHASE_RUNNING;
    rc = 0;
    if ((dra_is_set(j->not_after) && dra_reached(now, j->not_after)) || (j->epoch != 0 && j->epoch != e->w.lease.epoch)) {
        rc = DRA_ESTATE;
    } else {
        if (j->kind == HA_JOB_PROMOTE) {
            e->promoted_by_us = true;
        }
        rc = e->cfg.ops->job_start(e->cfg.arg, e->job.id, j);
    }
    if (rc != 0) {
        struct ha_job_result r = {.kind = j->kind, .id = e->job.id, .err_code = rc, .mode = j->mode, .started_at = now, .ended_at = now};

        dra_str_clip(r.msg, sizeof r.msg, rc == DRA_ESTATE ? "refused: too late, or another lease epoch" : "could not be started");
        rt_engine_on_job_done(e, &r);
        e->p.wake_at = dra_earlier(e->p.wake_at, dra_after(now, dra_ms(50)));
    }
}

void rt_engine_turn(struct rt_engine *e)
{
    struct dra_instant now = engine_now(e);
    struct dra_instant limit;

    e->w.late = dra_is_set(e->wake_at) && dra_reached(now, dra_after(e->wake_at, e->cfg.stall_max)) && dra_is_set(e->w.now);
    e->w.now = now;
    build_world(e);
    ha_decide(&e->w, &e->m, &e->p);
    engine_run_plan(e);
    start_job(e);
    limit = dra_after(now, e->w.s.loop_wait);
    e->wake_at = dra_earlier(e->p.wake_at, limit);
    if (e->wake_at.ns < now.ns + TURN_PAUSE_NS) {
        e->wake_at.ns = now.ns + TURN_PAUSE_NS;
    }
    e->cfg.ops->decided(e->cfg.arg, &e->w, &e->m, &e->p);
}

/* ---- answers ------------------------------------------------------------------------------------- */

void rt_engine_on_upstream(struct rt_engine *e, uint64_t token, const struct ha_upstream_check *r)
{
    e->upstream = *r;
    rt_engine_on_effect(e, token, r->answered ? DRA_OK : DRA_ECONN);
}

void rt_engine_on_forked(struct rt_engine *e, int32_t pid, uint64_t start_ticks)
{
    if (e->job.phase == HA_PHASE_RUNNING) {
        e->job.phase = HA_PHASE_FORKED;
        e->job.forked_pid = pid;
        e->job.forked_start_ticks = start_ticks;
    }
}

void rt_engine_on_job_done(struct rt_engine *e, const struct ha_job_result *r)
{
    if (r->id != e->job.id || e->job.phase == HA_PHASE_IDLE) {
        return;
    }
    e->job.last = *r;
    e->job.phase = HA_PHASE_IDLE;
    e->job.forked_pid = 0;
}
