/* SPDX-License-Identifier: MIT */
/* The lines of a channel; see wire.h. */

#include "ipc/wire.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "basic/macro.h"
#include "muster/channel.h"

#define TYPE_HEAD(type, more) "{\"cmd\":\"NODE_HANDLE\",\"type\":\"" type "\"," more "\"msg\":"

static const struct {
        const char *name;
        const char *head;
} handle_types[] = {
        [MUSTER_HANDLE_NET_SERVER] = { "net.Server", TYPE_HEAD("net.Server", "") },
        [MUSTER_HANDLE_NET_SOCKET] = { "net.Socket", TYPE_HEAD("net.Socket", "") },
        [MUSTER_HANDLE_NET_NATIVE] = { "net.Native", TYPE_HEAD("net.Native", "") },
        [MUSTER_HANDLE_DGRAM_SOCKET] = { "dgram.Socket",
                        TYPE_HEAD("dgram.Socket", "\"dgramType\":\"udp4\",") },
        [MUSTER_HANDLE_DGRAM_NATIVE] = { "dgram.Native", TYPE_HEAD("dgram.Native", "") },
};

WireEnvelope wire_envelope(int type, bool ipv6) {
        assert(type >= MUSTER_HANDLE_NET_SERVER && type <= MUSTER_HANDLE_DGRAM_NATIVE);

        if (type == MUSTER_HANDLE_DGRAM_SOCKET && ipv6)
                return (WireEnvelope){ TYPE_HEAD("dgram.Socket", "\"dgramType\":\"udp6\","), "}" };
        return (WireEnvelope){ handle_types[type].head, "}" };
}

static int handle_type_from_span(JsonSpan type) {
        for (size_t i = MUSTER_HANDLE_NET_SERVER; i < ELEMENTSOF(handle_types); i++)
                if (json_span_is(type, handle_types[i].name))
                        return (int) i;
        return MUSTER_HANDLE_OTHER;
}

/* As in Node: a string that begins with NODE_ and is longer. */
static bool is_internal(JsonSpan cmd) {
        static const char prefix[] = "\"NODE_";

        return cmd.p && cmd.n > sizeof(prefix) && memcmp(cmd.p, prefix, sizeof(prefix) - 1) == 0;
}

static int parse_envelope(JsonSpan type, JsonSpan message, WireLine *ret) {
        static const char nothing[] = "null";
        JsonMember cmd = { .name = "cmd" };
        int r;

        if (!message.p) /* a message that is undefined in the sender's JavaScript */
                message = (JsonSpan){ nothing, strlen(nothing) };
        r = json_scan(message.p, message.n, &cmd, 1);
        if (r < 0)
                return r;
        *ret = (WireLine){
                .kind = WIRE_HANDLE,
                .message = message,
                .internal = is_internal(cmd.value),
                .handle_type = handle_type_from_span(type),
        };
        return 0;
}

int wire_parse(const char *line, size_t n, WireLine *ret) {
        enum { CMD, TYPE, MSG };
        JsonMember members[] = {
                [CMD] = { .name = "cmd" }, [TYPE] = { .name = "type" }, [MSG] = { .name = "msg" }
        };
        WireKind kind = WIRE_MESSAGE;
        int r;

        r = json_scan(line, n, members, ELEMENTSOF(members));
        if (r < 0 && (json_scan_frame(line, n, members, ELEMENTSOF(members)) < 0 ||
                                     !json_span_is(members[CMD].value, "NODE_HANDLE")))
                return r; /* and not an envelope around what is as deep as it may be */
        if (json_span_is(members[CMD].value, "NODE_HANDLE"))
                return parse_envelope(members[TYPE].value, members[MSG].value, ret);

        if (json_span_is(members[CMD].value, "NODE_HANDLE_ACK"))
                kind = WIRE_ACK;
        else if (json_span_is(members[CMD].value, "NODE_HANDLE_NACK"))
                kind = WIRE_NACK;
        *ret = (WireLine){
                .kind = kind,
                .message = { line, n },
                .internal = is_internal(members[CMD].value),
                .handle_type = MUSTER_HANDLE_NONE,
        };
        return 0;
}
