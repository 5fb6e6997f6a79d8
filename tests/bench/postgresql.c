/* SPDX-License-Identifier: MIT */
/* Operations of the driver for PostgreSQL, and the same statements by libpq's pipeline alone, with as many
 * on their way, in turns in one process. It starts a server of its own; without fsync, since it is not the
 * disk that is measured. */

#include <dlfcn.h>
#include <endian.h>
#include <libpq-fe.h>
#include <poll.h>
#include <systemd/sd-event.h>

#include "../unit/state/postgresql-server.h"
#include "basic/list.h"
#include "bench.h"
#include "muster/state.h"
#include "state/driver.h"
#include "state/postgresql-statements.h"
#include "state/url.h"

#define N_KEYS 1000
#define ROUNDS 9

static char keys[N_KEYS][16];
static char value[100];
static unsigned window, n_operations;

static StateBytes key_of(unsigned i) {
        return (StateBytes){ keys[i % N_KEYS], strlen(keys[i % N_KEYS]) };
}

static StateOperation operation_of(StateVerb verb, unsigned i) {
        return (StateOperation){ .verb = verb,
                .key = verb == STATE_ADD ? (StateBytes){ "n", 1 } : key_of(i),
                .value = { value, sizeof(value) },
                .difference = 1 };
}

/* The driver */

struct muster_state {
        const StateDriver *driver;
        void *d;
        sd_event *event;
        bool is_connected;
        StateVerb verb;
        unsigned n_sent, n_finished;
        StateOperation *operations; /* one for each place in the window */
};

static void on_connected(StateStore *s) {
        s->is_connected = true;
}

static void on_lost(StateStore *s, int error, const char *text) {
        fprintf(stderr, "lost: %s\n", text);
        exit(EXIT_FAILURE);
}

static void send_one(StateStore *s, StateOperation *op) {
        *op = operation_of(s->verb, s->n_sent++);
        must(s->driver->send(s->d, op), "send");
}

static void on_finish(StateStore *s, StateOperation *op, const StateOutcome *outcome) {
        must(outcome->error, "finish");
        s->n_finished++;
        if (s->n_sent < n_operations)
                send_one(s, op);
}

static void on_complain(StateStore *s, const char *text) {
        fprintf(stderr, "%s\n", text);
}

static const StateHost host = {
        .connected = on_connected,
        .lost = on_lost,
        .finish = on_finish,
        .complain = on_complain,
};

static void driver_open(StateStore *s, const Server *server) {
        char address[80], port[20], path[1024], error[STATE_TEXT_MAX];
        char *parameters[] = { address, port, NULL };
        StateUrl url = {
                .user = (char *) "postgres", .path = (char *) "postgres", .parameters = parameters
        };
        void *handle;

        snprintf(address, sizeof(address), "host=%s", server->dir);
        snprintf(port, sizeof(port), "port=%s", server->port);
        snprintf(path, sizeof(path), "%s/state-postgresql.so", getenv("MUSTER_PLUGINDIR"));
        handle = dlopen(path, RTLD_NOW);
        MUST(handle);
        s->driver = dlsym(handle, STATE_DRIVER_SYMBOL);
        must(sd_event_new(&s->event), "sd_event_new");
        must(s->driver->open(&host, s, s->event, &url, &s->d, error), "open");
        must(s->driver->connect(s->d, NULL), "connect");
        while (!s->is_connected)
                must(sd_event_run(s->event, UINT64_MAX), "sd_event_run");
        s->operations = calloc(window, sizeof(*s->operations));
}

static void run_driver(StateStore *s, StateVerb verb) {
        s->verb = verb;
        s->n_sent = s->n_finished = 0;
        for (unsigned i = 0; i < window; i++)
                send_one(s, &s->operations[i]);
        while (s->n_finished < n_operations)
                must(sd_event_run(s->event, UINT64_MAX), "sd_event_run");
}

/* libpq alone */

static PGconn *bare_open(const Server *server) {
        const char *names[] = { "host", "port", "user", "dbname", NULL };
        const char *values[] = { server->dir, server->port, "postgres", "postgres", NULL };
        PGconn *conn = PQconnectdbParams(names, values, 0);
        PGresult *result;

        PQclear(PQexec(conn, postgresql_session_sql));
        PQsetnonblocking(conn, 1);
        PQenterPipelineMode(conn);
        must(postgresql_statements_prepare(conn), "prepare");
        for (;;) {
                ExecStatusType status;

                result = PQgetResult(conn);
                status = PQresultStatus(result);
                PQclear(result);
                if (result && status == PGRES_PIPELINE_SYNC)
                        return conn;
                MUST(!result || status == PGRES_COMMAND_OK);
        }
}

static void bare_send(PGconn *conn, StateVerb verb, unsigned i) {
        StateOperation op = operation_of(verb, i);
        uint64_t one = htobe64(1);
        const char *values[4] = { op.key.data };
        int sizes[4] = { (int) op.key.size }, formats[4] = { 1, 1, 1, 1 }, n = 1;

        if (verb == STATE_SET) {
                values[1] = value;
                sizes[1] = sizeof(value);
                n = 3;
        } else if (verb == STATE_ADD) {
                values[1] = (char *) &one;
                sizes[1] = sizeof(one);
                values[3] = "1";
                sizes[3] = 1;
                n = 4;
        }
        MUST(PQsendQueryPrepared(conn,
                             verb == STATE_GET   ? "get"
                             : verb == STATE_SET ? "set"
                                                 : "add",
                             n, values, sizes, formats, 1) == 1);
        MUST(PQpipelineSync(conn) == 1);
}

static void bare_wait(PGconn *conn) {
        int r = PQflush(conn);
        struct pollfd p = { .fd = PQsocket(conn), .events = (short) (r > 0 ? POLLIN | POLLOUT : POLLIN) };

        MUST(r >= 0);
        poll(&p, 1, -1);
        MUST(PQconsumeInput(conn) == 1);
}

static void run_bare(PGconn *conn, StateVerb verb) {
        unsigned n_sent = 0, n_finished = 0;

        while (n_sent < window)
                bare_send(conn, verb, n_sent++);
        while (n_finished < n_operations) {
                bare_wait(conn);
                while (n_finished < n_operations && !PQisBusy(conn)) {
                        PGresult *result = PQgetResult(conn);
                        ExecStatusType status = PQresultStatus(result);

                        PQclear(result);
                        if (!result || status == PGRES_TUPLES_OK)
                                continue;
                        MUST(status == PGRES_PIPELINE_SYNC);
                        n_finished++;
                        if (n_sent < n_operations)
                                bare_send(conn, verb, n_sent++);
                }
        }
}

static void report(const char *what, const char *verb, const Stopwatch *w) {
        uint64_t wall = clock_now_usec() - w->wall, cpu = cpu_usec() - w->cpu;

        printf("{\"what\": \"%s\", \"verb\": \"%s\", \"window\": %u, \"per_second\": %.0f, \"cpu_usec\": %.2f}\n",
                        what, verb, window, (double) n_operations * USEC_PER_SEC / (double) wall,
                        (double) cpu / n_operations);
}

int main(int argc, char **argv) {
        static const struct {
                StateVerb verb;
                const char *name;
        } verbs[] = { { STATE_SET, "set" }, { STATE_GET, "get" }, { STATE_ADD, "add" } };
        StateStore store = { 0 };
        Server server;
        PGconn *bare;

        window = argc > 1 ? (unsigned) atoi(argv[1]) : 64;
        n_operations = argc > 2 ? (unsigned) atoi(argv[2]) : 20000;
        for (unsigned i = 0; i < N_KEYS; i++)
                snprintf(keys[i], sizeof(keys[i]), "key-%u", i);
        memset(value, 'v', sizeof(value));
        if (!server_init(&server)) {
                fprintf(stderr, "PostgreSQL is not installed\n");
                return 77;
        }
        server_start(&server);
        driver_open(&store, &server);
        bare = bare_open(&server);
        for (unsigned round = 0; round < ROUNDS; round++)
                for (size_t i = 0; i < ELEMENTSOF(verbs); i++) {
                        Stopwatch w = stopwatch_start();

                        run_driver(&store, verbs[i].verb);
                        report("driver", verbs[i].name, &w);
                        w = stopwatch_start();
                        run_bare(bare, verbs[i].verb);
                        report("libpq", verbs[i].name, &w);
                }
        PQfinish(bare);
        store.driver->close(store.d);
        sd_event_unref(store.event);
        free(store.operations);
        server_done(&server);
        return 0;
}
