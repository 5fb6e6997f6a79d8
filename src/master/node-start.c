/* SPDX-License-Identifier: MIT */
/* How Node.js apps are started; see node-start.h. */

#include "master/node-start.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "basic/fd.h"
#include "basic/macro.h"
#include "basic/text.h"
#include "ipc/json.h"

#define PACKAGE_SIZE_MAX (1024 * 1024)
#define TEXT_MAX         256

static bool is_one_of(const char *const *words, size_t n, const char *word) {
        for (size_t i = 0; i < n; i++)
                if (strcmp(words[i], word) == 0)
                        return true;
        return false;
}

static const char *base_name(const char *path) {
        const char *slash = strrchr(path, '/');

        return slash ? slash + 1 : path;
}

/* node, nodejs, or with a version: node-22, node18. */
static bool is_node(const char *name) {
        return strcmp(name, "nodejs") == 0 ||
               (strncmp(name, "node", 4) == 0 && name[4 + strspn(name + 4, "-.0123456789")] == '\0');
}

/* The words as one would type them, in quotes. */
static const char *quote_command(char *const *command, char buf[static TEXT_MAX]) {
        char text[TEXT_MAX] = "";
        size_t n = 0;

        for (size_t i = 0; command[i] && n < sizeof(text); i++)
                n += (size_t) snprintf(text + n, sizeof(text) - n, "%s%s", i > 0 ? " " : "", command[i]);
        return text_quote(text, buf, TEXT_MAX);
}

/* The name of what the package manager is asked to run, from the "scripts" of package.json; NULL: none. */
static const char *find_script_name(char *const *command) {
        if (strcmp(base_name(command[0]), "npx") == 0)
                return NULL;
        for (char *const *w = command + 1; *w; w++)
                if (**w != '-' && strcmp(*w, "run") != 0 && strcmp(*w, "run-script") != 0)
                        return *w;
        return NULL;
}

/* Returns false when it is not there, or nothing that can be read. */
static bool read_script(const char *path, const char *name, char buf[static TEXT_MAX]) {
        JsonMember scripts = { .name = "scripts" }, script = { .name = name };
        _cleanup_free_ char *text = NULL;

        if (read_small_file(AT_FDCWD, path, PACKAGE_SIZE_MAX, &text) < 0)
                return false;
        for (char *p = text; *p; p++) /* white space, here; nothing else can it be in JSON */
                if (*p == '\n')
                        *p = ' ';
        if (json_scan(text, strlen(text), &scripts, 1) < 0 || !scripts.value.p)
                return false;
        if (json_scan(scripts.value.p, scripts.value.n, &script, 1) < 0)
                return false;
        return json_span_to_text(script.value, buf, TEXT_MAX) && *buf;
}

static int refuse_manager(char *const *command, const char *directory, char **ret_error) {
        const char *name = base_name(command[0]), *script = find_script_name(command);
        char found[TEXT_MAX], advice[TEXT_MAX], printable[TEXT_MAX];
        _cleanup_free_ char *path = NULL;

        if (asprintf(&path, "%s/package.json", directory) < 0) {
                path = NULL;
                return -ENOMEM;
        }
        quote_command(command, found);
        if (script && read_script(path, script, advice)) {
                snprintf(printable, sizeof(printable), "%.64s", script);
                text_make_printable(printable);
                return text_outcome(NODE_START_INVALID, ret_error,
                                "found %s, expected the program itself: %s is a Node process too and takes the app's channel for "
                                "itself; say what \"scripts.%s\" in package.json says: %s",
                                found, name, printable, advice);
        }
        return text_outcome(NODE_START_INVALID, ret_error,
                        "found %s, expected the program itself: %s is a Node process too and takes the app's channel for "
                        "itself; say what it would start, such as [ \"/usr/bin/node\", \"server.js\" ]",
                        found, name);
}

/* Options of node whose value is the next word. */
static bool takes_value(const char *option) {
        static const char *const options[] = { "-r", "--require", "--import", "-C", "--conditions",
                "--loader", "--experimental-loader", "--env-file", "--title", "--input-type",
                "--icu-data-dir", "--openssl-config", "--redirect-warnings", "--diagnostic-dir",
                "--unhandled-rejections", "--dns-result-order", "--stack-trace-limit",
                "--max-http-header-size" };

        return is_one_of(options, ELEMENTSOF(options), option);
}

static int refuse_node(char *const *command, const char *expected, char **ret_error) {
        char found[TEXT_MAX];

        return text_outcome(NODE_START_INVALID, ret_error, "found %s, expected %s",
                        quote_command(command, found), expected);
}

/* Looks at the options that stand before the script. */
static int check_node(char *const *command, char **ret_error) {
        static const char *const evaluate[] = { "-", "-e", "--eval", "-p", "--print", "-pe", "-i",
                "--interactive" };
        static const char watch[] = "--watch";
        static const char no_script[] =
                        "the path of a script: Node's cluster, by which an app gets its sockets, needs one";

        for (char *const *w = command + 1; *w; w++) {
                if (strncmp(*w, watch, strlen(watch)) == 0)
                        return refuse_node(command,
                                        "no --watch: the watcher is a Node process that takes the app's channel for itself "
                                        "and starts the app as another one; \"muster reload\" brings new code",
                                        ret_error);
                if (is_one_of(evaluate, ELEMENTSOF(evaluate), *w) || strncmp(*w, "--eval=", 7) == 0 ||
                                strncmp(*w, "--print=", 8) == 0)
                        return refuse_node(command, no_script, ret_error);
                if (**w != '-' || (strcmp(*w, "--") == 0 && w[1]))
                        return 0;
                if (takes_value(*w) && w[1])
                        w++;
        }
        return refuse_node(command, no_script, ret_error);
}

int node_start_check(char *const *command, const char *directory, char **ret_error) {
        static const char *const managers[] = { "npm", "npx", "pnpm", "pnpx", "yarn", "yarnpkg" };
        const char *name = base_name(command[0]);

        if (is_one_of(managers, ELEMENTSOF(managers), name))
                return refuse_manager(command, directory, ret_error);
        return is_node(name) ? check_node(command, ret_error) : 0;
}
