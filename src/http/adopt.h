/* SPDX-License-Identifier: MIT */
#pragma once

/* Connections of a process that has died, with the same descriptors and the same table in this one: what
 * each of them has come to, and how it goes on.
 *
 * First every one that cannot be left as it is gets its working state from its commit and the kernel's
 * counters; when that is done for all of them it is known which buffers and files are still needed. The
 * server comes after that, as a handler may be called at once. This process, too, may die at any point. */

#include <stdint.h>

#include "http/connection.h"

/* Of one that is open, and either touched or not idle. @blame: RECORD_BLAME_… if it was being dealt with
 * when the process died, else 0. Sets the bits of the descriptors in @needed that it still needs. A negative
 * errno: nobody can go on with it, and the client is to see a reset. */
int adopt_restore(Table *t, int fd, unsigned blame, uint64_t *needed);

/* Of all records below @n_records those that are neither free nor idle and untouched have been restored:
 * what they do not need is spare. -ENOMEM. */
int adopt_buffers(Table *t, unsigned n_records);

/* Takes over an idle connection that nobody had touched. No system call. */
void adopt_idle(Server *server, int fd, Connection **ret);

/* Takes over one that was restored, and touches it; connection_ready() finds out what there is to do. It
 * gets descriptors of its own for the files that it needs: those whose bits are set in @needed, which are
 * cleared, or copies. In the end the caller closes those of which the bits are still set. A negative errno:
 * as adopt_restore(). */
int adopt_resume(Server *server, int fd, uint64_t *needed, Connection **ret);
