/* SPDX-License-Identifier: MIT */
/* Request bodies; see request-body.h.
 *
 * The head of the request stays at the front of the buffer until it is answered; the body passes by behind
 * it. A piece is handed over where it lies, once. */

#include "http/request-body.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "basic/macro.h"
#include "http/commit.h"
#include "http/connection-internal.h"
#include "http/sender.h"

#define CONTINUE "HTTP/1.1 100 Continue\r\n\r\n"

#define SPOOL_EXTRA (64 * 1024)

void request_body_begin(Record *r, const HttpRequest *request) {
        r->body.kind = RECORD_BODY_NONE;
        r->continue_due = false;
        if (request->chunked) {
                r->body.kind = RECORD_BODY_CHUNKED;
                r->body.chunked = (Chunked){ 0 };
        } else if (request->content_length > 0) {
                r->body.kind = RECORD_BODY_LENGTH;
                r->body.left = request->content_length;
        }
        r->continue_due = r->body.kind != RECORD_BODY_NONE && request->expect_continue;
}

bool request_body_is_wanted(const Exchange *x) {
        return x->reading && !x->paused && x->phase != EXCHANGE_SENDING;
}

void request_body_fail(Connection *c, Exchange *x, int error) {
        Record *r = c->record;

        x->reading = false;
        r->closing = r->linger = true; /* nothing behind this can be trusted to be a request, also when the
                                          head of the answer has promised to go on */
        r->body.kind = RECORD_BODY_NONE;
        r->body_at = r->input_end;
        if (x->on_body_end)
                x->on_body_end(x, error);
}

static void request_body_end(Exchange *x) {
        x->reading = false;
        if (x->on_body_end)
                x->on_body_end(x, 0);
}

/* The client waits for a word, unless it has begun without it or the answer has (RFC 9110, section 10.1.1).
 */
static void send_continue(Connection *c, const Exchange *x) {
        Record *r = c->record;

        if (!r->continue_due)
                return;
        r->continue_due = false;
        if (r->body_at < r->input_end || x->phase != EXCHANGE_OPEN || c->resumes)
                return;
        if (sender_prepare(c, sizeof(CONTINUE) - 1) < 0)
                return;
        sender_put(c, CONTINUE, sizeof(CONTINUE) - 1);
        c->continued = true;
}

/* What can be handed over next: of the body's beginning that another process has put aside, else of the
 * input. 0: nothing is there. */
static ssize_t body_get(Connection *c, const char **ret) {
        Table *t = &c->server->table;
        Record *r = c->record;
        size_t n = (size_t) MIN(c->replay_end - c->replay_at, (uint64_t) t->buffer_size);

        if (n == 0) {
                *ret = connection_input(c) + r->body_at;
                return (ssize_t) (r->input_end - r->body_at);
        }
        if (c->replay == BUFFER_NONE)
                c->replay = table_take_buffer(t);
        if (c->replay == BUFFER_NONE)
                return -ENOMEM;
        *ret = table_buffer(t, c->replay);
        ssize_t k = pread(c->spool_fd, table_buffer(t, c->replay), n, (off_t) c->replay_at);
        return k > 0 ? k : k == 0 ? -EIO : -errno;
}

static void body_used(Connection *c, size_t n) {
        if (c->replay_at < c->replay_end)
                c->replay_at += n;
        else
                c->record->body_at += (uint32_t) n;
}

static void deliver_length(Connection *c, Exchange *x, const char *data, size_t n) {
        Record *r = c->record;

        n = (size_t) MIN((uint64_t) n, r->body.left);
        body_used(c, n);
        r->body.left -= n;
        x->body_read += n;
        if (r->body.left == 0)
                r->body.kind = RECORD_BODY_NONE;
        if (x->on_body)
                x->on_body(x, data, n);
}

/* The trailers, which the handler may ask for when the body is complete. */
static int keep_trailers(Exchange *x, const char *lines, size_t n) {
        char *p = realloc(x->trailers, x->trailers_size + n);

        if (!p)
                return -ENOMEM;
        memcpy(p + x->trailers_size, lines, n);
        x->trailers = p;
        x->trailers_size += n;
        return 0;
}

static int error_from_status(int status) {
        return status == 413 || status == 431 ? -EMSGSIZE : -EBADMSG;
}

static void deliver_chunked(Connection *c, Exchange *x, const char *data, size_t n) {
        Record *r = c->record;
        ChunkedPiece piece;
        size_t used;
        int k;

        k = chunked_decode(&r->body.chunked, data, n, x->body_max, &used, &piece);
        if (k >= 400) {
                request_body_fail(c, x, error_from_status(k));
                return;
        }
        body_used(c, used);
        if (k == PARSER_DONE)
                r->body.kind = RECORD_BODY_NONE;
        if (piece.size == 0)
                return;
        if (piece.is_trailer) {
                if (keep_trailers(x, piece.data, piece.size) < 0)
                        request_body_fail(c, x, -ENOMEM);
                return;
        }
        x->body_read += piece.size;
        if (x->on_body)
                x->on_body(x, piece.data, piece.size);
}

bool request_body_deliver(Connection *c, Exchange *x) {
        Record *r = c->record;
        const char *data;
        ssize_t n;

        if (!request_body_is_wanted(x))
                return false;
        if (r->body.kind == RECORD_BODY_NONE) {
                request_body_end(x);
                return true;
        }
        if (r->body.kind == RECORD_BODY_LENGTH &&
                        r->body.left > x->body_max - MIN(x->body_max, x->body_read)) {
                request_body_fail(c, x, -EMSGSIZE);
                return true;
        }
        send_continue(c, x);
        n = body_get(c, &data);
        if (n == 0)
                return false;
        if (n < 0)
                request_body_fail(c, x, -ENOMEM);
        else if (r->body.kind == RECORD_BODY_LENGTH)
                deliver_length(c, x, data, (size_t) n);
        else
                deliver_chunked(c, x, data, (size_t) n);
        return true;
}

/* Puts what of the body is about to leave the input behind what was put aside before. */
static int spool_append(Connection *c, const char *data, size_t n) {
        if (c->spool_fd < 0)
                c->spool_fd = memfd_create("muster-body", MFD_CLOEXEC);
        if (c->spool_fd < 0)
                return -errno;
        while (n > 0) {
                ssize_t k = pwrite(c->spool_fd, data, n, (off_t) c->spooled);
                if (k < 0)
                        return -errno;
                c->spooled += (uint64_t) k;
                data += k;
                n -= (size_t) k;
        }
        return 0;
}

/* Chunks are put aside as they came: not many times what is in them. */
static bool spool_has_room(const Connection *c, size_t n) {
        return c->spooled + n <= 2 * c->exchange->body_read + SPOOL_EXTRA;
}

/* A request that may be run again needs all of its body for that, unless some of it is gone already. */
static void request_body_put_aside(Connection *c, const char *data, size_t n) {
        const Record *r = c->record;

        if (c->blind)
                return;
        if (!c->server->alone && r->keyed == r->handling && spool_has_room(c, n) &&
                        spool_append(c, data, n) == 0)
                return;
        c->blind = true;
}

/* All that is there has been handed over, or the handler would not wait for more. So nothing moves, and the
 * next commit says where what comes lies. */
void request_body_make_room(Connection *c) {
        Record *r = c->record;
        uint32_t floor = r->input_start + r->head_size;

        if (r->body_at <= floor)
                return;
        if (c->exchange && !c->gap && c->server->table.buffer_size - r->input_end >= CONNECTION_BODY_ROOM)
                return;
        assert(r->body_at == r->input_end);
        c->gap = c->exchange && c->exchange->phase != EXCHANGE_SENDING;
        if (c->gap)
                request_body_put_aside(c, connection_input(c) + floor, r->body_at - floor);
        r->input_end = r->body_at = floor;
        c->moved = true;
}

int request_body_skip(Connection *c) {
        Record *r = c->record;
        size_t n = r->input_end - r->body_at, used;
        int k;

        if (r->body.kind == RECORD_BODY_LENGTH) {
                n = (size_t) MIN((uint64_t) n, r->body.left);
                r->body_at += (uint32_t) n;
                r->body.left -= n;
                if (r->body.left == 0)
                        r->body.kind = RECORD_BODY_NONE;
                return 0;
        }
        k = chunked_skip(&r->body.chunked, connection_input(c) + r->body_at, n, CONNECTION_SKIP_MAX, &used);
        if (k >= 400)
                return 1;
        r->body_at += (uint32_t) used;
        if (k == PARSER_DONE)
                r->body.kind = RECORD_BODY_NONE;
        return 0;
}
