/* SPDX-License-Identifier: MIT */
/* A datagram that a worker sent.
 *
 * Beyond not crashing: it is refused if and only if it is not text; of what excludes each other there is
 * never more than one; what is shown to people is printable, UTF-8, and short; and a message means the same
 * with empty lines and unknown names added, unless it is a barrier. */

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "basic/macro.h"
#include "basic/text.h"
#include "fuzz.h"
#include "master/notify-message.h"

static void check(bool condition) {
        if (!condition)
                abort();
}

/* Told in another way than the parser does: no byte of a copy needs a '?'. */
static bool is_text(const char *text, size_t n) {
        _cleanup_free_ char *copy = malloc(n + 1), *printable = malloc(n + 1);

        check(copy && printable);
        if (n > 0 && text[n - 1] == '\0')
                n--;
        for (size_t i = 0; i < n; i++) {
                copy[i] = (unsigned char) text[i] < 0x20 || text[i] == 0x7F ? ' ' : text[i];
                if (text[i] == '\0')
                        return false;
        }
        copy[n] = '\0';
        strcpy(printable, copy);
        text_make_printable(printable);
        return strcmp(copy, printable) == 0;
}

static void check_shown(const char *s, size_t size) {
        char copy[MAX(NOTIFY_STATUS_MAX, NOTIFY_IGNORED_MAX)];

        check(memchr(s, '\0', size) != NULL);
        strcpy(copy, s);
        text_make_printable(copy);
        check(strcmp(copy, s) == 0);
}

static void check_message(const NotifyMessage *m) {
        check(m->ready + m->reloading + m->stopping <= 1);
        check(m->watchdog + m->watchdog_trigger <= 1);
        check(m->error >= 0 && m->error < 4096);
        if (m->barrier)
                check(!m->ready && !m->reloading && !m->stopping && !m->watchdog && !m->watchdog_trigger &&
                                !m->has_status && m->error == 0 && m->extend_timeout_usec == 0 &&
                                m->n_ignored == 0);
        check(m->has_status || m->status[0] == '\0');
        check((m->n_ignored > 0) == (m->ignored[0] != '\0'));
        check_shown(m->status, sizeof(m->status));
        check_shown(m->ignored, sizeof(m->ignored));
}

static bool same(const NotifyMessage *a, const NotifyMessage *b) {
        return a->ready == b->ready && a->reloading == b->reloading && a->stopping == b->stopping &&
               a->watchdog == b->watchdog && a->watchdog_trigger == b->watchdog_trigger &&
               a->barrier == b->barrier && a->has_status == b->has_status && a->error == b->error &&
               a->extend_timeout_usec == b->extend_timeout_usec && a->n_ignored == b->n_ignored &&
               strcmp(a->status, b->status) == 0 && strcmp(a->ignored, b->ignored) == 0;
}

static void check_with_more(const char *text, size_t n, const NotifyMessage *m) {
        static const char head[] = "\r\nMAINPID=1\n", tail[] = "\n\nUNKNOWN=READY=1\r";
        _cleanup_free_ char *longer = malloc(sizeof(head) + n + sizeof(tail));
        NotifyMessage again;

        check(longer != NULL);
        if (n > 0 && text[n - 1] == '\0')
                n--;
        memcpy(longer, head, strlen(head));
        if (n > 0)
                memcpy(longer + strlen(head), text, n);
        memcpy(longer + strlen(head) + n, tail, strlen(tail));
        check(notify_message_parse(longer, strlen(head) + n + strlen(tail), &again) == 0);
        if (m->barrier)
                check(!again.barrier && again.n_ignored == 1);
        else
                check(same(m, &again));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
        const char *text = (const char *) data;
        NotifyMessage m;
        int r;

        r = notify_message_parse(text, size, &m);
        check(r == 0 || r == -EBADMSG);
        check((r == 0) == is_text(text, size));
        if (r < 0)
                return 0;
        check_message(&m);
        check_with_more(text, size, &m);
        return 0;
}
