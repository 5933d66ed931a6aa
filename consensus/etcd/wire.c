/*
 * wire.c - bodies of etcd's gRPC-gateway (DCS-65..71).
 *
 * Promises: int64 fields are written and read as strings, so that no double rounds a lease; fields
 * that are absent are 0, false or empty, as the gateway means it; nothing in an answer is trusted
 * to have a type or a length. Threads: any.
 */
#include "wire.h"

#include <inttypes.h>
#include <string.h>

#define DOC_MAX ((size_t)16 * 1024 * 1024)
#define VALUE_MAX ((size_t)2 * 1024 * 1024)

/* ---- errors
 * ------------------------------------------------------------------------------------------ */

static const struct {
    const char *text;
    enum etcd_class class;
} by_text[] = {
    /* DCS-71; text goes before code */
    {"etcdserver: requested lease not found", ETCD_LEASE},
    {"etcdserver: user name is empty", ETCD_AUTH},
    {"etcdserver: permission denied", ETCD_AUTH},
    {"etcdserver: invalid auth token", ETCD_AUTH},
    {"etcdserver: revision of auth store is old", ETCD_AUTH},
    {"etcdserver: authentication failed, invalid user ID or password", ETCD_AUTH_FAILED},
    {"etcdserver: authentication is not enabled", ETCD_AUTH_OFF},
    {"not a primary lessor", ETCD_UNAVAILABLE}, /* mislabelled as code 2 */
};

static void classify(struct etcd_error *e)
{
    for (size_t i = 0; i < DRA_ARRAY_LEN(by_text); i++) {
        if (strstr(e->text, by_text[i].text) != NULL) {
            e->class = by_text[i].class;
            return;
        }
    }
    switch (e->code) {
    case 14:
        e->class = ETCD_UNAVAILABLE;
        break;
    case 4:
    case 9:
        e->class = ETCD_TRANSIENT;
        break;
    case 16:
        e->class = ETCD_AUTH;
        break;
    default:
        e->class = ETCD_DEFINITE;
        break;
    }
}

static const char *first_text(const struct json *j, const char *const *names, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        const char *s = json_text(json_get(j, names[i]));
        if (s != NULL) {
            return s;
        }
    }
    return NULL;
}

/* An object that holds an error, in any of the shapes; false if it has neither text nor code. */
static bool error_fields(const struct json *j, struct etcd_error *out)
{
    static const char *const texts[] = {"message", "error", "Message", "Error"};
    static const char *const codes[] = {"grpc_code", "code", "Code"};
    const char *text = first_text(j, texts, DRA_ARRAY_LEN(texts));
    int64_t code = 2;
    bool has_code = false;

    for (size_t i = 0; i < DRA_ARRAY_LEN(codes) && !has_code; i++) {
        has_code = json_get(j, codes[i]) != NULL && json_i64(j, codes[i], &code, NULL) == DRA_OK;
    }
    if (text == NULL && !has_code) {
        return false;
    }
    out->code = has_code && code >= 0 && code <= 1000 ? (int)code : 2;
    dra_str_clip(out->text, sizeof out->text, text != NULL ? text : "error without text");
    classify(out);
    return true;
}

bool etcd_wire_stream_error(const struct json *j, struct etcd_error *out)
{
    static const char *const names[] = {"error", "Error"};

    memset(out, 0, sizeof *out);
    for (size_t i = 0; i < DRA_ARRAY_LEN(names); i++) {
        const struct json *e = json_get(j, names[i]);
        if (json_type_of(e) == JSON_OBJECT) {
            if (!error_fields(e, out)) {
                *out = (struct etcd_error){
                    .class = ETCD_DEFINITE, .code = 2, .text = "error without text"};
            }
            return true;
        }
        if (json_type_of(e) == JSON_STRING) {
            return error_fields(j, out);
        }
    }
    return false;
}

void etcd_wire_error(int http_status, const char *body, size_t len, struct etcd_error *out)
{
    struct json *j = NULL;
    size_t used = 0;

    memset(out, 0, sizeof *out);
    if (json_parse_first(body, len, &j, &used, NULL) == DRA_OK && json_type_of(j) == JSON_OBJECT &&
        (etcd_wire_stream_error(j, out) || error_fields(j, out))) {
        json_free(j);
        return;
    }
    json_free(j);
    out->code = 2;
    out->class = ETCD_DEFINITE;
    if (http_status == 404) {
        out->class = ETCD_NOT_V3;
        dra_str_clip(out->text, sizeof out->text,
                     "HTTP 404: the server does not know /v3 (etcd 3.4 or later is needed)");
        return;
    }
    if (http_status == 502 || http_status == 503 ||
        http_status == 504) { /* a proxy in front that found no member */
        out->class = ETCD_UNAVAILABLE;
    }
    if (dra_str_printf(out->text, sizeof out->text, "HTTP %d without a JSON body", http_status) !=
        DRA_OK) {
        out->text[0] = '\0';
    }
}

/* ---- small readers
 * ------------------------------------------------------------------------------------- */

static int64_t i64_or_0(const struct json *j, const char *key)
{
    int64_t v = 0;
    const struct json *f = json_get(j, key);
    return f != NULL && json_i64(f, "", &v, NULL) == DRA_OK ? v : 0;
}

/* cluster_id is a uint64 and may lie above int64's range. */
static uint64_t u64_or_0(const struct json *j, const char *key)
{
    uint64_t v = 0;
    const char *s = json_text(json_get(j, key));
    if (s != NULL) {
        return dra_parse_u64(s, strlen(s), &v) == DRA_OK ? v : 0;
    }
    int64_t i = i64_or_0(j, key);
    return i > 0 ? (uint64_t)i : 0;
}

void etcd_wire_header(const struct json *header, struct etcd_header *out)
{
    out->cluster_id = u64_or_0(header, "cluster_id");
    out->raft_term = u64_or_0(header, "raft_term");
    out->revision = i64_or_0(header, "revision");
}

int etcd_wire_range_end(const char *prefix, char *out, size_t out_size)
{
    int rc = dra_str_copy(out, out_size, prefix);
    if (rc != DRA_OK) {
        return rc;
    }
    for (size_t n = strlen(out); n > 0; n--) {
        unsigned char c = (unsigned char)out[n - 1];
        if (c < 0xFF) {
            out[n - 1] = (char)(c + 1);
            out[n] = '\0';
            return DRA_OK;
        }
    }
    return DRA_EINVAL;
}

bool etcd_wire_version_is_v3(const char *v)
{
    int64_t major;
    int64_t minor;
    const char *dot = v != NULL ? strchr(v, '.') : NULL;

    if (dot == NULL || dra_parse_i64(v, (size_t)(dot - v), 0, 1000, &major) != DRA_OK ||
        dra_parse_i64(dot + 1, strspn(dot + 1, "0123456789"), 0, 100000, &minor) != DRA_OK) {
        return true;
    }
    return major > 3 || (major == 3 && minor >= 4);
}

/* ---- requests
 * --------------------------------------------------------------------------------------------- */

static void add_b64_field(struct dra_buf *b, const char *name, const char *prefix, const char *s)
{
    char joined[ETCD_PREFIX_MAX + 2 * HA_NAME_MAX];

    dra_buf_addf(b, "\"%s\":\"", name);
    if (prefix == NULL) {
        dra_buf_add_b64(b, s, strlen(s));
    } else if (dra_str_printf(joined, sizeof joined, "%s%s", prefix, s) == DRA_OK) {
        dra_buf_add_b64(b, joined, strlen(joined));
    } else {
        b->failed = true; /* a key longer than any of ours */
    }
    dra_buf_adds(b, "\"");
}

void etcd_wire_range(struct dra_buf *b, const char *prefix, const char *range_end)
{
    dra_buf_adds(b, "{");
    add_b64_field(b, "key", NULL, prefix);
    dra_buf_adds(b, ",");
    add_b64_field(b, "range_end", NULL, range_end);
    dra_buf_adds(b, "}");
}

void etcd_wire_delete_range(struct dra_buf *b, const char *prefix, const char *range_end)
{
    etcd_wire_range(b, prefix, range_end); /* the same two fields */
}

static void add_compare(struct dra_buf *b, const char *prefix, const struct dcs_cmp *c)
{
    dra_buf_adds(b, "{");
    add_b64_field(b, "key", prefix, c->key);
    switch (c->target) {
    case DCS_CMP_MOD_REV:
        dra_buf_addf(b, ",\"target\":\"MOD\",\"mod_revision\":\"%" PRId64 "\"", c->number);
        break;
    case DCS_CMP_CREATE_REV:
        dra_buf_addf(b, ",\"target\":\"CREATE\",\"create_revision\":\"%" PRId64 "\"", c->number);
        break;
    case DCS_CMP_LEASE:
        dra_buf_addf(b, ",\"target\":\"LEASE\",\"lease\":\"%" PRId64 "\"", c->number);
        break;
    case DCS_CMP_VALUE:
        dra_buf_adds(b, ",\"target\":\"VALUE\",");
        add_b64_field(b, "value", NULL, c->value);
        break;
    case DCS_CMP_NONE:
        b->failed = true; /* a compare that compares nothing would always hold */
        break;
    }
    dra_buf_adds(b, "}");
}

static void add_ops(struct dra_buf *b, const char *prefix, const struct dcs_op *ops, int n)
{
    for (int i = 0; i < n; i++) {
        dra_buf_adds(b, i > 0 ? "," : "");
        switch (ops[i].kind) {
        case DCS_OP_PUT:
            dra_buf_adds(b, "{\"request_put\":{");
            add_b64_field(b, "key", prefix, ops[i].key);
            dra_buf_adds(b, ",");
            add_b64_field(b, "value", NULL, ops[i].value);
            if (ops[i].lease != 0) {
                dra_buf_addf(b, ",\"lease\":\"%" PRId64 "\"", ops[i].lease);
            }
            break;
        case DCS_OP_DELETE:
            dra_buf_adds(b, "{\"request_delete_range\":{");
            add_b64_field(b, "key", prefix, ops[i].key);
            break;
        case DCS_OP_GET:
            dra_buf_adds(b, "{\"request_range\":{");
            add_b64_field(b, "key", prefix, ops[i].key);
            break;
        case DCS_OP_NONE:
            b->failed = true;
            break;
        }
        dra_buf_adds(b, "}}");
    }
}

void etcd_wire_txn(struct dra_buf *b, const char *prefix, const struct dcs_txn *t)
{
    dra_buf_adds(b, "{\"compare\":[");
    for (int i = 0; i < t->n_cmps; i++) {
        dra_buf_adds(b, i > 0 ? "," : "");
        add_compare(b, prefix, &t->cmps[i]);
    }
    dra_buf_adds(b, "],\"success\":[");
    add_ops(b, prefix, t->success, t->n_success);
    if (t->n_success == 0 && t->n_failure == 0 && t->n_cmps > 0) {
        /* Without an operation etcd takes the transaction for a serializable read: a member without
         * a quorum would answer from its old state.  A read in it makes it linearizable (SAFE-29
         * rests on this). */
        dra_buf_adds(b, "{\"request_range\":{");
        add_b64_field(b, "key", prefix, t->cmps[0].key);
        dra_buf_adds(b, ",\"count_only\":true}}");
    }
    if (t->n_failure > 0) {
        dra_buf_adds(b, "],\"failure\":[");
        add_ops(b, prefix, t->failure, t->n_failure);
    }
    dra_buf_adds(b, "]}");
}

void etcd_wire_grant(struct dra_buf *b, int64_t ttl_s)
{
    dra_buf_addf(b, "{\"TTL\":\"%" PRId64 "\"}", ttl_s);
}

void etcd_wire_keepalive(struct dra_buf *b, int64_t lease)
{
    dra_buf_addf(b, "{\"ID\":\"%" PRId64 "\"}", lease);
}

void etcd_wire_watch(struct dra_buf *b, const char *prefix, const char *range_end,
                     int64_t start_revision)
{
    dra_buf_adds(b, "{\"create_request\":{");
    add_b64_field(b, "key", NULL, prefix);
    dra_buf_adds(b, ",");
    add_b64_field(b, "range_end", NULL, range_end);
    dra_buf_addf(b, ",\"start_revision\":\"%" PRId64 "\",\"progress_notify\":true}}",
                 start_revision);
}

void etcd_wire_authenticate(struct dra_buf *b, const char *user, const char *password)
{
    dra_buf_adds(b, "{\"name\":");
    dra_buf_add_json_str(b, user);
    dra_buf_adds(b, ",\"password\":");
    dra_buf_add_json_str(b, password);
    dra_buf_adds(b, "}");
}

/* ---- answers
 * --------------------------------------------------------------------------------------------------
 */

bool etcd_wire_read_txn(const struct json *j, struct dcs_answer *out)
{
    const struct json *responses = json_get(j, "responses");

    out->succeeded = json_is_true(json_get(j, "succeeded"));
    for (const struct json *r = json_first(responses); r != NULL; r = json_next(r)) {
        const struct json *range = json_get(r, "response_range");
        if (range == NULL) {
            continue;
        }
        struct etcd_kv kv;
        etcd_kv_init(&kv);
        const struct json *first = json_first(json_get(range, "kvs"));
        if (first != NULL && etcd_wire_read_kv(first, "", &kv)) {
            out->got_mod_rev = kv.mod_revision;
            out->got_lease = kv.lease;
            if (memchr(dra_buf_str(&kv.value), '\0', kv.value.len) != NULL ||
                dra_str_copy_n(out->got_value, sizeof out->got_value, dra_buf_str(&kv.value),
                               kv.value.len) != DRA_OK) {
                out->got_value[0] = '\0'; /* nothing that could be a name */
            }
        }
        etcd_kv_deinit(&kv);
        break;
    }
    return json_type_of(json_get(j, "header")) == JSON_OBJECT;
}

bool etcd_wire_read_grant(const struct json *j, struct dcs_answer *out)
{
    out->lease = i64_or_0(j, "ID");
    out->ttl_s = i64_or_0(j, "TTL");
    return out->lease != 0 && out->ttl_s > 0;
}

bool etcd_wire_read_keepalive(const struct json *j, struct dcs_answer *out)
{
    const struct json *r = json_get(j, "result");

    out->lease = i64_or_0(r, "ID");
    out->ttl_s = i64_or_0(r, "TTL");
    if (out->ttl_s < 0) {
        out->ttl_s = 0;
    }
    return json_type_of(r) == JSON_OBJECT && out->lease != 0;
}

void etcd_kv_init(struct etcd_kv *kv)
{
    memset(kv, 0, sizeof *kv);
    dra_buf_init(&kv->key, ETCD_PREFIX_MAX + 4096);
    dra_buf_init(&kv->value, VALUE_MAX);
}

void etcd_kv_deinit(struct etcd_kv *kv)
{
    dra_buf_deinit(&kv->key);
    dra_buf_deinit(&kv->value);
}

bool etcd_wire_read_kv(const struct json *j, const char *prefix, struct etcd_kv *out)
{
    const char *key = json_text(json_get(j, "key"));
    const char *value = json_text(json_get(j, "value")); /* absent = empty */
    struct dra_buf whole;
    size_t skip = strlen(prefix);

    dra_buf_reset(&out->key);
    dra_buf_reset(&out->value);
    out->mod_revision = i64_or_0(j, "mod_revision");
    out->create_revision = i64_or_0(j, "create_revision");
    out->lease = i64_or_0(j, "lease");
    dra_buf_init(&whole, ETCD_PREFIX_MAX + 4096);
    bool ok = key != NULL && dra_b64_decode(key, strlen(key), &whole) == DRA_OK &&
              whole.len > skip && memcmp(whole.p, prefix, skip) == 0 &&
              memchr(whole.p, '\0', whole.len) == NULL &&
              (value == NULL || dra_b64_decode(value, strlen(value), &out->value) == DRA_OK);
    if (ok) {
        dra_buf_add(&out->key, whole.p + skip, whole.len - skip);
        ok = !out->key.failed && !out->value.failed;
    }
    dra_buf_deinit(&whole);
    return ok;
}

/* ---- framing (DCS-68)
 * ------------------------------------------------------------------------------------------- */

void etcd_framer_init(struct etcd_framer *f)
{
    memset(f, 0, sizeof *f);
    dra_buf_init(&f->doc, DOC_MAX);
}

void etcd_framer_deinit(struct etcd_framer *f)
{
    dra_buf_deinit(&f->doc);
}

bool etcd_framer_next(struct etcd_framer *f, const char **p, size_t *n)
{
    const char *s = *p;
    size_t i = 0;

    if (f->depth == 0) {
        dra_buf_reset(&f->doc);
        while (i < *n && s[i] != '{') { /* blanks and newlines between documents */
            i++;
        }
    }
    size_t start = i;
    bool done = false;
    for (; i < *n && !done; i++) {
        char c = s[i];
        if (f->in_string) {
            if (f->escaped) {
                f->escaped = false;
            } else if (c == '\\') {
                f->escaped = true;
            } else if (c == '"') {
                f->in_string = false;
            }
        } else if (c == '"') {
            f->in_string = true;
        } else if (c == '{' || c == '[') {
            f->depth++;
        } else if (c == '}' || c == ']') {
            f->depth--;
            done = f->depth == 0;
        }
    }
    dra_buf_add(&f->doc, s + start, i - start);
    *p = s + i;
    *n -= i;
    return done;
}
