/*
 * config.c - plain values out of the effective configuration (CFG-31, CFG-32), with their defaults.
 *
 * Promises: a snapshot never changes after it was made; what is absent has its documented default.
 * Threads: made and counted on the loop thread, read by any.
 */
#include "config.h"

#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define START_TIMEOUT_S 60

static const char *const user_opt_names[PGS_OPT_COUNT] = {
#define PGS_X(n, t, v) [PGS_OPT_##n] = (t),
    PGS_USER_OPT_MAP(PGS_X)
#undef PGS_X
};

static const char *const tool_names[PGS_TOOL_COUNT] = {
    [PGS_TOOL_POSTGRES] = "postgres",        [PGS_TOOL_INITDB] = "initdb",
    [PGS_TOOL_CONTROLDATA] = "pg_controldata", [PGS_TOOL_BASEBACKUP] = "pg_basebackup",
    [PGS_TOOL_REWIND] = "pg_rewind",         [PGS_TOOL_WALDUMP] = "pg_waldump",
};

static int load(struct pgs_conf *c, struct dra_err *err);
static int load_listen(struct pgs_conf *c, struct dra_err *err);
static int load_users(struct pgs_conf *c, struct dra_err *err);
static int load_tools(struct pgs_conf *c, struct dra_err *err);
static void load_socket_dir(struct pgs_conf *c);
static int text_or(const struct json *obj, const char *key, char *out, size_t out_size, const char *fallback,
                   struct dra_err *err);
static bool bool_or(const struct json *obj, const char *key, bool fallback);

bool pgs_conf_text(const struct json *j, char *out, size_t out_size)
{
    enum json_type t = json_type_of(j);

    if (t != JSON_BOOL && t != JSON_NUMBER && t != JSON_STRING) {
        return false;
    }
    return json_source_text(j, out, out_size);
}

int pgs_conf_new(const struct json *effective, struct pgs_conf **out, struct dra_err *err)
{
    struct pgs_conf *c = calloc(1, sizeof *c);
    int rc;

    if (c == NULL) {
        return dra_err_set(err, DRA_ENOMEM, "server configuration");
    }
    c->refs = 1;
    c->root = json_clone(effective);
    if (c->root == NULL) {
        pgs_conf_unref(c);
        return dra_err_set(err, DRA_ENOMEM, "server configuration");
    }
    rc = load(c, err);
    if (rc != 0) {
        pgs_conf_unref(c);
        return rc;
    }
    *out = c;
    return DRA_OK;
}

struct pgs_conf *pgs_conf_ref(struct pgs_conf *c)
{
    c->refs++;
    return c;
}

void pgs_conf_unref(struct pgs_conf *c)
{
    if (c == NULL || --c->refs > 0) {
        return;
    }
    json_free(c->root);
    explicit_bzero(c, sizeof *c);
    free(c);
}

static int load(struct pgs_conf *c, struct dra_err *err)
{
    char home_pgpass[PGS_PATH_MAX] = "/pgpass";
    char text[64];
    int64_t seconds = START_TIMEOUT_S;
    const struct passwd *pw = getpwuid(getuid());
    const char *home = getenv("HOME");
    int rc = DRA_OK;

    c->pg = json_get(c->root, "postgresql");
    if (json_type_of(c->pg) != JSON_OBJECT) {
        return dra_err_set(err, DRA_EINVAL, "postgresql: section is missing");
    }
    c->bootstrap = json_get(c->root, "bootstrap");
    if (home == NULL || home[0] == '\0') {
        home = pw != NULL ? pw->pw_dir : "";
    }
    (void)snprintf(home_pgpass, sizeof home_pgpass, "%s/pgpass", home);
    rc |= text_or(c->root, "scope", c->scope, sizeof c->scope, "", err);
    rc |= text_or(c->root, "name", c->name, sizeof c->name, "", err);
    if (c->name[0] == '\0') {
        rc |= text_or(c->pg, "name", c->name, sizeof c->name, "", err);
    }
    rc |= text_or(c->pg, "data_dir", c->data_dir, sizeof c->data_dir, "", err);
    if (rc == DRA_OK && c->data_dir[0] != '/') {
        return dra_err_set(err, DRA_EINVAL, "postgresql.data_dir: want an absolute path, got \"%s\"", c->data_dir);
    }
    for (size_t n = strlen(c->data_dir); n > 1 && c->data_dir[n - 1] == '/'; n--) {
        c->data_dir[n - 1] = '\0';
    }
    rc |= text_or(c->pg, "config_dir", c->config_dir, sizeof c->config_dir, c->data_dir, err);
    rc |= text_or(c->pg, "config_base_name", c->base_name, sizeof c->base_name, "postgresql", err);
    rc |= text_or(c->pg, "custom_conf", c->custom_conf, sizeof c->custom_conf, "", err);
    rc |= text_or(c->pg, "database", c->database, sizeof c->database, "postgres", err);
    rc |= text_or(c->pg, "pgpass", c->pgpass, sizeof c->pgpass, home_pgpass, err);
    rc |= text_or(c->pg, "krbsrvname", c->krbsrvname, sizeof c->krbsrvname, "", err);
    if (rc != DRA_OK) {
        return err != NULL ? err->code : DRA_ETOOLONG;
    }
    c->use_unix_socket = bool_or(c->pg, "use_unix_socket", false);
    c->use_unix_socket_repl = bool_or(c->pg, "use_unix_socket_repl", false);
    c->use_slots = bool_or(c->pg, "use_slots", true);
    if (pgs_conf_text(json_get(c->pg, "pg_ctl_timeout"), text, sizeof text) &&
        (dra_parse_i64(text, strlen(text), 1, 86400, &seconds) != 0)) {
        seconds = START_TIMEOUT_S;
    }
    c->start_timeout = dra_ms(seconds * 1000);
    load_socket_dir(c);
    rc = load_listen(c, err);
    if (rc == 0) {
        rc = load_users(c, err);
    }
    return rc == 0 ? load_tools(c, err) : rc;
}

/* "h1,h2:port", "[::1]:port", "*:port" (CFG-31). */
static int load_listen(struct pgs_conf *c, struct dra_err *err)
{
    char text[sizeof c->listen_addresses + 8];
    char *colon;
    int64_t port = 5432;
    size_t out = 0;

    if (!pgs_conf_text(json_get(c->pg, "listen"), text, sizeof text)) {
        return dra_err_set(err, DRA_EINVAL, "postgresql.listen: missing");
    }
    colon = strrchr(text, ':');
    if (colon != NULL && strchr(colon, ']') == NULL) {
        if (dra_parse_i64(colon + 1, strlen(colon + 1), 1, 65535, &port) != 0) {
            return dra_err_set(err, DRA_EINVAL, "postgresql.listen: want HOST:PORT, got \"%s\"", text);
        }
        *colon = '\0';
    }
    for (const char *p = text; *p != '\0' && out + 1 < sizeof c->listen_addresses; p++) {
        if (*p != '[' && *p != ']') {
            c->listen_addresses[out++] = *p;
        }
    }
    c->listen_addresses[out] = '\0';
    c->port = (int)port;
    return DRA_OK;
}

static int load_user(const struct json *j, const char *where, struct pgs_user *u, struct dra_err *err)
{
    if (text_or(j, "username", u->username, sizeof u->username, "", err) != 0 ||
        text_or(j, "password", u->password, sizeof u->password, "", err) != 0) {
        return dra_err_wrap(err, "%s", where);
    }
    for (int i = 0; i < PGS_OPT_COUNT; i++) {
        if (text_or(j, user_opt_names[i], u->opt[i], sizeof u->opt[i], "", err) != 0) {
            return dra_err_wrap(err, "%s", where);
        }
    }
    return DRA_OK;
}

static int load_users(struct pgs_conf *c, struct dra_err *err)
{
    const struct json *a = json_get(c->pg, "authentication");
    const struct json *from = a != NULL ? a : c->pg; /* CFG-05: directly below postgresql */
    const struct json *rewind = json_get(from, a != NULL ? "rewind" : "pg_rewind");
    int rc = load_user(json_get(from, "superuser"), "postgresql.authentication.superuser", &c->superuser, err);

    if (rc == 0) {
        rc = load_user(json_get(from, "replication"), "postgresql.authentication.replication", &c->replication, err);
    }
    if (rc == 0) {
        rc = load_user(rewind, "postgresql.authentication.rewind", &c->rewind, err);
    }
    if (rc == 0 && c->rewind.username[0] == '\0') {
        c->rewind = c->superuser;
    }
    c->rewind_is_superuser = dra_str_eq(c->rewind.username, c->superuser.username);
    return rc;
}

static int load_tools(struct pgs_conf *c, struct dra_err *err)
{
    char bin_dir[PGS_PATH_MAX];
    const struct json *names = json_get(c->pg, "bin_name");

    if (text_or(c->pg, "bin_dir", bin_dir, sizeof bin_dir, "", err) != 0) {
        return err != NULL ? err->code : DRA_ETOOLONG;
    }
    for (int i = 0; i < PGS_TOOL_COUNT; i++) {
        char name[256];

        if (text_or(names, tool_names[i], name, sizeof name, tool_names[i], err) != 0 ||
            dra_str_printf(c->tool[i], sizeof c->tool[i], "%s%s%s", bin_dir, bin_dir[0] != '\0' ? "/" : "", name) != 0) {
            return dra_err_set(err, DRA_ETOOLONG, "postgresql.bin_dir: too long");
        }
    }
    return DRA_OK;
}

static void load_socket_dir(struct pgs_conf *c)
{
    char text[PGS_PATH_MAX];

    if (!pgs_conf_text(json_get(json_get(c->pg, "parameters"), "unix_socket_directories"), text, sizeof text)) {
        return;
    }
    for (const char *p = text; *p != '\0';) {
        size_t n;

        p += strspn(p, ", \t");
        n = strcspn(p, ", \t");
        if (*p == '/') {
            if (dra_str_copy_n(c->socket_dir, sizeof c->socket_dir, p, n) != 0) {
                c->socket_dir[0] = '\0';
            }
            return;
        }
        p += n;
    }
}

static int text_or(const struct json *obj, const char *key, char *out, size_t out_size, const char *fallback,
                   struct dra_err *err)
{
    const struct json *j = json_get(obj, key);
    enum json_type t = json_type_of(j);

    if (t == JSON_NONE || t == JSON_NULL) {
        if (dra_str_copy(out, out_size, fallback) != 0) {
            return dra_err_set(err, DRA_ETOOLONG, "%s: longer than %zu", key, out_size - 1);
        }
        return DRA_OK;
    }
    if (!pgs_conf_text(j, out, out_size)) {
        return dra_err_set(err, DRA_ETYPE, "%s: want a text of at most %zu characters", key, out_size - 1);
    }
    return DRA_OK;
}

static bool bool_or(const struct json *obj, const char *key, bool fallback)
{
    static const char *const yes[] = {"on", "true", "yes", "1"};
    static const char *const no[] = {"off", "false", "no", "0"};
    char text[16];

    if (!pgs_conf_text(json_get(obj, key), text, sizeof text)) {
        return fallback;
    }
    for (size_t i = 0; i < DRA_ARRAY_LEN(yes); i++) {
        if (dra_str_eq_nocase(text, yes[i])) {
            return true;
        }
        if (dra_str_eq_nocase(text, no[i])) {
            return false;
        }
    }
    return fallback;
}

static int add_option(const char *name, const char *value, const char *const *forbidden, bool strict,
                      struct pgs_argv *argv, struct dra_err *err)
{
    for (int i = 0; forbidden[i] != NULL; i++) {
        if (strcmp(forbidden[i], name) == 0) {
            return strict ? dra_err_set(err, DRA_EINVAL, "option \"%s\" may not be set", name) : DRA_OK;
        }
    }
    if (value == NULL) {
        pgs_argv_addf(argv, "--%s", name);
    } else {
        pgs_argv_addf(argv, "--%s=%s", name, value);
    }
    return DRA_OK;
}

int pgs_conf_options(const struct json *j, const char *const *forbidden, bool strict, struct pgs_argv *argv,
                     struct dra_err *err)
{
    bool is_map = json_type_of(j) == JSON_OBJECT;

    for (const struct json *e = json_first(j); e != NULL; e = json_next(e)) {
        const struct json *pair = is_map ? e : json_first(e);
        const char *name = is_map ? json_name(e) : json_name(pair);
        char value[PGS_VALUE_MAX];
        int rc;

        if (!is_map && json_type_of(e) != JSON_OBJECT) { /* a bare word */
            if (!pgs_conf_text(e, value, sizeof value)) {
                return dra_err_set(err, DRA_ETYPE, "want an option name or {name: value}");
            }
            rc = add_option(value, NULL, forbidden, strict, argv, err);
        } else if (name == NULL) {
            continue;
        } else if (is_map && json_type_of(pair) == JSON_BOOL) { /* a map can say "switch on" in no other way */
            rc = json_is_true(pair) ? add_option(name, NULL, forbidden, strict, argv, err) : DRA_OK;
        } else if (is_map && json_type_of(pair) == JSON_NULL) {
            rc = add_option(name, NULL, forbidden, strict, argv, err);
        } else {
            size_t n;

            if (!pgs_conf_text(pair, value, sizeof value)) {
                return dra_err_set(err, DRA_ETYPE, "%s: want a text", name);
            }
            n = strlen(value);
            if (n >= 2 && (value[0] == '\'' || value[0] == '"') && value[n - 1] == value[0]) {
                memmove(value, value + 1, n - 2); /* unquoted once, as a shell would */
                value[n - 2] = '\0';
            }
            rc = add_option(name, value, forbidden, strict, argv, err);
        }
        if (rc != 0) {
            return rc;
        }
    }
    return argv->failed ? dra_err_set(err, DRA_ETOOLONG, "too many options") : DRA_OK;
}
