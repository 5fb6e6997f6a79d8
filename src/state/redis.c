/* SPDX-License-Identifier: MIT */
/* The driver for Redis and Valkey. A value is a plain string under its own key, so that other programs share
 * it with their usual clients; what Redis has no command for is a script (redis-scripts.h).
 *
 * A handle has up to two connections. Operations go over the first, all in order, and their answers come in
 * the same order. A connection on which a channel was subscribed to takes no other commands, so messages
 * come over a second one, to the same address. It is made with the first subscription; but with a password
 * it is made at once, because that is at hand only now. Both are lost together: messages may have been
 * missed, and the core is to know.
 *
 * Before the connection counts as made the server has answered to all greetings: the password, the choice
 * of the database, and a PING, which tells a server that wants a password, or is still loading, or is none.
 */

#include <errno.h>
#include <netdb.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "basic/clock.h"
#include "basic/list.h"
#include "basic/macro.h"
#include "basic/text.h"
#include "muster/state.h"
#include "state/driver.h"
#include "state/redis-commands.h"
#include "state/redis-connection.h"
#include "state/redis-address.h"
#include "state/redis-settings.h"
#include "state/resolve.h"
#include "state/url.h"

#define LITERAL(text) ((StateBytes){ .data = (text), .size = sizeof(text) - 1 })

/* What was said first on a connection and is not answered yet, in this order. */
enum {
        GREETING_AUTH = 1 << 0,
        GREETING_SELECT = 1 << 1,
        GREETING_PING = 1 << 2,
};

/* A SUBSCRIBE or UNSUBSCRIBE that is not answered yet. */
typedef struct Question {
        List node;
        bool subscribes;
        StateBytes channel;
        char data[];
} Question;

typedef struct Redis {
        const StateHost *host;
        StateStore *store;
        sd_event *event;
        const StateUrl *url;
        RedisSettings settings;

        Resolve *lookup; /* while the name is looked up */
        sd_event_source *lookup_source;
        RedisAddress address; /* of the connection; size 0: there is none */

        RedisConnection *main, *subscriber;
        unsigned main_greetings, subscriber_greetings;
        uint64_t attempt;  /* the number of this connection */
        unsigned n_silent; /* attempts that were given up because nobody answered */
        bool is_connected; /* as the core was told */
        bool has_complained_of_size;
        List operations; /* sent, and not answered */
        List questions;  /* of the subscriber, likewise */
} Redis;

static StateBytes bytes_of(const char *s) {
        return (StateBytes){ .data = s, .size = strlen(s) };
}

/* Disconnecting */

static void redis_forget_questions(Redis *d) {
        list_foreach_safe (node, &d->questions)
                free(list_entry(node, Question, node));
        list_init(&d->questions);
}

static void redis_let_go(Redis *d) {
        d->lookup_source = sd_event_source_disable_unref(d->lookup_source);
        d->lookup = resolve_free(d->lookup);
        d->main = redis_connection_free(d->main);
        d->subscriber = redis_connection_free(d->subscriber);
        d->is_connected = false;
        d->address.size = 0;
        redis_forget_questions(d);
        /* Not one of them is touched: they may be gone already. */
        list_init(&d->operations);
}

/* An attempt goes on to the next address by itself only when one refuses. */
static void redis_disconnect(void *driver) {
        Redis *d = driver;

        if (d->main && !d->lookup && !d->is_connected)
                d->n_silent++;
        redis_let_go(d);
}

static void redis_lose(Redis *d, int error, const char *text) {
        char printable[STATE_TEXT_MAX];

        snprintf(printable, sizeof(printable), "%s", text);
        text_make_printable(printable);
        redis_let_go(d);
        d->host->lost(d->store, error, printable);
}

static void on_lost(RedisConnection *c, int error, const char *text, void *userdata) {
        redis_lose(userdata, error, text);
}

/* Greetings */

/* What a server says of a password may repeat it. So no more of it is shown than its first word, as in
 * "WRONGPASS invalid username-password pair". */
static void redis_refused(Redis *d, const redisReply *reply) {
        char text[STATE_TEXT_MAX];
        int n = (int) strspn(reply->str, "ABCDEFGHIJKLMNOPQRSTUVWXYZ");

        snprintf(text, sizeof(text), "the server refuses the user or the password (%.*s)", MIN(n, 16),
                        reply->str);
        redis_lose(d, -EACCES, text);
}

static void redis_answered_greeting(Redis *d, unsigned *greetings, const redisReply *reply) {
        unsigned greeting = *greetings & -*greetings;
        char text[STATE_TEXT_MAX];
        int r;

        if (!reply || (reply->type != REDIS_REPLY_STATUS && reply->type != REDIS_REPLY_ERROR)) {
                redis_lose(d, -EBADMSG, "found something else, expected the answer of a Redis server");
                return;
        }
        if (reply->type == REDIS_REPLY_STATUS) {
                *greetings &= ~greeting;
                return;
        }
        r = redis_error_read(reply, text);
        /* Who may do all that an application needs need not be allowed to PING. */
        if (greeting == GREETING_PING && strncmp(reply->str, "NOPERM ", 7) == 0)
                *greetings &= ~greeting;
        else if (greeting == GREETING_AUTH && r != -ENOTCONN)
                redis_refused(d, reply);
        else
                redis_lose(d, r, text);
}

/* Everybody is the user "default" who names none. Servers before version 6 know no users. */
static int redis_authenticate(RedisConnection *c, const char *user, const char *password) {
        StateBytes words[3] = { LITERAL("AUTH") };
        size_t n = 1;
        int r;

        if (user)
                words[n++] = bytes_of(user);
        words[n++] = bytes_of(password);
        r = redis_connection_send(c, words, n);
        redis_connection_set_secret(c);
        return r;
}

static int redis_greet(Redis *d, RedisConnection *c, const char *password, unsigned *greetings) {
        if (!password)
                password = d->url->password;
        /* A user may be one who needs no password, and takes any. */
        if (!password && d->url->user)
                password = "";
        if (!password)
                return 0;
        *greetings |= GREETING_AUTH;
        return redis_authenticate(c, d->url->user, password);
}

static int redis_greet_main(Redis *d, const char *password) {
        char number[12];
        int r;

        d->main_greetings = 0;
        r = redis_greet(d, d->main, password, &d->main_greetings);
        if (r < 0)
                return r;
        if (d->settings.database > 0) {
                snprintf(number, sizeof(number), "%u", d->settings.database);
                r = redis_connection_send(
                                d->main, (const StateBytes[]){ LITERAL("SELECT"), bytes_of(number) }, 2);
                if (r < 0)
                        return r;
                d->main_greetings |= GREETING_SELECT;
        }
        d->main_greetings |= GREETING_PING;
        return redis_connection_send(d->main, &LITERAL("PING"), 1);
}

/* Answers */

static void redis_finish(Redis *d, const redisReply *reply) {
        StateOperation *op = list_entry(d->operations.next, StateOperation, driver_node);
        RedisAnswer a;

        if (redis_answer_read(&a, op, reply) < 0)
                redis_lose(d, -EBADMSG, a.text);
        else {
                list_remove(&op->driver_node);
                d->host->finish(d->store, op, &a.outcome);
                if (a.is_worth_a_complaint)
                        d->host->complain(d->store, a.text);
        }
        free(a.keys);
}

static void redis_answered(Redis *d, const redisReply *reply) {
        char text[STATE_TEXT_MAX];
        int r;

        if (d->main_greetings != 0) {
                redis_answered_greeting(d, &d->main_greetings, reply);
                if (!d->main || d->main_greetings != 0)
                        return;
                d->is_connected = true;
                d->host->connected(d->store);
        } else if (!list_empty(&d->operations))
                redis_finish(d, reply);
        else if (reply && reply->type == REDIS_REPLY_ERROR) {
                r = redis_error_read(reply, text);
                redis_lose(d, r, text);
        } else
                redis_lose(d, -EBADMSG, "found an answer, expected none");
}

/* Messages */

static bool is_string(const redisReply *reply) {
        return reply->type == REDIS_REPLY_STRING;
}

static StateBytes string_bytes(const redisReply *reply) {
        return (StateBytes){ .data = reply->str, .size = reply->len };
}

/* What muster_state_publish() does not send the application need not be ready for. */
static void redis_deliver(Redis *d, StateBytes channel, StateBytes data) {
        if (data.size <= MUSTER_STATE_MESSAGE_MAX) {
                d->host->message(d->store, channel, data);
                return;
        }
        if (d->has_complained_of_size)
                return;
        d->has_complained_of_size = true;
        d->host->complain(
                        d->store, "a message that is too large was left out, as others of the kind will be");
}

static bool is_equal(StateBytes a, StateBytes b) {
        return a.size == b.size && memcmp(a.data, b.data, a.size) == 0;
}

/* A channel that was left and is subscribed to anew has two answers on their way; only the latest tells that
 * what is published now comes. */
static bool redis_will_hear_of(const Redis *d, StateBytes channel) {
        list_foreach (node, &d->questions)
                if (is_equal(list_entry(node, Question, node)->channel, channel))
                        return true;
        return false;
}

/* The answer to the oldest question; NULL: nobody has asked. */
static Question *redis_take_question(Redis *d) {
        Question *q = list_empty(&d->questions) ? NULL : list_entry(d->questions.next, Question, node);

        if (q)
                list_remove(&q->node);
        return q;
}

static void redis_confirmed(Redis *d, bool subscribes, StateBytes channel) {
        _cleanup_free_ Question *q = redis_take_question(d);

        if (!q || q->subscribes != subscribes || !is_equal(q->channel, channel))
                redis_lose(d, -EBADMSG, "found the answer for another channel, expected that for the first");
        else if (subscribes && !redis_will_hear_of(d, channel))
                d->host->subscribed(d->store, channel);
}

/* No subscriber is told of it, only people. */
static void redis_refused_subscription(Redis *d, const redisReply *reply) {
        _cleanup_free_ Question *q = redis_take_question(d);
        char text[STATE_TEXT_MAX];

        (void) redis_error_read(reply, text);
        if (q && q->subscribes && !redis_will_hear_of(d, q->channel))
                d->host->refused(d->store, q->channel);
        d->host->complain(d->store, text);
}

static void redis_told(Redis *d, const redisReply *reply) {
        StateBytes channel;

        if (d->subscriber_greetings != 0) {
                redis_answered_greeting(d, &d->subscriber_greetings, reply);
                return;
        }
        if (reply && reply->type == REDIS_REPLY_ERROR) {
                redis_refused_subscription(d, reply);
                return;
        }
        if (!reply || reply->type != REDIS_REPLY_ARRAY || reply->elements != 3 ||
                        !is_string(reply->element[0])) {
                redis_lose(d, -EBADMSG, "found something else, expected a message");
                return;
        }
        if (!is_string(reply->element[1])) {
                redis_lose(d, -EBADMSG, "found no channel, expected one");
                return;
        }
        channel = string_bytes(reply->element[1]);
        if (strcmp(reply->element[0]->str, "message") == 0 && is_string(reply->element[2]))
                redis_deliver(d, channel, string_bytes(reply->element[2]));
        else if (strcmp(reply->element[0]->str, "subscribe") == 0)
                redis_confirmed(d, true, channel);
        else if (strcmp(reply->element[0]->str, "unsubscribe") == 0)
                redis_confirmed(d, false, channel);
}

static void on_reply(RedisConnection *c, const redisReply *reply, void *userdata) {
        Redis *d = userdata;

        if (c == d->main)
                redis_answered(d, reply);
        else
                redis_told(d, reply);
}

/* Connecting */

static void redis_start_subscriber(Redis *d) {
        redis_connection_start(d->subscriber, &d->address, 1, d->settings.tls, d->settings.host);
}

static void on_opened(RedisConnection *c, const RedisAddress *address, void *userdata) {
        Redis *d = userdata;

        if (c != d->main)
                return;
        d->address = *address;
        if (d->subscriber)
                redis_start_subscriber(d);
}

static const RedisConnectionHandlers connection_handlers = {
        .opened = on_opened,
        .replied = on_reply,
        .lost = on_lost,
};

static int redis_new_subscriber(Redis *d, const char *password) {
        int r = redis_connection_new(d->event, &connection_handlers, d, &d->subscriber);

        d->subscriber_greetings = 0;
        return r < 0 ? r : redis_greet(d, d->subscriber, password, &d->subscriber_greetings);
}

static void redis_start_main(Redis *d, const RedisAddresses *addresses) {
        redis_connection_start(d->main, addresses->items, addresses->n, d->settings.tls, d->settings.host);
}

static void redis_found(Redis *d) {
        _cleanup_free_ char *hosts = NULL;
        char reason[STATE_TEXT_MAX];
        RedisAddresses addresses;
        int gai = 0, r;

        r = resolve_take(d->lookup, d->n_silent, &hosts, &gai);
        if (r == -EAGAIN)
                return;
        d->lookup_source = sd_event_source_disable_unref(d->lookup_source);
        d->lookup = resolve_free(d->lookup);
        if (r == 0)
                r = redis_addresses_of_numbers(hosts, d->settings.port, &addresses);
        if (r == 0) {
                redis_start_main(d, &addresses);
                return;
        }
        snprintf(reason, sizeof(reason), "%.128s: %s", d->settings.host,
                        gai != 0 ? gai_strerror(gai) : strerrordesc_np(-r));
        redis_lose(d, -ENOTCONN, reason);
}

static int on_found(sd_event_source *s, int fd, uint32_t revents, void *userdata) {
        redis_found(userdata);
        return 0;
}

static int redis_look_up(Redis *d) {
        int r = resolve_new(d->settings.host, &d->lookup);

        if (r < 0)
                return r;
        return sd_event_add_io(d->event, &d->lookup_source, resolve_get_fd(d->lookup), EPOLLIN, on_found, d);
}

static int redis_find(Redis *d) {
        RedisAddresses addresses;
        int r;

        if (d->url->is_unix)
                r = redis_address_of_path(d->url->path, &addresses);
        else
                r = redis_address_of_number(d->settings.host, d->settings.port, &addresses);
        if (r < 0)
                return redis_look_up(d);
        redis_start_main(d, &addresses);
        return 0;
}

static int redis_begin(Redis *d, const char *password) {
        int r = redis_connection_new(d->event, &connection_handlers, d, &d->main);

        if (r >= 0)
                r = redis_greet_main(d, password);
        if (r >= 0 && d->main_greetings & GREETING_AUTH)
                r = redis_new_subscriber(d, password);
        return r < 0 ? r : redis_find(d);
}

static int redis_connect(void *driver, const char *password) {
        Redis *d = driver;
        int r;

        assert(!d->main);
        d->attempt++;
        d->has_complained_of_size = false;
        r = redis_begin(d, password);
        if (r < 0)
                redis_let_go(d);
        return r < 0 ? r : 0;
}

/* Operations */

static int redis_send(void *driver, StateOperation *op) {
        Redis *d = driver;
        RedisCommand command;
        int r;

        if (!d->is_connected)
                return -ENOTCONN;
        r = redis_command_build(&command, op);
        if (r >= 0)
                r = redis_connection_send(d->main, command.words, command.n);
        if (r >= 0)
                list_append(&d->operations, &op->driver_node);
        return r;
}

static int redis_ask(Redis *d, bool subscribes, StateBytes channel) {
        Question *q = malloc(sizeof(*q) + channel.size);
        int r;

        if (!q)
                return -ENOMEM;
        *q = (Question){ .subscribes = subscribes, .channel = { q->data, channel.size } };
        memcpy(q->data, channel.data, channel.size);
        r = redis_connection_send(d->subscriber,
                        (const StateBytes[]){ subscribes ? LITERAL("SUBSCRIBE") : LITERAL("UNSUBSCRIBE"),
                                        channel },
                        2);
        if (r < 0) {
                free(q);
                return r;
        }
        list_append(&d->questions, &q->node);
        return 0;
}

static int redis_subscribe(void *driver, StateBytes channel) {
        Redis *d = driver;
        int r;

        if (!d->is_connected)
                return -ENOTCONN;
        if (!d->subscriber) {
                r = redis_new_subscriber(d, NULL);
                if (r < 0) {
                        d->subscriber = redis_connection_free(d->subscriber);
                        return r;
                }
                redis_start_subscriber(d);
        }
        return redis_ask(d, true, channel);
}

static int redis_unsubscribe(void *driver, StateBytes channel) {
        Redis *d = driver;

        if (!d->is_connected || !d->subscriber)
                return -ENOTCONN;
        return redis_ask(d, false, channel);
}

/* Without the loop */

typedef enum Waited {
        WAITED_LOOKUP,
        WAITED_MAIN,
        WAITED_SUBSCRIBER,
        _WAITED_MAX,
} Waited;

static RedisConnection *waited_connection(const Redis *d, size_t i) {
        return i == WAITED_MAIN ? d->main : i == WAITED_SUBSCRIBER ? d->subscriber : NULL;
}

/* Each may let go of the others, and there may be new ones then. */
static void redis_do(Redis *d, const struct pollfd fds[static _WAITED_MAX]) {
        uint64_t attempt = d->attempt;

        if (d->lookup && fds[WAITED_LOOKUP].revents != 0)
                redis_found(d);
        for (size_t i = WAITED_MAIN; i <= WAITED_SUBSCRIBER && d->attempt == attempt; i++) {
                RedisConnection *c = waited_connection(d, i);

                if (c && (fds[i].revents != 0 || redis_connection_is_due(c)))
                        redis_connection_dispatch(c, fds[i].revents);
        }
}

static bool redis_is_due(const Redis *d) {
        return (d->main && redis_connection_is_due(d->main)) ||
               (d->subscriber && redis_connection_is_due(d->subscriber));
}

static int redis_wait(void *driver, uint64_t timeout_usec) {
        Redis *d = driver;
        struct pollfd fds[_WAITED_MAX];
        struct timespec timeout;

        if (!d->main)
                return -ENOTCONN;
        for (size_t i = 0; i < _WAITED_MAX; i++) {
                RedisConnection *c = waited_connection(d, i);

                fds[i] = c ? redis_connection_get_poll(c) : (struct pollfd){ .fd = -1 };
        }
        if (d->lookup)
                fds[WAITED_LOOKUP] = (struct pollfd){ .fd = resolve_get_fd(d->lookup), .events = POLLIN };
        if (redis_is_due(d))
                timeout_usec = 0;
        timeout.tv_sec = (time_t) (MIN(timeout_usec, 3600 * USEC_PER_SEC) / USEC_PER_SEC);
        timeout.tv_nsec = (long) (timeout_usec % USEC_PER_SEC * NSEC_PER_USEC);
        if (ppoll(fds, _WAITED_MAX, &timeout, NULL) < 0)
                return errno == EINTR ? 0 : -errno;
        redis_do(d, fds);
        return 0;
}

/* The handle */

static void redis_close(void *driver) {
        Redis *d = driver;

        redis_let_go(d);
        redis_settings_done(&d->settings);
        sd_event_unref(d->event);
        free(d);
}

static int redis_open(const StateHost *host, StateStore *store, sd_event *event, const StateUrl *url,
                void **ret, char error[static STATE_TEXT_MAX]) {
        Redis *d = calloc(1, sizeof(*d));
        int r;

        if (!d)
                return -ENOMEM;
        d->host = host;
        d->store = store;
        d->event = sd_event_ref(event);
        d->url = url;
        list_init(&d->operations);
        list_init(&d->questions);
        r = redis_settings_read(&d->settings, url, error);
        if (r < 0) {
                redis_close(d);
                return r;
        }
        *ret = d;
        return 0;
}

static uint64_t redis_version(void *driver, StateBytes value) {
        return redis_value_version(value);
}

const StateDriver muster_state_driver = {
        .abi = STATE_DRIVER_ABI,
        .open = redis_open,
        .close = redis_close,
        .connect = redis_connect,
        .disconnect = redis_disconnect,
        .send = redis_send,
        .subscribe = redis_subscribe,
        .unsubscribe = redis_unsubscribe,
        .wait = redis_wait,
        .version = redis_version,
};
