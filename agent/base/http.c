/*
 * http.c - HTTP client: one curl multi on the loop, connections kept per host.
 *
 * The caller's callbacks never run inside curl: curl's own only note what came, and pump() delivers it afterwards, so
 * that a callback may start, cancel or close whatever it likes.  pump() runs from the loop only, never from an
 * API call; those ring `kick`.
 * Invariants:
 *  (1) After every curl_multi_socket_action the finished transfers are read, timer calls included (a lone request
 *      that times out is not reported otherwise).
 *  (2) An operation is in `ops` from its start until its callback has returned; only pump() takes it out.
 *  (3) Deadlines count on CLOCK_BOOTTIME; curl's own clock limits only connecting.
 * A peer that is gone shows by TCP keepalive and TCP_USER_TIMEOUT; one that is frozen only by a deadline or a rule of
 * the caller's.
 * Threads: loop thread only.
 */
#include <dragent/io.h>

#include <curl/curl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <sys/socket.h>
#include <uv.h>

#define DEFAULT_MAX_BODY ((size_t)1 << 20)
#define CHUNK_MAX ((size_t)16 << 20)
#define DEFAULT_USER_TIMEOUT_MS 2500
#define STREAM_CONNECT_TIMEOUT_MS 5000
#define CONNECTIONS_KEPT 32L

struct http_op {
    TAILQ_ENTRY(http_op) link;
    struct http_client *client;
    CURL *easy;
    struct curl_slist *headers; /* owned */
    bool in_multi;
    bool is_stream;
    bool delivering; /* its final callback runs or has run */
    bool done;       /* result below is final */
    bool cancelled;
    bool too_long;
    int err_code;
    char err_msg[CURL_ERROR_SIZE];
    struct dra_instant not_after; /* unset = none */
    struct dra_instant sent_at;
    struct dra_buf upload; /* body of the request */
    size_t uploaded;
    struct dra_buf body;  /* answer, or of a stream what is not 2xx */
    struct dra_buf chunk; /* stream: came, not delivered yet */
    int user_timeout_ms;
    http_chunk_cb on_chunk;
    http_cb cb;
    void *arg;
};

TAILQ_HEAD(http_ops, http_op);

struct sock {
    TAILQ_ENTRY(sock) link;
    uv_poll_t poll;
    struct http_client *client;
    curl_socket_t fd;
};

TAILQ_HEAD(http_socks, sock);

struct http_client {
    uv_loop_t *loop;
    CURLM *multi;
    uv_timer_t curl_timer;
    uv_timer_t kick;
    struct dra_timer *deadline;
    struct http_ops ops;
    struct http_socks socks;
    int open_handles;
    bool closing;
    bool closed;
};

static void pump(struct http_client *c);

/* ---- curl and the loop ---- */

static void on_client_handle_closed(uv_handle_t *h)
{
    struct http_client *c = h->data;

    if (--c->open_handles == 0) {
        free(c);
    }
}

static void on_sock_closed(uv_handle_t *h)
{
    struct sock *s = h->data;
    struct http_client *c = s->client;

    free(s);
    if (--c->open_handles == 0) {
        free(c);
    }
}

static void sock_close(struct sock *s)
{
    TAILQ_REMOVE(&s->client->socks, s, link);
    (void)uv_poll_stop(&s->poll);
    uv_close((uv_handle_t *)&s->poll, on_sock_closed);
}

static void on_sock_event(uv_poll_t *h, int status, int events)
{
    struct sock *s = h->data;
    struct http_client *c = s->client;
    int flags = 0;
    int running = 0;

    if (status < 0) {
        flags = CURL_CSELECT_ERR;
    }
    if ((events & UV_READABLE) != 0) {
        flags |= CURL_CSELECT_IN;
    }
    if ((events & UV_WRITABLE) != 0) {
        flags |= CURL_CSELECT_OUT;
    }
    (void)curl_multi_socket_action(c->multi, s->fd, flags, &running); /* may close s */
    pump(c);
}

static struct sock *sock_open(struct http_client *c, curl_socket_t fd)
{
    struct sock *s = calloc(1, sizeof *s);

    if (s == NULL) {
        return NULL;
    }
    if (uv_poll_init_socket(c->loop, &s->poll, fd) != 0) {
        free(s);
        return NULL;
    }
    s->poll.data = s;
    s->client = c;
    s->fd = fd;
    c->open_handles++;
    TAILQ_INSERT_TAIL(&c->socks, s, link);
    (void)curl_multi_assign(c->multi, fd, s);
    return s;
}

static int on_curl_socket(CURL *easy, curl_socket_t fd, int what, void *client, void *known)
{
    struct http_client *c = client;
    struct sock *s = known;
    int events = 0;

    (void)easy;
    if (what == CURL_POLL_REMOVE) {
        if (s != NULL) {
            (void)curl_multi_assign(c->multi, fd, NULL);
            sock_close(s);
        }
        return 0;
    }
    if (s == NULL) {
        s = sock_open(c, fd);
    }
    if (s == NULL) {
        return -1;
    }
    if (what == CURL_POLL_IN || what == CURL_POLL_INOUT) {
        events |= UV_READABLE;
    }
    if (what == CURL_POLL_OUT || what == CURL_POLL_INOUT) {
        events |= UV_WRITABLE;
    }
    return uv_poll_start(&s->poll, events, on_sock_event) == 0 ? 0 : -1;
}

static void on_curl_timeout(uv_timer_t *h)
{
    struct http_client *c = h->data;
    int running = 0;

    (void)curl_multi_socket_action(c->multi, CURL_SOCKET_TIMEOUT, 0, &running);
    pump(c);
}

static int on_curl_timer(CURLM *multi, long timeout_ms, void *client)
{
    struct http_client *c = client;

    (void)multi;
    if (timeout_ms < 0) {
        (void)uv_timer_stop(&c->curl_timer);
        return 0;
    }
    uv_update_time(c->loop); /* stale after a block */
    return uv_timer_start(&c->curl_timer, on_curl_timeout, (uint64_t)timeout_ms, 0) == 0 ? 0 : -1;
}

static void on_kick(uv_timer_t *h)
{
    pump(h->data);
}

/* Have pump() run in the next turn of the loop. */
static void ring(struct http_client *c)
{
    if (!c->closed) {
        (void)uv_timer_start(&c->kick, on_kick, 0, 0);
    }
}

/* ---- operations ---- */

static void op_free(struct http_op *op)
{
    if (op->easy != NULL) {
        if (op->in_multi) {
            (void)curl_multi_remove_handle(op->client->multi, op->easy);
        }
        curl_easy_cleanup(op->easy);
    }
    curl_slist_free_all(op->headers);
    dra_buf_deinit(&op->upload);
    dra_buf_deinit(&op->body);
    dra_buf_deinit(&op->chunk);
    free(op);
}

static void op_done(struct http_op *op, int err_code, const char *msg)
{
    if (op->done) {
        return;
    }
    op->done = true;
    op->err_code = err_code;
    if (msg != NULL) {
        dra_str_clip(op->err_msg, sizeof op->err_msg, msg);
    }
    if (op->in_multi) {
        op->in_multi = false;
        (void)curl_multi_remove_handle(op->client->multi, op->easy);
    }
}

static int status_of(const struct http_op *op)
{
    long status = 0;

    (void)curl_easy_getinfo(op->easy, CURLINFO_RESPONSE_CODE, &status);
    return (int)status;
}

static size_t on_curl_write(char *p, size_t size, size_t n, void *arg)
{
    struct http_op *op = arg;
    int status = status_of(op);
    struct dra_buf *into = op->is_stream && status >= 200 && status < 300 ? &op->chunk : &op->body;

    dra_buf_add(into, p, size * n);
    if (into->failed) {
        op->too_long = true;
        return 0; /* curl ends the transfer */
    }
    return size * n;
}

static int on_curl_sockopt(void *arg, curl_socket_t fd, curlsocktype purpose)
{
    const struct http_op *op = arg;
    const struct {
        int level, name, value;
    } rows[] = {
        {SOL_SOCKET, SO_KEEPALIVE, 1},    {IPPROTO_TCP, TCP_KEEPIDLE, 1},
        {IPPROTO_TCP, TCP_KEEPINTVL, 1},  {IPPROTO_TCP, TCP_KEEPCNT, 2},
        {IPPROTO_TCP, TCP_USER_TIMEOUT, op->user_timeout_ms},
    };

    if (purpose != CURLSOCKTYPE_IPCXN) {
        return CURL_SOCKOPT_OK;
    }
    for (size_t i = 0; i < DRA_ARRAY_LEN(rows); i++) {
        (void)setsockopt(fd, rows[i].level, rows[i].name, &rows[i].value, sizeof rows[i].value);
    }
    return CURL_SOCKOPT_OK;
}

static const char *response_header(const struct http_response *r, const char *name)
{
    const struct http_op *op = r->priv;
    struct curl_header *h = NULL;

    if (curl_easy_header(op->easy, name, 0, CURLH_HEADER, -1, &h) != CURLHE_OK) {
        return NULL;
    }
    return h->value;
}

static bool has_header(const char *const *headers, const char *name)
{
    size_t len = strlen(name);

    for (; headers != NULL && *headers != NULL; headers++) {
        if (strncasecmp(*headers, name, len) == 0 && (*headers)[len] == ':') {
            return true;
        }
    }
    return false;
}

static bool add_header(struct http_op *op, const char *line)
{
    struct curl_slist *more = curl_slist_append(op->headers, line);

    if (more == NULL) {
        return false;
    }
    op->headers = more;
    return true;
}

static bool set_headers(struct http_op *op, const struct http_request *rq)
{
    bool ok = add_header(op, "Expect:"); /* no 100-continue */

    if (rq->body != NULL && !has_header(rq->headers, "Content-Type")) {
        ok = ok && add_header(op, "Content-Type: application/json");
    }
    for (const char *const *h = rq->headers; ok && h != NULL && *h != NULL; h++) {
        ok = add_header(op, *h);
    }
    return ok && curl_easy_setopt(op->easy, CURLOPT_HTTPHEADER, op->headers) == CURLE_OK;
}

static size_t on_curl_read(char *p, size_t size, size_t n, void *arg)
{
    struct http_op *op = arg;
    size_t left = op->upload.len - op->uploaded;
    size_t now = left < size * n ? left : size * n;

    if (now > 0) {
        memcpy(p, op->upload.p + op->uploaded, now);
        op->uploaded += now;
    }
    return now;
}

static bool set_method(struct http_op *op, const struct http_request *rq)
{
    CURL *e = op->easy;
    bool posts = dra_str_eq(rq->method, "POST") || dra_str_eq(rq->method, "PUT") ||
                 dra_str_eq(rq->method, "PATCH");
    CURLcode rc;

    if (dra_str_eq(rq->method, "HEAD")) {
        return curl_easy_setopt(e, CURLOPT_NOBODY, 1L) == CURLE_OK;
    }
    if (rq->body != NULL && rq->body_len > 0) {
        /* Read through a callback that cannot rewind, not as POSTFIELDS: when a kept connection breaks after the
         * body was sent, curl would send the request again by itself, and a transaction must not be doubled. */
        dra_buf_init(&op->upload, rq->body_len);
        dra_buf_add(&op->upload, rq->body, rq->body_len);
        rc = op->upload.failed ? CURLE_OUT_OF_MEMORY : curl_easy_setopt(e, CURLOPT_POST, 1L);
        if (rc == CURLE_OK) {
            rc = curl_easy_setopt(e, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)rq->body_len);
        }
        if (rc == CURLE_OK) {
            rc = curl_easy_setopt(e, CURLOPT_READFUNCTION, on_curl_read);
        }
        if (rc == CURLE_OK) {
            rc = curl_easy_setopt(e, CURLOPT_READDATA, op);
        }
    } else if (rq->body == NULL && !posts) {
        rc = curl_easy_setopt(e, CURLOPT_HTTPGET, 1L);
    } else {
        rc = curl_easy_setopt(e, CURLOPT_POSTFIELDS, "");
        if (rc == CURLE_OK) {
            rc = curl_easy_setopt(e, CURLOPT_POSTFIELDSIZE, 0L);
        }
    }
    return rc == CURLE_OK && curl_easy_setopt(e, CURLOPT_CUSTOMREQUEST, rq->method) == CURLE_OK;
}

static bool set_tls(struct http_op *op, const struct http_tls *tls)
{
    CURL *e = op->easy;
    CURLcode rc = CURLE_OK;

    if (tls == NULL) {
        return true;
    }
    if (tls->cacert != NULL) {
        rc = curl_easy_setopt(e, CURLOPT_CAINFO, tls->cacert);
    }
    if (rc == CURLE_OK && tls->cert != NULL) {
        rc = curl_easy_setopt(e, CURLOPT_SSLCERT, tls->cert);
    }
    if (rc == CURLE_OK && tls->key != NULL) {
        rc = curl_easy_setopt(e, CURLOPT_SSLKEY, tls->key);
    }
    if (rc == CURLE_OK && !tls->verify) {
        rc = curl_easy_setopt(e, CURLOPT_SSL_VERIFYPEER, 0L);
        if (rc == CURLE_OK) {
            rc = curl_easy_setopt(e, CURLOPT_SSL_VERIFYHOST, 0L);
        }
    }
    return rc == CURLE_OK;
}

#define SET(opt, value) (ok = ok && curl_easy_setopt(e, (opt), (value)) == CURLE_OK)

static bool set_options(struct http_op *op, const struct http_request *rq)
{
    CURL *e = op->easy;
    bool ok = true;
    int64_t left_ms = dra_span_ms(dra_since(op->not_after, op->sent_at));
    long connect_ms = STREAM_CONNECT_TIMEOUT_MS;

    if (dra_is_set(op->not_after) && (!op->is_stream || left_ms < connect_ms)) {
        connect_ms = left_ms < 1 ? 1 : left_ms > 600000 ? 600000 : (long)left_ms + 1;
    }
    SET(CURLOPT_URL, rq->url);
    SET(CURLOPT_PRIVATE, op);
    SET(CURLOPT_ERRORBUFFER, op->err_msg);
    SET(CURLOPT_NOSIGNAL, 1L);
    SET(CURLOPT_PROXY, "");
    SET(CURLOPT_PROTOCOLS_STR, "http,https");
    SET(CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
    SET(CURLOPT_CONNECTTIMEOUT_MS, connect_ms);
    SET(CURLOPT_TIMEOUT_MS, 0L); /* the deadline is ours */
    /* a resolver thread that hangs is left behind (it ends by itself) instead of blocking the loop */
    SET(CURLOPT_QUICK_EXIT, 1L);
    SET(CURLOPT_TCP_NODELAY, 1L);
    SET(CURLOPT_FRESH_CONNECT, rq->fresh_connection ? 1L : 0L);
    SET(CURLOPT_BUFFERSIZE, 16384L);
    SET(CURLOPT_SOCKOPTFUNCTION, on_curl_sockopt);
    SET(CURLOPT_SOCKOPTDATA, op);
    SET(CURLOPT_WRITEFUNCTION, on_curl_write);
    SET(CURLOPT_WRITEDATA, op);
    SET(CURLOPT_USERAGENT, "dragent/" DRA_VERSION);
    return ok && set_method(op, rq) && set_headers(op, rq) && set_tls(op, rq->tls);
}

#undef SET

/* ---- delivery ---- */

static void read_finished(struct http_client *c)
{
    CURLMsg *m;
    int left = 0;

    while ((m = curl_multi_info_read(c->multi, &left)) != NULL) {
        struct http_op *op = NULL;
        CURLcode why;

        if (m->msg != CURLMSG_DONE) {
            continue;
        }
        why = m->data.result; /* m is gone once the handle is removed */
        (void)curl_easy_getinfo(m->easy_handle, CURLINFO_PRIVATE, (char **)&op);
        if (why == CURLE_OK) {
            op_done(op, DRA_OK, NULL);
        } else if (op->too_long) {
            op_done(op, DRA_ETOOLONG, "answer too long");
        } else {
            op_done(op, why == CURLE_OPERATION_TIMEDOUT ? DRA_ETIMEDOUT : DRA_ECONN,
                    op->err_msg[0] != '\0' ? NULL : curl_easy_strerror(why));
        }
    }
}

static void check_deadlines(struct http_client *c)
{
    struct dra_instant now = dra_now();
    struct http_op *op;

    TAILQ_FOREACH(op, &c->ops, link)
    {
        if (op->cancelled) {
            op_done(op, DRA_ECANCELED, "cancelled");
        } else if (dra_is_set(op->not_after) && dra_reached(now, op->not_after)) {
            op_done(op, DRA_ETIMEDOUT, "deadline passed");
        }
    }
}

static void deliver_chunk(struct http_op *op)
{
    struct dra_buf chunk = op->chunk;

    dra_buf_init(&op->chunk, CHUNK_MAX);
    if (!op->cancelled && !op->on_chunk(chunk.p, chunk.len, op->arg)) {
        op_done(op, DRA_OK, NULL); /* the caller has seen enough */
    }
    dra_buf_deinit(&chunk);
}

static void deliver_end(struct http_op *op)
{
    struct http_response r = {
        .status = status_of(op),
        .body = dra_buf_str(&op->body),
        .body_len = op->body.len,
        .err_code = op->err_code,
        .sent_at = op->sent_at,
        .header = response_header,
        .priv = op,
    };
    long request_bytes = 1;

    r.not_sent = curl_easy_getinfo(op->easy, CURLINFO_REQUEST_SIZE, &request_bytes) == CURLE_OK && request_bytes == 0;
    if (op->cancelled) {
        r.err_code = DRA_ECANCELED;
    }
    if (r.err_code != DRA_OK) {
        dra_str_clip(r.err_msg, sizeof r.err_msg, op->err_msg);
    }
    op->delivering = true;
    op->cb(&r, op->arg);
    TAILQ_REMOVE(&op->client->ops, op, link);
    op_free(op);
}

static struct http_op *next_to_deliver(struct http_client *c)
{
    struct http_op *op;

    TAILQ_FOREACH(op, &c->ops, link)
    {
        if (op->chunk.len > 0 || op->done || op->cancelled) {
            return op;
        }
    }
    return NULL;
}

static void finish_close(struct http_client *c)
{
    struct sock *s;

    c->closed = true;
    (void)curl_multi_cleanup(c->multi);
    c->multi = NULL;
    while ((s = TAILQ_FIRST(&c->socks)) != NULL) {
        sock_close(s);
    }
    dra_timer_close(c->deadline);
    uv_close((uv_handle_t *)&c->kick, on_client_handle_closed);
    uv_close((uv_handle_t *)&c->curl_timer, on_client_handle_closed);
}

static void pump(struct http_client *c)
{
    struct dra_instant next = {0};
    struct http_op *op;

    if (c->closed) {
        return;
    }
    read_finished(c);
    check_deadlines(c);
    while ((op = next_to_deliver(c)) != NULL) {
        if (op->cancelled) {
            op_done(op, DRA_ECANCELED, "cancelled");
        } else if (op->chunk.len > 0) {
            deliver_chunk(op);
            continue;
        }
        deliver_end(op);
    }
    if (c->closing) {
        finish_close(c);
        return;
    }
    TAILQ_FOREACH(op, &c->ops, link)
    {
        next = dra_earlier(next, op->not_after);
    }
    dra_timer_set(c->deadline, next);
}

static void on_deadline(void *arg)
{
    pump(arg);
}

/* ---- public ---- */

static void init_curl(void)
{
    struct sigaction now;

    (void)curl_global_init(CURL_GLOBAL_DEFAULT);
    /* OpenSSL writes to sockets without MSG_NOSIGNAL */
    if (sigaction(SIGPIPE, NULL, &now) == 0 && now.sa_handler == SIG_DFL) {
        (void)signal(SIGPIPE, SIG_IGN);
    }
}

int http_client_open(struct uv_loop_s *loop, struct http_client **out, struct dra_err *err)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    struct http_client *c = calloc(1, sizeof *c);

    (void)pthread_once(&once, init_curl);
    if (c != NULL) {
        c->multi = curl_multi_init();
    }
    if (c == NULL || c->multi == NULL || dra_timer_open(loop, on_deadline, c, &c->deadline) != DRA_OK) {
        if (c != NULL) {
            (void)curl_multi_cleanup(c->multi);
        }
        free(c);
        return dra_err_set(err, DRA_ENOMEM, "http client: out of memory or descriptors");
    }
    c->loop = loop;
    TAILQ_INIT(&c->ops);
    TAILQ_INIT(&c->socks);
    (void)uv_timer_init(loop, &c->curl_timer);
    (void)uv_timer_init(loop, &c->kick);
    c->curl_timer.data = c;
    c->kick.data = c;
    c->open_handles = 2;
    (void)curl_multi_setopt(c->multi, CURLMOPT_SOCKETFUNCTION, on_curl_socket);
    (void)curl_multi_setopt(c->multi, CURLMOPT_SOCKETDATA, c);
    (void)curl_multi_setopt(c->multi, CURLMOPT_TIMERFUNCTION, on_curl_timer);
    (void)curl_multi_setopt(c->multi, CURLMOPT_TIMERDATA, c);
    (void)curl_multi_setopt(c->multi, CURLMOPT_MAXCONNECTS, CONNECTIONS_KEPT);
    *out = c;
    return DRA_OK;
}

void http_client_close(struct http_client *c)
{
    struct http_op *op;

    if (c == NULL || c->closing) {
        return;
    }
    c->closing = true;
    TAILQ_FOREACH(op, &c->ops, link)
    {
        http_cancel(op);
    }
    ring(c);
}

static int start(struct http_client *c, const struct http_request *rq, struct http_op *op, http_cb cb,
                 void *arg, struct http_op **out, struct dra_err *err)
{
    op->client = c;
    op->cb = cb;
    op->arg = arg;
    op->not_after = rq->not_after;
    op->sent_at = dra_now();
    op->user_timeout_ms = rq->tcp_user_timeout_ms > 0 ? rq->tcp_user_timeout_ms : DEFAULT_USER_TIMEOUT_MS;
    dra_buf_init(&op->body, rq->max_body > 0 ? rq->max_body : DEFAULT_MAX_BODY);
    dra_buf_init(&op->chunk, CHUNK_MAX);
    op->easy = curl_easy_init();
    if (op->easy == NULL || !set_options(op, rq)) {
        op_free(op);
        return dra_err_set(err, DRA_EINVAL, "http request to %s: cannot be set up", rq->url);
    }
    if (curl_multi_add_handle(c->multi, op->easy) != CURLM_OK) {
        op_free(op);
        return dra_err_set(err, DRA_ENOMEM, "http request to %s: cannot be started", rq->url);
    }
    op->in_multi = true;
    TAILQ_INSERT_TAIL(&c->ops, op, link);
    ring(c); /* sets the deadline's timer */
    if (out != NULL) {
        *out = op;
    }
    return DRA_OK;
}

static int start_checked(struct http_client *c, const struct http_request *rq, http_chunk_cb on_chunk,
                         http_cb cb, void *arg, struct http_op **out, struct dra_err *err)
{
    struct http_op *op;

    if (c->closing) {
        return dra_err_set(err, DRA_ESTATE, "http client is closing");
    }
    if (rq->url == NULL || rq->method == NULL) {
        return dra_err_set(err, DRA_EINVAL, "http request without url or method");
    }
    if (on_chunk == NULL && !dra_is_set(rq->not_after)) {
        return dra_err_set(err, DRA_EINVAL, "http request to %s without a deadline", rq->url);
    }
    op = calloc(1, sizeof *op);
    if (op == NULL) {
        return dra_err_set(err, DRA_ENOMEM, "out of memory");
    }
    op->is_stream = on_chunk != NULL;
    op->on_chunk = on_chunk;
    return start(c, rq, op, cb, arg, out, err);
}

int http_start(struct http_client *c, const struct http_request *rq, http_cb cb, void *arg,
               struct http_op **out, struct dra_err *err)
{
    return start_checked(c, rq, NULL, cb, arg, out, err);
}

int http_stream_start(struct http_client *c, const struct http_request *rq, http_chunk_cb on_chunk, http_cb cb,
                      void *arg, struct http_op **out, struct dra_err *err)
{
    if (on_chunk == NULL) {
        return dra_err_set(err, DRA_EINVAL, "http stream without a chunk callback");
    }
    return start_checked(c, rq, on_chunk, cb, arg, out, err);
}

void http_cancel(struct http_op *op)
{
    if (op == NULL || op->delivering) {
        return;
    }
    op->cancelled = true;
    ring(op->client);
}
