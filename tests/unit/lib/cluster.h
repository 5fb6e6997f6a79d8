/* SPDX-License-Identifier: MIT */
#pragma once

/* What the tests of a cluster share. The test program is its own worker: main() calls worker_main() when
 * MUSTER_WORKER is in the environment. How a worker starts is said by $TEST_MODE, which a primary can change
 * for those that come later; what it does then, by messages. */

#include "spawn.h"

#include <netinet/in.h>
#include <stdarg.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include "muster/cluster.h"
#include "muster/worker.h"

#define HOUR_USEC (3600 * UINT64_C(1000000))
#define MSEC      UINT64_C(1000)

#define SLOTS_MAX 8

#define LONG_MESSAGE 100000

#define MANY_MESSAGES 15000

#define REASON      "it \"broke\" \\ f\xC3\xBCr immer"
#define REASON_TOLD "it \"broke\" \\ f??r immer"

/* What a worker ends with when it is told to go. */
#define STATUS_RETIRED 42

/*
 * The worker
 */

static struct {
        muster_worker *worker;
        int channel_fd;
        char servers[1024];
        bool deaf;
        unsigned n_heard; /* of another's broadcasts */
        char **argv;
} me;

static inline void tell(const char *json, int fd) {
        if (muster_channel_send(muster_worker_get_channel(me.worker), json, fd, NULL, NULL) < 0)
                _exit(100);
}

static inline int port_of(int fd) {
        struct sockaddr_in a;
        socklen_t n = sizeof(a);

        return getsockname(fd, (struct sockaddr *) &a, &n) == 0 ? ntohs(a.sin_port) : -1;
}

static inline void on_server(muster_worker *worker, const char *name, int fd, void *userdata) {
        size_t n = strlen(me.servers);

        snprintf(me.servers + n, sizeof(me.servers) - n, "%s:%d:%d:%d ", name, port_of(fd),
                        (fcntl(fd, F_GETFL) & O_NONBLOCK) != 0, fcntl(fd, F_GETFD) & FD_CLOEXEC);
        close(fd);
}

static inline void on_started(muster_worker *worker, void *userdata) {
        strcat(me.servers, "started");
        if (muster_worker_ready(worker) < 0)
                _exit(101);
}

static inline void on_retire(muster_worker *worker, void *userdata) {
        if (me.deaf)
                return;
        (void) muster_channel_send(muster_worker_get_channel(worker), "\"retired\"", -1, NULL, NULL);
        (void) sd_event_exit(event, STATUS_RETIRED);
}

static inline void write_raw(const char *text) {
        if (write(me.channel_fd, text, strlen(text)) != (ssize_t) strlen(text))
                _exit(102);
}

static inline void tell_arguments(void) {
        char text[1024] = "\"";

        for (char **a = me.argv; *a; a++) {
                strcat(text, *a);
                strcat(text, "|");
        }
        tell(strcat(text, "\""), -1);
}

static inline void tell_environment(void) {
        char text[4096] = "\"";

        for (char **e = environ; *e; e++)
                strcat(strcat(text, *e), "|");
        tell(strcat(text, "\""), -1);
}

static inline void tell_servers(void) {
        char text[sizeof(me.servers) + 64];

        snprintf(text, sizeof(text), "\"%u %s\"", muster_worker_get_id(me.worker), me.servers);
        tell(text, -1);
}

/* In the worker's process group, and deaf to all that a terminal or a polite parent sends. */
static inline void start_background_child(void) {
        char text[64];
        pid_t pid = fork();

        if (pid == 0) {
                (void) signal(SIGTERM, SIG_IGN);
                (void) signal(SIGHUP, SIG_IGN);
                for (;;)
                        pause();
        }
        snprintf(text, sizeof(text), "%d", pid);
        tell(text, -1);
}

static inline void retire_because(char fill) {
        char reason[400] = "";

        memset(reason, fill, sizeof(reason) - 1);
        if (muster_worker_retire(me.worker, fill ? reason : NULL) < 0)
                _exit(103);
}

/* More than is read at once. */
static inline void tell_at_length(void) {
        static char text[LONG_MESSAGE + 1];

        memset(text, 'x', LONG_MESSAGE);
        text[0] = text[LONG_MESSAGE - 1] = '"';
        tell(text, -1);
}

/* So short that it is only their number that is much. */
static inline void broadcast_many(const char *command) {
        for (unsigned i = 0; i < MANY_MESSAGES; i++)
                if (muster_worker_broadcast(me.worker, "1", 1) < 0)
                        _exit(108);
        tell(command, -1);
}

static inline void tell_n_heard(void) {
        char text[32];

        snprintf(text, sizeof(text), "%u", me.n_heard);
        tell(text, -1);
}

/* Until a signal comes. */
static inline void hang(void) {
        sigset_t none;

        sigemptyset(&none);
        sigprocmask(SIG_SETMASK, &none, NULL);
        for (;;)
                pause();
}

/* Commands that end or harm the process. */
static inline void obey_harmful(const char *command) {
        if (strcmp(command, "\"exit\"") == 0)
                _exit(3);
        else if (strcmp(command, "\"last words\"") == 0) {
                tell(command, -1);
                _exit(0);
        } else if (strcmp(command, "\"long last words\"") == 0) {
                tell_at_length();
                _exit(0);
        } else if (strcmp(command, "\"hang\"") == 0) {
                tell(command, -1);
                hang();
        } else if (strcmp(command, "\"ready again\"") == 0) {
                (void) muster_worker_ready(me.worker);
                tell(command, -1);
        } else if (strcmp(command, "\"rubbish\"") == 0)
                write_raw("rubbish\n");
        else if (strcmp(command, "\"half\"") == 0) {
                write_raw("{\"half\":");
                (void) shutdown(me.channel_fd, SHUT_WR);
        } else if (strcmp(command, "\"half and exit\"") == 0) {
                write_raw("{\"half\":");
                _exit(4);
        } else if (strcmp(command, "\"close\"") == 0)
                me.worker = muster_worker_free(me.worker);
}

static inline void on_command(muster_worker *worker, muster_message *message, void *userdata) {
        const char *command = muster_message_get_json(message, NULL);
        int fd = muster_message_get_fd(message);

        if (fd >= 0)
                tell(command, fd);
        else if (strcmp(command, "\"echo\"") == 0)
                tell(command, -1);
        else if (strcmp(command, "\"deaf\"") == 0) {
                me.deaf = true;
                tell(command, -1);
        } else if (strcmp(command, "1") == 0)
                me.n_heard++;
        else if (strcmp(command, "\"broadcast many\"") == 0)
                broadcast_many(command);
        else if (strcmp(command, "\"heard\"") == 0)
                tell_n_heard();
        else if (strcmp(command, "\"servers\"") == 0)
                tell_servers();
        else if (strcmp(command, "\"arguments\"") == 0)
                tell_arguments();
        else if (strcmp(command, "\"environment\"") == 0)
                tell_environment();
        else if (strcmp(command, "\"child\"") == 0)
                start_background_child();
        else if (strcmp(command, "\"retire\"") == 0) {
                if (muster_worker_retire(worker, REASON) < 0)
                        _exit(104);
        } else if (strcmp(command, "\"retire long\"") == 0)
                retire_because('"');
        else if (strcmp(command, "\"retire without\"") == 0)
                retire_because('\0');
        else if (strcmp(command, "\"suicide\"") == 0)
                tell("{\"act\":\"suicide\",\"reason\":\"I \\u0041m \\\"done\\\"\"}", -1);
        else
                obey_harmful(command);
}

static inline void leave_no_free_descriptor(void) {
        int free_fd = dup(STDIN_FILENO);
        struct rlimit limit = { (rlim_t) free_fd, (rlim_t) free_fd };

        if (free_fd < 0 || close(free_fd) < 0 || setrlimit(RLIMIT_NOFILE, &limit) < 0)
                _exit(105);
}

static inline int worker_main(char *argv[]) {
        const char *env_mode = getenv("TEST_MODE"), *mode = env_mode ? env_mode : "";
        muster_worker_handlers handlers = MUSTER_WORKER_HANDLERS_INIT;
        sigset_t terminate;

        if (strcmp(mode, "crash") == 0)
                _exit(3);
        sigemptyset(&terminate);
        sigaddset(&terminate, SIGTERM);
        if (strcmp(mode, "no SIGTERM") == 0)
                sigprocmask(SIG_BLOCK, &terminate, NULL);

        me.argv = argv;
        me.channel_fd = atoi(getenv("MUSTER_CHANNEL_FD"));
        handlers.server = on_server;
        handlers.started = strcmp(mode, "mute") == 0 ? NULL : on_started;
        handlers.retire = on_retire;
        handlers.message = on_command;
        if (sd_event_new(&event) < 0 ||
                        muster_worker_from_environment(event, &handlers, NULL, &me.worker) < 0)
                _exit(106);
        if (getenv("MUSTER_WORKER") || getenv("MUSTER_CHANNEL_FD") || getenv("NODE_CHANNEL_FD"))
                _exit(107);
        if (strcmp(mode, "no descriptor") == 0)
                leave_no_free_descriptor();
        if (strcmp(mode, "retire") == 0)
                (void) muster_worker_retire(me.worker, "not fit to start");
        int status = sd_event_loop(event);
        muster_worker_free(me.worker);
        sd_event_unref(event);
        return status;
}

/*
 * The primary
 */

/* What the handlers were told. */
static struct {
        muster_cluster *cluster;
        char log[8192]; /* in order, each ends with a line feed */
        unsigned n_ready, n_exits, n_failed, n_stopped, n_messages;
        muster_cluster_worker *worker[SLOTS_MAX + 1]; /* by slot: the last that got ready */
        pid_t pid[SLOTS_MAX + 1];
        unsigned failed_id;
        int error;
        pid_t ended_pid;
        char message[4096];
        size_t message_length;
        int fd;                         /* that came with it */
        unsigned always_ready;          /* fewer is a failure; checked whenever something happens */
        void (*then)(const char *what); /* is called at the end of each handler */
} seen = { .fd = -EBADF };

static inline _printf_(2, 3) void note(const char *what, const char *format, ...) {
        size_t n = strlen(seen.log);
        va_list ap;

        va_start(ap, format);
        vsnprintf(seen.log + n, sizeof(seen.log) - n, format, ap);
        va_end(ap);
        strncat(seen.log, "\n", sizeof(seen.log) - 1 - strlen(seen.log));
        assert_true(muster_cluster_get_n_ready(seen.cluster) >= seen.always_ready);
        if (seen.then)
                seen.then(what);
}

static inline void on_worker_ready(muster_cluster *c, muster_cluster_worker *w, void *userdata) {
        unsigned id = muster_cluster_worker_get_id(w);

        assert_ptr_equal(c, seen.cluster);
        assert_ptr_equal(userdata, &seen);
        assert_in_range(id, 1, SLOTS_MAX);
        seen.n_ready++;
        seen.worker[id] = w;
        seen.pid[id] = muster_cluster_worker_get_pid(w);
        note("ready", "ready %u", id);
}

static inline void on_worker_retiring(
                muster_cluster *c, muster_cluster_worker *w, const char *reason, void *userdata) {
        assert_ptr_equal(userdata, &seen);
        note("retiring", "retiring %u: %s", muster_cluster_worker_get_id(w), reason);
}

static inline void on_worker_exit(
                muster_cluster *c, muster_cluster_worker *w, int code, int status, void *userdata) {
        unsigned id = muster_cluster_worker_get_id(w);

        assert_ptr_equal(userdata, &seen);
        seen.n_exits++;
        seen.ended_pid = muster_cluster_worker_get_pid(w);
        if (seen.worker[id] == w)
                seen.worker[id] = NULL;
        note("exit", "exit %u: %s %d", id, code == CLD_EXITED ? "status" : "signal", status);
}

static inline void on_worker_failed(muster_cluster *c, unsigned id, int error, void *userdata) {
        assert_ptr_equal(userdata, &seen);
        seen.n_failed++;
        seen.failed_id = id;
        seen.error = error;
        note("failed", "failed %u: %s", id, strerrorname_np(-error));
}

static inline void on_worker_message(
                muster_cluster *c, muster_cluster_worker *w, muster_message *message, void *userdata) {
        assert_ptr_equal(userdata, &seen);
        seen.n_messages++;
        snprintf(seen.message, sizeof(seen.message), "%s",
                        muster_message_get_json(message, &seen.message_length));
        safe_close(seen.fd);
        seen.fd = muster_message_take_fd(message);
        note("message", "message %u: %.100s", muster_cluster_worker_get_id(w), seen.message);
}

static inline void on_cluster_stopped(muster_cluster *c, void *userdata) {
        assert_ptr_equal(userdata, &seen);
        assert_int_equal(muster_cluster_get_n_ready(c), 0);
        assert_false(has_children());
        seen.n_stopped++;
        note("stopped", "stopped");
}

static inline muster_cluster_options options_of(unsigned n_workers) {
        muster_cluster_options o = MUSTER_CLUSTER_OPTIONS_INIT;

        o.n_workers = n_workers;
        return o;
}

static inline void new_cluster(const muster_cluster_options *o) {
        muster_cluster_handlers handlers = MUSTER_CLUSTER_HANDLERS_INIT;

        handlers.ready = on_worker_ready;
        handlers.retiring = on_worker_retiring;
        handlers.exit = on_worker_exit;
        handlers.failed = on_worker_failed;
        handlers.message = on_worker_message;
        handlers.stopped = on_cluster_stopped;
        assert_int_equal(muster_cluster_new(event, o, &handlers, &seen, &seen.cluster), 0);
}

/* All workers are ready, and the log begins behind that. */
static inline void start_ready(const muster_cluster_options *o) {
        new_cluster(o);
        assert_int_equal(muster_cluster_start(seen.cluster), 0);
        run_until(seen.n_ready == o->n_workers);
        assert_int_equal(muster_cluster_get_n_ready(seen.cluster), o->n_workers);
        seen.log[0] = '\0';
}

static inline void command(unsigned id, const char *json) {
        assert_non_null(seen.worker[id]);
        assert_in_range(muster_cluster_worker_send(seen.worker[id], json, -1), 0, 1);
}

/* What the worker answers. */
static inline const char *ask(unsigned id, const char *json) {
        unsigned before = seen.n_messages;

        command(id, json);
        run_until(seen.n_messages > before);
        return seen.message;
}

static inline void stop_and_free(void) {
        assert_int_equal(muster_cluster_stop(seen.cluster), 0);
        run_until(seen.n_stopped);
        assert_int_equal(seen.n_stopped, 1);
        seen.cluster = muster_cluster_free(seen.cluster);
}

static inline bool heard(const char *text) {
        return strstr(seen.log, text) != NULL;
}

/* In any order: a dead worker's channel may tell of its end before its pidfd does, and then its successor
 * may be ready before that. */
static inline void assert_heard_both(const char *one, const char *other) {
        assert_true(heard(one));
        assert_true(heard(other));
        assert_int_equal(strlen(seen.log), strlen(one) + strlen(other));
}

static inline int listen_anywhere(void) {
        struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
        int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

        assert_true(fd >= 0);
        assert_int_equal(bind(fd, (struct sockaddr *) &a, sizeof(a)), 0);
        assert_int_equal(listen(fd, 1), 0);
        return fd;
}

static inline int setup_cluster(void **state) {
        memset(&seen, 0, sizeof(seen));
        seen.fd = -EBADF;
        unsetenv("TEST_MODE");
        return setup_event(state);
}

/* Whatever the test did, nobody is left. */
static inline int teardown_cluster(void **state) {
        seen.cluster = muster_cluster_free(seen.cluster);
        seen.fd = safe_close(seen.fd);
        unsetenv("TEST_MODE");
        (void) teardown_event(state);
        return has_children() ? -1 : 0;
}

#define cluster_test(f) cmocka_unit_test_setup_teardown(f, setup_cluster, teardown_cluster)
