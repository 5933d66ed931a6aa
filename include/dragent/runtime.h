/*
 * runtime.h - the agent as a whole: one call that runs it until it ends.  Library dra_runtime.
 */
#ifndef DRAGENT_RUNTIME_H
#define DRAGENT_RUNTIME_H

#include <dragent/base.h>
#include <dragent/conf.h>

#define RT_COMPATIBLE_VERSION "4.1.4" /* DCS-22: the level of Patroni that is implemented */

struct rt_options {
    const char *config_path;       /* NULL: environment only */
    const struct conf_env *env;    /* captured at process start */
    char *const *argv;             /* as the process was started, for the upgrade in place */
    char *const *environ_at_start; /* a copy taken before conf_env_capture(); NULL-terminated */
    int inherited_lock_fd;         /* from the image before an upgrade in place; -1 = none */
};

/* Run the agent until it ends; returns the exit status (CLI-113).  Needs: not root, standard signal dispositions. */
int rt_run(const struct rt_options *o);

/* The environment variable by which the lock survives an upgrade in place. */
#define RT_LOCK_FD_ENV "DRAGENT_LOCK_FD"

#endif
