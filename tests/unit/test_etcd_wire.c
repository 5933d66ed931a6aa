/* test_etcd_wire.c - bodies of etcd's gateway: requests to the letter, answers and errors in every
 * shape (DCS-65..71). */
#include "consensus/etcd/etcd.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct json *js(const char *text)
{
    struct json *j = NULL;
    size_t used;
    struct dra_err err = {0};
    if (json_parse_first(text, strlen(text), &j, &used, &err) != DRA_OK) {
        fail_msg("%s: %s", text, err.msg);
    }
    return j;
}

static void errors(void **unused)
{
    (void)unused;
    static const struct {
        int status;
        const char *body;
        enum etcd_class class;
        int code;
    } rows[] = {
        {404,
         "{\"error\":\"etcdserver: requested lease not found\",\"message\":\"etcdserver: requested "
         "lease not found\",\"code\":5}",
         ETCD_LEASE, 5},
        {404, "{\"message\":\"etcdserver: requested lease not found\",\"code\":5}", ETCD_LEASE,
         5}, /* 3.6 */
        {503,
         "{\"error\":{\"grpc_code\":14,\"http_code\":503,\"message\":\"etcdserver: no "
         "leader\",\"http_status\":\"x\"}}",
         ETCD_UNAVAILABLE, 14},
        {200, "{\"error\":{\"code\":14,\"message\":\"etcdserver: no leader\"}}", ETCD_UNAVAILABLE,
         14},
        {503, "{\"Error\":\"etcdserver: request timed out\",\"Code\":14}", ETCD_UNAVAILABLE, 14},
        {500,
         "{\"error\":\"not a primary lessor\",\"message\":\"not a primary lessor\",\"code\":2}",
         ETCD_UNAVAILABLE, 2},
        {504, "{\"error\":\"context deadline exceeded\",\"code\":4}", ETCD_TRANSIENT, 4},
        {412, "{\"error\":\"etcdserver: lease already exists\",\"code\":9}", ETCD_TRANSIENT, 9},
        {412, "{\"error\":\"etcdserver: authentication is not enabled\",\"code\":9}", ETCD_AUTH_OFF,
         9},
        {400,
         "{\"error\":\"etcdserver: authentication failed, invalid user ID or "
         "password\",\"code\":3}",
         ETCD_AUTH_FAILED, 3},
        {400, "{\"error\":\"etcdserver: user name is empty\",\"code\":3}", ETCD_AUTH, 3},
        {400, "{\"error\":\"etcdserver: revision of auth store is old\",\"code\":3}", ETCD_AUTH, 3},
        {401, "{\"error\":\"etcdserver: invalid auth token\",\"code\":16}", ETCD_AUTH, 16},
        {403, "{\"error\":\"etcdserver: permission denied\",\"code\":7}", ETCD_AUTH, 7},
        {400, "{\"error\":\"etcdserver: mvcc: required revision has been compacted\",\"code\":11}",
         ETCD_DEFINITE, 11},
        {400, "{\"error\":\"etcdserver: duplicate key given in txn request\",\"code\":3}",
         ETCD_DEFINITE, 3},
        {404, "404 page not found", ETCD_NOT_V3, 2},
        {502, "<html>bad gateway</html>", ETCD_UNAVAILABLE, 2},
        {500, "oops", ETCD_DEFINITE, 2},
        {500, "{}", ETCD_DEFINITE, 2},
        {500, "", ETCD_DEFINITE, 2},
        {500, "[1]", ETCD_DEFINITE, 2},
    };
    for (size_t i = 0; i < DRA_ARRAY_LEN(rows); i++) {
        struct etcd_error x;
        etcd_wire_error(rows[i].status, rows[i].body, strlen(rows[i].body), &x);
        if (x.class != rows[i].class || x.code != rows[i].code || x.text[0] == '\0') {
            fail_msg("row %zu: %s: got class %d code %d \"%s\"", i, rows[i].body, (int)x.class,
                     x.code, x.text);
        }
    }
    struct json *ok = js("{\"result\":{\"header\":{}}}");
    struct etcd_error x;
    assert_false(etcd_wire_stream_error(ok, &x));
    json_free(ok);
}

static void expect_body(struct dra_buf *b, const char *want)
{
    assert_false(b->failed);
    assert_string_equal(dra_buf_str(b), want);
    dra_buf_deinit(b);
    dra_buf_init(b, ETCD_BODY_MAX);
}

static void requests(void **unused)
{
    (void)unused;
    struct dra_buf b;
    char end[64];
    dra_buf_init(&b, ETCD_BODY_MAX);
    assert_int_equal(etcd_wire_range_end("/service/demo/", end, sizeof end), DRA_OK);
    assert_string_equal(end, "/service/demo0"); /* DCS-01 */
    assert_int_equal(etcd_wire_range_end("a\xFF\xFF", end, sizeof end), DRA_OK);
    assert_string_equal(end, "b");
    assert_int_equal(etcd_wire_range_end("\xFF", end, sizeof end), DRA_EINVAL);

    struct dcs_txn create = {.n_cmps = 1,
                             .cmps = {{DCS_CMP_CREATE_REV, "a", 0, NULL}},
                             .n_success = 1,
                             .success = {{DCS_OP_PUT, "a", "v", INT64_C(8002511686604488713)}}};
    etcd_wire_txn(&b, "/", &create); /* DCS-67 */
    expect_body(&b, "{\"compare\":[{\"key\":\"L2E=\",\"target\":\"CREATE\",\"create_revision\":"
                    "\"0\"}],\"success\":[{\"request_put\":"
                    "{\"key\":\"L2E=\",\"value\":\"dg==\",\"lease\":\"8002511686604488713\"}}]}");
    struct dcs_txn all = {.n_cmps = 3,
                          .cmps = {{DCS_CMP_MOD_REV, "a", 17, NULL},
                                   {DCS_CMP_VALUE, "a", 0, "v"},
                                   {DCS_CMP_LEASE, "a", 5, NULL}},
                          .n_success = 1,
                          .success = {{DCS_OP_DELETE, "a", NULL, 0}},
                          .n_failure = 1,
                          .failure = {{DCS_OP_GET, "a", NULL, 0}}};
    etcd_wire_txn(&b, "/", &all);
    expect_body(&b, "{\"compare\":[{\"key\":\"L2E=\",\"target\":\"MOD\",\"mod_revision\":\"17\"},"
                    "{\"key\":\"L2E=\",\"target\":\"VALUE\",\"value\":\"dg==\"},{\"key\":\"L2E=\","
                    "\"target\":\"LEASE\",\"lease\":\"5\"}],"
                    "\"success\":[{\"request_delete_range\":{\"key\":\"L2E=\"}}],\"failure\":[{"
                    "\"request_range\":{\"key\":\"L2E=\"}}]}");
    struct dcs_txn check = {.n_cmps = 1, .cmps = {{DCS_CMP_MOD_REV, "a", 17, NULL}}};
    etcd_wire_txn(&b, "/", &check); /* carries a read, else etcd answers without a quorum */
    expect_body(&b, "{\"compare\":[{\"key\":\"L2E=\",\"target\":\"MOD\",\"mod_revision\":\"17\"}],"
                    "\"success\":[{\"request_range\":{\"key\":\"L2E=\",\"count_only\":true}}]}");
    etcd_wire_range(&b, "/a/", "/a0");
    expect_body(&b, "{\"key\":\"L2Ev\",\"range_end\":\"L2Ew\"}");
    etcd_wire_watch(&b, "/a/", "/a0", 12);
    expect_body(&b, "{\"create_request\":{\"key\":\"L2Ev\",\"range_end\":\"L2Ew\",\"start_"
                    "revision\":\"12\",\"progress_notify\":true}}");
    etcd_wire_grant(&b, 30);
    expect_body(&b, "{\"TTL\":\"30\"}");
    etcd_wire_keepalive(&b, INT64_C(7587848094190927361));
    expect_body(&b, "{\"ID\":\"7587848094190927361\"}");
    etcd_wire_authenticate(&b, "us\"er", "p\\w");
    expect_body(&b, "{\"name\":\"us\\\"er\",\"password\":\"p\\\\w\"}");
    struct dcs_txn nonsense = {.n_cmps = 1, .cmps = {{DCS_CMP_NONE, "a", 0, NULL}}};
    etcd_wire_txn(&b, "/", &nonsense);
    assert_true(b.failed);
    dra_buf_deinit(&b);
}

static void answers(void **unused)
{
    (void)unused;
    struct dcs_answer a = {0};
    struct etcd_header h;
    struct json *j = js("{\"result\":{\"header\":{\"cluster_id\":\"14841639068965178418\",\"member_"
                        "id\":\"1\",\"revision\":\"7\","
                        "\"raft_term\":\"3\"},\"ID\":\"7587848094190927361\",\"TTL\":\"30\"}}\n");
    assert_true(etcd_wire_read_keepalive(j, &a));
    assert_true(a.lease == INT64_C(7587848094190927361)); /* no double in between */
    assert_int_equal(a.ttl_s, 30);
    etcd_wire_header(json_find(j, "result.header"), &h);
    assert_true(h.cluster_id == UINT64_C(14841639068965178418));
    assert_int_equal(h.raft_term, 3);
    assert_int_equal(h.revision, 7);
    json_free(j);
    j = js("{\"result\":{\"header\":{},\"ID\":\"123\"}}\n{\"result\":{}}"); /* DCS-48: gone; first
                                                                               value only */
    assert_true(etcd_wire_read_keepalive(j, &a));
    assert_int_equal(a.ttl_s, 0);
    json_free(j);
    j = js("{}");
    assert_false(etcd_wire_read_keepalive(j, &a));
    assert_false(etcd_wire_read_grant(j, &a));
    assert_false(etcd_wire_read_txn(j, &a));
    json_free(j);
    j = js("{\"header\":{},\"ID\":\"5\",\"TTL\":\"2\"}");
    assert_true(etcd_wire_read_grant(j, &a));
    assert_int_equal(a.lease, 5);
    json_free(j);

    memset(&a, 0, sizeof a);
    j = js("{\"header\":{\"revision\":\"2\"}}"); /* lost: no "succeeded" */
    assert_true(etcd_wire_read_txn(j, &a));
    assert_false(a.succeeded);
    json_free(j);
    j = js("{\"header\":{\"revision\":\"2\"},\"succeeded\":true,\"responses\":[{\"response_put\":{"
           "\"header\":{}}},"
           "{\"response_range\":{\"header\":{},\"kvs\":[{\"key\":\"L2E=\",\"mod_revision\":\"9\","
           "\"lease\":\"77\",\"value\":\"bm9kZTE=\"}],\"count\":\"1\"}}]}");
    assert_true(etcd_wire_read_txn(j, &a));
    assert_true(a.succeeded);
    assert_int_equal(a.got_mod_rev, 9);
    assert_int_equal(a.got_lease, 77);
    assert_string_equal(a.got_value, "node1");
    json_free(j);
}

static void keys(void **unused)
{
    (void)unused;
    struct etcd_kv kv;
    etcd_kv_init(&kv);
    static const struct {
        const char *json;
        bool ok;
        const char *key, *value;
    } rows[] = {
        {"{\"key\":\"L3Avbg==\",\"value\":\"dg==\",\"mod_revision\":\"3\"}", true, "n",
         "v"}, /* /p/n */
        {"{\"key\":\"L3Avbg==\"}", true, "n", ""},
        {"{\"key\":\"L3Av\"}", false, NULL, NULL},     /* the prefix alone */
        {"{\"key\":\"L3EvbQ==\"}", false, NULL, NULL}, /* /q/m */
        {"{\"key\":\"L3AvYQBi\"}", false, NULL, NULL}, /* NUL inside */
        {"{\"key\":\"!!\"}", false, NULL, NULL},
        {"{}", false, NULL, NULL},
        {"{\"key\":\"L3Avbg==\",\"value\":\"%\"}", false, NULL, NULL},
    };
    for (size_t i = 0; i < DRA_ARRAY_LEN(rows); i++) {
        struct json *j = js(rows[i].json);
        if (etcd_wire_read_kv(j, "/p/", &kv) != rows[i].ok) {
            fail_msg("row %zu", i);
        }
        if (rows[i].ok) {
            assert_string_equal(dra_buf_str(&kv.key), rows[i].key);
            assert_string_equal(dra_buf_str(&kv.value), rows[i].value);
        }
        json_free(j);
    }
    etcd_kv_deinit(&kv);
}

/* DCS-68: documents do not care about chunks. */
static void framing(void **unused)
{
    (void)unused;
    static const char stream[] = "{\"a\":\"}{\\\"\"}\n {\"b\":[1,{}]}\n\n{\"c\":{}}";
    static const char *const docs[] = {"{\"a\":\"}{\\\"\"}", "{\"b\":[1,{}]}", "{\"c\":{}}"};
    for (size_t chunk = 1; chunk <= sizeof stream; chunk++) {
        struct etcd_framer f;
        size_t seen = 0;
        etcd_framer_init(&f);
        for (size_t at = 0; at < sizeof stream - 1; at += chunk) {
            const char *p = stream + at;
            size_t n = sizeof stream - 1 - at < chunk ? sizeof stream - 1 - at : chunk;
            while (n > 0) {
                if (etcd_framer_next(&f, &p, &n)) {
                    assert_in_range(seen, 0, 2);
                    assert_string_equal(dra_buf_str(&f.doc), docs[seen++]);
                }
            }
        }
        assert_int_equal(seen, 3);
        etcd_framer_deinit(&f);
    }
}

static void versions(void **unused)
{
    (void)unused;
    assert_true(etcd_wire_version_is_v3("3.4.0"));
    assert_true(etcd_wire_version_is_v3("3.10.1"));
    assert_true(etcd_wire_version_is_v3("4.0.0"));
    assert_false(etcd_wire_version_is_v3("3.3.27"));
    assert_false(etcd_wire_version_is_v3("2.3.8"));
    assert_true(etcd_wire_version_is_v3("not_decided"));
    assert_true(etcd_wire_version_is_v3(NULL));
}

static void endpoint_lists(void **unused)
{
    (void)unused;
    static const struct {
        const char *section, *urls; /* urls NULL = refused */
        bool discover;
        const char *user, *password;
    } rows[] = {
        {"{\"host\":\"h\"}", "http://h:2379 ", true, "", ""},
        {"{\"host\":\"h:1\",\"protocol\":\"https\"}", "https://h:1 ", true, "", ""},
        {"{\"hosts\":\"a, b:2,[::1]:3,\"}", "http://a:2379 http://b:2 http://[::1]:3 ", true, "",
         ""},
        {"{\"hosts\":[\"a\",\"fd00::1\"],\"port\":\"99\"}", "http://a:99 http://[fd00::1]:99 ",
         true, "", ""},
        {"{\"hosts\":[\"a\"],\"host\":\"b\",\"use_proxies\":true}", "http://a:2379 ", false, "",
         ""},
        {"{\"url\":\"https://u%40x:p%3Aw@h:7/\",\"hosts\":\"a\"}", "https://h:7 ", true, "u@x",
         "p:w"},
        {"{\"proxy\":\"http://h:7\"}", "http://h:7 ", false, "", ""},
        {"{}", NULL, false, "", ""},
        {"{\"srv\":\"x\"}", NULL, false, "", ""},
        {"{\"hosts\":[]}", NULL, false, "", ""},
        {"{\"hosts\":[1]}", NULL, false, "", ""},
        {"{\"host\":\"h:x\"}", NULL, false, "", ""},
        {"{\"url\":\"ftp://h\"}", NULL, false, "", ""},
        {"{\"host\":\":1\"}", NULL, false, "", ""},
    };
    for (size_t i = 0; i < DRA_ARRAY_LEN(rows); i++) {
        struct json *j = js(rows[i].section);
        struct etcd_endpoints *e = calloc(1, sizeof *e);
        struct dra_err err = {0};
        char user[64], password[64], urls[256] = "";
        int rc = etcd_endpoints_parse(j, e, user, password, sizeof user, &err);
        if ((rc == DRA_OK) != (rows[i].urls != NULL)) {
            fail_msg("row %zu: %d %s", i, rc, err.msg);
        }
        if (rc != DRA_OK) {
            assert_true(err.msg[0] != '\0');
        }
        for (int k = 0; rc == DRA_OK && k < e->n; k++) {
            size_t n = strlen(urls);
            assert_int_equal(dra_str_printf(urls + n, sizeof urls - n, "%s ", e->url[k]), DRA_OK);
        }
        if (rc == DRA_OK) {
            assert_string_equal(urls, rows[i].urls);
            assert_int_equal(e->discover, rows[i].discover);
            assert_string_equal(user, rows[i].user);
            assert_string_equal(password, rows[i].password);
        }
        free(e);
        json_free(j);
    }
}

static void put(struct etcd_cache *c, const char *key, const char *value, int64_t rev)
{
    assert_true(etcd_cache_put(c, key, value, strlen(value), rev, rev, 0));
}

/* Own writes run ahead of the watch; older news never wins (DCS-58). */
static void cache_order(void **unused)
{
    (void)unused;
    struct etcd_cache c = {0};
    struct json *range = js("[{\"key\":\"L3Avbg==\",\"value\":\"MQ==\",\"mod_revision\":\"5\","
                            "\"create_revision\":\"5\"}]"); /* n=1 */
    assert_true(etcd_cache_replace(&c, range, "/p/", 6));
    assert_int_equal(c.n, 1);
    assert_int_equal(c.revision, 6);
    put(&c, "n", "own", 9);
    put(&c, "n", "old event", 8);
    assert_string_equal(c.kvs[0].value, "own");
    assert_true(etcd_cache_delete(&c, "n", 8)); /* a delete from before the own write */
    assert_int_equal(c.n, 1);
    assert_true(etcd_cache_replace(&c, range, "/p/", 7)); /* a range from before it, too */
    assert_string_equal(c.kvs[0].value, "own");
    assert_true(etcd_cache_delete(&c, "n", 12)); /* own delete */
    assert_int_equal(c.n, 0);
    put(&c, "n", "event from before", 10);
    assert_int_equal(c.n, 0);
    assert_true(etcd_cache_replace(&c, range, "/p/", 8));
    assert_int_equal(c.n, 0);
    put(&c, "n", "made anew", 13);
    assert_int_equal(c.n, 1);
    etcd_cache_advance(&c, 13);
    assert_int_equal(c.n_gone, 0); /* the watch is past it */
    put(&c, "a", "", 14);
    assert_string_equal(c.kvs[0].key, "a"); /* sorted */
    assert_int_equal(etcd_cache_created(&c, "a"), 14);
    assert_int_equal(etcd_cache_modified(&c, "zz"), 0);
    json_free(range);
    etcd_cache_clear(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(errors),         cmocka_unit_test(requests),    cmocka_unit_test(answers),
        cmocka_unit_test(keys),           cmocka_unit_test(framing),     cmocka_unit_test(versions),
        cmocka_unit_test(endpoint_lists), cmocka_unit_test(cache_order),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
