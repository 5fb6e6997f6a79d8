/* SPDX-License-Identifier: MIT */
#pragma once

/* The answers of a Redis server, out of the bytes that come: hiredis's parser, with bounds, because what
 * comes may be anything. Does no I/O. */

#include <hiredis/hiredis.h>
#include <stddef.h>

typedef struct RedisReader RedisReader;

#define REDIS_READER_REPLY     1
#define REDIS_READER_TOO_LARGE 2

RedisReader *redis_reader_new(void);
RedisReader *redis_reader_free(RedisReader *reader);

/* Takes bytes as they came. Returns 0, -ENOMEM or -EBADMSG. */
int redis_reader_feed(RedisReader *reader, const char *data, size_t size);

/* Returns REDIS_READER_REPLY with an answer in @ret, to be freed by freeReplyObject();
 * REDIS_READER_TOO_LARGE for an answer that is a string of more than MUSTER_STATE_VALUE_MAX bytes, which are
 * left out; 0 when none is whole yet; -EBADMSG when what came is no answer, or one beyond all bounds; or
 * -ENOMEM. After an error the reader is only good for redis_reader_get_text() and to be freed. */
int redis_reader_next(RedisReader *reader, redisReply **ret);

/* What was wrong, for people. */
const char *redis_reader_get_text(const RedisReader *reader);
