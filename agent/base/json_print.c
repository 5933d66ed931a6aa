/*
 * json_print.c - trees to text, comparison by text (DCS-04), merging (REST-72).
 */
#include "json_node.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define JSON_PRINT_MAX ((size_t)64 << 20)

/* A string literal in pure ASCII, as Python's json.dumps writes it (REST-08). */
static void add_ascii_str(struct dra_buf *b, const char *s)
{
    struct dra_buf utf8;

    dra_buf_init(&utf8, JSON_PRINT_MAX);
    dra_buf_add_json_str(&utf8, s);
    b->failed = b->failed || utf8.failed;
    for (size_t i = 0; i < utf8.len;) {
        size_t n = dra_utf8_char_len(utf8.p + i, utf8.len - i);
        uint32_t v = dra_utf8_char_get(utf8.p + i, n);

        if (v == 0x7F || n == 1) {
            dra_buf_add(b, utf8.p + i, 1);
        } else if (v < 0x10000) {
            dra_buf_addf(b, "\\u%04x", (unsigned)v);
        } else {
            v -= 0x10000;
            dra_buf_addf(b, "\\u%04x\\u%04x", (unsigned)(0xD800 + (v >> 10)),
                         (unsigned)(0xDC00 + (v & 0x3FF)));
        }
        i += n;
    }
    dra_buf_deinit(&utf8);
}

static void add_str(struct dra_buf *b, const char *s, bool spaced)
{
    if (spaced) {
        add_ascii_str(b, s);
    } else {
        dra_buf_add_json_str(b, s);
    }
}

static void print_node(struct dra_buf *b, const struct json *j, bool spaced)
{
    bool is_object = json_type_of(j) == JSON_OBJECT;

    switch (json_type_of(j)) {
    case JSON_NONE:
    case JSON_NULL:
        dra_buf_adds(b, "null");
        return;
    case JSON_BOOL:
        dra_buf_adds(b, j->truth ? "true" : "false");
        return;
    case JSON_NUMBER:
        dra_buf_adds(b, j->text);
        return;
    case JSON_STRING:
        add_str(b, j->text, spaced);
        return;
    case JSON_ARRAY:
    case JSON_OBJECT:
        break;
    }
    dra_buf_adds(b, is_object ? "{" : "[");
    for (const struct json *child = j->first; child != NULL; child = child->next) {
        if (child != j->first) {
            dra_buf_adds(b, spaced ? ", " : ",");
        }
        if (is_object) {
            add_str(b, child->name, spaced);
            dra_buf_adds(b, spaced ? ": " : ":");
        }
        print_node(b, child, spaced);
    }
    dra_buf_adds(b, is_object ? "}" : "]");
}

static char *print(const struct json *j, bool spaced)
{
    struct dra_buf b;
    char *text;

    dra_buf_init(&b, JSON_PRINT_MAX);
    print_node(&b, j, spaced);
    text = dra_buf_take(&b);
    dra_buf_deinit(&b);
    return text;
}

char *json_print(const struct json *j)
{
    return print(j, false);
}

char *json_print_spaced(const struct json *j)
{
    return print(j, true);
}

/* ---- comparison: Python's str() of both sides, as Patroni does ---- */

static const char *number_text(const struct json *j, char *room, size_t room_size)
{
    if (strpbrk(j->text, ".eE") == NULL) {
        return j->text;
    }
    json_double_repr(strtod(j->text, NULL), room, room_size);
    return room;
}

/* str() of a scalar; NULL for the others. */
static const char *python_str(const struct json *j, char *room, size_t room_size)
{
    switch (json_type_of(j)) {
    case JSON_NULL:
        return "None";
    case JSON_BOOL:
        return j->truth ? "True" : "False";
    case JSON_NUMBER:
        return number_text(j, room, room_size);
    case JSON_STRING:
        return j->text;
    case JSON_NONE:
    case JSON_ARRAY:
    case JSON_OBJECT:
        break;
    }
    return NULL;
}

static bool equal(const struct json *a, const struct json *b, bool types_matter);

static bool equal_children(const struct json *a, const struct json *b, bool types_matter)
{
    const struct json *other = b->first;

    if (a->count != b->count) {
        return false;
    }
    for (const struct json *child = a->first; child != NULL; child = child->next) {
        if (a->type == JSON_OBJECT) {
            other = json_get(b, child->name);
        }
        if (other == NULL || !equal(child, other, types_matter)) {
            return false;
        }
        other = other->next;
    }
    return true;
}

/* Inside of a list Python compares repr(), where 2 and '2' differ. */
static bool equal(const struct json *a, const struct json *b, bool types_matter)
{
    char room_a[40];
    char room_b[40];
    const char *text_a = python_str(a, room_a, sizeof room_a);
    const char *text_b = python_str(b, room_b, sizeof room_b);

    if (text_a != NULL && text_b != NULL) {
        bool same_kind = (a->type == JSON_STRING) == (b->type == JSON_STRING);

        return (same_kind || !types_matter) && strcmp(text_a, text_b) == 0;
    }
    if (json_type_of(a) != json_type_of(b)) {
        return false;
    }
    if (a == NULL) {
        return true;
    }
    return equal_children(a, b, types_matter || a->type == JSON_ARRAY);
}

bool json_equal_text(const struct json *a, const struct json *b)
{
    return equal(a, b, false);
}

/* ---- merging (REST-72) ---- */

static int merge_object(struct json *target, const struct json *patch, bool *changed)
{
    for (const struct json *p = patch->first; p != NULL; p = p->next) {
        struct json *old = target->first;
        int rc;

        while (old != NULL && strcmp(old->name, p->name) != 0) {
            old = old->next;
        }
        if (p->type == JSON_NULL) {
            *changed = *changed || old != NULL;
            json_del(target, p->name);
            continue;
        }
        if (old != NULL && old->type == JSON_OBJECT && p->type == JSON_OBJECT) {
            rc = merge_object(old, p, changed);
        } else if (old != NULL && json_equal_text(old, p)) {
            continue; /* "100" over 100 is no change */
        } else {
            rc = json_set(target, p->name, json_clone(p)); /* nested nulls are kept */
            *changed = true;
        }
        if (rc != DRA_OK) {
            return rc;
        }
    }
    return DRA_OK;
}

int json_merge_patch(struct json **target, const struct json *patch, bool *out_changed)
{
    bool changed = false;
    int rc = DRA_OK;

    if (json_type_of(patch) != JSON_OBJECT) {
        return DRA_ETYPE;
    }
    if (json_type_of(*target) != JSON_OBJECT) {
        struct json *copy = json_clone(patch);

        if (copy == NULL) {
            return DRA_ENOMEM;
        }
        json_free(*target);
        *target = copy;
        changed = true;
    } else {
        rc = merge_object(*target, patch, &changed);
    }
    if (rc == DRA_OK && out_changed != NULL) {
        *out_changed = changed;
    }
    return rc;
}
