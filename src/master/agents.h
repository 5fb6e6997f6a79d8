/* SPDX-License-Identifier: MIT */
#pragma once

/* Agents: companion processes of the app that are one each, a private Redis for example.
 *
 * They are there before the first worker and after the last one. At the start each of them is started when
 * the one before is ready, and the workers follow; one that ends before all workers are ready fails the
 * start. After that one that ends is started again, by the same rules as the worker of a slot, and nobody
 * else is concerned. There is never more than one process of an agent: two servers cannot have one socket.
 *
 * In a reload an agent whose configuration is the same stays as it is. One that is new has to be ready
 * before the first worker of the new generation is started, and ends with a reload that fails. What the
 * commit ends (one that is not configured any more) or replaces (one that is configured otherwise) goes on
 * until the workers of the generation before have gone. So a changed agent is no part of the transaction:
 * the old one has to be gone before anybody can know whether the new one starts. */

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <systemd/sd-event.h>

#include "basic/list.h"
#include "basic/restart.h"
#include "master/config.h"
#include "master/manager.h"
#include "master/worker.h"

#define AGENT_FAILURE_MAX WORKER_EXIT_STRING_MAX

typedef struct Agent {
        List node; /* in the order of their start */
        Manager *manager;
        char name[AGENT_NAME_MAX + 1];
        Config *config; /* with which it was started, or will be; NULL: it is new, and was not started yet */
        Config *next;   /* of the committed generation, when that is another one; NULL: it is not */
        Config *incoming; /* of the generation coming up, until that is committed or not; NULL: none */
        bool is_wanted;   /* by the committed generation */
        bool is_new;      /* for the generation coming up, which waits for it */
        Worker *worker;   /* NULL: it does not run */
        Restart restart;
        sd_event_source *retry; /* the next attempt, when there is a pause before it */
        uint64_t retry_usec;
        char failure[AGENT_FAILURE_MAX]; /* why it is not ready; "": it is, or nothing is known */
} Agent;

typedef struct Agents {
        List items;
        List workers; /* their processes */
        WorkerEnvironment environment;
} Agents;

void agents_init(Agents *a);

/* Takes the agents out of the manager's configuration. Returns 0 or -ENOMEM. */
int agents_load(Manager *m);

bool agents_are_none(const Manager *m);

/* The event loop is there, and all else that their processes want. */
void agents_attach(Manager *m);

/* The start: one after the other; then manager_start_workers() is called, or manager_start_failed(). */
void agents_start(Manager *m);

/* A reload begins, for which those of m->next_config are taken. Returns 1 when all that are needed are
 * ready; 0: reload_on_agents_ready() or reload_on_lost() will be called; or a negative errno, and why is in
 * m->failure. */
int agents_prepare(Manager *m);

/* How it has ended. */
void agents_commit(Manager *m);
void agents_roll_back(Manager *m);

/* A worker has gone: ends and replaces what has waited for the last one of the generation before. */
void agents_tidy(Manager *m);

/* The workers are gone: ends the agents, those that were started last first. Returns whether none is left;
 * else manager_check_finished() is called again. */
bool agents_stop(Manager *m);

/* Ends all of them at once. */
void agents_kill(Manager *m);

/* @w, which is ready, hangs. */
void agents_hang(Manager *m, Worker *w);

/* One that has been well for a while is not failing any more, and what could not be started is tried again.
 */
void agents_look(Manager *m, uint64_t now_usec);

/* How often somebody has to look for one that hangs; USEC_INFINITY: never. */
uint64_t agents_watchdog_usec(const Manager *m);

bool agent_is_ready(const Agent *a);

/* "ready", "starting", "ending", "waiting" (for the next attempt, or for those before it) or "failing" */
const char *agent_state_to_string(const Agent *a);

/* Drops all of them. */
void agents_done(Manager *m);
