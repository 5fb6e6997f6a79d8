/* SPDX-License-Identifier: MIT */
/* Sending; see sender.h. */

#include "http/sender.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <unistd.h>

#include "basic/fd.h"
#include "basic/macro.h"
#include "http/connection-internal.h"

#define SENDFILE_MAX (1024 * 1024)

/* Files up to this size are copied into the output: cheaper than a call of their own, and several go out in
 * one. */
#define INLINE_FILE_MAX 8192

static char *output(const Connection *c) {
        return table_buffer(&c->server->table, c->record->output);
}

bool sender_is_idle(const Connection *c) {
        const Record *r = c->record;

        return r->output_start == r->output_end && r->file_left == 0 && r->parts == BUFFER_NONE;
}

size_t sender_room(const Connection *c) {
        return c->server->table.buffer_size - c->record->output_end;
}

void sender_put(Connection *c, const void *data, size_t n) {
        Record *r = c->record;

        assert(n <= sender_room(c));
        memcpy(output(c) + r->output_end, data, n);
        r->output_end += (uint32_t) n;
}

static void turn_count_bytes(Server *s, size_t n) {
        s->turn_bytes -= MIN(s->turn_bytes, n);
}

static bool more_follows(const Record *r) {
        return r->file_left > 0 || r->parts != BUFFER_NONE;
}

/* The kernel took less than it was given: its buffer is full, and to ask again would only be told so. */
static int flush_output(Connection *c) {
        Record *r = c->record;
        uint32_t left = r->output_end - r->output_start;
        ssize_t n;

        if (left == 0)
                return 0;
        if (c->server->turn_bytes == 0)
                return SENDER_BLOCKED;
        n = send(c->fd, output(c) + r->output_start, left, MSG_NOSIGNAL | (more_follows(r) ? MSG_MORE : 0));
        if (n < 0)
                return errno == EAGAIN ? SENDER_BLOCKED : -errno;
        turn_count_bytes(c->server, (size_t) n);
        connection_progress(c, (size_t) n);
        if ((uint32_t) n < left) {
                r->output_start += (uint32_t) n;
                return SENDER_BLOCKED;
        }
        r->output_start = r->output_end = 0;
        return 0;
}

static int flush_file(Connection *c) {
        Record *r = c->record;

        while (r->file_left > 0) {
                size_t size = (size_t) MIN(r->file_left, (uint64_t) SENDFILE_MAX);
                off_t offset = (off_t) r->file_offset;

                if (c->server->turn_bytes == 0)
                        return SENDER_BLOCKED;
                ssize_t n = sendfile(c->fd, r->file_fd, &offset, size);
                if (n < 0)
                        return errno == EAGAIN ? SENDER_BLOCKED : -errno;
                if (n == 0)
                        return -EIO; /* the file has shrunk: only the close tells the client that this is not
                                        all */
                turn_count_bytes(c->server, (size_t) n);
                r->file_offset += (uint64_t) n;
                r->file_left -= (uint64_t) n;
                connection_progress(c, (size_t) n);
                if ((size_t) n < size)
                        return SENDER_BLOCKED;
        }
        return 0;
}

/* Puts the next text into the output and the piece of the file behind it. False: there is none left. */
static bool next_part(Connection *c) {
        Table *t = &c->server->table;
        Record *r = c->record;

        if (r->parts == BUFFER_NONE)
                return false;

        const ResponsePart *parts = (const ResponsePart *) table_buffer(t, r->parts);
        const char *texts = (const char *) (parts + r->n_parts) + r->part_text;
        if (r->part == r->n_parts) {
                sender_put(c, texts, r->parts_text_size - r->part_text);
                r->parts = table_give_buffer(t, r->parts);
                return true;
        }

        const ResponsePart *p = parts + r->part++;
        sender_put(c, texts, p->text_size);
        r->part_text += p->text_size;
        r->file_offset = p->offset;
        r->file_left = p->length;
        return true;
}

int sender_flush(Connection *c) {
        int r;

        do {
                r = flush_output(c);
                if (r == 0 && c->record->file_left > 0)
                        r = flush_file(c);
                if (r != 0)
                        return r;
        } while (next_part(c));
        return 0;
}

int sender_prepare(Connection *c, size_t room) {
        Record *r = c->record;
        int k;

        if (r->output == BUFFER_NONE) {
                r->output = table_take_buffer(&c->server->table);
                return r->output == BUFFER_NONE ? -ENOMEM : 0;
        }
        if (sender_room(c) >= room)
                return 0;
        if (!more_follows(r)) {
                k = flush_output(c);
                if (k < 0)
                        return k;
        }
        return sender_room(c) >= room ? 0 : -EAGAIN;
}

/* Appends the whole file, unless it has changed its size since it was looked at. */
static int put_small_file(Connection *c, const Response *r) {
        Record *record = c->record;
        ssize_t n = pread(r->fd, output(c) + record->output_end, r->size, (off_t) r->offset);

        if (n < 0)
                return -errno;
        if ((uint64_t) n != r->size)
                return -EIO;
        record->output_end += (uint32_t) n;
        return 0;
}

static void set_file(Connection *c, const Response *r) {
        c->record->file_fd = r->fd;
        c->record->file_offset = r->offset;
        c->record->file_left = r->size;
}

static int write_all(int fd, const char *p, size_t n) {
        while (n > 0) {
                ssize_t k = write(fd, p, n);
                if (k < 0)
                        return -errno;
                p += k;
                n -= (size_t) k;
        }
        return 0;
}

static int put_large_memory(Connection *c, Response *r) {
        _cleanup_close_ int fd = memfd_create("muster-answer", MFD_CLOEXEC);
        int k;

        if (fd < 0)
                return -errno;
        k = write_all(fd, r->memory, r->size);
        if (k < 0)
                return k;
        r->body = RESPONSE_BODY_FILE;
        r->fd = TAKE_FD(fd);
        r->offset = 0;
        set_file(c, r);
        return 0;
}

static int put_parts(Connection *c, const Response *r) {
        Table *t = &c->server->table;
        size_t n = r->n_parts * sizeof(ResponsePart);
        Record *record = c->record;

        if (n + r->memory_size > t->buffer_size)
                return -EMSGSIZE;
        record->parts = table_take_buffer(t);
        if (record->parts == BUFFER_NONE)
                return -ENOMEM;
        memcpy(table_buffer(t, record->parts), r->parts, n);
        memcpy(table_buffer(t, record->parts) + n, r->memory, r->memory_size);
        record->n_parts = r->n_parts;
        record->parts_text_size = r->memory_size;
        record->part = record->part_text = 0;
        record->file_fd = r->fd;
        return 0;
}

int sender_put_body(Connection *c, Response *r) {
        switch (r->body) {
        case RESPONSE_BODY_MEMORY:
                if (r->size > sender_room(c))
                        return put_large_memory(c, r);
                sender_put(c, r->memory, r->size);
                return 0;
        case RESPONSE_BODY_FILE:
                if (r->size <= INLINE_FILE_MAX && r->size <= sender_room(c))
                        return put_small_file(c, r);
                set_file(c, r);
                return 0;
        case RESPONSE_BODY_PARTS:
                return put_parts(c, r);
        default:
                return 0;
        }
}

void sender_release(Connection *c) {
        Table *t = &c->server->table;
        Record *r = c->record;

        r->output = table_give_buffer(t, r->output);
        r->parts = table_give_buffer(t, r->parts);
        r->output_start = r->output_end = 0;
        r->file_left = 0;
}
