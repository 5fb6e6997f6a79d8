/* SPDX-License-Identifier: MIT */
#pragma once

/* Strict readers for numbers as people and programs write them. -EINVAL: not of the form; -ERANGE: does not
 * fit. The output is untouched on failure. */

#include <stddef.h>
#include <stdint.h>

/* Decimal digits only: no sign, no white space, no prefix. */
int parse_uint64(const char *s, uint64_t *ret);
int parse_uint(const char *s, unsigned *ret);

/* A time span: "10s", "100ms", "1min 30s", "2h", "0". Units: us, ms, s, min, h, d. A number alone must be 0,
 * because nobody remembers which unit a bare number has. */
int parse_duration(const char *s, uint64_t *ret_usec);

/* A size in bytes: "65536", "64K", "10M", "1G" (powers of 1024). */
int parse_size(const char *s, uint64_t *ret_bytes);

/* The shortest exact form that the parsers above read back: "1min30s", "100ms", "16K". */
#define DURATION_STRING_MAX 64
#define SIZE_STRING_MAX     24
const char *duration_to_string(uint64_t usec, char buf[static DURATION_STRING_MAX]);
const char *size_to_string(uint64_t bytes, char buf[static SIZE_STRING_MAX]);
