/* SPDX-License-Identifier: MIT */
#pragma once

/* Commands that wait to be sent, in the form in which they go to a Redis server. */

#include <stdbool.h>
#include <stddef.h>

#include "state/driver.h"

typedef struct RedisOutput {
        char *data;
        size_t begin, end, capacity; /* what waits is data[begin … end) */
        bool is_secret;              /* there is, or was, a password in it */
} RedisOutput;

void redis_output_done(RedisOutput *output);

/* Appends a command of @n words. Returns 0, or -ENOMEM with nothing appended. */
int redis_output_append(RedisOutput *output, const StateBytes *words, size_t n);

/* So much has been sent. */
void redis_output_consume(RedisOutput *output, size_t size);

static inline size_t redis_output_size(const RedisOutput *output) {
        return output->end - output->begin;
}
