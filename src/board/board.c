/* SPDX-License-Identifier: MIT */
/* The scoreboard; see board.h. All accesses are relaxed but the state, whose release pairs with the reader's
 * acquire: who sees READY sees everything that was written before. */

#include "board/board.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "basic/fd.h"
#include "basic/macro.h"
#include "basic/parse.h"
#include "basic/text.h"

#define BOARD_SIZE (BOARD_CELLS * sizeof(BoardCell) + BOARD_SEATS * sizeof(BoardSeat) + sizeof(BoardClaims))

static int board_map(Board *b) {
        void *p = mmap(NULL, BOARD_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, b->fd, 0);
        if (p == MAP_FAILED)
                return -errno;
        b->cells = p;
        b->seats = (BoardSeat *) (b->cells + BOARD_CELLS);
        b->claims = (BoardClaims *) (b->seats + BOARD_SEATS);
        return 0;
}

int board_init(Board *b) {
        int r;

        *b = (Board) BOARD_NULL;
        b->fd = memfd_create("muster-board", MFD_CLOEXEC | MFD_ALLOW_SEALING);
        if (b->fd < 0)
                return -errno;
        if (ftruncate(b->fd, BOARD_SIZE) < 0 ||
                        fcntl(b->fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0) {
                r = -errno;
                goto fail;
        }
        b->bell_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        if (b->bell_fd < 0) {
                r = -errno;
                goto fail;
        }
        r = board_map(b);
        if (r < 0)
                goto fail;
        return 0;

fail:
        board_done(b);
        return r;
}

static int environment_uint(const char *name, unsigned max, unsigned *ret) {
        const char *e = getenv(name);
        unsigned v;

        if (!e)
                return -ENXIO;
        if (parse_uint(e, &v) < 0 || v > max)
                return -EINVAL;
        *ret = v;
        return 0;
}

int board_init_from_environment(Board *b, BoardCell **ret_cell) {
        unsigned fd, bell_fd, cell;
        struct stat st;
        int r;

        r = environment_uint(BOARD_ENV_FD, INT32_MAX, &fd);
        if (r < 0)
                return r;
        r = environment_uint(BOARD_ENV_BELL_FD, INT32_MAX, &bell_fd);
        if (r < 0)
                return r;
        r = environment_uint(BOARD_ENV_CELL, BOARD_CELLS - 1, &cell);
        if (r < 0)
                return r;
        if (fstat((int) fd, &st) < 0)
                return -errno;
        if (st.st_size < (off_t) BOARD_SIZE)
                return -EINVAL;

        *b = (Board){ .fd = (int) fd, .bell_fd = (int) bell_fd };
        r = fd_set_cloexec(b->fd, true);
        if (r >= 0)
                r = fd_set_cloexec(b->bell_fd, true);
        if (r >= 0)
                r = board_map(b);
        if (r < 0)
                return r;
        *ret_cell = b->cells + cell;
        return 0;
}

void board_done(Board *b) {
        if (b->cells)
                munmap(b->cells, BOARD_SIZE);
        safe_close(b->fd);
        safe_close(b->bell_fd);
        *b = (Board) BOARD_NULL;
}

void board_cell_reset(BoardCell *c) {
        memset(c, 0, sizeof(*c));
}

void board_ring(const Board *b) {
        static const uint64_t one = 1;

        /* EAGAIN: the counter is full, so the bell is ringing already. */
        (void) !write(b->bell_fd, &one, sizeof(one));
}

void board_cell_set_state(const Board *b, BoardCell *c, BoardState state) {
        atomic_store_explicit(&c->state, state, memory_order_release);
        board_ring(b);
}

static bool leave_starting(BoardCell *c, BoardState state) {
        uint32_t from = BOARD_STARTING;

        return atomic_compare_exchange_strong_explicit(
                        &c->state, &from, state, memory_order_acq_rel, memory_order_acquire);
}

bool board_cell_begin(BoardCell *c) {
        return leave_starting(c, BOARD_SERVING);
}

bool board_cell_dismiss(BoardCell *c) {
        return leave_starting(c, BOARD_DISMISSED);
}

void board_cell_beat(BoardCell *c) {
        uint64_t n = atomic_load_explicit(&c->beats, memory_order_relaxed);

        atomic_store_explicit(&c->beats, n + 1, memory_order_relaxed);
}

uint64_t board_cell_get_beats(const BoardCell *c) {
        return atomic_load_explicit(&c->beats, memory_order_relaxed);
}

void board_cell_set_reason(BoardCell *c, const char *reason) {
        size_t n = strnlen(reason, BOARD_REASON_SIZE - 1);

        memcpy(c->reason, reason, n);
        c->reason[n] = '\0';
}

static void copy_reason(char ret[static BOARD_REASON_SIZE], const char *reason) {
        memcpy(ret, reason, BOARD_REASON_SIZE);
        ret[BOARD_REASON_SIZE - 1] = '\0';
        text_make_printable(ret);
}

void board_cell_get_reason(const BoardCell *c, char ret[static BOARD_REASON_SIZE]) {
        copy_reason(ret, c->reason);
}

void board_cell_set_worker(BoardCell *c, pid_t pid) {
        atomic_store_explicit(&c->worker_pid, pid, memory_order_relaxed);
}

void board_cell_set_twin(BoardCell *c, pid_t pid) {
        atomic_store_explicit(&c->twin_pid, pid, memory_order_relaxed);
}

void board_cell_add_takeover(BoardCell *c) {
        atomic_fetch_add_explicit(&c->takeovers, 1, memory_order_relaxed);
}

void board_cell_add_death(BoardCell *c, pid_t pid, int status) {
        uint32_t n = atomic_load_explicit(&c->n_deaths, memory_order_relaxed);
        BoardDeath *d = c->deaths + n % BOARD_DEATHS;

        d->pid = pid;
        d->status = status;
        memcpy(d->reason, c->reason, sizeof(d->reason));
        c->reason[0] = '\0';
        atomic_store_explicit(&c->n_deaths, n + 1, memory_order_release);
}

/* Whether what is copied of a death while the counter stands at @n was not written meanwhile: the place of
 * death @n, which may be in the making, is that of @n - BOARD_DEATHS. Unsigned, so that it may wrap. */
static bool death_is_whole(uint32_t n, uint32_t number) {
        return n - number - 1 < BOARD_DEATHS - 1;
}

bool board_cell_get_death(const BoardCell *c, uint32_t number, BoardDeath *ret) {
        const BoardDeath *d = c->deaths + number % BOARD_DEATHS;
        BoardDeath got;

        if (!death_is_whole(atomic_load_explicit(&c->n_deaths, memory_order_acquire), number))
                return false;
        got.pid = d->pid;
        got.status = d->status;
        copy_reason(got.reason, d->reason);
        atomic_thread_fence(memory_order_acquire);
        if (!death_is_whole(atomic_load_explicit(&c->n_deaths, memory_order_relaxed), number))
                return false;
        *ret = got;
        return true;
}

void board_clear_seat(const Board *b, const BoardCell *cell) {
        for (unsigned i = 0; i < BOARD_SEATS; i++) {
                uint32_t owner = (uint32_t) (cell - b->cells) + 1;

                (void) atomic_compare_exchange_strong(&b->seats[i].owner, &owner, 0);
        }
}

void board_bell_wait(const Board *b, int timeout_msec) {
        struct pollfd p = { .fd = b->bell_fd, .events = POLLIN };

        (void) poll(&p, 1, timeout_msec);
}

void board_bell_clear(const Board *b) {
        uint64_t n;

        (void) !read(b->bell_fd, &n, sizeof(n)); /* EAGAIN: somebody was quicker */
}
