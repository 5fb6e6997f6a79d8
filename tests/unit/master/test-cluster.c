/* SPDX-License-Identifier: MIT */
/* The primary of Node's cluster: what workers ask for, and what they are told. */

#include "node-worker.h"

#include <netinet/in.h>

#define ANSWER(number, key, ack, rest) \
        "{\"cmd\":\"NODE_CLUSTER\",\"errno\":" number ",\"key\":\"" key "\",\"ack\":" ack rest "}"

/* Asks, and gets this, and nothing else. */
static void check_answer(Node *node, const char *place, const char *expected) {
        node_ask(node, place);
        node_expect(node, expected);
        node_expect_nothing(node);
}

static uint16_t port_of(const Address *a) {
        struct sockaddr_in6 in6; /* the port of both is in the same place */

        memcpy(&in6, &a->sockaddr, sizeof(in6));
        return ntohs(in6.sin6_port);
}

/*
 * Answers
 */

/* An app believes that it listens on what it asked for, wherever that is. */
static void test_port_that_is_elsewhere(void **state) {
        Node a;

        have_listener("http", "127.0.0.1:0", SOCK_STREAM);
        begin(BALANCE_AUTO, false);
        node_start(&a, 1, true, false);
        check_answer(&a, PLACE_PORT,
                        ANSWER("null", "m1", "1",
                                        ",\"data\":null,\"sockname\":{\"address\":\"::\",\"family\":\"IPv6\","
                                        "\"port\":3000},\"seq\":0"));
        node_end(&a);
}

static void check_real_port(const char *place, const char *address, char family) {
        char expected[256];
        Node a;

        node_start(&a, 1, true, false);
        snprintf(expected, sizeof(expected),
                        ANSWER("null", "m1", "1",
                                        ",\"data\":null,\"sockname\":{\"address\":\"%s\",\"family\":\"IPv%c\","
                                        "\"port\":%u},\"seq\":0"),
                        address, family, port_of(&items[0].address));
        check_answer(&a, place, expected);
        node_end(&a);
}

/* Of listen(0) and listen({ fd }) it has no idea, and is told. */
static void test_real_port(void **state) {
        have_listener("http", "127.0.0.1:0", SOCK_STREAM);
        begin(BALANCE_AUTO, false);
        check_real_port("\"address\":null,\"port\":0,\"addressType\":4", "::", '6');
        check_real_port("\"address\":null,\"port\":null,\"addressType\":null,\"fd\":3", "127.0.0.1", '4');
}

/* A unix socket has no such name, whatever the app has asked for. */
static void test_path(void **state) {
        Node a;

        have_unix("sock");
        begin(BALANCE_AUTO, false);
        node_start(&a, 1, true, false);
        check_answer(&a, PLACE_PATH, ANSWER("null", "m1", "1", ",\"data\":null,\"seq\":0"));
        node_end(&a);
        node_start(&a, 1, true, false);
        check_answer(&a, "\"address\":null,\"port\":null,\"addressType\":null,\"fd\":3",
                        ANSWER("null", "m1", "1", ",\"data\":null,\"seq\":0"));
        node_end(&a);
}

/* All workers get what the first one gave: TLS has the keys of its tickets there. */
static void test_data_of_the_first(void **state) {
        static const char expected[] =
                        ANSWER("null", "m1", "1", ",\"data\":{\"ticketKeys\":\"00ff\"},\"seq\":0");
        Node a, b;

        have_unix("sock");
        begin(BALANCE_AUTO, false);
        node_start(&a, 1, true, false);
        node_start(&b, 2, true, false);
        check_answer(&a, PLACE_PATH ",\"data\":{\"ticketKeys\":\"00ff\"}", expected);
        check_answer(&b, PLACE_PATH ",\"data\":{\"ticketKeys\":\"ff00\"}", expected);
        node_end(&a);
        node_start(&a, 1, true, false);
        check_answer(&a, PLACE_PATH ",\"data\":{\"ticketKeys\":\"aaaa\"}", expected);
        node_end(&a);
        node_end(&b);
}

/* Another listener of the same in the same process is an error of the app's, which hears of it as of any;
 * and its data is there, without which TLS throws. */
static void test_errors(void **state) {
        Node a;

        have_unix("sock");
        begin(BALANCE_AUTO, false);
        node_start(&a, 1, true, false);
        node_listen(&a, "\"address\":\"/nowhere/app\",\"port\":-1,\"addressType\":-1,\"index\":0");
        check_answer(&a,
                        "\"address\":null,\"port\":null,\"addressType\":null,\"fd\":3,"
                        "\"data\":{\"ticketKeys\":\"00\"}",
                        ANSWER("-98", "none", "2", ",\"data\":{\"ticketKeys\":\"00\"},\"seq\":1"));
        check_answer(&a, "\"address\":null,\"port\":null,\"addressType\":null,\"fd\":4,\"data\":null",
                        ANSWER("-9", "none", "3", ",\"data\":null,\"seq\":2"));
        check_answer(&a, "\"address\":null,\"port\":null,\"addressType\":\"udp4\",\"fd\":3",
                        ANSWER("-22", "none", "4", ",\"data\":null,\"seq\":3"));
        check_answer(&a, "\"address\":\"/srv/\\u0000abstract\",\"port\":-1,\"addressType\":-1",
                        ANSWER("-22", "none", "5", ",\"data\":null,\"seq\":4"));
        check_answer(&a, "\"address\":\"no host\",\"port\":1,\"addressType\":4",
                        ANSWER("-22", "none", "6", ",\"data\":null,\"seq\":5"));
        node_end(&a);
}

/* A shared socket is sent itself. The number of the error is null: with 0 Node compares the ports. */
static void test_shared(void **state) {
        Node a, b;
        int fd;

        have_listener("http", "127.0.0.1:0", SOCK_STREAM);
        begin(BALANCE_INHERIT, false);
        node_start(&a, 1, /* passed= */ false, false);
        node_ask(&a, PLACE_PORT);
        char *line = node_line(&a, &fd);
        assert_string_equal(
                        line, ENVELOPE("net.Native", ANSWER("null", "m1", "1", ",\"data\":null,\"seq\":0")));
        free(line);
        assert_same_file(fd, items[0].fd);
        safe_close(fd);
        assert_true(cluster_worker_has_shared(a.worker));

        node_start(&b, 2, true, false); /* of another generation, say */
        assert_false(cluster_worker_has_sockets(b.worker));
        node_listen(&b, PLACE_PORT);
        assert_false(cluster_worker_has_shared(b.worker));
        assert_true(cluster_worker_has_sockets(b.worker));
        node_end(&a);
        node_end(&b);
}

/* Datagrams are no connections: their socket is shared in any case. */
static void test_udp(void **state) {
        Node a;
        int fd;

        have_listener("dns", "127.0.0.1:0", SOCK_DGRAM);
        begin(BALANCE_AUTO, false);
        node_start(&a, 1, /* passed= */ true, false);
        node_ask(&a, "\"address\":\"0.0.0.0\",\"port\":53,\"addressType\":\"udp4\",\"fd\":-1");
        char *line = node_line(&a, &fd);
        assert_string_equal(line,
                        ENVELOPE("dgram.Native", ANSWER("null", "m1", "1", ",\"data\":null,\"seq\":0")));
        free(line);
        assert_same_file(fd, items[0].fd);
        safe_close(fd);
        cluster_worker_set_ready(a.worker);
        node_expect_nothing(&a);
        node_end(&a);
}

/*
 * Sockets of its own
 */

/* What no socket was passed for is bound once, for all workers, and with its queue outlives one that
 * crashes. */
static void test_bound(void **state) {
        char place[128];
        ClusterSocket *s;
        Node a, b;

        begin(BALANCE_AUTO, false);
        node_serve(&a, 1, "\"address\":\"127.0.0.1\",\"port\":0,\"addressType\":4");
        s = list_entry(cluster->sockets.next, ClusterSocket, node);
        assert_true(port_of(&s->address) > 0);
        node_serve(&b, 2, "\"address\":\"127.0.0.1\",\"port\":0,\"addressType\":4");
        assert_string_equal(a.key, b.key);
        snprintf(place, sizeof(place), "\"address\":\"127.0.0.1\",\"port\":%u,\"addressType\":4",
                        port_of(&s->address));
        check_answer(&a, place, ANSWER("-98", "none", "2", ",\"data\":null,\"seq\":1"));

        node_end(&a);
        node_end(&b);
        int fd = client_of(&s->address);
        assert_int_equal(write(fd, "x", 1), 1);
        node_serve(&a, 1, "\"address\":\"127.0.0.1\",\"port\":0,\"addressType\":4");
        node_serves(&a, "x");
        close(fd);
        node_end(&a);
}

/* A path that was bound here goes when the last one has closed it, and not before; it can be had again. */
static void test_bound_path(void **state) {
        char place[128], path[64];
        Node a, b;

        snprintf(path, sizeof(path), "%s/bound", directory);
        snprintf(place, sizeof(place), "\"address\":\"%s\",\"port\":-1,\"addressType\":-1", path);
        begin(BALANCE_AUTO, false);
        node_serve(&a, 1, place);
        node_serve(&b, 2, place);
        node_close(&a);
        assert_int_equal(access(path, F_OK), 0);
        node_close(&b);
        assert_int_equal(access(path, F_OK), -1);
        node_close(&b); /* as often as it likes */

        node_listen(&a, place);
        assert_int_equal(access(path, F_OK), 0);
        cluster_worker_close(a.worker); /* it retires, and nobody takes over */
        node_end(&a);
        assert_int_equal(access(path, F_OK), -1);
        node_end(&b);
}

/* The limits of what a worker can make the master open. */
static void test_many_sockets(void **state) {
        char place[128];
        Node a;

        begin(BALANCE_AUTO, false);
        node_start(&a, 1, true, false);
        for (unsigned i = 0; i < CLUSTER_SOCKETS_MAX; i++) {
                snprintf(place, sizeof(place),
                                "\"address\":\"127.0.0.1\",\"port\":0,\"addressType\":4,\"index\":%u", i);
                node_listen(&a, place);
        }
        check_answer(&a, "\"address\":null,\"port\":0,\"addressType\":4",
                        ANSWER("-24", "none", "257", ",\"data\":null,\"seq\":256"));
        node_end(&a);
}

/*
 * The conversation
 */

/* What a worker closes by any other name is nothing. */
static void test_rubbish_closed(void **state) {
        static const char *const keys[] = { "null", "1", "\"\"", "\"m2\"", "\"m11\"", "\"M1\"", "[\"m1\"]",
                "{\"m1\":1}", "\"\\u006d1\"" };
        char json[128];
        Node a;

        have_unix("sock");
        begin(BALANCE_AUTO, false);
        node_serve(&a, 1, PLACE_PATH);
        for (size_t i = 0; i < ELEMENTSOF(keys); i++) {
                snprintf(json, sizeof(json), "{\"cmd\":\"NODE_CLUSTER\",\"act\":\"close\",\"key\":%s}",
                                keys[i]);
                node_say(&a, json);
                assert_int_equal(a.result, 0);
                assert_true(cluster_worker_has_sockets(a.worker));
        }
        node_say(&a, "{\"cmd\":\"NODE_CLUSTER\",\"act\":\"close\"}");
        assert_int_equal(a.result, -EBADMSG);
        node_end(&a);
}

/* Answers to nothing, and refusals of nothing, change nothing. */
static void test_answers_to_nothing(void **state) {
        Node a;

        have_unix("sock");
        begin(BALANCE_AUTO, false);
        node_serve(&a, 1, PLACE_PATH);
        node_say(&a, "{\"cmd\":\"NODE_CLUSTER\",\"ack\":77,\"accepted\":true}");
        node_say(&a, "{\"cmd\":\"NODE_CLUSTER\",\"ack\":0,\"accepted\":false}");
        node_say(&a, "{\"cmd\":\"NODE_HANDLE_NACK\"}");
        assert_int_equal(a.result, 0);
        assert_int_equal(cluster_worker_get_taken(a.worker), 0);
        assert_int_equal(cluster_worker_get_in_flight(a.worker), 0);
        int fd = client(0, "x");
        node_serves(&a, "x");
        assert_int_equal(cluster_worker_get_taken(a.worker), 1);
        close(fd);
        node_end(&a);
}

static void test_news(void **state) {
        Node a;

        begin(BALANCE_AUTO, false);
        node_start(&a, 1, true, false);
        assert_true(cluster_worker_is_online(a.worker));
        node_say(&a, "\"ready\"");
        assert_int_equal(a.result, CLUSTER_NOT_OURS);
        node_say(&a, "{\"watch:require\":[]}");
        assert_int_equal(a.news, CLUSTER_WATCHED);
        node_say(&a, "{\"cmd\":\"NODE_CLUSTER\",\"act\":\"online\"}");
        assert_int_equal(a.news, CLUSTER_NO_NEWS);
        assert_int_equal(cluster_worker_get_heard(a.worker), 4);
        node_end(&a);

        a = (Node){ .fd = -1 };
        assert_int_equal(cluster_worker_new(cluster, 1, true, false, &a.worker), 0);
        node_attach(&a);
        node_ask(&a, PLACE_PORT); /* before it was online: there is no script */
        assert_int_equal(a.news, CLUSTER_NO_SCRIPT);
        node_expect_nothing(&a);
        node_end(&a);
}

/* worker.disconnect() of the app's waits for an answer; nothing is passed from then on. */
static void test_leaving(void **state) {
        Node a, b;

        have_unix("sock");
        begin(BALANCE_AUTO, false);
        node_serve(&a, 1, PLACE_PATH);
        node_serve(&b, 2, PLACE_PATH);
        node_say(&a, "{\"cmd\":\"NODE_CLUSTER\",\"act\":\"exitedAfterDisconnect\",\"seq\":5}");
        assert_int_equal(a.news, CLUSTER_LEAVES);
        node_expect(&a, "{\"cmd\":\"NODE_CLUSTER\",\"ack\":5}");
        int fds[2] = { client(0, "x"), client(0, "y") };
        node_serves(&b, "x");
        node_serves(&b, "y");
        node_expect_nothing(&a);
        close_all(fds, 2);
        node_end(&a);
        node_end(&b);
}

static void test_disconnect(void **state) {
        Node a;

        have_unix("sock");
        begin(BALANCE_AUTO, false);
        node_serve(&a, 1, PLACE_PATH);
        cluster_worker_disconnect(a.worker);
        node_expect(&a, "{\"cmd\":\"NODE_CLUSTER\",\"act\":\"disconnect\",\"seq\":1}");
        int fd = client(0, "x");
        node_close(&a);
        node_expect_nothing(&a);
        assert_true(has_queue(0)); /* for a successor */
        close(fd);
        node_end(&a);
}

/* A spare has loaded the app and asks for its sockets: it is answered when it has a place. */
static void test_held(void **state) {
        Node a;

        have_unix("sock");
        begin(BALANCE_AUTO, false);
        node_start(&a, 0, true, /* held= */ true);
        node_ask(&a, PLACE_PATH ",\"data\":{\"ticketKeys\":\"00\"}");
        assert_int_equal(a.news, CLUSTER_IS_HELD);
        node_ask(&a, "\"address\":null,\"port\":null,\"addressType\":null,\"fd\":9");
        assert_int_equal(a.news, CLUSTER_IS_HELD);
        node_expect_nothing(&a);
        assert_false(cluster_worker_has_sockets(a.worker));

        cluster_worker_release(a.worker, 3);
        node_expect(&a, ANSWER("null", "m1", "1", ",\"data\":{\"ticketKeys\":\"00\"},\"seq\":0"));
        node_expect(&a, ANSWER("-9", "none", "2", ",\"data\":null,\"seq\":1"));
        cluster_worker_set_ready(a.worker);
        int fd = client(0, "x");
        node_serves(&a, "x");
        close(fd);
        node_end(&a);
}

/* One that asks for ever more, and one that ends before it gets a place. */
/* One that was refused a socket may be about to die of that, whatever it says of another one before: it
 * listens when it has answered twice. */
static void test_refused_one_of_two(void **state) {
        Node a;

        have_unix("sock");
        begin(BALANCE_AUTO, false);
        node_start(&a, 1, true, /* held= */ false);
        node_ask(&a, PLACE_PATH);
        node_expect(&a, ANSWER("null", "m1", "1", ",\"data\":null,\"seq\":0"));
        node_ask(&a, "\"address\":null,\"port\":null,\"addressType\":null,\"fd\":9");
        node_expect(&a, ANSWER("-9", "none", "2", ",\"data\":null,\"seq\":1"));
        node_say(&a, "{\"cmd\":\"NODE_CLUSTER\",\"act\":\"listening\",\"seq\":3}");
        for (unsigned i = 0; i < 2; i++) {
                assert_int_equal(a.news, CLUSTER_NO_NEWS);
                node_expect(&a, CLUSTER_PING);
                node_say(&a, "{\"cmd\":\"NODE_HANDLE_NACK\"}");
        }
        assert_int_equal(a.news, CLUSTER_IS_LISTENING);
        node_expect_nothing(&a);
        node_end(&a);
}

static void test_held_for_ever(void **state) {
        char place[64];
        Node a;

        begin(BALANCE_AUTO, false);
        node_start(&a, 0, true, /* held= */ true);
        for (unsigned i = 0; i < CLUSTER_HELD_MAX + 5; i++) {
                snprintf(place, sizeof(place),
                                "\"address\":\"127.0.0.1\",\"port\":0,\"addressType\":4,\"index\":%u", i);
                node_ask(&a, place);
        }
        assert_int_equal(a.worker->n_held, CLUSTER_HELD_MAX);
        node_expect_nothing(&a);
        node_end(&a);
}

/* Nothing with a descriptor follows a ping that is not answered: the ping would take it. */
static void test_shared_after_ping(void **state) {
        Node a;
        int fd;

        have_unix("sock");
        begin(BALANCE_INHERIT, false);
        node_start(&a, 1, /* passed= */ false, false);
        cluster_worker_set_ready(a.worker);
        cluster_worker_ping(a.worker);
        cluster_worker_ping(a.worker); /* one at a time */
        node_ask(&a, PLACE_PATH);      /* before it has read the ping */
        node_expect(&a, CLUSTER_PING);
        node_expect_nothing(&a);
        node_say(&a, "{\"cmd\":\"NODE_HANDLE_NACK\"}");
        free(node_line(&a, &fd));
        assert_same_file(fd, items[0].fd);
        safe_close(fd);
        node_end(&a);
}

/* A worker that the channel has lost is told nothing, and breaks nothing. */
static void test_lost_channel(void **state) {
        Node a, b;

        have_unix("sock");
        begin(BALANCE_AUTO, false);
        node_serve(&a, 1, PLACE_PATH);
        node_serve(&b, 2, PLACE_PATH);
        a.raw = safe_close(a.raw);
        run_until(!muster_channel_is_connected(a.channel));
        cluster_worker_ping(a.worker);
        cluster_worker_disconnect(a.worker);
        int fds[2] = { client(0, "x"), client(0, "y") };
        node_serves(&b, "x");
        node_serves(&b, "y");
        close_all(fds, 2);
        node_end(&a);
        node_end(&b);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cluster_test(test_port_that_is_elsewhere),
                cluster_test(test_real_port),
                cluster_test(test_path),
                cluster_test(test_data_of_the_first),
                cluster_test(test_errors),
                cluster_test(test_shared),
                cluster_test(test_udp),
                cluster_test(test_bound),
                cluster_test(test_bound_path),
                cluster_test(test_many_sockets),
                cluster_test(test_rubbish_closed),
                cluster_test(test_answers_to_nothing),
                cluster_test(test_news),
                cluster_test(test_leaving),
                cluster_test(test_disconnect),
                cluster_test(test_held),
                cluster_test(test_held_for_ever),
                cluster_test(test_refused_one_of_two),
                cluster_test(test_shared_after_ping),
                cluster_test(test_lost_channel),
        };

        return cmocka_run_group_tests(tests, setup_directory, teardown_directory);
}
