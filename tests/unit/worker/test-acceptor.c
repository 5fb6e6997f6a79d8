/* SPDX-License-Identifier: MIT */
/* An acceptor that takes over from one that has died, with its descriptors and its epoll instance. */

#include "../unit.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "basic/clock.h"
#include "basic/fd.h"
#include "worker/acceptor.h"
#include "worker/epoll-data.h"

#define LISTENER_FD 3
#define INBOXES_FD  100

static Board board;
static Server server;
static Acceptor dead, successor, sibling;
static int epoll_fd, client, added, was_handed;

static void add(void *userdata, int fd, bool handed) {
        added = fd;
        was_handed = handed;
}

static void init(Acceptor *a, unsigned slot) {
        const AcceptorPlace place = { &board, board.cells + slot, slot, .twin = true };
        const AcceptorHandlers handlers = { .add = add };
        char value[32];

        snprintf(value, sizeof(value), "%d:2", INBOXES_FD);
        assert_int_equal(setenv(BOARD_ENV_INBOX_FDS, value, 1), 0);
        assert_int_equal(acceptor_init(a, &server, &place, &handlers, 1, 10), 0);
        a->epoll_fd = epoll_fd;
}

static void take_to(int fd, int number) {
        if (fd == number)
                return;
        assert_int_equal(dup2(fd, number), number);
        close(fd);
}

/* A worker serves, and a client waits. */
static int setup(void **state) {
        struct sockaddr_storage address;
        socklen_t n = sizeof(address);

        added = client = -EBADF;
        server = (Server){ .now = clock_now_usec() };
        assert_int_equal(board_init(&board), 0);
        for (int i = 0; i < 2; i++) {
                int fds[2];
                assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds), 0);
                take_to(fds[0], INBOXES_FD + 2 * i);
                take_to(fds[1], INBOXES_FD + 2 * i + 1);
        }
        int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        assert_int_equal(listen(listener, 8), 0);
        assert_int_equal(getsockname(listener, (struct sockaddr *) &address, &n), 0);
        take_to(listener, LISTENER_FD);
        epoll_fd = epoll_create1(EPOLL_CLOEXEC);
        init(&dead, 1);
        successor = dead; /* both were cloned like that */
        successor.listeners = calloc(1, sizeof(Listener));
        successor.listeners[0] = dead.listeners[0];
        init(&sibling, 2);
        siblings_begin(&sibling.siblings);
        acceptor_start(&dead);
        assert_int_equal(acceptor_begin(&dead), 0);
        client = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        assert_int_equal(connect(client, (struct sockaddr *) &address, n), 0);
        return 0;
}

static int teardown(void **state) {
        acceptor_done(&dead);
        acceptor_done(&successor);
        acceptor_done(&sibling);
        safe_close(client);
        safe_close(added);
        safe_close(epoll_fd);
        safe_close(LISTENER_FD);
        for (int i = 0; i < 4; i++)
                safe_close(INBOXES_FD + i);
        board_done(&board);
        return 0;
}

static bool is_waiting(void) {
        struct epoll_event ev;

        return epoll_wait(epoll_fd, &ev, 1, 0) == 1 && event_kind(&ev) == EVENT_LISTENER;
}

/* Whether the old one listened or not. */
static void test_listens(void **state) {
        for (int i = 0; i < 2; i++) {
                acceptor_inherit(&successor);
                assert_false(is_waiting());
                acceptor_start(&successor);
                assert_true(is_waiting());
                assert_int_equal(acceptor_begin(&successor), 0);
                assert_int_equal(board.seats[0].owner, 2);
                assert_true(is_waiting());
                (void) epoll_ctl(epoll_fd, EPOLL_CTL_DEL, LISTENER_FD, NULL); /* for the second time */
                successor.listening = false;
        }
}

/* There is no room for more: it does not wake up for what it cannot take, and a sibling looks. */
static void test_full(void **state) {
        int fd;

        server.n_connections = 10;
        acceptor_inherit(&successor);
        acceptor_start(&successor);
        assert_false(is_waiting());
        assert_int_equal(acceptor_begin(&successor), 0);
        assert_false(is_waiting());
        assert_int_equal(board.seats[0].owner, 0);
        assert_int_equal(siblings_receive(&sibling.siblings, &fd), INBOX_POKED);
}

/* What the dead one had accepted is its successor's. */
static void test_adopt(void **state) {
        int fd = accept4(LISTENER_FD, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

        acceptor_inherit(&successor);
        acceptor_adopt(&successor, fd);
        assert_int_equal(added, fd);
        assert_true(was_handed);
}

/* Unless a sibling has claimed it. */
static void test_adopt_claimed(void **state) {
        int fd = accept4(LISTENER_FD, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        uint64_t cookie;
        socklen_t n = sizeof(cookie);

        assert_int_equal(getsockopt(fd, SOL_SOCKET, SO_COOKIE, &cookie, &n), 0);
        assert_true(claims_offer(board.claims, cookie));
        assert_int_equal(claims_take(board.claims, cookie, 2), CLAIM_WON);
        acceptor_inherit(&successor);
        acceptor_adopt(&successor, fd);
        assert_int_equal(added, -EBADF);
        assert_int_equal(fcntl(fd, F_GETFD), -1);
        assert_int_equal(claims_take(board.claims, cookie, 1), CLAIM_WON); /* the word is free again */
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup_teardown(test_listens, setup, teardown),
                cmocka_unit_test_setup_teardown(test_full, setup, teardown),
                cmocka_unit_test_setup_teardown(test_adopt, setup, teardown),
                cmocka_unit_test_setup_teardown(test_adopt_claimed, setup, teardown),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
