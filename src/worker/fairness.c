/* SPDX-License-Identifier: MIT */
/* The decision who gets a connection; see fairness.h. */

#include "worker/fairness.h"

#include "basic/macro.h"

static bool is_older(uint64_t since, uint64_t usec, uint64_t now) {
        return since > 0 && now > since && now - since > usec;
}

bool fairness_is_healthy(const FairnessSeat *seat, uint64_t now) {
        /* Twice: a turn with much to do is no reason yet. */
        return seat->taken && !is_older(seat->busy_since, 2 * FAIRNESS_PATIENCE_USEC, now) &&
               !is_older(seat->pending_since, FAIRNESS_PATIENCE_USEC, now);
}

unsigned fairness_choose(const FairnessSeat *seats, unsigned n, unsigned mine, uint64_t now) {
        uint64_t sum = seats[mine].load, healthy = 1;
        unsigned least = mine;

        for (unsigned i = 0; i < n; i++) {
                if (i == mine || !fairness_is_healthy(seats + i, now))
                        continue;
                sum += seats[i].load;
                healthy++;
                if (seats[i].load < seats[least].load)
                        least = i;
        }
        uint64_t delta = MAX(sum / healthy / FAIRNESS_DELTA, (uint64_t) FAIRNESS_DELTA);
        return seats[mine].load >= seats[least].load + delta ? least : mine;
}
