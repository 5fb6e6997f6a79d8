/* SPDX-License-Identifier: MIT */
#pragma once

/* HTTP dates (RFC 9110, section 5.6.7), in seconds since the epoch, and those of logs. Pure: gmtime(3) would
 * read the time zone's files. */

#include <stddef.h>
#include <stdint.h>

#define DATE_LENGTH 29 /* "Sun, 06 Nov 1994 08:49:37 GMT" */

/* Always in the preferred format; what is beyond the years 0 … 9999 is cut to them. */
void date_format(int64_t seconds, char ret[static DATE_LENGTH + 1]);

/* Likewise as RFC 3339 has it. */
#define DATE_ISO_LENGTH 20 /* "1994-11-06T08:49:37Z" */
void date_format_iso(int64_t seconds, char ret[static DATE_ISO_LENGTH + 1]);

/* Reads all three formats that a recipient must accept. @now decides the century of the one with a short
 * year. -EINVAL when it is none of them. */
int date_parse(const char *s, size_t n, int64_t now, int64_t *ret);

/* The date of the answers, formatted once a second. */
typedef struct DateCache {
        int64_t seconds;
        char text[DATE_LENGTH + 1];
} DateCache;

const char *date_cache_get(DateCache *c, int64_t now);
