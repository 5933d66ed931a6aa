/*
 * url.c - host and port of "postgres://HOST:PORT/DB" and "http://HOST:PORT/patroni".
 *
 * Promises: tolerant of credentials and of anything behind the port; outputs are written only on
 * success. Threads: any.
 */
#include <dragent/model.h>

#include <string.h>

static int default_port(const char *scheme, size_t len)
{
    static const struct {
        const char *scheme;
        int port;
    } ports[] = {{"postgres", 5432}, {"postgresql", 5432}, {"http", 80}, {"https", 443}};

    for (size_t i = 0; i < DRA_ARRAY_LEN(ports); i++) {
        if (strlen(ports[i].scheme) == len && memcmp(ports[i].scheme, scheme, len) == 0) {
            return ports[i].port;
        }
    }
    return 0;
}

bool ha_url_host_port(const char *url, char *host, size_t host_size, int *out_port)
{
    const char *sep = url == NULL ? NULL : strstr(url, "://");
    if (sep == NULL) {
        return false;
    }
    int port = default_port(url, (size_t)(sep - url));
    const char *auth = sep + 3;
    size_t auth_len = strcspn(auth, "/?#");
    for (size_t i = auth_len; i > 0; i--) { /* credentials end at the last @ */
        if (auth[i - 1] == '@') {
            auth += i;
            auth_len -= i;
            break;
        }
    }
    const char *h = auth;
    size_t h_len;
    const char *rest;                     /* behind the host: "" or ":PORT" */
    if (auth_len > 0 && auth[0] == '[') { /* IPv6 */
        const char *close = memchr(auth, ']', auth_len);
        if (close == NULL) {
            return false;
        }
        h = auth + 1;
        h_len = (size_t)(close - h);
        rest = close + 1;
    } else {
        const char *colon = memchr(auth, ':', auth_len);
        h_len = colon != NULL ? (size_t)(colon - auth) : auth_len;
        rest = auth + h_len;
    }
    size_t rest_len = auth_len - (size_t)(rest - auth);
    if (rest_len > 1) {
        int64_t n;
        if (rest[0] != ':' || dra_parse_i64(rest + 1, rest_len - 1, 1, 65535, &n) != DRA_OK) {
            return false;
        }
        port = (int)n;
    } else if (rest_len == 1 && rest[0] != ':') {
        return false;
    }
    if (h_len == 0 || h_len >= host_size || port == 0) {
        return false;
    }
    memcpy(host, h, h_len);
    host[h_len] = '\0';
    *out_port = port;
    return true;
}
