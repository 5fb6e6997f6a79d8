/* SPDX-License-Identifier: MIT */
/* Helpers for descriptors. */

#include "../unit.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "basic/fd.h"
#include "basic/macro.h"

static bool fd_is_open(int fd) {
        return fcntl(fd, F_GETFD) >= 0;
}

/* safe_close() closes, returns the empty descriptor, leaves errno alone, and takes an empty one. */
static void test_safe_close(void **state) {
        int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);

        assert_true(fd >= 0);
        errno = ENOTTY;
        assert_int_equal(safe_close(fd), -EBADF);
        assert_int_equal(errno, ENOTTY);
        assert_false(fd_is_open(fd));

        assert_int_equal(safe_close(-EBADF), -EBADF);
        assert_int_equal(safe_close(fd), -EBADF);
}

/* TAKE_FD hands over and leaves the empty descriptor, so that the cleanup of the source closes nothing. */
static void test_take_fd(void **state) {
        int taken, number;

        {
                _cleanup_close_ int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
                number = fd;
                taken = TAKE_FD(fd);
                assert_int_equal(fd, -EBADF);
        }
        assert_int_equal(taken, number);
        assert_true(fd_is_open(taken));
        {
                _cleanup_close_ int fd = taken;
                assert_true(fd_is_open(fd));
        }
        assert_false(fd_is_open(taken));
}

/* The flags are set and cleared, whatever was there, and no other flag is touched. */
static void test_flags(void **state) {
        _cleanup_close_ int fd = open("/dev/null", O_WRONLY | O_APPEND | O_CLOEXEC);

        for (int i = 0; i < 4; i++) {
                bool on = i % 2;

                assert_int_equal(fd_set_nonblock(fd, on), 0);
                assert_int_equal(fd_set_nonblock(fd, on), 0);
                assert_int_equal(!!(fcntl(fd, F_GETFL) & O_NONBLOCK), on);
                assert_int_equal(fcntl(fd, F_GETFL) & (O_ACCMODE | O_APPEND), O_WRONLY | O_APPEND);

                assert_int_equal(fd_set_cloexec(fd, !on), 0);
                assert_int_equal(fd_set_cloexec(fd, !on), 0);
                assert_int_equal(fcntl(fd, F_GETFD), on ? 0 : FD_CLOEXEC);
        }
        assert_int_equal(fd_set_nonblock(-EBADF, true), -EBADF);
        assert_int_equal(fd_set_cloexec(-EBADF, true), -EBADF);
}

/* A file of exactly the limit is read whole, one byte more is -EFBIG, and the output stays as it was. */
static void test_read_small_file(void **state) {
        _cleanup_close_ int fd = memfd_create("test-fd", MFD_CLOEXEC);
        char path[64], *untouched = (char *) "x";

        assert_int_equal(write(fd, "12345678", 8), 8);
        snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);

        _cleanup_free_ char *whole = NULL;
        assert_int_equal(read_small_file(AT_FDCWD, path, 8, &whole), 0);
        assert_string_equal(whole, "12345678");
        assert_int_equal(read_small_file(AT_FDCWD, path, 7, &untouched), -EFBIG);
        assert_int_equal(read_small_file(AT_FDCWD, "/nonexistent", 7, &untouched), -ENOENT);
        assert_int_equal(read_small_file(AT_FDCWD, "/", 7, &untouched), -EISDIR);
        assert_string_equal(untouched, "x");

        assert_int_equal(ftruncate(fd, 0), 0);
        _cleanup_free_ char *empty = NULL;
        assert_int_equal(read_small_file(AT_FDCWD, path, 0, &empty), 0);
        assert_string_equal(empty, "");
}

/* Relative paths start at the directory, and files of /proc, whose size is told as 0, are read. */
static void test_read_below_directory(void **state) {
        _cleanup_close_ int dir = open("/proc/self", O_PATH | O_DIRECTORY | O_CLOEXEC);
        _cleanup_free_ char *text = NULL;

        assert_int_equal(read_small_file(dir, "stat", 4096, &text), 0);
        assert_true(strlen(text) > 10);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_safe_close),
                cmocka_unit_test(test_take_fd),
                cmocka_unit_test(test_flags),
                cmocka_unit_test(test_read_small_file),
                cmocka_unit_test(test_read_below_directory),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
