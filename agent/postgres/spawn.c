/*
 * spawn.c - the postmaster's birth.
 *
 * The child is forked first and waits; its pid can be told to the guard before the server exists, and it is the
 * postmaster's pid, since nothing forks in between (SAFE-33).  It is our child only as long as we live: it has its own
 * session, and what starts it again after us finds it by its pid file.
 * Between fork and exec only async-signal-safe calls are made: other threads may have held any lock.
 * Threads: loop.
 */
#include "spawn.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

static const char *const dropped[] = {"PATRONI_", "KUBERNETES_", "DRAGENT_", "NOTIFY_SOCKET=", "PG_GRANDPARENT_PID=",
                                      "PGKRBSRVNAME="};
static const char arena[] = "PG_MALLOC_ARENA_MAX=";

static bool is_dropped(const char *entry)
{
    for (size_t i = 0; i < DRA_ARRAY_LEN(dropped); i++) {
        if (dra_str_starts(entry, dropped[i])) {
            return true;
        }
    }
    return false;
}

static bool env_add(char **env, size_t *n, const char *name, const char *value)
{
    size_t len = strlen(name) + strlen(value) + 1;
    char *e = malloc(len);

    if (e == NULL || dra_str_printf(e, len, "%s%s", name, value) != 0) {
        free(e);
        return false;
    }
    env[(*n)++] = e;
    return true;
}

char **pgs_spawn_env(char *const *from, pid_t grandparent, const char *krbsrvname)
{
    char number[16];
    size_t count = 0;
    size_t n = 0;
    char **env;
    bool ok = true;

    while (from[count] != NULL) {
        count++;
    }
    env = calloc(count + 4, sizeof *env);
    if (env == NULL) {
        return NULL;
    }
    for (size_t i = 0; i < count && ok; i++) {
        if (is_dropped(from[i])) {
            continue;
        }
        ok = dra_str_starts(from[i], arena) ? env_add(env, &n, "MALLOC_ARENA_MAX=", from[i] + sizeof arena - 1)
                                            : env_add(env, &n, "", from[i]);
    }
    if (ok && grandparent > 0) {
        (void)snprintf(number, sizeof number, "%d", (int)grandparent);
        ok = env_add(env, &n, "PG_GRANDPARENT_PID=", number);
    }
    if (ok && krbsrvname != NULL && krbsrvname[0] != '\0') {
        ok = env_add(env, &n, "PGKRBSRVNAME=", krbsrvname);
    }
    if (!ok) {
        pgs_spawn_env_free(env);
        return NULL;
    }
    return env;
}

void pgs_spawn_env_free(char **env)
{
    for (size_t i = 0; env != NULL && env[i] != NULL; i++) {
        free(env[i]);
    }
    free(env);
}

/* Where execve finds the program: argv[0] itself, or the first of PATH. */
static int find_program(const char *name, char *out, size_t out_size)
{
    const char *path = getenv("PATH");

    if (strchr(name, '/') != NULL) {
        return dra_str_copy(out, out_size, name);
    }
    for (const char *p = path != NULL ? path : "/usr/bin:/bin"; *p != '\0';) {
        size_t n = strcspn(p, ":");

        if (n > 0 && dra_str_printf(out, out_size, "%.*s/%s", (int)n, p, name) == 0 && access(out, X_OK) == 0) {
            return DRA_OK;
        }
        p += n + (p[n] == ':');
    }
    return DRA_ENOTFOUND;
}

/* Never returns. */
static void child_run(const char *program, char *const *argv, char *const *env, int log_fd, int null_fd, int wait_fd)
{
    struct sigaction dfl = {.sa_handler = SIG_DFL};
    sigset_t none;
    char byte;
    ssize_t n;

    (void)setsid();
    for (int sig = 1; sig < 65; sig++) {
        (void)sigaction(sig, &dfl, NULL);
    }
    (void)dup2(null_fd, 0);
    (void)dup2(log_fd, 1);
    (void)dup2(log_fd, 2);
    if (wait_fd != 3) {
        (void)dup2(wait_fd, 3);
    }
    (void)fcntl(3, F_SETFD, FD_CLOEXEC);
    (void)close_range(4, ~0U, 0);
    sigemptyset(&none);
    (void)sigprocmask(SIG_SETMASK, &none, NULL);
    do {
        n = read(3, &byte, 1);
    } while (n < 0 && errno == EINTR);
    if (n != 1) {
        _exit(0); /* withdrawn, or who forked us is gone */
    }
    (void)execve(program, argv, env);
    {
        static const char msg[] = "cannot execute postgres\n";

        n = write(2, msg, sizeof msg - 1);
    }
    _exit(127);
}

int pgs_spawn(const struct pgs_spawn *sp, struct dra_proc *out_child, int *out_go, struct dra_err *err)
{
    char program[PGS_PATH_MAX * 2];
    char **env = NULL;
    int pipe_fd[2] = {-1, -1};
    int null_fd = -1;
    int rc = DRA_OK;
    pid_t pid;

    if (sp->argv->failed || find_program(sp->argv->v[0], program, sizeof program) != 0) {
        return dra_err_set(err, DRA_ENOTFOUND, "cannot find program \"%s\"", sp->argv->n > 0 ? sp->argv->v[0] : "postgres");
    }
    env = pgs_spawn_env(environ, sp->grandparent, sp->krbsrvname);
    if (env == NULL) {
        return dra_err_set(err, DRA_ENOMEM, "environment of the server");
    }
    null_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    if (null_fd < 0 || pipe2(pipe_fd, O_CLOEXEC) != 0) {
        rc = dra_err_sys(err, errno, "cannot prepare the server's process");
        goto out;
    }
    pid = fork();
    if (pid < 0) {
        rc = dra_err_sys(err, errno, "cannot fork");
        goto out;
    }
    if (pid == 0) {
        child_run(program, sp->argv->v, env, sp->log_fd, null_fd, pipe_fd[0]);
    }
    rc = dra_proc_identify(pid, out_child, err);
    if (rc != 0) {
        (void)kill(pid, SIGKILL);
        (void)waitpid(pid, NULL, 0); /* a child that was just killed: no wait worth the name */
        goto out;
    }
    *out_go = pipe_fd[1];
    pipe_fd[1] = -1;
out:
    pgs_spawn_env_free(env);
    if (pipe_fd[0] >= 0) {
        close(pipe_fd[0]);
    }
    if (pipe_fd[1] >= 0) {
        close(pipe_fd[1]);
    }
    if (null_fd >= 0) {
        close(null_fd);
    }
    return rc;
}
