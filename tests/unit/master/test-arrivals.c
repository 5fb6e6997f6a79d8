/* SPDX-License-Identifier: MIT */
/* Connections that came, seen by somebody who accepts none, on real sockets. */

#include "../unit.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "basic/fd.h"
#include "master/arrivals.h"

typedef struct Fixture {
        Listener items[2];
        Listeners listeners;
        Arrivals *arrivals;
} Fixture;

static void listen_on(Fixture *f, int family) {
        Listener *l = f->items + f->listeners.n++;

        l->address.sockaddr.any.sa_family = (sa_family_t) family;
        l->fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);
        assert_true(l->fd >= 0);
        if (family == AF_UNIX) /* the kernel chooses a name */
                assert_int_equal(bind(l->fd, &l->address.sockaddr.any, sizeof(sa_family_t)), 0);
        assert_int_equal(listen(l->fd, 8), 0);
        assert_int_equal(address_of_socket(l->fd, &l->address), 0);
}

static int setup(void **state) {
        Fixture *f = calloc(1, sizeof(*f));

        assert_non_null(f);
        *state = f;
        f->listeners.items = f->items;
        listen_on(f, AF_INET);
        listen_on(f, AF_UNIX);
        assert_int_equal(arrivals_new(&f->listeners, &f->arrivals), 0);
        return 0;
}

static int teardown(void **state) {
        Fixture *f = *state;

        arrivals_free(f->arrivals);
        for (size_t i = 0; i < f->listeners.n; i++)
                safe_close(f->items[i].fd);
        free(f);
        return 0;
}

static int open_client(const Fixture *f, size_t i) {
        const Address *a = &f->items[i].address;
        int fd = socket(a->sockaddr.any.sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);

        assert_true(fd >= 0);
        assert_int_equal(connect(fd, &a->sockaddr.any, a->size), 0);
        return fd;
}

/* A connection from its beginning to its end. */
static void come_and_go(const Fixture *f, size_t i) {
        int client = open_client(f, i), server = accept(f->items[i].fd, NULL, NULL);

        assert_true(server >= 0);
        safe_close(client);
        safe_close(server);
}

/* Without any there is nothing, however often it is looked. */
static void test_none(void **state) {
        Fixture *f = *state;

        for (int i = 0; i < 3; i++)
                assert_int_equal(arrivals_look(f->arrivals), 0);
}

/* One that is over is seen, once, on whichever socket it was. */
static void test_short(void **state) {
        Fixture *f = *state;

        for (size_t i = 0; i < 4; i++) {
                come_and_go(f, i % 2);
                assert_int_equal(arrivals_look(f->arrivals), 1);
                assert_int_equal(arrivals_look(f->arrivals), 0);
        }
}

/* Many, on all sockets, are one look's matter. */
static void test_many(void **state) {
        Fixture *f = *state;

        for (size_t i = 0; i < 20; i++)
                come_and_go(f, i % 2);
        assert_int_equal(arrivals_look(f->arrivals), 1);
        assert_int_equal(arrivals_look(f->arrivals), 0);
}

/* One that is accepted by another process. */
static void test_accepted_elsewhere(void **state) {
        Fixture *f = *state;
        int status;
        pid_t pid = fork();

        assert_true(pid >= 0);
        if (pid == 0)
                _exit(accept(f->items[0].fd, NULL, NULL) < 0);
        safe_close(open_client(f, 0));
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_int_equal(status, 0);
        assert_int_equal(arrivals_look(f->arrivals), 1);
        assert_int_equal(arrivals_look(f->arrivals), 0);
}

/* One that nobody accepts is seen again and again. */
static void test_waiting(void **state) {
        Fixture *f = *state;
        struct pollfd p = { .fd = f->items[0].fd, .events = POLLIN };
        int client = open_client(f, 0);

        assert_int_equal(poll(&p, 1, -1), 1);
        for (int i = 0; i < 3; i++)
                assert_int_equal(arrivals_look(f->arrivals), 1);
        safe_close(accept(f->items[0].fd, NULL, NULL));
        safe_close(client);
        assert_int_equal(arrivals_look(f->arrivals), 1); /* it was there at the last look */
        assert_int_equal(arrivals_look(f->arrivals), 0);
}

/* No socket at all. */
static void test_nothing(void **state) {
        const Listeners none = { .n = 0 };
        Arrivals *a = NULL;

        assert_int_equal(arrivals_new(&none, &a), 0);
        assert_int_equal(arrivals_look(a), 0);
        arrivals_free(a);
}

/* A descriptor that is none is an error, and leaves nothing behind. */
static void test_failure(void **state) {
        Listener items[] = { { .fd = -EBADF } };
        const Listeners l = { .items = items, .n = 1 };
        Arrivals *a = NULL;

        assert_int_equal(arrivals_new(&l, &a), -EBADF);
        assert_null(a);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void) {
        const struct CMUnitTest tests[] = {
                TEST(test_none),
                TEST(test_short),
                TEST(test_many),
                TEST(test_accepted_elsewhere),
                TEST(test_waiting),
                cmocka_unit_test(test_nothing),
                cmocka_unit_test(test_failure),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
