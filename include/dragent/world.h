/*
 * world.h - what the core sees (world), what it remembers (memory) and what it wants (plan).  Plain data.
 *
 * The world is one picture, built once per turn by the runtime (or by the simulator); the core reads nothing else.
 * Facts are three-valued and say when their question was SENT; unset instants mean "never".
 */
#ifndef DRAGENT_WORLD_H
#define DRAGENT_WORLD_H

#include <dragent/base.h>
#include <dragent/model.h>

/* ---- the local server --------------------------------------------------------------------------- */

enum ha_datadir {
    HA_DATADIR_UNKNOWN = 0, /* not looked at yet */
    HA_DATADIR_EMPTY,       /* section 5 of HA: no pg_control and nothing of value */
    HA_DATADIR_VALID,
    HA_DATADIR_UNREADABLE,
    HA_DATADIR_UNTRUSTED,   /* the marker of a destructive job that did not finish lies beside it */
};
const char *ha_datadir_to_str(enum ha_datadir d);

#define HA_CONTROL_MAP(X)                                                                          \
    X(UNKNOWN, "unknown")                                                                          \
    X(STARTING_UP, "starting up")                                                                  \
    X(SHUT_DOWN, "shut down")                                                                      \
    X(SHUT_DOWN_IN_RECOVERY, "shut down in recovery")                                              \
    X(SHUTTING_DOWN, "shutting down")                                                              \
    X(IN_CRASH_RECOVERY, "in crash recovery")                                                      \
    X(IN_ARCHIVE_RECOVERY, "in archive recovery")                                                  \
    X(IN_PRODUCTION, "in production")
enum ha_control_state {
#define HA_X(n, t) HA_CONTROL_##n,
    HA_CONTROL_MAP(HA_X)
#undef HA_X
        HA_CONTROL_COUNT
};
const char *ha_control_to_str(enum ha_control_state s);
enum ha_control_state ha_control_from_str(const char *s);

struct ha_pg {
    /* The data directory, read with nothing of the server alive, or as last read. */
    enum ha_datadir datadir;
    char sysid[HA_SYSID_MAX];
    int major; /* 15; 0 = unknown */
    enum ha_control_state control;
    uint64_t checkpoint_lsn;      /* latest checkpoint location */
    uint64_t checkpoint_end_lsn;  /* end of that record if it is a shutdown checkpoint and known, else 0 */
    uint32_t control_timeline;    /* latest checkpoint's TimeLineID */
    uint64_t timeline_begin_lsn;  /* where its history file says that this timeline begins; 0 = timeline 1 or unknown */
    uint64_t min_recovery_lsn;
    uint32_t min_recovery_timeline;
    bool can_rewind;              /* wal_log_hints or data checksums */
    bool standby_signal;          /* standby.signal (or recovery.signal) is on disk */
    struct dra_instant files_at;  /* when the above was read; unset = never */

    /* The processes (SAFE-34). */
    enum dra_tri postmaster;      /* YES: alive.  NO: gone */
    enum dra_tri leftovers;       /* YES: no postmaster, but processes of the server live */
    int32_t pid;
    uint64_t pid_start_ticks;
    struct dra_instant gone_at;   /* when the postmaster's end was seen; unset while it runs */
    bool gone_orderly;            /* its pid file went with it: somebody stopped it (HA-57 [D]) */
    bool started_as_standby;      /* this postmaster was started with standby.signal on disk, by us or as found */
    bool promote_signalled;       /* a promotion of this postmaster was asked for, by us */

    /* The last probe that was answered, and the last one asked. */
    enum ha_state state;
    struct dra_instant state_since;
    struct dra_instant asked_at;
    struct dra_instant answered_at; /* send time of the last question that was answered; unset = never */
    enum dra_tri accepting;         /* of the last probe */
    enum dra_tri in_recovery;       /* of the last answer for THIS postmaster; UNKNOWN before the first one */
    uint64_t wal_lsn;               /* primary: flush position */
    uint64_t receive_lsn, replay_lsn;
    uint32_t timeline;              /* primary: of the current WAL file; standby: received, else control file */
    enum ha_repl_state replication_state;
    bool replay_paused;

    /* What the configuration on disk makes it follow. */
    bool upstream_known;             /* false: not written by this agent yet */
    char upstream[HA_NAME_MAX];      /* member name, "" = nobody */
    char upstream_conn_url[HA_URL_MAX];
};

/* ---- lease, guard, peers --------------------------------------------------------------------------- */

struct ha_lease {
    int64_t id;                       /* 0 = none */
    struct dra_span ttl;              /* as granted */
    struct dra_span asked_ttl;        /* as asked for; differs from settings.ttl once that was changed */
    struct dra_instant refreshed_at;  /* SEND time of the last grant or keepalive that succeeded */
    uint64_t refreshed_term;          /* raft term of its answer: a deposed etcd leader answers keepalives, too (WIN-31) */
    bool lost;                        /* a definite answer said: unknown or expired, or the key check failed (SAFE-29) */

    int64_t epoch;                    /* the epoch certain_until speaks of; 0 = none */
    struct dra_instant certain_until; /* SAFE-29; unset = no certainty */
    bool given_away;                  /* a release or a move of `epoch` was sent and not answered with "did not happen" (SAFE-31) */

    bool renew_inflight;
    struct dra_instant renew_sent_at;     /* of the one in flight, else of the last one */
    struct dra_instant unanswered_since;  /* SEND time of the first call that got no answer since the last good one; unset = fine */
};

struct ha_guard {
    enum dra_tri alive;             /* our client is connected and it answers in time */
    bool armed;
    int32_t pid;                    /* postmaster it watches; 0 = none */
    uint64_t pid_start_ticks;
    struct dra_instant deadline;    /* confirmed by the guard */
    int64_t epoch;
    bool fenced;                    /* it is ending the server, or what the server left, right now */
    bool inflight;                  /* an order is on its way */

    bool stamp_valid;               /* found at agent start: same boot, untorn, armed (SAFE-37) */
    int64_t stamp_epoch, stamp_lease;
    struct dra_instant stamp_deadline;
};

struct ha_peer { /* parallel to cluster.members; the row of our own member stays zero */
    struct dra_instant asked_at;    /* send time of the poll its data came from */
    bool answered;                  /* HA-76: reachable with an xlog object */
    bool failed;                    /* asked in this round and given up */
    enum dra_tri in_recovery;
    uint64_t position;              /* max(received, replayed); 0 for a primary */
    uint32_t timeline;
    bool nofailover;
    bool watchdog_failed;
    int failover_priority;
};

/* Answer to CHECK_UPSTREAM (HA-145): asked over a replication connection. */
struct ha_upstream_check {
    char member[HA_NAME_MAX];
    struct dra_instant asked_at;
    bool answered;                  /* false: not asked, or failed (`failed`) */
    bool failed;
    enum dra_tri in_recovery;       /* of that server */
    char sysid[HA_SYSID_MAX];
    uint32_t timeline;
    uint32_t local_timeline;        /* the timeline of ours that `fork_lsn` speaks of */
    bool has_fork;                  /* its history has a line for local_timeline (or it is the same timeline) */
    uint64_t fork_lsn;              /* where its history leaves local_timeline; 0 if same timeline */
    uint64_t begin_lsn;             /* where, in its history, local_timeline begins; 0 = timeline 1 or unknown */
    uint64_t flush_lsn;             /* its position when asked */
};

/* ---- jobs and effects --------------------------------------------------------------------------------- */

#define HA_JOB_MAP(X)                                                                              \
    X(NONE, "none")                                                                                \
    X(INITDB, "bootstrap")                 /* initdb or custom method; files written; not started */\
    X(POST_BOOTSTRAP, "post_bootstrap")    /* roles, post_bootstrap script */                      \
    X(BASEBACKUP, "create replica")        /* from `member`, into an empty place; what was there is set aside first */ \
    X(START_PRIMARY, "start primary")      /* forks, waits for the guard, then execs (SAFE-33) */  \
    X(START_STANDBY, "start standby")      /* standby.signal before the postmaster; follows `member` or nobody */ \
    X(STOP, "stop")                                                                                \
    X(PROMOTE, "promote")                                                                          \
    X(SINGLE_USER, "crash recovery")       /* doing crash recovery in a single user mode (HA-144) */ \
    X(REWIND, "pg_rewind")                 /* against `member` */                                  \
    X(DROP_ASIDE, "remove old copy")       /* what a new copy has replaced */                      \
    X(SET_ASIDE, "set aside")              /* failed bootstrap: move the directory to DIR.failed */
enum ha_job_kind {
#define HA_X(n, t) HA_JOB_##n,
    HA_JOB_MAP(HA_X)
#undef HA_X
        HA_JOB_COUNT
};
const char *ha_job_to_str(enum ha_job_kind k);

enum ha_stop_mode {
    HA_STOP_NONE = 0,
    HA_STOP_FAST,      /* SIGINT; then the ladder: immediate, kill */
    HA_STOP_IMMEDIATE, /* SIGQUIT; then kill */
    HA_STOP_KILL,      /* freeze and kill every process: what the guard does */
};
const char *ha_stop_to_str(enum ha_stop_mode m);

struct ha_job {
    enum ha_job_kind kind;
    char member[HA_NAME_MAX];      /* source or upstream; "" = none */
    enum ha_stop_mode mode;        /* STOP */
    bool checkpoint_first;         /* STOP: CHECKPOINT while still serving */
    struct dra_span checkpoint_limit; /* STOP: go on without it after this; 0 = timeout */
    struct dra_span timeout;       /* STOP: of the fast step; START: until accepting; 0 = the room's default */
    struct dra_instant not_after;  /* PROMOTE, START_PRIMARY: do not act after this instant; unset = no guard */
    int64_t epoch;                 /* PROMOTE, START_PRIMARY: only in this lease epoch; 0 = no guard */
};

enum ha_job_phase { HA_PHASE_IDLE = 0, HA_PHASE_RUNNING, HA_PHASE_FORKED, HA_PHASE_CANCELLING };
struct ha_job_result {
    enum ha_job_kind kind; /* NONE: no job has ended yet */
    uint64_t id;
    bool ok;
    int err_code;          /* enum dra_code */
    char msg[HA_REASON_MAX];
    char member[HA_NAME_MAX];
    enum ha_stop_mode mode;
    struct dra_instant started_at, ended_at;
};
struct ha_job_status {
    enum ha_job_phase phase;
    struct ha_job job; /* while phase != IDLE */
    uint64_t id;
    struct dra_instant started_at;
    struct dra_instant progress_at;
    int32_t forked_pid; /* HA_PHASE_FORKED: the child that waits for the guard */
    uint64_t forked_start_ticks;
    struct ha_job_result last;
};

#define HA_EFFECT_MAP(X)                                                                           \
    X(NONE, "none")                                                                                \
    /* agreement */                                                                                \
    X(GRANT, "grant")            /* a new lease of settings.ttl */                                 \
    X(KEEPALIVE, "keepalive")    /* refresh the lease (not a renewal of the leader key) */         \
    X(RENEW, "renew")            /* keepalive + key check in one raft term (SAFE-29); moves the guard's deadline */ \
    X(ACQUIRE, "acquire")        /* create-only put of leader with the facts it rests on (SAFE-32) */ \
    X(REATTACH, "reattach")      /* put the key anew under compare of its epoch: own lease, new epoch (SAFE-31) */ \
    X(RELEASE, "release")        /* delete under compare of the epoch */                           \
    X(MOVE, "move")              /* put `name` with its member lease under compare of the epoch (DCS-54a) */ \
    X(PUT_MEMBER, "put member")                                                                    \
    X(PUT_STATUS, "put status")  /* `lsn` = optime; final: keeps the slots */                      \
    X(PUT_HISTORY, "put history")                                                                  \
    X(INIT_RACE, "initialize race")                                                                \
    X(INIT_SET, "put initialize")                                                                  \
    X(INIT_CANCEL, "delete initialize")                                                            \
    X(PUT_CONFIG, "put config")                                                                    \
    X(CLEAR_FAILOVER, "clear failover") /* compare of failover_rev */                              \
    X(READ_DCS, "read dcs")      /* a fresh linearizable read */                                   \
    /* questions */                                                                                \
    X(POLL_PEERS, "poll peers")                                                                    \
    X(PROBE, "probe")                                                                              \
    X(READ_FILES, "read files")  /* control data, signal files, processes */                       \
    X(CHECK_UPSTREAM, "check upstream") /* of member `name` (HA-145) */                            \
    /* guard */                                                                                    \
    X(GUARD_ARM, "arm guard")    /* register the server (or forked child), arm with certain_until - margin */ \
    X(GUARD_DISARM, "disarm guard")                                                                \
    X(GUARD_FENCE, "fence")      /* freeze and kill now */                                         \
    /* server, without a job */                                                                    \
    X(FOLLOW, "follow")          /* recovery settings for upstream `name` ("" = nobody), reload */ \
    X(RELOAD, "reload")                                                                            \
    X(CHECKPOINT, "checkpoint")                                                                    \
    X(SLOTS, "slots")            /* create and drop physical member slots as wanted by the plan */ \
    X(CALLBACK, "callback")      /* on_role_change ... with `role` */                              \
    X(JOB_CONTINUE, "continue")  /* START_PRIMARY's forked child: exec if `ok`, else end */        \
    /* outside */                                                                                  \
    X(REPLY, "reply")            /* request `id` ends: `ok`, `text` */                             \
    X(EXIT, "exit")              /* the agent ends with exit code `number` */
enum ha_effect_kind {
#define HA_X(n, t) HA_EFFECT_##n,
    HA_EFFECT_MAP(HA_X)
#undef HA_X
        HA_EFFECT_COUNT
};
const char *ha_effect_to_str(enum ha_effect_kind k);

#define HA_CALLBACK_MAP(X)                                                                         \
    X(NONE, "") X(ON_START, "on_start") X(ON_STOP, "on_stop") X(ON_RESTART, "on_restart")          \
    X(ON_RELOAD, "on_reload") X(ON_ROLE_CHANGE, "on_role_change")
enum ha_callback {
#define HA_X(n, t) HA_CALLBACK_##n,
    HA_CALLBACK_MAP(HA_X)
#undef HA_X
        HA_CALLBACK_COUNT
};
const char *ha_callback_to_str(enum ha_callback c);

struct ha_effect {
    enum ha_effect_kind kind;
    int after;                    /* index+1 of the effect that must have SUCCEEDED before; 0 = none */
    struct dra_instant not_after; /* dangerous effects: dropped (and reported as refused) once this has passed */
    int64_t epoch;                /* only in this lease epoch; 0 = any */
    char name[HA_NAME_MAX];       /* MOVE, FOLLOW, CHECK_UPSTREAM */
    int64_t lease;                /* MOVE: the candidate's */
    uint64_t lsn;                 /* PUT_STATUS */
    bool final;                   /* PUT_STATUS: last words before a release (DCS-30) */
    enum ha_role role;            /* CALLBACK, PUT_MEMBER */
    enum ha_callback callback;
    uint64_t request_id;          /* REPLY */
    bool ok;                      /* REPLY */
    int64_t number;               /* EXIT */
    char text[HA_REASON_MAX];     /* REPLY, EXIT */
};

/* How the engine's last attempt at each kind of effect went: the core sees it, so that it need not remember. */
struct ha_effect_status {
    bool inflight;
    struct dra_instant started_at;  /* of the last attempt */
    struct dra_instant ended_at;    /* unset while in flight */
    int result;                     /* of the last one that ended: DRA_OK, DRA_ECONFLICT (compare failed), DRA_ESTATE (refused by its guards), ... */
    int64_t epoch;                  /* ACQUIRE/REATTACH that succeeded: the new epoch */
};

/* ---- requests --------------------------------------------------------------------------------------------- */

enum ha_request_kind { HA_REQ_NONE = 0, HA_REQ_RESTART, HA_REQ_REINIT };
struct ha_request { /* one at a time; stays in the world until a REPLY ends it */
    uint64_t id;
    enum ha_request_kind kind;
    struct dra_span timeout;     /* RESTART: start timeout, 0 = default */
    bool force;                  /* REINIT */
    bool from_leader;            /* REINIT */
    struct dra_instant asked_at;
};

/* ---- world ----------------------------------------------------------------------------------------------------- */

struct ha_world {
    struct dra_instant now;
    int64_t wall_s;                 /* for scheduled_at only */
    uint64_t entropy;
    bool late;                      /* this turn came later than loop_stall_max */
    struct dra_instant started_at;  /* of the agent */
    char me[HA_NAME_MAX];
    struct ha_settings s;

    bool cluster_known;               /* a snapshot was read since start */
    bool cluster_stale;               /* the watch is not current */
    struct dra_instant cluster_at;    /* when that snapshot's question was sent or its event came */
    struct ha_cluster cluster;

    struct ha_lease lease;
    struct ha_guard guard;
    struct ha_pg pg;
    struct ha_peer peers[HA_MEMBERS_MAX];
    struct dra_instant poll_at;       /* when the last poll round was begun */
    bool poll_done;                   /* every peer of that round answered or was given up */
    struct ha_upstream_check upstream;
    struct ha_job_status job;
    struct ha_effect_status effects[HA_EFFECT_COUNT];
    struct ha_request request;
    bool shutdown;                    /* SIGTERM or SIGINT came */
    struct dra_instant shutdown_at;
};

/* ---- memory ------------------------------------------------------------------------------------------------------- */

enum ha_rewind { HA_REWIND_NONE = 0, HA_REWIND_CHECK, HA_REWIND_NEED, HA_REWIND_DONE, HA_REWIND_FAILED };
const char *ha_rewind_to_str(enum ha_rewind r);
enum ha_handover { HA_HANDOVER_NONE = 0, HA_HANDOVER_STOP, HA_HANDOVER_CONFIRM, HA_HANDOVER_GIVE, HA_HANDOVER_GIVEN, HA_HANDOVER_BACK };
const char *ha_handover_to_str(enum ha_handover h);

struct ha_memory {
    int rule;                        /* index into the rule table of the last decision, -1 at first */
    struct dra_instant rule_since;
    enum ha_role role;               /* as published and as callbacks know it */
    enum ha_role callback_role;      /* last role a callback was due for */

    struct dra_instant unlocked_since;
    char last_leader[HA_NAME_MAX];   /* who held the key when we last saw it held */
    bool last_leader_paused;         /* its own key said that it was paused: nothing fences it (SAFE-43) */
    int64_t elected_epoch;           /* the epoch that an election of ours (or a move by name to us) stands behind */
    struct dra_instant poll_wanted_at;/* an election needs peers polled after this instant */
    struct dra_instant given_at;     /* DCS-55: released or moved; no acquisition within 2 s */
    struct dra_instant last_beat_at; /* last member key / status write cadence */
    struct dra_instant outage_demoted_at;

    enum ha_rewind rewind;
    char rewind_upstream[HA_NAME_MAX];
    int single_user_tries;
    int start_failures;              /* in a row */
    struct dra_instant retry_at;     /* back-off after a failed start, copy or rewind */
    struct dra_instant crash_at;     /* when the crash of a primary that is being restarted in place was seen */
    bool was_primary;                /* the postmaster that ended last was a primary with the lock, started or adopted by us */

    bool bootstrapping;              /* we won the race and have not finished */
    bool bootstrap_failed;
    bool post_bootstrapped;
    bool copying;                    /* a base backup of ours replaced the directory; drop what was set aside once it streams */
    uint64_t seen_job_id;            /* results up to this one are digested */
    uint64_t seen_request_id;

    enum ha_handover handover;
    int64_t handover_rev;            /* failover_rev of the request */
    char handover_to[HA_NAME_MAX];   /* "" = best */
    struct dra_instant handover_at;
    struct dra_instant handover_stopped_at;
    uint64_t shutdown_lsn;           /* position that the candidate has to confirm */
    bool release_for_shutdown;

    uint64_t restart_request;        /* request being carried out; 0 = none */
    bool restart_stopped;
    uint64_t reinit_request;
    bool reclone;                    /* the directory is to be replaced by a new copy */
    bool demoted;                    /* start as standby next, whatever the directory looks like (SAFE-04) */
    bool checkpoint_done;            /* HA-147 */
    uint32_t history_written;
    char follow_tried[HA_NAME_MAX];
    bool was_paused;
    bool exit_planned;
    struct dra_instant promote_failed_at; /* HA-70a: no race for ttl afterwards */
    struct dra_instant promoted_at;  /* when the last promotion of ours ended */
    struct dra_instant upstream_asked_at; /* last CHECK_UPSTREAM that was wanted */
    struct dra_instant stuck_since;  /* since when this standby does not stream and stands at stuck_lsn; unset = it moves */
    uint64_t stuck_lsn;
    int64_t clear_rev;               /* failover_rev that we have decided to clear */

    enum ha_role pub_role;           /* as in the last PUT_MEMBER, so that changes are published at once */
    enum ha_state pub_state;
    uint32_t pub_timeline;
    enum ha_repl_state pub_repl;
    int pub_members;
};

/* ---- plan ------------------------------------------------------------------------------------------------------------ */

#define HA_EFFECTS_MAX 16
struct ha_plan {
    int rule;                        /* index into the table */
    char reason[HA_REASON_MAX];      /* the sentence for the log (CLI-115/116 wording) */
    char detail[HA_REASON_MAX];      /* facts: "key=value key=value" */
    int n_notes;                     /* further lines of this decision, each logged when it changes */
    char notes[8][HA_REASON_MAX];
    int n_effects;
    struct ha_effect effects[HA_EFFECTS_MAX];
    struct ha_job job;               /* kind NONE: let a running one go on */
    bool cancel_job;                 /* cancel the running one (cancel ladder); never a promotion */
    struct dra_instant wake_at;      /* unset: loop_wait rules */
    enum ha_role role;               /* to publish */
    bool leader;                     /* this node leads: /primary may say 200 until valid_until */
    struct dra_instant lead_until;   /* unset = not leading */
    int n_wanted_slots;              /* for SLOTS */
    struct ha_slot_pos wanted_slots[HA_SLOTS_MAX];
};

/* ---- the core ------------------------------------------------------------------------------------------------------------ */

/* Decide.  Pure: no I/O, no clock, no allocation; the same for the agent, the simulator and explain. */
void ha_decide(const struct ha_world *w, struct ha_memory *m, struct ha_plan *p);
void ha_memory_init(struct ha_memory *m);
struct ha_rule_doc {
    const char *name; /* "leader.hold": what users see */
    const char *doc;
    const char *spec; /* rule IDs, for the compat table */
};
int ha_rule_count(void);
const struct ha_rule_doc *ha_rule_doc(int rule); /* never NULL for 0 <= rule < count */
/* "would this node be promoted now, and why not": one sentence; true = it would (if no leader held the key). */
bool ha_explain_promotion(const struct ha_world *w, const struct ha_memory *m, char *out, size_t out_size);
/* The server may be acknowledging writes, or may begin to: the dangerous value where unknown. */
bool ha_pg_may_write(const struct ha_pg *pg);
/* HA-09. */
uint64_t ha_pg_position(const struct ha_pg *pg);
/* When the guard has to strike for certainty that ends at `certain_until`. */
struct dra_instant ha_fence_at(const struct ha_settings *s, struct dra_instant certain_until);
/* Longest time between two renewals (design.md, "Leases and the guard"). */
struct dra_span ha_renew_every(const struct ha_settings *s);

/* Switches for the simulator's own test: which safety rules are off.  Only the test build of the core has this. */
#ifdef DRA_HA_BREAKABLE
extern uint64_t ha_broken; /* bits of enum ha_break */
#endif
#define HA_BREAK_MAP(X)                                                                            \
    X(FENCE_UNCERTAIN, "fence.uncertain")                                                          \
    X(FENCE_LOST, "fence.lost")                                                                    \
    X(DEMOTE_OUTAGE, "outage.demote")                                                              \
    X(ARM_BEFORE_PROMOTE, "guard.arm-before-promote")                                              \
    X(ARM_BEFORE_START, "guard.arm-before-start")                                                  \
    X(SEND_TIME, "lease.send-time")                                                                \
    X(SAME_TERM, "lease.same-term")                                                                \
    X(EPOCH_COMPARE, "lease.epoch-compare")                                                        \
    X(GIVEN_AWAY, "lease.given-away")                                                              \
    X(ACQUIRE_FACTS, "election.facts")                                                             \
    X(ELECT_AGAIN, "election.again")                                                               \
    X(LAG_LIMIT, "election.lag")                                                                   \
    X(DEFER_AHEAD, "election.ahead")                                                               \
    X(STANDBY_FIRST, "start.standby-first")                                                        \
    X(ALL_GONE, "stop.all-gone")                                                                   \
    X(CONFIRM_SHUTDOWN, "handover.confirm")                                                        \
    X(REWIND_CHECK, "rejoin.diverged")                                                             \
    X(GUARD, "guard")
enum ha_break {
#define HA_X(n, t) HA_BREAK_##n,
    HA_BREAK_MAP(HA_X)
#undef HA_X
        HA_BREAK_COUNT
};

#endif
