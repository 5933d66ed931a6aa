/*
 * lsn.c - WAL positions: "X/Y" as PostgreSQL prints them (pg_lsn), and 64-bit byte positions.
 */
#include <dragent/base.h>

#include <stdio.h>

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9') {
        return c - '0';
    }
    if (c >= 'a' && c <= 'f') {
        return c - 'a' + 10;
    }
    if (c >= 'A' && c <= 'F') {
        return c - 'A' + 10;
    }
    return -1;
}

/* 1 to 8 hex digits at *s; moves *s behind them. */
static int parse_half(const char **s, uint64_t *out)
{
    uint64_t v = 0;
    int n = 0;

    while (hex_digit(**s) >= 0) {
        if (++n > 8) {
            return DRA_EPARSE;
        }
        v = (v << 4) | (uint64_t)hex_digit(**s);
        (*s)++;
    }
    if (n == 0) {
        return DRA_EPARSE;
    }
    *out = v;
    return DRA_OK;
}

int dra_lsn_parse(const char *s, uint64_t *out_lsn)
{
    uint64_t high = 0;
    uint64_t low = 0;

    if (s == NULL || parse_half(&s, &high) != DRA_OK || *s != '/') {
        return DRA_EPARSE;
    }
    s++;
    if (parse_half(&s, &low) != DRA_OK || *s != '\0') {
        return DRA_EPARSE;
    }
    *out_lsn = (high << 32) | low;
    return DRA_OK;
}

void dra_lsn_format(uint64_t lsn, char out[DRA_LSN_STR_MAX])
{
    (void)snprintf(out, DRA_LSN_STR_MAX, "%X/%X", (unsigned)(lsn >> 32),
                   (unsigned)(lsn & UINT32_MAX));
}
