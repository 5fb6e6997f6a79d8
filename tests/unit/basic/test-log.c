/* SPDX-License-Identifier: MIT */
/* Lines on stderr; what reaches a real journal is seen by the system suite. */

#include "../unit.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "basic/fd.h"
#include "basic/log.h"

static int saved_stderr = -EBADF;
static int pipe_fds[2] = { -EBADF, -EBADF };
static char captured[8192];

static void capture_begin(void) {
        assert_int_equal(pipe2(pipe_fds, O_CLOEXEC | O_NONBLOCK), 0);
        saved_stderr = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 3);
        assert_true(dup2(pipe_fds[1], STDERR_FILENO) >= 0);
}

static const char *capture_end(void) {
        ssize_t n = read(pipe_fds[0], captured, sizeof(captured) - 1);

        captured[n > 0 ? n : 0] = '\0';
        dup2(saved_stderr, STDERR_FILENO);
        saved_stderr = safe_close(saved_stderr);
        pipe_fds[0] = safe_close(pipe_fds[0]);
        pipe_fds[1] = safe_close(pipe_fds[1]);
        return captured;
}

static int setup(void **state) {
        unsetenv("JOURNAL_STREAM");
        unsetenv("MUSTER_LOG_LEVEL");
        log_set_max_level(LOG_INFO);
        return 0;
}

/* The line that is to be seen for "hello" said by @who. */
static const char *line(const char *who, const char *text) {
        static char buf[256];

        snprintf(buf, sizeof(buf), "%s[%d]: %s\n", who, getpid(), text);
        return buf;
}

/* Who speaks stands at the head of the line: the program, the app, the worker's slot. No colour in a pipe.
 */
static void test_head(void **state) {
        capture_begin();
        log_open(&(LogContext){ .program = "musterd" });
        log_info("hello");
        assert_string_equal(capture_end(), line("musterd", "hello"));

        capture_begin();
        log_open(&(LogContext){ .program = "musterd", .app = "web" });
        log_error("hello %d", 5);
        assert_string_equal(capture_end(), line("musterd web", "hello 5"));

        capture_begin();
        log_open(&(LogContext){ .program = "muster-worker", .app = "web", .worker = 3 });
        log_warning("hello");
        assert_string_equal(capture_end(), line("muster-worker web-3", "hello"));
}

/* %m is the error that was passed; the call returns it and leaves errno as it was. */
static void test_errno(void **state) {
        capture_begin();
        log_open(&(LogContext){ .program = "p" });
        errno = EXDEV;
        assert_int_equal(log_error_errno(-ENOENT, "Failed: %m"), -ENOENT);
        assert_int_equal(errno, EXDEV);
        log_error("Failed: %m");
        assert_int_equal(errno, EXDEV);
        capture_end();
        assert_non_null(strstr(captured, "Failed: No such file or directory\n"));
        assert_non_null(strstr(captured, "Failed: Invalid cross-device link\n"));

        capture_begin();
        assert_int_equal(log_oom(), -ENOMEM);
        assert_non_null(strstr(capture_end(), "Out of memory."));
}

/* What is below the level is not written, but its error is still passed on. */
static void test_level(void **state) {
        capture_begin();
        log_open(&(LogContext){ .program = "p" });
        log_debug("no");
        assert_int_equal(log_debug_errno(-EIO, "no"), -EIO);
        log_set_max_level(LOG_ERR);
        log_warning("no");
        assert_string_equal(capture_end(), "");

        capture_begin();
        setenv("MUSTER_LOG_LEVEL", "debug", 1);
        log_open(&(LogContext){ .program = "p" });
        log_debug("yes");
        assert_string_equal(capture_end(), line("p", "yes"));
}

/* Levels by name and by number, nothing else; a wrong one in the environment is said and ignored. */
static void test_level_from_string(void **state) {
        assert_int_equal(log_level_from_string("emerg"), LOG_EMERG);
        assert_int_equal(log_level_from_string("err"), LOG_ERR);
        assert_int_equal(log_level_from_string("debug"), LOG_DEBUG);
        assert_int_equal(log_level_from_string("0"), LOG_EMERG);
        assert_int_equal(log_level_from_string("7"), LOG_DEBUG);
        assert_int_equal(log_level_from_string("8"), -EINVAL);
        assert_int_equal(log_level_from_string("-1"), -EINVAL);
        assert_int_equal(log_level_from_string("loud"), -EINVAL);
        assert_int_equal(log_level_from_string(""), -EINVAL);

        setenv("MUSTER_LOG_LEVEL", "loud", 1);
        capture_begin();
        log_open(&(LogContext){ .program = "p" });
        log_info("still");
        capture_end();
        assert_non_null(strstr(captured, "MUSTER_LOG_LEVEL: found \"loud\", expected"));
        assert_non_null(strstr(captured, "still"));
}

/* A message of any length is one bounded line. */
static void test_long_message(void **state) {
        char text[5000];

        memset(text, 'x', sizeof(text) - 1);
        text[sizeof(text) - 1] = '\0';
        capture_begin();
        log_open(&(LogContext){ .program = "p" });
        log_info("%s", text);
        capture_end();
        assert_in_range(strlen(captured), 1000, 2200);
        assert_ptr_equal(strchr(captured, '\n'), captured + strlen(captured) - 1);
}

/* stderr counts as the journal only when $JOURNAL_STREAM names this very file (systemd.exec(5)). */
static void test_journal_stream(void **state) {
        char value[64];
        struct stat st;

        assert_int_equal(fstat(STDERR_FILENO, &st), 0);
        assert_false(log_stderr_is_journal());
        snprintf(value, sizeof(value), "%lu:%lu", (unsigned long) st.st_dev, (unsigned long) st.st_ino);
        setenv("JOURNAL_STREAM", value, 1);
        assert_true(log_stderr_is_journal());
        snprintf(value, sizeof(value), "%lu:%lu", (unsigned long) st.st_dev, (unsigned long) st.st_ino + 1);
        setenv("JOURNAL_STREAM", value, 1);
        assert_false(log_stderr_is_journal());
        setenv("JOURNAL_STREAM", "nonsense", 1);
        assert_false(log_stderr_is_journal());
}

/* The last words are on stderr whatever it is; for the journal, which knows the stream's unit, with their
 * level. */
static void test_last_words(void **state) {
        LogEvent event = { .message_id = MESSAGE_ID_START_FAILED };
        char value[512];
        struct stat st;

        capture_begin();
        log_open(&(LogContext){ .program = "p" });
        log_last_words(&event, "The app cannot start.", "no luck");
        assert_string_equal(capture_end(), line("p", "no luck"));

        capture_begin();
        assert_int_equal(fstat(STDERR_FILENO, &st), 0);
        snprintf(value, sizeof(value), "%lu:%lu", (unsigned long) st.st_dev, (unsigned long) st.st_ino);
        setenv("JOURNAL_STREAM", value, 1);
        log_open(&(LogContext){ .program = "p" });
        log_copy_to(STDERR_FILENO, LOG_WARNING);
        log_last_words(&event, "The app cannot start.", "no luck");
        log_copy_to(-EBADF, LOG_EMERG);
        capture_end();
        snprintf(value, sizeof(value), "<3>no luck\n%s", line("p", "no luck"));
        assert_string_equal(captured, value);
}

/* A speaker is not gone before the journal has read what it said: that is when its unit is looked up. */
static void test_last_words_are_heard(void **state) {
        LogEvent event = { .message_id = MESSAGE_ID_START_FAILED };
        char value[64], heard[64] = "";
        int sv[2], status;
        struct stat st;
        pid_t pid;

        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv), 0);
        pid = fork();
        assert_true(pid >= 0);
        if (pid == 0) {
                if (dup2(sv[1], STDERR_FILENO) < 0 || fstat(STDERR_FILENO, &st) < 0)
                        _exit(1);
                snprintf(value, sizeof(value), "%lu:%lu", (unsigned long) st.st_dev,
                                (unsigned long) st.st_ino);
                setenv("JOURNAL_STREAM", value, 1);
                log_open(&(LogContext){ .program = "p" });
                log_last_words(&event, "The app cannot start.", "no luck");
                _exit(0);
        }
        safe_close(sv[1]);

        struct pollfd said = { .fd = sv[0], .events = POLLIN };
        assert_int_equal(poll(&said, 1, 10000), 1);
        (void) poll(NULL, 0, 50); /* it would have ended by now */
        assert_int_equal(waitpid(pid, &status, WNOHANG), 0);

        assert_true(read(sv[0], heard, sizeof(heard) - 1) > 0);
        assert_string_equal(heard, "<3>no luck\n");
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_int_equal(status, 0);
        safe_close(sv[0]);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup(test_head, setup),
                cmocka_unit_test_setup(test_errno, setup),
                cmocka_unit_test_setup(test_level, setup),
                cmocka_unit_test_setup(test_level_from_string, setup),
                cmocka_unit_test_setup(test_long_message, setup),
                cmocka_unit_test_setup(test_journal_stream, setup),
                cmocka_unit_test_setup(test_last_words, setup),
                cmocka_unit_test_setup(test_last_words_are_heard, setup),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
