/* SPDX-License-Identifier: MIT */
/* Lines out of a stream; see line-buffer.h. */

#include "ipc/line-buffer.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "basic/macro.h"

/* Enough for any short message, and what a socket usually has to give in one read. */
#define BUFFER_SIZE (64 * 1024)

/* Nothing is under way: begins at the front. A buffer that a long line has made larger is given back. */
static void rewind_empty(LineBuffer *b) {
        b->start = b->searched = b->used = 0;
        if (b->size <= BUFFER_SIZE)
                return;
        free(b->data);
        b->data = NULL;
        b->size = 0;
}

/* All of the line that is under way moves to the front, so that there is no more memory than it needs. */
static void compact(LineBuffer *b) {
        size_t n = b->used - b->start;

        if (b->start == 0)
                return;
        memmove(b->data, b->data + b->start, n);
        b->searched -= b->start;
        b->used = n;
        b->start = 0;
}

static int grow(LineBuffer *b) {
        /* its line feed and a byte by which a longer line is known */
        size_t size = b->size == 0 ? BUFFER_SIZE : MIN(b->size * 2, MAX(b->max_line + 2, BUFFER_SIZE));

        char *data = realloc(b->data, size);
        if (!data)
                return -ENOMEM;
        b->data = data;
        b->size = size;
        return 0;
}

int line_buffer_reserve(LineBuffer *b, char **ret_room, size_t *ret_size) {
        int r;

        if (b->used == b->start)
                rewind_empty(b);
        if (b->used - b->start > b->max_line)
                return -EMSGSIZE;
        /* Moving costs little when what is moved is less than what was handed out. */
        if (b->size - b->used < BUFFER_SIZE / 4 && b->used - b->start <= b->start)
                compact(b);
        if (b->used == b->size) {
                compact(b);
                r = b->used == b->size ? grow(b) : 0;
                if (r < 0)
                        return r;
        }
        *ret_room = b->data + b->used;
        *ret_size = b->size - b->used;
        return 0;
}

void line_buffer_add(LineBuffer *b, size_t n) {
        b->used += n;
}

bool line_buffer_last_begin(const LineBuffer *b, size_t n, uint64_t *ret_offset) {
        const char *added = b->data + b->used - n;
        const char *feed = n > 1 ? memrchr(added, '\n', n - 1) : NULL;

        if (feed)
                *ret_offset = b->offset + (size_t) (feed + 1 - (b->data + b->start));
        else if (b->used - n == b->start) /* nothing was under way, for all complete lines are handed out */
                *ret_offset = b->offset;
        else
                return false;
        return true;
}

bool line_buffer_next(LineBuffer *b, char **ret_line, size_t *ret_n, uint64_t *ret_offset) {
        char *feed = b->used > b->searched ? memchr(b->data + b->searched, '\n', b->used - b->searched)
                                           : NULL;

        if (!feed) {
                b->searched = b->used;
                if (b->used == b->start)
                        rewind_empty(b); /* and not with the next read, which may never come */
                return false;
        }
        *feed = '\0';
        *ret_line = b->data + b->start;
        *ret_n = (size_t) (feed - *ret_line);
        *ret_offset = b->offset;
        b->offset += *ret_n + 1;
        b->start = b->searched = b->start + *ret_n + 1;
        return true;
}

void line_buffer_done(LineBuffer *b) {
        free(b->data);
        *b = (LineBuffer){ .max_line = b->max_line };
}
