/*
 * reload.c - configuration: at start, on SIGHUP, and when the `config` key changes.
 *
 * Invariants:
 *  (1) What cannot be processed changes nothing: the configuration in force stays whole (CFG-07, CFG-40).
 *  (2) a->effective, a->settings, a->names and a->rest_conf always come from the same local and dynamic parts.
 * Threads: loop thread; cache_write() and cache_load() say otherwise.
 */
#include "agent.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define CACHE_NAME "patroni.dynamic.json"
#define CACHE_MAX (1024 * 1024)
#define FOREIGN_KEEP_MS (10 * 60 * 1000) /* HA-206 */

void rt_conf_warn(const char *text, void *arg)
{
    (void)arg; /* one sink */
    log_event(LOG_LV_WARNING, "config.warning", text, NULL);
}

/* Everything that is derived from a pair of local and dynamic configuration. */
struct derived {
    struct json *effective; /* owned until taken */
    struct ha_settings settings;
    struct conf_names names;
    struct conf_rest rest;
};

static int derive(const struct json *local, const struct json *dynamic, bool all_dragent, struct derived *out,
                  struct dra_err *err)
{
    struct derived d = {0};
    int rc = conf_effective(local, dynamic, &d.effective, err);
    if (rc == 0) {
        rc = conf_settings(d.effective, dynamic, all_dragent, rt_conf_warn, NULL, &d.settings, err);
    }
    if (rc == 0) {
        rc = conf_names(d.effective, &d.names, err);
    }
    if (rc == 0) {
        rc = conf_rest(d.effective, &d.rest, err);
    }
    if (rc != 0) {
        json_free(d.effective);
        return rc;
    }
    *out = d;
    return 0;
}

static void adopt_derived(struct rt_agent *a, struct derived *d)
{
    json_free(a->effective);
    a->effective = DRA_TAKE(d->effective);
    a->settings = d->settings;
    a->rest_conf = d->rest;
    if (a->running) { /* who we are stays: the lease, the lock and the keys speak of it */
        const struct conf_names *n = &d->names;
        if (!dra_str_eq(n->name, a->names.name) || !dra_str_eq(n->scope, a->names.scope) ||
            !dra_str_eq(n->ns, a->names.ns) || !dra_str_eq(n->data_dir, a->names.data_dir)) {
            log_event(LOG_LV_WARNING, "config.restart", "name, scope, namespace and data_dir change only with a restart of dragent",
                      NULL);
        }
        memcpy(a->names.conn_url, n->conn_url, sizeof a->names.conn_url);
        memcpy(a->names.proxy_url, n->proxy_url, sizeof a->names.proxy_url);
    } else {
        a->names = d->names;
    }
}

static int apply_log(struct rt_agent *a, const struct json *effective, struct dra_err *err)
{
    struct log_config lc;
    (void)a; /* the sink is set once per process */
    log_configure_default(&lc);
    int rc = conf_log(effective, rt_conf_warn, NULL, &lc, err);
    return rc != 0 ? rc : log_configure(&lc, err);
}

/* ---- start ------------------------------------------------------------------------------------------------- */

/* CFG-45.  Blocks: at start, before the loop runs.  NULL if there is none that can be used. */
static struct json *cache_load(const char *data_dir)
{
    char path[PATH_MAX + 32];
    struct dra_buf text;
    struct json *out = NULL;
    struct dra_err err = {0};

    if (dra_str_printf(path, sizeof path, "%s/%s", data_dir, CACHE_NAME) != 0) {
        return NULL;
    }
    dra_buf_init(&text, CACHE_MAX);
    int rc = dra_file_exists(path) ? dra_file_read(path, CACHE_MAX, &text, &err) : DRA_ENOTFOUND;
    if (rc == 0) {
        rc = json_parse(dra_buf_str(&text), text.len, &out, &err);
        if (rc != 0 || json_type_of(out) != JSON_OBJECT) {
            log_event(LOG_LV_WARNING, "config.cache", "the cached dynamic configuration cannot be read and is ignored",
                      "file", path, "error", err.msg, NULL);
            json_free(out);
            out = NULL;
        }
    }
    dra_buf_deinit(&text);
    return out;
}

int rt_config_load(struct rt_agent *a, struct dra_err *err)
{
    struct derived d = {0};
    int rc = conf_load_local(a->opt->config_path, a->opt->env, rt_conf_warn, NULL, &a->local, err);
    if (rc == 0) {
        rc = conf_check_local(a->local, rt_conf_warn, NULL, err);
    }
    if (rc != 0) {
        return rc;
    }
    const char *data_dir = json_text(json_find(a->local, "postgresql.data_dir"));
    a->dynamic = data_dir != NULL ? cache_load(data_dir) : NULL; /* CFG-06 a */
    if (a->dynamic == NULL && json_find(a->local, "bootstrap.dcs") != NULL) {
        a->dynamic = json_clone(json_find(a->local, "bootstrap.dcs")); /* CFG-06 c; b comes with the first snapshot */
    }
    a->all_dragent = true; /* until a snapshot shows otherwise (HA-206) */
    rc = derive(a->local, a->dynamic, a->all_dragent, &d, err);
    if (rc != 0 && a->dynamic != NULL) { /* a cache of nonsense must not keep the agent from starting */
        log_event(LOG_LV_ERROR, "config.cache", "the dynamic configuration known from before cannot be processed", "error",
                  err->msg, NULL);
        json_free(a->dynamic);
        a->dynamic = NULL;
        rc = derive(a->local, NULL, a->all_dragent, &d, err);
    }
    if (rc != 0) {
        return rc;
    }
    adopt_derived(a, &d);
    return apply_log(a, a->effective, err);
}

/* ---- changes ------------------------------------------------------------------------------------------------- */

static bool part_differs(const struct json *a, const struct json *b, const char *path)
{
    const struct json *x = json_find(a, path);
    const struct json *y = json_find(b, path);
    if (x == NULL || y == NULL) {
        return x != y;
    }
    return !json_equal_text(x, y);
}

static void on_reloaded(int rc, const struct dra_err *err, void *arg)
{
    struct rt_agent *a = arg;
    if (rc != 0 && rc != DRA_ECANCELED) {
        log_event(LOG_LV_ERROR, "config.reload", "PostgreSQL's configuration could not be written", "error",
                  err != NULL ? err->msg : dra_code_to_str(rc), NULL);
    }
    if (a->running) {
        rt_dirty(a);
    }
}

/* The parts that live outside this struct.  The first failure stops the rest (CFG-40); what was derived is in force. */
static int apply_parts(struct rt_agent *a, const struct json *old, bool always_reload, struct dra_err *err)
{
    int rc = 0;
    if (part_differs(old, a->effective, "log")) {
        rc = apply_log(a, a->effective, err);
    }
    if (rc == 0 && a->rest != NULL) {
        rc = rest_reconfigure(a->rest, &a->rest_conf, err);
    }
    if (rc == 0 && a->pgs != NULL) {
        rc = pgs_configure(a->pgs, a->effective, err);
    }
    if (rc == 0 && a->pgs != NULL && (always_reload || part_differs(old, a->effective, "postgresql"))) {
        rc = pgs_reload(a->pgs, on_reloaded, a, err);
    }
    if (rc == 0 && a->dcs != NULL) {
        const struct json *section = json_get(a->effective, "etcd3");
        rc = a->dcs->vt->reconfigure(a->dcs, section, a->settings.ttl, a->settings.loop_wait, a->settings.retry_timeout,
                                     err);
    }
    return rc;
}

/* Put (local, dynamic) in force.  Takes both on success; on failure the caller still owns them. */
static int change(struct rt_agent *a, struct json *local, struct json *dynamic, bool always_reload, struct dra_err *err)
{
    struct derived d = {0};
    int rc = derive(local, dynamic, a->all_dragent, &d, err);
    if (rc != 0) {
        return rc;
    }
    struct json *old = DRA_TAKE(a->effective);
    adopt_derived(a, &d);
    if (local != a->local) {
        json_free(a->local);
        a->local = local;
    }
    if (dynamic != a->dynamic) {
        json_free(a->dynamic);
        a->dynamic = dynamic;
    }
    struct dra_err part = {0};
    if (apply_parts(a, old, always_reload, &part) != 0) {
        log_event(LOG_LV_ERROR, "config.apply", "a part of the configuration could not be applied", "error", part.msg, NULL);
    }
    json_free(old);
    rt_dirty(a);
    return 0;
}

/* HA-206: true if every member is dragent, and no other was seen for ten minutes. */
static bool members_are_ours(struct rt_agent *a, const struct ha_cluster *c)
{
    struct dra_instant now = dra_now();
    bool ours = true;
    for (int i = 0; i < c->n_members; i++) {
        if (c->members[i].dragent[0] != '\0') {
            continue;
        }
        struct rt_foreign *row = NULL;
        for (int k = 0; k < RT_FOREIGN_MAX; k++) {
            struct rt_foreign *f = &a->foreign[k];
            if (dra_str_eq(f->name, c->members[i].name)) {
                row = f;
                break;
            }
            if (row == NULL && f->name[0] == '\0') {
                row = f;
            }
        }
        if (row != NULL) {
            memcpy(row->name, c->members[i].name, sizeof row->name);
            row->seen_at = now;
        }
        ours = false;
    }
    for (int k = 0; k < RT_FOREIGN_MAX; k++) {
        struct rt_foreign *f = &a->foreign[k];
        int i = f->name[0] != '\0' ? ha_member_find(c, f->name) : -1;
        if (f->name[0] == '\0') {
            continue;
        }
        bool became_ours = i >= 0 && c->members[i].dragent[0] != '\0';
        if (became_ours || dra_since(now, f->seen_at).ns > dra_ms(FOREIGN_KEEP_MS).ns) {
            f->name[0] = '\0';
        } else {
            ours = false;
        }
    }
    return ours;
}

static void apply_dynamic(struct rt_agent *a, const struct json *fresh)
{
    struct dra_err err = {0};
    struct json *copy = json_clone(fresh);
    if (copy == NULL || change(a, a->local, copy, false, &err) != 0) {
        log_event(LOG_LV_ERROR, "config.rejected", "the new dynamic configuration cannot be processed, the old one stays",
                  "error", copy == NULL ? "out of memory" : err.msg, NULL);
        json_free(copy);
        return;
    }
    log_event(LOG_LV_INFO, "config.changed", "the dynamic configuration has changed", NULL);
    json_free(a->cache_pending);
    a->cache_pending = json_clone(a->dynamic);
}

void rt_config_on_snapshot(struct rt_agent *a)
{
    const struct ha_cluster *c = &a->snap->c;
    bool ours = members_are_ours(a, c);
    if (ours != a->all_dragent) {
        struct dra_err err = {0};
        a->all_dragent = ours;
        if (change(a, a->local, a->dynamic, false, &err) != 0) {
            log_event(LOG_LV_ERROR, "config.rejected", "the timings cannot be repaired", "error", err.msg, NULL);
        }
    }
    if (c->config_rev == a->config_rev || !c->config_valid || a->snap->config == NULL) {
        return; /* HA-202: a key that vanished changes nothing */
    }
    a->config_rev = c->config_rev;
    if (a->dynamic == NULL || !json_equal_text(a->dynamic, a->snap->config)) {
        apply_dynamic(a, a->snap->config); /* DCS-17 */
    } else if (a->cache_pending == NULL && !a->cache_busy) {
        a->cache_pending = json_clone(a->dynamic); /* the cache may not show it yet: bootstrap.dcs became `config` */
    }
}

void rt_config_on_sighup(struct rt_agent *a)
{
    struct dra_err err = {0};
    struct json *local = NULL;

    rt_notify("RELOADING=1");
    int rc = conf_load_local(a->opt->config_path, a->opt->env, rt_conf_warn, NULL, &local, &err);
    if (rc == 0) {
        rc = conf_check_local(local, rt_conf_warn, NULL, &err);
    }
    if (rc == 0 && json_equal_text(local, a->local)) {
        log_event(LOG_LV_INFO, "config.unchanged", "No local configuration items changed.", NULL);
    }
    if (rc == 0) {
        rc = change(a, local, a->dynamic, true, &err); /* CFG-41: files are rewritten in any case */
    }
    if (rc != 0) {
        json_free(local);
        log_event(LOG_LV_ERROR, "config.reload",
                  "Failed to reload the configuration, the old one stays. Correct it and reload again", "config_file",
                  a->opt->config_path != NULL ? a->opt->config_path : "environment", "error", err.msg, NULL);
    } else {
        pgs_callback(a->pgs, HA_CALLBACK_ON_RELOAD, rt_engine_plan(a->engine)->role);
    }
    rt_notify("READY=1");
}

/* ---- the cache (CFG-45) --------------------------------------------------------------------------------------- */

struct cache_job {
    struct rt_agent *a;
    char path[PATH_MAX + 32];
    char dir[PATH_MAX];
    char *text; /* owned */
};

/* Worker thread. */
static int cache_write(void *arg, struct dra_err *err)
{
    struct cache_job *j = arg;
    struct stat st;
    if (stat(j->dir, &st) != 0) {
        return dra_err_sys(err, errno, "data directory \"%s\"", j->dir);
    }
    unsigned mode = (st.st_mode & S_IRGRP) != 0 ? 0640 : 0600;
    return dra_file_write_atomic(j->path, j->text, strlen(j->text), mode, err);
}

static void on_cache_written(int rc, const struct dra_err *err, void *arg)
{
    struct cache_job *j = arg;
    j->a->cache_busy = false;
    if (rc != 0 && rc != DRA_ECANCELED) {
        log_event(LOG_LV_WARNING, "config.cache", "the dynamic configuration could not be cached", "error",
                  err != NULL ? err->msg : dra_code_to_str(rc), NULL);
    }
    free(j->text);
    free(j);
}

void rt_config_cache(struct rt_agent *a)
{
    const struct ha_plan *p = rt_engine_plan(a->engine);
    const struct ha_world *w = rt_engine_world(a->engine);
    if (a->cache_pending == NULL || a->cache_busy || p->role == HA_ROLE_UNINITIALIZED || p->role == HA_ROLE_UNKNOWN ||
        w->pg.datadir != HA_DATADIR_VALID || w->job.phase != HA_PHASE_IDLE) {
        return; /* HA-49: nothing of ours lies in a directory that a tool is about to make */
    }
    struct cache_job *j = calloc(1, sizeof *j);
    if (j == NULL) {
        return; /* tried again after the next turn */
    }
    j->a = a;
    j->text = json_print(a->cache_pending);
    if (j->text == NULL || dra_str_copy(j->dir, sizeof j->dir, a->data_dir) != 0 ||
        dra_str_printf(j->path, sizeof j->path, "%s/%s", a->data_dir, CACHE_NAME) != 0 ||
        dra_fworker_start(a->files, cache_write, on_cache_written, j) != 0) {
        free(j->text);
        free(j);
        return;
    }
    a->cache_busy = true;
    json_free(a->cache_pending);
    a->cache_pending = NULL;
}

void rt_config_free(struct rt_agent *a)
{
    json_free(a->local);
    json_free(a->dynamic);
    json_free(a->effective);
    json_free(a->cache_pending);
    a->local = a->dynamic = a->effective = a->cache_pending = NULL;
}
