/* SPDX-License-Identifier: MIT */
/* What is typed as a message: the body that is made of it, or what is said about it. */

#include "../unit.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "basic/macro.h"
#include "cli/message.h"

/* JSON goes as it was written, whatever value it is. */
static void test_json(void **state) {
        static const char *const values[] = { "{}", "[1, 2]", "\"ready\"", "3", "-0.5e3", "null", "true",
                "{\n \"a\" : \"\xc3\xbc\"\n}", "\"\\u2028\\ud83d\\ude00\"" };
        char expected[256];

        for (size_t i = 0; i < ELEMENTSOF(values); i++) {
                _cleanup_free_ char *all = NULL, *one = NULL;

                assert_int_equal(message_format(values[i], 0, &all), 0);
                snprintf(expected, sizeof(expected), "{\"message\":%s}", values[i]);
                assert_string_equal(all, expected);
                assert_int_equal(message_format(values[i], 256, &one), 0);
                snprintf(expected, sizeof(expected), "{\"worker\":256,\"message\":%s}", values[i]);
                assert_string_equal(one, expected);
        }
}

/* Anything else could break out of the body; it is shown as it has arrived, with what is wrong about it. */
static void test_no_json(void **state) {
        static const char hint[] =
                        "the message must be JSON, in quotes for the shell, like '\"text\"' or '{\"key\":1}': found ";
        static const char *const cases[][2] = {
                { "", "\"\" (" },
                { "hello", "\"hello\" (invalid token near 'hello'" },
                { "{act:flush}", "\"{act:flush}\" (" },
                { "{} {}", "\"{} {}\" (end of file expected" },
                { "1,\"worker\":2", "\"1,\"worker\":2\" (" },
                { "{\"a\":1,\"a\":2}", "\"{\"a\":1,\"a\":2}\" (duplicate object key" },
                { "\"\xff\"", "\"\"?\"\" (" },
                { "\033[31m", "\"?[31m\" (" },
                { "x23456789012345678901234567890123456789012345678901234567890123456789",
                                "\"x23456789012345678901234567890123456789012345678901234567890...\" (" },
        };

        for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
                _cleanup_free_ char *text = NULL;

                assert_int_equal(message_format(cases[i][0], 1, &text), MESSAGE_INVALID);
                assert_int_equal(strncmp(text, hint, strlen(hint)), 0);
                if (strncmp(text + strlen(hint), cases[i][1], strlen(cases[i][1])) != 0)
                        fail_msg("expected %s, got: %s", cases[i][1], text + strlen(hint));
        }
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_json),
                cmocka_unit_test(test_no_json),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
