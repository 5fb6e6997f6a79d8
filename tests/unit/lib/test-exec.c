/* SPDX-License-Identifier: MIT */
/* Running programs to their end. Each case goes through the loop, and, where there is no shell in it,
 * through the call that needs none as well: both have to tell the same. */

#include "spawn.h"

#include <sys/prctl.h>

#include "muster/exec.h"

#define NOBODY 65534

/* Over this, but not before it has done what it is to do: a shell may have to wait for the CPU. */
#define LIMIT_USEC (2000 * 1000)

/* A result that outlives its handler. */
typedef struct Result {
        int calls, error, code, status;
        char *out, *err;
        size_t out_size, err_size;
} Result;

static char *copy_text(const char *text, size_t size) {
        char *copy = malloc(size + 1);

        assert_non_null(copy);
        assert_int_equal(text[size], '\0'); /* promised */
        return memcpy(copy, text, size + 1);
}

static void take(const muster_exec_result *result, void *userdata) {
        Result *r = userdata;

        assert_int_equal(r->calls, 0);
        *r = (Result){
                .calls = 1,
                .error = result->error,
                .code = result->code,
                .status = result->status,
                .out = copy_text(result->out, result->out_size),
                .err = copy_text(result->err, result->err_size),
                .out_size = result->out_size,
                .err_size = result->err_size,
        };
}

static void result_done(Result *r) {
        free(r->out);
        free(r->err);
        *r = (Result){ .calls = 0 };
}

static Result run_shell(const char *command, const muster_exec_options *o) {
        Result r = { 0 };

        assert_int_equal(muster_exec(event, command, o, take, &r, NULL), 0);
        assert_int_equal(r.calls, 0); /* from the loop, not from within */
        run_until(r.calls);
        run_what_is_due();
        assert_int_equal(r.calls, 1);
        return r;
}

static Result run_file(const char *file, char *const *argv, const muster_exec_options *o) {
        muster_exec_result *sync = NULL;
        Result r = { 0 };

        assert_int_equal(muster_exec_file(event, file, argv, o, take, &r, NULL), 0);
        run_until(r.calls);
        assert_int_equal(muster_exec_file_sync(file, argv, o, &sync), 0);
        assert_int_equal(sync->error, r.error);
        if (r.error == 0) { /* else it may have come to its own end just in time */
                assert_int_equal(sync->code, r.code);
                assert_int_equal(sync->status, r.status);
        }
        assert_int_equal(sync->out_size, r.out_size);
        assert_int_equal(sync->err_size, r.err_size);
        assert_memory_equal(sync->out, r.out, r.out_size + 1);
        assert_memory_equal(sync->err, r.err, r.err_size + 1);
        assert_null(muster_exec_result_free(sync));
        return r;
}

static Result run_script(const char *script, const muster_exec_options *o) {
        return run_file("/bin/sh", STRINGS("sh", "-c", script), o);
}

static void expect(Result r, int error, int status, const char *out, const char *err) {
        assert_int_equal(r.error, error);
        assert_int_equal(r.code, CLD_EXITED);
        assert_int_equal(r.status, status);
        assert_string_equal(r.out, out);
        assert_int_equal(r.out_size, strlen(out));
        assert_string_equal(r.err, err);
        assert_int_equal(r.err_size, strlen(err));
        result_done(&r);
}

/* A command line has pipes, redirections and variables. */
static void test_shell(void **state) {
        expect(run_shell("printf 'b\\na\\n' | sort; echo $((6 * 7)) >&2; exit 3", NULL), 0, 3, "a\nb\n",
                        "42\n");
        expect(run_shell("cat </dev/null; cat", NULL), 0, 0, "", ""); /* stdin is /dev/null */
        Result r = run_shell("kill -KILL $$", NULL);
        assert_int_equal(r.error, 0);
        assert_int_equal(r.code, CLD_KILLED);
        assert_int_equal(r.status, SIGKILL);
        assert_int_equal(r.out_size + r.err_size, 0);
        result_done(&r);
}

/* Without a shell each argument is what it is. */
static void test_file_plain(void **state) {
        expect(run_file("printf", STRINGS("printf", "[%s]", ">", "|", "*", "$HOME", "a  b", "'", ";", ""),
                               NULL),
                        0, 0, "[>][|][*][$HOME][a  b]['][;][]", "");
        expect(run_file("/bin/true", NULL, NULL), 0, 0, "", "");
        expect(run_script("echo out; echo err >&2; exit 255", NULL), 0, 255, "out\n", "err\n");
}

/* What cannot be executed is told by the call, and no handler hears of it. */
static void test_file_errno(void **state) {
        char *const *empty = (char *const[]){ NULL };
        muster_exec_options o = MUSTER_EXEC_OPTIONS_INIT;
        muster_exec_result *none = NULL;
        Result r = { 0 };

        assert_int_equal(muster_exec_file(event, "/nonexistent", NULL, NULL, take, &r, NULL), -ENOENT);
        assert_int_equal(muster_exec_file(event, "no-such-program", NULL, NULL, take, &r, NULL), -ENOENT);
        assert_int_equal(muster_exec_file(event, "/", NULL, NULL, take, &r, NULL), -EACCES);
        assert_int_equal(muster_exec_file_sync("/nonexistent", NULL, NULL, &none), -ENOENT);
        assert_int_equal(muster_exec_file_sync("/", NULL, NULL, &none), -EACCES);
        o.cwd = "/nonexistent";
        assert_int_equal(muster_exec_file(event, "true", NULL, &o, take, &r, NULL), -ENOENT);

        assert_int_equal(muster_exec_file(event, NULL, NULL, NULL, take, &r, NULL), -EINVAL);
        assert_int_equal(muster_exec_file(event, "true", empty, NULL, take, &r, NULL), -EINVAL);
        assert_int_equal(muster_exec_file(event, "true", NULL, NULL, NULL, NULL, NULL), -EINVAL);
        assert_int_equal(muster_exec_file(NULL, "true", NULL, NULL, take, &r, NULL), -EINVAL);
        assert_int_equal(muster_exec(event, NULL, NULL, take, &r, NULL), -EINVAL);
        assert_int_equal(muster_exec_file_sync("true", NULL, NULL, NULL), -EINVAL);
        o = (muster_exec_options) MUSTER_EXEC_OPTIONS_INIT;
        o.flags = MUSTER_SPAWN_DETACHED;
        assert_int_equal(muster_exec_file(event, "true", NULL, &o, take, &r, NULL), -EINVAL);
        o.flags = 0;
        o.size = 8;
        assert_int_equal(muster_exec_file(event, "true", NULL, &o, take, &r, NULL), -EINVAL);

        run_what_is_due();
        assert_int_equal(r.calls, 0);
        assert_null(none);
        assert_null(muster_exec_result_free(NULL));
        assert_false(has_children());
}

static void expect_sizes(
                const char *script, const muster_exec_options *o, int error, size_t out, size_t err) {
        Result r = run_script(script, o);

        assert_int_equal(r.error, error);
        assert_int_equal(r.out_size, out);
        assert_int_equal(r.err_size, err);
        for (size_t i = 0; i < out; i++)
                assert_int_equal(r.out[i], 0);
        result_done(&r);
}

/* Exactly the limit is fine, one byte more is not, and what fits is kept; for stdout and stderr each. */
static void test_max_buffer(void **state) {
        muster_exec_options o = MUSTER_EXEC_OPTIONS_INIT;

        assert_int_equal(MUSTER_EXEC_MAX_BUFFER_DEFAULT, 204800);
        expect_sizes("head -c 204800 /dev/zero", NULL, 0, 204800, 0);
        expect_sizes("head -c 204801 /dev/zero", NULL, -ENOBUFS, 204800, 0);
        expect_sizes("head -c 204800 /dev/zero >&2", NULL, 0, 0, 204800);
        expect_sizes("head -c 204801 /dev/zero >&2", NULL, -ENOBUFS, 0, 204800);
        expect_sizes("head -c 204800 /dev/zero; head -c 204800 /dev/zero >&2", NULL, 0, 204800, 204800);
        o.max_buffer = 1;
        expect_sizes("head -c 1 /dev/zero", &o, 0, 1, 0);
        expect_sizes("head -c 2 /dev/zero", &o, -ENOBUFS, 1, 0);
        expect_sizes("head -c 2 /dev/zero >&2", &o, -ENOBUFS, 0, 1);
        o.max_buffer = 5000000;
        expect_sizes("head -c 5000000 /dev/zero", &o, 0, 5000000, 0);
        expect_sizes("exec cat /dev/zero", &o, -ENOBUFS, 5000000, 0);
}

/* Its output is bytes: NULs count, and come back. */
static void test_binary(void **state) {
        Result r = run_script("printf 'a\\000b\\000\\377'; printf '\\000' >&2", NULL);

        assert_int_equal(r.out_size, 5);
        assert_memory_equal(r.out, "a\0b\0\377", 6);
        assert_int_equal(r.err_size, 1);
        assert_memory_equal(r.err, "\0", 2);
        result_done(&r);
}

/* A grandchild that holds the pipe, reported by its pid in a file of its own; orphans come to us. */
static int grandchild_of(const char *path) {
        _cleanup_free_ char *text = NULL;

        assert_int_equal(read_small_file(AT_FDCWD, path, 64, &text), 0);
        assert_int_equal(unlink(path), 0);
        assert_true(atoi(text) > 1);
        return atoi(text);
}

/* It was killed: it is ours to reap now, and ended by @signal, or by the SIGKILL for those who are left when
 * the leader has ended. */
static void expect_killed(pid_t pid, int signal) {
        int status;

        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_true(WIFSIGNALED(status));
        assert_true(WTERMSIG(status) == signal || WTERMSIG(status) == SIGKILL);
}

/* Over a limit the whole group is killed, those in the background too. */
static void test_group_killed(void **state) {
        muster_exec_options o = MUSTER_EXEC_OPTIONS_INIT;
        char path[64], command[512];

        assert_int_equal(prctl(PR_SET_CHILD_SUBREAPER, 1), 0);
        snprintf(path, sizeof(path), "/tmp/test-exec-%d", getpid());
        o.max_buffer = 1000;
        snprintf(command, sizeof(command), "sleep 100 & echo $! >%s; exec cat /dev/zero", path);
        Result r = run_shell(command, &o);
        assert_int_equal(r.error, -ENOBUFS);
        assert_int_equal(r.code, CLD_KILLED);
        assert_int_equal(r.status, SIGTERM);
        assert_int_equal(r.out_size, 1000);
        result_done(&r);
        expect_killed(grandchild_of(path), SIGTERM);

        o = (muster_exec_options) MUSTER_EXEC_OPTIONS_INIT;
        o.timeout_usec = LIMIT_USEC;
        o.kill_signal = SIGUSR1;
        snprintf(command, sizeof(command), "sleep 100 & echo $! >%s; exec sleep 100", path);
        r = run_shell(command, &o);
        assert_int_equal(r.error, -ETIMEDOUT);
        result_done(&r);
        expect_killed(grandchild_of(path), SIGUSR1);

        /* One that neither heeds the signal nor holds a pipe, once it is so far. */
        o = (muster_exec_options) MUSTER_EXEC_OPTIONS_INIT;
        snprintf(command, sizeof(command),
                        "(trap '' TERM; : >%s.ready; exec sleep 100 >/dev/null 2>&1) & echo $! >%s; "
                        "until [ -e %s.ready ]; do :; done; rm %s.ready; exec cat /dev/zero",
                        path, path, path, path);
        r = run_shell(command, &o);
        assert_int_equal(r.error, -ENOBUFS);
        result_done(&r);
        expect_killed(grandchild_of(path), SIGKILL);
        assert_int_equal(prctl(PR_SET_CHILD_SUBREAPER, 0), 0);
}

/* Who ignores the signal gets SIGKILL 5 seconds later; by then what it printed is thrown away. */
static void test_over_limit_ignoring(void **state) {
        muster_exec_options o = MUSTER_EXEC_OPTIONS_INIT;

        o.max_buffer = 10;
        Result r = run_shell("trap '' TERM PIPE; echo 0123456789abc; exec sleep 100", &o);
        assert_int_equal(r.error, -ENOBUFS);
        assert_int_equal(r.code, CLD_KILLED);
        assert_int_equal(r.status, SIGKILL);
        assert_string_equal(r.out, "0123456789");
        result_done(&r);
}

/* Its time is over: what it printed until then is there, in a loop and without one. */
static void test_timeout(void **state) {
        muster_exec_options o = MUSTER_EXEC_OPTIONS_INIT;

        o.timeout_usec = LIMIT_USEC;
        o.kill_signal = SIGUSR1;
        Result r = run_script("echo out; echo err >&2; exec sleep 100", &o);
        assert_int_equal(r.error, -ETIMEDOUT);
        assert_int_equal(r.code, CLD_KILLED);
        assert_int_equal(r.status, SIGUSR1);
        assert_string_equal(r.out, "out\n");
        assert_string_equal(r.err, "err\n");
        result_done(&r);
        o.timeout_usec = PATIENCE_USEC;
        expect(run_script("echo in time", &o), 0, 0, "in time\n", "");
}

/* Its end for another reason is no error of ours; -ETIMEDOUT is told even when it ends well upon the signal.
 */
static void test_kill_by_caller(void **state) {
        muster_exec_options o = MUSTER_EXEC_OPTIONS_INIT;
        muster_child *child = NULL;
        Result r = { 0 };

        assert_int_equal(muster_exec_file(event, "sleep", STRINGS("sleep", "100"), NULL, take, &r, &child),
                        0);
        assert_non_null(child);
        assert_int_equal(getpgid(muster_child_get_pid(child)), muster_child_get_pid(child));
        assert_int_equal(muster_child_kill(child, SIGKILL), 0);
        run_until(r.calls);
        assert_int_equal(r.error, 0);
        assert_int_equal(r.code, CLD_KILLED);
        assert_int_equal(r.status, SIGKILL);
        muster_child_unref(child);
        result_done(&r);

        o.timeout_usec = LIMIT_USEC;
        expect(run_script("trap 'exit 7' TERM; echo out; sleep 100 & wait", &o), -ETIMEDOUT, 7, "out\n", "");
}

/* A whole mebibyte goes in and comes back; none of it is needed. */
static void test_input(void **state) {
        enum { SIZE = 1024 * 1024 };
        muster_exec_options o = MUSTER_EXEC_OPTIONS_INIT;
        char *input = malloc(SIZE);

        assert_non_null(input);
        for (size_t i = 0; i < SIZE; i++)
                input[i] = (char) (i * 7 + i / 256);
        o.input = input;
        o.input_size = SIZE;
        o.max_buffer = SIZE;
        Result r = run_file("cat", NULL, &o);
        assert_int_equal(r.error, 0);
        assert_int_equal(r.status, 0);
        assert_int_equal(r.out_size, SIZE);
        assert_memory_equal(r.out, input, SIZE);
        result_done(&r);

        expect(run_file("true", NULL, &o), 0, 0, "", "");
        expect(run_script("exec <&-; echo closed", &o), 0, 0, "closed\n", "");
        expect(run_script("head -c 1 | wc -c", &o), 0, 0, "1\n", "");
        o.input = "";
        o.input_size = 0;
        expect(run_file("cat", NULL, &o), 0, 0, "", "");

        /* copied: the caller's may change at once */
        Result later = { 0 };
        o.input = input;
        o.input_size = SIZE;
        assert_int_equal(muster_exec_file(event, "cat", NULL, &o, take, &later, NULL), 0);
        char *same = malloc(SIZE);
        assert_non_null(same);
        memcpy(same, input, SIZE);
        memset(input, 'x', SIZE);
        run_until(later.calls);
        assert_int_equal(later.out_size, SIZE);
        assert_memory_equal(later.out, same, SIZE);
        result_done(&later);
        free(same);
        free(input);
}

/* Environment and directory are those of the options. */
static void test_env_and_cwd(void **state) {
        muster_exec_options o = MUSTER_EXEC_OPTIONS_INIT;

        o.env = STRINGS("TEST_A=1", "PATH=/usr/bin:/bin");
        o.cwd = "/usr";
        expect(run_script("echo $TEST_A $HOME; pwd", &o), 0, 0, "1\n/usr\n", "");
        o.env = STRINGS("PATH=/nonexistent");
        Result r = { 0 };
        assert_int_equal(muster_exec_file(event, "true", NULL, &o, take, &r, NULL), -ENOENT);
}

static void test_uid(void **state) {
        muster_exec_options o = MUSTER_EXEC_OPTIONS_INIT;

        if (getuid() != 0)
                skip();
        o.flags = MUSTER_SPAWN_SET_UID | MUSTER_SPAWN_SET_GID;
        o.uid = o.gid = NOBODY;
        expect(run_script("id -u; id -g; id -G", &o), 0, 0, "65534\n65534\n65534\n", "");
}

/* The call without a loop does not mind how the caller handles SIGCHLD, and leaves that alone. */
static void test_sync_sigchld(void **state) {
        sigset_t set, saved, now;

        sigemptyset(&set);
        sigaddset(&set, SIGCHLD);
        for (int how = 0; how < 2; how++) {
                assert_int_equal(sigprocmask(how ? SIG_BLOCK : SIG_UNBLOCK, &set, &saved), 0);
                muster_exec_result *result = NULL;
                int r = muster_exec_file_sync(
                                "/bin/sh", STRINGS("sh", "-c", "echo out; exit 3"), NULL, &result);
                assert_int_equal(sigprocmask(SIG_SETMASK, &saved, &now), 0);
                assert_int_equal(r, 0);
                assert_int_equal(sigismember(&now, SIGCHLD), how);
                assert_int_equal(result->status, 3);
                assert_string_equal(result->out, "out\n");
                muster_exec_result_free(result);
        }
        assert_int_equal(sigtimedwait(&set, NULL, &(struct timespec){ 0 }), -1); /* it would be a child's */
        assert_false(has_children());
}

/* Several runs share a loop. */
static void test_many(void **state) {
        enum { N = 20 };
        Result r[N] = { { 0 } };
        char command[64];

        for (int i = 0; i < N; i++) {
                snprintf(command, sizeof(command), "echo %d; exit %d", i, i);
                assert_int_equal(muster_exec(event, command, NULL, take, r + i, NULL), 0);
        }
        for (int i = 0; i < N; i++) {
                run_until(r[i].calls);
                assert_int_equal(r[i].status, i);
                assert_int_equal(atoi(r[i].out), i);
                result_done(r + i);
        }
        run_what_is_due();
        assert_false(has_children());
}

int main(void) {
        const struct CMUnitTest tests[] = {
                child_test(test_shell),
                child_test(test_file_plain),
                child_test(test_file_errno),
                child_test(test_max_buffer),
                child_test(test_binary),
                child_test(test_group_killed),
                child_test(test_over_limit_ignoring),
                child_test(test_timeout),
                child_test(test_kill_by_caller),
                child_test(test_input),
                child_test(test_env_and_cwd),
                child_test(test_uid),
                child_test(test_sync_sigchld),
                child_test(test_many),
        };

        setenv("PATH", "/usr/bin:/bin", 1); /* without directories that this user must not search */
        return cmocka_run_group_tests(tests, NULL, NULL);
}
