/* SPDX-License-Identifier: MIT */
/* What muster-admin makes of a request: routes, conditions, bodies, and the error that is answered.
 *
 * Whatever comes, it is one question to the master or one error, never both; a number of workers is within
 * its range; a message is one line, and there is one only for who sends one; and what is answered is one
 * line of JSON in printable text. */

#include <stdlib.h>
#include <string.h>

#include "admin/answer.h"
#include "admin/api.h"
#include "basic/macro.h"
#include "fuzz.h"

#define MAX_HEAD 4096

static void check(bool condition) {
        if (!condition)
                abort();
}

static void check_error(const ApiDecision *d) {
        _cleanup_free_ char *body = answer_error_body(d->code, d->message), *text = NULL;
        const Answer answer = { .status = d->status, .allow = d->allow, .body = body };
        size_t n;

        check(d->status >= 400 && d->status < 600 && d->code && *d->message && d->workers == 0);
        check(d->worker == 0 && !d->payload);
        check((d->status == 405) == (d->allow != NULL));
        check(body && strncmp(body, "{\"error\":{\"code\":\"", 18) == 0);
        for (const char *p = body; *p; p++)
                check((unsigned char) *p >= 0x20 && *p != 0x7F);
        check(answer_format(&answer, &text, &n) == 0 && strlen(text) == n);
        check(strcmp(strstr(text, "\r\n\r\n") + 4, body) == 0);
}

static void check_decision(const ApiDecision *d) {
        check(!d->act == (d->status != 0));
        if (!d->act)
                check_error(d);
        else if (strcmp(d->act, "scale") == 0)
                check(d->workers >= 1 && d->workers <= API_WORKERS_MAX);
        else
                check(d->workers == 0);
        check(!d->payload == !(d->act && strcmp(d->act, "send") == 0));
        check(d->payload ? d->worker <= API_WORKERS_MAX && !strchr(d->payload, '\n') : d->worker == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
        const char *text = (const char *) data;
        ParserScan scan = { 0 };
        HttpRequest request;
        ApiDecision d;

        int r = parser_parse_head(&scan, text, size, MAX_HEAD, &request);
        if (r >= 400) {
                api_set_status(&d, (unsigned) r);
                check_decision(&d);
        }
        if (r != PARSER_DONE)
                return 0;
        if (!api_check_head(&request, text, &d)) {
                check_decision(&d);
                return 0;
        }
        check(d.status == 0 && !request.chunked && request.content_length <= API_BODY_MAX);
        /* all that is there is the body, whatever length was said: the parser of JSON is what is to be tried
         */
        api_decide(&request, text, text + request.head_size, size - request.head_size, &d);
        check_decision(&d);
        free(d.payload);
        return 0;
}
