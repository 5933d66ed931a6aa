/*
 * test_base.c - errors, strings, numbers, LSNs, buffers, base64.
 */
#include <dragent/base.h>
#include <dragent/text.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void err_messages(void **state)
{
    struct dra_err err = {0};
    char longer[1000];

    (void)state;
    assert_int_equal(dra_err_set(&err, DRA_ETYPE, "want %s", "a list"), DRA_ETYPE);
    assert_string_equal(err.msg, "want a list");
    assert_int_equal(dra_err_wrap(&err, "key %d", 7), DRA_ETYPE);
    assert_string_equal(err.msg, "key 7: want a list");
    assert_int_equal(dra_err_sys(&err, 2, "open %s", "x"), DRA_ESYS);
    assert_string_equal(err.msg, "open x: No such file or directory");
    assert_int_equal(err.sys, 2);
    assert_int_equal(dra_err_set(NULL, DRA_EIO, "nobody asked"), DRA_EIO);
    assert_true(dra_err_wrap(NULL, "x") < 0);
    memset(longer, 'x', sizeof longer - 1);
    longer[sizeof longer - 1] = '\0';
    (void)dra_err_set(&err, DRA_EIO, "%s", longer);
    assert_int_equal(strlen(err.msg), DRA_ERR_MSG_MAX - 1);
    assert_string_equal(err.msg + DRA_ERR_MSG_MAX - 4, "...");
    (void)dra_err_wrap(&err, "%s", longer);
    assert_int_equal(strlen(err.msg), DRA_ERR_MSG_MAX - 1);
    assert_string_equal(dra_code_to_str(DRA_ETIMEDOUT), "deadline passed");
    assert_string_equal(dra_code_to_str(-999), "unknown error");
}

static int never_hits;

static void on_never(const char *expr, const char *file, int line)
{
    (void)file;
    assert_string_equal(expr, "1 == 1");
    assert_true(line > 0);
    never_hits++;
}

static void never(void **state)
{
    (void)state;
    dra_never_hook = on_never;
    assert_true(DRA_NEVER(1 == 1));
    assert_false(DRA_NEVER(1 == 2));
    assert_int_equal(never_hits, 1);
    dra_never_hook = NULL;
}

static void strings(void **state)
{
    char b[8];

    (void)state;
    assert_int_equal(dra_str_copy(b, sizeof b, "1234567"), 0);
    assert_string_equal(b, "1234567");
    assert_int_equal(dra_str_copy(b, sizeof b, "12345678"), DRA_ETOOLONG);
    assert_string_equal(b, "");
    assert_int_equal(dra_str_copy_n(b, sizeof b, "abcdef", 3), 0);
    assert_string_equal(b, "abc");
    assert_int_equal(dra_str_copy_n(b, 0, "a", 1), DRA_ETOOLONG);
    dra_str_clip(b, sizeof b, "1234567");
    assert_string_equal(b, "1234567");
    dra_str_clip(b, sizeof b, "12345678");
    assert_string_equal(b, "1234...");
    dra_str_clip(b, sizeof b, "123\xC3\xA9" "567"); /* never half of a character */
    assert_string_equal(b, "123...");
    assert_int_equal(dra_str_printf(b, sizeof b, "%d-%s", 12, "abc"), 0);
    assert_string_equal(b, "12-abc");
    assert_int_equal(dra_str_printf(b, sizeof b, "%s", "12345678"), DRA_ETOOLONG);
    assert_string_equal(b, "");
    assert_true(dra_str_eq(NULL, NULL));
    assert_false(dra_str_eq(NULL, ""));
    assert_true(dra_str_eq_nocase("PgBouncer", "pgbOUNCER"));
    assert_false(dra_str_eq_nocase("abc", "abcd"));
    assert_false(dra_str_eq_nocase("[", "{"));
    assert_true(dra_str_starts("abc", ""));
    assert_true(dra_str_starts("abc", "ab"));
    assert_false(dra_str_starts("a", "ab"));
    assert_string_equal(dra_tri_to_str(DRA_YES), "yes");
    assert_string_equal(dra_tri_to_str(DRA_UNKNOWN), "unknown");
}

static void integers(void **state)
{
    static const struct {
        const char *text;
        int rc;
        int64_t value;
    } rows[] = {
        {"0", 0, 0},
        {"-0", 0, 0},
        {"007", 0, 7},
        {"-12", 0, -12},
        {"9223372036854775807", 0, INT64_MAX},
        {"9223372036854775808", DRA_ERANGE, 0},
        {"-9223372036854775808", 0, INT64_MIN},
        {"-9223372036854775809", DRA_ERANGE, 0},
        {"99999999999999999999999999", DRA_ERANGE, 0},
        {"", DRA_EPARSE, 0},
        {"-", DRA_EPARSE, 0},
        {"+1", DRA_EPARSE, 0},
        {" 1", DRA_EPARSE, 0},
        {"1 ", DRA_EPARSE, 0},
        {"1.0", DRA_EPARSE, 0},
        {"0x1", DRA_EPARSE, 0},
        {"99999999999999999999999999x", DRA_EPARSE, 0},
    };
    int64_t v = 0;
    uint64_t u = 0;

    (void)state;
    for (size_t i = 0; i < DRA_ARRAY_LEN(rows); i++) {
        v = 0;
        if (dra_parse_i64(rows[i].text, strlen(rows[i].text), INT64_MIN, INT64_MAX, &v) != rows[i].rc ||
            v != rows[i].value) {
            fail_msg("row \"%s\": got %lld", rows[i].text, (long long)v);
        }
    }
    assert_int_equal(dra_parse_i64("11", 2, 0, 10, &v), DRA_ERANGE);
    assert_int_equal(dra_parse_i64("12", 1, 0, 10, &v), 0);
    assert_int_equal(v, 1);
    assert_int_equal(dra_parse_u64("18446744073709551615", 20, &u), 0);
    assert_true(u == UINT64_MAX);
    assert_int_equal(dra_parse_u64("18446744073709551616", 20, &u), DRA_ERANGE);
}

static void lsns(void **state)
{
    static const struct {
        const char *text;
        int rc;
        uint64_t value;
        const char *printed;
    } rows[] = {
        {"0/0", 0, 0, "0/0"},
        {"0/3000148", 0, 0x3000148, "0/3000148"},
        {"1A/b0", 0, UINT64_C(0x1A000000B0), "1A/B0"},
        {"FFFFFFFF/FFFFFFFF", 0, UINT64_MAX, "FFFFFFFF/FFFFFFFF"},
        {"100000000/0", DRA_EPARSE, 0, ""},
        {"", DRA_EPARSE, 0, ""},
        {"/", DRA_EPARSE, 0, ""},
        {"1/", DRA_EPARSE, 0, ""},
        {"/1", DRA_EPARSE, 0, ""},
        {"1/1 ", DRA_EPARSE, 0, ""},
        {"1/1/1", DRA_EPARSE, 0, ""},
        {"-1/1", DRA_EPARSE, 0, ""},
        {"g/1", DRA_EPARSE, 0, ""},
    };

    (void)state;
    for (size_t i = 0; i < DRA_ARRAY_LEN(rows); i++) {
        uint64_t v = 0;
        char text[DRA_LSN_STR_MAX];

        if (dra_lsn_parse(rows[i].text, &v) != rows[i].rc || v != rows[i].value) {
            fail_msg("row \"%s\"", rows[i].text);
        }
        if (rows[i].rc == 0) {
            dra_lsn_format(v, text);
            assert_string_equal(text, rows[i].printed);
        }
    }
    assert_int_equal(dra_lsn_parse(NULL, &(uint64_t){0}), DRA_EPARSE);
}

static void random_numbers(void **state)
{
    uint64_t seed = 1234567;

    (void)state; /* reference values of splitmix64 */
    assert_true(dra_rand_next(&seed) == UINT64_C(6457827717110365317));
    assert_true(dra_rand_next(&seed) == UINT64_C(3203168211198807973));
}

static void buffers(void **state)
{
    struct dra_buf b;
    char *taken;

    (void)state;
    dra_buf_init(&b, 10);
    assert_string_equal(dra_buf_str(&b), "");
    dra_buf_adds(&b, "12345");
    dra_buf_addf(&b, "%d", 67890);
    assert_string_equal(dra_buf_str(&b), "1234567890");
    assert_false(b.failed);
    dra_buf_adds(&b, "x");
    assert_true(b.failed);
    assert_string_equal(dra_buf_str(&b), "1234567890");
    assert_null(dra_buf_take(&b));
    dra_buf_reset(&b);
    dra_buf_addf(&b, "%s", "a string that is too long");
    assert_true(b.failed);
    dra_buf_reset(&b);
    dra_buf_add(&b, "a\0b", 3);
    assert_int_equal(b.len, 3);
    taken = dra_buf_take(&b);
    assert_memory_equal(taken, "a\0b", 4);
    free(taken);
    taken = dra_buf_take(&b); /* empty is not a failure */
    assert_string_equal(taken, "");
    free(taken);
    dra_buf_deinit(&b);

    dra_buf_init(&b, 1000);
    dra_buf_add_json_str(&b, "a\"b\\c\n\x01\xC3\xA9\xFF/");
    assert_string_equal(dra_buf_str(&b), "\"a\\\"b\\\\c\\n\\u0001\xC3\xA9\xEF\xBF\xBD/\"");
    dra_buf_deinit(&b);
}

static void base64(void **state)
{
    static const struct {
        const char *plain;
        const char *coded;
    } rows[] = {
        {"", ""},         {"f", "Zg=="},         {"fo", "Zm8="},         {"foo", "Zm9v"},
        {"foob", "Zm9vYg=="}, {"fooba", "Zm9vYmE="}, {"\xFF\xFE\xFD", "//79"},
    };
    static const char *const bad[] = {"Z", "Zg", "Zg=", "Z===", "====", "Zh==", "Zm9=", "Zg==Zg==",
                                      "Zm9v\n", "Zm-v", "Zm 9"};

    (void)state;
    for (size_t i = 0; i < DRA_ARRAY_LEN(rows); i++) {
        struct dra_buf b;

        dra_buf_init(&b, 100);
        dra_buf_add_b64(&b, rows[i].plain, strlen(rows[i].plain));
        assert_string_equal(dra_buf_str(&b), rows[i].coded);
        dra_buf_reset(&b);
        assert_int_equal(dra_b64_decode(rows[i].coded, strlen(rows[i].coded), &b), 0);
        assert_string_equal(dra_buf_str(&b), rows[i].plain);
        dra_buf_deinit(&b);
    }
    for (size_t i = 0; i < DRA_ARRAY_LEN(bad); i++) {
        struct dra_buf b;

        dra_buf_init(&b, 100);
        if (dra_b64_decode(bad[i], strlen(bad[i]), &b) != DRA_EPARSE) {
            fail_msg("row \"%s\"", bad[i]);
        }
        dra_buf_deinit(&b);
    }
}

static void instants(void **state)
{
    struct dra_instant t = {.ns = 5000000};

    (void)state;
    assert_int_equal(dra_after(t, dra_ms(5)).ns, 10000000);
    assert_int_equal(dra_earlier(t, (struct dra_instant){0}).ns, 5000000);
    assert_int_equal(dra_earlier((struct dra_instant){0}, t).ns, 5000000);
    assert_int_equal(dra_later(t, (struct dra_instant){0}).ns, 5000000);
    assert_true(dra_reached(t, t));
    assert_int_equal(dra_span_ms(dra_since(dra_after(t, dra_ms(7)), t)), 7);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(err_messages), cmocka_unit_test(never),    cmocka_unit_test(strings),
        cmocka_unit_test(integers),     cmocka_unit_test(lsns),     cmocka_unit_test(random_numbers),
        cmocka_unit_test(buffers),      cmocka_unit_test(base64),   cmocka_unit_test(instants),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
