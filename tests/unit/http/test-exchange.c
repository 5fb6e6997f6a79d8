/* SPDX-License-Identifier: MIT */
#include "http/exchange.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "fixture.h"

#define POST(length) "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: " length "\r\n\r\n"
#define CHUNKED      "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"

static Exchange *open_exchange; /* the last one that was handed to the handler */
static char body[131072];
static size_t body_size;
static int body_end; /* what on_body_end() was told; 1: nothing yet */
static unsigned n_gone, n_writable;
static uint64_t body_wanted;

static void on_body(Exchange *x, const char *data, size_t n) {
        assert_ptr_equal(x, open_exchange);
        assert_true(n > 0 && body_size + n <= sizeof(body));
        memcpy(body + body_size, data, n);
        body_size += n;
}

static void on_body_end(Exchange *x, int error) {
        assert_int_equal(body_end, 1);
        body_end = error;
}

static void on_gone(Exchange *x) {
        n_gone++;
}

static void on_writable(Exchange *x) {
        n_writable++;
}

static void request(void *userdata, Exchange *x) {
        assert_null(open_exchange);
        open_exchange = x;
        x->on_body = on_body;
        x->on_body_end = on_body_end;
        x->on_gone = on_gone;
        x->on_writable = on_writable;
        if (body_wanted > 0)
                exchange_read_body(x, body_wanted);
}

static int setup(void **state) {
        ServerSettings settings;

        open_exchange = NULL;
        body_size = n_gone = n_writable = 0;
        body_end = 1;
        body_wanted = 0;
        server_settings_init(&settings);
        fixture_open(&settings, &(Handler){ .request = request });
        return 0;
}

static int teardown(void **state) {
        if (connection)
                connection_done(connection);
        connection = NULL;
        if (open_exchange)
                exchange_abort(open_exchange);
        fixture_close();
        return 0;
}

static Exchange *take(void) {
        Exchange *x = open_exchange;

        assert_non_null(x);
        open_exchange = NULL;
        return x;
}

static void respond(const char *text) {
        Exchange *x = take();

        x->response.body = RESPONSE_BODY_MEMORY;
        x->response.memory = text;
        x->response.size = strlen(text);
        exchange_respond(x);
}

/* What the loop does between two waits. */
static ConnectionWant run(void) {
        Connection *c = server_next_runnable(&server);

        assert_ptr_equal(c, connection);
        assert_null(server_next_runnable(&server));
        return connection_ready(connection);
}

static const char *content(void) {
        const char *end = strstr(heard(), "\r\n\r\n");

        return end ? end + 4 : "";
}

/* An answer may come later; until then nothing is read, and what was sent in the meantime is answered behind
 * it. */
static void test_late_answer(void **state) {
        assert_int_equal(say(GET GET), CONNECTION_WANT_HANGUP);
        assert_string_equal(heard(), "");
        assert_int_equal(connection->record->state, CONNECTION_HANDLING);
        assert_memory_equal(exchange_head(open_exchange), "GET / ", 6);
        respond("one");
        assert_string_equal(heard(), "");
        assert_int_equal(run(), CONNECTION_WANT_HANGUP);
        assert_string_equal(content(), "one");
        respond("two");
        assert_int_equal(run(), CONNECTION_WANT_READ);
        assert_string_equal(content(), "two");
        assert_int_equal(connection->record->state, CONNECTION_IDLE);
}

/* A client that has sent its request and closed its side still gets the answer; one that is gone altogether
 * ends the connection, and what is said to it goes nowhere. */
static void test_half_close(void **state) {
        say(GET);
        shutdown(client, SHUT_WR);
        assert_int_equal(connection_hung_up(connection, /* half_closed= */ true), CONNECTION_WANT_NOTHING);
        assert_int_equal(n_gone, 0);
        respond("late");
        assert_int_equal(run(), CONNECTION_WANT_CLOSE);
        assert_string_equal(content(), "late");
}

/* Who asked for the close and sent something all the same, while the answer was made, gets the answer and no
 * reset. */
static void test_close_with_unread_input(void **state) {
        say("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        assert_int_equal(send(client, "\r\n", 2, 0), 2);
        respond("last");
        assert_int_equal(run(), CONNECTION_WANT_READ);
        assert_int_equal(connection->record->state, CONNECTION_LINGERING);
        assert_string_equal(content(), "last");
        shutdown(client, SHUT_WR);
        assert_int_equal(connection_ready(connection), CONNECTION_WANT_CLOSE);
}

/* While it waits for a stream: the handler is told, unless the end of the stream is in sight. */
static void test_half_close_of_stream(void **state) {
        say(GET);
        open_exchange->response.size = 3;
        assert_int_equal(exchange_begin(open_exchange), 0);
        assert_int_equal(run(), CONNECTION_WANT_HANGUP);
        shutdown(client, SHUT_WR);
        assert_int_equal(connection_hung_up(connection, /* half_closed= */ true), CONNECTION_WANT_NOTHING);
        assert_int_equal(n_gone, 0);
        assert_int_equal(exchange_write(open_exchange, "end", 3), 3);
        exchange_end(take());
        assert_int_equal(run(), CONNECTION_WANT_CLOSE);
        assert_string_equal(content(), "end");
}

static void test_half_close_of_endless_stream(void **state) {
        say(GET);
        open_exchange->response.size = RESPONSE_SIZE_UNKNOWN;
        assert_int_equal(exchange_begin(open_exchange), 0);
        assert_int_equal(run(), CONNECTION_WANT_HANGUP);
        shutdown(client, SHUT_WR);
        assert_int_equal(connection_hung_up(connection, /* half_closed= */ true), CONNECTION_WANT_NOTHING);
        assert_int_equal(n_gone, 1);
}

static void test_gone(void **state) {
        const char *value;
        size_t n;

        say(GET);
        assert_int_equal(connection_hung_up(connection, /* half_closed= */ false), CONNECTION_WANT_CLOSE);
        connection_done(connection);
        connection = NULL;
        assert_int_equal(n_gone, 1);
        assert_true(exchange_is_gone(open_exchange));
        assert_true(exchange_field(open_exchange, "host", &value, &n) && n == 1 && *value == 'a');
        respond("nobody hears it");
}

static void test_gone_while_streaming(void **state) {
        say(GET);
        open_exchange->response.size = RESPONSE_SIZE_UNKNOWN;
        assert_int_equal(exchange_begin(open_exchange), 0);
        connection_done(connection);
        connection = NULL;
        assert_int_equal(n_gone, 1);
        assert_int_equal(exchange_write(open_exchange, "x", 1), -ECONNRESET);
        exchange_end(take());
}

/* A handler that says nothing for too long is answered for; what it says later goes nowhere. */
static void test_answer_timeout(void **state) {
        say(GET);
        assert_null(wait_usec(59 * USEC_PER_SEC));
        assert_ptr_equal(wait_usec(1 * USEC_PER_SEC), &connection->timeout);
        assert_int_equal(connection_expired(connection), CONNECTION_WANT_READ);
        assert_non_null(strstr(heard(), "503 Service Unavailable"));
        assert_int_equal(n_gone, 1);
        respond("too late");
        assert_null(server_next_runnable(&server));
        assert_string_equal(heard(), "");
}

/* An answer that is given while the time runs out, after the connection's last turn, is in time. */
static void test_answer_in_time(void **state) {
        say(GET);
        respond("in time");
        assert_ptr_equal(wait_usec(60 * USEC_PER_SEC), &connection->timeout);
        assert_int_equal(connection_expired(connection), CONNECTION_WANT_READ);
        assert_string_equal(content(), "in time");
        assert_int_equal(connection->record->state, CONNECTION_IDLE);
        assert_int_equal(n_gone, 0);
        assert_non_null(wait_usec(60 * USEC_PER_SEC));
}

static void test_file_in_time(void **state) {
        Exchange *x;

        say(GET);
        x = take();
        x->response.body = RESPONSE_BODY_FILE;
        x->response.fd = memfd_create("file", MFD_CLOEXEC);
        x->response.size = 20000;
        assert_int_equal(ftruncate(x->response.fd, 20000), 0);
        exchange_respond(x);
        assert_ptr_equal(wait_usec(60 * USEC_PER_SEC), &connection->timeout);
        assert_int_equal(connection_expired(connection), CONNECTION_WANT_READ);
        const char *text = heard();
        assert_non_null(strstr(text, "200 OK"));
        assert_null(strstr(text, "503"));
}

/* Likewise one that is given before the body has come. */
static void test_answer_in_time_for_body(void **state) {
        body_wanted = 10;
        say(POST("5") "ab");
        respond("enough");
        assert_ptr_equal(wait_usec(30 * USEC_PER_SEC), &connection->timeout);
        assert_int_equal(connection_expired(connection), CONNECTION_WANT_READ);
        assert_string_equal(content(), "enough");
        assert_int_equal(body_end, 1);
        assert_non_null(wait_usec(30 * USEC_PER_SEC)); /* for the rest of it */
}

static void test_pause_in_time(void **state) {
        body_wanted = 10;
        say(POST("5") "ab");
        exchange_pause_body(open_exchange, true);
        assert_ptr_equal(wait_usec(30 * USEC_PER_SEC), &connection->timeout);
        assert_int_equal(connection_expired(connection), CONNECTION_WANT_HANGUP);
        assert_int_equal(body_end, 1);
        assert_int_equal(connection->record->state, CONNECTION_HANDLING);
}

/* A stream has begun in time, and may be silent then. */
static void test_stream_may_be_silent(void **state) {
        say(GET);
        open_exchange->response.size = RESPONSE_SIZE_UNKNOWN;
        exchange_begin(open_exchange);
        run();
        assert_null(wait_usec(1000 * USEC_PER_SEC));
        exchange_end(take());
}

/* Both kinds of bodies arrive in order, whatever the pieces, and the head stays where it is. */
static void test_body(void **state) {
        const char *head;

        body_wanted = 1000;
        assert_int_equal(say(GET), CONNECTION_WANT_HANGUP);
        assert_int_equal(body_end, 0); /* there is none */
        respond("");
        run();
        heard();
        body_end = 1;

        assert_int_equal(say(POST("10") "0123"), CONNECTION_WANT_READ);
        head = exchange_head(open_exchange);
        assert_int_equal(connection->record->state, CONNECTION_BODY);
        assert_int_equal(say("45"), CONNECTION_WANT_READ);
        assert_int_equal(say("6789" GET), CONNECTION_WANT_HANGUP);
        assert_int_equal(body_end, 0);
        assert_memory_equal(body, "0123456789", body_size);
        assert_int_equal(body_size, 10);
        assert_ptr_equal(exchange_head(open_exchange), head);
        assert_memory_equal(head, "POST / ", 7);
        body_end = 1;
        respond("done");
        run();
        assert_string_equal(content(), "done");
        assert_non_null(open_exchange); /* the request behind the body */
}

static void test_chunked_body(void **state) {
        const char *value;
        size_t n;

        body_wanted = 1000;
        for (const char *p = CHUNKED "3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nSum: 5\r\nsum: 6\r\n\r\n"; *p; p++)
                say_bytes(p, 1);
        assert_int_equal(body_end, 0);
        assert_int_equal(body_size, 5);
        assert_memory_equal(body, "abcde", 5);
        assert_true(exchange_trailer(open_exchange, "sum", &value, &n) && n == 1 && *value == '5');
        assert_false(exchange_trailer(open_exchange, "su", &value, &n));
        respond("");
        assert_int_equal(run(), CONNECTION_WANT_READ);
        assert_int_equal(connection->record->state, CONNECTION_IDLE);
}

/* A body larger than a buffer passes by behind the head; one that the handler has paused waits in the
 * kernel. */
static void test_back_pressure(void **state) {
        static char block[8192];
        size_t sent = 0;
        ConnectionWant want = say(POST("100000"));

        body_wanted = 100000;
        exchange_read_body(open_exchange, 100000);
        run();
        while (sent < 60000) {
                memset(block, 'a' + (int) (sent / sizeof(block)), sizeof(block));
                want = say_bytes(block, sizeof(block));
                sent += sizeof(block);
                assert_int_equal(body_size, sent);
        }
        for (size_t i = 0; i < sent; i++)
                assert_int_equal(body[i], 'a' + (int) (i / sizeof(block)));
        exchange_pause_body(open_exchange, true);
        want = say_bytes(block, 1000);
        assert_int_equal(want, CONNECTION_WANT_HANGUP);
        assert_int_equal(body_size, sent);
        exchange_pause_body(open_exchange, false);
        assert_int_equal(run(), CONNECTION_WANT_READ);
        assert_int_equal(body_size, sent + 1000);
}

/* Also one that is paused from elsewhere, while it waits: what the handler does not want cannot be late. */
static void test_pause_stops_the_clock(void **state) {
        say(POST("5"));
        body_wanted = 5;
        exchange_read_body(open_exchange, 5);
        assert_int_equal(run(), CONNECTION_WANT_READ);
        exchange_pause_body(open_exchange, true);
        assert_int_equal(run(), CONNECTION_WANT_HANGUP);
        assert_null(wait_usec(server.settings.timeout_usec[TIMEOUT_BODY]));
        exchange_pause_body(open_exchange, false);
        assert_int_equal(run(), CONNECTION_WANT_READ);
        say("12345");
        assert_int_equal(body_size, 5);
        assert_int_equal(body_end, 0);
}

/* A handler that takes one piece after the other, from a client that is always ahead of it, is at work. */
static void take_and_pause(Exchange *x, const char *data, size_t n) {
        body_size += n;
        exchange_pause_body(x, true);
}

static void test_pauses_of_a_long_body(void **state) {
        static char block[8192];

        body_wanted = 1000000;
        say(POST("1000000"));
        open_exchange->on_body = take_and_pause;
        assert_int_equal(say_bytes(block, sizeof(block)), CONNECTION_WANT_HANGUP);
        for (int i = 0; i < 20; i++) {
                assert_int_equal(say_bytes(block, sizeof(block)), CONNECTION_WANT_HANGUP);
                exchange_pause_body(open_exchange, false);
                assert_int_equal(run(), CONNECTION_WANT_HANGUP);
                assert_null(wait_usec(20 * USEC_PER_SEC));
        }
        assert_int_equal(body_size, 21 * sizeof(block));
        assert_ptr_equal(wait_usec(60 * USEC_PER_SEC), &connection->timeout);
        exchange_abort(take());
}

/* RFC 9110, section 10.1.1: the word is given when the body is wanted, and not if it comes anyway. */
static void test_continue(void **state) {
        static const char head[] =
                        "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n";

        body_wanted = 10;
        say(head);
        assert_string_equal(heard(), "HTTP/1.1 100 Continue\r\n\r\n");
        say("ab");
        assert_int_equal(body_end, 0);
        respond("");
        run();
        assert_null(strstr(heard(), "Connection: close"));

        body_end = 1;
        say("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\nab");
        assert_string_equal(heard(), "");
        respond("");
        run();

        body_wanted = 0; /* the answer comes without the body: the client may or may not send it */
        heard();
        say(head);
        respond("");
        run();
        assert_non_null(strstr(heard(), "Connection: close"));
}

/* What is wrong with a body is told to the handler, whose answer is the last one. */
static void check_bad_body(const char *text, int error) {
        setup(NULL);
        body_wanted = 10;
        say(text);
        assert_int_equal(body_end, error);
        respond("sorry");
        run();
        assert_non_null(strstr(heard(), "Connection: close"));
        assert_int_equal(connection->record->state, CONNECTION_LINGERING);
        fixture_close();
}

static void test_bad_bodies(void **state) {
        check_bad_body(POST("11") "0", -EMSGSIZE);
        check_bad_body(CHUNKED "b\r\n", -EMSGSIZE);
        check_bad_body(CHUNKED "5\r\n01234\r\n6\r\n", -EMSGSIZE);
        check_bad_body(CHUNKED "x\r\n", -EBADMSG);
        check_bad_body(CHUNKED "1\r\nab\r\n", -EBADMSG);
}

/* Also when the answer has begun before, as one behind which the connection goes on: what follows is the
 * rest of that body, and no request. */
static void test_bad_body_while_streaming(void **state) {
        body_wanted = 10;
        say(CHUNKED "1\r\na\r\n");
        open_exchange->response.size = RESPONSE_SIZE_UNKNOWN;
        assert_int_equal(exchange_begin(open_exchange), 0);
        run();
        assert_null(strstr(heard(), "Connection: close"));
        say("ffff\r\n");
        assert_int_equal(body_end, -EMSGSIZE);
        exchange_end(take());
        run();
        assert_string_equal(heard(), "0\r\n\r\n");
        assert_int_equal(connection->record->state, CONNECTION_LINGERING);
        say(GET);
        assert_null(open_exchange);
}

static void test_body_timeout(void **state) {
        body_wanted = 10;
        say(POST("5") "ab");
        assert_null(wait_usec(29 * USEC_PER_SEC));
        assert_ptr_equal(wait_usec(1 * USEC_PER_SEC), &connection->timeout);
        assert_int_equal(connection_expired(connection), CONNECTION_WANT_HANGUP);
        assert_int_equal(body_end, -ETIMEDOUT);
        respond("");
        run();
        assert_non_null(strstr(heard(), "Connection: close"));
}

static void test_body_reset(void **state) {
        body_wanted = 10;
        say(POST("5") "ab");
        connection_done(connection);
        connection = NULL;
        assert_int_equal(body_end, -ECONNRESET);
}

/* RFC 9112, section 7.1: a stream of unknown size in chunks, with trailers. */
static void test_chunked_stream(void **state) {
        say(GET GET);
        open_exchange->response.size = RESPONSE_SIZE_UNKNOWN;
        assert_int_equal(exchange_begin(open_exchange), 0);
        assert_int_equal(exchange_write(open_exchange, "hello", 5), 5);
        run();
        assert_non_null(strstr(heard(), "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"));
        assert_int_equal(exchange_write(open_exchange, "0123456789abcdefg", 17), 17);
        assert_int_equal(exchange_add_trailer(open_exchange, "Sum", "1"), 0);
        assert_int_equal(exchange_add_trailer(open_exchange, "a b", "1"), -EINVAL);
        exchange_end(take());
        assert_int_equal(run(), CONNECTION_WANT_HANGUP);
        assert_string_equal(heard(), "11\r\n0123456789abcdefg\r\n0\r\nSum: 1\r\n\r\n");
        assert_non_null(open_exchange);
}

/* HTTP/1.0 knows no chunks: the end of the connection is the end of the body. */
static void test_old_stream(void **state) {
        say("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
        open_exchange->response.size = RESPONSE_SIZE_UNKNOWN;
        exchange_begin(open_exchange);
        exchange_write(open_exchange, "hello", 5);
        exchange_end(take());
        assert_int_equal(run(), CONNECTION_WANT_CLOSE);
        const char *text = heard();
        assert_non_null(strstr(text, "Connection: close\r\n\r\nhello"));
        assert_null(strstr(text, "chunked"));
}

/* A stream of known size is held to it. */
static void test_sized_stream(void **state) {
        say(GET);
        open_exchange->response.size = 5;
        exchange_begin(open_exchange);
        assert_int_equal(exchange_write(open_exchange, "123456", 6), -EMSGSIZE);
        assert_int_equal(exchange_write(open_exchange, "12345", 5), 5);
        exchange_end(take());
        assert_int_equal(run(), CONNECTION_WANT_READ);
        assert_string_equal(content(), "12345");

        say(GET);
        open_exchange->response.size = 5;
        exchange_begin(open_exchange);
        assert_int_equal(exchange_write(open_exchange, "123", 3), 3);
        exchange_end(take());
        assert_int_equal(run(), CONNECTION_WANT_CLOSE);
}

/* HEAD is answered like GET, without the body, in all three ways (RFC 9110, section 9.3.2). */
static void test_head(void **state) {
        static const char head[] = "HEAD / HTTP/1.1\r\nHost: a\r\n\r\n";

        say(head);
        respond("hello");
        run();
        assert_string_equal(content(), "");
        say(head);
        open_exchange->response.size = RESPONSE_SIZE_UNKNOWN;
        exchange_begin(open_exchange);
        assert_int_equal(exchange_write(open_exchange, "hello", 5), 5);
        exchange_end(take());
        run();
        assert_string_equal(content(), "");
        assert_int_equal(connection->record->state, CONNECTION_IDLE);
}

/* A client that does not read is not written for: what does not fit is the handler's to keep, and it is told
 * when there is room. */
static void test_slow_reader(void **state) {
        static char block[100000];
        size_t taken = 0, got = 0;
        ssize_t n;

        say(GET);
        open_exchange->response.size = 4 * sizeof(block);
        exchange_begin(open_exchange);
        do {
                n = exchange_write(open_exchange, block, sizeof(block));
                assert_true(n >= 0);
                taken += (size_t) n;
        } while (n == sizeof(block) && taken < 4 * sizeof(block));
        assert_true(taken < 4 * sizeof(block));
        assert_int_equal(exchange_room(open_exchange), 0);
        assert_int_equal(run(), CONNECTION_WANT_WRITE);
        assert_int_equal(n_writable, 0);
        while ((n = recv(client, block, sizeof(block), 0)) > 0) {
                got += (size_t) n;
                connection_ready(connection);
        }
        assert_int_equal(n_writable, 1);
        assert_true(got > taken);
        exchange_abort(take());
        assert_int_equal(run(), CONNECTION_WANT_CLOSE);
}

/* The answers before one that is given up are sent. */
static void abort_second(void *userdata, Exchange *x) {
        open_exchange = x;
        if (x->number == 1)
                respond("first");
        else
                exchange_abort(take());
}

static void test_abort_spares_earlier_answers(void **state) {
        char byte;

        server.handler.request = abort_second;
        assert_int_equal(say(GET GET GET), CONNECTION_WANT_READ);
        assert_int_equal(connection->record->state, CONNECTION_LINGERING);
        assert_int_equal(server.n_requests, 2);
        assert_string_equal(content(), "first");
        assert_int_equal(recv(client, &byte, 1, 0), 0);
}

/* An answer may begin before its request is complete. A client that does not read it yet is still read. */
static void echo(Exchange *x, const char *data, size_t n) {
        static char block[300000];

        body_size += n;
        if (x->phase == EXCHANGE_OPEN) {
                x->response.size = RESPONSE_SIZE_UNKNOWN;
                assert_int_equal(exchange_begin(x), 0);
                assert_true(exchange_write(x, block, sizeof(block)) < (ssize_t) sizeof(block));
        }
}

static void test_both_ways(void **state) {
        static char block[30000];

        body_wanted = 1000000;
        assert_int_equal(say(POST("100000")), CONNECTION_WANT_READ);
        open_exchange->on_body = echo;
        for (size_t sent = 0; sent < 90000; sent += sizeof(block))
                assert_int_equal(say_bytes(block, sizeof(block)),
                                CONNECTION_WANT_READ | CONNECTION_WANT_WRITE);
        assert_int_equal(body_size, 90000);
        assert_int_equal(connection->record->state, CONNECTION_BODY);
        assert_ptr_equal(wait_usec(30 * USEC_PER_SEC), &connection->timeout);
        connection_expired(connection);
        assert_int_equal(body_end, -ETIMEDOUT);
        exchange_abort(take());
}

/* A piece that was there in time, though this process was late, gives it more time, and not all of it. */
static void test_both_ways_late(void **state) {
        static char block[30000];

        body_wanted = 1000000;
        assert_int_equal(say(POST("100000")), CONNECTION_WANT_READ);
        open_exchange->on_body = echo;
        for (int i = 0; i < 2; i++) {
                assert_int_equal(say_bytes(block, sizeof(block)),
                                CONNECTION_WANT_READ | CONNECTION_WANT_WRITE);
                assert_null(wait_usec(USEC_PER_SEC));
        }
        assert_int_equal(send(client, "x", 1, MSG_NOSIGNAL), 1);
        assert_ptr_equal(wait_usec(30 * USEC_PER_SEC), &connection->timeout);
        assert_int_equal(connection_expired(connection), CONNECTION_WANT_READ | CONNECTION_WANT_WRITE);
        assert_int_equal(body_size, 2 * sizeof(block) + 1);
        assert_int_equal(body_end, 1);
        assert_ptr_equal(wait_usec(30 * USEC_PER_SEC), &connection->timeout);
        connection_expired(connection);
        assert_int_equal(body_end, -ETIMEDOUT);
        exchange_abort(take());
}

/* The same of the first request of a connection, in whose first turn everything is there. */
static void echo_request(void *userdata, Exchange *x) {
        request(userdata, x);
        x->on_body = echo;
}

static void test_both_ways_at_once(void **state) {
        static char text[18000];

        server.handler.request = echo_request;
        body_wanted = 1000000;
        memset(text, 'x', sizeof(text));
        memcpy(text, POST("100000"), strlen(POST("100000")));
        for (int i = 0; i < 4; i++)
                assert_int_equal(
                                say_bytes(text, sizeof(text)), CONNECTION_WANT_READ | CONNECTION_WANT_WRITE);
        assert_int_equal(body_size, 4 * sizeof(text) - strlen(POST("100000")));
        exchange_abort(take());
}

/* What is in memory and larger than a buffer goes out whole, too, and the next request waits for it. */
static void test_large_memory(void **state) {
        static char block[300001], got[400000];
        size_t n_got = 0;
        ssize_t n;

        memset(block, 'x', sizeof(block) - 1);
        say(GET GET);
        respond(block);
        run();
        while ((n = recv(client, got + n_got, sizeof(got) - n_got, 0)) > 0) {
                n_got += (size_t) n;
                if (connection->record->state == CONNECTION_SENDING)
                        connection_ready(connection);
        }
        assert_non_null(memmem(got, n_got, "Content-Length: 300000\r\n\r\nxxx", 29));
        assert_int_equal(got[n_got - 1], 'x');
        assert_int_equal(n_got - (size_t) (strstr(got, "\r\n\r\n") + 4 - got), 300000);
        assert_non_null(open_exchange);
}

/* Pieces of a file with text around them. */
static void test_parts(void **state) {
        static const ResponsePart parts[] = { { 0, 3, 2 }, { 20000, 10000, 1 }, { 5, 0, 1 } };
        static char got[40000];
        int fd = memfd_create("file", MFD_CLOEXEC);
        size_t n_got = 0;
        Exchange *x;
        ssize_t n;

        for (int i = 0; i < 40000; i++)
                assert_int_equal(write(fd, &"0123456789"[i % 10], 1), 1);
        say(GET);
        x = take();
        x->response.body = RESPONSE_BODY_PARTS;
        x->response.fd = fd;
        x->response.parts = parts;
        x->response.n_parts = 3;
        x->response.memory = "AABCDDD";
        x->response.memory_size = 7;
        x->response.size = 7 + 3 + 10000;
        exchange_respond(x);
        assert_int_equal(run(), CONNECTION_WANT_READ);
        while ((n = recv(client, got + n_got, sizeof(got) - n_got, 0)) > 0)
                n_got += (size_t) n;
        const char *p = strstr(got, "\r\n\r\n") + 4;
        assert_memory_equal(p, "AA012B0123456789", 16);
        assert_memory_equal(p + 7 + 3 + 10000 - 5, "9CDDD", 5);
        assert_int_equal(n_got - (size_t) (p - got), 10010);
        assert_int_equal(connection->record->out.parts, BUFFER_NONE);
        assert_int_equal(fcntl(fd, F_GETFD), -1);
}

static struct {
        FileHold hold;
        int n_released;
} held;

static void release(FileHold *hold) {
        held.n_released++;
}

/* A descriptor that somebody holds is given back once, when the last byte is sent, the client has gone, or
 * nothing of it is needed. */
static void test_hold(void **state) {
        static const uint64_t sizes[] = { 10, 100000, 10000000 };
        static char got[200000];
        int fd = memfd_create("file", MFD_CLOEXEC);
        Exchange *x;

        held.hold.release = release;
        assert_int_equal(ftruncate(fd, 10000000), 0);
        for (int i = 0; i < 3; i++) {
                held.n_released = 0;
                say(GET);
                x = take();
                x->response.body = RESPONSE_BODY_FILE;
                x->response.size = sizes[i];
                x->response.fd = fd;
                x->response.hold = &held.hold;
                exchange_respond(x);
                run();
                assert_int_equal(held.n_released, i < 2);
                while (i < 2 && recv(client, got, sizeof(got), 0) > 0)
                        ;
        }
        connection_done(connection);
        connection = NULL;
        assert_int_equal(held.n_released, 1);
        close(fd);
}

/* An answer without a body says so by itself (RFC 9110, section 6.4.1). */
static void test_no_content(void **state) {
        say(GET);
        open_exchange->response.status = 204;
        exchange_respond(take());
        run();
        const char *text = heard();
        assert_non_null(strstr(text, "204 No Content\r\n"));
        assert_null(strstr(text, "Content-Length"));
}

/* The board and the log see every exchange once. */
static unsigned n_logged, logged_status;
static uint64_t n_sent;

static void log_exchange(void *userdata, const Exchange *x) {
        n_logged++;
        logged_status = x->response.status;
        n_sent += x->sent;
}

static void test_log(void **state) {
        server.log = log_exchange;
        n_logged = n_sent = 0;
        say(GET "\r\n\r\n\r\n");
        respond("12345");
        run();
        assert_int_equal(n_logged, 2); /* what was no request, too */
        assert_true(n_sent > 5);
        assert_int_equal(cell.requests, 2);
}

/* One line for one request, also when the core answers it in the handler's stead. */
static void test_log_of_late_answer(void **state) {
        server.log = log_exchange;
        n_logged = n_sent = 0;
        say("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_ptr_equal(wait_usec(60 * USEC_PER_SEC), &connection->timeout);
        assert_int_equal(connection_expired(connection), CONNECTION_WANT_READ);
        assert_string_equal(content(), "");
        respond("too late");
        assert_int_equal(n_logged, 1);
        assert_int_equal(logged_status, 503);
        assert_int_equal(cell.requests, 1);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void) {
        static const struct CMUnitTest tests[] = {
                TEST(test_late_answer),
                TEST(test_half_close),
                TEST(test_close_with_unread_input),
                TEST(test_half_close_of_stream),
                TEST(test_half_close_of_endless_stream),
                TEST(test_gone),
                TEST(test_gone_while_streaming),
                TEST(test_answer_timeout),
                TEST(test_answer_in_time),
                TEST(test_file_in_time),
                TEST(test_answer_in_time_for_body),
                TEST(test_pause_in_time),
                TEST(test_stream_may_be_silent),
                TEST(test_body),
                TEST(test_chunked_body),
                TEST(test_back_pressure),
                TEST(test_pause_stops_the_clock),
                TEST(test_pauses_of_a_long_body),
                TEST(test_continue),
                cmocka_unit_test(test_bad_bodies),
                TEST(test_bad_body_while_streaming),
                TEST(test_body_timeout),
                TEST(test_body_reset),
                TEST(test_chunked_stream),
                TEST(test_old_stream),
                TEST(test_sized_stream),
                TEST(test_head),
                TEST(test_slow_reader),
                TEST(test_abort_spares_earlier_answers),
                TEST(test_both_ways),
                TEST(test_both_ways_late),
                TEST(test_both_ways_at_once),
                TEST(test_large_memory),
                TEST(test_parts),
                TEST(test_hold),
                TEST(test_no_content),
                TEST(test_log),
                TEST(test_log_of_late_answer),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
