/* SPDX-License-Identifier: MIT */
#include "worker/master-link.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "basic/fd.h"
#include "basic/macro.h"

static int from_environment(const char *value, int *ret_fd) {
        int r;

        setenv(MASTER_LINK_ENV_FD, value, 1);
        r = master_link_from_environment(ret_fd);
        assert_null(getenv(MASTER_LINK_ENV_FD));
        return r;
}

static int from_number(int fd, int *ret_fd) {
        char text[16];

        snprintf(text, sizeof(text), "%d", fd);
        return from_environment(text, ret_fd);
}

/* A variable that is no number is told from a number that is no channel; whatever it is, it leaves the
 * environment, and nothing is taken. */
static void test_environment(void **state) {
        static const char *const malformed[] = { "", "x", "-1", "+3", " 3", "3x", "2147483648",
                "4294967299" };
        int fd = -EBADF, ends[2];

        unsetenv(MASTER_LINK_ENV_FD);
        assert_int_equal(master_link_from_environment(&fd), -ENXIO);
        for (size_t i = 0; i < ELEMENTSOF(malformed); i++)
                assert_int_equal(from_environment(malformed[i], &fd), -EINVAL);
        assert_int_equal(from_environment("2147483647", &fd), -EBADF);
        assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
        assert_int_equal(from_number(ends[0], &fd), -ENOTSOCK);
        assert_int_equal(fd, -EBADF);
        safe_close(ends[0]);
        safe_close(ends[1]);
}

/* As a child inherits it: blocking, and open for what the child executes. Both change. */
static void test_descriptor(void **state) {
        int fd = -EBADF, ends[2];

        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
        assert_int_equal(from_number(ends[0], &fd), 0);
        assert_int_equal(fd, ends[0]);
        assert_int_equal(fcntl(fd, F_GETFD), FD_CLOEXEC);
        assert_true(fcntl(fd, F_GETFL) & O_NONBLOCK);
        assert_false(fcntl(ends[1], F_GETFL) & O_NONBLOCK);
        safe_close(ends[0]);
        safe_close(ends[1]);
}

static int ends[2];

static int setup(void **state) {
        return socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends);
}

static int teardown(void **state) {
        ends[0] = safe_close(ends[0]);
        ends[1] = safe_close(ends[1]);
        return 0;
}

static int unread(void) {
        int n;

        assert_int_equal(ioctl(ends[0], FIONREAD, &n), 0);
        return n;
}

/* A probe is gone after one look, and nothing to read is no end. Of a flood each look takes a part. */
static void test_reading(void **state) {
        static const char probe[] = "{\"cmd\":\"MUSTER\",\"act\":\"probe\"}\n";
        static char flood[16384];

        assert_int_equal(write(ends[1], probe, strlen(probe)), strlen(probe));
        assert_true(master_link_is_alive(ends[0], EPOLLIN));
        assert_int_equal(unread(), 0);
        assert_true(master_link_is_alive(ends[0], EPOLLIN));

        assert_int_equal(write(ends[1], flood, sizeof(flood)), sizeof(flood));
        assert_true(master_link_is_alive(ends[0], EPOLLIN));
        assert_in_range(unread(), sizeof(flood) / 2, sizeof(flood) - 1);
}

/* A descriptor that comes with a message does not stay. */
static void test_descriptor_that_comes_along(void **state) {
        union {
                char buf[CMSG_SPACE(sizeof(int))];
                struct cmsghdr align;
        } control = { .buf = { 0 } };
        struct iovec iov = { (void *) "\n", 1 };
        struct msghdr mh = {
                .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control)
        };
        struct cmsghdr *cmsg = CMSG_FIRSTHDR(&mh);
        int its[2];
        char c;

        assert_int_equal(pipe2(its, O_CLOEXEC | O_NONBLOCK), 0);
        cmsg->cmsg_level = SOL_SOCKET;
        cmsg->cmsg_type = SCM_RIGHTS;
        cmsg->cmsg_len = CMSG_LEN(sizeof(int));
        memcpy(CMSG_DATA(cmsg), &its[1], sizeof(int));
        assert_int_equal(sendmsg(ends[1], &mh, 0), 1);
        safe_close(its[1]);
        assert_int_equal(read(its[0], &c, 1), -1);
        assert_int_equal(errno, EAGAIN);
        assert_true(master_link_is_alive(ends[0], EPOLLIN));
        assert_int_equal(read(its[0], &c, 1), 0); /* nobody holds the other end */
        safe_close(its[0]);
}

static uint32_t look(int epoll_fd) {
        struct epoll_event ev = { .events = 0 };

        return epoll_wait(epoll_fd, &ev, 1, 0) == 1 ? ev.events : 0;
}

/* The end counts before what was written before it, as epoll tells it; a reset is an end as well. */
static void test_end(void **state) {
        _cleanup_close_ int epoll_fd = epoll_create1(EPOLL_CLOEXEC);
        struct epoll_event ev = { .events = master_link_events() };

        assert_int_equal(epoll_ctl(epoll_fd, EPOLL_CTL_ADD, ends[0], &ev), 0);
        assert_int_equal(write(ends[1], "x\n", 2), 2);
        assert_int_equal(look(epoll_fd), EPOLLIN);
        assert_int_equal(shutdown(ends[1], SHUT_WR), 0);
        assert_false(master_link_is_alive(ends[0], look(epoll_fd)));
        assert_int_equal(unread(), 2);

        /* seen by the reading alone */
        assert_true(master_link_is_alive(ends[0], EPOLLIN));
        assert_false(master_link_is_alive(ends[0], EPOLLIN));
        assert_int_equal(write(ends[0], "y\n", 2), 2);
        ends[1] = safe_close(ends[1]); /* with something unread: ECONNRESET */
        assert_false(master_link_is_alive(ends[0], EPOLLIN));
}

int main(void) {
        static const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_environment),
                cmocka_unit_test(test_descriptor),
                cmocka_unit_test_setup_teardown(test_reading, setup, teardown),
                cmocka_unit_test_setup_teardown(test_descriptor_that_comes_along, setup, teardown),
                cmocka_unit_test_setup_teardown(test_end, setup, teardown),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
