/* SPDX-License-Identifier: MIT */
/* A connection of the control socket; see client.h.
 *
 * There is no haste here: at most 64 clients, a few requests each. So every answer is a text of its own, one
 * request is dealt with at a time, and what came after it waits. Everything that a client can stretch has an
 * end: the head, the body, the time to send a request and the time to take an answer. Only the master may
 * take as long as it likes: a reload does. */

#include "admin/client.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>

#include "admin/answer.h"
#include "admin/api.h"
#include "basic/clock.h"
#include "basic/fd.h"
#include "basic/log.h"
#include "http/parser.h"

#define HEAD_MAX  (16 * 1024)
#define INPUT_MIN 4096
#define INPUT_MAX (HEAD_MAX + API_BODY_MAX)

#define SEND_TIMEOUT_USEC   (30 * USEC_PER_SEC)
#define LINGER_TIMEOUT_USEC (2 * USEC_PER_SEC)

typedef enum ClientState {
        CLIENT_READING,   /* a request, or none yet */
        CLIENT_WAITING,   /* for the master */
        CLIENT_SENDING,   /* the answer */
        CLIENT_LINGERING, /* all is sent; what the client still sends is read so that it gets to the answer
                           */
        _CLIENT_STATE_MAX,
} ClientState;

/* Row: from; bits: to. */
static const uint8_t client_edges[_CLIENT_STATE_MAX] = {
        [CLIENT_READING] = 1 << CLIENT_WAITING | 1 << CLIENT_SENDING,
        [CLIENT_WAITING] = 1 << CLIENT_SENDING,
        [CLIENT_SENDING] = 1 << CLIENT_READING | 1 << CLIENT_LINGERING,
};

static const uint32_t client_events[_CLIENT_STATE_MAX] = {
        [CLIENT_READING] = EPOLLIN,
        [CLIENT_WAITING] = 0, /* its end is told all the same */
        [CLIENT_SENDING] = EPOLLOUT,
        [CLIENT_LINGERING] = EPOLLIN,
};

struct Client {
        List node; /* in context->clients */
        ClientContext *context;
        ClientState state;
        int fd;
        sd_event_source *io;
        sd_event_source *deadline;

        char *input; /* NULL: nothing came yet */
        size_t n_input;
        size_t input_size;
        ParserScan scan;
        bool has_head; /* `request` is valid */
        HttpRequest request;

        MasterQuestion *question; /* NULL unless WAITING */
        bool closing;             /* after this answer */

        char *output; /* what is being sent; NULL: nothing */
        size_t n_output;
        size_t sent;
};

DEFINE_CLEANUP(Client, client_free)

Client *client_of_node(List *node) {
        return list_entry(node, Client, node);
}

Client *client_free(Client *c) {
        bool listed;

        if (!c)
                return NULL;
        listed = !list_empty(&c->node);
        list_remove(&c->node);
        master_question_forget(c->question);
        sd_event_source_disable_unref(c->io);
        sd_event_source_disable_unref(c->deadline);
        safe_close(c->fd);
        free(c->input);
        free(c->output);
        if (listed) {
                ClientContext *context = c->context;

                free(c);
                context->n_clients--;
                context->on_gone(context->userdata);
        } else
                free(c);
        return NULL;
}

static uint64_t client_timeout_usec(const Client *c) {
        switch (c->state) {
        case CLIENT_READING:
                return c->context->request_timeout_usec;
        case CLIENT_SENDING:
                return SEND_TIMEOUT_USEC;
        case CLIENT_LINGERING:
                return LINGER_TIMEOUT_USEC;
        default:
                return USEC_INFINITY;
        }
}

/* Without its sources a connection could stay for ever; the caller frees it. */
static int client_arm(Client *c) {
        uint64_t timeout = client_timeout_usec(c);
        int r;

        r = sd_event_source_set_io_events(c->io, client_events[c->state]);
        if (r < 0)
                return r;
        if (timeout == USEC_INFINITY)
                return sd_event_source_set_enabled(c->deadline, SD_EVENT_OFF);
        r = sd_event_source_set_time_relative(c->deadline, timeout);
        return r < 0 ? r : sd_event_source_set_enabled(c->deadline, SD_EVENT_ONESHOT);
}

static int client_set_state(Client *c, ClientState to) {
        assert(client_edges[c->state] & (1 << to));
        c->state = to;
        return client_arm(c);
}

/*
 * Answers
 */

static int client_answer(Client *c, unsigned status, const char *allow, const char *body) {
        const Answer answer = {
                .status = status,
                .allow = allow,
                .body = body,
                .head_only = c->has_head && c->request.method == HTTP_HEAD,
                .keep_alive = !c->closing,
                .old_client = c->has_head && c->request.minor_version == 0,
                .now_seconds = (uint64_t) time(NULL),
        };
        int r;

        r = answer_format(&answer, &c->output, &c->n_output);
        if (r < 0)
                return r;
        c->sent = 0;
        return client_set_state(c, CLIENT_SENDING);
}

static int client_answer_error(
                Client *c, unsigned status, const char *allow, const char *code, const char *message) {
        _cleanup_free_ char *body = answer_error_body(code, message);

        return body ? client_answer(c, status, allow, body) : -ENOMEM;
}

static int client_answer_decision(Client *c, const ApiDecision *d) {
        return client_answer_error(c, d->status, d->allow, d->code, d->message);
}

static int client_answer_status(Client *c, unsigned status) {
        ApiDecision d;

        api_set_status(&d, status);
        return client_answer_decision(c, &d);
}

/* Where the request ends is not known, or its end is not waited for. */
static int client_answer_and_close(Client *c, const ApiDecision *d) {
        c->closing = true;
        return client_answer_decision(c, d);
}

static void client_work(Client *c);

static void on_reply(const MasterReply *reply, void *userdata) {
        Client *c = userdata;
        int r;

        c->question = NULL;
        if (!reply) {
                c->closing = true;
                r = client_answer_status(c, 503);
        } else if (reply->code)
                r = client_answer_error(c, api_status_of_code(reply->code), NULL, reply->code, reply->text);
        else
                r = client_answer(c, 200, NULL, reply->text);
        if (r < 0)
                client_free(c);
        else
                client_work(c);
}

/*
 * Requests
 */

static int client_ask(Client *c, ApiDecision *d) {
        _cleanup_free_ char *payload = TAKE_PTR(d->payload);
        const MasterRequest request = {
                .act = d->act,
                .workers = d->workers,
                .worker = d->worker,
                .message = payload,
        };
        int r;

        r = master_link_ask(c->context->link, &request, on_reply, c, &c->question);
        if (r == -EPIPE || r == -ENOBUFS)
                return client_answer_status(c, 503);
        return r < 0 ? r : client_set_state(c, CLIENT_WAITING);
}

static int client_send_continue(Client *c) {
        static const char text[] = "HTTP/1.1 100 Continue\r\n\r\n";
        ssize_t n = send(c->fd, text, sizeof(text) - 1, MSG_NOSIGNAL);

        /* Nothing else is in the buffer, so it fits, unless the client is gone. */
        return n == (ssize_t) sizeof(text) - 1 ? 0 : n < 0 ? -errno : -EIO;
}

/* 1: there is a head now, 0: it has been answered, or more must come. */
static int client_read_head(Client *c) {
        ApiDecision d;
        int r;

        r = parser_parse_head(&c->scan, c->input, c->n_input, HEAD_MAX, &c->request);
        if (r == PARSER_MORE)
                return 0;
        if (r == PARSER_DONE && c->request.method == HTTP_OTHER)
                r = 501; /* no resource here knows it */
        if (r >= 400) {
                api_set_status(&d, (unsigned) r);
                return client_answer_and_close(c, &d);
        }

        c->has_head = true;
        c->closing = c->closing || !c->request.keep_alive;
        if (!api_check_head(&c->request, c->input, &d)) {
                if (c->request.chunked || c->request.content_length > 0)
                        c->closing = true; /* its body is not read */
                return client_answer_decision(c, &d);
        }
        if (c->request.expect_continue && c->n_input - c->request.head_size < c->request.content_length) {
                r = client_send_continue(c);
                if (r < 0)
                        return r;
        }
        return 1;
}

/* Looks at what is there. In the same state afterwards: more must come. */
static int client_read(Client *c) {
        ApiDecision d;
        int r;

        if (c->n_input == 0)
                return 0;
        if (!c->has_head) {
                r = client_read_head(c);
                if (r <= 0)
                        return r;
        }
        if (c->n_input - c->request.head_size < c->request.content_length)
                return 0;

        api_decide(&c->request, c->input, c->input + c->request.head_size,
                        (size_t) c->request.content_length, &d);
        return d.act ? client_ask(c, &d) : client_answer_decision(c, &d);
}

/* The request and its answer are dealt with. */
static int client_next(Client *c) {
        size_t used = c->has_head ? c->request.head_size + (size_t) c->request.content_length : 0;

        c->n_input -= used;
        if (c->n_input > 0)
                memmove(c->input, c->input + used, c->n_input);
        c->scan = (ParserScan){ 0 };
        c->has_head = false;
        return client_set_state(c, CLIENT_READING);
}

/*
 * The socket
 */

static int client_reserve(Client *c) {
        size_t size = c->input_size ? 2 * c->input_size : INPUT_MIN;
        char *p;

        if (c->n_input < c->input_size)
                return 0;
        size = MIN(size, (size_t) INPUT_MAX);
        if (size == c->input_size) /* whatever fills it has been answered */
                return -ENOBUFS;
        p = realloc(c->input, size);
        if (!p)
                return -ENOMEM;
        c->input = p;
        c->input_size = size;
        return 0;
}

/* -ECONNRESET also for the regular end. */
static int client_receive(Client *c) {
        int r;

        r = client_reserve(c);
        if (r < 0)
                return r;
        ssize_t n = recv(c->fd, c->input + c->n_input, c->input_size - c->n_input, 0);
        if (n < 0)
                return errno == EAGAIN || errno == EINTR ? 0 : -errno;
        if (n == 0)
                return -ECONNRESET;
        c->n_input += (size_t) n;
        return 0;
}

/* 1: all is sent, 0: the rest has to wait. */
static int client_flush(Client *c) {
        while (c->sent < c->n_output) {
                ssize_t n = send(c->fd, c->output + c->sent, c->n_output - c->sent, MSG_NOSIGNAL);

                if (n < 0)
                        return errno == EAGAIN ? 0 : -errno;
                c->sent += (size_t) n;
        }
        c->output = (free(c->output), NULL);
        return 1;
}

static int client_discard(Client *c) {
        char buf[4096];
        ssize_t n = recv(c->fd, buf, sizeof(buf), 0);

        if (n < 0)
                return errno == EAGAIN || errno == EINTR ? 0 : -errno;
        return n == 0 ? -ECONNRESET : 0;
}

static int client_finish_answer(Client *c) {
        if (!c->closing)
                return client_next(c);
        if (shutdown(c->fd, SHUT_WR) < 0)
                return -errno;
        return client_set_state(c, CLIENT_LINGERING);
}

/* As far as it goes without waiting: a negative errno ends the connection. */
static int client_work_on(Client *c) {
        int r;

        for (;;) {
                ClientState before = c->state;

                if (c->state == CLIENT_READING)
                        r = client_read(c);
                else if (c->state == CLIENT_SENDING) {
                        r = client_flush(c);
                        if (r > 0)
                                r = client_finish_answer(c);
                } else
                        return 0;
                if (r < 0 || c->state == before)
                        return r;
        }
}

static void client_work(Client *c) {
        int r;

        r = client_work_on(c);
        if (r < 0) {
                log_debug_errno(r, "A client of the control socket is gone: %m");
                client_free(c);
        }
}

static int on_io(sd_event_source *source, int fd, uint32_t revents, void *userdata) {
        Client *c = userdata;
        int r = 0;

        if (c->state == CLIENT_READING)
                r = client_receive(c);
        else if (c->state == CLIENT_LINGERING)
                r = client_discard(c);
        else if (revents & (EPOLLHUP | EPOLLERR))
                r = -ECONNRESET;
        if (r < 0)
                client_free(c);
        else
                client_work(c);
        return 0;
}

static int on_deadline(sd_event_source *source, uint64_t usec, void *userdata) {
        Client *c = userdata;
        int r = -ETIMEDOUT;

        if (c->state == CLIENT_READING && c->n_input > 0) {
                c->closing = true;
                r = client_answer_status(c, 408);
        }
        if (r < 0)
                client_free(c);
        else
                client_work(c);
        return 0;
}

void client_drain(Client *c) {
        int r = 0;

        c->closing = true;
        if (c->state != CLIENT_READING)
                return;
        r = c->n_input > 0 ? client_answer_status(c, 503) : -ECONNABORTED;
        if (r < 0)
                client_free(c);
        else
                client_work(c);
}

int client_new(ClientContext *context, int fd) {
        _cleanup_(client_freep) Client *c = calloc(1, sizeof(*c));
        int r;

        if (!c)
                return -ENOMEM;
        c->context = context;
        c->fd = -EBADF;
        list_init(&c->node);

        r = sd_event_add_io(context->event, &c->io, fd, EPOLLIN, on_io, c);
        if (r < 0)
                return r;
        r = sd_event_add_time_relative(context->event, &c->deadline, CLOCK_MONOTONIC,
                        context->request_timeout_usec, clock_accuracy_usec(context->request_timeout_usec),
                        on_deadline, c);
        if (r < 0)
                return r;
        c->fd = fd;
        list_append(&context->clients, &c->node);
        context->n_clients++;
        (void) TAKE_PTR(c);
        return 0;
}
