/* SPDX-License-Identifier: MIT */
#pragma once

/* Passwords in files, as systemd's credentials are (systemd.exec(5), LoadCredential=). */

/* The room for one with its NUL. */
#define CREDENTIAL_MAX 4096

/* Reads the password in the file, without the line end behind it, into @buf, which the caller clears.
 * Returns 0 or a negative errno: -EINVAL: it is empty, or has a NUL in it; -EMSGSIZE: it is too long. */
int credential_read(const char *path, char buf[static CREDENTIAL_MAX]);
