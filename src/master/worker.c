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
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "basic/clock.h"
#include "basic/fd.h"
#include "basic/log.h"
#include "basic/parse.h"
#include "basic/text.h"
#include "master/command.h"
#include "master/shell.h"
#include "master/worker-messages.h"
#include "muster/process.h"

/* The last part of a Node app's stop time-out, after the stop signal: for one whose connections do not end
 * by themselves. */
#define TERMINATE_USEC (5 * USEC_PER_SEC)

/* How long a Node app that has disconnected may take to end by itself, before it gets the stop signal. */
#define DISCONNECTED_USEC (1 * USEC_PER_SEC)

/* The same for one that has lost its channel unasked. */
#define LOST_CHANNEL_USEC (1 * USEC_PER_SEC)

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

        char name[WORKER_STRING_MAX];

        log_debug("%s (pid %d): %s -> %s", worker_to_subject(w, name), w->pid, worker_state_names[w->state],
                        worker_state_names[to]);
        w->state = to;
}

static void close_groups(Worker *w) {
        for (size_t i = 0; i < ELEMENTSOF(w->group_fds); i++)
                w->group_fds[i] = safe_close(w->group_fds[i]);
}

Worker *worker_free(Worker *w) {
        if (!w)
                return NULL;
        list_remove(&w->node);
        sd_event_source_disable_unref(w->deadline);
        sd_event_source_disable_unref(w->pause);
        cluster_worker_free(w->cluster);
        muster_child_unref(w->child);
        safe_close(w->error_fd);
        notify_inbox_free(w->inbox);
        close_groups(w);
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
        char buf[DURATION_STRING_MAX], name[WORKER_STRING_MAX];
        const char *agent = worker_get_agent(w);

        log_event(LOG_WARNING,
                        (.message_id = agent ? NULL : MESSAGE_ID_WORKER_KILLED, .worker = w->slot,
                                        .agent = agent, .worker_pid = w->pid, .generation = w->generation),
                        "%s (pid %d) %s within %s, killing it.", worker_to_subject(w, name), w->pid,
                        starting ? "did not get ready" : "did not finish",
                        duration_to_string(starting ? w->start_timeout_usec : w->stop_timeout_usec, buf));
}

static uint64_t terminate_timeout_usec(const Worker *w) {
        return MIN(w->stop_timeout_usec / 4, TERMINATE_USEC);
}

/* A Node app that was told by its channel has not ended: its connections stay, or something else keeps it.
 */
static void worker_terminate(Worker *w) {
        w->terminated = true;
        (void) muster_child_kill(w->child, w->stop_signal);
        worker_set_deadline(w, terminate_timeout_usec(w));
}

/* What may be the matter with a Node app that does not become ready. */
static const char *start_hint(const Worker *w) {
        if (!w->cluster || w->wait_ready)
                return "";
        return cluster_worker_has_sockets(w->cluster) ? ""
               : cluster_worker_is_online(w->cluster)
                               ? " (it has come up, but does not listen through Node's cluster: "
                                 "is app.command a wrapper, such as npm, or does it listen with exclusive or reusePort?)"
                               : " (it has not come up as a worker of Node's cluster: is app.command Node?)";
}

static void start_is_over(Worker *w) {
        /* It has spoken in time and the bell is on its way: it is the master who was late (stopped, swapped
         * out). */
        if (worker_has_spoken(w))
                worker_set_deadline(w, w->start_timeout_usec);
        else if (w->start_grace_usec != USEC_INFINITY)
                w->environment->handlers.ready(w, w->environment->userdata);
        else {
                snprintf(w->failure, sizeof(w->failure), "%s", start_hint(w));
                log_killing(w);
                worker_kill(w, WORKER_KILL_START_TIMEOUT);
        }
}

static int on_deadline(sd_event_source *source, uint64_t usec, void *userdata) {
        Worker *w = userdata;

        if (w->kill == WORKER_KILL_WATCHDOG)
                worker_kill(w, WORKER_KILL_WATCHDOG);
        else if (w->lost_channel && w->state != WORKER_RETIRING)
                w->environment->handlers.stops(w, w->environment->userdata);
        else if (w->state == WORKER_STARTING)
                start_is_over(w);
        else if (w->cluster && !w->terminated)
                worker_terminate(w);
        else {
                log_killing(w);
                worker_kill(w, WORKER_KILL_STOP_TIMEOUT);
        }
        return 0;
}

/* A deadline that cannot be set is no reason to give the worker up. */
static void worker_set_deadline(Worker *w, uint64_t timeout_usec) {
        char name[WORKER_STRING_MAX];
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
                log_warning_errno(r, "Failed to set a deadline for %s: %m", worker_to_string(w, name));
}

void worker_extend_deadline(Worker *w, uint64_t usec) {
        if (w->deadline && w->kill == WORKER_KILL_NONE && clock_now_usec() + usec > w->deadline_usec)
                worker_set_deadline(w, usec);
}

/* Why it could not be executed, if that is so. */
static void worker_read_error(Worker *w) {
        ssize_t n;

        if (w->error_fd < 0)
                return;
        if (!*w->failure) { /* else it was executed, and found to be unfit */
                n = read(w->error_fd, w->failure, sizeof(w->failure) - 1);
                w->failure[MAX(n, (ssize_t) 0)] = '\0';
                text_make_printable(w->failure);
        }
        w->error_fd = safe_close(w->error_fd);
}

static void explain_shell(const Worker *w, const char *is, const char *shell) {
        log_event(LOG_WARNING, (.worker = w->slot, .worker_pid = w->pid, .generation = w->generation),
                        "Worker %u (pid %d) %s a shell%s, which has LISTEN_PID for itself: what it starts does not find its sockets. "
                        "Let it \"exec\" the program, or do without it.",
                        w->slot, w->pid, is, shell);
}

/* One that is there though it is ready has not made place for the program. */
static void look_for_shell(const Worker *w) {
        char shell[128], name[sizeof(shell) + 2];

        if (w->kind != APP_PROGRAM || *w->agent || !shell_is_in_front(w->pid, shell, sizeof(shell)))
                return;
        snprintf(name, sizeof(name), ", %s", shell);
        explain_shell(w, "is", name);
}

static void on_exit_of_child(muster_child *child, int code, int status, void *userdata) {
        Worker *w = userdata;

        worker_look_at_twin(w);
        /* Its last words: what it has asked for, and which connections it has taken. */
        if (w->inbox)
                notify_inbox_read_rest(w->inbox);
        (void) muster_channel_receive_pending(muster_child_get_channel(child));
        worker_set_deadline(w, USEC_INFINITY);
        (void) muster_child_get_usage(child, &w->usage);
        worker_read_error(w);
        w->cluster = cluster_worker_free(w->cluster); /* what it has not taken goes to its siblings */
        w->out_of_memory = code != CLD_EXITED && status == SIGKILL && w->kill == WORKER_KILL_NONE &&
                           w->cgroup && cgroup_get_oom_kills(w->cgroup) > w->twin.oom_kills;
        w->exit_code = code;
        w->exit_status = status;
        w->exited_usec = clock_now_usec();
        if (w->is_shell && w->state == WORKER_STARTING)
                explain_shell(w, "was", "");
        worker_set_state(w, WORKER_EXITED);
        w->environment->handlers.exited(w, w->environment->userdata);
}

/* It needs none, and has none, where it is alone. */
static unsigned n_inboxes(const Worker *w) {
        return app_kind_is_native(w->kind) ? w->environment->inboxes->n : 0;
}

/* The descriptors by kind, as command.h says. @error_fd: where the child tells that it cannot execute the
 * program. */
static size_t fill_stdio(const Worker *w, int error_fd, muster_stdio *stdio) {
        const WorkerEnvironment *e = w->environment;
        size_t n = 0;

        stdio[n++].kind = MUSTER_STDIO_IGNORE;
        stdio[n++].kind = MUSTER_STDIO_INHERIT;
        stdio[n++].kind = MUSTER_STDIO_INHERIT;
        for (size_t i = 0; i < e->listeners->n && w->kind != APP_NODE; i++)
                stdio[n++] = (muster_stdio){ MUSTER_STDIO_FD, e->listeners->items[i].fd };
        if (app_kind_is_native(w->kind)) {
                stdio[n++] = (muster_stdio){ MUSTER_STDIO_FD, e->board->fd };
                stdio[n++] = (muster_stdio){ MUSTER_STDIO_FD, e->board->bell_fd };
        } else
                stdio[n++] = (muster_stdio){ MUSTER_STDIO_FD, error_fd };
        stdio[n++].kind = MUSTER_STDIO_IPC;
        for (unsigned i = 0; i < n_inboxes(w) * 2; i++)
                stdio[n++] = (muster_stdio){ MUSTER_STDIO_FD, e->inboxes->fds[i] };
        for (size_t i = 0; i < ELEMENTSOF(w->group_fds) && w->group_fds[i] >= 0; i++)
                stdio[n++] = (muster_stdio){ MUSTER_STDIO_FD, w->group_fds[i] };
        return n;
}

static int spawn_with(Worker *w, muster_spawn_options *options) {
        int r;

        if (w->cgroup && w->environment->born_in_cgroup) {
                options->flags |= MUSTER_SPAWN_SET_CGROUP;
                options->cgroup_fd = cgroup_fd(w->cgroup);
                r = muster_spawn(/* event= */ NULL, options, on_exit_of_child, w, &w->child);
                if (r >= 0)
                        return r;
                /* It may be the group and not the program; without one it is tried as everywhere else. */
                w->cgroup = cgroup_free(w->cgroup);
                options->flags &= ~MUSTER_SPAWN_SET_CGROUP;
        }
        return muster_spawn(/* event= */ NULL, options, on_exit_of_child, w, &w->child);
}

static int spawn(Worker *w, const Command *command) {
        muster_channel_options channel = MUSTER_CHANNEL_OPTIONS_INIT;
        _cleanup_close_ int error_fd = -EBADF;
        _cleanup_free_ muster_stdio *stdio = NULL;
        int pipe_fds[2];

        channel.max_message_bytes = WORKER_MESSAGE_MAX;
        /* Behind what others have sent it there is room for what the master has to say. */
        channel.max_queue_bytes = FORWARD_QUEUE_MAX + WORKER_MESSAGE_MAX;
        channel.flags = w->cluster ? MUSTER_CHANNEL_INTERNAL : 0;
        stdio = calloc(3 + w->environment->listeners->n + 3 + 2 * n_inboxes(w) + ELEMENTSOF(w->group_fds),
                        sizeof(*stdio));
        if (!stdio)
                return -ENOMEM;
        if (!app_kind_is_native(w->kind)) {
                if (pipe2(pipe_fds, O_CLOEXEC | O_NONBLOCK) < 0)
                        return -errno;
                w->error_fd = pipe_fds[0];
                error_fd = pipe_fds[1];
        }

        muster_spawn_options options = MUSTER_SPAWN_OPTIONS_INIT;
        options.program = command->program;
        options.argv = command->argv;
        options.env = command->env;
        options.stdio = stdio;
        options.n_stdio = fill_stdio(w, error_fd, stdio);
        options.channel = &channel;
        options.flags = MUSTER_SPAWN_DIE_WITH_PARENT | MUSTER_SPAWN_PROCESS_GROUP;
        return spawn_with(w, &options);
}

static void add_cgroup(Worker *w) {
        char name[WORKER_STRING_MAX];
        int r;

        r = *w->agent ? cgroup_new_for_agent(w->environment->cgroups, w->agent, &w->cgroup)
                      : cgroup_new(w->environment->cgroups, w->slot, &w->cgroup);
        if (r < 0) {
                log_warning_errno(r, "Failed to make a control group for %s: %m", worker_to_string(w, name));
                return;
        }
        if (!w->twin.enabled)
                return;
        r = cgroup_make_pair(w->cgroup, w->group_fds);
        if (r < 0)
                log_warning_errno(r,
                                "Failed to make control groups for worker %u and its twin, they share one: %m",
                                w->slot);
}

/* What a worker can do without. */
static void worker_add_extras(Worker *w) {
        const WorkerEnvironment *e = w->environment;
        char name[WORKER_STRING_MAX];
        int r;

        if (e->notify) {
                r = notify_inbox_new(e->notify, w->slot, &w->inbox);
                if (r >= 0 && *w->agent)
                        r = notify_inbox_set_agent(w->inbox, w->agent);
                if (r < 0)
                        log_warning_errno(r, "Failed to make a NOTIFY_SOCKET for %s: %m",
                                        worker_to_string(w, name));
        }
        if (e->cgroups)
                add_cgroup(w);
}

static uint32_t random_number(void) {
        uint32_t v = 0;

        (void) !getrandom(&v, sizeof(v), GRND_NONBLOCK); /* early in the boot: 0 will do */
        return v;
}

/* What it gets by itself is for all its life, whatever is configured later. */
static bool is_passed(const Config *config) {
        return config->workers_balance != BALANCE_INHERIT;
}

static void worker_init(Worker *w, const Config *config) {
        bool may_be_silent = config->app_kind == APP_PROGRAM && !config->workers_wait_ready;

        w->start_timeout_usec = config->workers_start_timeout_usec;
        w->stop_timeout_usec = config->workers_stop_timeout_usec;
        w->start_grace_usec = may_be_silent ? config->workers_start_grace_usec : USEC_INFINITY;
        w->stop_signal = app_kind_is_native(config->app_kind) ? SIGTERM : config->workers_stop_signal;
        w->wait_ready = config->workers_wait_ready;
        w->is_shell = config->app_kind == APP_PROGRAM && !config->agent_name &&
                      shell_is_name(config->app_command[0]); /* an agent has no sockets that it could miss */
        w->twin.enabled = config->workers_twin;
        w->watchdog_usec = config->workers_watchdog_usec;
        w->max_memory_bytes = limit_with_jitter(
                        config->workers_max_memory_bytes, config->workers_jitter_percent, random_number());
        w->max_age_usec = limit_with_jitter(
                        config->workers_max_age_usec, config->workers_jitter_percent, random_number());
}

static int worker_new(const WorkerEnvironment *environment, const Config *config, const WorkerPlace *place,
                Worker **ret) {
        _cleanup_(worker_freep) Worker *w = calloc(1, sizeof(*w));
        int r;

        if (!w)
                return -ENOMEM;
        *w = (Worker){
                .kind = config->app_kind,
                .slot = place->slot,
                .instance = place->instance,
                .generation = place->generation,
                .started_usec = clock_now_usec(),
                .cell_index = place->cell_index,
                .cell = environment->board->cells + place->cell_index,
                .environment = environment,
                .error_fd = -EBADF,
                .group_fds = { -EBADF, -EBADF },
        };
        w->id = (WorkerId){ .slot = w->slot, .started_usec = w->started_usec };
        if (config->agent_name)
                snprintf(w->agent, sizeof(w->agent), "%s", config->agent_name);
        list_init(&w->node);
        worker_init(w, config);
        if (w->kind == APP_NODE) {
                r = cluster_worker_new(
                                environment->cluster, w->slot, is_passed(config), w->slot == 0, &w->cluster);
                if (r < 0)
                        return r;
        }
        *ret = TAKE_PTR(w);
        return 0;
}

static int make_command(const Worker *w, const Config *config, const WorkerPlace *place, Command **ret,
                char **ret_error) {
        const WorkerEnvironment *e = w->environment;
        char mark[64];

        snprintf(mark, sizeof(mark), WORKER_ENV_ID "=%d.%u.%" PRIu64, getpid(), w->id.slot,
                        w->id.started_usec);
        CommandIdentity identity = {
                .app = e->app,
                .agent = worker_get_agent(w),
                .slot = w->slot,
                .unique_id = place->number,
                .instance = w->instance,
                .generation = w->generation,
                .n_sockets = e->listeners->n,
                .socket_names = e->listeners->names,
                .n_inboxes = n_inboxes(w),
                .has_twin_groups = w->group_fds[0] >= 0,
                .board_cell = w->cell_index,
                .mark = mark,
                .notify_socket = w->inbox ? notify_inbox_get_path(w->inbox) : NULL,
                .watchdog_usec = w->watchdog_usec,
                .max_requests = limit_with_jitter(config->workers_max_requests,
                                config->workers_jitter_percent, random_number()),
        };
        return command_new(config, &identity, ret, ret_error);
}

int worker_start(const WorkerEnvironment *environment, const Config *config, const WorkerPlace *place,
                Worker **ret, char **ret_error) {
        _cleanup_(command_freep) Command *command = NULL;
        _cleanup_(worker_freep) Worker *w = NULL;
        int r;

        r = worker_new(environment, config, place, &w);
        if (r < 0)
                return r;
        worker_add_extras(w);
        board_cell_reset(w->cell);
        r = make_command(w, config, place, &command, ret_error);
        if (r != 0)
                return r == COMMAND_INVALID ? WORKER_INVALID : r;
        r = spawn(w, command);
        if (r < 0)
                return r;

        close_groups(w);
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
        worker_set_deadline(w, MIN(w->start_timeout_usec, w->start_grace_usec));
        return 0;
}

void worker_take_slot(Worker *w, unsigned slot) {
        assert(w->waits);
        w->waits = false;
        w->slot = slot;
        if (w->inbox)
                notify_inbox_set_slot(w->inbox, slot);
        worker_set_deadline(w, w->start_timeout_usec);
        cluster_worker_release(w->cluster, slot);
        if (!w->wait_ready)
                cluster_worker_expect_ready(w->cluster);
}

void worker_set_waiting(Worker *w) {
        if (w->waits || w->state != WORKER_STARTING)
                return;
        w->waits = true;
        worker_set_deadline(w, USEC_INFINITY);
        w->environment->handlers.waits(w, w->environment->userdata);
}

void worker_set_ready(Worker *w) {
        if (w->cgroup && !w->environment->born_in_cgroup)
                (void) cgroup_add(w->cgroup, w->pid); /* ESRCH: its exit is on the way to us */
        worker_set_state(w, WORKER_READY);
        worker_set_deadline(w, USEC_INFINITY);
        w->error_fd = safe_close(w->error_fd);
        if (w->cluster)
                cluster_worker_set_ready(w->cluster);
        look_for_shell(w);
        /* How long its start took is no silence. */
        if (w->alive_usec > 0)
                w->alive_usec = clock_now_usec();
}

void worker_set_retiring(Worker *w) {
        worker_set_state(w, WORKER_RETIRING);
        w->retired = true;
        if (!w->cluster) {
                worker_set_deadline(w, w->stop_timeout_usec);
                return;
        }
        cluster_worker_close(w->cluster);
        worker_set_deadline(w, w->lost_channel ? DISCONNECTED_USEC
                                               : w->stop_timeout_usec - terminate_timeout_usec(w));
}

void worker_channel_lost(Worker *w) {
        w->lost_channel = true;
        if (w->state == WORKER_RETIRING && !w->terminated && w->kill == WORKER_KILL_NONE)
                worker_set_deadline(w, MIN(DISCONNECTED_USEC, w->stop_timeout_usec / 2));
        else if (w->state == WORKER_STARTING || w->state == WORKER_READY)
                worker_set_deadline(w, LOST_CHANNEL_USEC);
}

void worker_unfit(Worker *w, const char *why) {
        snprintf(w->failure, sizeof(w->failure), "%s", why);
        worker_kill(w, WORKER_KILL_UNFIT);
}

void worker_retire(Worker *w) {
        if (w->state == WORKER_RETIRING || w->state == WORKER_EXITED)
                return;
        if (w->cluster)
                cluster_worker_disconnect(w->cluster);
        else
                (void) muster_child_kill(w->child, w->stop_signal); /* ESRCH: its exit is on the way to us */
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
        if (w->twin.aborted) { /* that had its time, and nobody has come to take over */
                worker_kill(w, WORKER_KILL_WATCHDOG);
                return;
        }
        w->kill = WORKER_KILL_WATCHDOG;
        worker_set_deadline(w, WORKER_ABORT_TIMEOUT_USEC);
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

/* Whether it may have accepted a connection already, though it is not ready. */
static bool may_have_clients(Worker *w) {
        switch (w->kind) {
        case APP_STATIC:
        case APP_MODULE:
                return !board_cell_dismiss(w->cell);
        case APP_NODE:
                return cluster_worker_has_shared(w->cluster);
        default:
                return true;
        }
}

void worker_abandon(Worker *w) {
        if (w->state == WORKER_STARTING && !may_have_clients(w))
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
        return w->id;
}

const char *worker_get_agent(const Worker *w) {
        return *w->agent ? w->agent : NULL;
}

const char *worker_to_string(const Worker *w, char buf[static WORKER_STRING_MAX]) {
        if (*w->agent)
                snprintf(buf, WORKER_STRING_MAX, "agent %s", w->agent);
        else
                snprintf(buf, WORKER_STRING_MAX, "worker %u", w->slot);
        return buf;
}

const char *worker_to_subject(const Worker *w, char buf[static WORKER_STRING_MAX]) {
        (void) worker_to_string(w, buf);
        buf[0] = *w->agent ? 'A' : 'W';
        return buf;
}

bool worker_id_from_variable(const char *variable, pid_t master, WorkerId *ret) {
        WorkerId id;
        int its_master, n = 0;

        if (sscanf(variable, WORKER_ENV_ID "=%d.%u.%" SCNu64 "%n", &its_master, &id.slot, &id.started_usec,
                            &n) != 3 ||
                        variable[n] || its_master != master || id.started_usec == 0)
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

static const char *out_of_memory_to_string(char buf[static WORKER_EXIT_STRING_MAX]) {
        return strcpy(buf, "was killed for want of memory (by the OOM killer)");
}

static const char *end_to_string(
                int code, int status, const char *reason, char buf[static WORKER_EXIT_STRING_MAX]) {
        const char *name = code == CLD_EXITED ? NULL : sigabbrev_np(status);

        if (code == CLD_EXITED)
                snprintf(buf, WORKER_EXIT_STRING_MAX, "exited with status %d%s%s", status,
                                *reason ? ": " : "", reason);
        else
                snprintf(buf, WORKER_EXIT_STRING_MAX, "was killed by signal %d%s%s%s%s%s", status,
                                name ? ", SIG" : "", name ? name : "",
                                code == CLD_DUMPED ? ", and dumped core" : "", *reason ? ": " : "", reason);
        return buf;
}

const char *worker_exit_to_string(const Worker *w, char buf[static WORKER_EXIT_STRING_MAX]) {
        char reason[BOARD_REASON_SIZE], timeout[DURATION_STRING_MAX], hang[WORKER_HANG_STRING_MAX];

        board_cell_get_reason(w->cell, reason);
        switch (w->kill) {
        case WORKER_KILL_START_TIMEOUT:
                snprintf(buf, WORKER_EXIT_STRING_MAX, "was killed: not ready within %s%s",
                                duration_to_string(w->start_timeout_usec, timeout), w->failure);
                return buf;
        case WORKER_KILL_UNFIT:
                snprintf(buf, WORKER_EXIT_STRING_MAX, "was killed: %s", w->failure);
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

        if (*w->failure) {
                snprintf(buf, WORKER_EXIT_STRING_MAX, "could not be started: %s", w->failure);
                return buf;
        }
        if (!*reason && w->error > 0)
                snprintf(reason, sizeof(reason), "%s", strerror(w->error));
        if (w->out_of_memory)
                return out_of_memory_to_string(buf);
        if (w->exit_code != CLD_EXITED)
                board_cell_get_reason(w->cell, reason); /* its last words, if it was given the time */
        return end_to_string(w->exit_code, w->exit_status, reason, buf);
}

const char *worker_death_to_string(
                const Worker *w, const WorkerDeath *d, char buf[static WORKER_EXIT_STRING_MAX]) {
        char hang[WORKER_HANG_STRING_MAX];

        if (d->hung)
                snprintf(buf, WORKER_EXIT_STRING_MAX, "was killed: it %s", worker_hang_to_string(w, hang));
        else if (d->out_of_memory)
                (void) out_of_memory_to_string(buf);
        else
                (void) end_to_string(d->code, d->status, d->reason, buf);
        snprintf(buf + strlen(buf), WORKER_EXIT_STRING_MAX - strlen(buf), "; taken over");
        return buf;
}
