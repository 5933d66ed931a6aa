/*
 * cache.c - the keys below the prefix as they stand.
 *
 * Invariants:
 *  (1) everything up to `revision` is in, and nothing older overwrites newer: each key knows its
 * mod_revision. (2) own writes are put in at once and may be newer than `revision` (DCS-58); an own
 * delete leaves a tombstone until the watch has passed it, so that an event from before it cannot
 * revive the key. Threads: loop thread only.
 */
#include "etcd.h"

#include <stdlib.h>
#include <string.h>

#define CACHE_KEYS_MAX 4096

static void kv_free(struct dcs_kv *kv)
{
    free((void *)(uintptr_t)kv->key);
    free((void *)(uintptr_t)kv->value);
    memset(kv, 0, sizeof *kv);
}

static size_t position(const struct etcd_cache *c, const char *key, bool *found)
{
    size_t lo = 0;
    size_t hi = c->n;

    *found = false;
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        int cmp = strcmp(c->kvs[mid].key, key);
        if (cmp == 0) {
            *found = true;
            return mid;
        }
        if (cmp < 0) {
            lo = mid + 1;
        } else {
            hi = mid;
        }
    }
    return lo;
}

static void remove_at(struct etcd_cache *c, size_t i)
{
    kv_free(&c->kvs[i]);
    c->n--;
    memmove(&c->kvs[i], &c->kvs[i + 1], (c->n - i) * sizeof c->kvs[0]);
}

static bool grow(struct dcs_kv **kvs, size_t n, size_t *cap)
{
    if (n < *cap) {
        return true;
    }
    size_t want = *cap == 0 ? 32 : *cap * 2;
    struct dcs_kv *p = want <= CACHE_KEYS_MAX ? realloc(*kvs, want * sizeof *p) : NULL;
    if (p == NULL) {
        return false;
    }
    *kvs = p;
    *cap = want;
    return true;
}

static int64_t gone_at(const struct etcd_cache *c, const char *key)
{
    int64_t newest = 0;
    for (size_t i = 0; i < c->n_gone; i++) {
        if (strcmp(c->gone[i].key, key) == 0 && c->gone[i].mod_revision > newest) {
            newest = c->gone[i].mod_revision;
        }
    }
    return newest;
}

void etcd_cache_clear(struct etcd_cache *c)
{
    while (c->n > 0) {
        kv_free(&c->kvs[--c->n]);
    }
    while (c->n_gone > 0) {
        kv_free(&c->gone[--c->n_gone]);
    }
    free(c->kvs);
    free(c->gone);
    memset(c, 0, sizeof *c);
}

int64_t etcd_cache_created(const struct etcd_cache *c, const char *key)
{
    bool found;
    size_t i = position(c, key, &found);
    return found ? c->kvs[i].create_revision : 0;
}

int64_t etcd_cache_modified(const struct etcd_cache *c, const char *key)
{
    bool found;
    size_t i = position(c, key, &found);
    return found ? c->kvs[i].mod_revision : 0;
}

bool etcd_cache_put(struct etcd_cache *c, const char *key, const char *value, size_t value_len,
                    int64_t mod_revision, int64_t create_revision, int64_t lease)
{
    bool found;
    size_t i = position(c, key, &found);

    if ((found && c->kvs[i].mod_revision > mod_revision) || gone_at(c, key) > mod_revision) {
        return true; /* older news */
    }
    char *copy = malloc(value_len + 1);
    if (copy == NULL) {
        return false;
    }
    if (value_len > 0) {
        memcpy(copy, value, value_len);
    }
    copy[value_len] = '\0';
    if (!found) {
        char *name = grow(&c->kvs, c->n, &c->cap) ? strdup(key) : NULL;
        if (name == NULL) {
            free(copy);
            return false;
        }
        memmove(&c->kvs[i + 1], &c->kvs[i], (c->n - i) * sizeof c->kvs[0]);
        c->n++;
        c->kvs[i] = (struct dcs_kv){.key = name};
    }
    free((void *)(uintptr_t)c->kvs[i].value);
    c->kvs[i].value = copy;
    c->kvs[i].value_len = value_len;
    c->kvs[i].mod_revision = mod_revision;
    c->kvs[i].create_revision = create_revision;
    c->kvs[i].lease = lease;
    return true;
}

bool etcd_cache_delete(struct etcd_cache *c, const char *key, int64_t revision)
{
    bool found;
    size_t i = position(c, key, &found);

    if (found && c->kvs[i].mod_revision < revision) {
        remove_at(c, i);
    }
    if (revision <= c->revision) {
        return true; /* the watch is past it: no tombstone needed */
    }
    char *name = grow(&c->gone, c->n_gone, &c->cap_gone) ? strdup(key) : NULL;
    if (name == NULL) {
        return false;
    }
    c->gone[c->n_gone++] = (struct dcs_kv){.key = name, .mod_revision = revision};
    return true;
}

void etcd_cache_advance(struct etcd_cache *c, int64_t revision)
{
    if (revision <= c->revision) {
        return;
    }
    c->revision = revision;
    for (size_t i = c->n_gone; i > 0; i--) {
        if (c->gone[i - 1].mod_revision <= revision) {
            kv_free(&c->gone[i - 1]);
            c->gone[i - 1] = c->gone[--c->n_gone];
        }
    }
}

bool etcd_cache_replace(struct etcd_cache *c, const struct json *kvs, const char *prefix,
                        int64_t revision)
{
    struct etcd_cache old = *c;
    struct etcd_cache fresh = {0};
    struct etcd_kv kv;
    bool ok = true;

    etcd_kv_init(&kv);
    for (const struct json *j = json_first(kvs); j != NULL && ok; j = json_next(j)) {
        if (!etcd_wire_read_kv(j, prefix, &kv)) {
            continue;
        }
        if (gone_at(&old, dra_buf_str(&kv.key)) <= kv.mod_revision) {
            ok = etcd_cache_put(&fresh, dra_buf_str(&kv.key), dra_buf_str(&kv.value), kv.value.len,
                                kv.mod_revision, kv.create_revision, kv.lease);
        }
    }
    etcd_kv_deinit(&kv);
    for (size_t i = 0; i < old.n && ok; i++) { /* own writes made after this range */
        const struct dcs_kv *o = &old.kvs[i];
        if (o->mod_revision > revision) {
            ok = etcd_cache_put(&fresh, o->key, o->value, o->value_len, o->mod_revision,
                                o->create_revision, o->lease);
        }
    }
    if (!ok) {
        etcd_cache_clear(&fresh);
        return false;
    }
    fresh.gone = old.gone; /* tombstones move over */
    fresh.n_gone = old.n_gone;
    fresh.cap_gone = old.cap_gone;
    fresh.revision = old.revision;
    old.gone = NULL;
    old.n_gone = 0;
    etcd_cache_clear(&old);
    *c = fresh;
    etcd_cache_advance(c, revision);
    return true;
}
