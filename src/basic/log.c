/* SPDX-License-Identifier: MIT */
/* Logging to the journal or to stderr; see log.h. One static context: a process is one speaker. */

#include "basic/log.h"

#define SD_JOURNAL_SUPPRESS_LOCATION  /* CODE_FILE= and so on are our own; else sd_journal_sendv is a macro \
                                       */

#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <linux/sockios.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <systemd/sd-journal.h>
#include <unistd.h>

#include "basic/parse.h"

#define LOG_LINE_MAX   2048
#define LOG_FIELDS_MAX (13 + LOG_EVENT_FIELDS_MAX)
#define LOG_FIELD_SIZE 128

/* How long the last words wait for a journald that does not read; and how often it is looked at. */
#define LAST_WORDS_MSEC  5000
#define LAST_WORDS_EVERY 1

static struct {
        LogContext context;
        int max_level;
        bool to_journal;
        bool colour;
        int copy_fd;
        int copy_max_level;
        bool copy_colour;
} log_state = {
        .context.program = "muster",
        .max_level = LOG_INFO,
        .copy_fd = -EBADF,
};

static const char *const level_names[] = {
        [LOG_EMERG] = "emerg",
        [LOG_ALERT] = "alert",
        [LOG_CRIT] = "crit",
        [LOG_ERR] = "err",
        [LOG_WARNING] = "warning",
        [LOG_NOTICE] = "notice",
        [LOG_INFO] = "info",
        [LOG_DEBUG] = "debug",
};

int log_level_from_string(const char *s) {
        unsigned n;

        for (size_t i = 0; i < ELEMENTSOF(level_names); i++)
                if (strcmp(s, level_names[i]) == 0)
                        return (int) i;
        if (parse_uint(s, &n) == 0 && n < ELEMENTSOF(level_names))
                return (int) n;
        return -EINVAL;
}

void log_set_max_level(int level) {
        log_state.max_level = level;
}

void log_set_generation(uint64_t generation) {
        log_state.context.generation = generation;
}

bool log_stderr_is_journal(void) {
        const char *e = getenv("JOURNAL_STREAM");
        unsigned long dev, ino;
        struct stat st;

        return e && sscanf(e, "%lu:%lu", &dev, &ino) == 2 && fstat(STDERR_FILENO, &st) == 0 &&
               st.st_dev == dev && st.st_ino == ino;
}

static bool is_coloured(int fd) {
        return isatty(fd) && !getenv("NO_COLOR");
}

void log_copy_to(int fd, int max_level) {
        log_state.copy_fd = fd;
        log_state.copy_max_level = max_level;
        log_state.copy_colour = fd >= 0 && is_coloured(fd);
}

void log_open(const LogContext *context) {
        const char *level = getenv("MUSTER_LOG_LEVEL");

        log_state.context = *context;
        log_state.to_journal = log_stderr_is_journal();
        log_state.colour = is_coloured(STDERR_FILENO);
        if (level) {
                int l = log_level_from_string(level);
                if (l >= 0)
                        log_state.max_level = l;
                else
                        log_warning("MUSTER_LOG_LEVEL: found \"%s\", expected emerg … debug or 0 … 7.",
                                        level);
        }
}

/* The fields of one message on their way to the journal: short ones in `text`, long ones borrowed. */
typedef struct Fields {
        struct iovec iov[LOG_FIELDS_MAX];
        char text[LOG_FIELDS_MAX][LOG_FIELD_SIZE];
        int n;
} Fields;

static _printf_(2, 3) void fields_add(Fields *f, const char *format, ...) {
        va_list ap;

        assert(f->n < LOG_FIELDS_MAX);
        va_start(ap, format);
        int n = vsnprintf(f->text[f->n], LOG_FIELD_SIZE, format, ap);
        va_end(ap);

        f->iov[f->n] = (struct iovec){ f->text[f->n], (size_t) MIN(n, LOG_FIELD_SIZE - 1) };
        f->n++;
}

static void fields_add_long(Fields *f, const char *field) {
        assert(f->n < LOG_FIELDS_MAX);
        f->iov[f->n++] = (struct iovec){ (void *) field, strlen(field) };
}

static int write_journal(int level, int error, const char *file, int line, const char *func,
                const LogEvent *event, const char *message) {
        const LogContext *c = &log_state.context;
        Fields f = { .n = 0 };

        fields_add_long(&f, message);
        fields_add(&f, "PRIORITY=%d", level);
        fields_add(&f, "SYSLOG_IDENTIFIER=%s", c->program);
        fields_add(&f, "CODE_FILE=%s", file);
        fields_add(&f, "CODE_LINE=%d", line);
        fields_add(&f, "CODE_FUNC=%s", func);
        if (error)
                fields_add(&f, "ERRNO=%d", -error);
        if (c->app)
                fields_add(&f, "MUSTER_APP=%s", c->app);
        if (event->message_id)
                fields_add(&f, "MESSAGE_ID=%s", event->message_id);
        if (event->worker || c->worker)
                fields_add(&f, "MUSTER_WORKER=%u", event->worker ? event->worker : c->worker);
        if (event->agent)
                fields_add(&f, "MUSTER_AGENT=%s", event->agent);
        if (event->worker_pid)
                fields_add(&f, "MUSTER_WORKER_PID=%d", event->worker_pid);
        if (event->generation || c->generation)
                fields_add(&f, "MUSTER_GENERATION=%" PRIu64,
                                event->generation ? event->generation : c->generation);
        for (const char *const *field = event->fields; field && *field; field++)
                fields_add_long(&f, *field);
        return sd_journal_sendv(f.iov, f.n);
}

static void write_line(int fd, bool colour, int level, const char *message) {
        const LogContext *c = &log_state.context;
        const char *on = "", *off = "";
        char who[64] = "";

        if (colour && level <= LOG_NOTICE) {
                on = level <= LOG_ERR ? "\033[1;31m" : level == LOG_WARNING ? "\033[1;33m" : "\033[1m";
                off = "\033[0m";
        }
        if (c->app && c->worker)
                snprintf(who, sizeof(who), " %s-%u", c->app, c->worker);
        else if (c->app)
                snprintf(who, sizeof(who), " %s", c->app);

        /* One write: lines of several processes on one terminal do not mix. */
        dprintf(fd, "%s%s[%d]: %s%s%s\n", c->program, who, getpid(), on, message, off);
}

static void write_copy(int level, const char *message) {
        if (log_state.copy_fd >= 0 && level <= log_state.copy_max_level)
                write_line(log_state.copy_fd, log_state.copy_colour, level, message);
}

int log_internal(int level, int error, const char *file, int line, const char *func, const LogEvent *event,
                const char *format, ...) {
        static const char field[] = "MESSAGE=";
        static const LogEvent nothing;
        char buf[sizeof(field) + LOG_LINE_MAX];
        int saved = errno;
        va_list ap;

        if (level > log_state.max_level)
                return error;

        memcpy(buf, field, sizeof(field));
        errno = error < 0 ? -error : saved;
        va_start(ap, format);
        vsnprintf(buf + sizeof(field) - 1, LOG_LINE_MAX, format, ap);
        va_end(ap);

        if (!log_state.to_journal ||
                        write_journal(level, error, file, line, func, event ? event : &nothing, buf) < 0)
                write_line(STDERR_FILENO, log_state.colour, level, buf + sizeof(field) - 1);
        write_copy(level, buf + sizeof(field) - 1);
        errno = saved;
        return error;
}

/* Until the other end has read what was written; there is no event for it. Not a unix socket: at once. */
static void wait_until_read(int fd) {
        int unread = 0;

        for (int i = 0; i < LAST_WORDS_MSEC / LAST_WORDS_EVERY; i++) {
                if (ioctl(fd, SIOCOUTQ, &unread) < 0 || unread == 0)
                        return;
                (void) poll(NULL, 0, LAST_WORDS_EVERY);
        }
}

void log_last_words(const LogEvent *event, const char *title, const char *reason) {
        char message[LOG_FIELD_SIZE];

        if (!log_state.to_journal) {
                log_full(LOG_ERR, 0, event, "%s", reason);
                return;
        }
        if (log_state.max_level < LOG_ERR)
                return;

        dprintf(STDERR_FILENO, "<%d>%s\n", LOG_ERR, reason); /* the prefix: sd-daemon(3) */
        wait_until_read(STDERR_FILENO);
        snprintf(message, sizeof(message), "MESSAGE=%s", title);
        (void) write_journal(LOG_ERR, 0, __FILE__, __LINE__, __func__, event, message);
        write_copy(LOG_ERR, reason);
}
