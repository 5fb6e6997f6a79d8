/* SPDX-License-Identifier: MIT */
#pragma once

/* What a living process uses, as /proc tells. The pid must not have been reaped. */

#include <stdint.h>
#include <sys/types.h>

/* Whose child it is. Returns 0 or a negative errno; -ESRCH: there is no such process. */
int usage_parent(pid_t pid, pid_t *ret);

/* Resident memory (RSS). Returns 0 or a negative errno; -ESRCH: it has ended. */
int usage_memory(pid_t pid, uint64_t *ret_bytes);

/* CPU time, of itself and of its children that it has waited for. As above. */
int usage_cpu(pid_t pid, uint64_t *ret_usec);
