/* SPDX-License-Identifier: MIT */
/* One worker process of a cluster; see cluster-internal.h.
 *
 * Down the channel go {"cmd":"MUSTER","act":"server","name":NAME} with the descriptor for each server, then
 * "started", and at the end "retire". Up come "ready" and "retire" with a "reason", which may also be
 * spelled
 * {"act":"suicide"}, and what is for other workers (ipc/forward.h). All else is the application's. */

#include "lib/cluster-internal.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "basic/clock.h"
#include "basic/macro.h"
#include "ipc/json.h"
#include "basic/assert-return.h"
#include "lib/channel-internal.h"
#include "lib/child.h"
#include "lib/environment.h"

#define REASON_MAX      257
#define SERVER_LINE_MAX 320

DEFINE_CLEANUP(muster_cluster_worker, cluster_worker_free)

static int on_deadline(sd_event_source *source, uint64_t usec, void *userdata) {
        muster_cluster_worker *w = userdata;

        if (w->state == CLUSTER_WORKER_READY) /* its replacement takes too long */
                cluster_worker_dismiss(w);
        else
                (void) muster_child_kill_group(w->child, SIGKILL);
        return 0;
}

/* Without memory for a timer there is no deadline: worse, but no reason to kill anybody. */
static void set_deadline(muster_cluster_worker *w, uint64_t usec) {
        int r;

        w->deadline = sd_event_source_disable_unref(w->deadline);
        r = sd_event_add_time_relative(w->slot->cluster->event, &w->deadline, CLOCK_MONOTONIC, usec,
                        clock_accuracy_usec(usec), on_deadline, w);
        /* After all that it has said: when this process was late, that may be due together. */
        if (r >= 0)
                (void) sd_event_source_set_priority(w->deadline, SD_EVENT_PRIORITY_IDLE);
}

void cluster_worker_dismiss(muster_cluster_worker *w) {
        if (w->state == CLUSTER_WORKER_RETIRING)
                return;
        w->state = CLUSTER_WORKER_RETIRING;
        w->leaving = true;
        if (muster_cluster_worker_send(w, "{\"cmd\":\"MUSTER\",\"act\":\"retire\"}", -1) < 0)
                (void) muster_child_kill(w->child, SIGTERM); /* ESRCH: its exit is on the way to us */
        set_deadline(w, w->slot->cluster->stop_timeout_usec);
}

void cluster_worker_set_leaving(muster_cluster_worker *w, uint64_t timeout_usec) {
        w->leaving = true;
        set_deadline(w, timeout_usec);
}

static void on_ready(muster_cluster_worker *w) {
        if (w->state != CLUSTER_WORKER_STARTING)
                return;
        w->state = CLUSTER_WORKER_READY;
        w->deadline = sd_event_source_disable_unref(w->deadline);
        slot_worker_is_ready(w);
}

void cluster_worker_forward(muster_cluster_worker *w, JsonSpan message) {
        muster_channel *channel = muster_child_get_channel(w->child);

        if (w->state == CLUSTER_WORKER_READY && message.n <= FORWARD_MESSAGE_MAX &&
                        muster_channel_has_room(channel, message.n, FORWARD_QUEUE_MAX))
                (void) muster_channel_send_full(
                                channel, message.p, message.n, -1, MUSTER_HANDLE_NONE, NULL, NULL);
}

static void on_message(muster_channel *channel, muster_message *message, void *userdata) {
        enum { CMD, ACT, REASON };
        JsonMember m[] = {
                [CMD] = { .name = "cmd" }, [ACT] = { .name = "act" }, [REASON] = { .name = "reason" }
        };
        muster_cluster_worker *w = userdata;
        muster_cluster *c = w->slot->cluster;
        char reason[REASON_MAX];
        Forward forward;
        size_t n;

        const char *json = muster_message_get_json(message, &n);
        if (forward_parse(json, n, &forward)) {
                slot_forward(w, &forward);
                return;
        }
        (void) json_scan(json, n, m, ELEMENTSOF(m)); /* the channel has done so before */
        bool ours = json_span_is(m[CMD].value, "MUSTER");
        if (json_span_is(m[ACT].value, "suicide") || (ours && json_span_is(m[ACT].value, "retire"))) {
                (void) json_span_to_text(m[REASON].value, reason, sizeof(reason));
                slot_worker_wants_to_go(w, reason);
        } else if (ours) {
                if (json_span_is(m[ACT].value, "ready"))
                        on_ready(w);
        } else if (c->handlers.message)
                c->handlers.message(c, w, message, c->userdata);
}

/* As a rule it has ended, and its exit is the next that we hear. If it goes on living, nobody can reach it.
 */
static void on_disconnected(muster_channel *channel, int error, void *userdata) {
        muster_cluster_worker *w = userdata;
        char reason[REASON_MAX];

        if (error < 0) {
                snprintf(reason, sizeof(reason), "its channel failed: %s", strerror(-error));
                slot_worker_wants_to_go(w, reason);
        }
        cluster_worker_dismiss(w);
        slot_lost_worker(w);
}

/* It has no free descriptor for what it is there to serve. */
static void on_server_sent(muster_channel *channel, int error, void *userdata) {
        muster_cluster_worker *w = userdata;

        if (error == -EREMOTEIO)
                (void) muster_child_kill_group(w->child, SIGKILL);
}

static void on_exit_of_child(muster_child *child, int code, int status, void *userdata) {
        muster_cluster_worker *w = userdata;

        w->deadline = sd_event_source_disable_unref(w->deadline);
        /* What it started ends with it, and what it said last is heard. */
        (void) muster_child_kill_group(child, SIGKILL);
        channel_receive_rest(muster_child_get_channel(child));
        slot_worker_has_ended(w, code, status);
}

static int send_servers(muster_cluster_worker *w) {
        const muster_cluster *c = w->slot->cluster;
        muster_channel *channel = muster_child_get_channel(w->child);
        char line[SERVER_LINE_MAX];
        int r;

        for (size_t i = 0; i < c->n_servers; i++) {
                int n = snprintf(line, sizeof(line),
                                "{\"cmd\":\"MUSTER\",\"act\":\"server\",\"name\":\"%s\"}",
                                c->servers[i].name);
                r = muster_channel_send_full(channel, line, (size_t) n, c->servers[i].fd,
                                MUSTER_HANDLE_NET_SERVER, on_server_sent, w);
                if (r < 0)
                        return r;
        }
        return muster_cluster_worker_send(w, "{\"cmd\":\"MUSTER\",\"act\":\"started\"}", -1);
}

static int spawn(muster_cluster_worker *w) {
        const muster_cluster *c = w->slot->cluster;
        _cleanup_free_ char **env = NULL;
        char id[sizeof("MUSTER_WORKER=4294967295")];
        char *const additions[] = { id };
        muster_spawn_options o = MUSTER_SPAWN_OPTIONS_INIT;
        int r;

        snprintf(id, sizeof(id), "MUSTER_WORKER=%u", w->slot->id);
        r = environment_new(c->env ? c->env : environ, additions, 1, &env);
        if (r < 0)
                return r;
        o.program = c->program;
        o.argv = c->argv;
        o.env = env;
        o.flags = MUSTER_SPAWN_DIE_WITH_PARENT | MUSTER_SPAWN_PROCESS_GROUP;
        return muster_fork(c->event, &o, on_exit_of_child, w, &w->child);
}

int cluster_worker_start(Slot *slot, muster_cluster_worker **ret) {
        const muster_channel_handlers handlers = {
                .size = sizeof(handlers),
                .message = on_message,
                .disconnected = on_disconnected,
        };
        _cleanup_(cluster_worker_freep) muster_cluster_worker *w = NULL;
        int r;

        w = calloc(1, sizeof(*w));
        if (!w)
                return -ENOMEM;
        list_init(&w->node);
        w->slot = slot;
        w->started_usec = clock_now_usec();
        r = spawn(w);
        if (r >= 0)
                r = muster_channel_set_handlers(muster_child_get_channel(w->child), &handlers, w);
        if (r >= 0)
                r = send_servers(w);
        if (r < 0 && r != -EPIPE) /* it was started, and has ended already: its exit is on the way to us */
                return r;
        set_deadline(w, slot->cluster->start_timeout_usec);
        list_append(&slot->workers, &w->node);
        if (ret)
                *ret = w;
        TAKE_PTR(w);
        return 0;
}

muster_cluster_worker *cluster_worker_free(muster_cluster_worker *w) {
        if (!w)
                return NULL;
        list_remove(&w->node);
        sd_event_source_disable_unref(w->deadline);
        if (w->child) {
                (void) muster_child_kill_group(w->child, SIGKILL);
                child_give_up(w->child);
                muster_child_unref(w->child);
        }
        free(w);
        return NULL;
}

_public_ unsigned muster_cluster_worker_get_id(const muster_cluster_worker *worker) {
        return worker ? worker->slot->id : 0;
}

_public_ pid_t muster_cluster_worker_get_pid(const muster_cluster_worker *worker) {
        muster_assert_return(worker, -EINVAL);

        return muster_child_get_pid(worker->child);
}

_public_ int muster_cluster_worker_send(muster_cluster_worker *worker, const char *json, int fd) {
        muster_assert_return(worker, -EINVAL);

        return muster_channel_send(muster_child_get_channel(worker->child), json, fd, NULL, NULL);
}
