/* SPDX-License-Identifier: MIT */
#pragma once

/* What the kernel knows of a TCP socket that a listener has accepted, from which it follows how far reading
 * and writing have come, whoever died in the middle of either. */

#include <stdbool.h>
#include <stdint.h>

/* A connection of which neither side can say anything more is `reset`, and of it nothing else is known: it
 * was broken, or each side knows that the other one has said its last word. */
typedef struct Truth {
        uint64_t received; /* bytes that somebody has read */
        uint64_t sent; /* bytes that the kernel has taken, those included that it keeps back (MSG_MORE) */
        bool reset;
        bool shut;        /* our FIN is on its way: nothing more can be sent */
        bool half_closed; /* the client's FIN has come */
} Truth;

/* The counters as the kernel gives them. */
typedef struct TruthCounters {
        uint8_t state;           /* TCP_* of netinet/tcp.h */
        uint64_t bytes_received; /* in order, whether they were read or not */
        uint64_t bytes_acked;    /* by the client */
        int unread, unsent;      /* SIOCINQ, SIOCOUTQ: which has what is not acknowledged */
} TruthCounters;

/* Pure. */
void truth_from_counters(const TruthCounters *c, Truth *ret);

/* An urgent byte is left out by who reads, which no counter tells: what this listener accepts from here on
 * has it among the others. Every listener of whose sockets truth_read() is to be right needs this. */
int truth_prepare_listener(int listen_fd);

/* Reads the counters until two readings agree; nobody else may use the socket meanwhile.
 *
 * -EOPNOTSUPP: it is no TCP socket, or the kernel counts too little; -EAGAIN: it was accepted before its
 * handshake was over (TCP_FASTOPEN), and is not counted yet; -EIO: the counters do not come to rest. */
int truth_read(int fd, Truth *ret);
