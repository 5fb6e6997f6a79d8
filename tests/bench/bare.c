/* SPDX-License-Identifier: MIT */
/* bare PORT PROCESSES ANSWER [--close] [--turns]
 *
 * The least that serves many clients: an epoll loop that understands nothing of HTTP but where a head ends,
 * and sends the file ANSWER for each. What the native worker's cost per request is compared with: all that
 * is above this, is ours.
 *
 * It is written as fast as can be by hand with the calls that everybody has: one recv(2) and one send(2) per
 * turn of a connection, no time-outs, no limits, no memory of what came before. A head must come in whole,
 * as load generators send it.
 *
 * --close: the answer is the last one. --turns: leave and join the listener's queue after every few accepts,
 * as nginx and our worker do, because processes that share the clients unevenly find more events at a time,
 * which is cheaper. */

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define EVENTS_MAX      512
#define ANSWERS_MAX     64 /* in one send */
#define ANSWER_MAX      65536
#define ACCEPTS_PER_ADD 16

static char request[65536];
static char answers[ANSWERS_MAX * ANSWER_MAX];
static size_t answer_size;
static bool closing, turns;
static int listener, epoll_fd;

static void die(const char *what) {
        perror(what);
        exit(1);
}

static void add(int fd, unsigned events) {
        struct epoll_event ev = { .events = events, .data.fd = fd };

        if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &ev) < 0)
                die("epoll_ctl");
}

static void accept_all(void) {
        static unsigned n;

        for (;;) {
                int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
                if (fd < 0)
                        return;
                add(fd, EPOLLIN);
                if (turns && ++n % ACCEPTS_PER_ADD == 0) {
                        (void) epoll_ctl(epoll_fd, EPOLL_CTL_DEL, listener, NULL);
                        add(listener, EPOLLIN | EPOLLEXCLUSIVE);
                        return; /* what is left wakes whoever is first now */
                }
        }
}

static size_t count_heads(const char *data, size_t n) {
        const char *end = data + n, *p = data;
        size_t heads = 0;

        while (p < end && (p = memmem(p, (size_t) (end - p), "\r\n\r\n", 4))) {
                p += 4;
                heads++;
        }
        return heads;
}

static void serve(int fd) {
        ssize_t n = recv(fd, request, sizeof(request), 0);

        if (n <= 0) {
                if (n == 0 || errno != EAGAIN)
                        close(fd);
                return;
        }
        for (size_t left = count_heads(request, (size_t) n); left > 0;) {
                size_t some = left < ANSWERS_MAX ? left : ANSWERS_MAX;

                /* What the socket does not take is lost: load generators read. */
                (void) send(fd, answers, some * answer_size, MSG_NOSIGNAL);
                left -= some;
                if (closing) {
                        close(fd);
                        return;
                }
        }
}

static void loop(void) {
        struct epoll_event events[EVENTS_MAX];

        epoll_fd = epoll_create1(EPOLL_CLOEXEC);
        if (epoll_fd < 0)
                die("epoll_create1");
        add(listener, EPOLLIN | EPOLLEXCLUSIVE);
        for (;;) {
                int n = epoll_wait(epoll_fd, events, EVENTS_MAX, -1);

                for (int i = 0; i < n; i++)
                        if (events[i].data.fd == listener)
                                accept_all();
                        else
                                serve(events[i].data.fd);
        }
}

static void listen_on(unsigned port) {
        struct sockaddr_in address = {
                .sin_family = AF_INET,
                .sin_port = htons((uint16_t) port),
                .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
        };
        int one = 1;

        listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        if (listener < 0)
                die("socket");
        (void) setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
        (void) setsockopt(listener, IPPROTO_TCP, TCP_NODELAY, &one,
                        sizeof(one)); /* what is accepted inherits it */
        if (bind(listener, (struct sockaddr *) &address, sizeof(address)) < 0 || listen(listener, 1024) < 0)
                die("listen");
}

static void read_answer(const char *path) {
        FILE *f = fopen(path, "r");

        if (!f)
                die(path);
        answer_size = fread(answers, 1, ANSWER_MAX, f);
        fclose(f);
        for (size_t i = 1; i < ANSWERS_MAX; i++)
                memcpy(answers + i * answer_size, answers, answer_size);
}

int main(int argc, char *argv[]) {
        if (argc < 4)
                return 2;
        for (int i = 4; i < argc; i++) {
                closing |= strcmp(argv[i], "--close") == 0;
                turns |= strcmp(argv[i], "--turns") == 0;
        }
        read_answer(argv[3]);
        listen_on((unsigned) atoi(argv[1]));
        for (int i = 0; i < atoi(argv[2]); i++) {
                pid_t pid = fork();
                if (pid < 0)
                        die("fork");
                if (pid == 0) {
                        (void) prctl(PR_SET_PDEATHSIG, SIGKILL);
                        loop();
                }
        }
        while (wait(NULL) > 0)
                ;
        return 0;
}
