/* SPDX-License-Identifier: MIT */
/* Children that are born in a control group, with clone3() and where a filter takes that away. */

#include "spawn.h"

#include "../cgroup.h"

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>

#define NOBODY 65534

static char group[512];
static int group_fd = -EBADF;

static int setup(void **state) {
        char name[64];

        snprintf(name, sizeof(name), "test-spawn-cgroup-%d", getpid());
        if (test_cgroup_make(name, group))
                group_fd = open(group, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        return setup_event(state);
}

static int teardown(void **state) {
        if (group_fd >= 0) {
                group_fd = safe_close(group_fd);
                test_cgroup_remove(group);
        }
        return teardown_event(state);
}

/* As systemd's RestrictNamespaces= and containers do it: clone3() is not there. */
static int take_clone3_away(void) {
        struct sock_filter filter[] = {
                BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
                BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_clone3, 0, 1),
                BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOSYS),
                BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
        };
        const struct sock_fprog program = { .len = ELEMENTSOF(filter), .filter = filter };

        if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
                return -1;
        return prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program, 0, 0);
}

static int spawn_result(int cgroup_fd, const char *program) {
        muster_spawn_options o = MUSTER_SPAWN_OPTIONS_INIT;
        muster_child *child;

        o.program = program;
        o.flags = MUSTER_SPAWN_SET_CGROUP;
        o.cgroup_fd = cgroup_fd;
        int r = muster_spawn(NULL, &o, NULL, NULL, &child);
        if (r == 0) {
                (void) waitpid(muster_child_get_pid(child), NULL, 0);
                muster_child_unref(child);
        }
        return r;
}

/* The group that a child of @o finds itself in is ours. */
static int check_born_in_group(muster_spawn_options o) {
        char text[4096];
        muster_child *child;
        int p[2], status;
        size_t used = 0;
        ssize_t n;

        CHECK(pipe2(p, O_CLOEXEC) == 0);
        o.stdio = (const muster_stdio[]){ { .kind = MUSTER_STDIO_IGNORE },
                { .kind = MUSTER_STDIO_FD, .fd = p[1] } };
        o.n_stdio = 2;
        CHECK(muster_spawn(NULL, &o, NULL, NULL, &child) == 0);
        close(p[1]);
        while ((n = read(p[0], text + used, sizeof(text) - 1 - used)) > 0)
                used += (size_t) n;
        text[used] = '\0';
        close(p[0]);
        CHECK(waitpid(muster_child_get_pid(child), &status, 0) > 0 && status == 0);
        muster_child_unref(child);
        const char *line = strstr(text, "0::/");
        CHECK(line);
        text[line - text + (ssize_t) strcspn(line, "\n")] = '\0';
        const char *name = strrchr(line, '/');
        CHECK(strcmp(name, strrchr(group, '/')) == 0);
        return 0;
}

/* With the memory shared or copied, the descriptor in the way of others or not: the child is there, its
 * parent where it was, and what goes wrong in the child is told. */
static int spawn_in_group(void) {
        muster_spawn_options o = options_shell("cat /proc/$$/cgroup");
        _cleanup_free_ char *before = test_cgroup_own(), *after = NULL;
        int r;

        o.flags |= MUSTER_SPAWN_SET_CGROUP;
        o.cgroup_fd = group_fd;
        r = check_born_in_group(o);
        if (r)
                return r;
        CHECK(dup3(group_fd, 0, O_CLOEXEC) == 0); /* 0 is meant where the flag says so */
        o.cgroup_fd = 0;
        r = check_born_in_group(o);
        if (r)
                return r;
        if (getuid() == 0) {
                o.flags |= MUSTER_SPAWN_SET_UID | MUSTER_SPAWN_SET_GID;
                o.uid = o.gid = NOBODY;
                r = check_born_in_group(o);
                if (r)
                        return r;
        }
        CHECK(spawn_result(group_fd, "/nonexistent") == -ENOENT);
        CHECK(spawn_result(group_fd, "/") == -EACCES);
        CHECK(!has_children());
        after = test_cgroup_own();
        CHECK(before && after && strcmp(before, after) == 0);
        return 0;
}

static void test_born_in_group(void **state) {
        if (group_fd < 0)
                skip();
        in_own_process(spawn_in_group);
}

static int spawn_without_clone3(void) {
        CHECK(take_clone3_away() == 0);
        CHECK(syscall(SYS_clone3, NULL, 0) < 0 && errno == ENOSYS);
        return spawn_in_group();
}

/* Also where clone3() cannot be had. */
static void test_without_clone3(void **state) {
        if (group_fd < 0)
                skip();
        in_own_process(spawn_without_clone3);
}

/* What is no group is refused, nothing is started elsewhere instead, and nobody is left to be reaped. */
static int spawn_nowhere(void) {
        muster_spawn_options o = MUSTER_SPAWN_OPTIONS_INIT;
        muster_child *child = NULL;
        int null = open("/dev/null", O_RDONLY | O_CLOEXEC);

        CHECK(spawn_result(-1, "/bin/true") == -EBADF);
        CHECK(spawn_result(AT_FDCWD, "/bin/true") == -EBADF);
        CHECK(spawn_result(3000, "/bin/true") == -EBADF);
        CHECK(spawn_result(null, "/bin/true") == -EBADF);
        /* a caller from before the member was there; a 0 is not taken for what it meant */
        CHECK(group_fd < 0 || dup3(group_fd, 0, O_CLOEXEC) == 0);
        o.size = offsetof(muster_spawn_options, cgroup_fd);
        o.program = "/bin/true";
        o.flags = MUSTER_SPAWN_SET_CGROUP;
        CHECK(muster_spawn(NULL, &o, NULL, NULL, &child) == -EBADF);
        CHECK(!child && !has_children());
        return 0;
}

static int spawn_nowhere_without_clone3(void) {
        CHECK(take_clone3_away() == 0);
        return spawn_nowhere();
}

static void test_no_group(void **state) {
        in_own_process(spawn_nowhere);
        in_own_process(spawn_nowhere_without_clone3);
        int elsewhere = open("/tmp", O_PATH | O_CLOEXEC);
        assert_int_equal(spawn_result(elsewhere, "/bin/true"), -EBADF);
        close(elsewhere);
}

/* A group that was removed while its directory is open. */
static int spawn_in_removed(void) {
        char path[600];

        snprintf(path, sizeof(path), "%s/gone", group);
        CHECK(mkdir(path, 0755) == 0);
        int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        CHECK(fd >= 0 && rmdir(path) == 0);
        int r = spawn_result(fd, "/bin/true");
        CHECK(r == -ENOENT || r == -ENODEV);
        CHECK(!has_children());
        return 0;
}

static int spawn_in_removed_without_clone3(void) {
        CHECK(take_clone3_away() == 0);
        return spawn_in_removed();
}

static void test_removed_group(void **state) {
        if (group_fd < 0)
                skip();
        in_own_process(spawn_in_removed);
        in_own_process(spawn_in_removed_without_clone3);
}

/* Beside a threaded group there is no place for a process. */
static int spawn_in_invalid(void) {
        CHECK(mkdirat(group_fd, "threaded", 0755) == 0 && mkdirat(group_fd, "invalid", 0755) == 0);
        int type = openat(group_fd, "threaded/cgroup.type", O_WRONLY | O_CLOEXEC);
        CHECK(type >= 0 && write(type, "threaded", 8) == 8);
        int fd = openat(group_fd, "invalid", O_PATH | O_DIRECTORY | O_CLOEXEC);
        int r = spawn_result(fd, "/bin/true");
        CHECK(unlinkat(group_fd, "threaded", AT_REMOVEDIR) == 0);
        CHECK(unlinkat(group_fd, "invalid", AT_REMOVEDIR) == 0);
        CHECK(r == -EOPNOTSUPP);
        CHECK(!has_children());
        return 0;
}

static int spawn_in_invalid_without_clone3(void) {
        CHECK(take_clone3_away() == 0);
        return spawn_in_invalid();
}

static void test_invalid_group(void **state) {
        if (group_fd < 0)
                skip();
        in_own_process(spawn_in_invalid);
        in_own_process(spawn_in_invalid_without_clone3);
}

/* A group that is somebody else's. */
static int spawn_in_foreign(void) {
        CHECK(syscall(SYS_setresuid, NOBODY, NOBODY, NOBODY) == 0);
        CHECK(spawn_result(group_fd, "/bin/true") == -EACCES);
        CHECK(!has_children());
        return 0;
}

static int spawn_in_foreign_without_clone3(void) {
        CHECK(take_clone3_away() == 0);
        return spawn_in_foreign();
}

static void test_foreign_group(void **state) {
        if (group_fd < 0 || getuid() != 0)
                skip();
        in_own_process(spawn_in_foreign);
        in_own_process(spawn_in_foreign_without_clone3);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_born_in_group),
                cmocka_unit_test(test_without_clone3),
                cmocka_unit_test(test_no_group),
                cmocka_unit_test(test_removed_group),
                cmocka_unit_test(test_invalid_group),
                cmocka_unit_test(test_foreign_group),
        };

        return cmocka_run_group_tests(tests, setup, teardown);
}
