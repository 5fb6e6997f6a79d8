/* SPDX-License-Identifier: MIT */
/* The master's life; see manager.h.
 *
 * Concepts: a *slot* is the numbered place that one worker fills. Its `current` worker belongs to the
 * committed generation. A reload puts an `incoming` worker beside it in every slot; when all of them are
 * ready the generation is committed: they become current and the old ones retire. If one of them fails
 * before that, they go and nothing has changed. A worker that is neither current nor incoming of its slot is
 * on its way out, and nobody waits for it but the stop of the whole service.
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
#include "basic/list.h"
#include "basic/log.h"
#include "basic/memory.h"
#include "basic/parse.h"
#include "board/board.h"
#include "master/notify.h"
#include "master/orphans.h"
#include "basic/restart.h"
#include "master/worker.h"

/* STATUS is refreshed this often when there is no watchdog whose rhythm could be used. */
#define TICK_DEFAULT_USEC (5 * USEC_PER_SEC)

/* What systemd grants beyond our own time-outs, so that ours come first and are told in words. */
#define TIMEOUT_MARGIN_USEC (5 * USEC_PER_SEC)

/* A worker gone mad may ring without end; this bounds what it costs. */
#define BELL_INTERVAL_USEC (100 * USEC_PER_MSEC)
#define BELL_BURST         20

/* How long the first worker has the machine for itself, before libsystemd is loaded for the event loop. */
#define FIRST_WORKER_MSEC 50

#define STATUS_MAX  768
#define FAILURE_MAX (WORKER_EXIT_STRING_MAX + 64)

typedef enum ManagerState {
        MANAGER_STARTING, /* until all workers of the first generation are ready */
        MANAGER_RUNNING,
        MANAGER_RELOADING, /* a second generation is coming up beside the first */
        MANAGER_STOPPING,
        _MANAGER_STATE_MAX,
} ManagerState;

typedef struct Slot {
        unsigned id; /* 1 … */
        Manager *manager;
        Worker *current;
        Worker *incoming;
        Restart restart;
        sd_event_source *retry; /* the next attempt, when there is a pause before it */
} Slot;

struct Manager {
        const char *app;
        ManagerState state;
        int exit_status;

        Config *config; /* of the committed generation */
        uint64_t generation;
        unsigned n_wanted; /* slots of the committed generation */

        Config *next_config; /* of the generation coming up; NULL when there is none */
        uint64_t next_generation;
        unsigned n_next;
        bool reload_again; /* asked for while one was under way */

        Slot **slots; /* by id - 1 */
        unsigned n_slots;
        List workers; /* all of them, in whatever state */
        bool cell_used[BOARD_CELLS];
        Orphans *orphans; /* what they leave behind */

        Listeners listeners;
        Board board;
        WorkerEnvironment environment;

        sd_event *event;
        sd_event_source *bell;
        sd_event_source *tick;
        uint64_t tick_usec;

        char failure[FAILURE_MAX]; /* the latest reason why a slot is empty or a reload failed; "" when all
                                      is well */
        char status[STATUS_MAX];   /* as last told to systemd */
};

static const uint8_t manager_edges[_MANAGER_STATE_MAX] = {
        [MANAGER_STARTING] = 1 << MANAGER_RUNNING | 1 << MANAGER_STOPPING,
        [MANAGER_RUNNING] = 1 << MANAGER_RELOADING | 1 << MANAGER_STOPPING,
        [MANAGER_RELOADING] = 1 << MANAGER_RUNNING | 1 << MANAGER_STOPPING,
};

static void manager_set_state(Manager *m, ManagerState to) {
        assert(manager_edges[m->state] & (1 << to));
        m->state = to;
}

static void slot_fill(Slot *s);
static void manager_start_failed(Manager *m);
static void reload_abort(Manager *m);
static void manager_reload(Manager *m);

/*
 * Status
 */

static unsigned count_ready(const Manager *m) {
        unsigned n = 0;

        for (unsigned i = 0; i < m->n_slots; i++)
                n += m->slots[i]->current && m->slots[i]->current->state == WORKER_READY;
        return n;
}

static unsigned count_workers(const Manager *m) {
        unsigned n = 0;

        list_foreach (node, &m->workers)
                n++;
        return n;
}

static uint64_t count_connections(const Manager *m) {
        uint64_t n = 0;

        list_foreach (node, &m->workers) {
                const Worker *w = list_entry(node, Worker, node);
                n += atomic_load_explicit(&w->cell->connections, memory_order_relaxed);
        }
        return n;
}

static void format_status(const Manager *m, char buf[static STATUS_MAX]) {
        unsigned ready = count_ready(m), workers = count_workers(m);
        uint64_t connections = count_connections(m);

        switch (m->state) {
        case MANAGER_STARTING:
                snprintf(buf, STATUS_MAX, "Starting: %u/%u workers ready", ready, m->n_wanted);
                break;
        case MANAGER_STOPPING:
                if (m->exit_status != 0)
                        snprintf(buf, STATUS_MAX, "Failed to start: %s", m->failure);
                else
                        snprintf(buf, STATUS_MAX, "Stopping: %u workers finish %" PRIu64 " connections",
                                        workers, connections);
                break;
        default:
                snprintf(buf, STATUS_MAX,
                                "%u/%u workers ready, %" PRIu64 " connections, generation %" PRIu64 "%s%s",
                                ready, m->n_wanted, connections, m->generation, *m->failure ? "; " : "",
                                m->failure);
        }
}

/* Tells systemd what changed, `state` lines included. */
static void manager_notify(Manager *m, const char *state) {
        char status[STATUS_MAX];

        format_status(m, status);
        if (!*state && strcmp(status, m->status) == 0)
                return;
        strcpy(m->status, status);
        notify_status(state, "%s", status);
}

/* Everything periodic happens here, in one wake-up. */
static int on_tick(sd_event_source *source, uint64_t usec, void *userdata) {
        Manager *m = userdata;
        int r;

        notify_alive();
        manager_notify(m, "");
        orphans_look(m->orphans);
        for (unsigned i = 0; i < m->n_wanted; i++)
                if (!m->slots[i]->retry) /* its timer could not be set */
                        slot_fill(m->slots[i]);
        r = sd_event_source_set_time_relative(source, m->tick_usec);
        if (r >= 0)
                r = sd_event_source_set_enabled(source, SD_EVENT_ONESHOT);
        if (r < 0)
                log_error_errno(r, "Failed to set the timer of the watchdog: %m");
        return 0;
}

/*
 * Slots and workers
 */

static Slot *manager_slot(const Manager *m, unsigned id) {
        return id >= 1 && id <= m->n_slots ? m->slots[id - 1] : NULL;
}

static Slot *slot_free(Slot *s) {
        if (!s)
                return NULL;
        sd_event_source_disable_unref(s->retry);
        free(s);
        return NULL;
}

/* Makes the slots 1 … @n; those that are there stay. */
static int manager_add_slots(Manager *m, unsigned n) {
        if (n <= m->n_slots)
                return 0;

        Slot **slots = reallocarray(m->slots, n, sizeof(Slot *));
        if (!slots)
                return -ENOMEM;
        m->slots = slots;
        while (m->n_slots < n) {
                Slot *s = calloc(1, sizeof(*s));
                if (!s)
                        return -ENOMEM;
                *s = (Slot){ .id = m->n_slots + 1, .manager = m };
                m->slots[m->n_slots++] = s;
        }
        return 0;
}

/* Drops the slots above @n. Their workers retire; nobody fills them again. */
static void manager_drop_slots(Manager *m, unsigned n) {
        while (m->n_slots > n) {
                Slot *s = m->slots[--m->n_slots];

                if (s->current)
                        worker_retire(s->current);
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

static int manager_start_worker(
                Manager *m, const Slot *s, const Config *config, uint64_t generation, Worker **ret) {
        Worker *w = NULL;
        unsigned cell;
        int r;

        r = manager_take_cell(m, &cell);
        if (r >= 0) {
                r = worker_start(&m->environment, config, s->id, generation, cell, &w);
                if (r >= 0 && m->event) /* else manager_open_loop() does it */
                        r = worker_watch(w);
                if (r < 0) {
                        w = worker_free(w);
                        m->cell_used[cell] = false;
                }
        }
        if (r < 0) {
                snprintf(m->failure, sizeof(m->failure), "worker %u cannot be started: %s", s->id,
                                strerror(-r));
                return log_error_errno(r, "Failed to start worker %u: %m", s->id);
        }
        list_append(&m->workers, &w->node);
        *ret = w;
        return 0;
}

static int on_retry(sd_event_source *source, uint64_t usec, void *userdata) {
        Slot *s = userdata;

        s->retry = sd_event_source_disable_unref(s->retry);
        slot_fill(s);
        return 0;
}

/* Fills the slot now or after the pause that its history asks for. */
static void slot_refill(Slot *s, uint64_t lived_usec) {
        Manager *m = s->manager;
        RestartPolicy policy = { .backoff_min_usec = m->config->restart_backoff_min_usec,
                .backoff_max_usec = m->config->restart_backoff_max_usec };
        uint64_t delay = restart_after_death(&s->restart, &policy, clock_now_usec(), lived_usec);
        char buf[DURATION_STRING_MAX];
        int r;

        if (m->state == MANAGER_STARTING)
                notify_extend_timeout(delay + m->config->workers_start_timeout_usec + TIMEOUT_MARGIN_USEC);
        if (delay > 0) {
                log_event(LOG_WARNING, (.message_id = MESSAGE_ID_WORKER_BACKOFF, .worker = s->id),
                                "Worker %u died early %u times in a row, trying again in %s.", s->id,
                                s->restart.early_deaths, duration_to_string(delay, buf));
                r = sd_event_add_time_relative(m->event, &s->retry, CLOCK_MONOTONIC, delay,
                                clock_accuracy_usec(delay), on_retry, s);
                if (r >= 0)
                        return;
                log_error_errno(r, "Failed to set the timer for worker %u: %m", s->id);
                return; /* on_tick() fills what is empty, where systemd asks for one */
        }
        slot_fill(s);
}

static void slot_fill(Slot *s) {
        Manager *m = s->manager;

        if (m->state == MANAGER_STOPPING || s->current)
                return;
        if (manager_start_worker(m, s, m->config, m->generation, &s->current) >= 0)
                return;

        if (m->state == MANAGER_STARTING)
                manager_start_failed(m);
        else
                slot_refill(s, 0);
}

/* All workers of the first generation are ready. */
static void manager_started(Manager *m) {
        manager_set_state(m, MANAGER_RUNNING);
        log_event(LOG_INFO, (.message_id = MESSAGE_ID_MASTER_READY), "Serving %s with %u worker%s.", m->app,
                        m->n_wanted, m->n_wanted == 1 ? "" : "s");
        manager_notify(m, "READY=1");
        memory_trim();
        if (m->reload_again)
                manager_reload(m);
}

static bool generation_is_ready(const Manager *m) {
        for (unsigned i = 0; i < m->n_next; i++)
                if (!m->slots[i]->incoming || m->slots[i]->incoming->state != WORKER_READY)
                        return false;
        return true;
}

static void reload_commit(Manager *m);

static void manager_worker_ready(Manager *m, Worker *w) {
        worker_set_ready(w);
        log_event(LOG_INFO,
                        (.message_id = MESSAGE_ID_WORKER_READY, .worker = w->slot, .worker_pid = w->pid,
                                        .generation = w->generation),
                        "Worker %u (pid %d) is ready.", w->slot, w->pid);

        if (m->state == MANAGER_STARTING && count_ready(m) == m->n_wanted)
                manager_started(m);
        else if (m->state == MANAGER_RELOADING && generation_is_ready(m))
                reload_commit(m);
        else if (m->state == MANAGER_RUNNING && count_ready(m) == m->n_wanted)
                m->failure[0] = '\0';
}

/* The worker said that it goes, without being told. Its successor does not wait for its end. */
static void manager_worker_leaves(Manager *m, Worker *w) {
        Slot *s = manager_slot(m, w->slot);

        worker_set_retiring(w);
        if (m->state == MANAGER_STOPPING || !s || s->current != w)
                return;
        s->current = NULL;
        slot_refill(s, clock_now_usec() - w->started_usec);
}

static void manager_look_at(Manager *m, Worker *w) {
        uint32_t state = atomic_load_explicit(&w->cell->state, memory_order_acquire);

        if (state == BOARD_READY && w->state == WORKER_STARTING && m->state != MANAGER_STOPPING)
                manager_worker_ready(m, w);
        else if (state == BOARD_DRAINING && (w->state == WORKER_STARTING || w->state == WORKER_READY))
                manager_worker_leaves(m, w);
}

static int on_bell(sd_event_source *source, int fd, uint32_t revents, void *userdata) {
        Manager *m = userdata;
        unsigned ready = count_ready(m);

        board_bell_clear(&m->board);
        list_foreach_safe (node, &m->workers)
                manager_look_at(m, list_entry(node, Worker, node));
        /* The number of connections alone is news for the tick: a worker that rings without end is not to be
         * heard by systemd. */
        if (count_ready(m) != ready)
                manager_notify(m, "");
        return 0;
}

static void on_orphans_gone(void *userdata) {
        Manager *m = userdata;

        (void) sd_event_exit(m->event, m->exit_status);
}

static void manager_check_finished(Manager *m) {
        if (m->state == MANAGER_STOPPING && list_empty(&m->workers))
                orphans_finish(m->orphans);
}

static void log_exit(const Manager *m, const Worker *w, const char *how) {
        bool expected = w->retired && w->kill == WORKER_KILL_NONE && w->exit_status == 0;

        log_event(expected ? LOG_INFO : LOG_WARNING,
                        (.message_id = MESSAGE_ID_WORKER_EXITED, .worker = w->slot, .worker_pid = w->pid,
                                        .generation = w->generation),
                        "Worker %u (pid %d) %s.", w->slot, w->pid, how);
}

static void on_worker_exit(Worker *w, void *userdata) {
        Manager *m = userdata;
        Slot *s = manager_slot(m, w->slot);
        bool was_current = s && s->current == w, was_incoming = s && s->incoming == w;
        uint64_t lived_usec = w->exited_usec - w->started_usec;
        char how[WORKER_EXIT_STRING_MAX];

        worker_exit_to_string(w, how);
        log_exit(m, w, how);
        if (was_current)
                s->current = NULL;
        if (was_incoming)
                s->incoming = NULL;
        if ((was_current || was_incoming) && m->state != MANAGER_STOPPING)
                snprintf(m->failure, sizeof(m->failure), "worker %u %s", w->slot, how);
        m->cell_used[w->cell_index] = false;
        orphans_worker_ended(m->orphans, w);
        worker_free(w);

        if (was_incoming && m->state == MANAGER_RELOADING)
                reload_abort(m);
        else if (was_current && m->state == MANAGER_STARTING)
                manager_start_failed(m);
        else if (was_current && m->state != MANAGER_STOPPING)
                slot_refill(s, lived_usec);
        manager_notify(m, "");
        manager_check_finished(m);
}

/*
 * Reload
 */

/* Both ends of a reload: systemd is told, and what was asked for meanwhile begins. */
static void reload_finished(Manager *m) {
        m->next_config = config_free(m->next_config);
        manager_set_state(m, MANAGER_RUNNING);
        manager_notify(m, "READY=1");
        memory_trim();
        if (m->reload_again)
                manager_reload(m);
}

static void reload_commit(Manager *m) {
        for (unsigned i = 0; i < m->n_next; i++) {
                Slot *s = m->slots[i];

                if (s->current)
                        worker_retire(s->current);
                s->current = TAKE_PTR(s->incoming);
                s->restart = (Restart){ .early_deaths = 0 };
                s->retry = sd_event_source_disable_unref(s->retry);
        }
        manager_drop_slots(m, m->n_next);

        config_free(m->config);
        m->config = TAKE_PTR(m->next_config);
        m->generation = m->next_generation;
        m->n_wanted = m->n_next;
        m->failure[0] = '\0';
        log_set_generation(m->generation);
        log_event(LOG_INFO, (.message_id = MESSAGE_ID_RELOADED),
                        "Generation %" PRIu64 " serves with %u worker%s.", m->generation, m->n_wanted,
                        m->n_wanted == 1 ? "" : "s");
        reload_finished(m);
}

/* m->failure says why. A new worker that served already finishes what it has. */
static void reload_abort(Manager *m) {
        char why[FAILURE_MAX];

        strcpy(why, m->failure);
        for (unsigned i = 0; i < m->n_slots; i++) {
                Worker *w = TAKE_PTR(m->slots[i]->incoming);

                if (w && w->state == WORKER_READY)
                        worker_retire(w);
                else if (w)
                        worker_kill(w, WORKER_KILL_ABANDONED);
        }
        manager_drop_slots(m, m->n_wanted);

        snprintf(m->failure, sizeof(m->failure), "reload failed: %.*s", (int) sizeof(m->failure) - 32, why);
        log_event(LOG_ERR, (.message_id = MESSAGE_ID_RELOAD_FAILED),
                        "Reload failed, generation %" PRIu64 " goes on: %s", m->generation, why);
        reload_finished(m);
}

static unsigned wanted_workers(const Config *c) {
        return c->workers_count > 0 ? c->workers_count : MIN(cpu_count(), BOARD_CELLS / 4);
}

static int reload_read(Manager *m) {
        _cleanup_free_ char *error = NULL;
        int r;

        r = config_load(m->config->path, &m->next_config, &error);
        if (r == 0)
                return 0;
        snprintf(m->failure, sizeof(m->failure), "%s",
                        r == CONFIG_INVALID && error ? error : strerror(ENOMEM));
        return r;
}

/* Brings a whole second generation up beside the first. */
static void manager_reload(Manager *m) {
        char state[64];

        if (m->state != MANAGER_RUNNING) {
                m->reload_again = m->state != MANAGER_STOPPING;
                return;
        }
        m->reload_again = false;
        manager_set_state(m, MANAGER_RELOADING);
        snprintf(state, sizeof(state), "RELOADING=1\nMONOTONIC_USEC=%" PRIu64, clock_now_usec());
        manager_notify(m, state);

        if (reload_read(m) != 0) {
                reload_abort(m);
                return;
        }
        notify_extend_timeout(m->next_config->workers_start_timeout_usec + TIMEOUT_MARGIN_USEC);
        m->next_generation++;
        m->n_next = wanted_workers(m->next_config);
        if (manager_add_slots(m, m->n_next) < 0) {
                snprintf(m->failure, sizeof(m->failure), "out of memory");
                reload_abort(m);
                return;
        }
        for (unsigned i = 0; i < m->n_next; i++)
                if (manager_start_worker(m, m->slots[i], m->next_config, m->next_generation,
                                    &m->slots[i]->incoming) < 0) {
                        reload_abort(m);
                        return;
                }
}

/*
 * Start and stop
 */

static void manager_retire_all(Manager *m) {
        uint64_t longest_usec = m->config->workers_stop_timeout_usec;

        for (unsigned i = 0; i < m->n_slots; i++)
                m->slots[i]->retry = sd_event_source_disable_unref(m->slots[i]->retry);
        list_foreach (node, &m->workers) {
                Worker *w = list_entry(node, Worker, node);

                worker_retire(w);
                longest_usec = MAX(longest_usec,
                                w->stop_timeout_usec); /* an older generation's may be longer */
        }
        notify_extend_timeout(longest_usec + TIMEOUT_MARGIN_USEC);
}

static void manager_start_failed(Manager *m) {
        char reason[FAILURE_MAX + 128];

        manager_set_state(m, MANAGER_STOPPING);
        m->exit_status = 1;
        snprintf(reason, sizeof(reason), "The app \"%s\" cannot start: %s", m->app, m->failure);
        log_last_words(&(LogEvent){ .message_id = MESSAGE_ID_START_FAILED }, "The app cannot start.",
                        reason);
        manager_notify(m, "");
        manager_retire_all(m);
        manager_check_finished(m);
}

static void manager_stop(Manager *m) {
        manager_set_state(m, MANAGER_STOPPING);
        log_event(LOG_INFO, (.message_id = MESSAGE_ID_MASTER_STOPPING),
                        "Stopping: %u workers finish %" PRIu64 " connections.", count_workers(m),
                        count_connections(m));
        manager_notify(m, "STOPPING=1");
        manager_retire_all(m);
        manager_check_finished(m);
}

static int on_signal(sd_event_source *source, const struct signalfd_siginfo *si, void *userdata) {
        Manager *m = userdata;

        if (si->ssi_signo == SIGHUP)
                manager_reload(m);
        else if (m->state != MANAGER_STOPPING)
                manager_stop(m);
        else if (si->ssi_signo == SIGINT) /* ^C for the second time: somebody is in a hurry */
                list_foreach (node, &m->workers)
                        worker_kill(list_entry(node, Worker, node), WORKER_KILL_ABANDONED);
        return 0;
}

static int manager_add_tick(Manager *m) {
        if (!notify_enabled())
                return 0; /* nobody is told anything: nothing is periodic */

        m->tick_usec = notify_watchdog_interval_usec();
        if (m->tick_usec == 0)
                m->tick_usec = TICK_DEFAULT_USEC;
        return sd_event_add_time_relative(m->event, &m->tick, CLOCK_MONOTONIC, m->tick_usec,
                        clock_accuracy_usec(m->tick_usec), on_tick, m);
}

static const int manager_signals[] = { SIGTERM, SIGINT, SIGHUP };

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
        for (unsigned i = 0; i < m->n_slots; i++)
                slot_free(m->slots[i]);
        free(m->slots);
        sd_event_source_disable_unref(m->bell);
        sd_event_source_disable_unref(m->tick);
        orphans_free(m->orphans);
        sd_event_unref(m->event);
        board_done(&m->board);
        listeners_done(&m->listeners);
        config_free(m->next_config);
        config_free(m->config);
        free(m);
        return NULL;
}

static int manager_prepare(Manager *m) {
        int r;

        r = board_init(&m->board);
        if (r < 0)
                return r;
        m->environment = (WorkerEnvironment){
                .app = m->app,
                .listeners = &m->listeners,
                .board = &m->board,
                .on_exit = on_worker_exit,
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
                .n_wanted = wanted_workers(config),
                .board = BOARD_NULL,
        };
        list_init(&m->workers);

        r = manager_prepare(m);
        if (r < 0)
                return log_error_errno(r, "Failed to prepare the scoreboard: %m");

        m->config = config;
        m->listeners = *listeners;
        *listeners = (Listeners){ .n = 0 };
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
        list_foreach (node, &m->workers) {
                r = worker_watch(list_entry(node, Worker, node));
                if (r < 0)
                        return r;
        }
        r = orphans_attach(m->orphans, m->event);
        return r < 0 ? r : manager_add_sources(m);
}

int manager_run(Manager *m) {
        int first, r;

        log_set_generation(m->generation);
        r = orphans_new(&m->workers, on_orphans_gone, m, &m->orphans);
        if (r < 0)
                return log_oom();

        /* One worker before everything else, and the CPUs for it alone: a client is waiting. */
        first = manager_start_worker(m, m->slots[0], m->config, m->generation, &m->slots[0]->current);
        if (first >= 0)
                board_bell_wait(&m->board, FIRST_WORKER_MSEC);
        r = manager_open_loop(m);
        if (r < 0)
                return log_error_errno(r, "Failed to set up the event loop: %m");

        notify_extend_timeout(m->config->workers_start_timeout_usec + TIMEOUT_MARGIN_USEC);
        if (first < 0)
                manager_start_failed(m);
        for (unsigned i = 1; i < m->n_slots && m->state == MANAGER_STARTING; i++)
                slot_fill(m->slots[i]);
        manager_notify(m, "");

        r = sd_event_loop(m->event);
        if (r < 0)
                return log_error_errno(r, "The event loop failed: %m");
        return r;
}
