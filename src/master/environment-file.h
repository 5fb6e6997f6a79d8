/* SPDX-License-Identifier: MIT */
#pragma once

/* Files with environment variables, as systemd's EnvironmentFile= has them (systemd.exec(5)).
 *
 * A line is NAME=VALUE. Empty lines, and those that begin with # or ;, are nothing. A value may stand in
 * '…', where all is as it is written, or in "…", where a backslash before ", \, ` or $ makes it an ordinary
 * character and one at the end of a line continues it. Outside of quotes a backslash does so for any
 * character, and white space around the value is no part of it. What stands in quotes may have several
 * lines. Unlike systemd, which passes over what it cannot read, this refuses it. */

#include <stddef.h>

/* What is more than this is refused. */
#define ENVIRONMENT_FILE_SIZE_MAX      (1024 * 1024)
#define ENVIRONMENT_FILE_VARIABLES_MAX 1024

/* The file is not valid, or cannot be read: an outcome for the caller to report. */
#define ENVIRONMENT_FILE_INVALID 1

/* Makes a vector of "NAME=value" (strv.h), in the order of the file, each name as often as there, of the @n
 * bytes of @text, which came from @path. Returns 0; ENVIRONMENT_FILE_INVALID with a text for the user
 * ("file:line: found …, expected …"), which shows nothing of the file: it may be full of secrets; or
 * -ENOMEM. */
int environment_file_parse(const char *path, const char *text, size_t n, char ***ret, char **ret_error);

/* The same with what stands in the file @path. */
int environment_file_read(const char *path, char ***ret, char **ret_error);
