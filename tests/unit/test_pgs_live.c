/*
 * test_pgs_live.c - agent/postgres against real servers on a real loop: the way of two nodes from initdb to a rewound
 * old primary.  The tests build on each other, in this order.
 *
 * PostgreSQL refuses root: started as root it goes on as user postgres.  Without the server's programs it is skipped.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <arpa/inet.h>
#include <cmocka.h>
#include <dirent.h>
#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <uv.h>

#include <dragent/pgs.h>

#include "pgs_live_fixture.h"

/* ---- the way ---------------------------------------------------------------------------------------------------------- */

static void test_empty(void **state)
{
    const struct ha_pg *f = read_files(&t.a);

    (void)state;
    assert_int_equal(f->datadir, HA_DATADIR_EMPTY);
    assert_int_equal(f->postmaster, DRA_NO);
    assert_int_equal(f->leftovers, DRA_NO);
    assert_int_equal(f->state, HA_STATE_STOPPED);
}

static void test_initdb(void **state)
{
    const struct ha_pg *f;

    (void)state;
    job_ok(&t.a, HA_JOB_INITDB, NULL);
    f = pgs_facts(t.a.pgs);
    assert_int_equal(f->datadir, HA_DATADIR_VALID);
    assert_int_equal(f->control, HA_CONTROL_SHUT_DOWN);
    assert_int_equal(f->major, 15);
    assert_true(f->sysid[0] != '\0');
    assert_true(f->checkpoint_end_lsn > f->checkpoint_lsn);
    assert_int_equal(f->control_timeline, 1);
    assert_false(f->standby_signal);
    {
        struct ha_job again = {.kind = HA_JOB_INITDB}; /* never over something */

        assert_false(job_run(&t.a, &again, "")->ok);
        assert_int_equal(pgs_facts(t.a.pgs)->datadir, HA_DATADIR_VALID);
    }
}

/* SAFE-33: withdrawn while the child waits: nothing has happened. */
static void test_start_withdrawn(void **state)
{
    struct ha_job job = {.kind = HA_JOB_START_PRIMARY};
    const struct ha_job_result *r;

    (void)state;
    t.a.go = false;
    r = job_run(&t.a, &job, "");
    assert_false(r->ok);
    assert_int_equal(r->err_code, DRA_ECANCELED);
    assert_int_equal(t.a.forks, 1);
    assert_false(dra_proc_is_alive(&t.a.forked));
    assert_int_equal(pgs_facts(t.a.pgs)->postmaster, DRA_NO);
    t.a.go = true;
    job.not_after = dra_now(); /* passed: refused at the last moment */
    r = job_run(&t.a, &job, "");
    assert_int_equal(r->err_code, DRA_ESTATE);
    assert_false(dra_proc_is_alive(&t.a.forked));
}

static void test_start_primary(void **state)
{
    const struct ha_pg *f;
    struct dra_err err;

    (void)state;
    job_ok(&t.a, HA_JOB_START_PRIMARY, NULL);
    f = pgs_facts(t.a.pgs);
    assert_int_equal(f->postmaster, DRA_YES);
    assert_int_equal(f->pid, t.a.forked.pid); /* what the guard was told */
    assert_int_equal(f->accepting, DRA_YES);
    assert_int_equal(f->in_recovery, DRA_NO);
    assert_int_equal(f->state, HA_STATE_RUNNING);
    assert_int_equal(f->timeline, 1);
    assert_true(f->wal_lsn > 0);
    assert_false(f->started_as_standby);
    assert_true(has_file(&t.a, "postgresql.base.conf"));
    assert_true(has_file(&t.a, "postgresql.conf.backup"));
    {
        struct ha_job job = {.kind = HA_JOB_STOP};
        struct ha_job other = {.kind = HA_JOB_START_PRIMARY};

        assert_int_equal(pgs_job_start(t.a.pgs, &other, "", 99, &err), 0);
        assert_int_equal(pgs_job_start(t.a.pgs, &job, "", 100, &err), DRA_EBUSY);
        t.a.done = false;
        assert_true(wait_for(job_is_done, &t.a, 5000));
        assert_int_equal(t.a.r.err_code, DRA_ESTATE); /* it runs */
    }
}

static void test_post_bootstrap(void **state)
{
    char path[300];

    (void)state;
    job_ok(&t.a, HA_JOB_POST_BOOTSTRAP, NULL);
    assert_string_equal(query(&t.a, "SELECT rolreplication FROM pg_roles WHERE rolname='replicator'"), "t");
    assert_string_equal(query(&t.a, "SELECT has_function_privilege('rewinder', 'pg_ls_dir(text,boolean,boolean)', 'execute')"), "t");
    (void)snprintf(path, sizeof path, "%s/post_bootstrap", t.dir);
    assert_true(dra_file_exists(path));
    job_ok(&t.a, HA_JOB_POST_BOOTSTRAP, NULL); /* altered if they exist (HA-54) */
}

static void test_slots(void **state)
{
    struct ha_slot_pos want[2] = {{.name = "pg_b"}, {.name = "pg_c"}};
    struct dra_err err;

    (void)state;
    t.effect_done = false;
    assert_int_equal(pgs_slots(t.a.pgs, want, 2, true, on_effect, NULL, &err), 0);
    effect_ok();
    assert_string_equal(query(&t.a, "SELECT string_agg(slot_name, ',' ORDER BY slot_name) FROM pg_replication_slots"), "pg_b,pg_c");
    t.effect_done = false;
    assert_int_equal(pgs_slots(t.a.pgs, want, 1, true, on_effect, NULL, &err), 0);
    effect_ok();
    assert_string_equal(query(&t.a, "SELECT string_agg(slot_name, ',') FROM pg_replication_slots"), "pg_b");
}

static void test_basebackup(void **state)
{
    const struct ha_pg *f;

    (void)state;
    job_ok(&t.b, HA_JOB_BASEBACKUP, &t.a);
    f = pgs_facts(t.b.pgs);
    assert_int_equal(f->datadir, HA_DATADIR_VALID);
    assert_string_equal(f->sysid, pgs_facts(t.a.pgs)->sysid);
    assert_true(f->standby_signal);
    /* A copy over a copy: what was there is set aside, then dropped. */
    job_ok(&t.b, HA_JOB_BASEBACKUP, &t.a);
    {
        char aside[300];

        (void)snprintf(aside, sizeof aside, "%s.aside-1", t.b.dir);
        assert_true(dra_file_exists(aside));
        job_ok(&t.b, HA_JOB_DROP_ASIDE, NULL);
        assert_false(dra_file_exists(aside));
    }
}

/* A source that does not answer leaves an empty place and no marker. */
static void test_basebackup_fails(void **state)
{
    struct ha_job job = {.kind = HA_JOB_BASEBACKUP, .member = "nobody"};
    char aside[300];
    char away[300];
    pid_t orphan;
    int status = 0;

    (void)state;
    orphan = fork(); /* a tool that an earlier agent left at work there is ended first */
    if (orphan == 0) {
        char arg[300];

        (void)snprintf(arg, sizeof arg, "--pgdata=%s", t.b.dir);
        (void)execl("/bin/sh", "sh", "-c", "sleep 15", "tool", arg, (char *)NULL);
        _exit(127);
    }
    assert_true(orphan > 1);
    (void)wait_for(never, NULL, 200); /* until it has exec'ed */
    assert_false(job_run(&t.b, &job, "postgres://127.0.0.1:1/postgres")->ok);
    assert_int_equal(waitpid(orphan, &status, WNOHANG), orphan);
    assert_true(WIFSIGNALED(status));
    assert_int_equal(read_files(&t.b)->datadir, HA_DATADIR_EMPTY);
    (void)snprintf(aside, sizeof aside, "%s.aside-1", t.b.dir);
    (void)snprintf(away, sizeof away, "%s", t.b.dir);
    assert_int_equal(rename(aside, away), 0);
    assert_int_equal(read_files(&t.b)->datadir, HA_DATADIR_VALID);
}

static void test_start_standby(void **state)
{
    const struct ha_pg *f;

    (void)state;
    job_ok(&t.b, HA_JOB_START_STANDBY, &t.a);
    f = pgs_facts(t.b.pgs);
    assert_int_equal(f->in_recovery, DRA_YES);
    assert_true(f->started_as_standby);
    assert_true(f->upstream_known);
    assert_string_equal(f->upstream, "pg-a");
    assert_true(becomes(&t.b, true, 10000));
    assert_int_equal(pgs_facts(t.b.pgs)->timeline, 1);
    assert_string_equal(query(&t.a, "SELECT application_name FROM pg_stat_replication"), "pg-b");
    assert_string_equal(query(&t.a, "SELECT active FROM pg_replication_slots"), "t");
    probe(&t.a);
    assert_int_equal(json_size(pgs_view(t.a.pgs)->replication), 1);
    assert_int_equal(pgs_view(t.a.pgs)->server_version / 10000, 15);
    assert_true(pgs_view(t.a.pgs)->postmaster_start_us > 0);
}

static void test_follow(void **state)
{
    struct dra_err err;
    int32_t pid = pgs_facts(t.b.pgs)->pid;

    (void)state;
    t.effect_done = false; /* SAFE-41: the upstream is dropped by a reload */
    assert_int_equal(pgs_follow(t.b.pgs, "", "", on_effect, NULL, &err), 0);
    effect_ok();
    assert_true(pgs_facts(t.b.pgs)->upstream_known);
    assert_string_equal(pgs_facts(t.b.pgs)->upstream, "");
    assert_true(becomes(&t.b, false, 5000));
    t.effect_done = false;
    assert_int_equal(pgs_follow(t.b.pgs, "pg-a", t.a.url, on_effect, NULL, &err), 0);
    effect_ok();
    assert_true(becomes(&t.b, true, 10000));
    assert_int_equal(pgs_facts(t.b.pgs)->pid, pid);
    assert_int_not_equal(pgs_follow(t.a.pgs, "pg-b", t.b.url, on_effect, NULL, &err), 0); /* a primary */
}

static bool pending_is_shown(void *arg)
{
    return pgs_view(((struct node *)arg)->pgs)->pending_restart_reason != NULL;
}

static void test_reload(void **state)
{
    const char *old = NULL;
    struct dra_err err;

    (void)state;
    node_configure(&t.a, "  pg_hba: ['local all all trust', 'host all all 127.0.0.1/32 scram-sha-256', "
                         "'host replication replicator 127.0.0.1/32 scram-sha-256']\n");
    /* max_connections goes by the command line: a reload cannot change it (CFG-76) */
    {
        struct json *params = NULL;
        static const char patch[] = "{\"postgresql\":{\"parameters\":{\"max_connections\":90,\"work_mem\":\"9MB\"}}}";

        assert_int_equal(json_parse(patch, sizeof patch - 1, &params, &err), 0);
        assert_int_equal(json_merge_patch(&t.a.conf, params, NULL), 0);
        json_free(params);
        assert_int_equal(pgs_configure(t.a.pgs, t.a.conf, &err), 0);
    }
    t.effect_done = false;
    assert_int_equal(pgs_reload(t.a.pgs, on_effect, NULL, &err), 0);
    effect_ok();
    assert_true(wait_for(pending_is_shown, &t.a, 5000));
    assert_int_equal(json_str(pgs_view(t.a.pgs)->pending_restart_reason, "max_connections.old_value", &old, &err), 0);
    assert_string_equal(old, "100");
    assert_int_equal(json_size(pgs_view(t.a.pgs)->pending_restart_reason), 1);
    assert_string_equal(query(&t.a, "SHOW work_mem"), "9MB");
}

/* HA-175, HA-179: arguments; a newer callback ends an older one that takes too long. */
static bool callbacks_ran(void *arg)
{
    struct dra_buf *b = arg;
    char path[300];

    (void)snprintf(path, sizeof path, "%s/callbacks", t.dir);
    dra_buf_reset(b);
    return dra_file_exists(path) && dra_file_read(path, 4096, b, NULL) == 0 && strstr(dra_buf_str(b), "on_stop") != NULL;
}

static void test_callbacks(void **state)
{
    struct dra_instant from = dra_now();
    struct dra_buf b;
    char conf[512];

    (void)state;
    script("cb", "echo \"$@\" >> \"${0%/*}/callbacks\"; [ \"$3\" = on_role_change ] && sleep 100; true");
    (void)snprintf(conf, sizeof conf, "  callbacks: {on_role_change: '%s/cb \"a b\" c', on_stop: '%s/cb'}\n", t.dir, t.dir);
    node_configure(&t.b, conf);
    pgs_callback(t.b.pgs, HA_CALLBACK_ON_START, HA_ROLE_REPLICA); /* none configured */
    pgs_callback(t.b.pgs, HA_CALLBACK_ON_ROLE_CHANGE, HA_ROLE_PROMOTED);
    pgs_callback(t.b.pgs, HA_CALLBACK_ON_STOP, HA_ROLE_REPLICA);
    dra_buf_init(&b, 8192);
    assert_true(wait_for(callbacks_ran, &b, 10000));
    assert_string_equal(dra_buf_str(&b), "a b c on_role_change primary live\non_stop replica live\n");
    assert_true(dra_span_ms(dra_since(dra_now(), from)) >= 1900);
    dra_buf_deinit(&b);
    node_configure(&t.b, "");
}

/* The exit is known within milliseconds; it is restarted in place on the same timeline (HA-57). */
static void test_crash(void **state)
{
    const struct ha_pg *f = pgs_facts(t.a.pgs);
    struct dra_instant from;
    int64_t ms;

    (void)state;
    t.a.changes = 0;
    from = dra_now();
    assert_true(f->pid > 1);
    assert_int_equal(kill(f->pid, SIGKILL), 0);
    while (f->postmaster == DRA_YES) {
        uv_run(t.loop, UV_RUN_ONCE);
    }
    ms = dra_span_ms(dra_since(dra_now(), from));
    printf("    exit seen after %lld ms\n", (long long)ms);
    assert_true(ms < 100);
    assert_true(t.a.changes > 0);
    assert_true(dra_is_set(f->gone_at));
    assert_int_equal(f->state, HA_STATE_CRASHED);
    assert_true(wait_for(is_gone, &t.a, 10000));
    ms = dra_span_ms(dra_since(dra_now(), from));
    printf("    last process gone after %lld ms\n", (long long)ms);
    assert_false(f->gone_orderly); /* its pid file is still there */
    assert_int_equal(f->control, HA_CONTROL_IN_PRODUCTION);
    job_ok(&t.a, HA_JOB_START_PRIMARY, NULL);
    assert_int_equal(probe(&t.a)->timeline, 1);
    assert_string_equal(query(&t.a, "SHOW max_connections"), "90");
}

/* SAFE-34: a backend that outlives the postmaster is seen, and ended by force. */
static void test_leftovers(void **state)
{
    const struct ha_pg *f = pgs_facts(t.a.pgs);
    struct query q = {0};
    struct pgc *c = connect_to(&t.a, "postgres", "super'secret");
    struct ha_job job = {.kind = HA_JOB_START_PRIMARY};
    struct dra_instant from;

    (void)state;
    assert_int_equal(pgc_query_start(c, NULL, "SELECT count(*) FROM generate_series(1, 10000000000)", dra_after(dra_now(), dra_ms(60000)),
                                     on_query, &q, NULL), 0);
    (void)wait_for(never, NULL, 200);
    assert_true(f->pid > 1);
    assert_int_equal(kill(f->pid, SIGKILL), 0);
    (void)wait_for(never, NULL, 200);
    assert_int_equal(f->postmaster, DRA_NO);
    assert_int_equal(f->leftovers, DRA_YES);
    assert_false(job_run(&t.a, &job, "")->ok); /* refused */
    from = dra_now();
    job = (struct ha_job){.kind = HA_JOB_STOP, .mode = HA_STOP_KILL};
    assert_true(job_run(&t.a, &job, "")->ok);
    printf("    left processes killed after %lld ms\n", (long long)dra_span_ms(dra_since(dra_now(), from)));
    assert_int_equal(f->leftovers, DRA_NO);
    pgc_close(c);
    job_ok(&t.a, HA_JOB_START_PRIMARY, NULL);
    /* and all of a living server at once */
    from = dra_now();
    pgs_kill_all(t.a.pgs);
    assert_true(wait_for(is_gone, &t.a, 10000));
    printf("    whole server killed after %lld ms\n", (long long)dra_span_ms(dra_since(dra_now(), from)));
    job_ok(&t.a, HA_JOB_START_PRIMARY, NULL);
}

/* HA-58: a start that cannot succeed is known from the exit, not by a timeout. */
static void test_start_fails(void **state)
{
    char path[300];
    struct ha_job job = {.kind = HA_JOB_START_PRIMARY};
    const struct ha_job_result *r;
    struct dra_instant from;
    FILE *f;

    (void)state;
    job_ok(&t.a, HA_JOB_STOP, NULL);
    (void)snprintf(path, sizeof path, "%s/postgresql.auto.conf", t.a.dir);
    f = fopen(path, "a");
    assert_non_null(f);
    fputs("nonsense_setting = 1\n", f);
    fclose(f);
    from = dra_now();
    r = job_run(&t.a, &job, "");
    assert_false(r->ok);
    assert_int_equal(r->err_code, DRA_ECHILD);
    assert_non_null(strstr(r->msg, "nonsense_setting"));
    assert_true(dra_span_ms(dra_since(dra_now(), from)) < 5000);
    assert_int_equal(pgs_facts(t.a.pgs)->state, HA_STATE_START_FAILED);
    f = fopen(path, "w");
    assert_non_null(f);
    fclose(f);
    read_files(&t.a);
    job_ok(&t.a, HA_JOB_START_PRIMARY, NULL);
    assert_true(becomes(&t.b, true, 20000));
}

static void test_upstream_same_timeline(void **state)
{
    struct dra_err err;

    (void)state;
    t.check_done = false;
    assert_int_equal(pgs_check_upstream(t.b.pgs, "pg-a", t.a.url, 1, dra_after(dra_now(), dra_ms(5000)), on_check, NULL, &err), 0);
    assert_true(wait_for(check_is_done, NULL, 10000));
    assert_true(t.check.answered);
    assert_int_equal(t.check.in_recovery, DRA_NO);
    assert_string_equal(t.check.sysid, pgs_facts(t.a.pgs)->sysid);
    assert_int_equal(t.check.timeline, 1);
    assert_true(t.check.has_fork);
    assert_true(t.check.fork_lsn == 0);
    assert_true(t.check.flush_lsn > 0);
    {
        char named[64]; /* looked up first, all addresses of the name are tried */

        (void)snprintf(named, sizeof named, "postgres://localhost:%d/postgres", t.a.port);
        t.check_done = false;
        assert_int_equal(pgs_check_upstream(t.b.pgs, "pg-a", named, 1, dra_after(dra_now(), dra_ms(5000)), on_check, NULL, &err), 0);
        assert_false(t.check_done);
        assert_true(wait_for(check_is_done, NULL, 10000));
        assert_true(t.check.answered);
    }
    t.check_done = false;
    assert_int_equal(pgs_check_upstream(t.b.pgs, "x", "postgres://127.0.0.1:1/x", 1, dra_after(dra_now(), dra_ms(2000)), on_check, NULL, &err), 0);
    assert_true(wait_for(check_is_done, NULL, 5000));
    assert_true(t.check.failed);
    assert_false(t.check.answered);
}

static bool shut_down_seen(void *arg)
{
    const struct ha_pg *f = pgs_facts(((struct node *)arg)->pgs);

    return ((struct node *)arg)->done || f->control == HA_CONTROL_SHUT_DOWN;
}

/* The standby has everything that the primary's shutdown wrote: the position of HA-134.  It is known while the archiver is
 * still at work (SAFE-34), and not before. */
static void test_stop_position(void **state)
{
    struct ha_job job = {.kind = HA_JOB_STOP, .mode = HA_STOP_FAST, .checkpoint_first = true};
    const struct ha_pg *f = pgs_facts(t.a.pgs);
    uint64_t end;

    (void)state;
    read_files(&t.a);
    assert_int_not_equal(f->control, HA_CONTROL_SHUT_DOWN);
    script("archive", "sleep 0.3");
    job_begin(&t.a, &job, "");
    assert_true(wait_for(shut_down_seen, &t.a, 10000));
    assert_false(t.a.done);
    assert_int_equal(f->postmaster, DRA_YES);
    end = f->checkpoint_end_lsn;
    assert_true(end > f->checkpoint_lsn);
    assert_true(wait_for(job_is_done, &t.a, 10000));
    assert_true(t.a.r.ok);
    assert_true(f->checkpoint_end_lsn == end);
    script("archive", "exit 0");
    assert_int_equal(f->control, HA_CONTROL_SHUT_DOWN);
    assert_int_equal(f->postmaster, DRA_NO);
    assert_int_equal(f->leftovers, DRA_NO);
    assert_int_equal(f->state, HA_STATE_STOPPED);
    probe(&t.b);
    printf("    end of the shutdown checkpoint %llx, received %llx\n", (unsigned long long)f->checkpoint_end_lsn,
           (unsigned long long)pgs_facts(t.b.pgs)->receive_lsn);
    assert_true(pgs_facts(t.b.pgs)->receive_lsn == f->checkpoint_end_lsn);
    job_ok(&t.a, HA_JOB_START_PRIMARY, NULL);
    assert_true(becomes(&t.b, true, 20000));
}

static void test_promote(void **state)
{
    struct ha_job job = {.kind = HA_JOB_PROMOTE};
    const struct ha_pg *f = pgs_facts(t.b.pgs);
    char mtime[48];

    (void)state;
    job.not_after = dra_now();
    assert_int_equal(job_run(&t.b, &job, "")->err_code, DRA_ESTATE); /* too late: never signalled */
    assert_false(f->promote_signalled);
    assert_int_equal(probe(&t.b)->in_recovery, DRA_YES);
    node_configure(&t.b, "  pre_promote: false\n");
    job.not_after = (struct dra_instant){0};
    assert_false(job_run(&t.b, &job, "")->ok); /* HA-177 */
    assert_non_null(strstr(t.b.r.msg, "pre_promote"));
    assert_int_equal(probe(&t.b)->in_recovery, DRA_YES);
    node_configure(&t.b, "  pre_promote: 'true'\n");
    job.not_after = dra_after(dra_now(), dra_ms(5000));
    assert_true(job_run(&t.b, &job, "")->ok);
    assert_int_equal(f->in_recovery, DRA_NO);
    assert_true(f->promote_signalled);
    assert_int_equal(probe(&t.b)->timeline, 2);
    read_files(&t.b);
    assert_non_null(pgs_history_file(t.b.pgs, 2, mtime, sizeof mtime));
    assert_null(pgs_history_file(t.b.pgs, 1, NULL, 0));
    assert_int_equal(strlen(mtime), strlen("2026-03-01T10:11:12.131415+00:00"));
    query(&t.b, "CREATE TABLE second AS SELECT 1 AS x");
}

/* The old primary went on alone: it has diverged, is rewound and follows the new one. */
static void test_rewind(void **state)
{
    const struct ha_pg *f = pgs_facts(t.a.pgs);
    struct dra_err err;
    struct ha_slot_pos want = {.name = "pg_a"};

    (void)state;
    query(&t.a, "CREATE TABLE lost AS SELECT generate_series(1, 1000) AS x");
    job_ok(&t.a, HA_JOB_STOP, NULL);
    t.check_done = false;
    assert_int_equal(pgs_check_upstream(t.a.pgs, "pg-b", t.b.url, 1, dra_after(dra_now(), dra_ms(5000)), on_check, NULL, &err), 0);
    assert_true(wait_for(check_is_done, NULL, 10000));
    assert_true(t.check.answered);
    assert_int_equal(t.check.timeline, 2);
    assert_true(t.check.has_fork);
    assert_true(t.check.fork_lsn > 0 && t.check.fork_lsn < f->checkpoint_lsn);
    t.effect_done = false;
    assert_int_equal(pgs_checkpoint(t.b.pgs, dra_after(dra_now(), dra_ms(10000)), on_effect, NULL, &err), 0); /* HA-147 */
    effect_ok();
    t.effect_done = false;
    assert_int_equal(pgs_slots(t.b.pgs, &want, 1, true, on_effect, NULL, &err), 0);
    effect_ok();
    assert_true(f->can_rewind);
    job_ok(&t.a, HA_JOB_REWIND, &t.b);
    assert_int_equal(f->datadir, HA_DATADIR_VALID);
    assert_true(f->standby_signal); /* WIN-09 */
    job_ok(&t.a, HA_JOB_START_STANDBY, &t.b);
    assert_true(becomes(&t.a, true, 20000));
    assert_int_equal(probe(&t.a)->timeline, 2);
    assert_string_equal(query(&t.a, "SELECT to_regclass('lost') IS NULL AND to_regclass('second') IS NOT NULL"), "t");
}

/* A rewind that fails before it touches anything leaves a directory that may be trusted. */
static void test_rewind_fails(void **state)
{
    struct ha_job job = {.kind = HA_JOB_REWIND, .member = "nobody"};

    (void)state;
    job_ok(&t.a, HA_JOB_STOP, NULL);
    assert_int_equal(pgs_facts(t.a.pgs)->control, HA_CONTROL_SHUT_DOWN_IN_RECOVERY);
    assert_false(job_run(&t.a, &job, "postgres://127.0.0.1:1/postgres")->ok);
    assert_int_equal(pgs_facts(t.a.pgs)->datadir, HA_DATADIR_VALID);
}

static void test_single_user(void **state)
{
    (void)state;
    job_ok(&t.a, HA_JOB_START_STANDBY, &t.b);
    pgs_kill_all(t.a.pgs);
    assert_true(wait_for(is_gone, &t.a, 10000));
    assert_int_equal(read_files(&t.a)->control, HA_CONTROL_IN_ARCHIVE_RECOVERY);
    job_ok(&t.a, HA_JOB_SINGLE_USER, NULL);
    assert_int_equal(pgs_facts(t.a.pgs)->control, HA_CONTROL_SHUT_DOWN);
    assert_true(pgs_facts(t.a.pgs)->standby_signal);
    assert_int_equal(pgs_facts(t.a.pgs)->datadir, HA_DATADIR_VALID);
}

/* The server outlives its agent; the next one finds it, and what it was started as. */
static void test_adoption(void **state)
{
    int32_t pid = pgs_facts(t.b.pgs)->pid;
    const struct ha_pg *f;

    (void)state;
    pgs_close(t.b.pgs);
    t.b.pgs = NULL;
    for (int i = 0; i < 50; i++) {
        uv_run(t.loop, UV_RUN_NOWAIT);
    }
    node_open(&t.b, "pg-b");
    f = read_files(&t.b);
    assert_int_equal(f->postmaster, DRA_YES);
    assert_int_equal(f->pid, pid);
    assert_int_equal(f->in_recovery, DRA_UNKNOWN);
    assert_false(f->started_as_standby);
    assert_int_equal(probe(&t.b)->in_recovery, DRA_NO);
    assert_int_equal(f->state, HA_STATE_RUNNING);
}

static void test_stop_ladder(void **state)
{
    struct ha_job job = {.kind = HA_JOB_STOP, .mode = HA_STOP_FAST, .timeout = dra_ms(300)};
    const struct ha_pg *f = pgs_facts(t.b.pgs);

    (void)state;
    assert_true(f->pid > 1);
    assert_int_equal(kill(f->pid, SIGSTOP), 0); /* a stopped postmaster takes neither SIGINT nor SIGQUIT */
    job_begin(&t.b, &job, "");
    (void)wait_for(never, NULL, 500);
    assert_false(t.b.done);
    pgs_job_cancel(t.b.pgs); /* do not wait for the 5 s of the second step */
    assert_true(wait_for(job_is_done, &t.b, 5000));
    assert_true(t.b.r.ok);
    assert_int_equal(f->postmaster, DRA_NO);
    assert_int_equal(f->leftovers, DRA_NO);
}

static void test_set_aside(void **state)
{
    char failed[300];

    (void)state;
    (void)snprintf(failed, sizeof failed, "%s.failed", t.b.dir);
    job_ok(&t.b, HA_JOB_SET_ASIDE, NULL);
    assert_int_equal(pgs_facts(t.b.pgs)->datadir, HA_DATADIR_EMPTY);
    assert_true(dra_file_exists(failed));
}

/* ---- as who ------------------------------------------------------------------------------------------------------------ */

static bool prepare(void)
{
    static const char *const bins[] = {"/usr/lib/postgresql/15/bin"};
    const struct passwd *pw = getpwnam("postgres");
    char path[256];

    for (size_t i = 0; i < DRA_ARRAY_LEN(bins); i++) {
        (void)snprintf(path, sizeof path, "%s/postgres", bins[i]);
        if (access(path, X_OK) == 0) {
            dra_str_clip(t.bin, sizeof t.bin, bins[i]);
        }
    }
    if (t.bin[0] == '\0' || (getuid() == 0 && pw == NULL)) {
        printf("PostgreSQL's programs are not installed: skipped\n");
        return false;
    }
    if (getuid() == 0 && (initgroups("postgres", pw->pw_gid) != 0 || setgid(pw->pw_gid) != 0 || setuid(pw->pw_uid) != 0)) {
        printf("cannot become user postgres: %s\n", strerror(errno));
        return false;
    }
    (void)signal(SIGPIPE, SIG_IGN);
    dra_str_clip(t.dir, sizeof t.dir, "/tmp/dragent-pgs-XXXXXX");
    return mkdtemp(t.dir) != NULL && chdir(t.dir) == 0 && setenv("HOME", t.dir, 1) == 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_empty),
        cmocka_unit_test(test_initdb),
        cmocka_unit_test(test_start_withdrawn),
        cmocka_unit_test(test_start_primary),
        cmocka_unit_test(test_post_bootstrap),
        cmocka_unit_test(test_slots),
        cmocka_unit_test(test_basebackup),
        cmocka_unit_test(test_basebackup_fails),
        cmocka_unit_test(test_start_standby),
        cmocka_unit_test(test_follow),
        cmocka_unit_test(test_reload),
        cmocka_unit_test(test_callbacks),
        cmocka_unit_test(test_crash),
        cmocka_unit_test(test_leftovers),
        cmocka_unit_test(test_start_fails),
        cmocka_unit_test(test_upstream_same_timeline),
        cmocka_unit_test(test_stop_position),
        cmocka_unit_test(test_promote),
        cmocka_unit_test(test_rewind),
        cmocka_unit_test(test_rewind_fails),
        cmocka_unit_test(test_single_user),
        cmocka_unit_test(test_adoption),
        cmocka_unit_test(test_stop_ladder),
        cmocka_unit_test(test_set_aside),
    };

    if (!prepare()) {
        return 0;
    }
    return cmocka_run_group_tests(tests, setup, teardown);
}
