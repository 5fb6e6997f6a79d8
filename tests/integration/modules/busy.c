/* SPDX-License-Identifier: MIT */
/* A module that holds its worker up for a second when it is asked to, as one that computes would. */
#include <muster/http.h>

#include <string.h>
#include <time.h>

static void on_request(muster_http_request *r, void *state) {
        struct timespec rest = { .tv_sec = 1 };

        if (strcmp(muster_http_get_target(r), "/busy") == 0)
                while (nanosleep(&rest, &rest) < 0)
                        ;
        muster_http_respond_text(r, 200, "text/plain", "done\n");
}

MUSTER_HTTP_MODULE("busy", .request = on_request);
