/* SPDX-License-Identifier: MIT */
/* A job that one worker of all does, on all hosts that share the store, however many there are and whichever
 * of them die: whoever holds the lease does it, once a minute here. The job's number is that of the lease
 * (a fence): who was stopped in the middle of it, and goes on when another has taken over, is refused by
 * whoever keeps the highest number it has seen. Here that is a value in the same store; see muster_state(3).
 *
 * Made with: cc -shared -fPIC nightly.c -o nightly.so $(pkg-config --cflags --libs muster)
 * GET / tells who answers, and who has done the job last. */
#include <errno.h>
#include <muster/http.h>
#include <muster/state.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define EVERY_USEC    (UINT64_C(60) * 1000000)
#define LEASE_SECONDS 15 /* unless NIGHTLY_LEASE_SECONDS says otherwise */

typedef struct Nightly {
        muster_state *state;
        muster_lease *lease;
        sd_event_source *timer;
} Nightly;

static void on_recorded(muster_state *state, const muster_state_result *result, void *userdata) {
        if (result->error < 0)
                fprintf(stderr, "Another one has the job, or the store is away: %s\n",
                                strerror(-result->error));
}

/* What is recorded now has a lower number, or this one is refused: its version is that of when it was read.
 */
static void on_last(muster_state *state, const muster_state_result *result, void *userdata) {
        muster_state_set_options options = MUSTER_STATE_SET_INIT;
        const Nightly *n = userdata;
        char last[64] = "", text[64];
        uint64_t fence = muster_lease_get_fence(n->lease);

        if (result->error == 0 && result->value_size < sizeof(last))
                memcpy(last, result->value, result->value_size);
        if (fence == 0 || (result->error < 0 && result->error != -ENOENT) ||
                        strtoull(last, NULL, 10) > fence)
                return;
        options.if_version = muster_state_result_get_version(result);
        options.if_absent = options.if_version == 0;
        snprintf(text, sizeof(text), "%llu pid %d", (unsigned long long) fence, getpid());
        muster_state_set(state, "nightly", -1, text, strlen(text), &options, on_recorded, NULL);
}

/* The job. The clock is asked before it, and the store refuses what comes too late nevertheless. A lease
 * that is over by the clock may still be renewed, which is no news for on_lease(): so the timer goes on. */
static int on_timer(sd_event_source *source, uint64_t usec, void *userdata) {
        Nightly *n = userdata;

        sd_event_source_set_time_relative(source, EVERY_USEC);
        sd_event_source_set_enabled(source, SD_EVENT_ONESHOT);
        if (!muster_lease_is_held(n->lease))
                return 0;
        fprintf(stderr, "The job is done here (%llu).\n",
                        (unsigned long long) muster_lease_get_fence(n->lease));
        muster_state_get(n->state, "nightly", -1, on_last, n);
        return 0;
}

static void on_lease(muster_lease *lease, bool held, void *userdata) {
        const Nightly *n = userdata;

        sd_event_source_set_time_relative(n->timer, 0);
        sd_event_source_set_enabled(n->timer, held ? SD_EVENT_ONESHOT : SD_EVENT_OFF);
}

static void on_change(muster_state *state, int error, const char *text, void *userdata) {
        fprintf(stderr, "The store: %s\n", text);
}

static void on_value(muster_state *state, const muster_state_result *result, void *userdata) {
        muster_http_request *request = userdata; /* a handle: it may be over */
        char text[128];

        if (result->error < 0 && result->error != -ENOENT) {
                muster_http_respond_status(request, 503);
                return;
        }
        snprintf(text, sizeof(text), "pid %d; last: %.*s\n", getpid(), (int) result->value_size,
                        result->value_size > 0 ? (const char *) result->value : "");
        muster_http_respond_text(request, 200, "text/plain", text);
}

static void on_request(muster_http_request *request, void *state) {
        const Nightly *n = state;

        if (muster_state_get(n->state, "nightly", -1, on_value, request) < 0)
                muster_http_respond_status(request, 503);
}

static uint64_t lease_usec(void) {
        const char *seconds = getenv("NIGHTLY_LEASE_SECONDS");

        return (seconds ? strtoull(seconds, NULL, 10) : LEASE_SECONDS) * 1000000;
}

static int on_start(void **ret_state) {
        const muster_state_options options = { .size = sizeof(options), .changed = on_change };
        Nightly *n = calloc(1, sizeof(*n));
        int r;

        *ret_state = n;
        if (!n)
                return -ENOMEM;
        r = muster_state_open(muster_http_event(), NULL, &options, &n->state);
        if (r >= 0)
                r = sd_event_add_time(muster_http_event(), &n->timer, CLOCK_BOOTTIME, 0, 0, on_timer, n);
        if (r >= 0)
                r = sd_event_source_set_enabled(n->timer, SD_EVENT_OFF);
        if (r >= 0)
                r = muster_state_lease(n->state, "nightly", -1, lease_usec(), on_lease, n, &n->lease);
        return r;
}

static void on_stop(void *state) {
        Nightly *n = state;

        sd_event_source_unref(n->timer);
        muster_state_close(n->state); /* gives the lease back */
        free(n);
}

MUSTER_HTTP_MODULE("nightly", .start = on_start, .request = on_request, .stop = on_stop);
