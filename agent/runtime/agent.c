/*
 * agent.c - the agent's life: open everything in order, run the loop, close it in the opposite order.
 *
 * Order of the start (HA-06, SAFE-37, REST-14): configuration, loop, lock, the guard's stamp, the store and its first
 * snapshot, the name check, the REST listener, the local server, guard and lease, turns.
 * Turns: whatever happens calls rt_dirty(); the check handle runs one turn per iteration of the loop, never inside a
 * callback of somebody else, so that the engine is never entered from what it called.
 * Threads: loop thread only.
 */
#include "agent.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define STALL_MAX_MS 1000        /* a turn later than this is treated as "we were frozen" */
#define FIRST_READ_RETRY_MS 5000 /* DCS-46 */
#define ADOPT_PATIENCE_MS 1000   /* with a valid stamp the first turn does not wait longer for the store */
#define CLOSE_MS 500

/* ---- small services -------------------------------------------------------------------------------------- */

void rt_notify(const char *text)
{
    const char *path = getenv("NOTIFY_SOCKET");
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    char line[128];
    struct timespec mono;

    if (path == NULL || (path[0] != '/' && path[0] != '@') || strlen(path) >= sizeof to.sun_path) {
        return;
    }
    memcpy(to.sun_path, path, strlen(path));
    if (path[0] == '@') {
        to.sun_path[0] = '\0';
    }
    (void)clock_gettime(CLOCK_MONOTONIC, &mono); /* cannot fail */
    int rc = dra_str_eq(text, "RELOADING=1")
                 ? dra_str_printf(line, sizeof line, "RELOADING=1\nMONOTONIC_USEC=%lld",
                                  (long long)mono.tv_sec * 1000000 + mono.tv_nsec / 1000)
                 : dra_str_copy(line, sizeof line, text);
    int fd = rc == 0 ? socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0) : -1;
    if (fd < 0) {
        return;
    }
    socklen_t len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(path));
    (void)sendto(fd, line, strlen(line), MSG_NOSIGNAL, (struct sockaddr *)&to, len); /* a hint to systemd, no more */
    (void)close(fd);
}

static void on_idle(uv_idle_t *h)
{
    (void)h; /* its being active keeps the poll from blocking */
}

void rt_dirty(struct rt_agent *a)
{
    if (!a->dirty && a->running && !a->ending) {
        a->dirty = true;
        (void)uv_idle_start(&a->idle, on_idle); /* fails only without a callback */
    }
}

void rt_defer(struct rt_agent *a, uint64_t token, int rc)
{
    struct rt_deferred *d = calloc(1, sizeof *d);
    if (d == NULL) {
        return; /* the engine's own deadline ends it */
    }
    d->token = token;
    d->rc = rc;
    d->next = a->deferred;
    a->deferred = d;
    rt_dirty(a);
}

void rt_end(struct rt_agent *a, int code, const char *why)
{
    if (a->ending) {
        return;
    }
    a->ending = true;
    a->exit_code = code;
    dra_str_clip(a->exit_text, sizeof a->exit_text, why != NULL && why[0] != '\0' ? why : "the agent ends");
    uv_stop(&a->loop);
}

/* ---- turns ---------------------------------------------------------------------------------------------------- */

static void on_wake(void *arg)
{
    struct rt_agent *a = arg;
    requests_tick(a);
    rt_dirty(a);
}

static void set_wake(struct rt_agent *a)
{
    struct dra_instant at = rt_engine_wake_at(a->engine);
    struct dra_instant latest = dra_after(a->turn_at, a->settings.loop_wait);
    at = dra_earlier(dra_earlier(at, latest), requests_wake_at(a));
    uv_update_time(&a->loop);
    dra_timer_set(a->wake_timer, at);
}

static void turn(struct rt_agent *a)
{
    struct rt_deferred *list = a->deferred;
    a->deferred = NULL;
    a->dirty = false;
    (void)uv_idle_stop(&a->idle); /* always succeeds */
    while (list != NULL) {
        struct rt_deferred *d = list;
        list = d->next;
        rt_engine_on_effect(a->engine, d->token, d->rc);
        free(d);
    }
    if (a->hup) {
        a->hup = false;
        rt_config_on_sighup(a);
    }
    a->turn_at = dra_now();
    rt_engine_turn(a->engine);
    if (a->ending) {
        return;
    }
    rt_publish(a);
    requests_after_turn(a);
    rt_config_cache(a);
    rt_upgrade_step(a);
    set_wake(a);
}

static void on_check(uv_check_t *h)
{
    struct rt_agent *a = h->data;
    if (a->dirty && a->running && !a->ending) {
        turn(a);
    }
}

/* ---- events ------------------------------------------------------------------------------------------------------ */

static void on_snapshot(struct dcs_snapshot *s, void *arg)
{
    struct rt_agent *a = arg;
    struct dcs_snapshot *old = a->snap;
    a->snap = dcs_snapshot_ref(s);
    dcs_snapshot_unref(old);
    if (a->stale) {
        log_event(LOG_LV_INFO, "dcs.watching", "the view of the cluster is current again", NULL);
    }
    a->stale = false;
    a->dcs_last_seen_s = dra_wall_seconds();
    rt_config_on_snapshot(a);
    if (a->running) {
        requests_on_snapshot(a);
        rt_dirty(a);
    }
}

static void on_stale(const char *why, void *arg)
{
    struct rt_agent *a = arg;
    if (!a->stale) {
        log_event(LOG_LV_WARNING, "dcs.stale", "the view of the cluster may be out of date", "why", why, NULL);
    }
    a->stale = true;
    rt_dirty(a);
}

static void on_pg_changed(void *arg)
{
    struct rt_agent *a = arg;
    if (!a->running) {
        return;
    }
    rt_ops_pg_changed(a);
    requests_on_pg(a);
    rt_dirty(a);
}

static void on_forked(struct dra_proc child, void *arg)
{
    struct rt_agent *a = arg;
    rt_engine_on_forked(a->engine, (int32_t)child.pid, child.start_ticks);
    rt_dirty(a);
}

static void on_job_done(const struct ha_job_result *r, void *arg)
{
    struct rt_agent *a = arg;
    log_event(r->ok ? LOG_LV_INFO : LOG_LV_WARNING, r->ok ? "job.done" : "job.failed", ha_job_to_str(r->kind), "message",
              r->msg, r->member[0] != '\0' ? "member" : NULL, r->member, NULL);
    rt_engine_on_job_done(a->engine, r);
    rt_dirty(a);
}

static void on_signal(uv_signal_t *h, int signo)
{
    struct rt_agent *a = h->data;
    if (signo == SIGHUP) {
        a->hup = true;
        rt_dirty(a);
    } else if (signo == SIGUSR2) {
        rt_upgrade_asked(a);
    } else if (!a->term) { /* a second one is ignored */
        a->term = true;
        log_event(LOG_LV_INFO, "agent.stop", "asked to stop", "signal", signo == SIGINT ? "SIGINT" : "SIGTERM", NULL);
        rt_notify("STOPPING=1");
        if (a->running) {
            rt_engine_shutdown(a->engine);
            rt_dirty(a);
        }
    }
}

/* ---- opening --------------------------------------------------------------------------------------------------------- */

static int signal_open(struct rt_agent *a, uv_signal_t *h, int signo)
{
    int rc = uv_signal_init(&a->loop, h);
    if (rc == 0) {
        h->data = a;
        rc = uv_signal_start(h, on_signal, signo);
        uv_unref((uv_handle_t *)h); /* keeps no loop running */
    }
    return rc;
}

static int loop_open(struct rt_agent *a, struct dra_err *err)
{
    if (uv_loop_init(&a->loop) != 0) {
        return dra_err_set(err, DRA_ESYS, "the event loop could not be opened");
    }
    a->loop_open = true;
    (void)signal(SIGPIPE, SIG_IGN); /* writes to closed sockets are errors, no more */
    int rc = signal_open(a, &a->sig_term, SIGTERM);
    rc = rc != 0 ? rc : signal_open(a, &a->sig_int, SIGINT);
    rc = rc != 0 ? rc : signal_open(a, &a->sig_hup, SIGHUP);
    rc = rc != 0 ? rc : signal_open(a, &a->sig_usr2, SIGUSR2);
    rc = rc != 0 ? rc : uv_idle_init(&a->loop, &a->idle);
    rc = rc != 0 ? rc : uv_check_init(&a->loop, &a->check);
    rc = rc != 0 ? rc : uv_check_start(&a->check, on_check);
    if (rc != 0) {
        return dra_err_set(err, DRA_ESYS, "the event loop could not be opened: %s", uv_strerror(rc));
    }
    a->idle.data = a;
    a->check.data = a;
    rc = dra_timer_open(&a->loop, on_wake, a, &a->wake_timer);
    rc = rc != 0 ? rc : rt_ops_open(a);
    if (rc != 0) {
        return dra_err_set(err, rc, "timers could not be opened");
    }
    rc = dra_fworker_open(&a->loop, &a->files, err);
    return rc != 0 ? rc : http_client_open(&a->loop, &a->http, err);
}

static int dcs_open(struct rt_agent *a, struct dra_err *err)
{
    static const struct dcs_events events = {.snapshot = on_snapshot, .stale = on_stale};
    char prefix[2 * HA_NAME_MAX + 8];
    int rc = dcs_prefix(a->names.ns, a->names.scope, prefix, sizeof prefix);
    if (rc != 0) {
        return dra_err_set(err, rc, "namespace and scope are too long");
    }
    rc = etcd_open(&a->loop, a->http, json_get(a->effective, "etcd3"), prefix, a->settings.ttl, a->settings.loop_wait,
                   a->settings.retry_timeout, &a->dcs, err);
    if (rc != 0) {
        return dra_err_wrap(err, "section etcd3");
    }
    return a->dcs->vt->watch_start(a->dcs, &events, a, err);
}

static void on_first_read(const struct dcs_answer *ans, void *arg)
{
    struct rt_first_read *r = arg;
    r->done = true;
    r->err_code = ans->err_code;
    dra_str_clip(r->msg, sizeof r->msg, ans->err_msg);
}

/* HA-06: wait for the store.  Refused credentials are fatal (CLI-113).  With a valid stamp we go on without it soon: the
 * guard's deadline runs. */
static int wait_for_dcs(struct rt_agent *a, struct dra_err *err)
{
    struct dra_instant limit = {0};
    if (rt_guard_has_stamp(a)) {
        limit = dra_after(dra_now(), dra_ms(ADOPT_PATIENCE_MS));
    }
    while (a->snap == NULL && !a->term) {
        struct rt_first_read *r = &a->first_read;
        *r = (struct rt_first_read){0};
        struct dra_instant try_until = dra_earlier(limit, dra_after(dra_now(), dra_ms(FIRST_READ_RETRY_MS)));
        int rc = a->dcs->vt->read_start(a->dcs, try_until, on_first_read, r, err);
        if (rc != 0) {
            return dra_err_wrap(err, "first read of the store");
        }
        while (!r->done && !a->term) { /* its deadline ends it */
            (void)uv_run(&a->loop, UV_RUN_ONCE);
        }
        if (r->err_code == DRA_EAUTH) {
            return dra_err_set(err, DRA_EAUTH, "etcd refuses the user name or password of section etcd3 (%s). Correct it and start again",
                               r->msg);
        }
        if (a->snap != NULL || a->term || (dra_is_set(limit) && dra_reached(dra_now(), limit))) {
            break;
        }
        log_event(LOG_LV_WARNING, "dcs.waiting", "waiting on dcs", "error", r->msg, NULL);
        if (r->err_code != DRA_ETIMEDOUT) { /* refused at once: a moment until the next try */
            bool never = false;
            (void)rt_run_until(a, &never, dra_after(dra_now(), dra_ms(500))); /* the time is all we wait for */
        }
    }
    return 0;
}

static int parts_open(struct rt_agent *a, struct dra_err *err)
{
    static const struct pgs_events pg_events = {.changed = on_pg_changed, .forked = on_forked, .job_done = on_job_done};
    int rc = rest_open(&a->loop, &a->rest_conf, requests_on_rest, a, &a->rest, err);
    if (rc != 0) {
        return dra_err_wrap(err, "restapi.listen");
    }
    rc = pgs_open(&a->loop, a->files, a->effective, a->state_dir, &pg_events, a, &a->pgs, err);
    if (rc != 0) {
        return dra_err_wrap(err, "section postgresql");
    }
    rt_ops_fill(a);
    struct rt_engine_config cfg = {.stall_max = dra_ms(STALL_MAX_MS), .ops = &a->ops, .arg = a};
    memcpy(cfg.me, a->names.name, sizeof cfg.me);
    if (rt_engine_new(&cfg, &a->engine) != 0) {
        return dra_err_set(err, DRA_ENOMEM, "out of memory");
    }
    return rt_guard_open(a, err);
}

static int agent_open(struct rt_agent *a, struct dra_err *err)
{
    int rc = rt_config_load(a, err);
    rc = rc != 0 ? rc : loop_open(a, err);
    if (rc != 0) {
        return rc;
    }
    log_event(LOG_LV_INFO, "agent.start", "dragent " DRA_VERSION " starts", "name", a->names.name, "scope", a->names.scope,
              NULL);
    rc = rt_adopt_lock(a, err);
    rc = rc != 0 ? rc : rt_guard_read_stamp(a, err);
    rc = rc != 0 ? rc : dcs_open(a, err);
    rc = rc != 0 ? rc : wait_for_dcs(a, err);
    rc = rc != 0 ? rc : rt_adopt_name_check(a, err);
    if (rc != 0 || a->term) {
        return rc;
    }
    return parts_open(a, err);
}

/* ---- closing ------------------------------------------------------------------------------------------------------------ */

static void close_handle(uv_handle_t *h)
{
    if (h->data != NULL && !uv_is_closing(h)) {
        uv_close(h, NULL);
    }
}

/* Let libuv close what was asked to close: at most CLOSE_MS, waiting only for what the loop itself waits for. */
static void drain(struct rt_agent *a)
{
    struct dra_instant limit = dra_after(dra_now(), dra_ms(CLOSE_MS));
    while (uv_run(&a->loop, UV_RUN_NOWAIT) != 0) {
        int64_t left_ms = dra_span_ms(dra_since(limit, dra_now()));
        int loop_ms = uv_backend_timeout(&a->loop);
        struct pollfd p = {.fd = uv_backend_fd(&a->loop), .events = POLLIN};
        if (left_ms <= 0) {
            return;
        }
        (void)poll(&p, 1, loop_ms >= 0 && loop_ms < left_ms ? loop_ms : (int)left_ms); /* the loop looks for itself */
    }
}

static void agent_close(struct rt_agent *a)
{
    a->ending = true;
    a->running = false;
    requests_close(a);
    struct rt_engine *engine = a->engine;
    a->engine = NULL; /* late answers go nowhere */
    if (a->rest != NULL) {
        rest_close(a->rest);
        a->rest = NULL;
    }
    if (a->loop_open) {
        rt_guard_close(a);
        rt_ops_close(a);
        if (a->dcs != NULL) {
            a->dcs->vt->close(a->dcs);
            a->dcs = NULL;
        }
        if (a->pgs != NULL) {
            pgs_close(a->pgs);
            a->pgs = NULL;
        }
        if (a->http != NULL) {
            http_client_close(a->http);
            a->http = NULL;
        }
        if (a->files != NULL) {
            dra_fworker_close(a->files);
            a->files = NULL;
        }
        dra_timer_close(a->wake_timer);
        a->wake_timer = NULL;
        close_handle((uv_handle_t *)&a->sig_term);
        close_handle((uv_handle_t *)&a->sig_int);
        close_handle((uv_handle_t *)&a->sig_hup);
        close_handle((uv_handle_t *)&a->sig_usr2);
        close_handle((uv_handle_t *)&a->idle);
        close_handle((uv_handle_t *)&a->check);
        drain(a);
        (void)uv_loop_close(&a->loop); /* EBUSY: a straggler; the process ends anyway */
    }
    rt_engine_free(engine);
    while (a->deferred != NULL) {
        struct rt_deferred *d = a->deferred;
        a->deferred = d->next;
        free(d);
    }
    dcs_snapshot_unref(a->snap);
    a->snap = NULL;
    free(a->world_json);
    a->world_json = NULL;
    rt_config_free(a);
    rt_lock_release(&a->lock);
}

/* "Cannot happen" happened, and the safe branch was taken (conventions.md, section 6). */
static void on_never(const char *expr, const char *file, int line)
{
    log_linef(LOG_LV_ERROR, "agent.never", "an impossible state was met and the safe way taken: %s (%s:%d). Please report it",
              expr, file, line);
}

/* ---- the whole ------------------------------------------------------------------------------------------------------------ */

int rt_run(const struct rt_options *o)
{
    struct dra_err err = {0};
    struct rt_agent *a = calloc(1, sizeof *a);
    if (a == NULL) {
        return 1;
    }
    dra_never_hook = on_never;
    a->opt = o;
    a->logged_rule = -1;
    rt_lock_init(&a->lock);
    if (agent_open(a, &err) != 0) {
        log_event(LOG_LV_CRITICAL, "agent.fatal", err.msg, NULL);
        a->exit_code = 1;
    } else if (!a->term) {
        a->running = true;
        rt_notify("READY=1");
        rt_dirty(a);
        while (!a->ending) {
            (void)uv_run(&a->loop, UV_RUN_DEFAULT); /* ends by uv_stop() only: timers stay open */
            if (a->upgrade_ready) {
                rt_upgrade_exec(a); /* returns only if it failed: this image goes on */
                a->upgrade_ready = a->upgrade_asked = a->ending = false;
                rt_dirty(a);
            }
        }
    }
    int code = a->exit_code;
    if (a->exit_text[0] != '\0') {
        log_event(code == 0 ? LOG_LV_INFO : LOG_LV_CRITICAL, "agent.exit", a->exit_text, NULL);
    }
    agent_close(a);
    log_flush();
    free(a);
    return code;
}
