/* SPDX-License-Identifier: MIT */
/* /proc/PID/statm and /proc/PID/stat; see usage.h and proc(5). */

#include "master/usage.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "basic/clock.h"
#include "basic/fd.h"
#include "basic/macro.h"

static int read_proc(pid_t pid, const char *file, char **ret) {
        char path[64];
        int r;

        snprintf(path, sizeof(path), "/proc/%d/%s", pid, file);
        r = read_small_file(AT_FDCWD, path, 4096, ret);
        return r == -ENOENT ? -ESRCH : r;
}

int usage_memory(pid_t pid, uint64_t *ret_bytes) {
        _cleanup_free_ char *text = NULL;
        uint64_t pages;
        int r;

        r = read_proc(pid, "statm", &text);
        if (r < 0)
                return r;
        if (sscanf(text, "%*u %" SCNu64, &pages) != 1)
                return -EBADMSG;
        *ret_bytes = pages * (uint64_t) sysconf(_SC_PAGESIZE);
        return 0;
}

/* The name, in parentheses, may have both blanks and parentheses in it. */
static const char *after_name(const char *stat) {
        const char *p = strrchr(stat, ')');

        return p ? p : "";
}

int usage_parent(pid_t pid, pid_t *ret) {
        _cleanup_free_ char *text = NULL;
        int r;

        r = read_proc(pid, "stat", &text);
        if (r < 0)
                return r;
        return sscanf(after_name(text), ") %*c %d", ret) == 1 ? 0 : -EBADMSG;
}

int usage_cpu(pid_t pid, uint64_t *ret_usec) {
        _cleanup_free_ char *text = NULL;
        uint64_t t[4];
        int r;

        r = read_proc(pid, "stat", &text);
        if (r < 0)
                return r;
        if (sscanf(after_name(text),
                            ") %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %" SCNu64 " %" SCNu64 " %" SCNu64
                            " %" SCNu64,
                            t, t + 1, t + 2, t + 3) != 4)
                return -EBADMSG;
        *ret_usec = (t[0] + t[1] + t[2] + t[3]) * USEC_PER_SEC / (uint64_t) sysconf(_SC_CLK_TCK);
        return 0;
}
