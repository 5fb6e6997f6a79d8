/* SPDX-License-Identifier: MIT */
#pragma once

/* The channel to the master: questions go out with a number, and answers find whoever asked by it. */

#include <stddef.h>
#include <systemd/sd-event.h>

#include "basic/macro.h"

typedef struct MasterLink MasterLink;
typedef struct MasterQuestion MasterQuestion;

/* What it is asked: the members of a question go along unless they are 0 or NULL. */
typedef struct MasterRequest {
        const char *act;
        unsigned workers;
        unsigned worker;
        const char *message; /* JSON on one line */
} MasterRequest;

/* What the master said. */
typedef struct MasterReply {
        const char *code; /* NULL: it is done; else why not, a word for programs */
        const char *text; /* the JSON object of the result, or a sentence for people */
} MasterReply;

/* Called once, never from within master_link_ask(); the question is gone then. @reply is NULL when the
 * master is. */
typedef void (*master_reply_handler_t)(const MasterReply *reply, void *userdata);

/* Takes the channel from the environment. @on_lost is called once when it has ended, after all who wait were
 * told. Returns 0 or a negative errno. */
int master_link_new(sd_event *event, void (*on_lost)(void *userdata), void *userdata, MasterLink **ret);

/* Asks. Returns 0 or a negative errno, -EPIPE when the master is gone. */
int master_link_ask(MasterLink *link, const MasterRequest *request, master_reply_handler_t handler,
                void *userdata, MasterQuestion **ret);

/* Nobody wants to hear the answer any more; what was asked for is done all the same. NULL is allowed. */
MasterQuestion *master_question_forget(MasterQuestion *question);

MasterLink *master_link_free(MasterLink *link);
DEFINE_CLEANUP(MasterLink, master_link_free)
