/*
 * test_ctl.c - what dragentctl prints (golden texts of spec CLI-20 .. CLI-35, CLI-74), how it reads its arguments, times and diffs.
 */
#include "ctl/ctl.h"
#include "ctl/diff.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static struct json *parse(const char *text)
{
    struct json *j = NULL;
    struct dra_err err = {0};
    if (json_parse(text, strlen(text), &j, &err) != 0) {
        fail_msg("%s", err.msg);
    }
    return j;
}

/* ---- member tables -------------------------------------------------------------------------------------------- */

#define NODE1                                                                                      \
    "{\"name\": \"node1\", \"role\": \"leader\", \"state\": \"running\", \"api_url\": \"http://10.0.0.1:8008/patroni\", \"host\": \"10.0.0.1\"," \
    " \"port\": 5432, \"timeline\": 3"
#define NODE2                                                                                      \
    "{\"name\": \"node2\", \"role\": \"sync_standby\", \"state\": \"streaming\", \"host\": \"10.0.0.2\", \"port\": 5432, \"timeline\": 3," \
    " \"receive_lag\": 0, \"receive_lsn\": \"0/5000060\", \"replay_lag\": 0, \"replay_lsn\": \"0/5000060\", \"lag\": 0, \"lsn\": \"0/5000060\""
#define NODE3                                                                                      \
    "{\"name\": \"node3\", \"role\": \"replica\", \"state\": \"stopped\", \"host\": \"10.0.0.3\", \"port\": 5432, \"receive_lsn\": \"unknown\"," \
    " \"receive_lag\": \"unknown\", \"replay_lsn\": \"unknown\", \"replay_lag\": \"unknown\", \"lsn\": \"unknown\", \"lag\": \"unknown\""
#define REASON ", \"pending_restart\": true, \"pending_restart_reason\": {\"max_connections\": {\"old_value\": \"50\", \"new_value\": \"60\"}}"
#define THREE "{\"members\": [" NODE1 REASON "}, " NODE2 "}, " NODE3 "}], \"scope\": \"demo\"}"

static const struct table_row {
    const char *name;
    const char *view;
    const char *initialize;
    bool extended;
    enum ctl_format format;
    const char *want;
} table_rows[] = {
    {"CLI-34 pretty", THREE, "7398561211234567890", false, CTL_FMT_PRETTY,
     "+ Cluster: demo (7398561211234567890) ---------+----+-------------+-----+------------+-----+-----------------+-------------------------+\n"
     "| Member | Host     | Role         | State     | TL | Receive LSN | Lag | Replay LSN | Lag | Pending restart | Pending restart reason  |\n"
     "+--------+----------+--------------+-----------+----+-------------+-----+------------+-----+-----------------+-------------------------+\n"
     "| node1  | 10.0.0.1 | Leader       | running   |  3 |             |     |            |     | *               | max_connections: 50->60 |\n"
     "| node2  | 10.0.0.2 | Sync Standby | streaming |  3 |   0/5000060 |   0 |  0/5000060 |   0 |                 |                         |\n"
     "| node3  | 10.0.0.3 | Replica      | stopped   |    |     unknown |     |    unknown |     |                 |                         |\n"
     "+--------+----------+--------------+-----------+----+-------------+-----+------------+-----+-----------------+-------------------------+\n"},
    {"CLI-34 json", THREE, "1", false, CTL_FMT_JSON,
     "[{\"Cluster\": \"demo\", \"Member\": \"node1\", \"Host\": \"10.0.0.1\", \"Role\": \"Leader\", \"State\": \"running\", \"TL\": 3, "
     "\"Pending restart\": \"*\", \"Pending restart reason\": \"max_connections: 50->60\"}, {\"Cluster\": \"demo\", \"Member\": \"node2\", "
     "\"Host\": \"10.0.0.2\", \"Role\": \"Sync Standby\", \"State\": \"streaming\", \"TL\": 3, \"Receive LSN\": \"0/5000060\", \"Receive Lag\": 0, "
     "\"Replay LSN\": \"0/5000060\", \"Replay Lag\": 0}, {\"Cluster\": \"demo\", \"Member\": \"node3\", \"Host\": \"10.0.0.3\", \"Role\": \"Replica\", "
     "\"State\": \"stopped\", \"Receive LSN\": \"unknown\", \"Replay LSN\": \"unknown\"}]\n"},
    {"CLI-34 tsv", "{\"members\": [" NODE1 "}, " NODE2 "}]}", "1", false, CTL_FMT_TSV,
     "Cluster\tMember\tHost\tRole\tState\tTL\tReceive LSN\tReceive Lag\tReplay LSN\tReplay Lag\n"
     "demo\tnode1\t10.0.0.1\tLeader\trunning\t3\t\t\t\t\n"
     "demo\tnode2\t10.0.0.2\tSync Standby\tstreaming\t3\t0/5000060\t0\t0/5000060\t0\n"},
    {"yaml", "{\"members\": [" NODE1 "}]}", "1", false, CTL_FMT_YAML,
     "- Cluster: demo\n  Host: 10.0.0.1\n  Member: node1\n  Role: Leader\n  State: running\n  TL: 3\n\n"},
    {"unknown cluster", "{\"members\": []}", "uninitialized", false, CTL_FMT_PRETTY,
     "+ Cluster: demo (uninitialized) ----+-------------+-----+------------+-----+\n"
     "| Member | Host | Role | State | TL | Receive LSN | Lag | Replay LSN | Lag |\n"
     "+--------+------+------+-------+----+-------------+-----+------------+-----+\n"
     "+--------+------+------+-------+----+-------------+-----+------------+-----+\n"},
    {"a title that is cut", "{\"members\": []}", "a very long value of the initialize key that cannot be shown", false, CTL_FMT_PRETTY,
     "+ Cluster: demo (a very long value of the initialize key that cannot be sho+\n"
     "| Member | Host | Role | State | TL | Receive LSN | Lag | Replay LSN | Lag |\n"
     "+--------+------+------+-------+----+-------------+-----+------------+-----+\n"
     "+--------+------+------+-------+----+-------------+-----+------------+-----+\n"},
    {"tags, several lines", "{\"members\": [" NODE1 ", \"tags\": {\"b\": \"x\", \"a\": 1}}, " NODE3 "}], \"pause\": true}", "1", false, CTL_FMT_PRETTY,
     "+ Cluster: demo (1) +---------+---------+----+-------------+-----+------------+-----+------+\n"
     "| Member | Host     | Role    | State   | TL | Receive LSN | Lag | Replay LSN | Lag | Tags |\n"
     "+--------+----------+---------+---------+----+-------------+-----+------------+-----+------+\n"
     "| node1  | 10.0.0.1 | Leader  | running |  3 |             |     |            |     | a: 1 |\n"
     "|        |          |         |         |    |             |     |            |     | b: x |\n"
     "+--------+----------+---------+---------+----+-------------+-----+------------+-----+------+\n"
     "| node3  | 10.0.0.3 | Replica | stopped |    |     unknown |     |    unknown |     |      |\n"
     "+--------+----------+---------+---------+----+-------------+-----+------------+-----+------+\n"
     " Maintenance mode: on\n"},
    {"tags in tsv", "{\"members\": [" NODE1 ", \"tags\": {\"b\": \"1\", \"a\": true}}]}", "1", false, CTL_FMT_TSV,
     "Cluster\tMember\tHost\tRole\tState\tTL\tReceive LSN\tReceive Lag\tReplay LSN\tReplay Lag\tTags\n"
     "demo\tnode1\t10.0.0.1\tLeader\trunning\t3\t\t\t\t\t{a: true, b: '1'}\n"},
    {"CLI-33 scheduled switchover",
     "{\"members\": [], \"scheduled_switchover\": {\"at\": \"2026-03-02T02:00:00+00:00\", \"from\": \"node1\", \"to\": \"node2\"}, \"pause\": true}",
     "initializing", false, CTL_FMT_PRETTY,
     "+ Cluster: demo (initializing) +----+-------------+-----+------------+-----+\n"
     "| Member | Host | Role | State | TL | Receive LSN | Lag | Replay LSN | Lag |\n"
     "+--------+------+------+-------+----+-------------+-----+------------+-----+\n"
     "+--------+------+------+-------+----+-------------+-----+------------+-----+\n"
     " Maintenance mode: on\n"
     " Switchover scheduled at: 2026-03-02T02:00:00+00:00\n"
     "                    from: node1\n"
     "                      to: node2\n"},
    {"hosts with ports; lag half to even; older member",
     "{\"members\": [{\"name\": \"a\", \"role\": \"replica\", \"state\": \"streaming\", \"host\": \"h\", \"port\": 5433, \"receive_lsn\": \"0/1\","
     " \"receive_lag\": 1572864, \"replay_lsn\": \"0/1\", \"replay_lag\": 2621440, \"lsn\": \"0/1\", \"lag\": 1572864},"
     " {\"name\": \"b\", \"role\": \"replica\", \"state\": \"running\", \"host\": \"h\", \"port\": 5432, \"receive_lsn\": \"unknown\","
     " \"receive_lag\": \"unknown\", \"replay_lsn\": \"unknown\", \"replay_lag\": \"unknown\", \"lsn\": \"0/2\", \"lag\": 0}]}",
     "1", false, CTL_FMT_TSV,
     "Cluster\tMember\tHost\tRole\tState\tTL\tReceive LSN\tReceive Lag\tReplay LSN\tReplay Lag\n"
     "demo\ta\th:5433\tReplica\tstreaming\t\t0/1\t2\t0/1\t2\n"
     "demo\tb\th:5432\tReplica\trunning\t\tunknown\t\t0/2\t0\n"},
    {"extended, scheduled restart",
     "{\"members\": [{\"name\": \"a\", \"role\": \"standby_leader\", \"state\": \"running\", \"scheduled_restart\": {\"schedule\":"
     " \"2026-03-02T04:00:00+01:00\", \"postgres_version\": \"15.3\", \"postmaster_start_time\": \"x\"}}]}",
     "1", true, CTL_FMT_TSV,
     "Cluster\tMember\tHost\tRole\tState\tTL\tReceive LSN\tReceive Lag\tReplay LSN\tReplay Lag\tPending restart\tPending restart reason\t"
     "Scheduled restart\tTags\n"
     "demo\ta\t\tStandby Leader\trunning\t\t\t\t\t\t\t\t2026-03-02T04:00:00+01:00 if version < 15.3\t\n"},
    {"CLI-35 topology",
     "{\"members\": [{\"name\": \"node1\", \"role\": \"leader\", \"state\": \"running\", \"host\": \"10.0.0.1\", \"port\": 5432, \"timeline\": 3},"
     " {\"name\": \"node2\", \"role\": \"replica\", \"state\": \"streaming\", \"host\": \"10.0.0.2\", \"timeline\": 3},"
     " {\"name\": \"node3\", \"role\": \"replica\", \"state\": \"streaming\", \"host\": \"10.0.0.3\", \"timeline\": 3},"
     " {\"name\": \"node4\", \"role\": \"replica\", \"state\": \"streaming\", \"host\": \"10.0.0.4\", \"timeline\": 3, \"tags\": {\"replicatefrom\": \"node2\"}}]}",
     "1", false, CTL_FMT_TOPOLOGY,
     "+ Cluster: demo (1) ---+---------+-----------+----+-------------+-----+------------+-----+------------------------+\n"
     "| Member    | Host     | Role    | State     | TL | Receive LSN | Lag | Replay LSN | Lag | Tags                   |\n"
     "+-----------+----------+---------+-----------+----+-------------+-----+------------+-----+------------------------+\n"
     "| node1     | 10.0.0.1 | Leader  | running   |  3 |             |     |            |     |                        |\n"
     "| + node2   | 10.0.0.2 | Replica | streaming |  3 |             |     |            |     |                        |\n"
     "|   + node4 | 10.0.0.4 | Replica | streaming |  3 |             |     |            |     | {replicatefrom: node2} |\n"
     "| + node3   | 10.0.0.3 | Replica | streaming |  3 |             |     |            |     |                        |\n"
     "+-----------+----------+---------+-----------+----+-------------+-----+------------+-----+------------------------+\n"},
    {"topology: a circle shows everybody once",
     "{\"members\": [{\"name\": \"a\", \"role\": \"replica\", \"state\": \"s\", \"tags\": {\"replicatefrom\": \"b\"}},"
     " {\"name\": \"b\", \"role\": \"replica\", \"state\": \"s\", \"tags\": {\"replicatefrom\": \"a\"}}]}",
     "1", false, CTL_FMT_TOPOLOGY,
     "+ Cluster: demo (1) ------+-------+----+-------------+-----+------------+-----+--------------------+\n"
     "| Member | Host | Role    | State | TL | Receive LSN | Lag | Replay LSN | Lag | Tags               |\n"
     "+--------+------+---------+-------+----+-------------+-----+------------+-----+--------------------+\n"
     "| + a    |      | Replica | s     |    |             |     |            |     | {replicatefrom: b} |\n"
     "| + b    |      | Replica | s     |    |             |     |            |     | {replicatefrom: a} |\n"
     "+--------+------+---------+-------+----+-------------+-----+------------+-----+--------------------+\n"},
};

static void test_member_tables(void **state)
{
    (void)state;
    for (size_t i = 0; i < DRA_ARRAY_LEN(table_rows); i++) {
        const struct table_row *r = &table_rows[i];
        struct json *view = parse(r->view);
        struct dra_buf out;
        dra_buf_init(&out, 1 << 20);
        ctl_members_table(view, "demo", r->initialize, r->extended, r->format, &out);
        if (strcmp(dra_buf_str(&out), r->want) != 0) {
            fail_msg("%s:\n%s", r->name, dra_buf_str(&out));
        }
        dra_buf_deinit(&out);
        json_free(view);
    }
}

static void test_history_table(void **state)
{
    static const struct ctl_column columns[] = {{"TL", "TL", true}, {"LSN", "LSN", true}, {"Reason", "Reason", false},
                                                {"Timestamp", "Timestamp", false}, {"New Leader", "New Leader", false}};
    struct json *rows = parse("[{\"TL\": 1, \"LSN\": 25165984, \"Reason\": \"no recovery target specified\","
                              " \"Timestamp\": \"2026-03-01T10:00:00.123456+00:00\", \"New Leader\": \"node2\"}]");
    struct json *nothing = parse("[{\"TL\": null}]");
    struct dra_buf out;
    (void)state;
    dra_buf_init(&out, 1 << 20);
    ctl_table(columns, 5, rows, NULL, false, CTL_FMT_PRETTY, &out);
    assert_string_equal(dra_buf_str(&out), /* CLI-74 */
                        "+----+----------+------------------------------+----------------------------------+------------+\n"
                        "| TL |      LSN | Reason                       | Timestamp                        | New Leader |\n"
                        "+----+----------+------------------------------+----------------------------------+------------+\n"
                        "|  1 | 25165984 | no recovery target specified | 2026-03-01T10:00:00.123456+00:00 | node2      |\n"
                        "+----+----------+------------------------------+----------------------------------+------------+\n");
    dra_buf_reset(&out);
    ctl_table(columns, 2, nothing, NULL, false, CTL_FMT_PRETTY, &out);
    assert_string_equal(dra_buf_str(&out), "+------+-----+\n|   TL | LSN |\n+------+-----+\n| None |     |\n+------+-----+\n");
    dra_buf_deinit(&out);
    json_free(rows);
    json_free(nothing);
}

/* ---- arguments ----------------------------------------------------------------------------------------------------- */

static int parse_args(struct ctl_args *a, const char *line, int *exit_code)
{
    static char words[32][64];
    char *argv[34] = {words[0]};
    int argc = 1;
    const char *p = line;
    while (*p != '\0') {
        size_t n = strcspn(p, " ");
        assert_true(n < sizeof words[0] && argc < 32);
        memcpy(words[argc], p, n);
        words[argc][n] = '\0';
        argv[argc] = words[argc];
        argc++;
        p += n + strspn(p + n, " ");
    }
    return ctl_args_parse("dragentctl", argc, argv, a, exit_code);
}

static void test_args(void **state)
{
    static const struct {
        const char *line;
        int exit_code; /* -1: goes on */
    } rows[] = {
        {"list", -1},
        {"-c f list a b c", -1},
        {"--config-file=f -d etcd3://h:1 -k list", -1},
        {"list --format=json -e", -1},
        {"list -etf json", -1},
        {"list -w 0.5 demo", -1},
        {"switchover demo --master n1 --candidate n2 --force", -1},
        {"restart --force demo n1 -r replica", -1},
        {"edit-config -s ttl=20 -p a.b=1 -s x=2 --force", -1},
        {"reinit demo --from-leader --wait", -1},
        {"explain n1 n2", -1},
        {"restart", 2},
        {"nosuch", 2},
        {"list --nosuch", 2},
        {"list --form json", 2}, /* no abbreviations */
        {"list -f xx", 2},
        {"list --format", 2},
        {"list --extended=1", 2},
        {"show-config a b", 2},
        {"restart demo -r boss", 2},
        {"list --group x", 2},
        {"list -c f", 2}, /* global options stand before the command */
    };
    struct ctl_args a;
    int code;
    int saved = dup(STDERR_FILENO);
    (void)state;
    assert_non_null(freopen("/dev/null", "w", stderr)); /* usage errors are long */
    for (size_t i = 0; i < DRA_ARRAY_LEN(rows); i++) {
        int rc;
        code = -1;
        rc = parse_args(&a, rows[i].line, &code);
        if ((rc == 0) != (rows[i].exit_code == -1) || (rc != 0 && code != rows[i].exit_code)) {
            (void)dup2(saved, STDERR_FILENO);
            fail_msg("\"%s\": %d, exit code %d", rows[i].line, rc, code);
        }
    }
    (void)fflush(stderr);
    assert_int_equal(dup2(saved, STDERR_FILENO), STDERR_FILENO);
    (void)close(saved);
    assert_int_equal(parse_args(&a, "edit-config -s ttl=20 -p a.b=1 -sx=2", &code), 0);
    assert_int_equal(a.n_sets, 3);
    assert_int_equal(a.sets[1].opt, CTL_OPT_PG);
    assert_string_equal(a.sets[2].value, "x=2");
    assert_int_equal(parse_args(&a, "-cfile list demo -W", &code), 0);
    assert_string_equal(a.config_file, "file");
    assert_string_equal(a.pos[0], "demo");
    assert_non_null(a.value[CTL_OPT_W2]);
    assert_int_equal(parse_args(&a, "switchover --primary n1 --leader n2", &code), 0);
    assert_string_equal(a.value[CTL_OPT_LEADER], "n2");
}

static void test_schedule(void **state)
{
    static const struct {
        const char *text;
        int rc;
        const char *want;
    } rows[] = {
        {"now", 0, ""},
        {"", 0, ""},
        {"2030-01-01T10:00+01:00", 0, "2030-01-01T10:00:00+01:00"},
        {"2030-01-01 10:00:30Z", 0, "2030-01-01T10:00:30+00:00"},
        {"2030-01-01T10:00-0530", 0, "2030-01-01T10:00:00-05:30"},
        {"2030-07-01T10:00", 0, "2030-07-01T10:00:00+02:00"}, /* local */
        {"2030-01-01T10:00", 0, "2030-01-01T10:00:00+01:00"},
        {"soon", DRA_EPARSE, ""},
    };
    (void)state;
    assert_int_equal(setenv("TZ", "CET-1CEST,M3.5.0,M10.5.0/3", 1), 0);
    for (size_t i = 0; i < DRA_ARRAY_LEN(rows); i++) {
        char out[CTL_TIME_MAX];
        int rc = ctl_schedule(rows[i].text, out);
        if (rc != rows[i].rc || strcmp(out, rows[i].want) != 0) {
            fail_msg("%s: %d %s", rows[i].text, rc, out);
        }
    }
}

static void test_url(void **state)
{
    char out[64];
    (void)state;
    assert_int_equal(ctl_url("http://[::1]:8008/patroni?x=1#y", "/restart", out, sizeof out), 0);
    assert_string_equal(out, "http://[::1]:8008/restart");
    assert_int_equal(ctl_url("https://h", "/config", out, sizeof out), 0);
    assert_string_equal(out, "https://h/config");
}

static void test_diff(void **state)
{
    static const struct {
        const char *a, *b, *want;
    } rows[] = {
        {"a\n", "a\n", ""},
        {"a: 1\nb: 2\n", "a: 1\nb: 3\n", "--- \n+++ \n@@ -1,2 +1,2 @@\n a: 1\n-b: 2\n+b: 3\n"},
        {"a\n", "a\nb\n", "--- \n+++ \n@@ -1 +1,2 @@\n a\n+b\n"},
        {"1\n2\n3\n4\n5\n6\n7\n8\n9\n10\n11\n", "1\n2\n3\n4\nX\n6\n7\n8\n9\n10\n11\n",
         "--- \n+++ \n@@ -2,7 +2,7 @@\n 2\n 3\n 4\n-5\n+X\n 6\n 7\n 8\n"},
        {"a\n1\n2\n3\n4\n5\n6\n7\n8\nb\n", "A\n1\n2\n3\n4\n5\n6\n7\n8\nB\n",
         "--- \n+++ \n@@ -1,4 +1,4 @@\n-a\n+A\n 1\n 2\n 3\n@@ -7,4 +7,4 @@\n 6\n 7\n 8\n-b\n+B\n"},
        {"a\n1\n2\n3\n4\n5\n6\nb\n", "A\n1\n2\n3\n4\n5\n6\nB\n",
         "--- \n+++ \n@@ -1,8 +1,8 @@\n-a\n+A\n 1\n 2\n 3\n 4\n 5\n 6\n-b\n+B\n"},
    };
    (void)state;
    for (size_t i = 0; i < DRA_ARRAY_LEN(rows); i++) {
        struct dra_buf out;
        dra_buf_init(&out, 1 << 20);
        ctl_diff(rows[i].a, rows[i].b, &out);
        if (strcmp(dra_buf_str(&out), rows[i].want) != 0) {
            fail_msg("row %zu:\n%s", i, dra_buf_str(&out));
        }
        dra_buf_deinit(&out);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_member_tables), cmocka_unit_test(test_history_table), cmocka_unit_test(test_schedule),
        cmocka_unit_test(test_url),           cmocka_unit_test(test_diff),          cmocka_unit_test(test_args),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
