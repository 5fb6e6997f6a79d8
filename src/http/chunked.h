/* SPDX-License-Identifier: MIT */
#pragma once

/* A body in the chunked coding (RFC 9112, section 7.1), decoded a piece at a time. Pure, and nothing is
 * copied: what is found are pieces of the caller's buffer. */

#include <stddef.h>
#include <stdint.h>

#include "http/parser.h"

#define CHUNKED_EXTENSIONS_MAX (16 * 1024) /* bytes of all extensions of a body together */
#define CHUNKED_TRAILERS_MAX   (8 * 1024)  /* bytes of all lines of the trailer section */

/* All zero before the first byte. No pointers: it may lie in memory that another process looks at. */
typedef struct Chunked {
        uint8_t state;
        uint8_t n_digits;      /* of the size that is being read */
        uint32_t n_extensions; /* bytes of extensions */
        uint32_t n_trailers;   /* bytes of the trailer section, without the empty line */
        uint64_t left;         /* of the size that is being read, then of its chunk */
        uint64_t size;         /* bytes of data that were announced */
        uint64_t total;        /* bytes on the wire, framing and trailers included */
} Chunked;

/* What the last call found; nothing when size is 0. */
typedef struct ChunkedPiece {
        const char *data; /* inside the caller's buffer */
        size_t size;
        bool is_trailer; /* a line of the trailer section with its CRLF, or a part of one */
} ChunkedPiece;

/* Reads up to and with the next piece; *@ret_used of the @n bytes were needed for that, at least one of
 * them. PARSER_MORE: call again with what is left, or with more. PARSER_DONE: the body ends there. Else the
 * status to answer with: 400 it is malformed, 413 a chunk was announced with which the data would exceed
 * @max, 431 there are more than CHUNKED_TRAILERS_MAX bytes of trailers. The pieces that are trailers, put
 * together, are what chunked_next_trailer() reads; those of a body that turns out to be malformed are worth
 * nothing. */
int chunked_decode(Chunked *c, const char *buf, size_t n, uint64_t max, size_t *ret_used, ChunkedPiece *ret);

/* Reads up to @n bytes of a body that nobody wants; *@ret_used are part of it. As chunked_decode(), but @max
 * counts the bytes on the wire. */
int chunked_skip(Chunked *c, const char *buf, size_t n, uint64_t max, size_t *ret_used);

/* The field at offset *@i of the @n bytes of trailers; *@i moves behind it. False when there is none. */
bool chunked_next_trailer(const char *trailers, size_t n, size_t *i, HttpField *ret);
