/* SPDX-License-Identifier: MIT */
/* The channel as it is used: messages and descriptors, and who is told what and when. Its beginning and end
 * are in test-channel-end.c, limits and hostile peers in test-channel-limits.c. */

#include "channel-pair.h"

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <netinet/in.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>

/*
 * Messages
 */

/* Any JSON value, as it is, both ways. */
static void test_messages(void **state) {
        static const char *const texts[] = { "null", "true", "-1.5e3", "\"ready\"", "[]", "{}",
                " [ 1,\t2 ] ", "{\"a\":{\"cmd\":\"NODE_X\"}}", "{\"cmd\":\"start\"}", "{\"cmd\":\"NODE_\"}",
                "\"gr\xC3\xB6\303\237e \xF0\x9F\x99\x82 \xE2\x80\xA8 \\n \\ud800\"" };
        Ear a, b;

        pair_make(&a, &b, NULL);
        for (size_t i = 0; i < ELEMENTSOF(texts); i++) {
                assert_int_equal(ear_send(&a, texts[i], -1, NULL), 0);
                assert_int_equal(ear_send(&b, texts[i], -1, NULL), 0);
        }
        run_until(a.n_letters == ELEMENTSOF(texts) && b.n_letters == ELEMENTSOF(texts));
        for (unsigned i = 0; i < ELEMENTSOF(texts); i++) {
                assert_letter(&a, i, texts[i], MUSTER_HANDLE_NONE);
                assert_letter(&b, i, texts[i], MUSTER_HANDLE_NONE);
        }
        assert_int_equal(a.n_drained, 0);
        pair_done(&a, &b);
}

/* While it is paused nothing is heard, not the end either; what is sent goes out all the same. */
static void test_pause(void **state) {
        Ear e;
        int raw = half_listening(&e, NULL);

        assert_int_equal(muster_channel_pause(NULL), -EINVAL);
        assert_int_equal(muster_channel_resume(NULL), -EINVAL);
        assert_int_equal(CALL(muster_channel_pause(e.channel)), 0);
        raw_text(raw, "[1]\n[2]\n");
        run_what_is_due();
        assert_int_equal(e.n_letters, 0);
        assert_int_equal(ear_send(&e, "1", -1, NULL), 0);
        raw_expect(raw, "1\n");

        assert_int_equal(CALL(muster_channel_resume(e.channel)), 0);
        run_until(e.n_letters == 2);
        assert_int_equal(CALL(muster_channel_pause(e.channel)), 0);
        close(raw);
        run_what_is_due();
        assert_int_equal(e.n_ended, 0);
        assert_int_equal(CALL(muster_channel_resume(e.channel)), 0);
        run_until(e.n_ended == 1);
        assert_int_equal(muster_channel_pause(e.channel), -EPIPE);
        assert_int_equal(muster_channel_resume(e.channel), -EPIPE);
        ear_done(&e);
}

/* A text with a length needs no NUL, and nothing behind it is looked at. */
static void test_send_full(void **state) {
        static const char text[] = { '[', '1', ']', '!' };
        Ear a, b;

        pair_make(&a, &b, NULL);
        assert_int_equal(CALL(muster_channel_send_full(
                                         a.channel, text, 3, -1, MUSTER_HANDLE_AUTO, NULL, NULL)),
                        0);
        assert_int_equal(CALL(muster_channel_send_full(
                                         a.channel, text, 3, -1, MUSTER_HANDLE_NONE, NULL, NULL)),
                        0);
        run_until(b.n_letters == 2);
        assert_letter(&b, 0, "[1]", MUSTER_HANDLE_NONE);
        assert_letter(&b, 1, "[1]", MUSTER_HANDLE_NONE);
        pair_done(&a, &b);
}

/* What would end the channel at the other side is refused here, and the channel goes on. */
static void test_send_refused(void **state) {
        static const char *const texts[] = { "", " ", "hello", "{", "1 2", "{a:1}", "[1]\n", "[\n1]", "\n",
                "\"\n\"", "\"\xFF\"", "\"\xED\xA0\x80\"", "NaN" };
        int raw, fd = eventfd(0, EFD_CLOEXEC), closed = dup(fd);
        Sent s = { 0 };
        Ear e;

        raw = half_listening(&e, NULL);
        close(closed);
        for (size_t i = 0; i < ELEMENTSOF(texts); i++)
                assert_int_equal(ear_send(&e, texts[i], i % 2 ? fd : -1, &s), -EBADMSG);
#define SEND_FULL(text, n, f, type) \
        CALL(muster_channel_send_full(e.channel, text, n, f, type, on_sent_noted, &s))
        assert_int_equal(SEND_FULL("1\0", 2, -1, MUSTER_HANDLE_AUTO), -EBADMSG);
        assert_int_equal(SEND_FULL("\"a\0b\"", 5, -1, MUSTER_HANDLE_AUTO), -EBADMSG);
        assert_int_equal(SEND_FULL("1", 0, -1, MUSTER_HANDLE_AUTO), -EBADMSG);
        assert_int_equal(SEND_FULL("1", 1, -1, MUSTER_HANDLE_NET_SOCKET), -EINVAL);
        assert_int_equal(SEND_FULL("1", 1, fd, MUSTER_HANDLE_NONE), -EINVAL);
        assert_int_equal(SEND_FULL("1", 1, fd, MUSTER_HANDLE_OTHER), -EINVAL);
        assert_int_equal(SEND_FULL("1", 1, fd, -2), -EINVAL);
        assert_int_equal(SEND_FULL("1", 1, fd, 100), -EINVAL);
        assert_int_equal(SEND_FULL("1", 1, closed, MUSTER_HANDLE_AUTO), -EBADF);
        assert_int_equal(SEND_FULL("1", 1, closed, MUSTER_HANDLE_NET_NATIVE), -EBADF);
#undef SEND_FULL
        assert_int_equal(muster_channel_send(NULL, "1", -1, NULL, NULL), -EINVAL);
        assert_int_equal(muster_channel_send(e.channel, NULL, -1, NULL, NULL), -EINVAL);
        run_what_is_due();
        raw_expect_nothing(raw);
        assert_int_equal(s.n, 0);
        assert_int_equal(ear_send(&e, "1", -1, NULL), 0);
        raw_expect(raw, "1\n");
        ear_done(&e);
        close(raw);
        close(fd);
}

/* 10,000 messages, some with descriptors, at once from both sides: all arrive, in order, with the right
 * ones. */
static void test_order(void **state) {
        enum { N = 10000, N_FILES = 13 };
        int files[N_FILES];
        Ear a, b;

        for (unsigned i = 0; i < N_FILES; i++)
                files[i] = memfd_create("order", MFD_CLOEXEC);
        pair_make(&a, &b, NULL);
        for (unsigned i = 0; i < N; i++) {
                char text[32];

                snprintf(text, sizeof(text), "{\"number\":%u}", i);
                assert_true(ear_send(&a, text, i % 7 == 0 ? files[i % N_FILES] : -1, NULL) >= 0);
                assert_true(ear_send(&b, text, i % 11 < 2 ? files[i % N_FILES] : -1, NULL) >= 0);
                if (i % 500 == 499)
                        run_what_is_due();
        }
        run_until(a.n_letters == N && b.n_letters == N);
        for (unsigned i = 0; i < N; i++) {
                char text[32];

                snprintf(text, sizeof(text), "{\"number\":%u}", i);
                assert_letter(&a, i, text, i % 11 < 2 ? MUSTER_HANDLE_NET_NATIVE : MUSTER_HANDLE_NONE);
                assert_letter(&b, i, text, i % 7 == 0 ? MUSTER_HANDLE_NET_NATIVE : MUSTER_HANDLE_NONE);
                if (i % 11 < 2)
                        assert_same_file(a.letters[i].fd, files[i % N_FILES]);
                if (i % 7 == 0)
                        assert_same_file(b.letters[i].fd, files[i % N_FILES]);
        }
        pair_done(&a, &b);
        for (unsigned i = 0; i < N_FILES; i++)
                close(files[i]);
}

/* What is sent while something waits goes behind it, though there may be room by now. */
static void test_order_of_waiting(void **state) {
        static char buf[1024 * 1024];
        size_t n = 0;
        Ear e;
        int raw = half_listening(&e, NULL);

        while (ear_send(&e, "[0]", -1, NULL) == 0)
                ;
        assert_int_equal(ear_send(&e, "[1]", -1, NULL), 1);
        while (n == 0 || buf[n - 1] != '\n' || buf[n - 3] != '2') {
                int fd = -1;
                ssize_t k = raw_read(raw, buf + n, sizeof(buf) - n, &fd);

                if (k > 0)
                        n += (size_t) k;
                else if (e.n_drained == 0 && muster_channel_get_queued_bytes(e.channel) < 12) {
                        assert_int_equal(ear_send(&e, "[2]", -1, NULL),
                                        1); /* there is room, but no event yet */
                        turn();
                }
        }
        assert_memory_equal(buf + n - 12, "[0]\n[1]\n[2]\n", 12);
        ear_done(&e);
        close(raw);
}

/* A send that finds room says 0, one that does not says 1, and "drained" comes once, when all is out. */
static void test_drained(void **state) {
        unsigned n_taken = 0, n_waiting = 0;
        uint64_t queued = 0;
        Ear a, b;

        pair_make(&a, &b, NULL);
        b.only_count = true;
        while (ear_send(&a, "[\"some text\"]", -1, NULL) == 0) {
                assert_int_equal(muster_channel_get_queued_bytes(a.channel), 0);
                n_taken++;
        }
        assert_true(n_taken > 10);
        for (; n_waiting < 1000; n_waiting++) {
                assert_true(muster_channel_get_queued_bytes(a.channel) > queued);
                queued = muster_channel_get_queued_bytes(a.channel);
                assert_int_equal(ear_send(&a, "[\"some text\"]", -1, NULL), 1);
        }
        run_until(b.n_letters == n_taken + 1 + n_waiting);
        run_what_is_due();
        assert_int_equal(a.n_drained, 1);
        assert_int_equal(muster_channel_get_queued_bytes(a.channel), 0);
        /* What does not wait is no reason for another one. */
        assert_int_equal(ear_send(&a, "1", -1, NULL), 0);
        run_until(b.n_letters == n_taken + n_waiting + 2);
        run_what_is_due();
        assert_int_equal(a.n_drained, 1);
        pair_done(&a, &b);
}

static void fill_again(Ear *e) {
        if (e->n_drained < 5)
                while (ear_send(e, "[\"some more text\"]", -1, NULL) == 0)
                        ;
}

/* Sending from "drained", as a producer does: it is called again and again. */
static void test_drained_sends(void **state) {
        Ear a, b;

        pair_make(&a, &b, NULL);
        b.only_count = true;
        a.on_drained = fill_again;
        fill_again(&a);
        run_until(a.n_drained == 5);
        run_what_is_due();
        assert_int_equal(a.n_drained, 5);
        pair_done(&a, &b);
}

/*
 * Descriptors
 */

/* On the wire: one line, the descriptor with its first byte; the caller's own may be closed at once. */
static void test_fd_on_the_wire(void **state) {
        int raw, p[2], fd = -1;
        char buf[256];
        Ear e;

        raw = half_listening(&e, NULL);
        assert_int_equal(pipe2(p, O_CLOEXEC), 0);
        assert_int_equal(ear_send(&e, "{\"a\":1}", p[0], NULL), 0);
        ssize_t n = raw_read(raw, buf, sizeof(buf), &fd);
        assert_int_equal(n, strlen(ENVELOPE("net.Native", "{\"a\":1}") "\n"));
        assert_memory_equal(buf, ENVELOPE("net.Native", "{\"a\":1}") "\n", (size_t) n);
        assert_true(fd >= 0);
        assert_same_file(fd, p[0]);
        close(fd);
        close(p[0]);
        close(p[1]);
        ear_done(&e);
        close(raw);
}

/* One that had to wait is with its own line, too, and not with those that it waited with. */
static void test_fd_waits(void **state) {
        static const char line[] = ENVELOPE("net.Native", "1") "\n";
        int raw, own = eventfd(0, EFD_CLOEXEC), fd = -1;
        unsigned n_plain = 2;
        char buf[256];
        Ear e;

        raw = half_listening(&e, NULL);
        while (ear_send(&e, "[0]", -1, NULL) == 0)
                n_plain++;
        assert_int_equal(ear_send(&e, "[0]", -1, NULL), 1);
        assert_int_equal(ear_send(&e, "1", own, NULL), 1);
        assert_int_equal(ear_send(&e, "[0]", -1, NULL), 1);
        for (unsigned i = 0; i < n_plain;) {
                ssize_t n = raw_read(raw, buf, 4, &fd);

                if (n == -EAGAIN) {
                        turn();
                        continue;
                }
                assert_int_equal(n, 4);
                assert_memory_equal(buf, "[0]\n", 4);
                assert_int_equal(fd, -1);
                i++;
        }
        run_what_is_due();
        assert_int_equal(raw_read(raw, buf, strlen(line), &fd), strlen(line));
        assert_memory_equal(buf, line, strlen(line));
        assert_same_file(fd, own);
        close(fd);
        raw_expect(raw, "[0]\n");
        ear_done(&e);
        close(raw);
        close(own);
}

/* Arrives close-on-exec, is the message's until it is taken, and is closed after the handler if it is not.
 */
static void test_fd_received(void **state) {
        int raw, p[2];
        Ear e;

        raw = half_listening(&e, NULL);
        assert_int_equal(pipe2(p, O_CLOEXEC), 0);
        raw_text_fd(raw, ENVELOPE("net.Socket", "[1]") "\n", p[1]);
        run_until(e.n_letters == 1);
        raw_expect(raw, ACK);
        assert_letter(&e, 0, "[1]", MUSTER_HANDLE_NET_SOCKET);
        assert_same_file(e.letters[0].fd, p[1]);
        assert_true(fcntl(e.letters[0].fd, F_GETFD) & FD_CLOEXEC);
        ear_forget(&e);

        e.only_count = true;
        raw_text_fd(raw, ENVELOPE("net.Socket", "[2]") "\n", p[1]);
        close(p[1]);
        run_until(e.n_letters == 1);
        raw_expect(raw, ACK);
        assert_int_equal(read(p[0], &(char){ 0 }, 1), 0); /* no writer is left */
        close(p[0]);
        ear_done(&e);
        close(raw);
}

static void test_handle_types_received(void **state) {
        static const struct {
                const char *line;
                int type;
        } cases[] = {
                { ENVELOPE("net.Server", "1") "\n", MUSTER_HANDLE_NET_SERVER },
                { ENVELOPE("net.Socket", "1") "\n", MUSTER_HANDLE_NET_SOCKET },
                { ENVELOPE("net.Native", "1") "\n", MUSTER_HANDLE_NET_NATIVE },
                { ENVELOPE("dgram.Socket", "1") "\n", MUSTER_HANDLE_DGRAM_SOCKET },
                { ENVELOPE("dgram.Native", "1") "\n", MUSTER_HANDLE_DGRAM_NATIVE },
                { ENVELOPE("tls.Server", "1") "\n", MUSTER_HANDLE_OTHER },
        };
        int raw, fd = eventfd(0, EFD_CLOEXEC);
        Ear e;

        raw = half_listening(&e, NULL);
        for (unsigned i = 0; i < ELEMENTSOF(cases); i++) {
                raw_text_fd(raw, cases[i].line, fd);
                run_until(e.n_letters == i + 1);
                assert_letter(&e, i, "1", cases[i].type);
                raw_expect(raw, ACK);
        }
        ear_done(&e);
        close(raw);
        close(fd);
}

static int socket_of(int domain, int type) {
        int fd = socket(domain, type | SOCK_CLOEXEC, 0);

        assert_true(fd >= 0);
        return fd;
}

/* Takes @fd. */
static void check_sent_type(Ear *a, Ear *b, int fd, int type, int expected) {
        bool is_socket = getsockopt(fd, SOL_SOCKET, SO_TYPE, &(int){ 0 }, &(socklen_t){ sizeof(int) }) == 0;

        assert_int_equal(CALL(muster_channel_send_full(a->channel, "7", 1, fd, type, NULL, NULL)), 0);
        run_until(b->n_letters == 1);
        assert_letter(b, 0, "7", expected);
        assert_same_file(b->letters[0].fd, fd);
        /* Node expects it, and so it is for both. */
        if (is_socket)
                assert_true(fcntl(fd, F_GETFL) & O_NONBLOCK);
        close(fd);
        ear_forget(b);
}

/* What a descriptor is to Node follows from what it is, or is said. */
static void test_handle_types_sent(void **state) {
        int listening = socket_of(AF_INET, SOCK_STREAM), server = socket_of(AF_UNIX, SOCK_STREAM);
        struct sockaddr_un autobind = { .sun_family = AF_UNIX };
        int p[2];
        Ear a, b;

        pair_make(&a, &b, NULL);
        assert_int_equal(listen(listening, 1), 0);
        assert_int_equal(bind(server, (struct sockaddr *) &autobind, sizeof(autobind.sun_family)), 0);
        assert_int_equal(listen(server, 1), 0);
        assert_int_equal(pipe2(p, O_CLOEXEC), 0);

        check_sent_type(&a, &b, listening, MUSTER_HANDLE_AUTO, MUSTER_HANDLE_NET_SERVER);
        check_sent_type(&a, &b, server, MUSTER_HANDLE_AUTO, MUSTER_HANDLE_NET_SERVER);
        check_sent_type(&a, &b, socket_of(AF_INET6, SOCK_STREAM), MUSTER_HANDLE_AUTO,
                        MUSTER_HANDLE_NET_SOCKET);
        check_sent_type(&a, &b, socket_of(AF_UNIX, SOCK_STREAM), MUSTER_HANDLE_AUTO,
                        MUSTER_HANDLE_NET_SOCKET);
        check_sent_type(&a, &b, socket_of(AF_INET, SOCK_DGRAM), MUSTER_HANDLE_AUTO,
                        MUSTER_HANDLE_DGRAM_SOCKET);
        check_sent_type(&a, &b, socket_of(AF_INET6, SOCK_DGRAM), MUSTER_HANDLE_AUTO,
                        MUSTER_HANDLE_DGRAM_SOCKET);
        check_sent_type(&a, &b, socket_of(AF_UNIX, SOCK_DGRAM), MUSTER_HANDLE_AUTO,
                        MUSTER_HANDLE_NET_NATIVE);
        check_sent_type(&a, &b, p[0], MUSTER_HANDLE_AUTO, MUSTER_HANDLE_NET_NATIVE);
        check_sent_type(&a, &b, p[1], MUSTER_HANDLE_AUTO, MUSTER_HANDLE_NET_NATIVE);
        for (int type = MUSTER_HANDLE_NET_SERVER; type <= MUSTER_HANDLE_DGRAM_NATIVE; type++)
                check_sent_type(&a, &b, socket_of(AF_INET, SOCK_STREAM), type, type);
        pair_done(&a, &b);
}

/* From now on this process ends with the next getsockopt(). */
static void forbid_questions(void) {
        struct sock_filter rules[] = {
                BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
                BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, __NR_getsockopt, 0, 1),
                BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
                BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
        };
        struct sock_fprog program = { ELEMENTSOF(rules), rules };

        if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 ||
                        prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) < 0)
                _exit(77);
}

/* A connection that is as it should be, with its type, is sent without any question about it: that is what a
 * primary does a thousand times a second. */
static void test_handle_without_questions(void **state) {
        int status, fd = socket_of(AF_INET, SOCK_STREAM | SOCK_NONBLOCK);
        Ear a, b;

        pair_make(&a, &b, NULL);
        pid_t pid = fork();
        assert_true(pid >= 0);
        if (pid == 0) {
                forbid_questions();
                int r = muster_channel_send_full(
                                a.channel, "7", 1, fd, MUSTER_HANDLE_NET_NATIVE, NULL, NULL);
                _exit(-r);
        }
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_true(WIFEXITED(status));
        if (WEXITSTATUS(status) == 77)
                skip();
        assert_int_equal(WEXITSTATUS(status), 0);
        run_until(b.n_letters == 1);
        assert_letter(&b, 0, "7", MUSTER_HANDLE_NET_NATIVE);
        assert_same_file(b.letters[0].fd, fd);
        close(fd);
        pair_done(&a, &b);
}

/* Node's dgram.Socket has to be told its family. */
static void test_dgram_type(void **state) {
        static const int domains[] = { AF_INET, AF_INET6 };
        int raw, fd = -1;
        char buf[256];
        Ear e;

        raw = half_listening(&e, NULL);
        for (size_t i = 0; i < ELEMENTSOF(domains); i++) {
                int sock = socket_of(domains[i], SOCK_DGRAM);

                assert_int_equal(ear_send(&e, "0", sock, NULL), 0);
                memset(buf, 0, sizeof(buf));
                assert_true(raw_read(raw, buf, sizeof(buf) - 1, &fd) > 0);
                assert_non_null(strstr(buf, i == 0 ? "\"dgramType\":\"udp4\"" : "\"dgramType\":\"udp6\""));
                close(fd);
                close(sock);
        }
        ear_done(&e);
        close(raw);
}

/*
 * The handler of one message
 */

/* Without a descriptor: when the kernel has it, in the order sent, and from the loop. */
static void test_sent(void **state) {
        Sent s = { 0 };
        Ear a, b;

        pair_make(&a, &b, NULL);
        assert_int_equal(ear_send(&a, "1", -1, &s), 0);
        assert_int_equal(s.n, 0);
        assert_int_equal(ear_send(&a, "2", -1, &s), 0);
        run_until(s.n == 2);
        assert_int_equal(s.errors[0], 0);
        assert_int_equal(s.errors[1], 0);
        run_what_is_due();
        assert_int_equal(s.n, 2);
        pair_done(&a, &b);
}

/* What waits is not sent. */
static void test_sent_waits(void **state) {
        Sent s = { 0 };
        int raw;
        Ear e;

        raw = half_listening(&e, NULL);
        while (ear_send(&e, "[\"fill the socket\"]", -1, NULL) == 0)
                ;
        assert_int_equal(ear_send(&e, "2", -1, &s), 1);
        run_what_is_due();
        assert_int_equal(s.n, 0);
        assert_int_equal(e.n_drained, 0);
        while (s.n == 0) {
                char buf[65536];
                int fd;

                if (raw_read(raw, buf, sizeof(buf), &fd) == -EAGAIN)
                        turn();
        }
        assert_int_equal(s.errors[0], 0);
        ear_done(&e);
        close(raw);
}

/* With a descriptor: when the peer has acknowledged it, and with what it said, in order. */
static void test_sent_fd(void **state) {
        int raw, fd = eventfd(0, EFD_CLOEXEC);
        Sent first = { 0 }, second = { 0 }, third = { 0 }, plain = { 0 };
        Ear e;

        raw = half_listening(&e, NULL);
        assert_int_equal(ear_send(&e, "1", fd, &first), 0);
        assert_int_equal(ear_send(&e, "2", fd, &second), 0);
        assert_int_equal(ear_send(&e, "3", fd, &third), 0);
        assert_int_equal(ear_send(&e, "4", -1, &plain), 0);
        run_until(plain.n == 1); /* it waits for no acknowledgement of others */
        run_what_is_due();
        assert_int_equal(first.n, 0);

        raw_text(raw, ACK);
        run_until(first.n == 1);
        assert_int_equal(first.errors[0], 0);
        run_what_is_due();
        assert_int_equal(second.n, 0);
        raw_text(raw, NACK ACK);
        run_until(third.n == 1);
        assert_int_equal(second.n, 1);
        assert_int_equal(second.errors[0], -EREMOTEIO);
        assert_int_equal(third.errors[0], 0);
        assert_int_equal(e.n_letters, 0); /* an acknowledgement is no message */
        assert_int_equal(e.n_ended, 0);
        ear_done(&e);
        close(raw);
        close(fd);
}

/* Between two channels it is done by itself. */
static void test_sent_fd_acknowledged(void **state) {
        int fd = eventfd(0, EFD_CLOEXEC);
        Sent s = { 0 };
        Ear a, b;

        pair_make(&a, &b, NULL);
        for (int i = 0; i < 50; i++)
                assert_int_equal(ear_send(&a, "1", fd, &s), 0);
        run_until(s.n == 50);
        for (int i = 0; i < 50; i++)
                assert_int_equal(s.errors[i], 0);
        assert_int_equal(b.n_letters, 50);
        pair_done(&a, &b);
        close(fd);
}

/* The peer goes: what it has not acknowledged, and what waits, has failed, and is told before the end. */
static void test_sent_peer_gone(void **state) {
        int raw, fd = eventfd(0, EFD_CLOEXEC);
        Sent s = { 0 };
        Ear e;

        raw = half_listening(&e, NULL);
        assert_int_equal(ear_send(&e, "1", fd, &s), 0);
        while (ear_send(&e, "[\"fill the socket\"]", -1, NULL) == 0)
                ;
        assert_int_equal(ear_send(&e, "2", -1, &s), 1);
        assert_int_equal(ear_send(&e, "3", fd, &s), 1);
        close(raw);
        expect_ended(&e, 0);
        assert_int_equal(s.n, 3);
        for (int i = 0; i < 3; i++)
                assert_int_equal(s.errors[i], -EPIPE);
        assert_int_equal(e.n_drained, 0);
        ear_done(&e);
        close(fd);
}

/* The last reference goes: nobody is told of anything. */
static void test_sent_dropped(void **state) {
        int raw, fd = eventfd(0, EFD_CLOEXEC);
        Sent s = { 0 };
        Ear e;

        raw = half_listening(&e, NULL);
        assert_int_equal(ear_send(&e, "0", -1, &s), 0);
        assert_int_equal(ear_send(&e, "1", fd, &s), 0);
        while (ear_send(&e, "[\"fill the socket\"]", fd, &s) == 0)
                ;
        ear_done(&e);
        run_what_is_due();
        assert_int_equal(s.n, 0);
        assert_int_equal(e.n_ended, 0);
        close(raw);
        close(fd);
}

/* A failed channel says so in its own words. */
static void test_sent_protocol_error(void **state) {
        int raw, fd = eventfd(0, EFD_CLOEXEC);
        Sent s = { 0 };
        Ear e;

        raw = half_listening(&e, NULL);
        assert_int_equal(ear_send(&e, "1", fd, &s), 0);
        raw_text(raw, "rubbish\n");
        expect_ended(&e, -EBADMSG);
        assert_int_equal(s.n, 1);
        assert_int_equal(s.errors[0], -EBADMSG);
        ear_done(&e);
        close(raw);
        close(fd);
}

/*
 * What Node keeps to itself
 */

static const char *const internal[] = { "{\"cmd\":\"NODE_CLUSTER\",\"act\":\"online\",\"seq\":0}",
        "{\"cmd\":\"NODE_X\"}" };

/* Hidden from who does not ask, with whatever comes along; but a descriptor is acknowledged. */
static void test_internal_hidden(void **state) {
        int raw, fd = eventfd(0, EFD_CLOEXEC);
        Ear e;

        raw = half_listening(&e, NULL);
        for (size_t i = 0; i < ELEMENTSOF(internal); i++) {
                raw_text(raw, internal[i]);
                raw_text(raw, "\n");
        }
        raw_text_fd(raw, ENVELOPE("net.Native", "{\"cmd\":\"NODE_CLUSTER\",\"act\":\"newconn\"}") "\n", fd);
        raw_text(raw, "\"after\"\n");
        run_until(e.n_letters == 1);
        assert_letter(&e, 0, "\"after\"", MUSTER_HANDLE_NONE);
        raw_expect(raw, ACK);
        ear_done(&e);
        close(raw);
        close(fd);
}

static void test_internal_delivered(void **state) {
        muster_channel_options o = MUSTER_CHANNEL_OPTIONS_INIT;
        int raw, fd = eventfd(0, EFD_CLOEXEC);
        Ear e;

        o.flags = MUSTER_CHANNEL_INTERNAL;
        raw = half_listening(&e, &o);
        for (size_t i = 0; i < ELEMENTSOF(internal); i++) {
                raw_text(raw, internal[i]);
                raw_text(raw, "\n");
        }
        raw_text_fd(raw, ENVELOPE("net.Native", "{\"cmd\":\"NODE_CLUSTER\",\"act\":\"newconn\"}") "\n", fd);
        raw_text(raw, NACK "\"after\"\n");
        run_until(e.n_letters == 5);
        assert_letter(&e, 0, internal[0], MUSTER_HANDLE_NONE);
        assert_letter(&e, 1, internal[1], MUSTER_HANDLE_NONE);
        assert_letter(&e, 2, "{\"cmd\":\"NODE_CLUSTER\",\"act\":\"newconn\"}", MUSTER_HANDLE_NET_NATIVE);
        assert_letter(&e, 3, "{\"cmd\":\"NODE_HANDLE_NACK\"}", MUSTER_HANDLE_NONE);
        assert_letter(&e, 4, "\"after\"", MUSTER_HANDLE_NONE);
        raw_expect(raw, ACK);
        ear_done(&e);
        close(raw);
        close(fd);
}

/* An acknowledgement that something waits for is not delivered, even so. */
static void test_internal_acknowledgement(void **state) {
        muster_channel_options o = MUSTER_CHANNEL_OPTIONS_INIT;
        int raw, fd = eventfd(0, EFD_CLOEXEC);
        Sent s = { 0 };
        Ear e;

        o.flags = MUSTER_CHANNEL_INTERNAL;
        raw = half_listening(&e, &o);
        assert_int_equal(ear_send(&e, "1", fd, &s), 0);
        raw_text(raw, ACK ACK);
        run_until(e.n_letters == 1);
        assert_int_equal(s.n, 1);
        assert_letter(&e, 0, "{\"cmd\":\"NODE_HANDLE_ACK\"}", MUSTER_HANDLE_NONE);
        assert_int_equal(e.n_ended, 0);
        ear_done(&e);
        close(raw);
        close(fd);
}

/*
 * The way in
 */

/* Every byte alone, and the descriptor with its line's first. */
static void test_one_byte_at_a_time(void **state) {
        static const char text[] = "{\"a\":\"\xC3\xA4\"}\n" ENVELOPE("net.Socket", "[1]") "\n\"last\"\n";
        int raw, fd = eventfd(0, EFD_CLOEXEC);
        Ear e;

        raw = half_listening(&e, NULL);
        size_t handle = (size_t) (strchr(text, '\n') + 1 - text);
        for (size_t i = 0; i < strlen(text); i++) {
                raw_send(raw, text + i, 1, &fd, i == handle);
                turn();
        }
        assert_int_equal(e.n_letters, 3);
        assert_letter(&e, 0, "{\"a\":\"\xC3\xA4\"}", MUSTER_HANDLE_NONE);
        assert_letter(&e, 1, "[1]", MUSTER_HANDLE_NET_SOCKET);
        assert_same_file(e.letters[1].fd, fd);
        assert_letter(&e, 2, "\"last\"", MUSTER_HANDLE_NONE);
        raw_expect(raw, ACK);
        ear_done(&e);
        close(raw);
        close(fd);
}

/* All that is there before the channel looks comes in one read up to the descriptor, which is that of the
 * line that was sent with it. */
static void test_fd_belongs_to_its_line(void **state) {
        int raw, files[3];
        Ear e;

        raw = half_make(&e, NULL);
        for (int i = 0; i < 3; i++)
                files[i] = memfd_create("line", MFD_CLOEXEC);
        raw_text(raw, "\"first\"\n");
        raw_text(raw, ENVELOPE("net.Socket", "\"without\"") "\n");
        raw_text_fd(raw, ENVELOPE("net.Socket", "\"one\"") "\n", files[0]);
        raw_text_fd(raw, ENVELOPE("net.Socket", "\"two\"") "\n", files[1]);
        raw_text(raw, "\"between\"\n\"half");
        raw_text(raw, " line\"\n");
        raw_text_fd(raw, ENVELOPE("net.Socket", "\"three\"") "\n", files[2]);
        raw_text(raw, ENVELOPE("net.Socket", "\"without\"") "\n\"last\"\n");
        ear_listen(&e);
        run_until(e.n_letters == 7);
        assert_letter(&e, 0, "\"first\"", MUSTER_HANDLE_NONE);
        assert_letter(&e, 1, "\"one\"", MUSTER_HANDLE_NET_SOCKET);
        assert_same_file(e.letters[1].fd, files[0]);
        assert_letter(&e, 2, "\"two\"", MUSTER_HANDLE_NET_SOCKET);
        assert_same_file(e.letters[2].fd, files[1]);
        assert_letter(&e, 3, "\"between\"", MUSTER_HANDLE_NONE);
        assert_letter(&e, 4, "\"half line\"", MUSTER_HANDLE_NONE);
        assert_letter(&e, 5, "\"three\"", MUSTER_HANDLE_NET_SOCKET);
        assert_same_file(e.letters[5].fd, files[2]);
        assert_letter(&e, 6, "\"last\"", MUSTER_HANDLE_NONE);
        raw_expect(raw, NACK ACK ACK ACK NACK);
        ear_done(&e);
        close(raw);
        for (int i = 0; i < 3; i++)
                close(files[i]);
}

/* One half of a line with a descriptor, and with its other half the next one: each gets its own. */
static void test_fds_of_halves(void **state) {
        static const char line[] = ENVELOPE("net.Socket", "1") "\n";
        int raw, files[2];
        Ear e;

        raw = half_listening(&e, NULL);
        for (int i = 0; i < 2; i++)
                files[i] = memfd_create("half", MFD_CLOEXEC);
        raw_send(raw, line, 10, &files[0], 1);
        turn();
        raw_send(raw, line + 10, strlen(line) - 10, NULL, 0);
        raw_send(raw, line, 20, &files[1], 1);
        turn();
        assert_int_equal(e.n_letters, 1);
        raw_send(raw, line + 20, strlen(line) - 20, NULL, 0);
        run_until(e.n_letters == 2);
        assert_same_file(e.letters[0].fd, files[0]);
        assert_same_file(e.letters[1].fd, files[1]);
        raw_expect(raw, ACK ACK);
        ear_done(&e);
        close(raw);
        for (int i = 0; i < 2; i++)
                close(files[i]);
}

/* What comes before there are handlers waits for them, the end as well, and costs nothing. */
static void test_waits_for_handlers(void **state) {
        Ear e;
        int raw = half_make(&e, NULL);

        raw_text(raw, "\"one\"\n\"two\"\n");
        assert_int_equal(sd_event_run(event, 0), 0);
        close(raw);
        assert_int_equal(sd_event_run(event, 0), 0);
        assert_true(muster_channel_is_connected(e.channel));
        ear_listen(&e);
        assert_int_equal(e.n_letters, 0);
        expect_ended(&e, 0);
        assert_letter(&e, 0, "\"one\"", MUSTER_HANDLE_NONE);
        assert_letter(&e, 1, "\"two\"", MUSTER_HANDLE_NONE);
        ear_done(&e);
}

/* Also while something waits to be sent, and when the peer is gone. */
static void test_waits_while_sending(void **state) {
        Sent s = { 0 };
        Ear e;
        int raw = half_make(&e, NULL);

        while (ear_send(&e, "[\"fill the socket\"]", -1, NULL) == 0)
                ;
        assert_int_equal(ear_send(&e, "1", -1, &s), 1);
        raw_text(raw, "\"one\"\n");
        run_what_is_due();
        raw_text(raw, "\"two\"\n");
        close(raw);
        run_what_is_due();
        assert_int_equal(s.n, 1); /* in vain */
        assert_int_equal(s.errors[0], -EPIPE);
        assert_int_equal(sd_event_run(event, 0), 0);
        ear_listen(&e);
        expect_ended(&e, 0);
        assert_int_equal(e.n_letters, 2);
        ear_done(&e);
}

/* The same for one that is on no loop yet. What it has to send and to tell waits, too. */
static void test_attach(void **state) {
        Sent s = { 0 };
        int fds[2];
        Ear e = { 0 };

        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
        assert_int_equal(muster_channel_new(NULL, fds[0], NULL, &e.channel), 0);
        raw_text(fds[1], "\"one\"\n");
        ear_listen(&e);
        assert_int_equal(ear_send(&e, "1", -1, &s), 0);
        assert_int_equal(sd_event_run(event, 0), 0);
        assert_int_equal(muster_channel_attach(e.channel, NULL), -EINVAL);
        assert_int_equal(muster_channel_attach(NULL, event), -EINVAL);
        assert_int_equal(CALL(muster_channel_attach(e.channel, event)), 0);
        assert_int_equal(CALL(muster_channel_attach(e.channel, event)), -EBUSY);
        assert_int_equal(e.n_letters + s.n, 0);
        run_until(e.n_letters == 1 && s.n == 1);
        raw_expect(fds[1], "1\n");
        ear_done(&e);
        close(fds[1]);
}

/* A loop is given only once, whichever way. */
static void test_attach_busy(void **state) {
        Ear e;
        int raw = half_make(&e, NULL);

        assert_int_equal(muster_channel_attach(e.channel, event), -EBUSY);
        ear_done(&e);
        close(raw);
}

static void test_attach_then_disconnect(void **state) {
        int fds[2];
        Ear e = { 0 };

        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
        assert_int_equal(muster_channel_new(NULL, fds[0], NULL, &e.channel), 0);
        ear_listen(&e);
        while (ear_send(&e, "[\"fill the socket\"]", -1, NULL) == 0)
                ;
        assert_int_equal(CALL(muster_channel_disconnect(e.channel)), 0);
        assert_int_equal(CALL(muster_channel_attach(e.channel, event)), 0);
        while (e.n_ended == 0) {
                char buf[65536];
                int fd;

                if (raw_read(fds[1], buf, sizeof(buf), &fd) == -EAGAIN)
                        turn();
        }
        assert_int_equal(e.error, 0);
        ear_done(&e);
        close(fds[1]);
}

/* The last set of handlers counts; a member that is not set is nobody. */
static void test_handlers_change(void **state) {
        muster_channel_handlers none = MUSTER_CHANNEL_HANDLERS_INIT;
        int raw, fd = eventfd(0, EFD_CLOEXEC);
        Ear first, second = { 0 };

        raw = half_listening(&first, NULL);
        raw_text(raw, "1\n");
        run_until(first.n_letters == 1);
        second.channel = first.channel;
        ear_listen(&second);
        raw_text(raw, "2\n");
        run_until(second.n_letters == 1);
        assert_int_equal(first.n_letters, 1);

        assert_int_equal(muster_channel_set_handlers(first.channel, &none, NULL), 0);
        raw_text_fd(raw, ENVELOPE("net.Socket", "3") "\n", fd);
        raw_expect(raw, ACK);
        close(raw);
        run_until(!muster_channel_is_connected(first.channel));
        assert_int_equal(second.n_letters, 1);
        assert_int_equal(second.n_ended, 0);
        ear_done(&first);
        ear_forget(&second);
        close(fd);
}

/* An idle channel wakes nobody, whatever it has behind it. */
static void test_idle(void **state) {
        int fd = eventfd(0, EFD_CLOEXEC);
        Sent s = { 0 };
        Ear a, b;

        pair_make(&a, &b, NULL);
        assert_int_equal(sd_event_run(event, 0), 0);
        while (ear_send(&a, "[\"fill the socket\"]", fd, &s) == 0)
                ;
        run_until(a.n_drained == 1 && s.n == b.n_letters);
        run_what_is_due();
        assert_int_equal(sd_event_prepare(event), 0);
        assert_int_equal(sd_event_wait(event, 0), 0);
        pair_done(&a, &b);
        close(fd);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                channel_test(test_messages),
                channel_test(test_pause),
                channel_test(test_send_full),
                channel_test(test_send_refused),
                channel_test(test_order),
                channel_test(test_order_of_waiting),
                channel_test(test_drained),
                channel_test(test_drained_sends),
                channel_test(test_fd_on_the_wire),
                channel_test(test_fd_waits),
                channel_test(test_fd_received),
                channel_test(test_handle_types_received),
                channel_test(test_handle_types_sent),
                channel_test(test_handle_without_questions),
                channel_test(test_dgram_type),
                channel_test(test_sent),
                channel_test(test_sent_waits),
                channel_test(test_sent_fd),
                channel_test(test_sent_fd_acknowledged),
                channel_test(test_sent_peer_gone),
                channel_test(test_sent_dropped),
                channel_test(test_sent_protocol_error),
                channel_test(test_internal_hidden),
                channel_test(test_internal_delivered),
                channel_test(test_internal_acknowledgement),
                channel_test(test_one_byte_at_a_time),
                channel_test(test_fd_belongs_to_its_line),
                channel_test(test_fds_of_halves),
                channel_test(test_waits_for_handlers),
                channel_test(test_waits_while_sending),
                channel_test(test_attach),
                channel_test(test_attach_busy),
                channel_test(test_attach_then_disconnect),
                channel_test(test_handlers_change),
                channel_test(test_idle),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
