/*
 * job_stop.c - stop the server: fast, then immediate, then frozen and killed (HA-130, SAFE-34).
 *
 * Promises: it ends well only when no process of the server lives and the files were read after that.  Meanwhile, once
 * the control file says "shut down", facts are published early, so that the key can go on before archiver and
 * walsenders are through.
 * Threads: loop.
 */
#include "pgs_int.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>

#define FAST_DEFAULT_MS 30000
#define IMMEDIATE_MS 5000
#define LEFTOVERS_MS 1000
#define KILLED_MS 30000

enum step {
    STEP_FIRST = 0,
    STEP_LOOK,       /* the processes are looked at first */
    STEP_CHECKPOINT, /* still serving */
    STEP_HOOK,       /* before_stop */
    STEP_FAST,       /* SIGINT was sent */
    STEP_IMMEDIATE,  /* SIGQUIT was sent */
    STEP_LEFT,       /* the postmaster is gone: counting what is left */
    STEP_KILL,       /* frozen and killed */
};

static void on_control_change(uv_fs_event_t *h, const char *name, int events, int status);

/* ---- the control file while the server stops ------------------------------------------------------------ */

static void on_control_closed(uv_handle_t *h)
{
    struct pgs *s = h->data;

    free(h);
    pgs_unref(s);
}

void pgs_control_watch(struct pgs *s, bool on)
{
    char path[PGS_PATH_MAX + 32];

    if (!on && s->control_watch != NULL) {
        uv_close((uv_handle_t *)s->control_watch, on_control_closed);
        s->control_watch = NULL;
    }
    if (!on || s->control_watch != NULL ||
        dra_str_printf(path, sizeof path, "%s/global/pg_control", s->conf->data_dir) != 0) {
        return;
    }
    s->control_watch = calloc(1, sizeof *s->control_watch);
    if (s->control_watch == NULL) {
        return; /* the exit tells it all the same, a little later */
    }
    if (uv_fs_event_init(s->loop, s->control_watch) != 0) {
        free(s->control_watch);
        s->control_watch = NULL;
        return;
    }
    s->control_watch->data = s;
    pgs_ref(s);
    if (uv_fs_event_start(s->control_watch, on_control_change, path, 0) != 0) {
        pgs_control_watch(s, false);
    }
}

static void on_control_change(uv_fs_event_t *h, const char *name, int events, int status)
{
    struct pgs *s = h->data;

    (void)name;
    (void)events;
    (void)status;
    pgs_read_files(s); /* coalesced; publishes control and checkpoint, and tells of the change */
}

/* ---- steps -------------------------------------------------------------------------------------------------- */

static struct dra_span fast_limit(const struct pgs *s)
{
    return s->job.spec.timeout.ns > 0 ? s->job.spec.timeout : dra_ms(FAST_DEFAULT_MS);
}

static void stopped(struct pgs *s)
{
    pgs_state_set(s, HA_STATE_STOPPED);
    pgs_job_end(s, DRA_OK, "stopped");
}

static void kill_now(struct pgs *s)
{
    s->job.step = STEP_KILL;
    s->job.phase = HA_PHASE_CANCELLING;
    pgs_state_set(s, HA_STATE_STOPPING);
    pgs_job_timer(s, dra_ms(KILLED_MS));
    pgs_kill_all(s);
}

static void immediate_now(struct pgs *s)
{
    s->job.step = STEP_IMMEDIATE;
    s->stop_signalled_at = dra_now();
    pgs_state_set(s, HA_STATE_STOPPING);
    pgs_control_watch(s, true);
    pgs_job_timer(s, dra_ms(IMMEDIATE_MS));
    pgs_signal(s, SIGQUIT);
}

static void fast_now(struct pgs *s)
{
    s->job.step = STEP_FAST;
    s->stop_signalled_at = dra_now();
    pgs_state_set(s, HA_STATE_STOPPING);
    pgs_control_watch(s, true);
    pgs_job_progress(s);
    pgs_job_timer(s, fast_limit(s));
    pgs_signal(s, SIGINT);
}

static void hook_or_fast(struct pgs *s)
{
    char command[2048];
    struct pgs_argv argv;
    struct dra_err err = {0};

    pgs_argv_init(&argv);
    if (!pgs_hook_command(s->conf, "before_stop", command, sizeof command)) {
        fast_now(s);
        return;
    }
    if (pgs_argv_split(&argv, command, &err) != 0) {
        log_linef(LOG_LV_ERROR, "pgs.before_stop", "before_stop: %s", err.msg);
        pgs_argv_deinit(&argv);
        fast_now(s);
        return;
    }
    s->job.step = STEP_HOOK;
    pgs_job_child(s, &argv, NULL, dra_after(dra_now(), fast_limit(s)));
    pgs_argv_deinit(&argv);
}

static void begin_running(struct pgs *s)
{
    struct pgs_job *j = &s->job;

    if (j->spec.mode == HA_STOP_KILL) {
        kill_now(s);
    } else if (j->spec.mode == HA_STOP_IMMEDIATE) {
        immediate_now(s); /* before_stop would delay the fencing (HA-177 [D]) */
    } else if (j->spec.checkpoint_first && s->facts.accepting == DRA_YES) {
        j->step = STEP_CHECKPOINT;
        pgs_job_sql(s, false, "CHECKPOINT",
                    dra_after(dra_now(), j->spec.checkpoint_limit.ns > 0 ? j->spec.checkpoint_limit : fast_limit(s)));
    } else {
        hook_or_fast(s);
    }
}

static void looked(struct pgs *s)
{
    if (s->facts.postmaster == DRA_YES) {
        begin_running(s);
    } else if (s->facts.leftovers == DRA_YES) {
        kill_now(s);
    } else if (s->facts.leftovers == DRA_NO) {
        stopped(s);
    }
}

/* After the postmaster's end, each reading counts what is left. */
static void counted(struct pgs *s)
{
    if (s->facts.postmaster == DRA_NO && s->facts.leftovers == DRA_NO) {
        stopped(s);
    }
}

static void escalate(struct pgs *s)
{
    switch (s->job.step) {
    case STEP_FIRST:
    case STEP_LOOK:
        break; /* nothing was done yet; what was asked for is done next */
    case STEP_CHECKPOINT:
        if (s->job.sql != NULL) {
            pgc_cancel(s->job.sql);
        }
        break;
    case STEP_HOOK:
        if (s->job.child != NULL) {
            dra_child_cancel(s->job.child);
        }
        break;
    case STEP_FAST:
        log_linef(LOG_LV_WARNING, "pgs.stop", "the fast shutdown takes too long: immediate shutdown");
        immediate_now(s);
        break;
    case STEP_IMMEDIATE:
    case STEP_LEFT:
        log_linef(LOG_LV_WARNING, "pgs.stop", "the server does not end: freezing and killing its processes");
        kill_now(s);
        break;
    case STEP_KILL:
        pgs_state_set(s, HA_STATE_STOP_FAILED);
        pgs_job_end(s, DRA_ETIMEDOUT, "processes of the server cannot be killed");
        break;
    default:
        break;
    }
}

void pgs_job_stop_ev(struct pgs *s, enum pgs_ev ev)
{
    struct pgs_job *j = &s->job;

    if (ev == PGS_EV_BEGIN) {
        if (s->facts.postmaster == DRA_YES) {
            begin_running(s);
        } else {
            j->step = STEP_LOOK;
            pgs_read_files(s);
        }
    } else if (ev == PGS_EV_CANCEL) {
        if (j->step != STEP_KILL) {
            escalate(s);
        }
    } else if (ev == PGS_EV_TIMER) {
        escalate(s);
    } else if (ev == PGS_EV_EXIT) {
        if (j->step == STEP_KILL) {
            return; /* the reading that follows the exit counts what is left */
        }
        if (j->step == STEP_FAST || j->step == STEP_IMMEDIATE) {
            j->step = STEP_LEFT;
            pgs_job_timer(s, dra_ms(LEFTOVERS_MS));
        }
    } else if (ev == PGS_EV_FILES && j->step == STEP_LOOK) {
        looked(s);
    } else if (ev == PGS_EV_FILES && (j->step == STEP_LEFT || j->step == STEP_KILL)) {
        counted(s);
    } else if (ev == PGS_EV_SQL && j->step == STEP_CHECKPOINT) {
        if (j->rc != 0) {
            log_linef(LOG_LV_WARNING, "pgs.stop", "no checkpoint before the stop: %s", j->err.msg);
        }
        if (s->facts.postmaster == DRA_YES) {
            hook_or_fast(s);
        } else {
            j->step = STEP_LOOK;
            pgs_read_files(s);
        }
    } else if (ev == PGS_EV_CHILD && j->step == STEP_HOOK) {
        if (j->rc != 0) {
            log_linef(LOG_LV_WARNING, "pgs.before_stop", "before_stop %s", j->err.msg);
        }
        if (s->facts.postmaster == DRA_YES) {
            fast_now(s);
        } else {
            j->step = STEP_LOOK;
            pgs_read_files(s);
        }
    }
}
