/* SPDX-License-Identifier: MIT */
/* A message to workers, as it was typed; see message.h. */

#include "cli/message.h"

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "basic/text.h"

/* How much of what was found is repeated. */
#define FOUND_MAX 60

/* The usual mistake is that the shell took the quotes away, so that what has arrived is shown, and how it is
 * to be written. */
static int explain(const char *text, const char *why, char **ret) {
        int r;

        r = text_outcome(MESSAGE_INVALID, ret,
                        "the message must be JSON, in quotes for the shell, like '\"text\"' or '{\"key\":1}': "
                        "found \"%.*s%s\" (%s)",
                        FOUND_MAX, text, strlen(text) > FOUND_MAX ? "..." : "", why);
        if (r > 0)
                text_make_printable(*ret);
        return r;
}

int message_format(const char *text, unsigned worker, char **ret) {
        char member[32] = "";
        json_error_t error;
        json_t *json;

        json = json_loads(text, JSON_DECODE_ANY | JSON_REJECT_DUPLICATES, &error);
        if (!json)
                return json_error_code(&error) == json_error_out_of_memory ? -ENOMEM
                                                                           : explain(text, error.text, ret);
        json_decref(json);
        if (worker > 0)
                snprintf(member, sizeof(member), "\"worker\":%u,", worker);
        if (asprintf(ret, "{%s\"message\":%s}", member, text) < 0) {
                *ret = NULL;
                return -ENOMEM;
        }
        return 0;
}
