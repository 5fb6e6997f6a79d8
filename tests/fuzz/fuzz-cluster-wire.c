/* SPDX-License-Identifier: MIT */
/* What a worker of Node's cluster says.
 *
 * Beyond not crashing: what is no message of Node's own is the application's, and the other way round;
 * pieces lie inside of the text; a query that is understood can be shown, equals itself, says where the
 * socket is to be, and the answer to it is JSON whatever it holds. */

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "basic/macro.h"
#include "fuzz.h"
#include "ipc/cluster-wire.h"
#include "ipc/wire.h"

static void check(bool condition) {
        if (!condition)
                abort();
}

static void check_span(JsonSpan s, const char *text, size_t n) {
        if (s.p)
                check(s.p >= text && s.n > 0 && s.p + s.n <= text + n);
}

static void check_reply(const ClusterQuery *q) {
        _cleanup_free_ char *data = q->data.p ? fuzz_text(q->data.p, q->data.n) : NULL;
        _cleanup_free_ char *reply = cluster_wire_reply(1, 2, 0, "m1", data, q);
        JsonMember name = { .name = "sockname" };

        check(reply && json_scan(reply, strlen(reply), &name, 1) == 0);
        check(name.value.p && name.value.p[0] == '{');
}

static void check_query(const ClusterQuery *q) {
        char shown[CLUSTER_QUERY_STRING_MAX];

        check(memchr(q->address, '\0', sizeof(q->address)));
        check(*cluster_query_to_string(q, shown) && strlen(shown) < sizeof(shown));
        check(cluster_query_equal(q, q));
        check(q->backlog >= 0 && q->fd >= -1);
        check((q->family == CLUSTER_FD) == (q->fd >= 0));
        check(q->family != CLUSTER_PATH || *q->address);
        if (q->family == CLUSTER_UDP4 || q->family == CLUSTER_UDP6)
                check(q->is_udp);
        check(!q->reuse_address || q->is_udp);
        check_reply(q);
}

static void check_message(const ClusterMessage *m, const char *text, size_t n) {
        WireLine line;

        check_span(m->key, text, n);
        check_span(m->query.data, text, n);
        if (m->act == CLUSTER_QUERY)
                check_query(&m->query);
        if (m->act == CLUSTER_CLOSE)
                check(m->key.p != NULL);
        if (wire_parse(text, n, &line) == 0 && line.kind == WIRE_MESSAGE && m->act != CLUSTER_WATCHER)
                check(line.internal == (m->act != CLUSTER_APPLICATION));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
        char *text = malloc(size > 0 ? size : 1); /* of the very size, for the sanitizer */
        ClusterMessage m;
        int r;

        check(text != NULL);
        if (size > 0)
                memcpy(text, data, size);
        r = cluster_wire_parse(text, size, &m);
        check(r == 0 || r == -EBADMSG);
        if (r == 0)
                check_message(&m, text, size);
        free(text);
        return 0;
}
