/* SPDX-License-Identifier: MIT */
#ifndef TWIN_CONTENT_H
#define TWIN_CONTENT_H

/* What bodies consist of: bytes that follow from a key and their place, so that one that is missing,
 * doubled, wrong, or another answer's is found, and where. Shared by the client and by the module that it
 * visits. */

#include <stddef.h>
#include <stdint.h>
#include <string.h>

static inline uint64_t content_word(uint64_t key, uint64_t index) {
        uint64_t x = (index + 1) * UINT64_C(0x9E3779B97F4A7C15) + key * UINT64_C(0xC2B2AE3D27D4EB4F);

        x ^= x >> 32;
        x *= UINT64_C(0xD6E8FEB86659FD93);
        return x ^ x >> 32;
}

/* The bytes from @offset on. */
static inline void content_fill(uint64_t key, uint64_t offset, void *ret, size_t n) {
        uint8_t *p = ret;

        while (n > 0) {
                uint64_t word = content_word(key, offset / 8);
                size_t skip = offset % 8, k = 8 - skip;

                if (k > n)
                        k = n;
                memcpy(p, (uint8_t *) &word + skip, k);
                p += k;
                offset += k;
                n -= k;
        }
}

/* How many of the bytes are right, up to the first that is not. */
static inline size_t content_compare(uint64_t key, uint64_t offset, const void *data, size_t n) {
        const uint8_t *p = data;
        uint8_t block[4096];

        for (size_t at = 0; at < n;) {
                size_t k = n - at < sizeof(block) ? n - at : sizeof(block);

                content_fill(key, offset + at, block, k);
                if (memcmp(block, p + at, k) != 0) {
                        for (size_t i = 0;; i++)
                                if (block[i] != p[at + i])
                                        return at + i;
                }
                at += k;
        }
        return n;
}

#endif
