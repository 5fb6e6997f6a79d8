/* SPDX-License-Identifier: MIT */
/* Request bodies; see request-body.h.
 *
 * The head of the request stays at the front of the buffer until it is answered; the body passes by behind
 * it. A piece is handed over where it lies, once. */

#include "http/request-body.h"

#include <errno.h>
#include <string.h>

#include "basic/macro.h"
#include "http/connection-internal.h"
#include "http/sender.h"

#define CONTINUE "HTTP/1.1 100 Continue\r\n\r\n"

void request_body_begin(Record *r, const HttpRequest *request) {
        r->body = RECORD_BODY_NONE;
        r->continue_due = false;
        if (request->chunked) {
                r->body = RECORD_BODY_CHUNKED;
                r->chunked = (Chunked){ 0 };
        } else if (request->content_length > 0) {
                r->body = RECORD_BODY_LENGTH;
                r->body_left = request->content_length;
        }
        r->continue_due = r->body != RECORD_BODY_NONE && request->expect_continue;
}

bool request_body_is_wanted(const Exchange *x) {
        return x->reading && !x->paused && x->phase != EXCHANGE_SENDING;
}

void request_body_fail(Connection *c, Exchange *x, int error) {
        Record *r = c->record;

        x->reading = false;
        r->closing = r->linger = true; /* nothing behind this can be trusted to be a request, also when the
                                          head of the answer has promised to go on */
        r->body = RECORD_BODY_NONE;
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
        if (r->body_at < r->input_end || x->phase != EXCHANGE_OPEN)
                return;
        if (sender_prepare(c, sizeof(CONTINUE) - 1) == 0)
                sender_put(c, CONTINUE, sizeof(CONTINUE) - 1);
}

static bool deliver_length(Connection *c, Exchange *x) {
        Record *r = c->record;
        size_t n = (size_t) MIN((uint64_t) (r->input_end - r->body_at), r->body_left);
        const char *data = connection_input(c) + r->body_at;

        if (n == 0)
                return false;
        r->body_at += (uint32_t) n;
        r->body_left -= n;
        x->body_read += n;
        if (r->body_left == 0)
                r->body = RECORD_BODY_NONE;
        if (x->on_body)
                x->on_body(x, data, n);
        return true;
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

static bool deliver_chunked(Connection *c, Exchange *x) {
        Record *r = c->record;
        size_t n = r->input_end - r->body_at, used;
        ChunkedPiece piece;
        int k;

        if (n == 0)
                return false;
        k = chunked_decode(&r->chunked, connection_input(c) + r->body_at, n, x->body_max, &used, &piece);
        if (k >= 400) {
                request_body_fail(c, x, error_from_status(k));
                return true;
        }
        r->body_at += (uint32_t) used;
        if (k == PARSER_DONE)
                r->body = RECORD_BODY_NONE;
        if (piece.size == 0)
                return true;
        if (piece.is_trailer) {
                if (keep_trailers(x, piece.data, piece.size) < 0)
                        request_body_fail(c, x, -ENOMEM);
                return true;
        }
        x->body_read += piece.size;
        if (x->on_body)
                x->on_body(x, piece.data, piece.size);
        return true;
}

bool request_body_deliver(Connection *c, Exchange *x) {
        Record *r = c->record;

        if (!request_body_is_wanted(x))
                return false;
        if (r->body == RECORD_BODY_NONE) {
                request_body_end(x);
                return true;
        }
        if (r->body == RECORD_BODY_LENGTH && r->body_left > x->body_max - MIN(x->body_max, x->body_read)) {
                request_body_fail(c, x, -EMSGSIZE);
                return true;
        }
        send_continue(c, x);
        return r->body == RECORD_BODY_LENGTH ? deliver_length(c, x) : deliver_chunked(c, x);
}

void request_body_make_room(Connection *c) {
        Record *r = c->record;
        char *input = connection_input(c);
        uint32_t floor = r->input_start + r->head_size;

        if (r->body_at <= floor)
                return;
        memmove(input + floor, input + r->body_at, r->input_end - r->body_at);
        r->input_end -= r->body_at - floor;
        r->body_at = floor;
}

int request_body_skip(Connection *c) {
        Record *r = c->record;
        size_t n = r->input_end - r->body_at, used;
        int k;

        if (r->body == RECORD_BODY_LENGTH) {
                n = (size_t) MIN((uint64_t) n, r->body_left);
                r->body_at += (uint32_t) n;
                r->body_left -= n;
                if (r->body_left == 0)
                        r->body = RECORD_BODY_NONE;
                return 0;
        }
        k = chunked_skip(&r->chunked, connection_input(c) + r->body_at, n, CONNECTION_SKIP_MAX, &used);
        if (k >= 400)
                return 1;
        r->body_at += (uint32_t) used;
        if (k == PARSER_DONE)
                r->body = RECORD_BODY_NONE;
        return 0;
}
