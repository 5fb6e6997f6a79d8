/* SPDX-License-Identifier: MIT */
/* The life of a connection; see connection.h.
 *
 * A turn answers every complete request that is in the buffer, as long as the answers fit into one output
 * buffer, sends them together, and only then reads on. Requests are thus answered in their order and a
 * client that does not read its answers is not read either. A file is sent after what precedes it and before
 * the next request is looked at; so is the answer of a handler that takes its time.
 *
 * Buffers are taken for as long as there is something in them. The last answer of a connection is followed
 * by a half-close, and what the client still sends is thrown away for a while: close(2) with unread input
 * would make the kernel send a reset, at which many clients forget the answer that came before (RFC 9112,
 * section 9.6). */

#include "http/connection.h"

#include <errno.h>
#include <linux/sockios.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include "basic/clock.h"
#include "basic/fd.h"
#include "basic/macro.h"
#include "http/commit.h"
#include "http/connection-internal.h"
#include "http/outgoing.h"
#include "http/request-body.h"
#include "http/sender.h"

/* A turn gives so many answers and sends and reads so many bytes: one fast client cannot hold up the others
 * for long. */
#define TURN_ANSWERS 128
#define TURN_BYTES   (2 * 1024 * 1024)
#define TURN_READS   8

/* There must be room for this before a request is looked at: the head of any answer, an error page instead
 * of it, the end of a stream. */
#define ANSWER_ROOM (RESPONSE_HEAD_MAX + 2048)

/* A deadline is moved so often at most: fast clients make progress thousands of times a second. */
#define PROGRESS_GRAIN (100 * USEC_PER_MSEC)

typedef enum Step {
        STEP_ON,    /* something was done, and there may be more */
        STEP_INPUT, /* nothing can be done without more of what the client sends */
        STEP_WAIT,  /* … before the handler has done something */
        STEP_FLUSH, /* … before what waits has been sent */
        STEP_CLOSE,
} Step;

/* Row: from; bits: to. A request that is answered at once leaves no trace. */
#define AT_WORK                                                                                             \
        (1 << CONNECTION_IDLE | 1 << CONNECTION_READING | 1 << CONNECTION_BODY | 1 << CONNECTION_HANDLING | \
                        1 << CONNECTION_SENDING | 1 << CONNECTION_LINGERING)

static const uint8_t connection_edges[_CONNECTION_STATE_MAX] = {
        [CONNECTION_FREE] = 1 << CONNECTION_IDLE | 1 << CONNECTION_READING,
        [CONNECTION_IDLE] = AT_WORK,
        [CONNECTION_READING] = AT_WORK,
        [CONNECTION_BODY] = AT_WORK,
        [CONNECTION_HANDLING] = AT_WORK,
        [CONNECTION_SENDING] = AT_WORK,
        [CONNECTION_LINGERING] = 0,
};

static void connection_arm(Connection *c) {
        static const TimeoutClass classes[_CONNECTION_STATE_MAX] = {
                [CONNECTION_IDLE] = TIMEOUT_IDLE,
                [CONNECTION_READING] = TIMEOUT_REQUEST,
                [CONNECTION_BODY] = TIMEOUT_BODY,
                [CONNECTION_HANDLING] = TIMEOUT_ANSWER,
                [CONNECTION_SENDING] = TIMEOUT_SEND,
                [CONNECTION_LINGERING] = TIMEOUT_LINGER,
        };
        Server *s = c->server;
        uint8_t state = c->record->state;

        c->progress = 0;
        c->measured = false;
        c->armed_at = s->now;
        if (state == CONNECTION_IDLE && s->draining)
                server_arm(s, &c->timeout, TIMEOUT_DRAIN);
        else if (state == CONNECTION_HANDLING && c->exchange && c->exchange->phase != EXCHANGE_OPEN)
                server_disarm(&c->timeout); /* a stream that has nothing to say is fine */
        else
                server_arm(s, &c->timeout, classes[state]);
}

void connection_set_state(Connection *c, ConnectionState to) {
        if (c->record->state == to && !c->answered)
                return;
        c->answered = false;
        assert(connection_edges[c->record->state] & (1 << to));
        atomic_store_explicit(&c->record->state, (uint8_t) to, memory_order_release);
        connection_arm(c);
}

void connection_progress(Connection *c, size_t n) {
        c->progress += (uint32_t) n;
        if (c->progress >= SERVER_PROGRESS && c->server->now - c->armed_at >= PROGRESS_GRAIN)
                connection_arm(c);
}

void connection_wake(Connection *c) {
        if (c->server->current != c && list_empty(&c->runnable))
                list_append(&c->server->runnable, &c->runnable);
}

/* Who will be named in the log, while the socket still knows: of one that was reset it does not. */
static void connection_note_peer(Connection *c) {
        struct sockaddr_storage peer;
        socklen_t n = sizeof(peer);

        if (getpeername(c->fd, (struct sockaddr *) &peer, &n) >= 0)
                proxy_address_from_sockaddr(&peer, &c->record->client);
}

void connection_init(Connection *c, Server *server, int fd) {
        *c = (Connection){
                .server = server,
                .record = server->table.records + fd,
                .fd = fd,
                .input = BUFFER_NONE,
                .spool_fd = -EBADF,
                .replay = BUFFER_NONE,
                .file_fd = -EBADF,
        };
        list_init(&c->timeout.node);
        list_init(&c->runnable);
        server->n_opened = MAX(server->n_opened, (unsigned) fd + 1);
}

int connection_open(Server *server, int fd, Connection **ret) {
        Connection *c;

        if ((unsigned) fd >= server->table.n_records)
                return -EMFILE;
        c = server->connections + fd;
        connection_init(c, server, fd);
        assert(c->record->state == CONNECTION_FREE);
        *c->record = (Record){
                .busy = 1,
                .id = table_next_id(&server->table),
                .proxy = server->settings.proxy_protocol,
                .input = BUFFER_NONE,
                .stream_state = BUFFER_NONE,
                .out = OUTGOING_NONE,
        };
        connection_commit(c);
        if (server->log)
                connection_note_peer(c);
        connection_set_state(c, c->record->proxy ? CONNECTION_READING : CONNECTION_IDLE);
        server_count_connection(server);
        *ret = c;
        return 0;
}

/* The handler's last callbacks come while the connection is still whole. */
void connection_done(Connection *c) {
        Server *s = c->server;

        connection_begin_close(c);
        s->current = c;
        if (c->exchange)
                exchange_lose(c->exchange);
        s->current = NULL;

        list_remove(&c->timeout.node);
        list_remove(&c->runnable);
        c->input = table_give_buffer(&s->table, c->input);
        c->replay = table_give_buffer(&s->table, c->replay);
        c->record->stream_state = table_give_buffer(&s->table, c->record->stream_state);
        sender_release(c);
        c->fd = safe_close(c->fd);
        c->file_fd = safe_close(c->file_fd);
        c->spool_fd = safe_close(c->spool_fd);
        atomic_store_explicit(&c->record->state, CONNECTION_FREE, memory_order_release);
        server_uncount_connection(s);
}

static void turn_begin(Server *s) {
        s->turn_answers = TURN_ANSWERS;
        s->turn_bytes = TURN_BYTES;
}

static bool turn_is_over(const Server *s) {
        return s->turn_answers == 0 || s->turn_bytes == 0;
}

/* What was read of the input is dealt with. */
static void connection_consume_to(Connection *c, uint32_t offset) {
        Record *r = c->record;

        r->input_start = offset;
        if (r->input_start == r->input_end) {
                r->input_start = r->input_end = 0;
                c->moved = true;
        }
        r->scan = (ParserScan){ 0 };
}

/* The commit that holds says where the beginning of the body is. */
void connection_forget_gap(Connection *c) {
        if (!c->gap)
                return;
        c->gap = c->blind = false;
        connection_commit(c);
        c->spool_fd = safe_close(c->spool_fd);
        c->replay = table_give_buffer(&c->server->table, c->replay);
        c->replay_at = c->replay_end = c->spooled = 0;
}

void connection_release_head(Connection *c) {
        Record *r = c->record;

        c->continued = false;
        if (r->head_size == 0)
                return; /* it was no request */
        r->head_size = 0;
        connection_consume_to(c, r->body_at);
        r->body_at = r->input_start;
        connection_forget_gap(c);
}

static void connection_open_exchange(Connection *c, Exchange *x, uint64_t number, uint64_t began) {
        memset(x, 0, offsetof(Exchange, next_spare));
        response_init(&x->response);
        x->server = c->server;
        x->number = number;
        x->began = began;
        x->connection = c;
        c->exchange = x;
}

static void connection_open_next_exchange(Connection *c, Exchange *x) {
        connection_open_exchange(c, x, server_count_request(c->server), c->server->now);
}

/* The answer to what could not be understood or does not come. Nothing after it can be trusted to be a
 * request. */
static Step connection_answer_status(Connection *c, Exchange *x, unsigned status) {
        Record *r = c->record;

        memset(&x->request, 0, offsetof(HttpRequest, fields));
        x->request.keep_alive = true; /* as far as the client knows */
        x->request.minor_version = 1;
        x->request.method = _HTTP_METHOD_INVALID;
        connection_open_next_exchange(c, x);
        r->linger = true;
        r->body.kind = RECORD_BODY_NONE;
        r->head_size = 0;
        c->answered = true;
        exchange_respond_status(x, status);
        return r->broken ? STEP_CLOSE : STEP_FLUSH;
}

/* While the head is being answered nothing in the buffer may move. There must be room for the body behind
 * it. */
static int connection_align_input(Connection *c) {
        Table *t = &c->server->table;
        Record *r = c->record;
        uint32_t from = c->input, to, n = (uint32_t) connection_input_size(c);

        if (r->input_start == 0)
                return 0;
        to = table_take_buffer(t);
        if (to == BUFFER_NONE)
                return -ENOMEM;
        memcpy(table_buffer(t, to), connection_input(c) + r->input_start, n);
        c->input = to;
        r->input_start = 0;
        r->input_end = n;
        connection_commit(c);
        (void) table_give_buffer(t, from);
        return 0;
}

/* What a request comes to that was given to a handler before, by a process that has died. */
static unsigned connection_judge(const Connection *c, const Exchange *x, uint64_t mark) {
        const Record *r = c->record;

        if (r->suspect == mark && r->blame >= RECORD_BLAME_MAX)
                return 500;
        if (c->blind)
                return 503;
        if (http_method_is_safe(x->request.method) || r->keyed == mark || commit_holding(r)->stream_resumes)
                return 0;
        return 503;
}

/* Of an answer that has begun only the end can tell that there is no more of it. */
static Step connection_refuse(Connection *c, Exchange *x, unsigned status) {
        c->record->linger = true;
        if (c->server->on_refused)
                c->server->on_refused(c->server->refused_userdata, x, status);
        if (c->resumes) {
                c->record->broken = true;
                exchange_abort(x);
                return STEP_CLOSE;
        }
        if (status == 503)
                response_set_error_text(&x->response, status, "Outcome unknown");
        else
                response_set_error(&x->response, status);
        exchange_respond(x);
        return c->record->broken ? STEP_CLOSE : STEP_FLUSH;
}

/* Of a request that is run again, what of its body is not in the input. */
static void connection_replay_body(Connection *c, uint64_t mark) {
        Record *r = c->record;
        uint64_t tail = connection_offset(c, r->body_at);

        if (!c->gap)
                return;
        c->replay_at = 0;
        c->replay_end = c->spooled = tail - (mark - 1) - r->head_size;
}

static bool request_has_body(const HttpRequest *request) {
        return request->chunked || request->content_length > 0;
}

static Step connection_handle(Connection *c, Exchange *x) {
        const HttpRequest *request = &x->request;
        Record *r = c->record;
        uint64_t mark = c->gap ? r->handling : connection_offset(c, r->input_start) + 1;
        unsigned status = 0;

        if (request_has_body(request) && !c->gap && connection_align_input(c) < 0) {
                server_give_exchange(c->server, x);
                return STEP_CLOSE;
        }
        request_body_begin(r, request);
        if (c->continued)
                r->continue_due = false;
        if (mark <= r->handling)
                status = connection_judge(c, x, mark);
        r->head_size = request->head_size;
        r->body_at = r->input_start + request->head_size;
        connection_replay_body(c, mark);

        c->answered = true;
        connection_open_next_exchange(c, x);
        x->id_connection = r->id;
        x->id_offset = mark - 1;
        if (status != 0)
                return connection_refuse(c, x, status);
        if (c->server->handler.reruns)
                r->keyed = MAX(r->keyed, mark);
        atomic_signal_fence(memory_order_release); /* whoever finds the second finds the first */
        r->at_work = mark;
        r->handling = MAX(r->handling, mark);
        c->server->handler.request(c->server->handler.userdata, x);
        return STEP_ON;
}

static Step connection_read_request(Connection *c) {
        Server *s = c->server;
        Record *r = c->record;
        Exchange *x;
        int k;

        if (turn_is_over(s) || sender_prepare(c, ANSWER_ROOM) < 0)
                return r->out.buffer == BUFFER_NONE ? STEP_CLOSE : STEP_FLUSH;
        x = server_take_exchange(s);
        if (!x)
                return STEP_CLOSE;

        k = parser_parse_head(&r->scan, connection_input(c) + r->input_start, connection_input_size(c),
                        s->settings.max_request_head, &x->request);
        if (k == PARSER_DONE)
                return connection_handle(c, x);
        if (k >= 400)
                return connection_answer_status(c, x, (unsigned) k);
        server_give_exchange(s, x);
        return STEP_INPUT;
}

/* What is left of the body of a request that has been answered. */
static Step connection_skip_body(Connection *c) {
        Record *r = c->record;
        int k;

        if (r->body_at == r->input_end)
                return STEP_INPUT;
        k = request_body_skip(c);
        connection_consume_to(c, r->body_at);
        r->body_at = r->input_start;
        if (k == 0)
                return STEP_ON;
        r->closing = r->linger = true; /* malformed, or too much of it: what follows is no request */
        return STEP_FLUSH;
}

/* Who does not begin as the proxy does is not the proxy: it gets no answer (HAProxy's proxy-protocol.txt,
 * section 2). */
static Step connection_read_proxy(Connection *c) {
        Record *r = c->record;
        char reason[PROXY_REASON_MAX];
        ProxyHeader header;
        size_t needed;

        if (r->proxy_left == 0) {
                switch (proxy_protocol_parse((const uint8_t *) connection_input(c) + r->input_start,
                                connection_input_size(c), &header, &needed, reason)) {
                case PROXY_PROTOCOL_MORE:
                        return STEP_INPUT;
                case PROXY_PROTOCOL_INVALID:
                        if (c->server->on_no_proxy)
                                c->server->on_no_proxy(c->server->no_proxy_userdata, reason);
                        return STEP_CLOSE;
                }
                r->proxy_left = (uint32_t) header.length;
                if (header.source.family != AF_UNSPEC)
                        r->client = header.source;
        }
        uint32_t n = MIN(r->proxy_left, (uint32_t) connection_input_size(c));
        r->proxy_left -= n;
        r->proxy = r->proxy_left > 0;
        connection_consume_to(c, r->input_start + n);
        return STEP_ON;
}

static Step connection_step(Connection *c) {
        Record *r = c->record;

        if (r->broken)
                return STEP_CLOSE;
        if (c->file_fd >= 0)
                return STEP_FLUSH; /* the answer of a process that has died comes first */
        if (c->exchange)
                return request_body_deliver(c, c->exchange)  ? STEP_ON
                       : request_body_is_wanted(c->exchange) ? STEP_INPUT
                                                             : STEP_WAIT;
        if (r->closing)
                return STEP_FLUSH;
        if (r->body.kind != RECORD_BODY_NONE)
                return connection_skip_body(c);
        if (connection_input_size(c) == 0)
                return STEP_INPUT;
        return r->proxy ? connection_read_proxy(c) : connection_read_request(c);
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

        return c->measured && (left == 0 || c->unsent + c->progress - left >= SERVER_PROGRESS);
}

/* However much comes: what ends it is the client, or the time-out. */
static ConnectionWant connection_drain_input(Connection *c) {
        Table *t = &c->server->table;
        ConnectionWant want = CONNECTION_WANT_READ;
        uint32_t buffer = table_take_buffer(t);

        if (buffer == BUFFER_NONE)
                return CONNECTION_WANT_CLOSE;
        for (int i = 0; i < TURN_READS; i++) {
                ssize_t n = recv(c->fd, table_buffer(t, buffer), t->buffer_size, 0);
                if (n > 0)
                        continue;
                if (n == 0 || errno != EAGAIN)
                        want = CONNECTION_WANT_CLOSE;
                break;
        }
        table_give_buffer(t, buffer);
        return want;
}

/* What the client has sent and nobody has read: an empty line behind a body (RFC 9112, section 2.2), or
 * requests behind the one that it called the last. */
static bool connection_has_unread(const Connection *c) {
        int n;

        return connection_input_size(c) > 0 || (ioctl(c->fd, SIOCINQ, &n) >= 0 && n > 0);
}

/* The last answer is sent. A client that asked for the close sends nothing more and needs no care, unless it
 * has done so nevertheless or is about to send a body that nobody wanted. */
static ConnectionWant connection_finish(Connection *c) {
        Record *r = c->record;

        bool linger = r->linger || r->body.kind != RECORD_BODY_NONE || connection_has_unread(c);

        if (!linger || shutdown(c->fd, SHUT_WR) < 0)
                return CONNECTION_WANT_CLOSE;
        connection_set_state(c, CONNECTION_LINGERING);
        c->input = table_give_buffer(&c->server->table, c->input);
        r->input_start = r->input_end = 0;
        sender_release(c);
        return connection_drain_input(c);
}

/* Throws away what the kernel still holds for a client that does not read (it would hold it for minutes), or
 * that must see that its answer is not complete. */
static void connection_reset_on_close(Connection *c) {
        const struct linger linger = { .l_onoff = 1 };

        c->record->broken = true;
        connection_begin_close(c); /* whoever takes over does not go on with what is to end so */
        (void) setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &linger,
                        sizeof(linger)); /* AF_UNIX has nothing to throw away */
}

static ConnectionWant connection_broken(Connection *c) {
        if (c->record->broken)
                connection_reset_on_close(c);
        return CONNECTION_WANT_CLOSE;
}

/* Something waits that the socket does not take now, or the turn is over: then the socket is as good as
 * full, and the loop comes back when it can be written, after the others. */
static ConnectionWant connection_blocked(Connection *c) {
        bool reads = c->exchange && request_body_is_wanted(c->exchange);

        connection_set_state(c, reads ? CONNECTION_BODY : CONNECTION_SENDING);
        connection_measure(c);
        return CONNECTION_WANT_WRITE | (reads ? CONNECTION_WANT_READ : 0);
}

/* All that waited is sent. Returns whether that allows anybody to go on. */
static bool connection_sent(Connection *c) {
        Exchange *x = c->exchange;

        if (c->file_fd >= 0) {
                c->record->out.file_fd = -EBADF;
                c->file_fd = safe_close(c->file_fd);
                return true;
        }
        if (!x)
                return false;
        if (x->phase == EXCHANGE_SENDING) {
                exchange_finish(x);
                return true;
        }
        if (!x->blocked)
                return false;
        x->blocked = false;
        if (x->on_writable)
                x->on_writable(x);
        return true;
}

/* Answers and sends what can be. True: all of it, and what there is to wait for depends on *ret_step; else
 * it is *ret_want. */
static bool connection_work(Connection *c, Step *ret_step, ConnectionWant *ret_want) {
        Step step;
        int k;

        for (;;) {
                do
                        step = connection_step(c);
                while (step == STEP_ON);
                k = step == STEP_CLOSE ? -ECONNABORTED : sender_flush(c);
                if (k != 0) {
                        *ret_want = k < 0 ? connection_broken(c) : connection_blocked(c);
                        return false;
                }
                if (connection_sent(c))
                        continue;
                if (c->record->closing && !c->exchange) {
                        *ret_want = connection_finish(c);
                        return false;
                }
                if (step != STEP_FLUSH) {
                        *ret_step = step;
                        return true;
                }
                if (turn_is_over(c->server)) {
                        *ret_want = connection_blocked(c);
                        return false;
                }
        }
}

static ssize_t connection_recv(Connection *c, size_t room) {
        Record *r = c->record;

        atomic_store_explicit(&r->in_call, 1, memory_order_release);
        ssize_t n = recv(c->fd, connection_input(c) + r->input_end, room, 0);
        if (n > 0)
                r->received += (uint64_t) n;
        atomic_store_explicit(&r->in_call, 0, memory_order_release);
        return n;
}

/* 1: it was as much as there is room for; 0: that is all for now. -ECONNRESET also for the regular end. */
static int connection_receive(Connection *c) {
        Table *t = &c->server->table;
        Record *r = c->record;

        if (c->input == BUFFER_NONE) {
                c->input = table_take_buffer(t);
                if (c->input == BUFFER_NONE)
                        return -ENOMEM;
                r->input_start = r->input_end = r->body_at = 0;
        }
        if (c->exchange || r->body.kind != RECORD_BODY_NONE)
                request_body_make_room(c);
        else if (connection_align_input(c) < 0)
                return -ENOMEM;
        if (c->moved)
                connection_commit(c);
        r->input = c->input; /* where a commit without one means */

        size_t room = t->buffer_size - r->input_end;
        assert(room > 0); /* a head that fills the buffer has been refused */
        ssize_t n = connection_recv(c, room);
        if (n < 0)
                return errno == EAGAIN ? 0 : -errno;
        if (n == 0)
                return -ECONNRESET;
        r->input_end += (uint32_t) n;
        /* Also of a handler that pauses the body after each piece, and never waits for the next. */
        if (r->state == CONNECTION_BODY || r->state == CONNECTION_HANDLING)
                connection_progress(c, (size_t) n);
        return (size_t) n == room;
}

/* Everything that can be is answered and sent. */
static ConnectionWant connection_rest(Connection *c) {
        Record *r = c->record;

        if (sender_is_idle(c)) /* a stream may keep something back */
                sender_release(c);
        if (c->exchange && !request_body_is_wanted(c->exchange)) {
                connection_set_state(c, CONNECTION_HANDLING);
                return r->half_closed ? CONNECTION_WANT_NOTHING : CONNECTION_WANT_HANGUP;
        }
        if (c->exchange || r->body.kind != RECORD_BODY_NONE) {
                connection_set_state(c, CONNECTION_BODY);
                return CONNECTION_WANT_READ;
        }
        if (connection_input_size(c) == 0 && c->input != BUFFER_NONE) {
                if (c->moved)
                        connection_commit(c);
                c->input = table_give_buffer(&c->server->table, c->input);
        }
        connection_set_state(c, c->input != BUFFER_NONE || r->proxy ? CONNECTION_READING : CONNECTION_IDLE);
        return CONNECTION_WANT_READ;
}

/* What comes is read as long as somebody wants it: also while what goes is stuck, as a client may read
 * nothing before it has sent all. */
static ConnectionWant connection_turn(Connection *c) {
        ConnectionWant want = CONNECTION_WANT_READ;
        Step step = STEP_INPUT;
        bool rests = true;
        int k = 1;

        /* Of an idle one nothing waits. */
        if (c->record->state != CONNECTION_IDLE)
                rests = connection_work(c, &step, &want);
        for (int i = 0; i < TURN_READS && k > 0; i++) {
                if (rests ? step != STEP_INPUT : !c->exchange || !(want & CONNECTION_WANT_READ))
                        break;
                k = connection_receive(c);
                if (k < 0)
                        return CONNECTION_WANT_CLOSE;
                rests = connection_work(c, &step, &want);
        }
        return rests ? connection_rest(c) : want;
}

ConnectionWant connection_ready(Connection *c) {
        Server *s = c->server;
        ConnectionWant want;

        if (c->record->state == CONNECTION_LINGERING)
                return connection_drain_input(c);
        turn_begin(s);
        s->current = c;
        want = connection_turn(c);
        s->current = NULL;
        return want;
}

/* A client that has sent its request may close its side and wait for the answer. Of a stream without an end
 * in sight the handler is told: most clients just leave like that. */
ConnectionWant connection_hung_up(Connection *c, bool half_closed) {
        Exchange *x = c->exchange;

        if (c->record->state != CONNECTION_HANDLING)
                return connection_ready(c);
        if (!half_closed)
                return CONNECTION_WANT_CLOSE;
        c->record->half_closed = true;
        if (x && x->phase == EXCHANGE_STREAM && x->left == RESPONSE_SIZE_UNKNOWN)
                exchange_tell_gone(x);
        return connection_ready(c);
}

/* It may be us who are late (SIGSTOP, a stalled machine): what has come in time counts, and it is in the
 * kernel. */
static ConnectionWant connection_expired_receiving(Connection *c) {
        Server *s = c->server;
        uint64_t n_requests = s->n_requests;
        bool reading = c->record->state == CONNECTION_READING;
        ConnectionWant want;
        Exchange *x;
        Step step;

        if (connection_receive(c) < 0 || connection_input_size(c) == 0)
                return CONNECTION_WANT_CLOSE;
        if (!connection_work(c, &step, &want))
                return want;
        if (!reading || s->n_requests != n_requests)
                return connection_rest(c);
        if (c->record->proxy || sender_prepare(c, ANSWER_ROOM) < 0 || !(x = server_take_exchange(s)))
                return CONNECTION_WANT_CLOSE;
        (void) connection_answer_status(c, x, 408);
        return connection_turn(c);
}

static ConnectionWant connection_expired_body(Connection *c) {
        ConnectionWant want;
        Step step;
        int k;

        k = connection_receive(c);
        if (k < 0)
                return CONNECTION_WANT_CLOSE;
        if (k == 0 && c->record->body_at == c->record->input_end) {
                if (!c->exchange)
                        return CONNECTION_WANT_CLOSE;
                request_body_fail(c, c->exchange, -ETIMEDOUT);
        }
        connection_arm(c); /* also if it stays in this state because the answer is stuck */
        return connection_work(c, &step, &want) ? connection_rest(c) : want;
}

/* The handler does not answer: somebody must, and that is what this request comes to. What the handler says
 * later goes nowhere. */
static ConnectionWant connection_expired_handling(Connection *c) {
        Exchange *x = server_take_exchange(c->server), *late = c->exchange;
        uint64_t number = late->number, began = late->began;

        if (!x || sender_prepare(c, ANSWER_ROOM) < 0) {
                if (x)
                        server_give_exchange(c->server, x);
                return CONNECTION_WANT_CLOSE;
        }
        x->request = late->request;
        late->replaced = true;
        exchange_lose(late);
        connection_open_exchange(c, x, number, began);
        c->record->linger = true;
        c->answered = true;
        exchange_respond_status(x, 503);
        return connection_turn(c);
}

static ConnectionWant connection_expired_sending(Connection *c) {
        if (!connection_is_taken(c)) {
                connection_reset_on_close(c);
                return CONNECTION_WANT_CLOSE;
        }
        connection_arm(c);
        connection_measure(c);
        return CONNECTION_WANT_WRITE;
}

/* Outside of its turn, which is yet to come, something was said by which it waits for something else now:
 * for that nobody is late. */
static bool connection_moves_on(const Connection *c) {
        const Exchange *x = c->exchange;
        bool reads = x && request_body_is_wanted(x);

        if (list_empty(&c->runnable))
                return false;
        if (!x || c->record->broken)
                return true;
        return c->record->state == CONNECTION_BODY ? !reads : reads || x->phase != EXCHANGE_OPEN;
}

static ConnectionWant connection_expire(Connection *c) {
        bool waits = c->record->state == CONNECTION_BODY || c->record->state == CONNECTION_HANDLING;

        if (waits && connection_moves_on(c)) {
                connection_arm(c);
                return connection_turn(c);
        }
        switch (atomic_load_explicit(&c->record->state, memory_order_relaxed)) {
        case CONNECTION_IDLE:
        case CONNECTION_READING:
                return connection_expired_receiving(c);
        case CONNECTION_BODY:
                return connection_expired_body(c);
        case CONNECTION_HANDLING:
                return connection_expired_handling(c);
        case CONNECTION_SENDING:
                return connection_expired_sending(c);
        default:
                return CONNECTION_WANT_CLOSE;
        }
}

ConnectionWant connection_expired(Connection *c) {
        Server *s = c->server;
        ConnectionWant want;

        turn_begin(s);
        s->current = c;
        want = connection_expire(c);
        s->current = NULL;
        return want;
}
