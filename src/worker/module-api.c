/* SPDX-License-Identifier: MIT */
/* What a module calls; see muster/http.h. Answers in pieces are in module-answer.c. */

#include "worker/module-api.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "basic/fd.h"
#include "basic/macro.h"
#include "http/chars.h"
#include "worker/event.h"
#include "worker/module-call.h"
#include "worker/offload.h"

/* The first piece of memory for a body whose size is not known, or not believed yet. */
#define BODY_ROOM_MIN 4096
#define BODY_ROOM_MAX (256 * 1024)

static Offload offload = { .fd = -EBADF };

/* A request comes, and its client goes */

static void on_gone(Exchange *x) {
        _cleanup_(crash_leave) CrashScope scope;
        Call *c = x->userdata;
        int error = exchange_gone_error(x);

        call_enter(&scope, c, "while it was told of the end of");
        exchange_abort(x);
        call_close(c, error);
}

static void on_writable(Exchange *x) {
        _cleanup_(crash_leave) CrashScope scope;
        Call *c = x->userdata;

        call_enter(&scope, c, "while it went on answering");
        if (call_send_rest(c) <= 0)
                return;
        if (c->ending)
                call_end(c);
        else if (c->wants_room && c->on_writable) {
                c->wants_room = false;
                c->on_writable(call_handle(c), c->writable_userdata);
        }
}

static void request_module(const ModuleTarget *t, Call *c) {
        _cleanup_(crash_leave) CrashScope scope;

        call_enter(&scope, c, "while it answered");
        t->descriptor->request(call_handle(c), t->state);
}

void module_api_request(void *userdata, Exchange *x) {
        Call *c;

        if (call_open(x, &c) < 0) {
                exchange_respond_status(x, 503);
                return;
        }
        x->userdata = c;
        x->on_gone = on_gone;
        x->on_writable = on_writable;
        request_module(userdata, c);
}

int muster_http_is_gone(muster_http_request *request) {
        return !CALL_FIND(request);
}

int muster_http_set_close_handler(
                muster_http_request *request, muster_http_close_handler_t handler, void *userdata) {
        Call *c = CALL_FIND(request);

        if (!c)
                return -ESTALE;
        c->on_close = handler;
        c->close_userdata = userdata;
        return 0;
}

void *muster_http_get_userdata(muster_http_request *request) {
        Call *c = CALL_FIND(request);

        return c ? c->userdata : NULL;
}

int muster_http_set_userdata(muster_http_request *request, void *userdata) {
        Call *c = CALL_FIND(request);

        if (!c)
                return -ESTALE;
        c->userdata = userdata;
        return 0;
}

/* The head */

static void end_slice(char *text, HttpSlice s) {
        text[s.offset + s.length] = '\0';
}

/* Behind every part of a head stands something that is no part itself; but for the authority of an absolute
 * target, behind which the path begins. */
static int make_text(Call *c) {
        const HttpRequest *r = &c->x->request;
        size_t n_target = r->path.length + r->query.length + 3, n_authority = r->authority.length + 1;
        size_t n = r->head_size + 1 + n_target + n_authority;
        char *p;

        if (c->has_text)
                return 0;
        if (n > c->text_size) {
                p = realloc(c->text, n);
                if (!p)
                        return -ENOMEM;
                c->text = p;
                c->text_size = n;
        }
        memcpy(c->text, exchange_head(c->x), r->head_size);
        p = c->text + r->head_size;
        *p++ = '\0'; /* also what an empty part points to */
        c->target = p;
        p += snprintf(p, n_target, "%.*s%s%.*s", (int) r->path.length, c->text + r->path.offset,
                        r->query.length > 0 ? "?" : "", (int) r->query.length, c->text + r->query.offset);
        c->authority = ++p;
        memcpy(p, c->text + r->authority.offset, r->authority.length);
        p[r->authority.length] = '\0';

        end_slice(c->text, r->method_name);
        for (unsigned i = 0; i < r->n_fields; i++) {
                end_slice(c->text, r->fields[i].name);
                end_slice(c->text, r->fields[i].value);
        }
        if (r->query.length > 0)
                end_slice(c->text, r->query);
        if (r->path.length > 0)
                end_slice(c->text, r->path);
        c->has_text = true;
        return 0;
}

static Call *find_with_text(muster_http_request *request, const char *function) {
        Call *c = call_find(request, function);

        return c && make_text(c) >= 0 ? c : NULL;
}

#define FIND_WITH_TEXT(request) find_with_text(request, __func__)

int muster_http_get_method(muster_http_request *request) {
        static const int methods[_HTTP_METHOD_MAX] = {
                [HTTP_OTHER] = MUSTER_HTTP_OTHER,
                [HTTP_GET] = MUSTER_HTTP_GET,
                [HTTP_HEAD] = MUSTER_HTTP_HEAD,
                [HTTP_POST] = MUSTER_HTTP_POST,
                [HTTP_PUT] = MUSTER_HTTP_PUT,
                [HTTP_DELETE] = MUSTER_HTTP_DELETE,
                [HTTP_CONNECT] = MUSTER_HTTP_CONNECT,
                [HTTP_OPTIONS] = MUSTER_HTTP_OPTIONS,
                [HTTP_TRACE] = MUSTER_HTTP_TRACE,
                [HTTP_PATCH] = MUSTER_HTTP_PATCH,
        };
        Call *c = CALL_FIND(request);

        return c ? methods[c->x->request.method] : -ESTALE;
}

const char *muster_http_get_method_name(muster_http_request *request) {
        Call *c = FIND_WITH_TEXT(request);

        return c ? c->text + c->x->request.method_name.offset : NULL;
}

const char *muster_http_get_target(muster_http_request *request) {
        Call *c = FIND_WITH_TEXT(request);

        if (!c)
                return NULL;
        return *c->target ? c->target : "/";
}

const char *muster_http_get_path(muster_http_request *request) {
        Call *c = FIND_WITH_TEXT(request);

        if (!c)
                return NULL;
        return c->x->request.path.length > 0 ? c->text + c->x->request.path.offset : "/";
}

const char *muster_http_get_query(muster_http_request *request) {
        Call *c = FIND_WITH_TEXT(request);

        if (!c)
                return NULL;
        return c->x->request.query.length > 0 ? c->text + c->x->request.query.offset : "";
}

/* As forms encode it, in place; false when an escape is broken or stands for a NUL. */
static bool decode(char *s) {
        char *to = s;

        for (; *s; s++, to++) {
                *to = *s == '+' ? ' ' : *s;
                if (*s != '%')
                        continue;
                int high = char_hex_value(s[1]), low = high < 0 ? -1 : char_hex_value(s[2]);
                if (low < 0 || (high == 0 && low == 0))
                        return false;
                *to = (char) (high << 4 | low);
                s += 2;
        }
        *to = '\0';
        return true;
}

const char *muster_http_get_parameter(muster_http_request *request, const char *name) {
        Call *c = FIND_WITH_TEXT(request);
        const char *p;
        size_t n;
        char *value;

        if (!c || !name)
                return NULL;
        for (p = muster_http_get_query(request); *p; p += *p == '&') {
                n = strcspn(p, "=&");
                if (n == strlen(name) && memcmp(p, name, n) == 0) {
                        p += n + (p[n] == '=');
                        value = call_keep_text(c, p, strcspn(p, "&"));
                        return value && decode(value) ? value : NULL;
                }
                p += strcspn(p, "&");
        }
        return NULL;
}

const char *muster_http_get_authority(muster_http_request *request) {
        Call *c = FIND_WITH_TEXT(request);

        return c ? c->authority : NULL;
}

int muster_http_get_minor_version(muster_http_request *request) {
        Call *c = CALL_FIND(request);

        return c ? c->x->request.minor_version : -ESTALE;
}

const char *muster_http_get_header(muster_http_request *request, const char *name) {
        Call *c = FIND_WITH_TEXT(request);

        if (!c || !name)
                return NULL;
        for (unsigned i = 0; i < c->x->request.n_fields; i++)
                if (strcasecmp(c->text + c->x->request.fields[i].name.offset, name) == 0)
                        return c->text + c->x->request.fields[i].value.offset;
        return NULL;
}

int muster_http_get_header_at(muster_http_request *request, unsigned index, const char **ret_name,
                const char **ret_value) {
        Call *c = CALL_FIND(request);
        const HttpField *f;
        int r;

        if (!c)
                return -ESTALE;
        if (!ret_name || !ret_value)
                return -EINVAL;
        if (index >= c->x->request.n_fields)
                return -ENOENT;
        r = make_text(c);
        if (r < 0)
                return r;
        f = c->x->request.fields + index;
        *ret_name = c->text + f->name.offset;
        *ret_value = c->text + f->value.offset;
        return 0;
}

ssize_t muster_http_get_peer(muster_http_request *request, struct sockaddr_storage *ret) {
        Call *c = CALL_FIND(request);

        if (!c)
                return -ESTALE;
        return ret ? exchange_peer(c->x, ret) : -EINVAL;
}

const char *muster_http_get_peer_name(muster_http_request *request) {
        Call *c = CALL_FIND(request);
        struct sockaddr_storage a;

        if (!c)
                return NULL;
        if (*c->peer || exchange_peer(c->x, &a) < 0)
                return c->peer;
        if (a.ss_family == AF_INET)
                (void) inet_ntop(AF_INET, &((struct sockaddr_in *) &a)->sin_addr, c->peer, sizeof(c->peer));
        else if (a.ss_family == AF_INET6)
                (void) inet_ntop(AF_INET6, &((struct sockaddr_in6 *) &a)->sin6_addr, c->peer,
                                sizeof(c->peer));
        else
                strcpy(c->peer, "unix");
        return c->peer;
}

uint64_t muster_http_get_number(muster_http_request *request) {
        Call *c = CALL_FIND(request);

        return c ? c->x->number : 0;
}

/* The body */

uint64_t muster_http_get_body_size(muster_http_request *request) {
        Call *c = CALL_FIND(request);

        if (!c)
                return 0;
        return c->x->request.chunked ? MUSTER_HTTP_SIZE_UNKNOWN : c->x->request.content_length;
}

/* One byte more than its size: for the NUL. */
static int make_body_room(Call *c, size_t n) {
        uint64_t announced = c->x->request.chunked ? 0 : c->x->request.content_length;
        size_t room = c->body_room;
        char *p;

        if (n + 1 <= room)
                return 0;
        if (room == 0)
                room = MAX(BODY_ROOM_MIN, (size_t) MIN(announced + 1, BODY_ROOM_MAX));
        while (room < n + 1)
                room *= 2;
        p = realloc(c->body, room);
        if (!p)
                return -ENOMEM;
        c->body = p;
        c->body_room = room;
        return 0;
}

static void collect(Exchange *x, const char *data, size_t n) {
        Call *c = x->userdata;

        if (c->body_error == 0)
                c->body_error = make_body_room(c, c->body_size + n);
        if (c->body_error < 0)
                return;
        memcpy(c->body + c->body_size, data, n);
        c->body_size += n;
}

/* The module has been told, and has said nothing. */
static void answer_body_error(Call *c, int error) {
        unsigned status;

        switch (error) {
        case -EMSGSIZE:
                status = 413;
                break;
        case -EBADMSG:
                status = 400;
                break;
        case -ETIMEDOUT:
                status = 408;
                break;
        case -ECONNRESET:
        case -ECANCELED:
                status = 0;
                break;
        default:
                status = 503;
                break;
        }
        if (c->streams || status == 0)
                exchange_abort(c->x);
        else {
                response_clear_fields(&c->x->response);
                exchange_respond_status(c->x, status);
        }
        call_close(c, error);
}

/* What is collected belongs to the handler's call: it may answer, which ends everything else. */
static void end_body(Exchange *x, int error) {
        _cleanup_(crash_leave) CrashScope scope;
        Call *c = x->userdata;
        muster_http_request *handle = call_handle(c);
        _cleanup_free_ char *body = NULL;
        size_t n = 0;

        call_enter(&scope, c, "while it took the body of");
        error = error < 0 ? error : c->body_error;
        if (error == 0 && c->collects)
                error = make_body_room(c, c->body_size);
        if (error == 0 && c->collects) {
                body = TAKE_PTR(c->body);
                n = c->body_size;
                body[n] = '\0';
        }
        if (!c->ending)
                c->on_body(handle, body, n, error, c->body_userdata);
        if (error < 0 && call_find(handle, __func__))
                answer_body_error(c, error);
        else if (c->x == x && exchange_is_gone(x)) { /* what waits of its end has nowhere to go */
                exchange_abort(x);
                call_close(c, error);
        }
}

static void hand_over(Exchange *x, const char *data, size_t n) {
        _cleanup_(crash_leave) CrashScope scope;
        Call *c = x->userdata;

        if (c->ending)
                return; /* to the module it is over */
        call_enter(&scope, c, "while it took the body of");
        c->on_body(call_handle(c), data, n, 0, c->body_userdata);
}

static int read_body(
                Call *c, uint64_t max, muster_http_body_handler_t handler, void *userdata, bool collects) {
        if (!c)
                return -ESTALE;
        if (!handler)
                return -EINVAL;
        if (c->on_body)
                return -EALREADY;
        c->on_body = handler;
        c->body_userdata = userdata;
        c->collects = collects;
        c->x->on_body = collects ? collect : hand_over;
        c->x->on_body_end = end_body;
        exchange_read_body(c->x, max > 0 ? max : UINT64_MAX);
        return 0;
}

int muster_http_collect(muster_http_request *request, uint64_t max, muster_http_body_handler_t handler,
                void *userdata) {
        return read_body(CALL_FIND(request), max, handler, userdata, /* collects= */ true);
}

int muster_http_read_body(muster_http_request *request, uint64_t max, muster_http_body_handler_t handler,
                void *userdata) {
        return read_body(CALL_FIND(request), max, handler, userdata, /* collects= */ false);
}

static int pause_body(Call *c, bool paused) {
        if (!c)
                return -ESTALE;
        exchange_pause_body(c->x, paused);
        return 0;
}

int muster_http_pause_body(muster_http_request *request) {
        return pause_body(CALL_FIND(request), true);
}

int muster_http_resume_body(muster_http_request *request) {
        return pause_body(CALL_FIND(request), false);
}

const char *muster_http_request_id(muster_http_request *request) {
        Call *c = CALL_FIND(request);
        char id[EXCHANGE_ID_SIZE];
        const char *kept;

        if (!c)
                return NULL;
        exchange_get_id(c->x, id);
        kept = call_keep_text(c, id, strlen(id));
        if (kept)
                exchange_allow_rerun(c->x);
        return kept;
}

const char *muster_http_get_trailer(muster_http_request *request, const char *name) {
        Call *c = CALL_FIND(request);
        const char *value;
        size_t n;

        if (!c || !name || !exchange_trailer(c->x, name, &value, &n))
                return NULL;
        return call_keep_text(c, value, n);
}

/* The loop and its threads */

sd_event *muster_http_event(void) {
        call_check_thread(__func__);
        event_touch();
        return event_get();
}

static void on_offloaded(void) {
        CrashScope scope;

        crash_enter(&scope, "in a handler of muster_offload()", "", 0);
        event_touch();
        offload_dispatch(&offload);
        crash_leave(&scope);
}

static void work_begins(void *userdata) {
        static _Thread_local CrashScope scope __attribute__((tls_model("initial-exec")));

        crash_init_thread();
        crash_enter(&scope, "in the work of muster_offload()", "", 0);
}

int muster_offload(muster_offload_handler_t work, muster_offload_handler_t done, void *userdata) {
        if (!work)
                return -EINVAL;
        return offload_submit(&offload, work, done, userdata);
}

int module_api_init(unsigned n_threads) {
        int r;

        call_claim_thread();
        r = offload_init(&offload, n_threads, MUSTER_OFFLOAD_QUEUE_MAX, work_begins);
        return r < 0 ? r : event_add(offload.fd, on_offloaded);
}

void module_api_done(void) {
        CrashScope scope;

        crash_enter(&scope, "in a handler of muster_offload()", "", 0);
        offload_done(&offload);
        crash_leave(&scope);
        call_free_all();
}
