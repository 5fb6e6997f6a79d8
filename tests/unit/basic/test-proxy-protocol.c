/* SPDX-License-Identifier: MIT */
/* Headers of the PROXY protocol, both versions, as proxies send them and as they do not. */

#include "../unit.h"

#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "basic/macro.h"
#include "basic/proxy-protocol.h"

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
        assert_int_equal(got.header.source.family, AF_UNSPEC);
        assert_int_equal(got.header.source.port, 0);
        assert_int_equal(got.header.destination.family, AF_UNSPEC);
        assert_int_equal(got.header.destination.port, 0);
}

static void assert_address(const ProxyAddress *a, int family, const char *bytes, unsigned port) {
        assert_int_equal(a->family, family);
        assert_memory_equal(a->bytes, bytes, family == AF_INET ? 4 : 16);
        assert_int_equal(a->port, port);
}

static int parse_text(const char *text) {
        return parse((const uint8_t *) text, strlen(text));
}

static void assert_refused_text(const char *text, const char *reason) {
        assert_refused((const uint8_t *) text, strlen(text), reason);
}

/* The client's address and port, not the proxy's; what follows the header is none of its business. */
static void test_addresses(void **state) {
        assert_int_equal(parse(HEADER("\x21\x11\x00\x0C" INET "GET / HTTP/1.1\r\n")), 0);
        assert_int_equal(got.header.length, 28);
        assert_int_equal(got.header.command, PROXY_COMMAND_PROXY);
        assert_address(&got.header.source, AF_INET, "\xC0\x00\x02\x01", 50000);
        assert_address(&got.header.destination, AF_INET, "\xC6\x33\x64\x07", 443);

        assert_int_equal(parse(HEADER("\x21\x21\x00\x24" INET6)), 0);
        assert_int_equal(got.header.length, 52);
        assert_address(&got.header.source, AF_INET6, INET6, 1);
        assert_address(&got.header.destination, AF_INET6, &INET6[16], 65535);

        assert_int_equal(parse(HEADER("\x21\x12\x00\x0C" INET)), 0); /* a datagram's */
        assert_int_equal(got.header.source.family, AF_INET);
}

/* A path has all of its place, with zeros behind it. */
static void test_unix(void **state) {
        uint8_t bytes[PROXY_PROTOCOL_FIXED + 2 * PROXY_PATH_MAX] = SIGNATURE "\x21\x31\x00\xD8/run/client";

        assert_int_equal(parse(bytes, sizeof(bytes)), 0);
        assert_int_equal(got.header.length, sizeof(bytes));
        assert_int_equal(got.header.source.family, AF_UNIX);
        assert_memory_equal(got.header.path, bytes + PROXY_PROTOCOL_FIXED, PROXY_PATH_MAX);
        assert_int_equal(got.header.source.port, 0);
}

/* What the proxy adds is to be skipped, known or not, and need not be there for that. */
static void test_extra(void **state) {
        assert_int_equal(parse(HEADER("\x21\x11\x00\x11" INET EXTRA "x")), 0);
        assert_int_equal(got.header.length, 33);
        assert_int_equal(got.header.source.port, 50000);
        assert_int_equal(parse(HEADER("\x21\x11\xFF\xFF" INET)), 0);
        assert_int_equal(got.header.length, PROXY_PROTOCOL_LENGTH_MAX);
        assert_int_equal(got.header.source.port, 50000);
        assert_int_equal(parse(HEADER("\x20\x00\xFF\xFF")), 0);
        assert_unspecified(PROXY_PROTOCOL_LENGTH_MAX);
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
        static const uint8_t bytes[] = SIGNATURE "\x21\x11\x00\x11" INET;

        for (size_t n = 0; n < sizeof(bytes) - 1; n++) {
                assert_int_equal(parse(n > 0 ? bytes : NULL, n), PROXY_PROTOCOL_MORE);
                assert_int_equal(got.needed, n == 0 ? 15 : n < 16 ? 16 : 28);
        }
        assert_int_equal(parse(bytes, sizeof(bytes) - 1), 0);
}

/* Another protocol is recognised by its first wrong byte. */
static void test_other_protocol(void **state) {
        assert_refused((const uint8_t *) "GET / HTTP/1.1", 1,
                        "byte 1: found 0x47, expected 0x0d of the header's signature");
        assert_refused((const uint8_t *) "\r\nGET", 5,
                        "byte 3: found 0x47, expected 0x0d of the header's signature");
        assert_refused((const uint8_t *) "\r\n\r\n\0\r\nQUIT\r", 12,
                        "byte 12: found 0x0d, expected 0x0a of the header's signature");
        assert_refused_text(
                        "POST / HTTP/1.1", "found a \"P\", and no header of version 1 that begins with it");
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

/* A line, and what follows it. */
static void test_line(void **state) {
        assert_int_equal(parse_text("PROXY TCP4 192.0.2.1 198.51.100.7 50000 443\r\nGET / HTTP/1.1\r\n"), 0);
        assert_int_equal(got.header.length, 45);
        assert_int_equal(got.header.command, PROXY_COMMAND_PROXY);
        assert_address(&got.header.source, AF_INET, "\xC0\x00\x02\x01", 50000);
        assert_address(&got.header.destination, AF_INET, "\xC6\x33\x64\x07", 443);

        assert_int_equal(parse_text("PROXY TCP6 2001:db8::1 2001:DB8:0:0:0:0:0:2 1 65535\r\n"), 0);
        assert_int_equal(got.header.length, 53);
        assert_address(&got.header.source, AF_INET6, INET6, 1);
        assert_address(&got.header.destination, AF_INET6, &INET6[16], 65535);

        assert_int_equal(parse_text("PROXY TCP4 255.255.255.255 0.0.0.0 0 65535\r\n"), 0);
        assert_address(&got.header.source, AF_INET, "\xFF\xFF\xFF\xFF", 0);
}

/* Nothing is known of the client, whatever stands there. */
static void test_unknown(void **state) {
        static const char all_of_it[] = "PROXY UNKNOWN ffff:f...f:ffff ffff:f...f:ffff 65535 65535\r\n";

        assert_int_equal(parse_text("PROXY UNKNOWN\r\nGET"), 0);
        assert_int_equal(got.header.command, PROXY_COMMAND_PROXY);
        assert_unspecified(15);
        assert_int_equal(parse_text(all_of_it), 0);
        assert_unspecified(strlen(all_of_it));
        assert_int_equal(parse_text("PROXY UNKNOWN  \x01\xFF  \r\n"), 0);
        assert_unspecified(21);
        assert_refused_text("PROXY UNKNOWN2 \r\n",
                        "found no protocol behind PROXY, expected TCP4, TCP6 or UNKNOWN");
}

/* Byte by byte nobody who reads no more than is needed takes a byte of what follows. */
static void test_incomplete_line(void **state) {
        static const char text[] = "PROXY TCP4 1.2.3.4 5.6.7.8 9 0\r\n";
        size_t n = strlen(text), last = 0;

        for (size_t i = 0; i < n; i++) {
                assert_int_equal(parse((const uint8_t *) text, i), PROXY_PROTOCOL_MORE);
                assert_true(got.needed > i && got.needed <= n && got.needed >= last);
                last = got.needed;
        }
        assert_int_equal(last, n);
        assert_int_equal(parse_text(text), 0);
        for (size_t i = 6; i <= 15; i++) {
                assert_int_equal(parse((const uint8_t *) "PROXY UNKNOWN\r\n", i),
                                i < 15 ? PROXY_PROTOCOL_MORE : PROXY_PROTOCOL_DONE);
                assert_true(i == 15 || got.needed == 15);
        }
}

/* 107 bytes with the end of the line, not one more, and that is told before it has come. */
static void test_longest_line(void **state) {
        char text[108 + 1] = "PROXY UNKNOWN ";

        memset(text + 14, 'x', sizeof(text) - 15);
        memcpy(text + 105, "\r\n", 2);
        text[107] = '\0';
        assert_int_equal(parse_text(text), 0);
        assert_unspecified(107);
        assert_int_equal(parse((const uint8_t *) text, 106), PROXY_PROTOCOL_MORE);
        assert_int_equal(got.needed, 107);

        memcpy(text + 105, "x\r\n", 4);
        assert_refused_text(text, "found no end of the line within 107 bytes");
        assert_int_equal(parse((const uint8_t *) text, 105), PROXY_PROTOCOL_MORE);
        assert_refused((const uint8_t *) text, 106, "found no end of the line within 107 bytes");
}

/* Exactly as it is written down: what could be read in two ways is refused. */
static void test_strict_line(void **state) {
        static const char source4[] = "the source's address is none of TCP4";
        static const char source6[] = "the source's address is none of TCP6";
        static const char ports[] = "found no two ports behind the addresses";
        static const struct {
                const char *text;
                const char *reason;
        } cases[] = {
                { "PROXY TCP5 1.2.3.4 5.6.7.8 9 10\r\n",
                                "found another protocol behind PROXY than TCP4, TCP6 or UNKNOWN" },
                { "PROXY tcp4 1.2.3.4 5.6.7.8 9 10\r\n",
                                "found another protocol behind PROXY than TCP4, TCP6 or UNKNOWN" },
                { "PROXY  TCP4 1.2.3.4 5.6.7.8 9 10\r\n",
                                "found no protocol behind PROXY, expected TCP4, TCP6 or UNKNOWN" },
                { "PROXY\r\n", "found a \"P\", and no header of version 1 that begins with it" },
                { "PROXY TCP4\r\n", "found a line that ends too early" },
                { "PROXY TCP4 1.2\r\n", source4 },
                { "PROXY TCP4  1.2.3.4 5.6.7.8 9 10\r\n", source4 },
                { "PROXY TCP4 1.2.3.04 5.6.7.8 9 10\r\n", source4 },
                { "PROXY TCP4 1.2.3.256 5.6.7.8 9 10\r\n", source4 },
                { "PROXY TCP4 1.2.3.4.5 5.6.7.8 9 10\r\n", source4 },
                { "PROXY TCP4 ::1 5.6.7.8 9 10\r\n", source4 },
                { "PROXY TCP4 1.2.3.4 ::1 9 10\r\n", "the destination's address is none of TCP4" },
                { "PROXY TCP6 1.2.3.4 ::1 9 10\r\n", source6 },
                { "PROXY TCP6 ::1%lo ::1 9 10\r\n", source6 },
                { "PROXY TCP6 [::1] ::1 9 10\r\n", source6 },
                { "PROXY TCP6 00000:0000:0000:0000:0000:0000:0000:0000 ::1 9 10\r\n", source6 },
                { "PROXY TCP4 1.2.3.4 5.6.7.8\r\n", ports },
                { "PROXY TCP4 1.2.3.4 5.6.7.8 9\r\n", ports },
                { "PROXY TCP4 1.2.3.4 5.6.7.8 09 10\r\n", ports },
                { "PROXY TCP4 1.2.3.4 5.6.7.8 +9 10\r\n", ports },
                { "PROXY TCP4 1.2.3.4 5.6.7.8 9 65536\r\n", ports },
                { "PROXY TCP4 1.2.3.4 5.6.7.8 9 100000\r\n", ports },
                { "PROXY TCP4 1.2.3.4 5.6.7.8 9\t10\r\n", ports },
                { "PROXY TCP4 1.2.3.4 5.6.7.8 9 10 \r\n",
                                "found something behind the ports, expected the end of the line" },
                { "PROXY TCP4 1.2.3.4 5.6.7.8 9 10 11\r\n",
                                "found something behind the ports, expected the end of the line" },
                { "PROXY TCP4 1.2.3.4 5.6.7.8 9 10\n", "found another end of the line than CR and LF" },
                { "PROXY TCP4 1.2.3.4\r5.6.7.8 9 10\r\n", "found another end of the line than CR and LF" },
        };

        for (size_t i = 0; i < ELEMENTSOF(cases); i++)
                assert_refused_text(cases[i].text, cases[i].reason);
        assert_refused((const uint8_t *) "PROXY TCP4 1.2.3.4\0 5.6.7.8 9 10\r\n", 34, source4);
}

/* To the system's form and back. */
static void test_sockaddr(void **state) {
        const struct sockaddr_un *un;
        const struct sockaddr_in *in;
        struct sockaddr_storage storage;
        ProxyAddress back;

        assert_true(sizeof(ProxyAddress) <= 32);
        assert_int_equal(parse(HEADER("\x21\x11\x00\x0C" INET)), 0);
        assert_int_equal(
                        proxy_address_to_sockaddr(&got.header.source, &storage), sizeof(struct sockaddr_in));
        in = (const struct sockaddr_in *) &storage;
        assert_int_equal(ntohl(in->sin_addr.s_addr), 0xC0000201);
        assert_int_equal(ntohs(in->sin_port), 50000);
        proxy_address_from_sockaddr(&storage, &back);
        assert_memory_equal(&back, &got.header.source, sizeof(back));

        assert_int_equal(parse(HEADER("\x21\x21\x00\x24" INET6)), 0);
        assert_int_equal(proxy_address_to_sockaddr(&got.header.source, &storage),
                        sizeof(struct sockaddr_in6));
        proxy_address_from_sockaddr(&storage, &back);
        assert_memory_equal(&back, &got.header.source, sizeof(back));

        un = (const struct sockaddr_un *) &storage;
        assert_int_equal(proxy_address_to_sockaddr(&(ProxyAddress){ .family = AF_UNIX }, &storage),
                        offsetof(struct sockaddr_un, sun_path));
        assert_int_equal(un->sun_family, AF_UNIX);
        storage.ss_family = AF_NETLINK;
        proxy_address_from_sockaddr(&storage, &back);
        assert_int_equal(back.family, AF_UNSPEC);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_addresses),
                cmocka_unit_test(test_unix),
                cmocka_unit_test(test_extra),
                cmocka_unit_test(test_local),
                cmocka_unit_test(test_unspecified),
                cmocka_unit_test(test_incomplete),
                cmocka_unit_test(test_other_protocol),
                cmocka_unit_test(test_undefined),
                cmocka_unit_test(test_short_addresses),
                cmocka_unit_test(test_line),
                cmocka_unit_test(test_unknown),
                cmocka_unit_test(test_incomplete_line),
                cmocka_unit_test(test_longest_line),
                cmocka_unit_test(test_strict_line),
                cmocka_unit_test(test_sockaddr),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
