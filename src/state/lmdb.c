/* SPDX-License-Identifier: MIT */
/* The embedded store: a plugin (driver.h) over LMDB.
 *
 * What only reads is done in the loop's thread, by one transaction for all of a turn: LMDB's readers wait
 * for nobody. All else goes to a thread of its own (lmdb-writer.h), as a whole at the end of the turn. While
 * that has something, reads follow it there: they are to see what was written before. */

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <time.h>

#include "basic/clock.h"
#include "basic/macro.h"
#include "state/lmdb-data.h"
#include "state/lmdb-env.h"
#include "state/lmdb-writer.h"
#include "state/url.h"

typedef struct Lmdb {
        const StateHost *host;
        StateStore *store;
        char *path;
        LmdbSync sync;
        sd_event_source *turn; /* at the end of a turn, when something is to be done */
        sd_event *event;

        LmdbWriter *writer;    /* NULL: not connected */
        sd_event_source *done; /* the writer's */
        LmdbEnv *env;          /* these two are the writer's; NULL: they are not open yet */
        MDB_txn *reader;
        List reads;      /* operations */
        List writes;     /* jobs, not handed over yet */
        List messages;   /* operations */
        bool has_failed; /* an operation has, of -EIO */
        bool wants_turn;
        uintptr_t n_begun;  /* jobs */
        uintptr_t n_handed; /* of them, to the writer */
        uintptr_t n_ended;  /* of them; what is told is told in their order */
        uintptr_t last;     /* job that is more than a read */
} Lmdb;

static void driver_disconnect(void *driver);

static void free_jobs(List *jobs) {
        list_foreach_safe (node, jobs) {
                LmdbJob *job = list_entry(node, LmdbJob, node);

                lmdb_answer_done(&job->answer);
                free(job);
        }
        list_init(jobs);
}

/*
 * What is to be done at the end of a turn
 */

static void finish(Lmdb *l, StateOperation *op, int error) {
        const StateOutcome outcome = { .error = error };

        l->host->finish(l->store, op, &outcome);
}

static uint64_t realtime_msec(void) {
        struct timespec ts;

        clock_gettime(CLOCK_REALTIME, &ts);
        return (uint64_t) ts.tv_sec * 1000 + (uint64_t) ts.tv_nsec / 1000000;
}

typedef struct Reading {
        const Lmdb *lmdb;
        const StateOperation *op;
        uint64_t now_msec;
        LmdbAnswer *answer;
} Reading;

static int read_one(void *userdata) {
        const Reading *r = userdata;

        lmdb_data_read(lmdb_env_data(r->lmdb->env), r->lmdb->reader, r->op, r->now_msec, r->answer);
        return 0;
}

static StateOperation *take_operation(List *list) {
        StateOperation *op = list_entry(list->next, StateOperation, driver_node);

        list_remove(&op->driver_node);
        return op;
}

static void look_at_error(Lmdb *l, const StateOperation *op, int error) {
        static const char *const verbs[_STATE_VERB_MAX] = { "get", "set", "delete", "add", "scan", "publish",
                "acquire a lease", "renew a lease", "release a lease" };
        char text[STATE_TEXT_MAX];

        l->has_failed = l->has_failed || error == -EIO;
        if (error != -EIO && error != -EACCES && error != -ENOSPC && error != -EBADMSG)
                return;
        snprintf(text, sizeof(text), "Failed to %s in %.128s: %s.", verbs[op->verb], l->path,
                        error == -ENOSPC    ? "there is no room left"
                        : error == -EBADMSG ? "the file is damaged"
                                            : strerror(-error));
        l->host->complain(l->store, text);
}

/* Handlers may ask for more, which is for the next turn, so that other sources get theirs. @r: whether the
 * transaction has begun. */
static void do_reads(Lmdb *l, int r) {
        List reads = LIST_INIT(reads);
        uint64_t now = realtime_msec();
        LmdbAnswer a;

        while (!list_empty(&l->reads))
                list_append(&reads, &take_operation(&l->reads)->driver_node);
        while (!list_empty(&reads)) {
                StateOperation *op = take_operation(&reads);

                a = (LmdbAnswer){ .outcome.error = lmdb_error(r) };
                if (r == 0 && lmdb_guard(read_one, &(Reading){ l, op, now, &a }) != 0)
                        a = (LmdbAnswer){ .outcome.error = -EBADMSG };
                look_at_error(l, op, a.outcome.error);
                l->host->finish(l->store, op, &a.outcome);
                lmdb_answer_done(&a);
        }
        if (r == 0)
                mdb_txn_reset(l->reader);
}

static bool is_writing(const Lmdb *l) {
        return l->n_begun != l->n_ended;
}

/* Whether all has ended that was to be written before that message. */
static bool is_due(const Lmdb *l, const StateOperation *op) {
        return (intptr_t) (l->n_ended - (uintptr_t) op->driver_data) >= 0;
}

/* Others are to find what was written before, when they have the message. */
static void do_messages(Lmdb *l) {
        List messages = LIST_INIT(messages);

        while (!list_empty(&l->messages) &&
                        is_due(l, list_entry(l->messages.next, StateOperation, driver_node)))
                list_append(&messages, &take_operation(&l->messages)->driver_node);
        while (!list_empty(&messages)) {
                StateOperation *op = take_operation(&messages);

                finish(l, op, l->host->broadcast(l->store, op->key, op->value));
        }
}

/* What is read was asked for before what is to be written now, and after what the writer has. */
static void do_turn(Lmdb *l) {
        bool reads = !list_empty(&l->reads) && l->n_handed == l->n_ended;
        int r = reads ? mdb_txn_renew(l->reader) : 0;

        l->wants_turn = false;
        if (lmdb_env_is_over(r)) { /* the core keeps what only reads for the next connection */
                l->has_failed = true;
                return;
        }
        lmdb_writer_submit(l->writer, &l->writes);
        l->n_handed = l->n_begun;
        if (reads)
                do_reads(l, r);
        do_messages(l);
}

static void look_at_failure(Lmdb *l) {
        char text[STATE_TEXT_MAX];
        int r;

        if (!l->has_failed)
                return;
        l->has_failed = false;
        r = mdb_txn_renew(l->reader);
        if (r == 0)
                mdb_txn_reset(l->reader);
        if (!lmdb_env_is_over(r))
                return;
        driver_disconnect(l);
        snprintf(text, sizeof(text), "The store in %.128s has failed, and is opened anew.", l->path);
        l->host->lost(l->store, -ENOTCONN, text);
}

static int on_turn(sd_event_source *source, void *userdata) {
        do_turn(userdata);
        look_at_failure(userdata);
        return 0;
}

static int want_turn(Lmdb *l) {
        if (l->wants_turn)
                return 0;
        l->wants_turn = true;
        return sd_event_source_set_enabled(l->turn, SD_EVENT_ONESHOT);
}

static void do_done(Lmdb *l) {
        List done = LIST_INIT(done);

        lmdb_writer_collect(l->writer, &done);
        while (!list_empty(&done)) {
                LmdbJob *job = list_entry(done.next, LmdbJob, node);

                list_remove(&job->node);
                l->n_ended++;
                look_at_error(l, job->op, job->answer.outcome.error);
                l->host->finish(l->store, job->op, &job->answer.outcome);
                lmdb_answer_done(&job->answer);
                free(job);
        }
        if (!list_empty(&l->messages) || !list_empty(&l->reads))
                (void) want_turn(l);
}

/*
 * The driver
 */

static int begin_job(Lmdb *l, StateOperation *op) {
        LmdbJob *job = calloc(1, sizeof(*job));

        if (!job)
                return -ENOMEM;
        job->op = op;
        list_append(&l->writes, &job->node);
        l->n_begun++;
        return 0;
}

/* What is read behind a write is read by the writer. As soon as that has nothing but reads, further ones
 * wait for their turn, or every read would be its business for as long as some are under way. */
static int send_read(Lmdb *l, StateOperation *op) {
        int r;

        if ((intptr_t) (l->last - l->n_ended) <= 0) {
                list_append(&l->reads, &op->driver_node);
                return is_writing(l) ? 0 : want_turn(l);
        }
        r = begin_job(l, op);
        return r < 0 ? r : want_turn(l);
}

/* Those that have waited for their turn come first. */
static int send_write(Lmdb *l, StateOperation *op) {
        int r = 0;

        while (r >= 0 && is_writing(l) && !list_empty(&l->reads)) {
                StateOperation *read = list_entry(l->reads.next, StateOperation, driver_node);

                r = begin_job(l, read);
                if (r >= 0)
                        list_remove(&read->driver_node);
        }
        if (r >= 0)
                r = begin_job(l, op);
        if (r < 0)
                return r;
        l->last = l->n_begun;
        return want_turn(l);
}

static int driver_send(void *driver, StateOperation *op) {
        Lmdb *l = driver;

        if (op->verb == STATE_PUBLISH) {
                op->driver_data = (void *) l->n_begun;
                list_append(&l->messages, &op->driver_node);
                return want_turn(l);
        }
        return op->verb == STATE_GET || op->verb == STATE_SCAN ? send_read(l, op) : send_write(l, op);
}

static void abandon(StateOperation *op, void *userdata) {
        Lmdb *l = userdata;

        l->host->abandon(l->store, op);
}

static void driver_disconnect(void *driver) {
        Lmdb *l = driver;

        l->done = sd_event_source_disable_unref(l->done);
        if (l->writer)
                lmdb_writer_end(l->writer, &l->writes, abandon, l);
        l->writer = NULL;
        l->env = NULL;
        l->reader = NULL;
        free_jobs(&l->writes);
        list_init(&l->reads);
        list_init(&l->messages);
        l->n_handed = l->n_ended = l->last = l->n_begun;
        l->wants_turn = false;
        (void) sd_event_source_set_enabled(l->turn, SD_EVENT_OFF);
}

static void look_whether_open(Lmdb *l) {
        char text[STATE_TEXT_MAX];
        int error;

        if (!lmdb_writer_has_opened(l->writer, &l->env, &l->reader, &error, text))
                return;
        if (error >= 0) {
                l->host->connected(l->store);
                return;
        }
        driver_disconnect(l);
        l->host->lost(l->store, error, text);
}

static void do_event(Lmdb *l) {
        if (!l->env) {
                look_whether_open(l);
                return;
        }
        do_done(l);
        look_at_failure(l);
}

static int on_event(sd_event_source *source, int fd, uint32_t revents, void *userdata) {
        do_event(userdata);
        return 0;
}

static int driver_connect(void *driver, const char *password) {
        Lmdb *l = driver;
        int r;

        r = lmdb_writer_new(l->path, l->sync, &l->writer);
        if (r >= 0)
                r = sd_event_add_io(l->event, &l->done, lmdb_writer_get_fd(l->writer), EPOLLIN, on_event, l);
        if (r < 0)
                driver_disconnect(l);
        return r;
}

/* All that comes is for everybody, and is sorted by the core. */
static int driver_subscribe(void *driver, StateBytes channel) {
        Lmdb *l = driver;

        l->host->subscribed(l->store, channel);
        return 0;
}

static int driver_unsubscribe(void *driver, StateBytes channel) {
        return 0;
}

static int driver_wait(void *driver, uint64_t timeout_usec) {
        Lmdb *l = driver;
        const struct timespec timeout = { (time_t) (timeout_usec / USEC_PER_SEC),
                (long) (timeout_usec % USEC_PER_SEC * NSEC_PER_USEC) };
        struct pollfd p = { .fd = lmdb_writer_get_fd(l->writer), .events = POLLIN };

        if (l->env)
                do_turn(l);
        if (l->env && !is_writing(l))
                return l->has_failed ? -EIO : 0;
        if (ppoll(&p, 1, &timeout, NULL) < 0 && errno != EINTR)
                return -errno;
        do_event(l);
        return 0;
}

static void driver_close(void *driver) {
        Lmdb *l = driver;

        driver_disconnect(l);
        sd_event_source_disable_unref(l->turn);
        free(l->path);
        free(l);
}

static int read_parameters(Lmdb *l, const StateUrl *url, char error[static STATE_TEXT_MAX]) {
        static const char *const syncs[_LMDB_SYNC_MAX] = {
                [LMDB_SYNC_DATA] = "data", [LMDB_SYNC_FULL] = "full", [LMDB_SYNC_NONE] = "none"
        };
        static const char *const known[] = { "sync", NULL };
        const char *sync = state_url_get_parameter(url, "sync"),
                   *unknown = state_url_find_unknown(url, known);
        unsigned i = 0;

        if (unknown) {
                snprintf(error, STATE_TEXT_MAX, "found the parameter \"%.*s\", expected \"sync\"",
                                (int) MIN(strcspn(unknown, "="), 64u), unknown);
                return -EINVAL;
        }
        while (sync && i < _LMDB_SYNC_MAX && strcmp(sync, syncs[i]) != 0)
                i++;
        if (i == _LMDB_SYNC_MAX) {
                snprintf(error, STATE_TEXT_MAX,
                                "found sync=%.64s, expected sync=data, sync=full or sync=none", sync);
                return -EINVAL;
        }
        l->sync = (LmdbSync) i;
        return 0;
}

static int driver_open(const StateHost *host, StateStore *store, sd_event *event, const StateUrl *url,
                void **ret, char error[static STATE_TEXT_MAX]) {
        Lmdb *l = calloc(1, sizeof(*l));
        int r;

        if (!l)
                return -ENOMEM;
        l->host = host;
        l->store = store;
        l->event = event;
        list_init(&l->reads);
        list_init(&l->writes);
        list_init(&l->messages);
        r = read_parameters(l, url, error);
        if (r >= 0 && !(l->path = strdup(url->path)))
                r = -ENOMEM;
        if (r >= 0)
                r = sd_event_add_defer(event, &l->turn, on_turn, l);
        if (r >= 0)
                r = sd_event_source_set_enabled(l->turn, SD_EVENT_OFF);
        if (r < 0) {
                driver_close(l);
                return r;
        }
        *ret = l;
        return 0;
}

const StateDriver muster_state_driver = {
        .abi = STATE_DRIVER_ABI,
        .open = driver_open,
        .close = driver_close,
        .connect = driver_connect,
        .disconnect = driver_disconnect,
        .send = driver_send,
        .subscribe = driver_subscribe,
        .unsubscribe = driver_unsubscribe,
        .wait = driver_wait,
        .keeps_late_operations = true,
};
