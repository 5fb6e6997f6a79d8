/* SPDX-License-Identifier: MIT */
/* Listening sockets from systemd or from the configuration; see listener.h. */

#include "master/listener.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "basic/fd.h"
#include "basic/log.h"
#include "basic/text.h"
#include "master/activation.h"
#include "master/bind.h"

/* Leaves the text for the user and returns the outcome. */
#define invalid(ret_error, ...) text_outcome(LISTENERS_INVALID, ret_error, __VA_ARGS__)

static void listener_done(Listener *l) {
        safe_close(l->fd);
        if (l->unlink_path)
                (void) unlink(l->unlink_path);
        free(l->unlink_path);
        free(l->name);
}

void listeners_done(Listeners *l) {
        for (size_t i = 0; i < l->n; i++)
                listener_done(l->items + i);
        if (l->control)
                listener_done(l->control);
        free(l->control);
        free(l->items);
        free(l->names);
        *l = (Listeners){ .n = 0 };
}

/* What a descriptor is, in words, when it is not what we need. NULL: a listening stream socket, or a
 * datagram socket where that is of use. */
static const char *what_is_wrong(int fd, bool datagram) {
        union {
                struct sockaddr any;
                struct sockaddr_storage storage;
        } peer;
        int type, listening;
        socklen_t size = sizeof(int);

        if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size) < 0)
                return errno == ENOTSOCK ? "something that is no socket" : "no open descriptor";
        if (type == SOCK_DGRAM && datagram)
                return NULL;
        if (type == SOCK_DGRAM)
                return "a datagram socket (ListenDatagram=)";
        if (type != SOCK_STREAM)
                return "a socket that is no stream";
        size = sizeof(int);
        if (getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &size) < 0 || !listening) {
                size = sizeof(peer);
                return getpeername(fd, &peer.any, &size) < 0 ? "a socket that does not listen"
                                                             : "a connected socket (Accept=yes)";
        }
        return NULL;
}

static int adopt(Listener *l, int fd, const char *name, bool datagram, char **ret_error) {
        const char *wrong = what_is_wrong(fd, datagram);
        socklen_t size = sizeof(l->type);
        int r;

        if (wrong)
                return invalid(ret_error,
                                "descriptor %d (\"%s\"): found %s, expected a listening stream socket (ListenStream=, Accept=no)",
                                fd, name, wrong);

        r = getsockopt(fd, SOL_SOCKET, SO_TYPE, &l->type, &size) < 0 ? -errno : 0;
        if (r >= 0)
                r = address_of_socket(fd, &l->address);
        if (r >= 0)
                r = fd_set_nonblock(fd,
                                true); /* several workers race for one connection: the loser must not hang */
        if (r >= 0)
                r = fd_set_cloexec(fd, true);
        if (r < 0)
                return invalid(ret_error, "descriptor %d (\"%s\"): %s", fd, name, strerror(-r));
        l->name = strdup(name);
        if (!l->name)
                return -ENOMEM;
        l->fd = fd;
        return 0;
}

/* Leaves l->n at 0 when systemd passed none. */
static int open_from_systemd(Listeners *l, bool datagram, char **ret_error) {
        _cleanup_(activation_names_freep) char **names = NULL;
        int r;

        int n = activation_sockets(&names);
        if (n == -ENOMEM)
                return n;
        if (n == -E2BIG)
                return invalid(ret_error, "LISTEN_FDS: found too many sockets, expected at most %d",
                                ACTIVATION_MAX);
        if (n < 0)
                return invalid(ret_error,
                                "LISTEN_PID, LISTEN_FDS, LISTEN_FDNAMES: cannot take over the sockets: %s",
                                strerror(-n));

        l->items = calloc((size_t) MAX(n, 1), sizeof(Listener));
        if (!l->items)
                return -ENOMEM;
        for (int i = 0; i < n; i++) {
                Listener *item = l->items + l->n++;

                item->fd = -EBADF;
                r = adopt(item, ACTIVATION_FIRST_FD + i, names[i], datagram, ret_error);
                if (r != 0)
                        return r;
        }
        return 0;
}

static int bind_one(Listener *l, const ListenConfig *lc, const Config *c, char **ret_error) {
        Address a;
        int r;

        r = address_parse(lc->address, &a);
        assert(r == 0); /* config_load() saw to it */
        BindOptions options = { .type = SOCK_STREAM, .dual_stack = a.wildcard };

        r = bind_address(&a, &options, &l->fd);
        if (r == -EAFNOSUPPORT && a.wildcard) { /* a kernel without IPv6 */
                char any[ADDRESS_STRING_MAX];

                snprintf(any, sizeof(any), "0.0.0.0:%s", lc->address);
                (void) address_parse(any, &a);
                r = bind_address(&a, &options, &l->fd);
        }
        if (r < 0)
                return invalid(ret_error, "%s:%u: listen.address: cannot listen on \"%s\" for \"%s\": %s",
                                c->path, lc->line, lc->address, lc->name, strerror(-r));

        l->type = SOCK_STREAM;
        l->name = strdup(lc->name);
        if (a.sockaddr.any.sa_family == AF_UNIX)
                l->unlink_path = strdup(lc->address);
        if (!l->name || (a.sockaddr.any.sa_family == AF_UNIX && !l->unlink_path))
                return -ENOMEM;
        return address_of_socket(l->fd, &l->address);
}

static int open_from_config(Listeners *l, const Config *c, char **ret_error) {
        int r;

        if (c->n_listen == 0 && c->app_kind == APP_NODE)
                return 0; /* what the app asks for is bound then */
        if (c->n_listen == 0)
                return invalid(ret_error,
                                "%s: listen: found no socket from systemd (LISTEN_FDS) and no address here, expected one: "
                                "start the .socket unit, or set listen: ( { address = \"8080\"; } );",
                                c->path);

        free(l->items);
        l->items = calloc(c->n_listen, sizeof(Listener));
        if (!l->items)
                return -ENOMEM;
        for (size_t i = 0; i < c->n_listen; i++) {
                Listener *item = l->items + l->n++;

                item->fd = -EBADF;
                r = bind_one(item, c->listen + i, c, ret_error);
                if (r != 0)
                        return r;
        }
        return 0;
}

/* Whoever reaches the control socket commands the app: the mode of a file says who that is, and nothing does
 * so for a port. */
static int set_control_aside(Listeners *l, const Config *c, char **ret_error) {
        for (size_t i = 0; i < l->n;) {
                Listener *item = l->items + i;

                if (strcmp(item->name, LISTENER_CONTROL) != 0) {
                        i++;
                        continue;
                }
                if (l->control)
                        return invalid(ret_error, "found two sockets called \"" LISTENER_CONTROL
                                                  "\", expected one at most");
                if (item->address.sockaddr.any.sa_family != AF_UNIX)
                        return invalid(ret_error, "the socket \"" LISTENER_CONTROL
                                                  "\": found a TCP port, expected a unix socket, "
                                                  "whose mode says who may command the app");
                l->control = malloc(sizeof(*item));
                if (!l->control)
                        return -ENOMEM;
                *l->control = *item;
                memmove(item, item + 1, (--l->n - i) * sizeof(*item));
        }
        if (l->n == 0 && c->app_kind != APP_NODE)
                return invalid(ret_error,
                                "found no socket but the one called \"" LISTENER_CONTROL
                                "\", expected one to serve: "
                                "start the app's .socket unit too, or give it another FileDescriptorName=");
        return 0;
}

/* Only with SO_REUSEPORT (ReusePort=yes, and the same ListenStream= several times) are there two of one
 * address. */
static bool is_twin(const Listener *a, const Listener *b) {
        return a->address.sockaddr.any.sa_family != AF_UNIX && a->type == b->type &&
               a->address.size == b->address.size &&
               memcmp(&a->address.sockaddr, &b->address.sockaddr, a->address.size) == 0;
}

static void find_twins(Listeners *l) {
        for (size_t i = 0; i < l->n; i++) {
                l->items[i].first = i;
                for (size_t k = 0; k < i && l->items[i].first == i; k++)
                        if (is_twin(l->items + i, l->items + k))
                                l->items[i].first = k;
        }
}

static int join_names(Listeners *l) {
        size_t size = 1;
        char *p;

        for (size_t i = 0; i < l->n; i++)
                size += strlen(l->items[i].name) + 1;
        l->names = p = malloc(size);
        if (!p)
                return -ENOMEM;
        *p = '\0';
        for (size_t i = 0; i < l->n; i++)
                p += sprintf(p, "%s%s", i ? ":" : "", l->items[i].name);
        return 0;
}

int listeners_open(Listeners *l, const Config *config, char **ret_error) {
        int r;

        *l = (Listeners){ .n = 0 };
        r = open_from_systemd(l, !app_kind_is_native(config->app_kind), ret_error);
        l->from_systemd = l->n > 0;
        if (r == 0 && !l->from_systemd)
                r = open_from_config(l, config, ret_error);
        if (r == 0)
                r = set_control_aside(l, config, ret_error);
        if (r == 0) {
                find_twins(l);
                r = join_names(l);
        }
        if (r != 0)
                listeners_done(l);
        return r;
}

static bool is_asked_for(const Config *c, const char *name) {
        char text[ACTIVATION_NAME_MAX + 8];

        snprintf(text, sizeof(text), "%%{fd:%s}", name);
        for (char **s = c->app_command; s && *s; s++)
                if (strstr(*s, text))
                        return true;
        for (char **s = c->app_environment; s && *s; s++)
                if (strstr(*s, text))
                        return true;
        return false;
}

/* Only the first of a name can be meant: whoever comes by another one would wait for ever. */
static void warn_of_namesakes(const Listeners *l, const Config *c) {
        char first[ADDRESS_STRING_MAX], other[ADDRESS_STRING_MAX];

        for (size_t i = 0; i < l->n && c->app_kind == APP_PROGRAM; i++)
                for (size_t k = i + 1; k < l->n; k++)
                        if (strcmp(l->items[i].name, l->items[k].name) == 0 &&
                                        is_asked_for(c, l->items[i].name))
                                log_warning("%s: %%{fd:%s} is the socket %s, and nobody serves %s, which has the same name: give it another "
                                            "FileDescriptorName=.",
                                                c->path, l->items[i].name,
                                                address_to_string(&l->items[i].address, first),
                                                address_to_string(&l->items[k].address, other));
}

static bool are_all_unix(const Listeners *l) {
        if (l->n == 0)
                return false;
        for (size_t i = 0; i < l->n; i++)
                if (l->items[i].address.sockaddr.any.sa_family != AF_UNIX)
                        return false;
        return true;
}

int listeners_check(const Listeners *l, const Config *c, char **ret_error) {
        char address[ADDRESS_STRING_MAX];

        warn_of_namesakes(l, c);
        if (c->workers_balance != BALANCE_SOURCE || c->workers_proxy_protocol || !are_all_unix(l))
                return 0;
        return config_refuse(c, offsetof(Config, workers_balance), ret_error,
                        "found \"source\" with a unix socket alone (%s), where every client looks the same; expected another "
                        "policy, a TCP port, or proxy_protocol = true for a proxy that tells whose the connections are",
                        address_to_string(&l->items[0].address, address));
}

int listeners_take_control(Listeners *l) {
        return l->control && l->control->fd >= 0 ? TAKE_FD(l->control->fd) : -ENOENT;
}
