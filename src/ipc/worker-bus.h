/* SPDX-License-Identifier: MIT */
#pragma once

/* What muster-worker gives libmuster when a module has that loaded into it: the way to the other workers,
 * since the channel is the worker's own. No part of the public interface, and in no public header: the two
 * come from one source. libmuster refers to both as weak symbols, which only muster-worker defines. */

#include <stddef.h>

/* As state_bus_send() and state_bus_listen() of state/bus.h. */
__attribute__((visibility("default"))) int muster_worker_bus_send(const char *line, size_t n);
__attribute__((visibility("default"))) void muster_worker_bus_listen(
                void (*handler)(const char *json, size_t n));
