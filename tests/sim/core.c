/*
 * core.c - virtual clock, event queue, one run from a seed.
 */
#include "sim.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

uint64_t sim_rand(struct sim *s)
{
    return dra_rand_next(&s->rng);
}

int64_t sim_between(struct sim *s, int64_t lo, int64_t hi)
{
    return lo + (int64_t)(sim_rand(s) % (uint64_t)(hi - lo + 1));
}

bool sim_chance(struct sim *s, int percent)
{
    return sim_between(s, 0, 99) < percent;
}

static bool before(const struct event *a, const struct event *b)
{
    return a->at < b->at || (a->at == b->at && a->seq < b->seq);
}

void sim_at(struct sim *s, int64_t delay, sim_fn fn, struct node *n, uint64_t a, void *p)
{
    size_t i;
    struct event e = {.at = s->now + (delay < 0 ? 0 : delay), .seq = s->seq++, .fn = fn, .n = n, .a = a, .p = p};

    if (s->n_q == s->cap_q) {
        s->cap_q = s->cap_q == 0 ? 256 : s->cap_q * 2;
        s->q = realloc(s->q, s->cap_q * sizeof *s->q);
        assert(s->q != NULL);
    }
    i = s->n_q++;
    while (i > 0 && before(&e, &s->q[(i - 1) / 2])) {
        s->q[i] = s->q[(i - 1) / 2];
        i = (i - 1) / 2;
    }
    s->q[i] = e;
}

static struct event pop(struct sim *s)
{
    struct event top = s->q[0];
    struct event last = s->q[--s->n_q];
    size_t i = 0;

    for (;;) {
        size_t c = 2 * i + 1;

        if (c >= s->n_q) {
            break;
        }
        if (c + 1 < s->n_q && before(&s->q[c + 1], &s->q[c])) {
            c++;
        }
        if (!before(&s->q[c], &last)) {
            break;
        }
        s->q[i] = s->q[c];
        i = c;
    }
    if (s->n_q > 0) {
        s->q[i] = last;
    }
    return top;
}

void sim_violate(struct sim *s, const char *fmt, ...)
{
    char text[512];
    va_list ap;

    if (s->violation != NULL) {
        return;
    }
    va_start(ap, fmt);
    dra_str_clipv(text, sizeof text, fmt, ap);
    va_end(ap);
    s->violation = strdup(text);
    sim_log(s, NULL, "VIOLATION %s", text);
}

void sim_log(struct sim *s, const struct node *n, const char *fmt, ...)
{
    char text[600];
    va_list ap;

    va_start(ap, fmt);
    dra_str_clipv(text, sizeof text, fmt, ap);
    va_end(ap);
    for (const char *c = text; *c != '\0'; c++) {
        s->digest = (s->digest ^ (uint64_t)(unsigned char)*c) * UINT64_C(1099511628211);
    }
    s->digest ^= (uint64_t)s->now;
    if (s->o.verbose) {
        printf("%10.3f %-4s %s\n", (double)s->now / 1e9, n == NULL ? "-" : n->name, text);
    }
    if (s->lines != NULL && strncmp(text, "etcd rev ", 9) != 0) {
        (void)snprintf(s->lines[s->n_lines++ % SIM_LINES], SIM_LINE, "%10.3f %-4s %.290s", (double)s->now / 1e9,
                       n == NULL ? "-" : n->name, text);
    }
}

void sim_print_end(const struct sim *s)
{
    for (uint64_t i = s->n_lines > SIM_LINES ? s->n_lines - SIM_LINES : 0; i < s->n_lines; i++) {
        printf("%s\n", s->lines[i % SIM_LINES]);
    }
    for (int i = 0; i < SIM_NODES; i++) {
        const struct node *n = &s->nodes[i];
        const struct pg_model *p = &n->pg;

        printf("%s: power=%d agent=%d frozen=%d guard=%d data=%d untrusted=%d sysid=%s alive=%d orphans=%d accepting=%d "
               "in_recovery=%d promoting=%d timeline=%u begin=%llu end=%llu flushed=%llu serial=%llu upstream=%d streaming=%d "
               "rule=%s\n",
               n->name, n->power, n->engine != NULL, n->frozen, n->guard_alive, p->exists, p->untrusted, p->sysid, p->alive,
               p->orphans, p->accepting, p->in_recovery, p->promoting, p->tl, (unsigned long long)pg_begin_of(p, p->tl),
               (unsigned long long)pg_lsn(p->n), (unsigned long long)pg_lsn(p->flushed), (unsigned long long)p->serial,
               p->upstream + 1, p->streaming, n->engine == NULL ? "" : ha_rule_doc(rt_engine_plan(n->engine)->rule)->name);
    }
}

int64_t local_now(const struct sim *s, const struct node *n)
{
    return s->now + s->now / 1000000 * n->ppm;
}

int64_t true_delay(const struct sim *s, const struct node *n, int64_t local_instant)
{
    int64_t left = local_instant - local_now(s, n);

    return left <= 0 ? 0 : left - left / 1000000 * n->ppm + 1000;
}

int64_t sim_latency(struct sim *s)
{
    if (s->now < s->slow_until && sim_chance(s, 30)) {
        return sim_between(s, 50 * MS, 4000 * MS);
    }
    return sim_between(s, MS / 5, 3 * MS);
}

struct node *node_by_name(struct sim *s, const char *name)
{
    for (int i = 0; i < SIM_NODES; i++) {
        if (strcmp(s->nodes[i].name, name) == 0) {
            return &s->nodes[i];
        }
    }
    return NULL;
}

static void on_change(struct mem_store *m, int64_t revision, const char *key, bool deleted, void *arg)
{
    struct sim *s = arg;

    if (strcmp(key, "leader") == 0) {
        const struct dcs_kv *kv = deleted ? NULL : mem_get(m, key);
        char name[sizeof s->leader_name] = "";

        if (kv != NULL) {
            (void)!dra_str_copy_n(name, sizeof name, kv->value, kv->value_len);
        }
        /* From name to name without a gap: a planned hand-over, which loses nothing (SAFE-11). */
        s->orderly = s->leader_name[0] != '\0' && name[0] != '\0' && (strcmp(s->leader_name, name) != 0 || s->orderly);
        dra_str_clip(s->leader_name, sizeof s->leader_name, name);
        sim_log(s, NULL, "leader is now '%s'", name);
    }
    sim_log(s, NULL, "etcd rev %lld %s %s", (long long)revision, deleted ? "deleted" : "put", key);
    for (int i = 0; i < SIM_NODES; i++) {
        agent_snapshot(s, &s->nodes[i]);
    }
}

static void settings_default(struct sim *s, struct ha_settings *st)
{
    int64_t ttl = 3000 + 1000 * sim_between(s, 0, 7);

    memset(st, 0, sizeof *st);
    st->ttl = dra_ms(ttl);
    st->loop_wait = dra_ms(ttl / 5);
    st->retry_timeout = dra_ms(ttl * 2 / 5);
    st->fence_margin = dra_ms(300);
    st->clock_drift_ppm = 500;
    st->maximum_lag_on_failover = 2000;
    st->primary_start_timeout = dra_ms(300000);
    st->handover_after = dra_ms(3000);
    st->member_slots_ttl = dra_ms(1800000);
    st->use_pg_rewind = true;
    st->remove_data_directory_on_rewind_failure = true;
    st->remove_data_directory_on_diverged_timelines = true;
    st->use_slots = true;
    st->can_bootstrap = true;
    st->guard_required = true;
    st->tags.failover_priority = 1;
    st->tags.sync_priority = 1;
}

static void etcd_tick(struct sim *s, struct node *n, uint64_t a, void *p)
{
    (void)n;
    (void)a;
    (void)p;
    (void)mem_advance(s->etcd, (struct dra_instant){s->now});
    sim_at(s, 100 * MS, etcd_tick, NULL, 0, NULL);
}

static void begin(struct sim *s)
{
    struct ha_settings st;

    s->now = 1000 * MS;
    s->etcd = mem_new(7, (struct dra_instant){s->now});
    assert(s->etcd != NULL);
    mem_on_change(s->etcd, on_change, s);
    settings_default(s, &st);
    for (int i = 0; i < SIM_NODES; i++) {
        struct node *n = &s->nodes[i];

        n->i = i;
        (void)snprintf(n->name, sizeof n->name, "n%d", i + 1);
        n->ppm = sim_between(s, -200, 200);
        n->power = true;
        n->boot = 1;
        n->settings = st;
        n->pg.upstream = -1;
        sim_at(s, sim_between(s, 0, 500) * MS, pg_tick, n, 0, NULL);
    }
    for (int i = 0; i < SIM_NODES; i++) {
        agent_start(s, &s->nodes[i]);
    }
    for (uint64_t c = 0; c < SIM_CLIENTS; c++) {
        sim_at(s, 100 * MS, client_tick, NULL, c, NULL);
    }
    sim_at(s, 100 * MS, etcd_tick, NULL, 0, NULL);
    faults_begin(s);
}

static void run_until(struct sim *s, int64_t end)
{
    while (s->violation == NULL && s->n_q > 0 && s->q[0].at <= end) {
        struct event e = pop(s);

        s->now = e.at;
        s->busy = e.at == s->busy_at ? s->busy + 1 : 0;
        s->busy_at = e.at;
        if (s->busy > SIM_BUSY_MAX) {
            sim_violate(s, "LIVE-13: more than %d events at one instant: somebody turns in circles", SIM_BUSY_MAX);
        }
        e.fn(s, e.n, e.a, e.p);
        check_step(s);
    }
    if (s->violation == NULL) {
        s->now = end;
    }
}

bool sim_run(const struct sim_opts *o, struct sim *s)
{
    const char *why = "";
    int64_t limit;

    memset(s, 0, sizeof *s);
    s->o = *o;
    s->rng = o->seed * UINT64_C(0x2545F4914F6CDD1D) + 99;
    s->digest = UINT64_C(14695981039346656037);
    s->acked_node = -1;
    s->next_pid = 100;
    s->lines = calloc(SIM_LINES, sizeof *s->lines);
    assert(s->lines != NULL);
    begin(s);
    run_until(s, s->now + o->seconds * 1000 * MS);
    if (o->safety_only) {
        return s->violation == NULL;
    }
    /* First hurt it, then heal it and demand that everything comes back (liveness). */
    faults_heal(s);
    limit = s->now + 120 * 1000 * MS;
    while (s->violation == NULL && !check_converged(s, &why)) {
        if (s->now >= limit) {
            sim_violate(s, "LIVE: does not come back after all faults are healed: %s", why);
            break;
        }
        run_until(s, s->now + 500 * MS);
    }
    return s->violation == NULL;
}

void sim_free(struct sim *s)
{
    for (int i = 0; i < SIM_NODES; i++) {
        struct node *n = &s->nodes[i];

        rt_engine_free(n->engine);
        dcs_snapshot_unref(n->snap);
        free(n->pg.wal);
        for (size_t b = 0; b < n->n_backlog; b++) {
            net_free(n->backlog[b].fn, n->backlog[b].p);
        }
        free(n->backlog);
    }
    for (size_t i = 0; i < s->n_q; i++) {
        net_free(s->q[i].fn, s->q[i].p);
    }
    free(s->q);
    mem_free(s->etcd);
    free(s->acked);
    free(s->violation);
    free(s->lines);
}
