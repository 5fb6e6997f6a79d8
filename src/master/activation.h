/* SPDX-License-Identifier: MIT */
#pragma once

/* The sockets that systemd passed, by the protocol of sd_listen_fds_with_names(3): LISTEN_PID, LISTEN_FDS,
 * LISTEN_FDNAMES.
 *
 * These three variables are read here and not by libsystemd because the first worker is started with what
 * they say, while libsystemd is loaded afterwards (basic/libsystemd-lazy.c says what that is worth). */

#include "basic/macro.h"

#define ACTIVATION_FIRST_FD 3
#define ACTIVATION_MAX      512
#define ACTIVATION_NAME_MAX 255

/* Returns how many sockets were passed to this very process, from descriptor 3 up; 0 when none were.
 * @ret_names gets as many names, "unknown" for all when none were given, and a NULL; to be freed by
 * activation_names_free(). -E2BIG: more than ACTIVATION_MAX. -EINVAL: LISTEN_PID or LISTEN_FDS is no number,
 * or there are more or fewer names than sockets. The variables are removed from the environment in every
 * case. */
int activation_sockets(char ***ret_names);

void activation_names_free(char **names);
DEFINE_CLEANUP(char *, activation_names_free)
