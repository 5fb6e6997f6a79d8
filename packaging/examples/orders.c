/* SPDX-License-Identifier: MIT */
/* Orders, taken exactly once: POST / makes a file of the body in the folder ORDERS_FOLDER, whatever this
 * process dies of and whenever it does. Its name is that of the request, which another process is given
 * again until it has been answered; see muster-twin(7). Made with: cc -shared -fPIC orders.c -o orders.so
 * $(pkg-config --cflags muster) Tried with: curl -d 'a loaf of bread' 127.0.0.1:8080 */
#include <errno.h>
#include <fcntl.h>
#include <muster/http.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* One of that name that an earlier process has left is not written into: it may be the order itself by now.
 */
static int write_file(int folder, const char *name, const char *data, size_t size) {
        ssize_t n;
        int fd;

        unlinkat(folder, name, 0);
        fd = openat(folder, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
        n = fd < 0 ? -1 : write(fd, data, size);

        return fd < 0 || close(fd) < 0 || n != (ssize_t) size ? -EIO : 0;
}

/* The order is there with all that is in it, or it is not: link(2) is one step. Who comes second, because
 * the first died before its client was answered, finds it. */
static int take_order(int folder, const char *id, const char *data, size_t size) {
        char draft[64];
        int r;

        snprintf(draft, sizeof(draft), ".%s", id);
        r = write_file(folder, draft, data, size);
        if (r == 0 && linkat(folder, draft, folder, id, 0) < 0 && errno != EEXIST)
                r = -errno;
        unlinkat(folder, draft, 0);
        return r;
}

static void on_body(muster_http_request *request, const char *data, size_t size, int error, void *state) {
        const char *id = muster_http_request_id(request);
        char text[64];

        if (error < 0)
                return; /* too large, or the client is gone: the worker says so */
        if (!id || take_order((int) (intptr_t) state, id, data, size) < 0) {
                muster_http_respond_status(request, 500);
                return;
        }
        snprintf(text, sizeof(text), "%s\n", id); /* the same, whoever says it */
        muster_http_respond_text(request, 201, "text/plain", text);
}

static void on_request(muster_http_request *request, void *state) {
        if (muster_http_get_method(request) != MUSTER_HTTP_POST)
                muster_http_respond_status(request, 405);
        else
                muster_http_collect(request, 0, on_body, state);
}

static int on_start(void **ret_state) {
        const char *path = getenv("ORDERS_FOLDER");
        int folder = path ? open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;

        *ret_state = (void *) (intptr_t) folder;
        if (!path)
                return -ENOKEY;
        return folder < 0 ? -errno : 0;
}

/* Any request may be run again: all that one does is to take an order. */
MUSTER_HTTP_MODULE("orders", .start = on_start, .request = on_request, .repeatable = true);
