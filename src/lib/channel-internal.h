/* SPDX-License-Identifier: MIT */
#pragma once

/* The inside of a channel, which is in three parts: channel.c is what the application sees, its life and its
 * event sources; channel-receive.c turns bytes and descriptors into messages; channel-send.c is the way out,
 * with what waits. */

#include <stdbool.h>
#include <sys/uio.h>

#include "basic/list.h"
#include "ipc/line-buffer.h"
#include "ipc/wire.h"
#include "lib/io-watch.h"
#include "muster/channel.h"

/* Node's envelope, with the key that it adds to a connection. */
#define CHANNEL_ENVELOPE_MAX 512

/* So many descriptors may be under way without an acknowledgement; further ones wait. */
#define CHANNEL_UNACKED_MAX 1024

/* No peer has so many under way; one that does not read what it is told is not remembered for more. */
#define CHANNEL_OWN_WAITING_MAX (16 * CHANNEL_UNACKED_MAX)

typedef enum ChannelState {
        CHANNEL_OPEN,
        CHANNEL_ENDING, /* the application wants to disconnect; what waits goes first */
        CHANNEL_ENDED,  /* the socket is closed */
} ChannelState;

/* A line on its way out that cannot be forgotten yet: it waits for room in the socket, for an
 * acknowledgement of its descriptor, or for its handler to be called. */
typedef struct Outgoing {
        List node;
        int fd;         /* a duplicate, until it is sent */
        bool is_own;    /* an acknowledgement */
        bool is_handle; /* it has, or had, a descriptor */
        int error;      /* for the handler */
        muster_channel_sent_handler_t handler;
        void *userdata;
        size_t size; /* of data */
        size_t sent;
        char data[];
} Outgoing;

/* A descriptor that has arrived, and where the line begins that it belongs to. */
typedef struct Arrival {
        int fd;
        uint64_t line_offset;
} Arrival;

struct muster_message {
        const char *json;
        size_t length;
        int fd;
        int handle_type;
};

struct muster_channel {
        unsigned n_ref;
        int fd;
        ChannelState state;
        uint64_t flags;
        size_t max_message_bytes;
        size_t max_queue_bytes;

        sd_event *event;          /* counted; NULL: not on a loop yet */
        IoWatch io;               /* the socket */
        sd_event_source *retry;   /* when the socket does not say that sending is possible again */
        uint64_t retry_usec;      /* the pause, growing while it fails; 0: none is needed */
        sd_event_source *pending; /* handlers to be called without an event of the socket; NULL: none */

        muster_channel_handlers handlers;
        void *userdata;
        bool has_handlers;
        bool is_paused;
        bool peer_exited;
        void (*on_ended)(void *owner); /* for the child that it belongs to */
        void *owner;

        LineBuffer in;
        Arrival arrivals[2]; /* of the line under way, and of one that begins in the same read as that ends
                              */
        unsigned n_arrivals;

        List waiting;  /* Outgoing: not (wholly) sent, in order */
        List unacked;  /* Outgoing: descriptors sent, in order */
        List finished; /* Outgoing: their handlers are to be called */
        size_t queued_bytes;
        size_t queued_memory; /* with what it takes to keep them */
        unsigned n_own;       /* of those that wait: acknowledgements */
        unsigned n_unacked;
        bool drain_due; /* the application waits for "drained" */
        int broken;     /* why nothing can be sent any more; 0: it can */
};

/* Whether nobody but the event handler under way holds the channel: then nobody wants to hear of it. */
static inline bool channel_is_dropped(const muster_channel *c) {
        return c->n_ref == 1;
}

/* Makes the event sources fit the state. A failure to do so ends the channel from the loop. */
void channel_update(muster_channel *c);

/* From the loop only: closes the socket, and tells everybody. */
void channel_end(muster_channel *c, int error);

/* Reads once and hands out what is complete. Calls handlers: see channel_is_dropped(). Returns 0, or the
 * negative errno that ends the channel, or 1 at the end of the stream. */
int channel_receive(muster_channel *c);

/* From the loop: hands out all that has arrived, of a peer that has ended. Whoever inherited its end and
 * writes on could go on for ever, so what is read is no more than what is there. */
void channel_receive_rest(muster_channel *c);

void channel_close_arrivals(muster_channel *c);

/* Sends a line given in pieces, or puts what the socket does not take behind what waits. @fd is duplicated
 * if it has to wait. @o is NULL or has room for no data and is owned by the queue on success. Returns 0, 1
 * when it waits, or a negative errno: then nothing was sent. */
int channel_send_pieces(muster_channel *c, const struct iovec *iov, int n_iov, int fd, Outgoing *o);

/* A line of our own, which is never refused but for memory or a peer that does not read. */
int channel_send_line(muster_channel *c, const char *line);

/* Sends what waits, as far as it goes. Calls no handler. */
void channel_flush(muster_channel *c);

/* An acknowledgement has come: 0 or -EREMOTEIO. False: nobody has waited for it. */
bool channel_acknowledge(muster_channel *c, int error);

/* All that waits, for whatever, has failed. */
void channel_fail_outgoing(muster_channel *c, int error);

/* Calls the handlers of what is finished, and "drained". */
void channel_call_sent_handlers(muster_channel *c);

Outgoing *outgoing_free(Outgoing *o);

/* For the child that a channel belongs to: who is told of the end after the application. */
void channel_set_owner(muster_channel *c, void (*on_ended)(void *owner), void *owner);

/* From the loop: the process at the other end has ended. A channel that nobody listens to ends with it;
 * another one when all that was sent is read. */
void channel_peer_exited(muster_channel *c);

static inline bool channel_is_ended(const muster_channel *c) {
        return c->state == CHANNEL_ENDED;
}
