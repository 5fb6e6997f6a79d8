/* SPDX-License-Identifier: MIT */
/* state_adder URL N
 *
 * Two processes add 1 to the key "sum", with many additions under way, and are killed at random and started
 * again until the sum is N. What each is told, it marks in memory that all share. In the end every number up
 * to the sum was told once at most, and those that nobody was told are no more than were under way in the
 * processes that were killed. */

#include <errno.h>
#include <inttypes.h>
#include <muster/state.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/wait.h>
#include <unistd.h>

#define N_PROCESSES 2
#define WINDOW      64

typedef struct Shared {
        _Atomic uint64_t highest; /* told to anybody */
        _Atomic uint64_t n_twice; /* numbers that were told again */
        _Atomic int failed;       /* an error */
        _Atomic uint8_t told[];   /* by number */
} Shared;

static Shared *shared;
static const char *url;
static int64_t target;
static sd_event *event;
static unsigned n_under_way;

static void add(muster_state *s);

static void on_sum(muster_state *s, const muster_state_result *result, void *userdata) {
        n_under_way--;
        if (result->error < 0) {
                atomic_store(&shared->failed, -result->error);
                sd_event_exit(event, 1);
                return;
        }
        if (result->number <= target + N_PROCESSES * WINDOW &&
                        atomic_fetch_add(&shared->told[result->number], 1) > 0)
                atomic_fetch_add(&shared->n_twice, 1);
        if ((uint64_t) result->number > atomic_load(&shared->highest))
                atomic_store(&shared->highest, (uint64_t) result->number);
        if (result->number < target)
                add(s);
        else if (n_under_way == 0)
                sd_event_exit(event, 0);
}

static void add(muster_state *s) {
        n_under_way++;
        if (muster_state_add(s, "sum", -1, 1, 0, on_sum, NULL) < 0)
                abort();
}

static int run_adder(void) {
        muster_state *s;
        int r;

        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (sd_event_new(&event) < 0 || muster_state_open(event, url, NULL, &s) < 0)
                return 1;
        for (unsigned i = 0; i < WINDOW; i++)
                add(s);
        r = sd_event_loop(event);
        muster_state_close(s);
        sd_event_unref(event);
        return r;
}

static pid_t start(void) {
        pid_t pid = fork();

        if (pid == 0)
                _exit(run_adder());
        return pid;
}

/* One that has come to its end by itself is not started again. */
static unsigned kill_and_start(pid_t *pid) {
        int status;

        kill(*pid, SIGKILL);
        if (waitpid(*pid, &status, 0) != *pid)
                abort();
        if (WIFEXITED(status)) {
                *pid = 0;
                return 0;
        }
        *pid = start();
        return 1;
}

static void pause_at_random(void) {
        uint32_t r = 0;

        if (getrandom(&r, sizeof(r), 0) != sizeof(r))
                abort();
        usleep(r % 30000);
}

/* Who is killed before it has done anything, again and again, never comes to the end. */
static void wait_for_progress(void) {
        static uint64_t last;

        while (atomic_load(&shared->highest) == last && atomic_load(&shared->failed) == 0)
                usleep(1000);
        last = atomic_load(&shared->highest);
}

static uint64_t count_told(uint64_t sum) {
        uint64_t n = 0;

        for (uint64_t i = 1; i <= sum; i++)
                n += atomic_load(&shared->told[i]) > 0;
        return n;
}

/* What the store says in the end. */
static void on_value(muster_state *s, const muster_state_result *result, void *userdata) {
        char text[32] = "";

        if (result->error == 0 && result->value_size < sizeof(text))
                memcpy(text, result->value, result->value_size);
        *(uint64_t *) userdata = strtoull(text, NULL, 10);
        sd_event_exit(event, 0);
}

static uint64_t read_sum(void) {
        uint64_t sum = 0;
        muster_state *s;

        if (sd_event_new(&event) < 0 || muster_state_open(event, url, NULL, &s) < 0 ||
                        muster_state_get(s, "sum", -1, on_value, &sum) < 0 || sd_event_loop(event) < 0)
                abort();
        muster_state_close(s);
        sd_event_unref(event);
        return sum;
}

int main(int argc, char *argv[]) {
        pid_t pids[N_PROCESSES];
        unsigned n_kills = 0;
        uint64_t sum, told;
        size_t size;

        if (argc != 3) {
                fprintf(stderr, "usage: state_adder URL N\n");
                return 2;
        }
        url = argv[1];
        target = atoll(argv[2]);
        size = sizeof(Shared) + (size_t) target + N_PROCESSES * WINDOW + 1;
        shared = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        if (shared == MAP_FAILED)
                return 1;
        for (int i = 0; i < N_PROCESSES; i++)
                pids[i] = start();
        for (unsigned i = 0; atomic_load(&shared->highest) < (uint64_t) target; i++) {
                pause_at_random();
                wait_for_progress();
                if (pids[i % N_PROCESSES] > 0)
                        n_kills += kill_and_start(&pids[i % N_PROCESSES]);
                if (atomic_load(&shared->failed) != 0)
                        break;
        }
        for (int i = 0; i < N_PROCESSES; i++)
                if (pids[i] > 0)
                        (void) waitpid(pids[i], NULL, 0);
        sum = read_sum();
        told = count_told(sum);
        printf("sum %" PRIu64 ", told %" PRIu64 ", told twice %" PRIu64 ", %u kills\n", sum, told,
                        atomic_load(&shared->n_twice), n_kills);
        if (atomic_load(&shared->failed) != 0) {
                fprintf(stderr, "an addition failed: %s\n", strerror(atomic_load(&shared->failed)));
                return 1;
        }
        return sum < (uint64_t) target || atomic_load(&shared->n_twice) > 0 ||
               sum - told > (uint64_t) n_kills * WINDOW;
}
