/* SPDX-License-Identifier: MIT */
/* What the lines of a channel mean. */

#include "../unit.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "basic/macro.h"
#include "ipc/wire.h"
#include "muster/channel.h"

#define ENVELOPE(type, msg) "{\"cmd\":\"NODE_HANDLE\",\"type\":\"" type "\",\"msg\":" msg "}"

static WireLine parse(const char *line) {
        WireLine w;

        assert_int_equal(wire_parse(line, strlen(line), &w), 0);
        return w;
}

static void check_line(
                const char *line, WireKind kind, const char *message, bool internal, int handle_type) {
        WireLine w = parse(line);

        assert_int_equal(w.kind, kind);
        assert_int_equal(w.internal, internal);
        assert_int_equal(w.handle_type, handle_type);
        assert_int_equal(w.message.n, strlen(message));
        assert_memory_equal(w.message.p, message, w.message.n);
        if (w.kind != WIRE_HANDLE)
                assert_ptr_equal(w.message.p, line);
}

static void check_plain(const char *line, bool internal) {
        check_line(line, WIRE_MESSAGE, line, internal, MUSTER_HANDLE_NONE);
}

/* Any JSON value is a message, and all of its line. */
static void test_messages(void **state) {
        check_plain("\"ready\"", false);
        check_plain("null", false);
        check_plain("-1.5", false);
        check_plain("[]", false);
        check_plain("{}", false);
        check_plain(" {\"a\":1} ", false);
        check_plain("{\"type\":\"net.Socket\",\"msg\":1}", false);
        check_plain("{\"cmd\":\"start\"}", false);
        check_plain("{\"cmd\":{\"cmd\":\"NODE_HANDLE\"}}", false);
        check_plain("{\"x\":{\"cmd\":\"NODE_HANDLE\"}}", false);
        check_plain("[{\"cmd\":\"NODE_HANDLE\"}]", false);
        check_plain("\"NODE_HANDLE\"", false);
}

/* Node's own is an object whose "cmd" is a string that begins with NODE_ and is longer. */
static void test_internal(void **state) {
        check_plain("{\"cmd\":\"NODE_X\"}", true);
        check_plain("{\"cmd\":\"NODE_CLUSTER\",\"act\":\"online\",\"seq\":0}", true);
        check_plain("{\"cmd\":\"NODE_HANDLE_\"}", true);
        check_plain("{\"cmd\":\"NODE_HANDLE_ACKS\"}", true);
        check_plain("{\"cmd\":\"other\",\"cmd\":\"NODE_X\"}", true);
        check_plain("{ \"cmd\" : \"NODE_X\" }", true);
        check_plain("{\"cmd\":\"NODE_\\u0041\"}", true);
        check_plain("{\"cmd\":\"NODE_\"}", false);
        check_plain("{\"cmd\":\"NODE\"}", false);
        check_plain("{\"cmd\":\"node_x\"}", false);
        check_plain("{\"cmd\":\" NODE_X\"}", false);
        check_plain("{\"cmd\":[\"NODE_X\"]}", false);
        check_plain("{\"cmd\":null}", false);
        check_plain("{\"cmd\":\"NODE_X\",\"cmd\":\"other\"}", false);
        check_plain("{\"CMD\":\"NODE_X\"}", false);
}

static void test_acknowledgements(void **state) {
        static const char ack[] = "{\"cmd\":\"NODE_HANDLE_ACK\"}", nack[] = "{\"cmd\":\"NODE_HANDLE_NACK\"}";

        check_line(ack, WIRE_ACK, ack, true, MUSTER_HANDLE_NONE);
        check_line(nack, WIRE_NACK, nack, true, MUSTER_HANDLE_NONE);
        assert_string_equal(WIRE_ACK_LINE, "{\"cmd\":\"NODE_HANDLE_ACK\"}\n");
        assert_string_equal(WIRE_NACK_LINE, "{\"cmd\":\"NODE_HANDLE_NACK\"}\n");
}

/* As Node 20 writes them. */
static void test_envelopes_of_node(void **state) {
        static const char reply[] =
                        "{\"cmd\":\"NODE_CLUSTER\",\"errno\":null,\"key\":\"null:3000:4::0\",\"ack\":1,"
                        "\"data\":null,\"seq\":1}";
        char line[256];

        snprintf(line, sizeof(line), ENVELOPE("net.Native", "%s"), reply);
        check_line(line, WIRE_HANDLE, reply, true, MUSTER_HANDLE_NET_NATIVE);
        check_line(ENVELOPE("net.Socket", "{\"hello\":1},\"key\":\"6::::0:3000\""), WIRE_HANDLE,
                        "{\"hello\":1}", false, MUSTER_HANDLE_NET_SOCKET);
        check_line(ENVELOPE("net.Server", "\"server\""), WIRE_HANDLE, "\"server\"", false,
                        MUSTER_HANDLE_NET_SERVER);
        check_line(ENVELOPE("dgram.Socket", "[1],\"dgramType\":\"udp4\""), WIRE_HANDLE, "[1]", false,
                        MUSTER_HANDLE_DGRAM_SOCKET);
        check_line(ENVELOPE("dgram.Native", "{}"), WIRE_HANDLE, "{}", false, MUSTER_HANDLE_DGRAM_NATIVE);
}

static void test_odd_envelopes(void **state) {
        check_line(ENVELOPE("tls.Socket", "1"), WIRE_HANDLE, "1", false, MUSTER_HANDLE_OTHER);
        check_line("{\"cmd\":\"NODE_HANDLE\",\"msg\":1}", WIRE_HANDLE, "1", false, MUSTER_HANDLE_OTHER);
        check_line("{\"cmd\":\"NODE_HANDLE\",\"type\":1,\"msg\":1}", WIRE_HANDLE, "1", false,
                        MUSTER_HANDLE_OTHER);
        check_line("{\"msg\":2,\"type\":\"net.Socket\",\"msg\":3,\"cmd\":\"NODE_HANDLE\"}", WIRE_HANDLE, "3",
                        false, MUSTER_HANDLE_NET_SOCKET);
        check_line(" { \"cmd\" : \"NODE_HANDLE\" , \"msg\" : [ 1 , 2 ] , \"type\":\"net.Server\" } ",
                        WIRE_HANDLE, "[ 1 , 2 ]", false, MUSTER_HANDLE_NET_SERVER);
        /* An envelope in one is a message, and Node's own. */
        check_line(ENVELOPE("net.Socket", "{\"cmd\":\"NODE_HANDLE\",\"msg\":1}"), WIRE_HANDLE,
                        "{\"cmd\":\"NODE_HANDLE\",\"msg\":1}", true, MUSTER_HANDLE_NET_SOCKET);
        /* The envelope's own name makes nothing of what is in it. */
        check_line(ENVELOPE("net.Socket", "{\"a\":{\"cmd\":\"NODE_X\"}}"), WIRE_HANDLE,
                        "{\"a\":{\"cmd\":\"NODE_X\"}}", false, MUSTER_HANDLE_NET_SOCKET);
}

/* JSON.stringify() leaves out what is undefined. */
static void test_envelope_without_message(void **state) {
        check_line("{\"cmd\":\"NODE_HANDLE\",\"type\":\"net.Socket\"}", WIRE_HANDLE, "null", false,
                        MUSTER_HANDLE_NET_SOCKET);
        check_line("{\"cmd\":\"NODE_HANDLE\",\"type\":\"net.Native\",\"msg\":null}", WIRE_HANDLE, "null",
                        false, MUSTER_HANDLE_NET_NATIVE);
}

static void test_not_json(void **state) {
        static const char *const lines[] = { "", " ", "hello", "{", "{\"cmd\":\"NODE_HANDLE\"",
                "{\"cmd\":NODE_HANDLE}", "{\"cmd\":\"NODE_HANDLE_ACK\"}}",
                "{\"cmd\":\"NODE_HANDLE\",\"msg\":}", "\"\xFF\"", "\x02{\"cmd\":\"NODE_CLUSTER\"}" };
        WireLine w;

        for (size_t i = 0; i < ELEMENTSOF(lines); i++)
                assert_int_equal(wire_parse(lines[i], strlen(lines[i]), &w), -EBADMSG);
        assert_int_equal(wire_parse("1\0", 2, &w), -EBADMSG);
        assert_int_equal(wire_parse("\"a\nb\"", 5, &w), -EBADMSG);
}

static int parse_deep(const char *head, size_t depth, const char *tail) {
        static char line[3 * JSON_DEPTH_MAX];
        WireLine w;
        size_t n = strlen(head);

        memcpy(line, head, n);
        memset(line + n, '[', depth);
        memset(line + n + depth, ']', depth);
        memcpy(line + n + 2 * depth, tail, strlen(tail));
        return wire_parse(line, n + 2 * depth + strlen(tail), &w);
}

/* An envelope takes nothing from the depth of its message, and no other line may be deeper than a message.
 */
static void test_depth(void **state) {
        WireEnvelope e = wire_envelope(MUSTER_HANDLE_NET_SOCKET, false);

        assert_int_equal(parse_deep(e.head, JSON_DEPTH_MAX, e.tail), 0);
        assert_int_equal(parse_deep(e.head, JSON_DEPTH_MAX + 1, e.tail), -EBADMSG);
        assert_int_equal(parse_deep("", JSON_DEPTH_MAX, ""), 0);
        assert_int_equal(parse_deep("", JSON_DEPTH_MAX + 1, ""), -EBADMSG);
        assert_int_equal(parse_deep("{\"cmd\":\"NODE_X\",\"msg\":", JSON_DEPTH_MAX - 1, "}"), 0);
        assert_int_equal(parse_deep("{\"cmd\":\"NODE_X\",\"msg\":", JSON_DEPTH_MAX, "}"), -EBADMSG);
}

/* Every envelope that is written is read as what it was meant for, with any message; white space around that
 * is none of it. */
static void test_round_trip(void **state) {
        static const struct {
                const char *sent, *read;
                bool internal;
        } messages[] = {
                { "null", "null", false },
                { "\"}\"", "\"}\"", false },
                { "{\"msg\":{\"type\":\"net.Server\"}}", "{\"msg\":{\"type\":\"net.Server\"}}", false },
                { "{\"cmd\":\"NODE_HANDLE_ACK\"}", "{\"cmd\":\"NODE_HANDLE_ACK\"}", true },
                { "\t[1, 2] ", "[1, 2]", false },
                { "-0", "-0", false },
        };

        for (int type = MUSTER_HANDLE_NET_SERVER; type <= MUSTER_HANDLE_DGRAM_NATIVE; type++)
                for (size_t i = 0; i < 2 * ELEMENTSOF(messages); i++) {
                        size_t k = i % ELEMENTSOF(messages);
                        WireEnvelope e = wire_envelope(type, i == k);
                        char line[256];

                        assert_true(strlen(e.head) + strlen(e.tail) <= WIRE_ENVELOPE_MAX);
                        snprintf(line, sizeof(line), "%s%s%s", e.head, messages[k].sent, e.tail);
                        check_line(line, WIRE_HANDLE, messages[k].read, messages[k].internal, type);
                }
}

/* Node makes a dgram.Socket of what "dgramType" says; the others need nothing more. */
static void test_dgram_type(void **state) {
        assert_non_null(strstr(
                        wire_envelope(MUSTER_HANDLE_DGRAM_SOCKET, false).head, "\"dgramType\":\"udp4\""));
        assert_non_null(strstr(
                        wire_envelope(MUSTER_HANDLE_DGRAM_SOCKET, true).head, "\"dgramType\":\"udp6\""));
        assert_string_equal(wire_envelope(MUSTER_HANDLE_NET_SOCKET, true).head,
                        "{\"cmd\":\"NODE_HANDLE\",\"type\":\"net.Socket\",\"msg\":");
        assert_string_equal(wire_envelope(MUSTER_HANDLE_NET_SOCKET, true).tail, "}");
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_messages),
                cmocka_unit_test(test_internal),
                cmocka_unit_test(test_acknowledgements),
                cmocka_unit_test(test_envelopes_of_node),
                cmocka_unit_test(test_odd_envelopes),
                cmocka_unit_test(test_envelope_without_message),
                cmocka_unit_test(test_not_json),
                cmocka_unit_test(test_depth),
                cmocka_unit_test(test_round_trip),
                cmocka_unit_test(test_dgram_type),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
