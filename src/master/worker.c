/* SPDX-License-Identifier: MIT */
/* A worker process; see worker.h. */

#include "master/worker.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/wait.h>
#include <unistd.h>

#include "basic/clock.h"
#include "basic/fd.h"
#include "basic/log.h"
#include "basic/parse.h"
#include "basic/text.h"
#include "master/command.h"
#include "master/worker-messages.h"
#include "muster/process.h"

/* From SIGABRT to SIGKILL: time to write a core dump. */
#define ABORT_TIMEOUT_USEC (5 * USEC_PER_SEC)

/* Row: from; bits: to. EXITED is final: the slot gets a new worker. */
static const uint8_t worker_edges[_WORKER_STATE_MAX] = {
        [WORKER_STARTING] = 1 << WORKER_READY | 1 << WORKER_RETIRING | 1 << WORKER_EXITED,
        [WORKER_READY] = 1 << WORKER_RETIRING | 1 << WORKER_EXITED,
        [WORKER_RETIRING] = 1 << WORKER_EXITED,
};

static const char *const worker_state_names[_WORKER_STATE_MAX] = {
        [WORKER_STARTING] = "starting",
        [WORKER_READY] = "ready",
        [WORKER_RETIRING] = "retiring",
        [WORKER_EXITED] = "exited",
};

static void worker_set_state(Worker *w, WorkerState to) {
        assert(worker_edges[w->state] & (1 << to));

        log_debug("Worker %u (pid %d): %s -> %s", w->slot, w->pid, worker_state_names[w->state],
                        worker_state_names[to]);
        w->state = to;
}

Worker *worker_free(Worker *w) {
        if (!w)
                return NULL;
        list_remove(&w->node);
        sd_event_source_disable_unref(w->deadline);
        muster_child_unref(w->child);
        notify_inbox_free(w->inbox);
        cgroup_free(w->cgroup);
        free(w);
        return NULL;
}

DEFINE_CLEANUP(Worker, worker_free)

bool worker_has_spoken(const Worker *w) {
        uint32_t state = atomic_load_explicit(&w->cell->state, memory_order_acquire);

        return state >= BOARD_READY && state <= BOARD_LEAVING;
}

static void worker_set_deadline(Worker *w, uint64_t timeout_usec);

static void log_killing(const Worker *w) {
        bool starting = w->state == WORKER_STARTING;
        char buf[DURATION_STRING_MAX];

        log_event(LOG_WARNING,
                        (.message_id = MESSAGE_ID_WORKER_KILLED, .worker = w->slot, .worker_pid = w->pid,
                                        .generation = w->generation),
                        "Worker %u (pid %d) %s within %s, killing it.", w->slot, w->pid,
                        starting ? "did not get ready" : "did not finish",
                        duration_to_string(starting ? w->start_timeout_usec : w->stop_timeout_usec, buf));
}

static int on_deadline(sd_event_source *source, uint64_t usec, void *userdata) {
        Worker *w = userdata;
        bool starting = w->state == WORKER_STARTING;

        /* It has spoken in time and the bell is on its way: it is the master who was late (stopped, swapped
         * out). */
        if (starting && worker_has_spoken(w)) {
                worker_set_deadline(w, w->start_timeout_usec);
                return 0;
        }
        if (w->kill == WORKER_KILL_WATCHDOG) {
                worker_kill(w, WORKER_KILL_WATCHDOG);
                return 0;
        }
        log_killing(w);
        worker_kill(w, starting ? WORKER_KILL_START_TIMEOUT : WORKER_KILL_STOP_TIMEOUT);
        return 0;
}

/* A deadline that cannot be set is no reason to give the worker up. */
static void worker_set_deadline(Worker *w, uint64_t timeout_usec) {
        int r;

        w->deadline = sd_event_source_disable_unref(w->deadline);
        if (timeout_usec == USEC_INFINITY)
                return;
        w->deadline_usec = clock_now_usec() + timeout_usec;
        r = sd_event_add_time_relative(w->environment->event, &w->deadline, CLOCK_MONOTONIC, timeout_usec,
                        clock_accuracy_usec(timeout_usec), on_deadline, w);
        /* After its end and all that it said: when the master was late (stopped, swapped out), these are due
         * together. */
        if (r >= 0)
                r = sd_event_source_set_priority(w->deadline, SD_EVENT_PRIORITY_IDLE);
        if (r < 0)
                log_warning_errno(r, "Failed to set a deadline for worker %u: %m", w->slot);
}

void worker_extend_deadline(Worker *w, uint64_t usec) {
        if (w->deadline && w->kill == WORKER_KILL_NONE && clock_now_usec() + usec > w->deadline_usec)
                worker_set_deadline(w, usec);
}

static void on_exit_of_child(muster_child *child, int code, int status, void *userdata) {
        Worker *w = userdata;

        if (w->inbox)
                notify_inbox_read_rest(w->inbox); /* its last words */
        worker_set_deadline(w, USEC_INFINITY);
        (void) muster_child_get_usage(child, &w->usage);
        w->out_of_memory = code != CLD_EXITED && status == SIGKILL && w->kill == WORKER_KILL_NONE &&
                           w->cgroup && cgroup_get_oom_kills(w->cgroup) > 0;
        w->exit_code = code;
        w->exit_status = status;
        w->exited_usec = clock_now_usec();
        worker_set_state(w, WORKER_EXITED);
        w->environment->handlers.exited(w, w->environment->userdata);
}

static int spawn(Worker *w, const Command *command) {
        const WorkerEnvironment *e = w->environment;
        size_t n = 0, n_stdio = 3 + e->listeners->n + 3;
        muster_channel_options channel = MUSTER_CHANNEL_OPTIONS_INIT;
        _cleanup_free_ muster_stdio *stdio = NULL;
        int r;

        channel.max_message_bytes = channel.max_queue_bytes = WORKER_MESSAGE_MAX;
        stdio = calloc(n_stdio, sizeof(*stdio));
        if (!stdio)
                return -ENOMEM;
        stdio[n++].kind = MUSTER_STDIO_IGNORE;
        stdio[n++].kind = MUSTER_STDIO_INHERIT;
        stdio[n++].kind = MUSTER_STDIO_INHERIT;
        for (size_t i = 0; i < e->listeners->n; i++)
                stdio[n++] = (muster_stdio){ MUSTER_STDIO_FD, e->listeners->items[i].fd };
        stdio[n++] = (muster_stdio){ MUSTER_STDIO_FD, e->board->fd };
        stdio[n++] = (muster_stdio){ MUSTER_STDIO_FD, e->board->bell_fd };
        stdio[n++].kind = MUSTER_STDIO_IPC;
        assert(n == n_stdio);

        muster_spawn_options options = MUSTER_SPAWN_OPTIONS_INIT;
        options.program = command->program;
        options.argv = command->argv;
        options.env = command->env;
        options.stdio = stdio;
        options.n_stdio = n_stdio;
        options.channel = &channel;
        options.flags = MUSTER_SPAWN_DIE_WITH_PARENT | MUSTER_SPAWN_PROCESS_GROUP;
        if (w->cgroup && e->born_in_cgroup) {
                options.flags |= MUSTER_SPAWN_SET_CGROUP;
                options.cgroup_fd = cgroup_fd(w->cgroup);
                r = muster_spawn(/* event= */ NULL, &options, on_exit_of_child, w, &w->child);
                if (r >= 0)
                        return r;
                /* It may be the group and not the program; without one it is tried as everywhere else. */
                w->cgroup = cgroup_free(w->cgroup);
                options.flags &= ~MUSTER_SPAWN_SET_CGROUP;
        }
        return muster_spawn(/* event= */ NULL, &options, on_exit_of_child, w, &w->child);
}

/* What a worker can do without. */
static void worker_add_extras(Worker *w) {
        const WorkerEnvironment *e = w->environment;
        int r;

        if (e->notify) {
                r = notify_inbox_new(e->notify, w->slot, &w->inbox);
                if (r < 0)
                        log_warning_errno(r, "Failed to make a NOTIFY_SOCKET for worker %u: %m", w->slot);
        }
        if (e->cgroups) {
                r = cgroup_new(e->cgroups, w->slot, &w->cgroup);
                if (r < 0)
                        log_warning_errno(r, "Failed to make a control group for worker %u: %m", w->slot);
        }
}

static uint32_t random_number(void) {
        uint32_t v = 0;

        (void) !getrandom(&v, sizeof(v), GRND_NONBLOCK); /* early in the boot: 0 will do */
        return v;
}

static void worker_init(Worker *w, const Config *config) {
        w->start_timeout_usec = config->workers_start_timeout_usec;
        w->stop_timeout_usec = config->workers_stop_timeout_usec;
        w->watchdog_usec = config->workers_watchdog_usec;
        w->max_memory_bytes = limit_with_jitter(
                        config->workers_max_memory_bytes, config->workers_jitter_percent, random_number());
        w->max_age_usec = limit_with_jitter(
                        config->workers_max_age_usec, config->workers_jitter_percent, random_number());
}

int worker_start(const WorkerEnvironment *environment, const Config *config, unsigned slot,
                uint64_t generation, unsigned cell_index, Worker **ret) {
        _cleanup_(command_freep) Command *command = NULL;
        _cleanup_free_ char *error = NULL;
        _cleanup_(worker_freep) Worker *w = NULL;
        char mark[64];
        int r;

        w = calloc(1, sizeof(*w));
        if (!w)
                return -ENOMEM;
        *w = (Worker){
                .slot = slot,
                .generation = generation,
                .started_usec = clock_now_usec(),
                .cell_index = cell_index,
                .cell = environment->board->cells + cell_index,
                .environment = environment,
        };
        list_init(&w->node);
        worker_init(w, config);
        worker_add_extras(w);
        board_cell_reset(w->cell);

        snprintf(mark, sizeof(mark), WORKER_ENV_ID "=%d.%u.%" PRIu64, getpid(), slot, w->started_usec);
        CommandIdentity identity = {
                .app = environment->app,
                .slot = slot,
                .generation = generation,
                .n_sockets = environment->listeners->n,
                .socket_names = environment->listeners->names,
                .board_cell = cell_index,
                .mark = mark,
                .notify_socket = w->inbox ? notify_inbox_get_path(w->inbox) : NULL,
                .watchdog_usec = w->watchdog_usec,
                .max_requests = limit_with_jitter(config->workers_max_requests,
                                config->workers_jitter_percent, random_number()),
        };
        r = command_new(config, &identity, &command, &error);
        if (r == COMMAND_INVALID) {
                log_error("%s", error);
                return -EINVAL;
        }
        if (r < 0)
                return r;
        r = spawn(w, command);
        if (r < 0)
                return r;

        w->pid = muster_child_get_pid(w->child);
        *ret = TAKE_PTR(w);
        return 0;
}

int worker_watch(Worker *w) {
        int r;

        r = worker_messages_attach(w);
        if (r >= 0)
                r = muster_child_attach(w->child, w->environment->event);
        if (r < 0) {
                /* Nobody would ever hear of it. */
                (void) muster_child_kill_group(w->child, SIGKILL);
                (void) waitid(P_PID, (id_t) w->pid, &(siginfo_t){ 0 }, WEXITED);
                return r;
        }
        worker_set_deadline(w, w->start_timeout_usec);
        return 0;
}

void worker_set_ready(Worker *w) {
        if (w->cgroup && !w->environment->born_in_cgroup)
                (void) cgroup_add(w->cgroup, w->pid); /* ESRCH: its exit is on the way to us */
        worker_set_state(w, WORKER_READY);
        worker_set_deadline(w, USEC_INFINITY);
        /* How long its start took is no silence. */
        if (w->alive_usec > 0)
                w->alive_usec = clock_now_usec();
}

void worker_set_retiring(Worker *w) {
        worker_set_state(w, WORKER_RETIRING);
        w->retired = true;
        worker_set_deadline(w, w->stop_timeout_usec);
}

void worker_retire(Worker *w) {
        if (w->state == WORKER_RETIRING || w->state == WORKER_EXITED)
                return;
        (void) muster_child_kill(w->child, SIGTERM); /* ESRCH: its exit is on the way to us */
        worker_set_retiring(w);
}

void worker_leave(Worker *w, WorkerLeave leave, const char *reason) {
        if (w->leave != WORKER_STAYS || w->state == WORKER_RETIRING || w->state == WORKER_EXITED)
                return;
        w->leave = leave;
        snprintf(w->reason, sizeof(w->reason), "%s", reason ? reason : "");
        text_make_printable(w->reason);
        w->environment->handlers.leaves(w, w->environment->userdata);
}

void worker_abort(Worker *w) {
        if (w->kill != WORKER_KILL_NONE || w->state == WORKER_EXITED)
                return;
        if (w->state != WORKER_RETIRING)
                worker_set_state(w, WORKER_RETIRING);
        w->kill = WORKER_KILL_WATCHDOG;
        worker_set_deadline(w, ABORT_TIMEOUT_USEC);
        (void) muster_child_kill(w->child, SIGABRT);
        (void) muster_child_kill(w->child, SIGCONT); /* one that is stopped gets it no earlier */
}

void worker_kill(Worker *w, WorkerKill why) {
        if (w->state == WORKER_EXITED)
                return;
        w->kill = why;
        if (w->state != WORKER_RETIRING)
                worker_set_state(w, WORKER_RETIRING);
        worker_set_deadline(w, USEC_INFINITY);
        (void) muster_child_kill(w->child, SIGKILL);
}

void worker_abandon(Worker *w) {
        if (w->state == WORKER_STARTING && board_cell_dismiss(w->cell))
                worker_kill(w, WORKER_KILL_ABANDONED);
        else
                worker_retire(w);
}

void worker_kill_rest(Worker *w) {
        if (w->cgroup)
                (void) cgroup_kill(w->cgroup);
        (void) muster_child_kill_group(w->child, SIGKILL);
}

WorkerId worker_get_id(const Worker *w) {
        return (WorkerId){ .slot = w->slot, .started_usec = w->started_usec };
}

bool worker_id_from_variable(const char *variable, pid_t master, WorkerId *ret) {
        WorkerId id;
        int its_master, n = 0;

        if (sscanf(variable, WORKER_ENV_ID "=%d.%u.%" SCNu64 "%n", &its_master, &id.slot, &id.started_usec,
                            &n) != 3 ||
                        variable[n] || its_master != master || id.slot == 0)
                return false;
        *ret = id;
        return true;
}

const char *worker_leave_to_string(const Worker *w) {
        static const char *const names[_WORKER_LEAVE_MAX] = {
                [WORKER_STAYS] = NULL,
                [WORKER_LEAVES_BY_REQUEST] = "it asked for that",
                [WORKER_LEAVES_FOR_REQUESTS] = "it has answered workers.max_requests",
                [WORKER_LEAVES_FOR_MEMORY] = "workers.max_memory",
                [WORKER_LEAVES_FOR_AGE] = "workers.max_age",
        };

        return w->leave != WORKER_STAYS && *w->reason ? w->reason : names[w->leave];
}

const char *worker_hang_to_string(const Worker *w, char buf[static WORKER_HANG_STRING_MAX]) {
        char watchdog[DURATION_STRING_MAX];

        if (w->triggered)
                snprintf(buf, WORKER_HANG_STRING_MAX, "said that it hangs");
        else
                snprintf(buf, WORKER_HANG_STRING_MAX, "did not react for %s",
                                duration_to_string(w->watchdog_usec, watchdog));
        return buf;
}

const char *worker_exit_to_string(const Worker *w, char buf[static WORKER_EXIT_STRING_MAX]) {
        char reason[BOARD_REASON_SIZE], timeout[DURATION_STRING_MAX], hang[WORKER_HANG_STRING_MAX];
        const char *name;

        board_cell_get_reason(w->cell, reason);
        switch (w->kill) {
        case WORKER_KILL_START_TIMEOUT:
                snprintf(buf, WORKER_EXIT_STRING_MAX, "was killed: not ready within %s",
                                duration_to_string(w->start_timeout_usec, timeout));
                return buf;
        case WORKER_KILL_STOP_TIMEOUT:
                snprintf(buf, WORKER_EXIT_STRING_MAX, "was killed: not finished within %s",
                                duration_to_string(w->stop_timeout_usec, timeout));
                return buf;
        case WORKER_KILL_WATCHDOG:
                snprintf(buf, WORKER_EXIT_STRING_MAX, "was killed: it %s", worker_hang_to_string(w, hang));
                return buf;
        case WORKER_KILL_ABANDONED:
                snprintf(buf, WORKER_EXIT_STRING_MAX, "was killed: not needed any more");
                return buf;
        case WORKER_KILL_NONE:
                break;
        }

        if (!*reason && w->error > 0)
                snprintf(reason, sizeof(reason), "%s", strerror(w->error));
        if (w->out_of_memory) {
                snprintf(buf, WORKER_EXIT_STRING_MAX, "was killed for want of memory (by the OOM killer)");
                return buf;
        }
        if (w->exit_code == CLD_EXITED) {
                snprintf(buf, WORKER_EXIT_STRING_MAX, "exited with status %d%s%s", w->exit_status,
                                *reason ? ": " : "", reason);
                return buf;
        }
        name = sigabbrev_np(w->exit_status);
        snprintf(buf, WORKER_EXIT_STRING_MAX, "was killed by signal %d%s%s%s", w->exit_status,
                        name ? ", SIG" : "", name ? name : "",
                        w->exit_code == CLD_DUMPED ? ", and dumped core" : "");
        return buf;
}
