/*
 * main.c - dragentctl: arguments, configuration, the command, its exit code.  Called as patronictl it says that name (CLI-82).
 */
#include "ctl.h"

#include <string.h>

int main(int argc, char **argv)
{
    struct ctl c = {0};
    struct conf_env *env = NULL;
    struct dra_err err = {0};
    const char *slash = argc > 0 ? strrchr(argv[0], '/') : NULL;
    const char *name = argc == 0 ? "" : slash == NULL ? argv[0] : slash + 1;
    int rc;
    c.prog = dra_str_eq(name, "patronictl") ? "patronictl" : "dragentctl";
    ctl_on_interrupt();
    if (ctl_args_parse(c.prog, argc, argv, &c.args, &rc) != 0) {
        return rc;
    }
    if (conf_env_capture(&env, &err) != 0) {
        return ctl_error("%s", err.msg);
    }
    rc = ctl_setup(&c, env);
    if (rc == 0) {
        rc = c.args.command->run(&c);
    }
    (void)fflush(stdout);
    ctl_teardown(&c);
    conf_env_free(env);
    return rc;
}
