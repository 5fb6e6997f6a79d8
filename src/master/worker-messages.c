/* SPDX-License-Identifier: MIT */
/* What a worker says; see worker-messages.h. */

#include "master/worker-messages.h"

#include <errno.h>
#include <string.h>

#include "basic/log.h"
#include "basic/macro.h"
#include "basic/text.h"
#include "ipc/json.h"
#include "muster/process.h"

static void tell_ready(Worker *w) {
        if (w->state == WORKER_STARTING)
                w->environment->handlers.ready(w, w->environment->userdata);
}

static void tell_stops(Worker *w) {
        if (w->state == WORKER_STARTING || w->state == WORKER_READY)
                w->environment->handlers.stops(w, w->environment->userdata);
}

static void tell_status(Worker *w, const char *text) {
        if (strcmp(w->status, text) == 0)
                return;
        snprintf(w->status, sizeof(w->status), "%s", text);
        text_make_printable(w->status);
        w->environment->handlers.status(w, w->environment->userdata);
}

void worker_look_at_board(Worker *w) {
        switch (atomic_load_explicit(&w->cell->state, memory_order_acquire)) {
        case BOARD_READY:
                tell_ready(w);
                break;
        case BOARD_LEAVING:
                tell_ready(w);
                worker_leave(w, WORKER_LEAVES_FOR_REQUESTS, NULL);
                break;
        case BOARD_DRAINING:
                tell_stops(w);
                break;
        }
}

static void on_message(muster_channel *channel, muster_message *message, void *userdata) {
        enum { CMD, ACT, REASON, TEXT };
        JsonMember m[] = { [CMD] = { .name = "cmd" },
                [ACT] = { .name = "act" },
                [REASON] = { .name = "reason" },
                [TEXT] = { .name = "text" } };
        char text[WORKER_TEXT_MAX];
        Worker *w = userdata;
        size_t n;

        const char *json = muster_message_get_json(message, &n);
        (void) json_scan(json, n, m, ELEMENTSOF(m)); /* the channel has done so before */
        bool ours = json_span_is(m[CMD].value, "MUSTER");
        if (json_span_is(m[ACT].value, "suicide") || (ours && json_span_is(m[ACT].value, "retire"))) {
                (void) json_span_to_text(m[REASON].value, text, sizeof(text));
                worker_leave(w, WORKER_LEAVES_BY_REQUEST, text);
        } else if (ours && json_span_is(m[ACT].value, "ready"))
                tell_ready(w);
        else if (ours && json_span_is(m[ACT].value, "status")) {
                (void) json_span_to_text(m[TEXT].value, text, sizeof(text));
                tell_status(w, text);
        } else
                log_debug("Worker %u (pid %d) sent a message that means nothing to the master.", w->slot,
                                w->pid);
}

/* Closed by the worker, as a program may that has no use for it, or broken by it: it is not heard any more,
 * and goes on serving. */
static void on_disconnected(muster_channel *channel, int error, void *userdata) {
        const Worker *w = userdata;

        if (error < 0)
                log_event(LOG_WARNING,
                                (.message_id = MESSAGE_ID_CHANNEL_CLOSED, .worker = w->slot,
                                                .worker_pid = w->pid, .generation = w->generation),
                                "Closed the channel of worker %u (pid %d): %s.", w->slot, w->pid,
                                error == -EBADMSG    ? "found something that is no JSON line"
                                : error == -EMSGSIZE ? "found a message longer than 256K"
                                : error == -EPROTO   ? "found a descriptor that belongs to nothing"
                                                     : strerror(-error));
}

int worker_messages_attach(Worker *w) {
        const muster_channel_handlers handlers = {
                .size = sizeof(handlers),
                .message = on_message,
                .disconnected = on_disconnected,
        };

        return muster_channel_set_handlers(muster_child_get_channel(w->child), &handlers, w);
}

/* One that cannot be sent, because nobody reads, is the answer too. */
void worker_probe(Worker *w) {
        (void) muster_channel_send(muster_child_get_channel(w->child),
                        "{\"cmd\":\"MUSTER\",\"act\":\"probe\"}", -1, NULL, NULL);
}
