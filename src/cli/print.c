/* SPDX-License-Identifier: MIT */
/* The master's JSON for people; see print.h. */

#include "cli/print.h"

#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "basic/macro.h"
#include "basic/text.h"
#include "cli/human.h"
#include "cli/table.h"

static void json_freep(json_t **json) {
        json_decref(*json);
}
#define _cleanup_json_ _cleanup_(json_freep)

static json_t *load_object(const char *body, size_t n) {
        json_t *json = json_loadb(body, n, 0, NULL);

        if (json_is_object(json))
                return json;
        json_decref(json);
        return NULL;
}

/* The text of a member, NULL if there is none. */
static const char *get_text(const json_t *object, const char *key) {
        const char *text = json_string_value(json_object_get(object, key));

        return text && *text ? text : NULL;
}

static bool get_number(const json_t *object, const char *key, uint64_t *ret) {
        const json_t *value = json_object_get(object, key);

        if (!json_is_integer(value) || json_integer_value(value) < 0)
                return false;
        *ret = (uint64_t) json_integer_value(value);
        return true;
}

/* These three: NULL if there is none. */
static const char *number(const json_t *object, const char *key, char buf[static HUMAN_MAX]) {
        uint64_t n;

        if (!get_number(object, key, &n))
                return NULL;
        snprintf(buf, HUMAN_MAX, "%" PRIu64, n);
        return buf;
}

static const char *duration(const json_t *object, const char *key, char buf[static HUMAN_MAX]) {
        uint64_t n;

        return get_number(object, key, &n) ? human_duration(n, buf) : NULL;
}

static const char *size(const json_t *object, const char *key, char buf[static HUMAN_MAX]) {
        uint64_t n;

        return get_number(object, key, &n) ? human_size(n, buf) : NULL;
}

static const char *or_dash(const char *s) {
        return s ? s : "-";
}

/* Text of others that goes straight to the terminal. */
static void print_text(FILE *f, const char *s) {
        _cleanup_free_ char *copy = strdup(or_dash(s));

        if (copy)
                text_make_printable(copy);
        fputs(copy ? copy : "?", f);
}

/*
 * Status
 */

enum {
        COLUMN_SLOT,
        COLUMN_PID,
        COLUMN_WORKER, /* this, TWIN and TAKEOVERS: where there are twins */
        COLUMN_TWIN,
        COLUMN_STATE,
        COLUMN_GENERATION,
        COLUMN_UPTIME,
        COLUMN_CONNECTIONS, /* this and REQUESTS: something else where the master passes connections on */
        COLUMN_REQUESTS,
        COLUMN_TAKEOVERS,
        COLUMN_MEMORY,
        COLUMN_CPU,
        COLUMN_STATUS,
        _COLUMN_MAX,
};

static const TableColumn status_columns[_COLUMN_MAX] = {
        [COLUMN_SLOT] = { "SLOT", true },
        [COLUMN_PID] = { "PID", true },
        [COLUMN_WORKER] = { "WORKER", true },
        [COLUMN_TWIN] = { "TWIN", true },
        [COLUMN_STATE] = { "STATE", false },
        [COLUMN_GENERATION] = { "GEN", true },
        [COLUMN_UPTIME] = { "UPTIME", true },
        [COLUMN_CONNECTIONS] = { "CONN", true },
        [COLUMN_REQUESTS] = { "REQUESTS", true },
        [COLUMN_TAKEOVERS] = { "TAKEOVERS", true },
        [COLUMN_MEMORY] = { "MEMORY", true },
        [COLUMN_CPU] = { "CPU", true },
        [COLUMN_STATUS] = { "STATUS", false },
};

typedef struct StatusTable {
        Table *table;
        TableColumn columns[_COLUMN_MAX]; /* those that are shown */
        unsigned n;
        bool has_twins;
} StatusTable;

static bool is_shown(const StatusTable *t, unsigned column) {
        return t->has_twins ||
               (column != COLUMN_WORKER && column != COLUMN_TWIN && column != COLUMN_TAKEOVERS);
}

static int add_cells(StatusTable *t, const char *const cells[_COLUMN_MAX]) {
        const char *shown[_COLUMN_MAX];
        size_t n = 0;

        for (unsigned i = 0; i < _COLUMN_MAX; i++)
                if (is_shown(t, i))
                        shown[n++] = cells[i];
        return table_add(t->table, shown);
}

static bool is_passed(const json_t *object) {
        return json_is_integer(json_object_get(object, "passed"));
}

static const char *color_of_state(const char *state) {
        if (state && strcmp(state, "running") == 0)
                return "\033[32m";
        return "\033[33m";
}

static bool is_state(const json_t *object, const char *state) {
        const char *its = get_text(object, "state");

        return its && strcmp(its, state) == 0;
}

static void print_agents(FILE *f, const json_t *agents, bool color) {
        size_t ready = 0, failing = 0, i;
        json_t *a;

        if (json_array_size(agents) == 0)
                return;
        json_array_foreach(agents, i, a) {
                ready += is_state(a, "ready");
                failing += is_state(a, "failing");
        }
        fprintf(f, "\n       agents: %zu/%zu ready", ready, json_array_size(agents));
        if (failing > 0)
                fprintf(f, ", %s%zu failing%s", color ? "\033[31m" : "", failing, color ? "\033[0m" : "");
}

static void print_head(FILE *f, const json_t *status, bool color) {
        const json_t *workers = json_object_get(status, "workers");
        const char *state = get_text(status, "state"), *failure = get_text(status, "failure");
        char a[HUMAN_MAX], b[HUMAN_MAX], c[HUMAN_MAX];
        uint64_t failing;

        print_text(f, get_text(status, "app"));
        fputs(": ", f);
        fputs(color ? color_of_state(state) : "", f);
        print_text(f, state);
        fputs(color ? "\033[0m" : "", f);
        fprintf(f, ", generation %s, for %s (pid %s, muster ", or_dash(number(status, "generation", a)),
                        or_dash(duration(status, "uptime_usec", b)), or_dash(number(status, "pid", c)));
        print_text(f, get_text(status, "version"));
        fputs(")\n", f);

        fprintf(f, "      workers: %s/%s ready", or_dash(number(workers, "ready", a)),
                        or_dash(number(workers, "wanted", b)));
        if (get_number(workers, "failing", &failing) && failing > 0)
                fprintf(f, ", %s%" PRIu64 " failing%s", color ? "\033[31m" : "", failing,
                                color ? "\033[0m" : "");
        print_agents(f, json_object_get(status, "agents"), color);
        if (is_passed(status))
                fprintf(f, "\n  connections: %s passed\n", or_dash(number(status, "passed", a)));
        else
                fprintf(f, "\n  connections: %s open, %s requests\n",
                                or_dash(number(status, "connections", a)),
                                or_dash(number(status, "requests", b)));
        fputs("configuration: ", f);
        print_text(f, get_text(status, "config"));
        fputc('\n', f);
        if (failure) {
                fprintf(f, "%s      failure: ", color ? "\033[31m" : "");
                print_text(f, failure);
                fputs(color ? "\033[0m\n" : "\n", f);
        }
}

static const char *lag(const json_t *p, char buf[static HUMAN_MAX]) {
        uint64_t usec;

        if (!get_number(p, "lag_usec", &usec))
                return NULL;
        snprintf(buf, HUMAN_MAX, "%.1fms", (double) usec / 1000);
        return buf;
}

static int add_process(StatusTable *t, const json_t *p) {
        _cleanup_free_ char *text = NULL;
        const char *status = get_text(p, "status"), *reason = get_text(p, "reason");
        char slot[HUMAN_MAX], pid[HUMAN_MAX], worker[HUMAN_MAX], twin[HUMAN_MAX], generation[HUMAN_MAX];
        char uptime[HUMAN_MAX], connections[HUMAN_MAX], requests[HUMAN_MAX], takeovers[HUMAN_MAX];
        char memory[HUMAN_MAX], cpu[HUMAN_MAX];

        if (reason && asprintf(&text, "goes: %s%s%s", reason, status ? "; " : "", status ? status : "") <
                                        0) {
                text = NULL;
                return -ENOMEM;
        }
        const char *const cells[_COLUMN_MAX] = {
                [COLUMN_SLOT] = number(p, "slot", slot),
                [COLUMN_PID] = number(p, "pid", pid),
                [COLUMN_WORKER] = number(p, "worker_pid", worker),
                [COLUMN_TWIN] = number(p, "twin_pid", twin),
                [COLUMN_STATE] = get_text(p, "state"),
                [COLUMN_GENERATION] = number(p, "generation", generation),
                [COLUMN_UPTIME] = duration(p, "uptime_usec", uptime),
                [COLUMN_CONNECTIONS] = number(p, is_passed(p) ? "passed" : "connections", connections),
                [COLUMN_REQUESTS] = is_passed(p) ? lag(p, requests) : number(p, "requests", requests),
                [COLUMN_TAKEOVERS] = number(p, "takeovers", takeovers),
                [COLUMN_MEMORY] = size(p, "memory_bytes", memory),
                [COLUMN_CPU] = duration(p, "cpu_usec", cpu),
                [COLUMN_STATUS] = text     ? text
                                  : status ? status
                                           : "",
        };
        return add_cells(t, cells);
}

/* When the next attempt is, and how many have failed. */
#define ATTEMPTS_MAX 128
static const char *attempts(const json_t *s, char buf[static ATTEMPTS_MAX]) {
        char retry[HUMAN_MAX], deaths[HUMAN_MAX];
        uint64_t n = 0;

        buf[0] = '\0';
        (void) get_number(s, "early_deaths", &n);
        if (duration(s, "retry_in_usec", retry))
                snprintf(buf, ATTEMPTS_MAX, "next try in %s", retry);
        if (n > 0)
                snprintf(buf + strlen(buf), ATTEMPTS_MAX - strlen(buf), "%sdied early %s time%s",
                                *buf ? "; " : "", number(s, "early_deaths", deaths), n == 1 ? "" : "s");
        return buf;
}

/* A slot that nobody fills at the moment. */
static int add_slot(StatusTable *t, const json_t *s) {
        char slot[HUMAN_MAX], text[ATTEMPTS_MAX];

        (void) attempts(s, text);
        const char *const cells[_COLUMN_MAX] = {
                [COLUMN_SLOT] = number(s, "slot", slot),
                [COLUMN_STATE] = get_text(s, "state"),
                [COLUMN_STATUS] = text,
        };
        return add_cells(t, cells);
}

/* Its name stands where a worker's slot does. */
static int add_agent(StatusTable *t, const json_t *a) {
        const char *failure = get_text(a, "failure"), *status = get_text(a, "status");
        char pid[HUMAN_MAX], generation[HUMAN_MAX], uptime[HUMAN_MAX], memory[HUMAN_MAX], cpu[HUMAN_MAX];
        _cleanup_free_ char *text = NULL;
        char tries[ATTEMPTS_MAX] = "";

        if (!is_state(a, "ready"))
                (void) attempts(a, tries);
        if (asprintf(&text, "%s%s%s",
                            failure  ? failure
                            : status ? status
                                     : "",
                            failure && *tries ? "; " : "", tries) < 0) {
                text = NULL;
                return -ENOMEM;
        }
        const char *const cells[_COLUMN_MAX] = {
                [COLUMN_SLOT] = get_text(a, "name"),
                [COLUMN_PID] = number(a, "pid", pid),
                [COLUMN_STATE] = get_text(a, "state"),
                [COLUMN_GENERATION] = number(a, "generation", generation),
                [COLUMN_UPTIME] = duration(a, "uptime_usec", uptime),
                [COLUMN_MEMORY] = size(a, "memory_bytes", memory),
                [COLUMN_CPU] = duration(a, "cpu_usec", cpu),
                [COLUMN_STATUS] = text,
        };
        return add_cells(t, cells);
}

static int add_agents(StatusTable *t, const json_t *agents) {
        size_t i;
        json_t *a;
        int r = 0;

        json_array_foreach(agents, i, a) if (r >= 0) r = add_agent(t, a);
        return r;
}

static json_int_t slot_of(const json_t *object) {
        return json_integer_value(json_object_get(object, "slot"));
}

static bool is_filled(const json_t *processes, json_int_t slot) {
        size_t i;
        json_t *p;

        json_array_foreach(processes, i, p) if (slot_of(p) == slot) return true;
        return false;
}

typedef struct Row {
        const json_t *object; /* borrowed */
        bool is_slot;
        size_t order;
} Row;

/* By slot; those of one slot as they came. */
static int compare_rows(const void *a, const void *b) {
        const Row *x = a, *y = b;
        json_int_t i = slot_of(x->object), k = slot_of(y->object);

        if (i != k)
                return i < k ? -1 : 1;
        return x->order < y->order ? -1 : x->order > y->order;
}

static int add_rows(StatusTable *t, const json_t *processes, const json_t *slots) {
        _cleanup_free_ Row *rows = NULL;
        size_t n = 0, i;
        json_t *o;
        int r = 0;

        rows = calloc(json_array_size(processes) + json_array_size(slots) + 1, sizeof(Row));
        if (!rows)
                return -ENOMEM;
        json_array_foreach(processes, i, o) {
                rows[n] = (Row){ .object = o, .order = n };
                n++;
        }
        json_array_foreach(slots, i, o) if (!is_filled(processes, slot_of(o))) {
                rows[n] = (Row){ .object = o, .is_slot = true, .order = n };
                n++;
        }
        qsort(rows, n, sizeof(Row), compare_rows);
        for (size_t k = 0; k < n && r >= 0; k++)
                r = rows[k].is_slot ? add_slot(t, rows[k].object) : add_process(t, rows[k].object);
        return r;
}

static bool has_twins(const json_t *processes) {
        size_t i;
        json_t *p;

        json_array_foreach(
                        processes, i, p) if (json_is_integer(json_object_get(p, "takeovers"))) return true;
        return false;
}

static int status_table_init(StatusTable *t, const json_t *status) {
        TableColumn columns[_COLUMN_MAX];

        memcpy(columns, status_columns, sizeof(columns));
        if (is_passed(status)) {
                columns[COLUMN_CONNECTIONS].title = "PASSED";
                columns[COLUMN_REQUESTS].title = "LAG";
        }
        *t = (StatusTable){ .has_twins = has_twins(json_object_get(status, "processes")) };
        for (unsigned i = 0; i < _COLUMN_MAX; i++)
                if (is_shown(t, i))
                        t->columns[t->n++] = columns[i];
        return table_new(t->columns, t->n, &t->table);
}

int print_status(FILE *f, const char *body, size_t n, bool color) {
        _cleanup_json_ json_t *status = load_object(body, n);
        StatusTable t;
        int r;

        if (!status)
                return -EBADMSG;
        r = status_table_init(&t, status);
        if (r < 0)
                return r;
        r = add_rows(&t, json_object_get(status, "processes"), json_object_get(status, "slots"));
        if (r >= 0)
                r = add_agents(&t, json_object_get(status, "agents"));
        if (r >= 0) {
                print_head(f, status, color);
                fputc('\n', f);
                table_print(t.table, f, color);
        }
        table_free(t.table);
        return r < 0 ? r : 0;
}

/*
 * Exits
 */

static const TableColumn exits_columns[] = {
        { "TIME", false },
        { "SLOT", true },
        { "PID", true },
        { "GEN", true },
        { "CAUSE", false },
        { "UPTIME", true },
        { "PEAK", true },
        { "CPU", true },
        { "REASON", false },
};

/* Why, and by what number or signal. */
static const char *cause_of(const json_t *e, char *buf, size_t buf_size) {
        const char *cause = or_dash(get_text(e, "cause")), *code = get_text(e, "code");
        const char *signal_name = get_text(e, "signal");
        char status[HUMAN_MAX];

        if (signal_name)
                snprintf(buf, buf_size, "%s (%s%s)", cause, signal_name,
                                code && strcmp(code, "dumped") == 0 ? ", core" : "");
        else
                snprintf(buf, buf_size, "%s (status %s)", cause, or_dash(number(e, "status", status)));
        return buf;
}

static int add_exit(Table *t, const json_t *e) {
        const char *reason = get_text(e, "reason"), *text = get_text(e, "status_text");
        const char *agent = get_text(e, "agent");
        char time[HUMAN_MAX], slot[HUMAN_MAX], pid[HUMAN_MAX], generation[HUMAN_MAX], cause[128];
        char uptime[HUMAN_MAX], peak[HUMAN_MAX], cpu[HUMAN_MAX];
        uint64_t usec;

        const char *const cells[] = {
                get_number(e, "time_usec", &usec) ? human_time(usec, time) : NULL,
                agent ? agent : number(e, "slot", slot),
                number(e, "pid", pid),
                number(e, "generation", generation),
                cause_of(e, cause, sizeof(cause)),
                duration(e, "uptime_usec", uptime),
                size(e, "peak_memory_bytes", peak),
                duration(e, "cpu_usec", cpu),
                reason ? reason
                : text ? text
                       : "",
        };
        return table_add(t, cells);
}

int print_exits(FILE *f, const char *body, size_t n, bool color) {
        _cleanup_(table_freep) Table *t = NULL;
        _cleanup_json_ json_t *json = load_object(body, n);
        const json_t *exits = json_object_get(json, "exits");
        json_t *e;
        size_t i;
        int r;

        if (!json_is_array(exits))
                return -EBADMSG;
        r = table_new(exits_columns, ELEMENTSOF(exits_columns), &t);
        json_array_foreach(exits, i, e) if (r >= 0) r = add_exit(t, e);
        if (r >= 0)
                table_print(t, f, color);
        return r;
}

/*
 * The rest
 */

int print_reload(FILE *f, const char *app, const char *body, size_t n) {
        _cleanup_json_ json_t *json = load_object(body, n);
        char a[HUMAN_MAX], b[HUMAN_MAX];
        uint64_t workers;

        if (!get_number(json, "workers", &workers))
                return -EBADMSG;
        fprintf(f, "%s: generation %s serves with %s worker%s\n", app,
                        or_dash(number(json, "generation", a)), number(json, "workers", b),
                        workers == 1 ? "" : "s");
        return 0;
}

int print_scale(FILE *f, const char *app, const char *body, size_t n) {
        _cleanup_json_ json_t *json = load_object(body, n);
        char a[HUMAN_MAX], b[HUMAN_MAX];
        uint64_t workers;

        if (!get_number(json, "workers", &workers))
                return -EBADMSG;
        fprintf(f, "%s: %s worker%s wanted, %s ready\n", app, number(json, "workers", a),
                        workers == 1 ? "" : "s", or_dash(number(json, "ready", b)));
        return 0;
}

static void print_undelivered(FILE *f, const char *app, const json_t *u) {
        char worker[HUMAN_MAX], pid[HUMAN_MAX];

        fprintf(f, "%s: worker %s (pid %s) has not got it: ", app, or_dash(number(u, "worker", worker)),
                        or_dash(number(u, "pid", pid)));
        print_text(f, get_text(u, "reason"));
        fputc('\n', f);
}

int print_send(FILE *f, const char *app, const char *body, size_t n) {
        _cleanup_json_ json_t *json = load_object(body, n);
        uint64_t delivered;
        size_t i;
        json_t *u;

        if (!get_number(json, "delivered", &delivered))
                return -EBADMSG;
        fprintf(f, "%s: delivered to %" PRIu64 " worker%s\n", app, delivered, delivered == 1 ? "" : "s");
        json_array_foreach(json_object_get(json, "undelivered"), i, u) print_undelivered(f, app, u);
        return 0;
}

bool print_send_is_whole(const char *body, size_t n) {
        _cleanup_json_ json_t *json = load_object(body, n);

        return json_array_size(json_object_get(json, "undelivered")) == 0;
}

int print_json(FILE *f, const char *body, size_t n) {
        _cleanup_json_ json_t *json = load_object(body, n);

        if (!json)
                return -EBADMSG;
        if (json_dumpf(json, f, JSON_INDENT(2) | JSON_ENSURE_ASCII) < 0)
                return -ENOMEM;
        fputc('\n', f);
        return 0;
}

int print_error_message(const char *body, size_t n, char **ret) {
        _cleanup_json_ json_t *json = load_object(body, n);
        const char *message = get_text(json_object_get(json, "error"), "message");

        if (!message)
                return -EBADMSG;
        *ret = strdup(message);
        if (!*ret)
                return -ENOMEM;
        text_make_printable(*ret);
        return 0;
}
