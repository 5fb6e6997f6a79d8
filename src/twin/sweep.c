/* SPDX-License-Identifier: MIT */
/* Finding out and deciding; see sweep.h.
 *
 * A record follows its descriptor: it stops being FREE when the socket is there, and is CLOSING
 * before the socket goes. Between close(2) and FREE the number may be taken by whoever opens something: a
 * thread of the module, or the keeper for its next process. */

#include "twin/sweep.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "basic/bitmap.h"
#include "basic/fd.h"
#include "basic/macro.h"

/* Descriptors of one poll(2), which looks at each of them once: they are all asked for no event. */
#define POLL_MAX 1024

#define STATUS_MAX 16384

/*
 * The decision
 */

/* Who is in the middle of a connection holds its descriptor, and a record that a living connection belongs
 * to is believed. Any other descriptor must show what it is, or at least that it is of no use. */
bool sweep_must_ask(const Finding *f) {
        if (!f->is_open || f->is_kept)
                return false;
        return f->standing == STANDING_FREE || (f->standing == STANDING_CLOSING && f->is_needed);
}

static Fate decide_without_record(const Finding *f) {
        if (f->is_client)
                return FATE_ADOPT;
        return f->is_needed ? FATE_KEEP : FATE_CLOSE;
}

/* What was that connection may be a file by now, and of use. */
static Fate decide_closing(const Finding *f) {
        return f->is_needed && !f->is_client ? FATE_FORGET : FATE_CLOSE;
}

Fate sweep_decide(const Finding *f) {
        if (!f->is_open)
                return f->standing == STANDING_FREE ? FATE_NOTHING : FATE_FORGET;
        if (f->is_kept)
                return f->standing == STANDING_FREE ? FATE_KEEP : FATE_FORGET;

        switch (f->standing) {
        case STANDING_FREE:
                return decide_without_record(f);
        case STANDING_IDLE:
                return f->busy ? FATE_RESUME : FATE_LEAVE;
        case STANDING_WORKING:
                return FATE_RESUME;
        case STANDING_CLOSING:
                return decide_closing(f);
        default:
                assert(false);
                return FATE_CLOSE;
        }
}

/*
 * Which are open
 */

int sweep_get_table_size(void) {
        _cleanup_free_ char *status = NULL;
        const char *line;
        long n;
        int r;

        r = read_small_file(AT_FDCWD, "/proc/self/status", STATUS_MAX, &status);
        if (r < 0)
                return r;
        line = strstr(status, "\nFDSize:");
        n = line ? strtol(line + strlen("\nFDSize:"), NULL, 10) : 0;
        return n > 0 && n <= INT_MAX ? (int) n : -EBADMSG;
}

/* poll(2) takes no more descriptors at once than the process may have. */
static unsigned find_poll_max(void) {
        struct rlimit l;

        if (getrlimit(RLIMIT_NOFILE, &l) < 0)
                return 1;
        return (unsigned) MIN(MAX(l.rlim_cur, 1U), (rlim_t) POLL_MAX);
}

static int poll_numbers(unsigned from, unsigned n, struct pollfd *fds) {
        int r;

        for (unsigned i = 0; i < n; i++)
                fds[i] = (struct pollfd){ .fd = (int) (from + i) };
        do
                r = poll(fds, n, 0);
        while (r < 0 && errno == EINTR);
        return r < 0 ? -errno : 0;
}

/* What only names a file (O_PATH) poll(2) takes for closed. Where nothing else is open there is none either,
 * as the lowest number is taken that is free; but for what has been closed since, for which it is not worth
 * to ask thousands of numbers. */
static bool is_any_open(const struct pollfd *fds, unsigned n) {
        for (unsigned i = 0; i < n; i++)
                if (!(fds[i].revents & POLLNVAL))
                        return true;
        return false;
}

int sweep_find_open(unsigned n_descriptors, uint64_t *ret_open) {
        struct pollfd fds[POLL_MAX];
        unsigned n, max = find_poll_max();
        int r;

        memset(ret_open, 0, bitmap_words(n_descriptors) * sizeof(*ret_open));
        for (unsigned from = 0; from < n_descriptors; from += n) {
                n = MIN(max, n_descriptors - from);
                r = poll_numbers(from, n, fds);
                if (r < 0)
                        return r;
                if (!is_any_open(fds, n))
                        continue;
                for (unsigned i = 0; i < n; i++)
                        if (!(fds[i].revents & POLLNVAL) || fcntl(fds[i].fd, F_GETFD) >= 0)
                                bitmap_set(ret_open, from + i);
        }
        return 0;
}

/*
 * Whose they are
 */

int sweep_listener_init(SweepListener *l, int listen_fd) {
        *l = (SweepListener){ .size = sizeof(l->address) };
        return getsockname(listen_fd, (struct sockaddr *) &l->address, &l->size) < 0 ? -errno : 0;
}

static bool in_matches(const SweepListener *l, const SweepListener *own) {
        const struct sockaddr_in *a = (const struct sockaddr_in *) &l->address,
                                 *b = (const struct sockaddr_in *) &own->address;

        if (a->sin_port != b->sin_port)
                return false;
        return a->sin_addr.s_addr == htonl(INADDR_ANY) || a->sin_addr.s_addr == b->sin_addr.s_addr;
}

/* A listener for both families gives sockets of its own family. The scope is a property of the connection.
 */
static bool in6_matches(const SweepListener *l, const SweepListener *own) {
        const struct sockaddr_in6 *a = (const struct sockaddr_in6 *) &l->address,
                                  *b = (const struct sockaddr_in6 *) &own->address;

        if (a->sin6_port != b->sin6_port)
                return false;
        return IN6_IS_ADDR_UNSPECIFIED(&a->sin6_addr) || IN6_ARE_ADDR_EQUAL(&a->sin6_addr, &b->sin6_addr);
}

/* One without an address has not come from a listener. */
static bool un_matches(const SweepListener *l, const SweepListener *own) {
        return own->size > sizeof(sa_family_t) && l->size == own->size &&
               memcmp(&l->address, &own->address, own->size) == 0;
}

static bool listener_matches(const SweepListener *l, const SweepListener *own) {
        if (l->address.ss_family != own->address.ss_family)
                return false;
        switch (own->address.ss_family) {
        case AF_INET:
                return in_matches(l, own);
        case AF_INET6:
                return in6_matches(l, own);
        case AF_UNIX:
                return un_matches(l, own);
        default:
                return false;
        }
}

static bool socket_is(int fd, int option, int value) {
        socklen_t n = sizeof(int);
        int is;

        return getsockopt(fd, SOL_SOCKET, option, &is, &n) == 0 && is == value;
}

static bool socket_is_connected(int fd) {
        struct sockaddr_storage peer;
        socklen_t n = sizeof(peer);

        return getpeername(fd, (struct sockaddr *) &peer, &n) == 0;
}

bool sweep_is_client(int fd, const SweepListener *listeners, unsigned n_listeners) {
        SweepListener own;
        bool found = false;

        if (sweep_listener_init(&own, fd) < 0)
                return false;
        for (unsigned i = 0; i < n_listeners && !found; i++)
                found = listener_matches(listeners + i, &own);
        return found && socket_is(fd, SO_TYPE, SOCK_STREAM) && socket_is(fd, SO_ACCEPTCONN, 0) &&
               socket_is_connected(fd);
}
