/* SPDX-License-Identifier: MIT */
#include "redis-host.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "basic/clock.h"
#include "basic/fd.h"
#include "basic/macro.h"

#define PATIENCE    (60 * USEC_PER_SEC) /* for a machine that stands still */
#define OPTIONS_MAX 32

/* The server */

void server_require(void) {
        if (access("/usr/bin/redis-server", X_OK) == 0)
                return;
        printf("skipped: there is no redis-server\n");
        exit(77);
}

static void server_execute(const Server *s, const char *const *options, int output) {
        const char *argv[OPTIONS_MAX] = { "redis-server", "--port", "0", "--unixsocket", s->path, "--save",
                "", "--daemonize", "no", "--dir", s->folder };
        size_t n = 11;

        for (; options && *options; options++)
                argv[n++] = *options;
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        dup2(output, STDOUT_FILENO);
        dup2(output, STDERR_FILENO);
        execv("/usr/bin/redis-server", (char **) argv);
        _exit(127);
}

/* Reads what it prints until it says that it is ready. */
static bool server_await(Server *s) {
        char text[65536];
        size_t size = 0;

        for (;;) {
                ssize_t n = read(s->output, text + size, sizeof(text) - 1 - size);

                if (n <= 0)
                        return false;
                size += (size_t) n;
                text[size] = '\0';
                if (strstr(text, "eady to accept connections"))
                        return true;
        }
}

bool server_try(Server *s, const char *const *options) {
        int fds[2];

        assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
        s->pid = fork();
        assert_true(s->pid >= 0);
        if (s->pid == 0)
                server_execute(s, options, fds[1]);
        close(fds[1]);
        s->output = fds[0];
        if (server_await(s))
                return true;
        server_kill(s);
        return false;
}

void server_start(Server *s, const char *const *options) {
        *s = (Server){ .output = -EBADF };
        strcpy(s->folder, "/tmp/muster-redis-XXXXXX");
        assert_non_null(mkdtemp(s->folder));
        snprintf(s->path, sizeof(s->path), "%s/socket", s->folder);
        assert_true(server_try(s, options));
}

void server_kill(Server *s) {
        if (s->pid > 0) {
                kill(s->pid, SIGKILL);
                assert_int_equal(waitpid(s->pid, NULL, 0), s->pid);
        }
        s->pid = 0;
        s->output = safe_close(s->output);
}

void server_done(Server *s) {
        server_kill(s);
        unlink(s->path);
        assert_int_equal(rmdir(s->folder), 0);
}

static redisReply *ask(const Server *s, const char *format, va_list ap) {
        redisContext *c = redisConnectUnix(s->path);
        redisReply *reply;

        assert_non_null(c);
        assert_int_equal(c->err, 0);
        reply = redisvCommand(c, format, ap);
        assert_non_null(reply);
        redisFree(c);
        return reply;
}

redisReply *server_ask(const Server *s, const char *format, ...) {
        redisReply *reply;
        va_list ap;

        va_start(ap, format);
        reply = ask(s, format, ap);
        va_end(ap);
        return reply;
}

void server_tell(const Server *s, const char *format, ...) {
        redisReply *reply;
        va_list ap;

        va_start(ap, format);
        reply = ask(s, format, ap);
        va_end(ap);
        assert_int_not_equal(reply->type, REDIS_REPLY_ERROR);
        freeReplyObject(reply);
}

long long server_ask_number(const Server *s, const char *format, ...) {
        redisReply *reply;
        long long number;
        va_list ap;

        va_start(ap, format);
        reply = ask(s, format, ap);
        va_end(ap);
        assert_int_equal(reply->type, REDIS_REPLY_INTEGER);
        number = reply->integer;
        freeReplyObject(reply);
        return number;
}

/* What the driver calls */

static void host_connected(StateStore *s) {
        s->n_connected++;
}

static void host_lost(StateStore *s, int error, const char *text) {
        s->n_lost++;
        s->lost_error = error;
        snprintf(s->lost_text, sizeof(s->lost_text), "%s", text);
        if (s->when_lost)
                s->when_lost(s);
}

static void *copy(StateBytes bytes) {
        char *p = malloc(bytes.size + 1);

        assert_non_null(p);
        if (bytes.size > 0)
                memcpy(p, bytes.data, bytes.size);
        p[bytes.size] = '\0';
        return p;
}

static void keep_keys(Operation *o, const StateOutcome *outcome) {
        o->n_keys = outcome->n_keys;
        o->keys = calloc(o->n_keys + 1, sizeof(*o->keys));
        o->key_sizes = calloc(o->n_keys + 1, sizeof(*o->key_sizes));
        for (size_t i = 0; i < o->n_keys; i++) {
                o->keys[i] = copy(outcome->keys[i]);
                o->key_sizes[i] = outcome->keys[i].size;
        }
        assert_true(outcome->cursor.size < sizeof(o->cursor));
        if (outcome->cursor.size > 0)
                memcpy(o->cursor, outcome->cursor.data, outcome->cursor.size);
        o->cursor_size = outcome->cursor.size;
}

static void host_finish(StateStore *s, StateOperation *op, const StateOutcome *outcome) {
        Operation *o = CONTAINER_OF(op, Operation, op);

        assert_false(o->has_ended);
        o->has_ended = true;
        o->order = s->n_finished++;
        o->error = outcome->error;
        o->number = outcome->number;
        o->fence = outcome->fence;
        o->remaining_usec = outcome->remaining_usec;
        if (op->verb == STATE_GET && outcome->error == 0) {
                o->value = copy(outcome->value);
                o->size = outcome->value.size;
                o->version = s->driver->version(s->handle, outcome->value);
        }
        if (op->verb == STATE_SCAN && outcome->error == 0)
                keep_keys(o, outcome);
        if (s->when_finished)
                s->when_finished(s, o);
}

static void host_complain(StateStore *s, const char *text) {
        s->n_complaints++;
        snprintf(s->complaint, sizeof(s->complaint), "%s", text);
}

static void host_subscribed(StateStore *s, StateBytes channel) {
        s->n_subscribed++;
        memcpy(s->channel, channel.data, channel.size);
        s->channel_size = channel.size;
}

static void host_refused(StateStore *s, StateBytes channel) {
        s->n_refused++;
}

static void host_message(StateStore *s, StateBytes channel, StateBytes data) {
        s->n_messages++;
        memcpy(s->channel, channel.data, channel.size);
        s->channel_size = channel.size;
        assert_true(data.size <= MUSTER_STATE_MESSAGE_MAX);
        memcpy(s->message, data.data, data.size);
        s->message[data.size] = '\0';
        s->message_size = data.size;
}

static int host_broadcast(StateStore *s, StateBytes channel, StateBytes data) {
        fail_msg("a server needs no broadcast");
        return 0;
}

static const StateHost host = {
        .connected = host_connected,
        .lost = host_lost,
        .finish = host_finish,
        .complain = host_complain,
        .subscribed = host_subscribed,
        .message = host_message,
        .refused = host_refused,
        .broadcast = host_broadcast,
};

/* The store */

static const StateDriver *driver_load(void) {
        const StateDriver *driver;
        char path[512];
        void *library;

        snprintf(path, sizeof(path), "%s/state-redis.so", getenv("MUSTER_PLUGINDIR"));
        library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
        if (!library)
                fail_msg("%s", dlerror());
        driver = dlsym(library, STATE_DRIVER_SYMBOL);
        assert_non_null(driver);
        assert_int_equal(driver->abi, STATE_DRIVER_ABI);
        return driver;
}

void store_open(StateStore *s, const StateUrl *url) {
        char error[STATE_TEXT_MAX] = "";

        *s = (StateStore){ .url = *url, .driver = driver_load() };
        assert_int_equal(sd_event_new(&s->event), 0);
        if (s->driver->open(&host, s, s->event, &s->url, &s->handle, error) != 0)
                fail_msg("%s", error);
}

void store_open_at(StateStore *s, Server *server) {
        store_open(s, &(StateUrl){ .driver = (char *) "redis", .is_unix = true, .path = server->path });
}

void store_close(StateStore *s) {
        s->driver->close(s->handle);
        sd_event_unref(s->event);
}

void store_connect(StateStore *s, const char *password) {
        assert_int_equal(s->driver->connect(s->handle, password), 0);
}

void store_connected(StateStore *s, const char *password) {
        unsigned n = s->n_connected, lost = s->n_lost;

        store_connect(s, password);
        run_until(s, s->n_connected > n || s->n_lost > lost);
        if (s->n_lost > lost)
                fail_msg("%s", s->lost_text);
}

void store_refused(StateStore *s, const char *password, int error) {
        unsigned n = s->n_connected, lost = s->n_lost;

        store_connect(s, password);
        run_until(s, s->n_lost > lost);
        assert_int_equal(s->n_connected, n);
        if (s->lost_error != error)
                fail_msg("%i, not %i: %s", s->lost_error, error, s->lost_text);
}

uint64_t store_deadline(void) {
        return clock_now_usec() + PATIENCE;
}

void store_run(StateStore *s, uint64_t until) {
        uint64_t now = clock_now_usec();

        assert_true(now < until);
        assert_true(sd_event_run(s->event, until - now) >= 0);
}

/* Operations */

Operation *operation_new(StateVerb verb, const void *key, size_t size) {
        Operation *o = calloc(1, sizeof(*o));

        assert_non_null(o);
        o->op.verb = verb;
        o->op.key = (StateBytes){ .data = key, .size = size };
        return o;
}

Operation *operation_free(Operation *o) {
        if (!o)
                return NULL;
        for (size_t i = 0; i < o->n_keys; i++)
                free(o->keys[i]);
        free(o->keys);
        free(o->key_sizes);
        free(o->value);
        free(o);
        return NULL;
}

void operation_send(StateStore *s, Operation *o) {
        unsigned n = s->n_finished;

        assert_int_equal(s->driver->send(s->handle, &o->op), 0);
        assert_int_equal(s->n_finished, n);
}

Operation *operation_run(StateStore *s, Operation *o) {
        operation_send(s, o);
        run_until(s, o->has_ended);
        return o;
}
