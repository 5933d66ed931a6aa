/*
 * pgs_int.h - what the files of this room share: the server's struct, its job, and the small machines around them.
 *
 * Everything here belongs to the loop thread, except what is marked as work for the file worker: that gets copies and
 * a counted configuration snapshot, and touches nothing else.
 */
#ifndef PGS_INT_H
#define PGS_INT_H

#include <dragent/pgs.h>

#include "config.h"
#include "conffile.h"
#include "conninfo.h"
#include "control.h"

#include <uv.h>

/* ---- jobs: one at a time, each a small machine driven by events ------------------------------------- */

enum pgs_ev {
    PGS_EV_BEGIN = 0, /* the job was accepted */
    PGS_EV_WORK,      /* pgs_job_work() ended; job.rc, job.err */
    PGS_EV_CHILD,     /* pgs_job_child() ended; job.rc, job.err, job.output */
    PGS_EV_SQL,       /* pgs_job_sql() ended; job.rc, job.err, job.answer */
    PGS_EV_TIMER,     /* pgs_job_timer() ran out */
    PGS_EV_EXIT,      /* the postmaster ended */
    PGS_EV_FILES,     /* a reading of the files that was asked for has ended */
    PGS_EV_PROBE,     /* a probe ended */
    PGS_EV_GO,        /* START_PRIMARY: the guard is armed */
    PGS_EV_NOGO,      /* START_PRIMARY: withdrawn */
    PGS_EV_CANCEL,    /* asked to end early */
};

struct pgs_jobwork;
typedef int (*pgs_work_fn)(struct pgs_jobwork *w, struct dra_err *err); /* file worker */

struct pgs_job {
    struct ha_job spec;
    char conn_url[HA_URL_MAX];
    uint64_t id;
    enum ha_job_phase phase;
    int step;
    struct dra_instant started_at;
    struct dra_instant progress_at;
    struct dra_instant deadline; /* what it means is the job's own business */
    bool cancelled;

    int rc;                 /* of the last WORK, CHILD or SQL */
    struct dra_err err;
    char answer[256];       /* first field of the last SQL answer */
    struct dra_buf output;  /* of the last child */
    struct dra_child *child;
    struct dra_timer *timer;    /* open as long as the room */
    struct pgc_op *sql;
    struct dra_instant sql_sent_at; /* of the last SQL; unset: it never went out */

    int tries;
    int method;             /* of create_replica_methods */
    uint64_t io_seen;       /* bytes written by the copying tool */
    bool changed_target;    /* pg_rewind has begun to write */
    size_t mark_at;         /* how much of that mark the output ends with */
    bool aside_made;
    char tmp_path[PGS_PATH_MAX + 32]; /* password file to remove */
    int log_fd;             /* of the server to be started; -1 = none */
    int64_t log_from;       /* where in the log this start begins */
    int go_fd;              /* the forked child waits at the other end; -1 = none */
    struct dra_proc forked;
    struct pgs_argv command;
};

/* Work for the file worker on behalf of a job. */
struct pgs_jobwork {
    struct pgs *s;          /* not to be touched by the worker */
    uint64_t job_id;
    pgs_work_fn fn;
    struct pgs_conf *conf;  /* counted */
    struct ha_job spec;
    char conn_url[HA_URL_MAX];
    char state_dir[PGS_PATH_MAX];
    char tmp_path[PGS_PATH_MAX + 32];
    int n;                  /* the job's own number */
    bool flag;              /* the job's own switch */
    /* results, taken over by the job */
    struct dra_buf text;
    bool aside_made;
    int fd;                 /* -1 = none */
    int64_t log_from;
    struct pgs_confwrite *cw; /* owned; NULL unless files are to be written */
};

void pgs_take_timeline_begin(struct pgs *s); /* fread.c: facts.timeline_begin_lsn out of the history that was read */
void pgs_job_ev(struct pgs *s, enum pgs_ev ev); /* drives the running job; nothing while idle */
void pgs_job_end(struct pgs *s, int code, const char *fmt, ...) DRA_PRINTF(3, 4);
void pgs_job_timer(struct pgs *s, struct dra_span after);
void pgs_job_timer_stop(struct pgs *s);
/* Each starts one asynchronous step; if it cannot be started the event comes all the same, from the loop. */
void pgs_job_work(struct pgs *s, pgs_work_fn fn, int n, bool flag, struct pgs_confwrite *cw);
/* stdin_data and env as in dra_child_spec; output is collected up to 64 kB, its end is kept. */
void pgs_job_child(struct pgs *s, const struct pgs_argv *argv, const char *const *env, struct dra_instant not_after);
void pgs_job_sql(struct pgs *s, bool on_heartbeat, const char *sql, struct dra_instant not_after);
void pgs_job_progress(struct pgs *s);
/* Last lines of what the children said, for a result's message. */
void pgs_job_output_tail(const struct pgs *s, char *out, size_t out_size);
bool pgs_job_is_running(const struct pgs *s);
void pgs_job_abandon(struct pgs *s); /* job_start.c: end the child that waits, without a result */

void pgs_job_start_ev(struct pgs *s, enum pgs_ev ev);     /* job_start.c */
void pgs_job_stop_ev(struct pgs *s, enum pgs_ev ev);      /* job_stop.c */
void pgs_job_promote_ev(struct pgs *s, enum pgs_ev ev);   /* job_promote.c */
void pgs_job_copy_ev(struct pgs *s, enum pgs_ev ev);      /* job_copy.c */
void pgs_job_aside_ev(struct pgs *s, enum pgs_ev ev);     /* job_copy.c: DROP_ASIDE, SET_ASIDE */
void pgs_job_initdb_ev(struct pgs *s, enum pgs_ev ev);    /* bootstrap.c */
void pgs_job_post_bootstrap_ev(struct pgs *s, enum pgs_ev ev);
void pgs_job_rewind_ev(struct pgs *s, enum pgs_ev ev);    /* job_rewind.c */
void pgs_job_single_user_ev(struct pgs *s, enum pgs_ev ev);

/* ---- writing the server's files (worker) ------------------------------------------------------------------- */

struct pgs_confwrite {
    /* in */
    struct pgs_conf *conf;         /* counted */
    int major;
    enum ha_role role;
    const struct pgs_gucs *known;  /* borrowed: lives as long as struct pgs, which waits for its work */
    bool has_control;
    struct pgs_control control;
    char host[HA_URL_MAX];         /* upstream, "" = nobody */
    int port;
    bool keep_upstream;            /* the upstream is not known: leave what the file says (HA-226) */
    bool standby_signal;           /* put standby.signal on disk, last and durable (SAFE-04) */
    bool make_dirs;                /* CFG-78 */
    /* out */
    struct dra_buf warnings;
    struct dra_buf raised;         /* HA-223 */
    struct pgs_argv command;
};
struct pgs_confwrite *pgs_confwrite_new(struct pgs *s, enum ha_role role, const char *conn_url); /* NULL: no memory */
void pgs_confwrite_free(struct pgs_confwrite *w);
DRA_MUST_USE int pgs_confwrite_run(struct pgs_confwrite *w, struct dra_err *err);
/* Log the warnings, remember the raised values (loop). */
void pgs_confwrite_tell(struct pgs *s, struct pgs_confwrite *w);
DRA_MUST_USE int pgs_pgpass_write(const struct pgs_conf *c, const char *host, int port, struct dra_err *err);

/* Files of the data directory (worker). */
DRA_MUST_USE int pgs_signal_write(const char *data_dir, struct dra_err *err);  /* standby.signal, durable */
DRA_MUST_USE int pgs_signal_remove(const char *data_dir, struct dra_err *err); /* both signals, durable */
DRA_MUST_USE int pgs_marker_write(const char *state_dir, const char *what, struct dra_err *err);
DRA_MUST_USE int pgs_marker_remove(const char *state_dir, struct dra_err *err);
/* What a destructive job does first: end tools of an earlier agent, then the marker. */
DRA_MUST_USE int pgs_marker_begin(const char *state_dir, const char *data_dir, const char *what, struct dra_err *err);
bool pgs_marker_exists(const char *state_dir);
int pgs_backup_files(const struct pgs_conf *c, struct dra_err *err);   /* HA-229 */
int pgs_restore_files(const struct pgs_conf *c, struct dra_err *err);  /* INT-42 */
bool pgs_dir_is_empty(const char *path); /* section 5 of HA: missing, or nothing of value */
/* Rename the directory and what its links point to.  DRA_EEXIST etc. by errno; `new_suffix` like ".aside-1". */
DRA_MUST_USE int pgs_dir_set_aside(const char *data_dir, const char *new_suffix, struct dra_err *err);
/* Remove the directory and what its links point to; a mount point is emptied only. */
DRA_MUST_USE int pgs_dir_remove(const char *path, struct dra_err *err);
/* The same for a directory that was set aside: of its links only those that were set aside with it (name ends in suffix). */
DRA_MUST_USE int pgs_dir_remove_aside(const char *path, const char *suffix, struct dra_err *err);

/* ---- processes ------------------------------------------------------------------------------------------------- */

struct pgs_scan { /* what the worker finds; see pgs_scan_run */
    bool found;           /* a postmaster that we did not know */
    struct dra_proc pm;
    bool pidfile;         /* postmaster.pid exists */
    pid_t pidfile_pid;
    int leftovers;
    struct dra_proc left; /* one of them */
};
/* Look for the server of data_dir in /proc; reads postmaster.pid. */
void pgs_scan_run(const struct pgs_conf *c, struct pgs_scan *out);
void pgs_postmaster_adopt(struct pgs *s, struct dra_proc p, bool ours);
void pgs_leftovers_watch(struct pgs *s, struct dra_proc p);
void pgs_signal(struct pgs *s, int signo); /* to the postmaster, by pidfd */
void pgs_state_set(struct pgs *s, enum ha_state st);
void pgs_kill_again(struct pgs *s, bool left);

/* ---- the server -------------------------------------------------------------------------------------------------- */

struct pgs_callback_slot {
    struct pgs *owner;
    struct dra_child *child;
    struct dra_instant since;
    struct dra_timer *timer;
    int n;
    struct {
        enum ha_callback c;
        enum ha_role role;
    } queue[8];
};

struct pgs {
    uv_loop_t *loop;
    struct dra_fworker *files;
    struct pgs_events ev;
    void *arg;
    struct pgs_conf *conf;
    char state_dir[PGS_PATH_MAX];
    int refs;     /* the owner's, and one for each asynchronous thing under way */
    bool closing;

    struct ha_pg facts;
    struct pgs_view view;
    struct json *replication, *slots, *pending; /* owned; what view shows */
    struct json *raised;                        /* owned; HA-223 */
    bool control_valid;
    struct pgs_control control;
    struct pgs_gucs *gucs;
    bool gucs_running;
    struct dra_buf gucs_text;

    struct dra_proc pm;                 /* pid 0 = none */
    struct dra_procwatch *pm_watch;
    struct dra_procwatch *left_watch;
    pid_t pidfile_pid;
    bool exit_unread;                   /* the files were not read since the postmaster's end */
    struct dra_instant adopted_at;      /* when this postmaster became ours to watch */
    struct dra_instant stop_signalled_at; /* when we told it to stop; unset = not */
    char *told;                         /* owned; warnings that were logged last */

    struct { /* a walk that freezes and kills */
        bool active;
        bool wanted; /* until nothing is left */
        int pass;
        struct dra_instant until;
        struct dra_timer *timer;
    } kill;

    struct {
        bool running, again;
        struct dra_instant asked_at;
        struct pgs_fileswork *w;
        struct dra_child *child;
    } fr;
    uint32_t history_timeline;
    char *history_text; /* owned */
    char history_mtime[48];

    struct pgc *hb, *work;
    struct {
        bool running;
        bool quiet; /* asked by a job: changed() only if something did change */
        bool retried;
        struct dra_instant not_after;
        struct pgc_op *op;
    } probe;
    uint32_t received_timeline; /* highest one seen of this postmaster's receiver */
    struct dra_timer *pending_timer;

    struct pgs_job job;
    uv_fs_event_t *control_watch;
    struct pgs_callback_slot slot[2]; /* 0: all but on_reload, 1: on_reload */
};

void pgs_ref(struct pgs *s);
void pgs_unref(struct pgs *s); /* frees with the last one */
void pgs_changed(struct pgs *s);
void pgs_connections_configure(struct pgs *s);
void pgs_probe_internal(struct pgs *s, struct dra_instant not_after, bool quiet);
void pgs_pending_check(struct pgs *s, struct dra_span after);
void pgs_raised_set(struct pgs *s, const char *lines);
void pgs_pending_publish(struct pgs *s, struct json *pending);
void pgs_control_watch(struct pgs *s, bool on);
void pgs_gucs_load(struct pgs *s); /* asynchronous; s->gucs is set when it worked */
/* A connection string for our own connections, with password and address. */
DRA_MUST_USE int pgs_conninfo_for(const struct pgs *s, const struct pgs_user *u, const char *host, const char *hostaddr, int port,
                                  const char *replication, const char *app, const char *options, struct dra_buf *out);
bool pgs_hook_command(const struct pgs_conf *c, const char *name, char *out, size_t out_size);
void pgs_hooks_close(struct pgs *s);
/* Environment additions for tools that connect: PGPASSFILE etc.  `store` keeps the texts. */
struct pgs_env {
    char text[6][PGS_PATH_MAX + 32];
    const char *v[7];
};
void pgs_env_tool(const struct pgs_conf *c, const char *pgoptions, struct pgs_env *out);

#endif
