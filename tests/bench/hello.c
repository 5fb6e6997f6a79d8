/* SPDX-License-Identifier: MIT */
/* A module that says hello, always with the same words: what is left is the cost of the worker. */

#include <muster/http.h>

static void on_request(muster_http_request *request, void *state) {
        (void) state;
        muster_http_respond_text(request, 200, "text/plain", "hello\n");
}

MUSTER_HTTP_MODULE("hello", .request = on_request);
