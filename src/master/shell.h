/* SPDX-License-Identifier: MIT */
#pragma once

/* A shell around a program hides its sockets from it: LISTEN_PID (sd_listen_fds(3)) names the shell. */

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

/* Whether the program of that path or name is a shell. */
bool shell_is_name(const char *path);

/* Whether the process is a shell that has started another process; its path then, cut to @size. */
bool shell_is_in_front(pid_t pid, char *buf, size_t size);
