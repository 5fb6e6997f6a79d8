/* SPDX-License-Identifier: MIT */
/* Text for people; see text.h. */

#include "basic/text.h"

#include <errno.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

size_t text_utf8_sequence(const unsigned char *p, size_t n) {
        size_t length = p[0] >= 0xF0 ? 4 : p[0] >= 0xE0 ? 3 : 2;

        if (p[0] < 0xC2 || p[0] > 0xF4 || length > n)
                return 0;
        for (size_t i = 1; i < length; i++)
                if ((p[i] & 0xC0) != 0x80)
                        return 0;
        if ((p[0] == 0xE0 && p[1] < 0xA0) || (p[0] == 0xED && p[1] > 0x9F) ||
                        (p[0] == 0xF0 && p[1] < 0x90) || (p[0] == 0xF4 && p[1] > 0x8F))
                return 0;
        return length;
}

/* The control characters beyond ASCII: to a terminal U+009B is what ESC [ is. */
static bool is_c1(const unsigned char *sequence) {
        return sequence[0] == 0xC2 && sequence[1] < 0xA0;
}

void text_make_printable(char *s) {
        size_t length = strlen(s);

        for (size_t i = 0; i < length;) {
                const unsigned char *p = (const unsigned char *) s + i;
                size_t n = text_utf8_sequence(p, length - i);

                if (n > 0 && !is_c1(p)) {
                        i += n;
                        continue;
                }
                for (n = MAX(n, (size_t) 1); n > 0; n--, i++)
                        if (s[i] < 0x20 || s[i] > 0x7E)
                                s[i] = '?';
        }
}

const char *text_quote(const char *s, char *buf, size_t size) {
        static const char cut[] = "…\"";
        size_t room = size - 1 - strlen(cut);
        int n = snprintf(buf + 1, room, "%s", s);

        buf[0] = '"';
        text_make_printable(buf + 1);
        strcat(buf, n >= (int) room ? cut : "\"");
        return buf;
}

int text_outcome(int outcome, char **ret_text, const char *format, ...) {
        va_list ap;

        va_start(ap, format);
        int n = vasprintf(ret_text, format, ap);
        va_end(ap);
        if (n >= 0)
                return outcome;
        *ret_text = NULL;
        return -ENOMEM;
}
