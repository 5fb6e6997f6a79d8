/* SPDX-License-Identifier: MIT */
/* The restart policy; see restart.h. */

#include "basic/restart.h"

#include "basic/macro.h"

static uint64_t backoff(const RestartPolicy *p, unsigned early_deaths) {
        uint64_t delay = p->backoff_min_usec;

        if (early_deaths == 1)
                return 0;
        for (unsigned i = 2; i < early_deaths && delay < p->backoff_max_usec; i++)
                if (__builtin_mul_overflow(delay, UINT64_C(2), &delay))
                        return p->backoff_max_usec;
        return MIN(delay, p->backoff_max_usec);
}

/* Whether the latest deaths, this one included, are more than the limit allows: the oldest of limit + 1 lies
 * within the window. */
static bool is_past_limit(Restart *r, const RestartPolicy *p, uint64_t now_usec) {
        const size_t size = ELEMENTSOF(r->deaths_usec);

        assert(p->limit < size);
        r->deaths_usec[r->n_deaths++ % size] = now_usec;
        if (p->limit == 0 || r->n_deaths <= p->limit)
                return false;
        return now_usec - r->deaths_usec[(r->n_deaths - 1 - p->limit) % size] < p->window_usec;
}

uint64_t restart_after_death(Restart *r, const RestartPolicy *p, uint64_t now_usec, uint64_t lived_usec) {
        (void) restart_is_well(r, lived_usec);
        r->early_deaths++;
        r->failing |= is_past_limit(r, p, now_usec);
        return r->failing ? p->backoff_max_usec : backoff(p, r->early_deaths);
}

bool restart_is_well(Restart *r, uint64_t lived_usec) {
        if (lived_usec < RESTART_HEALTHY_USEC)
                return false;
        r->early_deaths = 0;

        bool was_failing = r->failing;
        r->failing = false;
        return was_failing;
}
