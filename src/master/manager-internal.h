/* SPDX-License-Identifier: MIT */
#pragma once

/* The inside of the manager, which is in seven parts: manager.c is the life of the master and its event
 * sources; slot.c keeps the places filled, with what spare.c holds ready; reload.c brings up a new
 * generation; agents.c keeps the companions; health.c looks after what nobody tells; status.c says how it
 * all is. */

#include <systemd/sd-event.h>

#include "basic/list.h"
#include "basic/restart.h"
#include "board/board.h"
#include "master/agents.h"
#include "master/arrivals.h"
#include "master/control.h"
#include "master/exits.h"
#include "master/health-policy.h"
#include "master/manager.h"
#include "master/orphans.h"
#include "master/reload-policy.h"
#include "master/slot.h"
#include "master/worker.h"

/* What systemd grants beyond our own time-outs, so that ours come first and are told in words. */
#define TIMEOUT_MARGIN_USEC (5 * USEC_PER_SEC)

#define STATUS_MAX  768
#define FAILURE_MAX (WORKER_EXIT_STRING_MAX + 64)

typedef enum ManagerState {
        MANAGER_STARTING, /* until all workers of the first generation are ready */
        MANAGER_RUNNING,
        MANAGER_RELOADING, /* a second generation is coming up beside the first */
        MANAGER_STOPPING,
        _MANAGER_STATE_MAX,
} ManagerState;

struct Manager {
        const char *app;
        ManagerState state;
        int exit_status;
        uint64_t started_usec;

        Config *config; /* of the committed generation */
        uint64_t generation;

        Slot **slots; /* by id - 1; the workers that are wanted, and while a reload grows, those of the next
                       * generation too */
        unsigned n_slots;
        unsigned n_wanted; /* slots of the committed generation */
        List workers;      /* all of them, in whatever state */
        Agents agents;
        bool cell_used[BOARD_CELLS];
        Orphans *orphans; /* what they leave behind */
        Control *control; /* NULL: nobody can ask for anything */
        pid_t guard_pid;  /* who ends the workers if this process is killed; 0: systemd */
        bool finishing;   /* the last worker is gone */
        Exits exits;

        /* The generation coming up. */
        Config *next_config; /* NULL when there is none */
        uint64_t next_generation;
        Reload reload;
        sd_event_source *soak;
        List reload_waiters; /* who has asked for the one under way */
        List reload_queue;   /* and for the one after it */
        bool reload_again;   /* there is to be one after it */

        /* Those that have loaded the app and wait for a place: workers of slot 0. */
        Restart spare_restart;
        sd_event_source *spare_retry; /* the next attempt, when there is a pause before it */
        unsigned n_started;           /* workers, ever */

        Listeners listeners;
        Board board;
        Inboxes inboxes;
        WorkerEnvironment environment; /* with what is owned here: notify, cgroups, cluster */

        sd_event *event;
        sd_event_source *bell;
        ForwardAccount said; /* by all workers and agents */
        sd_event_source *tick;
        uint64_t tick_usec;
        Idle idle;

        /* Of an app whose workers do not count: what the kernel says. */
        Arrivals *arrivals;             /* NULL: not asked yet */
        uint64_t arrived;               /* looks that found one */
        uint64_t counted, counted_usec; /* open connections, and when that was asked */
        bool warned_of_count;

        char failure[FAILURE_MAX]; /* the latest reason why a slot is empty or a reload failed; "" when all
                                      is well */
        char status[STATUS_MAX];   /* as last told to systemd */
        uint64_t notified_usec;    /* since when... */
        unsigned n_notified;       /* ...it was told so often */
};

/* manager.c */

void manager_set_state(Manager *m, ManagerState to);

/* NULL: there is none of that number, or not any more. */
Slot *manager_slot(const Manager *m, unsigned id);

/* Starts a worker for the slot, or for none yet (0). Returns 0, or a negative errno, logged, with the reason
 * in m->failure. */
int manager_start_worker(Manager *m, unsigned slot, const Config *config, uint64_t generation, Worker **ret);

/* Starts any process: of a worker, or of an agent. It is appended to @list. Returns as worker_start(). */
int manager_start_process(Manager *m, const WorkerEnvironment *environment, WorkerPlace *place,
                const Config *config, List *list, Worker **ret, char **ret_error);

/* What a process that has ended had of the board. */
void manager_free_cell(Manager *m, const Worker *w);

/* All agents are ready: the workers' turn. */
void manager_start_workers(Manager *m);

/* The master ends if nothing is left. */
void manager_check_finished(Manager *m);

/* Makes the slots 1 … @n; those that are there stay. Returns 0 or -ENOMEM. */
int manager_add_slots(Manager *m, unsigned n);

/* Drops the slots above @n. Their workers retire; nobody fills them again. */
void manager_drop_slots(Manager *m, unsigned n);

/* The first start failed, for m->failure. */
void manager_start_failed(Manager *m);

/* Lets the workers finish, and ends. */
void manager_stop(Manager *m);

/* The time between two looks may be another one from now on. */
void manager_fit_tick(Manager *m);

/* The committed configuration is another one: what depends on it follows. */
void manager_config_changed(Manager *m);

/* How many workers the configuration wants. */
unsigned manager_wanted_workers(const Config *c);

/* spare.c */

/* Starts the spares that are missing, when the app is well otherwise, and ends those that are too many or
 * too old. */
void spares_keep(Manager *m);

/* One that waits, in the slot from now on; NULL: there is none. */
Worker *spares_take(Manager *m, unsigned slot);

/* @w, a spare, has ended. */
void spares_lost(Manager *m, const Worker *w);

/* All of them end. */
void spares_end(Manager *m);

/* reload.c */

/* Begins a reload, or has one follow the one under way. */
void reload_request(Manager *m);

/* The same for somebody who waits for its outcome. */
void reload_request_by(Manager *m, ControlRequest *request);

/* A worker of the generation coming up is ready, or has ended or wants to, for m->failure. */
void reload_on_ready(Manager *m);
void reload_on_lost(Manager *m);

/* All agents that it needs are ready. */
void reload_on_agents_ready(Manager *m);

/* There will be none, as the master stops; whoever waits is told. */
void reload_cancel(Manager *m);

/* commands.c */

/* Takes the control socket, if there is one, from the listeners. Returns 0 or a negative errno. */
int commands_init(Manager *m);

/* health.c */

/* How often health_look() wants to be called; USEC_INFINITY: not at all. */
uint64_t health_interval_usec(const Manager *m);

/* Looks for workers that hang or have reached a limit, and for an app without clients. @late: this process
 * did not run when it should have. */
void health_look(Manager *m, bool late);

/* @w, which is ready, hangs. */
void health_worker_hangs(Manager *m, Worker *w);

/* status.c */

unsigned status_count_ready(const Manager *m);
unsigned status_count_workers(const Manager *m);
uint64_t status_count_connections(const Manager *m);

/* "Stopping: 2 workers finish 7 connections", as far as they are known. */
void status_format_stopping(const Manager *m, char buf[static STATUS_MAX]);

/* Tells systemd what changed, `state` lines included. */
void status_notify(Manager *m, const char *state);

/* All of it as a JSON object. */
void status_write(const Manager *m, FILE *f);
