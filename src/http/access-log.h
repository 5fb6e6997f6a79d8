/* SPDX-License-Identifier: MIT */
#pragma once

/* The line that an access log has of a request. Pure: a record in, text out; no allocation, no clock.
 *
 * Whatever a client sends, a line is one line, and it can be read back: in the two classic formats by what
 * reads those of nginx and Apache, in the third by every parser of JSON. What is overlong is cut and says
 * so. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "basic/proxy-protocol.h"
#include "http/exchange.h"

typedef enum AccessLogFormat {
        ACCESS_LOG_COMMON,   /* client - - [time] "request line" status bytes */
        ACCESS_LOG_COMBINED, /* and "referer" "user agent" */
        ACCESS_LOG_JSON,     /* an object */
        _ACCESS_LOG_FORMAT_MAX,
        _ACCESS_LOG_FORMAT_INVALID = -22,
} AccessLogFormat;

AccessLogFormat access_log_format_from_string(const char *s);

/* Bytes as a client sent them, borrowed. Without any there was no such thing. */
typedef struct AccessLogText {
        const char *text;
        size_t size;
} AccessLogText;

typedef struct AccessLogRecord {
        int64_t time_usec; /* since the epoch: when the answer was complete */
        uint64_t duration_usec;
        ProxyAddress peer;
        unsigned worker;
        uint64_t number; /* of the request among those of the worker */

        AccessLogText line; /* the first line; of what is no request, whatever there is of it */
        /* Parts of the line, when it is one of a request. */
        AccessLogText method, target, protocol;
        AccessLogText host, referer, user_agent;

        unsigned status;
        uint64_t bytes; /* of the answer's body */
        bool aborted;   /* it did not come to its end */
} AccessLogRecord;

/* All but the two times and the worker, of an exchange that is over. */
void access_log_record_init(AccessLogRecord *r, const Exchange *x);

/* Takes the first line of the @n bytes that a client sent, and looks for its parts. */
void access_log_record_set_line(AccessLogRecord *r, const char *head, size_t n);

/* A buffer of this size has room for any line, with its end. */
#define ACCESS_LOG_LINE_MAX (32 * 1024)

/* Writes the line with its end, no NUL, and returns its size. 0: it might not fit. */
size_t access_log_format(AccessLogFormat format, const AccessLogRecord *r, char *buf, size_t size);
