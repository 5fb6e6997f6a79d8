/* SPDX-License-Identifier: MIT */
#pragma once

/* The addresses of a host's name, without blocking the loop: getaddrinfo() in a thread of its own, which is
 * there only as long as that takes. A numeric address needs none.
 *
 * Not getaddrinfo_a(): glibc unblocks all signals in the thread that tells of the end, which then takes a
 * SIGTERM that the program has blocked for its signalfd, and the program dies of it. */

#include <stdbool.h>

#include "basic/macro.h"

#define RESOLVE_MAX 8 /* addresses that are worth an attempt */

typedef struct Resolve Resolve;

/* Begins. Returns 0 or a negative errno. */
int resolve_new(const char *host, Resolve **ret);

/* Readable when it has ended. */
int resolve_get_fd(const Resolve *r);

/* When it has ended: numeric addresses, with commas between them, to be freed by the caller. The list is
 * turned by @n places, so that who increments it after an attempt that nobody answered begins with the next
 * one. Returns 0; a negative errno; or an EAI_… number in @ret_gai, with -EHOSTUNREACH. */
int resolve_take(Resolve *r, unsigned n, char **ret_addresses, int *ret_gai);

/* Whether getaddrinfo() takes it without asking anybody. */
bool resolve_is_numeric(const char *host);

/* May be called at any time. Always returns NULL. */
Resolve *resolve_free(Resolve *r);
DEFINE_CLEANUP(Resolve, resolve_free)
