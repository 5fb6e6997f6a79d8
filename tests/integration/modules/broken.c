/* SPDX-License-Identifier: MIT */
/* Modules that cannot be loaded, by the word BROKEN. */

#include <muster/http.h>

static void on_request(muster_http_request *r, void *state) {
}

#if defined(NO_SYMBOL)
const int nothing = 1;
void *not_a_module = (void *) on_request;
#elif defined(OTHER_ABI)
const muster_http_module muster_module = {
        .size = sizeof(muster_http_module), .abi = 77, .name = "future", .request = on_request
};
#elif defined(TOO_SMALL)
const muster_http_module muster_module = {
        .size = 16, .abi = MUSTER_HTTP_ABI, .name = "small", .request = on_request
};
#elif defined(NO_HANDLER)
MUSTER_HTTP_MODULE("nothing", .start = 0);
void *unused = (void *) on_request;
#elif defined(UNDEFINED)
int muster_http_of_the_future(muster_http_request *r);

static void on_future(muster_http_request *r, void *state) {
        muster_http_of_the_future(r);
}

MUSTER_HTTP_MODULE("undefined", .request = on_future);
void *unused = (void *) on_request;
#endif
