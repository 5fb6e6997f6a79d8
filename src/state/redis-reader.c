/* SPDX-License-Identifier: MIT */
/* hiredis's parser takes whatever fits into memory. Here each part of an answer is bounded: a line, a
 * string, and all of an answer together. A value that is too large does not cost the connection, since any
 * program may have put one there: what comes of it is counted and dropped. */

#include "state/redis-reader.h"

#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "basic/macro.h"
#include "muster/state.h"

/* A line is an error, a number or a length. */
#define LINE_MAX_BYTES 65536

/* A length has fewer digits. */
#define LENGTH_DIGITS 18

/* "\r\n" behind a length, and behind a string. */
#define LINE_END 2

/* Of one answer with all that is in it; the largest is a page of a scan. */
#define REPLY_MAX_BYTES (MUSTER_STATE_VALUE_MAX + 16 * 1024 * 1024)

#if HIREDIS_MAJOR >= 1
typedef size_t ElementCount;
#else
typedef int ElementCount;
#endif

struct RedisReader {
        redisReader *parser;
        const redisReplyObjectFunctions *makers; /* hiredis's own */
        redisReplyObjectFunctions bounded;
        size_t room;   /* of the answer that is being read */
        uint64_t skip; /* bytes still to come of a string that is too large */
        const char *text;
};

static bool reader_take(RedisReader *r, size_t size) {
        if (size > r->room) {
                r->text = "an answer that is too large";
                return false;
        }
        r->room -= size;
        return true;
}

static void *make_string(const redisReadTask *task, char *data, size_t size) {
        RedisReader *r = task->privdata;

        if (!reader_take(r, sizeof(redisReply) + size))
                return NULL;
        return r->makers->createString(task, data, size);
}

static void *make_array(const redisReadTask *task, ElementCount n) {
        RedisReader *r = task->privdata;

        /* The elements are counted here, as numbers and nils are not. */
        if ((size_t) n > r->room / (sizeof(redisReply) + sizeof(redisReply *)) ||
                        !reader_take(r, (size_t) n * (sizeof(redisReply) + sizeof(redisReply *)))) {
                r->text = "an answer that is too large";
                return NULL;
        }
        return r->makers->createArray(task, n);
}

static int reader_renew(RedisReader *r) {
        redisReader *parser = redisReaderCreate();

        if (!parser)
                return -ENOMEM;
        if (r->parser)
                redisReaderFree(r->parser);
        r->parser = parser;
        r->makers = parser->fn;
        r->bounded = *parser->fn;
        r->bounded.createString = make_string;
        r->bounded.createArray = make_array;
        parser->fn = &r->bounded;
        parser->privdata = r;
        r->room = REPLY_MAX_BYTES;
        return 0;
}

RedisReader *redis_reader_new(void) {
        RedisReader *r = calloc(1, sizeof(*r));

        if (!r)
                return NULL;
        if (reader_renew(r) < 0)
                return redis_reader_free(r);
        return r;
}

RedisReader *redis_reader_free(RedisReader *r) {
        if (!r)
                return NULL;
        if (r->parser)
                redisReaderFree(r->parser);
        free(r);
        return NULL;
}

static int reader_error(RedisReader *r) {
        if (!r->text && r->parser->err == REDIS_ERR_OOM)
                return -ENOMEM;
        if (!r->text)
                r->text = r->parser->errstr;
        return -EBADMSG;
}

int redis_reader_feed(RedisReader *r, const char *data, size_t size) {
        size_t skipped = MIN(r->skip, (uint64_t) size);

        r->skip -= skipped;
        if (size == skipped)
                return 0;
        if (redisReaderFeed(r->parser, data + skipped, size - skipped) != REDIS_OK)
                return reader_error(r);
        return 0;
}

static const redisReadTask *reader_task(const RedisReader *r) {
        if (r->parser->ridx < 0)
                return NULL;
#if HIREDIS_MAJOR >= 1
        return r->parser->task[r->parser->ridx];
#else
        return &r->parser->rstack[r->parser->ridx];
#endif
}

/* The length of the string that has begun to come; @ret_digits: of how many bytes it is. Returns 1, 0 when
 * its line has not ended yet, or -EBADMSG. */
static int string_length(const RedisReader *r, uint64_t *ret, size_t *ret_digits) {
        const char *p = r->parser->buf + r->parser->pos;
        size_t n = r->parser->len - r->parser->pos, i = 0;

        /* So many digits do not overflow. */
        for (*ret = 0; i < n && i < LENGTH_DIGITS && p[i] >= '0' && p[i] <= '9'; i++)
                *ret = *ret * 10 + (uint64_t) (p[i] - '0');
        *ret_digits = i;
        if (i == n && i < LENGTH_DIGITS)
                return 0;
        /* "-1" is nil; when the line has ended hiredis sees to it. */
        if (n > 0 && p[0] == '-')
                return n <= LENGTH_DIGITS ? 0 : -EBADMSG;
        if (i == 0 || i == LENGTH_DIGITS || p[i] != '\r')
                return -EBADMSG;
        if (i + 1 == n)
                return 0;
        return p[i + 1] == '\n' ? 1 : -EBADMSG;
}

/* @length is that of a string of which something is there, and what is there is to be dropped. */
static int reader_skip(RedisReader *r, uint64_t length, size_t digits) {
        uint64_t whole = digits + LINE_END + length + LINE_END;
        int k;

        /* The parser waits, so it is not whole. */
        r->skip = whole - (r->parser->len - r->parser->pos);
        k = reader_renew(r);
        return k < 0 ? k : REDIS_READER_TOO_LARGE;
}

static int reader_refuse(RedisReader *r, const char *text) {
        r->text = text;
        return -EBADMSG;
}

/* A string is not whole yet. */
static int reader_check_string(RedisReader *r) {
        size_t digits;
        uint64_t length;
        int k = string_length(r, &length, &digits);

        if (k < 0)
                return reader_refuse(r, "a length that is none");
        if (k == 0 || length <= MUSTER_STATE_VALUE_MAX)
                return 0;
        return r->parser->ridx == 0 ? reader_skip(r, length, digits)
                                    : reader_refuse(r, "an answer that is too large");
}

/* Nothing more can be made of what is there: is the rest to be waited for? */
static int reader_check(RedisReader *r) {
        const redisReadTask *task = reader_task(r);
        size_t there = r->parser->len - r->parser->pos;

        if (!task)
                return 0;
        if (task->type == REDIS_REPLY_STRING)
                return reader_check_string(r);
        return there > LINE_MAX_BYTES ? reader_refuse(r, "a line that does not end") : 0;
}

int redis_reader_next(RedisReader *r, redisReply **ret) {
        void *reply;

        if (redisReaderGetReply(r->parser, &reply) != REDIS_OK)
                return reader_error(r);
        if (!reply)
                return reader_check(r);
        r->room = REPLY_MAX_BYTES;
        *ret = reply;
        return REDIS_READER_REPLY;
}

const char *redis_reader_get_text(const RedisReader *r) {
        return r->text ? r->text : "";
}
