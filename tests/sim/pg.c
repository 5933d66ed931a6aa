/*
 * pg.c - a model of PostgreSQL: WAL, timelines, streaming, crash, promotion, and clients that write.
 *
 * It can lose what a real one can: unflushed WAL with the machine, unsent WAL with the primary, the tail of a timeline.
 * Backends of a killed postmaster go on for a while and acknowledge (SAFE-34).
 */
#include "sim.h"

#include <stdlib.h>
#include <string.h>

#define LSN_BASE 100000
#define LSN_STEP 100

uint64_t pg_lsn(size_t index)
{
    return LSN_BASE + (uint64_t)index * LSN_STEP;
}

bool pg_any_process(const struct pg_model *p)
{
    return p->alive || p->orphans;
}

bool pg_can_ack(const struct pg_model *p)
{
    return !p->frozen && !p->in_recovery && (p->orphans || (p->alive && p->accepting));
}

/* Where timeline tl begins in this history; 0 if it is the first. */
uint64_t pg_begin_of(const struct pg_model *p, uint32_t tl)
{
    for (size_t i = 1; i < p->n; i++) {
        if (p->wal[i].tl == tl && p->wal[i - 1].tl != tl) {
            return pg_lsn(i);
        }
    }
    return 0;
}

static void append(struct pg_model *p, uint64_t id)
{
    if (p->n == p->cap) {
        p->cap = p->cap == 0 ? 64 : p->cap * 2;
        p->wal = realloc(p->wal, p->cap * sizeof *p->wal);
        assert(p->wal != NULL);
    }
    p->wal[p->n++] = (struct wal_rec){.id = id, .tl = p->tl};
}

static void finish(struct sim *s, struct node *n, bool ok, int code, const char *msg);

static void server_gone(struct sim *s, struct node *n)
{
    n->pg.gone_at = local_now(s, n);
    n->pg.accepting = false;
    n->pg.stopping = false;
    n->pg.promoting = false;
    n->pg.streaming = false;
    guard_server_exited(s, n);
    if (n->job_id != 0 && n->job.kind == HA_JOB_STOP && !pg_any_process(&n->pg)) {
        finish(s, n, true, 0, ""); /* whoever ended it */
    }
    agent_touch(s, n);
}

static void orphans_end(struct sim *s, struct node *n, uint64_t pid, void *p)
{
    (void)p;
    if (n->pg.orphans && (uint64_t)n->pg.pid == pid && !n->pg.frozen) {
        n->pg.orphans = false;
        agent_touch(s, n);
    }
}

void pg_kill_postmaster(struct sim *s, struct node *n, bool leave_orphans)
{
    struct pg_model *p = &n->pg;

    if (!p->alive) {
        return;
    }
    sim_log(s, n, "postmaster killed%s", leave_orphans ? ", backends go on" : "");
    p->alive = false;
    if (leave_orphans && p->accepting && !p->frozen) {
        p->orphans = true;
        sim_at(s, sim_between(s, 10, 3000) * MS, orphans_end, n, (uint64_t)p->pid, NULL);
    }
    server_gone(s, n);
}

void pg_kill_all(struct sim *s, struct node *n)
{
    struct pg_model *p = &n->pg;

    if (!pg_any_process(p)) {
        return;
    }
    p->alive = false;
    p->orphans = false;
    p->frozen = false;
    sim_log(s, n, "server killed");
    server_gone(s, n);
}

void pg_power_off(struct sim *s, struct node *n)
{
    struct pg_model *p = &n->pg;

    p->alive = p->orphans = p->frozen = p->accepting = p->promoting = p->stopping = p->streaming = false;
    if (p->n > p->flushed) {
        p->n = p->flushed; /* what was not flushed is lost with the machine */
    }
    (void)s;
}

/* ---- facts --------------------------------------------------------------------------------------- */

void pg_live_facts(struct sim *s, struct node *n)
{
    struct ha_pg *f = &n->facts;
    const struct pg_model *p = &n->pg;

    (void)s;
    if (f->files_at.ns == 0) {
        return; /* not looked at yet */
    }
    if (f->pid != p->pid) {
        f->pid = p->pid;
        f->pid_start_ticks = (uint64_t)p->pid;
        f->in_recovery = DRA_UNKNOWN;
        f->answered_at.ns = 0;
        f->promote_signalled = false;
        f->started_as_standby = p->started_as_standby;
    }
    f->postmaster = dra_tri_of(p->alive);
    f->leftovers = dra_tri_of(p->orphans && !p->alive);
    f->gone_at.ns = p->alive ? 0 : p->gone_at;
    f->state = p->alive ? (p->accepting ? HA_STATE_RUNNING : HA_STATE_STARTING) : HA_STATE_STOPPED;
    if (p->alive && p->stopping) {
        f->control = p->control; /* the control file is watched while it stops */
        f->files_at.ns = local_now(s, n);
        f->checkpoint_lsn = pg_lsn(p->n - 1);
        f->checkpoint_end_lsn = pg_lsn(p->n);
    }
}

void pg_files_facts(struct sim *s, struct node *n)
{
    struct ha_pg *f = &n->facts;
    const struct pg_model *p = &n->pg;

    f->datadir = !p->exists ? HA_DATADIR_EMPTY : p->untrusted ? HA_DATADIR_UNTRUSTED : HA_DATADIR_VALID;
    dra_str_clip(f->sysid, sizeof f->sysid, p->exists ? p->sysid : "");
    f->major = 15;
    f->control = p->control;
    f->checkpoint_lsn = p->n > 0 ? pg_lsn(p->n - 1) : 0;
    f->checkpoint_end_lsn = p->control == HA_CONTROL_SHUT_DOWN ? pg_lsn(p->n) : 0;
    f->control_timeline = p->tl;
    f->min_recovery_lsn = p->control == HA_CONTROL_SHUT_DOWN_IN_RECOVERY || p->control == HA_CONTROL_IN_ARCHIVE_RECOVERY
                              ? pg_lsn(p->n) : 0;
    f->timeline_begin_lsn = pg_begin_of(p, p->tl);
    f->min_recovery_timeline = f->min_recovery_lsn != 0 ? p->tl : 0;
    f->can_rewind = true;
    f->standby_signal = p->standby_signal;
    f->files_at.ns = local_now(s, n);
    if (p->alive && f->pid != p->pid) {
        f->pid = p->pid; /* found running: the signal file is all there is to see */
        f->pid_start_ticks = (uint64_t)p->pid;
        f->started_as_standby = p->standby_signal;
        f->promote_signalled = false;
        f->answered_at.ns = 0;
        f->in_recovery = DRA_UNKNOWN;
    }
    pg_live_facts(s, n);
}

void pg_probe_facts(struct sim *s, struct node *n)
{
    struct ha_pg *f = &n->facts;
    const struct pg_model *p = &n->pg;

    f->asked_at.ns = local_now(s, n);
    if (!p->alive || !p->accepting || p->frozen || f->pid != p->pid) {
        f->accepting = DRA_NO;
        return;
    }
    f->accepting = DRA_YES;
    f->answered_at = f->asked_at;
    f->in_recovery = dra_tri_of(p->in_recovery);
    f->wal_lsn = pg_lsn(p->flushed);
    f->receive_lsn = f->replay_lsn = p->in_recovery ? pg_lsn(p->n) : 0;
    f->timeline = p->tl;
    f->timeline_begin_lsn = pg_begin_of(p, p->tl);
    f->replication_state = p->streaming ? HA_REPL_STREAMING : HA_REPL_NONE;
}

/* ---- streaming and promotion: goes on by itself, whatever the agent does ---------------------------- */

static bool prefix_of(const struct pg_model *a, const struct pg_model *b)
{
    return a->n <= b->flushed && (a->n == 0 || a->wal[a->n - 1].id == b->wal[a->n - 1].id);
}

static void stream(struct sim *s, struct node *n)
{
    struct pg_model *p = &n->pg;
    struct node *u;

    p->streaming = false;
    if (!p->alive || p->frozen || !p->accepting || !p->in_recovery || p->promoting || p->upstream < 0) {
        return;
    }
    u = &s->nodes[p->upstream];
    if (!u->pg.alive || u->pg.frozen || (!u->pg.accepting && !u->pg.stopping) || s->cut[n->i][u->i] || s->cut[u->i][n->i]) {
        return;
    }
    if (!prefix_of(p, &u->pg) || p->tl > u->pg.tl) {
        return;
    }
    p->streaming = true;
    for (size_t i = p->n; i < u->pg.flushed; i++) {
        p->tl = u->pg.wal[i].tl;
        append(p, u->pg.wal[i].id);
        p->serial = u->pg.serial;
    }
    p->flushed = p->n;
}

void pg_tick(struct sim *s, struct node *n, uint64_t a, void *p)
{
    (void)a;
    (void)p;
    stream(s, n);
    sim_at(s, sim_between(s, 3, s->now < s->slow_until ? 300 : 15) * MS, pg_tick, n, 0, NULL);
}

static void promoted(struct sim *s, struct node *n, uint64_t pid, void *arg)
{
    struct pg_model *p = &n->pg;

    (void)arg;
    if (!p->alive || (uint64_t)p->pid != pid || !p->promoting) {
        return;
    }
    if (p->frozen) {
        return;
    }
    check_before_promotion(s, n);
    p->promoting = false;
    p->in_recovery = false;
    p->standby_signal = false;
    p->control = HA_CONTROL_IN_PRODUCTION;
    p->tl++;
    append(p, ++s->next_id);
    p->flushed = p->n;
    p->serial = ++s->next_serial;
    s->promotions++;
    sim_log(s, n, "promoted, timeline %u", p->tl);
    check_writable(s, n);
    check_promotion(s, n);
    s->orderly = false;
    agent_touch(s, n);
}

/* ---- clients -------------------------------------------------------------------------------------------- */

struct write {
    uint64_t id;
    int32_t pid;
    size_t index;
    uint32_t tl;
};

static void flushed(struct sim *s, struct node *n, uint64_t a, void *arg)
{
    struct write *w = arg;
    struct pg_model *p = &n->pg;
    struct write copy = *w;

    (void)a;
    free(w);
    if (!pg_can_ack(p) || p->pid != copy.pid || p->n <= copy.index || p->wal[copy.index].id != copy.id) {
        return;
    }
    if (p->flushed < copy.index + 1) {
        p->flushed = copy.index + 1;
    }
    check_ack(s, n, copy.id);
}

void client_tick(struct sim *s, struct node *n, uint64_t client, void *arg)
{
    int first = (int)sim_between(s, 0, SIM_NODES - 1);

    (void)n;
    (void)arg;
    for (int k = 0; k < SIM_NODES; k++) {
        struct node *t = &s->nodes[(first + k) % SIM_NODES];
        struct write *w;

        if (!t->power || !pg_can_ack(&t->pg)) {
            continue;
        }
        w = malloc(sizeof *w);
        assert(w != NULL);
        *w = (struct write){.id = ++s->next_id, .pid = t->pg.pid, .index = t->pg.n, .tl = t->pg.tl};
        append(&t->pg, w->id);
        sim_at(s, sim_between(s, 1, s->now < s->disk_slow_until ? 800 : 3) * MS, flushed, t, 0, w);
        break;
    }
    sim_at(s, sim_between(s, 20, 200) * MS, client_tick, NULL, client, NULL);
}

/* ---- jobs ------------------------------------------------------------------------------------------------- */

static void job_done_now(struct sim *s, struct node *n, uint64_t a, void *arg)
{
    struct ha_job_result *r = arg;

    (void)a;
    rt_engine_on_job_done(n->engine, r);
    free(r);
    agent_touch(s, n);
}

static void finish(struct sim *s, struct node *n, bool ok, int code, const char *msg)
{
    struct ha_job_result *r = calloc(1, sizeof *r);

    assert(r != NULL);
    if (n->job_id == 0) {
        free(r);
        return;
    }
    r->kind = n->job.kind;
    r->id = n->job_id;
    r->ok = ok;
    r->err_code = code;
    r->mode = n->job.mode;
    dra_str_clip(r->msg, sizeof r->msg, msg);
    dra_str_clip(r->member, sizeof r->member, n->job.member);
    r->started_at.ns = n->job_started;
    r->ended_at.ns = local_now(s, n);
    sim_log(s, n, "job %s ended: %s %s", ha_job_to_str(n->job.kind), ok ? "ok" : "failed", msg);
    n->job_id = 0;
    n->job_forked = false;
    pg_files_facts(s, n);
    agent_deliver(s, n, job_done_now, 0, r);
}

static void new_server(struct sim *s, struct node *n, bool standby)
{
    struct pg_model *p = &n->pg;

    p->alive = true;
    p->frozen = p->orphans = p->stopping = p->promoting = p->streaming = false;
    p->promote_signalled = false;
    p->accepting = false;
    p->started_as_standby = standby;
    p->in_recovery = standby;
    p->control = standby ? HA_CONTROL_IN_ARCHIVE_RECOVERY : HA_CONTROL_IN_PRODUCTION;
    (void)s;
}

static void accept_now(struct sim *s, struct node *n, uint64_t pid, void *arg)
{
    struct pg_model *p = &n->pg;
    bool mine = n->job_id != 0 && (n->job.kind == HA_JOB_START_PRIMARY || n->job.kind == HA_JOB_START_STANDBY);

    (void)arg;
    if ((uint64_t)p->pid != pid) {
        return;
    }
    if (!p->alive) {
        if (mine) {
            finish(s, n, false, DRA_ECHILD, "the postmaster ended");
        }
        return;
    }
    if (p->frozen) { /* until somebody ends it */
        sim_at(s, 20 * MS, accept_now, n, pid, NULL);
        return;
    }
    p->accepting = true;
    if (!p->in_recovery) {
        append(p, ++s->next_id);
        p->flushed = p->n;
        sim_log(s, n, "primary accepts writes, timeline %u", p->tl);
        check_writable(s, n);
    }
    if (mine) {
        finish(s, n, true, 0, "");
    }
    agent_touch(s, n);
}

static void exec_server(struct sim *s, struct node *n, bool standby)
{
    new_server(s, n, standby);
    sim_at(s, sim_between(s, 50, 300) * MS, accept_now, n, (uint64_t)n->pg.pid, NULL);
}

static void set_upstream(struct sim *s, struct node *n, const char *member)
{
    struct node *u = node_by_name(s, member);

    n->pg.upstream = u == NULL ? -1 : u->i;
    n->facts.upstream_known = true;
    dra_str_clip(n->facts.upstream, sizeof n->facts.upstream, member);
    dra_str_clip(n->facts.upstream_conn_url, sizeof n->facts.upstream_conn_url, "");
    if (member[0] != '\0') {
        must(dra_str_printf(n->facts.upstream_conn_url, sizeof n->facts.upstream_conn_url, "postgres://%s:5432/postgres", member));
    }
}

static void stop_exit(struct sim *s, struct node *n, uint64_t pid, void *arg)
{
    struct pg_model *p = &n->pg;

    (void)arg;
    if (!p->alive || (uint64_t)p->pid != pid || !p->stopping || p->frozen) {
        return;
    }
    for (int i = 0; i < SIM_NODES; i++) { /* walsenders wait for their standbys */
        const struct pg_model *b = &s->nodes[i].pg;

        if (b->streaming && b->upstream == n->i && b->n < p->flushed && b->alive) {
            sim_at(s, 5 * MS, stop_exit, n, pid, NULL);
            return;
        }
    }
    p->alive = false;
    server_gone(s, n);
}

static void stop_checkpoint(struct sim *s, struct node *n, uint64_t pid, void *arg)
{
    struct pg_model *p = &n->pg;

    (void)arg;
    if (!p->alive || (uint64_t)p->pid != pid || p->frozen) {
        return;
    }
    if (p->in_recovery) {
        p->control = HA_CONTROL_SHUT_DOWN_IN_RECOVERY;
    } else {
        append(p, ++s->next_id);
        p->flushed = p->n;
        p->control = HA_CONTROL_SHUT_DOWN;
    }
    agent_touch(s, n);
    sim_at(s, sim_between(s, 1, 50) * MS, stop_exit, n, pid, NULL);
}

static void stop_timeout(struct sim *s, struct node *n, uint64_t id, void *arg)
{
    (void)arg;
    if (n->job_id == id) {
        pg_kill_all(s, n);
        finish(s, n, true, 0, "killed");
    }
}

static void job_stop(struct sim *s, struct node *n)
{
    struct pg_model *p = &n->pg;

    if (!pg_any_process(p)) {
        finish(s, n, true, 0, "");
        return;
    }
    if (n->job.mode == HA_STOP_FAST && p->alive) {
        p->accepting = false;
        p->promoting = false;
        p->stopping = true;
        sim_at(s, sim_between(s, 5, 60) * MS, stop_checkpoint, n, (uint64_t)p->pid, NULL);
        sim_at(s, n->job.timeout.ns, stop_timeout, n, n->job_id, NULL);
        return;
    }
    pg_kill_all(s, n);
    finish(s, n, true, 0, "");
}

static void copy_wal(struct pg_model *to, const struct pg_model *from)
{
    to->n = 0;
    for (size_t i = 0; i < from->flushed; i++) {
        to->tl = from->wal[i].tl;
        append(to, from->wal[i].id);
    }
    to->serial = from->serial;
    to->tl = from->tl;
    to->flushed = to->n;
    to->exists = true;
    to->untrusted = false;
    dra_str_clip(to->sysid, sizeof to->sysid, from->sysid);
}

static void job_work(struct sim *s, struct node *n, uint64_t id, void *arg)
{
    struct pg_model *p = &n->pg;
    struct node *src;

    (void)arg;
    if (n->job_id != id) {
        return;
    }
    switch (n->job.kind) {
    case HA_JOB_INITDB:
        p->exists = true;
        p->tl = 1;
        p->n = p->flushed = 0;
        must(dra_str_printf(p->sysid, sizeof p->sysid, "7000000000000000%03d", n->i + (int)(sim_rand(s) % 100) * 3));
        append(p, ++s->next_id);
        p->flushed = p->n;
        p->control = HA_CONTROL_SHUT_DOWN;
        p->standby_signal = false;
        finish(s, n, true, 0, "");
        return;
    case HA_JOB_POST_BOOTSTRAP:
        finish(s, n, p->alive && p->accepting, DRA_ESQL, "");
        return;
    case HA_JOB_BASEBACKUP:
        src = node_by_name(s, n->job.member);
        if (src == NULL || !src->pg.alive || !src->pg.accepting || s->cut[n->i][src->i] || s->cut[src->i][n->i] || sim_chance(s, 5)) {
            p->exists = false;
            p->untrusted = false;
            finish(s, n, false, DRA_ECHILD, "base backup failed");
            return;
        }
        copy_wal(p, &src->pg);
        p->control = HA_CONTROL_IN_ARCHIVE_RECOVERY;
        p->standby_signal = true;
        s->copies++;
        finish(s, n, true, 0, "");
        return;
    case HA_JOB_SINGLE_USER:
        p->control = HA_CONTROL_SHUT_DOWN;
        append(p, ++s->next_id);
        p->flushed = p->n;
        finish(s, n, true, 0, "");
        return;
    case HA_JOB_REWIND:
        src = node_by_name(s, n->job.member);
        if (src == NULL || !src->pg.alive || src->pg.in_recovery || s->cut[n->i][src->i] || sim_chance(s, 5)) {
            p->untrusted = sim_chance(s, 50);
            finish(s, n, false, DRA_ECHILD, "pg_rewind failed");
            return;
        }
        copy_wal(p, &src->pg);
        p->control = HA_CONTROL_IN_ARCHIVE_RECOVERY;
        p->standby_signal = true;
        s->rewinds++;
        finish(s, n, true, 0, "");
        return;
    case HA_JOB_DROP_ASIDE:
        p->aside = false;
        finish(s, n, true, 0, "");
        return;
    case HA_JOB_SET_ASIDE:
        p->exists = false;
        finish(s, n, true, 0, "");
        return;
    case HA_JOB_PROMOTE:
        if (!p->alive || p->frozen) {
            finish(s, n, false, DRA_ECHILD, "the postmaster ended");
        } else if (!p->promoting && !p->in_recovery) {
            pg_probe_facts(s, n); /* the room has asked until the answer was no */
            finish(s, n, true, 0, "");
        } else {
            sim_at(s, 2 * MS, job_work, n, id, NULL);
        }
        return;
    case HA_JOB_START_PRIMARY:
    case HA_JOB_START_STANDBY:
    case HA_JOB_STOP:
    case HA_JOB_NONE:
    case HA_JOB_COUNT:
        return;
    }
}

static void forked_now(struct sim *s, struct node *n, uint64_t pid, void *arg)
{
    (void)arg;
    if (n->job_id != 0 && n->job_forked) {
        rt_engine_on_forked(n->engine, (int32_t)pid, pid);
        agent_touch(s, n);
    }
}

static void signal_promote(struct sim *s, struct node *n, uint64_t id, void *arg)
{
    struct pg_model *p = &n->pg;

    (void)arg;
    if (n->job_id != id) {
        return;
    }
    if (n->job.not_after.ns != 0 && local_now(s, n) >= n->job.not_after.ns) {
        finish(s, n, false, DRA_ESTATE, "too late");
        return;
    }
    if (!p->alive || p->frozen) {
        finish(s, n, false, DRA_ECHILD, "the postmaster ended");
        return;
    }
    n->facts.promote_signalled = true;
    p->promote_signalled = true;
    if (!p->promoting && p->in_recovery) {
        p->promoting = true;
        sim_at(s, sim_between(s, 10, sim_chance(s, 10) ? 6000 : 60) * MS, promoted, n, (uint64_t)p->pid, NULL);
    }
    sim_at(s, 2 * MS, job_work, n, id, NULL);
}

int pg_job_start(struct sim *s, struct node *n, uint64_t id, const struct ha_job *j)
{
    struct pg_model *p = &n->pg;

    sim_log(s, n, "job %s %s", ha_job_to_str(j->kind), j->member);
    n->job_id = id;
    n->job = *j;
    n->job_started = local_now(s, n);
    n->job_gen++;
    aim_on_job(s, n, j->kind);
    switch (j->kind) {
    case HA_JOB_STOP:
        job_stop(s, n);
        break;
    case HA_JOB_START_PRIMARY:
        if (pg_any_process(p)) {
            finish(s, n, false, DRA_ECHILD, "another server is still running");
            break;
        }
        p->pid = ++s->next_pid;
        n->job_forked = true;
        agent_deliver(s, n, forked_now, (uint64_t)p->pid, NULL);
        break;
    case HA_JOB_START_STANDBY:
        if (pg_any_process(p)) {
            finish(s, n, false, DRA_ECHILD, "another server is still running");
            break;
        }
        p->standby_signal = true;
        p->pid = ++s->next_pid;
        set_upstream(s, n, j->member);
        exec_server(s, n, true);
        break;
    case HA_JOB_PROMOTE:
        sim_at(s, sim_between(s, 0, 2) * MS, signal_promote, n, id, NULL);
        break;
    case HA_JOB_BASEBACKUP:
        p->aside = p->exists;
        p->exists = false;
        sim_at(s, sim_between(s, 200, 1500) * MS, job_work, n, id, NULL);
        break;
    case HA_JOB_INITDB:
    case HA_JOB_POST_BOOTSTRAP:
    case HA_JOB_SINGLE_USER:
    case HA_JOB_REWIND:
    case HA_JOB_DROP_ASIDE:
    case HA_JOB_SET_ASIDE:
        sim_at(s, sim_between(s, 50, 600) * MS, job_work, n, id, NULL);
        break;
    case HA_JOB_NONE:
    case HA_JOB_COUNT:
        return DRA_EINVAL;
    }
    return 0;
}

void pg_job_continue(struct sim *s, struct node *n, bool go)
{
    if (n->job_id == 0 || !n->job_forked) {
        return;
    }
    n->job_forked = false;
    if (!go) {
        guard_server_exited(s, n); /* the child ends */
        finish(s, n, false, DRA_ECANCELED, "withdrawn");
        return;
    }
    n->pg.standby_signal = false;
    exec_server(s, n, false);
    aim_on_exec(s, n);
}

void pg_job_cancel(struct sim *s, struct node *n)
{
    if (n->job_id == 0 || n->job.kind == HA_JOB_PROMOTE) {
        return;
    }
    if (n->job.kind == HA_JOB_STOP || n->job.kind == HA_JOB_START_STANDBY || n->job.kind == HA_JOB_START_PRIMARY) {
        pg_kill_all(s, n);
    } else if (n->job.kind == HA_JOB_REWIND) {
        n->pg.untrusted = true;
    }
    finish(s, n, false, DRA_ECANCELED, "cancelled");
}

/* HA-145 over a replication connection. */
void pg_upstream_check(struct sim *s, struct node *n, const char *member, uint32_t tl, struct ha_upstream_check *out)
{
    struct node *u = node_by_name(s, member);

    memset(out, 0, sizeof *out);
    dra_str_clip(out->member, sizeof out->member, member);
    out->local_timeline = tl;
    out->asked_at.ns = local_now(s, n);
    if (u == NULL || !u->pg.alive || !u->pg.accepting || u->pg.frozen || s->cut[n->i][u->i] || s->cut[u->i][n->i]) {
        out->failed = true;
        return;
    }
    out->answered = true;
    out->in_recovery = dra_tri_of(u->pg.in_recovery);
    dra_str_clip(out->sysid, sizeof out->sysid, u->pg.sysid);
    out->timeline = u->pg.tl;
    out->flush_lsn = pg_lsn(u->pg.flushed);
    for (size_t i = 0; i < u->pg.n; i++) {
        if (u->pg.wal[i].tl > tl) {
            out->fork_lsn = pg_lsn(i);
            break;
        }
        out->has_fork = out->has_fork || u->pg.wal[i].tl == tl;
    }
    out->begin_lsn = pg_begin_of(&u->pg, tl);
    if (u->pg.tl == tl) {
        out->has_fork = true;
        out->fork_lsn = 0;
    }
}
