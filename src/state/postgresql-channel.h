/* SPDX-License-Identifier: MIT */
#pragma once

/* Channels as PostgreSQL has them. A channel there is an identifier of at most 63 bytes, and a payload is
 * text of less than 8000 bytes; ours are any bytes. So that the other side may as well be a trigger:
 *
 *     SELECT pg_notify('muster_' || left(encode(sha256('jobs'), 'hex'), 56), encode('hello', 'base64')) */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "state/driver.h"

#define POSTGRESQL_IDENTIFIER_SIZE 64 /* with its NUL */

/* base64 of the longest message, with its NUL; see postgresql_message_encode(). */
#define POSTGRESQL_MESSAGE_MAX    4096
#define POSTGRESQL_BASE64_SIZE(n) (((n) + 2) / 3 * 4 + 1)
#define POSTGRESQL_PAYLOAD_SIZE   POSTGRESQL_BASE64_SIZE(POSTGRESQL_MESSAGE_MAX)

/* Returns 0 or -EIO: the library has no SHA-256 now. */
int postgresql_channel_name(StateBytes channel, char identifier[static POSTGRESQL_IDENTIFIER_SIZE]);

/* @size is at most POSTGRESQL_MESSAGE_MAX. */
void postgresql_message_encode(StateBytes message, char payload[static POSTGRESQL_PAYLOAD_SIZE]);

/* White space is left out, as PostgreSQL's encode() puts line ends in. Returns false when it is no base64,
 * or longer than a message may be. */
bool postgresql_message_decode(
                const char *payload, uint8_t data[static POSTGRESQL_MESSAGE_MAX], size_t *ret_size);

/* The channels that are subscribed to. */
typedef struct PostgresqlChannel {
        char identifier[POSTGRESQL_IDENTIFIER_SIZE]; /* first: what they are sorted by */
        uint64_t serial;                             /* one that is subscribed to again is another one */
        bool is_listening;
        size_t size;
        uint8_t name[];
} PostgresqlChannel;

typedef struct PostgresqlChannels {
        void *root; /* of tsearch(3) */
        uint64_t last_serial;
} PostgresqlChannels;

/* Returns 0 or -ENOMEM. */
int postgresql_channels_add(PostgresqlChannels *channels, const char *identifier, StateBytes name,
                PostgresqlChannel **ret);

/* NULL: there is none. */
PostgresqlChannel *postgresql_channels_find(const PostgresqlChannels *channels, const char *identifier);

/* Returns whether it was there. */
bool postgresql_channels_remove(PostgresqlChannels *channels, const char *identifier);

void postgresql_channels_done(PostgresqlChannels *channels);
