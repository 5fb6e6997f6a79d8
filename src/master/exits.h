/* SPDX-License-Identifier: MIT */
#pragma once

/* The exit records: how the last workers of an app ended, for whoever asks why. Each end is also one entry
 * of the journal, with a MESSAGE_ID of its cause, whose text in the catalog says what to do. */

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>

#include "master/worker.h"

#define EXITS_MAX 64

typedef enum ExitCause {
        EXIT_RETIRED,      /* told to go, by a stop, a reload or a scale; and it did */
        EXIT_REQUESTED,    /* it had asked to be replaced */
        EXIT_MAX_REQUESTS, /* one of the limits of muster.conf(5) */
        EXIT_MAX_MEMORY,
        EXIT_MAX_AGE,
        EXIT_ABANDONED,      /* killed, as its start or its reload had failed elsewhere */
        EXIT_STOPPED,        /* with status 0, though nobody had told it to */
        EXIT_FAILURE_STATUS, /* with another status */
        EXIT_CRASHED,        /* by a signal that the master had not sent */
        EXIT_START_TIMEOUT,
        EXIT_STOP_TIMEOUT,
        EXIT_WATCHDOG,
        EXIT_OUT_OF_MEMORY, /* by the OOM killer; only a control group can tell */
        _EXIT_CAUSE_MAX,
} ExitCause;

typedef struct ExitRecord {
        char agent[AGENT_NAME_MAX + 1]; /* "": it was a worker */
        unsigned slot;
        pid_t pid;
        pid_t serving_pid; /* of a worker with a twin: who served last, and left the log and the core; 0:
                              none */
        uint64_t generation;
        ExitCause cause;
        int code;           /* CLD_EXITED, CLD_KILLED or CLD_DUMPED */
        int status;         /* exit status or signal */
        uint64_t time_usec; /* of the end, since the epoch */
        uint64_t uptime_usec;
        uint64_t peak_memory_bytes;          /* 0: not known */
        uint64_t cpu_usec;                   /* of one that was taken over from: not known */
        bool taken_over;                     /* by its twin: the worker lives on */
        char reason[WORKER_EXIT_STRING_MAX]; /* for people */
        char status_text[WORKER_TEXT_MAX];   /* what it had said last about itself */
} ExitRecord;

typedef struct Exits {
        ExitRecord items[EXITS_MAX]; /* a ring */
        uint64_t n;                  /* ever */
} Exits;

ExitCause exit_cause_of(const Worker *w);

const char *exit_cause_to_string(ExitCause cause);

/* @w has ended: makes the record, and the entry of the journal. The record is valid until EXITS_MAX more. */
const ExitRecord *exits_add(Exits *e, const Worker *w);

/* The same for a process of @w from which its twin took over. */
const ExitRecord *exits_add_death(Exits *e, const Worker *w, const WorkerDeath *d);

/* The JSON array of the records, the oldest first. */
void exits_write(const Exits *e, FILE *f);
