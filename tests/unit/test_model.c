/* test_model.c - names of roles and states, slot names (HA-150), host and port out of URLs. */
#include <dragent/model.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static void roles_and_states(void **unused)
{
    (void)unused;
    for (int i = 1; i < HA_ROLE_COUNT; i++) {
        assert_int_equal(ha_role_from_str(ha_role_to_str((enum ha_role)i)), i);
    }
    for (int i = 1; i < HA_STATE_COUNT; i++) {
        assert_int_equal(ha_state_from_str(ha_state_to_str((enum ha_state)i)), i);
    }
    assert_int_equal(ha_role_from_str("master"), HA_ROLE_PRIMARY); /* DCS-98 */
    assert_int_equal(ha_role_from_str("unknown"), HA_ROLE_UNKNOWN);
    assert_int_equal(ha_role_from_str("Primary"), HA_ROLE_UNKNOWN);
    assert_int_equal(ha_role_from_str(NULL), HA_ROLE_UNKNOWN);
    assert_int_equal(ha_state_from_str(""), HA_STATE_UNKNOWN);
    assert_string_equal(ha_role_to_str((enum ha_role)99), "unknown");
    assert_int_equal(HA_STATE_RUNNING - 1, 5); /* HA-04 */
    assert_int_equal(HA_STATE_CRASHED - 1, 14);
}

static void slot_names(void **unused)
{
    (void)unused;
    static const struct {
        const char *in, *out;
    } rows[] = {
        {"pg-1", "pg_1"},
        {"Node.A", "node_a"},
        {"a b", "au0032b"},
        {"\xC3\xA9", "u0233"},
        {"\xC3\x89", "u0233"}, /* capital e acute is lowered first */
        {"node@x", "nodeu0064x"},
        {"\xF0\x9F\x98\x80", "u128512"},
        {"\xFF", "u0255"}, /* no UTF-8: the byte stands for itself */
        {"a\xE2\x82", "au0226u0130"},
        {"", ""},
        {"0123456789012345678901234567890123456789012345678901234567890123456789",
         "012345678901234567890123456789012345678901234567890123456789012"},
        {"01234567890123456789012345678901234567890123456789012345678901@",
         "01234567890123456789012345678901234567890123456789012345678901u"},
    };
    for (size_t i = 0; i < DRA_ARRAY_LEN(rows); i++) {
        char out[HA_SLOT_NAME_MAX];
        ha_slot_name(rows[i].in, out);
        if (strcmp(out, rows[i].out) != 0) {
            fail_msg("%s: want %s, got %s", rows[i].in, rows[i].out, out);
        }
    }
}

static void urls(void **unused)
{
    (void)unused;
    static const struct {
        const char *url, *host; /* host NULL = refused */
        int port;
    } rows[] = {
        {"postgres://10.20.0.11:5432/postgres", "10.20.0.11", 5432},
        {"postgres://10.20.0.11/postgres", "10.20.0.11", 5432},
        {"postgresql://u:p%40@h:6000/x?application_name=http://y:1/z", "h", 6000},
        {"http://10.20.0.11:8008/patroni", "10.20.0.11", 8008},
        {"https://db1/patroni", "db1", 443},
        {"http://h", "h", 80},
        {"postgres://[fd00::1]:5433/postgres", "fd00::1", 5433},
        {"http://[::1]/x", "::1", 80},
        {"http://h:/x", "h", 80},
        {"http://u:p@[::1]:7/x", "::1", 7},
        {"ftp://h/x", NULL, 0},
        {"http://:80/x", NULL, 0},
        {"http://h:0/x", NULL, 0},
        {"http://h:65536/x", NULL, 0},
        {"http://h:8a/x", NULL, 0},
        {"http://[::1/x", NULL, 0},
        {"http://[::1]x/x", NULL, 0},
        {"h:80", NULL, 0},
        {"", NULL, 0},
        {NULL, NULL, 0},
    };
    for (size_t i = 0; i < DRA_ARRAY_LEN(rows); i++) {
        char host[64] = "untouched";
        int port = -1;
        bool ok = ha_url_host_port(rows[i].url, host, sizeof host, &port);
        if (ok != (rows[i].host != NULL) || strcmp(host, ok ? rows[i].host : "untouched") != 0 ||
            port != (ok ? rows[i].port : -1)) {
            fail_msg("row %zu (%s): got %d %s:%d", i, rows[i].url, ok, host, port);
        }
    }
    char small[4];
    int port;
    assert_false(ha_url_host_port("http://host:1/", small, sizeof small, &port));
}

static void find_member(void **unused)
{
    (void)unused;
    static struct ha_cluster c;
    static const char *const names[] = {"a", "ab", "b-1", "z"};
    c.n_members = 4;
    for (int i = 0; i < 4; i++) {
        assert_int_equal(dra_str_copy(c.members[i].name, sizeof c.members[i].name, names[i]), 0);
    }
    for (int i = 0; i < 4; i++) {
        assert_int_equal(ha_member_find(&c, names[i]), i);
    }
    assert_int_equal(ha_member_find(&c, "A"), -1); /* DCS-05: case-sensitive */
    assert_int_equal(ha_member_find(&c, "zz"), -1);
    assert_int_equal(ha_member_find(&c, ""), -1);
    assert_int_equal(ha_member_find(&c, NULL), -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(roles_and_states),
        cmocka_unit_test(slot_names),
        cmocka_unit_test(urls),
        cmocka_unit_test(find_member),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
