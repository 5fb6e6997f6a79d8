/* SPDX-License-Identifier: MIT */
#pragma once

/* A name with two addresses, for the driver that is loaded as well: at 127.0.0.2, which comes first, nobody
 * answers, and at 127.0.0.1 there is the server. */

#define TWO_ADDRESSES "two-addresses.invalid"

/* The one who does not answer. Returns the descriptor. */
int silence_start(unsigned port);
