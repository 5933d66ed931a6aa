/*
 * guard_step.h - what the agent and the guard say to each other, the guard's stamp, and the guard's pure step function.
 *
 * Plain structs of fixed size and one function without I/O, clock, malloc or globals: the guard's program and the
 * simulator run the same code (library dra_guard_step).  Includes nothing of the project, since the guard links
 * nothing.  All times are CLOCK_BOOTTIME in nanoseconds (the ns of a struct dra_instant), 0 = unset.
 */
#ifndef DRAGENT_GUARD_STEP_H
#define DRAGENT_GUARD_STEP_H

#include <stdbool.h>
#include <stdint.h>

#define GUARD_MAGIC UINT32_C(0x64726764) /* "drgd" */
#define GUARD_VERSION 1
#define GUARD_PATH_MAX 1024
#define GUARD_BOOT_ID_MAX 40
#define GUARD_SOCKET_NAME "guard.sock" /* in the runtime directory, SOCK_SEQPACKET */
#define GUARD_STAMP_NAME "stamp"       /* in the runtime directory, written by the guard alone */
#define GUARD_LOCK_NAME "guard.lock"   /* held by the living guard (flock) */

/* ---- orders and replies --------------------------------------------------------------------------- */

#define GUARD_ORDER_MAP(X)                                                                                             \
    X(NONE, "none")                                                                                                    \
    X(PING, "ping")         /* heartbeat; also says hello and makes a newer generation known */                        \
    X(REGISTER, "register") /* pid, start_ticks, data_dir: the server to watch; the child need not have exec'ed yet */ \
    X(ARM, "arm")           /* deadline_ns, certain_until_ns, epoch, lease; with a pid it registers first */           \
    X(MOVE, "move")         /* a later deadline in the same epoch */                                                   \
    X(DISARM, "disarm")     /* `reason` says by which leave of SAFE-33 */                                              \
    X(FENCE_NOW, "fence")   /* freeze and kill the server at once */                                                   \
    X(QUIT, "quit")         /* end, if not armed */

enum guard_order_kind {
#define GUARD_X(name, text) GUARD_ORDER_##name,
    GUARD_ORDER_MAP(GUARD_X)
#undef GUARD_X
        GUARD_ORDER_COUNT
};

/* Why a server may be disarmed (SAFE-33). */
enum guard_reason {
    GUARD_REASON_NONE = 0,
    GUARD_REASON_STOPPED,    /* no process of it lives: the guard looks for itself and refuses otherwise */
    GUARD_REASON_PAUSE,      /* SAFE-43 */
    GUARD_REASON_UNSIGNALLED /* a promotion was decided, never signalled, withdrawn, and the agent no longer holds */
};

#define GUARD_FLAG_STANDBY UINT32_C(1) /* REGISTER: started with standby.signal on disk */
#define GUARD_FLAG_REPORT UINT32_C(2)  /* ARM: `guard: off` (HA-193): a passed deadline is reported, nothing is killed */

struct guard_order {
    uint32_t magic;
    uint16_t version;
    uint16_t size;
    uint32_t kind; /* enum guard_order_kind */
    uint32_t flags;
    uint64_t generation; /* of the agent; older ones are refused (SAFE-35) */
    uint64_t seq;        /* comes back in the reply */
    int64_t deadline_ns;
    int64_t certain_until_ns;
    int64_t epoch; /* mod_revision of the leader key */
    int64_t lease;
    uint64_t start_ticks; /* field 22 of /proc/PID/stat */
    int32_t pid;
    uint32_t reason; /* enum guard_reason */
    char data_dir[GUARD_PATH_MAX];
};

#define GUARD_STATUS_MAP(X)                                                                                            \
    X(NONE, "none")                                                                                                    \
    X(OK, "ok")                                                                                                        \
    X(MALFORMED, "malformed order")                                                                                    \
    X(OLD_GENERATION, "order of an older agent")                                                                       \
    X(BACKWARD, "the deadline may only move forward")                                                                  \
    X(OLD_EPOCH, "order of an older epoch")                                                                            \
    X(NOT_ARMED, "not armed")                                                                                          \
    X(ARMED, "armed")                                                                                                  \
    X(NO_SERVER, "no server is registered")                                                                            \
    X(NO_PROCESS, "no such process or data directory")                                                                                   \
    X(OTHER_SERVER, "another server is still alive")                                                                   \
    X(STILL_RUNNING, "the server is still running")                                                                    \
    X(FENCING, "the server is being fenced")

enum guard_status {
#define GUARD_X(name, text) GUARD_STATUS_##name,
    GUARD_STATUS_MAP(GUARD_X)
#undef GUARD_X
        GUARD_STATUS_COUNT
};

/* Where the guard stands with ending the server. */
#define GUARD_PHASE_MAP(X)                                                                                             \
    X(NONE, "none")         /* nothing under way */                                                                    \
    X(COUNTING, "counting") /* the postmaster of an unarmed server ended; waiting for the rest to end by itself */     \
    X(FREEZING, "freezing") /* SIGSTOP until nothing of it runs */                                                     \
    X(KILLING, "killing")   /* SIGKILL until nothing of it lives */                                                    \
    X(STUCK, "stuck")       /* all that lives is in state D and was sent SIGKILL: fenced, but not gone (SAFE-34) */

enum guard_phase {
#define GUARD_X(name, text) GUARD_PHASE_##name,
    GUARD_PHASE_MAP(GUARD_X)
#undef GUARD_X
        GUARD_PHASE_COUNT
};

/* Why the last fence was begun. */
#define GUARD_CAUSE_MAP(X)                                                                                             \
    X(NONE, "none")                                                                                                    \
    X(DEADLINE, "deadline passed")                                                                                     \
    X(EXITED, "postmaster ended")                                                                                      \
    X(ORDER, "ordered")

enum guard_cause {
#define GUARD_X(name, text) GUARD_CAUSE_##name,
    GUARD_CAUSE_MAP(GUARD_X)
#undef GUARD_X
        GUARD_CAUSE_COUNT
};

/* What the guard tells without being asked. */
#define GUARD_NOTE_MAP(X)                                                                                              \
    X(NONE, "none")                                                                                                    \
    X(SERVER_EXITED, "server_exited")     /* the postmaster ended; what it left may still live */                      \
    X(FENCE_BEGUN, "fence_begun")                                                                                      \
    X(FENCED, "fenced")                   /* nothing of it can acknowledge any more (`stuck` may be > 0) */            \
    X(SERVER_GONE, "server_gone")         /* no process of it is left */                                               \
    X(DEADLINE_PASSED, "deadline_passed") /* report mode: the deadline passed and nothing was done */

enum guard_note {
#define GUARD_X(name, text) GUARD_NOTE_##name,
    GUARD_NOTE_MAP(GUARD_X)
#undef GUARD_X
        GUARD_NOTE_COUNT
};

const char *guard_order_to_str(uint32_t kind);
const char *guard_status_to_str(uint32_t status);
const char *guard_phase_to_str(uint32_t phase);
const char *guard_cause_to_str(uint32_t cause);
const char *guard_note_to_str(uint32_t note);

#define GUARD_LIMIT_MEMORY UINT32_C(1)   /* its memory is not locked */
#define GUARD_LIMIT_PRIORITY UINT32_C(2) /* neither SCHED_FIFO nor a better nice value */
#define GUARD_LIMIT_OOM UINT32_C(4)      /* oom_score_adj could not be lowered */

/* The whole state as the agent may see it; in every reply, note and stamp. */
struct guard_view {
    uint64_t generation;
    int64_t deadline_ns; /* valid while armed; afterwards the last one */
    int64_t certain_until_ns;
    int64_t epoch;
    int64_t lease;
    uint64_t server_start_ticks;
    int32_t server_pid; /* 0 = none is registered, or the last one is gone */
    uint32_t armed;     /* 0 or 1, like the next three */
    uint32_t report;    /* armed, but only to report */
    uint32_t standby;   /* registered as started with standby.signal */
    uint32_t exited;    /* the postmaster ended, the rest is being looked after */
    uint32_t phase;     /* enum guard_phase */
    uint32_t cause;     /* enum guard_cause, of the fence with the number fence_id */
    uint32_t left;      /* processes that lived at the last look */
    uint32_t stuck;     /* of these: in state D, and sent SIGKILL */
    uint32_t passed;    /* report mode: how often a deadline passed */
    uint32_t limits;    /* GUARD_LIMIT_*: what the guard was not permitted and goes without (HA-194) */
    uint32_t unused;
    uint64_t fence_id;  /* grows by one with each fence begun */
    int64_t fence_begun_ns;
    int64_t fence_frozen_ns; /* nothing ran any more */
    int64_t fence_ended_ns;  /* nothing was left, or all of it stuck; 0 while under way */
};

struct guard_reply {
    uint32_t magic;
    uint16_t version;
    uint16_t size;
    uint32_t kind;   /* enum guard_order_kind; NONE for a note */
    uint32_t status; /* enum guard_status */
    uint32_t note;   /* enum guard_note */
    uint32_t unused;
    uint64_t seq; /* of the order; 0 for a note */
    int64_t now_ns;
    struct guard_view view;
};

/* ---- the stamp (SAFE-37) ----------------------------------------------------------------------------- */

/* Two of them in the file, written in turn: the guard may be killed in the middle of one.  The valid one with the
 * greater seq counts. */
struct guard_stamp {
    uint32_t magic;
    uint16_t version;
    uint16_t size;
    uint64_t seq;
    char boot_id[GUARD_BOOT_ID_MAX];
    uint64_t guard_start_ticks;
    int32_t guard_pid;
    uint32_t unused;
    int64_t written_ns;
    struct guard_view view;
    char data_dir[GUARD_PATH_MAX];
    uint64_t sum; /* guard_stamp_sum(); last field */
};

uint64_t guard_stamp_sum(const struct guard_stamp *s);
/* Whole, of this version and of this boot. */
bool guard_stamp_is_valid(const struct guard_stamp *s, const char *boot_id);
/* The valid one with the greater seq, or NULL. */
const struct guard_stamp *guard_stamp_choose(const struct guard_stamp slots[2], const char *boot_id);

/* ---- the step function --------------------------------------------------------------------------------- */

/* Everything the guard remembers. */
struct guard_state {
    struct guard_view view;
    uint32_t agents;       /* connected */
    int64_t idle_until_ns; /* started, and no agent has come yet */
    int64_t next_pass_ns;
    int64_t freeze_until_ns;
    int64_t stuck_since_ns; /* while counting: since when */
    uint64_t deadline_generation; /* the generation that set deadline_ns */
    bool passed_told;             /* report mode: this deadline was reported */
    char data_dir[GUARD_PATH_MAX];
};

enum guard_event_kind {
    GUARD_EV_NONE = 0,
    GUARD_EV_ORDER,         /* `order`; for REGISTER, and ARM with a pid, also process_found */
    GUARD_EV_TIMER,         /* the instant of guard_actions.timer_ns came, or might have */
    GUARD_EV_SERVER_EXITED, /* the registered postmaster ended (its pidfd says so) */
    GUARD_EV_PASS,          /* the pass that was asked for was made: running, left, stuck */
    GUARD_EV_AGENTS         /* the number of connected agents changed */
};

struct guard_event {
    enum guard_event_kind kind;
    int64_t now_ns;
    const struct guard_order *order;
    bool process_found; /* the process with the order's pid and start_ticks lives */
    uint32_t agents;
    uint32_t running; /* processes of the server that are neither stopped, dead nor in state D */
    uint32_t left;    /* that live (zombies do not) */
    uint32_t stuck;   /* of these: in state D after SIGKILL was sent */
};

/* One walk over the server's processes.  Each is followed by GUARD_EV_PASS. */
enum guard_pass {
    GUARD_PASS_NONE = 0,
    GUARD_PASS_COUNT_ONLY, /* look */
    GUARD_PASS_FREEZE,     /* SIGSTOP the postmaster, then each child's group; look again */
    GUARD_PASS_KILL        /* SIGKILL each child's group, the postmaster last; look again */
};

struct guard_actions {
    bool reply;                   /* send `answer` to whom the order came from */
    struct guard_reply answer;    /* filled if reply */
    enum guard_note notes[3];     /* send to every agent, NONE ends the list */
    bool take_server;             /* watch the process of the order from now on */
    bool drop_server;             /* stop watching: it is gone */
    bool stamp;                   /* write the stamp, before any reply is sent */
    enum guard_pass pass;         /* make this pass now */
    bool exit;                    /* end, after the rest was done */
    int64_t timer_ns;             /* always set: wake up then, 0 = never */
};

/* A new guard: no server, not armed.  Ends by itself if no agent comes within GUARD_IDLE_MS. */
#define GUARD_IDLE_MS 10000
/* With nothing to guard it waits this long for an agent that left: one that is upgraded in place comes back. */
#define GUARD_LINGER_MS 2000
void guard_step_init(struct guard_state *st, int64_t now_ns);

/* A guard that replaces one that died goes on where the stamp says (SAFE-36, 37): `s` is a valid stamp of this boot,
 * server_alive says whether its postmaster still lives.  A deadline that has passed meanwhile is not acted on: the new
 * guard is then unarmed and the agent decides.  Returns whether there is a server to take. */
bool guard_step_resume(struct guard_state *st, const struct guard_stamp *s, bool server_alive, int64_t now_ns);

/* The whole behaviour of the guard: one event in, the actions out.  Never fails. */
void guard_step(struct guard_state *st, const struct guard_event *ev, struct guard_actions *out);

/* A note or answer as it goes over the wire. */
void guard_step_note(const struct guard_state *st, enum guard_note note, int64_t now_ns, struct guard_reply *out);

/* Time to keep between the guard's deadline and certain_until, for a lease of ttl_ms and clocks that differ by at most
 * drift_ppm (safety.md, section 6).  How it is computed: agent/guard/README.md. */
int64_t guard_margin_default_ms(int64_t ttl_ms, int64_t drift_ppm);

#endif
