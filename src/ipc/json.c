/* SPDX-License-Identifier: MIT */
/* A scanner for JSON texts; see json.h.
 *
 * One pass over the bytes with no recursion: what is open is a bit per level (object or array), so that a
 * text of nothing but brackets costs nobody a stack. Most of a large message is the inside of strings, and
 * that is walked 32 bytes at a time. */

#include "ipc/json.h"

#include <errno.h>
#include <stdint.h>
#include <string.h>

#include "basic/text.h"

typedef struct Scanner {
        const char *p;
        const char *end;
        size_t depth;
        size_t depth_max;
        const char *value;                           /* of the member that is asked for and under way */
        uint64_t is_object[JSON_DEPTH_MAX / 64 + 1]; /* by level - 1 */
} Scanner;

/* Compilers make this what the machine has: SSE2, NEON, or plain words. */
typedef uint8_t Bytes __attribute__((vector_size(16)));
typedef uint64_t Words __attribute__((vector_size(16)));

/* 16 bytes of a string that mean themselves: printable ASCII without '"' and '\'. A byte that does not gives
 * a non-zero lane. */
static inline Words special_bytes(const char *p) {
        Bytes b;

        memcpy(&b, p, sizeof(b));
        return (Words) ((b < 0x20) | (b == '"') | (b == '\\') | (b > 0x7F));
}

static const char *skip_plain(const char *p, const char *end) {
        while (end - p >= 32) {
                Words w = special_bytes(p) | special_bytes(p + 16);

                if (w[0] | w[1])
                        break;
                p += 32;
        }
        return p;
}

static bool is_hex(char c) {
        return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
}

/* Behind the backslash. */
static bool scan_escape(Scanner *s) {
        if (s->p == s->end)
                return false;
        char c = *s->p++;
        if (c != 'u')
                return c && strchr("\"\\/bfnrt", c);
        if (s->end - s->p < 4)
                return false;
        for (int i = 0; i < 4; i++)
                if (!is_hex(*s->p++))
                        return false;
        return true;
}

/* Behind the opening quote, to behind the closing one. */
static bool scan_string(Scanner *s) {
        for (;;) {
                s->p = skip_plain(s->p, s->end);
                if (s->p == s->end)
                        return false;

                unsigned char c = (unsigned char) *s->p;
                if (c == '"') {
                        s->p++;
                        return true;
                }
                if (c < 0x20)
                        return false;
                if (c == '\\') {
                        s->p++;
                        if (!scan_escape(s))
                                return false;
                } else if (c < 0x80)
                        s->p++;
                else {
                        size_t n = text_utf8_sequence(
                                        (const unsigned char *) s->p, (size_t) (s->end - s->p));
                        if (n == 0)
                                return false;
                        s->p += n;
                }
        }
}

static bool scan_digits(Scanner *s) {
        const char *start = s->p;

        while (s->p < s->end && *s->p >= '0' && *s->p <= '9')
                s->p++;
        return s->p > start;
}

static bool scan_character(Scanner *s, char c) {
        if (s->p == s->end || *s->p != c)
                return false;
        s->p++;
        return true;
}

static bool scan_number(Scanner *s) {
        (void) scan_character(s, '-');
        if (!scan_character(s, '0') && !scan_digits(s))
                return false;
        if (scan_character(s, '.') && !scan_digits(s))
                return false;
        if (scan_character(s, 'e') || scan_character(s, 'E')) {
                if (!scan_character(s, '+'))
                        (void) scan_character(s, '-');
                return scan_digits(s);
        }
        return true;
}

static bool scan_word(Scanner *s, const char *word) {
        size_t n = strlen(word);

        if ((size_t) (s->end - s->p) < n || memcmp(s->p, word, n) != 0)
                return false;
        s->p += n;
        return true;
}

/* A line feed is white space for JSON; here it ends the message. */
static void skip_space(Scanner *s) {
        while (s->p < s->end && (*s->p == ' ' || *s->p == '\t' || *s->p == '\r'))
                s->p++;
}

static bool scan_open(Scanner *s, bool object) {
        if (s->depth == s->depth_max)
                return false;
        uint64_t bit = UINT64_C(1) << (s->depth % 64), *word = s->is_object + s->depth / 64;
        if (s->depth % 64 == 0)
                *word = 0;
        *word = object ? *word | bit : *word & ~bit;
        s->depth++;
        s->p++;
        return true;
}

static bool in_object(const Scanner *s) {
        size_t level = s->depth - 1;

        return s->is_object[level / 64] >> (level % 64) & 1;
}

/* A value's beginning: a scalar is whole then, an object or array is open. */
static bool scan_value(Scanner *s) {
        if (s->p == s->end)
                return false;
        switch (*s->p) {
        case '{':
                return scan_open(s, true);
        case '[':
                return scan_open(s, false);
        case '"':
                s->p++;
                return scan_string(s);
        case 't':
                return scan_word(s, "true");
        case 'f':
                return scan_word(s, "false");
        case 'n':
                return scan_word(s, "null");
        default:
                return scan_number(s);
        }
}

static char unescape(const char **p);

/* @name: of @n bytes, checked before. */
static bool is_member(const JsonMember *m, const char *name, size_t n) {
        const char *p = name, *wanted = m->name;

        if (strlen(wanted) == n && memcmp(wanted, name, n) == 0)
                return true;
        if (!m->any_spelling || !memchr(name, '\\', n))
                return false;
        while (p < name + n && *wanted) {
                char c = *p++;

                if (c == '\\')
                        c = unescape(&p);
                if (c != *wanted++)
                        return false;
        }
        return p == name + n && !*wanted;
}

/* A name and its colon. At the top level, returns the member that is asked for by that name. */
static bool scan_name(Scanner *s, JsonMember *members, size_t n_members, JsonMember **ret) {
        const char *name = s->p + 1;

        if (!scan_character(s, '"') || !scan_string(s))
                return false;
        size_t n = (size_t) (s->p - 1 - name);
        *ret = NULL;
        for (size_t i = 0; s->depth == 1 && i < n_members; i++)
                if (is_member(members + i, name, n))
                        *ret = members + i;
        skip_space(s);
        if (!scan_character(s, ':'))
                return false;
        skip_space(s);
        return true;
}

static void note_member(JsonMember *m, JsonSpan value) {
        if (!m->accept || m->accept(value))
                m->value = value;
}

/* After a value: closes what ends here. Returns 1 when another element follows, 0 when the whole text is
 * done, negative when neither. */
static int scan_after_value(Scanner *s, JsonMember **member) {
        for (;;) {
                if (*member && s->depth == 1) {
                        note_member(*member, (JsonSpan){ s->value, (size_t) (s->p - s->value) });
                        *member = NULL;
                }
                skip_space(s);
                if (s->depth == 0)
                        return s->p == s->end ? 0 : -EBADMSG;
                if (scan_character(s, ',')) {
                        skip_space(s);
                        return 1;
                }
                if (!scan_character(s, in_object(s) ? '}' : ']'))
                        return -EBADMSG;
                s->depth--;
        }
}

static int scan(const char *text, size_t n, size_t depth_max, JsonMember *members, size_t n_members) {
        Scanner s; /* not zeroed: that would take longer than a short text, and each word is as it is opened
                    */
        JsonMember *member = NULL;
        bool object, first;
        int r = 1;

        s.p = text;
        s.end = text + n;
        s.depth = 0;
        s.depth_max = depth_max;
        for (size_t i = 0; i < n_members; i++)
                members[i].value = (JsonSpan){ .p = NULL };
        skip_space(&s);
        object = false; /* whether a name comes before the value */
        while (r > 0) {
                JsonMember *found = NULL;
                size_t depth = s.depth;

                if (object && !scan_name(&s, members, n_members, &found))
                        return -EBADMSG;
                if (found) {
                        member = found;
                        s.value = s.p;
                }
                if (!scan_value(&s))
                        return -EBADMSG;
                first = s.depth > depth;
                if (first) {
                        skip_space(&s);
                        object = in_object(&s);
                        if (!scan_character(&s, object ? '}' : ']'))
                                continue; /* into it */
                        s.depth--;
                }
                r = scan_after_value(&s, &member);
                object = s.depth > 0 && in_object(&s);
        }
        return r;
}

int json_scan(const char *text, size_t n, JsonMember *members, size_t n_members) {
        return scan(text, n, JSON_DEPTH_MAX, members, n_members);
}

int json_scan_frame(const char *text, size_t n, JsonMember *members, size_t n_members) {
        return scan(text, n, JSON_DEPTH_MAX + 1, members, n_members);
}

int json_scan_content(const char *text, size_t n) {
        return scan(text, n, JSON_DEPTH_MAX - 1, NULL, 0);
}

bool json_span_is(JsonSpan value, const char *s) {
        size_t n = strlen(s);

        return value.p && value.n == n + 2 && value.p[0] == '"' && memcmp(value.p + 1, s, n) == 0;
}

bool json_span_to_integer(JsonSpan value, int64_t min, int64_t max, int64_t *ret) {
        bool negative = value.n > 0 && value.p[0] == '-';
        int64_t v = 0;

        for (size_t i = negative; i < value.n; i++) {
                int digit = value.p[i] - '0';

                if (digit < 0 || digit > 9 || v > (INT64_MAX - digit) / 10)
                        return false;
                v = v * 10 + digit;
        }
        v = negative ? -v : v;
        if (value.n <= (size_t) negative || v < min || v > max)
                return false;
        *ret = v;
        return true;
}

bool json_span_begins(JsonSpan value, const char *s) {
        size_t n = strlen(s);

        return value.p && value.n >= n + 2 && value.p[0] == '"' && memcmp(value.p + 1, s, n) == 0;
}

static char unescape(const char **p) {
        static const char from[] = "bfnrt", to[] = "\b\f\n\r\t";
        char c = *(*p)++;

        if (c == 'u') {
                unsigned code = 0;

                for (int i = 0; i < 4; i++) {
                        char h = *(*p)++;
                        code = code * 16 + (unsigned) (h <= '9' ? h - '0' : (h | 0x20) - 'a' + 10);
                }
                return code > 0 && code < 0x80 ? (char) code : '?';
        }
        const char *known = strchr(from, c);
        return known ? to[known - from] : c;
}

bool json_span_to_text(JsonSpan value, char *buf, size_t size) {
        size_t n = 0;

        buf[0] = '\0';
        if (!value.p || value.n < 2 || value.p[0] != '"')
                return false;
        const char *p = value.p + 1, *end = value.p + value.n - 1;
        while (p < end && n + 1 < size) {
                char c = *p++;

                buf[n++] = c == '\\' ? unescape(&p) : c;
        }
        buf[n] = '\0';
        text_make_printable(buf);
        return true;
}

size_t json_append_string(char *buf, size_t size, size_t offset, const char *s) {
        if (offset + 3 > size)
                return offset;
        buf[offset++] = '"';
        for (; *s && offset + 4 <= size; s++) {
                if (*s == '"' || *s == '\\')
                        buf[offset++] = '\\';
                buf[offset++] = *s < 0x20 || *s > 0x7E ? '?' : *s;
        }
        buf[offset++] = '"';
        buf[offset] = '\0';
        return offset;
}

void json_write_string(FILE *f, const char *s) {
        size_t length = strlen(s);

        fputc('"', f);
        for (size_t i = 0; i < length;) {
                unsigned char c = (unsigned char) s[i];
                size_t n = c < 0x80 ? 1 : text_utf8_sequence((const unsigned char *) s + i, length - i);

                if (c == '"' || c == '\\')
                        fprintf(f, "\\%c", c);
                else if (c < 0x20 || c == 0x7F)
                        fprintf(f, "\\u%04x", c);
                else if (n == 0)
                        fputc('?', f);
                else
                        fwrite(s + i, 1, n, f);
                i += n > 0 ? n : 1;
        }
        fputc('"', f);
}
