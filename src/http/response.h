/* SPDX-License-Identifier: MIT */
#pragma once

/* An answer, as a handler describes it, and its head as it goes on the wire. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "http/file.h"

#define RESPONSE_TEXT_MAX     1024
#define RESPONSE_LOCATION_MAX 2048

/* A head and a body held in memory always fit into this. */
#define RESPONSE_MAX 4096

typedef struct Response {
        unsigned status;
        int fd;                   /* the body, owned; -EBADF: it is in text */
        uint64_t size;            /* of the body */
        int64_t last_modified;    /* -1: not known */
        const char *content_type; /* static strings; NULL: the field is left out */
        const char *cache_control;
        const char *allow;
        char etag[FILE_ETAG_MAX];             /* empty: none */
        char location[RESPONSE_LOCATION_MAX]; /* likewise */
        char text[RESPONSE_TEXT_MAX];
} Response;

/* What the head says about the connection. */
typedef struct ResponseFraming {
        const char *date;
        bool old_client; /* HTTP/1.0: must be told when the connection stays open */
        bool keep_alive;
} ResponseFraming;

void response_init(Response *r);
void response_done(Response *r);

/* Makes a small page of the status, with nothing in it that came from the client. The fields that were set
 * stay. */
void response_set_error(Response *r, unsigned status);

/* Writes the head into RESPONSE_MAX bytes; returns its length. */
size_t response_write_head(const Response *r, const ResponseFraming *framing, char buf[static RESPONSE_MAX]);

/* The phrase of a status, "Unknown" if we never send it. */
const char *response_phrase(unsigned status);
