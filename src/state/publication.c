/* SPDX-License-Identifier: MIT */
/* Messages of the embedded store: lines of the channel, which the master hands to all other workers. They
 * name the store by its directory, as a process may have several. Bytes are written as hexadecimal digits.
 */

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ipc/json.h"
#include "state/bus.h"
#include "state/store.h"

static uint64_t n_deliveries;

static const char head[] = "{\"cmd\":\"MUSTER\",\"act\":\"publish\"";

static char *append_hex(char *p, const char *name, StateBytes b) {
        static const char digits[] = "0123456789abcdef";

        p += sprintf(p, ",\"%s\":\"", name);
        for (const unsigned char *c = b.data, *end = c + b.size; c < end; c++) {
                *p++ = digits[*c >> 4];
                *p++ = digits[*c & 15];
        }
        *p++ = '"';
        return p;
}

static StateBytes scope_of(const muster_state *s) {
        return (StateBytes){ s->url->path, strlen(s->url->path) };
}

static bool has_scope(const muster_state *s, StateBytes scope) {
        StateBytes own;

        if (strcmp(s->url->driver, "lmdb") != 0)
                return false;
        own = scope_of(s);
        return own.size == scope.size && memcmp(own.data, scope.data, own.size) == 0;
}

static int digit_value(char c) {
        return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* The bytes of a string of digits, at most @max of them. */
static bool read_hex(JsonSpan value, unsigned char *buf, size_t max, StateBytes *ret) {
        size_t n = value.n >= 2 ? (value.n - 2) / 2 : 0;
        const char *p = value.p + 1;

        if (!value.p || *value.p != '"' || value.n != 2 * n + 2 || n > max)
                return false;
        for (size_t i = 0; i < n; i++, p += 2) {
                int high = digit_value(p[0]), low = digit_value(p[1]);

                if (high < 0 || low < 0)
                        return false;
                buf[i] = (unsigned char) (high << 4 | low);
        }
        *ret = (StateBytes){ buf, n };
        return true;
}

#define SCOPE_MAX 4096

/* To every handle on that store. A handler may close any of them: those that are left are gone through anew.
 */
static void deliver(StateBytes scope, StateBytes channel, StateBytes data) {
        uint64_t delivery = ++n_deliveries;

again:
        list_foreach (node, store_all()) {
                muster_state *s = list_entry(node, muster_state, siblings);

                if (s->delivery == delivery || !has_scope(s, scope))
                        continue;
                s->delivery = delivery;
                subscription_message(s, channel, data);
                goto again;
        }
}

int publication_send(StateStore *s, StateBytes channel, StateBytes data) {
        StateBytes scope = scope_of(s);
        _cleanup_free_ char *line = malloc(sizeof(head) + 2 * (scope.size + channel.size + data.size) + 64);
        char *p;
        int r;

        if (!line)
                return -ENOMEM;
        p = stpcpy(line, head);
        p = append_hex(p, "state", scope);
        p = append_hex(p, "channel", channel);
        p = append_hex(p, "data", data);
        *p++ = '}';
        r = state_bus_send(line, (size_t) (p - line));
        if (r < 0)
                return r;
        /* Its driver is at it: a handler of another handle that closes this one must not free it. */
        store_enter(s);
        deliver(scope, channel, data);
        store_leave(s);
        return 0;
}

/* Whatever makes no sense comes from a worker gone mad, and is dropped. */
static void on_line(const char *json, size_t n) {
        enum { SCOPE, CHANNEL, DATA };
        JsonMember m[] = {
                [SCOPE] = { .name = "state" }, [CHANNEL] = { .name = "channel" }, [DATA] = { .name = "data" }
        };
        unsigned char scope_bytes[SCOPE_MAX], channel_bytes[MUSTER_STATE_KEY_MAX],
                        data_bytes[MUSTER_STATE_MESSAGE_MAX];
        StateBytes scope, channel, data;

        if (json_scan(json, n, m, ELEMENTSOF(m)) < 0 ||
                        !read_hex(m[SCOPE].value, scope_bytes, sizeof(scope_bytes), &scope) ||
                        !read_hex(m[CHANNEL].value, channel_bytes, sizeof(channel_bytes), &channel) ||
                        !read_hex(m[DATA].value, data_bytes, sizeof(data_bytes), &data))
                return;
        deliver(scope, channel, data);
}

void publication_listen(void) {
        static bool listens;

        if (!listens)
                state_bus_listen(on_line);
        listens = true;
}
