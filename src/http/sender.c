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
#include "http/commit.h"
#include "http/connection-internal.h"
#include "http/outgoing.h"

#define SENDFILE_MAX (1024 * 1024)

/* Files up to this size are copied into the output: cheaper than a call of their own, and several go out in
 * one. */
#define INLINE_FILE_MAX 8192

/* Up to where the output may be sent. */
static uint32_t sender_end(const Connection *c) {
        const Exchange *x = c->exchange;

        return x && x->staged ? x->covered : c->record->out.end;
}

static char *output(const Connection *c) {
        return table_buffer(&c->server->table, c->record->out.buffer);
}

bool sender_is_idle(const Connection *c) {
        const Record *r = c->record;

        return r->out.start == r->out.end && r->out.file_left == 0 && r->out.parts == BUFFER_NONE;
}

size_t sender_room(const Connection *c) {
        return c->server->table.buffer_size - c->record->out.end;
}

void sender_put(Connection *c, const void *data, size_t n) {
        Record *r = c->record;

        assert(n <= sender_room(c));
        memcpy(output(c) + r->out.end, data, n);
        r->out.end += (uint32_t) n;
        c->unsaid = true;
}

static void turn_count_bytes(Server *s, size_t n) {
        s->turn_bytes -= MIN(s->turn_bytes, n);
}

static bool more_follows(const Record *r) {
        return r->out.file_left > 0 || outgoing_has_parts(&r->out);
}

/* Somebody may have to go on from here without knowing what the last of these calls has returned. */
static void call_begin(Connection *c) {
        if (c->unsaid)
                connection_commit(c);
        atomic_store_explicit(&c->record->in_call, 1, memory_order_release);
}

static void call_end(Connection *c, ssize_t n) {
        Record *r = c->record;

        if (n > 0)
                r->sent += (uint64_t) n;
        atomic_store_explicit(&r->in_call, 0, memory_order_release);
        if (n > 0) {
                turn_count_bytes(c->server, (size_t) n);
                connection_progress(c, (size_t) n);
        }
}

/* All that may go has gone. What a stream has not covered by a checkpoint yet is in no commit, and moves. */
static void rewind_output(Connection *c, uint32_t sent) {
        Outgoing *o = &c->record->out;

        if (o->end > sent)
                memmove(output(c), output(c) + sent, o->end - sent);
        o->end -= sent;
        o->start = 0;
        if (c->exchange)
                c->exchange->covered = 0;
}

/* The kernel took less than it was given: its buffer is full, and to ask again would only be told so. */
static int flush_output(Connection *c) {
        Outgoing *o = &c->record->out;
        uint32_t end = sender_end(c), left = end - o->start;
        int flags = MSG_NOSIGNAL | (more_follows(c->record) ? MSG_MORE : 0);
        ssize_t n;

        if (left == 0)
                return 0;
        if (c->server->turn_bytes == 0)
                return SENDER_BLOCKED;
        call_begin(c);
        n = send(c->fd, output(c) + o->start, left, flags);
        call_end(c, n);
        if (n < 0)
                return errno == EAGAIN ? SENDER_BLOCKED : -errno;
        if ((uint32_t) n < left) {
                o->start += (uint32_t) n;
                return SENDER_BLOCKED;
        }
        rewind_output(c, end);
        return 0;
}

static int flush_file(Connection *c) {
        Outgoing *o = &c->record->out;

        while (o->file_left > 0) {
                size_t size = (size_t) MIN(o->file_left, (uint64_t) SENDFILE_MAX);
                off_t offset = (off_t) o->file_offset;

                if (c->server->turn_bytes == 0)
                        return SENDER_BLOCKED;
                call_begin(c);
                ssize_t n = sendfile(c->fd, o->file_fd, &offset, size);
                call_end(c, n);
                if (n < 0)
                        return errno == EAGAIN ? SENDER_BLOCKED : -errno;
                if (n == 0)
                        return -EIO; /* the file has shrunk: only the close tells the client that this is not
                                        all */
                o->file_offset += (uint64_t) n;
                o->file_left -= (uint64_t) n;
                if ((size_t) n < size)
                        return SENDER_BLOCKED;
        }
        return 0;
}

/* Returns whether there is something more to be sent now. */
static bool next_part(Connection *c) {
        Table *t = &c->server->table;
        Outgoing *o = &c->record->out;

        if (outgoing_next_part(t, o))
                return true;
        if (o->parts == BUFFER_NONE)
                return false;
        uint32_t parts = o->parts;
        o->parts = BUFFER_NONE;
        connection_commit(c); /* the one that holds counts what was sent by them */
        (void) table_give_buffer(t, parts);
        return false;
}

int sender_flush(Connection *c) {
        int r;

        do {
                r = flush_output(c);
                if (r == 0 && c->record->out.file_left > 0)
                        r = flush_file(c);
                if (r != 0)
                        return r;
        } while (next_part(c));
        return 0;
}

int sender_prepare(Connection *c, size_t room) {
        Record *r = c->record;
        int k;

        if (r->out.buffer == BUFFER_NONE) {
                r->out.buffer = table_take_buffer(&c->server->table);
                return r->out.buffer == BUFFER_NONE ? -ENOMEM : 0;
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
        ssize_t n = pread(r->fd, output(c) + record->out.end, r->size, (off_t) r->offset);

        if (n < 0)
                return -errno;
        if ((uint64_t) n != r->size)
                return -EIO;
        record->out.end += (uint32_t) n;
        c->unsaid = true;
        return 0;
}

static void set_file(Connection *c, const Response *r) {
        c->record->out.file_fd = r->fd;
        c->record->out.file_offset = r->offset;
        c->record->out.file_left = r->size;
        c->unsaid = true;
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
        record->out.parts = table_take_buffer(t);
        if (record->out.parts == BUFFER_NONE)
                return -ENOMEM;
        memcpy(table_buffer(t, record->out.parts), r->parts, n);
        memcpy(table_buffer(t, record->out.parts) + n, r->memory, r->memory_size);
        record->out.n_parts = r->n_parts;
        record->out.parts_text_size = r->memory_size;
        record->out.part = record->out.part_text = 0;
        record->out.file_fd = r->fd;
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

        r->out.buffer = table_give_buffer(t, r->out.buffer);
        r->out.parts = table_give_buffer(t, r->out.parts);
        r->out.start = r->out.end = 0;
        r->out.file_left = 0;
}
