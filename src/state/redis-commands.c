/* SPDX-License-Identifier: MIT */
#include "state/redis-commands.h"

#include <errno.h>
#include <inttypes.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "basic/clock.h"
#include "basic/macro.h"
#include "basic/text.h"
#include "state/redis-scripts.h"

/* A cursor is 64 bits in decimal. */
#define CURSOR_DIGITS 20

/* Where a text of the server's begins to repeat the command, with what is nobody's business in it. */
#define ECHOED ", with args beginning with"

#define LITERAL(text) ((StateBytes){ .data = (text), .size = sizeof(text) - 1 })

static void add_word(RedisCommand *c, StateBytes word) {
        c->words[c->n++] = word;
}

/* Makes a word of @parts. The room is enough for all that is put there. */
static void add_joined(RedisCommand *c, const StateBytes *parts, size_t n) {
        char *begin = c->room + c->used;
        size_t size = 0;

        for (size_t i = 0; i < n; i++) {
                assert(parts[i].size <= sizeof(c->room) - c->used - size);
                if (parts[i].size > 0)
                        memcpy(begin + size, parts[i].data, parts[i].size);
                size += parts[i].size;
        }
        c->used += size;
        add_word(c, (StateBytes){ .data = begin, .size = size });
}

static _printf_(2, 3) void add_text(RedisCommand *c, const char *format, ...) {
        char *begin = c->room + c->used;
        size_t room = sizeof(c->room) - c->used;
        va_list ap;
        int n;

        va_start(ap, format);
        n = vsnprintf(begin, room, format, ap);
        va_end(ap);
        assert(n >= 0 && (size_t) n < room);
        c->used += (size_t) n;
        add_word(c, (StateBytes){ .data = begin, .size = (size_t) n });
}

static void add_milliseconds(RedisCommand *c, uint64_t usec) {
        add_text(c, "%" PRIu64, usec / USEC_PER_MSEC);
}

static void add_version(RedisCommand *c, uint64_t version) {
        add_text(c, "%016" PRIx64, version);
}

static void add_key_of_lease(RedisCommand *c, StateBytes prefix, StateBytes name) {
        add_joined(c, (const StateBytes[]){ prefix, name }, 2);
}

/* "OWNER", or "OWNER:FENCE" */
static void add_owner(RedisCommand *c, const StateOperation *op, bool with_fence) {
        char text[2 * STATE_OWNER_SIZE + 1 + 20 + 1];
        size_t n = 0;

        for (size_t i = 0; i < STATE_OWNER_SIZE; i++)
                n += (size_t) sprintf(text + n, "%02x", op->owner[i]);
        if (with_fence)
                n += (size_t) sprintf(text + n, ":%" PRIu64, op->fence);
        add_joined(c, &(StateBytes){ .data = text, .size = n }, 1);
}

static void add_script(RedisCommand *c, StateBytes script, const char *n_keys) {
        add_word(c, LITERAL("EVAL"));
        add_word(c, script);
        add_word(c, (StateBytes){ .data = n_keys, .size = 1 });
}

static void build_set(RedisCommand *c, const StateOperation *op) {
        if (op->if_version != 0) {
                add_script(c, LITERAL(REDIS_SCRIPT_SET), "1");
                add_word(c, op->key);
                add_version(c, op->if_version);
                add_word(c, op->value);
        } else {
                add_word(c, LITERAL("SET"));
                add_word(c, op->key);
                add_word(c, op->value);
                if (op->if_absent)
                        add_word(c, LITERAL("NX"));
                if (op->ttl_usec != 0)
                        add_word(c, LITERAL("PX"));
        }
        if (op->ttl_usec != 0)
                add_milliseconds(c, op->ttl_usec);
}

static void build_delete(RedisCommand *c, const StateOperation *op) {
        if (op->if_version != 0)
                add_script(c, LITERAL(REDIS_SCRIPT_DELETE), "1");
        else
                add_word(c, LITERAL("DEL"));
        add_word(c, op->key);
        if (op->if_version != 0)
                add_version(c, op->if_version);
}

static void build_add(RedisCommand *c, const StateOperation *op) {
        if (op->ttl_usec != 0)
                add_script(c, LITERAL(REDIS_SCRIPT_ADD), "1");
        else
                add_word(c, LITERAL("INCRBY"));
        add_word(c, op->key);
        add_text(c, "%" PRId64, op->difference);
        if (op->ttl_usec != 0)
                add_milliseconds(c, op->ttl_usec);
}

/* The prefix with nothing special in it, and behind it anything. */
static void add_pattern(RedisCommand *c, StateBytes prefix) {
        const char *p = prefix.data;
        char *begin = c->room + c->used, *to = begin;

        assert(2 * prefix.size + 1 <= sizeof(c->room) - c->used);
        for (size_t i = 0; i < prefix.size; i++) {
                if (p[i] == '*' || p[i] == '?' || p[i] == '[' || p[i] == ']' || p[i] == '\\')
                        *to++ = '\\';
                *to++ = p[i];
        }
        *to++ = '*';
        c->used += (size_t) (to - begin);
        add_word(c, (StateBytes){ .data = begin, .size = (size_t) (to - begin) });
}

static bool is_cursor(StateBytes cursor) {
        const char *p = cursor.data;

        for (size_t i = 0; i < cursor.size; i++)
                if (p[i] < '0' || p[i] > '9')
                        return false;
        return cursor.size > 0 && cursor.size <= CURSOR_DIGITS;
}

static int build_scan(RedisCommand *c, const StateOperation *op) {
        if (op->cursor.size > 0 && !is_cursor(op->cursor))
                return -EINVAL;
        add_word(c, LITERAL("SCAN"));
        add_word(c, op->cursor.size > 0 ? op->cursor : LITERAL("0"));
        add_word(c, LITERAL("COUNT"));
        add_text(c, "%u", op->limit);
        if (op->key.size > 0) {
                add_word(c, LITERAL("MATCH"));
                add_pattern(c, op->key);
        }
        return 0;
}

static void build_acquire(RedisCommand *c, const StateOperation *op) {
        add_script(c, LITERAL(REDIS_SCRIPT_ACQUIRE), "2");
        add_key_of_lease(c, LITERAL(REDIS_LEASE_PREFIX), op->key);
        add_key_of_lease(c, LITERAL(REDIS_FENCE_PREFIX), op->key);
        add_owner(c, op, false);
        add_milliseconds(c, op->ttl_usec);
}

static void build_held(RedisCommand *c, const StateOperation *op) {
        if (op->verb == STATE_RENEW)
                add_script(c, LITERAL(REDIS_SCRIPT_RENEW), "1");
        else
                add_script(c, LITERAL(REDIS_SCRIPT_RELEASE), "1");
        add_key_of_lease(c, LITERAL(REDIS_LEASE_PREFIX), op->key);
        add_owner(c, op, true);
        if (op->verb == STATE_RENEW)
                add_milliseconds(c, op->ttl_usec);
}

int redis_command_build(RedisCommand *c, const StateOperation *op) {
        c->n = c->used = 0;
        switch (op->verb) {
        case STATE_GET:
                add_word(c, LITERAL("GET"));
                add_word(c, op->key);
                return 0;
        case STATE_SET:
                build_set(c, op);
                return 0;
        case STATE_DELETE:
                build_delete(c, op);
                return 0;
        case STATE_ADD:
                build_add(c, op);
                return 0;
        case STATE_SCAN:
                return build_scan(c, op);
        case STATE_PUBLISH:
                add_word(c, LITERAL("PUBLISH"));
                add_word(c, op->key);
                add_word(c, op->value);
                return 0;
        case STATE_ACQUIRE:
                build_acquire(c, op);
                return 0;
        case STATE_RENEW:
        case STATE_RELEASE:
                build_held(c, op);
                return 0;
        default:
                return -EOPNOTSUPP;
        }
}

/* The first words of errors. What a server has refused it has not done. */
static const struct {
        const char *begin;
        int error;
} errors[] = {
        { "WRONGTYPE ", -EDOM },
        { "ERR value is not an integer", -EDOM },
        { "ERR increment or decrement would overflow", -ERANGE },
        { "ERR invalid cursor", -EINVAL },
        { "OOM ", -ENOSPC },
        { "NOAUTH ", -EACCES },
        { "WRONGPASS ", -EACCES },
        { "NOPERM ", -EACCES },
        { "DENIED ", -EACCES },
        { "ERR max number of clients reached", -ENOTCONN },
        { "LOADING ", -ENOTCONN },
        { "MASTERDOWN ", -ENOTCONN },
        { "MOVED ", -EOPNOTSUPP },
        { "ASK ", -EOPNOTSUPP },
        { "CROSSSLOT ", -EOPNOTSUPP },
        { "ERR unknown command", -EOPNOTSUPP },
};

static int error_of_text(const char *text) {
        for (size_t i = 0; i < ELEMENTSOF(errors); i++)
                if (strncmp(text, errors[i].begin, strlen(errors[i].begin)) == 0)
                        return errors[i].error;
        /* "MISCONF …": why it cannot write to its disk is told in the middle. */
        if (strstr(text, "No space left on device"))
                return -ENOSPC;
        /* Of a command within a script, in words that differ between versions. */
        if (strstr(text, "ACL failure in script") ||
                        strstr(text, "executing the script can't run this command"))
                return -EACCES;
        return -EIO;
}

int redis_error_read(const redisReply *reply, char text[static STATE_TEXT_MAX]) {
        char *echoed;

        snprintf(text, STATE_TEXT_MAX, "%s", reply->str);
        text_make_printable(text);
        echoed = strstr(text, ECHOED);
        if (echoed)
                *echoed = '\0';
        return error_of_text(reply->str);
}

static int expected(RedisAnswer *a, const redisReply *reply, const char *what) {
        static const char *const types[] = {
                [REDIS_REPLY_STRING] = "a string",
                [REDIS_REPLY_ARRAY] = "an array",
                [REDIS_REPLY_INTEGER] = "an integer",
                [REDIS_REPLY_NIL] = "nil",
                [REDIS_REPLY_STATUS] = "a status",
        };
        size_t type = (size_t) reply->type;

        snprintf(a->text, sizeof(a->text), "found %s, expected %s",
                        type < ELEMENTSOF(types) && types[type] ? types[type] : "something else", what);
        return -EBADMSG;
}

/* Decimal, and nothing else. */
static bool read_number(const redisReply *reply, int64_t *ret) {
        char *end;
        long long n;

        if (reply->type != REDIS_REPLY_STRING || reply->len == 0 || reply->len > 20 ||
                        !(reply->str[0] == '-' || (reply->str[0] >= '0' && reply->str[0] <= '9')))
                return false;
        errno = 0;
        n = strtoll(reply->str, &end, 10);
        if (errno != 0 || end != reply->str + reply->len)
                return false;
        *ret = n;
        return true;
}

static int read_get(RedisAnswer *a, const redisReply *reply) {
        if (reply->type == REDIS_REPLY_NIL)
                a->outcome.error = -ENOENT;
        else if (reply->type == REDIS_REPLY_STRING)
                a->outcome.value = (StateBytes){ .data = reply->str, .size = reply->len };
        else
                return expected(a, reply, "a string");
        return 0;
}

static int read_set(RedisAnswer *a, const StateOperation *op, const redisReply *reply) {
        if (reply->type == REDIS_REPLY_NIL && op->if_version != 0)
                a->outcome.error = -ESTALE;
        else if (reply->type == REDIS_REPLY_NIL && op->if_absent)
                a->outcome.error = -EEXIST;
        else if (reply->type != REDIS_REPLY_STATUS)
                return expected(a, reply, "a status");
        return 0;
}

static int read_delete(RedisAnswer *a, const StateOperation *op, const redisReply *reply) {
        if (reply->type == REDIS_REPLY_NIL && op->if_version != 0)
                a->outcome.error = -ESTALE;
        else if (reply->type != REDIS_REPLY_INTEGER)
                return expected(a, reply, "an integer");
        else if (reply->integer == 0)
                a->outcome.error = -ENOENT;
        return 0;
}

static int read_add(RedisAnswer *a, const redisReply *reply) {
        if (reply->type == REDIS_REPLY_INTEGER)
                a->outcome.number = reply->integer;
        else if (!read_number(reply, &a->outcome.number))
                return expected(a, reply, "an integer");
        return 0;
}

static bool begins_with(StateBytes bytes, StateBytes with) {
        return bytes.size >= with.size && memcmp(bytes.data, with.data, with.size) == 0;
}

/* What another program has stored under a key that this interface has no name for is left out. */
static bool is_key(StateBytes key) {
        return key.size > 0 && key.size <= MUSTER_STATE_KEY_MAX &&
               !begins_with(key, LITERAL(REDIS_LEASE_PREFIX)) &&
               !begins_with(key, LITERAL(REDIS_FENCE_PREFIX));
}

static int read_keys(RedisAnswer *a, const redisReply *list) {
        size_t n = 0;

        a->keys = list->elements > 0 ? calloc(list->elements, sizeof(*a->keys)) : NULL;
        if (list->elements > 0 && !a->keys) {
                a->outcome.error = -ENOMEM;
                return 0;
        }
        for (size_t i = 0; i < list->elements; i++) {
                const redisReply *key = list->element[i];

                if (key->type != REDIS_REPLY_STRING)
                        return expected(a, key, "a key");
                a->keys[n] = (StateBytes){ .data = key->str, .size = key->len };
                n += is_key(a->keys[n]);
        }
        a->outcome.keys = a->keys;
        a->outcome.n_keys = n;
        return 0;
}

static int read_scan(RedisAnswer *a, const redisReply *reply) {
        const redisReply *cursor;
        StateBytes bytes;

        if (reply->type != REDIS_REPLY_ARRAY || reply->elements != 2 ||
                        reply->element[1]->type != REDIS_REPLY_ARRAY)
                return expected(a, reply, "a cursor and an array");
        cursor = reply->element[0];
        bytes = (StateBytes){ .data = cursor->str, .size = cursor->len };
        if (cursor->type != REDIS_REPLY_STRING || !is_cursor(bytes))
                return expected(a, cursor, "a cursor");
        if (bytes.size != 1 || cursor->str[0] != '0')
                a->outcome.cursor = bytes;
        return read_keys(a, reply->element[1]);
}

static int read_acquire(RedisAnswer *a, const redisReply *reply) {
        int64_t fence;

        if (reply->type == REDIS_REPLY_INTEGER) {
                a->outcome.error = -EEXIST;
                if (reply->integer > 0 &&
                                (uint64_t) reply->integer <= MUSTER_LEASE_TTL_MAX_USEC / USEC_PER_MSEC)
                        a->outcome.remaining_usec = (uint64_t) reply->integer * USEC_PER_MSEC;
                return 0;
        }
        if (!read_number(reply, &fence) || fence <= 0)
                return expected(a, reply, "a fence");
        a->outcome.fence = (uint64_t) fence;
        return 0;
}

static int read_held(RedisAnswer *a, const redisReply *reply) {
        if (reply->type != REDIS_REPLY_INTEGER)
                return expected(a, reply, "an integer");
        if (reply->integer == 0)
                a->outcome.error = -ESTALE;
        return 0;
}

static int answer_error(RedisAnswer *a, const redisReply *reply) {
        int error = redis_error_read(reply, a->text);

        a->outcome.error = error;
        a->is_worth_a_complaint =
                        error == -EIO || error == -EACCES || error == -ENOSPC || error == -EOPNOTSUPP;
        return 0;
}

int redis_answer_read(RedisAnswer *a, const StateOperation *op, const redisReply *reply) {
        a->outcome = (StateOutcome){ 0 };
        a->keys = NULL;
        a->is_worth_a_complaint = false;
        if (!reply) {
                a->outcome.error = -EMSGSIZE;
                return 0;
        }
        if (reply->type == REDIS_REPLY_ERROR)
                return answer_error(a, reply);

        switch (op->verb) {
        case STATE_GET:
                return read_get(a, reply);
        case STATE_SET:
                return read_set(a, op, reply);
        case STATE_DELETE:
                return read_delete(a, op, reply);
        case STATE_ADD:
                return read_add(a, reply);
        case STATE_SCAN:
                return read_scan(a, reply);
        case STATE_ACQUIRE:
                return read_acquire(a, reply);
        case STATE_PUBLISH:
                return reply->type == REDIS_REPLY_INTEGER ? 0 : expected(a, reply, "an integer");
        default:
                return read_held(a, reply);
        }
}

uint64_t redis_value_version(StateBytes value) {
        unsigned char digest[EVP_MAX_MD_SIZE];
        uint64_t version = 0;

        /* When it fails the version is one that no value has, so that a write with it is refused. */
        if (EVP_Digest(value.data, value.size, digest, NULL, EVP_sha1(), NULL) != 1)
                return 1;
        for (size_t i = 0; i < sizeof(version); i++)
                version = version << 8 | digest[i];
        return version != 0 ? version : 1;
}
