/*
 * snapshot.h - what the REST thread answers from: immutable once published.
 */
#ifndef REST_SNAPSHOT_H
#define REST_SNAPSHOT_H

#include "node.h"

struct rest_snap {
    struct views_node node;
    char *full;     /* owned; the status document in its full shape; NULL if there is none */
    char *brief;    /* owned; in its short shape */
    char *cluster;  /* owned; body of /cluster; NULL: never read */
    char *history;  /* owned; "[]" if there is none */
    char *config;   /* owned; NULL: no such key, or not an object */
    char *failsafe; /* owned; NULL: no such key */
    char *world;    /* owned; may be NULL */
    struct json *tags; /* owned; as shown; NULL: none */
};
struct rest_snap *rest_snap_new(const struct rest_facts *f); /* NULL: out of memory */
void rest_snap_free(struct rest_snap *s);

#endif
