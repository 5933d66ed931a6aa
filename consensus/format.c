/*
 * format.c - the values that are written below the prefix, and the one time that people may put
 * there.
 *
 * Promises: compact JSON, UTF-8, types as Patroni's readers want them (DCS-04, 20, 26, 28, 35, 44);
 * a value that would make a peer's read fail (DCS-26, 37) is never made. Threads: any.
 */
#include <dragent/dcs.h>


#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define VALUE_MAX ((size_t)512 * 1024) /* etcd refuses requests above 1.5 MB */

/* ---- small helpers
 * ----------------------------------------------------------------------------------- */

static void add_key(struct dra_buf *b, const char *key)
{
    if (b->len > 1) {
        dra_buf_adds(b, ",");
    }
    dra_buf_add_json_str(b, key);
    dra_buf_adds(b, ":");
}

static void add_str(struct dra_buf *b, const char *key, const char *value)
{
    add_key(b, key);
    dra_buf_add_json_str(b, value);
}

static void add_u64(struct dra_buf *b, const char *key, uint64_t v)
{
    add_key(b, key);
    dra_buf_addf(b, "%" PRIu64, v);
}

static void add_raw(struct dra_buf *b, const char *key, const char *literal)
{
    add_key(b, key);
    dra_buf_adds(b, literal);
}

static void add_json(struct dra_buf *b, const struct json *j)
{
    char *text = json_print(j);
    if (text == NULL) {
        b->failed = true;
        return;
    }
    dra_buf_adds(b, text);
    free(text);
}

static char *finish(struct dra_buf *b)
{
    char *text = dra_buf_take(b);
    dra_buf_deinit(b);
    return text;
}

/* ---- member (DCS-20, 21)
 * --------------------------------------------------------------------------------- */

/* HA-170: booleans that are off are left out, unless their priority is there too. */
static bool tag_is_published(const struct json *tags, const char *name, const struct json *value)
{
    static const char *const bools[] = {"clonefrom", "nofailover", "noloadbalance", "nosync",
                                        "nostream"};

    for (size_t i = 0; i < DRA_ARRAY_LEN(bools); i++) {
        if (strcmp(name, bools[i]) == 0) {
            return json_is_truthy(value) ||
                   (strcmp(name, "nofailover") == 0 &&
                    json_get(tags, "failover_priority") != NULL) ||
                   (strcmp(name, "nosync") == 0 && json_get(tags, "sync_priority") != NULL);
        }
    }
    return true;
}

static void add_tags(struct dra_buf *b, const struct json *tags)
{
    struct dra_buf t;
    int n = 0;

    if (json_type_of(tags) != JSON_OBJECT) {
        return; /* DCS-26: never null, never anything but an object */
    }
    dra_buf_init(&t, VALUE_MAX);
    dra_buf_adds(&t, "{");
    for (const struct json *j = json_first(tags); j != NULL; j = json_next(j)) {
        if (!tag_is_published(tags, json_name(j), j)) {
            continue;
        }
        add_key(&t, json_name(j));
        add_json(&t, j);
        n++;
    }
    dra_buf_adds(&t, "}");
    if (t.failed) {
        b->failed = true;
    } else if (n > 0) {
        add_raw(b, "tags", dra_buf_str(&t));
    }
    dra_buf_deinit(&t);
}

char *dcs_format_member(const struct dcs_member_out *o)
{
    const struct ha_member *m = o->m;
    struct dra_buf b;

    dra_buf_init(&b, VALUE_MAX);
    dra_buf_adds(&b, "{");
    add_str(&b, "conn_url", m->conn_url);
    add_str(&b, "api_url", m->api_url);
    add_str(&b, "state", ha_state_to_str(m->state));
    add_str(&b, "role", ha_role_to_str(m->role));
    add_str(&b, "version", m->version);
    if (m->dragent[0] != '\0') {
        add_str(&b, "dragent", m->dragent);
    }
    if (o->proxy_url != NULL && o->proxy_url[0] != '\0') {
        add_str(&b, "proxy_url", o->proxy_url);
    }
    if (m->checkpoint_after_promote_pending) {
        add_raw(&b, "checkpoint_after_promote", "false");
    }
    add_tags(&b, o->tags);
    if (m->pending_restart) {
        add_raw(&b, "pending_restart", "true");
        if (json_type_of(o->pending_restart_reason) == JSON_OBJECT) {
            add_key(&b, "pending_restart_reason");
            add_json(&b, o->pending_restart_reason);
        }
    }
    if (m->xlog_location != 0) {
        add_u64(&b, "xlog_location", m->xlog_location);
    }
    if (m->replay_lsn != 0) {
        add_u64(&b, "replay_lsn", m->replay_lsn);
    }
    if (m->receive_lsn != 0) {
        add_u64(&b, "receive_lsn", m->receive_lsn);
    }
    if (m->replication_state != HA_REPL_NONE) {
        add_str(&b, "replication_state",
                m->replication_state == HA_REPL_STREAMING ? "streaming" : "in archive recovery");
    }
    if (m->timeline != 0) {
        add_u64(&b, "timeline", m->timeline);
    }
    if (json_type_of(o->scheduled_restart) == JSON_OBJECT) {
        add_key(&b, "scheduled_restart");
        add_json(&b, o->scheduled_restart);
    }
    if (m->pause) {
        add_raw(&b, "pause", "true");
    }
    if (m->left_in_pause) {
        add_raw(&b, "left_in_pause", "true");
    }
    dra_buf_adds(&b, "}");
    return finish(&b);
}

/* ---- status (DCS-28) and failover (DCS-35)
 * ------------------------------------------------------------------ */

char *dcs_format_status(uint64_t optime, const struct ha_slot_pos *slots, int n_slots,
                        const char (*retain)[HA_SLOT_NAME_MAX], int n_retain)
{
    struct dra_buf b;

    dra_buf_init(&b, VALUE_MAX);
    dra_buf_adds(&b, "{");
    if (optime != 0) {
        add_u64(&b, "optime", optime);
    }
    if (n_slots > 0) {
        add_key(&b, "slots");
        for (int i = 0; i < n_slots; i++) {
            dra_buf_adds(&b, i == 0 ? "{" : ",");
            dra_buf_add_json_str(&b, slots[i].name);
            dra_buf_addf(&b, ":%" PRIu64, slots[i].lsn);
        }
        dra_buf_adds(&b, "}");
    }
    if (n_retain > 0) {
        add_key(&b, "retain_slots");
        for (int i = 0; i < n_retain; i++) {
            dra_buf_adds(&b, i == 0 ? "[" : ",");
            dra_buf_add_json_str(&b, retain[i]);
        }
        dra_buf_adds(&b, "]");
    }
    dra_buf_adds(&b, "}");
    return finish(&b);
}

char *dcs_format_failover(const char *leader, const char *member, const char *scheduled_at_iso)
{
    struct dra_buf b;

    if (scheduled_at_iso != NULL && scheduled_at_iso[0] != '\0') {
        int64_t at;
        bool has_zone = false;
        if (!dcs_iso_parse(scheduled_at_iso, &at, &has_zone) || !has_zone) {
            return NULL; /* DCS-37: it would make every peer's read fail */
        }
    }
    dra_buf_init(&b, VALUE_MAX);
    dra_buf_adds(&b, "{");
    if (leader != NULL && leader[0] != '\0') {
        add_str(&b, "leader", leader);
    }
    if (member != NULL && member[0] != '\0') {
        add_str(&b, "member", member);
    }
    if (scheduled_at_iso != NULL && scheduled_at_iso[0] != '\0') {
        add_str(&b, "scheduled_at", scheduled_at_iso);
    }
    dra_buf_adds(&b, "}");
    return finish(&b);
}

/* ---- history (DCS-44, HA-95)
 * ------------------------------------------------------------------------------------ */

struct history_line {
    int64_t tl;
    uint64_t lsn;
    const char *reason; /* not terminated */
    size_t reason_len;
};

/* One line of a .history file: exactly three fields between tabs. */
static bool history_line_parse(const char *s, size_t len, struct history_line *out)
{
    char lsn[DRA_LSN_STR_MAX];

    while (len > 0 && strchr(" \t\r", s[0]) != NULL) {
        s++;
        len--;
    }
    while (len > 0 && strchr(" \t\r", s[len - 1]) != NULL) {
        len--;
    }
    const char *t1 = len > 0 ? memchr(s, '\t', len) : NULL;
    const char *t2 = t1 != NULL ? memchr(t1 + 1, '\t', len - (size_t)(t1 + 1 - s)) : NULL;
    if (t2 == NULL || memchr(t2 + 1, '\t', len - (size_t)(t2 + 1 - s)) != NULL) {
        return false;
    }
    out->reason = t2 + 1;
    out->reason_len = len - (size_t)(t2 + 1 - s);
    return dra_parse_i64(s, (size_t)(t1 - s), 1, UINT32_MAX, &out->tl) == DRA_OK &&
           dra_str_copy_n(lsn, sizeof lsn, t1 + 1, (size_t)(t2 - t1 - 1)) == DRA_OK &&
           dra_lsn_parse(lsn, &out->lsn) == DRA_OK;
}

/* Elements 4 and 5 of the old key's line for the same timeline and position. */
static void add_old_elements(struct dra_buf *b, const struct json *old,
                             const struct history_line *h)
{
    for (const struct json *l = json_first(old); l != NULL; l = json_next(l)) {
        int64_t tl;
        int64_t lsn;
        if (json_type_of(l) != JSON_ARRAY || json_size(l) < 4 ||
            json_i64(json_at(l, 0), "", &tl, NULL) != DRA_OK ||
            json_i64(json_at(l, 1), "", &lsn, NULL) != DRA_OK || tl != h->tl || lsn < 0 ||
            (uint64_t)lsn != h->lsn) {
            continue;
        }
        for (size_t i = 3; i < 5 && i < json_size(l); i++) {
            dra_buf_adds(b, ",");
            add_json(b, json_at(l, i));
        }
        return;
    }
}

static void add_text_n(struct dra_buf *b, const char *s, size_t len)
{
    char *copy = strndup(s, len);
    if (copy == NULL) {
        b->failed = true;
        return;
    }
    dra_buf_add_json_str(b, copy);
    free(copy);
}

/* The old key already ends with this timeline's birth, in full. */
static bool history_is_current(const struct json *old, uint32_t tl)
{
    size_t n = json_type_of(old) == JSON_ARRAY ? json_size(old) : 0;
    const struct json *last = n > 0 ? json_at(old, n - 1) : NULL;
    int64_t last_tl;

    return json_type_of(last) == JSON_ARRAY && json_size(last) == 5 &&
           json_i64(json_at(last, 0), "", &last_tl, NULL) == DRA_OK && last_tl == (int64_t)tl - 1;
}

char *dcs_format_history(const struct json *old_history, uint32_t tl, const char *history_file,
                         const char *mtime_iso, const char *my_name, int max_lines)
{
    struct history_line h;
    struct history_line last = {0};
    struct dra_buf b;
    int total = 0;
    int seen = 0;

    if (tl == 0) {
        return NULL;
    }
    if (tl == 1) {
        return json_type_of(old_history) == JSON_ARRAY && json_size(old_history) > 0 ? strdup("[]")
                                                                                     : NULL;
    }
    if (history_file == NULL || history_is_current(old_history, tl)) {
        return NULL;
    }
    for (const char *p = history_file; *p != '\0';) {
        size_t len = strcspn(p, "\n");
        if (history_line_parse(p, len, &h)) {
            last = h;
            total++;
        }
        p += len + (p[len] == '\n' ? 1 : 0);
    }
    if (total == 0) {
        return NULL;
    }
    int skip = max_lines > 0 && total > max_lines ? total - max_lines : 0;
    dra_buf_init(&b, VALUE_MAX);
    dra_buf_adds(&b, "[");
    for (const char *p = history_file; *p != '\0';) {
        size_t len = strcspn(p, "\n");
        if (history_line_parse(p, len, &h) && seen++ >= skip) {
            dra_buf_addf(&b, "%s[%" PRId64 ",%" PRIu64 ",", b.len > 1 ? "," : "", h.tl, h.lsn);
            add_text_n(&b, h.reason, h.reason_len);
            if (seen == total && last.tl == (int64_t)tl - 1) {
                dra_buf_adds(&b, ",");
                dra_buf_add_json_str(&b, mtime_iso);
                dra_buf_adds(&b, ",");
                dra_buf_add_json_str(&b, my_name);
            } else {
                add_old_elements(&b, old_history, &h);
            }
            dra_buf_adds(&b, "]");
        }
        p += len + (p[len] == '\n' ? 1 : 0);
    }
    dra_buf_adds(&b, "]");
    return finish(&b);
}

/* ---- ISO-8601 (DCS-37)
 * ---------------------------------------------------------------------------------------------- */

static bool digits(const char **s, int n, int *out)
{
    int v = 0;
    for (int i = 0; i < n; i++) {
        if ((*s)[i] < '0' || (*s)[i] > '9') {
            return false;
        }
        v = v * 10 + ((*s)[i] - '0');
    }
    *s += n;
    *out = v;
    return true;
}

static bool skip_char(const char **s, char c)
{
    if (**s != c) {
        return false;
    }
    (*s)++;
    return true;
}

/* Days since 1970-01-01 in the Gregorian calendar. */
static int64_t days_of(int year, int month, int day)
{
    int64_t y = month <= 2 ? year - 1 : year;
    int64_t era = (y >= 0 ? y : y - 399) / 400;
    int64_t yoe = y - era * 400;
    int64_t doy = (153 * (month + (month > 2 ? -3 : 9)) + 2) / 5 + day - 1;
    int64_t doe = yoe * 365 + yoe / 4 - yoe / 100 + doy;
    return era * 146097 + doe - 719468;
}

static int days_in_month(int year, int month)
{
    static const int days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    bool leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
    return month == 2 && leap ? 29 : days[month - 1];
}

/* The zone at the end: nothing, Z, UTC, +HH, +HHMM or +HH:MM. */
static bool zone_parse(const char *s, int *out_offset_s, bool *has_zone)
{
    int h = 0;
    int m = 0;

    while (*s == ' ') {
        s++;
    }
    *has_zone = *s != '\0';
    *out_offset_s = 0;
    if (*s == '\0' || dra_str_eq_nocase(s, "z") || dra_str_eq_nocase(s, "utc") ||
        dra_str_eq_nocase(s, "gmt")) {
        return true;
    }
    bool minus = *s == '-';
    if (*s != '+' && *s != '-') {
        return false;
    }
    s++;
    if (!digits(&s, 2, &h)) {
        return false;
    }
    if (*s != '\0') {
        (void)skip_char(&s, ':'); /* optional */
        if (!digits(&s, 2, &m)) {
            return false;
        }
    }
    if (*s != '\0' || h > 23 || m > 59) {
        return false;
    }
    *out_offset_s = (minus ? -1 : 1) * (h * 3600 + m * 60);
    return true;
}

bool dcs_iso_parse(const char *s, int64_t *out_epoch_s, bool *has_zone)
{
    int year, month, day, hour, minute;
    int second = 0;
    int offset = 0;
    bool zone = false;

    if (s == NULL || !digits(&s, 4, &year) || !skip_char(&s, '-') || !digits(&s, 2, &month) ||
        !skip_char(&s, '-') || !digits(&s, 2, &day) || (*s != 'T' && *s != ' ')) {
        return false;
    }
    s++;
    if (!digits(&s, 2, &hour) || !skip_char(&s, ':') || !digits(&s, 2, &minute)) {
        return false;
    }
    if (skip_char(&s, ':')) {
        if (!digits(&s, 2, &second)) {
            return false;
        }
        if (skip_char(&s, '.') || skip_char(&s, ',')) { /* fractions are dropped */
            if (*s < '0' || *s > '9') {
                return false;
            }
            s += strspn(s, "0123456789");
        }
    }
    if (year < 1 || month < 1 || month > 12 || day < 1 || day > days_in_month(year, month) ||
        hour > 23 || minute > 59 || second > 59 || !zone_parse(s, &offset, &zone)) {
        return false;
    }
    *out_epoch_s = days_of(year, month, day) * 86400 + hour * 3600 + minute * 60 + second - offset;
    *has_zone = zone;
    return true;
}
