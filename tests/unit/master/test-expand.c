/* SPDX-License-Identifier: MIT */
/* What %{…} becomes, and what is refused with which words. */

#include "../unit.h"

#include "basic/macro.h"
#include "master/expand.h"

static char *const variables[] = { (char *) "RUNTIME_DIRECTORY=/run/web", (char *) "RUNTIME=no",
        (char *) "EMPTY=", NULL };
static const ExpandValues values = { .app = "web",
        .worker = "3",
        .socket_names = "http:admin:http:a b",
        .variables = variables,
        .state_url = "redis://:p%40@h" };
static const ExpandValues no_sockets = { .app = "web", .worker = "spare", .socket_names = "" };

static void expand(const char *text, const char *expected) {
        _cleanup_free_ char *result = NULL, *error = NULL;

        assert_int_equal(expand_check(text, EXPAND_ALL, &error), 0);
        assert_int_equal(expand_text(text, &values, &result, &error), 0);
        assert_string_equal(result, expected);
        assert_null(error);
}

/* Everything that stands for something does so, as often as it is there; all else stays. */
static void test_texts(void **state) {
        expand("", "");
        expand("plain", "plain");
        expand("%{fd:http}", "3");
        expand("NGINX=%{fd:http};%{fd:admin};", "NGINX=3;4;");
        expand("%{app}-%{worker}%{worker}", "web-33");
        expand("100%", "100%");
        expand("100%%", "100%");
        expand("%%{app}", "%{app}");
        expand("%{env:RUNTIME_DIRECTORY}/sock%{env:EMPTY}", "/run/web/sock");
        expand("%{state_url}", "redis://:p%40@h");
        expand("%%%{app}", "%web");
        expand("%(h)s %({X-For}i)s %d {app} $%", "%(h)s %({X-For}i)s %d {app} $%");
}

/* Of several sockets of one name the first is meant. */
static void test_same_name(void **state) {
        expand("%{fd:http}", "3");
        expand("%{fd:a b}", "6");
}

static void refuse(const char *text, const ExpandValues *v, const char *expected) {
        _cleanup_free_ char *error = NULL;
        char *untouched = (char *) text, *result = untouched;

        assert_int_equal(expand_text(text, v, &result, &error), EXPAND_INVALID);
        assert_ptr_equal(result, untouched);
        assert_string_equal(error, expected);
}

/* A name that no socket has is known only when there are sockets. */
static void test_unknown_socket(void **state) {
        _cleanup_free_ char *error = NULL;

        assert_int_equal(expand_check("%{fd:web}", EXPAND_ALL, &error), 0);
        refuse("%{fd:web}", &values,
                        "found \"%{fd:web}\", expected the name of a socket, of which there are http:admin:http:a b");
        refuse("%{fd:htt}", &values,
                        "found \"%{fd:htt}\", expected the name of a socket, of which there are http:admin:http:a b");
        refuse("%{fd:http}", &no_sockets,
                        "found \"%{fd:http}\", expected no %{fd:NAME}: there is no socket");
}

static void refuse_everywhere(const char *text, const char *expected) {
        _cleanup_free_ char *error = NULL;

        refuse(text, &values, expected);
        assert_int_equal(expand_check(text, EXPAND_ALL, &error), EXPAND_INVALID);
        assert_string_equal(error, expected);
}

/* What stands for nothing is shown, but not what is around it. */
static void test_unknown(void **state) {
#define EXPECTED \
        "expected %{fd:NAME}, %{worker}, %{app}, %{env:NAME}, %{state_url}, or %% for a percent sign"
        refuse_everywhere("a%{Host}b", "found \"%{Host}\", " EXPECTED);
        refuse_everywhere("%{}", "found \"%{}\", " EXPECTED);
        refuse_everywhere("%{fd:}", "found \"%{fd:}\", " EXPECTED);
        refuse_everywhere("%{fd}", "found \"%{fd}\", " EXPECTED);
        refuse_everywhere("%{APP}", "found \"%{APP}\", " EXPECTED);
        refuse_everywhere("%{app }", "found \"%{app }\", " EXPECTED);
        refuse_everywhere("%{a\npp}", "found \"%{a?pp}\", " EXPECTED);
        refuse_everywhere("%{app", "found \"%{\", expected a } behind it, or %% for a percent sign");
        refuse_everywhere(
                        "%{app} %{secret", "found \"%{\", expected a } behind it, or %% for a percent sign");
}

/* Without sockets of its own a worker has no number for one. */
static void test_no_descriptors(void **state) {
        _cleanup_free_ char *error = NULL;

        assert_int_equal(expand_check("%{worker} %{app} %%", EXPAND_WORKER | EXPAND_STATE, &error), 0);
        assert_int_equal(expand_check("%{fd:http}", EXPAND_WORKER | EXPAND_STATE, &error), EXPAND_INVALID);
        assert_string_equal(error,
                        "found \"%{fd:http}\", expected %{worker}, %{app}, %{env:NAME}, %{state_url}, or %% for a percent sign "
                        "(%{fd:NAME} is for kind \"program\")");
}

/* What is not there is refused when it is wanted, and a value is never shown. */
static void test_missing(void **state) {
        refuse("%{env:RUNTIM}", &values,
                        "found \"%{env:RUNTIM}\", expected the name of a variable of musterd's own environment");
        refuse("%{env:HOME}", &no_sockets,
                        "found \"%{env:HOME}\", expected the name of a variable of musterd's own environment");
        refuse("%{state_url}", &no_sockets,
                        "found \"%{state_url}\", expected no %{state_url}: there is no state, as state.url is not set "
                        "and systemd has given no $STATE_DIRECTORY");
}

/* An agent is no worker, and has no sockets. */
static void test_agent(void **state) {
        _cleanup_free_ char *error = NULL;

        assert_int_equal(expand_check("%{app} %{env:A} %{state_url}", EXPAND_STATE, &error), 0);
        assert_int_equal(expand_check("%{worker}", EXPAND_STATE, &error), EXPAND_INVALID);
        assert_string_equal(error,
                        "found \"%{worker}\", expected %{app}, %{env:NAME}, %{state_url}, or %% for a percent sign");
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_texts),
                cmocka_unit_test(test_same_name),
                cmocka_unit_test(test_unknown_socket),
                cmocka_unit_test(test_unknown),
                cmocka_unit_test(test_no_descriptors),
                cmocka_unit_test(test_missing),
                cmocka_unit_test(test_agent),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
