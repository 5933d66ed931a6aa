/*
 * job.c - the one job: accepted, driven by events, ended exactly once.
 *
 * Each kind is a small machine (job_*.c) that gets events and starts one asynchronous step at a time.  Steps carry
 * the job's id: what comes back for a job that has ended is dropped.
 * Invariants:
 *  (1) phase IDLE <=> no job; job_done() is called once for each accepted job, from the loop, never inside its start.
 *  (2) A step that cannot be started reports its failure as its event, so that no machine waits for ever.
 * Threads: loop.
 */
#include "pgs_int.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define OUTPUT_MAX (64 * 1024)

typedef void (*job_fn)(struct pgs *s, enum pgs_ev ev);
static const job_fn machines[HA_JOB_COUNT] = {
    [HA_JOB_INITDB] = pgs_job_initdb_ev,         [HA_JOB_POST_BOOTSTRAP] = pgs_job_post_bootstrap_ev,
    [HA_JOB_BASEBACKUP] = pgs_job_copy_ev,       [HA_JOB_START_PRIMARY] = pgs_job_start_ev,
    [HA_JOB_START_STANDBY] = pgs_job_start_ev,   [HA_JOB_STOP] = pgs_job_stop_ev,
    [HA_JOB_PROMOTE] = pgs_job_promote_ev,       [HA_JOB_SINGLE_USER] = pgs_job_single_user_ev,
    [HA_JOB_REWIND] = pgs_job_rewind_ev,         [HA_JOB_DROP_ASIDE] = pgs_job_aside_ev,
    [HA_JOB_SET_ASIDE] = pgs_job_aside_ev,
};

struct tagged {
    struct pgs *s;
    uint64_t id;
};
static struct tagged *tagged_new(struct pgs *s);
static bool tagged_is_current(const struct tagged *t);
static void tagged_free(struct tagged *t);
static int work_start(struct pgs *s, pgs_work_fn fn, int n, bool flag, struct pgs_confwrite *cw);
static void work_free(struct pgs_jobwork *w);
static int begin_work(struct pgs_jobwork *w, struct dra_err *err);
static int child_failed(struct pgs_jobwork *w, struct dra_err *err);
static int sql_failed(struct pgs_jobwork *w, struct dra_err *err);
static void on_timer(void *arg);

bool pgs_job_is_running(const struct pgs *s)
{
    return s->job.phase != HA_PHASE_IDLE;
}

int pgs_job_start(struct pgs *s, const struct ha_job *job, const char *conn_url, uint64_t id, struct dra_err *err)
{
    struct dra_timer *timer = s->job.timer;

    if (s->closing) {
        return dra_err_set(err, DRA_ESTATE, "closing");
    }
    if (pgs_job_is_running(s)) {
        return dra_err_set(err, DRA_EBUSY, "%s is running", ha_job_to_str(s->job.spec.kind));
    }
    if ((int)job->kind <= 0 || job->kind >= HA_JOB_COUNT) {
        return dra_err_set(err, DRA_EINVAL, "unknown job");
    }
    if (timer == NULL && dra_timer_open(s->loop, on_timer, s, &timer) != 0) {
        return dra_err_set(err, DRA_ENOMEM, "timer");
    }
    dra_buf_deinit(&s->job.output);
    pgs_argv_deinit(&s->job.command);
    memset(&s->job, 0, sizeof s->job);
    s->job.timer = timer;
    s->job.spec = *job;
    s->job.id = id;
    s->job.go_fd = -1;
    s->job.log_fd = -1;
    s->job.phase = HA_PHASE_RUNNING;
    s->job.started_at = dra_now();
    s->job.progress_at = s->job.started_at;
    dra_buf_init(&s->job.output, OUTPUT_MAX);
    pgs_argv_init(&s->job.command);
    dra_str_clip(s->job.conn_url, sizeof s->job.conn_url, conn_url != NULL ? conn_url : "");
    /* The machine begins with the next turn of the loop. */
    if (work_start(s, begin_work, 0, false, NULL) != 0) {
        s->job.phase = HA_PHASE_IDLE;
        return dra_err_set(err, DRA_ENOMEM, "file worker");
    }
    return DRA_OK;
}

static int begin_work(struct pgs_jobwork *w, struct dra_err *err)
{
    (void)w;
    (void)err;
    return DRA_OK;
}

/* A child or a statement that could not even be started: its event comes from the loop all the same. */
static int child_failed(struct pgs_jobwork *w, struct dra_err *err)
{
    (void)w;
    return dra_err_set(err, DRA_ECHILD, "cannot be started");
}

static int sql_failed(struct pgs_jobwork *w, struct dra_err *err)
{
    (void)w;
    return dra_err_set(err, DRA_ECONN, "statement cannot be started");
}

/* What an asynchronous step carries, so that a late end is known for one. */
static struct tagged *tagged_new(struct pgs *s)
{
    struct tagged *t = malloc(sizeof *t);

    if (t != NULL) {
        t->s = s;
        t->id = s->job.id;
        pgs_ref(s);
    }
    return t;
}

static bool tagged_is_current(const struct tagged *t)
{
    return !t->s->closing && pgs_job_is_running(t->s) && t->s->job.id == t->id;
}

static void tagged_free(struct tagged *t)
{
    if (t != NULL) {
        pgs_unref(t->s);
        free(t);
    }
}

void pgs_job_ev(struct pgs *s, enum pgs_ev ev)
{
    if (pgs_job_is_running(s) && !s->closing) {
        machines[s->job.spec.kind](s, ev);
    }
}

void pgs_job_end(struct pgs *s, int code, const char *fmt, ...)
{
    struct ha_job_result r = {.kind = s->job.spec.kind,
                              .id = s->job.id,
                              .ok = code == DRA_OK,
                              .err_code = code,
                              .mode = s->job.spec.mode,
                              .started_at = s->job.started_at,
                              .ended_at = dra_now()};
    char text[1024];
    va_list ap;

    va_start(ap, fmt);
    (void)vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    for (char *p = text; *p != '\0'; p++) {
        *p = (char)(*p == '\n' || *p == '\t' || *p == '\r' ? ' ' : *p);
    }
    dra_str_clip(r.msg, sizeof r.msg, text);
    dra_str_clip(r.member, sizeof r.member, s->job.spec.member);
    if (s->job.go_fd >= 0) {
        close(s->job.go_fd);
        s->job.go_fd = -1;
    }
    if (s->job.log_fd >= 0) {
        close(s->job.log_fd);
        s->job.log_fd = -1;
    }
    dra_timer_stop(s->job.timer);
    s->job.phase = HA_PHASE_IDLE;
    s->job.child = NULL;
    s->job.sql = NULL;
    s->ev.job_done(&r, s->arg);
}

/* ---- timer -------------------------------------------------------------------------------------------- */

static void on_timer(void *arg)
{
    pgs_job_ev(arg, PGS_EV_TIMER);
}

void pgs_job_timer(struct pgs *s, struct dra_span after)
{
    dra_timer_set(s->job.timer, dra_after(dra_now(), after));
}

void pgs_job_timer_stop(struct pgs *s)
{
    dra_timer_stop(s->job.timer);
}

/* ---- file work ------------------------------------------------------------------------------------------ */

static int run_work(void *arg, struct dra_err *err)
{
    struct pgs_jobwork *w = arg;

    return w->fn(w, err);
}

static void on_work(int rc, const struct dra_err *err, void *arg)
{
    struct pgs_jobwork *w = arg;
    struct pgs *s = w->s;
    bool ours = pgs_job_is_running(s) && s->job.id == w->job_id && !s->closing;
    enum pgs_ev ev = PGS_EV_WORK;

    if (ours) {
        s->job.rc = rc;
        if (rc != 0 && err != NULL) {
            s->job.err = *err;
        }
        s->job.aside_made = s->job.aside_made || w->aside_made;
        if (w->fd >= 0) {
            s->job.log_fd = w->fd;
            s->job.log_from = w->log_from;
            w->fd = -1;
        }
        if (w->text.len > 0) {
            dra_buf_reset(&s->job.output);
            dra_buf_add(&s->job.output, w->text.p, w->text.len);
        }
        if (w->cw != NULL) {
            pgs_confwrite_tell(s, w->cw);
            pgs_argv_deinit(&s->job.command);
            s->job.command = w->cw->command;
            pgs_argv_init(&w->cw->command);
        }
    }
    if (w->fn == begin_work) {
        ev = PGS_EV_BEGIN;
    } else if (w->fn == child_failed) {
        ev = PGS_EV_CHILD;
    } else if (w->fn == sql_failed) {
        ev = PGS_EV_SQL;
    }
    work_free(w);
    if (ours && s->job.cancelled && ev == PGS_EV_BEGIN) {
        pgs_job_end(s, DRA_ECANCELED, "cancelled");
    } else if (ours) {
        pgs_job_ev(s, ev);
    }
    pgs_unref(s);
}

static void work_free(struct pgs_jobwork *w)
{
    if (w->fd >= 0) {
        close(w->fd);
    }
    pgs_confwrite_free(w->cw);
    pgs_conf_unref(w->conf);
    dra_buf_deinit(&w->text);
    free(w);
}

static int work_start(struct pgs *s, pgs_work_fn fn, int n, bool flag, struct pgs_confwrite *cw)
{
    struct pgs_jobwork *w = calloc(1, sizeof *w);

    if (w == NULL) {
        pgs_confwrite_free(cw);
        return DRA_ENOMEM;
    }
    w->s = s;
    w->job_id = s->job.id;
    w->fn = fn;
    w->conf = pgs_conf_ref(s->conf);
    w->spec = s->job.spec;
    w->n = n;
    w->flag = flag;
    w->cw = cw;
    w->fd = -1;
    dra_str_clip(w->tmp_path, sizeof w->tmp_path, s->job.tmp_path);
    dra_str_clip(w->conn_url, sizeof w->conn_url, s->job.conn_url);
    dra_str_clip(w->state_dir, sizeof w->state_dir, s->state_dir);
    dra_buf_init(&w->text, OUTPUT_MAX);
    pgs_ref(s);
    if (dra_fworker_start(s->files, run_work, on_work, w) != 0) {
        work_free(w);
        pgs_unref(s);
        return DRA_ENOMEM;
    }
    return DRA_OK;
}

void pgs_job_work(struct pgs *s, pgs_work_fn fn, int n, bool flag, struct pgs_confwrite *cw)
{
    if (work_start(s, fn, n, flag, cw) != 0) {
        pgs_job_end(s, DRA_ENOMEM, "%s: file worker: out of memory", ha_job_to_str(s->job.spec.kind));
    }
}

/* ---- children --------------------------------------------------------------------------------------------- */

static void on_output(const char *p, size_t n, void *arg)
{
    static const char mark[] = "need to copy"; /* pg_rewind -P says so right before it begins to write */
    struct tagged *t = arg;
    struct pgs *s = t->s;

    if (!tagged_is_current(t)) {
        return;
    }
    pgs_job_progress(s);
    for (size_t i = 0; i < n; i++) { /* also over texts cut in two */
        s->job.mark_at = p[i] == mark[s->job.mark_at] ? s->job.mark_at + 1 : (p[i] == mark[0] ? 1 : 0);
        if (mark[s->job.mark_at] == '\0') {
            s->job.changed_target = true;
            s->job.mark_at = 0;
        }
    }
}

static void on_child(const struct dra_child_result *r, void *arg)
{
    struct tagged *t = arg;
    struct pgs *s = t->s;

    if (!tagged_is_current(t)) {
        tagged_free(t);
        return;
    }
    s->job.child = NULL;
    dra_buf_reset(&s->job.output);
    dra_buf_add(&s->job.output, r->out, r->out_len);
    if (r->err_code == DRA_OK && r->exit_code == 0) {
        s->job.rc = DRA_OK;
    } else if (r->err_code != DRA_OK && r->err_code != DRA_ECHILD) {
        s->job.rc = dra_err_set(&s->job.err, r->err_code, "%s", dra_code_to_str(r->err_code));
    } else if (!r->started) {
        s->job.rc = dra_err_set(&s->job.err, DRA_ECHILD, "cannot be executed");
    } else if (r->exit_code >= 0) {
        s->job.rc = dra_err_set(&s->job.err, DRA_ECHILD, "exited with code=%d", r->exit_code);
    } else {
        s->job.rc = dra_err_set(&s->job.err, DRA_ECHILD, "ended by signal %d", r->term_signal);
    }
    pgs_job_ev(s, PGS_EV_CHILD);
    tagged_free(t);
}

void pgs_job_child(struct pgs *s, const struct pgs_argv *argv, const char *const *env, struct dra_instant not_after)
{
    struct dra_child_spec spec = {.argv = pgs_argv_get(argv), .env = env, .not_after = not_after, .on_output = on_output};
    struct dra_err err = {0};

    struct tagged *t = tagged_new(s);

    dra_buf_reset(&s->job.output);
    s->job.mark_at = 0;
    if (t == NULL || argv->failed || argv->n == 0 || dra_child_start(s->loop, &spec, on_child, t, &s->job.child, &err) != 0) {
        s->job.child = NULL;
        dra_buf_adds(&s->job.output, err.msg);
        tagged_free(t);
        pgs_job_work(s, child_failed, 0, false, NULL);
    }
}

void pgs_job_output_tail(const struct pgs *s, char *out, size_t out_size)
{
    const char *p = dra_buf_str(&s->job.output);
    size_t len = s->job.output.len;
    size_t want = out_size > 4 ? out_size - 4 : 0;

    for (size_t i = 0; i < len; i++) { /* begin where a tool says what is wrong */
        if (i + 8 < len && (memcmp(p + i, "error: ", 7) == 0 || memcmp(p + i, "FATAL: ", 7) == 0)) {
            p += i;
            len -= i;
            i = 0;
        }
    }
    while (len > 0 && (p[len - 1] == '\n' || p[len - 1] == '\r' || p[len - 1] == ' ')) {
        len--;
    }
    if (len > want && (memcmp(p, "error: ", 7) == 0 || memcmp(p, "FATAL: ", 7) == 0)) {
        len = want;
    } else if (len > want) {
        const char *nl = memchr(p + len - want, '\n', want);

        nl = nl != NULL && nl + 1 < p + len ? nl + 1 : p + len - want;
        len -= (size_t)(nl - p);
        p = nl;
    }
    if (dra_str_copy_n(out, out_size, p, len) != 0 && out_size > 0) {
        out[0] = '\0';
    }
}

/* ---- SQL ------------------------------------------------------------------------------------------------------- */

static void on_sql(const struct pgc_result *r, void *arg)
{
    struct tagged *t = arg;
    struct pgs *s = t->s;
    const char *v;

    if (tagged_is_current(t)) {
        s->job.sql = NULL;
        s->job.rc = r->err_code;
        s->job.sql_sent_at = r->sent_at;
        s->job.answer[0] = '\0';
        if (r->err_code != DRA_OK) {
            s->job.err = r->err;
        } else if (r->rows > 0 && r->cols > 0 && (v = r->get(r, 0, 0)) != NULL) {
            dra_str_clip(s->job.answer, sizeof s->job.answer, v);
        }
        pgs_job_ev(s, PGS_EV_SQL);
    }
    tagged_free(t);
}

void pgs_job_sql(struct pgs *s, bool on_heartbeat, const char *sql, struct dra_instant not_after)
{
    struct tagged *t = tagged_new(s);

    if (t == NULL || pgc_query_start(on_heartbeat ? s->hb : s->work, NULL, sql, not_after, on_sql, t, &s->job.sql) != 0) {
        s->job.sql = NULL;
        tagged_free(t);
        pgs_job_work(s, sql_failed, 0, false, NULL);
    }
}

/* ---- from outside ------------------------------------------------------------------------------------------------ */

void pgs_job_progress(struct pgs *s)
{
    s->job.progress_at = dra_now();
}

struct dra_instant pgs_job_progress_at(const struct pgs *s)
{
    return s->job.progress_at;
}

void pgs_job_continue(struct pgs *s, bool go)
{
    if (s->job.phase == HA_PHASE_FORKED) {
        pgs_job_ev(s, go ? PGS_EV_GO : PGS_EV_NOGO);
    }
}

void pgs_job_cancel(struct pgs *s)
{
    if (!pgs_job_is_running(s)) {
        return;
    }
    s->job.cancelled = true;
    pgs_job_ev(s, PGS_EV_CANCEL);
}
