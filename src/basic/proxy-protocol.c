/* SPDX-License-Identifier: MIT */
/* The header that a proxy sends; see proxy-protocol.h.
 *
 * Version 1 is a line: "PROXY TCP4 192.0.2.1 198.51.100.7 50000 443", or "PROXY UNKNOWN" and then whatever.
 *
 * Version 2: 12 bytes of signature; version and command; family and protocol; length of the rest, two bytes;
 * the addresses of source and destination, their ports, and what else the proxy has to say.
 *
 * The specification asks the receiver to refuse what it does not define, and to ignore the addresses of
 * LOCAL and of anything unspecified. */

#include "basic/proxy-protocol.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/un.h>

#include "basic/macro.h"

#define invalid(reason, ...) (snprintf(reason, PROXY_REASON_MAX, __VA_ARGS__), PROXY_PROTOCOL_INVALID)

/*
 * Version 1
 */

static const char prefix[] = "PROXY ";

#define LINE_MAX_V1 107
#define LINE_MIN_V1 15 /* "PROXY UNKNOWN\r\n" */

/* Takes the next word off a line of which @rest is left; exactly one space is between two. False: there is
 * none, or it does not fit. */
static bool take_word(const char **rest, const char *end, char *ret, size_t size) {
        const char *space = memchr(*rest, ' ', (size_t) (end - *rest));
        const char *word_end = space ? space : end;
        size_t n = (size_t) (word_end - *rest);

        if (n == 0 || n >= size || memchr(*rest, '\0', n))
                return false;
        memcpy(ret, *rest, n);
        ret[n] = '\0';
        *rest = space ? space + 1 : end;
        return true;
}

/* inet_pton(3) is strict about what it takes: no leading zeros, nothing behind it. */
static bool take_address(const char **rest, const char *end, ProxyAddress *a) {
        char word[INET6_ADDRSTRLEN];

        return take_word(rest, end, word, sizeof(word)) && inet_pton(a->family, word, a->bytes) == 1;
}

static bool take_port(const char **rest, const char *end, ProxyAddress *a) {
        unsigned port = 0;
        char word[6];

        if (!take_word(rest, end, word, sizeof(word)) || (word[0] == '0' && word[1]))
                return false;
        for (const char *p = word; *p; p++) {
                if (*p < '0' || *p > '9')
                        return false;
                port = port * 10 + (unsigned) (*p - '0');
        }
        if (port > UINT16_MAX)
                return false;
        a->port = (uint16_t) port;
        return true;
}

/* All of the line between "PROXY " and its end. */
static int parse_line(const char *rest, const char *end, ProxyHeader *h, char *reason) {
        char word[sizeof("UNKNOWN")];
        uint16_t family;

        if (!take_word(&rest, end, word, sizeof(word)))
                return invalid(reason, "found no protocol behind PROXY, expected TCP4, TCP6 or UNKNOWN");
        if (strcmp(word, "UNKNOWN") == 0)
                return PROXY_PROTOCOL_DONE;
        if (strcmp(word, "TCP4") == 0)
                family = AF_INET;
        else if (strcmp(word, "TCP6") == 0)
                family = AF_INET6;
        else
                return invalid(reason, "found another protocol behind PROXY than TCP4, TCP6 or UNKNOWN");

        h->source.family = h->destination.family = family;
        if (!take_address(&rest, end, &h->source))
                return invalid(reason, "the source's address is none of %s", word);
        if (!take_address(&rest, end, &h->destination))
                return invalid(reason, "the destination's address is none of %s", word);
        if (!take_port(&rest, end, &h->source) || !take_port(&rest, end, &h->destination))
                return invalid(reason, "found no two ports behind the addresses");
        /* A space behind the last port leaves nothing either. */
        if (rest != end || end[-1] == ' ')
                return invalid(reason, "found something behind the ports, expected the end of the line");
        return PROXY_PROTOCOL_DONE;
}

static int parse_v1(const char *bytes, size_t n, ProxyHeader *h, size_t *ret_needed, char *reason) {
        size_t length = MIN(n, (size_t) LINE_MAX_V1);
        const char *cr = memchr(bytes, '\r', length), *lf = memchr(bytes, '\n', length);

        if (memcmp(bytes, prefix, MIN(n, strlen(prefix))) != 0)
                return invalid(reason, "found a \"P\", and no header of version 1 that begins with it");
        if ((lf && (!cr || lf < cr)) || (cr && cr + 1 < bytes + n && cr[1] != '\n'))
                return invalid(reason, "found another end of the line than CR and LF");
        if (cr && cr + 1 < bytes + length) {
                *h = (ProxyHeader){ .length = (size_t) (cr + 2 - bytes), .command = PROXY_COMMAND_PROXY };
                return h->length < LINE_MIN_V1 ? invalid(reason, "found a line that ends too early")
                                               : parse_line(bytes + strlen(prefix), cr, h, reason);
        }
        *ret_needed = MAX(n + (cr ? 1 : 2), (size_t) LINE_MIN_V1);
        if (*ret_needed > LINE_MAX_V1)
                return invalid(reason, "found no end of the line within %d bytes", LINE_MAX_V1);
        return PROXY_PROTOCOL_MORE;
}

/*
 * Version 2
 */

/* No other protocol begins like this, and a text protocol breaks at once. */
static const uint8_t signature[] = { '\r', '\n', '\r', '\n', 0, '\r', '\n', 'Q', 'U', 'I', 'T', '\n' };

#define VERSION      2
#define PROTOCOL_MAX 2 /* unspecified, stream, datagram */

/* Index: the number in the header. @all: both addresses and ports. */
static const struct {
        uint16_t family;
        size_t size;
        size_t all;
} families[] = {
        { AF_UNSPEC, 0, 0 },
        { AF_INET, 4, 2 * 4 + 2 * 2 },
        { AF_INET6, 16, 2 * 16 + 2 * 2 },
        { AF_UNIX, PROXY_PATH_MAX, 2 * PROXY_PATH_MAX },
};

static int check_signature(const uint8_t *bytes, size_t n, char *reason) {
        for (size_t i = 0; i < MIN(n, sizeof(signature)); i++)
                if (bytes[i] != signature[i])
                        return invalid(reason,
                                        "byte %zu: found 0x%02x, expected 0x%02x of the header's signature",
                                        i + 1, bytes[i], signature[i]);
        return 0;
}

/* The four bytes behind the signature. @ret_family: index of what the addresses are; 0: there are none that
 * count. */
static int parse_fixed(const uint8_t *bytes, ProxyHeader *h, unsigned *ret_family, char *reason) {
        unsigned version = bytes[12] >> 4, command = bytes[12] & 0xF;
        unsigned family = bytes[13] >> 4, protocol = bytes[13] & 0xF;
        size_t rest = (size_t) bytes[14] << 8 | bytes[15];

        if (version != VERSION)
                return invalid(reason, "byte 13: found version %u, expected %u", version, VERSION);
        if (command > PROXY_COMMAND_PROXY)
                return invalid(reason, "byte 13: found command %u, expected 0 (LOCAL) or 1 (PROXY)",
                                command);
        *h = (ProxyHeader){ .length = PROXY_PROTOCOL_FIXED + rest, .command = command };
        *ret_family = 0;
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
        *ret_family = family; /* of a datagram too: the proxy knows best what it puts into a stream */
        return 0;
}

static uint16_t read_port(const uint8_t *p) {
        return (uint16_t) (p[0] << 8 | p[1]);
}

static void take_addresses(const uint8_t *p, unsigned family, ProxyHeader *h) {
        size_t size = families[family].size;

        h->source.family = h->destination.family = families[family].family;
        if (h->source.family == AF_UNIX) {
                memcpy(h->path, p, PROXY_PATH_MAX);
                return;
        }
        memcpy(h->source.bytes, p, size);
        memcpy(h->destination.bytes, p + size, size);
        h->source.port = read_port(p + 2 * size);
        h->destination.port = read_port(p + 2 * size + 2);
}

static int parse_v2(const uint8_t *bytes, size_t n, ProxyHeader *h, size_t *ret_needed, char *reason) {
        unsigned family = 0;
        int r;

        r = check_signature(bytes, n, reason);
        if (r != 0)
                return r;
        *ret_needed = PROXY_PROTOCOL_FIXED;
        if (n < PROXY_PROTOCOL_FIXED)
                return PROXY_PROTOCOL_MORE;
        r = parse_fixed(bytes, h, &family, reason);
        if (r != 0)
                return r;
        *ret_needed = PROXY_PROTOCOL_FIXED + families[family].all;
        if (n < *ret_needed)
                return PROXY_PROTOCOL_MORE;
        if (family > 0)
                take_addresses(bytes + PROXY_PROTOCOL_FIXED, family, h);
        return PROXY_PROTOCOL_DONE;
}

int proxy_protocol_parse(const uint8_t *bytes, size_t n, ProxyHeader *ret, size_t *ret_needed,
                char ret_reason[static PROXY_REASON_MAX]) {
        size_t needed = LINE_MIN_V1;
        ProxyHeader h;
        int r;

        if (n == 0)
                r = PROXY_PROTOCOL_MORE;
        else if (bytes[0] == (uint8_t) prefix[0])
                r = parse_v1((const char *) bytes, n, &h, &needed, ret_reason);
        else
                r = parse_v2(bytes, n, &h, &needed, ret_reason);
        if (r == PROXY_PROTOCOL_DONE)
                *ret = h;
        else if (r == PROXY_PROTOCOL_MORE)
                *ret_needed = needed;
        return r;
}

/*
 * Addresses
 */

void proxy_address_from_sockaddr(const struct sockaddr_storage *address, ProxyAddress *ret) {
        ProxyAddress a = { .family = AF_UNSPEC };

        switch (address->ss_family) {
        case AF_INET: {
                const struct sockaddr_in *in = (const struct sockaddr_in *) address;
                a.port = ntohs(in->sin_port);
                memcpy(a.bytes, &in->sin_addr, sizeof(in->sin_addr));
                break;
        }
        case AF_INET6: {
                const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *) address;
                a.port = ntohs(in6->sin6_port);
                memcpy(a.bytes, &in6->sin6_addr, sizeof(in6->sin6_addr));
                break;
        }
        case AF_UNIX:
                break;
        default:
                *ret = a;
                return;
        }
        a.family = address->ss_family;
        *ret = a;
}

socklen_t proxy_address_to_sockaddr(const ProxyAddress *address, struct sockaddr_storage *ret) {
        struct sockaddr_in *in = (struct sockaddr_in *) ret;
        struct sockaddr_in6 *in6 = (struct sockaddr_in6 *) ret;

        memset(ret, 0, sizeof(*ret));
        ret->ss_family = address->family;
        switch (address->family) {
        case AF_INET:
                in->sin_port = htons(address->port);
                memcpy(&in->sin_addr, address->bytes, sizeof(in->sin_addr));
                return sizeof(*in);
        case AF_INET6:
                in6->sin6_port = htons(address->port);
                memcpy(&in6->sin6_addr, address->bytes, sizeof(in6->sin6_addr));
                return sizeof(*in6);
        default:
                return offsetof(struct sockaddr_un, sun_path);
        }
}
