/*
 * dirs.c - the data directory as a whole: is it empty, set it aside, remove it, and the marker beside it.
 *
 * Promises: nothing is ever removed through a link that does not lie in the directory itself (pg_wal, tablespaces);
 * the marker is durable before the job that it announces begins.
 * Threads: file worker (blocks).
 */
#include "pgs_int.h"
#include "proc.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define MARKER "untrusted"
#define LINKS_MAX 64

typedef int (*link_fn)(const char *link, const char *target, const void *arg, struct dra_err *err);

static int links_each(const char *dir, link_fn fn, const void *arg, struct dra_err *err);
static int dir_sync(const char *path, struct dra_err *err);
static int dir_sync_parent(const char *path, struct dra_err *err);

bool pgs_dir_is_empty(const char *path)
{
    char control[PGS_PATH_MAX + 32];
    DIR *d;
    const struct dirent *e;
    bool empty = true;

    if (dra_str_printf(control, sizeof control, "%s/global/pg_control", path) != 0 || access(control, F_OK) == 0) {
        return false;
    }
    d = opendir(path);
    if (d == NULL) {
        return errno == ENOENT;
    }
    while (empty && (e = readdir(d)) != NULL) {
        empty = e->d_name[0] == '.' || strcmp(e->d_name, "lost+found") == 0;
    }
    closedir(d);
    return empty;
}

/* ---- marker ------------------------------------------------------------------------------------------ */

static int marker_path(const char *state_dir, char *out, size_t out_size)
{
    return dra_str_printf(out, out_size, "%s/" MARKER, state_dir);
}

int pgs_marker_write(const char *state_dir, const char *what, struct dra_err *err)
{
    char path[PGS_PATH_MAX + 32];
    char text[256];
    int rc;

    if (marker_path(state_dir, path, sizeof path) != 0 || dra_str_printf(text, sizeof text, "%s\n", what) != 0) {
        return dra_err_set(err, DRA_ETOOLONG, "marker");
    }
    rc = dra_file_mkdirs(state_dir, 0700, err);
    return rc != 0 ? rc : dra_file_write_atomic(path, text, strlen(text), 0600, err);
}

int pgs_marker_begin(const char *state_dir, const char *data_dir, const char *what, struct dra_err *err)
{
    int n = pgs_kill_tools(data_dir);

    if (n > 0) {
        log_linef(LOG_LV_WARNING, "pgs.tools", "ended %d tools that an earlier agent had left at work on the data directory", n);
    }
    return pgs_marker_write(state_dir, what, err);
}

int pgs_marker_remove(const char *state_dir, struct dra_err *err)
{
    char path[PGS_PATH_MAX + 32];

    if (marker_path(state_dir, path, sizeof path) != 0) {
        return dra_err_set(err, DRA_ETOOLONG, "marker");
    }
    if (unlink(path) != 0 && errno != ENOENT) {
        return dra_err_sys(err, errno, "cannot remove \"%s\"", path);
    }
    return dir_sync(state_dir, err);
}

bool pgs_marker_exists(const char *state_dir)
{
    char path[PGS_PATH_MAX + 32];

    return marker_path(state_dir, path, sizeof path) == 0 && access(path, F_OK) == 0;
}

/* ---- aside, away ------------------------------------------------------------------------------------------ */

static int aside_link(const char *link, const char *target, const void *arg, struct dra_err *err)
{
    char to[PGS_PATH_MAX * 2];

    if (dra_str_printf(to, sizeof to, "%s%s", target, (const char *)arg) != 0) {
        return dra_err_set(err, DRA_ETOOLONG, "\"%s\"", target);
    }
    if (dra_file_exists(to) && pgs_dir_remove(to, err) != 0) {
        return err != NULL ? err->code : DRA_ESYS;
    }
    if (rename(target, to) != 0) {
        return errno == ENOENT ? DRA_OK : dra_err_sys(err, errno, "cannot rename \"%s\"", target);
    }
    if (unlink(link) != 0 || symlink(to, link) != 0) {
        return dra_err_sys(err, errno, "cannot replace link \"%s\"", link);
    }
    return DRA_OK;
}

int pgs_dir_set_aside(const char *data_dir, const char *new_suffix, struct dra_err *err)
{
    char to[PGS_PATH_MAX + 64];

    if (dra_str_printf(to, sizeof to, "%s%s", data_dir, new_suffix) != 0) {
        return dra_err_set(err, DRA_ETOOLONG, "data directory");
    }
    if (rename(data_dir, to) != 0) {
        return dra_err_sys(err, errno, "cannot rename \"%s\" to \"%s\"", data_dir, to);
    }
    if (links_each(to, aside_link, new_suffix, err) != 0) {
        return err != NULL ? err->code : DRA_ESYS;
    }
    return dir_sync_parent(data_dir, err);
}

/* arg: what the target's name has to end with, or NULL for any. */
static int remove_link_target(const char *link, const char *target, const void *arg, struct dra_err *err)
{
    const char *suffix = arg;
    size_t n = strlen(target);

    (void)link;
    if (suffix != NULL && (n <= strlen(suffix) || strcmp(target + n - strlen(suffix), suffix) != 0)) {
        return DRA_OK; /* it was not set aside: somebody else may live there */
    }
    return dra_file_remove_tree(target, err);
}

/* What lies in it goes, it stays: it is a mount point, or its parent is not ours to write. */
static int dir_empty(const char *path, struct dra_err *err)
{
    DIR *d = opendir(path);
    const struct dirent *e;
    int rc = DRA_OK;

    if (d == NULL) {
        return dra_err_sys(err, errno, "cannot open \"%s\"", path);
    }
    while (rc == DRA_OK && (e = readdir(d)) != NULL) {
        char child[PGS_PATH_MAX + 300];

        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0 || strcmp(e->d_name, "lost+found") == 0) {
            continue;
        }
        rc = dra_str_printf(child, sizeof child, "%s/%s", path, e->d_name);
        if (rc == DRA_OK) {
            rc = dra_file_remove_tree(child, err);
        }
    }
    closedir(d);
    return rc;
}

static int dir_remove(const char *path, const char *suffix, struct dra_err *err)
{
    struct stat sb;

    if (lstat(path, &sb) != 0) {
        return errno == ENOENT ? DRA_OK : dra_err_sys(err, errno, "cannot look at \"%s\"", path);
    }
    if (S_ISDIR(sb.st_mode) || S_ISLNK(sb.st_mode)) {
        int rc = links_each(path, remove_link_target, suffix, err);

        if (rc == 0) {
            rc = dir_empty(path, err);
        }
        if (rc != 0) {
            return rc;
        }
        if (S_ISLNK(sb.st_mode)) {
            return DRA_OK; /* the link stays: who made it wants the data there */
        }
        if (rmdir(path) != 0 && errno != EBUSY && errno != EACCES && errno != EPERM && errno != ENOTEMPTY && errno != EROFS) {
            return dra_err_sys(err, errno, "cannot remove \"%s\"", path);
        }
        return DRA_OK;
    }
    return unlink(path) == 0 ? DRA_OK : dra_err_sys(err, errno, "cannot remove \"%s\"", path);
}

int pgs_dir_remove(const char *path, struct dra_err *err)
{
    return dir_remove(path, NULL, err);
}

int pgs_dir_remove_aside(const char *path, const char *suffix, struct dra_err *err)
{
    return dir_remove(path, suffix, err);
}

/* Each link of the directory that leads outside: pg_wal and the tablespaces. */
static int links_each(const char *dir, link_fn fn, const void *arg, struct dra_err *err)
{
    char link[PGS_PATH_MAX + 300];
    char target[PGS_PATH_MAX];
    char names[LINKS_MAX][24];
    int n = 0;
    ssize_t len;
    DIR *d;
    const struct dirent *e;

    if (dra_str_printf(link, sizeof link, "%s/pg_tblspc", dir) == 0 && (d = opendir(link)) != NULL) {
        while (n < LINKS_MAX && (e = readdir(d)) != NULL) {
            if (e->d_name[0] != '.' && dra_str_copy(names[n], sizeof names[n], e->d_name) == 0) {
                n++;
            }
        }
        closedir(d);
    }
    for (int i = -1; i < n; i++) {
        int rc = i < 0 ? dra_str_printf(link, sizeof link, "%s/pg_wal", dir)
                       : dra_str_printf(link, sizeof link, "%s/pg_tblspc/%s", dir, names[i]);

        if (rc != 0) {
            return dra_err_set(err, DRA_ETOOLONG, "\"%s\"", dir);
        }
        len = readlink(link, target, sizeof target - 1);
        if (len <= 0) {
            continue; /* no link */
        }
        target[len] = '\0';
        if (target[0] == '/') {
            rc = fn(link, target, arg, err);
            if (rc != 0) {
                return rc;
            }
        }
    }
    return DRA_OK;
}

static int dir_sync(const char *path, struct dra_err *err)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int rc = DRA_OK;

    if (fd < 0) {
        return dra_err_sys(err, errno, "cannot open \"%s\"", path);
    }
    if (fsync(fd) != 0 && errno != EINVAL) {
        rc = dra_err_sys(err, errno, "cannot sync \"%s\"", path);
    }
    close(fd);
    return rc;
}

static int dir_sync_parent(const char *path, struct dra_err *err)
{
    char parent[PGS_PATH_MAX];
    const char *slash = strrchr(path, '/');
    size_t n = slash == NULL ? 0 : (size_t)(slash - path);

    if (dra_str_copy_n(parent, sizeof parent, path, n == 0 ? 1 : n) != 0) {
        return dra_err_set(err, DRA_ETOOLONG, "\"%s\"", path);
    }
    return dir_sync(parent, err);
}

/* ---- signal files --------------------------------------------------------------------------------------------- */

int pgs_signal_write(const char *data_dir, struct dra_err *err)
{
    char path[PGS_PATH_MAX + 32];
    int fd;

    if (dra_str_printf(path, sizeof path, "%s/recovery.signal", data_dir) != 0) {
        return dra_err_set(err, DRA_ETOOLONG, "data directory");
    }
    if (unlink(path) != 0 && errno != ENOENT) {
        return dra_err_sys(err, errno, "cannot remove \"%s\"", path);
    }
    if (dra_str_printf(path, sizeof path, "%s/standby.signal", data_dir) != 0) {
        return dra_err_set(err, DRA_ETOOLONG, "data directory");
    }
    fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0 || fsync(fd) != 0) {
        int e = errno;

        if (fd >= 0) {
            close(fd);
        }
        return dra_err_sys(err, e, "cannot write \"%s\"", path);
    }
    close(fd);
    return dir_sync(data_dir, err);
}

int pgs_signal_remove(const char *data_dir, struct dra_err *err)
{
    static const char *const names[] = {"standby.signal", "recovery.signal"};

    for (size_t i = 0; i < DRA_ARRAY_LEN(names); i++) {
        char path[PGS_PATH_MAX + 32];

        if (dra_str_printf(path, sizeof path, "%s/%s", data_dir, names[i]) != 0) {
            return dra_err_set(err, DRA_ETOOLONG, "data directory");
        }
        if (unlink(path) != 0 && errno != ENOENT) {
            return dra_err_sys(err, errno, "cannot remove \"%s\"", path);
        }
    }
    return dir_sync(data_dir, err);
}
