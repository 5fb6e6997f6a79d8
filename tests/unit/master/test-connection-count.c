/* SPDX-License-Identifier: MIT */
/* Connections counted by the kernel, on real sockets. */

#include "../unit.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "basic/fd.h"
#include "basic/macro.h"
#include "master/connection-count.h"

#define CONNECTIONS_MAX 200

/* Sockets that listen, and connections to the first of them. */
typedef struct Fixture {
        Listener items[2];
        Listeners listeners;
        int clients[CONNECTIONS_MAX], servers[CONNECTIONS_MAX];
} Fixture;

static void listen_on(Fixture *f, const char *address) {
        Listener *l = f->items + f->listeners.n++;
        int zero = 0;

        f->listeners.items = f->items;
        assert_int_equal(address_parse(address, &l->address), 0);
        l->fd = socket(l->address.sockaddr.any.sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
        assert_true(l->fd >= 0);
        if (l->address.sockaddr.any.sa_family == AF_INET6)
                assert_int_equal(setsockopt(l->fd, IPPROTO_IPV6, IPV6_V6ONLY, &zero, sizeof(zero)), 0);
        assert_int_equal(bind(l->fd, &l->address.sockaddr.any, l->address.size), 0);
        assert_int_equal(listen(l->fd, CONNECTIONS_MAX), 0);
        assert_int_equal(address_of_socket(l->fd, &l->address), 0);
}

static in_port_t port_of(const Fixture *f) {
        struct sockaddr_in in; /* the port has the same place in both */

        memcpy(&in, &f->items[0].address.sockaddr, sizeof(in));
        return ntohs(in.sin_port);
}

static uint64_t count(const Fixture *f) {
        uint64_t n = UINT64_MAX;

        assert_int_equal(connection_count(&f->listeners, &n), 0);
        return n;
}

static int connect_to(const Address *a) {
        int fd = socket(a->sockaddr.any.sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);

        assert_true(fd >= 0);
        assert_int_equal(connect(fd, &a->sockaddr.any, a->size), 0);
        return fd;
}

/* Connects to @address, which may be another one than it listens on, and accepts it. */
static void open_connection(Fixture *f, size_t i, const Address *a) {
        f->clients[i] = connect_to(a);
        f->servers[i] = accept4(f->items[0].fd, NULL, NULL, SOCK_CLOEXEC);
        assert_true(f->servers[i] >= 0);
}

/* The same by "127.0.0.1" and the port of the first socket. */
static void open_by_host(Fixture *f, size_t i, const char *host) {
        char address[ADDRESS_STRING_MAX];
        Address a;

        snprintf(address, sizeof(address), "%s:%u", host, port_of(f));
        assert_int_equal(address_parse(address, &a), 0);
        open_connection(f, i, &a);
}

static void close_connection(Fixture *f, size_t i) {
        f->servers[i] = safe_close(f->servers[i]);
        f->clients[i] = safe_close(f->clients[i]);
}

static int setup(void **state) {
        Fixture *f = calloc(1, sizeof(*f));

        assert_non_null(f);
        for (size_t i = 0; i < CONNECTIONS_MAX; i++)
                f->clients[i] = f->servers[i] = -EBADF;
        *state = f;
        return 0;
}

static int teardown(void **state) {
        Fixture *f = *state;

        for (size_t i = 0; i < CONNECTIONS_MAX; i++)
                close_connection(f, i);
        for (size_t i = 0; i < f->listeners.n; i++)
                safe_close(f->items[i].fd);
        free(f);
        return 0;
}

/* None, three, none again. */
static void test_inet(void **state) {
        Fixture *f = *state;

        listen_on(f, "127.0.0.1:0");
        assert_int_equal(count(f), 0);
        for (size_t i = 0; i < 3; i++)
                open_connection(f, i, &f->items[0].address);
        assert_int_equal(count(f), 3);
        close_connection(f, 1);
        assert_int_equal(count(f), 2);
        close_connection(f, 0);
        close_connection(f, 2);
        assert_int_equal(count(f), 0);
}

/* A socket for both families has the clients of both. */
static void test_dual_stack(void **state) {
        Fixture *f = *state;

        if (access("/proc/net/if_inet6", F_OK) < 0)
                skip();
        listen_on(f, "[::]:0");
        assert_int_equal(count(f), 0);
        open_by_host(f, 0, "127.0.0.1");
        assert_int_equal(count(f), 1);
        open_by_host(f, 1, "[::1]");
        open_by_host(f, 2, "127.0.0.2");
        assert_int_equal(count(f), 3);
        for (size_t i = 0; i < 3; i++)
                close_connection(f, i);
        assert_int_equal(count(f), 0);
}

/* Somebody else has the same port of another address. */
static void test_other_address(void **state) {
        Fixture *f = *state, other = { .listeners.n = 0 };
        char address[ADDRESS_STRING_MAX];

        listen_on(f, "127.0.0.1:0");
        snprintf(address, sizeof(address), "127.0.0.2:%u", port_of(f));
        listen_on(&other, address);
        open_connection(&other, 0, &other.items[0].address);
        assert_int_equal(count(f), 0);
        assert_int_equal(count(&other), 1);
        open_connection(f, 0, &f->items[0].address);
        open_connection(f, 1, &f->items[0].address);
        assert_int_equal(count(f), 2);
        assert_int_equal(count(&other), 1);
        close_connection(&other, 0);
        safe_close(other.items[0].fd);
}

/* Of several sockets the sum, of one that is there twice once. */
static void test_several(void **state) {
        Fixture *f = *state;
        int other;

        listen_on(f, "127.0.0.1:0");
        listen_on(f, "127.0.0.1:0");
        open_connection(f, 0, &f->items[0].address);
        other = connect_to(&f->items[1].address);
        f->servers[1] = accept(f->items[1].fd, NULL, NULL);
        assert_int_equal(count(f), 2);
        safe_close(f->items[1].fd);
        f->items[1].fd = dup(f->items[0].fd);
        f->items[1].address = f->items[0].address;
        assert_int_equal(count(f), 1);
        safe_close(other);
}

/* More than fit into one message of the kernel. */
static void test_many(void **state) {
        Fixture *f = *state;

        listen_on(f, "127.0.0.1:0");
        for (size_t i = 0; i < CONNECTIONS_MAX; i++)
                open_connection(f, i, &f->items[0].address);
        assert_int_equal(count(f), CONNECTIONS_MAX);
}

/* One that nobody has accepted yet is one. */
static void test_waiting(void **state) {
        Fixture *f = *state;

        listen_on(f, "127.0.0.1:0");
        f->clients[0] = connect_to(&f->items[0].address);
        struct pollfd p = { .fd = f->items[0].fd, .events = POLLIN };
        assert_int_equal(poll(&p, 1, -1), 1);
        assert_int_equal(count(f), 1);
}

/* As long as one can expect something of the other: a client that sends no more, a worker that sends no more
 * and reads on. What a worker has closed is over, though the client be still there. */
static void test_halves(void **state) {
        Fixture *f = *state;
        char byte;

        listen_on(f, "127.0.0.1:0");
        open_connection(f, 0, &f->items[0].address);
        open_connection(f, 1, &f->items[0].address);
        assert_int_equal(shutdown(f->clients[0], SHUT_WR), 0);
        assert_int_equal(read(f->servers[0], &byte, 1), 0);
        assert_int_equal(shutdown(f->servers[1], SHUT_WR), 0);
        assert_int_equal(read(f->clients[1], &byte, 1), 0);
        assert_int_equal(count(f), 2);
        f->servers[1] = safe_close(f->servers[1]);
        assert_int_equal(count(f), 1);
        f->servers[0] = safe_close(f->servers[0]);
        assert_int_equal(count(f), 0);
}

/* A path, and a name that is none; what has no name or another one is somebody else's. */
static void test_unix(void **state) {
        char path[] = "/tmp/test-connection-count-XXXXXX", name[64];
        Fixture *f = *state;
        int pair[2];

        assert_non_null(mkdtemp(path));
        snprintf(name, sizeof(name), "%s/sock", path);
        listen_on(f, name);
        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
        assert_int_equal(count(f), 0);
        for (size_t i = 0; i < 3; i++)
                open_connection(f, i, &f->items[0].address);
        assert_int_equal(count(f), 3);
        assert_int_equal(unlink(name), 0);
        assert_int_equal(rmdir(path), 0);
        f->servers[0] = safe_close(f->servers[0]);
        assert_int_equal(count(f), 2);
        close_connection(f, 1);
        close_connection(f, 2);
        assert_int_equal(count(f), 0);
        safe_close(pair[0]);
        safe_close(pair[1]);
}

static void test_abstract(void **state) {
        Fixture *f = *state, other = { .listeners.n = 0 };
        Address *a = &f->items[0].address;

        /* The kernel chooses a name that nobody has, of five characters; the other one begins with it. */
        f->listeners = (Listeners){ .items = f->items, .n = 1 };
        f->items[0].fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        a->sockaddr.any.sa_family = AF_UNIX;
        assert_int_equal(bind(f->items[0].fd, &a->sockaddr.any, sizeof(sa_family_t)), 0);
        assert_int_equal(listen(f->items[0].fd, 8), 0);
        assert_int_equal(address_of_socket(f->items[0].fd, a), 0);

        other.items[0].address = *a;
        other.items[0].address.sockaddr.un.sun_path[other.items[0].address.size++ - sizeof(sa_family_t)] =
                        'x';
        other.listeners = (Listeners){ .items = other.items, .n = 1 };
        other.items[0].fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        assert_int_equal(bind(other.items[0].fd, &other.items[0].address.sockaddr.any,
                                         other.items[0].address.size),
                        0);
        assert_int_equal(listen(other.items[0].fd, 8), 0);

        open_connection(f, 0, a);
        open_connection(f, 1, a);
        open_connection(&other, 0, &other.items[0].address);
        assert_int_equal(count(f), 2);
        assert_int_equal(count(&other), 1);
        close_connection(&other, 0);
        safe_close(other.items[0].fd);
}

/* A number of sockets that takes more than a message, none of which is ours. */
static void test_unix_among_many(void **state) {
        Fixture *f = *state;
        int pairs[CONNECTIONS_MAX][2];

        for (size_t i = 0; i < CONNECTIONS_MAX; i++)
                assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pairs[i]), 0);
        test_abstract(state);
        assert_int_equal(count(f), 2);
        for (size_t i = 0; i < CONNECTIONS_MAX; i++) {
                safe_close(pairs[i][0]);
                safe_close(pairs[i][1]);
        }
}

/* What @deed makes of it in a process of its own: the outcome, negated; 0: it was counted right (1); 99: not
 * possible here; 98: counted wrong. */
static int count_in_child(const Fixture *f, int (*deed)(void)) {
        uint64_t n = 0;
        int status, r;
        pid_t pid = fork();

        assert_true(pid >= 0);
        if (pid == 0) {
                if (deed() < 0)
                        _exit(99);
                r = connection_count(&f->listeners, &n);
                _exit(r < 0 ? -r : n == 1 ? 0 : 98);
        }
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_true(WIFEXITED(status));
        if (WEXITSTATUS(status) == 99)
                skip();
        return WEXITSTATUS(status);
}

static int leave_network(void) {
        return unshare(CLONE_NEWUSER | CLONE_NEWNET);
}

/* Somebody who cannot see the sockets does not take this for silence. */
static void test_other_network(void **state) {
        Fixture *f = *state;

        listen_on(f, "127.0.0.1:0");
        open_connection(f, 0, &f->items[0].address);
        assert_int_equal(count_in_child(f, leave_network), ENONET);
}

static void test_other_network_unix(void **state) {
        Fixture *f = *state;

        test_abstract(state);
        assert_int_equal(count_in_child(f, leave_network), ENONET);
}

static int become_nobody(void) {
        return geteuid() == 0 ? setresuid(65534, 65534, 65534) : 0;
}

/* No privilege is needed. */
static void test_unprivileged(void **state) {
        Fixture *f = *state;

        listen_on(f, "127.0.0.1:0");
        open_connection(f, 0, &f->items[0].address);
        assert_int_equal(count_in_child(f, become_nobody), 0);
}

static int take_descriptors(void) {
        const struct rlimit none = { 0, 0 };

        return setrlimit(RLIMIT_NOFILE, &none);
}

/* A lack is an error, and not "none". */
static void test_no_descriptor(void **state) {
        Fixture *f = *state;

        listen_on(f, "127.0.0.1:0");
        open_connection(f, 0, &f->items[0].address);
        assert_int_equal(count_in_child(f, take_descriptors), EMFILE);
}

/* Sockets of which the kernel tells nothing here. */
static void test_unsupported(void **state) {
        Fixture *f = *state;
        uint64_t n;

        listen_on(f, "127.0.0.1:0");
        f->items[0].address.sockaddr.any.sa_family = AF_VSOCK;
        assert_int_equal(connection_count(&f->listeners, &n), -EOPNOTSUPP);
        safe_close(f->items[0].fd);
        f->items[0].address.sockaddr.any.sa_family = AF_INET;
        f->items[0].fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
        assert_int_equal(connection_count(&f->listeners, &n), -EOPNOTSUPP);
}

/* No socket, no connection. */
static void test_nothing(void **state) {
        Fixture *f = *state;

        assert_int_equal(count(f), 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void) {
        const struct CMUnitTest tests[] = {
                TEST(test_inet),
                TEST(test_dual_stack),
                TEST(test_other_address),
                TEST(test_several),
                TEST(test_many),
                TEST(test_waiting),
                TEST(test_halves),
                TEST(test_unix),
                TEST(test_abstract),
                TEST(test_unix_among_many),
                TEST(test_other_network),
                TEST(test_other_network_unix),
                TEST(test_unprivileged),
                TEST(test_no_descriptor),
                TEST(test_unsupported),
                TEST(test_nothing),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
