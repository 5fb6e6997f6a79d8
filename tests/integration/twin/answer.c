/* SPDX-License-Identifier: MIT */
#include "answer.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "content.h"

#define HEAD_MAX      16384
#define LINE_MAX_SIZE 1024

__attribute__((format(printf, 4, 5))) static long fail(
                Answer *a, Failure failure, uint64_t at, const char *format, ...) {
        va_list ap;

        a->failure = failure;
        a->failed_at = at;
        va_start(ap, format);
        vsnprintf(a->detail, sizeof(a->detail), format, ap);
        va_end(ap);
        return -1;
}

void answer_begin(Answer *a) {
        *a = (Answer){};
}

/* The head */

static void read_field(Answer *a, const char *line) {
        uint64_t *range = a->range;

        if (sscanf(line, "Content-Length: %" SCNu64, &a->size) == 1)
                a->has_size = true;
        else if (sscanf(line, "X-Id: %" SCNx64, &a->id) == 1)
                a->has_id = true;
        else if (sscanf(line, "Content-Range: bytes %" SCNu64 "-%" SCNu64 "/%" SCNu64, range, range + 1,
                                 range + 2) == 3)
                a->has_range = true;
        else if (strcasecmp(line, "Transfer-Encoding: chunked") == 0)
                a->chunked = true;
        else if (strcasecmp(line, "Connection: close") == 0)
                a->closes = true;
}

static void read_fields(Answer *a, char *head) {
        char *rest = NULL;

        for (char *line = strtok_r(head, "\r\n", &rest); line; line = strtok_r(NULL, "\r\n", &rest))
                read_field(a, line);
}

/* A server may say that it does not know whether it did what was to be done. Then the connection is closed.
 */
static bool says_unknown(const Answer *a, const Request *r) {
        return a->status == 503 && (r->kind == UNKEYED || r->kind == KEYED) && a->closes && a->has_size;
}

static long check_size(Answer *a, const Request *r) {
        bool streamed = r->kind == STREAM || r->kind == TIMED || r->kind == BARE;

        if (streamed && (a->has_size || a->chunked == r->old))
                return fail(a, HEADER, 0, "expected a stream %s", r->old ? "up to the end" : "in chunks");
        if (!streamed && (!a->has_size || a->chunked || a->size != r->size))
                return fail(a, HEADER, 0, "expected %" PRIu64 " bytes, not %" PRIu64, r->size, a->size);
        return 0;
}

static long check_head(Answer *a, const Request *r, bool identified) {
        unsigned expected = r->kind == RANGE ? 206 : 200;

        a->unknown = says_unknown(a, r);
        a->unchecked = a->unknown;
        if (a->unknown)
                return 0;
        if (a->status != expected)
                return fail(a, STATUS, 0, "%u in place of %u", a->status, expected);
        if (identified && a->has_id && a->id != r->id)
                return fail(a, ORDER, 0, "%016" PRIx64 " was answered", a->id);
        if (identified && !a->has_id)
                return fail(a, HEADER, 0, "no id");
        if (r->kind == RANGE && (!a->has_range || a->range[0] != r->offset || a->range[2] != r->whole ||
                                                a->range[1] != r->offset + r->size - 1))
                return fail(a, HEADER, 0, "another range");
        if (r->last && !a->closes)
                return fail(a, HEADER, 0, "Connection: close is missing");
        return check_size(a, r);
}

/* What follows. */
static AnswerPlace body_place(Answer *a, const Request *r) {
        if (r->head)
                return COMPLETE;
        if (a->chunked)
                return IN_CHUNK_SIZE;
        if (!a->has_size)
                return UP_TO_END;
        a->left = a->size;
        return a->left > 0 ? IN_BODY : COMPLETE;
}

static long feed_head(Answer *a, const Request *r, bool identified, const char *data, size_t n,
                bool *ret_continue) {
        const char *end = memmem(data, n, "\r\n\r\n", 4);
        char head[HEAD_MAX];
        long size;

        if (!end && n < sizeof(head))
                return 0;
        if (!end)
                return fail(a, HEADER, 0, "it has no end");
        size = end + 4 - data;
        if (size > HEAD_MAX)
                return fail(a, HEADER, 0, "%ld bytes", size);
        memcpy(head, data, (size_t) size - 3);
        head[size - 4] = '\0';
        if (sscanf(head, "HTTP/1.1 %3u ", &a->status) != 1)
                return fail(a, HEADER, 0, "it begins with \"%.60s\"", head);
        if (a->status == 100 && r->expects) {
                *ret_continue = true;
                return size;
        }
        read_fields(a, head);
        if (check_head(a, r, identified) < 0)
                return -1;
        a->place = body_place(a, r);
        return size;
}

/* The body */

static long check_body(Answer *a, const Request *r, const char *data, size_t n) {
        size_t right = n;

        if (!a->unchecked) {
                right = content_compare(r->key, r->offset + a->n_body, data, n);
                if (a->n_body + n > r->size)
                        return fail(a, BODY, r->size, "more than %" PRIu64 " bytes", r->size);
        }
        if (right < n)
                return fail(a, BODY, a->n_body + right,
                                "wrong byte 0x%02x of %" PRIu64 ", at 0x%02x of %zu read",
                                (unsigned) (unsigned char) data[right], r->size, (unsigned) right, n);
        a->n_body += n;
        return (long) n;
}

static long complete(Answer *a, const Request *r, long taken) {
        if (!a->unchecked && !r->head && a->n_body != r->size)
                return fail(a, BODY, a->n_body, "%" PRIu64 " bytes of %" PRIu64, a->n_body, r->size);
        a->place = COMPLETE;
        return taken;
}

static long feed_counted(Answer *a, const Request *r, const char *data, size_t n) {
        size_t k = n < a->left ? n : a->left;

        if (check_body(a, r, data, k) < 0)
                return -1;
        a->left -= k;
        if (a->left > 0)
                return (long) k;
        if (a->place == IN_BODY)
                return complete(a, r, (long) k);
        a->place = IN_CHUNK_END;
        return (long) k;
}

/* A line of the framing: 0 as long as it is not there as a whole. */
static long find_line(Answer *a, const char *data, size_t n) {
        const char *end = memmem(data, n, "\r\n", 2);

        if (end)
                return end + 2 - data;
        return n < LINE_MAX_SIZE ? 0 : fail(a, BODY, a->n_body, "a line of a chunk without an end");
}

static long feed_chunk_size(Answer *a, const char *data, size_t n) {
        long size = find_line(a, data, n);
        char *end;

        if (size <= 0)
                return size;
        a->left = strtoull(data, &end, 16);
        if (end != data + size - 2)
                return fail(a, BODY, a->n_body, "\"%.*s\" is no size of a chunk", (int) size - 2, data);
        a->place = a->left > 0 ? IN_CHUNK : IN_TRAILER;
        return size;
}

static long feed_chunk_end(Answer *a, const char *data, size_t n) {
        if (n < 2)
                return 0;
        if (memcmp(data, "\r\n", 2) != 0)
                return fail(a, BODY, a->n_body, "a chunk does not end with a line end");
        a->place = IN_CHUNK_SIZE;
        return 2;
}

static long feed_trailer(Answer *a, const Request *r, const char *data, size_t n) {
        long size = find_line(a, data, n);

        if (size == 2)
                return complete(a, r, size);
        if (size > 0 && strncmp(data, "X-Sum: ", 7) != 0)
                return fail(a, BODY, a->n_body, "an unknown trailer");
        return size;
}

static long feed_once(Answer *a, const Request *r, bool identified, const char *data, size_t n,
                bool *ret_continue) {
        switch (a->place) {
        case IN_HEAD:
                return feed_head(a, r, identified, data, n, ret_continue);
        case IN_BODY:
        case IN_CHUNK:
                return feed_counted(a, r, data, n);
        case IN_CHUNK_SIZE:
                return feed_chunk_size(a, data, n);
        case IN_CHUNK_END:
                return feed_chunk_end(a, data, n);
        case IN_TRAILER:
                return feed_trailer(a, r, data, n);
        case UP_TO_END:
                return check_body(a, r, data, n);
        default:
                return 0;
        }
}

long answer_feed(Answer *a, const Request *r, bool identified, const char *data, size_t n,
                bool *ret_continue) {
        size_t at = 0;

        while (a->place != COMPLETE && at < n) {
                long k = feed_once(a, r, identified, data + at, n - at, ret_continue);

                if (k < 0)
                        return -1;
                if (k == 0)
                        break;
                at += (size_t) k;
        }
        return (long) at;
}

bool answer_end(Answer *a, const Request *r) {
        return a->place == UP_TO_END && a->n_body == r->size;
}
