/* SPDX-License-Identifier: MIT */
/* The module that test_http_hostile.py and test_http_tools.py visit:
 *
 *   /number   the number of the request
 *   /echo     the body comes back as it is sent, with its size in a trailer
 *   /sum      how many bytes the body had, and the sum of them, when it is complete
 *   /endless  as much as the client takes
 *   /events   server-sent events: those after Last-Event-ID up to 3, one by one, then the end
 *   /hold     an image that is sent when /report has got a body; 64 of them at most wait
 *   /FILE     of the worker's directory, likewise */

#include <errno.h>
#include <fcntl.h>
#include <muster/http.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define EVENTS     3
#define EVENT_USEC 20000

static muster_http_request *held[64];
static unsigned n_held;

/* Echo */

typedef struct Echo {
        muster_http_request *request;
        char *waiting;
        size_t n, size;
        bool begun, complete;
} Echo;

static void echo_free(int error, void *userdata) {
        Echo *e = userdata;

        (void) error;
        free(e->waiting);
        free(e);
}

/* With the first piece, and not before: a client that expects to be told to go on (100) would hear the
 * answer instead. */
static void echo_begin(Echo *e) {
        if (e->begun)
                return;
        e->begun = true;
        muster_http_add_header(e->request, "Content-Type", "application/octet-stream");
        muster_http_begin(e->request, MUSTER_HTTP_SIZE_UNKNOWN);
}

static void echo_end(Echo *e) {
        char size[24];

        snprintf(size, sizeof(size), "%zu", e->size);
        muster_http_add_trailer(e->request, "Echo-Size", size);
        muster_http_end(e->request);
}

static void echo_write(muster_http_request *request, void *userdata) {
        Echo *e = userdata;
        ssize_t n = muster_http_write(request, e->waiting, e->n);

        if (n < 0)
                return;
        memmove(e->waiting, e->waiting + n, e->n -= (size_t) n);
        if (e->n > 0)
                muster_http_pause_body(request);
        else if (e->complete)
                echo_end(e);
        else
                muster_http_resume_body(request);
}

static void echo_piece(
                muster_http_request *request, const char *data, size_t size, int error, void *userdata) {
        Echo *e = userdata;
        char *p;

        if (error < 0) {
                muster_http_abort(request);
                return;
        }
        echo_begin(e);
        if (!data) {
                e->complete = true;
                if (e->n == 0)
                        echo_end(e);
                return;
        }
        p = realloc(e->waiting, e->n + size);
        if (!p) {
                muster_http_abort(request);
                return;
        }
        memcpy(p + e->n, data, size);
        e->waiting = p;
        e->n += size;
        e->size += size;
        echo_write(request, e);
}

static void echo(muster_http_request *request) {
        Echo *e = calloc(1, sizeof(*e));

        if (!e) {
                muster_http_respond_status(request, 503);
                return;
        }
        e->request = request;
        muster_http_set_close_handler(request, echo_free, e);
        muster_http_set_writable_handler(request, echo_write, e);
        muster_http_read_body(request, 0, echo_piece, e);
}

/* Bodies as a whole */

static void on_sum(muster_http_request *request, const char *data, size_t size, int error, void *userdata) {
        unsigned long sum = 0;
        char text[64];

        (void) userdata;
        if (error < 0)
                return;
        for (size_t i = 0; i < size; i++)
                sum += (unsigned char) data[i];
        snprintf(text, sizeof(text), "%zu %lu\n", size, sum);
        muster_http_respond_text(request, 200, "text/plain", text);
}

static void on_report(
                muster_http_request *request, const char *data, size_t size, int error, void *userdata) {
        static const char image[] = "<svg xmlns='http://www.w3.org/2000/svg' width='1' height='1'/>";

        (void) data;
        (void) size;
        (void) userdata;
        if (error < 0)
                return;
        while (n_held > 0)
                muster_http_respond_text(held[--n_held], 200, "image/svg+xml", image);
        muster_http_respond_text(request, 200, "text/plain", "thanks\n");
}

/* Streams */

static void endless_write(muster_http_request *request, void *userdata) {
        static const char text[65536];

        (void) userdata;
        while (muster_http_write(request, text, sizeof(text)) == sizeof(text))
                ;
}

static void endless(muster_http_request *request) {
        muster_http_set_writable_handler(request, endless_write, NULL);
        if (muster_http_begin(request, MUSTER_HTTP_SIZE_UNKNOWN) >= 0)
                endless_write(request, NULL);
}

typedef struct Events {
        muster_http_request *request;
        sd_event_source *timer;
        int last;
} Events;

static int events_next(sd_event_source *timer, uint64_t usec, void *userdata) {
        Events *e = userdata;
        char id[16], data[64];

        snprintf(id, sizeof(id), "%d", ++e->last);
        snprintf(data, sizeof(data), "event %d\nof %d", e->last, EVENTS);
        muster_http_send_event(e->request, "step", id, data);
        if (e->last >= EVENTS) {
                muster_http_end(e->request); /* which frees it */
                return 0;
        }
        (void) sd_event_source_set_time(timer, usec + EVENT_USEC);
        return sd_event_source_set_enabled(timer, SD_EVENT_ONESHOT);
}

static void events_free(int error, void *userdata) {
        Events *e = userdata;

        (void) error;
        sd_event_source_disable_unref(e->timer);
        free(e);
}

/* A client that has had all of them is told so, or it would come back for ever. */
static void events(muster_http_request *request) {
        const char *last = muster_http_get_header(request, "Last-Event-ID");
        Events *e = last && atoi(last) >= EVENTS ? NULL : calloc(1, sizeof(*e));

        if (!e) {
                muster_http_respond_status(request, 204);
                return;
        }
        e->request = request;
        e->last = last ? atoi(last) : 0;
        muster_http_set_close_handler(request, events_free, e);
        if (muster_http_begin_events(request) >= 0)
                sd_event_add_time_relative(muster_http_event(), &e->timer, CLOCK_MONOTONIC, EVENT_USEC, 1,
                                events_next, e);
}

/* Files */

static const char *type_of(const char *name) {
        static const char *const types[][2] = {
                { ".html", "text/html" },
                { ".css", "text/css" },
                { ".js", "text/javascript" },
                { ".svg", "image/svg+xml" },
        };
        const char *dot = strrchr(name, '.');

        for (size_t i = 0; dot && i < sizeof(types) / sizeof(types[0]); i++)
                if (strcmp(dot, types[i][0]) == 0)
                        return types[i][1];
        return "application/octet-stream";
}

static void file(muster_http_request *request, const char *name) {
        int fd = *name ? open(name, O_RDONLY | O_CLOEXEC) : -1;

        if (fd < 0) {
                muster_http_respond_status(request, 404);
                return;
        }
        muster_http_add_header(request, "Content-Type", type_of(name));
        muster_http_respond_fd(request, fd, 0, MUSTER_HTTP_SIZE_UNKNOWN);
}

static void on_request(muster_http_request *request, void *state) {
        const char *path = muster_http_get_path(request);
        char text[32];

        (void) state;
        if (strcmp(path, "/number") == 0) {
                snprintf(text, sizeof(text), "%llu\n", (unsigned long long) muster_http_get_number(request));
                muster_http_respond_text(request, 200, "text/plain", text);
        } else if (strcmp(path, "/echo") == 0)
                echo(request);
        else if (strcmp(path, "/sum") == 0)
                muster_http_collect(request, 0, on_sum, NULL);
        else if (strcmp(path, "/report") == 0)
                muster_http_collect(request, 0, on_report, NULL);
        else if (strcmp(path, "/endless") == 0)
                endless(request);
        else if (strcmp(path, "/events") == 0)
                events(request);
        else if (strcmp(path, "/hold") == 0 && n_held < sizeof(held) / sizeof(held[0]))
                held[n_held++] = request;
        else
                file(request, path + 1);
}

MUSTER_HTTP_MODULE("site", .request = on_request);
