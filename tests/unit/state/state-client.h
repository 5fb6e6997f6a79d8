/* SPDX-License-Identifier: MIT */
#pragma once

/* The core's side of a driver, for tests of one driver alone: notes down what it is told. */

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <systemd/sd-event.h>

#include "basic/list.h"
#include "basic/macro.h"
#include "muster/state.h"
#include "state/driver.h"
#include "state/url.h"

/* Longer than anything takes here, also on a busy machine. */
#define PATIENCE_USEC (60 * UINT64_C(1000000))

struct muster_state {
        const StateDriver *driver;
        void *d;
        sd_event *event;

        unsigned n_connected, n_lost, n_complaints, n_finished, n_subscribed, n_refused, n_messages;
        int lost_error;
        char lost_text[STATE_TEXT_MAX];
        char complaint[STATE_TEXT_MAX];
        uint8_t message[MUSTER_STATE_MESSAGE_MAX], channel[MUSTER_STATE_KEY_MAX];
        size_t message_size, channel_size;

        /* What a test does from within a function of the host. */
        void (*on_event)(StateStore *c, const char *event);
};
typedef struct muster_state Client;

/* An operation with its outcome. */
typedef struct Op {
        StateOperation op;
        Client *client;
        unsigned place; /* 1: the first that has finished; 0: has not */
        int error;
        char *value; /* copied */
        size_t value_size;
        uint64_t version;
        int64_t number;
        uint64_t fence;
        uint64_t remaining_usec;
        char keys[4096]; /* each with a NUL behind it */
        size_t n_keys;
        uint8_t cursor[MUSTER_STATE_KEY_MAX];
        size_t cursor_size;
} Op;

static inline void client_tell(Client *c, const char *event) {
        if (c->on_event)
                c->on_event(c, event);
}

static inline void client_connected(StateStore *c) {
        c->n_connected++;
        client_tell(c, "connected");
}

static inline void client_lost(StateStore *c, int error, const char *text) {
        c->n_lost++;
        c->lost_error = error;
        snprintf(c->lost_text, sizeof(c->lost_text), "%s", text);
        client_tell(c, "lost");
}

static inline void client_finish(StateStore *c, StateOperation *operation, const StateOutcome *outcome) {
        Op *o = CONTAINER_OF(operation, Op, op);
        char *p = o->keys;

        assert_int_equal(o->place, 0);
        o->place = ++c->n_finished;
        o->error = outcome->error;
        o->version = outcome->version;
        o->number = outcome->number;
        o->fence = outcome->fence;
        o->remaining_usec = outcome->remaining_usec;
        o->value_size = outcome->value.size;
        o->value = malloc(o->value_size + 1);
        memcpy(o->value, outcome->value.size > 0 ? outcome->value.data : "", o->value_size);
        o->value[o->value_size] = '\0';
        o->n_keys = outcome->n_keys;
        for (size_t i = 0; i < outcome->n_keys; i++)
                if (p + outcome->keys[i].size + 1 < o->keys + sizeof(o->keys)) {
                        p = mempcpy(p, outcome->keys[i].data, outcome->keys[i].size);
                        *p++ = '\0';
                }
        o->cursor_size = outcome->cursor.size;
        memcpy(o->cursor, outcome->cursor.size > 0 ? outcome->cursor.data : "", o->cursor_size);
        client_tell(c, "finish");
}

static inline void client_complain(StateStore *c, const char *text) {
        c->n_complaints++;
        snprintf(c->complaint, sizeof(c->complaint), "%s", text);
        client_tell(c, "complain");
}

static inline void client_subscribed(StateStore *c, StateBytes channel) {
        c->n_subscribed++;
        client_tell(c, "subscribed");
}

static inline void client_refused(StateStore *c, StateBytes channel) {
        c->n_refused++;
        client_tell(c, "refused");
}

static inline void client_message(StateStore *c, StateBytes channel, StateBytes data) {
        c->n_messages++;
        c->channel_size = channel.size;
        memcpy(c->channel, channel.data, channel.size);
        c->message_size = data.size;
        memcpy(c->message, data.data, data.size);
        client_tell(c, "message");
}

static const StateHost client_host = {
        .connected = client_connected,
        .lost = client_lost,
        .finish = client_finish,
        .complain = client_complain,
        .subscribed = client_subscribed,
        .message = client_message,
        .refused = client_refused,
};

/* Loads the plugin as the core does. */
static inline const StateDriver *client_load_driver(const char *name) {
        const char *dir = getenv("MUSTER_PLUGINDIR");
        char path[1024];
        void *handle;

        snprintf(path, sizeof(path), "%s/state-%s.so", dir ? dir : ".", name);
        handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
        if (!handle) {
                fprintf(stderr, "%s\n", dlerror());
                exit(EXIT_FAILURE);
        }
        return dlsym(handle, STATE_DRIVER_SYMBOL);
}

/* Runs the loop until the condition holds; it must not take for ever. */
#define RUN_UNTIL(event, condition)                                                  \
        do {                                                                         \
                while (!(condition))                                                 \
                        assert_int_not_equal(sd_event_run(event, PATIENCE_USEC), 0); \
        } while (0)

static inline void client_init(Client *c, const StateDriver *driver, sd_event *event, const StateUrl *url) {
        char error[STATE_TEXT_MAX] = "";

        *c = (Client){ .driver = driver, .event = event };
        if (driver->open(&client_host, c, event, url, &c->d, error) < 0)
                fail_msg("%s", error);
}

/* Returns 0 or the error of lost(). */
static inline int client_connect(Client *c, const char *password) {
        unsigned n_connected = c->n_connected, n_lost = c->n_lost;

        assert_int_equal(c->driver->connect(c->d, password), 0);
        RUN_UNTIL(c->event, c->n_connected > n_connected || c->n_lost > n_lost);
        return c->n_lost > n_lost ? c->lost_error : 0;
}

static inline void client_done(Client *c) {
        c->driver->close(c->d);
}

static inline void op_begin(Client *c, Op *o) {
        o->client = c;
        assert_int_equal(c->driver->send(c->d, &o->op), 0);
        assert_int_equal(o->place, 0); /* never before it returns */
}

static inline int op_wait(Op *o) {
        RUN_UNTIL(o->client->event, o->place > 0);
        return o->error;
}

static inline void op_done(Op *o) {
        free(o->value);
}

#define _cleanup_op_ _cleanup_(op_done)

static inline StateBytes bytes(const char *text) {
        return (StateBytes){ text, strlen(text) };
}

#define BYTES(literal) ((StateBytes){ literal, sizeof(literal) - 1 })

/* Does it, and returns its error. */
static inline int op_do(Client *c, Op *o) {
        op_begin(c, o);
        return op_wait(o);
}

#define DO(client, ...)                                     \
        ({                                                  \
                _cleanup_op_ Op _o = { .op = __VA_ARGS__ }; \
                op_do(client, &_o);                         \
        })

static inline int do_set(Client *c, StateBytes key, StateBytes value) {
        return DO(c, { .verb = STATE_SET, .key = key, .value = value });
}

/* The value as a string, to be freed; NULL: there is none. */
static inline char *do_get(Client *c, StateBytes key) {
        Op o = { .op = { .verb = STATE_GET, .key = key } };
        int r = op_do(c, &o);

        if (r == 0)
                return o.value;
        assert_int_equal(r, -ENOENT);
        op_done(&o);
        return NULL;
}

#define ASSERT_VALUE(client, key, expected)                        \
        do {                                                       \
                _cleanup_free_ char *_value = do_get(client, key); \
                assert_non_null(_value);                           \
                assert_string_equal(_value, expected);             \
        } while (0)
#define ASSERT_ABSENT(client, key) assert_null(do_get(client, key))
