/*
 * conf.h - configuration: file(s) + environment + dynamic configuration, one table of keys.  Library dra_config.
 *
 * Errors name file:line, key, value and remedy.  Blocking (reads files): called at start and through SIGHUP only.
 */
#ifndef DRAGENT_CONF_H
#define DRAGENT_CONF_H

#include <dragent/base.h>
#include <dragent/io.h>
#include <dragent/model.h>
#include <dragent/text.h>

struct conf_env; /* the PATRONI_ and DRAGENT_ variables as captured at process start (CFG-10, CFG-40, CFG-100) */
/* Capture recognised variables and remove them from the process environment.  Call once, before any thread. */
DRA_MUST_USE int conf_env_capture(struct conf_env **out, struct dra_err *err);
void conf_env_free(struct conf_env *e);
/* The same from a list "NAME=value", NULL-terminated (tests). */
DRA_MUST_USE int conf_env_from(const char *const *vars, struct conf_env **out, struct dra_err *err);
/* What was captured, "NAME=value": an upgrade in place puts it back into the environment of the program it executes. */
size_t conf_env_count(const struct conf_env *e);
const char *conf_env_at(const struct conf_env *e, size_t i); /* borrowed */

/* What a reader of configuration has to say without failing: warnings with place, key, value, remedy. */
typedef void (*conf_warn_cb)(const char *text, void *arg);

/* CFG-01/02: file or directory (NULL: environment only) + environment -> the local configuration (caller frees with json_free). */
DRA_MUST_USE int conf_load_local(const char *path, const struct conf_env *env, conf_warn_cb warn, void *arg, struct json **out,
                                 struct dra_err *err);
/* Hard requirements of the daemon: name, scope, restapi.listen, postgresql.listen, data_dir, one supported DCS section ...
 * The message is one line per problem.  Warns about unknown keys (CFG-09); keys below `dragent:` are strict (CFG-100). */
DRA_MUST_USE int conf_check_local(const struct json *local, conf_warn_cb warn, void *arg, struct dra_err *err);
/* CFG-04: effective configuration from local and dynamic (either may be NULL).  Caller frees.  CFG-07: a dynamic object that cannot
 * be processed is an error, and the old one stays. */
DRA_MUST_USE int conf_effective(const struct json *local, const struct json *dynamic, struct json **out, struct dra_err *err);
/* The core's settings.  all_dragent: HA-206 (smaller timings accepted); else HA-201's minimums.  Repairs timings (CFG-08) with a warning. */
DRA_MUST_USE int conf_settings(const struct json *effective, const struct json *dynamic, bool all_dragent, conf_warn_cb warn, void *arg,
                               struct ha_settings *out, struct dra_err *err);
/* log section -> struct log_config (borrows strings of `effective`). */
DRA_MUST_USE int conf_log(const struct json *effective, conf_warn_cb warn, void *arg, struct log_config *out, struct dra_err *err);

struct conf_rest { /* restapi + ctl sections, resolved */
    char listen_host[HA_URL_MAX]; /* "" = all */
    int listen_port;
    char api_url[HA_URL_MAX];     /* http://connect_address/patroni */
    char username[256], password[256]; /* "" = no authentication */
    char ctl_username[256], ctl_password[256];
    char certfile[512], keyfile[512], cafile[512];
    bool tls;
};
DRA_MUST_USE int conf_rest(const struct json *effective, struct conf_rest *out, struct dra_err *err);

struct conf_names { /* strings every room wants */
    char name[HA_NAME_MAX];
    char scope[HA_NAME_MAX];
    char ns[HA_NAME_MAX];
    char conn_url[HA_URL_MAX];    /* DCS-21 */
    char proxy_url[HA_URL_MAX];   /* "" = none */
    char data_dir[1024];
};
DRA_MUST_USE int conf_names(const struct json *effective, struct conf_names *out, struct dra_err *err);
/* --validate-config (CFG-90..94): prints to stderr; returns 0 if valid, 1 otherwise. */
int conf_validate(const char *path, const struct conf_env *env, bool ignore_listen_port);

/* Value parsing shared with ctl and rest (REST-110..113, HA-02). */
DRA_MUST_USE int conf_parse_duration(const struct json *v, struct dra_span *out);      /* CFG durations, fractions to the ms */
DRA_MUST_USE int conf_parse_size(const char *s, int64_t *out_bytes);                   /* REST-110 */
DRA_MUST_USE int conf_parse_bool(const char *s, bool *out);                            /* REST-113 */
/* REST-112: -> epoch seconds; DRA_EPARSE; *out_has_zone tells whether a zone was given. */
DRA_MUST_USE int conf_parse_timestamp(const char *s, int64_t *out_epoch_s, bool *out_has_zone);

#endif
