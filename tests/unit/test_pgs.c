/*
 * test_pgs.c - the pure parts of agent/postgres: argument vectors, connection strings, configuration texts, and the
 * parsers of what the server's tools and files say.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "postgres/conffile.h"
#include "postgres/config.h"
#include "postgres/conninfo.h"
#include "postgres/control.h"
#include "postgres/proc.h"
#include "postgres/spawn.h"

static const char base_yaml[] = "scope: demo\n"
                                "name: pg-1\n"
                                "postgresql:\n"
                                "  listen: 10.0.0.1,127.0.0.1:5433\n"
                                "  data_dir: /srv/pg/data/\n"
                                "  bin_dir: /usr/lib/postgresql/15/bin\n"
                                "  pgpass: /srv/pg/pgpass\n"
                                "  authentication:\n"
                                "    superuser: {username: postgres, password: 'se cret'}\n"
                                "    replication: {username: replicator, password: 12345}\n"
                                "  parameters:\n"
                                "    work_mem: 8MB\n"
                                "    Max_Connections: 200\n"
                                "    max_wal_senders: 1\n"
                                "    wal_keep_segments: 4\n"
                                "    log_line_prefix: \"it's \\\\ 100% \"\n"
                                "    no_such_thing: 1\n"
                                "    myext.setting: x\n"
                                "    hot_standby: off\n"
                                "    archive_mode: on\n"
                                "  parameters_primary: {work_mem: 16MB}\n"
                                "  recovery_conf: {restore_command: 'cp /a/%f %p', recovery_target_time: now}\n"
                                "  pg_hba: [local all all trust, 'host all all 0.0.0.0/0 md5']\n"
                                "  basebackup: [verbose, {max-rate: 10M}, {wal-method: none}]\n";

static struct pgs_conf *load(const char *yaml)
{
    struct json *j = NULL;
    struct pgs_conf *c = NULL;
    struct dra_err err = {0};

    assert_int_equal(yaml_acc_load("t.yml", yaml, strlen(yaml), &j, &err), 0);
    if (pgs_conf_new(j, &c, &err) != 0) {
        fail_msg("%s", err.msg);
    }
    json_free(j);
    return c;
}

static void test_argv_split(void **state)
{
    static const struct {
        const char *command;
        int n; /* -1 = error */
        const char *words[5];
    } rows[] = {
        {"a b", 2, {"a", "b"}},
        {"  cb.sh \"a b\"  c ", 3, {"cb.sh", "a b", "c"}},
        {"x 'it''s' y", 3, {"x", "its", "y"}},
        {"x \"a\\\"b\\c\" ''", 3, {"x", "a\"b\\c", ""}},
        {"x a\\ b", 2, {"x", "a b"}},
        {"", 0, {NULL}},
        {"x 'open", -1, {NULL}},
        {"x \\", -1, {NULL}},
        {"$HOME `id` *", 3, {"$HOME", "`id`", "*"}},
    };

    (void)state;
    for (size_t i = 0; i < DRA_ARRAY_LEN(rows); i++) {
        struct pgs_argv a;
        struct dra_err err;
        int rc;

        pgs_argv_init(&a);
        rc = pgs_argv_split(&a, rows[i].command, &err);
        if ((rows[i].n < 0) != (rc != 0) || (rc == 0 && a.n != rows[i].n)) {
            fail_msg("%s: rc %d, %d words", rows[i].command, rc, a.n);
        }
        for (int k = 0; k < rows[i].n; k++) {
            assert_string_equal(a.v[k], rows[i].words[k]);
        }
        pgs_argv_deinit(&a);
    }
}

static void test_config(void **state)
{
    struct pgs_conf *c = load(base_yaml);
    static const char *const forbidden[] = {"wal-method", NULL};
    struct pgs_argv a;
    struct dra_err err;

    (void)state;
    assert_string_equal(c->scope, "demo");
    assert_string_equal(c->name, "pg-1");
    assert_string_equal(c->data_dir, "/srv/pg/data");
    assert_string_equal(c->config_dir, "/srv/pg/data");
    assert_string_equal(c->listen_addresses, "10.0.0.1,127.0.0.1");
    assert_int_equal(c->port, 5433);
    assert_string_equal(c->tool[PGS_TOOL_REWIND], "/usr/lib/postgresql/15/bin/pg_rewind");
    assert_string_equal(c->replication.password, "12345"); /* a YAML number (CFG-32) */
    assert_string_equal(c->rewind.username, "postgres");
    assert_true(c->rewind_is_superuser);
    assert_true(c->use_slots);
    pgs_argv_init(&a);
    assert_int_equal(pgs_conf_options(json_get(c->pg, "basebackup"), forbidden, false, &a, &err), 0);
    assert_int_equal(a.n, 2);
    assert_string_equal(a.v[0], "--verbose");
    assert_string_equal(a.v[1], "--max-rate=10M");
    assert_int_not_equal(pgs_conf_options(json_get(c->pg, "basebackup"), forbidden, true, &a, &err), 0);
    pgs_argv_deinit(&a);
    pgs_conf_unref(c);
}

/* HA-225, CFG-34: order, escapes, what is left out. */
static void test_conninfo(void **state)
{
    struct pgs_conf *c = load(base_yaml);
    struct pgs_conninfo ci = {.user = &c->replication,
                              .dbname = "postgres",
                              .host = "10.20.0.11",
                              .port = 5432,
                              .passfile = "/var/lib/pgpass",
                              .application_name = "bravo",
                              .defaults = true,
                              .major = 15};
    struct dra_buf b;
    char red[256];

    (void)state;
    dra_buf_init(&b, 4096);
    pgs_conninfo_build(&ci, &b);
    assert_string_equal(dra_buf_str(&b), "dbname=postgres user=replicator passfile=/var/lib/pgpass host=10.20.0.11 port=5432 "
                                         "sslmode=prefer application_name=bravo gssencmode=prefer channel_binding=prefer");
    dra_buf_reset(&b);
    ci.user = &c->superuser;
    ci.with_password = true;
    ci.defaults = false;
    ci.dbname = "it's";
    pgs_conninfo_build(&ci, &b);
    assert_string_equal(dra_buf_str(&b), "dbname=it\\'s user=postgres password=se\\ cret host=10.20.0.11 port=5432 application_name=bravo");
    pgs_conninfo_redact(dra_buf_str(&b), red, sizeof red);
    assert_string_equal(red, "dbname=it\\'s user=postgres password=*** host=10.20.0.11 port=5432 application_name=bravo");
    dra_buf_deinit(&b);
    pgs_conf_unref(c);
}

static void test_pgpass_and_local(void **state)
{
    struct pgs_conf *c = load(base_yaml);
    struct pgs_user u = {.username = "a:b", .password = "x\\y"};
    struct pgs_local local;
    struct dra_buf b;

    (void)state;
    dra_buf_init(&b, 4096);
    pgs_pgpass_add(&b, &u, "/run/pg", 5432);
    assert_string_equal(dra_buf_str(&b), "/run/pg:5432:*:a\\:b:x\\\\y\nlocalhost:5432:*:a\\:b:x\\\\y\n");
    dra_buf_reset(&b);
    pgs_pgpass_add(&b, &u, "fe80::1", 1);
    assert_string_equal(dra_buf_str(&b), "fe80\\:\\:1:1:*:a\\:b:x\\\\y\n");
    dra_buf_deinit(&b);
    pgs_local_address(c, false, &local); /* HA-230: 127.0.0.1 is among the addresses */
    assert_string_equal(local.host, "localhost");
    assert_string_equal(local.hostaddr, "127.0.0.1");
    dra_str_clip(c->listen_addresses, sizeof c->listen_addresses, "10.0.0.1");
    pgs_local_address(c, false, &local);
    assert_string_equal(local.host, "10.0.0.1");
    assert_string_equal(local.hostaddr, "10.0.0.1");
    c->use_unix_socket = true;
    dra_str_clip(c->socket_dir, sizeof c->socket_dir, "/run/pg");
    pgs_local_address(c, false, &local);
    assert_string_equal(local.host, "/run/pg");
    pgs_conf_unref(c);
}

static struct pgs_gucs *some_gucs(void)
{
    struct dra_buf b;
    struct pgs_gucs *g = NULL;
    struct dra_err err;

    dra_buf_init(&b, 65536);
    dra_buf_adds(&b, "work_mem\tuser\tx\nlog_line_prefix\tsighup\tx\narchive_mode\tpostmaster\tx\nDateStyle\tuser\tx\n");
    for (int i = 0; i < 120; i++) {
        dra_buf_addf(&b, "filler_%d\tuser\tx\n", i);
    }
    assert_int_equal(pgs_gucs_parse(dra_buf_str(&b), &g, &err), 0);
    dra_buf_deinit(&b);
    return g;
}

/* CFG-70..75, HA-220..225. */
static void test_conffile_primary(void **state)
{
    struct pgs_conf *c = load(base_yaml);
    struct pgs_gucs *g = some_gucs();
    struct pgs_conffile f = {.conf = c, .major = 15, .role = HA_ROLE_PRIMARY, .known = g};
    struct pgs_settings *p = calloc(1, sizeof *p);
    struct dra_buf warn, raised, text;
    struct pgs_argv a;
    struct dra_err err;

    (void)state;
    dra_buf_init(&warn, 4096);
    dra_buf_init(&raised, 4096);
    dra_buf_init(&text, 65536);
    assert_int_equal(pgs_settings_build(&f, p, &warn, &raised, &err), 0);
    assert_string_equal(pgs_settings_get(p, "work_mem"), "16MB"); /* the role's wins */
    assert_string_equal(pgs_settings_get(p, "max_connections"), "200");
    assert_string_equal(pgs_settings_get(p, "max_wal_senders"), "10"); /* below the minimum: the default */
    assert_string_equal(pgs_settings_get(p, "wal_keep_size"), "64MB"); /* CFG-71 */
    assert_null(pgs_settings_get(p, "wal_keep_segments"));
    assert_string_equal(pgs_settings_get(p, "hot_standby"), "on");
    assert_string_equal(pgs_settings_get(p, "myext.setting"), "x");
    assert_null(pgs_settings_get(p, "no_such_thing"));
    assert_non_null(strstr(dra_buf_str(&warn), "no_such_thing"));
    assert_non_null(strstr(dra_buf_str(&warn), "max_wal_senders=1 failed validation, defaulting to 10"));
    pgs_conffile_build(&f, p, &text);
    assert_true(pgs_conffile_is_ours(dra_buf_str(&text)));
    assert_non_null(strstr(dra_buf_str(&text), "\ninclude 'postgresql.base.conf'\n\narchive_mode = 'on'\ncluster_name = 'demo'\n"));
    assert_non_null(strstr(dra_buf_str(&text), "\nlog_line_prefix = 'it''s \\\\ 100% '\n"));
    assert_non_null(strstr(dra_buf_str(&text), "\nhba_file = '/srv/pg/data/pg_hba.conf'\n"));
    assert_null(strstr(dra_buf_str(&text), "primary_conninfo"));
    assert_string_equal(pgs_conffile_recovery(dra_buf_str(&text)), "");
    pgs_argv_init(&a);
    pgs_command_line(c, p, &a);
    assert_string_equal(a.v[1], "-D");
    assert_string_equal(a.v[3], "--config-file=/srv/pg/data/postgresql.conf");
    assert_string_equal(a.v[4], "--listen_addresses=10.0.0.1,127.0.0.1");
    assert_string_equal(a.v[5], "--port=5433");
    assert_string_equal(a.v[6], "--cluster_name=demo");
    assert_string_equal(a.v[7], "--wal_level=replica");
    assert_int_equal(a.n, 17); /* 4 + the 13 of CFG-70 */
    pgs_argv_deinit(&a);
    dra_buf_deinit(&warn);
    dra_buf_deinit(&raised);
    dra_buf_deinit(&text);
    pgs_settings_deinit(p);
    free(p);
    pgs_gucs_free(g);
    pgs_conf_unref(c);
}

static void test_conffile_standby(void **state)
{
    struct pgs_conf *c = load(base_yaml);
    struct pgs_control control = {.max_connections = 300, .max_prepared_xacts = 5, .max_locks_per_xact = 10,
                                  .max_worker_processes = -1, .max_wal_senders = 10};
    struct pgs_conffile f = {.conf = c,
                             .major = 15,
                             .role = HA_ROLE_REPLICA,
                             .control = &control,
                             .primary_conninfo = "user=r passfile=/a\\ b host=10.0.0.2 port=5434"};
    struct pgs_settings *p = calloc(1, sizeof *p);
    struct dra_buf warn, raised, text, again;
    char host[64];
    struct dra_err err;
    int port = 0;

    (void)state;
    dra_buf_init(&warn, 4096);
    dra_buf_init(&raised, 4096);
    dra_buf_init(&text, 65536);
    dra_buf_init(&again, 65536);
    assert_int_equal(pgs_settings_build(&f, p, &warn, &raised, &err), 0);
    assert_string_equal(pgs_settings_get(p, "max_connections"), "300"); /* HA-223 */
    assert_string_equal(pgs_settings_get(p, "max_prepared_transactions"), "5");
    assert_string_equal(dra_buf_str(&raised), "max_connections 200 300\nmax_prepared_transactions 0 5\n");
    pgs_conffile_build(&f, p, &text);
    assert_string_equal(pgs_conffile_recovery(dra_buf_str(&text)),
                        "restore_command = 'cp /a/%f %p'\n"
                        "primary_conninfo = 'user=r passfile=/a\\\\ b host=10.0.0.2 port=5434'\n"
                        "primary_slot_name = 'pg_1'\n"
                        "recovery_target_timeline = 'latest'\n"
                        "recovery_target = ''\nrecovery_target_lsn = ''\nrecovery_target_name = ''\n"
                        "recovery_target_time = ''\nrecovery_target_xid = ''\n");
    assert_true(pgs_conffile_upstream(dra_buf_str(&text), host, sizeof host, &port));
    assert_string_equal(host, "10.0.0.2");
    assert_int_equal(port, 5434);
    /* HA-226: with the upstream unknown the block stays as it is. */
    f.keep_recovery = pgs_conffile_recovery(dra_buf_str(&text));
    f.primary_conninfo = "";
    pgs_conffile_build(&f, p, &again);
    assert_string_equal(dra_buf_str(&again), dra_buf_str(&text));
    f.keep_recovery = NULL;
    dra_buf_reset(&again);
    pgs_conffile_build(&f, p, &again);
    assert_non_null(strstr(dra_buf_str(&again), "\nprimary_conninfo = ''\nprimary_slot_name = ''\n"));
    assert_false(pgs_conffile_upstream(dra_buf_str(&again), host, sizeof host, &port));
    dra_buf_deinit(&warn);
    dra_buf_deinit(&raised);
    dra_buf_deinit(&text);
    dra_buf_deinit(&again);
    pgs_settings_deinit(p);
    free(p);
    pgs_conf_unref(c);
}

static void test_line_files(void **state)
{
    struct pgs_conf *c = load(base_yaml);
    struct dra_buf b;

    (void)state;
    dra_buf_init(&b, 4096);
    assert_true(pgs_linefile_build(c, "pg_hba", HA_ROLE_PRIMARY, &b));
    assert_string_equal(dra_buf_str(&b), "# Do not edit this file manually!\n# It will be overwritten by Patroni!\n"
                                         "local all all trust\nhost all all 0.0.0.0/0 md5\n");
    dra_buf_reset(&b);
    assert_false(pgs_linefile_build(c, "pg_ident", HA_ROLE_PRIMARY, &b));
    assert_true(pgs_autoconf_clean("# x\nwork_mem = '1'\nprimary_conninfo = 'host=z'\n  Restore_Command='y'\nx = 1", &b));
    assert_string_equal(dra_buf_str(&b), "# x\nwork_mem = '1'\nx = 1");
    dra_buf_reset(&b);
    assert_false(pgs_autoconf_clean("work_mem = '1'\n", &b));
    dra_buf_deinit(&b);
    pgs_conf_unref(c);
}

static const char control_text[] = "pg_control version number:            1300\n"
                                   "Database system identifier:           7710617536940349840\n"
                                   "Database cluster state:               shut down in recovery\n"
                                   "Latest checkpoint location:           0/1511B00\n"
                                   "Latest checkpoint's REDO location:    0/1511B00\n"
                                   "Latest checkpoint's TimeLineID:       3\n"
                                   "Latest checkpoint's PrevTimeLineID:   2\n"
                                   "Minimum recovery ending location:     0/2000000\n"
                                   "Min recovery ending loc's timeline:   4\n"
                                   "wal_log_hints setting:                on\n"
                                   "max_connections setting:              100\n"
                                   "Bytes per WAL segment:                1048576\n"
                                   "Data page checksum version:           0\n";

static void test_control(void **state)
{
    struct pgs_control c;
    struct dra_err err;

    (void)state;
    assert_int_equal(pgs_control_parse(control_text, &c, &err), 0);
    assert_string_equal(c.sysid, "7710617536940349840");
    assert_int_equal(c.state, HA_CONTROL_SHUT_DOWN_IN_RECOVERY);
    assert_true(c.checkpoint_lsn == 0x1511B00);
    assert_int_equal(c.timeline, 3);
    assert_true(c.min_recovery_lsn == 0x2000000);
    assert_int_equal(c.min_recovery_timeline, 4);
    assert_true(c.wal_log_hints);
    assert_false(c.checksums);
    assert_int_equal(c.wal_segment_bytes, 1048576);
    assert_int_equal(c.max_connections, 100);
    assert_int_equal(c.max_wal_senders, -1);
    assert_int_not_equal(pgs_control_parse("", &c, &err), 0);
    assert_int_not_equal(pgs_control_parse("pg_controldata: fatal: no such file\n", &c, &err), 0);
}

static void test_waldump(void **state)
{
    static const char one[] =
        "rmgr: XLOG        len (rec/tot):    114/   114, tx:          0, lsn: 0/01511B00, prev 0/01511A88, desc: CHECKPOINT_SHUTDOWN "
        "redo 0/1511B00; tli 1; shutdown\npg_waldump: error: error in WAL record at 0/1511B00: invalid record length at 0/1511B78: "
        "wanted 24, got 0\n";
    static const char online[] = "rmgr: XLOG        len (rec/tot):    114/   114, tx: 0, lsn: 0/01511B00, prev 0/01511A88, desc: "
                                 "CHECKPOINT_ONLINE redo 0/1511B00; online\n";
    static const char two[] =
        "rmgr: XLOG len (rec/tot): 114/ 114, tx: 0, lsn: 0/01511B00, prev 0/01511A88, desc: CHECKPOINT_SHUTDOWN redo\n"
        "rmgr: XLOG len (rec/tot): 30/ 30, tx: 0, lsn: 0/01511B78, prev 0/01511B00, desc: NEXTOID\n";
    static const struct {
        uint64_t lsn;
        uint32_t len;
        uint64_t end;
    } ends[] = {
        {0x1511B00, 114, 0x1511B78},
        {0x1513FE8, 24, 0x1514000},                  /* ends with its page */
        {0x1513FE8, 114, 0x1514000 + 24 + 96},       /* 90 bytes on the next page, aligned */
        {0x1FFFFE8, 114, 0x2000000 + 40 + 96},       /* the next page begins a segment */
        {0x1513FE8, 24 + 8168 + 10, 0x1516000 + 24 + 16}, /* over a whole page */
    };
    struct dra_err err;
    uint64_t end = 0;

    (void)state;
    assert_int_equal(pgs_waldump_parse(one, 0x1511B00, 16 << 20, &end, &err), 0);
    assert_true(end == 0x1511B78);
    assert_int_not_equal(pgs_waldump_parse(one, 0x1511B08, 16 << 20, &end, &err), 0);
    assert_int_not_equal(pgs_waldump_parse(online, 0x1511B00, 16 << 20, &end, &err), 0);
    assert_int_not_equal(pgs_waldump_parse(two, 0x1511B00, 16 << 20, &end, &err), 0);
    assert_int_not_equal(pgs_waldump_parse("", 0x1511B00, 16 << 20, &end, &err), 0);
    for (size_t i = 0; i < DRA_ARRAY_LEN(ends); i++) {
        uint64_t got = pgs_record_end(ends[i].lsn, ends[i].len, 16 << 20);

        if (got != ends[i].end) {
            fail_msg("row %zu: %llx", i, (unsigned long long)got);
        }
    }
}

static void test_pidfile_and_history(void **state)
{
    struct pgs_pidfile f;
    uint64_t lsn = 0;
    static const char history[] = "1\t0/5000000\tno recovery target specified\n\n2\t0/6000098\tx\n";

    (void)state;
    assert_int_equal(pgs_pidfile_parse("14816\n/tmp/pgx/d\n1795268044\n7801\n/tmp/pgx\n\n 10952778        34\nready   \n", &f), 0);
    assert_int_equal(f.pid, 14816);
    assert_true(f.start_time == 1795268044);
    assert_int_equal(f.port, 7801);
    assert_string_equal(f.status, "ready");
    assert_int_equal(pgs_pidfile_parse("-77\n/d\n1\n\n\n", &f), 0);
    assert_int_equal(f.pid, -77);
    assert_int_not_equal(pgs_pidfile_parse("", &f), 0);
    assert_int_not_equal(pgs_pidfile_parse("x\n", &f), 0);
    assert_true(pgs_history_find(history, 2, &lsn));
    assert_true(lsn == 0x6000098);
    assert_true(pgs_history_find(history, 1, &lsn));
    assert_true(lsn == 0x5000000);
    assert_false(pgs_history_find(history, 3, &lsn));
}

static void test_proc_and_env(void **state)
{
    static const char *const from[] = {"PATH=/bin", "PATRONI_X=1", "NOTIFY_SOCKET=/x", "PG_MALLOC_ARENA_MAX=2", "KUBERNETES_P=1", NULL};
    char *in[6];
    struct pgs_stat st;
    char **env;

    (void)state;
    assert_true(pgs_stat_parse("14816 (a) b (c) S 14715 14714 14713 0 -1 4194304 1 2 3 4 5 6 7 8 20 0 1 0 135520 9\n", &st));
    assert_int_equal(st.state, 'S');
    assert_int_equal(st.ppid, 14715);
    assert_int_equal(st.session, 14713);
    assert_true(st.start_ticks == 135520);
    assert_false(pgs_stat_parse("14816 (x) S 1 2", &st));
    for (size_t i = 0; i < DRA_ARRAY_LEN(from) - 1; i++) {
        in[i] = strdup(from[i]);
    }
    in[5] = NULL;
    env = pgs_spawn_env(in, 42, "svc"); /* HA-224 */
    assert_string_equal(env[0], "PATH=/bin");
    assert_string_equal(env[1], "MALLOC_ARENA_MAX=2");
    assert_string_equal(env[2], "PG_GRANDPARENT_PID=42");
    assert_string_equal(env[3], "PGKRBSRVNAME=svc");
    assert_null(env[4]);
    pgs_spawn_env_free(env);
    for (size_t i = 0; i < 5; i++) {
        free(in[i]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_argv_split),       cmocka_unit_test(test_config),
        cmocka_unit_test(test_conninfo),         cmocka_unit_test(test_pgpass_and_local),
        cmocka_unit_test(test_conffile_primary), cmocka_unit_test(test_conffile_standby),
        cmocka_unit_test(test_line_files),       cmocka_unit_test(test_control),
        cmocka_unit_test(test_waldump),          cmocka_unit_test(test_pidfile_and_history),
        cmocka_unit_test(test_proc_and_env),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
