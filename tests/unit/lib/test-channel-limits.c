/* SPDX-License-Identifier: MIT */
/* What a channel does not do: take more than it may hold, believe what it cannot understand, lose a
 * descriptor. Most peers here are bare sockets that behave badly. */

#include "channel-pair.h"

#include <grp.h>
#include <malloc.h>
#include <sys/eventfd.h>
#include <time.h>


#define MIB (UINT64_C(1024) * 1024)

static muster_channel_options limits(uint64_t max_message_bytes, uint64_t max_queue_bytes) {
        muster_channel_options o = MUSTER_CHANNEL_OPTIONS_INIT;

        o.max_message_bytes = max_message_bytes;
        o.max_queue_bytes = max_queue_bytes;
        return o;
}

/* What is allocated; always 0 under a sanitizer, which has an allocator of its own. */
static size_t allocated(void) {
        struct mallinfo2 m = mallinfo2();

        return m.uordblks + m.hblkhd;
}

/* Reads and forgets what is there. Returns how many bytes. */
static size_t raw_drop(int raw) {
        static char buf[65536];
        size_t total = 0;
        int fd = -1;

        for (ssize_t n; (n = raw_read(raw, buf, sizeof(buf), &fd)) > 0; total += (size_t) n)
                safe_close(fd);
        return total;
}

/*
 * The queue
 */

/* What waits has a limit; what was refused is not sent, and there is room again when it has drained. */
static void test_queue(void **state) {
        muster_channel_options o = limits(0, 10000);
        unsigned n_taken = 0, n_sent = 0;
        Sent s = { 0 };
        Ear a, b;
        int r;

        pair_make(&a, &b, &o);
        b.only_count = true;
        while ((r = ear_send(&a, "[\"some text\"]", -1, NULL)) >= 0) {
                n_taken++;
                n_sent += r == 0;
        }
        assert_int_equal(r, -ENOBUFS);
        assert_true(n_taken > n_sent + 10);
        assert_true(muster_channel_get_queued_bytes(a.channel) <= 10000);
        assert_true(muster_channel_get_queued_bytes(a.channel) > 9900);
        assert_int_equal(ear_send(&a, "[\"some text\"]", -1, &s), -ENOBUFS);
        assert_int_equal(ear_send(&a, "[\"some text\"]", STDERR_FILENO, &s), -ENOBUFS);
        run_until(a.n_drained);
        run_until(b.n_letters == n_taken);
        assert_int_equal(ear_send(&a, "1", -1, NULL), 0);
        run_until(b.n_letters == n_taken + 1);
        assert_int_equal(a.n_drained, 1);
        assert_int_equal(s.n, 0);
        pair_done(&a, &b);
}

/* What waits can be held to the memory that it takes, of which the text may be the least. */
static void test_queue_memory(void **state) {
        enum { MAX = 512 * 1024 };
        char *text = long_json(MIB);
        unsigned n = 0;
        Ear a, b;

        pair_make(&a, &b, NULL);
        b.only_count = true;
        assert_true(muster_channel_has_room(a.channel, 2 * MAX, MAX));
        size_t before = allocated();
        while (ear_send(&a, "1", -1, NULL) == 0)
                n++;
        for (n++; muster_channel_has_room(a.channel, 1, MAX); n++)
                assert_int_equal(ear_send(&a, "1", -1, NULL), 1);
        assert_true(allocated() - before <= MAX);
        assert_in_range(muster_channel_get_queued_bytes(a.channel), MAX / 64, MAX / 16);
        run_until(b.n_letters == n && a.n_drained == 1);

        for (unsigned i = 1; i <= 3; i++) { /* in part with the kernel */
                assert_true(muster_channel_has_room(a.channel, strlen(text), MAX));
                assert_int_equal(ear_send(&a, text, -1, NULL), 1);
                assert_false(muster_channel_has_room(a.channel, 1, MAX));
                assert_true(muster_channel_has_room(a.channel, 1, 2 * MIB));
                run_until(b.n_letters == n + i && a.n_drained == 1 + i);
        }
        pair_done(&a, &b);
        free(text);
}

/* One message is always taken while nothing waits, however small the queue may be. */
static void test_queue_takes_one(void **state) {
        muster_channel_options o = limits(0, 1);
        char *text = long_json(3 * MIB);
        Ear a, b;

        pair_make(&a, &b, &o);
        for (unsigned i = 1; i <= 3; i++) {
                assert_int_equal(ear_send(&a, text, -1, NULL), 1);
                assert_int_equal(ear_send(&a, "1", -1, NULL), -ENOBUFS);
                run_until(a.n_drained == i && b.n_letters == i);
                assert_string_equal(b.letters[i - 1].json, text);
        }
        pair_done(&a, &b);
        free(text);
}

/* Fills the socket to the brim with messages that are all taken: nothing waits, and nothing more has room.
 * Returns how many there are. */
static unsigned fill_exactly(Ear *e, const muster_channel_options *o, int *ret_raw) {
        unsigned n = 0;
        Ear probe;
        int raw = half_listening(&probe, o);

        while (ear_send(&probe, "[1]", -1, NULL) == 0)
                n++;
        ear_done(&probe);
        close(raw);
        *ret_raw = half_listening(e, o);
        for (unsigned i = 0; i < n; i++)
                assert_int_equal(ear_send(e, "[1]", -1, NULL), 0);
        return n;
}

/* Who is refused because something waits that was not its own, an acknowledgement, is called when that is
 * out. */
static void test_queue_refused_is_drained(void **state) {
        muster_channel_options o = limits(0, 30);
        int raw, fd = eventfd(0, EFD_CLOEXEC);
        Ear e;

        (void) fill_exactly(&e, &o, &raw);
        assert_int_equal(muster_channel_get_queued_bytes(e.channel), 0);
        raw_text_fd(raw, ENVELOPE("net.Socket", "1") "\n", fd);
        run_until(e.n_letters == 1);
        assert_true(muster_channel_get_queued_bytes(e.channel) > 0);
        assert_int_equal(ear_send(&e, "\"a message of some length\"", -1, NULL), -ENOBUFS);
        while (muster_channel_get_queued_bytes(e.channel) > 0)
                if (raw_drop(raw) == 0)
                        turn();
        run_what_is_due();
        assert_int_equal(e.n_drained, 1);
        assert_int_equal(ear_send(&e, "\"a message of some length\"", -1, NULL), 0);
        ear_done(&e);
        close(raw);
        close(fd);
}

/* A peer that sends descriptors for ever and never reads that they were taken. */
static void test_queue_of_acknowledgements(void **state) {
        muster_channel_options o = limits(1000, 1000);
        int raw, fd = eventfd(0, EFD_CLOEXEC);
        size_t before = allocated();
        Ear e;

        raw = half_listening(&e, &o);
        e.only_count = true;
        while (e.n_ended == 0) {
                if (raw_try(raw, ENVELOPE("net.Socket", "1") "\n", strlen(ENVELOPE("net.Socket", "1") "\n"),
                                    &fd, 1) < 0)
                        turn();
                assert_true(allocated() < before + MIB);
        }
        assert_int_equal(e.error, -ENOBUFS);
        ear_done(&e);
        close(raw);
        close(fd);
}

/* The same with envelopes alone, whose refusals are small: what counts is how many are remembered. */
static void test_queue_of_refusals(void **state) {
        static const char envelope[] = ENVELOPE("net.Socket", "1") "\n";
        size_t before = allocated(), n = 100 * strlen(envelope), at = 0;
        char *many = calloc(1, n + 1);
        Ear e;

        assert_non_null(many);
        for (int i = 0; i < 100; i++)
                strcat(many, envelope);
        int raw = half_listening(&e, NULL);
        while (e.n_ended == 0) {
                ssize_t k = raw_try(raw, many + at, n - at, NULL, 0);
                if (k < 0)
                        turn();
                else
                        at = (at + (size_t) k) % n;
                assert_true(allocated() < before + 16 * MIB);
        }
        assert_int_equal(e.error, -ENOBUFS);
        ear_done(&e);
        close(raw);
        free(many);
}

/* Nobody listens, something waits, and the peer is gone without having read it: that wakes the loop once. */
static void test_shut_down_unheard(void **state) {
        char *big = long_json(4 * MIB);
        unsigned n = 0;
        Sent s = { 0 };
        Ear e;

        int raw = half_make(&e, NULL);
        assert_int_equal(ear_send(&e, big, -1, &s), 1);
        assert_int_equal(shutdown(raw, SHUT_RDWR), 0);
        while (sd_event_run(event, 0) > 0)
                assert_true(++n < 10);
        assert_int_equal(s.n, 1);
        assert_int_equal(s.errors[0], -EPIPE);
        ear_done(&e);
        close(raw);
        free(big);
}

/*
 * The size of a message
 */

static void test_size_sent(void **state) {
        muster_channel_options o = limits(1000, 0);
        int fd = eventfd(0, EFD_CLOEXEC);
        char *fits = long_json(1000), *too_long = long_json(1001);
        Sent s = { 0 };
        Ear a, b;

        pair_make(&a, &b, &o);
        assert_int_equal(ear_send(&a, too_long, -1, &s), -EMSGSIZE);
        assert_int_equal(ear_send(&a, too_long, fd, &s), -EMSGSIZE);
        assert_int_equal(ear_send(&a, fits, -1, NULL), 0);
        assert_int_equal(ear_send(&a, fits, fd, NULL), 0); /* the envelope does not count */
        run_until(b.n_letters == 2);
        assert_string_equal(b.letters[0].json, fits);
        assert_string_equal(b.letters[1].json, fits);
        assert_int_equal(s.n, 0);
        pair_done(&a, &b);
        free(fits);
        free(too_long);
        close(fd);
}

/* As Node writes it: with a key behind the message. */
static void send_envelope(int raw, const char *json, int fd) {
        char *line = NULL;

        assert_true(asprintf(&line,
                                    "{\"cmd\":\"NODE_HANDLE\",\"type\":\"net.Socket\",\"msg\":%s,"
                                    "\"key\":\"6:2001:db8:1234:5678:9abc:def0:1234:5678:65535\"}\n",
                                    json) > 0);
        raw_text_fd(raw, line, fd);
        free(line);
}

static void check_size_received(size_t size, bool in_envelope, int expected) {
        muster_channel_options o = limits(1000, 0);
        int raw, fd = eventfd(0, EFD_CLOEXEC);
        char *text = long_json(size);
        Ear e;

        raw = half_listening(&e, &o);
        if (in_envelope)
                send_envelope(raw, text, fd);
        else {
                raw_text(raw, text);
                raw_text(raw, "\n");
        }
        if (expected == 0) {
                run_until(e.n_letters);
                assert_string_equal(e.letters[0].json, text);
        } else
                expect_ended(&e, expected);
        assert_int_equal(e.n_letters, expected == 0);
        ear_done(&e);
        free(text);
        close(raw);
        close(fd);
}

static void test_size_received(void **state) {
        check_size_received(1000, false, 0);
        check_size_received(1001, false, -EMSGSIZE);
        check_size_received(1000, true, 0);
        check_size_received(1001, true, -EMSGSIZE);
        check_size_received(100000, false, -EMSGSIZE);
        check_size_received(100000, true, -EMSGSIZE);
}

/* The longest by default, both ways at once, with a descriptor. Afterwards the memory is free. */
static void test_largest(void **state) {
        int fd = eventfd(0, EFD_CLOEXEC);
        char *text = long_json(64 * MIB);
        size_t before = allocated();
        Sent s = { 0 };
        Ear a, b;

        pair_make(&a, &b, NULL);
        assert_int_equal(ear_send(&a, text, fd, &s), 1);
        assert_int_equal(ear_send(&b, text, -1, &s), 1);
        run_until(a.n_letters == 1 && b.n_letters == 1 && s.n == 2);
        assert_letter(&a, 0, text, MUSTER_HANDLE_NONE);
        assert_letter(&b, 0, text, MUSTER_HANDLE_NET_NATIVE);
        assert_int_equal(s.errors[0], 0);
        assert_int_equal(s.errors[1], 0);
        assert_same_file(b.letters[0].fd, fd);
        ear_forget(&a);
        ear_forget(&b);
        assert_true(allocated() < before + MIB);
        pair_done(&a, &b);
        free(text);
        close(fd);
}

/* More than the longest without an end is not waited for, and not kept. */
static void test_endless_line(void **state) {
        static char piece[MIB];
        size_t before = allocated(), sent = 0;
        Ear e;
        int raw = half_listening(&e, NULL);

        memset(piece, 'x', sizeof(piece));
        piece[0] = '"';
        while (e.n_ended == 0 && sent < 65 * MIB) {
                ssize_t n = raw_try(raw, piece + (sent > 0), sizeof(piece) - 1, NULL, 0);

                if (n == -EAGAIN)
                        turn();
                else
                        sent += (size_t) n;
                assert_true(allocated() < before + 65 * MIB);
        }
        expect_ended(&e, -EMSGSIZE);
        assert_true(sent >= 64 * MIB);
        assert_int_equal(e.n_letters, 0);
        assert_true(allocated() < before + MIB);
        ear_done(&e);
        close(raw);
}

/* What nests as deep as a message may goes in an envelope, too. */
static void test_deepest(void **state) {
        static char text[2 * 2048 + 1];
        int fd = eventfd(0, EFD_CLOEXEC);
        Ear a, b;

        memset(text, '[', 2048);
        memset(text + 2048, ']', 2048);
        pair_make(&a, &b, NULL);
        assert_int_equal(ear_send(&a, text, -1, NULL), 0);
        assert_int_equal(ear_send(&a, text, fd, NULL), 0);
        run_until(b.n_letters == 2 || b.n_ended);
        assert_int_equal(b.error, 0);
        assert_letter(&b, 0, text, MUSTER_HANDLE_NONE);
        assert_letter(&b, 1, text, MUSTER_HANDLE_NET_NATIVE);
        pair_done(&a, &b);
        close(fd);
}

/*
 * What is not to be understood
 */

/* The line before it is delivered, and nothing of what is behind it. */
static void check_rubbish(const char *text, size_t n, int expected) {
        Ear e;
        int raw = half_make(&e, NULL);

        raw_text(raw, "\"before\"\n");
        raw_send(raw, text, n, NULL, 0);
        raw_text(raw, "\n\"behind\"\n");
        ear_listen(&e);
        expect_ended(&e, expected);
        assert_int_equal(e.n_letters, 1);
        assert_letter(&e, 0, "\"before\"", MUSTER_HANDLE_NONE);
        raw_drop(raw);
        ear_done(&e);
        close(raw);
}

static void test_rubbish(void **state) {
        check_rubbish("", 0, -EBADMSG);
        check_rubbish("hello", 5, -EBADMSG);
        check_rubbish("{", 1, -EBADMSG);
        check_rubbish("\"\xFF\"", 3, -EBADMSG);
        check_rubbish("\"\xED\xA0\x80\"", 5, -EBADMSG);
        check_rubbish("1\0", 2, -EBADMSG);
        check_rubbish("\"a\0b\"", 5, -EBADMSG);
        check_rubbish("\0", 1, -EBADMSG);
        check_rubbish("1 2", 3, -EBADMSG);
        check_rubbish("\x02{\"cmd\":\"NODE_CLUSTER\"}", 23, -EBADMSG);
        check_rubbish("\0\0\0\x0b\xff\x0fo\"\x02hiI\x02{\x01", 15,
                        -EBADMSG); /* the serialization "advanced" */
        check_rubbish("GET / HTTP/1.1\r\n\r", 17, -EBADMSG);
        check_rubbish("{\"cmd\":\"NODE_HANDLE_ACK\"}", strlen("{\"cmd\":\"NODE_HANDLE_ACK\"}"), -EPROTO);
        check_rubbish("{\"cmd\":\"NODE_HANDLE_NACK\"}", strlen("{\"cmd\":\"NODE_HANDLE_NACK\"}"), -EPROTO);
}

/* A line that never ends is none. */
static void test_half_a_line(void **state) {
        static const char *const halves[] = { "{", "\"whole", "1", "\"whole\"" };

        for (size_t i = 0; i < ELEMENTSOF(halves); i++) {
                Ear e;
                int raw = half_listening(&e, NULL);

                raw_text(raw, "\"before\"\n");
                raw_text(raw, halves[i]);
                close(raw);
                expect_ended(&e, -EBADMSG);
                assert_int_equal(e.n_letters, 1);
                ear_done(&e);
        }
}

/* An acknowledgement of what waits, and was never sent. */
static void test_acknowledgement_too_early(void **state) {
        int raw, fd = eventfd(0, EFD_CLOEXEC);
        Sent s = { 0 };
        Ear e;

        raw = half_listening(&e, NULL);
        while (ear_send(&e, "[\"fill the socket\"]", -1, NULL) == 0)
                ;
        assert_int_equal(ear_send(&e, "1", fd, &s), 1);
        raw_text(raw, ACK);
        expect_ended(&e, -EPROTO);
        assert_int_equal(s.n, 1);
        assert_int_equal(s.errors[0], -EPROTO);
        ear_done(&e);
        close(raw);
        close(fd);
}

/*
 * Descriptors that belong to nothing
 */

/* @n_fds descriptors with the text behind what was sent before it; the channel ends, and none stays open. */
static void check_unsolicited(const char *before, const char *text, size_t n_fds) {
        int raw, p[2], fds[253];
        Ear e;

        raw = half_listening(&e, NULL);
        assert_int_equal(pipe2(p, O_CLOEXEC), 0);
        for (size_t i = 0; i < n_fds; i++)
                fds[i] = p[1];
        if (*before) {
                raw_text(raw, before);
                turn();
        }
        raw_send(raw, text, strlen(text), fds, n_fds);
        close(p[1]);
        expect_ended(&e, -EPROTO);
        for (unsigned i = 0; i < e.n_letters; i++)
                assert_int_equal(e.letters[i].fd, -1);
        assert_int_equal(read(p[0], &(char){ 0 }, 1), 0);
        close(p[0]);
        ear_done(&e);
        close(raw);
}

static void test_unsolicited_fd(void **state) {
        check_unsolicited("", "\"plain\"\n", 1);
        check_unsolicited("", "{\"cmd\":\"NODE_CLUSTER\"}\n", 1);
        check_unsolicited("", ACK, 1);
        check_unsolicited("\"begun", "\"\n", 1);
        check_unsolicited("\"begun", "\"", 1);
        check_unsolicited("{\"cmd\":\"NODE_HANDLE\"", ",\"type\":\"net.Socket\",\"msg\":1}\n", 1);
        check_unsolicited("{\"cmd\":\"NODE_HANDLE\"", ",", 1);
        /* It is that of the last line that begins with it. */
        check_unsolicited("", ENVELOPE("net.Socket", "1") "\n\"plain\"\n", 1);
}

/* One line has one descriptor. */
static void test_several_fds(void **state) {
        check_unsolicited("", ENVELOPE("net.Socket", "1") "\n", 2);
        check_unsolicited("", ENVELOPE("net.Socket", "1") "\n", 3);
        check_unsolicited("", ENVELOPE("net.Socket", "1") "\n", 253);
        check_unsolicited("", "\"plain\"\n", 2);
        check_unsolicited("", "\"half a line", 2);
        check_unsolicited("\"begun", "\"\n", 253);
}

/* And not a second one later, though its first part had one. */
static void test_second_fd_of_a_line(void **state) {
        static const char line[] = ENVELOPE("net.Socket", "1") "\n";
        int raw, p[2];
        Ear e;

        raw = half_listening(&e, NULL);
        assert_int_equal(pipe2(p, O_CLOEXEC), 0);
        raw_send(raw, line, 10, &p[1], 1);
        turn();
        raw_send(raw, line + 10, 10, &p[1], 1);
        close(p[1]);
        expect_ended(&e, -EPROTO);
        assert_int_equal(read(p[0], &(char){ 0 }, 1), 0);
        close(p[0]);
        ear_done(&e);
        close(raw);
}

/* 10,000 of them, in what is no line of theirs. */
static void test_many_fds(void **state) {
        int raw, p[2], fds[250], sent = 0;
        Ear e;

        raw = half_listening(&e, NULL);
        assert_int_equal(pipe2(p, O_CLOEXEC), 0);
        for (size_t i = 0; i < ELEMENTSOF(fds); i++)
                fds[i] = p[1];
        while (sent < 10000) {
                ssize_t n = raw_try(raw, ENVELOPE("net.Socket", "1") "\n",
                                strlen(ENVELOPE("net.Socket", "1") "\n"), fds, ELEMENTSOF(fds));
                if (n < 0)
                        break;
                sent += (int) ELEMENTSOF(fds);
        }
        assert_true(sent > 1000);
        close(p[1]);
        expect_ended(&e, -EPROTO);
        close(raw);
        assert_int_equal(read(p[0], &(char){ 0 }, 1), 0);
        close(p[0]);
        assert_int_equal(e.n_letters, 0);
        ear_done(&e);
}

/* An envelope that is empty is told to be, and dropped; nothing else happens. */
static void test_envelope_without_fd(void **state) {
        Ear e;
        int raw = half_listening(&e, NULL);

        raw_text(raw, ENVELOPE("net.Socket", "1") "\n");
        raw_text(raw, "{\"cmd\":\"NODE_HANDLE\",\"type\":\"net.Native\",\"msg\":null}\n\"after\"\n");
        run_until(e.n_letters);
        assert_letter(&e, 0, "\"after\"", MUSTER_HANDLE_NONE);
        raw_expect(raw, NACK NACK);
        ear_done(&e);
        close(raw);
}

/*
 * Few descriptors. In processes of their own, whose limits these are.
 */

/* With a loop of its own: the one that was inherited is the parent's. A failed assertion ends the process:
 * there is no test runner to go back to. */
static int begin_with_fds(rlim_t n) {
        event = NULL;
        if (setenv("CMOCKA_TEST_ABORT", "1", 1) < 0)
                return -errno;
        return setrlimit(RLIMIT_NOFILE, &(struct rlimit){ n, n }) < 0 ? -errno : sd_event_new(&event);
}

/* All that are free but @n. */
static void use_up_fds(unsigned n) {
        int last[16];

        assert_true(n < ELEMENTSOF(last));
        for (unsigned i = 0;; i++) {
                int fd = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 0);
                if (fd < 0)
                        break;
                memmove(last + 1, last, sizeof(last) - sizeof(last[0]));
                last[0] = fd;
        }
        assert_int_equal(errno, EMFILE);
        for (unsigned i = 0; i < n; i++)
                close(last[i]);
}

/* No place for the descriptor: the message is dropped, the sender hears of it, and all goes on. */
static int receive_without_free_fd(void) {
        Sent lost = { 0 }, arrived = { 0 };
        Ear a, b;

        CHECK(begin_with_fds(64) >= 0);
        pair_make(&a, &b, NULL);
        int fd = eventfd(0, EFD_CLOEXEC), reserve = eventfd(0, EFD_CLOEXEC);
        use_up_fds(0);
        CHECK(ear_send(&a, "\"lost\"", fd, &lost) == 0);
        CHECK(ear_send(&a, "\"plain\"", -1, NULL) == 0);
        run_until(lost.n == 1 && b.n_letters == 1);
        CHECK(lost.errors[0] == -EREMOTEIO);
        assert_letter(&b, 0, "\"plain\"", MUSTER_HANDLE_NONE);
        close(reserve);
        CHECK(ear_send(&a, "\"arrives\"", fd, &arrived) == 0);
        run_until(arrived.n == 1 && b.n_letters == 2);
        CHECK(arrived.errors[0] == 0);
        assert_letter(&b, 1, "\"arrives\"", MUSTER_HANDLE_NET_NATIVE);
        assert_same_file(b.letters[1].fd, fd);
        pair_done(&a, &b);
        return 0;
}

static void test_receive_without_free_fd(void **state) {
        in_own_process(receive_without_free_fd);
}

/* A place for the first of two: they are too many even so. */
static int receive_two_with_one_free(void) {
        Ear e;

        CHECK(begin_with_fds(64) >= 0);
        int raw = half_listening(&e, NULL), fd = eventfd(0, EFD_CLOEXEC);
        use_up_fds(1);
        raw_send(raw, ENVELOPE("net.Socket", "1") "\n", strlen(ENVELOPE("net.Socket", "1") "\n"),
                        (int[]){ fd, fd }, 2);
        expect_ended(&e, -EPROTO);
        CHECK(e.n_letters == 0);
        ear_done(&e);
        return 0;
}

static void test_receive_two_with_one_free(void **state) {
        in_own_process(receive_two_with_one_free);
}

/* A descriptor that would have to wait needs a duplicate. Without one nothing is sent, and all goes on. */
static int send_without_free_fd(void) {
        unsigned n = 1;
        Sent s = { 0 };
        Ear a, b;

        CHECK(begin_with_fds(64) >= 0);
        pair_make(&a, &b, NULL);
        int fd = eventfd(0, EFD_CLOEXEC);
        use_up_fds(0);
        while (ear_send(&a, "[\"fill the socket\"]", -1, NULL) == 0)
                n++;
        CHECK(ear_send(&a, "1", fd, &s) == -EMFILE);
        CHECK(ear_send(&a, "2", -1, &s) == 1);
        run_until(b.n_letters == n + 1);
        assert_letter(&b, n, "2", MUSTER_HANDLE_NONE);
        run_until(s.n == 1);
        CHECK(s.errors[0] == 0);
        pair_done(&a, &b);
        return 0;
}

static void test_send_without_free_fd(void **state) {
        in_own_process(send_without_free_fd);
}

/* Reads lines of envelopes from a channel, and checks that each has its descriptor and is the next one. */
typedef struct Reader {
        int raw;
        unsigned n; /* envelopes */
} Reader;

/* One envelope, if there is one. */
static bool reader_next(Reader *r, int expected_fd) {
        char buf[256], line[256];
        int fd = -1;

        snprintf(line, sizeof(line), ENVELOPE("net.Native", "%u") "\n", r->n);
        ssize_t n = raw_read(r->raw, buf, strlen(line), &fd);
        if (n == -EAGAIN)
                return false;
        assert_int_equal(n, strlen(line));
        assert_memory_equal(buf, line, strlen(line));
        assert_true(fd >= 0);
        assert_same_file(fd, expected_fd);
        close(fd);
        r->n++;
        return true;
}

static unsigned send_numbers(Ear *e, unsigned from, unsigned to, int fd, Sent *s) {
        for (; from < to; from++) {
                char text[16];

                snprintf(text, sizeof(text), "%u", from);
                assert_true(ear_send(e, text, fd, s) >= 0);
        }
        return from;
}

/* So many may be under way without an acknowledgement; each one lets the next go. */
static void test_window(void **state) {
        enum { N = 3000, WINDOW = 1024 };
        int fd = eventfd(0, EFD_CLOEXEC);
        Sent s = { 0 };
        Ear e;
        Reader r = { .raw = half_listening(&e, NULL) };

        assert_int_equal(send_numbers(&e, 0, N, fd, &s), N);
        while (r.n < WINDOW)
                if (!reader_next(&r, fd))
                        turn();
        run_what_is_due();
        raw_expect_nothing(r.raw);
        /* It is the peer's turn, and nobody is waked meanwhile. */
        assert_int_equal(sd_event_run(event, 0), 0);
        assert_int_equal(s.n, 0);
        for (unsigned i = 0; i < N; i++) {
                raw_text(r.raw, ACK);
                run_until(s.n == i + 1);
                bool is_last = r.n == N;
                assert_int_equal(reader_next(&r, fd), !is_last);
        }
        assert_int_equal(e.n_drained, 1);
        ear_done(&e);
        close(r.raw);
        close(fd);
}

/* Root may have any number of descriptors under way, and another user as many as a process may have open: in
 * all processes together, so it is a user that nobody else is. */
static int become_somebody(void) {
        uid_t uid = 20000 + (uid_t) getpid() % 40000;

        if (geteuid() != 0)
                return 0;
        return setgroups(0, NULL) < 0 ? -1 : setresuid(uid, uid, uid);
}

/* 10,000 to a peer that takes its time, with 100 allowed to be under way, of which the kernel gives no
 * event: all arrive, in order. */
static int send_many_slowly(void) {
        enum { N = 10000, AHEAD = 150 };
        unsigned sent = 0, n_waits = 0;
        Sent s = { 0 };
        Ear e;

        CHECK(begin_with_fds(100) >= 0 && become_somebody() == 0);
        Reader r = { .raw = half_listening(&e, NULL) };
        int fd = eventfd(0, EFD_CLOEXEC);
        while (r.n < N) {
                unsigned n = 0;

                sent = send_numbers(&e, sent, MIN(r.n + AHEAD, (unsigned) N), fd, &s);
                n_waits += muster_channel_get_queued_bytes(e.channel) > 0;
                while (n < 64 && reader_next(&r, fd))
                        n++;
                for (unsigned i = 0; i < n; i++)
                        raw_text(r.raw, ACK);
                turn();
        }
        run_until(s.n == N);
        CHECK(n_waits > 10); /* they were too many for the kernel */
        ear_done(&e);
        return 0;
}

static void test_send_many_slowly(void **state) {
        in_own_process(send_many_slowly);
}

/* The same to a peer that reads, and acknowledges when it has all: no event tells that there is room again.
 */
static int send_many_unacknowledged(void) {
        enum { N = 300 };
        Sent s = { 0 };
        Ear e;

        CHECK(begin_with_fds(200) >= 0 && become_somebody() == 0);
        Reader r = { .raw = half_listening(&e, NULL) };
        int fd = eventfd(0, EFD_CLOEXEC);
        CHECK(send_numbers(&e, 0, N, fd, &s) == N);
        CHECK(muster_channel_get_queued_bytes(e.channel) > 0);
        while (r.n < N)
                if (!reader_next(&r, fd))
                        turn();
        CHECK(s.n == 0);
        for (unsigned i = 0; i < N; i++)
                raw_text(r.raw, ACK);
        run_until(s.n == N);
        run_what_is_due();
        CHECK(e.n_drained == 1);
        CHECK(sd_event_run(event, 0) == 0);
        ear_done(&e);
        return 0;
}

static void test_send_many_unacknowledged(void **state) {
        in_own_process(send_many_unacknowledged);
}

static uint64_t now_usec(void) {
        struct timespec ts;

        assert_int_equal(clock_gettime(CLOCK_MONOTONIC, &ts), 0);
        return (uint64_t) ts.tv_sec * 1000000 + (uint64_t) ts.tv_nsec / 1000;
}

/* The socket says that it has room, and the kernel takes no descriptor: that is asked ever less often. */
static int pause_between_attempts(void) {
        enum { N = 50, LIMIT = 40 };
        uint64_t begin = now_usec();
        Ear e;

        CHECK(begin_with_fds(LIMIT) >= 0 && become_somebody() == 0);
        (void) half_listening(&e, NULL);
        int fd = eventfd(0, EFD_CLOEXEC);
        CHECK(send_numbers(&e, 0, N, fd, NULL) == N);
        CHECK(muster_channel_get_queued_bytes(e.channel) > 0);
        for (int i = 0; i < 4; i++)
                turn();
        CHECK(now_usec() - begin >= 100000);
        ear_done(&e);
        return 0;
}

static void test_pause_between_attempts(void **state) {
        in_own_process(pause_between_attempts);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                channel_test(test_queue),
                channel_test(test_queue_memory),
                channel_test(test_queue_takes_one),
                channel_test(test_queue_refused_is_drained),
                channel_test(test_queue_of_acknowledgements),
                channel_test(test_queue_of_refusals),
                channel_test(test_shut_down_unheard),
                channel_test(test_size_sent),
                channel_test(test_size_received),
                channel_test(test_largest),
                channel_test(test_endless_line),
                channel_test(test_deepest),
                channel_test(test_rubbish),
                channel_test(test_half_a_line),
                channel_test(test_acknowledgement_too_early),
                channel_test(test_unsolicited_fd),
                channel_test(test_several_fds),
                channel_test(test_second_fd_of_a_line),
                channel_test(test_many_fds),
                channel_test(test_envelope_without_fd),
                channel_test(test_receive_without_free_fd),
                channel_test(test_receive_two_with_one_free),
                channel_test(test_send_without_free_fd),
                channel_test(test_window),
                channel_test(test_send_many_slowly),
                channel_test(test_send_many_unacknowledged),
                channel_test(test_pause_between_attempts),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
