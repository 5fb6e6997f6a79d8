/* SPDX-License-Identifier: MIT */
#pragma once

/* The control socket, by which outsiders command the master: muster(1), and whatever else speaks HTTP.
 *
 * The master parses nothing that comes from there. It watches the socket for the first connection and then
 * starts muster-admin, which accepts and understands it, and asks the master over its channel. With nobody
 * asking, muster-admin ends by itself and the master watches the socket again. */

#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>
#include <systemd/sd-event.h>

#include "basic/macro.h"

typedef struct Control Control;
typedef struct ControlRequest ControlRequest;

/* Who carries out what is asked. None of them may free the Control. */
typedef struct ControlHandlers {
        /* One JSON object, without a line break. */
        void (*write_status)(FILE *f, void *userdata);
        void (*write_exits)(FILE *f, void *userdata);
        /* Finished by control_request_finish(), at once or later. @n is 1 … CONTROL_WORKERS_MAX. */
        void (*reload)(ControlRequest *request, void *userdata);
        void (*scale)(ControlRequest *request, unsigned n, void *userdata);
        /* Likewise. @worker is a slot, 1 … CONTROL_WORKERS_MAX, or 0 for all of them. @json is one JSON
         * value of @n bytes, at most CONTROL_MESSAGE_MAX, without a NUL behind it; it lives as long as the
         * call. */
        void (*send)(ControlRequest *request, unsigned worker, const char *json, size_t n, void *userdata);
} ControlHandlers;

#define CONTROL_WORKERS_MAX 256
#define CONTROL_MESSAGE_MAX (256 * 1024)

/* @listen_fd is taken over on success. @app and @handlers are borrowed. Returns 0 or -ENOMEM. */
int control_new(int listen_fd, const char *app, const ControlHandlers *handlers, void *userdata,
                Control **ret);

/* Begins to watch. Returns 0 or a negative errno. */
int control_attach(Control *c, sd_event *event);

/* The pid of muster-admin, 0 when it does not run: a child that is no orphan. */
pid_t control_get_pid(const Control *c);

/* Answers and frees the request.
 *
 * @code  NULL: done, and @text is the JSON object of the result, NULL for "{}". Else "busy", "failed" or
 *        "invalid", and @text is a sentence for people.
 *
 * Right also when whoever asked is gone meanwhile. */
void control_request_finish(ControlRequest *request, const char *code, const char *text);

/* The master ends: nobody is let in any more, and muster-admin is told to finish the answers under way.
 * @handler is called once, from the loop, when it is gone, if need be killed after 2 seconds. Returns 0 or a
 * negative errno, and then @handler is not called. */
int control_stop(Control *c, void (*handler)(void *userdata));

/* Kills muster-admin if it runs. Requests that are not finished stay valid until they are. */
Control *control_free(Control *c);
DEFINE_CLEANUP(Control, control_free)
