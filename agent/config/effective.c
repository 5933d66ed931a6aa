/*
 * effective.c - local and dynamic configuration become one (CFG-04), with typed values.
 *
 * Promises: a fresh tree that borrows nothing; the same inputs give the same tree; a dynamic configuration whose timings
 * cannot be read is refused as a whole (CFG-07).
 */
#include <dragent/conf.h>

#include "keys.h"

#include <stdlib.h>
#include <string.h>

/* Keys of the postgresql section that come from the local configuration alone. */
static const char *const pg_local_only[] = {"connect_address", "proxy_address", "listen", "config_dir", "data_dir", "pgpass",
                                            "authentication", "name", "scope", "replication", "superuser", "pg_rewind"};

/* CFG-70.  `words`: allowed texts; else an integer with a minimum; both unset: a boolean.  size: value with a unit of `unit_kb`. */
static const struct controlled {
    const char *name, *def;
    const char *words;
    int64_t min;
    bool size;
} controlled[] = {
    {.name = "wal_level", .def = "hot_standby", .words = "hot_standby replica logical"},
    {.name = "hot_standby", .def = "on", .words = "on true yes 1"},
    {.name = "max_connections", .def = "100", .min = 25},
    {.name = "max_wal_senders", .def = "10", .min = 3},
    {.name = "wal_keep_segments", .def = NULL, .min = 1},
    {.name = "wal_keep_size", .def = NULL, .min = 16, .size = true},
    {.name = "max_prepared_transactions", .def = "0", .min = 0},
    {.name = "max_locks_per_transaction", .def = "64", .min = 32},
    {.name = "track_commit_timestamp", .def = "off", .min = -1},
    {.name = "max_replication_slots", .def = "10", .min = 4},
    {.name = "max_worker_processes", .def = "8", .min = 2},
    {.name = "wal_log_hints", .def = "on", .min = -1},
};
/* Fixed: nobody sets these. */
static const char *const fixed_parameters[] = {"listen_addresses", "port", "cluster_name"};

static bool in_list(const char *s, const char *const *list, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (dra_str_eq_nocase(s, list[i])) {
            return true;
        }
    }
    return false;
}

static const struct controlled *controlled_find(const char *name)
{
    for (size_t i = 0; i < DRA_ARRAY_LEN(controlled); i++) {
        if (dra_str_eq_nocase(controlled[i].name, name)) {
            return &controlled[i];
        }
    }
    return NULL;
}

/* JSON's true is the word on. */
static bool parameter_text(const struct json *v, char *out, size_t size)
{
    if (json_type_of(v) == JSON_BOOL) {
        return dra_str_copy(out, size, json_is_true(v) ? "on" : "off") == 0;
    }
    return conf_text(v, out, size);
}

static bool controlled_valid(const struct controlled *c, const char *text)
{
    struct json *j;
    int64_t n;
    bool yes, ok;
    if (c->words != NULL) {
        size_t len = strlen(text);
        for (const char *p = c->words; *p != '\0'; p += strcspn(p, " "), p += strspn(p, " ")) {
            char word[24];
            size_t w = strcspn(p, " ");
            if (w == len && dra_str_copy_n(word, sizeof word, p, w) == 0 && dra_str_eq_nocase(word, text)) {
                return true;
            }
        }
        return false;
    }
    if (c->min < 0) {
        return conf_parse_bool(text, &yes) == 0;
    }
    if (c->size) { /* base unit MB: a bare number counts megabytes */
        if (strspn(text, "0123456789") == strlen(text)) {
            return dra_parse_i64(text, strlen(text), c->min, INT64_MAX, &n) == 0;
        }
        return conf_parse_size(text, &n) == 0 && n >= c->min * 1024 * 1024;
    }
    j = json_new_str(text);
    ok = conf_int(j, &n) == 0 && n >= c->min;
    json_free(j);
    return ok;
}

static void warn_controlled(const char *name, const char *value, const char *def)
{
    log_linef(LOG_LV_WARNING, "config.parameter", "postgresql parameter %s=%s failed validation, defaulting to %s", name, value,
              def == NULL ? "none" : def);
}

static const struct json *get_nocase(const struct json *obj, const char *name)
{
    for (const struct json *v = json_first(obj); v != NULL; v = json_next(v)) {
        if (dra_str_eq_nocase(json_name(v), name)) {
            return v;
        }
    }
    return NULL;
}

static int set_controlled(struct json *out, const struct json *dynamic)
{
    int rc = DRA_OK;
    for (size_t i = 0; i < DRA_ARRAY_LEN(controlled) && rc == 0; i++) {
        const struct controlled *c = &controlled[i];
        const struct json *v = get_nocase(dynamic, c->name);
        char text[CONF_VALUE_MAX];
        bool given = v != NULL && json_type_of(v) != JSON_NULL && parameter_text(v, text, sizeof text);
        if (given && !controlled_valid(c, text)) {
            warn_controlled(c->name, text, c->def);
            given = false;
        }
        if (given) {
            rc = json_set(out, c->name, json_new_str(text));
        } else if (c->def != NULL) {
            rc = json_set(out, c->name, json_new_str(c->def));
        }
    }
    return rc;
}

static int copy_parameters(struct json *out, const struct json *from)
{
    int rc = DRA_OK;
    for (const struct json *v = json_first(from); v != NULL && rc == 0; v = json_next(v)) {
        const char *name = json_name(v);
        const struct json *have;
        if (controlled_find(name) != NULL || in_list(name, fixed_parameters, DRA_ARRAY_LEN(fixed_parameters)) ||
            json_type_of(v) == JSON_NULL) {
            continue;
        }
        have = get_nocase(out, name);
        rc = json_set(out, have == NULL ? name : json_name(have), json_clone(v));
    }
    return rc;
}

static int set_fixed(struct json *out, const struct json *local)
{
    char listen[CONF_VALUE_MAX], host[CONF_VALUE_MAX], port_text[8], scope[HA_NAME_MAX];
    int port, rc = DRA_OK;
    if (conf_text(json_find(local, "postgresql.listen"), listen, sizeof listen) &&
        conf_split_addr(listen, 5432, host, sizeof host, &port) == 0) {
        rc = dra_str_printf(port_text, sizeof port_text, "%d", port);
        if (rc == 0) {
            rc = json_set(out, "listen_addresses", json_new_str(host));
        }
        if (rc == 0) {
            rc = json_set(out, "port", json_new_str(port_text));
        }
    }
    if (rc == 0 && conf_text(json_get(local, "scope"), scope, sizeof scope)) {
        rc = json_set(out, "cluster_name", json_new_str(scope));
    }
    return rc;
}

/* postgresql.parameters */
static struct json *parameters_of(const struct json *local, const struct json *dynamic_pg)
{
    struct json *out = json_new_object();
    int rc = out == NULL ? DRA_ENOMEM : set_controlled(out, json_get(dynamic_pg, "parameters"));
    if (rc == 0) {
        rc = copy_parameters(out, json_get(dynamic_pg, "parameters"));
    }
    if (rc == 0) {
        rc = copy_parameters(out, json_find(local, "postgresql.parameters"));
    }
    if (rc == 0) {
        rc = set_fixed(out, local);
    }
    if (rc != 0) {
        json_free(out);
        return NULL;
    }
    return out;
}

/* Only credentials that are known (CFG-32); null values are skipped. */
static struct json *authentication_of(const struct json *auth)
{
    static const char *const keys[] = {"username", "password", "sslmode", "sslcert", "sslkey", "sslpassword", "sslrootcert",
                                       "sslcrl", "sslcrldir", "gssencmode", "channel_binding", "sslnegotiation"};
    struct json *out = json_new_object();
    for (const struct json *user = json_first(auth); user != NULL && out != NULL; user = json_next(user)) {
        struct json *u = json_new_object();
        int rc = u == NULL ? DRA_ENOMEM : DRA_OK;
        for (size_t i = 0; i < DRA_ARRAY_LEN(keys) && rc == 0; i++) {
            const struct json *v = json_get(user, keys[i]);
            if (v != NULL && json_type_of(v) != JSON_NULL) {
                rc = json_set(u, keys[i], json_clone(v));
            }
        }
        if (rc == 0) {
            rc = json_set(out, json_name(user), DRA_TAKE(u));
        }
        json_free(u);
        if (rc != 0) {
            json_free(out);
            out = NULL;
        }
    }
    return out;
}

/* The postgresql section; `l` and `d` are the normalised sections. */
static int build_postgresql(struct json *out, const struct json *local, const struct json *l, const struct json *d)
{
    bool use_slots = true;
    struct json *p;
    int rc = DRA_OK;
    for (const struct json *v = json_first(d); v != NULL && rc == 0; v = json_next(v)) {
        if (!in_list(json_name(v), pg_local_only, DRA_ARRAY_LEN(pg_local_only)) && json_type_of(v) != JSON_NULL) {
            rc = json_set(out, json_name(v), json_clone(v));
        }
    }
    for (const struct json *v = json_first(l); v != NULL && rc == 0; v = json_next(v)) {
        if (json_type_of(v) != JSON_NULL) {
            rc = json_set(out, json_name(v), json_clone(v));
        }
    }
    if (rc == 0 && json_get(l, "authentication") != NULL) {
        rc = json_set(out, "authentication", authentication_of(json_get(l, "authentication")));
    }
    if (conf_bool(json_get(d, "use_slots"), &use_slots) != 0) {
        use_slots = true;
    }
    if (rc == 0) {
        rc = json_set(out, "use_slots", json_new_bool(use_slots));
    }
    p = rc == 0 ? parameters_of(local, d) : NULL;
    return rc == 0 ? json_set(out, "parameters", p) : rc;
}

/* Known keys below standby_cluster, and only if it is active (CFG-57). */
static int set_standby_cluster(struct json *out, const struct json *v)
{
    static const char *const keys[] = {"host", "port", "primary_slot_name", "create_replica_methods", "restore_command",
                                       "archive_cleanup_command", "recovery_min_apply_delay"};
    struct json *s;
    char text[CONF_VALUE_MAX];
    bool active = false;
    int rc = DRA_OK;
    for (size_t i = 0; i < 5; i++) {
        bool decides = i == 0 || i == 1 || i == 4;
        active = active || (decides && conf_text(json_get(v, keys[i]), text, sizeof text) && text[0] != '\0');
    }
    if (!active) {
        return DRA_OK;
    }
    s = json_new_object();
    rc = s == NULL ? DRA_ENOMEM : DRA_OK;
    for (size_t i = 0; i < DRA_ARRAY_LEN(keys) && rc == 0; i++) {
        const struct json *k = json_get(v, keys[i]);
        if (k != NULL) {
            rc = json_set(s, keys[i], json_clone(k));
        }
    }
    if (rc == 0) {
        return json_set(out, "standby_cluster", s);
    }
    json_free(s);
    return rc;
}

/* ttl, loop_wait, retry_timeout: dynamic, else the default; unreadable refuses the whole dynamic configuration. */
static int set_timings(struct json *out, const struct json *dynamic, struct dra_err *err)
{
    static const struct {
        const char *name;
        int def;
    } rows[] = {{"ttl", 30}, {"loop_wait", 10}, {"retry_timeout", 10}};
    int rc = DRA_OK;
    for (size_t i = 0; i < DRA_ARRAY_LEN(rows) && rc == 0; i++) {
        const struct json *v = json_get(dynamic, rows[i].name);
        struct dra_span span;
        if (v == NULL || json_type_of(v) == JSON_NULL) {
            rc = json_set(out, rows[i].name, json_new_i64(rows[i].def));
        } else if (conf_parse_duration(v, &span) != 0) {
            char path[64];
            conf_fmt(path, sizeof path, "dynamic configuration: %s", rows[i].name);
            return conf_fail(err, v, path, "want a duration in seconds", "Correct it; until then the configuration before it stays in force");
        } else {
            rc = json_set(out, rows[i].name, json_clone(v));
        }
    }
    return rc;
}

static int set_dynamic_rest(struct json *out, const struct json *dynamic)
{
    int rc = DRA_OK;
    for (const struct json *v = json_first(dynamic); v != NULL && rc == 0; v = json_next(v)) {
        const char *name = json_name(v);
        if (conf_key_is_dynamic(name) && json_get(out, name) == NULL && json_type_of(v) != JSON_NULL &&
            !dra_str_eq(name, "standby_cluster")) {
            rc = json_set(out, name, json_clone(v));
        }
    }
    return rc == 0 ? set_standby_cluster(out, json_get(dynamic, "standby_cluster")) : rc;
}

/* Our own section: what is local wins, key by key. */
static int set_dragent(struct json *out, const struct json *local, const struct json *dynamic)
{
    DRA_CLEANUP(json_freep) struct json *both = json_new_object();
    int rc = both == NULL ? DRA_ENOMEM : json_set(both, "guard", json_new_str("required"));
    if (rc == 0 && json_type_of(json_get(dynamic, "dragent")) == JSON_OBJECT) {
        DRA_CLEANUP(json_freep) struct json *d = conf_normalise(json_get(dynamic, "dragent"), "dragent");
        rc = d == NULL ? DRA_ENOMEM : json_merge_patch(&both, d, NULL);
    }
    if (rc == 0 && json_type_of(json_get(local, "dragent")) == JSON_OBJECT) {
        rc = json_merge_patch(&both, json_get(local, "dragent"), NULL);
    }
    return rc == 0 ? json_set(out, "dragent", DRA_TAKE(both)) : rc;
}

static int set_postgresql(struct json *out, const struct json *local, const struct json *dynamic)
{
    static const char *const copied[] = {"name", "scope", "retry_timeout", "citus"};
    DRA_CLEANUP(json_freep) struct json *pg = json_new_object();
    DRA_CLEANUP(json_freep) struct json *d = NULL;
    const struct json *l = json_get(local, "postgresql");
    int rc = pg == NULL ? DRA_ENOMEM : DRA_OK;
    if (rc == 0 && json_type_of(json_get(dynamic, "postgresql")) == JSON_OBJECT) {
        d = conf_normalise(json_get(dynamic, "postgresql"), "postgresql");
        rc = d == NULL ? DRA_ENOMEM : DRA_OK;
    }
    if (rc == 0) {
        rc = build_postgresql(pg, local, l, d);
    }
    for (size_t i = 0; i < DRA_ARRAY_LEN(copied) && rc == 0; i++) {
        const struct json *v = json_get(out, copied[i]);
        if (v != NULL) {
            rc = json_set(pg, copied[i], json_clone(v));
        }
    }
    return rc == 0 ? json_set(out, "postgresql", DRA_TAKE(pg)) : rc;
}

int conf_effective(const struct json *local, const struct json *dynamic, struct json **out, struct dra_err *err)
{
    DRA_CLEANUP(json_freep) struct json *l = conf_normalise(local, "");
    DRA_CLEANUP(json_freep) struct json *eff = json_new_object();
    int rc = l == NULL || eff == NULL ? dra_err_set(err, DRA_ENOMEM, "out of memory") : DRA_OK;
    if (rc == 0 && dynamic != NULL && json_type_of(dynamic) != JSON_OBJECT) {
        rc = dra_err_set(err, DRA_ETYPE, "dynamic configuration: want a dictionary");
    }
    if (rc != 0) {
        return rc;
    }
    for (const struct json *v = json_first(l); v != NULL && rc == 0; v = json_next(v)) {
        if (!conf_key_is_dynamic(json_name(v)) && !dra_str_eq(json_name(v), "postgresql") && !dra_str_eq(json_name(v), "dragent")) {
            rc = json_set(eff, json_name(v), json_clone(v));
        }
    }
    if (rc == 0) {
        rc = set_timings(eff, dynamic, err);
        if (rc == DRA_EINVAL) {
            return rc; /* said already */
        }
    }
    if (rc == 0) {
        rc = set_dynamic_rest(eff, dynamic);
    }
    if (rc == 0) {
        rc = set_dragent(eff, l, dynamic);
    }
    if (rc == 0) {
        rc = set_postgresql(eff, l, dynamic);
    }
    if (rc != 0) {
        return dra_err_set(err, rc, "configuration: %s", dra_code_to_str(rc));
    }
    *out = DRA_TAKE(eff);
    return DRA_OK;
}
