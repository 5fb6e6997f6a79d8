/* SPDX-License-Identifier: MIT */
/* Messages from worker to worker; see forward.h. */

#include "ipc/forward.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "basic/macro.h"

/* Longer than any word that is looked for. */
#define WORD_MAX 16

static bool is_reserved(JsonSpan cmd) {
        char word[WORD_MAX];

        (void) json_span_to_text(cmd, word, sizeof(word));
        return strcmp(word, "MUSTER") == 0 || strncmp(word, "NODE_", strlen("NODE_")) == 0;
}

/* A program's JSON is not always spelled as JSON.stringify() would, and may have a name twice. Node reads
 * all spellings, others only the plain one; one takes the first of several, another the last. So none of
 * them may be reserved. */
bool forward_is_for_application(const char *json, size_t n) {
        JsonMember cmd = { .name = "cmd", .any_spelling = true, .accept = is_reserved };

        (void) json_scan(json, n, &cmd, 1); /* the caller has done so before */
        return !cmd.value.p;
}

static const char *check_data(const Forward *f) {
        if (!f->message.p)
                return "it has no \"data\"";
        if (!forward_is_for_application(f->message.p, f->message.n))
                return "its \"data\" has a \"cmd\" that is MUSTER or begins with NODE_, which is not the application's";
        return NULL;
}

bool forward_parse(const char *json, size_t n, Forward *ret) {
        enum { CMD, ACT, WORKER, DATA };
        JsonMember m[] = { [CMD] = { .name = "cmd" },
                [ACT] = { .name = "act" },
                [WORKER] = { .name = "worker" },
                [DATA] = { .name = "data" } };
        int64_t slot = 0;

        *ret = (Forward){ .act = FORWARD_NONE };
        if (json_scan(json, n, m, ELEMENTSOF(m)) < 0 || !json_span_is(m[CMD].value, "MUSTER"))
                return false;
        if (json_span_is(m[ACT].value, "publish")) {
                *ret = (Forward){ .act = FORWARD_PUBLISH, .message = { json, n } };
                return true;
        }
        bool send = json_span_is(m[ACT].value, "send");
        if (!send && !json_span_is(m[ACT].value, "broadcast"))
                return false;
        *ret = (Forward){ .act = send ? FORWARD_SEND : FORWARD_BROADCAST, .message = m[DATA].value };
        if (send && !json_span_to_integer(m[WORKER].value, 1, UINT_MAX, &slot))
                ret->refused = "its \"worker\" is not the number of one";
        else
                ret->refused = check_data(ret);
        ret->slot = (unsigned) slot;
        return true;
}

size_t forward_write_head(ForwardAct act, unsigned slot, char buf[static FORWARD_HEAD_MAX]) {
        int n;

        if (act == FORWARD_SEND)
                n = snprintf(buf, FORWARD_HEAD_MAX,
                                "{\"cmd\":\"MUSTER\",\"act\":\"send\",\"worker\":%u,\"data\":", slot);
        else
                n = snprintf(buf, FORWARD_HEAD_MAX, "{\"cmd\":\"MUSTER\",\"act\":\"broadcast\",\"data\":");
        return (size_t) n;
}

uint64_t forward_account_add(ForwardAccount *a, uint64_t now_usec, uint64_t bytes, uint64_t max) {
        if (now_usec - a->since_usec >= FORWARD_INTERVAL_USEC)
                *a = (ForwardAccount){ .since_usec = now_usec };
        a->bytes += bytes;
        return a->bytes > max ? a->since_usec + FORWARD_INTERVAL_USEC - now_usec : 0;
}
