/* SPDX-License-Identifier: MIT */
/* Socket addresses; see address.h. */

#include "master/address.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>

#include "basic/macro.h"
#include "basic/parse.h"

static int parse_port(const char *s, in_port_t *ret) {
        unsigned port;

        if (parse_uint(s, &port) < 0 || port > UINT16_MAX)
                return -EINVAL;
        *ret = htons((uint16_t) port);
        return 0;
}

static int parse_unix(const char *s, Address *ret) {
        size_t n = strlen(s);

        if (n >= sizeof(ret->sockaddr.un.sun_path))
                return -EINVAL;
        *ret = (Address){ .sockaddr.un.sun_family = AF_UNIX };
        memcpy(ret->sockaddr.un.sun_path, s, n + 1);
        ret->size = (socklen_t) (offsetof(struct sockaddr_un, sun_path) + n + 1);
        return 0;
}

static int parse_inet6(const char *host, const char *port, Address *ret) {
        struct sockaddr_in6 in6 = { .sin6_family = AF_INET6 };

        if (inet_pton(AF_INET6, host, &in6.sin6_addr) != 1 || parse_port(port, &in6.sin6_port) < 0)
                return -EINVAL;
        *ret = (Address){ .size = sizeof(in6) };
        memcpy(&ret->sockaddr, &in6, sizeof(in6));
        return 0;
}

static int parse_inet(const char *host, const char *port, Address *ret) {
        struct sockaddr_in in = { .sin_family = AF_INET };

        if (inet_pton(AF_INET, host, &in.sin_addr) != 1 || parse_port(port, &in.sin_port) < 0)
                return -EINVAL;
        *ret = (Address){ .size = sizeof(in) };
        memcpy(&ret->sockaddr, &in, sizeof(in));
        return 0;
}

int address_parse(const char *s, Address *ret) {
        char host[ADDRESS_STRING_MAX];
        int r;

        if (s[0] == '/')
                return parse_unix(s, ret);
        if (strlen(s) >= sizeof(host))
                return -EINVAL;

        strcpy(host, s);
        if (host[0] == '[') {
                char *end = strstr(host, "]:");
                if (!end)
                        return -EINVAL;
                *end = '\0';
                return parse_inet6(host + 1, end + 2, ret);
        }

        char *colon = strchr(host, ':');
        if (colon) {
                *colon = '\0';
                return parse_inet(host, colon + 1, ret);
        }
        r = parse_inet6("::", host, ret);
        if (r >= 0)
                ret->wildcard = true;
        return r;
}

static const char *unix_to_string(const Address *a, char buf[static ADDRESS_STRING_MAX]) {
        const struct sockaddr_un *un = &a->sockaddr.un;
        size_t n = a->size - offsetof(struct sockaddr_un, sun_path);

        if (a->size <= offsetof(struct sockaddr_un, sun_path))
                strcpy(buf, "unix");
        else if (un->sun_path[0] == '\0')
                snprintf(buf, ADDRESS_STRING_MAX, "@%.*s", (int) n - 1, un->sun_path + 1);
        else
                snprintf(buf, ADDRESS_STRING_MAX, "%.*s", (int) n, un->sun_path);
        return buf;
}

const char *address_to_string(const Address *a, char buf[static ADDRESS_STRING_MAX]) {
        char host[INET6_ADDRSTRLEN];
        struct sockaddr_in6 in6;
        struct sockaddr_in in;

        switch (a->sockaddr.any.sa_family) {
        case AF_UNIX:
                return unix_to_string(a, buf);
        case AF_INET:
                memcpy(&in, &a->sockaddr, sizeof(in));
                snprintf(buf, ADDRESS_STRING_MAX, "%s:%u",
                                inet_ntop(AF_INET, &in.sin_addr, host, sizeof(host)), ntohs(in.sin_port));
                return buf;
        case AF_INET6:
                memcpy(&in6, &a->sockaddr, sizeof(in6));
                snprintf(buf, ADDRESS_STRING_MAX, "[%s]:%u",
                                inet_ntop(AF_INET6, &in6.sin6_addr, host, sizeof(host)),
                                ntohs(in6.sin6_port));
                return buf;
        default:
                snprintf(buf, ADDRESS_STRING_MAX, "address family %u", a->sockaddr.any.sa_family);
                return buf;
        }
}

int address_of_socket(int fd, Address *ret) {
        Address a = { .size = sizeof(a.sockaddr) };

        if (getsockname(fd, &a.sockaddr.any, &a.size) < 0)
                return -errno;
        *ret = a;
        return 0;
}
