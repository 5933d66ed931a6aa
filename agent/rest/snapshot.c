/*
 * snapshot.c - facts to a snapshot: every text that needs more than numbers is made here, on the loop thread.
 */
#include "snapshot.h"

#include <stdlib.h>
#include <string.h>

static char *cluster_text(const struct rest_facts *f)
{
    struct views_tree t = {.root = views_cluster(f->cluster)};
    views_put(&t, t.root, "scope", json_new_str(f->scope != NULL ? f->scope : ""));
    return views_tree_text(&t);
}

/* False: out of memory. */
static bool fill_texts(struct rest_snap *s, const struct rest_facts *f)
{
    struct views_now now;
    bool ok = true;

    views_now_fill(&s->node, f->world->now, false, &now);
    s->node.sql_ok = now.full; /* what is silent now stays so until the next snapshot */
    if (now.full) {
        s->full = views_document(f, &s->node, &now);
        ok = s->full != NULL;
    }
    views_now_fill(&s->node, f->world->now, true, &now);
    s->brief = views_document(f, &s->node, &now);
    s->tags = views_tags(f->tags);
    if (f->world_json != NULL) {
        s->world = strdup(f->world_json); /* NULL: that page is missing */
    }
    if (f->cluster == NULL) {
        return ok && s->brief != NULL;
    }
    s->cluster = cluster_text(f);
    s->history = f->cluster->history != NULL ? json_print_spaced(f->cluster->history) : strdup("[]");
    if (json_type_of(f->cluster->config) == JSON_OBJECT) {
        s->config = json_print_spaced(f->cluster->config);
        ok = ok && s->config != NULL;
    }
    if (json_type_of(f->cluster->failsafe) == JSON_OBJECT) {
        s->failsafe = json_print_spaced(f->cluster->failsafe);
        ok = ok && s->failsafe != NULL;
    }
    return ok && s->brief != NULL && s->cluster != NULL && s->history != NULL;
}

struct rest_snap *rest_snap_new(const struct rest_facts *f)
{
    struct rest_snap *s = calloc(1, sizeof *s);

    if (s == NULL) {
        return NULL;
    }
    views_node_fill(&s->node, f);
    if (!fill_texts(s, f)) {
        rest_snap_free(s);
        return NULL;
    }
    return s;
}

void rest_snap_free(struct rest_snap *s)
{
    if (s == NULL) {
        return;
    }
    free(s->full);
    free(s->brief);
    free(s->cluster);
    free(s->history);
    free(s->config);
    free(s->failsafe);
    free(s->world);
    json_free(s->tags);
    free(s);
}
