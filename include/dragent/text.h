/*
 * text.h - growing buffers, JSON and YAML accessors.  Library dra_base_text.
 *
 * cJSON and libyaml types stay behind this header: `struct json` is opaque.  A YAML document is loaded into
 * the same tree, with the line of each node kept, so that one accessor family serves both.
 * Threads: none of these structs is shared; each function is re-entrant.
 */
#ifndef DRAGENT_TEXT_H
#define DRAGENT_TEXT_H

#include <dragent/base.h>

/* ---- buffers ------------------------------------------------------------------------------- */

struct dra_buf {
    char *p;       /* owned; always NUL-terminated once something was added; NULL when empty */
    size_t len;
    size_t cap;
    size_t max;    /* growing beyond is DRA_ETOOLONG and sets `failed` */
    bool failed;   /* sticky: any add failed; check once at the end */
};
void dra_buf_init(struct dra_buf *b, size_t max);
void dra_buf_deinit(struct dra_buf *b);
void dra_buf_reset(struct dra_buf *b); /* keeps the memory */
void dra_buf_add(struct dra_buf *b, const void *p, size_t n);
void dra_buf_adds(struct dra_buf *b, const char *s);
void dra_buf_addf(struct dra_buf *b, const char *fmt, ...) DRA_PRINTF(2, 3);
const char *dra_buf_str(const struct dra_buf *b); /* "" when empty; borrowed */
char *dra_buf_take(struct dra_buf *b);            /* caller frees; NULL if failed */
/* JSON string literal of s, quotes included, UTF-8 kept; control characters escaped. */
void dra_buf_add_json_str(struct dra_buf *b, const char *s);

/* base64 (standard alphabet, padded). */
void dra_buf_add_b64(struct dra_buf *b, const void *p, size_t n);
/* Decodes into b (appended).  DRA_EPARSE on anything but valid base64. */
DRA_MUST_USE int dra_b64_decode(const char *s, size_t len, struct dra_buf *b);

/* ---- JSON ----------------------------------------------------------------------------------- */

struct json; /* a node of a tree; the root is owned by who parsed it, children are borrowed */

enum json_type { JSON_NONE = 0, JSON_NULL, JSON_BOOL, JSON_NUMBER, JSON_STRING, JSON_ARRAY, JSON_OBJECT };

/* Parse exactly one document in s[0..len) (trailing blanks allowed).  Depth is limited. */
DRA_MUST_USE int json_parse(const char *s, size_t len, struct json **out, struct dra_err *err);
/* Parse the first document only; *used says how many bytes it took (keepalive answers, watch streams). */
DRA_MUST_USE int json_parse_first(const char *s, size_t len, struct json **out, size_t *used, struct dra_err *err);
void json_free(struct json *root);   /* NULL is fine */
void json_freep(struct json **root); /* for DRA_CLEANUP */
struct json *json_clone(const struct json *j); /* NULL when out of memory */

enum json_type json_type_of(const struct json *j); /* JSON_NONE for NULL */
/* Path "a.b[0].c"; NULL if any part is missing.  An empty path is the node itself. */
const struct json *json_find(const struct json *j, const char *path);
const struct json *json_get(const struct json *obj, const char *key); /* one key verbatim (dots allowed), case-sensitive */
size_t json_size(const struct json *j);                 /* elements or members, else 0 */
const struct json *json_at(const struct json *j, size_t i); /* i-th element or member value */
const char *json_key_at(const struct json *obj, size_t i);  /* i-th member's name */
const struct json *json_first(const struct json *j);        /* iteration: first child, then json_next */
const struct json *json_next(const struct json *j);
const char *json_name(const struct json *member);           /* its key, or NULL */
const char *json_text(const struct json *j);                /* string value, or NULL if not a string */
bool json_is_true(const struct json *j);
/* True as Python sees it, since peers do: absent, null, false, 0, "" and empty containers are not. */
bool json_is_truthy(const struct json *j);

/* Typed accessors.  The error names the path: "header.revision: want an integer, got null". */
DRA_MUST_USE int json_str(const struct json *j, const char *path, const char **out, struct dra_err *err);
/* Integers may be JSON numbers that are whole, or strings of digits (etcd's int64). */
DRA_MUST_USE int json_i64(const struct json *j, const char *path, int64_t *out, struct dra_err *err);
DRA_MUST_USE int json_bool(const struct json *j, const char *path, bool *out, struct dra_err *err);
/* Absent (or null) leaves *out alone and returns 0; a wrong type is an error. */
DRA_MUST_USE int json_opt_str(const struct json *j, const char *path, const char **out, struct dra_err *err);
DRA_MUST_USE int json_opt_i64(const struct json *j, const char *path, int64_t *out, struct dra_err *err);
DRA_MUST_USE int json_opt_bool(const struct json *j, const char *path, bool *out, struct dra_err *err);
/* The scalar as a person wrote it ("True" for YAML true is NOT done here: true -> "true"); NULL/object/array -> false. */
bool json_scalar_text(const struct json *j, char *out, size_t out_size);
/* The YAML source text of a scalar where known (CFG-03 [D]), else json_scalar_text. */
bool json_source_text(const struct json *j, char *out, size_t out_size);

/* Building and changing.  Setters copy; `json_set` takes ownership of v (NULL v = out of memory -> ENOMEM). */
struct json *json_new_object(void);
struct json *json_new_array(void);
struct json *json_new_str(const char *s);
struct json *json_new_i64(int64_t v);      /* exact up to 2^53; beyond it use json_new_raw */
struct json *json_new_raw(const char *literal);
struct json *json_new_double(double v);
struct json *json_new_bool(bool v);
struct json *json_new_null(void);
DRA_MUST_USE int json_set(struct json *obj, const char *key, struct json *v); /* replaces, keeps position */
DRA_MUST_USE int json_append(struct json *arr, struct json *v);
void json_del(struct json *obj, const char *key);
/* Compact (no blanks); `spaced` puts ", " and ": " as Python's json.dumps does (REST answers). */
char *json_print(const struct json *j);        /* caller frees */
char *json_print_spaced(const struct json *j); /* caller frees; non-ASCII escaped as \uXXXX, like Python */
/* DCS-04: equal "by text": same keys recursively, other values by their textual form (2 equals "2"). */
bool json_equal_text(const struct json *a, const struct json *b);
/* REST-72 / DCS-16: recursive merge of `patch` into *target; null deletes.  *out_changed may be NULL. */
DRA_MUST_USE int json_merge_patch(struct json **target, const struct json *patch, bool *out_changed);

/* ---- YAML (1.1 "safe" dialect, CFG-03) --------------------------------------------------------- */

/* Load one document.  `name` is used in errors ("dragent.yaml:41: ...").  Scalars get YAML 1.1 types; each node
 * keeps its line and its source text.  Anchors, aliases, merge keys, duplicate keys (last wins) work. */
DRA_MUST_USE int yaml_acc_load(const char *name, const char *s, size_t len, struct json **out, struct dra_err *err);
int json_line(const struct json *j);          /* 1-based; 0 if not from YAML */
const char *json_file(const struct json *j);  /* name given at load; NULL if not from YAML */
/* Block style dump as Python's yaml.safe_dump(default_flow_style=False) does, keys sorted (CLI-25). */
void yaml_acc_dump(const struct json *j, struct dra_buf *out);

#endif
