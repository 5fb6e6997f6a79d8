/* SPDX-License-Identifier: MIT */
#pragma once

/* The inbox of a slot, by which a worker hands an accepted connection to a sibling: a pair of connected
 * sockets that keep the borders of messages. The master makes it; all native workers have both ends of all
 * inboxes, so that what lies in one outlives its reader, and can be taken out by another. */

#include <stdbool.h>
#include <stdint.h>

typedef struct Inbox {
        int receive_fd;
        int send_fd;
} Inbox;

/* Takes the inboxes that the environment names (board.h), at most @max, and the variable out of it. The
 * descriptors get FD_CLOEXEC. Returns how many there are, 0: none are named; -EINVAL: the variable is
 * malformed, or a descriptor is not open. */
int inbox_from_environment(Inbox *inboxes, unsigned max);

/* Both never wait; -EAGAIN: it is full. The connection is still the caller's. @cookie: by which it is to be
 * claimed (board/claims.h), 0: it is the receiver's anyway. */
int inbox_send_connection(const Inbox *inbox, int fd, uint64_t cookie);
int inbox_send_poke(const Inbox *inbox);

/* Outcomes of inbox_receive(). */
#define INBOX_POKED   1
#define INBOX_IGNORED 2 /* a message that makes no sense, of a worker gone mad or of another version */

/* Takes one message out: 0 with a connection in @ret_fd, which does not block and has FD_CLOEXEC, and its
 * cookie; one of the outcomes; -EAGAIN: the inbox is empty; or -EMFILE: no descriptor is left for what may
 * be in there. */
int inbox_receive(const Inbox *inbox, int *ret_fd, uint64_t *ret_cookie);

bool inbox_is_empty(const Inbox *inbox);
