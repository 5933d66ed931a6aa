/*
 * dcs.h - agreement: the interface every store implements, and the cluster view made of its keys.
 * Libraries: dra_dcs (cluster.c, format.c, dcs.c; no I/O), dra_etcd (etcd/), both together dra_consensus;
 * dra_memory_store (memory.c; only tests link it).
 *
 * A store answers in three ways (DCS-82): DRA_OK (with `succeeded` telling a compare's outcome), a definite error
 * (DRA_EREMOTE, DRA_EAUTH, DRA_ENOTFOUND = lease unknown), or no answer (DRA_ETIMEDOUT, DRA_ECONN, DRA_ECANCELED).
 * Threads: loop thread only.
 */
#ifndef DRAGENT_DCS_H
#define DRAGENT_DCS_H

#include <dragent/base.h>
#include <dragent/model.h>
#include <dragent/text.h>

struct uv_loop_s;
struct http_client;

/* ---- transactions ------------------------------------------------------------------------------------ */

enum dcs_cmp_target { DCS_CMP_NONE = 0, DCS_CMP_MOD_REV, DCS_CMP_CREATE_REV, DCS_CMP_VALUE, DCS_CMP_LEASE };
enum dcs_op_kind { DCS_OP_NONE = 0, DCS_OP_PUT, DCS_OP_DELETE, DCS_OP_GET };

#define DCS_CMPS_MAX 8
#define DCS_OPS_MAX 4
struct dcs_cmp {
    enum dcs_cmp_target target;
    const char *key;   /* relative: "leader", "members/a"; the store adds the prefix */
    int64_t number;    /* revision or lease */
    const char *value; /* DCS_CMP_VALUE */
};
struct dcs_op {
    enum dcs_op_kind kind;
    const char *key;
    const char *value;
    int64_t lease; /* 0 = none */
};
struct dcs_txn {
    int n_cmps;
    struct dcs_cmp cmps[DCS_CMPS_MAX];
    int n_success;
    struct dcs_op success[DCS_OPS_MAX];
    int n_failure;
    struct dcs_op failure[DCS_OPS_MAX]; /* GETs: what is there instead */
    /* The answer is the same when the transaction is carried out twice (a mere check, or an unconditional put of the
     * same value).  Only then is it sent again after a lost answer; else that is "no answer" = unknown.  A request that
     * certainly never left (connection refused), or that was certainly not carried out, is always repeated. */
    bool retry_safe;
};

/* ---- answers -------------------------------------------------------------------------------------------- */

struct dcs_answer {
    int err_code;              /* DRA_OK, DRA_EREMOTE, DRA_EAUTH, DRA_ENOTFOUND, DRA_ETIMEDOUT, DRA_ECONN, DRA_ECANCELED */
    char err_msg[256];
    struct dra_instant sent_at;   /* clock reading before the request that was answered was sent (SAFE-29) */
    uint64_t raft_term;
    int64_t revision;
    /* txn */
    bool succeeded;
    int64_t got_mod_rev;       /* first GET of the taken branch: mod_revision, 0 = key absent */
    int64_t got_lease;
    char got_value[HA_NAME_MAX];
    /* lease */
    int64_t lease;             /* grant: the new id; keepalive: the id asked for */
    int64_t ttl_s;             /* granted ttl, whole seconds; 0 = lease unknown or expired (err_code DRA_ENOTFOUND) */
};
typedef void (*dcs_cb)(const struct dcs_answer *a, void *arg);

/* ---- the snapshot: plain part for the core, raw JSON for views --------------------------------------------- */

/* Everything up to c.revision is in it; own writes that succeeded are in it at once and may be newer (DCS-58). */
struct dcs_snapshot { /* reference counted, immutable once published; loop thread only */
    struct ha_cluster c;
    struct json *config;                        /* NULL if absent or invalid */
    struct json *history;                       /* array or NULL */
    struct json *failsafe;
    struct json *status;
    struct json *failover;
    struct json *member_raw[HA_MEMBERS_MAX];    /* parallel to c.members; NULL if unparsable */
    struct dra_instant read_at;                 /* when the question was sent, or the event arrived */
    int refs;
};
struct dcs_snapshot *dcs_snapshot_ref(struct dcs_snapshot *s);
void dcs_snapshot_unref(struct dcs_snapshot *s); /* NULL is fine */

/* One raw key, as a store hands it to cluster.c. */
struct dcs_kv {
    const char *key; /* relative */
    const char *value;
    size_t value_len;
    int64_t mod_revision, create_revision, lease;
};
/* Tolerant parsing (DCS-07, DCS-37, SAFE-17): never fails on content; NULL only when out of memory. */
struct dcs_snapshot *dcs_cluster_parse(const struct dcs_kv *kvs, size_t n, int64_t revision);
/* Exact writing. `raw tags` may be NULL.  All return compact JSON, caller frees, NULL = out of memory. */
struct dcs_member_out { /* DCS-20/21 */
    const struct ha_member *m;
    const struct json *tags;                   /* as configured (HA-172) */
    const struct json *pending_restart_reason; /* or NULL */
    const struct json *scheduled_restart;      /* or NULL */
    const char *proxy_url;                     /* or NULL */
};
char *dcs_format_member(const struct dcs_member_out *o);
char *dcs_format_status(uint64_t optime, const struct ha_slot_pos *slots, int n_slots,
                        const char (*retain)[HA_SLOT_NAME_MAX], int n_retain);
/* NULL or "" leaves a field out; all empty = "{}".  NULL also for a time that cannot be parsed or has no zone (DCS-37). */
char *dcs_format_failover(const char *leader, const char *member, const char *scheduled_at_iso);
/* ISO-8601 -> epoch seconds; *has_zone false: taken as UTC. */
DRA_MUST_USE bool dcs_iso_parse(const char *s, int64_t *out_epoch_s, bool *has_zone);
/* HA-95: the new value of `history` for timeline tl from the text of pg_wal/%08X.history; NULL if nothing is to write. */
char *dcs_format_history(const struct json *old_history, uint32_t tl, const char *history_file, const char *mtime_iso,
                         const char *my_name, int max_lines);
/* Interpretation of tags (HA-170..174), shared by cluster.c, config and peers.  NULL = defaults. */
void dcs_tags_interpret(const struct json *tags, struct ha_tags *out);

/* ---- the store ------------------------------------------------------------------------------------------------ */

struct dcs; /* a store; `vt` is its table */
struct dcs_events {
    /* A new snapshot (after the first read, and after each batch of watch events).  Take a ref to keep it. */
    void (*snapshot)(struct dcs_snapshot *s, void *arg);
    /* The watch is not current (connection lost, silent beyond its liveness rule, no leader): the view may be stale
     * until the next snapshot().  Called once per loss. */
    void (*stale)(const char *why, void *arg);
};
struct dcs_vt {
    const char *name; /* "etcd3", "memory" */
    /* Begin to read and watch the prefix; events come until close. */
    int (*watch_start)(struct dcs *d, const struct dcs_events *ev, void *arg, struct dra_err *err);
    /* Read all now, linearizable; the result arrives as snapshot() before cb. */
    int (*read_start)(struct dcs *d, struct dra_instant not_after, dcs_cb cb, void *arg, struct dra_err *err);
    int (*txn_start)(struct dcs *d, const struct dcs_txn *t, struct dra_instant not_after, dcs_cb cb, void *arg,
                     struct dra_err *err); /* copies all it needs; repeated only as retry_safe says */
    int (*grant_start)(struct dcs *d, int64_t ttl_s, struct dra_instant not_after, dcs_cb cb, void *arg, struct dra_err *err);
    int (*keepalive_start)(struct dcs *d, int64_t lease, struct dra_instant not_after, dcs_cb cb, void *arg, struct dra_err *err);
    int (*delete_prefix_start)(struct dcs *d, struct dra_instant not_after, dcs_cb cb, void *arg, struct dra_err *err); /* ctl remove */
    int (*reconfigure)(struct dcs *d, const struct json *section, struct dra_span ttl, struct dra_span loop_wait,
                       struct dra_span retry_timeout, struct dra_err *err);
    void (*close)(struct dcs *d); /* cancels everything (callbacks run with DRA_ECANCELED), frees asynchronously */
};
struct dcs {
    const struct dcs_vt *vt;
};

/* etcd v3.  `section` is the configuration's etcd3 object (borrowed during the call): host, hosts, url, protocol, port,
 * username, password, cacert, cert, key, use_proxies.  `prefix` is DCS-01's base with a trailing slash. */
DRA_MUST_USE int etcd_open(struct uv_loop_s *loop, struct http_client *http, const struct json *section, const char *prefix,
                           struct dra_span ttl, struct dra_span loop_wait, struct dra_span retry_timeout,
                           struct dcs **out, struct dra_err *err);
/* "/" + namespace + "/" + scope + "/" with runs of "/" collapsed. */
DRA_MUST_USE int dcs_prefix(const char *ns, const char *scope, char *out, size_t out_size);

/* The in-process store (tests): consensus/memory.h. */

#endif
