/*
 * test_conf.c - values, precedence (CFG-04), timings (CFG-08, HA-206), error texts, validation.
 */
#include <dragent/conf.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static struct json *yaml(const char *text)
{
    struct json *j = NULL;
    struct dra_err err = {0};
    if (yaml_acc_load("test.yml", text, strlen(text), &j, &err) != 0) {
        fail_msg("%s", err.msg);
    }
    return j;
}

static char warnings[8192];

static void on_warning(const char *text, void *arg)
{
    size_t n = strlen(warnings);
    (void)arg;
    (void)snprintf(warnings + n, sizeof warnings - n, "%s\n", text);
}

#define assert_has(hay, needle)                                                                    \
    do {                                                                                           \
        if (strstr((hay), (needle)) == NULL) {                                                     \
            fail_msg("\"%s\" is not in \"%s\"", (needle), (hay));                                  \
        }                                                                                          \
    } while (0)

/* ---- values -------------------------------------------------------------------------------------------- */

static void test_sizes(void **state)
{
    static const struct {
        const char *text;
        int rc;
        int64_t value;
    } rows[] = {
        {"1", 0, 1},         {"1kB", 0, 1024},   {" 2 MB ", 0, 2097152}, {"0x10", 0, 16},   {"010", 0, 8},
        {"1.5kB", 0, 1536},  {"-1", 0, -1},      {"1e3", 0, 1000},       {"2.5B", 0, 2},    {"3.5B", 0, 4},
        {"1TB", 0, INT64_C(1) << 40}, {"1KB", DRA_EPARSE, 0}, {"1M", DRA_EPARSE, 0}, {"", DRA_EPARSE, 0},
        {"1 kB x", DRA_EPARSE, 0}, {"09", DRA_EPARSE, 0}, {"99999999999999999999999", DRA_ERANGE, 0}, {"9000000TB", DRA_ERANGE, 0},
    };
    (void)state;
    for (size_t i = 0; i < DRA_ARRAY_LEN(rows); i++) {
        int64_t v = 0;
        int rc = conf_parse_size(rows[i].text, &v);
        if (rc != rows[i].rc || v != rows[i].value) {
            fail_msg("%s: rc %d value %lld", rows[i].text, rc, (long long)v);
        }
    }
}

static void test_durations(void **state)
{
    static const struct {
        const char *text;
        int rc;
        int64_t ms;
    } rows[] = {
        {"2", 0, 2000},     {"0.25", 0, 250}, {"250ms", 0, 250},       {"2s", 0, 2000},       {"5min", 0, 300000}, {"1h", 0, 3600000},
        {"1d", 0, 86400000}, {"'30'", 0, 30000}, {"1500us", 0, 2}, {"1.0e+1", 0, 10000}, {"5m", DRA_EPARSE, 0}, {"abc", DRA_EPARSE, 0},
        {"true", DRA_ETYPE, 0}, {"[1]", DRA_ETYPE, 0},
    };
    (void)state;
    for (size_t i = 0; i < DRA_ARRAY_LEN(rows); i++) {
        char text[64];
        struct json *j;
        struct dra_span s = {0};
        int rc;
        (void)snprintf(text, sizeof text, "v: %s\n", rows[i].text);
        j = yaml(text);
        rc = conf_parse_duration(json_get(j, "v"), &s);
        if (rc != rows[i].rc || dra_span_ms(s) != rows[i].ms) {
            fail_msg("%s: rc %d, %lld ms", rows[i].text, rc, (long long)dra_span_ms(s));
        }
        json_free(j);
    }
}

static void test_bools(void **state)
{
    bool b = false;
    (void)state;
    assert_int_equal(conf_parse_bool("oN", &b), 0);
    assert_true(b);
    assert_int_equal(conf_parse_bool("0", &b), 0);
    assert_false(b);
    assert_int_equal(conf_parse_bool("y", &b), DRA_EPARSE);
    assert_int_equal(conf_parse_bool("", &b), DRA_EPARSE);
}

static void test_timestamps(void **state)
{
    static const struct {
        const char *text;
        int rc;
        int64_t s;
        bool zone;
    } rows[] = {
        {"2026-03-01T10:00:00+00:00", 0, 1772359200, true}, {"2026-03-01 10:00Z", 0, 1772359200, true},
        {"2026-03-01T11:00:00.123456+01", 0, 1772359200, true}, {"2026-03-01T04:30-0530", 0, 1772359200, true},
        {"2026-03-01T10:00", 0, 1772359200, false}, {"1970-01-01T00:00:00Z", 0, 0, true}, {"2024-02-29T00:00Z", 0, 1709164800, true},
        {"2026-02-29T00:00Z", DRA_EPARSE, 0, false}, {"2026-13-01T00:00Z", DRA_EPARSE, 0, false}, {"2026-03-01", DRA_EPARSE, 0, false},
        {"2026-03-01T25:00Z", DRA_EPARSE, 0, false}, {"2026-03-01T10:00:00.1234567Z", DRA_EPARSE, 0, false}, {"tomorrow", DRA_EPARSE, 0, false},
        {"2026-03-01T10:00 +01:00x", DRA_EPARSE, 0, false},
    };
    (void)state;
    for (size_t i = 0; i < DRA_ARRAY_LEN(rows); i++) {
        int64_t s = 0;
        bool zone = false;
        int rc = conf_parse_timestamp(rows[i].text, &s, &zone);
        if (rc != rows[i].rc || s != rows[i].s || zone != rows[i].zone) {
            fail_msg("%s: rc %d, %lld, %d", rows[i].text, rc, (long long)s, zone);
        }
    }
}

/* ---- CFG-04 --------------------------------------------------------------------------------------------------- */

#define BASE                                                                                       \
    "name: a\nscope: demo\nrestapi: {listen: '10.0.0.1:8008'}\netcd3: {host: 'h:2379'}\n"
#define PG_BASE "postgresql:\n  listen: 10.0.0.1:5432\n  data_dir: /data\n  authentication: {replication: {username: r, password: 12}}\n"

static void test_precedence(void **state)
{
    static const struct {
        const char *name, *local, *dynamic, *path, *want; /* want NULL: absent */
    } rows[] = {
        {"ttl: local is ignored", "ttl: 99\n", "{}", "ttl", "30"},
        {"ttl: dynamic", "ttl: 99\n", "{ttl: 40}", "ttl", "40"},
        {"loop_wait default", "loop_wait: 99\n", "{}", "loop_wait", "10"},
        {"retry_timeout dynamic, copied", "retry_timeout: 99\n", "{retry_timeout: 7}", "postgresql.retry_timeout", "7"},
        {"standby_cluster: dynamic only", "standby_cluster: {host: x}\n", "{}", "standby_cluster", NULL},
        {"standby_cluster: known keys", "", "{standby_cluster: {host: x, other: 1}}", "standby_cluster.other", NULL},
        {"standby_cluster: active", "", "{standby_cluster: {host: x, other: 1}}", "standby_cluster.host", "x"},
        {"standby_cluster: not active", "", "{standby_cluster: {host: ''}}", "standby_cluster", NULL},
        {"use_slots: local ignored", "postgresql: {use_slots: false}\n", "{}", "postgresql.use_slots", "true"},
        {"use_slots: dynamic", "", "{postgresql: {use_slots: off}}", "postgresql.use_slots", "false"},
        {"controlled: local ignored", "postgresql: {parameters: {max_connections: 500}}\n", "{}", "postgresql.parameters.max_connections", "100"},
        {"controlled: dynamic", "", "{postgresql: {parameters: {Max_Connections: 200}}}", "postgresql.parameters.max_connections", "200"},
        {"controlled: below minimum is the default", "", "{postgresql: {parameters: {max_connections: 24}}}",
         "postgresql.parameters.max_connections", "100"},
        {"controlled: boolean", "", "{postgresql: {parameters: {wal_log_hints: off}}}", "postgresql.parameters.wal_log_hints", "off"},
        {"controlled: word", "", "{postgresql: {parameters: {wal_level: minimal}}}", "postgresql.parameters.wal_level", "hot_standby"},
        {"controlled: no default", "", "{}", "postgresql.parameters.wal_keep_size", NULL},
        {"controlled: size", "", "{postgresql: {parameters: {wal_keep_size: 64MB}}}", "postgresql.parameters.wal_keep_size", "64MB"},
        {"controlled: size too small", "", "{postgresql: {parameters: {wal_keep_size: 1MB}}}", "postgresql.parameters.wal_keep_size", NULL},
        {"fixed", "postgresql: {parameters: {port: 1}}\n", "{postgresql: {parameters: {port: 2}}}", "postgresql.parameters.port", "5432"},
        {"cluster_name", "", "{postgresql: {parameters: {cluster_name: x}}}", "postgresql.parameters.cluster_name", "demo"},
        {"parameter: local wins", "postgresql: {parameters: {work_mem: 5MB}}\n", "{postgresql: {parameters: {work_mem: 6MB}}}",
         "postgresql.parameters.work_mem", "5MB"},
        {"parameter: dynamic", "", "{postgresql: {parameters: {work_mem: 6MB}}}", "postgresql.parameters.work_mem", "6MB"},
        {"parameter: one name, two cases", "postgresql: {parameters: {Work_Mem: 5MB}}\n", "{postgresql: {parameters: {work_mem: 6MB}}}",
         "postgresql.parameters.work_mem", "5MB"},
        {"local only", "", "{postgresql: {data_dir: /x}}", "postgresql.data_dir", "/data"},
        {"local only: authentication", "", "{postgresql: {authentication: {replication: {username: x}}}}",
         "postgresql.authentication.replication.username", "r"},
        {"password keeps its text", "", "{}", "postgresql.authentication.replication.password", "12"},
        {"other postgresql: local wins", "postgresql: {use_pg_rewind: true}\n", "{postgresql: {use_pg_rewind: false}}", "postgresql.use_pg_rewind", "true"},
        {"other postgresql: dynamic", "", "{postgresql: {use_pg_rewind: true}}", "postgresql.use_pg_rewind", "true"},
        {"other postgresql: no merge", "postgresql: {callbacks: {on_start: a}}\n", "{postgresql: {callbacks: {on_stop: b}}}",
         "postgresql.callbacks.on_stop", NULL},
        {"dynamic meaning: local ignored", "maximum_lag_on_failover: 5\n", "{}", "maximum_lag_on_failover", NULL},
        {"dynamic meaning", "maximum_lag_on_failover: 5\n", "{maximum_lag_on_failover: 6}", "maximum_lag_on_failover", "6"},
        {"everything else: local", "log: {level: DEBUG}\n", "{log: {level: ERROR}}", "log.level", "DEBUG"},
        {"tags: dynamic ignored", "", "{tags: {nofailover: true}}", "tags", NULL},
        {"copied", "", "{}", "postgresql.scope", "demo"},
        {"dragent: local wins", "dragent: {guard: off}\n", "{dragent: {guard: automatic}}", "dragent.guard", "off"},
        {"dragent: dynamic", "", "{dragent: {guard: automatic}}", "dragent.guard", "automatic"},
        {"dragent: default", "", "{}", "dragent.guard", "required"},
        {"sexagesimal text", "restapi: {listen: 12:30}\n", "{}", "restapi.listen", "12:30"},
        {"word for a boolean", "postgresql: {use_unix_socket: 'yes'}\n", "{}", "postgresql.use_unix_socket", "true"},
        {"wrong type is left out", "postgresql: {use_unix_socket: maybe}\n", "{}", "postgresql.use_unix_socket", NULL},
        {"empty bootstrap stays", "bootstrap:\n", "{}", "bootstrap.dcs", NULL},
    };
    (void)state;
    for (size_t i = 0; i < DRA_ARRAY_LEN(rows); i++) {
        struct json *local = yaml(BASE PG_BASE), *more = rows[i].local[0] == '\0' ? NULL : yaml(rows[i].local);
        struct json *dynamic = yaml(rows[i].dynamic), *eff = NULL;
        struct dra_err err = {0};
        const struct json *v;
        char text[64] = "";
        if (more != NULL) {
            assert_int_equal(json_merge_patch(&local, more, NULL), 0);
        }
        if (conf_effective(local, dynamic, &eff, &err) != 0) {
            fail_msg("%s: %s", rows[i].name, err.msg);
        }
        v = json_find(eff, rows[i].path);
        if (rows[i].want == NULL) {
            if (v != NULL) {
                fail_msg("%s: is there", rows[i].name);
            }
        } else if (!json_scalar_text(v, text, sizeof text) || strcmp(text, rows[i].want) != 0) {
            fail_msg("%s: \"%s\"", rows[i].name, text);
        }
        json_free(eff);
        json_free(local);
        json_free(more);
        json_free(dynamic);
    }
}

static void test_bad_dynamic_is_refused(void **state)
{
    struct json *local = yaml(BASE PG_BASE), *dynamic = yaml("{ttl: abc}"), *eff = NULL;
    struct dra_err err = {0};
    (void)state;
    assert_int_equal(conf_effective(local, dynamic, &eff, &err), DRA_EINVAL);
    assert_null(eff);
    assert_has(err.msg, "ttl: abc: want a duration");
    json_free(local);
    json_free(dynamic);
}

/* ---- timings ---------------------------------------------------------------------------------------------------- */

static void test_timings(void **state)
{
    static const struct {
        const char *dynamic;
        bool all_dragent;
        int64_t ttl, lw, rt;
        bool warned;
    } rows[] = {
        {"{}", false, 30000, 10000, 10000, false},
        {"{ttl: 20, loop_wait: 10, retry_timeout: 10}", false, 20000, 1000, 9000, true},
        {"{ttl: 30, loop_wait: 10, retry_timeout: 14}", false, 30000, 2000, 14000, true},
        {"{ttl: 20, loop_wait: 1, retry_timeout: 9}", false, 20000, 1000, 9000, false},
        {"{ttl: 5, loop_wait: 1, retry_timeout: 2}", true, 5000, 1000, 2000, false},
        {"{ttl: 5, loop_wait: 1, retry_timeout: 2}", false, 20000, 1000, 3000, true},
        {"{ttl: 5, loop_wait: 1, retry_timeout: 3}", true, 5000, 1000, 2000, true},
        {"{ttl: 1, loop_wait: 0.25, retry_timeout: 0.5}", true, 2000, 250, 500, true},
        {"{ttl: 2, loop_wait: 0.25, retry_timeout: 1}", true, 2000, 250, 875, true},
        {"{ttl: '30', loop_wait: '10', retry_timeout: '10'}", false, 30000, 10000, 10000, false},
        {"{ttl: 30, loop_wait: 2.5, retry_timeout: 10}", false, 30000, 2000, 10000, false},
    };
    (void)state;
    for (size_t i = 0; i < DRA_ARRAY_LEN(rows); i++) {
        struct json *local = yaml(BASE PG_BASE), *dynamic = yaml(rows[i].dynamic), *eff = NULL;
        struct ha_settings s;
        struct dra_err err = {0};
        warnings[0] = '\0';
        assert_int_equal(conf_effective(local, dynamic, &eff, &err), 0);
        assert_int_equal(conf_settings(eff, dynamic, rows[i].all_dragent, on_warning, NULL, &s, &err), 0);
        if (dra_span_ms(s.ttl) != rows[i].ttl || dra_span_ms(s.loop_wait) != rows[i].lw ||
            dra_span_ms(s.retry_timeout) != rows[i].rt || (warnings[0] != '\0') != rows[i].warned) {
            fail_msg("%s: %lld %lld %lld %s", rows[i].dynamic, (long long)dra_span_ms(s.ttl), (long long)dra_span_ms(s.loop_wait),
                     (long long)dra_span_ms(s.retry_timeout), warnings);
        }
        json_free(eff);
        json_free(local);
        json_free(dynamic);
    }
}

static void settings_of(const char *local_text, const char *dynamic_text, struct ha_settings *s)
{
    struct json *local = yaml(BASE PG_BASE), *more = yaml(local_text), *dynamic = yaml(dynamic_text), *eff = NULL;
    struct dra_err err = {0};
    warnings[0] = '\0';
    assert_int_equal(json_merge_patch(&local, more, NULL), 0);
    assert_int_equal(conf_effective(local, dynamic, &eff, &err), 0);
    assert_int_equal(conf_settings(eff, dynamic, true, on_warning, NULL, s, &err), 0);
    json_free(eff);
    json_free(local);
    json_free(more);
    json_free(dynamic);
}

static void test_settings(void **state)
{
    struct ha_settings s;
    (void)state;
    settings_of("{}", "{}", &s);
    assert_int_equal(dra_span_ms(s.fence_margin), 315); /* 300 ms + 30 s * 500 ppm */
    assert_int_equal(s.fence_margin.ns, 315000000);
    assert_int_equal(dra_span_ms(s.handover_after), 3000);
    assert_int_equal(s.maximum_lag_on_failover, 1048576);
    assert_int_equal(dra_span_ms(s.primary_start_timeout), 300000);
    assert_int_equal(dra_span_ms(s.member_slots_ttl), 1800000);
    assert_true(s.guard_required);
    assert_string_equal(warnings, "");
    settings_of("{dragent: {guard: automatic}}", "{}", &s); /* never less than a guard that is there */
    assert_true(s.guard_required);
    assert_non_null(strstr(warnings, "dragent.guard"));
    settings_of("{restapi: {allowlist: [10.0.0.0/8]}, watchdog: {mode: required}}", "{synchronous_mode: on}", &s);
    assert_non_null(strstr(warnings, "restapi.allowlist"));
    assert_non_null(strstr(warnings, "watchdog.mode"));
    assert_non_null(strstr(warnings, "synchronous_mode"));
    settings_of("{}", "{}", &s);
    assert_true(s.use_slots);
    assert_false(s.can_bootstrap);
    assert_int_equal(s.tags.failover_priority, 1);

    settings_of("{dragent: {guard: off, handover_after: off, fence_margin: 250ms}, bootstrap: {}, tags: {nofailover: true}}",
                "{master_start_timeout: 7, check_timeline: 'on', pause: true, synchronous_mode: Quorum, maximum_lag_on_failover: 1MB}", &s);
    assert_true(s.handover_after.ns < 0);
    assert_int_equal(dra_span_ms(s.fence_margin), 250);
    assert_false(s.guard_required);
    assert_true(s.can_bootstrap);
    assert_true(s.tags.nofailover);
    assert_int_equal(dra_span_ms(s.primary_start_timeout), 7000);
    assert_true(s.check_timeline);
    assert_true(s.pause);
    assert_true(s.synchronous_mode);
    assert_int_equal(s.maximum_lag_on_failover, 1048576); /* CFG-51: no unit */
    assert_has(warnings, "maximum_lag_on_failover");

    settings_of("{dragent: {handover_after: 0}}", "{ttl: 2, loop_wait: 0.5, retry_timeout: 0.5}", &s);
    assert_int_equal(s.handover_after.ns, 0);
    assert_int_equal(dra_span_ms(s.fence_margin), 201);
}

/* ---- what is said -------------------------------------------------------------------------------------------------- */

static void test_check_texts(void **state)
{
    static const struct {
        const char *name, *text, *fatal, *warning; /* "" = none, NULL = do not look */
    } rows[] = {
        {"good", BASE PG_BASE, "", ""},
        {"unknown key", BASE PG_BASE "colour: red\n", "", "test.yml:9: colour: red: is not a known key"},
        {"unknown below a section", BASE PG_BASE "log:\n  levle: DEBUG\n", "", "test.yml:10: log.levle: DEBUG: is not a known key"},
        {"free sections", BASE PG_BASE "tags: {x: 1}\n", "", ""},
        {"custom method", BASE PG_BASE "bootstrap:\n  method: mine\n  mine:\n    command: x\n", "", ""},
        {"wrong word", BASE PG_BASE "log: {level: LOUD}\n", "", "log.level: LOUD: want one of: DEBUG INFO"},
        {"our own section is strict", BASE PG_BASE "dragent:\n  gaurd: off\n", "test.yml:10: dragent.gaurd: off: is not a key of the section dragent", NULL},
        {"our own values are strict", BASE PG_BASE "dragent:\n  guard: maybe\n", "test.yml:10: dragent.guard: maybe: want one of: required", NULL},
        {"handover off", BASE PG_BASE "dragent: {handover_after: off}\n", "", ""},
        {"no name", "scope: x\n" PG_BASE, "name: is not defined. Give", NULL},
        {"bad name", "name: a/b\nscope: x\n" PG_BASE, "name: a/b: must contain neither", NULL},
        {"no store", "name: a\nscope: demo\nrestapi: {listen: '10.0.0.1:8008'}\n" PG_BASE, "no other place to meet", NULL},
        {"etcd v2", "name: a\nscope: demo\nrestapi: {listen: '10.0.0.1:8008'}\netcd: {host: h}\n" PG_BASE,
         "test.yml:4: etcd: this store is not supported. Rename the section from etcd to etcd3", NULL},
        {"consul", "name: a\nscope: demo\nrestapi: {listen: '10.0.0.1:8008'}\nconsul: {host: h}\n" PG_BASE, "consul: this store is not supported", NULL},
        {"two stores", BASE "consul: {host: h}\n" PG_BASE, "more than one store", NULL},
        {"nowhere", "name: a\nscope: demo\nrestapi: {listen: '10.0.0.1:8008'}\netcd3: {protocol: http}\n" PG_BASE, "says nowhere where etcd is", NULL},
        {"half a login", BASE PG_BASE "ctl: {authentication: {username: u}}\n", "ctl.authentication: username and password", NULL},
        {"citus", BASE PG_BASE "citus: {group: 0, database: x}\n", "citus.group: 0: Citus is not supported", NULL},
        {"tags at odds", BASE PG_BASE "tags: {nofailover: false, failover_priority: 0}\n", "",
         "Conflicting configuration between nofailover: False and failover_priority: 0. Defaulting to nofailover: False"},
        {"a password is not shown", BASE PG_BASE "restapi: {authentication: {username: u, password: [secretword]}}\n", NULL, NULL},
    };
    (void)state;
    for (size_t i = 0; i < DRA_ARRAY_LEN(rows); i++) {
        struct json *j = yaml(rows[i].text);
        struct dra_err err = {0};
        int rc;
        warnings[0] = '\0';
        rc = conf_check_local(j, on_warning, NULL, &err);
        if (rows[i].fatal != NULL && rows[i].fatal[0] == '\0' && rc != 0) {
            fail_msg("%s: %s", rows[i].name, err.msg);
        }
        if (rows[i].fatal != NULL && rows[i].fatal[0] != '\0') {
            assert_true(rc < 0);
            assert_has(err.msg, rows[i].fatal);
        }
        if (rows[i].warning != NULL && rows[i].warning[0] == '\0' && warnings[0] != '\0') {
            fail_msg("%s: %s", rows[i].name, warnings);
        }
        if (rows[i].warning != NULL) {
            assert_has(warnings, rows[i].warning);
        }
        assert_null(strstr(warnings, "secretword"));
        assert_null(strstr(err.msg, "secretword"));
        json_free(j);
    }
}

/* More problems than an error has room for: the first ones in the error, all of them as a warning. */
static void test_many_problems(void **state)
{
    struct json *j = yaml("dragent: {a_key_that_is_not_there: 1, another_key_that_is_not_there: 2, guard: 7, clock_drift: x, fence_margin: y}\n");
    struct dra_err err = {0};
    (void)state;
    warnings[0] = '\0';
    assert_true(conf_check_local(j, on_warning, NULL, &err) < 0);
    assert_has(err.msg, "dragent.a_key_that_is_not_there");
    assert_has(warnings, "no other place to meet");
    json_free(j);
}

/* ---- rest, names, log ------------------------------------------------------------------------------------------------ */

static void test_rest_and_names(void **state)
{
    struct json *local = yaml("name: 7\nscope: demo\nnamespace: /x/\n"
                              "restapi: {listen: '*:8009', connect_address: '[fd00::1]:80', authentication: {username: u, password: 010}}\n"
                              "postgresql: {listen: '10.0.0.1,127.0.0.1:5433', data_dir: /d, proxy_address: p:6432, database: app}\n");
    struct json *eff = NULL;
    struct conf_rest r;
    struct conf_names n;
    struct dra_err err = {0};
    (void)state;
    assert_int_equal(conf_effective(local, NULL, &eff, &err), 0);
    assert_int_equal(conf_rest(eff, &r, &err), 0);
    assert_string_equal(r.listen_host, "");
    assert_int_equal(r.listen_port, 8009);
    assert_string_equal(r.api_url, "http://[fd00::1]:80/patroni");
    assert_string_equal(r.username, "u");
    assert_string_equal(r.password, "010");
    assert_string_equal(r.ctl_password, "010");
    assert_int_equal(conf_names(eff, &n, &err), 0);
    assert_string_equal(n.name, "7");
    assert_string_equal(n.ns, "/x/");
    assert_string_equal(n.conn_url, "postgres://10.0.0.1:5433/app");
    assert_string_equal(n.proxy_url, "postgres://p:6432/app");
    assert_string_equal(n.data_dir, "/d");
    json_free(eff);
    json_free(local);
}

static void test_log(void **state)
{
    struct json *local = yaml("log: {level: warning, type: json, mode: 0640, file_num: '9', format: [a], dir: /nowhere/at/all}\n"), *eff = NULL;
    struct log_config c;
    struct dra_err err = {0};
    (void)state;
    warnings[0] = '\0';
    assert_int_equal(conf_effective(local, NULL, &eff, &err), 0);
    assert_int_equal(conf_log(eff, on_warning, NULL, &c, &err), 0);
    assert_int_equal(c.level, LOG_LV_WARNING);
    assert_true(c.json);
    assert_int_equal(c.mode, 0640);
    assert_int_equal(c.file_num, 9);
    assert_string_equal(c.dir, "");
    assert_has(warnings, "log.dir: /nowhere/at/all: is not there");
    json_free(eff);
    json_free(local);
}

/* ---- files ---------------------------------------------------------------------------------------------------------------- */

static void write_text(const char *dir, const char *name, const char *text)
{
    char path[256];
    FILE *f;
    (void)snprintf(path, sizeof path, "%s/%s", dir, name);
    f = fopen(path, "w");
    assert_non_null(f);
    assert_true(fputs(text, f) >= 0);
    assert_int_equal(fclose(f), 0);
}

static void test_directory(void **state)
{
    char dir[] = "/tmp/dra-conf-XXXXXX", path[64];
    struct json *j = NULL;
    struct dra_err err = {0};
    (void)state;
    assert_non_null(mkdtemp(dir));
    write_text(dir, "a.yml", "scope: one\ntags: {x: 1, y: 2}\npostgresql: {pg_hba: [a, b], create_replica_method: [m]}\n");
    write_text(dir, "b.yaml", "scope: two\ntags: {x: null, z: 3}\npostgresql: {pg_hba: [c], name: inner}\n");
    write_text(dir, "c.txt", "scope: three\n");
    assert_int_equal(conf_load_local(dir, NULL, NULL, NULL, &j, &err), 0);
    assert_string_equal(json_text(json_get(j, "scope")), "two");
    assert_null(json_find(j, "tags.x")); /* null removes */
    assert_non_null(json_find(j, "tags.y"));
    assert_int_equal(json_size(json_find(j, "postgresql.pg_hba")), 1);
    assert_string_equal(json_text(json_get(j, "name")), "inner"); /* CFG-05 */
    assert_int_equal(json_size(json_find(j, "postgresql.create_replica_methods")), 1);
    json_free(j);
    write_text(dir, "d.yml", "- a\n");
    assert_true(conf_load_local(dir, NULL, NULL, NULL, &j, &err) < 0);
    assert_has(err.msg, "invalid config file");
    (void)snprintf(path, sizeof path, "%s/none", dir);
    assert_true(conf_load_local(path, NULL, NULL, NULL, &j, &err) < 0);
    assert_has(err.msg, "invalid config path");
    write_text(dir, "e.yml", "a: [1\n");
    (void)snprintf(path, sizeof path, "%s/e.yml", dir);
    assert_true(conf_load_local(path, NULL, NULL, NULL, &j, &err) < 0);
    assert_has(err.msg, "e.yml:");
    assert_int_equal(dra_file_remove_tree(dir, &err), 0);
}

/* The samples that we ship load without a word. */
static void test_samples(void **state)
{
    static const char *const files[] = {"node.yml", "three-nodes/node1.yml", "three-nodes/node2.yml", "three-nodes/node3.yml"};
    (void)state;
    for (size_t i = 0; i < DRA_ARRAY_LEN(files); i++) {
        char path[512];
        struct json *local = NULL, *eff = NULL;
        struct ha_settings s;
        struct dra_err err = {0};
        (void)snprintf(path, sizeof path, "%s/%s", DRA_SAMPLES, files[i]);
        warnings[0] = '\0';
        if (conf_load_local(path, NULL, on_warning, NULL, &local, &err) != 0 || conf_check_local(local, on_warning, NULL, &err) != 0 ||
            conf_effective(local, json_find(local, "bootstrap.dcs"), &eff, &err) != 0 ||
            conf_settings(eff, NULL, true, on_warning, NULL, &s, &err) != 0) {
            fail_msg("%s: %s", files[i], err.msg);
        }
        assert_string_equal(warnings, "");
        assert_true(s.can_bootstrap);
        json_free(local);
        json_free(eff);
    }
}

static void test_legacy_credentials(void **state)
{
    char dir[] = "/tmp/dra-conf-XXXXXX", path[64];
    struct json *j = NULL;
    struct dra_err err = {0};
    (void)state;
    assert_non_null(mkdtemp(dir));
    write_text(dir, "a.yml", "postgresql:\n  replication: {username: r, password: p}\n  pg_rewind: {username: w}\n");
    (void)snprintf(path, sizeof path, "%s/a.yml", dir);
    assert_int_equal(conf_load_local(path, NULL, NULL, NULL, &j, &err), 0);
    assert_string_equal(json_text(json_find(j, "postgresql.authentication.replication.username")), "r");
    assert_string_equal(json_text(json_find(j, "postgresql.authentication.superuser.username")), "w");
    assert_true(json_is_true(json_find(j, "postgresql.use_pg_rewind")));
    json_free(j);
    assert_int_equal(dra_file_remove_tree(dir, &err), 0);
}

/* stderr of conf_validate() for a file with this text. */
static int validate(const char *text, char *out, size_t size)
{
    char dir[] = "/tmp/dra-conf-XXXXXX", path[64], log[64];
    struct dra_err err = {0};
    int saved = dup(2), rc;
    FILE *f;
    size_t n;
    assert_non_null(mkdtemp(dir));
    write_text(dir, "a.yml", text);
    (void)snprintf(path, sizeof path, "%s/a.yml", dir);
    (void)snprintf(log, sizeof log, "%s/stderr", dir);
    assert_non_null(freopen(log, "w", stderr));
    rc = conf_validate(path, NULL, true);
    (void)fflush(stderr);
    assert_true(dup2(saved, 2) == 2);
    (void)close(saved);
    f = fopen(log, "r");
    assert_non_null(f);
    n = fread(out, 1, size - 1, f);
    out[n] = '\0';
    (void)fclose(f);
    assert_int_equal(dra_file_remove_tree(dir, &err), 0);
    return rc;
}

static void test_validate(void **state)
{
    char out[8192];
    (void)state;
    assert_int_equal(validate("name: a\nrestapi: {listen: 10.0.0.1:8008, connect_address: 127.0.0.1:8008}\n"
                              "log: {level: debug}\npostgresql: {listen: 5, data_dir: '', bin_dir: /nowhere}\n"
                              "tags: {nofailover: true, failover_priority: 1}\nbootstrap: {dcs: {ttl: abc, synchronous_mode: maybe}}\n",
                              out, sizeof out),
                     1);
    assert_has(out, "scope  is not defined.\n");
    assert_has(out, "etcd3  is not defined.\n");
    assert_has(out, "zookeeper  is not defined.\n");
    assert_has(out, "restapi.connect_address 127.0.0.1:8008 didn't pass validation: must not contain \"127.0.0.1\"");
    assert_has(out, "log.level debug didn't pass validation: Wrong value\n");
    assert_has(out, "a.yml:3: ");
    assert_has(out, "postgresql.listen 5 is not a string\n");
    assert_has(out, "postgresql.data_dir  didn't pass validation: is an empty string\n");
    assert_has(out, "postgresql.bin_dir /nowhere didn't pass validation: Directory '/nowhere' does not exist.\n");
    assert_has(out, "tags  Multiple of ('nofailover', 'failover_priority') provided\n");
    assert_has(out, "bootstrap.dcs.ttl abc is not an integer\n");
    assert_has(out, "bootstrap.dcs.synchronous_mode maybe didn't pass validation: invalid value for synchronous_mode\n");
    assert_has(out, "postgresql.authentication.replication.username  is not defined.\n");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sizes),          cmocka_unit_test(test_durations),
        cmocka_unit_test(test_bools),          cmocka_unit_test(test_timestamps),
        cmocka_unit_test(test_precedence),     cmocka_unit_test(test_bad_dynamic_is_refused),
        cmocka_unit_test(test_timings),        cmocka_unit_test(test_settings),
        cmocka_unit_test(test_check_texts),    cmocka_unit_test(test_rest_and_names),
        cmocka_unit_test(test_log),            cmocka_unit_test(test_directory),
        cmocka_unit_test(test_legacy_credentials), cmocka_unit_test(test_validate),
        cmocka_unit_test(test_many_problems),  cmocka_unit_test(test_samples),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
