/* SPDX-License-Identifier: MIT */
/* A worker with a keeper: whom of those that the board names the master believes, which deaths it tells, and
 * when it expects no sign of life. This process plays the keeper, its children those behind it. */

#include "../unit.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "basic/clock.h"
#include "basic/macro.h"
#include "master/worker.h"

static BoardCell cell;
static WorkerDeath deaths[256];
static size_t n_deaths;

static void on_died(Worker *w, const WorkerDeath *d, void *userdata) {
        assert_true(n_deaths < ELEMENTSOF(deaths));
        deaths[n_deaths++] = *d;
}

static const WorkerEnvironment environment = { .handlers = { .died = on_died } };

static Worker new_worker(void) {
        memset(&cell, 0, sizeof(cell));
        n_deaths = 0;
        return (Worker){
                .slot = 1,
                .pid = getpid(),
                .state = WORKER_READY,
                .cell = &cell,
                .environment = &environment,
                .started_usec = clock_now_usec(),
                .start_timeout_usec = 10 * USEC_PER_SEC,
                .twin = { .enabled = true },
        };
}

static pid_t start_child(void) {
        pid_t parent = getpid(), pid = fork();

        assert_true(pid >= 0);
        if (pid == 0) {
                (void) prctl(PR_SET_PDEATHSIG, SIGKILL);
                while (getppid() == parent)
                        pause();
                _exit(0);
        }
        return pid;
}

static void end_child(pid_t pid) {
        assert_int_equal(kill(pid, SIGKILL), 0);
        assert_int_equal(waitpid(pid, NULL, 0), pid);
}

/* A worker with its keeper, and the child of it that serves. */
static Worker new_worker_with_keeper(pid_t *ret) {
        Worker w = new_worker();

        *ret = start_child();
        board_cell_set_worker(&cell, *ret);
        worker_look_at_twin(&w);
        assert_true(w.twin.has_keeper);
        return w;
}

/* Only a child of the keeper is one of its processes, whatever a worker gone mad writes. */
static void test_pids(void **state) {
        static const pid_t lies[] = { 0, -1, 1, INT32_MAX, INT32_MIN };
        pid_t worker = start_child(), twin = start_child();
        Worker w = new_worker();

        for (size_t i = 0; i < ELEMENTSOF(lies); i++) {
                board_cell_set_worker(&cell, lies[i]);
                board_cell_set_twin(&cell, getpid());
                worker_look_at_twin(&w);
                assert_false(worker_has_keeper(&w));
                assert_int_equal(worker_get_serving_pid(&w), getpid());
                assert_int_equal(worker_get_twin_pid(&w), 0);
        }
        board_cell_set_worker(&cell, worker);
        assert_true(worker_has_keeper(&w)); /* also before anybody looked */
        board_cell_set_twin(&cell, twin);
        worker_look_at_twin(&w);
        assert_int_equal(worker_get_serving_pid(&w), worker);
        assert_int_equal(worker_get_twin_pid(&w), twin);
        end_child(worker);
        assert_true(worker_has_keeper(&w)); /* that stays so */
        assert_int_equal(worker_get_serving_pid(&w), 0);
        end_child(twin);
        assert_int_equal(worker_get_twin_pid(&w), 0);
}

/* Without workers.twin nothing on the board counts. */
static void test_off(void **state) {
        pid_t child = start_child();
        Worker w = new_worker();

        w.twin.enabled = false;
        board_cell_set_worker(&cell, child);
        board_cell_add_death(&cell, 1, SIGKILL);
        worker_look_at_twin(&w);
        assert_int_equal(n_deaths, 0);
        assert_int_equal(worker_get_serving_pid(&w), getpid());
        assert_int_equal(worker_get_takeovers(&w), 0);
        end_child(child);
}

/* Each death is told once, with its last words; what no process ends with is not. */
static void test_deaths(void **state) {
        pid_t child;
        Worker w = new_worker_with_keeper(&child);

        board_cell_set_reason(&cell, "the module has crashed");
        board_cell_add_death(&cell, 815, SIGSEGV | 0x80);
        board_cell_add_death(&cell, 816, 3 << 8);
        worker_look_at_twin(&w);
        assert_int_equal(n_deaths, 2);
        assert_int_equal(deaths[0].pid, 815);
        assert_int_equal(deaths[0].code, CLD_DUMPED);
        assert_int_equal(deaths[0].status, SIGSEGV);
        assert_string_equal(deaths[0].reason, "the module has crashed");
        assert_int_equal(deaths[1].code, CLD_EXITED);
        assert_int_equal(deaths[1].status, 3);
        assert_string_equal(deaths[1].reason, "");
        assert_false(deaths[0].hung || deaths[0].out_of_memory);
        assert_true(worker_was_taken_over_from(&w, 816));
        assert_false(worker_was_taken_over_from(&w, child));

        board_cell_add_death(&cell, 817, 0x137f); /* stopped */
        worker_look_at_twin(&w);
        worker_look_at_twin(&w);
        assert_int_equal(n_deaths, 2);
        board_cell_add_death(&cell, 818, SIGKILL);
        worker_look_at_twin(&w);
        assert_int_equal(n_deaths, 3);
        end_child(child);
}

/* What is told on stderr meanwhile goes here. */
static int catch_log(int *ret_stderr) {
        int fd = memfd_create("log", MFD_CLOEXEC);

        assert_true(fd >= 0);
        *ret_stderr = dup(STDERR_FILENO);
        assert_true(dup2(fd, STDERR_FILENO) >= 0);
        return fd;
}

static void assert_logged(int fd, int saved_stderr, const char *expected) {
        char text[256];
        ssize_t n = pread(fd, text, sizeof(text) - 1, 0);

        assert_true(dup2(saved_stderr, STDERR_FILENO) >= 0);
        close(saved_stderr);
        close(fd);
        assert_true(n >= 0);
        text[n] = '\0';
        if (*expected)
                assert_non_null(strstr(text, expected));
        else
                assert_string_equal(text, "");
}

/* Deaths that nobody can say anything of any more are at least counted. */
static void test_untold(void **state) {
        pid_t child;
        Worker w = new_worker_with_keeper(&child);
        int saved, fd;

        fd = catch_log(&saved);
        for (pid_t pid = 1; pid <= 10; pid++)
                board_cell_add_death(&cell, pid, SIGKILL);
        worker_look_at_twin(&w);
        assert_logged(fd, saved, "7 more processes of worker 1 have died, and were taken over.");
        assert_int_equal(n_deaths, 3);
        assert_int_equal(deaths[0].pid, 8);

        fd = catch_log(&saved);
        board_cell_add_death(&cell, 11, SIGKILL);
        worker_look_at_twin(&w);
        w.twin.n_flood = 1000;
        w.twin.flood_since_usec = clock_now_usec();
        board_cell_add_death(&cell, 12, SIGKILL);
        worker_look_at_twin(&w);
        assert_logged(fd, saved, "");
        assert_int_equal(n_deaths, 4);

        fd = catch_log(&saved);
        w.twin.flood_since_usec = 0;
        worker_look_at_twin(&w);
        assert_logged(fd, saved, "1 more process of worker 1 has died, and was taken over.");
        end_child(child);
}

/* Deaths without end, made up or not, are told up to a bound; and it goes on afterwards. */
static void test_flood(void **state) {
        pid_t child;
        Worker w = new_worker_with_keeper(&child);

        for (uint32_t i = 0; i < 500; i++) {
                cell.n_deaths += UINT32_C(2000000011);
                worker_look_at_twin(&w);
        }
        assert_true(n_deaths > 0);
        assert_true(n_deaths <= 200); /* or a second has passed meanwhile */
        w.twin.flood_since_usec = 0;
        size_t before = n_deaths;
        board_cell_add_death(&cell, 1, SIGKILL);
        worker_look_at_twin(&w);
        assert_int_equal(n_deaths, before + 1);
        end_child(child);
}

/* Who takes over starts anew: until its first beat, or as long as a start may take, none is expected. */
static void test_patience(void **state) {
        pid_t child;
        Worker w = new_worker_with_keeper(&child);
        uint64_t now;

        cell.beats = 7;
        assert_false(worker_is_taken_over(&w, clock_now_usec()));
        board_cell_add_death(&cell, 1, SIGKILL);
        worker_look_at_twin(&w);
        now = clock_now_usec();
        assert_true(worker_is_taken_over(&w, now + 8 * USEC_PER_SEC));
        assert_false(worker_is_taken_over(&w, now + 11 * USEC_PER_SEC));
        assert_true(w.heartbeat.since_usec == now + 11 * USEC_PER_SEC); /* its time begins anew */

        board_cell_add_death(&cell, 1, SIGKILL);
        worker_look_at_twin(&w);
        assert_true(worker_is_taken_over(&w, clock_now_usec()));
        board_cell_beat(&cell);
        assert_false(worker_is_taken_over(&w, clock_now_usec()));
        end_child(child);
}

/* A take-over may ask for more time; who dies may not, and without either there is nothing to extend. */
static void test_extended_patience(void **state) {
        pid_t child;
        Worker w = new_worker_with_keeper(&child);
        uint64_t now;

        worker_extend_takeover(&w, 60 * USEC_PER_SEC);
        assert_false(worker_is_taken_over(&w, clock_now_usec()));
        board_cell_add_death(&cell, 1, SIGKILL); /* which nobody has looked at yet */
        worker_extend_takeover(&w, 60 * USEC_PER_SEC);
        worker_extend_takeover(&w, 1);
        now = clock_now_usec();
        assert_true(worker_is_taken_over(&w, now + 59 * USEC_PER_SEC));
        assert_false(worker_is_taken_over(&w, now + 61 * USEC_PER_SEC));

        board_cell_beat(&cell);
        assert_true(worker_abort_serving(&w));
        worker_extend_takeover(&w, 60 * USEC_PER_SEC);
        assert_false(worker_is_taken_over(&w, clock_now_usec() + 20 * USEC_PER_SEC));
        end_child(child);
}

/* A take-over tells that it has begun, too, also one that was there before its death was read. When one has
 * died without having got that far, the next one's take-over tells nothing by itself, but its beat does, and
 * from then on take-overs tell again. */
static void test_patience_ends_by_takeover(void **state) {
        pid_t child;
        Worker w = new_worker_with_keeper(&child);

        cell.beats = 7;
        board_cell_add_death(&cell, 1, SIGKILL);
        worker_look_at_twin(&w);
        assert_true(worker_is_taken_over(&w, clock_now_usec()));
        board_cell_add_takeover(&cell);
        assert_false(worker_is_taken_over(&w, clock_now_usec()));

        board_cell_add_death(&cell, 2, SIGKILL);
        board_cell_add_takeover(&cell);
        worker_look_at_twin(&w);
        assert_false(worker_is_taken_over(&w, clock_now_usec()));

        board_cell_add_death(&cell, 3, SIGKILL);
        board_cell_add_death(&cell, 4, SIGKILL); /* which had begun nothing */
        worker_look_at_twin(&w);
        board_cell_add_takeover(&cell);
        assert_true(worker_is_taken_over(&w, clock_now_usec()));
        board_cell_beat(&cell);
        assert_false(worker_is_taken_over(&w, clock_now_usec()));

        board_cell_add_death(&cell, 5, SIGKILL);
        worker_look_at_twin(&w);
        assert_true(worker_is_taken_over(&w, clock_now_usec()));
        board_cell_add_takeover(&cell);
        assert_false(worker_is_taken_over(&w, clock_now_usec()));
        end_child(child);
}

/* The watchdog ends who serves once, and again only when somebody has lived meanwhile. The death is told as
 * its doing. */
static void test_abort(void **state) {
        pid_t child;
        Worker w = new_worker_with_keeper(&child);

        cell.beats = 7;
        assert_true(worker_abort_serving(&w));
        board_cell_beat(&cell); /* of one that dies */
        assert_true(worker_is_taken_over(&w, clock_now_usec()));
        cell.beats = 7;
        assert_false(worker_is_taken_over(&w, clock_now_usec() + 20 * USEC_PER_SEC));
        assert_false(worker_abort_serving(&w));
        board_cell_add_death(&cell, 1, SIGABRT);
        worker_look_at_twin(&w);
        assert_true(deaths[0].hung);
        assert_false(worker_abort_serving(&w)); /* the successor has not beaten */
        board_cell_beat(&cell);
        assert_true(worker_abort_serving(&w));
        assert_false(worker_abort_serving(&w));
        board_cell_add_takeover(&cell); /* a successor that hangs before it beats */
        assert_true(worker_abort_serving(&w));
        board_cell_add_death(&cell, 1, SIGABRT);
        board_cell_add_death(&cell, 1, SIGKILL);
        worker_look_at_twin(&w);
        assert_true(deaths[1].hung);
        assert_false(deaths[2].hung);
        end_child(child);
}

/* Without a keeper there is nobody who would take over. */
static void test_abort_without(void **state) {
        Worker w = new_worker();

        assert_false(worker_abort_serving(&w));
}

/* Memory is that of who serves; CPU time that of all, the dead included. */
static void test_usage(void **state) {
        uint64_t memory, cpu;
        pid_t child;
        Worker w = new_worker_with_keeper(&child);

        assert_int_equal(worker_get_memory(&w, &memory), 0);
        assert_true(memory > 0);
        assert_int_equal(worker_get_cpu(&w, &cpu), 0);
        end_child(child);
        assert_int_equal(worker_get_memory(&w, &memory), 0); /* the keeper's then */
        assert_int_equal(worker_get_cpu(&w, &cpu), 0);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_pids),
                cmocka_unit_test(test_off),
                cmocka_unit_test(test_deaths),
                cmocka_unit_test(test_untold),
                cmocka_unit_test(test_flood),
                cmocka_unit_test(test_patience),
                cmocka_unit_test(test_extended_patience),
                cmocka_unit_test(test_patience_ends_by_takeover),
                cmocka_unit_test(test_abort),
                cmocka_unit_test(test_abort_without),
                cmocka_unit_test(test_usage),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
