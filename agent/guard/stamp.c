/*
 * stamp.c - where the guard of a data directory lives, and what its stamp says (SAFE-37).
 *
 * Reads tmpfs only, so it may be called from the loop.  The directory is ours alone: in a place where others may make
 * directories, too, one that is not ours is refused, never used.
 */
#include <dragent/guard.h>

#include <dragent/io.h>

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { READ_TRIES = 3 };

static int dir_ensure(const char *path, struct dra_err *err)
{
    struct stat sb;

    if (mkdir(path, 0700) != 0 && errno != EEXIST) {
        return dra_err_sys(err, errno, "cannot make %s", path);
    }
    if (lstat(path, &sb) != 0) {
        return dra_err_sys(err, errno, "cannot look at %s", path);
    }
    if (!S_ISDIR(sb.st_mode) || sb.st_uid != geteuid() || (sb.st_mode & 077) != 0) {
        return dra_err_set(err, DRA_EPERM, "%s is not a directory of ours with mode 0700", path);
    }
    return DRA_OK;
}

static uint64_t path_hash(const char *s)
{
    uint64_t h = UINT64_C(14695981039346656037); /* FNV-1a */

    for (; *s != '\0'; s++) {
        h = (h ^ (unsigned char)*s) * UINT64_C(1099511628211);
    }
    return h;
}

int guard_runtime_dir_make(const char *data_dir, char out[GUARD_DIR_MAX], struct dra_err *err)
{
    const char *given = getenv("RUNTIME_DIRECTORY");
    char base[GUARD_DIR_MAX];
    char dir[GUARD_DIR_MAX];
    int rc;

    if (data_dir[0] != '/') {
        return dra_err_set(err, DRA_EINVAL, "data directory \"%s\" is not an absolute path", data_dir);
    }
    if (given != NULL && given[0] == '/' && strchr(given, ':') == NULL) {
        rc = dra_str_copy(base, sizeof base, given);
    } else if (access("/run/dragent", W_OK | X_OK) == 0) {
        rc = dra_str_copy(base, sizeof base, "/run/dragent");
    } else {
        rc = dra_str_printf(base, sizeof base, "/dev/shm/dragent-%u", (unsigned)geteuid());
        if (rc == DRA_OK) {
            rc = dir_ensure(base, err);
            if (rc != DRA_OK) {
                return rc;
            }
        }
    }
    if (rc != DRA_OK ||
        dra_str_printf(dir, sizeof dir, "%s/guard-%016llx", base, (unsigned long long)path_hash(data_dir)) != DRA_OK) {
        return dra_err_set(err, DRA_ETOOLONG, "runtime directory below %s", base);
    }
    rc = dir_ensure(dir, err);
    return rc != DRA_OK ? rc : dra_str_copy(out, GUARD_DIR_MAX, dir);
}

static int boot_id_read(char out[GUARD_BOOT_ID_MAX], struct dra_err *err)
{
    int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, out, GUARD_BOOT_ID_MAX - 1);
    int saved = errno;

    if (fd >= 0) {
        close(fd);
    }
    if (n <= 0) {
        return dra_err_sys(err, saved, "cannot read the boot id");
    }
    out[n] = '\0';
    out[strcspn(out, "\n")] = '\0';
    return DRA_OK;
}

int guard_stamp_read(const char *runtime_dir, struct guard_stamp *out, struct dra_err *err)
{
    const struct guard_stamp *found = NULL;
    struct guard_stamp slots[2];
    char boot_id[GUARD_BOOT_ID_MAX];
    char path[GUARD_DIR_MAX];
    int fd;
    int rc = boot_id_read(boot_id, err);

    if (rc != DRA_OK) {
        return rc;
    }
    if (dra_str_printf(path, sizeof path, "%s/%s", runtime_dir, GUARD_STAMP_NAME) != DRA_OK) {
        return dra_err_set(err, DRA_ETOOLONG, "%s", runtime_dir);
    }
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return errno == ENOENT ? dra_err_set(err, DRA_ENOTFOUND, "there is no stamp of a guard")
                               : dra_err_sys(err, errno, "cannot open %s", path);
    }
    /* A slot that is torn is being written: look again; the other one is whole, but a step older. */
    for (int i = 0; i < READ_TRIES; i++) {
        memset(slots, 0, sizeof slots);
        if (pread(fd, slots, sizeof slots, 0) == (ssize_t)sizeof slots) {
            found = guard_stamp_choose(slots, boot_id);
        }
        if (found != NULL && (slots[0].seq == 0 || slots[1].seq == 0 ||
                              (guard_stamp_is_valid(&slots[0], boot_id) && guard_stamp_is_valid(&slots[1], boot_id)))) {
            break;
        }
    }
    close(fd);
    if (found == NULL) {
        return dra_err_set(err, DRA_ESTALE, "the guard's stamp is torn or of another boot");
    }
    *out = *found;
    return DRA_OK;
}
