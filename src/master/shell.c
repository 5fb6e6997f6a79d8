/* SPDX-License-Identifier: MIT */
/* Shells; see shell.h. */

#include "master/shell.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "basic/fd.h"
#include "basic/macro.h"

bool shell_is_name(const char *path) {
        static const char *const names[] = { "ash", "bash", "busybox", "dash", "ksh", "mksh", "sh", "zsh" };
        const char *base = strrchr(path, '/') ? strrchr(path, '/') + 1 : path;

        for (size_t i = 0; i < ELEMENTSOF(names); i++)
                if (strcmp(base, names[i]) == 0)
                        return true;
        return false;
}

bool shell_is_in_front(pid_t pid, char *buf, size_t size) {
        _cleanup_free_ char *children = NULL;
        char path[64];
        ssize_t n;

        snprintf(path, sizeof(path), "/proc/%d/exe", pid);
        n = readlink(path, buf, size - 1);
        if (n < 0)
                return false;
        buf[n] = '\0';
        if (!shell_is_name(buf))
                return false;
        snprintf(path, sizeof(path), "/proc/%d/task/%d/children", pid, pid); /* proc(5) */
        return read_small_file(AT_FDCWD, path, 4096, &children) < 0 || *children;
}
