/* SPDX-License-Identifier: MIT */
/* Who is a child, and whose process it is. What the master does about it is told by the integration tests.
 */

#include "../unit.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "basic/macro.h"
#include "master/orphans.h"

#define N_CHILDREN 40

/* A process that lives until it is killed, and does not outlive the test. */
static pid_t start_child(const char *name) {
        int ready[2];
        pid_t pid;

        assert_int_equal(pipe2(ready, O_CLOEXEC), 0);
        pid = fork();
        assert_true(pid >= 0);
        if (pid == 0) {
                (void) prctl(PR_SET_PDEATHSIG, SIGKILL);
                (void) prctl(PR_SET_NAME, name);
                close(ready[0]);
                close(ready[1]);
                for (;;)
                        pause();
        }
        close(ready[1]);
        assert_int_equal(read(ready[0], &(char){ 0 }, 1), 0);
        close(ready[0]);
        return pid;
}

/* Likewise, which executes a program (this one), with just this environment. It says by itself that it runs:
 * when its other descriptors are closed, the environment is not there yet. */
static pid_t start_program(char *const env[]) {
        char said[16];
        int p[2];
        pid_t pid;

        assert_int_equal(pipe2(p, O_CLOEXEC), 0);
        pid = fork();
        assert_true(pid >= 0);
        if (pid == 0) {
                (void) prctl(PR_SET_PDEATHSIG, SIGKILL);
                snprintf(said, sizeof(said), "%d", dup(p[1]));
                (void) execve("/proc/self/exe", (char *[]){ (char *) "test", said, NULL }, env);
                _exit(127);
        }
        close(p[1]);
        assert_int_equal(read(p[0], &(char){ 0 }, 1), 1);
        close(p[0]);
        return pid;
}

static void end_child(pid_t pid) {
        assert_int_equal(kill(pid, SIGKILL), 0);
        assert_int_equal(waitpid(pid, NULL, 0), pid);
}

static void make_zombie(pid_t pid) {
        siginfo_t si;

        assert_int_equal(kill(pid, SIGKILL), 0);
        assert_int_equal(waitid(P_PID, (id_t) pid, &si, WEXITED | WNOWAIT), 0);
}

static int compare(const void *a, const void *b) {
        return *(const pid_t *) a - *(const pid_t *) b;
}

/* Both ways find the same, zombies and odd names included, in ascending order. */
static void test_children(void **state) {
        pid_t expected[N_CHILDREN];

        for (size_t i = 0; i < N_CHILDREN; i++)
                expected[i] = start_child(i % 2 ? "a) R 1 (b" : "plain");
        make_zombie(expected[3]);
        qsort(expected, N_CHILDREN, sizeof(pid_t), compare);
        for (int scan = 0; scan <= 1; scan++) {
                _cleanup_free_ pid_t *found = NULL;
                size_t n = 0;
                int r = orphans_list_children(getpid(), scan, &found, &n);

                if (!scan && r == -ENOENT)
                        continue; /* this kernel has no such list */
                assert_int_equal(r, 0);
                assert_int_equal(n, N_CHILDREN);
                assert_memory_equal(found, expected, sizeof(expected));
        }
        for (size_t i = 0; i < N_CHILDREN; i++)
                end_child(expected[i]);
}

static void test_no_children(void **state) {
        for (int scan = 0; scan <= 1; scan++) {
                _cleanup_free_ pid_t *found = NULL;
                size_t n = 1;
                int r = orphans_list_children(getpid(), scan, &found, &n);

                if (!scan && r == -ENOENT)
                        continue;
                assert_int_equal(r, 0);
                assert_int_equal(n, 0);
        }
}

static void test_id(void **state) {
        static const char *const wrong[] = {
                "",
                "MUSTER_WORKER_ID",
                "MUSTER_WORKER_ID=",
                "MUSTER_WORKER_ID=7",
                "MUSTER_WORKER_ID=7.2",
                "MUSTER_WORKER_ID=7.2.",
                "MUSTER_WORKER_ID=7.2.123x",
                "MUSTER_WORKER_ID=7.2.123.4",
                "MUSTER_WORKER_ID=8.2.123",
                "MUSTER_WORKER_ID=7.2.0",
                "MUSTER_WORKER=7.2.123",
                "XMUSTER_WORKER_ID=7.2.123",
        };
        WorkerId id = { .slot = 99, .started_usec = 98 };

        for (size_t i = 0; i < ELEMENTSOF(wrong); i++)
                assert_false(worker_id_from_variable(wrong[i], 7, &id));
        assert_int_equal(id.slot, 99);
        assert_int_equal(id.started_usec, 98);
        assert_true(worker_id_from_variable("MUSTER_WORKER_ID=7.2.12345678901234", 7, &id));
        assert_int_equal(id.slot, 2);
        assert_true(id.started_usec == UINT64_C(12345678901234));
}

/* It is the last of many variables; one of another master before it does not count. */
static void test_owner(void **state) {
        static char large[100000] = "LARGE=";
        char *const env[] = { large, (char *) "MUSTER_WORKER_ID=8.1.5", (char *) "",
                (char *) "A=MUSTER_WORKER_ID=7.9.9", (char *) "MUSTER_WORKER_ID=7.3.6", NULL };
        WorkerId id = { .slot = 0 };
        pid_t pid;

        memset(large + strlen(large), 'x', sizeof(large) - strlen(large) - 1);
        pid = start_program(env);
        assert_true(orphans_read_owner(pid, 7, &id));
        assert_int_equal(id.slot, 3);
        assert_int_equal(id.started_usec, 6);
        assert_true(orphans_read_owner(pid, 8, &id));
        assert_int_equal(id.slot, 1);
        assert_false(orphans_read_owner(pid, 9, &id));
        end_child(pid);
}

/* Nothing is said by a process without an environment, a zombie, and one that does not exist. */
static void test_no_owner(void **state) {
        char *const env[] = { (char *) "MUSTER_WORKER_ID=7.3.6", NULL };
        WorkerId id = { .slot = 42 };
        pid_t pid;

        pid = start_program((char *[]){ NULL });
        assert_false(orphans_read_owner(pid, 7, &id));
        end_child(pid);

        pid = start_program(env);
        assert_true(orphans_read_owner(pid, 7, &id));
        id.slot = 42;
        make_zombie(pid);
        assert_false(orphans_read_owner(pid, 7, &id));
        assert_int_equal(waitpid(pid, NULL, 0), pid);
        assert_false(orphans_read_owner(pid, 7, &id));
        assert_int_equal(id.slot, 42);
}

int main(int argc, char *argv[]) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_no_children),
                cmocka_unit_test(test_children),
                cmocka_unit_test(test_id),
                cmocka_unit_test(test_owner),
                cmocka_unit_test(test_no_owner),
        };

        if (argc > 1) {
                (void) !write(atoi(argv[1]), "", 1);
                for (;;)
                        pause();
        }
        return cmocka_run_group_tests(tests, NULL, NULL);
}
