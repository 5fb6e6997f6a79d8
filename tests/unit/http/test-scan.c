/* SPDX-License-Identifier: MIT */
#include "http/scan.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

typedef const char *(*Scan)(const char *p, const char *end);

static bool is_text(char c) {
        return char_is(c, CHAR_TEXT);
}

static bool is_target(char c) {
        return char_is(c, CHAR_TARGET);
}

static bool is_no_line_feed(char c) {
        return c != '\n';
}

/* Every byte at every place of every length up to three vectors; it, or the end, is where the scan stops. */
static void check_scan(Scan scan, bool (*is_passed)(char c)) {
        for (size_t n = 0; n <= 50; n++) {
                char *text = malloc(n + 1); /* a sanitizer sees a look beyond it */

                assert_non_null(text);
                memset(text, 'x', n);
                assert_ptr_equal(scan(text, text + n), text + n);
                for (size_t i = 0; i < n; i++) {
                        for (int c = 0; c < 256; c++) {
                                text[i] = (char) c;
                                assert_ptr_equal(scan(text, text + n), text + (is_passed((char) c) ? n : i));
                        }
                        text[i] = 'x';
                }
                free(text);
        }
}

static void test_text(void **state) {
        check_scan(scan_text, is_text);
}

static void test_target(void **state) {
        check_scan(scan_target, is_target);
}

static void test_line(void **state) {
        check_scan(scan_line, is_no_line_feed);
}

/* The first of several, in one vector and in several of them. */
static void test_first(void **state) {
        char text[48];

        for (size_t i = 0; i < sizeof(text); i++)
                for (size_t k = i; k < sizeof(text); k++) {
                        memset(text, 'x', sizeof(text));
                        text[i] = text[k] = '\n';
                        assert_ptr_equal(scan_text(text, text + sizeof(text)), text + i);
                        assert_ptr_equal(scan_target(text, text + sizeof(text)), text + i);
                        assert_ptr_equal(scan_line(text, text + sizeof(text)), text + i);
                }
}

/* RFC 9110, sections 5.5, 5.6.2 and 5.6.4, RFC 3986, section 3.2.2: the classes, said in another way. */
static void test_classes(void **state) {
        for (int i = 0; i < 256; i++) {
                bool alnum = (i >= '0' && i <= '9') || (i >= 'A' && i <= 'Z') || (i >= 'a' && i <= 'z');
                bool text = i == '\t' || (i >= 0x20 && i != 0x7F);
                char c = (char) i;

                assert_int_equal(char_is(c, CHAR_TOKEN), alnum || (i && strchr("!#$%&'*+-.^_`|~", i)));
                assert_int_equal(char_is(c, CHAR_HOST), alnum || (i && strchr("-._~!$&'()*+,;=%", i)));
                assert_int_equal(char_is(c, CHAR_TARGET), i > 0x20 && i < 0x7F && i != '#');
                assert_int_equal(char_is(c, CHAR_TEXT), text);
                assert_int_equal(char_is(c, CHAR_QUOTED), text && i != '"' && i != '\\');
                assert_int_equal(char_to_lower(c), i >= 'A' && i <= 'Z' ? i + 32 : c);
        }
}

int main(void) {
        static const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_text),
                cmocka_unit_test(test_target),
                cmocka_unit_test(test_line),
                cmocka_unit_test(test_first),
                cmocka_unit_test(test_classes),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
