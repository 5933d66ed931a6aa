/*
 * proc.h - what /proc says about one process, and a walk over the processes of one data directory.
 */
#ifndef PGS_PROC_H
#define PGS_PROC_H

#include <dragent/io.h>

struct pgs_stat {
    char state;           /* R S D T t Z X */
    pid_t ppid;
    pid_t session;
    uint64_t start_ticks;
};
bool pgs_stat_read(pid_t pid, struct pgs_stat *out);
bool pgs_stat_parse(const char *text, struct pgs_stat *out);
/* Start of a process in epoch seconds; 0 = unknown. */
int64_t pgs_stat_epoch(const struct pgs_stat *st);

/* Return false to end the walk. */
typedef bool (*pgs_visit)(pid_t pid, const struct pgs_stat *st, void *arg);
/* Each living process (zombies excepted) that works in data_dir and runs PostgreSQL's program `exe_name`. */
void pgs_walk_dir(const char *data_dir, const char *exe_name, pgs_visit visit, void *arg);
/* Each child of `pid`. */
void pgs_walk_children(pid_t pid, pgs_visit visit, void *arg);
/* Bytes written so far by all processes of a session. */
uint64_t pgs_session_written(pid_t session);
/* Kill copying tools that an earlier agent left at work on data_dir, and wait for their end (file worker: blocks, at most 5 s
 * for each).  Returns how many. */
int pgs_kill_tools(const char *data_dir);
/* /proc/PID/cwd is `dir`; unknown when it cannot be read. */
enum dra_tri pgs_works_in(pid_t pid, const char *dir);
bool pgs_exe_is(pid_t pid, const char *exe_name);

#endif
