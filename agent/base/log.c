/*
 * log.c - the log sink: stderr, or DIR/patroni.log with rotation.
 *
 * One of the two process-wide objects (conventions.md, section 4).  One event is one line, written with one
 * write() under a mutex; any thread.  A sink that cannot be written never fails the caller.
 */
#include "log_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define LOG_LINE_MAX ((size_t)64 << 10)
#define LOG_FILE_NAME "patroni.log"

struct log_sink {
    pthread_mutex_t lock;
    struct log_config config;
    struct json *static_fields; /* owned */
    int fd;                   /* the file, -1 = stderr */
    int64_t size_bytes;
    char path[640];
    _Atomic int level; /* read without the lock */
};

static struct log_sink sink = {
    .lock = PTHREAD_MUTEX_INITIALIZER,
    .config = {.level = LOG_LV_INFO, .mode = -1},
    .fd = -1,
    .level = LOG_LV_INFO,
};

void log_configure_default(struct log_config *c)
{
    *c = (struct log_config){
        .level = LOG_LV_INFO,
        .mode = -1,
        .file_size_bytes = 25000000,
        .file_num = 4,
    };
}

static int open_file(const struct log_config *c, const char *path, int *out_fd, int64_t *out_size,
                     struct dra_err *err)
{
    struct stat st;
    int fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOCTTY, 0666);

    if (fd < 0) {
        return dra_err_sys(err, errno, "cannot open log file %s", path);
    }
    if (c->mode >= 0) {
        (void)fchmod(fd, (mode_t)c->mode & 0777); /* someone else's file: log anyway */
    }
    *out_fd = fd;
    *out_size = fstat(fd, &st) == 0 ? (int64_t)st.st_size : 0;
    return DRA_OK;
}

int log_configure(const struct log_config *c, struct dra_err *err)
{
    char path[sizeof sink.path] = "";
    char unknown[64] = "";
    struct json *fields = NULL;
    int64_t size = 0;
    int old_fd;
    int fd = -1;

    if (c->dir[0] != '\0') {
        int rc = dra_str_printf(path, sizeof path, "%s/%s", c->dir, LOG_FILE_NAME);

        if (rc == DRA_OK) {
            rc = open_file(c, path, &fd, &size, err);
        } else {
            rc = dra_err_set(err, rc, "log directory name too long");
        }
        if (rc != DRA_OK) {
            return rc;
        }
    }
    if (c->static_fields != NULL) {
        fields = json_clone(c->static_fields);
    }
    (void)pthread_mutex_lock(&sink.lock);
    json_free(sink.static_fields);
    sink.config = *c;
    sink.config.static_fields = NULL; /* borrowed for this call only */
    sink.static_fields = fields;
    old_fd = sink.fd;
    sink.fd = fd;
    sink.size_bytes = size;
    memcpy(sink.path, path, sizeof sink.path);
    sink.level = (int)c->level;
    (void)pthread_mutex_unlock(&sink.lock);
    if (old_fd >= 0) {
        (void)close(old_fd);
    }
    if (!c->json && !log_format_check(c->format, unknown, sizeof unknown)) {
        log_event(LOG_LV_WARNING, "log.format", "The log format has an unknown attribute", "attribute",
                  unknown, NULL);
    }
    return DRA_OK;
}

void log_flush(void)
{
    (void)pthread_mutex_lock(&sink.lock); /* every line was written when it came; wait for the one in work */
    (void)pthread_mutex_unlock(&sink.lock);
}

bool log_enabled(enum log_level lv)
{
    return (int)lv >= sink.level;
}

const char *log_level_name(enum log_level lv)
{
    switch (lv) {
    case LOG_LV_DEBUG:
        return "DEBUG";
    case LOG_LV_INFO:
        return "INFO";
    case LOG_LV_WARNING:
        return "WARNING";
    case LOG_LV_ERROR:
        return "ERROR";
    case LOG_LV_CRITICAL:
        return "CRITICAL";
    }
    return "INFO";
}

/* patroni.log.3 -> .4, ..., patroni.log -> .1; failures leave the file as it is and it goes on growing. */
static void rotate_locked(void)
{
    char from[sizeof sink.path + 16];
    char to[sizeof sink.path + 16];
    int64_t size = 0;
    int fd = -1;

    for (int i = sink.config.file_num - 1; i >= 0; i--) {
        if (i == 0) {
            (void)snprintf(from, sizeof from, "%s", sink.path);
        } else {
            (void)snprintf(from, sizeof from, "%s.%d", sink.path, i);
        }
        (void)snprintf(to, sizeof to, "%s.%d", sink.path, i + 1);
        (void)rename(from, to);
    }
    if (open_file(&sink.config, sink.path, &fd, &size, NULL) == DRA_OK) {
        (void)close(sink.fd);
        sink.fd = fd;
        sink.size_bytes = size;
    }
}

static void write_locked(const char *p, size_t n)
{
    int fd = sink.fd >= 0 ? sink.fd : STDERR_FILENO;

    if (sink.fd >= 0 && sink.config.file_size_bytes > 0 && sink.config.file_num > 0 &&
        sink.size_bytes > 0 && sink.size_bytes + (int64_t)n > sink.config.file_size_bytes) {
        rotate_locked();
        fd = sink.fd;
    }
    if (sink.fd >= 0) {
        sink.size_bytes += (int64_t)n;
    }
    while (n > 0) {
        ssize_t done = write(fd, p, n);

        if (done < 0 && errno == EINTR) {
            continue;
        }
        if (done <= 0) {
            return; /* nowhere to report it; the agent goes on */
        }
        p += done;
        n -= (size_t)done;
    }
}

static void emit(const struct log_record *r)
{
    struct dra_buf line;

    dra_buf_init(&line, LOG_LINE_MAX);
    (void)pthread_mutex_lock(&sink.lock);
    if (sink.config.json) {
        log_format_json(&line, r, sink.config.dateformat, sink.static_fields);
    } else {
        log_format_plain(&line, r, sink.config.format, sink.config.dateformat);
    }
    if (line.failed) {
        dra_buf_reset(&line); /* too long: at least the name of the event */
        dra_buf_addf(&line, "%s %s: (line too long) event=%s", r->time, log_level_name(r->level), r->event);
    }
    dra_buf_adds(&line, "\n");
    write_locked(dra_buf_str(&line), line.len);
    (void)pthread_mutex_unlock(&sink.lock);
    dra_buf_deinit(&line);
}

static void stamp(struct log_record *r, enum log_level lv, const char *event)
{
    *r = (struct log_record){.level = lv, .event = event != NULL ? event : ""};
    (void)clock_gettime(CLOCK_REALTIME, &r->wall);
    dra_wall_format(r->time);
    r->tid = (long)syscall(SYS_gettid);
}

void log_event(enum log_level lv, const char *event, const char *sentence, ...)
{
    struct log_record r;
    va_list ap;

    if (!log_enabled(lv)) {
        return;
    }
    stamp(&r, lv, event);
    r.sentence = sentence;
    va_start(ap, sentence);
    while (r.pair_count < LOG_PAIRS_MAX) {
        const char *key = va_arg(ap, const char *);
        const char *value;

        if (key == NULL) {
            break;
        }
        value = va_arg(ap, const char *);
        r.pairs[r.pair_count].key = key;
        r.pairs[r.pair_count].value = value != NULL ? value : "";
        r.pair_count++;
    }
    va_end(ap);
    emit(&r);
}

void log_linef(enum log_level lv, const char *event, const char *fmt, ...)
{
    char sentence[4096];
    struct log_record r;
    va_list ap;

    if (!log_enabled(lv)) {
        return;
    }
    va_start(ap, fmt);
    dra_str_clipv(sentence, sizeof sentence, fmt, ap);
    va_end(ap);
    stamp(&r, lv, event);
    r.sentence = sentence;
    emit(&r);
}
