/* SPDX-License-Identifier: MIT */
#pragma once

/* From the descriptors that a caller asks for (muster_stdio) to those that the child starts with, and to the
 * parent's ends of pipes and channel. */

#include <errno.h>
#include <stddef.h>
#include <sys/types.h>

#include "muster/process.h"

/* One descriptor of the child. */
typedef struct StdioPlace {
        int kind;
        int child;     /* becomes this descriptor; negative: closed */
        int owned;     /* `child` when it was opened here, and is closed after the start */
        int parent;    /* our end of a pipe or a channel */
        int direction; /* StreamDirection of our end */
} StdioPlace;

typedef struct Stdio {
        StdioPlace *places;
        size_t n;
        size_t ipc;        /* the place of the channel; n: none */
        int null_fd;       /* for all MUSTER_STDIO_IGNORE; negative: none */
        dev_t journal_dev; /* of the journal stream, for JOURNAL_STREAM */
        ino_t journal_ino; /* 0: none */
} Stdio;

#define STDIO_INIT ((Stdio){ .null_fd = -EBADF })

/* Opens what is needed. @with_channel adds one behind all others. Returns 0 or a negative errno: -EINVAL for
 * an unknown kind or two channels, -EBADF for a descriptor that is not open. */
int stdio_open(Stdio *s, const muster_spawn_options *options, int with_channel);

/* Closes what is open, but for the parent's ends that were taken (set to a negative number). */
void stdio_done(Stdio *s);
