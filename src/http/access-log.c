/* SPDX-License-Identifier: MIT */
/* Lines of access logs; see access-log.h.
 *
 * The time is UTC: it needs no files of time zones, and lines of several machines sort. Bytes that could be
 * taken for the end of a field or of a line, and all that is not printable ASCII, become \xHH in the classic
 * formats, as nginx writes them. In JSON well-formed UTF-8 stays as it is, and any other byte becomes
 * \u00HH. */

#include "http/access-log.h"

#include <arpa/inet.h>
#include <string.h>

#include "basic/macro.h"
#include "basic/text.h"
#include "http/chars.h"
#include "http/date.h"

/* What is longer is cut. */
#define METHOD_MAX   32
#define PROTOCOL_MAX 16
#define TARGET_MAX   2048
#define LINE_MAX     (METHOD_MAX + TARGET_MAX + PROTOCOL_MAX)
#define HOST_MAX     256
#define REFERER_MAX  1024
#define AGENT_MAX    512

/* One byte becomes at most so many. */
#define ESCAPE_MAX 6

/* Everything but texts. */
#define FRAME_MAX 512

static_assert(ESCAPE_MAX * (METHOD_MAX + PROTOCOL_MAX + TARGET_MAX + HOST_MAX + REFERER_MAX + AGENT_MAX) +
                                                FRAME_MAX <=
                                ACCESS_LOG_LINE_MAX,
                "no room for the longest line");
/* In JSON there is either the line or its parts. */
static_assert(LINE_MAX <= METHOD_MAX + PROTOCOL_MAX + TARGET_MAX, "no room for a line instead of its parts");

static const char *const format_names[_ACCESS_LOG_FORMAT_MAX] = {
        [ACCESS_LOG_COMMON] = "common",
        [ACCESS_LOG_COMBINED] = "combined",
        [ACCESS_LOG_JSON] = "json",
};

AccessLogFormat access_log_format_from_string(const char *s) {
        for (int i = 0; i < _ACCESS_LOG_FORMAT_MAX; i++)
                if (strcmp(s, format_names[i]) == 0)
                        return i;
        return _ACCESS_LOG_FORMAT_INVALID;
}

/*
 * From an exchange
 */

static AccessLogText text_between(const char *begin, const char *end) {
        return (AccessLogText){ begin, (size_t) (end - begin) };
}

static bool is_protocol(const char *p, const char *end) {
        return end - p == 8 && memcmp(p, "HTTP/", 5) == 0 && char_is_digit(p[5]) && p[6] == '.' &&
               char_is_digit(p[7]);
}

void access_log_record_set_line(AccessLogRecord *r, const char *head, size_t n) {
        const char *end = head + n, *stop, *first, *last;
        size_t size;

        /* An empty line may come before it (RFC 9112, section 2.2). */
        while (head < end && (*head == '\r' || *head == '\n'))
                head++;
        stop = memchr(head, '\n', (size_t) (end - head)) ?: end;
        if (stop > head && stop[-1] == '\r')
                stop--;
        size = (size_t) (stop - head);
        assert(size <= n);
        r->line = text_between(head, stop);

        first = memchr(head, ' ', size);
        last = memrchr(head, ' ', size);
        if (!first || first == head || last <= first + 1 || !is_protocol(last + 1, stop) ||
                        memchr(first + 1, ' ', (size_t) (last - first - 1)))
                return;
        r->method = text_between(head, first);
        r->target = text_between(first + 1, last);
        r->protocol = text_between(last + 1, stop);
}

/* The first of each name, in one pass; none of the lengths is that of another name. */
static void take_fields(AccessLogRecord *r, const HttpRequest *request, const char *head) {
        static const struct {
                const char *name;
                size_t offset;
        } names[] = {
                { "host", offsetof(AccessLogRecord, host) },
                { "referer", offsetof(AccessLogRecord, referer) },
                { "user-agent", offsetof(AccessLogRecord, user_agent) },
        };

        for (unsigned i = 0; i < request->n_fields; i++) {
                const HttpField *f = request->fields + i;

                for (size_t k = 0; k < ELEMENTSOF(names); k++) {
                        AccessLogText *text = (AccessLogText *) ((char *) r + names[k].offset);

                        if (f->name.length != strlen(names[k].name) || text->text ||
                                        strncasecmp(head + f->name.offset, names[k].name, f->name.length) !=
                                                        0)
                                continue;
                        *text = (AccessLogText){ head + f->value.offset, f->value.length };
                }
        }
}

void access_log_record_init(AccessLogRecord *r, const Exchange *x) {
        struct sockaddr_storage peer;
        const char *head;
        size_t n;

        *r = (AccessLogRecord){
                .number = x->number,
                .status = x->response.status,
                .bytes = x->sent,
                .aborted = x->aborted,
        };
        if (exchange_peer(x, &peer) >= 0)
                proxy_address_from_sockaddr(&peer, &r->peer);
        head = exchange_received(x, &n);
        access_log_record_set_line(r, head, n);
        take_fields(r, &x->request, head);
}

/*
 * Text
 */

/* What is not known to fit is not begun. */
typedef struct Output {
        char *p, *end;
        bool full;
} Output;

static bool has_room(Output *o, size_t n) {
        if ((size_t) (o->end - o->p) < n)
                o->full = true;
        return !o->full;
}

static void put(Output *o, const char *text, size_t n) {
        if (!has_room(o, n))
                return;
        memcpy(o->p, text, n);
        o->p += n;
}

#define put_literal(o, s) put(o, s, sizeof(s) - 1)

static void put_number(Output *o, uint64_t value) {
        char digits[20], *p = digits + sizeof(digits);

        do
                *--p = (char) ('0' + value % 10);
        while (value /= 10);
        put(o, p, (size_t) (digits + sizeof(digits) - p));
}

/* inet_ntop(3) takes its time, and nearly all clients have such an address. */
static void put_inet(Output *o, const uint8_t *bytes) {
        for (int i = 0; i < 4; i++) {
                if (i > 0)
                        put_literal(o, ".");
                put_number(o, bytes[i]);
        }
}

static void put_peer(Output *o, const ProxyAddress *a) {
        char text[INET6_ADDRSTRLEN] = "";

        switch (a->family) {
        case AF_INET:
                put_inet(o, a->bytes);
                break;
        case AF_INET6:
                if (memcmp(a->bytes, "\0\0\0\0\0\0\0\0\0\0\xFF\xFF", 12) == 0) {
                        put_inet(o, a->bytes + 12); /* a client by IPv4 on a socket for both */
                        break;
                }
                inet_ntop(AF_INET6, a->bytes, text, sizeof(text));
                put(o, text, strlen(text));
                break;
        case AF_UNIX:
                put_literal(o, "unix:");
                break;
        default:
                put_literal(o, "-");
        }
}

static char *hex(char *p, unsigned char c) {
        static const char digits[] = "0123456789ABCDEF";

        *p++ = digits[c >> 4];
        *p++ = digits[c & 0xF];
        return p;
}

/*
 * The classic formats
 */

static bool is_classic(unsigned char c) {
        return c >= 0x20 && c < 0x7F && c != '"' && c != '\\';
}

static void put_quoted(Output *o, const AccessLogText *text, size_t max) {
        static const char cut[] = "...";
        size_t n = MIN(text->size, max);
        char *p = o->p;

        if (!has_room(o, 4 * n + strlen(cut) + 2))
                return;
        *p++ = '"';
        if (n == 0)
                *p++ = '-';
        for (size_t i = 0; i < n; i++) {
                unsigned char c = (unsigned char) text->text[i];

                if (is_classic(c))
                        *p++ = (char) c;
                else {
                        *p++ = '\\';
                        *p++ = 'x';
                        p = hex(p, c);
                }
        }
        if (n < text->size)
                p = mempcpy(p, cut, strlen(cut));
        *p++ = '"';
        o->p = p;
}

/* "10/Oct/2026:13:55:36 +0000" */
static void put_classic_time(Output *o, int64_t usec) {
        char date[DATE_LENGTH + 1]; /* "Sat, 10 Oct 2026 13:55:36 GMT" */

        date_format(usec / 1000000, date);
        put(o, date + 5, 2);
        put_literal(o, "/");
        put(o, date + 8, 3);
        put_literal(o, "/");
        put(o, date + 12, 4);
        put_literal(o, ":");
        put(o, date + 17, 8);
        put_literal(o, " +0000");
}

static void put_classic(Output *o, const AccessLogRecord *r, bool combined) {
        put_peer(o, &r->peer);
        put_literal(o, " - - [");
        put_classic_time(o, r->time_usec);
        put_literal(o, "] ");
        put_quoted(o, &r->line, LINE_MAX);
        put_literal(o, " ");
        put_number(o, r->status);
        put_literal(o, " ");
        put_number(o, r->bytes);
        if (combined) {
                put_literal(o, " ");
                put_quoted(o, &r->referer, REFERER_MAX);
                put_literal(o, " ");
                put_quoted(o, &r->user_agent, AGENT_MAX);
        }
}

/*
 * JSON
 */

static bool is_plain(unsigned char c) {
        return c >= 0x20 && c < 0x7F && c != '"' && c != '\\';
}

/* Well-formed, but some take them for the end of a line or for an order to a terminal: U+0080 … U+009F,
 * U+2028, U+2029. */
static bool is_harmless(const unsigned char *sequence) {
        return !(sequence[0] == 0xC2 && sequence[1] < 0xA0) &&
               !(sequence[0] == 0xE2 && sequence[1] == 0x80 && (sequence[2] | 1) == 0xA9);
}

static char *escape(char *p, unsigned char c) {
        if (c == '"' || c == '\\') {
                *p++ = '\\';
                *p++ = (char) c;
                return p;
        }
        return hex(mempcpy(p, "\\u00", 4), c);
}

static void put_string(Output *o, const AccessLogText *text, size_t max) {
        static const char cut[] = "…";
        const unsigned char *s = (const unsigned char *) text->text;
        size_t n = MIN(text->size, max), length;
        char *p = o->p;

        if (!has_room(o, ESCAPE_MAX * n + strlen(cut) + 2))
                return;
        *p++ = '"';
        for (size_t i = 0; i < n;) {
                if (is_plain(s[i])) {
                        *p++ = (char) s[i++];
                        continue;
                }
                length = text_utf8_sequence(s + i, n - i);
                if (length > 0 && is_harmless(s + i)) {
                        p = mempcpy(p, s + i, length);
                        i += length;
                } else
                        p = escape(p, s[i++]);
        }
        if (n < text->size)
                p = mempcpy(p, cut, strlen(cut));
        *p++ = '"';
        o->p = p;
}

/* @prefix: `,"name":` */
static void put_member(Output *o, const char *prefix, const AccessLogText *text, size_t max) {
        put(o, prefix, strlen(prefix));
        if (text->text)
                put_string(o, text, max);
        else
                put_literal(o, "null");
}

/* RFC 3339, with milliseconds. */
static void put_json_time(Output *o, int64_t usec) {
        char text[DATE_ISO_LENGTH + 1], msec[4];

        date_format_iso(usec / 1000000, text);
        for (int i = 2, rest = (int) (usec / 1000 % 1000); i >= 0; i--, rest /= 10)
                msec[i] = (char) ('0' + rest % 10);
        put(o, text, DATE_ISO_LENGTH - 1);
        put_literal(o, ".");
        put(o, msec, 3);
        put_literal(o, "Z");
}

static void put_json(Output *o, const AccessLogRecord *r) {
        put_literal(o, "{\"time\":\"");
        put_json_time(o, r->time_usec);
        put_literal(o, "\",\"peer\":\"");
        put_peer(o, &r->peer);
        put_literal(o, "\"");
        put_member(o, ",\"method\":", &r->method, METHOD_MAX);
        put_member(o, ",\"target\":", &r->target, TARGET_MAX);
        put_member(o, ",\"protocol\":", &r->protocol, PROTOCOL_MAX);
        if (!r->method.text)
                put_member(o, ",\"line\":", &r->line, LINE_MAX);
        put_member(o, ",\"host\":", &r->host, HOST_MAX);
        put_literal(o, ",\"status\":");
        put_number(o, r->status);
        put_literal(o, ",\"bytes\":");
        put_number(o, r->bytes);
        put_literal(o, ",\"duration_usec\":");
        put_number(o, r->duration_usec);
        put_member(o, ",\"referer\":", &r->referer, REFERER_MAX);
        put_member(o, ",\"user_agent\":", &r->user_agent, AGENT_MAX);
        put_literal(o, ",\"worker\":");
        put_number(o, r->worker);
        put_literal(o, ",\"request\":");
        put_number(o, r->number);
        if (r->aborted)
                put_literal(o, ",\"aborted\":true");
        put_literal(o, "}");
}

size_t access_log_format(AccessLogFormat format, const AccessLogRecord *r, char *buf, size_t size) {
        Output o = { .p = buf, .end = buf + size };

        if (format == ACCESS_LOG_JSON)
                put_json(&o, r);
        else
                put_classic(&o, r, format == ACCESS_LOG_COMBINED);
        put_literal(&o, "\n");
        return o.full ? 0 : (size_t) (o.p - buf);
}
