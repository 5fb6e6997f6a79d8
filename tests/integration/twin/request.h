/* SPDX-License-Identifier: MIT */
#ifndef TWIN_REQUEST_H
#define TWIN_REQUEST_H

/* Requests at random, and what their answers have to be. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "tally.h"

#define BODY_MAX     (256 * 1024)
#define PIPELINE_MAX 6

typedef struct Random {
        uint64_t state;
} Random;

uint64_t random_next(Random *r);
uint64_t random_below(Random *r, uint64_t n);
bool random_chance(Random *r, unsigned percent);

/* 0 … @max, each order of magnitude as often as another. */
uint64_t random_size(Random *r, uint64_t max);

typedef struct Request {
        uint64_t id;
        Kind kind;
        bool head;                  /* by HEAD */
        bool old;                   /* HTTP/1.0 */
        bool last;                  /* the connection is to be closed behind it */
        bool expects;               /* to be told to go on with its body */
        uint64_t key, offset, size; /* of the content of the answer */
        uint64_t whole;             /* the file's size, of a piece */
        size_t gate;                /* its body begins there in what is sent */
        size_t end;                 /* and it ends here */
        uint64_t sent_at;
} Request;

typedef struct Text {
        char *data;
        size_t n, size;
} Text;

/* How often each kind is to be among others. */
typedef struct Mix {
        unsigned weights[_KIND_MAX];
} Mix;

/* "memory:3,file:1". False: it is none. */
bool mix_parse(Mix *m, const char *text);

/* Makes one, at the end of @out. @safe: one that may be left. @is_static: there are files and nothing else.
 */
void request_make(Request *r, Random *rng, const Mix *mix, uint64_t id, bool is_static, bool last, bool safe,
                Text *out);

/* The files that are asked for, in the folder. */
int request_make_files(const char *directory);

#endif
