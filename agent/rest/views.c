/*
 * views.c - the status document (REST-43) and the members of GET /cluster (REST-64, REST-65), out of plain facts.
 *
 * Promises: keys in the order of the specification, nothing but ASCII in the text, integers exact.  NULL = out of memory.
 * Threads: any; each call works on its arguments only.
 */
#include "node.h"

#include <ctype.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- building ------------------------------------------------------------------------------------------ */

void views_put(struct views_tree *t, struct json *obj, const char *key, struct json *v)
{
    if (obj == NULL || v == NULL) {
        json_free(v);
        t->failed = true;
    } else if (json_set(obj, key, v) != DRA_OK) {
        t->failed = true;
    }
}

struct json *views_u64(uint64_t v)
{
    char text[24];
    (void)snprintf(text, sizeof text, "%" PRIu64, v);
    return json_new_raw(text);
}

char *views_tree_text(struct views_tree *t)
{
    char *text = t->failed || t->root == NULL ? NULL : json_print_spaced(t->root);
    json_free(t->root);
    t->root = NULL;
    return text;
}

static void put_copy(struct views_tree *t, struct json *obj, const char *key, const struct json *v)
{
    views_put(t, obj, key, v != NULL ? json_clone(v) : json_new_null());
}

static void put_true(struct views_tree *t, const char *key, bool on)
{
    if (on) {
        views_put(t, t->root, key, json_new_bool(true));
    }
}

/* ---- tags (REST-44) --------------------------------------------------------------------------------------- */

static bool tag_is_hidden(const struct json *tags, const char *key, const struct json *v)
{
    static const struct {
        const char *key;
        const char *kept_with; /* shown even if false while this one is present */
    } rows[] = {{"clonefrom", NULL}, {"nofailover", "failover_priority"}, {"noloadbalance", NULL},
                {"nosync", "sync_priority"}, {"nostream", NULL}};

    for (size_t i = 0; i < DRA_ARRAY_LEN(rows); i++) {
        if (dra_str_eq(rows[i].key, key)) {
            return !json_is_truthy(v) && (rows[i].kept_with == NULL || json_get(tags, rows[i].kept_with) == NULL);
        }
    }
    return false;
}

struct json *views_tags(const struct json *configured)
{
    struct views_tree t = {.root = NULL};

    for (const struct json *v = json_first(configured); v != NULL; v = json_next(v)) {
        const char *key = json_name(v);
        if (key == NULL || tag_is_hidden(configured, key, v)) {
            continue;
        }
        if (t.root == NULL) {
            t.root = json_new_object();
        }
        put_copy(&t, t.root, key, v);
    }
    if (t.failed) {
        json_free(t.root);
        return NULL;
    }
    return t.root;
}

/* ---- the status document (REST-43) ------------------------------------------------------------------------- */

static void put_xlog(struct views_tree *t, const struct rest_facts *f, const struct views_node *n)
{
    struct json *x = json_new_object();

    if (!n->in_recovery) {
        views_put(t, x, "location", views_u64(n->wal_lsn));
    } else {
        const char *ts = f->pg != NULL ? f->pg->replay_timestamp : "";
        views_put(t, x, "received_location", views_u64(n->received));
        views_put(t, x, "replayed_location", views_u64(n->replayed));
        views_put(t, x, "replayed_timestamp", ts[0] != '\0' ? json_new_str(ts) : json_new_null());
        views_put(t, x, "paused", json_new_bool(n->replay_paused));
    }
    views_put(t, t->root, "xlog", x);
}

static void put_replication(struct views_tree *t, const struct json *rows)
{
    static const char *const keys[] = {"usename", "application_name", "client_addr", "state", "sync_state", "sync_priority"};
    struct json *all;

    if (json_size(rows) == 0) {
        return;
    }
    all = json_new_array();
    for (const struct json *row = json_first(rows); row != NULL; row = json_next(row)) {
        struct json *one = json_new_object();
        for (size_t i = 0; i < DRA_ARRAY_LEN(keys); i++) {
            put_copy(t, one, keys[i], json_get(row, keys[i]));
        }
        if (all == NULL || one == NULL) {
            json_free(one);
            t->failed = true;
        } else if (json_append(all, one) != DRA_OK) {
            t->failed = true;
        }
    }
    views_put(t, t->root, "replication", all);
}

static void put_full(struct views_tree *t, const struct rest_facts *f, const struct views_node *n, const struct views_now *now)
{
    if (f->pg != NULL && f->pg->postmaster_start_time[0] != '\0') {
        views_put(t, t->root, "postmaster_start_time", json_new_str(f->pg->postmaster_start_time));
    }
    views_put(t, t->root, "role", json_new_str(ha_role_to_str(now->role)));
    views_put(t, t->root, "server_version", json_new_i64(n->server_version));
    put_xlog(t, f, n);
    put_true(t, "sync_standby", now->sync_standby);
    put_true(t, "quorum_standby", now->quorum_standby);
    views_put(t, t->root, "timeline", n->timeline != 0 ? json_new_i64(n->timeline) : json_new_null());
    if (now->repl == HA_REPL_STREAMING) {
        views_put(t, t->root, "replication_state", json_new_str("streaming"));
    } else if (now->repl == HA_REPL_ARCHIVE) {
        views_put(t, t->root, "replication_state", json_new_str("in archive recovery"));
    }
    put_replication(t, f->pg != NULL ? f->pg->replication : NULL);
}

static void put_patroni(struct views_tree *t, const struct views_node *n)
{
    struct json *p = json_new_object();
    views_put(t, p, "version", json_new_str(VIEWS_PATRONI_VERSION));
    views_put(t, p, "scope", json_new_str(n->scope));
    views_put(t, p, "name", json_new_str(n->name));
    views_put(t, p, "dragent", json_new_str(DRA_VERSION));
    views_put(t, t->root, "patroni", p);
}

static void put_schedule(struct views_tree *t, const struct json *scheduled)
{
    struct json *copy;

    if (json_type_of(scheduled) != JSON_OBJECT) {
        return;
    }
    copy = json_clone(scheduled);
    if (copy != NULL) {
        json_del(copy, "postmaster_start_time");
    }
    views_put(t, t->root, "scheduled_restart", copy);
}

char *views_document(const struct rest_facts *f, const struct views_node *n, const struct views_now *now)
{
    struct views_tree t = {.root = json_new_object()};
    struct json *tags = views_tags(f->tags);

    views_put(&t, t.root, "state", json_new_str(ha_state_to_str(now->state)));
    if (now->full) {
        put_full(&t, f, n, now);
    } else {
        views_put(&t, t.root, "role", json_new_str(ha_role_to_str(now->role)));
    }
    put_true(&t, "pause", n->paused);
    put_true(&t, "cluster_unlocked", n->unlocked);
    views_put(&t, t.root, "dcs_last_seen", json_new_i64(n->dcs_last_seen_s));
    if (tags != NULL) {
        views_put(&t, t.root, "tags", tags);
    }
    if (f->world->pg.sysid[0] != '\0') {
        views_put(&t, t.root, "database_system_identifier", json_new_str(f->world->pg.sysid));
    }
    if (n->pending_restart) {
        put_true(&t, "pending_restart", true);
        put_copy(&t, t.root, "pending_restart_reason", f->pg->pending_restart_reason);
    }
    put_patroni(&t, n);
    put_schedule(&t, f->scheduled_restart);
    return views_tree_text(&t);
}

char *views_status(const struct rest_facts *f)
{
    struct views_node n;
    struct views_now now;

    views_node_fill(&n, f);
    views_now_fill(&n, f->world->now, false, &now);
    return views_document(f, &n, &now);
}

/* ---- GET /cluster (REST-64, REST-65) -------------------------------------------------------------------------- */

struct lag_row {
    const char *lsn_key, *lag_key;
    uint64_t lsn;
};

static void put_lag(struct views_tree *t, struct json *member, const struct lag_row *row, uint64_t optime)
{
    char text[DRA_LSN_STR_MAX];

    if (row->lsn == 0) {
        views_put(t, member, row->lsn_key, json_new_str("unknown"));
        views_put(t, member, row->lag_key, json_new_str("unknown"));
        return;
    }
    dra_lsn_format(row->lsn, text);
    views_put(t, member, row->lag_key, views_u64(optime > row->lsn ? optime - row->lsn : 0));
    views_put(t, member, row->lsn_key, json_new_str(text));
}

struct cluster_kind {
    bool standby;
    enum views_sync sync;
};

static const char *member_role(const struct ha_cluster *c, const struct ha_member *m, const struct cluster_kind *k)
{
    if (dra_str_eq(m->name, c->leader)) {
        return k->standby ? "standby_leader" : "leader";
    }
    for (int i = 0; k->sync != VIEWS_SYNC_OFF && i < c->sync.n_standbys; i++) {
        if (dra_str_eq_nocase(c->sync.standbys[i], m->name)) {
            return k->sync == VIEWS_SYNC_QUORUM ? "quorum_standby" : "sync_standby";
        }
    }
    return "replica";
}

static const char *repl_text(enum ha_repl_state r)
{
    return r == HA_REPL_STREAMING ? "streaming" : r == HA_REPL_ARCHIVE ? "in archive recovery" : NULL;
}

static const char *member_state(const struct ha_member *m, const struct json *raw, bool is_leader)
{
    const char *repl = json_text(json_get(raw, "replication_state"));
    const char *state = json_text(json_get(raw, "state"));

    if (repl == NULL || repl[0] == '\0') {
        repl = repl_text(m->replication_state);
    }
    if (state == NULL) {
        state = m->state != HA_STATE_UNKNOWN ? ha_state_to_str(m->state) : "";
    }
    return is_leader || repl == NULL ? state : repl;
}

static struct json *member_object(struct views_tree *t, const struct dcs_snapshot *s, int i, const struct cluster_kind *k)
{
    static const char *const verbatim[] = {"timeline", "pending_restart", "pending_restart_reason", "scheduled_restart", "tags"};
    const struct ha_member *m = &s->c.members[i];
    const struct json *raw = s->member_raw[i];
    const char *role = member_role(&s->c, m, k);
    struct json *o = json_new_object();
    char host[HA_URL_MAX];
    int port = 0;

    views_put(t, o, "name", json_new_str(m->name));
    views_put(t, o, "role", json_new_str(role));
    views_put(t, o, "state", json_new_str(member_state(m, raw, dra_str_eq(role, "leader"))));
    views_put(t, o, "api_url", m->api_url[0] != '\0' ? json_new_str(m->api_url) : json_new_null());
    if (ha_url_host_port(m->conn_url, host, sizeof host, &port)) {
        for (char *p = host; *p != '\0'; p++) {
            *p = *p >= 'A' && *p <= 'Z' ? (char)(*p - 'A' + 'a') : *p;
        }
        views_put(t, o, "host", json_new_str(host));
        views_put(t, o, "port", json_new_i64(port));
    }
    for (size_t v = 0; v < DRA_ARRAY_LEN(verbatim); v++) {
        const struct json *value = json_get(raw, verbatim[v]);
        if (value != NULL) {
            put_copy(t, o, verbatim[v], value);
        }
    }
    if (!dra_str_eq(m->name, s->c.leader)) {
        const struct lag_row rows[] = {{"receive_lsn", "receive_lag", m->receive_lsn},
                                       {"replay_lsn", "replay_lag", m->replay_lsn},
                                       {"lsn", "lag", m->xlog_location}};
        for (size_t r = 0; r < DRA_ARRAY_LEN(rows); r++) {
            put_lag(t, o, &rows[r], s->c.optime);
        }
    }
    return o;
}

static void put_switchover(struct views_tree *t, const struct dcs_snapshot *s)
{
    const char *at = json_text(json_get(s->failover, "scheduled_at"));
    struct json *o;

    if (!s->c.failover.scheduled || s->c.failover.schedule_invalid || at == NULL ||
        (s->c.failover.leader[0] == '\0' && s->c.failover.member[0] == '\0')) {
        return;
    }
    o = json_new_object();
    views_put(t, o, "at", json_new_str(at));
    if (s->c.failover.leader[0] != '\0') {
        views_put(t, o, "from", json_new_str(s->c.failover.leader));
    }
    if (s->c.failover.member[0] != '\0') {
        views_put(t, o, "to", json_new_str(s->c.failover.member));
    }
    views_put(t, t->root, "scheduled_switchover", o);
}

struct json *views_cluster(const struct dcs_snapshot *s)
{
    struct views_tree t = {.root = json_new_object()};
    struct json *members = json_new_array();
    const char *mode = json_text(json_get(s->config, "synchronous_mode"));
    struct cluster_kind kind = {.standby = json_type_of(json_get(s->config, "standby_cluster")) == JSON_OBJECT};

    if (mode != NULL && dra_str_eq_nocase(mode, "quorum")) {
        kind.sync = VIEWS_SYNC_QUORUM;
    } else if (json_is_truthy(json_get(s->config, "synchronous_mode"))) {
        kind.sync = VIEWS_SYNC_ON;
    }
    for (int i = 0; i < s->c.n_members && members != NULL; i++) { /* sorted by name already */
        struct json *o = member_object(&t, s, i, &kind);
        if (o == NULL || json_append(members, o) != DRA_OK) {
            t.failed = true;
        }
    }
    views_put(&t, t.root, "members", members);
    if (json_is_truthy(json_get(s->config, "pause"))) {
        put_true(&t, "pause", true);
    }
    put_switchover(&t, s);
    if (t.failed) {
        json_free(t.root);
        return NULL;
    }
    return t.root;
}
