/* SPDX-License-Identifier: MIT */
/* Targets and paths; see target.h. Checks are made on the decoded text, once: nothing is decoded twice. */

#include "http/target.h"

#include <errno.h>
#include <string.h>

#include "http/chars.h"

/* Reads one character, escaped or not, at *s. */
static int decode_char(const char **s, const char *end, char *ret) {
        const char *p = *s;
        int high, low;

        if (*p != '%') {
                *ret = *p;
                *s = p + 1;
                return *p ? 0 : 400;
        }
        if (end - p < 3)
                return 400;
        high = char_hex_value(p[1]);
        low = char_hex_value(p[2]);
        if (high < 0 || low < 0 || (high == 0 && low == 0))
                return 400;
        *ret = (char) (high << 4 | low);
        *s = p + 3;
        return *ret == '/' ? 404 : 0;
}

/* Reads up to the next slash and appends the component, with a slash before it unless it is the first. */
static int append_component(const char **s, const char *end, TargetPath *path) {
        size_t before = path->length, n = before + (before > 0);
        const char *component = path->text + n;
        int r;

        while (*s < end && **s != '/') {
                if (n + 1 >= TARGET_PATH_MAX)
                        return 404;
                r = decode_char(s, end, path->text + n);
                if (r != 0)
                        return r;
                n++;
        }

        size_t k = n - (size_t) (component - path->text);
        if (k == 2 && component[0] == '.' && component[1] == '.')
                return 400;
        if (k == 0 || (k == 1 && component[0] == '.')) {
                path->directory = true; /* unless another component follows */
                return 0;
        }
        if (before > 0)
                path->text[before] = '/';
        path->length = n;
        path->directory = false;
        return 0;
}

int target_to_path(const char *s, size_t n, TargetPath *ret) {
        const char *end = s + n;
        int r;

        ret->length = 0;
        ret->directory = true;
        if (n > 0 && *s != '/')
                return 400;
        while (s < end) {
                s++; /* the slash */
                r = append_component(&s, end, ret);
                if (r != 0)
                        return r;
        }
        ret->text[ret->length] = '\0';
        return 0;
}

/* unreserved of RFC 3986, section 2.3, and the slash. */
static bool is_plain(char c) {
        return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || char_is_digit(c) ||
               (c && strchr("-._~/", c));
}

int target_from_path(const TargetPath *path, char *buf, size_t size) {
        static const char digits[] = "0123456789ABCDEF";
        size_t n = 0;

        if (size < 3)
                return -ENOBUFS;
        buf[n++] = '/';
        for (size_t i = 0; i < path->length; i++) {
                char c = path->text[i];

                if (size - n < 5) /* an escape, the last slash, the end */
                        return -ENOBUFS;
                if (is_plain(c)) {
                        buf[n++] = c;
                        continue;
                }
                buf[n++] = '%';
                buf[n++] = digits[(unsigned char) c >> 4];
                buf[n++] = digits[(unsigned char) c & 15];
        }
        if (path->length > 0)
                buf[n++] = '/';
        buf[n] = '\0';
        return (int) n;
}
