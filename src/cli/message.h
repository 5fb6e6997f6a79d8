/* SPDX-License-Identifier: MIT */
#pragma once

/* A message to workers, as it was typed. */

/* Neither of the errno values: it is not exactly one JSON value. */
#define MESSAGE_INVALID 1

/* The body of the request that sends @text to @worker, or with 0 to all, as a fresh string. Returns 0;
 * -ENOMEM; or MESSAGE_INVALID, and then it is a sentence for people. */
int message_format(const char *text, unsigned worker, char **ret);
