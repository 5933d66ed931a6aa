/*
 * env.h - the captured environment, as load.c needs it (inside the room).
 */
#ifndef CONF_ENV_H
#define CONF_ENV_H

#include <dragent/conf.h>

/* The text of PATRONI_CONFIGURATION, or NULL. */
const char *conf_env_whole(const struct conf_env *e);
/* The other variables as an object to lay over the file (caller frees).  Unreadable values are left out (CFG-11) with a warning. */
DRA_MUST_USE int conf_env_overlay(const struct conf_env *e, conf_warn_cb warn, void *arg, struct json **out, struct dra_err *err);
/* The place in the configuration that a variable sets ("restapi.listen"), false if it is none of ours. */
bool conf_env_path(const char *variable, char *path, size_t path_size);

#endif
