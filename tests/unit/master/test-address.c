/* SPDX-License-Identifier: MIT */
/* Addresses as people write them, and back. */

#include "../unit.h"

#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "basic/fd.h"
#include "basic/macro.h"
#include "master/address.h"

/* Every form that is taken comes back as it was written; a port alone is the IPv6 wildcard. */
static void test_round_trip(void **state) {
        static const struct {
                const char *in, *out;
                int family;
                bool wildcard;
        } cases[] = {
                { "8080", "[::]:8080", AF_INET6, true },
                { "0", "[::]:0", AF_INET6, true },
                { "65535", "[::]:65535", AF_INET6, true },
                { "127.0.0.1:80", "127.0.0.1:80", AF_INET, false },
                { "0.0.0.0:0", "0.0.0.0:0", AF_INET, false },
                { "[::1]:8080", "[::1]:8080", AF_INET6, false },
                { "[::]:8080", "[::]:8080", AF_INET6, false },
                { "[2001:db8:0:0::7]:1", "[2001:db8::7]:1", AF_INET6, false },
                { "[::ffff:127.0.0.1]:1", "[::ffff:127.0.0.1]:1", AF_INET6, false },
                { "/run/app.sock", "/run/app.sock", AF_UNIX, false },
                { "/", "/", AF_UNIX, false },
        };

        for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
                char buf[ADDRESS_STRING_MAX];
                Address a;

                assert_int_equal(address_parse(cases[i].in, &a), 0);
                assert_string_equal(address_to_string(&a, buf), cases[i].out);
                assert_int_equal(a.sockaddr.any.sa_family, cases[i].family);
                assert_int_equal(a.wildcard, cases[i].wildcard);
        }
}

/* Nothing is guessed or looked up: names, missing brackets, signs, ports out of range are refused. */
static void test_refused(void **state) {
        static const char *const cases[] = {
                "",
                ":",
                "x",
                "http",
                "localhost:80",
                "65536",
                "-1",
                "+80",
                "80 ",
                " 80",
                "8080x",
                "99999999999999999999",
                "127.0.0.1",
                "127.0.0.1:",
                "127.0.0.1:65536",
                "127.0.0.1:x",
                "127.1:80",
                "256.0.0.1:80",
                "127.0.0.1:80:80",
                "::1:80",
                "[::1]",
                "[::1]:",
                "[::1]80",
                "[::1:80",
                "[]:80",
                "[127.0.0.1]:80",
                "[fe80::1%lo]:80",
                "*:80",
                ":80",
                "@abstract",
                "run/app.sock",
        };
        char long_text[200];
        Address a = { .size = 12345 };

        for (size_t i = 0; i < ELEMENTSOF(cases); i++)
                if (address_parse(cases[i], &a) != -EINVAL)
                        fail_msg("\"%s\" is taken", cases[i]);
        memset(long_text, '1', sizeof(long_text) - 1);
        long_text[sizeof(long_text) - 1] = '\0';
        assert_int_equal(address_parse(long_text, &a), -EINVAL);
        assert_int_equal(a.size, 12345);
}

/* A path of a socket has at most 107 bytes; one more is refused and not cut. */
static void test_longest_path(void **state) {
        char path[109], buf[ADDRESS_STRING_MAX];
        Address a;

        memset(path, 'x', sizeof(path));
        path[0] = '/';
        path[107] = '\0';
        assert_int_equal(address_parse(path, &a), 0);
        assert_string_equal(address_to_string(&a, buf), path);
        path[107] = 'x';
        path[108] = '\0';
        assert_int_equal(address_parse(path, &a), -EINVAL);
}

/* What the kernel says of a socket is printed in the same forms, unnamed and abstract ones too. */
static void test_of_socket(void **state) {
        char buf[ADDRESS_STRING_MAX], expected[ADDRESS_STRING_MAX];
        struct sockaddr_un un = { .sun_family = AF_UNIX };
        Address a;

        _cleanup_close_ int unnamed = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        assert_int_equal(address_of_socket(unnamed, &a), 0);
        assert_string_equal(address_to_string(&a, buf), "unix");

        _cleanup_close_ int abstract = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        int n = snprintf(un.sun_path + 1, sizeof(un.sun_path) - 1, "test-address-%d", getpid());
        assert_int_equal(bind(abstract, (struct sockaddr *) &un,
                                         (socklen_t) offsetof(struct sockaddr_un, sun_path) + 1 +
                                                         (socklen_t) n),
                        0);
        assert_int_equal(address_of_socket(abstract, &a), 0);
        snprintf(expected, sizeof(expected), "@test-address-%d", getpid());
        assert_string_equal(address_to_string(&a, buf), expected);

        struct sockaddr_in in = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
        socklen_t size = sizeof(in);
        _cleanup_close_ int tcp = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        assert_int_equal(bind(tcp, (struct sockaddr *) &in, size), 0);
        assert_int_equal(getsockname(tcp, (struct sockaddr *) &in, &size), 0);
        assert_int_equal(address_of_socket(tcp, &a), 0);
        snprintf(expected, sizeof(expected), "127.0.0.1:%u", ntohs(in.sin_port));
        assert_string_equal(address_to_string(&a, buf), expected);

        assert_int_equal(address_of_socket(-EBADF, &a), -EBADF);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_round_trip),
                cmocka_unit_test(test_refused),
                cmocka_unit_test(test_longest_path),
                cmocka_unit_test(test_of_socket),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
