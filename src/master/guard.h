/* SPDX-License-Identifier: MIT */
#pragma once

/* Who ends the workers of a master that was killed, where no service manager does.
 *
 * A worker hears of its master's end by SIGTERM and by its channel. One that hangs, is stopped or ignores
 * both hears nothing, and what a worker has started was never told. Under systemd the unit's control group
 * is killed as a whole (KillMode=mixed). In a terminal, or as a classic daemon, there is nobody: hence this
 * process, which sleeps until the master is gone, and then ends what is left. */

#include <sys/types.h>

/* Starts the guard of this process, with all of its workers that were or will be started. It needs no
 * attention and goes by itself after this process. Returns its pid or a negative errno. */
pid_t guard_start(void);
