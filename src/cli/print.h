/* SPDX-License-Identifier: MIT */
#pragma once

/* What the master answered, for people. All that is known of its JSON is here.
 *
 * @body is the text of the answer. Each returns 0; -EBADMSG when it is not what was expected; -ENOMEM. What
 * is missing in it is shown as "-": a newer or older master may say more or less. */

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

int print_status(FILE *f, const char *body, size_t n, bool color);
int print_exits(FILE *f, const char *body, size_t n, bool color);
int print_reload(FILE *f, const char *app, const char *body, size_t n);
int print_scale(FILE *f, const char *app, const char *body, size_t n);

/* Who has got a message, and who has not. */
int print_send(FILE *f, const char *app, const char *body, size_t n);

/* The JSON itself, indented and in ASCII, for a terminal. */
int print_json(FILE *f, const char *body, size_t n);

/* Whether everybody has got it. */
bool print_send_is_whole(const char *body, size_t n);

/* The sentence of an error, made printable, as a fresh string. */
int print_error_message(const char *body, size_t n, char **ret);
