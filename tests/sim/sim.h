/*
 * sim.h - the simulated world: virtual clock, nodes, etcd, network, PostgreSQL, clients, faults, invariants.
 *
 * Everything follows from one seed.  The core, the engine, the guard's step function, the cluster parser and the store in
 * memory are the ones that ship; the rest are models.
 */
#ifndef SIM_H
#define SIM_H

#include <dragent/dcs.h>
#include <dragent/engine.h>
#include <dragent/guard_step.h>

#include "memory.h"

#define SIM_NODES 3
#define SIM_CLIENTS 4
#define MS INT64_C(1000000)
#define SIM_LINES 100
#define SIM_LINE 320
#define SIM_BUSY_MAX 200000 /* events at one instant: somebody turns in circles */

struct sim;
struct node;
typedef void (*sim_fn)(struct sim *s, struct node *n, uint64_t a, void *p);

/* ---- PostgreSQL ------------------------------------------------------------------------------ */

struct wal_rec {
    uint64_t id;
    uint32_t tl;
};
struct pg_model {
    bool exists;
    bool untrusted;
    bool aside;            /* an older copy was set aside */
    char sysid[HA_SYSID_MAX];
    struct wal_rec *wal;
    size_t n, flushed, cap;
    uint32_t tl;
    uint64_t serial;       /* of the promotion that its history ends with */
    bool standby_signal;
    enum ha_control_state control;
    bool alive, frozen, orphans, stopping;
    bool accepting;
    bool in_recovery;
    bool started_as_standby, promote_signalled, promoting;
    int32_t pid;           /* incarnation; stays after the end */
    int upstream;          /* node index, -1 = nobody */
    bool streaming;
    int64_t gone_at;       /* local clock */
};

/* ---- nodes --------------------------------------------------------------------------------------- */

struct sim_pending { /* one outside action of the agent */
    uint64_t token;
    uint64_t agent_gen;
    bool done;
};

struct node {
    int i;
    char name[8];
    int64_t ppm;           /* local clock rate */
    bool power;            /* the machine runs */
    uint64_t boot;
    struct pg_model pg;

    /* agent */
    struct rt_engine *engine; /* NULL = not running */
    uint64_t agent_gen;
    bool frozen;
    bool turn_due;
    uint64_t wake_gen;
    struct ha_settings settings;
    struct ha_pg facts;
    struct dcs_snapshot *snap;
    int64_t snap_at;
    bool stale;
    struct ha_peer peers[HA_MEMBERS_MAX];
    char peer_names[HA_MEMBERS_MAX][8];
    int n_peers;
    int64_t poll_at;
    bool poll_done;
    uint64_t poll_gen;
    uint64_t job_id;       /* 0 = none */
    struct ha_job job;
    bool job_forked;
    uint64_t job_gen;
    int64_t job_started;
    uint64_t request_id;
    bool shutting_down;
    struct backlog { sim_fn fn; uint64_t a; void *p; uint64_t gen; } *backlog;
    size_t n_backlog, cap_backlog;

    /* guard */
    bool guard_alive, guard_frozen;
    uint64_t guard_gen;    /* its life */
    uint64_t guard_timer;  /* the timer that counts */
    struct guard_state guard;
    struct guard_view stamp;
    bool stamp_there;
    uint64_t stamp_boot;
    uint32_t last_status;
    bool guard_known;      /* the agent's client is connected */
    struct guard_view view;/* as the client knows it */
};

struct event {
    int64_t at;
    uint64_t seq;
    sim_fn fn;
    struct node *n;
    uint64_t a;
    void *p;
};

/* The step that a seed's faults are aimed at (aim.c). */
enum sim_aim {
    AIM_NONE = 0,
    AIM_START,       /* the agent freezes right after it let a primary exec */
    AIM_PROMOTE,     /* ... right after it began a promotion */
    AIM_LATE_ANSWER, /* answers of etcd come late, then the leader is cut off */
    AIM_LATE_GIVE,   /* a release or a move of the key stays long in the network */
    AIM_LATE_TAKE,   /* the create request of an election stays long in the network, while another node leads */
    AIM_HANDOVER,    /* replication breaks while the old primary stops */
    AIM_LAG,         /* a standby falls behind, then the leader dies */
    AIM_COUNT
};

struct sim_opts {
    uint64_t seed;
    int64_t seconds;
    bool verbose;
    bool no_guard;         /* HA_BREAK_GUARD */
    enum sim_aim aim;      /* NONE: as the seed says */
    bool safety_only;      /* stop when the faults end: no healing, no liveness */
    bool quiet_faults;     /* only operator's actions: switchover, restart */
};

struct sim {
    struct sim_opts o;
    uint64_t rng;
    int64_t now;           /* true time */
    uint64_t seq;
    struct event *q;
    size_t n_q, cap_q;
    struct mem_store *etcd;
    struct node nodes[SIM_NODES];
    bool cut_etcd[SIM_NODES][2];       /* [node][0: to etcd, 1: back] */
    bool cut[SIM_NODES][SIM_NODES];    /* one way: from, to */
    int64_t slow_until;    /* messages take long until then */
    int64_t disk_slow_until;
    uint64_t next_id;
    int32_t next_pid;
    bool healing;
    enum sim_aim aim;
    bool aim_ready;        /* begun; the step has not come yet */
    int64_t hold_until;
    int64_t late_answer[SIM_NODES];
    /* acknowledgements */
    uint64_t acked_rows;
    uint64_t next_serial;
    uint64_t acked_serial; /* of the promotion that acknowledged last */
    int acked_node;
    uint64_t *acked;       /* ids */
    size_t n_acked, cap_acked;
    bool orderly;          /* the last leader gave the key away in order since the last promotion */
    char leader_name[16];
    int64_t last_ack_at;
    char *violation;       /* first one found */
    uint64_t digest;       /* of everything that happened, for determinism */
    char (*lines)[SIM_LINE]; /* the last SIM_LINES lines of the schedule, a ring */
    uint64_t n_lines;
    int64_t busy_at;       /* how many events this instant has had */
    uint64_t busy;
    uint64_t promotions, switchovers, rewinds, copies, fences;
};

/* What cannot fail in a model. */
static inline void must(int rc)
{
    assert(rc == 0);
}

/* core.c */
uint64_t sim_rand(struct sim *s);
int64_t sim_between(struct sim *s, int64_t lo, int64_t hi);
bool sim_chance(struct sim *s, int percent);
void sim_at(struct sim *s, int64_t delay, sim_fn fn, struct node *n, uint64_t a, void *p);
void sim_violate(struct sim *s, const char *fmt, ...) DRA_PRINTF(2, 3);
void sim_log(struct sim *s, const struct node *n, const char *fmt, ...) DRA_PRINTF(3, 4);
bool sim_run(const struct sim_opts *o, struct sim *out); /* true = no violation */
void sim_free(struct sim *s);
void sim_print_end(const struct sim *s); /* the end of the schedule, and how every server stands */
int64_t local_now(const struct sim *s, const struct node *n);
int64_t true_delay(const struct sim *s, const struct node *n, int64_t local_instant);
int64_t sim_latency(struct sim *s);
struct node *node_by_name(struct sim *s, const char *name);

/* agent.c */
extern const struct rt_ops sim_ops;
void agent_start(struct sim *s, struct node *n);
void agent_kill(struct sim *s, struct node *n);
void agent_freeze(struct sim *s, struct node *n);
void agent_thaw(struct sim *s, struct node *n);
void agent_touch(struct sim *s, struct node *n); /* something changed: take a turn */
/* Run fn for this agent now, or when it thaws; dropped if it was killed meanwhile. */
void agent_deliver(struct sim *s, struct node *n, sim_fn fn, uint64_t a, void *p);
void agent_dcs_answer(struct sim *s, struct node *n, uint64_t gen, uint64_t token, const struct dcs_answer *a);
struct ops_arg {
    struct sim *s;
    struct node *n;
};

/* net.c */
enum call_kind { CALL_TXN, CALL_GRANT, CALL_KEEPALIVE, CALL_READ };
int net_call(struct sim *s, struct node *n, enum call_kind kind, uint64_t token, const struct dcs_txn *t, int64_t number,
             struct dra_instant not_after);
void net_free(sim_fn fn, void *p); /* drop what an event carries */
int64_t call_patience(const struct node *n); /* how long a call to etcd may take */
void agent_snapshot(struct sim *s, struct node *n); /* send it what the store holds now */

/* pg.c */
uint64_t pg_lsn(size_t index);
uint64_t pg_begin_of(const struct pg_model *p, uint32_t tl);
bool pg_can_ack(const struct pg_model *p);
bool pg_any_process(const struct pg_model *p);
void pg_kill_postmaster(struct sim *s, struct node *n, bool leave_orphans);
void pg_kill_all(struct sim *s, struct node *n);
void pg_power_off(struct sim *s, struct node *n);
void pg_probe_facts(struct sim *s, struct node *n);
void pg_live_facts(struct sim *s, struct node *n);
void pg_files_facts(struct sim *s, struct node *n);
int pg_job_start(struct sim *s, struct node *n, uint64_t id, const struct ha_job *j);
void pg_job_continue(struct sim *s, struct node *n, bool go);
void pg_job_cancel(struct sim *s, struct node *n);
void pg_tick(struct sim *s, struct node *n, uint64_t a, void *p);
void client_tick(struct sim *s, struct node *n, uint64_t client, void *p);
void pg_upstream_check(struct sim *s, struct node *n, const char *member, uint32_t tl, struct ha_upstream_check *out);

/* guard.c */
void guard_replace_soon(struct sim *s, struct node *n); /* the agent finds it silent */
void guard_start(struct sim *s, struct node *n);
void guard_kill(struct sim *s, struct node *n);
void guard_freeze(struct sim *s, struct node *n);
void guard_thaw(struct sim *s, struct node *n);
void guard_server_exited(struct sim *s, struct node *n);
void guard_agents(struct sim *s, struct node *n, uint32_t agents);
void guard_order_send(struct sim *s, struct node *n, uint64_t token, const struct guard_order *o);

/* faults.c */
void faults_begin(struct sim *s);
void faults_heal(struct sim *s);

void faults_join(struct sim *s, struct node *n, uint64_t a, void *p);
void faults_power_cycle(struct sim *s, struct node *n, int64_t back_after);
void faults_switchover(struct sim *s);

/* aim.c */
void aim_begin(struct sim *s);
void aim_on_job(struct sim *s, struct node *n, enum ha_job_kind kind);
void aim_on_exec(struct sim *s, struct node *n);
int64_t aim_hold(struct sim *s, struct node *n, const struct dcs_txn *t);

/* check.c */
void check_step(struct sim *s);
void check_ack(struct sim *s, struct node *n, uint64_t id);
void check_writable(struct sim *s, struct node *n);
void check_promotion(struct sim *s, struct node *n);
void check_before_promotion(struct sim *s, struct node *n);
void check_plan(struct sim *s, struct node *n, const struct ha_world *w, const struct ha_memory *m, const struct ha_plan *p);
void check_job(struct sim *s, struct node *n, const struct ha_job *j);
bool check_converged(struct sim *s, const char **why);

#endif
