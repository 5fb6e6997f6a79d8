/* SPDX-License-Identifier: MIT */
/* The messages of Node's cluster; see cluster-wire.h. */

#include "ipc/cluster-wire.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "basic/macro.h"

/* uv.h: UV_TCP_IPV6ONLY and UV_UDP_IPV6ONLY are the same bit; UV_UDP_REUSEADDR. */
#define FLAG_IPV6_ONLY     1
#define FLAG_REUSE_ADDRESS 4

enum {
        CMD,
        ACT,
        SEQ,
        ACK,
        ACCEPTED,
        KEY,
        ADDRESS,
        PORT,
        TYPE,
        FD,
        FLAGS,
        BACKLOG,
        READABLE_ALL,
        WRITABLE_ALL,
        INDEX,
        DATA,
        WATCH_REQUIRE,
        WATCH_IMPORT,
        _MEMBERS,
};

static const char *const member_names[_MEMBERS] = {
        [CMD] = "cmd",
        [ACT] = "act",
        [SEQ] = "seq",
        [ACK] = "ack",
        [ACCEPTED] = "accepted",
        [KEY] = "key",
        [ADDRESS] = "address",
        [PORT] = "port",
        [TYPE] = "addressType",
        [FD] = "fd",
        [FLAGS] = "flags",
        [BACKLOG] = "backlog",
        [READABLE_ALL] = "readableAll",
        [WRITABLE_ALL] = "writableAll",
        [INDEX] = "index",
        [DATA] = "data",
        [WATCH_REQUIRE] = "watch:require",
        [WATCH_IMPORT] = "watch:import",
};

static const struct {
        const char *name;
        ClusterAct act;
} acts[] = {
        { "online", CLUSTER_ONLINE },
        { "queryServer", CLUSTER_QUERY },
        { "listening", CLUSTER_LISTENING },
        { "close", CLUSTER_CLOSE },
        { "exitedAfterDisconnect", CLUSTER_LEAVING },
};

static bool is_word(JsonSpan value, const char *word) {
        return value.p && value.n == strlen(word) && memcmp(value.p, word, value.n) == 0;
}

/* undefined and null */
static bool is_nothing(JsonSpan value) {
        return !value.p || is_word(value, "null");
}

/* Also in a string, as in bind(process.env.PORT): Node passes on what the app gave, and leaves it to its C++
 * to make a number of it. */
static bool read_integer(JsonSpan value, int64_t min, int64_t max, int64_t fallback, int64_t *ret) {
        if (is_nothing(value)) {
                *ret = fallback;
                return true;
        }
        if (value.n >= 2 && value.p[0] == '"')
                value = (JsonSpan){ value.p + 1, value.n - 2 };
        return json_span_to_integer(value, min, max, ret);
}

static bool read_sequence(JsonSpan value, uint64_t *ret) {
        int64_t v;

        if (!read_integer(value, 0, INT64_MAX, 0, &v))
                return false;
        *ret = (uint64_t) v;
        return true;
}

static bool read_family(const JsonMember *m, bool has_fd, ClusterFamily *ret) {
        int64_t type = 0;

        if (has_fd)
                *ret = CLUSTER_FD;
        else if (json_span_is(m[TYPE].value, "udp4"))
                *ret = CLUSTER_UDP4;
        else if (json_span_is(m[TYPE].value, "udp6"))
                *ret = CLUSTER_UDP6;
        else if (!read_integer(m[TYPE].value, -1, 6, 0, &type))
                return false;
        else if (type == 4)
                *ret = CLUSTER_IPV4;
        else if (type == 6)
                *ret = CLUSTER_IPV6;
        else if (type == -1)
                *ret = CLUSTER_PATH;
        else
                return false;
        return true;
}

/* A text that is too long, or has characters in it that no address has (the NUL of an abstract socket),
 * becomes one that cannot be bound: cut or mended it would be another address, and the app is to hear of it
 * as of any that is wrong. */
static bool read_address(JsonSpan value, char buf[static CLUSTER_ADDRESS_MAX]) {
        buf[0] = '\0';
        if (is_nothing(value))
                return true;
        if (!json_span_to_text(value, buf, CLUSTER_ADDRESS_MAX))
                return false;
        if (!json_span_is(value, buf))
                strcpy(buf, CLUSTER_ADDRESS_INVALID);
        return true;
}

/* One that is no length leaves it at the default, as with Node. */
static int read_backlog(JsonSpan value) {
        int64_t backlog;

        if (!read_integer(value, 0, INT64_MAX, 0, &backlog))
                return 0;
        return (int) MIN(backlog, (int64_t) INT32_MAX);
}

static bool has_place(const ClusterQuery *q, int64_t port) {
        switch (q->family) {
        case CLUSTER_PATH:
                return *q->address;
        case CLUSTER_IPV4:
        case CLUSTER_IPV6:
                return port >= 0;
        default:
                return true; /* bind() of a UDP socket need not say which port */
        }
}

static bool read_query(const JsonMember *m, ClusterQuery *q) {
        int64_t port, fd, flags, index;

        if (!read_integer(m[PORT].value, -1, UINT16_MAX, -1, &port) ||
                        !read_integer(m[FD].value, -1, INT32_MAX, -1, &fd) ||
                        !read_integer(m[FLAGS].value, 0, UINT32_MAX, 0, &flags) ||
                        !read_integer(m[INDEX].value, 0, UINT32_MAX, 0, &index) ||
                        !read_family(m, fd >= 0, &q->family) || !read_address(m[ADDRESS].value, q->address))
                return false;
        if (!has_place(q, port))
                return false;
        q->port = port > 0 ? (uint16_t) port : 0;
        q->fd = (int) fd;
        q->is_udp = json_span_begins(m[TYPE].value, "udp");
        q->ipv6_only = flags & FLAG_IPV6_ONLY;
        q->reuse_address = (flags & FLAG_REUSE_ADDRESS) && q->is_udp;
        q->readable_all = is_word(m[READABLE_ALL].value, "true");
        q->writable_all = is_word(m[WRITABLE_ALL].value, "true");
        q->backlog = read_backlog(m[BACKLOG].value);
        q->index = (unsigned) index;
        q->data = m[DATA].value;
        return true;
}

static const struct {
        const char *name;
        ClusterAct act;
} commands[] = {
        { "NODE_HANDLE_NACK", CLUSTER_NACK },
        { "NODE_SOCKET_NOTIFY_CLOSE", CLUSTER_AWAITS_SENT },
        { "NODE_SOCKET_GET_COUNT", CLUSTER_COUNTS_SENT },
};

static bool is_internal(JsonSpan cmd) {
        return json_span_begins(cmd, "NODE_") && !json_span_is(cmd, "NODE_");
}

static ClusterAct find_command(const JsonMember *m) {
        for (size_t i = 0; i < ELEMENTSOF(commands); i++)
                if (json_span_is(m[CMD].value, commands[i].name))
                        return commands[i].act;
        if (m[WATCH_REQUIRE].value.p || m[WATCH_IMPORT].value.p)
                return CLUSTER_WATCHER;
        return is_internal(m[CMD].value) ? CLUSTER_OTHER : CLUSTER_APPLICATION;
}

static ClusterAct find_act(const JsonMember *m) {
        for (size_t i = 0; i < ELEMENTSOF(acts); i++)
                if (json_span_is(m[ACT].value, acts[i].name))
                        return acts[i].act;
        return m[ACK].value.p && m[ACCEPTED].value.p ? CLUSTER_ANSWER : CLUSTER_OTHER;
}

static bool read_members(const JsonMember *m, ClusterMessage *ret) {
        bool is_question = ret->act == CLUSTER_QUERY || ret->act == CLUSTER_LEAVING;

        if (!read_sequence(m[SEQ].value, &ret->seq) || (is_question && is_nothing(m[SEQ].value)))
                return false;
        switch (ret->act) {
        case CLUSTER_QUERY:
                return read_query(m, &ret->query);
        case CLUSTER_CLOSE:
                ret->key = m[KEY].value;
                return ret->key.p;
        case CLUSTER_ANSWER:
                ret->accepted = is_word(m[ACCEPTED].value, "true");
                return !is_nothing(m[ACK].value) && read_sequence(m[ACK].value, &ret->ack);
        default:
                return true;
        }
}

int cluster_wire_parse(const char *json, size_t n, ClusterMessage *ret) {
        JsonMember m[_MEMBERS];
        int r;

        for (size_t i = 0; i < _MEMBERS; i++)
                m[i] = (JsonMember){ .name = member_names[i] };
        r = json_scan(json, n, m, _MEMBERS);
        if (r < 0)
                return r;

        if (!json_span_is(m[CMD].value, "NODE_CLUSTER")) {
                *ret = (ClusterMessage){ .act = find_command(m), .key = m[KEY].value };
                return 0;
        }
        *ret = (ClusterMessage){ .act = find_act(m) };
        return read_members(m, ret) ? 0 : -EBADMSG;
}

bool cluster_query_equal(const ClusterQuery *a, const ClusterQuery *b) {
        return a->family == b->family && strcmp(a->address, b->address) == 0 && a->port == b->port &&
               a->fd == b->fd && a->index == b->index;
}

const char *cluster_query_to_string(const ClusterQuery *q, char buf[static CLUSTER_QUERY_STRING_MAX]) {
        const char *udp = q->is_udp ? "UDP " : "";

        if (q->family == CLUSTER_FD)
                snprintf(buf, CLUSTER_QUERY_STRING_MAX, "%sdescriptor %d", udp, q->fd);
        else if (q->family == CLUSTER_PATH)
                snprintf(buf, CLUSTER_QUERY_STRING_MAX, "%s", q->address);
        else if (!*q->address)
                snprintf(buf, CLUSTER_QUERY_STRING_MAX, "%sport %u", udp, q->port);
        else
                snprintf(buf, CLUSTER_QUERY_STRING_MAX, strchr(q->address, ':') ? "%s[%s]:%u" : "%s%s:%u",
                                udp, q->address, q->port);
        return buf;
}

/* net.Server's address(); a port alone is one of all addresses, which Node shows as IPv6's. */
static int format_sockname(const ClusterQuery *q, char *buf, size_t size) {
        const char *address = *q->address ? q->address : "::";
        char quoted[CLUSTER_ADDRESS_MAX + 8];

        (void) json_append_string(quoted, sizeof(quoted), 0, address);
        return snprintf(buf, size, ",\"sockname\":{\"address\":%s,\"family\":\"IPv%c\",\"port\":%u}", quoted,
                        strchr(address, ':') ? '6' : '4', q->port);
}

char *cluster_wire_reply(uint64_t seq, uint64_t ack, int error, const char *key, const char *data,
                const ClusterQuery *sockname) {
        char name[CLUSTER_ADDRESS_MAX + 96] = "", number[16];
        char *text;

        if (sockname && error == 0)
                (void) format_sockname(sockname, name, sizeof(name));
        /* Null and not 0: with 0 a worker compares the port that it wanted with the one that the socket has.
         */
        snprintf(number, sizeof(number), "%d", error);
        if (asprintf(&text,
                            "{\"cmd\":\"NODE_CLUSTER\",\"errno\":%s,\"key\":\"%s\",\"ack\":%" PRIu64
                            ",\"data\":%s%s,\"seq\":%" PRIu64 "}",
                            error == 0 ? "null" : number, key, ack, data ? data : "null", name, seq) < 0)
                return NULL;
        return text;
}

char *cluster_wire_none_sent(ClusterAct act, JsonSpan key) {
        const char *cmd = act == CLUSTER_COUNTS_SENT ? "NODE_SOCKET_COUNT" : "NODE_SOCKET_ALL_CLOSED";
        char *text;

        if (asprintf(&text, "{\"cmd\":\"%s\",\"key\":%.*s,\"count\":0}", cmd, (int) key.n, key.p) < 0)
                return NULL;
        return text;
}

size_t cluster_wire_connection(char buf[static CLUSTER_LINE_MAX], uint64_t seq, const char *key) {
        return (size_t) snprintf(buf, CLUSTER_LINE_MAX,
                        "{\"cmd\":\"NODE_CLUSTER\",\"act\":\"newconn\",\"key\":\"%s\",\"seq\":%" PRIu64 "}",
                        key, seq);
}

size_t cluster_wire_disconnect(char buf[static CLUSTER_LINE_MAX], uint64_t seq) {
        return (size_t) snprintf(buf, CLUSTER_LINE_MAX,
                        "{\"cmd\":\"NODE_CLUSTER\",\"act\":\"disconnect\",\"seq\":%" PRIu64 "}", seq);
}

size_t cluster_wire_acknowledge(char buf[static CLUSTER_LINE_MAX], uint64_t ack) {
        return (size_t) snprintf(
                        buf, CLUSTER_LINE_MAX, "{\"cmd\":\"NODE_CLUSTER\",\"ack\":%" PRIu64 "}", ack);
}
