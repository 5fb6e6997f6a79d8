/* SPDX-License-Identifier: MIT */
/* The header that a proxy sends; see proxy-protocol.h.
 *
 * 12 bytes of signature; version and command; family and protocol; length of the rest, two bytes; the
 * addresses of source and destination, their ports, and what else the proxy has to say. The specification
 * asks the receiver to refuse what it does not define, and to ignore the addresses of LOCAL and of anything
 * unspecified. */

#include "master/proxy-protocol.h"

#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "basic/macro.h"

/* No other protocol begins like this, and a text protocol breaks at once. */
static const uint8_t signature[] = { '\r', '\n', '\r', '\n', 0, '\r', '\n', 'Q', 'U', 'I', 'T', '\n' };
static const uint8_t signature_v1[] = { 'P', 'R', 'O', 'X', 'Y', ' ' };

#define VERSION      2
#define PROTOCOL_MAX 2 /* unspecified, stream, datagram */

/* Index: the number in the header. @all: both addresses and ports. */
static const struct {
        int family;
        size_t source_size;
        size_t all;
} families[] = {
        { AF_UNSPEC, 0, 0 },
        { AF_INET, 4, 2 * 4 + 2 * 2 },
        { AF_INET6, 16, 2 * 16 + 2 * 2 },
        { AF_UNIX, PROXY_ADDRESS_MAX, 2 * PROXY_ADDRESS_MAX },
};

#define invalid(reason, ...) (snprintf(reason, PROXY_REASON_MAX, __VA_ARGS__), PROXY_PROTOCOL_INVALID)

static int check_signature(const uint8_t *bytes, size_t n, char *reason) {
        if (n >= sizeof(signature_v1) && memcmp(bytes, signature_v1, sizeof(signature_v1)) == 0)
                return invalid(reason, "found a header of version 1 (text), expected version 2 (binary)");
        for (size_t i = 0; i < MIN(n, sizeof(signature)); i++)
                if (bytes[i] != signature[i])
                        return invalid(reason,
                                        "byte %zu: found 0x%02x, expected 0x%02x of the header's signature",
                                        i + 1, bytes[i], signature[i]);
        return 0;
}

/* The four bytes behind the signature. */
static int parse_fixed(const uint8_t *bytes, ProxyHeader *h, char *reason) {
        unsigned version = bytes[12] >> 4, command = bytes[12] & 0xF;
        unsigned family = bytes[13] >> 4, protocol = bytes[13] & 0xF;
        size_t rest = (size_t) bytes[14] << 8 | bytes[15];

        if (version != VERSION)
                return invalid(reason, "byte 13: found version %u, expected %u", version, VERSION);
        if (command > PROXY_COMMAND_PROXY)
                return invalid(reason, "byte 13: found command %u, expected 0 (LOCAL) or 1 (PROXY)",
                                command);
        if (rest > PROXY_PROTOCOL_MAX - PROXY_PROTOCOL_FIXED)
                return invalid(reason, "bytes 15, 16: found a length of %zu, expected at most %d", rest,
                                PROXY_PROTOCOL_MAX - PROXY_PROTOCOL_FIXED);
        *h = (ProxyHeader){ .length = PROXY_PROTOCOL_FIXED + rest, .command = command, .family = AF_UNSPEC };
        if (command == PROXY_COMMAND_LOCAL)
                return 0;

        if (family >= ELEMENTSOF(families) || protocol > PROTOCOL_MAX)
                return invalid(reason, "byte 14: found family %u, protocol %u, expected at most 3 and %d",
                                family, protocol, PROTOCOL_MAX);
        if (protocol == 0 || family == 0)
                return 0;
        if (rest < families[family].all)
                return invalid(reason, "bytes 15, 16: found a length of %zu, expected at least %zu", rest,
                                families[family].all);
        /* Of a datagram too: the proxy knows best what it puts into a stream. */
        h->family = families[family].family;
        h->source_size = families[family].source_size;
        return 0;
}

static void take_source(const uint8_t *addresses, ProxyHeader *h) {
        const uint8_t *ports = addresses + 2 * h->source_size;

        memcpy(h->source, addresses, h->source_size);
        if (h->family == AF_INET || h->family == AF_INET6)
                h->source_port = (uint16_t) (ports[0] << 8 | ports[1]);
}

int proxy_protocol_parse(const uint8_t *bytes, size_t n, ProxyHeader *ret, size_t *ret_needed,
                char ret_reason[static PROXY_REASON_MAX]) {
        size_t needed = PROXY_PROTOCOL_FIXED;
        ProxyHeader h;
        int r;

        r = check_signature(bytes, n, ret_reason);
        if (r == 0 && n >= PROXY_PROTOCOL_FIXED) {
                r = parse_fixed(bytes, &h, ret_reason);
                needed = h.length;
        }
        if (r != 0)
                return r;
        if (n < needed) {
                *ret_needed = needed;
                return PROXY_PROTOCOL_INCOMPLETE;
        }
        take_source(bytes + PROXY_PROTOCOL_FIXED, &h);
        *ret = h;
        return 0;
}
