/* SPDX-License-Identifier: MIT */
/* The control socket: a real loop, a real socket, the real muster-admin of this build ($MUSTER_ADMIN), or a
 * shell script in its place where it is to misbehave. */

#include "../lib/spawn.h"

#include <inttypes.h>
#include <limits.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "basic/log.h"
#include "master/control.h"

#define GET(path)  "GET " path " HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
#define POST(path) "POST " path " HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
#define POST_JSON(path, body, n)                                                  \
        "POST " path " HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n" \
        "Content-Length: " n "\r\nConnection: close\r\n\r\n" body
#define SCALE(body, n) POST_JSON("/v1/scale", body, n)
#define SEND(body, n)  POST_JSON("/v1/send", body, n)

static char dir[] = "/tmp/test-control-XXXXXX";

/* What the handlers were asked. */
static ControlRequest *requests[128];
static size_t n_requests;
static unsigned scaled_to;
static unsigned sent_to;
static char sent[128];
static bool finish_at_once;
static int stops;
static Control *control;

static void write_status(FILE *f, void *userdata) {
        assert_ptr_equal(userdata, dir);
        fputs("{\"app\":\"web\",\"state\":\"running\"}", f);
}

static void write_exits(FILE *f, void *userdata) {
        fputs("{\"app\":\"web\",\"exits\":[]}", f);
}

static void note(ControlRequest *request) {
        if (finish_at_once) {
                control_request_finish(request, NULL, "{\"generation\":2,\"workers\":1}");
                return;
        }
        assert_true(n_requests < ELEMENTSOF(requests));
        requests[n_requests++] = request;
}

static void reload(ControlRequest *request, void *userdata) {
        note(request);
}

static void scale(ControlRequest *request, unsigned n, void *userdata) {
        scaled_to = n;
        note(request);
}

static void send_to_workers(
                ControlRequest *request, unsigned worker, const char *json, size_t n, void *userdata) {
        sent_to = worker;
        snprintf(sent, sizeof(sent), "%.*s", (int) n, json);
        note(request);
}

static const ControlHandlers handlers = { write_status, write_exits, reload, scale, send_to_workers };

static void on_stopped(void *userdata) {
        assert_ptr_equal(userdata, dir);
        stops++;
}

/*
 * Clients
 */

typedef struct Answer {
        int fd;
        sd_event_source *io;
        char text[4096];
        size_t n;
        bool ended;
} Answer;

static int on_answer(sd_event_source *source, int fd, uint32_t revents, void *userdata) {
        Answer *a = userdata;
        ssize_t n = recv(fd, a->text + a->n, sizeof(a->text) - 1 - a->n, MSG_DONTWAIT);

        if (n > 0) {
                a->n += (size_t) n;
                a->text[a->n] = '\0';
        } else {
                a->ended = true;
                a->io = sd_event_source_disable_unref(a->io);
        }
        return 0;
}

static void client_open(Answer *a, const char *request) {
        struct sockaddr_un un = { .sun_family = AF_UNIX };

        *a = (Answer){ .fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0) };
        snprintf(un.sun_path, sizeof(un.sun_path), "%s/control", dir);
        assert_int_equal(connect(a->fd, (struct sockaddr *) &un, sizeof(un)), 0);
        assert_int_equal(send(a->fd, request, strlen(request), MSG_NOSIGNAL), strlen(request));
        assert_true(sd_event_add_io(event, &a->io, a->fd, EPOLLIN, on_answer, a) >= 0);
}

static void client_close(Answer *a) {
        a->io = sd_event_source_disable_unref(a->io);
        a->fd = safe_close(a->fd);
}

/* Waits for the whole answer and checks its status and body; "" for any. */
static void client_expect(Answer *a, const char *status, const char *body) {
        run_until(a->ended);
        const char *text = strstr(a->text, "\r\n\r\n");
        char line[64];

        snprintf(line, sizeof(line), "HTTP/1.1 %s ", status);
        if (strncmp(a->text, line, strlen(line)) != 0 || !text || (*body && strcmp(text + 4, body) != 0))
                fail_msg("expected %s %s, got: %s", status, body, a->text);
        client_close(a);
}

static void expect(const char *request, const char *status, const char *body) {
        Answer a;

        client_open(&a, request);
        client_expect(&a, status, body);
}

/*
 * muster-admin, or what stands in for it
 */

static void write_script(const char *format, ...) _printf_(1, 2);

/* Replaced, as it may be running: a shell reads its script as it goes. */
static void write_script(const char *format, ...) {
        char path[PATH_MAX], next[PATH_MAX];
        va_list ap;

        snprintf(path, sizeof(path), "%s/muster-admin", dir);
        snprintf(next, sizeof(next), "%s/next", dir);
        FILE *f = fopen(next, "we");
        assert_non_null(f);
        fputs("#!/bin/sh\n", f);
        va_start(ap, format);
        vfprintf(f, format, ap);
        va_end(ap);
        fputc('\n', f);
        assert_int_equal(fclose(f), 0);
        assert_int_equal(chmod(next, 0755), 0);
        assert_int_equal(rename(next, path), 0);
}

static void use_real_one(const char *options) {
        const char *real = getenv("MUSTER_ADMIN");

        if (!real)
                skip(); /* not started by the build system */
        write_script("exec %s %s", real, options);
}

static int setup(void **state) {
        return mkdtemp(dir) && setenv("MUSTER_LIBEXECDIR", dir, 1) == 0 ? 0 : -1;
}

static int teardown(void **state) {
        char path[PATH_MAX];

        snprintf(path, sizeof(path), "%s/muster-admin", dir);
        (void) unlink(path);
        return rmdir(dir);
}

static int setup_control(void **state) {
        struct sockaddr_un un = { .sun_family = AF_UNIX };
        int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

        n_requests = 0;
        scaled_to = 0;
        finish_at_once = false;
        stops = 0;
        snprintf(un.sun_path, sizeof(un.sun_path), "%s/control", dir);
        assert_int_equal(bind(fd, (struct sockaddr *) &un, sizeof(un)), 0);
        assert_int_equal(listen(fd, 128), 0);
        assert_true(sd_event_new(&event) >= 0);
        assert_int_equal(control_new(fd, "web", &handlers, dir, &control), 0);
        assert_int_equal(control_attach(control, event), 0);
        return 0;
}

static int teardown_control(void **state) {
        char path[PATH_MAX];

        control = control_free(control);
        for (size_t i = 0; i < n_requests; i++) /* also after it is freed */
                control_request_finish(requests[i], "failed", "Never mind.");
        event = sd_event_unref(event);
        snprintf(path, sizeof(path), "%s/control", dir);
        return unlink(path);
}

#define control_test(f) cmocka_unit_test_setup_teardown(f, setup_control, teardown_control)

static void finish_last(const char *code, const char *text) {
        assert_true(n_requests > 0);
        control_request_finish(requests[--n_requests], code, text);
}

/*
 * The tests
 */

/* Nothing runs until somebody connects; the first one is answered, and so is the next, by the same process.
 */
static void test_on_demand(void **state) {
        use_real_one("");
        run_what_is_due();
        assert_int_equal(control_get_pid(control), 0);
        expect(GET("/v1/status"), "200", "{\"app\":\"web\",\"state\":\"running\"}");
        pid_t pid = control_get_pid(control);
        assert_true(pid > 0);
        expect(GET("/v1/exits"), "200", "{\"app\":\"web\",\"exits\":[]}");
        assert_int_equal(control_get_pid(control), pid);
}

/* Answers come when the master gives them, each to whoever asked, in whatever order. */
static void test_later(void **state) {
        Answer first, second, third;

        use_real_one("");
        client_open(&first, POST("/v1/reload"));
        run_until(n_requests == 1);
        client_open(&second, POST("/v1/reload"));
        run_until(n_requests == 2);
        client_open(&third, SCALE("{\"workers\":256}", "15"));
        run_until(n_requests == 3);
        assert_int_equal(scaled_to, 256);
        expect(GET("/v1/status"), "200", "");

        finish_last(NULL, NULL);
        client_expect(&third, "200", "{}");
        finish_last("busy", "Another one is \"under\" way.");
        client_expect(&second, "409",
                        "{\"error\":{\"code\":\"busy\",\"message\":\"Another one is \\\"under\\\" way.\"}}");
        finish_last("failed", "worker 1 exited with status 3");
        client_expect(&first, "422",
                        "{\"error\":{\"code\":\"failed\",\"message\":\"worker 1 exited with status 3\"}}");

        finish_at_once = true;
        expect(POST("/v1/reload"), "200", "{\"generation\":2,\"workers\":1}");
}

/* A message arrives as it is meant, with the worker that it is for; and the answer goes back as it is. */
static void test_send(void **state) {
        Answer a;

        use_real_one("");
        sent_to = 7;
        client_open(&a, SEND("{\"message\":{\"a\":[1,\n\"}\"]}}", "26"));
        run_until(n_requests == 1);
        assert_int_equal(sent_to, 0);
        assert_string_equal(sent, "{\"a\":[1,\"}\"]}");
        finish_last(NULL, "{\"delivered\":2}");
        client_expect(&a, "200", "{\"delivered\":2}");

        client_open(&a, SEND("{\"message\":\"x\",\"worker\":256}", "28"));
        run_until(n_requests == 1);
        assert_int_equal(sent_to, 256);
        assert_string_equal(sent, "\"x\"");
        finish_last("failed", "No worker is ready.");
        client_expect(&a, "422", "{\"error\":{\"code\":\"failed\",\"message\":\"No worker is ready.\"}}");
}

/* Without anybody who asks it ends by itself, and the next client starts it again. */
static void test_idle(void **state) {
        Answer a;

        use_real_one("--idle-timeout=1100ms"); /* more than what the master takes for too soon */
        for (int i = 0; i < 2; i++) {
                client_open(&a, GET("/v1/status"));
                run_until(control_get_pid(control) > 0);
                client_expect(&a, "200", "");
                run_until(control_get_pid(control) == 0);
        }
}

/* Killed: those it served see the end, those in the queue are served by the next one. */
static void test_killed(void **state) {
        Answer a, queued;
        pid_t pid;

        use_real_one("");
        for (int i = 0; i < 3; i++) { /* the third after a pause */
                client_open(&a, POST("/v1/reload"));
                run_until(n_requests == 1);
                pid = control_get_pid(control);
                kill(pid, SIGKILL);
                client_open(&queued, GET("/v1/status"));
                client_expect(&queued, "200", "");
                assert_int_not_equal(control_get_pid(control), pid);
                run_until(a.ended);
                client_close(&a);
                finish_last(NULL, "{\"generation\":9}"); /* nobody is left who gets it */
        }
        expect(GET("/v1/status"), "200", "{\"app\":\"web\",\"state\":\"running\"}");
}

/* A client that hangs up takes nothing with it. */
static void test_client_gone(void **state) {
        Answer a;

        use_real_one("");
        client_open(&a, POST("/v1/reload"));
        run_until(n_requests == 1);
        client_close(&a);
        expect(GET("/v1/status"), "200", "");
        finish_last(NULL, "{}");
        expect(GET("/v1/status"), "200", "");
}

/* Told to stop, it still brings the answers under way; then it is gone. */
static void test_stop(void **state) {
        Answer a, late;

        use_real_one("");
        client_open(&a, POST("/v1/reload"));
        run_until(n_requests == 1);
        assert_int_equal(control_stop(control, on_stopped), 0);
        assert_int_equal(control_stop(control, on_stopped), -EALREADY);
        finish_last("failed", "The service stops.");
        client_expect(&a, "422", "");
        run_until(stops);
        assert_int_equal(control_get_pid(control), 0);

        client_open(&late, GET("/v1/status")); /* waits for the next master */
        run_what_is_due();
        assert_int_equal(control_get_pid(control), 0);
        assert_int_equal(late.n, 0);
        client_close(&late);
        assert_int_equal(stops, 1);
}

/* Without it there is nothing to wait for, but the handler is called from the loop all the same. */
static void test_stop_at_once(void **state) {
        assert_int_equal(control_stop(control, on_stopped), 0);
        assert_int_equal(stops, 0);
        run_until(stops);
        run_what_is_due();
        assert_int_equal(stops, 1);
}

/* One that does not heed the signal is killed after 2 seconds. */
static void test_stop_stubborn(void **state) {
        Answer a;

        write_script("trap '' TERM; echo '{\"cmd\":\"MUSTER\",\"act\":\"reload\",\"id\":1}' >&4; while :; do sleep 100; done");
        client_open(&a, GET("/v1/status"));
        run_until(n_requests == 1); /* the trap is set */
        assert_int_equal(control_stop(control, on_stopped), 0);
        run_until(stops);
        assert_int_equal(control_get_pid(control), 0);
        client_close(&a);
}

/* What is no request is not taken from anybody: the process that sent it is killed, with what it started. */
static void test_malformed(void **state) {
        static const char *const lines[] = {
                "echo garbage",
                "echo '[]'",
                "echo '{}'",
                "echo '{\"cmd\":\"MUSTER\",\"act\":\"list\"}'",
                "echo '{\"cmd\":\"MUSTER\",\"act\":\"list\",\"id\":-1}'",
                "echo '{\"cmd\":\"MUSTER\",\"act\":\"list\",\"id\":\"1\"}'",
                "echo '{\"cmd\":\"MUSTER\",\"act\":\"list\",\"id\":99999999999999999999}'",
                "echo '{\"act\":\"list\",\"id\":1}'",
                "echo '{\"cmd\":\"MUSTER\",\"id\":1}'",
                /* 300 KB in one message, of the right form; and one without an end */
                "printf '{\"cmd\":\"MUSTER\",\"act\":\"reload\",\"id\":1,\"x\":\"%0300000d\"}\\n' 0",
                "head -c 2000000 /dev/zero | tr '\\0' '['",
        };

        for (size_t i = 0; i < ELEMENTSOF(lines); i++) {
                Answer a;

                setup_control(NULL);
                write_script("%s >&4; sleep 100 & wait", lines[i]);
                client_open(&a, GET("/v1/status"));
                run_until(control_get_pid(control) > 0);
                int pidfd = pidfd_of(control_get_pid(control));
                run_until(has_ended(pidfd));
                close(pidfd);
                assert_int_equal(n_requests, 0);
                client_close(&a);
                teardown_control(NULL);
        }
}

/* A number out of range is answered, and so is what only a later master knows. */
static void test_refused(void **state) {
        static const char *const cases[][2] = {
                { "\"act\":\"scale\",\"id\":7", "invalid" },
                { "\"act\":\"scale\",\"id\":7,\"workers\":0", "invalid" },
                { "\"act\":\"scale\",\"id\":7,\"workers\":257", "invalid" },
                { "\"act\":\"scale\",\"id\":7,\"workers\":\"2\"", "invalid" },
                { "\"act\":\"scale\",\"id\":7,\"workers\":1.5", "invalid" },
                { "\"act\":\"send\",\"id\":7", "invalid" },
                { "\"act\":\"send\",\"id\":7,\"worker\":1", "invalid" },
                { "\"act\":\"send\",\"id\":7,\"message\":1,\"worker\":0", "invalid" },
                { "\"act\":\"send\",\"id\":7,\"message\":1,\"worker\":257", "invalid" },
                { "\"act\":\"send\",\"id\":7,\"message\":1,\"worker\":null", "invalid" },
                { "\"act\":\"bake\",\"id\":7", "unknown" },
        };

        for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
                char path[PATH_MAX], text[512] = "";
                Answer a;

                setup_control(NULL);
                snprintf(path, sizeof(path), "%s/reply", dir);
                write_script("echo '{\"cmd\":\"MUSTER\",%s}' >&4; read -r line <&4; printf '%%s' \"$line\" >%s; exit 1",
                                cases[i][0], path);
                client_open(&a, GET("/v1/status"));
                run_until(control_get_pid(control) > 0);
                run_until(control_get_pid(control) == 0);
                FILE *f = fopen(path, "re");
                assert_non_null(f);
                assert_non_null(fgets(text, sizeof(text), f));
                fclose(f);
                unlink(path);
                char expected[128];
                snprintf(expected, sizeof(expected),
                                "{\"cmd\":\"MUSTER\",\"act\":\"reply\",\"id\":7,\"error\":{\"code\":\"%s\",",
                                cases[i][1]);
                assert_int_equal(strncmp(text, expected, strlen(expected)), 0);
                assert_int_equal(n_requests, 0);
                client_close(&a);
                teardown_control(NULL);
        }
}

/* More than 64 requests are not kept, those of a process that is gone included. */
static void test_limit(void **state) {
        char path[PATH_MAX];
        Answer a;

        snprintf(path, sizeof(path), "%s/reply", dir);
        write_script("i=0; while [ $i -lt 65 ]; do i=$((i+1)); echo '{\"cmd\":\"MUSTER\",\"act\":\"reload\",\"id\":'$i'}' >&4; done;"
                     "read -r line <&4; printf '%%s' \"$line\" >%s; exit 1",
                        path);
        client_open(&a, GET("/v1/status"));
        run_until(control_get_pid(control) > 0);
        run_until(control_get_pid(control) == 0);
        assert_int_equal(n_requests, 64);
        FILE *f = fopen(path, "re");
        char text[512] = "";
        assert_non_null(f);
        assert_non_null(fgets(text, sizeof(text), f));
        fclose(f);
        unlink(path);
        assert_non_null(strstr(text, "\"id\":65,\"error\":{\"code\":\"busy\""));

        use_real_one("");
        client_close(&a); /* which only connected */
        expect(POST("/v1/reload"), "409", "");
        while (n_requests > 0)
                finish_last(NULL, NULL);
        finish_at_once = true;
        expect(POST("/v1/reload"), "200", "");
}

/* A program that is not there is tried again, with pauses; the clients wait in the queue. */
static void test_missing(void **state) {
        char path[PATH_MAX];
        Answer a;

        snprintf(path, sizeof(path), "%s/muster-admin", dir);
        (void) unlink(path);
        client_open(&a, GET("/v1/status"));
        for (int i = 0; i < 3; i++)
                turn();
        assert_int_equal(control_get_pid(control), 0);
        assert_false(a.ended);
        use_real_one("");
        client_expect(&a, "200", "");
}

static off_t size_of(const char *path) {
        struct stat st;

        return stat(path, &st) == 0 ? st.st_size : 0;
}

/* One that ends at once, and well, does not make the master turn in circles. */
static void test_ends_at_once(void **state) {
        uint64_t turns = 0, end;
        char path[PATH_MAX];
        Answer a;

        snprintf(path, sizeof(path), "%s/starts", dir);
        write_script("echo >>%s; exit 0", path);
        client_open(&a, GET("/v1/status"));
        assert_true(sd_event_now(event, CLOCK_MONOTONIC, &end) >= 0);
        end += 1000000;
        for (uint64_t now = 0; now < end || size_of(path) < 2;) {
                int r = sd_event_run(event, 100000);
                assert_true(r >= 0);
                turns += r > 0;
                assert_true(sd_event_now(event, CLOCK_MONOTONIC, &now) >= 0);
                assert_true(now < end + PATIENCE_USEC);
        }
        assert_in_range(size_of(path), 2, 6); /* at 0, 0, 100, 300, 700 ms */
        unlink(path);
        assert_true(turns < 100);
        client_close(&a);
}

/* It knows the app, the master and the one socket; what is the master's alone is not there. */
static void test_environment(void **state) {
        char path[PATH_MAX], text[8192], expected[64];
        Answer a;

        setenv("NOTIFY_SOCKET", "/nowhere", 1);
        setenv("WATCHDOG_USEC", "1", 1);
        setenv("LISTEN_PID", "1", 1);
        setenv("TEST_KEPT", "yes", 1);
        snprintf(path, sizeof(path), "%s/env", dir);
        write_script("{ env; readlink /proc/self/fd/0; [ -S /dev/fd/3 ] && echo socket; } >%s; exit 1",
                        path);
        client_open(&a, GET("/v1/status"));
        run_until(control_get_pid(control) > 0);
        run_until(control_get_pid(control) == 0);
        unsetenv("NOTIFY_SOCKET");
        unsetenv("WATCHDOG_USEC");
        unsetenv("LISTEN_PID");
        FILE *f = fopen(path, "re");
        assert_non_null(f);
        text[0] = '\n';
        text[1 + fread(text + 1, 1, sizeof(text) - 2, f)] = '\0';
        fclose(f);
        unlink(path);
        snprintf(expected, sizeof(expected), "\nMUSTER_MASTER_PID=%d\n", getpid());
        assert_non_null(strstr(text, expected));
        assert_non_null(strstr(text, "\nMUSTER_APP=web\n"));
        assert_non_null(strstr(text, "\nLISTEN_FDS=1\n"));
        assert_non_null(strstr(text, "\nLISTEN_FDNAMES=control\n"));
        assert_non_null(strstr(text, "\nMUSTER_CHANNEL_FD=4\n"));
        assert_non_null(strstr(text, "\nTEST_KEPT=yes\n"));
        assert_non_null(strstr(text, "\n/dev/null\n"));
        assert_non_null(strstr(text, "\nsocket\n"));
        assert_null(strstr(text, "\nNOTIFY_SOCKET="));
        assert_null(strstr(text, "\nWATCHDOG_USEC="));
        assert_null(strstr(text, "\nLISTEN_PID="));
        client_close(&a);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                control_test(test_on_demand),
                control_test(test_later),
                control_test(test_send),
                control_test(test_idle),
                control_test(test_killed),
                control_test(test_client_gone),
                control_test(test_stop),
                control_test(test_stop_at_once),
                control_test(test_stop_stubborn),
                cmocka_unit_test(test_malformed),
                cmocka_unit_test(test_refused),
                control_test(test_limit),
                control_test(test_missing),
                control_test(test_ends_at_once),
                control_test(test_environment),
        };

        log_open(&(LogContext){ .program = "test-control" });
        return cmocka_run_group_tests(tests, setup, teardown);
}
