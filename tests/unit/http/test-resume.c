/* SPDX-License-Identifier: MIT */
/* What comes of a connection when its process dies at a point that a sweep (test-adopt.c) would hardly hit.
 * Here a process dies by being forgotten: its descriptors and the table stay, for the one that takes over.
 */

#include "http/adopt.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "basic/macro.h"
#include "fixture.h"

#define POST(length)  "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: " length "\r\n\r\n"
#define EXPECT        "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n"
#define CHUNKED       "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
#define CONTINUE      "HTTP/1.1 100 Continue\r\n\r\n"
#define N_DESCRIPTORS 64

/* Of a spooled body beyond twice what the handler has got. */
#define SPOOL_EXTRA (64 * 1024)

static Exchange *held; /* by the handler, which goes on with it later */
static char pattern[300000];
static char got[400000];
static size_t n_got;

/*
 * Processes
 */

static void open_with(void (*request)(void *userdata, Exchange *x)) {
        ServerSettings settings;

        server_settings_init(&settings);
        settings.n_descriptors = N_DESCRIPTORS;
        fixture_open(&settings, &(Handler){ .request = request });
}

/* Only its memory goes with it. */
static void die(void) {
        Exchange *x = connection->exchange;

        if (x) {
                free(x->kept_head);
                free(x->trailers);
                free(x);
        }
        held = NULL;
        connection = NULL;
        server.n_connections = 0;
        server_done(&server);
}

static int restore(unsigned blame, uint64_t *needed) {
        int fd = connection->fd, r;

        die();
        r = adopt_restore(&table, fd, blame, needed);
        if (r < 0)
                close(fd);
        return r;
}

static void assert_refused(void) {
        uint64_t needed[1] = { 0 };

        assert_true(restore(0, needed) < 0);
}

static void take_over(unsigned blame) {
        const ServerSettings settings = server.settings;
        const Handler handler = server.handler;
        uint64_t needed[1] = { 0 };
        int fd = connection->fd;

        assert_int_equal(restore(blame, needed), 0);
        assert_int_equal(adopt_buffers(&table, N_DESCRIPTORS), 0);
        assert_int_equal(server_init(&server, &settings, &handler, &cell, &table), 0);
        server_set_time(&server, USEC_PER_SEC, 1);
        assert_int_equal(adopt_resume(&server, fd, needed, &connection), 0);
        assert_int_equal(needed[0], 0);
}

/* What the loop does between two waits. */
static ConnectionWant run(void) {
        ConnectionWant want = connection_ready(connection);

        while (!(want & CONNECTION_WANT_CLOSE) && server_next_runnable(&server))
                want = connection_ready(connection);
        return want;
}

static int setup(void **state) {
        held = NULL;
        n_got = 0;
        for (size_t i = 0; i < sizeof(pattern); i++)
                pattern[i] = (char) ('!' + i * 7 % 89);
        return 0;
}

static int teardown(void **state) {
        if (connection)
                connection_done(connection);
        connection = NULL;
        if (held)
                exchange_abort(held);
        fixture_close();
        return 0;
}

/*
 * The client
 */

/* Of what is sent most has to wait. */
static void take_little(void) {
        int size = 1;

        assert_int_equal(setsockopt(connection->fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size)), 0);
}

static void collect(void) {
        ssize_t n;

        while ((n = recv(client, got + n_got, sizeof(got) - n_got, 0)) > 0)
                n_got += (size_t) n;
}

static void collect_all(void) {
        while (run() & CONNECTION_WANT_WRITE)
                collect();
        collect();
}

static void assert_got(size_t size) {
        const char *end = memmem(got, n_got, "\r\n\r\n", 4);

        assert_non_null(end);
        assert_int_equal(n_got - (size_t) (end + 4 - got), size);
        assert_memory_equal(end + 4, pattern, size);
}

static void say_pattern(size_t size) {
        for (size_t at = 0; at < size; at += 1000)
                say_bytes(pattern + at, 1000);
}

/* The kernel resets connections of this kind only. To be called before anything was said. */
static void use_tcp(void) {
        struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
        const struct timeval patience = { .tv_sec = 20 };
        socklen_t n = sizeof(a);

        _cleanup_close_ int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        assert_int_equal(bind(listener, (struct sockaddr *) &a, n), 0);
        assert_int_equal(listen(listener, 1), 0);
        assert_int_equal(getsockname(listener, (struct sockaddr *) &a, &n), 0);
        close(client);
        client = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        assert_int_equal(setsockopt(client, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience)), 0);
        assert_int_equal(connect(client, (struct sockaddr *) &a, n), 0);

        _cleanup_close_ int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        assert_int_equal(dup3(fd, connection->fd, O_CLOEXEC), connection->fd);
}

static void wait_input(int fd) {
        struct pollfd p = { .fd = fd, .events = POLLIN };

        assert_int_equal(poll(&p, 1, 20000), 1);
}

/*
 * Handlers
 */

static bool has_begun(Exchange *x) {
        unsigned n;
        size_t size;

        return exchange_get_checkpoint(x, &n, sizeof(n), &size);
}

static void go_on(Exchange *x, const char *text, unsigned next) {
        assert_int_equal(exchange_write(x, text, strlen(text)), strlen(text));
        assert_int_equal(exchange_checkpoint(x, &next, sizeof(next)), 0);
}

static void begin(Exchange *x) {
        x->response.size = RESPONSE_SIZE_UNKNOWN;
        assert_int_equal(exchange_begin(x), 0);
}

static void respond(Exchange *x, size_t size) {
        x->response.body = RESPONSE_BODY_MEMORY;
        x->response.memory = pattern;
        x->response.size = size;
        exchange_respond(x);
}

static void respond_large(Exchange *x, int error) {
        held = NULL;
        if (error == 0)
                respond(x, sizeof(pattern));
        else
                exchange_abort(x);
}

static void read_keyed(void *userdata, Exchange *x) {
        held = x;
        exchange_allow_rerun(x);
        exchange_read_body(x, sizeof(pattern));
}

/*
 * Streams
 */

static void begin_or_hold(void *userdata, Exchange *x) {
        held = x;
        if (has_begun(x))
                return;
        begin(x);
        go_on(x, "one\n", 1);
}

/* A handler that takes its time before it goes on, such as one in a thread, is not late ever after. */
static void test_resumed_late(void **state) {
        open_with(begin_or_hold);
        say(GET);
        assert_non_null(strstr(heard(), "one\n"));
        take_over(0);
        assert_int_equal(run(), CONNECTION_WANT_HANGUP);
        assert_int_equal(connection->record->state, CONNECTION_HANDLING);

        begin(held);
        go_on(held, "two\n", 2);
        assert_int_equal(run(), CONNECTION_WANT_HANGUP);
        assert_string_equal(heard(), "4\r\ntwo\n\r\n");
        assert_null(wait_usec(61 * USEC_PER_SEC));
        exchange_end(TAKE_PTR(held));
        assert_int_equal(run(), CONNECTION_WANT_READ);
        assert_string_equal(heard(), "0\r\n\r\n");
}

/* Nobody may take what was written by then for all of the answer. */
static void test_aborted_stream(void **state) {
        open_with(begin_or_hold);
        say(GET);
        assert_int_equal(exchange_write(held, "half", 4), 4);
        exchange_abort(TAKE_PTR(held));
        assert_refused();
}

static void test_aborted_post(void **state) {
        open_with(read_keyed);
        say(POST("60000"));
        say_pattern(60000);
        assert_true(connection->gap);
        begin(held);
        assert_int_equal(exchange_write(held, "one\n", 4), 4);
        exchange_abort(TAKE_PTR(held));
        assert_refused();
}

#define STREAM_SIZE 15000

static void write_all(void *userdata, Exchange *x) {
        held = x;
        x->response.size = STREAM_SIZE;
        assert_int_equal(exchange_begin(x), 0);
        assert_int_equal(exchange_write(x, pattern, STREAM_SIZE), STREAM_SIZE);
}

/* What is complete only has to be sent, which needs no handler. */
static void test_ended_stream(void **state) {
        open_with(write_all);
        take_little();
        say(GET);
        assert_true(connection->record->sent > 1000); /* more than its head */
        exchange_end(TAKE_PTR(held));
        assert_true(run() & CONNECTION_WANT_WRITE);
        assert_true(connection->record->out.start < connection->record->out.end);
        take_over(0);
        collect_all();
        assert_got(STREAM_SIZE);
}

static void begin_or_abort(void *userdata, Exchange *x) {
        if (has_begun(x))
                exchange_abort(x);
        else
                begin_or_hold(userdata, x);
}

/* Only the reset tells a client of HTTP/1.0 that there should have been more. */
static void test_abort_instead_of_resume(void **state) {
        open_with(begin_or_abort);
        use_tcp();
        assert_int_equal(send(client, "GET / HTTP/1.0\r\n\r\n", 18, 0), 18);
        wait_input(connection->fd);
        run();
        assert_non_null(strstr(heard(), "one\n"));
        take_over(0);
        assert_int_equal(run(), CONNECTION_WANT_CLOSE);
        connection_done(TAKE_PTR(connection));
        assert_int_equal(recv(client, got, sizeof(got), 0), -1);
        assert_int_equal(errno, ECONNRESET);
}

/*
 * Bodies
 */

static void read_then_respond(void *userdata, Exchange *x) {
        held = x;
        x->on_body_end = respond_large;
        exchange_read_body(x, 1000);
}

/* What was said for one request does not count for the next. */
static void test_continue(void **state) {
        open_with(read_then_respond);
        take_little();
        say(EXPECT);
        assert_string_equal(heard(), CONTINUE);
        say("abc");
        assert_true(connection->record->out.file_left > 0);
        take_over(0);
        collect_all();
        assert_got(sizeof(pattern));
        say(EXPECT);
        assert_string_equal(heard(), CONTINUE);
}

/* Chunks that are nearly nothing but their heads do not make the worker keep many times what a body may be.
 */
static void test_spool_of_small_chunks(void **state) {
        static const char chunk[] = "0000000000000001\r\nX\r\n";
        char chunks[400 * (sizeof(chunk) - 1)];

        for (size_t at = 0; at < sizeof(chunks); at += sizeof(chunk) - 1)
                memcpy(chunks + at, chunk, sizeof(chunk) - 1);
        open_with(read_keyed);
        say(CHUNKED);
        for (unsigned i = 1; i <= 40; i++) {
                say_bytes(chunks, sizeof(chunks));
                assert_int_equal(held->body_read, i * 400);
                assert_true(connection->spooled <= 2 * held->body_read + SPOOL_EXTRA + table.buffer_size);
        }
        assert_true(connection->spooled > 0);
        assert_true(connection->blind);
}

static void read_keyed_then_respond(void *userdata, Exchange *x) {
        read_keyed(userdata, x);
        x->on_body_end = respond_large;
}

/* A slow client does not make the worker keep what nobody needs any more. */
static void test_no_spool_while_sending(void **state) {
        open_with(read_keyed_then_respond);
        take_little();
        say(POST("60000"));
        say_pattern(59000);
        assert_true(connection->spool_fd >= 0);
        say_bytes(pattern, 1000);
        assert_int_equal(connection->record->state, CONNECTION_SENDING);
        assert_true(connection->record->out.file_left > 0);
        assert_true(connection->spool_fd < 0);
        take_over(0);
        collect_all();
        assert_got(sizeof(pattern));
}

/*
 * Crashes
 */

#define FIRST  "GET /1 HTTP/1.1\r\nHost: a\r\n\r\n"
#define SECOND "GET /2 HTTP/1.1\r\nHost: a\r\n\r\n"

static jmp_buf death;
static unsigned n_first, n_second; /* how often they were given to the handler */

static void crash(void *userdata, Exchange *x) {
        if (exchange_head(x)[x->request.path.offset + 1] == '2')
                n_second++;
        else if (n_first++ == 0) {
                respond(x, 2);
                return;
        }
        longjmp(death, 1);
}

static bool run_crashes(void) {
        if (setjmp(death) != 0)
                return true;
        run();
        return false;
}

/* The answer to the first request dies with the process, so that it is run again, after the second one was
 * at work. It is the first one that kills all others. */
static void test_blame_of_earlier_request(void **state) {
        unsigned n_crashes = 0;

        n_first = n_second = 0;
        open_with(crash);
        assert_int_equal(send(client, FIRST SECOND, strlen(FIRST SECOND), 0), strlen(FIRST SECOND));
        assert_true(run_crashes());
        assert_int_equal(n_first, 1);
        assert_int_equal(n_second, 1);
        assert_string_equal(heard(), "");

        for (take_over(RECORD_BLAME_CRASH); run_crashes(); take_over(RECORD_BLAME_CRASH))
                assert_true(++n_crashes <= 3);
        assert_int_equal(n_first, 1 + n_crashes);
        assert_int_equal(n_second, 1);
        assert_memory_equal(heard(), "HTTP/1.1 500 ", 13);
}

static void hold(void *userdata, Exchange *x) {
        held = x;
}

static Commit *open_commit(void) {
        Record *r;

        open_with(hold);
        say(GET);
        r = connection->record;
        return r->commits + atomic_load(&r->commit) % 2;
}

/* An app that wrote where it should not have takes its own connections along, not the process that comes
 * after it. */
static void test_nonsense_in_output(void **state) {
        open_commit()->out.buffer = 1U << 30;
        assert_refused();
}

static void test_nonsense_in_input(void **state) {
        Commit *k = open_commit();

        k->tail_at = (uint32_t) table.buffer_size + 1;
        assert_refused();
}

#define TEST(name) cmocka_unit_test_setup_teardown(test_##name, setup, teardown)

int main(void) {
        const struct CMUnitTest tests[] = {
                TEST(resumed_late),
                TEST(aborted_stream),
                TEST(aborted_post),
                TEST(ended_stream),
                TEST(abort_instead_of_resume),
                TEST(continue),
                TEST(spool_of_small_chunks),
                TEST(no_spool_while_sending),
                TEST(blame_of_earlier_request),
                TEST(nonsense_in_output),
                TEST(nonsense_in_input),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
