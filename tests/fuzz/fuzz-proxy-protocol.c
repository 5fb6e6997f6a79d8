/* SPDX-License-Identifier: MIT */
/* The first bytes of a connection that should begin with a header of the PROXY protocol.
 *
 * Beyond not crashing: byte after byte the outcome is "incomplete", with a need that is greater than what is
 * there and never falls, until it is something else once and for all; all that counts of a header is there
 * with the last byte that was asked for and not before; and what follows changes nothing. */

#include <arpa/inet.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "basic/proxy-protocol.h"
#include "fuzz.h"

static void check(bool condition) {
        if (!condition)
                abort();
}

static bool is_line(const uint8_t *data, size_t size) {
        return size > 0 && data[0] == 'P';
}

static void check_binary(const ProxyHeader *h, const uint8_t *data) {
        static const uint8_t nothing[sizeof(h->source.bytes)];
        const uint8_t *addresses = data + PROXY_PROTOCOL_FIXED;
        size_t size = h->source.family == AF_INET ? 4 : h->source.family == AF_INET6 ? 16 : 0;

        check(h->length == PROXY_PROTOCOL_FIXED + data[14] * 256U + data[15]);
        check(memcmp(data, "\r\n\r\n\0\r\nQUIT\n", 12) == 0);
        check(data[12] == (h->command == PROXY_COMMAND_LOCAL ? 0x20 : 0x21));
        check(h->length >= PROXY_PROTOCOL_FIXED + 2 * size);
        check(memcmp(h->source.bytes, size > 0 ? addresses : nothing, size) == 0);
        check(memcmp(h->destination.bytes, size > 0 ? addresses + size : nothing, size) == 0);
        if (size > 0)
                check(h->source.port == addresses[2 * size] * 256 + addresses[2 * size + 1]);
        if (h->source.family == AF_UNIX)
                check(h->length >= PROXY_PROTOCOL_MAX && memcmp(h->path, addresses, PROXY_PATH_MAX) == 0);
}

/* Written anew it is the same header: there is but one way to write a port and an IPv4 address, and of IPv6
 * what the library writes it reads as the same. */
static void check_line(const ProxyHeader *h, const uint8_t *data) {
        char line[128], source[INET6_ADDRSTRLEN], destination[INET6_ADDRSTRLEN], reason[PROXY_REASON_MAX];
        ProxyHeader again;
        size_t needed;

        check(h->length <= 107 && memcmp(data + h->length - 2, "\r\n", 2) == 0);
        check(h->command == PROXY_COMMAND_PROXY && h->source.family != AF_UNIX);
        if (h->source.family == AF_UNSPEC) {
                check(memcmp(data, "PROXY UNKNOWN", 13) == 0);
                return;
        }
        inet_ntop(h->source.family, h->source.bytes, source, sizeof(source));
        inet_ntop(h->source.family, h->destination.bytes, destination, sizeof(destination));
        int n = snprintf(line, sizeof(line), "PROXY %s %s %s %u %u\r\n",
                        h->source.family == AF_INET ? "TCP4" : "TCP6", source, destination, h->source.port,
                        h->destination.port);
        check(h->source.family == AF_INET6 ||
                        ((size_t) n == h->length && memcmp(line, data, h->length) == 0));
        check(proxy_protocol_parse((const uint8_t *) line, (size_t) n, &again, &needed, reason) ==
                        PROXY_PROTOCOL_DONE);
        again.length = h->length;
        check(memcmp(&again.source, &h->source, sizeof(again.source)) == 0);
        check(memcmp(&again.destination, &h->destination, sizeof(again.destination)) == 0);
}

static void check_header(const ProxyHeader *h, const uint8_t *data) {
        check(h->source.family == h->destination.family);
        if (h->source.family != AF_INET && h->source.family != AF_INET6)
                check(h->source.port == 0 && h->destination.port == 0);
        if (is_line(data, 1))
                check_line(h, data);
        else
                check_binary(h, data);
}

/* In memory of the very size, so that a sanitizer sees a read beyond it. */
static int parse(const uint8_t *data, size_t n, ProxyHeader *h, size_t *needed, char *reason) {
        uint8_t *exact = malloc(n > 0 ? n : 1);
        int r;

        check(exact != NULL);
        if (n > 0)
                memcpy(exact, data, n);
        r = proxy_protocol_parse(exact, n, h, needed, reason);
        free(exact);
        return r;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
        char reason[PROXY_REASON_MAX];
        size_t needed = 0, least = 0;
        ProxyHeader h;
        int last = PROXY_PROTOCOL_MORE;

        for (size_t n = 0; n <= size && n <= PROXY_PROTOCOL_MAX + 2; n++) {
                int r = parse(data, n, &h, &needed, reason);

                check(last == PROXY_PROTOCOL_MORE || r == last);
                switch (r) {
                case PROXY_PROTOCOL_DONE:
                        check_header(&h, data);
                        check(last == PROXY_PROTOCOL_DONE || n == least);
                        break;
                case PROXY_PROTOCOL_MORE:
                        check(needed > n && needed >= least && needed <= PROXY_PROTOCOL_MAX);
                        least = needed;
                        break;
                default:
                        check(r == PROXY_PROTOCOL_INVALID && memchr(reason, '\0', sizeof(reason)));
                }
                last = r;
        }
        return 0;
}
