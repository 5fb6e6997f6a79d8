/* SPDX-License-Identifier: MIT */
/* The channel between a parent and a child; the contract is in muster/channel.h.
 *
 * There is one event source for the socket. It is on for reading once there are handlers, and for writing
 * only while something waits, so that an idle channel costs nothing. Sending tries the socket first: in the
 * usual case a message is one system call, no copy and no allocation.
 *
 * Handlers are called from the loop alone. What a function has to tell (a handler of a message that went out
 * at once, the end after a disconnect) is told by the `pending` source in the next turn. Each of the event
 * handlers holds a reference, and stops when that is the last. */

#include "lib/channel-internal.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "basic/fd.h"
#include "basic/macro.h"
#include "basic/parse.h"
#include "basic/assert-return.h"
#include "basic/options.h"

#define MAX_MESSAGE_DEFAULT (UINT64_C(64) * 1024 * 1024)
#define MAX_MESSAGE_LIMIT   (UINT64_C(1024) * 1024 * 1024)
#define MAX_QUEUE_DEFAULT   (UINT64_C(64) * 1024 * 1024)

#define ENV_CHANNEL_FD    "MUSTER_CHANNEL_FD"
#define ENV_NODE_FD       "NODE_CHANNEL_FD"
#define ENV_SERIALIZATION "NODE_CHANNEL_SERIALIZATION_MODE"

DEFINE_CLEANUP(muster_channel, muster_channel_unref)

static void free_all_outgoing(List *list) {
        list_foreach_safe (node, list)
                outgoing_free(list_entry(node, Outgoing, node));
}

_public_ muster_channel *muster_channel_ref(muster_channel *channel) {
        if (channel)
                channel->n_ref++;
        return channel;
}

_public_ muster_channel *muster_channel_unref(muster_channel *channel) {
        if (!channel || --channel->n_ref > 0)
                return NULL;

        io_watch_done(&channel->io);
        sd_event_source_disable_unref(channel->retry);
        sd_event_source_disable_unref(channel->pending);
        sd_event_unref(channel->event);
        free_all_outgoing(&channel->waiting);
        free_all_outgoing(&channel->unacked);
        free_all_outgoing(&channel->finished);
        channel_close_arrivals(channel);
        line_buffer_done(&channel->in);
        safe_close(channel->fd);
        free(channel);
        return NULL;
}

void channel_end(muster_channel *c, int error) {
        if (c->state == CHANNEL_ENDED)
                return;
        c->state = CHANNEL_ENDED;
        io_watch_done(&c->io);
        c->retry = sd_event_source_disable_unref(c->retry);
        c->pending = sd_event_source_disable_unref(c->pending); /* all is told here */
        c->fd = safe_close(c->fd);
        line_buffer_done(&c->in);
        channel_close_arrivals(c);
        channel_fail_outgoing(c, error < 0 ? error : -EPIPE);
        c->drain_due = false;
        channel_call_sent_handlers(c);
        if (c->handlers.disconnected && !channel_is_dropped(c))
                c->handlers.disconnected(c, error, c->userdata);
        if (c->on_ended)
                c->on_ended(c->owner);
}

void channel_set_owner(muster_channel *c, void (*on_ended)(void *owner), void *owner) {
        c->on_ended = on_ended;
        c->owner = owner;
}

void channel_peer_exited(muster_channel *c) {
        c->peer_exited = true;
        channel_update(c);
}

/* After a disconnect: all is sent and acknowledged. Or its process has ended, and nobody listens. */
static bool is_through(const muster_channel *c) {
        if (c->peer_exited && !c->has_handlers)
                return true;
        return c->state == CHANNEL_ENDING && list_empty(&c->waiting) && c->n_unacked == 0;
}

/* The end of every event handler: what the event has brought about is told, and the sources are set. */
static void settle(muster_channel *c) {
        channel_call_sent_handlers(c);
        if (channel_is_dropped(c))
                return;
        if (is_through(c))
                channel_end(c, 0);
        else
                channel_update(c);
}

static int on_io(sd_event_source *source, int fd, uint32_t revents, void *userdata) {
        _cleanup_(muster_channel_unrefp) muster_channel *c = muster_channel_ref(userdata);
        int r = 0;

        /* With a full buffer and a peer that has shut down, there is no EPOLLOUT. */
        if (revents & (EPOLLOUT | EPOLLHUP | EPOLLERR))
                channel_flush(c);
        if (c->io.events & EPOLLIN) /* and not for a hang-up alone: nobody may want to hear yet */
                r = channel_receive(c);
        if (channel_is_dropped(c))
                return 0;
        if (r != 0) /* rubbish that is dropped anyway is no error */
                channel_end(c, r < 0 && c->state == CHANNEL_OPEN ? r : 0);
        else
                settle(c);
        return 0;
}

static int on_retry(sd_event_source *source, uint64_t usec, void *userdata) {
        _cleanup_(muster_channel_unrefp) muster_channel *c = muster_channel_ref(userdata);

        c->retry = sd_event_source_disable_unref(c->retry);
        channel_flush(c);
        settle(c);
        return 0;
}

static int on_pending(sd_event_source *source, void *userdata) {
        _cleanup_(muster_channel_unrefp) muster_channel *c = muster_channel_ref(userdata);

        c->pending = sd_event_source_disable_unref(c->pending);
        settle(c);
        return 0;
}

static uint32_t wanted_events(const muster_channel *c) {
        uint32_t events = 0;

        if ((c->has_handlers && c->state == CHANNEL_OPEN && !c->is_paused) || c->state == CHANNEL_ENDING)
                events |= EPOLLIN;
        if (!list_empty(&c->waiting) && c->retry_usec == 0) {
                const Outgoing *first = list_entry(c->waiting.next, Outgoing, node);

                if (first->fd < 0 || c->n_unacked < CHANNEL_UNACKED_MAX)
                        events |= EPOLLOUT;
        }
        return events;
}

static int set_retry(muster_channel *c) {
        if (c->retry_usec == 0 || list_empty(&c->waiting)) {
                c->retry = sd_event_source_disable_unref(c->retry);
                return 0;
        }
        if (c->retry)
                return 0;
        return sd_event_add_time_relative(c->event, &c->retry, CLOCK_MONOTONIC, c->retry_usec,
                        MAX(c->retry_usec / 8, 1U), on_retry, c);
}

static int set_pending(muster_channel *c) {
        if (c->pending || (list_empty(&c->finished) && !is_through(c)))
                return 0;
        return sd_event_add_defer(c->event, &c->pending, on_pending, c);
}

void channel_update(muster_channel *c) {
        int r;

        if (!c->event || c->state == CHANNEL_ENDED)
                return;
        r = io_watch_set(&c->io, c->event, c->fd, wanted_events(c), on_io, c);
        if (r >= 0)
                r = set_retry(c);
        if (r >= 0)
                r = set_pending(c);
        /* Out of memory or of epoll watches. Nothing can be promised any more, and the peer is to see it. */
        if (r < 0 && c->broken == 0) {
                c->broken = r;
                (void) shutdown(c->fd, SHUT_RDWR);
        }
}

static int check_socket(int fd) {
        int value;
        socklen_t n = sizeof(value);

        if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &value, &n) < 0)
                return -errno;
        if (value != SOCK_STREAM)
                return -EPROTOTYPE;
        if (getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &value, &n) < 0)
                return -errno;
        if (value != AF_UNIX)
                return -EPROTOTYPE;
        return getpeername(fd, &(struct sockaddr){ 0 }, &(socklen_t){ sizeof(struct sockaddr) }) < 0 ? -errno
                                                                                                     : 0;
}

static int copy_channel_options(const muster_channel_options *options, muster_channel_options *ret) {
        muster_channel_options o = MUSTER_CHANNEL_OPTIONS_INIT;
        int r;

        if (options) {
                r = options_copy(&o, sizeof(o), options, OPTIONS_SIZE_UP_TO(muster_channel_options, flags));
                if (r < 0)
                        return r;
        }
        muster_assert_return(o.max_message_bytes <= MAX_MESSAGE_LIMIT, -EINVAL);
        muster_assert_return(o.max_queue_bytes <= SIZE_MAX / 4, -EINVAL);
        muster_assert_return(!(o.flags & ~MUSTER_CHANNEL_INTERNAL), -EINVAL);
        *ret = o;
        return 0;
}

static int channel_new(int fd, const muster_channel_options *o, muster_channel **ret) {
        _cleanup_(muster_channel_unrefp) muster_channel *c = NULL;
        int r;

        c = calloc(1, sizeof(*c));
        if (!c)
                return -ENOMEM;
        *c = (muster_channel){
                .n_ref = 1,
                .fd = -EBADF,
                .flags = o->flags,
                .max_message_bytes = o->max_message_bytes ? o->max_message_bytes : MAX_MESSAGE_DEFAULT,
                .max_queue_bytes = o->max_queue_bytes ? o->max_queue_bytes : MAX_QUEUE_DEFAULT,
        };
        c->in.max_line = c->max_message_bytes + CHANNEL_ENVELOPE_MAX;
        list_init(&c->waiting);
        list_init(&c->unacked);
        list_init(&c->finished);

        r = fd_set_nonblock(fd, true);
        if (r >= 0)
                r = fd_set_cloexec(fd, true);
        if (r < 0)
                return r;
        c->fd = fd;
        *ret = TAKE_PTR(c);
        return 0;
}

_public_ int muster_channel_new(
                sd_event *event, int fd, const muster_channel_options *options, muster_channel **ret) {
        muster_channel_options o;
        int r;

        muster_assert_return(ret, -EINVAL);
        r = copy_channel_options(options, &o);
        if (r >= 0)
                r = check_socket(fd);
        if (r >= 0)
                r = channel_new(fd, &o, ret);
        if (r >= 0 && event)
                (*ret)->event = sd_event_ref(event);
        return r;
}

/* Returns the descriptor that the variable names, or a negative errno: -ENXIO when there is none. */
static int fd_from_environment(const char *variable) {
        const char *value = getenv(variable);
        unsigned fd;

        if (!value)
                return -ENXIO;
        return parse_uint(value, &fd) < 0 || fd > INT_MAX ? -EINVAL : (int) fd;
}

_public_ int muster_channel_from_environment(
                sd_event *event, const muster_channel_options *options, muster_channel **ret) {
        const char *serialization = getenv(ENV_SERIALIZATION);
        bool advanced = serialization && strcmp(serialization, "json") != 0;
        int fd, r;

        muster_assert_return(ret, -EINVAL);
        fd = fd_from_environment(ENV_CHANNEL_FD);
        if (fd == -ENXIO)
                fd = fd_from_environment(ENV_NODE_FD);
        (void) unsetenv(ENV_CHANNEL_FD);
        (void) unsetenv(ENV_NODE_FD);
        (void) unsetenv(ENV_SERIALIZATION);
        if (fd < 0)
                return fd;
        /* Not ours to read: nothing that this process starts is to hold it open. */
        r = advanced ? -EPROTONOSUPPORT : muster_channel_new(event, fd, options, ret);
        if (r < 0)
                (void) fd_set_cloexec(fd, true);
        return r;
}

_public_ int muster_channel_attach(muster_channel *channel, sd_event *event) {
        muster_assert_return(channel, -EINVAL);
        muster_assert_return(event, -EINVAL);

        if (channel->event)
                return -EBUSY;
        channel->event = sd_event_ref(event);
        channel_update(channel);
        return 0;
}

_public_ int muster_channel_set_handlers(
                muster_channel *channel, const muster_channel_handlers *handlers, void *userdata) {
        muster_channel_handlers h = MUSTER_CHANNEL_HANDLERS_INIT;
        int r;

        muster_assert_return(channel, -EINVAL);
        muster_assert_return(handlers, -EINVAL);
        r = options_copy(&h, sizeof(h), handlers, OPTIONS_SIZE_UP_TO(muster_channel_handlers, drained));
        if (r < 0)
                return r;
        if (channel->state == CHANNEL_ENDED)
                return -EPIPE; /* none of them would ever be called */

        channel->handlers = h;
        channel->userdata = userdata;
        channel->has_handlers = true;
        channel_update(channel);
        return 0;
}

_public_ int muster_channel_disconnect(muster_channel *channel) {
        muster_assert_return(channel, -EINVAL);

        if (channel->state != CHANNEL_OPEN)
                return -EPIPE;
        channel->state = CHANNEL_ENDING;
        channel_update(channel);
        return 0;
}

static int set_paused(muster_channel *channel, bool paused) {
        muster_assert_return(channel, -EINVAL);

        if (channel->state == CHANNEL_ENDED)
                return -EPIPE;
        channel->is_paused = paused;
        channel_update(channel);
        return 0;
}

_public_ int muster_channel_pause(muster_channel *channel) {
        return set_paused(channel, true);
}

_public_ int muster_channel_resume(muster_channel *channel) {
        return set_paused(channel, false);
}

_public_ int muster_channel_is_connected(const muster_channel *channel) {
        return channel && channel->state == CHANNEL_OPEN;
}

_public_ uint64_t muster_channel_get_queued_bytes(const muster_channel *channel) {
        return channel ? channel->queued_bytes : 0;
}

_public_ const char *muster_message_get_json(const muster_message *message, size_t *ret_length) {
        muster_assert_return(message, NULL);

        if (ret_length)
                *ret_length = message->length;
        return message->json;
}

_public_ int muster_message_get_fd(const muster_message *message) {
        return message && message->fd >= 0 ? message->fd : -1;
}

_public_ int muster_message_take_fd(muster_message *message) {
        muster_assert_return(message, -1);

        int fd = TAKE_FD(message->fd);
        return fd >= 0 ? fd : -1;
}

_public_ int muster_message_get_handle_type(const muster_message *message) {
        return message ? message->handle_type : MUSTER_HANDLE_NONE;
}
