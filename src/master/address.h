/* SPDX-License-Identifier: MIT */
#pragma once

/* Socket addresses as people write them. */

#include <stdbool.h>
#include <sys/socket.h>
#include <sys/un.h>

typedef struct Address {
        union {
                struct sockaddr any;
                struct sockaddr_storage storage;
                struct sockaddr_un un;
        } sockaddr;
        socklen_t size;
        bool wildcard; /* a port alone: IPv6 and IPv4, or IPv4 where there is no IPv6 */
} Address;

#define ADDRESS_STRING_MAX 128

/* "8080", "127.0.0.1:8080", "[::1]:8080", "/run/app.sock". Names are not resolved. Returns 0 or -EINVAL. */
int address_parse(const char *s, Address *ret);

/* The same forms back, for what the kernel says of a socket; "@name" for an abstract one. */
const char *address_to_string(const Address *a, char buf[static ADDRESS_STRING_MAX]);

/* The address a socket is bound to. */
int address_of_socket(int fd, Address *ret);
