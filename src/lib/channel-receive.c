/* SPDX-License-Identifier: MIT */
/* A channel's way in: bytes and descriptors become messages.
 *
 * Which line a descriptor belongs to. A sender passes it with the first byte of its line, in a system call
 * of that line's own. The kernel never merges what came with a descriptor with what was sent after it, and a
 * descriptor arrives with the first byte it was sent with (unix(7), "ancillary data forms a barrier"). So
 * whatever came before it in the same read, the line of a descriptor is the last one that *begins* in that
 * read. Giving it to the first envelope that is complete, as Node does, lets an envelope without a
 * descriptor steal that of the next. */

#include "lib/channel-internal.h"

#include <errno.h>
#include <linux/sockios.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "basic/fd.h"
#include "basic/macro.h"
#include "basic/assert-return.h"

/* A line has one descriptor. Room for a second shows that there were more; the kernel closes the rest. */
#define DESCRIPTORS_MAX 2

void channel_close_arrivals(muster_channel *c) {
        while (c->n_arrivals > 0)
                safe_close(c->arrivals[--c->n_arrivals].fd);
}

/* Returns how many descriptors came along; all but one are closed. */
static unsigned take_descriptor(struct msghdr *mh, int *ret_fd) {
        unsigned n = 0;

        for (struct cmsghdr *cmsg = CMSG_FIRSTHDR(mh); cmsg; cmsg = CMSG_NXTHDR(mh, cmsg)) {
                if (cmsg->cmsg_level != SOL_SOCKET || cmsg->cmsg_type != SCM_RIGHTS)
                        continue;
                size_t count = (cmsg->cmsg_len - CMSG_LEN(0)) / sizeof(int);

                for (size_t i = 0; i < count; i++) {
                        int fd;

                        memcpy(&fd, CMSG_DATA(cmsg) + i * sizeof(int), sizeof(int));
                        if (n++ == 0)
                                *ret_fd = fd;
                        else
                                safe_close(fd);
                }
        }
        return n;
}

/* Remembers to which line a descriptor that came with the last @n bytes belongs. */
static int add_arrival(muster_channel *c, int fd, size_t n) {
        uint64_t offset;

        if (!line_buffer_last_begin(&c->in, n, &offset) || c->n_arrivals == ELEMENTSOF(c->arrivals)) {
                safe_close(fd);
                return -EPROTO;
        }
        c->arrivals[c->n_arrivals++] = (Arrival){ fd, offset };
        return 0;
}

static int take_arrival(muster_channel *c, uint64_t line_offset) {
        if (c->n_arrivals == 0 || c->arrivals[0].line_offset != line_offset)
                return -EBADF;

        int fd = c->arrivals[0].fd;
        c->arrivals[0] = c->arrivals[1];
        c->n_arrivals--;
        return fd;
}

/* Returns 0; 1 at the end of the stream; a negative errno. */
static int read_once(muster_channel *c) {
        union {
                char buf[CMSG_SPACE(DESCRIPTORS_MAX * sizeof(int))];
                struct cmsghdr align;
        } control;
        struct iovec iov;
        struct msghdr mh = {
                .msg_iov = &iov,
                .msg_iovlen = 1,
                .msg_control = &control,
                .msg_controllen = sizeof(control),
        };
        char *room;
        int fd = -EBADF, r;

        r = line_buffer_reserve(&c->in, &room, &iov.iov_len);
        if (r < 0)
                return r;
        iov.iov_base = room;

        ssize_t n = recvmsg(c->fd, &mh, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
        if (n < 0) {
                if (errno == EAGAIN || errno == EINTR)
                        return 0;
                /* The peer went without reading what we sent: an end like another. */
                return errno == ECONNRESET ? 1 : -errno;
        }
        unsigned n_fds = take_descriptor(&mh, &fd);
        if (n == 0) {
                safe_close(fd);
                return 1;
        }
        line_buffer_add(&c->in, (size_t) n);
        if (n_fds == 0)
                return 0; /* or it was lost, MSG_CTRUNC, as we have no place for it: its envelope is empty */
        if (n_fds > 1 || (mh.msg_flags & MSG_CTRUNC)) { /* there may have been a place for the first alone */
                safe_close(fd);
                return -EPROTO;
        }
        return add_arrival(c, fd, (size_t) n);
}

/* Hands a message to the application, and takes the descriptor. */
static void deliver(muster_channel *c, const WireLine *line, int fd) {
        muster_message m = {
                .json = line->message.p,
                .length = line->message.n,
                .fd = fd,
                .handle_type = line->handle_type,
        };

        bool wanted = !line->internal || (c->flags & MUSTER_CHANNEL_INTERNAL);
        if (wanted && c->state == CHANNEL_OPEN && c->handlers.message) {
                if (line->message.p[line->message.n] != '\0') /* the envelope goes on there, in our buffer */
                        ((char *) line->message.p)[line->message.n] = '\0';
                c->handlers.message(c, &m, c->userdata);
        }
        safe_close(m.fd);
}

static int handle_envelope(muster_channel *c, const WireLine *line, int fd) {
        int r;

        r = channel_send_line(c, fd >= 0 ? WIRE_ACK_LINE : WIRE_NACK_LINE);
        if (r < 0) {
                safe_close(fd);
                return r;
        }
        if (fd >= 0)
                deliver(c, line, fd);
        return 0;
}

static int handle_acknowledgement(muster_channel *c, const WireLine *line) {
        if (channel_acknowledge(c, line->kind == WIRE_ACK ? 0 : -EREMOTEIO))
                return 0;
        if (!(c->flags & MUSTER_CHANNEL_INTERNAL))
                return -EPROTO;
        deliver(c, line, -EBADF);
        return 0;
}

/* Takes the descriptor, if there is one. */
static int handle_line(muster_channel *c, char *text, size_t n, int fd) {
        WireLine line;
        int r;

        r = wire_parse(text, n, &line);
        if (r >= 0 && line.message.n > c->max_message_bytes)
                r = -EMSGSIZE;
        if (r >= 0 && fd >= 0 && line.kind != WIRE_HANDLE)
                r = -EPROTO;
        if (r < 0) {
                safe_close(fd);
                return r;
        }
        switch (line.kind) {
        case WIRE_HANDLE:
                return handle_envelope(c, &line, fd);
        case WIRE_ACK:
        case WIRE_NACK:
                return handle_acknowledgement(c, &line);
        default:
                deliver(c, &line, -EBADF);
                return 0;
        }
}

int channel_receive(muster_channel *c) {
        uint64_t offset;
        char *line;
        size_t n;
        int end, r;

        end = read_once(c);
        while (c->state != CHANNEL_ENDED && line_buffer_next(&c->in, &line, &n, &offset)) {
                r = handle_line(c, line, n, take_arrival(c, offset));
                if (r < 0)
                        return r;
                if (channel_is_dropped(c))
                        return 0;
        }
        if (end == 1 && line_buffer_partial(&c->in) && c->state == CHANNEL_OPEN)
                return -EBADMSG;
        return end;
}

void channel_receive_rest(muster_channel *c) {
        uint64_t end;
        int queued;

        if (c->state == CHANNEL_ENDED || ioctl(c->fd, SIOCINQ, &queued) < 0)
                return;
        muster_channel_ref(c);
        end = line_buffer_received(&c->in) + (uint64_t) queued;
        /* Each read gives what came up to the next descriptor. */
        while (line_buffer_received(&c->in) < end && channel_receive(c) == 0)
                if (c->state == CHANNEL_ENDED || channel_is_dropped(c))
                        break;
        muster_channel_unref(c);
}

_public_ int muster_channel_receive_pending(muster_channel *channel) {
        muster_assert_return(channel, -EINVAL);

        if (!channel->has_handlers || !channel->event)
                return -EINVAL;
        if (channel->state == CHANNEL_ENDED)
                return -EPIPE;
        channel_receive_rest(channel);
        return 0;
}
