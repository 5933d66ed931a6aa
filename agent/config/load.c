/*
 * load.c - where the local configuration comes from (CFG-01, CFG-02) and its older forms (CFG-05).
 *
 * Blocking: reads files.
 */
#include <dragent/conf.h>

#include "env.h"
#include "keys.h"

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define CONF_FILE_MAX (4 * 1024 * 1024)
#define CONF_DIR_FILES_MAX 256

/* ---- files ---------------------------------------------------------------------------------------------- */

static int load_text(const char *name, const char *s, size_t len, struct json **out, struct dra_err *err)
{
    struct json *doc = NULL;
    int rc = yaml_acc_load(name, s, len, &doc, err);
    if (rc != 0) {
        return rc;
    }
    if (json_type_of(doc) == JSON_NULL || doc == NULL) { /* an empty file */
        json_free(doc);
        doc = json_new_object();
        if (doc == NULL) {
            return dra_err_set(err, DRA_ENOMEM, "%s: out of memory", name);
        }
    }
    if (json_type_of(doc) != JSON_OBJECT) {
        json_free(doc);
        return dra_err_set(err, DRA_ETYPE, "invalid config file %s: want \"key: value\" lines at the top", name);
    }
    *out = doc;
    return DRA_OK;
}

static int load_file(const char *path, struct json **out, struct dra_err *err)
{
    struct dra_buf b;
    int rc;
    dra_buf_init(&b, CONF_FILE_MAX);
    rc = dra_file_read(path, CONF_FILE_MAX, &b, err);
    if (rc == 0) {
        rc = load_text(path, dra_buf_str(&b), b.len, out, err);
    }
    dra_buf_deinit(&b);
    return rc;
}

static bool is_yaml_name(const char *name)
{
    size_t n = strlen(name);
    return (n > 4 && dra_str_eq(name + n - 4, ".yml")) || (n > 5 && dra_str_eq(name + n - 5, ".yaml"));
}

static int by_bytes(const void *a, const void *b)
{
    const char *const *x = a, *const *y = b;
    return strcmp(*x, *y);
}

static int merge_file(const char *dir, const char *name, struct json **into, struct dra_err *err)
{
    char path[1024];
    struct stat st;
    struct json *doc = NULL;
    int rc = dra_str_printf(path, sizeof path, "%s/%s", dir, name);
    if (rc != 0) {
        return dra_err_set(err, rc, "%s/%s: name too long", dir, name);
    }
    if (stat(path, &st) != 0 || !S_ISREG(st.st_mode)) {
        return DRA_OK;
    }
    rc = load_file(path, &doc, err);
    if (rc == 0) {
        rc = json_merge_patch(into, doc, NULL);
    }
    json_free(doc);
    return rc;
}

static int load_dir(const char *path, struct json **out, struct dra_err *err)
{
    char *names[CONF_DIR_FILES_MAX];
    size_t n = 0;
    int rc = DRA_OK;
    struct dirent *e;
    DIR *d = opendir(path);
    if (d == NULL) {
        return dra_err_sys(err, errno, "invalid config path %s", path);
    }
    while ((e = readdir(d)) != NULL && rc == 0) {
        if (!is_yaml_name(e->d_name)) {
            continue;
        }
        names[n] = n < CONF_DIR_FILES_MAX - 1 ? strdup(e->d_name) : NULL;
        if (names[n] == NULL) {
            rc = dra_err_set(err, DRA_ETOOLONG, "%s: more than %d files", path, CONF_DIR_FILES_MAX - 1);
        } else {
            n++;
        }
    }
    (void)closedir(d); /* nothing was written */
    qsort(names, n, sizeof names[0], by_bytes);
    *out = rc == 0 ? json_new_object() : NULL;
    for (size_t i = 0; i < n; i++) {
        if (rc == 0) {
            rc = merge_file(path, names[i], out, err);
        }
        free(names[i]);
    }
    if (rc != 0) {
        json_free(*out);
        *out = NULL;
    }
    return rc;
}

static int load_path(const char *path, struct json **out, struct dra_err *err)
{
    struct stat st;
    if (stat(path, &st) != 0) {
        return dra_err_sys(err, errno, "invalid config path %s", path);
    }
    if (S_ISDIR(st.st_mode)) {
        return load_dir(path, out, err);
    }
    return S_ISREG(st.st_mode) ? load_file(path, out, err)
                               : dra_err_set(err, DRA_EINVAL, "invalid config path %s: neither a file nor a directory", path);
}

/* ---- older forms ------------------------------------------------------------------------------------------ */

/* Add `value` (owned) to the patch at section.key. */
static int patch_in(struct json **patch, const char *section, const char *key, struct json *value)
{
    DRA_CLEANUP(json_freep) struct json *whole = json_new_object();
    DRA_CLEANUP(json_freep) struct json *obj = json_new_object();
    int rc = whole == NULL || obj == NULL ? DRA_ENOMEM : DRA_OK;
    if (rc != 0) {
        json_free(value);
        return rc;
    }
    rc = json_set(obj, key, value);
    if (rc == 0) {
        rc = json_set(whole, section, DRA_TAKE(obj));
    }
    return rc == 0 ? json_merge_patch(patch, whole, NULL) : rc;
}

/* Nulls inside a patch delete only what is there already: hence two patches, one to add and one to delete. */
struct older {
    struct json *add, *del;
    int rc;
};

static void older_move(struct older *o, const struct json *local, const char *section, const char *from, const char *to)
{
    const struct json *s = json_get(local, section);
    const struct json *v = json_get(s, from);
    if (o->rc != 0 || v == NULL) {
        return;
    }
    if (json_get(s, to) == NULL) {
        o->rc = patch_in(&o->add, section, to, json_clone(v));
    }
    if (o->rc == 0) {
        o->rc = patch_in(&o->del, section, from, json_new_null());
    }
}

static struct json *auth_of(const struct json *pg, const struct json *superuser)
{
    struct json *a = json_new_object();
    static const char *const users[] = {"replication", "superuser"};
    int rc = a == NULL ? DRA_ENOMEM : DRA_OK;
    for (size_t i = 0; i < DRA_ARRAY_LEN(users) && rc == 0; i++) {
        const struct json *u = json_get(pg, users[i]);
        if (u == NULL && i == 1) {
            u = superuser;
        }
        if (u != NULL) {
            rc = json_set(a, users[i], json_clone(u));
        }
    }
    if (rc != 0) {
        json_free(a);
        return NULL;
    }
    return a;
}

static void older_auth(struct older *o, const struct json *pg)
{
    const struct json *rewind = json_get(pg, "pg_rewind");
    bool had = json_get(pg, "authentication") != NULL;
    if (o->rc != 0 || pg == NULL || json_type_of(pg) != JSON_OBJECT) {
        return;
    }
    if (!had && (json_get(pg, "replication") != NULL || json_get(pg, "superuser") != NULL || rewind != NULL)) {
        o->rc = patch_in(&o->add, "postgresql", "authentication", auth_of(pg, rewind));
        if (o->rc == 0 && rewind != NULL) {
            o->rc = patch_in(&o->add, "postgresql", "use_pg_rewind", json_new_bool(true));
        }
    } else if (had && rewind != NULL && json_find(pg, "authentication.superuser") == NULL) {
        struct json *a = json_new_object();
        o->rc = a == NULL ? DRA_ENOMEM : json_set(a, "superuser", json_clone(rewind));
        if (o->rc == 0) {
            o->rc = patch_in(&o->add, "postgresql", "authentication", DRA_TAKE(a));
        }
        json_free(a);
    }
}

static int older_forms(struct json **local)
{
    struct older o = {.add = json_new_object(), .del = json_new_object()};
    const struct json *pg = json_get(*local, "postgresql");
    if (o.add == NULL || o.del == NULL) {
        o.rc = DRA_ENOMEM;
    }
    if (o.rc == 0 && json_get(*local, "name") == NULL && json_get(pg, "name") != NULL) {
        o.rc = json_set(o.add, "name", json_clone(json_get(pg, "name")));
    }
    older_move(&o, *local, "postgresql", "create_replica_method", "create_replica_methods");
    older_move(&o, *local, "etcd3", "discovery_srv", "srv");
    older_move(&o, *local, "etcd3", "srv_domain", "srv");
    older_auth(&o, pg);
    if (o.rc == 0) {
        o.rc = json_merge_patch(local, o.add, NULL);
    }
    if (o.rc == 0) {
        o.rc = json_merge_patch(local, o.del, NULL);
    }
    json_free(o.add);
    json_free(o.del);
    return o.rc;
}

/* ---- all sources ---------------------------------------------------------------------------------------------- */

int conf_load_local(const char *path, const struct conf_env *env, conf_warn_cb warn, void *arg, struct json **out,
                    struct dra_err *err)
{
    DRA_CLEANUP(json_freep) struct json *doc = NULL;
    DRA_CLEANUP(json_freep) struct json *overlay = NULL;
    const char *whole = conf_env_whole(env);
    int rc;
    if (path != NULL) {
        rc = load_path(path, &doc, err);
    } else if (whole != NULL) {
        rc = load_text("PATRONI_CONFIGURATION", whole, strlen(whole), &doc, err);
    } else {
        doc = json_new_object();
        rc = doc == NULL ? dra_err_set(err, DRA_ENOMEM, "out of memory") : DRA_OK;
    }
    if (rc == 0 && (path != NULL || whole == NULL)) {
        rc = conf_env_overlay(env, warn, arg, &overlay, err);
        if (rc == 0 && json_size(overlay) > 0) {
            rc = json_merge_patch(&doc, overlay, NULL);
        }
    }
    if (rc == 0) {
        rc = older_forms(&doc);
        if (rc != 0) {
            (void)dra_err_set(err, rc, "out of memory");
        }
    }
    if (rc == 0 && json_size(doc) == 0) {
        rc = dra_err_set(err, DRA_EINVAL, "Config is empty.");
    }
    if (rc == 0) {
        *out = DRA_TAKE(doc);
    }
    return rc;
}
