/*
 * yaml_scalar.c - what a plain scalar means in YAML 1.1 as PyYAML's safe loader reads it (CFG-03).
 *
 * Dates and .inf/.nan stay strings: JSON, which carries our settings on, has no word for them.
 */
#include "json_node.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool one_of(const char *s, size_t len, const char *const *words, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (strlen(words[i]) == len && memcmp(words[i], s, len) == 0) {
            return true;
        }
    }
    return false;
}

/* Characters of `set` at p; returns behind them. */
static const char *skip(const char *p, const char *end, const char *set)
{
    while (p < end && *p != '\0' && strchr(set, *p) != NULL) {
        p++;
    }
    return p;
}

static const char *skip_sign(const char *p, const char *end)
{
    return p < end && (*p == '-' || *p == '+') ? p + 1 : p;
}

/* One or more ":MM"; NULL if there is none. */
static const char *skip_sixties(const char *p, const char *end)
{
    const char *start = p;

    while (p < end && *p == ':') {
        const char *q = skip(p + 1, end, "0123456789");

        if (q == p + 1 || q > p + 3 || (q == p + 3 && p[1] > '5')) {
            return NULL;
        }
        p = q;
    }
    return p == start ? NULL : p;
}

static bool take_integer(bool negative, const char *digits, unsigned base, struct yaml_scalar *out)
{
    uint64_t v = 0;

    if (*digits == '\0') {
        return false;
    }
    for (const char *p = digits; *p != '\0'; p++) {
        uint64_t d = *p <= '9' ? (uint64_t)(*p - '0') : (uint64_t)((*p | 32) - 'a' + 10);

        if (v > (UINT64_MAX - d) / base) {
            return false;
        }
        v = v * base + d;
    }
    out->type = JSON_NUMBER;
    (void)snprintf(out->literal, sizeof out->literal, "%s%llu", negative && v != 0 ? "-" : "",
                   (unsigned long long)v);
    return true;
}

/* "190:20:30" in base 60, "." and a fraction allowed at the end. */
static double sixties_value(const char *s)
{
    double v = 0;

    for (;;) {
        char *end;
        double part = strtod(s, &end);

        v = v * 60 + part;
        if (*end != ':') {
            return v;
        }
        s = end + 1;
    }
}

static bool resolve_int(const char *s, size_t len, const char *plain, struct yaml_scalar *out)
{
    const char *end = s + len;
    const char *p = skip_sign(s, end);
    bool negative = *plain == '-';
    const char *digits = plain + (*plain == '-' || *plain == '+' ? 1 : 0);

    if (p == end) {
        return false;
    }
    if (*p == '0' && end - p > 2 && p[1] == 'b' && skip(p + 2, end, "01_") == end) {
        return take_integer(negative, digits + 2, 2, out);
    }
    if (*p == '0' && end - p > 2 && p[1] == 'x' && skip(p + 2, end, "0123456789abcdefABCDEF_") == end) {
        return take_integer(negative, digits + 2, 16, out);
    }
    if (*p == '0') {
        return skip(p + 1, end, "01234567_") == end && take_integer(negative, digits, 8, out);
    }
    if (*p < '1' || *p > '9') {
        return false;
    }
    p = skip(p, end, "0123456789_");
    if (p == end) {
        if (take_integer(negative, digits, 10, out)) {
            return true;
        }
        out->type = JSON_NUMBER; /* beyond 64 bits: keep it as it is */
        return dra_str_printf(out->literal, sizeof out->literal, "%s%s", negative ? "-" : "", digits) ==
               DRA_OK;
    }
    if (skip_sixties(p, end) == end) {
        double v = sixties_value(digits);

        if (v < 9e15) {
            out->type = JSON_NUMBER;
            (void)snprintf(out->literal, sizeof out->literal, "%s%.0f", negative ? "-" : "", v);
            return true;
        }
    }
    return false;
}

static bool resolve_float(const char *s, size_t len, const char *plain, struct yaml_scalar *out)
{
    const char *end = s + len;
    const char *p = skip_sign(s, end);
    bool negative = *plain == '-';
    bool sixties = false;
    double v;

    if (p < end && *p >= '0' && *p <= '9') {
        p = skip(p, end, "0123456789_");
        if (p < end && *p == ':') {
            p = skip_sixties(p, end);
            sixties = true;
        }
        if (p == NULL || p == end || *p != '.') {
            return false;
        }
        p = skip(p + 1, end, "0123456789_");
    } else if (len > 1 && s[0] == '.' && s[1] >= '0' && s[1] <= '9') {
        p = skip(s + 1, end, "0123456789_");
    } else {
        return false;
    }
    if (p < end && !sixties && (*p == 'e' || *p == 'E')) {
        const char *exponent = skip_sign(p + 1, end);

        p = skip(exponent, end, "0123456789");
        if (exponent[-1] == 'e' || exponent[-1] == 'E' || p == exponent) {
            return false; /* the sign is required: 1.0e+3 */
        }
    }
    if (p != end) {
        return false;
    }
    v = sixties_value(plain + (*plain == '-' || *plain == '+' ? 1 : 0));
    out->type = JSON_NUMBER;
    json_double_repr(negative ? -v : v, out->literal, sizeof out->literal);
    return json_is_number_literal(out->literal, strlen(out->literal)); /* not "inf" */
}

static size_t digits_at(const char *p, const char *end)
{
    return (size_t)(skip(p, end, "0123456789") - p);
}

/* 2026-03-01, or with a time: 2026-3-1 10:00:00.5 +01:00. */
static bool is_timestamp(const char *s, size_t len)
{
    const char *end = s + len;
    const char *p = s;
    size_t n;

    if (digits_at(p, end) != 4 || end - p < 8 || p[4] != '-') {
        return false;
    }
    n = digits_at(p + 5, end);
    p += 5 + n;
    if (n < 1 || n > 2 || p >= end || *p != '-') {
        return false;
    }
    n = digits_at(p + 1, end);
    p += 1 + n;
    if (n < 1 || n > 2) {
        return false;
    }
    if (p == end) {
        return len == 10;
    }
    if (*p != 'T' && *p != 't' && *p != ' ' && *p != '\t') {
        return false;
    }
    p = skip(p, end, "Tt \t");
    n = digits_at(p, end);
    p += n;
    if (n < 1 || n > 2 || end - p < 6 || p[0] != ':' || digits_at(p + 1, end) != 2 || p[3] != ':' ||
        digits_at(p + 4, end) != 2) {
        return false;
    }
    return skip(p + 6, end, "0123456789.:+-Z \t") == end;
}

void yaml_scalar_resolve(const char *s, size_t len, struct yaml_scalar *out)
{
    static const char *const truths[] = {"yes", "Yes", "YES", "true", "True", "TRUE", "on", "On", "ON"};
    static const char *const lies[] = {"no",    "No", "NO",  "false", "False",
                                       "FALSE", "off", "Off", "OFF"};
    static const char *const nulls[] = {"", "~", "null", "Null", "NULL"};
    static const char *const specials[] = {".inf",  ".Inf",  ".INF",  "+.inf", "+.Inf", "+.INF", "-.inf",
                                           "-.Inf", "-.INF", ".nan",  ".NaN",  ".NAN",  "="};
    char plain[64];
    size_t n = 0;

    *out = (struct yaml_scalar){.type = JSON_STRING};
    if (one_of(s, len, nulls, DRA_ARRAY_LEN(nulls))) {
        out->type = JSON_NULL;
        return;
    }
    if (one_of(s, len, truths, DRA_ARRAY_LEN(truths)) || one_of(s, len, lies, DRA_ARRAY_LEN(lies))) {
        out->type = JSON_BOOL;
        out->truth = one_of(s, len, truths, DRA_ARRAY_LEN(truths));
        return;
    }
    out->is_merge = len == 2 && memcmp(s, "<<", 2) == 0;
    out->must_quote = out->is_merge || one_of(s, len, specials, DRA_ARRAY_LEN(specials)) ||
                      is_timestamp(s, len);
    if (out->must_quote) {
        return;
    }
    for (size_t i = 0; i < len; i++) {
        if (s[i] == '_') {
            continue;
        }
        if (n + 1 >= sizeof plain) {
            return;
        }
        plain[n++] = s[i];
    }
    plain[n] = '\0';
    if (!resolve_int(s, len, plain, out) && !resolve_float(s, len, plain, out)) {
        out->type = JSON_STRING;
        out->literal[0] = '\0';
    }
}
