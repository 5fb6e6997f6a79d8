/* SPDX-License-Identifier: MIT */
#pragma once

/* The steps of a reload, as a pure decision: what is to be done next, after what has happened so far.
 *
 * Agents that the new generation needs come before its workers, if there are any that do not run yet. One
 * worker of the new generation is started first, the canary. When it is ready it has to live for a while,
 * the soak, before any other is started; these come one after the other, each when the one before is ready.
 * When all are, the new generation is committed. Until then the old one has not been touched: whatever goes
 * wrong before, in whichever step, ends with a roll-back in which only new workers go. */

#include <stdbool.h>
#include <stdint.h>

typedef enum ReloadStep {
        RELOAD_AGENTS, /* those that are new are not ready yet */
        RELOAD_CANARY, /* the first worker is to be started, or is not ready yet */
        RELOAD_SOAK,   /* it is ready, and has to live for a while */
        RELOAD_OTHERS, /* the others, one after the other */
        RELOAD_COMMITTED,
        RELOAD_ROLLED_BACK,
        _RELOAD_STEP_MAX,
} ReloadStep;

typedef enum ReloadAction {
        RELOAD_WAIT,      /* for the next event; in RELOAD_SOAK not longer than soak_until_usec */
        RELOAD_START,     /* the worker of slot n_started + 1; tell of it by reload_worker_started() */
        RELOAD_COMMIT,    /* all are ready; this is the end */
        RELOAD_ROLL_BACK, /* something failed; this is the end */
} ReloadAction;

typedef struct Reload {
        ReloadStep step;
        unsigned n_workers;
        unsigned n_started;
        unsigned n_ready;
        uint64_t soak_usec;
        uint64_t soak_until_usec;
        bool failed;
} Reload;

/* A reload to @n_workers, at least one. */
void reload_init(Reload *r, unsigned n_workers, uint64_t soak_usec);

/* It waits for agents, before anything else. */
void reload_await_agents(Reload *r);

/* What has happened. */
void reload_agents_ready(Reload *r);
void reload_worker_started(Reload *r);
void reload_worker_ready(Reload *r, uint64_t now_usec);

/* A worker or a new agent of the new generation has ended or wants to, or could not be started, or the new
 * configuration cannot be had at all. */
void reload_failed(Reload *r);

/* What is to be done now. To be asked again after each event, and after each action but RELOAD_WAIT. */
ReloadAction reload_next(Reload *r, uint64_t now_usec);

const char *reload_step_to_string(ReloadStep step);
