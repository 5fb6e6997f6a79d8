/* SPDX-License-Identifier: MIT */
#pragma once

/* What a module and those of other workers say to each other, by the channel to the master, which passes it
 * on: the functions of muster/http.h for that. A worker without a module has nothing to say, and reads its
 * channel by master-link.h alone. */

#include <stdbool.h>
#include <stdint.h>

#include "twin/area.h"

/* From here on this process, which fills the slot @worker, sends and reads by the channel, which epoll
 * watches or will watch with messages_events(); all is borrowed. @fd: -EBADF if there is none. @area: NULL
 * if nobody takes over. */
void messages_init(unsigned worker, int fd, int epoll_fd, Area *area);

/* Nothing is sent any more, and what waits is dropped. */
void messages_done(void);

/* Whether messages_init() was called, and the channel is there. */
bool messages_are_on(void);

/* What epoll has to watch for. */
uint32_t messages_events(void);

/* Deals with what epoll saw: sends what waits, reads once, and calls the handlers. False: the master is
 * gone, and the channel of no use any more. */
bool messages_ready(uint32_t events);
