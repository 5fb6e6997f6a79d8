/* SPDX-License-Identifier: MIT */
#pragma once

/* The worker's end of its channel to the master (MUSTER_CHANNEL_FD).
 *
 * The master writes a line to a worker that is silent, and sees by the board whether it woke up. What the
 * lines say does not matter here: a worker of this kind takes no messages yet. The channel's end says that
 * the master is gone, and says so earlier than the signal of a parent's death can be believed. */

#include <stdbool.h>
#include <stdint.h>

#define MASTER_LINK_ENV_FD "MUSTER_CHANNEL_FD"

/* Takes the descriptor that the environment names, and the variable out of it. -ENXIO: there is none;
 * -EINVAL: the variable is malformed; -EBADF, -ENOTSOCK: it names no socket. The descriptor is made
 * non-blocking and gets FD_CLOEXEC. */
int master_link_from_environment(int *ret_fd);

/* What epoll has to watch for. */
uint32_t master_link_events(void);

/* Deals with what epoll saw: reads some of what is there, at most once, and drops it. False: the master is
 * gone; the descriptor is of no use any more. */
bool master_link_is_alive(int fd, uint32_t events);
