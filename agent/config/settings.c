/*
 * settings.c - the effective configuration as plain structs: for the core, the log, the REST server, and names.
 *
 * Promises: every field is filled; what cannot be read becomes its default, with a warning (CFG-43).
 * Timings: milliseconds inside; HA-201's repair is done in whole seconds wherever Patroni members could have to agree.
 */
#include <dragent/conf.h>

#include <dragent/dcs.h>

#include "keys.h"

#include <stdlib.h>
#include <string.h>

struct reader {
    const struct json *eff;
    conf_warn_cb warn;
    void *arg;
};

static void warn_value(const struct reader *r, const struct json *at, const char *key, const char *what, const char *remedy)
{
    char value[128] = "";
    struct dra_buf b;
    if (r->warn == NULL) {
        return;
    }
    (void)conf_text(at, value, sizeof value);
    dra_buf_init(&b, 4096);
    conf_say(&b, at, key, value, what, remedy);
    r->warn(dra_buf_str(&b), r->arg);
    dra_buf_deinit(&b);
}

static bool is_absent(const struct json *v)
{
    return v == NULL || json_type_of(v) == JSON_NULL;
}

static int64_t get_int(const struct reader *r, const char *key, int64_t min, int64_t def)
{
    const struct json *v = json_find(r->eff, key);
    int64_t n;
    if (is_absent(v)) {
        return def;
    }
    if (conf_int(v, &n) != 0 || n < min) {
        warn_value(r, v, key, "want an integer that is not too small; going on with the default", "Correct it");
        return def;
    }
    return n;
}

static bool get_bool(const struct reader *r, const char *key, bool def)
{
    const struct json *v = json_find(r->eff, key);
    bool b;
    if (is_absent(v)) {
        return def;
    }
    if (conf_bool(v, &b) != 0) {
        warn_value(r, v, key, "want a boolean; going on with the default", "Write true or false");
        return def;
    }
    return b;
}

static struct dra_span get_span(const struct reader *r, const char *key, struct dra_span def)
{
    const struct json *v = json_find(r->eff, key);
    struct dra_span s;
    if (is_absent(v)) {
        return def;
    }
    if (conf_parse_duration(v, &s) != 0 || s.ns < 0) {
        warn_value(r, v, key, "want a duration; going on with the default", "Write seconds, or a number with ms, s, min, h or d");
        return def;
    }
    return s;
}

/* ---- timings (HA-201, HA-206, CFG-08) ------------------------------------------------------------------------ */

static int64_t whole_seconds(struct dra_span s)
{
    int64_t ms = dra_span_ms(s), q = ms / 1000, rest = ms % 1000;
    return rest > 500 || (rest == 500 && q % 2 != 0) ? q + 1 : q;
}

static void warn_timing(const struct reader *r, const char *key, int64_t from_ms, int64_t to_ms, const char *why)
{
    char text[256];
    if (r->warn == NULL || from_ms == to_ms) {
        return;
    }
    conf_fmt(text, sizeof text, "dynamic configuration: %s: %lld.%03lld: %s. Using %lld.%03lld s", key, (long long)(from_ms / 1000),
                         (long long)(from_ms % 1000), why, (long long)(to_ms / 1000), (long long)(to_ms % 1000));
    r->warn(text, r->arg);
}

static int64_t at_least(const struct reader *r, const char *key, int64_t ms, int64_t min_ms)
{
    if (ms < min_ms) {
        warn_timing(r, key, ms, min_ms, "is too small");
        return min_ms;
    }
    return ms;
}

static void repair_timings(const struct reader *r, bool all_dragent, struct ha_settings *s)
{
    int64_t ttl = whole_seconds(s->ttl) * 1000; /* etcd counts no others */
    int64_t lw = all_dragent ? dra_span_ms(s->loop_wait) : whole_seconds(s->loop_wait) * 1000;
    int64_t rt = all_dragent ? dra_span_ms(s->retry_timeout) : whole_seconds(s->retry_timeout) * 1000;
    int64_t one, lw0, rt0;
    ttl = at_least(r, "ttl", ttl, all_dragent ? 2000 : 20000);
    lw = at_least(r, "loop_wait", lw, all_dragent ? 1 : 1000);
    rt = at_least(r, "retry_timeout", rt, all_dragent ? 1 : 3000);
    lw0 = lw;
    rt0 = rt;
    one = lw < 1000 ? lw : 1000;
    if (one + 2 * rt > ttl) {
        lw = one;
        /* Whole seconds, as all nodes must agree; finer only where Patroni could not be there anyway. */
        rt = one == 1000 && ttl >= 3000 ? (ttl - one) / 2000 * 1000 : (ttl - one) / 2;
    } else if (lw + 2 * rt > ttl) {
        lw = ttl - 2 * rt;
    }
    warn_timing(r, "retry_timeout", rt0, rt, "loop_wait + 2*retry_timeout must not exceed ttl");
    warn_timing(r, "loop_wait", lw0, lw, "loop_wait + 2*retry_timeout must not exceed ttl");
    s->ttl = dra_ms(ttl);
    s->loop_wait = dra_ms(lw);
    s->retry_timeout = dra_ms(rt);
}

/* The default of CFG-102: what fencing needs here, and what the clocks may differ in one ttl.  With a ttl below 3 s the margin
 * has to be smaller, or renewals could not outlast the shortest of etcd's hiccups. */
static struct dra_span default_margin(struct dra_span ttl, int64_t drift_ppm)
{
    int64_t base_ms = dra_span_ms(ttl) < 3000 ? 200 : 300;
    return (struct dra_span){dra_ms(base_ms).ns + ttl.ns / 1000000 * drift_ppm};
}

static void read_handover(const struct reader *r, struct ha_settings *s)
{
    const struct json *v = json_find(r->eff, "dragent.handover_after");
    char text[32];
    bool on;
    s->handover_after = dra_ms(3000);
    if (is_absent(v)) {
        return;
    }
    if ((json_type_of(v) == JSON_BOOL && !json_is_true(v)) ||
        (conf_text(v, text, sizeof text) && !dra_str_eq(text, "0") && conf_parse_bool(text, &on) == 0 && !on)) {
        s->handover_after = (struct dra_span){-1};
        return;
    }
    s->handover_after = get_span(r, "dragent.handover_after", dra_ms(3000));
}

static const char *first_present(const struct json *obj, const char *key, const char *older)
{
    return is_absent(json_get(obj, key)) && !is_absent(json_get(obj, older)) ? older : key;
}

static const char *word_of(const struct json *effective, const char *path)
{
    const char *text = json_text(json_find(effective, path));

    return text != NULL ? text : "";
}

/* A key that Patroni honours and this version does not: said, not passed over. */
static void warn_not_here(const struct reader *r, const char *key, bool set, const char *effect)
{
    char text[512];

    if (set && r->warn != NULL && dra_str_printf(text, sizeof text, "%s: this version does not have it: %s. Remove the key.", key, effect) == 0) {
        r->warn(text, r->arg);
    }
}

int conf_settings(const struct json *effective, const struct json *dynamic, bool all_dragent, conf_warn_cb warn, void *arg,
                  struct ha_settings *out, struct dra_err *err)
{
    struct reader r = {.eff = effective, .warn = warn, .arg = arg};
    struct ha_settings s = {0};
    char mode[32] = "";
    bool sync = false;
    (void)dynamic; /* conf_effective() has merged it; kept in the interface for keys that only it may give */
    if (json_type_of(effective) != JSON_OBJECT) {
        return dra_err_set(err, DRA_EINVAL, "configuration: want a dictionary");
    }
    s.ttl = get_span(&r, "ttl", dra_ms(30000));
    s.loop_wait = get_span(&r, "loop_wait", dra_ms(10000));
    s.retry_timeout = get_span(&r, "retry_timeout", dra_ms(10000));
    repair_timings(&r, all_dragent, &s);
    s.clock_drift_ppm = get_int(&r, "dragent.clock_drift", 0, 500);
    s.fence_margin = get_span(&r, "dragent.fence_margin", default_margin(s.ttl, s.clock_drift_ppm));
    read_handover(&r, &s);
    s.maximum_lag_on_failover = (uint64_t)get_int(&r, "maximum_lag_on_failover", 0, 1048576);
    s.primary_start_timeout = get_span(&r, first_present(effective, "primary_start_timeout", "master_start_timeout"), dra_ms(300000));
    s.primary_stop_timeout = get_span(&r, first_present(effective, "primary_stop_timeout", "master_stop_timeout"), dra_ms(0));
    s.primary_race_backoff = get_span(&r, "primary_race_backoff", dra_ms(0));
    s.member_slots_ttl = get_span(&r, "member_slots_ttl", dra_ms(1800000));
    s.check_timeline = get_bool(&r, "check_timeline", false);
    s.pause = get_bool(&r, "pause", false);
    s.failsafe_mode = get_bool(&r, "failsafe_mode", false);
    if (conf_bool(json_get(effective, "synchronous_mode"), &sync) != 0) {
        sync = conf_text(json_get(effective, "synchronous_mode"), mode, sizeof mode) && dra_str_eq_nocase(mode, "quorum");
    }
    s.synchronous_mode = sync && json_get(effective, "standby_cluster") == NULL;
    warn_not_here(&r, "synchronous_mode", s.synchronous_mode, "commits wait for nobody, and no node is promoted by itself");
    warn_not_here(&r, "failsafe_mode", s.failsafe_mode, "an outage of the store demotes the primary");
    warn_not_here(&r, "standby_cluster", json_get(effective, "standby_cluster") != NULL, "this cluster follows no other one");
    warn_not_here(&r, "slots", json_size(json_get(effective, "slots")) > 0, "permanent slots are neither created nor kept in step");
    warn_not_here(&r, "restapi.allowlist", json_size(json_find(effective, "restapi.allowlist")) > 0,
                  "whoever reaches the REST API may change something, unless restapi.authentication is set");
    warn_not_here(&r, "watchdog.mode", dra_str_starts(word_of(effective, "watchdog.mode"), "require"),
                  "the guard fences, no device does");
    warn_not_here(&r, "dragent.guard: automatic", dra_str_eq_nocase(word_of(effective, "dragent.guard"), "automatic"),
                  "the guard is required");
    s.use_pg_rewind = get_bool(&r, "postgresql.use_pg_rewind", false);
    s.remove_data_directory_on_rewind_failure = get_bool(&r, "postgresql.remove_data_directory_on_rewind_failure", false);
    s.remove_data_directory_on_diverged_timelines = get_bool(&r, "postgresql.remove_data_directory_on_diverged_timelines", false);
    s.use_slots = get_bool(&r, "postgresql.use_slots", true);
    s.can_bootstrap = json_get(effective, "bootstrap") != NULL;
    s.guard_required = !dra_str_eq_nocase(word_of(effective, "dragent.guard"), "off");
    dcs_tags_interpret(json_get(effective, "tags"), &s.tags);
    *out = s;
    return DRA_OK;
}

/* ---- log -------------------------------------------------------------------------------------------------------- */

static enum log_level level_of(const struct reader *r)
{
    static const struct {
        const char *name;
        enum log_level level;
    } rows[] = {{"DEBUG", LOG_LV_DEBUG}, {"INFO", LOG_LV_INFO},   {"WARN", LOG_LV_WARNING},      {"WARNING", LOG_LV_WARNING},
                {"ERROR", LOG_LV_ERROR}, {"FATAL", LOG_LV_CRITICAL}, {"CRITICAL", LOG_LV_CRITICAL}};
    const struct json *v = json_find(r->eff, "log.level");
    for (size_t i = 0; i < DRA_ARRAY_LEN(rows); i++) {
        if (dra_str_eq_nocase(json_text(v), rows[i].name)) {
            return rows[i].level;
        }
    }
    return LOG_LV_INFO; /* a wrong word was left out, and warned about, before */
}

static void copy_text(const struct reader *r, const char *key, char *out, size_t size)
{
    const struct json *v = json_find(r->eff, key);
    if (!is_absent(v) && (json_text(v) == NULL || dra_str_copy(out, size, json_text(v)) != 0)) {
        warn_value(r, v, key, "want a text that is not too long; going on with the default", "Correct it");
    }
}

int conf_log(const struct json *effective, conf_warn_cb warn, void *arg, struct log_config *out, struct dra_err *err)
{
    struct reader r = {.eff = effective, .warn = warn, .arg = arg};
    const struct json *format = json_find(effective, "log.format");
    struct log_config c;
    if (json_type_of(effective) != JSON_OBJECT) {
        return dra_err_set(err, DRA_EINVAL, "configuration: want a dictionary");
    }
    log_configure_default(&c);
    c.level = level_of(&r);
    c.json = dra_str_eq_nocase(json_text(json_find(effective, "log.type")), "json");
    if (!c.json && json_type_of(format) == JSON_ARRAY) {
        warn_value(&r, format, "log.format", "a list needs log.type json; going on with the default format", "Write a text");
    } else if (!c.json) {
        copy_text(&r, "log.format", c.format, sizeof c.format);
    }
    copy_text(&r, "log.dateformat", c.dateformat, sizeof c.dateformat);
    copy_text(&r, "log.dir", c.dir, sizeof c.dir);
    if (c.dir[0] != '\0' && !dra_file_exists(c.dir)) {
        warn_value(&r, json_find(effective, "log.dir"), "log.dir", "is not there; going on with stderr", "Make the directory");
        c.dir[0] = '\0';
    }
    c.mode = (int)get_int(&r, "log.mode", 0, -1);
    c.file_size_bytes = get_int(&r, "log.file_size", 1, 25000000);
    c.file_num = (int)get_int(&r, "log.file_num", 0, 4);
    c.static_fields = json_find(effective, "log.static_fields");
    *out = c;
    return DRA_OK;
}

/* ---- REST ---------------------------------------------------------------------------------------------------------- */

static int take_text(const struct json *eff, const char *key, char *out, size_t size, struct dra_err *err)
{
    const struct json *v = json_find(eff, key);
    if (is_absent(v)) {
        return DRA_OK;
    }
    return conf_text(v, out, size) ? DRA_OK : conf_fail(err, v, key, "is no text, or longer than we can keep", "Shorten it");
}

static int take_pair(const struct json *eff, const char *section, char *user, char *password, struct dra_err *err)
{
    char key[64];
    int rc;
    conf_fmt(key, sizeof key, "%s.authentication.username", section);
    rc = take_text(eff, key, user, sizeof((struct conf_rest *)0)->username, err);
    if (rc == 0) {
        conf_fmt(key, sizeof key, "%s.authentication.password", section);
        rc = take_text(eff, key, password, sizeof((struct conf_rest *)0)->password, err);
    }
    if (rc == 0 && (user[0] == '\0') != (password[0] == '\0')) {
        conf_fmt(key, sizeof key, "%s.authentication", section);
        return conf_fail(err, json_find(eff, key), key, "username and password belong together", "Give both, or neither");
    }
    return rc;
}

int conf_rest(const struct json *effective, struct conf_rest *out, struct dra_err *err)
{
    struct conf_rest c = {0};
    char listen[CONF_VALUE_MAX] = "", connect[CONF_VALUE_MAX] = "", host[HA_URL_MAX], url_host[HA_URL_MAX];
    int port, rc;
    if ((rc = take_text(effective, "restapi.listen", listen, sizeof listen, err)) != 0 ||
        (rc = take_text(effective, "restapi.connect_address", connect, sizeof connect, err)) != 0 ||
        (rc = take_text(effective, "restapi.certfile", c.certfile, sizeof c.certfile, err)) != 0 ||
        (rc = take_text(effective, "restapi.keyfile", c.keyfile, sizeof c.keyfile, err)) != 0 ||
        (rc = take_text(effective, "restapi.cafile", c.cafile, sizeof c.cafile, err)) != 0 ||
        (rc = take_pair(effective, "restapi", c.username, c.password, err)) != 0 ||
        (rc = take_pair(effective, "ctl", c.ctl_username, c.ctl_password, err)) != 0) {
        return rc;
    }
    if (c.ctl_username[0] == '\0') { /* CFG-23: restapi's unless given */
        memcpy(c.ctl_username, c.username, sizeof c.ctl_username);
        memcpy(c.ctl_password, c.password, sizeof c.ctl_password);
    }
    c.tls = c.certfile[0] != '\0';
    if (conf_split_addr(listen, 8008, c.listen_host, sizeof c.listen_host, &c.listen_port) != 0) {
        return conf_fail(err, json_find(effective, "restapi.listen"), "restapi.listen", "want host:port", "For instance 10.0.0.1:8008");
    }
    if (dra_str_eq(c.listen_host, "*")) {
        c.listen_host[0] = '\0';
    }
    if (conf_split_addr(connect[0] != '\0' ? connect : listen, c.listen_port, host, sizeof host, &port) != 0) {
        return conf_fail(err, json_find(effective, "restapi.connect_address"), "restapi.connect_address", "want host:port",
                         "For instance 10.0.0.1:8008");
    }
    if (conf_url_host(host, url_host, sizeof url_host) != 0 ||
        dra_str_printf(c.api_url, sizeof c.api_url, "%s://%s:%d/patroni", c.tls ? "https" : "http", url_host, port) != 0) {
        return conf_fail(err, json_find(effective, "restapi.connect_address"), "restapi.connect_address", "is too long", "Shorten it");
    }
    *out = c;
    return DRA_OK;
}

/* ---- names ------------------------------------------------------------------------------------------------------------ */

static int pg_url(const struct json *eff, const char *key, const char *fallback, char *out, size_t size, struct dra_err *err)
{
    char addr[CONF_VALUE_MAX] = "", host[HA_URL_MAX], url_host[HA_URL_MAX], db[128] = "postgres";
    int port, rc = take_text(eff, key, addr, sizeof addr, err);
    if (rc == 0 && addr[0] == '\0') {
        rc = fallback == NULL ? DRA_OK : take_text(eff, fallback, addr, sizeof addr, err);
    }
    if (rc == 0) {
        rc = take_text(eff, "postgresql.database", db, sizeof db, err);
    }
    if (rc != 0 || addr[0] == '\0') {
        return rc;
    }
    if (conf_split_addr(addr, 5432, host, sizeof host, &port) != 0 || conf_url_host(host, url_host, sizeof url_host) != 0 ||
        dra_str_printf(out, size, "postgres://%s:%d/%s", url_host, port, db) != 0) {
        return conf_fail(err, json_find(eff, key), key, "want host:port", "For instance 10.0.0.1:5432");
    }
    return DRA_OK;
}

int conf_names(const struct json *effective, struct conf_names *out, struct dra_err *err)
{
    struct conf_names n = {.ns = "service"};
    int rc;
    if ((rc = take_text(effective, "name", n.name, sizeof n.name, err)) != 0 ||
        (rc = take_text(effective, "scope", n.scope, sizeof n.scope, err)) != 0 ||
        (rc = take_text(effective, "namespace", n.ns, sizeof n.ns, err)) != 0 ||
        (rc = take_text(effective, "postgresql.data_dir", n.data_dir, sizeof n.data_dir, err)) != 0 ||
        (rc = pg_url(effective, "postgresql.connect_address", "postgresql.listen", n.conn_url, sizeof n.conn_url, err)) != 0 ||
        (rc = pg_url(effective, "postgresql.proxy_address", NULL, n.proxy_url, sizeof n.proxy_url, err)) != 0) {
        return rc;
    }
    *out = n;
    return DRA_OK;
}
