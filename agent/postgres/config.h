/*
 * config.h - what this room needs of the effective configuration, as plain values.
 *
 * A snapshot is immutable and counted: work that runs in the file worker keeps the one it was started with.
 * The count is changed by the loop thread only.
 */
#ifndef PGS_CONFIG_H
#define PGS_CONFIG_H

#include <dragent/base.h>
#include <dragent/model.h>
#include <dragent/text.h>

#define PGS_PATH_MAX 1024
#define PGS_VALUE_MAX 512

/* CFG-32: keys of a user's section that go into connection strings, with the first version that knows each. */
#define PGS_USER_OPT_MAP(X)                                                                        \
    X(SSLMODE, "sslmode", 0)                                                                       \
    X(SSLCERT, "sslcert", 0)                                                                       \
    X(SSLKEY, "sslkey", 0)                                                                         \
    X(SSLPASSWORD, "sslpassword", 13)                                                              \
    X(SSLROOTCERT, "sslrootcert", 0)                                                               \
    X(SSLCRL, "sslcrl", 0)                                                                         \
    X(SSLCRLDIR, "sslcrldir", 14)                                                                  \
    X(GSSENCMODE, "gssencmode", 12)                                                                \
    X(CHANNEL_BINDING, "channel_binding", 13)                                                      \
    X(SSLNEGOTIATION, "sslnegotiation", 17)
enum pgs_user_opt {
#define PGS_X(n, t, v) PGS_OPT_##n,
    PGS_USER_OPT_MAP(PGS_X)
#undef PGS_X
        PGS_OPT_COUNT
};

struct pgs_user {
    char username[128]; /* "" = libpq's default */
    char password[PGS_VALUE_MAX];
    char opt[PGS_OPT_COUNT][256];
};

enum pgs_tool {
    PGS_TOOL_POSTGRES = 0,
    PGS_TOOL_INITDB,
    PGS_TOOL_CONTROLDATA,
    PGS_TOOL_BASEBACKUP,
    PGS_TOOL_REWIND,
    PGS_TOOL_WALDUMP,
    PGS_TOOL_COUNT
};

struct pgs_conf {
    int refs;
    struct json *root;             /* owned */
    const struct json *pg;         /* borrowed from root: "postgresql"; never NULL */
    const struct json *bootstrap;  /* may be NULL */
    char scope[HA_NAME_MAX];
    char name[HA_NAME_MAX];
    char data_dir[PGS_PATH_MAX];
    char config_dir[PGS_PATH_MAX];
    char base_name[64];            /* config_base_name */
    char custom_conf[PGS_PATH_MAX]; /* "" = none */
    char database[64];
    char pgpass[PGS_PATH_MAX];
    char krbsrvname[64];
    char listen_addresses[256];
    int port;
    char socket_dir[PGS_PATH_MAX]; /* first absolute unix_socket_directories; "" = server's default */
    bool use_unix_socket;
    bool use_unix_socket_repl;
    bool use_slots;
    char tool[PGS_TOOL_COUNT][PGS_PATH_MAX];
    struct dra_span start_timeout; /* pg_ctl_timeout */
    struct pgs_user superuser, replication, rewind;
    bool rewind_is_superuser;      /* no rewind user of its own */
};

DRA_MUST_USE int pgs_conf_new(const struct json *effective, struct pgs_conf **out, struct dra_err *err);
struct pgs_conf *pgs_conf_ref(struct pgs_conf *c);
void pgs_conf_unref(struct pgs_conf *c); /* NULL is fine */

/* Text of a scalar as its writer meant it (CFG-03 [D]); false if absent, null or no scalar. */
bool pgs_conf_text(const struct json *j, char *out, size_t out_size);
/* CFG: options given as list ("x", {k: v}) or map -> "--x", "--k=v" appended to argv; names in `forbidden`
 * (NULL-terminated) are skipped, or fail when `strict`. */
struct pgs_argv;
DRA_MUST_USE int pgs_conf_options(const struct json *j, const char *const *forbidden, bool strict, struct pgs_argv *argv,
                                  struct dra_err *err);

/* ---- argument vectors ------------------------------------------------------------------------------- */

#define PGS_ARGV_MAX 128
struct pgs_argv {
    int n;
    bool failed;                  /* sticky: too many, or out of memory */
    char *v[PGS_ARGV_MAX + 1];    /* owned, NULL-terminated */
};
void pgs_argv_init(struct pgs_argv *a);
void pgs_argv_deinit(struct pgs_argv *a);
void pgs_argv_add(struct pgs_argv *a, const char *s);
void pgs_argv_addf(struct pgs_argv *a, const char *fmt, ...) DRA_PRINTF(2, 3);
/* Split a command as a POSIX shell splits words (quotes and backslash; nothing is expanded).  Appends. */
DRA_MUST_USE int pgs_argv_split(struct pgs_argv *a, const char *command, struct dra_err *err);
const char *const *pgs_argv_get(const struct pgs_argv *a);

#endif
