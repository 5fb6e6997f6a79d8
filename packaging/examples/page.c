/* SPDX-License-Identifier: MIT */
/* A page that a program prints: the shell runs $PAGE_COMMAND for each request, with the query as its $1, and
 * what it writes is sent as it comes. A client that reads slowly slows it down, one that leaves ends it.
 * Made with: cc -shared -fPIC page.c -o page.so $(pkg-config --cflags --libs muster) */
#include <errno.h>
#include <muster/http.h>
#include <muster/process.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

typedef struct Page {
        muster_http_request *request;
        muster_child *child;
        size_t n; /* bytes that the client has not taken yet */
        char waiting[64 * 1024];
} Page;

/* The program waits while something waits for the client. */
static void send_on(muster_http_request *request, void *userdata) {
        Page *p = userdata;
        muster_stream *stream = muster_child_get_stream(p->child, 1);
        ssize_t taken = muster_http_write(request, p->waiting, p->n);

        if (taken > 0)
                memmove(p->waiting, p->waiting + taken, p->n -= (size_t) taken);
        (void) (p->n > 0 ? muster_stream_pause(stream) : muster_stream_resume(stream));
}

static void on_data(muster_stream *stream, const void *data, size_t size, void *userdata) {
        Page *p = userdata;

        p->n = size; /* at most 64 KiB come at a time, and nothing comes while something waits */
        memcpy(p->waiting, data, size);
        send_on(p->request, p);
}

static void on_request_over(int error, void *child) {
        if (error < 0) { /* the client has left: so does the program, and on_child_over() comes */
                (void) muster_stream_close(muster_child_get_stream(child, 1));
                (void) muster_child_kill_group(child, SIGKILL);
        }
}

static void on_child_over(muster_child *child, void *userdata) {
        (void) muster_http_end(((Page *) userdata)->request); /* of no effect when the client has left */
        muster_child_unref(child);
        free(userdata);
}

static void on_request(muster_http_request *request, void *command) {
        const muster_stream_handlers handlers = { .size = sizeof(handlers), .data = on_data };
        const muster_stdio stdio[] = { { .kind = MUSTER_STDIO_IGNORE }, { .kind = MUSTER_STDIO_PIPE } };
        char *const argv[] = { (char *) "page", (char *) muster_http_get_query(request), NULL };
        const muster_spawn_options options = { .size = sizeof(options), .program = command, .argv = argv,
                .stdio = stdio, .n_stdio = 2, .flags = MUSTER_SPAWN_SHELL | MUSTER_SPAWN_PROCESS_GROUP };
        Page *p = calloc(1, sizeof(*p));

        if (!p || muster_spawn(muster_http_event(), &options, NULL, p, &p->child) < 0) {
                free(p);
                muster_http_respond_status(request, 503);
                return;
        }
        p->request = request;
        muster_child_set_close_handler(p->child, on_child_over);
        muster_stream_set_handlers(muster_child_get_stream(p->child, 1), &handlers, p);
        muster_http_set_close_handler(request, on_request_over, p->child);
        muster_http_set_writable_handler(request, send_on, p);
        muster_http_add_header(request, "Content-Type", "text/html; charset=utf-8");
        muster_http_begin(request, MUSTER_HTTP_SIZE_UNKNOWN);
}

static int on_start(void **ret_state) {
        *ret_state = getenv("PAGE_COMMAND");
        return *ret_state ? 0 : -ENOKEY;
}

MUSTER_HTTP_MODULE("page", .start = on_start, .request = on_request);
