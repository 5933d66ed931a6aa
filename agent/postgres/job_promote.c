/*
 * job_promote.c - make the standby a primary (HA-90, SAFE-02, SAFE-33).
 *
 * Order: pre_promote script, not_after looked at with a fresh clock, signal, then pg_is_in_recovery() each millisecond
 * until it says no.  Once the signal may have gone out promote_signalled stays set, whatever the answer was, and the
 * job is not cancelled any more.
 * Threads: loop, except work_file.
 */
#include "pgs_int.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#define SCRIPT_LIMIT_MS 3600000
#define ASK_MS 1
#define ASK_SLOW_MS 10
#define ASK_LIMIT_MS 2000
#define SIGNAL_LIMIT_MS 1000
#define AGAIN_MS 2000

enum step {
    STEP_FIRST = 0,
    STEP_SCRIPT, /* pre_promote runs */
    STEP_SQL,    /* SELECT pg_promote(false) is under way */
    STEP_FILE,   /* the trigger file is being written */
    STEP_ASK,    /* signalled: asked whether recovery has ended */
    STEP_PROBE,  /* it has; the probe reads the new timeline */
};

static void signal_server(struct pgs *s);

static bool too_late(const struct pgs *s)
{
    return dra_is_set(s->job.spec.not_after) && dra_reached(dra_now(), s->job.spec.not_after);
}

static int work_file(struct pgs_jobwork *w, struct dra_err *err)
{
    char path[PGS_PATH_MAX + 32];
    int fd;

    if (dra_str_printf(path, sizeof path, "%s/promote", w->conf->data_dir) != 0) {
        return dra_err_set(err, DRA_ETOOLONG, "data directory");
    }
    if (w->flag) { /* take it back */
        (void)unlink(path);
        return DRA_OK;
    }
    fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0) {
        return dra_err_sys(err, errno, "cannot write \"%s\"", path);
    }
    close(fd);
    return DRA_OK;
}

static void begin(struct pgs *s)
{
    char command[2048];
    struct pgs_argv argv;
    struct dra_err err = {0};

    if (s->facts.postmaster != DRA_YES || s->facts.in_recovery != DRA_YES) {
        pgs_job_end(s, DRA_ESTATE, "cannot promote: %s",
                    s->facts.postmaster != DRA_YES ? "the server is not running" : "it is not known to be a standby");
        return;
    }
    if (!pgs_hook_command(s->conf, "pre_promote", command, sizeof command)) {
        signal_server(s);
        return;
    }
    pgs_argv_init(&argv);
    if (pgs_argv_split(&argv, command, &err) != 0) {
        pgs_job_end(s, DRA_EINVAL, "pre_promote: %s", err.msg);
    } else {
        s->job.step = STEP_SCRIPT;
        pgs_job_child(s, &argv, NULL, dra_after(dra_now(), dra_ms(SCRIPT_LIMIT_MS)));
    }
    pgs_argv_deinit(&argv);
}

static void signal_server(struct pgs *s)
{
    struct dra_instant limit = dra_after(dra_now(), dra_ms(SIGNAL_LIMIT_MS));

    if (too_late(s)) {
        pgs_job_end(s, DRA_ESTATE, "not promoted: too late");
        return;
    }
    if (s->job.cancelled) {
        pgs_job_end(s, DRA_ECANCELED, "not promoted: cancelled");
        return;
    }
    if (!pgc_is_connected(s->hb)) {
        s->job.step = STEP_FILE;
        pgs_job_work(s, work_file, 0, false, NULL);
        return;
    }
    s->facts.promote_signalled = true; /* from here on it may happen, whatever the answer says */
    s->job.step = STEP_SQL;
    pgs_job_sql(s, true, "SELECT pg_promote(false)", dra_earlier(limit, s->job.spec.not_after));
}

static void ask(struct pgs *s)
{
    pgs_job_sql(s, true, "SELECT pg_is_in_recovery()", dra_after(dra_now(), dra_ms(ASK_LIMIT_MS)));
}

static void file_written(struct pgs *s)
{
    struct dra_err err = {0};

    if (s->job.rc != 0) {
        pgs_job_end(s, s->job.rc, "not promoted: %s", s->job.err.msg);
        return;
    }
    if (too_late(s) || (s->job.cancelled && !s->facts.promote_signalled)) {
        s->job.deadline = dra_now();
        pgs_job_work(s, work_file, 0, true, NULL);
        return;
    }
    s->facts.promote_signalled = true;
    if (dra_proc_signal(&s->pm, SIGUSR1, &err) != 0) {
        pgs_job_end(s, err.code, "not promoted: %s", err.msg);
        return;
    }
    s->job.step = STEP_ASK;
    pgs_job_progress(s);
    ask(s);
}

static void sql_answered(struct pgs *s)
{
    if (s->job.rc == DRA_ESQL || (s->job.rc == DRA_OK && strcmp(s->job.answer, "f") == 0)) {
        pgs_job_end(s, DRA_ESQL, "pg_promote failed: %s", s->job.rc == DRA_OK ? "it returned false" : s->job.err.msg);
        return;
    }
    if (s->job.rc != DRA_OK && !dra_is_set(s->job.sql_sent_at)) {
        s->facts.promote_signalled = false; /* it never went out */
        s->job.step = STEP_FILE;
        pgs_job_work(s, work_file, 0, false, NULL);
        return;
    }
    /* No answer says nothing: the server may have taken it.  Ask the server what it is. */
    s->job.step = STEP_ASK;
    pgs_job_progress(s);
    if (s->job.rc == DRA_OK) {
        ask(s);
    } else {
        pgs_job_timer(s, dra_ms(ASK_SLOW_MS));
    }
}

static void asked(struct pgs *s)
{
    if (s->job.rc == DRA_OK && strcmp(s->job.answer, "f") == 0) {
        s->facts.in_recovery = DRA_NO;
        s->facts.replication_state = HA_REPL_NONE;
        s->facts.standby_signal = false;
        s->facts.upstream_known = true;
        s->facts.upstream[0] = '\0';
        s->facts.upstream_conn_url[0] = '\0';
        s->job.step = STEP_PROBE; /* one question more: the new timeline and the position */
        pgs_probe_internal(s, dra_after(dra_now(), dra_ms(ASK_LIMIT_MS)), true);
        return;
    }
    if (dra_since(dra_now(), s->job.progress_at).ns > dra_ms(AGAIN_MS).ns && !too_late(s)) {
        /* Much to replay, or the request was lost with its connection: asking twice does no harm. */
        pgs_job_progress(s);
        s->job.step = STEP_FILE;
        pgs_job_work(s, work_file, 0, false, NULL);
        return;
    }
    pgs_job_timer(s, dra_ms(s->job.rc == DRA_OK ? ASK_MS : ASK_SLOW_MS));
}

void pgs_job_promote_ev(struct pgs *s, enum pgs_ev ev)
{
    struct pgs_job *j = &s->job;

    if (ev == PGS_EV_BEGIN) {
        begin(s);
    } else if (ev == PGS_EV_EXIT && j->step != STEP_SCRIPT) {
        pgs_job_end(s, DRA_ECHILD, "the server has ended during the promotion");
    } else if (ev == PGS_EV_CANCEL && j->step == STEP_SCRIPT) {
        if (j->child != NULL) {
            dra_child_cancel(j->child); /* nothing was signalled yet */
        }
    } else if (j->step == STEP_SCRIPT && ev == PGS_EV_CHILD) {
        char tail[128];

        pgs_job_output_tail(s, tail, sizeof tail);
        if (j->rc != 0) {
            pgs_job_end(s, j->rc, "pre_promote %s %s", j->err.msg, tail);
        } else if (s->facts.postmaster != DRA_YES) {
            pgs_job_end(s, DRA_ECHILD, "the server has ended during pre_promote");
        } else {
            signal_server(s);
        }
    } else if (j->step == STEP_SQL && ev == PGS_EV_SQL) {
        sql_answered(s);
    } else if (j->step == STEP_FILE && ev == PGS_EV_WORK) {
        if (dra_is_set(j->deadline)) {
            pgs_job_end(s, s->job.cancelled ? DRA_ECANCELED : DRA_ESTATE, "not promoted: %s",
                        s->job.cancelled ? "cancelled" : "too late");
        } else {
            file_written(s);
        }
    } else if (j->step == STEP_ASK && ev == PGS_EV_SQL) {
        asked(s);
    } else if (j->step == STEP_ASK && ev == PGS_EV_TIMER) {
        ask(s);
    } else if (j->step == STEP_PROBE && ev == PGS_EV_PROBE) {
        pgs_job_end(s, DRA_OK, "promoted");
        pgs_read_files(s); /* the new history file */
    }
}
