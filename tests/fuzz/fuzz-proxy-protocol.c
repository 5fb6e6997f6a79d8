/* SPDX-License-Identifier: MIT */
/* The first bytes of a connection that should begin with a header of the PROXY protocol.
 *
 * Beyond not crashing: byte after byte the outcome is "incomplete", with a need that is greater than what is
 * there and never falls, until it is something else once and for all; a header is complete with its last
 * byte and not before; and what follows it changes nothing. */

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "fuzz.h"
#include "master/proxy-protocol.h"

static void check(bool condition) {
        if (!condition)
                abort();
}

static void check_header(const ProxyHeader *h, const uint8_t *data) {
        check(h->length >= PROXY_PROTOCOL_FIXED && h->length <= PROXY_PROTOCOL_MAX);
        check(h->length == PROXY_PROTOCOL_FIXED + data[14] * 256U + data[15]);
        check(memcmp(data, "\r\n\r\n\0\r\nQUIT\n", 12) == 0);
        check(data[12] == (h->command == PROXY_COMMAND_LOCAL ? 0x20 : 0x21));
        switch (h->family) {
        case AF_INET:
                check(h->source_size == 4 && h->source_port == data[24] * 256 + data[25]);
                break;
        case AF_INET6:
                check(h->source_size == 16 && h->source_port == data[48] * 256 + data[49]);
                break;
        case AF_UNIX:
                check(h->source_size == PROXY_ADDRESS_MAX && h->source_port == 0);
                break;
        default:
                check(h->family == AF_UNSPEC && h->source_size == 0 && h->source_port == 0);
        }
        check(h->length >= PROXY_PROTOCOL_FIXED + 2 * h->source_size);
        check(memcmp(h->source, data + PROXY_PROTOCOL_FIXED, h->source_size) == 0);
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
        int last = PROXY_PROTOCOL_INCOMPLETE;

        for (size_t n = 0; n <= size && n <= PROXY_PROTOCOL_MAX + 2; n++) {
                int r = parse(data, n, &h, &needed, reason);

                check(last == PROXY_PROTOCOL_INCOMPLETE || r == last);
                switch (r) {
                case 0:
                        check_header(&h, data);
                        check(n >= h.length && (last == 0 || n == h.length));
                        break;
                case PROXY_PROTOCOL_INCOMPLETE:
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
