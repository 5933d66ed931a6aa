/*
 * thread.c - the REST thread: runs the daemon, reads its mail, ends what waits too long.
 *
 * The thread runs libmicrohttpd's epoll set itself instead of leaving that to the library, so that it can keep its own
 * deadlines (a suspended connection has none) and stay the only one that ever touches the library.
 *
 * Invariants:
 *  (1) A connection is suspended if and only if it is in `waiting`.
 *  (2) At the end nobody is suspended: the library would abort.
 */
#include "server.h"

#include <dragent/io.h>

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <sys/resource.h>
#include <sys/syscall.h>

#define IDLE_TIMEOUT_S 60U
#define CONNECTION_MEMORY ((size_t)8192)
#define FLUSH_MS 200 /* at the end: for answers that are on their way */
#define NICE_WORSE 5

/* ---- the library ---------------------------------------------------------------------------------------------- */

static void on_library_log(void *arg, const char *fmt, va_list ap) __attribute__((format(printf, 2, 0)));
static void on_library_log(void *arg, const char *fmt, va_list ap)
{
    char text[256];

    (void)arg;
    if (!log_enabled(LOG_LV_DEBUG)) {
        return; /* client resets and the like (REST-11) */
    }
    dra_str_clipv(text, sizeof text, fmt, ap);
    text[strcspn(text, "\r\n")] = '\0';
    log_event(LOG_LV_DEBUG, "rest.http", text, NULL);
}

/* REST-20: nothing is decoded for us. */
static size_t keep_escapes(void *arg, struct MHD_Connection *c, char *s)
{
    (void)arg;
    (void)c;
    return strlen(s);
}

int rest_door_open(struct rest_server *s, int fd, struct rest_door *out, struct dra_err *err)
{
    struct MHD_Daemon *d = MHD_start_daemon(
        MHD_USE_EPOLL | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_ERROR_LOG, 0, NULL, NULL, rest_on_request, s,
        MHD_OPTION_EXTERNAL_LOGGER, on_library_log, NULL, /* first: so that the others' complaints are seen */
        MHD_OPTION_LISTEN_SOCKET, fd,
        MHD_OPTION_CONNECTION_LIMIT, (unsigned)REST_CONNECTIONS_MAX,
        MHD_OPTION_CONNECTION_TIMEOUT, IDLE_TIMEOUT_S,
        MHD_OPTION_CONNECTION_MEMORY_LIMIT, CONNECTION_MEMORY,
        MHD_OPTION_URI_LOG_CALLBACK, rest_on_uri, s,
        MHD_OPTION_UNESCAPE_CALLBACK, keep_escapes, NULL,
        MHD_OPTION_NOTIFY_COMPLETED, rest_on_completed, s,
        MHD_OPTION_END);
    if (d == NULL) {
        (void)close(fd);
        return dra_err_set(err, DRA_EIO, "the HTTP library cannot be started");
    }
    const union MHD_DaemonInfo *info = MHD_get_daemon_info(d, MHD_DAEMON_INFO_EPOLL_FD);
    if (info == NULL) {
        MHD_stop_daemon(d);
        return dra_err_set(err, DRA_EIO, "the HTTP library was built without epoll");
    }
    *out = (struct rest_door){.daemon = d, .epoll_fd = info->epoll_fd};
    return DRA_OK;
}

static void door_run(const struct rest_door *d)
{
    if (d->daemon != NULL) {
        (void)MHD_run(d->daemon);
    }
}

static void doors_run(struct rest_server *s)
{
    door_run(&s->now);
    door_run(&s->old);
}

/* Needs: nobody suspended. */
static void door_close(struct rest_door *d)
{
    if (d->daemon != NULL) {
        MHD_stop_daemon(d->daemon);
    }
    *d = (struct rest_door){.daemon = NULL, .epoll_fd = -1};
}

/* ---- mail ---------------------------------------------------------------------------------------------------------- */

void rest_note_free(struct rest_note *n)
{
    if (n == NULL) {
        return;
    }
    if (n->kind == REST_NOTE_LISTEN && n->fd >= 0) {
        (void)close(n->fd);
    }
    free(n->content_type);
    free(n->body);
    free(n);
}

void rest_call_free(struct rest_call *c)
{
    if (c != NULL) {
        json_free(c->body);
        free(c);
    }
}

bool rest_call_send(struct rest_server *s, uint64_t id, enum rest_kind kind, struct json *body)
{
    struct rest_call *c = calloc(1, sizeof *c);

    if (c == NULL) {
        json_free(body);
        return false;
    }
    c->body = body;
    c->rq = (struct rest_request){.id = id, .kind = kind, .body = body, .asked_at = dra_now()};
    rest_mail_send(&s->r->to_loop, &c->mail);
    (void)uv_async_send(&s->r->bell); /* fails only on a handle that is being closed, after our end */
    return true;
}

/* ---- waiting -------------------------------------------------------------------------------------------------------- */

void rest_wait_begin(struct rest_conn *rc, enum rest_wait wait, struct dra_instant deadline)
{
    struct rest_server *s = rc->srv;

    assert(rc->wait == REST_WAIT_NONE);
    rc->wait = wait;
    rc->deadline = deadline;
    rc->prev = NULL;
    rc->next = s->waiting;
    if (s->waiting != NULL) {
        s->waiting->prev = rc;
    }
    s->waiting = rc;
    s->n_waiting++;
    s->n_calls += wait == REST_WAIT_REPLY ? 1 : 0;
    MHD_suspend_connection(rc->c);
}

static void wait_end(struct rest_conn *rc)
{
    struct rest_server *s = rc->srv;

    if (rc->prev != NULL) {
        rc->prev->next = rc->next;
    } else {
        s->waiting = rc->next;
    }
    if (rc->next != NULL) {
        rc->next->prev = rc->prev;
    }
    s->n_waiting--;
    s->n_calls -= rc->wait == REST_WAIT_REPLY ? 1 : 0;
    rc->wait = REST_WAIT_NONE;
    MHD_resume_connection(rc->c);
}

/* End it without what it waited for. */
static void give_up(struct rest_conn *rc)
{
    enum rest_kind kind = rc->route->kind;
    char text[128];

    switch (rc->wait) {
    case REST_WAIT_FRESH:
        rc->gave_up = true;
        break;
    case REST_WAIT_CLUSTER:
        rc->cluster_done = true;
        rc->cluster_ok = false;
        break;
    case REST_WAIT_REPLY:
        rc->replied = true;
        rc->status = 503;
        if (kind == REST_SWITCHOVER || kind == REST_FAILOVER) { /* REST-92: the text that patronictl looks for */
            (void)snprintf(text, sizeof text, "%s status unknown after %" PRId64 " seconds; operation may still be in progress",
                           kind == REST_FAILOVER ? "Failover" : "Switchover", dra_span_ms(dra_since(dra_now(), rc->asked_at)) / 1000);
            rc->reply = strdup(text);
        }
        break;
    case REST_WAIT_NONE:
        break;
    }
    wait_end(rc);
}

static void give_up_all(struct rest_server *s)
{
    while (s->waiting != NULL) {
        give_up(s->waiting);
    }
}

/* Ends what is due; returns when the next is. */
static struct dra_instant expire(struct rest_server *s)
{
    struct dra_instant next = {0};
    struct dra_instant now = s->waiting != NULL ? dra_now() : (struct dra_instant){0};

    for (struct rest_conn *rc = s->waiting, *after; rc != NULL; rc = after) {
        after = rc->next;
        if (dra_reached(now, rc->deadline)) {
            give_up(rc);
        } else {
            next = dra_earlier(next, rc->deadline);
        }
    }
    return next;
}

/* ---- notes from the loop ------------------------------------------------------------------------------------------------ */

static void on_reply(struct rest_server *s, struct rest_note *n)
{
    for (struct rest_conn *rc = s->waiting; rc != NULL; rc = rc->next) {
        if (rc->wait == REST_WAIT_REPLY && rc->id == n->id) {
            rc->replied = true;
            rc->status = n->status;
            rc->content_type = DRA_TAKE(n->content_type);
            rc->reply = DRA_TAKE(n->body);
            wait_end(rc);
            return;
        }
    }
    log_linef(LOG_LV_DEBUG, "rest.late", "the answer to request %" PRIu64 " comes too late", n->id);
}

static void on_fresh(struct rest_server *s)
{
    s->fresh_asked = false;
    for (struct rest_conn *rc = s->waiting, *after; rc != NULL; rc = after) {
        after = rc->next;
        if (rc->wait == REST_WAIT_FRESH) {
            wait_end(rc); /* it looks at the snapshot itself */
        }
    }
}

static void on_cluster(struct rest_server *s, bool ok)
{
    bool more = false;

    s->cluster_asked = false;
    for (struct rest_conn *rc = s->waiting, *after; rc != NULL; rc = after) {
        after = rc->next;
        if (rc->wait == REST_WAIT_CLUSTER && rc->round <= s->cluster_round) {
            rc->cluster_done = true;
            rc->cluster_ok = ok;
            wait_end(rc);
        } else if (rc->wait == REST_WAIT_CLUSTER) {
            more = true;
        }
    }
    if (more && rest_call_send(s, ++s->next_id, REST_CLUSTER, NULL)) { /* for those who came while it was read */
        s->cluster_asked = true;
        s->cluster_round++;
    }
}

static void on_listen(struct rest_server *s, struct rest_note *n)
{
    struct rest_door fresh = {.daemon = NULL};
    struct dra_err err = {0};
    int fd = n->fd;

    n->fd = -1;
    if (rest_door_open(s, fd, &fresh, &err) != DRA_OK) {
        log_event(LOG_LV_ERROR, "rest.listen", err.msg, NULL);
        return;
    }
    if (s->old.daemon != NULL) { /* moved twice within one request */
        give_up_all(s);
        doors_run(s);
        door_close(&s->old);
    }
    s->old = s->now;
    s->now = fresh;
    MHD_socket was = MHD_quiesce_daemon(s->old.daemon);
    if (was != MHD_INVALID_SOCKET) {
        (void)close(was);
    }
}

static void read_mail(struct rest_server *s)
{
    struct rest_mail *m = rest_mail_take(&s->r->to_thread);

    while (m != NULL) {
        struct rest_note *n = (struct rest_note *)(void *)m;
        m = m->next;
        switch (n->kind) {
        case REST_NOTE_REPLY:
            on_reply(s, n);
            break;
        case REST_NOTE_FRESH:
            on_fresh(s);
            break;
        case REST_NOTE_CLUSTER:
            on_cluster(s, n->ok);
            break;
        case REST_NOTE_AUTH:
            free(s->auth);
            s->auth = DRA_TAKE(n->body);
            break;
        case REST_NOTE_LISTEN:
            on_listen(s, n);
            break;
        case REST_NOTE_STOP:
            s->stopping = true;
            break;
        case REST_NOTE_NONE:
            break;
        }
        rest_note_free(n);
    }
}

/* ---- the thread ------------------------------------------------------------------------------------------------------------ */

static int earlier_ms(int a, int b)
{
    return a < 0 || (b >= 0 && b < a) ? b : a;
}

static int library_timeout_ms(const struct rest_door *d)
{
    MHD_UNSIGNED_LONG_LONG ms = 0;
    if (d->daemon == NULL || MHD_get_timeout(d->daemon, &ms) != MHD_YES) {
        return -1;
    }
    return ms > 60000 ? 60000 : (int)ms;
}

static int until_ms(struct dra_instant at)
{
    if (!dra_is_set(at)) {
        return -1;
    }
    int64_t ms = dra_span_ms(dra_since(at, dra_now())) + 1; /* never early: that would spin */
    return ms < 0 ? 0 : ms > 60000 ? 60000 : (int)ms;
}

static void wait_for_events(struct rest_server *s, int timeout_ms)
{
    struct pollfd p[3] = {{.fd = s->r->bell_fd, .events = POLLIN},
                          {.fd = s->now.epoll_fd, .events = POLLIN},
                          {.fd = s->old.daemon != NULL ? s->old.epoll_fd : -1, .events = POLLIN}};
    uint64_t rings;

    if (poll(p, DRA_ARRAY_LEN(p), timeout_ms) > 0 && (p[0].revents & POLLIN) != 0) {
        ssize_t n = read(s->r->bell_fd, &rings, sizeof rings);
        (void)n; /* a doorbell: the mail is in the box */
    }
}

static void close_old_door(struct rest_server *s)
{
    if (s->old.daemon == NULL) {
        return;
    }
    const union MHD_DaemonInfo *info = MHD_get_daemon_info(s->old.daemon, MHD_DAEMON_INFO_CURRENT_CONNECTIONS);
    if (info != NULL && info->num_connections == 0) {
        door_close(&s->old);
    }
}

static void finish(struct rest_server *s)
{
    struct dra_instant limit = dra_after(dra_now(), dra_ms(FLUSH_MS));

    give_up_all(s);
    do {
        doors_run(s);
        if (s->n_queued > 0) {
            wait_for_events(s, 10);
        }
    } while (s->n_queued > 0 && !dra_reached(dra_now(), limit));
    give_up_all(s); /* nobody can have begun to wait, since s->stopping; the library aborts if one has */
    doors_run(s);
    door_close(&s->old);
    door_close(&s->now);
    rest_snap_free(s->snap);
    s->snap = NULL;
    free(s->auth);
    s->auth = NULL;
}

static void lower_priority(void)
{
    id_t tid = (id_t)syscall(SYS_gettid);

    errno = 0;
    int nice_now = getpriority(PRIO_PROCESS, tid);
    if (errno == 0) {
        (void)setpriority(PRIO_PROCESS, tid, nice_now + NICE_WORSE); /* making it worse needs no right */
    }
}

void *rest_thread_main(void *srv)
{
    struct rest_server *s = srv;

    lower_priority();
    for (;;) {
        read_mail(s);
        if (s->stopping) {
            break;
        }
        (void)expire(s);
        doors_run(s);
        close_old_door(s);
        int timeout_ms = until_ms(expire(s)); /* the run may have made some wait */
        timeout_ms = earlier_ms(timeout_ms, library_timeout_ms(&s->now));
        timeout_ms = earlier_ms(timeout_ms, library_timeout_ms(&s->old));
        wait_for_events(s, timeout_ms);
    }
    finish(s);
    return NULL;
}
