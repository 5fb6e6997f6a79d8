/* SPDX-License-Identifier: MIT */
#include "http/connection.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "fixture.h"

static unsigned answer_status;
static uint64_t file_size;  /* of the answer; 0: a text */
static uint64_t file_lacks; /* bytes that are missing when it is read */
static unsigned n_calls;

static void answer(void *userdata, Exchange *x) {
        Response *r = &x->response;

        assert_int_equal(x->number, ++n_calls);
        r->body = RESPONSE_BODY_MEMORY;
        r->size = 2;
        r->memory = "ok";
        if (file_size > 0) {
                r->body = RESPONSE_BODY_FILE;
                r->fd = memfd_create("file", MFD_CLOEXEC);
                assert_int_equal(ftruncate(r->fd, (off_t) (file_size - file_lacks)), 0);
                r->size = file_size;
        }
        if (answer_status != 200)
                response_set_error(r, answer_status);
        exchange_respond(x);
}

static int setup(void **state) {
        ServerSettings settings;

        answer_status = 200;
        file_size = file_lacks = n_calls = 0;
        server_settings_init(&settings);
        fixture_open(&settings, &(Handler){ .request = answer });
        return 0;
}

static int teardown(void **state) {
        fixture_close();
        return 0;
}

/* An idle connection owns no buffer, before its first request and after each. */
static void test_idle_owns_nothing(void **state) {
        for (int i = 0; i < 3; i++) {
                assert_int_equal(connection->record->state, CONNECTION_IDLE);
                assert_int_equal(connection->input, BUFFER_NONE);
                assert_int_equal(connection->record->out.buffer, BUFFER_NONE);
                assert_int_equal(say(GET), CONNECTION_WANT_READ);
                assert_non_null(strstr(heard(), "\r\n\r\nok"));
        }
        assert_int_equal(say("GET"), CONNECTION_WANT_READ);
        assert_int_equal(connection->record->state, CONNECTION_READING);
        assert_int_not_equal(connection->input, BUFFER_NONE);
}

/* A body that the handler did not ask for passes by behind the answer, in pieces, and the request behind it
 * is answered. */
static void test_bodies(void **state) {
        say("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nab");
        assert_non_null(strstr(heard(), "\r\n\r\nok"));
        assert_int_equal(connection->record->state, CONNECTION_BODY);
        say("cdePOST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nx");
        assert_int_equal(n_calls, 2);
        say("yz\r\n0\r\n\r\n" GET);
        assert_int_equal(n_calls, 3);
        assert_int_equal(connection->record->state, CONNECTION_IDLE);
}

/* The time for a request runs from its first byte to its last; what trickles in does not stretch it. */
static void test_request_deadline(void **state) {
        say("GET");
        assert_null(wait_usec(9 * USEC_PER_SEC));
        say(" /");
        assert_ptr_equal(wait_usec(1 * USEC_PER_SEC), &connection->timeout);
        assert_int_equal(connection_expired(connection), CONNECTION_WANT_READ);
        assert_int_equal(connection->record->state, CONNECTION_LINGERING);
        assert_non_null(strstr(heard(), "408 Request Timeout"));
        assert_ptr_equal(wait_usec(2 * USEC_PER_SEC), &connection->timeout);
        assert_int_equal(connection_expired(connection), CONNECTION_WANT_CLOSE);
}

/* An idle connection is closed without a word. */
static void test_idle_deadline(void **state) {
        assert_ptr_equal(wait_usec(60 * USEC_PER_SEC), &connection->timeout);
        assert_int_equal(connection_expired(connection), CONNECTION_WANT_CLOSE);
        assert_string_equal(heard(), "");
}

/* Who has been late is this side: what is in the socket when the time is over is looked at first. */
static void test_late_look(void **state) {
        assert_int_equal(send(client, GET, strlen(GET), 0), strlen(GET));
        assert_ptr_equal(wait_usec(60 * USEC_PER_SEC), &connection->timeout);
        assert_int_equal(connection_expired(connection), CONNECTION_WANT_READ);
        assert_int_equal(connection->record->state, CONNECTION_IDLE);
        assert_non_null(strstr(heard(), "200 OK"));

        assert_int_equal(send(client, "GET", 3, 0), 3);
        assert_ptr_equal(wait_usec(60 * USEC_PER_SEC), &connection->timeout);
        assert_int_equal(connection_expired(connection), CONNECTION_WANT_READ);
        assert_int_equal(connection->record->state, CONNECTION_READING);
        assert_null(wait_usec(9 * USEC_PER_SEC));

        assert_int_equal(send(client, &GET[3], strlen(&GET[3]), 0), strlen(&GET[3]));
        assert_ptr_equal(wait_usec(10 * USEC_PER_SEC), &connection->timeout);
        assert_int_equal(connection_expired(connection), CONNECTION_WANT_READ);
        assert_int_equal(connection->record->state, CONNECTION_IDLE);
        assert_non_null(strstr(heard(), "200 OK"));

        server_drain(&server);
        assert_int_equal(send(client, GET, strlen(GET), 0), strlen(GET));
        assert_ptr_equal(wait_usec(1 * USEC_PER_SEC), &connection->timeout);
        assert_int_equal(connection_expired(connection), CONNECTION_WANT_READ);
        assert_int_equal(connection->record->state, CONNECTION_LINGERING);
        assert_non_null(strstr(heard(), "200 OK"));
}

/* A client that does not read is not read from either; real progress moves the deadline, standing still does
 * not. */
static void test_back_pressure(void **state) {
        file_size = 4 * 1024 * 1024;
        assert_int_equal(say(GET GET), CONNECTION_WANT_WRITE);
        assert_int_equal(connection->record->state, CONNECTION_SENDING);
        assert_int_equal(n_calls, 1);
        wait_usec(20 * USEC_PER_SEC);
        for (int i = 0; i < 4; i++)
                heard();
        assert_int_equal(connection_ready(connection), CONNECTION_WANT_WRITE);
        assert_null(wait_usec(20 * USEC_PER_SEC));
        assert_int_equal(connection_ready(connection), CONNECTION_WANT_WRITE);
        assert_ptr_equal(wait_usec(10 * USEC_PER_SEC), &connection->timeout);
        assert_int_equal(connection_expired(connection), CONNECTION_WANT_CLOSE);
}

/* A client may read steadily without making so much room that the kernel takes more: that is progress too.
 */
static void test_slow_reader(void **state) {
        struct pollfd p = { .fd = connection->fd, .events = POLLOUT };
        static char buf[70000]; /* in whole pieces of what sendfile(2) has queued */

        file_size = 4 * 1024 * 1024;
        assert_int_equal(say(GET), CONNECTION_WANT_WRITE);
        for (int i = 0; i < 2; i++) {
                for (size_t n = 0; n < sizeof(buf);)
                        n += (size_t) recv(client, buf, sizeof(buf) - n, 0);
                assert_int_equal(poll(&p, 1, 0), 0);
                assert_ptr_equal(wait_usec(30 * USEC_PER_SEC), &connection->timeout);
                assert_int_equal(connection_expired(connection), CONNECTION_WANT_WRITE);
        }
        assert_ptr_equal(wait_usec(30 * USEC_PER_SEC), &connection->timeout);
        assert_int_equal(connection_expired(connection), CONNECTION_WANT_CLOSE);
}

/* However many requests are there, a turn answers so many of them; the next one goes on where it stopped. */
static void test_turn_is_bounded(void **state) {
        static char requests[400 * (sizeof(GET) - 1) + 1];
        int turns = 1;

        for (int i = 0; i < 400; i++)
                memcpy(requests + (size_t) i * (sizeof(GET) - 1), GET, sizeof(GET));
        assert_int_equal(say(requests), CONNECTION_WANT_WRITE);
        assert_in_range(n_calls, 100, 200);
        for (; connection->record->state != CONNECTION_IDLE && turns < 10; turns++) {
                heard();
                connection_ready(connection);
        }
        assert_int_equal(n_calls, 400);
        assert_in_range(turns, 3, 5);
}

/* While the worker drains, the next answer is the last, and says so. */
static void test_drain(void **state) {
        assert_int_equal(say(GET), CONNECTION_WANT_READ);
        assert_null(strstr(heard(), "Connection: close"));
        server_drain(&server);
        assert_int_equal(say(GET), CONNECTION_WANT_READ);
        assert_int_equal(connection->record->state, CONNECTION_LINGERING);
        assert_non_null(strstr(heard(), "Connection: close"));
        assert_int_equal(say(GET), CONNECTION_WANT_READ); /* too late: thrown away */
        assert_int_equal(n_calls, 2);
        safe_close(client);
        client = -EBADF;
        assert_int_equal(connection_ready(connection), CONNECTION_WANT_CLOSE);
}

/* A client that asked for the close gets it at once. */
static void test_close_on_request(void **state) {
        assert_int_equal(say("GET / HTTP/1.0\r\n\r\n"), CONNECTION_WANT_CLOSE);
        assert_non_null(strstr(heard(), "\r\n\r\nok"));
}

/* … unless it sends a body yet: a reset could reach it before the answer. */
static void test_close_on_request_with_body(void **state) {
        assert_int_equal(
                        say("POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 1000000\r\n\r\n"),
                        CONNECTION_WANT_READ);
        assert_non_null(strstr(heard(), "\r\n\r\nok"));
        assert_int_equal(connection->record->state, CONNECTION_LINGERING);
}

/* What a lingering client sends is thrown away, however much it is, but not for ever. */
static void test_linger(void **state) {
        static char junk[16384];

        assert_int_equal(say("\n"), CONNECTION_WANT_READ);
        assert_int_equal(connection->record->state, CONNECTION_LINGERING);
        memset(junk, 'x', sizeof(junk) - 1);
        for (int i = 0; i < 1000; i++)
                assert_int_equal(say(junk), CONNECTION_WANT_READ);
        assert_ptr_equal(wait_usec(server.settings.timeout_usec[TIMEOUT_LINGER]), &connection->timeout);
        assert_int_equal(connection_expired(connection), CONNECTION_WANT_CLOSE);
}

/* A file shorter than announced: 500 while nothing is sent yet, a broken connection after that. */
static void test_short_file(void **state) {
        file_size = 100;
        file_lacks = 1;
        assert_int_equal(say(GET GET), CONNECTION_WANT_READ);
        assert_non_null(strstr(heard(), "500 Internal"));
        assert_int_equal(connection->record->state, CONNECTION_LINGERING);
        assert_int_equal(n_calls, 1);
}

static void test_short_large_file(void **state) {
        file_size = 100000;
        file_lacks = 1;
        assert_int_equal(say(GET), CONNECTION_WANT_WRITE); /* as if the socket had taken no more */
        assert_int_equal(connection_ready(connection), CONNECTION_WANT_CLOSE);
}

/* The end of the client's side is the end; a half request is not answered. */
static void test_client_leaves(void **state) {
        say("GET /");
        shutdown(client, SHUT_WR);
        assert_int_equal(connection_ready(connection), CONNECTION_WANT_CLOSE);
        assert_string_equal(heard(), "");
}

/* A header of the PROXY protocol, whatever the pieces, says who the client is; what follows it is HTTP. Who
 * begins otherwise gets no answer. */
static void check_proxy(const char *text, ConnectionWant want, unsigned n_answers, uint16_t port) {
        ServerSettings settings;
        ConnectionWant got = CONNECTION_WANT_READ;

        server_settings_init(&settings);
        settings.proxy_protocol = true;
        n_calls = 0;
        answer_status = 200;
        fixture_open(&settings, &(Handler){ .request = answer });
        for (const char *p = text; *p && got == CONNECTION_WANT_READ; p++)
                got = say_bytes(p, 1);
        assert_int_equal(got, want);
        assert_int_equal(n_calls, n_answers);
        assert_int_equal(connection->record->client.port, port);
        fixture_close();
}

static void test_proxy_header(void **state) {
        check_proxy("PROXY TCP4 192.0.2.1 192.0.2.2 1234 80\r\n" GET GET, CONNECTION_WANT_READ, 2, 1234);
        check_proxy("PROXY UNKNOWN\r\n" GET, CONNECTION_WANT_READ, 1, 0);
        check_proxy("PROXY TCP4 192.0.2.1 192.0.2.2 1234 80\n", CONNECTION_WANT_CLOSE, 0, 0);
        check_proxy(GET, CONNECTION_WANT_CLOSE, 0, 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void) {
        static const struct CMUnitTest tests[] = {
                TEST(test_idle_owns_nothing),
                TEST(test_bodies),
                TEST(test_request_deadline),
                TEST(test_idle_deadline),
                TEST(test_late_look),
                TEST(test_back_pressure),
                TEST(test_slow_reader),
                TEST(test_turn_is_bounded),
                TEST(test_drain),
                TEST(test_close_on_request),
                TEST(test_close_on_request_with_body),
                TEST(test_linger),
                TEST(test_short_file),
                TEST(test_short_large_file),
                TEST(test_client_leaves),
                cmocka_unit_test(test_proxy_header),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
