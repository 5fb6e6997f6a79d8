/* SPDX-License-Identifier: MIT */
/* Spares: workers that have loaded the app and stand in its first listen(), whose answer the master holds
 * back. One of them takes the place of a worker that has died or is to be replaced, at once, and a new one
 * is started behind it. They belong to the committed generation. */

#include <inttypes.h>

#include "basic/clock.h"
#include "basic/log.h"
#include "basic/parse.h"
#include "master/manager-internal.h"

/* A spare that has just become a worker answers its first requests, which cost it the most, before the next
 * one that loads the app competes with it for the CPU. */
#define PAUSE_USEC (100 * USEC_PER_MSEC)

static bool is_spare(const Worker *w) {
        return w->slot == 0 && w->state == WORKER_STARTING;
}

static unsigned count_spares(const Manager *m) {
        unsigned n = 0;

        list_foreach (node, &m->workers)
                n += is_spare(list_entry(node, Worker, node));
        return n;
}

/* Those beyond the first @n of this generation. */
static void end_all_but(Manager *m, unsigned n) {
        list_foreach_safe (node, &m->workers) {
                Worker *w = list_entry(node, Worker, node);

                if (!is_spare(w))
                        continue;
                if (w->generation == m->generation && n > 0)
                        n--;
                else
                        worker_abandon(w);
        }
}

static void start_missing(Manager *m) {
        Worker *w;

        if (m->state != MANAGER_RUNNING || status_count_ready(m) < m->n_wanted) /* who serves comes first */
                return;
        for (unsigned n = count_spares(m); n < m->config->workers_spare; n++)
                if (manager_start_worker(m, 0, m->config, m->generation, &w) < 0)
                        return; /* tried again at the next tick (health.c) */
}

static int on_retry(sd_event_source *source, uint64_t usec, void *userdata) {
        Manager *m = userdata;

        m->spare_retry = sd_event_source_disable_unref(m->spare_retry);
        start_missing(m);
        return 0;
}

static void start_later(Manager *m, uint64_t delay_usec) {
        int r = sd_event_add_time_relative(m->event, &m->spare_retry, CLOCK_MONOTONIC, delay_usec,
                        clock_accuracy_usec(delay_usec), on_retry, m);

        if (r < 0)
                log_error_errno(r, "Failed to set the timer for a spare worker: %m");
}

void spares_keep(Manager *m) {
        if (m->state != MANAGER_RUNNING)
                return;
        end_all_but(m, m->config->workers_spare);
        if (!m->spare_retry && count_spares(m) < m->config->workers_spare)
                start_later(m, PAUSE_USEC);
}

Worker *spares_take(Manager *m, unsigned slot) {
        list_foreach (node, &m->workers) {
                Worker *w = list_entry(node, Worker, node);

                if (!is_spare(w) || !w->waits || w->generation != m->generation)
                        continue;
                log_event(LOG_INFO, (.worker = slot, .worker_pid = w->pid, .generation = w->generation),
                                "The spare worker (pid %d) becomes worker %u.", w->pid, slot);
                worker_take_slot(w, slot);
                return w;
        }
        return NULL;
}

/* A spare that dies by itself is tried again with pauses, as a worker is. */
void spares_lost(Manager *m, const Worker *w) {
        const RestartPolicy policy = slot_restart_policy(m->config);
        uint64_t now_usec = clock_now_usec();

        if (m->state == MANAGER_STOPPING || w->retired || w->kill == WORKER_KILL_ABANDONED || m->spare_retry)
                return;
        start_later(m, restart_after_death(
                                       &m->spare_restart, &policy, now_usec, now_usec - w->started_usec));
}

void spares_end(Manager *m) {
        m->spare_retry = sd_event_source_disable_unref(m->spare_retry);
        end_all_but(m, 0);
}
