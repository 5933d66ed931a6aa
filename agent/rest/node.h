/*
 * node.h - what is known of this node, as plain numbers: the part of a snapshot that is looked at with a clock.
 *
 * Filled once by the loop from struct rest_facts, then immutable; views_now_fill() says what it means at an instant.
 * No pointers: it may be handed to another thread as it is.
 */
#ifndef REST_NODE_H
#define REST_NODE_H

#include <dragent/base.h>
#include <dragent/model.h>
#include <dragent/rest.h>
#include <dragent/text.h>

#define VIEWS_PATRONI_VERSION "4.1.4" /* REST-46: the level that is emulated */
#define VIEWS_SQL_SILENT_MS 3000      /* REST-47: from then on an unanswered question is a failed one */

enum views_sync { VIEWS_SYNC_OFF = 0, VIEWS_SYNC_ON, VIEWS_SYNC_QUORUM };

struct views_node {
    char scope[HA_NAME_MAX];
    char name[HA_NAME_MAX];
    char rule[64];
    struct dra_instant at; /* of the turn that it was made in */
    struct dra_span ttl, loop_wait, primary_start_timeout;

    /* agreement */
    bool cluster_valid;              /* "valid snapshot" of REST-50, at `at` */
    struct dra_instant cluster_seen; /* when the store was read last; unset = never */
    bool unlocked;                   /* the leader key is absent, or cluster_valid is false */
    bool paused;
    bool standby_cluster;
    enum views_sync sync_mode;
    bool sync_listed; /* among the standbys of the sync key */
    bool failsafe_enabled;
    bool failsafe_member;
    uint64_t optime;
    int64_t dcs_last_seen_s;
    bool leader; /* the lock is ours until lead_until */
    struct dra_instant lead_until, valid_until, cycle_due;
    int n_members;

    /* the server */
    bool postmaster; /* not known to be gone */
    bool sql_ok;     /* the last question that ended was answered, for this postmaster */
    struct dra_instant asked_at, answered_at;
    enum ha_state state;
    enum ha_role agent_role;
    bool in_recovery;
    uint64_t wal_lsn, received, replayed, latest_end_lsn;
    uint32_t timeline;
    enum ha_repl_state repl;
    bool replay_paused;
    int64_t replay_timestamp_us, start_us;
    int server_version;
    bool pending_restart;
    bool noloadbalance;
    int failover_priority;
    uint64_t max_lag;
    bool guard_armed;
    bool job_running;
};

/* What the node means at one instant. */
struct views_now {
    bool full;       /* REST-42: the full shape; false: the short one */
    bool stalled;    /* the loop is past valid_until */
    bool lock;       /* "lock valid" */
    bool cluster_valid;
    enum ha_state state;
    enum ha_role role;
    enum ha_repl_state repl;
    bool sync_standby, quorum_standby;
};

void views_node_fill(struct views_node *n, const struct rest_facts *f);
/* gave_up: a fresher answer was waited for in vain, so that SQL counts as failed (REST-42, REST-47). */
void views_now_fill(const struct views_node *n, struct dra_instant now, bool gave_up, struct views_now *out);

/* REST-44: the tags that are shown; NULL if none are (or out of memory).  Caller frees. */
struct json *views_tags(const struct json *configured);
/* REST-43 in one of the two shapes; caller frees, NULL = out of memory. */
char *views_document(const struct rest_facts *f, const struct views_node *n, const struct views_now *now);
/* REST-68; caller frees. */
char *views_metrics_text(const struct views_node *n, const struct views_now *now);

/* A tree under construction: any failure sticks. */
struct views_tree {
    struct json *root; /* owned */
    bool failed;
};
void views_put(struct views_tree *t, struct json *obj, const char *key, struct json *v); /* takes v */
struct json *views_u64(uint64_t v);
/* Spaced text (REST-08) of the tree, which is freed; NULL if anything failed. */
char *views_tree_text(struct views_tree *t);

#endif
