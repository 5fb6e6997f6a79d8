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

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_untold),
                cmocka_unit_test(test_told),
                cmocka_unit_test(test_stop_signal),
                cmocka_unit_test(test_killed),
                cmocka_unit_test(test_names),
                cmocka_unit_test(test_ring),
        };

        log_set_max_level(LOG_EMERG);
        return cmocka_run_group_tests(tests, NULL, NULL);
}
