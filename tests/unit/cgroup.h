/* SPDX-License-Identifier: MIT */
#pragma once

/* Control groups for tests: throw-away ones of cgroup v2, below the group that the test runs in, if this
 * machine lets us. */

#include "unit.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "basic/cpu.h"
#include "basic/fd.h"
#include "basic/macro.h"

/* The path of this process's group below the mount point. */
static inline char *test_cgroup_own(void) {
        _cleanup_free_ char *text = NULL;
        char *path;

        if (read_small_file(AT_FDCWD, "/proc/self/cgroup", 64 * 1024, &text) < 0 ||
                        cgroup_path_from_text(text, &path) < 0)
                return NULL;
        return path;
}

/* Where cgroup v2 is mounted, alone or beside version 1. */
static inline const char *test_cgroup_mount(void) {
        static const char *const places[] = { "/sys/fs/cgroup", "/sys/fs/cgroup/unified" };
        struct statfs s;

        for (size_t i = 0; i < ELEMENTSOF(places); i++)
                if (statfs(places[i], &s) == 0 && s.f_type == CGROUP2_SUPER_MAGIC)
                        return places[i];
        return NULL;
}

/* Makes an empty group of that name. Prints why it cannot, and returns false. */
static inline bool test_cgroup_make(const char *name, char path[static 512]) {
        _cleanup_free_ char *own = test_cgroup_own();
        const char *mount = test_cgroup_mount();

        if (!own || !mount) {
                print_message("skipped: cgroup v2 is not mounted here\n");
                return false;
        }
        snprintf(path, 512, "%s%s/%s", mount, strcmp(own, "/") == 0 ? "" : own, name);
        if (mkdir(path, 0755) == 0)
                return true;
        print_message("skipped: cannot make %s: %m\n", path);
        return false;
}

/* Removes it; what was in it has ended, which the kernel may be about to notice. */
static inline void test_cgroup_remove(const char *path) {
        char events[600];

        snprintf(events, sizeof(events), "%s/cgroup.events", path);
        for (int i = 0; i < 200 && rmdir(path) < 0 && errno == EBUSY; i++) {
                _cleanup_close_ int fd = open(events, O_RDONLY | O_CLOEXEC);
                char text[256];

                (void) read(fd, text, sizeof(text));
                (void) poll(&(struct pollfd){ .fd = fd, .events = POLLPRI }, 1, 100);
        }
        assert_int_equal(access(path, F_OK), -1);
}
