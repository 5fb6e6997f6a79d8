/* SPDX-License-Identifier: MIT */
/* What is left to be sent; see outgoing.h. */

#include "http/outgoing.h"

#include <string.h>

#include "basic/macro.h"
#include "http/response.h"

static const ResponsePart *parts_of(const Table *t, const Outgoing *o) {
        return (const ResponsePart *) table_buffer(t, o->parts);
}

uint64_t outgoing_size(const Table *t, const Outgoing *o) {
        uint64_t n = (o->end - o->start) + o->file_left;

        if (o->parts == BUFFER_NONE)
                return n;
        for (uint32_t i = o->part; i < o->n_parts; i++)
                n += parts_of(t, o)[i].length;
        return n + (o->parts_text_size - o->part_text); /* before each of them, and behind the last one */
}

static void put_text(const Table *t, Outgoing *o, uint32_t size) {
        const char *texts = (const char *) (parts_of(t, o) + o->n_parts);

        memcpy(table_buffer(t, o->buffer) + o->end, texts + o->part_text, size);
        o->end += size;
        o->part_text += size;
}

bool outgoing_next_part(const Table *t, Outgoing *o) {
        const ResponsePart *p;

        if (!outgoing_has_parts(o))
                return false;
        if (o->part == o->n_parts) {
                put_text(t, o, o->parts_text_size - o->part_text);
                return true;
        }
        p = parts_of(t, o) + o->part++;
        put_text(t, o, p->text_size);
        o->file_offset = p->offset;
        o->file_left = p->length;
        return true;
}

bool outgoing_advance(const Table *t, Outgoing *o, uint64_t n) {
        do {
                uint32_t k = (uint32_t) MIN((uint64_t) (o->end - o->start), n);
                uint64_t f = MIN(o->file_left, n - k);

                o->start += k;
                o->file_offset += f;
                o->file_left -= f;
                n -= k + f;
                if (o->start == o->end)
                        o->start = o->end = 0;
        } while (n > 0 && o->start == o->end && o->file_left == 0 && outgoing_next_part(t, o));
        return n == 0;
}
