/* SPDX-License-Identifier: MIT */
#pragma once

/* What a Node.js worker and the primary of its cluster module say to each other on their channel: objects
 * whose "cmd" is "NODE_CLUSTER". Measured with Node 14 to 25, as there is no specification; see
 * lib/internal/cluster in Node's source. No input, no output: text in, meaning out, and the other way round.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "ipc/json.h"

typedef enum ClusterAct {
        CLUSTER_APPLICATION, /* no message of Node's own */
        CLUSTER_OTHER,       /* nothing that concerns a primary */
        CLUSTER_ONLINE,      /* the worker begins, before the app's own code */
        CLUSTER_QUERY,       /* the app listens or binds: it wants a socket */
        CLUSTER_LISTENING,   /* and now it does */
        CLUSTER_CLOSE,       /* it does so no more */
        CLUSTER_LEAVING,     /* the app has told its worker to disconnect; it waits for an answer */
        CLUSTER_ANSWER,      /* to a connection that it was passed */
        CLUSTER_NACK, /* a descriptor has not arrived: there was none for it, or the message was a ping */
        CLUSTER_AWAITS_SENT, /* of connections that the app has sent here: tell when all are closed... */
        CLUSTER_COUNTS_SENT, /* ... or how many are not; its server waits for that */
        CLUSTER_WATCHER, /* this is not the app, but "node --watch", which has the channel in its place */
} ClusterAct;

typedef enum ClusterFamily {
        CLUSTER_IPV4, /* also of a port alone */
        CLUSTER_IPV6,
        CLUSTER_PATH, /* a unix socket */
        CLUSTER_UDP4,
        CLUSTER_UDP6,
        CLUSTER_FD, /* listen({ fd }), bind({ fd }): a descriptor of the primary's, as far as Node is
                       concerned */
} ClusterFamily;

/* Longer than any path of a unix socket. */
#define CLUSTER_ADDRESS_MAX 256

/* What stands for an address that there cannot be: nothing can be bound to it. */
#define CLUSTER_ADDRESS_INVALID "?"

/* The socket that is wanted. Workers that want the same get the same. */
typedef struct ClusterQuery {
        ClusterFamily family;
        char address[CLUSTER_ADDRESS_MAX]; /* as the app gave it, resolved; "": any. Or the path */
        uint16_t port;                     /* 0: any */
        int fd;                            /* for CLUSTER_FD */
        bool is_udp;
        bool ipv6_only;
        bool reuse_address; /* UDP */
        bool readable_all;  /* a unix socket whose file is for everybody to read, or... */
        bool writable_all;  /* ... to write, which is to connect */
        int backlog;        /* 0: none was given */
        unsigned index;     /* tells several of the same address in one worker apart */
        JsonSpan data; /* what the first to ask gave is told to all that ask; TLS: the keys of its tickets */
} ClusterQuery;

typedef struct ClusterMessage {
        ClusterAct act;
        uint64_t seq;       /* of a message that wants an answer */
        uint64_t ack;       /* CLUSTER_ANSWER: the seq of what it answers */
        bool accepted;      /* CLUSTER_ANSWER */
        JsonSpan key;       /* CLUSTER_CLOSE, ..._SENT: of the socket or the server, raw */
        ClusterQuery query; /* CLUSTER_QUERY, and CLUSTER_LISTENING as far as it goes */
} ClusterMessage;

/* Returns 0, or -EBADMSG: it is said to be of Node's cluster, and makes no sense. @json is one JSON value.
 */
int cluster_wire_parse(const char *json, size_t n, ClusterMessage *ret);

/* Whether two workers want the same socket. */
bool cluster_query_equal(const ClusterQuery *a, const ClusterQuery *b);

/* "port 3000", "127.0.0.1:3000", "[::1]:3000", "/run/app.sock", "UDP port 53", "UDP descriptor 3": for
 * people.
 */
#define CLUSTER_QUERY_STRING_MAX (CLUSTER_ADDRESS_MAX + 32)
const char *cluster_query_to_string(const ClusterQuery *q, char buf[static CLUSTER_QUERY_STRING_MAX]);

/* The answer to a query. @error: a negative errno, or 0. @data: JSON. @sockname: the query for whose address
 * a worker that is passed connections is told that it has; NULL for none. Returns a fresh text, or NULL
 * without memory. */
char *cluster_wire_reply(uint64_t seq, uint64_t ack, int error, const char *key, const char *data,
                const ClusterQuery *sockname);

/* The answer to CLUSTER_AWAITS_SENT and CLUSTER_COUNTS_SENT: there are none. Likewise. */
char *cluster_wire_none_sent(ClusterAct act, JsonSpan key);

/* The other messages of a primary; each fits into a buffer of this size. */
#define CLUSTER_LINE_MAX 160

/* Here is a connection, with its descriptor. */
size_t cluster_wire_connection(char buf[static CLUSTER_LINE_MAX], uint64_t seq, const char *key);

/* Stop listening, finish what is open, and disconnect. */
size_t cluster_wire_disconnect(char buf[static CLUSTER_LINE_MAX], uint64_t seq);

/* The answer to CLUSTER_LEAVING. */
size_t cluster_wire_acknowledge(char buf[static CLUSTER_LINE_MAX], uint64_t ack);

/* An envelope without a descriptor: every runtime that has Node's channel answers it from its event loop,
 * and tells the app nothing. Until the answer has come no descriptor may be sent: the empty envelope would
 * take it. */
#define CLUSTER_PING "{\"cmd\":\"NODE_HANDLE\",\"type\":\"net.Native\",\"msg\":null}"
