/* SPDX-License-Identifier: MIT */
#pragma once

/* What the rest of the library knows of a child beyond muster/process.h. */

#include <stdbool.h>

#include "muster/process.h"

/* Sends the kill signal of its options to it, or to its group, and SIGKILL some seconds later: what the time
 * limit does. */
void child_terminate(muster_child *child);

/* Who is told of the time limit, after the kill signal was sent; with the exit handler's userdata. */
void child_set_timeout_handler(muster_child *child, void (*handler)(void *userdata));

/* muster_spawn() and muster_fork(). */
int child_spawn(sd_event *event, const muster_spawn_options *options, bool with_channel,
                muster_child_exit_handler_t handler, void *userdata, muster_child **ret);

/* Kills and reaps it at once, without a word to anybody: nobody is to hear of it, or ever would. */
void child_give_up(muster_child *child);
