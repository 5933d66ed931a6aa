/*
 * net.c - the small loop: start what is to be known, run until the answer is there.
 *
 * Every wait ends by a deadline of the operation itself, so the loop always comes back.
 */
#include "ctl.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <uv.h>

struct ctl_store {
    struct dcs *dcs;
    char scope[HA_NAME_MAX];
    struct dcs_snapshot *latest; /* owned reference */
    bool done;
    struct dcs_answer answer;
};

int ctl_error(const char *fmt, ...)
{
    va_list ap;
    (void)fflush(stdout);
    (void)fputs("Error: ", stderr);
    va_start(ap, fmt);
    (void)vfprintf(stderr, fmt, ap);
    va_end(ap);
    (void)fputc('\n', stderr);
    return 1;
}

/* ---- the store ----------------------------------------------------------------------------------------------- */

static void on_snapshot(struct dcs_snapshot *s, void *arg)
{
    struct ctl_store *st = arg;
    dcs_snapshot_unref(st->latest);
    st->latest = dcs_snapshot_ref(s);
}

static void on_stale(const char *why, void *arg)
{
    (void)why; /* each answer comes from a read of its own */
    (void)arg;
}

static void on_answer(const struct dcs_answer *a, void *arg)
{
    struct ctl_store *st = arg;
    st->answer = *a;
    st->done = true;
}

static void run_until(struct ctl *c, const bool *done)
{
    while (!*done && uv_run(c->loop, UV_RUN_ONCE) != 0) {
    }
}

static void store_close(struct ctl *c)
{
    if (c->store == NULL) {
        return;
    }
    if (c->store->dcs != NULL) {
        c->store->dcs->vt->close(c->store->dcs);
    }
    dcs_snapshot_unref(c->store->latest);
    /* The store ends asynchronously, but its events stop with close(). */
    free(c->store);
    c->store = NULL;
}

static int store_open(struct ctl *c, const char *scope)
{
    static const struct dcs_events events = {.snapshot = on_snapshot, .stale = on_stale};
    const struct json *section = json_get(c->config, "etcd3");
    char prefix[3 * HA_NAME_MAX];
    struct dra_err err = {0};
    int rc;
    if (c->store != NULL && dra_str_eq(c->store->scope, scope)) {
        return 0;
    }
    store_close(c);
    if (section == NULL) {
        const char *v2 = json_get(c->config, "etcd") == NULL ? "" : "\nThe section etcd is of API version 2: rename it to etcd3";
        return ctl_error("Can not find suitable configuration of distributed configuration store\nAvailable implementations: etcd3%s", v2);
    }
    if (dcs_prefix(c->ns, scope, prefix, sizeof prefix) != 0) {
        return ctl_error("cluster name is too long");
    }
    c->store = calloc(1, sizeof *c->store);
    if (c->store == NULL || dra_str_copy(c->store->scope, sizeof c->store->scope, scope) != 0) {
        return ctl_error("cluster name is too long");
    }
    rc = etcd_open(c->loop, c->http, section, prefix, dra_ms(30000), dra_ms(10000), c->retry_timeout, &c->store->dcs, &err);
    if (rc == 0) {
        rc = c->store->dcs->vt->watch_start(c->store->dcs, &events, c->store, &err);
    }
    if (rc != 0) {
        store_close(c);
        return ctl_error("%s", err.msg);
    }
    return 0;
}

static int store_error(const struct dcs_answer *a)
{
    return ctl_error("etcd: %s", a->err_msg[0] == '\0' ? dra_code_to_str(a->err_code) : a->err_msg);
}

int ctl_cluster(struct ctl *c, const char *scope, struct dcs_snapshot **out)
{
    struct dra_err err = {0};
    int rc = store_open(c, scope);
    if (rc != 0) {
        return rc;
    }
    c->store->done = false;
    if (c->store->dcs->vt->read_start(c->store->dcs, dra_after(dra_now(), c->retry_timeout), on_answer, c->store, &err) != 0) {
        return ctl_error("etcd: %s", err.msg);
    }
    run_until(c, &c->store->done);
    if (c->store->answer.err_code != 0) {
        return store_error(&c->store->answer);
    }
    if (c->store->latest == NULL) {
        return ctl_error("etcd: no answer");
    }
    *out = dcs_snapshot_ref(c->store->latest);
    return 0;
}

int ctl_txn(struct ctl *c, const struct dcs_txn *t, struct dcs_answer *out)
{
    struct dra_err err = {0};
    c->store->done = false;
    if (c->store->dcs->vt->txn_start(c->store->dcs, t, dra_after(dra_now(), c->retry_timeout), on_answer, c->store, &err) != 0) {
        return ctl_error("etcd: %s", err.msg);
    }
    run_until(c, &c->store->done);
    *out = c->store->answer;
    return out->err_code == 0 ? 0 : store_error(out);
}

int ctl_delete_prefix(struct ctl *c, struct dcs_answer *out)
{
    struct dra_err err = {0};
    c->store->done = false;
    if (c->store->dcs->vt->delete_prefix_start(c->store->dcs, dra_after(dra_now(), c->retry_timeout), on_answer, c->store, &err) != 0) {
        return ctl_error("etcd: %s", err.msg);
    }
    run_until(c, &c->store->done);
    *out = c->store->answer;
    return out->err_code == 0 ? 0 : store_error(out);
}

/* ---- REST ------------------------------------------------------------------------------------------------------- */

int ctl_url(const char *api_url, const char *path, char *out, size_t out_size)
{
    const char *host = strstr(api_url, "://");
    size_t n;
    host = host == NULL ? api_url : host + 3;
    n = (size_t)(host - api_url) + strcspn(host, "/?#");
    return dra_str_printf(out, out_size, "%.*s%s", (int)n, api_url, path);
}

static void call_start(struct ctl_call *call);

static void on_response(const struct http_response *r, void *arg)
{
    struct ctl_call *call = arg;
    if (r->err_code == DRA_ECONN && r->status == 0 && dra_str_eq(call->method, "GET") && ++call->tries <= 3) {
        call_start(call); /* CLI-12; a call that changes something may have arrived, so it is not repeated */
        return;
    }
    call->status = r->status;
    call->err_code = r->err_code;
    if (r->err_code != 0) {
        call->status = 0;
        dra_str_clip(call->error, sizeof call->error, r->err_msg[0] == '\0' ? dra_code_to_str(r->err_code) : r->err_msg);
    } else {
        dra_buf_add(&call->answer, r->body, r->body_len);
    }
    (*call->open)--;
}

static void call_start(struct ctl_call *call)
{
    char url[HA_URL_MAX + 256];
    const char *headers[] = {"User-Agent: dragentctl", NULL, NULL, NULL};
    struct http_request rq = {.method = call->method, .body = call->body, .tls = &call->c->tls, .not_after = call->not_after};
    struct http_op *op = NULL;
    struct dra_err err = {0};
    if (call->c->auth_header[0] != '\0') {
        headers[1] = call->c->auth_header;
    }
    rq.headers = headers;
    rq.body_len = call->body == NULL ? 0 : strlen(call->body);
    rq.url = url;
    rq.tcp_user_timeout_ms = 0;
    if (ctl_url(call->api_url, call->path, url, sizeof url) != 0 || http_start(call->c->http, &rq, on_response, call, &op, &err) != 0) {
        dra_str_clip(call->error, sizeof call->error, err.msg[0] == '\0' ? "address too long" : err.msg);
        call->err_code = DRA_EINVAL;
        (*call->open)--;
    }
}

void ctl_calls(struct ctl *c, struct ctl_call *calls, size_t n)
{
    int open = (int)n;
    for (size_t i = 0; i < n; i++) {
        dra_buf_init(&calls[i].answer, 1024 * 1024);
        calls[i].c = c;
        calls[i].open = &open;
        calls[i].tries = 0;
        calls[i].status = 0;
        calls[i].error[0] = '\0';
        calls[i].not_after = dra_after(dra_now(), dra_ms(calls[i].timeout_ms));
        call_start(&calls[i]);
    }
    while (open > 0 && uv_run(c->loop, UV_RUN_ONCE) != 0) {
    }
}

void ctl_call_deinit(struct ctl_call *call)
{
    dra_buf_deinit(&call->answer);
}

/* ---- waiting -------------------------------------------------------------------------------------------------------- */

static void on_timer(void *arg)
{
    bool *done = arg;
    *done = true;
}

void ctl_pause(struct ctl *c, int64_t ms)
{
    struct dra_timer *t = NULL;
    bool done = false;
    if (dra_timer_open(c->loop, on_timer, &done, &t) != 0) {
        return;
    }
    dra_timer_set(t, dra_after(dra_now(), dra_ms(ms)));
    run_until(c, &done);
    dra_timer_close(t);
}

/* ---- end -------------------------------------------------------------------------------------------------------------- */

static void on_grace(uv_timer_t *t)
{
    uv_stop(t->loop);
}

void ctl_teardown(struct ctl *c)
{
    uv_timer_t grace;
    store_close(c);
    if (c->http != NULL) {
        http_client_close(c->http);
    }
    if (c->loop != NULL && uv_timer_init(c->loop, &grace) == 0) { /* let everything close, but not for ever */
        (void)uv_timer_start(&grace, on_grace, 1000, 0);
        uv_unref((uv_handle_t *)&grace);
        (void)uv_run(c->loop, UV_RUN_DEFAULT);
        uv_close((uv_handle_t *)&grace, NULL);
        (void)uv_run(c->loop, UV_RUN_NOWAIT);
        if (uv_loop_close(c->loop) == 0) {
            free(c->loop);
        }
    }
    json_free(c->config);
    explicit_bzero(c->auth_header, sizeof c->auth_header);
}
