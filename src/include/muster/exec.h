/* SPDX-License-Identifier: MIT */
#ifndef MUSTER_EXEC_H
#define MUSTER_EXEC_H

/**
 * Running a program to its end and collecting what it prints: Node's child_process.exec(), execFile() and
 * execFileSync().
 *
 * Meant for small output: it is all kept in memory, and there is a limit on it. For large output take
 * muster_spawn() and its streams.
 *
 * The program leads a process group of its own. When it prints more than the limit, or runs longer than its
 * time, the whole group is killed, and the result has what was collected until then.
 */

#include "muster/process.h"

#ifdef __cplusplus
extern "C" {
#endif

/** The limit of each of stdout and stderr unless it is set, in bytes. */
#define MUSTER_EXEC_MAX_BUFFER_DEFAULT 204800

/** How to run it. Zero means the default everywhere; set up with MUSTER_EXEC_OPTIONS_INIT. */
typedef struct muster_exec_options {
        /** sizeof(muster_exec_options), as the caller was compiled with. */
        size_t size;
        /** The whole environment; NULL: the caller's. */
        char *const *env;
        /** Where it runs; NULL: where the caller does. */
        const char *cwd;
        /** The most that is collected of stdout, and of stderr, in bytes; 0: 204,800. */
        uint64_t max_buffer;
        /** How long it may run, in microseconds; 0: for ever. */
        uint64_t timeout_usec;
        /** What ends it when it is over a limit; 0: SIGTERM. SIGKILL follows 5 seconds later. */
        int kill_signal;
        /** MUSTER_SPAWN_DIE_WITH_PARENT, MUSTER_SPAWN_SET_UID, MUSTER_SPAWN_SET_GID. */
        uint64_t flags;
        /** As for muster_spawn(). */
        uid_t uid;
        gid_t gid;
        /** What it reads on stdin, @input_size bytes, copied; NULL: /dev/null. */
        const void *input;
        size_t input_size;
} muster_exec_options;

#define MUSTER_EXEC_OPTIONS_INIT \
        { .size = sizeof(muster_exec_options) }

/** How it ended. Made by the library alone; members may be added at the end. */
typedef struct muster_exec_result {
        /** 0: it ended by itself (whatever its status); -ENOBUFS: it was killed for printing more than
         * max_buffer; -ETIMEDOUT: it was killed for its time; another negative errno: its output could not
         * be read. */
        int error;
        /** CLD_EXITED, CLD_KILLED or CLD_DUMPED. */
        int code;
        /** The exit status for CLD_EXITED, else the signal's number. */
        int status;
        /** What it printed: out_size and err_size bytes, and a NUL behind that does not count. */
        const char *out;
        size_t out_size;
        const char *err;
        size_t err_size;
} muster_exec_result;

/** Called once, from the loop. @result is valid until the handler returns. */
typedef void (*muster_exec_handler_t)(const muster_exec_result *result, void *userdata);

/**
 * Runs a command line by /bin/sh -c: it may have pipes, wildcards and variables. Never make one of text that
 * came from somewhere else; muster_exec_file() needs no quoting.
 *
 * @options    copied; NULL: the defaults
 * @handler    called when it has ended and its output is complete
 * @ret_child  a reference, for muster_child_kill(); NULL: not wanted. The run goes on without it
 *
 * Returns 0 or a negative errno; -EINVAL: wrong arguments; otherwise as muster_spawn().
 */
int muster_exec(sd_event *event, const char *command, const muster_exec_options *options,
                muster_exec_handler_t handler, void *userdata, muster_child **ret_child);

/**
 * Runs a program without a shell: each argument reaches it as it is.
 *
 * @file  a path, or a name that is looked for in PATH
 * @argv  arguments, argv[0] included, NULL at the end. NULL: only the program
 *
 * The rest, and the return value, as for muster_exec().
 */
int muster_exec_file(sd_event *event, const char *file, char *const *argv,
                const muster_exec_options *options, muster_exec_handler_t handler, void *userdata,
                muster_child **ret_child);

/**
 * The same for a caller without a loop: returns when the program has ended.
 *
 * @ret  freed by the caller with muster_exec_result_free()
 *
 * Returns 0 when it ran, however it ended (see muster_exec_result.error); or a negative errno as
 * muster_exec_file().
 */
int muster_exec_file_sync(const char *file, char *const *argv, const muster_exec_options *options,
                muster_exec_result **ret);

/** NULL is allowed. Always returns NULL. */
muster_exec_result *muster_exec_result_free(muster_exec_result *result);

#ifdef __cplusplus
}
#endif

#endif
