/* SPDX-License-Identifier: MIT */
#pragma once

/* Text that is shown to people: in logs, on terminals, in systemd's status. */

#include "basic/macro.h"

/* Replaces, in place, every byte that is neither printable ASCII nor part of a well-formed UTF-8 sequence by
 * '?'. So there is no control character left that could begin a new line or speak to a terminal, and no
 * broken sequence for which systemd would refuse a whole message. */
void text_make_printable(char *s);

/* Puts a message for the user into a fresh string at @ret_text and returns @outcome, the positive number by
 * which the caller knows that there is one; or -ENOMEM, with NULL. */
int text_outcome(int outcome, char **ret_text, const char *format, ...) _printf_(3, 4);
