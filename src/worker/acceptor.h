/* SPDX-License-Identifier: MIT */
#pragma once

/* The listening sockets of a worker, which share the connections with those of its siblings. What is
 * accepted is given to the loop by a callback. */

#include <stdbool.h>
#include <stdint.h>

#include "http/server.h"
#include "worker/siblings.h"

typedef struct Listener {
        int fd;
        bool broken;         /* failed for good: not listened to any more */
        unsigned n_accepted; /* since it moved to the end of the queue */
} Listener;

typedef struct AcceptorHandlers {
        /* Takes the connection. @handed: its socket may be open elsewhere for a moment yet. */
        void (*add)(void *userdata, int fd, bool handed);
        void *userdata;
} AcceptorHandlers;

typedef struct Acceptor {
        int epoll_fd;         /* borrowed */
        const Server *server; /* likewise: its time, its connections, whether it drains */
        AcceptorHandlers handlers;
        Listener *listeners;
        unsigned n_listeners;
        unsigned n_broken;
        unsigned max_connections;
        bool listening;
        bool inbox_rests;   /* it is not looked into before the worker listens again */
        uint64_t retry_at;  /* to listen again, when something lacked; else USEC_INFINITY */
        uint64_t warned_at; /* of the last word about what lacks */
        Siblings siblings;
} Acceptor;

/* Where the worker stands among the others; borrowed, but for the slot's number. */
typedef struct AcceptorPlace {
        const Board *board;
        const BoardCell *cell;
        unsigned slot;
        bool twin; /* another process takes over when this one dies */
} AcceptorPlace;

/* Prepares the descriptors 3 … 3 + @n_listeners - 1. Failures are logged. */
int acceptor_init(Acceptor *a, const Server *server, const AcceptorPlace *place,
                const AcceptorHandlers *handlers, unsigned n_listeners, unsigned max_connections);
void acceptor_done(Acceptor *a);

/* Takes over from a worker that has died, whose epoll instance is gone on with: before the connections are
 * looked at. Then acceptor_begin(), and acceptor_start() when it is known how many there are. */
void acceptor_inherit(Acceptor *a);

/* A connection of such a worker of which nothing was known yet, but that it is open: adds it, unless
 * somebody else serves it; then it is closed. */
void acceptor_adopt(Acceptor *a, int fd);

/* Listens, unless it does already, or the server drains or is full: by EVENT_LISTENER in the epoll instance
 * that a->epoll_fd names by now. To be called when a connection was closed, too. */
void acceptor_start(Acceptor *a);

/* The worker serves from now on: siblings may hand it connections, by EVENT_INBOX. */
int acceptor_begin(Acceptor *a);

/* The loop is about to wait for events, or has waited. */
void acceptor_rest(Acceptor *a);
void acceptor_wake(Acceptor *a);

/* Leaves the kernel's queue to the siblings, for good as the server drains. What it may have been woken up
 * for is accepted yet, if @accept_last. */
void acceptor_end(Acceptor *a, bool accept_last);

/* Something may be there to accept at the listener of this index. */
void acceptor_ready(Acceptor *a, unsigned index);

/* The inbox has something, @events. */
void acceptor_read_inbox(Acceptor *a, uint32_t events);

/* When acceptor_expire() has something to do: to listen again, or to look after what was handed over. Until
 * it has done the latter the worker must not end. */
uint64_t acceptor_next_deadline(const Acceptor *a);
bool acceptor_has_handed(const Acceptor *a);
void acceptor_expire(Acceptor *a);

/* No listener is left that works. */
bool acceptor_is_broken(const Acceptor *a);
