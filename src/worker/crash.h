/* SPDX-License-Identifier: MIT */
#pragma once

/* The last words of a worker whose module dies of a signal: which module, which signal, where, and what it
 * was doing. They go to stderr and to the board, where the master finds them; then the signal does what it
 * always does, so that the exit status and the core file stay what they would have been. */

#include <stdatomic.h>
#include <stddef.h>

#include "board/board.h"

/* How much of what a module does is told. */
#define CRASH_TEXT_MAX 96

/* What this thread does while the module's code runs; on the caller's stack, one within the other. */
typedef struct CrashScope CrashScope;

struct CrashScope {
        const char *doing; /* "while it answered" */
        CrashScope *outer;
        unsigned size;
        char text[CRASH_TEXT_MAX]; /* "GET /", cut; a copy, as the request may be over before the module is
                                    */
};

/* Catches the signals. @cell is borrowed and @path is too, for ever. */
int crash_init(BoardCell *cell, const char *path);

/* Where the signal is noted, too, or an end of the module's own making, for whoever goes on with what the
 * worker leaves; borrowed, for ever. */
void crash_note_in(_Atomic uint32_t *word);

/* The module is loaded: its name, and any address in it, by which its place is found. */
void crash_set_module(const char *name, const void *address);

/* For every further thread, from within: a stack that has overflowed is not one to speak from. */
void crash_init_thread(void);

/* @doing is borrowed. */
void crash_enter(CrashScope *scope, const char *doing, const char *text, size_t n);
void crash_leave(CrashScope *scope);

/* The module has done what must not be done: says so, and ends as by a signal. */
_Noreturn void crash_misuse(const char *function, const char *what);
