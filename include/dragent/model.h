/*
 * model.h - plain data with meaning: names, roles, states, tags, members, the cluster as read from the DCS,
 * settings.  Fixed size, no pointers that own anything, no I/O.  Library dra_model (plain) and dra_model_text
 * (their text form: parsing and formatting of the JSON in the keys and of settings lives in consensus/config).
 *
 * Zeroed memory claims nothing: every enum has 0 = unknown, every fact is three-valued.
 */
#ifndef DRAGENT_MODEL_H
#define DRAGENT_MODEL_H

#include <dragent/base.h>

#define HA_NAME_MAX 128     /* member names, scope: bytes including NUL */
#define HA_URL_MAX 256
#define HA_SYSID_MAX 24
#define HA_SLOT_NAME_MAX 64
#define HA_MEMBERS_MAX 64
#define HA_SLOTS_MAX 64
#define HA_REASON_MAX 256

/* ---- roles and states (HA-03, HA-04) -------------------------------------------------------- */

#define HA_ROLE_MAP(X)                                                                             \
    X(UNKNOWN, "unknown")                                                                          \
    X(PRIMARY, "primary")                                                                          \
    X(STANDBY_LEADER, "standby_leader")                                                            \
    X(REPLICA, "replica")                                                                          \
    X(DEMOTED, "demoted")                                                                          \
    X(PROMOTED, "promoted")                                                                        \
    X(UNINITIALIZED, "uninitialized")
enum ha_role {
#define HA_X(n, t) HA_ROLE_##n,
    HA_ROLE_MAP(HA_X)
#undef HA_X
        HA_ROLE_COUNT
};
const char *ha_role_to_str(enum ha_role r);
enum ha_role ha_role_from_str(const char *s); /* accepts "master"; UNKNOWN if none */

/* The order after UNKNOWN is that of HA-04: number in metrics = enum value - 1. */
#define HA_STATE_MAP(X)                                                                            \
    X(UNKNOWN, "unknown")                                                                          \
    X(INITDB, "initializing new cluster")                                                          \
    X(INITDB_FAILED, "initdb failed")                                                              \
    X(CUSTOM_BOOTSTRAP, "running custom bootstrap script")                                         \
    X(CUSTOM_BOOTSTRAP_FAILED, "custom bootstrap failed")                                          \
    X(CREATING_REPLICA, "creating replica")                                                        \
    X(RUNNING, "running")                                                                          \
    X(STARTING, "starting")                                                                        \
    X(BOOTSTRAP_STARTING, "starting after custom bootstrap")                                       \
    X(START_FAILED, "start failed")                                                                \
    X(RESTARTING, "restarting")                                                                    \
    X(RESTART_FAILED, "restart failed")                                                            \
    X(STOPPING, "stopping")                                                                        \
    X(STOPPED, "stopped")                                                                          \
    X(STOP_FAILED, "stop failed")                                                                  \
    X(CRASHED, "crashed")
enum ha_state {
#define HA_X(n, t) HA_STATE_##n,
    HA_STATE_MAP(HA_X)
#undef HA_X
        HA_STATE_COUNT
};
const char *ha_state_to_str(enum ha_state s);
enum ha_state ha_state_from_str(const char *s);

/* ---- members and the cluster as the DCS shows it -------------------------------------------------- */

struct ha_tags { /* interpreted (HA-170..174); the raw object is kept elsewhere */
    bool nofailover;
    bool nosync;
    bool noloadbalance;
    bool clonefrom;
    bool nostream;
    int failover_priority; /* default 1; 0 if nofailover */
    int sync_priority;
    char replicatefrom[HA_NAME_MAX]; /* "" = none */
};

enum ha_repl_state { HA_REPL_NONE = 0, HA_REPL_STREAMING, HA_REPL_ARCHIVE };

struct ha_member {
    char name[HA_NAME_MAX];
    char conn_url[HA_URL_MAX]; /* "" = unknown */
    char api_url[HA_URL_MAX];
    char version[24];
    char dragent[24]; /* "" = not one of ours (HA-206) */
    enum ha_role role;
    enum ha_state state;
    struct ha_tags tags;
    enum ha_repl_state replication_state;
    uint64_t xlog_location; /* 0 = not given */
    uint64_t receive_lsn;
    uint64_t replay_lsn;
    uint32_t timeline;
    bool pending_restart;
    bool pause;
    bool checkpoint_after_promote_pending; /* key says checkpoint_after_promote:false */
    bool left_in_pause;                    /* ours: the agent stopped during a pause (SAFE-43) */
    int64_t lease;
    int64_t mod_revision;
};

enum ha_init_state { HA_INIT_ABSENT = 0, HA_INIT_EMPTY, HA_INIT_VALID, HA_INIT_INVALID };

struct ha_slot_pos {
    char name[HA_SLOT_NAME_MAX];
    uint64_t lsn;
};

/* One consistent cut of all keys below the prefix (DCS-06, SAFE-19).  Every part keeps its mod_revision, 0 = absent. */
struct ha_cluster {
    int64_t revision;
    uint64_t raft_term;
    uint64_t cluster_id;

    enum ha_init_state initialize;
    char sysid[HA_SYSID_MAX]; /* if HA_INIT_VALID */
    int64_t initialize_rev;

    char leader[HA_NAME_MAX]; /* "" = no leader, whatever the reason */
    int64_t leader_rev;       /* mod_revision of the leader key = the epoch (SAFE-30); 0 = key absent */
    int64_t leader_lease;

    int n_members; /* sorted by name, byte order */
    struct ha_member members[HA_MEMBERS_MAX];
    bool too_many_members;

    uint64_t optime; /* status.optime or legacy */
    int n_slots;     /* status.slots */
    struct ha_slot_pos slots[HA_SLOTS_MAX];
    int n_retain;
    char retain[HA_SLOTS_MAX][HA_SLOT_NAME_MAX];
    char unfenced[HA_NAME_MAX]; /* status.unfenced: who said, while leading in pause, that nothing fences it (SAFE-43) */
    int64_t status_rev;

    struct { /* DCS-35; both names "" = no request */
        char leader[HA_NAME_MAX];
        char member[HA_NAME_MAX];
        bool scheduled;
        bool schedule_invalid; /* unparsable or without zone (DCS-37) */
        int64_t scheduled_at;  /* epoch seconds, wall clock: the one place where a person's time is input */
    } failover;
    int64_t failover_rev;

    struct {
        char leader[HA_NAME_MAX];
        int quorum;
        int n_standbys;
        char standbys[HA_MEMBERS_MAX][HA_NAME_MAX];
    } sync;
    int64_t sync_rev;

    uint32_t history_timeline; /* DCS-44: last known timeline; 0 = missing/invalid */
    int n_history;
    int64_t history_rev;

    int64_t failsafe_rev;
    int64_t config_rev; /* 0 = key absent */
    bool config_valid;  /* an object with content */
};

int ha_member_find(const struct ha_cluster *c, const char *name); /* index or -1 */
/* HA-150: member name -> slot name. */
void ha_slot_name(const char *member, char out[HA_SLOT_NAME_MAX]);
/* Host and port out of "postgres://HOST:PORT/DB" or an api_url; false if there is none. */
bool ha_url_host_port(const char *url, char *host, size_t host_size, int *out_port);

/* ---- settings that the core needs (dynamic configuration after HA-201/206, plus local) ------------------ */

struct ha_settings {
    struct dra_span ttl;
    struct dra_span loop_wait;
    struct dra_span retry_timeout;
    struct dra_span fence_margin;  /* CFG-102, resolved */
    int64_t clock_drift_ppm;       /* CFG-103 */
    uint64_t maximum_lag_on_failover;
    struct dra_span primary_start_timeout;
    struct dra_span primary_stop_timeout;
    struct dra_span handover_after; /* CFG-104; ns < 0 = off */
    struct dra_span primary_race_backoff;
    struct dra_span member_slots_ttl;
    bool check_timeline;
    bool pause;
    bool synchronous_mode; /* refused by the core in this version: see ha/README.md */
    bool failsafe_mode;
    bool use_pg_rewind;
    bool remove_data_directory_on_rewind_failure;
    bool remove_data_directory_on_diverged_timelines;
    bool use_slots;
    bool can_bootstrap; /* the file has a bootstrap section (HA-45) */
    bool guard_required;
    struct ha_tags tags;
};

#endif
