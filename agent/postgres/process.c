/*
 * process.c - the server's processes: found, watched, counted, and ended when nothing else helps (HA-08, SAFE-34).
 *
 * Invariants:
 *  (1) facts.postmaster is YES exactly while pm names a process that is watched by pidfd.
 *  (2) With a postmaster, leftovers is NO; after its end UNKNOWN until the processes were counted.
 *  (3) Ending by force stops all first and kills after, the postmaster last (engineering notes, fencing).
 * Threads: loop, except pgs_scan_run (file worker).
 */
#include "pgs_int.h"
#include "proc.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define START_SLACK_S 3
#define KILL_PASS_MS 1
#define KILL_AGAIN_MS 20
#define AGAIN_MS 100

static void on_postmaster_exit(struct dra_proc p, void *arg);
static void on_leftover_exit(struct dra_proc p, void *arg);

/* ---- looking (worker) ------------------------------------------------------------------------------- */

static const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');

    return slash != NULL ? slash + 1 : path;
}

static bool is_postmaster(const struct pgs_conf *c, const struct pgs_pidfile *f)
{
    struct pgs_stat st;
    int64_t started;
    int64_t apart;
    pid_t pid = f->pid < 0 ? -f->pid : f->pid;

    if (pid == getpid() || pid == getppid() || !pgs_stat_read(pid, &st) || st.state == 'Z' || st.state == 'X') {
        return false;
    }
    started = pgs_stat_epoch(&st);
    apart = started - f->start_time;
    if (started != 0 && apart < START_SLACK_S && apart > -START_SLACK_S) {
        return true;
    }
    return pgs_exe_is(pid, base_name(c->tool[PGS_TOOL_POSTGRES])) && pgs_works_in(pid, c->data_dir) != DRA_NO;
}

static bool count_leftover(pid_t pid, const struct pgs_stat *st, void *arg)
{
    struct pgs_scan *out = arg;

    if (pid != getpid()) {
        out->left = (struct dra_proc){.pid = pid, .start_ticks = st->start_ticks};
        out->leftovers++;
    }
    return true;
}

void pgs_scan_run(const struct pgs_conf *c, struct pgs_scan *out)
{
    char path[PGS_PATH_MAX + 32];
    struct dra_buf text;
    struct pgs_pidfile f;

    memset(out, 0, sizeof *out);
    dra_buf_init(&text, 4096);
    if (dra_str_printf(path, sizeof path, "%s/postmaster.pid", c->data_dir) == 0 && dra_file_exists(path)) {
        out->pidfile = true;
        if (dra_file_read(path, 4096, &text, NULL) == 0 && pgs_pidfile_parse(dra_buf_str(&text), &f) == 0) {
            out->pidfile_pid = f.pid < 0 ? -f.pid : f.pid;
            out->found = is_postmaster(c, &f) && dra_proc_identify(out->pidfile_pid, &out->pm, NULL) == 0;
        }
    }
    dra_buf_deinit(&text);
    if (!out->found) {
        pgs_walk_dir(c->data_dir, base_name(c->tool[PGS_TOOL_POSTGRES]), count_leftover, out);
    }
}

/* ---- watching ---------------------------------------------------------------------------------------------- */

void pgs_state_set(struct pgs *s, enum ha_state st)
{
    if (s->facts.state != st) {
        s->facts.state = st;
        s->facts.state_since = dra_now();
    }
}

void pgs_postmaster_adopt(struct pgs *s, struct dra_proc p, bool ours)
{
    struct dra_err err = {0};

    dra_procwatch_close(s->pm_watch);
    s->pm_watch = NULL;
    dra_procwatch_close(s->left_watch);
    s->left_watch = NULL;
    if (dra_procwatch_open(s->loop, p, on_postmaster_exit, s, &s->pm_watch, &err) != 0) {
        if (err.code != DRA_ENOTFOUND) {
            log_linef(LOG_LV_ERROR, "pgs.watch", "cannot watch postmaster %d: %s", (int)p.pid, err.msg);
        }
        return;
    }
    s->pm = p;
    s->facts.postmaster = DRA_YES;
    s->facts.leftovers = DRA_NO;
    s->facts.pid = p.pid;
    s->facts.pid_start_ticks = p.start_ticks;
    s->facts.gone_at = (struct dra_instant){0};
    s->facts.gone_orderly = false;
    s->facts.promote_signalled = false;
    s->facts.accepting = DRA_UNKNOWN;
    s->facts.in_recovery = DRA_UNKNOWN;
    s->facts.replication_state = HA_REPL_NONE;
    s->facts.timeline = 0;
    s->received_timeline = 0;
    s->exit_unread = false;
    s->kill.wanted = false;
    s->adopted_at = dra_now();
    s->stop_signalled_at = (struct dra_instant){0};
    s->facts.control = HA_CONTROL_UNKNOWN; /* what was read before speaks of another time */
    s->facts.checkpoint_end_lsn = 0;
    s->view.postmaster_start_us = 0;
    s->view.postmaster_start_time[0] = '\0';
    if (!ours) {
        s->facts.started_as_standby = s->facts.standby_signal;
        if (!pgs_job_is_running(s)) {
            pgs_state_set(s, HA_STATE_STARTING);
        }
        log_linef(LOG_LV_INFO, "pgs.found", "found a running server, postmaster pid %d", (int)p.pid);
    }
}

static void on_postmaster_exit(struct dra_proc p, void *arg)
{
    struct pgs *s = arg;
    int status;

    /* It may be our child: a zombie would block the next start. */
    (void)waitpid(p.pid, &status, WNOHANG);
    dra_procwatch_close(s->pm_watch);
    s->pm_watch = NULL;
    s->pm.pid = 0;
    s->facts.postmaster = DRA_NO;
    s->facts.leftovers = DRA_UNKNOWN;
    s->facts.accepting = DRA_NO;
    s->facts.replication_state = HA_REPL_NONE;
    s->facts.gone_at = dra_now();
    s->facts.gone_orderly = false;
    s->exit_unread = true;
    if (!pgs_job_is_running(s)) {
        pgs_state_set(s, HA_STATE_CRASHED);
    }
    pgc_drop(s->hb);
    pgc_drop(s->work);
    pgs_control_watch(s, false);
    log_linef(LOG_LV_INFO, "pgs.exit", "postmaster %d has ended", (int)p.pid);
    pgs_read_files(s); /* first: the job's next step waits for exactly this reading */
    pgs_job_ev(s, PGS_EV_EXIT);
    pgs_changed(s);
}

/* A postmaster that is gone already needs no signal: its exit is on the way. */
void pgs_signal(struct pgs *s, int signo)
{
    struct dra_err err = {0};

    if (dra_proc_signal(&s->pm, signo, &err) != 0 && err.code != DRA_ENOTFOUND) {
        log_linef(LOG_LV_ERROR, "pgs.signal", "signal %d to postmaster %d: %s", signo, (int)s->pm.pid, err.msg);
    }
}

void pgs_leftovers_watch(struct pgs *s, struct dra_proc p)
{
    struct dra_err err = {0};

    dra_procwatch_close(s->left_watch);
    s->left_watch = NULL;
    if (dra_procwatch_open(s->loop, p, on_leftover_exit, s, &s->left_watch, &err) != 0) {
        pgs_read_files(s); /* gone already: look again */
    }
}

static void on_leftover_exit(struct dra_proc p, void *arg)
{
    struct pgs *s = arg;

    (void)p;
    dra_procwatch_close(s->left_watch);
    s->left_watch = NULL;
    pgs_read_files(s);
}

/* ---- freeze and kill ------------------------------------------------------------------------------------------- */

struct kill_walk {
    pid_t postmaster;
    int signo;
    int running; /* neither stopped, dead nor in an uninterruptible wait */
    int left;
};

static bool kill_visit(pid_t pid, const struct pgs_stat *st, void *arg)
{
    struct kill_walk *w = arg;
    bool rests = st->state == 'T' || st->state == 't' || st->state == 'D';

    if (pid == getpid()) {
        return true;
    }
    w->left++;
    w->running += !rests;
    if (pid == w->postmaster) {
        return true; /* by pidfd, first and last */
    }
    if (w->signo == SIGKILL || !rests) {
        /* Each child leads a group of its own; the group takes what it started (archive_command) along. */
        (void)kill(-pid, w->signo);
        (void)kill(pid, w->signo);
    }
    return true;
}

static void kill_children(struct pgs *s, struct kill_walk *w)
{
    w->postmaster = s->pm.pid;
    if (s->pm.pid != 0) {
        pgs_walk_children(s->pm.pid, kill_visit, w);
    }
    pgs_walk_dir(s->conf->data_dir, base_name(s->conf->tool[PGS_TOOL_POSTGRES]), kill_visit, w);
}

static void on_kill_timer(void *arg)
{
    struct pgs *s = arg;
    struct kill_walk w = {.signo = SIGSTOP};

    if (!s->kill.active) {
        return;
    }
    kill_children(s, &w);
    s->kill.pass++;
    if (w.running > 0 && !dra_reached(dra_now(), s->kill.until)) {
        dra_timer_set(s->kill.timer, dra_after(dra_now(), dra_ms(s->kill.pass < 20 ? KILL_PASS_MS : KILL_AGAIN_MS)));
        return;
    }
    w = (struct kill_walk){.signo = SIGKILL};
    kill_children(s, &w);
    if (s->pm.pid != 0) {
        pgs_signal(s, SIGKILL); /* its pidfd tells of its end */
    }
    s->kill.active = false;
    log_linef(LOG_LV_WARNING, "pgs.killed", "froze and killed all %d processes of the server", w.left);
    pgs_read_files(s);
}

/* A reading found something left: once more, unless it only waits for its I/O. */
void pgs_kill_again(struct pgs *s, bool left)
{
    if (!s->kill.wanted || s->kill.active) {
        return;
    }
    s->kill.wanted = left;
    if (left) {
        s->kill.active = true;
        s->kill.pass = 0;
        s->kill.until = dra_after(dra_now(), dra_ms(2000));
        dra_timer_set(s->kill.timer, dra_after(dra_now(), dra_ms(AGAIN_MS)));
    }
}

void pgs_kill_all(struct pgs *s)
{
    struct kill_walk w = {.signo = SIGSTOP};

    if (s->kill.active || s->closing) {
        return;
    }
    if (s->kill.timer == NULL && dra_timer_open(s->loop, on_kill_timer, s, &s->kill.timer) != 0) {
        return;
    }
    if (s->pm.pid != 0) {
        pgs_signal(s, SIGSTOP);
    }
    kill_children(s, &w);
    s->kill.active = true;
    s->kill.wanted = true;
    s->kill.pass = 0;
    s->kill.until = dra_after(dra_now(), dra_ms(2000));
    dra_timer_set(s->kill.timer, dra_after(dra_now(), dra_ms(KILL_PASS_MS)));
}
