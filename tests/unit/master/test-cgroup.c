/* SPDX-License-Identifier: MIT */
/* Control groups of workers: on this machine's cgroup v2 below a throw-away group, where one can be made;
 * what comes from the memory controller also from a folder that looks like it, as containers rarely have
 * one. */

#include "../cgroup.h"

#include <dirent.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <time.h>

#include "basic/clock.h"
#include "master/cgroup.h"

#define NOBODY        65534
#define PATIENCE_USEC (20 * USEC_PER_SEC)
#define MIB           (UINT64_C(1) << 20)

/* For functions in a process of its own, where cmocka's assertions have nowhere to jump to. */
#define CHECK(condition)                 \
        do                               \
                if (!(condition))        \
                        return __LINE__; \
        while (0)

static char root[512]; /* empty: there is no cgroup v2 for us */
static char folder[] = "/tmp/test-cgroup-XXXXXX";

static int setup(void **state) {
        char name[64];

        /* What a test leaves in its group has to come to us. */
        if (prctl(PR_SET_CHILD_SUBREAPER, 1) < 0)
                return -1;
        snprintf(name, sizeof(name), "test-cgroup-%d", getpid());
        if (!test_cgroup_make(name, root))
                root[0] = '\0';
        return mkdtemp(folder) ? 0 : -1;
}

static int teardown(void **state) {
        char command[64];

        if (*root)
                test_cgroup_remove(root);
        snprintf(command, sizeof(command), "rm -rf '%s'", folder);
        return system(command); /* NOLINT: a fixed prefix below /tmp */
}

/*
 * Processes
 */

static int write_text(const char *path, const char *text) {
        _cleanup_close_ int fd = open(path, O_WRONLY | O_CLOEXEC);

        return fd >= 0 && write(fd, text, strlen(text)) == (ssize_t) strlen(text) ? 0 : -1;
}

static int join_at(int dir_fd) {
        _cleanup_close_ int fd = openat(dir_fd, "cgroup.procs", O_WRONLY | O_CLOEXEC);

        return fd >= 0 && write(fd, "0", 1) == 1 ? 0 : -1;
}

static int join(const char *path) {
        _cleanup_close_ int fd = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);

        return join_at(fd);
}

/* A process in the group, which lives until it is killed. */
static pid_t start_in(int dir_fd) {
        int ready[2];
        char byte;

        assert_int_equal(pipe2(ready, O_CLOEXEC), 0);
        pid_t pid = fork();
        assert_true(pid >= 0);
        if (pid == 0) {
                (void) prctl(PR_SET_PDEATHSIG, SIGKILL);
                if (join_at(dir_fd) < 0 || write(ready[1], "", 1) != 1)
                        _exit(1);
                close(ready[1]);
                for (;;)
                        pause();
        }
        close(ready[1]);
        assert_int_equal(read(ready[0], &byte, 1), 1);
        close(ready[0]);
        return pid;
}

static void assert_killed(pid_t pid) {
        siginfo_t si;

        assert_int_equal(waitid(P_PID, (id_t) pid, &si, WEXITED), 0);
        assert_int_equal(si.si_code, CLD_KILLED);
        assert_int_equal(si.si_status, SIGKILL);
}

static bool is_alive(pid_t pid) {
        siginfo_t si = { .si_pid = 0 };

        return waitid(P_PID, (id_t) pid, &si, WEXITED | WNOHANG | WNOWAIT) == 0 && si.si_pid == 0;
}

static void end(pid_t pid) {
        assert_int_equal(kill(pid, SIGKILL), 0);
        assert_killed(pid);
}

/* Runs @f in a process that joins @path first. It returns 0 or the line that failed. */
static void in_own_process(const char *path, int (*f)(void)) {
        int status;
        pid_t pid = fork();

        assert_true(pid >= 0);
        if (pid == 0) {
                int line = join(path) < 0 ? __LINE__ : f();
                if (line)
                        fprintf(stderr, "line %d failed, errno %d: %m\n", line, errno);
                _exit(line ? 1 : 0);
        }
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_int_equal(status, 0);
}

/* A path in the group or folder @base. */
static const char *path_in(const char *base, const char *name) {
        static char path[1024];

        snprintf(path, sizeof(path), "%s/%s", base, name);
        return path;
}

static bool exists(const char *name) {
        return access(path_in(root, name), F_OK) == 0;
}

static Cgroups *new_at(const char *base) {
        Cgroups *c;

        assert_int_equal(cgroups_new_at(base, &c), 0);
        return c;
}

static Cgroup *new_group(Cgroups *c, unsigned slot) {
        Cgroup *g;

        assert_int_equal(cgroup_new(c, slot, &g), 0);
        return g;
}

/* The kernel may need a moment to see a group empty: waits for it. */
static void wait_until_empty(const char *name) {
        char path[600], text[256];

        snprintf(path, sizeof(path), "%s/%s/cgroup.events", root, name);
        _cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC);
        assert_true(fd >= 0);
        for (;;) {
                ssize_t n = pread(fd, text, sizeof(text) - 1, 0);
                assert_true(n > 0);
                text[n] = '\0';
                if (strstr(text, "populated 0"))
                        return;
                struct pollfd p = { .fd = fd, .events = POLLPRI };
                assert_int_equal(poll(&p, 1, PATIENCE_USEC / 1000), 1);
        }
}

/*
 * Groups
 */

/* A group for each worker, named by slot and number; a name that is taken is passed over. All of them go. */
static void test_new_and_free(void **state) {
        if (!*root)
                skip();
        assert_int_equal(mkdir(path_in(root, "worker-7.2"), 0755), 0);
        Cgroups *c = new_at(root);
        Cgroup *a = new_group(c, 7), *b = new_group(c, 7);
        assert_true(exists("worker-7.1"));
        assert_true(exists("worker-7.3"));
        assert_int_equal(fcntl(cgroup_fd(a), F_GETFD), FD_CLOEXEC);
        pid_t pid = start_in(cgroup_fd(b));
        end(pid);
        wait_until_empty("worker-7.3");
        assert_null(cgroup_free(a));
        assert_false(exists("worker-7.1"));
        assert_null(cgroup_free(b));
        assert_false(exists("worker-7.3"));
        assert_null(cgroups_free(c));
        assert_int_equal(rmdir(path_in(root, "worker-7.2")), 0);
        assert_null(cgroup_free(NULL));
        assert_null(cgroups_free(NULL));
}

/* What is not empty when it is freed goes later, by itself as soon as it can. */
static void test_free_while_busy(void **state) {
        if (!*root)
                skip();
        Cgroups *c = new_at(root);
        Cgroup *a = new_group(c, 1), *b = new_group(c, 2);
        pid_t in_a = start_in(cgroup_fd(a)), in_b = start_in(cgroup_fd(b));
        cgroup_free(a);
        cgroup_free(b);
        cgroups_tidy(c);
        assert_true(exists("worker-1.1") && exists("worker-2.2"));
        end(in_a);
        wait_until_empty("worker-1.1");
        cgroups_tidy(c);
        assert_true(!exists("worker-1.1") && exists("worker-2.2"));
        end(in_b);
        wait_until_empty("worker-2.2");
        cgroups_free(c);
        assert_false(exists("worker-2.2"));
}

/* Groups that the worker made below its own are no obstacle. */
static void test_free_with_groups_below(void **state) {
        if (!*root)
                skip();
        Cgroups *c = new_at(root);
        Cgroup *g = new_group(c, 1);
        assert_int_equal(mkdirat(cgroup_fd(g), "a", 0755), 0);
        assert_int_equal(mkdirat(cgroup_fd(g), "a/b", 0755), 0);
        assert_int_equal(mkdirat(cgroup_fd(g), "c", 0755), 0);
        cgroup_free(g);
        assert_false(exists("worker-1.1"));
        cgroups_free(c);
}

/* All in the group and below dies, another group's process does not. */
static void test_kill(void **state) {
        if (!*root)
                skip();
        Cgroups *c = new_at(root);
        Cgroup *g = new_group(c, 1), *other = new_group(c, 2);
        pid_t pids[3], outside = start_in(cgroup_fd(other));

        assert_int_equal(mkdirat(cgroup_fd(g), "below", 0755), 0);
        _cleanup_close_ int below = openat(cgroup_fd(g), "below", O_PATH | O_DIRECTORY | O_CLOEXEC);
        pids[0] = start_in(cgroup_fd(g));
        pids[1] = start_in(cgroup_fd(g));
        pids[2] = start_in(below);
        assert_int_equal(cgroup_kill(g), 0);
        for (size_t i = 0; i < ELEMENTSOF(pids); i++)
                assert_killed(pids[i]);
        wait_until_empty("worker-1.1");
        assert_true(is_alive(outside));
        assert_int_equal(cgroup_kill(g), 0); /* nobody is there */
        end(outside);
        wait_until_empty("worker-2.2");
        cgroup_free(g);
        cgroup_free(other);
        cgroups_free(c);
}

static int settle(void) {
        _cleanup_(cgroups_freep) Cgroups *c = NULL;
        _cleanup_free_ char *own = NULL, *again = NULL, *controllers = NULL;
        _cleanup_(cgroup_freep) Cgroup *g = NULL;
        uint64_t bytes;

        CHECK(cgroups_new_at(root, &c) == 0);
        CHECK(cgroup_new(c, 1, &g) == 0);
        int r = cgroups_settle(c);
        CHECK(r >= 0);
        own = test_cgroup_own();
        CHECK(own && strcmp(strrchr(own, '/'), "/supervisor") == 0);
        CHECK(cgroups_settle(c) == r);
        again = test_cgroup_own();
        CHECK(again && strcmp(again, own) == 0);

        CHECK(read_small_file(AT_FDCWD, path_in(root, "cgroup.controllers"), 4096, &controllers) == 0);
        CHECK(r == !!strstr(controllers, "memory"));
        CHECK(cgroup_get_memory(g, &bytes) == (r ? 0 : -EOPNOTSUPP));
        return 0;
}

/* A process that runs already is moved, and ends with the group then. */
static void test_add(void **state) {
        if (!*root)
                skip();
        Cgroups *c = new_at(root);
        Cgroup *g = new_group(c, 1), *other = new_group(c, 2);
        pid_t pid = start_in(cgroup_fd(other));

        assert_int_equal(cgroup_add(g, pid), 0);
        assert_int_equal(cgroup_kill(other), 0);
        assert_true(is_alive(pid));
        assert_int_equal(cgroup_kill(g), 0);
        assert_killed(pid);
        assert_int_equal(cgroup_add(g, pid), -ESRCH);
        wait_until_empty("worker-1.1");
        cgroup_free(g);
        cgroup_free(other);
        cgroups_free(c);
}

/* Without a filter it depends on the kernel alone: since 5.7. */
static void test_birth(void **state) {
        assert_true(cgroups_can_give_birth());
}

static void clean_up_supervisor(void) {
        wait_until_empty("supervisor");
        (void) write_text(path_in(root, "cgroup.subtree_control"), "-memory");
        (void) write_text(path_in(root, "cgroup.subtree_control"), "-pids");
        assert_int_equal(rmdir(path_in(root, "supervisor")), 0);
}

/* The master and all beside it move to a group of their own, once; then the workers' have the memory
 * controller, if there is one. */
static void test_settle(void **state) {
        char text[32];

        if (!*root)
                skip();
        _cleanup_close_ int root_fd = open(root, O_PATH | O_DIRECTORY | O_CLOEXEC);
        pid_t sibling = start_in(root_fd);
        in_own_process(root, settle);

        _cleanup_free_ char *left = NULL, *moved = NULL;
        assert_int_equal(read_small_file(root_fd, "cgroup.procs", 4096, &left), 0);
        assert_string_equal(left, "");
        assert_int_equal(read_small_file(root_fd, "supervisor/cgroup.procs", 4096, &moved), 0);
        snprintf(text, sizeof(text), "%d\n", sibling);
        assert_string_equal(moved, text);
        end(sibling);
        clean_up_supervisor();
}

/* As a keeper that was born in the root: moves its child to a group of its own, once it has been left alone
 * with it there. */
static int keep(pid_t child) {
        _cleanup_close_ int root_fd = open(root, O_PATH | O_DIRECTORY | O_CLOEXEC);
        char expected[32], text[32];

        snprintf(expected, sizeof(expected), "%d\n", child);
        for (;;) {
                _cleanup_free_ char *left = NULL;
                CHECK(read_small_file(root_fd, "cgroup.procs", 4096, &left) == 0);
                CHECK(strstr(left, expected)); /* else somebody has taken it away */
                if (strcmp(left, expected) == 0)
                        break;
        }
        snprintf(text, sizeof(text), "%d", child);
        CHECK(write_text(path_in(root, "worker-1.1/cgroup.procs"), text) == 0);
        return 0;
}

/* Its child is there when this returns. */
static pid_t start_keeper(void) {
        int ready[2];
        char byte;

        if (pipe2(ready, O_CLOEXEC) < 0)
                return -1;
        pid_t pid = fork();
        if (pid == 0) {
                pid_t child = fork();
                if (child == 0)
                        for (;;)
                                pause();
                int line = child < 0 || write(ready[1], "", 1) != 1 ? __LINE__ : keep(child);
                if (line)
                        fprintf(stderr, "line %d failed, errno %d: %m\n", line, errno);
                if (child > 0)
                        (void) kill(child, SIGKILL);
                _exit(line || waitpid(child, NULL, 0) != child ? 1 : 0);
        }
        close(ready[1]);
        (void) !read(ready[0], &byte, 1);
        close(ready[0]);
        return pid;
}

static int settle_with_keeper(void) {
        _cleanup_(cgroups_freep) Cgroups *c = NULL;
        _cleanup_(cgroup_freep) Cgroup *g = NULL;
        int status;

        CHECK(cgroups_new_at(root, &c) == 0);
        CHECK(cgroup_new(c, 1, &g) == 0);
        pid_t keeper = start_keeper();
        CHECK(keeper > 0);
        CHECK(cgroups_settle(c) >= 0);
        CHECK(waitpid(keeper, &status, 0) == keeper);
        CHECK(status == 0);
        return 0;
}

/* A worker's keeper moves its children itself, so they are left to it. */
static void test_settle_with_keeper(void **state) {
        if (!*root)
                skip();
        in_own_process(root, settle_with_keeper);
        clean_up_supervisor();
}

static int find_nothing(void) {
        Cgroups *c = NULL;

        CHECK(cgroups_new(&c) == -EOPNOTSUPP && !c);
        return 0;
}

static int find_nothing_as_nobody(void) {
        CHECK(syscall(SYS_setresuid, NOBODY, NOBODY, NOBODY) == 0);
        return find_nothing();
}

static int find_root(void) {
        _cleanup_(cgroups_freep) Cgroups *c = NULL;
        _cleanup_(cgroup_freep) Cgroup *g = NULL;

        CHECK(cgroups_new(&c) == 0);
        CHECK(cgroup_new(c, 1, &g) == 0);
        CHECK(exists("worker-1.1"));
        return 0;
}

/* As systemd gives it to a User=. */
static int find_root_as_nobody(void) {
        CHECK(syscall(SYS_setresuid, NOBODY, NOBODY, NOBODY) == 0);
        return find_root();
}

/* A group is ours when systemd has marked it and it can be written; the mark is that of the group above when
 * ours is the supervisor's. That we can write it, as root can everywhere, is not enough. */
static void test_delegation(void **state) {
        if (!*root)
                skip();
        in_own_process(root, find_nothing);
        if (setxattr(root, "user.delegate", "1", 1, 0) < 0) {
                print_message("skipped: no attributes on cgroups here: %m\n");
                skip();
        }
        in_own_process(root, find_root);
        assert_int_equal(mkdir(path_in(root, "supervisor"), 0755), 0);
        assert_int_equal(mkdir(path_in(root, "other"), 0755), 0);
        in_own_process(path_in(root, "supervisor"), find_root);
        in_own_process(path_in(root, "other"), find_nothing);
        if (getuid() == 0) {
                in_own_process(root, find_nothing_as_nobody);
                assert_int_equal(chown(root, NOBODY, NOBODY), 0);
                in_own_process(root, find_nothing_as_nobody);
                assert_int_equal(chown(path_in(root, "cgroup.procs"), NOBODY, NOBODY), 0);
                in_own_process(root, find_root_as_nobody);
                assert_int_equal(chown(path_in(root, "cgroup.procs"), 0, 0), 0);
                assert_int_equal(chown(root, 0, 0), 0);
        }
        assert_int_equal(setxattr(root, "user.delegate", "0", 1, 0), 0);
        in_own_process(root, find_nothing);
        assert_int_equal(removexattr(root, "user.delegate"), 0);
        wait_until_empty("supervisor");
        wait_until_empty("other");
        assert_int_equal(rmdir(path_in(root, "supervisor")), 0);
        assert_int_equal(rmdir(path_in(root, "other")), 0);
}

/*
 * Watching
 */

static sd_event *event;
static int n_changes;

static void on_change(void *userdata) {
        Cgroup **drop = userdata;

        n_changes++;
        if (drop)
                *drop = cgroup_free(*drop);
}

static int setup_event(void **state) {
        n_changes = 0;
        return sd_event_new(&event);
}

static int teardown_event(void **state) {
        event = sd_event_unref(event);
        return 0;
}

static void run_until_change(void) {
        while (n_changes == 0)
                assert_true(sd_event_run(event, PATIENCE_USEC) > 0);
}

/* A change is told once, and the loop sleeps again. */
static void test_watch(void **state) {
        if (!*root)
                skip();
        Cgroups *c = new_at(root);
        Cgroup *g = new_group(c, 1);
        assert_int_equal(cgroup_watch_file(g, "nothing", event, on_change, NULL), -ENOENT);
        assert_int_equal(cgroup_watch_file(g, "cgroup.events", event, on_change, NULL), 0);
        assert_int_equal(cgroup_watch_file(g, "cgroup.events", event, on_change, NULL), -EBUSY);
        assert_int_equal(sd_event_run(event, 0), 0);

        pid_t pid = start_in(cgroup_fd(g));
        run_until_change();
        assert_int_equal(n_changes, 1);
        while (sd_event_run(event, 0) > 0)
                ;
        assert_int_equal(n_changes, 1);
        n_changes = 0;
        end(pid);
        run_until_change();
        wait_until_empty("worker-1.1");
        cgroup_free(g);
        cgroups_free(c);
}

/* The handler may free what it is told of. */
static void test_watch_free_in_handler(void **state) {
        if (!*root)
                skip();
        Cgroups *c = new_at(root);
        Cgroup *g = new_group(c, 1);
        pid_t pid = start_in(cgroup_fd(g));
        assert_int_equal(cgroup_watch_file(g, "cgroup.events", event, on_change, &g), 0);
        end(pid);
        run_until_change();
        assert_null(g);
        cgroups_free(c);
        assert_false(exists("worker-1.1"));
}

/* A storm of changes costs a few calls, and its end is not missed. */
static void test_watch_storm(void **state) {
        if (!*root)
                skip();
        Cgroups *c = new_at(root);
        Cgroup *g = new_group(c, 1);
        uint64_t begin = clock_now_usec();

        assert_int_equal(cgroup_watch_file(g, "cgroup.events", event, on_change, NULL), 0);
        while (clock_now_usec() < begin + 300 * USEC_PER_MSEC) { /* the kernel tells every 10 ms */
                pid_t pid = start_in(cgroup_fd(g));
                (void) sd_event_run(event, 0);
                end(pid);
                (void) sd_event_run(event, 0);
        }
        assert_in_range(n_changes, 1, 5 * (1 + (clock_now_usec() - begin) / USEC_PER_SEC));
        n_changes = 0;
        pid_t last = start_in(cgroup_fd(g));
        run_until_change();
        end(last);
        wait_until_empty("worker-1.1");
        cgroup_free(g);
        cgroups_free(c);
}

/* A group that somebody else removed keeps nobody awake. */
static void test_watch_removed(void **state) {
        int turns = 0;

        if (!*root)
                skip();
        Cgroups *c = new_at(root);
        Cgroup *g = new_group(c, 1);
        assert_int_equal(cgroup_watch_file(g, "cgroup.events", event, on_change, NULL), 0);
        end(start_in(cgroup_fd(g))); /* there is something to tell, and nobody any more whom it is of */
        wait_until_empty("worker-1.1");
        assert_int_equal(rmdir(path_in(root, "worker-1.1")), 0);
        while (turns < 10 && sd_event_run(event, 0) > 0)
                turns++;
        assert_int_equal(turns, 1);
        assert_int_equal(n_changes, 0);
        cgroup_free(g);
        cgroups_free(c);
}

/*
 * Memory
 */

/* A group that is a folder with plain files. */
static Cgroup *new_in_folder(Cgroups **ret) {
        *ret = new_at(folder);
        return new_group(*ret, 1);
}

static void put(Cgroup *g, const char *name, const char *text) {
        _cleanup_close_ int fd = openat(cgroup_fd(g), name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

        assert_int_equal(write(fd, text, strlen(text)), strlen(text));
}

static void assert_text(Cgroup *g, const char *name, const char *expected) {
        _cleanup_free_ char *text = NULL;

        assert_int_equal(read_small_file(cgroup_fd(g), name, 4096, &text), 0);
        assert_string_equal(text, expected);
}

/* Numbers are those of the right lines; page cache is not among them. */
static void test_memory_numbers(void **state) {
        uint64_t n = 0;
        Cgroups *c;
        Cgroup *g = new_in_folder(&c);

        put(g, "memory.stat",
                        "anon_thp 7\nanon 1000\nfile 400000\nkernel 5000\nkernel_stack 1\npagetables 2\n"
                        "sec_pagetables 9\npercpu 4\nsock 300\nvmalloc 10\nshmem 8000\nfile_mapped 70000\n"
                        "shmem_thp 8\nslab_reclaimable 90000\nslab_unreclaimable 40\nslab 90040\n");
        assert_int_equal(cgroup_get_memory(g, &n), 0);
        assert_int_equal(n, 9357);
        put(g, "memory.stat", "anon 1000\nfile 400000\nshmem 20\n");
        assert_int_equal(cgroup_get_memory(g, &n), 0);
        assert_int_equal(n, 1020);
        put(g, "memory.swap.current", "500000000000\n");
        assert_int_equal(cgroup_get_memory(g, &n), 0);
        assert_int_equal(n, UINT64_C(500000001020));
        put(g, "memory.peak", "4096\n");
        assert_int_equal(cgroup_get_peak(g, &n), 0);
        assert_int_equal(n, 4096);
        put(g, "memory.events", "low 0\nhigh 5\nmax 6\noom 2\noom_kill 3\noom_group_kill 1\n");
        assert_int_equal(cgroup_get_oom_kills(g), 3);
        cgroup_free(g);
        cgroups_free(c);
}

static void test_memory_trip(void **state) {
        Cgroups *c;
        Cgroup *g = new_in_folder(&c);

        put(g, "memory.high", "");
        put(g, "memory.oom.group", "");
        assert_int_equal(cgroup_set_memory_trip(g, 256 * MIB), 0);
        assert_text(g, "memory.high", "268435456");
        put(g, "memory.high", "");
        assert_int_equal(cgroup_set_memory_trip(g, 0), 0);
        assert_text(g, "memory.high", "max");
        put(g, "memory.high", "");
        assert_int_equal(cgroup_set_memory_trip(g, 1), 0);
        assert_text(g, "memory.high", "1");

        assert_int_equal(cgroup_set_oom_group(g, true), 0);
        assert_text(g, "memory.oom.group", "1");
        put(g, "memory.oom.group", "");
        assert_int_equal(cgroup_set_oom_group(g, false), 0);
        assert_text(g, "memory.oom.group", "0");
        assert_int_equal(unlinkat(cgroup_fd(g), "memory.oom.group", 0), 0); /* Linux 4.18 */
        assert_int_equal(cgroup_set_oom_group(g, true), 0);
        cgroup_free(g);
        cgroups_free(c);
}

/* Without the controller that is what the caller is told, and no number is made up. */
static void test_memory_missing(void **state) {
        uint64_t n = 77;
        Cgroups *c;
        Cgroup *g = new_in_folder(&c);

        assert_int_equal(cgroup_get_memory(g, &n), -EOPNOTSUPP);
        assert_int_equal(cgroup_get_peak(g, &n), -EOPNOTSUPP);
        assert_int_equal(cgroup_set_memory_trip(g, MIB), -EOPNOTSUPP);
        assert_int_equal(cgroup_watch(g, event, on_change, NULL), -EOPNOTSUPP);
        assert_int_equal(cgroup_get_oom_kills(g), 0);
        assert_int_equal(n, 77);
        cgroup_free(g);
        cgroups_free(c);
}

/* A kernel without cgroup.kill: each process is killed, also below; a 0, which stands for a process that has
 * no number here and would mean our own process group, is not. What is frozen goes on afterwards. */
static void test_kill_each(void **state) {
        char text[64];
        Cgroups *c;
        Cgroup *g = new_in_folder(&c);
        pid_t pids[2];

        put(g, "cgroup.procs", "");
        assert_int_equal(mkdirat(cgroup_fd(g), "below", 0755), 0);
        for (size_t i = 0; i < ELEMENTSOF(pids); i++)
                pids[i] = start_in(cgroup_fd(g)); /* the "join" writes to the plain file */
        snprintf(text, sizeof(text), "0\n%d\n", pids[0]);
        put(g, "cgroup.procs", text);
        snprintf(text, sizeof(text), "%d\n", pids[1]);
        put(g, "below/cgroup.procs", text);
        put(g, "cgroup.freeze", "-");
        assert_int_equal(cgroup_kill(g), 0);
        assert_killed(pids[0]);
        assert_killed(pids[1]);
        assert_text(g, "cgroup.freeze", "0");
        cgroup_free(g);
        cgroups_free(c);
}

/* The two groups of a worker with a twin: killing one spares the other, killing the worker's takes both;
 * they are removed with it. */
static void test_pair(void **state) {
        char path[64];
        int fds[2];
        pid_t a, b;

        if (!*root)
                skip();
        Cgroups *c = new_at(root);
        Cgroup *g = new_group(c, 1);
        assert_int_equal(cgroup_make_pair(g, fds), 0);
        assert_int_equal(fcntl(fds[0], F_GETFD), FD_CLOEXEC);
        a = start_in(fds[0]);
        b = start_in(fds[1]);
        snprintf(path, sizeof(path), "/proc/self/fd/%d/cgroup.kill", fds[0]);
        if (write_text(path, "1") == 0) { /* Linux 5.14 */
                assert_killed(a);
                assert_true(is_alive(b));
                a = start_in(fds[0]);
        }
        assert_int_equal(cgroup_kill(g), 0);
        assert_killed(a);
        assert_killed(b);
        wait_until_empty("worker-1.1");
        close(fds[0]);
        close(fds[1]);
        cgroup_free(g);
        assert_false(exists("worker-1.1"));
        cgroups_free(c);
}

/*
 * Memory, where there is a controller
 */

/* Keeps @mib MiB of its own. */
static void take_memory(uint64_t mib) {
        char *p = mmap(NULL, mib * MIB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

        if (p != MAP_FAILED)
                memset(p, 1, mib * MIB);
        for (;;)
                pause();
}

/* The real thing: over the wire, lift it, and die of the OOM killer in the end. */
static int trip_over_memory(void) {
        _cleanup_(cgroups_freep) Cgroups *c = NULL;
        _cleanup_(cgroup_freep) Cgroup *g = NULL;
        uint64_t bytes = 0;
        int status;

        CHECK(sd_event_new(&event) >= 0);
        CHECK(cgroups_new_at(root, &c) == 0);
        CHECK(cgroups_settle(c) == 1);
        CHECK(cgroup_new(c, 1, &g) == 0);
        CHECK(cgroup_get_memory(g, &bytes) == 0 && bytes < MIB);
        CHECK(cgroup_set_memory_trip(g, 32 * MIB) == 0);
        CHECK(cgroup_watch(g, event, on_change, NULL) == 0);
        CHECK(sd_event_run(event, 0) == 0);
        pid_t pid = fork();
        if (pid == 0) {
                (void) join_at(cgroup_fd(g));
                take_memory(64);
        }
        while (bytes < 24 * MIB) {
                CHECK(sd_event_run(event, PATIENCE_USEC) > 0);
                CHECK(cgroup_get_memory(g, &bytes) == 0);
        }
        CHECK(n_changes > 0);
        CHECK(cgroup_get_oom_kills(g) == 0);
        CHECK(cgroup_set_memory_trip(g, 0) == 0);

        char path[1024];
        snprintf(path, sizeof(path), "/proc/self/fd/%d/memory.max", cgroup_fd(g));
        (void) write_text(path, "8388608");
        CHECK(waitpid(pid, &status, 0) == pid);
        CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
        CHECK(cgroup_get_oom_kills(g) > 0);
        int r = cgroup_get_peak(g, &bytes);
        CHECK(r == -EOPNOTSUPP || (r == 0 && bytes > 24 * MIB));
        return 0;
}

static bool has_memory_controller(void) {
        _cleanup_free_ char *controllers = NULL;

        return read_small_file(AT_FDCWD, path_in(root, "cgroup.controllers"), 4096, &controllers) >= 0 &&
               strstr(controllers, "memory");
}

/* Memory that cannot be given back trips the wire, and tells so. */
static void test_memory_trip_for_real(void **state) {
        if (!*root)
                skip();
        if (!has_memory_controller()) {
                print_message("skipped: there is no memory controller in cgroup v2 here\n");
                skip();
        }
        in_own_process(root, trip_over_memory);
        wait_until_empty("supervisor");
        assert_int_equal(write_text(path_in(root, "cgroup.subtree_control"), "-memory"), 0);
        (void) write_text(path_in(root, "cgroup.subtree_control"), "-pids");
        assert_int_equal(rmdir(path_in(root, "supervisor")), 0);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_new_and_free),
                cmocka_unit_test(test_free_while_busy),
                cmocka_unit_test(test_free_with_groups_below),
                cmocka_unit_test(test_kill),
                cmocka_unit_test(test_add),
                cmocka_unit_test(test_birth),
                cmocka_unit_test(test_settle),
                cmocka_unit_test(test_settle_with_keeper),
                cmocka_unit_test(test_delegation),
                cmocka_unit_test_setup_teardown(test_watch, setup_event, teardown_event),
                cmocka_unit_test_setup_teardown(test_watch_free_in_handler, setup_event, teardown_event),
                cmocka_unit_test_setup_teardown(test_watch_storm, setup_event, teardown_event),
                cmocka_unit_test_setup_teardown(test_watch_removed, setup_event, teardown_event),
                cmocka_unit_test(test_memory_numbers),
                cmocka_unit_test(test_memory_trip),
                cmocka_unit_test_setup_teardown(test_memory_missing, setup_event, teardown_event),
                cmocka_unit_test(test_kill_each),
                cmocka_unit_test(test_pair),
                cmocka_unit_test_setup_teardown(test_memory_trip_for_real, setup_event, teardown_event),
        };

        return cmocka_run_group_tests(tests, setup, teardown);
}
