/*
 * faults.c - what goes wrong, when: all from the seed.  And the operator's hand: switchover, pause, restart, stop.
 */
#include "sim.h"

#include <stdlib.h>
#include <string.h>

static void restart_agent(struct sim *s, struct node *n, uint64_t a, void *p)
{
    (void)a;
    (void)p;
    agent_start(s, n);
}

static void thaw_agent(struct sim *s, struct node *n, uint64_t a, void *p)
{
    (void)a;
    (void)p;
    agent_thaw(s, n);
}

static void thaw_guard(struct sim *s, struct node *n, uint64_t a, void *p)
{
    (void)a;
    (void)p;
    guard_thaw(s, n);
}

static void power_on(struct sim *s, struct node *n, uint64_t a, void *p)
{
    (void)a;
    (void)p;
    if (!n->power) {
        sim_log(s, n, "power on");
        n->power = true;
        n->boot++;
        agent_start(s, n);
    }
}

static void power_off(struct sim *s, struct node *n)
{
    sim_log(s, n, "power off");
    agent_kill(s, n);
    n->guard_alive = n->guard_frozen = false;
    n->guard_gen++;
    n->power = false;
    pg_power_off(s, n);
}

void faults_power_cycle(struct sim *s, struct node *n, int64_t back_after)
{
    if (n->power) {
        power_off(s, n);
        sim_at(s, back_after, power_on, n, 0, NULL);
    }
}

void faults_join(struct sim *s, struct node *n, uint64_t a, void *p)
{
    (void)a;
    (void)p;
    s->cut_etcd[n->i][0] = s->cut_etcd[n->i][1] = false;
    s->late_answer[n->i] = 0;
    for (int i = 0; i < SIM_NODES; i++) {
        s->cut[i][n->i] = s->cut[n->i][i] = false;
    }
    sim_log(s, n, "network whole");
    agent_snapshot(s, n);
}

static void stale(struct sim *s, struct node *n, uint64_t gen, void *p)
{
    (void)p;
    if (n->engine != NULL && n->agent_gen == gen && (s->cut_etcd[n->i][0] || s->cut_etcd[n->i][1])) {
        n->stale = true;
        agent_touch(s, n);
    }
}

static void cut_off(struct sim *s, struct node *n)
{
    int what = (int)sim_between(s, 0, 4);

    sim_log(s, n, "cut off, kind %d", what);
    if (what == 0 || what == 2) {
        s->cut_etcd[n->i][0] = true;
    }
    if (what == 1 || what == 2) {
        s->cut_etcd[n->i][1] = true;
    }
    if (what >= 3) {
        s->cut_etcd[n->i][0] = s->cut_etcd[n->i][1] = what == 3;
        for (int i = 0; i < SIM_NODES; i++) {
            s->cut[i][n->i] = true;
            s->cut[n->i][i] = sim_chance(s, 80);
        }
    }
    sim_at(s, sim_between(s, 500, 3000) * MS, stale, n, n->agent_gen, NULL);
    sim_at(s, sim_between(s, 500, 3 * n->settings.ttl.ns / MS) * MS, faults_join, n, 0, NULL);
}

static void etcd_back(struct sim *s, struct node *n, uint64_t deposed, void *p)
{
    (void)n;
    (void)p;
    mem_leader_elected(s->etcd, (struct dra_instant){s->now}, deposed != 0);
    sim_log(s, NULL, "etcd has a leader");
}

static void etcd_deposed_end(struct sim *s, struct node *n, uint64_t a, void *p)
{
    (void)n;
    (void)a;
    (void)p;
    mem_deposed_end(s->etcd);
}

static void etcd_fault(struct sim *s, int64_t ms)
{
    if (!mem_has_leader(s->etcd)) {
        return;
    }
    sim_log(s, NULL, "etcd lost its leader for %lld ms", (long long)ms);
    mem_leader_lost(s->etcd);
    sim_at(s, ms * MS, etcd_back, NULL, sim_chance(s, 40), NULL);
    sim_at(s, (ms + 4000) * MS, etcd_deposed_end, NULL, 0, NULL);
}

/* ---- the operator ----------------------------------------------------------------------------------- */

static void etcd_put(struct sim *s, const char *key, const char *value)
{
    struct dcs_txn t = {.n_success = 1, .success = {{.kind = DCS_OP_PUT, .key = key, .value = value}}};
    struct dcs_answer a;

    memset(&a, 0, sizeof a);
    mem_apply_txn(s->etcd, &t, (struct dra_instant){s->now}, &a);
}

static struct node *leader(struct sim *s)
{
    const struct dcs_kv *kv = mem_get(s->etcd, "leader");
    char name[HA_NAME_MAX];

    if (kv == NULL || dra_str_copy_n(name, sizeof name, kv->value, kv->value_len) != 0) {
        return NULL;
    }
    return node_by_name(s, name);
}

void faults_switchover(struct sim *s)
{
    const struct node *l = leader(s);
    char text[200];
    const char *to = s->nodes[sim_between(s, 0, SIM_NODES - 1)].name;
    int rc;

    if (l == NULL || strcmp(to, l->name) == 0) {
        return;
    }
    rc = sim_chance(s, 50) ? dra_str_printf(text, sizeof text, "{\"leader\":\"%s\",\"member\":\"%s\"}", l->name, to)
                           : dra_str_printf(text, sizeof text, "{\"leader\":\"%s\"}", l->name);
    if (rc == 0) {
        s->switchovers++;
        etcd_put(s, "failover", text);
    }
}

static void resume(struct sim *s, struct node *n, uint64_t a, void *p)
{
    (void)n;
    (void)a;
    (void)p;
    etcd_put(s, "config", "{\"ttl\":5}");
}

static void pause_some_time(struct sim *s)
{
    etcd_put(s, "config", "{\"ttl\":5,\"pause\":true}");
    sim_at(s, sim_between(s, 200, 4000) * MS, resume, NULL, 0, NULL);
}

static void request(struct sim *s, struct node *n, enum ha_request_kind kind)
{
    struct ha_request rq = {.kind = kind};

    if (n->engine == NULL || n->frozen) {
        return;
    }
    rq.id = ++n->request_id + (n->agent_gen << 8);
    rq.asked_at.ns = local_now(s, n);
    if (rt_engine_request(n->engine, &rq) == 0) {
        sim_log(s, n, "request %d", (int)kind);
        agent_touch(s, n);
    }
}

static void stop_agent(struct sim *s, struct node *n)
{
    if (n->engine == NULL || n->frozen || n->shutting_down) {
        return;
    }
    sim_log(s, n, "told to stop");
    n->shutting_down = true;
    rt_engine_shutdown(n->engine);
    agent_touch(s, n);
}

/* ---- one fault ------------------------------------------------------------------------------------------ */

static struct node *victim(struct sim *s)
{
    struct node *l = leader(s);

    return l != NULL && sim_chance(s, 65) ? l : &s->nodes[sim_between(s, 0, SIM_NODES - 1)];
}

static void hurt_agent(struct sim *s, struct node *n)
{
    int64_t ttl = n->settings.ttl.ns / MS;

    if (!n->guard_alive || n->guard_frozen || !n->guard_known) {
        return; /* one fault of agent or guard at a time (section 6 of safety.md) */
    }
    if (sim_chance(s, 40)) {
        agent_kill(s, n);
        sim_at(s, sim_between(s, 20, sim_chance(s, 50) ? 500 : 3 * ttl) * MS, restart_agent, n, 0, NULL);
    } else {
        agent_freeze(s, n);
        sim_at(s, sim_between(s, 50, 3 * ttl) * MS, thaw_agent, n, 0, NULL);
    }
}

static void hurt_guard(struct sim *s, struct node *n)
{
    if (n->engine == NULL || n->frozen || !n->guard_known) {
        return;
    }
    if (sim_chance(s, 50)) {
        guard_kill(s, n);
    } else {
        guard_freeze(s, n);
        sim_at(s, sim_between(s, 50, 4000) * MS, thaw_guard, n, 0, NULL);
    }
}

static void hurt(struct sim *s, struct node *unused, uint64_t a, void *p)
{
    struct node *n = victim(s);
    int64_t ttl = n->settings.ttl.ns / MS;

    (void)unused;
    (void)a;
    (void)p;
    if (s->healing) {
        return;
    }
    if (s->aim != AIM_NONE && sim_chance(s, 40)) {
        aim_begin(s);
        sim_at(s, sim_between(s, 3000, 12000) * MS, hurt, NULL, 0, NULL);
        return;
    }
    switch (s->o.quiet_faults ? sim_between(s, 12, 14) : sim_between(s, 0, 16)) {
    case 0:
    case 1:
        hurt_agent(s, n);
        break;
    case 2:
        hurt_guard(s, n);
        break;
    case 3:
    case 4:
        pg_kill_postmaster(s, n, sim_chance(s, 50));
        break;
    case 5:
    case 6:
        faults_power_cycle(s, n, sim_between(s, 500, 3 * ttl) * MS);
        break;
    case 7:
    case 8:
        cut_off(s, n);
        break;
    case 9:
        etcd_fault(s, sim_between(s, 200, 2600));
        break;
    case 10:
        etcd_fault(s, sim_between(s, 2600, 3 * ttl));
        break;
    case 11:
        s->slow_until = s->now + sim_between(s, 200, 4000) * MS;
        sim_log(s, NULL, "slow network");
        break;
    case 12:
        faults_switchover(s);
        break;
    case 13:
        request(s, n, sim_chance(s, 70) ? HA_REQ_RESTART : HA_REQ_REINIT);
        break;
    case 14:
        stop_agent(s, n);
        break;
    case 15:
        s->disk_slow_until = s->now + sim_between(s, 200, 4000) * MS;
        break;
    default:
        pause_some_time(s);
        break;
    }
    sim_at(s, sim_between(s, 50, sim_chance(s, 30) ? 1000 : 8000) * MS, hurt, NULL, 0, NULL);
}

void faults_begin(struct sim *s)
{
    enum sim_aim aim = (enum sim_aim)sim_between(s, AIM_START, AIM_COUNT - 1);
    bool aimed = sim_chance(s, 40);

    s->aim = s->o.aim != AIM_NONE ? s->o.aim : aimed && !s->o.quiet_faults ? aim : AIM_NONE;
    sim_at(s, sim_between(s, sim_chance(s, 20) ? 100 : 4000, 8000) * MS, hurt, NULL, 0, NULL);
}

void faults_heal(struct sim *s)
{
    s->healing = true;
    s->slow_until = s->disk_slow_until = 0;
    if (!mem_has_leader(s->etcd)) {
        mem_leader_elected(s->etcd, (struct dra_instant){s->now}, false);
    }
    mem_deposed_end(s->etcd);
    resume(s, NULL, 0, NULL);
    for (int i = 0; i < SIM_NODES; i++) {
        struct node *n = &s->nodes[i];

        faults_join(s, n, 0, NULL);
        power_on(s, n, 0, NULL);
        guard_thaw(s, n);
        agent_thaw(s, n);
        if (!n->shutting_down) {
            agent_start(s, n);
        }
    }
    sim_log(s, NULL, "healed");
}
