/* SPDX-License-Identifier: MIT */
#pragma once

/* The access log of one worker: lines are gathered and written together, at the latest a second after the
 * first of them, to a file that several workers share or to the journal. Serving never waits for it: what
 * cannot be written is kept as long as there is room, and then dropped, counted, and told of. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "basic/clock.h"
#include "http/access-log.h"

/* As much as is gathered at most. */
#define LOG_WRITER_SIZE (64 * 1024)

typedef struct LogWriter {
        AccessLogFormat format;
        unsigned worker;
        const char *path;   /* borrowed; NULL: the journal */
        char *identifier;   /* there */
        const char *prefix; /* of each line: its level, where it has to be said */
        int fd;             /* -EBADF: nothing is logged, or the journal is out of reach */
        dev_t device;       /* which file it is */
        ino_t inode;
        uint64_t checked_at; /* whether the path still leads to it */

        char *buffer;
        size_t used;
        size_t torn;       /* of the line at the beginning so much is in the file already, */
        off_t torn_end;    /* which ended there */
        uint64_t flush_at; /* USEC_INFINITY while the buffer is empty */
        bool failing;      /* the last attempt to write failed: not before flush_at is there another */

        uint64_t n_dropped; /* lines, since it was last told of */
        uint64_t warned_at;
} LogWriter;

#define LOG_WRITER_NULL ((LogWriter){ .fd = -EBADF, .flush_at = USEC_INFINITY })

/* Outcome of log_writer_init(). */
#define LOG_WRITER_NOT_A_FILE 1

/* Opens @target, "journal" or the path of a file, which is made if it is not there. @app names the lines in
 * the journal: APP-access. Returns 0, LOG_WRITER_NOT_A_FILE for anything but a regular file, or a negative
 * errno. Ignores SIGXFSZ from here on. */
int log_writer_init(
                LogWriter *w, const char *target, AccessLogFormat format, const char *app, unsigned worker);

/* Writes what can still be. Takes LOG_WRITER_NULL, too. */
void log_writer_done(LogWriter *w);

/* Adds the line of an exchange that is over: Server.log, with the writer as its userdata. */
void log_writer_log(void *userdata, const Exchange *x);
void log_writer_add(LogWriter *w, const AccessLogRecord *r, uint64_t now);

/* When log_writer_flush() is due. */
static inline uint64_t log_writer_deadline(const LogWriter *w) {
        return w->flush_at;
}

/* Writes what there is. A file that was moved away or deleted since is left for a new one of its name. */
void log_writer_flush(LogWriter *w, uint64_t now);
