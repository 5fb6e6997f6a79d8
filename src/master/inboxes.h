/* SPDX-License-Identifier: MIT */
#pragma once

/* The inboxes of the slots, by which native workers hand connections to each other (board/board.h). They
 * belong to the slots and not to the workers: what lies in one when its reader dies is read by the next. */

#include "board/board.h"

typedef struct Inboxes {
        unsigned n;
        int fds[2 * BOARD_SEATS]; /* of each slot, from the first one on: to receive from, to send to */
} Inboxes;

/* Makes those that are missing for @n_slots; the slots above BOARD_SEATS have none. Workers know those that
 * were there when they were started: after the number of slots has grown, the old ones hand nothing to the
 * new ones until they are replaced, and connections find these by the kernel's queue alone. */
int inboxes_fit(Inboxes *inboxes, unsigned n_slots);

void inboxes_done(Inboxes *inboxes);
