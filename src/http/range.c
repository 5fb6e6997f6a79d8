/* SPDX-License-Identifier: MIT */
/* Byte ranges; see range.h. */

#include "http/range.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "basic/macro.h"
#include "http/chars.h"

/* int-range or suffix-range of section 14.1.1, as it was written. */
typedef struct Spec {
        bool has_first, has_last;
        uint64_t first, last; /* without a first, last is the suffix's length */
} Spec;

static void skip_white(const char **p, const char *end) {
        while (*p < end && (**p == ' ' || **p == '\t'))
                (*p)++;
}

/* A number beyond what fits is as good as the largest one: both lie behind the end of any file. */
static bool read_number(const char **p, const char *end, uint64_t *ret) {
        const char *begin = *p;
        bool too_large = false;
        uint64_t v = 0;

        for (; *p < end && char_is_digit(**p); (*p)++)
                too_large |= __builtin_mul_overflow(v, 10, &v) ||
                             __builtin_add_overflow(v, (uint64_t) (**p - '0'), &v);
        *ret = too_large ? UINT64_MAX : v;
        return *p > begin;
}

static bool read_spec(const char **p, const char *end, Spec *ret) {
        ret->has_first = read_number(p, end, &ret->first);
        if (*p == end || **p != '-')
                return false;
        (*p)++;
        ret->has_last = read_number(p, end, &ret->last);
        if (ret->has_first && ret->has_last)
                return ret->first <= ret->last;
        return ret->has_first || ret->has_last;
}

/* False: not a byte of it is there. */
static bool spec_resolve(const Spec *spec, uint64_t size, RangePart *ret) {
        uint64_t first = spec->first, end = size;

        if (!spec->has_first)
                first = size - MIN(spec->last, size);
        else if (spec->has_last && spec->last < size)
                end = spec->last + 1;
        if (first >= end)
                return false;
        *ret = (RangePart){ .offset = first, .length = end - first };
        return true;
}

static bool part_touches(const RangePart *a, const RangePart *b) {
        return a->offset <= b->offset + b->length && b->offset <= a->offset + a->length;
}

static void part_unite(RangePart *a, const RangePart *b) {
        uint64_t end = MAX(a->offset + a->length, b->offset + b->length);

        a->offset = MIN(a->offset, b->offset);
        a->length = end - a->offset;
}

/* The parts that are there already do not touch each other: what the new one fills the gap to becomes one
 * with the first of them, and none before that can be touched by the result. */
static void set_add(RangeSet *set, const RangePart *part) {
        unsigned into = 0, n;

        while (into < set->n && !part_touches(&set->parts[into], part))
                into++;
        if (into == set->n) {
                set->parts[set->n++] = *part;
                return;
        }
        part_unite(&set->parts[into], part);
        n = into + 1;
        for (unsigned i = n; i < set->n; i++)
                if (part_touches(&set->parts[into], &set->parts[i]))
                        part_unite(&set->parts[into], &set->parts[i]);
                else
                        set->parts[n++] = set->parts[i];
        set->n = n;
}

/* Moves behind the comma that follows a spec. False when something else does. */
static bool end_spec(const char **p, const char *end) {
        skip_white(p, end);
        if (*p == end)
                return true;
        return *(*p)++ == ',';
}

/* How many were asked for, of which those that can be had are in @set; 0 when the list is none or too long.
 */
static unsigned parse_specs(const char *p, const char *end, uint64_t size, RangeSet *set) {
        unsigned n = 0;
        RangePart part;
        Spec spec;

        while (skip_white(&p, end), p < end) {
                if (*p == ',') { /* empty elements are to be tolerated: section 5.6.1.2 */
                        p++;
                        continue;
                }
                if (++n > RANGE_PARTS_MAX || !read_spec(&p, end, &spec) || !end_spec(&p, end))
                        return 0;
                if (spec_resolve(&spec, size, &part))
                        set_add(set, &part);
                else if (!spec.has_first && spec.last > 0)
                        return 0; /* the end of an empty file: satisfiable, but no Content-Range can say so
                                   */
        }
        return n;
}

unsigned range_parse(const char *s, size_t n, uint64_t size, RangeSet *ret) {
        static const char unit[] = "bytes=";
        size_t k = sizeof(unit) - 1;
        unsigned asked;

        ret->n = 0;
        if (n < k || strncasecmp(s, unit, k) != 0)
                return RANGE_IGNORED;
        asked = parse_specs(s + k, s + n, size, ret);
        if (asked == 0)
                return RANGE_IGNORED;
        if (ret->n == 0)
                return RANGE_UNSATISFIABLE;
        if (asked > 1 && ret->parts[0].length == size)
                return RANGE_IGNORED;
        return RANGE_PARTIAL;
}

size_t range_format(const RangePart *part, uint64_t size, char ret[static RANGE_TEXT_MAX]) {
        if (!part)
                return (size_t) snprintf(ret, RANGE_TEXT_MAX, "bytes */%" PRIu64, size);
        return (size_t) snprintf(ret, RANGE_TEXT_MAX, "bytes %" PRIu64 "-%" PRIu64 "/%" PRIu64, part->offset,
                        part->offset + part->length - 1, size);
}
