/* SPDX-License-Identifier: MIT */
/* The loop in a process that stands still at the worst moment. The real one, in a child, with a clock that
 * jumps: what follows the jump is as if the process had not run for two hours. */

#include "../unit.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "basic/clock.h"
#include "basic/fd.h"
#include "basic/log.h"
#include "basic/macro.h"
#include "worker/loop.h"

#define HOUR    3600
#define CLIENTS 2

/* Where the child of a case stands still once it has the order to drain. */
static bool stands_still_before_accept, stands_still_before_drain;

static bool lacks_descriptors; /* once the child has the order to drain */
static bool draining;
static time_t jump;
static int turns[2]; /* a pipe: a byte for each turn of the child that drains */

/* The loop's calls come here, as this is linked before the C library. */
int clock_gettime(clockid_t id, struct timespec *ts) {
        int (*real)(clockid_t, struct timespec *) = dlsym(RTLD_NEXT, "clock_gettime");
        int r = real(id, ts);

        ts->tv_sec += jump;
        return r;
}

/* Is called when the order to drain was read, to tell whose it is. */
pid_t getppid(void) {
        pid_t (*real)(void) = dlsym(RTLD_NEXT, "getppid");

        if (stands_still_before_drain)
                jump = 2 * HOUR;
        draining = true;
        return real();
}

int accept4(int fd, struct sockaddr *address, socklen_t *n, int flags) {
        int (*real)(int, struct sockaddr *, socklen_t *, int) = dlsym(RTLD_NEXT, "accept4");

        if (draining && stands_still_before_accept)
                jump = 2 * HOUR;
        if (draining && lacks_descriptors) {
                static bool again;

                if (again)
                        _exit(EXIT_FAILURE);
                again = true;
                errno = EMFILE;
                return -1;
        }
        return real(fd, address, n, flags);
}

/* Tells the parent that a turn is over. */
int epoll_wait(int fd, struct epoll_event *events, int n, int timeout) {
        int (*real)(int, struct epoll_event *, int, int) = dlsym(RTLD_NEXT, "epoll_wait");

        if (draining && write(turns[1], "", 1) != 1)
                _exit(EXIT_FAILURE);
        return real(fd, events, n, timeout);
}

typedef struct Fixture {
        Board board;
        int listener;
        struct sockaddr_in address;
        pid_t pid;
        int clients[CLIENTS];
} Fixture;

static void answer(void *userdata, Exchange *x) {
        exchange_respond(x);
}

static _noreturn_ void serve(Fixture *f) {
        const Handler handler = { .request = answer };
        const Identity identity = { .app = "test", .worker = 1, .n_listeners = 1, .master = getppid() };
        Options options = { .max_connections = 10 };
        Inheritance in;
        Loop loop;
        int r;

        server_settings_init(&options.server);
        options.server.timeout_usec[TIMEOUT_IDLE] = 10 * HOUR * USEC_PER_SEC;
        options.server.timeout_usec[TIMEOUT_DRAIN] = 1 * HOUR * USEC_PER_SEC;
        jump = 0;
        draining = false;
        if (dup3(f->listener, 3, O_CLOEXEC) < 0)
                _exit(EXIT_FAILURE);
        r = inheritance_init(&in, &f->board, f->board.cells, &identity, &options, -EBADF);
        if (r >= 0)
                r = loop_init(&loop, &in, /* successor= */ NULL, &handler);
        if (r >= 0)
                r = loop_run(&loop);
        _exit(r < 0 ? EXIT_FAILURE : EXIT_SUCCESS);
}

static int setup(void **state) {
        socklen_t n = sizeof(struct sockaddr_in);
        Fixture *f = calloc(1, sizeof(*f));

        assert_non_null(f);
        *state = f;
        assert_int_equal(pipe2(turns, O_CLOEXEC), 0);
        f->clients[0] = f->clients[1] = -EBADF;
        assert_int_equal(board_init(&f->board), 0);
        f->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        assert_int_equal(listen(f->listener, CLIENTS), 0);
        assert_int_equal(getsockname(f->listener, (struct sockaddr *) &f->address, &n), 0);
        return 0;
}

/* SIGTERM is blocked: it waits for the child to look. */
static void start(Fixture *f) {
        loop_block_signals();
        f->pid = fork();
        assert_true(f->pid >= 0);
        if (f->pid == 0)
                serve(f);
        turns[1] = safe_close(turns[1]);
}

static int teardown(void **state) {
        Fixture *f = *state;

        if (f->pid > 0) {
                (void) kill(f->pid, SIGKILL);
                (void) waitpid(f->pid, NULL, 0);
        }
        for (size_t i = 0; i < CLIENTS; i++)
                safe_close(f->clients[i]);
        safe_close(turns[0]);
        safe_close(turns[1]);
        safe_close(f->listener);
        board_done(&f->board);
        free(f);
        stands_still_before_accept = stands_still_before_drain = lacks_descriptors = false;
        return 0;
}

static void connect_client(Fixture *f, size_t i) {
        f->clients[i] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        assert_int_equal(connect(f->clients[i], (const struct sockaddr *) &f->address, sizeof(f->address)),
                        0);
}

/* Asks, and has the whole answer: it ends with its head. */
static void assert_served(Fixture *f, size_t i) {
        static const char request[] = "GET / HTTP/1.1\r\nHost: x\r\n\r\n";
        char buf[1024] = "";
        size_t at = 0;

        assert_int_equal(send(f->clients[i], request, strlen(request), MSG_NOSIGNAL), strlen(request));
        while (!strstr(buf, "\r\n\r\n")) {
                ssize_t n = recv(f->clients[i], buf + at, sizeof(buf) - 1 - at, 0);

                assert_true(n > 0); /* else it was closed unread */
                at += (size_t) n;
        }
        assert_memory_equal(buf, "HTTP/1.1 200", 12);
}

/* Until the loop has come to the end of one more turn since it began to drain. */
static void wait_turn(void) {
        char byte;

        assert_int_equal(read(turns[0], &byte, 1), 1);
}

static void wait_state(const Fixture *f, BoardState state) {
        while (f->board.cells->state != state) {
                board_bell_wait(&f->board, -1);
                board_bell_clear(&f->board);
        }
}

static void assert_ends_well(Fixture *f) {
        int status;

        for (size_t i = 0; i < CLIENTS; i++)
                f->clients[i] = safe_close(f->clients[i]);
        assert_int_equal(waitpid(f->pid, &status, 0), f->pid);
        f->pid = 0;
        assert_true(WIFEXITED(status));
        assert_int_equal(WEXITSTATUS(status), EXIT_SUCCESS);
}

/* Clients come, and then the order to end, before the loop has heard of either. */
static void start_and_end(Fixture *f, size_t n_clients) {
        start(f);
        wait_state(f, BOARD_READY);
        assert_int_equal(kill(f->pid, SIGSTOP), 0);
        assert_int_equal(waitpid(f->pid, NULL, WUNTRACED), f->pid);
        for (size_t i = 0; i < n_clients; i++)
                connect_client(f, i);
        assert_int_equal(kill(f->pid, SIGTERM), 0);
        assert_int_equal(kill(f->pid, SIGCONT), 0);
}

/* A connection that comes just before the drain has its time from when it was accepted. The first client
 * makes the loop look at its deadlines before the second one asks. */
static void test_still_before_accept(void **state) {
        Fixture *f = *state;

        stands_still_before_accept = true;
        start_and_end(f, 2);
        wait_turn();
        assert_served(f, 0);
        wait_turn();
        assert_served(f, 1);
        assert_ends_well(f);
}

/* The same for one that is idle when the drain begins. */
static void test_still_before_drain(void **state) {
        Fixture *f = *state;

        stands_still_before_drain = true;
        connect_client(f, 0);
        connect_client(f, 1);
        start(f);
        assert_served(f, 0);
        assert_served(f, 1);
        wait_state(f, BOARD_READY);
        assert_int_equal(kill(f->pid, SIGTERM), 0);
        wait_turn();
        assert_served(f, 0);
        wait_turn();
        assert_served(f, 1);
        assert_ends_well(f);
}

/* What cannot be taken at the end is asked for once, and left to others. */
static void test_lack_at_the_end(void **state) {
        Fixture *f = *state;

        lacks_descriptors = true;
        start_and_end(f, 1);
        assert_ends_well(f);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup_teardown(test_still_before_accept, setup, teardown),
                cmocka_unit_test_setup_teardown(test_still_before_drain, setup, teardown),
                cmocka_unit_test_setup_teardown(test_lack_at_the_end, setup, teardown),
        };

        log_open(&(LogContext){ .program = "test-loop" });
        return cmocka_run_group_tests(tests, NULL, NULL);
}
