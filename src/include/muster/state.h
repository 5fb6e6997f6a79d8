/* SPDX-License-Identifier: MIT */
#ifndef MUSTER_STATE_H
#define MUSTER_STATE_H

/**
 * State that processes share: values under keys, messages, and leases. Where it is kept is said by a URL:
 *
 *     lmdb:                           on this host, in $STATE_DIRECTORY/state
 *     lmdb:/var/lib/app/state         on this host, in that directory
 *     redis://user@host:6379/0        in a Redis or Valkey server
 *     redis+unix:///run/redis.sock    the same, on a unix socket; ?db=1 for another database
 *     postgresql://user@host/name     in a table of a PostgreSQL server
 *
 * Every call returns at once; its handler is called later, once, from the event loop, never from within the
 * call itself. What is asked of one handle is done in the order of the calls. A handle belongs to its loop's
 * thread; all that a process has with lmdb belong to one.
 *
 * A server that cannot be reached is tried again, with growing pauses. What is asked meanwhile waits, at
 * most for the time-out. A write that was sent and not answered is not sent again: its handler is told that
 * nobody knows (-ECONNABORTED, -ETIMEDOUT).
 *
 * Keys and values are bytes. See muster_state(3) for what differs between the stores.
 *
 * Errors, of the calls and of their handlers:
 *
 *     -EINVAL        a wrong argument: an empty key, a cursor that is none
 *     -EMSGSIZE      a key, value or message that is too large
 *     -ENOBUFS       too much waits already (MUSTER_STATE_WAITING_MAX, MUSTER_STATE_WAITING_BYTES_MAX)
 *     -ENOMEM        no memory
 *     -ENOENT        there is no such key
 *     -EEXIST        there is such a key (if_absent)
 *     -ESTALE        the key has another version, or is gone (if_version)
 *     -EDOM          the value is not a whole number, or of a kind that the server keeps elsewhere
 *     -ERANGE        the sum does not fit into 64 bits
 *     -ENOTCONN      the store could not be reached in time: nothing was done
 *     -ECONNABORTED  the connection broke before the answer: it was done, or not
 *     -ETIMEDOUT     no answer in time: it was done, or not, or will be
 *     -EACCES        wrong password, no permission: nothing was done
 *     -ENOSPC        the disk, the server's memory or the file is full: nothing was done
 *     -EBADMSG       the file is corrupt, or an answer makes no sense
 *     -EOPNOTSUPP    this store cannot do it
 *     -ECANCELED     the handle was closed
 *     -EIO           any other error that the store tells; the change handler has its text
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <systemd/sd-event.h>

#ifdef __cplusplus
extern "C" {
#endif

/** The longest key, name or channel, in bytes. */
#define MUSTER_STATE_KEY_MAX 511

/** The largest value, in bytes. */
#define MUSTER_STATE_VALUE_MAX (16 * 1024 * 1024)

/** The largest message of muster_state_publish(), in bytes. */
#define MUSTER_STATE_MESSAGE_MAX 4096

/** How many operations, and bytes of them, may be on their way; with lmdb also those that have timed out and
 * are not done yet. */
#define MUSTER_STATE_WAITING_MAX       10000
#define MUSTER_STATE_WAITING_BYTES_MAX (64 * 1024 * 1024)

/** The most keys of a page of muster_state_scan(). */
#define MUSTER_STATE_PAGE_MAX 1000

/** A connection to a store. */
typedef struct muster_state muster_state;

/**
 * Something that people should know: the store can be reached (@error is 0), cannot be reached any more, or
 * has said something that only its text tells; see muster_state_is_connected(). Also called by
 * muster_state_open(), to say why that fails.
 *
 * @text  what has happened; there is no password in it. Valid until the handler returns
 */
typedef void (*muster_state_change_handler_t)(
                muster_state *state, int error, const char *text, void *userdata);

/** Set up with MUSTER_STATE_OPTIONS_INIT. */
typedef struct muster_state_options {
        /** sizeof(muster_state_options), as the caller was compiled with. */
        size_t size;
        /** A file with the password, read at every attempt to connect; a line end behind it is left out.
         * NULL: what $MUSTER_STATE_CREDENTIAL names, when the URL comes from the environment. */
        const char *credential;
        /** How long an operation may take, in microseconds; 0: 5 s. */
        uint64_t timeout_usec;
        /** muster_state_open() waits until the store can be reached, at most for the time-out, and fails if
         * it cannot. Set as well by $MUSTER_STATE_REQUIRED=1, when the URL comes from the environment. */
        bool required;
        /** Told of every change; NULL: nobody. */
        muster_state_change_handler_t changed;
        void *userdata;
} muster_state_options;

#define MUSTER_STATE_OPTIONS_INIT \
        { .size = sizeof(muster_state_options) }

/**
 * Opens a store.
 *
 * @event    the loop that handlers are called from; a reference is kept
 * @url      see above; NULL: $MUSTER_STATE_URL, which a worker has from its master
 * @options  may be NULL
 *
 * Returns 0 or a negative errno: -EINVAL, the URL is malformed, or of a kind that is not known; -ENXIO,
 * there is none in the environment; -ELIBACC, the plugin for that store is not installed; -ENOMEM; with
 * .required also why the store cannot be reached. Once it is opened a store that is not there is only told
 * of by the change handler.
 */
int muster_state_open(
                sd_event *event, const char *url, const muster_state_options *options, muster_state **ret);

/** Closes it: every handler that waits is called with -ECANCELED, leases and subscriptions are freed. What
 * was sent may have been done. Leases that are held are given back, if that can be done at once. NULL is
 * allowed. Always returns NULL. */
muster_state *muster_state_close(muster_state *state);

/** Whether it can be reached, as far as is known. */
bool muster_state_is_connected(const muster_state *state);

/** How an operation has ended. Valid until the handler returns. */
typedef struct muster_state_result {
        /** 0 or a negative errno, see above. The others are set when it is 0. */
        int error;
        /** get: the value. There is no NUL behind it. */
        const void *value;
        size_t value_size;
        /** add: the sum. */
        int64_t number;
        /** scan: the keys of this page, which may be none. */
        const struct muster_state_key *keys;
        size_t n_keys;
        /** scan: where the next page begins; NULL: this was the last one. */
        const void *cursor;
        size_t cursor_size;
} muster_state_result;

typedef struct muster_state_key {
        const void *data;
        size_t size;
} muster_state_key;

typedef void (*muster_state_handler_t)(
                muster_state *state, const muster_state_result *result, void *userdata);

/**
 * The version of the value that was got or set, for .if_version: another one when the value is another one.
 * Never 0 after success; 0 after an error, and for other operations. From within the handler only.
 */
uint64_t muster_state_result_get_version(const muster_state_result *result);

/*
 * In all of these:
 *
 * @key      1 … MUSTER_STATE_KEY_MAX bytes, copied; @key_size may be -1 for a string
 * @handler  called once with the outcome, unless the call itself fails; may be NULL
 *
 * They return 0, or -EINVAL, -EMSGSIZE, -ENOBUFS, -ENOMEM.
 */

/** Asks for a value. */
int muster_state_get(muster_state *state, const void *key, ssize_t key_size, muster_state_handler_t handler,
                void *userdata);

/** Set up with MUSTER_STATE_SET_INIT. */
typedef struct muster_state_set_options {
        /** sizeof(muster_state_set_options), as the caller was compiled with. */
        size_t size;
        /** The key is gone after that time, rounded up to milliseconds; 0: never. What it was before does
         * not count. At most 100 years. */
        uint64_t ttl_usec;
        /** Only when there is no such key; else -EEXIST. */
        bool if_absent;
        /** Only when the key has this version; else -ESTALE. 0: whatever it has. Not together with
         * .if_absent. */
        uint64_t if_version;
} muster_state_set_options;

#define MUSTER_STATE_SET_INIT \
        { .size = sizeof(muster_state_set_options) }

/** Sets a value, which is copied. @options may be NULL. */
int muster_state_set(muster_state *state, const void *key, ssize_t key_size, const void *value,
                size_t value_size, const muster_state_set_options *options, muster_state_handler_t handler,
                void *userdata);

/** Deletes a key; -ENOENT: there is none. @if_version: as of muster_state_set_options. */
int muster_state_delete(muster_state *state, const void *key, ssize_t key_size, uint64_t if_version,
                muster_state_handler_t handler, void *userdata);

/**
 * Adds to a number, which is kept as decimal text; a key that there is none of counts as 0.
 *
 * @ttl_usec  of a key that is made by this; 0: for ever. One that is there keeps its own
 */
int muster_state_add(muster_state *state, const void *key, ssize_t key_size, int64_t difference,
                uint64_t ttl_usec, muster_state_handler_t handler, void *userdata);

/**
 * Asks for keys, a page at a time.
 *
 * Every key that is there from the first page to the last is told of. In Redis the keys come in no order,
 * some maybe twice, and pages may be shorter or longer than was asked for; else they are in the order of
 * their bytes.
 *
 * @prefix  what the keys begin with; may be of no bytes (NULL, 0)
 * @cursor  of the page before, copied; NULL: the first page
 * @limit   keys of a page, 1 … MUSTER_STATE_PAGE_MAX; 0: 100
 */
int muster_state_scan(muster_state *state, const void *prefix, ssize_t prefix_size, const void *cursor,
                size_t cursor_size, unsigned limit, muster_state_handler_t handler, void *userdata);

/* Messages */

/** Sends a message, of at most MUSTER_STATE_MESSAGE_MAX bytes, to all who have subscribed to the channel
 * now, in whichever process. With lmdb: to the other workers of this app, through the master, and to this
 * process; -EOPNOTSUPP: it is no worker. */
int muster_state_publish(muster_state *state, const void *channel, ssize_t channel_size, const void *data,
                size_t size, muster_state_handler_t handler, void *userdata);

typedef struct muster_subscription muster_subscription;

/**
 * A message has come. @data is NULL when the subscription takes effect, and when it does so again after the
 * connection was lost: what was published before that may have been missed, so what is cached is not to be
 * trusted.
 */
typedef void (*muster_subscription_handler_t)(
                muster_subscription *subscription, const void *data, size_t size, void *userdata);

/** Subscribes to a channel. @handler is required. Freed by muster_subscription_free(), or with the handle.
 */
int muster_state_subscribe(muster_state *state, const void *channel, ssize_t channel_size,
                muster_subscription_handler_t handler, void *userdata, muster_subscription **ret);

/** Ends it: the handler is not called any more. NULL is allowed. Always returns NULL. */
muster_subscription *muster_subscription_free(muster_subscription *subscription);

/* Leases */

/** A claim to a name that at most one has at a time, of all processes on all hosts that use the store. */
typedef struct muster_lease muster_lease;

/** It is held from now on (@held), or not any more: it could not be renewed in time. Then it is asked for
 * again. */
typedef void (*muster_lease_handler_t)(muster_lease *lease, bool held, void *userdata);

/** The shortest and the longest lease, in microseconds. */
#define MUSTER_LEASE_TTL_MIN_USEC UINT64_C(100000)
#define MUSTER_LEASE_TTL_MAX_USEC UINT64_C(86400000000)

/**
 * Asks for a lease, until it is released: waits while somebody else has it, and renews it in time when it is
 * held. When its owner dies it is free after @ttl_usec at the latest.
 *
 * A process that stands still may learn too late that its lease is over. Before an effect outside of the
 * store it asks muster_lease_is_held(), which looks at the clock; and gives muster_lease_get_fence() along
 * to whoever can refuse a number lower than the highest it has seen.
 *
 * @name     1 … MUSTER_STATE_KEY_MAX bytes; leases are no keys
 * @handler  may be NULL
 *
 * Returns 0, -EINVAL, -EMSGSIZE, -ERANGE (@ttl_usec), -ENOBUFS, -ENOMEM.
 */
int muster_state_lease(muster_state *state, const void *name, ssize_t name_size, uint64_t ttl_usec,
                muster_lease_handler_t handler, void *userdata, muster_lease **ret);

/** Whether it is held now: its time is not over yet, by this host's clock, since before it was last asked to
 * be renewed. */
bool muster_lease_is_held(const muster_lease *lease);

/** A number that is higher than that of everyone who held a lease of that name before; 0: it is not held. */
uint64_t muster_lease_get_fence(const muster_lease *lease);

/** Gives it back, and frees it. NULL is allowed. Always returns NULL. */
muster_lease *muster_lease_release(muster_lease *lease);

#ifdef __cplusplus
}
#endif

#endif
