/*
 * bootstrap.c - a new cluster's directory (initdb or a custom method), then its roles and post_bootstrap (HA-45, HA-51).
 *
 * Promises: a password is never in an argument vector, a log of the server or a file that outlives the step; the marker
 * lies beside the directory until it is complete.
 * Threads: loop, except the functions of pgs_work_fn's shape.
 */
#include "pgs_int.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define INITDB_LIMIT_MS 600000
#define SQL_LIMIT_MS 30000

enum step {
    STEP_FIRST = 0,
    STEP_READY,
    STEP_RUN,
    STEP_FINISH,
    STEP_READ,
    STEP_ROLES, /* POST_BOOTSTRAP: statement number `tries` is under way */
    STEP_SCRIPT,
};

/* ---- the directory: worker ------------------------------------------------------------------------------ */

static int password_file(struct pgs_jobwork *w, struct dra_err *err)
{
    char path[PGS_PATH_MAX + 32];
    size_t n = strlen(w->conf->superuser.password);
    int fd;

    if (n == 0) {
        return DRA_OK;
    }
    if (dra_str_printf(path, sizeof path, "%s/initdb-XXXXXX", w->state_dir) != 0) {
        return dra_err_set(err, DRA_ETOOLONG, "state directory");
    }
    fd = mkstemp(path); /* 0600 */
    if (fd < 0) {
        return dra_err_sys(err, errno, "cannot create \"%s\"", path);
    }
    if (write(fd, w->conf->superuser.password, n) != (ssize_t)n || write(fd, "\n", 1) != 1) {
        int e = errno;

        close(fd);
        (void)unlink(path);
        return dra_err_sys(err, e, "cannot write \"%s\"", path);
    }
    close(fd);
    dra_buf_adds(&w->text, path);
    return DRA_OK;
}

static int work_ready(struct pgs_jobwork *w, struct dra_err *err)
{
    char parent[PGS_PATH_MAX];
    const char *slash = strrchr(w->conf->data_dir, '/');
    int rc;

    if (!pgs_dir_is_empty(w->conf->data_dir)) {
        return dra_err_set(err, DRA_ESTATE, "\"%s\" is not empty", w->conf->data_dir);
    }
    rc = pgs_marker_begin(w->state_dir, w->conf->data_dir, "bootstrap", err);
    if (rc == 0) {
        rc = pgs_dir_remove(w->conf->data_dir, err);
    }
    if (rc == 0 && slash != NULL && slash != w->conf->data_dir &&
        dra_str_copy_n(parent, sizeof parent, w->conf->data_dir, (size_t)(slash - w->conf->data_dir)) == 0) {
        rc = dra_file_mkdirs(parent, 0755, err);
    }
    return rc == 0 && !w->flag ? password_file(w, err) : rc;
}

/* Lines of bootstrap.pg_hba at the end of what initdb wrote, unless the configuration owns the file. */
static int append_hba(struct pgs_jobwork *w, struct dra_err *err)
{
    const struct json *lines = json_get(w->conf->bootstrap, "pg_hba");
    char path[PGS_PATH_MAX + 32];
    struct dra_buf text;
    int rc;

    dra_buf_init(&text, 1024 * 1024);
    if (json_type_of(lines) != JSON_ARRAY || pgs_linefile_build(w->conf, "pg_hba", HA_ROLE_PRIMARY, &text) ||
        json_get(json_get(w->conf->pg, "parameters"), "hba_file") != NULL) {
        dra_buf_deinit(&text);
        return DRA_OK;
    }
    rc = dra_str_printf(path, sizeof path, "%s/pg_hba.conf", w->conf->config_dir);
    if (rc == 0 && dra_file_exists(path)) {
        rc = dra_file_read(path, 1024 * 1024, &text, err);
    }
    dra_buf_adds(&text, "\n");
    for (const struct json *e = json_first(lines); e != NULL; e = json_next(e)) {
        char line[2048];

        if (pgs_conf_text(e, line, sizeof line)) {
            dra_buf_adds(&text, line);
            dra_buf_adds(&text, "\n");
        }
    }
    if (rc == 0) {
        rc = dra_file_write_atomic(path, dra_buf_str(&text), text.len, 0600, err);
    }
    dra_buf_deinit(&text);
    return rc;
}

static int work_finish(struct pgs_jobwork *w, struct dra_err *err)
{
    int rc = pgs_restore_files(w->conf, err);

    if (rc == 0) {
        rc = append_hba(w, err);
    }
    return rc == 0 ? pgs_marker_remove(w->state_dir, err) : rc;
}

/* The password file goes in any case; flag: initdb succeeded. */
static int work_unlink(struct pgs_jobwork *w, struct dra_err *err)
{
    if (w->tmp_path[0] != '\0') {
        (void)unlink(w->tmp_path); /* gone already is fine */
    }
    return w->flag ? work_finish(w, err) : DRA_OK;
}

/* ---- the directory: steps ------------------------------------------------------------------------------------ */

/* The custom method's section, or NULL for initdb. */
static const struct json *custom_method(const struct pgs_conf *c)
{
    char name[128];
    const struct json *section;

    if (!pgs_conf_text(json_get(c->bootstrap, "method"), name, sizeof name) || strcmp(name, "initdb") == 0) {
        return NULL;
    }
    section = json_get(c->bootstrap, name);
    return json_type_of(json_get(section, "command")) == JSON_STRING ? section : NULL;
}

static int initdb_argv(struct pgs *s, struct pgs_argv *argv, struct dra_err *err)
{
    static const char *const forbidden[] = {"pgdata", "nosync", "pwfile", "sync-only", "version", NULL};
    int rc;

    pgs_argv_add(argv, s->conf->tool[PGS_TOOL_INITDB]);
    rc = pgs_conf_options(json_get(s->conf->bootstrap, "initdb"), forbidden, true, argv, err);
    if (s->conf->superuser.username[0] != '\0') {
        pgs_argv_addf(argv, "--username=%s", s->conf->superuser.username);
    }
    if (s->job.tmp_path[0] != '\0') {
        pgs_argv_addf(argv, "--pwfile=%s", s->job.tmp_path);
    }
    pgs_argv_add(argv, s->conf->data_dir);
    return rc != 0 ? dra_err_wrap(err, "bootstrap.initdb") : rc;
}

static int custom_argv(struct pgs *s, const struct json *section, struct pgs_argv *argv, struct dra_err *err)
{
    static const char *const reserved[] = {"command", "no_params", "keep_existing_recovery_conf", "recovery_conf", "scope", "datadir"};
    char value[2048];
    int rc;

    if (json_get(section, "recovery_conf") != NULL || json_is_true(json_get(section, "keep_existing_recovery_conf"))) {
        return dra_err_set(err, DRA_EINVAL, "bootstrap methods with recovery_conf are not supported yet");
    }
    if (!pgs_conf_text(json_get(section, "command"), value, sizeof value)) {
        return dra_err_set(err, DRA_EINVAL, "bootstrap method without a command");
    }
    rc = pgs_argv_split(argv, value, err);
    if (rc != 0) {
        return rc;
    }
    if (!json_is_true(json_get(section, "no_params"))) {
        pgs_argv_addf(argv, "--scope=%s", s->conf->scope);
        pgs_argv_addf(argv, "--datadir=%s", s->conf->data_dir);
    }
    for (const struct json *e = json_first(section); e != NULL; e = json_next(e)) {
        bool skip = json_name(e) == NULL || !pgs_conf_text(e, value, sizeof value);

        for (size_t i = 0; i < DRA_ARRAY_LEN(reserved) && !skip; i++) {
            skip = strcmp(reserved[i], json_name(e)) == 0;
        }
        if (!skip) {
            pgs_argv_addf(argv, "--%s=%s", json_name(e), value);
        }
    }
    return DRA_OK;
}

static void initdb_run(struct pgs *s)
{
    const struct json *section = custom_method(s->conf);
    struct pgs_argv argv;
    struct pgs_env env;
    struct dra_err err = {0};
    int rc;

    if (s->job.rc != 0) {
        pgs_state_set(s, HA_STATE_INITDB_FAILED);
        pgs_job_end(s, s->job.rc, "cannot prepare the data directory: %s", s->job.err.msg);
        return;
    }
    dra_str_clip(s->job.tmp_path, sizeof s->job.tmp_path, dra_buf_str(&s->job.output));
    pgs_argv_init(&argv);
    rc = section != NULL ? custom_argv(s, section, &argv, &err) : initdb_argv(s, &argv, &err);
    if (rc != 0) {
        s->job.rc = rc;
        s->job.err = err;
        s->job.step = STEP_FINISH;
        pgs_job_work(s, work_unlink, 0, false, NULL);
    } else {
        pgs_env_tool(s->conf, NULL, &env);
        s->job.step = STEP_RUN;
        pgs_job_child(s, &argv, env.v, section != NULL ? (struct dra_instant){0} : dra_after(dra_now(), dra_ms(INITDB_LIMIT_MS)));
    }
    pgs_argv_deinit(&argv);
}

void pgs_job_initdb_ev(struct pgs *s, enum pgs_ev ev)
{
    struct pgs_job *j = &s->job;
    bool custom = custom_method(s->conf) != NULL;
    char tail[160];

    if (ev == PGS_EV_BEGIN) {
        if (s->facts.postmaster == DRA_YES || s->facts.leftovers == DRA_YES) {
            pgs_job_end(s, DRA_ESTATE, "cannot initialize: the server is running");
            return;
        }
        pgs_state_set(s, custom ? HA_STATE_CUSTOM_BOOTSTRAP : HA_STATE_INITDB);
        j->step = STEP_READY;
        pgs_job_work(s, work_ready, 0, custom, NULL);
    } else if (ev == PGS_EV_CANCEL && j->child != NULL) {
        j->phase = HA_PHASE_CANCELLING;
        dra_child_cancel(j->child);
    } else if (j->step == STEP_READY && ev == PGS_EV_WORK) {
        initdb_run(s);
    } else if (j->step == STEP_RUN && ev == PGS_EV_CHILD) {
        j->tries = j->rc == 0 ? 1 : 0;
        if (j->rc != 0) {
            struct dra_err err = j->err;

            pgs_job_output_tail(s, tail, sizeof tail);
            (void)dra_err_set(&j->err, err.code != 0 ? err.code : DRA_ECHILD, "%s: %s", err.msg, tail);
        }
        j->step = STEP_FINISH;
        pgs_job_work(s, work_unlink, 0, j->tries == 1, NULL);
    } else if (j->step == STEP_FINISH && ev == PGS_EV_WORK) {
        if (j->tries != 1 || j->rc != 0) {
            pgs_state_set(s, custom ? HA_STATE_CUSTOM_BOOTSTRAP_FAILED : HA_STATE_INITDB_FAILED);
            pgs_job_end(s, j->cancelled ? DRA_ECANCELED : (j->err.code != 0 ? j->err.code : DRA_ECHILD), "%s: %s",
                        custom ? "bootstrap method" : "initdb", j->err.msg);
            return;
        }
        s->facts.upstream_known = false;
        j->step = STEP_READ;
        pgs_read_files(s);
    } else if (j->step == STEP_READ && ev == PGS_EV_FILES) {
        pgs_job_end(s, DRA_OK, "initialized the data directory");
    }
}

/* ---- roles ------------------------------------------------------------------------------------------------------ */

static void add_literal(struct dra_buf *out, const char *s)
{
    bool escape = strchr(s, '\\') != NULL;

    dra_buf_adds(out, escape ? "E'" : "'");
    for (; *s != '\0'; s++) {
        if (*s == '\'' || *s == '\\') {
            dra_buf_add(out, s, 1);
        }
        dra_buf_add(out, s, 1);
    }
    dra_buf_adds(out, "'");
}

static void add_identifier(struct dra_buf *out, const char *s)
{
    dra_buf_adds(out, "\"");
    for (; *s != '\0'; s++) {
        if (*s == '"') {
            dra_buf_add(out, s, 1);
        }
        dra_buf_add(out, s, 1);
    }
    dra_buf_adds(out, "\"");
}

/* Altered if it exists, created otherwise (HA-54): one statement, so that nothing can come between. */
static void role_statement(const struct pgs_user *u, const char *attributes, struct dra_buf *out)
{
    struct dra_buf tail;
    struct dra_buf body;
    char tag[32] = "$dra$";

    dra_buf_init(&tail, 8192);
    dra_buf_init(&body, 16384);
    add_identifier(&tail, u->username);
    dra_buf_addf(&tail, " WITH %s", attributes);
    if (u->password[0] != '\0') {
        dra_buf_adds(&tail, " PASSWORD ");
        add_literal(&tail, u->password);
    }
    dra_buf_adds(&body, "BEGIN IF EXISTS (SELECT FROM pg_catalog.pg_authid WHERE rolname = ");
    add_literal(&body, u->username);
    dra_buf_addf(&body, ") THEN ALTER ROLE %s; ELSE CREATE ROLE %s; END IF; END;", dra_buf_str(&tail), dra_buf_str(&tail));
    for (int i = 0; i < 1000 && strstr(dra_buf_str(&body), tag) != NULL; i++) {
        (void)snprintf(tag, sizeof tag, "$dra%d$", i);
    }
    dra_buf_addf(out, "DO %s%s%s", tag, dra_buf_str(&body), tag);
    dra_buf_deinit(&tail);
    dra_buf_deinit(&body);
}

/* The i-th statement; false past the end.  An empty text is skipped. */
static bool statement(const struct pgs_conf *c, int i, struct dra_buf *out)
{
    static const char *const functions[] = {"pg_ls_dir(text, boolean, boolean)", "pg_stat_file(text, boolean)",
                                            "pg_read_binary_file(text)", "pg_read_binary_file(text, bigint, bigint, boolean)"};
    bool rewind = c->rewind.username[0] != '\0' && !c->rewind_is_superuser;

    if (i == 0) {
        if (c->superuser.username[0] != '\0' && c->superuser.password[0] != '\0') {
            role_statement(&c->superuser, "SUPERUSER LOGIN", out);
        }
    } else if (i == 1) {
        if (c->replication.username[0] != '\0') {
            role_statement(&c->replication, "REPLICATION LOGIN", out);
        }
    } else if (i == 2) {
        if (rewind) {
            role_statement(&c->rewind, "LOGIN", out);
        }
    } else if (rewind && (size_t)(i - 3) < DRA_ARRAY_LEN(functions)) {
        dra_buf_addf(out, "GRANT EXECUTE ON FUNCTION pg_catalog.%s TO ", functions[i - 3]);
        add_identifier(out, c->rewind.username);
    } else {
        return false;
    }
    return true;
}

static void run_script(struct pgs *s)
{
    char command[2048];
    struct pgs_argv argv;
    struct pgs_env env;
    struct pgs_local local;
    struct dra_buf dsn;
    struct dra_err err = {0};
    struct pgs_conninfo ci = {.user = &s->conf->superuser, .dbname = s->conf->database, .port = s->conf->port};

    if (!pgs_conf_text(json_get(s->conf->bootstrap, "post_bootstrap"), command, sizeof command) &&
        !pgs_conf_text(json_get(s->conf->bootstrap, "post_init"), command, sizeof command)) {
        pgs_job_end(s, DRA_OK, "bootstrap is complete");
        return;
    }
    pgs_local_address(s->conf, false, &local);
    ci.host = local.host;
    dra_buf_init(&dsn, 4096);
    pgs_argv_init(&argv);
    pgs_conninfo_build(&ci, &dsn);
    if (pgs_argv_split(&argv, command, &err) != 0) {
        pgs_job_end(s, DRA_EINVAL, "post_bootstrap: %s", err.msg);
    } else {
        pgs_argv_add(&argv, dra_buf_str(&dsn));
        pgs_env_tool(s->conf, "-c synchronous_commit=local -c statement_timeout=0", &env);
        s->job.step = STEP_SCRIPT;
        pgs_job_child(s, &argv, env.v, (struct dra_instant){0});
    }
    pgs_argv_deinit(&argv);
    dra_buf_deinit(&dsn);
}

static void next_statement(struct pgs *s)
{
    struct dra_buf sql;
    bool more;

    dra_buf_init(&sql, 32768);
    s->job.step = STEP_ROLES;
    do {
        dra_buf_reset(&sql);
        more = statement(s->conf, s->job.tries++, &sql);
    } while (more && sql.len == 0);
    if (more) {
        pgs_job_sql(s, false, dra_buf_str(&sql), dra_after(dra_now(), dra_ms(SQL_LIMIT_MS)));
    }
    if (sql.p != NULL) {
        explicit_bzero(sql.p, sql.cap);
    }
    dra_buf_deinit(&sql);
    if (!more) {
        run_script(s);
    }
}

void pgs_job_post_bootstrap_ev(struct pgs *s, enum pgs_ev ev)
{
    struct pgs_job *j = &s->job;
    char tail[160];

    if (ev == PGS_EV_BEGIN) {
        if (s->facts.postmaster != DRA_YES || s->facts.in_recovery != DRA_NO) {
            pgs_job_end(s, DRA_ESTATE, "the server is not running as primary");
            return;
        }
        next_statement(s);
    } else if (ev == PGS_EV_EXIT && j->child == NULL) {
        pgs_job_end(s, DRA_ECHILD, "the server has ended during the bootstrap");
    } else if (ev == PGS_EV_CANCEL && j->child != NULL) {
        j->phase = HA_PHASE_CANCELLING;
        dra_child_cancel(j->child);
    } else if (j->step == STEP_ROLES && ev == PGS_EV_SQL) {
        if (j->rc != 0) {
            pgs_job_end(s, j->rc, "cannot set up the roles: %s", j->err.msg);
            return;
        }
        next_statement(s);
    } else if (j->step == STEP_SCRIPT && ev == PGS_EV_CHILD) {
        pgs_job_output_tail(s, tail, sizeof tail);
        if (j->rc != 0) {
            pgs_job_end(s, j->rc, "post_bootstrap %s: %s", j->err.msg, tail);
        } else {
            pgs_job_end(s, DRA_OK, "bootstrap is complete");
        }
    }
}
