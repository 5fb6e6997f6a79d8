/* SPDX-License-Identifier: MIT */
#pragma once

/* The header of the PROXY protocol with which a proxy begins a connection and says whose it is
 * (proxy-protocol.txt of HAProxy, sections 2.1 and 2.2): version 1, a line of text, or version 2, binary.
 * Pure: bytes in, an outcome out. */

#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

/* One end of a client's connection. No pointers and no more than it takes: there is one for every
 * connection, and it may lie in shared memory. */
typedef struct ProxyAddress {
        uint16_t family;   /* AF_INET, AF_INET6, AF_UNIX; AF_UNSPEC: nothing is known */
        uint16_t port;     /* 0 for AF_UNIX and AF_UNSPEC */
        uint8_t bytes[16]; /* in network byte order: 4, 16, or none of them count */
} ProxyAddress;

typedef enum ProxyCommand {
        PROXY_COMMAND_LOCAL, /* the proxy's own connection, such as a health check: there is no client */
        PROXY_COMMAND_PROXY,
} ProxyCommand;

/* The path of a unix socket as the header has it, filled up with zeros. */
#define PROXY_PATH_MAX 108

typedef struct ProxyHeader {
        size_t length; /* of the whole header: the connection's own bytes begin behind it */
        ProxyCommand command;
        ProxyAddress source;          /* the client; AF_UNSPEC: what the socket says counts */
        ProxyAddress destination;     /* where it connected to; of the same family */
        uint8_t path[PROXY_PATH_MAX]; /* of the source, for AF_UNIX */
} ProxyHeader;

/* The least that tells how long a header of version 2 is. */
#define PROXY_PROTOCOL_FIXED 16

/* All that is ever looked at: version 1 is at most 107 bytes, of version 2 it is the addresses. What a proxy
 * adds behind these (names, identifiers, the client's certificate) nobody here reads. */
#define PROXY_PROTOCOL_MAX (PROXY_PROTOCOL_FIXED + 2 * PROXY_PATH_MAX)

/* The longest header that there can be. */
#define PROXY_PROTOCOL_LENGTH_MAX (PROXY_PROTOCOL_FIXED + 65535)

#define PROXY_REASON_MAX 128

/* Outcomes. */
#define PROXY_PROTOCOL_DONE    0
#define PROXY_PROTOCOL_MORE    1 /* the beginning of a header */
#define PROXY_PROTOCOL_INVALID 2 /* there is no header that begins like this */

/* Reads the first @n bytes of a connection, from its first one on with every call. Returns
 *
 * PROXY_PROTOCOL_DONE with @ret when all that counts is there. The header may be longer than that, and than
 * @n: up to @ret->length everything is to be skipped;
 *
 * PROXY_PROTOCOL_MORE with the number of bytes that are needed at least in @ret_needed, always more than @n
 * and at most PROXY_PROTOCOL_MAX. Whoever reads no more than that takes nothing of what follows the header;
 *
 * PROXY_PROTOCOL_INVALID, as early as it can be told, with the reason in @ret_reason
 * ("byte 13: found …, expected …"). */
int proxy_protocol_parse(const uint8_t *bytes, size_t n, ProxyHeader *ret, size_t *ret_needed,
                char ret_reason[static PROXY_REASON_MAX]);

/* From and to what accept(2) gives. A unix socket has no name here; of another family AF_UNSPEC is left. */
void proxy_address_from_sockaddr(const struct sockaddr_storage *address, ProxyAddress *ret);
socklen_t proxy_address_to_sockaddr(const ProxyAddress *address, struct sockaddr_storage *ret);
