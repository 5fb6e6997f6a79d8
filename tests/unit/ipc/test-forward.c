/* SPDX-License-Identifier: MIT */
#include "ipc/forward.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "basic/macro.h"

#define OURS "{\"cmd\":\"MUSTER\",\"act\":"

static bool parse(const char *json, Forward *ret) {
        return forward_parse(json, strlen(json), ret);
}

static void check_message(const Forward *f, const char *text) {
        assert_int_equal(f->message.n, strlen(text));
        assert_memory_equal(f->message.p, text, f->message.n);
        assert_null(f->refused);
}

/* The value is cut out as it stands, wherever it stands. */
static void test_values(void **state) {
        static const char *const values[] = { "0", "\"\"", "null", "[ 1 ,\"\\u0000\"]", "{\"cmd\":1}",
                "{\"data\":{}}" };
        char line[200];
        Forward f;

        for (size_t i = 0; i < ELEMENTSOF(values); i++) {
                snprintf(line, sizeof(line), "{\"data\": %s ,\"act\":\"broadcast\",\"cmd\":\"MUSTER\"}",
                                values[i]);
                assert_true(parse(line, &f));
                assert_int_equal(f.act, FORWARD_BROADCAST);
                check_message(&f, values[i]);
                snprintf(line, sizeof(line), OURS "\"send\",\"worker\":7,\"data\":%s}", values[i]);
                assert_true(parse(line, &f));
                assert_int_equal(f.act, FORWARD_SEND);
                assert_int_equal(f.slot, 7);
                check_message(&f, values[i]);
        }
}

/* The whole message, whatever else is in it. */
static void test_publish(void **state) {
        static const char line[] = OURS "\"publish\",\"data\":{\"cmd\":\"NODE_X\"},\"worker\":0}";
        Forward f;

        assert_true(parse(line, &f));
        assert_int_equal(f.act, FORWARD_PUBLISH);
        check_message(&f, line);
}

static void test_not_for_others(void **state) {
        static const char *const lines[] = { "1", "{}", OURS "\"ready\"}", "{\"cmd\":\"MUSTER\"}",
                "{\"cmd\":\"other\",\"act\":\"broadcast\",\"data\":1}",
                "{\"act\":\"broadcast\",\"data\":1}" };
        Forward f;

        for (size_t i = 0; i < ELEMENTSOF(lines); i++)
                assert_false(parse(lines[i], &f));
}

static void test_refused(void **state) {
        static const char *const lines[] = { OURS "\"broadcast\"}", OURS "\"send\",\"worker\":1}",
                OURS "\"send\",\"data\":1}", OURS "\"send\",\"worker\":0,\"data\":1}",
                OURS "\"send\",\"worker\":-1,\"data\":1}", OURS "\"send\",\"worker\":\"1\",\"data\":1}",
                OURS "\"send\",\"worker\":4294967296,\"data\":1}",
                OURS "\"send\",\"worker\":1.0,\"data\":1}",
                OURS "\"broadcast\",\"data\":{\"cmd\":\"MUSTER\"}}",
                OURS "\"broadcast\",\"data\":{\"cmd\":\"NODE_\"}}" };
        Forward f;

        for (size_t i = 0; i < ELEMENTSOF(lines); i++) {
                assert_true(parse(lines[i], &f));
                assert_non_null(f.refused);
        }
}

static bool is_for_application(const char *json) {
        return forward_is_for_application(json, strlen(json));
}

/* Whoever reads it: in whatever spelling or in the plain one, the first or the last if there are several. */
static void test_for_application(void **state) {
        static const char *const ours[] = { "{\"cmd\":\"MUSTER\"}", "{\"cmd\":\"NODE_\"}",
                "{\"cmd\":\"NODE_HANDLE\"}", "{\"\\u0063md\":\"MUSTER\"}",
                "{\"cm\\u0064\":\"\\u004eODE_X\"}", "{\"cmd\":\"MUSTE\\u0052\"}",
                "{\"cmd\":\"NODE\\u005FHANDLE\"}", "{\"cmd\":\"x\",\"\\u0063\\u006D\\u0064\":\"NODE_X\"}",
                "{\"a\":\"\\\\\",\"cmd\":\"NODE_X\",\"cmd\":\"NODE_Y\"}",
                "{\"cmd\":\"MUSTER\",\"act\":\"retire\",\"\\u0063md\":\"x\"}",
                "{\"\\u0063md\":\"x\",\"cmd\":\"MUSTER\"}", "{\"\\u0063md\":\"MUSTER\",\"cmd\":\"x\"}",
                "{\"cmd\":\"x\",\"cmd\":\"MUSTER\"}", "{\"cmd\":\"MUSTER\",\"cmd\":\"x\"}",
                "{\"\\u0063md\":1,\"cmd\":\"NODE_X\",\"cm\\u0064\":{\"cmd\":1}}",
                "{\"cmd\":\"NODE_X\",\"cmd\":1}",
                "{\"cmd\":[\"x\"],\"cmd\":\"MUSTER\",\"cmd\":[{\"cmd\":2}]}" };
        static const char *const theirs[] = { "1", "\"MUSTER\"", "[\"cmd\",\"MUSTER\"]",
                "{\"cmd\":\"MUSTERS\"}", "{\"cmd\":\"muster\"}", "{\"cmd\":\"NODE\"}",
                "{\"cmd\":\"node_x\"}", "{\"cmd\":[\"NODE_X\"]}", "{\"x\":{\"cmd\":\"NODE_X\"}}",
                "{\"cmd\":\"x\",\"\\u0063md\":\"y\",\"cmd\":\"z\"}",
                "{\"cmd\":\"x\",\"a\":{\"cmd\":\"MUSTER\"},\"cmd\":[{\"cmd\":\"MUSTER\"}]}",
                "{\"cmd \":\"NODE_X\"}", "{\"\\\\u0063md\":\"NODE_X\"}", "{\"cmd\\u0000\":\"NODE_X\"}",
                "{\"cm\\u0164\":\"NODE_X\"}", "{\"cmd\":\"\\u0000NODE_X\"}",
                "{\"cmd\":\"MUSTER with more than fits\"}" };

        for (size_t i = 0; i < ELEMENTSOF(ours); i++)
                assert_false(is_for_application(ours[i]));
        for (size_t i = 0; i < ELEMENTSOF(theirs); i++)
                assert_true(is_for_application(theirs[i]));
}

/* What is written is what is read, and fits. */
static void test_head(void **state) {
        static const struct {
                ForwardAct act;
                unsigned slot;
        } cases[] = { { FORWARD_BROADCAST, 0 }, { FORWARD_SEND, 1 }, { FORWARD_SEND, UINT32_MAX } };
        char line[FORWARD_HEAD_MAX + 10];
        Forward f;

        for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
                size_t n = forward_write_head(cases[i].act, cases[i].slot, line);

                assert_in_range(n, 1, FORWARD_HEAD_MAX - 1);
                strcpy(line + n, "\"x\"" FORWARD_TAIL);
                assert_true(parse(line, &f));
                assert_int_equal(f.act, cases[i].act);
                assert_int_equal(f.slot, cases[i].slot);
                check_message(&f, "\"x\"");
        }
        assert_true(FORWARD_VALUE_MAX + FORWARD_HEAD_MAX + strlen(FORWARD_TAIL) < FORWARD_MESSAGE_MAX);
}

/* What is as deep as a value may be still fits into its frame. */
static void test_depth(void **state) {
        char line[2 * JSON_DEPTH_MAX + FORWARD_HEAD_MAX + 10];

        for (size_t depth = JSON_DEPTH_MAX - 1; depth <= JSON_DEPTH_MAX; depth++) {
                size_t n = forward_write_head(FORWARD_BROADCAST, 0, line);
                char *value = line + n;

                memset(value, '[', depth);
                memset(value + depth, ']', depth);
                strcpy(value + 2 * depth, FORWARD_TAIL);
                int expected = json_scan_content(value, 2 * depth);
                assert_int_equal(expected == 0, depth < JSON_DEPTH_MAX);
                assert_int_equal(json_scan(line, strlen(line), NULL, 0), expected);
        }
}

static void test_account(void **state) {
        ForwardAccount a = { .bytes = 0 };

        assert_int_equal(forward_account_add(&a, 5000000, 600, 1000), 0);
        assert_int_equal(forward_account_add(&a, 5000001, 400, 1000), 0);
        assert_int_equal(forward_account_add(&a, 5999000, 1, 1000), 1000);
        assert_int_equal(forward_account_add(&a, 5999999, 1, 1000), 1);
        assert_int_equal(forward_account_add(&a, 6000000, 1000, 1000), 0);
        assert_int_equal(forward_account_add(&a, 6000000, 1, 1000), 1000000);
}

int main(void) {
        static const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_values),
                cmocka_unit_test(test_publish),
                cmocka_unit_test(test_not_for_others),
                cmocka_unit_test(test_refused),
                cmocka_unit_test(test_for_application),
                cmocka_unit_test(test_head),
                cmocka_unit_test(test_depth),
                cmocka_unit_test(test_account),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
