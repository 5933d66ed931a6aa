/*
 * store.c - etcd v3 as a `struct dcs`: open, close, and each operation as one call.
 *
 * Promises: dcs.h's contract.  Own writes that succeeded are in the view before their callback runs
 * (DCS-58). Memory: freed when the store was closed, its last call and stream have ended, and one
 * turn has passed since close(). Threads: loop thread only.
 */
#include "etcd.h"

#include <stdlib.h>
#include <string.h>

enum op_kind { OP_READ = 1, OP_TXN, OP_GRANT, OP_KEEPALIVE, OP_DELETE_PREFIX };

struct write { /* what a branch of a transaction does, for the view */
    enum dcs_op_kind kind;
    char *key;   /* owned */
    char *value; /* owned */
    int64_t lease;
};
struct op {
    struct etcd *e;
    enum op_kind kind;
    dcs_cb cb;
    void *arg;
    bool compares;
    struct write success[DCS_OPS_MAX];
    struct write failure[DCS_OPS_MAX];
};

/* ---- operations
 * ------------------------------------------------------------------------------------------- */

static void op_free(struct op *o)
{
    for (int i = 0; o != NULL && i < DCS_OPS_MAX; i++) {
        free(o->success[i].key);
        free(o->success[i].value);
        free(o->failure[i].key);
        free(o->failure[i].value);
    }
    free(o);
}

static struct op *op_new(struct etcd *e, enum op_kind kind, dcs_cb cb, void *arg)
{
    struct op *o = calloc(1, sizeof *o);
    if (o != NULL) {
        o->e = e;
        o->kind = kind;
        o->cb = cb;
        o->arg = arg;
    }
    return o;
}

/* The transaction succeeded in one of its branches: the view learns it at once. */
static void writes_apply(struct etcd *e, const struct write *w, int64_t revision)
{
    bool changed = false;

    if (e->watch.state == ETCD_WATCH_OFF || e->cache.revision == 0 || revision == 0) {
        return; /* no view yet: the first range brings it */
    }
    for (int i = 0; i < DCS_OPS_MAX; i++) {
        if (w[i].kind == DCS_OP_PUT && etcd_cache_modified(&e->cache, w[i].key) < revision) {
            int64_t created = etcd_cache_created(&e->cache, w[i].key);
            changed = true;
            if (!etcd_cache_put(&e->cache, w[i].key, w[i].value, strlen(w[i].value), revision,
                                created != 0 ? created : revision, w[i].lease)) {
                etcd_watch_check_soon(e); /* out of memory: let a range bring it */
            }
        } else if (w[i].kind == DCS_OP_DELETE && etcd_cache_modified(&e->cache, w[i].key) != 0) {
            changed = true;
            if (!etcd_cache_delete(&e->cache, w[i].key, revision)) {
                etcd_watch_check_soon(e);
            }
        }
    }
    if (changed && !e->watch.told_stale) {
        etcd_watch_publish(e);
    }
}

static void op_fail(struct dcs_answer *a, int code, const char *text)
{
    a->err_code = code;
    dra_str_clip(a->err_msg, sizeof a->err_msg, text);
}

static void on_call(const struct etcd_reply *r, void *arg)
{
    struct op *o = arg;
    struct etcd *e = o->e;
    struct dcs_answer a = {.err_code = r->err_code,
                           .sent_at = r->sent_at,
                           .raft_term = r->header.raft_term,
                           .revision = r->header.revision};

    dra_str_clip(a.err_msg, sizeof a.err_msg, r->err_msg);
    if (r->err_code == DRA_OK) {
        switch (o->kind) {
        case OP_READ:
            if (e->watch.state != ETCD_WATCH_OFF && !etcd_watch_take_range(e, r)) {
                op_fail(&a, DRA_ENOMEM, "out of memory");
            }
            break;
        case OP_TXN:
            if (!etcd_wire_read_txn(r->root, &a)) {
                op_fail(&a, DRA_ETIMEDOUT,
                        "the answer has no header"); /* carried out or not: unknown */
                break;
            }
            if (!a.succeeded &&
                o->compares) { /* the picture that the compares came from may be old (DCS-58) */
                etcd_watch_check_soon(e);
            }
            writes_apply(e, a.succeeded ? o->success : o->failure, a.revision);
            break;
        case OP_GRANT:
            if (!etcd_wire_read_grant(r->root, &a)) {
                op_fail(&a, DRA_EREMOTE, "the answer has no lease");
            }
            break;
        case OP_KEEPALIVE:
            if (!etcd_wire_read_keepalive(r->root, &a)) {
                op_fail(&a, DRA_EREMOTE, "the answer has no lease");
            } else if (a.ttl_s == 0) { /* 200 without a TTL (DCS-48) */
                op_fail(&a, DRA_ENOTFOUND, "lease unknown or expired");
            }
            break;
        case OP_DELETE_PREFIX:
            etcd_watch_check_soon(e);
            break;
        }
    }
    o->cb(&a, o->arg);
    op_free(o);
}

static int op_start(struct op *o, const struct etcd_call_spec *spec, struct dra_buf *body,
                    struct dra_err *err)
{
    if (o == NULL) {
        dra_buf_deinit(body);
        return dra_err_set(err, DRA_ENOMEM, "etcd: out of memory");
    }
    int rc = etcd_call_start(o->e, spec, body, on_call, o, err);
    if (rc != DRA_OK) {
        op_free(o);
    }
    return rc;
}

static struct etcd *etcd_of(struct dcs *d)
{
    return (struct etcd *)(void *)d; /* `base` is the first field */
}

static int read_start(struct dcs *d, struct dra_instant not_after, dcs_cb cb, void *arg,
                      struct dra_err *err)
{
    struct etcd *e = etcd_of(d);
    struct etcd_call_spec spec = {.path = "/v3/kv/range",
                                  .repeat = ETCD_REPEAT_HEDGED,
                                  .quorum = true,
                                  .not_after = not_after};
    struct dra_buf body;

    dra_buf_init(&body, ETCD_BODY_MAX);
    etcd_wire_range(&body, e->prefix, e->range_end);
    return op_start(op_new(e, OP_READ, cb, arg), &spec, &body, err);
}

/* Keeps a copy of the puts and deletes of one branch; false = out of memory. */
static bool writes_copy(struct write *dst, const struct dcs_op *ops, int n, int *n_writes)
{
    for (int i = 0; i < n; i++) {
        if (ops[i].kind != DCS_OP_PUT && ops[i].kind != DCS_OP_DELETE) {
            continue;
        }
        (*n_writes)++;
        dst[i].kind = ops[i].kind;
        dst[i].lease = ops[i].lease;
        dst[i].key = strdup(ops[i].key);
        dst[i].value = ops[i].kind == DCS_OP_PUT ? strdup(ops[i].value) : NULL;
        if (dst[i].key == NULL || (ops[i].kind == DCS_OP_PUT && dst[i].value == NULL)) {
            return false;
        }
    }
    return true;
}

static int txn_start(struct dcs *d, const struct dcs_txn *t, struct dra_instant not_after,
                     dcs_cb cb, void *arg, struct dra_err *err)
{
    struct etcd *e = etcd_of(d);
    struct etcd_call_spec spec = {.path = "/v3/kv/txn", .quorum = true, .not_after = not_after};
    struct dra_buf body;
    int n_writes = 0;

    if (t->n_cmps < 0 || t->n_cmps > DCS_CMPS_MAX || t->n_success < 0 ||
        t->n_success > DCS_OPS_MAX || t->n_failure < 0 || t->n_failure > DCS_OPS_MAX) {
        return dra_err_set(err, DRA_EINVAL, "etcd: transaction out of bounds");
    }
    struct op *o = op_new(e, OP_TXN, cb, arg);
    if (o == NULL || !writes_copy(o->success, t->success, t->n_success, &n_writes) ||
        !writes_copy(o->failure, t->failure, t->n_failure, &n_writes)) {
        op_free(o);
        return dra_err_set(err, DRA_ENOMEM, "etcd: out of memory");
    }
    o->compares = t->n_cmps > 0;
    spec.repeat = n_writes == 0   ? ETCD_REPEAT_HEDGED /* a mere check */
                  : t->retry_safe ? ETCD_REPEAT_LOST
                                  : ETCD_REPEAT_NEVER;
    dra_buf_init(&body, ETCD_BODY_MAX);
    etcd_wire_txn(&body, e->prefix, t);
    return op_start(o, &spec, &body, err);
}

static int grant_start(struct dcs *d, int64_t ttl_s, struct dra_instant not_after, dcs_cb cb,
                       void *arg, struct dra_err *err)
{
    struct etcd *e = etcd_of(d);
    /* A lease whose answer was lost dies by itself, so a grant may be repeated. */
    struct etcd_call_spec spec = {.path = "/v3/lease/grant",
                                  .repeat = ETCD_REPEAT_LOST,
                                  .quorum = true,
                                  .not_after = not_after};
    struct dra_buf body;

    dra_buf_init(&body, ETCD_BODY_MAX);
    etcd_wire_grant(&body, ttl_s);
    return op_start(op_new(e, OP_GRANT, cb, arg), &spec, &body, err);
}

static int keepalive_start(struct dcs *d, int64_t lease, struct dra_instant not_after, dcs_cb cb,
                           void *arg, struct dra_err *err)
{
    struct etcd *e = etcd_of(d);
    /* Not a proof of a quorum: a deposed leader goes on answering these (WIN-31). */
    struct etcd_call_spec spec = {
        .path = "/v3/lease/keepalive", .repeat = ETCD_REPEAT_HEDGED, .not_after = not_after};
    struct dra_buf body;

    dra_buf_init(&body, ETCD_BODY_MAX);
    etcd_wire_keepalive(&body, lease);
    return op_start(op_new(e, OP_KEEPALIVE, cb, arg), &spec, &body, err);
}

static int delete_prefix_start(struct dcs *d, struct dra_instant not_after, dcs_cb cb, void *arg,
                               struct dra_err *err)
{
    struct etcd *e = etcd_of(d);
    struct etcd_call_spec spec = {.path = "/v3/kv/deleterange",
                                  .repeat = ETCD_REPEAT_LOST,
                                  .quorum = true,
                                  .not_after = not_after};
    struct dra_buf body;

    dra_buf_init(&body, ETCD_BODY_MAX);
    etcd_wire_delete_range(&body, e->prefix, e->range_end);
    return op_start(op_new(e, OP_DELETE_PREFIX, cb, arg), &spec, &body, err);
}

static int watch_start(struct dcs *d, const struct dcs_events *ev, void *arg, struct dra_err *err)
{
    return etcd_watch_begin(etcd_of(d), ev, arg, err);
}

/* ---- settings
 * ---------------------------------------------------------------------------------------------- */

/* A scalar of the section as text: passwords and names may look like numbers. */
static int section_text(const struct json *section, const char *key, char *out, size_t out_size,
                        struct dra_err *err)
{
    const struct json *j = json_get(section, key);

    out[0] = '\0';
    if (j == NULL || json_type_of(j) == JSON_NULL) {
        return DRA_OK;
    }
    if (!json_source_text(j, out, out_size)) {
        return dra_err_set(err, DRA_EINVAL, "etcd3.%s: want a text of less than %zu bytes", key,
                           out_size);
    }
    return DRA_OK;
}

/* User and password; those inside the URL win if present (CFG-24). */
static int credentials(struct etcd_auth *a, const struct json *section, const char *url_user,
                       const char *url_password, struct dra_err *err)
{
    char user[sizeof a->user];
    char password[sizeof a->password];
    int rc = section_text(section, "username", user, sizeof user, err);

    if (rc == DRA_OK) {
        rc = section_text(section, "password", password, sizeof password, err);
    }
    if (rc == DRA_OK && url_user[0] != '\0') {
        rc = dra_str_copy(user, sizeof user, url_user) != DRA_OK ||
                     dra_str_copy(password, sizeof password, url_password) != DRA_OK
                 ? dra_err_set(err, DRA_EINVAL, "etcd3.url: user or password too long")
                 : DRA_OK;
    }
    if (rc == DRA_OK && (strcmp(user, a->user) != 0 || strcmp(password, a->password) != 0)) {
        memcpy(a->user, user, sizeof user);
        memcpy(a->password, password, sizeof password);
        a->enabled = user[0] != '\0' && password[0] != '\0';
        a->off = false;
        a->failed = false;
        a->token[0] = '\0';
    }
    explicit_bzero(password, sizeof password);
    return rc;
}

static int path_copy(const struct json *section, const char *key, char **out, struct dra_err *err)
{
    char path[4096];
    int rc = section_text(section, key, path, sizeof path, err);

    if (rc == DRA_OK && path[0] != '\0') {
        *out = strdup(path);
        rc = *out != NULL ? DRA_OK : dra_err_set(err, DRA_ENOMEM, "etcd: out of memory");
    }
    return rc;
}

struct http_tls etcd_tls(const struct etcd *e)
{
    return (struct http_tls){
        .cacert = e->cacert, .cert = e->cert, .key = e->key, .verify = e->cacert != NULL};
}

static void timings(struct etcd *e, struct dra_span ttl, struct dra_span loop_wait,
                    struct dra_span retry_timeout)
{
    e->ttl = ttl;
    e->loop_wait = loop_wait;
    e->retry_timeout = retry_timeout;
}

static int reconfigure(struct dcs *d, const struct json *section, struct dra_span ttl,
                       struct dra_span loop_wait, struct dra_span retry_timeout,
                       struct dra_err *err)
{
    struct etcd *e = etcd_of(d);
    struct etcd_endpoints ignored = {0}; /* addresses are taken at start only (CFG-24) */
    char user[sizeof e->auth.user];
    char password[sizeof e->auth.password];
    int rc = etcd_endpoints_parse(section, &ignored, user, password, sizeof user, err);

    if (rc == DRA_OK) {
        rc = credentials(&e->auth, section, user, password, err);
    }
    explicit_bzero(password, sizeof password);
    if (rc == DRA_OK) {
        timings(e, ttl, loop_wait, retry_timeout);
    }
    return rc;
}

/* ---- open and close
 * -------------------------------------------------------------------------------------------- */

static void store_free(struct etcd *e)
{
    free(e->cacert);
    free(e->cert);
    free(e->key);
    etcd_cache_clear(&e->cache);
    explicit_bzero(&e->auth, sizeof e->auth);
    free(e);
}

void etcd_maybe_free(struct etcd *e)
{
    if (e->closing && e->closer_done && e->calls == NULL && e->watch.streams_open == 0) {
        store_free(e);
    }
}

static void on_closer(void *arg)
{
    struct etcd *e = arg;

    dra_timer_close(e->closer);
    e->closer = NULL;
    e->closer_done = true;
    etcd_maybe_free(e);
}

static void on_refresh(void *arg)
{
    etcd_endpoints_discover(arg);
}

static void store_close(struct dcs *d)
{
    struct etcd *e = etcd_of(d);

    if (DRA_NEVER(e->closing)) {
        return;
    }
    etcd_watch_end(e);
    e->closing = true;
    dra_timer_close(e->endpoints.refresh);
    e->endpoints.refresh = NULL;
    etcd_calls_cancel_all(e);
    dra_timer_set(e->closer, dra_now());
}

static const struct dcs_vt etcd_vt = {
    .name = "etcd3",
    .watch_start = watch_start,
    .read_start = read_start,
    .txn_start = txn_start,
    .grant_start = grant_start,
    .keepalive_start = keepalive_start,
    .delete_prefix_start = delete_prefix_start,
    .reconfigure = reconfigure,
    .close = store_close,
};

int etcd_open(struct uv_loop_s *loop, struct http_client *http, const struct json *section,
              const char *prefix, struct dra_span ttl, struct dra_span loop_wait,
              struct dra_span retry_timeout, struct dcs **out, struct dra_err *err)
{
    struct etcd *e = calloc(1, sizeof *e);
    char user[sizeof e->auth.user] = "";
    char password[sizeof e->auth.password] = "";
    int rc;

    if (e == NULL) {
        return dra_err_set(err, DRA_ENOMEM, "etcd: out of memory");
    }
    e->base.vt = &etcd_vt;
    e->loop = loop;
    e->http = http;
    e->random = dra_entropy();
    timings(e, ttl, loop_wait, retry_timeout);
    if (dra_str_copy(e->prefix, sizeof e->prefix, prefix) != DRA_OK ||
        etcd_wire_range_end(prefix, e->range_end, sizeof e->range_end) != DRA_OK) {
        rc = dra_err_set(err, DRA_EINVAL, "namespace and scope are too long");
        goto fail;
    }
    rc = etcd_endpoints_parse(section, &e->endpoints, user, password, sizeof user, err);
    if (rc == DRA_OK) {
        rc = credentials(&e->auth, section, user, password, err);
    }
    explicit_bzero(password, sizeof password);
    if (rc == DRA_OK) {
        rc = path_copy(section, "cacert", &e->cacert, err);
    }
    if (rc == DRA_OK) {
        rc = path_copy(section, "cert", &e->cert, err);
    }
    if (rc == DRA_OK) {
        rc = path_copy(section, "key", &e->key, err);
    }
    if (rc != DRA_OK) {
        goto fail;
    }
    if (dra_timer_open(loop, on_closer, e, &e->closer) != DRA_OK ||
        dra_timer_open(loop, on_refresh, e, &e->endpoints.refresh) != DRA_OK) {
        rc = dra_err_set(err, DRA_ENOMEM, "etcd: out of memory");
        dra_timer_close(e->closer);
        goto fail;
    }
    dra_timer_set(e->endpoints.refresh, dra_now()); /* learn the members in the next turn */
    *out = &e->base;
    return DRA_OK;
fail:
    store_free(e);
    return rc;
}
