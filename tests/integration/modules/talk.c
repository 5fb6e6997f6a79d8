/* SPDX-License-Identifier: MIT */
/* Says to other workers what it is told to say, and writes down what it hears: see ../talk.py. With TRAFFIC
 * it talks all the time, in the store's way too, and checks what it hears: every message is whole, and later
 * than the last one of the same process. With FULL it begins with more to say than there is room for. */

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <muster/http.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "state/bus.h"

#define SENDERS_MAX 4096

/* What the processes of one worker have heard, one after the other. */
typedef struct Heard {
        uint64_t good, garbled, twice, published;
        uint64_t sent, refused; /* by themselves: taken, or not, for want of room */
        struct {
                uint64_t pid, last;
        } senders[2][SENDERS_MAX]; /* of messages, and of what is published */
} Heard;

static int heard_fd;
static Heard *heard;
static uint64_t sequence;
static uint32_t chance;
static size_t size_max;

static void write_down(const char *what, size_t n) {
        char *line = NULL;
        int size = asprintf(&line, "%u %d %.*s\n", muster_http_get_worker(), getpid(), (int) n, what);

        if (size < 0 || write(heard_fd, line, (size_t) size) != size)
                abort();
        free(line);
}

static void write_result(int r) {
        char text[32];

        write_down(text, (size_t) snprintf(text, sizeof(text), "{\"result\":%d}", r));
}

static int say_big(size_t n) {
        char *text = malloc(n);
        int r;

        memset(text, 'x', n);
        text[0] = text[n - 1] = '"';
        r = muster_http_broadcast(text, n);
        free(text);
        return r;
}

static int is_word(const char *json, const char *word) {
        return strncmp(json, word, strlen(word)) == 0;
}

static void on_message(const char *json, size_t n, void *userdata) {
        const char *end = json + n - 1;
        char *rest;

        if (is_word(json, "[\"broadcast\",")) {
                json += strlen("[\"broadcast\",");
                write_result(muster_http_broadcast(json, (size_t) (end - json)));
        } else if (is_word(json, "[\"send\",")) {
                unsigned to = (unsigned) strtoul(json + strlen("[\"send\","), &rest, 10);
                write_result(muster_http_send(to, rest + 1, (size_t) (end - rest - 1)));
        } else if (is_word(json, "[\"big\","))
                write_result(say_big(strtoul(json + strlen("[\"big\","), NULL, 10)));
        else if (is_word(json, "[\"publish\","))
                write_result(state_bus_send(json + strlen("[\"publish\","),
                                (size_t) (end - json) - strlen("[\"publish\",")));
        else
                write_down(json, n);
}

static void on_publish(const char *json, size_t n) {
        write_down(json, n);
}

/* Traffic: [PID,SEQUENCE,SIZE,"xxx…"] */

static uint32_t draw(void) {
        chance = chance * 1664525 + 1013904223;
        return chance >> 8;
}

static void check(const char *text, size_t n, int kind) {
        uint64_t pid, number;
        unsigned i = 0;
        size_t size;
        int at;

        if (sscanf(text, "[%" SCNu64 ",%" SCNu64 ",%zu,\"%n", &pid, &number, &size, &at) != 3 ||
                        n != (size_t) at + size + 2 || strspn(text + at, "x") != size ||
                        memcmp(text + at + size, "\"]", 2) != 0) {
                heard->garbled++;
                return;
        }
        while (i < SENDERS_MAX - 1 && heard->senders[kind][i].pid != 0 && heard->senders[kind][i].pid != pid)
                i++;
        heard->senders[kind][i].pid = pid;
        if (number <= heard->senders[kind][i].last)
                heard->twice++;
        heard->senders[kind][i].last = number;
        if (kind == 0)
                heard->good++;
        else
                heard->published++;
}

static void check_message(const char *json, size_t n, void *userdata) {
        check(json, n, 0);
}

static void check_published(const char *json, size_t n) {
        static const char head[] = "{\"cmd\":\"MUSTER\",\"act\":\"publish\",\"is\":";

        if (is_word(json, head))
                check(json + sizeof(head) - 1, n - sizeof(head), 1);
        else
                heard->garbled++;
}

static void talk(void) {
        static char text[MUSTER_HTTP_MESSAGE_MAX + 128];
        int publishes = draw() % 4 == 0, r;
        size_t size = draw() % 8 == 0 ? draw() % size_max : draw() % 500;
        size_t n = (size_t) sprintf(text, "%s[%d,%" PRIu64 ",%zu,\"",
                        publishes ? "{\"cmd\":\"MUSTER\",\"act\":\"publish\",\"is\":" : "", getpid(),
                        ++sequence, size);

        memset(text + n, 'x', size);
        n += size;
        n += (size_t) sprintf(text + n, "\"]%s", publishes ? "}" : "");
        if (publishes)
                r = state_bus_send(text, n);
        else if (draw() % 2)
                r = muster_http_broadcast(text, n);
        else
                r = muster_http_send(1 + draw() % 2, text, n);
        if (r >= 0)
                heard->sent++;
        else if (r == -ENOBUFS || r == -EMSGSIZE)
                heard->refused++;
        else
                heard->garbled++;
}

static int on_timer(sd_event_source *source, uint64_t usec, void *userdata) {
        for (unsigned i = draw() % 4; i > 0; i--)
                talk();
        sd_event_source_set_time_relative(source, 1000 + draw() % 2000);
        return sd_event_source_set_enabled(source, SD_EVENT_ONESHOT);
}

static int start_traffic(const char *folder) {
        char *path = NULL;
        int fd;

        if (asprintf(&path, "%s/heard.%u.%s", folder, muster_http_get_worker(),
                            getenv("MUSTER_GENERATION")) < 0)
                return -ENOMEM;
        fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
        free(path);
        if (fd < 0 || ftruncate(fd, sizeof(Heard)) < 0)
                return -errno;
        heard = mmap(NULL, sizeof(Heard), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        close(fd);
        chance = (uint32_t) getpid();
        size_max = strtoul(getenv("TRAFFIC_SIZE"), NULL, 10);
        muster_http_set_message_handler(check_message, NULL);
        state_bus_listen(check_published);
        return sd_event_add_time_relative(
                        muster_http_event(), NULL, CLOCK_MONOTONIC, 1000, 100, on_timer, NULL);
}

/* Says more than there is room for. Returns why that was enough. */
static int fill(void) {
        int r;

        do
                r = say_big(100000);
        while (r == 0);
        return r;
}

/* The master, which is the parent where there is no twin, reads nothing meanwhile. */
static int start_full(void) {
        int r;

        if (kill(getppid(), SIGSTOP) < 0)
                return -errno;
        r = fill();
        (void) kill(getppid(), SIGCONT);
        return r == -ENOBUFS ? 0 : -EIO;
}

static int start(void **ret_state) {
        const char *traffic = getenv("TRAFFIC");

        if (traffic)
                return start_traffic(traffic);
        if (getenv("FULL"))
                return start_full();
        heard_fd = open(getenv("HEARD"), O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
        muster_http_set_message_handler(on_message, NULL);
        state_bus_listen(on_publish);
        return heard_fd < 0 ? -errno : 0;
}

static void request(muster_http_request *r, void *state) {
        if (strcmp(muster_http_get_path(r), "/fill") == 0)
                (void) fill();
        muster_http_respond_text(r, 200, "text/plain", "ok\n");
}

MUSTER_HTTP_MODULE("talk", .start = start, .request = request);
