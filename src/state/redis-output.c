/* SPDX-License-Identifier: MIT */
#include "state/redis-output.h"

#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "basic/macro.h"

/* Kept by a connection that has nothing to send. */
#define CAPACITY_MIN  4096
#define CAPACITY_IDLE 65536

/* Of a length with what is around it: a letter, 20 digits, twice the end of a line. */
#define WORD_OVERHEAD 32

static void output_forget(RedisOutput *o) {
        if (o->is_secret && o->data)
                explicit_bzero(o->data, o->capacity);
        free(o->data);
        o->data = NULL;
        o->capacity = 0;
}

void redis_output_done(RedisOutput *o) {
        output_forget(o);
        o->begin = o->end = 0;
        o->is_secret = false;
}

static size_t grown(size_t capacity, size_t needed) {
        capacity = MAX(2 * capacity, (size_t) CAPACITY_MIN);
        while (capacity < needed)
                capacity *= 2;
        return capacity;
}

/* Not by realloc(), which may leave a password behind. */
static int output_grow(RedisOutput *o, size_t size) {
        size_t waiting = redis_output_size(o), capacity = grown(o->capacity, waiting + size);
        char *data = malloc(capacity);

        if (!data)
                return -ENOMEM;
        if (waiting > 0)
                memcpy(data, o->data + o->begin, waiting);
        output_forget(o);
        o->data = data;
        o->capacity = capacity;
        return 0;
}

/* Either half of the buffer has been sent already, and what waits fits there; or the buffer doubles. So a
 * byte is moved twice at most. */
static int output_reserve(RedisOutput *o, size_t size) {
        size_t waiting = redis_output_size(o);

        if (size <= o->capacity - o->end)
                return 0;
        if (size > SIZE_MAX / 8 || waiting > SIZE_MAX / 8)
                return -ENOMEM;
        if (waiting + size <= o->capacity / 2)
                memcpy(o->data, o->data + o->begin, waiting);
        else if (output_grow(o, size) < 0)
                return -ENOMEM;
        o->begin = 0;
        o->end = waiting;
        return 0;
}

/* "*3\r\n", "$11\r\n" */
static char *put_length(char *p, char kind, size_t n) {
        char digits[20];
        size_t i = sizeof(digits);

        do
                digits[--i] = (char) ('0' + n % 10);
        while (n /= 10);
        *p++ = kind;
        memcpy(p, digits + i, sizeof(digits) - i);
        p += sizeof(digits) - i;
        *p++ = '\r';
        *p++ = '\n';
        return p;
}

int redis_output_append(RedisOutput *o, const StateBytes *words, size_t n) {
        size_t size = WORD_OVERHEAD;
        char *p;
        int r;

        for (size_t i = 0; i < n; i++)
                size += WORD_OVERHEAD + words[i].size;
        r = output_reserve(o, size);
        if (r < 0)
                return r;

        p = put_length(o->data + o->end, '*', n);
        for (size_t i = 0; i < n; i++) {
                p = put_length(p, '$', words[i].size);
                if (words[i].size > 0)
                        memcpy(p, words[i].data, words[i].size);
                p += words[i].size;
                *p++ = '\r';
                *p++ = '\n';
        }
        o->end = (size_t) (p - o->data);
        return 0;
}

void redis_output_consume(RedisOutput *o, size_t size) {
        o->begin += size;
        if (o->begin < o->end)
                return;
        if (o->is_secret || o->capacity > CAPACITY_IDLE)
                output_forget(o);
        o->begin = o->end = 0;
        o->is_secret = false;
}
