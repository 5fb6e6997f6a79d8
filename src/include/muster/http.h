/* SPDX-License-Identifier: MIT */
#ifndef MUSTER_HTTP_H
#define MUSTER_HTTP_H

/**
 * Modules of the native worker: HTTP handlers in C, in a shared object that muster-worker loads (kind =
 * "module" in muster.conf(5)). Made with
 *
 *     cc -shared -fPIC $(pkg-config --cflags muster) hello.c -o hello.so
 *
 * without a library to link: the functions are the worker's own, and are found when it loads the module. A
 * module that also uses the rest of libmuster links that as usual.
 *
 * A worker has one loop, in one thread; all handlers are called from there, and all functions of this header
 * but muster_offload() belong there. A handler that takes long holds all clients of this worker up: what
 * blocks goes to muster_offload(), what waits is put on muster_http_event(), and the answer is given later.
 *
 * A request is named by a handle. It is over when it has been answered (muster_http_respond() and its like,
 * muster_http_end(), muster_http_abort()), or when its client has left; from then on every function returns
 * -ESTALE (NULL, 0) for it and does nothing, so that a handle may be kept by whoever will answer some day,
 * and need not be cleared. See muster_http_set_close_handler(). A handle is no address, and is never given
 * out twice.
 *
 * Functions that return an int return 0 or a negative errno. Strings are text with a NUL at the end and
 * belong to the request: they are valid until the handler returns in which it is over, or until its close
 * handler is called.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <systemd/sd-event.h>

#ifdef __cplusplus
extern "C" {
#endif

/** The version of what is between the worker and a module. A module of another one is refused. */
#define MUSTER_HTTP_ABI 1

/** A body whose size is not known: one that comes, or goes, in chunks. */
#define MUSTER_HTTP_SIZE_UNKNOWN UINT64_MAX

/** The longest event of muster_http_send_event(), in bytes. */
#define MUSTER_HTTP_EVENT_MAX (1024 * 1024)

/** How many pieces of work wait at most in muster_offload(). */
#define MUSTER_OFFLOAD_QUEUE_MAX 10000

/** A request that is not answered yet, by its handle. */
typedef struct muster_http_request muster_http_request;

/** What a module is; it exports one under the name muster_module. See MUSTER_HTTP_MODULE(). */
typedef struct muster_http_module {
        /** sizeof(muster_http_module), as the module was compiled with. */
        size_t size;
        /** MUSTER_HTTP_ABI, likewise. */
        uint32_t abi;
        /** For logs. */
        const char *name;
        /** Called once before the first request, with the environment and the directory of the
         * configuration. What it leaves in *ret_state is given to the others. A negative errno: the worker
         * cannot start, and says so with the error's text. NULL: nothing is to be done. */
        int (*start)(void **ret_state);
        /** Called for every request when its head is complete; answers it, now or later. Required. */
        void (*request)(muster_http_request *request, void *state);
        /** The worker has been told to go. It goes when all requests are answered: a stream that would go on
         * for ever has to be ended. May be NULL. */
        void (*retire)(void *state);
        /** Called once at the end: no request is left, and no work. May be NULL. */
        void (*stop)(void *state);
        /** Requests of any method may be run again after the death of a process that had not answered them
         * (muster-twin(7)): what handlers do bears repeating, or is atomic on muster_http_request_id().
         * Without it that goes for GET, HEAD, OPTIONS and TRACE, and for a request from there on where that
         * function was called; a death between its handler's start and that call is answered with 503. */
        bool repeatable;
} muster_http_module;

/** The module's own; see MUSTER_HTTP_MODULE(). */
extern const muster_http_module muster_module __attribute__((visibility("default")));

/** Defines the module: MUSTER_HTTP_MODULE("hello", .request = on_request). What is not named is NULL. (C++
 * knows designated initializers from C++20 on.) */
#define MUSTER_HTTP_MODULE(module_name, ...)                                           \
        const muster_http_module muster_module = { .size = sizeof(muster_http_module), \
                .abi = MUSTER_HTTP_ABI,                                                \
                .name = (module_name),                                                 \
                __VA_ARGS__ }

#pragma GCC visibility push(default)

/* The request */

/**
 * A name of the request that no other one has or will have, and that stays the same when another process
 * runs the request again because this one has died (muster-twin(7)). Letters, digits and '-', at most 47 of
 * them.
 *
 * Who makes an effect atomic on it (a unique key of a database, O_EXCL, SET NX) asks for it before the
 * effect, and before a large body is read: from there on the request is run again until it is answered. Of a
 * method that is not safe, a request which nobody has asked for its name is answered with 503 instead; see
 * muster_http_module.repeatable. NULL: the request is over, or there is no memory.
 */
const char *muster_http_request_id(muster_http_request *request);

/** Methods: muster_http_get_method(). */
enum {
        MUSTER_HTTP_OTHER, /**< none of these; muster_http_get_method_name() has it */
        MUSTER_HTTP_GET,
        MUSTER_HTTP_HEAD, /**< answer it like GET: the worker leaves the body out */
        MUSTER_HTTP_POST,
        MUSTER_HTTP_PUT,
        MUSTER_HTTP_DELETE,
        MUSTER_HTTP_CONNECT,
        MUSTER_HTTP_OPTIONS,
        MUSTER_HTTP_TRACE,
        MUSTER_HTTP_PATCH
};

/** MUSTER_HTTP_GET …, or -ESTALE. */
int muster_http_get_method(muster_http_request *request);

/** The method as it was sent, such as "GET". */
const char *muster_http_get_method_name(muster_http_request *request);

/** Path and query as they were sent, such as "/a%20b?c=d". "*" for OPTIONS of the server as a whole. */
const char *muster_http_get_target(muster_http_request *request);

/** The target up to the question mark, as it was sent: it begins with a slash, escapes are not decoded. */
const char *muster_http_get_path(muster_http_request *request);

/** What follows the question mark, not decoded; "" when there is none. */
const char *muster_http_get_query(muster_http_request *request);

/** The value of the first parameter of the query that is called @name (compared as it was sent), decoded:
 * "a b" in "?x=1&name=a%20b", "" for one without a value. NULL: there is none, or it is malformed. */
const char *muster_http_get_parameter(muster_http_request *request, const char *name);

/** Host and port that the client asked for; "" when it did not say (HTTP/1.0). */
const char *muster_http_get_authority(muster_http_request *request);

/** 1 for HTTP/1.1, 0 for HTTP/1.0, or -ESTALE. */
int muster_http_get_minor_version(muster_http_request *request);

/** The value of the first header of that name, in whatever case; NULL: there is none. */
const char *muster_http_get_header(muster_http_request *request, const char *name);

/** The headers one after the other, from @index 0 on. Returns 0 or a negative errno; -ENOENT: there are not
 * so many. */
int muster_http_get_header_at(
                muster_http_request *request, unsigned index, const char **ret_name, const char **ret_value);

/** Where the client is, by the PROXY protocol where that is configured: the number of its address, without
 * the port; "unix" for a socket of that kind, "" when it is not known. */
const char *muster_http_get_peer_name(muster_http_request *request);

/** The same as an address. Returns its size, or a negative errno as of getpeername(2). */
ssize_t muster_http_get_peer(muster_http_request *request, struct sockaddr_storage *ret);

/** The number of this request among those of the worker, from 1; 0: it is over. */
uint64_t muster_http_get_number(muster_http_request *request);

/** Something of the module's that belongs to the request. NULL at first. */
void *muster_http_get_userdata(muster_http_request *request);
int muster_http_set_userdata(muster_http_request *request, void *userdata);

/** 1 when the request is over: there is nobody to be answered any more. Else 0. */
int muster_http_is_gone(muster_http_request *request);

/**
 * Called once, when the request is over: a good place to free what was made for it.
 *
 * @error  0: the answer has been given, and is on its way; -ECONNRESET: the client has left before that, or
 *         was answered by the worker in the module's stead, because it took longer than http.answer_timeout
 *         (503); -ECANCELED: by muster_http_abort(), or because the worker ends; or the body's error
 *
 * It may be called from within the function that answers. The handle is of no use there.
 */
typedef void (*muster_http_close_handler_t)(int error, void *userdata);

/** Sets who is told that the request is over; NULL: nobody. */
int muster_http_set_close_handler(
                muster_http_request *request, muster_http_close_handler_t handler, void *userdata);

/* Its body. Without one of these calls it is passed over. */

/** The body's size in bytes: 0, there is none; MUSTER_HTTP_SIZE_UNKNOWN: it comes in chunks. */
uint64_t muster_http_get_body_size(muster_http_request *request);

/**
 * Called once, from the loop, when the body is complete, or will never be.
 *
 * @data   the body with a NUL behind it, valid until the handler returns; NULL on error
 * @error  0, or a negative errno: -EMSGSIZE, it is larger than it may be; -EBADMSG, it is malformed;
 *         -ETIMEDOUT, it did not come; -ECONNRESET, the client has left; -ECANCELED, the worker ends;
 *         -ENOMEM. Unless the handler answers, the worker does then: 413, 400, 408, 503
 */
typedef void (*muster_http_body_handler_t)(
                muster_http_request *request, const char *data, size_t size, int error, void *userdata);

/**
 * Collects the body in memory.
 *
 * @max  of its size in bytes; 0, or more than http.max_body: what that says
 *
 * Returns 0 or a negative errno; -EALREADY: it is being read.
 */
int muster_http_collect(muster_http_request *request, uint64_t max, muster_http_body_handler_t handler,
                void *userdata);

/** Hands over the body as it comes, in pieces of any size; at its end @data is NULL and @size 0. Otherwise
 * as muster_http_collect(). */
int muster_http_read_body(muster_http_request *request, uint64_t max, muster_http_body_handler_t handler,
                void *userdata);

/** Reads no more for now: the client has to wait. */
int muster_http_pause_body(muster_http_request *request);

/** Goes on reading. */
int muster_http_resume_body(muster_http_request *request);

/** A field that came behind a body in chunks, known at its end; NULL: there is none of that name. */
const char *muster_http_get_trailer(muster_http_request *request, const char *name);

/* The answer as a whole */

/** The status, 200 … 599; 200 when it is not set. -EINVAL: another number; -EALREADY: the answer has begun.
 */
int muster_http_set_status(muster_http_request *request, unsigned status);

/** Adds a header. -EINVAL: the name is none, the value has a control character in it, or it belongs to the
 * worker: Connection, Content-Length, Date, Keep-Alive, Trailer, Transfer-Encoding, Upgrade; -ENOBUFS: more
 * than 8 KiB of them; -EALREADY: the answer has begun. */
int muster_http_add_header(muster_http_request *request, const char *name, const char *value);

/** Answers with these bytes, which are copied. -EALREADY: the answer has begun. */
int muster_http_respond(muster_http_request *request, const void *data, size_t size);

/** Answers with a status, a media type (such as "application/json"; instead of a Content-Type that was
 * added) and text. */
int muster_http_respond_text(
                muster_http_request *request, unsigned status, const char *type, const char *text);

/** Answers with a small page that says what the status means. Headers that were added stay. */
int muster_http_respond_status(muster_http_request *request, unsigned status);

/**
 * Answers with a piece of a file, by sendfile(2).
 *
 * @fd      of a regular file; the worker's from here on, whatever is returned
 * @offset  where the piece begins, in bytes
 * @size    its size; MUSTER_HTTP_SIZE_UNKNOWN: up to the end of the file
 *
 * Returns 0 or a negative errno; -EINVAL: it is no regular file; -ERANGE: it is not so large.
 */
int muster_http_respond_fd(muster_http_request *request, int fd, uint64_t offset, uint64_t size);

/* The answer in pieces */

/** Begins the answer. @size: of the whole body, in bytes; MUSTER_HTTP_SIZE_UNKNOWN: as long as it gets.
 * -ECONNRESET: the client has left; -EALREADY: it has begun. */
int muster_http_begin(muster_http_request *request, uint64_t size);

/** Sends a piece, of which some may have to wait in a buffer of bounded size. Returns how many bytes were
 * taken; when that is less than all, the writable handler is called as soon as there is room. Or a negative
 * errno: -ECONNRESET, the client has left; -EMSGSIZE, that is more than was announced; -EINVAL, the answer
 * has not begun. */
ssize_t muster_http_write(muster_http_request *request, const void *data, size_t size);

typedef void (*muster_http_writable_handler_t)(muster_http_request *request, void *userdata);

/** Sets who is told that there is room, after muster_http_write() took less than all, or after
 * muster_http_send_event() returned -EAGAIN. */
int muster_http_set_writable_handler(
                muster_http_request *request, muster_http_writable_handler_t handler, void *userdata);

/** The largest state of muster_http_checkpoint(), in bytes. */
#define MUSTER_HTTP_CHECKPOINT_MAX 256

/**
 * What was written so far is complete, and another process can go on from here if this one dies
 * (muster-twin(7)): its request function is called with the request, whatever the method, and finds the
 * state by muster_http_get_checkpoint(). A body that did not fit into the buffer has to be kept for that
 * (muster_http_request_id(), .repeatable). From the first call on what is written is sent when the next
 * checkpoint or muster_http_end() covers it. Of more than there is room for (about 16 KiB) a part is sent
 * before that; a process that dies then takes the answer with it.
 *
 * Only what muster_http_write() has taken counts: the state is to say where the rest begins.
 *
 * @state  what the next process needs, copied; no pointers
 * @size   1 … MUSTER_HTTP_CHECKPOINT_MAX
 *
 * Returns 0 or a negative errno; -EINVAL: there is no state, or the answer has not begun, or is one of
 * events; -EMSGSIZE: the state is too large; -ENOMEM; -ECONNRESET: the client has left. On failure the
 * checkpoint before stays.
 */
int muster_http_checkpoint(muster_http_request *request, const void *state, size_t size);

/**
 * Finds out whether the answer has to go on from a checkpoint; to be called before muster_http_begin(). If
 * it has to, that is called as it was by the process which died, with the same size. It and the headers say
 * nothing more to the client, and any other answer breaks the connection.
 *
 * @state  where the first @size bytes of the state are copied to; may be NULL
 *
 * Returns the size of the state; 0: there is none, and the answer is to be given from its start.
 */
size_t muster_http_get_checkpoint(muster_http_request *request, void *state, size_t size);

/** Adds a field behind the body, of one whose size was not announced. Clients of HTTP/1.0 do not get it.
 * Otherwise as muster_http_add_header(), with room for 1 KiB. */
int muster_http_add_trailer(muster_http_request *request, const char *name, const char *value);

/** The answer is complete. If it is shorter than was announced the connection is closed. */
int muster_http_end(muster_http_request *request);

/** Gives the request up: the connection is closed without (the rest of) an answer. */
int muster_http_abort(muster_http_request *request);

/* Server-sent events: an answer that goes on until the client leaves or muster_http_end() is called. */

/** Begins it, with the headers that belong to it. As muster_http_begin(). */
int muster_http_begin_events(muster_http_request *request);

/**
 * Sends an event as a whole, or not at all.
 *
 * @event  its type; NULL: "message"
 * @id     what a client that comes back tells in the header Last-Event-ID; NULL: none
 * @data   of any number of lines
 *
 * Returns 0 or a negative errno; -EAGAIN: the client does not keep up: leave it out, or wait for the
 * writable handler; -EMSGSIZE: it is larger than MUSTER_HTTP_EVENT_MAX; -EINVAL: a line end in @event or
 * @id, or no muster_http_begin_events() before; -ECONNRESET: the client has left.
 */
int muster_http_send_event(
                muster_http_request *request, const char *event, const char *id, const char *data);

/** Sends a line that clients ignore: once in 15 s it keeps proxies from closing a silent connection. As
 * muster_http_send_event(). */
int muster_http_send_comment(muster_http_request *request, const char *text);

/* The loop and its threads */

/** The worker's event loop, made by the first call: for timers, descriptors, child processes
 * (muster/process.h). Borrowed, there is one. Do not run it (the worker does), and leave SIGTERM alone;
 * after sd_event_exit() the worker ends at once. NULL: it cannot be made. */
sd_event *muster_http_event(void);

typedef void (*muster_offload_handler_t)(void *userdata);

/**
 * Runs work that blocks on a thread, and comes back to the loop.
 *
 * Threads are started as they are needed, up to workers.threads. Signals are blocked there. Work is begun in
 * the order of the calls. When the worker is told to go, what was accepted is done before it ends.
 *
 * @work  called from a thread; must not use functions of this header but this one
 * @done  called from the loop after that; may be NULL
 *
 * May be called from any thread. Returns 0 or a negative errno; -EAGAIN: MUSTER_OFFLOAD_QUEUE_MAX pieces of
 * work wait already, or no thread can be started; -ESHUTDOWN: the worker ends.
 */
int muster_offload(muster_offload_handler_t work, muster_offload_handler_t done, void *userdata);

/* Other workers */

/** The longest message for other workers, in bytes. */
#define MUSTER_HTTP_MESSAGE_MAX (255 * 1024)

/** The number of the slot that this worker fills: 1 … Its successors have the same. */
unsigned muster_http_get_worker(void);

/**
 * Sends a message to all other workers of the app that are ready, by way of the master.
 *
 * A worker gets it at most once, in the order in which this one has sent. One that does not read loses what
 * finds no room in its queue (512 KiB), and one that dies what it has not handled; so does what waits here
 * die with this process. What has to be certain belongs into a store.
 *
 * @json  the text of one JSON value of @n bytes, without a line break, which is passed on as it is
 *
 * Returns 0: it is sent, or waits for room in the channel; or a negative errno. -EINVAL: not one JSON value,
 * or an object whose "cmd" is MUSTER or begins with NODE_; -EMSGSIZE: longer than MUSTER_HTTP_MESSAGE_MAX;
 * -ENOBUFS: 1 MiB waits already; -EPIPE: the master is gone; -ENOMEM.
 */
int muster_http_broadcast(const char *json, size_t n);

/** The same for the worker in the slot @worker, which may be this one. During a replacement a slot may have
 * two workers: both get it. When there is none it is lost. */
int muster_http_send(unsigned worker, const char *json, size_t n);

/** A message has come: of another worker, or of "muster send". @json is one JSON value of @n bytes, with a
 * NUL behind it, and valid until the handler returns. */
typedef void (*muster_http_message_handler_t)(const char *json, size_t n, void *userdata);

/** Sets who is told of messages; NULL: they are dropped, as those are that come before. From start() on none
 * is missed. */
void muster_http_set_message_handler(muster_http_message_handler_t handler, void *userdata);

#pragma GCC visibility pop

#ifdef __cplusplus
}
#endif

#endif
