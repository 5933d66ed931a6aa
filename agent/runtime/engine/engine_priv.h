/*
 * engine_priv.h - the engine's insides, shared by engine.c and effects.c.
 */
#ifndef ENGINE_PRIV_H
#define ENGINE_PRIV_H

#include <dragent/engine.h>

#include "lease.h"

#define ENGINE_OPS_MAX 48
#define ENGINE_QUEUE_MAX 8

struct engine_op { /* one outside action under way */
    uint64_t token; /* 0 = free row */
    enum ha_effect_kind kind;
    int64_t epoch;
    int64_t lease; /* ours when it was sent */
    struct dra_instant sent_at;
    bool keepalive_half; /* RENEW: which of its two calls */
    struct ha_effect effect;
};

struct engine_queued { /* an effect that waits for another one */
    bool used;
    uint64_t after_token;
    struct ha_effect effect;
};

struct rt_engine {
    struct rt_engine_config cfg;
    struct ha_world w;
    struct ha_memory m;
    struct ha_plan p;
    uint64_t next_token;
    uint64_t next_job;
    struct engine_op ops[ENGINE_OPS_MAX];
    struct engine_queued queue[ENGINE_QUEUE_MAX];
    struct lease_renewal renewal;
    uint64_t lease_generation;
    struct { /* our own last write of the leader key, until a snapshot of that revision is there */
        int64_t revision;
        char leader[HA_NAME_MAX];
        int64_t lease;
    } own;
    struct ha_upstream_check upstream;
    struct ha_job_status job;
    struct ha_request request;
    bool adopted;
    bool promoted_by_us;
    int32_t suspect_pid; /* an adopted server that may have been asked to promote; 0 = none */
    bool guard_inflight;
    struct dra_instant wake_at;
    struct dra_instant last_cluster_at;
};

struct dra_instant engine_now(struct rt_engine *e);
/* Carry out one effect now (its guards are checked here). */
void engine_run(struct rt_engine *e, const struct ha_effect *x);
/* Plan order: queue what waits for another effect of the same plan. */
void engine_run_plan(struct rt_engine *e);
void engine_finish(struct rt_engine *e, enum ha_effect_kind kind, int result, int64_t epoch);
/* Move the guard's deadline after a renewal. */
void engine_move_guard(struct rt_engine *e);

#endif
