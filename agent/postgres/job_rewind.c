/*
 * job_rewind.c - pg_rewind against a member, and crash recovery in a single-user server (HA-144, HA-146).
 *
 * The marker is on disk before pg_rewind is run and is removed when it has succeeded, or has failed before it began to
 * write.  standby.signal is put back at once, whatever the outcome (WIN-09).
 * Threads: loop, except the functions of pgs_work_fn's shape.
 */
#include "pgs_int.h"
#include "proc.h"

#include <stdio.h>
#include <string.h>

#define WATCH_MS 1000
#define STALL_MS 60000
#define SINGLE_STALL_MS 600000
#define CONNECT_TIMEOUT_S 10

enum step {
    STEP_FIRST = 0,
    STEP_READY,  /* marker and password file; or signal files away */
    STEP_RUN,
    STEP_FINISH, /* signal file, marker */
    STEP_READ,
};

/* ---- worker ------------------------------------------------------------------------------------------- */

static int work_ready(struct pgs_jobwork *w, struct dra_err *err)
{
    char host[HA_URL_MAX] = "";
    int port = 0;
    int rc = pgs_marker_begin(w->state_dir, w->conf->data_dir, "pg_rewind", err);

    if (rc == 0 && ha_url_host_port(w->conn_url, host, sizeof host, &port)) {
        rc = pgs_pgpass_write(w->conf, host, port, err);
    }
    return rc;
}

enum verdict { VERDICT_UNTRUSTED = 0, VERDICT_REWOUND, VERDICT_UNTOUCHED };

static int work_finish(struct pgs_jobwork *w, struct dra_err *err)
{
    int rc = DRA_OK;

    if (w->n == VERDICT_UNTRUSTED) {
        return DRA_OK; /* the marker stays: nobody may trust this directory */
    }
    if (w->n == VERDICT_REWOUND) {
        rc = pgs_signal_write(w->conf->data_dir, err);
    }
    return rc == 0 ? pgs_marker_remove(w->state_dir, err) : rc;
}

static int work_signals_away(struct pgs_jobwork *w, struct dra_err *err)
{
    return pgs_signal_remove(w->conf->data_dir, err);
}

static int work_signals_back(struct pgs_jobwork *w, struct dra_err *err)
{
    return pgs_signal_write(w->conf->data_dir, err);
}

/* ---- common ----------------------------------------------------------------------------------------------- */

static bool is_down(struct pgs *s, const char *what)
{
    if (s->facts.postmaster != DRA_NO || s->facts.leftovers != DRA_NO) {
        pgs_job_end(s, DRA_ESTATE, "%s: the server is running, or was not looked at yet", what);
        return false;
    }
    return true;
}

static void watch(struct pgs *s, int64_t limit_ms)
{
    uint64_t io;

    if (s->job.child == NULL) {
        return;
    }
    io = pgs_session_written(dra_child_pid(s->job.child));
    if (io != s->job.io_seen) {
        s->job.io_seen = io;
        pgs_job_progress(s);
    }
    if (dra_since(dra_now(), s->job.progress_at).ns > dra_ms(limit_ms).ns) {
        log_linef(LOG_LV_ERROR, "pgs.stall", "%s makes no progress: giving up", ha_job_to_str(s->job.spec.kind));
        dra_child_cancel(s->job.child);
    }
    pgs_job_timer(s, dra_ms(WATCH_MS));
}

static void run(struct pgs *s, struct pgs_argv *argv)
{
    struct pgs_env env;

    pgs_env_tool(s->conf, "-c statement_timeout=0", &env);
    s->job.step = STEP_RUN;
    s->job.io_seen = 0;
    pgs_job_progress(s);
    pgs_job_timer(s, dra_ms(WATCH_MS));
    pgs_job_child(s, argv, env.v, (struct dra_instant){0});
}

/* ---- pg_rewind -------------------------------------------------------------------------------------------------- */

static int rewind_argv(struct pgs *s, struct pgs_argv *argv, struct dra_err *err)
{
    static const char *const forbidden[] = {"target-pgdata", "source-pgdata", "source-server", "write-recovery-conf", "dry-run",
                                            "restore-target-wal", "config-file", "no-ensure-shutdown", "version", "help",
                                            "progress", NULL};
    const struct pgs_conf *c = s->conf;
    char host[HA_URL_MAX];
    char text[16];
    struct pgs_conninfo ci = {.user = &c->rewind,
                              .dbname = c->database,
                              .host = host,
                              .krbsrvname = c->krbsrvname,
                              .target_session_attrs = "read-write", /* only against a primary (SAFE-13) */
                              .connect_timeout_s = CONNECT_TIMEOUT_S};
    bool restore = pgs_conf_text(json_find(c->pg, "recovery_conf.restore_command"), text, sizeof text) ||
                   json_type_of(json_find(c->pg, "recovery_conf.restore_command")) == JSON_STRING;
    struct dra_buf dsn;
    int rc;

    if (!ha_url_host_port(s->job.conn_url, host, sizeof host, &ci.port)) {
        return dra_err_set(err, DRA_EINVAL, "no address of member \"%s\"", s->job.spec.member);
    }
    dra_buf_init(&dsn, 4096);
    pgs_conninfo_build(&ci, &dsn);
    pgs_argv_add(argv, c->tool[PGS_TOOL_REWIND]);
    pgs_argv_add(argv, "--progress"); /* tells when it begins to write */
    if (restore && (s->facts.major >= 15 || strcmp(c->config_dir, c->data_dir) == 0) && s->facts.major >= 13) {
        pgs_argv_add(argv, "--restore-target-wal");
    }
    if (s->facts.major >= 15) {
        pgs_argv_addf(argv, "--config-file=%s/%s.conf", c->config_dir, c->base_name);
    }
    pgs_argv_addf(argv, "--target-pgdata=%s", c->data_dir);
    pgs_argv_addf(argv, "--source-server=%s", dra_buf_str(&dsn));
    rc = pgs_conf_options(json_get(c->pg, "rewind"), forbidden, false, argv, err);
    dra_buf_deinit(&dsn);
    return rc;
}

static void rewind_run(struct pgs *s)
{
    struct pgs_argv argv;
    struct dra_err err = {0};

    if (s->job.rc != 0) {
        pgs_job_end(s, s->job.rc, "pg_rewind: %s", s->job.err.msg);
        return;
    }
    pgs_argv_init(&argv);
    if (rewind_argv(s, &argv, &err) != 0) {
        s->job.rc = err.code;
        s->job.err = err;
        s->job.step = STEP_FINISH;
        pgs_job_work(s, work_finish, VERDICT_UNTOUCHED, false, NULL);
    } else {
        run(s, &argv);
    }
    pgs_argv_deinit(&argv);
}

static void rewind_ended(struct pgs *s)
{
    bool ok = s->job.rc == 0;
    char tail[160];

    dra_timer_stop(s->job.timer);
    s->job.tries = ok ? 1 : 0; /* remembered over the finish */
    if (!ok) {
        struct dra_err err = s->job.err;

        pgs_job_output_tail(s, tail, sizeof tail);
        (void)dra_err_set(&s->job.err, err.code != 0 ? err.code : DRA_ECHILD, "%s: %s", err.msg, tail);
        log_linef(LOG_LV_ERROR, "pgs.rewind", "pg_rewind %s", s->job.err.msg);
    }
    s->job.step = STEP_FINISH;
    pgs_job_work(s, work_finish, ok ? VERDICT_REWOUND : (s->job.changed_target ? VERDICT_UNTRUSTED : VERDICT_UNTOUCHED), false,
                 NULL);
}

void pgs_job_rewind_ev(struct pgs *s, enum pgs_ev ev)
{
    struct pgs_job *j = &s->job;

    if (ev == PGS_EV_BEGIN) {
        if (is_down(s, "pg_rewind")) {
            j->step = STEP_READY;
            pgs_job_work(s, work_ready, 0, false, NULL);
        }
    } else if (ev == PGS_EV_CANCEL && j->child != NULL) {
        j->phase = HA_PHASE_CANCELLING;
        dra_child_cancel(j->child);
    } else if (j->step == STEP_READY && ev == PGS_EV_WORK) {
        rewind_run(s);
    } else if (j->step == STEP_RUN && ev == PGS_EV_TIMER) {
        watch(s, STALL_MS);
    } else if (j->step == STEP_RUN && ev == PGS_EV_CHILD) {
        rewind_ended(s);
    } else if (j->step == STEP_FINISH && ev == PGS_EV_WORK) {
        if (j->tries == 1 && j->rc != 0) { /* rewound, but the signal file or the marker could not be written */
            pgs_job_end(s, j->rc, "pg_rewind: %s", j->err.msg);
            return;
        }
        s->facts.upstream_known = false;
        j->step = STEP_READ;
        pgs_read_files(s);
    } else if (j->step == STEP_READ && ev == PGS_EV_FILES) {
        if (j->tries == 1) {
            pgs_job_end(s, DRA_OK, "pg_rewind from %s succeeded", j->spec.member);
        } else {
            pgs_job_end(s, j->cancelled ? DRA_ECANCELED : DRA_ECHILD, "pg_rewind %s", j->err.msg);
        }
    }
}

/* ---- single-user server --------------------------------------------------------------------------------------------- */

static void single_run(struct pgs *s)
{
    const struct pgs_conf *c = s->conf;
    struct pgs_argv argv;

    if (s->job.rc != 0) {
        pgs_job_end(s, s->job.rc, "single-user recovery: %s", s->job.err.msg);
        return;
    }
    pgs_argv_init(&argv);
    pgs_argv_add(&argv, c->tool[PGS_TOOL_POSTGRES]);
    pgs_argv_add(&argv, "--single");
    pgs_argv_add(&argv, "-D");
    pgs_argv_add(&argv, c->data_dir);
    pgs_argv_addf(&argv, "--config-file=%s/%s.conf", c->config_dir, c->base_name);
    pgs_argv_add(&argv, "-c");
    pgs_argv_add(&argv, "archive_mode=on"); /* keep what is not archived yet, archive nothing now */
    pgs_argv_add(&argv, "-c");
    pgs_argv_add(&argv, "archive_command=false");
    pgs_argv_add(&argv, "template1");
    run(s, &argv);
    pgs_argv_deinit(&argv);
}

void pgs_job_single_user_ev(struct pgs *s, enum pgs_ev ev)
{
    struct pgs_job *j = &s->job;
    char tail[160];

    if (ev == PGS_EV_BEGIN) {
        if (is_down(s, "single-user recovery")) {
            j->step = STEP_READY;
            pgs_job_work(s, work_signals_away, 0, false, NULL);
        }
    } else if (ev == PGS_EV_CANCEL && j->child != NULL) {
        j->phase = HA_PHASE_CANCELLING;
        dra_child_cancel(j->child);
    } else if (j->step == STEP_READY && ev == PGS_EV_WORK) {
        single_run(s);
    } else if (j->step == STEP_RUN && ev == PGS_EV_TIMER) {
        watch(s, SINGLE_STALL_MS);
    } else if (j->step == STEP_RUN && ev == PGS_EV_CHILD) {
        dra_timer_stop(j->timer);
        j->tries = j->rc == 0 ? 1 : 0;
        if (j->rc != 0) {
            struct dra_err err = j->err;

            pgs_job_output_tail(s, tail, sizeof tail);
            (void)dra_err_set(&j->err, err.code != 0 ? err.code : DRA_ECHILD, "%s: %s", err.msg, tail);
        }
        j->step = STEP_FINISH;
        pgs_job_work(s, work_signals_back, 0, false, NULL);
    } else if (j->step == STEP_FINISH && ev == PGS_EV_WORK) {
        if (j->rc != 0 && j->tries == 1) {
            pgs_job_end(s, j->rc, "single-user recovery: %s", j->err.msg);
            return;
        }
        j->step = STEP_READ;
        pgs_read_files(s);
    } else if (j->step == STEP_READ && ev == PGS_EV_FILES) {
        if (j->tries == 1) {
            pgs_job_end(s, DRA_OK, "the server was recovered in single-user mode and is shut down");
        } else {
            pgs_job_end(s, j->cancelled ? DRA_ECANCELED : DRA_ECHILD, "single-user recovery %s", j->err.msg);
        }
    }
}
