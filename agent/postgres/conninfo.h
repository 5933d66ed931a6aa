/*
 * conninfo.h - connection strings and password files (CFG-33, CFG-34, HA-225, HA-227).
 */
#ifndef PGS_CONNINFO_H
#define PGS_CONNINFO_H

#include "config.h"

struct pgs_conninfo {
    const struct pgs_user *user;
    const char *dbname;           /* NULL = none */
    const char *host;             /* NULL = libpq's default socket */
    const char *hostaddr;         /* NULL = none; an address, so that libpq need not ask DNS */
    int port;
    const char *passfile;         /* NULL = none */
    bool with_password;           /* password= in the string: for memory only, never for a file or argv */
    const char *application_name; /* NULL = none */
    const char *krbsrvname;       /* "" or NULL = none */
    const char *target_session_attrs;
    const char *replication;      /* "true" for a replication connection */
    const char *options;
    int connect_timeout_s;        /* 0 = none */
    bool defaults;                /* sslmode=prefer ... as primary_conninfo has them */
    int major;
};
/* Keywords in the order of CFG-34, empty ones left out; blank, quote and backslash escaped by a backslash. */
void pgs_conninfo_build(const struct pgs_conninfo *ci, struct dra_buf *out);
/* The same text with what follows password= replaced: for logs. */
void pgs_conninfo_redact(const char *conninfo, char *out, size_t out_size);

/* How to reach the local server (HA-230): host "" = default socket, else a socket directory or a name with its address. */
struct pgs_local {
    char host[PGS_PATH_MAX];
    char hostaddr[64];
};
void pgs_local_address(const struct pgs_conf *c, bool replication, struct pgs_local *out);
/* `host` if it is an IP address, else "". */
const char *pgs_address_of(const char *host);

/* Lines of a password file for one user at one host; nothing without a password. */
void pgs_pgpass_add(struct dra_buf *out, const struct pgs_user *u, const char *host, int port);

#endif
