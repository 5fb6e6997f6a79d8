/* SPDX-License-Identifier: MIT */
/* What comes by the control socket, carried out. */

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "basic/fd.h"
#include "basic/log.h"
#include "ipc/json.h"
#include "master/forward.h"
#include "master/manager-internal.h"
#include "master/worker-messages.h"

static_assert(CONTROL_MESSAGE_MAX <= WORKER_MESSAGE_MAX,
                "What is taken for a worker must fit on its channel");

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

static const char *send_error_to_string(int r) {
        return r == -ENOBUFS ? "it does not read what it was sent before"
               : r == -EPIPE ? "its channel is closed"
                             : strerror(-r);
}

/* Writes down who has not got a message. */
static void on_undelivered(Worker *w, int error, void *userdata) {
        FILE *f = userdata;

        fprintf(f, "%s{\"worker\":%u,\"pid\":%d,\"reason\":", ftell(f) > 0 ? "," : "", w->slot, w->pid);
        json_write_string(f, send_error_to_string(error));
        fputc('}', f);
}

static void finish_send(
                ControlRequest *request, unsigned slot, unsigned delivered, const char *undelivered) {
        _cleanup_free_ char *text = NULL;
        bool none = delivered == 0 && !*undelivered;
        int r;

        if (none && slot > 0)
                r = asprintf(&text, "Worker %u is not ready, or there is none of that number.", slot);
        else if (none)
                r = asprintf(&text, "No worker is ready.");
        else
                r = asprintf(&text, "{\"delivered\":%u,\"undelivered\":[%s]}", delivered, undelivered);
        if (r < 0) {
                text = NULL;
                log_oom();
        }
        control_request_finish(request, none || !text ? "failed" : NULL, text ? text : "Out of memory.");
}

static void on_send(ControlRequest *request, unsigned slot, const char *json, size_t n, void *userdata) {
        const Recipients recipients = { .slot = slot };
        const Manager *m = userdata;
        _cleanup_free_ char *undelivered = NULL;
        unsigned delivered = 0;
        size_t size = 0;
        FILE *f;

        if (!forward_is_for_application(json, n)) {
                control_request_finish(request, "invalid",
                                "A message whose \"cmd\" is MUSTER or begins with NODE_ is not the application's.");
                return;
        }
        f = open_memstream(&undelivered, &size);
        if (f)
                delivered = forward_deliver(&m->workers, &recipients, json, n, on_undelivered, f);
        if (!f || fclose(f) != 0) {
                log_oom();
                control_request_finish(request, "failed", "Out of memory.");
                return;
        }
        finish_send(request, slot, delivered, undelivered);
}

int commands_init(Manager *m) {
        static const ControlHandlers handlers = {
                .write_status = write_status,
                .write_exits = write_exits,
                .reload = on_reload,
                .scale = on_scale,
                .send = on_send,
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
