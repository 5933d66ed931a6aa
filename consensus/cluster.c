/*
 * cluster.c - the keys below the prefix, read into one picture.
 *
 * Promises: whatever is in the keys, the picture is complete and in bounds (DCS-07, SAFE-17):
 * malformed content counts as empty content, never as an error.  What does not fit (more than 64
 * members, names of 128 bytes) is left out and, for members, told by `too_many_members`.  The
 * revision of each key is kept even if its content is not understood. Threads: loop thread only.
 */
#include <dragent/dcs.h>


#include <stdlib.h>
#include <string.h>

#define FIELD_TEXT_MAX 64

struct member_slot { /* members are collected, sorted, then cut */
    const char *name;
    const struct dcs_kv *kv;
};

static void read_initialize(struct ha_cluster *c, const struct dcs_kv *kv);
static void read_leader(struct ha_cluster *c, const struct dcs_kv *kv);
static void read_members(struct dcs_snapshot *s, const struct dcs_kv *kvs, size_t n,
                         struct member_slot *slots);
static void read_status(struct dcs_snapshot *s, const struct dcs_kv *kv);
static void read_optime(struct ha_cluster *c, const struct dcs_kv *kv);
static void read_failover(struct dcs_snapshot *s, const struct dcs_kv *kv);
static void read_sync(struct ha_cluster *c, const struct dcs_kv *kv);
static void read_history(struct dcs_snapshot *s, const struct dcs_kv *kv);

/* ---- small helpers
 * ----------------------------------------------------------------------------------- */

static bool utf8_is_valid(const char *s, size_t len)
{
    const unsigned char *p = (const unsigned char *)s;
    size_t i = 0;

    while (i < len) {
        unsigned char b = p[i];
        size_t more;
        if (b < 0x80) {
            i++;
            continue;
        } else if (b >= 0xC2 && b <= 0xDF) {
            more = 1;
        } else if (b >= 0xE0 && b <= 0xEF) {
            more = 2;
        } else if (b >= 0xF0 && b <= 0xF4) {
            more = 3;
        } else {
            return false;
        }
        if (len - i <= more) {
            return false;
        }
        for (size_t k = 1; k <= more; k++) {
            if ((p[i + k] & 0xC0) != 0x80) {
                return false;
            }
        }
        unsigned char second = p[i + 1];
        if ((b == 0xE0 && second < 0xA0) || (b == 0xED && second >= 0xA0) ||
            (b == 0xF0 && second < 0x90) || (b == 0xF4 && second >= 0x90)) {
            return false; /* over-long, surrogate, beyond U+10FFFF */
        }
        i += more + 1;
    }
    return true;
}

/* Text that may be used as it is: UTF-8 without NUL bytes. */
static bool is_clean(const struct dcs_kv *kv)
{
    return kv->value != NULL && memchr(kv->value, '\0', kv->value_len) == NULL &&
           utf8_is_valid(kv->value, kv->value_len);
}

/* The value as JSON; NULL if it is none. */
static struct json *parse_value(const struct dcs_kv *kv)
{
    struct json *j = NULL;
    if (kv->value == NULL || !utf8_is_valid(kv->value, kv->value_len) ||
        json_parse(kv->value, kv->value_len, &j, NULL) != DRA_OK) {
        return NULL;
    }
    return j;
}

static struct json *parse_typed(const struct dcs_kv *kv, enum json_type want)
{
    struct json *j = parse_value(kv);
    if (json_type_of(j) != want) {
        json_free(j);
        return NULL;
    }
    return j;
}

static bool get_i64(const struct json *obj, const char *key, int64_t *out)
{
    const struct json *j = json_get(obj, key);
    return j != NULL && json_i64(j, "", out, NULL) == DRA_OK;
}

/* A position or a count: what is no whole number, or negative, counts as 0. */
static uint64_t get_u64(const struct json *obj, const char *key)
{
    int64_t v;
    return get_i64(obj, key, &v) && v > 0 ? (uint64_t)v : 0;
}

static void get_text(const struct json *obj, const char *key, char *dst, size_t dst_size)
{
    const char *s = json_text(json_get(obj, key));
    if (s == NULL || dra_str_copy(dst, dst_size, s) != DRA_OK) {
        dst[0] = '\0';
    }
}

/* ---- the whole
 * -------------------------------------------------------------------------------------------- */

struct dcs_snapshot *dcs_cluster_parse(const struct dcs_kv *kvs, size_t n, int64_t revision)
{
    const struct dcs_kv *optime = NULL;
    struct dcs_snapshot *s = calloc(1, sizeof *s);
    struct member_slot *slots = n > 0 ? calloc(n, sizeof *slots) : NULL;

    if (s == NULL || (n > 0 && slots == NULL)) {
        free(s);
        free(slots);
        return NULL;
    }
    s->refs = 1;
    s->c.revision = revision;
    for (size_t i = 0; i < n; i++) {
        const struct dcs_kv *kv = &kvs[i];
        if (dra_str_eq(kv->key, "initialize")) {
            read_initialize(&s->c, kv);
        } else if (dra_str_eq(kv->key, "leader")) {
            read_leader(&s->c, kv);
        } else if (dra_str_eq(kv->key, "config")) {
            s->c.config_rev = kv->mod_revision;
            s->config = parse_typed(kv, JSON_OBJECT);
            s->c.config_valid = json_size(s->config) > 0;
        } else if (dra_str_eq(kv->key, "status")) {
            read_status(s, kv);
        } else if (dra_str_eq(kv->key, "optime/leader")) {
            optime = kv;
        } else if (dra_str_eq(kv->key, "failover")) {
            read_failover(s, kv);
        } else if (dra_str_eq(kv->key, "sync")) {
            read_sync(&s->c, kv);
        } else if (dra_str_eq(kv->key, "history")) {
            read_history(s, kv);
        } else if (dra_str_eq(kv->key, "failsafe")) {
            s->c.failsafe_rev = kv->mod_revision;
            s->failsafe = parse_typed(kv, JSON_OBJECT);
        }
    }
    if (s->c.status_rev == 0 && optime != NULL) { /* DCS-33: only when there is no status */
        read_optime(&s->c, optime);
    }
    read_members(s, kvs, n, slots);
    free(slots);
    return s;
}

static void read_initialize(struct ha_cluster *c, const struct dcs_kv *kv)
{
    c->initialize_rev = kv->mod_revision;
    if (kv->value_len == 0) {
        c->initialize = HA_INIT_EMPTY;
        return;
    }
    c->initialize = HA_INIT_INVALID;
    if (kv->value_len < 10 ||
        kv->value_len >= HA_SYSID_MAX) { /* DCS-07; 20 digits hold any 64-bit number */
        return;
    }
    for (size_t i = 0; i < kv->value_len; i++) {
        if (kv->value[i] < '0' || kv->value[i] > '9') {
            return;
        }
    }
    if (dra_str_copy_n(c->sysid, sizeof c->sysid, kv->value, kv->value_len) == DRA_OK) {
        c->initialize = HA_INIT_VALID;
    }
}

static void read_leader(struct ha_cluster *c, const struct dcs_kv *kv)
{
    c->leader_rev = kv->mod_revision;
    c->leader_lease = kv->lease;
    if (!is_clean(kv) ||
        dra_str_copy_n(c->leader, sizeof c->leader, kv->value, kv->value_len) != DRA_OK) {
        c->leader[0] =
            '\0'; /* a name that nobody can have: no leader, but the key is there (leader_rev) */
    }
}

/* ---- members (DCS-20..23)
 * ----------------------------------------------------------------------------------- */

/* "postgres://u:p@h:5432/db?application_name=http://h:8008/patroni" (DCS-23) as an object. */
static struct json *legacy_member(const struct dcs_kv *kv)
{
    static const char param[] = "application_name=";
    char url[2 * HA_URL_MAX];
    char api[HA_URL_MAX] = "";

    if (!is_clean(kv) || dra_str_copy_n(url, sizeof url, kv->value, kv->value_len) != DRA_OK) {
        return NULL;
    }
    char *q = strchr(url, '?');
    char *p = q != NULL ? strstr(q, param) : NULL;
    if (p != NULL) {
        p += sizeof param - 1;
        size_t len = strcspn(p, "&");
        if (dra_str_copy_n(api, sizeof api, p, len) != DRA_OK) {
            api[0] = '\0';
        }
    }
    if (q != NULL) {
        *q = '\0';
    }
    struct json *j = json_new_object();
    if (j == NULL || json_set(j, "conn_url", json_new_str(url)) != DRA_OK ||
        (api[0] != '\0' && json_set(j, "api_url", json_new_str(api)) != DRA_OK)) {
        json_free(j);
        return NULL;
    }
    return j;
}

static void read_member(struct ha_member *m, const struct json *j)
{
    int64_t tl;

    get_text(j, "conn_url", m->conn_url, sizeof m->conn_url);
    get_text(j, "api_url", m->api_url, sizeof m->api_url);
    get_text(j, "version", m->version, sizeof m->version);
    get_text(j, "dragent", m->dragent, sizeof m->dragent);
    m->role = ha_role_from_str(json_text(json_get(j, "role")));
    m->state = ha_state_from_str(json_text(json_get(j, "state")));
    const char *repl = json_text(json_get(j, "replication_state"));
    if (dra_str_eq(repl, "streaming")) {
        m->replication_state = HA_REPL_STREAMING;
    } else if (dra_str_eq(repl, "in archive recovery")) {
        m->replication_state = HA_REPL_ARCHIVE;
    }
    m->xlog_location = get_u64(j, "xlog_location");
    m->receive_lsn = get_u64(j, "receive_lsn");
    m->replay_lsn = get_u64(j, "replay_lsn");
    m->timeline = get_i64(j, "timeline", &tl) && tl > 0 && tl <= UINT32_MAX ? (uint32_t)tl : 0;
    m->pending_restart = json_is_truthy(json_get(j, "pending_restart"));
    m->pause = json_is_truthy(json_get(j, "pause"));
    m->left_in_pause = json_is_truthy(json_get(j, "left_in_pause"));
    const struct json *cap = json_get(j, "checkpoint_after_promote");
    m->checkpoint_after_promote_pending = cap != NULL && !json_is_truthy(cap);
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct member_slot *)a)->name, ((const struct member_slot *)b)->name);
}

static void read_members(struct dcs_snapshot *s, const struct dcs_kv *kvs, size_t n,
                         struct member_slot *slots)
{
    static const char dir[] = "members/";
    size_t found = 0;

    for (size_t i = 0; i < n; i++) {
        if (!dra_str_starts(kvs[i].key, dir)) {
            continue;
        }
        const char *name = kvs[i].key + sizeof dir - 1;
        if (name[0] == '\0' || strchr(name, '/') != NULL) { /* DCS-03: exactly one slash */
            continue;
        }
        if (strlen(name) >= HA_NAME_MAX) {
            s->c.too_many_members = true; /* a member that the picture cannot show */
            continue;
        }
        slots[found++] = (struct member_slot){.name = name, .kv = &kvs[i]};
    }
    if (found > 1) {
        qsort(slots, found, sizeof *slots, by_name);
    }
    if (found > HA_MEMBERS_MAX) {
        s->c.too_many_members = true;
        found = HA_MEMBERS_MAX;
    }
    for (size_t i = 0; i < found; i++) {
        const struct dcs_kv *kv = slots[i].kv;
        struct ha_member *m = &s->c.members[i];
        struct json *raw = parse_typed(kv, JSON_OBJECT);
        if (raw == NULL && kv->value_len >= 8 && memcmp(kv->value, "postgres", 8) == 0) {
            raw = legacy_member(kv);
        }
        if (dra_str_copy(m->name, sizeof m->name, slots[i].name) != DRA_OK) {
            m->name[0] = '\0'; /* not reached: measured above */
        }
        m->lease = kv->lease;
        m->mod_revision = kv->mod_revision;
        read_member(m, raw);
        dcs_tags_interpret(json_get(raw, "tags"), &m->tags);
        s->member_raw[i] = raw;
    }
    s->c.n_members = (int)found;
}

/* ---- tags (HA-170..174)
 * -------------------------------------------------------------------------------------- */

/* A boolean as a person may have written it; false return = absent, or not to be understood. */
static bool tag_bool(const struct json *tags, const char *key, bool *out)
{
    static const struct {
        const char *word;
        bool value;
    } words[] = {{"on", true},   {"true", true},   {"yes", true}, {"1", true},
                 {"off", false}, {"false", false}, {"no", false}, {"0", false}}; /* REST-113 */
    const struct json *j = json_get(tags, key);
    const char *s = json_text(j);

    *out = false;
    if (j == NULL || json_type_of(j) == JSON_NULL) {
        return false;
    }
    if (s == NULL) {
        *out = json_is_truthy(j);
        return true;
    }
    for (size_t i = 0; i < DRA_ARRAY_LEN(words); i++) {
        if (dra_str_eq_nocase(s, words[i].word)) {
            *out = words[i].value;
            return true;
        }
    }
    return false;
}

/* Boolean and priority of one kind together: HA-170's "if absent", HA-174's "the boolean wins". */
static void tag_priority(const struct json *tags, const char *no_key, const char *prio_key,
                         bool *out_no, int *out_prio)
{
    int64_t prio = 1;
    bool has_prio = get_i64(tags, prio_key, &prio);

    if (!has_prio) {
        prio = 1;
    }
    prio = prio < INT32_MIN ? INT32_MIN : prio > INT32_MAX ? INT32_MAX : prio;
    if (!tag_bool(tags, no_key, out_no)) {
        *out_no = has_prio && prio <= 0;
    }
    *out_prio = *out_no ? 0 : (int)prio;
}

void dcs_tags_interpret(const struct json *tags, struct ha_tags *out)
{
    memset(out, 0, sizeof *out);
    if (json_type_of(tags) != JSON_OBJECT) {
        tags = NULL;
    }
    tag_priority(tags, "nofailover", "failover_priority", &out->nofailover,
                 &out->failover_priority);
    tag_priority(tags, "nosync", "sync_priority", &out->nosync, &out->sync_priority);
    (void)tag_bool(tags, "noloadbalance",
                   &out->noloadbalance); /* absent and unclear are both "no" */
    (void)tag_bool(tags, "clonefrom", &out->clonefrom);
    (void)tag_bool(tags, "nostream", &out->nostream);
    const struct json *from = json_get(tags, "replicatefrom");
    if (from == NULL || json_type_of(from) == JSON_BOOL ||
        !json_scalar_text(from, out->replicatefrom, sizeof out->replicatefrom)) {
        out->replicatefrom[0] = '\0';
    }
}

/* ---- status (DCS-28, 33)
 * -------------------------------------------------------------------------------------- */

/* A part of `status` that may be JSON or JSON text inside a string.  *out_owned is to be freed. */
static const struct json *status_part(const struct json *status, const char *key,
                                      struct json **out_owned)
{
    const struct json *j = json_get(status, key);
    const char *text = json_text(j);

    *out_owned = NULL;
    if (text == NULL) {
        return j;
    }
    return json_parse(text, strlen(text), out_owned, NULL) == DRA_OK ? *out_owned : NULL;
}

static void read_slots(struct ha_cluster *c, const struct json *slots)
{
    if (json_type_of(slots) != JSON_OBJECT) {
        return;
    }
    for (const struct json *j = json_first(slots); j != NULL && c->n_slots < HA_SLOTS_MAX;
         j = json_next(j)) {
        struct ha_slot_pos *pos = &c->slots[c->n_slots];
        int64_t lsn;
        if (dra_str_copy(pos->name, sizeof pos->name, json_name(j)) != DRA_OK) {
            continue; /* longer than PostgreSQL's names: no slot */
        }
        pos->lsn = json_i64(j, "", &lsn, NULL) == DRA_OK && lsn > 0 ? (uint64_t)lsn : 0;
        c->n_slots++;
    }
}

static void read_retain(struct ha_cluster *c, const struct json *retain)
{
    if (json_type_of(retain) != JSON_ARRAY) {
        return;
    }
    for (const struct json *j = json_first(retain); j != NULL && c->n_retain < HA_SLOTS_MAX;
         j = json_next(j)) {
        const char *name = json_text(j);
        if (name != NULL &&
            dra_str_copy(c->retain[c->n_retain], HA_SLOT_NAME_MAX, name) == DRA_OK) {
            c->n_retain++;
        }
    }
}

static void read_status(struct dcs_snapshot *s, const struct dcs_kv *kv)
{
    struct ha_cluster *c = &s->c;
    struct json *owned = NULL;
    const char *name = NULL;
    int64_t bare;

    c->status_rev = kv->mod_revision;
    struct json *j = parse_value(kv);
    if (json_type_of(j) == JSON_NUMBER) { /* legacy: the position alone */
        c->optime = json_i64(j, "", &bare, NULL) == DRA_OK && bare > 0 ? (uint64_t)bare : 0;
    }
    if (json_type_of(j) != JSON_OBJECT) {
        json_free(j);
        return;
    }
    s->status = j;
    c->optime = get_u64(j, "optime");
    read_slots(c, status_part(j, "slots", &owned));
    json_free(owned);
    read_retain(c, status_part(j, "retain_slots", &owned));
    json_free(owned);
    if (json_str(j, "unfenced", &name, NULL) == DRA_OK && dra_str_copy(c->unfenced, sizeof c->unfenced, name) != 0) {
        c->unfenced[0] = '\0';
    }
}

static void read_optime(struct ha_cluster *c, const struct dcs_kv *kv)
{
    int64_t v;
    if (dra_parse_i64(kv->value, kv->value_len, 0, INT64_MAX, &v) == DRA_OK) {
        c->optime = (uint64_t)v;
    }
}

/* ---- failover (DCS-35, 37)
 * -------------------------------------------------------------------------------------- */

static void trim_copy(char *dst, size_t dst_size, const char *s, size_t len)
{
    while (len > 0 && strchr(" \t\r\n", s[0]) != NULL) {
        s++;
        len--;
    }
    while (len > 0 && strchr(" \t\r\n", s[len - 1]) != NULL) {
        len--;
    }
    if (dra_str_copy_n(dst, dst_size, s, len) != DRA_OK) {
        dst[0] = '\0';
    }
}

/* A field that names a member; false if it holds something that is no name. */
static bool failover_name(const struct json *obj, const char *key, char *dst, size_t dst_size)
{
    const struct json *j = json_get(obj, key);
    const char *s = json_text(j);

    if (!json_is_truthy(j)) {
        return true;
    }
    return s != NULL && dra_str_copy(dst, dst_size, s) == DRA_OK;
}

static void read_failover(struct dcs_snapshot *s, const struct dcs_kv *kv)
{
    struct ha_cluster *c = &s->c;

    c->failover_rev = kv->mod_revision;
    struct json *j = parse_value(kv);
    if (j == NULL) { /* legacy "from:to" */
        if (is_clean(kv) && kv->value_len > 0) {
            const char *colon = memchr(kv->value, ':', kv->value_len);
            size_t first = colon != NULL ? (size_t)(colon - kv->value) : kv->value_len;
            trim_copy(c->failover.leader, sizeof c->failover.leader, kv->value, first);
            if (colon != NULL) {
                const char *to = colon + 1;
                size_t left = kv->value_len - first - 1;
                const char *end = memchr(to, ':', left);
                trim_copy(c->failover.member, sizeof c->failover.member, to,
                          end != NULL ? (size_t)(end - to) : left);
            }
        }
        return;
    }
    if (json_type_of(j) != JSON_OBJECT) {
        json_free(j);
        return;
    }
    s->failover = j;
    if (!failover_name(j, "leader", c->failover.leader, sizeof c->failover.leader) ||
        !failover_name(j, "member", c->failover.member, sizeof c->failover.member)) {
        c->failover.leader[0] = '\0'; /* half a request is none */
        c->failover.member[0] = '\0';
    }
    const struct json *at = json_get(j, "scheduled_at");
    if (json_is_truthy(at)) {
        bool has_zone = false;
        c->failover.scheduled = true;
        if (!dcs_iso_parse(json_text(at), &c->failover.scheduled_at, &has_zone) || !has_zone) {
            c->failover.schedule_invalid = true;
            c->failover.scheduled_at =
                INT64_MAX; /* never due, even for a reader that forgets the flag */
        }
    }
}

/* ---- sync (DCS-40)
 * ------------------------------------------------------------------------------------------------
 */

static void read_sync(struct ha_cluster *c, const struct dcs_kv *kv)
{
    int64_t quorum;

    c->sync_rev = kv->mod_revision;
    struct json *j = parse_typed(kv, JSON_OBJECT);
    get_text(j, "leader", c->sync.leader, sizeof c->sync.leader);
    if (c->sync.leader[0] != '\0') {
        if (get_i64(j, "quorum", &quorum) && quorum > 0 && quorum <= INT32_MAX) {
            c->sync.quorum = (int)quorum;
        }
        const char *names = json_text(json_get(j, "sync_standby"));
        while (names != NULL && *names != '\0') {
            size_t len = strcspn(names, ",");
            char *dst = c->sync.standbys[c->sync.n_standbys];
            trim_copy(dst, HA_NAME_MAX, names, len);
            if (dst[0] != '\0' && ++c->sync.n_standbys == HA_MEMBERS_MAX) {
                break;
            }
            names += len + (names[len] == ',' ? 1 : 0);
        }
    }
    json_free(j);
}

/* ---- history (DCS-44)
 * ---------------------------------------------------------------------------------------------- */

static void read_history(struct dcs_snapshot *s, const struct dcs_kv *kv)
{
    int64_t tl;

    s->c.history_rev = kv->mod_revision;
    s->history = parse_typed(kv, JSON_ARRAY);
    if (s->history == NULL) {
        return;
    }
    size_t n = json_size(s->history);
    s->c.n_history = (int)n;
    if (n == 0) {
        s->c.history_timeline = 1;
        return;
    }
    const struct json *last = json_at(s->history, n - 1);
    if (json_type_of(last) == JSON_ARRAY && json_size(last) > 0 &&
        json_i64(json_at(last, 0), "", &tl, NULL) == DRA_OK && tl > 0 && tl < UINT32_MAX) {
        s->c.history_timeline = (uint32_t)tl + 1;
    }
}
