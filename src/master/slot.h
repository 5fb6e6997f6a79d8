/* SPDX-License-Identifier: MIT */
#pragma once

/* A slot: the numbered place that one worker fills, and the succession in it.
 *
 * Its `current` worker serves and belongs to the committed generation. One that is to be replaced serves on
 * while its `successor`, of the same generation, starts, and retires when that is ready. A reload puts an
 * `incoming` worker of the next generation beside them. A worker that is none of the three is on its way
 * out, and nobody waits for it but the stop of the whole service. */

#include <stdbool.h>
#include <stdint.h>
#include <systemd/sd-event.h>

#include "basic/restart.h"
#include "master/manager.h"
#include "master/worker.h"

typedef struct Slot {
        unsigned id; /* 1 … */
        Manager *manager;
        Worker *current;
        Worker *successor; /* only beside a current worker that leaves */
        Worker *incoming;
        Restart restart;
        sd_event_source *retry; /* the next attempt, when there is a pause before it */
        uint64_t retry_usec;
} Slot;

/* What the configuration says of pauses. */
RestartPolicy slot_restart_policy(const Config *c);

Slot *slot_new(Manager *m, unsigned id);

/* Its workers stay with the manager. */
Slot *slot_free(Slot *s);

/* Starts what is missing, now: the current worker, or the successor of one that leaves. */
void slot_fill(Slot *s);

/* @w of this slot, which was starting, is ready. */
void slot_worker_ready(Slot *s, Worker *w);

/* @w, which is ready, is to be replaced. */
void slot_worker_leaves(Slot *s, Worker *w);

/* @w, the current one or its successor, has ended or is as good as that: it is let go of, and the slot
 * filled again, after the pause that its history asks for. */
void slot_worker_lost(Slot *s, Worker *w);

/* The workers of the generation before retire, and the incoming one is the current one; there must be one.
 */
void slot_commit(Slot *s);

/* All workers of the slot retire, or end, where they are not ready yet. */
void slot_retire(Slot *s);

/* One that has been found to hang has lost its place, though it lives. */
bool slot_has_worker(const Slot *s, const Worker *w);

/* It keeps dying and there is none that serves. */
bool slot_is_failing(const Slot *s);

/* "serving", "starting", "waiting" (for the next attempt) or "failing" */
const char *slot_state_to_string(const Slot *s);
