/* SPDX-License-Identifier: MIT */
#pragma once

/* Who knows the answers. The connection does the protocol and asks a handler for every request that is
 * well-formed. */

#include "http/parser.h"
#include "http/response.h"

/* What a handler may look at; valid during the call only. */
typedef struct HandlerCall {
        const HttpRequest *request;
        const char *buf;         /* what the request's offsets count from */
        int64_t now;             /* seconds since the epoch */
        uint64_t request_number; /* of this request among those that the worker answered, from 1 */
} HandlerCall;

typedef struct Handler {
        /* Fills in the answer, which comes initialised (status 200, no body). Negative errno: the answer is
         * made by the caller, 503 where resources lack, else 500. HEAD is answered like GET; the body is
         * left out later. */
        int (*answer)(void *userdata, const HandlerCall *call, Response *response);
        void *userdata;
} Handler;
