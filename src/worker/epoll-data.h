/* SPDX-License-Identifier: MIT */
#pragma once

/* What epoll keeps for the outer loop with each descriptor, and gives back with its events: what is meant,
 * and its number, which is a connection's descriptor or a listener's index. Nothing of it means anything to
 * this process alone. */

#include <stdint.h>
#include <sys/epoll.h>

typedef enum EventKind {
        EVENT_CONNECTION,
        EVENT_LISTENER,
        EVENT_SIGNAL,
        EVENT_CHANNEL,
        EVENT_INBOX, /* of the slot */
        EVENT_INNER, /* what a module waits for */
} EventKind;

static inline uint64_t event_data(EventKind kind, unsigned number) {
        return (uint64_t) kind << 32 | number;
}

static inline EventKind event_kind(const struct epoll_event *ev) {
        return (EventKind) (ev->data.u64 >> 32);
}

static inline unsigned event_number(const struct epoll_event *ev) {
        return (unsigned) ev->data.u64;
}
