/* SPDX-License-Identifier: MIT */
/* Of hiredis only the parser is used here, under the bounds of redis-reader.c. Its connections are no good
 * for a process that is to live through whatever comes: they look names up and wait for it, their
 * descriptors are inherited by programs that are executed, a server that has gone raises SIGPIPE, and an
 * answer that nobody asked for ends the process by assert() (async.c of 0.14 to 1.2).
 *
 * What is sent in one turn of the loop leaves in one write: when there is something to send, a source that
 * is always ready runs at the end of the turn; within the handling of answers, the end of that does. */

#include "state/redis-connection.h"

#include <errno.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "basic/fd.h"
#include "basic/macro.h"
#include "state/redis-output.h"
#include "state/redis-reader.h"
#include "state/redis-tls.h"

#define READ_SIZE 32768

/* So many reads in one turn: others in the loop have theirs as well. */
#define READS_MAX 8

/* A server that has vanished without a word is noticed by the kernel, which asks it at these times, without
 * a wake-up of this process: who only listens for messages would wait for ever. */
#define KEEPALIVE_IDLE_SEC     30
#define KEEPALIVE_INTERVAL_SEC 10
#define KEEPALIVE_COUNT        3

typedef enum ConnectionState {
        CONNECTION_NEW,
        CONNECTION_CONNECTING,
        CONNECTION_ENCRYPTING, /* the handshake of TLS */
        CONNECTION_OPEN,
        CONNECTION_FAILED, /* nobody was told yet */
        CONNECTION_CLOSED,
} ConnectionState;

struct RedisConnection {
        unsigned n_ref; /* the owner, and whoever works with it now */
        ConnectionState state;
        const RedisConnectionHandlers *handlers;
        void *userdata;
        sd_event *event;

        RedisAddress addresses[REDIS_ADDRESSES_MAX];
        size_t n_addresses, address; /* the one that is tried */
        int fd;
        SSL_CTX *tls_context; /* borrowed, like the host; NULL: no TLS */
        const char *host;
        RedisTls *tls;

        sd_event_source *io;
        short events; /* that it waits for */
        sd_event_source *due;
        bool is_due;
        bool is_working; /* in dispatch(), which sends at its end */

        RedisOutput output;
        RedisReader *reader;

        int error; /* CONNECTION_FAILED */
        char text[STATE_TEXT_MAX];
};

static int on_io(sd_event_source *s, int fd, uint32_t revents, void *userdata) {
        redis_connection_dispatch(userdata, (short) revents);
        return 0;
}

static int on_due(sd_event_source *s, void *userdata) {
        redis_connection_dispatch(userdata, 0);
        return 0;
}

static void connection_unref(RedisConnection *c) {
        if (--c->n_ref > 0)
                return;
        redis_output_done(&c->output);
        redis_reader_free(c->reader);
        free(c);
}

static void connection_close(RedisConnection *c) {
        c->tls = redis_tls_free(c->tls);
        c->io = sd_event_source_disable_unref(c->io);
        c->fd = safe_close(c->fd);
}

RedisConnection *redis_connection_free(RedisConnection *c) {
        if (!c)
                return NULL;
        connection_close(c);
        c->due = sd_event_source_disable_unref(c->due);
        c->state = CONNECTION_CLOSED;
        connection_unref(c);
        return NULL;
}

int redis_connection_new(sd_event *event, const RedisConnectionHandlers *handlers, void *userdata,
                RedisConnection **ret) {
        RedisConnection *c = calloc(1, sizeof(*c));
        int r;

        if (!c)
                return -ENOMEM;
        c->n_ref = 1;
        c->handlers = handlers;
        c->userdata = userdata;
        c->event = event;
        c->fd = -EBADF;
        c->reader = redis_reader_new();
        r = c->reader ? sd_event_add_defer(event, &c->due, on_due, c) : -ENOMEM;
        if (r >= 0)
                r = sd_event_source_set_enabled(c->due, SD_EVENT_OFF);
        if (r < 0) {
                redis_connection_free(c);
                return r;
        }
        *ret = c;
        return 0;
}

/* The end of the turn is soon enough. */
static void connection_set_due(RedisConnection *c) {
        if (c->is_due)
                return;
        c->is_due = true;
        (void) sd_event_source_set_enabled(c->due, SD_EVENT_ONESHOT);
}

static void connection_set_events(RedisConnection *c, short events) {
        if (events == c->events)
                return;
        c->events = events;
        (void) sd_event_source_set_io_events(c->io, (uint32_t) events);
}

static void connection_fail(RedisConnection *c, int error, const char *text) {
        connection_close(c);
        c->state = CONNECTION_FAILED;
        c->error = error;
        snprintf(c->text, sizeof(c->text), "%s", text);
        connection_set_due(c);
}

/* @error: a negative errno of the socket's. */
static void connection_fail_errno(RedisConnection *c, int error) {
        char address[REDIS_ADDRESS_TEXT_MAX], text[STATE_TEXT_MAX];
        const char *reason = strerrordesc_np(-error);

        redis_address_to_string(&c->addresses[c->address], address);
        snprintf(text, sizeof(text), "%s: %s", address, reason ? reason : "?");
        switch (-error) {
        case EACCES:
        case EPERM:
                connection_fail(c, -EACCES, text);
                return;
        case ENOMEM:
                connection_fail(c, -ENOMEM, text);
                return;
        default:
                connection_fail(c, -ENOTCONN, text);
        }
}

/* None of them is needed to go on. */
static void socket_tune(int fd, int family) {
        const int one = 1, idle = KEEPALIVE_IDLE_SEC, interval = KEEPALIVE_INTERVAL_SEC,
                  count = KEEPALIVE_COUNT;

        if (family == AF_UNIX)
                return;
        (void) setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
        (void) setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof(idle));
        (void) setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval, sizeof(interval));
        (void) setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &count, sizeof(count));
        (void) setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof(one));
}

static int connection_try(RedisConnection *c) {
        const RedisAddress *a = &c->addresses[c->address];
        int r;

        c->fd = socket(a->socket.any.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        if (c->fd < 0)
                return -errno;
        socket_tune(c->fd, a->socket.any.sa_family);
        if (connect(c->fd, &a->socket.any, a->size) < 0 && errno != EINPROGRESS)
                return -errno;
        c->events = POLLOUT;
        r = sd_event_add_io(c->event, &c->io, c->fd, (uint32_t) c->events, on_io, c);
        if (r < 0)
                return r;
        c->state = CONNECTION_CONNECTING;
        return 0;
}

/* Goes on with the address at hand, or those behind it. */
static void connection_try_all(RedisConnection *c) {
        int r;

        for (;;) {
                r = connection_try(c);
                if (r == 0)
                        return;
                connection_close(c);
                if (c->address + 1 == c->n_addresses)
                        break;
                c->address++;
        }
        connection_fail_errno(c, r);
}

void redis_connection_start(RedisConnection *c, const RedisAddress *addresses, size_t n, SSL_CTX *tls,
                const char *host) {
        assert(c->state == CONNECTION_NEW && n > 0 && n <= REDIS_ADDRESSES_MAX);
        memcpy(c->addresses, addresses, n * sizeof(*addresses));
        c->n_addresses = n;
        c->tls_context = tls;
        c->host = host;
        connection_try_all(c);
}

bool redis_connection_is_started(const RedisConnection *c) {
        return c->state != CONNECTION_NEW;
}

int redis_connection_send(RedisConnection *c, const StateBytes *words, size_t n) {
        int r = redis_output_append(&c->output, words, n);

        if (r < 0)
                return r;
        if (c->state == CONNECTION_OPEN && !c->is_working && !(c->events & POLLOUT))
                connection_set_due(c);
        return 0;
}

void redis_connection_set_secret(RedisConnection *c) {
        c->output.is_secret = true;
}

static ssize_t connection_receive(RedisConnection *c, char *data, size_t size) {
        ssize_t n;

        if (c->tls)
                return redis_tls_receive(c->tls, data, size);
        n = recv(c->fd, data, size, 0);
        return n < 0 ? (errno == EINTR ? -EAGAIN : -errno) : n;
}

static ssize_t connection_transmit(RedisConnection *c) {
        const char *data = c->output.data + c->output.begin;
        size_t size = redis_output_size(&c->output);
        ssize_t n;

        if (c->tls)
                return redis_tls_send(c->tls, data, size);
        n = send(c->fd, data, size, MSG_NOSIGNAL);
        return n < 0 ? (errno == EINTR ? -EAGAIN : -errno) : n;
}

static void connection_fail_transfer(RedisConnection *c, int error) {
        if (error == -EPROTO && c->tls) {
                char text[STATE_TEXT_MAX];

                snprintf(text, sizeof(text), "%s", redis_tls_get_text(c->tls));
                connection_fail(c, -ENOTCONN, text);
        } else
                connection_fail_errno(c, error);
}

static void connection_fail_answer(RedisConnection *c, int error) {
        char text[STATE_TEXT_MAX];

        if (error == -ENOMEM)
                snprintf(text, sizeof(text), "no memory for an answer");
        else
                snprintf(text, sizeof(text), "found %.128s, expected an answer of a Redis server",
                                redis_reader_get_text(c->reader));
        connection_fail(c, error, text);
}

/* Every answer that is whole. */
static void connection_take(RedisConnection *c, const char *data, size_t size) {
        int r = redis_reader_feed(c->reader, data, size);

        while (r >= 0 && c->state == CONNECTION_OPEN) {
                redisReply *reply = NULL;

                r = redis_reader_next(c->reader, &reply);
                if (r <= 0)
                        break;
                c->handlers->replied(c, reply, c->userdata);
                freeReplyObject(reply);
        }
        if (r < 0)
                connection_fail_answer(c, r);
}

static void connection_read(RedisConnection *c) {
        char data[READ_SIZE];

        for (unsigned i = 0; i < READS_MAX && c->state == CONNECTION_OPEN; i++) {
                ssize_t n = connection_receive(c, data, sizeof(data));

                if (n == -EAGAIN)
                        return;
                if (n == 0)
                        connection_fail(c, -ENOTCONN, "the server has closed the connection");
                else if (n < 0)
                        connection_fail_transfer(c, (int) n);
                else
                        connection_take(c, data, (size_t) n);
                /* What a socket had left it would have given. TLS gives a record at a time. */
                if (!c->tls && n < (ssize_t) sizeof(data))
                        return;
        }
}

/* Why a server refuses what is sent to it may be in what it has sent before it closed. */
static void connection_fail_write(RedisConnection *c, int error) {
        connection_read(c);
        if (c->state == CONNECTION_OPEN)
                connection_fail_transfer(c, error);
}

static void connection_write(RedisConnection *c) {
        while (redis_output_size(&c->output) > 0) {
                ssize_t n = connection_transmit(c);

                if (n == -EAGAIN)
                        return;
                /* TLS: it has ended. */
                if (n <= 0) {
                        connection_fail_write(c, n < 0 ? (int) n : -ECONNRESET);
                        return;
                }
                redis_output_consume(&c->output, (size_t) n);
        }
}

static void connection_work(RedisConnection *c, short revents) {
        bool tls_writes;

        /* TLS may have to write in order to read, and the other way round. */
        if (revents != 0)
                connection_read(c);
        if (c->state == CONNECTION_OPEN)
                connection_write(c);
        if (c->state != CONNECTION_OPEN)
                return;
        tls_writes = c->tls && redis_tls_wants_to_write(c->tls);
        connection_set_events(c,
                        (short) (POLLIN | (redis_output_size(&c->output) > 0 || tls_writes ? POLLOUT : 0)));
}

static void connection_open(RedisConnection *c) {
        c->state = CONNECTION_OPEN;
        c->handlers->opened(c, &c->addresses[c->address], c->userdata);
        if (c->state == CONNECTION_OPEN)
                connection_work(c, 0);
}

static void connection_encrypt(RedisConnection *c) {
        int r;

        if (!c->tls)
                c->tls = redis_tls_new(c->tls_context, c->fd, c->host);
        if (!c->tls) {
                connection_fail_errno(c, -ENOMEM);
                return;
        }
        r = redis_tls_handshake(c->tls);
        if (r == -EAGAIN)
                connection_set_events(c, redis_tls_wants_to_write(c->tls) ? POLLOUT : POLLIN);
        else if (r < 0)
                connection_fail_transfer(c, r);
        else
                connection_open(c);
}

/* The attempt has ended. */
static void connection_connected(RedisConnection *c) {
        int error = 0;
        socklen_t size = sizeof(error);

        if (getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &error, &size) < 0)
                error = errno;
        if (error == 0 && c->tls_context) {
                c->state = CONNECTION_ENCRYPTING;
                connection_encrypt(c);
        } else if (error == 0)
                connection_open(c);
        else if (c->address + 1 < c->n_addresses) {
                connection_close(c);
                c->address++;
                connection_try_all(c);
        } else
                connection_fail_errno(c, -error);
}

static void connection_advance(RedisConnection *c, short revents) {
        switch (c->state) {
        case CONNECTION_CONNECTING:
                if (revents != 0)
                        connection_connected(c);
                break;
        case CONNECTION_ENCRYPTING:
                if (revents != 0)
                        connection_encrypt(c);
                break;
        case CONNECTION_OPEN:
                connection_work(c, revents);
                break;
        default:
                break;
        }
        if (c->state != CONNECTION_FAILED)
                return;
        c->state = CONNECTION_CLOSED;
        c->handlers->lost(c, c->error, c->text, c->userdata);
}

void redis_connection_dispatch(RedisConnection *c, short revents) {
        c->n_ref++;
        c->is_due = false;
        c->is_working = true;
        connection_advance(c, revents);
        c->is_working = false;
        connection_unref(c);
}

struct pollfd redis_connection_get_poll(const RedisConnection *c) {
        return (struct pollfd){ .fd = c->fd >= 0 ? c->fd : -1, .events = c->events };
}

bool redis_connection_is_due(const RedisConnection *c) {
        return c->is_due;
}
