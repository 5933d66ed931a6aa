/*
 * agent.c - one agent: the engine that ships, with its table of functions filled with models.
 */
#include "sim.h"

#include <stdlib.h>
#include <string.h>

static struct ops_arg args[SIM_NODES]; /* one per node, filled at each start */

#define ARG                                                                                        \
    struct sim *s = ((struct ops_arg *)arg)->s;                                                    \
    struct node *n = ((struct ops_arg *)arg)->n

/* ---- turns ---------------------------------------------------------------------------------------- */

static void turn(struct sim *s, struct node *n, uint64_t gen, void *p);

static void wake(struct sim *s, struct node *n, uint64_t gen, void *p)
{
    if (n->engine != NULL && gen == n->wake_gen) {
        turn(s, n, n->agent_gen, p);
    }
}

static void turn(struct sim *s, struct node *n, uint64_t gen, void *p)
{
    struct dra_instant at;

    (void)p;
    if (n->engine == NULL || gen != n->agent_gen) {
        return;
    }
    n->turn_due = false;
    if (n->frozen) {
        return; /* the thaw takes a turn */
    }
    pg_live_facts(s, n);
    rt_engine_turn(n->engine);
    if (n->engine == NULL) {
        return;
    }
    at = rt_engine_wake_at(n->engine);
    n->wake_gen++;
    sim_at(s, true_delay(s, n, at.ns) + 1, wake, n, n->wake_gen, NULL);
}

void agent_touch(struct sim *s, struct node *n)
{
    if (n->engine != NULL && !n->turn_due && !n->frozen) {
        n->turn_due = true;
        sim_at(s, 20000, turn, n, n->agent_gen, NULL);
    }
}

void agent_deliver(struct sim *s, struct node *n, sim_fn fn, uint64_t a, void *p)
{
    if (n->engine == NULL) {
        net_free(fn, p);
        return;
    }
    if (!n->frozen) {
        sim_at(s, 10000, fn, n, a, p);
        return;
    }
    if (n->n_backlog == n->cap_backlog) {
        n->cap_backlog = n->cap_backlog == 0 ? 16 : n->cap_backlog * 2;
        n->backlog = realloc(n->backlog, n->cap_backlog * sizeof *n->backlog);
        assert(n->backlog != NULL);
    }
    n->backlog[n->n_backlog++] = (struct backlog){fn, a, p, n->agent_gen};
}

/* ---- answers: each knows the life of the agent it belongs to ------------------------------------------ */

struct answer {
    uint64_t gen, token;
    int rc;
    bool is_dcs, is_upstream;
    struct dcs_answer dcs;
    struct ha_upstream_check up;
    struct guard_view view;
    bool has_view;
};

static void answer_now(struct sim *s, struct node *n, uint64_t a, void *p)
{
    struct answer *r = p;

    (void)a;
    if (n->engine != NULL && r->gen == n->agent_gen) {
        if (r->is_dcs) {
            rt_engine_on_dcs(n->engine, r->token, &r->dcs);
        } else if (r->is_upstream) {
            rt_engine_on_upstream(n->engine, r->token, &r->up);
        } else {
            rt_engine_on_effect(n->engine, r->token, r->rc);
        }
        agent_touch(s, n);
    }
    free(r);
}

static void answer_arrives(struct sim *s, struct node *n, uint64_t a, void *p)
{
    struct answer *r = p;

    (void)a;
    if (n->engine == NULL || r->gen != n->agent_gen) {
        free(r);
        return;
    }
    agent_deliver(s, n, answer_now, 0, r);
}

static void effect_answer(struct sim *s, struct node *n, uint64_t token, int rc, int64_t delay)
{
    struct answer *r = calloc(1, sizeof *r);

    assert(r != NULL);
    r->gen = n->agent_gen;
    r->token = token;
    r->rc = rc;
    sim_at(s, delay, answer_arrives, n, 0, r);
}

void agent_dcs_answer(struct sim *s, struct node *n, uint64_t gen, uint64_t token, const struct dcs_answer *a)
{
    struct answer *r = calloc(1, sizeof *r);

    assert(r != NULL);
    r->gen = gen;
    r->token = token;
    r->is_dcs = true;
    r->dcs = *a;
    agent_deliver(s, n, answer_now, 0, r);
}

/* ---- facts ----------------------------------------------------------------------------------------------------- */

static struct dra_instant op_now(void *arg)
{
    ARG;
    return (struct dra_instant){local_now(s, n)};
}

static int64_t op_wall(void *arg)
{
    ARG;
    (void)n;
    return 1700000000 + s->now / 1000000000;
}

static uint64_t op_entropy(void *arg)
{
    ARG;
    (void)n;
    return sim_rand(s);
}

static const struct ha_pg *op_pg(void *arg)
{
    ARG;
    pg_live_facts(s, n);
    return &n->facts;
}

static const struct ha_cluster *op_cluster(void *arg, struct dra_instant *read_at, bool *stale)
{
    ARG;
    (void)s;
    read_at->ns = n->snap_at;
    *stale = n->stale;
    return n->snap == NULL ? NULL : &n->snap->c;
}

static const struct ha_settings *op_settings(void *arg)
{
    ARG;
    (void)s;
    if (n->snap != NULL && n->snap->config != NULL) {
        n->settings.pause = json_is_true(json_get(n->snap->config, "pause"));
    }
    return &n->settings;
}

static void op_peers(void *arg, const struct ha_cluster *c, struct ha_peer *out, struct dra_instant *poll_at, bool *done)
{
    ARG;
    (void)s;
    for (int i = 0; i < c->n_members; i++) {
        for (int k = 0; k < n->n_peers; k++) {
            if (strcmp(c->members[i].name, n->peer_names[k]) == 0) {
                out[i] = n->peers[k];
            }
        }
    }
    poll_at->ns = n->poll_at;
    *done = n->poll_done;
}

static void op_guard(void *arg, struct ha_guard *out)
{
    ARG;
    const struct guard_view *v = &n->view;

    (void)s;
    memset(out, 0, sizeof *out);
    out->alive = n->guard_known ? DRA_YES : DRA_NO;
    out->armed = n->guard_known && v->armed != 0;
    out->pid = v->server_pid;
    out->pid_start_ticks = v->server_start_ticks;
    out->deadline.ns = v->deadline_ns;
    out->epoch = v->epoch;
    out->fenced = v->phase != GUARD_PHASE_NONE;
}

/* ---- agreement ------------------------------------------------------------------------------------------------------ */

static int op_txn(void *arg, uint64_t token, const struct dcs_txn *t, struct dra_instant not_after)
{
    ARG;
    return net_call(s, n, CALL_TXN, token, t, 0, not_after);
}

static int op_grant(void *arg, uint64_t token, int64_t ttl_s, struct dra_instant not_after)
{
    ARG;
    return net_call(s, n, CALL_GRANT, token, NULL, ttl_s, not_after);
}

static int op_keepalive(void *arg, uint64_t token, int64_t lease, struct dra_instant not_after)
{
    ARG;
    return net_call(s, n, CALL_KEEPALIVE, token, NULL, lease, not_after);
}

static int op_read(void *arg, uint64_t token, struct dra_instant not_after)
{
    ARG;
    return net_call(s, n, CALL_READ, token, NULL, 0, not_after);
}

static char *op_member(void *arg, const struct ha_world *w, enum ha_role role)
{
    ARG;
    char text[400];

    (void)s;
    if (dra_str_printf(text, sizeof text,
                       "{\"conn_url\":\"postgres://%s:5432/postgres\",\"api_url\":\"http://%s:8008/patroni\",\"state\":\"%s\","
                       "\"role\":\"%s\",\"version\":\"4.1.4\",\"dragent\":\"1\",\"xlog_location\":%llu,\"timeline\":%u%s}",
                       n->name, n->name, ha_state_to_str(w->pg.state), ha_role_to_str(role),
                       (unsigned long long)ha_pg_position(&w->pg), w->pg.timeline, w->s.pause ? ",\"pause\":true" : "") != 0) {
        return NULL;
    }
    return strdup(text);
}

static char *op_status(void *arg, const struct ha_world *w, uint64_t optime, bool final)
{
    char text[120];
    bool said = strcmp(w->cluster.unfenced, w->me) == 0;
    bool unfenced = !final && (w->s.pause || (said && !w->guard.armed)); /* as values_status() does */

    (void)arg;
    if (dra_str_printf(text, sizeof text, "{\"optime\":%llu%s%s%s}", (unsigned long long)optime,
                       unfenced ? ",\"unfenced\":\"" : "", unfenced ? w->me : "", unfenced ? "\"" : "") != 0) {
        return NULL;
    }
    return strdup(text);
}

static char *op_history(void *arg, const struct ha_world *w)
{
    char text[160];

    (void)arg;
    if (dra_str_printf(text, sizeof text, "[[%u,%llu,\"x\"]]", w->pg.timeline - 1, (unsigned long long)w->pg.wal_lsn) != 0) {
        return NULL;
    }
    return strdup(w->pg.timeline > 1 ? text : "[]");
}

static char *op_config(void *arg)
{
    (void)arg;
    return strdup("{\"ttl\":5}");
}

/* ---- questions ----------------------------------------------------------------------------------------------------------- */

static void peer_answer(struct sim *s, struct node *n, uint64_t a, void *p)
{
    struct node *o = &s->nodes[a & 0xFF];
    uint64_t gen = a >> 8;

    (void)p;
    if (n->engine == NULL || n->poll_gen != gen || s->cut[o->i][n->i] || s->cut[n->i][o->i] || !o->power || o->engine == NULL ||
        o->frozen || !o->pg.alive || !o->pg.accepting || o->pg.frozen) {
        return;
    }
    for (int k = 0; k < n->n_peers; k++) {
        if (strcmp(n->peer_names[k], o->name) == 0) {
            struct ha_peer *pe = &n->peers[k];

            pe->answered = true;
            pe->failed = false;
            pe->in_recovery = dra_tri_of(o->pg.in_recovery);
            pe->position = o->pg.in_recovery ? pg_lsn(o->pg.n) : 0;
            pe->timeline = o->pg.tl;
            pe->failover_priority = 1;
            pe->watchdog_failed = !o->guard_known;
        }
    }
}

static void poll_end(struct sim *s, struct node *n, uint64_t gen, void *p)
{
    (void)s;
    (void)p;
    if (n->poll_gen == gen) {
        n->poll_done = true;
    }
}

static int op_poll(void *arg, uint64_t token, struct dra_instant not_after)
{
    ARG;
    int64_t delay = 5 * MS;

    n->poll_gen++;
    n->poll_at = local_now(s, n);
    n->poll_done = false;
    n->n_peers = 0;
    for (int i = 0; i < SIM_NODES; i++) {
        struct node *o = &s->nodes[i];
        struct ha_peer *pe;

        if (o == n) {
            continue;
        }
        pe = &n->peers[n->n_peers];
        memset(pe, 0, sizeof *pe);
        pe->asked_at.ns = n->poll_at;
        pe->failed = true;
        dra_str_clip(n->peer_names[n->n_peers++], sizeof n->peer_names[0], o->name);
        sim_at(s, sim_latency(s), peer_answer, n, n->poll_gen << 8 | (uint64_t)o->i, NULL);
        if (!o->power || o->frozen || s->now < s->slow_until) {
            delay = true_delay(s, n, not_after.ns);
        }
    }
    sim_at(s, delay, poll_end, n, n->poll_gen, NULL);
    effect_answer(s, n, token, DRA_OK, delay + 1000);
    return 0;
}

static void probe_now(struct sim *s, struct node *n, uint64_t gen, void *p)
{
    (void)p;
    if (n->engine != NULL && n->agent_gen == gen) {
        pg_probe_facts(s, n);
    }
}

static int op_probe(void *arg, uint64_t token, struct dra_instant not_after)
{
    ARG;
    int64_t delay = n->pg.frozen ? true_delay(s, n, not_after.ns) : MS;

    sim_at(s, delay, probe_now, n, n->agent_gen, NULL);
    effect_answer(s, n, token, DRA_OK, delay + 1000);
    return 0;
}

static void files_now(struct sim *s, struct node *n, uint64_t gen, void *p)
{
    (void)p;
    if (n->engine != NULL && n->agent_gen == gen) {
        pg_files_facts(s, n);
    }
}

static int op_files(void *arg, uint64_t token)
{
    ARG;
    sim_at(s, 3 * MS, files_now, n, n->agent_gen, NULL);
    effect_answer(s, n, token, DRA_OK, 4 * MS);
    return 0;
}

static int op_upstream(void *arg, uint64_t token, const char *member, uint32_t tl, struct dra_instant not_after)
{
    ARG;
    struct answer *r = calloc(1, sizeof *r);

    (void)not_after;
    assert(r != NULL);
    r->gen = n->agent_gen;
    r->token = token;
    r->is_upstream = true;
    pg_upstream_check(s, n, member, tl, &r->up);
    sim_at(s, sim_latency(s), answer_arrives, n, 0, r);
    return 0;
}

static int op_follow(void *arg, uint64_t token, const char *member)
{
    ARG;
    struct node *u = node_by_name(s, member);

    n->pg.upstream = u == NULL ? -1 : u->i;
    n->facts.upstream_known = true;
    dra_str_clip(n->facts.upstream, sizeof n->facts.upstream, member);
    n->facts.upstream_conn_url[0] = '\0';
    if (u != NULL) {
        must(dra_str_printf(n->facts.upstream_conn_url, sizeof n->facts.upstream_conn_url, "postgres://%s:5432/postgres", member));
    }
    effect_answer(s, n, token, DRA_OK, 5 * MS);
    return 0;
}

static int op_reload(void *arg, uint64_t token)
{
    ARG;
    effect_answer(s, n, token, DRA_OK, 5 * MS);
    return 0;
}

static int op_checkpoint(void *arg, uint64_t token, struct dra_instant not_after)
{
    ARG;
    (void)not_after;
    effect_answer(s, n, token, DRA_OK, 50 * MS);
    return 0;
}

static int op_slots(void *arg, uint64_t token, const struct ha_slot_pos *wanted, int count)
{
    ARG;
    (void)wanted;
    (void)count;
    effect_answer(s, n, token, DRA_OK, 2 * MS);
    return 0;
}

static void op_callback(void *arg, enum ha_callback c, enum ha_role role)
{
    ARG;
    sim_log(s, n, "callback %s %s", ha_callback_to_str(c), ha_role_to_str(role));
}

/* ---- guard, jobs ------------------------------------------------------------------------------------------------------------- */

static void order(struct sim *s, struct node *n, uint64_t token, struct guard_order *o)
{
    o->magic = GUARD_MAGIC;
    o->version = GUARD_VERSION;
    o->size = sizeof *o;
    o->generation = n->agent_gen;
    guard_order_send(s, n, token, o);
}

static int op_arm(void *arg, uint64_t token, int32_t pid, uint64_t ticks, bool standby, struct dra_instant deadline,
                  struct dra_instant certain_until, int64_t epoch, int64_t lease)
{
    ARG;
    struct guard_order o = {.kind = GUARD_ORDER_ARM, .pid = pid, .start_ticks = ticks, .deadline_ns = deadline.ns,
                            .certain_until_ns = certain_until.ns, .epoch = epoch, .lease = lease};

    o.flags = standby ? GUARD_FLAG_STANDBY : 0;
    dra_str_clip(o.data_dir, sizeof o.data_dir, "/data");
    order(s, n, token, &o);
    return 0;
}

static int op_move(void *arg, uint64_t token, struct dra_instant deadline, struct dra_instant certain_until, int64_t epoch, int64_t lease)
{
    ARG;
    struct guard_order o = {.kind = GUARD_ORDER_MOVE, .deadline_ns = deadline.ns, .certain_until_ns = certain_until.ns,
                            .epoch = epoch, .lease = lease};

    order(s, n, token, &o);
    return 0;
}

static int op_disarm(void *arg, uint64_t token)
{
    ARG;
    struct guard_order o = {.kind = GUARD_ORDER_DISARM};
    bool stopped = !pg_any_process(&n->pg);

    o.reason = stopped ? GUARD_REASON_STOPPED : n->settings.pause ? GUARD_REASON_PAUSE : GUARD_REASON_UNSIGNALLED;
    order(s, n, token, &o);
    return 0;
}

static int op_fence(void *arg, uint64_t token)
{
    ARG;
    struct guard_order o = {.kind = GUARD_ORDER_FENCE_NOW};

    order(s, n, token, &o);
    return 0;
}

static int op_job(void *arg, uint64_t id, const struct ha_job *job)
{
    ARG;
    check_job(s, n, job);
    return pg_job_start(s, n, id, job);
}

static void op_continue(void *arg, bool go)
{
    ARG;
    pg_job_continue(s, n, go);
}

static void op_cancel(void *arg)
{
    ARG;
    pg_job_cancel(s, n);
}

static struct dra_instant op_progress(void *arg)
{
    ARG;
    return (struct dra_instant){local_now(s, n)};
}

static void op_reply(void *arg, uint64_t id, bool ok, const char *text)
{
    ARG;
    sim_log(s, n, "reply %llu %s %s", (unsigned long long)id, ok ? "ok" : "failed", text);
}

/* SAFE-12: the message says what to do, and a person does it. */
static void operator_moves_data_away(struct sim *s, struct node *n)
{
    const struct dcs_kv *kv = mem_get(s->etcd, "initialize");

    if (kv == NULL || (kv->value_len == strlen(n->pg.sysid) && memcmp(kv->value, n->pg.sysid, kv->value_len) == 0)) {
        sim_violate(s, "SAFE-12: %s says that its data is foreign, and it is not", n->name);
    }
    sim_log(s, n, "the operator moves the data directory away");
    n->pg.exists = n->pg.untrusted = n->pg.standby_signal = false;
    n->pg.n = n->pg.flushed = 0;
}

/* The supervisor starts an agent that ended. */
static void started_again(struct sim *s, struct node *n, uint64_t a, void *p)
{
    (void)a;
    (void)p;
    agent_start(s, n);
}

static void exit_now(struct sim *s, struct node *n, uint64_t gen, void *p)
{
    (void)p;
    if (n->engine != NULL && n->agent_gen == gen) {
        agent_kill(s, n);
        sim_at(s, sim_between(s, 300, 8000) * MS, started_again, n, 0, NULL);
    }
}

static void op_exit(void *arg, int code, const char *text)
{
    ARG;
    if (strncmp(text, "system ID mismatch", 18) == 0) {
        operator_moves_data_away(s, n);
    }
    sim_log(s, n, "agent ends: %d %s", code, text);
    sim_at(s, 1, exit_now, n, n->agent_gen, NULL);
}

static void op_decided(void *arg, const struct ha_world *w, const struct ha_memory *m, const struct ha_plan *p)
{
    ARG;
    check_plan(s, n, w, m, p);
    if (m->rule_since.ns == w->now.ns) {
        sim_log(s, n, "%s: %s %s", ha_rule_doc(p->rule)->name, p->reason, p->detail);
        for (int i = 0; i < p->n_notes; i++) {
            sim_log(s, n, "  %s", p->notes[i]);
        }
    }
}

const struct rt_ops sim_ops = {
    .now = op_now, .wall_s = op_wall, .entropy = op_entropy, .pg = op_pg, .cluster = op_cluster, .settings = op_settings,
    .peers = op_peers, .guard = op_guard, .dcs_txn = op_txn, .dcs_grant = op_grant, .dcs_keepalive = op_keepalive,
    .dcs_read = op_read, .member_value = op_member, .status_value = op_status, .history_value = op_history,
    .config_value = op_config, .poll_peers = op_poll, .probe = op_probe, .read_files = op_files, .check_upstream = op_upstream,
    .follow = op_follow, .reload = op_reload, .checkpoint = op_checkpoint, .slots = op_slots, .callback = op_callback,
    .guard_arm = op_arm, .guard_move = op_move, .guard_disarm = op_disarm, .guard_fence = op_fence, .job_start = op_job,
    .job_continue = op_continue, .job_cancel = op_cancel, .job_progress_at = op_progress, .reply = op_reply, .exit = op_exit,
    .decided = op_decided,
};

/* ---- life -------------------------------------------------------------------------------------------------------------------------- */

void agent_start(struct sim *s, struct node *n)
{
    struct rt_engine_config cfg;
    const struct guard_view *v = &n->stamp;

    if (n->engine != NULL || !n->power) {
        return;
    }
    memset(&cfg, 0, sizeof cfg);
    args[n->i] = (struct ops_arg){s, n};
    cfg.ops = &sim_ops;
    cfg.arg = &args[n->i];
    cfg.stall_max = dra_ms(500);
    dra_str_clip(cfg.me, sizeof cfg.me, n->name);
    n->agent_gen = (uint64_t)s->now; /* grows with each life, as the guard's generation has to */
    n->frozen = false;
    n->turn_due = false;
    memset(&n->facts, 0, sizeof n->facts);
    n->stale = false;
    n->n_peers = 0;
    n->poll_at = 0;
    n->poll_done = false;
    n->job_id = 0;
    n->shutting_down = false;
    if (rt_engine_new(&cfg, &n->engine) != 0) {
        abort();
    }
    sim_log(s, n, "agent starts");
    guard_start(s, n);
    guard_agents(s, n, 1);
    n->guard_known = n->guard_alive && !n->guard_frozen;
    if (!n->guard_known) {
        guard_replace_soon(s, n);
    }
    n->view = n->guard_alive ? n->guard.view : n->stamp;
    /* SAFE-37: the stamp of this boot tells which lease to go on with. */
    if (n->stamp_there && n->stamp_boot == n->boot && v->armed != 0) {
        rt_engine_adopt(n->engine, v->lease, n->settings.ttl, v->epoch);
    }
    agent_snapshot(s, n);
    agent_touch(s, n);
}

void agent_kill(struct sim *s, struct node *n)
{
    if (n->engine == NULL) {
        return;
    }
    sim_log(s, n, "agent gone");
    rt_engine_free(n->engine);
    n->engine = NULL;
    dcs_snapshot_unref(n->snap);
    n->snap = NULL;
    for (size_t i = 0; i < n->n_backlog; i++) {
        net_free(n->backlog[i].fn, n->backlog[i].p);
    }
    n->n_backlog = 0;
    n->frozen = false;
    if (n->job_id != 0) { /* its children end with it, markers stay */
        if (n->job.kind == HA_JOB_BASEBACKUP || n->job.kind == HA_JOB_INITDB) {
            n->pg.exists = false;
        } else if (n->job.kind == HA_JOB_REWIND) {
            n->pg.untrusted = true;
        }
        if (n->job_forked) {
            guard_server_exited(s, n);
        }
        n->job_id = 0;
        n->job_forked = false;
    }
    guard_agents(s, n, 0);
}

void agent_freeze(struct sim *s, struct node *n)
{
    if (n->engine != NULL && !n->frozen) {
        sim_log(s, n, "agent frozen");
        n->frozen = true;
    }
}

void agent_thaw(struct sim *s, struct node *n)
{
    size_t count = n->n_backlog;

    if (n->engine == NULL || !n->frozen) {
        return;
    }
    sim_log(s, n, "agent thawed");
    n->frozen = false;
    n->turn_due = false;
    if (sim_chance(s, 50)) {
        turn(s, n, n->agent_gen, NULL); /* its timer comes before its mail, or after */
    }
    n->n_backlog = 0;
    for (size_t i = 0; i < count; i++) {
        sim_at(s, (int64_t)i * 1000, n->backlog[i].fn, n, n->backlog[i].a, n->backlog[i].p);
    }
    agent_snapshot(s, n);
    agent_touch(s, n);
}
