/* SPDX-License-Identifier: MIT */
/* The chunked coding; see chunked.h.
 *
 * The grammar is read to the letter, also where the result is of no interest: every known disagreement about
 * where a chunk begins came from a lenient reading of what follows its size. Extensions are checked and
 * ignored (section 7.1.1); white space around them, which the grammar calls bad and a sender must not send,
 * is refused.
 *
 * Every byte of framing is paid for by a byte of data or counted against a limit, so that a body cannot be
 * stretched without end: a size has at most 16 digits, and all extensions, and all trailers, have a limit of
 * their own. */

#include "http/chunked.h"

#include <assert.h>
#include <string.h>

#include "basic/macro.h"
#include "http/chars.h"

#define DIGITS_MAX 16

enum {
        CHUNKED_SIZE_FIRST, /* a size needs at least one digit */
        CHUNKED_SIZE,
        CHUNKED_NAME_FIRST, /* of an extension, behind the ';' */
        CHUNKED_NAME,
        CHUNKED_VALUE_FIRST, /* behind the '=' */
        CHUNKED_VALUE,
        CHUNKED_QUOTED,
        CHUNKED_QUOTED_PAIR,
        CHUNKED_QUOTED_END, /* behind the closing quote */
        CHUNKED_SIZE_LF,
        CHUNKED_DATA,
        CHUNKED_DATA_CR,
        CHUNKED_DATA_LF,
        CHUNKED_LINE, /* at the start of a line of the trailer section */
        CHUNKED_TRAILER_FIRST,
        CHUNKED_TRAILER_NAME,
        CHUNKED_TRAILER_VALUE,
        CHUNKED_TRAILER_LF,
        CHUNKED_END_LF,
        CHUNKED_END,
};

/* What may follow anything of a size line that is complete in itself. */
static int size_line_end(char byte) {
        return byte == ';' ? CHUNKED_NAME_FIRST : byte == '\r' ? CHUNKED_SIZE_LF : -1;
}

static int size_next(Chunked *c, char byte) {
        int digit = char_hex_value(byte);

        if (digit < 0)
                return c->state == CHUNKED_SIZE ? size_line_end(byte) : -1;
        if (c->n_digits++ == DIGITS_MAX)
                return -1;
        c->left = c->left << 4 | (uint64_t) digit;
        return CHUNKED_SIZE;
}

/* chunk-ext = *( ";" token [ "=" ( token / quoted-string ) ] ) */
static int extension_next(Chunked *c, char byte) {
        if (c->n_extensions++ == CHUNKED_EXTENSIONS_MAX)
                return -1;
        switch (c->state) {
        case CHUNKED_NAME_FIRST:
                return char_is(byte, CHAR_TOKEN) ? CHUNKED_NAME : -1;
        case CHUNKED_NAME:
                if (byte == '=')
                        return CHUNKED_VALUE_FIRST;
                return char_is(byte, CHAR_TOKEN) ? CHUNKED_NAME : size_line_end(byte);
        case CHUNKED_VALUE_FIRST:
                if (byte == '"')
                        return CHUNKED_QUOTED;
                return char_is(byte, CHAR_TOKEN) ? CHUNKED_VALUE : -1;
        case CHUNKED_VALUE:
                return char_is(byte, CHAR_TOKEN) ? CHUNKED_VALUE : size_line_end(byte);
        case CHUNKED_QUOTED:
                if (byte == '"')
                        return CHUNKED_QUOTED_END;
                return byte == '\\' ? CHUNKED_QUOTED_PAIR : char_is(byte, CHAR_QUOTED) ? CHUNKED_QUOTED : -1;
        case CHUNKED_QUOTED_PAIR:
                return char_is(byte, CHAR_TEXT) ? CHUNKED_QUOTED : -1;
        default:
                return size_line_end(byte);
        }
}

/* The state after the next byte of framing, -1 if it must not come here. */
static int frame_next(Chunked *c, char byte) {
        switch (c->state) {
        case CHUNKED_SIZE_FIRST:
        case CHUNKED_SIZE:
                return size_next(c, byte);
        case CHUNKED_SIZE_LF:
                return byte != '\n' ? -1 : c->left > 0 ? CHUNKED_DATA : CHUNKED_LINE;
        case CHUNKED_DATA_CR:
                return byte == '\r' ? CHUNKED_DATA_LF : -1;
        case CHUNKED_DATA_LF:
                c->n_digits = 0;
                return byte == '\n' ? CHUNKED_SIZE_FIRST : -1;
        case CHUNKED_END_LF:
                return byte == '\n' ? CHUNKED_END : -1;
        default:
                return extension_next(c, byte);
        }
}

/* A line is read as a header field is: RFC 9112, section 7.1.2. */
static int trailer_next(const Chunked *c, char byte) {
        switch (c->state) {
        case CHUNKED_TRAILER_FIRST:
                return char_is(byte, CHAR_TOKEN) ? CHUNKED_TRAILER_NAME : -1;
        case CHUNKED_TRAILER_NAME:
                return char_is(byte, CHAR_TOKEN) ? CHUNKED_TRAILER_NAME
                       : byte == ':'             ? CHUNKED_TRAILER_VALUE
                                                 : -1;
        case CHUNKED_TRAILER_VALUE:
                return char_is(byte, CHAR_TEXT) ? CHUNKED_TRAILER_VALUE
                       : byte == '\r'           ? CHUNKED_TRAILER_LF
                                                : -1;
        default:
                assert(c->state == CHUNKED_TRAILER_LF);
                return byte == '\n' ? CHUNKED_LINE : -1;
        }
}

static bool in_trailer(const Chunked *c) {
        return c->state >= CHUNKED_TRAILER_FIRST && c->state <= CHUNKED_TRAILER_LF;
}

/* A chunk that does not fit any more is refused when it is announced, not after it was read. */
static int chunk_begins(Chunked *c, uint64_t max) {
        if (c->size > max || c->left > max - c->size)
                return 413;
        c->size += c->left;
        return 0;
}

/* Reads framing up to the next piece, or the end. */
static int read_frame(Chunked *c, const char *buf, size_t n, uint64_t max, size_t *i) {
        while (*i < n && c->state != CHUNKED_DATA && !in_trailer(c) && c->state != CHUNKED_END) {
                if (c->state == CHUNKED_LINE && buf[*i] != '\r') {
                        c->state = CHUNKED_TRAILER_FIRST; /* this byte is of the piece */
                        break;
                }

                int next = c->state == CHUNKED_LINE ? CHUNKED_END_LF : frame_next(c, buf[*i]);
                if (next < 0)
                        return 400;
                (*i)++;
                c->state = (uint8_t) next;
                if (next == CHUNKED_DATA) {
                        int r = chunk_begins(c, max);
                        if (r != 0)
                                return r;
                }
        }
        return 0;
}

static size_t take_data(Chunked *c, size_t n) {
        size_t k = (size_t) MIN((uint64_t) n, c->left);

        c->left -= k;
        if (c->left == 0)
                c->state = CHUNKED_DATA_CR;
        return k;
}

static int take_trailer(Chunked *c, const char *buf, size_t n, size_t *ret_size) {
        size_t k = 0;

        while (k < n && in_trailer(c)) {
                int next = trailer_next(c, buf[k++]);
                if (next < 0)
                        return 400;
                if (c->n_trailers++ == CHUNKED_TRAILERS_MAX)
                        return 431;
                c->state = (uint8_t) next;
        }
        *ret_size = k;
        return 0;
}

int chunked_decode(
                Chunked *c, const char *buf, size_t n, uint64_t max, size_t *ret_used, ChunkedPiece *ret) {
        ChunkedPiece piece = { 0 };
        size_t i = 0;
        int r;

        r = read_frame(c, buf, n, max, &i);
        if (r != 0)
                return r;
        if (c->state == CHUNKED_DATA)
                piece = (ChunkedPiece){ .data = buf + i, .size = take_data(c, n - i) };
        else if (in_trailer(c)) {
                piece = (ChunkedPiece){ .data = buf + i, .is_trailer = true };
                r = take_trailer(c, buf + i, n - i, &piece.size);
                if (r != 0)
                        return r;
        }
        *ret = piece;
        *ret_used = i + piece.size;
        c->total += *ret_used;
        return c->state == CHUNKED_END ? PARSER_DONE : PARSER_MORE;
}

int chunked_skip(Chunked *c, const char *buf, size_t n, uint64_t max, size_t *ret_used) {
        size_t used = 0, k;
        int r = PARSER_MORE;
        ChunkedPiece piece;

        while (r == PARSER_MORE && used < n) {
                r = chunked_decode(c, buf + used, n - used, max, &k, &piece);
                if (r >= 400)
                        return r;
                used += k;
        }
        if (c->total > max || (c->state == CHUNKED_DATA && c->left > max - c->total))
                return 413;
        *ret_used = used;
        return r;
}

bool chunked_next_trailer(const char *trailers, size_t n, size_t *i, HttpField *ret) {
        const char *line = trailers + *i, *end, *colon, *value;

        if (*i >= n)
                return false;
        end = memchr(line, '\n', n - *i);
        colon = end ? memchr(line, ':', (size_t) (end - line)) : NULL;
        if (!colon)
                return false;
        *i = (size_t) (end + 1 - trailers);
        for (value = colon + 1, end--; value < end && char_is_space(*value);)
                value++;
        while (end > value && char_is_space(end[-1]))
                end--;
        ret->name = (HttpSlice){ (uint32_t) (line - trailers), (uint32_t) (colon - line) };
        ret->value = (HttpSlice){ (uint32_t) (value - trailers), (uint32_t) (end - value) };
        return true;
}
