/* SPDX-License-Identifier: MIT */
#ifndef MUSTER_CLUSTER_H
#define MUSTER_CLUSTER_H

/**
 * A cluster: one process (the primary) that opens the listening sockets, starts one worker process per CPU,
 * hands the sockets to each of them by message and keeps the workers alive. What Node's cluster gives, for
 * C. The workers' side is muster/worker.h.
 *
 * A worker that dies is replaced at once; one whose successors keep dying early is tried again with growing
 * pauses. A worker that asks to go is replaced first. Workers lead process groups of their own, which are
 * killed with them: what a worker leaves behind ends. They get SIGTERM when the primary dies.
 *
 * Handlers are called from the event loop. A cluster belongs to its loop's thread.
 */

#include "muster/process.h"

#ifdef __cplusplus
extern "C" {
#endif

/** The primary's view of its workers. */
typedef struct muster_cluster muster_cluster;

/** One worker process; the cluster's own, valid until its "exit" handler returns. */
typedef struct muster_cluster_worker muster_cluster_worker;

/** Zero means the default everywhere; set up with MUSTER_CLUSTER_OPTIONS_INIT. */
typedef struct muster_cluster_options {
        /** sizeof(muster_cluster_options), as the caller was compiled with. */
        size_t size;
        /** What a worker runs; NULL: this very program again, with the same arguments. */
        const char *program;
        /** As for muster_spawn(); NULL: the arguments of this process when @program is NULL, else only the
         * program. */
        char *const *argv;
        /** As for muster_spawn(). The worker's own variables are added. */
        char *const *env;
        /** How many workers; 0: one for each CPU that this process may use. At most 1024. */
        unsigned n_workers;
        /** How long a worker may take to get ready, in microseconds, and then is killed; 0: 10 s. */
        uint64_t start_timeout_usec;
        /** How long a worker that was told to go may take, in microseconds, and then is killed; 0: 30 s. */
        uint64_t stop_timeout_usec;
        /** The pause after repeated early deaths, in microseconds: the first, which doubles up to the
         * longest. 0: 100 ms and 15 s. */
        uint64_t backoff_min_usec;
        uint64_t backoff_max_usec;
} muster_cluster_options;

#define MUSTER_CLUSTER_OPTIONS_INIT \
        { .size = sizeof(muster_cluster_options) }

/** Whom to tell; any of them may be NULL. Set up with MUSTER_CLUSTER_HANDLERS_INIT. */
typedef struct muster_cluster_handlers {
        /** sizeof(muster_cluster_handlers), as the caller was compiled with. */
        size_t size;
        /** A worker said that it serves. */
        void (*ready)(muster_cluster *cluster, muster_cluster_worker *worker, void *userdata);
        /** A worker asked to go; its replacement is being started. @reason may be empty. */
        void (*retiring)(muster_cluster *cluster, muster_cluster_worker *worker, const char *reason,
                        void *userdata);
        /** A worker has ended; @code and @status as for muster_child_exit_handler_t. Its replacement may
         * have been started, and be ready, before. */
        void (*exit)(muster_cluster *cluster, muster_cluster_worker *worker, int code, int status,
                        void *userdata);
        /** A worker cannot be started (a negative errno); it is tried again after a pause. */
        void (*failed)(muster_cluster *cluster, unsigned id, int error, void *userdata);
        /** A message of the application's from a worker. */
        void (*message)(muster_cluster *cluster, muster_cluster_worker *worker, muster_message *message,
                        void *userdata);
        /** The last worker has ended after muster_cluster_stop(). The handler may free the cluster. */
        void (*stopped)(muster_cluster *cluster, void *userdata);
} muster_cluster_handlers;

#define MUSTER_CLUSTER_HANDLERS_INIT \
        { .size = sizeof(muster_cluster_handlers) }

/**
 * Makes a cluster; nothing is started yet.
 *
 * @options, @handlers  copied, strings too; either may be NULL
 *
 * Returns 0 or a negative errno; -EINVAL: a wrong size, too many workers, a first pause above the longest;
 * -E2BIG: a member that this version does not know is set.
 */
int muster_cluster_new(sd_event *event, const muster_cluster_options *options,
                const muster_cluster_handlers *handlers, void *userdata, muster_cluster **ret);

/**
 * Adds a listening socket that every worker is handed; before muster_cluster_start().
 *
 * @name  at most 255 bytes of printable ASCII without " and \; the workers tell sockets apart by it
 * @fd    duplicated, the caller keeps its own. Made non-blocking
 *
 * Returns 0 or a negative errno; -EINVAL: not such a name, not a listening socket; -EEXIST: the name is
 * taken; -EBUSY: it was started.
 */
int muster_cluster_add_server(muster_cluster *cluster, const char *name, int fd);

/** Starts the workers. Returns 0 or a negative errno: then none of them runs, and the program cannot be
 * executed, as a rule. -EALREADY: it was started. */
int muster_cluster_start(muster_cluster *cluster);

/** Tells all workers to go and starts no others; "stopped" follows. 0 also when it is under way already. */
int muster_cluster_stop(muster_cluster *cluster);

/** How many workers have said that they serve, and have not been told to go. */
unsigned muster_cluster_get_n_ready(const muster_cluster *cluster);

/** Kills the workers that are left, without a word. Not from a handler, but for "stopped". NULL is allowed.
 * Always returns NULL. */
muster_cluster *muster_cluster_free(muster_cluster *cluster);

/** The number of its slot: 1 … */
unsigned muster_cluster_worker_get_id(const muster_cluster_worker *worker);

/** Its process. */
pid_t muster_cluster_worker_get_pid(const muster_cluster_worker *worker);

/** Sends it a message of the application's; as muster_channel_send() without a handler. */
int muster_cluster_worker_send(muster_cluster_worker *worker, const char *json, int fd);

/** Tells it to go; its replacement is started first. 0 also when that is under way already. */
int muster_cluster_worker_retire(muster_cluster_worker *worker);

#ifdef __cplusplus
}
#endif

#endif
