/*
 * log.c - the log sink: stderr, or DIR/patroni.log with rotation.
 *
 * One of the two process-wide objects (conventions.md, section 4).  One event is one line; any thread.  A stalled disk
 * or pipe must not stop the loop, so lines go through a bounded queue to a thread, which alone writes; the queue
 * full, lines are dropped and counted.  Before the first log_configure() (command line tools, tests) there is no
 * thread, and lines are written at once.  A sink that cannot be written never fails the caller.
 * Invariants:
 *  (1) `lock` guards the shape of lines and the queue, and is never held while writing once the thread runs.
 *  (2) `out` belongs to who writes: the thread when there is one; a change of it travels through the queue.
 */
#include "log_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define LOG_LINE_MAX ((size_t)64 << 10)
#define LOG_QUEUE_MAX 1000
#define LOG_FLUSH_MAX_MS 2000
#define LOG_FILE_NAME "patroni.log"

/* Where lines go. */
struct output {
    int fd; /* owned; -1 = stderr */
    int mode;
    int file_num;
    int64_t file_size_bytes;
    int64_t size_bytes;
    char path[640];
};

/* A line, or a change of the output. */
struct entry {
    struct entry *next;
    struct output *output; /* owned; NULL = a line */
    size_t len;
    char *text; /* owned */
};

struct log_sink {
    pthread_mutex_t lock;
    pthread_cond_t wake;    /* the thread: there is something to write */
    pthread_cond_t drained; /* log_flush(): there is nothing left */
    struct log_config config;
    struct json *static_fields; /* owned */
    struct entry *first;
    struct entry **end;
    size_t queued;
    size_t dropped; /* since the last line that said so */
    bool has_thread;
    bool writing;
    _Atomic int level; /* read without the lock */
    struct output out;
};

static struct log_sink sink = {
    .lock = PTHREAD_MUTEX_INITIALIZER,
    .wake = PTHREAD_COND_INITIALIZER,
    .drained = PTHREAD_COND_INITIALIZER,
    .config = {.level = LOG_LV_INFO, .mode = -1},
    .end = &sink.first,
    .level = LOG_LV_INFO,
    .out = {.fd = -1},
};

/* ---- writing: one writer at a time ---- */

static int open_file(struct output *o, struct dra_err *err)
{
    struct stat st;
    int fd = open(o->path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOCTTY, 0666);

    if (fd < 0) {
        return dra_err_sys(err, errno, "cannot open log file %s", o->path);
    }
    if (o->mode >= 0) {
        (void)fchmod(fd, (mode_t)o->mode & 0777); /* someone else's file: log anyway */
    }
    o->fd = fd;
    o->size_bytes = fstat(fd, &st) == 0 ? (int64_t)st.st_size : 0;
    return DRA_OK;
}

/* patroni.log.3 -> .4, ..., patroni.log -> .1; if that fails the file goes on growing. */
static void rotate(struct output *o)
{
    char from[sizeof o->path + 16];
    char to[sizeof o->path + 16];
    int old = o->fd;

    for (int i = o->file_num - 1; i >= 0; i--) {
        if (i == 0) {
            (void)snprintf(from, sizeof from, "%s", o->path);
        } else {
            (void)snprintf(from, sizeof from, "%s.%d", o->path, i);
        }
        (void)snprintf(to, sizeof to, "%s.%d", o->path, i + 1);
        (void)rename(from, to);
    }
    if (open_file(o, NULL) == DRA_OK) {
        (void)close(old);
    }
}

static void write_text(struct output *o, const char *p, size_t n)
{
    int fd;

    if (o->fd >= 0 && o->file_size_bytes > 0 && o->file_num > 0 && o->size_bytes > 0 &&
        o->size_bytes + (int64_t)n > o->file_size_bytes) {
        rotate(o);
    }
    if (o->fd >= 0) {
        o->size_bytes += (int64_t)n;
    }
    fd = o->fd >= 0 ? o->fd : STDERR_FILENO;
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

static void write_entry(struct entry *e)
{
    if (e->output != NULL) {
        if (sink.out.fd >= 0) {
            (void)close(sink.out.fd);
        }
        sink.out = *e->output;
        free(e->output);
    } else {
        write_text(&sink.out, e->text, e->len);
        free(e->text);
    }
    free(e);
}

static void *writer_main(void *arg)
{
    (void)arg;
    (void)pthread_mutex_lock(&sink.lock);
    for (;;) {
        struct entry *e;

        while (sink.first == NULL) {
            sink.writing = false;
            (void)pthread_cond_broadcast(&sink.drained);
            (void)pthread_cond_wait(&sink.wake, &sink.lock);
        }
        e = sink.first;
        sink.first = e->next;
        if (sink.first == NULL) {
            sink.end = &sink.first;
        }
        sink.queued--;
        sink.writing = true;
        (void)pthread_mutex_unlock(&sink.lock);
        write_entry(e);
        (void)pthread_mutex_lock(&sink.lock);
    }
    return NULL;
}

/* Takes over the entry; needs the lock. */
static void enqueue_locked(struct entry *e)
{
    if (!sink.has_thread) {
        write_entry(e);
        return;
    }
    e->next = NULL;
    *sink.end = e;
    sink.end = &e->next;
    sink.queued++;
    (void)pthread_cond_signal(&sink.wake);
}

static void enqueue_text_locked(struct dra_buf *text)
{
    struct entry *e = calloc(1, sizeof *e);

    if (e == NULL) {
        sink.dropped++;
        return;
    }
    e->len = text->len;
    e->text = dra_buf_take(text);
    if (e->text == NULL) {
        free(e);
        sink.dropped++;
        return;
    }
    enqueue_locked(e);
}

static void flush_at_exit(void)
{
    log_flush();
}

static void start_thread_locked(void)
{
    pthread_t thread;
    sigset_t all;
    sigset_t old;

    if (sink.has_thread) {
        return;
    }
    (void)sigfillset(&all); /* signals are the loop thread's business */
    (void)pthread_sigmask(SIG_SETMASK, &all, &old);
    if (pthread_create(&thread, NULL, writer_main, NULL) == 0) {
        (void)pthread_detach(thread);
        sink.has_thread = true;
        (void)atexit(flush_at_exit);
    }
    (void)pthread_sigmask(SIG_SETMASK, &old, NULL);
}

/* ---- configuration ---- */

void log_configure_default(struct log_config *c)
{
    *c = (struct log_config){
        .level = LOG_LV_INFO,
        .mode = -1,
        .file_size_bytes = 25000000,
        .file_num = 4,
    };
}

int log_configure(const struct log_config *c, struct dra_err *err)
{
    struct entry *change = calloc(1, sizeof *change);
    struct output *o = calloc(1, sizeof *o);
    struct json *fields = NULL;
    char unknown[64] = "";
    int rc = change != NULL && o != NULL ? DRA_OK : dra_err_set(err, DRA_ENOMEM, "out of memory");

    if (rc == DRA_OK) {
        *o = (struct output){
            .fd = -1, .mode = c->mode, .file_num = c->file_num, .file_size_bytes = c->file_size_bytes};
    }
    if (rc == DRA_OK && c->dir[0] != '\0') {
        rc = dra_str_printf(o->path, sizeof o->path, "%s/%s", c->dir, LOG_FILE_NAME);
        rc = rc == DRA_OK ? open_file(o, err) : dra_err_set(err, rc, "log directory name too long");
    }
    if (rc != DRA_OK) {
        free(o);
        free(change);
        return rc;
    }
    change->output = o;
    if (c->static_fields != NULL) {
        fields = json_clone(c->static_fields);
    }
    (void)pthread_mutex_lock(&sink.lock);
    start_thread_locked();
    json_free(sink.static_fields);
    sink.config = *c;
    sink.config.static_fields = NULL; /* borrowed for this call only */
    sink.static_fields = fields;
    sink.level = (int)c->level;
    enqueue_locked(change);
    (void)pthread_mutex_unlock(&sink.lock);
    if (!c->json && !log_format_check(c->format, unknown, sizeof unknown)) {
        log_event(LOG_LV_WARNING, "log.format", "The log format has an unknown attribute", "attribute",
                  unknown, NULL);
    }
    return DRA_OK;
}

void log_flush(void)
{
    struct timespec until;

    (void)clock_gettime(CLOCK_REALTIME, &until); /* what the statically made condition waits by */
    until.tv_sec += LOG_FLUSH_MAX_MS / 1000;
    (void)pthread_mutex_lock(&sink.lock);
    while (sink.has_thread && (sink.first != NULL || sink.writing)) {
        if (pthread_cond_timedwait(&sink.drained, &sink.lock, &until) != 0) {
            break;
        }
    }
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

static void format_locked(struct dra_buf *b, const struct log_record *r)
{
    size_t start = b->len;

    if (sink.config.json) {
        log_format_json(b, r, sink.config.dateformat, sink.static_fields);
    } else {
        log_format_plain(b, r, sink.config.format, sink.config.dateformat);
    }
    if (b->failed) { /* too long: at least the name of the event */
        b->failed = false;
        b->len = start;
        dra_buf_addf(b, "%s %s: (line too long) event=%s", r->time, log_level_name(r->level), r->event);
    }
    dra_buf_adds(b, "\n");
}

static void emit(const struct log_record *r)
{
    struct dra_buf line;

    dra_buf_init(&line, LOG_LINE_MAX);
    (void)pthread_mutex_lock(&sink.lock);
    if (sink.queued >= LOG_QUEUE_MAX) {
        sink.dropped++;
    } else {
        if (sink.dropped > 0) {
            struct log_record lost = *r;
            char count[24];

            (void)snprintf(count, sizeof count, "%zu", sink.dropped);
            lost.level = LOG_LV_WARNING;
            lost.event = "log.dropped";
            lost.sentence = "Log lines were dropped because they could not be written in time";
            lost.pairs[0] = (struct log_pair){"lines", count};
            lost.pair_count = 1;
            sink.dropped = 0;
            format_locked(&line, &lost);
            enqueue_text_locked(&line);
            dra_buf_reset(&line);
        }
        format_locked(&line, r);
        enqueue_text_locked(&line);
    }
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
