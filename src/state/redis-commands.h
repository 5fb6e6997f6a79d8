/* SPDX-License-Identifier: MIT */
#pragma once

/* An operation as a command of Redis, and its answer as an outcome; pure. */

#include <hiredis/hiredis.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "muster/state.h"
#include "state/driver.h"

#define REDIS_WORDS_MAX 8

/* What leases are kept under. To scan() they are not there. */
#define REDIS_LEASE_PREFIX "muster:lease:"
#define REDIS_FENCE_PREFIX "muster:fence:"

typedef struct RedisCommand {
        StateBytes words[REDIS_WORDS_MAX];
        size_t n;
        size_t used;
        /* Two keys with prefixes, or a pattern of which each byte is escaped; and numbers. */
        char room[2 * MUSTER_STATE_KEY_MAX + 256];
} RedisCommand;

/* Puts an operation into words, which point into it and into @ret. Returns 0, or -EINVAL: a cursor that was
 * not from here. */
int redis_command_build(RedisCommand *ret, const StateOperation *op);

typedef struct RedisAnswer {
        StateOutcome outcome;
        StateBytes *keys;          /* what the outcome points to, to be freed */
        bool is_worth_a_complaint; /* .text is for people */
        char text[STATE_TEXT_MAX];
} RedisAnswer;

/* Understands the answer to @op; @reply: NULL, too large. The outcome points into the reply. Returns 0, also
 * for an error that the server tells; or -EBADMSG with a text when a server does not answer like this. */
int redis_answer_read(RedisAnswer *ret, const StateOperation *op, const redisReply *reply);

/* The errno of an error that the server tells, and what to show of its text. */
int redis_error_read(const redisReply *reply, char text[static STATE_TEXT_MAX]);

/* The first bytes of the SHA-1 of a value, as the scripts compare it. */
uint64_t redis_value_version(StateBytes value);
