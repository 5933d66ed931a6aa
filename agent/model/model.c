/*
 * model.c - names of roles and states, members by name, and slot names.
 *
 * Promises: pure functions; every output is NUL-terminated and inside its bounds.
 * Threads: any.
 */
#include <dragent/model.h>

#include <string.h>

#define SLOT_NAME_CHARS 63 /* PostgreSQL's NAMEDATALEN - 1 (HA-150) */

static_assert(HA_SLOT_NAME_MAX == SLOT_NAME_CHARS + 1, "a slot name fits exactly");

static const char *const role_names[] = {
#define HA_X(n, t) [HA_ROLE_##n] = (t),
    HA_ROLE_MAP(HA_X)
#undef HA_X
};
static_assert(DRA_ARRAY_LEN(role_names) == HA_ROLE_COUNT, "one name per role");

static const char *const state_names[] = {
#define HA_X(n, t) [HA_STATE_##n] = (t),
    HA_STATE_MAP(HA_X)
#undef HA_X
};
static_assert(DRA_ARRAY_LEN(state_names) == HA_STATE_COUNT, "one name per state");
static_assert(HA_STATE_CRASHED - 1 == 14, "numbers of HA-04");

static uint32_t utf8_next(const unsigned char **s);
static uint32_t lower_of(uint32_t cp);

const char *ha_role_to_str(enum ha_role r)
{
    return (int)r > 0 && r < HA_ROLE_COUNT ? role_names[r] : role_names[HA_ROLE_UNKNOWN];
}

enum ha_role ha_role_from_str(const char *s)
{
    if (s == NULL) {
        return HA_ROLE_UNKNOWN;
    }
    if (strcmp(s, "master") == 0) { /* DCS-98 */
        return HA_ROLE_PRIMARY;
    }
    for (int i = 1; i < HA_ROLE_COUNT; i++) {
        if (strcmp(s, role_names[i]) == 0) {
            return (enum ha_role)i;
        }
    }
    return HA_ROLE_UNKNOWN;
}

const char *ha_state_to_str(enum ha_state s)
{
    return (int)s > 0 && s < HA_STATE_COUNT ? state_names[s] : state_names[HA_STATE_UNKNOWN];
}

enum ha_state ha_state_from_str(const char *s)
{
    if (s == NULL) {
        return HA_STATE_UNKNOWN;
    }
    for (int i = 1; i < HA_STATE_COUNT; i++) {
        if (strcmp(s, state_names[i]) == 0) {
            return (enum ha_state)i;
        }
    }
    return HA_STATE_UNKNOWN;
}

int ha_member_find(const struct ha_cluster *c, const char *name)
{
    if (name == NULL || name[0] == '\0') {
        return -1;
    }
    int lo = 0;
    int hi = c->n_members;
    while (lo < hi) { /* sorted by name, byte order */
        int mid = lo + (hi - lo) / 2;
        int cmp = strcmp(c->members[mid].name, name);
        if (cmp == 0) {
            return mid;
        }
        if (cmp < 0) {
            lo = mid + 1;
        } else {
            hi = mid;
        }
    }
    return -1;
}

void ha_slot_name(const char *member, char out[HA_SLOT_NAME_MAX])
{
    const unsigned char *s = (const unsigned char *)member;
    size_t len = 0;

    while (*s != '\0' && len < SLOT_NAME_CHARS) {
        uint32_t cp = lower_of(utf8_next(&s));
        if ((cp >= 'a' && cp <= 'z') || (cp >= '0' && cp <= '9') || cp == '_') {
            out[len++] = (char)cp;
            continue;
        }
        if (cp == '-' || cp == '.') {
            out[len++] = '_';
            continue;
        }
        char digits[8];
        int n = 0;
        do {
            digits[n++] = (char)('0' + cp % 10);
            cp /= 10;
        } while (cp != 0 || n < 4);
        out[len++] = 'u';
        while (n > 0 && len < SLOT_NAME_CHARS) {
            out[len++] = digits[--n];
        }
    }
    out[len] = '\0';
}

/* One code point; a byte that is no valid UTF-8 stands for itself, so that any input gives a name.
 */
static uint32_t utf8_next(const unsigned char **s)
{
    const unsigned char *p = *s;
    uint32_t cp = p[0];
    int more = 0;

    if (cp >= 0xC2 && cp <= 0xDF) {
        more = 1;
        cp &= 0x1F;
    } else if (cp >= 0xE0 && cp <= 0xEF) {
        more = 2;
        cp &= 0x0F;
    } else if (cp >= 0xF0 && cp <= 0xF4) {
        more = 3;
        cp &= 0x07;
    }
    for (int i = 1; i <= more; i++) {
        if ((p[i] & 0xC0) != 0x80) { /* also stops at the NUL */
            *s = p + 1;
            return p[0];
        }
        cp = cp << 6 | (p[i] & 0x3FU);
    }
    *s = p + 1 + more;
    return cp;
}

/* Lower case as Unicode has it for Latin, Greek and Cyrillic; other scripts with case are not host
 * names. */
static uint32_t lower_of(uint32_t cp)
{
    if ((cp >= 'A' && cp <= 'Z') || (cp >= 0xC0 && cp <= 0xDE && cp != 0xD7) ||
        (cp >= 0x391 && cp <= 0x3A9 && cp != 0x3A2) || (cp >= 0x410 && cp <= 0x42F)) {
        return cp + 32;
    }
    if (cp >= 0x400 && cp <= 0x40F) {
        return cp + 80;
    }
    if (cp == 0x178) { /* Y with diaeresis: its small form is in Latin-1 */
        return 0xFF;
    }
    if ((cp >= 0x100 && cp <= 0x137 && cp != 0x130) || (cp >= 0x14A && cp <= 0x177)) {
        return cp | 1;
    }
    if ((cp >= 0x139 && cp <= 0x148) || (cp >= 0x179 && cp <= 0x17E)) {
        return (cp & 1) != 0 ? cp + 1 : cp;
    }
    return cp;
}
