/*
 * lock.h - one agent per data directory (SAFE-35): an open file description lock in the state directory.
 *
 * The file names the holder (pid, start time, REST address), so that who finds it taken knows whom to ask and whom to end.
 */
#ifndef RT_LOCK_H
#define RT_LOCK_H

#include <dragent/base.h>
#include <dragent/io.h>
#include <dragent/model.h>

struct rt_lock {
    int fd; /* -1 = not held */
};
struct rt_lock_holder {
    struct dra_proc proc; /* pid 0 = unknown */
    char api_url[HA_URL_MAX];
};

void rt_lock_init(struct rt_lock *l);
/* Take the lock in `path`.  DRA_EBUSY: somebody holds it, *holder is filled as far as the file tells. */
DRA_MUST_USE int rt_lock_take(struct rt_lock *l, const char *path, struct rt_lock_holder *holder, struct dra_err *err);
/* The lock came with `fd` from the image before (upgrade in place); checks that it is that file and that it is locked. */
DRA_MUST_USE int rt_lock_inherit(struct rt_lock *l, const char *path, int fd, struct dra_err *err);
/* Say who holds it. */
DRA_MUST_USE int rt_lock_sign(struct rt_lock *l, const char *api_url, struct dra_err *err);
void rt_lock_release(struct rt_lock *l);
/* "PID START_TICKS URL"; false if it is not that. */
bool rt_lock_parse(const char *text, struct rt_lock_holder *out);

#endif
