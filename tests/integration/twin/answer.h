/* SPDX-License-Identifier: MIT */
#ifndef TWIN_ANSWER_H
#define TWIN_ANSWER_H

/* Reads an answer as it comes, and compares every byte with what it has to be. */

#include "request.h"

typedef enum AnswerPlace {
        IN_HEAD,
        IN_BODY,       /* of a known size */
        IN_CHUNK_SIZE, /* a line */
        IN_CHUNK,
        IN_CHUNK_END, /* its line end */
        IN_TRAILER,   /* lines up to an empty one */
        UP_TO_END,    /* of the connection */
        COMPLETE,
} AnswerPlace;

typedef struct Answer {
        AnswerPlace place;
        unsigned status;
        bool closes, chunked, has_size, has_id, has_range;
        bool unknown;   /* what became of the request */
        bool unchecked; /* a body that says something to people */
        uint64_t size, id, range[3];
        uint64_t left; /* of the body, or of the chunk */
        uint64_t n_body;
        /* the failure */
        Failure failure;
        uint64_t failed_at; /* in the body */
        char detail[200];
} Answer;

void answer_begin(Answer *a);

/* It is the answer to @r. Returns how much of @data it took (all, unless the answer is complete, or a line
 * is not yet there as a whole); -1: it is wrong, see failure. @identified: answers say to which request they
 * belong. *ret_continue: the client was told to go on with the body. */
long answer_feed(Answer *a, const Request *r, bool identified, const char *data, size_t n,
                bool *ret_continue);

/* The connection has ended: true when the answer ends by that. */
bool answer_end(Answer *a, const Request *r);

#endif
