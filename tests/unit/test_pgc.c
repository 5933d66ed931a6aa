/*
 * test_pgc.c - the PostgreSQL client against a real server of its own: results, errors, deadlines, cancelling, a server
 * that goes away and comes back, and peers that never answer.
 */
#include <dragent/io.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <arpa/inet.h>
#include <netinet/in.h>
#include <pwd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>
#include <uv.h>

#define BIN "/usr/lib/postgresql/15/bin/"
#define SKIPPED 77

static char dir[64];
static char conninfo[200];

/* ---- the server ---- */

static void on_tool_end(const struct dra_child_result *r, void *arg)
{
    int *code = arg;

    *code = r->started && r->err_code == DRA_OK ? 0 : 1;
    if (*code != 0) {
        (void)fprintf(stderr, "%.*s\n", (int)r->out_len, r->out);
    }
}

/* Run a tool as user postgres (PostgreSQL refuses root), with a deadline. */
static int tool(const char *const *args)
{
    const char *argv[24];
    struct dra_child_spec spec = {.argv = argv, .cwd = "/", .not_after = dra_after(dra_now(), dra_ms(60000))};
    size_t n = 0;
    int code = -1;
    uv_loop_t loop;

    if (geteuid() == 0) {
        argv[n++] = "runuser";
        argv[n++] = "-u";
        argv[n++] = "postgres";
        argv[n++] = "--";
    }
    while (*args != NULL && n + 1 < DRA_ARRAY_LEN(argv)) {
        argv[n++] = *args++;
    }
    argv[n] = NULL;
    assert_int_equal(uv_loop_init(&loop), 0);
    assert_int_equal(dra_child_start(&loop, &spec, on_tool_end, &code, NULL, NULL), 0);
    (void)uv_run(&loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&loop), 0);
    return code;
}

static int server_start(void)
{
    char data[80], log[80], options[200];
    const char *args[] = {BIN "pg_ctl", "-D", data, "-l", log, "-o", options, "-w", "-t", "30", "start", NULL};

    (void)snprintf(data, sizeof data, "%s/data", dir);
    (void)snprintf(log, sizeof log, "%s/log", dir);
    (void)snprintf(options, sizeof options, "-k %s -c listen_addresses= -c fsync=off -c port=5432", dir);
    return tool(args);
}

static int server_stop(void)
{
    char data[80];
    const char *args[] = {BIN "pg_ctl", "-D", data, "-m", "immediate", "-w", "stop", NULL};

    (void)snprintf(data, sizeof data, "%s/data", dir);
    return tool(args);
}

static int server_make(void **state)
{
    char data[80];
    const char *args[] = {BIN "initdb", "-D", data, "-A", "trust", "-U", "postgres", "-N", "--locale=C", NULL};

    (void)state;
    (void)snprintf(data, sizeof data, "%s/data", dir);
    (void)snprintf(conninfo, sizeof conninfo, "host=%s port=5432 user=postgres dbname=postgres", dir);
    return tool(args) == 0 && server_start() == 0 ? 0 : -1;
}

static int server_remove(void **state)
{
    (void)state;
    (void)server_stop();
    return dra_file_remove_tree(dir, NULL);
}

/* ---- the client ---- */

struct fixture {
    uv_loop_t loop;
    struct pgc *client;
    struct pgc *second;
    int open_calls;
    char order[32];
};

struct call {
    struct fixture *f;
    struct pgc_op *op;
    char mark;
    int ended;
    int err_code;
    char sqlstate[6];
    char msg[DRA_ERR_MSG_MAX];
    int rows, cols;
    char first[200];
    bool first_null;
    bool second_null;
    struct dra_instant began, at, sent_at;
    bool again, close_all, drop;
};

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);

    assert_non_null(f);
    assert_int_equal(uv_loop_init(&f->loop), 0);
    assert_int_equal(pgc_open(&f->loop, &f->client), 0);
    assert_int_equal(pgc_open(&f->loop, &f->second), 0);
    assert_int_equal(pgc_configure(f->client, "local", conninfo), 0);
    assert_int_equal(pgc_configure(f->second, "second", conninfo), 0);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    pgc_close(f->client);
    pgc_close(f->second);
    assert_int_equal(uv_run(&f->loop, UV_RUN_DEFAULT), 0);
    assert_int_equal(uv_loop_close(&f->loop), 0);
    free(f);
    return 0;
}

static void on_result(const struct pgc_result *r, void *arg);

static void ask(struct pgc *client, struct fixture *f, struct call *c, const char *name, const char *sql, int ms)
{
    int before = c->ended;

    c->f = f;
    c->began = dra_now();
    assert_int_equal(pgc_query_start(client, name, sql, dra_after(dra_now(), dra_ms(ms)), on_result, c, &c->op), 0);
    assert_int_equal(c->ended, before);
    f->open_calls++;
}

static void on_result(const struct pgc_result *r, void *arg)
{
    struct call *c = arg;
    struct fixture *f = c->f;
    const char *v = r->get(r, 0, 0);

    c->ended++;
    c->at = dra_now();
    c->sent_at = r->sent_at;
    c->err_code = r->err_code;
    assert_int_equal(r->err.code, r->err_code);
    dra_str_clip(c->sqlstate, sizeof c->sqlstate, r->err.sqlstate);
    dra_str_clip(c->msg, sizeof c->msg, r->err_code != DRA_OK ? r->err.msg : "");
    c->rows = r->rows;
    c->cols = r->cols;
    c->first_null = v == NULL;
    c->second_null = r->get(r, 0, 1) == NULL;
    dra_str_clip(c->first, sizeof c->first, v != NULL ? v : "");
    assert_null(r->get(r, r->rows, 0));
    assert_null(r->get(r, -1, 0));
    f->open_calls--;
    if (c->mark != '\0') {
        (void)snprintf(f->order + strlen(f->order), sizeof f->order - strlen(f->order), "%c", c->mark);
    }
    pgc_cancel(c->op); /* too late: nothing happens */
    if (c->again) {
        c->again = false;
        ask(f->client, f, c, NULL, "SELECT 'again'", 5000);
    }
    if (c->drop) {
        pgc_drop(f->client);
    }
    if (c->close_all) {
        pgc_close(f->client);
        assert_int_equal(pgc_query_start(f->client, NULL, "SELECT 1", dra_after(dra_now(), dra_ms(1000)), on_result,
                                         c, NULL), DRA_ESTATE);
    }
}

static void run(struct fixture *f)
{
    while (f->open_calls > 0) {
        (void)uv_run(&f->loop, UV_RUN_ONCE);
    }
}

static int64_t took_ms(const struct call *c)
{
    return dra_span_ms(dra_since(c->at, c->began));
}

static void results(void **state)
{
    static const struct {
        const char *name, *sql, *first;
        int rows, cols, err_code;
        const char *sqlstate;
    } rows[] = {
        {NULL, "SELECT 1, NULL", "1", 1, 2, DRA_OK, ""},
        {NULL, "SELECT g FROM generate_series(5, 9) g", "5", 5, 1, DRA_OK, ""},
        {NULL, "SELECT NULL", "", 1, 1, DRA_OK, ""},
        {NULL, "", "", 0, 0, DRA_OK, ""},
        {NULL, "SELECT 1 WHERE false", "", 0, 1, DRA_OK, ""},
        {NULL, "SELECT 1/0", "", 0, 0, DRA_ESQL, "22012"},
        {NULL, "SELECT * FROM nope", "", 0, 0, DRA_ESQL, "42P01"},
        {NULL, "SELEC", "", 0, 0, DRA_ESQL, "42601"},
        {NULL, "SELECT 7; CHECKPOINT", "7", 1, 1, DRA_OK, ""},
        {NULL, "SELECT 7; SELECT 8", "8", 1, 1, DRA_OK, ""},
        {NULL, "SELECT 7; SELECT 1/0; SELECT 9", "", 0, 0, DRA_ESQL, "22012"},
        {NULL, "DO $$BEGIN RAISE NOTICE 'not on stderr'; END$$", "", 0, 0, DRA_OK, ""},
        {NULL, "SELECT repeat('x', 1000000)", NULL, 1, 1, DRA_OK, ""},
        {"p", "SELECT 'prepared'", "prepared", 1, 1, DRA_OK, ""},
        {"p", "SELECT 'prepared'", "prepared", 1, 1, DRA_OK, ""},
        {"p", "SELECT 'other text'", "other text", 1, 1, DRA_OK, ""},
        {"bad", "SELECT * FROM nope", "", 0, 0, DRA_ESQL, "42P01"},
        {"div", "SELECT 1/(g-1) FROM generate_series(1,1) g", "", 0, 0, DRA_ESQL, "22012"},
        {"p", "SELECT 'prepared'", "prepared", 1, 1, DRA_OK, ""},
        {NULL, "SELECT count(*) FROM pg_prepared_statements", "3", 1, 1, DRA_OK, ""},
        {NULL, "COPY (SELECT 1) TO STDOUT", "", 0, 0, DRA_ESQL, ""},
        {NULL, "SELECT count(*) FROM pg_prepared_statements", "0", 1, 1, DRA_OK, ""}, /* connected anew */
    };
    struct fixture *f = *state;

    for (size_t i = 0; i < DRA_ARRAY_LEN(rows); i++) {
        struct call c = {0};

        ask(f->client, f, &c, rows[i].name, rows[i].sql, 10000);
        run(f);
        if (c.err_code != rows[i].err_code || c.rows != rows[i].rows || c.cols != rows[i].cols ||
            strcmp(c.sqlstate, rows[i].sqlstate) != 0 ||
            (rows[i].first != NULL && strcmp(c.first, rows[i].first) != 0)) {
            fail_msg("row %zu \"%s\": err %d %s \"%s\", %d x %d, \"%s\"", i, rows[i].sql, c.err_code, c.sqlstate,
                     c.msg, c.rows, c.cols, c.first);
        }
        if (i == 0) {
            assert_false(c.first_null);
            assert_true(c.second_null);
        }
        if (c.err_code == DRA_OK) {
            assert_true(dra_reached(c.sent_at, c.began) && dra_reached(c.at, c.sent_at));
        }
    }
    assert_true(pgc_is_connected(f->client));
}

static void queue_and_deadlines(void **state)
{
    struct fixture *f = *state;
    struct call a = {.mark = 'a'}, b = {.mark = 'b'}, c = {.mark = 'c'}, d = {.mark = 'd'};

    ask(f->client, f, &a, NULL, "SELECT pg_backend_pid()", 10000);
    ask(f->client, f, &b, NULL, "SELECT pg_sleep(30)", 300);
    ask(f->client, f, &c, NULL, "SELECT 'waits'", 150); /* ends in the queue; the one at work goes on */
    ask(f->client, f, &d, NULL, "SELECT pg_backend_pid()", 10000);
    run(f);
    assert_string_equal(f->order, "acbd");
    assert_int_equal(a.err_code, DRA_OK);
    assert_int_equal(b.err_code, DRA_ETIMEDOUT);
    assert_true(took_ms(&b) >= 300 && took_ms(&b) < 3000);
    assert_int_equal(c.err_code, DRA_ETIMEDOUT);
    assert_true(took_ms(&c) >= 150 && took_ms(&c) < 290);
    assert_false(dra_is_set(c.sent_at));
    assert_int_equal(d.err_code, DRA_OK);
    assert_string_not_equal(a.first, d.first); /* the late one took its connection with it */
}

static void on_cancel_timer(void *arg)
{
    struct call *c = arg;

    pgc_cancel(c->op);
}

static void cancelling(void **state)
{
    struct fixture *f = *state;
    struct call a = {0}, b = {0}, c = {0};
    struct dra_timer *t;

    ask(f->client, f, &a, NULL, "SELECT pg_sleep(30)", 60000);
    ask(f->client, f, &b, NULL, "SELECT 1", 60000);
    ask(f->client, f, &c, NULL, "SELECT 'c'", 60000);
    pgc_cancel(b.op);
    pgc_cancel(b.op);
    assert_int_equal(b.ended, 0);
    assert_int_equal(dra_timer_open(&f->loop, on_cancel_timer, &a, &t), 0);
    dra_timer_set(t, dra_after(dra_now(), dra_ms(100)));
    run(f);
    dra_timer_close(t);
    assert_int_equal(a.err_code, DRA_ECANCELED);
    assert_true(took_ms(&a) >= 99 && took_ms(&a) < 5000);
    assert_int_equal(b.err_code, DRA_ECANCELED);
    assert_int_equal(c.err_code, DRA_OK);
    assert_int_equal(a.ended + b.ended + c.ended, 3);
}

static void from_inside(void **state)
{
    struct fixture *f = *state;
    struct call a = {.again = true}, b = {.drop = true}, c = {0}, d = {.close_all = true}, e = {0};

    ask(f->client, f, &a, NULL, "SELECT 1", 10000);
    run(f);
    assert_int_equal(a.ended, 2);
    assert_string_equal(a.first, "again");
    ask(f->client, f, &b, NULL, "SELECT 1", 10000);
    ask(f->client, f, &c, NULL, "SELECT 2", 10000);
    run(f);
    assert_int_equal(b.err_code, DRA_OK);
    assert_int_equal(c.err_code, DRA_OK); /* after the drop, on a new connection */
    ask(f->client, f, &d, NULL, "SELECT 1", 10000);
    ask(f->client, f, &e, NULL, "SELECT pg_sleep(30)", 60000);
    run(f);
    assert_int_equal(d.err_code, DRA_OK);
    assert_int_equal(e.err_code, DRA_ECANCELED);
    assert_int_equal(pgc_open(&f->loop, &f->client), 0); /* for the teardown */
}

static void dropped(void **state)
{
    struct fixture *f = *state;
    struct call a = {0}, b = {0};

    ask(f->client, f, &a, NULL, "SELECT 1", 10000);
    run(f);
    ask(f->client, f, &a, NULL, "SELECT pg_sleep(30)", 60000);
    (void)uv_run(&f->loop, UV_RUN_NOWAIT);
    (void)uv_run(&f->loop, UV_RUN_NOWAIT);
    pgc_drop(f->client);
    assert_false(pgc_is_connected(f->client));
    assert_int_equal(a.ended, 1);
    ask(f->client, f, &b, NULL, "SELECT 1", 10000);
    run(f);
    assert_int_equal(a.ended, 2);
    assert_int_equal(a.err_code, DRA_ECONN);
    assert_int_equal(b.err_code, DRA_OK);
}

static void cannot_connect(void **state)
{
    static const struct {
        const char *what, *sqlstate;
    } rows[] = {
        {"user=nobody_here dbname=postgres", "28000"},
        {"user=postgres dbname=nothing_here", "3D000"},
        {"user=postgres dbname=postgres port=1", ""},
        {"user=postgres nonsense", ""},
        {"user=postgres options=-cnope=1", "42704"},
    };
    struct fixture *f = *state;

    for (size_t i = 0; i < DRA_ARRAY_LEN(rows); i++) {
        char text[300];
        struct call c = {0}, d = {0};

        (void)snprintf(text, sizeof text, "host=%s port=5432 %s", dir, rows[i].what);
        assert_int_equal(pgc_configure(f->client, "local", text), 0);
        ask(f->client, f, &c, NULL, "SELECT 1", 10000);
        ask(f->client, f, &d, NULL, "SELECT 1", 10000);
        run(f);
        if (c.err_code != DRA_ECONN || strcmp(c.sqlstate, rows[i].sqlstate) != 0 || d.err_code != DRA_ECONN) {
            fail_msg("row \"%s\": err %d %s \"%s\"", rows[i].what, c.err_code, c.sqlstate, c.msg);
        }
        assert_true(dra_str_starts(c.msg, "local: cannot connect: "));
        assert_null(strchr(c.msg, '\n'));
        assert_false(pgc_is_connected(f->client));
    }
    assert_int_equal(pgc_query_start(f->client, NULL, "SELECT 1", (struct dra_instant){0}, on_result, NULL, NULL),
                     DRA_EINVAL);
    {
        struct call c = {0}; /* and back, by configuration */

        assert_int_equal(pgc_configure(f->client, "local", conninfo), 0);
        ask(f->client, f, &c, NULL, "SELECT 1", 10000);
        run(f);
        assert_int_equal(c.err_code, DRA_OK);
    }
}

/* A stopped postmaster: the kernel takes the connection, nobody answers. */
static void never_answers(void **state)
{
    struct fixture *f = *state;
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof a;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct call c = {0}, d = {0};
    char text[200];

    assert_int_equal(bind(fd, (struct sockaddr *)&a, sizeof a), 0);
    assert_int_equal(listen(fd, 8), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&a, &len), 0);
    (void)snprintf(text, sizeof text, "hostaddr=127.0.0.1 port=%d user=postgres dbname=postgres", ntohs(a.sin_port));
    assert_int_equal(pgc_configure(f->client, "mute", text), 0);
    ask(f->client, f, &c, NULL, "SELECT 1", 150);
    ask(f->client, f, &d, NULL, "SELECT 1", 300);
    run(f);
    assert_int_equal(c.err_code, DRA_ETIMEDOUT);
    assert_true(took_ms(&c) >= 150 && took_ms(&c) < 290);
    assert_int_equal(d.err_code, DRA_ETIMEDOUT);
    assert_true(took_ms(&d) >= 300 && took_ms(&d) < 3000);
    (void)close(fd);
}

static void terminated(void **state)
{
    struct fixture *f = *state;
    struct call a = {0}, b = {0};
    char sql[300];

    ask(f->client, f, &a, NULL, "SELECT pg_backend_pid()", 10000);
    run(f);
    (void)snprintf(sql, sizeof sql, "SELECT pg_terminate_backend(%s)", a.first);
    ask(f->second, f, &b, NULL, sql, 10000); /* while idle: it is noticed */
    run(f);
    assert_string_equal(b.first, "t");
    for (int i = 0; i < 100 && pgc_is_connected(f->client); i++) {
        (void)uv_run(&f->loop, UV_RUN_ONCE);
    }
    assert_false(pgc_is_connected(f->client));
    ask(f->client, f, &a, NULL, "SELECT pg_backend_pid()", 10000);
    run(f);
    assert_int_equal(a.err_code, DRA_OK);
    (void)snprintf(sql, sizeof sql, "SELECT pg_sleep(0.1), pg_terminate_backend(%s)", a.first);
    ask(f->client, f, &a, NULL, "SELECT pg_sleep(30)", 60000); /* and at work */
    ask(f->second, f, &b, NULL, sql, 10000);
    run(f);
    assert_int_equal(a.err_code, DRA_ECONN);
    assert_string_equal(a.sqlstate, "57P01");
}

static void on_stop_timer(void *arg)
{
    (void)arg;
    assert_int_equal(server_stop(), 0); /* a loop of its own runs inside */
}

static void server_goes_and_comes(void **state)
{
    struct fixture *f = *state;
    struct call a = {0}, b = {0};
    struct dra_timer *t;

    ask(f->client, f, &a, "probe", "SELECT pg_sleep(30)", 60000);
    assert_int_equal(dra_timer_open(&f->loop, on_stop_timer, NULL, &t), 0);
    dra_timer_set(t, dra_after(dra_now(), dra_ms(200)));
    run(f);
    dra_timer_close(t);
    assert_int_equal(a.err_code, DRA_ECONN);
    ask(f->client, f, &b, "probe", "SELECT 1", 10000);
    run(f);
    assert_int_equal(b.err_code, DRA_ECONN);
    assert_true(took_ms(&b) < 2000);
    assert_int_equal(server_start(), 0);
    ask(f->client, f, &b, "probe", "SELECT 1", 10000);
    run(f);
    assert_int_equal(b.err_code, DRA_OK);
    assert_string_equal(b.first, "1");
}

static void queue_limit(void **state)
{
    struct fixture *f = *state;
    struct call c = {.f = f};
    int taken = 0;

    while (taken < 1000 && pgc_query_start(f->client, NULL, "SELECT 1", dra_after(dra_now(), dra_ms(20000)),
                                           on_result, &c, &c.op) == 0) {
        taken++;
    }
    assert_int_equal(taken, 64);
    f->open_calls += taken;
    c.op = NULL;
    run(f);
    assert_int_equal(c.ended, 64);
    assert_int_equal(c.err_code, DRA_OK);
}

int main(void)
{
#define T(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(results),      T(queue_and_deadlines), T(cancelling), T(from_inside),           T(dropped),
        T(cannot_connect), T(never_answers),     T(terminated), T(server_goes_and_comes), T(queue_limit),
    };
    const struct passwd *pw = getpwnam("postgres");

    if (!dra_file_exists(BIN "initdb") || (geteuid() == 0 && pw == NULL)) {
        (void)fprintf(stderr, "PostgreSQL 15 is not installed: skipped\n");
        return SKIPPED;
    }
    (void)snprintf(dir, sizeof dir, "/tmp/dra-pgc-XXXXXX");
    if (mkdtemp(dir) == NULL || (geteuid() == 0 && chown(dir, pw->pw_uid, pw->pw_gid) != 0)) {
        return 1;
    }
    return cmocka_run_group_tests(tests, server_make, server_remove);
}
