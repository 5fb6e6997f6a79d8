/* SPDX-License-Identifier: MIT */
/* What the driver for Redis costs beside hiredis alone, with the same number of operations under way: each
 * answer makes room for the next. Both take turns at one server, since a machine is not as fast at all
 * times.
 *
 *     state-redis PLUGIN [OPERATIONS [ROUNDS]]
 */

#include <dlfcn.h>
#include <fcntl.h>
#include <hiredis/async.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <systemd/sd-event.h>
#include <unistd.h>

#include "basic/clock.h"
#include "basic/macro.h"
#include "state/driver.h"
#include "state/url.h"

#define KEYS       1000
#define ROUNDS_MAX 101

typedef struct Run {
        StateVerb verb;
        unsigned n, sent, ended, window;
        const char *value;
        size_t value_size;
} Run;

static char folder[] = "/tmp/muster-bench-XXXXXX", path[64];

static unsigned key_of(unsigned i, char key[static 16]) {
        return (unsigned) snprintf(key, 16, "key:%u", i * 7919 % KEYS);
}

/* hiredis alone, with the smallest loop there is */

typedef struct Bare {
        redisAsyncContext *context;
        short events;
        Run *run;
} Bare;

static void bare_add_read(void *userdata) {
        ((Bare *) userdata)->events |= POLLIN;
}

static void bare_delete_read(void *userdata) {
        ((Bare *) userdata)->events &= ~POLLIN;
}

static void bare_add_write(void *userdata) {
        ((Bare *) userdata)->events |= POLLOUT;
}

static void bare_delete_write(void *userdata) {
        ((Bare *) userdata)->events &= ~POLLOUT;
}

static void bare_send(Bare *b);

static void on_bare_reply(redisAsyncContext *c, void *reply, void *userdata) {
        Bare *b = userdata;

        if (!reply || ((redisReply *) reply)->type == REDIS_REPLY_ERROR)
                abort();
        b->run->ended++;
        bare_send(b);
}

static void bare_send(Bare *b) {
        Run *r = b->run;
        char key[16];
        const char *argv[3] = { r->verb == STATE_GET ? "GET" : "SET", key, r->value };
        size_t sizes[3] = { 3, 0, r->value_size };

        if (r->sent == r->n)
                return;
        sizes[1] = key_of(r->sent++, key);
        if (redisAsyncCommandArgv(b->context, on_bare_reply, b, r->verb == STATE_GET ? 2 : 3, argv, sizes) !=
                        REDIS_OK)
                abort();
}

static void bare_turn(Bare *b) {
        struct pollfd fd = { .fd = b->context->c.fd, .events = b->events };

        if (poll(&fd, 1, -1) < 0)
                abort();
        if (fd.revents & POLLIN)
                redisAsyncHandleRead(b->context);
        if (fd.revents & POLLOUT)
                redisAsyncHandleWrite(b->context);
}

static void bare_run(Bare *b, Run *r) {
        b->run = r;
        for (unsigned i = 0; i < r->window; i++)
                bare_send(b);
        while (r->ended < r->n)
                bare_turn(b);
}

static void bare_open(Bare *b) {
        b->context = redisAsyncConnectUnix(path);
        if (!b->context || b->context->err)
                abort();
        b->context->ev.data = b;
        b->context->ev.addRead = bare_add_read;
        b->context->ev.delRead = bare_delete_read;
        b->context->ev.addWrite = bare_add_write;
        b->context->ev.delWrite = bare_delete_write;
}

/* The driver, with sd-event */

typedef struct Slot {
        StateOperation op;
        char key[16];
} Slot;

struct muster_state {
        const StateDriver *driver;
        void *handle;
        sd_event *event;
        StateUrl url;
        bool is_connected;
        Run *run;
};

static void store_send(StateStore *s, Slot *slot) {
        Run *r = s->run;

        if (r->sent == r->n)
                return;
        slot->op.verb = r->verb;
        slot->op.key = (StateBytes){ .data = slot->key, .size = key_of(r->sent++, slot->key) };
        slot->op.value = (StateBytes){ .data = r->value, .size = r->value_size };
        if (s->driver->send(s->handle, &slot->op) < 0)
                abort();
}

static void host_connected(StateStore *s) {
        s->is_connected = true;
}

static void host_lost(StateStore *s, int error, const char *text) {
        fprintf(stderr, "lost: %s\n", text);
        abort();
}

static void host_finish(StateStore *s, StateOperation *op, const StateOutcome *outcome) {
        if (outcome->error != 0)
                abort();
        s->run->ended++;
        store_send(s, CONTAINER_OF(op, Slot, op));
}

static const StateHost host = {
        .connected = host_connected,
        .lost = host_lost,
        .finish = host_finish,
};

static void store_run(StateStore *s, Run *r) {
        Slot *slots = calloc(r->window, sizeof(Slot));

        s->run = r;
        for (unsigned i = 0; i < r->window; i++)
                store_send(s, &slots[i]);
        while (r->ended < r->n)
                if (sd_event_run(s->event, UINT64_MAX) < 0)
                        abort();
        free(slots);
}

static void store_open(StateStore *s, const char *plugin) {
        char error[STATE_TEXT_MAX];
        void *library = dlopen(plugin, RTLD_NOW);

        if (!library) {
                fprintf(stderr, "%s\n", dlerror());
                exit(1);
        }
        s->driver = dlsym(library, STATE_DRIVER_SYMBOL);
        s->url = (StateUrl){ .driver = (char *) "redis", .is_unix = true, .path = path };
        if (sd_event_new(&s->event) < 0 ||
                        s->driver->open(&host, s, s->event, &s->url, &s->handle, error) < 0 ||
                        s->driver->connect(s->handle, NULL) < 0)
                abort();
        while (!s->is_connected)
                if (sd_event_run(s->event, UINT64_MAX) < 0)
                        abort();
}

/* One beside the other */

static uint64_t cpu_usec(void) {
        struct rusage u;

        getrusage(RUSAGE_SELF, &u);
        return (uint64_t) (u.ru_utime.tv_sec + u.ru_stime.tv_sec) * USEC_PER_SEC +
               (uint64_t) (u.ru_utime.tv_usec + u.ru_stime.tv_usec);
}

static int compare(const void *a, const void *b) {
        double x = *(const double *) a, y = *(const double *) b;

        return (x > y) - (x < y);
}

static double median(double *values, size_t n) {
        qsort(values, n, sizeof(*values), compare);
        return values[n / 2];
}

typedef struct Series {
        double rate[ROUNDS_MAX], cpu[ROUNDS_MAX];
} Series;

static void measure(Series *s, size_t round, Bare *bare, StateStore *store, Run run) {
        uint64_t cpu = cpu_usec(), begin = clock_now_usec();

        if (bare)
                bare_run(bare, &run);
        else
                store_run(store, &run);
        s->rate[round] = (double) run.n * 1e6 / (double) (clock_now_usec() - begin);
        s->cpu[round] = (double) (cpu_usec() - cpu) / run.n;
}

static void compare_both(Bare *bare, StateStore *store, const Run *run, size_t rounds) {
        static Series a, b;
        double bare_rate, store_rate, bare_cpu, store_cpu;

        for (size_t i = 0; i < rounds; i++) {
                /* Who comes first changes. */
                if (i % 2 == 0)
                        measure(&a, i, bare, NULL, *run);
                measure(&b, i, NULL, store, *run);
                if (i % 2 == 1)
                        measure(&a, i, bare, NULL, *run);
        }
        bare_rate = median(a.rate, rounds);
        store_rate = median(b.rate, rounds);
        bare_cpu = median(a.cpu, rounds);
        store_cpu = median(b.cpu, rounds);
        printf("%s of %zu bytes, %4u under way: hiredis %8.0f/s, %.2f us of CPU; driver %8.0f/s, %.2f us of CPU: %.2f x\n",
                        run->verb == STATE_GET ? "GET" : "SET", run->value_size, run->window, bare_rate,
                        bare_cpu, store_rate, store_cpu, store_rate / bare_rate);
}

static pid_t start_server(void) {
        char text[65536];
        size_t size = 0;
        int fds[2];
        pid_t pid;

        if (!mkdtemp(folder) || pipe2(fds, O_CLOEXEC) < 0)
                abort();
        snprintf(path, sizeof(path), "%s/socket", folder);
        pid = fork();
        if (pid == 0) {
                prctl(PR_SET_PDEATHSIG, SIGKILL);
                dup2(fds[1], STDOUT_FILENO);
                execlp("redis-server", "redis-server", "--port", "0", "--unixsocket", path, "--save", "",
                                "--dir", folder, NULL);
                _exit(127);
        }
        close(fds[1]);
        for (;;) {
                ssize_t n = read(fds[0], text + size, sizeof(text) - 1 - size);

                if (n <= 0) {
                        printf("skipped: no redis-server\n");
                        exit(77);
                }
                size += (size_t) n;
                text[size] = '\0';
                if (strstr(text, "eady to accept connections"))
                        return pid;
        }
}

int main(int argc, char **argv) {
        unsigned n = argc > 2 ? (unsigned) atoi(argv[2]) : 100000;
        size_t rounds = argc > 3 ? (size_t) atoi(argv[3]) : 11;
        static const size_t sizes[] = { 100, 4096 };
        static const unsigned windows[] = { 1, 50, 1000 };
        static char value[4096];
        Bare bare = { 0 };
        StateStore store = { 0 };
        pid_t server;

        if (argc < 2 || rounds == 0 || rounds > ROUNDS_MAX || n == 0)
                return 2;
        server = start_server();
        memset(value, 'x', sizeof(value));
        bare_open(&bare);
        store_open(&store, argv[1]);
        for (size_t i = 0; i < ELEMENTSOF(sizes); i++)
                for (size_t j = 0; j < ELEMENTSOF(windows); j++)
                        for (StateVerb verb = STATE_SET;; verb = STATE_GET) {
                                Run run = { .verb = verb,
                                        .window = windows[j],
                                        .value = value,
                                        .value_size = sizes[i],
                                        .n = windows[j] == 1 ? n / 5 : n };

                                compare_both(&bare, &store, &run, rounds);
                                if (verb == STATE_GET)
                                        break;
                        }
        store.driver->close(store.handle);
        sd_event_unref(store.event);
        redisAsyncFree(bare.context);
        kill(server, SIGKILL);
        waitpid(server, NULL, 0);
        unlink(path);
        rmdir(folder);
        return 0;
}
