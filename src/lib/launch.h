/* SPDX-License-Identifier: MIT */
#pragma once

/* The fork and the exec, and what happens between them in the child. */

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

/* All that the child needs to know, prepared by the parent; borrowed. */
typedef struct Launch {
        const char *program; /* with a slash; or looked for in... */
        const char *path;    /* ... these directories */
        char *const *argv;
        char *const *env;
        int *fds; /* fds[i] becomes descriptor i, negative: closed; changed by the child */
        size_t n_fds;
        const char *cwd; /* NULL: stays */
        bool new_session;
        bool new_process_group;
        bool die_with_parent;
        bool set_uid;
        bool set_gid;
        uid_t uid;
        gid_t gid;
        bool set_cgroup;
        int cgroup_fd; /* directory of the cgroup v2 that it is born in */
} Launch;

/* Starts the program. Returns 0, or the negative errno of whatever failed in the child or before it; then
 * nobody is left to be reaped. The pidfd has O_CLOEXEC. */
int launch(Launch *l, pid_t *ret_pid, int *ret_pidfd);
