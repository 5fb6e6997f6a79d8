/* SPDX-License-Identifier: MIT */
/* The table behind chars.h.
 *
 * A target may have more in it than RFC 3986 allows (browsers send | and { as they are), but no space,
 * control, '#' or byte beyond ASCII. */

#include "http/chars.h"

#define TEXT    CHAR_TEXT /* white space and obs-text too */
#define QUOTED  (TEXT | CHAR_QUOTED)
#define VISIBLE (QUOTED | CHAR_TARGET)
#define TOKEN   (VISIBLE | CHAR_TOKEN)
#define NAME    (TOKEN | CHAR_HOST)

const uint8_t char_classes[256] = {
        ['\t'] = QUOTED,
        [' '] = QUOTED,
        ['!'] = NAME,
        ['"'] = TEXT | CHAR_TARGET,
        ['#'] = QUOTED | CHAR_TOKEN,
        ['$'] = NAME,
        ['%'] = NAME,
        ['&'] = NAME,
        ['\''] = NAME,
        ['('] = VISIBLE | CHAR_HOST,
        [')'] = VISIBLE | CHAR_HOST,
        ['*'] = NAME,
        ['+'] = NAME,
        [','] = VISIBLE | CHAR_HOST,
        ['-'] = NAME,
        ['.'] = NAME,
        ['/'] = VISIBLE,
        ['0' ... '9'] = NAME,
        [':'] = VISIBLE,
        [';'] = VISIBLE | CHAR_HOST,
        ['<'] = VISIBLE,
        ['='] = VISIBLE | CHAR_HOST,
        ['>'] = VISIBLE,
        ['?'] = VISIBLE,
        ['@'] = VISIBLE,
        ['A' ... 'Z'] = NAME,
        ['['] = VISIBLE,
        ['\\'] = TEXT | CHAR_TARGET,
        [']'] = VISIBLE,
        ['^'] = TOKEN,
        ['_'] = NAME,
        ['`'] = TOKEN,
        ['a' ... 'z'] = NAME,
        ['{'] = VISIBLE,
        ['|'] = TOKEN,
        ['}'] = VISIBLE,
        ['~'] = NAME,
        [0x80 ... 0xFF] = QUOTED,
};
