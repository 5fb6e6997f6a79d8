/* SPDX-License-Identifier: MIT */
/* The steps of a reload; see reload-policy.h. */

#include "master/reload-policy.h"

#include "basic/macro.h"

/* Row: from; bits: to. */
static const uint8_t reload_edges[_RELOAD_STEP_MAX] = {
        [RELOAD_AGENTS] = 1 << RELOAD_CANARY | 1 << RELOAD_ROLLED_BACK,
        [RELOAD_CANARY] = 1 << RELOAD_SOAK | 1 << RELOAD_ROLLED_BACK,
        [RELOAD_SOAK] = 1 << RELOAD_OTHERS | 1 << RELOAD_ROLLED_BACK,
        [RELOAD_OTHERS] = 1 << RELOAD_COMMITTED | 1 << RELOAD_ROLLED_BACK,
};

static void reload_set_step(Reload *r, ReloadStep to) {
        assert(reload_edges[r->step] & (1 << to));
        r->step = to;
}

void reload_init(Reload *r, unsigned n_workers, uint64_t soak_usec) {
        assert(n_workers > 0);
        *r = (Reload){ .step = RELOAD_CANARY, .n_workers = n_workers, .soak_usec = soak_usec };
}

void reload_await_agents(Reload *r) {
        assert(r->step == RELOAD_CANARY && r->n_started == 0);
        r->step = RELOAD_AGENTS;
}

void reload_agents_ready(Reload *r) {
        reload_set_step(r, RELOAD_CANARY);
}

void reload_worker_started(Reload *r) {
        assert(r->n_started == r->n_ready && r->n_started < r->n_workers);
        r->n_started++;
}

void reload_worker_ready(Reload *r, uint64_t now_usec) {
        assert(r->n_ready < r->n_started);
        r->n_ready++;
        if (r->step != RELOAD_CANARY)
                return;
        reload_set_step(r, RELOAD_SOAK);
        if (__builtin_add_overflow(now_usec, r->soak_usec, &r->soak_until_usec))
                r->soak_until_usec = UINT64_MAX;
}

void reload_failed(Reload *r) {
        r->failed = true;
}

ReloadAction reload_next(Reload *r, uint64_t now_usec) {
        assert(r->step != RELOAD_COMMITTED && r->step != RELOAD_ROLLED_BACK);

        if (r->failed) {
                reload_set_step(r, RELOAD_ROLLED_BACK);
                return RELOAD_ROLL_BACK;
        }
        if (r->step == RELOAD_SOAK && now_usec >= r->soak_until_usec)
                reload_set_step(r, RELOAD_OTHERS);
        if (r->step == RELOAD_AGENTS || r->step == RELOAD_SOAK || r->n_ready < r->n_started)
                return RELOAD_WAIT;
        if (r->n_started < r->n_workers)
                return RELOAD_START;
        reload_set_step(r, RELOAD_COMMITTED);
        return RELOAD_COMMIT;
}

const char *reload_step_to_string(ReloadStep step) {
        static const char *const names[_RELOAD_STEP_MAX] = {
                [RELOAD_AGENTS] = "the agents",
                [RELOAD_CANARY] = "the first worker",
                [RELOAD_SOAK] = "the trial of the first worker",
                [RELOAD_OTHERS] = "the further workers",
                [RELOAD_COMMITTED] = "the end",
                [RELOAD_ROLLED_BACK] = "the roll-back",
        };

        return names[step];
}
