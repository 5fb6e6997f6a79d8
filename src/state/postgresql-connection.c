/* SPDX-License-Identifier: MIT */
/* One connection to PostgreSQL, from its beginning to its end; see postgresql.c. */

#include "state/postgresql-internal.h"

#include <errno.h>
#include <fcntl.h>
#include <libpq-fe.h>
#include <netdb.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include "basic/fd.h"
#include "basic/macro.h"
#include "state/postgresql-error.h"
#include "state/postgresql-statements.h"

/* The end of a connection */

static void wipe(char *password) {
        if (password)
                explicit_bzero(password, strlen(password));
        free(password);
}

static void stop_watching(Postgresql *p) {
        p->io = sd_event_source_disable_unref(p->io);
        p->fd = safe_close(p->fd);
        p->events = 0;
}

static void finish_connection(Postgresql *p) {
        PQclear(TAKE_PTR(p->result));
        PQfreemem(TAKE_PTR(p->notify));
        if (!p->conn)
                return;
        /* PQfinish() would still send what it has. */
        if (p->is_blocked)
                (void) shutdown(PQsocket(p->conn), SHUT_RDWR);
        PQfinish(TAKE_PTR(p->conn));
}

/* Operations are not touched: they are their owner's from here. */
void postgresql_connection_let_go(Postgresql *p) {
        p->attempt++;
        p->phase = PHASE_IDLE;
        stop_watching(p);
        p->due = sd_event_source_disable_unref(p->due);
        p->resolve = resolve_free(p->resolve);
        wipe(TAKE_PTR(p->password));
        finish_connection(p);
        list_init(&p->waiting);
        list_init(&p->sent);
        postgresql_pipeline_free_requests(p);
        postgresql_channels_done(&p->channels);
        p->is_broken = p->is_blocked = false;
        p->n_empty = 0;
        *p->notice = '\0';
}

void postgresql_connection_give_up(Postgresql *p, int error, const char *message) {
        char text[STATE_TEXT_MAX]; /* @message may be the connection's */

        postgresql_error_copy_line(text, message);
        postgresql_connection_let_go(p);
        p->host->lost(p->store, error, text);
}

void postgresql_connection_give_up_broken(Postgresql *p) {
        const char *message = *p->notice ? p->notice : PQerrorMessage(p->conn);

        postgresql_connection_give_up(p, -ENOTCONN, *message ? message : "the connection is broken");
}

static void give_up_refused(Postgresql *p, const PGresult *result) {
        char text[STATE_TEXT_MAX];

        postgresql_error_get_text(result, text);
        postgresql_connection_give_up(p,
                        postgresql_error_of_connection(PQresultErrorField(result, PG_DIAG_SQLSTATE)), text);
}

void postgresql_connection_give_up_out_of_step(Postgresql *p) {
        postgresql_connection_give_up(p, -EBADMSG, "an answer of the server that was not asked for");
}

/* Events */

static int on_io(sd_event_source *source, int fd, uint32_t revents, void *userdata) {
        postgresql_connection_drive(userdata);
        return 0;
}

static int on_due(sd_event_source *source, void *userdata) {
        postgresql_connection_drive(userdata);
        return 0;
}

/* What is watched is a duplicate: libpq closes its descriptor when it finds the connection broken, and the
 * loop would then let go of whatever has the number next. */
static int add_source(Postgresql *p, int fd, uint32_t events) {
        int r;

        p->fd = fcntl(fd, F_DUPFD_CLOEXEC, 3);
        if (p->fd < 0)
                return -errno;
        r = sd_event_add_io(p->event, &p->io, p->fd, events, on_io, p);
        if (r < 0)
                p->fd = safe_close(p->fd);
        return r;
}

/* The descriptor may be another one each time while libpq connects: @anew. */
static int watch(Postgresql *p, int fd, uint32_t events, bool anew) {
        int r = 0;

        if (anew)
                stop_watching(p);
        if (!p->io)
                r = add_source(p, fd, events);
        else if (events != p->events)
                r = sd_event_source_set_io_events(p->io, events);
        if (r >= 0)
                p->events = events;
        return r;
}

/* What has to be done soon, though no descriptor tells of it. */
int postgresql_connection_make_due(Postgresql *p) {
        if (p->due)
                return sd_event_source_set_enabled(p->due, SD_EVENT_ONESHOT);
        return sd_event_add_defer(p->event, &p->due, on_due, p); /* once */
}

bool postgresql_connection_is_due(const Postgresql *p) {
        int enabled = SD_EVENT_OFF;

        return p->due && sd_event_source_get_enabled(p->due, &enabled) >= 0 && enabled != SD_EVENT_OFF;
}

/* Writes what libpq has. Returns 0 or -EIO. */
int postgresql_connection_flush(Postgresql *p) {
        int r = PQflush(p->conn);

        p->is_blocked = r > 0;
        return r < 0 ? -EIO : 0;
}

int postgresql_connection_watch(Postgresql *p) {
        return watch(p, PQsocket(p->conn), p->is_blocked ? EPOLLIN | EPOLLOUT : EPOLLIN, false);
}

/* The session */

static void begin_preparing(Postgresql *p) {
        p->phase = PHASE_PREPARING;
        if (PQenterPipelineMode(p->conn) != 1 || postgresql_statements_prepare(p->conn) < 0)
                p->is_broken = true;
}

static void begin_query(Postgresql *p, Phase phase, const char *sql) {
        p->phase = phase;
        if (PQsendQuery(p->conn, sql) != 1)
                p->is_broken = true;
}

/* Returns false when the connection was given up. */
static bool take_check(Postgresql *p, const PGresult *result) {
        int n = PQnfields(result);

        if (PQntuples(result) != 1 || n < 1) {
                postgresql_connection_give_up_out_of_step(p);
                return false;
        }
        p->table_exists = strcmp(PQgetvalue(result, 0, n - 1), "t") == 0;
        return true;
}

/* Likewise. */
static bool check_session_result(Postgresql *p, const PGresult *result) {
        const char *sqlstate = PQresultErrorField(result, PG_DIAG_SQLSTATE);

        switch (PQresultStatus(result)) {
        case PGRES_TUPLES_OK:
                return p->phase != PHASE_CHECKING || take_check(p, result);
        case PGRES_COMMAND_OK:
        case PGRES_PIPELINE_SYNC:
                return true;
        default:
                /* Somebody else who does not know our lock has made it: that is as good. */
                if (p->phase == PHASE_CREATING && sqlstate &&
                                (strcmp(sqlstate, "42P07") == 0 || strcmp(sqlstate, "23505") == 0))
                        return true;
                give_up_refused(p, result);
                return false;
        }
}

/* The results of a query end with NULL, those of the pipeline with the sync. Returns whether the phase is
 * over. */
static bool is_phase_over(const Postgresql *p, const PGresult *result) {
        if (p->phase == PHASE_PREPARING)
                return result && PQresultStatus(result) == PGRES_PIPELINE_SYNC;
        return !result;
}

static void enter_next_phase(Postgresql *p) {
        if (p->phase == PHASE_PREPARING)
                p->phase = PHASE_READY;
        else if (p->phase == PHASE_CHECKING && !p->table_exists)
                begin_query(p, PHASE_CREATING, postgresql_create_sql);
        else
                begin_preparing(p);
}

/* Returns whether it goes on. */
static bool take_session_result(Postgresql *p) {
        PGresult *result = PQgetResult(p->conn);
        bool is_over = is_phase_over(p, result), is_good = !result || check_session_result(p, result);

        PQclear(result);
        if (!is_good)
                return false;
        p->n_empty = result ? 0 : p->n_empty + 1;
        if (p->n_empty > 1) {
                postgresql_connection_give_up_out_of_step(p);
                return false;
        }
        if (is_over)
                enter_next_phase(p);
        return true;
}

static void begin_service(Postgresql *p) {
        unsigned attempt = p->attempt;

        p->host->connected(p->store);
        if (p->attempt == attempt)
                postgresql_pipeline_pump(p);
}

static void set_up_session(Postgresql *p) {
        bool is_open = PQconsumeInput(p->conn);

        while (p->phase != PHASE_READY && !p->is_broken && !PQisBusy(p->conn))
                if (!take_session_result(p))
                        return;
        if (!is_open || p->is_broken || postgresql_connection_flush(p) < 0) {
                postgresql_connection_give_up_broken(p);
                return;
        }
        if (postgresql_connection_watch(p) < 0)
                postgresql_connection_give_up(p, -ENOMEM, "the connection cannot be watched");
        else if (p->phase == PHASE_READY)
                begin_service(p);
}

/* The connection */

/* libpq would print them. The only one of interest is what the server says when it ends the connection while
 * nothing is asked. */
static void on_notice(void *userdata, const PGresult *result) {
        Postgresql *p = userdata;

        if (postgresql_error_is_fatal(result))
                postgresql_error_get_text(result, p->notice);
}

static void refuse_connection(Postgresql *p) {
        const char *message = PQerrorMessage(p->conn);
        char sqlstate[6];
        int error = -ENOTCONN;

        if (postgresql_error_find_sqlstate(message, sqlstate))
                error = postgresql_error_of_connection(sqlstate);
        else if (PQconnectionNeedsPassword(p->conn))
                error = -EACCES;
        postgresql_connection_give_up(p, error, message);
}

static void on_connected(Postgresql *p) {
        if (PQsetnonblocking(p->conn, 1) != 0) {
                postgresql_connection_give_up_broken(p);
                return;
        }
        begin_query(p, PHASE_CHECKING, postgresql_session_sql);
        set_up_session(p);
}

static void poll_connection(Postgresql *p) {
        PostgresPollingStatusType status;
        int r;

        stop_watching(p); /* libpq may close the descriptor */
        status = PQconnectPoll(p->conn);
        if (status == PGRES_POLLING_FAILED)
                refuse_connection(p);
        else if (status == PGRES_POLLING_OK)
                on_connected(p);
        else {
                r = watch(p, PQsocket(p->conn), status == PGRES_POLLING_READING ? EPOLLIN : EPOLLOUT, true);
                if (r < 0)
                        postgresql_connection_give_up(p, -ENOMEM, "the connection cannot be watched");
        }
}

/* Returns 0 or a negative errno: it could not begin. */
static int begin_connecting(Postgresql *p, const char *addresses, const char *password) {
        p->conn = postgresql_target_connect(&p->target, addresses, password);
        if (!p->conn)
                return -ENOMEM;
        p->phase = PHASE_CONNECTING;
        if (PQstatus(p->conn) == CONNECTION_BAD) {
                refuse_connection(p);
                return 0;
        }
        PQsetNoticeReceiver(p->conn, on_notice, p);
        PQsetErrorVerbosity(p->conn, PQERRORS_VERBOSE); /* with the code, which has no other way out */
        return watch(p, PQsocket(p->conn), EPOLLOUT, true);
}

static void on_resolved(Postgresql *p) {
        _cleanup_free_ char *addresses = NULL;
        char text[STATE_TEXT_MAX], *password;
        int r, gai = 0;

        r = resolve_take(p->resolve, p->n_silent, &addresses, &gai);
        if (r == -EAGAIN)
                return;
        stop_watching(p);
        p->resolve = resolve_free(p->resolve);
        password = TAKE_PTR(p->password);
        if (r >= 0)
                r = begin_connecting(p, addresses, password);
        wipe(password);
        if (r < 0) {
                snprintf(text, sizeof(text), "cannot look up %.100s: %s", p->target.host,
                                gai != 0 ? gai_strerror(gai) : strerror(-r));
                postgresql_connection_give_up(p, -ENOTCONN, text);
        }
}

static int begin_resolving(Postgresql *p, const char *password) {
        int r;

        if (password) {
                p->password = strdup(password);
                if (!p->password)
                        return -ENOMEM;
        }
        r = resolve_new(p->target.host, &p->resolve);
        if (r < 0)
                return r;
        p->phase = PHASE_RESOLVING;
        return watch(p, resolve_get_fd(p->resolve), EPOLLIN, true);
}

int postgresql_connection_begin(Postgresql *p, const char *password) {
        return p->target.is_name ? begin_resolving(p, password) : begin_connecting(p, NULL, password);
}

void postgresql_connection_drive(Postgresql *p) {
        if (p->due)
                (void) sd_event_source_set_enabled(p->due, SD_EVENT_OFF); /* it is done now */
        p->is_driving = true;
        switch (p->phase) {
        case PHASE_IDLE:
                break;
        case PHASE_RESOLVING:
                on_resolved(p);
                break;
        case PHASE_CONNECTING:
                poll_connection(p);
                break;
        case PHASE_CHECKING:
        case PHASE_CREATING:
        case PHASE_PREPARING:
                set_up_session(p);
                break;
        case PHASE_READY:
                postgresql_pipeline_pump(p);
                break;
        }
        p->is_driving = false;
}
