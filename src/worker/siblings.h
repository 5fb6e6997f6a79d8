/* SPDX-License-Identifier: MIT */
#pragma once

/* The workers of the other slots, with which a worker shares the connections of the sockets: who gets one is
 * found out on the board (fairness.h), and what is handed over goes by the inbox of a slot (inbox.h).
 *
 * A worker sits in its slot's seat while it accepts. Who hands something over looks after it: if it has not
 * been taken in time, because its new owner is stopped, busy or dead, it takes it out again.
 *
 * Where another process takes over from a worker that dies, with the same descriptors, what is on its way is
 * claimed by who serves it (board/claims.h). */

#include <stdbool.h>
#include <stdint.h>

#include "board/board.h"
#include "worker/inbox.h"

typedef struct Siblings {
        BoardSeat *seats; /* borrowed, as the cells; NULL: there are no siblings, nothing here does
                             anything then */
        const BoardCell *cells;
        BoardClaims *claims;
        bool claimed; /* what it hands over is to be claimed, as somebody takes over from it when it dies */
        bool inherited;
        unsigned n; /* seats that count */
        unsigned mine;
        bool serves;   /* it may be handed something */
        bool sits;     /* it wants to be, and sits in its seat unless another worker does */
        uint32_t mark; /* of this worker, and of those that it has taken over from, as the owner of a seat */
        unsigned n_offers;
        uint64_t handed;   /* a bit for each seat whose inbox is to be looked after */
        uint64_t deadline; /* for that; USEC_INFINITY: there is nothing to look after */
        Inbox inboxes[BOARD_SEATS];
} Siblings;

/* Takes the inboxes of the environment; none are there when the app has one worker only, or there are too
 * many slots before that of the worker. @slot counts from 1. @claimed: somebody takes over from the worker
 * when it dies. Failures are logged. */
int siblings_init(Siblings *s, const Board *board, const BoardCell *cell, unsigned slot, bool claimed,
                uint64_t now);

bool siblings_exist(const Siblings *s);

/* What comes to the slot is read by this worker: that is what its loop waits for. -EBADF: nothing is to be
 * waited for. */
int siblings_fd(const Siblings *s);

/* Takes over from a worker that has died: before siblings_begin(). What that one had begun is brought to an
 * end, or left to whoever it concerns. */
void siblings_inherit(Siblings *s, uint64_t now);

/* Whether a connection that such a worker had, but had not begun to serve, is to be served. False: somebody
 * else does, and this copy of it is closed. */
bool siblings_claim(Siblings *s, int fd);

/* Sits down: as the first worker, which begins to serve, or again after having got up, when the seat is
 * free.
 */
void siblings_begin(Siblings *s);
void siblings_sit(Siblings *s);

/* Nothing is to be handed to it any more. Returns whether the slot has no other worker now that would take
 * what is in the inbox. */
bool siblings_get_up(Siblings *s);

/* The same, for good. */
bool siblings_end(Siblings *s);

/* The loop is about to wait for events, or has waited. */
void siblings_rest(Siblings *s);
void siblings_wake(Siblings *s, uint64_t now);

/* Hands a connection to whoever should have it. @load: how many this worker has without it. False: it is to
 * keep it; else the connection is not its own any more. */
bool siblings_offer(Siblings *s, int fd, unsigned load, uint64_t now);

/* Tells one that is healthy to look at the listening sockets. */
void siblings_poke(Siblings *s, uint64_t now);

/* From here on nothing in the inbox is pending: it is about to be read. Returns whether something was. */
bool siblings_open_inbox(Siblings *s);

/* The next message of the slot's inbox, as inbox_receive(); INBOX_IGNORED also for a connection that
 * somebody else has claimed. */
int siblings_receive(Siblings *s, int *ret_fd);

/* Looks after what was handed over, when s->deadline has come. Returns 0 with a connection in @ret_fd that
 * its owner has not taken in time; -EAGAIN: there is no further one for now; or -EMFILE: no descriptor is
 * left for what there may be, which is tried again at the next s->deadline. */
int siblings_rescue(Siblings *s, uint64_t now, int *ret_fd);
