/*
 * test_runtime_requests.c - timestamps (REST-112) and the filters of POST /restart (REST-81).
 */
#include "runtime/requests.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void test_timestamps(void **state)
{
    static const struct {
        const char *text;
        enum rt_stamp rc;
        const char *iso;
        int64_t epoch;
    } rows[] = {
        {"2026-03-02T04:00:00+01:00", RT_STAMP_OK, "2026-03-02T04:00:00+01:00", 1772420400},
        {"2026-03-02 03:00Z", RT_STAMP_OK, "2026-03-02T03:00:00+00:00", 1772420400},
        {"2026-03-02 03:00:00.5+00", RT_STAMP_OK, "2026-03-02T03:00:00.500000+00:00", 1772420400},
        {"2026-03-01T22:00:00-0500", RT_STAMP_OK, "2026-03-01T22:00:00-05:00", 1772420400},
        {"2026-03-02T04:00:00", RT_STAMP_NO_ZONE, NULL, 0},
        {"2026-02-30T04:00:00Z", RT_STAMP_INVALID, NULL, 0},
        {"2026-03-02T25:00:00Z", RT_STAMP_INVALID, NULL, 0},
        {"2026-03-02", RT_STAMP_INVALID, NULL, 0},
        {"tomorrow", RT_STAMP_INVALID, NULL, 0},
        {"2026-03-02T04:00:00+01:00x", RT_STAMP_INVALID, NULL, 0},
        {"", RT_STAMP_INVALID, NULL, 0},
    };
    (void)state;
    for (size_t i = 0; i < DRA_ARRAY_LEN(rows); i++) {
        char iso[64] = "";
        int64_t epoch = 0;
        print_message("  %s\n", rows[i].text);
        assert_int_equal(rt_timestamp_parse(rows[i].text, iso, sizeof iso, &epoch), rows[i].rc);
        if (rows[i].rc == RT_STAMP_OK) {
            assert_string_equal(iso, rows[i].iso);
            assert_true(epoch == rows[i].epoch);
        }
    }
}

static void test_restart_filters(void **state)
{
    static const struct {
        const char *body;
        bool paused;
        int status; /* 0 = accepted */
        const char *text;
    } rows[] = {
        {"{}", false, 0, ""},
        {"{\"role\":\"replica\",\"timeout\":\"1min\",\"restart_pending\":true}", false, 0, ""},
        {"{\"role\":\"master\"}", false, 400, "PostgreSQL role should be either primary, standby_leader, or replica"},
        {"{\"postgres_version\":\"abc\"}", false, 400, "Invalid PostgreSQL version: abc"},
        {"{\"postgres_version\":\"9.6\"}", false, 400, "Invalid PostgreSQL version format: X.Y or X.Y.Z is accepted: 9.6"},
        {"{\"postgres_version\":\"15.3\"}", false, 0, ""},
        {"{\"postgres_version\":\"9.6.3\"}", false, 0, ""},
        {"{\"timeout\":0}", false, 400, "Timeout should be a positive number of seconds"},
        {"{\"colour\":1}", false, 400, "Unknown filter for the scheduled restart: colour"},
        {"{\"schedule\":\"2999-01-01T00:00:00\"}", false, 400, "Timezone information is mandatory for the scheduled restart"},
        {"{\"schedule\":\"1999-01-01T00:00:00Z\"}", false, 422, "Cannot schedule restart in the past"},
        {"{\"schedule\":\"later\"}", false, 422,
         "Unable to parse scheduled timestamp. It should be in an unambiguous format, e.g. ISO 8601"},
        {"{\"schedule\":\"later\"}", true, 500, "Can't schedule restart in the paused state"},
        {"{\"role\":\"x\",\"timeout\":0}", false, 400, "PostgreSQL role should be either primary, standby_leader, or replica"},
    };
    (void)state;
    for (size_t i = 0; i < DRA_ARRAY_LEN(rows); i++) {
        struct json *body = NULL;
        struct rt_restart f;
        struct rt_refusal no;
        print_message("  %s\n", rows[i].body);
        assert_int_equal(json_parse(rows[i].body, strlen(rows[i].body), &body, NULL), 0);
        assert_int_equal(rt_restart_parse(body, rows[i].paused, &f, &no), rows[i].status == 0);
        assert_int_equal(no.status, rows[i].status);
        assert_string_equal(no.text, rows[i].text);
        json_free(body);
    }
}

static void test_restart_values(void **state)
{
    static const char text[] = "{\"role\":\"primary\",\"postgres_version\":\"15.3\",\"timeout\":\"2min\",\"restart_pending\":\"no\"}";
    struct json *body = NULL;
    struct rt_restart f;
    struct rt_refusal no;
    (void)state;
    assert_int_equal(json_parse(text, strlen(text), &body, NULL), 0);
    assert_true(rt_restart_parse(body, false, &f, &no));
    assert_true(f.has_role);
    assert_int_equal(f.role, HA_ROLE_PRIMARY);
    assert_int_equal(f.version_min, 150003);
    assert_int_equal(f.timeout_s, 120);
    assert_false(f.pending_only); /* REST-81 [D] */
    json_free(body);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_timestamps),
        cmocka_unit_test(test_restart_filters),
        cmocka_unit_test(test_restart_values),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
