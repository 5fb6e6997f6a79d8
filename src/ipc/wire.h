/* SPDX-License-Identifier: MIT */
#pragma once

/* The lines of a channel, as Node's child_process.fork() writes them with the serialization "json": one JSON
 * value a line. An object whose "cmd" begins with NODE_ is internal; NODE_HANDLE is the envelope of a
 * message with a descriptor, which is acknowledged with NODE_HANDLE_ACK, or NODE_HANDLE_NACK when it did not
 * arrive. No input, no output: text in, meaning out. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "ipc/json.h"

typedef enum WireKind {
        WIRE_MESSAGE, /* plain; `message` is the whole line */
        WIRE_HANDLE,  /* an envelope; `message` is what it carries */
        WIRE_ACK,
        WIRE_NACK,
} WireKind;

typedef struct WireLine {
        WireKind kind;
        JsonSpan message;
        bool internal;   /* the message is Node's own: its "cmd" begins with NODE_ */
        int handle_type; /* MUSTER_HANDLE_… of muster/channel.h; NONE without an envelope */
} WireLine;

/* Returns 0 or -EBADMSG: not one JSON value. */
int wire_parse(const char *line, size_t n, WireLine *ret);

/* What goes before and after a message in an envelope. */
typedef struct WireEnvelope {
        const char *head;
        const char *tail;
} WireEnvelope;

/* No envelope is longer, head and tail together. */
#define WIRE_ENVELOPE_MAX 96

/* @type is one of MUSTER_HANDLE_NET_… and DGRAM_…; @ipv6 matters for DGRAM_SOCKET. */
WireEnvelope wire_envelope(int type, bool ipv6);

#define WIRE_ACK_LINE  "{\"cmd\":\"NODE_HANDLE_ACK\"}\n"
#define WIRE_NACK_LINE "{\"cmd\":\"NODE_HANDLE_NACK\"}\n"
