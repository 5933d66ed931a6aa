/*
 * etcd.h - the parts of the etcd store and what they ask of each other.  Inside this folder only.
 *
 *   store.c      open, close, reconfigure, the table of struct dcs
 *   endpoints.c  which members there are, which one is asked first
 *   call.c       one unary call: deadlines, next member, hedge, authentication, repetition
 *   auth.c       the token
 *   watch.c      the range, the watch stream, its liveness
 *   cache.c      the keys as they stand
 *   wire.c       bodies
 */
#ifndef ETCD_ETCD_H
#define ETCD_ETCD_H

#include <dragent/dcs.h>
#include <dragent/io.h>

#include "wire.h"

#define ETCD_ENDPOINTS_MAX 16
#define ETCD_URL_MAX 256
#define ETCD_TOKEN_MAX 1024
#define ETCD_HEDGE_MS 75

struct etcd;
struct etcd_call;

/* ---- endpoints.c
 * ---------------------------------------------------------------------------------------- */

struct etcd_endpoints {
    int n;
    char url[ETCD_ENDPOINTS_MAX][ETCD_URL_MAX]; /* "http://10.0.0.1:2379" */
    unsigned generation; /* changes whenever an index may mean another member */
    int preferred;
    int n_configured;
    char configured[ETCD_ENDPOINTS_MAX][ETCD_URL_MAX];
    bool discover;
    bool discovering;
    struct dra_instant
        distrust_until; /* what members advertise did not answer: stay with the configured list */
    struct dra_timer *refresh; /* owned */
    char too_old[96];          /* "" = fine; else why no call can succeed */
};
/* Reads host, hosts, url, proxy, protocol, port, use_proxies.  out_user/out_password: credentials
 * inside the URL, or "". */
DRA_MUST_USE int etcd_endpoints_parse(const struct json *section, struct etcd_endpoints *out,
                                      char *out_user, char *out_password, size_t secret_size,
                                      struct dra_err *err);
void etcd_endpoints_discover(
    struct etcd *e); /* starts asking for the member list, unless it is under way */
void etcd_endpoints_failed_round(struct etcd *e); /* every known endpoint failed in one call */
void etcd_endpoints_answered(struct etcd *e,
                             const char *url); /* it answered after the preferred one had failed */
void etcd_endpoints_hedge_won(struct etcd *e, const char *winner);

/* ---- call.c
 * ---------------------------------------------------------------------------------------------- */

enum etcd_repeat {
    ETCD_REPEAT_NEVER = 0, /* once it may have been carried out, never again */
    ETCD_REPEAT_LOST,      /* again after a lost answer */
    ETCD_REPEAT_HEDGED     /* and a second request on another member when the first is slow */
};
struct etcd_reply {
    int err_code; /* as in struct dcs_answer */
    char err_msg[256];
    enum etcd_class class;   /* of the error that ended it */
    const struct json *root; /* borrowed; NULL on error */
    struct etcd_header header;
    struct dra_instant sent_at;
    const char *endpoint; /* who answered; borrowed */
};
typedef void (*etcd_call_cb)(const struct etcd_reply *r, void *arg);
struct etcd_call_spec {
    const char *path; /* "/v3/kv/range"; static text */
    bool get;         /* GET without a body */
    enum etcd_repeat repeat;
    bool quorum;   /* a success proves that the member is in touch with a quorum: its term counts
                      (DCS-72) */
    bool no_token; /* authenticate itself */
    struct dra_instant not_after;
};
/* Takes the contents of `body` (deinitialised on return, also on failure). */
DRA_MUST_USE int etcd_call_start(struct etcd *e, const struct etcd_call_spec *spec,
                                 struct dra_buf *body, etcd_call_cb cb, void *arg,
                                 struct dra_err *err);
void etcd_calls_cancel_all(struct etcd *e);
void etcd_calls_token_ready(struct etcd *e); /* those who waited for a token go on */

/* ---- auth.c
 * ------------------------------------------------------------------------------------------------
 */

struct etcd_auth {
    bool enabled; /* a user is configured */
    bool off;     /* the server says that authentication is not enabled */
    bool running;
    bool failed; /* the last attempt was refused: wrong user or password */
    char user[256];
    char password[1024];
    char token[ETCD_TOKEN_MAX];
    unsigned generation; /* counts tokens: a refusal of an older one is no reason to ask again */
};
void etcd_auth_renew(
    struct etcd *e,
    struct dra_instant not_after); /* single flight; then etcd_calls_token_ready() */
static inline bool etcd_auth_needs_token(const struct etcd_auth *a)
{
    return a->enabled && !a->off && a->token[0] == '\0';
}

/* ---- cache.c
 * -------------------------------------------------------------------------------------------------
 */

struct etcd_cache {
    size_t n, cap;
    struct dcs_kv *kvs; /* sorted by key; key and value owned */
    size_t n_gone, cap_gone;
    struct dcs_kv
        *gone; /* own deletes that the watch has not shown yet: key (owned) and mod_revision */
    int64_t revision; /* everything up to here is in; own writes may be newer */
};
void etcd_cache_clear(struct etcd_cache *c);
/* A whole range as of `revision`; keeps own writes that are newer.  false = out of memory. */
bool etcd_cache_replace(struct etcd_cache *c, const struct json *kvs, const char *prefix,
                        int64_t revision);
/* One event, or one own write.  Older news than what is there is ignored. */
bool etcd_cache_put(struct etcd_cache *c, const char *key, const char *value, size_t value_len,
                    int64_t mod_revision, int64_t create_revision, int64_t lease);
bool etcd_cache_delete(struct etcd_cache *c, const char *key, int64_t revision);
void etcd_cache_advance(struct etcd_cache *c, int64_t revision);
/* create_revision and mod_revision of a key, 0 = absent. */
int64_t etcd_cache_created(const struct etcd_cache *c, const char *key);
int64_t etcd_cache_modified(const struct etcd_cache *c, const char *key);

/* ---- watch.c
 * ---------------------------------------------------------------------------------------------------
 */

enum etcd_watch_state {
    ETCD_WATCH_OFF = 0,
    ETCD_WATCH_READING, /* a linearizable range is under way, or will be soon */
    ETCD_WATCH_OPENING, /* the stream is sent; waiting for `created` */
    ETCD_WATCH_LIVE,    /* events come, or nothing happens */
    ETCD_WATCH_STATE_COUNT
};
struct etcd_watch {
    enum etcd_watch_state state;
    struct dcs_events ev;
    void *arg;
    struct http_op *stream; /* the one that counts; NULL = none */
    unsigned stream_id;     /* what an older stream still says is dropped */
    int streams_open;       /* end callbacks that are still to come */
    bool stream_ended;      /* its end was seen; the inbox is read first */
    char end_why[160];
    struct dra_buf inbox; /* as it came: handled in a turn of its own, outside curl's callbacks */
    struct etcd_framer framer;
    struct dra_timer *feed;      /* owned: the inbox has something */
    struct dra_timer *timer;     /* owned: read again, `created` in time, liveness */
    char endpoint[ETCD_URL_MAX]; /* of the stream */
    char avoid[ETCD_URL_MAX];    /* a member whose stream was found wanting */
    bool told_stale;
    bool reading, checking; /* a range is under way */
    bool check_wanted;
    bool owes; /* a range showed changes that the stream has not; it has until owes_until */
    struct dra_instant owes_until;
    struct dra_instant opened_at;
    struct dra_instant
        proven_at; /* when the last question was sent whose answer showed the view to be current */
    struct dra_instant heard_at; /* the stream said something */
};
int etcd_watch_begin(struct etcd *e, const struct dcs_events *ev, void *arg, struct dra_err *err);
void etcd_watch_end(struct etcd *e); /* for close */
/* A linearizable range arrived (also one asked for by others): take it over and publish. */
bool etcd_watch_take_range(struct etcd *e, const struct etcd_reply *r); /* false = out of memory */
/* Any linearizable answer: does it prove that the view is current? */
void etcd_watch_observe(struct etcd *e, int64_t revision, struct dra_instant sent_at);
void etcd_watch_check_soon(struct etcd *e); /* there is a reason to doubt the view */
void etcd_watch_reborn(struct etcd *e); /* another cluster answers: nothing that is known holds */
void etcd_watch_publish(struct etcd *e);

/* ---- store.c
 * -----------------------------------------------------------------------------------------------------
 */

struct etcd {
    struct dcs base; /* first: the public face */
    struct uv_loop_s *loop;
    struct http_client *http; /* borrowed */
    char prefix[ETCD_PREFIX_MAX];
    char range_end[ETCD_PREFIX_MAX];
    struct dra_span ttl, loop_wait, retry_timeout;
    char *cacert, *cert, *key; /* owned; NULL = none */
    uint64_t cluster_id;
    uint64_t raft_term;             /* highest that a quorum stood behind (DCS-72) */
    int64_t revision;               /* highest of any linearizable answer */
    struct dra_instant revision_at; /* when it was learnt */
    struct etcd_call *calls;        /* list */
    struct etcd_endpoints endpoints;
    struct etcd_auth auth;
    struct etcd_cache cache;
    struct etcd_watch watch;
    uint64_t random;
    struct dra_timer *closer; /* owned: memory goes in a turn of its own */
    bool closing, closer_done;
};
struct http_tls etcd_tls(const struct etcd *e); /* borrowed strings */
void etcd_maybe_free(struct etcd *e);

#endif
