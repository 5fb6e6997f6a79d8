/* SPDX-License-Identifier: MIT */
/* musterd: reads its arguments, the configuration and the sockets, and hands over to the manager. */

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "basic/app-name.h"
#include "basic/log.h"
#include "build-config.h"
#include "master/config.h"
#include "master/detach.h"
#include "master/listener.h"
#include "master/manager.h"
#include "master/notify.h"

enum { EXIT_OK = 0, EXIT_FAILED = 1, EXIT_USAGE = 2 };

static bool arg_check;
static bool arg_detach;
static bool arg_print_config;
static char *arg_config;
static char *arg_app;

static void print_help(void) {
        printf("musterd [OPTION…] NAME|FILE\n\n"
               "Runs one worker per CPU behind the sockets that systemd passed.\n\n"
               "NAME is an app, configured in " CONFIGDIR "/NAME.conf; FILE (anything with a slash\n"
               "or ending in .conf) is a configuration file, whose name without .conf is the app's.\n\n"
               "  -c --config=FILE   read FILE instead of " CONFIGDIR "/NAME.conf\n"
               "     --detach        go to the background, and return when the service is ready\n"
               "     --check         check the configuration, start nothing\n"
               "     --print-config  print the effective configuration with all defaults, start nothing\n"
               "  -h --help          print this text\n"
               "     --version       print the version\n\n"
               "See musterd(8) and muster.conf(5).\n");
}

static bool is_file(const char *s) {
        size_t n = strlen(s);

        return strchr(s, '/') || (n > 5 && strcmp(s + n - 5, ".conf") == 0);
}

/* The app's name from a file's: /etc/muster/web.conf is web. */
static char *app_of_file(const char *file) {
        const char *base = strrchr(file, '/') ? strrchr(file, '/') + 1 : file;
        size_t n = strlen(base);

        if (n > 5 && strcmp(base + n - 5, ".conf") == 0)
                n -= 5;
        return strndup(base, n);
}

static int usage_error(const char *text, const char *found) {
        fprintf(stderr, "musterd: %s%s%s%s\nTry \"musterd --help\".\n", text, found ? ": found \"" : "",
                        found ? found : "", found ? "\"" : "");
        return EXIT_USAGE;
}

/* From the positional argument and --config to both a path and a name. */
static int resolve_names(const char *argument) {
        if (!argument && !arg_config)
                return usage_error("no app was named", NULL);

        if (argument && is_file(argument)) {
                if (arg_config)
                        return usage_error("a file was given twice", argument);
                arg_config = strdup(argument);
                argument = NULL;
        }
        arg_app = argument ? strdup(argument) : app_of_file(arg_config);
        if (arg_app && !app_name_is_valid(arg_app))
                return usage_error(
                                "the app's name must be 1 to 64 letters, digits and _.:-, beginning with none of .-",
                                arg_app);
        if (arg_app && !arg_config && asprintf(&arg_config, CONFIGDIR "/%s.conf", arg_app) < 0)
                arg_config = NULL;
        if (!arg_app || !arg_config)
                return log_oom() < 0 ? EXIT_FAILED : EXIT_OK;
        return EXIT_OK;
}

/* Returns an exit status, or -1 to go on. */
static int parse_argv(int argc, char *argv[]) {
        enum { ARG_CHECK = 0x100, ARG_DETACH, ARG_PRINT_CONFIG, ARG_VERSION };
        static const struct option options[] = {
                { "config", required_argument, NULL, 'c' },
                { "check", no_argument, NULL, ARG_CHECK },
                { "detach", no_argument, NULL, ARG_DETACH },
                { "print-config", no_argument, NULL, ARG_PRINT_CONFIG },
                { "help", no_argument, NULL, 'h' },
                { "version", no_argument, NULL, ARG_VERSION },
                { NULL, 0, NULL, 0 },
        };
        int c, r;

        while ((c = getopt_long(argc, argv, "c:h", options, NULL)) >= 0)
                switch (c) {
                case 'c':
                        free(arg_config);
                        arg_config = strdup(optarg);
                        break;
                case ARG_CHECK:
                        arg_check = true;
                        break;
                case ARG_DETACH:
                        arg_detach = true;
                        break;
                case ARG_PRINT_CONFIG:
                        arg_print_config = true;
                        break;
                case 'h':
                        print_help();
                        return EXIT_OK;
                case ARG_VERSION:
                        puts("musterd " MUSTER_VERSION);
                        return EXIT_OK;
                default:
                        fprintf(stderr, "Try \"musterd --help\".\n");
                        return EXIT_USAGE;
                }

        if (argc - optind > 1)
                return usage_error("one app at a time", argv[optind + 1]);
        r = resolve_names(argv[optind]);
        return r == EXIT_OK ? -1 : r;
}

/* Whatever goes wrong before the loop runs: said in the journal and, for systemctl status, in STATUS. */
static int fail_start(int status, const char *message_id, const char *error) {
        log_last_words(&(LogEvent){ .message_id = message_id }, "The app cannot start.",
                        error ? error : strerror(ENOMEM));
        notify_status("", "Failed to start: %s", error ? error : strerror(ENOMEM));
        return status;
}

static int run_check(const Config *config) {
        if (arg_print_config)
                config_print(config, stdout);
        else
                printf("%s: valid\n", config->path);
        return fflush(stdout) == 0 ? EXIT_OK : EXIT_FAILED;
}

/* Descriptors 0, 1 and 2 must be open, or a socket takes their place and gets our messages. */
static int open_standard_streams(void) {
        for (;;) {
                int fd = open("/dev/null", O_RDWR);
                if (fd < 0)
                        return -errno;
                if (fd > STDERR_FILENO) {
                        close(fd);
                        return 0;
                }
        }
}

static bool starts_nothing(void) {
        return arg_check || arg_print_config;
}

/* Returns an exit status, or -1 to go on: as what was called, or detached from it. */
static int prepare(void) {
        log_open(&(LogContext){ .program = "musterd", .app = arg_app });
        if (starts_nothing())
                return -1;

        manager_block_signals();
        if (!arg_detach)
                return -1;
        int r = detach(&arg_config);
        if (r != DETACHED)
                return r;
        log_open(&(LogContext){ .program = "musterd", .app = arg_app }); /* stderr is another one */
        return -1;
}

static int run(void) {
        _cleanup_(config_freep) Config *config = NULL;
        _cleanup_(manager_freep) Manager *manager = NULL;
        _cleanup_(listeners_done) Listeners listeners = { .n = 0 };
        _cleanup_free_ char *error = NULL;
        int r;

        r = config_load(arg_config, &config, &error);
        if (r != 0)
                return fail_start(r == CONFIG_INVALID ? EXIT_USAGE : EXIT_FAILED, MESSAGE_ID_CONFIG_INVALID,
                                error);
        if (starts_nothing())
                return run_check(config);

        r = config_resolve(config, arg_app, &error);
        if (r != 0)
                return fail_start(r == CONFIG_INVALID ? EXIT_USAGE : EXIT_FAILED, MESSAGE_ID_CONFIG_INVALID,
                                error);

        r = listeners_open(&listeners, config, &error);
        if (r != 0)
                return fail_start(EXIT_FAILED, MESSAGE_ID_START_FAILED, error);

        r = listeners_check(&listeners, config, &error);
        if (r != 0)
                return fail_start(EXIT_USAGE, MESSAGE_ID_CONFIG_INVALID, error);

        /* What a worker or a debugger of the same user could read or change in the memory of the one that
         * starts all. */
        (void) prctl(PR_SET_DUMPABLE, 0);

        /* Whoever read our messages may go away: no reason to stop serving. */
        (void) signal(SIGPIPE, SIG_IGN);

        r = manager_new(arg_app, config, &listeners, &manager);
        if (r < 0)
                return EXIT_FAILED;
        (void) TAKE_PTR(config);

        r = manager_run(manager);
        return r < 0 ? EXIT_FAILED : r;
}

int main(int argc, char *argv[]) {
        int r;

        if (open_standard_streams() < 0)
                return EXIT_FAILED;
        log_open(&(LogContext){ .program = "musterd" });
        r = parse_argv(argc, argv);
        if (r < 0)
                r = prepare();
        if (r < 0)
                r = run();
        free(arg_app);
        free(arg_config);
        return r;
}
