/*
 * cmd_list.c - list, topology (CLI-30 .. CLI-35), history (CLI-74), show-config (CLI-71), version (CLI-82).
 */
#include "ctl.h"

#include <stdlib.h>
#include <string.h>

/* ---- list, topology ------------------------------------------------------------------------------------------ */

static int list_once(struct ctl *c, enum ctl_format format)
{
    bool extended = c->args.value[CTL_OPT_EXTENDED] != NULL;
    int n = c->args.n_pos > 0 ? c->args.n_pos : 1;
    if (c->args.n_pos == 0 && c->scope[0] == '\0') {
        log_linef(LOG_LV_WARNING, "ctl.list", "Listing members: No cluster names were provided");
        return 0;
    }
    for (int i = 0; i < n; i++) {
        const char *scope = c->args.n_pos > 0 ? c->args.pos[i] : c->scope;
        struct dcs_snapshot *s = NULL;
        int rc = ctl_cluster(c, scope, &s);
        if (rc == 0) {
            rc = ctl_members_print(s, scope, extended, format);
        }
        dcs_snapshot_unref(s);
        if (rc != 0) {
            return rc;
        }
    }
    return 0;
}

/* Milliseconds between two tables; 0 = once. */
static int watch_interval(const struct ctl *c, int64_t *out_ms)
{
    const char *w = c->args.value[CTL_OPT_WATCH];
    *out_ms = c->args.value[CTL_OPT_W2] != NULL ? 2000 : 0;
    if (w != NULL) {
        struct json *j = json_new_str(w);
        struct dra_span s;
        int rc = conf_parse_duration(j, &s);
        json_free(j);
        if (rc != 0 || s.ns <= 0) {
            return ctl_usage_error(c, "Invalid value for '-w' / '--watch': '%s' is not a valid float.", w);
        }
        *out_ms = dra_span_ms(s) < 10 ? 10 : dra_span_ms(s);
    }
    return 0;
}

static int list_loop(struct ctl *c, enum ctl_format format)
{
    int64_t every_ms;
    int rc = watch_interval(c, &every_ms);
    while (rc == 0) {
        if (every_ms > 0) {
            (void)fputs("\033[2J\033[1;1H", stdout);
        }
        if (c->args.value[CTL_OPT_TIMESTAMP] != NULL) {
            char now[CTL_TIME_MAX];
            ctl_now(now, false);
            (void)puts(now);
        }
        rc = list_once(c, format);
        if (every_ms == 0) {
            break;
        }
        ctl_pause(c, every_ms);
    }
    return rc;
}

int ctl_cmd_list(struct ctl *c)
{
    return list_loop(c, ctl_format_of(c));
}

int ctl_cmd_topology(struct ctl *c)
{
    return list_loop(c, CTL_FMT_TOPOLOGY);
}

/* ---- history ----------------------------------------------------------------------------------------------------- */

static const struct ctl_column history_columns[] = {
    {"TL", "TL", true}, {"LSN", "LSN", true}, {"Reason", "Reason", false}, {"Timestamp", "Timestamp", false}, {"New Leader", "New Leader", false},
};

int ctl_cmd_history(struct ctl *c)
{
    const char *scope = ctl_scope(c);
    DRA_CLEANUP(json_freep) struct json *rows = json_new_array();
    struct dcs_snapshot *s = NULL;
    struct dra_buf out;
    int rc = scope == NULL ? CTL_EXIT_USAGE : ctl_cluster(c, scope, &s);
    if (rc != 0) {
        return rc;
    }
    for (const struct json *line = json_first(s->history); line != NULL && rc == 0; line = json_next(line)) {
        struct json *row = json_new_object();
        rc = row == NULL ? DRA_ENOMEM : DRA_OK;
        for (size_t i = 0; i < DRA_ARRAY_LEN(history_columns) && rc == 0; i++) {
            const struct json *v = json_at(line, i);
            rc = json_set(row, history_columns[i].key, v == NULL ? json_new_str("") : json_clone(v));
        }
        rc = rc == 0 ? json_append(rows, DRA_TAKE(row)) : rc;
        json_free(row);
    }
    dcs_snapshot_unref(s);
    if (rc != 0) {
        return ctl_error("out of memory");
    }
    dra_buf_init(&out, 16 * 1024 * 1024);
    ctl_table(history_columns, DRA_ARRAY_LEN(history_columns), rows, NULL, false, ctl_format_of(c), &out);
    ctl_print(&out);
    dra_buf_deinit(&out);
    return 0;
}

/* ---- show-config --------------------------------------------------------------------------------------------------- */

int ctl_cmd_show_config(struct ctl *c)
{
    const char *scope = ctl_scope(c);
    struct dcs_snapshot *s = NULL;
    struct dra_buf out;
    int rc = scope == NULL ? CTL_EXIT_USAGE : ctl_cluster(c, scope, &s);
    if (rc != 0) {
        return rc;
    }
    if (s->c.config_rev != 0 && s->config != NULL) {
        dra_buf_init(&out, 16 * 1024 * 1024);
        yaml_acc_dump(s->config, &out);
        dra_buf_adds(&out, "\n");
        ctl_print(&out);
        dra_buf_deinit(&out);
    }
    dcs_snapshot_unref(s);
    return 0;
}

/* ---- version ----------------------------------------------------------------------------------------------------------- */

/* 150018 -> "15.18", 90624 -> "9.6.24" */
static void pg_version(int64_t v, char *out, size_t size)
{
    if (v >= 100000) {
        (void)snprintf(out, size, "%lld.%lld", (long long)(v / 10000), (long long)(v % 10000));
    } else {
        (void)snprintf(out, size, "%lld.%lld.%lld", (long long)(v / 10000), (long long)(v / 100 % 100), (long long)(v % 100));
    }
}

static void print_version(const char *name, const struct ctl_call *call)
{
    DRA_CLEANUP(json_freep) struct json *j = NULL;
    const char *version;
    int64_t pg = 0;
    char text[32] = "";
    if (call->status == 0) {
        (void)printf("%s: failed to get version: %s\n", name, call->error);
        return;
    }
    if (json_parse(dra_buf_str(&call->answer), call->answer.len, &j, NULL) != 0) {
        (void)printf("%s: failed to get version: the answer is not JSON\n", name);
        return;
    }
    version = json_text(json_find(j, "patroni.version"));
    if (json_opt_i64(j, "server_version", &pg, NULL) == 0 && pg > 0) {
        pg_version(pg, text, sizeof text);
        (void)printf("%s: Patroni %s PostgreSQL %s\n", name, version == NULL ? "unknown" : version, text);
    } else {
        (void)printf("%s: Patroni %s\n", name, version == NULL ? "unknown" : version);
    }
}

int ctl_cmd_version(struct ctl *c)
{
    struct ctl_call calls[HA_MEMBERS_MAX];
    const char *names[HA_MEMBERS_MAX];
    struct dcs_snapshot *s = NULL;
    size_t n = 0;
    int rc;
    (void)printf("%s version %s\n", c->prog, DRA_VERSION);
    if (c->args.n_pos == 0) {
        return 0;
    }
    (void)fputc('\n', stdout);
    rc = ctl_cluster(c, c->args.pos[0], &s);
    if (rc != 0) {
        return rc;
    }
    memset(calls, 0, sizeof calls);
    for (int i = 0; i < s->c.n_members; i++) {
        const struct ha_member *m = &s->c.members[i];
        bool named = c->args.n_pos == 1;
        for (int k = 1; k < c->args.n_pos; k++) {
            named = named || dra_str_eq(c->args.pos[k], m->name);
        }
        if (named && m->api_url[0] != '\0') {
            names[n] = m->name;
            calls[n++] = (struct ctl_call){.api_url = m->api_url, .method = "GET", .path = "/patroni", .timeout_ms = 5000};
        }
    }
    ctl_calls(c, calls, n);
    for (size_t i = 0; i < n; i++) {
        print_version(names[i], &calls[i]);
        ctl_call_deinit(&calls[i]);
    }
    dcs_snapshot_unref(s);
    return 0;
}
