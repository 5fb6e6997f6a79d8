/* SPDX-License-Identifier: MIT */
#pragma once

/* One worker process from its start to its end. It knows its own states and deadlines; what to do about them
 * is the manager's business, which hears of them by the handlers and reads the rest. */

#include <stdbool.h>
#include <stdint.h>
#include <sys/resource.h>
#include <sys/types.h>
#include <systemd/sd-event.h>

#include "basic/clock.h"
#include "basic/list.h"
#include "basic/parse.h"
#include "board/board.h"
#include "ipc/forward.h"
#include "master/cgroup.h"
#include "master/cluster.h"
#include "master/config.h"
#include "master/health-policy.h"
#include "master/inboxes.h"
#include "master/listener.h"
#include "master/notify-inbox.h"
#include "master/worker-twin.h"

typedef enum WorkerState {
        WORKER_STARTING, /* executed, not ready yet */
        WORKER_READY,    /* serves */
        WORKER_RETIRING, /* was told to go, or goes by itself, and finishes what is open */
        WORKER_EXITED,   /* reaped */
        _WORKER_STATE_MAX,
} WorkerState;

/* Why it is to be replaced: it serves on until its successor is ready. */
typedef enum WorkerLeave {
        WORKER_STAYS,
        WORKER_LEAVES_BY_REQUEST,   /* its own ("suicide") */
        WORKER_LEAVES_FOR_REQUESTS, /* the three limits */
        WORKER_LEAVES_FOR_MEMORY,
        WORKER_LEAVES_FOR_AGE,
        _WORKER_LEAVE_MAX,
} WorkerLeave;

/* Why the master killed it, if it did. */
typedef enum WorkerKill {
        WORKER_KILL_NONE,
        WORKER_KILL_START_TIMEOUT,
        WORKER_KILL_STOP_TIMEOUT,
        WORKER_KILL_WATCHDOG,
        WORKER_KILL_ABANDONED, /* it belongs to a start or a reload that failed */
        WORKER_KILL_UNFIT,     /* what was started is not what muster can run: w->reason */
} WorkerKill;

/* From SIGABRT to SIGKILL: time to write a core dump. */
#define WORKER_ABORT_TIMEOUT_USEC (5 * USEC_PER_SEC)

#define WORKER_TEXT_MAX    160
#define WORKER_FAILURE_MAX 256

typedef struct Worker Worker;

/* Tells one worker from every other, before and after, of the same master. */
typedef struct WorkerId {
        unsigned slot;         /* as of its start */
        uint64_t started_usec; /* 0: none */
} WorkerId;

/* Where a worker belongs. */
typedef struct WorkerPlace {
        unsigned slot;     /* 0: none yet, it is a spare */
        unsigned number;   /* its own alone */
        unsigned instance; /* its own among those that live: what an app takes to do something only once */
        uint64_t generation;
        unsigned cell_index; /* a free cell of the board, given back by the caller after worker_free() */
} WorkerPlace;

/* Every process that a worker starts has it in its environment, unless it was taken out. */
#define WORKER_ENV_ID "MUSTER_WORKER_ID"

/* Who is told, from the loop. All but `exited` leave the worker as it is: what follows is the manager's
 * decision. */
typedef struct WorkerHandlers {
        /* A starting worker says that it is ready. */
        void (*ready)(Worker *w, void *userdata);
        /* It is to be replaced: w->leave has just been set. Told once. */
        void (*leaves)(Worker *w, void *userdata);
        /* A spare has loaded the app, and waits for a place. */
        void (*waits)(Worker *w, void *userdata);
        /* It goes, without having been told and without waiting for a successor. */
        void (*stops)(Worker *w, void *userdata);
        /* Its start or its stop may take @usec from now. */
        void (*extends)(Worker *w, uint64_t usec, void *userdata);
        /* It says of itself that it hangs. */
        void (*hangs)(Worker *w, void *userdata);
        /* One that served has died, and its twin took over: the worker lives on. */
        void (*died)(Worker *w, const WorkerDeath *d, void *userdata);
        /* It has a message for others. */
        void (*forwards)(Worker *w, const Forward *f, void *userdata);
        /* It has something new to say: w->status or w->reloading. */
        void (*status)(Worker *w, void *userdata);
        /* Once, after the process was reaped and the state is WORKER_EXITED. The handler frees the worker.
         */
        void (*exited)(Worker *w, void *userdata);
} WorkerHandlers;

/* What all workers of an app share; borrowed. */
typedef struct WorkerEnvironment {
        sd_event *event;
        const char *app;
        const Listeners *listeners;
        Board *board;
        const Inboxes *inboxes; /* of native workers */
        Cluster *cluster;
        NotifyDirectory *notify; /* NULL: workers have no NOTIFY_SOCKET */
        Cgroups *cgroups;        /* NULL: and no control groups of their own */
        ForwardAccount *said;    /* by all of them, as a worker's own */
        bool born_in_cgroup;     /* else they are moved there when they are ready, as no client waits then */
        WorkerHandlers handlers;
        void *userdata;
} WorkerEnvironment;

struct Worker {
        List node; /* in the manager's list of all workers */
        AppKind kind;
        char agent[AGENT_NAME_MAX + 1]; /* "": it is no agent, but a worker */
        unsigned slot;                  /* 0: it is a spare, or an agent */
        WorkerId id;
        unsigned instance;
        uint64_t generation;
        WorkerState state;
        pid_t pid; /* with a twin: the keeper's */
        uint64_t started_usec;
        uint64_t exited_usec;
        unsigned cell_index;
        BoardCell *cell; /* borrowed from the board */
        bool retired;    /* it was told to go, or said that it goes: its end is no crash */
        WorkerLeave leave;
        WorkerKill kill;
        char failure[WORKER_FAILURE_MAX]; /* why it could not be started, or what may be the matter; "":
                                             nothing is known */
        char reason[WORKER_TEXT_MAX];     /* of its leaving, in its own words or ours; "": none given */
        char status[WORKER_TEXT_MAX];     /* what it said last about itself; "": nothing */
        bool reloading;                   /* as it says itself: RELOADING=1 (sd_notify(3)) */
        bool triggered;                   /* likewise WATCHDOG=trigger: that it hangs */
        int error;                        /* ERRNO=, likewise; 0: none */
        ForwardAccount said;              /* on its channel, and copied of that for others */
        sd_event_source *pause;           /* its channel is not read until then; NULL: it is */
        uint64_t n_lost;    /* messages of others that it did not get, as it did not read in time */
        uint64_t n_refused; /* messages of its own for others that were not passed on */
        uint64_t lost_logged_usec, refused_logged_usec, paused_logged_usec; /* 0: never */

        int exit_code; /* CLD_… */
        int exit_status;
        struct rusage usage; /* once it has ended; zero: not known */
        bool out_of_memory;  /* the OOM killer took it */

        const WorkerEnvironment *environment; /* borrowed */
        struct muster_child *child;
        ClusterWorker *cluster; /* of a Node app; else NULL */
        int error_fd;           /* where it tells that it cannot be executed; -EBADF once it is ready */
        NotifyInbox *inbox;     /* NULL: none */
        Cgroup *cgroup;         /* NULL: none */
        int group_fds[2];       /* of the groups for its two processes, until it is started; -EBADF: none */
        sd_event_source *deadline; /* of the start, the retirement or the abortion; NULL: there is none */
        uint64_t deadline_usec;
        uint64_t start_timeout_usec;
        uint64_t stop_timeout_usec;
        uint64_t start_grace_usec; /* of a program that need not say that it is ready; USEC_INFINITY: it must
                                    */
        int stop_signal;
        bool is_shell;     /* by its command; what it starts may not find its sockets */
        bool wait_ready;   /* of a Node app: that it listens is not enough */
        bool waits;        /* a spare that has loaded the app */
        bool lost_channel; /* of a Node app: it cannot be reached, and is about to end */
        bool terminated;   /* of a Node app: it was sent the stop signal, too */

        WorkerTwin twin;
        uint64_t watchdog_usec;    /* 0: none */
        Heartbeat heartbeat;       /* of a native worker */
        uint64_t alive_usec;       /* when another one last said WATCHDOG=1; 0: it never has */
        uint64_t max_memory_bytes; /* these with their jitter; 0: no limit */
        uint64_t max_age_usec;
};

/* Its command cannot be made: an outcome for the caller to report. */
#define WORKER_INVALID 1

/* Starts the process. Returns 0; WORKER_INVALID with a text for the user in @ret_error; or a negative errno,
 * execve(2)'s own when a native worker cannot be executed. No event loop is needed yet: until worker_watch()
 * the worker runs unwatched. */
int worker_start(const WorkerEnvironment *environment, const Config *config, const WorkerPlace *place,
                Worker **ret, char **ret_error);

/* Watches a started worker on the environment's loop: its exit, and that it gets ready in time. Returns 0 or
 * a negative errno; then the process is ended and reaped already. */
int worker_watch(Worker *w);

Worker *worker_free(Worker *w);

/* It said that it is ready. */
void worker_set_ready(Worker *w);

/* A spare has loaded the app, and stands in its first listen(). */
void worker_set_waiting(Worker *w);

/* A spare that waits gets a place, and goes on with its start. */
void worker_take_slot(Worker *w, unsigned slot);

/* A Node app's channel has ended; so it will, or it is ended. */
void worker_channel_lost(Worker *w);

/* It is nothing that can be run: @why, in words. It is killed. */
void worker_unfit(Worker *w, const char *why);

/* It goes by itself: same as retire, without telling it. */
void worker_set_retiring(Worker *w);

/* It is to be replaced, for @leave. @reason may be NULL. Does nothing when it leaves already, or retires. */
void worker_leave(Worker *w, WorkerLeave leave, const char *reason);

/* A native worker has changed something on the board. */
void worker_look_at_board(Worker *w);

/* Whether it has written on the board that it is ready, or was, whatever has been seen of that. */
bool worker_has_spoken(const Worker *w);

/* Asks it for a sign of life: every turn of a native worker's loop is one, and this wakes it up. */
void worker_probe(Worker *w);

/* Its current deadline, if there is one, is not before @usec from now. */
void worker_extend_deadline(Worker *w, uint64_t usec);

/* Tells it to finish what is open and exit; it is killed after the stop time-out. A worker that retires
 * already is not told twice. */
void worker_retire(Worker *w);

/* It is not needed: ends it at once, unless it may have taken clients; then it retires. */
void worker_abandon(Worker *w);

/* It hangs: SIGABRT, so that it leaves a core dump, and SIGKILL when that does not help. */
void worker_abort(Worker *w);

/* Ends it at once. */
void worker_kill(Worker *w, WorkerKill why);

/* Kills what is left of its control group, or of its process group; in the exit handler, before it is freed.
 */
void worker_kill_rest(Worker *w);

WorkerId worker_get_id(const Worker *w);

/* Its agent's name; NULL: it is a worker. */
const char *worker_get_agent(const Worker *w);

/* "worker 3" or "agent redis"; and the same for the beginning of a sentence. */
#define WORKER_STRING_MAX (AGENT_NAME_MAX + 16)
const char *worker_to_string(const Worker *w, char buf[static WORKER_STRING_MAX]);
const char *worker_to_subject(const Worker *w, char buf[static WORKER_STRING_MAX]);

/* Whether @variable ("NAME=value") names a worker of the master with the pid @master, and which. */
bool worker_id_from_variable(const char *variable, pid_t master, WorkerId *ret);

/* Why it leaves, for people; NULL: it does not. */
const char *worker_leave_to_string(const Worker *w);

/* In what it hangs, for people: "did not react for 10s". */
#define WORKER_HANG_STRING_MAX (DURATION_STRING_MAX + 32)
const char *worker_hang_to_string(const Worker *w, char buf[static WORKER_HANG_STRING_MAX]);

/* How it ended, for people: `exited with status 1: cannot open the directory "/srv"`. */
#define WORKER_EXIT_STRING_MAX 384
const char *worker_exit_to_string(const Worker *w, char buf[static WORKER_EXIT_STRING_MAX]);

/* The same of one of its processes that was taken over from. */
const char *worker_death_to_string(
                const Worker *w, const WorkerDeath *d, char buf[static WORKER_EXIT_STRING_MAX]);
