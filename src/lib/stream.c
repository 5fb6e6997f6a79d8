/* SPDX-License-Identifier: MIT */
/* The parent's end of a child's pipe; the contract is in muster/stream.h.
 *
 * A pipe is one-way; a socket pair goes both ways. Reading keeps nothing: the bytes are on the stack while
 * the handler looks at them. So what a stream costs is its queue for writing, and that only while something
 * waits. */

#include "lib/stream-internal.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "basic/fd.h"
#include "basic/macro.h"
#include "basic/assert-return.h"
#include "lib/io-watch.h"
#include "basic/options.h"

#define READ_SIZE       (64 * 1024)
#define LARGE_PIPE_SIZE (2 * READ_SIZE)

struct muster_stream {
        unsigned n_ref;
        int fd;
        bool is_socket;
        bool read_only; /* there never was a writing side */
        bool reading;   /* the end has not come */
        bool writing;   /* the writing side is open */
        bool ending;    /* it is to be closed when nothing waits */
        bool paused;
        bool discard; /* nobody wants what comes */
        bool drain_due;
        bool is_large; /* more came at once than a pipe holds at first */

        sd_event *event; /* counted */
        IoWatch io;
        muster_stream_handlers handlers;
        void *userdata;
        stream_closed_handler_t on_closed;
        void *on_closed_userdata;

        char *queue;
        size_t queue_size;
        size_t queue_start;
        size_t queue_used;
};

DEFINE_CLEANUP(muster_stream, muster_stream_unref)

/* As in channel.c: only the event handler under way holds it. */
static bool is_dropped(const muster_stream *s) {
        return s->n_ref == 1;
}

bool stream_is_closed(const muster_stream *s) {
        return s->fd < 0;
}

static size_t queued(const muster_stream *s) {
        return s->queue_used - s->queue_start;
}

static void drop_queue(muster_stream *s) {
        free(s->queue);
        s->queue = NULL;
        s->queue_size = s->queue_start = s->queue_used = 0;
}

static void stream_close(muster_stream *s) {
        if (s->fd < 0)
                return;
        io_watch_done(&s->io);
        s->fd = safe_close(s->fd);
        s->reading = s->writing = false;
        drop_queue(s);
        if (s->on_closed)
                s->on_closed(s, s->on_closed_userdata);
}

/* One direction less; a pipe has no more than that. */
static void end_reading(muster_stream *s) {
        s->reading = false;
        if (!s->writing)
                stream_close(s);
}

static void end_writing(muster_stream *s) {
        s->writing = false;
        drop_queue(s);
        if (!s->reading)
                stream_close(s);
        else
                (void) shutdown(s->fd, SHUT_WR); /* ENOTCONN: the other end is gone */
}

static int update(muster_stream *s);

/* Nothing can be done about an event source that cannot be set but to end what it was for. */
static void update_or_close(muster_stream *s) {
        int r = update(s);

        if (r >= 0)
                return;
        stream_close(s);
        if (s->handlers.end && !is_dropped(s))
                s->handlers.end(s, r, s->userdata);
}

/* write(2) without the signal: a library leaves the caller's SIGPIPE as it is. A socket has a flag for it;
 * for a pipe the signal is blocked meanwhile, and taken back unless it was pending before. */
static ssize_t write_quietly(const muster_stream *s, const void *data, size_t size) {
        static const struct timespec at_once = { 0 };
        sigset_t pipe_only, saved, before;
        ssize_t n;

        if (s->is_socket) {
                n = send(s->fd, data, size, MSG_DONTWAIT | MSG_NOSIGNAL);
                return n < 0 ? -errno : n;
        }
        sigemptyset(&pipe_only);
        sigaddset(&pipe_only, SIGPIPE);
        pthread_sigmask(SIG_BLOCK, &pipe_only, &saved);
        sigpending(&before);
        n = write(s->fd, data, size);
        if (n < 0)
                n = -errno;
        if (n == -EPIPE && !sigismember(&before, SIGPIPE))
                (void) sigtimedwait(&pipe_only, NULL, &at_once);
        pthread_sigmask(SIG_SETMASK, &saved, NULL);
        return n;
}

/* Returns how much was taken; 0 when there is no room; a negative errno. */
static ssize_t try_write(const muster_stream *s, const char *data, size_t size) {
        size_t done = 0;

        while (done < size) {
                ssize_t n = write_quietly(s, data + done, size - done);
                if (n == -EINTR)
                        continue;
                if (n == -EAGAIN)
                        break;
                if (n < 0)
                        return n == -ECONNRESET || n == -ENOTCONN ? -EPIPE : n;
                done += (size_t) n;
        }
        return (ssize_t) done;
}

static int flush(muster_stream *s) {
        ssize_t n = try_write(s, s->queue + s->queue_start, queued(s));

        if (n < 0)
                return (int) n;
        s->queue_start += (size_t) n;
        if (queued(s) == 0)
                drop_queue(s);
        return 0;
}

/* The child fills the pipe faster than it is emptied: with a larger one both need not sleep in turns. The
 * kernel limits what all pipes of a user hold, so this is not for every pipe. */
static void grow_pipe(muster_stream *s) {
        if (s->is_large)
                return;
        s->is_large = true;
        (void) fcntl(s->fd, F_SETPIPE_SZ, LARGE_PIPE_SIZE); /* EPERM: over that limit; a socket: EBADF */
}

/* Returns 0; 1 at the end; a negative errno. */
static int read_some(muster_stream *s) {
        char buf[READ_SIZE];

        ssize_t n = read(s->fd, buf, sizeof(buf));
        if (n < 0)
                return errno == EAGAIN || errno == EINTR ? 0 : errno == ECONNRESET ? 1 : -errno;
        if (n == 0)
                return 1;
        if (n == sizeof(buf))
                grow_pipe(s);
        if (!s->discard && s->handlers.data)
                s->handlers.data(s, buf, (size_t) n, s->userdata);
        return 0;
}

static void on_writable(muster_stream *s) {
        int r;

        if (queued(s) == 0)
                return;
        r = flush(s);
        if (r < 0) {
                s->drain_due = false;
                end_writing(s);
                if (s->handlers.broken)
                        s->handlers.broken(s, r, s->userdata);
                return;
        }
        if (queued(s) > 0)
                return;
        if (s->ending)
                end_writing(s);
        if (s->drain_due) {
                s->drain_due = false;
                if (s->handlers.drained)
                        s->handlers.drained(s, s->userdata);
        }
}

static int on_io(sd_event_source *source, int fd, uint32_t revents, void *userdata) {
        _cleanup_(muster_stream_unrefp) muster_stream *s = muster_stream_ref(userdata);
        uint32_t wanted = s->io.events;
        int r;

        if (wanted & EPOLLOUT)
                on_writable(s);
        if (is_dropped(s) || s->fd < 0)
                return 0;
        if ((wanted & EPOLLIN) && s->reading && !s->paused) {
                r = read_some(s);
                if (is_dropped(s) || s->fd < 0)
                        return 0;
                if (r != 0) {
                        end_reading(s);
                        if (s->handlers.end)
                                s->handlers.end(s, r < 0 ? r : 0, s->userdata);
                        if (is_dropped(s) || s->fd < 0)
                                return 0;
                }
        }
        update_or_close(s);
        return 0;
}

static int update(muster_stream *s) {
        uint32_t events = 0;

        if (!s->event || s->fd < 0)
                return 0;
        if (s->reading && !s->paused && (s->handlers.data || s->discard))
                events |= EPOLLIN;
        if (s->writing && queued(s) > 0)
                events |= EPOLLOUT;
        return io_watch_set(&s->io, s->event, s->fd, events, on_io, s);
}

int stream_new(int fd, StreamDirection direction, stream_closed_handler_t on_closed, void *userdata,
                muster_stream **ret) {
        muster_stream *s = malloc(sizeof(*s));

        if (!s)
                return -ENOMEM;
        *s = (muster_stream){
                .n_ref = 1,
                .fd = fd,
                .is_socket = direction == (STREAM_READ | STREAM_WRITE),
                .read_only = direction == STREAM_READ,
                .reading = direction & STREAM_READ,
                .writing = direction & STREAM_WRITE,
                .on_closed = on_closed,
                .on_closed_userdata = userdata,
        };
        *ret = s;
        return 0;
}

int stream_attach(muster_stream *s, sd_event *event) {
        s->event = sd_event_ref(event);
        return update(s);
}

void stream_peer_exited(muster_stream *s) {
        if (s->fd < 0)
                return;
        if (s->writing) {
                bool lost = queued(s) > 0;

                s->drain_due = false;
                end_writing(s);
                if (lost && s->handlers.broken)
                        s->handlers.broken(s, -EPIPE, s->userdata);
        }
        if (s->fd >= 0 && !s->handlers.data) {
                s->discard = true;
                s->paused = false;
                update_or_close(s);
        }
}

void stream_orphan(muster_stream *s) {
        s->on_closed = NULL;
}

_public_ int muster_stream_set_handlers(
                muster_stream *stream, const muster_stream_handlers *handlers, void *userdata) {
        muster_stream_handlers h = MUSTER_STREAM_HANDLERS_INIT;
        int r;

        muster_assert_return(stream, -EINVAL);
        muster_assert_return(handlers, -EINVAL);
        r = options_copy(&h, sizeof(h), handlers, OPTIONS_SIZE_UP_TO(muster_stream_handlers, broken));
        if (r < 0)
                return r;
        stream->handlers = h;
        stream->userdata = userdata;
        return update(stream);
}

_public_ int muster_stream_pause(muster_stream *stream) {
        muster_assert_return(stream, -EINVAL);

        stream->paused = true;
        return update(stream);
}

_public_ int muster_stream_resume(muster_stream *stream) {
        muster_assert_return(stream, -EINVAL);

        stream->paused = false;
        return update(stream);
}

/* Room for @size more bytes behind what waits. */
static int reserve(muster_stream *s, size_t size) {
        size_t n = queued(s);

        if (s->queue_start > 0) {
                memmove(s->queue, s->queue + s->queue_start, n);
                s->queue_start = 0;
                s->queue_used = n;
        }
        if (s->queue_size - n >= size)
                return 0;

        char *queue = realloc(s->queue, n + size);
        if (!queue)
                return -ENOMEM;
        s->queue = queue;
        s->queue_size = n + size;
        return 0;
}

_public_ int muster_stream_write(muster_stream *stream, const void *data, size_t size) {
        ssize_t n = 0;
        int r;

        muster_assert_return(stream, -EINVAL);
        muster_assert_return(data || size == 0, -EINVAL);

        if (!stream->writing || stream->ending)
                return stream->read_only ? -EBADF : -EPIPE;
        if (queued(stream) > 0 && queued(stream) + size > MUSTER_STREAM_QUEUE_MAX)
                return -ENOBUFS;
        if (queued(stream) == 0) {
                n = try_write(stream, data, size);
                if (n < 0)
                        return (int) n;
                if ((size_t) n == size)
                        return 0;
        }
        size -= (size_t) n;
        r = reserve(stream, size);
        if (r >= 0) {
                memcpy(stream->queue + stream->queue_used, (const char *) data + n, size);
                stream->queue_used += size;
                stream->drain_due = true;
                r = update(stream);
        } else if (n == 0)
                return r;
        if (r < 0) {
                /* Some of it is out, and the rest will never be. */
                end_writing(stream);
                return r;
        }
        return 1;
}

_public_ int muster_stream_end(muster_stream *stream) {
        muster_assert_return(stream, -EINVAL);

        if (!stream->writing || stream->ending)
                return stream->read_only ? -EBADF : -EPIPE;
        stream->ending = true;
        if (queued(stream) == 0)
                end_writing(stream);
        return 0;
}

_public_ int muster_stream_close(muster_stream *stream) {
        muster_assert_return(stream, -EINVAL);

        stream_close(stream);
        return 0;
}

_public_ int muster_stream_take_fd(muster_stream *stream) {
        muster_assert_return(stream, -EINVAL);

        if (stream->fd < 0)
                return -EBADF;
        if (queued(stream) > 0)
                return -EBUSY;
        io_watch_done(&stream->io);
        int fd = TAKE_FD(stream->fd);
        stream->reading = stream->writing = false;
        if (stream->on_closed)
                stream->on_closed(stream, stream->on_closed_userdata);
        return fd;
}

_public_ uint64_t muster_stream_get_queued_bytes(const muster_stream *stream) {
        return stream ? queued(stream) : 0;
}

_public_ muster_stream *muster_stream_ref(muster_stream *stream) {
        if (stream)
                stream->n_ref++;
        return stream;
}

_public_ muster_stream *muster_stream_unref(muster_stream *stream) {
        if (!stream || --stream->n_ref > 0)
                return NULL;

        io_watch_done(&stream->io);
        sd_event_unref(stream->event);
        safe_close(stream->fd);
        drop_queue(stream);
        free(stream);
        return NULL;
}
