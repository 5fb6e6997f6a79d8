/* SPDX-License-Identifier: MIT */
#pragma once

/* What stands behind a module's handle of a request. Calls are kept and used again; a handle holds the
 * number of the use too, so that one whose request is over finds nothing. */

#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>

#include "http/exchange.h"
#include "muster/http.h"
#include "worker/crash.h"

typedef struct Call Call;

typedef struct CallText {
        struct CallText *next;
        char text[];
} CallText;

struct Call {
        Exchange *x;   /* NULL: free */
        uintptr_t use; /* counts up with every request */
        unsigned index;
        Call *next_free;

        /* The head with a NUL behind everything in it, made when it is first asked for; and what cannot be
         * had in that way. The memory is kept for the next request, unless it is large. */
        char *text;
        size_t text_size;
        bool has_text;
        const char *target, *authority; /* in the text */

        /* What follows is of this use alone. */
        char peer[INET6_ADDRSTRLEN];
        CallText *kept; /* call_keep_text() */
        void *userdata;

        muster_http_close_handler_t on_close;
        void *close_userdata;
        muster_http_writable_handler_t on_writable;
        void *writable_userdata;

        muster_http_body_handler_t on_body;
        void *body_userdata;
        bool collects;
        int body_error; /* of ours, such as -ENOMEM */
        char *body;     /* of one that is collected */
        size_t body_size, body_room;

        bool streams;    /* muster_http_begin() */
        bool events;     /* … muster_http_begin_events() */
        bool ending;     /* muster_http_end() waits for the rest of an event */
        bool wants_room; /* the module waits for its writable handler */
        char *rest;      /* of an event, which has to be sent as a whole */
        size_t rest_size, rest_done;
};

/* The calling thread is the loop's. */
void call_claim_thread(void);

/* Does not return from another one; @function is what was called from there. */
void call_check_thread(const char *function);

/* The module's call from which the exchange comes; -ENOMEM: none can be had. */
int call_open(Exchange *x, Call **ret);

/* Gives the call back, and then tells the module that its request is over. */
void call_close(Call *c, int error);

/* Of all calls; the requests are over. */
void call_free_all(void);

muster_http_request *call_handle(const Call *c);

/* NULL: the request is over. @function: as above. */
Call *call_find(muster_http_request *handle, const char *function);

#define CALL_FIND(handle) call_find(handle, __func__)

/* Around a module's handler. */
void call_enter(CrashScope *scope, const Call *c, const char *doing);

/* A copy with a NUL behind it that lives as long as the request. */
char *call_keep_text(Call *c, const char *text, size_t n);

/* Sends what is left of an event. 1: it is with the kernel, or in the connection's buffer; 0: it waits. */
int call_send_rest(Call *c);

/* Finishes an answer whose end was asked for. */
void call_end(Call *c);
