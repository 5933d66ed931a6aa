/*
 * cmd_edit.c - edit-config (CLI-72): change the dynamic configuration by compare-and-swap, after showing what changes.
 */
#include "ctl.h"

#include "diff.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define EDIT_MAX (4 * 1024 * 1024)

/* ---- -s and -p ----------------------------------------------------------------------------------------------- */

/* A copy of `obj` with `path` set to `value` (NULL: removed, and parents that become empty with it).  NULL: nothing is left. */
static struct json *with_path(const struct json *obj, const char *path, const char *prefix, const struct json *value)
{
    /* below postgresql.parameters the rest of the path is one key: parameters may have dots */
    size_t n = dra_str_eq(prefix, "postgresql.parameters.") ? strlen(path) : strcspn(path, ".");
    struct json *out = json_type_of(obj) == JSON_OBJECT ? json_clone(obj) : json_new_object();
    char key[256], below[512];
    struct json *v;
    int rc;
    if (out == NULL || dra_str_copy_n(key, sizeof key, path, n) != 0 || dra_str_printf(below, sizeof below, "%s%s.", prefix, key) != 0) {
        json_free(out);
        return NULL;
    }
    v = path[n] == '.' ? with_path(json_get(obj, key), path + n + 1, below, value) : value == NULL ? NULL : json_clone(value);
    rc = DRA_OK;
    if (v == NULL) {
        json_del(out, key);
    } else {
        rc = json_set(out, key, v);
    }
    if (rc != 0 || (json_size(out) == 0 && *prefix != '\0')) {
        json_free(out);
        return NULL;
    }
    return out;
}

static int apply_set(struct json **config, const char *setting, bool pg)
{
    const char *eq = strchr(setting, '=');
    char path[512];
    struct json *value = NULL, *changed;
    struct dra_err err = {0};
    bool removes;
    if (eq == NULL || eq == setting || dra_str_printf(path, sizeof path, "%s%.*s", pg ? "postgresql.parameters." : "", (int)(eq - setting), setting) != 0) {
        return ctl_error("Invalid parameter setting %s", setting);
    }
    if (eq[1] != '\0' && yaml_acc_load(path, eq + 1, strlen(eq + 1), &value, &err) != 0) {
        return ctl_error("%s", err.msg);
    }
    removes = value == NULL || json_type_of(value) == JSON_NULL || (json_text(value) != NULL && json_text(value)[0] == '\0');
    changed = with_path(*config, path, "", removes ? NULL : value);
    json_free(value);
    if (changed == NULL) {
        return ctl_error("Invalid parameter setting %s", setting);
    }
    json_free(*config);
    *config = changed;
    return 0;
}

/* ---- files, editor --------------------------------------------------------------------------------------------- */

static int read_stdin(struct dra_buf *b)
{
    char chunk[4096];
    size_t n;
    while ((n = fread(chunk, 1, sizeof chunk, stdin)) > 0) {
        dra_buf_add(b, chunk, n);
    }
    return b->failed ? ctl_error("the input is too large") : 0;
}

static int load_object(const char *name, const struct dra_buf *b, struct json **out)
{
    struct dra_err err = {0};
    if (yaml_acc_load(name, dra_buf_str(b), b->len, out, &err) != 0) {
        return ctl_error("%s", err.msg);
    }
    if (json_type_of(*out) != JSON_OBJECT) {
        json_free(*out);
        *out = NULL;
        return ctl_error("%s: want \"key: value\" lines", name);
    }
    return 0;
}

static int load_source(const char *file, struct json **out)
{
    struct dra_buf b;
    struct dra_err err = {0};
    int rc = 0;
    dra_buf_init(&b, EDIT_MAX);
    if (dra_str_eq(file, "-")) {
        rc = read_stdin(&b);
    } else if (dra_file_read(file, EDIT_MAX, &b, &err) != 0) {
        rc = ctl_error("%s", err.msg);
    }
    rc = rc == 0 ? load_object(dra_str_eq(file, "-") ? "stdin" : file, &b, out) : rc;
    dra_buf_deinit(&b);
    return rc;
}

static int run_editor(const char *file)
{
    const char *env = getenv("EDITOR");
    const char *const tries[] = {env != NULL && *env != '\0' ? env : "editor", env != NULL && *env != '\0' ? NULL : "vi"};
    for (size_t i = 0; i < DRA_ARRAY_LEN(tries) && tries[i] != NULL; i++) {
        int status = 0;
        pid_t pid = fork();
        if (pid == 0) {
            (void)execlp(tries[i], tries[i], file, (char *)NULL);
            _exit(127);
        }
        if (pid < 0) {
            return ctl_error("cannot start %s", tries[i]);
        }
        while (waitpid(pid, &status, 0) < 0 && errno == EINTR) { /* a person takes the time it takes */
        }
        if (WIFEXITED(status) && WEXITSTATUS(status) == 127) {
            continue;
        }
        if (WIFEXITED(status) && WEXITSTATUS(status) == 0) {
            return 0;
        }
        return ctl_error("Editor exited with return code %d", WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
    }
    return ctl_error("EDITOR environment variable is not set. editor or vi are not available");
}

static int edit(const char *scope, struct json **config)
{
    char file[256], name[HA_NAME_MAX];
    struct dra_buf b;
    struct json *changed = NULL;
    int fd, rc = 0;
    dra_str_clip(name, sizeof name, scope);
    for (char *p = name; *p != '\0'; p++) {
        *p = *p == '/' ? '_' : *p;
    }
    (void)snprintf(file, sizeof file, "/tmp/%s-config-XXXXXX.yaml", name);
    fd = mkstemps(file, 5);
    if (fd < 0) {
        return ctl_error("cannot make a temporary file");
    }
    dra_buf_init(&b, EDIT_MAX);
    yaml_acc_dump(*config, &b);
    if (write(fd, dra_buf_str(&b), b.len) != (ssize_t)b.len) {
        rc = ctl_error("cannot write %s", file);
    }
    (void)close(fd);
    rc = rc == 0 ? run_editor(file) : rc;
    rc = rc == 0 ? load_source(file, &changed) : rc;
    (void)unlink(file);
    dra_buf_deinit(&b);
    if (rc == 0) {
        json_free(*config);
        *config = changed;
    }
    return rc;
}

/* ---- the command --------------------------------------------------------------------------------------------------- */

static int change(struct ctl *c, const char *scope, struct json **config)
{
    const char *replace = c->args.value[CTL_OPT_REPLACE], *apply = c->args.value[CTL_OPT_APPLY];
    struct json *source = NULL;
    int rc = 0;
    if (replace != NULL) {
        rc = load_source(replace, &source);
        if (rc == 0) {
            json_free(*config);
            *config = DRA_TAKE(source);
        }
    }
    if (rc == 0 && apply != NULL) {
        rc = load_source(apply, &source);
        if (rc == 0 && json_merge_patch(config, source, NULL) != 0) {
            rc = ctl_error("out of memory");
        }
        json_free(source);
    }
    for (int pass = 0; pass < 2; pass++) {
        for (int i = 0; i < c->args.n_sets && rc == 0; i++) {
            if ((c->args.sets[i].opt == CTL_OPT_PG) == (pass == 1)) {
                rc = apply_set(config, c->args.sets[i].value, pass == 1);
            }
        }
    }
    if (rc == 0 && replace == NULL && apply == NULL && c->args.n_sets == 0) {
        rc = edit(scope, config);
    }
    return rc;
}

static int write_config(struct ctl *c, const struct dcs_snapshot *s, const struct json *config)
{
    char *value = json_print(config);
    struct dcs_answer a;
    struct dcs_txn t = {.n_cmps = 1, .n_success = 1};
    int rc;
    if (value == NULL) {
        return ctl_error("out of memory");
    }
    t.cmps[0] = (struct dcs_cmp){.target = DCS_CMP_MOD_REV, .key = "config", .number = s->c.config_rev};
    t.success[0] = (struct dcs_op){.kind = DCS_OP_PUT, .key = "config", .value = value};
    rc = ctl_txn(c, &t, &a);
    free(value);
    if (rc != 0) {
        return rc;
    }
    if (!a.succeeded) {
        return ctl_error("Config modification aborted due to concurrent changes");
    }
    (void)puts("Configuration changed");
    return 0;
}

static bool reads_stdin(const struct ctl *c)
{
    return dra_str_eq(c->args.value[CTL_OPT_APPLY], "-") || dra_str_eq(c->args.value[CTL_OPT_REPLACE], "-");
}

static int confirm_and_write(struct ctl *c, const struct dcs_snapshot *s, const struct json *config)
{
    bool force = c->args.value[CTL_OPT_FORCE] != NULL, quiet = c->args.value[CTL_OPT_QUIET] != NULL;
    struct dra_buf before, after, diff;
    int rc = 0;
    if (json_equal_text(s->config, config)) {
        if (!quiet) {
            (void)puts("Not changed");
        }
        return 0;
    }
    dra_buf_init(&before, EDIT_MAX);
    dra_buf_init(&after, EDIT_MAX);
    dra_buf_init(&diff, 4 * EDIT_MAX);
    yaml_acc_dump(s->config, &before);
    yaml_acc_dump(config, &after);
    if (!quiet) {
        ctl_diff(dra_buf_str(&before), dra_buf_str(&after), &diff);
        ctl_print(&diff);
    }
    dra_buf_deinit(&before);
    dra_buf_deinit(&after);
    dra_buf_deinit(&diff);
    if (!force && reads_stdin(c)) {
        (void)puts("Use --force option to apply changes");
        return 0;
    }
    if (force || ctl_confirm("Apply these changes?")) {
        rc = write_config(c, s, config);
    }
    return rc;
}

int ctl_cmd_edit_config(struct ctl *c)
{
    const char *scope = ctl_scope(c);
    struct dcs_snapshot *s = NULL;
    struct json *config = NULL;
    int rc = scope == NULL ? CTL_EXIT_USAGE : ctl_cluster(c, scope, &s);
    if (rc == 0 && (s->c.config_rev == 0 || s->config == NULL)) {
        rc = ctl_error("The config key does not exist in the cluster %s", scope);
    }
    if (rc == 0 && (config = json_clone(s->config)) == NULL) {
        rc = ctl_error("out of memory");
    }
    rc = rc == 0 ? change(c, scope, &config) : rc;
    rc = rc == 0 ? confirm_and_write(c, s, config) : rc;
    json_free(config);
    dcs_snapshot_unref(s);
    return rc;
}
