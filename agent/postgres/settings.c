/*
 * settings.c - the effective parameters of the server: the user's, the role's, the controlled ones (CFG-70..74).
 *
 * Promises: the result is sorted and has each name once; whatever was dropped or changed is said in `warnings`.
 * Threads: any.
 */
#include "conffile.h"

#include <stdlib.h>
#include <string.h>

#define NAME_MAX_LEN 128
#define SEGMENT_MB 16

enum rule { RULE_FIXED, RULE_INT, RULE_BOOL, RULE_WAL_LEVEL, RULE_SIZE_MB };
struct controlled {
    struct pgs_controlled pub;
    enum rule rule;
    const char *fallback;
    int64_t min;
    int since, before; /* major versions; 0 = any */
};
/* In the order of the command line (CFG-70); the last two are for the file only. */
static const struct controlled table[] = {
    {{"listen_addresses", true}, RULE_FIXED, NULL, 0, 0, 0},
    {{"port", true}, RULE_FIXED, NULL, 0, 0, 0},
    {{"cluster_name", true}, RULE_FIXED, NULL, 0, 0, 0},
    {{"wal_level", true}, RULE_WAL_LEVEL, "replica", 0, 0, 0},
    {{"hot_standby", true}, RULE_FIXED, NULL, 0, 0, 0},
    {{"max_connections", true}, RULE_INT, "100", 25, 0, 0},
    {{"max_wal_senders", true}, RULE_INT, "10", 3, 0, 0},
    {{"max_prepared_transactions", true}, RULE_INT, "0", 0, 0, 0},
    {{"max_locks_per_transaction", true}, RULE_INT, "64", 32, 0, 0},
    {{"track_commit_timestamp", true}, RULE_BOOL, "off", 0, 0, 0},
    {{"max_replication_slots", true}, RULE_INT, "10", 4, 0, 0},
    {{"max_worker_processes", true}, RULE_INT, "8", 2, 0, 0},
    {{"wal_log_hints", true}, RULE_BOOL, "on", 0, 0, 0},
    {{"wal_keep_segments", false}, RULE_INT, "8", 1, 0, 13},
    {{"wal_keep_size", false}, RULE_SIZE_MB, "128MB", 16, 13, 0},
};

/* Owned by the command line or by files of the data directory. */
static const char *const never_written[] = {"config_file", "data_directory"};

static int setting_put(struct pgs_settings *s, const char *name, const char *value);
static void setting_del(struct pgs_settings *s, const char *name);
static int setting_cmp(const void *a, const void *b);
static const struct controlled *controlled_find(const char *name);
static bool lower(char *out, size_t out_size, const char *name);
static int add_section(const struct pgs_conffile *f, const struct json *params, bool own_role, struct pgs_settings *s,
                       struct dra_buf *warnings);
static void controlled_value(const struct pgs_conffile *f, const struct controlled *c, char *out, size_t out_size,
                             struct dra_buf *warnings);
static int raise_minimums(const struct pgs_conffile *f, struct pgs_settings *s, struct dra_buf *raised);

int pgs_controlled_count(void)
{
    return (int)DRA_ARRAY_LEN(table);
}

const struct pgs_controlled *pgs_controlled_at(int i)
{
    return &table[i].pub;
}

void pgs_settings_deinit(struct pgs_settings *s)
{
    for (int i = 0; i < s->n; i++) {
        free(s->v[i].name);
        free(s->v[i].value);
    }
    s->n = 0;
}

const char *pgs_settings_get(const struct pgs_settings *s, const char *name)
{
    for (int i = 0; i < s->n; i++) {
        if (strcmp(s->v[i].name, name) == 0) {
            return s->v[i].value;
        }
    }
    return NULL;
}

int pgs_settings_build(const struct pgs_conffile *f, struct pgs_settings *out, struct dra_buf *warnings,
                       struct dra_buf *raised, struct dra_err *err)
{
    static const char *const role_section[] = {
        [HA_ROLE_PRIMARY] = "parameters_primary",
        [HA_ROLE_STANDBY_LEADER] = "parameters_standby_leader",
        [HA_ROLE_REPLICA] = "parameters_replica",
    };
    const char *section = f->role <= HA_ROLE_REPLICA ? role_section[f->role] : NULL;
    int rc;

    out->n = 0;
    rc = add_section(f, json_get(f->conf->pg, "parameters"), false, out, warnings);
    if (rc == 0 && section != NULL) {
        rc = add_section(f, json_get(f->conf->pg, section), true, out, warnings);
    }
    for (size_t i = 0; i < DRA_ARRAY_LEN(table) && rc == 0; i++) {
        char value[PGS_VALUE_MAX];

        setting_del(out, table[i].pub.name);
        if ((table[i].since != 0 && f->major < table[i].since) || (table[i].before != 0 && f->major >= table[i].before)) {
            continue;
        }
        controlled_value(f, &table[i], value, sizeof value, warnings);
        rc = setting_put(out, table[i].pub.name, value);
    }
    if (rc == 0 && f->role != HA_ROLE_PRIMARY && f->control != NULL) {
        rc = raise_minimums(f, out, raised);
    }
    if (rc != 0) {
        pgs_settings_deinit(out);
        return dra_err_set(err, rc, "parameters: too many or out of memory");
    }
    qsort(out->v, (size_t)out->n, sizeof out->v[0], setting_cmp);
    return DRA_OK;
}

static int add_section(const struct pgs_conffile *f, const struct json *params, bool own_role, struct pgs_settings *s,
                       struct dra_buf *warnings)
{
    for (const struct json *e = json_first(params); e != NULL; e = json_next(e)) {
        char name[NAME_MAX_LEN];
        char value[4096];
        bool skip = false;
        int rc;

        if (json_type_of(e) == JSON_NULL || !lower(name, sizeof name, json_name(e))) {
            continue;
        }
        for (size_t i = 0; i < DRA_ARRAY_LEN(never_written); i++) {
            skip = skip || strcmp(name, never_written[i]) == 0;
        }
        if (controlled_find(name) != NULL) {
            if (own_role) {
                dra_buf_addf(warnings, "parameter %s is controlled and cannot be set for one role\n", name);
            }
            continue;
        }
        if (skip || pgs_is_recovery_parameter(name)) {
            continue;
        }
        if (!pgs_conf_text(e, value, sizeof value)) {
            dra_buf_addf(warnings, "parameter %s has no plain value and is left out\n", name);
            continue;
        }
        if (f->known != NULL && !pgs_gucs_has(f->known, name)) {
            dra_buf_addf(warnings, "Removing unexpected parameter=%s value=%.100s from the config\n", name, value);
            continue;
        }
        rc = setting_put(s, name, value);
        if (rc != 0) {
            return rc;
        }
    }
    return DRA_OK;
}

/* ---- controlled parameters ------------------------------------------------------------------------- */

static bool bool_text(const char *s, bool *out)
{
    static const char *const yes[] = {"on", "true", "yes", "1", "t", "y"};
    static const char *const no[] = {"off", "false", "no", "0", "f", "n"};

    for (size_t i = 0; i < DRA_ARRAY_LEN(yes); i++) {
        if (dra_str_eq_nocase(s, yes[i]) || dra_str_eq_nocase(s, no[i])) {
            *out = dra_str_eq_nocase(s, yes[i]);
            return true;
        }
    }
    return false;
}

/* "128MB", "1GB", "131072kB" or plain megabytes. */
static bool size_mb(const char *s, int64_t *out)
{
    static const struct {
        const char *unit;
        int64_t num, den;
    } units[] = {{"", 1, 1}, {"MB", 1, 1}, {"GB", 1024, 1}, {"TB", 1024 * 1024, 1}, {"kB", 1, 1024}};
    size_t digits = strspn(s, "0123456789");
    const char *unit = s + digits;
    int64_t n;

    unit += strspn(unit, " ");
    if (dra_parse_i64(s, digits, 0, INT32_MAX, &n) != 0) {
        return false;
    }
    for (size_t i = 0; i < DRA_ARRAY_LEN(units); i++) {
        if (strcmp(units[i].unit, unit) == 0) {
            *out = n * units[i].num / units[i].den;
            return true;
        }
    }
    return false;
}

static bool controlled_valid(const struct controlled *c, const char *value)
{
    int64_t n;
    bool b;

    switch (c->rule) {
    case RULE_INT:
        return dra_parse_i64(value, strlen(value), c->min, INT32_MAX, &n) == 0;
    case RULE_BOOL:
        return bool_text(value, &b);
    case RULE_WAL_LEVEL:
        return dra_str_eq_nocase(value, "hot_standby") || dra_str_eq_nocase(value, "replica") ||
               dra_str_eq_nocase(value, "logical");
    case RULE_SIZE_MB:
        return size_mb(value, &n) && n >= c->min;
    case RULE_FIXED:
        break;
    }
    return false;
}

static const struct json *param_find(const struct json *params, const char *name)
{
    const struct json *found = NULL;

    for (const struct json *e = json_first(params); e != NULL; e = json_next(e)) {
        if (json_name(e) != NULL && dra_str_eq_nocase(json_name(e), name) && json_type_of(e) != JSON_NULL) {
            found = e;
        }
    }
    return found;
}

static void clip_printf(char *out, size_t out_size, const char *fmt, int64_t n)
{
    char text[64];

    if (dra_str_printf(text, sizeof text, "%lld%s", (long long)n, fmt) == 0) {
        dra_str_clip(out, out_size, text);
    }
}

/* CFG-71: the other name of wal_keep_* is converted at 16 MB per segment. */
static bool wal_keep_convert(const struct pgs_conffile *f, const struct controlled *c, char *out, size_t out_size)
{
    const struct json *params = json_get(f->conf->pg, "parameters");
    char text[64];
    int64_t n;

    if (c->rule == RULE_SIZE_MB && pgs_conf_text(param_find(params, "wal_keep_segments"), text, sizeof text) &&
        dra_parse_i64(text, strlen(text), 1, INT32_MAX, &n) == 0) {
        clip_printf(out, out_size, "MB", n * SEGMENT_MB);
        return true;
    }
    if (strcmp(c->pub.name, "wal_keep_segments") == 0 &&
        pgs_conf_text(param_find(params, "wal_keep_size"), text, sizeof text) && size_mb(text, &n)) {
        clip_printf(out, out_size, "", (n + SEGMENT_MB / 2) / SEGMENT_MB);
        return true;
    }
    return false;
}

static void controlled_value(const struct pgs_conffile *f, const struct controlled *c, char *out, size_t out_size,
                             struct dra_buf *warnings)
{
    const struct json *j = param_find(json_get(f->conf->pg, "parameters"), c->pub.name);
    char value[PGS_VALUE_MAX];

    if (c->rule == RULE_FIXED) {
        if (strcmp(c->pub.name, "listen_addresses") == 0) {
            dra_str_clip(out, out_size, f->conf->listen_addresses);
        } else if (strcmp(c->pub.name, "port") == 0) {
            clip_printf(out, out_size, "", f->conf->port);
        } else if (strcmp(c->pub.name, "cluster_name") == 0) {
            dra_str_clip(out, out_size, f->conf->scope);
        } else {
            dra_str_clip(out, out_size, "on"); /* hot_standby */
        }
        return;
    }
    if (j == NULL) {
        if (!wal_keep_convert(f, c, out, out_size)) {
            dra_str_clip(out, out_size, c->fallback);
        }
        return;
    }
    if (!pgs_conf_text(j, value, sizeof value) || !controlled_valid(c, value)) {
        dra_buf_addf(warnings, "postgresql parameter %s=%.100s failed validation, defaulting to %s\n", c->pub.name,
                     pgs_conf_text(j, value, sizeof value) ? value : "?", c->fallback);
        dra_str_clip(out, out_size, c->fallback);
        return;
    }
    if (c->rule == RULE_WAL_LEVEL) {
        dra_str_clip(out, out_size, dra_str_eq_nocase(value, "logical") ? "logical" : "replica");
    } else if (c->rule == RULE_BOOL) {
        bool b = false;

        dra_str_clip(out, out_size, bool_text(value, &b) && b ? "on" : "off");
    } else {
        dra_str_clip(out, out_size, value);
    }
}

/* HA-223, CFG-72: a standby must not have less than the primary had. */
static int raise_minimums(const struct pgs_conffile *f, struct pgs_settings *s, struct dra_buf *raised)
{
    const struct {
        const char *name;
        int min;
    } mins[] = {
        {"max_connections", f->control->max_connections},
        {"max_prepared_transactions", f->control->max_prepared_xacts},
        {"max_locks_per_transaction", f->control->max_locks_per_xact},
        {"max_worker_processes", f->control->max_worker_processes},
        {"max_wal_senders", f->control->max_wal_senders},
    };

    for (size_t i = 0; i < DRA_ARRAY_LEN(mins); i++) {
        const char *now = pgs_settings_get(s, mins[i].name);
        char value[32];
        int64_t n = 0;
        int rc;

        if (now == NULL || dra_parse_i64(now, strlen(now), 0, INT32_MAX, &n) != 0 || n >= mins[i].min) {
            continue;
        }
        dra_buf_addf(raised, "%s %s %d\n", mins[i].name, now, mins[i].min);
        clip_printf(value, sizeof value, "", mins[i].min);
        rc = setting_put(s, mins[i].name, value);
        if (rc != 0) {
            return rc;
        }
    }
    return DRA_OK;
}

/* ---- the list ------------------------------------------------------------------------------------------- */

static int setting_put(struct pgs_settings *s, const char *name, const char *value)
{
    char *copy = strdup(value);

    if (copy == NULL) {
        return DRA_ENOMEM;
    }
    for (int i = 0; i < s->n; i++) {
        if (strcmp(s->v[i].name, name) == 0) {
            free(s->v[i].value);
            s->v[i].value = copy;
            return DRA_OK;
        }
    }
    if (s->n >= PGS_SETTINGS_MAX) {
        free(copy);
        return DRA_ETOOLONG;
    }
    s->v[s->n].name = strdup(name);
    if (s->v[s->n].name == NULL) {
        free(copy);
        return DRA_ENOMEM;
    }
    s->v[s->n++].value = copy;
    return DRA_OK;
}

static void setting_del(struct pgs_settings *s, const char *name)
{
    for (int i = 0; i < s->n; i++) {
        if (strcmp(s->v[i].name, name) == 0) {
            free(s->v[i].name);
            free(s->v[i].value);
            s->v[i] = s->v[--s->n];
            return;
        }
    }
}

static int setting_cmp(const void *a, const void *b)
{
    return strcmp(((const struct pgs_setting *)a)->name, ((const struct pgs_setting *)b)->name);
}

static const struct controlled *controlled_find(const char *name)
{
    for (size_t i = 0; i < DRA_ARRAY_LEN(table); i++) {
        if (strcmp(table[i].pub.name, name) == 0) {
            return &table[i];
        }
    }
    return NULL;
}

static bool lower(char *out, size_t out_size, const char *name)
{
    if (name == NULL || dra_str_copy(out, out_size, name) != 0) {
        return false;
    }
    for (char *p = out; *p != '\0'; p++) {
        *p = (char)(*p >= 'A' && *p <= 'Z' ? *p + 32 : *p);
        if (!((*p >= 'a' && *p <= 'z') || (*p >= '0' && *p <= '9') || *p == '_' || *p == '.' || *p == '$')) {
            return false; /* nothing that could break the file or the command line */
        }
    }
    return out[0] != '\0';
}
