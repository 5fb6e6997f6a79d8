/* SPDX-License-Identifier: MIT */
/* The scoreboard: what the master and a worker see of each other through it. */

#include "../unit.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "basic/fd.h"
#include "basic/macro.h"
#include "board/board.h"

static void set_environment(const Board *b, unsigned cell) {
        char text[16];

        snprintf(text, sizeof(text), "%d", b->fd);
        setenv(BOARD_ENV_FD, text, 1);
        snprintf(text, sizeof(text), "%d", b->bell_fd);
        setenv(BOARD_ENV_BELL_FD, text, 1);
        snprintf(text, sizeof(text), "%u", cell);
        setenv(BOARD_ENV_CELL, text, 1);
}

static bool bell_is_ringing(const Board *b) {
        uint64_t n;
        bool ringing = read(b->bell_fd, &n, sizeof(n)) == sizeof(n);

        if (ringing)
                assert_int_equal(write(b->bell_fd, &n, sizeof(n)), sizeof(n));
        return ringing;
}

/* No holder of the descriptor can shrink or grow the memory under the others, nor take the seals off. */
static void test_sealed(void **state) {
        _cleanup_(board_done) Board b;

        assert_int_equal(board_init(&b), 0);
        assert_int_equal(ftruncate(b.fd, 0), -1);
        assert_int_equal(errno, EPERM);
        assert_int_equal(ftruncate(b.fd, 1 << 30), -1);
        assert_int_equal(errno, EPERM);
        assert_int_equal(fcntl(b.fd, F_ADD_SEALS, F_SEAL_FUTURE_WRITE), -1);
        assert_int_equal(fcntl(b.fd, F_GETFD), FD_CLOEXEC);
        assert_int_equal(fcntl(b.bell_fd, F_GETFD), FD_CLOEXEC);
}

/* A worker that maps the board from its environment writes where the master reads, and nowhere else. */
static void test_two_sides(void **state) {
        _cleanup_(board_done) Board master, worker = BOARD_NULL;
        BoardCell *cell;

        assert_int_equal(board_init(&master), 0);
        /* as the child has them: other numbers, without FD_CLOEXEC */
        Board inherited = { .fd = dup(master.fd), .bell_fd = dup(master.bell_fd) };
        set_environment(&inherited, 7);
        assert_int_equal(board_init_from_environment(&worker, &cell), 0);
        assert_int_equal(fcntl(worker.fd, F_GETFD), FD_CLOEXEC);
        assert_int_equal(fcntl(worker.bell_fd, F_GETFD), FD_CLOEXEC);
        assert_ptr_equal(cell, worker.cells + 7);

        assert_int_equal(master.cells[7].state, BOARD_STARTING);
        assert_false(bell_is_ringing(&master));
        cell->connections = 3;
        board_cell_set_state(&worker, cell, BOARD_READY);
        assert_true(bell_is_ringing(&master));
        assert_int_equal(master.cells[7].state, BOARD_READY);
        assert_int_equal(master.cells[7].connections, 3);
        for (size_t i = 0; i < BOARD_CELLS; i++)
                if (i != 7)
                        assert_int_equal(master.cells[i].state, BOARD_STARTING);
}

/* The end of STARTING is the worker's or the master's, never both. */
static void test_begin_or_dismiss(void **state) {
        BoardCell c = { .state = BOARD_STARTING };

        assert_true(board_cell_begin(&c));
        assert_int_equal(c.state, BOARD_SERVING);
        assert_false(board_cell_dismiss(&c));
        assert_false(board_cell_begin(&c));
        assert_int_equal(c.state, BOARD_SERVING);

        board_cell_reset(&c);
        assert_true(board_cell_dismiss(&c));
        assert_int_equal(c.state, BOARD_DISMISSED);
        assert_false(board_cell_begin(&c));
        assert_false(board_cell_dismiss(&c));
        assert_int_equal(c.state, BOARD_DISMISSED);
}

/* However often it rang, one look silences the bell; a silent one does not block. A full bell still takes
 * rings. */
static void test_bell(void **state) {
        _cleanup_(board_done) Board b;
        uint64_t nearly = UINT64_MAX - 1;

        assert_int_equal(board_init(&b), 0);
        for (int i = 0; i < 10; i++)
                board_cell_set_state(&b, b.cells, BOARD_READY);
        board_bell_clear(&b);
        assert_false(bell_is_ringing(&b));
        board_bell_clear(&b);

        assert_int_equal(write(b.bell_fd, &nearly, sizeof(nearly)), sizeof(nearly));
        board_cell_set_state(&b, b.cells, BOARD_DRAINING);
        assert_true(bell_is_ringing(&b));
}

/* Without any of the variables there is no board (-ENXIO); with nonsense in one it is refused. */
static void test_environment(void **state) {
        static const char *const names[] = { BOARD_ENV_FD, BOARD_ENV_BELL_FD, BOARD_ENV_CELL };
        static const char *const nonsense[] = { "", "-1", "x", "3x", "4294967296", "2147483648" };
        _cleanup_(board_done) Board b;
        Board other = BOARD_NULL;
        BoardCell *cell = NULL;

        assert_int_equal(board_init(&b), 0);
        for (size_t i = 0; i < ELEMENTSOF(names); i++) {
                set_environment(&b, 0);
                unsetenv(names[i]);
                assert_int_equal(board_init_from_environment(&other, &cell), -ENXIO);
                for (size_t k = 0; k < ELEMENTSOF(nonsense); k++) {
                        setenv(names[i], nonsense[k], 1);
                        assert_int_equal(board_init_from_environment(&other, &cell), -EINVAL);
                }
        }
        set_environment(&b, BOARD_CELLS);
        assert_int_equal(board_init_from_environment(&other, &cell), -EINVAL);
        set_environment(&(Board){ .fd = 1000000, .bell_fd = b.bell_fd }, 0);
        assert_int_equal(board_init_from_environment(&other, &cell), -EBADF);

        /* too small a file would be a SIGBUS at the first access */
        _cleanup_close_ int small = memfd_create("small", MFD_CLOEXEC);
        set_environment(&(Board){ .fd = small, .bell_fd = b.bell_fd }, 0);
        assert_int_equal(board_init_from_environment(&other, &cell), -EINVAL);
        assert_null(cell);
}

/* A cell that goes to the next worker tells nothing of the one before. */
static void test_reset(void **state) {
        _cleanup_(board_done) Board b;
        static const BoardCell empty;

        assert_int_equal(board_init(&b), 0);
        memset(b.cells + 5, 0xFF, sizeof(BoardCell));
        board_cell_reset(b.cells + 5);
        assert_memory_equal(b.cells + 5, &empty, sizeof(empty));
}

/* Cells do not share a cache line: one worker's counting does not slow another's. Where things are is what
 * the tests' own readers and writers of the board go by (worker_harness.py, fake_worker.py). */
static void test_layout(void **state) {
        assert_int_equal(sizeof(BoardCell), 1024);
        assert_int_equal(offsetof(BoardCell, state), 0);
        assert_int_equal(offsetof(BoardCell, connections), 4);
        assert_int_equal(offsetof(BoardCell, accepted), 8);
        assert_int_equal(offsetof(BoardCell, requests), 16);
        assert_int_equal(offsetof(BoardCell, beats), 24);
        assert_int_equal(offsetof(BoardCell, reason), 32);
        assert_int_equal(offsetof(BoardCell, worker_pid), 216);
        assert_int_equal(offsetof(BoardCell, twin_pid), 220);
        assert_int_equal(offsetof(BoardCell, takeovers), 224);
        assert_int_equal(offsetof(BoardCell, n_deaths), 228);
        assert_int_equal(offsetof(BoardCell, deaths), 232);
        assert_int_equal(sizeof(BoardDeath), 192);
        assert_int_equal(BOARD_DRAINING, 2);
        assert_int_equal(BOARD_LEAVING, 3);
}

/* Every beat counts, shows in its own cell alone, and does not wake the master up. */
static void test_beats(void **state) {
        _cleanup_(board_done) Board b;

        assert_int_equal(board_init(&b), 0);
        assert_int_equal(board_cell_get_beats(b.cells + 3), 0);
        for (int i = 0; i < 3; i++)
                board_cell_beat(b.cells + 3);
        assert_int_equal(board_cell_get_beats(b.cells + 3), 3);
        assert_int_equal(board_cell_get_beats(b.cells + 2), 0);
        assert_int_equal(board_cell_get_beats(b.cells + 4), 0);
        assert_false(bell_is_ringing(&b));

        b.cells[3].beats = UINT32_MAX;
        board_cell_beat(b.cells + 3);
        assert_true(board_cell_get_beats(b.cells + 3) == UINT64_C(1) << 32);
}

/* A reason is cut to what fits and always ends. */
static void test_reason_is_cut(void **state) {
        static BoardCell c;
        char text[BOARD_REASON_SIZE * 2], got[BOARD_REASON_SIZE];

        board_cell_get_reason(&c, got);
        assert_string_equal(got, "");
        board_cell_set_reason(&c, "cannot open the directory \"/srv\"");
        board_cell_get_reason(&c, got);
        assert_string_equal(got, "cannot open the directory \"/srv\"");

        memset(text, 'x', sizeof(text) - 1);
        text[sizeof(text) - 1] = '\0';
        board_cell_set_reason(&c, text);
        board_cell_get_reason(&c, got);
        assert_int_equal(strlen(got), BOARD_REASON_SIZE - 1);

        /* a mad worker left no end */
        memset(c.reason, 'y', sizeof(c.reason));
        board_cell_get_reason(&c, got);
        assert_int_equal(strlen(got), BOARD_REASON_SIZE - 1);
}

/* What a worker leaves is printed safely: no control characters, no broken UTF-8; the rest as it is. */
static void test_reason_is_printable(void **state) {
        static const struct {
                const char *in, *out;
        } cases[] = {
                { "a\nREADY=1", "a?READY=1" },
                { "\033[31mred\177", "?[31mred?" },
                { "ordner \"größe\" → 日本 🙂", "ordner \"größe\" → 日本 🙂" },
                { "\xC3", "?" },                     /* cut in the middle */
                { "\xE2\x86", "??" },                /* likewise */
                { "\xC0\xAF", "??" },                /* overlong */
                { "\xE0\x80\xAF", "???" },           /* likewise */
                { "\xED\xA0\x80", "???" },           /* a surrogate */
                { "\xF4\x90\x80\x80", "????" },      /* beyond Unicode */
                { "\xF8\x88\x80\x80\x80", "?????" }, /* five bytes */
                { "\x80\xFFz", "??z" },
        };

        for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
                static BoardCell c;
                char got[BOARD_REASON_SIZE];

                board_cell_set_reason(&c, cases[i].in);
                board_cell_get_reason(&c, got);
                assert_string_equal(got, cases[i].out);
        }
}

/* A death takes the words of who died along, so that the next one's are its own; the reader gets each one
 * once it is there, and is told of those that it was too late for. */
static void test_deaths(void **state) {
        static BoardCell c;
        BoardDeath d = { .pid = -1 };

        assert_false(board_cell_get_death(&c, 0, &d));
        board_cell_set_reason(&c, "out of \033 ideas");
        board_cell_add_death(&c, 100, 9);
        assert_true(board_cell_get_death(&c, 0, &d));
        assert_int_equal(d.pid, 100);
        assert_int_equal(d.status, 9);
        assert_string_equal(d.reason, "out of ? ideas");
        assert_false(board_cell_get_death(&c, 1, &d));

        for (int i = 1; i < 10; i++)
                board_cell_add_death(&c, 100 + i, i << 8);
        assert_int_equal(c.n_deaths, 10);
        for (uint32_t i = 0; i < 12; i++) {
                bool there = i >= 10 - (BOARD_DEATHS - 1) && i < 10;

                d = (BoardDeath){ .pid = -1 };
                assert_int_equal(board_cell_get_death(&c, i, &d), there);
                assert_int_equal(d.pid, there ? 100 + (int) i : -1);
                assert_string_equal(d.reason, "");
        }
}

/* The counter wraps around, and a mad worker may set it to anything. */
static void test_deaths_wrap(void **state) {
        static BoardCell c = { .n_deaths = UINT32_MAX };
        BoardDeath d;

        assert_false(board_cell_get_death(&c, 0, &d));
        board_cell_add_death(&c, 7, 0);
        board_cell_add_death(&c, 8, 0);
        assert_int_equal(c.n_deaths, 1);
        assert_true(board_cell_get_death(&c, UINT32_MAX, &d));
        assert_int_equal(d.pid, 7);
        assert_true(board_cell_get_death(&c, 0, &d));
        assert_int_equal(d.pid, 8);
        assert_false(board_cell_get_death(&c, 1, &d));

        /* last words without an end */
        memset(c.deaths, 'y', sizeof(c.deaths));
        assert_true(board_cell_get_death(&c, 0, &d));
        assert_int_equal(strlen(d.reason), BOARD_REASON_SIZE - 1);
}

/* Who serves, who stands by, and how often one took over; a ring says that there is something to look at. */
static void test_keeper_side(void **state) {
        _cleanup_(board_done) Board b;

        assert_int_equal(board_init(&b), 0);
        board_cell_set_worker(b.cells + 2, 1000);
        board_cell_set_twin(b.cells + 2, 1001);
        board_cell_add_takeover(b.cells + 2);
        board_cell_add_takeover(b.cells + 2);
        assert_int_equal(b.cells[2].worker_pid, 1000);
        assert_int_equal(b.cells[2].twin_pid, 1001);
        assert_int_equal(b.cells[2].takeovers, 2);
        assert_false(bell_is_ringing(&b));
        board_ring(&b);
        assert_true(bell_is_ringing(&b));
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_sealed),
                cmocka_unit_test(test_two_sides),
                cmocka_unit_test(test_begin_or_dismiss),
                cmocka_unit_test(test_bell),
                cmocka_unit_test(test_environment),
                cmocka_unit_test(test_reset),
                cmocka_unit_test(test_layout),
                cmocka_unit_test(test_beats),
                cmocka_unit_test(test_reason_is_cut),
                cmocka_unit_test(test_deaths),
                cmocka_unit_test(test_deaths_wrap),
                cmocka_unit_test(test_keeper_side),
                cmocka_unit_test(test_reason_is_printable),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
