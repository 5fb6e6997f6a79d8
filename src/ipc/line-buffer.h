/* SPDX-License-Identifier: MIT */
#pragma once

/* Cuts a stream of bytes into lines. The bytes are read straight into the buffer and the lines are handed
 * out in place; offsets count from the beginning of the stream. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct LineBuffer {
        char *data;
        size_t size;
        size_t start;    /* of the first byte that is no part of a line handed out */
        size_t searched; /* up to here there is no line feed */
        size_t used;
        uint64_t offset; /* of `start` in the stream */
        size_t max_line;
} LineBuffer;

/* Room for the next read: at least one byte at @ret_room. -EMSGSIZE: the line under way is longer than
 * max_line; -ENOMEM. Lines handed out before are invalid after it. */
int line_buffer_reserve(LineBuffer *b, char **ret_room, size_t *ret_size);

/* @n bytes were read into that room. */
void line_buffer_add(LineBuffer *b, size_t n);

/* Where the last line begins that begins among the @n bytes added last, as an offset of the stream; false:
 * none does. */
bool line_buffer_last_begin(const LineBuffer *b, size_t n, uint64_t *ret_offset);

/* The next complete line, without its line feed, in whose place is a NUL now; and its offset. False: there
 * is none, and the lines handed out before are invalid. */
bool line_buffer_next(LineBuffer *b, char **ret_line, size_t *ret_n, uint64_t *ret_offset);

/* Whether a line is under way. */
static inline bool line_buffer_partial(const LineBuffer *b) {
        return b->used > b->start;
}

/* How many bytes were added in all. */
static inline uint64_t line_buffer_received(const LineBuffer *b) {
        return b->offset + (b->used - b->start);
}

void line_buffer_done(LineBuffer *b);
