/* SPDX-License-Identifier: MIT */
/* The lines of an access log: what other programs read, and what no client can break. */

#include "../unit.h"

#include "http/access-log.h"

#include <arpa/inet.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "basic/macro.h"

#include "fixture.h"

#define TIME    INT64_C(1791640536007000) /* 10 October 2026, 13:55:36.007 */
#define CLASSIC "192.0.2.1 - - [10/Oct/2026:13:55:36 +0000] "

static char line[ACCESS_LOG_LINE_MAX + 1];

static AccessLogText text(const char *s) {
        return (AccessLogText){ s, s ? strlen(s) : 0 };
}

static AccessLogRecord record(const char *head) {
        AccessLogRecord r = {
                .time_usec = TIME,
                .duration_usec = 1234,
                .peer = { .family = AF_INET, .port = 50000, .bytes = { 192, 0, 2, 1 } },
                .worker = 3,
                .number = 17,
                .status = 200,
                .bytes = 5,
        };

        access_log_record_set_line(&r, head, strlen(head));
        return r;
}

/* Without the end of the line, of which there is one. */
static const char *format(AccessLogFormat f, const AccessLogRecord *r) {
        size_t n = access_log_format(f, r, line, sizeof(line) - 1);

        assert_true(n > 0 && n < sizeof(line));
        assert_ptr_equal(memchr(line, '\n', n), line + n - 1);
        line[n - 1] = '\0';
        return line;
}

static json_t *parse(const AccessLogRecord *r) {
        json_t *j = json_loads(format(ACCESS_LOG_JSON, r), JSON_REJECT_DUPLICATES, NULL);

        assert_non_null(j);
        return j;
}

static void assert_member(const AccessLogRecord *r, const char *name, const char *value) {
        json_t *j = parse(r), *member = json_object_get(j, name);

        assert_non_null(member);
        if (value)
                assert_string_equal(json_string_value(member), value);
        else
                assert_true(json_is_null(member));
        json_decref(j);
}

static void test_names(void **state) {
        assert_int_equal(access_log_format_from_string("common"), ACCESS_LOG_COMMON);
        assert_int_equal(access_log_format_from_string("combined"), ACCESS_LOG_COMBINED);
        assert_int_equal(access_log_format_from_string("json"), ACCESS_LOG_JSON);
        assert_int_equal(access_log_format_from_string("JSON"), _ACCESS_LOG_FORMAT_INVALID);
}

/* Byte for byte what Apache and nginx write. */
static void test_classic(void **state) {
        AccessLogRecord r = record("GET /a?b=c HTTP/1.1\r\nHost: x\r\n");

        assert_string_equal(format(ACCESS_LOG_COMMON, &r), CLASSIC "\"GET /a?b=c HTTP/1.1\" 200 5");
        assert_string_equal(format(ACCESS_LOG_COMBINED, &r),
                        CLASSIC "\"GET /a?b=c HTTP/1.1\" 200 5 \"-\" \"-\"");
        r.referer = text("http://a/");
        r.user_agent = text("curl/8");
        assert_string_equal(format(ACCESS_LOG_COMBINED, &r),
                        CLASSIC "\"GET /a?b=c HTTP/1.1\" 200 5 \"http://a/\" \"curl/8\"");
}

/* nginx's default: control characters, quotes, backslashes, all beyond ASCII. */
static void test_classic_escapes(void **state) {
        AccessLogRecord r = record("\x16\x03\x01 \"\\\x7F\xC3\xA4~\t\x1F!\n");

        assert_string_equal(format(ACCESS_LOG_COMMON, &r),
                        CLASSIC "\"\\x16\\x03\\x01 \\x22\\x5C\\x7F\\xC3\\xA4~\\x09\\x1F!\" 200 5");
        r = record("");
        assert_string_equal(format(ACCESS_LOG_COMMON, &r), CLASSIC "\"-\" 200 5");
}

static void test_json(void **state) {
        AccessLogRecord r = record("GET /a HTTP/1.1\r\n");

        assert_string_equal(format(ACCESS_LOG_JSON, &r),
                        "{\"time\":\"2026-10-10T13:55:36.007Z\",\"peer\":\"192.0.2.1\",\"method\":\"GET\","
                        "\"target\":\"/a\",\"protocol\":\"HTTP/1.1\",\"host\":null,\"status\":200,"
                        "\"bytes\":5,\"duration_usec\":1234,\"referer\":null,\"user_agent\":null,"
                        "\"worker\":3,\"request\":17}");
        r.aborted = true;
        r.host = text("example.org");
        r.referer = text("");
        r.bytes = r.number = r.duration_usec = UINT64_MAX;
        assert_string_equal(format(ACCESS_LOG_JSON, &r),
                        "{\"time\":\"2026-10-10T13:55:36.007Z\",\"peer\":\"192.0.2.1\",\"method\":\"GET\","
                        "\"target\":\"/a\",\"protocol\":\"HTTP/1.1\",\"host\":\"example.org\",\"status\":200,"
                        "\"bytes\":18446744073709551615,\"duration_usec\":18446744073709551615,"
                        "\"referer\":\"\",\"user_agent\":null,\"worker\":3,"
                        "\"request\":18446744073709551615,\"aborted\":true}");
}

/* What is UTF-8 stays so, any other byte is the code point of its number; no end of a line of any kind. */
static void test_json_escapes(void **state) {
        static const struct {
                const char *given, *raw;
        } cases[] = {
                { "a\"b\\c/d", "\"a\\\"b\\\\c/d\"" },
                { "\x01\t\x1F\x7F", "\"\\u0001\\u0009\\u001F\\u007F\"" },
                { "ä€𝄞", "\"ä€𝄞\"" },
                { "\xFF\xC3(", "\"\\u00FF\\u00C3(\"" },
                { "\xC0\xAF", "\"\\u00C0\\u00AF\"" },
                { "\xED\xA0\x80", "\"\\u00ED\\u00A0\\u0080\"" },
                { "\xF4\x90\x80\x80", "\"\\u00F4\\u0090\\u0080\\u0080\"" },
                { "\xE2\x82", "\"\\u00E2\\u0082\"" },
                { "\xC2\x85\xC2\x9B", "\"\\u00C2\\u0085\\u00C2\\u009B\"" },
                { "\xE2\x80\xA8\xE2\x80\xA9", "\"\\u00E2\\u0080\\u00A8\\u00E2\\u0080\\u00A9\"" },
                { "\xE2\x80\xA7", "\"\xE2\x80\xA7\"" },
        };
        AccessLogRecord r = record("GET / HTTP/1.1\r\n");

        for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
                r.user_agent = text(cases[i].given);
                json_decref(parse(&r));
                (void) format(ACCESS_LOG_JSON, &r);
                assert_non_null(strstr(line, cases[i].raw));
        }
        r.user_agent = (AccessLogText){ "a\0b", 3 };
        assert_non_null(strstr(format(ACCESS_LOG_JSON, &r), "\"a\\u0000b\""));
}

/* Only what has the form of a request line has parts; the rest is kept as it came. */
static void test_line(void **state) {
        static const char *const lines[] = { "GET /", "GET  HTTP/1.1", "GET  / HTTP/1.1", "GET / / HTTP/1.1",
                " / HTTP/1.1", "GET / HTTP/11", "GET / http/1.1", "x", "GET / HTTP/1.1 " };
        AccessLogRecord r = record("\r\n\r\nPROPFIND /x HTTP/1.0\n");

        assert_member(&r, "method", "PROPFIND");
        assert_member(&r, "target", "/x");
        assert_member(&r, "protocol", "HTTP/1.0");
        for (size_t i = 0; i < ELEMENTSOF(lines); i++) {
                r = record(lines[i]);
                assert_member(&r, "method", NULL);
                assert_member(&r, "target", NULL);
                assert_member(&r, "line", lines[i]);
        }
        r = record("");
        assert_member(&r, "line", "");
}

static void test_peer(void **state) {
        AccessLogRecord r = record("GET / HTTP/1.1\r\n");

        r.peer = (ProxyAddress){ .family = AF_INET6, .bytes = { 0x20, 0x01, 0x0D, 0xB8, [15] = 1 } };
        assert_member(&r, "peer", "2001:db8::1");
        r.peer = (ProxyAddress){ .family = AF_INET6, .bytes = { [10] = 0xFF, 0xFF, 10, 0, 255, 1 } };
        assert_member(&r, "peer", "10.0.255.1");
        r.peer = (ProxyAddress){ .family = AF_UNIX };
        assert_member(&r, "peer", "unix:");
        r.peer = (ProxyAddress){ .family = AF_UNSPEC };
        assert_member(&r, "peer", "-");
}

/* The longest there can be of everything: cut with a mark, and with room for every byte to be escaped. */
static void test_longest(void **state) {
        static const char bytes[] = { '\xFF', '"', 'a' };
        char *huge = malloc(100000);
        AccessLogRecord r = { .time_usec = TIME, .worker = UINT32_MAX, .number = INT64_MAX };

        assert_non_null(huge);
        for (size_t i = 0; i < ELEMENTSOF(bytes); i++) {
                memset(huge, bytes[i], 100000);
                const AccessLogText all = { huge, 100000 };

                r.line = r.method = r.target = r.protocol = r.host = r.referer = r.user_agent = all;
                for (int f = 0; f < _ACCESS_LOG_FORMAT_MAX; f++)
                        (void) format(f, &r);
                json_decref(parse(&r));
                r.method.text = r.target.text = r.protocol.text = NULL;
                json_decref(parse(&r));
        }
        r.target = (AccessLogText){ huge, 2049 };
        assert_non_null(strstr(format(ACCESS_LOG_JSON, &r), "aaa…\""));
        r.target.size = 2048;
        assert_null(strstr(format(ACCESS_LOG_JSON, &r), "\"target\":\"aaa…"));
        assert_non_null(strstr(format(ACCESS_LOG_COMMON, &r), "aaa...\" "));
        free(huge);
}

/* Not a byte beyond the buffer; what does not fit is not written half. */
static void test_small_buffer(void **state) {
        AccessLogRecord r = record("GET /a HTTP/1.1\r\n");

        for (int f = 0; f < _ACCESS_LOG_FORMAT_MAX; f++) {
                size_t all = access_log_format(f, &r, line, sizeof(line));
                size_t least = 0;

                for (size_t size = 0; size <= ACCESS_LOG_LINE_MAX; size++) {
                        char *exact = malloc(size + 1);
                        assert_non_null(exact);
                        exact[size] = '\xAA';
                        size_t n = access_log_format(f, &r, exact, size);
                        assert_int_equal(exact[size], '\xAA');
                        assert_true(n == 0 || n == all);
                        free(exact);
                        if (n > 0) {
                                least = size;
                                break;
                        }
                }
                assert_true(least >= all);
        }
}

/*
 * Of real exchanges
 */

static AccessLogRecord logged[8];
static char logged_lines[8][512];
static size_t n_logged;

static void on_log(void *userdata, const Exchange *x) {
        AccessLogRecord *r = logged + n_logged;

        assert_true(n_logged < ELEMENTSOF(logged));
        access_log_record_init(r, x);
        size_t n = access_log_format(ACCESS_LOG_JSON, r, line, sizeof(line));
        assert_true(n > 0 && n <= sizeof(logged_lines[0]));
        memcpy(logged_lines[n_logged], line, n);
        logged_lines[n_logged++][n - 1] = '\0';
}

static void on_request(void *userdata, Exchange *x) {
        x->response.body = RESPONSE_BODY_MEMORY;
        x->response.memory = "hello";
        x->response.size = 5;
        exchange_respond(x);
}

static void begin(void) {
        const Handler handler = { .request = on_request };
        ServerSettings settings;

        server_settings_init(&settings);
        fixture_open(&settings, &handler);
        server.log = on_log;
        n_logged = 0;
}

/* Each of several in one packet has its own line, HEAD has no body. */
static void test_exchanges(void **state) {
        begin();
        (void) say("GET /1 HTTP/1.1\r\nHost: a.b\r\nuser-AGENT: me\r\nReferer: there\r\nReferer: second\r\n\r\n"
                   "HEAD /2 HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
        assert_int_equal(n_logged, 2);
        assert_string_equal(logged_lines[0],
                        "{\"time\":\"1970-01-01T00:00:00.000Z\",\"peer\":\"unix:\",\"method\":\"GET\","
                        "\"target\":\"/1\",\"protocol\":\"HTTP/1.1\",\"host\":\"a.b\",\"status\":200,\"bytes\":5,"
                        "\"duration_usec\":0,\"referer\":\"there\",\"user_agent\":\"me\",\"worker\":0,"
                        "\"request\":1}");
        assert_non_null(strstr(
                        logged_lines[1], "\"target\":\"/2\",\"protocol\":\"HTTP/1.0\",\"host\":null"));
        assert_int_equal(logged[1].bytes, 0);
        assert_int_equal(logged[1].number, 2);
        fixture_close();
}

/* What is no request has a line, too. */
static void test_bad_request(void **state) {
        begin();
        (void) say(GET);
        (void) say("\x16\x03\x01 \"rubbish\"\r\n\r\n");
        assert_int_equal(n_logged, 2);
        assert_int_equal(logged[1].status, 400);
        assert_non_null(strstr(logged_lines[1], "\"method\":null,\"target\":null,\"protocol\":null,"
                                                "\"line\":\"\\u0016\\u0003\\u0001 \\\"rubbish\\\"\""));
        fixture_close();
}

/* One that is refused for what its fields say has the parts of its line. */
static void test_refused_request(void **state) {
        begin();
        (void) say("GET /x HTTP/1.1\r\n\r\n");
        assert_int_equal(n_logged, 1);
        assert_int_equal(logged[0].status, 400);
        assert_non_null(strstr(logged_lines[0], "\"target\":\"/x\""));
        fixture_close();
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_names),
                cmocka_unit_test(test_classic),
                cmocka_unit_test(test_classic_escapes),
                cmocka_unit_test(test_json),
                cmocka_unit_test(test_json_escapes),
                cmocka_unit_test(test_line),
                cmocka_unit_test(test_peer),
                cmocka_unit_test(test_longest),
                cmocka_unit_test(test_small_buffer),
                cmocka_unit_test(test_exchanges),
                cmocka_unit_test(test_bad_request),
                cmocka_unit_test(test_refused_request),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
