/*
 * pgs_live_fixture.c - two nodes, a loop, and ways to wait for what they do.  For test_pgs_live.c.
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

struct live t;

/* ---- the loop ------------------------------------------------------------------------------------------- */

static void on_tick(uv_timer_t *h)
{
    (void)h;
}

bool wait_for(bool (*cond)(void *), void *arg, int64_t limit_ms)
{
    struct dra_instant end = dra_after(dra_now(), dra_ms(limit_ms));
    uv_timer_t tick; /* so that the deadline is looked at */

    assert_int_equal(uv_timer_init(t.loop, &tick), 0);
    assert_int_equal(uv_timer_start(&tick, on_tick, 100, 100), 0);
    while (!cond(arg) && !dra_reached(dra_now(), end)) {
        uv_run(t.loop, UV_RUN_ONCE);
    }
    uv_close((uv_handle_t *)&tick, NULL);
    uv_run(t.loop, UV_RUN_NOWAIT);
    return cond(arg);
}

static void on_changed(void *arg)
{
    ((struct node *)arg)->changes++;
}

static void on_forked(struct dra_proc child, void *arg)
{
    struct node *n = arg;

    n->forks++;
    n->forked = child;
    assert_true(dra_proc_is_alive(&child)); /* it exists, and waits */
    assert_int_equal(pgs_facts(n->pgs)->postmaster, DRA_NO);
    pgs_job_continue(n->pgs, n->go);
}

static void on_job_done(const struct ha_job_result *r, void *arg)
{
    struct node *n = arg;

    assert_false(n->done); /* exactly once */
    n->r = *r;
    n->done = true;
}

bool job_is_done(void *arg)
{
    return ((struct node *)arg)->done;
}

void job_begin(struct node *n, const struct ha_job *job, const char *url)
{
    struct dra_err err = {0};

    n->done = false;
    memset(&n->r, 0, sizeof n->r);
    if (pgs_job_start(n->pgs, job, url, ++t.next_id, &err) != 0) {
        fail_msg("%s: %s", ha_job_to_str(job->kind), err.msg);
    }
    assert_false(n->done); /* never from inside the start */
}

const struct ha_job_result *job_run(struct node *n, const struct ha_job *job, const char *url)
{
    struct dra_instant from = dra_now();

    job_begin(n, job, url);
    if (!wait_for(job_is_done, n, WAIT_MS)) {
        fail_msg("%s of %s did not end", ha_job_to_str(job->kind), n->name);
    }
    assert_int_equal(n->r.kind, job->kind);
    assert_true(n->r.id == t.next_id);
    printf("    %s: %s %lld ms: %s\n", n->name, ha_job_to_str(job->kind), (long long)dra_span_ms(dra_since(dra_now(), from)), n->r.msg);
    return &n->r;
}

void job_ok(struct node *n, enum ha_job_kind kind, const struct node *member)
{
    struct ha_job job = {.kind = kind, .mode = kind == HA_JOB_STOP ? HA_STOP_FAST : HA_STOP_NONE};
    const struct ha_job_result *r;

    if (member != NULL) {
        dra_str_clip(job.member, sizeof job.member, member->name);
    }
    r = job_run(n, &job, member != NULL ? member->url : "");
    if (!r->ok) {
        fail_msg("%s of %s: %s", ha_job_to_str(kind), n->name, r->msg);
    }
}

/* ---- questions ------------------------------------------------------------------------------------------------ */

static bool probed(void *arg)
{
    struct node *n = arg;

    return n->changes > 0;
}

const struct ha_pg *probe(struct node *n)
{
    struct dra_instant from = dra_now();

    while (pgs_facts(n->pgs)->answered_at.ns < from.ns) {
        n->changes = 0;
        pgs_probe(n->pgs, dra_after(dra_now(), dra_ms(3000)));
        assert_true(wait_for(probed, n, 5000));
    }
    return pgs_facts(n->pgs);
}

const struct ha_pg *read_files(struct node *n)
{
    struct dra_instant from = dra_now();

    n->changes = 0;
    pgs_read_files(n->pgs);
    while (pgs_facts(n->pgs)->files_at.ns < from.ns) {
        n->changes = 0;
        assert_true(wait_for(probed, n, 10000));
    }
    return pgs_facts(n->pgs);
}

void on_effect(int rc, const struct dra_err *err, void *arg)
{
    (void)arg;
    if (rc != 0) {
        printf("    effect: %s\n", err != NULL ? err->msg : "?");
    }
    t.effect_rc = rc;
    t.effect_done = true;
}

static bool effect_is_done(void *arg)
{
    (void)arg;
    return t.effect_done;
}

void effect_ok(void)
{
    assert_true(wait_for(effect_is_done, NULL, 10000));
    assert_int_equal(t.effect_rc, 0);
}

void on_check(const struct ha_upstream_check *r, void *arg)
{
    (void)arg;
    t.check = *r;
    t.check_done = true;
}

bool check_is_done(void *arg)
{
    (void)arg;
    return t.check_done;
}

bool never(void *arg)
{
    (void)arg;
    return false;
}

bool becomes(struct node *n, bool streaming, int64_t limit_ms)
{
    struct dra_instant end = dra_after(dra_now(), dra_ms(limit_ms));

    while ((probe(n)->replication_state == HA_REPL_STREAMING) != streaming) {
        if (dra_reached(dra_now(), end)) {
            return false;
        }
        (void)wait_for(never, NULL, 20);
    }
    return true;
}

/* One statement on a connection of its own. */
void on_query(const struct pgc_result *r, void *arg)
{
    struct query *q = arg;
    const char *v = r->err_code == 0 && r->rows > 0 ? r->get(r, 0, 0) : NULL;

    q->rc = r->err_code;
    dra_str_clip(q->value, sizeof q->value, v != NULL ? v : "");
    if (q->rc != 0) {
        dra_str_clip(q->value, sizeof q->value, r->err.msg);
    }
    q->done = true;
}

static bool query_is_done(void *arg)
{
    return ((struct query *)arg)->done;
}

struct pgc *connect_to(struct node *n, const char *user, const char *password)
{
    struct pgc *c = NULL;
    char ci[256];

    assert_int_equal(pgc_open(t.loop, &c), 0);
    (void)snprintf(ci, sizeof ci, "host=127.0.0.1 port=%d dbname=postgres user=%s password=%s", n->port, user, password);
    assert_int_equal(pgc_configure(c, "test", ci), 0);
    return c;
}

static const char *query_as(struct node *n, const char *user, const char *password, const char *sql)
{
    static struct query q;
    struct pgc *c = connect_to(n, user, password);

    memset(&q, 0, sizeof q);
    assert_int_equal(pgc_query_start(c, NULL, sql, dra_after(dra_now(), dra_ms(20000)), on_query, &q, NULL), 0);
    assert_true(wait_for(query_is_done, &q, 20000));
    pgc_close(c);
    uv_run(t.loop, UV_RUN_NOWAIT);
    if (q.rc != 0) {
        fail_msg("%s: %s", sql, q.value);
    }
    return q.value;
}

const char *query(struct node *n, const char *sql)
{
    return query_as(n, "postgres", "super'secret", sql);
}

bool has_file(const struct node *n, const char *name)
{
    char path[512];

    (void)snprintf(path, sizeof path, "%s/%s", n->dir, name);
    return dra_file_exists(path);
}

/* ---- set-up ------------------------------------------------------------------------------------------------------- */

static int free_port(void)
{
    struct sockaddr_in sa = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof sa;
    int fd = socket(AF_INET, SOCK_STREAM, 0);

    assert_int_equal(bind(fd, (struct sockaddr *)&sa, sizeof sa), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&sa, &len), 0);
    close(fd);
    return ntohs(sa.sin_port);
}

void node_configure(struct node *n, const char *more)
{
    char yaml[4096];
    struct dra_err err = {0};

    json_free(n->conf);
    n->conf = NULL;
    (void)snprintf(yaml, sizeof yaml,
                   "scope: live\n"
                   "name: %s\n"
                   "bootstrap:\n"
                   "  initdb: [{encoding: UTF8}, {locale: C}, {auth-local: trust}, {auth-host: scram-sha-256}]\n"
                   "  pg_hba: ['host all all 127.0.0.1/32 scram-sha-256', 'host replication replicator 127.0.0.1/32 scram-sha-256']\n"
                   "  post_bootstrap: touch '%s/post_bootstrap'\n"
                   "postgresql:\n"
                   "  listen: 127.0.0.1:%d\n"
                   "  data_dir: %s\n"
                   "  bin_dir: %s\n"
                   "  pgpass: %s/pgpass-%s\n"
                   "  authentication:\n"
                   "    superuser: {username: postgres, password: \"super'secret\"}\n"
                   "    replication: {username: replicator, password: 'rep:l'}\n"
                   "    rewind: {username: rewinder, password: rew}\n"
                   "  parameters: {shared_buffers: 16MB, fsync: 'off', archive_mode: 'on', archive_command: %s/archive, unix_socket_directories: %s/sockets, no_such_guc: 1}\n"
                   "%s",
                   n->name, t.dir, n->port, n->dir, t.bin, t.dir, n->name, t.dir, t.dir, more);
    if (yaml_acc_load("live.yml", yaml, strlen(yaml), &n->conf, &err) != 0) {
        fail_msg("%s", err.msg);
    }
    if (n->pgs != NULL && pgs_configure(n->pgs, n->conf, &err) != 0) {
        fail_msg("%s", err.msg);
    }
}

void node_open(struct node *n, const char *name)
{
    static const struct pgs_events ev = {.changed = on_changed, .forked = on_forked, .job_done = on_job_done};
    struct dra_err err = {0};

    if (n->name == NULL) {
        n->name = name;
        n->port = free_port();
        n->go = true;
        (void)snprintf(n->dir, sizeof n->dir, "%s/%s/data", t.dir, name); /* the parent is missing, too */
        (void)snprintf(n->state, sizeof n->state, "%s/%s/data.dragent", t.dir, name);
        (void)snprintf(n->url, sizeof n->url, "postgres://127.0.0.1:%d/postgres", n->port);
        node_configure(n, "");
    }
    if (pgs_open(t.loop, t.files, n->conf, n->state, &ev, n, &n->pgs, &err) != 0) {
        fail_msg("%s", err.msg);
    }
}

/* A command that the servers and hooks may run. */
void script(const char *name, const char *body)
{
    char path[300];
    FILE *f;

    (void)snprintf(path, sizeof path, "%s/%s.new", t.dir, name);
    f = fopen(path, "w");
    assert_non_null(f);
    fprintf(f, "#!/bin/sh\n%s\n", body);
    assert_int_equal(fclose(f), 0);
    assert_int_equal(chmod(path, 0755), 0);
    {
        char to[300];

        (void)snprintf(to, sizeof to, "%s/%s", t.dir, name);
        assert_int_equal(rename(path, to), 0); /* one that runs is not written to */
    }
}

int setup(void **state)
{
    struct dra_err err = {0};

    (void)state;
    t.loop = uv_default_loop();
    if (dra_fworker_open(t.loop, &t.files, &err) != 0) {
        return -1;
    }
    script("archive", "exit 0");
    node_open(&t.a, "pg-a");
    node_open(&t.b, "pg-b");
    return 0;
}

bool is_gone(void *arg)
{
    struct node *n = arg;
    const struct ha_pg *f = pgs_facts(n->pgs);

    /* A reading may still see backends that are about to end; asking again is the caller's, as rule fence.leftovers does. */
    if (f->postmaster == DRA_NO && f->leftovers == DRA_YES) {
        pgs_read_files(n->pgs);
    }
    return f->postmaster == DRA_NO && f->leftovers == DRA_NO && f->files_at.ns >= f->gone_at.ns;
}

int teardown(void **state)
{
    struct dra_err err;

    (void)state;
    for (int i = 0; i < 2; i++) {
        struct node *n = i == 0 ? &t.a : &t.b;

        if (n->pgs != NULL) {
            pgs_kill_all(n->pgs);
            (void)wait_for(is_gone, n, 5000);
            pgs_close(n->pgs);
        }
        json_free(n->conf);
    }
    uv_run(t.loop, UV_RUN_NOWAIT);
    dra_fworker_close(t.files);
    uv_run(t.loop, UV_RUN_DEFAULT); /* nothing may keep it alive */
    assert_int_equal(uv_loop_close(t.loop), 0);
    if (getenv("DRA_TEST_KEEP") != NULL) {
        printf("kept %s\n", t.dir);
        return 0;
    }
    return dra_file_remove_tree(t.dir, &err);
}
