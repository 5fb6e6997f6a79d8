/* SPDX-License-Identifier: MIT */
#pragma once

/* What of an answer is left to be sent. */

#include <errno.h>
#include <stdbool.h>
#include <stdint.h>

#include "http/table.h"

#define OUTGOING_NONE ((Outgoing){ .buffer = BUFFER_NONE, .file_fd = -EBADF, .parts = BUFFER_NONE })

/* Whether there is more than what the buffer and the piece of the file in front of them are. Parts keep
 * their buffer until all of it is sent: a commit may name it. */
static inline bool outgoing_has_parts(const Outgoing *o) {
        return o->parts != BUFFER_NONE && (o->part < o->n_parts || o->part_text < o->parts_text_size);
}

/* How many bytes it is. */
uint64_t outgoing_size(const Table *t, const Outgoing *o);

/* The buffer and the file are sent: puts the next text into the buffer, and the piece of the file behind it.
 * False: there is nothing more, and the parts are to be given back. */
bool outgoing_next_part(const Table *t, Outgoing *o);

/* The first @n bytes are sent. False: there are not so many. */
bool outgoing_advance(const Table *t, Outgoing *o, uint64_t n);
