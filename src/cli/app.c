/* SPDX-License-Identifier: MIT */
/* An app as the command line sees it; see app.h. */

#include "cli/app.h"

#include <errno.h>
#include <grp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "basic/text.h"
#include "build-config.h"

static _printf_(1, 2) char *format(const char *f, ...) {
        va_list ap;
        char *text;

        va_start(ap, f);
        int n = vasprintf(&text, f, ap);
        va_end(ap);
        if (n < 0)
                return NULL;
        text_make_printable(text);
        return text;
}

static bool exists(const char *path) {
        return access(path, F_OK) == 0;
}

int app_init(App *app, const char *name, const char *socket_path) {
        const char *user = getenv("XDG_RUNTIME_DIR");

        *app = (App){ .name = name };
        if (socket_path) {
                app->socket_path = strdup(socket_path);
                return app->socket_path ? 0 : -ENOMEM;
        }

        _cleanup_free_ char *system_path = format("/run/muster/%s/control", name), *user_path = NULL;
        if (!system_path)
                return -ENOMEM;
        if (user && *user == '/' && !exists(system_path)) {
                if (asprintf(&user_path, "%s/muster/%s/control", user, name) < 0) {
                        user_path = NULL;
                        return -ENOMEM;
                }
        }
        app->of_system = !user_path || !exists(user_path);
        app->socket_path = app->of_system ? TAKE_PTR(system_path) : TAKE_PTR(user_path);
        return 0;
}

void app_done(App *app) {
        free(app->socket_path);
        *app = (App){ .name = NULL };
}

bool app_is_configured(const App *app) {
        _cleanup_free_ char *path = format(CONFIGDIR "/%s.conf", app->name);

        return !path || exists(path);
}

UnitState app_get_state(const App *app) {
        char unit[UNIT_NAME_MAX];

        return app->of_system ? unit_get_state(unit_name(app->name, "service", unit)) : UNIT_UNKNOWN;
}

static char *explain_missing(const App *app) {
        return format("there is no app \"%s\": no " CONFIGDIR "/%s.conf", app->name, app->name);
}

char *app_explain_state(const App *app, UnitState state) {
        char service[UNIT_NAME_MAX], sockets[UNIT_NAME_MAX];

        if (!app_is_configured(app))
                return explain_missing(app);
        unit_name(app->name, "service", service);
        unit_name(app->name, "socket", sockets);
        if (state == UNIT_FAILED)
                return format("%s has failed: \"systemctl status %s\" says why", app->name, service);
        if (unit_get_state(sockets) == UNIT_ACTIVE)
                return format("%s is not running (its next connection starts it)", app->name);
        return format("%s is not running (\"systemctl start %s\" lets it be started)", app->name, sockets);
}

static char *explain_permission(const App *app) {
        struct group *group;
        struct stat st;

        if (stat(app->socket_path, &st) < 0)
                return format("no permission to reach %s", app->socket_path);
        group = getgrgid(st.st_gid);
        if (st.st_gid == 0 || !(st.st_mode & S_IWGRP))
                return format("no permission to use %s: it is for its owner alone; SocketGroup= of the control socket's unit "
                              "lets a group in",
                                app->socket_path);
        if (group)
                return format("no permission to use %s: it is for the group \"%s\"", app->socket_path,
                                group->gr_name);
        return format("no permission to use %s: it is for the group %u", app->socket_path,
                        (unsigned) st.st_gid);
}

static char *explain_no_socket(const App *app) {
        if (!app->of_system)
                return format("%s is not running: there is no %s", app->name, app->socket_path);
        if (!app_is_configured(app))
                return explain_missing(app);
        return format("%s cannot be reached: there is no %s", app->name, app->socket_path);
}

char *app_explain_error(const App *app, int error, const char *text) {
        switch (error) {
        case -ENOENT:
        case -ENOTDIR:
                return explain_no_socket(app);
        case -ECONNREFUSED:
                return format("%s is not running: nobody listens on %s", app->name, app->socket_path);
        case -EACCES:
        case -EPERM:
                return explain_permission(app);
        case -ETIMEDOUT:
                return format("%s: no answer in time", app->name);
        case -ECONNRESET:
                return format("%s: the connection was closed without an answer", app->name);
        default:
                return format("%s: %s", app->name, text && *text ? text : strerror(-error));
        }
}
