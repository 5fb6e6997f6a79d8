/* SPDX-License-Identifier: MIT */
/* Where the sockets come from that the apps of a cluster ask for. */

#include "../unit.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "basic/fd.h"
#include "master/bind.h"
#include "master/cluster-internal.h"

#define ITEMS_MAX 4

/* The sockets of a case, made by hand. */
static Listener items[ITEMS_MAX];
static Listeners listeners;
static bool taken[ITEMS_MAX];

static void have_nothing(void) {
        listeners = (Listeners){ .items = items };
        memset(taken, 0, sizeof(taken));
}

static void have(int type, const char *name, const char *address) {
        Listener *l = items + listeners.n++;

        *l = (Listener){ .fd = -EBADF, .name = (char *) name, .type = type, .first = listeners.n - 1 };
        assert_int_equal(address_parse(address, &l->address), 0);
}

static ClusterQuery tcp(const char *address, uint16_t port) {
        ClusterQuery q = {
                .family = strchr(address, ':') ? CLUSTER_IPV6 : CLUSTER_IPV4, .port = port, .fd = -1
        };

        strcpy(q.address, address);
        return q;
}

static ClusterQuery udp(const char *address, uint16_t port) {
        ClusterQuery q = tcp(address, port);

        q.family = q.family == CLUSTER_IPV6 ? CLUSTER_UDP6 : CLUSTER_UDP4;
        q.is_udp = true;
        return q;
}

static ClusterQuery unix_path(const char *path) {
        ClusterQuery q = { .family = CLUSTER_PATH, .fd = -1 };

        strcpy(q.address, path);
        return q;
}

static ClusterQuery descriptor(int fd, bool is_udp) {
        return (ClusterQuery){ .family = CLUSTER_FD, .fd = fd, .is_udp = is_udp };
}

static void check_found(ClusterQuery q, int expected) {
        assert_int_equal(cluster_find_listener(&listeners, &q, taken), expected);
}

/*
 * Those that were passed
 */

static void test_nothing_passed(void **state) {
        have_nothing();
        check_found(tcp("", 3000), -ENOENT);
        check_found(udp("", 3000), -ENOENT);
        check_found(unix_path("/run/app"), -ENOENT);
        check_found(descriptor(3, false), -EBADF);
}

/* FileDescriptorName=3000, wherever it listens; and a path likewise. */
static void test_by_name(void **state) {
        have_nothing();
        have(SOCK_STREAM, "3000", "127.0.0.1:80");
        have(SOCK_STREAM, "443", "3000");
        have(SOCK_STREAM, "/run/app", "/run/elsewhere");
        have(SOCK_STREAM, "other", "/run/app");
        check_found(tcp("", 3000), 0); /* more than that of the port */
        check_found(tcp("127.0.0.1", 3000), 0);
        check_found(tcp("", 443), 1);
        check_found(unix_path("/run/app"), 2);
        taken[0] = true;
        check_found(tcp("", 3000), -EADDRINUSE);
}

static void test_by_port(void **state) {
        have_nothing();
        have(SOCK_STREAM, "http", "127.0.0.1:3000");
        have(SOCK_STREAM, "more", "[::1]:3001");
        check_found(tcp("", 3000), 0);
        check_found(tcp("::", 3000), 0); /* the administrator decides about the address */
        check_found(tcp("", 3001), 1);
        check_found(tcp("", 3002), -ENOENT);
        check_found(tcp("", 0), -ENOENT);
        taken[1] = true;
        check_found(tcp("::1", 3001), -EADDRINUSE);
}

/* Two of the same port, one of each address: the one that is free. */
static void test_same_port_twice(void **state) {
        have_nothing();
        have(SOCK_STREAM, "http", "127.0.0.1:3000");
        have(SOCK_STREAM, "http", "[::1]:3000");
        check_found(tcp("", 3000), 0);
        taken[0] = true;
        check_found(tcp("", 3000), 1);
        taken[1] = true;
        check_found(tcp("", 3000), -EADDRINUSE);
}

static void test_by_path(void **state) {
        char longest[sizeof(((struct sockaddr_un *) NULL)->sun_path)];

        memset(longest, 'x', sizeof(longest));
        longest[0] = '/';
        longest[sizeof(longest) - 1] = '\0';
        have_nothing();
        have(SOCK_STREAM, "a", "/run/app");
        have(SOCK_STREAM, "b", "/run/app2");
        have(SOCK_STREAM, "c", longest);
        check_found(unix_path("/run/app"), 0);
        check_found(unix_path("/run/app2"), 1);
        check_found(unix_path(longest), 2);
        check_found(unix_path("/run/ap"), -ENOENT);
        check_found(unix_path("/run/app22"), -ENOENT);
        check_found(unix_path(CLUSTER_ADDRESS_INVALID), -ENOENT);
}

/* Whatever port the app has in mind. */
static void test_only_one(void **state) {
        have_nothing();
        have(SOCK_STREAM, "http", "80");
        check_found(tcp("", 3000), 0);
        check_found(tcp("127.0.0.1", 0), 0);
        check_found(udp("", 3000), -ENOENT);
        taken[0] = true;
        check_found(tcp("", 9000), -ENOENT); /* the next one it asks for is its own affair */
}

/* A unix socket beside it is another way to the same app. */
static void test_unix_beside_tcp(void **state) {
        have_nothing();
        have(SOCK_STREAM, "local", "/run/app");
        have(SOCK_STREAM, "http", "80");
        check_found(tcp("", 3000), 1);
        check_found(unix_path("/run/other"), 0);
        taken[1] = true;
        check_found(tcp("", 9000), -ENOENT);
}

/* With a unix socket alone that is what an app of a port gets; but no path is made open to the network. */
static void test_unix_for_tcp(void **state) {
        have_nothing();
        have(SOCK_STREAM, "local", "/run/app");
        check_found(tcp("", 3000), 0);
        check_found(udp("", 3000), -ENOENT);
        taken[0] = true;
        check_found(tcp("", 9000), -ENOENT);

        have_nothing();
        have(SOCK_STREAM, "http", "80");
        check_found(unix_path("/run/control"), -ENOENT);
}

/* Which of two is meant cannot be told. */
static void test_two_ports(void **state) {
        have_nothing();
        have(SOCK_STREAM, "http", "80");
        have(SOCK_STREAM, "https", "443");
        check_found(tcp("", 443), 1);
        check_found(tcp("", 3000), -ENOENT);
        taken[0] = true;
        check_found(tcp("", 3000), -ENOENT);

        have_nothing();
        have(SOCK_STREAM, "a", "/run/a");
        have(SOCK_STREAM, "b", "/run/b");
        check_found(tcp("", 3000), -ENOENT);
}

static void test_datagram(void **state) {
        have_nothing();
        have(SOCK_STREAM, "5353", "53");
        have(SOCK_DGRAM, "dns", "53");
        check_found(udp("", 53), 1);
        check_found(udp("", 5353), 1); /* the only one of its type, and not the stream of that name */
        check_found(tcp("", 53), 0);
        check_found(tcp("", 3000), 0);
        taken[1] = true;
        check_found(udp("", 53), -EADDRINUSE);
        check_found(udp("", 5354), -ENOENT);

        have_nothing();
        have(SOCK_DGRAM, "dns", "53");
        check_found(tcp("", 53), -ENOENT);
        check_found(unix_path("/run/app"), -ENOENT);
}

static void test_descriptor(void **state) {
        have_nothing();
        have(SOCK_STREAM, "http", "80");
        have(SOCK_DGRAM, "dns", "53");
        check_found(descriptor(3, false), 0);
        check_found(descriptor(4, true), 1);
        check_found(descriptor(4, false), -EINVAL);
        check_found(descriptor(3, true), -EINVAL);
        check_found(descriptor(2, false), -EBADF);
        check_found(descriptor(0, false), -EBADF);
        check_found(descriptor(5, false), -EBADF);
        check_found(descriptor(INT32_MAX, false), -EBADF);
        taken[0] = true;
        check_found(descriptor(3, false), -EADDRINUSE);
        check_found(descriptor(4, true), 1);
}

/*
 * Those that were not
 */

static char dir[] = "/tmp/test-cluster-find-XXXXXX";

static int setup(void **state) {
        return mkdtemp(dir) ? 0 : -1;
}

static int teardown(void **state) {
        return rmdir(dir);
}

static int bind_query(ClusterQuery q, int *ret_fd) {
        char *path = NULL;
        int r = cluster_bind(&q, ret_fd, &path);

        assert_null(path);
        return r;
}

static int bind_well(ClusterQuery q) {
        int fd = -EBADF;

        assert_int_equal(bind_query(q, &fd), 0);
        assert_true(fcntl(fd, F_GETFL) & O_NONBLOCK);
        assert_int_equal(fcntl(fd, F_GETFD), FD_CLOEXEC);
        return fd;
}

static void check_not_bound(ClusterQuery q, int error) {
        int fd = -EBADF;

        assert_int_equal(bind_query(q, &fd), error);
        assert_int_equal(fd, -EBADF);
}

static uint16_t port_of(int fd) {
        struct sockaddr_in6 in6; /* the port of both is in the same place */
        Address a;

        assert_int_equal(address_of_socket(fd, &a), 0);
        memcpy(&in6, &a.sockaddr, sizeof(in6));
        return ntohs(in6.sin6_port);
}

static void check_host(int fd, const char *host) {
        char text[ADDRESS_STRING_MAX], expected[ADDRESS_STRING_MAX];
        Address a;

        assert_int_equal(address_of_socket(fd, &a), 0);
        snprintf(expected, sizeof(expected), "%s:%u", host, port_of(fd));
        assert_string_equal(address_to_string(&a, text), expected);
}

static int option(int fd, int level, int name) {
        socklen_t size = sizeof(int);
        int value = -1;

        assert_int_equal(getsockopt(fd, level, name, &value, &size), 0);
        return value;
}

/* Whether somebody listens behind the address. */
static bool answers(const char *host, uint16_t port) {
        char text[ADDRESS_STRING_MAX];
        Address a;

        snprintf(text, sizeof(text), "%s:%u", host, port);
        assert_int_equal(address_parse(text, &a), 0);
        _cleanup_close_ int fd = socket(a.sockaddr.any.sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
        assert_true(fd >= 0);
        return connect(fd, &a.sockaddr.any, a.size) >= 0;
}

static bool has_ipv6(void) {
        Address a;
        int fd = -EBADF;

        assert_int_equal(address_parse("[::1]:0", &a), 0);
        bool has = bind_address(&a, &(BindOptions){ .type = SOCK_STREAM }, &fd) >= 0;
        safe_close(fd);
        return has;
}

/* listen(0): all addresses, of both protocols; a port of the kernel's. */
static void test_bind_port(void **state) {
        _cleanup_close_ int fd = bind_well(tcp("", 0));

        assert_true(port_of(fd) > 0);
        assert_int_equal(option(fd, SOL_SOCKET, SO_ACCEPTCONN), 1);
        assert_true(answers("127.0.0.1", port_of(fd)));
        if (!has_ipv6()) {
                check_host(fd, "0.0.0.0");
                return;
        }
        assert_int_equal(option(fd, IPPROTO_IPV6, IPV6_V6ONLY), 0);
        assert_true(answers("[::1]", port_of(fd)));
        check_not_bound(tcp("", port_of(fd)), -EADDRINUSE);
        check_not_bound(tcp("127.0.0.1", port_of(fd)), -EADDRINUSE);
}

static void test_bind_ipv4(void **state) {
        _cleanup_close_ int fd = bind_well(tcp("127.0.0.1", 0));

        check_host(fd, "127.0.0.1");
        assert_true(answers("127.0.0.1", port_of(fd)));
        assert_false(answers("127.0.0.2", port_of(fd)));
        safe_close(bind_well(tcp("127.0.0.2", port_of(fd)))); /* another address */
        check_not_bound(tcp("127.0.0.1", port_of(fd)), -EADDRINUSE);
}

static void test_bind_ipv6(void **state) {
        if (!has_ipv6())
                skip();

        _cleanup_close_ int fd = bind_well(tcp("::1", 0));
        check_host(fd, "[::1]");
        assert_true(answers("[::1]", port_of(fd)));
}

/* { host: '::' } is for both; { ipv6Only: true } leaves IPv4's port to others. */
static void test_bind_ipv6_only(void **state) {
        if (!has_ipv6())
                skip();

        ClusterQuery q = tcp("::", 0);
        _cleanup_close_ int both = bind_well(q);
        assert_true(answers("127.0.0.1", port_of(both)));

        q.ipv6_only = true;
        _cleanup_close_ int six = bind_well(q);
        assert_true(answers("[::1]", port_of(six)));
        assert_int_equal(option(six, IPPROTO_IPV6, IPV6_V6ONLY), 1);
}

/* Of a listening socket: the kernel tells it in a place that has another meaning otherwise. */
static unsigned backlog_of(int fd) {
        struct tcp_info info;
        socklen_t size = sizeof(info);

        assert_int_equal(getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &size), 0);
        return info.tcpi_sacked;
}

static void test_bind_backlog(void **state) {
        unsigned somaxconn = 4096;
        FILE *f = fopen("/proc/sys/net/core/somaxconn", "re");
        ClusterQuery q = tcp("127.0.0.1", 0);

        assert_non_null(f);
        assert_int_equal(fscanf(f, "%u", &somaxconn), 1);
        fclose(f);
        _cleanup_close_ int usual = bind_well(q);
        assert_int_equal(backlog_of(usual), MIN(511U, somaxconn));
        q.backlog = 7;
        _cleanup_close_ int short_one = bind_well(q);
        assert_int_equal(backlog_of(short_one), MIN(7U, somaxconn));
        q.backlog = INT32_MAX;
        _cleanup_close_ int long_one = bind_well(q);
        assert_int_equal(backlog_of(long_one), somaxconn);
}

/* Names are the worker's to resolve; what is none is no crash of the master's. */
static void test_bind_nonsense(void **state) {
        check_not_bound(tcp("localhost", 0), -EINVAL);
        check_not_bound(tcp("256.0.0.1", 0), -EINVAL);
        check_not_bound(tcp(":::1", 0), -EINVAL);
        check_not_bound(tcp(CLUSTER_ADDRESS_INVALID, 0), -EINVAL);
        check_not_bound(udp(CLUSTER_ADDRESS_INVALID, 0), -EINVAL);
        check_not_bound(unix_path(CLUSTER_ADDRESS_INVALID), -EINVAL);
        check_not_bound(unix_path("relative"), -EINVAL);
        check_not_bound(tcp("192.0.2.1", 0), -EADDRNOTAVAIL); /* nobody has that */
}

static int bind_path_well(const char *path) {
        ClusterQuery q = unix_path(path);
        char *unlink_path = NULL;
        int fd = -EBADF;

        assert_int_equal(cluster_bind(&q, &fd, &unlink_path), 0);
        assert_string_equal(unlink_path, path);
        free(unlink_path);
        assert_int_equal(option(fd, SOL_SOCKET, SO_ACCEPTCONN), 1);
        return fd;
}

/* The file of a socket that nobody listens on is a leftover; another one is somebody's. */
static void test_bind_path(void **state) {
        char path[64], longest[CLUSTER_ADDRESS_MAX];

        snprintf(path, sizeof(path), "%s/sock", dir);
        int fd = bind_path_well(path);
        check_not_bound(unix_path(path), -EADDRINUSE);
        close(fd); /* and nobody has removed the file */
        fd = bind_path_well(path);
        close(fd);
        assert_int_equal(unlink(path), 0);

        close(open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
        check_not_bound(unix_path(path), -EADDRINUSE);
        assert_int_equal(unlink(path), 0);
        assert_int_equal(symlink("/dev/null", path), 0);
        check_not_bound(unix_path(path), -EADDRINUSE);
        assert_int_equal(unlink(path), 0);

        memset(longest, 'x', sizeof(longest));
        longest[0] = '/';
        longest[sizeof(longest) - 1] = '\0';
        check_not_bound(unix_path(longest), -EINVAL);
        check_not_bound(unix_path("/nowhere/at/all"), -ENOENT);
}

static void test_bind_udp(void **state) {
        ClusterQuery q = udp("127.0.0.1", 0);
        _cleanup_close_ int fd = bind_well(q);

        assert_int_equal(option(fd, SOL_SOCKET, SO_TYPE), SOCK_DGRAM);
        assert_int_equal(option(fd, SOL_SOCKET, SO_REUSEADDR), 0);
        check_host(fd, "127.0.0.1");
        q.port = port_of(fd);
        check_not_bound(q, -EADDRINUSE);
        q.reuse_address = true; /* both have to want it */
        check_not_bound(q, -EADDRINUSE);

        q.port = 0;
        _cleanup_close_ int first = bind_well(q);
        q.port = port_of(first);
        _cleanup_close_ int second = bind_well(q);
        assert_int_equal(port_of(second), q.port);
}

/* bind() alone: Node says 0.0.0.0 or ::, and so do we where it says nothing. */
static void test_bind_udp_any(void **state) {
        _cleanup_close_ int four = bind_well(udp("", 0));

        check_host(four, "0.0.0.0");
        if (!has_ipv6())
                return;
        ClusterQuery q = udp("::", 0);
        _cleanup_close_ int six = bind_well(q);
        check_host(six, "[::]");
        assert_int_equal(option(six, IPPROTO_IPV6, IPV6_V6ONLY), 0);
        q.ipv6_only = true;
        _cleanup_close_ int only = bind_well(q);
        assert_int_equal(option(only, IPPROTO_IPV6, IPV6_V6ONLY), 1);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_nothing_passed),
                cmocka_unit_test(test_by_name),
                cmocka_unit_test(test_by_port),
                cmocka_unit_test(test_same_port_twice),
                cmocka_unit_test(test_by_path),
                cmocka_unit_test(test_only_one),
                cmocka_unit_test(test_unix_beside_tcp),
                cmocka_unit_test(test_unix_for_tcp),
                cmocka_unit_test(test_two_ports),
                cmocka_unit_test(test_datagram),
                cmocka_unit_test(test_descriptor),
                cmocka_unit_test(test_bind_port),
                cmocka_unit_test(test_bind_ipv4),
                cmocka_unit_test(test_bind_ipv6),
                cmocka_unit_test(test_bind_ipv6_only),
                cmocka_unit_test(test_bind_backlog),
                cmocka_unit_test(test_bind_nonsense),
                cmocka_unit_test(test_bind_path),
                cmocka_unit_test(test_bind_udp),
                cmocka_unit_test(test_bind_udp_any),
        };

        return cmocka_run_group_tests(tests, setup, teardown);
}
