/*
 * test_http.c - the HTTP client against a small server in a thread of this program: answers, deadlines, streams,
 * cancelling and closing from inside callbacks, connections kept, no request sent twice.
 */
#include <dragent/io.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>
#include <uv.h>

#define CONNS_MAX 128

/* ---- the server: one thread per connection, behaviour by path ---- */

struct server {
    int listener;
    int port;
    int quit[2]; /* closed write end = end */
    pthread_t acceptor;
    pthread_t threads[CONNS_MAX];
    int n_threads;
    atomic_int connections;
    atomic_int requests;
};

static struct server server;

static bool wait_readable(int fd)
{
    struct pollfd p[2] = {{.fd = fd, .events = POLLIN}, {.fd = server.quit[0], .events = POLLIN}};

    return poll(p, 2, 30000) > 0 && p[1].revents == 0;
}

static void send_all(int fd, const char *p, size_t n)
{
    while (n > 0) {
        ssize_t done = send(fd, p, n, MSG_NOSIGNAL);

        if (done <= 0) {
            return;
        }
        p += done;
        n -= (size_t)done;
    }
}

static void answer(int fd, const char *status, const char *body, size_t len)
{
    char head[200];

    (void)snprintf(head, sizeof head, "HTTP/1.1 %s\r\nContent-Length: %zu\r\nX-Raft-Term: 7\r\n\r\n", status, len);
    send_all(fd, head, strlen(head));
    send_all(fd, body, len);
}

static void stream(int fd, int chunks, bool end)
{
    static const char head[] = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";

    send_all(fd, head, sizeof head - 1);
    for (int i = 0; i < chunks; i++) {
        char text[40];

        (void)snprintf(text, sizeof text, "8\r\nchunk%02d\n\r\n", i);
        send_all(fd, text, strlen(text));
        (void)usleep(5000);
    }
    if (end) {
        send_all(fd, "0\r\n\r\n", 5);
    }
}

/* False: close the connection. */
static bool serve(int fd, const char *method, const char *path, const char *body)
{
    static char big[300000];

    if (strcmp(path, "/ok") == 0) {
        char text[100];

        (void)snprintf(text, sizeof text, "%s %s", method, body);
        answer(fd, "200 OK", text, strlen(text));
    } else if (strcmp(path, "/503") == 0) {
        answer(fd, "503 Service Unavailable", "{\"error\":1}", 11);
    } else if (strcmp(path, "/big") == 0) {
        memset(big, 'x', sizeof big);
        answer(fd, "200 OK", big, sizeof big);
    } else if (strcmp(path, "/slow") == 0) {
        return wait_readable(fd) && false; /* until the client leaves */
    } else if (strcmp(path, "/stall") == 0) {
        send_all(fd, "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf", 43);
        return wait_readable(fd) && false;
    } else if (strcmp(path, "/hangup") == 0) {
        return false;
    } else if (strcmp(path, "/garbage") == 0) {
        send_all(fd, "this is not http\r\n\r\n", 20);
        return false;
    } else if (strcmp(path, "/stream") == 0) {
        stream(fd, 5, true);
    } else if (strcmp(path, "/watch") == 0) {
        stream(fd, 3, false);
        return wait_readable(fd) && false;
    } else if (strcmp(path, "/cut") == 0) {
        stream(fd, 2, false);
        return false;
    } else {
        answer(fd, "404 Not Found", "", 0);
    }
    return true;
}

static bool one_request(int fd)
{
    char text[65536];
    char method[16], path[64];
    size_t len = 0;
    size_t want = 0;
    char *body = NULL;

    for (;;) {
        ssize_t n;

        text[len] = '\0';
        if (body == NULL && (body = strstr(text, "\r\n\r\n")) != NULL) {
            const char *length = strcasestr(text, "Content-Length:");

            body += 4;
            want = length != NULL && length < body ? strtoul(length + 15, NULL, 10) : 0;
        }
        if (body != NULL && (size_t)(text + len - body) >= want) {
            break;
        }
        if (len + 1 >= sizeof text || !wait_readable(fd)) {
            return false;
        }
        n = recv(fd, text + len, sizeof text - 1 - len, 0);
        if (n <= 0) {
            return false;
        }
        len += (size_t)n;
    }
    atomic_fetch_add(&server.requests, 1);
    if (sscanf(text, "%15s %63s", method, path) != 2) {
        return false;
    }
    return serve(fd, method, path, body);
}

static void *connection_main(void *arg)
{
    int fd = (int)(intptr_t)arg;

    while (one_request(fd)) {
    }
    (void)close(fd);
    return NULL;
}

static void *acceptor_main(void *arg)
{
    (void)arg;
    while (wait_readable(server.listener) && server.n_threads < CONNS_MAX) {
        int fd = accept(server.listener, NULL, NULL);

        if (fd < 0) {
            continue;
        }
        atomic_fetch_add(&server.connections, 1);
        if (pthread_create(&server.threads[server.n_threads], NULL, connection_main, (void *)(intptr_t)fd) == 0) {
            server.n_threads++;
        }
    }
    return NULL;
}

static int listen_here(int *port)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof a;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    assert_true(fd >= 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&a, sizeof a), 0);
    assert_int_equal(listen(fd, 64), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&a, &len), 0);
    *port = ntohs(a.sin_port);
    return fd;
}

static int start_server(void **state)
{
    (void)state;
    server.listener = listen_here(&server.port);
    assert_int_equal(pipe(server.quit), 0);
    assert_int_equal(pthread_create(&server.acceptor, NULL, acceptor_main, NULL), 0);
    return 0;
}

static int stop_server(void **state)
{
    (void)state;
    (void)close(server.quit[1]);
    (void)pthread_join(server.acceptor, NULL);
    for (int i = 0; i < server.n_threads; i++) {
        (void)pthread_join(server.threads[i], NULL);
    }
    (void)close(server.listener);
    (void)close(server.quit[0]);
    return 0;
}

/* ---- the client ---- */

struct fixture {
    uv_loop_t loop;
    struct http_client *client;
    int open_calls; /* the client is closed when none is left */
};

struct call {
    struct fixture *f;
    struct http_op *op;
    int ended;
    int status;
    int err_code;
    char err_msg[256];
    char body[400];
    size_t body_len;
    char term[16];
    size_t chunks_len;
    char chunks[100];
    struct dra_instant sent_at, began, at;
    /* what the callbacks do */
    bool stop_stream, cancel_in_chunk, close_in_chunk, again;
};

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);

    assert_non_null(f);
    assert_int_equal(uv_loop_init(&f->loop), 0);
    assert_int_equal(http_client_open(&f->loop, &f->client, NULL), 0);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    http_client_close(f->client);
    assert_int_equal(uv_run(&f->loop, UV_RUN_DEFAULT), 0);
    assert_int_equal(uv_loop_close(&f->loop), 0);
    free(f);
    return 0;
}

static void on_end(const struct http_response *r, void *arg);

static void start_at(struct fixture *f, struct call *c, const char *url, const char *body, int ms)
{
    struct http_request rq = {
        .method = body != NULL ? "POST" : "GET",
        .url = url,
        .body = body,
        .body_len = body != NULL ? strlen(body) : 0,
        .not_after = dra_after(dra_now(), dra_ms(ms)),
    };
    struct dra_err err = {0};

    c->f = f;
    c->began = dra_now();
    if (http_start(f->client, &rq, on_end, c, &c->op, &err) != 0) {
        fail_msg("%s", err.msg);
    }
    f->open_calls++;
}

static void start(struct fixture *f, struct call *c, const char *path, const char *body, int ms)
{
    char url[100];
    int before = c->ended;

    (void)snprintf(url, sizeof url, "http://127.0.0.1:%d%s", server.port, path);
    start_at(f, c, url, body, ms);
    assert_int_equal(c->ended, before); /* never from inside */
}

static void on_end(const struct http_response *r, void *arg)
{
    struct call *c = arg;
    const char *term = r->header(r, "x-raft-term");

    c->ended++;
    c->at = dra_now();
    c->status = r->status;
    c->err_code = r->err_code;
    c->body_len = r->body_len;
    c->sent_at = r->sent_at;
    assert_int_equal(strlen(r->body), r->body_len);
    dra_str_clip(c->body, sizeof c->body, r->body);
    dra_str_clip(c->err_msg, sizeof c->err_msg, r->err_msg);
    dra_str_clip(c->term, sizeof c->term, term != NULL ? term : "none");
    assert_null(r->header(r, "x-other"));
    c->f->open_calls--;
    http_cancel(c->op); /* too late: nothing happens */
    if (c->again) {
        c->again = false;
        start(c->f, c, "/ok", NULL, 5000);
    }
}

static bool on_chunk(const char *p, size_t n, void *arg)
{
    struct call *c = arg;

    assert_int_equal(c->ended, 0);
    assert_true(c->chunks_len + n < sizeof c->chunks);
    memcpy(c->chunks + c->chunks_len, p, n);
    c->chunks_len += n;
    if (c->cancel_in_chunk) {
        http_cancel(c->op);
    }
    if (c->close_in_chunk) {
        http_client_close(c->f->client);
    }
    return !c->stop_stream;
}

static void start_stream(struct fixture *f, struct call *c, const char *path, int ms)
{
    char url[100];
    struct http_request rq = {.method = "GET", .url = url};
    struct dra_err err = {0};

    (void)snprintf(url, sizeof url, "http://127.0.0.1:%d%s", server.port, path);
    if (ms > 0) {
        rq.not_after = dra_after(dra_now(), dra_ms(ms));
    }
    c->f = f;
    c->began = dra_now();
    if (http_stream_start(f->client, &rq, on_chunk, on_end, c, &c->op, &err) != 0) {
        fail_msg("%s", err.msg);
    }
    f->open_calls++;
}

/* The loop does not end by itself: idle connections of the client's cache don't hold it, running calls do. */
static void run(struct fixture *f)
{
    while (f->open_calls > 0) {
        (void)uv_run(&f->loop, UV_RUN_ONCE);
    }
}

static int64_t took_ms(const struct call *c)
{
    return dra_span_ms(dra_since(c->at, c->began));
}

static void answers(void **state)
{
    static const struct {
        const char *path, *body;
        int status, err_code;
        size_t len;
        const char *text;
    } rows[] = {
        {"/ok", NULL, 200, DRA_OK, 4, "GET "},
        {"/ok", "hello", 200, DRA_OK, 10, "POST hello"},
        {"/ok", "", 200, DRA_OK, 5, "POST "},
        {"/503", NULL, 503, DRA_OK, 11, "{\"error\":1}"},
        {"/none", NULL, 404, DRA_OK, 0, ""},
        {"/big", NULL, 200, DRA_OK, 300000, NULL},
        {"/hangup", NULL, 0, DRA_ECONN, 0, ""},
        {"/garbage", NULL, 0, DRA_ECONN, 0, ""},
        {"/slow", NULL, 0, DRA_ETIMEDOUT, 0, ""},
        {"/slow", "x", 0, DRA_ETIMEDOUT, 0, ""},
        {"/stall", NULL, 200, DRA_ETIMEDOUT, 4, "half"},
    };
    struct fixture *f = *state;

    for (size_t i = 0; i < DRA_ARRAY_LEN(rows); i++) {
        struct call c = {0};
        bool slow = rows[i].err_code == DRA_ETIMEDOUT;

        start(f, &c, rows[i].path, rows[i].body, slow ? 150 : 10000);
        run(f);
        if (c.status != rows[i].status || c.err_code != rows[i].err_code || c.body_len != rows[i].len ||
            (rows[i].text != NULL && strcmp(c.body, rows[i].text) != 0)) {
            fail_msg("row %zu %s: status %d err %d (%s) body \"%s\"", i, rows[i].path, c.status, c.err_code,
                     c.err_msg, c.body);
        }
        assert_true((c.err_code == DRA_OK) == (c.err_msg[0] == '\0'));
        assert_true(dra_reached(c.at, c.sent_at) && dra_reached(c.sent_at, c.began));
        if (slow) {
            assert_true(took_ms(&c) >= 150 && took_ms(&c) < 1500);
        } else if (c.status == 200) {
            assert_string_equal(c.term, "7");
        }
    }
}

static void connections_are_kept(void **state)
{
    struct fixture *f = *state;
    int before = atomic_load(&server.connections);
    struct call c[3] = {0};

    for (int i = 0; i < 10; i++) {
        start(f, &c[0], "/ok", i % 2 == 0 ? NULL : "body", 10000);
        run(f);
        assert_int_equal(c[0].status, 200);
    }
    assert_int_equal(atomic_load(&server.connections), before + 1);
    start(f, &c[0], "/slow", NULL, 300); /* a hung call: the others don't wait behind it */
    start(f, &c[1], "/ok", NULL, 10000);
    start(f, &c[2], "/ok", NULL, 10000);
    run(f);
    assert_int_equal(c[0].err_code, DRA_ETIMEDOUT);
    assert_int_equal(c[1].status, 200);
    assert_int_equal(c[2].status, 200);
    assert_true(took_ms(&c[1]) < 290);
}

/* A kept connection that breaks after the request was sent: it must not be sent again. */
static void no_request_twice(void **state)
{
    struct fixture *f = *state;
    struct call c = {0};
    int before;

    start(f, &c, "/ok", "warm", 10000);
    run(f);
    before = atomic_load(&server.requests);
    start(f, &c, "/hangup", "transaction", 10000);
    run(f);
    assert_int_equal(c.err_code, DRA_ECONN);
    assert_int_equal(atomic_load(&server.requests), before + 1);
}

static void refused_and_refusals(void **state)
{
    struct fixture *f = *state;
    struct call c = {0};
    struct http_request rq = {.method = "GET", .url = "http://127.0.0.1:1/"};
    char url[64];
    int port;
    int fd = listen_here(&port);

    (void)close(fd); /* nobody listens there now */
    (void)snprintf(url, sizeof url, "http://127.0.0.1:%d/", port);
    start_at(f, &c, url, NULL, 5000);
    run(f);
    assert_int_equal(c.err_code, DRA_ECONN);
    assert_true(took_ms(&c) < 1000);
    start_at(f, &c, url, NULL, -5); /* a deadline that has passed: still later, and from the loop */
    assert_int_equal(c.ended, 1);
    run(f);
    assert_int_equal(c.err_code, DRA_ETIMEDOUT);
    start_at(f, &c, "ftp://127.0.0.1/", NULL, 5000);
    run(f);
    assert_int_equal(c.err_code, DRA_ECONN);
    start_at(f, &c, "http://[::bad", NULL, 5000);
    run(f);
    assert_int_equal(c.err_code, DRA_ECONN);
    assert_int_equal(http_start(f->client, &rq, on_end, &c, NULL, NULL), DRA_EINVAL); /* no deadline */
    rq.url = NULL;
    assert_int_equal(http_start(f->client, &rq, on_end, &c, NULL, NULL), DRA_EINVAL);
}

static void body_limit(void **state)
{
    struct fixture *f = *state;
    struct call c = {.f = f};
    char url[64];
    struct http_request rq = {.method = "GET", .url = url, .max_body = 1000};

    (void)snprintf(url, sizeof url, "http://127.0.0.1:%d/big", server.port);
    rq.not_after = dra_after(dra_now(), dra_ms(5000));
    assert_int_equal(http_start(f->client, &rq, on_end, &c, &c.op, NULL), 0);
    f->open_calls++;
    run(f);
    assert_int_equal(c.err_code, DRA_ETOOLONG);
}

static void on_cancel_timer(void *arg)
{
    struct call *c = arg;

    http_cancel(c->op);
}

static void cancelling(void **state)
{
    struct fixture *f = *state;
    struct call c[3] = {0};
    struct dra_timer *t;

    start(f, &c[0], "/slow", NULL, 10000);
    http_cancel(c[0].op);
    http_cancel(c[0].op);
    assert_int_equal(c[0].ended, 0);
    start(f, &c[1], "/ok", NULL, 10000);
    start(f, &c[2], "/slow", NULL, 10000);
    assert_int_equal(dra_timer_open(&f->loop, on_cancel_timer, &c[2], &t), 0);
    dra_timer_set(t, dra_after(dra_now(), dra_ms(50)));
    run(f);
    dra_timer_close(t);
    assert_int_equal(c[0].err_code, DRA_ECANCELED);
    assert_int_equal(c[1].status, 200);
    assert_int_equal(c[2].err_code, DRA_ECANCELED);
    assert_true(took_ms(&c[2]) >= 49 && took_ms(&c[2]) < 2000);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(c[i].ended, 1);
    }
}

static void streams(void **state)
{
    static const char five[] = "chunk00\nchunk01\nchunk02\nchunk03\nchunk04\n";
    static const struct {
        const char *path;
        int ms; /* deadline, 0 = none */
        bool stop, cancel;
        int status, err_code;
        size_t chunks_len;
    } rows[] = {
        {"/stream", 0, false, false, 200, DRA_OK, 40},
        {"/watch", 200, false, false, 200, DRA_ETIMEDOUT, 24},
        {"/cut", 0, false, false, 200, DRA_ECONN, 16},
        {"/watch", 0, true, false, 200, DRA_OK, 8},
        {"/watch", 0, false, true, 200, DRA_ECANCELED, 8},
        {"/503", 0, false, false, 503, DRA_OK, 0},
        {"/hangup", 0, false, false, 0, DRA_ECONN, 0},
        {"/slow", 100, false, false, 0, DRA_ETIMEDOUT, 0},
    };
    struct fixture *f = *state;

    for (size_t i = 0; i < DRA_ARRAY_LEN(rows); i++) {
        struct call c = {.stop_stream = rows[i].stop, .cancel_in_chunk = rows[i].cancel};

        start_stream(f, &c, rows[i].path, rows[i].ms);
        assert_int_equal(c.ended, 0);
        run(f);
        if (c.ended != 1 || c.status != rows[i].status || c.err_code != rows[i].err_code ||
            c.chunks_len < rows[i].chunks_len) {
            fail_msg("row %zu %s: status %d err %d (%s), %zu bytes", i, rows[i].path, c.status, c.err_code,
                     c.err_msg, c.chunks_len);
        }
        assert_memory_equal(c.chunks, five, c.chunks_len);
        if (c.status == 503) { /* what is not 2xx is no stream: it is in the body */
            assert_string_equal(c.body, "{\"error\":1}");
        }
    }
}

static void from_inside(void **state)
{
    struct fixture *f = *state;
    struct call again = {.again = true};
    struct call closes = {.close_in_chunk = true};
    struct call hung = {0};
    struct http_request rq = {.method = "GET", .url = "http://127.0.0.1/", .not_after = {1}};

    start(f, &again, "/ok", NULL, 10000);
    run(f);
    assert_int_equal(again.ended, 2);
    start(f, &hung, "/slow", NULL, 10000);
    start_stream(f, &closes, "/watch", 0);
    run(f);
    assert_int_equal(closes.ended, 1);
    assert_int_equal(closes.err_code, DRA_ECANCELED);
    assert_int_equal(hung.ended, 1);
    assert_int_equal(hung.err_code, DRA_ECANCELED);
    /* the client is on its way out: open another for the teardown */
    assert_int_equal(http_client_open(&f->loop, &f->client, NULL), 0);
    http_client_close(f->client);
    assert_int_equal(http_start(f->client, &rq, on_end, &hung, NULL, NULL), DRA_ESTATE);
}

int main(void)
{
#define T(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(answers), T(connections_are_kept), T(no_request_twice), T(refused_and_refusals),
        T(body_limit), T(cancelling), T(streams), T(from_inside),
    };

    return cmocka_run_group_tests(tests, start_server, stop_server);
}
