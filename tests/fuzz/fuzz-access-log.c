/* SPDX-License-Identifier: MIT */
/* What a client sends, as a line of an access log.
 *
 * The input: a byte for the size of the buffer, then the first line and the fields' values, each on a line
 * of its own. The line is one line, printable in the classic formats; in JSON a parser reads it. */

#include <jansson.h>
#include <stdbool.h>

#include "fuzz.h"
#include "http/access-log.h"

static void check(bool condition) {
        if (!condition)
                abort();
}

static AccessLogText take_line(const char **p, const char *end) {
        const char *begin = *p, *lf = memchr(begin, '\n', (size_t) (end - begin));

        if (begin == end)
                return (AccessLogText){ 0 };
        *p = lf ? lf + 1 : end;
        return (AccessLogText){ begin, (size_t) ((lf ?: end) - begin) };
}

static void check_classic(const char *line, size_t n) {
        unsigned quotes = 0;

        for (size_t i = 0; i < n - 1; i++) {
                check(line[i] >= 0x20 && line[i] < 0x7F);
                quotes += line[i] == '"';
                if (line[i] == '\\')
                        check(i + 4 < n && line[i + 1] == 'x');
        }
        check(quotes == 2 || quotes == 6);
}

static void check_json(const char *line, size_t n, const AccessLogRecord *r) {
        json_t *j = json_loadb(line, n - 1, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, NULL);

        check(json_is_object(j));
        check(json_is_string(json_object_get(j, "target")) == (r->target.text != NULL));
        check(!json_object_get(j, "line") == (r->method.text != NULL));
        check((size_t) json_integer_value(json_object_get(j, "status")) == r->status);
        json_decref(j);
}

static void check_format(AccessLogFormat format, const AccessLogRecord *r, size_t size) {
        char *buf = malloc(size > 0 ? size : 1); /* of the very size, for a sanitizer */
        size_t n;

        check(buf != NULL);
        n = access_log_format(format, r, buf, size);
        check(n <= size && (n > 0 || size < ACCESS_LOG_LINE_MAX));
        if (n > 0) {
                check(memchr(buf, '\n', n) == buf + n - 1);
                if (format == ACCESS_LOG_JSON)
                        check_json(buf, n, r);
                else
                        check_classic(buf, n);
        }
        free(buf);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
        AccessLogRecord r = { .time_usec = (int64_t) size * 1234567890123, .status = 200 };
        const char *p = (const char *) data + 1, *end = (const char *) data + size;
        size_t room;

        if (size < 1)
                return 0;
        room = data[0] == 0xFF ? ACCESS_LOG_LINE_MAX : data[0] * 64U;
        r.peer.family = (uint16_t) (size % 12);
        memcpy(r.peer.bytes, data, size < sizeof(r.peer.bytes) ? size : sizeof(r.peer.bytes));
        access_log_record_set_line(&r, p, (size_t) (end - p));
        (void) take_line(&p, end);
        r.host = take_line(&p, end);
        r.referer = take_line(&p, end);
        r.user_agent = take_line(&p, end);
        r.aborted = r.user_agent.size % 2;
        for (int f = 0; f < _ACCESS_LOG_FORMAT_MAX; f++) {
                check_format(f, &r, room);
                check_format(f, &r, ACCESS_LOG_LINE_MAX);
        }
        return 0;
}
