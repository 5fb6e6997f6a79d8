/* SPDX-License-Identifier: MIT */
#pragma once

/* Text that comes from outside and is shown to people: in logs, on terminals, in systemd's status. */

/* Replaces, in place, every byte that is neither printable ASCII nor part of a well-formed UTF-8 sequence by
 * '?'. So there is no control character left that could begin a new line or speak to a terminal, and no
 * broken sequence for which systemd would refuse a whole message. */
void text_make_printable(char *s);
