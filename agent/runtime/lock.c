/*
 * lock.c - one agent per data directory: an open file description lock that lives as long as the process.
 *
 * Invariants:
 *  (1) The descriptor is close-on-exec, so that no child keeps the lock alive; only an upgrade in place clears that.
 *  (2) The file is never removed: a lock on an unlinked file locks nothing.
 */
#include "lock.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define LOCK_TEXT_MAX 512

static int lock_try(int fd)
{
    struct flock fl = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    return fcntl(fd, F_OFD_SETLK, &fl) == 0 ? 0 : errno;
}

static void holder_read(int fd, struct rt_lock_holder *out)
{
    char text[LOCK_TEXT_MAX];
    memset(out, 0, sizeof *out);
    ssize_t n = pread(fd, text, sizeof text - 1, 0);
    if (n > 0) {
        text[n] = '\0';
        (void)rt_lock_parse(text, out); /* an unreadable one leaves "unknown" */
    }
}

void rt_lock_init(struct rt_lock *l)
{
    l->fd = -1;
}

bool rt_lock_parse(const char *text, struct rt_lock_holder *out)
{
    const char *sp1 = strchr(text, ' ');
    const char *sp2 = sp1 != NULL ? strchr(sp1 + 1, ' ') : NULL;
    if (sp2 == NULL) {
        return false;
    }
    int64_t pid = 0;
    uint64_t ticks = 0;
    size_t url_len = strcspn(sp2 + 1, "\n");
    struct rt_lock_holder h = {0};
    if (dra_parse_i64(text, (size_t)(sp1 - text), 1, INT32_MAX, &pid) != 0 ||
        dra_parse_u64(sp1 + 1, (size_t)(sp2 - sp1 - 1), &ticks) != 0 ||
        dra_str_copy_n(h.api_url, sizeof h.api_url, sp2 + 1, url_len) != 0) {
        return false;
    }
    h.proc.pid = (pid_t)pid;
    h.proc.start_ticks = ticks;
    *out = h;
    return true;
}

int rt_lock_take(struct rt_lock *l, const char *path, struct rt_lock_holder *holder, struct dra_err *err)
{
    memset(holder, 0, sizeof *holder);
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0) {
        return dra_err_sys(err, errno, "could not open lock file \"%s\"", path);
    }
    int e = lock_try(fd);
    if (e == EAGAIN || e == EACCES) {
        holder_read(fd, holder);
        (void)close(fd); /* nothing was written */
        return dra_err_set(err, DRA_EBUSY, "lock file \"%s\" is held by another agent", path);
    }
    if (e != 0) {
        (void)close(fd);
        return dra_err_sys(err, e, "could not lock \"%s\"", path);
    }
    l->fd = fd;
    return 0;
}

int rt_lock_inherit(struct rt_lock *l, const char *path, int fd, struct dra_err *err)
{
    struct stat by_fd;
    struct stat by_path;
    if (fstat(fd, &by_fd) != 0 || stat(path, &by_path) != 0) {
        return dra_err_sys(err, errno, "the inherited lock cannot be looked at");
    }
    if (by_fd.st_dev != by_path.st_dev || by_fd.st_ino != by_path.st_ino) {
        return dra_err_set(err, DRA_ESTATE, "the inherited lock is not that of \"%s\"", path);
    }
    int e = lock_try(fd); /* the same open file description: succeeds if it is ours */
    if (e != 0) {
        return dra_err_sys(err, e, "the inherited lock is not ours");
    }
    if (fcntl(fd, F_SETFD, FD_CLOEXEC) != 0) {
        return dra_err_sys(err, errno, "the inherited lock cannot be kept from children");
    }
    l->fd = fd;
    return 0;
}

int rt_lock_sign(struct rt_lock *l, const char *api_url, struct dra_err *err)
{
    struct dra_proc me;
    char text[LOCK_TEXT_MAX];
    int rc = dra_proc_identify(getpid(), &me, err);
    if (rc != 0) {
        return rc;
    }
    if (dra_str_printf(text, sizeof text, "%d %" PRIu64 " %s\n", (int)me.pid, me.start_ticks, api_url) != 0) {
        return dra_err_set(err, DRA_ETOOLONG, "the REST address is too long");
    }
    size_t len = strlen(text);
    if (ftruncate(l->fd, 0) != 0 || pwrite(l->fd, text, len, 0) != (ssize_t)len) {
        return dra_err_sys(err, errno, "could not write the lock file");
    }
    return 0;
}

void rt_lock_release(struct rt_lock *l)
{
    if (l->fd >= 0) {
        (void)close(l->fd); /* the kernel drops the lock whatever close says */
    }
    l->fd = -1;
}
