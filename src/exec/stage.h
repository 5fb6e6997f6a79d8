/* SPDX-License-Identifier: MIT */
#pragma once

/* What a child does for itself between the master's fork and its own work, so that the master's fork stays
 * bare.
 *
 * muster-exec enters the stage and executes a foreign program after it. The native worker, whose source is
 * ours, enters the same stage at its start instead: that saves one execve() on the way to the first answer.
 */

/**
 * Makes this process what its master promised.
 *
 * Under journald, stdout and stderr become a journal stream of this process's own, with @identifier, and
 * $JOURNAL_STREAM is set to match (systemd.exec(5)); elsewhere they stay as they are. LISTEN_PID is set to
 * this pid when LISTEN_FDS is there (sd_listen_fds(3)), WATCHDOG_PID when WATCHDOG_USEC is
 * (sd_watchdog_enabled(3)). The limit of descriptors is again what the master was started with.
 *
 * Returns 0 or a negative errno; -EOPNOTSUPP and a journal that cannot be reached are no errors: the
 * inherited streams stay.
 */
int stage_enter(const char *identifier);
