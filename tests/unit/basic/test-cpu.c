/* SPDX-License-Identifier: MIT */
/* How many CPUs the service may use: affinity, and cpu.max in a cgroup tree made of plain files. */

#include "../unit.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "basic/cpu.h"
#include "basic/macro.h"

static char root[] = "/tmp/test-cpu-XXXXXX";

static int setup(void **state) {
        return mkdtemp(root) ? 0 : -1;
}

static int remove_one(const char *path, const struct stat *st, int flag, struct FTW *ftw) {
        return remove(path);
}

static int teardown(void **state) {
        return nftw(root, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

/* Makes the cgroup @path, whose parent is there, with @text in cpu.max; without that file if NULL. */
static void make_cgroup(const char *path, const char *text) {
        char file[256];

        snprintf(file, sizeof(file), "%s/%s", root, path);
        if (*path)
                assert_int_equal(mkdir(file, 0700), 0);
        if (!text)
                return;
        snprintf(file, sizeof(file), "%s/%s/cpu.max", root, path);

        FILE *f = fopen(file, "we");
        assert_non_null(f);
        fputs(text, f);
        assert_int_equal(fclose(f), 0);
}

/* A process bound to one CPU counts one, however many the machine has. */
static void test_affinity(void **state) {
        cpu_set_t saved, one;

        assert_int_equal(sched_getaffinity(0, sizeof(saved), &saved), 0);
        assert_int_equal(cpu_count_affinity(), CPU_COUNT(&saved));

        CPU_ZERO(&one);
        for (int i = 0; i < CPU_SETSIZE; i++)
                if (CPU_ISSET(i, &saved)) {
                        CPU_SET(i, &one);
                        break;
                }
        assert_int_equal(sched_setaffinity(0, sizeof(one), &one), 0);
        assert_int_equal(cpu_count_affinity(), 1);
        assert_int_equal(cpu_count(), 1);
        assert_int_equal(sched_setaffinity(0, sizeof(saved), &saved), 0);
}

/* The effective number is at least 1 and never above the affinity, whatever the quota. */
static void test_count_is_bounded(void **state) {
        assert_in_range(cpu_count(), 1, cpu_count_affinity());
}

/* A quota is rounded up to whole CPUs: 1.5 CPUs of time are worth two workers, 0.05 one. */
static void test_quota_is_rounded_up(void **state) {
        make_cgroup("half", "50000 100000\n");
        make_cgroup("one", "100000 100000\n");
        make_cgroup("more", "100001 100000\n");
        make_cgroup("three", "300000 100000\n");
        make_cgroup("tiny", "1000 1000000\n");

        assert_int_equal(cpu_count_quota(root, "/half"), 1);
        assert_int_equal(cpu_count_quota(root, "/one"), 1);
        assert_int_equal(cpu_count_quota(root, "/more"), 2);
        assert_int_equal(cpu_count_quota(root, "/three"), 3);
        assert_int_equal(cpu_count_quota(root, "/tiny"), 1);
}

/* The smallest quota counts, wherever it stands: in the leaf, between, or at the root. */
static void test_quota_is_least_of_ancestors(void **state) {
        make_cgroup("a", "max 100000\n");
        make_cgroup("a/b", "200000 100000\n");
        make_cgroup("a/b/c", "400000 100000\n");
        make_cgroup("a/b/c/d", "max 100000\n");
        make_cgroup("a/b/e", "100000 100000\n");

        assert_int_equal(cpu_count_quota(root, "/a"), 0);
        assert_int_equal(cpu_count_quota(root, "/a/b"), 2);
        assert_int_equal(cpu_count_quota(root, "/a/b/c"), 2);
        assert_int_equal(cpu_count_quota(root, "/a/b/c/d"), 2);
        assert_int_equal(cpu_count_quota(root, "/a/b/e"), 1);

        /* in a cgroup namespace the root itself has a limit */
        make_cgroup("", "100000 100000\n");
        assert_int_equal(cpu_count_quota(root, "/a/b/c/d"), 1);
        assert_int_equal(cpu_count_quota(root, "/"), 1);
        char file[256];
        snprintf(file, sizeof(file), "%s/cpu.max", root);
        assert_int_equal(unlink(file), 0);
}

/* What is missing or makes no sense is no limit, and the limits above it still count. */
static void test_quota_unreadable(void **state) {
        make_cgroup("u", "300000 100000\n");
        make_cgroup("u/none", NULL);
        make_cgroup("u/words", "a lot\n");
        make_cgroup("u/zero", "0 100000\n");
        make_cgroup("u/division", "100000 0\n");
        make_cgroup("u/empty", "");
        make_cgroup("u/huge", "18446744073709551615 1\n");

        assert_int_equal(cpu_count_quota(root, "/u/none"), 3);
        assert_int_equal(cpu_count_quota(root, "/u/words"), 3);
        assert_int_equal(cpu_count_quota(root, "/u/zero"), 3);
        assert_int_equal(cpu_count_quota(root, "/u/division"), 3);
        assert_int_equal(cpu_count_quota(root, "/u/empty"), 3);
        assert_int_equal(cpu_count_quota(root, "/u/huge"), 3);
        assert_int_equal(cpu_count_quota(root, "/u/gone/far"), 3);
        assert_int_equal(cpu_count_quota(root, "/"), 0);
        assert_int_equal(cpu_count_quota("/nonexistent", "/u"), 0);
}

/* A path longer than the system allows is no crash. */
static void test_quota_long_path(void **state) {
        char path[8192];

        memset(path, 'x', sizeof(path) - 1);
        path[0] = '/';
        path[sizeof(path) - 1] = '\0';
        assert_int_equal(cpu_count_quota(root, path), 0);
}

/* Only the line of cgroup v2 counts, wherever it stands, on pure and on hybrid hosts. */
static void test_cgroup_path(void **state) {
        static const struct {
                const char *text, *path;
        } cases[] = {
                { "0::/\n", "/" },
                { "0::/system.slice/muster@web.service\n", "/system.slice/muster@web.service" },
                { "0::/no/newline", "/no/newline" },
                { "12:cpu,cpuacct:/x\n1:name=systemd:/y\n0::/z\n", "/z" },
                { "0::/first\n1:cpu:/second\n", "/first" },
                { "10::/ten\n0::/zero\n", "/zero" },
        };

        for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
                _cleanup_free_ char *path = NULL;
                assert_int_equal(cgroup_path_from_text(cases[i].text, &path), 0);
                assert_string_equal(path, cases[i].path);
        }

        char *untouched = (char *) "x";
        assert_int_equal(cgroup_path_from_text("", &untouched), -ENOENT);
        assert_int_equal(cgroup_path_from_text("4:cpu:/only/v1\n", &untouched), -ENOENT);
        assert_int_equal(cgroup_path_from_text("0::relative\n", &untouched), -ENOENT);
        assert_string_equal(untouched, "x");
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_affinity),
                cmocka_unit_test(test_count_is_bounded),
                cmocka_unit_test(test_quota_is_rounded_up),
                cmocka_unit_test(test_quota_is_least_of_ancestors),
                cmocka_unit_test(test_quota_unreadable),
                cmocka_unit_test(test_quota_long_path),
                cmocka_unit_test(test_cgroup_path),
        };

        return cmocka_run_group_tests(tests, setup, teardown);
}
