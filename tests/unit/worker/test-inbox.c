/* SPDX-License-Identifier: MIT */
/* Messages of the inbox, good ones and those of a worker gone mad. */

#include "../unit.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "basic/fd.h"
#include "basic/macro.h"
#include "board/board.h"
#include "worker/inbox.h"

static Inbox inbox;
static int connection[2];
static uint64_t cookie;

static int setup(void **state) {
        int fds[2];

        if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds) < 0 ||
                        socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, connection) < 0)
                return -1;
        inbox = (Inbox){ fds[0], fds[1] };
        return 0;
}

static int teardown(void **state) {
        safe_close(inbox.receive_fd);
        safe_close(inbox.send_fd);
        safe_close(connection[0]);
        safe_close(connection[1]);
        return 0;
}

static void send_raw(const void *data, size_t n, const int *fds, size_t n_fds) {
        union {
                struct cmsghdr header;
                char bytes[CMSG_SPACE(16 * sizeof(int))];
        } control = { 0 };
        struct iovec iov = { (void *) data, n };
        struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };

        if (n_fds > 0) {
                control.header = (struct cmsghdr){ .cmsg_len = CMSG_LEN(n_fds * sizeof(int)),
                        .cmsg_level = SOL_SOCKET,
                        .cmsg_type = SCM_RIGHTS };
                memcpy(CMSG_DATA(&control.header), fds, n_fds * sizeof(int));
                msg.msg_control = &control;
                msg.msg_controllen = CMSG_SPACE(n_fds * sizeof(int));
        }
        assert_int_equal(sendmsg(inbox.send_fd, &msg, 0), n);
}

/* The lowest number that is free: nothing was left open when it is the same as before. */
static int lowest_free(void) {
        int fd = dup(0);

        close(fd);
        return fd;
}

static void test_connection(void **state) {
        int fd = -EBADF;

        assert_true(inbox_is_empty(&inbox));
        assert_int_equal(inbox_send_connection(&inbox, connection[0], 7), 0);
        assert_false(inbox_is_empty(&inbox));
        assert_int_equal(inbox_receive(&inbox, &fd, &cookie), 0);
        assert_true(fcntl(fd, F_GETFL) & O_NONBLOCK);
        assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
        assert_int_equal(write(connection[1], "x", 1), 1);
        char c;
        assert_int_equal(read(fd, &c, 1), 1);
        close(fd);
        assert_int_equal(inbox_receive(&inbox, &fd, &cookie), -EAGAIN);
}

static void test_poke(void **state) {
        int fd = -EBADF;

        assert_int_equal(inbox_send_poke(&inbox), 0);
        assert_int_equal(inbox_receive(&inbox, &fd, &cookie), INBOX_POKED);
        assert_int_equal(fd, -EBADF);
}

/* It never waits, and whoever sends keeps the connection. */
static void test_full(void **state) {
        int r = 0, n = 0, fd;

        while ((r = inbox_send_poke(&inbox)) == 0)
                n++;
        assert_int_equal(r, -EAGAIN);
        assert_true(n > 16);
        while (inbox_receive(&inbox, &fd, &cookie) == INBOX_POKED)
                n--;
        assert_int_equal(n, 0);
}

/* Without a descriptor for it the connection stays where it is: the kernel would close it. */
static void test_lack_of_descriptors(void **state) {
        struct rlimit limit, low;
        int fd = -EBADF;

        assert_int_equal(inbox_send_connection(&inbox, connection[0], 7), 0);
        assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
        low = limit;
        low.rlim_cur = (rlim_t) lowest_free();
        assert_int_equal(setrlimit(RLIMIT_NOFILE, &low), 0);
        int r = inbox_receive(&inbox, &fd, &cookie);
        assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
        assert_int_equal(r, -EMFILE);
        assert_false(inbox_is_empty(&inbox));
        assert_int_equal(inbox_receive(&inbox, &fd, &cookie), 0);
        close(fd);
}

/* Nothing of it is taken, and nothing stays open. */
static void test_mad_messages(void **state) {
        int free_fd = lowest_free(), fd = -EBADF, many[8], pipe_fds[2];
        int listener = socket(AF_INET, SOCK_STREAM, 0), datagram = socket(AF_INET, SOCK_DGRAM, 0);
        static const char good[8] = { 1, 2 };

        assert_int_equal(listen(listener, 1), 0);
        assert_int_equal(pipe(pipe_fds), 0);
        for (size_t i = 0; i < ELEMENTSOF(many); i++)
                many[i] = connection[0];
        send_raw("", 0, NULL, 0);                      /* empty */
        send_raw("\1", 1, many, 1);                    /* short */
        send_raw("\2\2\0\0\0\0\0", 8, many, 1);        /* of another version */
        send_raw("\1\7\0\0\0\0\0", 8, many, 1);        /* of another kind */
        send_raw(good, sizeof(good), NULL, 0);         /* without a descriptor */
        send_raw(good, sizeof(good), many, 2);         /* with two */
        send_raw(good, sizeof(good), many, 8);         /* with more than there is room for */
        send_raw(good, sizeof(good), &pipe_fds[0], 1); /* no socket */
        send_raw(good, sizeof(good), &datagram, 1);    /* no stream */
        send_raw(good, sizeof(good), &listener, 1);    /* no connection */
        for (int i = 0; i < 10; i++)
                assert_int_equal(inbox_receive(&inbox, &fd, &cookie), INBOX_IGNORED);
        assert_int_equal(inbox_receive(&inbox, &fd, &cookie), -EAGAIN);
        assert_int_equal(fd, -EBADF);
        close(listener);
        close(datagram);
        close(pipe_fds[0]);
        close(pipe_fds[1]);
        assert_int_equal(lowest_free(), free_fd);
}

/* What a later version may add. */
static void test_longer_message(void **state) {
        static const char longer[100] = { 1, 2 };
        int fd = -EBADF;

        send_raw(longer, sizeof(longer), &connection[0], 1);
        assert_int_equal(inbox_receive(&inbox, &fd, &cookie), 0);
        close(fd);
}

/* By a worker gone mad: there is no end of empty messages then. */
static void test_shut_down(void **state) {
        int fd;

        assert_int_equal(shutdown(inbox.send_fd, SHUT_RDWR), 0);
        assert_true(inbox_is_empty(&inbox));
        assert_int_equal(inbox_receive(&inbox, &fd, &cookie), INBOX_IGNORED);
        assert_true(inbox_send_poke(&inbox) < 0);
}

static void test_environment(void **state) {
        static const char *const bad[] = { "", "7", "7:", ":1", "a:1", "7:b", "-1:1", "4294967295:1",
                "500:1", "7:99999999999" };
        Inbox inboxes[4];
        char value[32];

        (void) unsetenv(BOARD_ENV_INBOX_FDS);
        assert_int_equal(inbox_from_environment(inboxes, 4), 0);
        for (size_t i = 0; i < ELEMENTSOF(bad); i++) {
                setenv(BOARD_ENV_INBOX_FDS, bad[i], 1);
                assert_int_equal(inbox_from_environment(inboxes, 4), -EINVAL);
                assert_null(getenv(BOARD_ENV_INBOX_FDS));
        }

        int base = fcntl(inbox.receive_fd, F_DUPFD, 50);
        assert_true(base >= 50 && dup2(inbox.send_fd, base + 1) == base + 1);
        snprintf(value, sizeof(value), "%d:1", base);
        setenv(BOARD_ENV_INBOX_FDS, value, 1);
        assert_int_equal(inbox_from_environment(inboxes, 4), 1);
        assert_int_equal(inboxes[0].receive_fd, base);
        assert_int_equal(inboxes[0].send_fd, base + 1);
        assert_true(fcntl(base, F_GETFD) & FD_CLOEXEC);
        close(base);
        close(base + 1);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup_teardown(test_connection, setup, teardown),
                cmocka_unit_test_setup_teardown(test_poke, setup, teardown),
                cmocka_unit_test_setup_teardown(test_full, setup, teardown),
                cmocka_unit_test_setup_teardown(test_lack_of_descriptors, setup, teardown),
                cmocka_unit_test_setup_teardown(test_mad_messages, setup, teardown),
                cmocka_unit_test_setup_teardown(test_longer_message, setup, teardown),
                cmocka_unit_test_setup_teardown(test_shut_down, setup, teardown),
                cmocka_unit_test_setup_teardown(test_environment, setup, teardown),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
