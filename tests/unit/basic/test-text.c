/* SPDX-License-Identifier: MIT */
/* Text from outside, made fit for people and for systemd's status. */

#include "../unit.h"

#include <stdlib.h>
#include <string.h>

#include "basic/text.h"

static void check(const char *in, const char *out) {
        char buf[64];

        strcpy(buf, in);
        text_make_printable(buf);
        assert_string_equal(buf, out);
}

/* Printable text of any language stays as it is. */
static void test_kept(void **state) {
        check("", "");
        check(" plain ~ text!", " plain ~ text!");
        check("größe → 日本 🙂", "größe → 日本 🙂");
        check("\xF4\x8F\xBF\xBF", "\xF4\x8F\xBF\xBF");
}

/* Control characters and everything that RFC 3629 calls invalid become question marks, byte by byte. */
static void test_replaced(void **state) {
        check("a\nREADY=1\r\t", "a?READY=1??");
        check("\033[31m\177", "?[31m?");
        check("\xC3", "?");
        check("\xC3x", "?x");
        check("\xE2\x86", "??");
        check("\xC0\xAF", "??");
        check("\xE0\x80\xAF", "???");
        check("\xED\xA0\x80", "???");
        check("\xF0\x80\x80\x80", "????");
        check("\xF4\x90\x80\x80", "????");
        check("\xF8\x88\x80\x80\x80", "?????");
        check("\x80\xFF", "??");
}

/* The control characters beyond ASCII speak to a terminal too, and only they go. */
static void test_c1(void **state) {
        check("a\xc2\x9b"
              "31mb",
                        "a??31mb");
        check("\xc2\x80", "??");
        check("\xc2\x9f", "??");
        check("\xc2\xa0\xc2\xbf", "\xc2\xa0\xc2\xbf");
        check("\xc3\x9b\xe2\x82\x9b", "\xc3\x9b\xe2\x82\x9b");
}

/* Random bytes: the length stays, the result is clean, and cleaning it again changes nothing. */
static void test_random(void **state) {
        srand48(1);
        for (int round = 0; round < 20000; round++) {
                char buf[32], again[32];
                size_t n = (size_t) lrand48() % 31;

                for (size_t i = 0; i < n; i++)
                        buf[i] = (char) (1 + lrand48() % 255);
                buf[n] = '\0';
                text_make_printable(buf);
                assert_int_equal(strlen(buf), n);
                for (size_t i = 0; i < n; i++)
                        assert_true((unsigned char) buf[i] >= 0x20 && buf[i] != 0x7F);
                strcpy(again, buf);
                text_make_printable(again);
                assert_string_equal(again, buf);
        }
}

static void quote(const char *in, const char *out) {
        char buf[16];

        assert_ptr_equal(text_quote(in, buf, sizeof(buf)), buf);
        assert_string_equal(buf, out);
}

/* In quotes and printable; what is too long shows that, and is never longer than the buffer. */
static void test_quote(void **state) {
        quote("", "\"\"");
        quote("a \"b\"", "\"a \"b\"\"");
        quote("a\nb", "\"a?b\"");
        quote("1234567890", "\"1234567890\"");
        quote("12345678901", "\"1234567890…\"");
        quote("123456789ä1", "\"123456789?…\"");
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_kept),
                cmocka_unit_test(test_replaced),
                cmocka_unit_test(test_c1),
                cmocka_unit_test(test_quote),
                cmocka_unit_test(test_random),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
