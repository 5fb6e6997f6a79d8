/* SPDX-License-Identifier: MIT */
#pragma once

/* What else a worker's loop waits for: the module's sd-event loop, made when it asks for it, and descriptors
 * of the worker's own, behind one descriptor that the outer loop watches (level-triggered, for EPOLLIN).
 *
 * The outer loop calls event_prepare() before it waits, without any time if something is pending, and
 * event_dispatch() after every wait. */

#include <stdbool.h>
#include <systemd/sd-event.h>

/* There is nothing to wait for before this is called, and the other functions do nothing. */
int event_init(void);
void event_done(void);

/* -EBADF: there is nothing to wait for. */
int event_fd(void);

/* Calls @handler whenever @fd is readable. One such descriptor. */
int event_add(int fd, void (*handler)(void));

/* The module's loop, NULL when it cannot be made. */
sd_event *event_get(void);

/* Module code has run since the last wait: it may have changed what its loop waits for. */
void event_touch(void);

/* Whether something is pending. */
bool event_prepare(void);

/* @readable: the descriptor is. -ESTALE: the module has ended its loop. */
int event_dispatch(bool readable);
