/* SPDX-License-Identifier: MIT */
/* The chunked coding; see chunked.h.
 *
 * The limit counts bytes on the wire, so that extensions, trailers and chunks of one byte cannot stretch it.
 */

#include "http/chunked.h"

#include <assert.h>

#include "basic/macro.h"
#include "http/chars.h"
#include "http/parser.h"

enum {
        CHUNKED_SIZE_FIRST, /* a size needs at least one digit */
        CHUNKED_SIZE,
        CHUNKED_EXTENSION, /* ignored, as section 7.1.1 wants it, but without control characters */
        CHUNKED_SIZE_LF,
        CHUNKED_DATA,
        CHUNKED_DATA_CR,
        CHUNKED_DATA_LF,
        CHUNKED_TRAILER_FIRST, /* at the start of a line of the trailer section */
        CHUNKED_TRAILER,
        CHUNKED_TRAILER_LF,
        CHUNKED_END_LF,
        CHUNKED_END,
};

/* The state after @c of the size line, -1 if @c must not come here. */
static int size_line_next(Chunked *c, char byte) {
        int digit = char_hex_value(byte);

        if (digit >= 0) {
                if (c->left >> 59)
                        return -1; /* would not fit into 63 bits */
                c->left = c->left << 4 | (uint64_t) digit;
                return CHUNKED_SIZE;
        }
        if (c->state == CHUNKED_SIZE_FIRST)
                return -1;
        if (byte == '\r')
                return CHUNKED_SIZE_LF;
        return byte == ';' || byte == ' ' || byte == '\t' ? CHUNKED_EXTENSION : -1;
}

static int trailer_first_next(char byte) {
        if (byte == '\r')
                return CHUNKED_END_LF;
        return char_is_text(byte) && byte != ' ' && byte != '\t' ? CHUNKED_TRAILER : -1;
}

static int chunked_next(Chunked *c, char byte) {
        switch (c->state) {
        case CHUNKED_SIZE_FIRST:
        case CHUNKED_SIZE:
                return size_line_next(c, byte);
        case CHUNKED_EXTENSION:
                return byte == '\r' ? CHUNKED_SIZE_LF : char_is_text(byte) ? CHUNKED_EXTENSION : -1;
        case CHUNKED_SIZE_LF:
                return byte != '\n' ? -1 : c->left > 0 ? CHUNKED_DATA : CHUNKED_TRAILER_FIRST;
        case CHUNKED_DATA_CR:
                return byte == '\r' ? CHUNKED_DATA_LF : -1;
        case CHUNKED_DATA_LF:
                return byte == '\n' ? CHUNKED_SIZE_FIRST : -1;
        case CHUNKED_TRAILER_FIRST:
                return trailer_first_next(byte);
        case CHUNKED_TRAILER:
                return byte == '\r' ? CHUNKED_TRAILER_LF : char_is_text(byte) ? CHUNKED_TRAILER : -1;
        case CHUNKED_TRAILER_LF:
                return byte == '\n' ? CHUNKED_TRAILER_FIRST : -1;
        case CHUNKED_END_LF:
                return byte == '\n' ? CHUNKED_END : -1;
        default:
                assert(false);
                return -1;
        }
}

/* Steps over the data of a chunk at once. */
static size_t chunked_skip_data(Chunked *c, size_t n) {
        size_t k = (size_t) MIN((uint64_t) n, c->left);

        c->left -= k;
        if (c->left == 0)
                c->state = CHUNKED_DATA_CR;
        return k;
}

static int chunked_run(Chunked *c, const char *buf, size_t n, size_t *ret_used) {
        size_t i = 0;

        while (i < n && c->state != CHUNKED_END) {
                if (c->state == CHUNKED_DATA) {
                        i += chunked_skip_data(c, n - i);
                        continue;
                }
                int next = chunked_next(c, buf[i++]);
                if (next < 0)
                        return 400;
                c->state = (uint8_t) next;
        }
        *ret_used = i;
        return c->state == CHUNKED_END ? PARSER_DONE : PARSER_MORE;
}

int chunked_skip(Chunked *c, const char *buf, size_t n, uint64_t max, size_t *ret_used) {
        int r;

        r = chunked_run(c, buf, n, ret_used);
        if (r >= 400)
                return r;
        c->total += *ret_used;

        /* A chunk that cannot fit any more is refused when it is announced, not after it was read. */
        if (c->total > max || (c->state == CHUNKED_DATA && c->left > max - c->total))
                return 413;
        return r;
}
