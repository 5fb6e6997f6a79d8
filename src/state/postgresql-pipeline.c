/* SPDX-License-Identifier: MIT */
/* What goes on in a connection to PostgreSQL that is ready; see postgresql.c. */

#include "state/postgresql-internal.h"

#include <errno.h>
#include <libpq-fe.h>
#include <openssl/ssl.h>
#include <stdlib.h>
#include <string.h>

#include "basic/macro.h"
#include "muster/state.h"
#include "state/postgresql-answer.h"
#include "state/postgresql-error.h"
#include "state/postgresql-statements.h"

/* So many writes later some rows that are over are deleted; sooner when there were as many as one statement
 * takes. In both cases more can be deleted than is written. */
#define WRITES_PER_SWEEP      32
#define WRITES_PER_FULL_SWEEP 4

void postgresql_pipeline_init(Postgresql *p) {
        list_init(&p->waiting);
        list_init(&p->sent);
        list_init(&p->requests);
        p->writes_until_sweep = WRITES_PER_SWEEP;
}

void postgresql_pipeline_free_requests(Postgresql *p) {
        list_foreach_safe (node, &p->requests)
                free(list_entry(node, Request, node));
        list_init(&p->requests);
}

/* Operations */

/* What is blocked is continued by the loop. Returns 0 or -EIO, when the connection is broken. */
static int send_waiting(Postgresql *p) {
        int r = 0;

        while (r >= 0 && !p->is_blocked && !list_empty(&p->waiting)) {
                List *node = p->waiting.next;

                r = postgresql_statement_send(p->conn, list_entry(node, StateOperation, driver_node));
                if (r >= 0)
                        r = postgresql_connection_flush(p);
                list_remove(node);
                list_append(&p->sent, node);
        }
        return r;
}

/* Whether libpq has read something that was not taken yet. */
static bool has_unread(Postgresql *p) {
        if (!p->notify)
                p->notify = PQnotifies(p->conn);
        return p->notify || (!list_empty(&p->sent) && !PQisBusy(p->conn));
}

/* An operation is in the queue: it is sent now if that can be done. No function of the host is called here,
 * so what went wrong is told of by the loop. */
static void push(Postgresql *p) {
        if (p->is_blocked || p->is_broken)
                return;
        p->is_broken = send_waiting(p) < 0;
        if (p->is_driving)
                return; /* postgresql_connection_drive() looks at all of this when it has called the host */
        if (!p->is_broken)
                p->is_broken = postgresql_connection_watch(p) < 0;
        if (p->is_broken || has_unread(p))
                (void) postgresql_connection_make_due(
                                p); /* no memory: the descriptor or the time-out will tell */
}

void postgresql_pipeline_push(Postgresql *p, StateOperation *op) {
        list_append(&p->waiting, &op->driver_node);
        push(p);
}

int postgresql_pipeline_push_request(Postgresql *p, int verb, const char *identifier, uint64_t serial) {
        Request *request = malloc(sizeof(*request));

        if (!request)
                return -ENOMEM;
        *request = (Request){ .op = { .verb = (StateVerb) verb }, .serial = serial };
        strcpy(request->identifier, identifier);
        request->op.key = (StateBytes){ request->identifier, strlen(request->identifier) };
        list_append(&p->requests, &request->node);
        postgresql_pipeline_push(p, &request->op);
        return 0;
}

/* A write more; without memory there will be another one. */
static void count_write(Postgresql *p) {
        if (--p->writes_until_sweep > 0)
                return;
        p->writes_until_sweep = WRITES_PER_SWEEP;
        (void) postgresql_pipeline_push_request(p, POSTGRESQL_SWEEP, "", 0);
}

/* A copy, because the host may end the subscription before it returns. */
static StateBytes copy_name(const PostgresqlChannel *c, uint8_t buf[static MUSTER_STATE_KEY_MAX]) {
        assert(c->size <= MUSTER_STATE_KEY_MAX);
        memcpy(buf, c->name, c->size);
        return (StateBytes){ buf, c->size };
}

static void end_listen(Postgresql *p, const Request *request, bool failed) {
        PostgresqlChannel *c = postgresql_channels_find(&p->channels, request->identifier);
        uint8_t name[MUSTER_STATE_KEY_MAX];

        if (!c || c->serial != request->serial)
                return;
        if (failed) {
                p->host->refused(p->store, copy_name(c, name));
                return;
        }
        c->is_listening = true;
        p->host->subscribed(p->store, copy_name(c, name));
}

static void end_request(Postgresql *p, Request *request, const PGresult *result, bool failed) {
        char text[STATE_TEXT_MAX];

        list_remove(&request->node);
        if ((int) request->op.verb == POSTGRESQL_LISTEN)
                end_listen(p, request, failed);
        if (failed) {
                postgresql_error_get_text(result, text);
                p->host->complain(p->store, text);
        } else if ((int) request->op.verb == POSTGRESQL_SWEEP && PQntuples(result) == POSTGRESQL_SWEEP_ROWS)
                p->writes_until_sweep = MIN(p->writes_until_sweep, (unsigned) WRITES_PER_FULL_SWEEP);
        free(request);
}

static bool is_write(const StateOperation *op) {
        return op->verb == STATE_SET || op->verb == STATE_DELETE || op->verb == STATE_ADD;
}

static void end_operation(Postgresql *p, StateOperation *op, const PGresult *result, bool failed) {
        char text[STATE_TEXT_MAX];
        PostgresqlAnswer answer = { 0 };
        int error;

        if (failed)
                answer.outcome.error =
                                postgresql_error_from_sqlstate(PQresultErrorField(result, PG_DIAG_SQLSTATE));
        else
                postgresql_answer_read(&answer, op, result);
        error = answer.outcome.error;
        if (is_write(op))
                count_write(p);
        p->host->finish(p->store, op, &answer.outcome);
        postgresql_answer_done(&answer);

        /* After it: the host may let go of all that has not ended. */
        if (failed && (error == -EIO || error == -EACCES || error == -ENOSPC)) {
                postgresql_error_get_text(result, text);
                p->host->complain(p->store, text);
        }
}

/* The sync of the first one is there, so it has ended. */
static void end_first(Postgresql *p) {
        PGresult *result = TAKE_PTR(p->result);
        StateOperation *op = list_entry(p->sent.next, StateOperation, driver_node);
        ExecStatusType status = PQresultStatus(result);
        bool failed = status != PGRES_TUPLES_OK && status != PGRES_COMMAND_OK;
        unsigned attempt = p->attempt;

        list_remove(&op->driver_node);
        if ((int) op->verb >= _STATE_VERB_MAX)
                end_request(p, CONTAINER_OF(op, Request, op), result, failed);
        else
                end_operation(p, op, result, failed);
        if (failed && p->attempt == attempt && postgresql_error_is_outdated(result))
                postgresql_connection_give_up(p, -ENOTCONN, "the table has changed, connecting anew");
        PQclear(result);
}

/* Takes @result over. It may be followed by an error, of the commit. */
static void keep_result(Postgresql *p, PGresult *result) {
        ExecStatusType status = PQresultStatus(result);
        bool is_error = status == PGRES_FATAL_ERROR;

        if (is_error && postgresql_error_is_fatal(result)) {
                postgresql_error_get_text(result, p->notice);
                postgresql_connection_give_up_broken(p);
                PQclear(result);
        } else if (!is_error && (p->result || (status != PGRES_TUPLES_OK && status != PGRES_COMMAND_OK))) {
                PQclear(result);
                postgresql_connection_give_up_out_of_step(p);
        } else {
                PQclear(p->result);
                p->result = result;
        }
}

/* Returns whether the connection is still the same. */
static bool take_results(Postgresql *p) {
        unsigned attempt = p->attempt;

        while (p->attempt == attempt && !list_empty(&p->sent) && !PQisBusy(p->conn)) {
                PGresult *result = PQgetResult(p->conn);
                bool is_sync = result && PQresultStatus(result) == PGRES_PIPELINE_SYNC;

                /* NULL ends the results of a statement; two of them, and nothing is under way. */
                p->n_empty = result ? 0 : p->n_empty + 1;
                if (is_sync)
                        PQclear(result);
                if (p->n_empty > 1 || (is_sync && !p->result))
                        postgresql_connection_give_up_out_of_step(p);
                else if (is_sync)
                        end_first(p);
                else if (result)
                        keep_result(p, result);
        }
        return p->attempt == attempt;
}

/* What makes no sense is dropped: anybody may NOTIFY. So is what comes before the subscription takes effect.
 */
static void take_notify(Postgresql *p, const PGnotify *notify) {
        PostgresqlChannel *c = postgresql_channels_find(&p->channels, notify->relname);
        uint8_t data[POSTGRESQL_MESSAGE_MAX], name[MUSTER_STATE_KEY_MAX];
        size_t size;

        if (!c || !c->is_listening || !postgresql_message_decode(notify->extra, data, &size))
                return;
        p->host->message(p->store, copy_name(c, name), (StateBytes){ data, size });
}

/* Likewise. */
static bool take_notifies(Postgresql *p) {
        unsigned attempt = p->attempt;

        while (p->attempt == attempt) {
                PGnotify *notify = p->notify ? TAKE_PTR(p->notify) : PQnotifies(p->conn);

                if (!notify)
                        break;
                take_notify(p, notify);
                PQfreemem(notify);
        }
        return p->attempt == attempt;
}

/* A record of TLS is read by one SSL_read() or two; the socket does not tell of the second half. */
static bool has_record(Postgresql *p) {
        SSL *ssl = PQsslInUse(p->conn) ? PQsslStruct(p->conn, "OpenSSL") : NULL;

        return ssl && SSL_pending(ssl) > 0;
}

/* Takes all that has come and sends what waits. */
void postgresql_pipeline_pump(Postgresql *p) {
        do {
                bool is_open = PQconsumeInput(p->conn);

                do {
                        /* Also when it is broken: what was answered before is known. */
                        if (!take_results(p) || !take_notifies(p))
                                return;
                        if (!is_open || p->is_broken || postgresql_connection_flush(p) < 0 ||
                                        send_waiting(p) < 0) {
                                postgresql_connection_give_up_broken(p);
                                return;
                        }
                } while (has_unread(p));
        } while (has_record(p));
        if (postgresql_connection_watch(p) < 0)
                postgresql_connection_give_up(p, -ENOMEM, "the connection cannot be watched");
}
