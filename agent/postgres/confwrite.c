/*
 * confwrite.c - put the server's configuration files on disk (HA-220..229), and keep copies of them.
 *
 * Promises: a file is replaced whole or not at all, and only if its text changed; standby.signal, when wanted, is on
 * disk before the run reports success (SAFE-04).
 * Threads: pgs_confwrite_run and the copies run in the file worker; the rest on the loop.
 */
#include "pgs_int.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define FILE_MAX (1024 * 1024)

static int main_file(struct pgs_confwrite *w, struct dra_err *err);
static int line_file(const struct pgs_confwrite *w, const char *which, struct dra_err *err);
static int auto_file(const struct pgs_confwrite *w, struct dra_err *err);
static int make_dirs(const struct pgs_confwrite *w, const struct pgs_settings *params, struct dra_err *err);
static int base_file(const struct pgs_conf *c, const struct dra_buf *old, struct dra_err *err);
static int replace(const struct pgs_conf *c, const char *path, const struct dra_buf *text, struct dra_err *err);
static int conf_path(const struct pgs_conf *c, const char *name, char *out, size_t out_size);

struct pgs_confwrite *pgs_confwrite_new(struct pgs *s, enum ha_role role, const char *conn_url)
{
    struct pgs_confwrite *w = calloc(1, sizeof *w);

    if (w == NULL) {
        return NULL;
    }
    w->conf = pgs_conf_ref(s->conf);
    w->major = s->facts.major;
    w->role = role;
    w->known = s->gucs;
    w->has_control = s->control_valid;
    w->control = s->control;
    if (conn_url != NULL && conn_url[0] != '\0' &&
        !ha_url_host_port(conn_url, w->host, sizeof w->host, &w->port)) {
        w->host[0] = '\0';
    }
    dra_buf_init(&w->warnings, 64 * 1024);
    dra_buf_init(&w->raised, 4096);
    pgs_argv_init(&w->command);
    return w;
}

void pgs_confwrite_free(struct pgs_confwrite *w)
{
    if (w != NULL) {
        pgs_conf_unref(w->conf);
        dra_buf_deinit(&w->warnings);
        dra_buf_deinit(&w->raised);
        pgs_argv_deinit(&w->command);
        free(w);
    }
}

void pgs_confwrite_tell(struct pgs *s, struct pgs_confwrite *w)
{
    const char *p = dra_buf_str(&w->warnings);

    if (dra_str_eq(s->told, p)) {
        p = ""; /* said already, and nothing is new */
    } else {
        free(s->told);
        s->told = strdup(p);
    }
    while (*p != '\0') {
        size_t n = strcspn(p, "\n");

        log_linef(LOG_LV_WARNING, "pgs.parameter", "%.*s", (int)n, p);
        p += n + (p[n] == '\n');
    }
    pgs_raised_set(s, dra_buf_str(&w->raised));
}

int pgs_confwrite_run(struct pgs_confwrite *w, struct dra_err *err)
{
    int rc = main_file(w, err);

    if (rc == 0) {
        rc = line_file(w, "pg_hba", err);
    }
    if (rc == 0) {
        rc = line_file(w, "pg_ident", err);
    }
    if (rc == 0 && w->role != HA_ROLE_PRIMARY && !w->keep_upstream) {
        rc = auto_file(w, err);
    }
    if (rc == 0) {
        rc = pgs_pgpass_write(w->conf, w->host, w->port, err);
    }
    if (rc == 0 && w->standby_signal) {
        rc = pgs_signal_write(w->conf->data_dir, err);
    }
    return rc;
}

static int main_file(struct pgs_confwrite *w, struct dra_err *err)
{
    const struct pgs_conf *c = w->conf;
    struct pgs_settings *params = calloc(1, sizeof *params);
    struct pgs_conffile f = {.conf = c,
                             .major = w->major,
                             .role = w->role,
                             .known = w->known,
                             .control = w->has_control ? &w->control : NULL};
    char path[PGS_PATH_MAX + 96];
    struct dra_buf old, text, conninfo;
    int rc;

    dra_buf_init(&old, FILE_MAX);
    dra_buf_init(&text, FILE_MAX);
    dra_buf_init(&conninfo, 4096);
    if (params == NULL) {
        rc = dra_err_set(err, DRA_ENOMEM, "parameters");
        goto out;
    }
    rc = dra_str_printf(path, sizeof path, "%s/%s.conf", c->config_dir, c->base_name);
    if (rc != 0) {
        rc = dra_err_set(err, rc, "postgresql.config_dir");
        goto out;
    }
    rc = dra_file_exists(path) ? dra_file_read(path, FILE_MAX, &old, err) : 0;
    if (rc == 0) {
        rc = base_file(c, &old, err);
    }
    if (rc == 0) {
        rc = pgs_settings_build(&f, params, &w->warnings, &w->raised, err);
    }
    if (rc != 0) {
        goto out;
    }
    if (w->host[0] != '\0') {
        struct pgs_conninfo ci = {.user = &c->replication,
                                  .dbname = c->database,
                                  .host = w->host,
                                  .port = w->port,
                                  .passfile = c->pgpass,
                                  .application_name = c->name,
                                  .krbsrvname = c->krbsrvname,
                                  .defaults = true,
                                  .major = w->major};

        pgs_conninfo_build(&ci, &conninfo);
    }
    f.primary_conninfo = dra_buf_str(&conninfo);
    if (w->keep_upstream && pgs_conffile_is_ours(dra_buf_str(&old))) {
        f.keep_recovery = pgs_conffile_recovery(dra_buf_str(&old));
    }
    pgs_conffile_build(&f, params, &text);
    pgs_command_line(c, params, &w->command);
    if (text.failed || conninfo.failed || w->command.failed) {
        rc = dra_err_set(err, DRA_ETOOLONG, "configuration of the server");
        goto out;
    }
    if (w->make_dirs) {
        rc = make_dirs(w, params, err);
    }
    if (rc == 0 && strcmp(dra_buf_str(&old), dra_buf_str(&text)) != 0) {
        rc = replace(c, path, &text, err);
    }
out:
    if (params != NULL) {
        pgs_settings_deinit(params);
        free(params);
    }
    dra_buf_deinit(&old);
    dra_buf_deinit(&text);
    dra_buf_deinit(&conninfo);
    return rc;
}

/* The original postgresql.conf becomes postgresql.base.conf, once (HA-220). */
static int base_file(const struct pgs_conf *c, const struct dra_buf *old, struct dra_err *err)
{
    char base[PGS_PATH_MAX + 96];
    char name[96];

    if (dra_str_printf(name, sizeof name, "%s.base.conf", c->base_name) != 0 ||
        conf_path(c, name, base, sizeof base) != 0) {
        return dra_err_set(err, DRA_ETOOLONG, "postgresql.config_dir");
    }
    if (c->custom_conf[0] != '\0' || dra_file_exists(base)) {
        return DRA_OK;
    }
    if (pgs_conffile_is_ours(dra_buf_str(old))) {
        struct dra_buf none;

        dra_buf_init(&none, 1);
        return replace(c, base, &none, err); /* lost: an empty one is what the include line needs */
    }
    return replace(c, base, old, err);
}

static int line_file(const struct pgs_confwrite *w, const char *which, struct dra_err *err)
{
    struct dra_buf text, old;
    char path[PGS_PATH_MAX + 96];
    char name[32];
    int rc = DRA_OK;

    dra_buf_init(&text, FILE_MAX);
    dra_buf_init(&old, FILE_MAX);
    if (pgs_linefile_build(w->conf, which, w->role, &text)) {
        if (text.failed || dra_str_printf(name, sizeof name, "%s.conf", which) != 0 ||
            conf_path(w->conf, name, path, sizeof path) != 0) {
            rc = dra_err_set(err, DRA_ETOOLONG, "%s", which);
        } else if (!dra_file_exists(path) || dra_file_read(path, FILE_MAX, &old, NULL) != 0 ||
                   strcmp(dra_buf_str(&old), dra_buf_str(&text)) != 0) {
            rc = replace(w->conf, path, &text, err);
        }
    }
    dra_buf_deinit(&text);
    dra_buf_deinit(&old);
    return rc;
}

/* HA-225: recovery settings in postgresql.auto.conf would win over ours. */
static int auto_file(const struct pgs_confwrite *w, struct dra_err *err)
{
    struct dra_buf text, old;
    char path[PGS_PATH_MAX + 96];
    int rc = DRA_OK;

    dra_buf_init(&text, FILE_MAX);
    dra_buf_init(&old, FILE_MAX);
    if (dra_str_printf(path, sizeof path, "%s/postgresql.auto.conf", w->conf->data_dir) == 0 && dra_file_exists(path)) {
        rc = dra_file_read(path, FILE_MAX, &old, err);
        if (rc == 0 && pgs_autoconf_clean(dra_buf_str(&old), &text)) {
            rc = replace(w->conf, path, &text, err);
        }
    }
    dra_buf_deinit(&text);
    dra_buf_deinit(&old);
    return rc;
}

/* CFG-78. */
static int make_dirs(const struct pgs_confwrite *w, const struct pgs_settings *params, struct dra_err *err)
{
    static const char *const names[] = {"unix_socket_directories", "stats_temp_directory"};

    for (size_t i = 0; i < DRA_ARRAY_LEN(names); i++) {
        const char *p = pgs_settings_get(params, names[i]);

        while (p != NULL && *p != '\0') {
            char dir[PGS_PATH_MAX];
            char path[PGS_PATH_MAX * 2];
            size_t n;
            int rc;

            p += strspn(p, ", ");
            n = strcspn(p, ",");
            if (n == 0 || dra_str_copy_n(dir, sizeof dir, p, n) != 0 || dir[0] == '@') {
                p += n;
                continue;
            }
            rc = dir[0] == '/' ? dra_str_copy(path, sizeof path, dir)
                               : dra_str_printf(path, sizeof path, "%s/%s", w->conf->data_dir, dir);
            if (rc == 0) {
                rc = dra_file_mkdirs(path, 0755, err);
            }
            if (rc != 0) {
                return rc;
            }
            p += n;
        }
    }
    return DRA_OK;
}

static int replace(const struct pgs_conf *c, const char *path, const struct dra_buf *text, struct dra_err *err)
{
    struct stat sb;
    unsigned mode = 0600;

    if (stat(c->data_dir, &sb) == 0 && (sb.st_mode & 0040) != 0) {
        mode = 0640; /* files follow the directory (HA-220) */
    }
    return dra_file_write_atomic(path, dra_buf_str(text), text->len, mode, err);
}

static int conf_path(const struct pgs_conf *c, const char *name, char *out, size_t out_size)
{
    return dra_str_printf(out, out_size, "%s/%s", c->config_dir, name);
}

/* ---- password file ------------------------------------------------------------------------------------- */

int pgs_pgpass_write(const struct pgs_conf *c, const char *host, int port, struct dra_err *err)
{
    struct dra_buf text, old;
    struct pgs_local local;
    char parent[PGS_PATH_MAX];
    const char *slash = strrchr(c->pgpass, '/');
    int rc = DRA_OK;

    dra_buf_init(&text, 64 * 1024);
    dra_buf_init(&old, 64 * 1024);
    pgs_local_address(c, false, &local);
    if (host[0] != '\0') {
        pgs_pgpass_add(&text, &c->replication, host, port);
        pgs_pgpass_add(&text, &c->rewind, host, port);
    }
    pgs_pgpass_add(&text, &c->superuser, local.host, c->port);
    if (text.len == 0 || c->pgpass[0] == '\0') {
        goto out; /* no passwords, no file */
    }
    if (slash != NULL && slash != c->pgpass &&
        dra_str_copy_n(parent, sizeof parent, c->pgpass, (size_t)(slash - c->pgpass)) == 0) {
        rc = dra_file_mkdirs(parent, 0700, err);
    }
    if (rc == 0 && (!dra_file_exists(c->pgpass) || dra_file_read(c->pgpass, 64 * 1024, &old, NULL) != 0 ||
                    strcmp(dra_buf_str(&old), dra_buf_str(&text)) != 0)) {
        rc = dra_file_write_atomic(c->pgpass, dra_buf_str(&text), text.len, 0600, err);
    }
out:
    if (text.p != NULL) {
        explicit_bzero(text.p, text.cap);
    }
    if (old.p != NULL) {
        explicit_bzero(old.p, old.cap);
    }
    dra_buf_deinit(&text);
    dra_buf_deinit(&old);
    return rc;
}

/* ---- copies (HA-229, INT-42) ------------------------------------------------------------------------------ */

static int names_of(const struct pgs_conf *c, char out[4][96])
{
    int rc = dra_str_printf(out[0], 96, "%s.conf", c->base_name);

    rc |= dra_str_printf(out[1], 96, "%s.base.conf", c->base_name);
    rc |= dra_str_copy(out[2], 96, "pg_hba.conf");
    rc |= dra_str_copy(out[3], 96, "pg_ident.conf");
    return rc;
}

static int copy_if(const struct pgs_conf *c, const char *from, const char *to, struct dra_err *err)
{
    struct dra_buf text, old;
    int rc;

    dra_buf_init(&text, FILE_MAX);
    dra_buf_init(&old, FILE_MAX);
    rc = dra_file_read(from, FILE_MAX, &text, err);
    if (rc == 0 && (!dra_file_exists(to) || dra_file_read(to, FILE_MAX, &old, NULL) != 0 ||
                    strcmp(dra_buf_str(&old), dra_buf_str(&text)) != 0)) {
        rc = replace(c, to, &text, err);
    }
    dra_buf_deinit(&text);
    dra_buf_deinit(&old);
    return rc;
}

int pgs_backup_files(const struct pgs_conf *c, struct dra_err *err)
{
    char names[4][96];
    int rc = names_of(c, names);

    for (int i = 0; i < 4 && rc == 0; i++) {
        char from[PGS_PATH_MAX + 128];
        char to[PGS_PATH_MAX + 128];

        if (conf_path(c, names[i], from, sizeof from) != 0 ||
            dra_str_printf(to, sizeof to, "%s/%s.backup", c->data_dir, names[i]) != 0) {
            return dra_err_set(err, DRA_ETOOLONG, "configuration files");
        }
        if (dra_file_exists(from)) {
            rc = copy_if(c, from, to, err);
        }
    }
    return rc;
}

int pgs_restore_files(const struct pgs_conf *c, struct dra_err *err)
{
    char names[4][96];
    char path[PGS_PATH_MAX + 128];
    int rc = names_of(c, names);

    for (int i = 0; i < 4 && rc == 0; i++) {
        char from[PGS_PATH_MAX + 128];
        char to[PGS_PATH_MAX + 128];

        if (conf_path(c, names[i], to, sizeof to) != 0 ||
            dra_str_printf(from, sizeof from, "%s/%s.backup", c->data_dir, names[i]) != 0) {
            return dra_err_set(err, DRA_ETOOLONG, "configuration files");
        }
        if (dra_file_exists(to)) {
            continue;
        }
        if (dra_file_exists(from)) {
            rc = copy_if(c, from, to, err);
        } else if (i == 3) { /* a missing pg_ident.conf: an empty one */
            struct dra_buf none;

            dra_buf_init(&none, 1);
            rc = replace(c, to, &none, err);
        }
    }
    if (rc == 0 && dra_str_printf(path, sizeof path, "%s/promote", c->data_dir) == 0 && unlink(path) != 0 && errno != ENOENT) {
        rc = dra_err_sys(err, errno, "cannot remove \"%s\"", path);
    }
    return rc;
}
