/*
 * members.c - the member table of list and topology (CLI-30 .. CLI-35), made of the data of GET /cluster (REST-64).
 */
#include "ctl.h"

#include <dragent/rest.h>

#include <stdlib.h>
#include <string.h>

enum { COL_CLUSTER = 0, COL_MEMBER, COL_HOST, COL_ROLE, COL_STATE, COL_TL, COL_RECEIVE, COL_RECEIVE_LAG, COL_REPLAY, COL_REPLAY_LAG,
       COL_BASE_COUNT };
static const struct ctl_column base_columns[COL_BASE_COUNT] = {
    {"Cluster", NULL, false},          {"Member", "Member", false},   {"Host", "Host", false},         {"Role", "Role", false},
    {"State", "State", false},         {"TL", "TL", true},            {"Receive LSN", "Receive LSN", true}, {"Receive Lag", "Lag", true},
    {"Replay LSN", "Replay LSN", true}, {"Replay Lag", "Lag", true},
};
static const struct {
    const char *key; /* in the view */
    struct ctl_column column;
} extra_columns[] = {
    {"pending_restart", {"Pending restart", "Pending restart", false}},
    {"pending_restart_reason", {"Pending restart reason", "Pending restart reason", false}},
    {"scheduled_restart", {"Scheduled restart", "Scheduled restart", false}},
    {"tags", {"Tags", "Tags", false}},
};

struct builder {
    const struct json *members;
    const char *scope;
    enum ctl_format format;
    bool append_port;
    struct json *rows;
    int rc;
};

static void put(struct builder *b, struct json *row, const char *key, struct json *v)
{
    int rc = json_set(row, key, v);
    b->rc = b->rc != 0 ? b->rc : rc;
}

static const char *text_of(const struct json *m, const char *key)
{
    const char *s = json_text(json_get(m, key));
    return s == NULL ? "" : s;
}

/* ---- cells ------------------------------------------------------------------------------------------------ */

/* "sync_standby" -> "Sync Standby" */
static void put_role(struct builder *b, struct json *row, const struct json *m)
{
    char role[64];
    bool first = true;
    dra_str_clip(role, sizeof role, text_of(m, "role"));
    for (char *p = role; *p != '\0'; p++) {
        if (*p == '_') {
            *p = ' ';
        } else if (first && *p >= 'a' && *p <= 'z') {
            *p = (char)(*p - 'a' + 'A');
        }
        first = *p == ' ';
    }
    put(b, row, "Role", json_new_str(role));
}

static void put_host(struct builder *b, struct json *row, const struct json *m)
{
    char host[HA_URL_MAX + 8];
    int64_t port = 0;
    if (text_of(m, "host")[0] == '\0') {
        return;
    }
    if (b->append_port && json_opt_i64(m, "port", &port, NULL) == 0 && port > 0) {
        (void)snprintf(host, sizeof host, "%s:%lld", text_of(m, "host"), (long long)port);
    } else {
        dra_str_clip(host, sizeof host, text_of(m, "host"));
    }
    put(b, row, "Host", json_new_str(host));
}

/* Bytes to MB, half to even (CLI-32). */
static int64_t to_mb(int64_t bytes)
{
    int64_t q = bytes / 1048576, rest = bytes % 1048576;
    return rest > 524288 || (rest == 524288 && q % 2 != 0) ? q + 1 : q;
}

static void put_lsn(struct builder *b, struct json *row, const struct json *m, const char *lsn, const char *lag, const char *lsn_column,
                    const char *lag_column)
{
    int64_t bytes = -1;
    if (json_get(m, lsn) != NULL) {
        put(b, row, lsn_column, json_clone(json_get(m, lsn)));
    }
    if (json_type_of(json_get(m, lag)) == JSON_NUMBER && json_opt_i64(m, lag, &bytes, NULL) == 0 && bytes >= 0) {
        put(b, row, lag_column, json_new_i64(to_mb(bytes)));
    }
}

static bool is_unknown(const struct json *m, const char *key)
{
    const char *s = json_text(json_get(m, key));
    return s == NULL || dra_str_eq(s, "unknown");
}

static void put_positions(struct builder *b, struct json *row, const struct json *m)
{
    if (json_get(m, "lsn") == NULL && json_get(m, "receive_lsn") == NULL) {
        return; /* the leader */
    }
    if (is_unknown(m, "receive_lsn") && is_unknown(m, "replay_lsn") && !is_unknown(m, "lsn")) {
        bool streaming = dra_str_eq(text_of(m, "state"), "streaming"); /* an older member (CLI-32) */
        put_lsn(b, row, m, streaming ? "lsn" : "receive_lsn", streaming ? "lag" : "receive_lag", "Receive LSN", "Receive Lag");
        put_lsn(b, row, m, streaming ? "replay_lsn" : "lsn", streaming ? "replay_lag" : "lag", "Replay LSN", "Replay Lag");
        return;
    }
    put_lsn(b, row, m, "receive_lsn", "receive_lag", "Receive LSN", "Receive Lag");
    put_lsn(b, row, m, "replay_lsn", "replay_lag", "Replay LSN", "Replay Lag");
}

static void put_reason(struct builder *b, struct json *row, const struct json *m)
{
    const struct json *r = json_get(m, "pending_restart_reason");
    bool grid = b->format == CTL_FMT_PRETTY || b->format == CTL_FMT_TOPOLOGY;
    struct dra_buf text;
    if (json_type_of(r) != JSON_OBJECT || json_size(r) == 0) {
        return;
    }
    dra_buf_init(&text, 65536);
    for (const struct json *p = json_first(r); p != NULL; p = json_next(p)) {
        char old_value[256] = "", new_value[256] = "", line[640];
        (void)json_scalar_text(json_get(p, "old_value"), old_value, sizeof old_value);
        (void)json_scalar_text(json_get(p, "new_value"), new_value, sizeof new_value);
        (void)snprintf(line, sizeof line, "%s: %s->%s", json_name(p), old_value, new_value);
        if (grid && strlen(line) > 50) {
            (void)snprintf(line, sizeof line, "%s: [hidden - too long]", json_name(p));
        }
        dra_buf_addf(&text, "%s%s", text.len == 0 ? "" : "\n", line);
    }
    put(b, row, "Pending restart reason", json_new_str(dra_buf_str(&text)));
    dra_buf_deinit(&text);
}

static void put_scheduled(struct builder *b, struct json *row, const struct json *m)
{
    const struct json *s = json_get(m, "scheduled_restart");
    const char *version = json_text(json_get(s, "postgres_version"));
    char text[256];
    if (json_type_of(s) != JSON_OBJECT) {
        return;
    }
    (void)snprintf(text, sizeof text, "%s%s%s", text_of(s, "schedule"), version == NULL ? "" : " if version < ", version == NULL ? "" : version);
    put(b, row, "Scheduled restart", json_new_str(text));
}

static void add_member(struct builder *b, const struct json *m, int depth)
{
    struct json *row = json_new_object();
    char name[HA_NAME_MAX + 2 * HA_MEMBERS_MAX + 8];
    int64_t tl = 0;
    if (row == NULL) {
        b->rc = DRA_ENOMEM;
        return;
    }
    if (depth > 0) {
        (void)snprintf(name, sizeof name, "%*s+ %s", 2 * (depth - 1), "", text_of(m, "name"));
    } else {
        dra_str_clip(name, sizeof name, text_of(m, "name"));
    }
    put(b, row, "Cluster", json_new_str(b->scope));
    put(b, row, "Member", json_new_str(name));
    put_host(b, row, m);
    put_role(b, row, m);
    put(b, row, "State", json_new_str(text_of(m, "state")));
    if (json_opt_i64(m, "timeline", &tl, NULL) == 0 && tl > 0) {
        put(b, row, "TL", json_new_i64(tl));
    }
    put_positions(b, row, m);
    if (json_is_truthy(json_get(m, "pending_restart"))) {
        put(b, row, "Pending restart", json_new_str("*"));
    }
    put_reason(b, row, m);
    put_scheduled(b, row, m);
    if (json_is_truthy(json_get(m, "tags"))) {
        put(b, row, "Tags", json_clone(json_get(m, "tags")));
    }
    if (json_append(b->rows, row) != 0) {
        b->rc = DRA_ENOMEM;
    }
}

/* ---- order ---------------------------------------------------------------------------------------------------- */

static bool is_leader(const struct json *m)
{
    return dra_str_eq(text_of(m, "role"), "leader") || dra_str_eq(text_of(m, "role"), "standby_leader");
}

static const struct json *by_name(const struct json *members, const char *name)
{
    for (const struct json *m = json_first(members); m != NULL; m = json_next(m)) {
        if (dra_str_eq(text_of(m, "name"), name)) {
            return m;
        }
    }
    return NULL;
}

/* Whom a replica hangs below in the tree: NULL = the leader, or the top. */
static const struct json *parent_of(const struct builder *b, const struct json *m)
{
    const char *from = json_text(json_find(m, "tags.replicatefrom"));
    const struct json *p = from == NULL ? NULL : by_name(b->members, from);
    return p == NULL || p == m || is_leader(p) ? NULL : p;
}

/* The tree, by a stack of "who comes next below whom"; a circle of replicatefrom shows nobody twice. */
static void add_tree(struct builder *b)
{
    const struct json *stack[HA_MEMBERS_MAX + 1];
    const struct json *next[HA_MEMBERS_MAX + 1];
    bool done[4 * HA_MEMBERS_MAX] = {false};
    int depth = 1;
    size_t k = 0;
    for (const struct json *m = json_first(b->members); m != NULL; m = json_next(m)) {
        if (is_leader(m)) {
            add_member(b, m, 0);
        }
    }
    stack[1] = NULL;
    next[1] = json_first(b->members);
    while (depth > 0) {
        const struct json *m = next[depth];
        if (m == NULL) {
            depth--;
            continue;
        }
        next[depth] = json_next(m);
        if (is_leader(m) || parent_of(b, m) != stack[depth]) {
            continue;
        }
        add_member(b, m, depth);
        if (depth < HA_MEMBERS_MAX) {
            depth++;
            stack[depth] = m;
            next[depth] = json_first(b->members);
        }
    }
    for (const struct json *r = json_first(b->rows); r != NULL; r = json_next(r)) { /* who is in a circle comes last */
        const char *name = text_of(r, "Member");
        k = 0;
        name += strspn(name, " ");
        name += dra_str_starts(name, "+ ") ? 2 : 0;
        for (const struct json *m = json_first(b->members); m != NULL && k < DRA_ARRAY_LEN(done); m = json_next(m), k++) {
            done[k] = done[k] || dra_str_eq(text_of(m, "name"), name);
        }
    }
    k = 0;
    for (const struct json *m = json_first(b->members); m != NULL && k < DRA_ARRAY_LEN(done); m = json_next(m), k++) {
        if (!done[k]) {
            add_member(b, m, 1);
        }
    }
}

/* host:port if any port is not 5432, or two members share a host. */
static bool wants_port(const struct json *members)
{
    for (const struct json *m = json_first(members); m != NULL; m = json_next(m)) {
        int64_t port = 5432;
        if (json_opt_i64(m, "port", &port, NULL) == 0 && port != 5432) {
            return true;
        }
        for (const struct json *o = json_next(m); o != NULL; o = json_next(o)) {
            if (text_of(m, "host")[0] != '\0' && dra_str_eq(text_of(m, "host"), text_of(o, "host"))) {
                return true;
            }
        }
    }
    return false;
}

static void add_service_info(const struct json *view, struct dra_buf *out)
{
    const struct json *s = json_get(view, "scheduled_switchover");
    static const char *const parts[] = {"from", "to"};
    if (json_is_truthy(json_get(view, "pause"))) {
        dra_buf_adds(out, " Maintenance mode: on\n");
    }
    if (json_type_of(s) != JSON_OBJECT) {
        return;
    }
    dra_buf_addf(out, " Switchover scheduled at: %s\n", text_of(s, "at"));
    for (size_t i = 0; i < DRA_ARRAY_LEN(parts); i++) {
        if (text_of(s, parts[i])[0] != '\0') {
            dra_buf_addf(out, "%24s: %s\n", parts[i], text_of(s, parts[i]));
        }
    }
}

void ctl_members_table(const struct json *view, const char *scope, const char *initialize, bool extended, enum ctl_format format,
                       struct dra_buf *out)
{
    struct ctl_column columns[COL_BASE_COUNT + DRA_ARRAY_LEN(extra_columns)];
    struct builder b = {.members = json_get(view, "members"), .scope = scope, .format = format, .rows = json_new_array()};
    size_t n = COL_BASE_COUNT;
    char title[HA_NAME_MAX + HA_SYSID_MAX + 32];
    memcpy(columns, base_columns, sizeof base_columns);
    for (size_t i = 0; i < DRA_ARRAY_LEN(extra_columns); i++) {
        bool any = extended;
        for (const struct json *m = json_first(b.members); m != NULL && !any; m = json_next(m)) {
            any = json_is_truthy(json_get(m, extra_columns[i].key));
        }
        if (any) {
            columns[n++] = extra_columns[i].column;
        }
    }
    b.append_port = wants_port(b.members);
    if (format == CTL_FMT_TOPOLOGY) {
        add_tree(&b);
    } else {
        for (const struct json *m = json_first(b.members); m != NULL; m = json_next(m)) {
            add_member(&b, m, 0);
        }
    }
    (void)snprintf(title, sizeof title, " Cluster: %s (%s) ", scope, initialize);
    if (b.rc == 0) {
        ctl_table(columns, n, b.rows, title, true, format, out);
    }
    if (format == CTL_FMT_PRETTY || format == CTL_FMT_TOPOLOGY) {
        add_service_info(view, out);
    }
    json_free(b.rows);
}

int ctl_members_print(const struct dcs_snapshot *s, const char *scope, bool extended, enum ctl_format format)
{
    DRA_CLEANUP(json_freep) struct json *view = views_cluster(s);
    const char *initialize = s->c.initialize == HA_INIT_ABSENT  ? "uninitialized"
                             : s->c.initialize == HA_INIT_EMPTY ? "initializing"
                                                                : s->c.sysid;
    struct dra_buf out;
    if (view == NULL) {
        return ctl_error("out of memory");
    }
    dra_buf_init(&out, 16 * 1024 * 1024);
    ctl_members_table(view, scope, initialize, extended, format, &out);
    ctl_print(&out);
    dra_buf_deinit(&out);
    return 0;
}
