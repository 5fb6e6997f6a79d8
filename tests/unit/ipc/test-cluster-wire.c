/* SPDX-License-Identifier: MIT */
/* What a Node.js worker and its primary say to each other. The messages are those that Node 14 to 25 write.
 */

#include "../unit.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "basic/macro.h"
#include "ipc/cluster-wire.h"

#define CLUSTER(members) "{\"cmd\":\"NODE_CLUSTER\"," members "}"
#define QUERY(members)   CLUSTER("\"act\":\"queryServer\",\"index\":0,\"data\":null," members ",\"seq\":7")

static ClusterMessage parse(const char *json) {
        ClusterMessage m;

        assert_int_equal(cluster_wire_parse(json, strlen(json), &m), 0);
        return m;
}

static ClusterQuery query(const char *json) {
        ClusterMessage m = parse(json);

        assert_int_equal(m.act, CLUSTER_QUERY);
        return m.query;
}

static void check_act(const char *json, ClusterAct act) {
        assert_int_equal(parse(json).act, act);
}

static void check_bad(const char *json) {
        ClusterMessage m;

        if (cluster_wire_parse(json, strlen(json), &m) != -EBADMSG)
                fail_msg("taken: %s", json);
}

static void check_span(JsonSpan span, const char *text) {
        assert_non_null(span.p);
        assert_int_equal(span.n, strlen(text));
        assert_memory_equal(span.p, text, span.n);
}

/*
 * From a worker
 */

static void test_acts(void **state) {
        check_act(CLUSTER("\"act\":\"online\",\"seq\":0"), CLUSTER_ONLINE);
        check_act(CLUSTER("\"act\":\"online\""), CLUSTER_ONLINE);
        check_act(CLUSTER("\"act\":\"close\",\"key\":\"m1\",\"seq\":3"), CLUSTER_CLOSE);
        check_act(CLUSTER("\"act\":\"exitedAfterDisconnect\",\"seq\":3"), CLUSTER_LEAVING);
        check_act(CLUSTER("\"ack\":0,\"accepted\":true,\"seq\":3"), CLUSTER_ANSWER);
        check_act("{\"cmd\":\"NODE_HANDLE_NACK\"}", CLUSTER_NACK);
        check_act(CLUSTER("\"act\":\"listening\",\"index\":0,\"data\":null,\"address\":null,\"port\":3000,"
                          "\"addressType\":4,\"seq\":2"),
                        CLUSTER_LISTENING);
        assert_int_equal(parse(CLUSTER("\"act\":\"exitedAfterDisconnect\",\"seq\":12")).seq, 12);
}

/* What a primary need not know of is no error, as there will be more of it. */
static void test_other(void **state) {
        check_act(CLUSTER("\"act\":\"suicide\",\"seq\":3"), CLUSTER_OTHER);
        check_act(CLUSTER("\"act\":5"), CLUSTER_OTHER);
        check_act(CLUSTER("\"act\":null"), CLUSTER_OTHER);
        check_act(CLUSTER("\"seq\":1"), CLUSTER_OTHER);
        check_act(CLUSTER("\"ack\":1,\"seq\":1"), CLUSTER_OTHER);
        check_act("{\"cmd\":\"NODE_CLUSTER\"}", CLUSTER_OTHER);
        check_act("{\"cmd\":\"NODE_HANDLE_ACK\"}", CLUSTER_OTHER);
        check_act("{\"cmd\":\"NODE_HANDLE_NACKS\"}", CLUSTER_OTHER);
        check_act("{\"cmd\":\"NODE_X\",\"act\":\"queryServer\"}", CLUSTER_OTHER);
}

/* An app may send what it likes, as long as it is not Node's own. */
static void test_application(void **state) {
        static const char *const messages[] = { "\"ready\"", "null", "1", "[]", "{}",
                "{\"act\":\"queryServer\"}", "{\"cmd\":\"NODE_\"}", "{\"cmd\":\"NODE\"}",
                "{\"cmd\":\"node_cluster\",\"act\":\"online\"}", "{\"cmd\":5}",
                "{\"cmd\":[\"NODE_CLUSTER\"],\"act\":\"online\"}", "[{\"cmd\":\"NODE_CLUSTER\"}]",
                "{\"x\":{\"cmd\":\"NODE_CLUSTER\",\"act\":\"online\"}}", "{\"cmd\":\"MUSTER\"}",
                "{\"cmd\":\"NODE_CLUSTER\",\"cmd\":\"mine\"}" };

        for (size_t i = 0; i < ELEMENTSOF(messages); i++)
                check_act(messages[i], CLUSTER_APPLICATION);
}

static void test_watcher(void **state) {
        check_act("{\"watch:require\":[\"/srv/app.js\"]}", CLUSTER_WATCHER);
        check_act("{\"watch:import\":[\"file:///srv/app.mjs\"]}", CLUSTER_WATCHER);
}

static void test_answers(void **state) {
        ClusterMessage m = parse(CLUSTER("\"ack\":4294967297,\"accepted\":true,\"seq\":3"));

        assert_true(m.accepted);
        assert_true(m.ack == UINT64_C(4294967297));
        m = parse(CLUSTER("\"accepted\":false,\"ack\":5"));
        assert_int_equal(m.act, CLUSTER_ANSWER);
        assert_false(m.accepted);
        assert_int_equal(m.ack, 5);
        assert_false(parse(CLUSTER("\"ack\":5,\"accepted\":null")).accepted);
        assert_false(parse(CLUSTER("\"ack\":5,\"accepted\":\"true\"")).accepted);
        check_bad(CLUSTER("\"ack\":null,\"accepted\":true"));
        check_bad(CLUSTER("\"ack\":-1,\"accepted\":true"));
        check_bad(CLUSTER("\"ack\":1.5,\"accepted\":true"));
        check_bad(CLUSTER("\"ack\":\"\",\"accepted\":true"));
        check_bad(CLUSTER("\"ack\":{},\"accepted\":true"));
        check_bad(CLUSTER("\"ack\":99999999999999999999,\"accepted\":true"));
}

static void check_place(const char *json, ClusterFamily family, const char *address, uint16_t port) {
        ClusterQuery q = query(json);

        assert_int_equal(q.family, family);
        assert_string_equal(q.address, address);
        assert_int_equal(q.port, port);
        assert_int_equal(q.fd, -1);
        assert_int_equal(q.is_udp, family == CLUSTER_UDP4 || family == CLUSTER_UDP6);
        assert_false(q.ipv6_only);
        assert_false(q.reuse_address);
        assert_int_equal(q.backlog, 0);
        assert_int_equal(q.index, 0);
}

static void test_queries(void **state) {
        check_place(QUERY("\"address\":null,\"port\":3000,\"addressType\":4"), CLUSTER_IPV4, "", 3000);
        check_place(QUERY("\"address\":null,\"port\":0,\"addressType\":4,\"flags\":0,\"backlog\":0"),
                        CLUSTER_IPV4, "", 0);
        check_place(QUERY("\"address\":\"127.0.0.1\",\"port\":65535,\"addressType\":4,\"flags\":0"),
                        CLUSTER_IPV4, "127.0.0.1", 65535);
        check_place(QUERY("\"address\":\"fe80::1%eth0\",\"port\":80,\"addressType\":6"), CLUSTER_IPV6,
                        "fe80::1%eth0", 80);
        check_place(QUERY("\"address\":\"/run/gr\xC3\xB6\xC3\x9F.sock\",\"port\":-1,\"addressType\":-1"),
                        CLUSTER_PATH, "/run/gr\xC3\xB6\xC3\x9F.sock", 0);
        check_place(QUERY("\"address\":\"0.0.0.0\",\"port\":53,\"addressType\":\"udp4\",\"fd\":-1"),
                        CLUSTER_UDP4, "0.0.0.0", 53);
        check_place(QUERY("\"address\":\"::1\",\"port\":53,\"addressType\":\"udp6\",\"fd\":-1"),
                        CLUSTER_UDP6, "::1", 53);
        assert_int_equal(parse(QUERY("\"address\":null,\"port\":1,\"addressType\":4")).seq, 7);
}

/* bind() without a port, and bind(process.env.PORT): Node sends them as they are. */
static void test_ports_of_udp(void **state) {
        check_place(QUERY("\"address\":\"0.0.0.0\",\"addressType\":\"udp4\",\"fd\":-1,\"flags\":0"),
                        CLUSTER_UDP4, "0.0.0.0", 0);
        check_place(QUERY("\"address\":\"0.0.0.0\",\"port\":\"3002\",\"addressType\":\"udp4\",\"fd\":-1"),
                        CLUSTER_UDP4, "0.0.0.0", 3002);
        check_bad(QUERY("\"address\":\"0.0.0.0\",\"port\":\"x\",\"addressType\":\"udp4\",\"fd\":-1"));
        check_bad(QUERY("\"address\":\"0.0.0.0\",\"port\":\"\",\"addressType\":\"udp4\",\"fd\":-1"));
}

static void test_descriptors(void **state) {
        ClusterQuery q = query(QUERY("\"address\":null,\"port\":null,\"addressType\":null,\"fd\":3"));

        assert_int_equal(q.family, CLUSTER_FD);
        assert_int_equal(q.fd, 3);
        assert_false(q.is_udp);
        q = query(QUERY("\"address\":null,\"port\":null,\"addressType\":\"udp6\",\"fd\":0,\"flags\":null"));
        assert_int_equal(q.family, CLUSTER_FD);
        assert_int_equal(q.fd, 0);
        assert_true(q.is_udp);
        check_bad(QUERY("\"address\":null,\"port\":null,\"addressType\":null,\"fd\":-1"));
        check_bad(QUERY("\"address\":null,\"port\":null,\"addressType\":null,\"fd\":-2"));
        check_bad(QUERY("\"address\":null,\"port\":null,\"addressType\":null,\"fd\":2147483648"));
        check_bad(QUERY("\"address\":null,\"port\":null,\"addressType\":null,\"fd\":[3]"));
}

#define PORT "\"address\":null,\"port\":3000,\"addressType\":4,"
#define UDP  "\"address\":null,\"port\":3000,\"addressType\":\"udp4\","

static void test_flags(void **state) {
        assert_true(query(QUERY("\"address\":\"::\",\"port\":1,\"addressType\":6,\"flags\":1")).ipv6_only);
        assert_true(query(QUERY("\"address\":\"::\",\"port\":1,\"addressType\":\"udp6\",\"flags\":5"))
                                        .ipv6_only);
        assert_true(query(QUERY(UDP "\"flags\":4")).reuse_address);
        assert_false(query(QUERY(UDP "\"flags\":3")).reuse_address);
        assert_false(query(QUERY(PORT "\"flags\":4")).reuse_address);
        assert_false(query(QUERY(PORT "\"flags\":null")).ipv6_only);
        check_bad(QUERY(PORT "\"flags\":-1"));
        check_bad(QUERY(PORT "\"flags\":4294967296"));
        check_bad(QUERY(PORT "\"flags\":true"));
}

/* It is a wish, and whatever an app passes for it is taken. */
static void test_backlog(void **state) {
        static const struct {
                const char *json;
                int backlog;
        } cases[] = {
                { QUERY(PORT "\"backlog\":12"), 12 },
                { QUERY(PORT "\"backlog\":\"12\""), 12 },
                { QUERY(PORT "\"backlog\":0"), 0 },
                { QUERY(PORT "\"backlog\":false"), 0 },
                { QUERY(PORT "\"backlog\":null"), 0 },
                { QUERY(PORT "\"backlog\":-1"), 0 },
                { QUERY(PORT "\"backlog\":1.5"), 0 },
                { QUERY(PORT "\"backlog\":[1]"), 0 },
                { QUERY(PORT "\"backlog\":2147483648"), INT32_MAX },
                { QUERY(PORT "\"backlog\":9007199254740991"), INT32_MAX },
                { QUERY(PORT "\"backlog\":1e99"), 0 },
        };

        for (size_t i = 0; i < ELEMENTSOF(cases); i++)
                assert_int_equal(query(cases[i].json).backlog, cases[i].backlog);
}

/* TLS gives the keys of its tickets, of which nothing may be lost. */
static void test_data(void **state) {
        ClusterQuery q = query(CLUSTER("\"act\":\"queryServer\",\"index\":2,\"seq\":1,"
                                       "\"data\":{\"ticketKeys\":\"00ff\"},\"address\":null,\"port\":443,"
                                       "\"addressType\":4"));

        check_span(q.data, "{\"ticketKeys\":\"00ff\"}");
        assert_int_equal(q.index, 2);
        check_span(query(QUERY(PORT "\"flags\":0")).data, "null");
        assert_null(query(CLUSTER("\"act\":\"queryServer\"," PORT "\"seq\":1")).data.p);
}

static void check_bad_place(const char *address, const char *port, const char *type) {
        char json[256];

        snprintf(json, sizeof(json), QUERY("\"address\":%s,\"port\":%s,\"addressType\":%s"), address, port,
                        type);
        check_bad(json);
}

static void test_bad_queries(void **state) {
        static const char *const ports[] = { "null", "-1", "65536", "-2", "3000.5", "3e3", "\"x\"", "true",
                "false", "[3000]", "{}" };
        static const char *const types[] = { "null", "0", "5", "-2", "7", "\"udp5\"", "\"udp\"", "\"tcp\"",
                "true", "[4]", "4.0" };
        static const char *const addresses[] = { "1", "false", "[\"::\"]", "{}" };

        for (size_t i = 0; i < ELEMENTSOF(ports); i++)
                check_bad_place("null", ports[i], "4");
        for (size_t i = 0; i < ELEMENTSOF(types); i++)
                check_bad_place("null", "3000", types[i]);
        for (size_t i = 0; i < ELEMENTSOF(addresses); i++)
                check_bad_place(addresses[i], "3000", "4");
        check_bad_place("null", "-1", "-1"); /* a path without a path */
        check_bad_place("\"\"", "-1", "-1");
        check_bad(QUERY("\"address\":null,\"port\":3000"));
        check_bad(QUERY("\"address\":null,\"addressType\":4"));
        check_bad(QUERY(PORT "\"index\":-1"));
        check_bad(QUERY(PORT "\"index\":4294967296"));
        check_bad(QUERY(PORT "\"index\":1.5"));
}

/* What wants an answer says to what that would be one. */
static void test_bad_sequence(void **state) {
        check_bad(CLUSTER("\"act\":\"queryServer\",\"address\":null,\"port\":1,\"addressType\":4"));
        check_bad(CLUSTER("\"act\":\"exitedAfterDisconnect\""));
        check_bad(CLUSTER("\"act\":\"exitedAfterDisconnect\",\"seq\":null"));
        check_bad(CLUSTER("\"act\":\"exitedAfterDisconnect\",\"seq\":-1"));
        check_bad(CLUSTER("\"act\":\"online\",\"seq\":\"x\""));
        check_bad(CLUSTER("\"act\":\"online\",\"seq\":[]"));
}

static void test_not_json(void **state) {
        check_bad("");
        check_bad("{\"cmd\":\"NODE_CLUSTER\"");
        check_bad("\x02{\"cmd\":\"NODE_CLUSTER\",\"act\":\"online\"}");
        check_bad("{\"cmd\":\"NODE_CLUSTER\",\n\"act\":\"online\"}");
}

static ClusterQuery query_path(const char *path) {
        char json[1024];

        snprintf(json, sizeof(json), QUERY("\"address\":\"%s\",\"port\":-1,\"addressType\":-1"), path);
        return query(json);
}

/* An address that does not fit, or has in it what none has, becomes no other one. */
static void test_impossible_addresses(void **state) {
        char path[CLUSTER_ADDRESS_MAX + 1];

        memset(path, 'x', sizeof(path));
        path[0] = '/';
        path[CLUSTER_ADDRESS_MAX - 1] = '\0';
        assert_string_equal(query_path(path).address, path);
        path[CLUSTER_ADDRESS_MAX - 1] = 'x';
        path[CLUSTER_ADDRESS_MAX] = '\0';
        assert_string_equal(query_path(path).address, CLUSTER_ADDRESS_INVALID);
        assert_string_equal(query_path("/run/\\u0000abstract").address, CLUSTER_ADDRESS_INVALID);
        assert_string_equal(query_path("/run/a\\nb").address, CLUSTER_ADDRESS_INVALID);
        assert_string_equal(query_path("/run/\x7F").address, CLUSTER_ADDRESS_INVALID);
        assert_string_equal(query_path("/run/\xC2\x9B").address, CLUSTER_ADDRESS_INVALID);
}

/* Whatever a worker says that it closes: it names a socket, or nothing. */
static void test_keys(void **state) {
        check_span(parse(CLUSTER("\"act\":\"close\",\"key\":\"m1\"")).key, "\"m1\"");
        check_span(parse(CLUSTER("\"act\":\"close\",\"key\":\"\\u006d1\"")).key, "\"\\u006d1\"");
        check_span(parse(CLUSTER("\"act\":\"close\",\"key\":null")).key, "null");
        check_span(parse(CLUSTER("\"act\":\"close\",\"key\":{\"a\":[\"m1\"]}")).key, "{\"a\":[\"m1\"]}");
        check_span(parse(CLUSTER("\"act\":\"close\",\"key\":\"\"")).key, "\"\"");
        check_bad(CLUSTER("\"act\":\"close\",\"seq\":1"));
}

/*
 * Queries among themselves
 */

static void test_equal(void **state) {
        static const char *const different[] = {
                QUERY("\"address\":null,\"port\":3000,\"addressType\":4"),
                QUERY("\"address\":null,\"port\":3001,\"addressType\":4"),
                QUERY("\"address\":null,\"port\":3000,\"addressType\":6"),
                QUERY("\"address\":null,\"port\":3000,\"addressType\":\"udp4\""),
                QUERY("\"address\":\"127.0.0.1\",\"port\":3000,\"addressType\":4"),
                QUERY("\"address\":null,\"port\":3000,\"addressType\":4,\"index\":1"),
                QUERY("\"address\":null,\"port\":null,\"addressType\":null,\"fd\":3"),
                QUERY("\"address\":null,\"port\":null,\"addressType\":null,\"fd\":4"),
                QUERY("\"address\":\"/run/a\",\"port\":-1,\"addressType\":-1"),
                QUERY("\"address\":\"/run/b\",\"port\":-1,\"addressType\":-1"),
        };
        ClusterQuery q[ELEMENTSOF(different)];

        for (size_t i = 0; i < ELEMENTSOF(different); i++)
                q[i] = query(different[i]);
        for (size_t i = 0; i < ELEMENTSOF(different); i++)
                for (size_t k = 0; k < ELEMENTSOF(different); k++)
                        assert_int_equal(cluster_query_equal(q + i, q + k), i == k);
        /* The first to ask decides about the rest. */
        q[1] = query(QUERY(PORT "\"backlog\":5,\"flags\":1"));
        assert_true(cluster_query_equal(q, q + 1));
}

static void check_string(const char *json, const char *text) {
        char buf[CLUSTER_QUERY_STRING_MAX];
        ClusterQuery q = query(json);

        assert_string_equal(cluster_query_to_string(&q, buf), text);
}

static void test_to_string(void **state) {
        char path[CLUSTER_ADDRESS_MAX], buf[CLUSTER_QUERY_STRING_MAX];

        check_string(QUERY("\"address\":null,\"port\":3000,\"addressType\":4"), "port 3000");
        check_string(QUERY("\"address\":\"127.0.0.1\",\"port\":0,\"addressType\":4"), "127.0.0.1:0");
        check_string(QUERY("\"address\":\"::1\",\"port\":3000,\"addressType\":6"), "[::1]:3000");
        check_string(QUERY("\"address\":\"/run/a\",\"port\":-1,\"addressType\":-1"), "/run/a");
        check_string(QUERY("\"address\":null,\"port\":53,\"addressType\":\"udp4\""), "UDP port 53");
        check_string(QUERY("\"address\":\"::1\",\"port\":53,\"addressType\":\"udp6\""), "UDP [::1]:53");
        check_string(QUERY("\"address\":\"::1\",\"addressType\":\"udp6\""), "UDP [::1]:0");
        check_string(QUERY("\"address\":null,\"port\":null,\"addressType\":null,\"fd\":3"), "descriptor 3");
        check_string(QUERY("\"address\":null,\"port\":null,\"addressType\":\"udp4\",\"fd\":3"),
                        "UDP descriptor 3");
        memset(path, 'x', sizeof(path));
        path[0] = '/';
        path[sizeof(path) - 1] = '\0';
        ClusterQuery q = query_path(path);
        assert_string_equal(cluster_query_to_string(&q, buf), path);
        q.family = CLUSTER_UDP6; /* the longest of all */
        q.is_udp = true;
        q.port = UINT16_MAX;
        q.address[1] = ':';
        assert_int_equal(strlen(cluster_query_to_string(&q, buf)), strlen(path) + strlen("UDP []:65535"));
}

/*
 * From a primary
 */

static void check_reply(int error, const char *data, const ClusterQuery *sockname, const char *text) {
        _cleanup_free_ char *reply = cluster_wire_reply(9, 7, error, "m1", data, sockname);

        assert_string_equal(reply, text);
        assert_int_equal(json_scan(reply, strlen(reply), NULL, 0), 0);
}

static void test_replies(void **state) {
        ClusterQuery any = query(QUERY(PORT "\"flags\":0"));
        ClusterQuery six = query(QUERY("\"address\":\"::1\",\"port\":80,\"addressType\":6"));
        ClusterQuery four = query(QUERY("\"address\":\"127.0.0.1\",\"port\":80,\"addressType\":4"));

        check_reply(0, NULL, &any,
                        "{\"cmd\":\"NODE_CLUSTER\",\"errno\":null,\"key\":\"m1\",\"ack\":7,\"data\":null,"
                        "\"sockname\":{\"address\":\"::\",\"family\":\"IPv6\",\"port\":3000},\"seq\":9}");
        check_reply(0, "{\"ticketKeys\":\"00\"}", &six,
                        "{\"cmd\":\"NODE_CLUSTER\",\"errno\":null,\"key\":\"m1\",\"ack\":7,"
                        "\"data\":{\"ticketKeys\":\"00\"},"
                        "\"sockname\":{\"address\":\"::1\",\"family\":\"IPv6\",\"port\":80},\"seq\":9}");
        check_reply(0, "null", &four,
                        "{\"cmd\":\"NODE_CLUSTER\",\"errno\":null,\"key\":\"m1\",\"ack\":7,\"data\":null,"
                        "\"sockname\":{\"address\":\"127.0.0.1\",\"family\":\"IPv4\",\"port\":80},\"seq\":9}");
        check_reply(0, NULL, NULL,
                        "{\"cmd\":\"NODE_CLUSTER\",\"errno\":null,\"key\":\"m1\",\"ack\":7,\"data\":null,"
                        "\"seq\":9}");
        check_reply(-EADDRINUSE, "1", &four,
                        "{\"cmd\":\"NODE_CLUSTER\",\"errno\":-98,\"key\":\"m1\",\"ack\":7,\"data\":1,"
                        "\"seq\":9}");
}

/* The longest address that there can be, with all that has to be escaped. */
static void test_long_reply(void **state) {
        ClusterQuery q = query(QUERY(PORT "\"flags\":0"));
        JsonMember m = { .name = "seq" };

        memset(q.address, '"', sizeof(q.address) - 1);
        _cleanup_free_ char *reply = cluster_wire_reply(UINT64_MAX, UINT64_MAX, 0, "m1", NULL, &q);
        assert_int_equal(json_scan(reply, strlen(reply), &m, 1), 0);
        check_span(m.value, "18446744073709551615");
}

static void check_line(const char *line, size_t n, const char *text) {
        assert_int_equal(n, strlen(line));
        assert_string_equal(line, text);
}

static void test_lines(void **state) {
        char buf[CLUSTER_LINE_MAX];

        check_line(buf, cluster_wire_connection(buf, 3, "m12"),
                        "{\"cmd\":\"NODE_CLUSTER\",\"act\":\"newconn\",\"key\":\"m12\",\"seq\":3}");
        check_line(buf, cluster_wire_disconnect(buf, UINT64_MAX),
                        "{\"cmd\":\"NODE_CLUSTER\",\"act\":\"disconnect\",\"seq\":18446744073709551615}");
        check_line(buf, cluster_wire_acknowledge(buf, 5), "{\"cmd\":\"NODE_CLUSTER\",\"ack\":5}");
        check_line(buf, cluster_wire_connection(buf, UINT64_MAX, "m18446744073709551615"),
                        "{\"cmd\":\"NODE_CLUSTER\",\"act\":\"newconn\",\"key\":\"m18446744073709551615\","
                        "\"seq\":18446744073709551615}");
        assert_string_equal(CLUSTER_PING, "{\"cmd\":\"NODE_HANDLE\",\"type\":\"net.Native\",\"msg\":null}");
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_acts),
                cmocka_unit_test(test_other),
                cmocka_unit_test(test_application),
                cmocka_unit_test(test_watcher),
                cmocka_unit_test(test_answers),
                cmocka_unit_test(test_queries),
                cmocka_unit_test(test_ports_of_udp),
                cmocka_unit_test(test_descriptors),
                cmocka_unit_test(test_flags),
                cmocka_unit_test(test_backlog),
                cmocka_unit_test(test_data),
                cmocka_unit_test(test_bad_queries),
                cmocka_unit_test(test_bad_sequence),
                cmocka_unit_test(test_not_json),
                cmocka_unit_test(test_impossible_addresses),
                cmocka_unit_test(test_keys),
                cmocka_unit_test(test_equal),
                cmocka_unit_test(test_to_string),
                cmocka_unit_test(test_replies),
                cmocka_unit_test(test_long_reply),
                cmocka_unit_test(test_lines),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
