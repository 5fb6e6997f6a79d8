/* SPDX-License-Identifier: MIT */
#pragma once

/* What has to be one step for the server and is no command of its own. Lua, in the words that every Redis
 * and Valkey since version 5 understands.
 *
 * They are sent whole each time: a server knows by the text what it has compiled already. Sending the digest
 * alone would save some 300 bytes, but a server that has forgotten a script would leave it undone, while
 * what was sent behind it is done; to send it again then changes the order.
 *
 * redis.pcall() hands an error on as it is, where redis.call() would wrap it. Numbers in Lua are exact up to
 * 2^53 only, so that numbers leave as text. */

/* A key, a version, a value, [milliseconds] → OK; nil: another version, or none. */
#define REDIS_SCRIPT_SET                                                                     \
        "local v = redis.pcall('GET', KEYS[1])\n"                                            \
        "if type(v) == 'table' then return v end\n"                                          \
        "if not v or string.sub(redis.sha1hex(v), 1, 16) ~= ARGV[1] then return false end\n" \
        "if ARGV[3] then return redis.pcall('SET', KEYS[1], ARGV[2], 'PX', ARGV[3]) end\n"   \
        "return redis.pcall('SET', KEYS[1], ARGV[2])"

/* A key, a version → 1; nil: another version, or none. */
#define REDIS_SCRIPT_DELETE                                                                  \
        "local v = redis.pcall('GET', KEYS[1])\n"                                            \
        "if type(v) == 'table' then return v end\n"                                          \
        "if not v or string.sub(redis.sha1hex(v), 1, 16) ~= ARGV[1] then return false end\n" \
        "return redis.pcall('DEL', KEYS[1])"

/* A key, a difference, milliseconds for a new key → the sum as text. */
#define REDIS_SCRIPT_ADD                                                        \
        "local r = redis.pcall('SET', KEYS[1], ARGV[1], 'PX', ARGV[2], 'NX')\n" \
        "if r then return r.err and r or ARGV[1] end\n"                         \
        "r = redis.pcall('INCRBY', KEYS[1], ARGV[1])\n"                         \
        "if type(r) == 'table' then return r end\n"                             \
        "return redis.pcall('GET', KEYS[1])"

/* A lease is a key with "OWNER:FENCE"; beside it the last fence stays for ever.
 *
 * The key of the lease, that of its fence, an owner, milliseconds → the fence as text; a number: somebody
 * else has it for so many milliseconds.
 *
 * A fence is the server's time in microseconds, or, if that is not higher, one more than the last. So it
 * goes up even where the last one was lost: with the server's memory, or because it was made after what the
 * replica that has taken over had seen. */
#define REDIS_SCRIPT_ACQUIRE                                                                                   \
        "local v = redis.pcall('GET', KEYS[1])\n"                                                              \
        "if type(v) == 'table' then return v end\n"                                                            \
        "if v and string.sub(v, 1, 33) ~= ARGV[1] .. ':' then return redis.pcall('PTTL', KEYS[1]) end\n"       \
        "if v then\n"                                                                                          \
        "  local r = redis.pcall('PEXPIRE', KEYS[1], ARGV[2])\n"                                               \
        "  if type(r) == 'table' then return r end\n"                                                          \
        "  return string.sub(v, 34)\n"                                                                         \
        "end\n"                                                                                                \
        "local last = redis.pcall('GET', KEYS[2])\n"                                                           \
        "if type(last) == 'table' then return last end\n"                                                      \
        "local now = redis.pcall('TIME')\n"                                                                    \
        "if now.err then return now end\n"                                                                     \
        "local f = math.max((tonumber(last) or 0) + 1, now[1] * 1000000 + now[2])\n"                           \
        "if not (f < 9007199254740992) then return redis.error_reply('ERR the last fence is no number') end\n" \
        "f = string.format('%.0f', f)\n"                                                                       \
        "local r = redis.pcall('SET', KEYS[2], f)\n"                                                           \
        "if r.err then return r end\n"                                                                         \
        "r = redis.pcall('SET', KEYS[1], ARGV[1] .. ':' .. f, 'PX', ARGV[2])\n"                                \
        "if r.err then return r end\n"                                                                         \
        "return f"

/* The key of a lease, "OWNER:FENCE", milliseconds → 1; 0: it is somebody else's, or nobody's. */
#define REDIS_SCRIPT_RENEW                          \
        "local v = redis.pcall('GET', KEYS[1])\n"   \
        "if type(v) == 'table' then return v end\n" \
        "if v ~= ARGV[1] then return 0 end\n"       \
        "return redis.pcall('PEXPIRE', KEYS[1], ARGV[2])"

/* The key of a lease, "OWNER:FENCE" → likewise. */
#define REDIS_SCRIPT_RELEASE                        \
        "local v = redis.pcall('GET', KEYS[1])\n"   \
        "if type(v) == 'table' then return v end\n" \
        "if v ~= ARGV[1] then return 0 end\n"       \
        "return redis.pcall('DEL', KEYS[1])"
