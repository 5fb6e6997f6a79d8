/* SPDX-License-Identifier: MIT */
/* The life of a connection; see connection.h.
 *
 * A turn answers every complete request that is in the buffer, as long as the answers fit into one output
 * buffer, sends them together, and only then reads on. Requests are thus answered in their order and a
 * client that does not read its answers is not read either. A file is sent after what precedes it and before
 * the next request is looked at.
 *
 * Buffers come from the server's pool for as long as there is something in them. The last answer of a
 * connection is followed by a half-close, and what the client still sends is thrown away for a while:
 * close(2) with unread input would make the kernel send a reset, at which many clients forget the answer
 * that came before (RFC 9112, section 9.6). */

#include "http/connection.h"

#include <errno.h>
#include <linux/sockios.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <unistd.h>

#include "basic/fd.h"
#include "basic/macro.h"

/* A turn reads once, gives so many answers and sends so many bytes: one fast client cannot hold up the
 * others for long. */
#define TURN_ANSWERS 128
#define TURN_BYTES   (1024 * 1024)
#define SENDFILE_MAX (256 * 1024)

/* Files up to this size are copied into the output: cheaper than a call of their own, and several go out in
 * one. */
#define INLINE_FILE_MAX 8192

#define LINGER_MAX (512 * 1024)

/* Outcome of flushing: the socket's buffer is full, or the turn is over. */
#define FLUSH_BLOCKED 1

/* Row: from; bits: to. */
static const uint8_t connection_edges[_CONNECTION_STATE_MAX] = {
        [CONNECTION_IDLE] = 1 << CONNECTION_READING | 1 << CONNECTION_SENDING,
        [CONNECTION_READING] = 1 << CONNECTION_SENDING,
        [CONNECTION_SENDING] = 1 << CONNECTION_IDLE | 1 << CONNECTION_READING | 1 << CONNECTION_LINGERING,
        [CONNECTION_LINGERING] = 0,
};

static TimeoutClass timeout_of_state(const Connection *c) {
        switch (c->state) {
        case CONNECTION_READING:
                return TIMEOUT_REQUEST;
        case CONNECTION_SENDING:
                return TIMEOUT_SEND;
        case CONNECTION_LINGERING:
                return TIMEOUT_LINGER;
        default:
                return c->server->draining ? TIMEOUT_DRAIN : TIMEOUT_IDLE;
        }
}

static void connection_arm(Connection *c) {
        c->progress = 0;
        c->measured = false;
        server_arm(c->server, &c->timeout, timeout_of_state(c));
}

/* The deadline belongs to the state: to stay in one does not move it. */
static void connection_set_state(Connection *c, ConnectionState to) {
        if (c->state == to)
                return;
        assert(connection_edges[c->state] & (1 << to));
        c->state = to;
        connection_arm(c);
}

void connection_init(Connection *c, Server *server, int fd) {
        *c = (Connection){ .server = server, .fd = fd, .file_fd = -EBADF };
        list_init(&c->timeout.node);
        server_arm(server, &c->timeout, timeout_of_state(c));
        server_count_connection(server);
}

void connection_done(Connection *c) {
        list_remove(&c->timeout.node);
        c->input = pool_give(&c->server->pool, c->input);
        c->output = pool_give(&c->server->pool, c->output);
        c->file_fd = safe_close(c->file_fd);
        c->fd = safe_close(c->fd);
        server_uncount_connection(c->server);
}

static void turn_begin(Server *s) {
        s->turn_answers = TURN_ANSWERS;
        s->turn_bytes = TURN_BYTES;
}

static bool turn_is_over(const Server *s) {
        return s->turn_answers == 0 || s->turn_bytes == 0;
}

static void turn_count_bytes(Server *s, size_t n) {
        s->turn_bytes -= MIN(s->turn_bytes, n);
}

static size_t input_size(const Connection *c) {
        return c->input_end - c->input_start;
}

static size_t output_room(const Connection *c) {
        return c->server->pool.size - c->output_end;
}

/* The request and what came with it are dealt with. */
static void connection_consume(Connection *c, size_t n) {
        c->input_start += (uint32_t) n;
        if (c->input_start == c->input_end)
                c->input_start = c->input_end = 0;
        c->scan = (ParserScan){ 0 };
}

/* Appends the whole file, unless it has changed its size since it was looked at. */
static int append_file(Connection *c, const Response *r) {
        ssize_t n = pread(r->fd, c->output + c->output_end, r->size, 0);

        if (n < 0)
                return -errno;
        if ((uint64_t) n != r->size)
                return -EIO;
        c->output_end += (uint32_t) n;
        return 0;
}

static int append_body(Connection *c, Response *r) {
        if (r->fd < 0) {
                assert(r->size <= RESPONSE_TEXT_MAX && r->size <= output_room(c));
                memcpy(c->output + c->output_end, r->text, r->size);
                c->output_end += (uint32_t) r->size;
                return 0;
        }
        if (r->size <= INLINE_FILE_MAX && r->size <= output_room(c))
                return append_file(c, r);
        c->file_fd = TAKE_FD(r->fd);
        c->file_offset = 0;
        c->file_left = r->size;
        return 0;
}

/* Puts an answer behind those that wait already. There is room for it: see connection_answer_all(). */
static void connection_queue(Connection *c, Response *r, bool with_body, const ResponseFraming *framing) {
        uint32_t before = c->output_end;

        c->server->turn_answers--;
        c->closing = !framing->keep_alive;
        c->output_end += (uint32_t) response_write_head(r, framing, c->output + before);
        if (with_body && r->size > 0 && append_body(c, r) < 0) {
                ResponseFraming last = { .date = framing->date };

                c->output_end = before;
                c->closing = c->linger = true;
                response_set_error(r, 500);
                c->output_end += (uint32_t) response_write_head(r, &last, c->output + before);
                (void) append_body(c, r); /* text does not fail */
        }
        response_done(r);
        connection_set_state(c, CONNECTION_SENDING);
}

/* The answer to what could not be understood or does not come. Nothing after it can be trusted to be a
 * request. */
static int connection_answer_status(Connection *c, unsigned status) {
        Server *s = c->server;
        ResponseFraming framing = { .date = date_cache_get(&s->date, s->now_seconds) };

        server_count_request(s);
        response_init(&s->response);
        response_set_error(&s->response, status);
        connection_queue(c, &s->response, /* with_body= */ true, &framing);
        c->linger = true;
        return 1;
}

static unsigned status_from_errno(int r) {
        switch (r) {
        case -EMFILE:
        case -ENFILE:
        case -ENOMEM:
        case -EAGAIN:
                return 503;
        default:
                return 500;
        }
}

static int connection_answer(Connection *c) {
        Server *s = c->server;
        const HttpRequest *request = &s->request;
        HandlerCall call = {
                .request = request,
                .buf = c->input + c->input_start,
                .now = s->now_seconds,
                .request_number = s->n_requests + 1,
        };
        ResponseFraming framing = {
                .date = date_cache_get(&s->date, s->now_seconds),
                .old_client = request->minor_version == 0,
                .keep_alive = request->keep_alive && !s->draining && !c->linger,
        };
        int r;

        response_init(&s->response);
        r = s->handler.answer(s->handler.userdata, &call, &s->response);
        if (r < 0)
                response_set_error(&s->response, status_from_errno(r));
        server_count_request(s);

        if (request->keep_alive && !framing.keep_alive)
                c->linger = true;
        connection_queue(c, &s->response, request->method != HTTP_HEAD && s->response.status != 304,
                        &framing);
        connection_consume(c, request->head_size);
        return 1;
}

/* Decides what becomes of a body. Returns 0 or a status. */
static int connection_begin_body(Connection *c) {
        const HttpRequest *request = &c->server->request;

        if (!request->chunked && request->content_length == 0)
                return 0;
        if (request->content_length > CONNECTION_BODY_MAX)
                return 413;
        if (request->expect_continue) {
                /* Nobody here wants the body, and the client has asked before it sent it: it gets its
                 * answer, and since it may or may not send the body after that, the connection ends (RFC
                 * 9110, section 10.1.1). */
                c->linger = true;
                return 0;
        }
        c->in_body = true;
        c->head_size = request->head_size;
        c->body_left = request->content_length;
        c->chunked_body = request->chunked;
        c->chunked = (Chunked){ 0 };
        return 0;
}

/* Takes what is there of the body out of the buffer; the head before it stays, what follows moves up. */
static int connection_skip_body(Connection *c) {
        char *body = c->input + c->input_start + c->head_size;
        size_t n = input_size(c) - c->head_size, used;
        int r;

        if (c->chunked_body) {
                r = chunked_skip(&c->chunked, body, n, CONNECTION_BODY_MAX, &used);
                if (r >= 400)
                        return r;
        } else {
                used = (size_t) MIN((uint64_t) n, c->body_left);
                c->body_left -= used;
                r = c->body_left > 0 ? PARSER_MORE : PARSER_DONE;
        }
        memmove(body, body + used, n - used);
        c->input_end -= (uint32_t) used;
        return r;
}

/* The head is read again when its body is gone: the same bytes give the same request, and nothing but
 * offsets has to be kept in between. */
static int connection_finish_body(Connection *c) {
        Server *s = c->server;
        ParserScan scan = { 0 };
        int r;

        r = parser_parse_head(&scan, c->input + c->input_start, c->head_size, s->settings.max_request_head,
                        &s->request);
        assert(r == PARSER_DONE);
        c->in_body = false;
        return connection_answer(c);
}

/* 1: answered one, 0: needs more input. */
static int connection_answer_one(Connection *c) {
        Server *s = c->server;
        int r;

        if (!c->in_body) {
                r = parser_parse_head(&c->scan, c->input + c->input_start, input_size(c),
                                s->settings.max_request_head, &s->request);
                if (r == PARSER_MORE)
                        return 0;
                if (r >= 400)
                        return connection_answer_status(c, (unsigned) r);
                r = connection_begin_body(c);
                if (r >= 400)
                        return connection_answer_status(c, (unsigned) r);
                if (!c->in_body)
                        return connection_answer(c);
        }

        r = connection_skip_body(c);
        if (r == PARSER_MORE)
                return 0;
        if (r >= 400)
                return connection_answer_status(c, (unsigned) r);
        return connection_finish_body(c);
}

static int connection_take_output(Connection *c) {
        if (!c->output)
                c->output = pool_take(&c->server->pool);
        return c->output ? 0 : -ENOMEM;
}

/* 1: what is there must be sent first or the turn is over, 0: all complete requests are answered. */
static int connection_answer_all(Connection *c) {
        int r;

        if (!c->closing && input_size(c) > 0) {
                r = connection_take_output(c);
                if (r < 0)
                        return r;
        }
        while (!c->closing && input_size(c) > 0) {
                if (c->file_left > 0 || output_room(c) < RESPONSE_MAX || turn_is_over(c->server))
                        return 1;
                r = connection_answer_one(c);
                if (r <= 0)
                        return r;
        }
        return 0;
}

/* Only real progress moves the deadline: a byte now and then could hold a connection for ever. */
static void connection_progress(Connection *c, size_t n) {
        c->progress += (uint32_t) n;
        if (c->progress >= SERVER_SEND_PROGRESS)
                connection_arm(c);
}

/* What the kernel holds and the client has not got yet. */
static int64_t connection_unsent(const Connection *c) {
        int n;

        return ioctl(c->fd, SIOCOUTQ, &n) < 0 ? 0 : n;
}

/* Once per deadline, and only for clients that have to be waited for. */
static void connection_measure(Connection *c) {
        if (c->measured)
                return;
        c->measured = true;
        c->unsent = connection_unsent(c) - c->progress;
}

/* What was given to the kernel is not all that counts: its buffer may be so large that it takes nothing more
 * for longer than the time-out, while the client reads it steadily. */
static bool connection_is_taken(const Connection *c) {
        int64_t left = connection_unsent(c);

        return c->measured && (left == 0 || c->unsent + c->progress - left >= SERVER_SEND_PROGRESS);
}

static int flush_output(Connection *c) {
        while (c->output_start < c->output_end) {
                if (c->server->turn_bytes == 0)
                        return FLUSH_BLOCKED;
                ssize_t n = send(c->fd, c->output + c->output_start, c->output_end - c->output_start,
                                MSG_NOSIGNAL | (c->file_left > 0 ? MSG_MORE : 0));
                if (n < 0)
                        return errno == EAGAIN ? FLUSH_BLOCKED : -errno;
                turn_count_bytes(c->server, (size_t) n);
                c->output_start += (uint32_t) n;
                connection_progress(c, (size_t) n);
        }
        c->output_start = c->output_end = 0;
        return 0;
}

static int flush_file(Connection *c) {
        while (c->file_left > 0) {
                off_t offset = (off_t) c->file_offset;

                if (c->server->turn_bytes == 0)
                        return FLUSH_BLOCKED;
                ssize_t n = sendfile(c->fd, c->file_fd, &offset,
                                (size_t) MIN(c->file_left, (uint64_t) SENDFILE_MAX));
                if (n < 0)
                        return errno == EAGAIN ? FLUSH_BLOCKED : -errno;
                if (n == 0)
                        return -EIO; /* the file has shrunk: only the close tells the client that this is not
                                        all */
                turn_count_bytes(c->server, (size_t) n);
                c->file_offset += (uint64_t) n;
                c->file_left -= (uint64_t) n;
                connection_progress(c, (size_t) n);
        }
        c->file_fd = safe_close(c->file_fd);
        return 0;
}

static int connection_flush(Connection *c) {
        int r;

        r = flush_output(c);
        if (r != 0)
                return r;
        return c->file_fd >= 0 ? flush_file(c) : 0;
}

static ConnectionWant connection_drain_input(Connection *c) {
        Pool *pool = &c->server->pool;
        ConnectionWant want = CONNECTION_WANT_CLOSE;
        char *buf = pool_take(pool);

        while (buf && c->n_drained < LINGER_MAX) {
                ssize_t n = recv(c->fd, buf, pool->size, 0);
                if (n <= 0) {
                        if (n < 0 && errno == EAGAIN)
                                want = CONNECTION_WANT_READ;
                        break;
                }
                c->n_drained += (uint32_t) n;
        }
        pool_give(pool, buf);
        return want;
}

/* The last answer is sent. A client that asked for the close sends nothing more and needs no care. */
static ConnectionWant connection_finish(Connection *c) {
        if ((!c->linger && input_size(c) == 0) || shutdown(c->fd, SHUT_WR) < 0)
                return CONNECTION_WANT_CLOSE;
        c->input = pool_give(&c->server->pool, c->input);
        c->output = pool_give(&c->server->pool, c->output);
        connection_set_state(c, CONNECTION_LINGERING);
        return connection_drain_input(c);
}

/* Reads once; what is left wakes the loop up again. -ECONNRESET also for the regular end. */
static int connection_receive(Connection *c) {
        Pool *pool = &c->server->pool;

        if (!c->input)
                c->input = pool_take(pool);
        if (!c->input)
                return -ENOMEM;
        if (c->input_start > 0) {
                memmove(c->input, c->input + c->input_start, input_size(c));
                c->input_end -= c->input_start;
                c->input_start = 0;
        }

        size_t room = pool->size - c->input_end;
        assert(room > 0); /* a head that fills the buffer has been refused */
        ssize_t n = recv(c->fd, c->input + c->input_end, room, 0);
        if (n < 0)
                return errno == EAGAIN ? 0 : -errno;
        if (n == 0)
                return -ECONNRESET;
        c->input_end += (uint32_t) n;
        return 0;
}

/* Everything is answered and sent. */
static void connection_rest(Connection *c) {
        c->output = pool_give(&c->server->pool, c->output);
        if (input_size(c) == 0)
                c->input = pool_give(&c->server->pool, c->input);
        connection_set_state(c, c->input ? CONNECTION_READING : CONNECTION_IDLE);
}

/* Answers and sends what can be. 1: all of it, and the connection goes on. At the end of a turn the socket
 * is as good as full: the loop comes back when it can be written, after the others. */
static int connection_work(Connection *c, ConnectionWant *ret_want) {
        int left, r;

        do {
                left = connection_answer_all(c);
                r = left < 0 ? left : connection_flush(c);
                if (r == 0 && left && turn_is_over(c->server))
                        r = FLUSH_BLOCKED;
                if (r > 0)
                        connection_measure(c);
                if (r != 0) {
                        *ret_want = r < 0 ? CONNECTION_WANT_CLOSE : CONNECTION_WANT_WRITE;
                        return 0;
                }
        } while (left);
        if (!c->closing)
                return 1;
        *ret_want = connection_finish(c);
        return 0;
}

ConnectionWant connection_ready(Connection *c) {
        ConnectionWant want;

        if (c->state == CONNECTION_LINGERING)
                return connection_drain_input(c);

        turn_begin(c->server);
        if (!connection_work(c, &want))
                return want;
        if (connection_receive(c) < 0)
                return CONNECTION_WANT_CLOSE;
        if (!connection_work(c, &want))
                return want;
        connection_rest(c);
        return CONNECTION_WANT_READ;
}

/* Throws away what the kernel still holds for a client that does not read: it would hold it for minutes. */
static void connection_reset_on_close(Connection *c) {
        const struct linger linger = { .l_onoff = 1 };

        (void) setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &linger,
                        sizeof(linger)); /* AF_UNIX has nothing to throw away */
}

/* It may be us who are late (SIGSTOP, a stalled machine): what has come in time counts, and it is in the
 * kernel. */
static ConnectionWant connection_expired_receiving(Connection *c) {
        uint64_t n_requests = c->server->n_requests;
        ConnectionState before = c->state;
        ConnectionWant want;

        turn_begin(c->server);
        if (connection_receive(c) < 0 || input_size(c) == 0)
                return CONNECTION_WANT_CLOSE;
        if (!connection_work(c, &want))
                return want;
        if (before == CONNECTION_READING && c->server->n_requests == n_requests) {
                if (connection_take_output(c) < 0)
                        return CONNECTION_WANT_CLOSE;
                connection_answer_status(c, 408);
                return connection_ready(c);
        }
        connection_rest(c);
        return CONNECTION_WANT_READ;
}

ConnectionWant connection_expired(Connection *c) {
        switch (c->state) {
        case CONNECTION_IDLE:
        case CONNECTION_READING:
                return connection_expired_receiving(c);
        case CONNECTION_SENDING:
                if (connection_is_taken(c)) {
                        connection_arm(c);
                        connection_measure(c);
                        return CONNECTION_WANT_WRITE;
                }
                connection_reset_on_close(c);
                return CONNECTION_WANT_CLOSE;
        default:
                return CONNECTION_WANT_CLOSE;
        }
}
