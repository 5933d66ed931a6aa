/*
 * parse.c - values as people write them: sizes, durations, booleans, integers, timestamps, addresses.
 *
 * Strict: the whole text, exact integer arithmetic, no locale, no floating point; rounding is half to even.
 */
#include <dragent/conf.h>

#include "keys.h"

#include <stdio.h>
#include <string.h>

struct unit {
    const char *name; /* "" = no unit given */
    int64_t num, den; /* times num / den */
};

/* A decimal number: mantissa * 10^exp10. */
struct decimal {
    bool negative;
    uint64_t mantissa;
    int exp10;
    bool whole; /* written without point and exponent */
};

static const struct unit size_units[] = {
    {"", 1, 1},           {"B", 1, 1},          {"kB", INT64_C(1) << 10, 1},
    {"MB", INT64_C(1) << 20, 1}, {"GB", INT64_C(1) << 30, 1}, {"TB", INT64_C(1) << 40, 1},
};
static const struct unit ms_units[] = {
    {"", 1000, 1},  {"us", 1, 1000},    {"ms", 1, 1},        {"s", 1000, 1},
    {"min", 60000, 1}, {"h", 3600000, 1}, {"d", 86400000, 1},
};
static const struct unit no_units[] = {{"", 1, 1}};

void conf_fmt(char *dst, size_t dst_size, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    (void)vsnprintf(dst, dst_size, fmt, ap);
    va_end(ap);
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static int digit_value(char c, int base)
{
    int v = is_digit(c) ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : c >= 'A' && c <= 'F' ? c - 'A' + 10 : 99;
    return v < base ? v : -1;
}

static bool mantissa_add(uint64_t *m, int base, int digit)
{
    if (*m > (UINT64_MAX - 15) / 16) {
        return false;
    }
    *m = *m * (uint64_t)base + (uint64_t)digit;
    return true;
}

/* Reads the number at *ps and moves *ps behind it. */
static int scan_number(const char **ps, struct decimal *out)
{
    const char *s = *ps;
    int base = 10, digits = 0, v;
    *out = (struct decimal){.whole = true};
    if (*s == '-' || *s == '+') {
        out->negative = *s++ == '-';
    }
    if (s[0] == '0' && (s[1] == 'x' || s[1] == 'X')) {
        base = 16;
        s += 2;
    } else if (s[0] == '0' && is_digit(s[1])) {
        size_t n = strspn(s, "0123456789");
        if (s[n] != '.' && s[n] != 'e' && s[n] != 'E') {
            base = 8;
        }
    }
    while ((v = digit_value(*s, base)) >= 0) {
        if (!mantissa_add(&out->mantissa, base, v)) {
            return DRA_ERANGE;
        }
        digits++;
        s++;
    }
    if (base == 10 && *s == '.') {
        out->whole = false;
        for (s++; is_digit(*s); s++, digits++) {
            if (!mantissa_add(&out->mantissa, 10, *s - '0')) {
                return DRA_ERANGE;
            }
            out->exp10--;
        }
    }
    if (digits == 0) {
        return DRA_EPARSE;
    }
    if (base == 10 && (*s == 'e' || *s == 'E')) {
        const char *e = s + 1;
        bool negative = *e == '-';
        int exp = 0;
        if (*e == '-' || *e == '+') {
            e++;
        }
        if (!is_digit(*e)) {
            return DRA_EPARSE;
        }
        for (; is_digit(*e); e++) {
            exp = exp < 1000 ? exp * 10 + (*e - '0') : exp;
        }
        out->whole = false;
        out->exp10 += negative ? -exp : exp;
        s = e;
    }
    *ps = s;
    return DRA_OK;
}

/* mantissa * 10^exp10 * num / den, rounded half to even. */
static int decimal_scale(const struct decimal *d, int64_t num, int64_t den, int64_t *out)
{
    __extension__ typedef unsigned __int128 wide; /* ISO C has no type of this width */
    wide n = (wide)d->mantissa * (wide)num;
    wide m = (wide)den, q, rest;
    for (int e = d->exp10; e > 0 && n != 0; e--) {
        if (n > (wide)UINT64_MAX * 1000000) {
            return DRA_ERANGE;
        }
        n *= 10;
    }
    for (int e = d->exp10; e < 0; e++) {
        if (m > (wide)UINT64_MAX * 1000000) {
            n /= 10; /* far below any digit that counts */
        } else {
            m *= 10;
        }
    }
    q = n / m;
    rest = n % m;
    if (rest * 2 > m || (rest * 2 == m && (q & 1) != 0)) {
        q++;
    }
    if (q > (wide)INT64_MAX) {
        return DRA_ERANGE;
    }
    *out = d->negative ? -(int64_t)q : (int64_t)q;
    return DRA_OK;
}

static int parse_quantity(const char *s, const struct unit *units, size_t n_units, int64_t *out)
{
    struct decimal d;
    size_t len;
    int rc;
    s += strspn(s, " \t");
    rc = scan_number(&s, &d);
    if (rc != 0) {
        return rc;
    }
    s += strspn(s, " \t");
    len = strlen(s);
    while (len > 0 && (s[len - 1] == ' ' || s[len - 1] == '\t')) {
        len--;
    }
    for (size_t i = 0; i < n_units; i++) {
        if (strlen(units[i].name) == len && memcmp(units[i].name, s, len) == 0) {
            return decimal_scale(&d, units[i].num, units[i].den, out);
        }
    }
    return DRA_EPARSE;
}

int conf_parse_size(const char *s, int64_t *out_bytes)
{
    return s == NULL ? DRA_EPARSE : parse_quantity(s, size_units, DRA_ARRAY_LEN(size_units), out_bytes);
}

int conf_parse_duration(const struct json *v, struct dra_span *out)
{
    char text[64];
    int64_t ms;
    int rc;
    if (json_type_of(v) == JSON_BOOL || !conf_text(v, text, sizeof text)) {
        return DRA_ETYPE;
    }
    rc = parse_quantity(text, ms_units, DRA_ARRAY_LEN(ms_units), &ms);
    if (rc != 0) {
        return rc;
    }
    if (ms > INT64_MAX / 1000000 || ms < -(INT64_MAX / 1000000)) {
        return DRA_ERANGE;
    }
    *out = dra_ms(ms);
    return DRA_OK;
}

int conf_parse_bool(const char *s, bool *out)
{
    static const char *const yes[] = {"on", "true", "yes", "1"};
    static const char *const no[] = {"off", "false", "no", "0"};
    for (size_t i = 0; s != NULL && i < DRA_ARRAY_LEN(yes); i++) {
        if (dra_str_eq_nocase(s, yes[i]) || dra_str_eq_nocase(s, no[i])) {
            *out = dra_str_eq_nocase(s, yes[i]);
            return DRA_OK;
        }
    }
    return DRA_EPARSE;
}

bool conf_text(const struct json *v, char *out, size_t out_size)
{
    const char *s = json_text(v);
    if (s != NULL) {
        return dra_str_copy(out, out_size, s) == 0;
    }
    if (json_type_of(v) != JSON_BOOL && json_type_of(v) != JSON_NUMBER) {
        return false;
    }
    return json_source_text(v, out, out_size);
}

int conf_int(const struct json *v, int64_t *out)
{
    char text[64];
    if (json_type_of(v) == JSON_NUMBER && json_i64(v, "", out, NULL) == 0) {
        return DRA_OK; /* YAML has read octal, hexadecimal and 1_000 already */
    }
    if (json_type_of(v) == JSON_BOOL || !conf_text(v, text, sizeof text)) {
        return DRA_EPARSE;
    }
    return parse_quantity(text, no_units, 1, out);
}

int conf_bool(const struct json *v, bool *out)
{
    char text[16];
    if (json_type_of(v) == JSON_BOOL) {
        *out = json_is_true(v);
        return DRA_OK;
    }
    return conf_text(v, text, sizeof text) ? conf_parse_bool(text, out) : DRA_EPARSE;
}

/* ---- timestamps (REST-112) ------------------------------------------------------------------------ */

static bool take_int(const char **ps, int digits, int min, int max, int *out)
{
    int v = 0;
    for (int i = 0; i < digits; i++) {
        if (!is_digit((*ps)[i])) {
            return false;
        }
        v = v * 10 + ((*ps)[i] - '0');
    }
    *ps += digits;
    *out = v;
    return v >= min && v <= max;
}

static bool take_char(const char **ps, char c)
{
    if (**ps != c) {
        return false;
    }
    (*ps)++;
    return true;
}

static int days_in_month(int y, int m)
{
    static const int days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    bool leap = (y % 4 == 0 && y % 100 != 0) || y % 400 == 0;
    return m == 2 && leap ? 29 : days[m - 1];
}

static int64_t days_from_civil(int y, int m, int d)
{
    int64_t yy = m <= 2 ? y - 1 : y;
    int64_t era = (yy >= 0 ? yy : yy - 399) / 400;
    int64_t yoe = yy - era * 400;
    int64_t doy = (153 * (m + (m > 2 ? -3 : 9)) + 2) / 5 + d - 1;
    int64_t doe = yoe * 365 + yoe / 4 - yoe / 100 + doy;
    return era * 146097 + doe - 719468;
}

/* Zone: Z, +HH, +HHMM, +HH:MM.  false if what is left is none. */
static bool take_zone(const char **ps, int64_t *out_offset_s, bool *out_has)
{
    int h, m = 0;
    bool negative;
    *out_has = false;
    *out_offset_s = 0;
    if (**ps == '\0') {
        return true;
    }
    *out_has = true;
    if (**ps == 'Z' || **ps == 'z') {
        (*ps)++;
        return true;
    }
    if (**ps != '+' && **ps != '-') {
        return false;
    }
    negative = *(*ps)++ == '-';
    if (!take_int(ps, 2, 0, 23, &h)) {
        return false;
    }
    if (**ps != '\0') {
        (void)take_char(ps, ':'); /* optional */
        if (!take_int(ps, 2, 0, 59, &m)) {
            return false;
        }
    }
    *out_offset_s = (negative ? -1 : 1) * (h * 3600 + m * 60);
    return true;
}

int conf_parse_timestamp(const char *s, int64_t *out_epoch_s, bool *out_has_zone)
{
    int y, mo, d, h, mi, sec = 0;
    int64_t offset;
    bool has;
    if (s == NULL || !take_int(&s, 4, 1, 9999, &y) || !take_char(&s, '-') || !take_int(&s, 2, 1, 12, &mo) ||
        !take_char(&s, '-') || !take_int(&s, 2, 1, 31, &d) || d > days_in_month(y, mo)) {
        return DRA_EPARSE;
    }
    if ((!take_char(&s, 'T') && !take_char(&s, ' ')) || !take_int(&s, 2, 0, 23, &h) || !take_char(&s, ':') ||
        !take_int(&s, 2, 0, 59, &mi)) {
        return DRA_EPARSE;
    }
    if (take_char(&s, ':')) {
        if (!take_int(&s, 2, 0, 59, &sec)) {
            return DRA_EPARSE;
        }
        if (take_char(&s, '.')) {
            size_t n = strspn(s, "0123456789");
            if (n < 1 || n > 6) {
                return DRA_EPARSE;
            }
            s += n;
        }
    }
    s += strspn(s, " ");
    if (!take_zone(&s, &offset, &has) || *s != '\0') {
        return DRA_EPARSE;
    }
    *out_epoch_s = days_from_civil(y, mo, d) * 86400 + h * 3600 + mi * 60 + sec - offset;
    *out_has_zone = has;
    return DRA_OK;
}

/* ---- addresses --------------------------------------------------------------------------------------- */

/* One host without its brackets and blanks. */
static int add_host(char *host, size_t size, const char *p, size_t n)
{
    size_t have = strlen(host);
    while (n > 0 && (*p == ' ' || *p == '[')) {
        p++;
        n--;
    }
    while (n > 0 && (p[n - 1] == ' ' || p[n - 1] == ']')) {
        n--;
    }
    if (have > 0) {
        if (have + 1 >= size) {
            return DRA_ETOOLONG;
        }
        host[have++] = ',';
        host[have] = '\0';
    }
    return dra_str_copy_n(host + have, size - have, p, n);
}

int conf_split_addr(const char *s, int default_port, char *host, size_t host_size, int *out_port)
{
    const char *colon = strrchr(s, ':');
    const char *bracket = strrchr(s, ']');
    size_t n;
    int64_t port = default_port;
    host[0] = '\0';
    if (colon != NULL && bracket != NULL && bracket > colon) {
        colon = NULL; /* "[::1]": the colon belongs to the address */
    }
    if (colon == NULL && default_port < 0) {
        return DRA_EPARSE;
    }
    if (colon != NULL && dra_parse_i64(colon + 1, strlen(colon + 1), 1, 65535, &port) != 0) {
        return DRA_EPARSE;
    }
    n = colon == NULL ? strlen(s) : (size_t)(colon - s);
    for (const char *p = s, *end = s + n;;) {
        const char *comma = memchr(p, ',', (size_t)(end - p));
        const char *stop = comma == NULL ? end : comma;
        if (add_host(host, host_size, p, (size_t)(stop - p)) != 0) {
            return DRA_ETOOLONG;
        }
        if (comma == NULL) {
            break;
        }
        p = comma + 1;
    }
    *out_port = (int)port;
    return DRA_OK;
}

int conf_url_host(const char *host, char *out, size_t out_size)
{
    size_t n = strcspn(host, ",");
    bool v6 = memchr(host, ':', n) != NULL;
    return dra_str_printf(out, out_size, v6 ? "[%.*s]" : "%.*s", (int)n, host);
}
