/* SPDX-License-Identifier: MIT */
#pragma once

/* The two calls of sd-journal that muster's programs use, with libsystemd loaded when the first of them is
 * made.
 *
 * A native worker logs next to nothing, and linking libsystemd costs every process seven libraries: half a
 * millisecond before the first byte of the first answer, and some 150 KiB of private memory. In programs
 * that are linked with libsystemd anyway this finds the copy that is there. */

#include <stdbool.h>
#include <sys/uio.h>

/* Whether stderr is a stream of the journal, by the test of systemd.exec(5), $JOURNAL_STREAM. */
bool journal_on_stderr(void);

/* sd_journal_sendv(3). -EOPNOTSUPP when libsystemd is not there. */
int journal_sendv(const struct iovec *iov, int n);

/* sd_journal_stream_fd(3). -EOPNOTSUPP when libsystemd is not there. */
int journal_stream_fd(const char *identifier, int priority, int level_prefix);
