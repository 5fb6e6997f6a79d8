/* SPDX-License-Identifier: MIT */
#pragma once

/* What waits on a channel, by the memory that it takes: for a parent whose children fill each other's. */

#include <stdbool.h>
#include <stddef.h>

#include "muster/channel.h"

/* Whether a message of @n bytes may wait behind what waits, when all of that is to take at most @max bytes,
 * counted with what it takes to keep it: of a short message that is the most. While nothing waits one always
 * may. */
bool channel_has_room(const muster_channel *c, size_t n, size_t max);
