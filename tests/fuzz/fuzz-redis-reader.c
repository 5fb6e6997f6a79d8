/* SPDX-License-Identifier: MIT */
/* The answers of a Redis server, out of a stream that is cut in any way.
 *
 * The first byte decides how the stream is cut into reads. Beyond not crashing: the answers are the same
 * however it is cut, and so is whether it can go on. */

#include <stdlib.h>

#include "basic/macro.h"
#include "fuzz.h"
#include "state/redis-reader.h"

typedef struct Result {
        uint64_t digest; /* of all answers, in their order */
        size_t n;
        int error;
} Result;

static void mix(Result *r, uint64_t n) {
        r->digest = (r->digest ^ n) * UINT64_C(0x100000001B3);
}

static void take(Result *r, const redisReply *reply) {
        mix(r, (uint64_t) reply->type);
        switch (reply->type) {
        case REDIS_REPLY_INTEGER:
                mix(r, (uint64_t) reply->integer);
                break;
        case REDIS_REPLY_STRING:
        case REDIS_REPLY_STATUS:
        case REDIS_REPLY_ERROR:
                for (size_t i = 0; i < reply->len; i++)
                        mix(r, (unsigned char) reply->str[i]);
                break;
        case REDIS_REPLY_ARRAY:
                for (size_t i = 0; i < reply->elements; i++)
                        take(r, reply->element[i]);
                break;
        default:
                break;
        }
}

static int take_all(Result *r, RedisReader *reader) {
        for (;;) {
                redisReply *reply = NULL;
                int k = redis_reader_next(reader, &reply);

                if (k <= 0)
                        return k;
                r->n++;
                if (k == REDIS_READER_REPLY)
                        take(r, reply);
                freeReplyObject(reply);
        }
}

static Result run(const uint8_t *data, size_t size, size_t step) {
        RedisReader *reader = redis_reader_new();
        Result r = { 0 };

        for (size_t i = 0; i < size && r.error == 0; i += step) {
                r.error = redis_reader_feed(reader, (const char *) data + i, MIN(step, size - i));
                if (r.error == 0)
                        r.error = take_all(&r, reader);
        }
        if (r.error < 0 && !redis_reader_get_text(reader))
                abort();
        redis_reader_free(reader);
        return r;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
        Result whole, cut;

        if (size < 2)
                return 0;
        whole = run(data + 1, size - 1, size - 1);
        cut = run(data + 1, size - 1, (size_t) data[0] % 32 + 1);
        if (whole.digest != cut.digest || whole.n != cut.n || whole.error != cut.error)
                abort();
        return 0;
}
