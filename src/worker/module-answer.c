/* SPDX-License-Identifier: MIT */
/* How a module answers; see muster/http.h. */

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "basic/fd.h"
#include "basic/macro.h"
#include "worker/module-call.h"

/* The call, as long as its answer has not begun; else an error. */
static int find_open(muster_http_request *request, Call **ret, const char *function) {
        Call *c = call_find(request, function);

        if (!c)
                return -ESTALE;
        if (c->streams)
                return -EALREADY;
        *ret = c;
        return 0;
}

#define FIND_OPEN(request, ret) find_open(request, ret, __func__)

int muster_http_set_status(muster_http_request *request, unsigned status) {
        Call *c;
        int r = FIND_OPEN(request, &c);

        if (r < 0)
                return r;
        if (status < 200 || status > 599)
                return -EINVAL;
        c->x->response.status = status;
        return 0;
}

int muster_http_add_header(muster_http_request *request, const char *name, const char *value) {
        Call *c;
        int r = FIND_OPEN(request, &c);

        if (r < 0)
                return r;
        return name && value ? response_add_field(&c->x->response, name, value) : -EINVAL;
}

/* The whole */

static int respond(Call *c, const void *data, size_t size) {
        Response *r = &c->x->response;

        r->body = RESPONSE_BODY_MEMORY;
        r->memory = data;
        r->size = size;
        exchange_respond(c->x);
        call_close(c, 0);
        return 0;
}

int muster_http_respond(muster_http_request *request, const void *data, size_t size) {
        Call *c;
        int r = FIND_OPEN(request, &c);

        if (r < 0)
                return r;
        return data || size == 0 ? respond(c, data, size) : -EINVAL;
}

int muster_http_respond_text(
                muster_http_request *request, unsigned status, const char *type, const char *text) {
        Call *c;
        int r = FIND_OPEN(request, &c);

        if (r < 0)
                return r;
        if (!type || !text)
                return -EINVAL;
        r = muster_http_set_status(request, status);
        if (r >= 0)
                r = response_set_type(&c->x->response, type);
        return r < 0 ? r : respond(c, text, strlen(text));
}

int muster_http_respond_status(muster_http_request *request, unsigned status) {
        Call *c;
        int r = FIND_OPEN(request, &c);

        if (r < 0)
                return r;
        if (status < 200 || status > 599)
                return -EINVAL;
        exchange_respond_status(c->x, status);
        call_close(c, 0);
        return 0;
}

static int check_piece(int fd, uint64_t offset, uint64_t *size) {
        struct stat st;

        if (fstat(fd, &st) < 0)
                return -errno;
        if (!S_ISREG(st.st_mode))
                return -EINVAL;
        if (offset > (uint64_t) st.st_size)
                return -ERANGE;
        if (*size == MUSTER_HTTP_SIZE_UNKNOWN)
                *size = (uint64_t) st.st_size - offset;
        return *size <= (uint64_t) st.st_size - offset ? 0 : -ERANGE;
}

int muster_http_respond_fd(muster_http_request *request, int fd, uint64_t offset, uint64_t size) {
        _cleanup_close_ int owned = fd;
        Response *response;
        Call *c;
        int r = FIND_OPEN(request, &c);

        if (r >= 0)
                r = check_piece(fd, offset, &size);
        if (r < 0)
                return r;
        response = &c->x->response;
        response->body = RESPONSE_BODY_FILE;
        response->fd = owned;
        response->offset = offset;
        response->size = size;
        owned = -EBADF;
        exchange_respond(c->x);
        call_close(c, 0);
        return 0;
}

/* In pieces */

int muster_http_begin(muster_http_request *request, uint64_t size) {
        Call *c;
        int r = FIND_OPEN(request, &c);

        if (r < 0)
                return r;
        c->streams = true;
        c->x->response.size = size;
        return exchange_begin(c->x);
}

int muster_http_set_writable_handler(
                muster_http_request *request, muster_http_writable_handler_t handler, void *userdata) {
        Call *c = CALL_FIND(request);

        if (!c)
                return -ESTALE;
        c->on_writable = handler;
        c->writable_userdata = userdata;
        return 0;
}

ssize_t muster_http_write(muster_http_request *request, const void *data, size_t size) {
        Call *c = CALL_FIND(request);
        ssize_t n;

        if (!c)
                return -ESTALE;
        if (!c->streams || c->events || (!data && size > 0))
                return -EINVAL;
        n = exchange_write(c->x, data, size);
        if (n >= 0)
                c->wants_room = (size_t) n < size;
        return n;
}

static_assert(MUSTER_HTTP_CHECKPOINT_MAX == EXCHANGE_STATE_MAX, "modules are told another size");

int muster_http_checkpoint(muster_http_request *request, const void *state, size_t size) {
        Call *c = CALL_FIND(request);

        if (!c)
                return -ESTALE;
        if (!c->streams || c->events || !state || size == 0)
                return -EINVAL;
        return exchange_checkpoint(c->x, state, size);
}

size_t muster_http_get_checkpoint(muster_http_request *request, void *state, size_t size) {
        Call *c = CALL_FIND(request);
        char none;
        size_t n;

        if (!c || !exchange_get_checkpoint(c->x, state ?: &none, state ? size : 0, &n))
                return 0;
        return n;
}

int muster_http_add_trailer(muster_http_request *request, const char *name, const char *value) {
        Call *c = CALL_FIND(request);

        if (!c)
                return -ESTALE;
        return c->streams && name && value ? exchange_add_trailer(c->x, name, value) : -EINVAL;
}

int muster_http_end(muster_http_request *request) {
        Call *c = CALL_FIND(request);

        if (!c)
                return -ESTALE;
        if (!c->streams)
                return -EINVAL;
        if (c->rest)
                c->ending = true; /* when the client has taken it */
        else
                call_end(c);
        return 0;
}

int muster_http_abort(muster_http_request *request) {
        Call *c = CALL_FIND(request);

        if (!c)
                return -ESTALE;
        exchange_abort(c->x);
        call_close(c, -ECANCELED);
        return 0;
}

/* Server-sent events (the HTML standard, section 9.2) */

int muster_http_begin_events(muster_http_request *request) {
        static const char fields[] = "Content-Type: text/event-stream\r\n"
                                     "Cache-Control: no-cache\r\n"
                                     "X-Accel-Buffering: no\r\n"; /* nginx would keep them for itself */
        Call *c;
        int r = FIND_OPEN(request, &c);

        if (r >= 0)
                r = response_add_raw(&c->x->response, fields, sizeof(fields) - 1);
        if (r < 0)
                return r;
        c->events = true;
        return muster_http_begin(request, MUSTER_HTTP_SIZE_UNKNOWN);
}

/* An event in its making: counted first, then written. */
typedef struct EventText {
        size_t n;
        char *bytes; /* NULL: it is counted */
} EventText;

static void event_text_put(EventText *t, const char *s, size_t n) {
        if (t->bytes)
                memcpy(t->bytes + t->n, s, n);
        t->n += n;
}

static void event_text_put_line(EventText *t, const char *field, const char *value, size_t n) {
        event_text_put(t, field, strlen(field));
        event_text_put(t, value, n);
        event_text_put(t, "\n", 1);
}

/* All three kinds of line ends part lines. */
static void event_text_put_lines(EventText *t, const char *field, const char *text) {
        for (;;) {
                size_t n = strcspn(text, "\r\n");

                event_text_put_line(t, field, text, n);
                text += n;
                if (!*text)
                        return;
                text += text[0] == '\r' && text[1] == '\n' ? 2 : 1;
        }
}

static void event_text_make(EventText *t, const char *event, const char *id, const char *data) {
        if (event)
                event_text_put_line(t, "event: ", event, strlen(event));
        if (id)
                event_text_put_line(t, "id: ", id, strlen(id));
        event_text_put_lines(t, "data: ", data);
        event_text_put(t, "\n", 1);
}

static bool is_line(const char *s) {
        return !s || !s[strcspn(s, "\r\n")];
}

/* What the connection does not take at once is kept, so that it is sent before anything else is taken. */
static int send_text(Call *c, char *bytes, size_t n) {
        int r;

        c->rest = bytes;
        c->rest_size = n;
        c->rest_done = 0;
        r = call_send_rest(c);
        if (r < 0)
                c->rest = NULL;
        else if (r > 0)
                return 1;
        return r;
}

static int find_events(muster_http_request *request, Call **ret, const char *function) {
        Call *c = call_find(request, function);

        if (!c)
                return -ESTALE;
        if (!c->events)
                return -EINVAL;
        c->wants_room = c->rest;
        *ret = c;
        return c->rest ? -EAGAIN : 0;
}

int muster_http_send_event(
                muster_http_request *request, const char *event, const char *id, const char *data) {
        _cleanup_free_ char *bytes = NULL;
        EventText t = { 0 };
        Call *c;
        int r = find_events(request, &c, __func__);

        if (r < 0)
                return r;
        if (!data || !is_line(event) || !is_line(id))
                return -EINVAL;
        event_text_make(&t, event, id, data);
        if (t.n > MUSTER_HTTP_EVENT_MAX)
                return -EMSGSIZE;
        bytes = malloc(t.n);
        if (!bytes)
                return -ENOMEM;
        t = (EventText){ .bytes = bytes };
        event_text_make(&t, event, id, data);
        r = send_text(c, bytes, t.n);
        if (r >= 0)
                bytes = NULL; /* the call's, or gone already */
        return MIN(r, 0);
}

int muster_http_send_comment(muster_http_request *request, const char *text) {
        _cleanup_free_ char *bytes = NULL;
        EventText t = { 0 };
        Call *c;
        int r = find_events(request, &c, __func__);

        if (r < 0)
                return r;
        if (!text)
                return -EINVAL;
        event_text_put_lines(&t, ": ", text);
        if (t.n > MUSTER_HTTP_EVENT_MAX)
                return -EMSGSIZE;
        bytes = malloc(t.n);
        if (!bytes)
                return -ENOMEM;
        t = (EventText){ .bytes = bytes };
        event_text_put_lines(&t, ": ", text);
        r = send_text(c, bytes, t.n);
        if (r >= 0)
                bytes = NULL;
        return MIN(r, 0);
}
