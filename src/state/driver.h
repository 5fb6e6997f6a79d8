/* SPDX-License-Identifier: MIT */
#pragma once

/* What is between the core (src/state/store.c) and the store that a URL asks for. Each store is a plugin,
 * muster/state-NAME.so, which is loaded on first use and exports a StateDriver as muster_state_driver. It is
 * of the same package as the core, and links nothing of it: what it calls is in StateHost.
 *
 * The core keeps what waits, the time-outs, the pauses between attempts to connect and what is to be told to
 * whom. A driver connects once when it is told to, carries out operations in the order in which it gets
 * them, and tells when the connection is lost. All of it is in the loop's thread. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <systemd/sd-event.h>

#include "basic/list.h"

#define STATE_DRIVER_ABI    1
#define STATE_DRIVER_SYMBOL "muster_state_driver"

#define STATE_OWNER_SIZE 16

/* The longest text of an error, with its NUL. */
#define STATE_TEXT_MAX 256

typedef struct StateBytes {
        const void *data;
        size_t size;
} StateBytes;

typedef struct StateUrl StateUrl;

typedef enum StateVerb {
        STATE_GET,
        STATE_SET,
        STATE_DELETE,
        STATE_ADD,
        STATE_SCAN,
        STATE_PUBLISH,
        STATE_ACQUIRE, /* a lease that is free, or over, or this owner's own already */
        STATE_RENEW,   /* one that this owner has with this fence; else -ESTALE */
        STATE_RELEASE, /* likewise */
        _STATE_VERB_MAX,
} StateVerb;

/* One operation; everything was checked already. The bytes belong to the operation. */
typedef struct StateOperation {
        StateVerb verb;
        StateBytes key;      /* also the prefix of a scan (may be empty), the channel, the lease's name */
        StateBytes value;    /* set, publish */
        StateBytes cursor;   /* scan; empty: the first page */
        uint64_t ttl_usec;   /* set, add: 0, for ever; acquire, renew. Whole milliseconds */
        bool if_absent;      /* set */
        uint64_t if_version; /* set, delete; 0: any */
        int64_t difference;  /* add */
        unsigned limit;      /* scan */
        uint8_t owner[STATE_OWNER_SIZE]; /* leases: random, of one muster_lease */
        uint64_t fence;                  /* renew, release */

        /* The driver's own, while it has the operation. */
        List driver_node;
        void *driver_data;
} StateOperation;

/* How it ended. What it points to is valid while StateHost.finish() runs. */
typedef struct StateOutcome {
        int error; /* of those that muster/state.h documents */
        StateBytes value;
        uint64_t version;       /* get, set; 0: StateDriver.version() knows */
        int64_t number;         /* add */
        const StateBytes *keys; /* scan */
        size_t n_keys;
        StateBytes cursor; /* scan; empty: that was the last page. At most MUSTER_STATE_KEY_MAX bytes */
        uint64_t fence;    /* acquire */
        uint64_t remaining_usec; /* acquire, with -EEXIST: when to ask again; 0: not known */
} StateOutcome;

/* The core's side of one handle. */
typedef struct muster_state StateStore;

/* What a driver calls. Any of them may call StateDriver.send() and .subscribe(), and .disconnect(), before
 * it returns, so a driver changes its own state first; none calls .close(). */
typedef struct StateHost {
        /* The connection is made: operations may be sent. */
        void (*connected)(StateStore *store);

        /* It is lost, or could not be made; the driver has let go of it and of all operations, which the
         * core ends itself. @error: as an operation's, -ENOTCONN for most. @text: for people. */
        void (*lost)(StateStore *store, int error, const char *text);

        /* The operation has ended; the driver does not touch it any more. */
        void (*finish)(StateStore *store, StateOperation *op, const StateOutcome *outcome);

        /* The driver keeps the operation for ever: a thread of it that cannot be ended has it. */
        void (*abandon)(StateStore *store, StateOperation *op);

        /* Something that people should know, of an operation that ended with -EIO, -EACCES or -ENOSPC. */
        void (*complain)(StateStore *store, const char *text);

        /* The subscription to that channel takes effect; a message of it. */
        void (*subscribed)(StateStore *store, StateBytes channel);
        void (*message)(StateStore *store, StateBytes channel, StateBytes data);

        /* The store has refused that subscription, which a complaint tells of. No more comes of it; but one
         * that is not answered in either way within the time-out ends the connection. */
        void (*refused)(StateStore *store, StateBytes channel);

        /* lmdb: hands a message to all who have subscribed to the channel, here and in the other workers of
         * the app (-EOPNOTSUPP: this is no worker; else as muster_channel_send()). What others send comes by
         * the same way, and not through the driver. */
        int (*broadcast)(StateStore *store, StateBytes channel, StateBytes data);
} StateHost;

typedef struct StateDriver {
        uint32_t abi; /* STATE_DRIVER_ABI */

        /* Makes the driver's side of a handle; it does not connect yet. @host, @url, @store and @event are
         * valid until close(). Returns 0, or -EINVAL with a text ("found …, expected …"), or -ENOMEM. */
        int (*open)(const StateHost *host, StateStore *store, sd_event *event, const StateUrl *url,
                        void **ret, char error[static STATE_TEXT_MAX]);

        /* Drops everything at once: no function of the host is called any more. */
        void (*close)(void *driver);

        /* Begins to connect, when there is no connection and no attempt. It ends by connected() or lost(),
         * maybe before this returns. @password: NULL, none; the driver keeps no copy. Returns 0, or a
         * negative errno when it could not even begin. */
        int (*connect)(void *driver, const char *password);

        /* Lets go of the connection, or the attempt, and of all operations, without a call of lost(). What
         * has not left this process yet is not sent. */
        void (*disconnect)(void *driver);

        /* Takes an operation, when connected. Returns 0: it ends by finish(), never before this returns, or
         * by lost() or disconnect(); or a negative errno: it was not taken, nothing is done. */
        int (*send)(void *driver, StateOperation *op);

        /* When connected: from now on messages of that channel are wanted, or not any more. The core asks
         * once for a channel, and again after each connected(). Returns 0 or a negative errno. */
        int (*subscribe)(void *driver, StateBytes channel);
        int (*unsubscribe)(void *driver, StateBytes channel);

        /* Waits for the connection's descriptors, for at most @timeout_usec, and does what is due; the loop
         * does not run. For the start and the end. Returns 0 or a negative errno. */
        int (*wait)(void *driver, uint64_t timeout_usec);

        /* The version of a value that was got or set, where outcomes have none. May be NULL. Never 0. */
        uint64_t (*version)(void *driver, StateBytes value);

        /* What takes longer than its time-out stays with the driver until it has ended, because the store
         * cannot be let go of (lmdb: its lock). Else the connection is given up then. */
        bool keeps_late_operations;
} StateDriver;

extern const StateDriver muster_state_driver __attribute__((visibility("default")));
