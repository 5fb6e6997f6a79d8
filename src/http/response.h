/* SPDX-License-Identifier: MIT */
#pragma once

/* An answer, as a handler describes it, and its head as it goes on the wire.
 *
 * Date, Content-Length, Transfer-Encoding and Connection belong to the framing and are written here; all
 * other fields are the handler's. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "http/date.h"

#define RESPONSE_FIELDS_MAX    8192 /* all fields of the handler together */
#define RESPONSE_FIELDS_INLINE 512
#define RESPONSE_PAGE_MAX      512
#define RESPONSE_PARTS_MAX     64

/* A head always fits into this. */
#define RESPONSE_HEAD_MAX (RESPONSE_FIELDS_MAX + 256)

#define RESPONSE_SIZE_UNKNOWN UINT64_MAX

typedef enum ResponseBody {
        RESPONSE_BODY_NONE,
        RESPONSE_BODY_MEMORY,
        RESPONSE_BODY_FILE,
        RESPONSE_BODY_PARTS, /* pieces of a file with text before, between and behind them */
        RESPONSE_BODY_STREAM,
} ResponseBody;

/* One piece of a file and the text before it. */
typedef struct ResponsePart {
        uint64_t offset, length;
        uint32_t text_size;
} ResponsePart;

/* Keeps a descriptor open for as long as something is sent from it; part of whatever owns it. */
typedef struct FileHold FileHold;

struct FileHold {
        void (*release)(FileHold *hold);
};

typedef struct Response {
        unsigned status; /* 200 … 599 */
        ResponseBody body;
        uint64_t size;        /* of the body; a STREAM's may be RESPONSE_SIZE_UNKNOWN */
        const char *memory;   /* MEMORY: the body. PARTS: the texts one after the other, the one behind the
                                 last   part included. Borrowed until the answer is given */
        uint32_t memory_size; /* PARTS: of all texts */
        int fd;               /* FILE, PARTS: owned, or kept open by the hold, which is owned then */
        FileHold *hold;
        uint64_t offset;           /* FILE: where the body begins */
        const ResponsePart *parts; /* PARTS: borrowed until the answer is given */
        unsigned n_parts;

        /* "Name: value\r\n" … as it goes on the wire. */
        char *fields; /* inline_fields, or a block of RESPONSE_FIELDS_MAX */
        uint32_t fields_size;
        char inline_fields[RESPONSE_FIELDS_INLINE];
        char page[RESPONSE_PAGE_MAX]; /* of response_set_error() */
} Response;

/* What the head says about the connection and the body. */
typedef struct ResponseFraming {
        const char *date; /* DATE_LENGTH characters */
        bool old_client;  /* HTTP/1.0: must be told when the connection stays open */
        bool keep_alive;
        bool chunked;
        bool has_length; /* Content-Length is the response's size */
} ResponseFraming;

void response_init(Response *r);
void response_done(Response *r);

/* Lets go of the fields, so that new ones can be added. */
void response_clear_fields(Response *r);

/* Appends a field. -EINVAL: the name is no token or belongs to the framing, or there is a control character
 * in the value (RFC 9110, section 5.5); -ENOBUFS: all fields together would be more than
 * RESPONSE_FIELDS_MAX. */
int response_add_field(Response *r, const char *name, const char *value);

/* Sets the Content-Type, of which there is one (RFC 9110, section 8.3), in place of what was added before.
 * As response_add_field(). */
int response_set_type(Response *r, const char *type);

/* Appends fields in their wire form, which are trusted. */
int response_add_raw(Response *r, const char *fields, size_t n);

/* Makes a small page of the status, with nothing in it that came from the client. Fields that were added
 * stay. */
void response_set_error(Response *r, unsigned status);

/* The same with other words than the status's own. */
void response_set_error_text(Response *r, unsigned status, const char *text);

/* Whether an answer of this status has a body, and a Content-Length, at all (RFC 9110, section 6.4.1). */
bool response_status_has_body(unsigned status);

/* Writes the head; returns its length. */
size_t response_write_head(
                const Response *r, const ResponseFraming *framing, char buf[static RESPONSE_HEAD_MAX]);

/* The phrase of a status, "Unknown" where none is registered. */
const char *response_phrase(unsigned status);
