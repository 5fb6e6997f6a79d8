/* SPDX-License-Identifier: MIT */
#include "tally.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define FIRST_MAX  50 /* failures told in detail */
#define FIRST_SIZE 400

static const char *const kind_names[_KIND_MAX] = { "memory", "file", "head", "range", "deferred", "threaded",
        "stream", "timed", "sized", "bare", "keyed", "unkeyed" };

static const char *const failure_names[_FAILURE_MAX] = { "connect", "reset", "closed", "status", "header",
        "body", "order", "extra", "stall", "hang", "no-end" };

static pthread_mutex_t first_mutex = PTHREAD_MUTEX_INITIALIZER;
static char first[FIRST_MAX][FIRST_SIZE];
static size_t n_first;

const char *kind_name(Kind kind) {
        return kind_names[kind];
}

void tally_add_deed(Tally *t, uint64_t id, Kind kind, Outcome outcome) {
        if (kind != KEYED && kind != UNKEYED)
                return;
        if (t->n_deeds == t->size_deeds) {
                t->size_deeds = t->size_deeds > 0 ? 2 * t->size_deeds : 1024;
                t->deeds = reallocarray(t->deeds, t->size_deeds, sizeof(*t->deeds));
                if (!t->deeds)
                        abort();
        }
        t->deeds[t->n_deeds++] = (Deed){ .id = id, .kind = (uint8_t) kind, .outcome = (uint8_t) outcome };
}

/* Where in the histogram; and the other way round, the upper end in microseconds. */
static unsigned histogram_index(uint64_t usec) {
        unsigned octave = 0;

        while (usec >> octave >= 16)
                octave++;
        return octave * 8 + (unsigned) (usec >> octave);
}

static uint64_t histogram_usec(unsigned index) {
        unsigned octave = index < 16 ? 0 : index / 8 - 1;

        return (uint64_t) (index - octave * 8 + 1) << octave;
}

void tally_add_latency(Tally *t, uint64_t nsec) {
        unsigned i = histogram_index(nsec / 1000);

        t->histogram[i < HISTOGRAM_SIZE ? i : HISTOGRAM_SIZE - 1]++;
}

void tally_fail(Tally *t, Failure failure, Kind kind, uint64_t id, uint64_t offset, const char *format,
                ...) {
        char detail[256], line[FIRST_SIZE];
        struct timespec now;
        va_list ap;

        va_start(ap, format);
        vsnprintf(detail, sizeof(detail), format, ap);
        va_end(ap);
        for (char *p = detail; *p; p++)
                if (*p == '"' || *p == '\\' || (unsigned char) *p < ' ' || (unsigned char) *p > '~')
                        *p = '\'';
        t->failed[failure]++;
        clock_gettime(CLOCK_MONOTONIC, &now);
        snprintf(line, sizeof(line),
                        "{\"at\": %lld.%06ld, \"failure\": \"%s\", \"kind\": \"%s\", \"id\": \"%016" PRIx64
                        "\", \"offset\": %" PRIu64 ", \"detail\": \"%s\"}",
                        (long long) now.tv_sec, now.tv_nsec / 1000, failure_names[failure], kind_names[kind],
                        id, offset, detail);
        fprintf(stderr, "%s\n", line);
        pthread_mutex_lock(&first_mutex);
        if (n_first < FIRST_MAX)
                memcpy(first[n_first++], line, sizeof(line));
        pthread_mutex_unlock(&first_mutex);
}

static uint64_t max(uint64_t a, uint64_t b) {
        return a > b ? a : b;
}

void tally_merge(Tally *to, const Tally *from) {
        for (int i = 0; i < _KIND_MAX; i++)
                to->kinds[i] += from->kinds[i];
        for (int i = 0; i < _FAILURE_MAX; i++)
                to->failed[i] += from->failed[i];
        for (int i = 0; i < HISTOGRAM_SIZE; i++)
                to->histogram[i] += from->histogram[i];
        to->connections += from->connections;
        to->ended += from->ended;
        to->closes += from->closes;
        to->unknown += from->unknown;
        to->aborted += from->aborted;
        to->unprocessed += from->unprocessed;
        to->lost += from->lost;
        to->abandoned += from->abandoned;
        to->continues += from->continues;
        to->max_stall = max(to->max_stall, from->max_stall);
        to->max_wait = max(to->max_wait, from->max_wait);
        for (size_t i = 0; i < from->n_deeds; i++)
                tally_add_deed(to, from->deeds[i].id, from->deeds[i].kind, from->deeds[i].outcome);
}

/* Effects */

typedef struct Effects {
        uint64_t *ids; /* sorted */
        size_t n, size;
} Effects;

typedef struct Verdict {
        uint64_t keyed, unkeyed, twice, missing, unexpected, unknown_done, nameless;
        char first[256];
} Verdict;

static void effects_add(Effects *e, uint64_t id) {
        if (e->n == e->size) {
                e->size = e->size > 0 ? 2 * e->size : 1024;
                e->ids = reallocarray(e->ids, e->size, sizeof(*e->ids));
                if (!e->ids)
                        abort();
        }
        e->ids[e->n++] = id;
}

static int compare_ids(const void *a, const void *b) {
        const uint64_t *x = a, *y = b;

        return (*x > *y) - (*x < *y);
}

static void effects_sort(Effects *e) {
        if (e->n > 0)
                qsort(e->ids, e->n, sizeof(*e->ids), compare_ids);
}

/* One is a symbolic link from the request's name, as the server knows it, to its id. */
static void effects_read_keyed(Effects *e, const char *folder) {
        char path[4096], target[32];
        DIR *dir;

        snprintf(path, sizeof(path), "%s/keyed", folder);
        dir = opendir(path);
        if (!dir)
                return;
        for (struct dirent *entry; (entry = readdir(dir));) {
                ssize_t n = readlinkat(dirfd(dir), entry->d_name, target, sizeof(target) - 1);

                if (n <= 0)
                        continue;
                target[n] = '\0';
                effects_add(e, strtoull(target, NULL, 16));
        }
        closedir(dir);
}

static void effects_read_unkeyed(Effects *e, const char *folder) {
        char path[4096], line[64];
        FILE *f;

        snprintf(path, sizeof(path), "%s/unkeyed", folder);
        f = fopen(path, "re");
        if (!f)
                return;
        while (fgets(line, sizeof(line), f))
                effects_add(e, strtoull(line, NULL, 16));
        fclose(f);
}

static size_t effects_count(const Effects *e, uint64_t id) {
        size_t low = 0, high = e->n, n = 0;

        while (low < high) {
                size_t middle = low + (high - low) / 2;

                if (e->ids[middle] < id)
                        low = middle + 1;
                else
                        high = middle;
        }
        while (low + n < e->n && e->ids[low + n] == id)
                n++;
        return n;
}

static void note(Verdict *v, uint64_t *counter, const Deed *d, size_t n) {
        static const char *const outcomes[] = { "answered", "unknown", "unprocessed", "lost" };

        if ((*counter)++ == 0 && v->first[0] == '\0')
                snprintf(v->first, sizeof(v->first), "%s %016" PRIx64 ", %s: %zu effects",
                                kind_names[d->kind], d->id, outcomes[d->outcome], n);
}

static void judge(Verdict *v, const Deed *d, size_t n) {
        if (n > 1)
                note(v, &v->twice, d, n);
        if (n == 0 && d->outcome == ANSWERED)
                note(v, &v->missing, d, n);
        /* One that has got its name is run again until it is answered. */
        if (n > 0 && (d->outcome == UNPROCESSED || (d->outcome == UNKNOWN && d->kind == KEYED)))
                note(v, &v->unexpected, d, n);
        v->nameless += d->outcome == UNKNOWN && d->kind == KEYED;
        v->unknown_done += d->outcome == UNKNOWN && n > 0;
}

static uint64_t report_effects(const Tally *t, const char *folder) {
        Effects keyed = {}, unkeyed = {};
        Verdict v = {};

        effects_read_keyed(&keyed, folder);
        effects_read_unkeyed(&unkeyed, folder);
        effects_sort(&keyed);
        effects_sort(&unkeyed);
        for (size_t i = 0; i < t->n_deeds; i++)
                judge(&v, t->deeds + i,
                                effects_count(t->deeds[i].kind == KEYED ? &keyed : &unkeyed,
                                                t->deeds[i].id));
        printf(", \"effects\": {\"requests\": %zu, \"keyed\": %zu, \"unkeyed\": %zu, \"twice\": %" PRIu64
               ", \"missing\": %" PRIu64 ", \"unexpected\": %" PRIu64 ", \"unknown_done\": %" PRIu64
               ", \"nameless\": %" PRIu64 ", \"first\": \"%s\"}",
                        t->n_deeds, keyed.n, unkeyed.n, v.twice, v.missing, v.unexpected, v.unknown_done,
                        v.nameless, v.first);
        free(keyed.ids);
        free(unkeyed.ids);
        return v.twice + v.missing + v.unexpected;
}

/* The report */

static uint64_t percentile(const Tally *t, double share) {
        uint64_t total = 0, sum = 0;

        for (int i = 0; i < HISTOGRAM_SIZE; i++)
                total += t->histogram[i];
        for (unsigned i = 0; i < HISTOGRAM_SIZE; i++) {
                sum += t->histogram[i];
                if ((double) sum >= share * (double) total)
                        return histogram_usec(i);
        }
        return 0;
}

static uint64_t report_counters(
                const char *title, const char *const *names, const uint64_t *counters, int n) {
        uint64_t total = 0;

        printf(", \"%s\": {", title);
        for (int i = 0; i < n; i++) {
                printf("%s\"%s\": %" PRIu64, i > 0 ? ", " : "", names[i], counters[i]);
                total += counters[i];
        }
        printf("}");
        return total;
}

uint64_t tally_report(Tally *t, uint64_t seed, const char *effects, uint64_t machine_stall) {
        uint64_t answers, failures;

        printf("{\"seed\": %" PRIu64, seed);
        answers = report_counters("kinds", kind_names, t->kinds, _KIND_MAX);
        failures = report_counters("failed", failure_names, t->failed, _FAILURE_MAX);
        printf(", \"answers\": %" PRIu64 ", \"connections\": %" PRIu64 ", \"ended\": %" PRIu64
               ", \"closes\": %" PRIu64 ", \"unknown\": %" PRIu64 ", \"aborted\": %" PRIu64
               ", \"unprocessed\": %" PRIu64 ", \"lost\": %" PRIu64 ", \"abandoned\": %" PRIu64
               ", \"continues\": %" PRIu64,
                        answers, t->connections, t->ended, t->closes, t->unknown, t->aborted, t->unprocessed,
                        t->lost, t->abandoned, t->continues);
        printf(", \"max_stall_ms\": %" PRIu64 ", \"max_wait_ms\": %" PRIu64
               ", \"machine_stall_ms\": %" PRIu64 ", \"p50_usec\": %" PRIu64 ", \"p99_usec\": %" PRIu64,
                        t->max_stall / 1000000, t->max_wait / 1000000, machine_stall / 1000000,
                        percentile(t, 0.5), percentile(t, 0.99));
        if (effects)
                failures += report_effects(t, effects);
        printf(", \"failures\": %" PRIu64 ", \"first\": [", failures);
        for (size_t i = 0; i < n_first; i++)
                printf("%s%s", i > 0 ? ", " : "", first[i]);
        printf("]}\n");
        return failures;
}
