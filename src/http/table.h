/* SPDX-License-Identifier: MIT */
#pragma once

/* What is known of every connection, in memory that is shared with processes cloned from this one, so that
 * another process which has the same descriptors can go on with the connections.
 *
 * A record is found by the number of its descriptor, and its buffers by their index: there is no pointer in
 * here, and none outside that the records could not be read without. Buffers are of one size. The one that
 * was given back last is taken first, so that a loop which needs one or two at a time keeps using the same,
 * warm pages; connections that wait for a request own none. */

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "basic/proxy-protocol.h"
#include "http/chunked.h"
#include "http/parser.h"

#define BUFFER_NONE UINT32_MAX

typedef enum RecordBody {
        RECORD_BODY_NONE, /* there is none, or it has been read to its end */
        RECORD_BODY_LENGTH,
        RECORD_BODY_CHUNKED,
} RecordBody;

/* What is left to be sent, in this order: bytes of a buffer, of a file, and the parts from number part on.
 */
typedef struct Outgoing {
        uint32_t buffer, start, end;
        int32_t file_fd;
        uint64_t file_offset, file_left;
        uint32_t parts; /* a buffer: n_parts of ResponsePart, then their texts */
        uint32_t part, n_parts, part_text, parts_text_size;
} Outgoing;

/* What is still to come of a request's body. */
typedef struct BodyRest {
        uint8_t kind; /* RecordBody */
        uint64_t left;
        Chunked chunked;
} BodyRest;

/* A state from which any process can go on, by what the kernel has counted (twin/truth.h): bytes of the
 * client are numbered from 0 as they were read, and bytes to it as they were sent.
 *
 * What of a request's body does not fit into the buffer any more is kept in a file without a name, from the
 * body's first byte on, if the request may be run again. */
typedef struct Commit {
        uint64_t received;        /* the first byte of the first request that has no answer yet … */
        uint32_t input, input_at; /* … lies there; BUFFER_NONE: at the front of the record's input */
        uint64_t tail; /* the byte from which on what came lies at tail_at: that of a body before it
                          may be gone (gap) */
        uint32_t tail_at;
        int32_t spool_fd; /* where it is then; -EBADF: nowhere */
        uint64_t sent;    /* the first byte of: */
        Outgoing out;
        BodyRest body; /* of a request that was answered: passed over before the next one */
        uint32_t proxy_left;
        bool proxy;
        bool gap;
        bool continued; /* the client was told to send the body */
        bool closing, linger;
        bool broken;  /* nobody goes on with it */
        bool streams; /* the answer has begun, with the byte stream_start, and the handler goes on … */
        bool stream_resumes; /* … if it can, from the state that lies there in the record's state buffer */
        bool stream_chunked;
        uint32_t stream_at, stream_size;
        uint64_t stream_start, stream_body; /* of its head, and behind that */
        uint64_t stream_left;
} Commit;

/* A request on which there is so much blame is given to nobody any more. That are three deaths of the app's
 * own doing; one that may have come from outside, as the OOM killer's does, weighs half of that, or requests
 * would be refused for what happens to others. */
#define RECORD_BLAME_MAX   6
#define RECORD_BLAME_CRASH 2
#define RECORD_BLAME_KILL  1

typedef struct Record {
        /* What another process goes on from. Of the two commits that one holds which `commit` names; the
         * other one is filled, and then named by one store. */
        _Atomic uint8_t state; /* ConnectionState */
        _Atomic uint8_t busy;  /* somebody is at it, and epoll may not know what it waits for */
        _Atomic uint8_t commit;
        _Atomic uint8_t in_call; /* what that call has moved is not counted yet */
        uint8_t blame;           /* for deaths in a row, on the request at suspect */
        uint32_t input;          /* what came is in this buffer … */
        uint32_t stream_state;   /* a buffer with two states of a stream, used in turns */
        uint64_t id;             /* of the connection; no other one of its keeper has it */
        uint64_t received, sent; /* bytes, for sockets of which the kernel does not count them */
        uint64_t handling;       /* the request that was given to the handler: its first byte + 1 */
        uint64_t at_work;        /* likewise: the one it was given last, which may be an earlier one */
        uint64_t keyed;          /* likewise: it may be run again, whatever it does */
        uint64_t suspect, suspect_sent; /* that had come so far with its answer */
        ProxyAddress client;            /* as the PROXY header says; AF_UNSPEC: the socket knows */
        Commit commits[2];

        /* What the process makes of it that is at work. */
        bool proxy;        /* a header of the PROXY protocol comes before anything else … */
        bool continue_due; /* the client waits for "100 Continue" before it sends the body */
        bool closing;      /* the last answer says that it is the last */
        bool linger;       /* the client may not have expected that: it must be given time to read it */
        bool half_closed;  /* it sends nothing more */
        bool broken;       /* cannot go on: to be closed without another word */

        /* … from input_start to input_end, beginning with a request. While it is being answered its head
         * stays where it is, and body_at is where the unread rest goes on. */
        uint32_t input_start, input_end;
        uint32_t head_size; /* 0: no request is being answered */
        uint32_t body_at;
        ParserScan scan;
        uint32_t proxy_left; /* … of which so many bytes are still to be skipped */
        BodyRest body;
        Outgoing out;
} Record;

/* In front of the records. */
typedef struct TableHead {
        uint64_t boot; /* random: by it what has an id differs from that of other tables */
        uint64_t next_id;
} TableHead;

typedef struct Table {
        TableHead *head;
        unsigned n_records;
        Record *records;
        size_t buffer_size;
        unsigned n_buffers;
        char *buffers;
        unsigned n_taken; /* buffers that were ever used: the first ones */
        uint32_t *spare;  /* a stack of those that nobody has now; the lowest of them own no memory */
        unsigned n_spare;
        unsigned n_warm; /* how many at the top do */
} Table;

/* Address space for descriptors 0 … @n_descriptors - 1 and @n_buffers buffers of at least @buffer_size;
 * memory is taken as it is used. */
int table_init(Table *t, unsigned n_descriptors, unsigned n_buffers, size_t buffer_size);
void table_done(Table *t);

/* An id that no connection of this table had before, in whatever process. */
uint64_t table_next_id(Table *t);

/* Takes exactly those buffers that @is_used has a bit for: what another process had taken is found out from
 * the records. */
void table_restore_buffers(Table *t, const uint64_t *is_used);

/* BUFFER_NONE when all are taken. */
uint32_t table_take_buffer(Table *t);

/* Takes BUFFER_NONE, returns BUFFER_NONE: `r->input = table_give_buffer(t, r->input);` */
uint32_t table_give_buffer(Table *t, uint32_t buffer);

static inline char *table_buffer(const Table *t, uint32_t buffer) {
        return t->buffers + (size_t) buffer * t->buffer_size;
}
