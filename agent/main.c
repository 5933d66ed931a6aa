/*
 * main.c - dragent: arguments, then rt_run() until it ends.
 *
 * The environment is copied before configuration variables are taken out of it, so that an upgrade in place can give
 * the new image what we were started with.
 */
#include <dragent/base.h>
#include <dragent/conf.h>
#include <dragent/runtime.h>

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

extern char **environ;

enum { EXIT_FATAL = 1, EXIT_USAGE = 2 };

struct args {
    const char *config;
    bool version, help, validate, ignore_port;
};

static const char usage[] =
    "usage: dragent [CONFIGFILE] [options]\n"
    "\n"
    "Keeps one PostgreSQL server part of a cluster that stays writable.  CONFIGFILE is a file or a directory of\n"
    "*.yml files in Patroni's format; without it PATRONI_CONFIGURATION or the PATRONI_* variables are read.\n"
    "\n"
    "  --validate-config         check the configuration; silent and 0 if it is fine, else messages and 1\n"
    "  -i, --ignore-listen-port  with --validate-config: ports in use are fine\n"
    "  --version                 print the version\n"
    "  -h, --help                print this\n"
    "\n"
    "Signals: SIGTERM, SIGINT stop PostgreSQL and the agent; SIGHUP reloads; SIGUSR2 upgrades in place.\n";

static bool args_parse(int argc, char **argv, struct args *out)
{
    *out = (struct args){0};
    for (int i = 1; i < argc; i++) {
        const char *s = argv[i];
        if (strcmp(s, "--version") == 0) {
            out->version = true;
        } else if (strcmp(s, "-h") == 0 || strcmp(s, "--help") == 0) {
            out->help = true;
        } else if (strcmp(s, "--validate-config") == 0) {
            out->validate = true;
        } else if (strcmp(s, "-i") == 0 || strcmp(s, "--ignore-listen-port") == 0) {
            out->ignore_port = true;
        } else if (s[0] == '-' && s[1] != '\0') {
            (void)fprintf(stderr, "dragent: unknown option %s. See dragent --help\n", s);
            return false;
        } else if (out->config == NULL) {
            out->config = s;
        } else {
            (void)fprintf(stderr, "dragent: more than one configuration file (%s, %s). Give one file or one directory\n",
                          out->config, s);
            return false;
        }
    }
    return true;
}

/* NULL when out of memory. */
static char **environ_copy(void)
{
    size_t n = 0;
    while (environ[n] != NULL) {
        n++;
    }
    char **copy = calloc(n + 1, sizeof *copy);
    size_t k = 0;
    for (size_t i = 0; copy != NULL && i < n; i++) {
        if (strncmp(environ[i], RT_LOCK_FD_ENV "=", sizeof RT_LOCK_FD_ENV) == 0) {
            continue; /* of the upgrade before */
        }
        copy[k] = strdup(environ[i]);
        if (copy[k] == NULL) {
            break;
        }
        k++;
    }
    return copy;
}

static void environ_free(char **copy)
{
    for (size_t i = 0; copy != NULL && copy[i] != NULL; i++) {
        free(copy[i]);
    }
    free(copy);
}

static int inherited_lock(void)
{
    const char *text = getenv(RT_LOCK_FD_ENV);
    int64_t fd = -1;
    if (text == NULL || dra_parse_i64(text, strlen(text), 3, INT_MAX, &fd) != 0) {
        fd = -1;
    }
    (void)unsetenv(RT_LOCK_FD_ENV); /* no child is to see it */
    return (int)fd;
}

static int run(const struct args *args, char **argv)
{
    struct dra_err err = {0};
    struct conf_env *env = NULL;
    char **saved = environ_copy();
    int lock_fd = inherited_lock();
    int code = EXIT_FATAL;

    if (saved == NULL) {
        (void)fprintf(stderr, "dragent: out of memory\n");
    } else if (conf_env_capture(&env, &err) != 0) {
        (void)fprintf(stderr, "dragent: %s\n", err.msg);
    } else if (args->validate) {
        code = conf_validate(args->config, env, args->ignore_port) == 0 ? 0 : EXIT_FATAL;
    } else if (geteuid() == 0) {
        (void)fprintf(stderr, "dragent: does not run as root, as PostgreSQL does not. "
                              "Start it as the user who owns the data directory: runuser -u postgres -- dragent CONFIGFILE\n");
    } else {
        struct rt_options o = {
            .config_path = args->config, .env = env, .argv = argv, .environ_at_start = saved, .inherited_lock_fd = lock_fd};
        code = rt_run(&o);
    }
    conf_env_free(env);
    environ_free(saved);
    return code;
}

int main(int argc, char **argv)
{
    struct args args;
    if (!args_parse(argc, argv, &args)) {
        return EXIT_USAGE;
    }
    if (args.help) {
        (void)fputs(usage, stdout);
        return 0;
    }
    if (args.version) {
        (void)printf("dragent %s (compatible with patroni %s)\n", DRA_VERSION, RT_COMPATIBLE_VERSION);
        return 0;
    }
    return run(&args, argv);
}
