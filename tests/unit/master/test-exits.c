/* SPDX-License-Identifier: MIT */
/* Exit records: which cause an end has, and that the last of them are kept. */

#include "../unit.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#include "basic/log.h"
#include "basic/macro.h"
#include "ipc/json.h"
#include "master/exits.h"

static BoardCell cell;

static Worker ended(int code, int status) {
        return (Worker){
                .slot = 1,
                .pid = 4711,
                .generation = 3,
                .state = WORKER_EXITED,
                .cell = &cell,
                .exit_code = code,
                .exit_status = status,
                .started_usec = 1000,
                .exited_usec = 5000,
                .stop_signal = SIGTERM,
        };
}

static void assert_cause(const Worker *w, ExitCause cause) {
        assert_string_equal(exit_cause_to_string(exit_cause_of(w)), exit_cause_to_string(cause));
}

/* Nobody had told it to go. */
static void test_untold(void **state) {
        Worker w = ended(CLD_EXITED, 0);

        assert_cause(&w, EXIT_STOPPED);
        w = ended(CLD_EXITED, 3);
        assert_cause(&w, EXIT_FAILURE_STATUS);
        w = ended(CLD_KILLED, SIGKILL);
        assert_cause(&w, EXIT_CRASHED);
        w = ended(CLD_DUMPED, SIGSEGV);
        assert_cause(&w, EXIT_CRASHED);
        w = ended(CLD_KILLED, SIGTERM);
        assert_cause(&w, EXIT_CRASHED);
        w = ended(CLD_KILLED, SIGKILL);
        w.out_of_memory = true;
        assert_cause(&w, EXIT_OUT_OF_MEMORY);
}

/* One that goes when it is told to has the reason of that as its cause, also when it dies of the order. */
static void test_told(void **state) {
        static const struct {
                WorkerLeave leave;
                ExitCause cause;
        } cases[] = {
                { WORKER_STAYS, EXIT_RETIRED },
                { WORKER_LEAVES_BY_REQUEST, EXIT_REQUESTED },
                { WORKER_LEAVES_FOR_REQUESTS, EXIT_MAX_REQUESTS },
                { WORKER_LEAVES_FOR_MEMORY, EXIT_MAX_MEMORY },
                { WORKER_LEAVES_FOR_AGE, EXIT_MAX_AGE },
        };

        for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
                Worker w = ended(CLD_EXITED, 0);

                w.retired = true;
                w.leave = cases[i].leave;
                assert_cause(&w, cases[i].cause);
                w.exit_code = CLD_KILLED;
                w.exit_status = SIGTERM;
                assert_cause(&w, cases[i].cause);
                w.exit_status = SIGSEGV; /* on its way out, but a crash */
                assert_cause(&w, EXIT_CRASHED);
                w.exit_code = CLD_EXITED;
                w.exit_status = 1;
                assert_cause(&w, cases[i].leave == WORKER_LEAVES_BY_REQUEST ? EXIT_REQUESTED
                                                                            : EXIT_FAILURE_STATUS);
        }
}

/* A program has a signal of its own for that (workers.stop_signal). */
static void test_stop_signal(void **state) {
        Worker w = ended(CLD_KILLED, SIGQUIT);

        w.retired = true;
        assert_cause(&w, EXIT_CRASHED);
        w.stop_signal = SIGQUIT;
        assert_cause(&w, EXIT_RETIRED);
}

/* Whatever the status: the master knows why it has killed. */
static void test_killed(void **state) {
        static const struct {
                WorkerKill kill;
                ExitCause cause;
        } cases[] = {
                { WORKER_KILL_START_TIMEOUT, EXIT_START_TIMEOUT },
                { WORKER_KILL_STOP_TIMEOUT, EXIT_STOP_TIMEOUT },
                { WORKER_KILL_WATCHDOG, EXIT_WATCHDOG },
                { WORKER_KILL_ABANDONED, EXIT_ABANDONED },
                { WORKER_KILL_UNFIT, EXIT_FAILURE_STATUS },
        };

        for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
                Worker w = ended(CLD_DUMPED, SIGABRT);

                w.kill = cases[i].kill;
                w.retired = true;
                assert_cause(&w, cases[i].cause);
        }
}

/* No two causes have one name. */
static void test_names(void **state) {
        for (ExitCause a = 0; a < _EXIT_CAUSE_MAX; a++)
                for (ExitCause b = 0; b < a; b++)
                        assert_string_not_equal(exit_cause_to_string(a), exit_cause_to_string(b));
}

static unsigned count(const char *text, const char *what) {
        unsigned n = 0;

        for (const char *p = text; (p = strstr(p, what)); p++)
                n++;
        return n;
}

/* The last EXITS_MAX are kept, in their order, as valid JSON whatever a worker has said. */
static void test_ring(void **state) {
        Exits *e = calloc(1, sizeof(*e));

        assert_non_null(e);
        for (unsigned i = 1; i <= EXITS_MAX + 3; i++) {
                _cleanup_free_ char *text = NULL;
                Worker w = ended(CLD_EXITED, (int) i);
                char first[64];
                size_t n;

                snprintf(w.status, sizeof(w.status), "a \"quote\" and a \\ number %u", i);
                w.usage.ru_maxrss = i == 1 ? 0 : 1L << 40;
                assert_int_equal(exits_add(e, &w)->status, (int) i);

                FILE *f = open_memstream(&text, &n);
                assert_non_null(f);
                exits_write(e, f);
                assert_int_equal(fclose(f), 0);
                assert_int_equal(json_scan(text, n, NULL, 0), 0);
                assert_int_equal(count(text, "\"slot\":"), i < EXITS_MAX ? i : EXITS_MAX);
                snprintf(first, sizeof(first), "\"status\":%u,", i <= EXITS_MAX ? 1 : i - EXITS_MAX + 1);
                assert_ptr_equal(strstr(text, "\"status\":"), strstr(text, first));
                assert_int_equal(count(text, "\"peak_memory_bytes\":null"), i <= EXITS_MAX ? 1 : 0);
                assert_non_null(strstr(text, "\"uptime_usec\":4000,"));
        }
        free(e);
}

static char *written(const Exits *e) {
        char *text = NULL;
        size_t n;
        FILE *f = open_memstream(&text, &n);

        assert_non_null(f);
        exits_write(e, f);
        assert_int_equal(fclose(f), 0);
        assert_int_equal(json_scan(text, n, NULL, 0), 0);
        return text;
}

/* A death that was taken over from is a record like others: of the process that died, and nothing is made up
 * of what it has used. */
static void test_taken_over(void **state) {
        static const struct {
                WorkerDeath death;
                ExitCause cause;
                const char *reason;
        } cases[] = {
                { { .code = CLD_KILLED, .status = SIGKILL }, EXIT_CRASHED,
                                "was killed by signal 9, SIGKILL; taken over" },
                { { .code = CLD_DUMPED, .status = SIGSEGV, .reason = "the module has crashed" },
                                EXIT_CRASHED,
                                "was killed by signal 11, SIGSEGV, and dumped core: the module has crashed; taken over" },
                { { .code = CLD_EXITED, .status = 0 }, EXIT_STOPPED, "exited with status 0; taken over" },
                { { .code = CLD_EXITED, .status = 3, .reason = "no" }, EXIT_FAILURE_STATUS,
                                "exited with status 3: no; taken over" },
                { { .code = CLD_DUMPED, .status = SIGABRT, .hung = true }, EXIT_WATCHDOG,
                                "was killed: it did not react for 10s; taken over" },
                { { .code = CLD_KILLED, .status = SIGKILL, .out_of_memory = true }, EXIT_OUT_OF_MEMORY,
                                "was killed for want of memory (by the OOM killer); taken over" },
        };
        Exits *e = calloc(1, sizeof(*e));
        Worker w = ended(CLD_EXITED, 0);

        assert_non_null(e);
        w.watchdog_usec = UINT64_C(10000000);
        for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
                WorkerDeath d = cases[i].death;

                d.pid = 815;
                d.uptime_usec = 99;
                const ExitRecord *r = exits_add_death(e, &w, &d);
                assert_int_equal(r->cause, cases[i].cause);
                assert_string_equal(r->reason, cases[i].reason);
                assert_int_equal(r->pid, 815);
                assert_true(r->taken_over);
        }
        _cleanup_free_ char *text = written(e);
        assert_int_equal(count(text, "\"taken_over\":true"), ELEMENTSOF(cases));
        assert_int_equal(count(text, "\"uptime_usec\":99,\"cpu_usec\":null,\"peak_memory_bytes\":null"),
                        ELEMENTSOF(cases));
        exits_add(e, &w);
        free(text);
        text = written(e);
        assert_int_equal(count(text, "\"taken_over\":false"), 1);
        free(e);
}

/* Where there was a keeper the record tells who served last: of the one that ended nothing is to be found.
 */
static void test_serving_pid(void **state) {
        Exits *e = calloc(1, sizeof(*e));
        Worker w = ended(CLD_KILLED, SIGSEGV);

        assert_non_null(e);
        board_cell_set_worker(&cell, 815);
        exits_add(e, &w); /* without a twin nothing on the board counts */
        w.twin.enabled = true;
        exits_add(e, &w);
        board_cell_set_worker(&cell, 0); /* nobody had taken over yet */
        w.twin.dead_pid = 816;
        exits_add(e, &w);
        exits_add_death(e, &w, &(WorkerDeath){ .pid = 817, .code = CLD_KILLED, .status = SIGKILL });
        _cleanup_free_ char *text = written(e);
        assert_non_null(strstr(text, "\"pid\":4711,\"serving_pid\":null,"));
        assert_non_null(strstr(text, "\"pid\":4711,\"serving_pid\":815,"));
        assert_non_null(strstr(text, "\"pid\":4711,\"serving_pid\":816,"));
        assert_non_null(strstr(text, "\"pid\":817,\"serving_pid\":817,"));
        free(e);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_untold),
                cmocka_unit_test(test_told),
                cmocka_unit_test(test_stop_signal),
                cmocka_unit_test(test_killed),
                cmocka_unit_test(test_names),
                cmocka_unit_test(test_ring),
                cmocka_unit_test(test_taken_over),
                cmocka_unit_test(test_serving_pid),
        };

        log_set_max_level(LOG_EMERG);
        return cmocka_run_group_tests(tests, NULL, NULL);
}
