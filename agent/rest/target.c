/*
 * target.c - request targets: path and query.
 *
 * Promises: never fails, whatever comes in.
 * Threads: any; works on its arguments only.
 */
#include "target.h"

#include <string.h>

static int hex(char c)
{
    if (c >= '0' && c <= '9') {
        return c - '0';
    }
    if (c >= 'a' && c <= 'f') {
        return c - 'a' + 10;
    }
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* In place; a bad escape stays as it is.  False: holds a NUL, which no text of ours does. */
static bool decode(char *s)
{
    char *to = s;
    for (const char *p = s; *p != '\0'; p++) {
        if (*p == '+') {
            *to++ = ' ';
        } else if (*p == '%' && hex(p[1]) >= 0 && hex(p[2]) >= 0) {
            char c = (char)(hex(p[1]) * 16 + hex(p[2]));
            if (c == '\0') {
                return false;
            }
            *to++ = c;
            p += 2;
        } else {
            *to++ = *p;
        }
    }
    *to = '\0';
    return true;
}

static void parse_query(char *q, struct rest_target *out)
{
    while (q != NULL && out->n_params < REST_PARAMS_MAX) {
        char *next = strchr(q, '&');
        if (next != NULL) {
            *next++ = '\0';
        }
        char *eq = strchr(q, '=');
        if (eq != NULL && eq[1] != '\0') {
            *eq++ = '\0';
            if (decode(q) && decode(eq)) {
                out->params[out->n_params++] = (struct rest_param){.key = q, .value = eq};
            }
        }
        q = next;
    }
}

/* "http://host:port/path" -> "/path" */
static char *skip_authority(char *raw)
{
    if (raw[0] == '/') {
        return raw;
    }
    char *sep = strstr(raw, "://");
    if (sep == NULL) {
        return raw;
    }
    char *slash = strchr(sep + 3, '/');
    return slash != NULL ? slash : sep + strlen(sep);
}

void rest_target_parse(char *raw, struct rest_target *out)
{
    memset(out, 0, sizeof *out);
    raw[strcspn(raw, "#")] = '\0';
    char *query = strchr(raw, '?');
    if (query != NULL) {
        *query++ = '\0';
    }
    char *path = skip_authority(raw);
    while (path[0] == '/' && path[1] == '/') {
        path++;
    }
    char *last = strrchr(path, '/');
    char *params = strchr(last != NULL ? last : path, ';');
    if (params != NULL) {
        *params = '\0';
    }
    out->path = path[0] == '/' ? path : path[0] == '\0' ? "/" : path;
    if (path[0] == '/') {
        size_t len = strcspn(path + 1, "/");
        if (len < sizeof out->segment) {
            memcpy(out->segment, path + 1, len);
        }
    }
    parse_query(query, out);
}

const char *rest_target_param(const struct rest_target *t, const char *key)
{
    for (int i = 0; i < t->n_params; i++) {
        if (strcmp(t->params[i].key, key) == 0) {
            return t->params[i].value;
        }
    }
    return NULL;
}
