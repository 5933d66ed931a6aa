/*
 * client.c - the agent's side of the guard: start or adopt it, give it orders, notice when it is gone.
 *
 * Owns: the socket, a watch on the guard's process, the operations under way.
 * Invariants:
 *  (1) At most one guard is talked to; an old one is known to have ended before the next is started.
 *  (2) A guard whose answer is overdue is lost at once, and killed: SIGKILL ends a stopped process, too (SAFE-36).
 *      Whether it is overdue is asked only after the socket was read to its end, and not in the same turn in which this
 *      loop itself came late.
 *  (3) Each operation's callback runs exactly once, from the loop, never inside a call.
 * Threads: loop thread only.
 */
#include <dragent/guard.h>

#include <dragent/io.h>

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <uv.h>

enum { OPS_MAX = 16, WHY_MAX = 128 };

#define HEARTBEAT_DEFAULT_MS 1000
#define LATE_DEFAULT_MS 100
#define START_LIMIT_MS 5000
#define RETRY_FIRST_MS 10
#define RETRY_MAX_MS 1000

enum client_state {
    CLIENT_NONE = 0,
    CLIENT_RETRY,    /* nothing under way; connects at retry_at */
    CLIENT_STARTING, /* dragent-guard runs, until it says that the guard listens */
    CLIENT_HELLO,    /* connected, first ping sent */
    CLIENT_UP,
    CLIENT_KILLING, /* the old one was sent SIGKILL; waiting for its end */
    CLIENT_ENDED,   /* it was told to quit, or we are closing */
    CLIENT_STATE_COUNT
};

struct op {
    uint64_t seq; /* 0 = free */
    enum guard_order_kind kind;
    bool answered;     /* FENCE_NOW: begun, its end is awaited */
    uint64_t fence_id; /* which one */
    struct dra_instant sent_at, not_after;
    guard_client_cb cb; /* NULL: our own ping */
    void *arg;
};

struct conn { /* outlives the client's interest in it until libuv has closed the handle */
    uv_poll_t poll;
    struct guard_client *client; /* NULL = left */
    int fd;
};

struct guard_client {
    uv_loop_t *loop;
    char runtime_dir[GUARD_DIR_MAX];
    char guard_exe[GUARD_PATH_MAX];
    uint64_t generation;
    bool report_only;
    struct dra_span heartbeat, late_after;
    struct guard_client_cbs cbs;
    void *arg;

    enum client_state state;
    bool was_up; /* at any time: the next one replaces it */
    char broken[WHY_MAX]; /* "" or why the connection is to be given up, on the next turn */
    struct conn *conn;
    struct dra_child *child; /* the starter, while it runs */
    struct dra_proc guard;
    struct dra_procwatch *watch;
    struct dra_timer *timer;
    struct dra_instant timer_at, retry_at, grace_until, last_sent_at;
    struct dra_span retry;
    uint64_t seq;
    struct guard_view view;
    struct op ops[OPS_MAX];

    bool closing;
    uv_timer_t last; /* closing: fires on the next turn */
    void (*on_closed)(void *arg);
};

static void client_connect(struct guard_client *c);
static void client_lost(struct guard_client *c, const char *why);
static void client_displaced(struct guard_client *c);
static void client_read(struct guard_client *c);
static void timer_update(struct guard_client *c);
static void on_timer(void *arg);
static void on_readable(uv_poll_t *h, int status, int events);
static void on_guard_ended(struct dra_proc p, void *arg);
static void on_started(const struct dra_child_result *r, void *arg);
static void on_last(uv_timer_t *h);

/* ---- operations -------------------------------------------------------------------------------------- */

static void op_finish(struct op *op, int code, enum guard_status status, const struct guard_view *view, const char *what)
{
    struct op done = *op;
    struct dra_err err = {0};

    memset(op, 0, sizeof *op);
    if (done.cb == NULL) {
        return;
    }
    if (code != DRA_OK) {
        (void)dra_err_set(&err, code, "guard: %s: %s", guard_order_to_str(done.kind), what);
    }
    done.cb(code == DRA_OK ? NULL : &err, status, view, done.arg);
}

static void ops_fail(struct guard_client *c, int code, const char *what)
{
    for (size_t i = 0; i < OPS_MAX; i++) {
        if (c->ops[i].seq != 0) {
            op_finish(&c->ops[i], code, GUARD_STATUS_NONE, NULL, what);
        }
    }
}

static struct guard_order order_make(const struct guard_client *c, enum guard_order_kind kind)
{
    struct guard_order o;

    memset(&o, 0, sizeof o);
    o.magic = GUARD_MAGIC;
    o.version = GUARD_VERSION;
    o.size = sizeof o;
    o.kind = kind;
    o.generation = c->generation;
    return o;
}

/* Send it now; the answer is awaited in an op. */
static int order_start(struct guard_client *c, struct guard_order *o, struct dra_instant not_after, guard_client_cb cb,
                       void *arg)
{
    struct op *op = NULL;

    for (size_t i = 0; i < OPS_MAX && op == NULL; i++) {
        op = c->ops[i].seq == 0 ? &c->ops[i] : NULL;
    }
    if (op == NULL) {
        return DRA_EBUSY;
    }
    o->seq = ++c->seq;
    if (send(c->conn->fd, o, sizeof *o, MSG_DONTWAIT | MSG_NOSIGNAL) != (ssize_t)sizeof *o) {
        /* Gone, or it has not read for long: given up on the next turn, since callbacks may not run here. */
        dra_str_clip(c->broken, sizeof c->broken, "it does not read");
        timer_update(c);
        return DRA_ECONN;
    }
    op->seq = o->seq;
    op->kind = (enum guard_order_kind)o->kind;
    op->sent_at = dra_now();
    op->not_after = not_after;
    op->cb = cb;
    op->arg = arg;
    c->last_sent_at = op->sent_at;
    timer_update(c);
    return DRA_OK;
}

static int op_start(struct guard_client *c, struct guard_order *o, struct dra_instant not_after, guard_client_cb cb,
                    void *arg)
{
    if (cb == NULL || !dra_is_set(not_after)) {
        return DRA_EINVAL;
    }
    if (c->state != CLIENT_UP || c->broken[0] != '\0') {
        return DRA_ECONN;
    }
    return order_start(c, o, not_after, cb, arg);
}

static int order_set_server(struct guard_order *o, const struct guard_server *s)
{
    if (s == NULL || s->pid == 0) {
        return DRA_OK;
    }
    o->pid = s->pid;
    o->start_ticks = s->start_ticks;
    o->flags |= s->standby ? GUARD_FLAG_STANDBY : 0;
    return dra_str_copy(o->data_dir, sizeof o->data_dir, s->data_dir);
}

static void order_set_deadline(struct guard_order *o, const struct guard_deadline *d)
{
    o->deadline_ns = d->deadline.ns;
    o->certain_until_ns = d->certain_until.ns;
    o->epoch = d->epoch;
    o->lease = d->lease;
}

int guard_client_register(struct guard_client *c, const struct guard_server *s, struct dra_instant not_after,
                          guard_client_cb cb, void *arg)
{
    struct guard_order o = order_make(c, GUARD_ORDER_REGISTER);
    int rc = order_set_server(&o, s);

    return rc != DRA_OK ? rc : op_start(c, &o, not_after, cb, arg);
}

int guard_client_arm(struct guard_client *c, const struct guard_server *s, const struct guard_deadline *d,
                     struct dra_instant not_after, guard_client_cb cb, void *arg)
{
    struct guard_order o = order_make(c, GUARD_ORDER_ARM);
    int rc = order_set_server(&o, s);

    order_set_deadline(&o, d);
    o.flags |= c->report_only ? GUARD_FLAG_REPORT : 0;
    return rc != DRA_OK ? rc : op_start(c, &o, not_after, cb, arg);
}

int guard_client_move(struct guard_client *c, const struct guard_deadline *d, struct dra_instant not_after,
                      guard_client_cb cb, void *arg)
{
    struct guard_order o = order_make(c, GUARD_ORDER_MOVE);

    order_set_deadline(&o, d);
    return op_start(c, &o, not_after, cb, arg);
}

int guard_client_disarm(struct guard_client *c, enum guard_reason reason, struct dra_instant not_after,
                        guard_client_cb cb, void *arg)
{
    struct guard_order o = order_make(c, GUARD_ORDER_DISARM);

    o.reason = reason;
    return op_start(c, &o, not_after, cb, arg);
}

int guard_client_fence(struct guard_client *c, struct dra_instant not_after, guard_client_cb cb, void *arg)
{
    struct guard_order o = order_make(c, GUARD_ORDER_FENCE_NOW);

    return op_start(c, &o, not_after, cb, arg);
}

int guard_client_quit(struct guard_client *c, struct dra_instant not_after, guard_client_cb cb, void *arg)
{
    struct guard_order o = order_make(c, GUARD_ORDER_QUIT);

    return op_start(c, &o, not_after, cb, arg);
}

static void ping_send(struct guard_client *c)
{
    struct guard_order o = order_make(c, GUARD_ORDER_PING);

    (void)order_start(c, &o, (struct dra_instant){0}, NULL, NULL); /* what failed shows as broken or late */
}

/* ---- answers ----------------------------------------------------------------------------------------- */

/* A fence that was ordered has ended: this message tells of its end, or of a later one. */
static bool fence_is_over(const struct op *op, const struct guard_view *v)
{
    return op->answered && (v->fence_id > op->fence_id || (v->fence_id == op->fence_id && v->fence_ended_ns != 0));
}

static void op_answered(struct guard_client *c, struct op *op, const struct guard_reply *r)
{
    if (r->status != GUARD_STATUS_OK) {
        op_finish(op, DRA_ESTATE, (enum guard_status)r->status, &r->view, guard_status_to_str(r->status));
    } else if (op->kind == GUARD_ORDER_FENCE_NOW) {
        op->answered = true;
        op->fence_id = r->view.fence_id;
    } else {
        if (op->kind == GUARD_ORDER_QUIT) {
            c->state = CLIENT_ENDED;
        }
        op_finish(op, DRA_OK, GUARD_STATUS_OK, &r->view, "");
    }
}

static void on_message(struct guard_client *c, const struct guard_reply *r)
{
    bool replaced = c->was_up;

    if (r->status == GUARD_STATUS_OLD_GENERATION) {
        client_displaced(c);
        return;
    }
    c->view = r->view;
    for (size_t i = 0; i < OPS_MAX && r->seq != 0; i++) {
        if (c->ops[i].seq == r->seq && !c->ops[i].answered) {
            op_answered(c, &c->ops[i], r);
            break; /* a late answer to an op that has ended finds none: dropped */
        }
    }
    for (size_t i = 0; i < OPS_MAX; i++) {
        if (c->ops[i].seq != 0 && fence_is_over(&c->ops[i], &r->view)) {
            op_finish(&c->ops[i], DRA_OK, GUARD_STATUS_OK, &r->view, "");
        }
    }
    if (r->note != GUARD_NOTE_NONE && c->cbs.note != NULL && !c->closing) {
        c->cbs.note((enum guard_note)r->note, &r->view, c->arg);
    }
    if (c->state == CLIENT_HELLO && r->kind == GUARD_ORDER_PING) {
        c->state = CLIENT_UP;
        c->was_up = true;
        c->retry = dra_ms(RETRY_FIRST_MS);
        if (c->cbs.up != NULL) {
            c->cbs.up(&r->view, replaced, c->arg);
        }
    }
}

/* All that is there.  Ends early when a callback closed us or the guard is lost. */
static void client_read(struct guard_client *c)
{
    struct conn *conn = c->conn;

    while (conn != NULL && c->conn == conn && !c->closing) {
        struct guard_reply r;
        ssize_t n = recv(conn->fd, &r, sizeof r, MSG_DONTWAIT | MSG_TRUNC);

        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0 && errno == EAGAIN) {
            return;
        }
        if (n != (ssize_t)sizeof r || r.magic != GUARD_MAGIC || r.version != GUARD_VERSION) {
            client_lost(c, n > 0 ? "it speaks another version" : "it closed the connection");
            return;
        }
        on_message(c, &r);
    }
}

static void on_readable(uv_poll_t *h, int status, int events)
{
    struct conn *conn = h->data;

    (void)status; /* an error shows in recv() */
    (void)events;
    if (conn->client != NULL) {
        struct guard_client *c = conn->client;

        client_read(c);
        if (!c->closing) {
            timer_update(c);
        }
    }
}

/* ---- connection -------------------------------------------------------------------------------------- */

static void on_conn_closed(uv_handle_t *h)
{
    free(h->data);
}

static void conn_leave(struct guard_client *c)
{
    struct conn *conn = c->conn;

    c->conn = NULL;
    if (conn != NULL) {
        conn->client = NULL;
        uv_close((uv_handle_t *)&conn->poll, on_conn_closed);
        close(conn->fd);
    }
}

static void watch_close(struct guard_client *c)
{
    if (c->watch != NULL) {
        dra_procwatch_close(c->watch);
        c->watch = NULL;
    }
}

static void retry_later(struct guard_client *c)
{
    c->state = CLIENT_RETRY;
    c->retry_at = dra_after(dra_now(), c->retry);
    c->retry.ns = c->retry.ns * 2 < dra_ms(RETRY_MAX_MS).ns ? c->retry.ns * 2 : dra_ms(RETRY_MAX_MS).ns;
}

/* Give this guard up: kill it if it lives, and go for the next one once it has ended. */
static void client_lost(struct guard_client *c, const char *why)
{
    char text[WHY_MAX];

    dra_str_clip(text, sizeof text, why);
    c->broken[0] = '\0';
    conn_leave(c);
    if (c->state == CLIENT_ENDED) { /* it was told to */
        ops_fail(c, DRA_ECONN, text);
        return;
    }
    if (c->watch != NULL) {
        struct dra_err err;

        c->state = CLIENT_KILLING;
        if (dra_proc_signal(&c->guard, SIGKILL, &err) == DRA_EPERM) {
            log_event(LOG_LV_ERROR, "guard.kill", "may not kill the guard that does not answer", "reason", err.msg, NULL);
        } /* gone already: then the watch says so */
    } else {
        retry_later(c);
    }
    ops_fail(c, DRA_ECONN, text);
    if (c->cbs.lost != NULL && !c->closing) {
        c->cbs.lost(text, c->arg);
    }
}

/* SAFE-35: it obeys a newer agent.  We leave it alone, and never come back. */
static void client_displaced(struct guard_client *c)
{
    c->state = CLIENT_ENDED;
    conn_leave(c);
    watch_close(c);
    ops_fail(c, DRA_ESTALE, "the guard obeys a newer agent");
    if (c->cbs.lost != NULL && !c->closing) {
        c->cbs.lost("it obeys a newer agent", c->arg);
    }
}

static void on_guard_ended(struct dra_proc p, void *arg)
{
    struct guard_client *c = arg;

    (void)p;
    watch_close(c);
    if (c->state == CLIENT_UP || c->state == CLIENT_HELLO) {
        client_read(c); /* what it said last */
    }
    if (c->closing || c->state == CLIENT_ENDED) {
        return;
    }
    if (c->conn != NULL) {
        client_lost(c, "it ended");
    }
    if (!c->closing && c->state != CLIENT_STARTING) {
        client_connect(c);
        timer_update(c);
    }
}

/* A socket's path is short; the directory's need not be. */
static int socket_connect(const char *dir, int *out_fd)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    int dir_fd = open(dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
    int fd = -1;
    int rc = -1;

    if (dir_fd >= 0) {
        fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    }
    if (fd >= 0 &&
        dra_str_printf(addr.sun_path, sizeof addr.sun_path, "/proc/self/fd/%d/%s", dir_fd, GUARD_SOCKET_NAME) == 0) {
        rc = connect(fd, (struct sockaddr *)&addr, sizeof addr);
    }
    if (dir_fd >= 0) {
        close(dir_fd);
    }
    if (rc != 0) {
        if (fd >= 0) {
            close(fd);
        }
        return DRA_ECONN;
    }
    *out_fd = fd;
    return DRA_OK;
}

static int conn_open(struct guard_client *c, int fd)
{
    struct conn *conn = calloc(1, sizeof *conn);
    struct ucred peer;
    socklen_t len = sizeof peer;
    struct dra_err err;

    if (conn == NULL || getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) != 0 ||
        dra_proc_identify(peer.pid, &c->guard, &err) != DRA_OK ||
        dra_procwatch_open(c->loop, c->guard, on_guard_ended, c, &c->watch, &err) != DRA_OK) {
        free(conn);
        return DRA_ECONN;
    }
    if (uv_poll_init(c->loop, &conn->poll, fd) != 0) {
        watch_close(c);
        free(conn);
        return DRA_ESYS;
    }
    conn->fd = fd;
    conn->client = c;
    conn->poll.data = conn;
    c->conn = conn;
    (void)uv_poll_start(&conn->poll, UV_READABLE, on_readable); /* cannot fail on an open handle */
    return DRA_OK;
}

static void guard_start(struct guard_client *c)
{
    const char *argv[] = {c->guard_exe, c->runtime_dir, NULL};
    struct dra_child_spec spec = {.argv = argv, .not_after = dra_after(dra_now(), dra_ms(START_LIMIT_MS))};
    struct dra_err err = {0};

    c->state = CLIENT_STARTING;
    if (dra_child_start(c->loop, &spec, on_started, c, &c->child, &err) != DRA_OK) {
        log_event(LOG_LV_ERROR, "guard.start", "could not start the guard", "reason", err.msg, NULL);
        retry_later(c);
    }
}

/* Connect to the guard that is there. */
static bool client_try(struct guard_client *c)
{
    int fd;

    if (socket_connect(c->runtime_dir, &fd) != DRA_OK) {
        return false;
    }
    if (conn_open(c, fd) != DRA_OK) { /* it ended just now */
        close(fd);
        return false;
    }
    c->state = CLIENT_HELLO;
    ping_send(c);
    return true;
}

/* Connect to the guard that is there, or start one.  Never calls back. */
static void client_connect(struct guard_client *c)
{
    if (!client_try(c)) {
        guard_start(c);
    }
}

/* Exit status 3: another guard lives there, which is as good; it may be about to listen, or to end. */
static void on_started(const struct dra_child_result *r, void *arg)
{
    struct guard_client *c = arg;

    c->child = NULL;
    if (c->closing) {
        (void)uv_timer_start(&c->last, on_last, 0, 0);
        return;
    }
    if (r->exit_code != 0 && r->exit_code != 3) {
        char text[256] = "";

        if (dra_str_copy_n(text, sizeof text, r->out, r->out_len) != DRA_OK) {
            dra_str_clip(text, sizeof text, "a long message");
        }
        log_event(LOG_LV_ERROR, "guard.start", "the guard did not start", "reason", text, NULL);
    }
    if (r->exit_code != 0 || !client_try(c)) {
        retry_later(c);
    }
    timer_update(c);
}

/* ---- time -------------------------------------------------------------------------------------------- */

/* When the answer to this is overdue; a guard that is busy fencing may take its time. */
static struct dra_instant op_late_at(const struct guard_client *c, const struct op *op)
{
    struct dra_span late = c->late_after;

    if (op->answered) {
        return (struct dra_instant){0};
    }
    if (c->view.phase == GUARD_PHASE_FREEZING || c->view.phase == GUARD_PHASE_KILLING) {
        late.ns *= 10;
    }
    return dra_later(dra_after(op->sent_at, late), c->grace_until);
}

static void timer_update(struct guard_client *c)
{
    struct dra_instant at = {0};

    if (c->broken[0] != '\0') {
        at = dra_now();
    } else if (c->state == CLIENT_RETRY) {
        at = c->retry_at;
    } else if (c->state == CLIENT_UP) {
        at = dra_after(c->last_sent_at, c->heartbeat);
    }
    for (size_t i = 0; i < OPS_MAX; i++) {
        if (c->ops[i].seq != 0) {
            at = dra_earlier(at, dra_earlier(c->ops[i].not_after, op_late_at(c, &c->ops[i])));
        }
    }
    c->timer_at = at;
    if (dra_is_set(at)) {
        dra_timer_set(c->timer, at);
    } else {
        dra_timer_stop(c->timer);
    }
}

static void ops_expire(struct guard_client *c, struct dra_instant now)
{
    for (size_t i = 0; i < OPS_MAX; i++) {
        if (c->ops[i].seq != 0 && dra_is_set(c->ops[i].not_after) && dra_reached(now, c->ops[i].not_after)) {
            op_finish(&c->ops[i], DRA_ETIMEDOUT, GUARD_STATUS_NONE, NULL, "no answer in time");
        }
    }
}

/* An op may time out before its answer is late; then the next ping finds out. */
static bool is_late(const struct guard_client *c, struct dra_instant now)
{
    for (size_t i = 0; i < OPS_MAX; i++) {
        struct dra_instant late_at = c->ops[i].seq != 0 ? op_late_at(c, &c->ops[i]) : (struct dra_instant){0};

        if (dra_is_set(late_at) && dra_reached(now, late_at)) {
            return true;
        }
    }
    return false;
}

static void on_connected_timer(struct guard_client *c, struct dra_instant now)
{
    bool stalled = dra_since(now, c->timer_at).ns > c->late_after.ns / 2;

    client_read(c); /* before anybody is called late */
    if (c->closing || c->conn == NULL) {
        return;
    }
    if (stalled) { /* this loop, or the whole machine, stood still: the guard may be about to answer */
        c->grace_until = dra_after(now, c->late_after);
    }
    if (c->broken[0] != '\0') {
        client_lost(c, c->broken);
    } else if (is_late(c, now)) {
        client_lost(c, "its answer is late");
    } else if (c->state == CLIENT_UP && dra_reached(now, dra_after(c->last_sent_at, c->heartbeat))) {
        ping_send(c);
    }
}

static void on_timer(void *arg)
{
    struct guard_client *c = arg;
    struct dra_instant now = dra_now();

    if (c->conn != NULL) {
        on_connected_timer(c, now);
    } else if (c->state == CLIENT_RETRY && dra_reached(now, c->retry_at)) {
        client_connect(c);
    }
    if (!c->closing) {
        ops_expire(c, now);
    }
    if (!c->closing) {
        timer_update(c);
    }
}

/* ---- open and close ---------------------------------------------------------------------------------- */

int guard_client_open(struct uv_loop_s *loop, const struct guard_client_config *config,
                      const struct guard_client_cbs *cbs, void *arg, struct guard_client **out, struct dra_err *err)
{
    struct guard_client *c = calloc(1, sizeof *c);

    if (c == NULL) {
        return dra_err_set(err, DRA_ENOMEM, "guard client");
    }
    c->loop = loop;
    c->cbs = *cbs;
    c->arg = arg;
    c->generation = config->generation != 0 ? config->generation : (uint64_t)dra_now().ns;
    c->report_only = config->report_only;
    c->heartbeat = config->heartbeat.ns != 0 ? config->heartbeat : dra_ms(HEARTBEAT_DEFAULT_MS);
    c->late_after = config->late_after.ns != 0 ? config->late_after : dra_ms(LATE_DEFAULT_MS);
    c->retry = dra_ms(RETRY_FIRST_MS);
    if (dra_str_copy(c->runtime_dir, sizeof c->runtime_dir, config->runtime_dir) != 0 ||
        dra_str_copy(c->guard_exe, sizeof c->guard_exe, config->guard_exe) != 0) {
        free(c);
        return dra_err_set(err, DRA_ETOOLONG, "guard: path of its directory or program");
    }
    if (dra_timer_open(loop, on_timer, c, &c->timer) != DRA_OK) {
        free(c);
        return dra_err_set(err, DRA_ESYS, "guard client: timer");
    }
    (void)uv_timer_init(loop, &c->last); /* cannot fail */
    c->last.data = c;
    client_connect(c);
    timer_update(c);
    *out = c;
    return DRA_OK;
}

static void on_last_closed(uv_handle_t *h)
{
    struct guard_client *c = h->data;

    ops_fail(c, DRA_ECANCELED, "the client was closed");
    if (c->on_closed != NULL) {
        c->on_closed(c->arg);
    }
    free(c);
}

static void on_last(uv_timer_t *h)
{
    struct guard_client *c = h->data;

    if (c->child == NULL) { /* else it has to report first */
        uv_close((uv_handle_t *)h, on_last_closed);
    }
}

void guard_client_close(struct guard_client *c, void (*on_closed)(void *arg))
{
    if (c == NULL || c->closing) {
        return;
    }
    c->closing = true;
    c->state = CLIENT_ENDED;
    c->on_closed = on_closed;
    conn_leave(c);
    watch_close(c);
    dra_timer_close(c->timer);
    c->timer = NULL;
    if (c->child != NULL) {
        dra_child_cancel(c->child);
    }
    (void)uv_timer_start(&c->last, on_last, 0, 0); /* the last callbacks come from the loop */
}

bool guard_client_is_up(const struct guard_client *c)
{
    return c->state == CLIENT_UP && c->broken[0] == '\0';
}

uint64_t guard_client_generation(const struct guard_client *c)
{
    return c->generation;
}

const struct guard_view *guard_client_view(const struct guard_client *c)
{
    return &c->view;
}
