/* SPDX-License-Identifier: MIT */
#pragma once

/* A real Redis server on a socket of its own, and what the core is to the driver. */

#include "../unit.h"

#include <hiredis/hiredis.h>
#include <stdbool.h>
#include <sys/types.h>
#include <systemd/sd-event.h>

#include "muster/state.h"
#include "state/driver.h"
#include "state/url.h"

typedef struct Operation {
        StateOperation op;
        bool has_ended;
        unsigned order; /* the number of operations that had ended before */
        int error;
        char *value;
        size_t size;
        uint64_t version;
        int64_t number;
        char **keys; /* each with a NUL behind it */
        size_t *key_sizes;
        size_t n_keys;
        char cursor[64];
        size_t cursor_size;
        uint64_t fence, remaining_usec;
} Operation;

struct muster_state {
        sd_event *event;
        const StateDriver *driver;
        void *handle;
        StateUrl url;

        unsigned n_connected, n_lost, n_finished, n_complaints, n_subscribed, n_refused, n_messages;
        int lost_error;
        char lost_text[STATE_TEXT_MAX], complaint[STATE_TEXT_MAX];
        char channel[MUSTER_STATE_KEY_MAX + 1], message[MUSTER_STATE_MESSAGE_MAX + 1];
        size_t channel_size, message_size;

        /* What the core does from within. */
        void (*when_finished)(StateStore *s, Operation *o);
        void (*when_lost)(StateStore *s);
};

typedef struct Server {
        char folder[64], path[96];
        pid_t pid;
        int output;
} Server;

/* Exits with 77, to be skipped, where there is no redis-server. */
void server_require(void);

/* @options: further ones, NULL at the end; NULL: none. Returns when it can be reached. */
void server_start(Server *s, const char *const *options);
/* As the same again. */
bool server_try(Server *s, const char *const *options);
void server_kill(Server *s);
void server_done(Server *s);

/* Asks the server by another way. */
redisReply *server_ask(const Server *s, const char *format, ...);
/* Of which the answer does not matter. */
void server_tell(const Server *s, const char *format, ...);
long long server_ask_number(const Server *s, const char *format, ...);

void store_open(StateStore *s, const StateUrl *url);
void store_open_at(StateStore *s, Server *server);
void store_close(StateStore *s);
void store_connect(StateStore *s, const char *password);
/* And waits until it is. */
void store_connected(StateStore *s, const char *password);
/* And waits until it is not. */
void store_refused(StateStore *s, const char *password, int error);

/* Runs the loop until it is so; for a minute at most. */
#define run_until(s, condition)                     \
        do {                                        \
                uint64_t _until = store_deadline(); \
                while (!(condition))                \
                        store_run((s), _until);     \
        } while (0)
uint64_t store_deadline(void);
void store_run(StateStore *s, uint64_t until);

Operation *operation_new(StateVerb verb, const void *key, size_t size);
Operation *operation_free(Operation *o);
void operation_send(StateStore *s, Operation *o);
/* Sends it, waits for the end, and frees the one that it replaces. */
Operation *operation_run(StateStore *s, Operation *o);

#define STRING(text) (text), (sizeof(text) - 1)
#define BYTES(text)  ((StateBytes){ .data = (text), .size = sizeof(text) - 1 })
