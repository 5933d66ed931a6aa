/*
 * answer.c - from a request to its answer: body rules, authentication, freshness, the calls.
 *
 * Promises: nothing is queued in the handler's first call (libmicrohttpd would close the connection); a body is capped while
 * it arrives; whoever waits has a deadline.
 * Threads: REST thread only.
 */
#include "server.h"

#include "health.h"

#include <dragent/conf.h>
#include <dragent/io.h>

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define POSITION_AGE_MS 1000         /* REST-47 */
#define POSITION_AGE_ELECTION_MS 100 /* ... while nobody leads */
#define FRESH_LIMIT_MS 3000
#define FRESH_LIMIT_LOCK_MS 250 /* the code is known already; only the document would be nicer */
#define CLUSTER_LIMIT_MS 3000   /* REST-64 */
#define FRESH_ROUNDS_MAX 4
#define NO_SNAPSHOT_MS 60000 /* so long may the first turn take before /liveness complains */

static const char json_type[] = "application/json";

/* ---- arrival ------------------------------------------------------------------------------------------------- */

void *rest_on_uri(void *srv, const char *uri, struct MHD_Connection *c)
{
    struct rest_conn *rc = calloc(1, sizeof *rc);

    if (rc == NULL) {
        return NULL;
    }
    rc->srv = srv;
    rc->c = c;
    rc->raw = strdup(uri);
    if (rc->raw == NULL) {
        free(rc);
        return NULL;
    }
    rest_target_parse(rc->raw, &rc->target);
    return rc;
}

void rest_on_completed(void *srv, struct MHD_Connection *c, void **ctx, enum MHD_RequestTerminationCode why)
{
    struct rest_conn *rc = *ctx;

    (void)srv;
    (void)c;
    (void)why;
    if (rc == NULL) {
        return;
    }
    if (rc->queued) {
        rc->srv->n_queued--;
    }
    free(rc->raw);
    free(rc->body);
    free(rc->content_type);
    free(rc->reply);
    free(rc);
    *ctx = NULL;
}

/* In a time that depends on the length of `want` only. */
static bool same_secret(const char *got, const char *want)
{
    size_t n = strlen(want);
    size_t got_len = strlen(got);
    unsigned diff = got_len == n ? 0 : 1;

    for (size_t i = 0; i < n; i++) {
        diff |= (unsigned)(unsigned char)want[i] ^ (unsigned)(unsigned char)(i < got_len ? got[i] : 0);
    }
    return diff == 0;
}

/* REST-34 */
static void authenticate(struct rest_conn *rc)
{
    const char *got = MHD_lookup_connection_value(rc->c, MHD_HEADER_KIND, "Authorization");

    if (rc->srv->auth == NULL) {
        return;
    }
    if (got == NULL) {
        rc->refusal = "no auth header received";
    } else if (!same_secret(got, rc->srv->auth)) {
        rc->refusal = "not authenticated";
    }
    rc->refused = rc->refusal != NULL ? 401 : 0;
}

static void begin(struct rest_conn *rc, const char *method)
{
    rc->begun = true;
    dra_str_clip(rc->method, sizeof rc->method, method);
    rc->probe = rest_method_is_probe(method);
    rc->route = rest_route_find(method, &rc->target);
    rc->no_length = MHD_lookup_connection_value(rc->c, MHD_HEADER_KIND, "Content-Length") == NULL;
    if (rc->route != NULL && rc->route->protect) {
        authenticate(rc);
    }
}

/* False: more than anybody should send. */
static bool take_body(struct rest_conn *rc, const char *data, size_t n)
{
    bool wanted = rc->route != NULL && rc->route->body != REST_BODY_NONE && rc->refused == 0 && !rc->too_large && !rc->no_length;

    if (wanted && rc->body_len + n <= REST_BODY_MAX) {
        char *p = realloc(rc->body, rc->body_len + n + 1);
        if (p == NULL) {
            return false;
        }
        memcpy(p + rc->body_len, data, n);
        rc->body = p;
        rc->body_len += n;
        p[rc->body_len] = '\0';
        return true;
    }
    rc->too_large = rc->too_large || wanted;
    rc->discarded += n;
    return rc->discarded <= REST_DISCARD_MAX;
}

/* ---- freshness (REST-47) ----------------------------------------------------------------------------------------- */

static void take_snapshot(struct rest_server *s)
{
    struct rest_snap *fresh = rest_slot_take(&s->r->slot);
    if (fresh != NULL) {
        rest_snap_free(s->snap);
        s->snap = fresh;
    }
}

static bool may_wait(const struct rest_server *s)
{
    return !s->stopping && s->n_waiting < REST_WAITING_MAX;
}

/* True: suspended until the position is fresh enough, or not to be had. */
static bool wait_for_position(struct rest_conn *rc, int age_ms, int limit_ms, struct dra_instant at)
{
    struct rest_server *s = rc->srv;
    const struct views_node *n = &s->snap->node;
    struct dra_instant limit = dra_after(rc->asked_at, dra_ms(limit_ms));
    struct views_now now;

    views_now_fill(n, at, rc->gave_up, &now);
    if (!now.full || n->answered_at.ns >= dra_before(rc->asked_at, dra_ms(age_ms)).ns) {
        return false; /* no position is shown, or it was asked for late enough */
    }
    if (dra_reached(at, limit) || !may_wait(s) || rc->rounds_waited >= FRESH_ROUNDS_MAX) {
        rc->gave_up = true;
        return false;
    }
    if (!s->fresh_asked) {
        if (!rest_call_send(s, ++s->next_id, REST_FRESH, NULL)) {
            rc->gave_up = true;
            return false;
        }
        s->fresh_asked = true;
    }
    rc->rounds_waited++;
    rest_wait_begin(rc, REST_WAIT_FRESH, limit);
    return true;
}

static enum MHD_Result send_json(struct rest_conn *rc, int status, const char *body)
{
    struct rest_page p = {.status = status, .content_type = json_type, .body = body};
    return body != NULL ? rest_page_send(rc, &p) : rest_page_error(rc, 503);
}

static enum MHD_Result send_code(struct rest_conn *rc, int status)
{
    struct rest_page p = {.status = status};
    return rest_page_send(rc, &p);
}

static const char *document(const struct rest_snap *s, const struct views_now *now)
{
    return now->full && s->full != NULL ? s->full : s->brief;
}

static enum MHD_Result do_health(struct rest_conn *rc, struct dra_instant at)
{
    const struct rest_snap *s = rc->srv->snap;
    bool lock_only = rest_check_is_lock_only(rest_check_of(rc->target.path));
    bool shows = !rc->probe;
    bool decides = !lock_only && rest_target_param(&rc->target, "lag") != NULL;
    struct views_now now;

    if ((shows || decides) && wait_for_position(rc, POSITION_AGE_MS, lock_only ? FRESH_LIMIT_LOCK_MS : FRESH_LIMIT_MS, at)) {
        return MHD_YES;
    }
    views_now_fill(&s->node, at, rc->gave_up, &now);
    struct rest_ask q = {.node = &s->node, .now = &now, .tags = s->tags, .target = &rc->target};
    return send_json(rc, rest_health_status(&q), document(s, &now));
}

static enum MHD_Result do_readiness(struct rest_conn *rc, struct dra_instant at)
{
    const struct rest_snap *s = rc->srv->snap;
    struct views_now now;

    views_now_fill(&s->node, at, rc->gave_up, &now);
    if (!now.lock && wait_for_position(rc, POSITION_AGE_MS, FRESH_LIMIT_MS, at)) {
        return MHD_YES;
    }
    views_now_fill(&s->node, at, rc->gave_up, &now);
    struct rest_ask q = {.node = &s->node, .now = &now, .tags = s->tags, .target = &rc->target};
    return send_code(rc, rest_readiness_status(&q));
}

static enum MHD_Result do_status(struct rest_conn *rc, struct dra_instant at)
{
    const struct rest_snap *s = rc->srv->snap;
    int age_ms = s->node.unlocked ? POSITION_AGE_ELECTION_MS : POSITION_AGE_MS;
    struct views_now now;

    /* A member that elects, or hands over to us, wants what is true now, not what was. */
    const char *cache = MHD_lookup_connection_value(rc->c, MHD_HEADER_KIND, MHD_HTTP_HEADER_CACHE_CONTROL);
    if (cache != NULL && dra_str_eq_nocase(cache, "no-cache")) {
        age_ms = 0;
    }

    if (!rc->probe && wait_for_position(rc, age_ms, FRESH_LIMIT_MS, at)) {
        return MHD_YES;
    }
    views_now_fill(&s->node, at, rc->gave_up, &now);
    return send_json(rc, 200, document(s, &now));
}

static enum MHD_Result do_metrics(struct rest_conn *rc, struct dra_instant at)
{
    const struct rest_snap *s = rc->srv->snap;
    struct views_now now;

    if (!rc->probe && wait_for_position(rc, POSITION_AGE_MS, FRESH_LIMIT_MS, at)) {
        return MHD_YES;
    }
    views_now_fill(&s->node, at, rc->gave_up, &now);
    char *text = views_metrics_text(&s->node, &now);
    struct rest_page p = {.status = 200, .content_type = "text/plain", .body = text};
    enum MHD_Result out = text != NULL ? rest_page_send(rc, &p) : rest_page_error(rc, 503);
    free(text);
    return out;
}

/* ---- what is read from the store ------------------------------------------------------------------------------------ */

/* True: suspended until a read that began after this request was made. */
static bool wait_for_cluster(struct rest_conn *rc)
{
    struct rest_server *s = rc->srv;

    if (rc->cluster_done || !may_wait(s)) {
        return false;
    }
    if (!s->cluster_asked) {
        if (!rest_call_send(s, ++s->next_id, REST_CLUSTER, NULL)) {
            return false;
        }
        s->cluster_asked = true;
        rc->round = ++s->cluster_round;
    } else {
        rc->round = s->cluster_round + 1; /* the one under way may have looked too early */
    }
    rest_wait_begin(rc, REST_WAIT_CLUSTER, dra_after(rc->asked_at, dra_ms(CLUSTER_LIMIT_MS)));
    return true;
}

static enum MHD_Result do_cluster(struct rest_conn *rc, struct dra_instant at)
{
    const struct rest_snap *s = rc->srv->snap;
    char age[24];
    struct rest_page p = {.status = 200, .content_type = json_type, .body = s->cluster};

    if (wait_for_cluster(rc)) {
        return MHD_YES;
    }
    if (s->cluster == NULL) {
        return rest_page_error(rc, 503);
    }
    if (!rc->cluster_ok) { /* REST-64 [D]: what was seen last, and how long ago */
        int64_t ms = dra_is_set(s->node.cluster_seen) ? dra_span_ms(dra_since(at, s->node.cluster_seen)) : 0;
        (void)snprintf(age, sizeof age, "%" PRId64, ms > 0 ? ms / 1000 : 0);
        p.header = "Age";
        p.header_value = age;
    }
    return rest_page_send(rc, &p);
}

/* The snapshot if it is valid, else a fresh read, else 503 (REST-66, REST-67, REST-09 [D]). */
static bool wait_for_valid_cluster(struct rest_conn *rc, struct dra_instant at, bool *out_known)
{
    const struct rest_snap *s = rc->srv->snap;
    struct views_now now;

    views_now_fill(&s->node, at, false, &now);
    *out_known = s->cluster != NULL && (now.cluster_valid || rc->cluster_ok);
    return !*out_known && wait_for_cluster(rc);
}

static enum MHD_Result do_stored(struct rest_conn *rc, struct dra_instant at)
{
    const struct rest_snap *s = rc->srv->snap;
    bool known = false;

    if (wait_for_valid_cluster(rc, at, &known)) {
        return MHD_YES;
    }
    if (!known) {
        return rest_page_error(rc, 503);
    }
    if (rc->route->call == REST_CALL_HISTORY) {
        return send_json(rc, 200, s->history);
    }
    return s->config != NULL ? send_json(rc, 200, s->config) : rest_page_error(rc, 502);
}

/* ---- calls that change something ---------------------------------------------------------------------------------------- */

/* REST-70.  0: *out is the object (may be NULL: no body); else the status of the error page. */
static int parse_body(const struct rest_conn *rc, struct json **out)
{
    struct dra_err err = {0};
    struct json *j = NULL;

    *out = NULL;
    if (rc->route->body == REST_BODY_NONE) {
        return 0;
    }
    if (rc->too_large) {
        return 413;
    }
    if (rc->no_length && rc->route->body == REST_BODY_REQUIRED) {
        return 411;
    }
    if (rc->body_len == 0 && rc->route->body == REST_BODY_OPTIONAL) {
        *out = json_new_object();
        return *out != NULL ? 0 : 500;
    }
    if (rc->body_len == 0 || json_parse(rc->body, rc->body_len, &j, &err) != DRA_OK) {
        return 400;
    }
    if (json_type_of(j) != JSON_OBJECT || (rc->route->body == REST_BODY_REQUIRED && json_size(j) == 0)) {
        json_free(j);
        return 400;
    }
    *out = j;
    return 0;
}

/* How long the loop may take: what REST-92 polls, or a restart, with room to spare. */
static struct dra_instant call_limit(const struct rest_conn *rc, const struct json *body)
{
    const struct rest_snap *s = rc->srv->snap;
    struct dra_span wait = dra_ms(10000);
    struct dra_span start = dra_ms(300000);
    struct dra_span given = {0};

    if (s != NULL && s->node.loop_wait.ns > wait.ns) {
        wait = s->node.loop_wait;
    }
    struct dra_instant limit = dra_after(rc->asked_at, (struct dra_span){2 * wait.ns + dra_ms(10000).ns});
    if (rc->route->kind != REST_RESTART) {
        return limit;
    }
    if (s != NULL && s->node.primary_start_timeout.ns > start.ns) {
        start = s->node.primary_start_timeout;
    }
    if (json_get(body, "timeout") != NULL && conf_parse_duration(json_get(body, "timeout"), &given) == DRA_OK &&
        given.ns > start.ns && given.ns <= dra_ms(INT64_C(86400000)).ns) {
        start = given;
    }
    return dra_after(dra_after(limit, start), dra_ms(60000)); /* the stop before it */
}

static enum MHD_Result do_forward(struct rest_conn *rc)
{
    struct rest_server *s = rc->srv;
    struct json *body = NULL;

    if (rc->replied) {
        struct rest_page p = {.status = rc->status, .content_type = rc->content_type, .body = rc->reply};
        if (rc->status == 0) {
            return MHD_NO; /* REST-09: not one byte */
        }
        return rc->reply != NULL ? rest_page_send(rc, &p) : rest_page_error(rc, rc->status);
    }
    int status = parse_body(rc, &body);
    if (status != 0) {
        return rest_page_error(rc, status);
    }
    if (!may_wait(s) || s->n_calls >= REST_CALLS_MAX) {
        json_free(body);
        return rest_page_error(rc, 503);
    }
    struct dra_instant limit = call_limit(rc, body);
    rc->id = ++s->next_id;
    if (!rest_call_send(s, rc->id, rc->route->kind, body)) {
        return rest_page_error(rc, 503);
    }
    rest_wait_begin(rc, REST_WAIT_REPLY, limit);
    return MHD_YES;
}

static enum MHD_Result do_text(struct rest_conn *rc)
{
    struct json *body = NULL;
    int status = parse_body(rc, &body);
    struct rest_page p = {.status = rc->route->status, .body = rc->route->text};

    json_free(body);
    if (status != 0) {
        return rest_page_error(rc, status);
    }
    return p.body != NULL ? rest_page_send(rc, &p) : rest_page_error(rc, p.status);
}

/* ---- the answer ------------------------------------------------------------------------------------------------------- */

static enum MHD_Result without_snapshot(struct rest_conn *rc, struct dra_instant at)
{
    if (rc->route->call == REST_CALL_LIVENESS) {
        bool early = dra_since(at, rc->srv->opened_at).ns < dra_ms(NO_SNAPSHOT_MS).ns;
        rc->probe = true;
        return send_code(rc, early ? 200 : 503);
    }
    return rest_page_error(rc, 503);
}

static enum MHD_Result do_get(struct rest_conn *rc, struct dra_instant at)
{
    const struct rest_snap *s = rc->srv->snap;

    switch (rc->route->call) {
    case REST_CALL_HEALTH:
        return do_health(rc, at);
    case REST_CALL_LIVENESS:
        rc->probe = true; /* REST-05: never a body */
        return send_code(rc, rest_liveness_status(&s->node, at));
    case REST_CALL_READINESS:
        rc->probe = true;
        return do_readiness(rc, at);
    case REST_CALL_STATUS:
        return do_status(rc, at);
    case REST_CALL_CLUSTER:
        return do_cluster(rc, at);
    case REST_CALL_HISTORY:
    case REST_CALL_CONFIG:
        return do_stored(rc, at);
    case REST_CALL_METRICS:
        return do_metrics(rc, at);
    case REST_CALL_FAILSAFE:
        return s->failsafe != NULL ? send_json(rc, 200, s->failsafe) : rest_page_error(rc, 502);
    case REST_CALL_WORLD:
        return send_json(rc, 200, s->world);
    case REST_CALL_NONE:
    case REST_CALL_FORWARD:
    case REST_CALL_TEXT:
    case REST_CALL_COUNT:
        break;
    }
    return rest_page_error(rc, 500);
}

static enum MHD_Result answer(struct rest_conn *rc)
{
    struct dra_instant at = dra_now();

    if (!dra_is_set(rc->asked_at)) {
        rc->asked_at = at;
    }
    if (rc->route == NULL) {
        return rest_page_error(rc, 501);
    }
    if (rc->refused != 0) {
        struct rest_page p = {.status = rc->refused, .body = rc->refusal, .header = "WWW-Authenticate", .header_value = "Basic realm=\"Patroni\""};
        return rest_page_send(rc, &p);
    }
    take_snapshot(rc->srv);
    if (rc->route->call == REST_CALL_FORWARD) {
        return do_forward(rc);
    }
    if (rc->route->call == REST_CALL_TEXT) {
        return do_text(rc);
    }
    return rc->srv->snap != NULL ? do_get(rc, at) : without_snapshot(rc, at);
}

enum MHD_Result rest_on_request(void *srv, struct MHD_Connection *c, const char *url, const char *method, const char *version,
                                const char *data, size_t *data_size, void **ctx)
{
    struct rest_conn *rc = *ctx;

    (void)srv;
    (void)c;
    (void)url;
    (void)version;
    if (rc == NULL) {
        return MHD_NO; /* out of memory when it came */
    }
    if (!rc->begun) {
        begin(rc, method);
        return MHD_YES;
    }
    if (*data_size > 0) {
        bool ok = take_body(rc, data, *data_size);
        *data_size = 0;
        return ok ? MHD_YES : MHD_NO;
    }
    return answer(rc);
}
