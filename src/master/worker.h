/* SPDX-License-Identifier: MIT */
#pragma once

/* One worker process from its start to its end. It knows its own states and deadlines; what to do about them
 * is the manager's business, which hears of them by the exit handler and reads the rest. */

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <systemd/sd-event.h>

#include "basic/list.h"
#include "board/board.h"
#include "master/config.h"
#include "master/listener.h"

typedef enum WorkerState {
        WORKER_STARTING, /* executed, not ready yet */
        WORKER_READY,    /* serves */
        WORKER_RETIRING, /* was told to go, or goes by itself, and finishes what is open */
        WORKER_EXITED,   /* reaped */
        _WORKER_STATE_MAX,
} WorkerState;

/* Why the master killed it, if it did. */
typedef enum WorkerKill {
        WORKER_KILL_NONE,
        WORKER_KILL_START_TIMEOUT,
        WORKER_KILL_STOP_TIMEOUT,
        WORKER_KILL_ABANDONED, /* it belongs to a start or a reload that failed */
} WorkerKill;

typedef struct Worker Worker;

/* Tells one worker from every other, before and after, of the same master. */
typedef struct WorkerId {
        unsigned slot; /* 0: none */
        uint64_t started_usec;
} WorkerId;

/* Every process that a worker starts has it in its environment, unless it was taken out. */
#define WORKER_ENV_ID "MUSTER_WORKER_ID"

/* Called once, after the process was reaped and the state is WORKER_EXITED. The handler frees the worker. */
typedef void (*worker_exit_handler_t)(Worker *w, void *userdata);

/* What all workers of an app share; borrowed. */
typedef struct WorkerEnvironment {
        sd_event *event;
        const char *app;
        const Listeners *listeners;
        Board *board;
        worker_exit_handler_t on_exit;
        void *userdata;
} WorkerEnvironment;

struct Worker {
        List node; /* in the manager's list of all workers */
        unsigned slot;
        uint64_t generation;
        WorkerState state;
        pid_t pid;
        uint64_t started_usec;
        uint64_t exited_usec;
        unsigned cell_index;
        BoardCell *cell; /* borrowed from the board */
        bool retired;    /* it was told to go, or said that it goes: its end is no crash */
        WorkerKill kill;
        int exit_code; /* CLD_… */
        int exit_status;

        const WorkerEnvironment *environment; /* borrowed */
        struct muster_child *child;
        sd_event_source *deadline; /* of the start or of the retirement; NULL when there is none */
        uint64_t start_timeout_usec;
        uint64_t stop_timeout_usec;
};

/* Starts the process. @cell_index is a free cell of the board, given back by the caller after worker_free().
 * Returns 0 or a negative errno, execve(2)'s own when the program cannot be executed. No event loop is
 * needed yet: until worker_watch() the worker runs unwatched. */
int worker_start(const WorkerEnvironment *environment, const Config *config, unsigned slot,
                uint64_t generation, unsigned cell_index, Worker **ret);

/* Watches a started worker on the environment's loop: its exit, and that it gets ready in time. Returns 0 or
 * a negative errno; then the process is ended and reaped already. */
int worker_watch(Worker *w);

Worker *worker_free(Worker *w);

/* It said that it is ready. */
void worker_set_ready(Worker *w);

/* It goes by itself: same as retire, without telling it. */
void worker_set_retiring(Worker *w);

/* Tells it to finish what is open and exit; it is killed after the stop time-out. A worker that retires
 * already is not told twice. */
void worker_retire(Worker *w);

/* Ends it at once. */
void worker_kill(Worker *w, WorkerKill why);

/* Kills what is left of its process group; in the exit handler, before it is freed. */
void worker_kill_rest(Worker *w);

WorkerId worker_get_id(const Worker *w);

/* Whether @variable ("NAME=value") names a worker of the master with the pid @master, and which. */
bool worker_id_from_variable(const char *variable, pid_t master, WorkerId *ret);

/* How it ended, for people: `exited with status 1: cannot open the directory "/srv"`. */
#define WORKER_EXIT_STRING_MAX 384
const char *worker_exit_to_string(const Worker *w, char buf[static WORKER_EXIT_STRING_MAX]);
