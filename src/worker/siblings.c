/* SPDX-License-Identifier: MIT */
/* What a worker has to do with its siblings; see siblings.h.
 *
 * A seat's inbox is pending from the moment something is sent to it until its owner begins to read. The
 * owner says first that it is not pending, and then reads; the sender says that it is before it sends. So
 * what is sent in between can lie there without being marked, while its owner falls asleep or is stopped:
 * who hands something over looks into the inbox itself when the time is over, and marks what it finds.
 *
 * The rescuer leaves the mark where it is, so that the seat gets nothing more, and a message without a
 * connection, which the owner reads as soon as it runs again.
 *
 * A worker may die at any point of this, and be taken over from by a process that has the same descriptors
 * and nothing else. What it handed over and had not closed yet is there twice then, and so is what a reader
 * had taken out of an inbox that died before it could begin with it: such connections are claimed on the
 * board. What it had marked or counted elsewhere is put right by the owner of the seat, and what it was to
 * look after is what lies in the inboxes.
 *
 * What the board says may be wrong, if one of the workers is mad. The worst that comes of it is that a
 * connection is handed to the wrong one, or later than it could be, or to nobody; or that one is lost which
 * is on its way, when its word is overwritten. */

#include "worker/siblings.h"

#include <errno.h>
#include <stdatomic.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include "basic/clock.h"
#include "basic/fd.h"
#include "basic/log.h"
#include "basic/macro.h"
#include "worker/fairness.h"

/* With more of them than this the others are not looked at for each connection. */
#define SEATS_CHEAP 8

#define NUMBERS_MAX (4 * 1024 * 1024) /* of descriptors that are looked at; connections have lower ones */

#define RESCUES_MAX 64 /* messages without a connection, in a row */

static uint32_t load32(const _Atomic uint32_t *p) {
        return atomic_load_explicit(p, memory_order_relaxed);
}

static uint64_t load64(const _Atomic uint64_t *p) {
        return atomic_load_explicit(p, memory_order_relaxed);
}

/* Both in one order for all, so that mark and message are not seen the other way round. */
static bool seat_set_pending(BoardSeat *seat, uint64_t from, uint64_t to) {
        return atomic_compare_exchange_strong(&seat->pending_since, &from, to);
}

/* Never below zero, whatever it was set to. */
static void seat_arrived(BoardSeat *seat) {
        uint32_t n = load32(&seat->in_flight);

        while (n > 0 && !atomic_compare_exchange_weak(&seat->in_flight, &n, n - 1))
                ;
}

static void seat_change_owner(BoardSeat *seat, uint32_t from, uint32_t to) {
        (void) atomic_compare_exchange_strong(&seat->owner, &from, to);
}

/* Of several workers of a slot, of which some may drain, one speaks for it. */
static bool owns_seat(const Siblings *s) {
        return load32(&s->seats[s->mine].owner) == s->mark;
}

/* What a worker has left that died may still lie in some inbox, with nobody who looks after it. */
static void look_after_rest(Siblings *s, uint64_t now) {
        for (unsigned i = 0; i < s->n; i++)
                if (!inbox_is_empty(s->inboxes + i)) {
                        s->handed |= UINT64_C(1) << i;
                        s->deadline = now + FAIRNESS_PATIENCE_USEC;
                }
}

int siblings_init(Siblings *s, const Board *board, const BoardCell *cell, unsigned slot, bool claimed,
                uint64_t now) {
        int n;

        *s = (Siblings){ .deadline = USEC_INFINITY, .claimed = claimed };
        n = inbox_from_environment(s->inboxes, BOARD_SEATS);
        if (n < 0)
                return log_error_errno(n, "The variable " BOARD_ENV_INBOX_FDS " is malformed.");
        if (slot < 1 || slot > (unsigned) n)
                return 0;
        s->seats = board->seats;
        s->cells = board->cells;
        s->claims = board->claims;
        s->n = (unsigned) n;
        s->mine = slot - 1;
        s->mark = (uint32_t) (cell - board->cells) + 1;
        look_after_rest(s, now);
        return 0;
}

/* The mark may be of the one that died, before it had sent anything: the owner takes it away when it looks
 * into its inbox, or gets nothing more. It may sleep. */
static void siblings_poke_marked(const Siblings *s) {
        for (unsigned i = 0; i < s->n; i++)
                if (i != s->mine && load64(&s->seats[i].pending_since) > 0 && inbox_is_empty(s->inboxes + i))
                        (void) inbox_send_poke(s->inboxes + i);
}

void siblings_inherit(Siblings *s, uint64_t now) {
        if (!s->seats)
                return;
        s->inherited = true;
        if (owns_seat(s))
                atomic_store_explicit(&s->seats[s->mine].busy_since, now, memory_order_relaxed);
        look_after_rest(s, now);
        siblings_poke_marked(s);
}

/* 0: it has none that could be claimed. */
static uint64_t cookie_of(int fd) {
        uint64_t cookie = 0;
        socklen_t n = sizeof(cookie);

        return getsockopt(fd, SOL_SOCKET, SO_COOKIE, &cookie, &n) < 0 ? 0 : cookie;
}

/* Closed first: whoever dies in between has a copy that nobody claims. */
static void siblings_drop(Siblings *s, int fd, uint64_t cookie) {
        safe_close(fd);
        if (cookie != 0)
                claims_drop(s->claims, cookie);
}

static bool has_other_copy(int fd, uint64_t cookie) {
        struct rlimit limit;

        if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
                return false;
        for (int i = 0; i < (int) MIN(limit.rlim_cur, (rlim_t) NUMBERS_MAX); i++)
                if (i != fd && cookie_of(i) == cookie)
                        return true;
        return false;
}

/* What this worker has claimed before is what it found here, and had no time to begin with; or it has begun,
 * and this is what it had sent itself as its predecessor, and has taken out of the inbox again. */
bool siblings_claim(Siblings *s, int fd) {
        if (!s->seats)
                return true;
        uint64_t cookie = cookie_of(fd);
        Claim claim = cookie != 0 ? claims_take(s->claims, cookie, s->mark - 1) : CLAIM_WON;
        if (claim == CLAIM_WON || (claim == CLAIM_HELD && !has_other_copy(fd, cookie)))
                return true;
        siblings_drop(s, fd, cookie);
        return false;
}

bool siblings_exist(const Siblings *s) {
        return s->seats;
}

int siblings_fd(const Siblings *s) {
        return s->seats ? s->inboxes[s->mine].receive_fd : -EBADF;
}

void siblings_begin(Siblings *s) {
        if (!s->seats)
                return;
        BoardSeat *seat = s->seats + s->mine;
        s->serves = s->sits = true;
        /* It may have been the old worker of the slot, in whose seat the new one sits already. */
        if (s->inherited)
                seat_change_owner(seat, 0, s->mark);
        else
                atomic_store(&seat->owner, s->mark);
        if (owns_seat(s))
                atomic_store(&seat->in_flight, 0); /* some may be left of a sender that died */
}

void siblings_sit(Siblings *s) {
        if (!s->serves)
                return;
        s->sits = true;
        seat_change_owner(s->seats + s->mine, 0, s->mark);
}

bool siblings_get_up(Siblings *s) {
        if (!s->seats)
                return false;
        s->sits = false;
        seat_change_owner(s->seats + s->mine, s->mark, 0);
        return load32(&s->seats[s->mine].owner) == 0;
}

bool siblings_end(Siblings *s) {
        s->serves = false;
        return siblings_get_up(s);
}

void siblings_rest(Siblings *s) {
        if (s->seats && owns_seat(s))
                atomic_store_explicit(&s->seats[s->mine].busy_since, 0, memory_order_relaxed);
}

void siblings_wake(Siblings *s, uint64_t now) {
        if (!s->seats)
                return;
        BoardSeat *seat = s->seats + s->mine;
        /* A successor that sat there has died. */
        if (s->sits && load32(&seat->owner) == 0)
                seat_change_owner(seat, 0, s->mark);
        if (!owns_seat(s))
                return;
        atomic_store_explicit(&seat->busy_since, now, memory_order_relaxed);
        /* The mark of a sender that died before it sent. If there is something, this turn reads it. */
        uint64_t since = load64(&seat->pending_since);
        if (since > 0 && since + FAIRNESS_PATIENCE_USEC < now)
                (void) seat_set_pending(seat, since, 0);
        /* Likewise what it had reserved, or a reader that died before it had counted what it took. */
        uint32_t n = load32(&seat->in_flight);
        if (n > 0 && since == 0 && inbox_is_empty(s->inboxes + s->mine))
                (void) atomic_compare_exchange_strong(&seat->in_flight, &n, 0);
}

static void read_seat(const Siblings *s, unsigned i, FairnessSeat *ret) {
        const BoardSeat *seat = s->seats + i;
        uint32_t owner = load32(&seat->owner);

        *ret = (FairnessSeat){ .taken = owner > 0 && owner <= BOARD_CELLS };
        if (!ret->taken)
                return;
        uint64_t load = (uint64_t) load32(&s->cells[owner - 1].connections) + load32(&seat->in_flight);
        ret->load = (uint32_t) MIN(load, (uint64_t) UINT32_MAX);
        ret->busy_since = load64(&seat->busy_since);
        ret->pending_since = load64(&seat->pending_since);
}

/* @load: of this worker itself. */
static unsigned choose(const Siblings *s, unsigned load, uint64_t now) {
        FairnessSeat seats[BOARD_SEATS];

        for (unsigned i = 0; i < s->n; i++)
                read_seat(s, i, seats + i);
        seats[s->mine].load = load;
        return fairness_choose(seats, s->n, s->mine, now);
}

/* @cookie: 0: nobody but the receiver can have it. */
static bool siblings_send(Siblings *s, unsigned to, int fd, uint64_t cookie) {
        BoardSeat *seat = s->seats + to;
        uint64_t now = clock_now_usec();

        /* First: else all siblings would send to the same one at the same time. */
        atomic_fetch_add(&seat->in_flight, 1);
        bool marked = seat_set_pending(seat, 0, now);
        if (inbox_send_connection(s->inboxes + to, fd, cookie) < 0) {
                if (marked)
                        (void) seat_set_pending(seat, now, 0);
                seat_arrived(seat);
                return false;
        }
        s->handed |= UINT64_C(1) << to;
        s->deadline = MIN(s->deadline, now + FAIRNESS_PATIENCE_USEC);
        return true;
}

static bool hand_over(Siblings *s, unsigned to, int fd) {
        uint64_t cookie = s->claimed ? cookie_of(fd) : 0;

        if (s->claimed && !claims_offer(s->claims, cookie))
                return false;
        if (siblings_send(s, to, fd, cookie)) {
                siblings_drop(s, fd, cookie);
                return true;
        }
        if (s->claimed)
                claims_drop(s->claims, cookie);
        return false;
}

bool siblings_offer(Siblings *s, int fd, unsigned load, uint64_t now) {
        if (!s->seats || s->n < 2)
                return false;
        uint64_t mine = (uint64_t) load + load32(&s->seats[s->mine].in_flight);
        if (mine < FAIRNESS_DELTA)
                return false; /* nobody can have so much less, which is the rule for short connections */
        if (s->n > SEATS_CHEAP && ++s->n_offers % (s->n / SEATS_CHEAP) != 0)
                return false;
        unsigned to = choose(s, (unsigned) MIN(mine, (uint64_t) UINT32_MAX), now);
        return to != s->mine && hand_over(s, to, fd);
}

void siblings_poke(Siblings *s, uint64_t now) {
        FairnessSeat seat;

        for (unsigned i = 1; i < s->n && s->seats; i++) {
                unsigned to = (s->mine + i) % s->n;

                read_seat(s, to, &seat);
                if (fairness_is_healthy(&seat, now) && inbox_send_poke(s->inboxes + to) >= 0)
                        return;
        }
}

bool siblings_open_inbox(Siblings *s) {
        return atomic_exchange(&s->seats[s->mine].pending_since, 0) != 0;
}

/* As inbox_receive(). */
static int receive(Siblings *s, unsigned i, int *ret_fd) {
        uint64_t cookie;
        int fd, r;

        r = inbox_receive(s->inboxes + i, &fd, &cookie);
        if (r != 0)
                return r;
        seat_arrived(s->seats + i);
        if (cookie == 0 || claims_take(s->claims, cookie, s->mark - 1) == CLAIM_WON) {
                *ret_fd = fd;
                return 0;
        }
        siblings_drop(s, fd, cookie); /* also what this worker serves itself, as the one that had sent it */
        return INBOX_IGNORED;
}

int siblings_receive(Siblings *s, int *ret_fd) {
        return receive(s, s->mine, ret_fd);
}

/* What is to be done about the inbox of a seat. */
typedef enum Rescue {
        RESCUE_NONE,  /* its owner has read everything */
        RESCUE_LATER, /* it is given some more time: until *ret_usec */
        RESCUE_NOW,
} Rescue;

static Rescue look_after(Siblings *s, unsigned i, uint64_t now, uint64_t *ret_usec) {
        BoardSeat *seat = s->seats + i;
        uint64_t since = load64(&seat->pending_since);

        if (inbox_is_empty(s->inboxes + i))
                return RESCUE_NONE;
        if (since == 0) {
                (void) seat_set_pending(seat, 0, now);
                since = now;
        }
        *ret_usec = MIN(since, now) + FAIRNESS_PATIENCE_USEC;
        return *ret_usec <= now ? RESCUE_NOW : RESCUE_LATER;
}

/* Returns as inbox_receive(), but for a message without a connection. */
static int receive_connection(Siblings *s, unsigned i, int *ret_fd) {
        for (unsigned n = 0; n < RESCUES_MAX; n++) {
                int r = receive(s, i, ret_fd);

                if (r <= 0)
                        return r;
        }
        return -EAGAIN;
}

int siblings_rescue(Siblings *s, uint64_t now, int *ret_fd) {
        uint64_t next = USEC_INFINITY, later = USEC_INFINITY;
        int result = -EAGAIN;

        if (s->deadline > now)
                return -EAGAIN;
        for (unsigned i = 0; i < s->n; i++) {
                uint64_t bit = UINT64_C(1) << i;
                Rescue rescue = s->handed & bit ? look_after(s, i, now, &later) : RESCUE_NONE;

                int r = rescue == RESCUE_NOW ? receive_connection(s, i, ret_fd) : -EAGAIN;

                if (r == 0)
                        return 0;   /* the deadline stays: the caller comes back for the next one */
                if (r == -EMFILE) { /* by whoever has a descriptor first */
                        result = r;
                        next = MIN(next, now + FAIRNESS_PATIENCE_USEC);
                        continue;
                }
                if (rescue == RESCUE_LATER)
                        next = MIN(next, later);
                else
                        s->handed &= ~bit;
                if (rescue == RESCUE_NOW)
                        (void) inbox_send_poke(s->inboxes + i);
        }
        s->deadline = next;
        return result;
}
