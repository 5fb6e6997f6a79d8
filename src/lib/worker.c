/* SPDX-License-Identifier: MIT */
/* The worker's side of a cluster; the contract is in muster/worker.h, the messages are told of in
 * cluster-worker.c. */

#include "muster/worker.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "basic/assert-return.h"
#include "basic/macro.h"
#include "basic/options.h"
#include "basic/parse.h"
#include "ipc/forward.h"
#include "ipc/json.h"
#include "state/bus.h"

#define ENV_WORKER "MUSTER_WORKER"

#define SERVER_NAME_MAX 256
#define REASON_MAX      256

static_assert(MUSTER_WORKER_MESSAGE_MAX == FORWARD_VALUE_MAX, "The header says what fits on the channel");

struct muster_worker {
        muster_channel *channel; /* counted */
        muster_worker_handlers handlers;
        void *userdata;
        unsigned id;
        bool retiring;
};

DEFINE_CLEANUP(muster_worker, muster_worker_free)

static void retire(muster_worker *w) {
        if (w->retiring)
                return;
        w->retiring = true;
        if (w->handlers.retire)
                w->handlers.retire(w, w->userdata);
}

static void on_server(muster_worker *w, JsonSpan name_json, muster_message *message) {
        char name[SERVER_NAME_MAX];

        if (!w->handlers.server || muster_message_get_fd(message) < 0)
                return;
        (void) json_span_to_text(name_json, name, sizeof(name));
        w->handlers.server(w, name, muster_message_take_fd(message), w->userdata);
}

/* A handler may free the worker: nothing follows it. */
static void on_message(muster_channel *channel, muster_message *message, void *userdata) {
        enum { CMD, ACT, NAME };
        JsonMember m[] = {
                [CMD] = { .name = "cmd" }, [ACT] = { .name = "act" }, [NAME] = { .name = "name" }
        };
        muster_worker *w = userdata;
        size_t n;

        const char *json = muster_message_get_json(message, &n);
        (void) json_scan(json, n, m, ELEMENTSOF(m)); /* the channel has done so before */
        if (!json_span_is(m[CMD].value, "MUSTER")) {
                if (w->handlers.message)
                        w->handlers.message(w, message, w->userdata);
        } else if (json_span_is(m[ACT].value, "server"))
                on_server(w, m[NAME].value, message);
        else if (json_span_is(m[ACT].value, "started")) {
                if (w->handlers.started)
                        w->handlers.started(w, w->userdata);
        } else if (json_span_is(m[ACT].value, "publish"))
                bus_deliver(json, n);
        else if (json_span_is(m[ACT].value, "retire"))
                retire(w);
}

/* For the library's own store: a line that is for all other workers. */
static int send_line(const char *line, size_t n, void *userdata) {
        const muster_worker *w = userdata;

        if (n > FORWARD_MESSAGE_MAX)
                return -EMSGSIZE;
        return muster_channel_send_full(w->channel, line, n, -1, MUSTER_HANDLE_NONE, NULL, NULL);
}

/* Whatever ended it: there is nobody any more who would say that it is time to go. */
static void on_disconnected(muster_channel *channel, int error, void *userdata) {
        retire(userdata);
}

_public_ int muster_worker_from_environment(sd_event *event, const muster_worker_handlers *handlers,
                void *userdata, muster_worker **ret) {
        const muster_channel_handlers channel_handlers = {
                .size = sizeof(channel_handlers),
                .message = on_message,
                .disconnected = on_disconnected,
        };
        _cleanup_(muster_worker_freep) muster_worker *w = NULL;
        int r;

        muster_assert_return(event && handlers && ret, -EINVAL);
        const char *id = getenv(ENV_WORKER);
        if (!id)
                return -ENXIO;
        w = calloc(1, sizeof(*w));
        if (!w)
                return -ENOMEM;
        w->userdata = userdata;
        w->handlers.size = sizeof(w->handlers);
        r = options_copy(&w->handlers, sizeof(w->handlers), handlers,
                        OPTIONS_SIZE_UP_TO(muster_worker_handlers, message));
        if (r < 0)
                return r;
        bool valid = parse_uint(id, &w->id) >= 0;
        r = muster_channel_from_environment(event, NULL, &w->channel);
        if (r == -ENXIO && valid)
                return r; /* a worker of somebody else's, without a channel; so the variable is not ours */
        (void) unsetenv(ENV_WORKER);
        if (!valid)
                return -EINVAL;
        if (r < 0)
                return r;
        r = muster_channel_set_handlers(w->channel, &channel_handlers, w);
        if (r < 0)
                return r;
        bus_attach(send_line, w);
        *ret = TAKE_PTR(w);
        return 0;
}

_public_ unsigned muster_worker_get_id(const muster_worker *worker) {
        return worker ? worker->id : 0;
}

_public_ int muster_worker_ready(muster_worker *worker) {
        muster_assert_return(worker, -EINVAL);

        return muster_channel_send(
                        worker->channel, "{\"cmd\":\"MUSTER\",\"act\":\"ready\"}", -1, NULL, NULL);
}

_public_ int muster_worker_retire(muster_worker *worker, const char *reason) {
        static const char head[] = "{\"cmd\":\"MUSTER\",\"act\":\"retire\",\"reason\":";
        char line[sizeof(head) + 2 * REASON_MAX + 2 + 2], text[REASON_MAX + 1];

        muster_assert_return(worker, -EINVAL);
        snprintf(text, sizeof(text), "%s", reason ? reason : "");
        memcpy(line, head, sizeof(head));
        size_t n = json_append_string(line, sizeof(line) - 1, sizeof(head) - 1, text);
        line[n] = '}';
        line[n + 1] = '\0';
        return muster_channel_send(worker->channel, line, -1, NULL, NULL);
}

static int send_to_others(muster_worker *w, ForwardAct act, unsigned id, const char *json, size_t n) {
        _cleanup_free_ char *line = NULL;
        size_t at;

        if (n > MUSTER_WORKER_MESSAGE_MAX)
                return -EMSGSIZE;
        if (json_scan_content(json, n) < 0)
                return -EBADMSG;
        if (!forward_is_for_application(json, n))
                return -EINVAL;
        line = malloc(FORWARD_HEAD_MAX + n + strlen(FORWARD_TAIL));
        if (!line)
                return -ENOMEM;
        at = forward_write_head(act, id, line);
        memcpy(line + at, json, n);
        memcpy(line + at + n, FORWARD_TAIL, strlen(FORWARD_TAIL));
        return muster_channel_send_full(
                        w->channel, line, at + n + strlen(FORWARD_TAIL), -1, MUSTER_HANDLE_NONE, NULL, NULL);
}

_public_ int muster_worker_broadcast(muster_worker *worker, const char *json, size_t n) {
        muster_assert_return(worker && json, -EINVAL);

        return send_to_others(worker, FORWARD_BROADCAST, 0, json, n);
}

_public_ int muster_worker_send(muster_worker *worker, unsigned id, const char *json, size_t n) {
        muster_assert_return(worker && json && id > 0, -EINVAL);

        return send_to_others(worker, FORWARD_SEND, id, json, n);
}

_public_ muster_channel *muster_worker_get_channel(const muster_worker *worker) {
        return worker ? worker->channel : NULL;
}

_public_ muster_worker *muster_worker_free(muster_worker *worker) {
        if (!worker)
                return NULL;
        bus_detach(worker);
        muster_channel_unref(worker->channel);
        free(worker);
        return NULL;
}
