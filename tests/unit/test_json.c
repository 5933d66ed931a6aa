/*
 * test_json.c - parsing (malformed input included), 64-bit numbers, access, printing, comparison, merging.
 */
#include <dragent/text.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct json *parse(const char *s)
{
    struct json *j = NULL;
    struct dra_err err = {0};

    if (json_parse(s, strlen(s), &j, &err) != 0) {
        fail_msg("%s: %s", s, err.msg);
    }
    return j;
}

static void print_is(const struct json *j, const char *want)
{
    char *text = json_print(j);

    assert_non_null(text);
    assert_string_equal(text, want);
    free(text);
}

static void good_documents(void **state)
{
    static const struct {
        const char *text;
        const char *compact;
        const char *spaced;
    } rows[] = {
        {"null", "null", "null"},
        {" [ ] ", "[]", "[]"},
        {"{}", "{}", "{}"},
        {"7587848094190927361", "7587848094190927361", "7587848094190927361"},
        {"-0.50e+3\n", "-0.50e+3", "-0.50e+3"},
        {"{\"a\":[1,\"2\",true,null],\"b\":{\"c\":false}}",
         "{\"a\":[1,\"2\",true,null],\"b\":{\"c\":false}}",
         "{\"a\": [1, \"2\", true, null], \"b\": {\"c\": false}}"},
        {"{\"a\":1,\"b\":2,\"a\":3}", "{\"a\":3,\"b\":2}", "{\"a\": 3, \"b\": 2}"},
        {"\"\xC3\xA9\xF0\x9F\x98\x80\\u00e9\\ud83d\\ude00\"", "\"\xC3\xA9\xF0\x9F\x98\x80\xC3\xA9\xF0\x9F\x98\x80\"",
         "\"\\u00e9\\ud83d\\ude00\\u00e9\\ud83d\\ude00\""},
        {"\"12,34 -5 \\\"6\\\" [7]\"", "\"12,34 -5 \\\"6\\\" [7]\"", "\"12,34 -5 \\\"6\\\" [7]\""},
        {"[\"9\",{\"8\":7},\"\\\\\",6]", "[\"9\",{\"8\":7},\"\\\\\",6]", "[\"9\", {\"8\": 7}, \"\\\\\", 6]"},
        {"\xEF\xBB\xBF[1]", "[1]", "[1]"},
        {"\"\\u001f\\t\x7F\"", "\"\\u001f\\t\x7F\"", "\"\\u001f\\t\x7F\""},
    };

    (void)state;
    for (size_t i = 0; i < DRA_ARRAY_LEN(rows); i++) {
        DRA_CLEANUP(json_freep) struct json *j = parse(rows[i].text);
        char *text = json_print_spaced(j);

        print_is(j, rows[i].compact);
        assert_string_equal(text, rows[i].spaced);
        free(text);
    }
}

static void bad_documents(void **state)
{
    static const char *const rows[] = {
        "",          " ",           "{",          "[1,",         "[1 2]",        "{\"a\"}",
        "{\"a\":}",  "{a:1}",       "[1]x",       "nul",         "nulll",        "tru",
        "01",        "+1",          "1.",         ".5",          "1e",           "1e+",
        "-",         "--1",         "1-2",        "[01]",        "0x10",         "NaN",
        "Infinity",  "\"a",         "\"\\",       "\"\\x\"",     "\"\\u12\"",    "\"\\u12G4\"",
        "\"\\uZZZZ\"", "\"\\u0000\"", "\"\\ud800\"", "\"a\nb\"",  "\"a\x01\"",    "\"\xFF\"",
        "\"\xC0\x80\"", "\"\xED\xA0\x80\"", "\"\xF4\x90\x80\x80\"", "\"\xC3\"", "[1]\x01",      "\x01[1]",
        ("[1,\x02" "2]"), "'a'",      "[1,]",       "{\"a\":1,}",  "// x\n1",      "[1][2]",
    };

    (void)state;
    for (size_t i = 0; i < DRA_ARRAY_LEN(rows); i++) {
        struct json *j = NULL;
        struct dra_err err = {0};
        /* an exact copy on the heap, so that the sanitizer sees a read beyond the end */
        size_t len = strlen(rows[i]);
        char *copy = malloc(len + (len == 0 ? 1 : 0));

        assert_non_null(copy);
        memcpy(copy, rows[i], len);
        if (json_parse(copy, len, &j, &err) != DRA_EPARSE) {
            fail_msg("row %zu \"%s\" was taken", i, rows[i]);
        }
        assert_null(j);
        assert_true(err.msg[0] != '\0');
        free(copy);
    }
}

static void every_prefix_is_refused(void **state)
{
    static const char text[] = "{\"a\":[1,-2.5e3,\"x\\u00e9\\n\",{\"b\":null}],\"c\":true,\"d\":false}";

    (void)state;
    for (size_t len = 0; len < sizeof text - 1; len++) {
        struct json *j = NULL;
        char *copy = malloc(len + 1);

        assert_non_null(copy);
        memcpy(copy, text, len);
        copy[len] = 'X';
        assert_int_equal(json_parse(copy, len, &j, NULL), DRA_EPARSE);
        free(copy);
    }
}

static void limits(void **state)
{
    struct dra_buf b;
    struct json *j = NULL;

    (void)state;
    dra_buf_init(&b, 1000000);
    for (int depth = 0; depth < 100; depth++) {
        dra_buf_adds(&b, "[");
    }
    for (int depth = 0; depth < 100; depth++) {
        dra_buf_adds(&b, "]");
    }
    assert_int_equal(json_parse(b.p, b.len, &j, NULL), 0);
    json_freep(&j);
    dra_buf_reset(&b);
    for (int depth = 0; depth < 101; depth++) {
        dra_buf_adds(&b, "[");
    }
    for (int depth = 0; depth < 101; depth++) {
        dra_buf_adds(&b, "]");
    }
    assert_int_equal(json_parse(b.p, b.len, &j, NULL), DRA_EPARSE);
    dra_buf_reset(&b);
    dra_buf_adds(&b, "{");
    for (int i = 0; i < 5000; i++) {
        dra_buf_addf(&b, "%s\"%d\":1", i > 0 ? "," : "", i);
    }
    dra_buf_adds(&b, "}");
    assert_int_equal(json_parse(b.p, b.len, &j, NULL), DRA_EPARSE);
    dra_buf_deinit(&b);
}

static void first_of_a_stream(void **state)
{
    static const char text[] = "{\"result\":{\"a\":1}}\n{\"result\":2}garbage";
    struct json *j = NULL;
    size_t used = 0;

    (void)state;
    assert_int_equal(json_parse_first(text, sizeof text - 1, &j, &used, NULL), 0);
    assert_int_equal(used, 18);
    print_is(j, "{\"result\":{\"a\":1}}");
    json_freep(&j);
    assert_int_equal(json_parse_first(text + used, sizeof text - 1 - used, &j, &used, NULL), 0);
    assert_int_equal(used, 13);
    print_is(j, "{\"result\":2}");
    json_freep(&j);
}

static void access_by_path(void **state)
{
    DRA_CLEANUP(json_freep)
    struct json *j = parse("{\"header\":{\"revision\":\"7587848094190927361\",\"n\":null},\"kvs\":[{\"v\":12},{\"v\":\"x\"}],"
                           "\"a.b\":1,\"f\":1e3,\"g\":1.5,\"h\":5.0,\"big\":9223372036854775808,\"huge\":1e300,\"t\":true}");
    struct dra_err err = {0};
    const char *s = "kept";
    int64_t v = -1;
    bool b = false;

    (void)state;
    assert_int_equal(json_i64(j, "header.revision", &v, &err), 0);
    assert_true(v == INT64_C(7587848094190927361));
    assert_int_equal(json_i64(j, "kvs[0].v", &v, &err), 0);
    assert_int_equal(v, 12);
    assert_int_equal(json_i64(j, "f", &v, &err), 0);
    assert_int_equal(v, 1000);
    assert_int_equal(json_i64(j, "h", &v, &err), 0);
    assert_int_equal(v, 5);
    assert_int_equal(json_i64(j, "g", &v, &err), DRA_ETYPE);
    assert_int_equal(json_i64(j, "big", &v, &err), DRA_ERANGE);
    assert_int_equal(json_i64(j, "huge", &v, &err), DRA_ERANGE);
    assert_int_equal(v, 5);
    assert_int_equal(json_i64(j, "header.n", &v, &err), DRA_ETYPE);
    assert_string_equal(err.msg, "header.n: want an integer, got null");
    assert_int_equal(json_i64(j, "kvs[1].v", &v, &err), DRA_ETYPE);
    assert_string_equal(err.msg, "kvs[1].v: want an integer, got \"x\"");
    assert_int_equal(json_i64(j, "kvs[2].v", &v, &err), DRA_ENOTFOUND);
    assert_string_equal(err.msg, "kvs[2].v: want an integer, got nothing");
    assert_int_equal(json_str(j, "kvs", &s, &err), DRA_ETYPE);
    assert_string_equal(err.msg, "kvs: want a string, got a list");
    assert_int_equal(json_bool(j, "t", &b, &err), 0);
    assert_true(b);
    assert_int_equal(json_bool(j, "f", &b, &err), DRA_ETYPE);
    assert_int_equal(json_opt_i64(j, "nope.x", &v, &err), 0);
    assert_int_equal(json_opt_i64(j, "header.n", &v, &err), 0);
    assert_int_equal(v, 5);
    assert_int_equal(json_opt_str(j, "nope", &s, &err), 0);
    assert_string_equal(s, "kept");
    assert_int_equal(json_opt_str(j, "t", &s, &err), DRA_ETYPE);
    assert_int_equal(json_opt_bool(j, "kvs[1].v", &b, &err), DRA_ETYPE);
    assert_null(json_find(j, "a.b"));
    assert_non_null(json_get(j, "a.b"));
    assert_null(json_find(j, "kvs[x]"));
    assert_null(json_find(j, "kvs[0"));
    assert_null(json_find(j, "header[0]"));
    assert_ptr_equal(json_find(j, ""), j);
    assert_null(json_find(NULL, "a"));
    assert_int_equal(json_size(json_get(j, "kvs")), 2);
    assert_string_equal(json_key_at(j, 1), "kvs");
    assert_null(json_key_at(j, 99));
    assert_int_equal(json_type_of(NULL), JSON_NONE);
}

static void building(void **state)
{
    DRA_CLEANUP(json_freep) struct json *j = json_new_object();
    struct json *list = json_new_array();
    DRA_CLEANUP(json_freep) struct json *copy = NULL;
    struct json *not_object;
    char text[32];

    (void)state;
    assert_int_equal(json_set(j, "a", json_new_i64(INT64_MIN)), 0);
    assert_int_equal(json_set(j, "b", json_new_str("x")), 0);
    assert_int_equal(json_set(j, "c", list), 0);
    assert_int_equal(json_append(list, json_new_double(5.0)), 0);
    assert_int_equal(json_append(list, json_new_double(0.1)), 0);
    assert_int_equal(json_append(list, json_new_double(-2.5)), 0);
    assert_int_equal(json_append(list, json_new_raw("18446744073709551615")), 0);
    assert_int_equal(json_append(list, json_new_raw("nope")), DRA_ENOMEM);
    assert_int_equal(json_append(list, json_clone(json_get(j, "b"))), 0);
    assert_null(json_name(json_at(list, 4)));
    assert_int_equal(json_set(j, "a", json_new_null()), 0);
    print_is(j, "{\"a\":null,\"b\":\"x\",\"c\":[5,0.1,-2.5,18446744073709551615,\"x\"]}");
    copy = json_clone(j);
    json_del(j, "c");
    json_del(j, "zzz");
    assert_int_equal(json_set(j, "d", json_new_bool(true)), 0);
    print_is(j, "{\"a\":null,\"b\":\"x\",\"d\":true}");
    json_del(j, "a");
    json_del(j, "d");
    assert_int_equal(json_set(j, "e", json_new_bool(false)), 0);
    print_is(j, "{\"b\":\"x\",\"e\":false}");
    print_is(copy, "{\"a\":null,\"b\":\"x\",\"c\":[5,0.1,-2.5,18446744073709551615,\"x\"]}");
    assert_int_equal(json_set(j, "x", NULL), DRA_ENOMEM);
    not_object = json_new_array();
    assert_int_equal(json_set(not_object, "x", json_new_null()), DRA_ETYPE);
    json_free(not_object);
    assert_true(json_scalar_text(json_get(j, "e"), text, sizeof text));
    assert_string_equal(text, "false");
    assert_false(json_scalar_text(j, text, sizeof text));
    assert_false(json_scalar_text(json_get(copy, "b"), text, 1));
}

static void equal_by_text(void **state)
{
    static const struct {
        const char *a, *b;
        bool same;
    } rows[] = {
        {"2", "\"2\"", true},
        {"{\"a\":1,\"b\":{\"c\":2}}", "{\"b\":{\"c\":\"2\"},\"a\":1}", true},
        {"{\"a\":1}", "{\"a\":1,\"b\":null}", false},
        {"{\"a\":1}", "{\"b\":1}", false},
        {"[1,2]", "[1,2]", true},
        {"[1,2]", "[1,\"2\"]", false}, /* Python: str([1, '2']) */
        {"[1,2]", "[2,1]", false},
        {"[1]", "[1,1]", false},
        {"true", "\"True\"", true},
        {"true", "\"true\"", false},
        {"null", "\"None\"", true},
        {"1.50", "1.5", true},
        {"1", "1.0", false},
        {"\"a\"", "\"A\"", false},
        {"{}", "[]", false},
        {"{}", "\"{}\"", false},
        {"9007199254740993", "9007199254740992", false},
    };

    (void)state;
    for (size_t i = 0; i < DRA_ARRAY_LEN(rows); i++) {
        DRA_CLEANUP(json_freep) struct json *a = parse(rows[i].a);
        DRA_CLEANUP(json_freep) struct json *b = parse(rows[i].b);

        if (json_equal_text(a, b) != rows[i].same || json_equal_text(b, a) != rows[i].same) {
            fail_msg("row %s / %s", rows[i].a, rows[i].b);
        }
    }
    assert_true(json_equal_text(NULL, NULL));
}

/* REST-72 */
static void merging(void **state)
{
    static const struct {
        const char *target, *patch, *result;
        bool changed;
    } rows[] = {
        {"{\"a\":1}", "{}", "{\"a\":1}", false},
        {"{\"a\":1}", "{\"a\":null}", "{}", true},
        {"{\"a\":1}", "{\"b\":null}", "{\"a\":1}", false},
        {"{\"a\":100}", "{\"a\":\"100\"}", "{\"a\":100}", false},
        {"{\"a\":100}", "{\"a\":101}", "{\"a\":101}", true},
        {"{\"a\":{\"b\":1,\"c\":2}}", "{\"a\":{\"b\":null,\"d\":3}}", "{\"a\":{\"c\":2,\"d\":3}}", true},
        {"{\"a\":1}", "{\"a\":{\"b\":null}}", "{\"a\":{\"b\":null}}", true},
        {"{\"a\":{\"b\":1}}", "{\"a\":5}", "{\"a\":5}", true},
        {"{}", "{\"s\":{\"x\":null}}", "{\"s\":{\"x\":null}}", true},
        {"{\"l\":[1,2]}", "{\"l\":[2]}", "{\"l\":[2]}", true},
        {"{\"l\":[1,2]}", "{\"l\":[1,2]}", "{\"l\":[1,2]}", false},
        {"{\"a\":1,\"z\":2}", "{\"a\":3}", "{\"a\":3,\"z\":2}", true},
        {"null", "{\"a\":1}", "{\"a\":1}", true},
    };

    (void)state;
    for (size_t i = 0; i < DRA_ARRAY_LEN(rows); i++) {
        DRA_CLEANUP(json_freep) struct json *target = parse(rows[i].target);
        DRA_CLEANUP(json_freep) struct json *patch = parse(rows[i].patch);
        bool changed = !rows[i].changed;

        assert_int_equal(json_merge_patch(&target, patch, &changed), 0);
        print_is(target, rows[i].result);
        if (changed != rows[i].changed) {
            fail_msg("row %s + %s: changed", rows[i].target, rows[i].patch);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(good_documents),    cmocka_unit_test(bad_documents),
        cmocka_unit_test(every_prefix_is_refused), cmocka_unit_test(limits),
        cmocka_unit_test(first_of_a_stream), cmocka_unit_test(access_by_path),
        cmocka_unit_test(building),          cmocka_unit_test(equal_by_text),
        cmocka_unit_test(merging),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
