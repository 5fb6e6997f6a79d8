/* SPDX-License-Identifier: MIT */
/* From the caller's options to the start of the program; see spawn.h. */

#include "lib/spawn.h"

#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "basic/macro.h"
#include "basic/assert-return.h"
#include "lib/environment.h"
#include "lib/launch.h"
#include "basic/options.h"

#define SPAWN_FLAGS                                                                                \
        (MUSTER_SPAWN_DIE_WITH_PARENT | MUSTER_SPAWN_DETACHED | MUSTER_SPAWN_SHELL |               \
                        MUSTER_SPAWN_PROCESS_GROUP | MUSTER_SPAWN_SET_UID | MUSTER_SPAWN_SET_GID | \
                        MUSTER_SPAWN_SET_CGROUP)

#define PATH_DEFAULT "/usr/local/bin:/usr/bin:/bin"

int spawn_copy_options(const muster_spawn_options *options, muster_spawn_options *ret) {
        muster_spawn_options o = MUSTER_SPAWN_OPTIONS_INIT;
        int r;

        muster_assert_return(options, -EINVAL);
        o.cgroup_fd = -EBADF; /* 0, which would be stdin, is not what a caller who does not know it means */
        r = options_copy(&o, sizeof(o), options, OPTIONS_SIZE_UP_TO(muster_spawn_options, channel));
        if (r < 0)
                return r;
        muster_assert_return(!o.program || *o.program, -EINVAL);
        muster_assert_return(!o.argv || o.argv[0] || (o.flags & MUSTER_SPAWN_SHELL), -EINVAL);
        muster_assert_return(!(o.flags & ~SPAWN_FLAGS), -EINVAL);
        muster_assert_return(o.kill_signal >= 0 && o.kill_signal < _NSIG, -EINVAL);
        muster_assert_return(o.timeout_usec <= UINT64_MAX / 4, -EINVAL);
        muster_assert_return(!(o.flags & MUSTER_SPAWN_SET_CGROUP) || o.cgroup_fd >= 0, -EBADF);
        *ret = o;
        return 0;
}

/* What the library adds to the environment. */
typedef struct Additions {
        char text[4][64];
        char *assignments[4];
        size_t n;
} Additions;

static _printf_(2, 3) void add(Additions *a, const char *format, ...) {
        va_list ap;

        va_start(ap, format);
        vsnprintf(a->text[a->n], sizeof(a->text[0]), format, ap);
        va_end(ap);
        a->assignments[a->n] = a->text[a->n];
        a->n++;
}

static void additions_for(const Stdio *stdio, Additions *a) {
        if (stdio->ipc < stdio->n) {
                add(a, "MUSTER_CHANNEL_FD=%zu", stdio->ipc);
                add(a, "NODE_CHANNEL_FD=%zu", stdio->ipc);
                add(a, "NODE_CHANNEL_SERIALIZATION_MODE=json");
        }
        if (stdio->journal_ino != 0)
                add(a, "JOURNAL_STREAM=%lu:%lu", (unsigned long) stdio->journal_dev,
                                (unsigned long) stdio->journal_ino);
}

/* sh -c COMMAND $0 $1 … */
static int shell_argv(const muster_spawn_options *o, char ***ret) {
        static char *const head[] = { (char *) "/bin/sh", (char *) "-c" };
        size_t n = 0, k = 0;

        while (o->argv && o->argv[n])
                n++;
        char **argv = calloc(ELEMENTSOF(head) + 1 + n + 1, sizeof(char *));
        if (!argv)
                return -ENOMEM;
        for (; k < ELEMENTSOF(head); k++)
                argv[k] = head[k];
        argv[k++] = (char *) o->program;
        for (size_t i = 0; i < n; i++)
                argv[k++] = o->argv[i];
        *ret = argv;
        return 0;
}

int spawn_program(const muster_spawn_options *o, const Stdio *stdio, pid_t *ret_pid, int *ret_pidfd) {
        _cleanup_free_ char **shell = NULL, **env = NULL;
        char *program_only[] = { (char *) o->program, NULL };
        _cleanup_free_ int *fds = calloc(stdio->n, sizeof(int));
        Additions additions = { .n = 0 };
        int r;

        if (!fds)
                return -ENOMEM;
        for (size_t i = 0; i < stdio->n; i++)
                fds[i] = stdio->places[i].child;
        additions_for(stdio, &additions);
        r = environment_new(o->env ? o->env : environ, additions.assignments, additions.n, &env);
        if (r >= 0 && (o->flags & MUSTER_SPAWN_SHELL))
                r = shell_argv(o, &shell);
        if (r < 0)
                return r;
        const char *path = environment_get(env, "PATH");

        Launch l = {
                .program = shell ? shell[0] : o->program,
                .path = path ? path : PATH_DEFAULT,
                .argv = shell     ? shell
                        : o->argv ? o->argv
                                  : program_only,
                .env = env,
                .fds = fds,
                .n_fds = stdio->n,
                .cwd = o->cwd                             ? o->cwd
                       : o->flags & MUSTER_SPAWN_DETACHED ? "/"
                                                          : NULL,
                .new_session = o->flags & MUSTER_SPAWN_DETACHED,
                .new_process_group = (o->flags & MUSTER_SPAWN_PROCESS_GROUP) &&
                                     !(o->flags & MUSTER_SPAWN_DETACHED),
                .die_with_parent = o->flags & MUSTER_SPAWN_DIE_WITH_PARENT,
                .set_uid = o->flags & MUSTER_SPAWN_SET_UID,
                .set_gid = o->flags & MUSTER_SPAWN_SET_GID,
                .uid = o->uid,
                .gid = o->gid,
                .set_cgroup = o->flags & MUSTER_SPAWN_SET_CGROUP,
                .cgroup_fd = o->cgroup_fd,
        };
        return launch(&l, ret_pid, ret_pidfd);
}
