/* SPDX-License-Identifier: MIT */
/* Commands of Node.js apps: which of them keep the channel from the app, and what is said about it. */

#include "../unit.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "basic/macro.h"
#include "master/node-start.h"

static char dir[] = "/tmp/test-node-start-XXXXXX";
static char package[64];

static int setup(void **state) {
        if (!mkdtemp(dir))
                return -1;
        snprintf(package, sizeof(package), "%s/package.json", dir);
        return 0;
}

static int teardown(void **state) {
        unlink(package);
        return rmdir(dir);
}

static void write_package(const char *text) {
        FILE *f = fopen(package, "we");

        assert_non_null(f);
        fputs(text, f);
        assert_int_equal(fclose(f), 0);
}

/* The command is told by its words with single spaces between. */
static int check(const char *line, char **ret_error) {
        _cleanup_free_ char *copy = strdup(line);
        char *words[16] = { NULL };
        size_t n = 0;

        for (char *save, *w = strtok_r(copy, " ", &save); w; w = strtok_r(NULL, " ", &save))
                words[n++] = w;
        *ret_error = NULL;
        return node_start_check(words, dir, ret_error);
}

static void take(const char *line) {
        _cleanup_free_ char *error = NULL;

        assert_int_equal(check(line, &error), 0);
        assert_null(error);
}

static void refuse(const char *line, const char *expected) {
        _cleanup_free_ char *error = NULL;
        char text[1024];

        assert_int_equal(check(line, &error), NODE_START_INVALID);
        snprintf(text, sizeof(text), "found \"%s\", expected %s", line, expected);
        assert_string_equal(error, text);
}

/* A script that node runs, or that runs itself, has the channel; so has what a shell starts. */
static void test_taken(void **state) {
        take("node server.js");
        take("/usr/bin/node server.js --watch -e");
        take("node --enable-source-maps -r ./first.js --import=tsx server.ts");
        take("node --require --watch server.js"); /* the name of a module */
        take("node -- server.js");
        take("nodejs server.js");
        take("node-22.1 --max-old-space-size=64 server.js");
        take("./server.js");
        take("sh -c npm");
        take("nodemon-like-but-mine x");
}

#define SCRIPT "the path of a script: Node's cluster, by which an app gets its sockets, needs one"
#define WATCH                                                                                    \
        "no --watch: the watcher is a Node process that takes the app's channel for itself and " \
        "starts the app as another one; \"muster reload\" brings new code"

/* Node without a script of its own is no worker of a cluster. */
static void test_no_script(void **state) {
        refuse("node", SCRIPT);
        refuse("node --enable-source-maps", SCRIPT);
        refuse("node -e x", SCRIPT);
        refuse("node -r y --eval x", SCRIPT);
        refuse("node --eval=x", SCRIPT);
        refuse("node -p x", SCRIPT);
        refuse("node -", SCRIPT);
        refuse("/opt/node18 --print x", SCRIPT);
}

/* The watcher takes the channel. */
static void test_watch(void **state) {
        refuse("node --watch server.js", WATCH);
        refuse("node -r x --watch-path=lib server.js", WATCH);
        refuse("nodejs --watch-path lib server.js", WATCH);
}

#define MANAGER(name) \
        "the program itself: " name " is a Node process too and takes the app's channel for itself; "

/* So do package managers; what they would run stands in package.json. */
static void test_managers(void **state) {
        write_package("{\n\t\"name\": \"x\",\r\n  \"scripts\": {\n    \"start\": \"node \\\"a b.js\\\"\",\n    \"web\": \"node w.js\", \"none\": 5\n  }\n}\n");
        refuse("npm start",
                        MANAGER("npm") "say what \"scripts.start\" in package.json says: node \"a b.js\"");
        refuse("/usr/bin/npm --silent run web",
                        MANAGER("npm") "say what \"scripts.web\" in package.json says: node w.js");
        refuse("npm run-script web",
                        MANAGER("npm") "say what \"scripts.web\" in package.json says: node w.js");
        refuse("yarn web", MANAGER("yarn") "say what \"scripts.web\" in package.json says: node w.js");
        refuse("pnpm run web", MANAGER("pnpm") "say what \"scripts.web\" in package.json says: node w.js");
}

/* Where package.json does not help, there is an example instead. */
static void test_no_advice(void **state) {
        static const char *const packages[] = { "", "{", "[]", "5", "{ \"scripts\": 5 }",
                "{ \"scripts\": { \"start\": 5, \"web\": \"\" } }", "{ \"start\": \"x\" }" };

        for (size_t i = 0; i < ELEMENTSOF(packages); i++) {
                write_package(packages[i]);
                refuse("npm start",
                                MANAGER("npm") "say what it would start, such as [ \"/usr/bin/node\", \"server.js\" ]");
        }
        unlink(package);
        refuse("npm start",
                        MANAGER("npm") "say what it would start, such as [ \"/usr/bin/node\", \"server.js\" ]");
        write_package("{ \"scripts\": { \"next\": \"x\" } }");
        refuse("npx next",
                        MANAGER("npx") "say what it would start, such as [ \"/usr/bin/node\", \"server.js\" ]");
        refuse("yarn", MANAGER("yarn") "say what it would start, such as [ \"/usr/bin/node\", \"server.js\" ]");
}

/* Whatever stands in the words and in package.json, it is one printable line. */
static void test_printable(void **state) {
        _cleanup_free_ char *error = NULL, *package_text = NULL;
        static char word[3000];
        char *words[] = { (char *) "npm", word, NULL };

        memset(word, 'x', sizeof(word) - 1);
        memcpy(word, "\n\x1b", 2);
        assert_int_equal(node_start_check(words, dir, &error), NODE_START_INVALID);
        assert_int_equal(strncmp(error, "found \"npm ??xxx", 15), 0);
        assert_true(strlen(error) < 1024);

        free(error);
        words[1] = (char *) "start";
        assert_true(asprintf(&package_text, "{ \"scripts\": { \"start\": \"\\u001b\\n%s\" } }", word + 2) >
                        0);
        write_package(package_text);
        assert_int_equal(node_start_check(words, dir, &error), NODE_START_INVALID);
        assert_non_null(strstr(error, "package.json says: ??xxx"));
        assert_true(strlen(error) < 1024);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_taken),
                cmocka_unit_test(test_no_script),
                cmocka_unit_test(test_watch),
                cmocka_unit_test(test_managers),
                cmocka_unit_test(test_no_advice),
                cmocka_unit_test(test_printable),
        };

        return cmocka_run_group_tests(tests, setup, teardown);
}
