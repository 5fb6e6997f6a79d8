/* SPDX-License-Identifier: MIT */
/* What a request asks for, and why it is refused. */

#include "../unit.h"

#include <stdio.h>
#include <string.h>

#include "admin/api.h"
#include "basic/macro.h"

/* Reads a whole request, as a client would be dealt with. */
static ApiDecision decide(const char *text) {
        ParserScan scan = { 0 };
        HttpRequest request;
        ApiDecision d;
        size_t n = strlen(text);

        assert_int_equal(parser_parse_head(&scan, text, n, 16384, &request), PARSER_DONE);
        if (api_check_head(&request, text, &d)) {
                assert_int_equal(d.status, 0);
                assert_int_equal(request.head_size + request.content_length, n);
                api_decide(&request, text, text + request.head_size, (size_t) request.content_length, &d);
        }
        assert_int_equal(!d.act, d.status != 0); /* one or the other */
        assert_int_equal(!d.code, d.status == 0);
        return d;
}

/* With a Host, and the fields that are given. */
static ApiDecision ask(const char *line, const char *fields, const char *body) {
        char text[1024];

        snprintf(text, sizeof(text), "%s HTTP/1.1\r\nHost: x\r\n%s", line, fields);
        if (body)
                snprintf(text + strlen(text), sizeof(text) - strlen(text), "Content-Length: %zu\r\n\r\n%s",
                                strlen(body), body);
        else
                strcat(text, "\r\n");
        return decide(text);
}

#define JSON "Content-Type: application/json\r\n"

/* Each question, by its methods; what follows the path does not matter. */
static void test_routes(void **state) {
        static const char *const cases[][3] = {
                { "GET /v1/status", "", "list" },
                { "HEAD /v1/status", "", "list" },
                { "GET /v1/status?pretty", "", "list" },
                { "GET http://x/v1/status", "", "list" },
                { "GET /v1/exits", "", "exits" },
                { "GET /v1/exits", "Origin: http://x\r\n", "exits" },
                { "POST /v1/reload", "", "reload" },
                { "POST /v1/reload", "Content-Length: 0\r\n", "reload" },
        };

        for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
                ApiDecision d = ask(cases[i][0], cases[i][1], NULL);

                assert_non_null(d.act);
                assert_string_equal(d.act, cases[i][2]);
                assert_int_equal(d.workers, 0);
        }
        assert_string_equal(ask("POST /v1/reload", JSON, "{}").act, "reload");
}

/* What is not there, by its path alone. */
static void test_not_found(void **state) {
        static const char *const cases[] = { "GET /", "GET /v1", "GET /v1/", "GET /v1/status/",
                "GET /v1/Status", "GET /v1/stat", "GET //v1/status", "GET /v1/%73tatus", "OPTIONS *",
                "GET /v2/status" };

        for (size_t i = 0; i < ELEMENTSOF(cases); i++)
                assert_int_equal(ask(cases[i], "", NULL).status, 404);
}

/* 405 says what is allowed. */
static void test_method(void **state) {
        ApiDecision d = ask("POST /v1/status", "", NULL);

        assert_int_equal(d.status, 405);
        assert_string_equal(d.allow, "GET, HEAD");
        d = ask("GET /v1/reload", "", NULL);
        assert_int_equal(d.status, 405);
        assert_string_equal(d.allow, "POST");
        assert_int_equal(ask("DELETE /v1/scale", "", NULL).status, 405);
        assert_int_equal(ask("OPTIONS /v1/scale", "", NULL).status, 405);
        assert_int_equal(ask("PUT /v1/scale", JSON, "{\"workers\":1}").status, 405);
}

/* A page in a browser cannot make it do anything: it cannot choose this type, and it has an Origin. */
static void test_pages(void **state) {
        static const char body[] = "{\"workers\":3}";

        assert_int_equal(ask("POST /v1/reload", "Origin: http://evil\r\n", NULL).status, 403);
        assert_int_equal(ask("POST /v1/reload", "Origin: null\r\n" JSON, "{}").status, 403);
        assert_int_equal(ask("POST /v1/scale", "Origin: http://evil\r\n" JSON, body).status, 403);
        assert_int_equal(ask("POST /v1/scale", "", body).status, 415);
        assert_int_equal(ask("POST /v1/scale", "", NULL).status, 415);
        assert_int_equal(ask("POST /v1/scale", "Content-Type: text/plain\r\n", body).status, 415);
        assert_int_equal(ask("POST /v1/scale", "Content-Type: application/jsonp\r\n", body).status, 415);
        assert_int_equal(ask("POST /v1/scale", "Content-Type: x, application/json\r\n", body).status, 415);
        assert_int_equal(ask("POST /v1/reload", "Content-Type: text/plain\r\n", "{}").status, 415);
        assert_int_equal(ask("POST /v1/scale", "content-type: Application/JSON; charset=utf-8\r\n", body)
                                         .workers,
                        3);
}

/* The number of workers, in its range. */
static void test_scale(void **state) {
        char body[64];

        for (unsigned n = 1; n <= API_WORKERS_MAX; n += 17) {
                snprintf(body, sizeof(body), " { \"workers\" : %u }\n", n);
                ApiDecision d = ask("POST /v1/scale", JSON, body);
                assert_non_null(d.act);
                assert_string_equal(d.act, "scale");
                assert_int_equal(d.workers, n);
        }
}

/* A message is any value, and becomes one line; a worker may be named. */
static void test_send(void **state) {
        static const struct {
                const char *body;
                unsigned worker;
                const char *payload;
        } cases[] = {
                { "{\"message\":\"ready\"}", 0, "\"ready\"" },
                { "{\"message\":null,\"worker\":3}", 3, "null" },
                { "{ \"worker\" : 256, \"message\" : [ 1,\n 0.5 ] }", 256, "[1,0.5]" },
                { "{\"message\":{\"b\":{},\"\\u0061\":\"\\n\xc3\xbc\"}}", 0,
                                "{\"b\":{},\"a\":\"\\n\xc3\xbc\"}" },
                { "{\"message\":{\"\\u0063md\":\"NODE\\u005fX\"}}", 0, "{\"cmd\":\"NODE_X\"}" },
        };

        for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
                ApiDecision d = ask("POST /v1/send", JSON, cases[i].body);
                _cleanup_free_ char *payload = d.payload;

                assert_non_null(d.act);
                assert_string_equal(d.act, "send");
                assert_int_equal(d.worker, cases[i].worker);
                assert_string_equal(payload, cases[i].payload);
        }
}

/* What is no such body leaves nothing behind. */
static void test_send_wrong(void **state) {
        static const char *const cases[][2] = {
                { "{}", "message: found nothing, expected a JSON value." },
                { "{\"worker\":1}", "message: found nothing, expected a JSON value." },
                { "{\"message\":1,\"worker\":0}", "worker: found 0, expected a number from 1 to 256." },
                { "{\"message\":1,\"worker\":null}",
                                "worker: found null, expected a number from 1 to 256." },
                { "{\"message\":1,\"workers\":1}",
                                "The body: found 2 members, expected \"message\" and at most \"worker\" besides." },
                { "\"message\"", "The body: found \"message\", expected an object." },
        };

        for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
                ApiDecision d = ask("POST /v1/send", JSON, cases[i][0]);

                assert_int_equal(d.status, 400);
                assert_string_equal(d.message, cases[i][1]);
                assert_null(d.payload);
                assert_int_equal(d.worker, 0);
        }
        assert_int_equal(ask("GET /v1/send", "", NULL).status, 405);
        assert_int_equal(ask("POST /v1/send", "Origin: http://x\r\n" JSON, "{\"message\":1}").status, 403);
}

/* A message is as long as the worker's channel takes it, and not longer. */
static void test_send_length(void **state) {
        size_t size = API_BODY_MAX + 1024;
        _cleanup_free_ char *text = malloc(size);

        for (int more = 0; more <= 1; more++) {
                int n = API_PAYLOAD_MAX + more;

                snprintf(text, size,
                                "POST /v1/send HTTP/1.1\r\nHost: x\r\n" JSON
                                "Content-Length: %d\r\n\r\n{\"message\":\"%0*d\"}",
                                n + 12, n - 2, 0);
                ApiDecision d = decide(text);
                _cleanup_free_ char *payload = d.payload;
                if (more == 0)
                        assert_int_equal(strlen(payload), API_PAYLOAD_MAX);
                else
                        assert_string_equal(
                                        d.message, "message: found 262145 bytes, expected at most 262144.");
        }
        assert_int_equal(ask("POST /v1/send", JSON "Content-Length: 266241\r\n", NULL).status, 413);
}

/* 400 says what was found and what was expected. */
static void test_wrong_body(void **state) {
        static const char *const cases[][2] = {
                { "", "The body is no JSON, at byte 0: expected an object." },
                { "{", "The body is no JSON, at byte 1: expected an object." },
                { "{\"workers\":1}x", "The body is no JSON, at byte 14: expected an object." },
                { "[1]", "The body: found [1], expected an object." },
                { "3", "The body: found 3, expected an object." },
                { "null", "The body: found null, expected an object." },
                { "{}", "workers: found nothing, expected a number from 1 to 256." },
                { "{\"Workers\":1}", "workers: found nothing, expected a number from 1 to 256." },
                { "{\"workers\":0}", "workers: found 0, expected a number from 1 to 256." },
                { "{\"workers\":257}", "workers: found 257, expected a number from 1 to 256." },
                { "{\"workers\":-1}", "workers: found -1, expected a number from 1 to 256." },
                { "{\"workers\":1.0}", "workers: found 1.0, expected a number from 1 to 256." },
                { "{\"workers\":\"\\u001b[m\xc3\xbc\"}",
                                "workers: found \"\\u001B[m\\u00FC\", expected a number from 1 to 256." },
                { "{\"workers\":[]}", "workers: found [], expected a number from 1 to 256." },
                { "{\"workers\":\"0123456789012345678901234567890123456789012345678901234567890123456789\"}",
                                "workers: found \"01234567890123456789012345678901234567890123456789012345678..., expected a number from 1 to 256." },
                { "{\"workers\":2,\"x\":1}", "The body: found 2 members, expected \"workers\" alone." },
        };

        for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
                ApiDecision d = ask("POST /v1/scale", JSON, cases[i][0]);

                assert_int_equal(d.status, 400);
                assert_string_equal(d.code, "invalid");
                assert_string_equal(d.message, cases[i][1]);
        }
        assert_int_equal(ask("POST /v1/scale", JSON, "{\"workers\":1,\"workers\":2}").status, 400);
        assert_int_equal(ask("POST /v1/scale", JSON, "{\"workers\":99999999999999999999}").status, 400);
        assert_int_equal(ask("POST /v1/scale", JSON, "{\"workers\":\"\xff\"}").status, 400);
        assert_int_equal(ask("POST /v1/reload", JSON, "{\"workers\":1}").status, 400);
        assert_int_equal(ask("GET /v1/status", JSON, "{}").status, 400);
}

/* A body whose length nobody knows, or that is too long, is not waited for. */
static void test_length(void **state) {
        assert_int_equal(ask("POST /v1/scale", JSON "Transfer-Encoding: chunked\r\n", NULL).status, 411);
        assert_string_equal(ask("POST /v1/scale", JSON "Content-Length: 65537\r\n", NULL).message,
                        "The body: found 65537 bytes, expected at most 65536.");
        assert_int_equal(ask("POST /v1/scale", JSON "Content-Length: 18446744073709551615\r\n", NULL).status,
                        413);
}

/* Errors of the master, and of whatever it may say later. */
static void test_codes(void **state) {
        assert_int_equal(api_status_of_code("busy"), 409);
        assert_int_equal(api_status_of_code("failed"), 422);
        assert_int_equal(api_status_of_code("invalid"), 422);
        assert_int_equal(api_status_of_code("unknown"), 501);
        assert_int_equal(api_status_of_code("new"), 500);
        assert_int_equal(api_status_of_code(NULL), 500);
}

/* Every status that the parser may return has its words. */
static void test_statuses(void **state) {
        static const unsigned known[] = { 400, 403, 404, 405, 408, 411, 413, 414, 415, 417, 431, 500, 501,
                503, 505 };

        for (size_t i = 0; i < ELEMENTSOF(known); i++) {
                ApiDecision d;

                api_set_status(&d, known[i]);
                assert_int_equal(d.status, known[i]);
                assert_non_null(d.code);
                assert_true(strlen(d.message) > 10);
        }
        ApiDecision d;
        api_set_status(&d, 499);
        assert_int_equal(d.status, 500);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_routes),
                cmocka_unit_test(test_not_found),
                cmocka_unit_test(test_method),
                cmocka_unit_test(test_pages),
                cmocka_unit_test(test_scale),
                cmocka_unit_test(test_send),
                cmocka_unit_test(test_send_wrong),
                cmocka_unit_test(test_send_length),
                cmocka_unit_test(test_wrong_body),
                cmocka_unit_test(test_length),
                cmocka_unit_test(test_codes),
                cmocka_unit_test(test_statuses),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
