/*
 * etcd_fixture.c - see etcd_fixture.h.
 */
#include "etcd_fixture.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

const struct timing quick = {.ttl_ms = 5000, .loop_wait_ms = 1000, .retry_ms = 2000};

/* ---- processes
 * --------------------------------------------------------------------------------------------- */

static pid_t spawn(const char *const *argv, const char *log)
{
    pid_t parent = getpid();
    pid_t pid = fork();

    if (pid == 0) {
        int fd = open(log != NULL ? log : "/dev/null", O_WRONLY | O_CREAT | O_APPEND, 0600);
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != parent || fd < 0) {
            _exit(126);
        }
        (void)dup2(fd, 1);
        (void)dup2(fd, 2);
        (void)setenv("ETCDCTL_API", "3", 1);
        (void)setenv("ETCD_UNSUPPORTED_ARCH", "arm64",
                     1); /* etcd asks for it there, ignores it elsewhere */
        (void)execvp(argv[0], (char *const *)(uintptr_t)argv);
        _exit(127);
    }
    assert_true(pid > 0);
    return pid;
}

int run_program(const char *const *argv)
{
    int status = 0;
    pid_t pid = spawn(argv, NULL);
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
    }
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128;
}

int etcdctl(struct etcds *s, int i, const char *const *words)
{
    char endpoint[96];
    const char *argv[24] = {"etcdctl", endpoint, "--command-timeout=5s"};
    int n = 3;

    assert_int_equal(dra_str_printf(endpoint, sizeof endpoint, "--endpoints=%s", s->m[i].url),
                     DRA_OK);
    while (*words != NULL && n < 23) {
        argv[n++] = *words++;
    }
    argv[n] = NULL;
    return run_program(argv);
}

int free_port(void)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t len = sizeof a;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    assert_true(fd >= 0);
    assert_int_equal(bind(fd, (struct sockaddr *)(void *)&a, sizeof a), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)(void *)&a, &len), 0);
    (void)close(fd);
    return ntohs(a.sin_port);
}

void etcds_init(struct etcds *s, int n)
{
    memset(s, 0, sizeof *s);
    s->n = n;
    assert_int_equal(dra_str_copy(s->dir, sizeof s->dir, "/tmp/dragent-etcd-XXXXXX"), DRA_OK);
    assert_non_null(mkdtemp(s->dir));
    for (int i = 0; i < n; i++) {
        struct member *m = &s->m[i];
        m->client_port = free_port();
        m->peer_port = free_port();
        assert_int_equal(dra_str_printf(m->host, sizeof m->host, "127.0.0.1:%d", m->client_port),
                         DRA_OK);
        assert_int_equal(dra_str_printf(m->url, sizeof m->url, "http://%s", m->host), DRA_OK);
        assert_int_equal(dra_str_printf(m->data_dir, sizeof m->data_dir, "%s/m%d", s->dir, i),
                         DRA_OK);
    }
}

void member_start(struct etcds *s, int i)
{
    struct member *m = &s->m[i];
    char name[8], peer[64], cluster[256] = "", log[192], url[96];
    const char *argv[40] = {"etcd",      "--name",
                            name,        "--data-dir",
                            m->data_dir, "--listen-client-urls",
                            url,         "--advertise-client-urls",
                            url,         "--listen-peer-urls",
                            peer,        "--initial-advertise-peer-urls",
                            peer,        "--initial-cluster",
                            cluster,     "--initial-cluster-token",
                            s->dir,      "--logger",
                            "zap",       "--log-level",
                            "error"};
    int n = 21;

    assert_int_equal(m->pid, 0);
    assert_int_equal(dra_str_printf(name, sizeof name, "m%d", i), DRA_OK);
    assert_int_equal(dra_str_printf(peer, sizeof peer, "http://127.0.0.1:%d", m->peer_port),
                     DRA_OK);
    assert_int_equal(dra_str_printf(url, sizeof url, "%s://%s", s->tls ? "https" : "http", m->host),
                     DRA_OK);
    assert_int_equal(dra_str_copy(m->url, sizeof m->url, url), DRA_OK);
    assert_int_equal(dra_str_printf(log, sizeof log, "%s/m%d.log", s->dir, i), DRA_OK);
    for (int k = 0; k < s->n; k++) {
        size_t at = strlen(cluster);
        assert_int_equal(dra_str_printf(cluster + at, sizeof cluster - at,
                                        "%sm%d=http://127.0.0.1:%d", k > 0 ? "," : "", k,
                                        s->m[k].peer_port),
                         DRA_OK);
    }
    for (int k = 0; s->extra_args != NULL && s->extra_args[k] != NULL; k++) {
        argv[n++] = s->extra_args[k];
    }
    argv[n] = NULL;
    m->pid = spawn(argv, log);
}

void member_signal(struct etcds *s, int i, int signo)
{
    assert_true(s->m[i].pid > 0);
    assert_int_equal(kill(s->m[i].pid, signo), 0);
    if (signo == SIGSTOP) { /* kill() returns before all threads stand still */
        int status = 0;
        assert_int_equal(waitpid(s->m[i].pid, &status, WUNTRACED), s->m[i].pid);
        assert_true(WIFSTOPPED(status));
    }
    if (signo == SIGKILL) {
        (void)waitpid(s->m[i].pid, NULL, 0);
        s->m[i].pid = 0;
    }
}

void etcds_start(struct etcds *s)
{
    static const char *const health[] = {"endpoint", "health", NULL};

    for (int i = 0; i < s->n; i++) {
        member_start(s, i);
    }
    for (int i = 0; i < s->n && !s->tls; i++) {
        int tries = 0;
        while (etcdctl(s, i, health) != 0) {
            assert_true(++tries < 100);
            (void)usleep(50000);
        }
    }
}

void etcds_stop(struct etcds *s)
{
    const char *const rm[] = {"rm", "-rf", s->dir, NULL};

    for (int i = 0; i < s->n; i++) {
        if (s->m[i].pid > 0) {
            (void)kill(s->m[i].pid, SIGCONT);
            member_signal(s, i, SIGKILL);
        }
    }
    if (s->dir[0] != '\0') {
        assert_int_equal(run_program(rm), 0);
        s->dir[0] = '\0';
    }
}

int etcds_leader(struct etcds *s)
{
    char script[256];

    for (int i = 0; i < s->n; i++) { /* leader's id equals the answering member's */
        if (s->m[i].pid == 0) {
            continue;
        }
        assert_int_equal(
            dra_str_printf(
                script, sizeof script,
                "etcdctl --endpoints=%s --command-timeout=2s endpoint status | grep -q ', true, '",
                s->m[i].url),
            DRA_OK);
        const char *const argv[] = {"sh", "-c", script, NULL};
        if (run_program(argv) == 0) {
            return i;
        }
    }
    return -1;
}

/* ---- loop
 * ----------------------------------------------------------------------------------------------------
 */

struct dra_instant in_ms(int ms)
{
    return dra_after(dra_now(), dra_ms(ms));
}

int64_t ms_since(struct dra_instant t)
{
    return dra_span_ms(dra_since(dra_now(), t));
}

void rig_open(struct rig *r)
{
    struct dra_err err = {0};
    assert_int_equal(uv_loop_init(&r->loop), 0);
    if (http_client_open(&r->loop, &r->http, &err) != DRA_OK) {
        fail_msg("%s", err.msg);
    }
}

static void on_tick(void *arg)
{
    *(bool *)arg = true;
}

bool rig_until(struct rig *r, bool (*pred)(void *), void *arg, int timeout_ms)
{
    struct dra_timer *t = NULL;
    bool over = false;

    assert_int_equal(dra_timer_open(&r->loop, on_tick, &over, &t), DRA_OK);
    dra_timer_set(t, in_ms(timeout_ms));
    while (!over && !pred(arg)) {
        (void)uv_run(&r->loop, UV_RUN_ONCE);
    }
    dra_timer_close(t);
    return pred(arg);
}

static bool never(void *arg)
{
    (void)arg;
    return false;
}

void rig_run_ms(struct rig *r, int ms)
{
    (void)rig_until(r, never, NULL, ms);
}

void rig_close(struct rig *r)
{
    http_client_close(r->http);
    struct dra_instant limit = in_ms(5000);
    while (uv_run(&r->loop, UV_RUN_NOWAIT) != 0) {
        assert_false(dra_reached(dra_now(), limit)); /* something was not closed */
        (void)usleep(1000);
    }
    assert_int_equal(uv_loop_close(&r->loop), 0);
}

struct dcs *store_open(struct rig *r, const char *section_json, const char *prefix,
                       const struct timing *t)
{
    struct json *section = NULL;
    struct dra_err err = {0};
    struct dcs *d = NULL;

    assert_int_equal(json_parse(section_json, strlen(section_json), &section, &err), DRA_OK);
    if (etcd_open(&r->loop, r->http, section, prefix, dra_ms(t->ttl_ms), dra_ms(t->loop_wait_ms),
                  dra_ms(t->retry_ms), &d, &err) != DRA_OK) {
        fail_msg("%s", err.msg);
    }
    json_free(section);
    return d;
}

const char *hosts_of(const struct etcds *s, const char *order, const char *more)
{
    static char text[512];
    size_t n;

    assert_int_equal(dra_str_copy(text, sizeof text, "{\"hosts\":["), DRA_OK);
    for (const char *p = order; *p != '\0'; p++) {
        n = strlen(text);
        assert_int_equal(dra_str_printf(text + n, sizeof text - n, "%s\"%s\"", p > order ? "," : "",
                                        s->m[*p - '0'].host),
                         DRA_OK);
    }
    n = strlen(text);
    assert_int_equal(
        dra_str_printf(text + n, sizeof text - n, "]%s%s}", more[0] != '\0' ? "," : "", more),
        DRA_OK);
    return text;
}

/* ---- blocking operations
 * ---------------------------------------------------------------------------------------- */

struct wait {
    struct dcs_answer a;
    int calls;
};

static void on_answer(const struct dcs_answer *a, void *arg)
{
    struct wait *w = arg;
    w->a = *a;
    w->calls++;
}

static bool is_answered(void *arg)
{
    return ((struct wait *)arg)->calls > 0;
}

static struct dcs_answer finish(struct rig *r, struct wait *w, int rc, const struct dra_err *err,
                                int ms)
{
    if (rc != DRA_OK) {
        struct dcs_answer a = {.err_code = rc};
        dra_str_clip(a.err_msg, sizeof a.err_msg, err->msg);
        return a;
    }
    if (!rig_until(r, is_answered, w, ms + 1000)) {
        fail_msg("no callback by the deadline of %d ms", ms);
    }
    assert_int_equal(w->calls, 1);
    return w->a;
}

struct dcs_answer do_txn(struct rig *r, struct dcs *d, const struct dcs_txn *t, int ms)
{
    struct wait w = {0};
    struct dra_err err = {0};
    int rc = d->vt->txn_start(d, t, in_ms(ms), on_answer, &w, &err);
    return finish(r, &w, rc, &err, ms);
}

struct dcs_answer do_put(struct rig *r, struct dcs *d, const char *key, const char *value,
                         int64_t lease)
{
    struct dcs_txn t = {
        .n_success = 1, .success = {{DCS_OP_PUT, key, value, lease}}, .retry_safe = true};
    return do_txn(r, d, &t, 3000);
}

struct dcs_answer do_create(struct rig *r, struct dcs *d, const char *key, const char *value,
                            int64_t lease)
{
    struct dcs_txn t = {.n_cmps = 1,
                        .cmps = {{DCS_CMP_CREATE_REV, key, 0, NULL}},
                        .n_success = 1,
                        .success = {{DCS_OP_PUT, key, value, lease}},
                        .n_failure = 1,
                        .failure = {{DCS_OP_GET, key, NULL, 0}}};
    return do_txn(r, d, &t, 3000);
}

struct dcs_answer do_grant(struct rig *r, struct dcs *d, int64_t ttl_s, int ms)
{
    struct wait w = {0};
    struct dra_err err = {0};
    int rc = d->vt->grant_start(d, ttl_s, in_ms(ms), on_answer, &w, &err);
    return finish(r, &w, rc, &err, ms);
}

struct dcs_answer do_keepalive(struct rig *r, struct dcs *d, int64_t lease, int ms)
{
    struct wait w = {0};
    struct dra_err err = {0};
    int rc = d->vt->keepalive_start(d, lease, in_ms(ms), on_answer, &w, &err);
    return finish(r, &w, rc, &err, ms);
}

struct dcs_answer do_read(struct rig *r, struct dcs *d, int ms)
{
    struct wait w = {0};
    struct dra_err err = {0};
    int rc = d->vt->read_start(d, in_ms(ms), on_answer, &w, &err);
    return finish(r, &w, rc, &err, ms);
}

struct dcs_answer do_remove(struct rig *r, struct dcs *d)
{
    struct wait w = {0};
    struct dra_err err = {0};
    int rc = d->vt->delete_prefix_start(d, in_ms(3000), on_answer, &w, &err);
    return finish(r, &w, rc, &err, 3000);
}

/* ---- view
 * -------------------------------------------------------------------------------------------------------
 */

static void on_snapshot(struct dcs_snapshot *s, void *arg)
{
    struct view *v = arg;
    dcs_snapshot_unref(v->last);
    v->last = dcs_snapshot_ref(s);
    v->snapshots++;
    v->went_back = v->went_back || s->c.revision < v->highest;
    v->highest = s->c.revision;
    v->stale_now = false;
}

static void on_stale(const char *why, void *arg)
{
    struct view *v = arg;
    assert_false(v->stale_now); /* once per loss */
    v->stales++;
    v->stale_now = true;
    dra_str_clip(v->why, sizeof v->why, why);
}

void view_watch(struct view *v, struct dcs *d)
{
    static const struct dcs_events ev = {.snapshot = on_snapshot, .stale = on_stale};
    struct dra_err err = {0};
    memset(v, 0, sizeof *v);
    assert_int_equal(d->vt->watch_start(d, &ev, v, &err), DRA_OK);
    assert_int_equal(d->vt->watch_start(d, &ev, v, &err), DRA_ESTATE);
}

void view_deinit(struct view *v)
{
    dcs_snapshot_unref(v->last);
    v->last = NULL;
}

/* ---- predicates ---- */

bool has_snapshot(void *arg)
{
    return ((struct view *)arg)->snapshots > 0;
}

bool is_stale(void *arg)
{
    return ((struct view *)arg)->stale_now;
}

bool is_current(void *arg)
{
    const struct view *v = arg;
    return v->snapshots > 0 && !v->stale_now;
}

bool leader_is_a(void *arg)
{
    const struct view *v = arg;
    return v->last != NULL && strcmp(v->last->c.leader, "a") == 0;
}

bool leader_is_b(void *arg)
{
    const struct view *v = arg;
    return v->last != NULL && strcmp(v->last->c.leader, "b") == 0;
}

bool leader_is_gone(void *arg)
{
    const struct view *v = arg;
    return v->last != NULL && v->last->c.leader_rev == 0;
}

bool watch_is_live(void *arg)
{
    return ((struct etcd *)arg)->watch.state == ETCD_WATCH_LIVE;
}

struct etcd *inside(struct dcs *d)
{
    return (struct etcd *)(void *)d;
}

/* ---- scripted server
 * ---------------------------------------------------------------------------------------------- */

struct fake {
    uv_tcp_t tcp;
    fake_cb cb;
    void *arg;
    int port;
    int open; /* handles */
    struct fconn *conns;
    bool closing;
};
struct fconn {
    uv_tcp_t tcp;
    struct fake *f;
    struct fconn *next;
    char in[65536];
    size_t n;
};
struct fwrite {
    uv_write_t w;
    char text[8192];
    bool close;
};

static void fake_unref(struct fake *f)
{
    if (--f->open == 0 && f->closing) {
        free(f);
    }
}

static void on_conn_closed(uv_handle_t *h)
{
    struct fconn *c = h->data;
    struct fconn **p = &c->f->conns;
    while (*p != c) {
        p = &(*p)->next;
    }
    *p = c->next;
    fake_unref(c->f);
    free(c);
}

static void conn_close(struct fconn *c)
{
    if (!uv_is_closing((uv_handle_t *)&c->tcp)) {
        uv_close((uv_handle_t *)&c->tcp, on_conn_closed);
    }
}

static void on_written(uv_write_t *w, int status)
{
    (void)status;
    free(w->data);
}

static void conn_answer(struct fconn *c, const char *path, const char *body)
{
    struct fake_answer a = c->f->cb(path, body, c->f->arg);
    const char *text = a.body != NULL ? a.body : "";

    if (a.drop) {
        conn_close(c);
        return;
    }
    if (a.status == 0) {
        return;
    }
    struct fwrite *w = calloc(1, sizeof *w);
    assert_non_null(w);
    w->w.data = w;
    if (a.keep_open) {
        assert_int_equal(
            dra_str_printf(w->text, sizeof w->text,
                           "HTTP/1.1 %d X\r\nContent-Type: application/json\r\nTransfer-Encoding: "
                           "chunked\r\n\r\n%zx\r\n%s\r\n",
                           a.status, strlen(text), text),
            DRA_OK);
    } else {
        assert_int_equal(dra_str_printf(w->text, sizeof w->text,
                                        "HTTP/1.1 %d X\r\nContent-Length: %zu\r\n\r\n%s", a.status,
                                        strlen(text), text),
                         DRA_OK);
    }
    uv_buf_t b = uv_buf_init(w->text, (unsigned)strlen(w->text));
    assert_int_equal(uv_write(&w->w, (uv_stream_t *)&c->tcp, &b, 1, on_written), 0);
}

/* One whole request in the buffer: answer it. */
static bool conn_take(struct fconn *c)
{
    char path[256];
    c->in[c->n] = '\0';
    char *head_end = strstr(c->in, "\r\n\r\n");
    if (head_end == NULL) {
        return false;
    }
    size_t body_len = 0;
    char *cl = strcasestr(c->in, "content-length:");
    if (cl != NULL && cl < head_end) {
        int64_t v = 0;
        cl += strlen("content-length:");
        cl += strspn(cl, " ");
        assert_int_equal(dra_parse_i64(cl, strcspn(cl, "\r"), 0, 60000, &v), DRA_OK);
        body_len = (size_t)v;
    }
    size_t total = (size_t)(head_end + 4 - c->in) + body_len;
    if (c->n < total) {
        return false;
    }
    char *space = strchr(c->in, ' ');
    assert_non_null(space);
    assert_int_equal(dra_str_copy_n(path, sizeof path, space + 1, strcspn(space + 1, " ")), DRA_OK);
    char *body = strndup(head_end + 4, body_len);
    assert_non_null(body);
    memmove(c->in, c->in + total, c->n - total);
    c->n -= total;
    conn_answer(c, path, body);
    free(body);
    return true;
}

static void on_alloc(uv_handle_t *h, size_t want, uv_buf_t *b)
{
    struct fconn *c = h->data;
    (void)want;
    *b = uv_buf_init(c->in + c->n, (unsigned)(sizeof c->in - c->n - 1));
}

static void on_read(uv_stream_t *s, ssize_t n, const uv_buf_t *b)
{
    struct fconn *c = s->data;
    (void)b;
    if (n < 0) {
        conn_close(c);
        return;
    }
    c->n += (size_t)n;
    while (!uv_is_closing((uv_handle_t *)s) && conn_take(c)) {
    }
}

static void on_connection(uv_stream_t *s, int status)
{
    struct fake *f = s->data;
    struct fconn *c = calloc(1, sizeof *c);
    assert_int_equal(status, 0);
    assert_non_null(c);
    c->f = f;
    c->next = f->conns;
    f->conns = c;
    f->open++;
    assert_int_equal(uv_tcp_init(s->loop, &c->tcp), 0);
    c->tcp.data = c;
    assert_int_equal(uv_accept(s, (uv_stream_t *)&c->tcp), 0);
    assert_int_equal(uv_read_start((uv_stream_t *)&c->tcp, on_alloc, on_read), 0);
}

struct fake *fake_open(struct rig *r, fake_cb cb, void *arg)
{
    struct fake *f = calloc(1, sizeof *f);
    struct sockaddr_in a;
    int len = sizeof a;

    assert_non_null(f);
    f->cb = cb;
    f->arg = arg;
    f->open = 1;
    assert_int_equal(uv_tcp_init(&r->loop, &f->tcp), 0);
    f->tcp.data = f;
    assert_int_equal(uv_ip4_addr("127.0.0.1", 0, &a), 0);
    assert_int_equal(uv_tcp_bind(&f->tcp, (struct sockaddr *)(void *)&a, 0), 0);
    assert_int_equal(uv_listen((uv_stream_t *)&f->tcp, 16, on_connection), 0);
    assert_int_equal(uv_tcp_getsockname(&f->tcp, (struct sockaddr *)(void *)&a, &len), 0);
    f->port = ntohs(a.sin_port);
    return f;
}

int fake_port(const struct fake *f)
{
    return f->port;
}

static void on_fake_closed(uv_handle_t *h)
{
    fake_unref(h->data);
}

void fake_close(struct fake *f)
{
    f->closing = true;
    for (struct fconn *c = f->conns; c != NULL; c = c->next) {
        conn_close(c);
    }
    uv_close((uv_handle_t *)&f->tcp, on_fake_closed);
}
