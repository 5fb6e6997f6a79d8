/* SPDX-License-Identifier: MIT */
/* A URL as libpq's parameters; see postgresql-target.h.
 *
 * Only a short list is taken: what would make libpq block (a service that is looked up, Kerberos) or go
 * somewhere else (several hosts) has no place here. What the URL is silent about is libpq's default as
 * usual, that is to say PGUSER, PGDATABASE, PGSSLROOTCERT …, ~/.pgpass; only the place to connect to is the
 * URL's alone. */

#include "state/postgresql-target.h"

#include <errno.h>
#include <libpq-fe.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "basic/macro.h"
#include "basic/parse.h"
#include "state/resolve.h"

/* Defaults that the URL's own override. They are parsed by libpq, because only here an empty value counts:
 * PGHOST and PGHOSTADDR are not looked at. A peer that is gone without a word is noticed by the kernel. */
#define DEFAULTS                                                                     \
        "host='' hostaddr='' gssencmode=disable client_encoding=UTF8 "               \
        "keepalives=1 keepalives_idle=60 keepalives_interval=10 keepalives_count=3 " \
        "fallback_application_name=muster"

static const char *const taken[] = {
        "host",
        "port",
        "sslmode",
        "sslrootcert",
        "sslcert",
        "sslkey",
        "application_name",
        "options",
};

_printf_(2, 3) static int refuse(char error[static STATE_TEXT_MAX], const char *format, ...) {
        va_list ap;

        va_start(ap, format);
        vsnprintf(error, STATE_TEXT_MAX, format, ap);
        va_end(ap);
        return -EINVAL;
}

static void add(PostgresqlTarget *t, const char *keyword, const char *value) {
        assert(t->n + 1 < ELEMENTSOF(t->keywords));
        t->keywords[t->n] = keyword;
        t->values[t->n++] = value;
}

static bool is_socket(const char *host) {
        return host[0] == '/' || host[0] == '@';
}

static int set_host(PostgresqlTarget *t, const char *host, char error[static STATE_TEXT_MAX]) {
        if (t->host)
                return refuse(error, "found the host \"%.60s\" and another one, expected one", host);
        if (!*host || strchr(host, ','))
                return refuse(error, "found the host \"%.60s\", expected a name, an address or a directory",
                                host);
        t->host = host;
        t->is_name = !is_socket(host) && !resolve_is_numeric(host);
        return 0;
}

static int set_port(PostgresqlTarget *t, const char *value, char error[static STATE_TEXT_MAX]) {
        unsigned port;

        if (*t->port)
                return refuse(error, "found the port \"%.20s\" and another one, expected one", value);
        if (parse_uint(value, &port) < 0 || port < 1 || port > 65535)
                return refuse(error, "found the port \"%.20s\", expected 1 … 65535", value);
        snprintf(t->port, sizeof(t->port), "%u", port);
        return 0;
}

static int check_sslmode(const char *value, char error[static STATE_TEXT_MAX]) {
        static const char *const modes[] = {
                "disable",
                "allow",
                "prefer",
                "require",
                "verify-ca",
                "verify-full",
        };

        for (size_t i = 0; i < ELEMENTSOF(modes); i++)
                if (strcmp(value, modes[i]) == 0)
                        return 0;
        return refuse(error,
                        "found sslmode=%.40s, expected disable, allow, prefer, require, verify-ca or verify-full",
                        value);
}

/* The name in @taken of "name=value"; NULL: it is none of them. */
static const char *find_taken(const char *parameter) {
        size_t size = strcspn(parameter, "=");

        for (size_t i = 0; i < ELEMENTSOF(taken); i++)
                if (strlen(taken[i]) == size && memcmp(taken[i], parameter, size) == 0)
                        return taken[i];
        return NULL;
}

static int set_parameter(PostgresqlTarget *t, const char *parameter, char error[static STATE_TEXT_MAX]) {
        const char *name = find_taken(parameter), *equals = strchr(parameter, '=');
        const char *value = equals ? equals + 1 : "";

        if (!name)
                return refuse(error,
                                "found the parameter \"%.*s\", expected host, port, sslmode, sslrootcert, "
                                "sslcert, sslkey, application_name or options",
                                (int) MIN(strcspn(parameter, "="), (size_t) 40), parameter);
        if (strcmp(name, "host") == 0)
                return set_host(t, value, error);
        if (strcmp(name, "port") == 0)
                return set_port(t, value, error);
        for (size_t i = 0; i < t->n; i++)
                if (strcmp(t->keywords[i], name) == 0)
                        return refuse(error, "found %s twice, expected it once", name);
        if (strcmp(name, "sslmode") == 0 && check_sslmode(value, error) < 0)
                return -EINVAL;
        add(t, name, value);
        return 0;
}

int postgresql_target_init(PostgresqlTarget *t, const StateUrl *url, char error[static STATE_TEXT_MAX]) {
        int r;

        *t = (PostgresqlTarget){ 0 };
        add(t, "dbname", DEFAULTS); /* the first of that name may be a whole list */
        if (url->user)
                add(t, "user", url->user);
        if (url->path && *url->path)
                add(t, "dbname", url->path);
        if (url->host && *url->host) {
                r = set_host(t, url->host, error);
                if (r < 0)
                        return r;
        }
        if (url->port > 0)
                snprintf(t->port, sizeof(t->port), "%u", url->port);
        for (char **p = url->parameters; p && *p; p++) {
                r = set_parameter(t, *p, error);
                if (r < 0)
                        return r;
        }
        if (!*t->port)
                strcpy(t->port, "5432");
        return 0;
}

/* "name" for each of the addresses: libpq wants as many hosts, to compare certificates and look up
 * passwords. */
static char *repeat(const char *name, const char *addresses) {
        size_t n = 1, size = strlen(name) + 1;
        char *text;

        for (const char *p = addresses; *p; p++)
                n += *p == ',';
        text = malloc(n * size);
        for (size_t i = 0; text && i < n; i++) {
                memcpy(text + i * size, name, size - 1);
                text[(i + 1) * size - 1] = i + 1 < n ? ',' : '\0';
        }
        return text;
}

PGconn *postgresql_target_connect(const PostgresqlTarget *t, const char *addresses, const char *password) {
        _cleanup_free_ char *hosts = NULL;
        PostgresqlTarget full = *t;

        if (t->is_name) {
                hosts = repeat(t->host, addresses);
                if (!hosts)
                        return NULL;
                add(&full, "host", hosts);
                add(&full, "hostaddr", addresses);
        } else if (t->host) {
                add(&full, "host", t->host);
                if (!is_socket(t->host))
                        add(&full, "hostaddr", t->host); /* so that libpq asks nobody */
        }
        add(&full, "port", t->port);
        if (password)
                add(&full, "password", password);
        full.keywords[full.n] = full.values[full.n] = NULL;
        return PQconnectStartParams(full.keywords, full.values, 1);
}
