/* SPDX-License-Identifier: MIT */
/* The access log's way to its file, also where there is no room, no file any more, or nobody who reads. */

#include "../unit.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "basic/fd.h"
#include "basic/macro.h"
#include "worker/log-writer.h"

#define NOW (1000 * USEC_PER_SEC)

/* Of each line, with its end; the number of the request is what differs. */
#define LINE_SIZE 53

static char directory[64], path[96], moved[96];
static LogWriter writer;

static int setup(void **state) {
        strcpy(directory, "/tmp/test-log-writer-XXXXXX");
        assert_non_null(mkdtemp(directory));
        snprintf(path, sizeof(path), "%s/access", directory);
        snprintf(moved, sizeof(moved), "%s/access.1", directory);
        writer = LOG_WRITER_NULL;
        return 0;
}

static int teardown(void **state) {
        log_writer_done(&writer);
        (void) unlink(path);
        (void) unlink(moved);
        return rmdir(directory);
}

static void begin(void) {
        assert_int_equal(log_writer_init(&writer, path, ACCESS_LOG_COMMON, "app", 1), 0);
}

static void add_to(LogWriter *w, unsigned number, uint64_t now) {
        char target[16];
        AccessLogRecord r = { .status = 200 };

        snprintf(target, sizeof(target), "/%08u", number);
        r.line = (AccessLogText){ target, strlen(target) };
        log_writer_add(w, &r, now);
}

static void add(unsigned number, uint64_t now) {
        add_to(&writer, number, now);
}

static const char *content(const char *name) {
        static char buf[4 * LOG_WRITER_SIZE];
        _cleanup_close_ int fd = open(name, O_RDONLY | O_CLOEXEC);
        ssize_t n = fd < 0 ? 0 : read(fd, buf, sizeof(buf) - 1);

        assert_true(n >= 0 && n < (ssize_t) sizeof(buf) - 1);
        buf[n] = '\0';
        return buf;
}

static char *line_of(unsigned number) {
        static char buf[128];

        snprintf(buf, sizeof(buf), "- - - [01/Jan/1970:00:00:00 +0000] \"/%08u\" 200 0\n", number);
        assert_int_equal(strlen(buf), LINE_SIZE);
        return buf;
}

/* These lines and no others, in their order. */
static void assert_lines(const char *name, unsigned first, unsigned last) {
        const char *p = content(name);

        for (unsigned i = first; i <= last; i++, p += LINE_SIZE)
                assert_true(strncmp(p, line_of(i), LINE_SIZE) == 0);
        assert_string_equal(p, "");
}

/* Nothing is written, and nothing is due, before there is something and its second is over. */
static void test_deadline(void **state) {
        begin();
        assert_true(log_writer_deadline(&writer) == USEC_INFINITY);
        add(1, NOW);
        add(2, NOW + 500);
        assert_int_equal(log_writer_deadline(&writer), NOW + USEC_PER_SEC);
        assert_string_equal(content(path), "");
        log_writer_flush(&writer, NOW + USEC_PER_SEC);
        assert_lines(path, 1, 2);
        assert_true(log_writer_deadline(&writer) == USEC_INFINITY);
        add(3, NOW);
        log_writer_done(&writer);
        assert_lines(path, 1, 3);
}

/* As much as there is room for, and nothing is lost when it is full. */
static void test_full_buffer(void **state) {
        unsigned n = 2 * LOG_WRITER_SIZE / LINE_SIZE;

        begin();
        for (unsigned i = 1; i <= n; i++)
                add(i, NOW);
        struct stat st;
        assert_int_equal(stat(path, &st), 0);
        assert_true(st.st_size > LOG_WRITER_SIZE / 2 && st.st_size % LINE_SIZE == 0);
        log_writer_flush(&writer, NOW);
        assert_lines(path, 1, n);
        assert_int_equal(writer.n_dropped, 0);
}

/* What was there stays; the mode lets nobody else read it. */
static void test_append(void **state) {
        struct stat st;

        for (unsigned i = 1; i <= 2; i++) {
                begin();
                add(i, NOW);
                log_writer_done(&writer);
        }
        assert_lines(path, 1, 2);
        assert_int_equal(stat(path, &st), 0);
        assert_int_equal(st.st_mode & 07777 & ~0640, 0);
}

/* Moved away and made anew by the one who rotates, or not made at all; looked for once a second. */
static void test_rotation(void **state) {
        begin();
        add(1, NOW);
        log_writer_flush(&writer, NOW);
        assert_int_equal(rename(path, moved), 0);
        add(2, NOW + 1);
        log_writer_flush(&writer, NOW + 1);
        assert_lines(moved, 1, 2);
        assert_int_equal(access(path, F_OK), -1);

        add(3, NOW + USEC_PER_SEC);
        log_writer_flush(&writer, NOW + USEC_PER_SEC);
        assert_lines(moved, 1, 2);
        assert_lines(path, 3, 3);

        assert_int_equal(rename(path, moved), 0);
        close(open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
        add(4, NOW + 2 * USEC_PER_SEC);
        log_writer_flush(&writer, NOW + 2 * USEC_PER_SEC);
        assert_lines(moved, 3, 3);
        assert_lines(path, 4, 4);
}

/* The path is lost, or leads to something else: the file that is open is better than nothing. */
static void test_lost_path(void **state) {
        begin();
        assert_int_equal(rename(path, moved), 0);
        assert_int_equal(mkdir(path, 0700), 0);
        add(1, NOW);
        log_writer_flush(&writer, NOW);
        assert_lines(moved, 1, 1);
        assert_int_equal(rmdir(path), 0);
        add(2, NOW + USEC_PER_SEC);
        log_writer_flush(&writer, NOW + USEC_PER_SEC);
        assert_lines(path, 2, 2);
}

/* What can never hold a log is refused, and not waited for. */
static void test_not_a_file(void **state) {
        assert_int_equal(log_writer_init(&writer, directory, ACCESS_LOG_COMMON, "app", 1), -EISDIR);
        log_writer_done(&writer);
        assert_int_equal(log_writer_init(&writer, "/dev/full", ACCESS_LOG_COMMON, "app", 1),
                        LOG_WRITER_NOT_A_FILE);
        log_writer_done(&writer);
        assert_int_equal(mkfifo(path, 0600), 0);
        assert_int_equal(log_writer_init(&writer, path, ACCESS_LOG_COMMON, "app", 1), LOG_WRITER_NOT_A_FILE);
        log_writer_done(&writer);
        int reader = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
        assert_int_equal(log_writer_init(&writer, path, ACCESS_LOG_COMMON, "app", 1), LOG_WRITER_NOT_A_FILE);
        close(reader);
        log_writer_done(&writer);
        assert_int_equal(log_writer_init(&writer, "/nowhere/access", ACCESS_LOG_COMMON, "app", 1), -ENOENT);
}

static void limit_file_size(rlim_t size) {
        struct rlimit limit;

        assert_int_equal(getrlimit(RLIMIT_FSIZE, &limit), 0);
        limit.rlim_cur = size == RLIM_INFINITY ? limit.rlim_max : size;
        assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
}

/* No room in the middle of a line: its rest follows as soon as there is some, and no attempt before the
 * time. */
static void test_torn_line(void **state) {
        begin();
        for (unsigned i = 1; i <= 4; i++)
                add(i, NOW);
        limit_file_size(2 * LINE_SIZE + 10);
        log_writer_flush(&writer, NOW);
        assert_int_equal(strlen(content(path)), 2 * LINE_SIZE + 10);
        assert_int_equal(log_writer_deadline(&writer), NOW + USEC_PER_SEC);
        log_writer_flush(&writer, NOW + USEC_PER_SEC);
        assert_int_equal(writer.used, 2 * LINE_SIZE);
        limit_file_size(RLIM_INFINITY);
        log_writer_flush(&writer, NOW + 2 * USEC_PER_SEC);
        assert_lines(path, 1, 4);
        assert_int_equal(writer.n_dropped, 0);
}

/* A sibling has written behind the torn line: it is written anew, whole. */
static void test_torn_line_of_two(void **state) {
        char expected[8 * LINE_SIZE];
        int n;

        begin();
        add(1, NOW);
        add(2, NOW);
        limit_file_size(LINE_SIZE + 10);
        log_writer_flush(&writer, NOW);
        limit_file_size(RLIM_INFINITY);
        _cleanup_close_ int sibling = open(path, O_WRONLY | O_APPEND | O_CLOEXEC);
        assert_int_equal(write(sibling, "\nsibling\n", 9), 9);
        log_writer_flush(&writer, NOW + USEC_PER_SEC);

        n = snprintf(expected, sizeof(expected), "%s", line_of(1));
        n += snprintf(expected + n, sizeof(expected) - (size_t) n, "%.10s\nsibling\n\n", line_of(2));
        snprintf(expected + n, sizeof(expected) - (size_t) n, "%s", line_of(2));
        assert_string_equal(content(path), expected);
}

/* The oldest are kept as long as there is room; the others are counted, and serving goes on. */
static void test_no_room(void **state) {
        unsigned room = LOG_WRITER_SIZE / LINE_SIZE;

        begin();
        limit_file_size(0);
        for (unsigned i = 1; i <= 2 * room; i++)
                add(i, NOW);
        assert_true(writer.n_dropped >= room && writer.n_dropped <= room + 10);
        unsigned kept = 2 * room - (unsigned) writer.n_dropped;
        limit_file_size(RLIM_INFINITY);
        add(9, NOW + USEC_PER_SEC); /* its time has come, without anybody else who looks */
        log_writer_flush(&writer, NOW + USEC_PER_SEC);
        assert_int_equal(writer.n_dropped, 0);
        assert_int_equal(strlen(content(path)), (kept + 1) * LINE_SIZE);
        assert_true(strncmp(content(path) + kept * LINE_SIZE, line_of(9), LINE_SIZE) == 0);
}

/* In place of stderr, until it is given back. */
static int replace_stderr(int fd) {
        int saved = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 3);

        assert_true(saved >= 0);
        assert_true(dup2(fd, STDERR_FILENO) >= 0);
        return saved;
}

/* Outside of the journal lines go to stderr, and nobody who does not read it holds up the worker; what is
 * in the pipe is whole lines. */
static void test_stderr(void **state) {
        static char buf[256 * 1024];
        unsigned n = 3 * LOG_WRITER_SIZE / LINE_SIZE;
        int fds[2];

        (void) unsetenv("JOURNAL_STREAM");
        assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
        int saved = replace_stderr(fds[1]);
        int r = log_writer_init(&writer, "journal", ACCESS_LOG_COMMON, "app", 1);
        for (unsigned i = 1; i <= n; i++)
                add(i, NOW);
        uint64_t dropped = writer.n_dropped;
        (void) replace_stderr(saved);
        assert_int_equal(r, 0);
        assert_true(dropped > 0);
        assert_int_equal(fcntl(fds[1], F_GETFL) & O_NONBLOCK, 0); /* as it was for the others */

        ssize_t k = read(fds[0], buf, sizeof(buf));
        assert_true(k > PIPE_BUF && k % LINE_SIZE == 0);
        assert_true(strncmp(buf, line_of(1), LINE_SIZE) == 0);
        for (uint64_t now = NOW; writer.failing; now += USEC_PER_SEC) {
                log_writer_flush(&writer, now);
                assert_true(writer.failing || log_writer_deadline(&writer) == now + USEC_PER_SEC);
                k = read(fds[0], buf, sizeof(buf));
                assert_true(k > 0 && k % LINE_SIZE == 0);
        }
        assert_int_equal(writer.n_dropped, 0);
        log_writer_flush(&writer, NOW + 9 * USEC_PER_SEC);
        k = read(fds[0], buf, sizeof(buf) - 1);
        buf[MAX(k, (ssize_t) 0)] = '\0';
        char notice[64];
        snprintf(notice, sizeof(notice), "Worker 1 dropped %" PRIu64 " lines here.\n", dropped);
        assert_string_equal(buf, notice);
        close(fds[0]);
        close(fds[1]);
        close(saved);
}

/* A stream that takes only a part of a line gets the rest of that later. */
static void test_socket(void **state) {
        static char buf[1024 * 1024];
        size_t got = 0;
        ssize_t k;
        int fds[2];

        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
        int saved = replace_stderr(fds[1]);
        int r = log_writer_init(&writer, "journal", ACCESS_LOG_COMMON, "app", 1);
        (void) replace_stderr(saved);
        assert_int_equal(r, 0);
        for (unsigned i = 1; writer.n_dropped == 0; i++)
                add(i, NOW);
        uint64_t flushes = 0;
        while (writer.used > 0 || flushes++ == 0) {
                while ((k = recv(fds[0], buf + got, sizeof(buf) - got, MSG_DONTWAIT)) > 0)
                        got += (size_t) k;
                log_writer_flush(&writer, NOW + USEC_PER_SEC);
        }
        while ((k = recv(fds[0], buf + got, sizeof(buf) - got, MSG_DONTWAIT)) > 0)
                got += (size_t) k;
        buf[got] = '\0';
        const char *end = strstr(buf, "Worker 1 dropped 1 lines here.\n");
        assert_non_null(end);
        got = (size_t) (end - buf);
        assert_int_equal(got % LINE_SIZE, 0);
        for (size_t i = 0; i < got / LINE_SIZE; i++)
                assert_true(strncmp(buf + i * LINE_SIZE, line_of((unsigned) i + 1), LINE_SIZE) == 0);
        close(fds[0]);
        close(fds[1]);
        close(saved);
}

#define test(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void) {
        const struct CMUnitTest tests[] = {
                test(test_deadline),
                test(test_full_buffer),
                test(test_append),
                test(test_rotation),
                test(test_lost_path),
                test(test_not_a_file),
                test(test_torn_line),
                test(test_torn_line_of_two),
                test(test_no_room),
                test(test_stderr),
                test(test_socket),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
