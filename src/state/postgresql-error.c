/* SPDX-License-Identifier: MIT */
/* What PostgreSQL's errors mean; see postgresql-error.h. The codes are in the appendix of its manual. */

#include "state/postgresql-error.h"

#include <ctype.h>
#include <errno.h>
#include <libpq-fe.h>
#include <stdio.h>
#include <string.h>

#include "basic/macro.h"

static const struct {
        const char *prefix; /* a whole code, or a class of them */
        int error;
} meanings[] = {
        { "28", -EACCES },        /* wrong password, no such role, no line of pg_hba.conf for it */
        { "42501", -EACCES },     /* a right is missing */
        { "53", -ENOSPC },        /* the disk or the memory is full, too many connections */
        { "54000", -ENOSPC },     /* the queue of notifications is full */
        { "25006", -EOPNOTSUPP }, /* a standby, or default_transaction_read_only */
};

int postgresql_error_from_sqlstate(const char *sqlstate) {
        for (size_t i = 0; sqlstate && i < ELEMENTSOF(meanings); i++)
                if (strncmp(sqlstate, meanings[i].prefix, strlen(meanings[i].prefix)) == 0)
                        return meanings[i].error;
        return -EIO;
}

int postgresql_error_of_connection(const char *sqlstate) {
        int error = postgresql_error_from_sqlstate(sqlstate);

        /* Too many connections: that ends, unlike a full disk. */
        if (error == -EIO || (sqlstate && strcmp(sqlstate, "53300") == 0))
                return -ENOTCONN;
        return error;
}

static bool is_sqlstate(const char *s) {
        for (int i = 0; i < 5; i++)
                if (!isdigit((unsigned char) s[i]) && !isupper((unsigned char) s[i]))
                        return false;
        return s[5] == ':' && s[6] == ' ';
}

bool postgresql_error_find_sqlstate(const char *message, char sqlstate[static 6]) {
        /* "…: FATAL:  28P01: password …". The severity is in the server's language. */
        for (const char *p = strstr(message, ":  "); p; p = strstr(p + 1, ":  "))
                if (is_sqlstate(p + 3)) {
                        memcpy(sqlstate, p + 3, 5);
                        sqlstate[5] = '\0';
                        return true;
                }
        return false;
}

bool postgresql_error_is_fatal(const PGresult *result) {
        const char *severity = PQresultErrorField(result, PG_DIAG_SEVERITY_NONLOCALIZED);

        /* libpq's own errors have neither: the connection is broken. */
        if (!severity)
                return !PQresultErrorField(result, PG_DIAG_SQLSTATE);
        return strcmp(severity, "FATAL") == 0 || strcmp(severity, "PANIC") == 0;
}

bool postgresql_error_is_outdated(const PGresult *result) {
        static const char *const codes[] = {
                "42P01", /* undefined_table */
                "42703", /* undefined_column */
                "42P10", /* invalid_column_reference: the primary key is gone */
                "26000", /* invalid_sql_statement_name */
                "0A000", /* feature_not_supported: a cached plan must not change its type */
        };
        const char *sqlstate = PQresultErrorField(result, PG_DIAG_SQLSTATE);

        for (size_t i = 0; sqlstate && i < ELEMENTSOF(codes); i++)
                if (strcmp(sqlstate, codes[i]) == 0)
                        return true;
        return false;
}

void postgresql_error_copy_line(char text[static STATE_TEXT_MAX], const char *message) {
        snprintf(text, STATE_TEXT_MAX, "%.*s", (int) strcspn(message, "\r\n"), message);
}

void postgresql_error_get_text(const PGresult *result, char text[static STATE_TEXT_MAX]) {
        const char *primary = PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY);
        const char *sqlstate = PQresultErrorField(result, PG_DIAG_SQLSTATE);

        if (!primary)
                postgresql_error_copy_line(text, PQresultErrorMessage(result));
        else
                snprintf(text, STATE_TEXT_MAX, "%.*s (%s)",
                                (int) MIN(strcspn(primary, "\r\n"), (size_t) 200), primary,
                                sqlstate ? sqlstate : "?");
}
