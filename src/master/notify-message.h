/* SPDX-License-Identifier: MIT */
#pragma once

/* What a worker says by sd_notify(3), one datagram of it: lines of NAME=VALUE. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define NOTIFY_STATUS_MAX  160
#define NOTIFY_IGNORED_MAX 48

typedef struct NotifyMessage {
        /* One of the three at most. Where there are several, the last one in the message counts. */
        bool ready, reloading, stopping;

        bool watchdog;         /* WATCHDOG=1: it lives */
        bool watchdog_trigger; /* WATCHDOG=trigger: it asks to be treated as one that hangs */
        bool barrier;          /* then there is nothing else; closing the descriptor is the answer */

        bool has_status;                /* with an empty text: it takes its status back */
        char status[NOTIFY_STATUS_MAX]; /* printable, cut where a character ends */

        int error;                    /* ERRNO=; 0: none */
        uint64_t extend_timeout_usec; /* 0: none; nothing bounds it above */

        /* Lines whose name is known here and whose value makes no sense, and the first one: printable, cut.
         */
        unsigned n_ignored;
        char ignored[NOTIFY_IGNORED_MAX];
} NotifyMessage;

/* Reads the @n bytes at @text. Unknown names are ignored, and so are those that mean nothing to this service
 * manager (MAINPID=, FDSTORE=1, WATCHDOG_USEC= …). Of a name that comes twice the first counts. Returns 0,
 * or -EBADMSG with @ret untouched: not UTF-8, or a NUL byte elsewhere than at the very end. */
int notify_message_parse(const char *text, size_t n, NotifyMessage *ret);
