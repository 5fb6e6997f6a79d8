/* SPDX-License-Identifier: MIT */
#pragma once

/* One handle of the driver for PostgreSQL, and what its parts call of each other; see postgresql.c. */

#include <stdbool.h>
#include <stdint.h>
#include <systemd/sd-event.h>

#include "basic/list.h"
#include "state/driver.h"
#include "state/postgresql-channel.h"
#include "state/postgresql-target.h"
#include "state/postgresql-types.h"
#include "state/resolve.h"

typedef enum Phase {
        PHASE_IDLE,       /* no connection, and no attempt */
        PHASE_RESOLVING,  /* the host's name is looked up */
        PHASE_CONNECTING, /* libpq connects */
        PHASE_CHECKING,   /* the session is set up; is the table there? */
        PHASE_CREATING,   /* the table is made */
        PHASE_PREPARING,  /* the statements are prepared */
        PHASE_READY,
} Phase;

/* An operation of the driver's own. */
typedef struct Request {
        StateOperation op;
        List node; /* in .requests */
        uint64_t serial;
        char identifier[POSTGRESQL_IDENTIFIER_SIZE];
} Request;

typedef struct Postgresql {
        const StateHost *host;
        StateStore *store;
        sd_event *event;
        PostgresqlTarget target;

        Phase phase;
        unsigned attempt;
        unsigned n_silent; /* attempts that were given up because nobody answered */
        Resolve *resolve;
        char *password; /* while the name is looked up */
        PGconn *conn;
        bool table_exists;
        bool is_broken; /* to be given up, but not from within send() */

        sd_event_source *io;
        int fd;          /* what .io watches: a duplicate */
        uint32_t events; /* EPOLL… */
        bool is_blocked; /* not all that libpq has was written */
        sd_event_source *due;
        bool is_driving;

        List waiting;     /* operations */
        List sent;        /* likewise; libpq has them */
        List requests;    /* those of the driver's own */
        PGresult *result; /* of the first that was sent, until its sync */
        unsigned n_empty; /* empty results in a row */
        PGnotify *notify; /* the next one */
        PostgresqlChannels channels;
        unsigned writes_until_sweep;

        char notice[STATE_TEXT_MAX]; /* why the server ends the connection */
} Postgresql;

/* postgresql-connection.c: one connection, from its beginning to its end. */

/* Begins. Returns 0 or a negative errno. */
int postgresql_connection_begin(Postgresql *p, const char *password);

/* Does what is due. */
void postgresql_connection_drive(Postgresql *p);

/* Something has to be done soon, though no descriptor tells of it. */
int postgresql_connection_make_due(Postgresql *p);
bool postgresql_connection_is_due(const Postgresql *p);

/* Watches the descriptor for what libpq wants. Returns 0 or a negative errno. */
int postgresql_connection_watch(Postgresql *p);

/* Writes what libpq has. Returns 0 or -EIO. */
int postgresql_connection_flush(Postgresql *p);

/* Lets go of everything. Operations are not touched: they are their owner's from here. */
void postgresql_connection_let_go(Postgresql *p);

/* The same, and tells the host: of @message the first line; why libpq or the server has ended it; that the
 * answers do not fit the questions. Nothing of the connection is there any more afterwards, or that of
 * another one. */
void postgresql_connection_give_up(Postgresql *p, int error, const char *message);
void postgresql_connection_give_up_broken(Postgresql *p);
void postgresql_connection_give_up_out_of_step(Postgresql *p);

/* postgresql-pipeline.c: what goes on in a connection that is ready. */

void postgresql_pipeline_init(Postgresql *p);

/* Takes an operation or, with its identifier, a request of the driver's own. No function of the host is
 * called. */
void postgresql_pipeline_push(Postgresql *p, StateOperation *op);
int postgresql_pipeline_push_request(Postgresql *p, int verb, const char *identifier, uint64_t serial);

/* Takes all that has come and sends what waits. */
void postgresql_pipeline_pump(Postgresql *p);

/* Drops the requests of the driver's own. */
void postgresql_pipeline_free_requests(Postgresql *p);
