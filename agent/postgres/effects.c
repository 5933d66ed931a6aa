/*
 * effects.c - what changes the running server without a job: follow, reload, checkpoint; and what a reload could not
 * apply (HA-222, CFG-76).
 *
 * Threads: loop.
 */
#include "pgs_int.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>

#define PENDING_LIMIT_MS 5000
#define PENDING_AFTER_MS 1000

struct effect {
    struct pgs *s;
    struct pgs_confwrite *cw;
    bool follow;
    char member[HA_NAME_MAX];
    char conn_url[HA_URL_MAX];
    pgs_cb cb;
    void *arg;
};

static int effect_run(void *arg, struct dra_err *err);
static void on_effect(int rc, const struct dra_err *err, void *arg);

/* ---- follow, reload ------------------------------------------------------------------------------------- */

static int effect_start(struct pgs *s, struct effect *e, struct dra_err *err)
{
    if (e->cw == NULL || dra_fworker_start(s->files, effect_run, on_effect, e) != 0) {
        pgs_confwrite_free(e->cw);
        free(e);
        return dra_err_set(err, DRA_ENOMEM, "file worker");
    }
    pgs_ref(s);
    return DRA_OK;
}

static struct effect *effect_new(struct pgs *s, pgs_cb cb, void *arg)
{
    struct effect *e = calloc(1, sizeof *e);

    if (e != NULL) {
        e->s = s;
        e->cb = cb;
        e->arg = arg;
    }
    return e;
}

int pgs_follow(struct pgs *s, const char *member, const char *conn_url, pgs_cb cb, void *arg, struct dra_err *err)
{
    struct effect *e;

    if (s->closing || s->facts.datadir != HA_DATADIR_VALID) {
        return dra_err_set(err, DRA_ESTATE, "no data directory to configure");
    }
    if (s->facts.postmaster == DRA_YES && (s->facts.in_recovery == DRA_NO || s->facts.promote_signalled)) {
        return dra_err_set(err, DRA_ESTATE, "a primary follows nobody");
    }
    if (s->facts.major < 13 && s->facts.postmaster == DRA_YES) {
        return dra_err_set(err, DRA_ESTATE, "PostgreSQL %d takes a new upstream only by a restart", s->facts.major);
    }
    e = effect_new(s, cb, arg);
    if (e == NULL || dra_str_copy(e->member, sizeof e->member, member) != 0 ||
        dra_str_copy(e->conn_url, sizeof e->conn_url, conn_url) != 0) {
        free(e);
        return dra_err_set(err, DRA_ENOMEM, "follow");
    }
    e->follow = true;
    e->cw = pgs_confwrite_new(s, HA_ROLE_REPLICA, conn_url);
    return effect_start(s, e, err);
}

int pgs_reload(struct pgs *s, pgs_cb cb, void *arg, struct dra_err *err)
{
    bool standby = s->facts.in_recovery == DRA_YES || (s->facts.in_recovery == DRA_UNKNOWN && s->facts.standby_signal);
    struct effect *e;

    if (s->closing || s->facts.datadir != HA_DATADIR_VALID) {
        return dra_err_set(err, DRA_ESTATE, "no data directory to configure");
    }
    e = effect_new(s, cb, arg);
    if (e == NULL) {
        return dra_err_set(err, DRA_ENOMEM, "reload");
    }
    e->cw = pgs_confwrite_new(s, standby ? HA_ROLE_REPLICA : HA_ROLE_PRIMARY, standby ? s->facts.upstream_conn_url : "");
    if (e->cw != NULL) {
        e->cw->keep_upstream = standby && !s->facts.upstream_known;
    }
    return effect_start(s, e, err);
}

static int effect_run(void *arg, struct dra_err *err)
{
    struct effect *e = arg;

    return pgs_confwrite_run(e->cw, err);
}

static void on_effect(int rc, const struct dra_err *err, void *arg)
{
    struct effect *e = arg;
    struct pgs *s = e->s;
    struct dra_err why = {0};

    if (rc != 0 && err != NULL) {
        why = *err;
    }
    if (!s->closing) {
        if (rc == 0) {
            pgs_confwrite_tell(s, e->cw);
            if (s->pm.pid != 0) {
                rc = dra_proc_signal(&s->pm, SIGHUP, &why);
                pgs_pending_check(s, dra_ms(PENDING_AFTER_MS));
            }
        }
        if (rc == 0 && e->follow) {
            s->facts.upstream_known = true;
            dra_str_clip(s->facts.upstream, sizeof s->facts.upstream, e->member);
            dra_str_clip(s->facts.upstream_conn_url, sizeof s->facts.upstream_conn_url, e->conn_url);
        }
        e->cb(rc, rc != 0 ? &why : NULL, e->arg);
        if (rc == 0 && e->follow) {
            pgs_changed(s);
        }
    }
    pgs_confwrite_free(e->cw);
    free(e);
    pgs_unref(s);
}

/* ---- checkpoint ---------------------------------------------------------------------------------------------- */

static void on_checkpoint(const struct pgc_result *r, void *arg)
{
    struct effect *e = arg;
    struct pgs *s = e->s;

    if (!s->closing) {
        e->cb(r->err_code, r->err_code != 0 ? &r->err : NULL, e->arg);
        if (r->err_code == 0) {
            pgs_read_files(s);
        }
    }
    free(e);
    pgs_unref(s);
}

int pgs_checkpoint(struct pgs *s, struct dra_instant not_after, pgs_cb cb, void *arg, struct dra_err *err)
{
    struct effect *e;

    if (s->closing || s->pm.pid == 0) {
        return dra_err_set(err, DRA_ESTATE, "the server is not running");
    }
    e = effect_new(s, cb, arg);
    if (e == NULL || pgc_query_start(s->work, NULL, "CHECKPOINT", not_after, on_checkpoint, e, NULL) != 0) {
        free(e);
        return dra_err_set(err, DRA_ENOMEM, "checkpoint");
    }
    pgs_ref(s);
    return DRA_OK;
}

/* ---- pending restart -------------------------------------------------------------------------------------------- */

void pgs_pending_publish(struct pgs *s, struct json *pending)
{
    json_free(s->pending);
    s->pending = pending;
    if (s->raised != NULL) { /* HA-223: these wait for a restart with other values, too */
        if (s->pending == NULL) {
            s->pending = json_new_object();
        }
        if (s->pending == NULL || json_merge_patch(&s->pending, s->raised, NULL) != 0) {
            log_linef(LOG_LV_ERROR, "pgs.pending", "out of memory");
        }
    }
    if (s->pending != NULL && json_size(s->pending) == 0) {
        json_free(s->pending);
        s->pending = NULL;
    }
    s->view.pending_restart_reason = s->pending;
}

static void reason_add(struct json *obj, const char *name, const char *old_value, const char *new_value)
{
    struct json *r = json_new_object();

    if (r == NULL || json_set(r, "old_value", json_new_str(old_value)) != 0 || json_set(r, "new_value", json_new_str(new_value)) != 0) {
        json_free(r);
        return;
    }
    if (json_set(obj, name, r) != 0) {
        return; /* out of memory (r is freed): one hint less */
    }
}

/* Lines "name wanted used". */
void pgs_raised_set(struct pgs *s, const char *lines)
{
    json_free(s->raised);
    s->raised = NULL;
    while (*lines != '\0') {
        size_t len = strcspn(lines, "\n");
        char line[256];
        char *wanted;
        char *used;

        if (dra_str_copy_n(line, sizeof line, lines, len) == 0 && (wanted = strchr(line, ' ')) != NULL &&
            (used = strchr(wanted + 1, ' ')) != NULL) {
            *wanted = '\0';
            *used = '\0';
            if (s->raised == NULL) {
                s->raised = json_new_object();
            }
            if (s->raised != NULL) {
                reason_add(s->raised, line, used + 1, wanted + 1);
            }
        }
        lines += len + (lines[len] == '\n');
    }
}

static void on_pending(const struct pgc_result *r, void *arg)
{
    struct pgs *s = arg;

    if (!s->closing && r->err_code == DRA_OK) {
        struct json *obj = json_new_object();
        struct pgs_settings *params = calloc(1, sizeof *params);
        struct pgs_conffile f = {.conf = s->conf,
                                 .major = s->facts.major,
                                 .role = s->facts.in_recovery == DRA_NO ? HA_ROLE_PRIMARY : HA_ROLE_REPLICA,
                                 .control = s->control_valid ? &s->control : NULL};
        struct dra_buf sink;
        bool have;

        dra_buf_init(&sink, 64 * 1024);
        have = params != NULL && pgs_settings_build(&f, params, &sink, &sink, NULL) == 0;
        for (int i = 0; obj != NULL && i < r->rows; i++) {
            const char *name = r->get(r, i, 0);
            const char *now = r->get(r, i, 1);
            const char *file = r->get(r, i, 2);
            const char *pending = r->get(r, i, 3);
            const char *wanted = have && name != NULL ? pgs_settings_get(params, name) : NULL;

            if (name == NULL || now == NULL || strcmp(name, "hot_standby") == 0 || pgs_is_recovery_parameter(name)) {
                continue;
            }
            if (pending != NULL && pending[0] == 't') {
                reason_add(obj, name, now, file != NULL ? file : "?");
            } else if (wanted != NULL && strcmp(now, wanted) != 0) {
                /* The command line hides the file, so that pg_settings shows nothing pending for these. */
                reason_add(obj, name, now, wanted);
            }
        }
        if (params != NULL) {
            pgs_settings_deinit(params);
            free(params);
        }
        dra_buf_deinit(&sink);
        pgs_pending_publish(s, obj);
        pgs_changed(s);
    }
    pgs_unref(s);
}

static void on_pending_timer(void *arg)
{
    static const char sql[] =
        "SELECT s.name, current_setting(s.name), f.setting, s.pending_restart FROM pg_settings s LEFT JOIN (SELECT DISTINCT ON (name)"
        " name, setting FROM pg_file_settings ORDER BY name, seqno DESC) f ON f.name = s.name WHERE s.pending_restart OR s.name IN"
        " ('wal_level','max_connections','max_wal_senders','max_prepared_transactions','max_locks_per_transaction',"
        "'track_commit_timestamp','max_replication_slots','max_worker_processes','wal_log_hints','port','listen_addresses')";
    struct pgs *s = arg;

    if (s->closing || s->pm.pid == 0) {
        return;
    }
    pgs_ref(s);
    if (pgc_query_start(s->work, "dra_pending", sql, dra_after(dra_now(), dra_ms(PENDING_LIMIT_MS)), on_pending, s, NULL) != 0) {
        pgs_unref(s);
    }
}

void pgs_pending_check(struct pgs *s, struct dra_span after)
{
    if (s->pending_timer == NULL && dra_timer_open(s->loop, on_pending_timer, s, &s->pending_timer) != 0) {
        return;
    }
    dra_timer_set(s->pending_timer, dra_after(dra_now(), after));
}
