/* SPDX-License-Identifier: MIT */
/* Words with %{…} in them; the first line is the list of sockets.
 *
 * Beyond not crashing: what is refused is told in printable text; what is taken without sockets is taken
 * with them and means the same; and without a percent sign the text is its own result. */

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "basic/macro.h"
#include "basic/text.h"
#include "fuzz.h"
#include "master/expand.h"

static void check(bool condition) {
        if (!condition)
                abort();
}

static void check_error(const char *error) {
        _cleanup_free_ char *printable = strdup(error);

        check(printable && strncmp(error, "found ", 6) == 0);
        text_make_printable(printable);
        check(strcmp(printable, error) == 0);
}

/* Returns the result; NULL: it was refused. */
static char *expand(const char *text, const char *sockets) {
        static char *const variables[] = { (char *) "A=a", (char *) "B=", NULL };
        const ExpandValues values = { .app = "app",
                .worker = "1",
                .socket_names = sockets,
                .variables = variables,
                .state_url = "lmdb:/s" };
        _cleanup_free_ char *error = NULL;
        char *result = NULL;
        int r = expand_text(text, &values, &result, &error);

        check(r == 0 || r == EXPAND_INVALID);
        check((r == 0) == (result != NULL) && (r == 0) == (error == NULL));
        if (error)
                check_error(error);
        return result;
}

static bool is_taken(const char *text, ExpandFlags flags) {
        _cleanup_free_ char *error = NULL;
        int r = expand_check(text, flags, &error);

        check(r == 0 || r == EXPAND_INVALID);
        check((r == 0) == (error == NULL));
        if (error)
                check_error(error);
        return r == 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
        _cleanup_free_ char *text = fuzz_text(data, size), *with = NULL, *without = NULL;

        char *word = strchr(text, '\n');
        if (!word)
                return 0;
        *word++ = '\0';
        text_make_printable(text); /* as sockets are called */
        with = expand(word, text);
        without = expand(word, "");
        check(!with || is_taken(word, EXPAND_ALL));
        check(!without || is_taken(word, EXPAND_WORKER | EXPAND_STATE));
        if (!strstr(word, "%{env:")) /* of which not every one is there */
                check(without || !is_taken(word, EXPAND_WORKER | EXPAND_STATE));
        check(!without || (with && strcmp(with, without) == 0));
        if (!strchr(word, '%'))
                check(with && strcmp(with, word) == 0);
        return 0;
}
