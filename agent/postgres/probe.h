/*
 * probe.h - the monitoring query's answer, taken apart (HA-07).
 */
#ifndef PGS_PROBE_H
#define PGS_PROBE_H

#include "pgs_int.h"

enum pgs_refusal {
    PGS_REFUSAL_NONE = 0, /* no answer that says anything */
    PGS_REFUSAL_STARTING, /* alive, not accepting: starting up, recovering, shutting down */
    PGS_REFUSAL_ANSWERS,  /* accepting, but not us: connections used up, wrong password */
};
enum pgs_refusal pgs_refusal_of(const struct dra_err *err);
/* Columns of PGS_PROBE_SQL into facts and view. */
void pgs_probe_take(struct pgs *s, const struct pgc_result *r);

extern const char *const pgs_probe_sql;

#endif
