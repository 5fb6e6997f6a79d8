/* SPDX-License-Identifier: MIT */
#pragma once

/* What the requests of a test have done, in a file that the module which does it and the client that asks
 * for it both map. The file is named by the module's environment. */

#include <stdatomic.h>
#include <stdint.h>

#define EFFECTS_ENV "MUSTER_TEST_EFFECTS"
#define EFFECTS_MAX 65536

/* What the bodies consist of. */
#define PATTERN_PERIOD 65521

static inline char pattern_at(uint64_t i) {
        uint32_t j = (uint32_t) (i % PATTERN_PERIOD);

        return (char) ((j * j * 31 + j * 7 + 3) >> 3);
}

/* Of a request that carries the number of this place. */
typedef struct Effect {
        _Atomic uint64_t key;    /* of the one execution that counts, by the name of the request */
        _Atomic uint32_t again;  /* executions by the same name: they find that it is done */
        _Atomic uint32_t others; /* executions by another name: never, of one request */
        _Atomic uint32_t plain;  /* executions that know of no name */
} Effect;
