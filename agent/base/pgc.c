/*
 * pgc.c - PostgreSQL client: one connection, statements one after the other, all of it asynchronous libpq.
 *
 * The caller's callbacks run from pump() only, and pump() runs from the loop only, so that a callback may start, cancel,
 * drop or close.  API calls ring `kick`.
 * Invariants:
 *  (1) The poll handle is stopped before libpq may close or exchange the socket, and PQsocket() is asked again after
 *      each step: the same number may be another socket.
 *  (2) A statement that must end early (deadline, cancel) takes its connection with it: nothing of it can come late.
 *  (3) An operation is in `ops` from its start until its callback has returned; its first is the one at work.
 * An idle connection is watched, so that a server that went away is known before the next statement.
 * Threads: loop thread only.
 */
#include <dragent/io.h>

#include <libpq-fe.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <uv.h>

#define OPS_MAX 64
#define PREPARED_MAX 32
#define NAME_MAX_BYTES 64

enum state {
    STATE_OFF = 0,    /* no connection */
    STATE_CONNECTING, /* for the first operation */
    STATE_IDLE,       /* connected, nothing on the wire */
    STATE_PREPARING,  /* PREPARE of the first operation is on the wire */
    STATE_RUNNING,    /* its statement is */
};

struct pgc_op {
    TAILQ_ENTRY(pgc_op) link;
    struct pgc *client;
    char prepare_name[NAME_MAX_BYTES]; /* "" = simple protocol */
    char *sql;                         /* owned */
    struct dra_instant not_after;
    struct dra_instant sent_at;
    bool cancelled;
    bool done;
    bool delivering;
    struct dra_err err; /* code 0 = good */
    PGresult *result;   /* owned; the last one with rows, else the last one */
    pgc_cb cb;
    void *arg;
};

TAILQ_HEAD(pgc_ops, pgc_op);

/* A statement that this connection has prepared. */
struct prepared {
    char name[NAME_MAX_BYTES];
    char server_name[NAME_MAX_BYTES];
    char *sql; /* owned */
};

struct poll_handle {
    uv_poll_t poll;
    struct pgc *client;
    int fd;
};

struct pgc {
    uv_loop_t *loop;
    char name[128];
    char *conninfo; /* owned; may hold a password: never logged */
    PGconn *conn;
    enum state state;
    struct poll_handle *poll; /* owned by the loop once closed */
    struct dra_timer *deadline;
    uv_timer_t kick;
    struct pgc_ops ops;
    size_t op_count;
    struct prepared prepared[PREPARED_MAX];
    size_t prepared_count;
    unsigned prepared_serial;
    int open_handles;
    bool closing;
    bool closed;
    bool drop_wanted;
};

static void pump(struct pgc *c);

/* ---- the socket and the loop ---- */

static void on_client_handle_closed(uv_handle_t *h)
{
    struct pgc *c = h->data;

    if (--c->open_handles == 0) {
        free(c->conninfo);
        free(c);
    }
}

static void on_poll_closed(uv_handle_t *h)
{
    struct poll_handle *p = h->data;
    struct pgc *c = p->client;

    free(p);
    if (--c->open_handles == 0) {
        free(c->conninfo);
        free(c);
    }
}

static void poll_close(struct pgc *c)
{
    if (c->poll != NULL) {
        (void)uv_poll_stop(&c->poll->poll);
        uv_close((uv_handle_t *)&c->poll->poll, on_poll_closed);
        c->poll = NULL;
    }
}

static void poll_stop(struct pgc *c)
{
    if (c->poll != NULL) {
        (void)uv_poll_stop(&c->poll->poll);
    }
}

static void step(struct pgc *c);

static void on_poll(uv_poll_t *h, int status, int events)
{
    struct poll_handle *p = h->data;
    struct pgc *c = p->client;

    (void)status; /* libpq finds out what is wrong with its socket */
    (void)events;
    step(c);
    pump(c);
}

static bool poll_wait(struct pgc *c, int events)
{
    int fd = PQsocket(c->conn);

    if (c->poll != NULL && c->poll->fd != fd) {
        poll_close(c);
    }
    if (fd < 0) {
        return false;
    }
    if (c->poll == NULL) {
        struct poll_handle *p = calloc(1, sizeof *p);

        if (p == NULL || uv_poll_init(c->loop, &p->poll, fd) != 0) {
            free(p);
            return false;
        }
        p->poll.data = p;
        p->client = c;
        p->fd = fd;
        c->open_handles++;
        c->poll = p;
    }
    return uv_poll_start(&c->poll->poll, events, on_poll) == 0;
}

static void on_kick(uv_timer_t *h)
{
    pump(h->data);
}

static void ring(struct pgc *c)
{
    if (!c->closed) {
        (void)uv_timer_start(&c->kick, on_kick, 0, 0);
    }
}

static void on_deadline(void *arg)
{
    pump(arg);
}

/* ---- connection ---- */

static void disconnect(struct pgc *c)
{
    poll_close(c);
    if (c->conn != NULL) {
        PQfinish(c->conn);
        c->conn = NULL;
    }
    for (size_t i = 0; i < c->prepared_count; i++) {
        free(c->prepared[i].sql);
    }
    c->prepared_count = 0;
    c->state = STATE_OFF;
}

/* libpq has no accessor for the SQLSTATE of a failed connection; in verbose messages it stands behind the
 * severity: "FATAL:  57P03: the database system is starting up". */
static void find_sqlstate(const char *msg, char out[6])
{
    const char *p = msg;

    while ((p = strstr(p, ":  ")) != NULL) {
        p += 3;
        if (strspn(p, "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ") == 5 && p[5] == ':' && p[6] == ' ') {
            memcpy(out, p, 5);
            out[5] = '\0';
            return;
        }
    }
}

/* The connection's message on one line, without "LOCATION:". */
static void connection_error(const struct pgc *c, struct dra_err *err, const char *what)
{
    const char *msg = c->conn != NULL ? PQerrorMessage(c->conn) : "out of memory";
    const char *location = strstr(msg, "\nLOCATION:");
    char text[DRA_ERR_MSG_MAX];
    size_t len;

    dra_str_clip(text, sizeof text, msg);
    len = location != NULL && (size_t)(location - msg) < strlen(text) ? (size_t)(location - msg) : strlen(text);
    while (len > 0 && (text[len - 1] == '\n' || text[len - 1] == ' ')) {
        len--;
    }
    text[len] = '\0';
    for (size_t i = 0; i < len; i++) {
        text[i] = text[i] == '\n' || text[i] == '\t' ? ' ' : text[i];
    }
    (void)dra_err_set(err, DRA_ECONN, "%s: %s: %s", c->name, what, len > 0 ? text : "connection lost");
    find_sqlstate(msg, err->sqlstate);
}

static struct pgc_op *head(const struct pgc *c)
{
    return TAILQ_FIRST(&c->ops);
}

/* The connection is of no more use; the operation at work, if any, ends with `err` (kept if it is done already). */
static void fail_connection(struct pgc *c, const struct dra_err *err)
{
    struct pgc_op *op = head(c);

    if (op != NULL && !op->done && c->state != STATE_IDLE && c->state != STATE_OFF) {
        if (op->err.code == DRA_OK) {
            op->err = *err;
        } else if (err->code == DRA_ECONN) {
            op->err.code = DRA_ECONN; /* what the server said last explains it better */
        }
        op->done = true;
    }
    disconnect(c);
}

static void connect_failed(struct pgc *c)
{
    struct dra_err err = {0};

    connection_error(c, &err, "cannot connect");
    fail_connection(c, &err);
}

static void lost(struct pgc *c)
{
    struct dra_err err = {0};

    connection_error(c, &err, "connection lost");
    fail_connection(c, &err);
}

static void step_connecting(struct pgc *c)
{
    PostgresPollingStatusType next;

    poll_stop(c); /* the step may close the socket and open another with its number */
    next = PQconnectPoll(c->conn);
    if (next == PGRES_POLLING_OK) {
        (void)PQsetErrorVerbosity(c->conn, PQERRORS_DEFAULT);
        if (PQsetnonblocking(c->conn, 1) != 0 || !poll_wait(c, UV_READABLE)) {
            lost(c);
            return;
        }
        c->state = STATE_IDLE;
    } else if (next != PGRES_POLLING_READING && next != PGRES_POLLING_WRITING) {
        connect_failed(c);
    } else if (!poll_wait(c, next == PGRES_POLLING_READING ? UV_READABLE : UV_WRITABLE)) {
        connect_failed(c);
    }
}

static void ignore_notice(void *arg, const PGresult *r)
{
    (void)arg;
    (void)r; /* libpq would print it on stderr */
}

static void connect_begin(struct pgc *c)
{
    c->state = STATE_CONNECTING;
    c->conn = PQconnectStart(c->conninfo);
    if (c->conn == NULL || PQstatus(c->conn) == CONNECTION_BAD) {
        connect_failed(c);
        return;
    }
    (void)PQsetErrorVerbosity(c->conn, PQERRORS_VERBOSE);
    (void)PQsetNoticeReceiver(c->conn, ignore_notice, NULL);
    if (!poll_wait(c, UV_WRITABLE)) { /* as libpq's manual says: begin as if it had said WRITING */
        connect_failed(c);
    }
}

/* ---- statements ---- */

/* Send what is buffered, and wait for what comes. */
static void flush_and_wait(struct pgc *c)
{
    int left = PQflush(c->conn);

    if (left < 0 || !poll_wait(c, left > 0 ? UV_READABLE | UV_WRITABLE : UV_READABLE)) {
        lost(c);
    }
}

static const struct prepared *find_prepared(const struct pgc *c, const struct pgc_op *op)
{
    for (size_t i = 0; i < c->prepared_count; i++) {
        if (strcmp(c->prepared[i].name, op->prepare_name) == 0 &&
            strcmp(c->prepared[i].sql, op->sql) == 0) {
            return &c->prepared[i];
        }
    }
    return NULL;
}

/* A name with another text gets another name on the server.  NULL: no room, or no memory. */
static struct prepared *add_prepared(struct pgc *c, const struct pgc_op *op)
{
    struct prepared *p;

    if (c->prepared_count == PREPARED_MAX) {
        return NULL;
    }
    p = &c->prepared[c->prepared_count];
    p->sql = strdup(op->sql);
    if (p->sql == NULL) {
        return NULL;
    }
    dra_str_clip(p->name, sizeof p->name, op->prepare_name);
    (void)snprintf(p->server_name, sizeof p->server_name, "dragent_%u", ++c->prepared_serial);
    c->prepared_count++;
    return p;
}

static void send_head(struct pgc *c)
{
    struct pgc_op *op = head(c);
    const struct prepared *known = NULL;
    int sent;

    c->state = STATE_RUNNING;
    if (op->prepare_name[0] != '\0') {
        known = find_prepared(c, op);
    }
    if (known != NULL) {
        op->sent_at = dra_now();
        sent = PQsendQueryPrepared(c->conn, known->server_name, 0, NULL, NULL, NULL, 0);
    } else if (op->prepare_name[0] != '\0' && (known = add_prepared(c, op)) != NULL) {
        c->state = STATE_PREPARING;
        sent = PQsendPrepare(c->conn, known->server_name, op->sql, 0, NULL);
    } else {
        op->sent_at = dra_now();
        sent = PQsendQuery(c->conn, op->sql);
    }
    if (sent == 0) {
        lost(c);
        return;
    }
    flush_and_wait(c);
}

static void take_error(const struct pgc *c, struct pgc_op *op, const PGresult *r)
{
    const char *state = PQresultErrorField(r, PG_DIAG_SQLSTATE);
    const char *msg = PQresultErrorField(r, PG_DIAG_MESSAGE_PRIMARY);
    bool broken = PQstatus(c->conn) != CONNECTION_OK;

    if (op->err.code != DRA_OK) {
        return; /* the first one counts */
    }
    (void)dra_err_set(&op->err, broken ? DRA_ECONN : DRA_ESQL, "%s: %s", c->name,
                      msg != NULL ? msg : PQresultErrorMessage(r));
    if (state != NULL) {
        dra_str_clip(op->err.sqlstate, sizeof op->err.sqlstate, state);
    }
}

/* Takes over r.  False: the connection cannot be used any more. */
static bool take_result(struct pgc *c, struct pgc_op *op, PGresult *r)
{
    ExecStatusType status = PQresultStatus(r);

    if (status == PGRES_COPY_IN || status == PGRES_COPY_OUT || status == PGRES_COPY_BOTH) {
        (void)dra_err_set(&op->err, DRA_ESQL, "%s: COPY is not supported", c->name);
        PQclear(r);
        return false;
    }
    if (status == PGRES_TUPLES_OK || status == PGRES_COMMAND_OK || status == PGRES_EMPTY_QUERY) {
        if (c->state == STATE_RUNNING &&
            (op->result == NULL || status == PGRES_TUPLES_OK || PQnfields(op->result) == 0)) {
            PQclear(op->result);
            op->result = r;
            return true;
        }
    } else {
        take_error(c, op, r);
    }
    PQclear(r);
    return true;
}

/* All results of what was sent have come. */
static void statement_ended(struct pgc *c)
{
    struct pgc_op *op = head(c);

    if (c->state == STATE_PREPARING && op->err.code == DRA_OK) {
        send_head(c);
        return;
    }
    if (c->state == STATE_PREPARING) {
        c->prepared_count--; /* was not made */
        free(c->prepared[c->prepared_count].sql);
    }
    if (PQstatus(c->conn) != CONNECTION_OK && op->err.code != DRA_OK) {
        op->err.code = DRA_ECONN; /* "terminating connection ...": its error came, then the end */
    }
    op->done = true;
    c->state = STATE_IDLE;
    if (PQstatus(c->conn) != CONNECTION_OK || !poll_wait(c, UV_READABLE)) {
        disconnect(c);
    }
}

static void step_running(struct pgc *c)
{
    while (c->state == STATE_PREPARING || c->state == STATE_RUNNING) {
        PGresult *r;

        if (PQisBusy(c->conn)) {
            flush_and_wait(c);
            return;
        }
        r = PQgetResult(c->conn);
        if (r == NULL) {
            statement_ended(c);
        } else if (!take_result(c, head(c), r)) {
            struct dra_err err = head(c)->err;

            fail_connection(c, &err);
        }
    }
}

static void drain_notifies(struct pgc *c)
{
    PGnotify *n;

    while ((n = PQnotifies(c->conn)) != NULL) {
        PQfreemem(n);
    }
}

/* The socket is ready. */
static void step(struct pgc *c)
{
    switch (c->state) {
    case STATE_OFF:
        break;
    case STATE_CONNECTING:
        step_connecting(c);
        break;
    case STATE_IDLE:
        if (PQconsumeInput(c->conn) == 0 || PQstatus(c->conn) != CONNECTION_OK) {
            disconnect(c);
        } else {
            drain_notifies(c);
        }
        break;
    case STATE_PREPARING:
    case STATE_RUNNING:
        if (PQconsumeInput(c->conn) == 0) {
            /* what the server said last may be read already: "terminating connection ..." */
            step_running(c);
            if (c->state == STATE_PREPARING || c->state == STATE_RUNNING) {
                lost(c);
            }
        } else {
            step_running(c);
        }
        break;
    }
}

/* ---- delivery ---- */

static const char *result_get(const struct pgc_result *r, int row, int col)
{
    const PGresult *res = r->priv;

    if (res == NULL || row < 0 || row >= r->rows || col < 0 || col >= r->cols || PQgetisnull(res, row, col)) {
        return NULL;
    }
    return PQgetvalue(res, row, col);
}

static void op_free(struct pgc_op *op)
{
    PQclear(op->result);
    free(op->sql);
    free(op);
}

/* Operations that must end early: cancelled ones, and those past their deadline. */
static void check_ends(struct pgc *c)
{
    struct dra_instant now = dra_now();
    struct pgc_op *op;

    TAILQ_FOREACH(op, &c->ops, link)
    {
        bool late = dra_reached(now, op->not_after);

        if (op->done || (!op->cancelled && !late)) {
            continue;
        }
        (void)dra_err_set(&op->err, op->cancelled ? DRA_ECANCELED : DRA_ETIMEDOUT, "%s: %s", c->name,
                          op->cancelled ? "cancelled"
                          : op != head(c)               ? "deadline passed while waiting for its turn"
                          : c->state == STATE_CONNECTING ? "deadline passed while connecting"
                                                         : "deadline passed");
        op->done = true;
        if (op == head(c) && c->state != STATE_IDLE) {
            disconnect(c);
        }
    }
}

static void deliver(struct pgc_op *op)
{
    struct pgc *c = op->client;
    bool good = op->err.code == DRA_OK;
    struct pgc_result r = {
        .err_code = op->err.code,
        .err = op->err,
        .rows = good ? PQntuples(op->result) : 0,
        .cols = good ? PQnfields(op->result) : 0,
        .get = result_get,
        .priv = good ? op->result : NULL,
        .sent_at = op->sent_at,
    };

    op->delivering = true;
    TAILQ_REMOVE(&c->ops, op, link); /* from here on it cannot be taken for the one at work */
    c->op_count--;
    op->cb(&r, op->arg);
    op_free(op);
}

static struct pgc_op *next_done(const struct pgc *c)
{
    struct pgc_op *op;

    TAILQ_FOREACH(op, &c->ops, link)
    {
        if (op->done) {
            return op;
        }
    }
    return NULL;
}

static void finish_close(struct pgc *c)
{
    c->closed = true;
    disconnect(c);
    dra_timer_close(c->deadline);
    uv_close((uv_handle_t *)&c->kick, on_client_handle_closed);
}

static void do_drop(struct pgc *c)
{
    struct dra_err err = {0};

    c->drop_wanted = false;
    (void)dra_err_set(&err, DRA_ECONN, "%s: connection dropped", c->name);
    fail_connection(c, &err);
}

/* Move on as far as it goes without waiting. */
static void pump(struct pgc *c)
{
    struct dra_instant next = {0};
    struct pgc_op *op;

    if (c->closed) {
        return;
    }
    for (;;) {
        if (c->drop_wanted) {
            do_drop(c);
        }
        check_ends(c);
        op = next_done(c);
        if (op != NULL) {
            deliver(op);
        } else if (head(c) != NULL && c->state == STATE_OFF) {
            connect_begin(c);
            if (head(c) != NULL && !head(c)->done) {
                break;
            }
        } else if (head(c) != NULL && c->state == STATE_IDLE) {
            send_head(c);
            if (!head(c)->done) {
                break;
            }
        } else {
            break;
        }
    }
    if (c->closing && head(c) == NULL) {
        finish_close(c);
        return;
    }
    TAILQ_FOREACH(op, &c->ops, link)
    {
        next = dra_earlier(next, op->not_after);
    }
    dra_timer_set(c->deadline, next);
}

/* ---- public ---- */

int pgc_open(struct uv_loop_s *loop, struct pgc **out)
{
    struct pgc *c = calloc(1, sizeof *c);
    int rc;

    if (c == NULL) {
        return DRA_ENOMEM;
    }
    rc = dra_timer_open(loop, on_deadline, c, &c->deadline);
    if (rc != DRA_OK) {
        free(c);
        return rc;
    }
    c->loop = loop;
    dra_str_clip(c->name, sizeof c->name, "postgresql");
    TAILQ_INIT(&c->ops);
    (void)uv_timer_init(loop, &c->kick);
    c->kick.data = c;
    c->open_handles = 1;
    *out = c;
    return DRA_OK;
}

int pgc_configure(struct pgc *c, const char *name, const char *conninfo)
{
    char *copy;

    if (c->closing) {
        return DRA_ESTATE;
    }
    dra_str_clip(c->name, sizeof c->name, name);
    if (dra_str_eq(c->conninfo, conninfo)) {
        return DRA_OK;
    }
    copy = strdup(conninfo);
    if (copy == NULL) {
        return DRA_ENOMEM;
    }
    free(c->conninfo);
    c->conninfo = copy;
    pgc_drop(c);
    return DRA_OK;
}

int pgc_query_start(struct pgc *c, const char *prepare_name, const char *sql, struct dra_instant not_after,
                    pgc_cb cb, void *arg, struct pgc_op **out)
{
    struct pgc_op *op;

    if (c->closing) {
        return DRA_ESTATE;
    }
    if (sql == NULL || cb == NULL || c->conninfo == NULL || !dra_is_set(not_after)) {
        return DRA_EINVAL;
    }
    if (c->op_count >= OPS_MAX) {
        return DRA_EBUSY;
    }
    op = calloc(1, sizeof *op);
    if (op == NULL) {
        return DRA_ENOMEM;
    }
    op->sql = strdup(sql);
    if (op->sql == NULL ||
        dra_str_copy(op->prepare_name, sizeof op->prepare_name, prepare_name != NULL ? prepare_name : "") !=
            DRA_OK) {
        op_free(op);
        return DRA_EINVAL;
    }
    op->client = c;
    op->not_after = not_after;
    op->cb = cb;
    op->arg = arg;
    TAILQ_INSERT_TAIL(&c->ops, op, link);
    c->op_count++;
    ring(c);
    if (out != NULL) {
        *out = op;
    }
    return DRA_OK;
}

void pgc_cancel(struct pgc_op *op)
{
    if (op == NULL || op->delivering) {
        return;
    }
    op->cancelled = true;
    ring(op->client);
}

void pgc_drop(struct pgc *c)
{
    if (c->closed || c->conn == NULL) {
        return;
    }
    c->drop_wanted = true;
    ring(c);
}

void pgc_close(struct pgc *c)
{
    struct pgc_op *op;

    if (c == NULL || c->closing) {
        return;
    }
    c->closing = true;
    TAILQ_FOREACH(op, &c->ops, link)
    {
        pgc_cancel(op);
    }
    ring(c);
}

bool pgc_is_connected(const struct pgc *c)
{
    return c->conn != NULL && c->state != STATE_CONNECTING && c->state != STATE_OFF && !c->drop_wanted;
}
