/*
 * explain.c - why a node would, or would not, be promoted now.
 */
#include "rules.h"

#include <string.h>

bool ha_explain_promotion(const struct ha_world *w, const struct ha_memory *m, char *out, size_t out_size)
{
    struct ha_memory copy = *m;
    struct ha_facts f;

    ha_facts_derive(w, &copy, &f);
    if (!f.known) {
        dra_str_clip(out, out_size, "the store was not read yet");
        return false;
    }
    if (f.has_lock) {
        dra_str_clip(out, out_size, f.primary ? "it leads already" : "it holds the leader lock and is about to be promoted");
        return true;
    }
    if (w->s.pause) {
        dra_str_clip(out, out_size, "the cluster is in maintenance mode (pause)");
        return false;
    }
    if (!election_may_win(&f, NULL, out, out_size)) {
        return false;
    }
    dra_str_clip(out, out_size, f.unlocked ? "nobody leads, and no other member is better" : "if the leader failed now, no other member known here is better");
    return true;
}
