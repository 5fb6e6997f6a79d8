/* SPDX-License-Identifier: MIT */
/* Files with environment variables of any content.
 *
 * Beyond not crashing: every variable has a name that may be set, and what was read, written down in single
 * quotes and read again, is the same. What is refused is told with the line, and with no word of the file.
 */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "basic/macro.h"
#include "basic/strv.h"
#include "basic/text.h"
#include "fuzz.h"
#include "master/environment-file.h"
#include "master/variable.h"

static void check(bool condition) {
        if (!condition)
                abort();
}

static void check_error(const char *error, const char *text, size_t size) {
        _cleanup_free_ char *printable = strdup(error);
        unsigned line, lines = 1;

        for (size_t i = 0; i < size; i++)
                lines += text[i] == '\n';
        check(printable && sscanf(error, "f:%u: found ", &line) == 1 && line >= 1 && line <= lines);
        text_make_printable(printable);
        check(strcmp(printable, error) == 0);
}

/* A single quote cannot stand in single quotes: '…'"'"'…' is how it is written. */
static char *write_again(char *const *variables, size_t *ret_size) {
        char *text = NULL;
        FILE *f = open_memstream(&text, ret_size);

        check(f);
        for (; *variables; variables++) {
                const char *value = strchr(*variables, '=') + 1;

                fprintf(f, "%.*s'", (int) (value - *variables), *variables);
                for (; *value; value++)
                        if (*value == '\'')
                                fputs("'\"'\"'", f);
                        else
                                fputc(*value, f);
                fputs("'\n", f);
        }
        check(fclose(f) == 0);
        return text;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
        const char *text = (const char *) data;
        _cleanup_strv_ char **variables = NULL, **again = NULL;
        _cleanup_free_ char *error = NULL, *written = NULL;
        size_t written_size;
        int r;

        r = environment_file_parse("f", text, size, &variables, &error);
        check(r == 0 || r == ENVIRONMENT_FILE_INVALID);
        check((r == 0) == (error == NULL));
        if (error)
                check_error(error, text, size);
        if (!variables)
                return 0;

        for (char **v = variables; *v; v++)
                check(!variable_refuse_name(*v, strcspn(*v, "=")));
        written = write_again(variables, &written_size);
        check(environment_file_parse("f", written, written_size, &again, &error) == 0);
        check(strv_length(again) == strv_length(variables));
        for (size_t i = 0; variables[i]; i++)
                check(strcmp(variables[i], again[i]) == 0);
        return 0;
}
