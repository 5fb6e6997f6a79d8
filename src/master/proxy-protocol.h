/* SPDX-License-Identifier: MIT */
#pragma once

/* The header of the PROXY protocol, version 2, with which a proxy begins a connection and says whose it is
 * (proxy-protocol.txt of HAProxy, section 2.2). Pure: bytes in, an outcome out. */

#include <stddef.h>
#include <stdint.h>

typedef enum ProxyCommand {
        PROXY_COMMAND_LOCAL, /* the proxy's own connection, such as a health check: there is no client */
        PROXY_COMMAND_PROXY,
} ProxyCommand;

/* The path of a unix socket as the header has it, filled up with zeros; other addresses are shorter. */
#define PROXY_ADDRESS_MAX 108

typedef struct ProxyHeader {
        size_t length; /* of the whole header: the connection's own bytes begin behind it */
        ProxyCommand command;
        int family; /* AF_INET, AF_INET6, AF_UNIX; AF_UNSPEC: nothing is known of the client */
        uint8_t source[PROXY_ADDRESS_MAX]; /* the client's address in network byte order */
        size_t source_size;                /* 4, 16, 108; 0 for AF_UNSPEC */
        uint16_t source_port;              /* 0 for AF_UNIX and AF_UNSPEC */
} ProxyHeader;

/* So many bytes tell how long the header is. */
#define PROXY_PROTOCOL_FIXED 16

/* The longest header that is taken. The addresses are at most 216 bytes; the rest is for what a proxy adds
 * (names, identifiers, the client's certificate), which nobody here reads. Since a header is looked at again
 * and again until it is complete, the 64 KiB that it could have would be too much. */
#define PROXY_PROTOCOL_MAX 4096

#define PROXY_REASON_MAX 128

/* Outcomes. */
#define PROXY_PROTOCOL_INCOMPLETE 1 /* the beginning of a header */
#define PROXY_PROTOCOL_INVALID    2 /* there is no header that begins like this */

/* Reads the first @n bytes of a connection. Returns 0 with @ret when the header is complete, whatever
 * follows; PROXY_PROTOCOL_INCOMPLETE with the number of bytes that are needed at least in @ret_needed,
 * always more than @n and at most PROXY_PROTOCOL_MAX; or PROXY_PROTOCOL_INVALID, as early as it can be told,
 * with the reason in @ret_reason ("byte 13: found …, expected …"). */
int proxy_protocol_parse(const uint8_t *bytes, size_t n, ProxyHeader *ret, size_t *ret_needed,
                char ret_reason[static PROXY_REASON_MAX]);
