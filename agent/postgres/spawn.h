/*
 * spawn.h - fork a child that waits at a pipe before it becomes the postmaster (HA-224, SAFE-33).
 */
#ifndef PGS_SPAWN_H
#define PGS_SPAWN_H

#include "config.h"

#include <dragent/io.h>

struct pgs_spawn {
    const struct pgs_argv *argv;
    int log_fd;                /* becomes stdout and stderr; stays the caller's */
    pid_t grandparent;         /* PG_GRANDPARENT_PID: a foreign process that postmaster.pid names; 0 = none */
    const char *krbsrvname;
};
/* *out_go: write one byte and the child execs, close it and the child ends.  The child has its own session and none of our
 * files, and lives on when we end. */
DRA_MUST_USE int pgs_spawn(const struct pgs_spawn *sp, struct dra_proc *out_child, int *out_go, struct dra_err *err);
/* HA-224: the environment that a postmaster gets; caller frees each and the array.  NULL: no memory. */
char **pgs_spawn_env(char *const *from, pid_t grandparent, const char *krbsrvname);
void pgs_spawn_env_free(char **env);

#endif
