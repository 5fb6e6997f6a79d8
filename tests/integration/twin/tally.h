/* SPDX-License-Identifier: MIT */
#ifndef TWIN_TALLY_H
#define TWIN_TALLY_H

/* What became of the requests: counters of each thread, the failures in detail, and a ledger of the requests
 * with an effect, which is compared with the effects in the end. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum Kind {
        MEMORY,   /* from memory */
        FILE_,    /* of a file */
        HEAD,     /* no body, but its size */
        RANGE,    /* a piece of a file */
        DEFERRED, /* answered by a timer */
        THREADED, /* made by a thread */
        STREAM,   /* in chunks, as fast as they are read, with checkpoints */
        TIMED,    /* likewise, piece by piece as time passes */
        SIZED,    /* likewise, its size is announced */
        BARE,     /* in chunks without checkpoints: may be aborted */
        KEYED,    /* POST with an effect that is made once for the request's id */
        UNKEYED,  /* POST with an effect that is not */
        _KIND_MAX,
} Kind;

typedef enum Failure {
        CONNECT, /* no connection */
        RESET,
        CLOSED, /* the end came before the answer had come as a whole */
        STATUS, /* another one than expected */
        HEADER, /* a head other than expected */
        BODY,   /* a wrong byte, or another size */
        ORDER,  /* another request's answer */
        EXTRA,  /* bytes that nobody asked for */
        STALL,  /* nothing moved for longer than allowed; it went on in the end */
        HANG,   /* it never went on */
        NO_END, /* the connection was to be closed, and was not, or by a reset */
        _FAILURE_MAX,
} Failure;

typedef enum Outcome {
        ANSWERED,
        UNKNOWN,     /* 503: it may have been done */
        UNPROCESSED, /* behind an answer that closed the connection */
        LOST,        /* a failure, or allowed to be */
} Outcome;

typedef struct Deed {
        uint64_t id;
        uint8_t kind;
        uint8_t outcome;
} Deed;

#define HISTOGRAM_SIZE 512 /* eight to an octave of microseconds */

typedef struct Tally {
        uint64_t kinds[_KIND_MAX]; /* answered */
        uint64_t failed[_FAILURE_MAX];
        uint64_t connections, ended, closes, unknown, aborted, unprocessed, lost, abandoned, continues;
        uint64_t max_stall, max_wait; /* nsec, while this program ran; by the clock on the wall */
        uint64_t histogram[HISTOGRAM_SIZE];
        Deed *deeds;
        size_t n_deeds, size_deeds;
} Tally;

const char *kind_name(Kind kind);

void tally_add_deed(Tally *t, uint64_t id, Kind kind, Outcome outcome);
void tally_add_latency(Tally *t, uint64_t nsec);

/* Says so on stderr at once, too. */
void tally_fail(Tally *t, Failure failure, Kind kind, uint64_t id, uint64_t offset, const char *format, ...)
                __attribute__((format(printf, 6, 7)));

/* Adds up @from in @to. */
void tally_merge(Tally *to, const Tally *from);

/* What it comes to, as JSON on stdout; with the effects in the folder compared with the deeds, unless it is
 * NULL. The number of failures, those of the effects among them. */
uint64_t tally_report(Tally *t, uint64_t seed, const char *effects, uint64_t machine_stall);

#endif
