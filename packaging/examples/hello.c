/* SPDX-License-Identifier: MIT */
/* The smallest module: says hello, and to whom.
 * Made with: cc -shared -fPIC hello.c -o hello.so $(pkg-config --cflags muster)
 * Served with, in /etc/muster/hello.conf: app: { kind = "module"; module = "/path/of/hello.so"; }; */
#include <muster/http.h>
#include <stdio.h>

static void on_request(muster_http_request *request, void *state) {
        char text[256];

        if (muster_http_get_method(request) > MUSTER_HTTP_HEAD) {
                muster_http_add_header(request, "Allow", "GET, HEAD");
                muster_http_respond_status(request, 405);
                return;
        }
        snprintf(text, sizeof(text), "Hello, %s: this is request %llu of this worker.\n",
                        muster_http_get_peer_name(request),
                        (unsigned long long) muster_http_get_number(request));
        muster_http_respond_text(request, 200, "text/plain; charset=utf-8", text);
}

MUSTER_HTTP_MODULE("hello", .request = on_request);
