/* SPDX-License-Identifier: MIT */
#pragma once

/* Logging, for programs only: a library layer returns its error and says nothing (the place where the error
 * stops travelling logs it, once).
 *
 * Under systemd a message goes to the journal with fields: MUSTER_APP, MUSTER_WORKER, MUSTER_GENERATION,
 * CODE_FILE, CODE_LINE, CODE_FUNC, and MESSAGE_ID where there is one. Elsewhere it is a plain line on
 * stderr, coloured when that is a terminal. `%m` in a format prints the error. */

#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <syslog.h>

#include "basic/macro.h"
#include "basic/message-id.h"

/* Who is speaking; goes with every message. The strings are borrowed and must outlive all logging. */
typedef struct LogContext {
        const char *program; /* SYSLOG_IDENTIFIER and the head of the line on stderr */
        const char *app;     /* NULL: not known (yet) */
        unsigned worker;     /* the slot, 0 in the master */
        uint64_t generation; /* 0: not known (yet) */
} LogContext;

/* What a message is about, when it is more than text. A member of 0 or NULL is left out. */
typedef struct LogEvent {
        const char *message_id;
        unsigned worker;           /* instead of the context's */
        const char *agent;         /* MUSTER_AGENT: what it is about is no worker, but an agent */
        pid_t worker_pid;          /* MUSTER_WORKER_PID */
        uint64_t generation;       /* instead of the context's */
        const char *const *fields; /* further ones for the journal, "NAME=value", at most
                                      LOG_EVENT_FIELDS_MAX and NULL at the end */
} LogEvent;

#define LOG_EVENT_FIELDS_MAX 8

/* Chooses the journal or stderr, and the level from $MUSTER_LOG_LEVEL (emerg … debug or 0 … 7, default
 * info). */
void log_open(const LogContext *context);

/* Whether stderr is a stream of the journal, by the test of systemd.exec(5), $JOURNAL_STREAM. */
bool log_stderr_is_journal(void);

/* Messages of @max_level and more severe go to @fd too, as lines like on stderr; -EBADF: no more. Of a start
 * in the background the caller learns in this way. @fd is borrowed. */
void log_copy_to(int fd, int max_level);

void log_set_generation(uint64_t generation);
void log_set_max_level(int level);
int log_level_from_string(const char *s);

int log_internal(int level, int error, const char *file, int line, const char *func, const LogEvent *event,
                const char *format, ...) _printf_(7, 8);

/* The reason why a process ends, said just before it does. Of a message that reaches the journal by its own
 * socket journald looks up the unit when it reads it: too late if the sender is gone, and "journalctl -u"
 * lacks the one line that matters. Of the stream that systemd opened it knows the unit. So @reason goes to
 * stderr, and under systemd the event, which has the fields, to the journal as well, with @title as its
 * text. Error level.
 *
 * The event follows when journald has read the stream: what it once could not find out of a process it keeps
 * for a second, for the stream too (journald-context.c). A journald that does not read is waited for 5 s. */
void log_last_words(const LogEvent *event, const char *title, const char *reason);

/* Returns @error, so that `return log_full(…)` passes it on. */
#define log_full(level, error, event, ...) \
        log_internal(level, error, __FILE__, __LINE__, __func__, event, __VA_ARGS__)

#define log_debug(...)   log_full(LOG_DEBUG, 0, NULL, __VA_ARGS__)
#define log_info(...)    log_full(LOG_INFO, 0, NULL, __VA_ARGS__)
#define log_notice(...)  log_full(LOG_NOTICE, 0, NULL, __VA_ARGS__)
#define log_warning(...) log_full(LOG_WARNING, 0, NULL, __VA_ARGS__)
#define log_error(...)   log_full(LOG_ERR, 0, NULL, __VA_ARGS__)
#define log_oom()        log_full(LOG_ERR, -ENOMEM, NULL, "Out of memory.")

/* @r is a negative errno, printed by %m and returned. */
#define log_error_errno(r, ...)   log_full(LOG_ERR, r, NULL, __VA_ARGS__)
#define log_warning_errno(r, ...) log_full(LOG_WARNING, r, NULL, __VA_ARGS__)
#define log_debug_errno(r, ...)   log_full(LOG_DEBUG, r, NULL, __VA_ARGS__)

/* log_event(LOG_WARNING, (.message_id = …, .worker = 1), "text %s", …) */
#define log_event(level, event, ...) log_full(level, 0, &(LogEvent) LOG_EVENT_ event, __VA_ARGS__)
#define LOG_EVENT_(...) \
        { __VA_ARGS__ }
