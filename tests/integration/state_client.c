/* SPDX-License-Identifier: MIT */
/* A program that uses the shared state, told what to do by lines on stdin, for test_state.py. What it does
 * and what happens to it is told on stdout, a line each, in the order in which it happened:
 *
 *      TIME KIND ID …      TIME: microseconds of the monotonic clock
 *
 *      o HANDLE ERROR                  open
 *      h HANDLE ERROR TEXT             the store can be reached, or cannot any more
 *      k HANDLE                        closed: all that close calls was called
 *      c ID ERROR                      the call itself has failed: there will be no r
 *      r ID ERROR VERSION [VALUE NUMBER CURSOR KEYS]
 *      s ID DATA                       a message of a subscription; ~: it takes effect
 *      l ID HELD IS_HELD FENCE         the handler of a lease
 *      v ID IS_HELD FENCE              what was asked for
 *      n HANDLE CONNECTED
 *      p TEXT                          ping
 *      x TEXT                          a promise is broken
 *
 * Bytes are hexadecimal, or 'text, or *SIZE:SEED for many of a pattern, or - for none, or ~ for NULL. An
 * operation with the ID 0 has no handler. "then ID COMMAND" has the command carried out within the next call
 * of that handler, "batch N" has the next N lines wait for each other. The end of stdin closes everything.
 */

#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include <muster/state.h>
#include <muster/worker.h>

#define N_HANDLES 64
#define MAX_WORDS 12

/* Longer values are told as their pattern. */
#define PLAIN_MAX 4096

typedef struct Deed {
        struct Deed *next;
        unsigned long id;
        unsigned handle;
        bool is_over; /* an operation: its handler was called; else: it was freed */
        char *then;
        muster_lease *lease;
        muster_subscription *subscription;
} Deed;

typedef struct Bytes {
        uint8_t *data; /* NULL: as was asked for */
        ssize_t size;
} Bytes;

static sd_event *event;
static sd_event_source *input;
static muster_state *handles[N_HANDLES];
static bool is_open[N_HANDLES];
static Deed *deeds;
static bool in_call; /* of an operation, which calls no handler */
static char *batch;
static size_t batch_size, n_batch;

static void carry_out(char *line);

__attribute__((noreturn)) static void failed(const char *what) {
        fflush(stdout);
        fprintf(stderr, "state_client: %s (errno: %s)\n", what, strerror(errno));
        _exit(2);
}

static void check(bool condition, const char *what) {
        if (!condition)
                failed(what);
}

/*
 * What is told
 */

static void begin_line(char kind) {
        struct timespec t;

        clock_gettime(CLOCK_MONOTONIC, &t);
        printf("%lld %c", (long long) t.tv_sec * 1000000 + t.tv_nsec / 1000, kind);
}

static const char *error_name(int r) {
        const char *name = r == 0 ? "0" : strerrorname_np(-r);

        return name ? name : "nonsense";
}

static uint8_t pattern_byte(unsigned seed, size_t i) {
        return (uint8_t) (seed + i * 31 + (i >> 8) * 7);
}

static bool is_pattern(const uint8_t *data, size_t size) {
        for (size_t i = 0; i < size; i++)
                if (data[i] != pattern_byte(data[0], i))
                        return false;
        return true;
}

static void tell_bytes(const void *bytes, size_t size) {
        static const char digits[] = "0123456789abcdef";
        const uint8_t *data = bytes;

        if (!data)
                putchar_unlocked('~');
        else if (size == 0)
                putchar_unlocked('-');
        else if (size > PLAIN_MAX && is_pattern(data, size))
                printf("*%zu:%u", size, data[0]);
        else
                for (size_t i = 0; i < size; i++) {
                        putchar_unlocked(digits[data[i] >> 4]);
                        putchar_unlocked(digits[data[i] & 15]);
                }
}

static void tell_broken(const char *promise, unsigned long id) {
        begin_line('x');
        printf(" %s, %lu\n", promise, id);
}

/*
 * What was told
 */

static uint8_t digit(char c) {
        return (uint8_t) (c >= 'a' ? c - 'a' + 10 : c - '0');
}

static Bytes read_pattern(const char *word) {
        char *end;
        size_t size = strtoul(word + 1, &end, 10);
        unsigned seed = (unsigned) strtoul(end + 1, NULL, 10);
        Bytes b = { .data = malloc(size + 1), .size = (ssize_t) size };

        check(b.data, "memory");
        for (size_t i = 0; i < size; i++)
                b.data[i] = pattern_byte(seed, i);
        return b;
}

/* 'text is given with the size -1. In memory of the very size else, so that a sanitizer sees what reads
 * beyond it, and freed at once after the call. */
static Bytes read_bytes(const char *word) {
        check(word, "a word is missing");
        if (strcmp(word, "~") == 0)
                return (Bytes){ NULL, 0 };
        if (word[0] == '\'')
                return (Bytes){ (uint8_t *) strdup(word + 1), -1 };
        if (word[0] == '*')
                return read_pattern(word);

        size_t n = strcmp(word, "-") == 0 ? 0 : strlen(word) / 2;
        Bytes b = { .data = malloc(n > 0 ? n : 1), .size = (ssize_t) n };
        check(b.data, "memory");
        for (size_t i = 0; i < n; i++)
                b.data[i] = (uint8_t) (digit(word[2 * i]) << 4 | digit(word[2 * i + 1]));
        return b;
}

/* With its size, where -1 is not for strings. */
static Bytes read_sized(const char *word) {
        Bytes b = read_bytes(word);

        if (b.size < 0)
                b.size = (ssize_t) strlen((char *) b.data);
        return b;
}

/* The value of NAME=VALUE among the words from @from on, or "" of a bare NAME; NULL: it is not there. */
static const char *option(char **words, unsigned from, const char *name) {
        size_t n = strlen(name);

        for (unsigned i = from; i < MAX_WORDS && words[i]; i++)
                if (strncmp(words[i], name, n) == 0 && (words[i][n] == '=' || words[i][n] == '\0'))
                        return words[i] + n + (words[i][n] == '=');
        return NULL;
}

static uint64_t number_option(char **words, unsigned from, const char *name) {
        const char *value = option(words, from, name);

        return value ? strtoull(value, NULL, 10) : 0;
}

static unsigned long read_id(const char *word) {
        check(word, "an ID is missing");
        return strtoul(word, NULL, 10);
}

static unsigned handle_index(const char *word) {
        unsigned long n = read_id(word);

        check(n < N_HANDLES, "no such handle");
        return (unsigned) n;
}

static Deed *find_deed(const char *word) {
        unsigned long id = read_id(word);
        Deed *d = deeds;

        while (d && d->id != id)
                d = d->next;
        check(d, "no such ID");
        return d;
}

static Deed *new_deed(char **words) {
        Deed *d = calloc(1, sizeof(*d));

        check(d, "memory");
        d->id = read_id(words[1]);
        d->handle = handle_index(words[2]);
        d->next = deeds;
        deeds = d;
        return d;
}

/*
 * Handlers
 */

static void do_then(Deed *d) {
        char *then = d->then;

        d->then = NULL;
        if (then) {
                bool outer = in_call;
                in_call = false;
                carry_out(then);
                in_call = outer;
        }
        free(then);
}

static void check_handler(const Deed *d) {
        if (in_call)
                tell_broken("a handler within a call", d->id);
        if (!is_open[d->handle])
                tell_broken("a handler after close", d->id);
        if (d->is_over)
                tell_broken("a handler too often", d->id);
}

static void on_result(muster_state *state, const muster_state_result *result, void *userdata) {
        Deed *d = userdata;

        check_handler(d);
        d->is_over = true;
        begin_line('r');
        printf(" %lu %s %llu", d->id, error_name(result->error),
                        (unsigned long long) muster_state_result_get_version(result));
        if (result->error == 0) {
                putchar_unlocked(' ');
                tell_bytes(result->value, result->value_size);
                printf(" %lld ", (long long) result->number);
                tell_bytes(result->cursor, result->cursor_size);
                putchar_unlocked(' ');
                if (result->n_keys == 0)
                        putchar_unlocked('-');
                for (size_t i = 0; i < result->n_keys; i++) {
                        if (i > 0)
                                putchar_unlocked(',');
                        tell_bytes(result->keys[i].data, result->keys[i].size);
                }
        }
        putchar_unlocked('\n');
        do_then(d);
}

static void on_change(muster_state *state, int error, const char *text, void *userdata) {
        unsigned i = (unsigned) (uintptr_t) userdata;

        if (!text)
                tell_broken("a change without a text", i);
        begin_line('h');
        printf(" %u %s ", i, error_name(error));
        tell_bytes(text, text ? strlen(text) : 0);
        putchar_unlocked('\n');
}

static void on_message(muster_subscription *subscription, const void *data, size_t size, void *userdata) {
        Deed *d = userdata;

        check_handler(d);
        begin_line('s');
        printf(" %lu ", d->id);
        tell_bytes(data, size);
        putchar_unlocked('\n');
        do_then(d);
}

static void on_lease(muster_lease *lease, bool held, void *userdata) {
        Deed *d = userdata;

        check_handler(d);
        begin_line('l');
        printf(" %lu %d %d %llu\n", d->id, held, muster_lease_is_held(lease),
                        (unsigned long long) muster_lease_get_fence(lease));
        do_then(d);
}

/*
 * Commands
 */

/* Owns nothing: what a call was given is gone when it has returned. */
static void end_call(Deed *d, int r, Bytes a, Bytes b) {
        in_call = false;
        free(a.data);
        free(b.data);
        if (r == 0)
                return;
        d->is_over = true;
        begin_line('c');
        printf(" %lu %s\n", d->id, error_name(r));
}

static const Bytes none;

static muster_state_handler_t handler_of(const Deed *d) {
        return d->id > 0 ? on_result : NULL;
}

static void do_open(char **words) {
        muster_state_options o = MUSTER_STATE_OPTIONS_INIT;
        unsigned i = handle_index(words[1]);
        Bytes url = read_sized(words[2]);
        muster_state *state = (muster_state *) &o; /* outputs are left alone on failure */

        check(!handles[i], "the handle is open");
        char *text = url.data ? calloc(1, (size_t) url.size + 1)
                              : NULL; /* the bytes have no NUL behind them */
        if (text)
                memcpy(text, url.data, (size_t) url.size);
        o.credential = option(words, 3, "credential");
        o.timeout_usec = number_option(words, 3, "timeout");
        o.required = option(words, 3, "required");
        o.changed = on_change;
        o.userdata = (void *) (uintptr_t) i;
        is_open[i] = true;
        int r = muster_state_open(event, text, option(words, 3, "plain") ? NULL : &o, &state);
        free(text);
        free(url.data);
        if (r == 0)
                handles[i] = state;
        else if (state != (muster_state *) &o)
                tell_broken("an output in spite of a failure", i);
        is_open[i] = r == 0;
        begin_line('o');
        printf(" %u %s\n", i, error_name(r));
}

static void do_close(char **words) {
        unsigned i = handle_index(words[1]);

        muster_state *state = handles[i];
        handles[i] = NULL;
        if (muster_state_close(state))
                tell_broken("close returned something", i);
        if (state) /* else we may be within its close */
                is_open[i] = false;
        for (Deed *d = deeds; state && d; d = d->next)
                if (d->handle == i) {
                        d->lease = NULL;
                        d->subscription = NULL;
                }
        begin_line('k');
        printf(" %u\n", i);
}

static void do_get(char **words) {
        Deed *d = new_deed(words);
        Bytes key = read_bytes(words[3]);

        in_call = true;
        int r = muster_state_get(handles[d->handle], key.data, key.size, handler_of(d), d);
        end_call(d, r, key, none);
}

static void do_set(char **words) {
        muster_state_set_options o = MUSTER_STATE_SET_INIT;
        Deed *d = new_deed(words);
        Bytes key = read_bytes(words[3]), value = read_sized(words[4]);

        o.ttl_usec = number_option(words, 5, "ttl");
        o.if_absent = option(words, 5, "absent");
        o.if_version = number_option(words, 5, "version");
        in_call = true;
        int r = muster_state_set(handles[d->handle], key.data, key.size, value.data, (size_t) value.size,
                        words[5] ? &o : NULL, handler_of(d), d);
        end_call(d, r, key, value);
}

static void do_delete(char **words) {
        Deed *d = new_deed(words);
        Bytes key = read_bytes(words[3]);

        in_call = true;
        int r = muster_state_delete(handles[d->handle], key.data, key.size,
                        number_option(words, 4, "version"), handler_of(d), d);
        end_call(d, r, key, none);
}

static void do_add(char **words) {
        Deed *d = new_deed(words);
        Bytes key = read_bytes(words[3]);

        check(words[4], "the difference is missing");
        in_call = true;
        int r = muster_state_add(handles[d->handle], key.data, key.size, strtoll(words[4], NULL, 10),
                        number_option(words, 5, "ttl"), handler_of(d), d);
        end_call(d, r, key, none);
}

static void do_scan(char **words) {
        Deed *d = new_deed(words);
        Bytes prefix = read_bytes(words[3]), cursor = read_sized(words[4]);

        in_call = true;
        int r = muster_state_scan(handles[d->handle], prefix.data, prefix.size, cursor.data,
                        (size_t) cursor.size, (unsigned) number_option(words, 5, "limit"), handler_of(d), d);
        end_call(d, r, prefix, cursor);
}

static void do_publish(char **words) {
        Deed *d = new_deed(words);
        Bytes channel = read_bytes(words[3]), data = read_sized(words[4]);

        in_call = true;
        int r = muster_state_publish(handles[d->handle], channel.data, channel.size, data.data,
                        (size_t) data.size, handler_of(d), d);
        end_call(d, r, channel, data);
}

static void do_subscribe(char **words) {
        Deed *d = new_deed(words);
        Bytes channel = read_bytes(words[3]);

        in_call = true;
        int r = muster_state_subscribe(handles[d->handle], channel.data, channel.size,
                        option(words, 4, "nobody") ? NULL : on_message, d, &d->subscription);
        end_call(d, r, channel, none);
}

static void do_unsubscribe(char **words) {
        Deed *d = find_deed(words[1]);

        if (muster_subscription_free(d->subscription))
                tell_broken("free returned something", d->id);
        d->subscription = NULL;
        d->is_over = true;
}

static void do_lease(char **words) {
        Deed *d = new_deed(words);
        Bytes name = read_bytes(words[3]);

        check(words[4], "the ttl is missing");
        in_call = true;
        int r = muster_state_lease(handles[d->handle], name.data, name.size, strtoull(words[4], NULL, 10),
                        d->id > 0 ? on_lease : NULL, d, &d->lease);
        end_call(d, r, name, none);
}

static void do_release(char **words) {
        Deed *d = find_deed(words[1]);

        if (muster_lease_release(d->lease))
                tell_broken("release returned something", d->id);
        d->lease = NULL;
        d->is_over = true;
}

static void do_held(char **words) {
        const Deed *d = find_deed(words[1]);

        begin_line('v'); /* the time first: it was held then or later */
        printf(" %lu %d %llu\n", d->id, d->lease && muster_lease_is_held(d->lease),
                        (unsigned long long) (d->lease ? muster_lease_get_fence(d->lease) : 0));
}

static void do_connected(char **words) {
        unsigned i = handle_index(words[1]);

        begin_line('n');
        printf(" %u %d\n", i, handles[i] && muster_state_is_connected(handles[i]));
}

static void do_ping(char **words) {
        begin_line('p');
        printf(" %s\n", words[1]);
}

/* Within a handler, the worst moment there is. */
static void do_die(char **words) {
        kill(getpid(), SIGKILL);
}

/* Below 0: what comes on stdin goes before all else. */
static void do_priority(char **words) {
        check(words[1] && sd_event_source_set_priority(input, atoi(words[1])) >= 0, "priority");
}

static void do_batch(char **words) {
        check(n_batch == 0, "a batch within a batch");
        n_batch = read_id(words[1]);
        batch_size = 0;
}

static const struct {
        const char *name;
        void (*run)(char **words);
} commands[] = {
        { "open", do_open },
        { "close", do_close },
        { "get", do_get },
        { "set", do_set },
        { "delete", do_delete },
        { "add", do_add },
        { "scan", do_scan },
        { "publish", do_publish },
        { "subscribe", do_subscribe },
        { "unsubscribe", do_unsubscribe },
        { "lease", do_lease },
        { "release", do_release },
        { "held", do_held },
        { "connected", do_connected },
        { "ping", do_ping },
        { "die", do_die },
        { "priority", do_priority },
        { "batch", do_batch },
};

static void carry_out(char *line) {
        char *words[MAX_WORDS + 1] = { NULL };

        if (strncmp(line, "then ", 5) == 0) {
                char *command;
                unsigned long id = strtoul(line + 5, &command, 10);
                char text[32];
                snprintf(text, sizeof(text), "%lu", id);
                Deed *d = find_deed(text);
                free(d->then);
                d->then = strdup(command + 1);
                return;
        }
        for (unsigned n = 0; n < MAX_WORDS; n++)
                if (!(words[n] = strtok_r(n == 0 ? line : NULL, " ", &line)))
                        break;
        for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++)
                if (words[0] && strcmp(words[0], commands[i].name) == 0) {
                        commands[i].run(words);
                        return;
                }
        failed("no such command");
}

/*
 * Input
 */

static void end_batch(void) {
        for (size_t n = 0; n < batch_size;) {
                size_t size = strlen(batch + n) + 1;
                carry_out(batch + n);
                n += size;
        }
        batch_size = 0;
}

static void take_line(char *line) {
        if (n_batch == 0) {
                carry_out(line);
                return;
        }
        size_t size = strlen(line) + 1;
        batch = realloc(batch, batch_size + size);
        check(batch, "memory");
        memcpy(batch + batch_size, line, size);
        batch_size += size;
        if (--n_batch == 0)
                end_batch();
}

static void close_all(void) {
        for (unsigned i = 0; i < N_HANDLES; i++) {
                char text[16], *words[] = { NULL, text, NULL };

                snprintf(text, sizeof(text), "%u", i);
                if (handles[i])
                        do_close(words);
        }
}

static int on_input(sd_event_source *source, int fd, uint32_t revents, void *userdata) {
        static char *buffer;
        static size_t used, allocated;

        if (allocated - used < 65536)
                check((buffer = realloc(buffer, allocated = 2 * allocated + 131072)), "memory");
        ssize_t n = read(fd, buffer + used, allocated - used);
        check(n >= 0, "read");
        if (n == 0) {
                free(buffer);
                close_all();
                return sd_event_exit(event, 0);
        }
        size_t begin = 0, look = used;
        used += (size_t) n;
        for (char *end; (end = memchr(buffer + look, '\n', used - look)); look = begin) {
                *end = '\0';
                take_line(buffer + begin);
                begin = (size_t) (end + 1 - buffer);
        }
        if (begin > 0)
                memmove(buffer, buffer + begin, used - begin);
        used -= begin;
        return 0;
}

/* After every round of the loop in which something happened. */
static int on_round_end(sd_event_source *source, void *userdata) {
        check(fflush(stdout) == 0, "stdout");
        return 0;
}

/* As a worker it has no stdin: the test listens on a socket. */
static void use_socket(const char *path) {
        struct sockaddr_un un = { .sun_family = AF_UNIX };
        int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

        check(strlen(path) < sizeof(un.sun_path), "the path is too long");
        memcpy(un.sun_path, path, strlen(path));
        check(fd >= 0 && connect(fd, (struct sockaddr *) &un, sizeof(un)) == 0, "connect");
        check(dup2(fd, STDIN_FILENO) >= 0 && dup2(fd, STDOUT_FILENO) >= 0, "dup2");
        close(fd);
}

static void on_retire(muster_worker *worker, void *userdata) {
        close_all();
        sd_event_exit(event, 0);
}

/* What musterd has started must say that it is ready. NULL: nobody has started this for a worker. */
static muster_worker *become_worker(void) {
        muster_worker_handlers handlers = MUSTER_WORKER_HANDLERS_INIT;
        muster_worker *worker;

        handlers.retire = on_retire;
        if (muster_worker_from_environment(event, &handlers, NULL, &worker) < 0)
                return NULL;
        check(muster_worker_ready(worker) >= 0, "muster_worker_ready");
        return worker;
}

static void free_deeds(void) {
        while (deeds) {
                Deed *d = deeds;
                deeds = d->next;
                free(d->then);
                free(d);
        }
        free(batch);
}

int main(int argc, char **argv) {
        muster_worker *worker = NULL;

        check(sd_event_new(&event) >= 0, "sd_event_new");
        if (argc == 2) {
                use_socket(argv[1]);
                worker = become_worker();
        }
        check(sd_event_add_io(event, &input, STDIN_FILENO, EPOLLIN, on_input, NULL) >= 0, "stdin");
        check(sd_event_add_post(event, NULL, on_round_end, NULL) >= 0, "sd_event_add_post");
        setvbuf(stdout, NULL, _IOFBF, 1 << 16);
        begin_line('p');
        printf(" started\n");
        fflush(stdout);
        int r = sd_event_loop(event);
        fflush(stdout);
        free_deeds();
        muster_worker_free(worker);
        sd_event_source_unref(input);
        sd_event_unref(event);
        return r < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}
