/* SPDX-License-Identifier: MIT */
#pragma once

/* The event source of one descriptor, which is watched for what is wanted at the moment. One that wants
 * nothing is switched off: epoll tells of a hang-up without being asked, again and again. */

#include <stdint.h>
#include <systemd/sd-event.h>

typedef struct IoWatch {
        sd_event_source *source; /* NULL: none was needed yet */
        uint32_t events;         /* EPOLL…; 0: off */
} IoWatch;

/* Watches @fd on @event for @events. The handler is that of the first call. Returns 0 or a negative errno.
 */
int io_watch_set(IoWatch *w, sd_event *event, int fd, uint32_t events, sd_event_io_handler_t handler,
                void *userdata);

void io_watch_done(IoWatch *w);
