/*
 * yaml_dump.c - a tree as YAML, the way Python's yaml.safe_dump(default_flow_style=False) writes it (CLI-25).
 *
 * libyaml's emitter follows the same rules as PyYAML's: block style, keys sorted here, lists not indented under
 * their key, single quotes only where a plain scalar would be read as something else, lines folded at 200.
 */
#include "json_node.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

#define YAML_WIDTH 200

static int on_write(void *arg, unsigned char *p, size_t n)
{
    struct dra_buf *out = arg;

    dra_buf_add(out, p, n);
    return out->failed ? 0 : 1;
}

static bool emit_text(yaml_emitter_t *e, const char *text, size_t len, bool plain)
{
    yaml_event_t ev;
    /* libyaml's parameters are not const, though it only copies from them */
    unsigned char *value = (unsigned char *)strndup(text, len);
    bool ok = value != NULL &&
              yaml_scalar_event_initialize(&ev, NULL, NULL, value, (int)len, plain, 1,
                                           YAML_ANY_SCALAR_STYLE) != 0 &&
              yaml_emitter_emit(e, &ev) != 0;

    free(value);
    return ok;
}

static bool emit_string(yaml_emitter_t *e, const char *s)
{
    struct yaml_scalar meaning;
    struct dra_buf valid;
    size_t len = strlen(s);
    bool ok;

    dra_buf_init(&valid, len * 3);
    for (size_t i = 0; i < len;) {
        size_t n = dra_utf8_char_len(s + i, len - i);

        if (n == 0) {
            dra_buf_adds(&valid, "\xEF\xBF\xBD");
            n = 1;
        } else {
            dra_buf_add(&valid, s + i, n);
        }
        i += n;
    }
    yaml_scalar_resolve(dra_buf_str(&valid), valid.len, &meaning);
    ok = !valid.failed && emit_text(e, dra_buf_str(&valid), valid.len,
                                    meaning.type == JSON_STRING && !meaning.must_quote);
    dra_buf_deinit(&valid);
    return ok;
}

static bool emit_number(yaml_emitter_t *e, const struct json *j)
{
    char text[64];
    char *exponent;

    if (strpbrk(j->text, ".eE") == NULL) {
        return emit_text(e, j->text, strlen(j->text), true);
    }
    json_double_repr(strtod(j->text, NULL), text, sizeof text);
    exponent = strchr(text, 'e');
    if (exponent != NULL && strchr(text, '.') == NULL) {
        char tail[16]; /* 1e+16 would be a string: write 1.0e+16 */

        dra_str_clip(tail, sizeof tail, exponent);
        (void)snprintf(exponent, sizeof text - (size_t)(exponent - text), ".0%s", tail);
    }
    return emit_text(e, text, strlen(text), true);
}

static int by_name(const void *a, const void *b)
{
    const struct json *const *x = a;
    const struct json *const *y = b;

    return strcmp((*x)->name, (*y)->name);
}

static bool emit_node(yaml_emitter_t *e, const struct json *j);

static bool emit_members(yaml_emitter_t *e, const struct json *obj)
{
    const struct json **sorted = calloc(obj->count + 1, sizeof *sorted);
    size_t n = 0;
    bool ok = sorted != NULL;

    if (!ok) {
        return false;
    }
    for (const struct json *m = obj->first; m != NULL; m = m->next) {
        sorted[n++] = m;
    }
    qsort(sorted, n, sizeof *sorted, by_name);
    for (size_t i = 0; i < n && ok; i++) {
        ok = emit_string(e, sorted[i]->name) && emit_node(e, sorted[i]);
    }
    free(sorted);
    return ok;
}

static bool emit_list(yaml_emitter_t *e, const struct json *list)
{
    bool ok = true;

    for (const struct json *item = list->first; item != NULL && ok; item = item->next) {
        ok = emit_node(e, item);
    }
    return ok;
}

static bool emit_node(yaml_emitter_t *e, const struct json *j)
{
    yaml_event_t ev;

    switch (json_type_of(j)) {
    case JSON_NONE:
    case JSON_NULL:
        return emit_text(e, "null", 4, true);
    case JSON_BOOL:
        return emit_text(e, j->truth ? "true" : "false", j->truth ? 4 : 5, true);
    case JSON_NUMBER:
        return emit_number(e, j);
    case JSON_STRING:
        return emit_string(e, j->text);
    case JSON_ARRAY:
        return yaml_sequence_start_event_initialize(&ev, NULL, NULL, 1, YAML_BLOCK_SEQUENCE_STYLE) != 0 &&
               yaml_emitter_emit(e, &ev) != 0 && emit_list(e, j) &&
               yaml_sequence_end_event_initialize(&ev) != 0 && yaml_emitter_emit(e, &ev) != 0;
    case JSON_OBJECT:
        return yaml_mapping_start_event_initialize(&ev, NULL, NULL, 1, YAML_BLOCK_MAPPING_STYLE) != 0 &&
               yaml_emitter_emit(e, &ev) != 0 && emit_members(e, j) &&
               yaml_mapping_end_event_initialize(&ev) != 0 && yaml_emitter_emit(e, &ev) != 0;
    }
    return false;
}

void yaml_acc_dump(const struct json *j, struct dra_buf *out)
{
    yaml_emitter_t e;
    yaml_event_t ev;
    bool ok;

    if (yaml_emitter_initialize(&e) == 0) {
        out->failed = true;
        return;
    }
    yaml_emitter_set_output(&e, on_write, out);
    yaml_emitter_set_unicode(&e, 1);
    yaml_emitter_set_width(&e, YAML_WIDTH);
    ok = yaml_stream_start_event_initialize(&ev, YAML_UTF8_ENCODING) != 0 &&
         yaml_emitter_emit(&e, &ev) != 0 &&
         yaml_document_start_event_initialize(&ev, NULL, NULL, NULL, 1) != 0 &&
         yaml_emitter_emit(&e, &ev) != 0 && emit_node(&e, j) &&
         yaml_document_end_event_initialize(&ev, 1) != 0 && yaml_emitter_emit(&e, &ev) != 0 &&
         yaml_stream_end_event_initialize(&ev) != 0 && yaml_emitter_emit(&e, &ev) != 0 &&
         yaml_emitter_flush(&e) != 0;
    yaml_emitter_delete(&e);
    if (!ok) {
        out->failed = true;
    }
}
