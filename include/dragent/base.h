/*
 * base.h - the ground floor that every room may use: errors, time, strings, LSNs, fixed sets.
 *
 * Promises: no malloc, no I/O, no clock, no globals.  Library dra_base_core.
 */
#ifndef DRAGENT_BASE_H
#define DRAGENT_BASE_H

#include <assert.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define DRA_CLEANUP(fn) __attribute__((cleanup(fn)))
#define DRA_PRINTF(f, a) __attribute__((format(printf, f, a)))
#define DRA_MUST_USE __attribute__((warn_unused_result))
#define DRA_NONNULL __attribute__((nonnull))
#define DRA_ARRAY_LEN(a) (sizeof(a) / sizeof((a)[0]))
#define DRA_BIT(n) (UINT64_C(1) << (n))
/* Give an owned pointer away: the variable becomes NULL. */
#define DRA_TAKE(p)                                                                                \
    __extension__({                                                                                \
        __typeof__(p) dra_taken_ = (p);                                                            \
        (p) = NULL;                                                                                \
        dra_taken_;                                                                                \
    })

/* ---- errors ------------------------------------------------------------------------------- */

#define DRA_ERR_MAP(X)                                                                             \
    X(OK, 0, "ok")                                                                                 \
    X(EINVAL, -1, "invalid")                                                                       \
    X(ENOMEM, -2, "out of memory")                                                                 \
    X(ETOOLONG, -3, "too long")                                                                    \
    X(EPARSE, -4, "cannot be parsed")                                                              \
    X(ETYPE, -5, "wrong type")                                                                     \
    X(ENOTFOUND, -6, "not found")                                                                  \
    X(EEXIST, -7, "exists already")                                                                \
    X(ERANGE, -8, "out of range")                                                                  \
    X(EIO, -9, "input/output error")                                                               \
    X(ESYS, -10, "system call failed")                                                             \
    X(ECONN, -11, "no connection")                                                                 \
    X(ETIMEDOUT, -12, "deadline passed")                                                           \
    X(ECANCELED, -13, "cancelled")                                                                 \
    X(EBUSY, -14, "busy")                                                                          \
    X(ESQL, -15, "sql error")                                                                      \
    X(EREMOTE, -16, "definite error from the other side")                                          \
    X(EAUTH, -17, "authentication")                                                                \
    X(ECONFLICT, -18, "compare failed")                                                            \
    X(ESTALE, -19, "stale answer")                                                                 \
    X(EPERM, -20, "not permitted")                                                                 \
    X(ECHILD, -21, "child process failed")                                                         \
    X(ESTATE, -22, "wrong state")

enum dra_code {
#define DRA_X(name, num, text) DRA_##name = (num),
    DRA_ERR_MAP(DRA_X)
#undef DRA_X
};

#define DRA_ERR_MSG_MAX 512
struct dra_err {
    int code;         /* enum dra_code, 0 = none */
    int sys;          /* errno or 0 */
    char sqlstate[6]; /* "" = none */
    char msg[DRA_ERR_MSG_MAX];
};

/* Fill *err (NULL is allowed) and return `code`, so that a caller can `return dra_err_set(...)`. */
int dra_err_set(struct dra_err *err, int code, const char *fmt, ...) DRA_PRINTF(3, 4);
/* The same with errno's text appended. */
int dra_err_sys(struct dra_err *err, int sys_errno, const char *fmt, ...) DRA_PRINTF(3, 4);
/* Put "prefix: " before the message; returns err->code. */
int dra_err_wrap(struct dra_err *err, const char *fmt, ...) DRA_PRINTF(2, 3);
const char *dra_code_to_str(int code);

/* "Cannot happen, but going on safely beats dying": true if x held (the bad case); in tests aborts. */
bool dra_never_hit(const char *expr, const char *file, int line);
#define DRA_NEVER(x) ((x) && dra_never_hit(#x, __FILE__, __LINE__))
extern void (*dra_never_hook)(const char *expr, const char *file, int line); /* set once at start */

/* ---- time: CLOCK_BOOTTIME instants and spans, in ns; one-field structs so that they don't mix -- */

struct dra_instant {
    int64_t ns; /* 0 = never / unset */
};
struct dra_span {
    int64_t ns;
};

static inline struct dra_span dra_ms(int64_t ms)
{
    return (struct dra_span){ms * 1000000};
}
static inline int64_t dra_span_ms(struct dra_span s)
{
    return s.ns / 1000000;
}
static inline struct dra_instant dra_after(struct dra_instant t, struct dra_span s)
{
    return (struct dra_instant){t.ns + s.ns};
}
static inline struct dra_instant dra_before(struct dra_instant t, struct dra_span s)
{
    return (struct dra_instant){t.ns - s.ns};
}
static inline struct dra_span dra_since(struct dra_instant later, struct dra_instant earlier)
{
    return (struct dra_span){later.ns - earlier.ns};
}
static inline bool dra_is_set(struct dra_instant t)
{
    return t.ns != 0;
}
static inline bool dra_reached(struct dra_instant now, struct dra_instant t)
{
    return now.ns >= t.ns;
}
/* The earlier of two, where unset means "never". */
static inline struct dra_instant dra_earlier(struct dra_instant a, struct dra_instant b)
{
    if (a.ns == 0) {
        return b;
    }
    return b.ns == 0 || a.ns < b.ns ? a : b;
}
static inline struct dra_instant dra_later(struct dra_instant a, struct dra_instant b)
{
    return a.ns > b.ns ? a : b;
}

/* ---- three-valued facts --------------------------------------------------------------------- */

enum dra_tri { DRA_UNKNOWN = 0, DRA_NO = 1, DRA_YES = 2 };
const char *dra_tri_to_str(enum dra_tri t); /* "unknown" "no" "yes" */
static inline enum dra_tri dra_tri_of(bool b)
{
    return b ? DRA_YES : DRA_NO;
}

/* ---- strings and numbers ----------------------------------------------------------------------- */

/* Copy a whole string or fail with DRA_ETOOLONG (dst is then ""); never cuts silently. */
DRA_MUST_USE int dra_str_copy(char *dst, size_t dst_size, const char *src);
DRA_MUST_USE int dra_str_copy_n(char *dst, size_t dst_size, const char *src, size_t len);
/* Copy what fits, for messages only: an over-long text ends in "...". */
void dra_str_clip(char *dst, size_t dst_size, const char *src);
void dra_str_clipv(char *dst, size_t dst_size, const char *fmt, va_list ap) __attribute__((format(printf, 3, 0)));
/* snprintf that fails with DRA_ETOOLONG instead of cutting. */
DRA_MUST_USE int dra_str_printf(char *dst, size_t dst_size, const char *fmt, ...) DRA_PRINTF(3, 4);
bool dra_str_eq(const char *a, const char *b);      /* NULL equals only NULL */
bool dra_str_eq_nocase(const char *a, const char *b); /* ASCII only, no locale */
bool dra_str_starts(const char *s, const char *prefix);
/* Strict decimal integers: the whole of s[0..len), optional '-', in range; else DRA_EPARSE/DRA_ERANGE. */
DRA_MUST_USE int dra_parse_i64(const char *s, size_t len, int64_t min, int64_t max, int64_t *out);
DRA_MUST_USE int dra_parse_u64(const char *s, size_t len, uint64_t *out);

/* LSN text "X/Y" <-> byte position; timelines are plain uint32. */
#define DRA_LSN_STR_MAX 18
DRA_MUST_USE int dra_lsn_parse(const char *s, uint64_t *out_lsn);
void dra_lsn_format(uint64_t lsn, char out[DRA_LSN_STR_MAX]);

/* splitmix64: a small seeded generator for jitter and tests. */
uint64_t dra_rand_next(uint64_t *state);

#endif
