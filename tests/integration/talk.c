/* SPDX-License-Identifier: MIT */
/* Says to other workers what it is told to say, and writes down what it hears, with libmuster: see talk.py.
 * As the child of whoever has started it for a worker; else as the primary of a cluster: talk N [PROGRAM
 * ARGUMENT…], which passes on lines of its input, "WORKER JSON". */

#include <fcntl.h>
#include <muster/cluster.h>
#include <muster/worker.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define WORKERS_MAX 8

static int heard;

static void write_down(unsigned slot, const char *what, size_t n) {
        char *line = NULL;
        int size = asprintf(&line, "%u %d %.*s\n", slot, getpid(), (int) n, what);

        if (size < 0 || write(heard, line, (size_t) size) != size)
                abort();
        free(line);
}

static void write_result(unsigned slot, int r) {
        char text[32];

        write_down(slot, text, (size_t) snprintf(text, sizeof(text), "{\"result\":%d}", r));
}

static int say_big(muster_worker *worker, size_t n) {
        char *text = malloc(n);
        int r;

        memset(text, 'x', n);
        text[0] = text[n - 1] = '"';
        r = muster_worker_broadcast(worker, text, n);
        free(text);
        return r;
}

/* ["broadcast",VALUE], ["send",N,VALUE], ["big",N] */
static int is_word(const char *json, const char *word) {
        return strncmp(json, word, strlen(word)) == 0;
}

static void on_message(muster_worker *worker, muster_message *message, void *userdata) {
        unsigned slot = muster_worker_get_id(worker);
        size_t n;
        const char *json = muster_message_get_json(message, &n), *end = json + n - 1;
        char *rest;

        if (is_word(json, "[\"broadcast\",")) {
                json += strlen("[\"broadcast\",");
                write_result(slot, muster_worker_broadcast(worker, json, (size_t) (end - json)));
        } else if (is_word(json, "[\"send\",")) {
                unsigned to = (unsigned) strtoul(json + strlen("[\"send\","), &rest, 10);
                write_result(slot, muster_worker_send(worker, to, rest + 1, (size_t) (end - rest - 1)));
        } else if (is_word(json, "[\"big\","))
                write_result(slot, say_big(worker, strtoul(json + strlen("[\"big\","), NULL, 10)));
        else
                write_down(slot, json, n);
}

static void on_started(muster_worker *worker, void *userdata) {
        muster_worker_ready(worker);
}

static void on_retire(muster_worker *worker, void *userdata) {
        sd_event_exit(userdata, 0);
}

/* From musterd it gets its sockets by LISTEN_FDS, and no word that it has all of them. */
static int be_worker(sd_event *event) {
        const muster_worker_handlers handlers = {
                .size = sizeof(handlers), .started = on_started, .retire = on_retire, .message = on_message
        };
        muster_worker *worker;
        int r;

        r = muster_worker_from_environment(event, &handlers, event, &worker);
        if (r < 0)
                return r;
        heard = open(getenv("HEARD"), O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
        if (getenv("LISTEN_FDS"))
                muster_worker_ready(worker);
        sd_event_loop(event);
        muster_worker_free(worker);
        return 0;
}

static muster_cluster_worker *workers[WORKERS_MAX + 1];

static void on_ready(muster_cluster *cluster, muster_cluster_worker *worker, void *userdata) {
        workers[muster_cluster_worker_get_id(worker)] = worker;
        printf("ready %u\n", muster_cluster_worker_get_id(worker));
        fflush(stdout);
}

static void on_cluster_message(muster_cluster *cluster, muster_cluster_worker *worker,
                muster_message *message, void *userdata) {
        printf("message %u %s\n", muster_cluster_worker_get_id(worker),
                        muster_message_get_json(message, NULL));
        fflush(stdout);
}

static void on_stopped(muster_cluster *cluster, void *userdata) {
        sd_event_exit(userdata, 0);
}

static int on_input(sd_event_source *source, int fd, uint32_t events, void *userdata) {
        static char line[4096];
        static size_t size; /* of what is there of a line already */
        char *p = line, *end, *rest;
        ssize_t n;

        if (size == sizeof(line) - 1)
                abort();
        n = read(fd, line + size, sizeof(line) - 1 - size);
        if (n <= 0) {
                sd_event_source_set_enabled(source, SD_EVENT_OFF);
                return muster_cluster_stop(userdata);
        }
        line[size + (size_t) n] = '\0';
        for (; (end = strchr(p, '\n')); p = end + 1) {
                *end = '\0';
                unsigned long to = strtoul(p, &rest, 10);
                if (to == 0 || to > WORKERS_MAX || muster_cluster_worker_send(workers[to], rest + 1, -1) < 0)
                        abort();
        }
        size = strlen(p);
        memmove(line, p, size);
        return 0;
}

static int be_primary(sd_event *event, int argc, char **argv) {
        const muster_cluster_handlers handlers = {
                .size = sizeof(handlers),
                .ready = on_ready,
                .message = on_cluster_message,
                .stopped = on_stopped,
        };
        muster_cluster_options options = MUSTER_CLUSTER_OPTIONS_INIT;
        muster_cluster *cluster;
        int r;

        options.n_workers = (unsigned) atoi(argv[1]);
        if (argc > 2) {
                options.program = argv[2];
                options.argv = argv + 2;
        }
        r = muster_cluster_new(event, &options, &handlers, event, &cluster);
        if (r >= 0)
                r = muster_cluster_start(cluster);
        if (r >= 0)
                r = sd_event_add_io(event, NULL, STDIN_FILENO, 1, on_input, cluster);
        if (r >= 0)
                r = sd_event_loop(event);
        muster_cluster_free(cluster);
        return r;
}

int main(int argc, char **argv) {
        sd_event *event = NULL;
        int r;

        r = sd_event_new(&event);
        if (r >= 0)
                r = getenv("MUSTER_WORKER") ? be_worker(event) : be_primary(event, argc, argv);
        sd_event_unref(event);
        return r < 0;
}
