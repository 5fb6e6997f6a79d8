/* SPDX-License-Identifier: MIT */
#pragma once

/* What is known of every connection, in memory that is shared with processes cloned from this one, so that
 * another process which has the same descriptors can go on with the connections.
 *
 * A record is found by the number of its descriptor, and its buffers by their index: there is no pointer in
 * here, and none outside that the records could not be read without. Buffers are of one size. The one that
 * was given back last is taken first, so that a loop which needs one or two at a time keeps using the same,
 * warm pages; connections that wait for a request own none. */

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

typedef struct Record {
        uint8_t state;     /* ConnectionState */
        uint8_t body;      /* RecordBody: what is still to come of the request's body */
        bool proxy;        /* a header of the PROXY protocol comes before anything else … */
        bool continue_due; /* the client waits for "100 Continue" before it sends the body */
        bool closing;      /* the last answer says that it is the last */
        bool linger;       /* the client may not have expected that: it must be given time to read it */
        bool half_closed;  /* it sends nothing more */
        bool broken;       /* cannot go on: to be closed without another word */

        /* What came: input_start … input_end of the buffer, beginning with a request. While it is being
         * answered its head stays where it is, and body_at is where the unread rest goes on. */
        uint32_t input, input_start, input_end;
        uint32_t head_size; /* 0: no request is being answered */
        uint32_t body_at;
        ParserScan scan;
        uint32_t proxy_left; /* … of which so many bytes are still to be skipped */
        uint64_t body_left;
        Chunked chunked;

        /* What is to be sent: output_start … output_end of the buffer, then file_left bytes of a file, then
         * the parts from number part on. */
        uint32_t output, output_start, output_end;
        int32_t file_fd;
        uint64_t file_offset, file_left;
        uint32_t parts; /* a buffer: n_parts of ResponsePart, then their texts */
        uint32_t part, n_parts, part_text, parts_text_size;

        ProxyAddress client; /* as the PROXY header says; AF_UNSPEC: the socket knows */
} Record;

typedef struct Table {
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

/* BUFFER_NONE when all are taken. */
uint32_t table_take_buffer(Table *t);

/* Takes BUFFER_NONE, returns BUFFER_NONE: `r->input = table_give_buffer(t, r->input);` */
uint32_t table_give_buffer(Table *t, uint32_t buffer);

static inline char *table_buffer(const Table *t, uint32_t buffer) {
        return t->buffers + (size_t) buffer * t->buffer_size;
}
