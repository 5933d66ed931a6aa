/*
 * buf.c - growing buffers with a maximum, JSON string literals, base64.
 *
 * Promises: never beyond `max` bytes; a failed add leaves what was there and sets the sticky `failed`.
 */
#include "json_node.h"

#include <dragent/text.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void dra_buf_init(struct dra_buf *b, size_t max)
{
    *b = (struct dra_buf){.max = max};
}

void dra_buf_deinit(struct dra_buf *b)
{
    free(b->p);
    *b = (struct dra_buf){.max = b->max};
}

void dra_buf_reset(struct dra_buf *b)
{
    b->len = 0;
    b->failed = false;
    if (b->p != NULL) {
        b->p[0] = '\0';
    }
}

/* Make room for n more bytes and a NUL. */
static bool buf_reserve(struct dra_buf *b, size_t n)
{
    size_t want;
    size_t cap;
    char *p;

    if (b->failed) {
        return false;
    }
    if (b->len > b->max || n > b->max - b->len || b->max == SIZE_MAX) {
        b->failed = true;
        return false;
    }
    want = b->len + n + 1;
    if (want <= b->cap) {
        return true;
    }
    cap = b->cap < 64 ? 64 : b->cap;
    while (cap < want) {
        cap = cap > SIZE_MAX / 2 ? want : cap * 2;
    }
    if (cap > b->max + 1) {
        cap = b->max + 1;
    }
    p = realloc(b->p, cap);
    if (p == NULL) {
        b->failed = true;
        return false;
    }
    b->p = p;
    b->cap = cap;
    return true;
}

void dra_buf_add(struct dra_buf *b, const void *p, size_t n)
{
    if (!buf_reserve(b, n)) {
        return;
    }
    if (n > 0) {
        memcpy(b->p + b->len, p, n);
    }
    b->len += n;
    b->p[b->len] = '\0';
}

void dra_buf_adds(struct dra_buf *b, const char *s)
{
    dra_buf_add(b, s, strlen(s));
}

void dra_buf_addf(struct dra_buf *b, const char *fmt, ...)
{
    va_list ap;
    va_list ap_again;
    int n;

    va_start(ap, fmt);
    va_copy(ap_again, ap);
    n = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    if (n < 0) {
        b->failed = true;
    } else if (buf_reserve(b, (size_t)n)) {
        (void)vsnprintf(b->p + b->len, (size_t)n + 1, fmt, ap_again);
        b->len += (size_t)n;
    }
    va_end(ap_again);
}

const char *dra_buf_str(const struct dra_buf *b)
{
    return b->p != NULL ? b->p : "";
}

char *dra_buf_take(struct dra_buf *b)
{
    char *p;

    if (!b->failed && b->p == NULL) {
        dra_buf_add(b, "", 0);
    }
    if (b->failed) {
        return NULL;
    }
    p = DRA_TAKE(b->p);
    b->len = 0;
    b->cap = 0;
    return p;
}

size_t dra_utf8_char_len(const char *p, size_t n)
{
    const unsigned char *u = (const unsigned char *)p;
    size_t len;

    if (n == 0) {
        return 0;
    }
    if (u[0] < 0x80) {
        return 1;
    }
    len = u[0] >= 0xC2 && u[0] <= 0xDF ? 2 : (u[0] & 0xF0) == 0xE0 ? 3 : u[0] >= 0xF0 && u[0] <= 0xF4 ? 4 : 0;
    if (len == 0 || len > n) {
        return 0;
    }
    for (size_t i = 1; i < len; i++) {
        if ((u[i] & 0xC0) != 0x80) {
            return 0;
        }
    }
    /* over-long forms, surrogates, beyond U+10FFFF */
    if ((u[0] == 0xE0 && u[1] < 0xA0) || (u[0] == 0xED && u[1] > 0x9F) ||
        (u[0] == 0xF0 && u[1] < 0x90) || (u[0] == 0xF4 && u[1] > 0x8F)) {
        return 0;
    }
    return len;
}

uint32_t dra_utf8_char_get(const char *p, size_t char_len)
{
    const unsigned char *u = (const unsigned char *)p;
    uint32_t v = char_len == 1   ? u[0]
                 : char_len == 2 ? u[0] & 0x1Fu
                 : char_len == 3 ? u[0] & 0x0Fu
                                 : u[0] & 0x07u;

    for (size_t i = 1; i < char_len; i++) {
        v = (v << 6) | (u[i] & 0x3Fu);
    }
    return v;
}

void dra_buf_add_json_str(struct dra_buf *b, const char *s)
{
    size_t len = strlen(s);

    dra_buf_adds(b, "\"");
    for (size_t i = 0; i < len;) {
        size_t n = dra_utf8_char_len(s + i, len - i);

        if (n == 0) {
            dra_buf_adds(b, "\xEF\xBF\xBD"); /* U+FFFD: the output is valid whatever came in */
            i++;
            continue;
        }
        if (n > 1) {
            dra_buf_add(b, s + i, n);
        } else if (s[i] == '"' || s[i] == '\\') {
            dra_buf_addf(b, "\\%c", s[i]);
        } else if (s[i] == '\n') {
            dra_buf_adds(b, "\\n");
        } else if (s[i] == '\r') {
            dra_buf_adds(b, "\\r");
        } else if (s[i] == '\t') {
            dra_buf_adds(b, "\\t");
        } else if (s[i] == '\b') {
            dra_buf_adds(b, "\\b");
        } else if (s[i] == '\f') {
            dra_buf_adds(b, "\\f");
        } else if ((unsigned char)s[i] < 0x20) {
            dra_buf_addf(b, "\\u%04x", (unsigned)(unsigned char)s[i]);
        } else {
            dra_buf_add(b, s + i, 1);
        }
        i += n;
    }
    dra_buf_adds(b, "\"");
}

void dra_buf_add_b64(struct dra_buf *b, const void *p, size_t n)
{
    static const char alphabet[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const unsigned char *u = p;

    for (size_t i = 0; i < n; i += 3) {
        uint32_t v = (uint32_t)u[i] << 16;
        char four[4];

        if (i + 1 < n) {
            v |= (uint32_t)u[i + 1] << 8;
        }
        if (i + 2 < n) {
            v |= u[i + 2];
        }
        four[0] = alphabet[v >> 18];
        four[1] = alphabet[(v >> 12) & 63];
        four[2] = i + 1 < n ? alphabet[(v >> 6) & 63] : '=';
        four[3] = i + 2 < n ? alphabet[v & 63] : '=';
        dra_buf_add(b, four, sizeof four);
    }
}

static int b64_value(char c)
{
    if (c >= 'A' && c <= 'Z') {
        return c - 'A';
    }
    if (c >= 'a' && c <= 'z') {
        return c - 'a' + 26;
    }
    if (c >= '0' && c <= '9') {
        return c - '0' + 52;
    }
    return c == '+' ? 62 : c == '/' ? 63 : -1;
}

int dra_b64_decode(const char *s, size_t len, struct dra_buf *b)
{
    if (len % 4 != 0) {
        return DRA_EPARSE;
    }
    for (size_t i = 0; i < len; i += 4) {
        bool last = i + 4 == len;
        size_t pad = last && s[i + 3] == '=' ? (s[i + 2] == '=' ? 2 : 1) : 0;
        uint32_t v = 0;
        char three[3];

        for (size_t k = 0; k < 4; k++) {
            int d = k >= 4 - pad ? 0 : b64_value(s[i + k]);

            if (d < 0) {
                return DRA_EPARSE;
            }
            v = (v << 6) | (uint32_t)d;
        }
        if ((pad == 1 && (v & 0xFF) != 0) || (pad == 2 && (v & 0xFFFF) != 0)) {
            return DRA_EPARSE; /* bits that no encoder writes */
        }
        three[0] = (char)(v >> 16);
        three[1] = (char)((v >> 8) & 0xFF);
        three[2] = (char)(v & 0xFF);
        dra_buf_add(b, three, 3 - pad);
    }
    return b->failed ? DRA_ETOOLONG : DRA_OK;
}
