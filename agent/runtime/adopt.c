/*
 * adopt.c - before the first turn: we are the only agent of this data directory, and the only one of this name.
 *
 * Promises (SAFE-35, DCS-95): after rt_adopt_lock() no other agent of this data directory lives.  After
 * rt_adopt_name_check() no other agent of our name answered.  Nothing is written to the store and the server is not
 * touched by either.
 * Threads: loop thread; runs the loop itself, since nothing else is on yet.
 */
#include "agent.h"

#include <limits.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define LIVENESS_MS 3000
#define KILL_MS 5000

/* ---- running the loop before there are turns ------------------------------------------------------------- */

static void on_limit(void *arg)
{
    bool *over = arg;
    *over = true;
}

bool rt_run_until(struct rt_agent *a, const bool *done, struct dra_instant limit)
{
    bool over = false;
    struct dra_timer *t = NULL;
    if (dra_is_set(limit)) {
        if (dra_timer_open(&a->loop, on_limit, &over, &t) != 0) {
            return *done;
        }
        dra_timer_set(t, limit);
    }
    while (!*done && !over && !(a->term && !a->ending)) {
        if (uv_run(&a->loop, UV_RUN_ONCE) == 0 && !*done) {
            break; /* nothing is open that could ever set it */
        }
    }
    dra_timer_close(t);
    return *done;
}

/* ---- GET /liveness of somebody (REST-61: any HTTP answer counts) ------------------------------------------- */

struct liveness {
    bool done;
    bool answered;
};

static void on_liveness(const struct http_response *r, void *arg)
{
    struct liveness *l = arg;
    l->answered = r->status != 0;
    l->done = true;
}

/* The path of api_url is replaced. */
static bool liveness_url(const char *api_url, char *out, size_t size)
{
    const char *host = strstr(api_url, "://");
    if (host == NULL) {
        return false;
    }
    size_t base = (size_t)(host - api_url) + 3;
    base += strcspn(api_url + base, "/?#");
    return dra_str_printf(out, size, "%.*s/liveness", (int)base, api_url) == 0;
}

static bool is_alive(struct rt_agent *a, const char *api_url)
{
    char url[HA_URL_MAX + 16];
    struct dra_err err = {0};
    struct liveness *l = calloc(1, sizeof *l); /* lives until the answer, which may come after we stopped waiting */
    struct http_op *op = NULL;
    bool alive = false;

    if (l == NULL || !liveness_url(api_url, url, sizeof url)) {
        free(l);
        return false;
    }
    struct http_request rq = {.method = "GET", .url = url, .not_after = dra_after(dra_now(), dra_ms(LIVENESS_MS))};
    if (http_start(a->http, &rq, on_liveness, l, &op, &err) != 0) {
        free(l);
        return false;
    }
    if (!rt_run_until(a, &l->done, dra_after(dra_now(), dra_ms(LIVENESS_MS + 500)))) {
        http_cancel(op);
        while (!l->done && uv_run(&a->loop, UV_RUN_ONCE) != 0) {
            /* the callback is due in the next iteration */
        }
    }
    alive = l->answered;
    free(l);
    return alive;
}

/* ---- the lock (SAFE-35) -------------------------------------------------------------------------------------- */

static void on_gone(struct dra_proc p, void *arg)
{
    bool *gone = arg;
    (void)p; /* the only one we watch */
    *gone = true;
}

static int holder_end(struct rt_agent *a, const struct rt_lock_holder *h, struct dra_err *err)
{
    struct dra_procwatch *w = NULL;
    bool gone = false;

    if (h->proc.pid == 0 || !dra_proc_is_alive(&h->proc)) {
        return 0; /* it ended meanwhile, or has not signed yet: the next try shows */
    }
    int rc = dra_procwatch_open(&a->loop, h->proc, on_gone, &gone, &w, err);
    if (rc != 0) {
        return rc == DRA_ENOTFOUND ? 0 : rc;
    }
    rc = dra_proc_signal(&h->proc, SIGKILL, err); /* ends a stopped process, too */
    if (rc == 0 && !rt_run_until(a, &gone, dra_after(dra_now(), dra_ms(KILL_MS)))) {
        rc = dra_err_set(err, DRA_ETIMEDOUT, "the former agent (pid %d) does not end", (int)h->proc.pid);
    }
    dra_procwatch_close(w);
    return rc == DRA_ENOTFOUND ? 0 : rc;
}

static int lock_or_replace(struct rt_agent *a, const char *path, struct dra_err *err)
{
    struct rt_lock_holder h;
    struct dra_instant limit = dra_after(dra_now(), dra_ms(LIVENESS_MS + KILL_MS));
    while (true) {
        int rc = rt_lock_take(&a->lock, path, &h, err);
        if (rc != DRA_EBUSY) {
            return rc;
        }
        if (h.api_url[0] != '\0' && is_alive(a, h.api_url)) {
            return dra_err_set(err, DRA_EEXIST,
                               "another agent (pid %d) runs for data directory \"%s\" and answers at %s. Stop it first",
                               (int)h.proc.pid, a->data_dir, h.api_url);
        }
        if (a->term || dra_reached(dra_now(), limit)) {
            return dra_err_set(err, DRA_EBUSY, "lock file \"%s\" is held by an agent (pid %d) that neither answers nor ends",
                               path, (int)h.proc.pid);
        }
        log_linef(LOG_LV_WARNING, "lock.replace", "the agent with pid %d holds the lock and does not answer; ending it",
                  (int)h.proc.pid);
        rc = holder_end(a, &h, err);
        if (rc != 0) {
            return rc;
        }
        if (h.proc.pid == 0) { /* not signed: whoever it is has just started */
            bool never = false;
            (void)rt_run_until(a, &never, dra_after(dra_now(), dra_ms(100))); /* give it the time to sign */
        }
    }
}

/* The data directory without links and trailing slashes; its last part need not exist. */
static int resolve_data_dir(struct rt_agent *a, struct dra_err *err)
{
    char given[PATH_MAX];
    char parent[PATH_MAX];
    char real[PATH_MAX];
    if (dra_str_copy(given, sizeof given, a->names.data_dir) != 0 || given[0] == '\0') {
        return dra_err_set(err, DRA_EINVAL, "postgresql.data_dir \"%s\": want a path", a->names.data_dir);
    }
    size_t len = strlen(given);
    while (len > 1 && given[len - 1] == '/') {
        given[--len] = '\0';
    }
    if (realpath(given, real) != NULL) {
        return dra_str_copy(a->data_dir, sizeof a->data_dir, real);
    }
    char *slash = strrchr(given, '/');
    if (slash == NULL) {
        memcpy(parent, ".", 2);
    } else if (dra_str_copy_n(parent, sizeof parent, given, slash == given ? 1 : (size_t)(slash - given)) != 0) {
        return dra_err_set(err, DRA_ETOOLONG, "postgresql.data_dir is too long");
    }
    int rc = dra_file_mkdirs(parent, 0755, err);
    if (rc != 0) {
        return dra_err_wrap(err, "the directory above postgresql.data_dir");
    }
    if (realpath(parent, real) == NULL) {
        return dra_err_set(err, DRA_ESYS, "the directory \"%s\" cannot be looked at", parent);
    }
    return dra_str_printf(a->data_dir, sizeof a->data_dir, "%s/%s", dra_str_eq(real, "/") ? "" : real,
                          slash != NULL ? slash + 1 : given);
}

int rt_adopt_lock(struct rt_agent *a, struct dra_err *err)
{
    char path[PATH_MAX + 16];
    int rc = resolve_data_dir(a, err);
    if (rc == 0 && dra_str_printf(a->state_dir, sizeof a->state_dir, "%s.dragent", a->data_dir) != 0) {
        rc = dra_err_set(err, DRA_ETOOLONG, "postgresql.data_dir is too long");
    }
    if (rc == 0) {
        rc = dra_file_mkdirs(a->state_dir, 0700, err);
        if (rc != 0) {
            return dra_err_wrap(err, "dragent keeps its lock beside the data directory, in \"%s\"", a->state_dir);
        }
    }
    if (rc != 0) {
        return rc;
    }
    if (dra_str_printf(path, sizeof path, "%s/agent.lock", a->state_dir) != 0) {
        return dra_err_set(err, DRA_ETOOLONG, "postgresql.data_dir is too long");
    }
    rc = DRA_ENOTFOUND;
    if (a->opt->inherited_lock_fd >= 0) {
        struct dra_err why = {0};
        rc = rt_lock_inherit(&a->lock, path, a->opt->inherited_lock_fd, &why);
        if (rc != 0) {
            log_event(LOG_LV_WARNING, "lock.inherit", "the lock did not survive the upgrade and is taken anew", "reason",
                      why.msg, NULL);
        }
    }
    if (rc != 0) {
        rc = lock_or_replace(a, path, err);
    }
    return rc != 0 ? rc : rt_lock_sign(&a->lock, a->rest_conf.api_url, err);
}

/* ---- the name (DCS-95) --------------------------------------------------------------------------------------------- */

int rt_adopt_name_check(struct rt_agent *a, struct dra_err *err)
{
    if (a->snap == NULL) {
        return 0;
    }
    int i = ha_member_find(&a->snap->c, a->names.name);
    if (i < 0 || a->snap->c.members[i].api_url[0] == '\0') {
        return 0;
    }
    char url[HA_URL_MAX];
    memcpy(url, a->snap->c.members[i].api_url, sizeof url); /* the snapshot may be replaced while we ask */
    if (is_alive(a, url)) {
        return dra_err_set(err, DRA_EEXIST, "Can't start; there is already a node named '%s' running", a->names.name);
    }
    return 0;
}
