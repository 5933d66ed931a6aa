/*
 * timestamp.c - points in time as people write them (REST-112), and the filters of a restart (REST-81).
 *
 * Threads: any; no state.
 */
#include "requests.h"

#include <dragent/conf.h>
#include <dragent/dcs.h>

#include <ctype.h>
#include <stdio.h>
#include <string.h>

/* ---- timestamps ---------------------------------------------------------------------------------- */

/* Exactly `n` digits. */
static bool take_digits(const char **s, int n, int *out)
{
    int v = 0;
    for (int i = 0; i < n; i++) {
        char c = (*s)[i];
        if (c < '0' || c > '9') {
            return false;
        }
        v = v * 10 + (c - '0');
    }
    *s += n;
    *out = v;
    return true;
}

static bool take_char(const char **s, char c)
{
    if (**s != c) {
        return false;
    }
    (*s)++;
    return true;
}

struct stamp {
    int year, month, day, hour, minute, second;
    int micro;
    bool has_zone;
    int zone_minutes; /* east of Greenwich */
};

static bool take_fraction(const char **s, int *out_micro)
{
    int micro = 0;
    int digits = 0;
    while (**s >= '0' && **s <= '9') {
        if (digits < 6) {
            micro = micro * 10 + (**s - '0');
        }
        digits++;
        (*s)++;
    }
    for (int i = digits; i < 6; i++) {
        micro *= 10;
    }
    *out_micro = micro;
    return digits > 0;
}

static bool take_zone(const char **s, struct stamp *t)
{
    int h = 0;
    int m = 0;
    while (**s == ' ') {
        (*s)++;
    }
    if (**s == '\0') {
        return true;
    }
    t->has_zone = true;
    if (take_char(s, 'Z') || take_char(s, 'z')) {
        return **s == '\0';
    }
    int sign = **s == '+' ? 1 : (**s == '-' ? -1 : 0);
    if (sign == 0) {
        return false;
    }
    (*s)++;
    if (!take_digits(s, 2, &h)) {
        return false;
    }
    if (**s != '\0') {
        (void)take_char(s, ':');
        if (!take_digits(s, 2, &m)) {
            return false;
        }
    }
    t->zone_minutes = sign * (h * 60 + m);
    return **s == '\0' && h < 24 && m < 60;
}

static bool stamp_take(const char *s, struct stamp *t)
{
    while (*s == ' ') {
        s++;
    }
    if (!take_digits(&s, 4, &t->year) || !take_char(&s, '-') || !take_digits(&s, 2, &t->month) || !take_char(&s, '-') ||
        !take_digits(&s, 2, &t->day) || !(take_char(&s, 'T') || take_char(&s, ' ')) || !take_digits(&s, 2, &t->hour) ||
        !take_char(&s, ':') || !take_digits(&s, 2, &t->minute)) {
        return false;
    }
    if (take_char(&s, ':')) {
        if (!take_digits(&s, 2, &t->second)) {
            return false;
        }
        if (take_char(&s, '.') && !take_fraction(&s, &t->micro)) {
            return false;
        }
    }
    return take_zone(&s, t) && t->hour < 24 && t->minute < 60 && t->second < 60;
}

enum rt_stamp rt_timestamp_parse(const char *s, char *iso, size_t iso_size, int64_t *out_epoch_s)
{
    struct stamp t = {0};
    char micro[16] = "";
    char text[64];
    bool has_zone = false;
    int64_t epoch = 0;

    if (!stamp_take(s, &t)) {
        return RT_STAMP_INVALID;
    }
    if (!t.has_zone) {
        return RT_STAMP_NO_ZONE;
    }
    if (t.micro != 0) {
        (void)snprintf(micro, sizeof micro, ".%06d", t.micro % 1000000);
    }
    int zone = t.zone_minutes < 0 ? -t.zone_minutes : t.zone_minutes;
    if (dra_str_printf(text, sizeof text, "%04d-%02d-%02dT%02d:%02d:%02d%s%c%02d:%02d", t.year, t.month, t.day, t.hour,
                       t.minute, t.second, micro, t.zone_minutes < 0 ? '-' : '+', zone / 60, zone % 60) != 0 ||
        !dcs_iso_parse(text, &epoch, &has_zone) || !has_zone || dra_str_copy(iso, iso_size, text) != 0) {
        return RT_STAMP_INVALID; /* the 30th of February */
    }
    *out_epoch_s = epoch;
    return RT_STAMP_OK;
}

/* ---- filters of a restart --------------------------------------------------------------------------- */

static bool refuse(struct rt_refusal *no, int status, const char *text, const char *value)
{
    no->status = status;
    dra_str_clip(no->text, sizeof no->text, text);
    if (value != NULL) {
        size_t len = strlen(no->text);
        dra_str_clip(no->text + len, sizeof no->text - len, value);
    }
    return false;
}

static bool version_parse(const char *s, int *out, struct rt_refusal *no)
{
    int64_t part[3] = {0, 0, 0};
    int n = 0;
    const char *p = s;

    while (true) {
        size_t len = strcspn(p, ".");
        if (n == 3) {
            n++;
            break;
        }
        if (dra_parse_i64(p, len, 0, 9999, &part[n]) != 0) {
            return refuse(no, 400, "Invalid PostgreSQL version: ", s);
        }
        n++;
        if (p[len] == '\0') {
            break;
        }
        p += len + 1;
    }
    if (n == 2 && part[0] >= 10) {
        *out = (int)(part[0] * 10000 + part[1]);
        return true;
    }
    if (n == 3) {
        *out = (int)(part[0] * 10000 + part[1] * 100 + part[2]);
        return true;
    }
    return refuse(no, 400, "Invalid PostgreSQL version format: X.Y or X.Y.Z is accepted: ", s);
}

static bool role_parse(const struct json *v, struct rt_restart *out, struct rt_refusal *no)
{
    const char *text = json_text(v);
    static const struct {
        const char *name;
        enum ha_role role;
    } roles[] = {{"primary", HA_ROLE_PRIMARY}, {"standby_leader", HA_ROLE_STANDBY_LEADER}, {"replica", HA_ROLE_REPLICA}};
    for (size_t i = 0; text != NULL && i < DRA_ARRAY_LEN(roles); i++) {
        if (dra_str_eq(text, roles[i].name)) {
            out->has_role = true;
            out->role = roles[i].role;
            return true;
        }
    }
    return refuse(no, 400, "PostgreSQL role should be either primary, standby_leader, or replica", NULL);
}

static bool schedule_check(const struct json *v, struct rt_refusal *no)
{
    char text[128];
    char iso[64];
    int64_t at = 0;
    if (!json_scalar_text(v, text, sizeof text)) {
        text[0] = '\0';
    }
    switch (rt_timestamp_parse(text, iso, sizeof iso, &at)) {
    case RT_STAMP_NO_ZONE:
        return refuse(no, 400, "Timezone information is mandatory for the scheduled restart", NULL);
    case RT_STAMP_INVALID:
        return refuse(no, 422,
                      "Unable to parse scheduled timestamp. It should be in an unambiguous format, e.g. ISO 8601", NULL);
    case RT_STAMP_OK:
        break;
    }
    if (at < dra_wall_seconds()) {
        return refuse(no, 422, "Cannot schedule restart in the past", NULL);
    }
    return true;
}

static bool restart_key(const char *key, const struct json *v, struct rt_restart *out, struct rt_refusal *no)
{
    char text[64] = "";
    (void)json_scalar_text(v, text, sizeof text); /* "" is refused by who reads it */
    if (dra_str_eq(key, "schedule")) {
        out->scheduled = true;
        return schedule_check(v, no);
    }
    if (dra_str_eq(key, "role")) {
        return role_parse(v, out, no);
    }
    if (dra_str_eq(key, "postgres_version")) {
        return version_parse(text, &out->version_min, no);
    }
    if (dra_str_eq(key, "timeout")) {
        struct dra_span span = {0};
        if (conf_parse_duration(v, &span) != 0 || dra_span_ms(span) < 500) { /* REST-111: rounded to whole seconds */
            return refuse(no, 400, "Timeout should be a positive number of seconds", NULL);
        }
        out->timeout_s = (dra_span_ms(span) + 500) / 1000;
        return true;
    }
    if (dra_str_eq(key, "restart_pending")) {
        bool on = true;
        if (conf_parse_bool(text, &on) != 0) {
            on = true; /* presence counts, except for a plain "no" */
        }
        out->pending_only = on;
        return true;
    }
    return refuse(no, 400, "Unknown filter for the scheduled restart: ", key);
}

bool rt_restart_parse(const struct json *body, bool paused, struct rt_restart *out, struct rt_refusal *no)
{
    *out = (struct rt_restart){0};
    *no = (struct rt_refusal){0};
    if (paused && json_get(body, "schedule") != NULL) {
        return refuse(no, 500, "Can't schedule restart in the paused state", NULL);
    }
    for (const struct json *j = json_first(body); j != NULL; j = json_next(j)) {
        if (!restart_key(json_name(j), j, out, no)) {
            return false;
        }
    }
    return true;
}
