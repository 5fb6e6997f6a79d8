/* SPDX-License-Identifier: MIT */
#pragma once

/* Who serves a connection that a worker hands over to another one, when one of them dies on the way.
 *
 * From before it is sent until the sender has closed its copy, two processes may have it: the sender, or who
 * takes over from it with the same descriptors; and who takes it out of the inbox, or takes over from that
 * one. Neither can tell how far the other has got. So a word on the board decides, which is there while both
 * may be: who serves the connection writes its cell there first, and who finds another's there closes its
 * copy without a word to the client. */

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

/* Each worker has one connection on the way at a time. */
#define BOARD_CLAIMS 2048

typedef struct BoardClaims {
        _Atomic uint64_t words[BOARD_CLAIMS]; /* 0: free */
} BoardClaims;

/* Before a connection is sent. @cookie: its number in the kernel (SO_COOKIE). False: there is no word for
 * it, and it must not be sent. */
bool claims_offer(BoardClaims *c, uint64_t cookie);

typedef enum Claim {
        CLAIM_WON,  /* also when nothing is known of it here: nobody else can have it then */
        CLAIM_HELD, /* won by this cell before */
        CLAIM_LOST, /* another has it */
} Claim;

/* By who has a connection and is about to serve it; @cell: that of the worker, which is that of who takes
 * over from it, too. */
Claim claims_take(BoardClaims *c, uint64_t cookie, unsigned cell);

/* By who had it and has closed its copy: one at most is left that has it. */
void claims_drop(BoardClaims *c, uint64_t cookie);
