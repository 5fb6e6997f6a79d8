/* SPDX-License-Identifier: MIT */
/* Headers of the PROXY protocol, version 2, as proxies send them and as they do not. */

#include "../unit.h"

#include <string.h>
#include <sys/socket.h>

#include "basic/macro.h"
#include "master/proxy-protocol.h"

#define SIGNATURE "\r\n\r\n\0\r\nQUIT\n"

/* 192.0.2.1 port 50000 to 198.51.100.7 port 443, and 2001:db8::1 port 1 to 2001:db8::2 port 65535. */
#define INET  "\xC0\x00\x02\x01\xC6\x33\x64\x07\xC3\x50\x01\xBB"
#define INET6 "\x20\x01\x0D\xB8\0\0\0\0\0\0\0\0\0\0\0\1\x20\x01\x0D\xB8\0\0\0\0\0\0\0\0\0\0\0\2\0\1\xFF\xFF"

/* A type that nobody knows, with two bytes. */
#define EXTRA "\xE0\x00\x02hi"

/* A header and what follows it, of a literal that may have NUL bytes in it. */
#define HEADER(text) (const uint8_t *) SIGNATURE text, sizeof(SIGNATURE text) - 1

static struct {
        int outcome;
        ProxyHeader header;
        size_t needed;
        char reason[PROXY_REASON_MAX];
} got;

static int parse(const uint8_t *bytes, size_t n) {
        memset(&got, 0xAA, sizeof(got));
        got.outcome = proxy_protocol_parse(bytes, n, &got.header, &got.needed, got.reason);
        return got.outcome;
}

static void assert_refused(const uint8_t *bytes, size_t n, const char *reason) {
        assert_int_equal(parse(bytes, n), PROXY_PROTOCOL_INVALID);
        assert_string_equal(got.reason, reason);
}

static void assert_unspecified(size_t length) {
        assert_int_equal(got.header.length, length);
        assert_int_equal(got.header.family, AF_UNSPEC);
        assert_int_equal(got.header.source_size, 0);
        assert_int_equal(got.header.source_port, 0);
}

/* The client's address and port, not the proxy's; what follows the header is none of its business. */
static void test_addresses(void **state) {
        assert_int_equal(parse(HEADER("\x21\x11\x00\x0C" INET "GET / HTTP/1.1\r\n")), 0);
        assert_int_equal(got.header.length, 28);
        assert_int_equal(got.header.command, PROXY_COMMAND_PROXY);
        assert_int_equal(got.header.family, AF_INET);
        assert_int_equal(got.header.source_size, 4);
        assert_memory_equal(got.header.source, "\xC0\x00\x02\x01", 4);
        assert_int_equal(got.header.source_port, 50000);

        assert_int_equal(parse(HEADER("\x21\x21\x00\x24" INET6)), 0);
        assert_int_equal(got.header.length, 52);
        assert_int_equal(got.header.family, AF_INET6);
        assert_int_equal(got.header.source_size, 16);
        assert_memory_equal(got.header.source, "\x20\x01\x0D\xB8\0\0\0\0\0\0\0\0\0\0\0\1", 16);
        assert_int_equal(got.header.source_port, 1);

        assert_int_equal(parse(HEADER("\x21\x12\x00\x0C" INET)), 0); /* a datagram's */
        assert_int_equal(got.header.family, AF_INET);
}

/* A path has all of its place, with zeros behind it. */
static void test_unix(void **state) {
        uint8_t bytes[PROXY_PROTOCOL_FIXED + 2 * PROXY_ADDRESS_MAX] =
                        SIGNATURE "\x21\x31\x00\xD8/run/client";

        assert_int_equal(parse(bytes, sizeof(bytes)), 0);
        assert_int_equal(got.header.length, sizeof(bytes));
        assert_int_equal(got.header.family, AF_UNIX);
        assert_int_equal(got.header.source_size, PROXY_ADDRESS_MAX);
        assert_memory_equal(got.header.source, bytes + PROXY_PROTOCOL_FIXED, PROXY_ADDRESS_MAX);
        assert_int_equal(got.header.source_port, 0);
}

/* What the proxy adds is skipped, known or not. */
static void test_extra(void **state) {
        assert_int_equal(parse(HEADER("\x21\x11\x00\x11" INET EXTRA "x")), 0);
        assert_int_equal(got.header.length, 33);
        assert_int_equal(got.header.source_port, 50000);
}

/* A health check of the proxy: no client, whatever the header has in the place of addresses. */
static void test_local(void **state) {
        assert_int_equal(parse(HEADER("\x20\x00\x00\x00")), 0);
        assert_int_equal(got.header.command, PROXY_COMMAND_LOCAL);
        assert_unspecified(16);
        assert_int_equal(parse(HEADER("\x20\x11\x00\x0C" INET)), 0);
        assert_unspecified(28);
        assert_int_equal(parse(HEADER("\x20\xFF\x00\x02" INET)), 0); /* an invalid family is ignored too */
        assert_unspecified(18);
}

/* A client of whom the proxy knows nothing: the connection is good. */
static void test_unspecified(void **state) {
        static const char families[] = { 0x00, 0x01, 0x10, 0x20, 0x30 };

        for (size_t i = 0; i < ELEMENTSOF(families); i++) {
                uint8_t bytes[] = SIGNATURE "\x21?\x00\x05" EXTRA;

                bytes[13] = (uint8_t) families[i];
                assert_int_equal(parse(bytes, sizeof(bytes) - 1), 0);
                assert_int_equal(got.header.command, PROXY_COMMAND_PROXY);
                assert_unspecified(21);
        }
}

/* As long as it may still become a header it is waited for, and what is needed is said as soon as it is
 * known. */
static void test_incomplete(void **state) {
        static const uint8_t bytes[] = SIGNATURE "\x21\x11\x00\x11" INET EXTRA;

        for (size_t n = 0; n < sizeof(bytes) - 1; n++) {
                assert_int_equal(parse(n > 0 ? bytes : NULL, n), PROXY_PROTOCOL_INCOMPLETE);
                assert_int_equal(got.needed, n < 16 ? 16 : 33);
        }
        assert_int_equal(parse(bytes, sizeof(bytes) - 1), 0);
}

/* The limit is for the whole header, and is told before the header has come. */
static void test_longest(void **state) {
        assert_int_equal(parse(HEADER("\x21\x11\x0F\xF0")), PROXY_PROTOCOL_INCOMPLETE);
        assert_int_equal(got.needed, PROXY_PROTOCOL_MAX);
        assert_refused(HEADER("\x21\x11\x0F\xF1"),
                        "bytes 15, 16: found a length of 4081, expected at most 4080");
        assert_refused(HEADER("\x20\x00\xFF\xFF"),
                        "bytes 15, 16: found a length of 65535, expected at most 4080");
}

/* Another protocol is recognised by its first wrong byte. */
static void test_other_protocol(void **state) {
        assert_refused((const uint8_t *) "GET / HTTP/1.1", 1,
                        "byte 1: found 0x47, expected 0x0d of the header's signature");
        assert_refused((const uint8_t *) "\r\nGET", 5,
                        "byte 3: found 0x47, expected 0x0d of the header's signature");
        assert_refused((const uint8_t *) "\r\n\r\n\0\r\nQUIT\r", 12,
                        "byte 12: found 0x0d, expected 0x0a of the header's signature");
        assert_refused((const uint8_t *) "PROXY TCP4 192.0.2.1", 20,
                        "found a header of version 1 (text), expected version 2 (binary)");
}

/* What the specification does not define is refused, as it asks for. */
static void test_undefined(void **state) {
        assert_refused(HEADER("\x11\x11\x00\x0C" INET), "byte 13: found version 1, expected 2");
        assert_refused(HEADER("\x31\x11\x00\x0C" INET), "byte 13: found version 3, expected 2");
        assert_refused(HEADER("\x22\x11\x00\x0C" INET),
                        "byte 13: found command 2, expected 0 (LOCAL) or 1 (PROXY)");
        assert_refused(HEADER("\x21\x41\x00\x0C" INET),
                        "byte 14: found family 4, protocol 1, expected at most 3 and 2");
        assert_refused(HEADER("\x21\x03\x00\x0C" INET),
                        "byte 14: found family 0, protocol 3, expected at most 3 and 2");
}

/* Addresses that do not fit into the header are not looked for behind it. */
static void test_short_addresses(void **state) {
        assert_refused(HEADER("\x21\x11\x00\x0B" INET),
                        "bytes 15, 16: found a length of 11, expected at least 12");
        assert_refused(HEADER("\x21\x21\x00\x23" INET6),
                        "bytes 15, 16: found a length of 35, expected at least 36");
        assert_refused(HEADER("\x21\x31\x00\xD7"),
                        "bytes 15, 16: found a length of 215, expected at least 216");
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_addresses),
                cmocka_unit_test(test_unix),
                cmocka_unit_test(test_extra),
                cmocka_unit_test(test_local),
                cmocka_unit_test(test_unspecified),
                cmocka_unit_test(test_incomplete),
                cmocka_unit_test(test_longest),
                cmocka_unit_test(test_other_protocol),
                cmocka_unit_test(test_undefined),
                cmocka_unit_test(test_short_addresses),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
