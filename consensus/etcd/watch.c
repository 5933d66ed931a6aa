/*
 * watch.c - the view: one linearizable range, then one watch on the whole prefix, and the proof
 * that it is still current.
 *
 * Promises: snapshots are published in the order of revisions, each a consistent cut (SAFE-19): a
 * snapshot is made only after whole messages of the stream.  A view that may have fallen behind is
 * told once by stale(), and ended by the next snapshot().
 *
 * A watch can go silent for ever (its member lost the quorum, or is stopped while its kernel goes
 * on acknowledging).  So: the stream asks to be ended when its member has no leader; TCP keepalive
 * sees a dead peer; and a linearizable answer of any call whose revision is not above ours proves
 * the view, while nothing does so for an interval a range is asked for that.  A range that shows
 * what the stream has not is taken over at once, and a stream that does not bring it within a
 * moment is replaced.
 *
 * What arrives is put into an inbox and handled in a turn of its own: consumers may start calls
 * from snapshot(), which is not allowed inside curl's callbacks. Threads: loop thread only.
 */
#include "etcd.h"

#include <stdlib.h>
#include <string.h>

#define INBOX_MAX ((size_t)16 * 1024 * 1024)
#define ERROR_BODY_MAX ((size_t)64 * 1024)
#define OPEN_MS 1000 /* for `created` */
#define OWES_MS 250  /* for events that a range has shown already */
#define READ_AGAIN_MS 200
#define AUTH_AGAIN_MS 1000
#define YOUNG_MS 500 /* a stream that ended sooner is not replaced at once */
#define CHECK_MIN_MS 500
#define CHECK_MAX_MS 2000
#define CHECK_CALM_MAX_MS 10000

struct stream { /* one per stream, freed by its end */
    struct etcd *e;
    unsigned id;
};

static void read_begin(struct etcd *e);
static void stream_open(struct etcd *e, const char *endpoint);
static void on_feed(void *arg);
static void on_timer(void *arg);
static void arm(struct etcd *e);

/* ---- telling
 * ---------------------------------------------------------------------------------------------- */

static void tell_stale(struct etcd *e, const char *why)
{
    struct etcd_watch *w = &e->watch;

    if (w->told_stale || e->closing) {
        return;
    }
    w->told_stale = true;
    if (w->ev.stale != NULL) {
        w->ev.stale(why, w->arg);
    }
}

void etcd_watch_publish(struct etcd *e)
{
    struct etcd_watch *w = &e->watch;

    if (e->closing || w->ev.snapshot == NULL) {
        return;
    }
    struct dcs_snapshot *s = dcs_cluster_parse(e->cache.kvs, e->cache.n, e->cache.revision);
    if (s == NULL) {
        tell_stale(e, "out of memory");
        return;
    }
    s->c.raft_term = e->raft_term;
    s->c.cluster_id = e->cluster_id;
    s->read_at = dra_later(w->proven_at, w->heard_at);
    w->ev.snapshot(s, w->arg);
    dcs_snapshot_unref(s);
}

/* ---- liveness
 * ------------------------------------------------------------------------------------------------
 */

/* How long the view may go unproven.  With a ttl of 20 s and more one question per cycle is enough.
 */
static struct dra_span check_interval(const struct etcd *e)
{
    int64_t ns = e->loop_wait.ns;
    int64_t max = dra_ms(CHECK_CALM_MAX_MS).ns;

    if (e->ttl.ns < dra_ms(20000).ns) {
        ns /= 2;
        max = dra_ms(CHECK_MAX_MS).ns;
    }
    if (ns < dra_ms(CHECK_MIN_MS).ns) {
        ns = dra_ms(CHECK_MIN_MS).ns;
    }
    return (struct dra_span){ns < max ? ns : max};
}

static void arm(struct etcd *e)
{
    struct etcd_watch *w = &e->watch;
    struct dra_instant at;

    switch (w->state) {
    case ETCD_WATCH_OPENING:
        dra_timer_set(w->timer, dra_after(w->opened_at, dra_ms(OPEN_MS)));
        return;
    case ETCD_WATCH_LIVE:
        at = dra_after(dra_later(w->proven_at, w->heard_at), check_interval(e));
        if (w->checking) {
            at = (struct dra_instant){0};
        }
        if (w->owes) {
            at = dra_earlier(at, w->owes_until);
        }
        if (dra_is_set(at)) {
            dra_timer_set(w->timer, at);
        } else {
            dra_timer_stop(w->timer);
        }
        return;
    case ETCD_WATCH_OFF:
    case ETCD_WATCH_READING: /* set by who decided to read again */
    case ETCD_WATCH_STATE_COUNT:
        return;
    }
}

void etcd_watch_observe(struct etcd *e, int64_t revision, struct dra_instant sent_at)
{
    struct etcd_watch *w = &e->watch;

    if (revision < e->revision && sent_at.ns > e->revision_at.ns) {
        log_event(LOG_LV_WARNING, "etcd.revision",
                  "The revision of etcd went back: it was made anew", NULL);
        e->revision = revision;
        etcd_watch_reborn(e);
        return;
    }
    if (revision > e->revision) {
        e->revision = revision;
        e->revision_at = dra_now();
    }
    if (w->state == ETCD_WATCH_LIVE && revision <= e->cache.revision && !w->owes) {
        w->proven_at = dra_later(w->proven_at, sent_at); /* the timer notices when it fires */
    }
}

/* ---- leaving a stream
 * ------------------------------------------------------------------------------------------ */

static void stream_drop(struct etcd *e)
{
    struct etcd_watch *w = &e->watch;

    w->stream_id++;
    w->stream_ended = false;
    w->owes = false;
    dra_buf_reset(&w->inbox);
    etcd_framer_deinit(&w->framer);
    etcd_framer_init(&w->framer);
    dra_timer_stop(w->feed);
    if (w->stream != NULL) {
        http_cancel(w->stream); /* its end still comes, and frees its memory */
        w->stream = NULL;
    }
}

/* The stream is no good any more: read all again, and watch another member if there is one. */
static void watch_again(struct etcd *e, const char *why, bool stale)
{
    struct etcd_watch *w = &e->watch;
    struct dra_instant now = dra_now();
    bool young = dra_is_set(w->opened_at) && dra_since(now, w->opened_at).ns < dra_ms(YOUNG_MS).ns;

    log_event(LOG_LV_INFO, "etcd.watch", "The watch is begun again", "endpoint", w->endpoint,
              "reason", why, NULL);
    dra_str_clip(w->avoid, sizeof w->avoid, w->endpoint);
    stream_drop(e);
    w->state = ETCD_WATCH_READING;
    if (young) {
        dra_timer_set(w->timer, dra_after(now, dra_ms(READ_AGAIN_MS)));
    } else {
        read_begin(e);
    }
    if (stale) {
        tell_stale(e, why);
    }
}

void etcd_watch_reborn(struct etcd *e)
{
    struct etcd_watch *w = &e->watch;

    etcd_cache_clear(&e->cache);
    e->revision = 0;
    e->revision_at = (struct dra_instant){0};
    if (w->state == ETCD_WATCH_OFF || w->state == ETCD_WATCH_READING) {
        return;
    }
    stream_drop(e);
    w->avoid[0] = '\0';
    w->state = ETCD_WATCH_READING;
    dra_timer_set(w->timer, dra_now());
    tell_stale(e, "another etcd cluster answers");
}

/* ---- the range
 * ----------------------------------------------------------------------------------------------------
 */

bool etcd_watch_take_range(struct etcd *e, const struct etcd_reply *r)
{
    struct etcd_watch *w = &e->watch;

    if (r->header.revision >= e->cache.revision &&
        !etcd_cache_replace(&e->cache, json_get(r->root, "kvs"), e->prefix, r->header.revision)) {
        return false;
    }
    w->proven_at = dra_later(w->proven_at, r->sent_at);
    w->told_stale = false;
    etcd_watch_publish(e);
    return true;
}

static int range_start(struct etcd *e, etcd_call_cb cb)
{
    struct etcd_call_spec spec = {
        .path = "/v3/kv/range", .repeat = ETCD_REPEAT_HEDGED, .quorum = true};
    struct dra_buf body;

    spec.not_after = dra_after(dra_now(), e->retry_timeout);
    dra_buf_init(&body, ETCD_BODY_MAX);
    etcd_wire_range(&body, e->prefix, e->range_end);
    return etcd_call_start(e, &spec, &body, cb, e, NULL);
}

static void on_read(const struct etcd_reply *r, void *arg)
{
    struct etcd *e = arg;
    struct etcd_watch *w = &e->watch;
    char endpoint[ETCD_URL_MAX];

    w->reading = false;
    if (e->closing || w->state != ETCD_WATCH_READING) {
        return;
    }
    if (r->err_code != DRA_OK) {
        dra_timer_set(
            w->timer,
            dra_after(dra_now(), dra_ms(r->err_code == DRA_EAUTH ? AUTH_AGAIN_MS : READ_AGAIN_MS)));
        tell_stale(e, r->err_msg);
        return;
    }
    dra_str_clip(endpoint, sizeof endpoint, r->endpoint);
    if (!etcd_watch_take_range(e, r)) {
        dra_timer_set(w->timer, dra_after(dra_now(), dra_ms(READ_AGAIN_MS)));
        tell_stale(e, "out of memory");
        return;
    }
    if (!e->closing && w->state == ETCD_WATCH_READING) { /* the consumer may have closed us */
        stream_open(e, endpoint);
    }
}

static void read_begin(struct etcd *e)
{
    struct etcd_watch *w = &e->watch;

    if (w->reading) {
        return;
    }
    w->reading = true;
    if (range_start(e, on_read) != DRA_OK) {
        w->reading = false;
        dra_timer_set(w->timer, dra_after(dra_now(), dra_ms(AUTH_AGAIN_MS)));
        tell_stale(e, "no range could be asked for");
    }
}

/* Does a range hold what the cache, at its revision, has not? */
static bool range_is_ahead(struct etcd *e, const struct etcd_reply *r)
{
    struct etcd_kv kv;
    size_t known = 0;
    bool ahead = false;

    if (r->header.revision <= e->cache.revision) {
        return false;
    }
    etcd_kv_init(&kv);
    for (const struct json *j = json_first(json_get(r->root, "kvs")); j != NULL && !ahead;
         j = json_next(j)) {
        if (!etcd_wire_read_kv(j, e->prefix, &kv)) {
            continue;
        }
        int64_t created = etcd_cache_created(&e->cache, dra_buf_str(&kv.key));
        if (kv.mod_revision > e->cache.revision &&
            etcd_cache_modified(&e->cache, dra_buf_str(&kv.key)) < kv.mod_revision) {
            ahead = true;
        }
        known += created != 0 ? 1 : 0;
    }
    etcd_kv_deinit(&kv);
    return ahead || known < e->cache.n; /* a key of ours is gone */
}

static void on_check(const struct etcd_reply *r, void *arg)
{
    struct etcd *e = arg;
    struct etcd_watch *w = &e->watch;

    w->checking = false;
    if (e->closing || w->state != ETCD_WATCH_LIVE) {
        return;
    }
    if (r->err_code != DRA_OK) {
        watch_again(e, r->err_msg, true);
        return;
    }
    if (range_is_ahead(e, r)) {
        w->owes = true;
        w->owes_until = dra_after(dra_now(), dra_ms(OWES_MS));
        (void)etcd_watch_take_range(
            e, r); /* out of memory: the stream will bring it, or is replaced */
    } else {
        etcd_cache_advance(&e->cache, r->header.revision); /* others' keys moved the revision on */
        w->proven_at = dra_later(w->proven_at, r->sent_at);
    }
    if (!e->closing) {
        arm(e);
    }
}

static void check_begin(struct etcd *e)
{
    struct etcd_watch *w = &e->watch;

    w->check_wanted = false;
    if (w->checking || w->state != ETCD_WATCH_LIVE) {
        return;
    }
    w->checking = true;
    if (range_start(e, on_check) != DRA_OK) {
        w->checking = false;
        watch_again(e, "no range could be asked for", true);
    }
}

void etcd_watch_check_soon(struct etcd *e)
{
    struct etcd_watch *w = &e->watch;

    if (w->state == ETCD_WATCH_LIVE && !w->checking && !w->owes) {
        w->check_wanted = true;
        dra_timer_set(w->timer, dra_now());
    }
}

static void on_timer(void *arg)
{
    struct etcd *e = arg;
    struct etcd_watch *w = &e->watch;
    struct dra_instant now = dra_now();

    if (e->closing) {
        return;
    }
    switch (w->state) {
    case ETCD_WATCH_READING:
        read_begin(e);
        return;
    case ETCD_WATCH_OPENING:
        watch_again(e, "the stream was not opened in time", true);
        return;
    case ETCD_WATCH_LIVE:
        if (w->owes && dra_reached(now, w->owes_until)) {
            watch_again(e, "the watch is silent",
                        false); /* the range has shown all that it kept back */
            return;
        }
        if (w->check_wanted ||
            dra_reached(now, dra_after(dra_later(w->proven_at, w->heard_at), check_interval(e)))) {
            check_begin(e);
        }
        arm(e);
        return;
    case ETCD_WATCH_OFF:
    case ETCD_WATCH_STATE_COUNT:
        return;
    }
}

/* ---- the stream
 * ---------------------------------------------------------------------------------------------------
 */

static bool on_chunk(const char *p, size_t n, void *arg)
{
    struct stream *s = arg;
    struct etcd_watch *w = &s->e->watch;

    if (s->id != w->stream_id || s->e->closing) {
        return false;
    }
    dra_buf_add(&w->inbox, p, n);
    dra_timer_set(w->feed, dra_now());
    return !w->inbox.failed;
}

static void on_stream_end(const struct http_response *r, void *arg)
{
    struct stream *s = arg;
    struct etcd *e = s->e;
    struct etcd_watch *w = &e->watch;

    w->streams_open--;
    if (s->id == w->stream_id && !e->closing) {
        w->stream = NULL;
        w->stream_ended = true;
        struct etcd_error x = {0};
        if (r->err_code == DRA_OK && r->status >= 400) { /* refused: the body is no stream */
            etcd_wire_error(r->status, r->body, r->body_len, &x);
            if (x.class == ETCD_AUTH && e->auth.enabled) {
                etcd_auth_renew(e, dra_after(dra_now(), e->retry_timeout));
            }
        }
        dra_str_clip(w->end_why, sizeof w->end_why,
                     r->err_code != DRA_OK ? r->err_msg
                     : x.text[0] != '\0'   ? x.text
                                           : "the stream ended");
        dra_timer_set(w->feed, dra_now()); /* what came before the end is read first */
    }
    free(s);
    etcd_maybe_free(e); /* last use of e */
}

static void stream_open(struct etcd *e, const char *endpoint)
{
    struct etcd_watch *w = &e->watch;
    struct stream *s = calloc(1, sizeof *s);
    const char *headers[4] = {"Content-Type: application/json", "Grpc-Metadata-hasleader: true",
                              NULL, NULL};
    char authorization[ETCD_TOKEN_MAX + 32];
    char url[ETCD_URL_MAX + 16];
    struct http_tls tls = etcd_tls(e);
    struct dra_err err = {0};
    struct dra_buf body;

    stream_drop(e);
    dra_str_clip(w->endpoint, sizeof w->endpoint, endpoint);
    if (w->avoid[0] != '\0' &&
        strcmp(w->avoid, endpoint) == 0) { /* another than the one that failed */
        for (int i = 0; i < e->endpoints.n; i++) {
            if (strcmp(e->endpoints.url[i], endpoint) == 0) {
                dra_str_clip(w->endpoint, sizeof w->endpoint,
                             e->endpoints.url[(i + 1) % e->endpoints.n]);
            }
        }
    }
    if (e->auth.token[0] != '\0' && dra_str_printf(authorization, sizeof authorization,
                                                   "authorization: %s", e->auth.token) == DRA_OK) {
        headers[2] = authorization;
    }
    dra_buf_init(&body, ETCD_BODY_MAX);
    etcd_wire_watch(&body, e->prefix, e->range_end, e->cache.revision + 1);
    struct http_request rq = {.method = "POST",
                              .url = url,
                              .body = dra_buf_str(&body),
                              .body_len = body.len,
                              .headers = headers,
                              .tls = dra_str_starts(w->endpoint, "https:") ? &tls : NULL,
                              .max_body = ERROR_BODY_MAX,
                              .fresh_connection = true};
    int rc = s == NULL ? DRA_ENOMEM : dra_str_printf(url, sizeof url, "%s/v3/watch", w->endpoint);
    if (rc == DRA_OK) {
        s->e = e;
        s->id = w->stream_id;
        rc = http_stream_start(e->http, &rq, on_chunk, on_stream_end, s, &w->stream, &err);
    }
    dra_buf_deinit(&body);
    w->opened_at = dra_now();
    if (rc != DRA_OK) {
        free(s);
        w->stream = NULL;
        w->state = ETCD_WATCH_READING;
        dra_timer_set(w->timer, dra_after(w->opened_at, dra_ms(AUTH_AGAIN_MS)));
        tell_stale(e, "no watch could be opened");
        return;
    }
    w->streams_open++;
    w->state = ETCD_WATCH_OPENING;
    arm(e);
}

/* Puts the events of one message into the cache; false = out of memory. */
static bool events_apply(struct etcd *e, const struct json *events, bool *changed)
{
    struct etcd_kv kv;
    int64_t newest = e->cache.revision;
    bool ok = true;

    etcd_kv_init(&kv);
    for (const struct json *j = json_first(events); j != NULL && ok; j = json_next(j)) {
        bool readable = etcd_wire_read_kv(json_get(j, "kv"), e->prefix, &kv);
        if (kv.mod_revision <= e->cache.revision) {
            continue; /* a range brought it already */
        }
        newest = kv.mod_revision > newest ? kv.mod_revision : newest;
        if (!readable) {
            continue;
        }
        if (dra_str_eq(json_text(json_get(j, "type")), "DELETE")) {
            ok = etcd_cache_delete(&e->cache, dra_buf_str(&kv.key), kv.mod_revision);
        } else {
            ok = etcd_cache_put(&e->cache, dra_buf_str(&kv.key), dra_buf_str(&kv.value),
                                kv.value.len, kv.mod_revision, kv.create_revision, kv.lease);
        }
        *changed = true;
    }
    etcd_kv_deinit(&kv);
    if (ok) {
        etcd_cache_advance(&e->cache, newest);
    }
    return ok;
}

/* One message of the stream.  A text in `why` = the stream is over. */
static void message(struct etcd *e, const struct json *j, bool *changed, char *why, size_t why_size)
{
    struct etcd_watch *w = &e->watch;
    const struct json *result = json_get(j, "result");
    struct etcd_header h;
    struct etcd_error x;

    if (etcd_wire_stream_error(j, &x)) {
        if (x.class == ETCD_AUTH && e->auth.enabled) {
            etcd_auth_renew(e, dra_after(dra_now(), e->retry_timeout));
        }
        dra_str_clip(why, why_size, x.text);
        return;
    }
    etcd_wire_header(json_get(result, "header"), &h);
    if (e->cluster_id != 0 && h.cluster_id != 0 && h.cluster_id != e->cluster_id) {
        dra_str_clip(why, why_size, "the member belongs to another cluster");
        return;
    }
    const struct json *canceled = json_get(result, "canceled");
    if (json_is_true(canceled) || dra_str_eq(json_text(canceled), "true")) {
        const char *reason = json_text(json_get(result, "cancel_reason"));
        dra_str_clip(why, why_size,
                     reason != NULL ? reason : "the watch was cancelled (compaction)");
        return;
    }
    if (json_is_true(json_get(result, "created"))) {
        if (h.raft_term != 0 && h.raft_term < e->raft_term) { /* DCS-72 */
            dra_str_clip(why, why_size, "the member lags behind the cluster's term");
            return;
        }
        if (w->state == ETCD_WATCH_OPENING) {
            w->state = ETCD_WATCH_LIVE;
            w->avoid[0] = '\0';
        }
    }
    const struct json *events = json_get(result, "events");
    if (json_size(events) > 0) {
        w->owes = false;
        if (!events_apply(e, events, changed)) {
            dra_str_clip(why, why_size, "out of memory");
            return;
        }
    }
    w->heard_at = dra_now();
}

static void on_feed(void *arg)
{
    struct etcd *e = arg;
    struct etcd_watch *w = &e->watch;
    char why[192] = "";
    bool changed = false;
    unsigned id = w->stream_id;

    if (e->closing) {
        return;
    }
    struct dra_buf in = w->inbox; /* take it: more may come meanwhile */
    dra_buf_init(&w->inbox, INBOX_MAX);
    const char *p = dra_buf_str(&in);
    size_t n = in.len;
    if (in.failed) {
        dra_str_clip(why, sizeof why, "the stream is faster than its reader");
    }
    while (why[0] == '\0' && n > 0 && etcd_framer_next(&w->framer, &p, &n)) {
        struct json *j = NULL;
        if (w->framer.doc.failed ||
            json_parse(dra_buf_str(&w->framer.doc), w->framer.doc.len, &j, NULL) != DRA_OK) {
            dra_str_clip(why, sizeof why, "the stream brought no JSON");
        } else {
            message(e, j, &changed, why, sizeof why);
        }
        json_free(j);
    }
    dra_buf_deinit(&in);
    if (why[0] == '\0' && w->stream_ended) {
        dra_str_clip(why, sizeof why, w->end_why);
    }
    if (changed) {
        etcd_watch_publish(e); /* before a loss is told: stale() is ended by a snapshot */
    }
    if (e->closing || w->stream_id != id) {
        return;
    }
    if (why[0] != '\0') {
        watch_again(e, why, true);
    } else {
        arm(e);
    }
}

/* ---- begin and end
 * -------------------------------------------------------------------------------------------------
 */

int etcd_watch_begin(struct etcd *e, const struct dcs_events *ev, void *arg, struct dra_err *err)
{
    struct etcd_watch *w = &e->watch;

    if (w->state != ETCD_WATCH_OFF) {
        return dra_err_set(err, DRA_ESTATE, "etcd: the watch was begun already");
    }
    if (dra_timer_open(e->loop, on_timer, e, &w->timer) != DRA_OK ||
        dra_timer_open(e->loop, on_feed, e, &w->feed) != DRA_OK) {
        dra_timer_close(w->timer);
        w->timer = NULL;
        return dra_err_set(err, DRA_ENOMEM, "etcd: out of memory");
    }
    dra_buf_init(&w->inbox, INBOX_MAX);
    etcd_framer_init(&w->framer);
    w->ev = *ev;
    w->arg = arg;
    w->state = ETCD_WATCH_READING;
    dra_timer_set(w->timer, dra_now()); /* never inside the caller's turn */
    return DRA_OK;
}

void etcd_watch_end(struct etcd *e)
{
    struct etcd_watch *w = &e->watch;

    if (w->state == ETCD_WATCH_OFF) {
        return;
    }
    stream_drop(e);
    w->state = ETCD_WATCH_OFF;
    dra_timer_close(w->timer);
    dra_timer_close(w->feed);
    w->timer = NULL;
    w->feed = NULL;
    dra_buf_deinit(&w->inbox);
    etcd_framer_deinit(&w->framer);
}
