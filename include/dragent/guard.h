/*
 * guard.h - the agent's side of the guard: start or adopt it, give it orders, know whether it lives.
 * Library dra_guard_client.  Loop thread only.
 *
 * The client keeps one guard alive: it connects to the one of the runtime directory, starts one if there is none, asks
 * it at each heartbeat, and one that ends or answers late is killed and replaced (SAFE-36).  A new guard goes on where
 * the stamp of the old one says, so a replacement needs no orders.  While `up` has not been called, or after `lost`, the
 * agent has to fence by its own deadline.  The plain structs and the step function are in guard_step.h.
 */
#ifndef DRAGENT_GUARD_H
#define DRAGENT_GUARD_H

#include <dragent/base.h>
#include <dragent/guard_step.h>

struct uv_loop_s; /* uv_loop_t */
struct guard_client;

/* ---- runtime directory and stamp ------------------------------------------------------------------------ */

#define GUARD_DIR_MAX 512
/* Make and check the directory that belongs to this data directory (absolute path; need not exist): below
 * $RUNTIME_DIRECTORY (systemd), else /run/dragent if that is there, else /dev/shm/dragent-UID.  Mode 0700 and ours, or
 * DRA_EPERM.  Blocks on tmpfs only. */
DRA_MUST_USE int guard_runtime_dir_make(const char *data_dir, char out[GUARD_DIR_MAX], struct dra_err *err);

/* The guard's stamp, whole and of this boot (SAFE-37); read it after the agent's lock was taken.  DRA_ENOTFOUND: there
 * is none; DRA_ESTALE: of another boot, or torn.  Whether its guard and server still live: dra_proc_is_alive().
 * Blocks on tmpfs only. */
DRA_MUST_USE int guard_stamp_read(const char *runtime_dir, struct guard_stamp *out, struct dra_err *err);

/* ---- the client --------------------------------------------------------------------------------------------- */

struct guard_client_config {
    const char *runtime_dir;    /* copied */
    const char *guard_exe;      /* copied; path of dragent-guard */
    uint64_t generation;        /* 0 = CLOCK_BOOTTIME now, which is greater than that of any agent before */
    bool report_only;           /* guard: off (HA-193) */
    struct dra_span heartbeat;  /* 0 = 1 s: longest time without a question */
    struct dra_span late_after; /* 0 = 100 ms: a third of the default margin; an answer later than this is no answer */
};

struct guard_client_cbs { /* all from the loop, never inside a call of ours */
    /* Connected and answering.  view: where it stands; replaced: it took the place of one that was lost. */
    void (*up)(const struct guard_view *view, bool replaced, void *arg);
    /* It ended, or was late and is being killed.  `up` follows when the next one answers. */
    void (*lost)(const char *why, void *arg);
    /* Told without being asked: server_exited, fence_begun, fenced, server_gone, deadline_passed. */
    void (*note)(enum guard_note note, const struct guard_view *view, void *arg);
};

/* Starts at once to connect.  Errors: DRA_EINVAL, DRA_ETOOLONG, DRA_ENOMEM, DRA_ESYS. */
DRA_MUST_USE int guard_client_open(struct uv_loop_s *loop, const struct guard_client_config *config,
                                   const struct guard_client_cbs *cbs, void *arg, struct guard_client **out,
                                   struct dra_err *err);
/* The guard stays.  Operations under way end with DRA_ECANCELED, then on_closed (may be NULL) is called, once. */
void guard_client_close(struct guard_client *c, void (*on_closed)(void *arg));

bool guard_client_is_up(const struct guard_client *c);
uint64_t guard_client_generation(const struct guard_client *c);
/* As of the last message; zero before the first. */
const struct guard_view *guard_client_view(const struct guard_client *c);

/* err: NULL = done.  Else DRA_ETIMEDOUT, DRA_ECONN (guard lost before it answered: unknown whether it was done),
 * DRA_ECANCELED, or DRA_ESTATE (refused; `status` says why).  view: as answered, NULL without an answer. */
typedef void (*guard_client_cb)(const struct dra_err *err, enum guard_status status, const struct guard_view *view,
                                void *arg);

/* Each starts one order (conventions.md, section 7).  At once: DRA_ECONN = the guard is not up, DRA_EBUSY = too many. */

struct guard_server { /* what to guard */
    int32_t pid;      /* 0 = whatever is registered */
    uint64_t start_ticks;
    const char *data_dir;
    bool standby; /* started with standby.signal on disk: as a new postmaster it disarms (SAFE-33) */
};
struct guard_deadline {
    struct dra_instant deadline; /* certain_until - margin */
    struct dra_instant certain_until;
    int64_t epoch;
    int64_t lease;
};
DRA_MUST_USE int guard_client_register(struct guard_client *c, const struct guard_server *s,
                                       struct dra_instant not_after, guard_client_cb cb, void *arg);
/* Register (unless s->pid is 0) and arm, in one order.  A deadline that has passed is acted on at once. */
DRA_MUST_USE int guard_client_arm(struct guard_client *c, const struct guard_server *s, const struct guard_deadline *d,
                                  struct dra_instant not_after, guard_client_cb cb, void *arg);
/* Same epoch and lease as armed for; never backward. */
DRA_MUST_USE int guard_client_move(struct guard_client *c, const struct guard_deadline *d, struct dra_instant not_after,
                                   guard_client_cb cb, void *arg);
DRA_MUST_USE int guard_client_disarm(struct guard_client *c, enum guard_reason reason, struct dra_instant not_after,
                                     guard_client_cb cb, void *arg);
/* Freeze and kill the registered server; done when nothing of it can acknowledge (view->stuck > 0: some wait for I/O). */
DRA_MUST_USE int guard_client_fence(struct guard_client *c, struct dra_instant not_after, guard_client_cb cb, void *arg);
/* Ask the guard to end (orderly stop of the agent).  After success the client neither starts nor connects again. */
DRA_MUST_USE int guard_client_quit(struct guard_client *c, struct dra_instant not_after, guard_client_cb cb, void *arg);

#endif
