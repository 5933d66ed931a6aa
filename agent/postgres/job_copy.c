/*
 * job_copy.c - make this node a copy of another (HA-46..49, INT-40..42), and tidy up what a copy has replaced.
 *
 * What lies in the data directory is set aside (renamed), never deleted, unless it cannot be: the directory is a mount
 * point, or the disk cannot hold both.  The marker beside it says that the directory is not to be trusted from before
 * anything is touched until the copy is complete.  The path does not exist when a method starts (HA-49).
 * The deadline is one on lack of progress: bytes written by the tool and all that it started.
 * Threads: loop, except the functions of pgs_work_fn's shape.
 */
#include "pgs_int.h"
#include "proc.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#define WATCH_MS 1000
#define STALL_MS 60000        /* no byte for that long: the source is gone */
#define STALL_FIRST_MS 600000 /* before the first byte, where the source may be spreading its checkpoint */
#define STALL_CUSTOM_MS 600000
#define CONNECT_TIMEOUT_S 10
#define ASIDE ".aside-"
#define ASIDE_MAX 1000

enum step {
    STEP_FIRST = 0,
    STEP_READY,  /* marker, aside */
    STEP_RUN,    /* the tool runs */
    STEP_CLEAN,  /* a failed attempt is being removed */
    STEP_FINISH, /* files restored, marker removed */
    STEP_READ,   /* the new directory is being read */
};

/* ---- worker ------------------------------------------------------------------------------------------- */

static uint64_t tree_bytes(const char *path, int depth)
{
    DIR *d = depth < 16 ? opendir(path) : NULL;
    const struct dirent *e;
    uint64_t sum = 0;

    while (d != NULL && (e = readdir(d)) != NULL) {
        char child[PGS_PATH_MAX * 2];
        struct stat sb;

        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0 ||
            dra_str_printf(child, sizeof child, "%s/%s", path, e->d_name) != 0 || lstat(child, &sb) != 0) {
            continue;
        }
        sum += S_ISDIR(sb.st_mode) ? tree_bytes(child, depth + 1) : (uint64_t)sb.st_blocks * 512;
    }
    if (d != NULL) {
        closedir(d);
    }
    return sum;
}

/* The disk can hold what lies there and a copy of the same size. */
static bool has_room(const char *dir)
{
    struct statvfs v;
    uint64_t used;

    if (statvfs(dir, &v) != 0) {
        return true;
    }
    used = tree_bytes(dir, 0);
    return (uint64_t)v.f_bavail * v.f_frsize > used + used / 10;
}

static int set_aside(struct pgs_jobwork *w, struct dra_err *err)
{
    const char *dir = w->conf->data_dir;
    struct dra_err why = {0};

    if (has_room(dir)) {
        for (int i = 1; i <= ASIDE_MAX; i++) {
            char suffix[32];
            char path[PGS_PATH_MAX + 64];

            if (dra_str_printf(suffix, sizeof suffix, ASIDE "%d", i) != 0 ||
                dra_str_printf(path, sizeof path, "%s%s", dir, suffix) != 0) {
                return dra_err_set(err, DRA_ETOOLONG, "data directory");
            }
            if (dra_file_exists(path)) {
                continue;
            }
            if (pgs_dir_set_aside(dir, suffix, &why) == 0) {
                w->aside_made = true;
                log_linef(LOG_LV_INFO, "pgs.aside", "set the old data directory aside as %s", path);
                return DRA_OK;
            }
            break;
        }
    } else {
        (void)dra_err_set(&why, DRA_ESTATE, "the disk cannot hold both");
    }
    if (!dra_file_exists(dir)) {
        return dra_err_set(err, DRA_ESYS, "%s", why.msg); /* renamed, and something behind its links failed */
    }
    log_linef(LOG_LV_WARNING, "pgs.aside", "removing the old data directory, since it cannot be set aside: %s", why.msg);
    return pgs_dir_remove(dir, err);
}

static int make_parent(const char *path, struct dra_err *err)
{
    char parent[PGS_PATH_MAX];
    const char *slash = strrchr(path, '/');

    if (slash == NULL || slash == path || dra_str_copy_n(parent, sizeof parent, path, (size_t)(slash - path)) != 0) {
        return DRA_OK;
    }
    return dra_file_mkdirs(parent, 0755, err);
}

static int work_ready(struct pgs_jobwork *w, struct dra_err *err)
{
    char host[HA_URL_MAX] = "";
    int port = 0;
    int rc = pgs_marker_begin(w->state_dir, w->conf->data_dir, "create replica", err);

    if (rc != 0) {
        return rc;
    }
    if (!w->flag) { /* else keep_data: the method wants what is there */
        rc = pgs_dir_is_empty(w->conf->data_dir) ? pgs_dir_remove(w->conf->data_dir, err) : set_aside(w, err);
    }
    if (rc == 0) {
        rc = make_parent(w->conf->data_dir, err);
    }
    if (rc == 0 && w->conn_url[0] != '\0' && ha_url_host_port(w->conn_url, host, sizeof host, &port)) {
        rc = pgs_pgpass_write(w->conf, host, port, err);
    }
    return rc;
}

static int work_clean(struct pgs_jobwork *w, struct dra_err *err)
{
    int rc = w->flag ? 0 : pgs_dir_remove(w->conf->data_dir, err);

    /* An empty place needs no marker; one with something half made in it keeps it. */
    return rc == 0 && pgs_dir_is_empty(w->conf->data_dir) ? pgs_marker_remove(w->state_dir, err) : rc;
}

static int work_finish(struct pgs_jobwork *w, struct dra_err *err)
{
    int rc = pgs_restore_files(w->conf, err);

    if (rc == 0) {
        rc = pgs_signal_write(w->conf->data_dir, err); /* nobody may start it as a primary by mistake */
    }
    return rc == 0 ? pgs_marker_remove(w->state_dir, err) : rc;
}

/* ---- methods --------------------------------------------------------------------------------------------- */

/* Name of the i-th method; "" past the end. */
static void method_name(const struct pgs_conf *c, int i, char *out, size_t out_size)
{
    const struct json *list = json_get(c->pg, "create_replica_methods");

    out[0] = '\0';
    if (json_type_of(list) != JSON_ARRAY) {
        list = json_get(c->pg, "create_replica_method");
    }
    if (json_type_of(list) == JSON_STRING) {
        if (i == 0 && !pgs_conf_text(list, out, out_size)) {
            out[0] = '\0';
        }
        return;
    }
    if (json_type_of(list) != JSON_ARRAY || json_size(list) == 0) {
        dra_str_clip(out, out_size, i == 0 ? "basebackup" : "");
        return;
    }
    if ((size_t)i < json_size(list) && !pgs_conf_text(json_at(list, (size_t)i), out, out_size)) {
        out[0] = '\0';
    }
}

static bool option_true(const struct json *section, const char *key)
{
    char text[16];

    return pgs_conf_text(json_get(section, key), text, sizeof text) &&
           (dra_str_eq_nocase(text, "true") || dra_str_eq_nocase(text, "on") || dra_str_eq_nocase(text, "yes") ||
            strcmp(text, "1") == 0);
}

static int source_conninfo(const struct pgs *s, int timeout_s, struct dra_buf *out)
{
    char host[HA_URL_MAX];
    struct pgs_conninfo ci = {.user = &s->conf->replication,
                              .dbname = s->conf->database,
                              .krbsrvname = s->conf->krbsrvname,
                              .connect_timeout_s = timeout_s,
                              .host = host};

    if (!ha_url_host_port(s->job.conn_url, host, sizeof host, &ci.port)) {
        return DRA_EINVAL;
    }
    pgs_conninfo_build(&ci, out);
    return out->failed ? DRA_ETOOLONG : DRA_OK;
}

static int basebackup_argv(struct pgs *s, struct pgs_argv *argv, struct dra_err *err)
{
    static const char *const forbidden[] = {"pgdata", "format", "wal-method", "xlog-method", "gzip", "version", "dbname",
                                            "host",   "port",   "username",   "password",    "progress", NULL};
    const struct json *options = json_get(s->conf->pg, "basebackup");
    struct dra_buf dsn;
    bool has_checkpoint = false;
    int rc;

    dra_buf_init(&dsn, 4096);
    rc = source_conninfo(s, CONNECT_TIMEOUT_S, &dsn);
    if (rc != 0) {
        rc = dra_err_set(err, rc, "no address of member \"%s\"", s->job.spec.member);
        goto out;
    }
    pgs_argv_add(argv, s->conf->tool[PGS_TOOL_BASEBACKUP]);
    pgs_argv_addf(argv, "--pgdata=%s", s->conf->data_dir);
    pgs_argv_add(argv, "-X");
    pgs_argv_add(argv, "stream");
    pgs_argv_addf(argv, "--dbname=%s", dra_buf_str(&dsn));
    rc = pgs_conf_options(options, forbidden, false, argv, err);
    for (int i = 0; i < argv->n; i++) {
        has_checkpoint = has_checkpoint || dra_str_starts(argv->v[i], "--checkpoint") || dra_str_starts(argv->v[i], "-c");
    }
    if (!has_checkpoint) {
        pgs_argv_add(argv, "--checkpoint=fast"); /* else it waits for a spread one, up to minutes, and nobody sees why */
    }
    s->job.tries = has_checkpoint ? 1 : 0;
out:
    dra_buf_deinit(&dsn);
    return rc;
}

static int custom_argv(struct pgs *s, const char *name, struct pgs_argv *argv, struct dra_err *err)
{
    const struct json *section = json_get(s->conf->pg, name);
    bool no_params = option_true(section, "no_params");
    char command[2048];
    struct dra_buf dsn;
    int rc;

    if (!pgs_conf_text(json_get(section, "command"), command, sizeof command)) {
        dra_str_clip(command, sizeof command, name);
    }
    rc = pgs_argv_split(argv, command, err);
    for (const struct json *e = json_first(section); e != NULL && rc == 0; e = json_next(e)) {
        const char *key = json_name(e);
        char value[PGS_VALUE_MAX];

        if (key == NULL || strcmp(key, "command") == 0 || !pgs_conf_text(e, value, sizeof value) ||
            (no_params && (strcmp(key, "no_params") == 0 || strcmp(key, "no_leader") == 0 || strcmp(key, "keep_data") == 0))) {
            continue;
        }
        if (json_type_of(e) == JSON_BOOL) { /* as Python writes it (INT-40) */
            dra_str_clip(value, sizeof value, json_is_true(e) ? "True" : "False");
        }
        pgs_argv_addf(argv, "--%s=%s", key, value);
    }
    if (rc != 0 || no_params) {
        return rc;
    }
    dra_buf_init(&dsn, 4096);
    (void)source_conninfo(s, 0, &dsn); /* without a source it stays empty */
    pgs_argv_addf(argv, "--scope=%s", s->conf->scope);
    pgs_argv_add(argv, "--role=replica");
    pgs_argv_addf(argv, "--datadir=%s", s->conf->data_dir);
    pgs_argv_addf(argv, "--connstring=%s", dra_buf_str(&dsn));
    dra_buf_deinit(&dsn);
    return DRA_OK;
}

static bool method_is_custom(const char *name)
{
    return strcmp(name, "basebackup") != 0;
}

static bool keeps_data(const struct pgs *s)
{
    char name[128];

    method_name(s->conf, s->job.method, name, sizeof name);
    return method_is_custom(name) && option_true(json_get(s->conf->pg, name), "keep_data");
}

/* ---- steps ------------------------------------------------------------------------------------------------- */

static void ready_method(struct pgs *s)
{
    char name[128];

    method_name(s->conf, s->job.method, name, sizeof name);
    if (s->job.spec.member[0] == '\0') { /* without a source only some methods can work (HA-46.2) */
        while (name[0] != '\0' && !(method_is_custom(name) && option_true(json_get(s->conf->pg, name), "no_leader"))) {
            method_name(s->conf, ++s->job.method, name, sizeof name);
        }
    }
    if (name[0] == '\0') {
        pgs_state_set(s, HA_STATE_STOPPED);
        pgs_job_end(s, s->job.err.code != 0 ? s->job.err.code : DRA_ENOTFOUND, "no method made a copy: %s",
                    s->job.err.msg[0] != '\0' ? s->job.err.msg : "none can work without a source");
        return;
    }
    pgs_state_set(s, HA_STATE_CREATING_REPLICA);
    s->job.step = STEP_READY;
    pgs_job_work(s, work_ready, 0, keeps_data(s), NULL);
}

static void run_method(struct pgs *s)
{
    char name[128];
    struct pgs_argv argv;
    struct pgs_env env;
    struct dra_err err = {0};
    int rc;

    if (s->job.rc != 0) {
        pgs_state_set(s, HA_STATE_STOPPED);
        pgs_job_end(s, s->job.rc, "cannot prepare the data directory: %s", s->job.err.msg);
        return;
    }
    method_name(s->conf, s->job.method, name, sizeof name);
    pgs_argv_init(&argv);
    rc = method_is_custom(name) ? custom_argv(s, name, &argv, &err) : basebackup_argv(s, &argv, &err);
    if (rc != 0) {
        s->job.rc = rc;
        s->job.err = err;
        s->job.step = STEP_CLEAN;
        pgs_job_work(s, work_clean, 0, keeps_data(s), NULL);
    } else {
        pgs_env_tool(s->conf, NULL, &env);
        s->job.step = STEP_RUN;
        s->job.io_seen = 0;
        pgs_job_progress(s);
        log_linef(LOG_LV_INFO, "pgs.copy", "making a copy of %s with %s", s->job.spec.member[0] != '\0' ? s->job.spec.member : "nobody",
                  name);
        pgs_job_timer(s, dra_ms(WATCH_MS));
        pgs_job_child(s, &argv, env.v, (struct dra_instant){0});
    }
    pgs_argv_deinit(&argv);
}

static void watch(struct pgs *s)
{
    char name[128];
    int64_t limit = STALL_MS;
    uint64_t io;

    if (s->job.child == NULL) {
        return;
    }
    io = pgs_session_written(dra_child_pid(s->job.child));
    if (io != s->job.io_seen) {
        s->job.io_seen = io;
        pgs_job_progress(s);
    }
    method_name(s->conf, s->job.method, name, sizeof name);
    if (method_is_custom(name)) {
        limit = STALL_CUSTOM_MS;
    } else if (s->job.tries > 0 && io < 1024 * 1024) {
        limit = STALL_FIRST_MS;
    }
    if (dra_since(dra_now(), s->job.progress_at).ns > dra_ms(limit).ns) {
        log_linef(LOG_LV_ERROR, "pgs.copy", "no byte was copied for %lld s: giving up", (long long)(limit / 1000));
        dra_child_cancel(s->job.child);
    }
    pgs_job_timer(s, dra_ms(WATCH_MS));
}

static void run_ended(struct pgs *s)
{
    char name[128];
    char tail[160];

    dra_timer_stop(s->job.timer);
    if (s->job.rc == 0) {
        s->job.step = STEP_FINISH;
        pgs_job_work(s, work_finish, 0, false, NULL);
        return;
    }
    method_name(s->conf, s->job.method, name, sizeof name);
    pgs_job_output_tail(s, tail, sizeof tail);
    log_linef(LOG_LV_ERROR, "pgs.copy", "Error creating replica using method %s: %s: %s", name, s->job.err.msg, tail);
    {
        struct dra_err err = s->job.err;

        (void)dra_err_set(&s->job.err, err.code != 0 ? err.code : DRA_ECHILD, "%s %s: %s", name, err.msg, tail);
    }
    s->job.step = STEP_CLEAN;
    pgs_job_work(s, work_clean, 0, keeps_data(s), NULL);
}

static void cleaned(struct pgs *s)
{
    char name[128];

    if (s->job.cancelled) {
        pgs_state_set(s, HA_STATE_STOPPED);
        pgs_job_end(s, DRA_ECANCELED, "copy cancelled");
        return;
    }
    method_name(s->conf, s->job.method + 1, name, sizeof name);
    if (name[0] != '\0') {
        s->job.method++;
        ready_method(s);
        return;
    }
    pgs_state_set(s, HA_STATE_STOPPED);
    pgs_read_files(s);
    pgs_job_end(s, s->job.err.code != 0 ? s->job.err.code : DRA_ECHILD, "no copy was made: %s", s->job.err.msg);
}

void pgs_job_copy_ev(struct pgs *s, enum pgs_ev ev)
{
    struct pgs_job *j = &s->job;

    if (ev == PGS_EV_BEGIN) {
        if (s->facts.postmaster != DRA_NO || s->facts.leftovers != DRA_NO) {
            pgs_job_end(s, DRA_ESTATE, "cannot copy: the server is running, or was not looked at yet");
            return;
        }
        ready_method(s);
    } else if (ev == PGS_EV_CANCEL) {
        if (j->step == STEP_RUN && j->child != NULL) {
            j->phase = HA_PHASE_CANCELLING;
            dra_child_cancel(j->child);
        }
    } else if (j->step == STEP_READY && ev == PGS_EV_WORK) {
        run_method(s);
    } else if (j->step == STEP_RUN && ev == PGS_EV_TIMER) {
        watch(s);
    } else if (j->step == STEP_RUN && ev == PGS_EV_CHILD) {
        run_ended(s);
    } else if (j->step == STEP_CLEAN && ev == PGS_EV_WORK) {
        cleaned(s);
    } else if (j->step == STEP_FINISH && ev == PGS_EV_WORK) {
        if (j->rc != 0) {
            pgs_state_set(s, HA_STATE_STOPPED);
            pgs_job_end(s, j->rc, "the copy cannot be finished: %s", j->err.msg);
            return;
        }
        s->facts.upstream_known = false;
        j->step = STEP_READ;
        pgs_read_files(s);
    } else if (j->step == STEP_READ && ev == PGS_EV_FILES) {
        pgs_state_set(s, HA_STATE_STOPPED);
        pgs_job_end(s, DRA_OK, "replica has been created%s", j->aside_made ? ", the old directory is set aside" : "");
    }
}

/* ---- what a copy has replaced; what a failed bootstrap left ------------------------------------------------ */

static int work_drop_aside(struct pgs_jobwork *w, struct dra_err *err)
{
    const char *slash = strrchr(w->conf->data_dir, '/');
    char parent[PGS_PATH_MAX];
    char prefix[300];
    const struct dirent *e;
    int rc = DRA_OK;
    DIR *d;

    if (slash == NULL || dra_str_copy_n(parent, sizeof parent, w->conf->data_dir, slash == w->conf->data_dir ? 1 : (size_t)(slash - w->conf->data_dir)) != 0 ||
        dra_str_printf(prefix, sizeof prefix, "%s" ASIDE, slash + 1) != 0) {
        return dra_err_set(err, DRA_ETOOLONG, "data directory");
    }
    d = opendir(parent);
    if (d == NULL) {
        return dra_err_sys(err, errno, "cannot open \"%s\"", parent);
    }
    while (rc == DRA_OK && (e = readdir(d)) != NULL) {
        char path[PGS_PATH_MAX * 2];
        size_t n = strlen(prefix);

        if (!dra_str_starts(e->d_name, prefix) || e->d_name[n] == '\0' ||
            e->d_name[n + strspn(e->d_name + n, "0123456789")] != '\0') {
            continue;
        }
        rc = dra_str_printf(path, sizeof path, "%s/%s", parent, e->d_name);
        if (rc == DRA_OK) {
            log_linef(LOG_LV_INFO, "pgs.aside", "removing %s", path);
            rc = pgs_dir_remove_aside(path, e->d_name + n - strlen(ASIDE), err);
        }
    }
    closedir(d);
    return rc;
}

static int work_set_failed(struct pgs_jobwork *w, struct dra_err *err)
{
    char failed[PGS_PATH_MAX + 16];
    int rc;

    if (!dra_file_exists(w->conf->data_dir)) {
        return DRA_OK;
    }
    if (dra_str_printf(failed, sizeof failed, "%s.failed", w->conf->data_dir) != 0) {
        return dra_err_set(err, DRA_ETOOLONG, "data directory");
    }
    rc = pgs_dir_remove_aside(failed, ".failed", err);
    if (rc == 0) {
        rc = pgs_dir_set_aside(w->conf->data_dir, ".failed", err);
    }
    return rc == 0 ? pgs_marker_remove(w->state_dir, err) : rc;
}

void pgs_job_aside_ev(struct pgs *s, enum pgs_ev ev)
{
    bool drop = s->job.spec.kind == HA_JOB_DROP_ASIDE;

    if (ev == PGS_EV_BEGIN) {
        if (!drop && (s->facts.postmaster == DRA_YES || s->facts.leftovers == DRA_YES)) {
            pgs_job_end(s, DRA_ESTATE, "cannot set the data directory aside: the server is running");
            return;
        }
        s->job.step = STEP_RUN;
        pgs_job_work(s, drop ? work_drop_aside : work_set_failed, 0, false, NULL);
    } else if (ev == PGS_EV_WORK && s->job.step == STEP_RUN) {
        if (s->job.rc != 0) {
            pgs_job_end(s, s->job.rc, "%s", s->job.err.msg);
            return;
        }
        s->job.step = STEP_READ;
        pgs_read_files(s);
    } else if (ev == PGS_EV_FILES && s->job.step == STEP_READ) {
        pgs_job_end(s, DRA_OK, drop ? "removed the old copies" : "set the data directory aside");
    }
}
