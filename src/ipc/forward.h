/* SPDX-License-Identifier: MIT */
#pragma once

/* What a worker has to say to others, by whoever is their parent:
 *   {"cmd":"MUSTER","act":"broadcast","data":VALUE}: VALUE, as it stands, to all others
 *   {"cmd":"MUSTER","act":"send","worker":N,"data":VALUE}: to those in the slot N
 *   {"cmd":"MUSTER","act":"publish",…}: the whole message, to all others that are made with muster; the
 *   embedded store of muster/state.h speaks in this way
 * No input, no output: text in, meaning out. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "ipc/json.h"

/* The longest message on a worker's channel, and how much memory what others say may take while it waits for
 * a worker that does not read. */
#define FORWARD_MESSAGE_MAX (256 * 1024)
#define FORWARD_QUEUE_MAX   (512 * 1024)

typedef enum ForwardAct {
        FORWARD_NONE, /* it is not for others */
        FORWARD_BROADCAST,
        FORWARD_SEND,
        FORWARD_PUBLISH,
} ForwardAct;

typedef struct Forward {
        ForwardAct act;
        unsigned slot;       /* for FORWARD_SEND */
        JsonSpan message;    /* what they are to get */
        const char *refused; /* why they are not to get it; NULL: they are */
} Forward;

/* Whether it is for others, with its meaning. @json is one JSON value. */
bool forward_parse(const char *json, size_t n, Forward *ret);

/* What goes before and after a VALUE. */
#define FORWARD_HEAD_MAX 64
size_t forward_write_head(ForwardAct act, unsigned slot, char buf[static FORWARD_HEAD_MAX]);
#define FORWARD_TAIL "}"

/* The longest VALUE: with what goes around it, it is to fit on the channel. */
#define FORWARD_VALUE_MAX (FORWARD_MESSAGE_MAX - 1024)

/* Whether the application may say that: everything but what a worker would take for Node's own words or
 * ours, in whatever spelling, and whichever it takes if there are several. @json is one JSON value. */
bool forward_is_for_application(const char *json, size_t n);

/* How much may be said in a second is an account. */
#define FORWARD_INTERVAL_USEC UINT64_C(1000000)

typedef struct ForwardAccount {
        uint64_t since_usec;
        uint64_t bytes;
} ForwardAccount;

/* Returns 0, or when it is overdrawn how long to wait until it is empty again. */
uint64_t forward_account_add(ForwardAccount *a, uint64_t now_usec, uint64_t bytes, uint64_t max);
