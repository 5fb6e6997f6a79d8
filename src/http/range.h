/* SPDX-License-Identifier: MIT */
#pragma once

/* The Range field of a request (RFC 9110, section 14), applied to a representation of known size. Pure. */

#include <stddef.h>
#include <stdint.h>

#define RANGE_PARTS_MAX 64

typedef struct RangePart {
        uint64_t offset;
        uint64_t length; /* never 0 */
} RangePart;

typedef struct RangeSet {
        unsigned n;
        RangePart parts[RANGE_PARTS_MAX];
} RangeSet;

/* Outcomes of range_parse(). */
#define RANGE_IGNORED       0   /* the whole is to be sent, as if nobody had asked for a part */
#define RANGE_PARTIAL       206 /* @ret has at least one part */
#define RANGE_UNSATISFIABLE 416

/* Reads the field's value. What is malformed, in another unit, or asks for more than RANGE_PARTS_MAX parts
 * is ignored. Parts that overlap or touch are made one, at the place of the first of them, so that no set of
 * ranges makes an answer larger than the whole by more than the texts between the parts; several that come
 * to the whole are answered with the whole. The parts are in no order but that of the request. */
unsigned range_parse(const char *s, size_t n, uint64_t size, RangeSet *ret);

/* "bytes 0-9/10" for Content-Range; without a part what 416 says, which has an asterisk in the place of the
 * range. Returns its length. */
#define RANGE_TEXT_MAX 72
size_t range_format(const RangePart *part, uint64_t size, char ret[static RANGE_TEXT_MAX]);
