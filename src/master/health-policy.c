/* SPDX-License-Identifier: MIT */
/* Limits and heartbeats; see health-policy.h. */

#include "master/health-policy.h"

#include "basic/macro.h"

uint64_t limit_with_jitter(uint64_t limit, unsigned percent, uint32_t random) {
        /* In parts of 2^32 of the percentage, without an overflow for whatever limit. */
        unsigned __int128 less = (unsigned __int128) limit * percent * random / 100;

        return limit == 0 ? 0 : MAX(limit - (uint64_t) (less >> 32), UINT64_C(1));
}

HeartbeatVerdict heartbeat_look(
                Heartbeat *h, uint64_t beats, uint64_t now_usec, uint64_t watchdog_usec, bool late) {
        if (beats != h->beats || !h->probed) {
                *h = (Heartbeat){ .beats = beats, .probed_usec = now_usec, .probed = true };
                return HEARTBEAT_PROBE;
        }
        if (late)
                h->probed_usec = now_usec;
        return now_usec - h->probed_usec >= watchdog_usec ? HEARTBEAT_HANGS : HEARTBEAT_WAITING;
}

bool idle_look(Idle *i, uint64_t connections, uint64_t accepted, uint64_t now_usec, uint64_t limit_usec) {
        if (connections > 0 || accepted != i->accepted || !i->is_idle) {
                *i = (Idle){ .accepted = accepted, .since_usec = now_usec, .is_idle = connections == 0 };
                return false;
        }
        return limit_usec > 0 && now_usec - i->since_usec >= limit_usec;
}
