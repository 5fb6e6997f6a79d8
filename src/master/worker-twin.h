/* SPDX-License-Identifier: MIT */
#pragma once

/* A native worker with a twin (workers.twin), as the master sees it. What was started is the keeper, which
 * serves nobody; who serves, who stands by, and who of them died is told by the board. Who dies is taken
 * over from without the master: for it the worker lives on, with its slot, its generation and its counts.
 *
 * The board can be written by the worker, too: what it says is a claim. A process is believed to be one of
 * the two when it is a child of the keeper, and what is told of deaths is bounded. */

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "board/board.h"

typedef struct Worker Worker;

typedef struct WorkerTwin {
        bool enabled;    /* in the configuration that it was started with */
        bool has_keeper; /* it was seen that another process serves than the one that was started */

        pid_t dead_pid;      /* whose death was told last; 0: nobody's */
        uint32_t n_told;     /* deaths on the board that have been looked at */
        uint64_t since_usec; /* since when the one that serves does; 0: since the start of the worker */
        uint64_t oom_kills;  /* in the control group, as of the last death */
        uint64_t flood_since_usec; /* of deaths */
        unsigned n_flood;
        uint64_t n_untold; /* of which it can only be told that they were; not yet done */

        /* Who has to take over starts the app anew, and is given the time for it: until then no sign of life
         * is expected. 0: it has given one, or has taken over. */
        uint64_t patient_until_usec;
        uint64_t patient_beats; /* as of then */
        uint32_t n_lost;        /* deaths of those that had not taken over yet, as far as that is known */
        bool aborted;           /* the watchdog has ended one that served, */
        uint64_t aborted_beats; /* and these were its signs of life, */
        unsigned aborted_takeovers; /* and the take-overs by then */
        bool hangs;                 /* and its death has not been told yet */
        bool retires;               /* as soon as somebody has taken over */
} WorkerTwin;

/* A death that was taken over. */
typedef struct WorkerDeath {
        pid_t pid;
        int code; /* CLD_… */
        int status;
        bool hung; /* the watchdog's doing */
        bool out_of_memory;
        uint64_t uptime_usec;           /* since it began to serve */
        char reason[BOARD_REASON_SIZE]; /* its last words */
} WorkerDeath;

/* Looks who serves, and tells of all deaths that are new (WorkerHandlers.died). */
void worker_look_at_twin(Worker *w);

/* Whether another process serves than the one that was started. Once it was seen it stays so. */
bool worker_has_keeper(const Worker *w);

/* Who serves: another process than w->pid where there is a twin. 0: nobody at the moment. */
pid_t worker_get_serving_pid(const Worker *w);

/* Whether @pid is the process that was taken over from last. */
bool worker_was_taken_over_from(Worker *w, pid_t pid);

/* Who stands by; 0: nobody. */
pid_t worker_get_twin_pid(const Worker *w);

/* Who served last, also after the end of all, as far as the board says: for people. 0: there was no keeper.
 */
pid_t worker_get_last_served_pid(const Worker *w);

/* How often one was taken over from, as the board says. */
unsigned worker_get_takeovers(const Worker *w);

/* What it uses, as usage.h says. Memory is that of the process that serves: the others share theirs with it.
 * CPU time is that of all of them, the dead included. */
int worker_get_memory(const Worker *w, uint64_t *ret_bytes);
int worker_get_cpu(const Worker *w, uint64_t *ret_usec);

/* One that served has died, and the worker is to go: who takes over finishes what it has. Told earlier,
 * nobody would take over. */
void worker_retire_successor(Worker *w);

/* It has no time to beat yet: somebody is about to take over. */
bool worker_is_taken_over(Worker *w, uint64_t now_usec);

/* Whoever takes over has until @usec from now at least. Does nothing when nobody does. */
void worker_extend_takeover(Worker *w, uint64_t usec);

/* It hangs, and it is enough to end the process that serves, so that its twin takes over. False: there is no
 * twin, or that was tried already. */
bool worker_abort_serving(Worker *w);
