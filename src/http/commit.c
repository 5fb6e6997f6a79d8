/* SPDX-License-Identifier: MIT */
/* Commits; see commit.h.
 *
 * A process may be killed between any two instructions, but who comes after it sees its stores in their
 * order: of the two commits one is filled while the other one holds.
 *
 * What a commit that holds has named is not overwritten: what is put into a buffer comes behind what is
 * outgoing in it, until all of that is sent and of no interest any more, and what is left of the input is
 * copied to another buffer when it has to move. */

#include "http/commit.h"

#include <errno.h>
#include <stdatomic.h>

#include "basic/macro.h"
#include "http/connection-internal.h"
#include "http/outgoing.h"
#include "http/response.h"

const Commit *commit_holding(const Record *r) {
        return r->commits + atomic_load_explicit(&r->commit, memory_order_acquire) % 2;
}

/* What a stream's handler would go on from. One that is about to go on does so from where it did before. */
static void commit_stream(const Connection *c, Commit *k) {
        const Exchange *x = c->exchange;
        const Commit *before = commit_holding(c->record);

        if (x && x->phase == EXCHANGE_STREAM) {
                k->streams = true;
                k->stream_resumes = x->staged;
                k->stream_chunked = x->chunked;
                k->stream_start = x->stream_start;
                k->stream_body = x->stream_body;
                k->stream_at = x->state_at;
                k->stream_size = x->state_size;
                k->stream_left = x->covered_left;
                if (x->staged)
                        k->out.end = x->covered;
        } else if (c->resumes) {
                k->streams = true;
                k->stream_resumes = before->stream_resumes;
                k->closing = before->closing;
                k->linger = before->linger;
                k->stream_chunked = before->stream_chunked;
                k->stream_start = before->stream_start;
                k->stream_body = before->stream_body;
                k->stream_at = before->stream_at;
                k->stream_size = before->stream_size;
                k->stream_left = before->stream_left;
        }
}

void connection_commit(Connection *c) {
        Record *r = c->record;
        uint8_t which = 1 - atomic_load_explicit(&r->commit, memory_order_relaxed) % 2;
        const Exchange *x = c->exchange;
        bool answered = !x || x->phase == EXCHANGE_SENDING, gap = c->gap && !answered;
        uint32_t at = answered && r->head_size > 0 ? r->body_at : r->input_start;
        uint32_t tail_at = gap ? r->input_start + r->head_size : at;
        Commit *k = r->commits + which;

        *k = (Commit){
                .received = gap ? r->handling - 1 : connection_offset(c, at),
                .input = at == r->input_end ? BUFFER_NONE : c->input,
                .input_at = at,
                .tail = connection_offset(c, tail_at),
                .tail_at = tail_at,
                .spool_fd = gap && !c->blind ? c->spool_fd : -EBADF,
                .sent = r->sent,
                .out = r->out,
                .body = answered ? r->body : (BodyRest){ .kind = RECORD_BODY_NONE },
                .proxy = r->proxy,
                .proxy_left = r->proxy_left,
                .gap = gap,
                .continued = c->continued && !answered,
                .closing = r->closing,
                .broken = r->broken,
                .linger = r->linger,
        };
        commit_stream(c, k);
        atomic_store_explicit(&r->commit, which, memory_order_release);
        c->moved = c->unsaid = false;
}

/*
 * After the death of a process
 */

static bool restore_input(const Table *t, Record *r, const Commit *k, const Truth *truth) {
        uint64_t n = truth->received - k->tail;

        if (k->input != BUFFER_NONE)
                r->input = k->input;
        r->input_start = k->input == BUFFER_NONE ? 0 : k->input_at;
        r->input_end = k->input == BUFFER_NONE ? 0 : k->tail_at;
        if (truth->received < k->tail || n > t->buffer_size - r->input_end)
                return false;
        r->input_end += (uint32_t) n;
        return n == 0 || r->input != BUFFER_NONE;
}

/* A stream without a checkpoint can be given from its start as long as no more than its head was sent. Of
 * one whose head has not begun there is nothing left, so that it may get another answer. */
static bool restore_stream(Record *r, const Commit *k, const Truth *truth) {
        uint64_t end;

        if (!k->streams)
                return true;
        r->closing = r->linger = false; /* as soon as the handler goes on (exchange_begin()) */
        if (k->stream_resumes)
                return true;
        if (truth->sent > k->stream_body)
                return false;
        end = truth->sent > k->stream_start ? k->stream_body : k->stream_start;
        r->out.end = r->out.start + (uint32_t) (end - truth->sent);
        return true;
}

static bool restore_output(const Table *t, Record *r, const Commit *k, const Truth *truth) {
        if (truth->sent < k->sent)
                return false;
        r->out = k->out;
        if (!outgoing_advance(t, &r->out, truth->sent - k->sent) || !restore_stream(r, k, truth))
                return false;
        if (outgoing_size(t, &r->out) == 0)
                r->out = OUTGOING_NONE; /* nothing of it is ours any more */
        return true;
}

static bool is_buffer(const Table *t, uint32_t buffer) {
        return buffer == BUFFER_NONE || buffer < t->n_buffers;
}

/* The app that has died may have written anywhere. It is to cost this connection, not the process. */
static bool is_sound(const Table *t, const Record *r, const Commit *k) {
        const Outgoing *o = &k->out;

        return is_buffer(t, r->input) && is_buffer(t, r->stream_state) && is_buffer(t, k->input) &&
               is_buffer(t, o->buffer) && is_buffer(t, o->parts) && k->input_at <= k->tail_at &&
               k->tail_at <= t->buffer_size && o->start <= o->end && o->end <= t->buffer_size &&
               o->part <= o->n_parts && o->part_text <= o->parts_text_size &&
               o->n_parts * sizeof(ResponsePart) + o->parts_text_size <= t->buffer_size;
}

bool commit_restore(const Table *t, Record *r, const Truth *truth) {
        const Commit *k = commit_holding(r);

        if (k->broken || !is_sound(t, r, k))
                return false;
        r->body = k->body;
        r->proxy = k->proxy;
        r->proxy_left = k->proxy_left;
        r->closing = k->closing;
        r->linger = k->linger;
        r->half_closed = r->broken = r->continue_due = false;
        r->head_size = 0;
        r->scan = (ParserScan){ 0 };
        if (!restore_input(t, r, k, truth) || !restore_output(t, r, k, truth))
                return false;
        r->body_at = r->input_start;
        return true;
}
