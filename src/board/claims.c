/* SPDX-License-Identifier: MIT */
/* Claims; see claims.h.
 *
 * A word is the cookie, then the cell of whoever has it + 1, 0 for nobody yet. Cookies count up from 1, and
 * those that the kernel gives out in interrupts down from 2^64: without their first bits they are still told
 * apart.
 *
 * There is one word for a cookie. Where it is taken by another connection, this one stays with its worker,
 * which happens so rarely that no share of the connections becomes unfair by it. A worker that dies may
 * leave a word behind that is never free again: that is one connection of 2048 more that is not handed over.
 */

#include "board/claims.h"

#define CELL_BITS 11 /* 0 … BOARD_CELLS */

static _Atomic uint64_t *word_of(BoardClaims *c, uint64_t cookie) {
        return c->words + cookie % BOARD_CLAIMS;
}

static bool is_of(uint64_t word, uint64_t cookie) {
        return word >> CELL_BITS == cookie << CELL_BITS >> CELL_BITS;
}

bool claims_offer(BoardClaims *c, uint64_t cookie) {
        uint64_t none = 0, word = cookie << CELL_BITS;

        return word != 0 && atomic_compare_exchange_strong(word_of(c, cookie), &none, word);
}

Claim claims_take(BoardClaims *c, uint64_t cookie, unsigned cell) {
        uint64_t offered = cookie << CELL_BITS, mine = offered | (cell + 1), word = offered;

        if (atomic_compare_exchange_strong(word_of(c, cookie), &word, mine) || !is_of(word, cookie))
                return CLAIM_WON;
        return word == mine ? CLAIM_HELD : CLAIM_LOST;
}

void claims_drop(BoardClaims *c, uint64_t cookie) {
        _Atomic uint64_t *p = word_of(c, cookie);
        uint64_t word = atomic_load(p);

        while (is_of(word, cookie) && !atomic_compare_exchange_weak(p, &word, 0))
                ;
}
