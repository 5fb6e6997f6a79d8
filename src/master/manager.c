/* SPDX-License-Identifier: MIT */
/* The master's life; see manager.h, and manager-internal.h for its parts.
 *
 * Once the service was ready the master never exits because of its app: a service that exits makes systemd
 * give up the socket in the end, and clients would be refused. It tries again with growing pauses instead.
 */

#include "master/manager.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <systemd/sd-event.h>

#include "basic/clock.h"
#include "basic/cpu.h"
#include "basic/descriptor-limit.h"
#include "basic/list.h"
#include "basic/log.h"
#include "basic/memory.h"
#include "board/board.h"
#include "master/forward.h"
#include "master/guard.h"
#include "master/manager-internal.h"
#include "master/notify.h"

/* STATUS is refreshed this often when there is no watchdog whose rhythm could be used. */
#define TICK_DEFAULT_USEC (5 * USEC_PER_SEC)

/* A worker gone mad may ring without end; this bounds what it costs. */
#define BELL_INTERVAL_USEC (100 * USEC_PER_MSEC)
#define BELL_BURST         20

/* How long the first worker has the machine for itself, before libsystemd is loaded for the event loop. */
#define FIRST_WORKER_MSEC 50

/* A worker takes five here: the channel, the pidfd, the NOTIFY_SOCKET, the cgroup and the watch of its
 * memory. */
#define DESCRIPTORS_WANTED (256 + 5 * BOARD_CELLS + 2 * BOARD_SEATS)

static const uint8_t manager_edges[_MANAGER_STATE_MAX] = {
        [MANAGER_STARTING] = 1 << MANAGER_RUNNING | 1 << MANAGER_STOPPING,
        [MANAGER_RUNNING] = 1 << MANAGER_RELOADING | 1 << MANAGER_STOPPING,
        [MANAGER_RELOADING] = 1 << MANAGER_RUNNING | 1 << MANAGER_STOPPING,
};

void manager_set_state(Manager *m, ManagerState to) {
        assert(manager_edges[m->state] & (1 << to));
        m->state = to;
}

/*
 * The tick
 */

static int tick_set(Manager *m) {
        int r;

        if (!m->tick)
                return 0;
        if (m->tick_usec == USEC_INFINITY)
                return sd_event_source_set_enabled(m->tick, SD_EVENT_OFF);
        /* Else it could be late by more than the time between two, of which health_look() is told. */
        r = sd_event_source_set_time_accuracy(m->tick, clock_accuracy_usec(m->tick_usec));
        if (r >= 0)
                r = sd_event_source_set_time_relative(m->tick, m->tick_usec);
        return r < 0 ? r : sd_event_source_set_enabled(m->tick, SD_EVENT_ONESHOT);
}

/* Everything periodic happens here, in one wake-up. */
static int on_tick(sd_event_source *source, uint64_t usec, void *userdata) {
        Manager *m = userdata;
        int r;

        notify_alive();
        orphans_look(m->orphans);
        if (m->environment.cgroups)
                cgroups_tidy(m->environment.cgroups);
        health_look(m, clock_now_usec() - usec > m->tick_usec);
        status_notify(m, "");
        r = tick_set(m);
        if (r < 0)
                log_error_errno(r, "Failed to set the timer of the watchdog: %m");
        return 0;
}

/* Half of the shortest time that somebody has set; without any, nobody is told anything and nothing is
 * periodic. */
static uint64_t tick_interval_usec(const Manager *m) {
        uint64_t usec = health_interval_usec(m);

        if (notify_enabled()) {
                usec = MIN(usec, TICK_DEFAULT_USEC);
                if (notify_watchdog_interval_usec() > 0)
                        usec = MIN(usec, notify_watchdog_interval_usec());
        }
        return usec;
}

static void warn_of_idle_exit(const Manager *m) {
        if (m->config->idle_exit_usec > 0 && !m->listeners.from_systemd)
                log_warning("%s: idle_exit is ignored: the sockets are not systemd's, so nobody would start the service again.",
                                m->config->path);
}

static void manager_apply_balance(Manager *m) {
        cluster_set_balance(m->environment.cluster, m->config->workers_balance,
                        m->config->workers_proxy_protocol);
}

void manager_fit_tick(Manager *m) {
        int r;

        m->tick_usec = tick_interval_usec(m);
        r = tick_set(m);
        if (r < 0)
                log_error_errno(r, "Failed to set the timer of the watchdog: %m");
}

void manager_config_changed(Manager *m) {
        warn_of_idle_exit(m);
        manager_apply_balance(m);
        manager_fit_tick(m);
}

static int manager_add_tick(Manager *m) {
        int r;

        m->tick_usec = tick_interval_usec(m);
        uint64_t usec = MIN(m->tick_usec, TICK_DEFAULT_USEC);
        r = sd_event_add_time_relative(
                        m->event, &m->tick, CLOCK_MONOTONIC, usec, clock_accuracy_usec(usec), on_tick, m);
        /* After all that workers have said meanwhile. */
        if (r >= 0)
                r = sd_event_source_set_priority(m->tick, SD_EVENT_PRIORITY_IDLE);
        return r < 0 ? r : tick_set(m);
}

/*
 * Slots and workers
 */

Slot *manager_slot(const Manager *m, unsigned id) {
        return id >= 1 && id <= m->n_slots ? m->slots[id - 1] : NULL;
}

int manager_add_slots(Manager *m, unsigned n) {
        if (n <= m->n_slots)
                return 0;

        Slot **slots = reallocarray(m->slots, n, sizeof(Slot *));
        if (!slots)
                return -ENOMEM;
        m->slots = slots;
        while (m->n_slots < n) {
                Slot *s = slot_new(m, m->n_slots + 1);
                if (!s)
                        return -ENOMEM;
                m->slots[m->n_slots++] = s;
        }
        return 0;
}

void manager_drop_slots(Manager *m, unsigned n) {
        while (m->n_slots > n) {
                Slot *s = m->slots[--m->n_slots];

                slot_retire(s);
                m->slots[m->n_slots] = slot_free(s);
        }
}

static int manager_take_cell(Manager *m, unsigned *ret) {
        for (unsigned i = 0; i < BOARD_CELLS; i++)
                if (!m->cell_used[i]) {
                        m->cell_used[i] = true;
                        *ret = i;
                        return 0;
                }
        return -ENOSPC;
}

/* One that hangs is alive, and has lost its place to its successor. */
static bool has_place(const Manager *m, const Worker *w) {
        return w->slot == 0 || (w->slot <= m->n_slots && slot_has_worker(m->slots[w->slot - 1], w));
}

static bool instance_is_used(const Manager *m, unsigned instance, uint64_t generation) {
        list_foreach (node, &m->workers) {
                const Worker *w = list_entry(node, Worker, node);

                if (w->instance == instance && w->generation == generation && w->leave == WORKER_STAYS &&
                                w->state != WORKER_RETIRING && w->state != WORKER_EXITED && has_place(m, w))
                        return true;
        }
        return false;
}

/* That of its slot, as a rule; a spare has the one that nobody else of its generation has. */
static unsigned choose_instance(const Manager *m, unsigned slot, uint64_t generation) {
        unsigned instance = slot > 0 ? slot - 1 : 0;

        if (slot > 0 && !instance_is_used(m, instance, generation))
                return instance;
        for (instance = 0; instance_is_used(m, instance, generation); instance++)
                ;
        return instance;
}

int manager_start_process(Manager *m, const WorkerEnvironment *environment, WorkerPlace *place,
                const Config *config, List *list, Worker **ret, char **ret_error) {
        Worker *w = NULL;
        int r;

        r = manager_take_cell(m, &place->cell_index);
        if (r < 0)
                return r;
        r = worker_start(environment, config, place, &w, ret_error);
        if (r == 0 && m->event) /* else manager_open_loop() does it */
                r = worker_watch(w);
        if (r != 0) {
                worker_free(w);
                m->cell_used[place->cell_index] = false;
                return r;
        }
        list_append(list, &w->node);
        *ret = w;
        return 0;
}

static int start_worker(
                Manager *m, WorkerPlace *place, const Config *config, Worker **ret, char **ret_error) {
        int r;

        /* Without an inbox connections are spread by the kernel alone, which is good enough to go on. */
        if (app_kind_is_native(config->app_kind) && m->n_wanted > 1) {
                r = inboxes_fit(&m->inboxes, m->n_wanted);
                if (r < 0)
                        log_warning_errno(r, "Failed to make an inbox for each worker: %m");
        }
        return manager_start_process(m, &m->environment, place, config, &m->workers, ret, ret_error);
}

void manager_free_cell(Manager *m, const Worker *w) {
        m->cell_used[w->cell_index] = false;
        board_clear_seat(&m->board, w->cell);
}

int manager_start_worker(
                Manager *m, unsigned slot, const Config *config, uint64_t generation, Worker **ret) {
        WorkerPlace place = {
                .slot = slot,
                .number = ++m->n_started,
                .instance = choose_instance(m, slot, generation),
                .generation = generation,
        };
        _cleanup_free_ char *error = NULL;
        int r;

        r = start_worker(m, &place, config, ret, &error);
        if (r == 0)
                return 0;
        snprintf(m->failure, sizeof(m->failure), "worker %u cannot be started: %s", slot,
                        r == WORKER_INVALID && error ? error : strerror(r < 0 ? -r : ENOMEM));
        log_error("Failed to start worker %u: %s", slot,
                        r == WORKER_INVALID && error ? error : strerror(r < 0 ? -r : ENOMEM));
        return r < 0 ? r : -EINVAL;
}

/* All workers of the first generation are ready. */
static void manager_started(Manager *m) {
        manager_set_state(m, MANAGER_RUNNING);
        log_event(LOG_INFO, (.message_id = MESSAGE_ID_MASTER_READY), "Serving %s with %u worker%s.", m->app,
                        m->n_wanted, m->n_wanted == 1 ? "" : "s");
        status_notify(m, "READY=1");
        memory_trim();
        if (m->reload_again)
                reload_request(m);
        spares_keep(m);
}

/* What went wrong with a worker is over when all are ready. */
static void manager_forget_failure(Manager *m) {
        if (m->state == MANAGER_RUNNING && status_count_ready(m) == m->n_wanted)
                m->failure[0] = '\0';
}

static void on_worker_ready(Worker *w, void *userdata) {
        Manager *m = userdata;
        Slot *s = manager_slot(m, w->slot);

        if (m->state == MANAGER_STOPPING)
                return;
        worker_set_ready(w);
        log_event(LOG_INFO,
                        (.message_id = MESSAGE_ID_WORKER_READY, .worker = w->slot, .worker_pid = w->pid,
                                        .generation = w->generation),
                        "Worker %u (pid %d) is ready.", w->slot, w->pid);
        slot_worker_ready(s, w);

        if (s->incoming == w)
                reload_on_ready(m);
        else if (m->state == MANAGER_STARTING && status_count_ready(m) == m->n_wanted)
                manager_started(m);
        else
                manager_forget_failure(m);
        spares_keep(m);
        status_notify(m, "");
}

static void on_worker_waits(Worker *w, void *userdata) {
        Manager *m = userdata;

        log_event(LOG_INFO, (.worker_pid = w->pid, .generation = w->generation),
                        "A spare worker (pid %d) has loaded the app and waits.", w->pid);
        for (unsigned i = 0; i < m->n_wanted && i < m->n_slots && m->state != MANAGER_STOPPING; i++)
                if (!m->slots[i]->retry) /* else it is to have its pause */
                        slot_fill(m->slots[i]);
}

/* A worker is not its slot's any more, or may not be. @why: in words, what it did. */
static void lose_worker(Manager *m, Worker *w, bool was_ready, const char *why) {
        Slot *s = manager_slot(m, w->slot);

        if (m->state == MANAGER_STOPPING || !s || (s->current != w && s->successor != w && s->incoming != w))
                return;
        snprintf(m->failure, sizeof(m->failure), "worker %u %s", w->slot, why);
        if (s->incoming == w) {
                s->incoming = NULL;
                reload_on_lost(m);
        } else if (m->state == MANAGER_STARTING && (!was_ready || w->state == WORKER_EXITED))
                manager_start_failed(m);
        else
                slot_worker_lost(s, w);
}

static void on_worker_leaves(Worker *w, void *userdata) {
        Manager *m = userdata;
        Slot *s = manager_slot(m, w->slot);
        bool was_ready = w->state == WORKER_READY;
        const char *why = worker_leave_to_string(w);
        char text[WORKER_TEXT_MAX + 32];

        log_event(LOG_NOTICE,
                        (.message_id = MESSAGE_ID_WORKER_LEAVES, .worker = w->slot, .worker_pid = w->pid,
                                        .generation = w->generation),
                        "Worker %u (pid %d) is to be replaced: %s.", w->slot, w->pid, why);
        if (was_ready && s && s->incoming != w) {
                slot_worker_leaves(s, w);
                return;
        }
        /* Before it is ready, or in its trial, that is no better than a death. */
        snprintf(text, sizeof(text), "wants to be replaced: %s", why);
        worker_retire(w);
        lose_worker(m, w, was_ready, text);
}

/* Its successor does not wait for its end. A keeper has to be told of it, or the twin would take over. */
static void on_worker_stops(Worker *w, void *userdata) {
        Manager *m = userdata;
        bool was_ready = w->state == WORKER_READY || worker_has_spoken(w);

        if (worker_has_keeper(w))
                worker_retire(w);
        else
                worker_set_retiring(w);
        lose_worker(m, w, was_ready, "stopped by itself");
        status_notify(m, "");
}

static void on_worker_hangs(Worker *w, void *userdata) {
        if (w->state == WORKER_READY)
                health_worker_hangs(userdata, w);
}

/* What such a death decides though it was taken over: a generation that crashes is not to be committed, nor
 * a start to be called one. A hang is not a failed start without a twin either. */
static bool is_on_trial(const Manager *m, const Worker *w, const WorkerDeath *d) {
        const Slot *s = manager_slot(m, w->slot);

        if (m->state == MANAGER_STARTING)
                return !d->hung;
        return m->state == MANAGER_RELOADING && s && s->incoming == w;
}

/* It is no death of its slot: that is well, and the keeper pauses where the next one dies early. One that
 * has failed its trial finishes what it has; so does one that had failed by its hang, once that is over. */
static void on_worker_died(Worker *w, const WorkerDeath *d, void *userdata) {
        Manager *m = userdata;
        const ExitRecord *record = exits_add_death(&m->exits, w, d);

        if (!is_on_trial(m, w, d) && has_place(m, w))
                return;
        lose_worker(m, w, /* was_ready= */ false, record->reason);
        worker_retire_successor(w);
        status_notify(m, "");
}

static void on_worker_extends(Worker *w, uint64_t usec, void *userdata) {
        const Manager *m = userdata;

        if (m->state != MANAGER_RUNNING)
                notify_extend_timeout(usec + TIMEOUT_MARGIN_USEC);
}

static void on_worker_forwards(Worker *w, const Forward *f, void *userdata) {
        const Manager *m = userdata;

        forward_from_worker(w, f, &m->workers);
}

static void on_worker_status(Worker *w, void *userdata) {
        status_notify(userdata, "");
}

static int on_bell(sd_event_source *source, int fd, uint32_t revents, void *userdata) {
        Manager *m = userdata;

        board_bell_clear(&m->board);
        list_foreach_safe (node, &m->workers)
                worker_look_at_board(list_entry(node, Worker, node));
        return 0;
}

static void on_orphans_gone(void *userdata) {
        Manager *m = userdata;

        (void) sd_event_exit(m->event, m->exit_status);
}

static bool is_companion(pid_t pid, void *userdata) {
        const Manager *m = userdata;

        return pid == m->guard_pid || (m->control && pid == control_get_pid(m->control));
}

static void on_control_stopped(void *userdata) {
        const Manager *m = userdata;

        orphans_finish(m->orphans);
}

/* Children first: workers, agents, muster-admin, what was left behind; the master last. */
void manager_check_finished(Manager *m) {
        if (m->state != MANAGER_STOPPING || !list_empty(&m->workers) || m->finishing)
                return;
        if (!agents_stop(m)) {
                status_notify(m, "");
                return;
        }
        m->finishing = true;
        if (!m->control || control_stop(m->control, on_control_stopped) < 0)
                orphans_finish(m->orphans);
}

static void on_worker_exit(Worker *w, void *userdata) {
        Manager *m = userdata;
        const ExitRecord *record = exits_add(&m->exits, w);

        manager_free_cell(m, w);
        orphans_worker_ended(m->orphans, w);
        lose_worker(m, w, /* was_ready= */ false, record->reason);
        if (w->slot == 0)
                spares_lost(m, w);
        worker_free(w);
        agents_tidy(m);
        status_notify(m, "");
        manager_check_finished(m);
}

/*
 * Start and stop
 */

unsigned manager_wanted_workers(const Config *c) {
        return c->workers_count > 0 ? c->workers_count : MIN(cpu_count(), BOARD_CELLS / 4);
}

static void manager_retire_all(Manager *m) {
        uint64_t longest_usec = m->config->workers_stop_timeout_usec;

        for (unsigned i = 0; i < m->n_slots; i++)
                slot_retire(m->slots[i]);
        spares_end(m);
        cluster_stop(m->environment.cluster);
        list_foreach (node, &m->workers) {
                Worker *w = list_entry(node, Worker, node);

                worker_abandon(w); /* one that hangs may have lost its place */
                longest_usec = MAX(longest_usec,
                                w->stop_timeout_usec); /* an older generation's may be longer */
        }
        notify_extend_timeout(longest_usec + TIMEOUT_MARGIN_USEC);
}

void manager_start_failed(Manager *m) {
        char reason[FAILURE_MAX + 128];

        manager_set_state(m, MANAGER_STOPPING);
        m->exit_status = 1;
        snprintf(reason, sizeof(reason), "The app \"%s\" cannot start: %s", m->app, m->failure);
        log_last_words(&(LogEvent){ .message_id = MESSAGE_ID_START_FAILED }, "The app cannot start.",
                        reason);
        status_notify(m, "");
        reload_cancel(m);
        manager_retire_all(m);
        manager_check_finished(m);
}

void manager_stop(Manager *m) {
        char text[STATUS_MAX];

        manager_set_state(m, MANAGER_STOPPING);
        status_format_stopping(m, text);
        log_event(LOG_INFO, (.message_id = MESSAGE_ID_MASTER_STOPPING), "%s.", text);
        status_notify(m, "STOPPING=1");
        reload_cancel(m);
        manager_retire_all(m);
        manager_check_finished(m);
}

int manager_scale(Manager *m, unsigned n) {
        unsigned before = m->n_wanted;
        int r;

        if (m->state != MANAGER_RUNNING)
                return -EBUSY;
        if (n < 1 || n > MANAGER_WORKERS_MAX)
                return -ERANGE;
        r = manager_add_slots(m, n);
        if (r < 0)
                return r;
        manager_drop_slots(m, n);
        m->n_wanted = n;
        for (unsigned i = before; i < n; i++)
                slot_fill(m->slots[i]);
        manager_forget_failure(m); /* the slot that it was about may be gone */
        if (n != before)
                log_event(LOG_INFO, (.message_id = MESSAGE_ID_SCALED), "%u worker%s instead of %u.", n,
                                n == 1 ? "" : "s", before);
        status_notify(m, "");
        return 0;
}

static void manager_scale_by(Manager *m, int difference) {
        int r = manager_scale(m, (unsigned) ((int) m->n_wanted + difference));

        if (r == -ERANGE)
                log_notice("Not scaled: the number of workers is 1 to %u.", MANAGER_WORKERS_MAX);
        else if (r == -EBUSY)
                log_notice("Not scaled: the service is starting, reloading or stopping.");
        else if (r < 0)
                log_error_errno(r, "Failed to scale: %m");
}

static int on_signal(sd_event_source *source, const struct signalfd_siginfo *si, void *userdata) {
        Manager *m = userdata;

        switch (si->ssi_signo) {
        case SIGHUP:
                reload_request(m);
                return 0;
        case SIGTTIN:
                manager_scale_by(m, 1);
                return 0;
        case SIGTTOU:
                manager_scale_by(m, -1);
                return 0;
        }
        if (m->state != MANAGER_STOPPING)
                manager_stop(m);
        else if (si->ssi_signo == SIGINT) { /* ^C for the second time: somebody is in a hurry */
                list_foreach (node, &m->workers)
                        worker_kill(list_entry(node, Worker, node), WORKER_KILL_ABANDONED);
                agents_kill(m);
        }
        return 0;
}

static const int manager_signals[] = { SIGTERM, SIGINT, SIGHUP, SIGTTIN, SIGTTOU };

void manager_block_signals(void) {
        sigset_t set;

        sigemptyset(&set);
        for (size_t i = 0; i < ELEMENTSOF(manager_signals); i++)
                sigaddset(&set, manager_signals[i]);
        (void) sigprocmask(SIG_BLOCK, &set, NULL); /* fails for wrong arguments only */
}

static int manager_add_sources(Manager *m) {
        int r;

        for (size_t i = 0; i < ELEMENTSOF(manager_signals); i++) {
                r = sd_event_add_signal(m->event, NULL, manager_signals[i], on_signal, m);
                if (r < 0)
                        return r;
        }
        r = sd_event_add_io(m->event, &m->bell, m->board.bell_fd, EPOLLIN, on_bell, m);
        if (r < 0)
                return r;
        r = sd_event_source_set_ratelimit(m->bell, BELL_INTERVAL_USEC, BELL_BURST);
        if (r < 0)
                return r;
        return manager_add_tick(m);
}

Manager *manager_free(Manager *m) {
        if (!m)
                return NULL;
        list_foreach_safe (node, &m->workers)
                worker_free(list_entry(node, Worker, node));
        agents_done(m);
        cluster_free(m->environment.cluster);
        sd_event_source_disable_unref(m->spare_retry);
        for (unsigned i = 0; i < m->n_slots; i++)
                slot_free(m->slots[i]);
        free(m->slots);
        sd_event_source_disable_unref(m->soak);
        sd_event_source_disable_unref(m->bell);
        sd_event_source_disable_unref(m->tick);
        reload_cancel(m);
        control_free(m->control);
        orphans_free(m->orphans);
        notify_directory_free(m->environment.notify);
        cgroups_free(m->environment.cgroups);
        sd_event_unref(m->event);
        board_done(&m->board);
        inboxes_done(&m->inboxes);
        arrivals_free(m->arrivals);
        listeners_done(&m->listeners);
        config_free(m->next_config);
        config_free(m->config);
        free(m);
        return NULL;
}

static int manager_prepare(Manager *m) {
        int r;

        descriptor_limit_raise(DESCRIPTORS_WANTED);
        r = board_init(&m->board);
        if (r < 0)
                return r;
        m->environment = (WorkerEnvironment){
                .app = m->app,
                .listeners = &m->listeners,
                .board = &m->board,
                .inboxes = &m->inboxes,
                .said = &m->said,
                .handlers = {
                        .ready = on_worker_ready,
                        .waits = on_worker_waits,
                        .leaves = on_worker_leaves,
                        .stops = on_worker_stops,
                        .hangs = on_worker_hangs,
                        .died = on_worker_died,
                        .extends = on_worker_extends,
                        .forwards = on_worker_forwards,
                        .status = on_worker_status,
                        .exited = on_worker_exit,
                },
                .userdata = m,
        };
        return manager_add_slots(m, m->n_wanted);
}

int manager_new(const char *app, Config *config, Listeners *listeners, Manager **ret) {
        _cleanup_(manager_freep) Manager *m = calloc(1, sizeof(*m));
        int r;

        if (!m)
                return log_oom();
        *m = (Manager){
                .app = app,
                .generation = 1,
                .next_generation = 1,
                .n_wanted = manager_wanted_workers(config),
                .started_usec = clock_now_usec(),
                .board = BOARD_NULL,
        };
        list_init(&m->workers);
        agents_init(&m->agents);
        list_init(&m->reload_waiters);
        list_init(&m->reload_queue);

        r = manager_prepare(m);
        if (r < 0)
                return log_error_errno(r, "Failed to prepare the scoreboard: %m");

        m->config = config;
        m->listeners = *listeners;
        *listeners = (Listeners){ .n = 0 };
        r = agents_load(m);
        if (r < 0)
                return log_oom();
        r = cluster_new(&m->listeners, &m->environment.cluster);
        if (r < 0)
                return log_oom();
        r = commands_init(m);
        if (r < 0)
                return log_error_errno(r, "Failed to take the control socket: %m");
        *ret = TAKE_PTR(m);
        return 0;
}

/* The event loop, and on it the worker that was started before. */
static int manager_open_loop(Manager *m) {
        int r;

        r = sd_event_new(&m->event);
        if (r < 0)
                return r;
        m->environment.event = m->event;
        agents_attach(m);
        cluster_attach(m->environment.cluster, m->event);
        list_foreach (node, &m->workers) {
                r = worker_watch(list_entry(node, Worker, node));
                if (r < 0)
                        return r;
        }
        r = orphans_attach(m->orphans, m->event);
        if (r >= 0 && m->control)
                r = control_attach(m->control, m->event);
        return r < 0 ? r : manager_add_sources(m);
}

/* What the service goes without where it cannot be had. */
static void manager_add_extras(Manager *m) {
        int r;

        r = notify_directory_new(&m->environment.notify);
        if (r < 0)
                log_warning_errno(r, "Failed to make a directory for NOTIFY_SOCKET, workers have none: %m");
        r = cgroups_new(&m->environment.cgroups);
        if (r < 0)
                log_debug_errno(r, "No control groups for workers: %m");
        else
                m->environment.born_in_cgroup = cgroups_can_give_birth();
}

/* A service manager ends what a killed master leaves, and the end of process 1 that of its container. */
static void manager_start_guard(Manager *m) {
        if (notify_enabled() || getpid() == 1)
                return;
        m->guard_pid = guard_start();
        if (m->guard_pid < 0)
                log_warning_errno(m->guard_pid,
                                "Failed to start a guard for the case that the master is killed: %m");
}

/* Takes some milliseconds, so it comes after the first worker. */
static void manager_settle_cgroups(Manager *m) {
        int r;

        if (!m->environment.cgroups)
                return;
        r = cgroups_settle(m->environment.cgroups);
        if (r < 0)
                log_warning_errno(r, "Failed to prepare the control groups of workers: %m");
        else if (r == 0)
                log_debug("Control groups have no memory controller here.");
}

void manager_start_workers(Manager *m) {
        notify_extend_timeout(m->config->workers_start_timeout_usec + TIMEOUT_MARGIN_USEC);
        for (unsigned i = 0; i < m->n_slots && m->state == MANAGER_STARTING; i++)
                slot_fill(m->slots[i]);
}

/* One worker before everything else, and the CPUs for it alone: a client is waiting. */
static int manager_start_first(Manager *m) {
        int r;

        r = manager_start_worker(m, 1, m->config, m->generation, &m->slots[0]->current);
        if (r >= 0 && app_kind_is_native(m->config->app_kind))
                board_bell_wait(&m->board, FIRST_WORKER_MSEC);
        return r;
}

int manager_run(Manager *m) {
        int first = 0, r;

        log_set_generation(m->generation);
        r = orphans_new(&m->workers, &m->agents.workers, is_companion, on_orphans_gone, m, &m->orphans);
        if (r < 0)
                return log_oom();

        warn_of_idle_exit(m);
        manager_apply_balance(m);
        manager_add_extras(m);
        if (agents_are_none(m))
                first = manager_start_first(m);
        manager_settle_cgroups(m); /* before that worker is watched, its memory too */
        r = manager_open_loop(m);
        if (r < 0)
                return log_error_errno(r, "Failed to set up the event loop: %m");
        manager_start_guard(m);

        if (first < 0)
                manager_start_failed(m);
        else
                agents_start(m);
        status_notify(m, "");

        r = sd_event_loop(m->event);
        if (r < 0)
                return log_error_errno(r, "The event loop failed: %m");
        return r;
}
