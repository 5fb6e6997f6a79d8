/* SPDX-License-Identifier: MIT */
/* Agents; see agents.h. A process of an agent is a Worker, of kind "program", that has no slot and no
 * sockets: it starts, gets ready, hangs and ends as any other. Here is what follows from that. */

#include "master/agents.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "basic/clock.h"
#include "basic/log.h"
#include "basic/parse.h"
#include "master/command.h"
#include "master/forward.h"
#include "master/manager-internal.h"
#include "master/notify.h"

static const Listeners no_sockets = { .names = (char *) "" };

static Agent *agent_free(Agent *a) {
        if (!a)
                return NULL;
        list_remove(&a->node);
        worker_free(a->worker);
        sd_event_source_disable_unref(a->retry);
        config_free(a->config);
        config_free(a->next);
        config_free(a->incoming);
        free(a);
        return NULL;
}

static Agent *agent_new(Manager *m, const char *name) {
        Agent *a = calloc(1, sizeof(*a));

        if (!a)
                return NULL;
        a->manager = m;
        snprintf(a->name, sizeof(a->name), "%s", name);
        list_append(&m->agents.items, &a->node);
        return a;
}

static Agent *agent_of(const Manager *m, const Worker *w) {
        list_foreach (node, &m->agents.items)
                if (list_entry(node, Agent, node)->worker == w)
                        return list_entry(node, Agent, node);
        return NULL;
}

static Agent *find_agent(const Manager *m, const char *name) {
        list_foreach (node, &m->agents.items)
                if (strcmp(list_entry(node, Agent, node)->name, name) == 0)
                        return list_entry(node, Agent, node);
        return NULL;
}

bool agents_are_none(const Manager *m) {
        return list_empty(&m->agents.items);
}

bool agent_is_ready(const Agent *a) {
        return a->worker && a->worker->state == WORKER_READY;
}

static bool is_told_to_end(const Agent *a) {
        return a->worker && a->worker->state == WORKER_RETIRING;
}

const char *agent_state_to_string(const Agent *a) {
        if (agent_is_ready(a))
                return "ready";
        if (a->worker)
                return is_told_to_end(a) ? "ending" : "starting";
        return a->restart.failing ? "failing" : "waiting";
}

/*
 * One of them
 */

/* The generation coming up is what counts for one that is new, for others the committed one. */
static void take_newest(Agent *a) {
        Config **newest = a->is_new ? &a->incoming : &a->next;

        if (!*newest)
                return;
        config_free(a->config);
        a->config = TAKE_PTR(*newest);
        a->restart = (Restart){ .early_deaths = 0 };
        manager_fit_tick(a->manager); /* to its watchdog */
}

/* What is said of it is the reason why the start, or the reload, fails. */
static void set_failure_of_all(const Agent *a) {
        Manager *m = a->manager;

        if (m->state == MANAGER_STARTING || a->is_new)
                snprintf(m->failure, sizeof(m->failure), "agent %s %s", a->name, a->failure);
}

/* Returns 0 or a negative errno, logged, with the reason in a->failure. */
static int agent_start(Agent *a) {
        Manager *m = a->manager;
        WorkerPlace place = { .generation = a->is_new ? m->next_generation : m->generation };
        _cleanup_free_ char *error = NULL;
        int r;

        take_newest(a);
        a->config->app = a->is_new ? m->next_config : m->config;
        if (m->state != MANAGER_RUNNING)
                notify_extend_timeout(a->config->workers_start_timeout_usec + TIMEOUT_MARGIN_USEC);
        r = manager_start_process(m, &m->agents.environment, &place, a->config, &m->agents.workers,
                        &a->worker, &error);
        if (r == 0)
                return 0;
        snprintf(a->failure, sizeof(a->failure), "cannot be started: %s",
                        r == WORKER_INVALID && error ? error : strerror(r < 0 ? -r : ENOMEM));
        set_failure_of_all(a);
        log_event(LOG_ERR, (.agent = a->name), "Agent %s %s", a->name, a->failure);
        return r < 0 ? r : -EINVAL;
}

static void agent_refill(Agent *a, uint64_t lived_usec);

static void agent_fill(Agent *a) {
        if (a->manager->state == MANAGER_STOPPING || a->worker || !a->is_wanted)
                return;
        if (agent_start(a) < 0)
                agent_refill(a, 0);
}

static int on_retry(sd_event_source *source, uint64_t usec, void *userdata) {
        Agent *a = userdata;

        a->retry = sd_event_source_disable_unref(a->retry);
        agent_fill(a);
        return 0;
}

static void log_pause(const Agent *a, bool was_failing, uint64_t delay_usec) {
        const Config *c = a->manager->config;
        char delay[DURATION_STRING_MAX], window[DURATION_STRING_MAX];

        duration_to_string(delay_usec, delay);
        if (a->restart.failing && !was_failing)
                log_event(LOG_ERR, (.message_id = MESSAGE_ID_AGENT_BACKOFF, .agent = a->name),
                                "Agent %s is failing: more than %u deaths within %s; trying again every %s.",
                                a->name, c->restart_limit,
                                duration_to_string(c->restart_window_usec, window), delay);
        else if (!a->restart.failing)
                log_event(LOG_WARNING, (.message_id = MESSAGE_ID_AGENT_BACKOFF, .agent = a->name),
                                "Agent %s died early %u times in a row, trying again in %s.", a->name,
                                a->restart.early_deaths, delay);
}

/* Starts it again, now or after the pause that its history asks for. Without a timer the next tick does. */
static void agent_refill(Agent *a, uint64_t lived_usec) {
        RestartPolicy policy = slot_restart_policy(a->manager->config);
        bool was_failing = a->restart.failing;
        uint64_t delay = restart_after_death(&a->restart, &policy, clock_now_usec(), lived_usec);
        int r;

        a->retry = sd_event_source_disable_unref(a->retry);
        if (delay == 0) {
                agent_fill(a);
                return;
        }
        log_pause(a, was_failing, delay);
        a->retry_usec = clock_now_usec() + delay;
        r = sd_event_add_time_relative(a->manager->event, &a->retry, CLOCK_MONOTONIC, delay,
                        clock_accuracy_usec(delay), on_retry, a);
        if (r < 0)
                log_error_errno(r, "Failed to set the timer for agent %s: %m", a->name);
}

/*
 * All that are needed
 */

static bool is_needed(const Agent *a) {
        return a->is_new || (a->manager->state == MANAGER_STARTING && a->is_wanted);
}

/* Starts the first one that is not ready, if it is not under way. Returns as agents_prepare() does. */
static int start_next(Manager *m) {
        list_foreach (node, &m->agents.items) {
                Agent *a = list_entry(node, Agent, node);

                if (!is_needed(a) || agent_is_ready(a))
                        continue;
                return a->worker ? 0 : agent_start(a);
        }
        return 1;
}

static void go_on(Manager *m) {
        bool is_start = m->state == MANAGER_STARTING;
        int r;

        if (!is_start && (m->state != MANAGER_RELOADING || m->reload.step != RELOAD_AGENTS))
                return;
        r = start_next(m);
        if (r < 0)
                is_start ? manager_start_failed(m) : reload_on_lost(m);
        else if (r > 0)
                is_start ? manager_start_workers(m) : reload_on_agents_ready(m);
}

void agents_start(Manager *m) {
        go_on(m);
}

/*
 * What they tell
 */

static void on_ready(Worker *w, void *userdata) {
        Manager *m = userdata;
        Agent *a = agent_of(m, w);

        if (m->state == MANAGER_STOPPING)
                return;
        worker_set_ready(w);
        a->failure[0] = '\0';
        log_event(LOG_INFO,
                        (.message_id = MESSAGE_ID_AGENT_READY, .agent = a->name, .worker_pid = w->pid,
                                        .generation = w->generation),
                        "Agent %s (pid %d) is ready.", a->name, w->pid);
        go_on(m);
        status_notify(m, "");
}

/* There is no successor to wait for. */
static void on_leaves(Worker *w, void *userdata) {
        worker_retire(w);
        status_notify(userdata, "");
}

static void on_stops(Worker *w, void *userdata) {
        worker_set_retiring(w);
        status_notify(userdata, "");
}

static void on_hangs(Worker *w, void *userdata) {
        if (w->state == WORKER_READY)
                agents_hang(userdata, w);
}

static void on_extends(Worker *w, uint64_t usec, void *userdata) {
        const Manager *m = userdata;

        if (m->state != MANAGER_RUNNING)
                notify_extend_timeout(usec + TIMEOUT_MARGIN_USEC);
}

/* It may speak to workers; nobody speaks to it. */
static void on_forwards(Worker *w, const Forward *f, void *userdata) {
        const Manager *m = userdata;

        forward_from_worker(w, f, &m->workers);
}

static void on_status(Worker *w, void *userdata) {
        status_notify(userdata, "");
}

/* One of a generation before has ended: its place is free now, and that is no failure. */
static void agent_make_place(Agent *a) {
        Manager *m = a->manager;

        a->failure[0] = '\0';
        if (!a->is_new)
                agent_fill(a);
        else if (m->reload.step == RELOAD_AGENTS)
                go_on(m);
        else if (agent_start(a) < 0) /* it was there when the workers began to be started */
                reload_on_lost(m);
}

/* It may be gone afterwards. @is_before: of a process that is to be replaced by another one. */
static void agent_ended(Agent *a, bool is_before, uint64_t lived_usec) {
        Manager *m = a->manager;

        if (m->state == MANAGER_STOPPING)
                manager_check_finished(m);
        else if (is_before)
                agent_make_place(a);
        else if (a->is_new || m->state == MANAGER_STARTING) {
                set_failure_of_all(a);
                a->is_new ? reload_on_lost(m) : manager_start_failed(m);
        } else if (!a->is_wanted)
                agent_free(a);
        else
                agent_refill(a, lived_usec);
}

static void on_exited(Worker *w, void *userdata) {
        Manager *m = userdata;
        Agent *a = agent_of(m, w);
        uint64_t lived_usec = w->exited_usec - w->started_usec;
        bool is_before = a->is_new ? w->generation != m->next_generation : a->is_wanted && a->next;
        const ExitRecord *record = exits_add(&m->exits, w);

        manager_free_cell(m, w);
        orphans_worker_ended(m->orphans, w);
        snprintf(a->failure, sizeof(a->failure), "%s", record->reason);
        a->worker = worker_free(w);
        agent_ended(a, is_before, lived_usec);
        status_notify(m, "");
}

void agents_hang(Manager *m, Worker *w) {
        char buf[WORKER_HANG_STRING_MAX];

        log_event(LOG_ERR,
                        (.message_id = MESSAGE_ID_AGENT_HANGS, .agent = w->agent, .worker_pid = w->pid,
                                        .generation = w->generation),
                        "Agent %s (pid %d) %s, ending it.", w->agent, w->pid, worker_hang_to_string(w, buf));
        worker_abort(w);
        status_notify(m, "");
}

void agents_init(Agents *a) {
        list_init(&a->items);
        list_init(&a->workers);
}

/* The environment is that of the workers, less what concerns them alone. */
void agents_attach(Manager *m) {
        m->agents.environment = m->environment;
        m->agents.environment.listeners = &no_sockets;
        m->agents.environment.cluster = NULL;
        m->agents.environment.handlers = (WorkerHandlers){
                .ready = on_ready,
                .leaves = on_leaves,
                .stops = on_stops,
                .hangs = on_hangs,
                .extends = on_extends,
                .forwards = on_forwards,
                .status = on_status,
                .exited = on_exited,
        };
}

int agents_load(Manager *m) {
        for (size_t i = 0; i < m->config->n_agents; i++) {
                Agent *a = agent_new(m, m->config->agents[i]->agent_name);

                if (!a)
                        return -ENOMEM;
                a->config = TAKE_PTR(m->config->agents[i]);
                a->is_wanted = true;
        }
        return 0;
}

/*
 * Reload
 */

/* What a start would find to be wrong with words and environment is found here, also when the start comes
 * after the commit only. Returns 0 or a negative errno, with the reason in m->failure. */
static int check_incoming(Manager *m, const Agent *a) {
        const CommandIdentity identity = { .app = m->app, .agent = a->name, .socket_names = "", .mark = "" };
        _cleanup_(command_freep) Command *c = NULL;
        _cleanup_free_ char *error = NULL;
        int r;

        r = command_new(a->incoming, &identity, &c, &error);
        if (r == 0)
                return 0;
        snprintf(m->failure, sizeof(m->failure), "agent %s cannot be started: %s", a->name,
                        r == COMMAND_INVALID && error ? error : strerror(ENOMEM));
        return r < 0 ? r : -EINVAL;
}

/* What the committed generation does not want may still be there for workers before it. It is as good as a
 * new one once it is ready. If it ends before, another one takes its place. */
static int take_incoming(Manager *m, Config **config) {
        Agent *a = find_agent(m, (*config)->agent_name);

        if (!a)
                a = agent_new(m, (*config)->agent_name);
        if (!a) {
                snprintf(m->failure, sizeof(m->failure), "out of memory");
                return -ENOMEM;
        }
        config_free(a->incoming);
        a->incoming = TAKE_PTR(*config);
        a->incoming->app = m->next_config;
        a->is_new = !a->is_wanted;
        return check_incoming(m, a);
}

int agents_prepare(Manager *m) {
        for (size_t i = 0; i < m->next_config->n_agents; i++) {
                int r = take_incoming(m, m->next_config->agents + i);

                if (r < 0)
                        return r;
        }
        return start_next(m);
}

static void agent_commit(Agent *a) {
        bool was_new = a->is_new;

        a->is_wanted = was_new || a->incoming;
        a->is_new = false;
        a->next = config_free(a->next);
        if (a->incoming && !config_agent_is_same(a->incoming, a->config))
                a->next = TAKE_PTR(a->incoming);
        a->incoming = config_free(a->incoming);
}

void agents_commit(Manager *m) {
        list_foreach (node, &m->agents.items)
                agent_commit(list_entry(node, Agent, node));
        agents_tidy(m);
}

void agents_roll_back(Manager *m) {
        list_foreach_safe (node, &m->agents.items) {
                Agent *a = list_entry(node, Agent, node);

                a->is_new = false;
                a->incoming = config_free(a->incoming);
                if (!a->is_wanted && !a->worker)
                        agent_free(a);
        }
        agents_tidy(m);
}

/* One before it, or one of a reload that failed: either finishes what it has. */
static bool another_generation_lives(const Manager *m) {
        list_foreach (node, &m->workers)
                if (list_entry(node, Worker, node)->generation != m->generation)
                        return true;
        return false;
}

/* Not wanted any more: it ends, and is dropped then. */
static void agent_end(Agent *a) {
        a->retry = sd_event_source_disable_unref(a->retry);
        if (a->worker)
                worker_retire(a->worker);
        else
                agent_free(a);
}

/* Configured otherwise: when the process has ended, the next one is started. */
static void agent_replace(Agent *a) {
        a->retry = sd_event_source_disable_unref(a->retry);
        if (a->worker)
                worker_retire(a->worker);
        else
                agent_fill(a);
}

void agents_tidy(Manager *m) {
        if (m->state == MANAGER_STOPPING || another_generation_lives(m))
                return;
        list_foreach_safe (node, &m->agents.items) {
                Agent *a = list_entry(node, Agent, node);

                if (a->is_new || a->incoming) /* the reload under way decides */
                        continue;
                if (!a->is_wanted)
                        agent_end(a);
                else if (a->next)
                        agent_replace(a);
        }
}

/*
 * The end
 */

bool agents_stop(Manager *m) {
        for (List *node = m->agents.items.prev; node != &m->agents.items; node = node->prev) {
                Agent *a = list_entry(node, Agent, node);

                if (!a->worker)
                        continue;
                if (!is_told_to_end(a))
                        notify_extend_timeout(a->worker->stop_timeout_usec + TIMEOUT_MARGIN_USEC);
                worker_retire(a->worker);
                return false;
        }
        return true;
}

void agents_kill(Manager *m) {
        list_foreach (node, &m->agents.workers)
                worker_kill(list_entry(node, Worker, node), WORKER_KILL_ABANDONED);
}

void agents_done(Manager *m) {
        list_foreach_safe (node, &m->agents.items)
                agent_free(list_entry(node, Agent, node));
}

/*
 * Health
 */

uint64_t agents_watchdog_usec(const Manager *m) {
        uint64_t usec = USEC_INFINITY;

        list_foreach (node, &m->agents.items) {
                const Config *c = list_entry(node, Agent, node)->config;

                if (c && c->workers_watchdog_usec > 0)
                        usec = MIN(usec, c->workers_watchdog_usec);
        }
        return usec;
}

void agents_look(Manager *m, uint64_t now_usec) {
        list_foreach (node, &m->agents.items) {
                Agent *a = list_entry(node, Agent, node);

                if (agent_is_ready(a) && restart_is_well(&a->restart, now_usec - a->worker->started_usec))
                        log_event(LOG_NOTICE, (.message_id = MESSAGE_ID_AGENT_WELL, .agent = a->name),
                                        "Agent %s is well again.", a->name);
                if (!a->retry && m->state != MANAGER_STARTING)
                        agent_fill(a);
        }
}
