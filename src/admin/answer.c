/* SPDX-License-Identifier: MIT */
/* Status line, fields and body; see answer.h. */

#include "admin/answer.h"

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "basic/macro.h"
#include "basic/text.h"

static const struct {
        unsigned status;
        const char *reason;
} reasons[] = {
        { 200, "OK" },
        { 400, "Bad Request" },
        { 403, "Forbidden" },
        { 404, "Not Found" },
        { 405, "Method Not Allowed" },
        { 408, "Request Timeout" },
        { 409, "Conflict" },
        { 411, "Length Required" },
        { 413, "Content Too Large" },
        { 414, "URI Too Long" },
        { 415, "Unsupported Media Type" },
        { 417, "Expectation Failed" },
        { 422, "Unprocessable Content" },
        { 431, "Request Header Fields Too Large" },
        { 500, "Internal Server Error" },
        { 501, "Not Implemented" },
        { 503, "Service Unavailable" },
        { 505, "HTTP Version Not Supported" },
};

static const char *reason_of(unsigned status) {
        for (size_t i = 0; i < ELEMENTSOF(reasons); i++)
                if (reasons[i].status == status)
                        return reasons[i].reason;
        return "Error";
}

/* RFC 9110, section 5.6.7. The locale is "C", as nobody sets another. */
static const char *format_date(uint64_t seconds, char buf[static 40]) {
        time_t t = (time_t) seconds;
        struct tm tm;

        if (!gmtime_r(&t, &tm) || strftime(buf, 40, "%a, %d %b %Y %H:%M:%S GMT", &tm) == 0)
                buf[0] = '\0';
        return buf;
}

int answer_format(const Answer *a, char **ret, size_t *ret_n) {
        const char *connection = !a->keep_alive ? "close" : a->old_client ? "keep-alive" : NULL;
        char date[40];
        int n;

        n = asprintf(ret,
                        "HTTP/1.1 %u %s\r\n"
                        "Date: %s\r\n"
                        "Content-Type: application/json\r\n"
                        "Content-Length: %zu\r\n"
                        "Cache-Control: no-store\r\n"
                        "X-Content-Type-Options: nosniff\r\n"
                        "%s%s%s%s%s%s\r\n%s",
                        a->status, reason_of(a->status), format_date(a->now_seconds, date), strlen(a->body),
                        a->allow ? "Allow: " : "", a->allow ? a->allow : "", a->allow ? "\r\n" : "",
                        connection ? "Connection: " : "", connection ? connection : "",
                        connection ? "\r\n" : "", a->head_only ? "" : a->body);
        if (n < 0) {
                *ret = NULL;
                return -ENOMEM;
        }
        *ret_n = (size_t) n;
        return 0;
}

char *answer_error_body(const char *code, const char *message) {
        _cleanup_free_ char *text = strdup(message);
        json_t *json;
        char *body;

        if (!text)
                return NULL;
        text_make_printable(text);
        json = json_pack("{s:{s:s,s:s}}", "error", "code", code, "message", text);
        if (!json)
                return NULL;
        body = json_dumps(json, JSON_COMPACT);
        json_decref(json);
        return body;
}
