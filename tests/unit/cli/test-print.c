/* SPDX-License-Identifier: MIT */
/* The master's JSON as people see it. */

#include "../unit.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "basic/macro.h"
#include "cli/print.h"

/* What a printer makes of a body; checks its return value. */
#define PRINTED(r, call)                               \
        ({                                             \
                char *_text = NULL;                    \
                size_t _n;                             \
                FILE *f = open_memstream(&_text, &_n); \
                assert_non_null(f);                    \
                assert_int_equal(call, r);             \
                assert_int_equal(fclose(f), 0);        \
                _text;                                 \
        })
#define BODY(text) text, strlen(text)

static const char running[] =
                "{\"app\":\"web\",\"state\":\"reloading\",\"pid\":4711,\"version\":\"0.1.0\",\"config\":\"/etc/muster/web.conf\","
                "\"generation\":3,\"uptime_usec\":7500000000,\"status\":\"2/3 workers ready\",\"failure\":\"worker 3 exited\","
                "\"workers\":{\"wanted\":3,\"ready\":2,\"failing\":1},\"connections\":12,\"requests\":34567,"
                "\"slots\":[{\"slot\":3,\"state\":\"failing\",\"early_deaths\":4,\"retry_in_usec\":3000000},"
                "{\"slot\":1,\"state\":\"serving\",\"early_deaths\":0,\"retry_in_usec\":null},"
                "{\"slot\":2,\"state\":\"serving\",\"early_deaths\":0,\"retry_in_usec\":null}],"
                "\"processes\":["
                "{\"slot\":2,\"pid\":102,\"state\":\"ready\",\"generation\":3,\"uptime_usec\":65000000,\"connections\":5,"
                "\"requests\":30000,\"memory_bytes\":12582912,\"cpu_usec\":1500000,\"status\":\"ok \\u001b[2J\",\"reason\":null},"
                "{\"slot\":1,\"pid\":99999,\"state\":\"leaving\",\"generation\":2,\"uptime_usec\":7400000000,\"connections\":7,"
                "\"requests\":4567,\"memory_bytes\":null,\"cpu_usec\":null,\"status\":\"busy\",\"reason\":\"max_age\"},"
                "{\"slot\":1,\"pid\":103,\"state\":\"starting\",\"generation\":3,\"uptime_usec\":20000,\"connections\":0,"
                "\"requests\":0,\"memory_bytes\":900,\"cpu_usec\":1000,\"status\":\"\",\"reason\":null}]}";

/* A head and a line for each worker, by slot; a slot without any has one too. */
static void test_status(void **state) {
        _cleanup_free_ char *text = PRINTED(0, print_status(f, BODY(running), false));

        assert_string_equal(text,
                        "web: reloading, generation 3, for 2h 5min (pid 4711, muster 0.1.0)\n"
                        "      workers: 2/3 ready, 1 failing\n"
                        "  connections: 12 open, 34567 requests\n"
                        "configuration: /etc/muster/web.conf\n"
                        "      failure: worker 3 exited\n"
                        "\n"
                        "SLOT    PID  STATE     GEN   UPTIME  CONN  REQUESTS  MEMORY  CPU  STATUS\n"
                        "   1  99999  leaving     2  2h 3min     7      4567       -    -  goes: max_age; busy\n"
                        "   1    103  starting    3     20ms     0         0    900B  1ms\n"
                        "   2    102  ready       3  1min 5s     5     30000     12M   1s  ok ?[2J\n"
                        "   3      -  failing     -        -     -         -       -    -  next try in 3s; died early 4 times\n");
}

/* Where workers have twins three columns more say so; a slot without a worker has none. */
static void test_twins(void **state) {
        static const char body[] =
                        "{\"app\":\"web\",\"slots\":[{\"slot\":2,\"state\":\"waiting\",\"early_deaths\":0,\"retry_in_usec\":1000}],"
                        "\"processes\":[{\"slot\":1,\"pid\":100,\"state\":\"ready\",\"generation\":1,\"uptime_usec\":1000,"
                        "\"connections\":5,\"requests\":6,\"worker_pid\":101,\"twin_pid\":null,\"takeovers\":7,"
                        "\"memory_bytes\":900,\"cpu_usec\":1000}]}";
        _cleanup_free_ char *text = PRINTED(0, print_status(f, BODY(body), false));

        assert_string_equal(strstr(text, "SLOT"),
                        "SLOT  PID  WORKER  TWIN  STATE    GEN  UPTIME  CONN  REQUESTS  TAKEOVERS  MEMORY  CPU  STATUS\n"
                        "   1  100     101     -  ready      1     1ms     5         6          7    900B  1ms\n"
                        "   2    -       -     -  waiting    -       -     -         -          -       -    -  next try in 1ms\n");
}

/* Colours are there when asked for, and nothing else changes. */
static void test_color(void **state) {
        _cleanup_free_ char *plain = PRINTED(0, print_status(f, BODY(running), false));
        _cleanup_free_ char *text = PRINTED(0, print_status(f, BODY(running), true));
        char *out = text;

        assert_null(strchr(plain, '\033'));
        assert_non_null(strstr(text, "\033[33mreloading\033[0m"));
        for (char *p = text; *p;)
                if (*p == '\033')
                        p = strchr(p, 'm') + 1;
                else
                        *out++ = *p++;
        *out = '\0';
        assert_string_equal(text, plain);
}

/* A master that says less, or other things, is shown as far as it goes. */
static void test_little(void **state) {
        static const char *const bodies[] = {
                "{}",
                "{\"app\":7,\"state\":null,\"workers\":[],\"processes\":{},\"slots\":\"x\",\"uptime_usec\":-1}",
        };

        for (size_t i = 0; i < ELEMENTSOF(bodies); i++) {
                _cleanup_free_ char *text = PRINTED(0, print_status(f, BODY(bodies[i]), false));

                assert_string_equal(text,
                                "-: -, generation -, for - (pid -, muster -)\n"
                                "      workers: -/- ready\n"
                                "  connections: - open, - requests\n"
                                "configuration: -\n"
                                "\n"
                                "SLOT  PID  STATE  GEN  UPTIME  CONN  REQUESTS  MEMORY  CPU  STATUS\n");
        }
        _cleanup_free_ char *odd = PRINTED(0, print_status(f, BODY("{\"processes\":[1,null,{}]}"), false));
        assert_non_null(strstr(odd, "   -    -  -        -       -     -         -       -    -\n"));
}

/* What is no JSON object is nothing that could be shown. */
static void test_not_json(void **state) {
        static const char *const bodies[] = { "", "x", "[]", "3", "{", "{}x", "\xff", "{\"exits\":1}" };

        for (size_t i = 0; i < ELEMENTSOF(bodies); i++) {
                if (i + 1 < ELEMENTSOF(bodies)) {
                        free(PRINTED(-EBADMSG, print_status(f, BODY(bodies[i]), false)));
                        free(PRINTED(-EBADMSG, print_json(f, BODY(bodies[i]))));
                }
                free(PRINTED(-EBADMSG, print_exits(f, BODY(bodies[i]), false)));
                free(PRINTED(-EBADMSG, print_reload(f, "web", BODY(bodies[i]))));
                free(PRINTED(-EBADMSG, print_scale(f, "web", BODY(bodies[i]))));
                free(PRINTED(-EBADMSG, print_send(f, "web", BODY(bodies[i]))));
                char *message = NULL;
                assert_int_equal(print_error_message(BODY(bodies[i]), &message), -EBADMSG);
                assert_null(message);
        }
}

/* The ends of workers, as they come: the oldest first. */
static void test_exits(void **state) {
        static const char body[] =
                        "{\"app\":\"web\",\"exits\":["
                        "{\"slot\":1,\"pid\":101,\"generation\":1,\"cause\":\"crash\",\"code\":\"dumped\",\"status\":11,"
                        "\"signal\":\"SIGSEGV\",\"time_usec\":784111777000000,\"uptime_usec\":61000000,\"peak_memory_bytes\":2097152,"
                        "\"cpu_usec\":250000,\"reason\":\"\",\"status_text\":\"was busy\"},"
                        "{\"slot\":12,\"pid\":7,\"generation\":10,\"cause\":\"retired\",\"code\":\"exited\",\"status\":0,"
                        "\"signal\":null,\"time_usec\":784111778000000,\"uptime_usec\":1000,\"peak_memory_bytes\":0,"
                        "\"cpu_usec\":0,\"reason\":\"max_requests\",\"status_text\":\"x\"},{}]}";
        _cleanup_free_ char *text = NULL;

        setenv("TZ", "UTC", 1);
        tzset();
        text = PRINTED(0, print_exits(f, BODY(body), false));
        assert_string_equal(text,
                        "TIME                 SLOT  PID  GEN  CAUSE                   UPTIME  PEAK    CPU  REASON\n"
                        "1994-11-06 08:49:37     1  101    1  crash (SIGSEGV, core)  1min 1s  2.0M  250ms  was busy\n"
                        "1994-11-06 08:49:38    12    7   10  retired (status 0)         1ms    0B    0ms  max_requests\n"
                        "-                       -    -    -  - (status -)                 -     -      -\n");
}

/* One line each. */
static void test_results(void **state) {
        _cleanup_free_ char *two =
                        PRINTED(0, print_reload(f, "web", BODY("{\"generation\":3,\"workers\":2}")));
        _cleanup_free_ char *one =
                        PRINTED(0, print_reload(f, "web", BODY("{\"generation\":1,\"workers\":1}")));
        _cleanup_free_ char *scaled = PRINTED(0, print_scale(f, "web", BODY("{\"workers\":4,\"ready\":2}")));

        assert_string_equal(two, "web: generation 3 serves with 2 workers\n");
        assert_string_equal(one, "web: generation 1 serves with 1 worker\n");
        assert_string_equal(scaled, "web: 4 workers wanted, 2 ready\n");
}

/* Who has a message, and a line for each that has not; then it is not whole. */
static void test_send(void **state) {
        static const char two[] = "{\"delivered\":2,\"undelivered\":[]}", old[] = "{\"delivered\":1}";
        static const char some[] =
                        "{\"delivered\":0,\"undelivered\":[{\"worker\":3,\"pid\":77,\"reason\":\"it sleeps\\n\"},{}]}";
        _cleanup_free_ char *a = PRINTED(0, print_send(f, "web", BODY(two)));
        _cleanup_free_ char *b = PRINTED(0, print_send(f, "web", BODY(old)));
        _cleanup_free_ char *c = PRINTED(0, print_send(f, "web", BODY(some)));

        assert_string_equal(a, "web: delivered to 2 workers\n");
        assert_string_equal(b, "web: delivered to 1 worker\n");
        assert_string_equal(c, "web: delivered to 0 workers\n"
                               "web: worker 3 (pid 77) has not got it: it sleeps?\n"
                               "web: worker - (pid -) has not got it: -\n");
        assert_true(print_send_is_whole(BODY(two)) && print_send_is_whole(BODY(old)));
        assert_false(print_send_is_whole(BODY(some)));
}

/* For a terminal: nothing but ASCII, so no control character is left. */
static void test_json(void **state) {
        _cleanup_free_ char *text = PRINTED(0, print_json(f, BODY("{\"b\":\"\\u001b\xc2\x9b\",\"a\":[1]}")));

        assert_string_equal(text, "{\n  \"b\": \"\\u001B\\u009B\",\n  \"a\": [\n    1\n  ]\n}\n");
}

/* The sentence of an error, for one line. */
static void test_error_message(void **state) {
        _cleanup_free_ char *message = NULL;

        assert_int_equal(
                        print_error_message(
                                        BODY("{\"error\":{\"code\":\"x\",\"message\":\"no\\n\\u001b[1m \xc3\xbc\"}}"),
                                        &message),
                        0);
        assert_string_equal(message, "no??[1m \xc3\xbc");
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_status),
                cmocka_unit_test(test_twins),
                cmocka_unit_test(test_color),
                cmocka_unit_test(test_little),
                cmocka_unit_test(test_not_json),
                cmocka_unit_test(test_exits),
                cmocka_unit_test(test_results),
                cmocka_unit_test(test_send),
                cmocka_unit_test(test_json),
                cmocka_unit_test(test_error_message),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
