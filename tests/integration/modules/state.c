/* SPDX-License-Identifier: MIT */
/* A module with state, for test_module_state.py:
 *
 *   /add?key=[&id=]    adds one, and tells the sum
 *   /get?key=          tells the value
 *   /die?key=          is killed while it reads that
 *   /fill?key=&n=      sets it n times, to 4 KiB, one after the other
 *   /lease             tells the fence of the lease "job", 0: it is not held here
 *   /release           gives the lease back, if it is held
 *   /publish?text=     tells everybody
 *   /heard             the pid, and what was heard, a line each
 */

#include <errno.h>
#include <muster/http.h>
#include <muster/state.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define LEASE_USEC UINT64_C(1000000) /* unless STATE_LEASE_MSEC says otherwise */

static muster_state *state;
static muster_lease *lease;
static muster_subscription *subscription;
static char heard[65536];

static void respond_error(muster_http_request *request, int error) {
        muster_http_respond_text(request, 500, "text/plain", strerrorname_np(-error));
}

static void on_number(muster_state *s, const muster_state_result *result, void *userdata) {
        char text[32];

        if (result->error < 0) {
                respond_error(userdata, result->error);
                return;
        }
        snprintf(text, sizeof(text), "%lld", (long long) result->number);
        muster_http_respond_text(userdata, 200, "text/plain", text);
}

static void on_value(muster_state *s, const muster_state_result *result, void *userdata) {
        if (result->error < 0)
                respond_error(userdata, result->error);
        else
                muster_http_respond(userdata, result->value, result->value_size);
}

/* While LMDB's transaction is open. */
static void on_last_value(muster_state *s, const muster_state_result *result, void *userdata) {
        raise(SIGKILL);
}

typedef struct Fill {
        muster_http_request *request;
        unsigned left;
        char key[64];
} Fill;

static void fill_next(Fill *f);

static void on_filled(muster_state *s, const muster_state_result *result, void *userdata) {
        Fill *f = userdata;

        if (result->error < 0)
                respond_error(f->request, result->error);
        else if (f->left > 0) {
                fill_next(f);
                return;
        } else
                muster_http_respond_text(f->request, 200, "text/plain", "full");
        free(f);
}

static void fill_next(Fill *f) {
        char value[4096];

        memset(value, (int) f->left--, sizeof(value));
        if (muster_state_set(state, f->key, -1, value, sizeof(value), NULL, on_filled, f) < 0)
                abort();
}

static void fill(muster_http_request *request, const char *key) {
        const char *n = muster_http_get_parameter(request, "n");
        Fill *f = calloc(1, sizeof(*f));

        if (!f || !n)
                abort();
        f->request = request;
        f->left = (unsigned) atoi(n);
        snprintf(f->key, sizeof(f->key), "%s", key);
        fill_next(f);
}

static void on_message(muster_subscription *s, const void *data, size_t size, void *userdata) {
        size_t used = strlen(heard);

        snprintf(heard + used, sizeof(heard) - used, "%.*s\n", data ? (int) size : 1,
                        data ? (const char *) data : "*");
}

static void on_published(muster_state *s, const muster_state_result *result, void *userdata) {
        muster_http_respond_text(userdata, 200, "text/plain",
                        result->error < 0 ? strerrorname_np(-result->error) : "told");
}

static void tell_heard(muster_http_request *request) {
        static char text[sizeof(heard) + 16];

        snprintf(text, sizeof(text), "%d\n%s", getpid(), heard);
        muster_http_respond_text(request, 200, "text/plain", text);
}

static void on_request(muster_http_request *request, void *unused) {
        const char *path = muster_http_get_path(request), *key = muster_http_get_parameter(request, "key");
        char text[32];
        int r = 0;

        if (strcmp(path, "/add") == 0) {
                (void) muster_http_request_id(request);
                r = muster_state_add(state, key, -1, 1, 0, on_number, request);
        } else if (strcmp(path, "/get") == 0)
                r = muster_state_get(state, key, -1, on_value, request);
        else if (strcmp(path, "/die") == 0)
                r = muster_state_get(state, key, -1, on_last_value, request);
        else if (strcmp(path, "/fill") == 0)
                fill(request, key);
        else if (strcmp(path, "/publish") == 0) {
                const char *word = muster_http_get_parameter(request, "text");

                r = muster_state_publish(state, "news", -1, word, strlen(word), on_published, request);
        } else if (strcmp(path, "/heard") == 0)
                tell_heard(request);
        else if (strcmp(path, "/release") == 0) {
                bool held = muster_lease_is_held(lease);

                if (held)
                        lease = muster_lease_release(lease);
                muster_http_respond_text(request, 200, "text/plain", held ? "released" : "not held");
        } else if (strcmp(path, "/lease") == 0) {
                snprintf(text, sizeof(text), "%llu", (unsigned long long) muster_lease_get_fence(lease));
                muster_http_respond_text(request, 200, "text/plain", text);
        } else
                muster_http_respond_text(request, 200, "text/plain", "without the store");
        if (r < 0)
                respond_error(request, r);
}

static void on_change(muster_state *s, int error, const char *text, void *userdata) {
        fprintf(stderr, "store: %d %s\n", error, text);
}

static int on_start(void **unused) {
        const muster_state_options options = { .size = sizeof(options), .changed = on_change };
        const char *msec = getenv("STATE_LEASE_MSEC");
        int r;

        r = muster_state_open(muster_http_event(), NULL, &options, &state);
        if (r >= 0)
                r = muster_state_lease(state, "job", -1, msec ? strtoull(msec, NULL, 10) * 1000 : LEASE_USEC,
                                NULL, NULL, &lease);
        if (r >= 0)
                r = muster_state_subscribe(state, "news", -1, on_message, NULL, &subscription);
        return r;
}

static void on_stop(void *unused) {
        muster_state_close(state);
}

MUSTER_HTTP_MODULE("state", .start = on_start, .request = on_request, .stop = on_stop, .repeatable = true);
