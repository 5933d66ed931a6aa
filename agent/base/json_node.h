/*
 * json_node.h - the node behind `struct json`, shared by the JSON and YAML files of this folder only.
 *
 * A number keeps its literal, so that 64-bit integers survive (a double holds 53 bits).
 */
#ifndef BASE_JSON_NODE_H
#define BASE_JSON_NODE_H

#include <dragent/text.h>

/* Deeper documents are refused, which also bounds the recursion over a tree. */
#define JSON_DEPTH_MAX 100
/* More members in one object are refused: looking for duplicate keys is quadratic. */
#define JSON_MEMBERS_MAX 4096
/* Bounds what aliases in a YAML document can blow up to. */
#define JSON_NODES_MAX 200000

struct json {
    enum json_type type;
    bool truth;         /* JSON_BOOL */
    int line;           /* 1-based, 0 = not from YAML */
    char *name;         /* owned; key when a member of an object */
    char *text;         /* owned; JSON_STRING: the value, JSON_NUMBER: the literal */
    char *source;       /* owned; what a person wrote, NULL = as printed */
    char *file;         /* owned; NULL = not from YAML */
    struct json *first; /* owned children */
    struct json *last;
    struct json *next;
    size_t count;
};

struct json *json_node_new(enum json_type type);
/* A string or number node with a copy of text[0..len). */
struct json *json_node_text(enum json_type type, const char *text, size_t len);
/* Strict grammar of RFC 8259 for all of s[0..len). */
bool json_is_number_literal(const char *s, size_t len);
/* Python's repr() of a float, with ".0" when whole. */
void json_double_repr(double v, char *out, size_t out_size);
/* Length of the valid UTF-8 character at p (1 to 4), 0 if there is none. */
size_t dra_utf8_char_len(const char *p, size_t n);
uint32_t dra_utf8_char_get(const char *p, size_t char_len);

/* What a YAML 1.1 plain scalar means (CFG-03). */
struct yaml_scalar {
    enum json_type type; /* NULL, BOOL, NUMBER or STRING */
    bool truth;
    bool must_quote;     /* a string for us, but one that others read otherwise (a date, .inf): quote in a dump */
    bool is_merge;       /* "<<" */
    char literal[64];    /* JSON_NUMBER */
};
void yaml_scalar_resolve(const char *s, size_t len, struct yaml_scalar *out);

#endif
