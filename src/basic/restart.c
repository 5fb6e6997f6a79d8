/* SPDX-License-Identifier: MIT */
/* The restart policy; see restart.h. */

#include "basic/restart.h"

#include "basic/macro.h"

uint64_t restart_after_death(Restart *r, const RestartPolicy *p, uint64_t lived_usec) {
        uint64_t delay = p->backoff_min_usec;

        if (lived_usec >= RESTART_HEALTHY_USEC)
                r->early_deaths = 0;
        if (r->early_deaths++ == 0)
                return 0;

        for (unsigned i = 2; i < r->early_deaths && delay < p->backoff_max_usec; i++)
                if (__builtin_mul_overflow(delay, UINT64_C(2), &delay))
                        return p->backoff_max_usec;
        return MIN(delay, p->backoff_max_usec);
}
