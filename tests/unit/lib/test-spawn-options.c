/* SPDX-License-Identifier: MIT */
/* What a child starts with: its descriptors, directory, user, program, arguments. How it ends is in
 * test-process-end.c. */

#include "spawn.h"

#include <grp.h>
#include <linux/capability.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/sysmacros.h>
#include <sys/un.h>

#define NOBODY      65534
#define OTHER_GROUP 65533

static char directory[] = "/tmp/test-spawn-options-XXXXXX";
static char report_path[128];
static char working_directory[4096];
static int saved[8], n_saved; /* see replace_descriptors() */

/*
 * The child
 */

static char type_of(const struct stat *st) {
        if (S_ISFIFO(st->st_mode))
                return 'p';
        if (S_ISSOCK(st->st_mode))
                return 's';
        if (S_ISCHR(st->st_mode) && st->st_rdev == makedev(1, 3))
                return 'n';
        return 'f';
}

/* Writes "FD:TYPE:ACCESS " for each open descriptor to $REPORT, and what tells of the channel. */
static int report_descriptors(void) {
        FILE *out = fopen(getenv("REPORT"), "we");

        if (!out)
                return 1;
        for (int fd = 0; fd < 4096; fd++) {
                struct stat st;
                if (fd == fileno(out) || fstat(fd, &st) < 0)
                        continue;
                int flags = fcntl(fd, F_GETFL);
                fprintf(out, "%d:%c:%c%s ", fd, type_of(&st), "rw+"[flags & O_ACCMODE],
                                flags & O_NONBLOCK ? ":nonblocking" : "");
        }
        if (getenv("NODE_CHANNEL_FD"))
                fprintf(out, "channel %s %s", getenv("NODE_CHANNEL_FD"), getenv("MUSTER_CHANNEL_FD"));
        return fclose(out);
}

static int child_main(char *argv[]) {
        if (strcmp(argv[1], "report") == 0)
                return report_descriptors();
        return write(atoi(argv[2]), "here", 4) == 4 ? 0 : 1;
}

/*
 * The parent
 */

/* The loop's descriptors are out of the way of those that the tests replace. */
static int setup_event_above(int lowest, void **state) {
        int r, fd;

        do
                fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
        while (fd >= 0 && fd < lowest);
        r = setup_event(state);
        while (fd >= 3)
                close(fd--);
        return r;
}

static int setup(void **state) {
        if (!mkdtemp(directory) || !getcwd(working_directory, sizeof(working_directory)) ||
                        chmod(directory, 0755) < 0)
                return -1;
        snprintf(report_path, sizeof(report_path), "%s/report", directory);
        setenv("REPORT", report_path, 1);
        setenv("PATH", "/usr/bin:/bin", 1); /* without directories that this user must not search */
        return setup_event_above(20, state);
}

static int remove_below(const char *path) {
        char command[256];

        snprintf(command, sizeof(command), "rm -rf '%s'", path);
        return system(command); /* NOLINT: a fixed prefix below /tmp */
}

static int teardown(void **state) {
        (void) remove_below(directory);
        return teardown_event(state);
}

/* A file in the tests' directory, and its path. */
static const char *make_file(const char *name, const char *text, mode_t mode) {
        static char path[256];
        char parent[256];

        snprintf(path, sizeof(path), "%s/%s", directory, name);
        snprintf(parent, sizeof(parent), "%s", path);
        *strrchr(parent, '/') = '\0';
        assert_true(mkdir(parent, 0755) == 0 || errno == EEXIST);
        FILE *f = fopen(path, "we");
        assert_non_null(f);
        fputs(text, f);
        fclose(f);
        assert_int_equal(chmod(path, mode), 0);
        return path;
}

/* Starts this program as the child with @stdio, and returns its report; the streams and the channel are
 * there for exactly those that have one. */
static const char *report(const muster_stdio *stdio, size_t n) {
        static char text[4096];
        _cleanup_free_ char *read = NULL;
        muster_spawn_options o = MUSTER_SPAWN_OPTIONS_INIT;
        bool ipc = false;
        Ended e;

        o.program = "/proc/self/exe";
        o.argv = STRINGS("test", "report");
        o.stdio = stdio;
        o.n_stdio = n;
        muster_child *child = start(&o, &e);
        for (size_t i = 0; i < n; i++) {
                ipc = ipc || stdio[i].kind == MUSTER_STDIO_IPC;
                assert_int_equal(!!muster_child_get_stream(child, (unsigned) i),
                                stdio[i].kind == MUSTER_STDIO_PIPE);
        }
        assert_null(muster_child_get_stream(child, (unsigned) MAX(n, (size_t) 3)));
        assert_int_equal(!!muster_child_get_channel(child), ipc);
        run_until(e.closes);
        assert_int_equal(e.code, CLD_EXITED);
        assert_int_equal(e.status, 0);
        muster_child_unref(child);
        assert_int_equal(read_small_file(AT_FDCWD, report_path, sizeof(text) - 1, &read), 0);
        return strcpy(text, read);
}

static void expect_place(int place, int kind, char expected[static 64]) {
        expected[0] = '\0';
        if (kind == MUSTER_STDIO_INHERIT || kind == MUSTER_STDIO_FD)
                snprintf(expected, 64, "%d:f:w ", place);
        else if (kind == MUSTER_STDIO_IGNORE)
                snprintf(expected, 64, "%d:n:+ ", place);
        else if (kind == MUSTER_STDIO_PIPE)
                snprintf(expected, 64, "%d:%s ", place, place == 0 ? "p:r" : place < 3 ? "p:w" : "s:+");
        else if (kind == MUSTER_STDIO_IPC)
                snprintf(expected, 64, "%d:s:+ channel %d %d", place, place, place);
}

/* Puts @fd, or nothing, in the places of the first @n descriptors, until restore_descriptors(), which is the
 * end of the test at the latest. */
static void replace_descriptors(int n, int fd) {
        for (int i = 0; i < n; i++) {
                saved[i] = fcntl(i, F_DUPFD_CLOEXEC, 100);
                if (fd >= 0)
                        dup2(fd, i);
                else
                        close(i);
        }
        n_saved = n;
}

static int restore_descriptors(void **state) {
        for (int i = 0; i < n_saved; i++)
                if (saved[i] < 0)
                        close(i);
                else {
                        dup2(saved[i], i);
                        close(saved[i]);
                }
        n_saved = 0;
        return 0;
}

/* Each kind is what it says at each place, with every other place closed; the child's ends block. */
static void test_kinds_at_every_place(void **state) {
        enum { PLACES = 6, KINDS = MUSTER_STDIO_CLOSED + 1 };
        int low = open(make_file("file", "", 0600), O_WRONLY | O_CLOEXEC);
        int file = fcntl(low, F_DUPFD_CLOEXEC, 50);
        char told[PLACES][KINDS][64], expected[64];

        assert_true(file >= 50);
        close(low);
        replace_descriptors(PLACES, file);
        for (int place = 0; place < PLACES; place++)
                for (int kind = 0; kind < KINDS; kind++) {
                        muster_stdio stdio[PLACES];

                        for (int i = 0; i < PLACES; i++)
                                stdio[i] = (muster_stdio){ .kind = i == place ? kind : MUSTER_STDIO_CLOSED,
                                        .fd = file };
                        snprintf(told[place][kind], 64, "%s", report(stdio, PLACES));
                }
        restore_descriptors(state);
        close(file);
        for (int place = 0; place < PLACES; place++)
                for (int kind = 0; kind < KINDS; kind++) {
                        expect_place(place, kind, expected);
                        assert_string_equal(told[place][kind], expected);
                }
}

/* Those of 0, 1 and 2 that are not listed are inherited, beside what is listed. */
static void test_unlisted_inherited(void **state) {
        static const muster_stdio null = { .kind = MUSTER_STDIO_IGNORE };
        int p[2];

        assert_int_equal(pipe2(p, O_CLOEXEC), 0);
        replace_descriptors(3, p[1]);
        const char *told = report(&null, 1);
        restore_descriptors(state);
        assert_string_equal(told, "0:n:+ 1:p:w 2:p:w ");
        close(p[0]);
        close(p[1]);
}

/* A caller without standard streams: the pipes of its children take their numbers, and these neither reach a
 * place that was to stay closed, nor get lost on the way. */
static void test_closed_in_the_caller(void **state) {
        static const muster_stdio pipe_only[] = { { .kind = MUSTER_STDIO_PIPE } };
        static const muster_stdio pipes[] = {
                { .kind = MUSTER_STDIO_PIPE },
                { .kind = MUSTER_STDIO_PIPE },
                { .kind = MUSTER_STDIO_PIPE },
                { .kind = MUSTER_STDIO_PIPE },
        };
        char told[2][4096];

        replace_descriptors(3, -EBADF);
        strcpy(told[0], report(pipe_only, 1));
        strcpy(told[1], report(pipes, 4));
        restore_descriptors(state);
        assert_string_equal(told[0], "0:p:r ");
        assert_string_equal(told[1], "0:p:r 1:p:w 2:p:w 3:s:+ ");
}

/* The library's own pipes are not taken for a descriptor that the caller does not have. */
static void test_number_taken_by_pipe(void **state) {
        muster_spawn_options o = MUSTER_SPAWN_OPTIONS_INIT;
        muster_child *child = NULL;
        int next = fcntl(0, F_DUPFD_CLOEXEC, 3);

        close(next);
        o.program = "true";
        o.stdio = (const muster_stdio[]){
                { .kind = MUSTER_STDIO_PIPE },
                { .kind = MUSTER_STDIO_IGNORE },
                { .kind = MUSTER_STDIO_IGNORE },
                { .kind = MUSTER_STDIO_FD, .fd = next },
        };
        o.n_stdio = 4;
        assert_int_equal(muster_spawn(event, &o, NULL, NULL, &child), -EBADF);
        assert_null(child);
}

/* Pipes, whose numbers are as low as the places, and descriptors of the caller that swap with them: each is
 * where it belongs. */
static void test_pipes_among_places(void **state) {
        muster_spawn_options o = options_shell(
                        "read a <&5; read b <&8; echo $a >&8; echo $b >&5; echo one; echo two >&2;"
                        "read c; echo $c >&4; echo three >&3; echo seven >&7");
        Heard heard[9];
        char text[64];
        int p[2];
        Ended e;

        assert_int_equal(pipe2(p, O_CLOEXEC), 0);
        o.stdio = (const muster_stdio[]){
                { .kind = MUSTER_STDIO_PIPE },
                { .kind = MUSTER_STDIO_PIPE },
                { .kind = MUSTER_STDIO_PIPE },
                { .kind = MUSTER_STDIO_FD, .fd = p[1] },
                { .kind = MUSTER_STDIO_FD, .fd = p[1] }, /* in two places */
                { .kind = MUSTER_STDIO_PIPE },
                { .kind = MUSTER_STDIO_IGNORE },
                { .kind = MUSTER_STDIO_FD, .fd = p[1] },
                { .kind = MUSTER_STDIO_PIPE },
        };
        o.n_stdio = 9;
        muster_child *child = start(&o, &e);
        close(p[1]);
        for (unsigned i = 1; i < 9; i++)
                if (i < 3 || i == 5 || i == 8)
                        hear(muster_child_get_stream(child, i), heard + i);
        assert_int_equal(muster_stream_write(muster_child_get_stream(child, 0), "zero\n", 5), 0);
        assert_int_equal(muster_stream_write(muster_child_get_stream(child, 5), "five\n", 5), 0);
        assert_int_equal(muster_stream_write(muster_child_get_stream(child, 8), "eight\n", 6), 0);
        run_until(e.closes);
        assert_int_equal(e.status, 0);
        muster_child_unref(child);
        assert_string_equal(heard[1].text, "one\n");
        assert_string_equal(heard[2].text, "two\n");
        assert_string_equal(heard[5].text, "eight\n");
        assert_string_equal(heard[8].text, "five\n");
        ssize_t n = read(p[0], text, sizeof(text) - 1);
        assert_true(n > 0);
        text[n] = '\0';
        assert_string_equal(text, "zero\nthree\nseven\n");
        close(p[0]);
}

static int spawn_result(const muster_spawn_options *o) {
        muster_child *untouched = (muster_child *) &event, *child = untouched;
        int r = muster_spawn(event, o, NULL, NULL, &child);

        assert_true(r <= 0);
        if (r == 0)
                muster_child_unref(child);
        else
                assert_ptr_equal(child, untouched);
        return r;
}

static int stdio_result(const muster_stdio *stdio, size_t n) {
        muster_spawn_options o = MUSTER_SPAWN_OPTIONS_INIT;

        o.program = "true";
        o.stdio = stdio;
        o.n_stdio = n;
        return spawn_result(&o);
}

/* What is wrong with the options is said by the documented errno, and nothing is started. */
static void test_wrong_options(void **state) {
        const muster_stdio two[] = { { .kind = MUSTER_STDIO_IPC }, { .kind = MUSTER_STDIO_IPC } };
        muster_spawn_options o = MUSTER_SPAWN_OPTIONS_INIT;
        muster_child *child;

        assert_int_equal(stdio_result(&(muster_stdio){ .kind = MUSTER_STDIO_FD, .fd = 3000 }, 1), -EBADF);
        assert_int_equal(stdio_result(&(muster_stdio){ .kind = MUSTER_STDIO_FD, .fd = -1 }, 1), -EBADF);
        assert_int_equal(stdio_result(&(muster_stdio){ .kind = -1 }, 1), -EINVAL);
        assert_int_equal(stdio_result(&(muster_stdio){ .kind = MUSTER_STDIO_CLOSED + 1 }, 1), -EINVAL);
        assert_int_equal(stdio_result(two, 2), -EINVAL);
        assert_int_equal(stdio_result(NULL, 1), -EINVAL);

        muster_stdio *many = calloc(1025, sizeof(*many));
        assert_non_null(many);
        for (int i = 3; i < 1025; i++)
                many[i].kind = MUSTER_STDIO_CLOSED;
        many[1023].kind = MUSTER_STDIO_INHERIT; /* beyond 0, 1, 2 it has to be there */
        assert_int_equal(stdio_result(many, 1024), -EBADF);
        assert_int_equal(stdio_result(many, 1025), -EINVAL);
        free(many);

        o.program = "true";
        o.argv = (char *const[]){ NULL };
        assert_int_equal(spawn_result(&o), -EINVAL);
        o.argv = NULL;
        o.kill_signal = -1;
        assert_int_equal(spawn_result(&o), -EINVAL);
        o.kill_signal = _NSIG;
        assert_int_equal(spawn_result(&o), -EINVAL);
        o.kill_signal = 0;
        o.flags = MUSTER_SPAWN_SET_CGROUP << 1;
        assert_int_equal(spawn_result(&o), -EINVAL);
        o.flags = 0;
        o.program = "";
        assert_int_equal(spawn_result(&o), -EINVAL);
        o.program = "true";
        o.stdio = two;
        o.n_stdio = 1;
        assert_int_equal(muster_fork(event, &o, NULL, NULL, &child), -EINVAL); /* it adds the second one */
        assert_false(has_children());
}

/* As many descriptors as allowed reach the child. */
static void test_most_descriptors(void **state) {
        muster_spawn_options o = MUSTER_SPAWN_OPTIONS_INIT;
        static muster_stdio stdio[1024];
        struct rlimit before, more;
        Heard h;
        Ended e;

        /* one that is in the way of others goes above all of them */
        assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
        more = (struct rlimit){ .rlim_cur = MIN(before.rlim_max, (rlim_t) 4096),
                .rlim_max = before.rlim_max };
        if (more.rlim_cur < 2048)
                skip();
        assert_int_equal(setrlimit(RLIMIT_NOFILE, &more), 0);
        for (size_t i = 0; i < ELEMENTSOF(stdio); i++)
                stdio[i].kind = MUSTER_STDIO_CLOSED;
        stdio[1023].kind = MUSTER_STDIO_PIPE;
        o.stdio = stdio;
        o.n_stdio = ELEMENTSOF(stdio);
        o.program = "/proc/self/exe";
        o.argv = STRINGS("test", "write", "1023");
        muster_child *child = start(&o, &e);
        hear(muster_child_get_stream(child, 1023), &h);
        run_until(e.closes);
        assert_string_equal(h.text, "here");
        muster_child_unref(child);
        assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
}

/* It runs where it is told, and the caller stays where it is. */
static void test_cwd(void **state) {
        muster_spawn_options o = options_shell("pwd -P");
        char expected[64], now[4096];
        Ended e;

        snprintf(expected, sizeof(expected), "%s\n", directory);
        o.cwd = directory;
        assert_string_equal(output_of(o, &e), expected);
        assert_string_equal(getcwd(now, sizeof(now)), working_directory);
        o.cwd = NULL;
        const char *inherited = output_of(o, &e);
        assert_int_equal(strncmp(inherited, working_directory, strlen(working_directory)), 0);

        o.cwd = "/nonexistent";
        assert_int_equal(spawn_result(&o), -ENOENT);
        o.cwd = make_file("file", "", 0755);
        assert_int_equal(spawn_result(&o), -ENOTDIR);
        assert_false(has_children());
}

static int become_nobody(void) {
        return syscall(SYS_setgroups, 0, NULL) < 0 || setresgid(NOBODY, NOBODY, NOBODY) < 0 ||
                                               setresuid(NOBODY, NOBODY, NOBODY) < 0
                               ? -1
                               : 0;
}

static int spawn_without_loop(const muster_spawn_options *o) {
        muster_child *child;
        int r = muster_spawn(NULL, o, NULL, NULL, &child);

        if (r == 0) {
                (void) waitpid(muster_child_get_pid(child), NULL, 0);
                muster_child_unref(child);
        }
        return r;
}

/* Directories and programs that are not for everybody, and other people's identities. */
static int spawn_as_nobody(void) {
        muster_spawn_options o = MUSTER_SPAWN_OPTIONS_INIT;
        char closed[256];

        snprintf(closed, sizeof(closed), "%s/closed", directory);
        CHECK(getuid() != 0 || become_nobody() == 0);
        o.program = "/bin/true";
        o.cwd = closed;
        CHECK(spawn_without_loop(&o) == -EACCES);
        o.cwd = NULL;
        CHECK(spawn_without_loop(&o) == 0);

        o.flags = MUSTER_SPAWN_SET_UID;
        o.uid = 0;
        CHECK(spawn_without_loop(&o) == -EPERM);
        o.uid = getuid();
        CHECK(spawn_without_loop(&o) == 0);
        o.flags = MUSTER_SPAWN_SET_GID;
        o.gid = 0;
        CHECK(spawn_without_loop(&o) == -EPERM);
        o.gid = getgid();
        CHECK(spawn_without_loop(&o) == 0);
        CHECK(waitpid(-1, NULL, WNOHANG) < 0 && errno == ECHILD); /* the failed ones were reaped */
        return 0;
}

static void test_unprivileged(void **state) {
        char closed[256];

        snprintf(closed, sizeof(closed), "%s/closed", directory);
        assert_int_equal(mkdir(closed, 0), 0);
        in_own_process(spawn_as_nobody);
        assert_int_equal(rmdir(closed), 0);
}

/* -1 is no user and no group. Without the flags both members mean nothing. */
static void test_no_such_user(void **state) {
        muster_spawn_options o = MUSTER_SPAWN_OPTIONS_INIT;
        Ended e;

        o.program = "/bin/true";
        o.uid = (uid_t) -1;
        o.gid = (gid_t) -1;
        o.flags = MUSTER_SPAWN_SET_UID;
        assert_int_equal(spawn_result(&o), -EINVAL);
        o.flags = MUSTER_SPAWN_SET_GID;
        assert_int_equal(spawn_result(&o), -EINVAL);
        assert_false(has_children());
        o.flags = 0;
        muster_child *child = start(&o, &e);
        run_until(e.closes);
        assert_int_equal(e.status, 0);
        muster_child_unref(child);
}

static void assert_identity(uint64_t flags, const char *expected) {
        muster_spawn_options o =
                        options_shell("sed -n -E 's/\\s+/ /g; s/^(Uid|Gid|Groups): ?//p' /proc/self/status");
        Ended e;

        o.flags |= flags;
        o.uid = NOBODY;
        o.gid = OTHER_GROUP;
        assert_string_equal(output_of(o, &e), expected);
}

/* Real, effective, saved and filesystem user and group are those asked for, and no other groups are left;
 * what was not asked for stays, but for the supplementary groups. */
static void test_user_and_group(void **state) {
        static const gid_t groups[] = { 1, 2, 0 };
        gid_t before[64];

        if (getuid() != 0)
                skip();
        int n = getgroups(ELEMENTSOF(before), before);
        assert_true(n >= 0);
        assert_int_equal(setgroups(ELEMENTSOF(groups), groups), 0);
        assert_identity(MUSTER_SPAWN_SET_UID | MUSTER_SPAWN_SET_GID,
                        "65534 65534 65534 65534\n65533 65533 65533 65533\n\n");
        assert_identity(MUSTER_SPAWN_SET_UID, "65534 65534 65534 65534\n0 0 0 0\n\n");
        assert_identity(MUSTER_SPAWN_SET_GID, "0 0 0 0\n65533 65533 65533 65533\n\n");
        assert_identity(0, "0 0 0 0\n0 0 0 0\n0 1 2 \n");
        assert_int_equal(getgroups(0, NULL), 3); /* the caller's are as they were */
        assert_int_equal(setgroups((size_t) n, before), 0);
}

/* A child that becomes another user leaves its parent's memory and rights alone, and what fails in it is
 * told all the same. */
static void test_user_leaves_parent_alone(void **state) {
        enum { SIZE = 1 << 20 };
        muster_spawn_options o = MUSTER_SPAWN_OPTIONS_INIT;
        unsigned char *heap = malloc(SIZE), stack[4096];
        Ended e;

        if (getuid() != 0)
                skip();
        assert_non_null(heap);
        memset(heap, 0x5a, SIZE);
        memset(stack, 0xa5, sizeof(stack));
        o.flags = MUSTER_SPAWN_SET_UID | MUSTER_SPAWN_SET_GID;
        o.uid = o.gid = NOBODY;
        o.program = "/bin/true";
        muster_child *child = start(&o, &e);
        run_until(e.closes);
        assert_int_equal(e.status, 0);
        muster_child_unref(child);

        o.program = "/nonexistent";
        assert_int_equal(spawn_result(&o), -ENOENT);
        o.program = make_file("for-root", "#!/bin/sh\n", 0700);
        assert_int_equal(spawn_result(&o), -EACCES); /* it is not that user's */
        o.program = "/bin/true";
        o.cwd = "/nonexistent";
        assert_int_equal(spawn_result(&o), -ENOENT);
        assert_false(has_children());

        for (size_t i = 0; i < SIZE; i++)
                assert_int_equal(heap[i], 0x5a);
        for (size_t i = 0; i < sizeof(stack); i++)
                assert_int_equal(stack[i], 0xa5);
        assert_int_equal(prctl(PR_GET_DUMPABLE), 1);
        assert_int_equal(getuid(), 0);
        free(heap);
}

/* The PATH that counts is the child's. A file that is there and may not be executed is -EACCES, unless a
 * later directory has one that may. */
static void test_path_search(void **state) {
        char a[256], b[256], both[600], longest[6000];
        muster_spawn_options o = MUSTER_SPAWN_OPTIONS_INIT;
        Ended e;

        snprintf(a, sizeof(a), "PATH=%s/a", directory);
        snprintf(b, sizeof(b), "PATH=%s/b", directory);
        snprintf(both, sizeof(both), "PATH=%s/a:/nonexistent:%s/report/x:%s/b", directory, directory,
                        directory);
        snprintf(longest, sizeof(longest), "PATH=/%05000d:%s/b", 0, directory);
        make_file("a/found-in-path", "#!/bin/sh\necho a\n", 0600);
        make_file("b/found-in-path", "#!/bin/sh\necho b $0 $1\n", 0700);
        make_file("b/no-program", "neither ELF nor script", 0700);
        o.program = "found-in-path";
        o.argv = STRINGS("zero", "first");

        assert_int_equal(spawn_result(&o), -ENOENT); /* the caller's PATH */
        o.env = STRINGS(a);
        assert_int_equal(spawn_result(&o), -EACCES);
        o.env = STRINGS(b);
        assert_int_equal(strncmp(output_of(o, &e), "b /tmp/", 7), 0);
        o.env = STRINGS(both);
        assert_int_equal(strncmp(output_of(o, &e), "b /tmp/", 7), 0);
        o.env = STRINGS(longest);
        assert_int_equal(strncmp(output_of(o, &e), "b /tmp/", 7), 0);
        o.env = STRINGS("PATH=/nonexistent");
        assert_int_equal(spawn_result(&o), -ENOENT);
        o.program = "no-program";
        o.env = STRINGS(b);
        assert_int_equal(spawn_result(&o), -ENOEXEC);

        /* the caller's PATH has it, the child's has not */
        _cleanup_free_ char *path = strdup(getenv("PATH"));
        setenv("PATH", b + strlen("PATH="), 1);
        o.program = "found-in-path";
        o.env = STRINGS("PATH=/nonexistent");
        assert_int_equal(spawn_result(&o), -ENOENT);
        o.env = NULL;
        assert_int_equal(strncmp(output_of(o, &e), "b /tmp/", 7), 0);
        setenv("PATH", path, 1);
}

/* A command line for the shell, whose $0, $1 … are argv. */
static void test_shell(void **state) {
        muster_spawn_options o = options_shell("echo \"$0|$1|$2|$#\" | cat; exit 3");
        Ended e;

        o.argv = STRINGS("zero", "a b", "$HOME;*");
        assert_string_equal(output_of(o, &e), "zero|a b|$HOME;*|2\n");
        assert_int_equal(e.status, 3);
        o.program = "echo $#";
        o.argv = NULL;
        assert_string_equal(output_of(o, &e), "0\n");
        o.program = "echo $TEST_A";
        o.env = STRINGS("TEST_A=from the environment", "PATH=/nonexistent");
        assert_string_equal(output_of(o, &e), "from the environment\n");
}

/* argv[0] is the caller's choice; without argv it is the program. */
static void test_argv0(void **state) {
        muster_spawn_options o = MUSTER_SPAWN_OPTIONS_INIT;
        Ended e;

        o.program = "/bin/sh";
        o.argv = STRINGS("another name", "-c", "echo $0");
        assert_string_equal(output_of(o, &e), "another name\n");
        o.program = make_file("argv0", "#!/bin/sh\ntr '\\0' '|' </proc/$$/cmdline\n", 0700);
        o.argv = NULL;
        const char *printed = output_of(o, &e);
        assert_non_null(strstr(printed, "/argv0|"));
}

/*
 * The journal
 */

/* A /run of our own, where the journal's socket can be, or not be. */
static int private_run(void) {
        if (unshare(getuid() == 0 ? CLONE_NEWNS : CLONE_NEWNS | CLONE_NEWUSER) < 0 ||
                        mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
                        mount("tmpfs", "/run", "tmpfs", 0, NULL) < 0)
                return -1;
        return mkdir("/run/systemd", 0755) < 0 ? -1 : mkdir("/run/systemd/journal", 0755);
}

static int may_have_private_run(void) {
        return private_run() < 0;
}

static int listen_as_journal(void) {
        const struct sockaddr_un address = { .sun_family = AF_UNIX,
                .sun_path = "/run/systemd/journal/stdout" };
        int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

        if (fd < 0 || bind(fd, (const struct sockaddr *) &address, sizeof(address)) < 0)
                return -1;
        return fd;
}

/* Without the journal nothing starts, and the errno says why. */
static int spawn_without_journal(void) {
        muster_spawn_options o = MUSTER_SPAWN_OPTIONS_INIT;

        CHECK(private_run() == 0);
        o.program = "true";
        o.journal_identifier = "test";
        CHECK(spawn_without_loop(&o) == -ENOENT);
        int fd = listen_as_journal();
        CHECK(fd >= 0);
        CHECK(spawn_without_loop(&o) == -ECONNREFUSED); /* bound, and nobody listens */
        /* not asked for where stdio lists both */
        o.stdio = (const muster_stdio[]){ { .kind = MUSTER_STDIO_IGNORE }, { .kind = MUSTER_STDIO_IGNORE },
                { .kind = MUSTER_STDIO_IGNORE } };
        o.n_stdio = 3;
        CHECK(spawn_without_loop(&o) == 0);
        return 0;
}

/* Runs @command with the journal on what @n_stdio leaves, and reads all that came to the journal. */
static int journal_of(int listener, const char *command, size_t n_stdio, char *text, size_t size) {
        static const muster_stdio null[3] = {
                { .kind = MUSTER_STDIO_IGNORE },
                { .kind = MUSTER_STDIO_IGNORE },
                { .kind = MUSTER_STDIO_IGNORE },
        };
        muster_spawn_options o = options_shell(command);
        size_t used = 0;
        ssize_t n;

        o.journal_identifier = "my-program";
        o.stdio = null;
        o.n_stdio = n_stdio;
        CHECK(spawn_without_loop(&o) == 0);
        int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
        CHECK(fd >= 0);
        while ((n = read(fd, text + used, size - used - 1)) > 0)
                used += (size_t) n;
        text[used] = '\0';
        close(fd);
        return n < 0 ? __LINE__ : 0;
}

/* stdout and stderr are one stream to the journal, whose first line is the identifier, and JOURNAL_STREAM is
 * that stream; what stdio lists goes where it says. */
static int spawn_with_journal(void) {
        const char *command = "echo out; echo err >&2;"
                              "[ $JOURNAL_STREAM = $(stat -L -c %d:%i /proc/self/fd/2) ] && echo same >&2";
        char text[4096];
        int fd, r;

        CHECK(private_run() == 0);
        fd = listen_as_journal();
        CHECK(fd >= 0 && listen(fd, 4) == 0);
        r = journal_of(fd, command, 0, text, sizeof(text));
        if (r)
                return r;
        CHECK(strncmp(text, "my-program\n", 11) == 0);
        CHECK(strstr(text, "\nout\nerr\nsame\n"));
        r = journal_of(fd, command, 2, text, sizeof(text)); /* stderr alone */
        if (r)
                return r;
        CHECK(strstr(text, "\nerr\nsame\n") && !strstr(text, "out"));
        return 0;
}

static void test_journal(void **state) {
        int status;
        pid_t pid = fork();

        assert_true(pid >= 0);
        if (pid == 0)
                _exit(may_have_private_run());
        assert_int_equal(waitpid(pid, &status, 0), pid);
        if (status != 0)
                skip();
        in_own_process(spawn_without_journal);
        in_own_process(spawn_with_journal);
}

static int spawn_without_setgid(void) {
        struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
        struct __user_cap_data_struct data[2];
        muster_spawn_options o = options_shell("exit 0");
        const gid_t groups[] = { 4, 27 };
        muster_child *child = NULL;

        CHECK(setgroups(ELEMENTSOF(groups), groups) == 0);
        CHECK(syscall(SYS_capget, &header, data) == 0);
        data[0].effective &= ~(1U << CAP_SETGID);
        data[0].permitted &= ~(1U << CAP_SETGID);
        CHECK(syscall(SYS_capset, &header, data) == 0);
        o.flags |= MUSTER_SPAWN_SET_UID;
        o.uid = 65534;
        CHECK(muster_spawn(NULL, &o, NULL, NULL, &child) == -EPERM);
        return 0;
}

/* Who may change the user but not the groups does not hand them over to another user. */
static void test_groups_cannot_be_dropped(void **state) {
        if (geteuid() != 0)
                skip();
        in_own_process(spawn_without_setgid);
}

int main(int argc, char *argv[]) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_teardown(test_kinds_at_every_place, restore_descriptors),
                cmocka_unit_test_teardown(test_unlisted_inherited, restore_descriptors),
                cmocka_unit_test_teardown(test_closed_in_the_caller, restore_descriptors),
                cmocka_unit_test(test_number_taken_by_pipe),
                cmocka_unit_test(test_pipes_among_places),
                cmocka_unit_test(test_wrong_options),
                cmocka_unit_test(test_most_descriptors),
                cmocka_unit_test(test_cwd),
                cmocka_unit_test(test_unprivileged),
                cmocka_unit_test(test_no_such_user),
                cmocka_unit_test(test_user_and_group),
                cmocka_unit_test(test_user_leaves_parent_alone),
                cmocka_unit_test(test_path_search),
                cmocka_unit_test(test_shell),
                cmocka_unit_test(test_argv0),
                cmocka_unit_test(test_journal),
                cmocka_unit_test(test_groups_cannot_be_dropped),
        };

        if (argc > 1)
                return child_main(argv);
        return cmocka_run_group_tests(tests, setup, teardown);
}
