/* SPDX-License-Identifier: MIT */
/* Files with environment variables; see environment-file.h. */

#include "master/environment-file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "basic/fd.h"
#include "basic/macro.h"
#include "basic/strv.h"
#include "basic/text.h"
#include "master/variable.h"

typedef struct Parser {
        const char *path;
        const char *p;
        const char *end;
        unsigned line;
        char *assignment; /* what is being read; never longer than the text */
        size_t n;
        char **ret_error;
} Parser;

static int refuse(const Parser *s, unsigned line, const char *found, const char *expected) {
        return text_outcome(ENVIRONMENT_FILE_INVALID, s->ret_error, "%s:%u: found %s, expected %s", s->path,
                        line, found, expected);
}

/* The next character is there. */
static char take(Parser *s) {
        s->line += *s->p == '\n';
        return *s->p++;
}

static void put(Parser *s, char c) {
        s->assignment[s->n++] = c;
}

static bool is_space(char c) {
        return c == ' ' || c == '\t' || c == '\r';
}

static void skip_space(Parser *s) {
        while (s->p < s->end && is_space(*s->p))
                s->p++;
}

static void skip_line(Parser *s) {
        while (s->p < s->end && take(s) != '\n')
                ;
}

/* Up to the equals sign, which is taken too. */
static int parse_name(Parser *s) {
        const char *name = s->p, *problem;

        while (s->p < s->end && *s->p != '=' && *s->p != '\n')
                s->p++;
        if (s->p == s->end || *s->p == '\n')
                return refuse(s, s->line, "a line without an equals sign", "NAME=VALUE");
        size_t n = (size_t) (s->p - name);
        while (n > 0 && is_space(name[n - 1]))
                n--;
        problem = variable_refuse_name(name, n);
        if (problem)
                return refuse(s, s->line, "another kind of name", problem);
        memcpy(s->assignment, name, n);
        s->n = n;
        put(s, take(s));
        return 0;
}

/* Behind a backslash outside of single quotes. */
static void parse_escape(Parser *s, bool quoted) {
        if (s->p == s->end)
                return;
        char c = take(s);
        if (c == '\n')
                return; /* goes on in the next line */
        if (quoted && !strchr("\"\\`$", c))
                put(s, '\\');
        put(s, c);
}

/* Behind the opening quote, to behind the closing one. */
static int parse_quoted(Parser *s, char quote) {
        unsigned line = s->line;

        while (s->p < s->end) {
                char c = take(s);

                if (c == quote)
                        return 0;
                if (c == '\\' && quote == '"')
                        parse_escape(s, /* quoted= */ true);
                else
                        put(s, c);
        }
        return refuse(s, line, "an opening quote", "the closing one behind it");
}

/* To behind the end of its last line. As for systemd, what follows a closing quote belongs to it too. */
static int parse_value(Parser *s) {
        size_t trimmed = s->n; /* without white space at its end */
        bool bare = false;     /* within what stands in no quotes, where a quote means itself */
        int r;

        skip_space(s);
        while (s->p < s->end) {
                char c = take(s);

                if (c == '\n')
                        break;
                if (!bare && (c == '\'' || c == '"')) {
                        r = parse_quoted(s, c);
                        if (r != 0)
                                return r;
                        skip_space(s);
                        trimmed = s->n;
                        continue;
                }
                bare = true;
                if (c == '\\')
                        parse_escape(s, /* quoted= */ false);
                else
                        put(s, c);
                if (!is_space(c))
                        trimmed = s->n;
        }
        s->assignment[trimmed] = '\0';
        return 0;
}

static int parse_variables(Parser *s, char ***variables) {
        int r;

        for (size_t n = 0; s->p < s->end;) {
                unsigned line = s->line;

                skip_space(s);
                if (s->p == s->end || strchr("\n#;", *s->p)) {
                        skip_line(s);
                        continue;
                }
                r = parse_name(s);
                if (r == 0)
                        r = parse_value(s);
                if (r != 0)
                        return r;
                if (n++ == ENVIRONMENT_FILE_VARIABLES_MAX)
                        return refuse(s, line, "one more variable",
                                        "at most " STRINGIFY(ENVIRONMENT_FILE_VARIABLES_MAX));
                if (strv_add(variables, s->assignment) < 0)
                        return -ENOMEM;
        }
        return 0;
}

int environment_file_parse(const char *path, const char *text, size_t n, char ***ret, char **ret_error) {
        _cleanup_free_ char *assignment = malloc(n + 1);
        Parser s = { .path = path,
                .p = text,
                .end = text + n,
                .line = 1,
                .assignment = assignment,
                .ret_error = ret_error };
        _cleanup_strv_ char **variables = NULL;
        const char *nul = memchr(text, '\0', n);
        int r;

        if (!assignment)
                return -ENOMEM;
        if (nul) {
                for (const char *p = text; p < nul; p++)
                        s.line += *p == '\n';
                return refuse(&s, s.line, "a NUL byte", "text");
        }
        r = parse_variables(&s, &variables);
        if (r == 0)
                *ret = TAKE_PTR(variables);
        return r;
}

int environment_file_read(const char *path, char ***ret, char **ret_error) {
        _cleanup_free_ char *text = NULL;
        struct stat st;
        int r;

        /* Another kind of file may keep the master waiting for ever. */
        if (stat(path, &st) == 0 && !S_ISREG(st.st_mode))
                return text_outcome(ENVIRONMENT_FILE_INVALID, ret_error,
                                "%s: found no regular file, expected one with environment variables", path);
        r = read_small_file(AT_FDCWD, path, ENVIRONMENT_FILE_SIZE_MAX, &text);
        if (r == -ENOMEM)
                return r;
        if (r < 0)
                return text_outcome(ENVIRONMENT_FILE_INVALID, ret_error, "%s: cannot read: %s", path,
                                r == -EFBIG ? "it has more than 1 MiB" : strerror(-r));
        return environment_file_parse(path, text, strlen(text), ret, ret_error);
}
