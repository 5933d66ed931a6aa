/*
 * net.c - etcd over the network: calls that are late, lost, or answered twice; and the watch.
 */
#include "sim.h"

#include <stdlib.h>
#include <string.h>

/* ---- etcd over the network -------------------------------------------------------------------------------- */

struct call {
    enum call_kind kind;
    uint64_t gen, token;
    int64_t number;
    int64_t sent_at;    /* local */
    bool answered;      /* the asker has its answer (or its time-out) */
    bool at_etcd;
    int refs;
    struct dcs_txn txn;
    char text[DCS_CMPS_MAX + 2 * DCS_OPS_MAX][2][HA_NAME_MAX];
    char *values[DCS_OPS_MAX];
};

static void call_unref(struct call *c)
{
    if (--c->refs == 0) {
        for (int i = 0; i < DCS_OPS_MAX; i++) {
            free(c->values[i]);
        }
        free(c);
    }
}

/* The events own a struct call through a small box, so that sim_free() can free what is left in the queue. */
struct call_box {
    struct call *c;
    struct dcs_answer a;
};

static struct call_box *box(struct call *c, const struct dcs_answer *a)
{
    struct call_box *b = calloc(1, sizeof *b);

    assert(b != NULL);
    b->c = c;
    c->refs++;
    if (a != NULL) {
        b->a = *a;
    }
    return b;
}

static void copy_txn(struct call *c, const struct dcs_txn *t)
{
    int row = 0;

    c->txn = *t;
    for (int i = 0; i < t->n_cmps; i++, row++) {
        dra_str_clip(c->text[row][0], HA_NAME_MAX, t->cmps[i].key);
        c->txn.cmps[i].key = c->text[row][0];
        if (t->cmps[i].value != NULL) {
            dra_str_clip(c->text[row][1], HA_NAME_MAX, t->cmps[i].value);
            c->txn.cmps[i].value = c->text[row][1];
        }
    }
    for (int i = 0; i < t->n_success; i++, row++) {
        dra_str_clip(c->text[row][0], HA_NAME_MAX, t->success[i].key);
        c->txn.success[i].key = c->text[row][0];
        if (t->success[i].value != NULL) {
            c->values[i] = strdup(t->success[i].value);
            c->txn.success[i].value = c->values[i];
        }
    }
    for (int i = 0; i < t->n_failure; i++, row++) {
        dra_str_clip(c->text[row][0], HA_NAME_MAX, t->failure[i].key);
        c->txn.failure[i].key = c->text[row][0];
    }
}

static void give_answer(struct sim *s, struct node *n, struct call *c, const struct dcs_answer *a)
{
    struct dcs_answer mine = *a;

    if (c->answered || n->engine == NULL || c->gen != n->agent_gen) {
        return;
    }
    c->answered = true;
    mine.sent_at.ns = c->sent_at;
    if (c->kind == CALL_KEEPALIVE) {
        mine.lease = c->number;
    }
    agent_dcs_answer(s, n, c->gen, c->token, &mine);
}

static void call_back(struct sim *s, struct node *n, uint64_t a, void *p)
{
    struct call_box *b = p;

    (void)a;
    if (!s->cut_etcd[n->i][1]) {
        give_answer(s, n, b->c, &b->a);
    }
    call_unref(b->c);
    free(b);
}

static void call_timeout(struct sim *s, struct node *n, uint64_t a, void *p)
{
    struct call_box *b = p;
    struct dcs_answer late = {.err_code = DRA_ETIMEDOUT};

    (void)a;
    give_answer(s, n, b->c, &late);
    call_unref(b->c);
    free(b);
}

static void call_arrives(struct sim *s, struct node *n, uint64_t again, void *p)
{
    struct call_box *b = p;
    struct call *c = b->c;
    struct dcs_answer a;
    struct dra_instant now = {s->now};

    (void)again;
    memset(&a, 0, sizeof a);
    (void)mem_advance(s->etcd, now);
    if (c->kind == CALL_TXN) {
        mem_apply_txn(s->etcd, &c->txn, now, &a);
    } else if (c->kind == CALL_GRANT) {
        mem_grant(s->etcd, c->number, now, &a);
    } else if (c->kind == CALL_KEEPALIVE) {
        mem_keepalive_deposed(s->etcd, c->number, now, &a);
        if (a.err_code != DRA_OK || sim_chance(s, 50)) {
            mem_keepalive(s->etcd, c->number, now, &a);
        }
    } else {
        a.err_code = mem_has_leader(s->etcd) ? DRA_OK : DRA_ETIMEDOUT;
        a.raft_term = mem_term(s->etcd);
        a.revision = mem_revision(s->etcd);
        a.succeeded = true;
    }
    if (a.err_code == DRA_ETIMEDOUT && !c->answered) {
        /* No leader: etcd lets the call hang, and carries it out once there is one. */
        sim_at(s, 20 * MS, call_arrives, n, 1, b);
        return;
    }
    if (c->kind == CALL_READ) {
        agent_snapshot(s, n);
    }
    sim_at(s, sim_latency(s) + s->late_answer[n->i], call_back, n, 0, box(c, &a));
    call_unref(c);
    free(b);
}

int64_t call_patience(const struct node *n)
{
    int64_t ns = n->settings.ttl.ns / 5;

    ns = ns > n->settings.retry_timeout.ns ? n->settings.retry_timeout.ns : ns;
    return ns < 500 * MS ? 500 * MS : ns;
}

int net_call(struct sim *s, struct node *n, enum call_kind kind, uint64_t token, const struct dcs_txn *t, int64_t number,
                struct dra_instant not_after)
{
    struct call *c = calloc(1, sizeof *c);

    assert(c != NULL);
    c->kind = kind;
    c->gen = n->agent_gen;
    c->token = token;
    c->number = number;
    c->sent_at = local_now(s, n);
    c->refs = 1;
    if (t != NULL) {
        copy_txn(c, t);
    }
    if (!s->cut_etcd[n->i][0]) {
        int64_t held = t != NULL ? aim_hold(s, n, t) : 0;

        if (held > 0) {
            sim_log(s, n, "a request about the leader key stays in the network for %lld ms", (long long)(held / MS));
        }
        sim_at(s, held > 0 ? held : sim_latency(s), call_arrives, n, 0, box(c, NULL));
    }
    sim_at(s, true_delay(s, n, not_after.ns), call_timeout, n, 0, box(c, NULL));
    call_unref(c);
    return 0;
}

/* ---- the watch ------------------------------------------------------------------------------------------------ */

struct view {
    uint64_t gen;
    struct dcs_snapshot *snap;
};

static void view_now(struct sim *s, struct node *n, uint64_t a, void *p)
{
    struct view *v = p;

    (void)a;
    if (n->engine != NULL && v->gen == n->agent_gen && (n->snap == NULL || n->snap->c.revision <= v->snap->c.revision)) {
        dcs_snapshot_unref(n->snap);
        n->snap = v->snap;
        v->snap = NULL;
        n->snap_at = local_now(s, n);
        n->stale = false;
        agent_touch(s, n);
    }
    dcs_snapshot_unref(v->snap);
    free(v);
}

static void view_arrives(struct sim *s, struct node *n, uint64_t a, void *p)
{
    struct view *v = p;

    (void)a;
    if (n->engine == NULL || v->gen != n->agent_gen || s->cut_etcd[n->i][1]) {
        dcs_snapshot_unref(v->snap);
        free(v);
        return;
    }
    agent_deliver(s, n, view_now, 0, v);
}

void agent_snapshot(struct sim *s, struct node *n)
{
    struct view *v;

    if (n->engine == NULL || s->cut_etcd[n->i][1]) {
        return;
    }
    v = calloc(1, sizeof *v);
    assert(v != NULL);
    v->gen = n->agent_gen;
    v->snap = mem_snapshot(s->etcd);
    sim_at(s, sim_latency(s), view_arrives, n, 0, v);
}

/* What an event or a letter in the backlog owns beyond its own memory. */
void net_free(sim_fn fn, void *p)
{
    if (fn == call_arrives || fn == call_back || fn == call_timeout) {
        call_unref(((struct call_box *)p)->c);
    } else if (fn == view_arrives || fn == view_now) {
        dcs_snapshot_unref(((struct view *)p)->snap);
    }
    free(p);
}
