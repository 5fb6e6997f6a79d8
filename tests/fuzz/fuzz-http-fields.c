/* SPDX-License-Identifier: MIT */
/* The fields by which clients choose what of a file they get: Range, Accept-Encoding, the conditions.
 *
 * The input's first byte decides how large the file is, the rest is the fields. Beyond not crashing: parts
 * lie in the file, do not overlap and are no more than were allowed; what is chosen was there; a tag that is
 * not ours is never taken for it. */

#include <stdlib.h>
#include <string.h>

#include "basic/macro.h"
#include "fuzz.h"
#include "http/encoding.h"
#include "http/precondition.h"
#include "http/range.h"

#define ETAG "\"1-2\""

static void check(bool condition) {
        if (!condition)
                abort();
}

static void check_parts(const RangeSet *set, uint64_t size) {
        char text[RANGE_TEXT_MAX];

        check(set->n >= 1 && set->n <= RANGE_PARTS_MAX);
        for (unsigned i = 0; i < set->n; i++) {
                const RangePart *p = &set->parts[i];

                check(p->length > 0 && p->offset < size && p->length <= size - p->offset);
                check(range_format(p, size, text) < RANGE_TEXT_MAX);
                for (unsigned k = 0; k < i; k++) {
                        const RangePart *q = &set->parts[k];

                        check(p->offset + p->length < q->offset || q->offset + q->length < p->offset);
                }
        }
}

static void check_range(const char *s, size_t n, uint64_t size) {
        RangeSet set;
        unsigned r = range_parse(s, n, size, &set);

        check(r == RANGE_IGNORED || r == RANGE_PARTIAL || r == RANGE_UNSATISFIABLE);
        if (r == RANGE_PARTIAL)
                check_parts(&set, size);
}

static void check_encodings(const HttpRequest *request, const char *buf) {
        for (unsigned set = 0; set < 1u << ENCODING_IDENTITY; set++) {
                unsigned available = set | 1u << ENCODING_IDENTITY;
                Encoding e = encoding_choose(request, buf, available);

                check(e == _ENCODING_INVALID || (e >= 0 && e < _ENCODING_MAX && (available & 1u << e)));
        }
}

/* With and without the tag anywhere in the fields. */
static void check_conditions(const HttpRequest *request, const char *buf, bool named) {
        const Validators v = { .etag = ETAG, .modified = INT64_MIN }, old = { ETAG, INT64_MAX };
        unsigned r = precondition_check(request, buf, &v, 0), r2 = precondition_check(request, buf, &old, 0);

        check((r == 0 || r == 304 || r == 412) && (r2 == 0 || r2 == 304 || r2 == 412));
        if (precondition_allows_range(request, buf, &old, 0)) {
                HttpSlice value;
                unsigned i = 0;

                check(named || !parser_next_field(request, buf, "if-range", &i, &value));
        }
}

static void check_request(const char *fields, size_t n, uint64_t size) {
        static const char line[] = "GET / HTTP/1.1\r\nHost: a\r\n";
        size_t head = sizeof(line) - 1;
        HttpRequest request;
        ParserScan scan = { 0 };
        HttpSlice value;
        char *buf = malloc(head + n + 5);

        check(buf);
        memcpy(buf, line, head);
        memcpy(buf + head, fields, n);
        memcpy(buf + head + n, "\r\n\r\n", 5);
        if (parser_parse_head(&scan, buf, head + n + 4, 65536, &request) == PARSER_DONE) {
                for (unsigned i = 0; parser_next_field(&request, buf, "range", &i, &value);)
                        check_range(buf + value.offset, value.length, size);
                check_encodings(&request, buf);
                check_conditions(&request, buf, memmem(fields, n, ETAG, strlen(ETAG)));
        }
        free(buf);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
        static const uint64_t sizes[] = { 0, 1, 10, 1000, UINT64_C(5) << 30, INT64_MAX };
        const char *text;

        if (size == 0)
                return 0;
        text = (const char *) data + 1;
        check_range(text, size - 1, sizes[data[0] % ELEMENTSOF(sizes)]);
        check_request(text, size - 1, sizes[data[0] % ELEMENTSOF(sizes)]);
        return 0;
}
