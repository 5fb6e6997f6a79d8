/* SPDX-License-Identifier: MIT */
/* muster: looks at an app and commands it, by its control socket. */

#include <errno.h>
#include <getopt.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "basic/app-name.h"
#include "basic/clock.h"
#include "basic/parse.h"
#include "build-config.h"
#include "cli/app.h"
#include "cli/client.h"
#include "cli/message.h"
#include "cli/print.h"

enum { EXIT_DONE = 0, EXIT_FAILED = 1, EXIT_USAGE = 2 };

/* What the master answers at once; but not a reload, which takes what it takes. */
#define TIMEOUT_DEFAULT_USEC (30 * USEC_PER_SEC)

#define WORKERS_MAX 256

static bool arg_json;
static const char *arg_socket;
static uint64_t arg_timeout_usec = USEC_INFINITY; /* not given */
static unsigned arg_worker;                       /* not given */
static char *arg_body; /* of the request, made of what comes after the name of the app; NULL: none */

typedef struct Verb {
        const char *name;
        unsigned min_args, max_args;
        ClientRequest request;
        int (*read)(const char *argument); /* what comes after the name of the app: an exit status, or -1 */
        const char *arguments;             /* all of them, in words; NULL: an app at most */
        bool takes_worker;
        bool is_status;
        int (*print)(const char *app, const ClientAnswer *a);
        bool (*is_whole)(const char *body, size_t n); /* NULL: whatever is answered with 200 is */
} Verb;

static void print_help(void) {
        printf("muster [OPTION…] COMMAND [NAME] …\n\n"
               "Looks at an app, and commands it.\n\n"
               "  status [NAME]          how the app and its workers are; NAME is \"default\" if left out\n"
               "  exits NAME             the latest ends of workers, and why\n"
               "  reload NAME            read the configuration anew; returns when that generation serves, or\n"
               "                         fails with the reason why the old one goes on\n"
               "  scale NAME N           from now on N workers\n"
               "  send NAME MESSAGE      a JSON value for all workers that are ready, or for one\n\n"
               "     --json              print the answer as JSON\n"
               "     --socket=PATH       of the control socket, instead of /run/muster/NAME/control\n"
               "     --worker=N          send: for the worker of this number alone\n"
               "     --timeout=DURATION  how long to wait for the answer (30s; for reload no limit)\n"
               "  -h --help              print this text\n"
               "     --version           print the version\n\n"
               "See muster(1).\n");
}

static int usage_error(const char *text, const char *found) {
        fprintf(stderr, "muster: %s%s%s%s\nTry \"muster --help\".\n", text, found ? ": found \"" : "",
                        found ? found : "", found ? "\"" : "");
        return EXIT_USAGE;
}

/* Takes the text over; NULL is want of memory. */
static int fail(char *text) {
        fprintf(stderr, "muster: %s\n", text ? text : "out of memory");
        free(text);
        return EXIT_FAILED;
}

static bool has_color(void) {
        const char *no = getenv("NO_COLOR"), *term = getenv("TERM");

        return isatty(STDOUT_FILENO) && !(no && *no) && !(term && strcmp(term, "dumb") == 0);
}

/*
 * Commands
 */

static int show_status(const char *app, const ClientAnswer *a) {
        return print_status(stdout, a->body, a->n, has_color());
}

static int show_exits(const char *app, const ClientAnswer *a) {
        return print_exits(stdout, a->body, a->n, has_color());
}

static int show_reload(const char *app, const ClientAnswer *a) {
        return print_reload(stdout, app, a->body, a->n);
}

static int show_scale(const char *app, const ClientAnswer *a) {
        return print_scale(stdout, app, a->body, a->n);
}

static int show_send(const char *app, const ClientAnswer *a) {
        return print_send(stdout, app, a->body, a->n);
}

static int read_workers(const char *argument) {
        unsigned n;

        if (parse_uint(argument, &n) < 0 || n < 1 || n > WORKERS_MAX)
                return usage_error(
                                "the number of workers must be from 1 to " STRINGIFY(WORKERS_MAX), argument);
        if (asprintf(&arg_body, "{\"workers\":%u}", n) < 0) {
                arg_body = NULL;
                return fail(NULL);
        }
        return -1;
}

static int read_message(const char *argument) {
        _cleanup_free_ char *text = NULL;
        int r;

        r = message_format(argument, arg_worker, &text);
        if (r > 0)
                return usage_error(text, NULL);
        if (r < 0)
                return fail(NULL);
        arg_body = TAKE_PTR(text);
        return -1;
}

static const Verb verbs[] = {
        { "status", 0, 1, { .method = "GET", .path = "/v1/status", .timeout_usec = TIMEOUT_DEFAULT_USEC },
                        .is_status = true, .print = show_status },
        { "exits", 1, 1, { .method = "GET", .path = "/v1/exits", .timeout_usec = TIMEOUT_DEFAULT_USEC },
                        .print = show_exits },
        { "reload", 1, 1, { .method = "POST", .path = "/v1/reload" }, .print = show_reload },
        { "scale", 2, 2, { .method = "POST", .path = "/v1/scale", .timeout_usec = TIMEOUT_DEFAULT_USEC },
                        .read = read_workers, .arguments = "the name of an app and a number of workers",
                        .print = show_scale },
        { "send", 2, 2, { .method = "POST", .path = "/v1/send", .timeout_usec = TIMEOUT_DEFAULT_USEC },
                        .read = read_message, .arguments = "the name of an app and a message",
                        .takes_worker = true, .print = show_send, .is_whole = print_send_is_whole },
};

static int print_answer(const Verb *verb, const App *app, const ClientAnswer *a) {
        int r;

        if (!arg_json)
                r = verb->print(app->name, a);
        else if (isatty(STDOUT_FILENO))
                r = print_json(stdout, a->body, a->n);
        else
                r = printf("%s\n", a->body) < 0 ? -errno : 0;
        if (r == -EBADMSG)
                fprintf(stderr, "muster: %s: the answer is not what was expected\n", app->name);
        else if (r < 0)
                fprintf(stderr, "muster: %s\n", strerror(-r));
        return r < 0 || (verb->is_whole && !verb->is_whole(a->body, a->n)) ? EXIT_FAILED : EXIT_DONE;
}

/* What the other side refused, in its own words. */
static int print_refusal(const App *app, const ClientAnswer *a) {
        _cleanup_free_ char *message = NULL;

        if (print_error_message(a->body, a->n, &message) >= 0)
                fprintf(stderr, "muster: %s: %s\n", app->name, message);
        else
                fprintf(stderr, "muster: %s: the answer has the status %ld and no reason\n", app->name,
                                a->status);
        return EXIT_FAILED;
}

static int ask(const Verb *verb, const App *app) {
        _cleanup_(client_answer_done) ClientAnswer answer = { .status = 0 };
        ClientRequest request = verb->request;
        int r;

        request.socket_path = app->socket_path;
        request.json = arg_body;
        if (arg_timeout_usec != USEC_INFINITY)
                request.timeout_usec = arg_timeout_usec;
        r = client_ask(&request, &answer);
        if (r < 0)
                return fail(app_explain_error(app, r, answer.error));
        return answer.status == 200 ? print_answer(verb, app, &answer) : print_refusal(app, &answer);
}

/* An app that is stopped has a status too. */
static int print_stopped(const App *app, UnitState state) {
        const char *word = state == UNIT_FAILED ? "failed" : "stopped";

        if (arg_json)
                printf("{\"app\":\"%s\",\"state\":\"%s\"}\n", app->name, word);
        else
                printf("%s: %s\n", app->name, word);
        return EXIT_FAILED;
}

static int run(const Verb *verb, const char *name) {
        _cleanup_(app_done) App app;
        UnitState state;

        if (app_init(&app, name, arg_socket) < 0)
                return fail(NULL);
        state = app_get_state(&app);
        if (state != UNIT_INACTIVE && state != UNIT_FAILED)
                return ask(verb, &app);
        if (verb->is_status && app_is_configured(&app))
                return print_stopped(&app, state);
        return fail(app_explain_state(&app, state));
}

/*
 * Arguments
 */

static int parse_timeout(const char *text) {
        uint64_t usec;

        if (parse_duration(text, &usec) < 0 || usec > 365 * 24 * 60 * 60 * USEC_PER_SEC)
                return usage_error("--timeout: expected a time span such as 30s, or 0 for none", text);
        arg_timeout_usec = usec;
        return -1;
}

static int parse_worker(const char *text) {
        if (parse_uint(text, &arg_worker) < 0 || arg_worker < 1 || arg_worker > WORKERS_MAX)
                return usage_error("--worker: expected a number from 1 to " STRINGIFY(WORKERS_MAX), text);
        return -1;
}

/* Returns an exit status, or -1 to go on. */
static int parse_options(int argc, char *argv[]) {
        enum { ARG_JSON = 0x100, ARG_SOCKET, ARG_TIMEOUT, ARG_VERSION, ARG_WORKER };
        static const struct option options[] = {
                { "json", no_argument, NULL, ARG_JSON },
                { "socket", required_argument, NULL, ARG_SOCKET },
                { "timeout", required_argument, NULL, ARG_TIMEOUT },
                { "help", no_argument, NULL, 'h' },
                { "version", no_argument, NULL, ARG_VERSION },
                { "worker", required_argument, NULL, ARG_WORKER },
                { NULL, 0, NULL, 0 },
        };
        int c, r;

        while ((c = getopt_long(argc, argv, "h", options, NULL)) >= 0)
                switch (c) {
                case ARG_JSON:
                        arg_json = true;
                        break;
                case ARG_SOCKET:
                        arg_socket = optarg;
                        break;
                case ARG_TIMEOUT:
                        r = parse_timeout(optarg);
                        if (r >= 0)
                                return r;
                        break;
                case ARG_WORKER:
                        r = parse_worker(optarg);
                        if (r >= 0)
                                return r;
                        break;
                case 'h':
                        print_help();
                        return EXIT_DONE;
                case ARG_VERSION:
                        puts("muster " MUSTER_VERSION);
                        return EXIT_DONE;
                default:
                        fprintf(stderr, "Try \"muster --help\".\n");
                        return EXIT_USAGE;
                }
        return -1;
}

static const Verb *find_verb(const char *name) {
        for (size_t i = 0; i < ELEMENTSOF(verbs); i++)
                if (strcmp(verbs[i].name, name) == 0)
                        return verbs + i;
        return NULL;
}

/* Returns an exit status, or -1 to go on. */
static int check_arguments(const Verb *verb, char **args, unsigned n) {
        char text[128];

        if (n < verb->min_args && verb->arguments) {
                snprintf(text, sizeof(text), "%s are expected", verb->arguments);
                return usage_error(text, NULL);
        }
        if (n < verb->min_args)
                return usage_error("no app was named", NULL);
        if (n > verb->max_args)
                return usage_error("too many arguments", args[verb->max_args]);
        if (n > 0 && !app_name_is_valid(args[0]))
                return usage_error(
                                "the app's name must be 1 to 64 letters, digits and _.:-, beginning with none of .-",
                                args[0]);
        if (arg_worker > 0 && !verb->takes_worker)
                return usage_error("--worker is for the command send", NULL);
        return verb->read ? verb->read(args[1]) : -1;
}

int main(int argc, char *argv[]) {
        const Verb *verb;
        int r;

        r = parse_options(argc, argv);
        if (r >= 0)
                return r;
        if (optind == argc)
                return usage_error("no command was given", NULL);
        verb = find_verb(argv[optind]);
        if (!verb)
                return usage_error("there is no such command", argv[optind]);
        optind++;
        r = check_arguments(verb, argv + optind, (unsigned) (argc - optind));
        if (r < 0)
                r = run(verb, optind < argc ? argv[optind] : "default");
        if (fflush(stdout) != 0 && r == EXIT_DONE) {
                fprintf(stderr, "muster: cannot write: %s\n", strerror(errno));
                r = EXIT_FAILED;
        }
        free(arg_body);
        return r;
}
