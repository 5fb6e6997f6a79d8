/* SPDX-License-Identifier: MIT */
#ifndef MUSTER_CHANNEL_H
#define MUSTER_CHANNEL_H

/**
 * The channel between a parent and a child: JSON values, one a line, both ways over an AF_UNIX stream
 * socket, with descriptors.
 *
 * It is the wire of Node's child_process.fork() with the serialization "json", so that either end may be a
 * Node program. A message with a descriptor travels as Node's
 * {"cmd":"NODE_HANDLE","type":…,"msg":MESSAGE} and is acknowledged by the receiver; both are done here, and
 * the application sees MESSAGE. A message is the text of one JSON value: it is checked to be that, and not
 * otherwise parsed.
 *
 * Order is kept. All handlers are called from the event loop, never from within a function of this header;
 * a handler may send, disconnect, and drop the last reference. One channel belongs to one thread.
 */

#include <stddef.h>
#include <stdint.h>
#include <systemd/sd-event.h>

#ifdef __cplusplus
extern "C" {
#endif

/** A channel; counted. */
typedef struct muster_channel muster_channel;

/** A message that has arrived; valid until its handler returns. */
typedef struct muster_message muster_message;

/** What a descriptor is to Node: the "type" of its NODE_HANDLE. */
enum {
        MUSTER_HANDLE_NONE,         /**< the message has no descriptor */
        MUSTER_HANDLE_NET_SERVER,   /**< net.Server: a listening socket */
        MUSTER_HANDLE_NET_SOCKET,   /**< net.Socket: a connection */
        MUSTER_HANDLE_NET_NATIVE,   /**< net.Native: a raw socket or pipe, for server.listen(handle) */
        MUSTER_HANDLE_DGRAM_SOCKET, /**< dgram.Socket: a UDP socket */
        MUSTER_HANDLE_DGRAM_NATIVE, /**< dgram.Native: a raw UDP socket */
        MUSTER_HANDLE_OTHER,        /**< a type that this version does not know; received only */
        MUSTER_HANDLE_AUTO = -1     /**< sending: chosen by what the descriptor is */
};

/** Also hands over what Node keeps to itself (messages whose "cmd" begins with NODE_, acknowledgements that
 * nothing waits for, and NODE_HANDLE_NACK for a descriptor that was sent without a handler), for a program
 * that plays the primary of Node's cluster. */
#define MUSTER_CHANNEL_INTERNAL (UINT64_C(1) << 0)

/** Zero means the default everywhere; set up with MUSTER_CHANNEL_OPTIONS_INIT. */
typedef struct muster_channel_options {
        /** sizeof(muster_channel_options), as the caller was compiled with. */
        size_t size;
        /** The longest message, sent or received, in bytes; 0: 64 MiB, at most 1 GiB. */
        uint64_t max_message_bytes;
        /** How much may wait to be sent, in bytes; 0: 64 MiB. A message is always taken while nothing waits.
         */
        uint64_t max_queue_bytes;
        /** MUSTER_CHANNEL_… */
        uint64_t flags;
} muster_channel_options;

#define MUSTER_CHANNEL_OPTIONS_INIT \
        { .size = sizeof(muster_channel_options) }

/** Whom to tell; any of them may be NULL. Set up with MUSTER_CHANNEL_HANDLERS_INIT. */
typedef struct muster_channel_handlers {
        /** sizeof(muster_channel_handlers), as the caller was compiled with. */
        size_t size;
        /** A message has arrived. A descriptor that is not taken with muster_message_take_fd() is closed
         * after the handler. */
        void (*message)(muster_channel *channel, muster_message *message, void *userdata);
        /**
         * The channel has ended; called once, and the last.
         *
         * @error  0: the peer has closed its end, or muster_channel_disconnect() is done. -EBADMSG: what
         * came is not JSON or not UTF-8, or ended in the middle of a message; -EMSGSIZE: a message longer
         *         than max_message_bytes; -EPROTO: a descriptor or an acknowledgement that belongs to
         * nothing; another negative errno: the socket failed
         */
        void (*disconnected)(muster_channel *channel, int error, void *userdata);
        /** All that had to wait (muster_channel_send() returned 1, or -ENOBUFS) is sent. */
        void (*drained)(muster_channel *channel, void *userdata);
} muster_channel_handlers;

#define MUSTER_CHANNEL_HANDLERS_INIT \
        { .size = sizeof(muster_channel_handlers) }

/**
 * Called once for a message that was sent with it.
 *
 * @error  0: the kernel has it; with a descriptor: the peer has acknowledged it. -EREMOTEIO: the descriptor
 *         did not reach the peer, which then drops the message (it had no free descriptor, as a rule);
 * another negative errno: the channel ended before, -EPIPE when the peer closed it
 */
typedef void (*muster_channel_sent_handler_t)(muster_channel *channel, int error, void *userdata);

/**
 * Makes a channel of a connected AF_UNIX stream socket.
 *
 * @event    NULL: nothing is read until muster_channel_attach()
 * @fd       the channel's from success on; it is made non-blocking and close-on-exec
 * @options  copied; NULL: the defaults
 *
 * Returns 0 or a negative errno. -EINVAL: a wrong size, unknown flags, a limit out of range; -E2BIG: a
 * member that this version does not know is set; -ENOTSOCK, -EPROTOTYPE, -ENOTCONN: not such a socket;
 * -EBADF.
 */
int muster_channel_new(sd_event *event, int fd, const muster_channel_options *options, muster_channel **ret);

/**
 * The child's side: the channel named by MUSTER_CHANNEL_FD, or by NODE_CHANNEL_FD for a child of Node's
 * child_process.fork() or spawn() with 'ipc'. The variables are removed from the environment, so this is
 * called once, before there are threads.
 *
 * Returns 0 or a negative errno, as muster_channel_new(); -ENXIO: there is no such variable; -EINVAL: it
 * holds no descriptor's number; -EPROTONOSUPPORT: the parent chose the serialization "advanced".
 */
int muster_channel_from_environment(
                sd_event *event, const muster_channel_options *options, muster_channel **ret);

/** Puts a channel that was made without a loop on one. -EBUSY: it is on one already. */
int muster_channel_attach(muster_channel *channel, sd_event *event);

/**
 * Sets the handlers (copied), and begins to read: what arrived before waits for this.
 *
 * Returns 0 or a negative errno; -EINVAL, -E2BIG as above; -EPIPE: the channel has ended. May be called
 * again.
 */
int muster_channel_set_handlers(
                muster_channel *channel, const muster_channel_handlers *handlers, void *userdata);

/**
 * Sends one message.
 *
 * @json     the text of one JSON value, without a line break
 * @fd       a descriptor to pass along, -1 for none; the caller keeps its own and may close it at once. Node
 *           expects a socket that does not block, and a socket is made so (for all who hold it)
 * @handler  may be NULL
 *
 * Returns 0: the kernel has it; 1: it waits, and "drained" will be called; or a negative errno, and then it
 * is not sent and @handler not called. -EBADMSG: not one JSON value; -EMSGSIZE: too long; -ENOBUFS: too much
 * is waiting already; -EPIPE: the channel has ended; -EBADF: @fd is not open.
 */
int muster_channel_send(muster_channel *channel, const char *json, int fd,
                muster_channel_sent_handler_t handler, void *userdata);

/**
 * The same for a text that has a length instead of a NUL at its end.
 *
 * @type  MUSTER_HANDLE_…: what the descriptor is to be for Node; MUSTER_HANDLE_AUTO for the obvious.
 *        Without a descriptor MUSTER_HANDLE_NONE or AUTO
 *
 * Returns as muster_channel_send(); -EINVAL: no such type.
 */
int muster_channel_send_full(muster_channel *channel, const char *json, size_t length, int fd, int type,
                muster_channel_sent_handler_t handler, void *userdata);

/** Ends the channel after what waits is sent: "disconnected" follows, and the peer sees the end of the
 * stream. Nothing can be sent any more, and what still arrives is dropped. Node's process.disconnect().
 * -EPIPE: it has ended. */
int muster_channel_disconnect(muster_channel *channel);

/**
 * Reads and hands out, now and not from the loop, all that has arrived: for a parent that has just heard of
 * its child's end and wants to know its last words before it decides what follows. The message handler is
 * called from within; for the end of the channel, and for what was sent, the loop is awaited as ever. Not to
 * be called from a handler of the same channel.
 *
 * Returns 0; -EPIPE: the channel has ended; -EINVAL: it has no handlers or no loop yet.
 */
int muster_channel_receive_pending(muster_channel *channel);

/**
 * Reads no more until muster_channel_resume(): what the peer says waits in the socket, and when that is full
 * the peer waits in turn. What was read already is still handed out; the end of the stream is told after the
 * channel was resumed. Sending goes on, and so does an end that was asked for. Node's readable.pause().
 * Returns 0; -EPIPE: the channel has ended.
 */
int muster_channel_pause(muster_channel *channel);

/** Reads again. Returns as muster_channel_pause(). */
int muster_channel_resume(muster_channel *channel);

/** 1 until the end of the channel was told or asked for, then 0. */
int muster_channel_is_connected(const muster_channel *channel);

/** How much waits to be sent, in bytes. */
uint64_t muster_channel_get_queued_bytes(const muster_channel *channel);

/** Whether a message of @length bytes may wait behind what waits, when all of it is to take at most @max
 * bytes of memory: of short messages what it takes to keep them is the most. 1 as long as nothing waits;
 * else 1 or 0. */
int muster_channel_has_room(const muster_channel *channel, size_t length, uint64_t max);

/** Takes another reference. NULL is allowed and returned. */
muster_channel *muster_channel_ref(muster_channel *channel);

/** Drops a reference. With the last one the socket is closed at once, what waits is dropped, and no handler
 * is called any more. NULL is allowed. Always returns NULL. */
muster_channel *muster_channel_unref(muster_channel *channel);

/** The text of the message: one JSON value in UTF-8, with a NUL at its end. @ret_length may be NULL. */
const char *muster_message_get_json(const muster_message *message, size_t *ret_length);

/** The descriptor that came along, still the message's; -1: none. Sockets from Node do not block. */
int muster_message_get_fd(const muster_message *message);

/** Takes the descriptor out of the message; the caller closes it. It has FD_CLOEXEC. -1: none. */
int muster_message_take_fd(muster_message *message);

/** MUSTER_HANDLE_… */
int muster_message_get_handle_type(const muster_message *message);

#ifdef __cplusplus
}
#endif

#endif
