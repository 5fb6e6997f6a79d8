/* SPDX-License-Identifier: MIT */
/* Questions to the master; see master-link.h. */

#include "admin/master-link.h"

#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "basic/list.h"
#include "basic/log.h"
#include "muster/channel.h"

/* The status of many workers, with all their texts. */
#define MESSAGE_MAX (1024 * 1024)

struct MasterLink {
        muster_channel *channel; /* counted */
        void (*on_lost)(void *userdata);
        void *userdata;
        List questions; /* that wait for an answer */
        uint64_t last_id;
};

struct MasterQuestion {
        List node;
        uint64_t id;
        master_reply_handler_t handler;
        void *userdata;
};

MasterQuestion *master_question_forget(MasterQuestion *question) {
        if (!question)
                return NULL;
        list_remove(&question->node);
        free(question);
        return NULL;
}

static void question_answer(MasterQuestion *question, const MasterReply *reply) {
        master_reply_handler_t handler = question->handler;
        void *userdata = question->userdata;

        master_question_forget(question);
        handler(reply, userdata);
}

static MasterQuestion *find_question(MasterLink *link, json_int_t id) {
        list_foreach (node, &link->questions) {
                MasterQuestion *question = list_entry(node, MasterQuestion, node);

                if ((json_int_t) question->id == id)
                        return question;
        }
        return NULL;
}

static void answer_with_result(MasterQuestion *question, const json_t *result) {
        _cleanup_free_ char *text = json_dumps(result, JSON_COMPACT);

        question_answer(question, text ? &(MasterReply){ .text = text }
                                       : &(MasterReply){ .code = "failed", .text = "Out of memory." });
}

static void take_reply(MasterLink *link, const json_t *message) {
        const char *cmd = json_string_value(json_object_get(message, "cmd"));
        const char *act = json_string_value(json_object_get(message, "act"));
        const json_t *result = json_object_get(message, "result"),
                     *error = json_object_get(message, "error");
        const char *code = json_string_value(json_object_get(error, "code"));
        const char *text = json_string_value(json_object_get(error, "message"));
        MasterQuestion *question;

        if (!cmd || !act || strcmp(cmd, "MUSTER") != 0 || strcmp(act, "reply") != 0) {
                log_debug("The master said what muster-admin does not know.");
                return;
        }
        question = find_question(link, json_integer_value(json_object_get(message, "id")));
        if (!question) /* the client has gone meanwhile */
                return;
        if (json_is_object(result))
                answer_with_result(question, result);
        else
                question_answer(question, &(MasterReply){
                                                          .code = code ? code : "failed",
                                                          .text = text ? text : "The master gave no reason.",
                                          });
}

static void on_message(muster_channel *channel, muster_message *message, void *userdata) {
        size_t n;
        const char *text = muster_message_get_json(message, &n);
        json_error_t error;
        json_t *json;

        json = json_loadb(text, n, 0, &error);
        if (!json) { /* whom it answers is not known: all who wait are told that there is no master */
                log_error("Cannot read a message of the master: %s", error.text);
                (void) muster_channel_disconnect(channel);
                return;
        }
        take_reply(userdata, json);
        json_decref(json);
}

static void on_disconnected(muster_channel *channel, int error, void *userdata) {
        MasterLink *link = userdata;

        if (error < 0)
                log_debug_errno(error, "The channel to the master has ended: %m");
        while (!list_empty(&link->questions))
                question_answer(list_entry(link->questions.next, MasterQuestion, node), NULL);
        link->on_lost(link->userdata);
}

int master_link_new(sd_event *event, void (*on_lost)(void *userdata), void *userdata, MasterLink **ret) {
        _cleanup_(master_link_freep) MasterLink *link = calloc(1, sizeof(*link));
        muster_channel_handlers handlers = MUSTER_CHANNEL_HANDLERS_INIT;
        muster_channel_options options = MUSTER_CHANNEL_OPTIONS_INIT;
        int r;

        if (!link)
                return -ENOMEM;
        *link = (MasterLink){ .on_lost = on_lost, .userdata = userdata };
        list_init(&link->questions);

        options.max_message_bytes = options.max_queue_bytes = MESSAGE_MAX;
        r = muster_channel_from_environment(event, &options, &link->channel);
        if (r < 0)
                return r;
        handlers.message = on_message;
        handlers.disconnected = on_disconnected;
        r = muster_channel_set_handlers(link->channel, &handlers, link);
        if (r < 0)
                return r;
        *ret = TAKE_PTR(link);
        return 0;
}

/* A fresh text, NULL without memory. */
static char *format_request(const MasterRequest *request, uint64_t id) {
        char workers[32] = "", worker[32] = "";
        char *text;

        if (request->workers > 0)
                snprintf(workers, sizeof(workers), ",\"workers\":%u", request->workers);
        if (request->worker > 0)
                snprintf(worker, sizeof(worker), ",\"worker\":%u", request->worker);
        if (asprintf(&text, "{\"cmd\":\"MUSTER\",\"act\":\"%s\",\"id\":%" PRIu64 "%s%s%s%s}", request->act,
                            id, workers, worker, request->message ? ",\"message\":" : "",
                            request->message ? request->message : "") < 0)
                return NULL;
        return text;
}

int master_link_ask(MasterLink *link, const MasterRequest *request, master_reply_handler_t handler,
                void *userdata, MasterQuestion **ret) {
        _cleanup_free_ char *text = format_request(request, ++link->last_id);
        MasterQuestion *question;
        int r;

        question = malloc(sizeof(*question));
        if (!question || !text) {
                free(question);
                return -ENOMEM;
        }
        r = muster_channel_send(link->channel, text, /* fd= */ -1, NULL, NULL);
        if (r < 0) {
                free(question);
                return r;
        }
        *question = (MasterQuestion){ .id = link->last_id, .handler = handler, .userdata = userdata };
        list_append(&link->questions, &question->node);
        *ret = question;
        return 0;
}

MasterLink *master_link_free(MasterLink *link) {
        if (!link)
                return NULL;
        list_foreach_safe (node, &link->questions)
                master_question_forget(list_entry(node, MasterQuestion, node));
        muster_channel_unref(link->channel);
        free(link);
        return NULL;
}
