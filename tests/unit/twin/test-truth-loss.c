/* SPDX-License-Identifier: MIT */
/* The kernel's counters while packets are lost: a shaper on the loopback of a network of its own drops what
 * it cannot hold. Formulas that are right without loss are not tested by anything else. */
#include "../unit.h"

#include "twin/truth.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/pkt_sched.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/wait.h>

#include "basic/fd.h"
#include "basic/macro.h"
#include "connected.h"

#define SKIPPED 77 /* meson's exit code for a test that cannot run here */

#define LOOPBACK 1 /* its index in every network */
#define MTU      1500

/* 10 Mbit/s. */
#define RATE  (10 * 1000 * 1000 / 8)
#define BURST 5000
#define LIMIT 20000

/*
 * A network of its own
 */

/* A user who is not root may have one as well, where that is allowed. */
static int enter_network(void) {
        if (unshare(CLONE_NEWUSER | CLONE_NEWNET) == 0)
                return 0;
        return unshare(CLONE_NEWNET) < 0 ? -errno : 0;
}

static int bring_up(void) {
        struct ifreq up = { .ifr_name = "lo", .ifr_flags = IFF_UP },
                     mtu = { .ifr_name = "lo", .ifr_mtu = MTU };
        _cleanup_close_ int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

        if (fd < 0 || ioctl(fd, SIOCSIFMTU, &mtu) < 0 || ioctl(fd, SIOCSIFFLAGS, &up) < 0)
                return -errno;
        return 0;
}

typedef struct ShaperRequest {
        struct nlmsghdr header;
        struct tcmsg message;
        char attributes[512];
} ShaperRequest;

static struct rtattr *add_attribute(ShaperRequest *q, unsigned short type, const void *data, size_t n) {
        struct rtattr *a = (struct rtattr *) ((char *) q + NLMSG_ALIGN(q->header.nlmsg_len));

        a->rta_type = type;
        a->rta_len = (unsigned short) RTA_LENGTH(n);
        if (n > 0)
                memcpy(RTA_DATA(a), data, n);
        q->header.nlmsg_len = (uint32_t) (NLMSG_ALIGN(q->header.nlmsg_len) + RTA_LENGTH(n));
        return a;
}

static void fill_shaper_request(ShaperRequest *q) {
        static const struct tc_tbf_qopt options = {
                .rate = { .linklayer = TC_LINKLAYER_ETHERNET, .rate = RATE },
                .limit = LIMIT,
        };
        static const uint32_t burst = BURST;
        struct rtattr *nest;

        *q = (ShaperRequest){
                .header = { .nlmsg_len = NLMSG_LENGTH(sizeof(q->message)),
                                .nlmsg_type = RTM_NEWQDISC,
                                .nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL },
                .message = { .tcm_ifindex = LOOPBACK, .tcm_parent = TC_H_ROOT },
        };
        add_attribute(q, TCA_KIND, "tbf", sizeof("tbf"));
        nest = add_attribute(q, TCA_OPTIONS, NULL, 0);
        add_attribute(q, TCA_TBF_PARMS, &options, sizeof(options));
        add_attribute(q, TCA_TBF_BURST, &burst, sizeof(burst));
        nest->rta_len = (unsigned short) ((char *) q + q->header.nlmsg_len - (char *) nest);
}

static int add_shaper(void) {
        struct {
                struct nlmsghdr header;
                struct nlmsgerr error;
                char rest[1024];
        } answer = { 0 };
        ShaperRequest q;
        _cleanup_close_ int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);

        fill_shaper_request(&q);
        if (fd < 0 || send(fd, &q, q.header.nlmsg_len, 0) < 0 || recv(fd, &answer, sizeof(answer), 0) < 0)
                return -errno;
        return answer.header.nlmsg_type == NLMSG_ERROR ? answer.error.error : -EBADMSG;
}

/*
 * Traffic, counted where it is made
 */

#define CONNECTIONS 4
#define SAMPLES_MIN 4000
#define LOSSES_MIN  20

typedef struct Stream {
        Connected c;
        uint64_t sent, received; /* by the server */
        uint64_t client_sent, client_received;
} Stream;

static int listener;
static Stream streams[CONNECTIONS];
static unsigned n_samples, n_wrong, n_losses;
static unsigned states_seen; /* a bit for each */
static char data[64 * 1024];

static int setup(void **state) {
        (void) signal(SIGPIPE, SIG_IGN);
        listener = connected_listen();
        return truth_prepare_listener(listener);
}

static int teardown(void **state) {
        (void) close(listener);
        return 0;
}

static void stream_open(Stream *s) {
        *s = (Stream){ .c.listener = listener };
        connected_open(&s->c);
        assert_int_equal(fd_set_nonblock(s->c.client, true), 0);
}

/* One that looks as good: what was sent for the first time, and what will be. */
static uint64_t count_transmissions(const struct tcp_info *info) {
        return info->tcpi_bytes_sent - info->tcpi_bytes_retrans + info->tcpi_notsent_bytes;
}

static void stream_sample(const Stream *s) {
        struct tcp_info info = connected_info(s->c.server);
        Truth t;

        assert_int_equal(truth_read(s->c.server, &t), 0);
        n_samples++;
        states_seen |= 1U << info.tcpi_state;
        if (t.reset)
                return;
        assert_int_equal(t.received, s->received);
        assert_int_equal(t.sent, s->sent);
        if (!t.shut && count_transmissions(&info) != s->sent)
                n_wrong++;
}

static void count(uint64_t *counter, ssize_t n) {
        if (n > 0)
                *counter += (uint64_t) n;
        else
                assert_true(n == 0 || errno == EAGAIN);
}

static void stream_act(Stream *s) {
        size_t n = (size_t) rand() % sizeof(data) + 1;
        int flags = rand() % 4 == 0 ? MSG_MORE : 0;

        switch (rand() % 4) {
        case 0:
                count(&s->sent, send(s->c.server, data, n, flags));
                break;
        case 1:
                count(&s->client_sent, send(s->c.client, data, n % 4096 + 1, flags));
                break;
        case 2:
                count(&s->received, recv(s->c.server, data, n, 0));
                break;
        case 3:
                count(&s->client_received, recv(s->c.client, data, n, 0));
                break;
        }
}

static unsigned count_losses(void) {
        unsigned n = 0;

        for (int i = 0; i < CONNECTIONS; i++)
                n += connected_info(streams[i].c.server).tcpi_total_retrans;
        return n;
}

/* All that was sent arrives. */
static void stream_end(Stream *s) {
        assert_int_equal(shutdown(s->c.server, SHUT_WR), 0);
        assert_int_equal(fd_set_nonblock(s->c.client, false), 0);
        for (ssize_t n; (n = recv(s->c.client, data, sizeof(data), 0)) != 0;) {
                assert_true(n > 0);
                s->client_received += (uint64_t) n;
                stream_sample(s);
        }
        assert_int_equal(s->client_received, s->sent);
        connected_close(&s->c);
}

static void test_traffic(void **state) {
        for (int i = 0; i < CONNECTIONS; i++)
                stream_open(streams + i);
        while (n_samples < SAMPLES_MIN || n_losses < LOSSES_MIN) {
                Stream *s = streams + rand() % CONNECTIONS;

                stream_act(s);
                stream_sample(s);
                if (n_samples % 64 == 0) {
                        (void) poll(NULL, 0, 10);
                        n_losses = count_losses();
                }
        }
        for (int i = 0; i < CONNECTIONS; i++)
                stream_end(streams + i);
        print_message("%u samples, %u retransmissions; by what was transmitted %u would be wrong\n",
                        n_samples, n_losses, n_wrong);
        assert_true(n_wrong > 0);
}

/*
 * Last words, which the shaper delays
 */

/* Both sides say them at the same time, so that they cross. */
static void say_last_words(void) {
        Stream s;

        stream_open(&s);
        count(&s.sent, send(s.c.server, data, 3000, 0));
        count(&s.client_sent, send(s.c.client, data, 3000, 0));
        assert_int_equal(shutdown(s.c.client, SHUT_WR), 0);
        assert_int_equal(shutdown(s.c.server, SHUT_WR), 0);
        for (Truth t = { 0 }; !t.reset;) {
                stream_sample(&s);
                count(&s.received, recv(s.c.server, data, (size_t) rand() % 1000 + 1, 0));
                stream_sample(&s);
                assert_int_equal(truth_read(s.c.server, &t), 0);
                (void) recv(s.c.client, data, sizeof(data), 0);
        }
        connected_close(&s.c);
}

static void test_last_words(void **state) {
        static const unsigned wanted = 1U << FIN_WAIT_1 | 1U << CLOSING | 1U << CLOSED;

        states_seen = 0;
        while ((states_seen & wanted) != wanted)
                say_last_words();
}

static int skip_all(const char *what, int r) {
        fprintf(stderr, "Skipped: %s: %s\n", what, strerror(-r));
        return SKIPPED;
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_traffic),
                cmocka_unit_test(test_last_words),
        };
        int r;

        r = enter_network();
        if (r < 0)
                return skip_all("a network of its own is not to be had", r);
        r = bring_up();
        if (r < 0)
                return skip_all("its loopback cannot be set up", r);
        r = add_shaper();
        if (r < 0)
                return skip_all("there is no shaper (tbf)", r);
        return cmocka_run_group_tests(tests, setup, teardown);
}
