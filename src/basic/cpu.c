/* SPDX-License-Identifier: MIT */
/* The number of CPUs for this service; see cpu.h. What cannot be read counts as "no limit": a container
 * without cgroups is no error. */

#include "basic/cpu.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>

#include "basic/fd.h"
#include "basic/macro.h"

#define CGROUP_ROOT "/sys/fs/cgroup"

unsigned cpu_count_affinity(void) {
        /* The kernel refuses a mask smaller than its own, which may have any number of CPUs. */
        for (int cpus = 1024; cpus <= 1 << 16; cpus *= 2) {
                size_t size = CPU_ALLOC_SIZE(cpus);
                _cleanup_free_ cpu_set_t *set = malloc(size);
                if (!set)
                        return 1;

                if (sched_getaffinity(0, size, set) == 0)
                        return (unsigned) MAX(CPU_COUNT_S(size, set), 1);
                if (errno != EINVAL)
                        return 1;
        }
        return 1;
}

static unsigned quota_of(int root_fd, const char *cgroup) {
        _cleanup_free_ char *text = NULL;
        char path[PATH_MAX];
        uint64_t quota, period;

        if (snprintf(path, sizeof(path), "%s/cpu.max", *cgroup ? cgroup : ".") >= (int) sizeof(path))
                return 0;
        if (read_small_file(root_fd, path, 256, &text) < 0)
                return 0;
        if (sscanf(text, "%" SCNu64 " %" SCNu64, &quota, &period) != 2 || quota == 0 || period == 0)
                return 0; /* "max 100000" */

        uint64_t cpus = quota / period + (quota % period != 0);
        return (unsigned) MIN(cpus, UINT_MAX);
}

unsigned cpu_count_quota(const char *root, const char *cgroup) {
        _cleanup_close_ int root_fd = open(root, O_PATH | O_DIRECTORY | O_CLOEXEC);
        char path[PATH_MAX];
        unsigned least = 0;

        if (root_fd < 0)
                return 0;
        while (*cgroup == '/')
                cgroup++;
        if (snprintf(path, sizeof(path), "%s", cgroup) >= (int) sizeof(path))
                return 0;

        for (;;) {
                unsigned n = quota_of(root_fd, path);
                if (n > 0 && (least == 0 || n < least))
                        least = n;
                if (!*path)
                        return least;

                char *slash = strrchr(path, '/');
                *(slash ? slash : path) = '\0';
        }
}

int cgroup_path_from_text(const char *text, char **ret) {
        for (const char *line = text; line; line = strchr(line, '\n') ? strchr(line, '\n') + 1 : NULL) {
                if (strncmp(line, "0::/", 4) != 0)
                        continue;

                char *path = strndup(line + 3, strcspn(line + 3, "\n"));
                if (!path)
                        return -ENOMEM;
                *ret = path;
                return 0;
        }
        return -ENOENT;
}

unsigned cpu_count(void) {
        _cleanup_free_ char *text = NULL, *cgroup = NULL;
        unsigned cpus = cpu_count_affinity(), quota = 0;

        if (read_small_file(AT_FDCWD, "/proc/self/cgroup", 64 * 1024, &text) >= 0 &&
                        cgroup_path_from_text(text, &cgroup) >= 0)
                quota = cpu_count_quota(CGROUP_ROOT, cgroup);
        return quota > 0 ? MIN(cpus, quota) : cpus;
}
