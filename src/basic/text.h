/* SPDX-License-Identifier: MIT */
#pragma once

/* Text that is shown to people: in logs, on terminals, in systemd's status. */

#include <stddef.h>

#include "basic/macro.h"

/* The length of the well-formed UTF-8 sequence of two bytes or more at @p, of at most @n bytes; 0 if there
 * is none (RFC 3629, section 4). */
size_t text_utf8_sequence(const unsigned char *p, size_t n);

/* Replaces, in place, every byte that is neither printable ASCII nor part of a well-formed UTF-8 sequence,
 * and the sequences of U+0080 to U+009F, by '?'. So there is no control character left that could begin a
 * new line or speak to a terminal, and no broken sequence for which systemd would refuse a whole message. */
void text_make_printable(char *s);

/* @s in quotes, printable, on one line whatever it holds, and cut where it does not fit: that shows as "…".
 * @size is at least 16. Returns @buf. */
const char *text_quote(const char *s, char *buf, size_t size);

/* Puts a message for the user into a fresh string at @ret_text and returns @outcome, the positive number by
 * which the caller knows that there is one; or -ENOMEM, with NULL. */
int text_outcome(int outcome, char **ret_text, const char *format, ...) _printf_(3, 4);
