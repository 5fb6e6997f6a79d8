/* SPDX-License-Identifier: MIT */
#ifndef MUSTER_WORKER_H
#define MUSTER_WORKER_H

/**
 * The worker's side of a cluster (muster/cluster.h): a process that is handed its listening sockets by its
 * primary, says when it is ready, and is told when to go.
 *
 * When the primary dies the process also gets SIGTERM (see MUSTER_SPAWN_DIE_WITH_PARENT): block it, and add
 * it to the loop (sd_event_add_signal(3)), to finish what is open first.
 *
 * Handlers are called from the event loop. A worker belongs to its loop's thread.
 */

#include "muster/channel.h"

#ifdef __cplusplus
extern "C" {
#endif

/** This process as a worker. */
typedef struct muster_worker muster_worker;

/** Whom to tell; any of them may be NULL. Set up with MUSTER_WORKER_HANDLERS_INIT. */
typedef struct muster_worker_handlers {
        /** sizeof(muster_worker_handlers), as the caller was compiled with. */
        size_t size;
        /** A listening socket, under the name that the primary gave it (valid until the handler returns).
         * @fd is the handler's: non-blocking, FD_CLOEXEC, shared with the other workers. NULL: it is closed.
         */
        void (*server)(muster_worker *worker, const char *name, int fd, void *userdata);
        /** All sockets were handed over; call muster_worker_ready() as soon as requests are answered. */
        void (*started)(muster_worker *worker, void *userdata);
        /** Stop accepting, finish what is open, end the process. Called once: because the primary says so,
         * or because it is gone. */
        void (*retire)(muster_worker *worker, void *userdata);
        /** A message of the application's. */
        void (*message)(muster_worker *worker, muster_message *message, void *userdata);
} muster_worker_handlers;

#define MUSTER_WORKER_HANDLERS_INIT \
        { .size = sizeof(muster_worker_handlers) }

/**
 * Makes this process the worker that its environment says (MUSTER_WORKER and the channel's variable, which
 * are removed, unless it returns -ENXIO or the arguments are wrong).
 *
 * Returns 0 or a negative errno; -ENXIO: this process is no worker, so it may be the primary; -EINVAL: wrong
 * arguments or malformed variables; otherwise as muster_channel_from_environment().
 */
int muster_worker_from_environment(sd_event *event, const muster_worker_handlers *handlers, void *userdata,
                muster_worker **ret);

/** The number of the slot that this worker fills: 1 … */
unsigned muster_worker_get_id(const muster_worker *worker);

/** Tells the primary that this worker serves. Returns as muster_channel_send(). */
int muster_worker_ready(muster_worker *worker);

/**
 * Asks to go ("suicide"), after an error that this process should not live on with. The primary starts the
 * replacement first; when that is ready the handler "retire" is called here.
 *
 * @reason  for the primary's log, at most 256 bytes of it; may be NULL
 *
 * Returns as muster_channel_send().
 */
int muster_worker_retire(muster_worker *worker, const char *reason);

/** The longest message for other workers, in bytes. */
#define MUSTER_WORKER_MESSAGE_MAX (255 * 1024)

/**
 * Sends a message to all other workers of the cluster that are ready, or of the app, if the parent is
 * musterd: their handler "message" is called with @json, whatever kind of worker they are. A worker gets it
 * at most once; one that does not read loses what finds no room in its queue (512 KiB). This worker need
 * not be ready.
 *
 * @json  the text of one JSON value of @n bytes, without a line break, which is passed on as it is
 *
 * Returns 0: it is on its way to the parent; 1: it waits, until the channel has room; or a negative errno.
 * -EBADMSG: not one JSON value; -EINVAL: an object whose "cmd" is MUSTER or begins with NODE_, which the
 * receivers would not take for a message of the application's; -EMSGSIZE: longer than
 * MUSTER_WORKER_MESSAGE_MAX; -ENOBUFS, -EPIPE, -ENOMEM: as muster_channel_send().
 */
int muster_worker_broadcast(muster_worker *worker, const char *json, size_t n);

/**
 * The same for the worker in the slot @id, which may be this one. During a replacement a slot may have two
 * workers: both get it. When there is none it is lost. -EINVAL also: @id is 0.
 */
int muster_worker_send(muster_worker *worker, unsigned id, const char *json, size_t n);

/** The channel to the primary, for messages of the application's; the worker's own reference. */
muster_channel *muster_worker_get_channel(const muster_worker *worker);

/** Closes the channel. NULL is allowed. Always returns NULL. */
muster_worker *muster_worker_free(muster_worker *worker);

#ifdef __cplusplus
}
#endif

#endif
