/* SPDX-License-Identifier: MIT */
#pragma once

/* From the caller's options to the start of the program: its arguments, its environment, and whatever else
 * launch() wants to be told. */

#include <sys/types.h>

#include "lib/child-stdio.h"
#include "muster/process.h"

/* A copy of @options with the defaults in place of what their caller does not know; checked as far as that
 * goes without a start. Returns 0 or the negative errno that muster_spawn() documents. */
int spawn_copy_options(const muster_spawn_options *options, muster_spawn_options *ret);

/* Starts the program with the descriptors of @stdio. Returns 0 or a negative errno; then nobody is left to
 * be reaped. */
int spawn_program(const muster_spawn_options *options, const Stdio *stdio, pid_t *ret_pid, int *ret_pidfd);
