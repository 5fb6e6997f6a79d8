/* SPDX-License-Identifier: MIT */
/* A channel's way out.
 *
 * A line goes to the socket at once when nothing waits before it. What the socket does not take is copied
 * and waits; a descriptor waits as a duplicate, so that the caller may close its own. A descriptor is sent
 * in a system call of its own line (see channel-receive.c), lines without one are gathered.
 *
 * Sent is not the end for a descriptor: the peer acknowledges each, in order. */

#include "lib/channel-internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "basic/fd.h"
#include "basic/macro.h"
#include "basic/assert-return.h"

/* How many waiting lines go into one system call. */
#define GATHER_MAX 64

/* A line up to this length is put together before it is sent. */
#define SHORT_MAX 1024

/* The pause after which is tried again what the socket gives no event for. */
#define RETRY_MIN_USEC UINT64_C(10000)
#define RETRY_MAX_USEC UINT64_C(1000000)

DEFINE_CLEANUP(Outgoing, outgoing_free)

Outgoing *outgoing_free(Outgoing *o) {
        if (!o)
                return NULL;
        list_remove(&o->node);
        safe_close(o->fd);
        free(o);
        return NULL;
}

/* What the allocator adds: its own word, and what is missing to a multiple of two. */
#define ALLOCATION_MAX (3 * sizeof(size_t))

static size_t memory_of_line(size_t size) {
        return sizeof(Outgoing) + size + ALLOCATION_MAX;
}

_public_ int muster_channel_has_room(const muster_channel *channel, size_t length, uint64_t max) {
        muster_assert_return(channel, 0);

        return channel->queued_memory == 0 || channel->queued_memory + memory_of_line(length + 1) <= max;
}

static Outgoing *outgoing_new(size_t size) {
        Outgoing *o = calloc(1, sizeof(*o) + size);

        if (!o)
                return NULL;
        o->fd = -EBADF;
        o->size = size;
        list_init(&o->node);
        return o;
}

/* Moves @o behind all of another list. */
static void outgoing_move(Outgoing *o, List *to) {
        list_remove(&o->node);
        list_append(to, &o->node);
}

/* Its last byte is with the kernel. */
static void outgoing_sent(muster_channel *c, Outgoing *o) {
        c->queued_bytes -= o->size;
        if (o->is_handle) {
                outgoing_move(o, &c->unacked);
                c->n_unacked++;
        } else if (o->handler)
                outgoing_move(o, &c->finished);
        else
                outgoing_free(o);
}

bool channel_acknowledge(muster_channel *c, int error) {
        if (list_empty(&c->unacked))
                return false;

        Outgoing *o = list_entry(c->unacked.next, Outgoing, node);
        bool waited_for = error == 0 || o->handler || !(c->flags & MUSTER_CHANNEL_INTERNAL);
        c->n_unacked--;
        o->error = error;
        if (o->handler)
                outgoing_move(o, &c->finished);
        else
                outgoing_free(o);
        channel_flush(c); /* one that waited for its turn, or in vain for a place in the kernel */
        return waited_for;
}

static void fail_all(List *list, List *finished, int error) {
        list_foreach_safe (node, list) {
                Outgoing *o = list_entry(node, Outgoing, node);

                o->error = error;
                o->fd = safe_close(o->fd);
                if (o->handler)
                        outgoing_move(o, finished);
                else
                        outgoing_free(o);
        }
}

void channel_fail_outgoing(muster_channel *c, int error) {
        fail_all(&c->unacked, &c->finished, error); /* they were sent before */
        fail_all(&c->waiting, &c->finished, error);
        c->n_unacked = 0;
        c->queued_bytes = c->queued_memory = 0;
        c->n_own = 0;
}

/* Only what is finished now: a handler that sends adds to the list, and is heard in the next turn. */
void channel_call_sent_handlers(muster_channel *c) {
        List now = LIST_INIT(now);

        while (!list_empty(&c->finished))
                outgoing_move(list_entry(c->finished.next, Outgoing, node), &now);
        while (!list_empty(&now)) {
                _cleanup_(outgoing_freep) Outgoing *o = list_entry(now.next, Outgoing, node);

                list_remove(&o->node);
                if (!channel_is_dropped(c))
                        o->handler(c, o->error, o->userdata);
        }
        if (c->drain_due && list_empty(&c->waiting) && c->broken == 0) {
                c->drain_due = false;
                if (c->handlers.drained && !channel_is_dropped(c))
                        c->handlers.drained(c, c->userdata);
        }
}

static size_t size_of(const struct iovec *iov, int n_iov) {
        size_t size = 0;

        for (int i = 0; i < n_iov; i++)
                size += iov[i].iov_len;
        return size;
}

/* The usual case, a short line in two pieces, costs less as one: the kernel has no lists to fetch. */
static ssize_t send_short(int socket, const struct iovec *iov, int n_iov) {
        char buf[SHORT_MAX];
        size_t at = 0;

        for (int i = 0; i < n_iov; i++) {
                memcpy(buf + at, iov[i].iov_base, iov[i].iov_len);
                at += iov[i].iov_len;
        }
        return send(socket, buf, at, MSG_DONTWAIT | MSG_NOSIGNAL);
}

static ssize_t send_message(int socket, const struct iovec *iov, int n_iov, int fd) {
        union {
                char buf[CMSG_SPACE(sizeof(int))];
                struct cmsghdr align;
        } control = { .buf = { 0 } };
        struct msghdr mh = { .msg_iov = (struct iovec *) iov, .msg_iovlen = (size_t) n_iov };

        if (fd >= 0) {
                mh.msg_control = &control;
                mh.msg_controllen = sizeof(control);
                struct cmsghdr *cmsg = CMSG_FIRSTHDR(&mh);
                cmsg->cmsg_level = SOL_SOCKET;
                cmsg->cmsg_type = SCM_RIGHTS;
                cmsg->cmsg_len = CMSG_LEN(sizeof(int));
                memcpy(CMSG_DATA(cmsg), &fd, sizeof(int));
        }
        return sendmsg(socket, &mh, MSG_DONTWAIT | MSG_NOSIGNAL);
}

/* Returns how much was sent, or a negative errno; -EAGAIN also when the kernel has no room for a descriptor
 * or for the message, of which no event tells: then there is a pause. */
static ssize_t send_once(muster_channel *c, const struct iovec *iov, int n_iov, int fd) {
        bool is_short = fd < 0 && size_of(iov, n_iov) <= SHORT_MAX;
        ssize_t n;

        do
                n = is_short ? send_short(c->fd, iov, n_iov) : send_message(c->fd, iov, n_iov, fd);
        while (n < 0 && errno == EINTR);

        if (n >= 0 || errno == EAGAIN) {
                c->retry_usec = 0;
                return n >= 0 ? n : -EAGAIN;
        }
        /* unix(7): more descriptors in flight than RLIMIT_NOFILE allows. */
        if (errno == ETOOMANYREFS || errno == ENOBUFS || errno == ENOMEM) {
                c->retry_usec = c->retry_usec == 0 ? RETRY_MIN_USEC : MIN(c->retry_usec * 2, RETRY_MAX_USEC);
                return -EAGAIN;
        }
        return errno == ECONNRESET || errno == ENOTCONN ? -EPIPE : -errno;
}

/* The first lines that wait, up to the next descriptor. Returns the number of pieces. */
static int gather(const muster_channel *c, struct iovec iov[static GATHER_MAX], int *ret_fd) {
        int n = 0;

        *ret_fd = -EBADF;
        list_foreach (node, &c->waiting) {
                Outgoing *o = list_entry(node, Outgoing, node);

                if (n == GATHER_MAX || (o->fd >= 0 && n > 0))
                        break;
                if (o->fd >= 0) {
                        if (c->n_unacked >= CHANNEL_UNACKED_MAX)
                                break;
                        *ret_fd = o->fd;
                }
                iov[n++] = (struct iovec){ o->data + o->sent, o->size - o->sent };
                if (o->fd >= 0)
                        break;
        }
        return n;
}

static void account(muster_channel *c, size_t n) {
        while (n > 0) {
                Outgoing *o = list_entry(c->waiting.next, Outgoing, node);
                size_t k = MIN(n, o->size - o->sent);

                o->fd = safe_close(o->fd); /* it went with the first byte */
                o->sent += k;
                n -= k;
                if (o->sent == o->size) {
                        c->n_own -= o->is_own;
                        c->queued_memory -= memory_of_line(o->size);
                        outgoing_sent(c, o);
                }
        }
}

void channel_flush(muster_channel *c) {
        struct iovec iov[GATHER_MAX];

        while (!list_empty(&c->waiting) && c->broken == 0) {
                int fd, n_iov = gather(c, iov, &fd);
                if (n_iov == 0)
                        return;
                ssize_t n = send_once(c, iov, n_iov, fd);
                if (n == -EAGAIN)
                        return;
                if (n < 0) {
                        /* The end itself comes by the way in, after what the peer sent before it went. */
                        c->broken = (int) n;
                        channel_fail_outgoing(c, (int) n);
                        return;
                }
                account(c, (size_t) n);
        }
}

/* What is left after @sent bytes of the pieces waits. */
static int enqueue(
                muster_channel *c, const struct iovec *iov, int n_iov, size_t sent, int fd, Outgoing *like) {
        _cleanup_(outgoing_freep) Outgoing *o = NULL;
        size_t at = 0;

        o = outgoing_new(size_of(iov, n_iov) - sent);
        if (!o)
                return -ENOMEM;
        if (fd >= 0 && sent == 0) {
                o->fd = fcntl(fd, F_DUPFD_CLOEXEC, 3);
                if (o->fd < 0)
                        return -errno;
        }
        for (int i = 0; i < n_iov; i++) {
                size_t skip = MIN(sent, iov[i].iov_len);

                memcpy(o->data + at, (const char *) iov[i].iov_base + skip, iov[i].iov_len - skip);
                at += iov[i].iov_len - skip;
                sent -= skip;
        }
        if (like) {
                o->is_handle = like->is_handle;
                o->handler = like->handler;
                o->userdata = like->userdata;
                outgoing_free(like);
        }
        c->queued_bytes += o->size;
        c->queued_memory += memory_of_line(o->size);
        list_append(&c->waiting, &o->node);
        TAKE_PTR(o);
        return 1;
}

int channel_send_pieces(muster_channel *c, const struct iovec *iov, int n_iov, int fd, Outgoing *o) {
        ssize_t n = 0;
        int r;

        if (list_empty(&c->waiting) && (fd < 0 || c->n_unacked < CHANNEL_UNACKED_MAX)) {
                n = send_once(c, iov, n_iov, fd);
                if (n < 0 && n != -EAGAIN) {
                        if (n == -EPIPE)
                                c->broken = -EPIPE;
                        return (int) n;
                }
                if (n == (ssize_t) size_of(iov, n_iov)) {
                        if (o) {
                                o->size = 0;
                                outgoing_sent(c, o);
                        }
                        return 0;
                }
        }
        r = enqueue(c, iov, n_iov, n > 0 ? (size_t) n : 0, fd, o);
        if (r < 0 && n > 0) {
                /* Half a line is out, and the rest is lost. */
                c->broken = r;
                (void) shutdown(c->fd, SHUT_WR);
        }
        return r;
}

int channel_send_line(muster_channel *c, const char *line) {
        struct iovec iov = { (void *) line, strlen(line) };

        if (c->broken < 0)
                return 0;
        /* A peer that sends descriptors for ever and never reads that they were taken. */
        if (c->n_own >= CHANNEL_OWN_WAITING_MAX ||
                        c->queued_bytes > c->max_queue_bytes + c->max_message_bytes)
                return -ENOBUFS;
        int r = channel_send_pieces(c, &iov, 1, -EBADF, NULL);
        if (r > 0) {
                list_entry(c->waiting.prev, Outgoing, node)->is_own = true;
                c->n_own++;
        }
        return r == -EPIPE || r > 0 ? 0 : r;
}

static int socket_option(int fd, int name) {
        int value;
        socklen_t n = sizeof(value);

        return getsockopt(fd, SOL_SOCKET, name, &value, &n) < 0 ? -errno : value;
}

static bool is_inet(int domain) {
        return domain == AF_INET || domain == AF_INET6;
}

/* What the descriptor would be in Node. */
static int guess_handle_type(int fd) {
        switch (socket_option(fd, SO_TYPE)) {
        case SOCK_STREAM:
                return socket_option(fd, SO_ACCEPTCONN) > 0 ? MUSTER_HANDLE_NET_SERVER
                                                            : MUSTER_HANDLE_NET_SOCKET;
        case SOCK_DGRAM:
                return is_inet(socket_option(fd, SO_DOMAIN)) ? MUSTER_HANDLE_DGRAM_SOCKET
                                                             : MUSTER_HANDLE_NET_NATIVE;
        default:
                return MUSTER_HANDLE_NET_NATIVE;
        }
}

/* Checks the descriptor, and makes a socket as Node wants it. Who passes connections by the thousand names
 * the type and has them non-blocking already: for those it is a single system call. Returns the type or a
 * negative errno. */
static int prepare_handle(int fd, int type) {
        int flags = fcntl(fd, F_GETFL);

        if (flags < 0)
                return -errno;
        if (type == MUSTER_HANDLE_AUTO)
                type = guess_handle_type(fd);
        if (!(flags & O_NONBLOCK) && socket_option(fd, SO_TYPE) >= 0 &&
                        fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0)
                return -errno;
        return type;
}

static int send_checked(muster_channel *c, const char *json, size_t length, int fd, int type,
                muster_channel_sent_handler_t handler, void *userdata) {
        _cleanup_(outgoing_freep) Outgoing *o = NULL;
        struct iovec iov[4];
        int n_iov = 0, r;

        if (fd >= 0 || handler) {
                o = outgoing_new(0);
                if (!o)
                        return -ENOMEM;
                o->is_handle = fd >= 0;
                o->handler = handler;
                o->userdata = userdata;
        }
        if (fd >= 0) {
                type = prepare_handle(fd, type);
                if (type < 0)
                        return type;
                bool udp6 = type == MUSTER_HANDLE_DGRAM_SOCKET && socket_option(fd, SO_DOMAIN) == AF_INET6;
                WireEnvelope e = wire_envelope(type, udp6);
                iov[n_iov++] = (struct iovec){ (void *) e.head, strlen(e.head) };
                iov[n_iov++] = (struct iovec){ (void *) json, length };
                iov[n_iov++] = (struct iovec){ (void *) e.tail, strlen(e.tail) };
        } else
                iov[n_iov++] = (struct iovec){ (void *) json, length };
        iov[n_iov++] = (struct iovec){ (void *) "\n", 1 };

        r = channel_send_pieces(c, iov, n_iov, fd, o);
        if (r < 0)
                return r;
        TAKE_PTR(o);
        if (r > 0)
                c->drain_due = true;
        if (r > 0 || !list_empty(&c->finished))
                channel_update(c);
        return r;
}

_public_ int muster_channel_send_full(muster_channel *channel, const char *json, size_t length, int fd,
                int type, muster_channel_sent_handler_t handler, void *userdata) {
        muster_assert_return(channel, -EINVAL);
        muster_assert_return(json, -EINVAL);
        muster_assert_return(
                        type == MUSTER_HANDLE_AUTO ||
                                        (fd < 0 ? type == MUSTER_HANDLE_NONE
                                                : type >= MUSTER_HANDLE_NET_SERVER && type <= MUSTER_HANDLE_DGRAM_NATIVE),
                        -EINVAL);

        if (channel->state != CHANNEL_OPEN || channel->broken < 0)
                return -EPIPE;
        if (length > channel->max_message_bytes)
                return -EMSGSIZE;
        if (json_scan(json, length, NULL, 0) < 0)
                return -EBADMSG;
        if (!list_empty(&channel->waiting) && channel->queued_bytes + length > channel->max_queue_bytes) {
                channel->drain_due = true; /* what waits may be acknowledgements alone */
                return -ENOBUFS;
        }
        return send_checked(channel, json, length, fd, type, handler, userdata);
}

_public_ int muster_channel_send(muster_channel *channel, const char *json, int fd,
                muster_channel_sent_handler_t handler, void *userdata) {
        muster_assert_return(json, -EINVAL);

        return muster_channel_send_full(
                        channel, json, strlen(json), fd, MUSTER_HANDLE_AUTO, handler, userdata);
}
