/* SPDX-License-Identifier: MIT */
/* Environments; see lmdb-env.h.
 *
 * LMDB maps the whole file, and the size of the map limits the file. It is only addresses that it costs, so
 * it is as large as nobody's state is, and nobody has to stop for a larger one. */

#include "state/lmdb-env.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "basic/fd.h"
#include "basic/list.h"
#include "basic/macro.h"

#define MAP_SIZE_MAX (sizeof(size_t) > 4 ? (size_t) (UINT64_C(64) << 30) : (size_t) 512 << 20)
#define MAP_SIZE_MIN ((size_t) 64 << 20)

/* Transactions that read, at a time, of all processes: one each. */
#define READERS_MAX 2048

/* What LMDB makes of that many. */
#define LOCK_FILE_SIZE (READERS_MAX * 64 + 4096)

/* Of a file system's blocks, the largest. */
#define PROBE_SIZE (64 << 10)

struct LmdbEnv {
        List node;
        unsigned n_ref;
        LmdbSync sync; /* the strictest that was asked for */
        dev_t dev;     /* these two: of the data's file */
        ino_t ino;
        MDB_env *env;
        LmdbData data;
};

/* Threads open them, and each at its end closes its own. */
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static List environments = LIST_INIT(environments);

/*
 * Damage
 */

static __thread jmp_buf *guard;

/* After this LMDB would call abort(). */
static void on_assert(MDB_env *env, const char *text) {
        if (guard)
                longjmp(*guard, 1);
}

int lmdb_guard(int (*function)(void *userdata), void *userdata) {
        jmp_buf *volatile outer = guard;
        jmp_buf here;
        int r;

        guard = &here;
        r = setjmp(here) == 0 ? function(userdata) : MDB_CORRUPTED;
        guard = outer;
        return r;
}

MDB_env *lmdb_env_handle(const LmdbEnv *e) {
        return e->env;
}

const LmdbData *lmdb_env_data(const LmdbEnv *e) {
        return &e->data;
}

static LmdbEnv *env_free(LmdbEnv *e) {
        list_remove(&e->node);
        if (e->env)
                mdb_env_close(e->env);
        free(e);
        return NULL;
}

LmdbEnv *lmdb_env_put(LmdbEnv *e) {
        if (!e)
                return NULL;
        pthread_mutex_lock(&mutex);
        if (--e->n_ref == 0)
                env_free(e);
        pthread_mutex_unlock(&mutex);
        return NULL;
}

/* By the file, which may be another one than that of a directory's earlier life. */
static LmdbEnv *find(const char *path) {
        _cleanup_free_ char *file = NULL;
        struct stat st;

        if (asprintf(&file, "%s/data.mdb", path) < 0) {
                file = NULL;
                return NULL;
        }
        if (stat(file, &st) < 0)
                return NULL;
        list_foreach (node, &environments) {
                LmdbEnv *e = list_entry(node, LmdbEnv, node);

                if (e->dev == st.st_dev && e->ino == st.st_ino)
                        return e;
        }
        return NULL;
}

static const unsigned sync_flags[_LMDB_SYNC_MAX] = {
        [LMDB_SYNC_DATA] = MDB_NOMETASYNC,
        [LMDB_SYNC_FULL] = 0,
        [LMDB_SYNC_NONE] = MDB_NOSYNC,
};

static int try_open(LmdbEnv *e, const char *path, LmdbSync sync, size_t map_size) {
        int r;

        r = mdb_env_create(&e->env);
        if (r != 0)
                return r;
        r = mdb_env_set_assert(e->env, on_assert);
        if (r == 0)
                r = mdb_env_set_maxdbs(e->env, LMDB_DATABASES);
        if (r == 0)
                r = mdb_env_set_maxreaders(e->env, READERS_MAX);
        if (r == 0)
                r = mdb_env_set_mapsize(e->env, map_size);
        /* Transactions belong to no thread: one may be used by turns. */
        if (r == 0)
                r = mdb_env_open(e->env, path, MDB_NOTLS | sync_flags[sync], 0600);
        if (r != 0) {
                mdb_env_close(e->env);
                e->env = NULL;
        }
        return r;
}

/* Fewer addresses where there is a limit: RLIMIT_AS, or of a tool that the process runs under. */
static int open_mapped(LmdbEnv *e, const char *path, LmdbSync sync) {
        size_t size = MAP_SIZE_MAX;
        int r;

        do {
                r = try_open(e, path, sync, size);
                size /= 2;
        } while ((r == ENOMEM || r == EINVAL) && size >= MAP_SIZE_MIN);
        return r;
}

/* A file that ends before what it is said to hold would bring SIGBUS. The rest is filled with zeros, which
 * LMDB does not take for a page of its own, and then all of it is looked at: pages at the end that were
 * never needed may be missing. */
static int complete_file(MDB_env *env, bool *ret_was_short) {
        MDB_envinfo info;
        MDB_stat stat;
        struct stat st;
        off_t size;
        int fd, r;

        *ret_was_short = false;
        r = mdb_env_get_fd(env, &fd);
        if (r == 0)
                r = mdb_env_info(env, &info);
        if (r == 0)
                r = mdb_env_stat(env, &stat);
        if (r != 0)
                return r;
        size = (off_t) (info.me_last_pgno + 1) * stat.ms_psize;
        if (fstat(fd, &st) < 0)
                return errno;
        if (st.st_size >= size)
                return 0;
        *ret_was_short = true;
        if ((size_t) size > info.me_mapsize)
                return MDB_INVALID;
        return fallocate(fd, 0, st.st_size, size - st.st_size) < 0 ? errno : 0;
}

typedef struct Verification {
        const LmdbEnv *env;
        MDB_txn *txn;
        MDB_cursor *cursor;
} Verification;

static int verify_guarded(void *userdata) {
        Verification *v = userdata;

        return lmdb_data_verify(&v->env->data, v->txn, &v->cursor);
}

static int verify(const LmdbEnv *e) {
        Verification v = { .env = e };
        int r;

        r = mdb_txn_begin(e->env, NULL, MDB_RDONLY, &v.txn);
        if (r != 0)
                return r;
        r = lmdb_guard(verify_guarded, &v);
        if (v.cursor)
                mdb_cursor_close(v.cursor);
        mdb_txn_abort(v.txn);
        return r;
}

static int identify(LmdbEnv *e) {
        struct stat st;
        int fd, r;

        r = mdb_env_get_fd(e->env, &fd);
        if (r != 0)
                return r;
        if (fstat(fd, &st) < 0)
                return errno;
        e->dev = st.st_dev;
        e->ino = st.st_ino;
        return 0;
}

/* LMDB writes to the file of its locks through a map of it, and would get SIGBUS where there is no room.
 * Nobody in this process has it open: to close it would drop the locks. */
static int make_lock_file(const char *path) {
        _cleanup_close_ int directory = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC), fd = -EBADF;

        if (directory < 0)
                return errno;
        fd = openat(directory, "lock.mdb", O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
        if (fd < 0)
                return errno;
        return fallocate(fd, 0, 0, LOCK_FILE_SIZE) < 0 && errno != EOPNOTSUPP ? errno : 0;
}

typedef struct Opening {
        LmdbEnv *env;
        const char *path;
        LmdbSync sync;
} Opening;

static int open_checked(void *userdata) {
        const Opening *o = userdata;
        bool was_short;
        int dead, r;

        r = make_lock_file(o->path);
        if (r == 0)
                r = open_mapped(o->env, o->path, o->sync);
        if (r == 0)
                r = identify(o->env);
        if (r == 0)
                r = complete_file(o->env->env, &was_short);
        /* What processes that were killed have not given back keeps old pages from being used again. */
        if (r == 0)
                r = mdb_reader_check(o->env->env, &dead);
        if (r == 0)
                r = lmdb_data_open(&o->env->data, o->env->env);
        if (r == 0 && was_short)
                r = verify(o->env);
        return r;
}

static const char *error_to_string(int r) {
        return r == MDB_INVALID || r == MDB_CORRUPTED ? "its file is not LMDB's, or is damaged"
                                                      : mdb_strerror(r);
}

/* LMDB tells of a write that was cut short as of EIO. It has taken all that there was. */
static bool disk_is_full(const char *path) {
        _cleanup_close_ int fd = open(path, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);

        return fd >= 0 && fallocate(fd, 0, 0, PROBE_SIZE) < 0 && (errno == ENOSPC || errno == EDQUOT);
}

static bool file_is_full(int fd) {
        struct rlimit limit;
        struct stat st;

        return getrlimit(RLIMIT_FSIZE, &limit) == 0 && fstat(fd, &st) == 0 &&
               (rlim_t) st.st_size >= limit.rlim_cur;
}

int lmdb_env_explain(const LmdbEnv *e, int r) {
        const char *path;
        int fd;

        if (r != EIO || mdb_env_get_path(e->env, &path) != 0 || mdb_env_get_fd(e->env, &fd) != 0)
                return r;
        return disk_is_full(path) || file_is_full(fd) ? ENOSPC : r;
}

static int env_new(const char *path, LmdbSync sync, LmdbEnv **ret, char error[static STATE_TEXT_MAX]) {
        LmdbEnv *e = calloc(1, sizeof(*e));
        int r;

        if (!e)
                return -ENOMEM;
        list_init(&e->node);
        e->sync = sync;
        r = lmdb_guard(open_checked, &(Opening){ e, path, sync });
        if (r != 0) {
                snprintf(error, STATE_TEXT_MAX, "The store in %.128s cannot be opened: %s", path,
                                error_to_string(r));
                env_free(e);
                return lmdb_error(r);
        }
        e->n_ref = 1;
        list_append(&environments, &e->node);
        *ret = e;
        return 0;
}

/* Who has it open with less is not harmed by more. */
static int make_stricter(LmdbEnv *e, LmdbSync sync) {
        static const int strictness[_LMDB_SYNC_MAX] = {
                [LMDB_SYNC_NONE] = 0, [LMDB_SYNC_DATA] = 1, [LMDB_SYNC_FULL] = 2
        };
        int r;

        if (strictness[sync] <= strictness[e->sync])
                return 0;
        r = mdb_env_set_flags(e->env, sync_flags[sync], 1);
        if (r == 0)
                r = mdb_env_set_flags(e->env, sync_flags[e->sync], 0);
        if (r == 0)
                e->sync = sync;
        return lmdb_error(r);
}

bool lmdb_env_is_over(int r) {
        return r == MDB_PANIC || r == MDB_MAP_RESIZED;
}

static bool is_over(const LmdbEnv *e) {
        MDB_txn *txn;
        int r;

        r = mdb_txn_begin(e->env, NULL, MDB_RDONLY, &txn);
        if (r == 0)
                mdb_txn_abort(txn);
        return lmdb_env_is_over(r);
}

static int find_or_open(const char *path, LmdbSync sync, LmdbEnv **ret, char error[static STATE_TEXT_MAX]) {
        LmdbEnv *e;
        int r;

        if (mkdir(path, 0700) < 0 && errno != EEXIST) {
                r = errno == ENOSPC ? -ENOSPC : errno == ENOENT ? -ENOTCONN : -EACCES;
                snprintf(error, STATE_TEXT_MAX, "The directory %.128s cannot be made: %m", path);
                return r;
        }
        e = find(path);
        if (!e)
                return env_new(path, sync, ret, error);
        if (is_over(e)) {
                snprintf(error, STATE_TEXT_MAX, "%.128s has failed, and another handle has it open still.",
                                path);
                return -ENOTCONN;
        }
        r = make_stricter(e, sync);
        if (r < 0)
                return r;
        e->n_ref++;
        *ret = e;
        return 0;
}

int lmdb_env_get(const char *path, LmdbSync sync, LmdbEnv **ret, char error[static STATE_TEXT_MAX]) {
        int r;

        pthread_mutex_lock(&mutex);
        r = find_or_open(path, sync, ret, error);
        pthread_mutex_unlock(&mutex);
        return r;
}
