/* SPDX-License-Identifier: MIT */
/* What is kept; see lmdb-data.h.
 *
 * A value has a head: its version, which no other value of the store ever has, and when it ends, by
 * CLOCK_REALTIME in milliseconds, as it may outlive the boot. Those that end are listed by their ends as
 * well, so that each transaction can delete a few of them without looking for them. One that has ended and
 * is still there counts as not there.
 *
 * The end of a lease is by CLOCK_BOOTTIME, which nobody sets; one of another boot has ended. A lease stays
 * when it is given back, for its number must never be given twice. Nor must it be after a crash that has
 * undone the latest transactions, so that it is no lower than the time. */

#include "state/lmdb-data.h"

#include <endian.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <systemd/sd-id128.h>

#include "basic/clock.h"
#include "basic/macro.h"
#include "muster/state.h"

/* Of those whose end has come, so many are deleted by a transaction, and two for each of its operations:
 * more than it can add. */
#define EXPIRE_MIN 32

/* A transaction has fewer operations than that. */
#define NUMBERS_PER_TRANSACTION 4096

typedef struct ValueHead {
        uint64_t version;
        uint64_t end_msec; /* 0: never */
} ValueHead;

typedef struct Lease {
        uint8_t owner[STATE_OWNER_SIZE];
        uint8_t boot[16];
        uint64_t fence;
        uint64_t end_usec; /* 0: it was given back */
} Lease;

static MDB_val to_val(StateBytes b) {
        return (MDB_val){ .mv_size = b.size, .mv_data = (void *) b.data };
}

int lmdb_error(int r) {
        switch (r) {
        case 0:
                return 0;
        case MDB_NOTFOUND:
                return -ENOENT;
        case MDB_MAP_FULL:
        case MDB_DBS_FULL:
        case MDB_READERS_FULL:
        case ENOSPC:
        case EDQUOT:
        case EFBIG:
                return -ENOSPC;
        case ENOMEM:
                return -ENOMEM;
        case EACCES:
        case EPERM:
        case EROFS:
                return -EACCES;
        case MDB_CORRUPTED:
        case MDB_PAGE_NOTFOUND:
        case MDB_INVALID:
        case MDB_VERSION_MISMATCH:
        case MDB_INCOMPATIBLE:
                return -EBADMSG;
        case MDB_BAD_VALSIZE:
                return -EINVAL;
        default:
                return -EIO;
        }
}

void lmdb_answer_done(LmdbAnswer *a) {
        free(a->memory);
        *a = (LmdbAnswer){ 0 };
}

static int open_databases(LmdbData *d, MDB_env *env, unsigned txn_flags, unsigned flags) {
        MDB_txn *txn;
        int r;

        r = mdb_txn_begin(env, NULL, txn_flags, &txn);
        if (r != 0)
                return r;
        r = mdb_dbi_open(txn, "values", flags, &d->values);
        if (r == 0)
                r = mdb_dbi_open(txn, "ends", flags | MDB_DUPSORT, &d->ends);
        if (r == 0)
                r = mdb_dbi_open(txn, "leases", flags, &d->leases);
        if (r == 0)
                return mdb_txn_commit(txn);
        mdb_txn_abort(txn);
        return r;
}

/* Only the very first has to wait for the lock of those who write, which may be with a process that stands
 * still. */
int lmdb_data_open(LmdbData *d, MDB_env *env) {
        sd_id128_t boot;
        int r;

        if (sd_id128_get_boot(&boot) < 0)
                boot = (sd_id128_t){ 0 };
        memcpy(d->boot, boot.bytes, sizeof(d->boot));
        r = open_databases(d, env, MDB_RDONLY, 0);
        return r == MDB_NOTFOUND ? open_databases(d, env, 0, MDB_CREATE) : r;
}

/*
 * Values
 */

typedef struct Found {
        ValueHead head;
        StateBytes value;
        bool exists; /* it may have ended */
        bool counts;
} Found;

/* Returns 0 also when there is none. */
static int find(const LmdbData *d, MDB_txn *txn, StateBytes key, uint64_t now_msec, Found *ret) {
        MDB_val k = to_val(key), v;
        int r;

        *ret = (Found){ 0 };
        r = mdb_get(txn, d->values, &k, &v);
        if (r == MDB_NOTFOUND)
                return 0;
        if (r == 0 && v.mv_size < sizeof(ValueHead))
                r = MDB_CORRUPTED;
        if (r != 0)
                return r;
        memcpy(&ret->head, v.mv_data, sizeof(ret->head));
        ret->value = (StateBytes){ (char *) v.mv_data + sizeof(ValueHead), v.mv_size - sizeof(ValueHead) };
        ret->exists = true;
        ret->counts = ret->head.end_msec == 0 || ret->head.end_msec > now_msec;
        return 0;
}

/* In the order of their bytes: the highest comes first. */
static uint64_t end_key(uint64_t end_msec) {
        return htobe64(end_msec);
}

static int list_end(const LmdbData *d, MDB_txn *txn, StateBytes key, uint64_t end_msec, bool add) {
        uint64_t end = end_key(end_msec);
        MDB_val k = { .mv_size = sizeof(end), .mv_data = &end }, v = to_val(key);
        int r;

        if (end_msec == 0)
                return 0;
        r = add ? mdb_put(txn, d->ends, &k, &v, MDB_NODUPDATA) : mdb_del(txn, d->ends, &k, &v);
        return r == MDB_KEYEXIST || r == MDB_NOTFOUND ? 0 : r;
}

/* In place of what was found there. */
static int put(const LmdbData *d, MDB_txn *txn, StateBytes key, const Found *old, const ValueHead *head,
                StateBytes value) {
        MDB_val k = to_val(key), v = { .mv_size = sizeof(*head) + value.size };
        int r = 0;

        if (old->exists && old->head.end_msec != head->end_msec)
                r = list_end(d, txn, key, old->head.end_msec, false);
        if (r == 0)
                r = mdb_put(txn, d->values, &k, &v, MDB_RESERVE);
        if (r != 0)
                return r;
        memcpy(v.mv_data, head, sizeof(*head));
        if (value.size > 0)
                memcpy((char *) v.mv_data + sizeof(*head), value.data, value.size);
        if (old->exists && old->head.end_msec == head->end_msec)
                return 0;
        return list_end(d, txn, key, head->end_msec, true);
}

static int drop(const LmdbData *d, MDB_txn *txn, StateBytes key, const Found *old) {
        MDB_val k = to_val(key);
        int r = list_end(d, txn, key, old->head.end_msec, false);

        return r == 0 ? mdb_del(txn, d->values, &k, NULL) : r;
}

static uint64_t new_version(MDB_txn *txn, unsigned number) {
        return (uint64_t) mdb_txn_id(txn) * NUMBERS_PER_TRANSACTION + number;
}

static uint64_t end_of(uint64_t ttl_usec, uint64_t now_msec) {
        return ttl_usec > 0 ? now_msec + ttl_usec / USEC_PER_MSEC : 0;
}

static int check_condition(const StateOperation *op, const Found *found) {
        if (op->if_absent && found->counts)
                return -EEXIST;
        if (op->if_version > 0 && (!found->counts || found->head.version != op->if_version))
                return -ESTALE;
        return 0;
}

static int set(const LmdbData *d, MDB_txn *txn, const StateOperation *op, unsigned number, uint64_t now_msec,
                StateOutcome *o) {
        const ValueHead head = { new_version(txn, number), end_of(op->ttl_usec, now_msec) };
        Found old;
        int r;

        r = find(d, txn, op->key, now_msec, &old);
        if (r != 0)
                return r;
        o->error = check_condition(op, &old);
        if (o->error < 0)
                return 0;
        o->version = head.version;
        return put(d, txn, op->key, &old, &head, op->value);
}

static int delete (const LmdbData *d, MDB_txn *txn, const StateOperation *op, uint64_t now_msec,
                StateOutcome *o) {
        Found old;
        int r;

        r = find(d, txn, op->key, now_msec, &old);
        if (r != 0)
                return r;
        o->error = check_condition(op, &old);
        if (o->error == 0 && !old.counts)
                o->error = -ENOENT;
        return o->error == 0 ? drop(d, txn, op->key, &old) : 0;
}

/* As Redis reads it: no sign but '-', no leading zeros, nothing else. */
static bool read_number(StateBytes value, int64_t *ret) {
        char text[24], again[24];
        char *end;

        if (value.size == 0 || value.size >= sizeof(text))
                return false;
        memcpy(text, value.data, value.size);
        text[value.size] = '\0';
        errno = 0;
        *ret = strtoll(text, &end, 10);
        snprintf(again, sizeof(again), "%" PRIi64, *ret);
        return errno == 0 && end == text + value.size && strcmp(text, again) == 0;
}

static int add(const LmdbData *d, MDB_txn *txn, const StateOperation *op, unsigned number, uint64_t now_msec,
                StateOutcome *o) {
        ValueHead head = { .version = new_version(txn, number) };
        int64_t n = 0;
        char text[24];
        Found old;
        int r;

        r = find(d, txn, op->key, now_msec, &old);
        if (r != 0)
                return r;
        if (old.counts && !read_number(old.value, &n))
                o->error = -EDOM;
        else if (__builtin_add_overflow(n, op->difference, &n))
                o->error = -ERANGE;
        if (o->error < 0)
                return 0;
        o->number = n;
        o->version = head.version;
        head.end_msec = old.counts ? old.head.end_msec : end_of(op->ttl_usec, now_msec);
        snprintf(text, sizeof(text), "%" PRIi64, n);
        return put(d, txn, op->key, &old, &head, (StateBytes){ text, strlen(text) });
}

static int get(const LmdbData *d, MDB_txn *txn, const StateOperation *op, uint64_t now_msec,
                StateOutcome *o) {
        Found found;
        int r;

        r = find(d, txn, op->key, now_msec, &found);
        if (r != 0)
                return r;
        if (!found.counts)
                o->error = -ENOENT;
        o->value = found.value;
        o->version = found.head.version;
        return 0;
}

int lmdb_data_expire(const LmdbData *d, MDB_txn *txn, unsigned n_operations, uint64_t now_msec) {
        MDB_cursor *cursor;
        MDB_val k, v;
        uint64_t end;
        Found found;
        int r;

        r = mdb_cursor_open(txn, d->ends, &cursor);
        if (r != 0)
                return r;
        for (unsigned i = 0; i < EXPIRE_MIN + 2 * n_operations; i++) {
                r = mdb_cursor_get(cursor, &k, &v, MDB_FIRST);
                if (r != 0 || k.mv_size != sizeof(end))
                        break;
                memcpy(&end, k.mv_data, sizeof(end));
                if (end_key(end) > now_msec)
                        break;
                r = find(d, txn, (StateBytes){ v.mv_data, v.mv_size }, now_msec, &found);
                if (r == 0 && found.exists && found.head.end_msec == end_key(end))
                        r = mdb_del(txn, d->values, &v, NULL);
                if (r == 0)
                        r = mdb_cursor_del(cursor, 0);
                if (r != 0)
                        break;
        }
        mdb_cursor_close(cursor);
        return r == MDB_NOTFOUND ? 0 : r;
}

/*
 * Pages of keys
 */

static bool has_prefix(const MDB_val *key, StateBytes prefix) {
        return key->mv_size >= prefix.size && memcmp(key->mv_data, prefix.data, prefix.size) == 0;
}

static int first_key(MDB_cursor *cursor, const StateOperation *op, MDB_val *k, MDB_val *v) {
        const MDB_val from = to_val(op->cursor.size > 0 ? op->cursor : op->key);
        int r;

        *k = from;
        r = from.mv_size > 0 ? mdb_cursor_get(cursor, k, v, MDB_SET_RANGE)
                             : mdb_cursor_get(cursor, k, v, MDB_FIRST);
        /* The page before ended with that one, if it is still there. */
        if (r == 0 && op->cursor.size > 0 && k->mv_size == from.mv_size &&
                        memcmp(k->mv_data, op->cursor.data, from.mv_size) == 0)
                r = mdb_cursor_get(cursor, k, v, MDB_NEXT);
        return r;
}

static bool has_ended(const MDB_val *v, uint64_t now_msec) {
        ValueHead head;

        if (v->mv_size < sizeof(head))
                return true;
        memcpy(&head, v->mv_data, sizeof(head));
        return head.end_msec > 0 && head.end_msec <= now_msec;
}

/* A page is an array of its keys, and behind it their bytes: those of the transaction may move. */
static int read_page(MDB_cursor *cursor, const StateOperation *op, uint64_t now_msec, StateBytes *keys,
                StateOutcome *o) {
        char *bytes = (char *) (keys + op->limit);
        MDB_val k, v;
        int r;

        for (r = first_key(cursor, op, &k, &v); r == 0 && has_prefix(&k, op->key);
                        r = mdb_cursor_get(cursor, &k, &v, MDB_NEXT)) {
                if (has_ended(&v, now_msec))
                        continue;
                if (o->n_keys == op->limit) {
                        o->cursor = keys[op->limit - 1];
                        break;
                }
                memcpy(bytes, k.mv_data, k.mv_size);
                keys[o->n_keys++] = (StateBytes){ bytes, k.mv_size };
                bytes += k.mv_size;
        }
        o->keys = keys;
        return r == MDB_NOTFOUND ? 0 : r;
}

static int scan(const LmdbData *d, MDB_txn *txn, const StateOperation *op, uint64_t now_msec,
                LmdbAnswer *a) {
        const MDB_val from = to_val(op->cursor);
        MDB_cursor *cursor;
        int r;

        if (from.mv_size > 0 && !has_prefix(&from, op->key)) {
                a->outcome.error = -EINVAL;
                return 0;
        }
        a->memory = malloc(op->limit * (sizeof(StateBytes) + MUSTER_STATE_KEY_MAX));
        if (!a->memory)
                return ENOMEM;
        r = mdb_cursor_open(txn, d->values, &cursor);
        if (r != 0)
                return r;
        r = read_page(cursor, op, now_msec, a->memory, &a->outcome);
        mdb_cursor_close(cursor);
        return r;
}

static int verify_database(MDB_txn *txn, MDB_dbi dbi, MDB_cursor **cursor) {
        MDB_val k, v;
        int r;

        r = mdb_cursor_open(txn, dbi, cursor);
        if (r != 0)
                return r;
        while ((r = mdb_cursor_get(*cursor, &k, &v, MDB_NEXT)) == 0)
                ;
        mdb_cursor_close(*cursor);
        *cursor = NULL;
        return r == MDB_NOTFOUND ? 0 : r;
}

int lmdb_data_verify(const LmdbData *d, MDB_txn *txn, MDB_cursor **cursor) {
        const MDB_dbi databases[] = { 0 /* the free pages */, d->values, d->ends, d->leases };
        int r = 0;

        *cursor = NULL;
        for (size_t i = 0; r == 0 && i < ELEMENTSOF(databases); i++)
                r = verify_database(txn, databases[i], cursor);
        return r;
}

/*
 * Leases
 */

static uint64_t boottime_usec(void) {
        struct timespec ts;

        clock_gettime(CLOCK_BOOTTIME, &ts);
        return (uint64_t) ts.tv_sec * USEC_PER_SEC + (uint64_t) ts.tv_nsec / NSEC_PER_USEC;
}

static bool lease_is_taken(const LmdbData *d, const Lease *l, uint64_t now) {
        return l->end_usec > now && memcmp(l->boot, d->boot, sizeof(l->boot)) == 0;
}

static void acquire(const LmdbData *d, const StateOperation *op, Lease *l, uint64_t now, uint64_t now_msec,
                StateOutcome *o) {
        bool taken = lease_is_taken(d, l, now);

        if (taken && memcmp(l->owner, op->owner, sizeof(l->owner)) != 0) {
                o->error = -EEXIST;
                o->remaining_usec = l->end_usec - now;
                return;
        }
        if (!taken)
                l->fence = MAX(l->fence + 1, now_msec);
        memcpy(l->owner, op->owner, sizeof(l->owner));
        memcpy(l->boot, d->boot, sizeof(l->boot));
        l->end_usec = now + op->ttl_usec;
        o->fence = l->fence;
}

static void renew_or_release(
                const LmdbData *d, const StateOperation *op, Lease *l, uint64_t now, StateOutcome *o) {
        if (!lease_is_taken(d, l, now) || l->fence != op->fence ||
                        memcmp(l->owner, op->owner, sizeof(l->owner)) != 0)
                o->error = -ESTALE;
        else
                l->end_usec = op->verb == STATE_RENEW ? now + op->ttl_usec : 0;
}

static int change_lease(const LmdbData *d, MDB_txn *txn, const StateOperation *op, uint64_t now_msec,
                StateOutcome *o) {
        MDB_val k = to_val(op->key), v;
        uint64_t now = boottime_usec();
        Lease l = { 0 };
        int r;

        r = mdb_get(txn, d->leases, &k, &v);
        if (r == 0 && v.mv_size != sizeof(l))
                r = MDB_CORRUPTED;
        if (r == 0)
                memcpy(&l, v.mv_data, sizeof(l));
        else if (r != MDB_NOTFOUND)
                return r;
        if (op->verb == STATE_ACQUIRE)
                acquire(d, op, &l, now, now_msec, o);
        else
                renew_or_release(d, op, &l, now, o);
        if (o->error < 0)
                return 0;
        v = (MDB_val){ .mv_size = sizeof(l), .mv_data = &l };
        return mdb_put(txn, d->leases, &k, &v, 0);
}

/*
 * Operations
 */

static int read_only(const LmdbData *d, MDB_txn *txn, const StateOperation *op, uint64_t now_msec,
                LmdbAnswer *a) {
        return op->verb == STATE_SCAN ? scan(d, txn, op, now_msec, a)
                                      : get(d, txn, op, now_msec, &a->outcome);
}

void lmdb_data_read(const LmdbData *d, MDB_txn *txn, const StateOperation *op, uint64_t now_msec,
                LmdbAnswer *a) {
        int r;

        *a = (LmdbAnswer){ 0 };
        r = read_only(d, txn, op, now_msec, a);
        if (r != 0)
                a->outcome = (StateOutcome){ .error = lmdb_error(r) };
}

/* What was read is not there any more when the transaction is over. */
static int keep_value(LmdbAnswer *a) {
        StateBytes *v = &a->outcome.value;

        if (v->size == 0)
                return 0;
        a->memory = malloc(v->size);
        if (!a->memory)
                return ENOMEM;
        v->data = memcpy(a->memory, v->data, v->size);
        return 0;
}

int lmdb_data_write(const LmdbData *d, MDB_txn *txn, const StateOperation *op, unsigned number,
                uint64_t now_msec, LmdbAnswer *a) {
        int r;

        *a = (LmdbAnswer){ 0 };
        switch (op->verb) {
        case STATE_SET:
                return set(d, txn, op, number, now_msec, &a->outcome);
        case STATE_DELETE:
                return delete (d, txn, op, now_msec, &a->outcome);
        case STATE_ADD:
                return add(d, txn, op, number, now_msec, &a->outcome);
        case STATE_ACQUIRE:
        case STATE_RENEW:
        case STATE_RELEASE:
                return change_lease(d, txn, op, now_msec, &a->outcome);
        case STATE_GET:
        case STATE_SCAN:
                r = read_only(d, txn, op, now_msec, a);
                return r == 0 && op->verb == STATE_GET ? keep_value(a) : r;
        default:
                a->outcome.error = -EOPNOTSUPP;
                return 0;
        }
}
