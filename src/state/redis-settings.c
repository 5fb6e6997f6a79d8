/* SPDX-License-Identifier: MIT */
#include "state/redis-settings.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "basic/macro.h"
#include "basic/parse.h"
#include "basic/text.h"
#include "state/redis-address.h"
#include "state/redis-tls.h"

#define DEFAULT_HOST "127.0.0.1"
#define DEFAULT_PORT 6379

static const char *get_parameter(const StateUrl *url, const char *name) {
        size_t n = strlen(name);

        for (char **p = url->parameters; p && *p; p++)
                if (strncmp(*p, name, n) == 0 && (*p)[n] == '=')
                        return *p + n + 1;
        return NULL;
}

static const char *const unix_parameters[] = { "db", NULL };
static const char *const tls_parameters[] = { "cacert", "cert", "key", NULL };
static const char *const no_parameters[] = { NULL };

static int check_parameters(const StateUrl *url, char error[static STATE_TEXT_MAX]) {
        const char *const *known = url->is_unix  ? unix_parameters
                                   : url->is_tls ? tls_parameters
                                                 : no_parameters;

        for (char **p = url->parameters; p && *p; p++) {
                size_t n = strcspn(*p, "=");
                bool is_known = false;

                for (const char *const *k = known; *k; k++)
                        is_known = is_known || (strlen(*k) == n && strncmp(*p, *k, n) == 0);
                if (is_known)
                        continue;
                snprintf(error, STATE_TEXT_MAX, "found the parameter \"%.*s\", expected %s",
                                (int) MIN(n, 64u), *p,
                                url->is_unix  ? "db"
                                : url->is_tls ? "cacert, cert or key"
                                              : "none");
                return -EINVAL;
        }
        return 0;
}

static int check_database(const StateUrl *url, unsigned *ret, char error[static STATE_TEXT_MAX]) {
        const char *text = url->is_unix ? get_parameter(url, "db") : url->path;

        *ret = 0;
        if (!text || text[0] == '\0')
                return 0;
        if (parse_uint(text, ret) == 0)
                return 0;
        snprintf(error, STATE_TEXT_MAX, "found the database \"%.64s\", expected a number", text);
        return -EINVAL;
}

static int check_path(const StateUrl *url, char error[static STATE_TEXT_MAX]) {
        RedisAddresses addresses;

        if (!url->is_unix)
                return 0;
        if (!url->path || url->path[0] != '/') {
                snprintf(error, STATE_TEXT_MAX, "found no path, expected that of a socket");
                return -EINVAL;
        }
        if (redis_address_of_path(url->path, &addresses) == 0)
                return 0;
        snprintf(error, STATE_TEXT_MAX, "found a path of %zu bytes, expected at most %zu", strlen(url->path),
                        sizeof(addresses.items[0].socket.local.sun_path) - 1);
        return -EINVAL;
}

static int settings_read(RedisSettings *s, const StateUrl *url, char error[static STATE_TEXT_MAX]) {
        int r = check_parameters(url, error);

        if (r >= 0)
                r = check_path(url, error);
        if (r >= 0)
                r = check_database(url, &s->database, error);
        if (r >= 0 && url->is_tls)
                r = redis_tls_context_new(get_parameter(url, "cacert"), get_parameter(url, "cert"),
                                get_parameter(url, "key"), &s->tls, error);
        return r;
}

int redis_settings_read(RedisSettings *s, const StateUrl *url, char error[static STATE_TEXT_MAX]) {
        int r;

        *s = (RedisSettings){
                .host = url->host ? url->host : DEFAULT_HOST,
                .port = url->port != 0 ? url->port : DEFAULT_PORT,
        };
        r = settings_read(s, url, error);
        if (r < 0)
                text_make_printable(error);
        return r;
}

void redis_settings_done(RedisSettings *s) {
        if (s->tls)
                SSL_CTX_free(s->tls);
        s->tls = NULL;
}
