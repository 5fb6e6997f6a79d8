/* SPDX-License-Identifier: MIT */
/* A cluster seen by its primary: how it starts, fills its slots again, stops, and goes. What it says to
 * single workers is in test-cluster-worker.c. */

#include "cluster.h"

#include <dirent.h>
#include <sched.h>

#include "basic/clock.h"
#include "basic/cpu.h"

/* This program under a name that a test can take away. */
static char folder[] = "/tmp/test-cluster-XXXXXX";
static char program[64], this_program[4096];

static void add_program(void) {
        assert_int_equal(symlink(this_program, program), 0);
}

static void remove_program(void) {
        assert_int_equal(unlink(program), 0);
}

static int setup_folder(void **state) {
        strcpy(folder + strlen(folder) - 6, "XXXXXX");
        if (!mkdtemp(folder) || readlink("/proc/self/exe", this_program, sizeof(this_program) - 1) < 0)
                return -1;
        snprintf(program, sizeof(program), "%s/worker", folder);
        return setup_cluster(state);
}

static int teardown_folder(void **state) {
        (void) unlink(program);
        return rmdir(folder) < 0 ? -1 : teardown_cluster(state);
}

static size_t count_open_fds(void) {
        DIR *d = opendir("/proc/self/fd");
        size_t n = 0;

        assert_non_null(d);
        while (readdir(d))
                n++;
        closedir(d);
        return n;
}

static size_t count_lines(const char *what) {
        size_t n = 0;

        for (const char *p = seen.log; (p = strstr(p, what)); p++)
                n++;
        return n;
}

/* Kills the worker in @slot, and waits until it is replaced. */
static void crash_and_replace(unsigned slot) {
        unsigned ready = seen.n_ready, exits = seen.n_exits;

        assert_int_equal(kill(seen.pid[slot], SIGKILL), 0);
        run_until(seen.n_ready > ready && seen.n_exits > exits);
}

/*
 * Making one
 */

static void test_options(void **state) {
        struct {
                muster_cluster_options o;
                char more[8];
        } later = { .o = MUSTER_CLUSTER_OPTIONS_INIT };
        muster_cluster_options good = options_of(1024), bad[8];
        muster_cluster *c = NULL;

        for (size_t i = 0; i < ELEMENTSOF(bad); i++)
                bad[i] = options_of(1);
        bad[0].size = 0;
        bad[1].size = sizeof(bad[1]) - 1;
        bad[2].n_workers = 1025;
        bad[3].program = "";
        bad[4].argv = (char *[]){ NULL };
        bad[5].start_timeout_usec = UINT64_MAX;
        bad[6].stop_timeout_usec = UINT64_MAX;
        bad[7].backoff_max_usec = UINT64_MAX;
        for (size_t i = 0; i < ELEMENTSOF(bad); i++)
                assert_int_equal(muster_cluster_new(event, bad + i, NULL, NULL, &c), -EINVAL);
        bad[7] = options_of(1);
        bad[7].backoff_min_usec = UINT64_MAX;
        assert_int_equal(muster_cluster_new(event, bad + 7, NULL, NULL, &c), -EINVAL);
        assert_int_equal(muster_cluster_new(NULL, &good, NULL, NULL, &c), -EINVAL);
        assert_int_equal(muster_cluster_new(event, &good, NULL, NULL, NULL), -EINVAL);
        assert_null(c);

        /* a caller that was compiled with a later version */
        later.o.size = sizeof(later);
        assert_int_equal(muster_cluster_new(event, &later.o, NULL, NULL, &c), 0);
        c = muster_cluster_free(c);
        later.more[7] = 1;
        assert_int_equal(muster_cluster_new(event, &later.o, NULL, NULL, &c), -E2BIG);

        assert_int_equal(muster_cluster_new(event, &good, NULL, NULL, &c), 0);
        assert_null(muster_cluster_free(c));
        assert_null(muster_cluster_free(NULL));
}

static void test_handlers_size(void **state) {
        struct {
                muster_cluster_handlers h;
                void *more;
        } later = { .h = { .size = sizeof(later) } };
        muster_cluster_handlers bad = { .size = sizeof(bad) - 1 };
        muster_cluster *c = NULL;

        assert_int_equal(muster_cluster_new(event, NULL, &bad, NULL, &c), -EINVAL);
        assert_int_equal(muster_cluster_new(event, NULL, &later.h, NULL, &c), 0);
        c = muster_cluster_free(c);
        later.more = &later;
        assert_int_equal(muster_cluster_new(event, NULL, &later.h, NULL, &c), -E2BIG);
        assert_null(c);
}

static void test_null(void **state) {
        assert_int_equal(muster_cluster_start(NULL), -EINVAL);
        assert_int_equal(muster_cluster_stop(NULL), -EINVAL);
        assert_int_equal(muster_cluster_add_server(NULL, "a", 0), -EINVAL);
        assert_int_equal(muster_cluster_get_n_ready(NULL), 0);
        assert_int_equal(muster_cluster_worker_get_id(NULL), 0);
        assert_int_equal(muster_cluster_worker_get_pid(NULL), -EINVAL);
        assert_int_equal(muster_cluster_worker_send(NULL, "1", -1), -EINVAL);
        assert_int_equal(muster_cluster_worker_retire(NULL), -EINVAL);
}

static void test_server_names(void **state) {
        static const char *const bad[] = { NULL, "", "a\"b", "a\\b", "a\nb", "a\x7F", "\xC3\xBC" };
        muster_cluster_options o = options_of(1);
        char longest[257];
        int fd = listen_anywhere();

        new_cluster(&o);
        for (size_t i = 0; i < ELEMENTSOF(bad); i++)
                assert_int_equal(muster_cluster_add_server(seen.cluster, bad[i], fd), -EINVAL);
        memset(longest, 'n', 256);
        longest[256] = '\0';
        assert_int_equal(muster_cluster_add_server(seen.cluster, longest, fd), -EINVAL);
        longest[255] = '\0';
        assert_int_equal(muster_cluster_add_server(seen.cluster, longest, fd), 0);
        assert_int_equal(muster_cluster_add_server(seen.cluster, longest, fd), -EEXIST);
        assert_int_equal(muster_cluster_add_server(seen.cluster, " ~", fd), 0);
        close(fd);

        assert_int_equal(muster_cluster_start(seen.cluster), 0);
        run_until(seen.n_ready == 1);
        assert_non_null(strstr(ask(1, "\"servers\""), longest));
        assert_non_null(strstr(seen.message, "  ~:"));
        stop_and_free();
}

static void test_server_errors(void **state) {
        muster_cluster_options o = options_of(1);
        int fd = listen_anywhere(), idle = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), pipes[2];

        assert_int_equal(pipe(pipes), 0);
        new_cluster(&o);
        size_t open_before = count_open_fds();
        assert_int_equal(muster_cluster_add_server(seen.cluster, "a", idle), -EINVAL);
        assert_int_equal(muster_cluster_add_server(seen.cluster, "a", pipes[0]), -EINVAL);
        assert_int_equal(muster_cluster_add_server(seen.cluster, "a", -1), -EBADF);
        close(idle);
        assert_int_equal(muster_cluster_add_server(seen.cluster, "a", idle), -EBADF);
        assert_int_equal(count_open_fds(), open_before - 1);

        assert_int_equal(fcntl(fd, F_GETFL) & O_NONBLOCK, 0);
        assert_int_equal(muster_cluster_add_server(seen.cluster, "a", fd), 0);
        assert_int_not_equal(fcntl(fd, F_GETFL) & O_NONBLOCK, 0);
        assert_int_equal(muster_cluster_start(seen.cluster), 0);
        assert_int_equal(muster_cluster_add_server(seen.cluster, "b", fd), -EBUSY);
        assert_int_equal(muster_cluster_start(seen.cluster), -EALREADY);
        run_until(seen.n_ready == 1);
        stop_and_free();
        assert_int_equal(muster_cluster_get_n_ready(seen.cluster), 0);
        close(fd);
        close(pipes[0]);
        close(pipes[1]);
}

/*
 * The start
 */

/* So many workers get ready, and there are no others. */
static void assert_default_is(unsigned n) {
        memset(&seen, 0, sizeof(seen));
        seen.fd = -EBADF;
        new_cluster(NULL);
        assert_int_equal(muster_cluster_start(seen.cluster), 0);
        run_until(seen.n_ready == n);
        assert_int_equal(muster_cluster_get_n_ready(seen.cluster), n);
        stop_and_free();
        assert_int_equal(seen.n_exits, n);
}

static void test_one_worker_per_cpu(void **state) {
        cpu_set_t all, one;
        int cpu = 0;

        assert_int_equal(sched_getaffinity(0, sizeof(all), &all), 0);
        unsigned n = cpu_count();
        assert_in_range(n, 1, CPU_COUNT(&all));
        if (n <= SLOTS_MAX)
                assert_default_is(n);

        while (!CPU_ISSET(cpu, &all))
                cpu++;
        CPU_ZERO(&one);
        CPU_SET(cpu, &one);
        assert_int_equal(sched_setaffinity(0, sizeof(one), &one), 0);
        assert_default_is(1);
        assert_int_equal(sched_setaffinity(0, sizeof(all), &all), 0);
}

static void test_workers_and_servers(void **state) {
        muster_cluster_options o = options_of(4);
        char expected[256];
        int a = listen_anywhere(), b = listen_anywhere(), port_a = port_of(a), port_b = port_of(b);

        new_cluster(&o);
        assert_int_equal(muster_cluster_add_server(seen.cluster, "first", a), 0);
        assert_int_equal(muster_cluster_add_server(seen.cluster, "the second", b), 0);
        close(a);
        close(b);
        assert_int_equal(muster_cluster_get_n_ready(seen.cluster), 0);
        assert_int_equal(muster_cluster_start(seen.cluster), 0);
        assert_int_equal(seen.n_ready, 0); /* handlers are called by the loop */
        for (unsigned n = 1; n <= 4; n++) {
                run_until(seen.n_ready >= n);
                assert_int_equal(muster_cluster_get_n_ready(seen.cluster), seen.n_ready);
        }
        for (unsigned id = 1; id <= 4; id++) {
                snprintf(expected, sizeof(expected), "\"%u first:%d:1:1 the second:%d:1:1 started\"", id,
                                port_a, port_b);
                assert_string_equal(ask(id, "\"servers\""), expected);
                for (unsigned other = 1; other < id; other++)
                        assert_int_not_equal(seen.pid[id], seen.pid[other]);
        }
        assert_int_equal(seen.n_ready, 4);
        stop_and_free();
        assert_int_equal(seen.n_exits, 4);
}

static char **own_arguments;

static void test_arguments(void **state) {
        muster_cluster_options o = options_of(1);
        char expected[1024] = "\"";

        for (char **a = own_arguments; *a; a++)
                strcat(strcat(expected, *a), "|");
        start_ready(&o);
        assert_string_equal(ask(1, "\"arguments\""), strcat(expected, "\""));
        stop_and_free();

        seen.n_ready = seen.n_stopped = 0;
        char **given = (char *[]){ strdup("zero"), strdup(""), strdup("a b"), strdup(""), NULL };
        o.argv = given;
        new_cluster(&o);
        for (char **a = given; *a; a++)
                free(*a); /* it has copies */
        assert_int_equal(muster_cluster_start(seen.cluster), 0);
        run_until(seen.n_ready == 1);
        assert_string_equal(ask(1, "\"arguments\""), "\"zero||a b||\"");
        stop_and_free();
}

static void test_program_alone(void **state) {
        muster_cluster_options o = options_of(1);
        char expected[128];

        add_program();
        o.program = program;
        start_ready(&o);
        snprintf(expected, sizeof(expected), "\"%s|\"", program);
        assert_string_equal(ask(1, "\"arguments\""), expected);
        stop_and_free();
}

static void test_environment(void **state) {
        muster_cluster_options o = options_of(1);
        char given[] = "TEST_GIVEN=yes", stale[] = "MUSTER_WORKER=17";

        o.env = (char *[]){ given, stale, NULL };
        new_cluster(&o);
        given[0] = 'X'; /* it has a copy */
        assert_int_equal(muster_cluster_start(seen.cluster), 0);
        run_until(seen.n_ready == 1);
        /* the worker's variables are removed by the worker */
        assert_string_equal(ask(1, "\"environment\""), "\"TEST_GIVEN=yes|\"");
        assert_int_equal(strncmp(ask(1, "\"servers\""), "\"1 ", 3), 0);
        stop_and_free();
}

/* What is inherited is what it is at each start. */
static void test_environment_of_later_workers(void **state) {
        muster_cluster_options o = options_of(1);

        start_ready(&o);
        assert_null(strstr(ask(1, "\"environment\""), "|TEST_LATER=1|"));
        setenv("TEST_LATER", "1", 1);
        crash_and_replace(1);
        unsetenv("TEST_LATER");
        assert_non_null(strstr(ask(1, "\"environment\""), "TEST_LATER=1|"));
        stop_and_free();
}

static void test_no_such_program(void **state) {
        muster_cluster_options o = options_of(2);
        int fd = listen_anywhere();

        o.program = program;
        new_cluster(&o);
        assert_int_equal(muster_cluster_start(seen.cluster), -ENOENT);
        assert_false(has_children());

        /* it was not started, so it can be */
        assert_int_equal(muster_cluster_add_server(seen.cluster, "a", fd), 0);
        close(fd);
        add_program();
        assert_int_equal(muster_cluster_start(seen.cluster), 0);
        run_until(seen.n_ready == 2);
        assert_string_equal(seen.log[6] == '1' ? "ready 1\nready 2\n" : "ready 2\nready 1\n", seen.log);
        stop_and_free();
}

/* The first workers run already when there is no descriptor for the next. */
static int start_with_few_descriptors(void) {
        muster_cluster_options o = options_of(50);
        muster_cluster *c;
        int r;

        CHECK(sd_event_new(&event) >= 0);
        CHECK(muster_cluster_new(event, &o, NULL, NULL, &c) == 0);
        int next = dup(STDIN_FILENO);
        struct rlimit few = { (rlim_t) next + 20, (rlim_t) next + 20 };
        CHECK(close(next) == 0 && setrlimit(RLIMIT_NOFILE, &few) == 0);
        r = muster_cluster_start(c);
        CHECK(r == -EMFILE);
        CHECK(!has_children());
        muster_cluster_free(c);
        sd_event_unref(event);
        return 0;
}

static void test_start_fails_half_way(void **state) {
        in_own_process(start_with_few_descriptors);
}

/* A worker that is gone before its servers are sent has been started all the same. */
static void test_worker_that_ends_at_once(void **state) {
        muster_cluster_options o = options_of(1);
        int fd = listen_anywhere();
        char name[16];

        setenv("TEST_MODE", "crash", 1);
        o.backoff_min_usec = o.backoff_max_usec = 1;
        new_cluster(&o);
        for (int i = 0; i < 200; i++) { /* much to send */
                snprintf(name, sizeof(name), "%d", i);
                assert_int_equal(muster_cluster_add_server(seen.cluster, name, fd), 0);
        }
        close(fd);
        assert_int_equal(muster_cluster_start(seen.cluster), 0);
        run_until(seen.n_exits == 20);
        assert_int_equal(seen.n_failed, 0);
        stop_and_free();
}

/*
 * Deaths
 */

static void test_crash_is_replaced_at_once(void **state) {
        muster_cluster_options o = options_of(2);

        o.backoff_min_usec = o.backoff_max_usec = HOUR_USEC;
        start_ready(&o);
        pid_t first = seen.pid[1], second = seen.pid[2];
        crash_and_replace(1);
        assert_heard_both("exit 1: signal 9\n", "ready 1\n");
        assert_int_equal(seen.ended_pid, first);
        assert_int_not_equal(seen.pid[1], first);
        assert_int_equal(seen.pid[2], second);
        assert_int_equal(muster_cluster_get_n_ready(seen.cluster), 2);

        /* each slot has a history of its own */
        seen.log[0] = '\0';
        command(2, "\"exit\"");
        run_until(seen.n_ready == 4 && seen.n_exits == 2);
        assert_heard_both("exit 2: status 3\n", "ready 2\n");
        stop_and_free();
        assert_int_equal(seen.n_exits, 4);
}

static void test_second_early_death_waits(void **state) {
        muster_cluster_options o = options_of(2);

        o.backoff_min_usec = o.backoff_max_usec = HOUR_USEC;
        start_ready(&o);
        crash_and_replace(1);
        command(1, "\"exit\"");
        run_until(seen.n_exits == 2);
        run_what_is_due();
        assert_int_equal(seen.n_ready, 3);
        assert_int_equal(muster_cluster_get_n_ready(seen.cluster), 1);
        stop_and_free(); /* which ends the pause */
        assert_int_equal(seen.n_exits, 3);
}

static void test_backoff_grows(void **state) {
        muster_cluster_options o = options_of(1);

        setenv("TEST_MODE", "crash", 1);
        o.backoff_min_usec = 20 * MSEC;
        o.backoff_max_usec = 50 * MSEC;
        new_cluster(&o);
        uint64_t begin = clock_now_usec();
        assert_int_equal(muster_cluster_start(seen.cluster), 0);
        run_until(seen.n_exits == 2);
        assert_int_equal(seen.n_ready, 0);
        run_until(seen.n_exits == 6);
        /* pauses of 0, 20, 40, 50 and 50 ms; how long the rest takes is nobody's business */
        assert_true(clock_now_usec() - begin >= 160 * MSEC);

        unsetenv("TEST_MODE");
        run_until(seen.n_ready == 1);
        stop_and_free();
}

static void test_program_disappears(void **state) {
        muster_cluster_options o = options_of(2);

        add_program();
        o.program = program;
        o.backoff_min_usec = o.backoff_max_usec = 2 * MSEC;
        start_ready(&o);
        remove_program();
        assert_int_equal(kill(seen.pid[2], SIGKILL), 0);
        run_until(seen.n_failed >= 3 && seen.n_exits == 1);
        assert_int_equal(seen.failed_id, 2);
        assert_int_equal(seen.error, -ENOENT);
        assert_int_equal(count_lines("exit 2: signal 9\n"), 1);
        assert_int_equal(muster_cluster_get_n_ready(seen.cluster), 1);

        add_program();
        run_until(seen.n_ready == 3);
        assert_int_equal(muster_cluster_get_n_ready(seen.cluster), 2);
        stop_and_free();
        assert_int_equal(seen.n_exits, 3);
}

static void test_failed_start_waits(void **state) {
        muster_cluster_options o = options_of(1);

        add_program();
        o.program = program;
        o.backoff_min_usec = o.backoff_max_usec = HOUR_USEC;
        start_ready(&o);
        remove_program();
        assert_int_equal(kill(seen.pid[1], SIGKILL), 0);
        run_until(seen.n_exits && seen.n_failed);
        run_what_is_due();
        assert_int_equal(seen.n_failed, 1);
        stop_and_free();
}

static void test_never_ready(void **state) {
        muster_cluster_options o = options_of(2);

        setenv("TEST_MODE", "mute", 1);
        o.start_timeout_usec = 50 * MSEC;
        o.backoff_min_usec = o.backoff_max_usec = 1;
        new_cluster(&o);
        assert_int_equal(muster_cluster_start(seen.cluster), 0);
        run_until(count_lines("exit 1") >= 2 && count_lines("exit 2") >= 2);
        assert_int_equal(count_lines("signal 9\n"), seen.n_exits);
        assert_int_equal(seen.n_ready, 0);

        unsetenv("TEST_MODE");
        seen.cluster = muster_cluster_free(seen.cluster);
}

static int on_over(sd_event_source *source, uint64_t usec, void *userdata) {
        *(bool *) userdata = true;
        return 0;
}

/* The time in which what is not to happen would. */
static void run_for(uint64_t usec) {
        sd_event_source *timer = NULL;
        bool over = false;

        assert_int_equal(sd_event_add_time_relative(event, &timer, CLOCK_MONOTONIC, usec, 1, on_over, &over),
                        0);
        run_until(over);
        sd_event_source_unref(timer);
}

/* The limit of the start is over when it is ready. */
static void test_ready_in_time(void **state) {
        muster_cluster_options o = options_of(1);

        o.start_timeout_usec = 2500 * MSEC;
        start_ready(&o);
        run_for(3000 * MSEC);
        assert_string_equal(seen.log, "");
        seen.cluster = muster_cluster_free(seen.cluster);
}

/* First its channel is lost, later it ends: the slot is filled once, after one pause. */
static void test_one_replacement_for_two_losses(void **state) {
        muster_cluster_options o = options_of(1);

        o.stop_timeout_usec = 20 * MSEC;
        o.backoff_min_usec = o.backoff_max_usec = 150 * MSEC;
        setenv("TEST_MODE", "no SIGTERM", 1);
        start_ready(&o);
        crash_and_replace(1);
        command(1, "\"close\"");
        run_until(seen.n_ready == 3 && seen.n_exits == 2);
        run_for(250 * MSEC);
        assert_int_equal(seen.n_ready, 3);
        assert_int_equal(muster_cluster_get_n_ready(seen.cluster), 1);
        stop_and_free();
        assert_int_equal(seen.n_exits, 3);
}

static void test_descriptors_after_many_restarts(void **state) {
        muster_cluster_options o = options_of(1);
        int fd = listen_anywhere();

        o.backoff_min_usec = o.backoff_max_usec = 1;
        new_cluster(&o);
        assert_int_equal(muster_cluster_add_server(seen.cluster, "a", fd), 0);
        assert_int_equal(muster_cluster_start(seen.cluster), 0);
        run_until(seen.n_ready == 1);
        crash_and_replace(1);
        crash_and_replace(1); /* now the loop has all that it ever needs */
        size_t n = count_open_fds();
        for (int i = 0; i < 50; i++) {
                seen.log[0] = '\0';
                crash_and_replace(1);
        }
        assert_int_equal(seen.n_exits, 52);
        assert_int_equal(count_open_fds(), n);
        stop_and_free();
        close(fd);
}

/*
 * The end
 */

static void test_stop(void **state) {
        muster_cluster_options o = options_of(3);

        start_ready(&o);
        assert_int_equal(muster_cluster_stop(seen.cluster), 0);
        assert_int_equal(muster_cluster_stop(seen.cluster), 0);
        assert_int_equal(muster_cluster_get_n_ready(seen.cluster), 0);
        assert_int_equal(seen.n_stopped, 0);
        run_until(seen.n_stopped);
        assert_int_equal(count_lines("\"retired\"\n"), 3);
        assert_int_equal(count_lines("status 42\n"), 3);
        assert_string_equal(strstr(seen.log, "stopped"), "stopped\n"); /* the last */
        assert_int_equal(muster_cluster_stop(seen.cluster), 0);
        assert_int_equal(muster_cluster_start(seen.cluster), -EALREADY);
        run_what_is_due();
        assert_int_equal(seen.n_stopped, 1);
        assert_int_equal(seen.n_exits, 3);
}

/* Nobody is started any more while the others are on their way out. */
static void test_stop_ends_pauses(void **state) {
        muster_cluster_options o = options_of(2);

        o.stop_timeout_usec = 400 * MSEC;
        o.backoff_min_usec = o.backoff_max_usec = 150 * MSEC;
        start_ready(&o);
        assert_string_equal(ask(2, "\"deaf\""), "\"deaf\"");
        crash_and_replace(1);
        seen.log[0] = '\0';
        command(1, "\"exit\"");
        run_until(seen.n_exits == 2);
        stop_and_free();
        assert_string_equal(seen.log, "exit 1: status 3\nexit 2: signal 9\nstopped\n");
}

static void test_stop_without_start(void **state) {
        muster_cluster_options o = options_of(2);

        new_cluster(&o);
        assert_int_equal(muster_cluster_stop(seen.cluster), 0);
        assert_int_equal(seen.n_stopped, 0); /* the loop tells it */
        assert_int_equal(muster_cluster_stop(seen.cluster), 0);
        run_until(seen.n_stopped);
        run_what_is_due();
        assert_string_equal(seen.log, "stopped\n");
}

static const char *stop_at;

static void stop_there(const char *what) {
        if (strcmp(what, stop_at) != 0)
                return;
        assert_int_equal(muster_cluster_stop(seen.cluster), 0);
        assert_int_equal(seen.n_stopped, 0);
}

static void stop_in_handler(const char *handler) {
        stop_at = handler;
        seen.then = stop_there;
        run_until(seen.n_stopped);
        run_what_is_due();
        assert_int_equal(seen.n_stopped, 1);
        assert_false(has_children());
}

static void test_stop_in_ready_handler(void **state) {
        muster_cluster_options o = options_of(4);

        new_cluster(&o);
        assert_int_equal(muster_cluster_start(seen.cluster), 0);
        stop_in_handler("ready");
        assert_int_equal(seen.n_ready, 1);
        assert_int_equal(seen.n_exits, 4);
        assert_int_equal(count_lines("status 42\n"), 4);
}

static void test_stop_in_exit_handler(void **state) {
        muster_cluster_options o = options_of(2);

        start_ready(&o);
        command(1, "\"exit\"");
        stop_in_handler("exit");
        assert_int_equal(muster_cluster_get_n_ready(seen.cluster), 0);
        assert_int_equal(count_lines("exit 1: status 3\n"), 1);
        assert_int_equal(count_lines("exit 2: status 42\n"), 1);
}

/* Of the only worker: there is nobody left to wait for. */
static void test_stop_in_last_exit_handler(void **state) {
        muster_cluster_options o = options_of(1);

        start_ready(&o);
        command(1, "\"exit\"");
        stop_in_handler("exit");
}

static void test_stop_in_retiring_handler(void **state) {
        muster_cluster_options o = options_of(1);

        start_ready(&o);
        command(1, "\"retire\"");
        stop_in_handler("retiring");
        assert_string_equal(seen.log,
                        "retiring 1: " REASON_TOLD "\nmessage 1: \"retired\"\nexit 1: status 42\nstopped\n");
}

static void test_stop_in_message_handler(void **state) {
        muster_cluster_options o = options_of(2);

        start_ready(&o);
        command(2, "\"last words\"");
        stop_in_handler("message");
        assert_int_equal(seen.n_exits, 2);
        assert_int_equal(count_lines("exit 2: status 0\n"), 1);
        assert_int_equal(count_lines("exit 1: status 42\n"), 1);
}

static void test_stop_in_failed_handler(void **state) {
        muster_cluster_options o = options_of(2);

        add_program();
        o.program = program;
        start_ready(&o);
        remove_program();
        assert_int_equal(kill(seen.pid[1], SIGKILL), 0);
        stop_in_handler("failed");
        assert_int_equal(seen.n_failed, 1);
        assert_int_equal(seen.n_exits, 2);
}

static void free_when_stopped(const char *what) {
        if (strcmp(what, "stopped") == 0)
                seen.cluster = muster_cluster_free(seen.cluster);
}

static void test_free_in_stopped_handler(void **state) {
        muster_cluster_options o = options_of(2);

        start_ready(&o);
        seen.then = free_when_stopped;
        assert_int_equal(muster_cluster_stop(seen.cluster), 0);
        run_until(seen.n_stopped);
        assert_null(seen.cluster);
        run_what_is_due();
        assert_int_equal(seen.n_stopped, 1);
}

static void test_free_before_stopped_is_told(void **state) {
        muster_cluster_options o = options_of(2);

        new_cluster(&o);
        assert_int_equal(muster_cluster_stop(seen.cluster), 0);
        seen.cluster = muster_cluster_free(seen.cluster);
        run_what_is_due();
        assert_int_equal(seen.n_stopped, 0);
}

static void test_free_with_workers(void **state) {
        muster_cluster_options o = options_of(2);

        start_ready(&o);
        assert_string_equal(ask(1, "\"deaf\""), "\"deaf\"");
        pid_t pid = (pid_t) atoi(ask(2, "\"child\""));
        _cleanup_close_ int first = pidfd_of(seen.pid[1]), second = pidfd_of(seen.pid[2]),
                            child = pidfd_of(pid);
        seen.log[0] = '\0';
        seen.cluster = muster_cluster_free(seen.cluster);
        assert_true(has_ended(first));
        assert_true(has_ended(second));
        wait_for_end(child);
        assert_false(has_children());
        run_what_is_due();
        assert_string_equal(seen.log, "");
}

static void test_free_during_pause_and_replacement(void **state) {
        muster_cluster_options o = options_of(2);

        o.backoff_min_usec = o.backoff_max_usec = HOUR_USEC;
        start_ready(&o);
        crash_and_replace(1);
        command(1, "\"exit\"");
        run_until(seen.n_exits == 2);
        setenv("TEST_MODE", "mute", 1);
        assert_int_equal(muster_cluster_worker_retire(seen.worker[2]), 0);
        run_what_is_due();
        seen.cluster = muster_cluster_free(seen.cluster);
        assert_false(has_children());
        run_what_is_due();
        assert_int_equal(seen.n_exits, 2);
}

static void test_stop_timeout(void **state) {
        muster_cluster_options o = options_of(2);

        o.stop_timeout_usec = 50 * MSEC;
        start_ready(&o);
        assert_string_equal(ask(2, "\"deaf\""), "\"deaf\"");
        assert_int_equal(muster_cluster_stop(seen.cluster), 0);
        run_until(seen.n_stopped);
        assert_int_equal(count_lines("exit 2: signal 9\n"), 1);
        assert_int_equal(count_lines("exit 1"), 1);
        assert_int_equal(seen.n_exits, 2);
}

#define folder_test(f) cmocka_unit_test_setup_teardown(f, setup_folder, teardown_folder)

int main(int argc, char *argv[]) {
        static const struct CMUnitTest tests[] = {
                cluster_test(test_options),
                cluster_test(test_handlers_size),
                cluster_test(test_null),
                cluster_test(test_server_names),
                cluster_test(test_server_errors),
                cluster_test(test_one_worker_per_cpu),
                cluster_test(test_workers_and_servers),
                cluster_test(test_arguments),
                folder_test(test_program_alone),
                cluster_test(test_environment),
                cluster_test(test_environment_of_later_workers),
                folder_test(test_no_such_program),
                cluster_test(test_start_fails_half_way),
                cluster_test(test_worker_that_ends_at_once),
                cluster_test(test_crash_is_replaced_at_once),
                cluster_test(test_second_early_death_waits),
                cluster_test(test_backoff_grows),
                folder_test(test_program_disappears),
                folder_test(test_failed_start_waits),
                cluster_test(test_never_ready),
                cluster_test(test_ready_in_time),
                cluster_test(test_one_replacement_for_two_losses),
                cluster_test(test_descriptors_after_many_restarts),
                cluster_test(test_stop),
                cluster_test(test_stop_ends_pauses),
                cluster_test(test_stop_without_start),
                cluster_test(test_stop_in_ready_handler),
                cluster_test(test_stop_in_exit_handler),
                cluster_test(test_stop_in_last_exit_handler),
                cluster_test(test_stop_in_retiring_handler),
                cluster_test(test_stop_in_message_handler),
                folder_test(test_stop_in_failed_handler),
                cluster_test(test_free_in_stopped_handler),
                cluster_test(test_free_before_stopped_is_told),
                cluster_test(test_free_with_workers),
                cluster_test(test_free_during_pause_and_replacement),
                cluster_test(test_stop_timeout),
        };

        if (getenv("MUSTER_WORKER"))
                return worker_main(argv);
        own_arguments = argv;
        return cmocka_run_group_tests(tests, NULL, NULL);
}
