/* SPDX-License-Identifier: MIT */
#pragma once

/* The core of a handle on a store: what waits, what is with the driver, time-outs, and the connection that
 * is made again. What a driver calls is here as well; see driver.h for the contract. The parts: store.c is
 * all that; operation.c is what an application asks for; subscription.c and lease.c are built on both. */

#include <stdbool.h>
#include <stdint.h>
#include <systemd/sd-event.h>

#include "basic/list.h"
#include "basic/macro.h"
#include "muster/state.h"
#include "state/driver.h"
#include "state/url.h"

typedef enum StateLink {
        STATE_DOWN, /* until the next attempt */
        STATE_CONNECTING,
        STATE_UP,
} StateLink;

typedef struct Operation Operation;

/* Told how it ended, but for -ECANCELED of those that no application waits for. */
typedef void (*OperationEnd)(muster_state *s, Operation *o, const StateOutcome *outcome);

struct Operation {
        StateOperation op;
        List node; /* of waiting, sent or late */
        uint64_t deadline_usec;
        size_t bytes; /* as they count for the limit */
        bool is_sent;
        bool is_late; /* its handler was told; the driver still has it */
        OperationEnd on_end;
        muster_state_handler_t handler; /* these two: the application's */
        void *userdata;
        void *owner; /* of on_end */
        char data[];
};

struct muster_state {
        sd_event *event;
        StateUrl *url;
        char *credential; /* NULL: none */
        uint64_t timeout_usec;
        muster_state_change_handler_t changed;
        void *userdata;

        const StateDriver *driver;
        void *driver_data;
        StateLink link;
        int error;                 /* of the latest attempt */
        unsigned n_failures;       /* of attempts, in a row, and of connections that did not last */
        uint64_t connected_usec;   /* since when it is up */
        char told[STATE_TEXT_MAX]; /* why it is down, as last told; "": it is not, or was not told */
        sd_event_source *attempt;  /* the next one, or the end of the one under way */
        sd_event_source *deadline; /* the oldest operation's or subscription's, or a little earlier */
        sd_event_source *turn;     /* what must not be done from within a call */
        bool is_armed;             /* the deadline is */
        uint64_t complained_usec;

        List waiting; /* for the connection */
        List sent;
        List late;
        unsigned n_operations; /* of all three */
        size_t n_bytes;

        List subscriptions;
        List leases;
        bool has_news; /* a subscription has, that was not told yet */

        unsigned depth;    /* of handlers that are running */
        bool has_begun;    /* the first attempt to connect */
        bool is_closed;    /* by the application; freed as soon as no handler runs */
        List siblings;     /* of all handles of this process on an embedded store */
        uint64_t delivery; /* of the latest message of another process */
};

/* Makes an operation with copies of what it is given. NULL: no memory. */
Operation *operation_new(StateVerb verb, StateBytes key, StateBytes value, StateBytes cursor);

/* Whether an operation more is within the limits, with that many bytes of the application's. */
bool store_has_room(const muster_state *s, size_t n_bytes);

/* Hands it over; it is freed as well when this fails. Returns 0, or a negative errno: it was not done. */
int store_submit(muster_state *s, Operation *o);

/* Does from the loop, soon, what must not be done from within a call. */
void store_want_turn(muster_state *s);

/* All the handles on an embedded store that are open. */
List *store_all(void);

/* Looks at what is waited for, not later than then. */
void store_arm_deadline(muster_state *s, uint64_t usec);

/* Around every call of an application's handler. */
void store_enter(muster_state *s);
void store_leave(muster_state *s);

/* subscription.c */

/* The connection is there, or there again; or is gone. */
void subscriptions_connect(muster_state *s);
void subscriptions_lost(muster_state *s);
void subscriptions_tell(muster_state *s);
void subscriptions_free(muster_state *s);

/* When the driver is to have answered the oldest one; USEC_INFINITY: it has answered all. */
uint64_t subscriptions_get_deadline(const muster_state *s);

void subscription_took_effect(StateStore *s, StateBytes channel);
void subscription_was_refused(StateStore *s, StateBytes channel);
void subscription_message(StateStore *s, StateBytes channel, StateBytes data);

/* lease.c */

/* Frees them all; those that are held are asked to be given back. */
void leases_free(muster_state *s);

/* publication.c: messages of the embedded store, which go through the master. */
int publication_send(StateStore *s, StateBytes channel, StateBytes data);
void publication_listen(void);

/* plugin.c. Returns 0, -ELIBACC with a text, or -ENOMEM. */
int plugin_load(const char *name, const StateDriver **ret, char error[static STATE_TEXT_MAX]);
