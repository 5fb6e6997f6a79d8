/* SPDX-License-Identifier: MIT */
#pragma once

/* Sockets that the master binds itself. */

#include <stdbool.h>

#include "master/address.h"

typedef struct BindOptions {
        int type;           /* SOCK_STREAM, which is made to listen, or SOCK_DGRAM */
        int backlog;        /* 0: as long as the kernel allows */
        bool ipv6_only;     /* IPv6: not for IPv4 too, whatever the system's default; */
        bool dual_stack;    /* ... or certainly for both */
        bool reuse_address; /* SOCK_DGRAM: others may be bound to the same */
} BindOptions;

/* Binds. The file of a unix socket that nobody answers behind is a leftover, and removed. Returns 0 with a
 * descriptor that does not block and has O_CLOEXEC, or a negative errno. */
int bind_address(const Address *a, const BindOptions *options, int *ret_fd);
