/*
 * engine.h - one engine that carries out plans: order, guards, jobs, cancel ladders, refused effects, the lease.
 * Library dra_engine.  Knows neither libuv nor curl nor libpq: everything outside is reached through struct rt_ops.
 *
 * The agent fills rt_ops with the real things, tests/sim with its models; so both run this code as it ships.
 * A turn: rt_engine_turn() builds the world from the last facts, calls ha_decide, carries out the plan.
 */
#ifndef DRAGENT_ENGINE_H
#define DRAGENT_ENGINE_H

#include <dragent/base.h>
#include <dragent/dcs.h>
#include <dragent/model.h>
#include <dragent/world.h>

/* Completion of an outside action.  `token` is what the engine gave; each token is answered exactly once, never from inside
 * the starting call.  Answers with an unknown token are dropped. */
struct rt_engine;

struct rt_ops {
    struct dra_instant (*now)(void *arg);
    int64_t (*wall_s)(void *arg);
    uint64_t (*entropy)(void *arg);

    /* Facts, borrowed until the next call. */
    const struct ha_pg *(*pg)(void *arg);
    /* The newest snapshot (plain part); NULL before the first. */
    const struct ha_cluster *(*cluster)(void *arg, struct dra_instant *read_at, bool *stale);
    const struct ha_settings *(*settings)(void *arg);
    /* Fill `out[0..n)` for the members of `c` as last polled. */
    void (*peers)(void *arg, const struct ha_cluster *c, struct ha_peer *out, struct dra_instant *poll_at, bool *done);
    /* The guard as its client knows it. */
    void (*guard)(void *arg, struct ha_guard *out);

    /* Agreement; answered by rt_engine_on_dcs(). Non-zero return = not started (counts as no answer). */
    int (*dcs_txn)(void *arg, uint64_t token, const struct dcs_txn *t, struct dra_instant not_after);
    int (*dcs_grant)(void *arg, uint64_t token, int64_t ttl_s, struct dra_instant not_after);
    int (*dcs_keepalive)(void *arg, uint64_t token, int64_t lease, struct dra_instant not_after);
    int (*dcs_read)(void *arg, uint64_t token, struct dra_instant not_after);

    /* Texts of keys, made by who knows the raw data; caller frees.  NULL = nothing to write. */
    char *(*member_value)(void *arg, const struct ha_world *w, enum ha_role role);
    char *(*status_value)(void *arg, const struct ha_world *w, uint64_t optime, bool final);
    char *(*history_value)(void *arg, const struct ha_world *w);
    char *(*config_value)(void *arg);

    /* Questions and effects; answered by rt_engine_on_effect(token, rc). */
    int (*poll_peers)(void *arg, uint64_t token, struct dra_instant not_after);
    int (*probe)(void *arg, uint64_t token, struct dra_instant not_after);
    int (*read_files)(void *arg, uint64_t token);
    /* Answered by rt_engine_on_upstream(). */
    int (*check_upstream)(void *arg, uint64_t token, const char *member, uint32_t local_timeline, struct dra_instant not_after);
    int (*follow)(void *arg, uint64_t token, const char *member);
    int (*reload)(void *arg, uint64_t token);
    int (*checkpoint)(void *arg, uint64_t token, struct dra_instant not_after);
    int (*slots)(void *arg, uint64_t token, const struct ha_slot_pos *wanted, int n);
    void (*callback)(void *arg, enum ha_callback c, enum ha_role role);

    /* Guard; answered by rt_engine_on_effect(). register + arm in one order. */
    int (*guard_arm)(void *arg, uint64_t token, int32_t pid, uint64_t start_ticks, bool standby, struct dra_instant deadline,
                     struct dra_instant certain_until, int64_t epoch, int64_t lease);
    int (*guard_move)(void *arg, uint64_t token, struct dra_instant deadline, struct dra_instant certain_until, int64_t epoch, int64_t lease);
    int (*guard_disarm)(void *arg, uint64_t token);
    int (*guard_fence)(void *arg, uint64_t token);

    /* Jobs; ended by rt_engine_on_job_done(), START_PRIMARY meanwhile rt_engine_on_forked(). */
    int (*job_start)(void *arg, uint64_t id, const struct ha_job *job);
    void (*job_continue)(void *arg, bool go);
    void (*job_cancel)(void *arg);
    struct dra_instant (*job_progress_at)(void *arg);

    void (*reply)(void *arg, uint64_t request_id, bool ok, const char *text);
    void (*exit)(void *arg, int code, const char *text);
    /* After each decision: log rule changes, publish the snapshot, set the wake-up timer. */
    void (*decided)(void *arg, const struct ha_world *w, const struct ha_memory *m, const struct ha_plan *p);
};

struct rt_engine_config {
    char me[HA_NAME_MAX];
    struct dra_span stall_max;  /* a turn later than this against its wake-up counts as late */
    const struct rt_ops *ops;   /* borrowed, outlives the engine */
    void *arg;
};

DRA_MUST_USE int rt_engine_new(const struct rt_engine_config *cfg, struct rt_engine **out);
void rt_engine_free(struct rt_engine *e); /* NULL is fine; outstanding tokens are forgotten */

/* One turn.  Cheap when nothing changed.  Call after any event, and when rt_engine_wake_at() is reached. */
void rt_engine_turn(struct rt_engine *e);
struct dra_instant rt_engine_wake_at(const struct rt_engine *e);

/* Answers. They change facts only; call rt_engine_turn() afterwards (once per batch). */
void rt_engine_on_dcs(struct rt_engine *e, uint64_t token, const struct dcs_answer *a);
void rt_engine_on_effect(struct rt_engine *e, uint64_t token, int rc);
void rt_engine_on_upstream(struct rt_engine *e, uint64_t token, const struct ha_upstream_check *r);
void rt_engine_on_forked(struct rt_engine *e, int32_t pid, uint64_t start_ticks);
void rt_engine_on_job_done(struct rt_engine *e, const struct ha_job_result *r);
/* Operator's requests. */
int rt_engine_request(struct rt_engine *e, const struct ha_request *rq); /* DRA_EBUSY: another one is under way */
void rt_engine_shutdown(struct rt_engine *e);
/* Adoption (SAFE-37): the stamp that was found and the lease that goes with it; before the first turn.  The lease is used as it is. */
void rt_engine_adopt(struct rt_engine *e, int64_t lease, struct dra_span ttl, int64_t epoch);
/* In-place upgrade: what has to survive an exec, as text; restored with _adopt plus the new engine's own look at the world. */
const struct ha_memory *rt_engine_memory(const struct rt_engine *e);
const struct ha_world *rt_engine_world(const struct rt_engine *e);
const struct ha_plan *rt_engine_plan(const struct rt_engine *e);

/* The lease (agent/runtime/engine/lease.c): SAFE-29..31 as pure functions on struct ha_lease. */
#endif
