/*
 * rest_harness.h - a REST server on a loop thread of its own, and raw clients.
 *
 * The test's thread is the client; what must happen on the loop thread goes through hs_do().
 */
#ifndef REST_HARNESS_H
#define REST_HARNESS_H

#include "rest_fixture.h"

#include <dragent/io.h>

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <unistd.h>

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <uv.h>

#define HS_HELD_MAX 256
enum hs_mode { HS_ANSWER = 0, HS_HOLD, HS_FAIL };

struct harness {
    uv_loop_t loop;
    uv_async_t door;
    pthread_t thread;
    sem_t done;
    void (*fn)(struct harness *h, void *arg);
    void *arg;
    struct rest *rest;
    struct conf_rest cfg;
    struct fixture *x; /* loop thread only, once it runs */
    atomic_int fresh_mode, cluster_mode, call_mode;
    atomic_int n_fresh, n_cluster, n_calls;
    uint64_t held[HS_HELD_MAX]; /* ids of calls that wait, loop thread */
    atomic_int n_held;
    int reply_status;
    int port;
};

static inline void hs_publish(struct harness *h)
{
    struct dra_instant now = dra_now();
    h->x->w.now = now;
    if (h->x->p.leader) {
        h->x->p.lead_until = dra_after(now, dra_ms(20000));
    }
    h->x->f.valid_until = dra_after(now, dra_ms(20000));
    h->x->f.cycle_due = dra_after(now, dra_ms(10000));
    rest_publish(h->rest, &h->x->f);
}

static inline void hs_on_request(const struct rest_request *rq, void *arg)
{
    struct harness *h = arg;
    char text[128];
    char *body = NULL;

    if (rq->kind == REST_FRESH) {
        atomic_fetch_add(&h->n_fresh, 1);
        if (atomic_load(&h->fresh_mode) == HS_ANSWER) {
            h->x->w.pg.asked_at = dra_now();
            h->x->w.pg.answered_at = h->x->w.pg.asked_at;
            h->x->w.pg.wal_lsn++;
            hs_publish(h);
            rest_resume_fresh(h->rest);
        } else if (atomic_load(&h->fresh_mode) == HS_FAIL) {
            rest_reply(h->rest, rq->id, 503, NULL, "the agent is not ready");
        }
        return;
    }
    if (rq->kind == REST_CLUSTER) {
        atomic_fetch_add(&h->n_cluster, 1);
        if (atomic_load(&h->cluster_mode) != HS_HOLD) {
            hs_publish(h);
            rest_resume_cluster(h->rest, atomic_load(&h->cluster_mode) == HS_ANSWER);
        }
        return;
    }
    atomic_fetch_add(&h->n_calls, 1);
    if (atomic_load(&h->call_mode) == HS_HOLD) {
        int i = atomic_load(&h->n_held);
        if (i < HS_HELD_MAX) {
            h->held[i] = rq->id;
            atomic_fetch_add(&h->n_held, 1);
        }
        return;
    }
    if (rq->body != NULL) {
        body = json_print_spaced(rq->body);
    }
    if (rq->kind == REST_RELOAD) {
        rest_reply(h->rest, rq->id, 202, NULL, "reload scheduled");
    } else if (rq->kind == REST_PATCH_CONFIG) {
        rest_reply(h->rest, rq->id, 200, "application/json", body);
    } else {
        (void)snprintf(text, sizeof text, "kind %d %s", (int)rq->kind, body != NULL ? body : "-");
        rest_reply(h->rest, rq->id, h->reply_status, NULL, h->reply_status == 0 || h->reply_status == 409 ? NULL : text);
    }
    free(body);
}

static inline void hs_on_door(uv_async_t *a)
{
    struct harness *h = a->data;
    h->fn(h, h->arg);
    (void)sem_post(&h->done);
}

static inline void *hs_main(void *arg)
{
    struct harness *h = arg;
    (void)uv_run(&h->loop, UV_RUN_DEFAULT);
    return NULL;
}

/* Run fn on the loop thread and wait for its end. */
static inline void hs_do(struct harness *h, void (*fn)(struct harness *h, void *arg), void *arg)
{
    h->fn = fn;
    h->arg = arg;
    assert_int_equal(uv_async_send(&h->door), 0);
    while (sem_wait(&h->done) != 0) {
        assert_int_equal(errno, EINTR);
    }
}

static inline void hs_do_publish(struct harness *h, void *arg)
{
    (void)arg;
    hs_publish(h);
}

/* Answer what is held, in the order of arrival. */
static inline void hs_do_reply(struct harness *h, void *arg)
{
    for (int i = 0; i < atomic_load(&h->n_held); i++) {
        rest_reply(h->rest, h->held[i], 200, NULL, arg);
    }
    atomic_store(&h->n_held, 0);
}

static inline struct harness *hs_open(const char *user, const char *password, bool publish)
{
    struct harness *h = calloc(1, sizeof *h);
    struct dra_err err = {0};

    assert_non_null(h);
    h->x = fx_new(dra_now());
    h->reply_status = 200;
    fx_str(h->cfg.listen_host, sizeof h->cfg.listen_host, "127.0.0.1");
    fx_str(h->cfg.username, sizeof h->cfg.username, user);
    fx_str(h->cfg.password, sizeof h->cfg.password, password);
    assert_int_equal(sem_init(&h->done, 0, 0), 0);
    assert_int_equal(uv_loop_init(&h->loop), 0);
    assert_int_equal(uv_async_init(&h->loop, &h->door, hs_on_door), 0);
    h->door.data = h;
    if (rest_open(&h->loop, &h->cfg, hs_on_request, h, &h->rest, &err) != DRA_OK) {
        fail_msg("%s", err.msg);
    }
    h->port = rest_port(h->rest);
    if (publish) {
        hs_publish(h);
    }
    assert_int_equal(pthread_create(&h->thread, NULL, hs_main, h), 0);
    return h;
}

static inline void hs_do_close(struct harness *h, void *arg)
{
    (void)arg;
    rest_close(h->rest);
    h->rest = NULL;
    uv_close((uv_handle_t *)&h->door, NULL);
}

static inline void hs_close(struct harness *h)
{
    hs_do(h, hs_do_close, NULL);
    assert_int_equal(pthread_join(h->thread, NULL), 0);
    assert_int_equal(uv_loop_close(&h->loop), 0);
    (void)sem_destroy(&h->done);
    fx_free(h->x);
    free(h);
}

/* ---- clients: no assertions in here, since threads use them ------------------------------------------------- */

static inline int64_t hs_ms(void)
{
    return dra_now().ns / 1000000;
}

static inline int cl_connect(int port)
{
    struct sockaddr_in sa = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr = {htonl(INADDR_LOOPBACK)}};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct timeval limit = {.tv_sec = 20};
    (void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    if (connect(fd, (const struct sockaddr *)&sa, sizeof sa) != 0) {
        (void)close(fd);
        return -1;
    }
    return fd;
}

struct answer {
    int status;       /* 0: no answer, -1: broken */
    bool closed;      /* the server closed the connection after it */
    char head[2048];
    char body[32768];
    size_t body_len;
};

static inline bool cl_send(int fd, const char *text)
{
    size_t len = strlen(text);
    while (len > 0) {
        ssize_t n = send(fd, text, len, MSG_NOSIGNAL);
        if (n <= 0) {
            return false;
        }
        text += n;
        len -= (size_t)n;
    }
    return true;
}

/* One answer; `head_only`: of a HEAD request. */
static inline void cl_read(int fd, bool head_only, struct answer *a)
{
    size_t n = 0;
    char *end = NULL;
    char c;

    memset(a, 0, sizeof *a);
    while (end == NULL && n + 1 < sizeof a->head) {
        ssize_t got = recv(fd, &c, 1, 0);
        if (got <= 0) {
            a->status = n == 0 && got == 0 ? 0 : -1;
            a->closed = true;
            return;
        }
        a->head[n++] = c;
        a->head[n] = '\0';
        end = strstr(a->head, "\r\n\r\n");
    }
    if (sscanf(a->head, "HTTP/1.%*d %d", &a->status) != 1) {
        a->status = -1;
        return;
    }
    size_t want = 0;
    const char *length = strstr(a->head, "Content-Length: ");
    if (length != NULL && !head_only) {
        want = strtoul(length + 16, NULL, 10);
    }
    while (a->body_len < want && want < sizeof a->body) {
        ssize_t got = recv(fd, a->body + a->body_len, want - a->body_len, 0);
        if (got <= 0) {
            a->status = -1;
            return;
        }
        a->body_len += (size_t)got;
    }
    a->closed = strstr(a->head, "Connection: close") != NULL;
}

/* One request on a connection of its own. */
static inline void cl_once(int port, const char *request, struct answer *a)
{
    int fd = cl_connect(port);

    memset(a, 0, sizeof *a);
    a->status = -1;
    if (fd < 0) {
        return;
    }
    if (cl_send(fd, request)) {
        cl_read(fd, dra_str_starts(request, "HEAD"), a);
    }
    (void)close(fd);
}

static inline void cl_get(int port, const char *path, struct answer *a)
{
    char text[512];
    (void)snprintf(text, sizeof text, "GET %s HTTP/1.1\r\nHost: x\r\n\r\n", path);
    cl_once(port, text, a);
}

static inline void cl_body(int port, const char *method, const char *path, const char *body, struct answer *a)
{
    char text[4096];
    (void)snprintf(text, sizeof text, "%s %s HTTP/1.1\r\nHost: x\r\nContent-Length: %zu\r\n\r\n%s", method, path, strlen(body), body);
    cl_once(port, text, a);
}

#endif
