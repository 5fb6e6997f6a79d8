/* SPDX-License-Identifier: MIT */
#pragma once

/* One client's connection: a state machine that is told when its socket is ready or its time is over, and
 * says what it waits for next. It knows nothing of the loop that drives it.
 *
 * What another process would need to go on with it is in its record (table.h); the rest is in here and can
 * be made anew. */

#include <stdbool.h>
#include <stdint.h>

#include "http/exchange.h"
#include "http/server.h"
#include "http/table.h"

typedef enum ConnectionState {
        CONNECTION_FREE,      /* no connection: what a fresh record holds */
        CONNECTION_IDLE,      /* between requests; owns no buffer */
        CONNECTION_READING,   /* has a part of a request's head */
        CONNECTION_BODY,      /* reads a body */
        CONNECTION_HANDLING,  /* waits for the handler */
        CONNECTION_SENDING,   /* has an answer that is not with the kernel yet */
        CONNECTION_LINGERING, /* has said its last word and waits for the client to close */
        CONNECTION_CLOSING,   /* the socket is about to be closed, and was not that of another one yet */
        _CONNECTION_STATE_MAX,
} ConnectionState;

/* What to wait for, besides errors: any of the first three, or the last. */
typedef enum ConnectionWant {
        CONNECTION_WANT_NOTHING = 0,
        CONNECTION_WANT_READ = 1 << 0,
        CONNECTION_WANT_WRITE = 1 << 1,
        CONNECTION_WANT_HANGUP = 1 << 2, /* the end of what the client sends */
        CONNECTION_WANT_CLOSE = 1 << 3,  /* call connection_done() */
} ConnectionWant;

struct Connection {
        Server *server;
        Record *record;
        Exchange *exchange; /* the one that is not finished; else NULL */
        int fd;
        bool watched;    /* for the loop: epoll knows it … */
        uint32_t events; /* … and was told this */
        bool handed;     /* likewise: by another process, which may not have closed it yet */
        Timeout timeout;
        List runnable;     /* something happened to it outside of its turn */
        uint64_t armed_at; /* when the deadline was set */
        uint32_t progress; /* bytes that went over since then */
        uint32_t input;    /* the buffer in which record->input_start … lie */
        bool moved;        /* what comes next would not lie where the commit that holds expects it … */
        bool unsaid;       /* … and something is to be sent of which it does not know */
        bool continued;    /* the client was told to send the body */
        bool gap;          /* the beginning of the body is not in the input any more … */
        int spool_fd;      /* … but here, in a file without a name; -EBADF: nowhere … */
        uint64_t spooled;  /* … so much of it … */
        bool blind;        /* … or not all of it: no other process can run the request again */
        uint32_t replay;   /* of a request that is run again: a buffer for what is read from there … */
        uint64_t replay_at, replay_end; /* … as far as the handler has not been given it in this process */
        bool resumes;   /* the answer to the first request is a stream that another process has begun */
        int file_fd;    /* of the rest of an answer whose process has died; else -EBADF */
        bool answered;  /* a request was taken up since the deadline was set: what follows has a new one */
        bool measured;  /* whether the next is known */
        int64_t unsent; /* what the kernel held when the deadline was set */
};

/* Takes over a connected, non-blocking socket, and touches it. -EMFILE: its number is beyond the table; the
 * caller still owns it. */
int connection_open(Server *server, int fd, Connection **ret);

/* Closes the socket and gives everything back. */
void connection_done(Connection *c);

/* The socket can be read or written, or is broken (@hung_up: epoll says so; @half_closed: the client sends
 * nothing more), or server_next_runnable() gave the connection: it finds out what there is to do. */
ConnectionWant connection_ready(Connection *c);
ConnectionWant connection_hung_up(Connection *c, bool half_closed);

/* Around everything that is done to a connection, up to when epoll knows what it waits for: somebody who
 * finds it untouched finds it as epoll does. */
static inline void connection_touch(Connection *c) {
        atomic_store_explicit(&c->record->busy, 1, memory_order_release);
}

static inline void connection_settle(Connection *c) {
        atomic_store_explicit(&c->record->busy, 0, memory_order_release);
}

/* From here on the connection is closed by whoever has its descriptor: before connection_done(). */
static inline void connection_begin_close(Connection *c) {
        atomic_store_explicit(&c->record->state, CONNECTION_CLOSING, memory_order_release);
}

/* server_next_expired() gave this connection's timeout. */
ConnectionWant connection_expired(Connection *c);

static inline Connection *connection_from_timeout(Timeout *t) {
        return CONTAINER_OF(t, Connection, timeout);
}
