/*
 * upstream.c - ask another member's server who it is and where its history left our timeline (HA-145 steps 2, 3).
 *
 * Two connections of its own: one with the rewind credentials (is it a primary? where is it?), one for replication
 * (IDENTIFY_SYSTEM, TIMELINE_HISTORY).  Names are resolved first, since libpq would block in DNS.
 * Promises: the callback runs once, from the loop; what was not answered is unknown.
 * Threads: loop.
 */
#include "pgs_int.h"

#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct check {
    struct pgs *s;
    struct ha_upstream_check r;
    char host[HA_URL_MAX];
    int port;
    struct dra_instant not_after;
    struct pgc *sql, *repl;
    uv_getaddrinfo_t lookup;
    struct dra_timer *limit; /* of the lookup, which cannot be cut short itself */
    bool told;               /* the callback has run; the lookup is still to end */
    int waiting;             /* answers still to come */
    pgs_upstream_cb cb;
    void *arg;
};

static void on_resolved(uv_getaddrinfo_t *req, int status, struct addrinfo *res);
static void on_lookup_limit(void *arg);
static bool ask(struct check *c, const char *address);
static void on_primary(const struct pgc_result *r, void *arg);
static void on_identify(const struct pgc_result *r, void *arg);
static void on_history(const struct pgc_result *r, void *arg);
static void one_done(struct check *c);

int pgs_check_upstream(struct pgs *s, const char *member, const char *conn_url, uint32_t local_timeline,
                       struct dra_instant not_after, pgs_upstream_cb cb, void *arg, struct dra_err *err)
{
    struct check *c = calloc(1, sizeof *c);
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM};
    char port[16];

    if (c == NULL) {
        return dra_err_set(err, DRA_ENOMEM, "upstream check");
    }
    if (s->closing || !ha_url_host_port(conn_url, c->host, sizeof c->host, &c->port) ||
        dra_str_copy(c->r.member, sizeof c->r.member, member) != 0) {
        free(c);
        return dra_err_set(err, DRA_EINVAL, "no address of member \"%s\"", member);
    }
    c->s = s;
    c->r.local_timeline = local_timeline;
    c->r.asked_at = dra_now();
    c->not_after = not_after;
    c->cb = cb;
    c->arg = arg;
    c->lookup.data = c;
    if (pgs_address_of(c->host)[0] != '\0') {
        if (!ask(c, c->host)) {
            pgc_close(c->sql);
            pgc_close(c->repl);
            free(c);
            return dra_err_set(err, DRA_ECONN, "cannot ask \"%s\"", conn_url);
        }
        pgs_ref(s);
        return DRA_OK;
    }
    (void)snprintf(port, sizeof port, "%d", c->port);
    if (dra_timer_open(s->loop, on_lookup_limit, c, &c->limit) != 0 ||
        uv_getaddrinfo(s->loop, &c->lookup, on_resolved, c->host, port, &hints) != 0) {
        dra_timer_close(c->limit);
        free(c);
        return dra_err_set(err, DRA_ESYS, "cannot look up \"%s\"", conn_url);
    }
    dra_timer_set(c->limit, not_after);
    pgs_ref(s);
    return DRA_OK;
}

static void finish(struct check *c)
{
    struct pgs *s = c->s;

    pgc_close(c->sql);
    pgc_close(c->repl);
    c->r.failed = !c->r.answered;
    if (!s->closing) {
        c->cb(&c->r, c->arg);
    }
    free(c);
    pgs_unref(s);
}

static void on_resolved(uv_getaddrinfo_t *req, int status, struct addrinfo *res)
{
    struct check *c = req->data;
    char address[512] = ""; /* all of them: libpq tries one after the other */

    for (const struct addrinfo *ai = status == 0 ? res : NULL; ai != NULL; ai = ai->ai_next) {
        char one[64];
        char more[512];

        if (getnameinfo(ai->ai_addr, ai->ai_addrlen, one, sizeof one, NULL, 0, NI_NUMERICHOST) == 0 &&
            dra_str_printf(more, sizeof more, "%s%s%s", address, address[0] != '\0' ? "," : "", one) == 0) {
            dra_str_clip(address, sizeof address, more);
        }
    }
    uv_freeaddrinfo(res);
    dra_timer_close(c->limit);
    c->limit = NULL;
    if (c->told) {
        pgs_unref(c->s);
        free(c);
        return;
    }
    if (address[0] == '\0' || c->s->closing) {
        log_linef(LOG_LV_WARNING, "pgs.upstream", "cannot resolve \"%s\" of member %s", c->host, c->r.member);
        finish(c);
        return;
    }
    if (!ask(c, address)) {
        finish(c);
    }
}

static void on_lookup_limit(void *arg)
{
    struct check *c = arg;

    c->told = true;
    c->r.failed = true;
    if (!c->s->closing) {
        log_linef(LOG_LV_WARNING, "pgs.upstream", "\"%s\" of member %s is not resolved in time", c->host, c->r.member);
        c->cb(&c->r, c->arg);
    }
}

static int connection(struct check *c, const struct pgs_user *u, const char *address, const char *replication, struct pgc **out)
{
    struct dra_buf ci;
    struct dra_buf hosts; /* one for each address */
    char name[HA_NAME_MAX + 32];
    int rc;

    dra_buf_init(&ci, 16384);
    dra_buf_init(&hosts, 8192);
    dra_buf_adds(&hosts, c->host);
    for (const char *p = address; *p != '\0'; p++) {
        if (*p == ',') {
            dra_buf_addf(&hosts, ",%s", c->host);
        }
    }
    rc = pgs_conninfo_for(c->s, u, dra_buf_str(&hosts), address, c->port, replication, c->s->conf->name,
                          replication == NULL ? "-c statement_timeout=10000 -c search_path=pg_catalog" : NULL, &ci);
    if (rc == 0) {
        rc = pgc_open(c->s->loop, out);
    }
    if (rc == 0) {
        (void)snprintf(name, sizeof name, "%s of %s", replication != NULL ? "replication" : "server", c->r.member);
        rc = pgc_configure(*out, name, dra_buf_str(&ci));
    }
    if (ci.p != NULL) {
        explicit_bzero(ci.p, ci.cap);
    }
    dra_buf_deinit(&ci);
    dra_buf_deinit(&hosts);
    return rc;
}

/* False: nothing could be started. */
static bool ask(struct check *c, const char *address)
{
    static const char primary_sql[] = "SELECT pg_is_in_recovery(), CASE WHEN pg_is_in_recovery() THEN NULL ELSE pg_current_wal_flush_lsn() END";

    c->waiting = 1; /* ours, until both were started */
    if (connection(c, &c->s->conf->rewind, address, NULL, &c->sql) == 0 &&
        pgc_query_start(c->sql, NULL, primary_sql, c->not_after, on_primary, c, NULL) == 0) {
        c->waiting++;
    }
    if (connection(c, &c->s->conf->replication, address, "true", &c->repl) == 0 &&
        pgc_query_start(c->repl, NULL, "IDENTIFY_SYSTEM", c->not_after, on_identify, c, NULL) == 0) {
        c->waiting++;
    }
    return --c->waiting > 0;
}

static void one_done(struct check *c)
{
    if (--c->waiting == 0) {
        finish(c);
    }
}

static void on_primary(const struct pgc_result *r, void *arg)
{
    struct check *c = arg;
    const char *v;

    if (r->err_code == DRA_OK && r->rows == 1 && r->cols == 2 && (v = r->get(r, 0, 0)) != NULL) {
        c->r.in_recovery = dra_tri_of(v[0] == 't');
        v = r->get(r, 0, 1);
        if (v != NULL && c->r.flush_lsn == 0 && dra_lsn_parse(v, &c->r.flush_lsn) != 0) {
            c->r.flush_lsn = 0;
        }
    } else if (!c->s->closing) {
        log_linef(LOG_LV_WARNING, "pgs.upstream", "cannot ask %s whether it is a primary: %s", c->r.member, r->err.msg);
    }
    one_done(c);
}

static void on_identify(const struct pgc_result *r, void *arg)
{
    struct check *c = arg;
    const char *sysid;
    const char *tli;
    const char *pos;
    int64_t n = 0;
    char sql[64];

    if (r->err_code != DRA_OK || r->rows != 1 || r->cols < 3 || (sysid = r->get(r, 0, 0)) == NULL ||
        (tli = r->get(r, 0, 1)) == NULL || dra_parse_i64(tli, strlen(tli), 1, UINT32_MAX, &n) != 0) {
        if (!c->s->closing) {
            log_linef(LOG_LV_WARNING, "pgs.upstream", "cannot ask %s for its timeline: %s", c->r.member, r->err.msg);
        }
        one_done(c);
        return;
    }
    dra_str_clip(c->r.sysid, sizeof c->r.sysid, sysid);
    c->r.timeline = (uint32_t)n;
    pos = r->get(r, 0, 2);
    if (pos != NULL && dra_lsn_parse(pos, &c->r.flush_lsn) != 0) {
        c->r.flush_lsn = 0;
    }
    if (c->r.timeline < c->r.local_timeline || c->r.local_timeline == 0 || c->r.timeline == 1) {
        c->r.has_fork = c->r.timeline == c->r.local_timeline;
        c->r.answered = true;
        one_done(c);
        return;
    }
    (void)snprintf(sql, sizeof sql, "TIMELINE_HISTORY %u", c->r.timeline);
    if (pgc_query_start(c->repl, NULL, sql, c->not_after, on_history, c, NULL) != 0) {
        one_done(c);
    }
}

static void on_history(const struct pgc_result *r, void *arg)
{
    struct check *c = arg;
    const char *text;

    if (r->err_code == DRA_OK && r->rows == 1 && r->cols >= 2 && (text = r->get(r, 0, 1)) != NULL) {
        c->r.has_fork = c->r.timeline == c->r.local_timeline || pgs_history_find(text, c->r.local_timeline, &c->r.fork_lsn);
        c->r.begin_lsn = pgs_history_begin(text, c->r.local_timeline);
        c->r.answered = true;
    } else if (!c->s->closing) {
        log_linef(LOG_LV_WARNING, "pgs.upstream", "cannot ask %s for the history of its timeline: %s", c->r.member, r->err.msg);
    }
    one_done(c);
}
