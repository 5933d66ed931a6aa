/*
 * validate.c - `--validate-config` (CFG-90 .. CFG-94): one line per problem on stderr, as Patroni prints them, and below each
 * a second line with place and remedy.
 *
 * Looks at the machine it runs on: ports, programs, data directory.  Blocking, with a deadline on each probe.
 */
#include <dragent/conf.h>

#include "env.h"
#include "keys.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#define CONF_PROBE_MS 3000

struct check {
    const struct json *local;
    bool ignore_listen_port;
    int problems;
};

/* ---- output ------------------------------------------------------------------------------------------------ */

static void print_value(const struct json *v)
{
    char text[CONF_VALUE_MAX];
    char *dump;
    if (v == NULL || json_type_of(v) == JSON_NULL) {
        return;
    }
    if (json_type_of(v) == JSON_BOOL) {
        (void)fputs(json_is_true(v) ? "True" : "False", stderr);
    } else if (conf_text(v, text, sizeof text)) {
        (void)fputs(text, stderr);
    } else if ((dump = json_print_spaced(v)) != NULL) {
        (void)fputs(dump, stderr);
        free(dump);
    }
}

static void problem(struct check *c, const struct json *at, const char *path, const char *message, const char *remedy)
{
    c->problems++;
    (void)fprintf(stderr, "%s ", path);
    if (conf_is_secret(path)) {
        (void)fputs(at == NULL ? "" : "(secret)", stderr);
    } else {
        print_value(at);
    }
    (void)fprintf(stderr, " %s\n", message);
    if (json_file(at) != NULL) {
        (void)fprintf(stderr, "  %s:%d: %s\n", json_file(at), json_line(at), remedy);
    } else {
        (void)fprintf(stderr, "  %s\n", remedy);
    }
}

static void failed(struct check *c, const struct json *at, const char *path, const char *detail, const char *remedy)
{
    char message[512];
    conf_fmt(message, sizeof message, "didn't pass validation: %s", detail);
    problem(c, at, path, message, remedy);
}

/* ---- shape --------------------------------------------------------------------------------------------------- */

static bool word_ok(const struct conf_key *k, const char *v)
{
    bool strict = dra_str_eq(k->path, "log.level") || dra_str_eq(k->path, "restapi.verify_client");
    for (const char *p = k->words; *p != '\0'; p += strcspn(p, " "), p += strspn(p, " ")) {
        char word[32];
        if (dra_str_copy_n(word, sizeof word, p, strcspn(p, " ")) == 0 &&
            (strict ? dra_str_eq(word, v) : dra_str_eq_nocase(word, v))) {
            return true;
        }
    }
    return false;
}

/* NULL if fine, else the message. */
static const char *shape_of(const struct conf_key *k, const struct json *v)
{
    enum json_type t = json_type_of(v);
    char why[128];
    int64_t n;
    switch (k->type) {
    case CONF_T_STR:
    case CONF_T_ADDR:
        return t == JSON_STRING ? NULL : "is not a string";
    case CONF_T_WORD:
        if (t != JSON_STRING && !(t == JSON_BOOL && word_ok(k, "off"))) {
            return "is not a string";
        }
        return t != JSON_STRING || word_ok(k, json_text(v)) ? NULL : "didn't pass validation: Wrong value";
    case CONF_T_INT:
        if (conf_int(v, &n) != 0 || t == JSON_BOOL) {
            return "is not an integer";
        }
        return conf_key_check(k, v, why, sizeof why) == 0 ? NULL : "didn't pass validation: Wrong value";
    case CONF_T_BOOL:
        return t == JSON_BOOL ? NULL : "is not a boolean";
    case CONF_T_DURATION:
        return conf_key_check(k, v, why, sizeof why) == 0 ? NULL
               : t == JSON_NUMBER                         ? "didn't pass validation: Wrong value"
                                                          : "is not an integer";
    case CONF_T_SIZE:
        return conf_key_check(k, v, why, sizeof why) == 0 ? NULL : "didn't pass validation: Wrong value";
    case CONF_T_LIST:
        return t == JSON_ARRAY ? NULL : "is not an array";
    case CONF_T_LISTMAP:
        return t == JSON_ARRAY || t == JSON_OBJECT ? NULL : "is not a dictionary|a list";
    case CONF_T_FREE:
    case CONF_T_MAP:
        return t == JSON_OBJECT ? NULL : "is not a dictionary";
    case CONF_T_ANY:
    case CONF_T_NONE:
    case CONF_TYPE_COUNT:
        return NULL;
    }
    return NULL;
}

static void check_rows(struct check *c, const struct json *root, const char *prefix, const struct conf_key *rows, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        char path[CONF_PATH_MAX];
        const struct json *v = json_find(root, rows[i].path);
        const char *message;
        bool store = rows[i].type == CONF_T_FREE && strchr(rows[i].path, '.') == NULL && !dra_str_eq(rows[i].path, "tags");
        if (v == NULL || json_type_of(v) == JSON_NULL || (store && json_type_of(v) == JSON_OBJECT)) {
            continue;
        }
        message = shape_of(&rows[i], v);
        if (message != NULL && dra_str_printf(path, sizeof path, "%s%s", prefix, rows[i].path) == 0) {
            problem(c, v, path, message, rows[i].help);
        }
    }
}

static void check_required(struct check *c)
{
    static const char *const required[] = {
        "name", "scope", "restapi.listen", "restapi.connect_address", "postgresql.listen", "postgresql.connect_address",
        "postgresql.data_dir", "postgresql.authentication.replication.username", "postgresql.authentication.superuser.username"};
    static const char *const stores[] = {"consul", "etcd", "etcd3", "exhibitor", "kubernetes", "raft", "zookeeper"};
    static const char *const places[] = {"host", "hosts", "srv", "srv_suffix", "url", "proxy"};
    static const char *const etcds[] = {"etcd", "etcd3"};
    bool any = false;
    for (size_t i = 0; i < DRA_ARRAY_LEN(required); i++) {
        const struct json *v = json_find(c->local, required[i]);
        const struct conf_key *k = conf_key_find(required[i]);
        if (v == NULL || json_type_of(v) == JSON_NULL) {
            problem(c, NULL, required[i], "is not defined.", k == NULL ? "Add it." : k->help);
        }
    }
    for (size_t i = 0; i < DRA_ARRAY_LEN(stores); i++) {
        any = any || json_get(c->local, stores[i]) != NULL;
    }
    for (size_t i = 0; i < DRA_ARRAY_LEN(stores) && !any; i++) {
        problem(c, NULL, stores[i], "is not defined.", "Add a section etcd3 with host or hosts.");
    }
    for (size_t i = 0; i < DRA_ARRAY_LEN(etcds); i++) {
        const struct json *s = json_get(c->local, etcds[i]);
        bool placed = s == NULL;
        for (size_t j = 0; j < DRA_ARRAY_LEN(places); j++) {
            placed = placed || json_get(s, places[j]) != NULL;
        }
        for (size_t j = 0; j < DRA_ARRAY_LEN(places) && !placed; j++) {
            char path[64];
            conf_fmt(path, sizeof path, "%s.%s", etcds[i], places[j]);
            problem(c, NULL, path, "is not defined.", "One of them is needed.");
        }
    }
    if (json_get(c->local, "bootstrap") != NULL && json_find(c->local, "bootstrap.dcs") == NULL) {
        problem(c, NULL, "bootstrap.dcs", "is not defined.", "Add it; it may be empty.");
    }
}

/* CFG-94; the timings by HA-206: before there is any member there is none of Patroni's either. */
static void check_dcs(struct check *c, const struct json *dcs)
{
    static const struct {
        const char *key;
        int64_t min_ms;
    } least[] = {{"ttl", 2000}, {"loop_wait", 1}, {"retry_timeout", 1}};
    struct dra_span s;
    bool yes;
    const struct json *mode = json_get(dcs, "synchronous_mode");
    const struct json *sc = json_get(dcs, "standby_cluster");
    check_rows(c, dcs, "bootstrap.dcs.", conf_dynamic_keys, conf_dynamic_key_count());
    for (size_t i = 0; i < DRA_ARRAY_LEN(least); i++) {
        const struct json *v = json_get(dcs, least[i].key);
        char path[64];
        conf_fmt(path, sizeof path, "bootstrap.dcs.%s", least[i].key);
        if (v != NULL && conf_parse_duration(v, &s) == 0 && dra_span_ms(s) < least[i].min_ms) {
            failed(c, v, path, "Wrong value", "Give more time.");
        }
    }
    if (mode != NULL && json_type_of(mode) != JSON_NULL && conf_bool(mode, &yes) != 0 && !dra_str_eq_nocase(json_text(mode), "quorum")) {
        failed(c, mode, "bootstrap.dcs.synchronous_mode", "invalid value for synchronous_mode", "Write true, false or quorum.");
    }
    if (json_type_of(sc) == JSON_OBJECT && json_get(sc, "host") == NULL && json_get(sc, "port") == NULL &&
        json_get(sc, "restore_command") == NULL) {
        problem(c, NULL, "bootstrap.dcs.standby_cluster.host", "is not defined.", "One of host, port, restore_command is needed.");
    }
}

static void check_tags(struct check *c)
{
    static const char *const pairs[][2] = {{"nofailover", "failover_priority"}, {"nosync", "sync_priority"}};
    const struct json *tags = json_get(c->local, "tags");
    for (size_t i = 0; i < DRA_ARRAY_LEN(pairs); i++) {
        char message[128];
        int64_t n;
        const struct json *p = json_get(tags, pairs[i][1]);
        if (json_get(tags, pairs[i][0]) != NULL && p != NULL) {
            conf_fmt(message, sizeof message, "Multiple of ('%s', '%s') provided", pairs[i][0], pairs[i][1]);
            problem(c, NULL, "tags", message, "Keep one of the two.");
        } else if (p != NULL && (conf_int(p, &n) != 0 || n < 0)) {
            char path[64];
            conf_fmt(path, sizeof path, "tags.%s", pairs[i][1]);
            failed(c, p, path, "Wrong value", "Write a number, 0 or more.");
        }
    }
}

/* ---- the machine ------------------------------------------------------------------------------------------------- */

/* Whether something accepts connections there. */
static bool can_connect(const char *host, int port)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *list = NULL;
    char service[8];
    bool ok = false;
    if (dra_str_printf(service, sizeof service, "%d", port) != 0 || getaddrinfo(host, service, &hints, &list) != 0) {
        return false;
    }
    for (struct addrinfo *a = list; a != NULL && !ok; a = a->ai_next) {
        int fd = socket(a->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        int soerr = 0;
        socklen_t len = sizeof soerr;
        struct pollfd p = {.fd = fd, .events = POLLOUT};
        if (fd < 0) {
            continue;
        }
        if (connect(fd, a->ai_addr, a->ai_addrlen) == 0) {
            ok = true;
        } else if (errno == EINPROGRESS && poll(&p, 1, CONF_PROBE_MS) == 1 &&
                   getsockopt(fd, SOL_SOCKET, SO_ERROR, &soerr, &len) == 0) {
            ok = soerr == 0;
        }
        (void)close(fd);
    }
    freeaddrinfo(list);
    return ok;
}

/* The next part between separators; false at the end. */
static bool next_part(const char **ps, const char *separators, char *out, size_t size)
{
    size_t n;
    *ps += strspn(*ps, separators);
    n = strcspn(*ps, separators);
    if (n == 0 || dra_str_copy_n(out, size, *ps, n) != 0) {
        return false;
    }
    *ps += n;
    return true;
}

static void check_listen(struct check *c, const char *path, int default_port)
{
    const struct json *v = json_find(c->local, path);
    char host[CONF_VALUE_MAX], h[CONF_VALUE_MAX];
    const char *p = host;
    int port;
    if (json_text(v) == NULL) {
        return;
    }
    if (conf_split_addr(json_text(v), default_port, host, sizeof host, &port) != 0) {
        failed(c, v, path, "contains a wrong value", "Write host:port.");
        return;
    }
    if (strchr(host, ',') != NULL && strchr(host, '*') != NULL) {
        failed(c, v, path, "expecting '*' alone", "Write *:port.");
        return;
    }
    while (!c->ignore_listen_port && next_part(&p, ",", h, sizeof h)) {
        bool all = dra_str_eq(h, "*") || dra_str_eq(h, "0.0.0.0") || dra_str_eq(h, "::");
        if (can_connect(all ? "127.0.0.1" : h, port)) {
            char detail[64];
            conf_fmt(detail, sizeof detail, "Port %d is already in use.", port);
            failed(c, v, path, detail, "Stop what listens there, or add --ignore-listen-port.");
            return;
        }
    }
}

static void check_connect(struct check *c, const char *path)
{
    static const char *const bad[] = {"127.0.0.1", "0.0.0.0", "*", "::1", "localhost"};
    const struct json *v = json_find(c->local, path);
    char host[CONF_VALUE_MAX];
    int port;
    if (json_text(v) == NULL) {
        return;
    }
    if (conf_split_addr(json_text(v), 5432, host, sizeof host, &port) != 0) {
        failed(c, v, path, "contains a wrong value", "Write host:port.");
        return;
    }
    for (size_t i = 0; i < DRA_ARRAY_LEN(bad); i++) {
        if (dra_str_eq(host, bad[i])) {
            failed(c, v, path, "must not contain \"127.0.0.1\", \"0.0.0.0\", \"*\", \"::1\", \"localhost\"",
                   "Write an address by which the other nodes reach this one.");
            return;
        }
    }
}

static void check_reachable(struct check *c, const struct json *at, const char *path, const char *text)
{
    char host[CONF_VALUE_MAX], detail[CONF_VALUE_MAX];
    int port;
    if (conf_split_addr(text, 2379, host, sizeof host, &port) != 0) {
        failed(c, at, path, "contains a wrong value", "Write host:port.");
    } else if (!can_connect(host, port) && dra_str_printf(detail, sizeof detail, "%s:%d is not reachable", host, port) == 0) {
        failed(c, at, path, detail, "Start etcd, or correct the address.");
    }
}

static void check_etcd(struct check *c, const char *section)
{
    const struct json *s = json_get(c->local, section);
    const struct json *hosts = json_get(s, "hosts");
    const char *list = json_text(hosts);
    char path[64], part[CONF_VALUE_MAX];
    size_t i = 0;
    if (json_text(json_get(s, "host")) != NULL) {
        conf_fmt(path, sizeof path, "%s.host", section);
        check_reachable(c, json_get(s, "host"), path, json_text(json_get(s, "host")));
    }
    for (const struct json *h = json_first(hosts); h != NULL && json_type_of(hosts) == JSON_ARRAY; h = json_next(h), i++) {
        conf_fmt(path, sizeof path, "%s.hosts.%zu", section, i);
        if (json_text(h) == NULL) {
            problem(c, h, path, "is not a string", "Write host:port.");
        } else {
            check_reachable(c, h, path, json_text(h));
        }
    }
    conf_fmt(path, sizeof path, "%s.hosts", section);
    while (list != NULL && next_part(&list, ", ", part, sizeof part)) {
        check_reachable(c, hosts, path, part);
    }
}

static bool is_dir(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

static bool dir_has_entries(const char *path)
{
    DIR *d = opendir(path);
    struct dirent *e;
    bool any = false;
    while (d != NULL && !any && (e = readdir(d)) != NULL) {
        any = !dra_str_eq(e->d_name, ".") && !dra_str_eq(e->d_name, "..");
    }
    if (d != NULL) {
        (void)closedir(d);
    }
    return any;
}

static void check_data_dir(struct check *c)
{
    static const char path[] = "postgresql.data_dir";
    const struct json *v = json_find(c->local, path);
    const char *dir = json_text(v);
    char file[1280];
    if (dir == NULL) {
        return;
    }
    if (*dir == '\0') {
        failed(c, v, path, "is an empty string", "Give the data directory.");
    } else if (dra_file_exists(dir) && !is_dir(dir)) {
        failed(c, v, path, "is not a directory", "Give the data directory.");
    } else if (is_dir(dir) && dir_has_entries(dir)) {
        if (dra_str_printf(file, sizeof file, "%s/global/pg_control", dir) == 0 && !dra_file_exists(file)) {
            failed(c, v, path, "doesn't look like a valid data directory", "Empty it, or give another one.");
        } else if (dra_str_printf(file, sizeof file, "%s/pg_wal", dir) == 0 && !is_dir(file)) {
            failed(c, v, path, "data dir for the cluster is not empty, but doesn't contain \"pg_wal\" directory",
                   "Empty it, or give another one.");
        }
    }
}

static bool tool_in(const char *dirs, const char *tool)
{
    while (*dirs != '\0') {
        size_t n = strcspn(dirs, ":");
        char file[1280];
        if (dra_str_printf(file, sizeof file, "%.*s/%s", (int)n, dirs, tool) == 0 && access(file, X_OK) == 0) {
            return true;
        }
        dirs += n + (dirs[n] == ':' ? 1 : 0);
    }
    return false;
}

static void check_tools(struct check *c)
{
    static const char *const tools[] = {"pg_ctl", "initdb", "pg_controldata", "pg_basebackup", "postgres", "pg_isready"};
    static const char path[] = "postgresql.bin_dir";
    const struct json *v = json_find(c->local, path);
    const char *dir = json_text(v) == NULL ? "" : json_text(v);
    const char *where = *dir != '\0' ? dir : getenv("PATH");
    char detail[CONF_VALUE_MAX];
    if (*dir != '\0' && !is_dir(dir)) {
        conf_fmt(detail, sizeof detail, dra_file_exists(dir) ? "'%s' is not a directory." : "Directory '%s' does not exist.", dir);
        failed(c, v, path, detail, "Give the directory of PostgreSQL's programs.");
        return;
    }
    for (size_t i = 0; i < DRA_ARRAY_LEN(tools) && where != NULL; i++) {
        char key[64];
        const char *name;
        conf_fmt(key, sizeof key, "postgresql.bin_name.%s", tools[i]);
        name = json_text(json_find(c->local, key));
        name = name == NULL ? tools[i] : name;
        if (!tool_in(where, name)) {
            conf_fmt(detail, sizeof detail, "does not contain '%s' in '%s'", name, where);
            failed(c, v, path, detail, "Install PostgreSQL's server package, or correct bin_dir.");
        }
    }
}

int conf_validate(const char *path, const struct conf_env *env, bool ignore_listen_port)
{
    DRA_CLEANUP(json_freep) struct json *local = NULL;
    struct check c = {.ignore_listen_port = ignore_listen_port};
    struct dra_err err = {0};
    const struct json *name;
    if (conf_load_local(path, env, NULL, NULL, &local, &err) != 0) {
        (void)fprintf(stderr, "%s\n", err.msg);
        return 1;
    }
    c.local = local;
    check_required(&c);
    check_rows(&c, local, "", conf_local_keys, conf_local_key_count());
    if (json_type_of(json_find(local, "bootstrap.dcs")) == JSON_OBJECT) {
        check_dcs(&c, json_find(local, "bootstrap.dcs"));
    }
    check_tags(&c);
    name = json_get(local, "name");
    if (dra_str_eq(json_text(name), "__patroni_strict_sync_replica_placeholder__")) {
        failed(&c, name, "name", "Node 'name' can't be set to '__patroni_strict_sync_replica_placeholder__'", "Choose another name.");
    }
    check_listen(&c, "restapi.listen", 8008);
    check_listen(&c, "postgresql.listen", 5432);
    check_connect(&c, "restapi.connect_address");
    check_connect(&c, "postgresql.connect_address");
    check_etcd(&c, "etcd");
    check_etcd(&c, "etcd3");
    check_data_dir(&c);
    check_tools(&c);
    return c.problems == 0 ? 0 : 1;
}
