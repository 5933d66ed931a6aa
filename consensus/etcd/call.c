/*
 * call.c - one unary call to etcd, whichever member answers it.
 *
 * Promises: the callback runs exactly once, not later than the deadline (but for what the loop is
 * late); a call that must not be repeated is sent again only if the first request certainly never
 * left or was certainly refused before it was carried out; an answer of a member that lags in its
 * term is not used (DCS-72); sent_at belongs to the answer that counted.
 *
 * One round asks every known member once, the preferred one first, each with a short deadline of
 * its own, since a member without a leader hangs rather than fails.  After a round without an
 * answer: a short, growing pause, and again.  Hedged calls ask a second member when the first has
 * not answered after ETCD_HEDGE_MS. Threads: loop thread only.
 */
#include "etcd.h"

#include <stdlib.h>
#include <string.h>

#define ATTEMPT_MIN_MS 300
#define ATTEMPT_MAX_MS 1000
#define PAUSE_FIRST_MS 50
#define PAUSE_MAX_MS 500
#define GIVE_UP_MS 60 /* less than this left is not worth another attempt */
#define AUTH_TRIES_MAX 2
#define ANSWER_MAX ((size_t)16 * 1024 * 1024)

enum timer_use { TIMER_IDLE = 0, TIMER_HEDGE, TIMER_PAUSE, TIMER_TOKEN, TIMER_CANCEL };

struct attempt {
    struct etcd_call *call;
    struct http_op *op; /* NULL = not running */
    char url[ETCD_URL_MAX];
    unsigned token_generation;
};

struct etcd_call {
    struct etcd *e;
    struct etcd_call *prev, *next;
    struct etcd_call_spec spec;
    char *body; /* owned */
    size_t body_len;
    etcd_call_cb cb;
    void *arg;
    struct attempt attempts[2];
    int running;
    struct dra_timer *timer; /* owned; NULL once finished */
    enum timer_use timer_use;
    uint32_t tried; /* bit per endpoint index, of this round */
    unsigned generation;
    int round_failures; /* of the connection kind */
    int round_answers;  /* a member said something, if only "no leader" */
    int stale_answers;
    int hedged;        /* a second request was sent in this round */
    bool first_failed; /* the member asked first failed in this call */
    int auth_tries;
    unsigned wait_round; /* 0 = not waiting for a token */
    struct dra_span pause;
    bool finished, cancelled;
    int last_code;
    enum etcd_class last_class;
    char last_msg[256];
};

static void on_http(const struct http_response *r, void *arg);
static void on_timer(void *arg);
static int attempt_start(struct etcd_call *c, struct dra_err *err);
static void call_go_on(struct etcd_call *c);

/* ---- beginning and end
 * ------------------------------------------------------------------------------------ */

static void call_release(struct etcd_call *c)
{
    struct etcd *e = c->e;

    if (c->prev != NULL) {
        c->prev->next = c->next;
    } else {
        e->calls = c->next;
    }
    if (c->next != NULL) {
        c->next->prev = c->prev;
    }
    dra_timer_close(c->timer);
    free(c->body);
    free(c);
    etcd_maybe_free(e); /* last use of e */
}

/* Runs the callback.  The memory stays until requests that were given up have ended. */
static void call_finish(struct etcd_call *c, const struct etcd_reply *r)
{
    if (DRA_NEVER(c->finished)) {
        return;
    }
    c->finished = true;
    c->wait_round = 0;
    dra_timer_close(c->timer);
    c->timer = NULL;
    for (size_t i = 0; i < DRA_ARRAY_LEN(c->attempts); i++) {
        if (c->attempts[i].op != NULL) {
            http_cancel(c->attempts[i].op);
        }
    }
    c->cb(r, c->arg);
    if (c->running == 0) {
        call_release(c);
    }
}

static void call_fail(struct etcd_call *c, int code, enum etcd_class class, const char *text)
{
    struct etcd_reply r = {.err_code = code, .class = class};

    dra_str_clip(r.err_msg, sizeof r.err_msg, text);
    call_finish(c, &r);
}

static void call_note(struct etcd_call *c, const struct attempt *a, int code, enum etcd_class class,
                      const char *text)
{
    c->last_code = code;
    c->last_class = class;
    if (dra_str_printf(c->last_msg, sizeof c->last_msg, "%s%s: %s", a->url, c->spec.path, text) !=
        DRA_OK) {
        dra_str_clip(c->last_msg, sizeof c->last_msg, text);
    }
}

int etcd_call_start(struct etcd *e, const struct etcd_call_spec *spec, struct dra_buf *body,
                    etcd_call_cb cb, void *arg, struct dra_err *err)
{
    struct etcd_call *c = NULL;
    int rc;

    if (e->closing) {
        dra_buf_deinit(body);
        return dra_err_set(err, DRA_ESTATE, "etcd: the store is closing");
    }
    if (body->failed) {
        dra_buf_deinit(body);
        return dra_err_set(err, DRA_ETOOLONG, "etcd: request too large or malformed");
    }
    if (e->endpoints.too_old[0] != '\0' && !spec->get) {
        dra_buf_deinit(body);
        return dra_err_set(err, DRA_EREMOTE, "%s", e->endpoints.too_old);
    }
    c = calloc(1, sizeof *c);
    if (c == NULL || dra_timer_open(e->loop, on_timer, c, &c->timer) != DRA_OK) {
        free(c);
        dra_buf_deinit(body);
        return dra_err_set(err, DRA_ENOMEM, "etcd: out of memory");
    }
    c->e = e;
    c->spec = *spec;
    c->body_len = body->len;
    c->body = dra_buf_take(body);
    dra_buf_deinit(body);
    c->cb = cb;
    c->arg = arg;
    c->last_code = DRA_ETIMEDOUT;
    c->generation = e->endpoints.generation;
    for (size_t i = 0; i < DRA_ARRAY_LEN(c->attempts); i++) {
        c->attempts[i].call = c;
    }
    if (etcd_auth_needs_token(&e->auth) && !spec->no_token) {
        c->wait_round = e->auth.generation + 1;
        c->timer_use = TIMER_TOKEN;
        dra_timer_set(c->timer, spec->not_after);
        rc = DRA_OK;
    } else {
        rc = attempt_start(c, err);
    }
    if (rc != DRA_OK) {
        dra_timer_close(c->timer);
        free(c->body);
        free(c);
        return rc;
    }
    c->next = e->calls;
    if (c->next != NULL) {
        c->next->prev = c;
    }
    e->calls = c;
    if (c->wait_round != 0) {
        etcd_auth_renew(e, dra_after(dra_now(), e->retry_timeout));
    }
    return DRA_OK;
}

static void call_cancel(struct etcd_call *c)
{
    if (c->finished || c->cancelled) {
        return;
    }
    c->cancelled = true;
    c->wait_round = 0;
    if (c->running == 0) {
        c->timer_use = TIMER_CANCEL;
        dra_timer_set(c->timer, dra_now());
        return;
    }
    dra_timer_stop(c->timer);
    for (size_t i = 0; i < DRA_ARRAY_LEN(c->attempts); i++) {
        if (c->attempts[i].op != NULL) {
            http_cancel(c->attempts[i].op);
        }
    }
}

void etcd_calls_cancel_all(struct etcd *e)
{
    for (struct etcd_call *c = e->calls; c != NULL; c = c->next) {
        call_cancel(c); /* callbacks come later, from the loop */
    }
}

void etcd_calls_token_ready(struct etcd *e)
{
    unsigned round =
        ++e->auth.generation; /* whoever begins to wait from here on waits for the next one */

    for (;;) {
        struct etcd_call *c = e->calls;
        while (c != NULL && (c->wait_round == 0 || c->wait_round > round)) {
            c = c->next;
        }
        if (c == NULL) {
            return;
        }
        c->wait_round = 0;
        if (e->auth.failed) {
            call_fail(c, DRA_EAUTH, ETCD_AUTH_FAILED, "etcd refuses user or password");
        } else if (etcd_auth_needs_token(&e->auth)) {
            call_fail(c, DRA_ETIMEDOUT, ETCD_UNAVAILABLE, "no answer to authentication");
        } else {
            c->timer_use = TIMER_IDLE;
            dra_timer_stop(c->timer);
            c->tried = 0;
            call_go_on(c);
        }
    }
}

/* ---- attempts
 * ------------------------------------------------------------------------------------------------
 */

/* The next member of this round that was not asked yet; -1 = all were. */
static int next_endpoint(struct etcd_call *c)
{
    struct etcd_endpoints *p = &c->e->endpoints;

    if (c->generation != p->generation) { /* another list: the bits mean nothing */
        c->generation = p->generation;
        c->tried = 0;
    }
    for (int k = 0; k < p->n; k++) {
        int i = (p->preferred + k) % p->n;
        if ((c->tried & DRA_BIT(i)) == 0) {
            return i;
        }
    }
    return -1;
}

static struct dra_instant attempt_deadline(const struct etcd_call *c, struct dra_instant now)
{
    int64_t left = dra_since(c->spec.not_after, now).ns;
    int64_t d = left / 3;

    if (c->spec.repeat ==
        ETCD_REPEAT_NEVER) { /* once sent nothing else can be done: give it most of the time */
        d = left / 2 > dra_ms(ATTEMPT_MAX_MS).ns ? left / 2 : dra_ms(ATTEMPT_MAX_MS).ns;
    } else if (d > dra_ms(ATTEMPT_MAX_MS).ns) {
        d = dra_ms(ATTEMPT_MAX_MS).ns;
    }
    if (d < dra_ms(ATTEMPT_MIN_MS).ns) {
        d = dra_ms(ATTEMPT_MIN_MS).ns;
    }
    return dra_earlier(dra_after(now, (struct dra_span){d}), c->spec.not_after);
}

/* Ask the next member.  DRA_ENOTFOUND = all of this round were asked. */
static int attempt_start(struct etcd_call *c, struct dra_err *err)
{
    struct etcd *e = c->e;
    int i = next_endpoint(c);
    struct attempt *a = c->attempts[0].op == NULL ? &c->attempts[0] : &c->attempts[1];
    const char *headers[4] = {"Content-Type: application/json", "Grpc-Metadata-hasleader: true",
                              NULL, NULL};
    char authorization[ETCD_TOKEN_MAX + 32];
    char url[ETCD_URL_MAX + 64];
    struct http_tls tls = etcd_tls(e);
    struct dra_instant now = dra_now();

    if (c->running == (int)DRA_ARRAY_LEN(c->attempts)) {
        return DRA_EBUSY;
    }
    if (i < 0) {
        return DRA_ENOTFOUND;
    }
    c->tried |= (uint32_t)DRA_BIT(i);
    if (!c->spec.no_token && e->auth.token[0] != '\0' &&
        dra_str_printf(authorization, sizeof authorization, "authorization: %s", e->auth.token) ==
            DRA_OK) {
        headers[2] = authorization;
    }
    dra_str_clip(a->url, sizeof a->url, e->endpoints.url[i]);
    if (dra_str_printf(url, sizeof url, "%s%s", a->url, c->spec.path) != DRA_OK) {
        return dra_err_set(err, DRA_ETOOLONG, "etcd: URL too long");
    }
    a->token_generation = e->auth.generation;
    struct http_request rq = {
        .method = c->spec.get ? "GET" : "POST",
        .url = url,
        .body = c->spec.get ? NULL : c->body,
        .body_len = c->spec.get ? 0 : c->body_len,
        .headers = headers,
        .tls = dra_str_starts(url, "https:") ? &tls : NULL,
        .not_after = attempt_deadline(c, now),
        .max_body = ANSWER_MAX,
        .fresh_connection = c->spec.repeat == ETCD_REPEAT_NEVER,
    };
    int rc = http_start(e->http, &rq, on_http, a, &a->op, err);
    if (rc != DRA_OK) {
        a->op = NULL;
        return rc == DRA_ENOTFOUND ? DRA_ECONN : rc;
    }
    c->running++;
    if (c->spec.repeat == ETCD_REPEAT_HEDGED && c->running == 1 && next_endpoint(c) >= 0) {
        c->timer_use = TIMER_HEDGE;
        dra_timer_set(c->timer, dra_after(now, dra_ms(ETCD_HEDGE_MS)));
    } else {
        c->timer_use = TIMER_IDLE;
        dra_timer_stop(c->timer);
    }
    return DRA_OK;
}

/* Ask on: the next member, or after a full round a pause, or the end of the time. */
static void call_go_on(struct etcd_call *c)
{
    struct etcd *e = c->e;
    struct dra_instant now = dra_now();
    int64_t left = dra_since(c->spec.not_after, now).ns;

    if (left < dra_ms(GIVE_UP_MS).ns) {
        if (c->running == 0) {
            call_fail(c, c->last_code, c->last_class,
                      c->last_msg[0] != '\0' ? c->last_msg : "deadline passed");
        }
        return;
    }
    int rc = attempt_start(c, NULL);
    if (rc == DRA_OK || c->running > 0) {
        return;
    }
    if (rc != DRA_ENOTFOUND) {
        call_fail(c, DRA_ECONN, ETCD_UNAVAILABLE, "the request could not be started");
        return;
    }
    if (c->round_failures > 0 && c->round_answers == 0) { /* not one member is there */
        etcd_endpoints_failed_round(e);
    }
    c->pause.ns = c->pause.ns == 0 ? dra_ms(PAUSE_FIRST_MS).ns : c->pause.ns * 2;
    if (c->pause.ns > dra_ms(PAUSE_MAX_MS).ns) {
        c->pause = dra_ms(PAUSE_MAX_MS);
    }
    int64_t wait =
        c->pause.ns + (int64_t)(dra_rand_next(&e->random) % (uint64_t)(c->pause.ns / 2 + 1));
    if (wait > left / 2) {
        wait = left / 2;
    }
    c->timer_use = TIMER_PAUSE;
    dra_timer_set(c->timer, dra_after(now, (struct dra_span){wait}));
}

static void on_timer(void *arg)
{
    struct etcd_call *c = arg;
    enum timer_use use = c->timer_use;

    c->timer_use = TIMER_IDLE;
    switch (use) {
    case TIMER_IDLE:
        break;
    case TIMER_HEDGE:
        if (c->running == 1 && attempt_start(c, NULL) == DRA_OK) {
            c->hedged++;
        }
        break;
    case TIMER_PAUSE:
        c->tried = 0;
        c->round_failures = 0;
        c->round_answers = 0;
        c->stale_answers = 0;
        call_go_on(c);
        break;
    case TIMER_TOKEN:
        call_fail(c, DRA_ETIMEDOUT, ETCD_UNAVAILABLE, "no answer to authentication");
        break;
    case TIMER_CANCEL:
        call_fail(c, DRA_ECANCELED, ETCD_OK, "cancelled");
        break;
    }
}

/* ---- answers
 * ---------------------------------------------------------------------------------------------------
 */

/* Is this answer from a member that knows a lower term than a quorum does (DCS-72)?  Also keeps
 * term and cluster. */
static bool answer_is_stale(struct etcd_call *c, const struct attempt *a,
                            const struct etcd_header *h)
{
    struct etcd *e = c->e;

    if (h->cluster_id != 0 && h->cluster_id != e->cluster_id) {
        bool other = e->cluster_id != 0;
        e->cluster_id = h->cluster_id;
        if (other) {
            log_event(LOG_LV_WARNING, "etcd.cluster_id", "Another etcd cluster answers", "endpoint",
                      a->url, NULL);
            e->raft_term = 0;
            etcd_watch_reborn(e);
        }
    }
    if (h->raft_term == 0) {
        return false;
    }
    if (h->raft_term < e->raft_term) {
        c->stale_answers++;
        if (c->spec.quorum &&
            c->stale_answers >= e->endpoints.n) { /* all of them: the cluster was made anew */
            log_event(LOG_LV_WARNING, "etcd.term", "The term of etcd went back on every member",
                      "endpoint", a->url, NULL);
            e->raft_term = h->raft_term;
            etcd_watch_reborn(e);
            return false;
        }
        return c->spec.repeat !=
               ETCD_REPEAT_NEVER; /* one that must not be repeated was carried out all the same */
    }
    if (c->spec.quorum && h->raft_term > e->raft_term) {
        bool election = e->raft_term != 0;
        e->raft_term = h->raft_term;
        if (election) {
            etcd_watch_check_soon(e);
        }
    }
    return false;
}

static void call_succeed(struct etcd_call *c, struct attempt *a, const struct json *root,
                         const struct etcd_header *h, struct dra_instant sent_at)
{
    struct etcd *e = c->e;
    struct etcd_reply r = {.root = root, .header = *h, .sent_at = sent_at, .endpoint = a->url};

    if (c->hedged > 0) {
        etcd_endpoints_hedge_won(e, a->url);
    } else if (c->first_failed) {
        etcd_endpoints_answered(e, a->url);
    }
    if (c->spec.quorum && h->revision != 0) {
        etcd_watch_observe(e, h->revision, sent_at);
    }
    call_finish(c, &r);
}

/* The member answered with an error: what that means for this call. */
static void call_error(struct etcd_call *c, struct attempt *a, const struct etcd_error *x)
{
    struct etcd *e = c->e;
    bool never = c->spec.repeat == ETCD_REPEAT_NEVER;

    c->round_answers++;
    call_note(c, a, DRA_ETIMEDOUT, x->class, x->text);
    switch (x->class) {
    case ETCD_UNAVAILABLE:
        if (never) {
            call_fail(c, DRA_ETIMEDOUT, x->class,
                      c->last_msg); /* it may have been carried out: unknown */
        } else {
            c->first_failed = true;
            call_go_on(c);
        }
        return;
    case ETCD_TRANSIENT:
        if (never) {
            call_fail(c, x->code == 9 ? DRA_EREMOTE : DRA_ETIMEDOUT, x->class, c->last_msg);
        } else {
            c->tried = UINT32_MAX; /* the same after a pause, not at once on the next member */
            call_go_on(c);
        }
        return;
    case ETCD_AUTH:
        if (c->spec.no_token || !e->auth.enabled || c->auth_tries++ >= AUTH_TRIES_MAX) {
            call_fail(c, DRA_EAUTH, x->class, c->last_msg);
            return;
        }
        c->tried = 0;
        e->auth.off = false;
        if (a->token_generation != e->auth.generation) { /* the token was renewed since */
            call_go_on(c);
            return;
        }
        c->wait_round = e->auth.generation + 1;
        c->timer_use = TIMER_TOKEN;
        dra_timer_set(c->timer, c->spec.not_after);
        etcd_auth_renew(e, dra_after(dra_now(), e->retry_timeout));
        return;
    case ETCD_AUTH_FAILED:
        call_fail(c, DRA_EAUTH, x->class, c->last_msg);
        return;
    case ETCD_LEASE:
        call_fail(c, DRA_ENOTFOUND, x->class, c->last_msg);
        return;
    case ETCD_OK:
    case ETCD_AUTH_OFF:
    case ETCD_NOT_V3:
    case ETCD_DEFINITE:
    case ETCD_CLASS_COUNT:
        break;
    }
    call_fail(c, DRA_EREMOTE, x->class, c->last_msg);
}

static void call_answer(struct etcd_call *c, struct attempt *a, const struct http_response *r)
{
    struct etcd_error x;
    struct etcd_header h;
    struct json *root = NULL;
    struct json *whole; /* freed at the end; call_finish uses it */
    size_t used = 0;

    if (r->status >= 400) {
        etcd_wire_error(r->status, r->body, r->body_len, &x);
        call_error(c, a, &x);
        return;
    }
    if (json_parse_first(r->body, r->body_len, &root, &used, NULL) != DRA_OK) {
        x = (struct etcd_error){.class = ETCD_DEFINITE, .code = 2, .text = "the answer is no JSON"};
        call_error(c, a, &x);
        return;
    }
    whole = root;
    if (etcd_wire_stream_error(root, &x)) {
        json_free(whole);
        call_error(c, a, &x);
        return;
    }
    const struct json *header = json_get(root, "header");
    etcd_wire_header(header != NULL ? header : json_find(root, "result.header"), &h);
    c->round_answers++;
    if (answer_is_stale(c, a, &h)) {
        json_free(whole);
        c->first_failed = true;
        call_note(c, a, DRA_ETIMEDOUT, ETCD_UNAVAILABLE,
                  "the member lags behind the cluster's term");
        call_go_on(c);
        return;
    }
    call_succeed(c, a, root, &h, r->sent_at); /* c may be gone */
    json_free(whole);
}

static void on_http(const struct http_response *r, void *arg)
{
    struct attempt *a = arg;
    struct etcd_call *c = a->call;

    a->op = NULL;
    c->running--;
    if (c->finished) {
        if (c->running == 0) {
            call_release(c);
        }
        return;
    }
    if (c->cancelled || r->err_code == DRA_ECANCELED) {
        c->cancelled = true;
        if (c->running == 0) {
            call_fail(c, DRA_ECANCELED, ETCD_OK, "cancelled");
        }
        return;
    }
    if (r->err_code == DRA_OK) {
        call_answer(c, a, r);
        return;
    }
    call_note(c, a, r->err_code == DRA_ECONN ? DRA_ECONN : DRA_ETIMEDOUT, ETCD_UNAVAILABLE,
              r->err_msg);
    if (r->err_code != DRA_ECONN && r->err_code != DRA_ETIMEDOUT) {
        call_fail(c, DRA_EREMOTE, ETCD_DEFINITE,
                  c->last_msg); /* such as an answer beyond every limit */
        return;
    }
    if (c->spec.repeat == ETCD_REPEAT_NEVER && !r->not_sent) {
        call_fail(c, c->last_code, ETCD_UNAVAILABLE, c->last_msg); /* unknown */
        return;
    }
    c->round_failures++;
    c->first_failed = true;
    call_go_on(c);
}
