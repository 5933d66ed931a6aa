/*
 * test_ctl_etcd.c - the program itself against a real etcd with keys as agents write them, and a scripted REST API.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <signal.h>
#include <string.h>

#include "etcd_fixture.h"

#include <cmocka.h>

#define TOPOLOGY "Current cluster topology\n"

struct lab {
    struct etcds etcds;
    struct rig rig;
    struct fake *rest;
    char config[128];  /* file */
    char api_url[64];
    char seen[8192];   /* "METHOD-less path body\n" of each REST call */
    char out[20000];   /* output of the last run */
    int exit_code;
    bool done;
};
static struct lab lab;

static struct fake_answer on_request(const char *path, const char *body, void *arg)
{
    static const struct {
        const char *path;
        struct fake_answer answer;
    } rows[] = {
        {"/switchover", {.status = 200, .body = "Successfully switched over to \"node2\""}},
        {"/failover", {.drop = true}},
        {"/restart", {.status = 503, .body = "restart failed"}},
        {"/reload", {.status = 202, .body = "reload scheduled"}},
        {"/reinitialize", {.status = 200, .body = "reinitialize started"}},
        {"/config", {.status = 200, .body = "{}"}},
        {"/dragent/world",
         {.status = 200,
          .body = "{\"name\": \"node1\", \"rule\": \"leader.hold\", \"rule_doc\": \"we lead: renew\", \"reason\": \"no action. I am (node1), the leader"
                  " with the lock\", \"detail\": \"\", \"since_s\": 2.5, \"role\": \"primary\", \"state\": \"running\", \"would_promote\": true,"
                  " \"would_promote_reason\": \"it leads already\", \"facts\": {\"lease\": {\"held\": true, \"epoch\": 7}}}"}},
        {"/patroni", {.status = 200, .body = "{\"state\": \"running\", \"server_version\": 150018, \"patroni\": {\"version\": \"4.1.4\"}}"}},
    };
    struct lab *l = arg;
    size_t n = strlen(l->seen);
    (void)snprintf(l->seen + n, sizeof l->seen - n, "%s %s\n", path, body == NULL ? "" : body);
    for (size_t i = 0; i < DRA_ARRAY_LEN(rows); i++) {
        if (dra_str_eq(rows[i].path, path)) {
            return rows[i].answer;
        }
    }
    return (struct fake_answer){.status = 404, .body = ""};
}

static void put(const char *key, const char *value)
{
    char path[128];
    const char *words[] = {"put", path, value, NULL};
    (void)snprintf(path, sizeof path, "/service/demo/%s", key);
    assert_int_equal(etcdctl(&lab.etcds, 0, words), 0);
}

static void put_cluster(void)
{
    char member[512];
    put("initialize", "7398561211234567890");
    put("leader", "node1");
    put("config", "{\"ttl\":30,\"loop_wait\":1,\"retry_timeout\":10,\"postgresql\":{\"parameters\":{\"hot_standby\":\"on\"}}}");
    put("status", "{\"optime\":83886176}");
    (void)snprintf(member, sizeof member,
                   "{\"conn_url\":\"postgres://10.0.0.1:5432/postgres\",\"api_url\":\"%s\",\"state\":\"running\",\"role\":\"primary\","
                   "\"version\":\"4.1.4\",\"xlog_location\":83886176,\"timeline\":3}",
                   lab.api_url);
    put("members/node1", member);
    put("members/node2", "{\"conn_url\":\"postgres://10.0.0.2:5432/postgres\",\"api_url\":\"http://127.0.0.1:1/patroni\",\"state\":\"running\","
                         "\"role\":\"replica\",\"version\":\"4.1.4\",\"xlog_location\":83886176,\"receive_lsn\":83886176,\"replay_lsn\":83886176,"
                         "\"replication_state\":\"streaming\",\"timeline\":3}");
    put("history", "[[1,25165984,\"no recovery target specified\",\"2026-03-01T10:00:00.123456+00:00\",\"node2\"],[2,50331648,\"x\"]]");
}

static int setup(void **state)
{
    FILE *f;
    (void)state;
    etcds_init(&lab.etcds, 1);
    etcds_start(&lab.etcds);
    rig_open(&lab.rig);
    lab.rest = fake_open(&lab.rig, on_request, &lab);
    (void)snprintf(lab.api_url, sizeof lab.api_url, "http://127.0.0.1:%d/patroni", fake_port(lab.rest));
    (void)snprintf(lab.config, sizeof lab.config, "%s/ctl.yml", lab.etcds.dir);
    f = fopen(lab.config, "w");
    assert_non_null(f);
    (void)fprintf(f, "scope: demo\netcd3:\n  host: %s\n", lab.etcds.m[0].host);
    assert_int_equal(fclose(f), 0);
    put_cluster();
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    fake_close(lab.rest);
    rig_close(&lab.rig);
    etcds_stop(&lab.etcds);
    return 0;
}

/* ---- running it --------------------------------------------------------------------------------------------------- */

static void on_done(const struct dra_child_result *r, void *arg)
{
    struct lab *l = arg;
    size_t n = r->out_len < sizeof l->out - 1 ? r->out_len : sizeof l->out - 1;
    memcpy(l->out, r->out, n);
    l->out[n] = '\0';
    l->exit_code = r->exit_code;
    l->done = true;
}

static bool is_done(void *arg)
{
    return ((struct lab *)arg)->done;
}

/* Words after the program's name, and what is typed. */
static int run_env(const char *const *words, const char *typed, const char *const *env)
{
    const char *argv[24] = {DRA_CTL_PROGRAM};
    struct dra_child_spec spec = {.argv = argv, .env = env, .stdin_data = typed, .not_after = in_ms(30000)};
    struct dra_child *child = NULL;
    struct dra_err err = {0};
    for (int i = 0; words[i] != NULL; i++) {
        argv[i + 1] = words[i];
    }
    lab.done = false;
    lab.seen[0] = '\0';
    assert_int_equal(dra_child_start(&lab.rig.loop, &spec, on_done, &lab, &child, &err), 0);
    assert_true(rig_until(&lab.rig, is_done, &lab, 35000));
    return lab.exit_code;
}

static int run(const char *const *words, const char *typed)
{
    const char *argv[24] = {"-c", lab.config};
    for (int i = 0; words[i] != NULL; i++) {
        argv[i + 2] = words[i];
    }
    return run_env(argv, typed, NULL);
}
#define RUN(typed, ...) run((const char *const[]){__VA_ARGS__, NULL}, typed)

#define assert_out(text)                                                                           \
    do {                                                                                           \
        if (strstr(lab.out, (text)) == NULL) {                                                     \
            fail_msg("\"%s\" is not in:\n%s", (text), lab.out);                                    \
        }                                                                                          \
    } while (0)

/* ---- reading --------------------------------------------------------------------------------------------------------- */

#define TABLE                                                                                      \
    "+ Cluster: demo (7398561211234567890) ----+----+-------------+-----+------------+-----+\n"    \
    "| Member | Host     | Role    | State     | TL | Receive LSN | Lag | Replay LSN | Lag |\n"    \
    "+--------+----------+---------+-----------+----+-------------+-----+------------+-----+\n"    \
    "| node1  | 10.0.0.1 | Leader  | running   |  3 |             |     |            |     |\n"    \
    "| node2  | 10.0.0.2 | Replica | streaming |  3 |   0/5000060 |   0 |  0/5000060 |   0 |\n"    \
    "+--------+----------+---------+-----------+----+-------------+-----+------------+-----+\n"

static void test_reading(void **state)
{
    const char *env[] = {"PATRONI_SCOPE=demo", NULL, "HOME=/nonexistent", "XDG_CONFIG_HOME", NULL};
    char host[64];
    (void)state;
    assert_int_equal(RUN(NULL, "list"), 0);
    assert_string_equal(lab.out, TABLE);
    assert_int_equal(RUN(NULL, "list", "-f", "json"), 0);
    assert_string_equal(lab.out,
                        "[{\"Cluster\": \"demo\", \"Member\": \"node1\", \"Host\": \"10.0.0.1\", \"Role\": \"Leader\", \"State\": \"running\", \"TL\": 3}, "
                        "{\"Cluster\": \"demo\", \"Member\": \"node2\", \"Host\": \"10.0.0.2\", \"Role\": \"Replica\", \"State\": \"streaming\", \"TL\": 3, "
                        "\"Receive LSN\": \"0/5000060\", \"Receive Lag\": 0, \"Replay LSN\": \"0/5000060\", \"Replay Lag\": 0}]\n");
    assert_int_equal(RUN(NULL, "list", "nosuch"), 0);
    assert_out("+ Cluster: nosuch (uninitialized) --+");
    assert_int_equal(RUN(NULL, "topology"), 0);
    assert_out("| + node2 | 10.0.0.2 | Replica |");
    assert_int_equal(RUN(NULL, "history"), 0);
    assert_out("|  1 | 25165984 | no recovery target specified | 2026-03-01T10:00:00.123456+00:00 | node2      |\n");
    assert_out("|  2 | 50331648 | x                            |                                  |            |\n");
    assert_int_equal(RUN(NULL, "show-config"), 0);
    assert_string_equal(lab.out, "loop_wait: 1\npostgresql:\n  parameters:\n    hot_standby: 'on'\nretry_timeout: 10\nttl: 30\n\n");
    assert_int_equal(RUN(NULL, "show-config", "nosuch"), 0);
    assert_string_equal(lab.out, "");
    assert_int_equal(RUN(NULL, "version", "demo"), 0);
    assert_out("\n\nnode1: Patroni 4.1.4 PostgreSQL 15.18\nnode2: failed to get version: ");
    (void)snprintf(host, sizeof host, "PATRONI_ETCD3_HOST=%s", lab.etcds.m[0].host); /* CLI-03: no file at all */
    env[1] = host;
    assert_int_equal(run_env((const char *const[]){"list", NULL}, NULL, env), 0);
    assert_string_equal(lab.out, TABLE);
    assert_int_equal(run_env((const char *const[]){"-d", lab.etcds.m[0].host, "list", "demo", NULL}, NULL, env), 0);
    assert_out(TABLE);
}

static void test_errors(void **state)
{
    (void)state;
    assert_int_equal(run_env((const char *const[]){"-c", "/nowhere.yml", "list", NULL}, NULL, NULL), 1);
    assert_string_equal(lab.out, "Error: Provided config file /nowhere.yml not existing or no read rights. Check the -c/--config-file parameter\n");
    assert_int_equal(run_env((const char *const[]){"-d", "ftp://x", "list", NULL}, NULL, NULL), 1);
    assert_out("Error: Unknown dcs scheme: ftp");
    assert_int_equal(run_env((const char *const[]){"list", "demo", NULL}, NULL, (const char *const[]){"HOME=/nonexistent", NULL}), 1);
    assert_out("Error: Can not find suitable configuration of distributed configuration store\nAvailable implementations: etcd3");
    assert_int_equal(RUN(NULL, "list", "--group", "1"), 1);
    assert_int_equal(RUN(NULL, "edit-config", "nosuch", "-s", "a=1"), 1);
    assert_out("Error: The config key does not exist in the cluster nosuch");
}

/* ---- changing ----------------------------------------------------------------------------------------------------------- */

static void test_switchover(void **state)
{
    (void)state;
    assert_int_equal(RUN(NULL, "switchover", "--force"), 0);
    assert_string_equal(lab.seen, "/switchover {\"candidate\": null, \"leader\": \"node1\"}\n");
    assert_true(dra_str_starts(lab.out, TOPOLOGY TABLE));
    assert_out(" Successfully switched over to \"node2\"\n" TABLE);
    assert_int_equal(RUN("\nnode2\n\ny\n", "switchover", "demo"), 0);
    assert_out(TABLE "Primary [node1]: Candidate ['node2'] []: When should the switchover take place (e.g. ");
    assert_out(" )  [now]: Are you sure you want to switchover cluster demo, demoting current leader node1? [y/N]: ");
    assert_string_equal(lab.seen, "/switchover {\"candidate\": \"node2\", \"leader\": \"node1\"}\n");
    assert_int_equal(RUN("n\n", "switchover", "--master", "node1", "--candidate", "node2", "--scheduled", "2030-01-01T10:00Z"), 1);
    assert_out("schedule switchover of cluster demo at 2030-01-01T10:00:00+00:00, demoting current leader node1? [y/N]: ");
    assert_out("Error: Aborting scheduled switchover\n");
    assert_string_equal(lab.seen, "");
    assert_int_equal(RUN("", "switchover", "--leader", "node1"), 1);
    assert_out("Aborted!\n");
    assert_int_equal(RUN(NULL, "switchover", "--force", "--leader", "node2"), 1);
    assert_out("Error: Member node2 is not the leader of cluster demo\n");
    assert_int_equal(RUN(NULL, "switchover", "--force", "--candidate", "ghost"), 1);
    assert_out("Error: Member ghost does not exist in cluster demo or is tagged as nofailover\n");
    assert_int_equal(RUN(NULL, "failover", "--force"), 1);
    assert_out("Error: Failover could be performed only to a specific candidate\n");
}

/* Nobody answers: the key itself (CLI-61). */
static void test_falls_back(void **state)
{
    struct dcs *d;
    char section[128];
    struct view v = {0};
    (void)state;
    assert_int_equal(RUN(NULL, "failover", "--force", "--candidate", "node2"), 0);
    assert_string_equal(lab.seen, "/failover {\"candidate\": \"node2\"}\n");
    assert_out(" Could not failover using Patroni api, falling back to DCS\n" TABLE);
    (void)snprintf(section, sizeof section, "{\"hosts\":[\"%s\"]}", lab.etcds.m[0].host);
    d = store_open(&lab.rig, section, "/service/demo/", &quick);
    view_watch(&v, d);
    assert_int_equal(do_read(&lab.rig, d, 5000).err_code, DRA_OK);
    assert_string_equal(v.last->c.failover.member, "node2");
    assert_string_equal(v.last->c.failover.leader, "");
    view_deinit(&v);
    d->vt->close(d);
    put("failover", "{}");
}

static void test_members(void **state)
{
    (void)state;
    assert_int_equal(RUN(NULL, "restart", "demo", "node1", "--force"), 0);
    assert_out(TABLE "Failed: restart for member node1, status code=503, (restart failed)\n");
    assert_string_equal(lab.seen, "/restart {}\n");
    assert_int_equal(RUN("\ny\n15.1\n", "restart", "demo", "-r", "leader", "--timeout", "9"), 0);
    assert_out("Are you sure you want to restart members node1? [y/N]: Restart if the PostgreSQL version is less than provided (e.g. 9.5.2)  []: ");
    assert_string_equal(lab.seen, "/restart {\"postgres_version\": \"15.1\", \"timeout\": \"9\"}\n");
    assert_int_equal(RUN(NULL, "restart", "demo", "ghost", "--force"), 1);
    assert_out("Error: No 'any' among provided members\n");
    assert_int_equal(RUN(NULL, "reload", "demo", "node1", "--force"), 0);
    assert_out("Reload request received for member node1 and will be processed within 1 seconds\n");
    assert_int_equal(RUN(NULL, "reinit", "demo", "node1", "--force"), 1);
    assert_out("Error: No replica among provided members\n");
    assert_int_equal(RUN("node9\n", "reinit", "demo"), 1);
    assert_out("Which member do you want to reinitialize [node2]? []: ");
    assert_out("Error: node9 is not a member of cluster\n");
}

static void test_pause(void **state)
{
    (void)state;
    assert_int_equal(RUN(NULL, "pause"), 0);
    assert_string_equal(lab.out, "Success: cluster management is paused\n");
    assert_string_equal(lab.seen, "/config {\"pause\": true}\n");
    assert_int_equal(RUN(NULL, "resume"), 1);
    assert_string_equal(lab.out, "Error: Cluster is not paused\n");
    put("config", "{\"loop_wait\":1,\"pause\":true}");
    assert_int_equal(RUN(NULL, "resume", "--wait"), 0);
    assert_string_equal(lab.seen, "/config {\"pause\": null}\n");
    assert_string_equal(lab.out, "'resume' request sent, waiting until it is recognized by all nodes\nSuccess: cluster management is resumed\n");
    assert_int_equal(RUN(NULL, "pause"), 1);
    assert_string_equal(lab.out, "Error: Cluster is already paused\n");
    assert_int_equal(RUN(NULL, "switchover", "--force", "--scheduled", "2030-01-01T10:00Z"), 1);
    assert_out("Error: Can't schedule switchover in the paused state\n");
    put_cluster();
}

static void test_edit_config(void **state)
{
    (void)state;
    assert_int_equal(RUN(NULL, "edit-config", "--force", "-s", "ttl=20", "-p", "superuser_reserved_connections=6", "-s", "retry_timeout=null"), 0);
    assert_string_equal(lab.out, "--- \n+++ \n@@ -2,5 +2,5 @@\n postgresql:\n   parameters:\n     hot_standby: 'on'\n-retry_timeout: 10\n-ttl: 30\n"
                                 "+    superuser_reserved_connections: 6\n+ttl: 20\nConfiguration changed\n");
    assert_int_equal(RUN(NULL, "edit-config", "-s", "ttl=20"), 0);
    assert_string_equal(lab.out, "Not changed\n");
    assert_int_equal(RUN("n\n", "edit-config", "-q", "-s", "postgresql.parameters=null"), 0);
    assert_string_equal(lab.out, "Apply these changes? [y/N]: ");
    assert_int_equal(RUN("ttl: 30\n", "edit-config", "--apply", "-"), 0);
    assert_out("Use --force option to apply changes\n");
    assert_int_equal(RUN(NULL, "edit-config", "--force", "-s", "ttl"), 1);
    assert_string_equal(lab.out, "Error: Invalid parameter setting ttl\n");
    assert_int_equal(RUN("a.b: 1\npostgresql: {parameters: {x: y}}\n", "edit-config", "--force", "-q", "--replace", "-", "-s", "postgresql.parameters.x="), 0);
    assert_int_equal(RUN(NULL, "show-config"), 0);
    assert_string_equal(lab.out, "a.b: 1\n\n"); /* empty parents go too */
    put_cluster();
}

static void test_explain(void **state)
{
    (void)state;
    assert_int_equal(RUN(NULL, "explain"), 0);
    assert_out("node1 (primary, running)\n  rule: leader.hold (we lead: renew)\n  holds for: 2.5 s\n"
               "  reason: no action. I am (node1), the leader with the lock\n  lease: held=true epoch=7\n"
               "  would be promoted now: yes, because it leads already\n");
    assert_out("node2: does not answer at http://127.0.0.1:1/patroni (");
    assert_out("  last seen in etcd: role=replica state=running timeline=3 position=0/5000060 revision=");
    assert_int_equal(RUN(NULL, "explain", "ghost"), 0);
    assert_out("ghost: has no key in etcd");
    assert_int_equal(RUN(NULL, "explain", "node1", "-f", "json"), 0);
    assert_out("[{\"name\": \"node1\", \"rule\": \"leader.hold\"");
}

static void test_remove(void **state)
{
    (void)state;
    assert_int_equal(RUN("other\n", "remove", "demo"), 1);
    assert_out("Error: Cluster names specified do not match\n");
    assert_int_equal(RUN("demo\nyes\n", "remove", "demo"), 1);
    assert_out("Error: You did not exactly type \"Yes I am aware\"\n");
    assert_int_equal(RUN("demo\nYes I am aware\nnode2\n", "remove", "demo"), 1);
    assert_out("Error: You did not specify the current leader of the cluster\n");
    assert_int_equal(RUN("demo\nYes I am aware\nnode1\n", "remove", "demo"), 0);
    assert_int_equal(RUN(NULL, "list"), 0);
    assert_out("+ Cluster: demo (uninitialized) ");
}

/* etcd gone: an error after retry_timeout, not for ever (CLI-05 [D]). */
static void test_no_etcd(void **state)
{
    FILE *f = fopen(lab.config, "w");
    struct dra_instant before = dra_now();
    (void)state;
    assert_non_null(f);
    (void)fprintf(f, "scope: demo\netcd3:\n  host: %s\nbootstrap: {dcs: {retry_timeout: 3}}\n", lab.etcds.m[0].host);
    assert_int_equal(fclose(f), 0);
    member_signal(&lab.etcds, 0, SIGKILL);
    assert_int_equal(RUN(NULL, "list"), 1);
    assert_out("Error: etcd: ");
    assert_true(ms_since(before) < 8000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reading),     cmocka_unit_test(test_errors), cmocka_unit_test(test_switchover),
        cmocka_unit_test(test_falls_back),  cmocka_unit_test(test_members), cmocka_unit_test(test_pause),
        cmocka_unit_test(test_edit_config), cmocka_unit_test(test_explain), cmocka_unit_test(test_remove),
        cmocka_unit_test(test_no_etcd),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
