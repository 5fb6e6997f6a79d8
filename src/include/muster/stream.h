/* SPDX-License-Identifier: MIT */
#ifndef MUSTER_STREAM_H
#define MUSTER_STREAM_H

/**
 * The parent's end of a child's pipe, with back-pressure both ways.
 *
 * Reading: what the child writes is handed over in pieces of up to 64 KiB, and nothing is kept; a stream
 * that is paused leaves the rest in the kernel's pipe, and the child waits when that is full. Writing: what
 * the pipe does not take at once is kept up to a limit.
 *
 * Handlers are called from the event loop, never from within a function of this header; a handler may pause,
 * write, close, and drop the last reference. A stream belongs to its event loop's thread.
 */

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/** A stream; counted. It comes from muster_child_get_stream(). */
typedef struct muster_stream muster_stream;

/** How much one stream keeps of what is to be written. A write is always taken while nothing is kept. */
#define MUSTER_STREAM_QUEUE_MAX (1024 * 1024)

/** Whom to tell; any of them may be NULL. Set up with MUSTER_STREAM_HANDLERS_INIT. */
typedef struct muster_stream_handlers {
        /** sizeof(muster_stream_handlers), as the caller was compiled with. */
        size_t size;
        /** The child has written; @data is valid until the handler returns. NULL: nothing is read. */
        void (*data)(muster_stream *stream, const void *data, size_t size, void *userdata);
        /** Nothing more will come. @error: 0, the child and all who inherited from it have closed their
         * ends; or a negative errno. Called once, and not after muster_stream_close(). */
        void (*end)(muster_stream *stream, int error, void *userdata);
        /** All that had to wait (muster_stream_write() returned 1) is written. */
        void (*drained)(muster_stream *stream, void *userdata);
        /** What had to wait cannot be written: -EPIPE, nobody reads any more; or another negative errno. */
        void (*broken)(muster_stream *stream, int error, void *userdata);
} muster_stream_handlers;

#define MUSTER_STREAM_HANDLERS_INIT \
        { .size = sizeof(muster_stream_handlers) }

/** Sets the handlers (copied), and begins to read when there is one for data: what the child wrote before
 * waits for this. Returns 0 or a negative errno; -EINVAL: a wrong size; -E2BIG: a member that this version
 * does not know is set. */
int muster_stream_set_handlers(
                muster_stream *stream, const muster_stream_handlers *handlers, void *userdata);

/** Stops reading; the child waits once the kernel's pipe is full. */
int muster_stream_pause(muster_stream *stream);

/** Goes on reading. */
int muster_stream_resume(muster_stream *stream);

/**
 * Writes to the child.
 *
 * @data  copied as far as the pipe does not take it at once
 *
 * Returns 0: all is in the pipe; 1: some of it waits, and "drained" will be called; or a negative errno, and
 * nothing of it is kept. -ENOBUFS: as much waits already as may, so wait for "drained"; -EPIPE: nobody
 * reads, or the writing side was ended; -EBADF: this stream is only for reading; -ENOMEM: if a part of it
 * was written before, the writing side is ended.
 */
int muster_stream_write(muster_stream *stream, const void *data, size_t size);

/** Ends the writing side after what waits is written: the child reads the end of the file. -EPIPE: it was
 * ended before; -EBADF: this stream is only for reading. */
int muster_stream_end(muster_stream *stream);

/** Closes both directions at once; what waits is dropped, and no handler is called any more. */
int muster_stream_close(muster_stream *stream);

/** Hands the descriptor over to the caller, who closes it; it does not block and has FD_CLOEXEC. For the
 * stream this is a close. -EBADF: it is closed; -EBUSY: data waits to be written. */
int muster_stream_take_fd(muster_stream *stream);

/** How much waits to be written, in bytes. */
uint64_t muster_stream_get_queued_bytes(const muster_stream *stream);

/** Takes another reference. NULL is allowed and returned. */
muster_stream *muster_stream_ref(muster_stream *stream);

/** Drops a reference; the last one closes the stream. NULL is allowed. Always returns NULL. */
muster_stream *muster_stream_unref(muster_stream *stream);

#ifdef __cplusplus
}
#endif

#endif
