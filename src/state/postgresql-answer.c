/* SPDX-License-Identifier: MIT */
/* What the answers of the server mean; see postgresql-answer.h. */

#include "state/postgresql-answer.h"

#include <endian.h>
#include <errno.h>
#include <libpq-fe.h>
#include <stdlib.h>
#include <string.h>

#include "basic/macro.h"
#include "muster/state.h"

static bool get_number(const PGresult *result, int column, int64_t *ret) {
        uint64_t number;

        if (column >= PQnfields(result) || PQgetlength(result, 0, column) != sizeof(number))
                return false;
        memcpy(&number, PQgetvalue(result, 0, column), sizeof(number));
        *ret = (int64_t) be64toh(number);
        return true;
}

/* Returns 0 or -EBADMSG. */
static int read_version(StateOutcome *o, const PGresult *result, int column) {
        int64_t version;

        if (!get_number(result, column, &version) || version <= 0)
                return -EBADMSG;
        o->version = (uint64_t) version;
        return 0;
}

/* An absent row, or one that does not fit what was asked for, is no row of the result. */
static int error_without_row(const StateOperation *op) {
        switch (op->verb) {
        case STATE_GET:
                return -ENOENT;
        case STATE_SET:
                return op->if_version > 0 ? -ESTALE : op->if_absent ? -EEXIST : -EBADMSG;
        case STATE_DELETE:
                return op->if_version > 0 ? -ESTALE : -ENOENT;
        case STATE_RENEW:
        case STATE_RELEASE:
                return -ESTALE;
        default:
                return -EBADMSG;
        }
}

static int read_get(StateOutcome *o, const PGresult *result) {
        int size = PQgetlength(result, 0, 0);

        if (PQnfields(result) != 2 || size > MUSTER_STATE_VALUE_MAX)
                return -EBADMSG;
        o->value = (StateBytes){ PQgetvalue(result, 0, 0), (size_t) size };
        return read_version(o, result, 1);
}

static int read_add(StateOutcome *o, const PGresult *result) {
        uint16_t outcome;

        if (PQnfields(result) != 2 || PQgetlength(result, 0, 0) != sizeof(outcome))
                return -EBADMSG;
        memcpy(&outcome, PQgetvalue(result, 0, 0), sizeof(outcome));
        switch (be16toh(outcome)) {
        case 0:
                return get_number(result, 1, &o->number) ? 0 : -EBADMSG;
        case 1:
                return -EDOM;
        default:
                return -ERANGE;
        }
}

static int read_acquire(StateOutcome *o, const PGresult *result) {
        int64_t fence, remaining;

        if (PQnfields(result) != 3 || PQgetlength(result, 0, 0) != 1 || !get_number(result, 1, &fence) ||
                        !get_number(result, 2, &remaining))
                return -EBADMSG;
        if (*PQgetvalue(result, 0, 0)) {
                o->fence = (uint64_t) fence;
                return 0;
        }
        o->remaining_usec = remaining > 0 ? (uint64_t) remaining : 0;
        return -EEXIST;
}

static int read_scan(PostgresqlAnswer *a, const StateOperation *op, const PGresult *result) {
        size_t n_rows = (size_t) PQntuples(result), n = MIN(n_rows, (size_t) op->limit);

        if (PQnfields(result) != 1)
                return -EBADMSG;
        a->keys = calloc(n + 1, sizeof(*a->keys));
        if (!a->keys)
                return -ENOMEM;
        for (size_t i = 0; i < n; i++) {
                a->keys[i] = (StateBytes){ PQgetvalue(result, (int) i, 0),
                        (size_t) PQgetlength(result, (int) i, 0) };
                if (a->keys[i].size > MUSTER_STATE_KEY_MAX)
                        return -EBADMSG;
        }
        a->outcome.keys = a->keys;
        a->outcome.n_keys = n;
        if (n_rows > n && n > 0)
                a->outcome.cursor = a->keys[n - 1];
        return 0;
}

static int read_answer(PostgresqlAnswer *a, const StateOperation *op, const PGresult *result) {
        if (op->verb == STATE_SCAN)
                return read_scan(a, op, result);
        if (PQntuples(result) == 0)
                return error_without_row(op);
        if (PQntuples(result) != 1)
                return -EBADMSG;
        switch (op->verb) {
        case STATE_GET:
                return read_get(&a->outcome, result);
        case STATE_SET:
                return read_version(&a->outcome, result, 0);
        case STATE_ADD:
                return read_add(&a->outcome, result);
        case STATE_ACQUIRE:
                return read_acquire(&a->outcome, result);
        default:
                return 0;
        }
}

void postgresql_answer_read(PostgresqlAnswer *a, const StateOperation *op, const PGresult *result) {
        *a = (PostgresqlAnswer){ 0 };
        a->outcome.error = read_answer(a, op, result);
}

void postgresql_answer_done(PostgresqlAnswer *a) {
        free(a->keys);
}
