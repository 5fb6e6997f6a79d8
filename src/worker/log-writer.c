/* SPDX-License-Identifier: MIT */
/* Writing the access log; see log-writer.h.
 *
 * A file is opened for appending and each write(2) consists of whole lines. The kernel does one such write
 * after the other, whichever process they come from, so that workers share a file without locks. Only a
 * full disk can tear a line: then its rest follows where it ended, if nobody has written since, or all of it
 * again on a line of its own.
 *
 * Whoever rotates logs just moves the file away: before it writes, but once a second at most, a worker looks
 * whether the path still leads to the file that it has open.
 *
 * Lines for the journal go through a stream of their own, so that they have a name of their own there. Such
 * a stream is a socket and does not block. Without a journal they go to stderr, on which others rely to
 * block: it is opened anew where it would, and lines are written in pieces that a pipe takes whole. */

#include "worker/log-writer.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <systemd/sd-journal.h>
#include <unistd.h>

#include "basic/fd.h"
#include "basic/log.h"
#include "basic/macro.h"

#define DELAY_USEC       (1 * USEC_PER_SEC)
#define CHECK_USEC       (1 * USEC_PER_SEC)
#define WARNING_INTERVAL (60 * USEC_PER_SEC)

static_assert(LOG_WRITER_SIZE >= ACCESS_LOG_LINE_MAX + 8, "an empty buffer takes any line");

static uint64_t count_lines(const char *p, size_t n) {
        uint64_t lines = 0;

        for (const char *end = p + n; (p = memchr(p, '\n', (size_t) (end - p))); p++)
                lines++;
        return lines;
}

/* The size of the whole lines among the first @n bytes. */
static size_t whole_lines(const char *p, size_t n) {
        const char *lf = memrchr(p, '\n', n);

        return lf ? (size_t) (lf - p) + 1 : 0;
}

static void log_writer_consume(LogWriter *w, size_t n) {
        memmove(w->buffer, w->buffer + n, w->used - n);
        w->used -= n;
}

/*
 * A file
 */

/* A FIFO without a reader, or a socket, is not waited for. */
static int log_writer_open_file(LogWriter *w) {
        _cleanup_close_ int fd = open(
                        w->path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOCTTY | O_NONBLOCK, 0640);
        struct stat st;

        if (fd < 0)
                return errno == ENXIO || errno == ENODEV ? LOG_WRITER_NOT_A_FILE : -errno;
        if (fstat(fd, &st) < 0)
                return -errno;
        if (!S_ISREG(st.st_mode))
                return LOG_WRITER_NOT_A_FILE;
        safe_close(w->fd);
        w->fd = TAKE_FD(fd);
        w->device = st.st_dev;
        w->inode = st.st_ino;
        w->torn = 0;
        return 0;
}

/* If there is no new file to be had, the old one is better than nothing. */
static void log_writer_follow_path(LogWriter *w, uint64_t now) {
        struct stat st;
        int r;

        if (w->checked_at > 0 && now - w->checked_at < CHECK_USEC)
                return;
        w->checked_at = now;
        if (stat(w->path, &st) >= 0 && st.st_dev == w->device && st.st_ino == w->inode)
                return;
        r = log_writer_open_file(w);
        if (r != 0 && (w->warned_at == 0 || now - w->warned_at >= WARNING_INTERVAL)) {
                w->warned_at = now;
                log_warning_errno(r < 0 ? r : -EINVAL, "Failed to open the access log %s anew: %m", w->path);
        }
}

/* Whether a line of which a part is in the file can be gone on with. */
static bool log_writer_can_continue(const LogWriter *w) {
        struct stat st;

        return fstat(w->fd, &st) >= 0 && st.st_size == w->torn_end;
}

/* The beginning of the buffer, up to @n, is in the file. */
static void log_writer_written(LogWriter *w, size_t n) {
        size_t whole = n < w->used ? whole_lines(w->buffer, n) : n;

        w->torn = n - whole;
        if (w->torn > 0)
                w->torn_end = lseek(w->fd, 0, SEEK_CUR);
        log_writer_consume(w, whole);
}

static int log_writer_write_file(LogWriter *w) {
        struct iovec iov[2];
        ssize_t n;

        while (w->used > 0) {
                size_t gap = w->torn > 0 && !log_writer_can_continue(w);
                size_t from = gap > 0 ? 0 : w->torn;

                iov[0] = (struct iovec){ (char *) "\n", gap };
                iov[1] = (struct iovec){ w->buffer + from, w->used - from };
                n = writev(w->fd, iov, ELEMENTSOF(iov));
                if (n <= 0)
                        return n < 0 ? -errno : -ENOSPC;
                if ((size_t) n > gap)
                        log_writer_written(w, from + (size_t) n - gap);
                else
                        w->torn = 0; /* the end of the line is there */
        }
        return 0;
}

/*
 * The journal
 */

static int open_stderr(void) {
        struct stat st;
        int fd;

        if (fstat(STDERR_FILENO, &st) < 0)
                return -errno;
        if (S_ISREG(st.st_mode) || S_ISSOCK(st.st_mode)) /* never blocks; or each send(2) says so */
                fd = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 3);
        else
                fd = open("/proc/self/fd/2", O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
        return fd < 0 ? -errno : fd;
}

static int log_writer_open_journal(LogWriter *w) {
        int fd = -EBADF;

        w->prefix = "";
        if (log_stderr_is_journal()) {
                fd = sd_journal_stream_fd(w->identifier, LOG_INFO, /* level_prefix= */ 0);
                if (fd < 0)
                        w->prefix = "<6>"; /* sd-daemon(3) */
        }
        if (fd < 0)
                fd = open_stderr();
        if (fd < 0)
                return fd;
        w->fd = fd;
        return 0;
}

static ssize_t write_piece(int fd, const char *p, size_t n) {
        ssize_t k = send(fd, p, n, MSG_DONTWAIT | MSG_NOSIGNAL);

        return k < 0 && errno == ENOTSOCK ? write(fd, p, n) : k;
}

static int log_writer_write_journal(LogWriter *w) {
        int r;

        if (w->fd < 0) {
                r = log_writer_open_journal(w);
                if (r < 0)
                        return r;
        }
        while (w->used > 0) {
                size_t n = w->used <= PIPE_BUF ? w->used : whole_lines(w->buffer, PIPE_BUF);
                ssize_t k = write_piece(w->fd, w->buffer, n > 0 ? n : w->used);

                if (k < 0 && errno == EAGAIN)
                        return -EAGAIN;
                if (k < 0) {
                        r = -errno;
                        w->fd = safe_close(w->fd); /* another one next time */
                        return r;
                }
                log_writer_consume(w, (size_t) k);
        }
        return 0;
}

/*
 * Both
 */

int log_writer_init(
                LogWriter *w, const char *target, AccessLogFormat format, const char *app, unsigned worker) {
        const struct sigaction ignore = { .sa_handler = SIG_IGN };
        bool journal = strcmp(target, "journal") == 0;
        int r;

        *w = LOG_WRITER_NULL;
        w->format = format;
        w->worker = worker;
        w->path = journal ? NULL : target;
        w->prefix = "";
        (void) sigaction(SIGXFSZ, &ignore, NULL); /* a limit is an error like any other */
        if (asprintf(&w->identifier, "%s-access", app) < 0) {
                w->identifier = NULL;
                return -ENOMEM;
        }
        w->buffer = malloc(LOG_WRITER_SIZE);
        if (!w->buffer)
                return -ENOMEM;
        r = journal ? log_writer_open_journal(w) : log_writer_open_file(w);
        return r;
}

/* @error: why it cannot be written. A journal that is not read, or a stderr, is not the place to say so, and
 * would be waited for. */
static void log_writer_warn(LogWriter *w, int error, uint64_t now) {
        if (!w->path || (w->warned_at > 0 && now - w->warned_at < WARNING_INTERVAL))
                return;
        w->warned_at = now;
        log_warning_errno(error,
                        "Failed to write the access log %s (%" PRIu64 " lines have been dropped so far): %m",
                        w->path, w->n_dropped);
}

/* Among the lines, which is where they are missing. */
static void log_writer_put_notice(LogWriter *w, uint64_t now) {
        bool json = w->format == ACCESS_LOG_JSON;

        assert(w->used == 0);
        w->used = (size_t) snprintf(w->buffer, LOG_WRITER_SIZE, "%s%s%u%s%" PRIu64 "%s\n", w->prefix,
                        json ? "{\"worker\":" : "Worker ", w->worker, json ? ",\"dropped\":" : " dropped ",
                        w->n_dropped, json ? "}" : " lines here.");
        w->flush_at = now + DELAY_USEC;
}

/* All that waited is written. */
static void log_writer_recovered(LogWriter *w, uint64_t now) {
        w->failing = false;
        if (w->n_dropped == 0)
                return;
        if (w->path)
                log_warning("The access log %s can be written again; %" PRIu64 " lines were dropped.",
                                w->path, w->n_dropped);
        else
                log_writer_put_notice(w, now);
        w->n_dropped = 0;
}

void log_writer_flush(LogWriter *w, uint64_t now) {
        int r;

        if (w->used == 0)
                return;
        if (w->path)
                log_writer_follow_path(w, now);
        r = w->path ? log_writer_write_file(w) : log_writer_write_journal(w);
        if (r >= 0) {
                w->flush_at = USEC_INFINITY;
                if (w->failing)
                        log_writer_recovered(w, now);
                return;
        }
        w->failing = true;
        w->flush_at = now + DELAY_USEC;
        log_writer_warn(w, r, now);
}

void log_writer_done(LogWriter *w) {
        if (w->buffer && w->used > 0) {
                log_writer_flush(w, clock_now_usec());
                w->n_dropped += count_lines(w->buffer, w->used);
        }
        if (w->n_dropped > 0 && w->path)
                log_warning("%" PRIu64 " lines of the access log %s were dropped.", w->n_dropped, w->path);
        safe_close(w->fd);
        free(w->identifier);
        free(w->buffer);
        *w = LOG_WRITER_NULL;
}

static bool log_writer_put(LogWriter *w, const AccessLogRecord *r) {
        size_t n_prefix = strlen(w->prefix), room = LOG_WRITER_SIZE - w->used, n;

        if (room <= n_prefix)
                return false;
        n = access_log_format(w->format, r, w->buffer + w->used + n_prefix, room - n_prefix);
        if (n == 0)
                return false;
        memcpy(w->buffer + w->used, w->prefix, n_prefix);
        w->used += n_prefix + n;
        return true;
}

void log_writer_add(LogWriter *w, const AccessLogRecord *r, uint64_t now) {
        bool done = log_writer_put(w, r);

        if (!done && (!w->failing || now >= w->flush_at)) {
                log_writer_flush(w, now);
                done = log_writer_put(w, r);
        }
        if (!done)
                w->n_dropped++;
        else if (w->flush_at == USEC_INFINITY)
                w->flush_at = now + DELAY_USEC;
}

void log_writer_log(void *userdata, const Exchange *x) {
        LogWriter *w = userdata;
        uint64_t now = clock_now_usec();
        struct timespec wall;
        AccessLogRecord r;

        access_log_record_init(&r, x);
        clock_gettime(CLOCK_REALTIME, &wall);
        r.time_usec = (int64_t) wall.tv_sec * (int64_t) USEC_PER_SEC +
                      wall.tv_nsec / (int64_t) NSEC_PER_USEC;
        r.duration_usec = now > x->began ? now - x->began : 0;
        r.worker = w->worker;
        log_writer_add(w, &r, now);
}
