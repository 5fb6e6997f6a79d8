/* SPDX-License-Identifier: MIT */
#pragma once

#include <stddef.h>
#include <stdint.h>

/* What libFuzzer, or fuzz-main.c in its place, calls for every input. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
