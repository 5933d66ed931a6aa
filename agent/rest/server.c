/*
 * server.c - the loop's side: open, publish, take requests in, hand answers out, close.
 *
 * Invariants:
 *  (1) A request's body lives from the callback until rest_reply() (or rest_close()).
 *  (2) The loop thread never touches the HTTP library, except before the thread runs.
 * Threads: loop thread only.
 */
#include "server.h"

#include <dragent/io.h>

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <sys/eventfd.h>

static void on_bell(uv_async_t *h);
static void on_closed(uv_handle_t *h);
static struct rest_note *note_new(enum rest_note_kind kind);

/* ---- opening ------------------------------------------------------------------------------------------------ */

static int check_config(const struct conf_rest *cfg, struct dra_err *err)
{
    if (cfg->tls || cfg->certfile[0] != '\0') {
        return dra_err_set(err, DRA_EINVAL, "restapi.certfile: \"%s\": TLS is not supported by this version. Remove certfile and "
                                            "keyfile from restapi, and use http:// in the clients.", cfg->certfile);
    }
    return DRA_OK;
}

/* "Basic ..." that clients have to send; *out NULL: none is wanted. */
static int auth_header(const struct conf_rest *cfg, char **out, struct dra_err *err)
{
    struct dra_buf plain;
    struct dra_buf text;

    *out = NULL;
    if (cfg->username[0] == '\0' && cfg->password[0] == '\0') {
        return DRA_OK;
    }
    dra_buf_init(&plain, 1024);
    dra_buf_init(&text, 2048);
    dra_buf_addf(&plain, "%s:%s", cfg->username, cfg->password);
    dra_buf_adds(&text, "Basic ");
    dra_buf_add_b64(&text, plain.p, plain.len);
    *out = plain.failed ? NULL : dra_buf_take(&text);
    if (plain.p != NULL) {
        explicit_bzero(plain.p, plain.len);
    }
    dra_buf_deinit(&plain);
    dra_buf_deinit(&text);
    return *out != NULL ? DRA_OK : dra_err_set(err, DRA_ENOMEM, "out of memory");
}

static int start_thread(struct rest *r, struct dra_err *err)
{
    sigset_t all;
    sigset_t before;

    (void)sigfillset(&all); /* signals are the loop's business */
    (void)pthread_sigmask(SIG_SETMASK, &all, &before);
    int rc = pthread_create(&r->thread, NULL, rest_thread_main, &r->srv);
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (rc != 0) {
        return dra_err_sys(err, rc, "cannot start the REST thread");
    }
    (void)pthread_setname_np(r->thread, "rest"); /* for people */
    return DRA_OK;
}

/* Everything but the loop's handle. */
static int open_parts(struct rest *r, struct dra_err *err)
{
    int fd = -1;
    int rc = auth_header(&r->cfg, &r->srv.auth, err);

    if (rc != DRA_OK) {
        return rc;
    }
    r->stop = note_new(REST_NOTE_STOP);
    if (r->stop == NULL) {
        return dra_err_set(err, DRA_ENOMEM, "out of memory");
    }
    r->bell_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (r->bell_fd < 0) {
        return dra_err_sys(err, errno, "eventfd");
    }
    rc = rest_listen(r->cfg.listen_host, r->cfg.listen_port, true, &fd, &r->port, err);
    if (rc != DRA_OK) {
        return rc;
    }
    return rest_door_open(&r->srv, fd, &r->srv.now, err);
}

static void free_parts(struct rest *r)
{
    if (r->srv.now.daemon != NULL) {
        MHD_stop_daemon(r->srv.now.daemon);
    }
    if (r->bell_fd >= 0) {
        (void)close(r->bell_fd);
    }
    free(r->srv.auth);
    rest_note_free(r->stop);
}

int rest_open(struct uv_loop_s *loop, const struct conf_rest *cfg, rest_request_cb cb, void *arg, struct rest **out,
              struct dra_err *err)
{
    struct rest *r;
    int rc = check_config(cfg, err);

    if (rc != DRA_OK) {
        return rc;
    }
    r = calloc(1, sizeof *r);
    if (r == NULL) {
        return dra_err_set(err, DRA_ENOMEM, "out of memory");
    }
    r->cfg = *cfg;
    r->cb = cb;
    r->arg = arg;
    r->bell_fd = -1;
    r->srv.r = r;
    r->srv.old.epoll_fd = -1;
    r->srv.opened_at = dra_now();
    rc = open_parts(r, err);
    if (rc == DRA_OK && uv_async_init(loop, &r->bell, on_bell) != 0) {
        rc = dra_err_set(err, DRA_ESYS, "cannot watch the REST thread's doorbell");
    }
    if (rc != DRA_OK) {
        free_parts(r);
        free(r);
        return rc;
    }
    r->bell.data = r;
    rc = start_thread(r, err);
    if (rc != DRA_OK) {
        free_parts(r);
        uv_close((uv_handle_t *)&r->bell, on_closed);
        return rc;
    }
    log_linef(LOG_LV_INFO, "rest.listen", "the REST API listens at %s:%d", cfg->listen_host[0] != '\0' ? cfg->listen_host : "*", r->port);
    *out = r;
    return DRA_OK;
}

int rest_port(const struct rest *r)
{
    return r->port;
}

/* ---- mail to the thread ----------------------------------------------------------------------------------------- */

static void ring(struct rest *r)
{
    uint64_t one = 1;
    ssize_t n = write(r->bell_fd, &one, sizeof one);
    (void)n; /* EAGAIN: it has been ringing for long enough */
}

static void send_note(struct rest *r, struct rest_note *n)
{
    rest_mail_send(&r->to_thread, &n->mail);
    ring(r);
}

static struct rest_note *note_new(enum rest_note_kind kind)
{
    struct rest_note *n = calloc(1, sizeof *n);

    if (n == NULL) {
        log_event(LOG_LV_ERROR, "rest.memory", "out of memory: a REST client will have to wait for its time-out", NULL);
        return NULL;
    }
    n->kind = kind;
    n->fd = -1;
    return n;
}

static int reconfigure_listen(struct rest *r, const struct conf_rest *cfg, struct dra_err *err)
{
    int fd = -1;
    int port = 0;
    int rc;

    if (dra_str_eq(cfg->listen_host, r->cfg.listen_host) && cfg->listen_port == r->cfg.listen_port) {
        return DRA_OK;
    }
    rc = rest_listen(cfg->listen_host, cfg->listen_port, false, &fd, &port, err);
    if (rc != DRA_OK) {
        return rc;
    }
    struct rest_note *n = note_new(REST_NOTE_LISTEN);
    if (n == NULL) {
        (void)close(fd);
        return dra_err_set(err, DRA_ENOMEM, "out of memory");
    }
    n->fd = fd;
    r->port = port;
    send_note(r, n);
    return DRA_OK;
}

int rest_reconfigure(struct rest *r, const struct conf_rest *cfg, struct dra_err *err)
{
    struct rest_note *n;
    char *auth = NULL;
    int rc = check_config(cfg, err);

    if (rc == DRA_OK) {
        rc = auth_header(cfg, &auth, err);
    }
    if (rc == DRA_OK) {
        rc = reconfigure_listen(r, cfg, err);
    }
    if (rc != DRA_OK) {
        free(auth);
        return rc;
    }
    n = note_new(REST_NOTE_AUTH);
    if (n == NULL) {
        free(auth);
        return dra_err_set(err, DRA_ENOMEM, "out of memory");
    }
    n->body = auth;
    send_note(r, n);
    r->cfg = *cfg;
    return DRA_OK;
}

void rest_publish(struct rest *r, const struct rest_facts *f)
{
    struct rest_snap *s;

    if (r->closing) {
        return;
    }
    s = rest_snap_new(f);
    if (s == NULL) {
        log_event(LOG_LV_ERROR, "rest.memory", "out of memory: REST answers from the picture before this one", NULL);
        return;
    }
    rest_snap_free(rest_slot_put(&r->slot, s));
}

/* Every question of that kind is answered by this. */
static void resume(struct rest *r, enum rest_note_kind kind, bool ok)
{
    enum rest_kind answered = kind == REST_NOTE_FRESH ? REST_FRESH : REST_CLUSTER;
    struct rest_note *n = r->closing ? NULL : note_new(kind);

    for (struct rest_call **link = &r->open; *link != NULL;) {
        struct rest_call *c = *link;
        if (c->rq.kind == answered) {
            *link = c->next_open;
            rest_call_free(c);
        } else {
            link = &c->next_open;
        }
    }
    if (n != NULL) {
        n->ok = ok;
        send_note(r, n);
    }
}

void rest_resume_fresh(struct rest *r)
{
    resume(r, REST_NOTE_FRESH, true);
}

void rest_resume_cluster(struct rest *r, bool ok)
{
    resume(r, REST_NOTE_CLUSTER, ok);
}

static char *copy_or_null(const char *s)
{
    return s != NULL ? strdup(s) : NULL;
}

void rest_reply(struct rest *r, uint64_t id, int status, const char *content_type, const char *body)
{
    struct rest_call **link = &r->open;
    struct rest_note *n;

    if (r->closing) {
        return;
    }
    while (*link != NULL && (*link)->rq.id != id) {
        link = &(*link)->next_open;
    }
    if (*link == NULL) {
        log_linef(LOG_LV_DEBUG, "rest.late", "request %" PRIu64 " has been answered already", id);
        return;
    }
    struct rest_call *c = *link;
    if (c->rq.kind == REST_FRESH || c->rq.kind == REST_CLUSTER) { /* refused: nothing fresh will come */
        resume(r, c->rq.kind == REST_FRESH ? REST_NOTE_FRESH : REST_NOTE_CLUSTER, false);
        return;
    }
    *link = c->next_open;
    rest_call_free(c);
    n = note_new(REST_NOTE_REPLY);
    if (n == NULL) {
        return;
    }
    n->id = id;
    n->status = status;
    n->content_type = copy_or_null(content_type);
    n->body = copy_or_null(body);
    send_note(r, n);
}

/* ---- mail from the thread ------------------------------------------------------------------------------------------ */

static void on_bell(uv_async_t *h)
{
    struct rest *r = h->data;
    struct rest_mail *m = rest_mail_take(&r->to_loop);

    while (m != NULL) {
        struct rest_call *c = (struct rest_call *)(void *)m;
        m = m->next;
        if (r->closing) {
            rest_call_free(c);
            continue;
        }
        c->next_open = r->open;
        r->open = c;
        struct rest_request rq = c->rq; /* c may be gone before the callback returns */
        r->cb(&rq, r->arg);
    }
}

/* ---- the end --------------------------------------------------------------------------------------------------------- */

static void free_mail(struct rest *r)
{
    struct rest_mail *m = rest_mail_take(&r->to_loop);

    while (m != NULL) {
        struct rest_call *c = (struct rest_call *)(void *)m;
        m = m->next;
        rest_call_free(c);
    }
    m = rest_mail_take(&r->to_thread);
    while (m != NULL) {
        struct rest_note *n = (struct rest_note *)(void *)m;
        m = m->next;
        rest_note_free(n);
    }
    while (r->open != NULL) {
        struct rest_call *c = r->open;
        r->open = c->next_open;
        rest_call_free(c);
    }
}

static void on_closed(uv_handle_t *h)
{
    free(h->data);
}

void rest_close(struct rest *r)
{
    if (r == NULL || r->closing) {
        return;
    }
    r->closing = true;
    send_note(r, DRA_TAKE(r->stop));
    (void)pthread_join(r->thread, NULL);
    (void)close(r->bell_fd);
    rest_snap_free(rest_slot_take(&r->slot));
    free_mail(r);
    uv_close((uv_handle_t *)&r->bell, on_closed);
}
