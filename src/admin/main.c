/* SPDX-License-Identifier: MIT */
/* muster-admin: what outsiders reach of an app's master. It speaks HTTP with them on the control socket,
 * which the master hands over as descriptor 3, and asks the master over the channel.
 *
 * It runs as the same user as the master and may command it: what it is for is that a flaw in the parsing of
 * strangers' bytes ends this process and not the one that all workers hang on. Who is a stranger is decided
 * by the mode of the socket. */

#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

#include "admin/clients.h"
#include "admin/master-link.h"
#include "basic/clock.h"
#include "basic/fd.h"
#include "basic/log.h"
#include "basic/parse.h"
#include "build-config.h"

enum { EXIT_OK = 0, EXIT_FAILED = 1, EXIT_USAGE = 2 };

#define LISTEN_FD 3

static ClientsSettings settings = {
        .idle_timeout_usec = 10 * USEC_PER_SEC,
        .request_timeout_usec = 10 * USEC_PER_SEC,
};

static void print_help(void) {
        printf("muster-admin [OPTION…]\n\n"
               "Answers requests on the control socket of an app. Started by musterd.\n\n"
               "     --idle-timeout=DURATION     end when nobody came for this long (10s)\n"
               "     --request-timeout=DURATION  how long a request may take to arrive (10s)\n"
               "  -h --help                      print this text\n"
               "     --version                   print the version\n\n"
               "See muster-admin(8).\n");
}

static int parse_timeout(const char *name, const char *text, uint64_t *ret) {
        uint64_t usec;

        if (parse_duration(text, &usec) < 0 || usec == 0 || usec > 24 * 60 * 60 * USEC_PER_SEC) {
                fprintf(stderr, "muster-admin: %s: found \"%s\", expected a time span up to 1d such as 10s\n",
                                name, text);
                return EXIT_USAGE;
        }
        *ret = usec;
        return -1;
}

/* Returns an exit status, or -1 to go on. */
static int parse_argv(int argc, char *argv[]) {
        enum { ARG_IDLE = 0x100, ARG_REQUEST, ARG_VERSION };
        static const struct option options[] = {
                { "idle-timeout", required_argument, NULL, ARG_IDLE },
                { "request-timeout", required_argument, NULL, ARG_REQUEST },
                { "help", no_argument, NULL, 'h' },
                { "version", no_argument, NULL, ARG_VERSION },
                { NULL, 0, NULL, 0 },
        };
        int c, r = -1;

        while (r < 0 && (c = getopt_long(argc, argv, "h", options, NULL)) >= 0)
                switch (c) {
                case ARG_IDLE:
                        r = parse_timeout("--idle-timeout", optarg, &settings.idle_timeout_usec);
                        break;
                case ARG_REQUEST:
                        r = parse_timeout("--request-timeout", optarg, &settings.request_timeout_usec);
                        break;
                case 'h':
                        print_help();
                        return EXIT_OK;
                case ARG_VERSION:
                        puts("muster-admin " MUSTER_VERSION);
                        return EXIT_OK;
                default:
                        return EXIT_USAGE;
                }
        if (r < 0 && optind < argc) {
                fprintf(stderr, "muster-admin: no arguments are taken: found \"%s\"\n", argv[optind]);
                return EXIT_USAGE;
        }
        return r;
}

static int on_sigterm(sd_event_source *source, const struct signalfd_siginfo *si, void *userdata) {
        clients_drain(userdata);
        return 0;
}

static void on_master_lost(void *userdata) {
        Clients **clients = userdata;

        clients_drain(*clients);
}

static int run(void) {
        Clients *clients = NULL;
        MasterLink *link = NULL;
        sd_event *event = NULL;
        int r;

        r = sd_event_new(&event);
        if (r >= 0)
                r = master_link_new(event, on_master_lost, &clients, &link);
        if (r == -ENXIO)
                log_error("muster-admin is started by musterd, which gives it a channel: MUSTER_CHANNEL_FD is missing.");
        else if (r >= 0) {
                r = fd_set_cloexec(LISTEN_FD, true);
                if (r >= 0)
                        r = clients_new(event, LISTEN_FD, link, &settings, &clients);
                if (r >= 0)
                        r = sd_event_add_signal(event, NULL, SIGTERM, on_sigterm, clients);
                if (r < 0)
                        log_error_errno(r, "Failed to listen on descriptor 3: %m");
        } else
                log_error_errno(r, "Failed to open the channel to the master: %m");

        if (r >= 0)
                r = sd_event_loop(event);
        clients_free(clients);
        master_link_free(link);
        sd_event_unref(event);
        return r < 0 ? EXIT_FAILED : r;
}

int main(int argc, char *argv[]) {
        sigset_t set;
        int r;

        r = parse_argv(argc, argv);
        if (r >= 0)
                return r;

        sigemptyset(&set);
        sigaddset(&set, SIGTERM);
        (void) sigprocmask(SIG_BLOCK, &set, NULL); /* fails for wrong arguments only */
        (void) signal(SIGPIPE, SIG_IGN);           /* whoever reads our messages may go away */
        log_open(&(LogContext){ .program = "muster-admin", .app = getenv("MUSTER_APP") });
        return run();
}
