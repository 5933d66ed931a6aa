/*
 * check.c - walks a configuration along the table: unknown keys, wrong values, what a daemon cannot do without.
 *
 * A value that Patroni would run with never stops us (CFG-43): it is left out, its default holds, and one warning names
 * the place, the key, the value and the remedy.  Keys below `dragent:` are ours, and strict (CFG-100).
 */
#include <dragent/conf.h>

#include "keys.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct walk {
    conf_warn_cb warn;
    void *arg;
    struct dra_buf *fatal;         /* problems that stop the daemon, one line each */
    const struct json *local;
};

/* ---- sentences --------------------------------------------------------------------------------------- */

void conf_say(struct dra_buf *b, const struct json *at, const char *key, const char *value, const char *what, const char *remedy)
{
    const char *file = json_file(at);
    if (file != NULL) {
        dra_buf_addf(b, "%s:%d: ", file, json_line(at));
    }
    dra_buf_adds(b, key);
    if (value != NULL && *value != '\0') {
        dra_buf_addf(b, ": %s", conf_is_secret(key) ? "(secret)" : value);
    }
    dra_buf_addf(b, ": %s. %s.", what, remedy);
}

int conf_fail(struct dra_err *err, const struct json *at, const char *key, const char *what, const char *remedy)
{
    char value[128] = "";
    struct dra_buf b;
    (void)conf_text(at, value, sizeof value); /* no scalar: no value shown */
    dra_buf_init(&b, DRA_ERR_MSG_MAX * 2);
    conf_say(&b, at, key, value, what, remedy);
    (void)dra_err_set(err, DRA_EINVAL, "%s", dra_buf_str(&b));
    dra_buf_deinit(&b);
    return DRA_EINVAL;
}

static void say_warning(const struct walk *w, const struct json *at, const char *key, const char *what, const char *remedy)
{
    char value[128] = "";
    struct dra_buf b;
    if (w->warn == NULL) {
        return;
    }
    (void)conf_text(at, value, sizeof value);
    dra_buf_init(&b, 4096);
    conf_say(&b, at, key, value, what, remedy);
    w->warn(dra_buf_str(&b), w->arg);
    dra_buf_deinit(&b);
}

static void say_fatal(const struct walk *w, const struct json *at, const char *key, const char *what, const char *remedy)
{
    char value[128] = "";
    (void)conf_text(at, value, sizeof value);
    if (w->fatal->len > 0) {
        dra_buf_adds(w->fatal, "\n");
    }
    conf_say(w->fatal, at, key, value, what, remedy);
}

/* ---- one value against its row ------------------------------------------------------------------------- */

static bool word_known(const char *words, const char *v)
{
    while (*words != '\0') {
        size_t n = strcspn(words, " ");
        char word[32];
        if (dra_str_copy_n(word, sizeof word, words, n) == 0 && dra_str_eq_nocase(word, v)) {
            return true;
        }
        words += n + strspn(words + n, " ");
    }
    return false;
}

static int why_range(const struct conf_key *k, char *why, size_t n)
{
    if (k->max == INT64_MAX || k->max >= INT64_C(1000000000)) {
        conf_fmt(why, n, "want at least %lld", (long long)k->min);
    } else {
        conf_fmt(why, n, "want %lld to %lld", (long long)k->min, (long long)k->max);
    }
    return DRA_ERANGE;
}

static int check_scalar(const struct conf_key *k, const struct json *v, char *why, size_t n)
{
    char text[CONF_VALUE_MAX];
    struct dra_span span;
    int64_t number;
    bool yes;
    const char *want = conf_type_to_str(k->type);
    bool scalar = conf_text(v, text, sizeof text);
    if (k->type == CONF_T_INT && conf_int(v, &number) == 0) {
        bool limited = k->min != 0 || k->max != 0;
        return limited && (number < k->min || number > k->max) ? why_range(k, why, n) : DRA_OK;
    }
    if (k->type == CONF_T_BOOL && conf_bool(v, &yes) == 0) {
        return DRA_OK;
    }
    if (k->type == CONF_T_DURATION && dra_str_eq(k->path, "dragent.handover_after") && scalar &&
        (dra_str_eq_nocase(text, "off") || dra_str_eq_nocase(text, "false") || dra_str_eq_nocase(text, "no"))) {
        return DRA_OK;
    }
    if (k->type == CONF_T_DURATION && conf_parse_duration(v, &span) == 0) {
        return span.ns < 0 ? why_range(k, why, n) : DRA_OK;
    }
    if (k->type == CONF_T_SIZE && scalar && conf_parse_size(text, &number) == 0) {
        return DRA_OK;
    }
    if (k->type == CONF_T_STR && scalar) {
        return DRA_OK;
    }
    if (k->type == CONF_T_ADDR && scalar) {
        char host[CONF_VALUE_MAX];
        int port;
        if (conf_split_addr(text, 5432, host, sizeof host, &port) == 0) {
            return DRA_OK;
        }
        want = "host:port";
    }
    if (k->type == CONF_T_WORD) {
        /* off and false are one word in YAML */
        if (scalar && (word_known(k->words, text) ||
                       (json_type_of(v) == JSON_BOOL && !json_is_true(v) && word_known(k->words, "off")))) {
            return DRA_OK;
        }
        conf_fmt(why, n, "want one of: %s", k->words);
        return DRA_ERANGE;
    }
    if (k->type == CONF_T_DURATION) {
        want = "a duration like 10, 0.25 or 250ms";
    } else if (k->type == CONF_T_SIZE) {
        want = "a size like 512kB";
    }
    conf_fmt(why, n, "want %s", want);
    return DRA_ETYPE;
}

int conf_key_check(const struct conf_key *k, const struct json *v, char *why, size_t n)
{
    enum json_type t = json_type_of(v);
    bool ok = true;
    if (t == JSON_NULL) {
        return DRA_OK; /* counts as absent */
    }
    switch (k->type) {
    case CONF_T_ANY:
        return DRA_OK;
    case CONF_T_FREE:
    case CONF_T_MAP:
        ok = t == JSON_OBJECT;
        break;
    case CONF_T_LIST:
        ok = t == JSON_ARRAY;
        break;
    case CONF_T_LISTMAP:
        ok = t == JSON_ARRAY || t == JSON_OBJECT;
        break;
    case CONF_T_STR:
    case CONF_T_ADDR:
    case CONF_T_WORD:
    case CONF_T_INT:
    case CONF_T_BOOL:
    case CONF_T_SIZE:
    case CONF_T_DURATION:
        return check_scalar(k, v, why, n);
    case CONF_T_NONE:
    case CONF_TYPE_COUNT:
        return DRA_EINVAL;
    }
    if (!ok) {
        conf_fmt(why, n, "want %s", conf_type_to_str(k->type));
    }
    return ok ? DRA_OK : DRA_ETYPE;
}

/* ---- the walk --------------------------------------------------------------------------------------------- */

static bool list_names(const struct json *list, const char *name)
{
    for (const struct json *i = json_first(list); i != NULL; i = json_next(i)) {
        if (dra_str_eq(json_text(i), name)) {
            return true;
        }
    }
    return dra_str_eq(json_text(list), name);
}

/* A custom method section (postgresql.NAME, bootstrap.NAME) has free keys. */
static bool is_method(const struct json *local, const char *path, const struct json *v)
{
    const char *name = strchr(path, '.');
    if (name == NULL || strchr(name + 1, '.') != NULL || json_type_of(v) != JSON_OBJECT) {
        return false;
    }
    if (dra_str_starts(path, "bootstrap.")) {
        return list_names(json_find(local, "bootstrap.method"), name + 1) || json_get(v, "command") != NULL;
    }
    if (dra_str_starts(path, "postgresql.")) {
        return list_names(json_find(local, "postgresql.create_replica_methods"), name + 1) || json_get(v, "command") != NULL;
    }
    return false;
}

static void walk_unknown(const struct walk *w, const char *path, const struct json *v)
{
    if (dra_str_starts(path, "dragent.") && strchr(path + 8, '.') == NULL) {
        say_fatal(w, v, path, "is not a key of the section dragent", "Take it out, or look for a spelling mistake");
        return;
    }
    if (!is_method(w->local, path, v)) {
        say_warning(w, v, path, "is not a known key and is ignored", "Take it out, or look for a spelling mistake");
    }
}

static void walk_known(const struct walk *w, const char *path, const struct conf_key *k, const struct json *v)
{
    char why[128], what[256];
    if (conf_key_check(k, v, why, sizeof why) == 0) {
        return;
    }
    if (dra_str_starts(path, "dragent.")) {
        say_fatal(w, v, path, why, "Correct it, or take it out for the default");
        return;
    }
    if (k->def != NULL) {
        conf_fmt(what, sizeof what, "%s; going on with the default %s", why, k->def);
    } else {
        conf_fmt(what, sizeof what, "%s; going on as if it were absent", why);
    }
    say_warning(w, v, path, what, "Correct it");
}

/* Depth is that of the table's paths: below free sections nothing is looked at. */
static void walk_object(const struct walk *w, const char *prefix, const struct json *obj)
{
    for (const struct json *v = json_first(obj); v != NULL; v = json_next(v)) {
        char path[CONF_PATH_MAX];
        const struct conf_key *k;
        const char *name = json_name(v);
        bool fits = dra_str_printf(path, sizeof path, "%s%s%s", prefix, *prefix == '\0' ? "" : ".", name) == 0;
        k = fits ? conf_key_find(path) : NULL;
        if (k != NULL && k->type != CONF_T_MAP) {
            walk_known(w, path, k, v);
        } else if (fits && conf_key_has_below(path) && json_type_of(v) == JSON_OBJECT) {
            walk_object(w, path, v);
        } else if (fits && conf_key_has_below(path)) {
            if (json_type_of(v) != JSON_NULL) {
                say_warning(w, v, path, "want a dictionary; going on as if it were absent", "Correct it");
            }
        } else if (fits) {
            walk_unknown(w, path, v);
        }
    }
}

/* ---- what the daemon cannot do without ------------------------------------------------------------------------ */

static bool has_text(const struct json *local, const char *path)
{
    char text[CONF_VALUE_MAX];
    return conf_text(json_find(local, path), text, sizeof text) && text[0] != '\0';
}

static void check_required(const struct walk *w, const struct json *local)
{
    static const struct {
        const char *path, *remedy;
    } required[] = {
        {"name", "Give this node a name of its own"},
        {"scope", "Give the cluster's name, the same on all nodes"},
        {"restapi.listen", "Give host:port, for instance 10.0.0.1:8008"},
        {"postgresql.listen", "Give host:port, for instance 10.0.0.1:5432"},
        {"postgresql.data_dir", "Give the data directory of PostgreSQL"},
    };
    for (size_t i = 0; i < DRA_ARRAY_LEN(required); i++) {
        if (!has_text(local, required[i].path)) {
            say_fatal(w, NULL, required[i].path, "is not defined", required[i].remedy);
        }
    }
    if (json_type_of(json_find(local, "postgresql.authentication.replication")) != JSON_OBJECT) {
        say_fatal(w, NULL, "postgresql.authentication.replication", "is not defined", "Give username and password of the replication user");
    }
}

static void check_names(const struct walk *w, const struct json *local)
{
    const struct json *name = json_get(local, "name");
    char text[CONF_VALUE_MAX];
    if (!conf_text(name, text, sizeof text)) {
        return;
    }
    if (dra_str_eq(text, "__patroni_strict_sync_replica_placeholder__")) {
        say_fatal(w, name, "name", "is reserved", "Choose another name");
    } else if (strpbrk(text, "/,") != NULL) {
        say_fatal(w, name, "name", "must contain neither \"/\" nor \",\"", "Choose another name");
    } else if (strlen(text) >= HA_NAME_MAX) {
        say_fatal(w, name, "name", "is longer than 127 bytes", "Choose a shorter name");
    }
}

static void check_store(const struct walk *w, const struct json *local)
{
    static const char *const stores[] = {"consul", "etcd", "exhibitor", "kubernetes", "raft", "zookeeper"};
    const struct json *etcd3 = json_get(local, "etcd3"), *other = NULL;
    const char *other_name = NULL;
    int n = json_type_of(etcd3) == JSON_OBJECT ? 1 : 0;
    static const char *const places[] = {"host", "hosts", "srv", "url", "proxy"};
    bool placed = false;
    for (size_t i = 0; i < DRA_ARRAY_LEN(stores); i++) {
        const struct json *s = json_get(local, stores[i]);
        if (json_type_of(s) == JSON_OBJECT) {
            n++;
            other = s;
            other_name = stores[i];
        }
    }
    if (n == 0) {
        say_fatal(w, NULL, "etcd3", "is not defined, and there is no other place to meet the other nodes",
                  "Add a section etcd3 with host or hosts");
        return;
    }
    if (n > 1) {
        char what[128];
        conf_fmt(what, sizeof what, "more than one store is configured (%s%s)", etcd3 != NULL ? "etcd3 and " : "several, among them ",
                             other_name);
        say_fatal(w, other, other_name, what,
                  "Keep the section etcd3 alone; look for leftovers in the environment, too (PATRONI_ETCD_...)");
        return;
    }
    if (etcd3 == NULL) {
        say_fatal(w, other, other_name, "this store is not supported",
                  dra_str_eq(other_name, "etcd") ? "Rename the section from etcd to etcd3: the keys inside are the same, the server must be etcd 3.4 or newer"
                                                 : "Use a section etcd3");
        return;
    }
    for (size_t i = 0; i < DRA_ARRAY_LEN(places); i++) {
        const struct json *p = json_get(etcd3, places[i]);
        placed = placed || (p != NULL && json_type_of(p) != JSON_NULL);
    }
    if (!placed) {
        say_fatal(w, etcd3, "etcd3", "says nowhere where etcd is", "Add host, hosts or url");
    }
}

static void check_pairs(const struct walk *w, const struct json *local)
{
    static const char *const sections[] = {"restapi", "ctl"};
    for (size_t i = 0; i < DRA_ARRAY_LEN(sections); i++) {
        char path[64];
        const struct json *a;
        conf_fmt(path, sizeof path, "%s.authentication", sections[i]);
        a = json_find(local, path);
        if (json_type_of(a) == JSON_OBJECT && json_size(a) > 0 &&
            (!has_text(a, "username") || !has_text(a, "password"))) {
            say_fatal(w, a, path, "username and password belong together", "Give both, or neither");
        }
    }
    if (json_type_of(json_find(local, "citus.group")) == JSON_NUMBER) {
        say_fatal(w, json_find(local, "citus.group"), "citus.group", "Citus is not supported", "Take the section citus out");
    }
}

/* HA-174: the boolean wins over a priority that says the opposite. */
static void check_tag(const struct walk *w, const struct json *tags, const char *flag, const char *priority)
{
    int64_t p;
    bool f;
    char text[256];
    if (conf_bool(json_get(tags, flag), &f) != 0 || conf_int(json_get(tags, priority), &p) != 0 || f == (p <= 0)) {
        return;
    }
    conf_fmt(text, sizeof text, "Conflicting configuration between %s: %s and %s: %lld. Defaulting to %s: %s", flag,
                         f ? "True" : "False", priority, (long long)p, flag, f ? "True" : "False");
    if (w->warn != NULL) {
        w->warn(text, w->arg);
    }
}

int conf_check_local(const struct json *local, conf_warn_cb warn, void *arg, struct dra_err *err)
{
    struct dra_buf fatal;
    struct walk w = {.warn = warn, .arg = arg, .fatal = &fatal, .local = local};
    const struct json *tags = json_get(local, "tags");
    int rc = DRA_OK;
    dra_buf_init(&fatal, 65536);
    if (json_size(local) == 0) {
        dra_buf_adds(&fatal, "Config is empty.");
    } else {
        walk_object(&w, "", local);
        check_required(&w, local);
        check_names(&w, local);
        check_store(&w, local);
        check_pairs(&w, local);
        check_tag(&w, tags, "nofailover", "failover_priority");
        check_tag(&w, tags, "nosync", "sync_priority");
    }
    if (fatal.len > 0) {
        char msg[DRA_ERR_MSG_MAX];
        if (fatal.len >= sizeof msg && warn != NULL) {
            warn(dra_buf_str(&fatal), arg); /* all of it: the error itself has room for the first lines only */
        }
        dra_str_clip(msg, sizeof msg, dra_buf_str(&fatal));
        rc = dra_err_set(err, DRA_EINVAL, "%s", msg);
    }
    dra_buf_deinit(&fatal);
    return rc;
}

/* ---- typed copy -------------------------------------------------------------------------------------------------- */

static struct json *normal_scalar(const struct conf_key *k, const struct json *v)
{
    char text[CONF_VALUE_MAX];
    int64_t number;
    bool yes;
    if (k->type == CONF_T_INT && conf_int(v, &number) == 0) {
        return json_new_i64(number);
    }
    if (k->type == CONF_T_BOOL && conf_bool(v, &yes) == 0) {
        return json_new_bool(yes);
    }
    if (k->type == CONF_T_WORD && json_type_of(v) == JSON_BOOL) {
        return json_new_str("off"); /* conf_key_check() has let only that pass */
    }
    if ((k->type == CONF_T_DURATION || k->type == CONF_T_SIZE) && json_type_of(v) == JSON_NUMBER) {
        return json_clone(v);
    }
    if (json_type_of(v) != JSON_STRING && conf_text(v, text, sizeof text)) {
        return json_new_str(text);
    }
    return json_clone(v);
}

/* *out stays NULL when the value is to be left out. */
static int normal_value(const char *path, const struct json *v, struct json **out)
{
    const struct conf_key *k = conf_key_find(path);
    char why[128];
    *out = NULL;
    if (k != NULL && k->type != CONF_T_MAP) {
        bool scalar_type = k->type >= CONF_T_STR && k->type <= CONF_T_DURATION;
        if (conf_key_is_dynamic(path) && strchr(path, '.') == NULL) {
            *out = json_clone(v); /* judged where it is used */
        } else if (conf_key_check(k, v, why, sizeof why) != 0 || (scalar_type && json_type_of(v) == JSON_NULL)) {
            return DRA_OK;
        } else {
            *out = scalar_type ? normal_scalar(k, v) : json_clone(v);
        }
        return *out == NULL ? DRA_ENOMEM : DRA_OK;
    }
    if (conf_key_has_below(path) && !dra_str_eq(path, "bootstrap.dcs")) {
        if (json_type_of(v) == JSON_OBJECT) {
            *out = conf_normalise(v, path);
        } else if (dra_str_eq(path, "bootstrap")) {
            *out = json_new_object(); /* an empty section still allows to bootstrap (CFG-30) */
        } else {
            return DRA_OK;
        }
    } else {
        *out = json_clone(v);
    }
    return *out == NULL ? DRA_ENOMEM : DRA_OK;
}

struct json *conf_normalise(const struct json *obj, const char *prefix)
{
    struct json *out = json_new_object();
    for (const struct json *v = json_first(obj); v != NULL && out != NULL; v = json_next(v)) {
        char path[CONF_PATH_MAX];
        struct json *copy;
        if (dra_str_printf(path, sizeof path, "%s%s%s", prefix, *prefix == '\0' ? "" : ".", json_name(v)) != 0) {
            continue;
        }
        if (normal_value(path, v, &copy) != 0 || (copy != NULL && json_set(out, json_name(v), copy) != 0)) {
            json_free(out);
            return NULL;
        }
    }
    return out;
}
