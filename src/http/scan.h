/* SPDX-License-Identifier: MIT */
#pragma once

/* Runs over bytes of one class, as far as they go: where most of the time of reading a head is spent.
 *
 * 16 bytes at a time with SSE2, which every x86-64 has, else one by one. Wider vectors would have to be asked
 * for at run time, and lines of a head are short. No byte at or behind @end is read. SCAN_PLAIN asks for the
 * portable functions, so that tests can compare the two. */

#include "http/chars.h"

static inline const char *scan_plain(const char *p, const char *end, uint8_t class) {
        while (p < end && char_is(*p, class))
                p++;
        return p;
}

#if defined(__SSE2__) && !defined(SCAN_PLAIN)
#include <emmintrin.h>

/* Bit i: byte i is no CHAR_TEXT. A signed comparison alone would take obs-text for controls. */
static inline unsigned scan_text_stops(__m128i v) {
        __m128i low = _mm_cmpeq_epi8(_mm_max_epu8(v, _mm_set1_epi8(0x20)), v); /* v >= 0x20 */
        __m128i tab = _mm_cmpeq_epi8(v, _mm_set1_epi8('\t'));
        __m128i del = _mm_cmpeq_epi8(v, _mm_set1_epi8(0x7F));

        return ~(unsigned) _mm_movemask_epi8(_mm_andnot_si128(del, _mm_or_si128(low, tab))) & 0xFFFF;
}

/* Bit i: byte i is no CHAR_TARGET. Here the signed comparison is right: bytes beyond ASCII are negative. */
static inline unsigned scan_target_stops(__m128i v) {
        __m128i high = _mm_cmpgt_epi8(v, _mm_set1_epi8(0x20));
        __m128i bad = _mm_or_si128(
                        _mm_cmpeq_epi8(v, _mm_set1_epi8('#')), _mm_cmpeq_epi8(v, _mm_set1_epi8(0x7F)));

        return ~(unsigned) _mm_movemask_epi8(_mm_andnot_si128(bad, high)) & 0xFFFF;
}

static inline unsigned scan_line_stops(__m128i v) {
        return (unsigned) _mm_movemask_epi8(_mm_cmpeq_epi8(v, _mm_set1_epi8('\n')));
}

#define SCAN_VECTORS(p, end, stops)                                            \
        for (; (end) - (p) >= 16; (p) += 16) {                                 \
                unsigned mask = stops(_mm_loadu_si128((const __m128i *) (p))); \
                                                                               \
                if (mask)                                                      \
                        return (p) + __builtin_ctz(mask);                      \
        }
#else
#define SCAN_VECTORS(p, end, stops)
#endif

/* The first byte that may not stand in a field's value, or @end. */
static inline const char *scan_text(const char *p, const char *end) {
        SCAN_VECTORS(p, end, scan_text_stops)
        return scan_plain(p, end, CHAR_TEXT);
}

/* The first byte that may not stand in a target, or @end. */
static inline const char *scan_target(const char *p, const char *end) {
        SCAN_VECTORS(p, end, scan_target_stops)
        return scan_plain(p, end, CHAR_TARGET);
}

/* The first line feed, or @end. Most lines are too short for memchr(3) to be worth its call. */
static inline const char *scan_line(const char *p, const char *end) {
        SCAN_VECTORS(p, end, scan_line_stops)
        while (p < end && *p != '\n')
                p++;
        return p;
}

/* The first byte that is not of a token, or @end. Names are shorter than a vector. */
static inline const char *scan_token(const char *p, const char *end) {
        return scan_plain(p, end, CHAR_TOKEN);
}
