/*
 * guarding.c - the runtime's side of the guard: adoption at start (SAFE-37), orders of the engine, what is known of it.
 *
 * Invariants:
 *  (1) The stamp is read after the lock was taken and before the guard's client may start a new guard.
 *  (2) `fenced` speaks of the server that was registered last by us or found registered.
 * Threads: loop thread only.
 */
#include "agent.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define GUARD_ANSWER_MS 500   /* later than the client's own patience, so that it speaks first */
#define GUARD_FENCE_MS 10000  /* 300 connections need 0.4 s */
#define GUARD_START_MS 3000

struct rt_guard {
    struct guard_client *client;
    struct guard_stamp stamp;
    bool stamp_valid;
    int inflight;
    uint64_t fence_base; /* fences up to this number belong to servers before the registered one */
    bool up_seen;
    bool quit_answered;
    bool closed;
};

struct guard_op {
    struct rt_agent *a;
    uint64_t token;
    bool registers; /* success gives the guard another server */
};

/* ---- facts -------------------------------------------------------------------------------------------- */

static void op_guard(void *arg, struct ha_guard *out)
{
    struct rt_agent *a = arg;
    const struct rt_guard *g = a->guarding;
    memset(out, 0, sizeof *out);
    if (g == NULL || g->client == NULL) {
        return;
    }
    const struct guard_view *v = guard_client_view(g->client);
    out->alive = dra_tri_of(guard_client_is_up(g->client));
    out->armed = v->armed != 0;
    out->pid = v->server_pid;
    out->pid_start_ticks = v->server_start_ticks;
    out->deadline = (struct dra_instant){v->deadline_ns};
    out->epoch = v->epoch;
    out->fenced = v->phase != GUARD_PHASE_NONE && v->phase != GUARD_PHASE_COUNTING;
    out->inflight = g->inflight > 0;
    out->stamp_valid = g->stamp_valid;
    out->stamp_epoch = g->stamp.view.epoch;
    out->stamp_lease = g->stamp.view.lease;
    out->stamp_deadline = (struct dra_instant){g->stamp.view.deadline_ns};
}

/* ---- orders ---------------------------------------------------------------------------------------------- */

static void on_order(const struct dra_err *err, enum guard_status status, const struct guard_view *view, void *arg)
{
    struct guard_op *o = arg;
    struct rt_guard *g = o->a->guarding;
    g->inflight--;
    if (err != NULL && err->code != DRA_ECANCELED) {
        log_event(LOG_LV_WARNING, "guard.refused", "the guard did not carry out an order", "status",
                  guard_status_to_str(status), "error", err->msg, NULL);
    }
    if (err == NULL && o->registers && view != NULL) {
        g->fence_base = view->fence_id;
    }
    if (o->a->engine != NULL) {
        rt_engine_on_effect(o->a->engine, o->token, err == NULL ? DRA_OK : err->code);
        rt_dirty(o->a);
    }
    free(o);
}

static struct guard_op *order_new(struct rt_agent *a, uint64_t token, bool registers)
{
    struct guard_op *o = a->guarding != NULL && a->guarding->client != NULL ? calloc(1, sizeof *o) : NULL;
    if (o != NULL) {
        *o = (struct guard_op){.a = a, .token = token, .registers = registers};
    }
    return o;
}

static int order_started(struct guard_op *o, int rc)
{
    if (rc == 0) {
        o->a->guarding->inflight++;
    } else {
        free(o);
    }
    return rc;
}

static int op_guard_arm(void *arg, uint64_t token, int32_t pid, uint64_t start_ticks, bool standby,
                        struct dra_instant deadline, struct dra_instant certain_until, int64_t epoch, int64_t lease)
{
    struct rt_agent *a = arg;
    struct guard_op *o = order_new(a, token, true);
    if (o == NULL) {
        return DRA_ECONN;
    }
    struct guard_server s = {.pid = pid, .start_ticks = start_ticks, .data_dir = a->data_dir, .standby = standby};
    struct guard_deadline d = {.deadline = deadline, .certain_until = certain_until, .epoch = epoch, .lease = lease};
    return order_started(
        o, guard_client_arm(a->guarding->client, &s, &d, dra_after(dra_now(), dra_ms(GUARD_ANSWER_MS)), on_order, o));
}

static int op_guard_move(void *arg, uint64_t token, struct dra_instant deadline, struct dra_instant certain_until,
                         int64_t epoch, int64_t lease)
{
    struct rt_agent *a = arg;
    struct guard_op *o = order_new(a, token, false);
    if (o == NULL) {
        return DRA_ECONN;
    }
    struct guard_deadline d = {.deadline = deadline, .certain_until = certain_until, .epoch = epoch, .lease = lease};
    return order_started(
        o, guard_client_move(a->guarding->client, &d, dra_after(dra_now(), dra_ms(GUARD_ANSWER_MS)), on_order, o));
}

/* SAFE-33: by which leave the server is disarmed. */
static int op_guard_disarm(void *arg, uint64_t token)
{
    struct rt_agent *a = arg;
    struct guard_op *o = order_new(a, token, false);
    if (o == NULL) {
        return DRA_ECONN;
    }
    const struct ha_pg *pg = pgs_facts(a->pgs);
    const struct guard_view *v = guard_client_view(a->guarding->client);
    struct dra_instant not_after = dra_after(dra_now(), dra_ms(GUARD_ANSWER_MS));
    bool another = pg->pid != 0 && (pg->pid != v->server_pid || pg->pid_start_ticks != v->server_start_ticks);
    if (pg->postmaster == DRA_YES && another && pg->started_as_standby) {
        struct guard_server s = {
            .pid = pg->pid, .start_ticks = pg->pid_start_ticks, .data_dir = a->data_dir, .standby = true};
        o->registers = true;
        return order_started(o, guard_client_register(a->guarding->client, &s, not_after, on_order, o));
    }
    enum guard_reason why = GUARD_REASON_UNSIGNALLED;
    if (pg->postmaster == DRA_NO) {
        why = GUARD_REASON_STOPPED; /* the guard looks for itself */
    } else if (a->settings.pause) {
        why = GUARD_REASON_PAUSE;
    }
    return order_started(o, guard_client_disarm(a->guarding->client, why, not_after, on_order, o));
}

static int op_guard_fence(void *arg, uint64_t token)
{
    struct rt_agent *a = arg;
    struct guard_op *o = order_new(a, token, false);
    int rc = DRA_ECONN;
    if (o != NULL) {
        rc = order_started(
            o, guard_client_fence(a->guarding->client, dra_after(dra_now(), dra_ms(GUARD_FENCE_MS)), on_order, o));
    }
    if (rc != 0) { /* no guard: we do it ourselves, with the same sequence */
        pgs_kill_all(a->pgs);
        rt_defer(a, token, DRA_OK);
    }
    return 0;
}

void rt_guard_fill_ops(struct rt_agent *a)
{
    a->ops.guard = op_guard;
    a->ops.guard_arm = op_guard_arm;
    a->ops.guard_move = op_guard_move;
    a->ops.guard_disarm = op_guard_disarm;
    a->ops.guard_fence = op_guard_fence;
}

/* ---- events -------------------------------------------------------------------------------------------------- */

static void on_up(const struct guard_view *view, bool replaced, void *arg)
{
    struct rt_agent *a = arg;
    struct rt_guard *g = a->guarding;
    if (!g->up_seen) {
        g->up_seen = true;
        g->fence_base = view->fence_id;
    }
    log_event(LOG_LV_INFO, "guard.up", replaced ? "the guard was replaced" : "the guard is up", "armed",
              view->armed != 0 ? "yes" : "no", NULL);
    rt_dirty(a);
}

static void on_lost(const char *why, void *arg)
{
    log_event(LOG_LV_WARNING, "guard.lost", "the guard is gone, another one is started", "why", why, NULL);
    rt_dirty(arg);
}

static void on_note(enum guard_note note, const struct guard_view *view, void *arg)
{
    struct rt_agent *a = arg;
    bool loud = note == GUARD_NOTE_FENCE_BEGUN || note == GUARD_NOTE_FENCED || note == GUARD_NOTE_DEADLINE_PASSED;
    log_event(loud ? LOG_LV_WARNING : LOG_LV_DEBUG, "guard.note", guard_note_to_str(note), "cause",
              guard_cause_to_str(view->cause), NULL);
    if (note == GUARD_NOTE_SERVER_EXITED || note == GUARD_NOTE_SERVER_GONE || note == GUARD_NOTE_FENCED) {
        pgs_read_files(a->pgs); /* what is left of it */
    }
    rt_dirty(a);
}

/* ---- open and close --------------------------------------------------------------------------------------------- */

/* dragent-guard lies beside dragent. */
static int guard_path(const struct rt_agent *a, char *out, size_t size, struct dra_err *err)
{
    char self[PATH_MAX];
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    (void)a; /* a path in the configuration may come later */
    if (n <= 0) {
        return dra_err_set(err, DRA_ESYS, "cannot tell where this program lies");
    }
    self[n] = '\0';
    char *cut = strrchr(self, '/');
    if (cut == NULL) {
        return dra_err_set(err, DRA_ESYS, "cannot tell where this program lies");
    }
    *cut = '\0';
    if (dra_str_printf(out, size, "%s/dragent-guard", self) != 0) {
        return dra_err_set(err, DRA_ETOOLONG, "path of dragent-guard");
    }
    if (access(out, X_OK) != 0) {
        return dra_err_set(err, DRA_ENOTFOUND, "the guard's program \"%s\" is missing. Install it beside dragent", out);
    }
    return 0;
}

/* SAFE-37: a stamp counts if a server was armed when it was written. */
static void stamp_take(struct rt_agent *a, struct rt_guard *g)
{
    struct dra_err err = {0};
    int rc = guard_stamp_read(a->guard_dir, &g->stamp, &err);
    if (rc != 0) {
        memset(&g->stamp, 0, sizeof g->stamp);
        if (rc != DRA_ENOTFOUND) {
            log_event(LOG_LV_INFO, "guard.stamp", "there is no stamp to go on from", "reason", err.msg, NULL);
        }
        return;
    }
    g->stamp_valid = g->stamp.view.armed != 0;
}

int rt_guard_read_stamp(struct rt_agent *a, struct dra_err *err)
{
    struct rt_guard *g = calloc(1, sizeof *g);
    char dir[GUARD_DIR_MAX];
    if (g == NULL) {
        return dra_err_set(err, DRA_ENOMEM, "out of memory");
    }
    int rc = guard_runtime_dir_make(a->data_dir, dir, err);
    if (rc == 0) {
        rc = dra_str_copy(a->guard_dir, sizeof a->guard_dir, dir);
    }
    if (rc != 0) {
        free(g);
        return dra_err_wrap(err, "the guard's directory");
    }
    a->guarding = g;
    stamp_take(a, g);
    return 0;
}

bool rt_guard_has_stamp(const struct rt_agent *a)
{
    return a->guarding != NULL && a->guarding->stamp_valid;
}

int rt_guard_open(struct rt_agent *a, struct dra_err *err)
{
    static const struct guard_client_cbs cbs = {.up = on_up, .lost = on_lost, .note = on_note};
    struct rt_guard *g = a->guarding;
    char exe[PATH_MAX];
    int rc = guard_path(a, exe, sizeof exe, err);
    if (rc != 0) {
        return rc;
    }
    const char *mode = json_text(json_find(a->effective, "dragent.guard"));
    struct guard_client_config cfg = {
        .runtime_dir = a->guard_dir,
        .guard_exe = exe,
        .report_only = mode != NULL && dra_str_eq(mode, "off"),
    };
    rc = guard_client_open(&a->loop, &cfg, &cbs, a, &g->client, err);
    if (rc != 0) {
        return dra_err_wrap(err, "guard");
    }
    /* A guard that lives, or that goes on by the stamp, is up before the first turn; without one the core waits. */
    struct dra_instant limit = dra_after(dra_now(), dra_ms(GUARD_START_MS));
    (void)rt_run_until(a, &g->up_seen, limit); /* not up: the turns begin anyway, nothing leads without it */
    if (g->stamp_valid) {
        rt_engine_adopt(a->engine, g->stamp.view.lease, a->settings.ttl, g->stamp.view.epoch);
        log_event(LOG_LV_INFO, "guard.adopted", "going on with the lease of the agent before", NULL);
    }
    return 0;
}

static void on_closed(void *arg)
{
    struct rt_agent *a = arg; /* what guard_client_open() was given */
    if (a->guarding != NULL) {
        a->guarding->closed = true;
    }
}

static void on_quit(const struct dra_err *err, enum guard_status status, const struct guard_view *view, void *arg)
{
    struct rt_guard *g = arg;
    (void)err;    /* it stays, then: armed, or already gone */
    (void)status; /* as above */
    (void)view;
    g->quit_answered = true;
}

void rt_guard_close(struct rt_agent *a)
{
    struct rt_guard *g = a->guarding;
    if (g == NULL) {
        return;
    }
    if (g->client != NULL) {
        static const int64_t close_ms = 300;
        const struct guard_view *v = guard_client_view(g->client);
        struct dra_instant limit = dra_after(dra_now(), dra_ms(close_ms));
        /* An orderly end with nothing to guard ends the guard, too. */
        if (a->exit_code == 0 && guard_client_is_up(g->client) && v->armed == 0 && v->server_pid == 0 &&
            guard_client_quit(g->client, limit, on_quit, g) == 0) {
            (void)rt_run_until(a, &g->quit_answered, limit); /* if it does not answer it goes by itself */
        }
        guard_client_close(g->client, on_closed);
        g->client = NULL;
        (void)rt_run_until(a, &g->closed, dra_after(dra_now(), dra_ms(close_ms))); /* the process ends anyway */
        if (!g->closed) {
            return; /* left to the process's end: libuv still points into it */
        }
    }
    free(g);
    a->guarding = NULL;
}
