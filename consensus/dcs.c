/*
 * dcs.c - what all stores share: the prefix of the keys and the counted snapshot.
 *
 * Threads: loop thread only.
 */
#include <dragent/dcs.h>


#include <stdlib.h>
#include <string.h>

struct dcs_snapshot *dcs_snapshot_ref(struct dcs_snapshot *s)
{
    assert(s->refs > 0);
    s->refs++;
    return s;
}

void dcs_snapshot_unref(struct dcs_snapshot *s)
{
    if (s == NULL) {
        return;
    }
    assert(s->refs > 0);
    if (--s->refs > 0) {
        return;
    }
    json_free(s->config);
    json_free(s->history);
    json_free(s->failsafe);
    json_free(s->status);
    json_free(s->failover);
    for (int i = 0; i < s->c.n_members; i++) {
        json_free(s->member_raw[i]);
    }
    free(s);
}

int dcs_prefix(const char *ns, const char *scope, char *out, size_t out_size)
{
    const char *const parts[] = {"/", ns, "/", scope, "/"};
    size_t n = 0;

    if (out_size == 0) {
        return DRA_ETOOLONG;
    }
    for (size_t i = 0; i < DRA_ARRAY_LEN(parts); i++) {
        for (const char *p = parts[i] != NULL ? parts[i] : ""; *p != '\0'; p++) {
            if (*p == '/' && n > 0 && out[n - 1] == '/') {
                continue; /* DCS-01: a run of slashes counts once */
            }
            if (n + 1 >= out_size) {
                out[0] = '\0';
                return DRA_ETOOLONG;
            }
            out[n++] = *p;
        }
    }
    out[n] = '\0';
    return DRA_OK;
}
