/* SPDX-License-Identifier: MIT */
/* The core of a handle; see store.h.
 *
 * An operation is in one of three lists. It waits until there is a connection; it is with the driver; or it
 * is late, which means that its handler was told and only the driver still has it. Both of the first are in
 * the order of their deadlines, as all have the same time-out: the oldest is always the first.
 *
 * When a connection is lost, nobody knows of a write that was sent whether it was done. So its handler is
 * told that; what only reads waits for the next connection instead.
 *
 * An application's handler may close the handle. The driver is somewhere below it then, so that all is freed
 * only when the loop comes around. */

#include "state/store.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "basic/clock.h"
#include "basic/credential.h"
#include "basic/assert-return.h"
#include "basic/options.h"

#define ENV_URL        "MUSTER_STATE_URL"
#define ENV_CREDENTIAL "MUSTER_STATE_CREDENTIAL"
#define ENV_REQUIRED   "MUSTER_STATE_REQUIRED"

#define TIMEOUT_DEFAULT_USEC (5 * USEC_PER_SEC)
#define TIMEOUT_MAX_USEC     (3600 * USEC_PER_SEC)

/* Pauses between attempts to connect: doubling, plus up to a quarter, so that not all processes come at the
 * same time to a server that is back. */
#define PAUSE_MIN_USEC (100 * USEC_PER_MSEC)
#define PAUSE_MAX_USEC (5 * USEC_PER_SEC)

/* What is under way when the handle is closed has so long to be done. */
#define CLOSE_TIMEOUT_USEC (250 * USEC_PER_MSEC)

#define COMPLAINT_INTERVAL_USEC USEC_PER_SEC

static List all = LIST_INIT(all); /* of the embedded store, which all belong to one thread */

List *store_all(void) {
        return &all;
}

/*
 * Handlers
 */

void store_enter(muster_state *s) {
        s->depth++;
}

void store_leave(muster_state *s) {
        s->depth--;
}

static void tell_change(muster_state *s, int error, const char *text) {
        if (!s->changed || s->is_closed)
                return;
        store_enter(s);
        s->changed(s, error, text, s->userdata);
        store_leave(s);
}

static void host_complain(StateStore *s, const char *text) {
        uint64_t now = clock_now_usec();

        if (s->complained_usec > 0 && now - s->complained_usec < COMPLAINT_INTERVAL_USEC)
                return;
        s->complained_usec = now;
        tell_change(s, -EIO, text);
}

/*
 * Operations
 */

Operation *operation_new(StateVerb verb, StateBytes key, StateBytes value, StateBytes cursor) {
        size_t n = key.size + value.size + cursor.size;
        Operation *o = malloc(sizeof(*o) + n);
        char *p;

        if (!o)
                return NULL;
        memset(o, 0, sizeof(*o));
        list_init(&o->node);
        list_init(&o->op.driver_node);
        o->bytes = sizeof(*o) + n;
        o->op.verb = verb;
        p = o->data;
        o->op.key = (StateBytes){ p, key.size };
        p = mempcpy(p, key.size > 0 ? key.data : "", key.size);
        o->op.value = (StateBytes){ p, value.size };
        p = mempcpy(p, value.size > 0 ? value.data : "", value.size);
        o->op.cursor = (StateBytes){ p, cursor.size };
        (void) mempcpy(p, cursor.size > 0 ? cursor.data : "", cursor.size);
        return o;
}

static Operation *operation_of(StateOperation *op) {
        return CONTAINER_OF(op, Operation, op);
}

static void operation_uncount(muster_state *s, Operation *o) {
        s->n_operations--;
        s->n_bytes -= o->bytes;
}

static void operation_tell(muster_state *s, Operation *o, const StateOutcome *outcome) {
        if (!o->on_end)
                return;
        store_enter(s);
        o->on_end(s, o, outcome);
        store_leave(s);
}

/* It is in the waiting or the sent list. */
static void operation_end(muster_state *s, Operation *o, int error) {
        const StateOutcome outcome = { .error = error };

        list_remove(&o->node);
        operation_uncount(s, o);
        operation_tell(s, o, &outcome);
        free(o);
}

static void host_finish(StateStore *s, StateOperation *op, const StateOutcome *outcome) {
        Operation *o = operation_of(op);

        list_remove(&o->node);
        operation_uncount(s, o);
        if (!o->is_late)
                operation_tell(s, o, outcome);
        free(o);
}

static void host_abandon(StateStore *s, StateOperation *op) {
        Operation *o = operation_of(op);

        list_remove(&o->node);
        operation_uncount(s, o);
}

static bool only_reads(const Operation *o) {
        return o->op.verb == STATE_GET || o->op.verb == STATE_SCAN;
}

/* To the driver, which has a connection. One that it does not take has done nothing. */
static void operation_send(muster_state *s, Operation *o) {
        int r;

        list_remove(&o->node);
        list_append(&s->sent, &o->node);
        o->is_sent = true;
        r = s->driver->send(s->driver_data, &o->op);
        if (r < 0)
                operation_end(s, o, r);
}

/* A handler that is told of a failure may ask for more, or end the connection. */
static void send_waiting(muster_state *s) {
        while (s->link == STATE_UP && !s->is_closed && !list_empty(&s->waiting))
                operation_send(s, list_entry(s->waiting.next, Operation, node));
}

void store_arm_deadline(muster_state *s, uint64_t usec) {
        if (s->is_armed)
                return;
        s->is_armed = sd_event_source_set_time(s->deadline, usec) >= 0 &&
                      sd_event_source_set_enabled(s->deadline, SD_EVENT_ONESHOT) >= 0;
}

static void operation_take(muster_state *s, Operation *o) {
        o->deadline_usec = clock_now_usec() + s->timeout_usec;
        s->n_operations++;
        s->n_bytes += o->bytes;
        store_arm_deadline(s, o->deadline_usec);
}

bool store_has_room(const muster_state *s, size_t n_bytes) {
        return s->n_operations < MUSTER_STATE_WAITING_MAX &&
               s->n_bytes + n_bytes <= MUSTER_STATE_WAITING_BYTES_MAX;
}

int store_submit(muster_state *s, Operation *o) {
        int r;

        operation_take(s, o);
        list_append(&s->waiting, &o->node);
        if (s->link != STATE_UP || s->waiting.next != &o->node)
                return 0;
        list_remove(&o->node);
        list_append(&s->sent, &o->node);
        o->is_sent = true;
        r = s->driver->send(s->driver_data, &o->op);
        if (r < 0) {
                list_remove(&o->node);
                operation_uncount(s, o);
                free(o);
        }
        return r;
}

/* In the order in which it was sent, before all that waits. */
static void send_reads_again(muster_state *s) {
        List *first = s->waiting.next;

        list_foreach_safe (node, &s->sent) {
                Operation *o = list_entry(node, Operation, node);

                if (!only_reads(o))
                        continue;
                list_remove(node);
                list_append(first, node);
                o->is_sent = false;
        }
}

/* What was sent with the connection that is gone. All of it stays where a handler that closes the handle
 * finds it. */
static void settle_sent(muster_state *s, int error) {
        send_reads_again(s);
        while (!list_empty(&s->sent))
                operation_end(s, list_entry(s->sent.next, Operation, node), error);
        while (!list_empty(&s->late)) {
                Operation *o = list_entry(s->late.next, Operation, node);

                list_remove(&o->node);
                operation_uncount(s, o);
                free(o);
        }
}

/*
 * The connection
 */

static uint64_t random_below(uint64_t n) {
        uint64_t v = 0;

        (void) !getrandom(&v, sizeof(v), GRND_NONBLOCK); /* early in the boot: 0 will do */
        return v % n;
}

static uint64_t next_pause_usec(muster_state *s) {
        uint64_t usec = PAUSE_MIN_USEC << MIN(s->n_failures, 6U);

        s->n_failures++;
        usec = MIN(usec, PAUSE_MAX_USEC);
        return usec + random_below(usec / 4);
}

static void set_attempt(muster_state *s, uint64_t usec) {
        if (sd_event_source_set_time_relative(s->attempt, usec) >= 0)
                (void) sd_event_source_set_enabled(s->attempt, SD_EVENT_ONESHOT);
}

/* An attempt that ends as the one before is nothing new. */
static void tell_down(muster_state *s, int error, const char *text) {
        if (strncmp(s->told, text, sizeof(s->told) - 1) == 0)
                return;
        snprintf(s->told, sizeof(s->told), "%s", text);
        tell_change(s, error, text);
}

/* One that comes and goes is as bad as one that does not come. */
static bool has_lasted(const muster_state *s) {
        return s->link == STATE_UP && clock_now_usec() - s->connected_usec >= PAUSE_MAX_USEC;
}

/* The driver has let go of everything. */
static void go_down(muster_state *s, int error, int error_of_sent, const char *text) {
        if (has_lasted(s))
                s->n_failures = 0;
        s->link = STATE_DOWN;
        s->error = error;
        if (s->is_closed)
                return;
        set_attempt(s, next_pause_usec(s));
        subscriptions_lost(s);
        settle_sent(s, error_of_sent);
        tell_down(s, error, text);
}

static void host_lost(StateStore *s, int error, const char *text) {
        go_down(s, error, -ECONNABORTED, text);
}

static void host_connected(StateStore *s) {
        s->link = STATE_UP;
        s->error = 0;
        s->connected_usec = clock_now_usec();
        s->told[0] = '\0';
        (void) sd_event_source_set_enabled(s->attempt, SD_EVENT_OFF);
        if (s->is_closed)
                return;
        subscriptions_connect(s); /* before the handler, whose own would be asked for twice */
        tell_change(s, 0, "Connected.");
        send_waiting(s);
}

static const StateHost host = {
        .connected = host_connected,
        .lost = host_lost,
        .finish = host_finish,
        .abandon = host_abandon,
        .complain = host_complain,
        .subscribed = subscription_took_effect,
        .message = subscription_message,
        .refused = subscription_was_refused,
        .broadcast = publication_send,
};

static void store_connect(muster_state *s) {
        char password[CREDENTIAL_MAX], text[STATE_TEXT_MAX];
        int r = 0;

        s->has_begun = true;
        s->link = STATE_CONNECTING;
        set_attempt(s, s->timeout_usec);
        if (s->credential)
                r = credential_read(s->credential, password);
        if (r < 0) {
                errno = -r;
                snprintf(text, sizeof(text), "The password cannot be read from %s: %m", s->credential);
                go_down(s, -EACCES, -ECONNABORTED, text);
        } else {
                r = s->driver->connect(s->driver_data, s->credential ? password : s->url->password);
                if (r < 0) {
                        errno = -r;
                        snprintf(text, sizeof(text), "No attempt to connect can be made: %m");
                        go_down(s, -ENOTCONN, -ECONNABORTED, text);
                }
        }
        explicit_bzero(password, sizeof(password));
}

static void give_up(muster_state *s, int error, int error_of_sent, const char *text) {
        s->driver->disconnect(s->driver_data);
        go_down(s, error, error_of_sent, text);
}

static int on_attempt(sd_event_source *source, uint64_t usec, void *userdata) {
        muster_state *s = userdata;

        if (s->link == STATE_CONNECTING)
                give_up(s, -ENOTCONN, -ECONNABORTED, "It did not answer in time.");
        else if (s->link == STATE_DOWN)
                store_connect(s);
        return 0;
}

/*
 * Deadlines
 */

/* Its handler is told; the driver, which cannot let go of the store, has it until it is done. */
static void operation_is_late(muster_state *s, Operation *o) {
        const StateOutcome outcome = { .error = -ETIMEDOUT };

        list_remove(&o->node);
        list_append(&s->late, &o->node);
        o->is_late = true;
        operation_tell(s, o, &outcome);
}

static Operation *oldest(List *list) {
        return list_empty(list) ? NULL : list_entry(list->next, Operation, node);
}

static void look_at_sent(muster_state *s, uint64_t now) {
        Operation *o = oldest(&s->sent);

        if (!o || o->deadline_usec > now)
                return;
        if (!s->driver->keeps_late_operations) {
                give_up(s, -ENOTCONN, -ETIMEDOUT, "It did not answer in time.");
                return;
        }
        for (; o && o->deadline_usec <= now && !s->is_closed; o = oldest(&s->sent))
                operation_is_late(s, o);
}

/* Else who only listens would never know. */
static void look_at_subscriptions(muster_state *s, uint64_t now) {
        if (subscriptions_get_deadline(s) <= now)
                give_up(s, -ENOTCONN, -ECONNABORTED, "It did not answer to a subscription in time.");
}

static uint64_t next_deadline(muster_state *s) {
        const Operation *o = oldest(list_empty(&s->sent) ? &s->waiting : &s->sent);
        uint64_t usec = subscriptions_get_deadline(s);

        return o ? MIN(o->deadline_usec, usec) : usec;
}

static int on_deadline(sd_event_source *source, uint64_t usec, void *userdata) {
        muster_state *s = userdata;
        uint64_t now = clock_now_usec(), next;
        Operation *o;

        /* It counts as armed meanwhile: what handlers ask for is due later than what is still there. */
        while ((o = oldest(&s->waiting)) && o->deadline_usec <= now && !s->is_closed)
                operation_end(s, o, s->error < 0 ? s->error : -ENOTCONN);
        if (!s->is_closed)
                look_at_sent(s, now);
        if (!s->is_closed)
                look_at_subscriptions(s, now);
        if (s->is_closed)
                return 0;
        s->is_armed = false;
        next = next_deadline(s);
        if (next < USEC_INFINITY)
                store_arm_deadline(s, next);
        return 0;
}

/*
 * The end
 */

static void cancel_all(muster_state *s) {
        while (!list_empty(&s->waiting))
                operation_end(s, oldest(&s->waiting), -ECANCELED);
        while (!list_empty(&s->sent)) {
                Operation *o = oldest(&s->sent);
                const StateOutcome outcome = { .error = -ECANCELED };

                list_remove(&o->node);
                list_append(&s->late, &o->node);
                o->is_late = true;
                operation_tell(s, o, &outcome);
        }
}

/* What was sent goes out, and is waited for a little. */
static void wait_for_late(muster_state *s) {
        uint64_t until = clock_now_usec() + CLOSE_TIMEOUT_USEC, now;

        while (s->link == STATE_UP && !(list_empty(&s->late) && list_empty(&s->sent))) {
                now = clock_now_usec();
                if (now >= until || s->driver->wait(s->driver_data, until - now) < 0)
                        return;
        }
}

static void free_operations(List *list) {
        list_foreach_safe (node, list)
                free(list_entry(node, Operation, node));
        list_init(list);
}

static muster_state *store_free(muster_state *s) {
        if (!s)
                return NULL;
        if (s->driver_data) {
                wait_for_late(s);
                s->driver->close(s->driver_data);
        }
        free_operations(&s->waiting);
        free_operations(&s->sent);
        free_operations(&s->late);
        subscriptions_free(s);
        list_remove(&s->siblings);
        sd_event_source_disable_unref(s->attempt);
        sd_event_source_disable_unref(s->deadline);
        sd_event_source_disable_unref(s->turn);
        sd_event_unref(s->event);
        state_url_free(s->url);
        free(s->credential);
        free(s);
        return NULL;
}

static int on_turn(sd_event_source *source, void *userdata) {
        muster_state *s = userdata;

        if (s->is_closed) {
                store_free(s);
                return 0;
        }
        if (!s->has_begun)
                store_connect(s);
        if (!s->is_closed && s->has_news)
                subscriptions_tell(s);
        return 0;
}

void store_want_turn(muster_state *s) {
        (void) sd_event_source_set_enabled(s->turn, SD_EVENT_ONESHOT);
}

static void end_all(muster_state *s) {
        s->is_closed = true;
        store_enter(s);
        subscriptions_free(s);
        cancel_all(s);
        leases_free(s);
        store_leave(s);
}

_public_ muster_state *muster_state_close(muster_state *s) {
        if (!s || s->is_closed)
                return NULL;
        end_all(s);
        if (s->depth > 0)
                store_want_turn(s);
        else
                store_free(s);
        return NULL;
}

/* One that is not open yet; the handler of changes may have asked for something, or closed it. */
static muster_state *store_drop(muster_state *s) {
        if (s && !s->is_closed)
                end_all(s);
        return store_free(s);
}

DEFINE_CLEANUP(muster_state, store_drop)

/*
 * The beginning
 */

static int add_sources(muster_state *s) {
        int r;

        r = sd_event_add_time(s->event, &s->attempt, CLOCK_MONOTONIC, 0, 1, on_attempt, s);
        if (r >= 0)
                r = sd_event_source_set_enabled(s->attempt, SD_EVENT_OFF);
        if (r >= 0)
                r = sd_event_add_time(s->event, &s->deadline, CLOCK_MONOTONIC, 0, 0, on_deadline, s);
        if (r >= 0)
                r = sd_event_source_set_enabled(s->deadline, SD_EVENT_OFF);
        /* Answers that are there come first: it may be us who stood still. */
        if (r >= 0)
                r = sd_event_source_set_priority(s->deadline, SD_EVENT_PRIORITY_NORMAL + 1);
        if (r >= 0)
                r = sd_event_add_defer(s->event, &s->turn, on_turn, s);
        return r;
}

/* The default place of the embedded store, which its messages name. */
static int complete_url(muster_state *s) {
        const char *directory = getenv("STATE_DIRECTORY");
        StateUrl *u = s->url;

        if (strcmp(u->driver, "lmdb") != 0 || u->path)
                return 0;
        if (!directory || *directory != '/') {
                tell_change(s, -EINVAL,
                                "found \"lmdb:\" without $STATE_DIRECTORY, expected a path, such as \"lmdb:/var/lib/app/state\"");
                return -EINVAL;
        }
        if (asprintf(&u->path, "%.*s/state", (int) strcspn(directory, ":"), directory) < 0) {
                u->path = NULL;
                return -ENOMEM;
        }
        return 0;
}

static int find_store(muster_state *s, const char *url, const muster_state_options *o) {
        _cleanup_free_ char *why = NULL;
        char text[STATE_TEXT_MAX];
        const char *credential = o->credential;
        int r;

        if (!url) {
                url = getenv(ENV_URL);
                if (!url || !*url)
                        return -ENXIO;
                if (!credential)
                        credential = getenv(ENV_CREDENTIAL);
        }
        if (credential && *credential && !(s->credential = strdup(credential)))
                return -ENOMEM;
        r = state_url_parse(url, &s->url, &why);
        if (r == STATE_URL_INVALID) {
                tell_change(s, -EINVAL, why);
                return -EINVAL;
        }
        if (r == 0)
                r = complete_url(s);
        if (r == 0)
                r = plugin_load(s->url->driver, &s->driver, text);
        if (r == -ELIBACC)
                tell_change(s, r, text);
        return r;
}

static bool is_required(const char *url, const muster_state_options *o) {
        const char *e = getenv(ENV_REQUIRED);

        return o->required || (!url && e && strcmp(e, "1") == 0);
}

/* Without the loop. Only what may be over in a moment is tried again. */
static int wait_for_link(muster_state *s) {
        uint64_t until = clock_now_usec() + s->timeout_usec, now;
        int r = 0;

        store_connect(s);
        while (!s->is_closed && s->link != STATE_UP && (now = clock_now_usec()) < until && r >= 0) {
                if (s->link == STATE_CONNECTING)
                        r = s->driver->wait(s->driver_data, until - now);
                else if (s->error != -ENOTCONN)
                        break;
                else {
                        (void) usleep((useconds_t) MIN(until - now, PAUSE_MIN_USEC));
                        store_connect(s);
                }
        }
        if (s->is_closed)
                return -ECANCELED;
        if (s->link == STATE_UP)
                return 0;
        return s->error < 0 ? s->error : -ENOTCONN;
}

static muster_state *store_new(sd_event *event, const muster_state_options *o) {
        muster_state *s = calloc(1, sizeof(*s));

        if (!s)
                return NULL;
        s->event = sd_event_ref(event);
        s->timeout_usec = o->timeout_usec > 0 ? o->timeout_usec : TIMEOUT_DEFAULT_USEC;
        s->changed = o->changed;
        s->userdata = o->userdata;
        list_init(&s->waiting);
        list_init(&s->sent);
        list_init(&s->late);
        list_init(&s->subscriptions);
        list_init(&s->leases);
        list_init(&s->siblings);
        return s;
}

_public_ int muster_state_open(
                sd_event *event, const char *url, const muster_state_options *options, muster_state **ret) {
        muster_state_options o = MUSTER_STATE_OPTIONS_INIT;
        _cleanup_(store_dropp) muster_state *s = NULL;
        char text[STATE_TEXT_MAX] = "";
        int r = 0;

        muster_assert_return(event && ret, -EINVAL);
        if (options)
                r = options_copy(&o, sizeof(o), options, OPTIONS_SIZE_UP_TO(muster_state_options, userdata));
        if (r >= 0 && o.timeout_usec > TIMEOUT_MAX_USEC)
                r = -EINVAL;
        if (r < 0)
                return r;
        s = store_new(event, &o);
        if (!s)
                return -ENOMEM;
        r = find_store(s, url, &o);
        if (r < 0)
                return r;
        r = add_sources(s);
        if (r >= 0)
                r = s->driver->open(&host, s, event, s->url, &s->driver_data, text);
        if (r < 0) {
                if (*text)
                        tell_change(s, r, text);
                return r;
        }
        if (is_required(url, &o))
                r = wait_for_link(s);
        if (r < 0)
                return r;
        if (strcmp(s->url->driver, "lmdb") == 0) {
                list_append(&all, &s->siblings);
                publication_listen();
        }
        *ret = TAKE_PTR(s);
        return 0;
}

_public_ bool muster_state_is_connected(const muster_state *s) {
        return s && s->link == STATE_UP;
}
