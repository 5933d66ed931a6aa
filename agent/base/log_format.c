/*
 * log_format.c - the shape of a log line: Python's record attributes (CFG-21, CFG-38), and JSON.
 *
 * Promises: one event is one line (line breaks inside become \n), the level word starts in column 25 of the
 * default format, an unknown attribute prints as it was given.
 */
#include "log_internal.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define DEFAULT_FORMAT "%(asctime)s %(levelname)s: %(message)s"

/* The operator's own strftime format: cannot be a literal.  A bad one gives odd text, never too much of it. */
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
static size_t format_time(char *out, size_t out_size, const char *format, const struct tm *tm)
{
    return strftime(out, out_size, format, tm);
}
#pragma GCC diagnostic pop

static void time_text(const struct log_record *r, const char *dateformat, char *out, size_t out_size)
{
    struct tm tm;

    if (dateformat[0] == '\0' || localtime_r(&r->wall.tv_sec, &tm) == NULL ||
        format_time(out, out_size, dateformat, &tm) == 0) {
        dra_str_clip(out, out_size, r->time);
    }
}

/* Text on one line: what would end it is escaped. */
static void add_one_line(struct dra_buf *b, const char *s)
{
    for (; *s != '\0'; s++) {
        if (*s == '\n') {
            dra_buf_adds(b, "\\n");
        } else if (*s == '\r') {
            dra_buf_adds(b, "\\r");
        } else if ((unsigned char)*s < 0x20 && *s != '\t') {
            dra_buf_addf(b, "\\x%02x", (unsigned)(unsigned char)*s);
        } else {
            dra_buf_add(b, s, 1);
        }
    }
}

static bool needs_quotes(const char *s)
{
    return *s == '\0' || strpbrk(s, " \t\r\n\"=\\") != NULL;
}

static void add_message(struct dra_buf *b, const struct log_record *r)
{
    add_one_line(b, r->sentence);
    if (r->event[0] != '\0') {
        dra_buf_addf(b, " event=%s", r->event);
    }
    for (size_t i = 0; i < r->pair_count; i++) {
        dra_buf_addf(b, " %s=", r->pairs[i].key);
        if (needs_quotes(r->pairs[i].value)) {
            dra_buf_add_json_str(b, r->pairs[i].value);
        } else {
            add_one_line(b, r->pairs[i].value);
        }
    }
}

/* First part of the event's name: "ha" of "ha.promote.start". */
static void event_head(const struct log_record *r, char *out, size_t out_size, const char *suffix)
{
    size_t len = strcspn(r->event, ".");

    (void)snprintf(out, out_size, "%.*s%s", len > 0 ? (int)len : 7, len > 0 ? r->event : "dragent", suffix);
}

/* The value of a record attribute; false if the name is unknown.  A source position is never empty (CFG-38): the
 * event's name stands for it. */
static bool attribute(const struct log_record *r, const char *name, const char *dateformat, char *out,
                      size_t out_size)
{
    if (dra_str_eq(name, "asctime")) {
        time_text(r, dateformat, out, out_size);
    } else if (dra_str_eq(name, "levelname")) {
        dra_str_clip(out, out_size, log_level_name(r->level));
    } else if (dra_str_eq(name, "levelno")) {
        (void)snprintf(out, out_size, "%d", (int)r->level);
    } else if (dra_str_eq(name, "name")) {
        dra_str_clip(out, out_size, r->event[0] != '\0' ? r->event : "dragent");
    } else if (dra_str_eq(name, "module")) {
        event_head(r, out, out_size, "");
    } else if (dra_str_eq(name, "filename") || dra_str_eq(name, "pathname")) {
        event_head(r, out, out_size, ".c");
    } else if (dra_str_eq(name, "funcName")) {
        const char *dot = strrchr(r->event, '.');

        dra_str_clip(out, out_size, dot != NULL && dot[1] != '\0' ? dot + 1 : "log");
    } else if (dra_str_eq(name, "lineno")) {
        dra_str_clip(out, out_size, "1");
    } else if (dra_str_eq(name, "process")) {
        (void)snprintf(out, out_size, "%d", (int)getpid());
    } else if (dra_str_eq(name, "processName")) {
        dra_str_clip(out, out_size, "MainProcess");
    } else if (dra_str_eq(name, "thread")) {
        (void)snprintf(out, out_size, "%ld", r->tid);
    } else if (dra_str_eq(name, "threadName")) {
        dra_str_clip(out, out_size, r->tid == (long)getpid() ? "MainThread" : "Thread");
    } else if (dra_str_eq(name, "created")) {
        (void)snprintf(out, out_size, "%lld.%06ld", (long long)r->wall.tv_sec, r->wall.tv_nsec / 1000);
    } else if (dra_str_eq(name, "msecs")) {
        (void)snprintf(out, out_size, "%ld", r->wall.tv_nsec / 1000000);
    } else if (dra_str_eq(name, "relativeCreated")) {
        struct timespec cpu;

        (void)clock_gettime(CLOCK_MONOTONIC, &cpu);
        (void)snprintf(out, out_size, "%lld", (long long)cpu.tv_sec * 1000 + cpu.tv_nsec / 1000000);
    } else {
        return false;
    }
    return true;
}

/* A conversion "%(name)-8s" at p ('%' included).  Returns its length, 0 if it is none. */
static size_t read_conversion(const char *p, char *name, size_t name_size, int *width, bool *left)
{
    const char *end;
    size_t digits;
    const char *q;
    int64_t w = 0;

    if (p[0] != '%' || p[1] != '(') {
        return 0;
    }
    end = strchr(p, ')');
    if (end == NULL || dra_str_copy_n(name, name_size, p + 2, (size_t)(end - p - 2)) != DRA_OK) {
        return 0;
    }
    q = end + 1;
    *left = *q == '-';
    q += *left ? 1 : 0;
    digits = strspn(q, "0123456789");
    *width = digits > 0 && dra_parse_i64(q, digits, 0, 200, &w) == DRA_OK ? (int)w : 0;
    q += digits;
    if (*q == '.') {
        q++;
        q += strspn(q, "0123456789");
    }
    if (*q != 's' && *q != 'd' && *q != 'f') {
        return 0;
    }
    return (size_t)(q + 1 - p);
}

void log_format_plain(struct dra_buf *b, const struct log_record *r, const char *format,
                      const char *dateformat)
{
    const char *p = format[0] != '\0' ? format : DEFAULT_FORMAT;

    while (*p != '\0') {
        char name[32];
        char text[256];
        int width = 0;
        bool left = false;
        size_t n = read_conversion(p, name, sizeof name, &width, &left);

        if (n == 0) {
            bool percent = p[0] == '%' && p[1] == '%';

            dra_buf_add(b, p, 1);
            p += percent ? 2 : 1;
        } else if (dra_str_eq(name, "message")) {
            add_message(b, r);
            p += n;
        } else if (attribute(r, name, dateformat, text, sizeof text)) {
            dra_buf_addf(b, left ? "%-*s" : "%*s", width, text);
            p += n;
        } else {
            dra_buf_add(b, p, n);
            p += n;
        }
    }
}

bool log_format_check(const char *format, char *unknown, size_t unknown_size)
{
    static const struct log_record sample = {.event = "", .sentence = ""};

    for (const char *p = format; *p != '\0'; p++) {
        char name[32];
        char text[256];
        int width = 0;
        bool left = false;
        size_t n = read_conversion(p, name, sizeof name, &width, &left);

        if (n > 0 && !dra_str_eq(name, "message") && !attribute(&sample, name, "", text, sizeof text)) {
            dra_str_clip(unknown, unknown_size, name);
            return false;
        }
    }
    return true;
}

static void add_field(struct dra_buf *b, const char *key, const char *value)
{
    dra_buf_adds(b, b->len > 1 ? ", " : "");
    dra_buf_add_json_str(b, key);
    dra_buf_adds(b, ": ");
    dra_buf_add_json_str(b, value);
}

void log_format_json(struct dra_buf *b, const struct log_record *r, const char *dateformat,
                     const struct json *static_fields)
{
    char time[128];

    time_text(r, dateformat, time, sizeof time);
    dra_buf_adds(b, "{");
    add_field(b, "time", time);
    add_field(b, "level", log_level_name(r->level));
    add_field(b, "message", r->sentence);
    add_field(b, "event", r->event);
    for (size_t i = 0; i < r->pair_count; i++) {
        add_field(b, r->pairs[i].key, r->pairs[i].value);
    }
    for (const struct json *f = json_first(static_fields); f != NULL; f = json_next(f)) {
        char *value = json_print(f);

        if (value != NULL && json_name(f) != NULL) {
            dra_buf_adds(b, ", ");
            dra_buf_add_json_str(b, json_name(f));
            dra_buf_addf(b, ": %s", value);
        }
        free(value);
    }
    dra_buf_adds(b, "}");
}
