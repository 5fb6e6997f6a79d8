/* SPDX-License-Identifier: MIT */
/* How it all is: a line for systemd, and everything as JSON. */

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "basic/clock.h"
#include "basic/macro.h"
#include "build-config.h"
#include "ipc/json.h"
#include "master/manager-internal.h"
#include "master/notify.h"

#define NOTIFY_INTERVAL_USEC (1 * USEC_PER_SEC)
#define NOTIFY_BURST         100

unsigned status_count_ready(const Manager *m) {
        unsigned n = 0;

        for (unsigned i = 0; i < m->n_slots; i++)
                n += m->slots[i]->current && m->slots[i]->current->state == WORKER_READY;
        return n;
}

unsigned status_count_workers(const Manager *m) {
        unsigned n = 0;

        list_foreach (node, &m->workers)
                n++;
        return n;
}

static unsigned count_failing(const Manager *m) {
        unsigned n = 0;

        for (unsigned i = 0; i < m->n_wanted && i < m->n_slots; i++)
                n += slot_is_failing(m->slots[i]);
        return n;
}

static unsigned count_agents(const Manager *m, bool ready_only) {
        unsigned n = 0;

        list_foreach (node, &m->agents.items) {
                const Agent *a = list_entry(node, Agent, node);

                n += a->is_wanted && (!ready_only || agent_is_ready(a));
        }
        return n;
}

static unsigned count_agents_that_run(const Manager *m) {
        unsigned n = 0;

        list_foreach (node, &m->agents.workers)
                n++;
        return n;
}

static uint64_t connections_of(const Worker *w) {
        return atomic_load_explicit(&w->cell->connections, memory_order_relaxed);
}

static uint64_t requests_of(const Worker *w) {
        return atomic_load_explicit(&w->cell->requests, memory_order_relaxed);
}

uint64_t status_count_connections(const Manager *m) {
        uint64_t n = 0;

        list_foreach (node, &m->workers)
                n += connections_of(list_entry(node, Worker, node));
        return n;
}

/* A line under way; what does not fit is cut. */
typedef struct Line {
        char *buf;
        size_t n;
} Line;

static _printf_(2, 3) void add(Line *l, const char *format, ...) {
        va_list ap;

        va_start(ap, format);
        int n = vsnprintf(l->buf + l->n, STATUS_MAX - l->n, format, ap);
        va_end(ap);
        l->n = MIN(l->n + (size_t) MAX(n, 0), (size_t) STATUS_MAX - 1);
}

/* Of those that are well there is nothing to say. */
static void add_agents(const Manager *m, Line *l) {
        list_foreach (node, &m->agents.items) {
                const Agent *a = list_entry(node, Agent, node);

                if (a->is_wanted && !agent_is_ready(a))
                        add(l, "; agent %s is %s%s%s", a->name, agent_state_to_string(a),
                                        *a->failure ? ": it " : "", a->failure);
        }
}

static void add_running(const Manager *m, Line *l) {
        unsigned failing = count_failing(m);

        add(l, "%u/%u workers ready, ", status_count_ready(m), m->n_wanted);
        if (app_kind_is_native(m->config->app_kind))
                add(l, "%" PRIu64 " connections, ", status_count_connections(m));
        add(l, "generation %" PRIu64, m->generation);
        if (failing > 0)
                add(l, "; %u failing", failing);
        if (*m->failure)
                add(l, "; %s", m->failure);
        add_agents(m, l);
        for (unsigned i = 0; i < m->n_slots; i++) {
                const Worker *w = m->slots[i]->current;
                if (w && (*w->status || w->reloading))
                        add(l, "; worker %u%s: %s", w->slot, w->reloading ? " (reloading)" : "",
                                        *w->status ? w->status : "-");
        }
}

void status_format_stopping(const Manager *m, char buf[static STATUS_MAX]) {
        Line l = { .buf = buf };
        unsigned agents = count_agents_that_run(m);

        if (agents > 0 && list_empty(&m->workers)) {
                add(&l, "Stopping: %u agent%s end%s", agents, agents == 1 ? "" : "s",
                                agents == 1 ? "s" : "");
                return;
        }
        add(&l, "Stopping: %u workers finish", status_count_workers(m));
        if (app_kind_is_native(m->config->app_kind))
                add(&l, " %" PRIu64 " connections", status_count_connections(m));
}

static void format_status(const Manager *m, char buf[static STATUS_MAX]) {
        Line l = { .buf = buf };

        buf[0] = '\0';
        switch (m->state) {
        case MANAGER_STARTING:
                add(&l, "Starting: %u/%u workers ready", status_count_ready(m), m->n_wanted);
                if (!agents_are_none(m))
                        add(&l, ", %u/%u agents", count_agents(m, /* ready_only= */ true),
                                        count_agents(m, /* ready_only= */ false));
                break;
        case MANAGER_STOPPING:
                if (m->exit_status != 0)
                        add(&l, "Failed to start: %s", m->failure);
                else
                        status_format_stopping(m, buf);
                break;
        default:
                add_running(m, &l);
        }
}

/* Workers that come and go all the time are no reason to keep systemd busy, for which sd_notify(3) waits:
 * what is too much is left to the next tick. */
static bool may_notify(Manager *m) {
        uint64_t now_usec = clock_now_usec();

        if (now_usec - m->notified_usec >= NOTIFY_INTERVAL_USEC) {
                m->notified_usec = now_usec;
                m->n_notified = 0;
        }
        return m->n_notified++ < NOTIFY_BURST;
}

void status_notify(Manager *m, const char *state) {
        char status[STATUS_MAX];

        format_status(m, status);
        if (!*state && (strcmp(status, m->status) == 0 || !may_notify(m)))
                return;
        strcpy(m->status, status);
        notify_status(state, "%s", status);
}

/*
 * JSON
 */

static void write_text(FILE *f, const char *name, const char *text) {
        fprintf(f, "\"%s\":", name);
        if (text && *text)
                json_write_string(f, text);
        else
                fputs("null", f);
}

/* What is not known is null. */
static void write_number(FILE *f, const char *name, bool known, uint64_t value) {
        if (known)
                fprintf(f, ",\"%s\":%" PRIu64, name, value);
        else
                fprintf(f, ",\"%s\":null", name);
}

/* Native workers count for themselves; what a Node app is passed is counted here. */
static void write_counts(const Worker *w, FILE *f) {
        bool native = app_kind_is_native(w->kind), node = w->cluster;
        uint64_t lag = node ? cluster_worker_get_lag_usec(w->cluster) : 0;

        write_number(f, "connections", native, connections_of(w));
        write_number(f, "requests", native, requests_of(w));
        write_number(f, "passed", node, node ? cluster_worker_get_taken(w->cluster) : 0);
        write_number(f, "in_flight", node, node ? cluster_worker_get_in_flight(w->cluster) : 0);
        write_number(f, "lag_usec", lag > 0, lag);
        write_number(f, "messages_lost", true, w->n_lost);
        write_number(f, "messages_refused", true, w->n_refused);
}

/* The process that was started is the keeper then. */
static void write_twin(const Worker *w, FILE *f) {
        pid_t worker = worker_get_serving_pid(w), twin = worker_get_twin_pid(w);
        bool known = worker_has_keeper(w);

        write_number(f, "worker_pid", known && worker > 0, (uint64_t) worker);
        write_number(f, "twin_pid", known && twin > 0, (uint64_t) twin);
        write_number(f, "takeovers", known, worker_get_takeovers(w));
}

static void write_slot(const Slot *s, uint64_t now_usec, FILE *f) {
        fprintf(f, "{\"slot\":%u,\"state\":\"%s\",\"early_deaths\":%u,\"retry_in_usec\":", s->id,
                        slot_state_to_string(s), s->restart.early_deaths);
        if (s->retry)
                fprintf(f, "%" PRIu64 "}", s->retry_usec > now_usec ? s->retry_usec - now_usec : 0);
        else
                fputs("null}", f);
}

static void write_process(const Worker *w, uint64_t now_usec, FILE *f) {
        static const char *const states[_WORKER_STATE_MAX] = {
                [WORKER_STARTING] = "starting",
                [WORKER_READY] = "ready",
                [WORKER_RETIRING] = "retiring",
                [WORKER_EXITED] = "exited",
        };
        bool leaving = w->state == WORKER_READY && w->leave != WORKER_STAYS;
        const char *state = leaving ? "leaving" : w->waits ? "spare" : states[w->state];
        uint64_t memory, cpu;

        fprintf(f,
                        "{\"slot\":%u,\"pid\":%d,\"state\":\"%s\",\"generation\":%" PRIu64
                        ",\"uptime_usec\":%" PRIu64,
                        w->slot, w->pid, state, w->generation, now_usec - w->started_usec);
        write_counts(w, f);
        write_twin(w, f);
        write_number(f, "memory_bytes", worker_get_memory(w, &memory) >= 0, memory);
        write_number(f, "cpu_usec", worker_get_cpu(w, &cpu) >= 0, cpu);
        fputc(',', f);
        write_text(f, "status", w->status);
        fputc(',', f);
        write_text(f, "reason", worker_leave_to_string(w));
        fputc('}', f);
}

static void write_process_of_agent(const Worker *w, uint64_t now_usec, FILE *f) {
        uint64_t memory = 0, cpu = 0;

        write_number(f, "pid", w, w ? (uint64_t) w->pid : 0);
        write_number(f, "generation", w, w ? w->generation : 0);
        write_number(f, "uptime_usec", w, w ? now_usec - w->started_usec : 0);
        write_number(f, "memory_bytes", w && worker_get_memory(w, &memory) >= 0, memory);
        write_number(f, "cpu_usec", w && worker_get_cpu(w, &cpu) >= 0, cpu);
        fputc(',', f);
        write_text(f, "status", w ? w->status : NULL);
}

static void write_agent(const Agent *a, uint64_t now_usec, FILE *f) {
        bool waits = a->retry && a->retry_usec > now_usec;

        fprintf(f, "{\"name\":\"%s\",\"state\":\"%s\"", a->name, agent_state_to_string(a));
        write_process_of_agent(a->worker, now_usec, f);
        fprintf(f, ",\"early_deaths\":%u", a->restart.early_deaths);
        write_number(f, "retry_in_usec", a->retry, waits ? a->retry_usec - now_usec : 0);
        fputc(',', f);
        write_text(f, "failure", a->failure);
        fputc('}', f);
}

static void write_agents(const Manager *m, uint64_t now_usec, FILE *f) {
        const char *separator = "";

        fputs(",\"agents\":[", f);
        list_foreach (node, &m->agents.items) {
                fputs(separator, f);
                write_agent(list_entry(node, Agent, node), now_usec, f);
                separator = ",";
        }
        fputc(']', f);
}

static void write_head(const Manager *m, uint64_t now_usec, FILE *f) {
        static const char *const states[_MANAGER_STATE_MAX] = {
                [MANAGER_STARTING] = "starting",
                [MANAGER_RUNNING] = "running",
                [MANAGER_RELOADING] = "reloading",
                [MANAGER_STOPPING] = "stopping",
        };
        char status[STATUS_MAX];
        uint64_t requests = 0;

        list_foreach (node, &m->workers)
                requests += requests_of(list_entry(node, Worker, node));
        format_status(m, status);

        fputs("{\"app\":", f);
        json_write_string(f, m->app);
        fprintf(f, ",\"state\":\"%s\",\"pid\":%d,\"version\":\"" MUSTER_VERSION "\",\"config\":",
                        states[m->state], getpid());
        json_write_string(f, m->config->path);
        fprintf(f, ",\"generation\":%" PRIu64 ",\"uptime_usec\":%" PRIu64 ",", m->generation,
                        now_usec - m->started_usec);
        write_text(f, "status", status);
        fputc(',', f);
        write_text(f, "failure", m->failure);
        fprintf(f, ",\"workers\":{\"wanted\":%u,\"ready\":%u,\"failing\":%u}", m->n_wanted,
                        status_count_ready(m), count_failing(m));
        write_number(f, "connections", app_kind_is_native(m->config->app_kind), status_count_connections(m));
        write_number(f, "requests", app_kind_is_native(m->config->app_kind), requests);
        write_number(f, "passed", m->config->app_kind == APP_NODE,
                        cluster_count_accepted(m->environment.cluster));
}

void status_write(const Manager *m, FILE *f) {
        uint64_t now_usec = clock_now_usec();
        bool first = true;

        write_head(m, now_usec, f);
        fputs(",\"slots\":[", f);
        for (unsigned i = 0; i < m->n_slots && i < m->n_wanted; i++) {
                fputs(i > 0 ? "," : "", f);
                write_slot(m->slots[i], now_usec, f);
        }
        fputs("],\"processes\":[", f);
        list_foreach (node, &m->workers) {
                fputs(first ? "" : ",", f);
                write_process(list_entry(node, Worker, node), now_usec, f);
                first = false;
        }
        fputc(']', f);
        write_agents(m, now_usec, f);
        fputc('}', f);
}
