/*
 * str.c - fixed strings that never cut silently (the `clip` family, for messages, says so), strict numbers.
 *
 * Promises: no locale, no malloc.
 */
#include <dragent/base.h>

#include <stdio.h>
#include <string.h>

const char *dra_tri_to_str(enum dra_tri t)
{
    switch (t) {
    case DRA_UNKNOWN:
        return "unknown";
    case DRA_NO:
        return "no";
    case DRA_YES:
        return "yes";
    }
    return "unknown";
}

int dra_str_copy_n(char *dst, size_t dst_size, const char *src, size_t len)
{
    if (dst_size == 0 || len >= dst_size) {
        if (dst_size > 0) {
            dst[0] = '\0';
        }
        return DRA_ETOOLONG;
    }
    if (len > 0) {
        memmove(dst, src, len);
    }
    dst[len] = '\0';
    return DRA_OK;
}

int dra_str_copy(char *dst, size_t dst_size, const char *src)
{
    return dra_str_copy_n(dst, dst_size, src, strlen(src));
}

/* The text in dst fills it and was cut: say so, without leaving a piece of a UTF-8 character. */
static void mark_cut(char *dst, size_t dst_size)
{
    size_t at;

    if (dst_size < 4) {
        return;
    }
    at = dst_size - 4;
    while (at > 0 && ((unsigned char)dst[at] & 0xC0U) == 0x80U) {
        at--;
    }
    memcpy(dst + at, "...", 4);
}

void dra_str_clip(char *dst, size_t dst_size, const char *src)
{
    size_t n = strlen(src);

    if (dst_size == 0) {
        return;
    }
    if (n < dst_size) {
        memmove(dst, src, n + 1);
        return;
    }
    memmove(dst, src, dst_size - 1);
    dst[dst_size - 1] = '\0';
    mark_cut(dst, dst_size);
}

void dra_str_clipv(char *dst, size_t dst_size, const char *fmt, va_list ap)
{
    int n = vsnprintf(dst, dst_size, fmt, ap);

    if (n < 0 && dst_size > 0) {
        dst[0] = '\0';
    } else if (n >= 0 && (size_t)n >= dst_size) {
        mark_cut(dst, dst_size);
    }
}

int dra_str_printf(char *dst, size_t dst_size, const char *fmt, ...)
{
    va_list ap;
    int n;

    va_start(ap, fmt);
    n = vsnprintf(dst, dst_size, fmt, ap);
    va_end(ap);
    if (n < 0 || (size_t)n >= dst_size) {
        if (dst_size > 0) {
            dst[0] = '\0';
        }
        return DRA_ETOOLONG;
    }
    return DRA_OK;
}

bool dra_str_eq(const char *a, const char *b)
{
    return a == b || (a != NULL && b != NULL && strcmp(a, b) == 0);
}

static char lower(char c)
{
    return c >= 'A' && c <= 'Z' ? (char)(c - 'A' + 'a') : c;
}

bool dra_str_eq_nocase(const char *a, const char *b)
{
    if (a == NULL || b == NULL) {
        return a == b;
    }
    while (*a != '\0' && lower(*a) == lower(*b)) {
        a++;
        b++;
    }
    return lower(*a) == lower(*b);
}

bool dra_str_starts(const char *s, const char *prefix)
{
    return s != NULL && prefix != NULL && strncmp(s, prefix, strlen(prefix)) == 0;
}

int dra_parse_u64(const char *s, size_t len, uint64_t *out)
{
    bool fits = true;
    uint64_t v = 0;

    if (len == 0) {
        return DRA_EPARSE;
    }
    for (size_t i = 0; i < len; i++) {
        uint64_t digit;

        if (s[i] < '0' || s[i] > '9') {
            return DRA_EPARSE; /* also behind a number that is too large */
        }
        digit = (uint64_t)(s[i] - '0');
        fits = fits && v <= (UINT64_MAX - digit) / 10;
        v = fits ? v * 10 + digit : 0;
    }
    if (!fits) {
        return DRA_ERANGE;
    }
    *out = v;
    return DRA_OK;
}

int dra_parse_i64(const char *s, size_t len, int64_t min, int64_t max, int64_t *out)
{
    bool negative = len > 0 && s[0] == '-';
    uint64_t limit = (uint64_t)INT64_MAX + (negative ? 1 : 0);
    uint64_t magnitude = 0;
    int64_t v;
    int rc = dra_parse_u64(negative ? s + 1 : s, negative ? len - 1 : len, &magnitude);

    if (rc != DRA_OK) {
        return rc;
    }
    if (magnitude > limit) {
        return DRA_ERANGE;
    }
    v = negative && magnitude > 0 ? -(int64_t)(magnitude - 1) - 1 : (int64_t)magnitude;
    if (v < min || v > max) {
        return DRA_ERANGE;
    }
    *out = v;
    return DRA_OK;
}
