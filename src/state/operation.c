/* SPDX-License-Identifier: MIT */
/* What an application asks of a store; the contract is in muster/state.h. */

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "basic/assert-return.h"
#include "basic/clock.h"
#include "basic/options.h"
#include "state/store.h"

#define TTL_MAX_USEC (UINT64_C(100) * 366 * 86400 * USEC_PER_SEC)

/* What a result is made from, for muster_state_result_get_version(). */
typedef struct Answer {
        muster_state_result result;
        muster_state *state;
        const Operation *operation;
        const StateOutcome *outcome;
} Answer;

static StateBytes bytes(const void *data, ssize_t size) {
        return (StateBytes){ data, size < 0 && data ? strlen(data) : (size_t) size };
}

static int check_key(StateBytes key) {
        if (!key.data || key.size == 0)
                return -EINVAL;
        return key.size <= MUSTER_STATE_KEY_MAX ? 0 : -EMSGSIZE;
}

/* The stores count in milliseconds. */
static uint64_t round_ttl(uint64_t usec) {
        return (usec + USEC_PER_MSEC - 1) / USEC_PER_MSEC * USEC_PER_MSEC;
}

static void on_end(muster_state *s, Operation *o, const StateOutcome *outcome) {
        Answer a = {
                .result = { .error = outcome->error },
                .state = s,
                .operation = o,
                .outcome = outcome,
        };

        if (!o->handler)
                return;
        if (outcome->error == 0) {
                a.result.value = outcome->value.data;
                a.result.value_size = outcome->value.size;
                a.result.number = outcome->number;
                a.result.keys = (const muster_state_key *) outcome->keys;
                a.result.n_keys = outcome->n_keys;
                a.result.cursor = outcome->cursor.size > 0 ? outcome->cursor.data : NULL;
                a.result.cursor_size = outcome->cursor.size;
        }
        o->handler(s, &a.result, o->userdata);
}

static_assert(sizeof(StateBytes) == sizeof(muster_state_key) &&
                                offsetof(StateBytes, size) == offsetof(muster_state_key, size),
                "A page of keys is handed on as it is");

_public_ uint64_t muster_state_result_get_version(const muster_state_result *result) {
        const Answer *a;

        muster_assert_return(result, 0);
        a = CONTAINER_OF(result, Answer, result);
        if (result->error < 0)
                return 0;
        if (a->outcome->version > 0 || !a->state->driver->version)
                return a->outcome->version;
        if (a->operation->op.verb == STATE_GET)
                return a->state->driver->version(a->state->driver_data, a->outcome->value);
        if (a->operation->op.verb == STATE_SET)
                return a->state->driver->version(a->state->driver_data, a->operation->op.value);
        return 0;
}

/* NULL, with the error in *ret_error, when the limits or the memory do not allow one more. */
static Operation *begin(muster_state *s, StateVerb verb, StateBytes key, StateBytes value, StateBytes cursor,
                int *ret_error) {
        Operation *o;

        if (s->is_closed) {
                *ret_error = -ECANCELED;
                return NULL;
        }
        if (!store_has_room(s, value.size)) {
                *ret_error = -ENOBUFS;
                return NULL;
        }
        o = operation_new(verb, key, value, cursor);
        if (!o)
                *ret_error = -ENOMEM;
        return o;
}

static int submit(muster_state *s, Operation *o, muster_state_handler_t handler, void *userdata) {
        o->on_end = on_end;
        o->handler = handler;
        o->userdata = userdata;
        return store_submit(s, o);
}

_public_ int muster_state_get(muster_state *s, const void *key, ssize_t key_size,
                muster_state_handler_t handler, void *userdata) {
        StateBytes k = bytes(key, key_size);
        Operation *o;
        int r;

        muster_assert_return(s, -EINVAL);
        r = check_key(k);
        if (r < 0)
                return r;
        o = begin(s, STATE_GET, k, (StateBytes){ 0 }, (StateBytes){ 0 }, &r);
        return o ? submit(s, o, handler, userdata) : r;
}

static int check_set_options(const muster_state_set_options *o) {
        return o->ttl_usec <= TTL_MAX_USEC && !(o->if_absent && o->if_version > 0) ? 0 : -EINVAL;
}

_public_ int muster_state_set(muster_state *s, const void *key, ssize_t key_size, const void *value,
                size_t value_size, const muster_state_set_options *options, muster_state_handler_t handler,
                void *userdata) {
        muster_state_set_options so = MUSTER_STATE_SET_INIT;
        StateBytes k = bytes(key, key_size);
        Operation *o;
        int r;

        muster_assert_return(s && (value || value_size == 0), -EINVAL);
        r = check_key(k);
        if (r >= 0 && options)
                r = options_copy(&so, sizeof(so), options,
                                OPTIONS_SIZE_UP_TO(muster_state_set_options, if_version));
        if (r >= 0)
                r = check_set_options(&so);
        if (r >= 0 && value_size > MUSTER_STATE_VALUE_MAX)
                r = -EMSGSIZE;
        if (r < 0)
                return r;
        o = begin(s, STATE_SET, k, (StateBytes){ value, value_size }, (StateBytes){ 0 }, &r);
        if (!o)
                return r;
        o->op.ttl_usec = round_ttl(so.ttl_usec);
        o->op.if_absent = so.if_absent;
        o->op.if_version = so.if_version;
        return submit(s, o, handler, userdata);
}

_public_ int muster_state_delete(muster_state *s, const void *key, ssize_t key_size, uint64_t if_version,
                muster_state_handler_t handler, void *userdata) {
        StateBytes k = bytes(key, key_size);
        Operation *o;
        int r;

        muster_assert_return(s, -EINVAL);
        r = check_key(k);
        if (r < 0)
                return r;
        o = begin(s, STATE_DELETE, k, (StateBytes){ 0 }, (StateBytes){ 0 }, &r);
        if (!o)
                return r;
        o->op.if_version = if_version;
        return submit(s, o, handler, userdata);
}

_public_ int muster_state_add(muster_state *s, const void *key, ssize_t key_size, int64_t difference,
                uint64_t ttl_usec, muster_state_handler_t handler, void *userdata) {
        StateBytes k = bytes(key, key_size);
        Operation *o;
        int r;

        muster_assert_return(s && ttl_usec <= TTL_MAX_USEC, -EINVAL);
        r = check_key(k);
        if (r < 0)
                return r;
        o = begin(s, STATE_ADD, k, (StateBytes){ 0 }, (StateBytes){ 0 }, &r);
        if (!o)
                return r;
        o->op.difference = difference;
        o->op.ttl_usec = round_ttl(ttl_usec);
        return submit(s, o, handler, userdata);
}

#define PAGE_DEFAULT 100

_public_ int muster_state_scan(muster_state *s, const void *prefix, ssize_t prefix_size, const void *cursor,
                size_t cursor_size, unsigned limit, muster_state_handler_t handler, void *userdata) {
        StateBytes p = bytes(prefix, prefix_size);
        Operation *o;
        int r = 0;

        muster_assert_return(s && limit <= MUSTER_STATE_PAGE_MAX, -EINVAL);
        muster_assert_return((prefix || prefix_size <= 0) && (cursor ? cursor_size > 0 : cursor_size == 0),
                        -EINVAL);
        if (!prefix)
                p = (StateBytes){ "", 0 };
        if (p.size > MUSTER_STATE_KEY_MAX)
                return -EMSGSIZE;
        if (cursor_size > MUSTER_STATE_KEY_MAX)
                return -EINVAL;
        o = begin(s, STATE_SCAN, p, (StateBytes){ 0 }, (StateBytes){ cursor, cursor_size }, &r);
        if (!o)
                return r;
        o->op.limit = limit > 0 ? limit : PAGE_DEFAULT;
        return submit(s, o, handler, userdata);
}

_public_ int muster_state_publish(muster_state *s, const void *channel, ssize_t channel_size,
                const void *data, size_t size, muster_state_handler_t handler, void *userdata) {
        StateBytes c = bytes(channel, channel_size);
        Operation *o;
        int r;

        muster_assert_return(s && (data || size == 0), -EINVAL);
        r = check_key(c);
        if (r >= 0 && size > MUSTER_STATE_MESSAGE_MAX)
                r = -EMSGSIZE;
        if (r < 0)
                return r;
        o = begin(s, STATE_PUBLISH, c, (StateBytes){ data, size }, (StateBytes){ 0 }, &r);
        return o ? submit(s, o, handler, userdata) : r;
}
