/* SPDX-License-Identifier: MIT */
/* The inner loop, turned by hand as the outer one does. */

#include "../unit.h"

#include <errno.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "worker/event.h"

static unsigned n_handled;
static int own_fd;

static void on_own(void) {
        uint64_t n;

        assert_int_equal(read(own_fd, &n, sizeof(n)), sizeof(n));
        n_handled += 100;
}

/* One turn of the outer loop, which waits for so long at most. Returns whether it was woken. */
static bool turn(int timeout_msec) {
        struct pollfd p = { .fd = event_fd(), .events = POLLIN };
        bool pending = event_prepare();
        int n = poll(&p, 1, pending ? 0 : timeout_msec);

        assert_int_equal(event_dispatch(n > 0), 0);
        return n > 0 || pending;
}

static int on_defer(sd_event_source *s, void *userdata) {
        n_handled++;
        if (userdata && n_handled < 40)
                assert_true(sd_event_add_defer(event_get(), NULL, on_defer, userdata) >= 0);
        return 0;
}

static int on_time(sd_event_source *s, uint64_t usec, void *userdata) {
        n_handled++;
        return 0;
}

static int on_io(sd_event_source *s, int fd, uint32_t events, void *userdata) {
        uint64_t n;

        assert_int_equal(read(fd, &n, sizeof(n)), sizeof(n));
        n_handled++;
        return 0;
}

/* Without one who asks there is nothing to wait for. */
static void test_nothing(void **state) {
        assert_int_equal(event_fd(), -EBADF);
        assert_null(event_get());
        assert_false(event_prepare());
        assert_int_equal(event_dispatch(false), 0);
}

/* Timers, descriptors, and sources that are always ready; added before a turn, or by a handler. */
static void test_sources(void **state) {
        int fd = eventfd(0, EFD_NONBLOCK);

        n_handled = 0;
        assert_int_equal(event_init(), 0);
        own_fd = eventfd(0, EFD_NONBLOCK);
        assert_int_equal(event_add(own_fd, on_own), 0);
        assert_false(turn(0));
        assert_non_null(event_get());
        assert_ptr_equal(event_get(), event_get());
        assert_false(turn(0));

        assert_true(sd_event_add_defer(event_get(), NULL, on_defer, NULL) >= 0);
        event_touch();
        assert_true(turn(0));
        assert_int_equal(n_handled, 1);
        assert_false(turn(0));

        assert_true(sd_event_add_time_relative(event_get(), NULL, CLOCK_MONOTONIC, 1000, 1, on_time, NULL) >=
                        0);
        event_touch();
        while (n_handled < 2)
                turn(20000);
        assert_true(sd_event_add_io(event_get(), NULL, fd, EPOLLIN, on_io, NULL) >= 0);
        event_touch();
        assert_false(turn(0));
        assert_int_equal(eventfd_write(fd, 1), 0);
        assert_true(turn(20000));
        assert_int_equal(n_handled, 3);
        assert_int_equal(eventfd_write(own_fd, 1), 0);
        assert_true(turn(20000));
        assert_int_equal(n_handled, 103);
        assert_false(turn(0));
        event_done();
        close(own_fd);
        close(fd);
}

/* A handler that always has something to do does not keep the turn for itself. */
static void test_turn_is_bounded(void **state) {
        n_handled = 0;
        assert_int_equal(event_init(), 0);
        assert_true(sd_event_add_defer(event_get(), NULL, on_defer, state) >= 0);
        assert_true(turn(0));
        assert_in_range(n_handled, 1, 39);
        while (n_handled < 40)
                assert_true(turn(0));
        event_done();
}

/* The end of the loop is told. */
static void test_exit(void **state) {
        assert_int_equal(event_init(), 0);
        assert_true(sd_event_exit(event_get(), 0) >= 0);
        event_touch();
        assert_true(event_prepare());
        assert_int_equal(event_dispatch(false), -ESTALE);
        event_done();
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_nothing),
                cmocka_unit_test(test_sources),
                cmocka_unit_test(test_turn_is_bounded),
                cmocka_unit_test(test_exit),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
