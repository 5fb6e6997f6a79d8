/* SPDX-License-Identifier: MIT */
#include "worker/messages.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "basic/fd.h"
#include "basic/macro.h"
#include "ipc/forward.h"
#include "ipc/worker-bus.h"
#include "muster/http.h"
#include "worker/module-call.h"

static struct {
        Area *area;
        int master; /* its end */
        int fd, epoll_fd;
        char log[4096];
        unsigned n_heard;
        size_t longest;
} here;

static void on_message(const char *json, size_t n, void *userdata) {
        assert_ptr_equal(userdata, &here);
        assert_int_equal(json[n], '\0');
        here.n_heard++;
        here.longest = MAX(here.longest, n);
        if (n < 100)
                strcat(strcat(here.log, json), ";");
}

static void on_publish(const char *json, size_t n) {
        strcat(here.log, "published;");
}

/* A process begins: the first one, or who takes over. */
static void begin(void) {
        messages_init(3, here.fd, here.epoll_fd, here.area);
        muster_http_set_message_handler(on_message, &here);
        muster_worker_bus_listen(on_publish);
        struct epoll_event ev = { .events = messages_events() };
        if (epoll_ctl(here.epoll_fd, EPOLL_CTL_ADD, here.fd, &ev) < 0) /* as the loop does it */
                assert_int_equal(epoll_ctl(here.epoll_fd, EPOLL_CTL_MOD, here.fd, &ev), 0);
}

/* What a process has in its own memory goes with it. */
static void die(void) {
        messages_done();
}

static int setup(void **state) {
        int ends[2];

        memset(&here, 0, sizeof(here));
        call_claim_thread();
        here.area = area_new(64);
        here.epoll_fd = epoll_create1(EPOLL_CLOEXEC);
        if (!here.area || here.epoll_fd < 0 ||
                        socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends) < 0)
                return -1;
        here.master = ends[0];
        here.fd = ends[1];
        begin();
        return 0;
}

static int teardown(void **state) {
        die();
        safe_close(here.master);
        safe_close(here.fd);
        safe_close(here.epoll_fd);
        area_free(here.area);
        return 0;
}

static uint32_t look(void) {
        struct epoll_event ev = { .events = 0 };

        return epoll_wait(here.epoll_fd, &ev, 1, 0) == 1 ? ev.events : 0;
}

/* Whatever epoll has; bounded, as it must come to rest. */
static void run(void) {
        uint32_t events;

        for (int i = 0; (events = look()); i++) {
                assert_in_range(i, 0, 10000);
                assert_true(messages_ready(events));
        }
}

static void say(const char *text) {
        assert_int_equal(send(here.master, text, strlen(text), 0), strlen(text));
}

static void expect(const char *log) {
        run();
        assert_string_equal(here.log, log);
        here.log[0] = '\0';
}

/* What is for the application is handed over, in pieces of any size; what is the master's or Node's is not.
 */
static void test_in(void **state) {
        static const char lines[] =
                        "1\n{\"cmd\":\"MUSTER\",\"act\":\"probe\"}\n{\"a\":2}\n{\"cmd\":\"NODE_X\"}\n"
                        "{\"cmd\":\"MUSTER\",\"act\":\"publish\"}\n\nrubbish\n[\n\"3\"\n";
        static const char log[] = "1;{\"a\":2};published;\"3\";";

        assert_int_equal(muster_http_get_worker(), 3);
        say(lines);
        expect(log);
        for (const char *p = lines; *p; p++) {
                char c[2] = { *p };

                say(c);
                run();
        }
        expect(log);
}

/* A line is whatever the master takes; a longer one is dropped, and the next one heard. */
static void test_long_lines(void **state) {
        static const size_t sizes[] = { 1000, 65536, FORWARD_MESSAGE_MAX, FORWARD_MESSAGE_MAX + 70000 };

        for (size_t i = 0; i < ELEMENTSOF(sizes); i++) {
                char *line = malloc(sizes[i] + 1);
                size_t at = 0;

                memset(line, 'x', sizes[i]);
                line[0] = line[sizes[i] - 1] = '"';
                line[sizes[i]] = '\n';
                while (at < sizes[i] + 1) {
                        ssize_t n = send(here.master, line + at, sizes[i] + 1 - at, MSG_DONTWAIT);

                        if (n > 0)
                                at += (size_t) n;
                        run();
                }
                free(line);
                say("1\n");
                run();
        }
        assert_int_equal(here.longest, FORWARD_MESSAGE_MAX);
        assert_int_equal(here.n_heard, 3 + 4);
}

/* Without a handler all is dropped, and one that is set in the middle of a line hears the next one. */
static void test_without_handler(void **state) {
        muster_http_set_message_handler(NULL, NULL);
        muster_worker_bus_listen(NULL);
        say("1\n22");
        expect("");
        muster_http_set_message_handler(on_message, &here);
        say("33\n44\n55");
        expect("44;");
        muster_http_set_message_handler(NULL, NULL);
        run();
        say("66\n7");
        run();
        muster_http_set_message_handler(on_message, &here);
        say("8\n9\n");
        expect("9;");
}

/* Whoever takes over hears of no line but whole ones: not the rest of one whose beginning went with the
 * dead, and of one that is not begun to be read, all. */
static void test_successor_in(void **state) {
        say("12");
        expect("");
        die();
        begin();
        say("34\n5\n");
        expect("5;");

        say("6\n7");
        expect("6;");
        die();
        say("8\n9\n");
        begin();
        expect("9;");

        say("10\n"); /* nobody has looked */
        die();
        begin();
        expect("10;");

        say("11");
        expect("");
        die();
        begin();
        die(); /* nor has the next one */
        begin();
        say("12");
        expect("");
        die();
        begin();
        say("13\n14\n");
        expect("14;");
}

static size_t receive(char *buf, size_t size) {
        ssize_t n = recv(here.master, buf, size, MSG_DONTWAIT);

        if (n < 0)
                assert_int_equal(errno, EAGAIN);
        return n > 0 ? (size_t) n : 0;
}

static void test_out(void **state) {
        char buf[1000];
        static const char line[] = "{\"cmd\":\"MUSTER\",\"act\":\"publish\"}";

        assert_int_equal(muster_http_broadcast("[1]", 3), 0);
        assert_int_equal(muster_http_send(2, "\"x\"y", 3), 0);
        assert_int_equal(muster_worker_bus_send(line, strlen(line)), 0);
        size_t n = receive(buf, sizeof(buf) - 1);
        buf[n] = '\0';
        assert_string_equal(buf, "{\"cmd\":\"MUSTER\",\"act\":\"broadcast\",\"data\":[1]}\n"
                                 "{\"cmd\":\"MUSTER\",\"act\":\"send\",\"worker\":2,\"data\":\"x\"}\n"
                                 "{\"cmd\":\"MUSTER\",\"act\":\"publish\"}\n");
        assert_int_equal(look(), 0);
}

static void test_out_wrong(void **state) {
        static const char *const wrong[] = { "", "x", "1 2", "1\n", "{\"cmd\":\"MUSTER\"}",
                "{\"cmd\":\"NODE_X\"}", "1,\"act\":\"retire\"" };
        char *longest = malloc(MUSTER_HTTP_MESSAGE_MAX + 1), buf[10];

        for (size_t i = 0; i < ELEMENTSOF(wrong); i++)
                assert_int_equal(muster_http_broadcast(wrong[i], strlen(wrong[i])), -EINVAL);
        assert_int_equal(muster_http_broadcast(NULL, 0), -EINVAL);
        assert_int_equal(muster_http_send(0, "1", 1), -EINVAL);
        memset(longest, '1', MUSTER_HTTP_MESSAGE_MAX + 1);
        assert_int_equal(muster_http_broadcast(longest, MUSTER_HTTP_MESSAGE_MAX + 1), -EMSGSIZE);
        assert_int_equal(receive(buf, sizeof(buf)), 0);
        assert_int_equal(muster_http_broadcast(longest, MUSTER_HTTP_MESSAGE_MAX), 0);
        die();
        assert_int_equal(muster_http_broadcast("1", 1), -EPIPE);
        free(longest);
        begin();
}

/* However full the socket is, and whatever the lines' length: there is never the beginning of a line in it
 * without its end, so that whoever takes over may send the next one. What waits is bounded, and goes when
 * there is room. */
static void fill_with(size_t size) {
        char *value = malloc(size), *buf = malloc(4 * 1024 * 1024);
        unsigned n_taken = 0, n_lines = 0;
        size_t n;
        int r;

        memset(value, '1', size);
        while ((r = muster_http_broadcast(value, size)) == 0)
                n_taken++;
        assert_int_equal(r, -ENOBUFS);
        assert_false(look() & EPOLLOUT);
        do {
                n = receive(buf, 4 * 1024 * 1024);
                assert_true(n > 0 && buf[n - 1] == '\n');
                for (const char *p = buf; (p = memchr(p, '\n', (size_t) (buf + n - p))); p++)
                        n_lines++;
                assert_true(n_lines == n_taken || (look() & EPOLLOUT));
                run();
        } while (n_lines < n_taken);
        assert_int_equal(n_lines, n_taken);
        assert_int_equal(messages_events() & EPOLLOUT, 0);
        assert_int_equal(receive(buf, 10), 0);
        free(value);
        free(buf);
}

static void test_out_full(void **state) {
        static const size_t sizes[] = { 1, 500, 3000, 4096, 10000, 16384, 30000, 49000, 70000, 131072,
                200000, MUSTER_HTTP_MESSAGE_MAX };

        for (size_t i = 0; i < ELEMENTSOF(sizes); i++)
                fill_with(sizes[i]);
}

/* Of all lengths at once. */
static void test_out_full_mixed(void **state) {
        char *value = malloc(MUSTER_HTTP_MESSAGE_MAX), *buf = malloc(4 * 1024 * 1024);
        size_t n;

        srand(1);
        memset(value, '1', MUSTER_HTTP_MESSAGE_MAX);
        for (int i = 0; i < 3000; i++) {
                (void) muster_http_broadcast(
                                value, 1 + (size_t) rand() % (rand() % 3 ? 300 : MUSTER_HTTP_MESSAGE_MAX));
                if (rand() % 20 > 0)
                        continue;
                n = receive(buf, 4 * 1024 * 1024);
                assert_true(n == 0 || buf[n - 1] == '\n');
                run();
        }
        free(value);
        free(buf);
}

/* What waits dies with the process, and what was sent is whole; the next one waits for no room that it does
 * not need. */
static void test_successor_out(void **state) {
        char *value = malloc(100000), *buf = malloc(4 * 1024 * 1024);
        size_t n;

        memset(value, '1', 100000);
        while (muster_http_broadcast(value, 100000) == 0)
                ;
        assert_true(messages_events() & EPOLLOUT);
        die();
        begin();
        assert_false(messages_events() & EPOLLOUT);
        assert_int_equal(muster_http_broadcast("2", 1), 0);
        n = receive(buf, 4 * 1024 * 1024);
        assert_true(n > 100000 && buf[n - 1] == '\n');
        run();
        free(value);
        free(buf);
}

static void test_end(void **state) {
        here.master = safe_close(here.master);
        assert_int_equal(muster_http_broadcast("1", 1), -EPIPE);
        assert_false(messages_ready(look()));
}

int main(void) {
        static const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup_teardown(test_in, setup, teardown),
                cmocka_unit_test_setup_teardown(test_long_lines, setup, teardown),
                cmocka_unit_test_setup_teardown(test_without_handler, setup, teardown),
                cmocka_unit_test_setup_teardown(test_successor_in, setup, teardown),
                cmocka_unit_test_setup_teardown(test_out, setup, teardown),
                cmocka_unit_test_setup_teardown(test_out_wrong, setup, teardown),
                cmocka_unit_test_setup_teardown(test_out_full, setup, teardown),
                cmocka_unit_test_setup_teardown(test_out_full_mixed, setup, teardown),
                cmocka_unit_test_setup_teardown(test_successor_out, setup, teardown),
                cmocka_unit_test_setup_teardown(test_end, setup, teardown),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
