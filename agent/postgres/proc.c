/*
 * proc.c - reads /proc: states, start times, working directories, children.
 *
 * Promises: a zombie is dead; a process that vanishes while it is looked at counts as gone.
 * Threads: any; reads of /proc do not wait for disks.
 */
#include "proc.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/stat.h>
#include <unistd.h>

#define TOOL_END_MS 5000

static ssize_t read_small(const char *path, char *buf, size_t size)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n;

    if (fd < 0) {
        return -1;
    }
    n = read(fd, buf, size - 1);
    close(fd);
    if (n >= 0) {
        buf[n] = '\0';
    }
    return n;
}

bool pgs_stat_parse(const char *text, struct pgs_stat *out)
{
    const char *p = strrchr(text, ')'); /* the name before it may hold anything */
    struct pgs_stat st = {0};
    int64_t n;

    if (p == NULL || p[1] != ' ' || p[2] == '\0') {
        return false;
    }
    st.state = p[2];
    p += 3;
    for (int field = 4; field <= 22; field++) {
        size_t len;

        p += strspn(p, " ");
        len = strcspn(p, " \n");
        if (len == 0) {
            return false;
        }
        if ((field == 4 || field == 6 || field == 22) && dra_parse_i64(p, len, 0, INT64_MAX, &n) != 0) {
            return false;
        }
        if (field == 4) {
            st.ppid = (pid_t)n;
        } else if (field == 6) {
            st.session = (pid_t)n;
        } else if (field == 22) {
            st.start_ticks = (uint64_t)n;
        }
        p += len;
    }
    *out = st;
    return true;
}

bool pgs_stat_read(pid_t pid, struct pgs_stat *out)
{
    char path[32];
    char buf[1024];

    (void)snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    return read_small(path, buf, sizeof buf) > 0 && pgs_stat_parse(buf, out);
}

int64_t pgs_stat_epoch(const struct pgs_stat *st)
{
    char buf[16384];
    const char *p;
    long hz = sysconf(_SC_CLK_TCK);
    int64_t boot;

    if (hz <= 0 || read_small("/proc/stat", buf, sizeof buf) <= 0 || (p = strstr(buf, "\nbtime ")) == NULL) {
        return 0;
    }
    p += strlen("\nbtime ");
    if (dra_parse_i64(p, strcspn(p, "\n"), 0, INT64_MAX, &boot) != 0) {
        return 0;
    }
    return boot + (int64_t)(st->start_ticks / (uint64_t)hz);
}

enum dra_tri pgs_works_in(pid_t pid, const char *dir)
{
    char path[32];
    struct stat a, b;

    (void)snprintf(path, sizeof path, "/proc/%d/cwd", (int)pid);
    if (stat(path, &a) != 0 || stat(dir, &b) != 0) {
        return DRA_UNKNOWN;
    }
    return dra_tri_of(a.st_dev == b.st_dev && a.st_ino == b.st_ino);
}

bool pgs_exe_is(pid_t pid, const char *exe_name)
{
    static const char deleted[] = " (deleted)"; /* the package was upgraded under the running server */
    char path[32];
    char exe[4096];
    const char *base;
    ssize_t n;

    (void)snprintf(path, sizeof path, "/proc/%d/exe", (int)pid);
    n = readlink(path, exe, sizeof exe - 1);
    if (n < 0) {
        return false;
    }
    exe[n] = '\0';
    if ((size_t)n >= sizeof deleted && strcmp(exe + n - (sizeof deleted - 1), deleted) == 0) {
        exe[(size_t)n - (sizeof deleted - 1)] = '\0';
    }
    base = strrchr(exe, '/');
    base = base != NULL ? base + 1 : exe;
    return strcmp(base, exe_name) == 0 || strcmp(base, "postgres") == 0 || strcmp(base, "postmaster") == 0;
}

void pgs_walk_dir(const char *data_dir, const char *exe_name, pgs_visit visit, void *arg)
{
    DIR *d = opendir("/proc");
    const struct dirent *e;
    struct stat want;

    if (d == NULL) {
        return;
    }
    if (stat(data_dir, &want) != 0) {
        closedir(d);
        return;
    }
    while ((e = readdir(d)) != NULL) {
        char path[64];
        struct stat sb;
        struct pgs_stat st;
        int64_t pid;

        if (!isdigit((unsigned char)e->d_name[0]) || dra_parse_i64(e->d_name, strlen(e->d_name), 1, INT32_MAX, &pid) != 0) {
            continue;
        }
        (void)snprintf(path, sizeof path, "/proc/%d/cwd", (int)pid);
        if (stat(path, &sb) != 0 || sb.st_dev != want.st_dev || sb.st_ino != want.st_ino ||
            !pgs_exe_is((pid_t)pid, exe_name) || !pgs_stat_read((pid_t)pid, &st) || st.state == 'Z' || st.state == 'X') {
            continue;
        }
        if (!visit((pid_t)pid, &st, arg)) {
            break;
        }
    }
    closedir(d);
}

void pgs_walk_children(pid_t pid, pgs_visit visit, void *arg)
{
    char path[64];
    char buf[65536];
    char *p = buf;

    (void)snprintf(path, sizeof path, "/proc/%d/task/%d/children", (int)pid, (int)pid);
    if (read_small(path, buf, sizeof buf) <= 0) {
        return;
    }
    while (*p != '\0') {
        size_t n = strcspn(p, " \n");
        struct pgs_stat st;
        int64_t child;

        if (n > 0 && dra_parse_i64(p, n, 1, INT32_MAX, &child) == 0 && pgs_stat_read((pid_t)child, &st) &&
            st.state != 'Z' && st.state != 'X' && !visit((pid_t)child, &st, arg)) {
            return;
        }
        p += n;
        p += strspn(p, " \n");
    }
}

uint64_t pgs_session_written(pid_t session)
{
    DIR *d = opendir("/proc");
    const struct dirent *e;
    uint64_t sum = 0;

    while (d != NULL && (e = readdir(d)) != NULL) {
        char path[64];
        char buf[512];
        const char *p;
        struct pgs_stat st;
        int64_t pid;
        int64_t n;

        if (!isdigit((unsigned char)e->d_name[0]) || dra_parse_i64(e->d_name, strlen(e->d_name), 1, INT32_MAX, &pid) != 0 ||
            !pgs_stat_read((pid_t)pid, &st) || st.session != session) {
            continue;
        }
        (void)snprintf(path, sizeof path, "/proc/%d/io", (int)pid);
        if (read_small(path, buf, sizeof buf) > 0 && (p = strstr(buf, "wchar: ")) != NULL) {
            p += strlen("wchar: ");
            if (dra_parse_i64(p, strcspn(p, "\n"), 0, INT64_MAX, &n) == 0) {
                sum += (uint64_t)n;
            }
        }
    }
    if (d != NULL) {
        closedir(d);
    }
    return sum;
}

/* One of our tools, by what it was told to work on. */
static bool works_on(pid_t pid, const char *data_dir)
{
    static const char *const keys[] = {"--pgdata=", "--target-pgdata=", "--datadir="};
    char path[32];
    char buf[16384];
    ssize_t n;

    (void)snprintf(path, sizeof path, "/proc/%d/cmdline", (int)pid);
    n = read_small(path, buf, sizeof buf);
    for (const char *p = buf; n > 0 && p < buf + n; p += strlen(p) + 1) {
        for (size_t i = 0; i < DRA_ARRAY_LEN(keys); i++) {
            if (dra_str_starts(p, keys[i]) && strcmp(p + strlen(keys[i]), data_dir) == 0) {
                return true;
            }
        }
    }
    return false;
}

int pgs_kill_tools(const char *data_dir)
{
    DIR *d = opendir("/proc");
    const struct dirent *e;
    int killed = 0;

    while (d != NULL && (e = readdir(d)) != NULL) {
        struct pollfd p = {.events = POLLIN};
        int64_t pid;

        if (!isdigit((unsigned char)e->d_name[0]) || dra_parse_i64(e->d_name, strlen(e->d_name), 1, INT32_MAX, &pid) != 0 ||
            (pid_t)pid == getpid() || !works_on((pid_t)pid, data_dir)) {
            continue;
        }
        p.fd = pidfd_open((pid_t)pid, 0);
        if (p.fd < 0 || !works_on((pid_t)pid, data_dir)) { /* still that one: the number may have changed hands */
            if (p.fd >= 0) {
                close(p.fd);
            }
            continue;
        }
        if (getpgid((pid_t)pid) == (pid_t)pid) {
            (void)kill(-(pid_t)pid, SIGKILL); /* with what it started */
        }
        (void)pidfd_send_signal(p.fd, SIGKILL, NULL, 0);
        (void)poll(&p, 1, TOOL_END_MS);
        close(p.fd);
        killed++;
    }
    if (d != NULL) {
        closedir(d);
    }
    return killed;
}
