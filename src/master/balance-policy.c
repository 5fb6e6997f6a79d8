/* SPDX-License-Identifier: MIT */
/* Choosing a worker; see balance-policy.h.
 *
 * Turns serve two masters. A worker that is busy with something long is to be passed over at once, or what
 * it is passed waits with it. In a burst all are busy, and who of them answers first is up to the scheduler:
 * he would get more than the others, and keep it as long as the connections last. So it goes to the one with
 * the fewest on the way, but nobody gets ahead of the others by more than a few turns, except of those that
 * give no sign of life for some time. At a rate at which a burst is none nobody gets ahead in that time. */

#include "master/balance-policy.h"

#include "basic/macro.h"

/* By how many turns one may be ahead of another. */
#define AHEAD_MAX 12

/* A loop that answers within this time is idle: an idle Node worker takes up to 4 ms, and which of two takes
 * less is chance. Below it only the connections on the way count; a worker not measured yet is idle too. */
#define LAG_FLOOR_USEC UINT64_C(5000)

/* Keeps the product within 64 bits. An hour and a minute are the same to a client. */
#define LAG_CEILING_USEC ((uint64_t) UINT32_MAX)

static const char *const balance_names[_BALANCE_MAX] = {
        [BALANCE_AUTO] = "auto",
        [BALANCE_INHERIT] = "inherit",
        [BALANCE_ROUND_ROBIN] = "round-robin",
        [BALANCE_LEAST_LAG] = "least-lag",
        [BALANCE_SOURCE] = "source",
};

const char *balance_to_string(Balance balance) {
        return (unsigned) balance < _BALANCE_MAX ? balance_names[balance] : NULL;
}

/* Spreads every bit over all of them. Multiplying by an odd number and folding the upper half into the lower
 * one can both be undone, so that different numbers stay different. */
static uint64_t mix(uint64_t x) {
        x = (x ^ x >> 32) * UINT64_C(0xD6E8FEB86659FD93);
        x = (x ^ x >> 32) * UINT64_C(0xD6E8FEB86659FD93);
        return x ^ x >> 32;
}

uint64_t balance_hash_address(const void *address, size_t n) {
        const uint8_t *p = address;
        uint64_t h = mix(n + 1); /* a shorter one is no beginning of a longer one */

        for (size_t i = 0; i < n; i++)
                h = mix(h ^ p[i]) + UINT64_C(0x9E3779B97F4A7C15);
        return mix(h);
}

/*
 * Turns
 */

static bool anybody(const BalanceCandidate *candidates, size_t n, bool late) {
        for (size_t i = 0; i < n; i++)
                if (candidates[i].late == late)
                        return true;
        return false;
}

/* Of those that are, or are not, late. */
static uint64_t fewest_turns(const BalanceCandidate *candidates, size_t n, bool late) {
        uint64_t fewest = UINT64_MAX;

        for (size_t i = 0; i < n; i++)
                if (candidates[i].late == late)
                        fewest = MIN(fewest, candidates[i].turns);
        return fewest;
}

static bool has_less(const BalanceCandidate *a, const BalanceCandidate *b) {
        return a->in_flight < b->in_flight || (a->in_flight == b->in_flight && a->turns < b->turns);
}

/* Late ones have their turns when all are late. */
static size_t choose_by_turns(const BalanceCandidate *candidates, size_t n, size_t cursor) {
        bool late = !anybody(candidates, n, false);
        uint64_t fewest = fewest_turns(candidates, n, late);
        size_t best = BALANCE_NOBODY;

        for (size_t i = 0; i < n; i++) {
                size_t k = (cursor % n + i) % n; /* there may be fewer than the last time */
                const BalanceCandidate *c = candidates + k;

                if (!c->has_room || c->late != late || c->turns - fewest >= AHEAD_MAX)
                        continue;
                if (best == BALANCE_NOBODY || has_less(c, candidates + best))
                        best = k;
        }
        return best;
}

void balance_count_turn(BalanceCandidate *candidates, size_t n, size_t chosen) {
        uint64_t turns = ++candidates[chosen].turns;

        for (size_t i = 0; i < n; i++)
                if (turns > AHEAD_MAX)
                        candidates[i].turns = MAX(candidates[i].turns, turns - AHEAD_MAX);
}

/*
 * Lag: of those that cost the same, the next one in turn.
 */

static bool is_eligible(const BalanceCandidate *c, bool stalled) {
        return c->has_room && c->stalled == stalled;
}

static uint64_t cost_of(const BalanceCandidate *c) {
        return ((uint64_t) c->in_flight + 1) * MIN(MAX(c->lag_usec, LAG_FLOOR_USEC), LAG_CEILING_USEC);
}

static size_t choose_by_lag(const BalanceCandidate *candidates, size_t n, size_t cursor, bool stalled) {
        size_t best = BALANCE_NOBODY;

        for (size_t i = 0; i < n; i++) {
                size_t k = (cursor % n + i) % n;

                if (!is_eligible(candidates + k, stalled))
                        continue;
                if (best == BALANCE_NOBODY || cost_of(candidates + k) < cost_of(candidates + best))
                        best = k;
        }
        return best;
}

static size_t choose_next(Balance balance, const BalanceCandidate *candidates, size_t n, size_t cursor) {
        if (balance == BALANCE_ROUND_ROBIN)
                return choose_by_turns(candidates, n, cursor);

        size_t k = choose_by_lag(candidates, n, cursor, /* stalled= */ false);
        return k != BALANCE_NOBODY ? k : choose_by_lag(candidates, n, cursor, /* stalled= */ true);
}

/*
 * The same one for the same client: every pair of a client and a slot has a weight, and the heaviest wins. A
 * slot that comes or goes so takes or frees the clients that it is the heaviest for, and moves no other.
 */

typedef bool (*is_allowed_t)(const BalanceCandidate *c);

static bool is_well(const BalanceCandidate *c) {
        return !c->stalled;
}

static bool has_room(const BalanceCandidate *c) {
        return c->has_room;
}

static size_t choose_heaviest(
                const BalanceCandidate *candidates, size_t n, uint64_t source, is_allowed_t is_allowed) {
        size_t best = BALANCE_NOBODY;
        uint64_t best_weight = 0;

        for (size_t i = 0; i < n; i++) {
                const BalanceCandidate *c = candidates + i;
                uint64_t weight = mix(source ^ mix((uint64_t) c->slot + 1));

                if (!is_allowed(c))
                        continue;
                /* While one is replaced there may be two of a slot, of which one takes no more. */
                if (best == BALANCE_NOBODY || weight > best_weight ||
                                (weight == best_weight && !candidates[best].has_room)) {
                        best = i;
                        best_weight = weight;
                }
        }
        return best;
}

/* One without room is waited for, as it is not for long; one that has stalled is not. */
static size_t choose_for_source(const BalanceCandidate *candidates, size_t n, uint64_t source) {
        size_t best = choose_heaviest(candidates, n, source, is_well);

        if (best == BALANCE_NOBODY)
                return choose_heaviest(candidates, n, source, has_room);
        return candidates[best].has_room ? best : BALANCE_NOBODY;
}

size_t balance_choose(Balance balance, const BalanceCandidate *candidates, size_t n, size_t *cursor,
                uint64_t source) {
        assert(balance == BALANCE_ROUND_ROBIN || balance == BALANCE_LEAST_LAG || balance == BALANCE_SOURCE);

        if (balance == BALANCE_SOURCE)
                return choose_for_source(candidates, n, source);

        size_t k = choose_next(balance, candidates, n, *cursor);
        if (k != BALANCE_NOBODY)
                *cursor = k + 1;
        return k;
}

bool balance_can_choose(Balance balance, const BalanceCandidate *candidates, size_t n) {
        if (balance != BALANCE_SOURCE)
                return choose_next(balance, candidates, n, 0) != BALANCE_NOBODY;
        for (size_t i = 0; i < n; i++)
                if (candidates[i].has_room)
                        return true;
        return false;
}
