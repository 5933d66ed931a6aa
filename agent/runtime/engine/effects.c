/*
 * effects.c - each kind of effect: what leaves, under which guards, and what its answer changes.
 */
#include "engine_priv.h"

#include <stdlib.h>
#include <string.h>

static struct dra_instant call_deadline(struct rt_engine *e)
{
    int64_t ms = dra_span_ms(e->w.s.ttl) / 5;

    if (ms > dra_span_ms(e->w.s.retry_timeout)) {
        ms = dra_span_ms(e->w.s.retry_timeout);
    }
    return dra_after(engine_now(e), dra_ms(ms < 500 ? 500 : ms));
}

/* ---- bookkeeping ------------------------------------------------------------------------------ */

static struct engine_op *op_new(struct rt_engine *e, const struct ha_effect *x)
{
    for (int i = 0; i < ENGINE_OPS_MAX; i++) {
        struct engine_op *op = &e->ops[i];

        if (op->token == 0) {
            memset(op, 0, sizeof *op);
            op->token = e->next_token++;
            op->kind = x->kind;
            op->epoch = x->epoch;
            op->lease = e->w.lease.id;
            op->effect = *x;
            op->sent_at = engine_now(e);
            return op;
        }
    }
    return NULL;
}

static struct engine_op *op_find(struct rt_engine *e, uint64_t token)
{
    for (int i = 0; token != 0 && i < ENGINE_OPS_MAX; i++) {
        if (e->ops[i].token == token) {
            return &e->ops[i];
        }
    }
    return NULL;
}

void engine_finish(struct rt_engine *e, enum ha_effect_kind kind, int result, int64_t epoch)
{
    struct ha_effect_status *st = &e->w.effects[kind];

    st->inflight = false;
    st->ended_at = engine_now(e);
    st->result = result;
    if (epoch != 0) {
        st->epoch = epoch;
    }
}

/* What waited for this token runs now, or is given up with it. */
static void release_queue(struct rt_engine *e, uint64_t token, int result)
{
    for (int i = 0; i < ENGINE_QUEUE_MAX; i++) {
        struct engine_queued *q = &e->queue[i];

        if (!q->used || q->after_token != token) {
            continue;
        }
        q->used = false;
        if (result == DRA_OK) {
            engine_run(e, &q->effect);
        } else {
            engine_finish(e, q->effect.kind, DRA_ESTATE, 0);
        }
    }
}

static void op_end(struct rt_engine *e, struct engine_op *op, int result, int64_t epoch)
{
    uint64_t token = op->token;

    op->token = 0;
    engine_finish(e, op->kind, result, epoch);
    release_queue(e, token, result);
}

/* ---- guards ---------------------------------------------------------------------------------------- */

static bool needs_certainty(enum ha_effect_kind k)
{
    return k == HA_EFFECT_GUARD_ARM || k == HA_EFFECT_JOB_CONTINUE;
}

static bool guards_hold(struct rt_engine *e, const struct ha_effect *x)
{
    struct dra_instant now = engine_now(e);

    if (dra_is_set(x->not_after) && dra_reached(now, x->not_after)) {
        return false;
    }
    if (needs_certainty(x->kind) && x->epoch != 0) {
        return x->epoch == e->w.lease.epoch && !e->w.lease.given_away && dra_is_set(e->w.lease.certain_until) &&
               !dra_reached(now, ha_fence_at(&e->w.s, e->w.lease.certain_until));
    }
    return true;
}

/* ---- transactions -------------------------------------------------------------------------------------- */

static void cmp_add(struct dcs_txn *t, enum dcs_cmp_target target, const char *key, int64_t number, const char *value)
{
    struct dcs_cmp *c;

    if (DRA_NEVER(t->n_cmps >= DCS_CMPS_MAX)) {
        return;
    }
    c = &t->cmps[t->n_cmps++];
    c->target = target;
    c->key = key;
    c->number = number;
    c->value = value;
}

static void op_add(struct dcs_txn *t, enum dcs_op_kind kind, const char *key, const char *value, int64_t lease)
{
    struct dcs_op *o = &t->success[t->n_success++];

    o->kind = kind;
    o->key = key;
    o->value = value;
    o->lease = lease;
}

static void get_on_failure(struct dcs_txn *t, const char *key)
{
    t->failure[t->n_failure++] = (struct dcs_op){.kind = DCS_OP_GET, .key = key};
}

/* The key is mine, in this epoch (SAFE-24, SAFE-30). */
static void cmp_owner(struct rt_engine *e, struct dcs_txn *t, int64_t epoch)
{
    cmp_add(t, DCS_CMP_VALUE, "leader", 0, e->w.me);
    if (LEASE_ON(EPOCH_COMPARE)) {
        cmp_add(t, DCS_CMP_MOD_REV, "leader", epoch, NULL);
    }
}

static void send_txn(struct rt_engine *e, const struct ha_effect *x, const struct dcs_txn *t)
{
    struct engine_op *op = op_new(e, x);
    int rc = DRA_EBUSY;

    if (op != NULL) {
        rc = e->cfg.ops->dcs_txn(e->cfg.arg, op->token, t, call_deadline(e));
    }
    if (rc != 0) {
        if (op != NULL) {
            op->token = 0;
        }
        engine_finish(e, x->kind, rc, 0);
    }
}

/* SAFE-32: the create request carries what the election rested on. */
static void run_acquire(struct rt_engine *e, const struct ha_effect *x)
{
    const struct ha_cluster *c = &e->w.cluster;
    struct dcs_txn t = {0};

    if (e->w.lease.id == 0) {
        engine_finish(e, x->kind, DRA_ESTATE, 0);
        return;
    }
    cmp_add(&t, DCS_CMP_CREATE_REV, "leader", 0, NULL);
    if (LEASE_ON(ACQUIRE_FACTS)) {
        cmp_add(&t, DCS_CMP_MOD_REV, "sync", c->sync_rev, NULL);
        cmp_add(&t, DCS_CMP_MOD_REV, "history", c->history_rev, NULL);
        cmp_add(&t, DCS_CMP_MOD_REV, "status", c->status_rev, NULL);
        cmp_add(&t, DCS_CMP_MOD_REV, "failover", c->failover_rev, NULL);
        cmp_add(&t, DCS_CMP_MOD_REV, "failsafe", c->failsafe_rev, NULL);
    }
    op_add(&t, DCS_OP_PUT, "leader", e->w.me, e->w.lease.id);
    get_on_failure(&t, "leader");
    send_txn(e, x, &t);
}

static void run_give(struct rt_engine *e, const struct ha_effect *x)
{
    struct dcs_txn t = {0};

    cmp_owner(e, &t, x->epoch);
    if (x->kind == HA_EFFECT_MOVE) {
        op_add(&t, DCS_OP_PUT, "leader", x->name, x->lease);
    } else {
        op_add(&t, DCS_OP_DELETE, "leader", NULL, 0);
    }
    get_on_failure(&t, "leader");
    lease_on_give(&e->w.lease, x->epoch);
    e->lease_generation++;
    send_txn(e, x, &t);
}

static void run_reattach(struct rt_engine *e, const struct ha_effect *x)
{
    struct dcs_txn t = {0};

    if (e->w.lease.id == 0) {
        engine_finish(e, x->kind, DRA_ESTATE, 0);
        return;
    }
    cmp_owner(e, &t, x->epoch);
    op_add(&t, DCS_OP_PUT, "leader", e->w.me, e->w.lease.id);
    get_on_failure(&t, "leader");
    send_txn(e, x, &t);
}

/* A value of ours; NULL: nothing to write, which is success.  Takes `value`. */
static void put_owned(struct rt_engine *e, const struct ha_effect *x, const char *key, char *value, int64_t lease)
{
    struct dcs_txn t = {0};

    if (value == NULL) {
        engine_finish(e, x->kind, DRA_OK, 0);
        return;
    }
    if (x->epoch != 0) {
        cmp_owner(e, &t, x->epoch);
    }
    op_add(&t, DCS_OP_PUT, key, value, lease);
    send_txn(e, x, &t);
    free(value);
}

static void run_initialize(struct rt_engine *e, const struct ha_effect *x)
{
    const struct ha_cluster *c = &e->w.cluster;
    struct dcs_txn t = {0};

    if (c->initialize_rev != 0) {
        cmp_add(&t, DCS_CMP_MOD_REV, "initialize", c->initialize_rev, NULL);
    } else {
        cmp_add(&t, DCS_CMP_CREATE_REV, "initialize", 0, NULL);
    }
    if (x->kind == HA_EFFECT_INIT_RACE && c->initialize_rev != 0) {
        cmp_add(&t, DCS_CMP_LEASE, "initialize", e->w.lease.id, NULL); /* only over our own request that got no answer */
    }
    if (x->kind == HA_EFFECT_INIT_CANCEL) {
        op_add(&t, DCS_OP_DELETE, "initialize", NULL, 0);
    } else if (x->kind == HA_EFFECT_INIT_SET) {
        op_add(&t, DCS_OP_PUT, "initialize", e->w.pg.sysid, 0);
    } else {
        /* LIVE-05: with a lease, so that a bootstrapper that dies does not block the cluster for ever. */
        op_add(&t, DCS_OP_PUT, "initialize", "", e->w.lease.id);
    }
    get_on_failure(&t, "initialize");
    send_txn(e, x, &t);
}

static void run_clear_failover(struct rt_engine *e, const struct ha_effect *x)
{
    struct dcs_txn t = {0};

    cmp_add(&t, DCS_CMP_MOD_REV, "failover", x->number, NULL);
    op_add(&t, DCS_OP_PUT, "failover", "{}", 0);
    send_txn(e, x, &t);
}

/* ---- the lease ---------------------------------------------------------------------------------------------- */

static void run_renew(struct rt_engine *e, const struct ha_effect *x)
{
    struct ha_lease *l = &e->w.lease;
    struct engine_op *ka = op_new(e, x);
    struct engine_op *check = op_new(e, x);
    struct dcs_txn t = {0};
    struct dra_instant by = call_deadline(e);

    if (ka == NULL || check == NULL || l->id == 0) {
        if (ka != NULL) {
            ka->token = 0;
        }
        if (check != NULL) {
            check->token = 0;
        }
        engine_finish(e, x->kind, DRA_ESTATE, 0);
        return;
    }
    ka->keepalive_half = true;
    memset(&e->renewal, 0, sizeof e->renewal);
    e->renewal.active = true;
    e->renewal.lease = l->id;
    e->renewal.epoch = x->epoch;
    e->renewal.generation = e->lease_generation;
    e->renewal.started_at = engine_now(e);
    e->renewal.waiting = 2;
    l->renew_inflight = true;
    l->renew_sent_at = e->renewal.started_at;
    cmp_add(&t, DCS_CMP_VALUE, "leader", 0, e->w.me);
    cmp_add(&t, DCS_CMP_LEASE, "leader", l->id, NULL);
    cmp_add(&t, DCS_CMP_MOD_REV, "leader", x->epoch, NULL);
    get_on_failure(&t, "leader");
    t.retry_safe = true; /* it writes nothing */
    if (e->cfg.ops->dcs_keepalive(e->cfg.arg, ka->token, l->id, by) != 0) {
        struct dcs_answer a = {.err_code = DRA_ECONN, .sent_at = e->renewal.started_at};

        rt_engine_on_dcs(e, ka->token, &a);
    }
    if (e->cfg.ops->dcs_txn(e->cfg.arg, check->token, &t, by) != 0) {
        struct dcs_answer a = {.err_code = DRA_ECONN, .sent_at = e->renewal.started_at};

        rt_engine_on_dcs(e, check->token, &a);
    }
}

static void run_grant(struct rt_engine *e, const struct ha_effect *x)
{
    struct engine_op *op = op_new(e, x);
    int64_t ttl_s = (dra_span_ms(e->w.s.ttl) + 999) / 1000;

    if (op == NULL || e->cfg.ops->dcs_grant(e->cfg.arg, op->token, ttl_s, call_deadline(e)) != 0) {
        if (op != NULL) {
            op->token = 0;
        }
        engine_finish(e, x->kind, DRA_ECONN, 0);
        return;
    }
    op->effect.number = e->w.s.ttl.ns;
}

static void run_keepalive(struct rt_engine *e, const struct ha_effect *x)
{
    struct engine_op *op = e->w.lease.id != 0 ? op_new(e, x) : NULL;

    if (op == NULL || e->cfg.ops->dcs_keepalive(e->cfg.arg, op->token, e->w.lease.id, call_deadline(e)) != 0) {
        if (op != NULL) {
            op->token = 0;
        }
        engine_finish(e, x->kind, DRA_ECONN, 0);
    }
}

void engine_move_guard(struct rt_engine *e)
{
    const struct ha_lease *l = &e->w.lease;
    struct ha_guard g = {0};

    e->cfg.ops->guard(e->cfg.arg, &g);
    if (g.armed && g.epoch == l->epoch && dra_is_set(l->certain_until)) {
        /* Token 0: nobody waits; the client's view of the guard tells the result. */
        (void)e->cfg.ops->guard_move(e->cfg.arg, 0, ha_fence_at(&e->w.s, l->certain_until), l->certain_until, l->epoch, l->id);
    }
}

/* ---- questions, guard, server: answered by rt_engine_on_effect ------------------------------------------------ */

static int start_question(struct rt_engine *e, const struct ha_effect *x, uint64_t token)
{
    const struct rt_ops *o = e->cfg.ops;
    void *arg = e->cfg.arg;
    struct dra_instant now = engine_now(e);

    if (x->kind == HA_EFFECT_READ_DCS) {
        return o->dcs_read(arg, token, call_deadline(e));
    }
    if (x->kind == HA_EFFECT_POLL_PEERS) {
        return o->poll_peers(arg, token, dra_after(now, dra_ms(500)));
    }
    if (x->kind == HA_EFFECT_PROBE) {
        return o->probe(arg, token, dra_after(now, dra_ms(1000)));
    }
    if (x->kind == HA_EFFECT_READ_FILES) {
        return o->read_files(arg, token);
    }
    if (x->kind == HA_EFFECT_CHECK_UPSTREAM) {
        return o->check_upstream(arg, token, x->name, (uint32_t)x->number, dra_after(now, dra_ms(3000)));
    }
    if (x->kind == HA_EFFECT_FOLLOW) {
        return o->follow(arg, token, x->name);
    }
    if (x->kind == HA_EFFECT_RELOAD) {
        return o->reload(arg, token);
    }
    if (x->kind == HA_EFFECT_CHECKPOINT) {
        return o->checkpoint(arg, token, dra_after(now, dra_ms(600000)));
    }
    return o->slots(arg, token, e->p.wanted_slots, e->p.n_wanted_slots);
}

static int start_guard(struct rt_engine *e, const struct ha_effect *x, uint64_t token)
{
    const struct rt_ops *o = e->cfg.ops;
    void *arg = e->cfg.arg;
    const struct ha_lease *l = &e->w.lease;
    bool child = e->job.phase == HA_PHASE_FORKED;

    if (x->kind == HA_EFFECT_GUARD_DISARM) {
        return o->guard_disarm(arg, token);
    }
    if (x->kind == HA_EFFECT_GUARD_FENCE) {
        return o->guard_fence(arg, token);
    }
    return o->guard_arm(arg, token, child ? e->job.forked_pid : e->w.pg.pid,
                        child ? e->job.forked_start_ticks : e->w.pg.pid_start_ticks, false,
                        ha_fence_at(&e->w.s, l->certain_until), l->certain_until, l->epoch, l->id);
}

static bool is_guard_order(enum ha_effect_kind k)
{
    return k == HA_EFFECT_GUARD_ARM || k == HA_EFFECT_GUARD_DISARM || k == HA_EFFECT_GUARD_FENCE;
}

static void run_answered(struct rt_engine *e, const struct ha_effect *x)
{
    struct engine_op *op = op_new(e, x);
    bool guard = is_guard_order(x->kind);
    int rc = DRA_EBUSY;

    if (op != NULL) {
        rc = guard ? start_guard(e, x, op->token) : start_question(e, x, op->token);
    }
    if (rc != 0) {
        if (op != NULL) {
            op->token = 0;
        }
        engine_finish(e, x->kind, rc, 0);
    } else if (guard) {
        e->guard_inflight = true;
    }
}

/* ---- all kinds ------------------------------------------------------------------------------------------------------ */

static void run_now(struct rt_engine *e, const struct ha_effect *x)
{
    const struct rt_ops *o = e->cfg.ops;
    void *arg = e->cfg.arg;

    engine_finish(e, x->kind, DRA_OK, 0);
    if (x->kind == HA_EFFECT_CALLBACK) {
        o->callback(arg, x->callback, x->role);
    } else if (x->kind == HA_EFFECT_JOB_CONTINUE) {
        if (e->job.phase == HA_PHASE_FORKED) {
            e->job.phase = HA_PHASE_RUNNING;
            o->job_continue(arg, x->ok);
        }
    } else if (x->kind == HA_EFFECT_REPLY) {
        o->reply(arg, x->request_id, x->ok, x->text);
        if (e->request.id == x->request_id) {
            memset(&e->request, 0, sizeof e->request);
        }
    } else if (x->kind == HA_EFFECT_EXIT) {
        o->exit(arg, (int)x->number, x->text);
    }
}

void engine_run(struct rt_engine *e, const struct ha_effect *x)
{
    const struct rt_ops *o = e->cfg.ops;
    void *arg = e->cfg.arg;

    e->w.effects[x->kind].inflight = true;
    e->w.effects[x->kind].started_at = engine_now(e);
    if (!guards_hold(e, x)) {
        engine_finish(e, x->kind, DRA_ESTATE, 0);
        return;
    }
    switch (x->kind) {
    case HA_EFFECT_GRANT:
        run_grant(e, x);
        break;
    case HA_EFFECT_KEEPALIVE:
        run_keepalive(e, x);
        break;
    case HA_EFFECT_RENEW:
        run_renew(e, x);
        break;
    case HA_EFFECT_ACQUIRE:
        run_acquire(e, x);
        break;
    case HA_EFFECT_REATTACH:
        run_reattach(e, x);
        break;
    case HA_EFFECT_RELEASE:
    case HA_EFFECT_MOVE:
        run_give(e, x);
        break;
    case HA_EFFECT_PUT_MEMBER: {
        char key[HA_NAME_MAX + 16];

        if (e->w.lease.id == 0 || dra_str_printf(key, sizeof key, "members/%s", e->w.me) != 0) {
            engine_finish(e, x->kind, DRA_ESTATE, 0);
            break;
        }
        put_owned(e, x, key, o->member_value(arg, &e->w, x->role), e->w.lease.id);
        break;
    }
    case HA_EFFECT_PUT_STATUS:
        put_owned(e, x, "status", o->status_value(arg, &e->w, x->lsn, x->final), 0);
        break;
    case HA_EFFECT_PUT_HISTORY:
        put_owned(e, x, "history", o->history_value(arg, &e->w), 0);
        break;
    case HA_EFFECT_PUT_CONFIG:
        put_owned(e, x, "config", o->config_value(arg), 0);
        break;
    case HA_EFFECT_INIT_RACE:
    case HA_EFFECT_INIT_SET:
    case HA_EFFECT_INIT_CANCEL:
        run_initialize(e, x);
        break;
    case HA_EFFECT_CLEAR_FAILOVER:
        run_clear_failover(e, x);
        break;
    case HA_EFFECT_READ_DCS:
    case HA_EFFECT_POLL_PEERS:
    case HA_EFFECT_PROBE:
    case HA_EFFECT_READ_FILES:
    case HA_EFFECT_CHECK_UPSTREAM:
    case HA_EFFECT_FOLLOW:
    case HA_EFFECT_RELOAD:
    case HA_EFFECT_CHECKPOINT:
    case HA_EFFECT_SLOTS:
    case HA_EFFECT_GUARD_ARM:
    case HA_EFFECT_GUARD_DISARM:
    case HA_EFFECT_GUARD_FENCE:
        run_answered(e, x);
        break;
    case HA_EFFECT_CALLBACK:
    case HA_EFFECT_JOB_CONTINUE:
    case HA_EFFECT_REPLY:
    case HA_EFFECT_EXIT:
        run_now(e, x);
        break;
    case HA_EFFECT_NONE:
    case HA_EFFECT_COUNT:
        engine_finish(e, x->kind, DRA_ESTATE, 0);
        break;
    }
}

/* The token of an effect of this plan that is under way; 0 if it has ended. */
static uint64_t token_of(struct rt_engine *e, enum ha_effect_kind kind)
{
    uint64_t token = 0;

    for (int i = 0; i < ENGINE_OPS_MAX; i++) {
        if (e->ops[i].token > token && e->ops[i].kind == kind) {
            token = e->ops[i].token;
        }
    }
    return token;
}

static void queue_after(struct rt_engine *e, const struct ha_effect *x, uint64_t token)
{
    for (int i = 0; i < ENGINE_QUEUE_MAX; i++) {
        if (!e->queue[i].used) {
            e->queue[i].used = true;
            e->queue[i].after_token = token;
            e->queue[i].effect = *x;
            e->w.effects[x->kind].inflight = true;
            e->w.effects[x->kind].started_at = engine_now(e);
            return;
        }
    }
    engine_finish(e, x->kind, DRA_EBUSY, 0);
}

void engine_run_plan(struct rt_engine *e)
{
    for (int i = 0; i < e->p.n_effects; i++) {
        const struct ha_effect *x = &e->p.effects[i];
        const struct ha_effect *before = x->after > 0 ? &e->p.effects[x->after - 1] : NULL;
        uint64_t token = before != NULL ? token_of(e, before->kind) : 0;

        if (before == NULL) {
            engine_run(e, x);
        } else if (token != 0) {
            queue_after(e, x, token);
        } else if (e->w.effects[before->kind].result == DRA_OK) {
            engine_run(e, x);
        } else {
            engine_finish(e, x->kind, DRA_ESTATE, 0);
        }
    }
}

/* ---- answers ----------------------------------------------------------------------------------------------------------- */

static void on_renewal_half(struct rt_engine *e, struct engine_op *op, const struct dcs_answer *a)
{
    struct lease_renewal *r = &e->renewal;
    enum lease_outcome o;

    op->token = 0;
    if (op->keepalive_half) {
        r->keepalive = *a;
    } else {
        r->check = *a;
    }
    if (--r->waiting > 0) {
        return;
    }
    r->active = false;
    o = lease_on_renewal(&e->w.lease, r, e->lease_generation, engine_now(e));
    if (o == LEASE_LOST) {
        e->lease_generation++;
    }
    engine_finish(e, HA_EFFECT_RENEW, o == LEASE_RENEWED ? DRA_OK : o == LEASE_LOST ? DRA_ECONFLICT : DRA_ETIMEDOUT, 0);
    if (o == LEASE_RENEWED) {
        engine_move_guard(e);
    }
}

static void note_own_write(struct rt_engine *e, int64_t revision, const char *leader, int64_t lease)
{
    e->own.revision = revision;
    e->own.lease = lease;
    dra_str_clip(e->own.leader, sizeof e->own.leader, leader);
}

/* Answers to what was done to the leader key. */
static void on_leader_txn(struct rt_engine *e, const struct engine_op *op, const struct dcs_answer *a, int64_t *epoch)
{
    struct ha_lease *l = &e->w.lease;

    if (op->kind == HA_EFFECT_ACQUIRE || op->kind == HA_EFFECT_REATTACH) {
        if (a->err_code == DRA_OK && a->succeeded) {
            *epoch = a->revision;
            lease_on_attached(l, op->lease, a->revision, a->raft_term);
            note_own_write(e, a->revision, e->w.me, op->lease);
        } else if (a->err_code == DRA_OK && op->kind == HA_EFFECT_REATTACH) {
            lease_on_lost(l, op->epoch);
            e->lease_generation++;
        } else if (a->err_code == DRA_ENOTFOUND) {
            l->id = 0;
        }
        return;
    }
    if (a->err_code == DRA_OK && a->succeeded) {
        bool moved = op->kind == HA_EFFECT_MOVE;

        note_own_write(e, a->revision, moved ? op->effect.name : "", moved ? op->effect.lease : 0);
        lease_on_lost(l, op->epoch);
    } else if (a->err_code == DRA_OK) {
        lease_on_lost(l, op->epoch);
    } else if (a->err_code == DRA_ENOTFOUND) {
        l->given_away = false; /* a definite answer: the candidate's lease is gone and nothing was moved */
    }
}

static bool is_leader_txn(enum ha_effect_kind k)
{
    return k == HA_EFFECT_ACQUIRE || k == HA_EFFECT_REATTACH || k == HA_EFFECT_RELEASE || k == HA_EFFECT_MOVE;
}

void rt_engine_on_dcs(struct rt_engine *e, uint64_t token, const struct dcs_answer *a)
{
    struct engine_op *op = op_find(e, token);
    int result = a->err_code;
    int64_t epoch = 0;

    if (op == NULL) {
        return; /* late: nobody waits for it any more */
    }
    if (op->kind == HA_EFFECT_RENEW) {
        on_renewal_half(e, op, a);
        return;
    }
    if (op->kind == HA_EFFECT_GRANT) {
        lease_on_grant(&e->w.lease, a, (struct dra_span){op->effect.number});
    } else if (op->kind == HA_EFFECT_KEEPALIVE) {
        lease_on_keepalive(&e->w.lease, a);
    } else if (op->kind != HA_EFFECT_READ_DCS) {
        if (is_leader_txn(op->kind)) {
            on_leader_txn(e, op, a, &epoch);
        } else if (a->err_code == DRA_ENOTFOUND) {
            e->w.lease.id = 0; /* "requested lease not found" (DCS-49) */
        }
        if (result == DRA_OK && !a->succeeded) {
            result = DRA_ECONFLICT;
        } else if (op->kind == HA_EFFECT_INIT_RACE) {
            epoch = a->revision;
        }
    }
    op_end(e, op, result, epoch);
}

void rt_engine_on_effect(struct rt_engine *e, uint64_t token, int rc)
{
    struct engine_op *op = op_find(e, token);

    if (op == NULL) {
        return;
    }
    if (is_guard_order(op->kind)) {
        e->guard_inflight = false;
    }
    op_end(e, op, rc, 0);
}
