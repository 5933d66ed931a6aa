/*
 * job_start.c - start the server as a primary or as a standby (HA-136, HA-224, SAFE-04, SAFE-33).
 *
 * Order for a primary: files, fork, the runtime registers the waiting child with the guard, GO, signal files removed,
 * exec.  For a standby: files with standby.signal last and durable, fork, exec.
 * It ends well when the server accepts connections, or when it is still starting after its time (with no time of its
 * own given); it fails at once when the postmaster ends (HA-58).
 * Threads: loop, except the functions of pgs_work_fn's shape.
 */
#include "pgs_int.h"
#include "proc.h"
#include "spawn.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define LOG_NAME "postgres.log"
#define LOG_BIG (64 * 1024 * 1024)
#define LOG_TAIL 2000
#define GO_LIMIT_MS 30000
#define PROBE_LIMIT_MS 2000
#define CANCEL_MS 5000

enum step {
    STEP_FIRST = 0,
    STEP_PREPARE,   /* files are being written */
    STEP_FORKED,    /* primary: waiting for the guard */
    STEP_SIGNALS,   /* primary: signal files are being removed */
    STEP_ACCEPT,    /* exec'ed; asked until it accepts */
    STEP_TAIL,      /* ended: the log's tail is being read */
    STEP_COPIES,    /* accepting: copies of the files are being made */
    STEP_CANCEL,    /* withdrawn: being ended */
};

static bool is_primary_job(const struct pgs *s)
{
    return s->job.spec.kind == HA_JOB_START_PRIMARY;
}

/* ---- worker ------------------------------------------------------------------------------------------- */

static int work_prepare(struct pgs_jobwork *w, struct dra_err *err)
{
    char path[PGS_PATH_MAX + 32];
    struct stat sb;
    struct pgs_scan found;
    int rc;

    pgs_scan_run(w->conf, &found); /* somebody may have been faster */
    if (found.found || found.leftovers > 0) {
        return dra_err_set(err, DRA_ESTATE, found.found ? "the server is running" : "processes of the server are left");
    }
    rc = pgs_confwrite_run(w->cw, err);
    if (rc != 0) {
        return rc;
    }
    if (dra_str_printf(path, sizeof path, "%s/" LOG_NAME, w->state_dir) != 0) {
        return dra_err_set(err, DRA_ETOOLONG, "state directory");
    }
    rc = dra_file_mkdirs(w->state_dir, 0700, err);
    if (rc != 0) {
        return rc;
    }
    w->fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (w->fd < 0) {
        return dra_err_sys(err, errno, "cannot open \"%s\"", path);
    }
    if (fstat(w->fd, &sb) == 0 && sb.st_size > LOG_BIG && ftruncate(w->fd, 0) == 0) {
        sb.st_size = 0;
    }
    w->log_from = sb.st_size;
    return DRA_OK;
}

static int work_signals(struct pgs_jobwork *w, struct dra_err *err)
{
    return pgs_signal_remove(w->conf->data_dir, err);
}

/* What the server said since this start, its last lines. */
static int work_tail(struct pgs_jobwork *w, struct dra_err *err)
{
    char path[PGS_PATH_MAX + 32];
    char buf[LOG_TAIL + 1];
    struct stat sb;
    off_t from = w->log_from;
    ssize_t n = 0;
    int fd;

    (void)err;
    if (dra_str_printf(path, sizeof path, "%s/" LOG_NAME, w->state_dir) != 0) {
        return DRA_OK;
    }
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return DRA_OK;
    }
    if (fstat(fd, &sb) == 0 && sb.st_size - from > LOG_TAIL) {
        from = sb.st_size - LOG_TAIL;
    }
    n = pread(fd, buf, LOG_TAIL, from);
    close(fd);
    if (n > 0) {
        dra_buf_add(&w->text, buf, (size_t)n);
    }
    return DRA_OK;
}

static int work_copies(struct pgs_jobwork *w, struct dra_err *err)
{
    return pgs_backup_files(w->conf, err);
}

/* ---- steps --------------------------------------------------------------------------------------------------- */

static void begin(struct pgs *s)
{
    struct pgs_confwrite *cw;
    bool primary = is_primary_job(s);

    if (s->facts.postmaster != DRA_NO || s->facts.leftovers != DRA_NO) {
        pgs_job_end(s, DRA_ESTATE, "cannot start: %s", s->facts.postmaster == DRA_YES   ? "the server is running"
                                                       : s->facts.postmaster == DRA_NO ? "processes of the server are left"
                                                                                       : "the processes were not looked at yet");
        return;
    }
    if (s->facts.datadir != HA_DATADIR_VALID || s->facts.major == 0) {
        pgs_job_end(s, DRA_ESTATE, "cannot start: the data directory is %s", ha_datadir_to_str(s->facts.datadir));
        return;
    }
    if (s->facts.major < 12) {
        pgs_job_end(s, DRA_ESTATE, "cannot start: PostgreSQL %d is not supported, 12 and later are", s->facts.major);
        return;
    }
    if (s->gucs == NULL) {
        pgs_gucs_load(s); /* for the next time; this start goes without the filter */
    }
    cw = pgs_confwrite_new(s, primary ? HA_ROLE_PRIMARY : HA_ROLE_REPLICA, primary ? "" : s->job.conn_url);
    if (cw == NULL) {
        pgs_job_end(s, DRA_ENOMEM, "out of memory");
        return;
    }
    cw->standby_signal = !primary;
    cw->make_dirs = true;
    pgs_state_set(s, HA_STATE_STARTING);
    s->job.step = STEP_PREPARE;
    pgs_job_work(s, work_prepare, 0, false, cw);
}

static void fork_child(struct pgs *s)
{
    struct pgs_spawn sp = {.argv = &s->job.command, .log_fd = s->job.log_fd, .krbsrvname = s->conf->krbsrvname};
    struct pgs_stat st;
    struct dra_err err = {0};

    if (s->job.rc != 0) {
        pgs_state_set(s, HA_STATE_START_FAILED);
        pgs_read_files(s);
        pgs_job_end(s, s->job.rc, "cannot start: %s", s->job.err.msg);
        return;
    }
    /* A stale pid file may name a foreign process, or our dead postmaster that nobody has reaped yet (HA-224). */
    if (s->pidfile_pid > 0 && pgs_stat_read(s->pidfile_pid, &st)) {
        sp.grandparent = s->pidfile_pid;
    }
    if (pgs_spawn(&sp, &s->job.forked, &s->job.go_fd, &err) != 0) {
        pgs_state_set(s, HA_STATE_START_FAILED);
        pgs_job_end(s, err.code, "cannot start: %s", err.msg);
        return;
    }
    close(s->job.log_fd);
    s->job.log_fd = -1;
    s->job.step = STEP_FORKED;
    if (is_primary_job(s)) {
        s->job.phase = HA_PHASE_FORKED;
        pgs_job_timer(s, dra_ms(GO_LIMIT_MS));
        s->ev.forked(s->job.forked, s->arg);
        return;
    }
    pgs_job_ev(s, PGS_EV_GO);
}

void pgs_job_abandon(struct pgs *s)
{
    close(s->job.go_fd);
    s->job.go_fd = -1;
    /* It would end by itself at the pipe's end, unless somebody stopped it: a killed one can be waited for. */
    (void)kill(s->job.forked.pid, SIGKILL);
    (void)waitpid(s->job.forked.pid, NULL, 0);
}

/* The waiting child ends; nothing has happened. */
static void withdraw(struct pgs *s, int code, const char *why)
{
    pgs_job_abandon(s);
    pgs_state_set(s, HA_STATE_STOPPED);
    pgs_job_end(s, code, "not started: %s", why);
}

static void release_child(struct pgs *s)
{
    bool primary = is_primary_job(s);
    ssize_t n;

    if (primary && s->job.rc != 0) {
        withdraw(s, s->job.rc, s->job.err.msg);
        return;
    }
    if (s->job.cancelled) {
        withdraw(s, DRA_ECANCELED, "cancelled");
        return;
    }
    if (dra_is_set(s->job.spec.not_after) && dra_reached(dra_now(), s->job.spec.not_after)) {
        withdraw(s, DRA_ESTATE, "too late");
        return;
    }
    s->facts.standby_signal = !primary;
    pgs_postmaster_adopt(s, s->job.forked, true);
    if (s->pm.pid == 0) {
        withdraw(s, DRA_ECHILD, "the forked process has ended");
        return;
    }
    s->facts.started_as_standby = !primary;
    if (primary) {
        s->facts.upstream_known = true;
        s->facts.upstream[0] = '\0';
        s->facts.upstream_conn_url[0] = '\0';
    } else {
        s->facts.upstream_known = true;
        dra_str_clip(s->facts.upstream, sizeof s->facts.upstream, s->job.spec.member);
        dra_str_clip(s->facts.upstream_conn_url, sizeof s->facts.upstream_conn_url, s->job.conn_url);
    }
    pgs_pending_publish(s, NULL);
    do {
        n = write(s->job.go_fd, "g", 1);
    } while (n < 0 && errno == EINTR);
    close(s->job.go_fd);
    s->job.go_fd = -1;
    s->job.phase = HA_PHASE_RUNNING;
    s->job.step = STEP_ACCEPT;
    s->job.deadline = dra_after(dra_now(), s->job.spec.timeout.ns > 0 ? s->job.spec.timeout : s->conf->start_timeout);
    pgs_job_progress(s);
    pgs_job_timer(s, dra_ms(20)); /* it needs longer than that to listen */
    pgs_changed(s);
}

static struct dra_span pause_of(const struct pgs *s)
{
    int64_t ms = dra_span_ms(dra_since(dra_now(), s->job.progress_at));

    /* Each attempt costs the server a fork: often at first, when it is about to be ready. */
    return dra_ms(ms < 1000 ? 3 : (ms < 10000 ? 20 : 100));
}

static void accept_probed(struct pgs *s)
{
    if (s->facts.accepting == DRA_YES) {
        dra_timer_stop(s->job.timer);
        pgs_state_set(s, HA_STATE_RUNNING);
        s->job.step = STEP_COPIES;
        pgs_job_work(s, work_copies, 0, false, NULL);
        return;
    }
    if (dra_reached(dra_now(), s->job.deadline)) {
        if (s->job.spec.timeout.ns > 0) {
            pgs_job_end(s, DRA_ETIMEDOUT, "the server does not accept connections yet");
        } else {
            pgs_job_end(s, DRA_OK, "the server is still starting");
        }
        return;
    }
    pgs_job_timer(s, pause_of(s));
}

/* What the last lines of the log say, without their prefixes, as many as fit. */
static void reason_of(const char *log, char *out, size_t out_size)
{
    static const char *const marks[] = {"LOG:  ", "WARNING:  ", "ERROR:  ", "FATAL:  ", "PANIC:  ", "DETAIL:  ", "HINT:  "};
    static const char *const boring[] = {"starting PostgreSQL", "listening on", "database system is shut down",
                                         "database system was shut down", "redirecting log", "configuration file \""};
    const char *end = log + strlen(log);

    out[0] = '\0';
    while (end > log) {
        const char *line = end;
        char text[512];
        char joined[1024];
        bool skip = false;

        while (line > log && line[-1] != '\n') {
            line--;
        }
        text[0] = '\0';
        for (size_t i = 0; i < DRA_ARRAY_LEN(marks); i++) {
            const char *at = memmem(line, (size_t)(end - line), marks[i], strlen(marks[i]));

            if (at != NULL && dra_str_copy_n(text, sizeof text, at + strlen(marks[i]), (size_t)(end - at) - strlen(marks[i])) != 0) {
                text[0] = '\0';
            }
        }
        for (size_t i = 0; i < DRA_ARRAY_LEN(boring); i++) {
            skip = skip || dra_str_starts(text, boring[i]);
        }
        if (text[0] != '\0' && !skip) {
            if (dra_str_printf(joined, sizeof joined, "%s%s%s", text, out[0] != '\0' ? "; " : "", out) != 0 ||
                strlen(joined) >= out_size) {
                return;
            }
            dra_str_clip(out, out_size, joined);
        }
        end = line > log ? line - 1 : log;
    }
}

static void ended(struct pgs *s)
{
    char tail[200];

    reason_of(dra_buf_str(&s->job.output), tail, sizeof tail);
    if (tail[0] == '\0') {
        pgs_job_output_tail(s, tail, sizeof tail);
    }
    if (s->job.cancelled) {
        pgs_state_set(s, HA_STATE_STOPPED);
        pgs_job_end(s, DRA_ECANCELED, "start cancelled");
        return;
    }
    pgs_state_set(s, HA_STATE_START_FAILED);
    pgs_job_end(s, DRA_ECHILD, "the server has ended while it was starting: %s", tail);
}

static void cancel(struct pgs *s)
{
    if (s->job.step == STEP_FORKED) {
        withdraw(s, DRA_ECANCELED, "cancelled");
    } else if (s->job.step == STEP_ACCEPT) {
        s->job.phase = HA_PHASE_CANCELLING;
        s->job.step = STEP_CANCEL;
        pgs_signal(s, SIGQUIT);
        pgs_job_timer(s, dra_ms(CANCEL_MS));
    } else if (s->job.step == STEP_CANCEL) {
        pgs_kill_all(s);
    }
}

void pgs_job_start_ev(struct pgs *s, enum pgs_ev ev)
{
    struct pgs_job *j = &s->job;

    if (ev == PGS_EV_CANCEL) {
        cancel(s);
    } else if (ev == PGS_EV_BEGIN) {
        begin(s);
    } else if (ev == PGS_EV_EXIT && (j->step == STEP_ACCEPT || j->step == STEP_CANCEL || j->step == STEP_COPIES)) {
        dra_timer_stop(j->timer);
        j->step = STEP_TAIL;
        pgs_job_work(s, work_tail, 0, false, NULL);
    } else if (j->step == STEP_PREPARE && ev == PGS_EV_WORK) {
        if (j->cancelled) {
            pgs_job_end(s, DRA_ECANCELED, "start cancelled");
        } else {
            fork_child(s);
        }
    } else if (j->step == STEP_FORKED && ev == PGS_EV_GO) {
        if (is_primary_job(s)) {
            dra_timer_stop(j->timer);
            j->step = STEP_SIGNALS;
            pgs_job_work(s, work_signals, 0, false, NULL);
        } else {
            release_child(s);
        }
    } else if (j->step == STEP_FORKED && ev == PGS_EV_NOGO) {
        withdraw(s, DRA_ECANCELED, "withdrawn");
    } else if (j->step == STEP_FORKED && ev == PGS_EV_TIMER) {
        withdraw(s, DRA_ETIMEDOUT, "the guard did not answer");
    } else if (j->step == STEP_SIGNALS && ev == PGS_EV_WORK) {
        release_child(s);
    } else if (j->step == STEP_ACCEPT && ev == PGS_EV_TIMER) {
        pgs_probe_internal(s, dra_after(dra_now(), dra_ms(PROBE_LIMIT_MS)), true);
    } else if (j->step == STEP_ACCEPT && ev == PGS_EV_PROBE) {
        accept_probed(s);
    } else if (j->step == STEP_CANCEL && ev == PGS_EV_TIMER) {
        pgs_kill_all(s);
    } else if (j->step == STEP_TAIL && ev == PGS_EV_WORK) {
        ended(s);
    } else if (j->step == STEP_COPIES && ev == PGS_EV_WORK) {
        if (j->rc != 0) {
            log_linef(LOG_LV_WARNING, "pgs.copies", "cannot keep copies of the configuration files: %s", j->err.msg);
        }
        pgs_job_end(s, DRA_OK, "accepting connections");
    }
}
