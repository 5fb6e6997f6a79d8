/* SPDX-License-Identifier: MIT */
#pragma once

/* A TCP connection over the loopback, as a server and its client have it. */

#include <arpa/inet.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <linux/sockios.h>
#include <linux/tcp.h>

#define WAIT_MSEC 30000

/* Of netinet/tcp.h, which cannot be included together with linux/tcp.h. */
enum {
        ESTABLISHED = 1,
        SYN_SENT,
        SYN_RECEIVED,
        FIN_WAIT_1,
        FIN_WAIT_2,
        TIME_WAIT,
        CLOSED,
        CLOSE_WAIT,
        LAST_ACK,
        LISTENING,
        CLOSING,
};

typedef struct Connected {
        int listener, server, client;
} Connected;

static inline int connected_listen(void) {
        struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
        int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

        assert_true(fd >= 0);
        assert_int_equal(bind(fd, (struct sockaddr *) &a, sizeof(a)), 0);
        assert_int_equal(listen(fd, 16), 0);
        return fd;
}

static inline int connected_connect(int listener) {
        struct sockaddr_in a;
        socklen_t n = sizeof(a);
        int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

        assert_true(fd >= 0);
        assert_int_equal(getsockname(listener, (struct sockaddr *) &a, &n), 0);
        assert_int_equal(connect(fd, (struct sockaddr *) &a, n), 0);
        return fd;
}

/* The server does not wait, the client does. */
static inline void connected_open(Connected *c) {
        c->client = connected_connect(c->listener);
        c->server = accept4(c->listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        assert_true(c->server >= 0);
}

static inline void connected_close(Connected *c) {
        (void) close(c->server);
        (void) close(c->client);
}

static inline struct tcp_info connected_info(int fd) {
        struct tcp_info info = { 0 };
        socklen_t n = sizeof(info);

        assert_int_equal(getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &n), 0);
        return info;
}

/* Until the client's side, or the network, has done what was asked of it. */
#define wait_until(condition)                                    \
        do {                                                     \
                for (int _waited = 0; !(condition); _waited++) { \
                        assert_true(_waited < WAIT_MSEC);        \
                        (void) poll(NULL, 0, 1);                 \
                }                                                \
        } while (0)

static inline int connected_queue(int fd, unsigned long request) {
        int n = -1;

        assert_int_equal(ioctl(fd, request, &n), 0);
        return n;
}
