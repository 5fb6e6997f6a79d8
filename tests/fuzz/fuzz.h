/* SPDX-License-Identifier: MIT */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* What libFuzzer, or fuzz-main.c in its place, calls for every input. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* A copy with a NUL at its end, to be freed. Not by strndup(3), for which AddressSanitizer's strict checks of
 * strings want a NUL at the end of what is copied. */
static inline char *fuzz_text(const void *data, size_t size) {
        char *text = malloc(size + 1);

        if (!text)
                abort();
        memcpy(text, data, size);
        text[size] = '\0';
        return text;
}
