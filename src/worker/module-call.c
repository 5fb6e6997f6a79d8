/* SPDX-License-Identifier: MIT */
/* Calls and their handles; see module-call.h. */

#include "worker/module-call.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "basic/macro.h"
#include "worker/event.h"

/* A handle is the use's number above the call's index, which is counted from 1. */
#define INDEX_BITS (sizeof(uintptr_t) > 4 ? 24u : 14u)
#define INDEX_MASK (((uintptr_t) 1 << INDEX_BITS) - 1)
#define USE_MASK   (UINTPTR_MAX >> INDEX_BITS)

/* More than that of text is not kept for the next request. */
#define TEXT_KEPT_MAX 2048

static struct {
        Call **items;
        unsigned n, room;
        Call *free;
} calls;

static _Thread_local bool is_loop_thread __attribute__((tls_model("initial-exec")));

void call_claim_thread(void) {
        is_loop_thread = true;
}

void call_check_thread(const char *function) {
        if (!is_loop_thread)
                crash_misuse(function, "was called from another thread than the loop's");
}

static int make_call(Call **ret) {
        unsigned room = MAX(2 * calls.room, 16u);
        Call **items, *c;

        if (calls.n >= INDEX_MASK)
                return -ENOMEM;
        if (calls.n == calls.room) {
                items = realloc(calls.items, room * sizeof(Call *));
                if (!items)
                        return -ENOMEM;
                calls.items = items;
                calls.room = room;
        }
        c = calloc(1, sizeof(*c));
        if (!c)
                return -ENOMEM;
        c->index = calls.n;
        calls.items[calls.n++] = c;
        *ret = c;
        return 0;
}

static void call_free_kept(Call *c) {
        for (CallText *t; (t = c->kept); free(t))
                c->kept = t->next;
}

int call_open(Exchange *x, Call **ret) {
        Call *c = calls.free;
        int r;

        if (c)
                calls.free = c->next_free;
        else {
                r = make_call(&c);
                if (r < 0)
                        return r;
        }
        /* Not when it was given back: whoever answers may go on reading until his handler returns. */
        call_free_kept(c);
        if (c->text_size > TEXT_KEPT_MAX) {
                c->text = (free(c->text), NULL);
                c->text_size = 0;
        }
        memset(&c->has_text, 0, sizeof(*c) - offsetof(Call, has_text));
        c->x = x;
        c->use = (c->use + 1) & USE_MASK;
        *ret = c;
        return 0;
}

void call_close(Call *c, int error) {
        muster_http_close_handler_t handler = c->on_close;
        void *userdata = c->close_userdata;

        free(c->body);
        free(c->rest);
        c->x = NULL;
        c->next_free = calls.free;
        calls.free = c;
        if (handler)
                handler(error, userdata);
}

void call_free_all(void) {
        for (unsigned i = 0; i < calls.n; i++) {
                call_free_kept(calls.items[i]);
                free(calls.items[i]->text);
                free(calls.items[i]);
        }
        free(calls.items);
        memset(&calls, 0, sizeof(calls));
}

muster_http_request *call_handle(const Call *c) {
        return (muster_http_request *) (c->use << INDEX_BITS | (c->index + 1));
}

Call *call_find(muster_http_request *handle, const char *function) {
        uintptr_t v = (uintptr_t) handle, i = (v & INDEX_MASK) - 1;
        Call *c;

        call_check_thread(function);
        if (i >= calls.n)
                return NULL;
        c = calls.items[i];
        return c->x && !c->ending && c->use == v >> INDEX_BITS ? c : NULL;
}

/* The request line, but for the version. */
void call_enter(CrashScope *scope, const Call *c, const char *doing) {
        const HttpRequest *r = &c->x->request;
        const char *line = exchange_head(c->x) + r->method_name.offset;
        uint32_t end = MAX(r->path.offset + r->path.length, r->query.offset + r->query.length);

        crash_enter(scope, doing, line, end > r->method_name.offset ? end - r->method_name.offset : 0);
        event_touch();
}

char *call_keep_text(Call *c, const char *text, size_t n) {
        CallText *t = malloc(sizeof(*t) + n + 1);

        if (!t)
                return NULL;
        memcpy(t->text, text, n);
        t->text[n] = '\0';
        t->next = c->kept;
        c->kept = t;
        return t->text;
}

int call_send_rest(Call *c) {
        ssize_t n;

        if (!c->rest)
                return 1;
        n = exchange_write(c->x, c->rest + c->rest_done, c->rest_size - c->rest_done);
        if (n < 0)
                return (int) n;
        c->rest_done += (size_t) n;
        if (c->rest_done < c->rest_size)
                return 0;
        c->rest = (free(c->rest), NULL);
        return 1;
}

void call_end(Call *c) {
        exchange_end(c->x);
        call_close(c, 0);
}
