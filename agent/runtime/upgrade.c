/*
 * upgrade.c - SIGUSR2: become the program on disk, under the same pid; guard, server, lease and lock stay.
 *
 * Order: the program on disk must run (`--version` exits with 0) -> no job is under way -> leave the loop -> execve.
 * The new image finds the lock by its descriptor, the lease and the guard by the stamp (SAFE-37).
 * Threads: loop thread.
 */
#include "agent.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define VERSION_MS 5000
#define VERSION_TEXT_MAX 96

/* The path the program was started with.  argv[0] is good: the working directory is never changed (CLI-117). */
static bool program_path(const struct rt_agent *a, char *out, size_t size)
{
    const char *name = a->opt->argv[0];
    if (name != NULL && strchr(name, '/') != NULL) {
        return dra_str_copy(out, size, name) == 0;
    }
    char self[PATH_MAX];
    static const char deleted[] = " (deleted)"; /* replaced by rename: the new one lies there */
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    if (n <= 0) {
        return false;
    }
    self[n] = '\0';
    size_t cut = sizeof deleted - 1;
    if ((size_t)n > cut && dra_str_eq(self + (size_t)n - cut, deleted)) {
        self[(size_t)n - cut] = '\0';
    }
    return dra_str_copy(out, size, self) == 0;
}

static void on_version(const struct dra_child_result *r, void *arg)
{
    struct rt_agent *a = arg;
    char text[VERSION_TEXT_MAX];
    a->upgrade_checking = false;
    size_t len = r->out_len < sizeof text - 1 ? r->out_len : sizeof text - 1;
    memcpy(text, r->out != NULL ? r->out : "", r->out != NULL ? len : 0);
    text[r->out != NULL ? len : 0] = '\0';
    text[strcspn(text, "\n")] = '\0';
    if (!r->started || r->exit_code != 0) {
        log_event(LOG_LV_ERROR, "upgrade.refused",
                  "the program on disk does not run, this one goes on. Install it again and send SIGUSR2 once more", "output",
                  text, NULL);
        a->upgrade_asked = false;
        return;
    }
    log_event(LOG_LV_INFO, "upgrade.checked", "the program on disk is ready", "version", text, NULL);
    a->upgrade_ready = true;
    rt_dirty(a);
}

void rt_upgrade_asked(struct rt_agent *a)
{
    char path[PATH_MAX];
    struct dra_err err = {0};
    struct dra_child *child = NULL;
    if (a->upgrade_asked || !a->running || a->ending) {
        return;
    }
    if (!program_path(a, path, sizeof path)) {
        log_event(LOG_LV_ERROR, "upgrade.refused", "cannot tell where this program lies on disk", NULL);
        return;
    }
    const char *argv[] = {path, "--version", NULL};
    struct dra_child_spec spec = {.argv = argv, .not_after = dra_after(dra_now(), dra_ms(VERSION_MS))};
    int rc = dra_child_start(&a->loop, &spec, on_version, a, &child, &err);
    if (rc != 0) {
        log_event(LOG_LV_ERROR, "upgrade.refused", "the program on disk does not run, this one goes on", "error", err.msg,
                  NULL);
        return;
    }
    a->upgrade_asked = true;
    a->upgrade_checking = true;
}

void rt_upgrade_step(struct rt_agent *a)
{
    if (!a->upgrade_ready || a->ending) {
        return;
    }
    const struct ha_world *w = rt_engine_world(a->engine);
    if (w->shutdown) {
        a->upgrade_ready = false;
        return;
    }
    const struct ha_memory *m = rt_engine_memory(a->engine);
    /* What is begun is ended by this image: a job's process, a hand-over, a bootstrap, an order about the leader key and a
     * request that somebody waits for would be lost to the new one.  Tried again after each turn. */
    if (w->job.phase != HA_PHASE_IDLE || a->cache_busy || m->handover != HA_HANDOVER_NONE || m->bootstrapping ||
        w->lease.given_away || w->effects[HA_EFFECT_MOVE].inflight || w->effects[HA_EFFECT_RELEASE].inflight ||
        w->request.kind != HA_REQ_NONE) {
        return;
    }
    a->ending = true;
    uv_stop(&a->loop);
}

void rt_upgrade_exec(struct rt_agent *a)
{
    char path[PATH_MAX];
    char lock_var[64];
    size_t n = 0;

    if (!program_path(a, path, sizeof path)) {
        return;
    }
    while (a->opt->environ_at_start[n] != NULL) {
        n++;
    }
    char **env = calloc(n + 2, sizeof *env);
    if (env == NULL) {
        return;
    }
    for (size_t i = 0; i < n; i++) {
        env[i] = a->opt->environ_at_start[i];
    }
    (void)snprintf(lock_var, sizeof lock_var, "%s=%d", RT_LOCK_FD_ENV, a->lock.fd);
    env[n] = lock_var;
    log_event(LOG_LV_INFO, "upgrade.exec", "executing the program on disk", "path", path, NULL);
    log_flush();
    /* All other descriptors end with this image; the lock goes on. */
    if (close_range(3, ~0U, CLOSE_RANGE_CLOEXEC) != 0 || fcntl(a->lock.fd, F_SETFD, 0) != 0) {
        log_linef(LOG_LV_ERROR, "upgrade.failed", "the descriptors cannot be prepared: errno %d", errno);
    } else {
        (void)execve(path, a->opt->argv, env); /* returns only on failure, told below */
        log_linef(LOG_LV_ERROR, "upgrade.failed", "the program on disk could not be executed: errno %d", errno);
        (void)fcntl(a->lock.fd, F_SETFD, FD_CLOEXEC); /* we go on: no child may hold the lock */
    }
    free(env);
}
