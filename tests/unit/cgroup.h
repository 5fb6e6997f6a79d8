/* SPDX-License-Identifier: MIT */
#pragma once

/* Control groups for tests: throw-away ones of cgroup v2, below the group that the test runs in, if this
 * machine lets us. */

#include "unit.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
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

static inline int test_cgroup_remove_one(
                const char *path, const struct stat *st, int type, struct FTW *where) {
        if (type == FTW_DP)
                (void) rmdir(path);
        return 0;
}

/* Removes it with all below, also after a failed test, which leaves processes there; the kernel may need a
 * moment to see that they are gone. */
static inline void test_cgroup_remove(const char *path) {
        char file[600], text[256];

        snprintf(file, sizeof(file), "%s/cgroup.kill", path);
        _cleanup_close_ int kill_fd = open(file, O_WRONLY | O_CLOEXEC);
        (void) !write(kill_fd, "1", 1);
        snprintf(file, sizeof(file), "%s/cgroup.events", path);
        for (int i = 0; i < 200 && access(path, F_OK) == 0; i++) {
                _cleanup_close_ int fd = open(file, O_RDONLY | O_CLOEXEC);

                (void) !read(fd, text, sizeof(text));
                (void) nftw(path, test_cgroup_remove_one, 8, FTW_DEPTH | FTW_PHYS);
                (void) poll(&(struct pollfd){ .fd = fd, .events = POLLPRI }, 1, 100);
        }
        assert_int_equal(access(path, F_OK), -1);
}
