/* SPDX-License-Identifier: MIT */
/* Connections between the workers of two slots, all of them in this process, at times that the test names.
 */

#include "../unit.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "basic/clock.h"
#include "basic/fd.h"
#include "worker/fairness.h"
#include "worker/siblings.h"

#define SLOTS    2
#define FIRST_FD 100
#define LOAD     (2 * FAIRNESS_DELTA) /* of a worker that hands over to one that has none */

static Board board;
static uint64_t now, later;

static int setup(void **state) {
        now = clock_now_usec();
        later = now + 3600 * USEC_PER_SEC;
        if (board_init(&board) < 0)
                return -1;
        for (int i = 0; i < SLOTS; i++) {
                int fds[2];

                if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds) < 0)
                        return -1;
                for (int k = 0; k < 2; k++) {
                        if (dup2(fds[k], FIRST_FD + 2 * i + k) < 0)
                                return -1;
                        safe_close(fds[k]);
                }
        }
        return 0;
}

static int teardown(void **state) {
        for (int i = 0; i < 2 * SLOTS; i++)
                safe_close(FIRST_FD + i);
        board_done(&board);
        return 0;
}

/* A worker that serves; each has a cell of its own. */
static void begin(Siblings *s, unsigned slot, unsigned cell) {
        char value[32];

        snprintf(value, sizeof(value), "%d:%d", FIRST_FD, SLOTS);
        assert_int_equal(setenv(BOARD_ENV_INBOX_FDS, value, 1), 0);
        assert_int_equal(siblings_init(s, &board, board.cells + cell, slot, /* claimed= */ true, now), 0);
        siblings_begin(s);
}

/* Returns the client's end of what was handed over. */
static int hand_over(Siblings *s) {
        int fds[2];

        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
        assert_true(siblings_offer(s, fds[0], LOAD, now));
        return fds[1];
}

static void assert_connected(int client, int fd) {
        char c = 0;

        assert_int_equal(write(client, "x", 1), 1);
        assert_int_equal(read(fd, &c, 1), 1);
        assert_int_equal(c, 'x');
        safe_close(client);
        safe_close(fd);
}

static void assert_nothing_left(Siblings *s) {
        int fd;

        assert_int_equal(siblings_rescue(s, later, &fd), -EAGAIN);
        assert_true(s->deadline == USEC_INFINITY);
}

/* Both told to go at once: what was sent when the other one had looked into its inbox for the last time
 * comes back. */
static void test_both_end(void **state) {
        Siblings sender, receiver;
        int client, fd;

        begin(&sender, 1, 0);
        begin(&receiver, 2, 1);
        client = hand_over(&sender);
        assert_true(siblings_end(&receiver));
        assert_true(siblings_end(&sender));
        assert_true(sender.deadline < later);
        assert_int_equal(siblings_rescue(&sender, later, &fd), 0);
        assert_connected(client, fd);
        assert_nothing_left(&sender);
}

/* Each has one of them, whoever sent which. */
static void test_two_rescue(void **state) {
        Siblings senders[2], receiver;
        int clients[2], fds[2];

        begin(senders + 0, 1, 0);
        begin(senders + 1, 1, 1);
        begin(&receiver, 2, 2);
        for (int i = 0; i < 2; i++)
                clients[i] = hand_over(senders + i);
        for (int i = 0; i < 2; i++)
                assert_int_equal(siblings_rescue(senders + 1 - i, later, fds + i), 0);
        for (int i = 0; i < 2; i++) {
                assert_connected(clients[i], fds[i]);
                assert_nothing_left(senders + i);
        }
}

/* Without a descriptor it is tried again, and whoever keeps some is told. */
static void test_no_descriptor(void **state) {
        struct rlimit before, none = { 0 };
        Siblings sender, receiver;
        int client, fd, r;

        begin(&sender, 1, 0);
        begin(&receiver, 2, 1);
        client = hand_over(&sender);
        assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
        none.rlim_max = before.rlim_max;
        assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
        r = siblings_rescue(&sender, later, &fd);
        assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
        assert_int_equal(r, -EMFILE);
        assert_true(sender.deadline > later && sender.deadline < USEC_INFINITY);
        assert_int_equal(siblings_rescue(&sender, sender.deadline, &fd), 0);
        assert_connected(client, fd);
}

/* A worker that drains goes on turning while its successor stands still, for which it must not speak. */
static void test_successor_stands_still(void **state) {
        Siblings sender, old, successor;
        int client, fd;

        begin(&sender, 1, 0);
        begin(&old, 2, 1);
        begin(&successor, 2, 2);
        assert_false(siblings_end(&old));
        siblings_wake(&successor, now);
        client = hand_over(&sender);
        siblings_rest(&old);
        siblings_wake(&old, later);
        assert_true(board.seats[1].busy_since == now);
        assert_int_equal(siblings_rescue(&sender, later, &fd), 0);
        assert_connected(client, fd);
        assert_nothing_left(&sender);
}

/* Who takes over from a worker finds what that one had sent, and nobody had read. */
static void test_inherit(void **state) {
        Siblings dead, successor, receiver;
        int client, fd;

        begin(&dead, 1, 0);
        successor = dead; /* as it was when both were cloned */
        begin(&receiver, 2, 1);
        siblings_rest(&dead);
        client = hand_over(&dead);
        siblings_inherit(&successor, now);
        assert_true(board.seats[0].busy_since == now); /* nothing comes before it has looked at all */
        siblings_begin(&successor);
        assert_int_equal(siblings_rescue(&successor, later, &fd), 0);
        assert_connected(client, fd);
        assert_nothing_left(&successor);
}

/* An old worker of a slot dies, in whose seat the new one sits: there it stays. */
static void test_inherit_without_seat(void **state) {
        Siblings old, new;

        begin(&old, 1, 0);
        begin(&new, 1, 1);
        siblings_wake(&new, now);
        siblings_inherit(&old, later);
        siblings_begin(&old);
        assert_int_equal(board.seats[0].owner, 2);
        assert_true(board.seats[0].busy_since == now);
        assert_false(siblings_end(&old));
        assert_true(siblings_end(&new));
}

/* A sender that dies before it has sent anything leaves a mark, and a place that nobody takes. */
static void test_sender_dies(void **state) {
        Siblings dead, receiver;
        int fd;

        begin(&dead, 1, 0);
        begin(&receiver, 2, 1);
        board.seats[1].in_flight = 3;
        board.seats[1].pending_since = now;
        siblings_inherit(&dead, now);
        siblings_begin(&dead);
        assert_int_equal(siblings_receive(&receiver, &fd), INBOX_POKED); /* so that it looks */
        assert_true(siblings_open_inbox(&receiver));
        assert_int_equal(siblings_receive(&receiver, &fd), -EAGAIN);
        siblings_wake(&receiver, now);
        assert_int_equal(board.seats[1].in_flight, 0);
        assert_true(board.seats[1].pending_since == 0);
}

/* What lies in the inbox is on its way, and stays counted. */
static void test_in_flight(void **state) {
        Siblings sender, receiver;
        int client, fd;

        begin(&sender, 1, 0);
        begin(&receiver, 2, 1);
        client = hand_over(&sender);
        assert_true(siblings_open_inbox(&receiver));
        siblings_wake(&receiver, now);
        assert_int_equal(board.seats[1].in_flight, 1);
        assert_int_equal(siblings_receive(&receiver, &fd), 0);
        assert_int_equal(board.seats[1].in_flight, 0);
        assert_connected(client, fd);
}

/* Workers that nobody takes over from have nothing to claim, and take what others claim. */
static void test_unclaimed(void **state) {
        Siblings sender, receiver;
        int client, fd;

        begin(&sender, 1, 0);
        begin(&receiver, 2, 1);
        sender.claimed = false;
        client = hand_over(&sender);
        for (unsigned i = 0; i < BOARD_CLAIMS; i++)
                assert_true(board.claims->words[i] == 0);
        assert_int_equal(siblings_receive(&receiver, &fd), 0);
        assert_true(siblings_claim(&receiver, fd));
        assert_connected(client, fd);
        receiver.claimed = false;
        sender.claimed = true;
        client = hand_over(&sender);
        assert_int_equal(siblings_receive(&receiver, &fd), 0);
        assert_connected(client, fd);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup_teardown(test_both_end, setup, teardown),
                cmocka_unit_test_setup_teardown(test_two_rescue, setup, teardown),
                cmocka_unit_test_setup_teardown(test_no_descriptor, setup, teardown),
                cmocka_unit_test_setup_teardown(test_successor_stands_still, setup, teardown),
                cmocka_unit_test_setup_teardown(test_inherit, setup, teardown),
                cmocka_unit_test_setup_teardown(test_inherit_without_seat, setup, teardown),
                cmocka_unit_test_setup_teardown(test_sender_dies, setup, teardown),
                cmocka_unit_test_setup_teardown(test_in_flight, setup, teardown),
                cmocka_unit_test_setup_teardown(test_unclaimed, setup, teardown),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
