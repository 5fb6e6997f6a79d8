/* SPDX-License-Identifier: MIT */
/* A cluster and single workers: what they say to each other, how one is replaced, and what becomes of one
 * that does not keep to the rules. */

#include "cluster.h"

#include <sys/prctl.h>

/*
 * Messages
 */

static void test_messages(void **state) {
        muster_cluster_options o = options_of(2);

        start_ready(&o);
        assert_string_equal(ask(2, "\"echo\""), "\"echo\"");
        assert_string_equal(seen.log, "message 2: \"echo\"\n");
        assert_int_equal(seen.fd, -1);
        assert_int_equal(muster_cluster_worker_send(seen.worker[1], "not JSON", -1), -EBADMSG);
        assert_int_equal(muster_cluster_worker_send(seen.worker[1], "1", 12345), -EBADF);
        assert_string_equal(ask(1, "\"echo\""), "\"echo\"");
        stop_and_free();
}

/* One that does not read gets no more than what little may wait for it. */
static void test_messages_for_one_that_does_not_read(void **state) {
        muster_cluster_options o = options_of(2);

        start_ready(&o);
        assert_int_equal(kill(seen.pid[2], SIGSTOP), 0);
        assert_string_equal(ask(1, "\"broadcast many\""), "\"broadcast many\"");
        assert_int_equal(kill(seen.pid[2], SIGCONT), 0);
        unsigned n = (unsigned) atoi(ask(2, "\"heard\""));
        assert_in_range(n, 512 * 1024 / 100, 512 * 1024 / 80 + 2000); /* some were with the kernel */
        stop_and_free();
}

static void test_messages_with_descriptors(void **state) {
        muster_cluster_options o = options_of(1);
        struct stat sent, back;
        int pipes[2];

        start_ready(&o);
        assert_int_equal(pipe2(pipes, O_CLOEXEC), 0);
        for (int i = 0; i < 3; i++) {
                unsigned before = seen.n_messages;

                assert_in_range(muster_cluster_worker_send(seen.worker[1], "{\"take\":\"it\"}", pipes[0]), 0,
                                1);
                run_until(seen.n_messages > before);
                assert_string_equal(seen.message, "{\"take\":\"it\"}");
                assert_true(seen.fd >= 0);
                assert_int_equal(fstat(pipes[0], &sent), 0);
                assert_int_equal(fstat(seen.fd, &back), 0);
                assert_int_equal(sent.st_ino, back.st_ino);
        }
        close(pipes[0]);
        close(pipes[1]);
        stop_and_free();
}

static muster_cluster_worker *in_exit_handler;

static void send_to_the_dead(const char *what) {
        if (strcmp(what, "exit") == 0 && in_exit_handler) {
                assert_int_equal(muster_cluster_worker_send(in_exit_handler, "1", -1), -EPIPE);
                assert_int_equal(muster_cluster_worker_retire(in_exit_handler), 0);
                in_exit_handler = NULL;
        }
}

static void test_message_to_one_that_has_ended(void **state) {
        muster_cluster_options o = options_of(1);

        start_ready(&o);
        in_exit_handler = seen.worker[1];
        seen.then = send_to_the_dead;
        command(1, "\"exit\"");
        run_until(seen.n_ready == 2 && seen.n_exits == 1);
        assert_null(in_exit_handler);
        assert_heard_both("exit 1: status 3\n", "ready 1\n");
        stop_and_free();
}

/* Whichever the loop sees first, the message or the end; and when it sees both at once, more than it reads
 * in one turn. */
static void test_last_words(void **state) {
        muster_cluster_options o = options_of(1);

        o.backoff_min_usec = o.backoff_max_usec = 1;
        start_ready(&o);
        for (int i = 0; i < 20; i++) {
                seen.log[0] = '\0';
                seen.n_ready = 0;
                _cleanup_close_ int pidfd = pidfd_of(seen.pid[1]);
                command(1, i % 2 ? "\"last words\"" : "\"long last words\"");
                if (i % 4 < 2)
                        wait_for_end(pidfd);
                run_until(seen.n_ready && seen.n_exits == (unsigned) i + 1);
                assert_int_equal(seen.message_length, i % 2 ? strlen("\"last words\"") : LONG_MESSAGE);
                assert_true(heard("message 1: \""));
                assert_true(strstr(seen.log, "exit 1: status 0\n") > strstr(seen.log, "message 1"));
        }
        stop_and_free();
}

static void test_ready_twice(void **state) {
        muster_cluster_options o = options_of(1);

        start_ready(&o);
        assert_string_equal(ask(1, "\"ready again\""), "\"ready again\"");
        assert_int_equal(seen.n_ready, 1);
        assert_int_equal(muster_cluster_get_n_ready(seen.cluster), 1);
        stop_and_free();
}

/*
 * Replacement
 */

/* In all that follows the replacement serves before the old one is told to go. */
static void retire_in_order(const char *json, const char *reason) {
        muster_cluster_options o = options_of(2);
        char expected[1024];

        o.backoff_min_usec = o.backoff_max_usec = HOUR_USEC; /* the first is replaced at once */
        start_ready(&o);
        seen.always_ready = 2;
        pid_t old = seen.pid[2];
        command(2, json);
        run_until(seen.n_exits == 1);
        snprintf(expected, sizeof(expected),
                        "retiring 2: %s\nready 2\nmessage 2: \"retired\"\nexit 2: status 42\n", reason);
        assert_string_equal(seen.log, expected);
        assert_int_equal(seen.ended_pid, old);
        assert_int_not_equal(seen.pid[2], old);
        assert_int_equal(muster_cluster_get_n_ready(seen.cluster), 2);
        seen.always_ready = 0;
        stop_and_free();
        assert_int_equal(seen.n_exits, 3);
}

static void test_retire(void **state) {
        retire_in_order("\"retire\"", REASON_TOLD);
}

static void test_retire_without_reason(void **state) {
        retire_in_order("\"retire without\"", "");
}

static void test_retire_with_long_reason(void **state) {
        char quotes[257];

        memset(quotes, '"', 256);
        quotes[256] = '\0';
        retire_in_order("\"retire long\"", quotes);
}

static void test_suicide(void **state) {
        retire_in_order("\"suicide\"", "I Am \"done\"");
}

/* It is told of once, and has one replacement. */
static void test_retire_twice(void **state) {
        muster_cluster_options o = options_of(1);

        start_ready(&o);
        seen.always_ready = 1;
        command(1, "\"retire\"");
        command(1, "\"suicide\"");
        run_until(seen.n_exits == 1);
        assert_string_equal(seen.log,
                        "retiring 1: " REASON_TOLD "\nready 1\nmessage 1: \"retired\"\nexit 1: status 42\n");
        seen.always_ready = 0;
        stop_and_free();
        assert_int_equal(seen.n_exits, 2);
}

/* By the primary's own wish, which is no sign of bad health: no pause, however often. */
static void test_retired_by_primary(void **state) {
        muster_cluster_options o = options_of(2);

        o.backoff_min_usec = o.backoff_max_usec = HOUR_USEC;
        start_ready(&o);
        seen.always_ready = 2;
        for (unsigned i = 1; i <= 4; i++) {
                pid_t old = seen.pid[1];

                seen.log[0] = '\0';
                assert_int_equal(muster_cluster_worker_retire(seen.worker[1]), 0);
                assert_int_equal(muster_cluster_worker_retire(seen.worker[1]), 0);
                assert_int_equal(muster_cluster_get_n_ready(seen.cluster), 2);
                run_until(seen.n_exits == i);
                assert_string_equal(seen.log, "ready 1\nmessage 1: \"retired\"\nexit 1: status 42\n");
                assert_int_equal(seen.ended_pid, old);
        }
        seen.always_ready = 0;
        assert_int_equal(seen.n_ready, 6);
        stop_and_free();
}

static void retire_all_when_one_goes(const char *what) {
        if (strcmp(what, "retiring") == 0)
                for (unsigned id = 1; id <= 3; id++)
                        assert_int_equal(muster_cluster_worker_retire(seen.worker[id]), 0);
}

/* Also the one whose wish is being told. */
static void test_all_retired_in_handler(void **state) {
        muster_cluster_options o = options_of(3);

        start_ready(&o);
        seen.always_ready = 3;
        seen.then = retire_all_when_one_goes;
        command(2, "\"retire\"");
        run_until(seen.n_exits == 3);
        assert_int_equal(seen.n_ready, 6);
        assert_int_equal(muster_cluster_get_n_ready(seen.cluster), 3);
        seen.always_ready = 0;
        stop_and_free();
        assert_int_equal(seen.n_exits, 6);
}

/* It waits for its replacement, but not for ever. */
static void test_replacement_never_ready(void **state) {
        muster_cluster_options o = options_of(1);

        o.start_timeout_usec = 1500 * MSEC;
        o.backoff_min_usec = o.backoff_max_usec = 1;
        start_ready(&o);
        pid_t old = seen.pid[1];
        setenv("TEST_MODE", "mute", 1);
        command(1, "\"retire\"");
        run_until(heard("retiring 1"));
        assert_int_equal(muster_cluster_get_n_ready(seen.cluster), 1);
        assert_false(heard("\"retired\""));
        _cleanup_close_ int pidfd = pidfd_of(old);
        run_until(heard("exit 1: status 42"));
        assert_true(has_ended(pidfd));
        assert_int_equal(muster_cluster_get_n_ready(seen.cluster), 0);

        unsetenv("TEST_MODE");
        run_until(seen.n_ready == 2);
        stop_and_free();
}

/* A replacement that dies is replaced itself, and the old one serves on. */
static void test_replacement_dies(void **state) {
        muster_cluster_options o = options_of(1);

        o.backoff_min_usec = o.backoff_max_usec = 1;
        start_ready(&o);
        seen.always_ready = 1;
        setenv("TEST_MODE", "crash", 1);
        command(1, "\"retire\"");
        run_until(seen.n_exits == 3);
        assert_true(heard("exit 1: status 3\nexit 1: status 3\nexit 1: status 3\n"));
        unsetenv("TEST_MODE");
        run_until(heard("exit 1: status 42\n"));
        assert_true(strstr(seen.log, "ready 1\n") < strstr(seen.log, "message 1: \"retired\"\n"));
        assert_int_equal(seen.n_ready, 2);
        seen.always_ready = 0;
        stop_and_free();
}

/* The one that leaves dies before its time: its replacement is under way already. */
static void test_old_one_dies_during_replacement(void **state) {
        muster_cluster_options o = options_of(1);

        start_ready(&o);
        setenv("TEST_MODE", "mute", 1);
        command(1, "\"retire\"");
        run_until(heard("retiring 1"));
        assert_int_equal(kill(seen.pid[1], SIGKILL), 0);
        run_until(seen.n_exits == 1);
        stop_and_free();
        assert_int_equal(seen.n_exits, 2);
}

/* What is started from now on is fit. */
static void recover(const char *what) {
        if (strcmp(what, "retiring") == 0)
                unsetenv("TEST_MODE");
}

/* One that does not serve yet is of no use, and is told to go at once. */
static void test_retire_before_ready(void **state) {
        muster_cluster_options o = options_of(1);

        setenv("TEST_MODE", "retire", 1);
        seen.then = recover;
        new_cluster(&o);
        assert_int_equal(muster_cluster_start(seen.cluster), 0);
        run_until(seen.n_exits && seen.n_ready);
        assert_int_equal(strncmp(seen.log, "retiring 1: not fit to start\n", 29), 0);
        assert_true(heard("exit 1: status 42\n"));
        run_what_is_due();
        assert_int_equal(seen.n_ready, 1);
        stop_and_free();
        assert_int_equal(seen.n_exits, 2);
}

static void test_does_not_go(void **state) {
        muster_cluster_options o = options_of(1);

        o.stop_timeout_usec = 50 * MSEC;
        start_ready(&o);
        seen.always_ready = 1;
        assert_string_equal(ask(1, "\"deaf\""), "\"deaf\"");
        seen.log[0] = '\0';
        assert_int_equal(muster_cluster_worker_retire(seen.worker[1]), 0);
        run_until(seen.n_exits == 1);
        assert_string_equal(seen.log, "ready 1\nexit 1: signal 9\n");
        seen.always_ready = 0;
        stop_and_free();
}

/*
 * Against the rules
 */

/* The worker cannot be reached any more: it gets SIGTERM (and waits for the word of the channel's end), and
 * another one is started. */
static void lose_channel(const char *mode, const char *json, const char *reason, const char *end) {
        muster_cluster_options o = options_of(2);
        char expected[256];

        o.stop_timeout_usec = strcmp(end, "signal 9") == 0 ? 50 * MSEC : 0;
        setenv("TEST_MODE", mode, 1);
        start_ready(&o);
        unsetenv("TEST_MODE");
        command(1, json);
        run_until(seen.n_exits == 1 && seen.n_ready == 3);
        if (reason) {
                snprintf(expected, sizeof(expected), "retiring 1: its channel failed: %s\n", reason);
                assert_int_equal(strncmp(seen.log, expected, strlen(expected)), 0);
        } else
                assert_false(heard("retiring"));
        snprintf(expected, sizeof(expected), "exit 1: %s\n", end);
        assert_true(heard(expected));
        assert_int_equal(muster_cluster_get_n_ready(seen.cluster), 2);
        stop_and_free();
        assert_int_equal(seen.n_exits, 3);
        assert_int_equal(seen.n_ready, 3);
}

static void test_rubbish(void **state) {
        lose_channel("no SIGTERM", "\"rubbish\"", "Bad message", "status 42");
}

static void test_half_a_line(void **state) {
        lose_channel("no SIGTERM", "\"half\"", "Bad message", "status 42");
}

static void test_closes_its_channel(void **state) {
        lose_channel("", "\"close\"", NULL, "signal 15");
}

static void test_closes_its_channel_and_ignores_the_rest(void **state) {
        lose_channel("no SIGTERM", "\"close\"", NULL, "signal 9");
}

/* Nobody waits for one that is out of reach. */
static void test_replaced_before_its_end(void **state) {
        muster_cluster_options o = options_of(1);

        o.stop_timeout_usec = HOUR_USEC;
        setenv("TEST_MODE", "no SIGTERM", 1);
        start_ready(&o);
        command(1, "\"close\"");
        run_until(seen.n_ready == 2);
        assert_int_equal(seen.n_exits, 0);
        assert_int_equal(muster_cluster_get_n_ready(seen.cluster), 1);
        seen.cluster = muster_cluster_free(seen.cluster);
}

/* Perhaps its channel's end is seen first, perhaps its own. */
static void test_half_a_line_at_the_end(void **state) {
        muster_cluster_options o = options_of(1);

        start_ready(&o);
        command(1, "\"half and exit\"");
        run_until(seen.n_exits == 1 && seen.n_ready == 2);
        assert_true(heard("exit 1: status 4\n"));
        stop_and_free();
        assert_int_equal(seen.n_exits, 2);
}

static void end_with_background_child(bool by_signal) {
        muster_cluster_options o = options_of(1);

        start_ready(&o);
        _cleanup_close_ int child = pidfd_of((pid_t) atoi(ask(1, "\"child\"")));
        if (by_signal)
                assert_int_equal(kill(seen.pid[1], SIGKILL), 0);
        else
                command(1, "\"exit\"");
        run_until(seen.n_exits == 1);
        wait_for_end(child);
        run_until(seen.n_ready == 2);
        stop_and_free();
}

static void test_background_child_of_killed(void **state) {
        end_with_background_child(true);
}

static void test_background_child_of_exited(void **state) {
        end_with_background_child(false);
}

/* What it is to serve cannot reach it. */
static void test_no_free_descriptor(void **state) {
        muster_cluster_options o = options_of(1);
        int fd = listen_anywhere();

        o.start_timeout_usec = HOUR_USEC;
        o.backoff_min_usec = o.backoff_max_usec = 10 * MSEC;
        setenv("TEST_MODE", "no descriptor", 1);
        new_cluster(&o);
        assert_int_equal(muster_cluster_add_server(seen.cluster, "a", fd), 0);
        close(fd);
        assert_int_equal(muster_cluster_start(seen.cluster), 0);
        run_until(seen.n_exits == 3);
        unsetenv("TEST_MODE");
        run_until(muster_cluster_get_n_ready(seen.cluster) == 1);
        assert_true(heard("exit 1: signal 9\n"));
        assert_false(heard("exit 1: status"));
        stop_and_free();
}

/*
 * The primary dies
 */

/* This program with the argument "primary": two workers, one of which does not listen to its channel, and
 * one that nothing but its channel can end. It prints their pids. */
static int primary_main(void) {
        muster_cluster_options o = options_of(2);

        if (setup_cluster(NULL) < 0)
                return 1;
        setenv("TEST_MODE", "no SIGTERM", 1);
        start_ready(&o);
        if (strcmp(ask(2, "\"hang\""), "\"hang\"") != 0)
                return 1;
        printf("%d %d\n", seen.pid[1], seen.pid[2]);
        fflush(stdout);
        for (;;)
                turn();
}

static int status_of(pid_t pid) {
        int status;
        _cleanup_close_ int pidfd = pidfd_of(pid);

        wait_for_end(pidfd);
        assert_int_equal(waitpid(pid, &status, 0), pid);
        return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

static void test_primary_killed(void **state) {
        static const muster_stdio stdio[] = {
                { .kind = MUSTER_STDIO_IGNORE },
                { .kind = MUSTER_STDIO_PIPE },
                { .kind = MUSTER_STDIO_INHERIT },
        };
        muster_spawn_options o = MUSTER_SPAWN_OPTIONS_INIT;
        int first, second;
        Heard h;
        Ended e;

        assert_int_equal(prctl(PR_SET_CHILD_SUBREAPER, 1), 0);
        o.program = "/proc/self/exe";
        o.argv = STRINGS("test", "primary");
        o.stdio = stdio;
        o.n_stdio = ELEMENTSOF(stdio);
        muster_child *primary = start(&o, &e);
        hear(muster_child_get_stream(primary, STDOUT_FILENO), &h);
        run_until(strchr(h.text, '\n'));
        assert_int_equal(sscanf(h.text, "%d %d", &first, &second), 2);

        assert_int_equal(muster_child_kill(primary, SIGKILL), 0);
        run_until(e.exits);
        assert_int_equal(status_of(first), STATUS_RETIRED);
        assert_int_equal(status_of(second), -SIGTERM);
        run_until(e.closes);
        muster_child_unref(primary);
        assert_int_equal(prctl(PR_SET_CHILD_SUBREAPER, 0), 0);
}

int main(int argc, char *argv[]) {
        static const struct CMUnitTest tests[] = {
                cluster_test(test_messages),
                cluster_test(test_messages_for_one_that_does_not_read),
                cluster_test(test_messages_with_descriptors),
                cluster_test(test_message_to_one_that_has_ended),
                cluster_test(test_last_words),
                cluster_test(test_ready_twice),
                cluster_test(test_retire),
                cluster_test(test_retire_without_reason),
                cluster_test(test_retire_with_long_reason),
                cluster_test(test_suicide),
                cluster_test(test_retire_twice),
                cluster_test(test_retired_by_primary),
                cluster_test(test_all_retired_in_handler),
                cluster_test(test_replacement_never_ready),
                cluster_test(test_replacement_dies),
                cluster_test(test_old_one_dies_during_replacement),
                cluster_test(test_retire_before_ready),
                cluster_test(test_does_not_go),
                cluster_test(test_rubbish),
                cluster_test(test_half_a_line),
                cluster_test(test_closes_its_channel),
                cluster_test(test_closes_its_channel_and_ignores_the_rest),
                cluster_test(test_replaced_before_its_end),
                cluster_test(test_half_a_line_at_the_end),
                cluster_test(test_background_child_of_killed),
                cluster_test(test_background_child_of_exited),
                cluster_test(test_no_free_descriptor),
                cluster_test(test_primary_killed),
        };

        if (getenv("MUSTER_WORKER"))
                return worker_main(argv);
        if (argc > 1 && strcmp(argv[1], "primary") == 0)
                return primary_main();
        return cmocka_run_group_tests(tests, NULL, NULL);
}
