/*
 * guard.c - the guard as a process of the model: guard_step() with a local clock, and the client that keeps it alive.
 */
#include "sim.h"

#include <stdlib.h>
#include <string.h>

static void act(struct sim *s, struct node *n, const struct guard_actions *a, uint64_t token, uint64_t agent_gen);

static void timer(struct sim *s, struct node *n, uint64_t gen, void *p);

static void step(struct sim *s, struct node *n, const struct guard_event *ev, uint64_t token, uint64_t agent_gen)
{
    struct guard_actions a;
    uint64_t fences = n->guard.view.fence_id;

    if (!n->guard_alive || n->guard_frozen) {
        return;
    }
    guard_step(&n->guard, ev, &a);
    if (n->guard.view.fence_id != fences) {
        s->fences++;
        sim_log(s, n, "guard begins to fence: %s", guard_cause_to_str(n->guard.view.cause));
    }
    act(s, n, &a, token, agent_gen);
}

static void timer(struct sim *s, struct node *n, uint64_t gen, void *p)
{
    struct guard_event ev = {.kind = GUARD_EV_TIMER, .now_ns = local_now(s, n)};

    (void)p;
    if (gen == n->guard_timer) {
        step(s, n, &ev, 0, 0);
    }
}

static void pass_done(struct sim *s, struct node *n, uint64_t gen, void *p)
{
    struct guard_event ev = {.kind = GUARD_EV_PASS, .now_ns = local_now(s, n)};

    (void)p;
    if (gen != n->guard_gen || !n->guard_alive) {
        return;
    }
    if (n->guard_frozen) { /* it goes on where it was */
        sim_at(s, 10 * MS, pass_done, n, gen, NULL);
        return;
    }
    ev.left = pg_any_process(&n->pg) ? 1 : 0;
    ev.running = ev.left != 0 && !n->pg.frozen ? 1 : 0;
    step(s, n, &ev, 0, 0);
}

struct guard_answer {
    uint64_t token, gen;
    int rc;
    struct guard_view view;
};

static void answer_now(struct sim *s, struct node *n, uint64_t a, void *p)
{
    struct guard_answer *r = p;

    (void)a;
    if (n->engine != NULL && n->agent_gen == r->gen) {
        n->view = r->view;
        if (r->token != 0) {
            rt_engine_on_effect(n->engine, r->token, r->rc);
        }
        agent_touch(s, n);
    }
    free(r);
}

static void act(struct sim *s, struct node *n, const struct guard_actions *a, uint64_t token, uint64_t agent_gen)
{
    n->last_status = a->reply ? a->answer.status : GUARD_STATUS_OK;
    if (a->stamp || a->reply) {
        n->stamp = n->guard.view;
        n->stamp_there = true;
        n->stamp_boot = n->boot;
    }
    if (a->pass == GUARD_PASS_FREEZE) {
        n->pg.frozen = pg_any_process(&n->pg);
    } else if (a->pass == GUARD_PASS_KILL) {
        pg_kill_all(s, n);
    }
    if (a->pass != GUARD_PASS_NONE) {
        sim_at(s, sim_between(s, 1, 20) * MS, pass_done, n, n->guard_gen, NULL);
    }
    if (n->engine != NULL && (a->reply || a->notes[0] != GUARD_NOTE_NONE)) {
        struct guard_answer *r = calloc(1, sizeof *r);

        assert(r != NULL);
        r->token = a->reply ? token : 0;
        r->gen = a->reply ? agent_gen : n->agent_gen;
        r->rc = a->reply && a->answer.status != GUARD_STATUS_OK ? DRA_ESTATE : DRA_OK;
        r->view = n->guard.view;
        agent_deliver(s, n, answer_now, 0, r);
    }
    if (a->exit) {
        n->guard_alive = false;
        n->guard_gen++;
        return;
    }
    n->guard_timer++;
    if (a->timer_ns != 0) {
        sim_at(s, true_delay(s, n, a->timer_ns), timer, n, n->guard_timer, NULL);
    }
}

void guard_start(struct sim *s, struct node *n)
{
    if (n->guard_alive || !n->power) {
        return;
    }
    n->guard_alive = true;
    n->guard_frozen = false;
    n->guard_gen++;
    guard_step_init(&n->guard, local_now(s, n));
    if (n->stamp_there && n->stamp_boot == n->boot) {
        struct guard_stamp st;
        struct guard_event ev = {.kind = GUARD_EV_TIMER, .now_ns = local_now(s, n)};

        memset(&st, 0, sizeof st);
        st.view = n->stamp;
        dra_str_clip(st.data_dir, sizeof st.data_dir, "/data");
        if (!guard_step_resume(&n->guard, &st, n->pg.alive && n->pg.pid == n->stamp.server_pid, local_now(s, n)) &&
            n->stamp.server_pid != 0) {
            ev.kind = GUARD_EV_SERVER_EXITED;
        }
        step(s, n, &ev, 0, 0);
    }
}

/* The agent's client: asks at each heartbeat; what is dead or silent is killed and replaced (SAFE-36). */
static void replace(struct sim *s, struct node *n, uint64_t gen, void *p)
{
    (void)p;
    if (n->engine == NULL || n->agent_gen != gen || n->frozen || n->guard_known) {
        return;
    }
    if (n->guard_alive && n->guard_frozen) {
        n->guard_alive = false;
    }
    guard_start(s, n);
    guard_agents(s, n, 1);
    n->guard_known = true;
    n->view = n->guard.view;
    sim_log(s, n, "guard replaced");
    agent_touch(s, n);
}

void guard_replace_soon(struct sim *s, struct node *n)
{
    sim_at(s, sim_between(s, 20, 80) * MS, replace, n, n->agent_gen, NULL);
}

static void notice(struct sim *s, struct node *n, uint64_t gen, void *p)
{
    (void)p;
    if (n->engine == NULL || n->agent_gen != gen || !n->guard_known || (n->guard_alive && !n->guard_frozen)) {
        return;
    }
    if (n->frozen) {
        sim_at(s, 50 * MS, notice, n, gen, NULL);
        return;
    }
    n->guard_known = false;
    sim_log(s, n, "guard lost");
    guard_replace_soon(s, n);
    agent_touch(s, n);
}

void guard_kill(struct sim *s, struct node *n)
{
    if (!n->guard_alive) {
        return;
    }
    sim_log(s, n, "guard killed");
    n->guard_alive = false;
    n->guard_gen++;
    sim_at(s, 2 * MS, notice, n, n->agent_gen, NULL);
}

void guard_freeze(struct sim *s, struct node *n)
{
    if (!n->guard_alive || n->guard_frozen) {
        return;
    }
    sim_log(s, n, "guard frozen");
    n->guard_frozen = true;
    sim_at(s, sim_between(s, 100, 1100) * MS, notice, n, n->agent_gen, NULL);
}

void guard_thaw(struct sim *s, struct node *n)
{
    struct guard_event ev = {.kind = GUARD_EV_TIMER, .now_ns = local_now(s, n)};

    if (!n->guard_alive || !n->guard_frozen) {
        return;
    }
    n->guard_frozen = false;
    step(s, n, &ev, 0, 0);
    if (n->guard.view.server_pid != 0 && !((n->pg.alive || n->job_forked) && n->pg.pid == n->guard.view.server_pid)) {
        ev.kind = GUARD_EV_SERVER_EXITED; /* its pidfd has waited */
        step(s, n, &ev, 0, 0);
    }
}

void guard_server_exited(struct sim *s, struct node *n)
{
    struct guard_event ev = {.kind = GUARD_EV_SERVER_EXITED, .now_ns = local_now(s, n)};

    if (n->guard.view.server_pid == n->pg.pid && n->guard.view.server_pid != 0) {
        step(s, n, &ev, 0, 0);
    }
}

void guard_agents(struct sim *s, struct node *n, uint32_t agents)
{
    struct guard_event ev = {.kind = GUARD_EV_AGENTS, .now_ns = local_now(s, n), .agents = agents};

    step(s, n, &ev, 0, 0);
}

struct order_box {
    uint64_t token, gen;
    struct guard_order o;
};

static void order_arrives(struct sim *s, struct node *n, uint64_t a, void *p)
{
    struct order_box *b = p;
    struct guard_event ev = {.kind = GUARD_EV_ORDER, .now_ns = local_now(s, n), .order = &b->o};

    (void)a;
    if (s->o.no_guard) { /* says yes to everything and does nothing */
        struct guard_answer *r = calloc(1, sizeof *r);

        assert(r != NULL);
        n->guard.view.armed = b->o.kind == GUARD_ORDER_ARM ? 1 : b->o.kind == GUARD_ORDER_DISARM ? 0 : n->guard.view.armed;
        if (b->o.kind == GUARD_ORDER_ARM || b->o.kind == GUARD_ORDER_MOVE) {
            n->guard.view.deadline_ns = b->o.deadline_ns;
            n->guard.view.epoch = b->o.epoch;
            n->guard.view.lease = b->o.lease;
            n->guard.view.server_pid = b->o.pid != 0 ? b->o.pid : n->guard.view.server_pid;
        }
        r->token = b->token;
        r->gen = b->gen;
        r->view = n->guard.view;
        agent_deliver(s, n, answer_now, 0, r);
    } else if (n->guard_alive && !n->guard_frozen) {
        ev.process_found = (n->pg.alive && n->pg.pid == b->o.pid) || (n->job_forked && n->pg.pid == b->o.pid);
        step(s, n, &ev, b->token, b->gen);
        if (b->o.kind == GUARD_ORDER_ARM || b->o.kind == GUARD_ORDER_DISARM) {
            sim_log(s, n, "guard: %s, reason %u", guard_order_to_str(b->o.kind), b->o.reason);
        }
        if (n->last_status != GUARD_STATUS_OK) {
            sim_log(s, n, "guard refuses %s: %s", guard_order_to_str(b->o.kind), guard_status_to_str(n->last_status));
        }
    } else {
        struct guard_answer *r = calloc(1, sizeof *r);

        assert(r != NULL);
        r->token = b->token;
        r->gen = b->gen;
        r->rc = DRA_ETIMEDOUT;
        r->view = n->view;
        agent_deliver(s, n, answer_now, 0, r);
        notice(s, n, n->agent_gen, NULL);
    }
    free(b);
}

void guard_order_send(struct sim *s, struct node *n, uint64_t token, const struct guard_order *o)
{
    struct order_box *b = malloc(sizeof *b);

    assert(b != NULL);
    b->token = token;
    b->gen = n->agent_gen;
    b->o = *o;
    sim_at(s, n->guard_alive && n->guard_frozen ? 100 * MS : MS / 10, order_arrives, n, 0, b);
}
