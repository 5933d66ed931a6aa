/*
 * conninfo.c - connection strings in keyword form, and lines of password files.
 *
 * Promises: a string that is meant for a file or an argument vector never holds a password; the order of the
 * keywords is fixed (CFG-34), so that equal settings give equal texts.
 * Threads: any.
 */
#include "conninfo.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>

static const struct {
    const char *name;
    int since;
    const char *fallback; /* in primary_conninfo */
} user_opts[PGS_OPT_COUNT] = {
#define PGS_X(n, t, v) [PGS_OPT_##n] = {(t), (v), NULL},
    PGS_USER_OPT_MAP(PGS_X)
#undef PGS_X
};

static void add(struct dra_buf *out, const char *key, const char *value);
static void add_opt(struct dra_buf *out, const struct pgs_conninfo *ci, enum pgs_user_opt o, const char *fallback);

void pgs_conninfo_build(const struct pgs_conninfo *ci, struct dra_buf *out)
{
    char number[16];

    add(out, "dbname", ci->dbname);
    add(out, "user", ci->user->username);
    if (ci->with_password) {
        add(out, "password", ci->user->password);
    } else if (ci->user->password[0] != '\0') {
        add(out, "passfile", ci->passfile);
    }
    add(out, "host", ci->host);
    add(out, "hostaddr", ci->hostaddr);
    (void)snprintf(number, sizeof number, "%d", ci->port);
    add(out, "port", ci->port > 0 ? number : NULL);
    add_opt(out, ci, PGS_OPT_SSLMODE, "prefer");
    add_opt(out, ci, PGS_OPT_SSLCERT, NULL);
    add_opt(out, ci, PGS_OPT_SSLKEY, NULL);
    add_opt(out, ci, PGS_OPT_SSLPASSWORD, NULL);
    add_opt(out, ci, PGS_OPT_SSLROOTCERT, NULL);
    add_opt(out, ci, PGS_OPT_SSLCRL, NULL);
    add_opt(out, ci, PGS_OPT_SSLCRLDIR, NULL);
    add(out, "application_name", ci->application_name);
    add(out, "krbsrvname", ci->krbsrvname);
    add_opt(out, ci, PGS_OPT_GSSENCMODE, "prefer");
    add_opt(out, ci, PGS_OPT_CHANNEL_BINDING, "prefer");
    add(out, "target_session_attrs", ci->target_session_attrs);
    add_opt(out, ci, PGS_OPT_SSLNEGOTIATION, "postgres");
    add(out, "replication", ci->replication);
    add(out, "options", ci->options);
    if (ci->connect_timeout_s > 0) {
        (void)snprintf(number, sizeof number, "%d", ci->connect_timeout_s);
        add(out, "connect_timeout", number);
    }
}

static void add(struct dra_buf *out, const char *key, const char *value)
{
    if (value == NULL || value[0] == '\0') {
        return;
    }
    dra_buf_addf(out, "%s%s=", out->len > 0 ? " " : "", key);
    for (const char *p = value; *p != '\0'; p++) {
        if (*p == '\'' || *p == '\\' || *p == ' ') {
            dra_buf_add(out, "\\", 1);
        }
        dra_buf_add(out, p, 1);
    }
}

static void add_opt(struct dra_buf *out, const struct pgs_conninfo *ci, enum pgs_user_opt o, const char *fallback)
{
    const char *value = ci->user->opt[o];

    if (ci->major != 0 && ci->major < user_opts[o].since) {
        return;
    }
    if (value[0] == '\0' && ci->defaults) {
        value = fallback;
    }
    add(out, user_opts[o].name, value);
}

void pgs_conninfo_redact(const char *conninfo, char *out, size_t out_size)
{
    const char *p = strstr(conninfo, "password=");
    size_t head = p == NULL ? strlen(conninfo) : (size_t)(p - conninfo) + strlen("password=");
    size_t n = 0;

    if (out_size == 0) {
        return;
    }
    for (size_t i = 0; i < head && n + 1 < out_size; i++) {
        out[n++] = conninfo[i];
    }
    if (p != NULL) {
        p += strlen("password=");
        while (*p != '\0' && *p != ' ') {
            p += *p == '\\' && p[1] != '\0' ? 2 : 1;
        }
        for (const char *stars = "***"; *stars != '\0' && n + 1 < out_size; stars++) {
            out[n++] = *stars;
        }
        for (; *p != '\0' && n + 1 < out_size; p++) {
            out[n++] = *p;
        }
    }
    out[n] = '\0';
}

const char *pgs_address_of(const char *host)
{
    unsigned char addr[sizeof(struct in6_addr)];

    return inet_pton(AF_INET, host, addr) == 1 || inet_pton(AF_INET6, host, addr) == 1 ? host : "";
}

void pgs_local_address(const struct pgs_conf *c, bool replication, struct pgs_local *out)
{
    static const char *const near[] = {"*", "localhost", "0.0.0.0", "127.0.0.1"};
    const char *p = c->listen_addresses;
    char first[sizeof out->hostaddr] = "";
    bool local = false;

    memset(out, 0, sizeof *out);
    if (replication ? c->use_unix_socket_repl : c->use_unix_socket) {
        if (dra_str_copy(out->host, sizeof out->host, c->socket_dir) != 0) {
            out->host[0] = '\0';
        }
        return;
    }
    while (*p != '\0') {
        char one[256];
        size_t n;

        p += strspn(p, ", ");
        n = strcspn(p, ", ");
        if (n > 0 && dra_str_copy_n(one, sizeof one, p, n) == 0) {
            for (size_t i = 0; i < DRA_ARRAY_LEN(near); i++) {
                local = local || strcmp(one, near[i]) == 0;
            }
            if (first[0] == '\0' && dra_str_copy(first, sizeof first, one) != 0) {
                first[0] = '\0';
            }
        }
        p += n;
    }
    if (local || first[0] == '\0') {
        dra_str_clip(out->host, sizeof out->host, "localhost");
        dra_str_clip(out->hostaddr, sizeof out->hostaddr, "127.0.0.1");
        return;
    }
    dra_str_clip(out->host, sizeof out->host, first);
    dra_str_clip(out->hostaddr, sizeof out->hostaddr, pgs_address_of(first));
}

static void add_field(struct dra_buf *out, const char *field)
{
    if (field[0] == '\0') {
        dra_buf_adds(out, "*");
        return;
    }
    for (const char *p = field; *p != '\0'; p++) {
        if (*p == ':' || *p == '\\') {
            dra_buf_add(out, "\\", 1);
        }
        dra_buf_add(out, p, 1);
    }
}

void pgs_pgpass_add(struct dra_buf *out, const struct pgs_user *u, const char *host, int port)
{
    const char *hosts[] = {host[0] != '\0' ? host : "localhost", host[0] == '/' ? "localhost" : NULL};

    if (u->password[0] == '\0') {
        return;
    }
    for (size_t i = 0; i < DRA_ARRAY_LEN(hosts) && hosts[i] != NULL; i++) {
        add_field(out, hosts[i]);
        dra_buf_addf(out, ":%d:*:", port);
        add_field(out, u->username);
        dra_buf_adds(out, ":");
        add_field(out, u->password);
        dra_buf_adds(out, "\n");
    }
}
