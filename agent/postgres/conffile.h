/*
 * conffile.h - the texts of the server's configuration files and its command line (HA-220..225, CFG-70..75).
 *
 * Pure: texts in, texts out.
 */
#ifndef PGS_CONFFILE_H
#define PGS_CONFFILE_H

#include "config.h"
#include "control.h"

/* Names that the installed server knows, from `postgres --describe-config`. */
struct pgs_gucs;
DRA_MUST_USE int pgs_gucs_parse(const char *text, struct pgs_gucs **out, struct dra_err *err);
void pgs_gucs_free(struct pgs_gucs *g); /* NULL is fine */
bool pgs_gucs_has(const struct pgs_gucs *g, const char *name);

struct pgs_setting {
    char *name; /* owned, lower case */
    char *value; /* owned */
};
#define PGS_SETTINGS_MAX 600
struct pgs_settings {
    int n;
    struct pgs_setting v[PGS_SETTINGS_MAX]; /* sorted by name */
};
void pgs_settings_deinit(struct pgs_settings *s);
const char *pgs_settings_get(const struct pgs_settings *s, const char *name); /* NULL if absent */

/* The controlled parameters of CFG-70, in the order of the command line. */
struct pgs_controlled {
    const char *name;
    bool on_command_line;
};
int pgs_controlled_count(void);
const struct pgs_controlled *pgs_controlled_at(int i);

struct pgs_conffile {
    const struct pgs_conf *conf;
    int major;                         /* 15 */
    enum ha_role role;                 /* PRIMARY, REPLICA or STANDBY_LEADER */
    const struct pgs_gucs *known;      /* NULL: not known yet, nothing is filtered */
    const struct pgs_control *control; /* HA-223; NULL = unknown or primary */
    /* Recovery settings (HA-225), written for anything but PRIMARY. */
    const char *primary_conninfo;      /* "" = nobody */
    const char *keep_recovery;         /* not NULL: this block is kept as found, upstream unknown (HA-226) */
};
/* Effective parameters.  What was left out or changed is told in `warnings`, one line each; names whose control-file value
 * was taken (HA-223) are told in `raised`, "name wanted used" one line each. */
DRA_MUST_USE int pgs_settings_build(const struct pgs_conffile *f, struct pgs_settings *out, struct dra_buf *warnings,
                                    struct dra_buf *raised, struct dra_err *err);
/* Text of postgresql.conf. */
void pgs_conffile_build(const struct pgs_conffile *f, const struct pgs_settings *params, struct dra_buf *out);
/* HA-224: `postgres -D ... --config-file=... --name=value`. */
void pgs_command_line(const struct pgs_conf *c, const struct pgs_settings *params, struct pgs_argv *out);

/* Lines of pg_hba.conf or pg_ident.conf: `which` = "pg_hba" or "pg_ident", with the role's own list first (CFG-31).  False if
 * not configured. */
bool pgs_linefile_build(const struct pgs_conf *c, const char *which, enum ha_role role, struct dra_buf *out);

bool pgs_conffile_is_ours(const char *text);
/* The recovery block of a file of ours ("" if none); borrowed from text. */
const char *pgs_conffile_recovery(const char *text);
/* Host and port of primary_conninfo in that block; false if there is none. */
bool pgs_conffile_upstream(const char *text, char *host, size_t host_size, int *out_port);
/* HA-225: text of postgresql.auto.conf without recovery settings; false if nothing had to go. */
bool pgs_autoconf_clean(const char *text, struct dra_buf *out);
bool pgs_is_recovery_parameter(const char *name);

#endif
