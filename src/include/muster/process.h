/* SPDX-License-Identifier: MIT */
#ifndef MUSTER_PROCESS_H
#define MUSTER_PROCESS_H

/**
 * Child processes on an sd_event loop: what Node's child_process.spawn() and fork() give, for C.
 *
 * A child is made with the cheapest fork there is (its memory is borrowed until it executes the program), so
 * starting one costs the same from a process of 1 MiB and from one of 1 GiB (but for one that becomes
 * another user, or is born in a control group). It is watched by a pidfd: neither a SIGCHLD handler nor a
 * blocked SIGCHLD is imposed on the caller, and a reused pid is never taken for the child.
 *
 * No function here is thread-safe with respect to the same object; a muster_child belongs to its event
 * loop's thread.
 */

#include <stdint.h>
#include <sys/resource.h>
#include <sys/types.h>
#include <systemd/sd-event.h>

#include "muster/channel.h"
#include "muster/stream.h"

#ifdef __cplusplus
extern "C" {
#endif

/** A child process; counted: see muster_child_ref(). */
typedef struct muster_child muster_child;

/**
 * Called once, from the loop, when the child has ended.
 *
 * @code    CLD_EXITED, CLD_KILLED or CLD_DUMPED, as si_code of waitid(2)
 * @status  the exit status for CLD_EXITED, else the signal's number
 *
 * SIGCHLD must not be ignored (SIG_IGN, which is also inherited), and nobody else may wait for any child:
 * the status is lost then, and CLD_EXITED with 1 is told.
 *
 * What it wrote or sent last may not have been read yet: see muster_child_set_close_handler(). The handler
 * may drop the last reference to @child.
 */
typedef void (*muster_child_exit_handler_t)(muster_child *child, int code, int status, void *userdata);

/** Called once, from the loop, when the child has ended and all its pipes and its channel have too. */
typedef void (*muster_child_close_handler_t)(muster_child *child, void *userdata);

/** What one descriptor of the child is: muster_stdio.kind. */
enum {
        MUSTER_STDIO_INHERIT, /**< shared with the parent, which has it under the same number; those of 0, 1
                                 and 2 that it has closed stay closed */
        MUSTER_STDIO_IGNORE,  /**< /dev/null */
        MUSTER_STDIO_PIPE,    /**< a stream: see muster_child_get_stream() */
        MUSTER_STDIO_FD,      /**< muster_stdio.fd of the parent, which keeps its own */
        MUSTER_STDIO_IPC,     /**< the channel: see muster_child_get_channel(); one at most */
        MUSTER_STDIO_CLOSED   /**< not open */
};

typedef struct muster_stdio {
        int kind; /**< MUSTER_STDIO_… */
        int fd;   /**< for MUSTER_STDIO_FD */
} muster_stdio;

/** The child gets SIGTERM when its parent dies (PR_SET_PDEATHSIG; "parent" is the *thread* that called
 * muster_spawn()). It can be caught: a child that must not outlive its parent does not ignore it. */
#define MUSTER_SPAWN_DIE_WITH_PARENT (UINT64_C(1) << 0)

/** The child leads a session of its own (setsid(2)) without a terminal, and lives on when its parent ends.
 * Without @stdio its streams are /dev/null, and without @cwd it runs in "/". */
#define MUSTER_SPAWN_DETACHED (UINT64_C(1) << 1)

/** The program is a command line for /bin/sh -c; @argv, if any, becomes $0, $1 … */
#define MUSTER_SPAWN_SHELL (UINT64_C(1) << 2)

/** The child leads a process group of its own (setpgid(2)), so that it can be killed with all that it
 * started: muster_child_kill_group(). The time limit kills the group then. */
#define MUSTER_SPAWN_PROCESS_GROUP (UINT64_C(1) << 3)

/** @uid is set: the child runs as that user. Supplementary groups are dropped. */
#define MUSTER_SPAWN_SET_UID (UINT64_C(1) << 4)

/** @gid is set: the child runs in that group. Supplementary groups are dropped. */
#define MUSTER_SPAWN_SET_GID (UINT64_C(1) << 5)

/** @cgroup_fd is set: the child is born in that control group. */
#define MUSTER_SPAWN_SET_CGROUP (UINT64_C(1) << 6)

/** What to run. Zero means the default everywhere; set up with MUSTER_SPAWN_OPTIONS_INIT, so that members
 * can be added. */
typedef struct muster_spawn_options {
        /** sizeof(muster_spawn_options), as the caller was compiled with. */
        size_t size;
        /** Path of the program; without a slash it is looked for in the PATH of the child's environment.
         * Required, but for muster_fork(). */
        const char *program;
        /** Arguments, argv[0] included (Node's argv0), NULL at the end. NULL: only the program. */
        char *const *argv;
        /** The whole environment ("NAME=value"), NULL at the end. NULL: the caller's. */
        char *const *env;
        /** stdio[i] is descriptor i of the child, for i < n_stdio; the child has no other descriptors. Those
         * of 0, 1 and 2 that are not listed are inherited. A pipe is one-way for 0 (the parent writes), 1
         * and 2 (the parent reads), else both ways. */
        const muster_stdio *stdio;
        /** Number of @stdio, at most 1024. */
        size_t n_stdio;
        /** MUSTER_SPAWN_… */
        uint64_t flags;
        /** Where it runs; NULL: where the caller does. */
        const char *cwd;
        /** With MUSTER_SPAWN_SET_UID. */
        uid_t uid;
        /** With MUSTER_SPAWN_SET_GID. */
        gid_t gid;
        /** How long it may run, in microseconds, from the moment it is watched; then it gets @kill_signal,
         * and SIGKILL 5 seconds later, as do those of its group that are left when it is closed. 0: for
         * ever; at most UINT64_MAX / 4. */
        uint64_t timeout_usec;
        /** 0: SIGTERM. */
        int kill_signal;
        /** stdout and stderr go to the journal under this identifier (sd_journal_stream_fd(3)), with the
         * child's own pid, and JOURNAL_STREAM says so. Not for those of 1 and 2 that @stdio lists. */
        const char *journal_identifier;
        /** Limits of the channel; copied. NULL: the defaults. */
        const muster_channel_options *channel;
        /** With MUSTER_SPAWN_SET_CGROUP: an open directory of cgroup v2, which the child is in from its
         * first moment on (CLONE_INTO_CGROUP; where that cannot be had, it moves there before it executes
         * the program). It starts with a copy of the caller's memory then, as with MUSTER_SPAWN_SET_UID. */
        int cgroup_fd;
} muster_spawn_options;

#define MUSTER_SPAWN_OPTIONS_INIT \
        { .size = sizeof(muster_spawn_options) }

/**
 * Starts a program, and watches it on @event.
 *
 * The child starts with an empty signal mask, and with the default action for all signals. It is running
 * when this returns 0: that is Node's event "spawn".
 *
 * @event      NULL: the child is not watched until muster_child_attach()
 * @options    copied, the caller keeps it
 * @handler    called once after the child has ended; may be NULL
 * @ret_child  a reference that the caller drops with muster_child_unref(); that does not kill the child
 *
 * Returns 0 or a negative errno. When the program cannot be executed, the errno is returned here and not
 * through @handler: execve(2)'s (-ENOENT, -EACCES, -ENOEXEC …), chdir(2)'s for @cwd, setuid(2)'s and
 * setgid(2)'s (-EPERM, -EINVAL), sd_journal_stream_fd(3)'s for @journal_identifier (-ENOENT, -ECONNREFUSED:
 * there is no journal), clone(2)'s for @cgroup_fd (-EBADF, -ENOENT, -ENODEV: it is not, or no longer, a
 * group of cgroup v2; -EACCES: the caller may not put a process there; -EBUSY: its controllers are enabled
 * for groups below it, so it must be without processes; -EOPNOTSUPP: it is threaded or below one that is;
 * -EAGAIN: its pids.max). -EINVAL: no program, an empty @argv (but for a shell), bad size, unknown flags or
 * kinds, too many descriptors, two channels, no such signal; -E2BIG: a member that this version does not
 * know is set; -EBADF: a descriptor of @stdio is not open.
 */
int muster_spawn(sd_event *event, const muster_spawn_options *options, muster_child_exit_handler_t handler,
                void *userdata, muster_child **ret_child);

/**
 * Starts a program with a channel, like Node's child_process.fork(): muster_spawn() with MUSTER_STDIO_IPC
 * behind what @options list. Without a program it is this very program again. The child opens its end by
 * muster_channel_from_environment(); a Node program has it as process.send().
 *
 * Parameters and return value as for muster_spawn().
 */
int muster_fork(sd_event *event, const muster_spawn_options *options, muster_child_exit_handler_t handler,
                void *userdata, muster_child **ret_child);

/** Watches a child that was started without a loop, and puts its streams and its channel on it. -EBUSY: it
 * is watched already; -ESRCH: its end was reported. */
int muster_child_attach(muster_child *child, sd_event *event);

/** Sets who is told that nothing more will come from the child; the exit handler's userdata is handed over.
 * When the child has ended, its pipes that nobody reads are emptied and its channel, if without handlers, is
 * closed, so that this does come; processes that inherited a pipe put it off until they close it. */
int muster_child_set_close_handler(muster_child *child, muster_child_close_handler_t handler);

/** The channel, for MUSTER_STDIO_IPC: the child's own reference, so take one to keep it. NULL: none. */
muster_channel *muster_child_get_channel(const muster_child *child);

/** The stream of descriptor @fd, for MUSTER_STDIO_PIPE: the child's own reference, so take one to keep it.
 * NULL: none. */
muster_stream *muster_child_get_stream(const muster_child *child, unsigned fd);

/** The process id, for logs; it may be another process's as soon as the exit was reported. */
pid_t muster_child_get_pid(const muster_child *child);

/** 1 when the time limit has struck, else 0. */
int muster_child_is_timed_out(const muster_child *child);

/**
 * What the child used, with those of its own children that it has waited for: CPU time, the largest resident
 * size (ru_maxrss, in KiB, of the largest process among them), page faults … as getrusage(2) has it for
 * RUSAGE_CHILDREN.
 *
 * It is there from the exit handler on. Returns 0 or a negative errno; -ENODATA: its end was not reported
 * yet, or its status was lost to somebody else who waited.
 */
int muster_child_get_usage(const muster_child *child, struct rusage *ret);

/**
 * Sends a signal by the pidfd (pidfd_send_signal(2)), so that it never hits another process.
 *
 * Returns 0 or a negative errno; -ESRCH: its end was reported.
 */
int muster_child_kill(muster_child *child, int signal);

/**
 * Sends a signal to the child's process group: to it and to what it started, less what has left the group.
 *
 * It works until the close handler has returned: the leader of a group is not reaped before, so the number
 * of the group cannot be another's. Returns 0 or a negative errno; -ESRCH: after that; -EINVAL: it leads no
 * group (MUSTER_SPAWN_PROCESS_GROUP, MUSTER_SPAWN_DETACHED).
 */
int muster_child_kill_group(muster_child *child, int signal);

/** Takes another reference. NULL is allowed and returned. */
muster_child *muster_child_ref(muster_child *child);

/** Drops a reference; after the last one the exit is no longer reported, its streams and its channel are let
 * go, and the process is reaped by nobody but waitpid(2) of the caller. NULL is allowed. Always returns
 * NULL. */
muster_child *muster_child_unref(muster_child *child);

#ifdef __cplusplus
}
#endif

#endif
