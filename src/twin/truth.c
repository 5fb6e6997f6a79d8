/* SPDX-License-Identifier: MIT */
/* The kernel's counters of a connection; see truth.h.
 *
 * What was read is what came in order, less what still waits. What was taken to be sent is what was
 * acknowledged and what was not, yet: each byte is in one of the two from when the kernel has taken it,
 * however often it goes over the wire. What counts transmissions (tcpi_bytes_sent, tcpi_bytes_retrans,
 * tcpi_notsent_bytes) does not add up: a segment that this machine itself drops has been sent, and is sent
 * anew without being a retransmission. */

#include "twin/truth.h"

#include <errno.h>
#include <linux/sockios.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <stddef.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

/* The states of netinet/tcp.h, whose struct tcp_info is older than the counters. */
enum {
        STATE_SYN_RECEIVED = 3,
        STATE_FIN_WAIT_1,
        STATE_FIN_WAIT_2,
        STATE_TIME_WAIT,
        STATE_CLOSE,
        STATE_CLOSE_WAIT,
        STATE_LAST_ACK,
        STATE_LISTEN,
        STATE_CLOSING,
};

/* A client that sends as fast as it can changes the counters often, but not between any two calls. */
#define READINGS_MAX 1000

#define BIT(state) (1U << (state))

static bool is_half_closed(uint8_t state) {
        return BIT(state) &
               (BIT(STATE_CLOSE_WAIT) | BIT(STATE_LAST_ACK) | BIT(STATE_CLOSING) | BIT(STATE_TIME_WAIT));
}

static bool is_shut(uint8_t state) {
        return BIT(state) & (BIT(STATE_FIN_WAIT_1) | BIT(STATE_FIN_WAIT_2) | BIT(STATE_CLOSING) |
                                            BIT(STATE_LAST_ACK) | BIT(STATE_TIME_WAIT));
}

void truth_from_counters(const TruthCounters *c, Truth *ret) {
        *ret = (Truth){ .reset = c->state == STATE_CLOSE };
        if (ret->reset)
                return;

        /* The client's FIN counts as a byte that was received, and never as one that waits to be read. */
        ret->half_closed = is_half_closed(c->state);
        ret->received = c->bytes_received - (uint64_t) c->unread - ret->half_closed;

        /* Ours counts as one that was not acknowledged, and then as one that was. */
        ret->shut = is_shut(c->state);
        ret->sent = c->bytes_acked + (uint64_t) c->unsent - ret->shut;
}

int truth_prepare_listener(int listen_fd) {
        static const int yes = 1;

        return setsockopt(listen_fd, SOL_SOCKET, SO_OOBINLINE, &yes, sizeof(yes)) < 0 ? -errno : 0;
}

static int check_protocol(int fd) {
        socklen_t n = sizeof(int);
        int protocol;

        if (getsockopt(fd, SOL_SOCKET, SO_PROTOCOL, &protocol, &n) < 0)
                return -errno;
        return protocol == IPPROTO_TCP ? 0 : -EOPNOTSUPP;
}

static int read_info(int fd, TruthCounters *ret) {
        struct tcp_info info;
        socklen_t n = sizeof(info);

        if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &n) < 0)
                return -errno;
        if (n < offsetof(struct tcp_info, tcpi_bytes_received) + sizeof(info.tcpi_bytes_received))
                return -EOPNOTSUPP;
        *ret = (TruthCounters){
                .state = info.tcpi_state,
                .bytes_received = info.tcpi_bytes_received,
                .bytes_acked = info.tcpi_bytes_acked,
        };
        return 0;
}

/* What neither has changed between two readings of the counters, nor, as nobody else uses the socket, the
 * numbers of what was read and of what was taken, has not changed in between either. */
static bool is_same(const TruthCounters *a, const TruthCounters *b) {
        return a->state == b->state && a->bytes_received == b->bytes_received &&
               a->bytes_acked == b->bytes_acked;
}

static int read_queues(int fd, TruthCounters *ret) {
        if (ioctl(fd, SIOCINQ, &ret->unread) < 0 || ioctl(fd, SIOCOUTQ, &ret->unsent) < 0)
                return -errno;
        return 0;
}

static int read_counters(int fd, TruthCounters *ret) {
        TruthCounters next;
        int r;

        r = read_info(fd, &next);
        for (int i = 0; r >= 0 && i < READINGS_MAX; i++) {
                *ret = next;
                r = read_queues(fd, ret);
                if (r < 0)
                        return r;
                r = read_info(fd, &next);
                if (r >= 0 && is_same(ret, &next))
                        return 0;
        }
        return r < 0 ? r : -EIO;
}

int truth_read(int fd, Truth *ret) {
        TruthCounters counters;
        int r;

        r = check_protocol(fd);
        if (r < 0)
                return r;
        r = read_counters(fd, &counters);
        if (r < 0)
                return r;
        if (counters.state == STATE_SYN_RECEIVED)
                return -EAGAIN; /* its queues count as empty */
        truth_from_counters(&counters, ret);
        return 0;
}
