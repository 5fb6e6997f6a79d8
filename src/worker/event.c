/* SPDX-License-Identifier: MIT */
/* The inner loop; see event.h.
 *
 * sd-event is driven by hand: prepare arms its timer and says what is pending already, wait looks without
 * waiting, dispatch calls one handler. Between prepare and wait it stands armed, and learns of a new timer
 * or of a new source that is always ready only at the next prepare; so it is taken through wait whenever the
 * module has had a chance to add one, and is left alone in all other turns. */

#include "worker/event.h"

#include <errno.h>
#include <sys/epoll.h>

#include "basic/fd.h"
#include "basic/log.h"
#include "worker/crash.h"

/* Handlers in a row, before the clients get their turn. */
#define DISPATCHES_MAX 16

static struct {
        int epoll_fd;
        int fd; /* event_add() */
        void (*handler)(void);
        sd_event *event;
        bool armed;   /* sd-event waits */
        bool pending; /* it has something to dispatch */
        bool touched;
} inner = { .epoll_fd = -EBADF, .fd = -EBADF };

int event_init(void) {
        inner.epoll_fd = epoll_create1(EPOLL_CLOEXEC);
        return inner.epoll_fd < 0 ? -errno : 0;
}

void event_done(void) {
        inner.event = sd_event_unref(inner.event);
        inner.epoll_fd = safe_close(inner.epoll_fd);
        inner.fd = -EBADF;
        inner.armed = inner.pending = inner.touched = false;
}

int event_fd(void) {
        return inner.epoll_fd;
}

static int watch(int fd) {
        struct epoll_event ev = { .events = EPOLLIN, .data.fd = fd };

        return epoll_ctl(inner.epoll_fd, EPOLL_CTL_ADD, fd, &ev) < 0 ? -errno : 0;
}

int event_add(int fd, void (*handler)(void)) {
        inner.fd = fd;
        inner.handler = handler;
        return watch(fd);
}

sd_event *event_get(void) {
        sd_event *e = NULL;
        int r;

        if (inner.event || inner.epoll_fd < 0)
                return inner.event;
        r = sd_event_new(&e);
        if (r >= 0)
                r = watch(sd_event_get_fd(e));
        if (r < 0) {
                log_error_errno(r, "Failed to make an event loop for the module: %m");
                return sd_event_unref(e);
        }
        inner.touched = true;
        return inner.event = e;
}

void event_touch(void) {
        inner.touched = true;
}

/* Takes sd-event to where something is pending (1), or where it waits, with what is new in mind (0). */
static int advance(void) {
        int r = 0;

        if (inner.pending)
                return 1;
        if (inner.armed)
                r = sd_event_wait(inner.event, 0);
        if (r == 0)
                r = sd_event_prepare(inner.event);
        inner.armed = r == 0;
        inner.pending = r > 0;
        return r;
}

bool event_prepare(void) {
        int r;

        if (!inner.event || (!inner.touched && !inner.pending))
                return false;
        r = advance();
        inner.touched = r < 0; /* then event_dispatch() fails, too, and says so */
        return r != 0;
}

static int dispatch_one(void) {
        CrashScope scope;
        int r;

        inner.pending = false;
        crash_enter(&scope, "in a handler of its event loop", "", 0);
        r = sd_event_dispatch(inner.event);
        crash_leave(&scope);
        if (r == 0)
                return log_error_errno(-ESTALE, "The module has ended its event loop.");
        return r < 0 ? log_error_errno(r, "The module's event loop is broken: %m") : 0;
}

static int dispatch_event(void) {
        int r;

        for (int i = 0; i < DISPATCHES_MAX; i++) {
                r = advance();
                if (r < 0)
                        return log_error_errno(r, "The module's event loop is broken: %m");
                if (r == 0)
                        return 0;
                r = dispatch_one();
                if (r < 0)
                        return r;
        }
        inner.touched = true; /* the rest is for the next turn */
        return 0;
}

int event_dispatch(bool readable) {
        struct epoll_event events[2];
        int n = 0;

        if (readable)
                n = epoll_wait(inner.epoll_fd, events, 2, 0);
        for (int i = 0; i < n; i++)
                if (events[i].data.fd == inner.fd)
                        inner.handler();
                else
                        inner.touched = true;
        if (!inner.event || !(inner.pending || inner.touched))
                return 0;
        inner.touched = false;
        return dispatch_event();
}
