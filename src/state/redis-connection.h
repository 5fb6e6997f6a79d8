/* SPDX-License-Identifier: MIT */
#pragma once

/* One connection to a Redis server: commands go out, answers come in, both in order. */

#include <hiredis/hiredis.h>
#include <openssl/ssl.h>
#include <poll.h>
#include <stdbool.h>
#include <systemd/sd-event.h>

#include "state/driver.h"
#include "state/redis-address.h"

typedef struct RedisConnection RedisConnection;

/* Each may free the connection; none is called from within a function of it but redis_connection_dispatch().
 */
typedef struct RedisConnectionHandlers {
        /* It is made, to that address. */
        void (*opened)(RedisConnection *connection, const RedisAddress *address, void *userdata);

        /* @reply: NULL for a string that is too large. */
        void (*replied)(RedisConnection *connection, const redisReply *reply, void *userdata);

        /* It has ended, or could not be made: -ENOTCONN, -EACCES, -EBADMSG or -ENOMEM. It is to be freed. */
        void (*lost)(RedisConnection *connection, int error, const char *text, void *userdata);
} RedisConnectionHandlers;

int redis_connection_new(sd_event *event, const RedisConnectionHandlers *handlers, void *userdata,
                RedisConnection **ret);

/* Closes it. What was not sent yet is not sent. */
RedisConnection *redis_connection_free(RedisConnection *connection);

/* Begins to connect to one address after the other. @tls: NULL, without; @host is for TLS alone. They are
 * all kept, not copied, but the addresses. */
void redis_connection_start(RedisConnection *connection, const RedisAddress *addresses, size_t n,
                SSL_CTX *tls, const char *host);
bool redis_connection_is_started(const RedisConnection *connection);

/* Sends a command, together with others of this turn of the loop; before it is connected: then. Returns 0 or
 * -ENOMEM. */
int redis_connection_send(RedisConnection *connection, const StateBytes *words, size_t n);

/* There is a password in what was sent last. */
void redis_connection_set_secret(RedisConnection *connection);

/* Without the loop: what is to be waited for (a descriptor of -1: nothing), and what to do then, or right
 * away when it is due. */
struct pollfd redis_connection_get_poll(const RedisConnection *connection);
bool redis_connection_is_due(const RedisConnection *connection);
void redis_connection_dispatch(RedisConnection *connection, short revents);
