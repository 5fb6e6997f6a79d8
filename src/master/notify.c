/* SPDX-License-Identifier: MIT */
/* Messages to systemd; see notify.h. A message that cannot be sent is not worth an error: systemd's own
 * time-outs decide. */

#include "master/notify.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <systemd/sd-daemon.h>

#include "basic/log.h"
#include "basic/macro.h"
#include "basic/text.h"

#define NOTIFY_TEXT_MAX 1024

static void (*ready_handler)(void);

bool notify_enabled(void) {
        return getenv("NOTIFY_SOCKET");
}

uint64_t notify_watchdog_interval_usec(void) {
        uint64_t usec;

        return sd_watchdog_enabled(/* unset_environment= */ false, &usec) > 0 ? usec / 2 : 0;
}

static void notify(const char *text) {
        int r = sd_notify(/* unset_environment= */ false, text);
        if (r < 0)
                log_debug_errno(r, "Failed to notify systemd: %m");
}

void notify_alive(void) {
        if (notify_watchdog_interval_usec() > 0)
                notify("WATCHDOG=1");
}

void notify_status(const char *state, const char *format, ...) {
        char text[NOTIFY_TEXT_MAX];
        va_list ap;

        int n = snprintf(text, sizeof(text), "%s%sSTATUS=", state, *state ? "\n" : "");
        va_start(ap, format);
        vsnprintf(text + n, sizeof(text) - (size_t) n, format, ap);
        va_end(ap);
        /* A line break would begin another assignment, and one byte that is not UTF-8 lets systemd refuse
         * it. */
        text_make_printable(text + n);
        notify(text);

        if (ready_handler && strcmp(state, "READY=1") == 0)
                TAKE_PTR(ready_handler)();
}

void notify_on_ready(void (*handler)(void)) {
        ready_handler = handler;
}

void notify_extend_timeout(uint64_t usec) {
        char text[64];

        snprintf(text, sizeof(text), "EXTEND_TIMEOUT_USEC=%" PRIu64, usec);
        notify(text);
}
