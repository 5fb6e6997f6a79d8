/* SPDX-License-Identifier: MIT */
/* What follows from the kernel's counters is compared with what really happened, on both ends. With packets
 * that get lost: test-truth-loss.c. */
#include "../unit.h"

#include "twin/truth.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/wait.h>

#include "basic/macro.h"
#include "connected.h"

static Connected c;

static int setup(void **state) {
        (void) signal(SIGPIPE, SIG_IGN);
        c.listener = connected_listen();
        assert_int_equal(truth_prepare_listener(c.listener), 0);
        return 0;
}

static int teardown(void **state) {
        (void) close(c.listener);
        return 0;
}

static int setup_connection(void **state) {
        connected_open(&c);
        return 0;
}

static int teardown_connection(void **state) {
        connected_close(&c);
        return 0;
}

static Truth truth_of(int fd) {
        Truth t = { 0 };

        assert_int_equal(truth_read(fd, &t), 0);
        return t;
}

#define assert_truth(_received, _sent, _half_closed, _shut)     \
        do {                                                    \
                Truth _t = truth_of(c.server);                  \
                assert_false(_t.reset);                         \
                assert_int_equal(_t.received, _received);       \
                assert_int_equal(_t.sent, _sent);               \
                assert_int_equal(_t.half_closed, _half_closed); \
                assert_int_equal(_t.shut, _shut);               \
        } while (0)

/*
 * The formulas
 */

static void test_formulas(void **state) {
        static const struct {
                TruthCounters counters;
                Truth truth;
        } rows[] = {
                { { ESTABLISHED, 0, 0, 0, 0 }, { .received = 0, .sent = 0 } },
                { { ESTABLISHED, 100, 0, 0, 0 }, { .received = 100, .sent = 0 } },
                { { ESTABLISHED, 100, 0, 40, 0 }, { .received = 60, .sent = 0 } },
                { { ESTABLISHED, 0, 70, 0, 0 }, { .received = 0, .sent = 70 } },
                { { ESTABLISHED, 0, 70, 0, 30 }, { .received = 0, .sent = 100 } },
                { { ESTABLISHED, 5, 0, 5, 9 }, { .received = 0, .sent = 9 } },
                { { ESTABLISHED, 1ULL << 40, 1ULL << 41, 7, 3 },
                                { .received = (1ULL << 40) - 7, .sent = (1ULL << 41) + 3 } },

                /* the client's FIN */
                { { CLOSE_WAIT, 1, 0, 0, 0 }, { .received = 0, .sent = 0, .half_closed = true } },
                { { CLOSE_WAIT, 11, 0, 10, 0 }, { .received = 0, .sent = 0, .half_closed = true } },
                { { CLOSE_WAIT, 11, 5, 4, 3 }, { .received = 6, .sent = 8, .half_closed = true } },

                /* ours, on its way and acknowledged */
                { { FIN_WAIT_1, 10, 0, 2, 8 }, { .received = 8, .sent = 7, .shut = true } },
                { { FIN_WAIT_2, 10, 8, 2, 0 }, { .received = 8, .sent = 7, .shut = true } },

                /* both */
                { { CLOSING, 11, 0, 2, 8 },
                                { .received = 8, .sent = 7, .shut = true, .half_closed = true } },
                { { LAST_ACK, 11, 4, 0, 4 },
                                { .received = 10, .sent = 7, .shut = true, .half_closed = true } },
                { { TIME_WAIT, 11, 8, 0, 0 },
                                { .received = 10, .sent = 7, .shut = true, .half_closed = true } },

                /* the counters stay, the queues do not */
                { { CLOSED, 11, 8, 0, 0 }, { .received = 0, .sent = 0, .reset = true } },
                { { CLOSED, 11, 8, 5, 3 }, { .received = 0, .sent = 0, .reset = true } },
        };

        for (size_t i = 0; i < ELEMENTSOF(rows); i++) {
                Truth t;

                truth_from_counters(&rows[i].counters, &t);
                assert_int_equal(t.received, rows[i].truth.received);
                assert_int_equal(t.sent, rows[i].truth.sent);
                assert_int_equal(t.reset, rows[i].truth.reset);
                assert_int_equal(t.shut, rows[i].truth.shut);
                assert_int_equal(t.half_closed, rows[i].truth.half_closed);
        }
}

/*
 * Reading
 */

static void client_send(const void *data, size_t n, int flags) {
        assert_int_equal(send(c.client, data, n, flags), n);
}

/* An urgent byte begins a read of its own. */
static void server_receive(size_t n) {
        char buffer[64];
        ssize_t r;

        for (; n > 0; n -= (size_t) r) {
                r = recv(c.server, buffer, MIN(n, sizeof(buffer)), 0);
                assert_in_range(r, 1, n);
        }
}

static bool server_has(int n) {
        return connected_queue(c.server, SIOCINQ) == n;
}

static void test_partial_reads(void **state) {
        assert_truth(0, 0, false, false);
        client_send("0123456789", 10, 0);
        wait_until(server_has(10));
        assert_truth(0, 0, false, false);
        server_receive(3);
        assert_truth(3, 0, false, false);
        server_receive(7);
        assert_truth(10, 0, false, false);
}

/* The client has half-closed: with data unread, with the FIN alone unread, and with nothing unread. */
static void test_half_closed(void **state) {
        char byte;

        client_send("0123456789", 10, 0);
        assert_int_equal(shutdown(c.client, SHUT_WR), 0);
        wait_until(connected_info(c.server).tcpi_state == CLOSE_WAIT);
        assert_truth(0, 0, true, false);
        server_receive(4);
        assert_truth(4, 0, true, false);
        server_receive(6);
        assert_truth(10, 0, true, false);
        assert_int_equal(recv(c.server, &byte, 1, 0), 0);
        assert_truth(10, 0, true, false);

        assert_int_equal(send(c.server, "01234", 5, 0), 5);
        assert_truth(10, 5, true, false);
}

static void test_half_closed_without_data(void **state) {
        char byte;

        assert_int_equal(shutdown(c.client, SHUT_WR), 0);
        wait_until(connected_info(c.server).tcpi_state == CLOSE_WAIT);
        assert_truth(0, 0, true, false);
        assert_int_equal(recv(c.server, &byte, 1, 0), 0);
        assert_truth(0, 0, true, false);
}

/* As nobody is told of it, it must not be left out of what is read either. */
static void test_urgent_byte(void **state) {
        client_send("01234", 5, 0);
        client_send("5", 1, MSG_OOB);
        client_send("6789", 4, 0);
        wait_until(server_has(10));
        assert_truth(0, 0, false, false);
        server_receive(2);
        assert_truth(2, 0, false, false);
        server_receive(8);
        assert_truth(10, 0, false, false);
}

/*
 * Writing
 */

/* Until nothing more is taken; what is taken at a time differs. Returns how much that was. */
static uint64_t server_fill(uint64_t sent) {
        static char data[256 * 1024];
        size_t n = 1;
        ssize_t r;

        while ((r = send(c.server, data, n, MSG_DONTWAIT)) > 0) {
                sent += (uint64_t) r;
                n = n * 7 % sizeof(data);
                assert_int_equal(truth_of(c.server).sent, sent);
        }
        assert_int_equal(errno, EAGAIN);
        return sent;
}

static uint64_t client_drain(size_t most) {
        static char data[64 * 1024];
        uint64_t n = 0;
        ssize_t r = 1;

        for (; most > n && r > 0; n += (uint64_t) r)
                r = recv(c.client, data, MIN(sizeof(data), most - n), 0);
        assert_true(r >= 0);
        return n;
}

static bool server_can_send(void) {
        return poll(&(struct pollfd){ .fd = c.server, .events = POLLOUT }, 1, 0) == 1;
}

static void test_full_buffer(void **state) {
        uint64_t sent = server_fill(0), drained = 0;

        while (!server_can_send())
                drained += client_drain(10001);
        assert_truth(0, sent, false, false);
        sent = server_fill(sent);
        assert_truth(0, sent, false, false);

        /* our FIN waits behind all that */
        assert_int_equal(shutdown(c.server, SHUT_WR), 0);
        assert_truth(0, sent, false, true);
        assert_int_equal(client_drain(SIZE_MAX), sent - drained);
        wait_until(connected_info(c.server).tcpi_state == FIN_WAIT_2);
        assert_truth(0, sent, false, true);
}

static void test_message_with_more(void **state) {
        struct iovec parts[] = { { (char *) "01234", 5 }, { (char *) "567", 3 } };
        struct msghdr message = { .msg_iov = parts, .msg_iovlen = ELEMENTSOF(parts) };
        static const int yes = 1;

        assert_int_equal(sendmsg(c.server, &message, MSG_MORE), 8);
        assert_truth(0, 8, false, false);
        assert_int_equal(connected_info(c.server).tcpi_notsent_bytes, 8);
        assert_int_equal(send(c.server, "89", 2, MSG_MORE), 2);
        assert_truth(0, 10, false, false);
        assert_int_equal(send(c.server, "a", 1, 0), 1);
        assert_truth(0, 11, false, false);
        assert_int_equal(client_drain(11), 11);
        assert_truth(0, 11, false, false);

        assert_int_equal(setsockopt(c.server, IPPROTO_TCP, TCP_CORK, &yes, sizeof(yes)), 0);
        assert_int_equal(send(c.server, "bcd", 3, 0), 3);
        assert_truth(0, 14, false, false);

        /* a FIN that lets go of what was kept back */
        assert_int_equal(shutdown(c.server, SHUT_WR), 0);
        assert_truth(0, 14, false, true);
        assert_int_equal(client_drain(SIZE_MAX), 3);
}

static void test_sendfile(void **state) {
        int fd = memfd_create("data", MFD_CLOEXEC);
        uint64_t sent = 0;
        ssize_t r;

        assert_int_equal(ftruncate(fd, 64L << 20), 0);
        assert_int_equal(send(c.server, "head", 4, MSG_MORE), 4);
        while ((r = sendfile(c.server, fd, NULL, 1 << 20)) > 0) {
                sent += (uint64_t) r;
                assert_truth(0, 4 + sent, false, false);
        }
        assert_int_equal(errno, EAGAIN);
        assert_truth(0, 4 + sent, false, false);
        assert_int_equal(lseek(fd, 0, SEEK_CUR), sent);
        (void) close(fd);
}

/*
 * The end
 */

/* Our FIN first, acknowledged; then what the client still sends, and its FIN. */
static void test_shut(void **state) {
        assert_int_equal(send(c.server, "0123456789", 10, 0), 10);
        assert_int_equal(shutdown(c.server, SHUT_WR), 0);
        assert_truth(0, 10, false, true);
        wait_until(connected_info(c.server).tcpi_state == FIN_WAIT_2);
        assert_truth(0, 10, false, true);

        client_send("01234", 5, 0);
        wait_until(server_has(5));
        assert_truth(0, 10, false, true);
        server_receive(2);
        assert_truth(2, 10, false, true);

        /* Both sides have said all, and both know: what waits in the kernel is TIME_WAIT, but no longer
         * here. */
        assert_int_equal(shutdown(c.client, SHUT_WR), 0);
        wait_until(connected_info(c.server).tcpi_state == CLOSED);
        assert_true(truth_of(c.server).reset);
}

static void test_shut_after_client(void **state) {
        uint64_t sent;

        client_send("01234", 5, 0);
        assert_int_equal(shutdown(c.client, SHUT_WR), 0);
        wait_until(connected_info(c.server).tcpi_state == CLOSE_WAIT);
        server_receive(2);
        sent = server_fill(0);
        assert_truth(2, sent, true, false);
        assert_int_equal(shutdown(c.server, SHUT_WR), 0);
        assert_int_equal(connected_info(c.server).tcpi_state, LAST_ACK);
        assert_truth(2, sent, true, true);
        client_drain(1000);
        assert_truth(2, sent, true, true);
        assert_int_equal(client_drain(SIZE_MAX), sent - 1000);
        wait_until(truth_of(c.server).reset);
}

static void test_reset(void **state) {
        static const struct linger abort = { .l_onoff = 1 };

        client_send("01234", 5, 0);
        wait_until(server_has(5));
        server_receive(2);
        server_fill(0);
        assert_int_equal(setsockopt(c.client, SOL_SOCKET, SO_LINGER, &abort, sizeof(abort)), 0);
        (void) close(c.client);
        wait_until(connected_info(c.server).tcpi_state == CLOSED);
        assert_true(truth_of(c.server).reset);
        c.client = -1;
}

/*
 * Who dies in the middle of a call
 */

#define KILLS 50

static pid_t fork_server(void (*serve)(void)) {
        pid_t pid;

        assert_int_equal(fcntl(c.server, F_SETFL, 0), 0);
        pid = fork();
        assert_true(pid >= 0);
        if (pid == 0) {
                serve();
                _exit(0);
        }
        return pid;
}

static void kill_server(pid_t pid) {
        assert_int_equal(kill(pid, SIGKILL), 0);
        assert_int_equal(waitpid(pid, NULL, 0), pid);
}

static void send_for_ever(void) {
        static char data[8 << 20];

        while (send(c.server, data, sizeof(data), 0) > 0)
                ;
}

static void sendfile_for_ever(void) {
        int fd = memfd_create("data", MFD_CLOEXEC);

        if (ftruncate(fd, 1L << 40) == 0)
                while (sendfile(c.server, fd, NULL, 8 << 20) > 0)
                        ;
}

static void receive_for_ever(void) {
        static char data[8 << 20];

        while (recv(c.server, data, sizeof(data), MSG_WAITALL) > 0)
                ;
}

/* What the kernel says was sent is what arrives in the end. */
static void try_killed_sender(void (*serve)(void)) {
        for (int i = 0; i < KILLS; i++) {
                pid_t pid;
                uint64_t sent, n;

                connected_open(&c);
                pid = fork_server(serve);
                n = client_drain((size_t) rand() % (4 << 20) + 1);
                kill_server(pid);
                sent = truth_of(c.server).sent;
                assert_int_equal(shutdown(c.server, SHUT_WR), 0);
                assert_int_equal(n + client_drain(SIZE_MAX), sent);
                connected_close(&c);
        }
}

static void test_killed_sender(void **state) {
        try_killed_sender(send_for_ever);
}

static void test_killed_sendfile(void **state) {
        try_killed_sender(sendfile_for_ever);
}

static bool server_has_read(void) {
        int unread = connected_queue(c.server, SIOCINQ);

        return connected_info(c.server).tcpi_bytes_received > (uint64_t) unread;
}

/* What the kernel says was received is where what is still unread goes on. */
static void test_killed_receiver(void **state) {
        static char data[1 << 20], rest[1 << 16];

        for (size_t i = 0; i < sizeof(data); i++)
                data[i] = (char) (i * 2654435761U >> 13);
        for (int i = 0; i < KILLS; i++) {
                size_t n = (size_t) rand() % sizeof(data) + 1, first = (size_t) rand() % n + 1;
                uint64_t received;
                pid_t pid;
                ssize_t r;

                connected_open(&c);
                pid = fork_server(receive_for_ever);
                assert_int_equal(send(c.client, data, first, 0), first);
                wait_until(server_has_read());
                assert_int_equal(send(c.client, data + first, n - first, 0), n - first);
                kill_server(pid);
                assert_int_equal(shutdown(c.client, SHUT_WR), 0);

                received = truth_of(c.server).received;
                for (; (r = recv(c.server, rest, sizeof(rest), 0)) > 0; received += (uint64_t) r)
                        assert_memory_equal(rest, data + received, r);
                assert_int_equal(r, 0);
                assert_int_equal(received, n);
                connected_close(&c);
        }
}

/*
 * What is not counted
 */

static void test_other_descriptors(void **state) {
        int pair[2];
        Truth t;

        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
        assert_int_equal(truth_read(pair[0], &t), -EOPNOTSUPP);
        (void) close(pair[0]);
        (void) close(pair[1]);

        assert_int_equal(pipe2(pair, O_CLOEXEC), 0);
        assert_int_equal(truth_read(pair[0], &t), -ENOTSOCK);
        (void) close(pair[0]);
        (void) close(pair[1]);

        assert_int_equal(truth_read(pair[0], &t), -EBADF);
        assert_int_equal(truth_read(c.listener, &t), -EINVAL);
}

#define connected_test(function) \
        cmocka_unit_test_setup_teardown(function, setup_connection, teardown_connection)

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_formulas),
                connected_test(test_partial_reads),
                connected_test(test_half_closed),
                connected_test(test_half_closed_without_data),
                connected_test(test_urgent_byte),
                connected_test(test_full_buffer),
                connected_test(test_message_with_more),
                connected_test(test_sendfile),
                connected_test(test_shut),
                connected_test(test_shut_after_client),
                connected_test(test_reset),
                cmocka_unit_test(test_killed_sender),
                cmocka_unit_test(test_killed_sendfile),
                cmocka_unit_test(test_killed_receiver),
                cmocka_unit_test(test_other_descriptors),
        };

        return cmocka_run_group_tests(tests, setup, teardown);
}
