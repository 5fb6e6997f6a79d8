/* SPDX-License-Identifier: MIT */
#pragma once

/* When a worker has served enough, when it is no longer well, and when there is nothing to do at all: pure
 * decisions. */

#include <stdbool.h>
#include <stdint.h>

/*
 * Limits, with which a worker is replaced before it does harm
 */

/* @limit less a random part of it, up to @percent, so that workers that started together do not all go
 * together. 0 stays 0: no limit; else the result is at least 1. */
uint64_t limit_with_jitter(uint64_t limit, unsigned percent, uint32_t random);

/*
 * The heartbeat of a native worker: it beats with every turn of its loop, and one that has been silent for
 * half of the watchdog time is probed, which makes its loop turn. It hangs when it has not beaten for the
 * whole watchdog time after a probe.
 */

typedef enum HeartbeatVerdict {
        HEARTBEAT_WELL,
        HEARTBEAT_PROBE, /* silent: ask it to beat */
        HEARTBEAT_HANGS,
} HeartbeatVerdict;

typedef struct Heartbeat {
        uint64_t beats;      /* as of the last look */
        bool probed;         /* and not answered as of the last look */
        uint64_t since_usec; /* when it was last seen to beat, or probed */
} Heartbeat;

/* One look at a worker that has beaten @beats times. @late: this process itself did not run when it should
 * have, so what it missed proves nothing: the time begins anew. */
HeartbeatVerdict heartbeat_look(
                Heartbeat *h, uint64_t beats, uint64_t now_usec, uint64_t watchdog_usec, bool late);

/*
 * An app without clients
 */

typedef struct Idle {
        uint64_t accepted; /* connections, as of the last look */
        uint64_t since_usec;
        bool is_idle;
} Idle;

/* One look at all workers together: how many connections are open and were ever accepted. Returns whether
 * there was nothing for @limit_usec; 0: never. */
bool idle_look(Idle *i, uint64_t connections, uint64_t accepted, uint64_t now_usec, uint64_t limit_usec);
