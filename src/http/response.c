/* SPDX-License-Identifier: MIT */
/* Answers; see response.h. */

#include "http/response.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "basic/fd.h"
#include "basic/macro.h"
#include "http/scan.h"

/* The registry of RFC 9110, section 16.2.1, without what belongs to other protocols. */
static const struct {
        unsigned status;
        const char *phrase;
} phrases[] = {
        { 200, "OK" },
        { 201, "Created" },
        { 202, "Accepted" },
        { 203, "Non-Authoritative Information" },
        { 204, "No Content" },
        { 205, "Reset Content" },
        { 206, "Partial Content" },
        { 207, "Multi-Status" },
        { 300, "Multiple Choices" },
        { 301, "Moved Permanently" },
        { 302, "Found" },
        { 303, "See Other" },
        { 304, "Not Modified" },
        { 307, "Temporary Redirect" },
        { 308, "Permanent Redirect" },
        { 400, "Bad Request" },
        { 401, "Unauthorized" },
        { 402, "Payment Required" },
        { 403, "Forbidden" },
        { 404, "Not Found" },
        { 405, "Method Not Allowed" },
        { 406, "Not Acceptable" },
        { 407, "Proxy Authentication Required" },
        { 408, "Request Timeout" },
        { 409, "Conflict" },
        { 410, "Gone" },
        { 411, "Length Required" },
        { 412, "Precondition Failed" },
        { 413, "Content Too Large" },
        { 414, "URI Too Long" },
        { 415, "Unsupported Media Type" },
        { 416, "Range Not Satisfiable" },
        { 417, "Expectation Failed" },
        { 421, "Misdirected Request" },
        { 422, "Unprocessable Content" },
        { 423, "Locked" },
        { 424, "Failed Dependency" },
        { 425, "Too Early" },
        { 426, "Upgrade Required" },
        { 428, "Precondition Required" },
        { 429, "Too Many Requests" },
        { 431, "Request Header Fields Too Large" },
        { 451, "Unavailable For Legal Reasons" },
        { 500, "Internal Server Error" },
        { 501, "Not Implemented" },
        { 502, "Bad Gateway" },
        { 503, "Service Unavailable" },
        { 504, "Gateway Timeout" },
        { 505, "HTTP Version Not Supported" },
        { 507, "Insufficient Storage" },
        { 511, "Network Authentication Required" },
};

static const struct {
        size_t size;
        const char *name;
} framing_fields[] = {
        { 4, "Date" },
        { 7, "Trailer" },
        { 7, "Upgrade" },
        { 10, "Connection" },
        { 10, "Keep-Alive" },
        { 14, "Content-Length" },
        { 17, "Transfer-Encoding" },
};

const char *response_phrase(unsigned status) {
        for (size_t i = 0; i < ELEMENTSOF(phrases); i++)
                if (phrases[i].status == status)
                        return phrases[i].phrase;
        return "Unknown";
}

bool response_status_has_body(unsigned status) {
        return status >= 200 && status != 204 && status != 304;
}

void response_init(Response *r) {
        /* The texts at the end are large and need no clearing. */
        memset(r, 0, offsetof(Response, inline_fields));
        r->status = 200;
        r->fd = -EBADF;
        r->fields = r->inline_fields;
}

void response_clear_fields(Response *r) {
        if (r->fields != r->inline_fields)
                free(r->fields);
        r->fields = r->inline_fields;
        r->fields_size = 0;
}

static void response_drop_body(Response *r) {
        if (r->hold)
                r->hold->release(r->hold);
        else
                safe_close(r->fd);
        r->hold = NULL;
        r->fd = -EBADF;
        r->body = RESPONSE_BODY_NONE;
        r->size = 0;
}

void response_done(Response *r) {
        response_drop_body(r);
        response_clear_fields(r);
}

static int response_make_room(Response *r, size_t n) {
        size_t size = r->fields == r->inline_fields ? RESPONSE_FIELDS_INLINE : RESPONSE_FIELDS_MAX;

        if (n <= size - r->fields_size)
                return 0;
        if (n > RESPONSE_FIELDS_MAX - r->fields_size)
                return -ENOBUFS;
        r->fields = malloc(RESPONSE_FIELDS_MAX);
        if (!r->fields) {
                r->fields = r->inline_fields;
                return -ENOMEM;
        }
        memcpy(r->fields, r->inline_fields, r->fields_size);
        return 0;
}

int response_add_raw(Response *r, const char *fields, size_t n) {
        int k = response_make_room(r, n);

        if (k < 0)
                return k;
        memcpy(r->fields + r->fields_size, fields, n);
        r->fields_size += (uint32_t) n;
        return 0;
}

static bool is_framing_field(const char *name, size_t n) {
        for (size_t i = 0; i < ELEMENTSOF(framing_fields) && framing_fields[i].size <= n; i++)
                if (n == framing_fields[i].size && strncasecmp(name, framing_fields[i].name, n) == 0)
                        return true;
        return false;
}

static bool is_valid_name(const char *name, size_t n) {
        return n > 0 && scan_token(name, name + n) == name + n && !is_framing_field(name, n);
}

int response_add_field(Response *r, const char *name, const char *value) {
        size_t n_name = strlen(name), n_value = strlen(value);
        char *p;
        int k;

        if (!is_valid_name(name, n_name) || scan_text(value, value + n_value) < value + n_value)
                return -EINVAL;
        if (n_name > RESPONSE_FIELDS_MAX || n_value > RESPONSE_FIELDS_MAX)
                return -ENOBUFS;
        k = response_make_room(r, n_name + n_value + 4);
        if (k < 0)
                return k;
        p = r->fields + r->fields_size;
        p = mempcpy(p, name, n_name);
        p = mempcpy(p, ": ", 2);
        p = mempcpy(p, value, n_value);
        p = mempcpy(p, "\r\n", 2);
        r->fields_size = (uint32_t) (p - r->fields);
        return 0;
}

/* Takes the fields of that name out. */
static void response_drop_field(Response *r, const char *name) {
        size_t n = strlen(name);
        char *p = r->fields, *end = p + r->fields_size;

        while (p < end) {
                char *next = (char *) memchr(p, '\n', (size_t) (end - p)) + 1;

                if (strncasecmp(p, name, n) != 0 || p[n] != ':') {
                        p = next;
                        continue;
                }
                memmove(p, next, (size_t) (end - next));
                end -= next - p;
        }
        r->fields_size = (uint32_t) (end - r->fields);
}

int response_set_type(Response *r, const char *type) {
        response_drop_field(r, "Content-Type");
        return response_add_field(r, "Content-Type", type);
}

void response_set_error_text(Response *r, unsigned status, const char *phrase) {
        response_drop_body(r);
        r->status = status;
        (void) response_set_type(r, "text/html; charset=utf-8"); /* no room: the page will do without */
        r->body = RESPONSE_BODY_MEMORY;
        r->memory = r->page;
        r->size = (uint64_t) snprintf(r->page, sizeof(r->page),
                        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">"
                        "<title>%u %s</title><style>:root{color-scheme:light dark}"
                        "body{font:1.1em system-ui,sans-serif;text-align:center;margin-top:20vh}</style>"
                        "</head>\n"
                        "<body><h1>%u</h1><p>%s</p></body></html>\n",
                        status, phrase, status, phrase);
}

void response_set_error(Response *r, unsigned status) {
        response_set_error_text(r, status, response_phrase(status));
}

/* Heads are put together by hand: printf(3) would take most of the time of a small answer. */
static char *put_string(char *p, const char *s) {
        return mempcpy(p, s, strlen(s));
}

/* From the last digit to the first, in place: digits put together elsewhere would have to be copied while
 * they are still on their way to memory. */
static char *put_number(char *p, uint64_t v) {
        unsigned n = 1;
        char *end;

        for (uint64_t rest = v; rest >= 10; rest /= 10)
                n++;
        end = p + n;
        for (p = end; n > 0; n--, v /= 10)
                *--p = (char) ('0' + v % 10);
        return end;
}

#define PUT(p, text) mempcpy(p, text, sizeof(text) - 1)

static char *put_status_line(char *p, unsigned status) {
        if (status == 200)
                return PUT(p, "HTTP/1.1 200 OK\r\n");
        p = PUT(p, "HTTP/1.1 ");
        p = put_number(p, status);
        p = PUT(p, " ");
        p = put_string(p, response_phrase(status));
        return PUT(p, "\r\n");
}

size_t response_write_head(
                const Response *r, const ResponseFraming *framing, char buf[static RESPONSE_HEAD_MAX]) {
        char *p = put_status_line(buf, r->status);

        p = PUT(p, "Date: ");
        p = mempcpy(p, framing->date, DATE_LENGTH);
        p = PUT(p, "\r\n");
        p = mempcpy(p, r->fields, r->fields_size);
        if (framing->has_length) {
                p = PUT(p, "Content-Length: ");
                p = put_number(p, r->size);
                p = PUT(p, "\r\n");
        } else if (framing->chunked)
                p = PUT(p, "Transfer-Encoding: chunked\r\n");
        if (!framing->keep_alive)
                p = PUT(p, "Connection: close\r\n");
        else if (framing->old_client)
                p = PUT(p, "Connection: keep-alive\r\n");
        p = PUT(p, "\r\n");
        assert(p <= buf + RESPONSE_HEAD_MAX);
        return (size_t) (p - buf);
}
