/* SPDX-License-Identifier: MIT */
/* A JSON API: POST /sum with a list of numbers gives their sum; GET /sum gives the last one of this worker.
 * Made with: cc -shared -fPIC json-api.c -o json-api.so $(pkg-config --cflags muster) $(pkg-config --cflags
 * --libs jansson) Tried with: curl -d '[1, 2.5]' 127.0.0.1:8080/sum */
#include <errno.h>
#include <jansson.h>
#include <muster/http.h>
#include <stdlib.h>
#include <string.h>

typedef struct Api {
        double sum;
        long long count;
} Api;

/* Takes the reference to @value. */
static void respond_json(muster_http_request *request, unsigned status, json_t *value) {
        char *text = value ? json_dumps(value, JSON_COMPACT) : NULL;

        if (text)
                muster_http_respond_text(request, status, "application/json", text);
        else
                muster_http_respond_status(request, 503); /* no memory */
        free(text);
        json_decref(value);
}

static void respond_sum(muster_http_request *request, const Api *api) {
        respond_json(request, 200,
                        json_pack("{s:f, s:I}", "sum", api->sum, "count", (json_int_t) api->count));
}

static void on_body(muster_http_request *request, const char *data, size_t size, int error, void *userdata) {
        Api *api = userdata;
        json_error_t problem;
        double sum = 0;
        json_t *list;

        if (error < 0)
                return; /* too large, or the client is gone: the worker says so */
        list = json_loadb(data, size, JSON_REJECT_DUPLICATES, &problem);
        if (!list) {
                respond_json(request, 400,
                                json_pack("{s:s, s:i}", "error", problem.text, "line", problem.line));
                return;
        }
        for (size_t i = 0; i < json_array_size(list); i++)
                sum += json_number_value(json_array_get(list, i));
        if (json_is_array(list)) {
                *api = (Api){ .sum = sum, .count = (long long) json_array_size(list) };
                respond_sum(request, api);
        } else
                respond_json(request, 400, json_pack("{s:s}", "error", "a list of numbers is expected"));
        json_decref(list);
}

static void on_request(muster_http_request *request, void *state) {
        if (strcmp(muster_http_get_path(request), "/sum") != 0)
                respond_json(request, 404, json_pack("{s:s}", "error", "there is only /sum"));
        else if (muster_http_get_method(request) == MUSTER_HTTP_POST)
                muster_http_collect(request, 0, on_body, state);
        else if (muster_http_get_method(request) <= MUSTER_HTTP_HEAD)
                respond_sum(request, state);
        else
                muster_http_respond_status(request, 405);
}

static int on_start(void **ret_state) {
        *ret_state = calloc(1, sizeof(Api));
        return *ret_state ? 0 : -ENOMEM;
}

MUSTER_HTTP_MODULE("json-api", .start = on_start, .request = on_request, .stop = free);
