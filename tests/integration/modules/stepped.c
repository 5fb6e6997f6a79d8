/* SPDX-License-Identifier: MIT */
/* A module whose worker may die between any two instructions: answers that can be checked to the byte, and
 * effects that can be counted. See test_twin_sweep.py. */

#include <errno.h>
#include <fcntl.h>
#include <muster/http.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "effects.h"

#define PIECE     1000 /* bytes of a stream at a time */
#define BODY_MAX  (1024 * 1024)
#define LATE_USEC 2000

typedef struct Stream {
        uint64_t at, size;
        bool checkpoints;
} Stream;

static Effect *effects;

/* Of a body and of a stream, from any byte of the first period on for more than PIECE. To copy it and to
 * compare with it takes few instructions, which matters to who goes through them one by one. */
static char pattern[BODY_MAX + PATTERN_PERIOD];

static void make_pattern(void) {
        for (uint32_t i = 0; i < sizeof(pattern); i++)
                pattern[i] = pattern_at(i);
}

static uint64_t number_of(muster_http_request *r, const char *name) {
        const char *value = muster_http_get_parameter(r, name);

        return value ? strtoull(value, NULL, 10) : 0;
}

static uint64_t hash(const char *text) {
        uint64_t h = UINT64_C(14695981039346656037);

        for (; *text; text++)
                h = (h ^ (unsigned char) *text) * UINT64_C(1099511628211);
        return h | 1;
}

/* The effect is the one exchange: either it has happened, or it has not. */
static void effect_by_name(Effect *e, const char *name) {
        uint64_t key = hash(name), expected = 0;

        if (atomic_compare_exchange_strong(&e->key, &expected, key))
                return;
        atomic_fetch_add(expected == key ? &e->again : &e->others, 1);
}

static void on_body(muster_http_request *r, const char *data, size_t size, int error, void *userdata) {
        Effect *e = userdata;
        const char *name = NULL;
        char text[64];

        if (error < 0)
                return;
        if (strcmp(muster_http_get_path(r), "/keyed") == 0)
                name = muster_http_request_id(r);
        if (memcmp(data, pattern, size) != 0) {
                muster_http_respond_text(r, 400, "text/plain", "other bytes than were sent\n");
                return;
        }
        if (name)
                effect_by_name(e, name);
        else
                atomic_fetch_add(&e->plain, 1);
        snprintf(text, sizeof(text), "did %zu\n", size);
        muster_http_respond_text(r, 200, "text/plain", text);
}

static void do_effect(muster_http_request *r) {
        uint64_t place = number_of(r, "place");

        if (strcmp(muster_http_get_path(r), "/keyed") == 0)
                (void) muster_http_request_id(r); /* asked for before the body is read */
        if (place >= EFFECTS_MAX || muster_http_collect(r, BODY_MAX, on_body, effects + place) < 0)
                muster_http_respond_status(r, 400);
}

static void stream_go_on(muster_http_request *r, void *userdata) {
        Stream *s = userdata;

        while (s->at < s->size) {
                size_t n = s->size - s->at < PIECE ? s->size - s->at : PIECE;
                ssize_t taken;

                taken = muster_http_write(r, pattern + s->at % PATTERN_PERIOD, n);
                if (taken < 0)
                        return;
                s->at += (uint64_t) taken;
                if (s->checkpoints)
                        (void) muster_http_checkpoint(r, &s->at, sizeof(s->at));
                if ((size_t) taken < n)
                        return;
        }
        muster_http_end(r);
}

static void on_close(int error, void *userdata) {
        free(userdata);
}

static void do_stream(muster_http_request *r, bool checkpoints) {
        Stream *s = calloc(1, sizeof(*s));

        if (!s) {
                muster_http_respond_status(r, 503);
                return;
        }
        s->checkpoints = checkpoints;
        s->size = number_of(r, "size");
        if (checkpoints && muster_http_get_checkpoint(r, &s->at, sizeof(s->at)) == 0)
                s->at = 0;
        muster_http_set_close_handler(r, on_close, s);
        muster_http_set_writable_handler(r, stream_go_on, s);
        if (muster_http_begin(r, MUSTER_HTTP_SIZE_UNKNOWN) < 0)
                return;
        stream_go_on(r, s);
}

static int on_late(sd_event_source *source, uint64_t usec, void *userdata) {
        sd_event_source_unref(source);
        muster_http_respond_text(userdata, 200, "text/plain", "late\n");
        return 0;
}

static void do_later(muster_http_request *r) {
        sd_event_source *source;

        if (sd_event_add_time_relative(
                            muster_http_event(), &source, CLOCK_MONOTONIC, LATE_USEC, 1, on_late, r) < 0)
                muster_http_respond_status(r, 503);
}

static void on_request(muster_http_request *r, void *state) {
        const char *path = muster_http_get_path(r);

        if (strcmp(path, "/keyed") == 0 || strcmp(path, "/plain") == 0)
                do_effect(r);
        else if (strcmp(path, "/stream") == 0)
                do_stream(r, true);
        else if (strcmp(path, "/unmarked") == 0)
                do_stream(r, false);
        else if (strcmp(path, "/later") == 0)
                do_later(r);
        else if (strcmp(path, "/peer") == 0)
                muster_http_respond_text(r, 200, "text/plain", muster_http_get_peer_name(r));
        else
                muster_http_respond_text(r, 200, "text/plain", "hello\n");
}

static int start(void **ret_state) {
        const char *path = getenv(EFFECTS_ENV);
        int fd = path ? open(path, O_RDWR | O_CLOEXEC) : -1;

        if (fd < 0)
                return -EINVAL;
        make_pattern();
        effects = mmap(NULL, EFFECTS_MAX * sizeof(Effect), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        return effects == MAP_FAILED ? -errno : 0;
}

MUSTER_HTTP_MODULE("stepped", .start = start, .request = on_request);
