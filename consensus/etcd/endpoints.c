/*
 * endpoints.c - which etcd members there are, and which is asked first (DCS-61, 62).
 *
 * Invariants:
 *  (1) there is always at least one endpoint; `preferred` is an index into the list.
 *  (2) the list of the configuration is never lost: when every advertised address fails, it is put
 * back in front. Threads: loop thread only.
 */
#include "etcd.h"

#include <stdlib.h>
#include <string.h>

#define DEFAULT_PORT 2379
#define ASK_AGAIN_MS 5000

struct parse { /* what the section says beside the hosts */
    const char *protocol;
    int64_t port;
};

/* ---- configuration
 * -------------------------------------------------------------------------------------- */

/* "%40" -> "@" */
static int percent_decode(const char *s, size_t len, char *out, size_t out_size)
{
    size_t n = 0;
    for (size_t i = 0; i < len; i++) {
        unsigned v = (unsigned char)s[i];
        if (s[i] == '%' && len - i > 2) {
            v = 0;
            for (size_t k = 1; k <= 2; k++) {
                char c = s[i + k];
                unsigned d = c >= '0' && c <= '9'   ? (unsigned)(c - '0')
                             : c >= 'a' && c <= 'f' ? (unsigned)(c - 'a' + 10)
                             : c >= 'A' && c <= 'F' ? (unsigned)(c - 'A' + 10)
                                                    : 16;
                if (d > 15) {
                    return DRA_EPARSE;
                }
                v = v * 16 + d;
            }
            i += 2;
        }
        if (n + 1 >= out_size || v == 0) {
            return DRA_ETOOLONG;
        }
        out[n++] = (char)v;
    }
    out[n] = '\0';
    return DRA_OK;
}

/* "host", "host:port", "[v6]", "[v6]:port", "v6" behind a scheme or not, credentials allowed with a
 * scheme. */
static int endpoint_add(struct etcd_endpoints *e, const struct parse *p, const char *text,
                        size_t len, char *out_user, char *out_password, size_t secret_size,
                        struct dra_err *err)
{
    char s[ETCD_URL_MAX];
    char scheme[8];
    char *h = s;
    int64_t port = p->port;

    while (len > 0 && (text[0] == ' ' || text[0] == '\t')) {
        text++;
        len--;
    }
    while (len > 0 && (text[len - 1] == ' ' || text[len - 1] == '\t' || text[len - 1] == '/')) {
        len--;
    }
    if (len == 0) {
        return DRA_OK;
    }
    if (dra_str_copy_n(s, sizeof s, text, len) != DRA_OK ||
        dra_str_copy(scheme, sizeof scheme, p->protocol) != DRA_OK) {
        return dra_err_set(err, DRA_EINVAL, "etcd3: address longer than %d bytes",
                           ETCD_URL_MAX - 1);
    }
    char *sep = strstr(s, "://");
    if (sep != NULL) {
        if (dra_str_copy_n(scheme, sizeof scheme, s, (size_t)(sep - s)) != DRA_OK) {
            scheme[0] = '\0';
        }
        h = sep + 3;
        h[strcspn(h, "/?#")] = '\0';
        char *at = strrchr(h, '@');
        if (at != NULL) {
            char *colon = memchr(h, ':', (size_t)(at - h));
            size_t user_len = colon != NULL ? (size_t)(colon - h) : (size_t)(at - h);
            if (percent_decode(h, user_len, out_user, secret_size) != DRA_OK ||
                (colon != NULL && percent_decode(colon + 1, (size_t)(at - colon - 1), out_password,
                                                 secret_size) != DRA_OK)) {
                return dra_err_set(err, DRA_EINVAL, "etcd3.url: user or password cannot be read");
            }
            h = at + 1;
        }
    }
    if (strcmp(scheme, "http") != 0 && strcmp(scheme, "https") != 0) {
        return dra_err_set(err, DRA_EINVAL, "etcd3: want http or https, got \"%s\"", scheme);
    }
    char *close = h[0] == '[' ? strchr(h, ']') : NULL;
    char *colon = close != NULL ? (close[1] == ':' ? close + 1 : NULL) : strchr(h, ':');
    bool bare_v6 = close == NULL && colon != NULL && strchr(colon + 1, ':') != NULL;
    if (colon != NULL && !bare_v6) {
        if (dra_parse_i64(colon + 1, strlen(colon + 1), 1, 65535, &port) != DRA_OK) {
            return dra_err_set(err, DRA_EINVAL, "etcd3: want host:port, got \"%s\"", h);
        }
        *colon = '\0';
    }
    if (h[0] == '\0' || e->n_configured == ETCD_ENDPOINTS_MAX) {
        return dra_err_set(err, DRA_EINVAL,
                           h[0] == '\0' ? "etcd3: address without a host"
                                        : "etcd3: more than %d hosts",
                           ETCD_ENDPOINTS_MAX);
    }
    if (dra_str_printf(e->configured[e->n_configured], ETCD_URL_MAX,
                       bare_v6 ? "%s://[%s]:%d" : "%s://%s:%d", scheme, h, (int)port) != DRA_OK) {
        return dra_err_set(err, DRA_EINVAL, "etcd3: address longer than %d bytes",
                           ETCD_URL_MAX - 1);
    }
    e->n_configured++;
    return DRA_OK;
}

static int hosts_add(struct etcd_endpoints *e, const struct parse *p, const struct json *hosts,
                     char *user, char *password, size_t secret_size, struct dra_err *err)
{
    int rc = DRA_OK;

    if (json_type_of(hosts) == JSON_ARRAY) {
        for (const struct json *j = json_first(hosts); j != NULL && rc == DRA_OK;
             j = json_next(j)) {
            const char *s = json_text(j);
            if (s == NULL) {
                return dra_err_set(err, DRA_EINVAL, "etcd3.hosts: want a list of host:port");
            }
            rc = endpoint_add(e, p, s, strlen(s), user, password, secret_size, err);
        }
        return rc;
    }
    const char *s = json_text(hosts);
    if (s == NULL) {
        return dra_err_set(err, DRA_EINVAL, "etcd3.hosts: want a list or a text with commas");
    }
    while (*s != '\0' && rc == DRA_OK) {
        size_t len = strcspn(s, ",");
        rc = endpoint_add(e, p, s, len, user, password, secret_size, err);
        s += len + (s[len] == ',' ? 1 : 0);
    }
    return rc;
}

static bool is_given(const struct json *section, const char *key)
{
    const struct json *j = json_get(section, key);
    enum json_type t = json_type_of(j);
    return (t == JSON_STRING && json_text(j)[0] != '\0') || (t == JSON_ARRAY && json_size(j) > 0);
}

static void use_list(struct etcd_endpoints *e, const char (*urls)[ETCD_URL_MAX], int n)
{
    memcpy(e->url, urls, sizeof e->url[0] * (size_t)n);
    e->n = n;
    e->preferred = 0;
    e->generation++;
}

int etcd_endpoints_parse(const struct json *section, struct etcd_endpoints *out, char *out_user,
                         char *out_password, size_t secret_size, struct dra_err *err)
{
    struct parse p = {.protocol = "http", .port = DEFAULT_PORT};
    bool proxies = false;
    int rc = json_opt_str(section, "protocol", &p.protocol, err);

    out_user[0] = '\0';
    out_password[0] = '\0';
    if (rc == DRA_OK) {
        rc = json_opt_i64(section, "port", &p.port, err);
    }
    if (rc != DRA_OK) {
        return dra_err_wrap(err, "etcd3");
    }
    const struct json *use = json_get(section, "use_proxies");
    const char *word = json_text(use);
    proxies = json_is_true(use) ||
              (word != NULL && (dra_str_eq_nocase(word, "true") || dra_str_eq_nocase(word, "on") ||
                                dra_str_eq_nocase(word, "yes") || dra_str_eq_nocase(word, "1")));
    static const char *const keys[] = {"proxy", "url", "hosts", "host"}; /* CFG-24: this order */
    const char *found = NULL;
    for (size_t i = 0; i < DRA_ARRAY_LEN(keys) && found == NULL; i++) {
        found = is_given(section, keys[i]) ? keys[i] : NULL;
    }
    if (found == NULL) {
        return dra_err_set(err, DRA_EINVAL,
                           is_given(section, "srv")
                               ? "etcd3.srv: discovery by DNS is not supported yet. Use etcd3.hosts"
                               : "etcd3: no address. Give one of host, hosts, url, proxy");
    }
    rc = hosts_add(out, &p, json_get(section, found), out_user, out_password, secret_size, err);
    if (rc == DRA_OK && out->n_configured == 0) {
        rc = dra_err_set(err, DRA_EINVAL, "etcd3.%s: no address in it", found);
    }
    if (rc != DRA_OK) {
        return rc;
    }
    out->discover = !proxies && strcmp(found, "proxy") != 0;
    use_list(out, (const char(*)[ETCD_URL_MAX])out->configured, out->n_configured);
    return DRA_OK;
}

/* ---- who is asked first
 * ------------------------------------------------------------------------------------ */

static int index_of(const struct etcd_endpoints *e, const char *url)
{
    for (int i = 0; i < e->n; i++) {
        if (strcmp(e->url[i], url) == 0) {
            return i;
        }
    }
    return -1;
}

void etcd_endpoints_answered(struct etcd *e, const char *url)
{
    int i = index_of(&e->endpoints, url);
    if (i >= 0 && i != e->endpoints.preferred) {
        log_event(LOG_LV_INFO, "etcd.endpoint", "Another etcd member is asked first from now on",
                  "endpoint", url, NULL);
        e->endpoints.preferred = i;
        if (e->endpoints.discover) {
            etcd_endpoints_discover(e); /* DCS-73: refresh the list */
        }
    }
}

/* The member asked first was slower than the hedge: whatever ails it, calls that cannot be hedged
 * should not meet it. */
void etcd_endpoints_hedge_won(struct etcd *e, const char *winner)
{
    int i = index_of(&e->endpoints, winner);
    if (i >= 0) {
        e->endpoints.preferred = i;
    }
}

void etcd_endpoints_failed_round(struct etcd *e)
{
    struct etcd_endpoints *p = &e->endpoints;

    if (!p->discover) {
        return;
    }
    bool same = p->n == p->n_configured;
    for (int i = 0; i < p->n_configured && same; i++) {
        same = index_of(p, p->configured[i]) >= 0;
    }
    if (!same) {
        use_list(p, (const char(*)[ETCD_URL_MAX])p->configured, p->n_configured);
        p->distrust_until = dra_after(dra_now(), (struct dra_span){e->ttl.ns});
    }
}

/* ---- discovery
 * ------------------------------------------------------------------------------------------------
 */

static void schedule_refresh(struct etcd *e, bool learnt)
{
    if (!e->closing && e->endpoints.refresh != NULL) {
        dra_timer_set(e->endpoints.refresh,
                      dra_after(dra_now(),
                                learnt ? (struct dra_span){e->ttl.ns * 10} : dra_ms(ASK_AGAIN_MS)));
    }
}

static void on_members(const struct etcd_reply *r, void *arg)
{
    struct etcd *e = arg;
    struct etcd_endpoints *p = &e->endpoints;
    char urls[ETCD_ENDPOINTS_MAX][ETCD_URL_MAX];
    char preferred[ETCD_URL_MAX];
    int n = 0;

    p->discovering = false;
    schedule_refresh(e, r->err_code == DRA_OK);
    if (e->closing || r->err_code != DRA_OK) {
        return; /* the list that we have stays */
    }
    for (const struct json *m = json_first(json_get(r->root, "members")); m != NULL;
         m = json_next(m)) {
        for (const struct json *u = json_first(json_get(m, "clientURLs")); u != NULL;
             u = json_next(u)) {
            const char *s = json_text(u);
            size_t len = s != NULL ? strlen(s) : 0;
            while (len > 0 && s[len - 1] == '/') {
                len--;
            }
            if (s == NULL || (!dra_str_starts(s, "http://") && !dra_str_starts(s, "https://")) ||
                n == ETCD_ENDPOINTS_MAX ||
                dra_str_copy_n(urls[n], ETCD_URL_MAX, s, len) != DRA_OK) {
                continue;
            }
            n++;
        }
    }
    if (n == 0 || (dra_is_set(p->distrust_until) && !dra_reached(dra_now(), p->distrust_until))) {
        return;
    }
    for (int i = n - 1; i > 0; i--) { /* so that not every agent asks the same member */
        int k = (int)(dra_rand_next(&e->random) % (uint64_t)(i + 1));
        char swap[ETCD_URL_MAX];
        memcpy(swap, urls[i], sizeof swap);
        memcpy(urls[i], urls[k], sizeof swap);
        memcpy(urls[k], swap, sizeof swap);
    }
    bool same = n == p->n;
    for (int i = 0; i < n && same; i++) {
        same = index_of(p, urls[i]) >= 0;
    }
    if (same) {
        return;
    }
    dra_str_clip(preferred, sizeof preferred, p->url[p->preferred]);
    use_list(p, (const char(*)[ETCD_URL_MAX])urls, n);
    int i = index_of(p, preferred); /* the current one stays */
    p->preferred = i >= 0 ? i : 0;
    log_linef(LOG_LV_INFO, "etcd.members", "etcd has %d client addresses", n);
}

static void ask_members(struct etcd *e)
{
    struct etcd_call_spec spec = {.path = "/v3/cluster/member/list", .repeat = ETCD_REPEAT_LOST};
    struct dra_buf body;

    spec.not_after = dra_after(dra_now(), e->retry_timeout);
    dra_buf_init(&body, ETCD_BODY_MAX);
    dra_buf_adds(&body, "{}");
    if (etcd_call_start(e, &spec, &body, on_members, e, NULL) != DRA_OK) {
        e->endpoints.discovering = false;
        schedule_refresh(e, false);
    }
}

static void on_version(const struct etcd_reply *r, void *arg)
{
    struct etcd *e = arg;
    const char *version = json_text(json_get(r->root, "etcdcluster"));

    if (e->closing) {
        e->endpoints.discovering = false;
        return;
    }
    e->endpoints.too_old[0] = '\0';
    if (r->err_code == DRA_OK && !etcd_wire_version_is_v3(version)) { /* DCS-62 */
        if (dra_str_printf(e->endpoints.too_old, sizeof e->endpoints.too_old,
                           "etcd cluster version %.20s is too old: 3.4 or later is needed",
                           version) != DRA_OK) {
            e->endpoints.too_old[0] = '\0';
        }
        log_event(LOG_LV_ERROR, "etcd.version", e->endpoints.too_old, NULL);
    }
    ask_members(e);
}

void etcd_endpoints_discover(struct etcd *e)
{
    struct etcd_call_spec spec = {
        .path = "/version", .get = true, .repeat = ETCD_REPEAT_LOST, .no_token = true};
    struct dra_buf none;

    if (e->endpoints.discovering || e->closing || !e->endpoints.discover) {
        return;
    }
    e->endpoints.discovering = true;
    spec.not_after = dra_after(dra_now(), e->retry_timeout);
    dra_buf_init(&none, 1);
    if (etcd_call_start(e, &spec, &none, on_version, e, NULL) != DRA_OK) {
        e->endpoints.discovering = false;
        schedule_refresh(e, false);
    }
}
