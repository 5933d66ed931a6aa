/*
 * aim.c - faults aimed at one step each: the moments that chance finds too rarely.
 *
 * A seed has one aim or none.  An aim begins with an event (a death, a switchover) and waits for the step that it is about.
 */
#include "sim.h"

#include <string.h>

static struct node *leader(struct sim *s)
{
    const struct dcs_kv *kv = mem_get(s->etcd, "leader");
    char name[HA_NAME_MAX];

    if (kv == NULL || dra_str_copy_n(name, sizeof name, kv->value, kv->value_len) != 0) {
        return NULL;
    }
    return node_by_name(s, name);
}

/* ---- small faults at a chosen time; `a` is the node's index where no node goes along ------------------ */

static void thaw(struct sim *s, struct node *n, uint64_t a, void *p)
{
    (void)a;
    (void)p;
    agent_thaw(s, n);
}

static void freeze(struct sim *s, struct node *n, uint64_t a, void *p)
{
    (void)a;
    (void)p;
    if (s->healing || n->frozen || !n->guard_alive || n->guard_frozen || !n->guard_known) {
        return; /* one of agent and guard at a time (section 6 of safety.md) */
    }
    agent_freeze(s, n);
    sim_at(s, sim_between(s, n->settings.ttl.ns, 2 * n->settings.ttl.ns), thaw, n, 0, NULL);
}

static void cut_from_etcd(struct sim *s, struct node *n, uint64_t a, void *p)
{
    (void)a;
    (void)p;
    if (!s->healing) {
        sim_log(s, n, "cut off from etcd");
        s->cut_etcd[n->i][0] = s->cut_etcd[n->i][1] = true;
        sim_at(s, sim_between(s, n->settings.ttl.ns, 2 * n->settings.ttl.ns), faults_join, n, 0, NULL);
    }
}

static void cut_from_peers(struct sim *s, struct node *n, int64_t for_ns)
{
    sim_log(s, n, "cut off from the other nodes");
    for (int i = 0; i < SIM_NODES; i++) {
        s->cut[i][n->i] = s->cut[n->i][i] = i != n->i;
    }
    sim_at(s, for_ns, faults_join, n, 0, NULL);
}

static void die(struct sim *s, struct node *n, uint64_t a, void *p)
{
    (void)a;
    (void)p;
    if (!s->healing) {
        faults_power_cycle(s, n, sim_between(s, n->settings.ttl.ns, 3 * n->settings.ttl.ns));
    }
}

static void leader_dies(struct sim *s, struct node *n, uint64_t a, void *p)
{
    struct node *l = leader(s);

    (void)n;
    if (l != NULL) {
        die(s, l, a, p);
    }
}

/* ---- how an aim begins ------------------------------------------------------------------------------------ */

static void lag_and_death(struct sim *s, struct node *l)
{
    struct node *b = &s->nodes[(l->i + 1 + (int)sim_between(s, 0, 1)) % SIM_NODES];
    int64_t after = sim_between(s, 500, 4000) * MS;

    cut_from_peers(s, b, after + 100 * MS);
    sim_at(s, after, die, l, 0, NULL);
    if (sim_chance(s, 50)) {
        sim_at(s, after, die, &s->nodes[SIM_NODES - l->i - b->i], 0, NULL);
    }
}

void aim_begin(struct sim *s)
{
    struct node *l = leader(s);

    if (l == NULL || !l->power) {
        return;
    }
    s->aim_ready = true;
    switch (s->aim) {
    case AIM_START:
        pg_kill_postmaster(s, l, false);
        break;
    case AIM_PROMOTE:
    case AIM_LATE_TAKE:
        die(s, l, 0, NULL);
        break;
    case AIM_LATE_ANSWER:
        s->late_answer[l->i] = call_patience(l) - 50 * MS;
        sim_at(s, sim_between(s, l->settings.ttl.ns / 2, l->settings.ttl.ns), cut_from_etcd, l, 0, NULL);
        break;
    case AIM_LATE_GIVE:
    case AIM_HANDOVER:
        faults_switchover(s);
        break;
    case AIM_LAG:
        lag_and_death(s, l);
        break;
    case AIM_NONE:
    case AIM_COUNT:
        break;
    }
}

/* ---- the steps that are aimed at --------------------------------------------------------------------------- */

void aim_on_job(struct sim *s, struct node *n, enum ha_job_kind kind)
{
    if (!s->aim_ready || s->healing) {
        return;
    }
    if (s->aim == AIM_PROMOTE && kind == HA_JOB_PROMOTE) {
        s->aim_ready = false;
        sim_at(s, sim_between(s, 0, 30) * MS, freeze, n, 0, NULL);
    } else if (s->aim == AIM_HANDOVER && kind == HA_JOB_STOP && n->pg.alive && !n->pg.in_recovery) {
        s->aim_ready = false;
        cut_from_peers(s, n, sim_between(s, 100, 400) * MS);
    }
}

void aim_on_exec(struct sim *s, struct node *n)
{
    if (s->aim == AIM_START && s->aim_ready) {
        s->aim_ready = false;
        sim_at(s, sim_between(s, 0, 20) * MS / 10, freeze, n, 0, NULL);
    }
}

/* A request about the leader key leaves: how long the network keeps it; 0 = as usual. */
int64_t aim_hold(struct sim *s, struct node *n, const struct dcs_txn *t)
{
    const struct dcs_op *op = &t->success[0];
    bool about_key = t->n_success == 1 && strcmp(op->key, "leader") == 0;
    bool puts_own = about_key && op->kind == DCS_OP_PUT && strcmp(op->value, n->name) == 0;
    bool takes = puts_own && t->n_cmps > 0 && t->cmps[0].target == DCS_CMP_CREATE_REV;

    if (s->healing || !about_key) {
        return 0;
    }
    if (s->aim == AIM_LATE_GIVE && !puts_own) {
        if (s->aim_ready) { /* all attempts arrive together, when the sender is cut off */
            s->aim_ready = false;
            s->hold_until = s->now + sim_between(s, 1500, 9000) * MS;
            sim_at(s, s->hold_until - s->now - 50 * MS, cut_from_etcd, n, 0, NULL);
        }
        return s->hold_until > s->now ? s->hold_until - s->now : 0;
    }
    if (s->aim == AIM_LATE_TAKE && takes && s->aim_ready && sim_chance(s, 60)) {
        int64_t dies = sim_between(s, 1500, 4000) * MS;
        int64_t hold = dies + n->settings.ttl.ns + sim_between(s, 50, 1500) * MS;

        s->aim_ready = false;
        cut_from_peers(s, n, hold + 1000 * MS);
        sim_at(s, dies, leader_dies, NULL, 0, NULL);
        return hold;
    }
    return 0;
}
