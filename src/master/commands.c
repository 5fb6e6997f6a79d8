/* SPDX-License-Identifier: MIT */
/* What comes by the control socket, carried out. */

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "basic/fd.h"
#include "ipc/json.h"
#include "master/manager-internal.h"

static void write_status(FILE *f, void *userdata) {
        status_write(userdata, f);
}

static void write_exits(FILE *f, void *userdata) {
        const Manager *m = userdata;

        fputs("{\"app\":", f);
        json_write_string(f, m->app);
        fputs(",\"exits\":", f);
        exits_write(&m->exits, f);
        fputc('}', f);
}

static void on_reload(ControlRequest *request, void *userdata) {
        reload_request_by(userdata, request);
}

static void on_scale(ControlRequest *request, unsigned n, void *userdata) {
        Manager *m = userdata;
        char text[128];
        int r;

        r = manager_scale(m, n);
        if (r == -EBUSY) {
                control_request_finish(request, "busy",
                                m->state == MANAGER_STOPPING   ? "The service is stopping."
                                : m->state == MANAGER_STARTING ? "The service is starting."
                                                               : "A reload is under way.");
                return;
        }
        if (r < 0) {
                snprintf(text, sizeof(text), "Failed to scale: %s.", strerror(-r));
                control_request_finish(request, "failed", text);
                return;
        }
        snprintf(text, sizeof(text), "{\"workers\":%u,\"ready\":%u}", m->n_wanted, status_count_ready(m));
        control_request_finish(request, NULL, text);
}

int commands_init(Manager *m) {
        static const ControlHandlers handlers = {
                .write_status = write_status,
                .write_exits = write_exits,
                .reload = on_reload,
                .scale = on_scale,
        };
        int fd, r;

        fd = listeners_take_control(&m->listeners);
        if (fd < 0)
                return fd == -ENOENT ? 0 : fd;
        r = control_new(fd, m->app, &handlers, m, &m->control);
        if (r < 0)
                safe_close(fd);
        return r;
}
