/* SPDX-License-Identifier: MIT */
/* A keeper with workers that do next to nothing but die, each in the way that the case has planned for it.
 */

#include "../unit.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "basic/clock.h"
#include "basic/fd.h"
#include "basic/macro.h"
#include "twin/keeper.h"

#define PATIENCE (60 * USEC_PER_SEC) /* for a machine that stands still */

/* A process that should not move is looked at so often, while another one does. */
#define DESCRIPTORS 256

typedef enum Plan {
        PLAN_SERVE,  /* until it is told to end */
        PLAN_HANG,   /* likewise, but never says that it serves */
        PLAN_EXIT,   /* at once */
        PLAN_CRASH,  /* likewise, by SIGSEGV */
        PLAN_DEAF,   /* serves, and does not die of SIGABRT */
        PLAN_FAMILY, /* serves, with a grandchild that nobody waits for */
} Plan;

/* What the test and all processes of the keeper share. */
typedef struct Stage {
        Plan first, later; /* of the one that serves from the start, and of all after it */
        int exit_code;
        _Atomic int begun;  /* how many came to their plan */
        _Atomic int orphan; /* of PLAN_FAMILY */
        _Atomic int buried_too_late;
        _Atomic int kept_fd;    /* opened by the first one */
        _Atomic int kept_bytes; /* read from it by all others */
        _Atomic uint64_t limit;
} Stage;

typedef struct Fixture {
        Stage *stage;
        Area *area;
        Board board;
        pid_t keeper;
} Fixture;

static bool is_over(uint64_t until) {
        const struct timespec nap = { .tv_nsec = 200 * (long) NSEC_PER_USEC };

        (void) nanosleep(&nap, NULL);
        return clock_now_usec() > until;
}

/* Looks again and again until it is so. */
#define wait_for(condition)                                    \
        do {                                                   \
                uint64_t _until = clock_now_usec() + PATIENCE; \
                while (!(condition))                           \
                        assert_false(is_over(_until));         \
        } while (0)

static pid_t serving(const Fixture *f) {
        return atomic_load(&f->area->slots[area_slot(atomic_load(&f->area->serving))].pid);
}

static pid_t waiting(const Fixture *f) {
        unsigned slot = area_slot(atomic_load(&f->area->serving));

        for (unsigned i = 0; i < AREA_SLOTS; i++) {
                pid_t pid = atomic_load(&f->area->slots[i].pid);
                if (i != slot && pid > 0 && pid == atomic_load(&f->board.cells->twin_pid))
                        return pid;
        }
        return 0;
}

static bool is_settled(const Fixture *f) {
        return atomic_load(&f->area->settled) == atomic_load(&f->area->serving);
}

static unsigned term(const Fixture *f) {
        return area_term(atomic_load(&f->area->serving));
}

/*
 * In the keeper's children
 */

/* Ends two generations down: nobody but the keeper hears of it. */
static void have_grandchild(Stage *s) {
        pid_t pid = fork();

        if (pid == 0) {
                pid = fork();
                if (pid > 0)
                        _exit(EXIT_SUCCESS);
                atomic_store(&s->orphan, getpid());
                for (;;)
                        (void) pause();
        }
        (void) waitpid(pid, NULL, 0);
        while (atomic_load(&s->orphan) == 0)
                (void) is_over(0);
}

static void check_kept(Stage *s, KeeperRole role) {
        char byte;

        if (role == KEEPER_FIRST)
                atomic_store(&s->kept_fd, open("/dev/zero", O_RDONLY | O_CLOEXEC));
        else if (read(atomic_load(&s->kept_fd), &byte, 1) == 1)
                atomic_fetch_add(&s->kept_bytes, 1);
}

static _noreturn_ void wait_for_order(const Stage *s) {
        sigset_t mask;
        int signo;

        sigemptyset(&mask);
        sigaddset(&mask, SIGTERM);
        (void) sigwait(&mask, &signo);
        _exit(s->exit_code);
}

static _noreturn_ void act(Stage *s, Area *a, KeeperRole role) {
        Plan plan = role == KEEPER_FIRST ? s->first : s->later;
        struct rlimit limit;

        area_wait_for_burial(a);
        if (role == KEEPER_SUCCESSOR && atomic_load(&s->orphan) > 0 && kill(atomic_load(&s->orphan), 0) == 0)
                atomic_store(&s->buried_too_late, 1);
        check_kept(s, role);
        if (getrlimit(RLIMIT_NOFILE, &limit) == 0)
                atomic_store(&s->limit, limit.rlim_cur);
        atomic_fetch_add(&s->begun, 1);
        if (plan == PLAN_EXIT)
                _exit(s->exit_code);
        if (plan == PLAN_CRASH) {
                (void) prctl(PR_SET_DUMPABLE, 0);
                (void) signal(SIGSEGV, SIG_DFL);
                (void) raise(SIGSEGV);
        }
        if (plan == PLAN_DEAF)
                (void) signal(SIGABRT, SIG_IGN);
        if (plan == PLAN_FAMILY)
                have_grandchild(s);
        if (plan != PLAN_HANG)
                area_tell_served(a);
        wait_for_order(s);
}

static _noreturn_ void be_keeper(Fixture *f, pid_t master) {
        sigset_t mask;
        int status = 0, r;

        (void) prctl(PR_SET_PDEATHSIG, SIGKILL);
        sigemptyset(&mask);
        sigaddset(&mask, SIGTERM);
        (void) sigprocmask(SIG_SETMASK, &mask, NULL);
        r = keeper_run(f->area, &f->board, f->board.cells, master, &status);
        if (r == KEEPER_OVER)
                keeper_exit(status);
        if (r < 0)
                _exit(r == -EOPNOTSUPP ? 77 : 78);
        act(f->stage, f->area, (KeeperRole) r);
}

/*
 * Fixture
 */

static int setup(void **state) {
        Fixture *f = calloc(1, sizeof(*f));

        assert_non_null(f);
        *state = f;
        f->stage = mmap(NULL, sizeof(Stage), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        assert_true(f->stage != MAP_FAILED);
        f->area = area_new(DESCRIPTORS);
        assert_non_null(f->area);
        return board_init(&f->board);
}

static void start(Fixture *f, Plan first, Plan later, int exit_code) {
        pid_t master = getpid();

        f->stage->first = first;
        f->stage->later = later;
        f->stage->exit_code = exit_code;
        f->keeper = fork();
        assert_true(f->keeper >= 0);
        if (f->keeper == 0)
                be_keeper(f, master);
        if (first != PLAN_SERVE && first != PLAN_DEAF && first != PLAN_FAMILY)
                return;
        wait_for(is_settled(f));
        wait_for(waiting(f) > 0);
}

static int end(Fixture *f) {
        int status;

        assert_int_equal(waitpid(f->keeper, &status, 0), f->keeper);
        f->keeper = 0;
        /* Nothing of it is left. */
        assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
        assert_int_equal(errno, ECHILD);
        return status;
}

static int teardown(void **state) {
        Fixture *f = *state;

        if (f->keeper > 0)
                (void) kill(f->keeper, SIGKILL);
        while (waitpid(-1, NULL, 0) > 0)
                ;
        board_done(&f->board);
        area_free(f->area);
        (void) munmap(f->stage, sizeof(Stage));
        free(f);
        return 0;
}

static void retire(Fixture *f, int expected) {
        int status;

        assert_int_equal(kill(f->keeper, SIGTERM), 0);
        status = end(f);
        assert_true(WIFEXITED(status));
        assert_int_equal(WEXITSTATUS(status), expected);
}

static void kill_serving(Fixture *f, int signo) {
        unsigned before = term(f);
        pid_t pid;

        wait_for((pid = serving(f)) > 0); /* it may run before its number is noted */
        assert_int_equal(kill(pid, signo), 0);
        wait_for(term(f) != before);
}

/*
 * Cases
 */

static void test_serving_dies(void **state) {
        Fixture *f = *state;
        BoardDeath death;
        pid_t pid = 0;

        start(f, PLAN_SERVE, PLAN_SERVE, 0);
        for (int i = 0; i < 100; i++) {
                wait_for((pid = serving(f)) > 0);
                kill_serving(f, SIGKILL);
                assert_int_not_equal(serving(f), pid);
                wait_for(is_settled(f));
        }
        assert_int_equal(atomic_load(&f->stage->kept_bytes), 100);
        wait_for(atomic_load(&f->board.cells->n_deaths) == 100);
        assert_true(board_cell_get_death(f->board.cells, 99, &death));
        assert_int_equal(death.pid, pid);
        assert_int_equal(death.status, SIGKILL);
        wait_for(atomic_load(&f->board.cells->worker_pid) == serving(f));
        retire(f, 0);
}

/* It costs nothing but time. */
static void test_waiting_dies(void **state) {
        Fixture *f = *state;
        pid_t pid, worker;

        start(f, PLAN_SERVE, PLAN_SERVE, 0);
        worker = serving(f);
        for (int i = 0; i < 10; i++) {
                wait_for((pid = waiting(f)) > 0);
                assert_int_equal(kill(pid, SIGKILL), 0);
                wait_for(waiting(f) != pid);
        }
        assert_int_equal(serving(f), worker);
        assert_int_equal(atomic_load(&f->board.cells->n_deaths), 0);
        kill_serving(f, SIGKILL);
        retire(f, 0);
}

static void test_both_die(void **state) {
        Fixture *f = *state;

        start(f, PLAN_SERVE, PLAN_SERVE, 0);
        for (int i = 0; i < 20; i++) {
                pid_t w = waiting(f), s;
                unsigned before = term(f);

                wait_for((s = serving(f)) > 0);
                if (w > 0)
                        (void) kill(w, SIGKILL);
                assert_int_equal(kill(s, SIGKILL), 0);
                wait_for(term(f) != before);
                wait_for(is_settled(f) && serving(f) != w);
        }
        retire(f, 0);
}

/* Killed as soon as it has won. */
static void test_winner_dies(void **state) {
        Fixture *f = *state;

        start(f, PLAN_SERVE, PLAN_SERVE, 0);
        for (int i = 0; i < 50; i++) {
                wait_for(is_settled(f));
                kill_serving(f, SIGKILL);
                kill_serving(f, SIGKILL);
        }
        wait_for(is_settled(f));
        retire(f, 0);
}

static void test_winner_hangs(void **state) {
        Fixture *f = *state;
        pid_t pid;

        start(f, PLAN_SERVE, PLAN_HANG, 0);
        kill_serving(f, SIGKILL);
        wait_for(atomic_load(&f->stage->begun) == 2);
        assert_int_equal(waiting(f), 0);
        wait_for((pid = serving(f)) > 0);
        f->stage->later = PLAN_SERVE;
        assert_int_equal(kill(f->keeper, SIGABRT), 0);
        wait_for(is_settled(f));
        assert_int_not_equal(serving(f), pid);
        retire(f, 0);
}

static void test_waiting_is_stopped(void **state) {
        Fixture *f = *state;

        start(f, PLAN_SERVE, PLAN_SERVE, 0);
        for (int i = 0; i < 10; i++) {
                wait_for(is_settled(f) && waiting(f) > 0);
                assert_int_equal(kill(waiting(f), SIGSTOP), 0);
                kill_serving(f, SIGKILL);
        }
        wait_for(is_settled(f));
        retire(f, 0);
}

static void test_abort(void **state) {
        Fixture *f = *state;
        BoardDeath death;
        pid_t pid;

        start(f, PLAN_SERVE, PLAN_SERVE, 0);
        pid = serving(f);
        assert_int_equal(kill(pid, SIGSTOP), 0);
        assert_int_equal(kill(f->keeper, SIGABRT), 0);
        wait_for(serving(f) != pid && is_settled(f));
        wait_for(board_cell_get_death(f->board.cells, 0, &death));
        assert_int_equal(death.pid, pid);
        assert_int_equal(WTERMSIG(death.status), SIGABRT);
        retire(f, 0);
}

static void test_abort_is_ignored(void **state) {
        Fixture *f = *state;
        BoardDeath death;

        start(f, PLAN_DEAF, PLAN_SERVE, 0);
        assert_int_equal(kill(f->keeper, SIGABRT), 0);
        wait_for(board_cell_get_death(f->board.cells, 0, &death));
        assert_int_equal(WTERMSIG(death.status), SIGKILL);
        wait_for(is_settled(f));
        retire(f, 0);
}

static void test_retire(void **state) {
        Fixture *f = *state;

        start(f, PLAN_SERVE, PLAN_SERVE, 7);
        retire(f, 7);
        assert_true(atomic_load(&f->area->retiring));
        assert_false(atomic_load(&f->area->orphaned));
        assert_int_equal(atomic_load(&f->stage->begun), 1);
}

static void test_retire_in_takeover(void **state) {
        Fixture *f = *state;

        start(f, PLAN_SERVE, PLAN_HANG, 3);
        kill_serving(f, SIGKILL);
        retire(f, 3);
}

/* Who drains and is killed is not taken over. */
static void test_dies_while_retiring(void **state) {
        Fixture *f = *state;
        int status;

        start(f, PLAN_SERVE, PLAN_SERVE, 0);
        assert_int_equal(kill(serving(f), SIGSTOP), 0);
        assert_int_equal(kill(f->keeper, SIGTERM), 0);
        wait_for(waiting(f) == 0);
        assert_int_equal(kill(serving(f), SIGKILL), 0);
        status = end(f);
        assert_true(WIFSIGNALED(status));
        assert_int_equal(WTERMSIG(status), SIGKILL);
        assert_int_equal(atomic_load(&f->board.cells->n_deaths), 0);
}

static void test_keeper_dies(void **state) {
        Fixture *f = *state;
        pid_t s, w;
        int status;

        start(f, PLAN_SERVE, PLAN_SERVE, 0);
        s = serving(f);
        w = waiting(f);
        assert_int_equal(kill(f->keeper, SIGKILL), 0);
        assert_int_equal(waitpid(f->keeper, &status, 0), f->keeper);
        /* They come to this process, as their next reaper. */
        assert_int_equal(waitpid(s, &status, 0), s);
        assert_int_equal(status, SIGKILL);
        assert_int_equal(waitpid(w, &status, 0), w);
        if (WIFEXITED(status)) /* it was so new that it had to see by itself that nobody is there */
                assert_int_equal(WEXITSTATUS(status), EXIT_FAILURE);
        else
                assert_int_equal(status, SIGKILL);
        f->keeper = 0;
}

static void test_fails_at_start(void **state) {
        Fixture *f = *state;
        int status;

        start(f, PLAN_EXIT, PLAN_SERVE, 5);
        status = end(f);
        assert_true(WIFEXITED(status));
        assert_int_equal(WEXITSTATUS(status), 5);
        assert_int_equal(atomic_load(&f->stage->begun), 1);
}

static void test_crashes_at_start(void **state) {
        Fixture *f = *state;
        int status;

        start(f, PLAN_CRASH, PLAN_SERVE, 0);
        status = end(f);
        assert_true(WIFSIGNALED(status));
        assert_int_equal(WTERMSIG(status), SIGSEGV);
        assert_false(WCOREDUMP(status));
}

static void test_gives_up(void **state) {
        Fixture *f = *state;
        int status;

        start(f, PLAN_SERVE, PLAN_EXIT, 4);
        assert_int_equal(kill(serving(f), SIGKILL), 0);
        status = end(f);
        assert_true(WIFEXITED(status));
        assert_int_equal(WEXITSTATUS(status), 4);
        assert_int_equal(atomic_load(&f->stage->begun), 1 + 5);
}

/* Its own end is one like any other. */
static void test_ends_by_itself(void **state) {
        Fixture *f = *state;

        start(f, PLAN_SERVE, PLAN_SERVE, 0);
        kill_serving(f, SIGTERM);
        wait_for(is_settled(f));
        retire(f, 0);
}

static void test_leftovers(void **state) {
        Fixture *f = *state;
        pid_t orphan;

        start(f, PLAN_FAMILY, PLAN_SERVE, 0);
        orphan = atomic_load(&f->stage->orphan);
        assert_int_equal(kill(orphan, 0), 0);
        /* Who waits has no family. */
        assert_int_equal(kill(waiting(f), SIGKILL), 0);
        wait_for(atomic_load(&f->board.cells->twin_pid) == 0 || waiting(f) > 0);
        assert_int_equal(kill(orphan, 0), 0);
        kill_serving(f, SIGKILL);
        wait_for(is_settled(f));
        assert_int_equal(atomic_load(&f->stage->buried_too_late), 0);
        assert_int_equal(kill(orphan, 0), -1);
        retire(f, 0);
}

static void test_descriptors(void **state) {
        Fixture *f = *state;
        struct rlimit limit;

        start(f, PLAN_SERVE, PLAN_SERVE, 0);
        assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
        assert_int_equal(atomic_load(&f->stage->limit), limit.rlim_cur - KEEPER_DESCRIPTORS);
        assert_true(area_keeps(f->area, STDERR_FILENO));
        assert_true(area_keeps(f->area, f->area->bell_fd));
        assert_true(area_keeps(f->area, f->board.bell_fd));
        assert_true(area_keeps(f->area, atomic_load(&f->area->slots[0].pidfd)));
        assert_false(area_keeps(f->area, atomic_load(&f->stage->kept_fd)));
        assert_false(area_keeps(f->area, DESCRIPTORS));
        retire(f, 0);
}

#define CASE(name) cmocka_unit_test_setup_teardown(test_##name, setup, teardown)

int main(void) {
        const struct CMUnitTest tests[] = {
                CASE(serving_dies),
                CASE(waiting_dies),
                CASE(both_die),
                CASE(winner_dies),
                CASE(winner_hangs),
                CASE(waiting_is_stopped),
                CASE(abort),
                CASE(abort_is_ignored),
                CASE(retire),
                CASE(retire_in_takeover),
                CASE(dies_while_retiring),
                CASE(keeper_dies),
                CASE(fails_at_start),
                CASE(crashes_at_start),
                CASE(gives_up),
                CASE(ends_by_itself),
                CASE(leftovers),
                CASE(descriptors),
        };
        int *tid;

        if (prctl(PR_GET_TID_ADDRESS, &tid, 0, 0, 0) < 0) {
                printf("skipped: this kernel does not tell where a thread's number lies\n");
                return 77;
        }
        (void) prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
        return cmocka_run_group_tests(tests, NULL, NULL);
}
