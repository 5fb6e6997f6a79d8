/* SPDX-License-Identifier: MIT */
/* The words of sd_notify(3); see notify-message.h.
 *
 * Programs are written against systemd, so what is doubtful is read as systemd reads it: lines end with \n
 * or \r, empty ones do not count, the last of READY=, RELOADING= and STOPPING= wins, of others the first,
 * and a BARRIER=1 that is not alone spoils the whole message. The one thing that is stricter is text that is
 * not UTF-8. */

#include "master/notify-message.h"

#include <errno.h>
#include <string.h>

#include "basic/macro.h"
#include "basic/parse.h"
#include "basic/text.h"

/* The kernel's MAX_ERRNO: no errno is greater. */
#define ERRNO_MAX 4095

/* UINT64_MAX and the NUL byte. */
#define NUMBER_STRING_MAX 21

typedef struct Span {
        const char *p;
        size_t n;
} Span;

static bool span_equal(Span s, const char *text) {
        return s.n == strlen(text) && memcmp(s.p, text, s.n) == 0;
}

/* In @size bytes; the text is UTF-8 already and stays it. */
static void span_to_printable(Span s, char *buf, size_t size) {
        size_t n = MIN(s.n, size - 1);

        if (n < s.n)
                while (n > 0 && ((unsigned char) s.p[n] & 0xC0) == 0x80)
                        n--;
        memcpy(buf, s.p, n);
        buf[n] = '\0';
        text_make_printable(buf);
}

static bool span_to_uint64(Span s, uint64_t *ret) {
        char buf[NUMBER_STRING_MAX];

        if (s.n >= sizeof(buf))
                return false;
        memcpy(buf, s.p, s.n);
        buf[s.n] = '\0';
        return parse_uint64(buf, ret) == 0;
}

static bool is_utf8(const char *text, size_t n) {
        for (size_t i = 0; i < n;) {
                const unsigned char *p = (const unsigned char *) text + i;
                size_t length = *p < 0x80 ? 1 : text_utf8_sequence(p, n - i);

                if (length == 0)
                        return false;
                i += length;
        }
        return true;
}

/*
 * The names. Each function returns whether the value makes sense.
 */

static bool take_ready(NotifyMessage *m, Span value) {
        if (!span_equal(value, "1"))
                return false;
        m->ready = true;
        m->reloading = m->stopping = false;
        return true;
}

static bool take_reloading(NotifyMessage *m, Span value) {
        if (!span_equal(value, "1"))
                return false;
        m->reloading = true;
        m->ready = m->stopping = false;
        return true;
}

static bool take_stopping(NotifyMessage *m, Span value) {
        if (!span_equal(value, "1"))
                return false;
        m->stopping = true;
        m->ready = m->reloading = false;
        return true;
}

static bool take_barrier(NotifyMessage *m, Span value) {
        if (!span_equal(value, "1"))
                return false;
        m->barrier = true;
        return true;
}

static bool take_watchdog(NotifyMessage *m, Span value) {
        m->watchdog = span_equal(value, "1");
        m->watchdog_trigger = span_equal(value, "trigger");
        return m->watchdog || m->watchdog_trigger;
}

static bool take_status(NotifyMessage *m, Span value) {
        m->has_status = true;
        span_to_printable(value, m->status, sizeof(m->status));
        return true;
}

static bool take_errno(NotifyMessage *m, Span value) {
        uint64_t v;

        if (!span_to_uint64(value, &v) || v > ERRNO_MAX)
                return false;
        m->error = (int) v;
        return true;
}

static bool take_extend_timeout(NotifyMessage *m, Span value) {
        return span_to_uint64(value, &m->extend_timeout_usec);
}

static const struct {
        const char *name;
        bool (*take)(NotifyMessage *m, Span value);
        bool again; /* not only the first one counts */
} notify_names[] = {
        { "READY=", take_ready, true },
        { "RELOADING=", take_reloading, true },
        { "STOPPING=", take_stopping, true },
        { "BARRIER=", take_barrier, true },
        { "WATCHDOG=", take_watchdog, false },
        { "STATUS=", take_status, false },
        { "ERRNO=", take_errno, false },
        { "EXTEND_TIMEOUT_USEC=", take_extend_timeout, false },
};

static void ignore_line(NotifyMessage *m, Span line) {
        if (m->n_ignored++ == 0)
                span_to_printable(line, m->ignored, sizeof(m->ignored));
}

/* @seen has a bit for every name that came. */
static void take_line(NotifyMessage *m, Span line, unsigned *seen) {
        for (size_t i = 0; i < ELEMENTSOF(notify_names); i++) {
                size_t n = strlen(notify_names[i].name);
                unsigned bit = 1U << i;

                if (line.n < n || memcmp(line.p, notify_names[i].name, n) != 0)
                        continue;
                if (notify_names[i].again || !(*seen & bit))
                        if (!notify_names[i].take(m, (Span){ line.p + n, line.n - n }))
                                ignore_line(m, line);
                *seen |= bit;
                return;
        }
}

int notify_message_parse(const char *text, size_t n, NotifyMessage *ret) {
        NotifyMessage m = { .ready = false };
        unsigned seen = 0, n_lines = 0;

        if (n > 0 && text[n - 1] == '\0')
                n--;
        if (n > 0 && (memchr(text, '\0', n) || !is_utf8(text, n)))
                return -EBADMSG;

        for (size_t i = 0; i < n;) {
                size_t end = i;

                while (end < n && text[end] != '\n' && text[end] != '\r')
                        end++;
                if (end > i) {
                        take_line(&m, (Span){ text + i, end - i }, &seen);
                        n_lines++;
                }
                i = end + 1;
        }
        if (m.barrier && n_lines > 1) {
                m = (NotifyMessage){ .ready = false };
                m.n_ignored = 1;
                strcpy(m.ignored, "BARRIER=1 beside others");
        }
        *ret = m;
        return 0;
}
