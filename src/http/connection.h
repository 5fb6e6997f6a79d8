/* SPDX-License-Identifier: MIT */
#pragma once

/* One client's connection: a state machine that is told when its socket is ready or its time is over, and
 * says what it waits for next. It knows nothing of the loop that drives it. */

#include <stdbool.h>
#include <stdint.h>

#include "http/chunked.h"
#include "http/parser.h"
#include "http/server.h"

/* A body of this many bytes is skipped (nothing here takes one), a larger one is refused with 413. */
#define CONNECTION_BODY_MAX (64 * 1024)

typedef enum ConnectionState {
        CONNECTION_IDLE,      /* between requests; owns no buffer */
        CONNECTION_READING,   /* has a part of a request's head or body */
        CONNECTION_SENDING,   /* has an answer that is not with the kernel yet */
        CONNECTION_LINGERING, /* has said its last word and waits for the client to close */
        _CONNECTION_STATE_MAX,
} ConnectionState;

typedef enum ConnectionWant {
        CONNECTION_WANT_READ,
        CONNECTION_WANT_WRITE,
        CONNECTION_WANT_CLOSE, /* call connection_done() */
} ConnectionWant;

typedef struct Connection {
        Server *server; /* borrowed */
        int fd;
        ConnectionState state;
        Timeout timeout;

        /* What came and is not answered: input[input_start … input_end), beginning with a request. */
        char *input; /* of the server's pool, NULL while nothing is there */
        uint32_t input_start, input_end;
        ParserScan scan;
        bool in_body; /* the head is complete and stays in the buffer until its body has passed by behind it
                       */
        uint32_t head_size;
        uint64_t body_left; /* unless chunked_body */
        bool chunked_body;
        Chunked chunked;

        /* What is to be sent: output[output_start … output_end), then file_left bytes of a file. */
        char *output; /* likewise */
        uint32_t output_start, output_end;
        int file_fd;
        uint64_t file_offset, file_left;
        uint32_t progress; /* given to the kernel since the deadline was set */
        bool measured;     /* whether the next is known */
        int64_t unsent;    /* what the kernel held when the deadline was set */

        bool closing;       /* the last answer in the output says that it is the last */
        bool linger;        /* the client may not have expected that: it must be given time to read it */
        uint32_t n_drained; /* bytes thrown away while lingering */
} Connection;

/* Takes over a connected, non-blocking socket. */
void connection_init(Connection *c, Server *server, int fd);

/* Closes the socket and gives everything back. */
void connection_done(Connection *c);

/* The socket can be read or written, or is broken: the connection finds out which. */
ConnectionWant connection_ready(Connection *c);

/* server_next_expired() gave this connection's timeout. */
ConnectionWant connection_expired(Connection *c);

static inline Connection *connection_from_timeout(Timeout *t) {
        return CONTAINER_OF(t, Connection, timeout);
}
