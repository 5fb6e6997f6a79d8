/* SPDX-License-Identifier: MIT */
#pragma once

/* How many connections are open on listening sockets, whoever accepted them: the kernel is asked
 * (sock_diag(7)), which needs no privilege. For workers that do not count for themselves. */

#include <stdint.h>

#include "master/listener.h"

/* Counts the connections of all sockets of @l that a client can still expect an answer on: accepted or
 * waiting, also when one of the two sides has said that it sends no more. Those that only the kernel still
 * has to deal with are none. Where a socket of somebody else has the same address and port, its connections
 * may be counted too. Not seen is, of unix sockets alone, a connection that waits to be accepted (poll(2)
 * tells of it) and one that comes from another network namespace.
 *
 * Returns 0, or a negative errno: -EAGAIN: not this time, there is too much coming and going; -ENONET: the
 * sockets are of another network namespace than this process (PrivateNetwork=), which so sees nothing;
 * -EOPNOTSUPP: nothing is known of such sockets, or this kernel does not tell; -E2BIG: the list is too long;
 * others, if it must not be asked or a descriptor is lacking. */
int connection_count(const Listeners *l, uint64_t *ret);
