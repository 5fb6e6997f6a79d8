/* SPDX-License-Identifier: MIT */
#pragma once

/* One request and its answer, as a handler sees them.
 *
 * A handler is called with the head of a request, and finishes the exchange in that call or at any later
 * time by exactly one of exchange_respond(), exchange_end() (after exchange_begin()) and exchange_abort().
 * After that the exchange is gone. A client that leaves does not end it: what is still said goes nowhere. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/types.h>

#include "basic/proxy-protocol.h"
#include "http/parser.h"
#include "http/response.h"

typedef struct Connection Connection;
typedef struct Server Server;
typedef struct Exchange Exchange;

#define EXCHANGE_STATE_MAX 256
#define EXCHANGE_ID_SIZE   48

typedef struct Handler {
        /* HEAD is answered like GET; the body is left out by the core. */
        void (*request)(void *userdata, Exchange *x);
        void *userdata;
        /* Descriptors lack. Returns whether it has closed some that it had kept. NULL: it keeps none. */
        bool (*give_way)(void *userdata);
        bool reruns;     /* any request may be run again, as if it had asked for its id at once */
        unsigned n_kept; /* how many it keeps at most */
} Handler;

typedef enum ExchangePhase {
        EXCHANGE_OPEN,    /* the handler owes an answer */
        EXCHANGE_STREAM,  /* it gives the answer piece by piece */
        EXCHANGE_SENDING, /* it has finished, and a file is being sent */
} ExchangePhase;

struct Exchange {
        Server *server;
        uint64_t number; /* of this request among those of the worker, from 1 */

        /* The handler's, all of them may be NULL. None is called after it has finished. */
        void *userdata;
        void (*on_body)(Exchange *x, const char *data, size_t n); /* a piece of the body, n > 0 */
        /* 0: that was all. Or it will never be: -EMSGSIZE (too much), -EBADMSG (malformed), -ETIMEDOUT,
         * -ECONNRESET, -ECANCELED (exchange_gone_error()). */
        void (*on_body_end)(Exchange *x, int error);
        void (*on_writable)(Exchange *x); /* exchange_write() took less than all, and there is room again */
        void (*on_gone)(Exchange *x);     /* an early word that the client has left */

        /* The core's. */
        Connection *connection; /* NULL: the client has gone */
        ExchangePhase phase;
        bool reading;     /* the handler wants the body */
        bool paused;      /* but not now */
        bool blocked;     /* on_writable is due */
        bool chunked;     /* how the answer is framed */
        bool headless;    /* HTTP/1.0 client: the close ends the body */
        bool no_body;     /* the answer to HEAD and the like */
        bool aborted;     /* for the log: the answer did not come to its end */
        bool replaced;    /* likewise: by one of the core, which is logged instead */
        bool staged;      /* of a stream: what is behind `covered` in the output waits for a checkpoint */
        uint32_t covered; /* up to there another process can go on from the state … */
        uint64_t covered_left;         /* … with so much left of what was announced */
        uint32_t state_at, state_size; /* in the record's state buffer */
        uint64_t stream_start,
                        stream_body; /* the first byte of the answer, counted from the connection's first */
        uint64_t id_connection, id_offset; /* by which the request is known to all processes */
        uint64_t body_max;                 /* of the request */
        uint64_t body_read;
        uint64_t left;   /* of the stream's Content-Length */
        uint64_t sent;   /* bytes of the answer's body, for the log */
        uint64_t began;  /* when the head was complete */
        char *kept_head; /* of a client that has gone */
        ProxyAddress kept_peer;
        char *trailers; /* "name: value\r\n" … of the request */
        size_t trailers_size;
        Exchange *next_spare;

        /* Large, and cleared as far as they are used. */
        Response response;   /* initialised: 200, no body */
        HttpRequest request; /* offsets count from exchange_head() */
};

/* The bytes of the request's head; they stay in place until the exchange is finished. */
const char *exchange_head(const Exchange *x);

/* Those bytes; or what there is instead of them when the core itself answers what is no request. */
const char *exchange_received(const Exchange *x, size_t *ret_size);

/* The value of the first field of that name (lower case); false if there is none. */
bool exchange_field(const Exchange *x, const char *name, const char **ret, size_t *ret_size);

/* Likewise of the trailer section, which is known after on_body_end(0). */
bool exchange_trailer(const Exchange *x, const char *name, const char **ret, size_t *ret_size);

/* Where the client is: as the proxy in front says, else as the socket says. Returns the size, or a negative
 * errno. */
ssize_t exchange_peer(const Exchange *x, struct sockaddr_storage *ret);

/* Sends x->response as a whole and finishes. What is lacking for that is answered with 500 or 503. */
void exchange_respond(Exchange *x);

/* Makes a page of the status and finishes. */
void exchange_respond_status(Exchange *x, unsigned status);

/* From here on on_body and on_body_end are called, never within this call. A body of more than @max bytes
 * is not read to its end. Without this call a body is passed over. */
void exchange_read_body(Exchange *x, uint64_t max);

/* Back-pressure: nothing more is read from the client until it is lifted. */
void exchange_pause_body(Exchange *x, bool paused);

/* Sends the head of a response whose body is a stream. -ECONNRESET: the client has gone. */
int exchange_begin(Exchange *x);

/* Returns how many of the bytes were taken; on_writable follows when it is not all. -ECONNRESET: the client
 * has gone; -EMSGSIZE: that would be more than the size which was announced. */
ssize_t exchange_write(Exchange *x, const void *data, size_t n);

/* How many bytes exchange_write() would take at least. */
size_t exchange_room(const Exchange *x);

/* A field behind the body of a stream of unknown size; of no effect for clients that cannot be sent one. */
int exchange_add_trailer(Exchange *x, const char *name, const char *value);

/* What was written so far is complete, and another process can go on from @state, which it gets by
 * exchange_get_checkpoint() when its handler is called with the request. From here on what is written is
 * sent when the next checkpoint or the end covers it, or when there is no more room for it; after the latter
 * nobody can go on before the next checkpoint. -EINVAL: the stream has not begun; -EMSGSIZE: @size is more
 * than EXCHANGE_STATE_MAX; -ENOMEM; -ECONNRESET: the client has gone. */
int exchange_checkpoint(Exchange *x, const void *state, size_t size);

/* The handler is to go on with a stream: exchange_begin() and the fields will say nothing more to the
 * client. Copies the state of the last checkpoint, as much of it as fits. False: it is to begin. */
bool exchange_get_checkpoint(const Exchange *x, void *state, size_t room, size_t *ret_size);

/* A name that no other request has, and that stays the same when another process runs it again. */
void exchange_get_id(const Exchange *x, char ret[static EXCHANGE_ID_SIZE]);

/* From here on that is allowed, whatever the method. The beginning of a large body may be gone by then: this
 * is to be called before it is read. */
void exchange_allow_rerun(Exchange *x);

/* The stream is complete. If it is shorter than was announced the connection is closed. */
void exchange_end(Exchange *x);

/* Closes the connection, by which the client sees that the answer is not complete. Those to earlier requests
 * are. */
void exchange_abort(Exchange *x);

static inline bool exchange_is_gone(const Exchange *x) {
        return !x->connection;
}

/* Why it has gone: -ECONNRESET, or -ECANCELED when the process ends. */
int exchange_gone_error(const Exchange *x);
