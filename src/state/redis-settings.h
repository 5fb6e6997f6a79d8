/* SPDX-License-Identifier: MIT */
#pragma once

/* What a URL asks for of a Redis server. */

#include <openssl/ssl.h>

#include "state/driver.h"
#include "state/url.h"

typedef struct RedisSettings {
        const char *host; /* of the URL, or the default */
        unsigned port;
        unsigned database;
        SSL_CTX *tls; /* NULL: without */
} RedisSettings;

/* Returns 0, -EINVAL with a text, or -ENOMEM; redis_settings_done() takes all of them. */
int redis_settings_read(RedisSettings *ret, const StateUrl *url, char error[static STATE_TEXT_MAX]);
void redis_settings_done(RedisSettings *settings);
