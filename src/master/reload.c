/* SPDX-License-Identifier: MIT */
/* A reload carried out; what comes next is decided in reload-policy.c. */

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "basic/clock.h"
#include "basic/log.h"
#include "basic/macro.h"
#include "basic/memory.h"
#include "basic/parse.h"
#include "master/manager-internal.h"
#include "master/notify.h"

typedef struct Waiter {
        List node;
        ControlRequest *request;
} Waiter;

static void reload_go_on(Manager *m);

/* Tells those who wait; @code and @text as for control_request_finish(). */
static void answer(List *waiters, const char *code, const char *text) {
        while (!list_empty(waiters)) {
                Waiter *w = list_entry(waiters->next, Waiter, node);

                control_request_finish(w->request, code, text);
                list_remove(&w->node);
                free(w);
        }
}

/* Both ends: systemd and who has asked are told, and what was asked for meanwhile begins. */
static void reload_finished(Manager *m, const char *code, const char *text) {
        answer(&m->reload_waiters, code, text);
        m->soak = sd_event_source_disable_unref(m->soak);
        m->next_config = config_free(m->next_config);
        manager_set_state(m, MANAGER_RUNNING);
        status_notify(m, "READY=1");
        memory_trim();
        spares_keep(m);
        if (m->reload_again)
                reload_request(m);
}

static void reload_commit(Manager *m) {
        unsigned n = m->reload.n_workers;
        char result[96];

        config_free(m->config);
        m->config = TAKE_PTR(m->next_config);
        m->generation = m->next_generation;
        m->n_wanted = n;
        m->failure[0] = '\0';
        log_set_generation(m->generation);
        agents_commit(m);

        for (unsigned i = 0; i < n; i++)
                slot_commit(m->slots[i]);
        manager_drop_slots(m, n);
        log_event(LOG_INFO, (.message_id = MESSAGE_ID_RELOADED),
                        "Generation %" PRIu64 " serves with %u worker%s.", m->generation, n,
                        n == 1 ? "" : "s");
        manager_config_changed(m);
        m->spare_restart = (Restart){ .early_deaths = 0 };
        snprintf(result, sizeof(result), "{\"generation\":%" PRIu64 ",\"workers\":%u}", m->generation, n);
        reload_finished(m, NULL, result);
}

/* m->failure says why. A new worker that serves already finishes what it has. */
static void reload_roll_back(Manager *m, ReloadStep step) {
        char why[FAILURE_MAX];

        strcpy(why, m->failure);
        for (unsigned i = 0; i < m->n_slots; i++) {
                Worker *w = TAKE_PTR(m->slots[i]->incoming);

                if (w)
                        worker_abandon(w);
        }
        manager_drop_slots(m, m->n_wanted);
        agents_roll_back(m);

        snprintf(m->failure, sizeof(m->failure), "reload failed: %.*s", (int) sizeof(m->failure) - 32, why);
        log_event(LOG_ERR, (.message_id = MESSAGE_ID_RELOAD_FAILED),
                        "Reload failed, generation %" PRIu64 " goes on: %s", m->generation, why);
        log_debug("The reload had come to %s.", reload_step_to_string(step));
        reload_finished(m, "failed", why);
}

static int reload_read(Manager *m) {
        _cleanup_free_ char *error = NULL;
        int r;

        r = config_load(m->config->path, &m->next_config, &error);
        if (r == 0)
                r = config_resolve(m->next_config, m->app, &error);
        if (r == 0)
                r = listeners_check(&m->listeners, m->next_config, &error);
        if (r == 0)
                return 0;
        snprintf(m->failure, sizeof(m->failure), "%s",
                        r == CONFIG_INVALID && error ? error : strerror(ENOMEM));
        return r;
}

static int on_soaked(sd_event_source *source, uint64_t usec, void *userdata) {
        Manager *m = userdata;

        m->soak = sd_event_source_disable_unref(m->soak);
        reload_go_on(m);
        return 0;
}

static void reload_wait(Manager *m) {
        uint64_t usec = m->reload.soak_usec;
        int r;

        if (m->reload.step != RELOAD_SOAK || m->soak)
                return;
        r = sd_event_add_time_relative(
                        m->event, &m->soak, CLOCK_MONOTONIC, usec, clock_accuracy_usec(usec), on_soaked, m);
        if (r >= 0)
                return;
        snprintf(m->failure, sizeof(m->failure), "no timer can be set: %s", strerror(-r));
        reload_on_lost(m);
}

static void reload_start_worker(Manager *m) {
        Slot *s = m->slots[m->reload.n_started];

        notify_extend_timeout(m->next_config->workers_start_timeout_usec + m->reload.soak_usec +
                              TIMEOUT_MARGIN_USEC);
        if (manager_start_worker(m, s->id, m->next_config, m->next_generation, &s->incoming) >= 0)
                reload_worker_started(&m->reload);
        else
                reload_failed(&m->reload);
}

static void reload_go_on(Manager *m) {
        for (;;) {
                ReloadStep step = m->reload.step;

                switch (reload_next(&m->reload, clock_now_usec())) {
                case RELOAD_START:
                        reload_start_worker(m);
                        break;
                case RELOAD_WAIT:
                        reload_wait(m);
                        return;
                case RELOAD_COMMIT:
                        reload_commit(m);
                        return;
                case RELOAD_ROLL_BACK:
                        reload_roll_back(m, step);
                        return;
                }
        }
}

void reload_on_ready(Manager *m) {
        reload_worker_ready(&m->reload, clock_now_usec());
        reload_go_on(m);
}

void reload_on_lost(Manager *m) {
        reload_failed(&m->reload);
        reload_go_on(m);
}

void reload_on_agents_ready(Manager *m) {
        reload_agents_ready(&m->reload);
        reload_go_on(m);
}

/* What cannot be had fails the reload before its first step. */
static void reload_prepare(Manager *m) {
        int r;

        reload_init(&m->reload, 1, 0);
        if (reload_read(m) != 0) {
                reload_failed(&m->reload);
                return;
        }
        m->next_generation++;
        reload_init(&m->reload, manager_wanted_workers(m->next_config), m->next_config->workers_soak_usec);
        if (manager_add_slots(m, m->reload.n_workers) < 0) {
                snprintf(m->failure, sizeof(m->failure), "out of memory");
                reload_failed(&m->reload);
                return;
        }
        r = agents_prepare(m);
        if (r < 0)
                reload_failed(&m->reload);
        else if (r == 0)
                reload_await_agents(&m->reload);
}

void reload_request(Manager *m) {
        char state[64];

        if (m->state != MANAGER_RUNNING) {
                m->reload_again = m->state != MANAGER_STOPPING;
                return;
        }
        m->reload_again = false;
        while (!list_empty(&m->reload_queue)) {
                List *node = m->reload_queue.next;

                list_remove(node);
                list_append(&m->reload_waiters, node);
        }
        manager_set_state(m, MANAGER_RELOADING);
        snprintf(state, sizeof(state), "RELOADING=1\nMONOTONIC_USEC=%" PRIu64, clock_now_usec());
        status_notify(m, state);
        reload_prepare(m);
        reload_go_on(m);
}

void reload_request_by(Manager *m, ControlRequest *request) {
        Waiter *w = NULL;

        if (m->state == MANAGER_STOPPING) {
                control_request_finish(request, "busy", "The service is stopping.");
                return;
        }
        w = malloc(sizeof(*w));
        if (!w) {
                control_request_finish(request, "failed", "Out of memory.");
                return;
        }
        *w = (Waiter){ .request = request };
        list_append(&m->reload_queue, &w->node);
        reload_request(m);
}

void reload_cancel(Manager *m) {
        m->reload_again = false;
        m->soak = sd_event_source_disable_unref(m->soak);
        answer(&m->reload_waiters, "failed", "The service was stopped in the middle of the reload.");
        answer(&m->reload_queue, "failed", "The service was stopped before the reload began.");
}
