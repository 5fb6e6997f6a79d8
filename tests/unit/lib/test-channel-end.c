/* SPDX-License-Identifier: MIT */
/* How a channel begins and ends: options and environment, the end from this side and from the other, and the
 * last reference dropped from within every handler. */

#include "channel-pair.h"

#include <sys/eventfd.h>

/*
 * The beginning
 */

/* The descriptor is the channel's from success on, and is made as it has to be. */
static void test_new(void **state) {
        muster_channel *c = NULL;
        int fds[2];

        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
        assert_int_equal(muster_channel_new(event, fds[0], NULL, NULL), -EINVAL);
        assert_int_equal(muster_channel_new(event, fds[0], NULL, &c), 0);
        assert_true(fcntl(fds[0], F_GETFL) & O_NONBLOCK);
        assert_true(fcntl(fds[0], F_GETFD) & FD_CLOEXEC);
        assert_int_equal(muster_channel_is_connected(c), 1);
        assert_int_equal(muster_channel_get_queued_bytes(c), 0);
        assert_ptr_equal(muster_channel_ref(c), c);
        assert_null(muster_channel_unref(c));
        assert_int_equal(fcntl(fds[0], F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
        assert_null(muster_channel_unref(c));
        raw_expect_end(fds[1]);
        close(fds[1]);
}

static void test_null(void **state) {
        muster_channel_handlers h = MUSTER_CHANNEL_HANDLERS_INIT;

        assert_null(muster_channel_ref(NULL));
        assert_null(muster_channel_unref(NULL));
        assert_int_equal(muster_channel_is_connected(NULL), 0);
        assert_int_equal(muster_channel_disconnect(NULL), -EINVAL);
        assert_int_equal(muster_channel_set_handlers(NULL, &h, NULL), -EINVAL);
}

/* Takes @fd, which stays open and its own. */
static void check_no_channel(int fd, int expected) {
        muster_channel *c = (muster_channel *) &c;

        assert_int_equal(muster_channel_new(event, fd, NULL, &c), expected);
        assert_ptr_equal(c, &c);
        if (fd >= 0)
                assert_int_equal(close(fd), 0);
}

static void test_no_such_socket(void **state) {
        int closed = eventfd(0, EFD_CLOEXEC);

        close(closed);
        assert_int_equal(muster_channel_new(event, closed, NULL, &(muster_channel *){ NULL }), -EBADF);
        check_no_channel(-1, -EBADF);
        check_no_channel(eventfd(0, EFD_CLOEXEC), -ENOTSOCK);
        check_no_channel(socket(AF_UNIX, SOCK_DGRAM, 0), -EPROTOTYPE);
        check_no_channel(socket(AF_UNIX, SOCK_SEQPACKET, 0), -EPROTOTYPE);
        check_no_channel(socket(AF_INET, SOCK_STREAM, 0), -EPROTOTYPE);
}

static int try_options(const void *options) {
        muster_channel *c = NULL;
        int fds[2], r;

        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
        r = muster_channel_new(event, fds[0], options, &c);
        if (r < 0)
                close(fds[0]);
        muster_channel_unref(c);
        close(fds[1]);
        return r;
}

/* Sizes of older and newer callers, and limits. */
static void test_options(void **state) {
        struct {
                muster_channel_options o;
                uint64_t newer;
        } later = { .o = MUSTER_CHANNEL_OPTIONS_INIT };
        muster_channel_options o = MUSTER_CHANNEL_OPTIONS_INIT;

        assert_int_equal(try_options(&o), 0);
        later.o.size = sizeof(later);
        assert_int_equal(try_options(&later), 0);
        later.newer = 1;
        assert_int_equal(try_options(&later), -E2BIG);
        o.size = 0;
        assert_int_equal(try_options(&o), -EINVAL);
        o.size = sizeof(o) - 1;
        assert_int_equal(try_options(&o), -EINVAL);

        o = (muster_channel_options) MUSTER_CHANNEL_OPTIONS_INIT;
        o.flags = MUSTER_CHANNEL_INTERNAL;
        assert_int_equal(try_options(&o), 0);
        o.flags |= UINT64_C(1) << 63;
        assert_int_equal(try_options(&o), -EINVAL);
        o.flags = MUSTER_CHANNEL_INTERNAL << 1;
        assert_int_equal(try_options(&o), -EINVAL);

        o = (muster_channel_options) MUSTER_CHANNEL_OPTIONS_INIT;
        o.max_message_bytes = UINT64_C(1) << 30;
        assert_int_equal(try_options(&o), 0);
        o.max_message_bytes++;
        assert_int_equal(try_options(&o), -EINVAL);
        o.max_message_bytes = UINT64_MAX;
        assert_int_equal(try_options(&o), -EINVAL);
        o.max_message_bytes = 1;
        o.max_queue_bytes = UINT64_MAX;
        assert_int_equal(try_options(&o), -EINVAL);
        o.max_queue_bytes = 1;
        assert_int_equal(try_options(&o), 0);
}

static void test_handlers_size(void **state) {
        struct {
                muster_channel_handlers h;
                void (*newer)(void);
        } later = { .h = MUSTER_CHANNEL_HANDLERS_INIT };
        muster_channel_handlers h = MUSTER_CHANNEL_HANDLERS_INIT;
        Ear e;
        int raw = half_make(&e, NULL);

        later.h.size = sizeof(later);
        assert_int_equal(muster_channel_set_handlers(e.channel, &later.h, NULL), 0);
        later.newer = abort;
        assert_int_equal(muster_channel_set_handlers(e.channel, &later.h, NULL), -E2BIG);
        h.size--;
        assert_int_equal(muster_channel_set_handlers(e.channel, &h, NULL), -EINVAL);
        assert_int_equal(muster_channel_set_handlers(e.channel, NULL, NULL), -EINVAL);
        ear_done(&e);
        close(raw);
}

/*
 * The environment
 */

static void set_number(const char *variable, int fd) {
        char text[16];

        snprintf(text, sizeof(text), "%d", fd);
        assert_int_equal(setenv(variable, text, 1), 0);
}

static void assert_environment_is_clean(void) {
        assert_null(getenv("MUSTER_CHANNEL_FD"));
        assert_null(getenv("NODE_CHANNEL_FD"));
        assert_null(getenv("NODE_CHANNEL_SERIALIZATION_MODE"));
}

static int from_environment(muster_channel **ret) {
        int r = muster_channel_from_environment(event, NULL, ret);

        assert_environment_is_clean();
        return r;
}

/* What was made speaks on that very socket. */
static void check_made(Ear *e, int number, int peer) {
        assert_true(fcntl(number, F_GETFD) & FD_CLOEXEC);
        assert_true(fcntl(number, F_GETFL) & O_NONBLOCK);
        ear_listen(e);
        assert_int_equal(ear_send(e, "\"up\"", -1, NULL), 0);
        raw_expect(peer, "\"up\"\n");
        raw_text(peer, "\"down\"\n");
        run_until(e->n_letters == 1);
        ear_done(e);
        close(peer);
}

static void test_environment(void **state) {
        static const char *const variables[] = { "MUSTER_CHANNEL_FD", "NODE_CHANNEL_FD" };

        for (size_t i = 0; i < 2 * ELEMENTSOF(variables); i++) {
                Ear e = { 0 };
                int fds[2];

                assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
                set_number(variables[i % ELEMENTSOF(variables)], fds[0]);
                if (i >= ELEMENTSOF(variables))
                        assert_int_equal(setenv("NODE_CHANNEL_SERIALIZATION_MODE", "json", 1), 0);
                assert_int_equal(from_environment(&e.channel), 0);
                check_made(&e, fds[0], fds[1]);
        }
}

/* A parent that knows this library says both; ours is the one that is meant. */
static void test_environment_both(void **state) {
        Ear e = { 0 };
        int ours[2], nodes[2];

        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, ours), 0);
        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, nodes), 0);
        set_number("MUSTER_CHANNEL_FD", ours[0]);
        set_number("NODE_CHANNEL_FD", nodes[0]);
        assert_int_equal(from_environment(&e.channel), 0);
        check_made(&e, ours[0], ours[1]);
        raw_expect_nothing(nodes[1]);
        close(nodes[0]);
        close(nodes[1]);
}

static void test_environment_empty(void **state) {
        muster_channel *c = NULL;

        assert_int_equal(from_environment(&c), -ENXIO);
        assert_int_equal(setenv("NODE_CHANNEL_SERIALIZATION_MODE", "json", 1), 0);
        assert_int_equal(from_environment(&c), -ENXIO);
        assert_null(c);
}

static void test_environment_wrong(void **state) {
        static const char *const values[] = { "", "x", "-1", "+3", " 3", "3 ", "3x", "0x3", "3.0",
                "2147483648", "4294967296", "18446744073709551619" };
        muster_channel *c = NULL;

        for (size_t i = 0; i < ELEMENTSOF(values); i++) {
                assert_int_equal(setenv(i % 2 ? "NODE_CHANNEL_FD" : "MUSTER_CHANNEL_FD", values[i], 1), 0);
                assert_int_equal(from_environment(&c), -EINVAL);
                assert_int_equal(from_environment(&c), -ENXIO);
        }
        assert_null(c);
}

/* A number of something else: told as by muster_channel_new(). */
static void test_environment_no_socket(void **state) {
        int fd = eventfd(0, EFD_CLOEXEC), closed = eventfd(0, EFD_CLOEXEC);
        muster_channel *c = NULL;

        close(closed);
        set_number("NODE_CHANNEL_FD", fd);
        assert_int_equal(from_environment(&c), -ENOTSOCK);
        set_number("MUSTER_CHANNEL_FD", closed);
        assert_int_equal(from_environment(&c), -EBADF);
        set_number("MUSTER_CHANNEL_FD", 2147483647);
        assert_int_equal(from_environment(&c), -EBADF);
        assert_null(c);
        close(fd);
}

/* A channel that is not to be understood is not passed on to others either. */
static void test_environment_advanced(void **state) {
        muster_channel *c = NULL;
        int fds[2];

        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
        set_number("NODE_CHANNEL_FD", fds[0]);
        assert_int_equal(setenv("NODE_CHANNEL_SERIALIZATION_MODE", "advanced", 1), 0);
        assert_int_equal(from_environment(&c), -EPROTONOSUPPORT);
        assert_null(c);
        assert_true(fcntl(fds[0], F_GETFD) & FD_CLOEXEC);
        close(fds[0]);
        close(fds[1]);
}

/*
 * The end from this side
 */

/* Told from the loop, while nothing can be sent from the call on. */
static void test_disconnect(void **state) {
        Ear e;
        int raw = half_listening(&e, NULL);

        assert_int_equal(ear_send(&e, "1", -1, NULL), 0);
        assert_int_equal(CALL(muster_channel_disconnect(e.channel)), 0);
        assert_int_equal(muster_channel_is_connected(e.channel), 0);
        assert_int_equal(e.n_ended, 0);
        assert_int_equal(ear_send(&e, "2", -1, NULL), -EPIPE);
        assert_int_equal(CALL(muster_channel_disconnect(e.channel)), -EPIPE);
        expect_ended(&e, 0);
        raw_expect(raw, "1\n");
        raw_expect_end(raw);
        ear_done(&e);
        close(raw);
}

/* All that waits goes first, and its handlers are heard. */
static void test_disconnect_sends_what_waits(void **state) {
        Sent s = { 0 };
        unsigned n_sent = 0;
        Ear a, b;

        pair_make(&a, &b, NULL);
        b.only_count = true;
        while (muster_channel_get_queued_bytes(a.channel) < 1000000) {
                assert_true(ear_send(&a, "[\"some text\"]", -1, &s) >= 0);
                n_sent++;
        }
        assert_int_equal(CALL(muster_channel_disconnect(a.channel)), 0);
        run_until(b.n_ended);
        assert_int_equal(b.error, 0);
        assert_int_equal(b.n_letters, n_sent);
        expect_ended(&a, 0);
        assert_int_equal(a.n_drained, 1);
        assert_int_equal(s.n, n_sent);
        pair_done(&a, &b);
}

/* A descriptor is sent when it is acknowledged. */
static void test_disconnect_waits_for_acknowledgement(void **state) {
        int raw, fd = eventfd(0, EFD_CLOEXEC);
        Sent s = { 0 };
        Ear e;

        raw = half_listening(&e, NULL);
        assert_int_equal(ear_send(&e, "1", fd, &s), 0);
        assert_int_equal(CALL(muster_channel_disconnect(e.channel)), 0);
        run_what_is_due();
        assert_int_equal(e.n_ended, 0);
        raw_text(raw, ACK);
        expect_ended(&e, 0);
        assert_int_equal(s.n, 1);
        assert_int_equal(s.errors[0], 0);
        ear_done(&e);
        close(raw);
        close(fd);
}

/* A peer that goes meanwhile is an end as well. */
static void test_disconnect_peer_gone(void **state) {
        int raw, fd = eventfd(0, EFD_CLOEXEC);
        Sent s = { 0 };
        Ear e;

        raw = half_listening(&e, NULL);
        assert_int_equal(ear_send(&e, "1", fd, &s), 0);
        assert_int_equal(CALL(muster_channel_disconnect(e.channel)), 0);
        close(raw);
        expect_ended(&e, 0);
        assert_int_equal(s.errors[0], -EPIPE);
        ear_done(&e);
        close(fd);
}

/* What arrives after it is dropped, with its descriptor, which is acknowledged even so. */
static void test_disconnect_drops(void **state) {
        int raw, p[2], fd = eventfd(0, EFD_CLOEXEC);
        Ear e;

        raw = half_listening(&e, NULL);
        assert_int_equal(pipe2(p, O_CLOEXEC), 0);
        assert_int_equal(ear_send(&e, "1", fd, NULL), 0); /* keeps it from ending at once */
        assert_int_equal(CALL(muster_channel_disconnect(e.channel)), 0);
        raw_text(raw, "\"late\"\n");
        raw_text_fd(raw, ENVELOPE("net.Socket", "2") "\n", p[1]);
        close(p[1]);
        raw_text(raw, "\"later\"\n");
        raw_text(raw, ACK);
        expect_ended(&e, 0);
        assert_int_equal(e.n_letters, 0);
        assert_int_equal(read(p[0], &(char){ 0 }, 1), 0);
        ear_done(&e);
        close(p[0]);
        close(raw);
        close(fd);
}

static void test_disconnect_without_handlers(void **state) {
        Ear e;
        int raw = half_make(&e, NULL);

        assert_int_equal(ear_send(&e, "1", -1, NULL), 0);
        assert_int_equal(CALL(muster_channel_disconnect(e.channel)), 0);
        run_what_is_due();
        raw_expect(raw, "1\n");
        raw_expect_end(raw);
        ear_done(&e);
        close(raw);
}

/*
 * From within the handlers
 */

static void then_disconnect(Ear *e) {
        assert_int_equal(CALL(muster_channel_disconnect(e->channel)), 0);
        assert_int_equal(e->n_ended, 0);
}

static void then_drop(Ear *e) {
        e->channel = CALL(muster_channel_unref(e->channel));
}

static void then_send(Ear *e) {
        assert_int_equal(ear_send(e, "\"answer\"", -1, NULL), 0);
}

static void then_send_in_vain(Ear *e) {
        assert_int_equal(ear_send(e, "\"answer\"", -1, NULL), -EPIPE);
}

static void test_send_in_message(void **state) {
        Ear a, b;

        pair_make(&a, &b, NULL);
        b.on_message = then_send;
        for (int i = 0; i < 10; i++)
                assert_int_equal(ear_send(&a, "1", -1, NULL), 0);
        run_until(a.n_letters == 10);
        b.on_ended = then_send_in_vain;
        assert_int_equal(CALL(muster_channel_disconnect(a.channel)), 0);
        run_until(b.n_ended);
        pair_done(&a, &b);
}

/* No further one, though it came in the same read. */
static void test_disconnect_in_message(void **state) {
        Ear e;
        int raw = half_listening(&e, NULL);

        e.on_message = then_disconnect;
        raw_text(raw, "1\n2\n3\n");
        expect_ended(&e, 0);
        assert_int_equal(e.n_letters, 1);
        raw_expect_end(raw);
        ear_done(&e);
        close(raw);
}

static void test_drop_in_message(void **state) {
        int raw, fd = eventfd(0, EFD_CLOEXEC);
        Sent s = { 0 };
        Ear e;

        raw = half_listening(&e, NULL);
        e.on_message = then_drop;
        assert_int_equal(ear_send(&e, "1", -1, &s), 0);
        assert_int_equal(ear_send(&e, "2", fd, &s), 0);
        raw_text(raw, "1\n2\n");
        raw_text_fd(raw, ENVELOPE("net.Socket", "3") "\n", fd);
        run_until(e.n_letters);
        run_what_is_due();
        assert_null(e.channel);
        assert_int_equal(e.n_letters, 1);
        assert_int_equal(e.n_ended, 0);
        ear_done(&e);
        close(raw);
        close(fd);
}

/* With its descriptor not taken, and one for a line under way. */
static void test_drop_in_message_with_fd(void **state) {
        static const char line[] = ENVELOPE("net.Socket", "1") "\n";
        int raw, p[2];
        Ear e;

        raw = half_make(&e, NULL);
        assert_int_equal(pipe2(p, O_CLOEXEC), 0);
        e.on_message = then_drop;
        e.only_count = true;
        raw_send(raw, line, 5, &p[1], 1);
        raw_send(raw, line + 5, strlen(line) - 5, NULL, 0);
        raw_send(raw, line, 7, &p[1], 1);
        close(p[1]);
        ear_listen(&e);
        run_until(e.n_letters);
        run_what_is_due();
        assert_int_equal(read(p[0], &(char){ 0 }, 1), 0);
        close(p[0]);
        ear_done(&e);
        close(raw);
}

static void then_drop_and_end(Ear *e) {
        then_drop(e);
        assert_int_equal(e->n_ended, 1);
}

static void test_drop_in_disconnected(void **state) {
        Ear e;
        int raw = half_listening(&e, NULL);

        e.on_ended = then_drop_and_end;
        close(raw);
        run_until(e.n_ended);
        run_what_is_due();
        assert_null(e.channel);
        ear_done(&e);

        raw = half_listening(&e, NULL);
        e.on_ended = then_drop_and_end;
        assert_int_equal(CALL(muster_channel_disconnect(e.channel)), 0);
        run_until(e.n_ended);
        run_what_is_due();
        ear_done(&e);
        close(raw);

        raw = half_listening(&e, NULL);
        e.on_ended = then_drop_and_end;
        raw_text(raw, "rubbish\n");
        run_until(e.n_ended);
        run_what_is_due();
        assert_int_equal(e.error, -EBADMSG);
        ear_done(&e);
        close(raw);
}

/* Reads until @stop; for a channel that has much to say. */
static void read_until(int raw, const unsigned *stop) {
        while (*stop == 0) {
                static char buf[65536];
                int fd;
                ssize_t n = raw_read(raw, buf, sizeof(buf), &fd);

                if (n == -EAGAIN)
                        turn();
                else if (n == 0)
                        break;
        }
}

static void check_in_drained(void (*then)(Ear *e), unsigned n_ended) {
        Ear e;
        int raw = half_listening(&e, NULL);

        e.on_drained = then;
        while (ear_send(&e, "[\"fill the socket\"]", -1, NULL) == 0)
                ;
        read_until(raw, &e.n_drained);
        run_what_is_due();
        assert_int_equal(e.n_drained, 1);
        assert_int_equal(e.n_ended, n_ended);
        ear_done(&e);
        close(raw);
}

static void test_in_drained(void **state) {
        check_in_drained(then_disconnect, 1);
        check_in_drained(then_drop, 0);
}

static unsigned n_sent_calls;

static void on_sent_disconnect(muster_channel *channel, int error, void *userdata) {
        n_sent_calls++;
        assert_int_equal(error, 0);
        (void) CALL(muster_channel_disconnect(channel));
}

static void on_sent_drop(muster_channel *channel, int error, void *userdata) {
        n_sent_calls++;
        then_drop(userdata);
}

static void check_in_sent(muster_channel_sent_handler_t handler, unsigned n_calls, unsigned n_ended) {
        Ear e;
        int raw = half_listening(&e, NULL);

        n_sent_calls = 0;
        assert_int_equal(CALL(muster_channel_send(e.channel, "1", -1, handler, &e)), 0);
        assert_int_equal(CALL(muster_channel_send(e.channel, "2", -1, handler, &e)), 0);
        assert_int_equal(CALL(muster_channel_send(e.channel, "3", -1, handler, &e)), 0);
        run_until(n_sent_calls);
        run_what_is_due();
        assert_int_equal(n_sent_calls, n_calls);
        assert_int_equal(e.n_ended, n_ended);
        raw_expect(raw, "1\n2\n3\n");
        raw_expect_end(raw);
        ear_done(&e);
        close(raw);
}

static void test_in_sent(void **state) {
        check_in_sent(on_sent_disconnect, 3, 1);
        check_in_sent(on_sent_drop, 1, 0);
}

/* The channel fails, and the first one who hears of it drops it: nobody else is told. */
static void test_drop_in_failed_sent(void **state) {
        int raw, fd = eventfd(0, EFD_CLOEXEC);
        Ear e;

        raw = half_listening(&e, NULL);
        n_sent_calls = 0;
        assert_int_equal(CALL(muster_channel_send(e.channel, "1", fd, on_sent_drop, &e)), 0);
        assert_int_equal(CALL(muster_channel_send(e.channel, "2", fd, on_sent_drop, &e)), 0);
        close(raw);
        run_until(n_sent_calls);
        run_what_is_due();
        assert_int_equal(n_sent_calls, 1);
        assert_int_equal(e.n_ended, 0);
        ear_done(&e);
        close(fd);
}

static Sent chain;

static void on_sent_send(muster_channel *channel, int error, void *userdata) {
        Ear *e = userdata;

        if (chain.n < 20)
                assert_int_equal(CALL(muster_channel_send(channel, "1", -1, on_sent_send, e)), 0);
        on_sent_noted(channel, error, &chain);
}

/* Each goes out in a turn of its own, so that a chain of them leaves the loop to others. */
static void test_send_in_sent(void **state) {
        Ear a, b;

        pair_make(&a, &b, NULL);
        chain = (Sent){ 0 };
        assert_int_equal(CALL(muster_channel_send(a.channel, "1", -1, on_sent_send, &a)), 0);
        turn();
        assert_true(chain.n <= 1);
        run_until(b.n_letters == 21);
        pair_done(&a, &b);
}

/* Another reference keeps everything as it was. */
static void test_reference(void **state) {
        Ear e;
        int raw = half_listening(&e, NULL);

        assert_ptr_equal(muster_channel_ref(e.channel), e.channel);
        assert_null(CALL(muster_channel_unref(e.channel)));
        raw_text(raw, "1\n");
        run_until(e.n_letters == 1);
        ear_done(&e);
        raw_expect_end(raw);
        close(raw);
}

/*
 * The end from the other side
 */

/* What was sent before it still arrives. */
static void test_peer_closes(void **state) {
        int raw, fd = eventfd(0, EFD_CLOEXEC);
        Ear e;

        raw = half_listening(&e, NULL);
        raw_text(raw, "1\n2\n");
        raw_text_fd(raw, ENVELOPE("net.Socket", "3") "\n", fd);
        raw_text(raw, "4\n");
        close(raw);
        expect_ended(&e, 0);
        assert_int_equal(e.n_letters, 4);
        assert_same_file(e.letters[2].fd, fd);
        ear_done(&e);
        close(fd);
}

/* The same when it went without reading what was sent to it, which the kernel calls a reset. */
static void test_peer_resets(void **state) {
        Ear e;
        int raw = half_listening(&e, NULL);

        assert_int_equal(ear_send(&e, "\"unread\"", -1, NULL), 0);
        raw_text(raw, "1\n2\n");
        close(raw);
        expect_ended(&e, 0);
        assert_int_equal(e.n_letters, 2);
        ear_done(&e);
}

/* A peer that only stops sending has closed its end, too. */
static void test_peer_shuts_down(void **state) {
        Ear e;
        int raw = half_listening(&e, NULL);

        raw_text(raw, "1\n");
        assert_int_equal(shutdown(raw, SHUT_WR), 0);
        expect_ended(&e, 0);
        assert_int_equal(e.n_letters, 1);
        raw_expect_end(raw);
        ear_done(&e);
        close(raw);
}

/* Who sends before it hears of the end is told so, by no signal, and hears what was sent before, and the
 * end. */
static void test_send_to_nobody(void **state) {
        struct sigaction old, standard = { .sa_handler = SIG_DFL };
        int raw, fd = eventfd(0, EFD_CLOEXEC);
        Sent s = { 0 };
        Ear e;

        assert_int_equal(sigaction(SIGPIPE, &standard, &old), 0);
        raw = half_listening(&e, NULL);
        raw_text(raw, "1\n");
        close(raw);
        assert_int_equal(ear_send(&e, "1", -1, &s), -EPIPE);
        assert_int_equal(ear_send(&e, "1", fd, &s), -EPIPE);
        assert_int_equal(e.n_ended, 0);
        expect_ended(&e, 0);
        assert_int_equal(e.n_letters, 1);
        assert_int_equal(s.n, 0);
        ear_done(&e);
        assert_int_equal(sigaction(SIGPIPE, &old, NULL), 0);
        close(fd);
}

/* What waits when the peer goes: "drained" is not called for it, and what it has sent is heard before the
 * end. */
static void test_peer_closes_while_waiting(void **state) {
        Sent s = { 0 };
        Ear e;
        int raw = half_listening(&e, NULL);

        while (ear_send(&e, "[\"fill the socket\"]", -1, NULL) == 0)
                ;
        assert_int_equal(ear_send(&e, "1", -1, &s), 1);
        for (int i = 0; i < 100; i++)
                raw_text(raw, "[\"more than one read?\"]\n");
        close(raw);
        expect_ended(&e, 0);
        assert_int_equal(e.n_letters, 100);
        assert_int_equal(s.n, 1);
        assert_int_equal(s.errors[0], -EPIPE);
        assert_int_equal(e.n_drained, 0);
        ear_done(&e);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                channel_test(test_new),
                channel_test(test_null),
                channel_test(test_no_such_socket),
                channel_test(test_options),
                channel_test(test_handlers_size),
                channel_test(test_environment),
                channel_test(test_environment_both),
                channel_test(test_environment_empty),
                channel_test(test_environment_wrong),
                channel_test(test_environment_no_socket),
                channel_test(test_environment_advanced),
                channel_test(test_disconnect),
                channel_test(test_disconnect_sends_what_waits),
                channel_test(test_disconnect_waits_for_acknowledgement),
                channel_test(test_disconnect_peer_gone),
                channel_test(test_disconnect_drops),
                channel_test(test_disconnect_without_handlers),
                channel_test(test_send_in_message),
                channel_test(test_disconnect_in_message),
                channel_test(test_drop_in_message),
                channel_test(test_drop_in_message_with_fd),
                channel_test(test_drop_in_disconnected),
                channel_test(test_in_drained),
                channel_test(test_in_sent),
                channel_test(test_drop_in_failed_sent),
                channel_test(test_send_in_sent),
                channel_test(test_reference),
                channel_test(test_peer_closes),
                channel_test(test_peer_resets),
                channel_test(test_peer_shuts_down),
                channel_test(test_send_to_nobody),
                channel_test(test_peer_closes_while_waiting),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
