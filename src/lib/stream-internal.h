/* SPDX-License-Identifier: MIT */
#pragma once

/* What a child knows of its streams beyond muster/stream.h. */

#include <stdbool.h>
#include <systemd/sd-event.h>

#include "muster/stream.h"

typedef enum StreamDirection {
        STREAM_READ = 1 << 0,
        STREAM_WRITE = 1 << 1,
} StreamDirection;

/* Called once, when neither direction is left. Not always from the loop. */
typedef void (*stream_closed_handler_t)(muster_stream *stream, void *userdata);

/* @fd is the stream's from success on, and does not block already. Returns 0 or -ENOMEM. */
int stream_new(int fd, StreamDirection direction, stream_closed_handler_t on_closed, void *userdata,
                muster_stream **ret);

/* Puts it on a loop. Returns 0 or a negative errno. */
int stream_attach(muster_stream *stream, sd_event *event);

/* Nobody is at the other end any more but perhaps those who inherited it: nothing can be written, and what
 * nobody wants to read is thrown away until the end. */
void stream_peer_exited(muster_stream *stream);

/* The child is gone for its parent: on_closed is not called any more. */
void stream_orphan(muster_stream *stream);

bool stream_is_closed(const muster_stream *stream);
