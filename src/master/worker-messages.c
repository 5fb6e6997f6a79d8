/* SPDX-License-Identifier: MIT */
/* What a worker says; see worker-messages.h. */

#include "master/worker-messages.h"

#include <errno.h>
#include <string.h>

#include "basic/clock.h"
#include "basic/log.h"
#include "basic/macro.h"
#include "basic/parse.h"
#include "basic/text.h"
#include "ipc/json.h"
#include "muster/process.h"

/* What one EXTEND_TIMEOUT_USEC= can ask for. */
#define EXTENSION_MAX_USEC (3600 * USEC_PER_SEC)

/* What one worker, and all of them together, may say in a second: bytes, and what a message costs besides
 * them, for each who gets it as for the master itself. What is more waits in the socket, and then the worker
 * does: so the master always has time for everything else. */
#define SAID_BYTES_MAX     (UINT64_C(64) * 1024 * 1024)
#define ALL_SAID_BYTES_MAX (UINT64_C(128) * 1024 * 1024)
#define MESSAGE_BYTES      512

/* What happens again and again is not told more often than that. */
#define LOG_INTERVAL_USEC (10 * USEC_PER_SEC)

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

/* First what it said, then who has died since: one that was ready has not failed to become so. */
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
        worker_look_at_twin(w);
}

bool worker_may_log(uint64_t *last_usec) {
        uint64_t now_usec = clock_now_usec();

        if (*last_usec > 0 && now_usec - *last_usec < LOG_INTERVAL_USEC)
                return false;
        *last_usec = now_usec;
        return true;
}

static int on_pause_over(sd_event_source *source, uint64_t usec, void *userdata) {
        Worker *w = userdata;

        w->pause = sd_event_source_disable_unref(w->pause);
        (void) muster_channel_resume(muster_child_get_channel(w->child));
        return 0;
}

static void log_paused(Worker *w, bool by_itself) {
        char name[WORKER_STRING_MAX];

        if (!worker_may_log(&w->paused_logged_usec))
                return;
        log_event(LOG_WARNING,
                        (.worker = w->slot, .agent = worker_get_agent(w), .worker_pid = w->pid,
                                        .generation = w->generation),
                        "%s (pid %d) has to wait for the rest of a second: %s said more than %s in it, counted for each who gets it.",
                        worker_to_subject(w, name), w->pid,
                        by_itself ? "it has" : "the workers together have", by_itself ? "64M" : "128M");
}

static void pause_channel(Worker *w, uint64_t usec, bool by_itself) {
        if (w->pause || sd_event_add_time_relative(w->environment->event, &w->pause, CLOCK_MONOTONIC, usec,
                                        clock_accuracy_usec(usec), on_pause_over, w) < 0)
                return;
        (void) muster_channel_pause(muster_child_get_channel(w->child));
        log_paused(w, by_itself);
}

void worker_charge(Worker *w, uint64_t n, uint64_t bytes) {
        uint64_t now_usec = clock_now_usec(), cost = n * (bytes + MESSAGE_BYTES);
        uint64_t own_usec = forward_account_add(&w->said, now_usec, cost, SAID_BYTES_MAX);
        uint64_t all_usec = forward_account_add(w->environment->said, now_usec, cost, ALL_SAID_BYTES_MAX);

        if (own_usec > 0 || all_usec > 0)
                pause_channel(w, MAX(own_usec, all_usec), own_usec > 0);
}

static void log_closed(const Worker *w, const char *why) {
        const char *agent = worker_get_agent(w);
        char name[WORKER_STRING_MAX];

        log_event(LOG_WARNING,
                        (.message_id = agent ? NULL : MESSAGE_ID_CHANNEL_CLOSED, .worker = w->slot,
                                        .agent = agent, .worker_pid = w->pid, .generation = w->generation),
                        "Closed the channel of %s (pid %d): %s.", worker_to_string(w, name), w->pid, why);
}

/* process.send('ready'), as PM2's wait_ready has it. */
static bool is_ready_word(const char *json, size_t n) {
        return json_span_is((JsonSpan){ json, n }, "ready");
}

static void refuse_channel(Worker *w, muster_channel *channel, const char *why) {
        if (muster_channel_disconnect(channel) < 0)
                return;
        log_closed(w, why);
        if (w->cluster)
                worker_channel_lost(w);
}

/* The app has disconnected it: it goes by itself, and that is no death of one that was well. */
static void on_cluster_leaves(Worker *w) {
        if (w->state == WORKER_READY) {
                w->retired = true;
                worker_leave(w, WORKER_LEAVES_BY_REQUEST, "the app has disconnected it");
        } else
                tell_stops(w);
}

static void on_cluster_news(Worker *w, ClusterNews news) {
        switch (news) {
        case CLUSTER_IS_LISTENING:
                if (!w->wait_ready)
                        tell_ready(w);
                break;
        case CLUSTER_IS_HELD:
                worker_set_waiting(w);
                break;
        case CLUSTER_LEAVES:
                on_cluster_leaves(w);
                break;
        case CLUSTER_NO_SCRIPT:
                worker_unfit(w, "Node was started without the path of a script (node -e, a pipe), with which its cluster does not work");
                break;
        case CLUSTER_WATCHED:
                worker_unfit(w, "\"node --watch\" has taken the app's channel for itself; start the app without it");
                break;
        case CLUSTER_NO_NEWS:
                break;
        }
}

/* What Node itself says. Returns whether that was it. */
static bool receive_for_cluster(Worker *w, muster_channel *channel, const char *json, size_t n) {
        ClusterNews news;
        int r;

        r = cluster_worker_receive(w->cluster, json, n, &news);
        if (r == CLUSTER_NOT_OURS)
                return false;
        if (r < 0)
                refuse_channel(w, channel, "found a message of Node's cluster that makes no sense");
        else
                on_cluster_news(w, news);
        return true;
}

/* What it says to the master itself. */
static void receive(Worker *w, const char *json, size_t n) {
        enum { CMD, ACT, REASON, TEXT };
        JsonMember m[] = { [CMD] = { .name = "cmd" },
                [ACT] = { .name = "act" },
                [REASON] = { .name = "reason" },
                [TEXT] = { .name = "text" } };
        char text[WORKER_TEXT_MAX], name[WORKER_STRING_MAX];

        (void) json_scan(json, n, m, ELEMENTSOF(m)); /* the channel has done so before */
        bool ours = json_span_is(m[CMD].value, "MUSTER");
        if (json_span_is(m[ACT].value, "suicide") || (ours && json_span_is(m[ACT].value, "retire"))) {
                (void) json_span_to_text(m[REASON].value, text, sizeof(text));
                worker_leave(w, WORKER_LEAVES_BY_REQUEST, text);
        } else if ((ours && json_span_is(m[ACT].value, "ready")) ||
                        (w->wait_ready && is_ready_word(json, n)))
                tell_ready(w);
        else if (ours && json_span_is(m[ACT].value, "status")) {
                (void) json_span_to_text(m[TEXT].value, text, sizeof(text));
                tell_status(w, text);
        } else
                log_debug("%s (pid %d) sent a message that means nothing to the master.",
                                worker_to_subject(w, name), w->pid);
}

static void on_message(muster_channel *channel, muster_message *message, void *userdata) {
        Worker *w = userdata;
        Forward forward;
        size_t n;

        const char *json = muster_message_get_json(message, &n);
        worker_charge(w, 1, n);
        if (w->cluster && receive_for_cluster(w, channel, json, n))
                return;
        if (forward_parse(json, n, &forward))
                w->environment->handlers.forwards(w, &forward, w->environment->userdata);
        else
                receive(w, json, n);
}

/* Closed by the worker, as a program may that has no use for it, or broken by it: it is not heard any more,
 * and goes on serving. */
static void on_disconnected(muster_channel *channel, int error, void *userdata) {
        Worker *w = userdata;

        if (w->cluster)
                worker_channel_lost(w);
        if (error < 0)
                log_closed(w, error == -EBADMSG      ? "found something that is no JSON line"
                                : error == -EMSGSIZE ? "found a message longer than 256K"
                                : error == -EPROTO   ? "found a descriptor that belongs to nothing"
                                                     : strerror(-error));
}

static void on_notification(const NotifyMessage *n, pid_t sender, void *userdata) {
        Worker *w = userdata;
        bool was_reloading = w->reloading;

        if (n->error > 0)
                w->error = n->error;
        if (n->extend_timeout_usec > 0) {
                uint64_t usec = MIN(n->extend_timeout_usec, EXTENSION_MAX_USEC);

                worker_extend_deadline(w, usec);
                worker_extend_takeover(w, usec);
                w->environment->handlers.extends(w, usec, w->environment->userdata);
        }
        if (n->watchdog)
                w->alive_usec = clock_now_usec();
        w->reloading = n->reloading || (w->reloading && !n->ready);
        if (n->has_status)
                tell_status(w, n->status);
        if (w->reloading != was_reloading)
                w->environment->handlers.status(w, w->environment->userdata);
        if (n->ready)
                tell_ready(w);
        if (n->stopping)
                tell_stops(w);
        /* Of a process that is dead its successor is not to be ended. */
        if (n->watchdog_trigger && !worker_was_taken_over_from(w, sender)) {
                w->triggered = true;
                w->environment->handlers.hangs(w, w->environment->userdata);
        }
}

static void on_memory_event(void *userdata) {
        Worker *w = userdata;
        char found[SIZE_STRING_MAX], limit[SIZE_STRING_MAX], reason[WORKER_TEXT_MAX];
        uint64_t bytes;

        if (cgroup_get_memory(w->cgroup, &bytes) < 0 || bytes < w->max_memory_bytes)
                return;
        (void) cgroup_set_memory_trip(w->cgroup, 0); /* it is to serve well until its successor does */
        snprintf(reason, sizeof(reason), "it uses %s of memory, more than %s", size_to_string(bytes, found),
                        size_to_string(w->max_memory_bytes, limit));
        worker_leave(w, WORKER_LEAVES_FOR_MEMORY, reason);
}

/* With the memory controller a worker that grows fast is heard of at once, and not at the next tick only.
 * The wire is above the limit, as page cache counts for it too: a worker close to its limit must not be left
 * without room for its own program. */
static void watch_memory(Worker *w) {
        if (!w->cgroup || w->max_memory_bytes == 0)
                return;
        if (cgroup_set_memory_trip(w->cgroup, w->max_memory_bytes + w->max_memory_bytes / 4) < 0)
                return;
        /* Of a worker with a twin it takes one process, so that the other takes over. */
        if (cgroup_set_oom_group(w->cgroup, !w->twin.enabled) >= 0)
                (void) cgroup_watch(w->cgroup, w->environment->event, on_memory_event, w);
}

int worker_messages_attach(Worker *w) {
        const muster_channel_handlers handlers = {
                .size = sizeof(handlers),
                .message = on_message,
                .disconnected = on_disconnected,
        };

        int r;

        watch_memory(w);
        if (w->inbox) {
                r = notify_inbox_attach(w->inbox, w->environment->event, on_notification, w);
                if (r < 0)
                        return r;
        }
        if (w->cluster)
                cluster_worker_attach(w->cluster, muster_child_get_channel(w->child));
        return muster_channel_set_handlers(muster_child_get_channel(w->child), &handlers, w);
}

int worker_send(Worker *w, const char *json, size_t n) {
        return muster_channel_send_full(muster_child_get_channel(w->child), json, n, /* fd= */ -1,
                        MUSTER_HANDLE_AUTO, NULL, NULL);
}

int worker_send_application(Worker *w, const char *json, size_t n) {
        const muster_channel *channel = muster_child_get_channel(w->child);

        return muster_channel_has_room(channel, n, FORWARD_QUEUE_MAX) ? worker_send(w, json, n) : -ENOBUFS;
}

/* One that cannot be sent, because nobody reads, is the answer too. */
void worker_probe(Worker *w) {
        static const char probe[] = "{\"cmd\":\"MUSTER\",\"act\":\"probe\"}";

        if (w->cluster)
                cluster_worker_ping(w->cluster);
        else
                (void) worker_send(w, probe, sizeof(probe) - 1);
}
