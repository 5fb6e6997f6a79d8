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
        if (beats != h->beats) {
                *h = (Heartbeat){ .beats = beats, .since_usec = now_usec };
                return HEARTBEAT_WELL;
        }
        if (late)
                h->since_usec = now_usec;

        uint64_t silent_usec = now_usec - h->since_usec;
        if (h->probed)
                return silent_usec >= watchdog_usec ? HEARTBEAT_HANGS : HEARTBEAT_WELL;
        if (silent_usec < watchdog_usec / 2)
                return HEARTBEAT_WELL;
        h->probed = true;
        h->since_usec = now_usec;
        return HEARTBEAT_PROBE;
}

bool idle_look(Idle *i, uint64_t connections, uint64_t accepted, uint64_t now_usec, uint64_t limit_usec) {
        if (connections > 0 || accepted != i->accepted || !i->is_idle) {
                *i = (Idle){ .accepted = accepted, .since_usec = now_usec, .is_idle = connections == 0 };
                return false;
        }
        return limit_usec > 0 && now_usec - i->since_usec >= limit_usec;
}
