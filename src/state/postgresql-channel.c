/* SPDX-License-Identifier: MIT */
/* Channels as PostgreSQL has them; see postgresql-channel.h. */

#include "state/postgresql-channel.h"

#include <ctype.h>
#include <errno.h>
#include <openssl/evp.h>
#include <search.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "basic/macro.h"

#define IDENTIFIER_PREFIX "muster_"

int postgresql_channel_name(StateBytes channel, char identifier[static POSTGRESQL_IDENTIFIER_SIZE]) {
        uint8_t hash[EVP_MAX_MD_SIZE];
        char *p = stpcpy(identifier, IDENTIFIER_PREFIX);

        if (EVP_Digest(channel.data, channel.size, hash, NULL, EVP_sha256(), NULL) != 1)
                return -EIO;
        /* 224 bits: as many as fit. */
        for (size_t i = 0; p + 2 < identifier + POSTGRESQL_IDENTIFIER_SIZE; i++, p += 2)
                snprintf(p, 3, "%02x", hash[i]);
        return 0;
}

static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

void postgresql_message_encode(StateBytes message, char payload[static POSTGRESQL_PAYLOAD_SIZE]) {
        const uint8_t *data = message.data;
        char *p = payload;

        assert(message.size <= POSTGRESQL_MESSAGE_MAX);
        for (size_t i = 0; i < message.size; i += 3) {
                size_t n = MIN(message.size - i, (size_t) 3);
                uint32_t bits = (uint32_t) data[i] << 16;

                if (n > 1)
                        bits |= (uint32_t) data[i + 1] << 8;
                if (n > 2)
                        bits |= data[i + 2];
                *p++ = alphabet[bits >> 18];
                *p++ = alphabet[bits >> 12 & 63];
                *p++ = n > 1 ? alphabet[bits >> 6 & 63] : '=';
                *p++ = n > 2 ? alphabet[bits & 63] : '=';
        }
        *p = '\0';
}

/* -1: it is none of the alphabet. */
static int digit_value(char c) {
        const char *p = c ? strchr(alphabet, c) : NULL;

        return p ? (int) (p - alphabet) : -1;
}

bool postgresql_message_decode(
                const char *payload, uint8_t data[static POSTGRESQL_MESSAGE_MAX], size_t *ret_size) {
        size_t size = 0, n_digits = 0, n_pads = 0;
        uint32_t bits = 0;

        for (const char *p = payload; *p; p++) {
                int value = digit_value(*p);

                if (isspace((unsigned char) *p))
                        continue;
                if (*p == '=')
                        n_pads++;
                else if (value < 0 || n_pads > 0)
                        return false;
                else {
                        bits = bits << 6 | (uint32_t) value;
                        n_digits++;
                        if (n_digits % 4 == 1)
                                continue; /* six bits are no byte yet */
                        if (size == POSTGRESQL_MESSAGE_MAX)
                                return false;
                        data[size++] = (uint8_t) (bits >> 2 * (3 - (n_digits - 1) % 4));
                }
        }
        if ((n_digits + n_pads) % 4 != 0 || n_pads > 2)
                return false;
        *ret_size = size;
        return true;
}

static int compare(const void *a, const void *b) {
        return strcmp(a, b);
}

int postgresql_channels_add(PostgresqlChannels *channels, const char *identifier, StateBytes name,
                PostgresqlChannel **ret) {
        PostgresqlChannel *c = malloc(sizeof(*c) + name.size), **found;

        if (!c)
                return -ENOMEM;
        *c = (PostgresqlChannel){ .size = name.size };
        strcpy(c->identifier, identifier);
        memcpy(c->name, name.data, name.size);

        found = tsearch(c, &channels->root, compare);
        if (!found || *found != c) {
                free(c);
                return found ? -EEXIST : -ENOMEM;
        }
        c->serial = ++channels->last_serial;
        *ret = c;
        return 0;
}

PostgresqlChannel *postgresql_channels_find(const PostgresqlChannels *channels, const char *identifier) {
        PostgresqlChannel **found = tfind(identifier, &channels->root, compare);

        return found ? *found : NULL;
}

bool postgresql_channels_remove(PostgresqlChannels *channels, const char *identifier) {
        PostgresqlChannel *c = postgresql_channels_find(channels, identifier);

        if (!c)
                return false;
        tdelete(identifier, &channels->root, compare);
        free(c);
        return true;
}

void postgresql_channels_done(PostgresqlChannels *channels) {
        tdestroy(channels->root, free);
        channels->root = NULL;
}
