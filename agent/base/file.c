/*
 * file.c - whole small files, directories, trees.  These block: call them from the file worker, or before the loop.
 */
#include <dragent/io.h>

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define TREE_DEPTH_MAX 64
#define PATH_ROOM 4096

int dra_file_read(const char *path, size_t max, struct dra_buf *out, struct dra_err *err)
{
    char block[8192];
    size_t total = 0;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    int rc = DRA_OK;

    if (fd < 0) {
        int sys = errno;

        (void)dra_err_sys(err, sys, "cannot open %s", path);
        if (sys == ENOENT) {
            if (err != NULL) {
                err->code = DRA_ENOTFOUND;
            }
            return DRA_ENOTFOUND;
        }
        return DRA_ESYS;
    }
    while (rc == DRA_OK) {
        ssize_t n = read(fd, block, sizeof block);

        if (n == 0) {
            break;
        }
        if (n < 0) {
            if (errno != EINTR) {
                rc = dra_err_sys(err, errno, "cannot read %s", path);
            }
            continue;
        }
        total += (size_t)n;
        if (total > max) {
            rc = dra_err_set(err, DRA_ETOOLONG, "%s is larger than %zu bytes", path, max);
            break;
        }
        dra_buf_add(out, block, (size_t)n);
        if (out->failed) {
            rc = dra_err_set(err, DRA_ETOOLONG, "%s does not fit", path);
        }
    }
    (void)close(fd);
    return rc;
}

static int write_all(int fd, const char *p, size_t n)
{
    while (n > 0) {
        ssize_t done = write(fd, p, n);

        if (done < 0 && errno == EINTR) {
            continue;
        }
        if (done <= 0) {
            return done < 0 ? errno : EIO;
        }
        p += done;
        n -= (size_t)done;
    }
    return 0;
}

/* The directory of a path: "." if it names none. */
static int dir_of(const char *path, char *out, size_t out_size)
{
    const char *slash = strrchr(path, '/');

    if (slash == NULL) {
        return dra_str_copy(out, out_size, ".");
    }
    return dra_str_copy_n(out, out_size, path, slash == path ? 1 : (size_t)(slash - path));
}

static int sync_dir(const char *dir)
{
    int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int sys = 0;

    if (fd < 0) {
        return errno;
    }
    if (fsync(fd) != 0) {
        sys = errno;
    }
    (void)close(fd);
    return sys;
}

int dra_file_write_atomic(const char *path, const void *p, size_t n, unsigned mode, struct dra_err *err)
{
    char dir[PATH_ROOM];
    char temp[PATH_ROOM];
    int sys = 0;
    int fd;

    if (dir_of(path, dir, sizeof dir) != DRA_OK ||
        dra_str_printf(temp, sizeof temp, "%s.XXXXXX", path) != DRA_OK) {
        return dra_err_set(err, DRA_ETOOLONG, "path too long: %s", path);
    }
    fd = mkostemp(temp, O_CLOEXEC);
    if (fd < 0) {
        return dra_err_sys(err, errno, "cannot create %s", temp);
    }
    if (fchmod(fd, (mode_t)mode) != 0) {
        sys = errno;
    }
    if (sys == 0) {
        sys = write_all(fd, p, n);
    }
    if (sys == 0 && fsync(fd) != 0) {
        sys = errno;
    }
    if (close(fd) != 0 && sys == 0) {
        sys = errno;
    }
    if (sys == 0 && rename(temp, path) != 0) {
        sys = errno;
    }
    if (sys != 0) {
        (void)unlink(temp); /* what matters is the first error */
        return dra_err_sys(err, sys, "cannot write %s", path);
    }
    sys = sync_dir(dir);
    return sys == 0 ? DRA_OK : dra_err_sys(err, sys, "cannot sync %s", dir);
}

static int make_dir(const char *path, unsigned mode, struct dra_err *err)
{
    struct stat st;
    int sys;

    if (mkdir(path, (mode_t)mode) == 0) {
        return DRA_OK;
    }
    sys = errno;
    if (stat(path, &st) == 0 && S_ISDIR(st.st_mode)) {
        return DRA_OK;
    }
    return dra_err_sys(err, sys, "cannot create directory %s", path);
}

int dra_file_mkdirs(const char *path, unsigned mode, struct dra_err *err)
{
    char part[PATH_ROOM];

    if (path[0] == '\0' || dra_str_copy(part, sizeof part, path) != DRA_OK) {
        return dra_err_set(err, DRA_EINVAL, "invalid path");
    }
    for (char *p = part + 1; *p != '\0'; p++) {
        if (*p == '/') {
            int rc;

            *p = '\0';
            rc = make_dir(part, mode, err);
            *p = '/';
            if (rc != DRA_OK) {
                return rc;
            }
        }
    }
    return make_dir(part, mode, err);
}

static int remove_at(int dir_fd, const char *name, int depth);

/* Empties the directory that fd is open on; closes fd.  Returns an errno. */
static int empty_dir(int fd, int depth)
{
    DIR *dir = fdopendir(fd);
    int sys = 0;

    if (dir == NULL) {
        sys = errno;
        (void)close(fd);
        return sys;
    }
    while (sys == 0) {
        const struct dirent *e;

        errno = 0;
        e = readdir(dir);
        if (e == NULL) {
            sys = errno;
            break;
        }
        if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0) {
            sys = remove_at(dirfd(dir), e->d_name, depth + 1);
        }
    }
    (void)closedir(dir);
    return sys;
}

/* Recursion is bounded by TREE_DEPTH_MAX. */
static int remove_at(int dir_fd, const char *name, int depth)
{
    int fd;
    int sys;

    if (depth > TREE_DEPTH_MAX) {
        return ELOOP;
    }
    if (unlinkat(dir_fd, name, 0) == 0 || errno == ENOENT) {
        return 0;
    }
    if (errno != EISDIR && errno != EPERM) {
        return errno;
    }
    fd = openat(dir_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0) {
        return errno;
    }
    sys = empty_dir(fd, depth);
    if (sys == 0 && unlinkat(dir_fd, name, AT_REMOVEDIR) != 0 && errno != ENOENT) {
        sys = errno;
    }
    return sys;
}

int dra_file_remove_tree(const char *path, struct dra_err *err)
{
    int sys = remove_at(AT_FDCWD, path, 0);

    return sys == 0 ? DRA_OK : dra_err_sys(err, sys, "cannot remove %s", path);
}

bool dra_file_exists(const char *path)
{
    struct stat st;

    return lstat(path, &st) == 0;
}
