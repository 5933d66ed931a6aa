/* test_rest_server.c - the real server over loopback, raw sockets (REST-01, 05, 06, 09, 23, 34, 47, 64, 70). */
#include "rest_harness.h"

#include <dirent.h>

static struct answer a; /* large */

#define WANT(status_, what)                                                                        \
    do {                                                                                           \
        if (a.status != (status_)) {                                                               \
            fail_msg("%s: got %d, want %d: %s", (what), a.status, (status_), a.body);              \
        }                                                                                          \
    } while (0)

static void has_text(const char *text)
{
    if (strstr(a.body, text) == NULL) {
        fail_msg("no \"%s\" in: %s", text, a.body);
    }
}

static void information(void **unused)
{
    (void)unused;
    static const struct {
        const char *path;
        int status;
        const char *type; /* NULL: no body */
        const char *text;
    } rows[] = {
        {"/", 200, "application/json", "\"role\": \"primary\""},
        {"//primary", 200, "application/json", "\"state\": \"running\""},
        {"/replica", 503, "application/json", "\"xlog\": {\"location\""},
        {"/nosuch", 503, "application/json", "\"patroni\": {\"version\": \"4.1.4\""},
        {"/%70rimary", 503, "application/json", "running"},
        {"/patroni", 200, "application/json", "\"timeline\": 3"},
        {"/metrics", 200, "text/plain", "patroni_postgres_running{scope=\"demo\",name=\"node1\"} 1"},
        {"/liveness", 200, NULL, ""},
        {"/readiness", 200, NULL, ""},
        {"/failsafe", 502, "text/html;charset=utf-8", "Error code: 502"},
        {"/dragent/world", 200, "application/json", "{\"rule\""},
        {"/cluster", 200, "application/json", "\"scope\": \"demo\"}"},
        {"/history", 200, "application/json", "[[1, 25623960, \"no recovery target specified\"]]"},
        {"/config", 200, "application/json", "{\"ttl\": 30}"},
    };
    const struct dcs_kv kvs[] = {
        {.key = "config", .value = "{\"ttl\":30}", .value_len = 10, .mod_revision = 3, .create_revision = 3},
        {.key = "history", .value = "[[1,25623960,\"no recovery target specified\"]]", .value_len = 45, .mod_revision = 4, .create_revision = 4},
    };
    struct harness *h = hs_open("", "", false);
    h->x->snap = dcs_cluster_parse(kvs, 2, 9);
    h->x->f.cluster = h->x->snap;
    h->x->f.world_json = "{\"rule\": \"hold\"}";
    hs_do(h, hs_do_publish, NULL);
    for (size_t i = 0; i < DRA_ARRAY_LEN(rows); i++) {
        cl_get(h->port, rows[i].path, &a);
        WANT(rows[i].status, rows[i].path);
        has_text(rows[i].text);
        char type[64];
        (void)snprintf(type, sizeof type, "Content-Type: %s\r\n", rows[i].type != NULL ? rows[i].type : "");
        assert_true((strstr(a.head, "Content-Type:") != NULL) == (rows[i].type != NULL));
        assert_true(rows[i].type == NULL || strstr(a.head, type) != NULL);
        assert_non_null(strstr(a.head, "Server: dragent/"));
        assert_non_null(strstr(a.head, "Date: "));
        assert_non_null(strstr(a.head, "Content-Length: "));
    }
    hs_close(h);
}

/* REST-01, REST-05: kept-alive connections, probes without a body. */
static void connections(void **unused)
{
    (void)unused;
    struct harness *h = hs_open("", "", true);
    int fd = cl_connect(h->port);
    for (int i = 0; i < 20; i++) {
        assert_true(cl_send(fd, "GET /primary HTTP/1.1\r\nHost: x\r\n\r\n"));
        cl_read(fd, false, &a);
        WANT(200, "kept alive");
        assert_false(a.closed);
        assert_true(cl_send(fd, "HEAD /replica HTTP/1.1\r\nHost: x\r\n\r\n"));
        cl_read(fd, true, &a);
        WANT(503, "HEAD");
        assert_non_null(strstr(a.head, "Content-Length: 0\r\n"));
        assert_true(cl_send(fd, "OPTIONS /primary HTTP/1.1\r\nHost: x\r\n\r\n"));
        cl_read(fd, false, &a);
        WANT(200, "OPTIONS");
        assert_int_equal(a.body_len, 0);
    }
    assert_true(cl_send(fd, "GET /primary HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"));
    cl_read(fd, false, &a);
    WANT(200, "close");
    assert_int_equal(recv(fd, a.head, 1, 0), 0);
    (void)close(fd);
    fd = cl_connect(h->port);
    assert_true(cl_send(fd, "GET /primary HTTP/1.0\r\n\r\n"));
    cl_read(fd, false, &a);
    WANT(200, "HTTP/1.0");
    assert_int_equal(recv(fd, a.head, 1, 0), 0);
    (void)close(fd);
    cl_once(h->port, "HEAD /nosuch HTTP/1.1\r\nHost: x\r\n\r\n", &a);
    WANT(503, "HEAD /nosuch");
    cl_once(h->port, "OPTIONS /liveness HTTP/1.1\r\nHost: x\r\n\r\n", &a);
    WANT(200, "OPTIONS /liveness");
    cl_once(h->port, "nonsense\r\n\r\n", &a); /* and whatever else comes */
    fd = cl_connect(h->port); /* half a request at the end */
    assert_true(cl_send(fd, "GET /primary HTTP/1.1\r\n"));
    hs_close(h);
    (void)close(fd);
}

static void refusals(void **unused)
{
    (void)unused;
    static const struct {
        const char *what, *request;
        int status;
        const char *text;
    } rows[] = {
        {"wrong method", "POST /nosuch HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}", 501, "Server does not support this operation"},
        {"lower case", "post /restart HTTP/1.1\r\nHost: x\r\n\r\n", 501, "Unsupported method ('post')"},
        {"odd method", "<b> /restart HTTP/1.1\r\nHost: x\r\n\r\n", 501, "Unsupported method ('?b?')"},
        {"DELETE /failover", "DELETE /failover HTTP/1.1\r\nHost: x\r\n\r\n", 501, "Error code: 501"},
        {"no body", "PATCH /config HTTP/1.1\r\nHost: x\r\n\r\n", 411, "Client must specify Content-Length"},
        {"chunked", "PATCH /config HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n", 411, "411"},
        {"empty body", "PATCH /config HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n", 400, "Error code: 400"},
        {"empty object", "PATCH /config HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}", 400, "400"},
        {"no object", "POST /switchover HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n[]", 400, "400"},
        {"null", "POST /switchover HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nnull", 400, "400"},
        {"no JSON", "POST /restart HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\n{\"a\"", 400, "400"},
        {"not scheduled", "DELETE /restart HTTP/1.1\r\nHost: x\r\n\r\n", 404, "no restarts are scheduled"},
        {"sigterm", "POST /sigterm HTTP/1.1\r\nHost: x\r\n\r\n", 202, "shutdown scheduled"},
        {"citus", "POST /citus HTTP/1.1\r\nHost: x\r\nContent-Length: 7\r\n\r\n{\"a\":1}", 200, "OK"},
        {"failsafe", "POST /failsafe HTTP/1.1\r\nHost: x\r\n\r\n", 502, "502"},
    };
    struct harness *h = hs_open("", "", true);
    for (size_t i = 0; i < DRA_ARRAY_LEN(rows); i++) {
        cl_once(h->port, rows[i].request, &a);
        WANT(rows[i].status, rows[i].what);
        has_text(rows[i].text);
    }
    assert_int_equal(atomic_load(&h->n_calls), 0);
    hs_close(h);
}

/* The body is capped while it arrives; absurd ones are cut off. */
static void large_bodies(void **unused)
{
    (void)unused;
    static char chunk[65537];
    static const struct {
        int chunks; /* of 64 kB */
        int status; /* -1: the connection ends without an answer */
    } rows[] = {{2, 413}, {200, -1}};
    struct harness *h = hs_open("", "", true);
    memset(chunk, ' ', sizeof chunk - 1);
    for (size_t i = 0; i < DRA_ARRAY_LEN(rows); i++) {
        int fd = cl_connect(h->port);
        char head[128];
        (void)snprintf(head, sizeof head, "PATCH /config HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n", rows[i].chunks * 65536);
        assert_true(cl_send(fd, head));
        bool sent = true;
        for (int c = 0; c < rows[i].chunks && sent; c++) {
            sent = cl_send(fd, chunk);
        }
        cl_read(fd, false, &a);
        assert_true(rows[i].status == -1 ? a.status <= 0 : a.status == rows[i].status);
        (void)close(fd);
    }
    assert_int_equal(atomic_load(&h->n_calls), 0);
    hs_close(h);
}

static void authentication(void **unused)
{
    (void)unused;
    /* user:secret */
    static const struct {
        const char *what, *header;
        int status;
        const char *text;
    } rows[] = {
        {"none", "", 401, "no auth header received"},
        {"wrong", "Authorization: Basic dXNlcjp3cm9uZw==\r\n", 401, "not authenticated"},
        {"scheme", "Authorization: basic dXNlcjpzZWNyZXQ=\r\n", 401, "not authenticated"},
        {"short", "Authorization: Basic dXNlcjpzZWNyZXQ\r\n", 401, "not authenticated"},
        {"right", "Authorization: Basic dXNlcjpzZWNyZXQ=\r\n", 202, "reload scheduled"},
    };
    struct harness *h = hs_open("user", "secret", true);
    for (size_t i = 0; i < DRA_ARRAY_LEN(rows); i++) {
        char text[256];
        (void)snprintf(text, sizeof text, "POST /reload HTTP/1.1\r\nHost: x\r\n%sContent-Length: 2\r\n\r\n{}", rows[i].header);
        cl_once(h->port, text, &a);
        WANT(rows[i].status, rows[i].what);
        assert_string_equal(a.body, rows[i].text);
        assert_true((strstr(a.head, "WWW-Authenticate: Basic realm=\"Patroni\"\r\n") != NULL) == (rows[i].status == 401));
        assert_non_null(strstr(a.head, "Content-Type: text/html\r\n"));
    }
    cl_get(h->port, "/config", &a); /* open, though there is none */
    WANT(503, "GET is open");
    cl_body(h->port, "PATCH", "/config", "{\"a\":1}", &a);
    WANT(401, "before the body");
    assert_int_equal(atomic_load(&h->n_calls), 1);
    hs_close(h);
}

static void calls(void **unused)
{
    (void)unused;
    struct harness *h = hs_open("", "", true);
    cl_body(h->port, "PATCH", "/config", "{\"pause\":true,\"x\":{\"y\":null}}", &a);
    WANT(200, "PATCH");
    assert_string_equal(a.body, "{\"pause\": true, \"x\": {\"y\": null}}");
    assert_non_null(strstr(a.head, "Content-Type: application/json\r\n"));
    cl_once(h->port, "POST /restart HTTP/1.1\r\nHost: x\r\n\r\n", &a);
    WANT(200, "restart without body");
    has_text("{}");
    cl_body(h->port, "POST", "/reinitialize", "{}", &a);
    WANT(200, "reinitialize");
    cl_once(h->port, "DELETE /switchover HTTP/1.1\r\nHost: x\r\n\r\n", &a);
    WANT(200, "DELETE /switchover");
    has_text("-");
    h->reply_status = 409;
    cl_body(h->port, "POST", "/failover", "{\"candidate\":\"b\"}", &a);
    WANT(409, "error page");
    has_text("Error code: 409");
    h->reply_status = 0;
    cl_body(h->port, "POST", "/switchover", "{\"leader\":\"a\"}", &a);
    WANT(0, "dropped"); /* REST-09 */
    assert_int_equal(a.head[0], '\0');
    hs_close(h);
}

static void late_answer(void **unused)
{
    (void)unused;
    char text[] = "Successfully switched over to \"b\"";
    struct harness *h = hs_open("", "", true);
    int fd = cl_connect(h->port);
    atomic_store(&h->call_mode, HS_HOLD);
    assert_true(cl_send(fd, "POST /switchover HTTP/1.1\r\nHost: x\r\nContent-Length: 14\r\n\r\n{\"leader\":\"a\"}"));
    for (int i = 0; i < 10; i++) { /* others are served meanwhile */
        cl_get(h->port, "/primary", &a);
        WANT(200, "meanwhile");
    }
    struct pollfd p = {.fd = fd, .events = POLLIN};
    assert_int_equal(poll(&p, 1, 100), 0);
    hs_do(h, hs_do_reply, text);
    cl_read(fd, false, &a);
    WANT(200, "late");
    assert_string_equal(a.body, text);
    (void)close(fd);
    hs_close(h);
}

/* ---- freshness (REST-47) ------------------------------------------------------------------------------------------ */

static void do_age(struct harness *h, void *arg)
{
    const int *ms = arg;
    h->x->w.pg.answered_at = dra_before(dra_now(), dra_ms(*ms));
    h->x->w.pg.asked_at = h->x->w.pg.answered_at;
    hs_publish(h);
}

static void do_unlock(struct harness *h, void *arg)
{
    (void)arg;
    h->x->w.cluster.leader[0] = '\0';
    h->x->p.leader = false;
    hs_publish(h);
}

static void fresh_positions(void **unused)
{
    (void)unused;
    static const struct {
        const char *what, *request;
        int age_ms;
        bool unlocked;
        bool asks;
    } rows[] = {
        {"young enough", "GET /patroni HTTP/1.1\r\nHost: x\r\n\r\n", 300, false, false},
        {"too old", "GET /patroni HTTP/1.1\r\nHost: x\r\n\r\n", 2000, false, true},
        {"the document of /primary", "GET /primary HTTP/1.1\r\nHost: x\r\n\r\n", 2000, false, true},
        {"HEAD needs none", "HEAD /primary HTTP/1.1\r\nHost: x\r\n\r\n", 2000, false, false},
        {"HEAD with lag", "HEAD /replica?lag=1 HTTP/1.1\r\nHost: x\r\n\r\n", 2000, false, true},
        {"metrics", "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n", 2000, false, true},
        {"liveness", "GET /liveness HTTP/1.1\r\nHost: x\r\n\r\n", 2000, false, false},
        {"nobody leads", "GET /patroni HTTP/1.1\r\nHost: x\r\n\r\n", 300, true, true},
        {"nobody leads, a check", "GET /health HTTP/1.1\r\nHost: x\r\n\r\n", 300, true, false},
        {"readiness", "GET /readiness HTTP/1.1\r\nHost: x\r\n\r\n", 2000, true, true},
    };
    struct harness *h = hs_open("", "", true);
    for (size_t i = 0; i < DRA_ARRAY_LEN(rows); i++) {
        int before = atomic_load(&h->n_fresh);
        int age = rows[i].age_ms;
        if (rows[i].unlocked) {
            hs_do(h, do_unlock, NULL);
        }
        hs_do(h, do_age, &age);
        cl_once(h->port, rows[i].request, &a);
        if (a.status <= 0 || (atomic_load(&h->n_fresh) != before) != rows[i].asks) {
            fail_msg("%s: status %d, asked %d times", rows[i].what, a.status, atomic_load(&h->n_fresh) - before);
        }
    }
    hs_close(h);
}

static void silent_server(void **unused)
{
    (void)unused;
    static const struct {
        const char *path;
        int status;
        int min_ms, max_ms;
    } rows[] = {{"/primary", 200, 200, 1500}, {"/patroni", 200, 2900, 4500}, {"/health", 503, 2900, 4500}};
    struct harness *h = hs_open("", "", true);
    int age = 2000;
    atomic_store(&h->fresh_mode, HS_HOLD);
    hs_do(h, do_age, &age);
    for (size_t i = 0; i < DRA_ARRAY_LEN(rows); i++) {
        int64_t began = hs_ms();
        cl_get(h->port, rows[i].path, &a);
        int64_t took = hs_ms() - began;
        WANT(rows[i].status, rows[i].path);
        assert_null(strstr(a.body, "xlog")); /* never an old position */
        assert_in_range(took, rows[i].min_ms, rows[i].max_ms);
    }
    assert_int_equal(atomic_load(&h->n_fresh), 1); /* one question for all */
    hs_close(h);
    /* a loop that is not ready says so at once */
    h = hs_open("", "", true);
    atomic_store(&h->fresh_mode, HS_FAIL);
    hs_do(h, do_age, &age);
    int64_t began = hs_ms();
    cl_get(h->port, "/patroni", &a);
    WANT(200, "refused");
    assert_null(strstr(a.body, "xlog"));
    assert_in_range(hs_ms() - began, 0, 2000);
    hs_close(h);
}

/* ---- GET /cluster (REST-64) ------------------------------------------------------------------------------------------- */

static void do_cluster(struct harness *h, void *arg)
{
    (void)arg;
    h->x->snap = dcs_cluster_parse(NULL, 0, 9);
    h->x->f.cluster = h->x->snap;
    h->x->f.dcs_last_seen_s = h->x->w.wall_s - 7;
    hs_publish(h);
}

static void cluster_reads(void **unused)
{
    (void)unused;
    struct harness *h = hs_open("", "", true);
    atomic_store(&h->cluster_mode, HS_FAIL);
    cl_get(h->port, "/cluster", &a);
    WANT(503, "never read");
    cl_get(h->port, "/history", &a);
    WANT(503, "never read");
    hs_do(h, do_cluster, NULL);
    cl_get(h->port, "/cluster", &a);
    WANT(200, "the store is away");
    assert_non_null(strstr(a.head, "Age: 7\r\n"));
    assert_string_equal(a.body, "{\"members\": [], \"scope\": \"demo\"}");
    atomic_store(&h->cluster_mode, HS_ANSWER);
    cl_get(h->port, "/cluster", &a);
    WANT(200, "fresh");
    assert_null(strstr(a.head, "Age:"));
    cl_get(h->port, "/config", &a);
    WANT(502, "no such key");
    cl_get(h->port, "/history", &a);
    WANT(200, "no such key");
    assert_string_equal(a.body, "[]");
    atomic_store(&h->cluster_mode, HS_HOLD);
    int64_t began = hs_ms();
    cl_get(h->port, "/cluster", &a);
    WANT(200, "the store is silent");
    assert_non_null(strstr(a.head, "Age: "));
    assert_in_range(hs_ms() - began, 2900, 4500);
    hs_close(h);
}

/* ---- life ---------------------------------------------------------------------------------------------------------------- */

static void before_the_first_turn(void **unused)
{
    (void)unused;
    struct harness *h = hs_open("", "", false);
    cl_get(h->port, "/liveness", &a);
    WANT(200, "liveness");
    cl_get(h->port, "/primary", &a);
    WANT(503, "primary");
    cl_get(h->port, "/patroni", &a);
    WANT(503, "patroni");
    hs_close(h);
}

#define CLIENTS 50
struct client {
    int port;
    int wrong;
};

static void *client_main(void *arg)
{
    struct client *c = arg;
    struct answer *mine = malloc(sizeof *mine);
    int fd = cl_connect(c->port);
    for (int i = 0; i < 40 && mine != NULL; i++) {
        if (!cl_send(fd, "GET /primary HTTP/1.1\r\nHost: x\r\n\r\n")) {
            c->wrong++;
            break;
        }
        cl_read(fd, false, mine);
        c->wrong += mine->status != 200 ? 1 : 0;
    }
    (void)close(fd);
    free(mine);
    return NULL;
}

static void many_clients(void **unused)
{
    (void)unused;
    struct harness *h = hs_open("", "", true);
    struct client c[CLIENTS];
    pthread_t t[CLIENTS];
    for (int i = 0; i < CLIENTS; i++) {
        c[i] = (struct client){.port = h->port};
        assert_int_equal(pthread_create(&t[i], NULL, client_main, &c[i]), 0);
    }
    for (int i = 0; i < CLIENTS; i++) {
        assert_int_equal(pthread_join(t[i], NULL), 0);
        assert_int_equal(c[i].wrong, 0);
    }
    hs_close(h);
}

/* More calls than are taken on: the rest is refused, checks go on; the end answers all who wait. */
static void end_with_waiting(void **unused)
{
    (void)unused;
    struct harness *h = hs_open("", "", true);
    int fds[80];
    int refused = 0;
    int ended = 0;
    atomic_store(&h->call_mode, HS_HOLD);
    for (int i = 0; i < 80; i++) {
        fds[i] = cl_connect(h->port);
        assert_true(cl_send(fds[i], "POST /switchover HTTP/1.1\r\nHost: x\r\nContent-Length: 14\r\n\r\n{\"leader\":\"a\"}"));
    }
    int age = 5000;
    hs_do(h, do_age, &age);
    atomic_store(&h->fresh_mode, HS_HOLD);
    int waiting = cl_connect(h->port);
    assert_true(cl_send(waiting, "GET /patroni HTTP/1.1\r\nHost: x\r\n\r\n"));
    cl_once(h->port, "HEAD /primary HTTP/1.1\r\nHost: x\r\n\r\n", &a);
    WANT(200, "a check among waiting calls");
    for (int i = 0; i < 80; i++) {
        struct pollfd p = {.fd = fds[i], .events = POLLIN};
        if (poll(&p, 1, i == 0 ? 300 : 0) == 1) {
            cl_read(fds[i], false, &a);
            refused += a.status == 503 ? 1 : 0;
            (void)close(fds[i]);
            fds[i] = -1;
        }
    }
    assert_int_equal(refused, 80 - 64);
    int64_t began = hs_ms();
    hs_close(h);
    assert_in_range(hs_ms() - began, 0, 1500);
    for (int i = 0; i < 80; i++) {
        if (fds[i] >= 0) {
            cl_read(fds[i], false, &a);
            WANT(503, "at the end");
            has_text("Switchover status unknown");
            ended++;
            (void)close(fds[i]);
        }
    }
    assert_int_equal(ended, 64);
    cl_read(waiting, false, &a);
    WANT(200, "a GET at the end");
    assert_null(strstr(a.body, "xlog"));
    (void)close(waiting);
}

static void do_reconfigure(struct harness *h, void *arg)
{
    struct dra_err err = {0};
    const int *port = arg;
    fx_str(h->cfg.username, sizeof h->cfg.username, "user");
    fx_str(h->cfg.password, sizeof h->cfg.password, "secret");
    h->cfg.listen_port = *port;
    assert_int_equal(rest_reconfigure(h->rest, &h->cfg, &err), DRA_OK);
    h->port = rest_port(h->rest);
}

static void do_bad_reconfigure(struct harness *h, void *arg)
{
    struct dra_err err = {0};
    struct conf_rest cfg = h->cfg;
    (void)arg;
    cfg.tls = true;
    fx_str(cfg.certfile, sizeof cfg.certfile, "/etc/x.pem");
    assert_int_equal(rest_reconfigure(h->rest, &cfg, &err), DRA_EINVAL);
    assert_non_null(strstr(err.msg, "restapi.certfile"));
    cfg = h->cfg;
    fx_str(cfg.listen_host, sizeof cfg.listen_host, "db.example");
    assert_int_equal(rest_reconfigure(h->rest, &cfg, &err), DRA_EINVAL);
    assert_non_null(strstr(err.msg, "db.example"));
}

static void reconfigured(void **unused)
{
    (void)unused;
    struct harness *h = hs_open("", "", true);
    struct harness *other = hs_open("", "", true); /* a free port to move to */
    int port = other->port;
    int was = h->port;
    int kept = cl_connect(was);
    int held = cl_connect(was);
    hs_close(other);
    assert_true(cl_send(kept, "GET /primary HTTP/1.1\r\nHost: x\r\n\r\n"));
    cl_read(kept, false, &a);
    WANT(200, "before");
    atomic_store(&h->call_mode, HS_HOLD);
    assert_true(cl_send(held, "POST /restart HTTP/1.1\r\nHost: x\r\n\r\n"));
    while (atomic_load(&h->n_held) == 0) {
        (void)poll(NULL, 0, 5);
    }
    hs_do(h, do_bad_reconfigure, NULL);
    hs_do(h, do_reconfigure, &port);
    assert_int_equal(h->port, port);
    do {
        cl_get(port, "/primary", &a); /* the thread takes it on in its own time */
    } while (a.status <= 0);
    WANT(200, "at the new port");
    cl_once(port, "POST /reload HTTP/1.1\r\nHost: x\r\n\r\n", &a);
    WANT(401, "new credentials");
    assert_int_equal(cl_connect(was), -1);
    assert_true(cl_send(kept, "GET /primary HTTP/1.1\r\nHost: x\r\n\r\n"));
    cl_read(kept, false, &a);
    WANT(200, "a kept connection to the old port");
    char done[] = "restarted successfully";
    hs_do(h, hs_do_reply, done);
    cl_read(held, false, &a);
    WANT(200, "a call from before");
    assert_string_equal(a.body, done);
    (void)close(kept);
    (void)close(held);
    hs_close(h);
}

static void refuses_to_open(void **unused)
{
    (void)unused;
    uv_loop_t loop;
    struct conf_rest cfg = {.listen_port = 0};
    struct rest *r = NULL;
    struct dra_err err = {0};
    struct harness *h = hs_open("", "", true);
    assert_int_equal(uv_loop_init(&loop), 0);
    fx_str(cfg.certfile, sizeof cfg.certfile, "/etc/patroni/server.pem");
    assert_int_equal(rest_open(&loop, &cfg, hs_on_request, h, &r, &err), DRA_EINVAL);
    assert_non_null(strstr(err.msg, "/etc/patroni/server.pem"));
    cfg.certfile[0] = '\0';
    fx_str(cfg.listen_host, sizeof cfg.listen_host, "127.0.0.1");
    cfg.listen_port = h->port;
    assert_int_equal(rest_open(&loop, &cfg, hs_on_request, h, &r, &err), DRA_ESYS);
    assert_int_equal(err.sys, EADDRINUSE);
    (void)uv_run(&loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&loop), 0);
    hs_close(h);
}

/* REST-14: no child inherits anything of it. */
static void close_on_exec(void **unused)
{
    (void)unused;
    struct harness *h = hs_open("", "", true);
    int fd = cl_connect(h->port);
    assert_true(cl_send(fd, "GET /primary HTTP/1.1\r\nHost: x\r\n\r\n"));
    cl_read(fd, false, &a);
    DIR *d = opendir("/proc/self/fd");
    int seen = 0;
    for (struct dirent *e = readdir(d); e != NULL; e = readdir(d)) {
        char link[300];
        char to[300] = "";
        (void)snprintf(link, sizeof link, "/proc/self/fd/%s", e->d_name);
        ssize_t n = readlink(link, to, sizeof to - 1);
        if (n > 0 && (dra_str_starts(to, "socket:") || dra_str_starts(to, "anon_inode:"))) {
            int flags = fcntl((int)strtol(e->d_name, NULL, 10), F_GETFD);
            if ((flags & FD_CLOEXEC) == 0) {
                fail_msg("%s %s", e->d_name, to);
            }
            seen++;
        }
    }
    (void)closedir(d);
    assert_true(seen >= 4);
    (void)close(fd);
    hs_close(h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(information),
        cmocka_unit_test(connections),
        cmocka_unit_test(refusals),
        cmocka_unit_test(large_bodies),
        cmocka_unit_test(authentication),
        cmocka_unit_test(calls),
        cmocka_unit_test(late_answer),
        cmocka_unit_test(fresh_positions),
        cmocka_unit_test(silent_server),
        cmocka_unit_test(cluster_reads),
        cmocka_unit_test(before_the_first_turn),
        cmocka_unit_test(many_clients),
        cmocka_unit_test(end_with_waiting),
        cmocka_unit_test(reconfigured),
        cmocka_unit_test(refuses_to_open),
        cmocka_unit_test(close_on_exec),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
