/* SPDX-License-Identifier: MIT */
/* Where a Redis server is; see redis-address.h. */

#include "state/redis-address.h"

#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PORT_TEXT_MAX 12

const char *redis_address_to_string(const RedisAddress *a, char text[static REDIS_ADDRESS_TEXT_MAX]) {
        char host[64], port[PORT_TEXT_MAX];

        if (a->socket.any.sa_family == AF_UNIX)
                snprintf(text, REDIS_ADDRESS_TEXT_MAX, "%s", a->socket.local.sun_path);
        else if (getnameinfo(&a->socket.any, a->size, host, sizeof(host), port, sizeof(port),
                                 NI_NUMERICHOST | NI_NUMERICSERV) != 0)
                snprintf(text, REDIS_ADDRESS_TEXT_MAX, "?");
        else
                snprintf(text, REDIS_ADDRESS_TEXT_MAX,
                                a->socket.any.sa_family == AF_INET6 ? "[%s]:%s" : "%s:%s", host, port);
        return text;
}

int redis_address_of_path(const char *path, RedisAddresses *ret) {
        RedisAddress *a = &ret->items[0];
        size_t length = strlen(path);

        if (length >= sizeof(a->socket.local.sun_path))
                return -EINVAL;
        memset(a, 0, sizeof(*a));
        a->socket.local.sun_family = AF_UNIX;
        memcpy(a->socket.local.sun_path, path, length + 1);
        a->size = (socklen_t) (offsetof(struct sockaddr_un, sun_path) + length + 1);
        ret->n = 1;
        return 0;
}

static int resolve(const char *host, const char *port, int flags, RedisAddresses *ret) {
        const struct addrinfo hints = {
                .ai_family = AF_UNSPEC,
                .ai_socktype = SOCK_STREAM,
                .ai_flags = AI_NUMERICSERV | flags,
        };
        struct addrinfo *list = NULL;
        int r = getaddrinfo(host, port, &hints, &list);

        if (r != 0)
                return r;
        ret->n = 0;
        for (const struct addrinfo *i = list; i && ret->n < REDIS_ADDRESSES_MAX; i = i->ai_next) {
                RedisAddress *a = &ret->items[ret->n];

                if (i->ai_family != AF_INET && i->ai_family != AF_INET6)
                        continue;
                memcpy(&a->socket, i->ai_addr, i->ai_addrlen);
                a->size = i->ai_addrlen;
                ret->n++;
        }
        freeaddrinfo(list);
        return ret->n > 0 ? 0 : EAI_NONAME;
}

int redis_address_of_number(const char *host, unsigned port, RedisAddresses *ret) {
        char text[PORT_TEXT_MAX];

        snprintf(text, sizeof(text), "%u", port);
        return resolve(host, text, AI_NUMERICHOST, ret) == 0 ? 0 : -EINVAL;
}

int redis_addresses_of_numbers(const char *hosts, unsigned port, RedisAddresses *ret) {
        RedisAddresses one;
        char host[NI_MAXHOST];

        ret->n = 0;
        for (size_t n; *hosts && ret->n < REDIS_ADDRESSES_MAX; hosts += n + (hosts[n] == ',')) {
                n = strcspn(hosts, ",");
                if (n >= sizeof(host))
                        continue;
                snprintf(host, sizeof(host), "%.*s", (int) n, hosts);
                if (redis_address_of_number(host, port, &one) == 0)
                        ret->items[ret->n++] = one.items[0];
        }
        return ret->n > 0 ? 0 : -EINVAL;
}
