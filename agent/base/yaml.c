/*
 * yaml.c - one YAML document to a tree (CFG-03).  libyaml gives events; types, anchors and merge keys are ours.
 *
 * Limits: bytes, depth, number of nodes (an alias counts as all that it copies, so "billion laughs" is refused).
 * Every node knows its line, and a scalar that is not a string also its source text.
 */
#include "json_node.h"

#include <stdlib.h>
#include <string.h>
#include <yaml.h>

#define YAML_BYTES_MAX ((size_t)4 << 20)
#define YAML_ANCHORS_MAX 256
#define TAG_PREFIX "tag:yaml.org,2002:"

struct anchor {
    char *name;        /* owned */
    struct json *node; /* owned copy */
};

struct loader {
    yaml_parser_t parser;
    const char *file; /* borrowed */
    struct dra_err *err;
    struct anchor anchors[YAML_ANCHORS_MAX];
    size_t anchor_count;
    size_t node_count;
};

static int fail(const struct loader *l, const yaml_mark_t *mark, const char *what)
{
    return dra_err_set(l->err, DRA_EPARSE, "%s:%zu: %s", l->file, mark->line + 1, what);
}

static int next_event(struct loader *l, yaml_event_t *ev)
{
    const char *problem;

    if (yaml_parser_parse(&l->parser, ev) != 0) {
        return DRA_OK;
    }
    problem = l->parser.problem != NULL ? l->parser.problem : "cannot be parsed";
    if (l->parser.error == YAML_MEMORY_ERROR) {
        return dra_err_set(l->err, DRA_ENOMEM, "out of memory");
    }
    return dra_err_set(l->err, DRA_EPARSE, "%s:%zu: %s%s%s", l->file, l->parser.problem_mark.line + 1,
                       l->parser.context != NULL ? l->parser.context : "",
                       l->parser.context != NULL ? ", " : "", problem);
}

static int place(struct loader *l, struct json *j, const yaml_mark_t *mark)
{
    if (j == NULL) {
        return dra_err_set(l->err, DRA_ENOMEM, "out of memory");
    }
    if (++l->node_count > JSON_NODES_MAX) {
        return fail(l, mark, "too many nodes");
    }
    j->line = (int)mark->line + 1;
    j->file = strdup(l->file);
    return j->file != NULL ? DRA_OK : dra_err_set(l->err, DRA_ENOMEM, "out of memory");
}

static size_t count_nodes(const struct json *j)
{
    size_t n = 1;

    for (const struct json *child = j->first; child != NULL; child = child->next) {
        n += count_nodes(child);
    }
    return n;
}

static int depth_of(const struct json *j)
{
    int deepest = 0;

    for (const struct json *child = j->first; child != NULL; child = child->next) {
        int d = depth_of(child);

        deepest = d > deepest ? d : deepest;
    }
    return deepest + 1;
}

static int remember_anchor(struct loader *l, const yaml_char_t *name, const struct json *node,
                           const yaml_mark_t *mark)
{
    struct anchor *a = NULL;

    if (name == NULL) {
        return DRA_OK;
    }
    for (size_t i = 0; i < l->anchor_count; i++) {
        if (strcmp(l->anchors[i].name, (const char *)name) == 0) {
            a = &l->anchors[i]; /* defined again: the newer one counts from here */
        }
    }
    if (a == NULL) {
        if (l->anchor_count == YAML_ANCHORS_MAX) {
            return fail(l, mark, "too many anchors");
        }
        a = &l->anchors[l->anchor_count];
        a->name = strdup((const char *)name);
        if (a->name == NULL) {
            return dra_err_set(l->err, DRA_ENOMEM, "out of memory");
        }
        l->anchor_count++;
    }
    json_free(a->node);
    a->node = json_clone(node);
    l->node_count += count_nodes(node);
    return a->node != NULL ? DRA_OK : dra_err_set(l->err, DRA_ENOMEM, "out of memory");
}

static int load_alias(struct loader *l, const yaml_event_t *ev, int depth, struct json **out)
{
    const char *name = (const char *)ev->data.alias.anchor;

    for (size_t i = 0; i < l->anchor_count; i++) {
        const struct json *node = l->anchors[i].node;

        if (strcmp(l->anchors[i].name, name) != 0 || node == NULL) {
            continue;
        }
        l->node_count += count_nodes(node);
        if (l->node_count > JSON_NODES_MAX || depth + depth_of(node) > JSON_DEPTH_MAX) {
            return fail(l, &ev->start_mark, "aliases make the document too large");
        }
        *out = json_clone(node);
        if (*out == NULL) {
            return dra_err_set(l->err, DRA_ENOMEM, "out of memory");
        }
        free((*out)->name);
        (*out)->name = NULL;
        (*out)->line = (int)ev->start_mark.line + 1;
        return DRA_OK;
    }
    return fail(l, &ev->start_mark, "undefined alias");
}

/* The type that an explicit tag asks for; false for tags that the safe dialect does not know. */
static bool tag_to_type(const char *tag, enum json_type *out)
{
    static const struct {
        const char *tag;
        enum json_type type;
    } rows[] = {
        {"!", JSON_STRING},
        {TAG_PREFIX "str", JSON_STRING},
        {TAG_PREFIX "int", JSON_NUMBER},
        {TAG_PREFIX "float", JSON_NUMBER},
        {TAG_PREFIX "bool", JSON_BOOL},
        {TAG_PREFIX "null", JSON_NULL},
    };

    for (size_t i = 0; i < DRA_ARRAY_LEN(rows); i++) {
        if (strcmp(rows[i].tag, tag) == 0) {
            *out = rows[i].type;
            return true;
        }
    }
    return false;
}

static int scalar_meaning(struct loader *l, const yaml_event_t *ev, struct yaml_scalar *meaning)
{
    const char *text = (const char *)ev->data.scalar.value;
    const char *tag = (const char *)ev->data.scalar.tag;
    enum json_type wanted = JSON_NONE;

    if (memchr(text, '\0', ev->data.scalar.length) != NULL) {
        return fail(l, &ev->start_mark, "NUL character in a scalar");
    }
    *meaning = (struct yaml_scalar){.type = JSON_STRING};
    if (tag == NULL) {
        if (ev->data.scalar.style == YAML_PLAIN_SCALAR_STYLE) {
            yaml_scalar_resolve(text, ev->data.scalar.length, meaning);
        }
        return DRA_OK;
    }
    if (!tag_to_type(tag, &wanted)) {
        return fail(l, &ev->start_mark, "custom tags are not allowed");
    }
    if (wanted != JSON_STRING) {
        yaml_scalar_resolve(text, ev->data.scalar.length, meaning);
        if (meaning->type != wanted) {
            return fail(l, &ev->start_mark, "the value does not fit its tag");
        }
    }
    return DRA_OK;
}

static int load_scalar(struct loader *l, const yaml_event_t *ev, struct json **out)
{
    const char *text = (const char *)ev->data.scalar.value;
    struct yaml_scalar meaning;
    struct json *j;
    int rc = scalar_meaning(l, ev, &meaning);

    if (rc != DRA_OK) {
        return rc;
    }
    if (meaning.type == JSON_STRING) {
        j = json_node_text(JSON_STRING, text, ev->data.scalar.length);
    } else if (meaning.type == JSON_NUMBER) {
        j = json_node_text(JSON_NUMBER, meaning.literal, strlen(meaning.literal));
    } else {
        j = json_node_new(meaning.type);
    }
    rc = place(l, j, &ev->start_mark);
    if (rc == DRA_OK) {
        j->truth = meaning.truth;
        if (meaning.type != JSON_STRING) {
            j->source = strdup(text);
            rc = j->source != NULL ? DRA_OK : dra_err_set(l->err, DRA_ENOMEM, "out of memory");
        }
    }
    if (rc == DRA_OK) {
        rc = remember_anchor(l, ev->data.scalar.anchor, j, &ev->start_mark);
    }
    if (rc != DRA_OK) {
        json_free(j);
        return rc;
    }
    *out = j;
    return DRA_OK;
}

static int load_node(struct loader *l, const yaml_event_t *ev, int depth, struct json **out);

static int load_sequence(struct loader *l, struct json *seq, int depth)
{
    for (;;) {
        yaml_event_t ev;
        struct json *item = NULL;
        int rc = next_event(l, &ev);

        if (rc != DRA_OK) {
            return rc;
        }
        if (ev.type == YAML_SEQUENCE_END_EVENT) {
            yaml_event_delete(&ev);
            return DRA_OK;
        }
        rc = load_node(l, &ev, depth + 1, &item);
        yaml_event_delete(&ev);
        if (rc != DRA_OK) {
            return rc;
        }
        rc = json_append(seq, item);
        if (rc != DRA_OK) {
            return dra_err_set(l->err, rc, "out of memory");
        }
    }
}

static int set_copy(struct loader *l, struct json *into, const struct json *member)
{
    int rc = json_set(into, member->name, json_clone(member));

    return rc == DRA_OK ? rc : dra_err_set(l->err, rc, "out of memory");
}

/* `<<: *a` or `<<: [*a, *b]`: what `from` holds goes into `into`; of a list the earlier ones win. */
static int merge_key(struct loader *l, struct json *into, const struct json *from,
                     const yaml_mark_t *mark)
{
    size_t n = json_type_of(from) == JSON_ARRAY ? json_size(from) : 1;

    for (size_t i = n; i > 0; i--) {
        const struct json *map = json_type_of(from) == JSON_ARRAY ? json_at(from, i - 1) : from;

        if (json_type_of(map) != JSON_OBJECT) {
            return fail(l, mark, "expected a mapping or a list of mappings for merging");
        }
        for (const struct json *m = map->first; m != NULL; m = m->next) {
            int rc = set_copy(l, into, m);

            if (rc != DRA_OK) {
                return rc;
            }
        }
    }
    return into->count <= JSON_MEMBERS_MAX ? DRA_OK : fail(l, mark, "too many members");
}

/* One "key: value" of a mapping.  *end is set at the end of the mapping. */
static int load_member(struct loader *l, struct json *own, struct json *merged, int depth, bool *end)
{
    yaml_event_t key_ev;
    yaml_event_t ev;
    struct json *value = NULL;
    struct yaml_scalar meaning;
    int rc = next_event(l, &key_ev);

    if (rc != DRA_OK) {
        return rc;
    }
    if (key_ev.type == YAML_MAPPING_END_EVENT) {
        *end = true;
        yaml_event_delete(&key_ev);
        return DRA_OK;
    }
    if (key_ev.type != YAML_SCALAR_EVENT) {
        rc = fail(l, &key_ev.start_mark, "a key must be a scalar");
        goto out;
    }
    rc = scalar_meaning(l, &key_ev, &meaning);
    if (rc != DRA_OK) {
        goto out;
    }
    rc = next_event(l, &ev);
    if (rc != DRA_OK) {
        goto out;
    }
    rc = load_node(l, &ev, depth + 1, &value);
    yaml_event_delete(&ev);
    if (rc != DRA_OK) {
        goto out;
    }
    if (meaning.is_merge) {
        rc = merge_key(l, merged, value, &key_ev.start_mark);
        json_free(value);
    } else if (own->count >= JSON_MEMBERS_MAX) {
        json_free(value);
        rc = fail(l, &key_ev.start_mark, "too many members");
    } else {
        rc = json_set(own, (const char *)key_ev.data.scalar.value, value);
        if (rc != DRA_OK) {
            rc = dra_err_set(l->err, rc, "out of memory");
        }
    }
out:
    yaml_event_delete(&key_ev);
    return rc;
}

static int load_mapping(struct loader *l, struct json *map, int depth)
{
    struct json *own = json_new_object();
    bool end = false;
    int rc = own != NULL ? DRA_OK : dra_err_set(l->err, DRA_ENOMEM, "out of memory");

    /* merged keys come first in order, the mapping's own ones win */
    while (rc == DRA_OK && !end) {
        rc = load_member(l, own, map, depth, &end);
    }
    for (const struct json *m = rc == DRA_OK ? own->first : NULL; m != NULL && rc == DRA_OK; m = m->next) {
        rc = set_copy(l, map, m);
    }
    json_free(own);
    return rc;
}

static int load_collection(struct loader *l, const yaml_event_t *ev, int depth, struct json **out)
{
    bool is_map = ev->type == YAML_MAPPING_START_EVENT;
    const char *tag =
        (const char *)(is_map ? ev->data.mapping_start.tag : ev->data.sequence_start.tag);
    const yaml_char_t *anchor = is_map ? ev->data.mapping_start.anchor : ev->data.sequence_start.anchor;
    struct json *j;
    int rc;

    if (depth >= JSON_DEPTH_MAX) {
        return fail(l, &ev->start_mark, "nested too deeply");
    }
    if (tag != NULL && strcmp(tag, is_map ? TAG_PREFIX "map" : TAG_PREFIX "seq") != 0) {
        return fail(l, &ev->start_mark, "custom tags are not allowed");
    }
    j = json_node_new(is_map ? JSON_OBJECT : JSON_ARRAY);
    rc = place(l, j, &ev->start_mark);
    if (rc == DRA_OK) {
        rc = is_map ? load_mapping(l, j, depth) : load_sequence(l, j, depth);
    }
    if (rc == DRA_OK) {
        rc = remember_anchor(l, anchor, j, &ev->start_mark);
    }
    if (rc != DRA_OK) {
        json_free(j);
        return rc;
    }
    *out = j;
    return DRA_OK;
}

/* Recursion is bounded by JSON_DEPTH_MAX. */
static int load_node(struct loader *l, const yaml_event_t *ev, int depth, struct json **out)
{
    if (ev->type == YAML_ALIAS_EVENT) {
        return load_alias(l, ev, depth, out);
    }
    if (ev->type == YAML_SCALAR_EVENT) {
        return load_scalar(l, ev, out);
    }
    if (ev->type == YAML_MAPPING_START_EVENT || ev->type == YAML_SEQUENCE_START_EVENT) {
        return load_collection(l, ev, depth, out);
    }
    return fail(l, &ev->start_mark, "unexpected end of the document");
}

/* Stream start, at most one document, stream end. */
static int load_stream(struct loader *l, struct json **out)
{
    struct json *root = NULL;
    bool done = false;
    int rc = DRA_OK;

    while (rc == DRA_OK && !done) {
        yaml_event_t ev;

        rc = next_event(l, &ev);
        if (rc != DRA_OK) {
            break;
        }
        if (ev.type == YAML_STREAM_END_EVENT) {
            done = true;
        } else if (ev.type == YAML_DOCUMENT_START_EVENT && root != NULL) {
            rc = fail(l, &ev.start_mark, "expected a single document");
        } else if (ev.type != YAML_STREAM_START_EVENT && ev.type != YAML_DOCUMENT_START_EVENT &&
                   ev.type != YAML_DOCUMENT_END_EVENT) {
            rc = load_node(l, &ev, 0, &root);
        }
        yaml_event_delete(&ev);
    }
    if (rc == DRA_OK && root == NULL) {
        root = json_new_null(); /* an empty file */
        rc = root != NULL ? DRA_OK : dra_err_set(l->err, DRA_ENOMEM, "out of memory");
    }
    if (rc != DRA_OK) {
        json_free(root);
        return rc;
    }
    *out = root;
    return DRA_OK;
}

int yaml_acc_load(const char *name, const char *s, size_t len, struct json **out, struct dra_err *err)
{
    struct loader *l;
    int rc;

    if (len > YAML_BYTES_MAX) {
        return dra_err_set(err, DRA_ETOOLONG, "%s: larger than %zu bytes", name, YAML_BYTES_MAX);
    }
    l = calloc(1, sizeof *l);
    if (l == NULL || yaml_parser_initialize(&l->parser) == 0) {
        free(l);
        return dra_err_set(err, DRA_ENOMEM, "out of memory");
    }
    l->file = name;
    l->err = err;
    yaml_parser_set_input_string(&l->parser, (const unsigned char *)s, len);
    yaml_parser_set_encoding(&l->parser, YAML_UTF8_ENCODING);
    rc = load_stream(l, out);
    for (size_t i = 0; i < l->anchor_count; i++) {
        free(l->anchors[i].name);
        json_free(l->anchors[i].node);
    }
    yaml_parser_delete(&l->parser);
    free(l);
    return rc;
}
