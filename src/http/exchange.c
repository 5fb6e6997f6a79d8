/* SPDX-License-Identifier: MIT */
/* Requests and their answers; see exchange.h. */

#include "http/exchange.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "basic/macro.h"
#include "http/commit.h"
#include "http/connection-internal.h"
#include "http/sender.h"

/* Around each chunk: up to eight digits, two line ends. */
#define CHUNK_OVERHEAD 12

/* The last chunk and the trailers. */
#define TRAILERS_MAX   1024
#define CHUNK_END_ROOM (TRAILERS_MAX + 8)

const char *exchange_head(const Exchange *x) {
        if (!x->connection)
                return x->kept_head ?: "";
        return connection_input(x->connection) + x->connection->record->input_start;
}

const char *exchange_received(const Exchange *x, size_t *ret_size) {
        bool whole = !x->connection || x->connection->record->head_size > 0;

        *ret_size = whole ? x->request.head_size : connection_input_size(x->connection);
        return exchange_head(x);
}

bool exchange_field(const Exchange *x, const char *name, const char **ret, size_t *ret_size) {
        const char *head = exchange_head(x);
        HttpSlice value;
        unsigned i = 0;

        if (!parser_next_field(&x->request, head, name, &i, &value))
                return false;
        *ret = head + value.offset;
        *ret_size = value.length;
        return true;
}

ssize_t exchange_peer(const Exchange *x, struct sockaddr_storage *ret) {
        socklen_t n = sizeof(*ret);

        const ProxyAddress *known = x->connection ? &x->connection->record->client : &x->kept_peer;

        if (known->family != AF_UNSPEC || !x->connection)
                return (ssize_t) proxy_address_to_sockaddr(known, ret);
        if (getpeername(x->connection->fd, (struct sockaddr *) ret, &n) < 0)
                return -errno;
        return (ssize_t) n;
}

/* The commit that holds says where the state of a stream is. */
static void connection_forget_state(Connection *c) {
        Record *r = c->record;

        if (r->stream_state == BUFFER_NONE)
                return;
        c->resumes = false;
        connection_commit(c);
        r->stream_state = table_give_buffer(&c->server->table, r->stream_state);
}

void exchange_finish(Exchange *x) {
        Connection *c = x->connection;
        Server *s = x->server;

        if (s->log && !x->replaced)
                s->log(s->log_userdata, x);
        if (c) {
                c->exchange = NULL;
                connection_release_head(c);
                connection_forget_state(c);
        }
        response_done(&x->response);
        free(x->kept_head);
        free(x->trailers);
        server_give_exchange(s, x);
}

static void exchange_keep_peer(Exchange *x) {
        struct sockaddr_storage address;

        if (exchange_peer(x, &address) > 0)
                proxy_address_from_sockaddr(&address, &x->kept_peer);
}

/* The head lies in the connection's buffer, and the handler may go on reading it. */
static void exchange_keep_head(Exchange *x) {
        x->kept_head = malloc(x->request.head_size);
        if (x->kept_head)
                memcpy(x->kept_head, exchange_head(x), x->request.head_size);
        else
                memset(&x->request, 0, offsetof(HttpRequest, fields)); /* nothing is left to be read */
}

int exchange_gone_error(const Exchange *x) {
        return x->server->ending ? -ECANCELED : -ECONNRESET;
}

void exchange_tell_gone(Exchange *x) {
        void (*on_gone)(Exchange *) = x->on_gone;

        x->on_gone = NULL; /* once */
        if (on_gone)
                on_gone(x);
}

void exchange_lose(Exchange *x) {
        Connection *c = x->connection;

        x->aborted = true;
        if (x->phase == EXCHANGE_SENDING) {
                x->sent -= MIN(x->sent, c->record->out.file_left);
                exchange_finish(x);
                return;
        }
        exchange_keep_peer(x);
        exchange_keep_head(x);
        c->exchange = NULL;
        x->connection = NULL;
        if (x->reading && x->on_body_end) {
                x->reading = false;
                x->on_body_end(x, exchange_gone_error(x));
        } else
                exchange_tell_gone(x);
}

/* Whether the connection can go on behind this request: what is left of its body must be skipped, and a
 * client that waits for the word to send it may or may not send it after this answer (RFC 9110,
 * section 10.1.1). */
static bool can_skip_body(const Connection *c) {
        const Record *r = c->record;

        if (c->replay_at < c->replay_end)
                return false;
        return r->body.kind == RECORD_BODY_NONE ||
               (!r->continue_due &&
                               (r->body.kind == RECORD_BODY_CHUNKED || r->body.left <= CONNECTION_SKIP_MAX));
}

/* Decides how the answer ends, and whether the connection does. */
static ResponseFraming exchange_frame(Exchange *x) {
        Record *record = x->connection->record;
        const Response *r = &x->response;
        bool has_body = response_status_has_body(r->status);
        ResponseFraming f = {
                .date = date_cache_get(&x->server->date, x->server->now_seconds),
                .old_client = x->request.minor_version == 0,
                .has_length = has_body && r->size != RESPONSE_SIZE_UNKNOWN,
        };

        x->no_body = !has_body || x->request.method == HTTP_HEAD;
        f.chunked = x->chunked = has_body && !f.has_length && !f.old_client;
        x->headless = has_body && !f.has_length && f.old_client;
        f.keep_alive = x->request.keep_alive && !x->server->draining && !record->linger &&
                       can_skip_body(x->connection);
        if (x->request.keep_alive && !f.keep_alive)
                record->linger = true;
        if (x->headless)
                f.keep_alive = false;
        record->closing = !f.keep_alive;
        return f;
}

static void exchange_put_head(Exchange *x, const ResponseFraming *f) {
        Connection *c = x->connection;
        Record *r = c->record;
        char *output = table_buffer(&c->server->table, r->out.buffer);

        c->server->turn_answers -= c->server->turn_answers > 0;
        r->out.end += (uint32_t) response_write_head(&x->response, f, output + r->out.end);
        r->continue_due = false;
        c->unsaid = true;
}

static unsigned status_from_errno(int r) {
        switch (r) {
        case -EMFILE:
        case -ENFILE:
        case -ENOMEM:
        case -ENOSPC:
        case -EAGAIN:
                return 503;
        default:
                return 500;
        }
}

/* The body cannot be had: another answer takes the place of this one. */
static void exchange_put_error(Exchange *x, int error, uint32_t output_end) {
        Record *record = x->connection->record;
        ResponseFraming f;

        record->out.end = output_end;
        record->linger = true;
        response_clear_fields(&x->response);
        response_set_error(&x->response, status_from_errno(error));
        f = exchange_frame(x);
        exchange_put_head(x, &f);
        if (!x->no_body)
                (void) sender_put_body(x->connection, &x->response); /* a page always fits */
}

static size_t head_room(const Response *r) {
        return RESPONSE_HEAD_MAX - RESPONSE_FIELDS_MAX + r->fields_size;
}

static int exchange_queue(Exchange *x) {
        Connection *c = x->connection;
        Response *r = &x->response;
        size_t room = head_room(r) + RESPONSE_PAGE_MAX;
        ResponseFraming f;
        int k;

        if (c->resumes)
                return -EPROTO; /* another process has begun another answer */
        if (r->body == RESPONSE_BODY_MEMORY && r->size < c->server->table.buffer_size - room)
                room += r->size;
        k = sender_prepare(c, room);
        if (k == -EAGAIN)
                k = sender_prepare(c, head_room(r) + RESPONSE_PAGE_MAX);
        if (k < 0)
                return k;

        uint32_t before = c->record->out.end;
        f = exchange_frame(x);
        exchange_put_head(x, &f);
        if (!x->no_body && r->size > 0) {
                k = sender_put_body(c, r);
                if (k < 0)
                        exchange_put_error(x, k, before);
        }
        x->sent = x->no_body ? 0 : r->size;
        return 0;
}

static void connection_break(Connection *c) {
        c->record->broken = true;
        connection_wake(c);
}

/* The rest takes its time, and the body is not needed any more. */
static void exchange_send(Exchange *x) {
        x->phase = EXCHANGE_SENDING;
        connection_forget_gap(x->connection);
}

void exchange_respond(Exchange *x) {
        Connection *c = x->connection;

        assert(x->phase == EXCHANGE_OPEN);
        if (!c) {
                exchange_finish(x);
                return;
        }
        if (exchange_queue(x) < 0) {
                x->aborted = true;
                connection_break(c);
                exchange_finish(x);
                return;
        }
        bool safe = http_method_is_safe(x->request.method);
        if (c->record->out.file_left > 0 || c->record->out.parts != BUFFER_NONE)
                exchange_send(x);
        else
                exchange_finish(x);
        if (!safe)
                connection_commit(c); /* what it has done is told, whatever happens to this process */
        connection_wake(c);
}

void exchange_respond_status(Exchange *x, unsigned status) {
        response_set_error(&x->response, status);
        exchange_respond(x);
}

void exchange_read_body(Exchange *x, uint64_t max) {
        x->body_max = MIN(max, x->server->settings.max_body);
        x->reading = true;
        if (x->connection)
                connection_wake(x->connection);
}

void exchange_pause_body(Exchange *x, bool paused) {
        x->paused = paused;
        if (x->connection)
                connection_wake(x->connection); /* also for the time-out: what is paused does not come late
                                                 */
}

/* The head was sent by another process. */
static void exchange_resume(Exchange *x) {
        Connection *c = x->connection;
        const Commit *k = commit_holding(c->record);

        c->resumes = false;
        (void) exchange_frame(x);
        c->record->closing = k->closing;
        c->record->linger = k->linger;
        x->chunked = k->stream_chunked;
        x->left = x->covered_left = k->stream_left;
        x->stream_start = k->stream_start;
        x->stream_body = k->stream_body;
        x->state_at = k->stream_at;
        x->state_size = k->stream_size;
        x->covered = c->record->out.end;
        x->staged = k->stream_resumes;
        response_clear_fields(&x->response);
        if (c->record->state == CONNECTION_HANDLING)
                server_disarm(&c->timeout); /* the answer goes on in time */
        connection_wake(c);
}

int exchange_begin(Exchange *x) {
        Connection *c = x->connection;
        ResponseFraming f;
        int k;

        assert(x->phase == EXCHANGE_OPEN);
        x->response.body = RESPONSE_BODY_STREAM;
        x->phase = EXCHANGE_STREAM;
        x->left = x->response.size;
        if (!c)
                return -ECONNRESET;
        if (c->resumes) {
                exchange_resume(x);
                return 0;
        }
        k = sender_prepare(c, head_room(&x->response) + CHUNK_END_ROOM);
        if (k < 0) {
                connection_break(c);
                return k;
        }
        x->stream_start = c->record->sent + (c->record->out.end - c->record->out.start);
        f = exchange_frame(x);
        exchange_put_head(x, &f);
        x->stream_body = c->record->sent + (c->record->out.end - c->record->out.start);
        x->covered_left = x->left;
        response_clear_fields(&x->response); /* what is added now are trailers */
        if (c->record->state == CONNECTION_HANDLING)
                server_disarm(&c->timeout); /* the answer has begun in time */
        connection_wake(c);
        return 0;
}

size_t exchange_room(const Exchange *x) {
        size_t room;

        if (!x->connection)
                return 0;
        room = sender_room(x->connection);
        return room > CHUNK_OVERHEAD + CHUNK_END_ROOM ? room - CHUNK_OVERHEAD - CHUNK_END_ROOM : 0;
}

static void put_piece(Exchange *x, const char *data, size_t n) {
        char size[CHUNK_OVERHEAD + 1];

        if (x->chunked)
                sender_put(x->connection, size, (size_t) snprintf(size, sizeof(size), "%zx\r\n", n));
        sender_put(x->connection, data, n);
        if (x->chunked)
                sender_put(x->connection, "\r\n", 2);
        x->sent += n;
        if (x->left != RESPONSE_SIZE_UNKNOWN)
                x->left -= n;
}

/* Returns how many bytes there is a place for; sends what waits if there is none. @taken: some were taken,
 * so that what waits for a checkpoint may still get it. */
static size_t make_room(Exchange *x, bool taken) {
        Connection *c = x->connection;

        if (exchange_room(x) == 0 && sender_flush(c) < 0)
                connection_break(c);
        if (exchange_room(x) == 0 && !taken && x->staged && x->covered == c->record->out.start) {
                x->staged = false; /* it does not fit: nobody else can go on with this */
                c->unsaid = true;
                if (sender_flush(c) < 0)
                        connection_break(c);
        }
        if (sender_prepare(c, 0) < 0) {
                connection_break(c);
                return 0;
        }
        return exchange_room(x);
}

ssize_t exchange_write(Exchange *x, const void *data, size_t n) {
        const char *p = data;
        size_t done = 0;

        assert(x->phase == EXCHANGE_STREAM);
        if (!x->connection || x->connection->record->broken)
                return -ECONNRESET;
        if (x->left != RESPONSE_SIZE_UNKNOWN && n > x->left)
                return -EMSGSIZE;
        if (x->no_body)
                return (ssize_t) n;

        while (done < n) {
                size_t room = make_room(x, done > 0), k = MIN(n - done, room);
                if (k == 0)
                        break;
                put_piece(x, p + done, k);
                done += k;
        }
        x->blocked = done < n;
        connection_wake(x->connection);
        return (ssize_t) done;
}

int exchange_add_trailer(Exchange *x, const char *name, const char *value) {
        if (x->response.fields_size + strlen(name) + strlen(value) + 4 > TRAILERS_MAX)
                return -ENOBUFS;
        return response_add_field(&x->response, name, value);
}

/* exchange_write() leaves this much room. */
static int put_end_of_chunks(Exchange *x) {
        int k = sender_prepare(x->connection, x->response.fields_size + 8);

        if (k < 0)
                return k;
        sender_put(x->connection, "0\r\n", 3);
        sender_put(x->connection, x->response.fields, x->response.fields_size);
        sender_put(x->connection, "\r\n", 2);
        return 0;
}

void exchange_end(Exchange *x) {
        Connection *c = x->connection;

        assert(x->phase == EXCHANGE_STREAM);
        if (!c) {
                exchange_finish(x);
                return;
        }
        if (!x->no_body && x->left != RESPONSE_SIZE_UNKNOWN && x->left > 0) {
                exchange_abort(x);
                return;
        }
        if (x->chunked && !x->no_body && put_end_of_chunks(x) < 0)
                c->record->broken = x->aborted = true;
        exchange_finish(x);
        connection_commit(c);
        connection_wake(c);
}

/* Two states take turns: the one that the commit names which holds is not touched. */
int exchange_checkpoint(Exchange *x, const void *state, size_t size) {
        Connection *c = x->connection;
        Record *r;

        if (x->phase != EXCHANGE_STREAM)
                return -EINVAL;
        if (size > EXCHANGE_STATE_MAX)
                return -EMSGSIZE;
        if (!c || c->record->broken)
                return -ECONNRESET;
        r = c->record;
        if (r->stream_state == BUFFER_NONE)
                r->stream_state = table_take_buffer(&c->server->table);
        if (r->stream_state == BUFFER_NONE)
                return -ENOMEM;
        x->state_at = x->state_at == 0 ? EXCHANGE_STATE_MAX : 0;
        x->state_size = (uint32_t) size;
        memcpy(table_buffer(&c->server->table, r->stream_state) + x->state_at, state, size);
        x->staged = true;
        x->covered = r->out.end;
        x->covered_left = x->left;
        connection_commit(c);
        connection_wake(c);
        return 0;
}

bool exchange_get_checkpoint(const Exchange *x, void *state, size_t room, size_t *ret_size) {
        const Connection *c = x->connection;
        const Commit *k;

        if (!c || !c->resumes)
                return false;
        k = commit_holding(c->record);
        if (!k->stream_resumes)
                return false;
        *ret_size = MIN((size_t) k->stream_size, (size_t) EXCHANGE_STATE_MAX);
        memcpy(state, table_buffer(&c->server->table, c->record->stream_state) + k->stream_at,
                        MIN(room, *ret_size));
        return true;
}

void exchange_get_id(const Exchange *x, char ret[static EXCHANGE_ID_SIZE]) {
        snprintf(ret, EXCHANGE_ID_SIZE, "%016" PRIx64 "-%" PRIx64 "-%" PRIx64, x->server->table.head->boot,
                        x->id_connection, x->id_offset);
}

void exchange_allow_rerun(Exchange *x) {
        Connection *c = x->connection;

        if (c) /* an earlier one may be run again after a later one that was keyed */
                c->record->keyed = MAX(c->record->keyed, x->id_offset + 1);
}

/* Before anything was said the end of the connection says enough, and a reset would take along the answers
 * to earlier requests that are still on their way. */
static void connection_end(Connection *c) {
        c->record->closing = c->record->linger = true;
        connection_wake(c);
}

void exchange_abort(Exchange *x) {
        Connection *c = x->connection;

        x->aborted = true;
        if (c && x->phase == EXCHANGE_OPEN && !c->resumes)
                connection_end(c);
        else if (c)
                connection_break(c);
        exchange_finish(x);
}

bool exchange_trailer(const Exchange *x, const char *name, const char **ret, size_t *ret_size) {
        size_t n = strlen(name), i = 0;
        HttpField f;

        while (chunked_next_trailer(x->trailers, x->trailers_size, &i, &f))
                if (f.name.length == n && strncasecmp(x->trailers + f.name.offset, name, n) == 0) {
                        *ret = x->trailers + f.value.offset;
                        *ret_size = f.value.length;
                        return true;
                }
        return false;
}
