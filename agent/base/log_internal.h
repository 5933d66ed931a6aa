/*
 * log_internal.h - what log.c (the sink) and log_format.c (the shape of a line) share.
 */
#ifndef BASE_LOG_INTERNAL_H
#define BASE_LOG_INTERNAL_H

#include <dragent/io.h>

#include <time.h>

#define LOG_PAIRS_MAX 32

struct log_pair {
    const char *key;
    const char *value;
};

/* One event; all pointers borrowed. */
struct log_record {
    enum log_level level;
    const char *event;
    const char *sentence;
    struct log_pair pairs[LOG_PAIRS_MAX];
    size_t pair_count;
    struct timespec wall;
    char time[DRA_WALL_STR_MAX];
    long tid;
};

const char *log_level_name(enum log_level lv);
void log_format_plain(struct dra_buf *b, const struct log_record *r, const char *format,
                      const char *dateformat);
void log_format_json(struct dra_buf *b, const struct log_record *r, const char *dateformat,
                     const struct json *static_fields);
/* False if an attribute is unknown; the first one's name is then in unknown. */
bool log_format_check(const char *format, char *unknown, size_t unknown_size);

#endif
