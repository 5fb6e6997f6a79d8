/* SPDX-License-Identifier: MIT */
#pragma once

/* Where a Redis server is. */

#include <netinet/in.h>
#include <stddef.h>
#include <sys/socket.h>
#include <sys/un.h>

typedef struct RedisAddress {
        union {
                struct sockaddr any;
                struct sockaddr_in ipv4;
                struct sockaddr_in6 ipv6;
                struct sockaddr_un local;
        } socket;
        socklen_t size;
} RedisAddress;

#define REDIS_ADDRESSES_MAX 16

typedef struct RedisAddresses {
        RedisAddress items[REDIS_ADDRESSES_MAX];
        size_t n;
} RedisAddresses;

#define REDIS_ADDRESS_TEXT_MAX 128

/* A path, or an address with its port. */
const char *redis_address_to_string(const RedisAddress *address, char text[static REDIS_ADDRESS_TEXT_MAX]);

/* Returns 0, or -EINVAL: @path is too long for a socket. */
int redis_address_of_path(const char *path, RedisAddresses *ret);

/* Returns 0, or -EINVAL: @host is no numeric address, but a name. */
int redis_address_of_number(const char *host, unsigned port, RedisAddresses *ret);

/* The same of several, with commas between them; those that are none are left out. Returns 0, or -EINVAL:
 * none is left. */
int redis_addresses_of_numbers(const char *hosts, unsigned port, RedisAddresses *ret);
