/* SPDX-License-Identifier: MIT */
/* What a datagram of sd_notify(3) means. */

#include "../unit.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "basic/macro.h"
#include "master/notify-message.h"

/* Parses a copy without a NUL byte behind it, in an allocation of the very size. */
static int parse(const char *text, size_t n, NotifyMessage *ret) {
        _cleanup_free_ char *copy = malloc(n > 0 ? n : 1);

        assert_non_null(copy);
        memcpy(copy, text, n);
        return notify_message_parse(copy, n, ret);
}

static NotifyMessage parsed(const char *text) {
        NotifyMessage m;

        memset(&m, 0xFF, sizeof(m));
        assert_int_equal(parse(text, strlen(text), &m), 0);
        return m;
}

/* All of it in a line: "R" ready, "L" reloading, "P" stopping, "W" watchdog, "T" trigger, "B" barrier, then
 * the status, the error, the time-out and what was ignored where there is any. */
static void check(const char *text, const char *expected) {
        NotifyMessage m = parsed(text);
        char got[512], part[256];

        snprintf(got, sizeof(got), "%s%s%s%s%s%s", m.ready ? "R" : "", m.reloading ? "L" : "",
                        m.stopping ? "P" : "", m.watchdog ? "W" : "", m.watchdog_trigger ? "T" : "",
                        m.barrier ? "B" : "");
        if (m.has_status) {
                snprintf(part, sizeof(part), " status=%s", m.status);
                strcat(got, part);
        }
        if (m.error) {
                snprintf(part, sizeof(part), " errno=%d", m.error);
                strcat(got, part);
        }
        if (m.extend_timeout_usec) {
                snprintf(part, sizeof(part), " extend=%llu", (unsigned long long) m.extend_timeout_usec);
                strcat(got, part);
        }
        if (m.n_ignored) {
                snprintf(part, sizeof(part), " ignored=%u:%s", m.n_ignored, m.ignored);
                strcat(got, part);
        }
        assert_string_equal(got, expected);
        if (!m.has_status)
                assert_string_equal(m.status, "");
        if (!m.n_ignored)
                assert_string_equal(m.ignored, "");
}

/* Every word that is understood, alone and together. */
static void test_words(void **state) {
        check("READY=1", "R");
        check("RELOADING=1", "L");
        check("STOPPING=1", "P");
        check("WATCHDOG=1", "W");
        check("WATCHDOG=trigger", "T");
        check("BARRIER=1", "B");
        check("STATUS=all is well", " status=all is well");
        check("ERRNO=2", " errno=2");
        check("EXTEND_TIMEOUT_USEC=1500000", " extend=1500000");
        check("READY=1\nSTATUS=a=b\nWATCHDOG=1\nERRNO=4095\nEXTEND_TIMEOUT_USEC=18446744073709551615\n",
                        "RW status=a=b errno=4095 extend=18446744073709551615");
        check("ERRNO=0\nEXTEND_TIMEOUT_USEC=0", "");
}

/* Lines end as in systemd, and empty ones do not count. */
static void test_lines(void **state) {
        check("", "");
        check("\n", "");
        check("\n\n\r\n", "");
        check("READY=1\n", "R");
        check("\nREADY=1\r\n\r\nWATCHDOG=1\r\n", "RW");
        check("READY=1\rSTATUS=x", "R status=x");
}

/* What is not for us, or of a later systemd, is no mistake. */
static void test_unknown(void **state) {
        check("MAINPID=4711\nMAINPIDFDID=1\nWATCHDOG_USEC=20\nFDSTORE=1\nFDNAME=x\nFDSTOREREMOVE=1", "");
        check("FDPOLL=0\nMONOTONIC_USEC=1\nNOTIFYACCESS=all\nX_OURS=1\nEXIT_STATUS=1\nBUSERROR=x", "");
        check("ready=1\n READY=1\nREADY\nREADY 1\nXREADY=1\n=1\n=", "");
        check("STATUS", "");
        check("MAINPID=1\nREADY=1\nFDSTORE=1", "R");
}

/* A value that makes no sense is left out, told of, and spoils nothing else. */
static void test_malformed(void **state) {
        check("READY=0\nWATCHDOG=1", "W ignored=1:READY=0");
        check("READY=1\nREADY=yes", "R ignored=1:READY=yes");
        check("READY=\nRELOADING=11\nSTOPPING=1 ", " ignored=3:READY=");
        check("WATCHDOG=\nREADY=1", "R ignored=1:WATCHDOG=");
        check("WATCHDOG=triggers", " ignored=1:WATCHDOG=triggers");
        check("BARRIER=0\nREADY=1", "R ignored=1:BARRIER=0");
        check("ERRNO=\nREADY=1", "R ignored=1:ERRNO=");
        check("ERRNO=-2", " ignored=1:ERRNO=-2");
        check("ERRNO=4096", " ignored=1:ERRNO=4096");
        check("ERRNO=ENOENT", " ignored=1:ERRNO=ENOENT");
        check("ERRNO=0x10", " ignored=1:ERRNO=0x10");
        check("ERRNO=18446744073709551617", " ignored=1:ERRNO=18446744073709551617");
        check("ERRNO=000000000000000000000000000002", " ignored=1:ERRNO=000000000000000000000000000002");
        check("EXTEND_TIMEOUT_USEC=18446744073709551616",
                        " ignored=1:EXTEND_TIMEOUT_USEC=18446744073709551616");
        check("EXTEND_TIMEOUT_USEC=5s", " ignored=1:EXTEND_TIMEOUT_USEC=5s");
        check("READY=\033[31m\t", " ignored=1:READY=?[31m?");
        check("READY=0123456789012345678901234567890123456789012345678901234567890",
                        " ignored=1:READY=01234567890123456789012345678901234567890");
}

/* Which of two counts. */
static void test_twice(void **state) {
        check("READY=1\nSTOPPING=1", "P");
        check("STOPPING=1\nREADY=1", "R");
        check("RELOADING=1\nREADY=1\nREADY=0", "R ignored=1:READY=0");
        check("READY=1\nSTOPPING=1\nRELOADING=1", "L");
        check("STATUS=one\nSTATUS=two", " status=one");
        check("STATUS=\nSTATUS=two", " status=");
        check("ERRNO=1\nERRNO=2", " errno=1");
        check("ERRNO=x\nERRNO=2", " ignored=1:ERRNO=x");
        check("WATCHDOG=1\nWATCHDOG=trigger", "W");
        check("EXTEND_TIMEOUT_USEC=1\nEXTEND_TIMEOUT_USEC=2", " extend=1");
}

/* BARRIER=1 comes alone, or nothing is believed. */
static void test_barrier(void **state) {
        check("BARRIER=1\n", "B");
        check("BARRIER=1\r\n\r\n", "B");
        check("READY=1\nBARRIER=1", " ignored=1:BARRIER=1 beside others");
        check("BARRIER=1\nX=1", " ignored=1:BARRIER=1 beside others");
        check("BARRIER=1\nBARRIER=1", " ignored=1:BARRIER=1 beside others");
        check("BARRIER=0\nBARRIER=1\nSTATUS=x\nERRNO=x", " ignored=1:BARRIER=1 beside others");
}

/* The status can be shown anywhere and is cut between characters. */
static void test_status(void **state) {
        char text[512], expected[512];
        NotifyMessage m;

        check("STATUS=", " status=");
        check("STATUS=\033[2J \x7f\ttab", " status=?[2J ??tab");
        check("STATUS=gr\xc3\xbc\xc3\x9f Gott \xf0\x9f\x98\x80",
                        " status=gr\xc3\xbc\xc3\x9f Gott \xf0\x9f\x98\x80");

        for (size_t n = NOTIFY_STATUS_MAX - 3; n <= NOTIFY_STATUS_MAX + 1; n++) {
                snprintf(text, sizeof(text), "STATUS=%.*d\xe2\x82\xac.", (int) n - 3, 0);
                m = parsed(text);
                snprintf(expected, sizeof(expected), "%.*d%s%s",
                                (int) MIN(n - 3, (size_t) NOTIFY_STATUS_MAX - 1), 0,
                                n < NOTIFY_STATUS_MAX ? "\xe2\x82\xac" : "",
                                n + 1 < NOTIFY_STATUS_MAX ? "." : "");
                assert_string_equal(m.status, expected);
        }
}

/* A datagram that is not text is refused as a whole. */
static void test_refused(void **state) {
        static const struct {
                const char *text;
                size_t n;
                int r;
        } cases[] = {
                { "READY=1", 8, 0 }, /* the one NUL byte that may be */
                { "", 1, 0 },
                { "READY=1\n", 9, 0 },
                { "READY=1\0", 9, -EBADMSG },
                { "\0READY=1", 8, -EBADMSG },
                { "READY=1\0STATUS=x", 16, -EBADMSG },
                { "\0", 2, -EBADMSG },
                { "STATUS=caf\xe9", 11, -EBADMSG },
                { "STATUS=\xc3", 8, -EBADMSG },
                { "STATUS=\xc3", 9, -EBADMSG },
                { "X=\xed\xa0\x80", 5, -EBADMSG },
                { "X=\xc0\x80\nREADY=1", 12, -EBADMSG },
                { "\x80", 1, -EBADMSG },
        };

        for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
                NotifyMessage m = { .error = 42 };

                assert_int_equal(parse(cases[i].text, cases[i].n, &m), cases[i].r);
                assert_int_equal(m.error, cases[i].r < 0 ? 42 : 0);
        }
        assert_int_equal(notify_message_parse(NULL, 0, &(NotifyMessage){ .error = 0 }), 0);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_words),
                cmocka_unit_test(test_lines),
                cmocka_unit_test(test_unknown),
                cmocka_unit_test(test_malformed),
                cmocka_unit_test(test_twice),
                cmocka_unit_test(test_barrier),
                cmocka_unit_test(test_status),
                cmocka_unit_test(test_refused),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
