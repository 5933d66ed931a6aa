/*
 * setup.c - the configuration as dragentctl uses it (CLI-03 .. CLI-05, CLI-12): the daemon's own loader; no file is needed where the
 * environment or the options say enough.
 */
#include "ctl.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <uv.h>

/* $XDG_CONFIG_HOME/patroni/patronictl.yaml, or below ~/.config */
static const char *default_path(char *out, size_t size)
{
    const char *xdg = getenv("XDG_CONFIG_HOME"), *home = getenv("HOME");
    int rc = DRA_ENOTFOUND;
    if (xdg != NULL && *xdg != '\0') {
        rc = dra_str_printf(out, size, "%s/patroni/patronictl.yaml", xdg);
    } else if (home != NULL) {
        rc = dra_str_printf(out, size, "%s/.config/patroni/patronictl.yaml", home);
    }
    return rc == 0 ? out : NULL;
}

static int load(struct ctl *c, struct conf_env *env, struct json **out)
{
    char path[1024];
    const char *file = c->args.config_file;
    struct dra_err err = {0};
    if (file == NULL && getenv("PATRONICTL_CONFIG_FILE") != NULL && getenv("PATRONICTL_CONFIG_FILE")[0] != '\0') {
        file = getenv("PATRONICTL_CONFIG_FILE");
        c->args.config_given = true;
    }
    if (file == NULL) {
        file = default_path(path, sizeof path);
    }
    if (file != NULL && access(file, R_OK) != 0) {
        if (c->args.config_given) {
            return ctl_error("Provided config file %s not existing or no read rights. Check the -c/--config-file parameter", file);
        }
        file = NULL;
    }
    if (conf_load_local(file, env, NULL, NULL, out, &err) != 0) {
        if (file == NULL && err.code == DRA_EINVAL) { /* nothing at all: options may say the rest */
            *out = json_new_object();
            return *out == NULL ? ctl_error("out of memory") : 0;
        }
        return ctl_error("%s", err.msg);
    }
    return 0;
}

/* ---- --dcs-url (CLI-04) ---------------------------------------------------------------------------------------- */

struct dcs_url {
    char host[HA_URL_MAX];
    char ns[HA_NAME_MAX];
};

static int parse_dcs_url(const char *url, struct dcs_url *out)
{
    static const char *const others[] = {"zookeeper", "exhibitor", "consul", "etcd"};
    const char *sep = strstr(url, "://");
    const char *rest = sep == NULL ? url : sep + 3;
    const char *slash = strchr(rest, '/');
    size_t n = slash == NULL ? strlen(rest) : (size_t)(slash - rest);
    char scheme[32] = "etcd3";
    if (sep != NULL && dra_str_copy_n(scheme, sizeof scheme, url, (size_t)(sep - url)) != 0) {
        return ctl_error("Unknown dcs scheme: %.*s", (int)(sep - url), url);
    }
    for (size_t i = 0; i < DRA_ARRAY_LEN(others); i++) {
        if (dra_str_eq(scheme, others[i])) {
            return ctl_error("dcs scheme %s is not supported: use etcd3", scheme);
        }
    }
    if (!dra_str_eq(scheme, "etcd3")) {
        return ctl_error("Unknown dcs scheme: %s", scheme);
    }
    if (sep == NULL) {
        log_linef(LOG_LV_WARNING, "ctl.scheme", "no scheme in %s: using etcd3 (API version 3)", url);
    }
    if (n == 0 || dra_str_copy_n(out->host, sizeof out->host, rest, n) != 0) {
        return ctl_error("no host in %s", url);
    }
    out->ns[0] = '\0';
    if (slash != NULL && slash[1] != '\0' && dra_str_copy(out->ns, sizeof out->ns, slash) != 0) {
        return ctl_error("namespace too long in %s", url);
    }
    return 0;
}

/* The host replaces every location of the section; user, password and certificates stay. */
static int apply_dcs_url(struct json **config, const struct dcs_url *u)
{
    static const char *const stores[] = {"consul", "etcd", "exhibitor", "kubernetes", "raft", "zookeeper"};
    static const char *const kept[] = {"username", "password", "cacert", "cert", "key", "protocol"};
    struct json *section = json_new_object();
    int rc = section == NULL ? DRA_ENOMEM : json_set(section, "host", json_new_str(u->host));
    for (size_t i = 0; i < DRA_ARRAY_LEN(kept) && rc == 0; i++) {
        const struct json *v = json_get(json_get(*config, "etcd3"), kept[i]);
        if (v != NULL) {
            rc = json_set(section, kept[i], json_clone(v));
        }
    }
    for (size_t i = 0; i < DRA_ARRAY_LEN(stores); i++) {
        json_del(*config, stores[i]);
    }
    if (rc == 0) {
        rc = json_set(*config, "etcd3", DRA_TAKE(section));
    }
    json_free(section);
    if (rc == 0 && u->ns[0] != '\0') {
        rc = json_set(*config, "namespace", json_new_str(u->ns));
    }
    return rc == 0 ? 0 : ctl_error("out of memory");
}

/* ---- REST credentials -------------------------------------------------------------------------------------------- */

static int set_auth(struct ctl *c)
{
    const struct json *auth = json_find(c->config, "ctl.authentication");
    const char *user, *password;
    char pair[512];
    struct dra_buf b;
    int rc;
    auth = auth == NULL ? json_find(c->config, "restapi.authentication") : auth;
    user = json_text(json_get(auth, "username"));
    password = json_text(json_get(auth, "password"));
    if (user == NULL || password == NULL) {
        return 0;
    }
    if (dra_str_printf(pair, sizeof pair, "%s:%s", user, password) != 0) {
        return ctl_error("authentication: username and password are too long");
    }
    dra_buf_init(&b, sizeof c->auth_header);
    dra_buf_adds(&b, "Authorization: Basic ");
    dra_buf_add_b64(&b, pair, strlen(pair));
    rc = b.failed ? DRA_ETOOLONG : dra_str_copy(c->auth_header, sizeof c->auth_header, dra_buf_str(&b));
    dra_buf_deinit(&b);
    return rc == 0 ? 0 : ctl_error("authentication: username and password are too long");
}

static void set_tls(struct ctl *c)
{
    const struct json *insecure = json_find(c->config, "ctl.insecure");
    c->tls.verify = !c->args.insecure && !json_is_true(insecure);
    c->tls.cacert = json_text(json_find(c->config, "ctl.cacert"));
    if (c->tls.cacert == NULL) {
        c->tls.cacert = json_text(json_find(c->config, "restapi.cafile"));
    }
    c->tls.cert = json_text(json_find(c->config, "ctl.certfile"));
    c->tls.key = json_text(json_find(c->config, "ctl.keyfile"));
}

/* Log lines: stderr, WARNING, unless a variable says otherwise; the last of the three that is set wins (CLI-08). */
static void set_log(const struct conf_env *env)
{
    static const char *const captured[] = {"PATRONI_LOGLEVEL=", "PATRONI_LOG_LEVEL="};
    static const struct {
        const char *name;
        enum log_level level;
    } levels[] = {{"DEBUG", LOG_LV_DEBUG}, {"INFO", LOG_LV_INFO}, {"WARNING", LOG_LV_WARNING}, {"ERROR", LOG_LV_ERROR}, {"CRITICAL", LOG_LV_CRITICAL}};
    struct log_config log;
    const char *level = getenv("LOGLEVEL");
    struct dra_err err = {0};
    for (size_t k = 0; k < DRA_ARRAY_LEN(captured); k++) {
        for (size_t i = 0; i < conf_env_count(env); i++) {
            if (dra_str_starts(conf_env_at(env, i), captured[k])) {
                level = conf_env_at(env, i) + strlen(captured[k]);
            }
        }
    }
    log_configure_default(&log);
    log.level = LOG_LV_WARNING;
    for (size_t i = 0; i < DRA_ARRAY_LEN(levels); i++) {
        if (dra_str_eq_nocase(level, levels[i].name)) {
            log.level = levels[i].level;
        }
    }
    (void)!dra_str_copy(log.format, sizeof log.format, "%(asctime)s - %(levelname)s - %(message)s"); /* fits */
    (void)!log_configure(&log, &err); /* stderr: cannot fail */
}

int ctl_setup(struct ctl *c, struct conf_env *env)
{
    struct json *local = NULL;
    struct conf_names names;
    struct dra_span retry;
    struct dra_err err = {0};
    int rc;
    set_log(env);
    rc = load(c, env, &local);
    if (rc == 0) {
        if (conf_effective(local, NULL, &c->config, &err) != 0) {
            rc = ctl_error("%s", err.msg);
        }
    }
    json_free(local);
    if (rc == 0 && c->args.dcs_url != NULL) {
        struct dcs_url u;
        rc = parse_dcs_url(c->args.dcs_url, &u);
        rc = rc == 0 ? apply_dcs_url(&c->config, &u) : rc;
    }
    if (rc != 0) {
        return rc;
    }
    if (conf_names(c->config, &names, &err) != 0) {
        return ctl_error("%s", err.msg);
    }
    memcpy(c->scope, names.scope, sizeof c->scope);
    memcpy(c->ns, names.ns, sizeof c->ns);
    /* Dynamic settings are not known before the store was read; bootstrap.dcs is the best guess of them. */
    c->retry_timeout = dra_ms(10000);
    if (conf_parse_duration(json_find(c->config, "bootstrap.dcs.retry_timeout"), &retry) == 0 && retry.ns > 0) {
        c->retry_timeout = retry.ns > dra_ms(3000).ns ? retry : dra_ms(3000); /* an election in etcd has to fit */
    }
    rc = set_auth(c);
    set_tls(c);
    if (rc == 0 && c->args.value[CTL_OPT_GROUP] != NULL) {
        rc = ctl_error("Citus clusters are not supported");
    }
    if (rc != 0) {
        return rc;
    }
    c->loop = malloc(sizeof *c->loop);
    if (c->loop == NULL || uv_loop_init(c->loop) != 0) {
        free(c->loop);
        c->loop = NULL;
        return ctl_error("no event loop");
    }
    return http_client_open(c->loop, &c->http, &err) == 0 ? 0 : ctl_error("%s", err.msg);
}
