/* SPDX-License-Identifier: MIT */
/* Taking over; see adopt.h. */

#include "http/adopt.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>

#include "basic/bitmap.h"
#include "basic/macro.h"
#include "http/commit.h"
#include "http/connection-internal.h"
#include "http/outgoing.h"
#include "twin/truth.h"

static bool needs_file(const Outgoing *o) {
        return o->file_left > 0 || o->parts != BUFFER_NONE;
}

/* What has come further than at the last death is not what the processes die of. */
static void put_blame(Record *r, unsigned blame) {
        if (r->suspect != r->at_work || r->suspect_sent != r->sent)
                r->blame = 0;
        r->suspect = r->at_work;
        r->suspect_sent = r->sent;
        r->blame = (uint8_t) MIN(r->blame + blame, (unsigned) RECORD_BLAME_MAX);
}

/* Of a socket whose bytes the kernel does not count, those of a call count that has returned. */
static int read_truth(int fd, const Record *r, Truth *ret) {
        int k = truth_read(fd, ret);

        if (k != -EOPNOTSUPP)
                return k;
        if (atomic_load(&r->in_call))
                return -ECONNRESET;
        *ret = (Truth){ .received = r->received, .sent = r->sent };
        return 0;
}

/* What the app has closed by mistake is gone. */
static bool set_needed(const Table *t, int fd, uint64_t *needed) {
        if (fd < 0 || (unsigned) fd >= t->n_records || fcntl(fd, F_GETFD) < 0)
                return false;
        bitmap_set(needed, (unsigned) fd);
        return true;
}

int adopt_restore(Table *t, int fd, unsigned blame, uint64_t *needed) {
        Record *r = t->records + fd;
        const Commit *k = commit_holding(r);
        Truth truth;
        int error;

        error = read_truth(fd, r, &truth);
        if (error < 0)
                return error;
        if (truth.reset)
                return -ECONNRESET;
        r->received = truth.received;
        r->sent = truth.sent;
        atomic_store(&r->in_call, 0);
        if (blame > 0)
                put_blame(r, blame);
        if (r->state == CONNECTION_LINGERING || truth.shut) {
                r->input_start = r->input_end = 0;
                r->out = OUTGOING_NONE;
                r->state = CONNECTION_LINGERING;
                return 0;
        }
        if (!commit_restore(t, r, &truth))
                return -ECONNRESET;
        if (needs_file(&r->out) && !set_needed(t, r->out.file_fd, needed))
                return -EBADF;
        if (k->gap && k->spool_fd >= 0 && !set_needed(t, k->spool_fd, needed))
                return -EBADF;
        return 0;
}

static bool is_left_alone(const Record *r) {
        return r->state == CONNECTION_FREE || (r->state == CONNECTION_IDLE && !r->busy);
}

static void mark_buffer(uint64_t *used, uint32_t buffer) {
        if (buffer != BUFFER_NONE)
                bitmap_set(used, buffer);
}

int adopt_buffers(Table *t, unsigned n_records) {
        _cleanup_free_ uint64_t *used = calloc(bitmap_words(t->n_buffers), sizeof(uint64_t));

        if (!used)
                return -ENOMEM;
        for (unsigned i = 0; i < MIN(n_records, t->n_records); i++) {
                const Record *r = t->records + i;

                if (is_left_alone(r))
                        continue;
                if (r->input_end > 0)
                        mark_buffer(used, r->input);
                mark_buffer(used, r->out.buffer);
                mark_buffer(used, r->out.parts);
                if (commit_holding(r)->stream_resumes)
                        mark_buffer(used, r->stream_state);
        }
        table_restore_buffers(t, used);
        return 0;
}

void adopt_idle(Server *server, int fd, Connection **ret) {
        Connection *c = server->connections + fd;

        connection_init(c, server, fd);
        c->watched = true;
        server_adopt_connection(server);
        server_arm(server, &c->timeout, server->draining ? TIMEOUT_DRAIN : TIMEOUT_IDLE);
        *ret = c;
}

/* Several may share it: the first one takes the number itself, others get copies, whose number replaces it
 * in the commit that holds by one store. */
static int take_file(int32_t *fd, uint64_t *needed, int *ret) {
        int copy;

        if (bitmap_has(needed, (unsigned) *fd)) {
                bitmap_clear(needed, (unsigned) *fd);
                *ret = *fd;
                return 0;
        }
        copy = fcntl(*fd, F_DUPFD_CLOEXEC, 0);
        if (copy < 0)
                return -errno;
        *fd = *ret = copy;
        return 0;
}

static int adopt_files(Connection *c, Commit *k, uint64_t *needed) {
        Record *r = c->record;
        int file_fd = -EBADF, error;

        if (needs_file(&r->out)) {
                error = take_file(&k->out.file_fd, needed, &file_fd);
                if (error < 0)
                        return error;
        }
        if (k->gap && k->spool_fd >= 0) {
                error = take_file(&k->spool_fd, needed, &c->spool_fd);
                if (error < 0) {
                        if (file_fd >= 0)
                                bitmap_set(needed, (unsigned) file_fd);
                        return error;
                }
        }
        if (file_fd >= 0)
                r->out.file_fd = c->file_fd = file_fd;
        return 0;
}

/* Nobody goes on with it. The record still names them, as this process, too, may die before it is free. */
static void give_buffers(Table *t, const Record *r) {
        if (r->input_end > 0)
                (void) table_give_buffer(t, r->input);
        (void) table_give_buffer(t, r->out.buffer);
        (void) table_give_buffer(t, r->out.parts);
        if (commit_holding(r)->stream_resumes)
                (void) table_give_buffer(t, r->stream_state);
}

static void adopt_input(Connection *c, const Commit *k) {
        Record *r = c->record;

        if (r->input_end > 0)
                c->input = r->input;
        c->gap = k->gap;
        c->blind = k->gap && k->spool_fd < 0;
        c->continued = k->continued;
        c->resumes = k->streams && (k->stream_resumes || r->sent > k->stream_start);
        if (!k->stream_resumes)
                r->stream_state = BUFFER_NONE;
}

int adopt_resume(Server *server, int fd, uint64_t *needed, Connection **ret) {
        Connection *c = server->connections + fd;
        Record *r = server->table.records + fd;
        Commit *k = r->commits + atomic_load(&r->commit) % 2;
        bool lingers = r->state == CONNECTION_LINGERING;
        int error;

        connection_init(c, server, fd);
        connection_touch(c);
        if (!lingers) {
                error = adopt_files(c, k, needed);
                if (error < 0) {
                        give_buffers(&server->table, r);
                        return error;
                }
                adopt_input(c, k);
                atomic_store(&r->state, CONNECTION_READING);
        }
        c->watched = true;
        server_adopt_connection(server);
        server_arm(server, &c->timeout, lingers ? TIMEOUT_LINGER : TIMEOUT_REQUEST);
        *ret = c;
        return 0;
}
