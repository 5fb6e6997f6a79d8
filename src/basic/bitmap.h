/* SPDX-License-Identifier: MIT */
#pragma once

/* A bit for each of the numbers 0 … n - 1, in words that the caller provides. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define BITMAP_WORD_BITS 64U

/* How many words that takes. */
static inline size_t bitmap_words(unsigned n) {
        return (n + BITMAP_WORD_BITS - 1) / BITMAP_WORD_BITS;
}

static inline bool bitmap_has(const uint64_t *bits, unsigned i) {
        return bits[i / BITMAP_WORD_BITS] >> i % BITMAP_WORD_BITS & 1;
}

static inline void bitmap_set(uint64_t *bits, unsigned i) {
        bits[i / BITMAP_WORD_BITS] |= UINT64_C(1) << i % BITMAP_WORD_BITS;
}

static inline void bitmap_clear(uint64_t *bits, unsigned i) {
        bits[i / BITMAP_WORD_BITS] &= ~(UINT64_C(1) << i % BITMAP_WORD_BITS);
}
