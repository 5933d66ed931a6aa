/*
 * rest.h - the HTTP server: a thread of its own that answers from an immutable snapshot.  Library dra_rest.
 *
 * The loop thread builds a snapshot after each turn that changed something and swaps it in through one atomic slot; the one
 * REST thread takes it from there (conventions.md, section 7).  GETs ask neither etcd nor PostgreSQL.  Calls that change
 * something come to the loop as struct rest_request and wait suspended for rest_reply().
 */
#ifndef DRAGENT_REST_H
#define DRAGENT_REST_H

#include <dragent/base.h>
#include <dragent/conf.h>
#include <dragent/dcs.h>
#include <dragent/model.h>
#include <dragent/pgs.h>
#include <dragent/world.h>

struct uv_loop_s;
struct rest; /* the server */

/* ---- snapshot ------------------------------------------------------------------------------------- */

struct rest_facts { /* everything borrowed during rest_publish() */
    const struct ha_world *world;
    const struct ha_plan *plan;
    const struct ha_memory *memory;
    const struct dcs_snapshot *cluster; /* may be NULL */
    const struct pgs_view *pg;
    const struct json *tags;            /* as configured, may be NULL */
    const struct json *effective;       /* effective configuration */
    const char *scope;
    int64_t dcs_last_seen_s;            /* wall clock of the last successful read */
    struct dra_instant valid_until;     /* past it the loop counts as stalled: /primary says 503 */
    struct dra_instant cycle_due;       /* REST-60: when the next cycle is due */
    const char *world_json;             /* body of GET /dragent/world; may be NULL */
    const struct json *scheduled_restart; /* or NULL */
};

/* ---- requests ---------------------------------------------------------------------------------------- */

enum rest_kind {
    REST_NONE = 0,
    REST_FRESH,       /* GET that needs a position fresher than the snapshot (REST-47): probe, publish, rest_resume_fresh() */
    REST_CLUSTER,     /* GET /cluster: one linearizable read for all who wait (REST-64) */
    REST_PATCH_CONFIG,
    REST_SWITCHOVER,
    REST_FAILOVER,
    REST_DELETE_SWITCHOVER,
    REST_RESTART,
    REST_RELOAD,
    REST_REINIT,
    REST_KIND_COUNT
};
struct rest_request {
    uint64_t id;
    enum rest_kind kind;
    const struct json *body; /* parsed object, or NULL; borrowed until rest_reply() */
    struct dra_instant asked_at;
};
typedef void (*rest_request_cb)(const struct rest_request *rq, void *arg); /* loop thread */

/* Open the listener and start the thread.  cfg is copied.  DRA_EINVAL: TLS is asked for, which this version cannot do. */
DRA_MUST_USE int rest_open(struct uv_loop_s *loop, const struct conf_rest *cfg, rest_request_cb cb, void *arg, struct rest **out,
                           struct dra_err *err);
/* Take on credentials and the address to listen at (a host name there: only at start, since its lookup may block). */
DRA_MUST_USE int rest_reconfigure(struct rest *r, const struct conf_rest *cfg, struct dra_err *err);
int rest_port(const struct rest *r); /* the port that is listened at (listen_port 0: what the kernel chose) */
/* Build a snapshot of the facts and hand it to the REST thread. */
void rest_publish(struct rest *r, const struct rest_facts *f);
/* Answer a request; content_type NULL = "text/html".  body NULL: the error page of that status (REST-06).  status 0: drop
 * the connection without any bytes (REST-09).  An unknown id (its client was given up) is ignored.  The request's body is
 * freed by this. */
void rest_reply(struct rest *r, uint64_t id, int status, const char *content_type, const char *body);
/* Release every GET that waits for a snapshot: the one published last is fresh enough. */
void rest_resume_fresh(struct rest *r);
/* The same for GET /cluster: the snapshot published last holds a fresh read.  ok = false: the store did not answer; then the
 * last picture is served with its age, or the error page 503 if there is none (REST-64 [D], REST-09 [D]). */
void rest_resume_cluster(struct rest *r, bool ok);
/* Stop the thread (waiting connections are answered with 503 first), free; the last part of it from the loop.  Blocks for the
 * join only, at most about 0.2 s. */
void rest_close(struct rest *r);

/* GET /cluster's body and the member table's data come from one function, used by ctl too (library dra_views, no I/O). */
struct json *views_cluster(const struct dcs_snapshot *s); /* REST-64/65 without `scope`; caller frees; NULL = out of memory */
/* Status document of this node (HA-180, REST-42/43), spaced JSON text; caller frees. */
char *views_status(const struct rest_facts *f);
char *views_metrics(const struct rest_facts *f);
/* The world, rule, reasons, facts for `explain` (GET /dragent/world); caller frees. */
char *views_world(const struct ha_world *w, const struct ha_memory *m, const struct ha_plan *p);

#endif
