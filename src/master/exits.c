/* SPDX-License-Identifier: MIT */
/* Exit records; see exits.h. */

#include "master/exits.h"

#include <inttypes.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>

#include "basic/clock.h"
#include "basic/log.h"
#include "basic/macro.h"
#include "basic/parse.h"
#include "ipc/json.h"
#include "muster/process.h"

#define FIELD_MAX 64

static const struct {
        const char *name;
        const char *message_id;
        int level;
} causes[_EXIT_CAUSE_MAX] = {
        [EXIT_RETIRED] = { "retired", MESSAGE_ID_WORKER_EXITED, LOG_INFO },
        [EXIT_REQUESTED] = { "requested", MESSAGE_ID_EXIT_REQUESTED, LOG_WARNING },
        [EXIT_MAX_REQUESTS] = { "max-requests", MESSAGE_ID_EXIT_LIMIT, LOG_INFO },
        [EXIT_MAX_MEMORY] = { "max-memory", MESSAGE_ID_EXIT_LIMIT, LOG_NOTICE },
        [EXIT_MAX_AGE] = { "max-age", MESSAGE_ID_EXIT_LIMIT, LOG_INFO },
        [EXIT_ABANDONED] = { "abandoned", MESSAGE_ID_WORKER_EXITED, LOG_INFO },
        [EXIT_STOPPED] = { "stopped", MESSAGE_ID_EXIT_STOPPED, LOG_WARNING },
        [EXIT_FAILURE_STATUS] = { "failed", MESSAGE_ID_EXIT_FAILED, LOG_WARNING },
        [EXIT_CRASHED] = { "crashed", MESSAGE_ID_EXIT_CRASHED, LOG_WARNING },
        [EXIT_START_TIMEOUT] = { "start-timeout", MESSAGE_ID_EXIT_START_TIMEOUT, LOG_WARNING },
        [EXIT_STOP_TIMEOUT] = { "stop-timeout", MESSAGE_ID_EXIT_STOP_TIMEOUT, LOG_WARNING },
        [EXIT_WATCHDOG] = { "watchdog", MESSAGE_ID_EXIT_WATCHDOG, LOG_ERR },
        [EXIT_OUT_OF_MEMORY] = { "out-of-memory", MESSAGE_ID_EXIT_OUT_OF_MEMORY, LOG_ERR },
};

const char *exit_cause_to_string(ExitCause cause) {
        return causes[cause].name;
}

/* Whether it did what it was told. One that dies of the order itself, as a program without a handler for the
 * signal, has nothing else to do; and one that wanted to go after an error of its own has a right to say so
 * by its status. */
static bool ended_as_told(const Worker *w) {
        if (!w->retired)
                return false;
        if (w->exit_code != CLD_EXITED)
                return w->exit_status == w->stop_signal;
        return w->exit_status == 0 || w->leave == WORKER_LEAVES_BY_REQUEST;
}

static ExitCause cause_of_told(const Worker *w) {
        static const ExitCause by_leave[_WORKER_LEAVE_MAX] = {
                [WORKER_STAYS] = EXIT_RETIRED,
                [WORKER_LEAVES_BY_REQUEST] = EXIT_REQUESTED,
                [WORKER_LEAVES_FOR_REQUESTS] = EXIT_MAX_REQUESTS,
                [WORKER_LEAVES_FOR_MEMORY] = EXIT_MAX_MEMORY,
                [WORKER_LEAVES_FOR_AGE] = EXIT_MAX_AGE,
        };

        return by_leave[w->leave];
}

ExitCause exit_cause_of(const Worker *w) {
        static const ExitCause by_kill[] = {
                [WORKER_KILL_START_TIMEOUT] = EXIT_START_TIMEOUT,
                [WORKER_KILL_STOP_TIMEOUT] = EXIT_STOP_TIMEOUT,
                [WORKER_KILL_WATCHDOG] = EXIT_WATCHDOG,
                [WORKER_KILL_ABANDONED] = EXIT_ABANDONED,
                [WORKER_KILL_UNFIT] = EXIT_FAILURE_STATUS,
        };

        if (w->kill != WORKER_KILL_NONE)
                return by_kill[w->kill];
        if (w->out_of_memory)
                return EXIT_OUT_OF_MEMORY;
        if (ended_as_told(w))
                return cause_of_told(w);
        if (w->exit_code != CLD_EXITED)
                return EXIT_CRASHED;
        return w->exit_status == 0 ? EXIT_STOPPED : EXIT_FAILURE_STATUS;
}

static ExitCause exit_cause_of_death(const WorkerDeath *d) {
        if (d->hung)
                return EXIT_WATCHDOG;
        if (d->out_of_memory)
                return EXIT_OUT_OF_MEMORY;
        if (d->code != CLD_EXITED)
                return EXIT_CRASHED;
        return d->status == 0 ? EXIT_STOPPED : EXIT_FAILURE_STATUS;
}

static uint64_t now_since_epoch(void) {
        struct timespec ts;

        clock_gettime(CLOCK_REALTIME, &ts);
        return (uint64_t) ts.tv_sec * USEC_PER_SEC + (uint64_t) ts.tv_nsec / NSEC_PER_USEC;
}

static uint64_t usec_of(const struct timeval *t) {
        return (uint64_t) t->tv_sec * USEC_PER_SEC + (uint64_t) t->tv_usec;
}

/* The kernel's figure counts what the process shared with this one before it became the worker: of a worker
 * that was never larger than the master it says nothing. */
static uint64_t peak_memory_of(const Worker *w) {
        struct rusage own;

        (void) getrusage(RUSAGE_SELF, &own); /* fails for wrong arguments only */
        return w->usage.ru_maxrss > own.ru_maxrss ? (uint64_t) w->usage.ru_maxrss * 1024 : 0;
}

static void log_record(const ExitRecord *r) {
        char cause[FIELD_MAX], status[FIELD_MAX], uptime[FIELD_MAX], memory[FIELD_MAX], cpu[FIELD_MAX];
        char serving[FIELD_MAX];
        const char *fields[LOG_EVENT_FIELDS_MAX + 1] = { cause, status, uptime, serving };
        size_t n = 4;

        snprintf(cause, sizeof(cause), "MUSTER_CAUSE=%s", exit_cause_to_string(r->cause));
        snprintf(status, sizeof(status), "MUSTER_%s=%d", r->code == CLD_EXITED ? "EXIT_STATUS" : "SIGNAL",
                        r->status);
        snprintf(uptime, sizeof(uptime), "MUSTER_UPTIME_USEC=%" PRIu64, r->uptime_usec);
        snprintf(serving, sizeof(serving), "MUSTER_SERVING_PID=%d",
                        r->serving_pid > 0 ? r->serving_pid : r->pid);
        snprintf(memory, sizeof(memory), "MUSTER_PEAK_MEMORY=%" PRIu64, r->peak_memory_bytes);
        snprintf(cpu, sizeof(cpu), "MUSTER_CPU_USEC=%" PRIu64, r->cpu_usec);
        fields[n++] = r->taken_over ? "MUSTER_TAKEN_OVER=1" : cpu;
        if (r->peak_memory_bytes > 0)
                fields[n++] = memory;
        if (*r->agent)
                log_event(causes[r->cause].level,
                                (.message_id = MESSAGE_ID_AGENT_ENDED, .agent = r->agent,
                                                .worker_pid = r->pid, .generation = r->generation,
                                                .fields = fields),
                                "Agent %s (pid %d) %s.", r->agent, r->pid, r->reason);
        else
                log_event(causes[r->cause].level,
                                (.message_id = r->taken_over ? MESSAGE_ID_TAKEN_OVER
                                                             : causes[r->cause].message_id,
                                                .worker = r->slot, .worker_pid = r->pid,
                                                .generation = r->generation, .fields = fields),
                                "Worker %u (pid %d) %s.", r->slot, r->pid, r->reason);
}

const ExitRecord *exits_add(Exits *e, const Worker *w) {
        ExitRecord *r = e->items + e->n++ % EXITS_MAX;

        *r = (ExitRecord){
                .slot = w->slot,
                .pid = w->pid,
                .serving_pid = worker_get_last_served_pid(w),
                .generation = w->generation,
                .cause = exit_cause_of(w),
                .code = w->exit_code,
                .status = w->exit_status,
                .time_usec = now_since_epoch(),
                .uptime_usec = w->exited_usec - w->started_usec,
                .peak_memory_bytes = peak_memory_of(w),
                .cpu_usec = usec_of(&w->usage.ru_utime) + usec_of(&w->usage.ru_stime),
        };
        strcpy(r->agent, w->agent);
        (void) worker_exit_to_string(w, r->reason);
        strcpy(r->status_text, w->status);
        log_record(r);
        return r;
}

const ExitRecord *exits_add_death(Exits *e, const Worker *w, const WorkerDeath *d) {
        ExitRecord *r = e->items + e->n++ % EXITS_MAX;

        *r = (ExitRecord){
                .slot = w->slot,
                .pid = d->pid,
                .serving_pid = d->pid,
                .generation = w->generation,
                .cause = exit_cause_of_death(d),
                .code = d->code,
                .status = d->status,
                .time_usec = now_since_epoch(),
                .uptime_usec = d->uptime_usec,
                .taken_over = true,
        };
        (void) worker_death_to_string(w, d, r->reason);
        strcpy(r->status_text, w->status);
        log_record(r);
        return r;
}

static void write_record(const ExitRecord *r, FILE *f) {
        static const char *const codes[] = {
                [CLD_EXITED] = "exited", [CLD_KILLED] = "killed", [CLD_DUMPED] = "dumped"
        };
        const char *name = r->code == CLD_EXITED ? NULL : sigabbrev_np(r->status);

        if (*r->agent)
                fprintf(f, "{\"slot\":null,\"agent\":\"%s\"",
                                r->agent); /* there is nothing to escape in its name */
        else
                fprintf(f, "{\"slot\":%u,\"agent\":null", r->slot);
        fprintf(f, ",\"pid\":%d,\"serving_pid\":", r->pid);
        if (r->serving_pid > 0)
                fprintf(f, "%d", r->serving_pid);
        else
                fputs("null", f);
        fprintf(f, ",\"generation\":%" PRIu64 ",\"cause\":\"%s\",\"code\":\"%s\",\"status\":%d,\"signal\":",
                        r->generation, exit_cause_to_string(r->cause), codes[r->code], r->status);
        if (name)
                fprintf(f, "\"SIG%s\"", name);
        else
                fputs("null", f);
        fprintf(f, ",\"taken_over\":%s,\"time_usec\":%" PRIu64 ",\"uptime_usec\":%" PRIu64,
                        r->taken_over ? "true" : "false", r->time_usec, r->uptime_usec);
        if (r->taken_over)
                fputs(",\"cpu_usec\":null,\"peak_memory_bytes\":", f);
        else
                fprintf(f, ",\"cpu_usec\":%" PRIu64 ",\"peak_memory_bytes\":", r->cpu_usec);
        if (r->peak_memory_bytes > 0)
                fprintf(f, "%" PRIu64 ",\"reason\":", r->peak_memory_bytes);
        else
                fputs("null,\"reason\":", f);
        json_write_string(f, r->reason);
        fputs(",\"status_text\":", f);
        json_write_string(f, r->status_text);
        fputc('}', f);
}

void exits_write(const Exits *e, FILE *f) {
        uint64_t first = e->n > EXITS_MAX ? e->n - EXITS_MAX : 0;

        fputc('[', f);
        for (uint64_t i = first; i < e->n; i++) {
                if (i > first)
                        fputc(',', f);
                write_record(e->items + i % EXITS_MAX, f);
        }
        fputc(']', f);
}
