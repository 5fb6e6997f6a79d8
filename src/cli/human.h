/* SPDX-License-Identifier: MIT */
#pragma once

/* Numbers as people like to read them: two places at most, and a unit. */

#include <stdint.h>

#define HUMAN_MAX 64

/* "350ms", "12s", "5min 2s", "3h 4min", "12d 3h" */
const char *human_duration(uint64_t usec, char buf[static HUMAN_MAX]);

/* "512B", "1.2K", "812K", "12M", "1.5G"; powers of 1024. */
const char *human_size(uint64_t bytes, char buf[static HUMAN_MAX]);

/* A moment, in microseconds since 1970: "2026-11-25 14:50:45", by the local clock. */
const char *human_time(uint64_t usec, char buf[static HUMAN_MAX]);
