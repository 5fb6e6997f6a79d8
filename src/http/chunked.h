/* SPDX-License-Identifier: MIT */
#pragma once

/* Finds the end of a body in the chunked coding (RFC 9112, section 7.1), a piece at a time. Pure. */

#include <stddef.h>
#include <stdint.h>

/* All zero before the first byte. */
typedef struct Chunked {
        uint8_t state;
        uint64_t left;  /* of the size that is being read, then of its chunk */
        uint64_t total; /* bytes seen, framing and trailers included */
} Chunked;

/* Reads up to @n bytes; *@ret_used are part of the body. Returns PARSER_MORE (all were), PARSER_DONE, 400
 * when it is malformed, or 413 when the body takes more than @max bytes on the wire. */
int chunked_skip(Chunked *c, const char *buf, size_t n, uint64_t max, size_t *ret_used);
