/* SPDX-License-Identifier: MIT */
#pragma once

/* Classes of characters that several parts of HTTP share; none depends on a locale. */

#include <stdbool.h>
#include <stdint.h>

enum {
        CHAR_TOKEN = 1 << 0,  /* tchar: RFC 9110, section 5.6.2 */
        CHAR_HOST = 1 << 1,   /* of a reg-name: RFC 3986, section 3.2.2 */
        CHAR_TARGET = 1 << 2, /* of a request's target, see chars.c */
        CHAR_TEXT = 1 << 3,   /* of a field's value: VCHAR, white space, obs-text (RFC 9110, section 5.5) */
        CHAR_QUOTED = 1 << 4, /* qdtext: RFC 9110, section 5.6.4 */
};

extern const uint8_t char_classes[256];

static inline bool char_is(char c, uint8_t classes) {
        return char_classes[(uint8_t) c] & classes;
}

static inline bool char_is_digit(char c) {
        return c >= '0' && c <= '9';
}

static inline bool char_is_space(char c) {
        return c == ' ' || c == '\t';
}

static inline char char_to_lower(char c) {
        return c >= 'A' && c <= 'Z' ? (char) (c | 0x20) : c;
}

/* The value of a hexadecimal digit, -1 if @c is none. */
static inline int char_hex_value(char c) {
        if (char_is_digit(c))
                return c - '0';
        c |= 0x20;
        return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}
