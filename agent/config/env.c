/*
 * env.c - environment variables as configuration (CFG-10 .. CFG-14, DRAGENT_* of CFG-100).
 *
 * Recognised variables are taken out of the process environment when they are captured, so that hooks and PostgreSQL
 * do not see passwords; an upgrade in place puts them back through conf_env_count()/conf_env_at().
 * Threads: capture before any thread exists; afterwards read only.
 */
#include "env.h"

#include "keys.h"

#include <stdlib.h>
#include <string.h>

extern char **environ;

#define CONF_ENV_MAX 1024

struct conf_env {
    size_t n;
    char *vars[CONF_ENV_MAX]; /* owned, "NAME=value" */
};

/* How the text of a variable becomes a value. */
enum env_type { ENV_STR = 0, ENV_INT, ENV_BOOL, ENV_LIST, ENV_MAP, ENV_FLOAT, ENV_FORMAT };

/* Variables whose place does not follow from the table: credentials, older names. */
static const struct {
    const char *name, *path;
} env_special[] = {
    {"LOGLEVEL", "log.level"}, /* older names first: a newer one overwrites */
    {"LOGFORMAT", "log.format"},
    {"LOG_DATEFMT", "log.dateformat"},
    {"POSTGRESQL_BIN_IS_READY", "postgresql.bin_name.pg_isready"},
    {"POSTGRESQL_BIN_PGCONTROLDATA", "postgresql.bin_name.pg_controldata"},
    {"RETRIABLE_HTTP_CODES", "kubernetes.retriable_http_codes"},
    {"RAFT_DATA_DIR", "raft.data_dir"},
    {"RAFT_SELF_ADDR", "raft.self_addr"},
    {"RAFT_BIND_ADDR", "raft.bind_addr"},
    {"RAFT_PARTNER_ADDRS", "raft.partner_addrs"},
    {"RAFT_PASSWORD", "raft.password"},
    {"RAFT_MIN_TIMEOUT", "raft.min_timeout"},
    {"RAFT_MAX_TIMEOUT", "raft.max_timeout"},
    {"CONSUL_SCHEME", "consul.scheme"},
    {"EXHIBITOR_POLL_INTERVAL", "exhibitor.poll_interval"},
};

/* CFG-12 */
static const char *const store_suffixes[] = {
    "HOST", "HOSTS", "PORT", "USE_PROXIES", "PROTOCOL", "SRV", "SRV_SUFFIX", "URL", "PROXY", "CACERT", "CERT", "KEY",
    "VERIFY", "TOKEN", "CHECKS", "DC", "CONSISTENCY", "REGISTER_SERVICE", "SERVICE_CHECK_INTERVAL",
    "SERVICE_CHECK_TLS_SERVER_NAME", "SERVICE_TAGS", "NAMESPACE", "CONTEXT", "USE_ENDPOINTS", "SCOPE_LABEL", "ROLE_LABEL",
    "POD_IP", "PORTS", "LABELS", "BYPASS_API_SERVICE", "RETRIABLE_HTTP_CODES", "KEY_PASSWORD", "USE_SSL", "SET_ACLS",
    "GROUP", "DATABASE", "LEADER_LABEL_VALUE", "FOLLOWER_LABEL_VALUE", "STANDBY_LEADER_LABEL_VALUE", "TMP_ROLE_LABEL",
    "AUTH_DATA", "BOOTSTRAP_LABELS",
};

/* CFG-32 */
static const char *const credential_keys[] = {
    "USERNAME", "PASSWORD", "SSLMODE", "SSLCERT", "SSLKEY", "SSLPASSWORD", "SSLROOTCERT", "SSLCRL", "SSLCRLDIR",
    "GSSENCMODE", "CHANNEL_BINDING", "SSLNEGOTIATION",
};
static const char *const credential_users[] = {"SUPERUSER", "REPLICATION", "REWIND"};

static bool lower_into(char *out, size_t size, const char *s)
{
    size_t n = strlen(s);
    if (n >= size) {
        return false;
    }
    for (size_t i = 0; i <= n; i++) {
        out[i] = s[i] >= 'A' && s[i] <= 'Z' ? (char)(s[i] - 'A' + 'a') : s[i];
    }
    return true;
}

static bool one_of(const char *s, const char *const *list, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (dra_str_eq(s, list[i])) {
            return true;
        }
    }
    return false;
}

static bool ends_with(const char *s, const char *tail)
{
    size_t n = strlen(s), m = strlen(tail);
    return n >= m && dra_str_eq(s + n - m, tail);
}

/* PATRONI_<USER>_<KEY> */
static bool credential_path(const char *name, char *path, size_t size)
{
    for (size_t i = 0; i < DRA_ARRAY_LEN(credential_users); i++) {
        size_t n = strlen(credential_users[i]);
        char user[16], key[32];
        if (!dra_str_starts(name, credential_users[i]) || name[n] != '_' ||
            !one_of(name + n + 1, credential_keys, DRA_ARRAY_LEN(credential_keys))) {
            continue;
        }
        return lower_into(user, sizeof user, credential_users[i]) && lower_into(key, sizeof key, name + n + 1) &&
               dra_str_printf(path, size, "postgresql.authentication.%s.%s", user, key) == 0;
    }
    return false;
}

/* PATRONI_<SECTION>_<SUFFIX>: the section ends at the first "_". */
static bool store_path(const char *name, char *path, size_t size)
{
    const char *underscore = strchr(name, '_');
    char lower[128];
    size_t n;
    bool login;
    if (underscore == NULL || underscore == name) {
        return false;
    }
    n = (size_t)(underscore - name);
    login = (dra_str_starts(name, "ETCD_") || dra_str_starts(name, "ETCD3_")) &&
            (dra_str_eq(underscore + 1, "USERNAME") || dra_str_eq(underscore + 1, "PASSWORD"));
    if (!login && !one_of(underscore + 1, store_suffixes, DRA_ARRAY_LEN(store_suffixes))) {
        return false;
    }
    if (!lower_into(lower, sizeof lower, name)) {
        return false;
    }
    return dra_str_printf(path, size, "%.*s.%s", (int)n, lower, lower + n + 1) == 0;
}

bool conf_env_path(const char *variable, char *path, size_t size)
{
    bool ours = dra_str_starts(variable, "DRAGENT_");
    const char *name = ours || dra_str_starts(variable, "PATRONI_") ? variable + 8 : NULL;
    if (name == NULL || *name == '\0') {
        return false;
    }
    for (size_t i = 0; i < conf_local_key_count(); i++) {
        const struct conf_key *k = &conf_local_keys[i];
        if (k->env != NULL && dra_str_eq(k->env, name) && dra_str_starts(k->path, "dragent.") == ours &&
            !dra_str_eq(k->env, "POSTGRESQL_BIN_PGCONTROLDATA")) {
            return dra_str_copy(path, size, k->path) == 0;
        }
    }
    if (ours) {
        return false;
    }
    for (size_t i = 0; i < DRA_ARRAY_LEN(env_special); i++) {
        if (dra_str_eq(env_special[i].name, name)) {
            return dra_str_copy(path, size, env_special[i].path) == 0;
        }
    }
    return credential_path(name, path, size) || store_path(name, path, size);
}

static enum env_type type_of(const char *name, const char *path)
{
    static const char *const ints[] = {"_PORT", "_REQUEST_QUEUE_SIZE", "LOG_MAX_QUEUE_SIZE", "LOG_FILE_SIZE", "LOG_FILE_NUM",
                                       "LOG_MODE", "CITUS_GROUP", "THREAD_POOL_SIZE", "CLOCK_DRIFT"};
    static const char *const bools[] = {"_ALLOWLIST_INCLUDE_MEMBERS", "CTL_INSECURE", "DEDUPLICATE_HEARTBEAT_LOGS", "USE_PROXIES",
                                        "REGISTER_SERVICE", "USE_ENDPOINTS", "BYPASS_API_SERVICE", "_VERIFY"};
    static const char *const lists[] = {"RESTAPI_ALLOWLIST", "RAFT_PARTNER_ADDRS", "_HOSTS", "_PORTS", "_CHECKS",
                                        "_SERVICE_TAGS", "RETRIABLE_HTTP_CODES"};
    static const char *const maps[] = {"_EXTRA_HEADERS", "LOG_STATIC_FIELDS", "LOG_LOGGERS", "_LABELS", "_SET_ACLS", "_AUTH_DATA"};
    static const struct {
        enum env_type type;
        const char *const *tails;
        size_t n;
    } rows[] = {
        {ENV_INT, ints, DRA_ARRAY_LEN(ints)},
        {ENV_BOOL, bools, DRA_ARRAY_LEN(bools)},
        {ENV_LIST, lists, DRA_ARRAY_LEN(lists)},
        {ENV_MAP, maps, DRA_ARRAY_LEN(maps)},
    };
    if (dra_str_eq(path, "log.format")) {
        return ENV_FORMAT;
    }
    if (dra_str_eq(path, "raft.min_timeout") || dra_str_eq(path, "raft.max_timeout")) {
        return ENV_FLOAT;
    }
    for (size_t i = 0; i < DRA_ARRAY_LEN(rows); i++) {
        for (size_t j = 0; j < rows[i].n; j++) {
            if (ends_with(name, rows[i].tails[j])) {
                return rows[i].type;
            }
        }
    }
    return ENV_STR;
}

/* A list or map written without its brackets is wrapped in them. */
static struct json *yaml_value(const char *name, const char *value, char open, char close)
{
    struct dra_buf b;
    struct json *out = NULL;
    bool bare = open == '{' ? value[0] != '{' : value[0] != '-' && strchr(value, '[') == NULL;
    enum json_type want = open == '{' ? JSON_OBJECT : JSON_ARRAY;
    dra_buf_init(&b, 1024 * 1024);
    if (bare) {
        dra_buf_addf(&b, "%c%s%c", open, value, close);
    } else {
        dra_buf_adds(&b, value);
    }
    if (b.failed || yaml_acc_load(name, dra_buf_str(&b), b.len, &out, NULL) != 0) {
        out = NULL;
    }
    dra_buf_deinit(&b);
    if (out != NULL && json_type_of(out) != want) {
        json_free(out);
        out = NULL;
    }
    return out;
}

static struct json *value_of(const char *name, enum env_type type, const char *value)
{
    struct json *text = json_new_str(value), *out = NULL;
    int64_t number;
    bool yes;
    switch (type) {
    case ENV_STR:
        return text;
    case ENV_INT:
        out = conf_int(text, &number) == 0 ? json_new_i64(number) : NULL;
        break;
    case ENV_FLOAT:
        out = conf_int(text, &number) == 0 ? json_new_raw(value) : NULL;
        break;
    case ENV_BOOL:
        out = conf_bool(text, &yes) == 0 ? json_new_bool(yes) : NULL;
        break;
    case ENV_LIST:
        out = yaml_value(name, value, '[', ']');
        break;
    case ENV_MAP:
        out = yaml_value(name, value, '{', '}');
        break;
    case ENV_FORMAT:
        out = strstr(value, "%(") == NULL ? yaml_value(name, value, '[', ']') : json_clone(text);
        break;
    }
    json_free(text);
    return out;
}

/* ---- capture ----------------------------------------------------------------------------------------------- */

static bool is_recognised(const char *var)
{
    char name[256], path[CONF_PATH_MAX];
    const char *eq = strchr(var, '=');
    if (eq == NULL || dra_str_copy_n(name, sizeof name, var, (size_t)(eq - var)) != 0) {
        return false;
    }
    return dra_str_eq(name, "PATRONI_CONFIGURATION") || conf_env_path(name, path, sizeof path);
}

int conf_env_from(const char *const *vars, struct conf_env **out, struct dra_err *err)
{
    struct conf_env *e = calloc(1, sizeof *e);
    if (e == NULL) {
        return dra_err_set(err, DRA_ENOMEM, "out of memory");
    }
    for (size_t i = 0; vars != NULL && vars[i] != NULL; i++) {
        if (!is_recognised(vars[i])) {
            continue;
        }
        if (e->n == CONF_ENV_MAX) {
            conf_env_free(e);
            return dra_err_set(err, DRA_ETOOLONG, "more than %d environment variables of ours", CONF_ENV_MAX);
        }
        e->vars[e->n] = strdup(vars[i]);
        if (e->vars[e->n++] == NULL) {
            conf_env_free(e);
            return dra_err_set(err, DRA_ENOMEM, "out of memory");
        }
    }
    *out = e;
    return DRA_OK;
}

int conf_env_capture(struct conf_env **out, struct dra_err *err)
{
    struct conf_env *e = NULL;
    int rc = conf_env_from((const char *const *)environ, &e, err);
    for (size_t i = 0; rc == 0 && i < e->n; i++) {
        char name[256];
        if (dra_str_copy_n(name, sizeof name, e->vars[i], strcspn(e->vars[i], "=")) == 0) {
            (void)unsetenv(name); /* fails only for names with "=" */
        }
    }
    if (rc == 0) {
        *out = e;
    }
    return rc;
}

void conf_env_free(struct conf_env *e)
{
    for (size_t i = 0; e != NULL && i < e->n; i++) {
        explicit_bzero(e->vars[i], strlen(e->vars[i]));
        free(e->vars[i]);
    }
    free(e);
}

size_t conf_env_count(const struct conf_env *e)
{
    return e == NULL ? 0 : e->n;
}

const char *conf_env_at(const struct conf_env *e, size_t i)
{
    return e != NULL && i < e->n ? e->vars[i] : NULL;
}

const char *conf_env_whole(const struct conf_env *e)
{
    static const char key[] = "PATRONI_CONFIGURATION=";
    for (size_t i = 0; e != NULL && i < e->n; i++) {
        if (dra_str_starts(e->vars[i], key) && e->vars[i][sizeof key - 1] != '\0') {
            return e->vars[i] + sizeof key - 1;
        }
    }
    return NULL;
}

/* ---- overlay ------------------------------------------------------------------------------------------------- */

/* Put v (owned) at "a.b.c" of *tree. */
static int put_path(struct json **tree, const char *path, struct json *v)
{
    char rest[CONF_PATH_MAX];
    int rc = dra_str_copy(rest, sizeof rest, path);
    while (rc == 0 && v != NULL && rest[0] != '\0') { /* wrap it from the inside out */
        char *dot = strrchr(rest, '.');
        struct json *obj = json_new_object();
        if (obj == NULL) {
            rc = DRA_ENOMEM;
            break;
        }
        rc = json_set(obj, dot == NULL ? rest : dot + 1, DRA_TAKE(v));
        v = obj;
        *(dot == NULL ? rest : dot) = '\0';
    }
    if (rc == 0) {
        rc = v == NULL ? DRA_ENOMEM : json_merge_patch(tree, v, NULL);
    }
    json_free(v);
    return rc;
}

/* CFG-12: user and password count only beside another variable of the section. */
static bool login_alone(const struct conf_env *e, const char *path)
{
    const char *dot = strchr(path, '.');
    size_t n = dot == NULL ? 0 : (size_t)(dot - path) + 1;
    if (n == 0 || (!dra_str_starts(path, "etcd3.") && !dra_str_starts(path, "etcd.")) ||
        (!dra_str_eq(dot, ".username") && !dra_str_eq(dot, ".password"))) {
        return false;
    }
    for (size_t i = 0; i < e->n; i++) {
        char name[256], other[CONF_PATH_MAX];
        size_t len = strcspn(e->vars[i], "=");
        if (dra_str_copy_n(name, sizeof name, e->vars[i], len) == 0 && e->vars[i][len] != '\0' && e->vars[i][len + 1] != '\0' &&
            conf_env_path(name, other, sizeof other) && strncmp(other, path, n) == 0 &&
            !dra_str_eq(other + n, "username") && !dra_str_eq(other + n, "password")) {
            return false;
        }
    }
    return true;
}

static int overlay_one(const struct conf_env *e, const char *var, conf_warn_cb warn, void *arg, struct json **tree)
{
    char name[256], path[CONF_PATH_MAX];
    const char *value = strchr(var, '=') + 1;
    struct json *v;
    if (dra_str_copy_n(name, sizeof name, var, (size_t)(value - var - 1)) != 0 || *value == '\0' ||
        !conf_env_path(name, path, sizeof path) || login_alone(e, path)) {
        return DRA_OK;
    }
    v = value_of(name, type_of(name, path), value);
    if (v == NULL) {
        struct dra_buf b;
        dra_buf_init(&b, 4096);
        conf_say(&b, NULL, name, conf_is_secret(path) ? "(secret)" : value, "cannot be read and is ignored", "Correct it, or unset it");
        if (warn != NULL) {
            warn(dra_buf_str(&b), arg);
        }
        dra_buf_deinit(&b);
        return DRA_OK;
    }
    return put_path(tree, path, v);
}

static bool is_older_name(const char *var)
{
    return dra_str_starts(var, "PATRONI_LOGLEVEL=") || dra_str_starts(var, "PATRONI_LOGFORMAT=") ||
           dra_str_starts(var, "PATRONI_LOG_DATEFMT=");
}

int conf_env_overlay(const struct conf_env *e, conf_warn_cb warn, void *arg, struct json **out, struct dra_err *err)
{
    DRA_CLEANUP(json_freep) struct json *tree = json_new_object();
    int rc = tree == NULL ? DRA_ENOMEM : DRA_OK;
    for (int pass = 0; pass < 2; pass++) { /* older names first: newer ones overwrite */
        for (size_t i = 0; e != NULL && i < e->n && rc == 0; i++) {
            if (is_older_name(e->vars[i]) == (pass == 0) && !dra_str_starts(e->vars[i], "PATRONI_CONFIGURATION=")) {
                rc = overlay_one(e, e->vars[i], warn, arg, &tree);
            }
        }
    }
    if (rc != 0) {
        return dra_err_set(err, rc, "environment: %s", dra_code_to_str(rc));
    }
    *out = DRA_TAKE(tree);
    return DRA_OK;
}
