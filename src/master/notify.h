/* SPDX-License-Identifier: MIT */
#pragma once

/* What the master tells systemd, by sd_notify(3). Without $NOTIFY_SOCKET all of it does nothing. */

#include <stdbool.h>
#include <stdint.h>

#include "basic/macro.h"

/* Whether anybody listens. */
bool notify_enabled(void);

/* Half of systemd's watchdog time, at which to call notify_alive(); 0: no watchdog is set. */
uint64_t notify_watchdog_interval_usec(void);

/* WATCHDOG=1 */
void notify_alive(void);

/* Sends `state` lines with STATUS= and the text appended. */
void notify_status(const char *state, const char *format, ...) _printf_(2, 3);

/* Calls @handler once, when READY=1 is sent for the first time, whether or not anybody listens. */
void notify_on_ready(void (*handler)(void));

/* EXTEND_TIMEOUT_USEC=: what is going on now may take this much longer. */
void notify_extend_timeout(uint64_t usec);
