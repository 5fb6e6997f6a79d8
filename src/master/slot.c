/* SPDX-License-Identifier: MIT */
/* The succession in a slot; see slot.h. */

#include "master/slot.h"

#include <inttypes.h>
#include <stdlib.h>

#include "basic/clock.h"
#include "basic/log.h"
#include "basic/parse.h"
#include "master/manager-internal.h"
#include "master/notify.h"

Slot *slot_new(Manager *m, unsigned id) {
        Slot *s = calloc(1, sizeof(*s));

        if (s)
                *s = (Slot){ .id = id, .manager = m };
        return s;
}

Slot *slot_free(Slot *s) {
        if (!s)
                return NULL;
        sd_event_source_disable_unref(s->retry);
        free(s);
        return NULL;
}

RestartPolicy slot_restart_policy(const Config *c) {
        return (RestartPolicy){
                .backoff_min_usec = c->restart_backoff_min_usec,
                .backoff_max_usec = c->restart_backoff_max_usec,
                .limit = c->restart_limit,
                .window_usec = c->restart_window_usec,
        };
}

static int on_retry(sd_event_source *source, uint64_t usec, void *userdata) {
        Slot *s = userdata;

        s->retry = sd_event_source_disable_unref(s->retry);
        slot_fill(s);
        return 0;
}

/* Without a timer the slot is filled by the next tick (health.c). */
static void slot_fill_later(Slot *s, uint64_t delay_usec) {
        int r;

        s->retry = sd_event_source_disable_unref(s->retry);
        s->retry_usec = clock_now_usec() + delay_usec;
        r = sd_event_add_time_relative(s->manager->event, &s->retry, CLOCK_MONOTONIC, delay_usec,
                        clock_accuracy_usec(delay_usec), on_retry, s);
        if (r < 0)
                log_error_errno(r, "Failed to set the timer for worker %u: %m", s->id);
}

static void log_pause(const Slot *s, bool was_failing, uint64_t delay_usec) {
        const Config *c = s->manager->config;
        char delay[DURATION_STRING_MAX], window[DURATION_STRING_MAX];

        duration_to_string(delay_usec, delay);
        if (s->restart.failing && !was_failing)
                log_event(LOG_ERR, (.message_id = MESSAGE_ID_SLOT_FAILING, .worker = s->id),
                                "Worker %u is failing: more than %u deaths within %s; trying again every %s.",
                                s->id, c->restart_limit, duration_to_string(c->restart_window_usec, window),
                                delay);
        else if (!s->restart.failing)
                log_event(LOG_WARNING, (.message_id = MESSAGE_ID_WORKER_BACKOFF, .worker = s->id),
                                "Worker %u died early %u times in a row, trying again in %s.", s->id,
                                s->restart.early_deaths, delay);
}

/* Fills the slot now or after the pause that its history asks for. */
static void slot_refill(Slot *s, uint64_t lived_usec) {
        Manager *m = s->manager;
        RestartPolicy policy = slot_restart_policy(m->config);
        bool was_failing = s->restart.failing;
        uint64_t delay = restart_after_death(&s->restart, &policy, clock_now_usec(), lived_usec);

        s->retry = sd_event_source_disable_unref(s->retry);
        if (m->state == MANAGER_STARTING)
                notify_extend_timeout(delay + m->config->workers_start_timeout_usec + TIMEOUT_MARGIN_USEC);
        if (delay == 0) {
                slot_fill(s);
                return;
        }
        log_pause(s, was_failing, delay);
        slot_fill_later(s, delay);
}

static Worker **slot_gap(Slot *s) {
        if (!s->current)
                return &s->current;
        return s->current->leave != WORKER_STAYS && !s->successor ? &s->successor : NULL;
}

void slot_fill(Slot *s) {
        Manager *m = s->manager;
        Worker **gap = slot_gap(s);

        if (m->state == MANAGER_STOPPING || !gap)
                return;
        Worker *spare = spares_take(m, s->id);
        if (spare) {
                *gap = spare;
                return;
        }
        if (manager_start_worker(m, s->id, m->config, m->generation, gap) >= 0)
                return;

        if (m->state == MANAGER_STARTING)
                manager_start_failed(m);
        else
                slot_refill(s, 0);
}

void slot_worker_ready(Slot *s, Worker *w) {
        if (s->successor != w)
                return;
        worker_retire(s->current);
        s->current = TAKE_PTR(s->successor);
}

/* The one that leaves has done nothing wrong as far as its slot is concerned, it even serves on. So there is
 * no history that would ask for a pause; but one that wants to leave as soon as it is ready is not to keep
 * the machine busy with nothing but starts. */
static void slot_replace(Slot *s) {
        uint64_t earliest = s->current->started_usec + s->manager->config->restart_backoff_min_usec;
        uint64_t now = clock_now_usec();

        if (s->successor || s->retry)
                return;
        if (now >= earliest)
                slot_fill(s);
        else
                slot_fill_later(s, earliest - now);
}

void slot_worker_leaves(Slot *s, Worker *w) {
        if (s->current == w && s->manager->state != MANAGER_STOPPING)
                slot_replace(s);
}

void slot_worker_lost(Slot *s, Worker *w) {
        uint64_t lived_usec = clock_now_usec() - w->started_usec;

        assert(w == s->current || w == s->successor);
        if (w == s->successor)
                s->successor = NULL;
        else
                s->current = TAKE_PTR(s->successor);
        if (slot_gap(s) && s->manager->state != MANAGER_STOPPING)
                slot_refill(s, lived_usec);
}

static void end_worker(Worker *w) {
        if (w)
                worker_abandon(w);
}

void slot_commit(Slot *s) {
        assert(s->incoming);
        end_worker(TAKE_PTR(s->successor));
        end_worker(s->current);
        s->current = TAKE_PTR(s->incoming);
        s->restart = (Restart){ .early_deaths = 0 };
        s->retry = sd_event_source_disable_unref(s->retry);
}

void slot_retire(Slot *s) {
        s->retry = sd_event_source_disable_unref(s->retry);
        end_worker(TAKE_PTR(s->successor));
        end_worker(TAKE_PTR(s->incoming));
        end_worker(TAKE_PTR(s->current));
}

bool slot_has_worker(const Slot *s, const Worker *w) {
        return w == s->current || w == s->successor || w == s->incoming;
}

bool slot_is_failing(const Slot *s) {
        return s->restart.failing && (!s->current || s->current->state != WORKER_READY);
}

const char *slot_state_to_string(const Slot *s) {
        if (s->current && s->current->state == WORKER_READY)
                return "serving";
        if (s->restart.failing)
                return "failing";
        return s->current ? "starting" : "waiting";
}
