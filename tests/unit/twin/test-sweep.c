/* SPDX-License-Identifier: MIT */
#include "../unit.h"

#include "twin/sweep.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include "basic/bitmap.h"
#include "basic/fd.h"
#include "basic/macro.h"

/*
 * The decision
 */

#define OPEN   .is_open = true
#define BUSY   .busy = true
#define KEPT   .is_kept = true
#define NEEDED .is_needed = true
#define CLIENT .is_client = true

static const struct {
        Finding finding;
        Fate fate;
} rows[] = {
        /* no descriptor: whatever was recorded is over */
        { { .standing = STANDING_FREE }, FATE_NOTHING },
        { { .standing = STANDING_IDLE }, FATE_FORGET },
        { { .standing = STANDING_IDLE, BUSY }, FATE_FORGET },
        { { .standing = STANDING_WORKING }, FATE_FORGET },
        { { .standing = STANDING_WORKING, BUSY }, FATE_FORGET },
        { { .standing = STANDING_CLOSING, BUSY }, FATE_FORGET }, /* it died between close and FREE */

        /* a connection: between two requests, touched, in the middle of one, waiting for its handler */
        { { .standing = STANDING_IDLE, OPEN }, FATE_LEAVE },
        { { .standing = STANDING_IDLE, BUSY, OPEN }, FATE_RESUME },
        { { .standing = STANDING_WORKING, BUSY, OPEN }, FATE_RESUME },
        { { .standing = STANDING_WORKING, OPEN }, FATE_RESUME },

        /* between CLOSING and close */
        { { .standing = STANDING_CLOSING, BUSY, OPEN }, FATE_CLOSE },
        { { .standing = STANDING_CLOSING, OPEN }, FATE_CLOSE },
        { { .standing = STANDING_CLOSING, OPEN, CLIENT }, FATE_CLOSE },
        { { .standing = STANDING_CLOSING, OPEN, NEEDED, CLIENT }, FATE_CLOSE },

        /* between close and FREE: the number is somebody else's */
        { { .standing = STANDING_CLOSING, OPEN, KEPT }, FATE_FORGET },
        { { .standing = STANDING_CLOSING, OPEN, NEEDED }, FATE_FORGET },

        /* accepted, unrecorded; a file that had this number before is sent already */
        { { .standing = STANDING_FREE, OPEN, CLIENT }, FATE_ADOPT },
        { { .standing = STANDING_FREE, BUSY, OPEN, CLIENT }, FATE_ADOPT },
        { { .standing = STANDING_FREE, OPEN, CLIENT, NEEDED }, FATE_ADOPT },

        /* files of answers, the keeper's, and all else */
        { { .standing = STANDING_FREE, OPEN, NEEDED }, FATE_KEEP },
        { { .standing = STANDING_FREE, OPEN, KEPT }, FATE_KEEP },
        { { .standing = STANDING_FREE, OPEN, KEPT, NEEDED }, FATE_KEEP },
        { { .standing = STANDING_FREE, OPEN }, FATE_CLOSE },

        /* a module has closed a client's descriptor, and the keeper got the number */
        { { .standing = STANDING_IDLE, OPEN, KEPT }, FATE_FORGET },
        { { .standing = STANDING_WORKING, BUSY, OPEN, KEPT }, FATE_FORGET },
};

static void test_rows(void **state) {
        for (size_t i = 0; i < ELEMENTSOF(rows); i++)
                if (sweep_decide(&rows[i].finding) != rows[i].fate)
                        fail_msg("row %zu: %d instead of %d", i, sweep_decide(&rows[i].finding),
                                        rows[i].fate);
}

static void check_finding(const Finding *f) {
        Fate fate = sweep_decide(f);
        bool ends = fate == FATE_CLOSE;
        Finding other = *f;

        /* Nothing comes of what is not there, and what is there does not vanish. */
        assert_int_equal(fate == FATE_NOTHING, !f->is_open && f->standing == STANDING_FREE);
        if (!f->is_open)
                assert_true(fate == FATE_NOTHING || fate == FATE_FORGET);
        if (f->standing != STANDING_FREE)
                assert_true(fate != FATE_NOTHING && fate != FATE_KEEP);

        /* The keeper's is not touched. Of what is needed only what cannot be the file is closed. */
        if (f->is_kept)
                assert_true(fate == FATE_NOTHING || fate == FATE_KEEP || fate == FATE_FORGET);
        if (f->is_needed && !f->is_client)
                assert_false(ends);

        /* Living connections live on, and a client that nobody was about to close. */
        if (f->standing == STANDING_IDLE || f->standing == STANDING_WORKING ||
                        (f->is_client && f->standing != STANDING_CLOSING))
                assert_false(ends);

        /* It is as good not to ask where that is said. */
        other.is_client = !f->is_client;
        if (!sweep_must_ask(f))
                assert_int_equal(sweep_decide(&other), fate);
}

static void test_all_findings(void **state) {
        for (int standing = 0; standing < _STANDING_MAX; standing++)
                for (unsigned bits = 0; bits < 32; bits++) {
                        Finding f = {
                                .standing = standing,
                                .busy = bits & 1,
                                .is_open = bits & 2,
                                .is_kept = bits & 4,
                                .is_needed = bits & 8,
                                .is_client = bits & 16,
                        };
                        check_finding(&f);
                }
}

/*
 * Which are open
 */

#define NUMBERS 5000

static void raise_limit(void) {
        struct rlimit l;

        assert_int_equal(getrlimit(RLIMIT_NOFILE, &l), 0);
        l.rlim_cur = l.rlim_max;
        assert_int_equal(setrlimit(RLIMIT_NOFILE, &l), 0);
        if (l.rlim_cur < NUMBERS)
                skip();
}

static void check_open(void) {
        uint64_t open[(NUMBERS + 63) / 64 + 1] = { [(NUMBERS + 63) / 64] = 0x5a5a };

        assert_int_equal(sweep_find_open(NUMBERS, open), 0);
        for (int fd = 0; fd < NUMBERS; fd++)
                assert_int_equal(open[fd / 64] >> fd % 64 & 1, fcntl(fd, F_GETFD) >= 0);
        assert_int_equal(open[bitmap_words(NUMBERS)], 0x5a5a);
}

static void test_find_open(void **state) {
        static const int numbers[] = { 62, 63, 64, 127, 1023, 1024, 1025, 2047, 2048, 4998, NUMBERS - 1 };
        struct rlimit l;
        int fds[2];

        raise_limit();
        check_open();

        /* of any kind, at any event */
        assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
        for (size_t i = 0; i < ELEMENTSOF(numbers); i++)
                assert_int_equal(dup3(fds[i % 2], numbers[i], O_CLOEXEC), numbers[i]);
        check_open();
        (void) close(fds[1]);
        check_open();
        assert_true(sweep_get_table_size() >= NUMBERS);

        /* above a limit that was lowered after they were opened */
        assert_int_equal(getrlimit(RLIMIT_NOFILE, &l), 0);
        for (rlim_t n = 1; n <= 100; n += 33) {
                assert_int_equal(setrlimit(RLIMIT_NOFILE, &(struct rlimit){ n, l.rlim_max }), 0);
                check_open();
        }
        assert_int_equal(setrlimit(RLIMIT_NOFILE, &l), 0);

        (void) close(fds[0]);
        for (size_t i = 0; i < ELEMENTSOF(numbers); i++)
                (void) close(numbers[i]);
        check_open();
}

/*
 * Whose they are
 */

typedef union Address {
        struct sockaddr any;
        struct sockaddr_in in;
        struct sockaddr_in6 in6;
        struct sockaddr_un un;
        struct sockaddr_storage storage;
} Address;

static Address in(uint32_t address) {
        return (Address){ .in = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(address) } };
}

static Address in6(struct in6_addr address) {
        return (Address){ .in6 = { .sin6_family = AF_INET6, .sin6_addr = address } };
}

static int listen_on(const Address *a, socklen_t n) {
        int fd = socket(a->any.sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);

        if (fd < 0 || bind(fd, &a->any, n) < 0)
                return safe_close(fd);
        assert_int_equal(listen(fd, 8), 0);
        return fd;
}

static int connect_to(const Address *a, socklen_t n) {
        int fd = socket(a->any.sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);

        assert_true(fd >= 0);
        assert_int_equal(connect(fd, &a->any, n), 0);
        return fd;
}

static int accept_one(int listener) {
        int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);

        assert_true(fd >= 0);
        return fd;
}

static in_port_t port_of(int fd) {
        Address a;
        socklen_t n = sizeof(a);

        assert_int_equal(getsockname(fd, &a.any, &n), 0);
        return a.in.sin_port; /* at the same place in both families */
}

/* Of the two ends of a connection and their listener, the accepted one alone is a client. */
static void check_listener(int listener, const Address *to, socklen_t n) {
        SweepListener l;
        int client = connect_to(to, n), server = accept_one(listener);

        assert_int_equal(sweep_listener_init(&l, listener), 0);
        assert_true(sweep_is_client(server, &l, 1));
        assert_false(sweep_is_client(client, &l, 1));
        assert_false(sweep_is_client(listener, &l, 1));
        assert_false(sweep_is_client(server, NULL, 0));

        /* Who has half-closed is a client still. */
        assert_int_equal(shutdown(client, SHUT_WR), 0);
        assert_true(sweep_is_client(server, &l, 1));
        assert_int_equal(shutdown(server, SHUT_WR), 0);
        (void) close(server);
        (void) close(client);
}

static void check_tcp(Address bound, Address to) {
        int listener;

        listener = listen_on(&bound, sizeof(bound.storage));
        if (listener < 0)
                return; /* a machine without that family */
        to.in.sin_port = port_of(listener);
        check_listener(listener, &to, sizeof(to.storage));
        (void) close(listener);
}

static void test_tcp(void **state) {
        check_tcp(in(INADDR_LOOPBACK), in(INADDR_LOOPBACK));
        check_tcp(in(INADDR_ANY), in(INADDR_LOOPBACK));
        check_tcp(in(INADDR_ANY), in(INADDR_LOOPBACK + 5));
        check_tcp(in6(in6addr_loopback), in6(in6addr_loopback));
        check_tcp(in6(in6addr_any), in6(in6addr_loopback));
        check_tcp(in6(in6addr_any), in(INADDR_LOOPBACK));
}

static void test_unix(void **state) {
        char folder[] = "/tmp/test-sweep-XXXXXX";
        Address a = { .un = { .sun_family = AF_UNIX } };
        socklen_t n;
        int listener;

        assert_non_null(mkdtemp(folder));
        snprintf(a.un.sun_path, sizeof(a.un.sun_path), "%s/socket", folder);
        listener = listen_on(&a, sizeof(a.un));
        assert_true(listener >= 0);
        check_listener(listener, &a, sizeof(a.un));
        (void) close(listener);
        (void) unlink(a.un.sun_path);
        (void) rmdir(folder);

        /* without a path */
        n = (socklen_t) (offsetof(struct sockaddr_un, sun_path) + 1 +
                         (size_t) snprintf(a.un.sun_path + 1, sizeof(a.un.sun_path) - 1, "%d-sweep",
                                         getpid()));
        a.un.sun_path[0] = '\0';
        listener = listen_on(&a, n);
        assert_true(listener >= 0);
        check_listener(listener, &a, n);
        (void) close(listener);
}

/* An app's own traffic, with its own listeners as well as with ours. */
static void test_own_connections(void **state) {
        Address a = in(INADDR_LOOPBACK);
        int ours, others, from_ours, from_others, accepted;
        SweepListener l[2];

        ours = listen_on(&a, sizeof(a.in));
        others = listen_on(&a, sizeof(a.in));
        assert_int_equal(sweep_listener_init(&l[0], ours), 0);
        a = in(INADDR_ANY);
        int wildcard = listen_on(&a, sizeof(a.in));
        assert_int_equal(sweep_listener_init(&l[1], wildcard), 0);

        a = in(INADDR_LOOPBACK);
        a.in.sin_port = port_of(others);
        from_others = connect_to(&a, sizeof(a.in));
        accepted = accept_one(others);
        a.in.sin_port = port_of(ours);
        from_ours = connect_to(&a, sizeof(a.in));

        assert_false(sweep_is_client(from_others, l, 2));
        assert_false(sweep_is_client(accepted, l, 2));
        assert_false(sweep_is_client(from_ours, l, 2));
        assert_false(sweep_is_client(others, l, 2));
        (void) close(accepted);
        accepted = accept_one(ours);
        assert_true(sweep_is_client(accepted, l, 2));

        (void) close(accepted);
        (void) close(from_ours);
        (void) close(from_others);
        (void) close(wildcard);
        (void) close(others);
        (void) close(ours);
}

static void test_reset(void **state) {
        static const struct linger abort = { .l_onoff = 1 };
        Address a = in(INADDR_LOOPBACK);
        int listener = listen_on(&a, sizeof(a.in)), client, server;
        SweepListener l;

        assert_int_equal(sweep_listener_init(&l, listener), 0);
        a.in.sin_port = port_of(listener);
        client = connect_to(&a, sizeof(a.in));
        server = accept_one(listener);
        assert_true(sweep_is_client(server, &l, 1));
        assert_int_equal(setsockopt(client, SOL_SOCKET, SO_LINGER, &abort, sizeof(abort)), 0);
        (void) close(client);
        assert_int_equal(poll(&(struct pollfd){ .fd = server, .events = POLLIN }, 1, -1), 1);
        assert_false(sweep_is_client(server, &l, 1));
        (void) close(server);
        (void) close(listener);
}

static void check_no_client(int fd, const SweepListener *l) {
        assert_true(fd >= 0);
        assert_false(sweep_is_client(fd, l, 1));
        (void) close(fd);
        assert_false(sweep_is_client(fd, l, 1));
}

static void test_other_descriptors(void **state) {
        Address a = in(INADDR_LOOPBACK);
        int listener = listen_on(&a, sizeof(a.in)), fds[2], fd;
        SweepListener l;

        assert_int_equal(sweep_listener_init(&l, listener), 0);
        check_no_client(memfd_create("file", MFD_CLOEXEC), &l);
        check_no_client(eventfd(0, EFD_CLOEXEC), &l);
        check_no_client((int) syscall(SYS_pidfd_open, getpid(), 0), &l);
        check_no_client(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), &l);
        assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
        check_no_client(fds[0], &l);
        check_no_client(fds[1], &l);
        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
        check_no_client(fds[0], &l);
        check_no_client(fds[1], &l);

        /* the same address, in another protocol */
        a.in.sin_port = port_of(listener);
        fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
        if (bind(fd, &a.any, sizeof(a.in)) == 0)
                assert_int_equal(connect(fd, &a.any, sizeof(a.in)), 0);
        check_no_client(fd, &l);

        (void) close(listener);
        assert_int_equal(sweep_listener_init(&l, listener), -EBADF);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_rows),
                cmocka_unit_test(test_all_findings),
                cmocka_unit_test(test_find_open),
                cmocka_unit_test(test_tcp),
                cmocka_unit_test(test_unix),
                cmocka_unit_test(test_own_connections),
                cmocka_unit_test(test_reset),
                cmocka_unit_test(test_other_descriptors),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
