/* SPDX-License-Identifier: MIT */
#pragma once

/* Which worker gets the next connection that the master passes on: pure decisions. */

#include <stddef.h>
#include <stdbool.h>
#include <stdint.h>

typedef enum Balance {
        BALANCE_AUTO,        /* what is best for the kind of worker */
        BALANCE_INHERIT,     /* the master passes nothing: all workers wait on the same socket */
        BALANCE_ROUND_ROBIN, /* by turns */
        BALANCE_LEAST_LAG,   /* the one whose event loop answers soonest */
        BALANCE_SOURCE,      /* the same one for the same client address */
        _BALANCE_MAX,
} Balance;

/* What is known of a worker. */
typedef struct BalanceCandidate {
        unsigned slot;      /* its place, which outlives it: what BALANCE_SOURCE goes by */
        unsigned in_flight; /* connections that it was passed and has not acknowledged */
        uint64_t lag_usec;  /* how long its event loop takes for an answer, as last measured; 0: not known */
        bool has_room;      /* it can be passed one now */
        bool stalled;       /* it has not acknowledged for suspiciously long: only if there is no other */
        bool late;      /* it has not acknowledged for a while, though there was something: by turns it is
                           not waited for, and gets none if there is another */
        uint64_t turns; /* how many it was passed, by balance_count_turn() */
} BalanceCandidate;

/* Nobody can take it now, or nobody should, so that another one has its turn first: it waits. */
#define BALANCE_NOBODY SIZE_MAX

/* Returns the index of the worker for the next connection, or BALANCE_NOBODY. @balance is one of those that
 * pass connections. @cursor is where the turns are, kept by the caller for one socket, and begins at 0.
 * @source: a hash of the client's address, for BALANCE_SOURCE alone. */
size_t balance_choose(Balance balance, const BalanceCandidate *candidates, size_t n, size_t *cursor,
                uint64_t source);

/* Whether the choice would be somebody. For BALANCE_SOURCE, of some clients. */
bool balance_can_choose(Balance balance, const BalanceCandidate *candidates, size_t n);

/* Who was chosen has been passed it. The turns of the others may change too: who is far behind, because it
 * was late, is not to be flooded in return. */
void balance_count_turn(BalanceCandidate *candidates, size_t n, size_t chosen);

/* The same for the same @n bytes in every process, on every machine and after every restart: it is not
 * seeded, so that clients stay where they are. Every bit of an address moves every bit of the hash. Of an
 * address the bytes of the host alone, without the port, which is another one for each connection. */
uint64_t balance_hash_address(const void *address, size_t n);

/* "round-robin"; NULL when there is no such policy. */
const char *balance_to_string(Balance balance);
