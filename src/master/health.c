/* SPDX-License-Identifier: MIT */
/* What nobody tells the master, and it has to look for: workers that hang, that have grown too large or too
 * old, slots that could not be filled for want of a timer, and an app without clients. All of it happens in
 * one tick, so that a service costs one wake-up in that time. */

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <string.h>

#include "basic/clock.h"
#include "basic/log.h"
#include "basic/macro.h"
#include "basic/parse.h"
#include "master/arrivals.h"
#include "master/connection-count.h"
#include "master/manager-internal.h"

/* For what has no time of its own. */
#define INTERVAL_USEC (5 * USEC_PER_SEC)

/* However short the configured times are. */
#define INTERVAL_MIN_USEC (10 * USEC_PER_MSEC)

uint64_t health_interval_usec(const Manager *m) {
        const Config *c = m->config;
        const uint64_t agents = agents_watchdog_usec(m);
        const uint64_t times[] = { c->workers_watchdog_usec, c->workers_max_age_usec, c->idle_exit_usec,
                agents };
        uint64_t interval = c->workers_max_memory_bytes > 0 ? INTERVAL_USEC : USEC_INFINITY;

        for (size_t i = 0; i < ELEMENTSOF(times); i++)
                if (times[i] > 0 && times[i] != USEC_INFINITY)
                        interval = MIN(interval, MIN(times[i] / 2, INTERVAL_USEC));
        return MAX(interval, INTERVAL_MIN_USEC);
}

/* Where there is a twin the process that serves is ended, and the worker lives on. */
static bool hand_over(Worker *w) {
        char buf[WORKER_HANG_STRING_MAX];
        pid_t pid = worker_get_serving_pid(w);

        if (w->twin.hangs && worker_is_taken_over(w, clock_now_usec()))
                return true;
        if (!worker_abort_serving(w))
                return false;
        log_event(LOG_ERR,
                        (.message_id = MESSAGE_ID_WORKER_HANGS, .worker = w->slot,
                                        .worker_pid = pid > 0 ? pid : w->pid, .generation = w->generation),
                        "Worker %u (pid %d) %s, ending it; its twin takes over.", w->slot,
                        pid > 0 ? pid : w->pid, worker_hang_to_string(w, buf));
        return true;
}

/* Its replacement is started first, though it serves nobody. */
static void replace(Slot *s, Worker *w) {
        char buf[WORKER_HANG_STRING_MAX];

        log_event(LOG_ERR,
                        (.message_id = MESSAGE_ID_WORKER_HANGS, .worker = w->slot, .worker_pid = w->pid,
                                        .generation = w->generation),
                        "Worker %u (pid %d) %s, replacing it.", w->slot, w->pid,
                        worker_hang_to_string(w, buf));
        if (s && s->current == w)
                slot_worker_lost(s, w);
        worker_abort(w);
}

void health_worker_hangs(Manager *m, Worker *w) {
        char buf[WORKER_HANG_STRING_MAX];

        worker_look_at_twin(w);
        if (w->state != WORKER_READY) /* a death was found, with which its trial has ended */
                return;
        Slot *s = manager_slot(m, w->slot); /* not its own any more, if it hangs after a trial that failed */
        bool incoming = s && s->incoming == w, handed_over = hand_over(w);
        if (!handed_over || incoming)
                snprintf(m->failure, sizeof(m->failure), "worker %u %s", w->slot,
                                worker_hang_to_string(w, buf));
        if (!handed_over)
                replace(s, w);
        if (incoming) {
                s->incoming = NULL;
                reload_on_lost(m);
        }
}

/* Of one that has never beaten nothing is asked: it is neither a native worker nor a Node app, or it has no
 * loop of ours. */
static bool heart_has_stopped(Worker *w, uint64_t now_usec, bool late) {
        uint64_t beats = w->cluster ? cluster_worker_get_heard(w->cluster) : board_cell_get_beats(w->cell);

        if (beats == 0)
                return false;
        switch (heartbeat_look(&w->heartbeat, beats, now_usec, w->watchdog_usec, late)) {
        case HEARTBEAT_PROBE:
                worker_probe(w);
                return false;
        case HEARTBEAT_WELL:
                return false;
        case HEARTBEAT_HANGS:
                return true;
        }
        return false;
}

/* Once it has said WATCHDOG=1 it has to go on. */
static bool is_silent(Worker *w, uint64_t now_usec, bool late) {
        if (w->alive_usec > 0 && late)
                w->alive_usec = now_usec;
        return w->alive_usec > 0 && now_usec - w->alive_usec >= w->watchdog_usec;
}

static void look_for_life(Manager *m, Worker *w, uint64_t now_usec, bool late) {
        if (w->watchdog_usec == 0 || worker_is_taken_over(w, now_usec))
                return;
        if (heart_has_stopped(w, now_usec, late) || is_silent(w, now_usec, late))
                health_worker_hangs(m, w);
}

static void look_at_limits(Worker *w, uint64_t now_usec) {
        char found[SIZE_STRING_MAX], limit[SIZE_STRING_MAX], reason[WORKER_TEXT_MAX],
                        age[DURATION_STRING_MAX];
        uint64_t bytes;

        if (w->max_age_usec > 0 && now_usec - w->started_usec >= w->max_age_usec) {
                snprintf(reason, sizeof(reason), "it is older than %s",
                                duration_to_string(w->max_age_usec, age));
                worker_leave(w, WORKER_LEAVES_FOR_AGE, reason);
        }
        if (w->max_memory_bytes > 0 && worker_get_memory(w, &bytes) >= 0 && bytes > w->max_memory_bytes) {
                snprintf(reason, sizeof(reason), "it uses %s of memory, more than %s",
                                size_to_string(bytes, found), size_to_string(w->max_memory_bytes, limit));
                worker_leave(w, WORKER_LEAVES_FOR_MEMORY, reason);
        }
}

static void look_at_agent(Manager *m, Worker *w, uint64_t now_usec, bool late) {
        if (w->state == WORKER_READY && w->watchdog_usec > 0 && is_silent(w, now_usec, late))
                agents_hang(m, w);
}

static void look_at_worker(Manager *m, Worker *w, uint64_t now_usec, bool late) {
        if (w->state == WORKER_READY && w->leave == WORKER_STAYS)
                look_at_limits(w, now_usec);
        if (w->state == WORKER_READY)
                look_for_life(m, w, now_usec, late);
}

/* A connection that nobody has accepted yet would have to wait for the next start. */
static bool connection_waits(const Manager *m) {
        for (size_t i = 0; i < m->listeners.n; i++) {
                struct pollfd p = { .fd = m->listeners.items[i].fd, .events = POLLIN };
                if (poll(&p, 1, 0) != 0)
                        return true;
        }
        return false;
}

static int look_for_arrivals(Manager *m) {
        int r;

        if (m->arrivals)
                return arrivals_look(m->arrivals);
        r = arrivals_new(&m->listeners, &m->arrivals);
        return r < 0 ? r : 1; /* before that there may have been one */
}

/* Only native workers count for themselves. Of the others' connections the kernel knows which are open, and
 * that some came and went. It goes through those of all the host for it, which takes it milliseconds: so it
 * is asked eight times in the idle time, and at its end. */
static int ask_kernel(Manager *m, uint64_t now_usec) {
        uint64_t limit_usec = m->config->idle_exit_usec;
        int r;

        r = look_for_arrivals(m);
        if (r < 0)
                return r;
        m->arrived += (uint64_t) r;
        if (now_usec - m->counted_usec < limit_usec / 8 && now_usec - m->idle.since_usec < limit_usec)
                return 0;
        r = connection_count(&m->listeners, &m->counted);
        if (r < 0)
                return r;
        m->counted_usec = now_usec;
        return 0;
}

static void warn_of_count(Manager *m, int error) {
        if (m->warned_of_count || error == -EAGAIN)
                return;
        m->warned_of_count = true;
        log_warning("%s: idle_exit is ignored: the connections of this kind of app cannot be counted: %s.",
                        m->config->path,
                        error == -ENONET ? "its sockets are of another network namespace (PrivateNetwork=)"
                                         : strerror(-error));
}

static void look_at_clients(Manager *m, uint64_t now_usec) {
        uint64_t accepted = 0, n = status_count_connections(m);
        char buf[DURATION_STRING_MAX];

        if (m->config->idle_exit_usec == 0 || !m->listeners.from_systemd || m->state != MANAGER_RUNNING)
                return;
        list_foreach (node, &m->workers)
                accepted += atomic_load_explicit(
                                &list_entry(node, Worker, node)->cell->accepted, memory_order_relaxed);
        if (n == 0 && !app_kind_is_native(m->config->app_kind)) {
                int r = ask_kernel(m, now_usec);
                if (r < 0)
                        warn_of_count(m, r);
                n = r < 0 ? 1 : m->counted; /* what cannot be counted has to be taken for busy */
                accepted += m->arrived;
        }
        if (!idle_look(&m->idle, n, accepted, now_usec, m->config->idle_exit_usec) || connection_waits(m))
                return;
        log_event(LOG_INFO, (.message_id = MESSAGE_ID_IDLE),
                        "No connection for %s: ending, until the next one starts the service again.",
                        duration_to_string(m->config->idle_exit_usec, buf));
        manager_stop(m);
}

/* One that has been well for a while is not failing any more, and what could not be filled is tried again.
 */
static void look_at_slot(Manager *m, Slot *s, uint64_t now_usec) {
        if (s->current && s->current->state == WORKER_READY &&
                        restart_is_well(&s->restart, now_usec - s->current->started_usec))
                log_event(LOG_NOTICE, (.message_id = MESSAGE_ID_SLOT_WELL, .worker = s->id),
                                "Worker %u is well again.", s->id);
        if (!s->retry)
                slot_fill(s);
}

void health_look(Manager *m, bool late) {
        uint64_t now_usec = clock_now_usec();

        if (m->state == MANAGER_STOPPING)
                return;
        list_foreach_safe (node, &m->workers)
                look_at_worker(m, list_entry(node, Worker, node), now_usec, late);
        if (m->state != MANAGER_STARTING) /* else those that are empty wait for the agents */
                for (unsigned i = 0; i < m->n_wanted && m->state != MANAGER_STOPPING; i++)
                        look_at_slot(m, m->slots[i], now_usec);
        list_foreach_safe (node, &m->agents.workers)
                look_at_agent(m, list_entry(node, Worker, node), now_usec, late);
        agents_look(m, now_usec);
        spares_keep(m); /* one that could not be started is tried again */
        look_at_clients(m, now_usec);
}
