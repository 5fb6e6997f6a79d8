/* SPDX-License-Identifier: MIT */
#pragma once

/* Classes of characters that several parts of HTTP share; none depends on a locale. */

#include <stdbool.h>
#include <stdint.h>

static inline bool char_is_digit(char c) {
        return c >= '0' && c <= '9';
}

/* The value of a hexadecimal digit, -1 if @c is none. */
static inline int char_hex_value(char c) {
        if (char_is_digit(c))
                return c - '0';
        c |= 0x20;
        return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* What may stand in a field's value: VCHAR, white space, obs-text (RFC 9110, section 5.5). */
static inline bool char_is_text(char c) {
        return (uint8_t) c >= 0x20 ? c != 0x7F : c == '\t';
}
