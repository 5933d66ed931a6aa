/*
 * json_parse.c - JSON text to a tree.  cJSON parses; we check what it lets pass and keep what it loses.
 *
 * cJSON 1.7 takes control characters, broken UTF-8, "\uZZZZ" (as a NUL), "\u0000" (cuts the string) and numbers
 * such as 01, and reads every number as a double.  So the text is checked first token by token, and the
 * literals of numbers are taken from it while cJSON's tree is copied, both being in document order.
 */
#include "json_node.h"

#include <cjson/cJSON.h>
#include <string.h>

struct scan {
    const char *p;
    const char *end;
};

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static size_t digits(const char *s, size_t len, size_t i)
{
    while (i < len && is_digit(s[i])) {
        i++;
    }
    return i;
}

bool json_is_number_literal(const char *s, size_t len)
{
    size_t i = len > 0 && s[0] == '-' ? 1 : 0;
    size_t start = i;

    i = digits(s, len, i);
    if (i == start || (s[start] == '0' && i > start + 1)) {
        return false;
    }
    if (i < len && s[i] == '.') {
        start = ++i;
        i = digits(s, len, i);
        if (i == start) {
            return false;
        }
    }
    if (i < len && (s[i] == 'e' || s[i] == 'E')) {
        i++;
        if (i < len && (s[i] == '+' || s[i] == '-')) {
            i++;
        }
        start = i;
        i = digits(s, len, i);
        if (i == start) {
            return false;
        }
    }
    return i == len;
}

static bool check_unicode_escape(const char *p, size_t n)
{
    static const char hex[] = "0123456789abcdefABCDEF";

    if (n < 4) {
        return false;
    }
    for (size_t i = 0; i < 4; i++) {
        if (p[i] == '\0' || strchr(hex, p[i]) == NULL) {
            return false;
        }
    }
    return memcmp(p, "0000", 4) != 0; /* our strings end in a NUL: none inside */
}

/* s->p stands behind the opening quote; ends behind the closing one. */
static const char *check_string(struct scan *s)
{
    while (s->p < s->end && *s->p != '"') {
        size_t left = (size_t)(s->end - s->p);
        size_t n = dra_utf8_char_len(s->p, left);

        if (n == 0) {
            return "invalid UTF-8";
        }
        if (n == 1 && (unsigned char)*s->p < 0x20) {
            return "control character in a string";
        }
        if (*s->p == '\\') {
            if (left < 2) {
                return "unfinished string";
            }
            if (s->p[1] == 'u' && !check_unicode_escape(s->p + 2, left - 2)) {
                return "invalid \\u escape";
            }
            n = 2;
        }
        s->p += n;
    }
    if (s->p >= s->end) {
        return "unfinished string";
    }
    s->p++;
    return NULL;
}

static bool in_number(char c)
{
    return is_digit(c) || c == '-' || c == '+' || c == '.' || c == 'e' || c == 'E';
}

/* Take the number that starts at s->p. */
static size_t take_number(struct scan *s, const char **out)
{
    *out = s->p;
    while (s->p < s->end && in_number(*s->p)) {
        s->p++;
    }
    return (size_t)(s->p - *out);
}

/* NULL if all tokens of a text that cJSON accepted are good, else what is wrong; s->p is then there. */
static const char *check_tokens(struct scan *s)
{
    int depth = 0;

    while (s->p < s->end) {
        char c = *s->p;

        if (c == '"') {
            const char *bad;

            s->p++;
            bad = check_string(s);
            if (bad != NULL) {
                return bad;
            }
        } else if (is_digit(c) || c == '-') {
            const char *number;
            size_t len = take_number(s, &number);

            if (!json_is_number_literal(number, len)) {
                return "invalid number";
            }
        } else {
            if ((unsigned char)c < 0x20 && c != '\n' && c != '\r' && c != '\t') {
                return "control character";
            }
            if (c == '[' || c == '{') {
                depth++;
            } else if (c == ']' || c == '}') {
                depth--;
            }
            if (depth > JSON_DEPTH_MAX) {
                return "nested too deeply";
            }
            s->p++;
        }
    }
    return NULL;
}

/* The next number literal outside of strings; the tokens are known to be good. */
static struct json *next_number(struct scan *s)
{
    const char *number;
    size_t len;

    while (s->p < s->end && !is_digit(*s->p) && *s->p != '-') {
        if (*s->p++ == '"') {
            (void)check_string(s); /* was checked before */
        }
    }
    len = take_number(s, &number);
    return json_node_text(JSON_NUMBER, number, len);
}

static int copy_tree(const cJSON *from, struct scan *s, struct json **out, struct dra_err *err);

static int copy_children(const cJSON *from, struct scan *s, struct json *into, struct dra_err *err)
{
    const cJSON *child;

    cJSON_ArrayForEach(child, from)
    {
        struct json *j = NULL;
        int rc = copy_tree(child, s, &j, err);

        if (rc != DRA_OK) {
            return rc;
        }
        if (into->type == JSON_ARRAY) {
            rc = json_append(into, j);
        } else if (into->count >= JSON_MEMBERS_MAX) {
            json_free(j);
            return dra_err_set(err, DRA_EPARSE, "json: over %d members in one object",
                               JSON_MEMBERS_MAX);
        } else {
            rc = json_set(into, child->string, j); /* duplicate keys: the last one wins */
        }
        if (rc != DRA_OK) {
            return dra_err_set(err, rc, "out of memory");
        }
    }
    return DRA_OK;
}

/* Recursion is bounded: check_tokens() counted the depth. */
static int copy_tree(const cJSON *from, struct scan *s, struct json **out, struct dra_err *err)
{
    struct json *j;
    int rc;

    if (cJSON_IsObject(from)) {
        j = json_new_object();
    } else if (cJSON_IsArray(from)) {
        j = json_new_array();
    } else if (cJSON_IsString(from)) {
        j = json_new_str(from->valuestring);
    } else if (cJSON_IsNumber(from)) {
        j = next_number(s);
    } else if (cJSON_IsBool(from)) {
        j = json_new_bool(cJSON_IsTrue(from));
    } else {
        j = json_new_null();
    }
    if (j == NULL) {
        return dra_err_set(err, DRA_ENOMEM, "out of memory");
    }
    rc = copy_children(from, s, j, err);
    if (rc != DRA_OK) {
        json_free(j);
        return rc;
    }
    *out = j;
    return DRA_OK;
}

int json_parse_first(const char *s, size_t len, struct json **out, size_t *used, struct dra_err *err)
{
    struct scan scan = {.p = s, .end = s};
    const char *end = NULL;
    const char *bad;
    cJSON *tree;
    int rc;

    if (len == 0) {
        return dra_err_set(err, DRA_EPARSE, "json: empty text");
    }
    tree = cJSON_ParseWithLengthOpts(s, len, &end, 0);
    if (tree == NULL) {
        return dra_err_set(err, DRA_EPARSE, "json: error at byte %zu of %zu",
                           end != NULL ? (size_t)(end - s) : 0, len);
    }
    scan.end = end;
    if (len >= 3 && memcmp(s, "\xEF\xBB\xBF", 3) == 0) {
        scan.p += 3; /* byte order mark: cJSON skips it too */
    }
    bad = check_tokens(&scan);
    if (bad != NULL) {
        rc = dra_err_set(err, DRA_EPARSE, "json: %s at byte %zu of %zu", bad, (size_t)(scan.p - s), len);
    } else {
        scan.p = s;
        rc = copy_tree(tree, &scan, out, err);
    }
    cJSON_Delete(tree);
    if (rc == DRA_OK && used != NULL) {
        *used = (size_t)(end - s);
    }
    return rc;
}

int json_parse(const char *s, size_t len, struct json **out, struct dra_err *err)
{
    struct json *j = NULL;
    size_t used = 0;
    int rc = json_parse_first(s, len, &j, &used, err);

    if (rc != DRA_OK) {
        return rc;
    }
    while (used < len && (s[used] == ' ' || s[used] == '\n' || s[used] == '\r' || s[used] == '\t')) {
        used++;
    }
    if (used != len) {
        json_free(j);
        return dra_err_set(err, DRA_EPARSE, "json: text after the document at byte %zu of %zu", used,
                           len);
    }
    *out = j;
    return DRA_OK;
}
