/*
 * json.c - the tree: building, changing, finding, typed access.
 *
 * Invariants: a node has at most one parent; names within an object are unique; a number's literal is valid
 * JSON.  Recursion is bounded by JSON_DEPTH_MAX for whatever came from outside.
 */
#include "json_node.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define JSON_I64_DOUBLE_LIMIT 9223372036854775808.0 /* 2^63 */

struct json *json_node_new(enum json_type type)
{
    struct json *j = calloc(1, sizeof *j);

    if (j != NULL) {
        j->type = type;
    }
    return j;
}

struct json *json_node_text(enum json_type type, const char *text, size_t len)
{
    struct json *j = json_node_new(type);

    if (j == NULL) {
        return NULL;
    }
    j->text = malloc(len + 1);
    if (j->text == NULL) {
        free(j);
        return NULL;
    }
    if (len > 0) {
        memcpy(j->text, text, len);
    }
    j->text[len] = '\0';
    return j;
}

void json_free(struct json *root)
{
    struct json *child;

    if (root == NULL) {
        return;
    }
    child = root->first;
    while (child != NULL) {
        struct json *next = child->next;

        json_free(child);
        child = next;
    }
    free(root->name);
    free(root->text);
    free(root->source);
    free(root->file);
    free(root);
}

void json_freep(struct json **root)
{
    json_free(*root);
    *root = NULL;
}

static void link_child(struct json *parent, struct json *child)
{
    child->next = NULL;
    if (parent->last != NULL) {
        parent->last->next = child;
    } else {
        parent->first = child;
    }
    parent->last = child;
    parent->count++;
}

static bool copy_opt(char **dst, const char *src)
{
    if (src != NULL) {
        *dst = strdup(src);
        return *dst != NULL;
    }
    return true;
}

struct json *json_clone(const struct json *j)
{
    struct json *copy;

    if (j == NULL) {
        return NULL;
    }
    copy = json_node_new(j->type);
    if (copy == NULL) {
        return NULL;
    }
    copy->truth = j->truth;
    copy->line = j->line;
    if (!copy_opt(&copy->name, j->name) || !copy_opt(&copy->text, j->text) ||
        !copy_opt(&copy->source, j->source) || !copy_opt(&copy->file, j->file)) {
        json_free(copy);
        return NULL;
    }
    for (const struct json *child = j->first; child != NULL; child = child->next) {
        struct json *child_copy = json_clone(child);

        if (child_copy == NULL) {
            json_free(copy);
            return NULL;
        }
        link_child(copy, child_copy);
    }
    return copy;
}

/* ---- looking ---- */

enum json_type json_type_of(const struct json *j)
{
    return j == NULL ? JSON_NONE : j->type;
}

static const struct json *get_n(const struct json *obj, const char *key, size_t len)
{
    if (json_type_of(obj) != JSON_OBJECT) {
        return NULL;
    }
    for (const struct json *m = obj->first; m != NULL; m = m->next) {
        if (strncmp(m->name, key, len) == 0 && m->name[len] == '\0') {
            return m;
        }
    }
    return NULL;
}

const struct json *json_get(const struct json *obj, const char *key)
{
    return get_n(obj, key, strlen(key));
}

const struct json *json_find(const struct json *j, const char *path)
{
    const char *p = path;

    while (j != NULL && *p != '\0') {
        size_t len;

        if (*p == '[') {
            uint64_t index = 0;

            len = strcspn(p, "]");
            if (p[len] != ']' || dra_parse_u64(p + 1, len - 1, &index) != DRA_OK ||
                j->type != JSON_ARRAY) {
                return NULL;
            }
            j = json_at(j, (size_t)index);
            p += len + 1;
        } else {
            len = strcspn(p, ".[");
            j = get_n(j, p, len);
            p += len;
        }
        if (*p == '.') {
            p++;
        }
    }
    return j;
}

size_t json_size(const struct json *j)
{
    return j == NULL ? 0 : j->count;
}

const struct json *json_at(const struct json *j, size_t i)
{
    const struct json *child = json_first(j);

    while (child != NULL && i > 0) {
        child = child->next;
        i--;
    }
    return child;
}

const char *json_key_at(const struct json *obj, size_t i)
{
    return json_name(json_at(obj, i));
}

const struct json *json_first(const struct json *j)
{
    return j == NULL ? NULL : j->first;
}

const struct json *json_next(const struct json *j)
{
    return j == NULL ? NULL : j->next;
}

const char *json_name(const struct json *member)
{
    return member == NULL ? NULL : member->name;
}

const char *json_text(const struct json *j)
{
    return json_type_of(j) == JSON_STRING ? j->text : NULL;
}

bool json_is_true(const struct json *j)
{
    return json_type_of(j) == JSON_BOOL && j->truth;
}

bool json_is_truthy(const struct json *j)
{
    int64_t v;

    switch (json_type_of(j)) {
    case JSON_NONE:
    case JSON_NULL:
        return false;
    case JSON_BOOL:
        return json_is_true(j);
    case JSON_NUMBER:
        return json_i64(j, "", &v, NULL) != DRA_OK || v != 0;
    case JSON_STRING:
        return json_text(j)[0] != '\0';
    case JSON_ARRAY:
    case JSON_OBJECT:
        return json_size(j) > 0;
    }
    return false;
}

int json_line(const struct json *j)
{
    return j == NULL ? 0 : j->line;
}

const char *json_file(const struct json *j)
{
    return j == NULL ? NULL : j->file;
}

bool json_scalar_text(const struct json *j, char *out, size_t out_size)
{
    const char *text = NULL;

    switch (json_type_of(j)) {
    case JSON_NULL:
        text = "null";
        break;
    case JSON_BOOL:
        text = j->truth ? "true" : "false";
        break;
    case JSON_NUMBER:
    case JSON_STRING:
        text = j->text;
        break;
    case JSON_NONE:
    case JSON_ARRAY:
    case JSON_OBJECT:
        break;
    }
    return text != NULL && dra_str_copy(out, out_size, text) == DRA_OK;
}

bool json_source_text(const struct json *j, char *out, size_t out_size)
{
    if (j != NULL && j->source != NULL) {
        return dra_str_copy(out, out_size, j->source) == DRA_OK;
    }
    return json_scalar_text(j, out, out_size);
}

/* ---- typed access ---- */

static void describe(const struct json *j, char *out, size_t out_size)
{
    char shown[64];

    switch (json_type_of(j)) {
    case JSON_NONE:
        dra_str_clip(out, out_size, "nothing");
        break;
    case JSON_STRING:
        dra_str_clip(shown, sizeof shown, j->text);
        (void)snprintf(out, out_size, "\"%s\"", shown);
        break;
    case JSON_NULL:
    case JSON_BOOL:
    case JSON_NUMBER:
        if (!json_source_text(j, out, out_size)) {
            dra_str_clip(out, out_size, "a long scalar");
        }
        break;
    case JSON_ARRAY:
        dra_str_clip(out, out_size, "a list");
        break;
    case JSON_OBJECT:
        dra_str_clip(out, out_size, "an object");
        break;
    }
}

static int want(const struct json *root, const char *path, const struct json *found,
                const char *what, int code, struct dra_err *err)
{
    const struct json *place = found != NULL ? found : root;
    char got[80];

    describe(found, got, sizeof got);
    (void)dra_err_set(err, code, "%s%swant %s, got %s", path, path[0] != '\0' ? ": " : "", what, got);
    if (json_file(place) != NULL) {
        (void)dra_err_wrap(err, "%s:%d", place->file, place->line);
    }
    return code;
}

static bool is_absent(const struct json *j)
{
    return j == NULL || j->type == JSON_NULL;
}

static int as_str(const struct json *root, const char *path, const struct json *j, const char **out,
                  struct dra_err *err)
{
    if (json_type_of(j) != JSON_STRING) {
        return want(root, path, j, "a string", j == NULL ? DRA_ENOTFOUND : DRA_ETYPE, err);
    }
    *out = j->text;
    return DRA_OK;
}

static int as_bool(const struct json *root, const char *path, const struct json *j, bool *out,
                   struct dra_err *err)
{
    if (json_type_of(j) != JSON_BOOL) {
        return want(root, path, j, "true or false", j == NULL ? DRA_ENOTFOUND : DRA_ETYPE, err);
    }
    *out = j->truth;
    return DRA_OK;
}

static int as_i64(const struct json *root, const char *path, const struct json *j, int64_t *out,
                  struct dra_err *err)
{
    double d;
    int rc;

    if (json_type_of(j) != JSON_NUMBER && json_type_of(j) != JSON_STRING) {
        return want(root, path, j, "an integer", j == NULL ? DRA_ENOTFOUND : DRA_ETYPE, err);
    }
    rc = dra_parse_i64(j->text, strlen(j->text), INT64_MIN, INT64_MAX, out);
    if (rc == DRA_OK) {
        return DRA_OK;
    }
    if (rc == DRA_ERANGE) {
        return want(root, path, j, "a 64-bit integer", DRA_ERANGE, err);
    }
    if (j->type == JSON_STRING) {
        return want(root, path, j, "an integer", DRA_ETYPE, err);
    }
    d = strtod(j->text, NULL); /* "1e3", "5.0": the literal is known to be valid */
    if (!isfinite(d) || d != trunc(d)) {
        return want(root, path, j, "an integer", DRA_ETYPE, err);
    }
    if (d < -JSON_I64_DOUBLE_LIMIT || d >= JSON_I64_DOUBLE_LIMIT) {
        return want(root, path, j, "a 64-bit integer", DRA_ERANGE, err);
    }
    *out = (int64_t)d;
    return DRA_OK;
}

int json_str(const struct json *j, const char *path, const char **out, struct dra_err *err)
{
    return as_str(j, path, json_find(j, path), out, err);
}

int json_i64(const struct json *j, const char *path, int64_t *out, struct dra_err *err)
{
    return as_i64(j, path, json_find(j, path), out, err);
}

int json_bool(const struct json *j, const char *path, bool *out, struct dra_err *err)
{
    return as_bool(j, path, json_find(j, path), out, err);
}

int json_opt_str(const struct json *j, const char *path, const char **out, struct dra_err *err)
{
    const struct json *found = json_find(j, path);

    return is_absent(found) ? DRA_OK : as_str(j, path, found, out, err);
}

int json_opt_i64(const struct json *j, const char *path, int64_t *out, struct dra_err *err)
{
    const struct json *found = json_find(j, path);

    return is_absent(found) ? DRA_OK : as_i64(j, path, found, out, err);
}

int json_opt_bool(const struct json *j, const char *path, bool *out, struct dra_err *err)
{
    const struct json *found = json_find(j, path);

    return is_absent(found) ? DRA_OK : as_bool(j, path, found, out, err);
}

/* ---- building and changing ---- */

struct json *json_new_object(void)
{
    return json_node_new(JSON_OBJECT);
}

struct json *json_new_array(void)
{
    return json_node_new(JSON_ARRAY);
}

struct json *json_new_str(const char *s)
{
    return json_node_text(JSON_STRING, s, strlen(s));
}

struct json *json_new_i64(int64_t v)
{
    char text[24];
    int n = snprintf(text, sizeof text, "%lld", (long long)v);

    return json_node_text(JSON_NUMBER, text, (size_t)n);
}

struct json *json_new_raw(const char *literal)
{
    struct json *j = NULL;

    return json_parse(literal, strlen(literal), &j, NULL) == DRA_OK ? j : NULL;
}

void json_double_repr(double v, char *out, size_t out_size)
{
    for (int digits = 15; digits <= 17; digits++) {
        (void)snprintf(out, out_size, "%.*g", digits, v);
        if (strtod(out, NULL) == v) { /* the shortest that reads back as the same number */
            break;
        }
    }
    if (strpbrk(out, ".e") == NULL) {
        size_t len = strlen(out);

        dra_str_clip(out + len, out_size - len, ".0");
    }
}

struct json *json_new_double(double v)
{
    char text[40];
    int n;

    if (!isfinite(v)) {
        return json_new_null(); /* JSON has no word for it */
    }
    if (v == trunc(v) && fabs(v) < 1e15) {
        n = snprintf(text, sizeof text, "%.0f", v == 0 ? 0.0 : v);
        return json_node_text(JSON_NUMBER, text, (size_t)n);
    }
    json_double_repr(v, text, sizeof text);
    return json_node_text(JSON_NUMBER, text, strlen(text));
}

struct json *json_new_bool(bool v)
{
    struct json *j = json_node_new(JSON_BOOL);

    if (j != NULL) {
        j->truth = v;
    }
    return j;
}

struct json *json_new_null(void)
{
    return json_node_new(JSON_NULL);
}

/* The link that points to the member `key`, and the member before it. */
static struct json **find_link(struct json *obj, const char *key, struct json **out_prev)
{
    struct json **link = &obj->first;

    *out_prev = NULL;
    while (*link != NULL && strcmp((*link)->name, key) != 0) {
        *out_prev = *link;
        link = &(*link)->next;
    }
    return link;
}

int json_set(struct json *obj, const char *key, struct json *v)
{
    struct json **link;
    struct json *prev;
    char *name;

    if (v == NULL) {
        return DRA_ENOMEM;
    }
    if (json_type_of(obj) != JSON_OBJECT) {
        json_free(v);
        return DRA_ETYPE;
    }
    name = strdup(key);
    if (name == NULL) {
        json_free(v);
        return DRA_ENOMEM;
    }
    free(v->name);
    v->name = name;
    link = find_link(obj, key, &prev);
    if (*link == NULL) {
        link_child(obj, v);
        return DRA_OK;
    }
    v->next = (*link)->next;
    if (obj->last == *link) {
        obj->last = v;
    }
    json_free(*link);
    *link = v;
    return DRA_OK;
}

int json_append(struct json *arr, struct json *v)
{
    if (v == NULL) {
        return DRA_ENOMEM;
    }
    if (json_type_of(arr) != JSON_ARRAY) {
        json_free(v);
        return DRA_ETYPE;
    }
    free(v->name); /* an element has no name, whatever v was before */
    v->name = NULL;
    link_child(arr, v);
    return DRA_OK;
}

void json_del(struct json *obj, const char *key)
{
    struct json **link;
    struct json *prev;
    struct json *gone;

    if (json_type_of(obj) != JSON_OBJECT) {
        return;
    }
    link = find_link(obj, key, &prev);
    gone = *link;
    if (gone == NULL) {
        return;
    }
    *link = gone->next;
    if (obj->last == gone) {
        obj->last = prev;
    }
    obj->count--;
    json_free(gone);
}
