/* SPDX-License-Identifier: MIT */
/* A connection that is handed over while the worker at either end dies, at any of its system calls: whoever
 * goes on with the descriptors of the dead ones, exactly one of the two slots serves it.
 *
 * Workers are children that share the descriptors of the test, which is who takes over from them. */

#include "../unit.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "basic/clock.h"
#include "basic/fd.h"
#include "basic/macro.h"
#include "worker/fairness.h"
#include "worker/siblings.h"

#define INBOXES_FD 100
#define LOAD       (2 * FAIRNESS_DELTA) /* of a worker that hands over to one that has none */
#define FDS_MAX    64                   /* what a worker opens has a lower number */
#define HIDDEN_FD  200
#define STOPS      8 /* more than a claim has */

static Board board;
static Siblings sender, receiver; /* of two slots, with a cell each */
static int connection, client;
static uint64_t now;

static void set_limit(rlim_t n) {
        struct rlimit limit;

        assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
        limit.rlim_cur = n;
        assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
}

static void begin(Siblings *s, unsigned slot) {
        char value[32];

        snprintf(value, sizeof(value), "%d:2", INBOXES_FD);
        assert_int_equal(setenv(BOARD_ENV_INBOX_FDS, value, 1), 0);
        assert_int_equal(siblings_init(s, &board, board.cells + slot, slot, /* claimed= */ true, now), 0);
        siblings_begin(s);
}

static int setup(void **state) {
        now = clock_now_usec();
        set_limit(2 * HIDDEN_FD);
        if (board_init(&board) < 0)
                return -1;
        for (int i = 0; i < 2; i++) {
                int fds[2];

                if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds) < 0)
                        return -1;
                for (int k = 0; k < 2; k++) {
                        if (dup2(fds[k], INBOXES_FD + 2 * i + k) < 0)
                                return -1;
                        safe_close(fds[k]);
                }
        }
        begin(&sender, 1);
        begin(&receiver, 2);
        return 0;
}

static int teardown(void **state) {
        for (int i = 0; i < 4; i++)
                safe_close(INBOXES_FD + i);
        board_done(&board);
        return 0;
}

/* What a worker does when it dies. */

static void offer(void) {
        if (!siblings_offer(&sender, connection, LOAD, now))
                _exit(1);
}

static void receive(void) {
        int fd;

        (void) siblings_receive(&receiver, &fd);
}

/* What is not taken in time is taken back: at the second look, if nobody had marked it. Returns as
 * siblings_rescue(). */
static int rescue_to(int *ret_fd) {
        int r = -EAGAIN;

        for (unsigned i = 0; i < 2 && r == -EAGAIN && sender.deadline != USEC_INFINITY; i++)
                r = siblings_rescue(&sender, sender.deadline, ret_fd);
        return r;
}

static void rescue(void) {
        int fd;

        (void) rescue_to(&fd);
}

/* The deed of one that has taken over, and dies of it. */
static int claimed_fd;
static Siblings *claimer;

static void claim(void) {
        (void) siblings_claim(claimer, claimed_fd);
}

/* Returns a worker that is stopped at its system call number @n / 2, before or after it; 0: it has come to
 * its end before. */
static pid_t start(void (*deed)(void), unsigned n) {
        pid_t pid = (pid_t) syscall(SYS_clone, CLONE_FILES | SIGCHLD, NULL, NULL, NULL, NULL);
        int status;

        assert_true(pid >= 0);
        if (pid == 0) {
                if (ptrace(PTRACE_TRACEME, 0, NULL, NULL) < 0)
                        _exit(77);
                kill(getpid(), SIGSTOP);
                deed();
                _exit(0);
        }
        for (unsigned i = 0;; i++) {
                assert_int_equal(waitpid(pid, &status, 0), pid);
                if (WIFEXITED(status) && WEXITSTATUS(status) == 77) {
                        print_message("ptrace(2) is not allowed.\n");
                        exit(77);
                }
                if (WIFEXITED(status)) {
                        assert_int_equal(WEXITSTATUS(status), 0);
                        return 0;
                }
                assert_true(WIFSTOPPED(status));
                if (i > n)
                        return pid;
                assert_int_equal(ptrace(PTRACE_SYSCALL, pid, NULL, NULL), 0);
        }
}

static void finish(pid_t pid) {
        kill(pid, SIGKILL);
        assert_int_equal(waitpid(pid, NULL, 0), pid);
}

/* Returns whether it has died of it. */
static bool die(void (*deed)(void), unsigned n) {
        pid_t pid = start(deed, n);

        if (pid > 0)
                finish(pid);
        return pid > 0;
}

static bool is_open(int fd) {
        return fcntl(fd, F_GETFD) >= 0;
}

static bool is_stream(int fd) {
        int type = 0;
        socklen_t n = sizeof(type);

        return getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &n) >= 0 && type == SOCK_STREAM;
}

/* What a receiver has left: @known is what was open before. Returns its copy, or -EBADF. */
static int sweep(const bool *known) {
        int found = -EBADF;

        for (int fd = 0; fd < FDS_MAX; fd++) {
                if (known[fd] || !is_open(fd))
                        continue;
                if (is_stream(fd)) {
                        assert_true(found < 0);
                        found = fd;
                } else
                        safe_close(fd);
        }
        return found;
}

static void note_open(bool *ret) {
        for (int fd = 0; fd < FDS_MAX; fd++)
                ret[fd] = is_open(fd);
}

/* What belongs to the other slot, which has descriptors of its own. */
static int hide(int fd) {
        if (fd < 0 || !is_open(fd))
                return -EBADF;
        int hidden = fcntl(fd, F_DUPFD_CLOEXEC, HIDDEN_FD);
        assert_true(hidden >= 0);
        close(fd);
        set_limit(HIDDEN_FD);
        return hidden;
}

static void show(int hidden, int fd) {
        if (hidden < 0)
                return;
        set_limit(2 * HIDDEN_FD);
        assert_int_equal(dup2(hidden, fd), fd);
        close(hidden);
}

/* Some that take over die at once, and others take over from them. Returns the connection if it is to be
 * served, else -EBADF. @other: what is open elsewhere. */
static int take_over(Siblings *s, int fd, int other, unsigned dies_at) {
        int hidden = hide(other);

        siblings_inherit(s, now);
        siblings_begin(s);
        if (fd >= 0) {
                claimer = s;
                claimed_fd = fd;
                (void) die(claim, dies_at);
                if (!is_open(fd) || !siblings_claim(s, fd))
                        fd = -EBADF;
        }
        show(hidden, other);
        return fd;
}

typedef enum Order {
        SENDER_RESCUES, /* who takes over from the sender finds that nobody receives anything; and dies … */
        SENDER_FIRST,   /* who takes over from the sender is there before anything is received … */
        SENDER_SECOND,  /* … then the receiver has died, and nobody has taken over from it */
        RECEIVER_FIRST, /* … or somebody has */
        SENDER_LIVES,   /* it was slow, that is all */
        _ORDER_MAX,
} Order;

/* Who comes later reads what is still there. */
static int receive_rest(Order order) {
        int found = -EBADF, fd, r;

        if (order == SENDER_RESCUES && rescue_to(&found) < 0)
                found = -EBADF;
        while ((r = siblings_receive(&receiver, &fd)) != -EAGAIN)
                if (r == 0) {
                        assert_true(found < 0);
                        found = fd;
                }
        return found;
}

/* There is no other copy left: the client hears of the end. */
static void assert_served(int fd) {
        char c = 0;

        assert_int_equal(write(client, "x", 1), 1);
        assert_int_equal(read(fd, &c, 1), 1);
        safe_close(fd);
        assert_int_equal(recv(client, &c, 1, MSG_DONTWAIT), 0);
}

typedef struct Deaths {
        Order order;
        unsigned sender, receiver, twins;  /* the stops at which they die */
        bool sender_ended, receiver_ended; /* they had none */
} Deaths;

/* Whether the sender dies or goes on. Returns the connection, if that slot serves it. */
static int end_sender(const Deaths *d, pid_t pid, int copy, int other) {
        if (pid == 0 && d->order == SENDER_LIVES)
                return -EBADF;
        if (d->order != SENDER_LIVES)
                return take_over(&sender, copy, other, d->twins);
        assert_int_equal(ptrace(PTRACE_DETACH, pid, NULL, NULL), 0);
        assert_int_equal(waitpid(pid, NULL, 0), pid);
        return -EBADF;
}

static void run(Deaths *d) {
        int fds[2], found[3] = { -EBADF, -EBADF, -EBADF }, n = 0;
        bool known[FDS_MAX];

        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
        connection = fds[0];
        client = fds[1];
        memset(board.claims, 0, sizeof(*board.claims));
        board.seats[1].in_flight = 0;
        pid_t pid = start(offer, d->sender);
        d->sender_ended = pid == 0;
        if (pid > 0 && d->order != SENDER_LIVES)
                finish(pid);
        int sent = is_open(connection) ? connection : -EBADF;
        note_open(known);

        if (d->order <= SENDER_FIRST)
                found[0] = end_sender(d, pid, sent, -EBADF);
        d->receiver_ended = !die(d->order == SENDER_RESCUES ? rescue : receive, d->receiver);
        int received = sweep(known);
        if (d->order == SENDER_SECOND)
                found[0] = end_sender(d, pid, sent, received);
        found[1] = d->order == SENDER_RESCUES ? take_over(&sender, received, -EBADF, d->twins)
                                              : take_over(&receiver, received, sent, d->twins);
        if (d->order >= RECEIVER_FIRST)
                found[0] = end_sender(d, pid, sent, received);
        found[2] = receive_rest(d->order);

        for (unsigned i = 0; i < ELEMENTSOF(found); i++)
                n += found[i] >= 0;
        if (n != 1)
                fail_msg("%d serve: order %d, deaths at %u, %u, %u", n, d->order, d->sender, d->receiver,
                                d->twins);
        for (unsigned i = 0; i < ELEMENTSOF(found); i++)
                if (found[i] >= 0)
                        assert_served(found[i]);
        safe_close(client);
}

static void test_deaths(void **state) {
        unsigned n = 0;

        for (Order order = 0; order < _ORDER_MAX; order++) {
                Deaths d = { .order = order };
                for (d.sender = 0; !d.sender_ended; d.sender++) {
                        d.receiver_ended = false;
                        for (d.receiver = 0; !d.receiver_ended; d.receiver++, n++) {
                                d.twins = (d.sender + d.receiver) % STOPS;
                                run(&d);
                        }
                }
        }
        print_message("%u ways to die\n", n);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup_teardown(test_deaths, setup, teardown),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
