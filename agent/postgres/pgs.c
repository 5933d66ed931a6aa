/*
 * pgs.c - the local server's facade: open, configure, close, facts, and the connections to it.
 *
 * The struct lives until the last asynchronous thing that was begun has ended (refs); after pgs_close() nothing of it
 * calls out any more.
 * Threads: loop.
 */
#include "pgs_int.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DESCRIBE_LIMIT_MS 20000
#define GUCS_TEXT_MAX (1024 * 1024)

int pgs_open(struct uv_loop_s *loop, struct dra_fworker *files, const struct json *effective, const char *state_dir,
             const struct pgs_events *ev, void *arg, struct pgs **out, struct dra_err *err)
{
    struct pgs *s = calloc(1, sizeof *s);
    int rc;

    if (s == NULL) {
        return dra_err_set(err, DRA_ENOMEM, "server");
    }
    s->loop = loop;
    s->files = files;
    s->ev = *ev;
    s->arg = arg;
    s->refs = 1;
    s->job.go_fd = -1;
    s->job.log_fd = -1;
    dra_buf_init(&s->gucs_text, GUCS_TEXT_MAX);
    rc = pgs_conf_new(effective, &s->conf, err);
    if (rc == 0) {
        rc = dra_str_copy(s->state_dir, sizeof s->state_dir, state_dir);
    }
    if (rc == 0) {
        rc = pgc_open(loop, &s->hb);
    }
    if (rc == 0) {
        rc = pgc_open(loop, &s->work);
    }
    if (rc != 0) {
        if (err != NULL && err->code == 0) {
            (void)dra_err_set(err, rc, "server");
        }
        s->closing = true;
        pgc_close(s->hb);
        pgs_unref(s);
        return rc;
    }
    pgs_connections_configure(s);
    pgs_gucs_load(s);
    pgs_read_files(s);
    *out = s;
    return DRA_OK;
}

int pgs_configure(struct pgs *s, const struct json *effective, struct dra_err *err)
{
    struct pgs_conf *c = NULL;
    int rc = pgs_conf_new(effective, &c, err);

    if (rc != 0) {
        return rc;
    }
    pgs_conf_unref(s->conf);
    s->conf = c;
    pgs_connections_configure(s);
    return DRA_OK;
}

void pgs_close(struct pgs *s)
{
    if (s == NULL || s->closing) {
        return;
    }
    s->closing = true;
    pgs_control_watch(s, false);
    dra_procwatch_close(s->pm_watch);
    dra_procwatch_close(s->left_watch);
    dra_timer_close(s->kill.timer);
    dra_timer_close(s->pending_timer);
    dra_timer_close(s->job.timer);
    s->pm_watch = NULL;
    s->left_watch = NULL;
    s->kill.timer = NULL;
    s->pending_timer = NULL;
    s->job.timer = NULL;
    if (s->job.child != NULL) {
        dra_child_cancel(s->job.child); /* a copy or a rewind that nobody waits for; the marker tells of it */
    }
    if (s->job.go_fd >= 0) {
        pgs_job_abandon(s);
    }
    pgs_hooks_close(s);
    pgc_close(s->hb);
    pgc_close(s->work);
    s->hb = NULL;
    s->work = NULL;
    pgs_unref(s);
}

void pgs_ref(struct pgs *s)
{
    s->refs++;
}

void pgs_unref(struct pgs *s)
{
    if (--s->refs > 0) {
        return;
    }
    json_free(s->replication);
    json_free(s->slots);
    json_free(s->pending);
    json_free(s->raised);
    free(s->history_text);
    free(s->told);
    pgs_gucs_free(s->gucs);
    dra_buf_deinit(&s->gucs_text);
    dra_buf_deinit(&s->job.output);
    pgs_argv_deinit(&s->job.command);
    pgs_conf_unref(s->conf);
    free(s);
}

void pgs_changed(struct pgs *s)
{
    if (!s->closing) {
        s->ev.changed(s->arg);
    }
}

const struct ha_pg *pgs_facts(const struct pgs *s)
{
    return &s->facts;
}

const struct pgs_view *pgs_view(const struct pgs *s)
{
    return &s->view;
}

/* ---- connections ----------------------------------------------------------------------------------------- */

int pgs_conninfo_for(const struct pgs *s, const struct pgs_user *u, const char *host, const char *hostaddr, int port,
                     const char *replication, const char *app, const char *options, struct dra_buf *out)
{
    struct pgs_conninfo ci = {.user = u,
                              .dbname = replication != NULL ? NULL : s->conf->database,
                              .host = host,
                              .hostaddr = hostaddr,
                              .port = port,
                              .with_password = true,
                              .application_name = app,
                              .krbsrvname = s->conf->krbsrvname,
                              .replication = replication,
                              .options = options,
                              .connect_timeout_s = 3,
                              .major = s->facts.major};

    pgs_conninfo_build(&ci, out);
    return out->failed ? DRA_ETOOLONG : DRA_OK;
}

static void configure_one(struct pgs *s, struct pgc *c, const char *name, const char *options)
{
    struct pgs_local local;
    struct dra_buf ci;

    dra_buf_init(&ci, 8192);
    pgs_local_address(s->conf, false, &local);
    if (pgs_conninfo_for(s, &s->conf->superuser, local.host, local.hostaddr, s->conf->port, NULL, name, options, &ci) != 0 ||
        pgc_configure(c, name, dra_buf_str(&ci)) != 0) {
        log_linef(LOG_LV_ERROR, "pgs.connection", "%s: cannot be configured", name);
    }
    if (ci.p != NULL) {
        explicit_bzero(ci.p, ci.cap);
    }
    dra_buf_deinit(&ci);
}

void pgs_connections_configure(struct pgs *s)
{
    /* HA-07.  The name is one that people's monitoring knows. */
    configure_one(s, s->hb, "Patroni heartbeat", "-c search_path=pg_catalog -c statement_timeout=2000 -c pg_stat_statements.track=none");
    /* HA-51: no statement of ours may wait for a standby, and no password may get into a log. */
    configure_one(s, s->work, "dragent",
                  "-c search_path=pg_catalog -c statement_timeout=0 -c synchronous_commit=local -c log_statement=none"
                  " -c log_min_duration_statement=-1 -c log_min_error_statement=panic -c pg_stat_statements.track=none"
                  " -c pg_stat_statements.track_utility=off -c pgaudit.log=none");
}

int pgs_conninfo(const struct pgs *s, const char *conn_url, const char *which, struct dra_buf *out)
{
    const struct pgs_user *u = &s->conf->superuser;
    char host[HA_URL_MAX];
    struct pgs_conninfo ci = {.dbname = s->conf->database,
                              .host = host,
                              .passfile = s->conf->pgpass,
                              .krbsrvname = s->conf->krbsrvname,
                              .major = s->facts.major};

    if (strcmp(which, "replication") == 0) {
        u = &s->conf->replication;
        ci.application_name = s->conf->name;
        ci.defaults = true;
    } else if (strcmp(which, "rewind") == 0) {
        u = &s->conf->rewind;
    } else if (strcmp(which, "superuser") != 0) {
        return DRA_EINVAL;
    }
    if (!ha_url_host_port(conn_url, host, sizeof host, &ci.port)) {
        return DRA_EINVAL;
    }
    ci.user = u;
    pgs_conninfo_build(&ci, out);
    return out->failed ? DRA_ETOOLONG : DRA_OK;
}

void pgs_env_tool(const struct pgs_conf *c, const char *pgoptions, struct pgs_env *out)
{
    int n = 0;

    memset(out, 0, sizeof *out);
    (void)snprintf(out->text[n], sizeof out->text[n], "PGPASSFILE=%s", c->pgpass);
    out->v[n] = out->text[n];
    n++;
    (void)snprintf(out->text[n], sizeof out->text[n], "LC_ALL=C"); /* messages are read by us */
    out->v[n] = out->text[n];
    n++;
    out->v[n++] = "PGPASSWORD"; /* would beat the password file */
    out->v[n++] = "PGSERVICE";
    if (pgoptions != NULL) {
        (void)snprintf(out->text[n], sizeof out->text[n], "PGOPTIONS=%s", pgoptions);
        out->v[n] = out->text[n];
        n++;
    }
    if (c->krbsrvname[0] != '\0') {
        (void)snprintf(out->text[n], sizeof out->text[n], "PGKRBSRVNAME=%s", c->krbsrvname);
        out->v[n] = out->text[n];
        n++;
    }
    out->v[n] = NULL;
}

/* ---- names of parameters ------------------------------------------------------------------------------------- */

static void on_describe_output(const char *p, size_t n, void *arg)
{
    struct pgs *s = arg;

    dra_buf_add(&s->gucs_text, p, n);
}

static void on_described(const struct dra_child_result *r, void *arg)
{
    struct pgs *s = arg;
    struct dra_err err = {0};

    s->gucs_running = false;
    if (!s->closing && s->gucs == NULL) {
        if (r->err_code != DRA_OK || s->gucs_text.failed) {
            log_linef(LOG_LV_WARNING, "pgs.describe", "postgres --describe-config failed: unknown parameters are not filtered");
        } else if (pgs_gucs_parse(dra_buf_str(&s->gucs_text), &s->gucs, &err) != 0) {
            log_linef(LOG_LV_WARNING, "pgs.describe", "%s", err.msg);
        }
    }
    dra_buf_reset(&s->gucs_text);
    pgs_unref(s);
}

void pgs_gucs_load(struct pgs *s)
{
    const char *const argv[] = {s->conf->tool[PGS_TOOL_POSTGRES], "--describe-config", NULL};
    static const char *const env[] = {"LC_ALL=C", NULL};
    struct dra_child_spec spec = {.argv = argv,
                                  .env = env,
                                  .not_after = dra_after(dra_now(), dra_ms(DESCRIBE_LIMIT_MS)),
                                  .on_output = on_describe_output,
                                  .stdout_only = true};
    struct dra_child *child;
    struct dra_err err = {0};

    if (s->gucs != NULL || s->gucs_running) {
        return;
    }
    dra_buf_reset(&s->gucs_text);
    pgs_ref(s);
    s->gucs_running = true;
    if (dra_child_start(s->loop, &spec, on_described, s, &child, &err) != 0) {
        s->gucs_running = false;
        pgs_unref(s);
        log_linef(LOG_LV_WARNING, "pgs.describe", "postgres --describe-config: %s", err.msg);
    }
}
