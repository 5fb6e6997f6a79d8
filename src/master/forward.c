/* SPDX-License-Identifier: MIT */
/* Messages for workers; see forward.h. */

#include "master/forward.h"

#include <errno.h>
#include <string.h>

#include "basic/log.h"
#include "master/worker-messages.h"

static bool is_recipient(const Worker *w, const Recipients *r) {
        return w->state == WORKER_READY && w != r->except && (r->slot == 0 || w->slot == r->slot) &&
               !(r->without_node && w->kind == APP_NODE);
}

static unsigned count(const List *workers, const Recipients *r) {
        unsigned n = 0;

        list_foreach (node, workers)
                n += is_recipient(list_entry(node, Worker, node), r);
        return n;
}

unsigned forward_deliver(const List *workers, const Recipients *recipients, const char *json, size_t n,
                ForwardFailureHandler handler, void *userdata) {
        unsigned delivered = 0;

        list_foreach (node, workers) {
                Worker *w = list_entry(node, Worker, node);

                if (!is_recipient(w, recipients))
                        continue;
                int r = worker_send_application(w, json, n);
                if (r >= 0)
                        delivered++;
                else if (handler)
                        handler(w, r, userdata);
        }
        return delivered;
}

static void refuse(Worker *from, const char *why) {
        char name[WORKER_STRING_MAX];

        from->n_refused++;
        if (!worker_may_log(&from->refused_logged_usec))
                return;
        log_event(LOG_WARNING,
                        (.worker = from->slot, .agent = worker_get_agent(from), .worker_pid = from->pid,
                                        .generation = from->generation),
                        "A message of %s (pid %d) for others is not passed on: %s.",
                        worker_to_string(from, name), from->pid, why);
}

/* One that has closed its channel has no use for messages, and loses none. */
static void on_failure(Worker *to, int error, void *userdata) {
        if (error == -EPIPE)
                return;
        to->n_lost++;
        if (!worker_may_log(&to->lost_logged_usec))
                return;
        log_event(LOG_WARNING, (.worker = to->slot, .worker_pid = to->pid, .generation = to->generation),
                        "Worker %u (pid %d) has not got a message of another worker: %s.", to->slot, to->pid,
                        error == -ENOBUFS ? "it does not read what it was sent before" : strerror(-error));
}

void forward_from_worker(Worker *from, const Forward *f, const List *workers) {
        const Recipients recipients = {
                .slot = f->slot,
                .except = f->act == FORWARD_SEND ? NULL : from,
                .without_node = f->act == FORWARD_PUBLISH,
        };

        if (f->refused) {
                refuse(from, f->refused);
                return;
        }
        unsigned n = count(workers, &recipients);
        if (n == 0 && f->act == FORWARD_SEND) {
                refuse(from, "the worker that it is for is not ready, or there is none of that number");
                return;
        }
        worker_charge(from, n, f->message.n);
        (void) forward_deliver(workers, &recipients, f->message.p, f->message.n, on_failure, NULL);
}
