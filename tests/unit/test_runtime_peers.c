/*
 * test_runtime_peers.c - what a member's answer to GET /patroni tells the core (HA-76, REST-45).
 */
#include "runtime/peers.h"
#include "runtime/lock.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

struct row {
    const char *name;
    const char *body;
    bool reachable;
    enum dra_tri in_recovery;
    uint64_t position;
    uint32_t timeline;
    bool candidate;
};

static const struct row rows[] = {
    {"replica", "{\"state\":\"running\",\"role\":\"replica\",\"xlog\":{\"received_location\":300,\"replayed_location\":200},\"timeline\":3}",
     true, DRA_YES, 300, 3, true},
    {"replayed is ahead (archive)", "{\"role\":\"replica\",\"xlog\":{\"received_location\":0,\"replayed_location\":200}}", true,
     DRA_YES, 200, 0, true},
    {"primary by location", "{\"role\":\"replica\",\"xlog\":{\"location\":5}}", true, DRA_NO, 0, 0, true},
    {"primary by role", "{\"role\":\"primary\",\"xlog\":{\"location\":0}}", true, DRA_NO, 0, 0, true},
    {"old name of the role", "{\"role\":\"master\",\"xlog\":{}}", true, DRA_NO, 0, 0, true},
    {"older name of the object", "{\"role\":\"replica\",\"wal\":{\"replayed_location\":7}}", true, DRA_YES, 7, 0, true},
    {"nofailover", "{\"role\":\"replica\",\"xlog\":{\"replayed_location\":7},\"tags\":{\"nofailover\":true}}", true, DRA_YES, 7, 0,
     false},
    {"priority zero as text", "{\"role\":\"replica\",\"xlog\":{\"replayed_location\":7},\"tags\":{\"failover_priority\":\"0\"}}",
     true, DRA_YES, 7, 0, false},
    {"watchdog failed", "{\"role\":\"replica\",\"xlog\":{\"replayed_location\":7},\"watchdog_failed\":true}", true, DRA_YES, 7, 0,
     false},
    {"no xlog: the server cannot be asked", "{\"state\":\"starting\",\"role\":\"replica\"}", false, DRA_UNKNOWN, 0, 0, false},
    {"xlog is no object", "{\"xlog\":3}", false, DRA_UNKNOWN, 0, 0, false},
    {"not JSON", "<html>", false, DRA_UNKNOWN, 0, 0, false},
    {"empty", "", false, DRA_UNKNOWN, 0, 0, false},
    {"an array", "[1]", false, DRA_UNKNOWN, 0, 0, false},
    {"nonsense numbers", "{\"role\":\"replica\",\"xlog\":{\"received_location\":\"x\",\"replayed_location\":-4},\"timeline\":99999999999}",
     true, DRA_YES, 0, 0, true},
};

static void test_parse(void **state)
{
    (void)state;
    for (size_t i = 0; i < DRA_ARRAY_LEN(rows); i++) {
        struct ha_peer p = {0};
        print_message("  %s\n", rows[i].name);
        assert_int_equal(peers_parse(rows[i].body, strlen(rows[i].body), &p), rows[i].reachable);
        assert_int_equal(p.in_recovery, rows[i].in_recovery);
        assert_true(p.position == rows[i].position);
        assert_int_equal(p.timeline, rows[i].timeline);
        p.answered = rows[i].reachable;
        assert_int_equal(peers_is_candidate(&p), rows[i].candidate);
    }
}

static void test_lock_text(void **state)
{
    static const struct {
        const char *text;
        bool ok;
    } texts[] = {{"12 345 http://10.0.0.1:8008/patroni\n", true}, {"", false}, {"12", false}, {"x 3 u\n", false}, {"0 3 u\n", false}};
    (void)state;
    for (size_t i = 0; i < DRA_ARRAY_LEN(texts); i++) {
        struct rt_lock_holder h = {0};
        assert_int_equal(rt_lock_parse(texts[i].text, &h), texts[i].ok);
        if (texts[i].ok) {
            assert_int_equal(h.proc.pid, 12);
            assert_int_equal(h.proc.start_ticks, 345);
            assert_string_equal(h.api_url, "http://10.0.0.1:8008/patroni");
        }
    }
}

/* SAFE-35: a second one is told who holds it; what the first one's descriptor holds can be inherited. */
static void test_lock(void **state)
{
    char dir[] = "/tmp/dragent-lock-XXXXXX";
    char path[64];
    struct rt_lock a, b, c;
    struct rt_lock_holder h;
    struct dra_err err = {0};
    (void)state;
    assert_non_null(mkdtemp(dir));
    assert_int_equal(dra_str_printf(path, sizeof path, "%s/agent.lock", dir), 0);
    rt_lock_init(&a);
    rt_lock_init(&b);
    rt_lock_init(&c);
    assert_int_equal(rt_lock_take(&a, path, &h, &err), 0);
    assert_int_equal(rt_lock_sign(&a, "http://127.0.0.1:1/patroni", &err), 0);
    assert_int_equal(rt_lock_take(&b, path, &h, &err), DRA_EBUSY);
    assert_int_equal(h.proc.pid, getpid());
    assert_string_equal(h.api_url, "http://127.0.0.1:1/patroni");
    assert_int_equal(b.fd, -1);
    assert_int_equal(rt_lock_inherit(&c, path, a.fd, &err), 0);
    assert_int_not_equal(rt_lock_inherit(&b, dir, a.fd, &err), 0);
    rt_lock_release(&a);
    assert_int_equal(rt_lock_take(&b, path, &h, &err), 0);
    rt_lock_release(&b);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(rmdir(dir), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_parse),
        cmocka_unit_test(test_lock_text),
        cmocka_unit_test(test_lock),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
