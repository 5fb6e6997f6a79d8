/* SPDX-License-Identifier: MIT */
#ifndef MUSTER_PROCESS_H
#define MUSTER_PROCESS_H

/**
 * Child processes on an sd_event loop.
 *
 * A child is made with the cheapest fork there is (its memory is borrowed until it executes the program), so
 * starting one costs the same from a process of 1 MiB and from one of 1 GiB. It is watched by a pidfd:
 * neither a SIGCHLD handler nor a blocked SIGCHLD is imposed on the caller, and a reused pid is never taken
 * for the child.
 *
 * No function here is thread-safe with respect to the same object; a muster_child belongs to its event
 * loop's thread.
 */

#include <stdint.h>
#include <sys/types.h>
#include <systemd/sd-event.h>

#ifdef __cplusplus
extern "C" {
#endif

/** A child process; counted: see muster_child_ref(). */
typedef struct muster_child muster_child;

/**
 * Called once, from the loop, when the child has ended and was reaped.
 *
 * @code    CLD_EXITED, CLD_KILLED or CLD_DUMPED, as si_code of waitid(2)
 * @status  the exit status for CLD_EXITED, else the signal's number
 *
 * The handler may drop the last reference to @child. A negative return is ignored.
 */
typedef int (*muster_child_exit_handler_t)(muster_child *child, int code, int status, void *userdata);

/** The child gets SIGTERM when its parent dies (PR_SET_PDEATHSIG; "parent" is the *thread* that called
 * muster_spawn()). */
#define MUSTER_SPAWN_DIE_WITH_PARENT (UINT64_C(1) << 0)

/** What to run. Zero means the default everywhere; set up with MUSTER_SPAWN_OPTIONS_INIT, so that members
 * can be added. */
typedef struct muster_spawn_options {
        /** sizeof(muster_spawn_options), as the caller was compiled with. */
        size_t size;
        /** Path of the program; no search in $PATH. Required. */
        const char *program;
        /** Arguments, argv[0] included, NULL at the end. NULL: only the program's path. */
        char *const *argv;
        /** The whole environment ("NAME=value"), NULL at the end. NULL: the caller's. */
        char *const *env;
        /** fds[i] becomes descriptor i of the child, for i < n_fds; -EBADF leaves i closed. The child has no
         * other descriptors. Without @fds it has the caller's 0, 1 and 2. The caller keeps its descriptors.
         */
        const int *fds;
        /** Number of @fds, at most 1024. */
        size_t n_fds;
        /** MUSTER_SPAWN_… */
        uint64_t flags;
} muster_spawn_options;

#define MUSTER_SPAWN_OPTIONS_INIT \
        { .size = sizeof(muster_spawn_options) }

/**
 * Starts a program, and watches it on @event.
 *
 * The child starts with an empty signal mask, and with the default action for all signals.
 *
 * @event      NULL: the child is not watched until muster_child_attach()
 * @options    copied, the caller keeps it
 * @handler    called once after the child was reaped; may be NULL
 * @ret_child  a reference that the caller drops with muster_child_unref(); that does not kill the child
 *
 * Returns 0 or a negative errno. When the program cannot be executed, execve(2)'s errno is returned here and
 * not through @handler. -EINVAL: no program, bad size, unknown flags, too many descriptors; -E2BIG: a member
 * that this version does not know is set; -EBADF: one of
 * @fds is not open.
 */
int muster_spawn(sd_event *event, const muster_spawn_options *options, muster_child_exit_handler_t handler,
                void *userdata, muster_child **ret_child);

/** Watches a child that was started without a loop. -EBUSY: it is watched already; -ESRCH: its end was
 * reported. */
int muster_child_attach(muster_child *child, sd_event *event);

/** Takes another reference. NULL is allowed and returned. */
muster_child *muster_child_ref(muster_child *child);

/** Drops a reference; after the last one the exit is no longer reported, and the process is reaped by nobody
 * but waitpid(2) of the caller. NULL is allowed. Always returns NULL. */
muster_child *muster_child_unref(muster_child *child);

/** The process id, for logs; it may be another process's as soon as the exit was reported. */
pid_t muster_child_get_pid(const muster_child *child);

/**
 * Sends a signal by the pidfd (pidfd_send_signal(2)), so that it never hits another process.
 *
 * Returns 0 or a negative errno; -ESRCH: it has ended.
 */
int muster_child_kill(muster_child *child, int signal);

#ifdef __cplusplus
}
#endif

#endif
