/*
 * keys.h - the one table of configuration keys and what may stand behind each (inside the room).
 *
 * The table serves unknown-key warnings (CFG-09), type checks (CFG-43), normalisation for the effective configuration,
 * the mapping of environment variables (CFG-10..13, CFG-100), --validate-config and the documentation.
 */
#ifndef CONF_KEYS_H
#define CONF_KEYS_H

#include <dragent/base.h>
#include <dragent/text.h>

#define CONF_PATH_MAX 256
#define CONF_VALUE_MAX 1024

enum conf_type {
    CONF_T_NONE = 0,
    CONF_T_ANY,      /* whatever its user makes of it */
    CONF_T_FREE,     /* a map whose keys are not ours to know */
    CONF_T_MAP,      /* a section: its keys are rows of their own */
    CONF_T_LIST,
    CONF_T_LISTMAP,  /* a list or a map */
    CONF_T_STR,      /* the source text of a scalar counts (CFG-03) */
    CONF_T_ADDR,     /* host:port, or hosts:port */
    CONF_T_WORD,     /* one of `words`, any case */
    CONF_T_INT,
    CONF_T_BOOL,
    CONF_T_SIZE,     /* REST-110 */
    CONF_T_DURATION, /* CFG-100 */
    CONF_TYPE_COUNT
};

enum conf_reload { /* when a change is taken over */
    CONF_LIVE = 0,
    CONF_PG_RELOAD,
    CONF_PG_RESTART,
    CONF_AGENT,
    CONF_BOOT,
    CONF_DYN
};

struct conf_key {
    const char *path;  /* "restapi.listen"; "*" stands for one component of any name */
    enum conf_type type;
    const char *def;   /* default as text; NULL = none */
    int64_t min, max;  /* INT: value; DURATION: seconds; both 0 = no limit */
    enum conf_reload reload;
    const char *env;   /* after PATRONI_ (below dragent: after DRAGENT_); NULL = not settable by environment */
    const char *words; /* CONF_T_WORD: blank-separated */
    const char *help;
};

extern const struct conf_key conf_local_keys[];   /* local file and environment */
extern const struct conf_key conf_dynamic_keys[]; /* the DCS `config` key, and bootstrap.dcs */
size_t conf_local_key_count(void);
size_t conf_dynamic_key_count(void);

/* The row for a path of the local configuration (bootstrap.dcs.X and top-level dynamic X included), or NULL. */
const struct conf_key *conf_key_find(const char *path);
/* Whether some row lies below `path`. */
bool conf_key_has_below(const char *path);
/* A key that only the dynamic configuration gives a meaning at the top level (CFG-04, CFG-50). */
bool conf_key_is_dynamic(const char *name);
/* 0 if `v` may stand behind `k`; otherwise DRA_ETYPE or DRA_ERANGE and `why` says what is wanted. */
int conf_key_check(const struct conf_key *k, const struct json *v, char *why, size_t why_size);
const char *conf_type_to_str(enum conf_type t);

/* A scalar as text: strings as they are, others by their source text.  false: no scalar, null, or too long. */
bool conf_text(const struct json *v, char *out, size_t out_size);
/* Integers of HA-02 and JSON integers.  DRA_EPARSE / DRA_ERANGE. */
DRA_MUST_USE int conf_int(const struct json *v, int64_t *out);
/* Boolean as YAML, or a word of REST-113.  DRA_EPARSE. */
DRA_MUST_USE int conf_bool(const struct json *v, bool *out);
/* "host:port" (IPv6 in brackets or not, several hosts) -> parts.  default_port < 0: a port must be there. */
DRA_MUST_USE int conf_split_addr(const char *s, int default_port, char *host, size_t host_size, int *out_port);
/* Host for a URL: the first of several, brackets around IPv6.  "" stays "". */
DRA_MUST_USE int conf_url_host(const char *host, char *out, size_t out_size);

/* A copy with typed values (strings are strings, "on" is true ...); what cannot be read is left out, so that its default holds.
 * NULL = out of memory. */
struct json *conf_normalise(const struct json *obj, const char *path);

/* DRA_OK, or DRA_EINVAL with "PLACE: key: value: what. remedy" in `err`. */
int conf_fail(struct dra_err *err, const struct json *at, const char *key, const char *what, const char *remedy);
/* The same sentence as text, for warnings and for collecting. */
void conf_say(struct dra_buf *b, const struct json *at, const char *key, const char *value, const char *what, const char *remedy);
/* snprintf for messages and paths whose parts are known to fit; what does not fit is cut. */
void conf_fmt(char *dst, size_t dst_size, const char *fmt, ...) DRA_PRINTF(3, 4);
bool conf_is_secret(const char *path); /* never print its value */

#endif
