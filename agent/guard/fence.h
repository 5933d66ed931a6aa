/*
 * fence.h - the processes of one server: found in /proc, stopped, killed, counted.
 */
#ifndef GUARD_FENCE_H
#define GUARD_FENCE_H

#include <dragent/guard_step.h>

#include <sys/types.h>

struct fence {
    int proc_fd;  /* of /proc, open for life */
    int pidfd;    /* of the postmaster, -1 = none */
    pid_t pid;    /* of the postmaster, 0 = none */
    bool dir_known;
    dev_t dir_dev; /* the data directory: the working directory of each of its processes */
    ino_t dir_ino;
};

/* false: there is no /proc to work with. */
bool fence_init(struct fence *f);
/* The start time of a live process (field 22 of its stat); false if it is gone or a zombie. */
bool fence_start_ticks(const struct fence *f, pid_t pid, uint64_t *out_ticks);
/* A pidfd of exactly this process, or -1. */
int fence_process_open(const struct fence *f, pid_t pid, uint64_t start_ticks);
/* Remember by device and inode whose orphans to look for; false: no such directory. */
bool fence_directory_set(struct fence *f, const char *data_dir);
/* pidfd becomes ours. */
void fence_server_take(struct fence *f, pid_t pid, int pidfd);
void fence_server_drop(struct fence *f);
/* One walk over the server; fills running, left and stuck of *ev. */
void fence_pass(const struct fence *f, enum guard_pass pass, struct guard_event *ev);
/* Walk the whole path once with signal 0, on ourselves, so that its pages are in memory. */
void fence_dry_run(const struct fence *f);

#endif
