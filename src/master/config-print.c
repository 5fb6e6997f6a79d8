/* SPDX-License-Identifier: MIT */
/* The effective configuration as a file that reads back: config_print() of config.h. */

#include <stdio.h>
#include <string.h>

#include "basic/macro.h"
#include "basic/parse.h"
#include "master/config-schema.h"
#include "master/config-value.h"
#include "master/config.h"

static void print_string(FILE *f, const char *s) {
        fputc('"', f);
        for (; *s; s++) {
                if (*s == '"' || *s == '\\')
                        fputc('\\', f);
                if (*s == '\n')
                        fputs("\\n", f);
                else
                        fputc(*s, f);
        }
        fputc('"', f);
}

static void print_strings(FILE *f, char *const *strings) {
        fputc('[', f);
        for (size_t i = 0; strings && strings[i]; i++) {
                fputs(i == 0 ? " " : ", ", f);
                print_string(f, strings[i]);
        }
        fputs(" ]", f);
}

static void print_variables(FILE *f, char *const *variables) {
        fputc('{', f);
        for (; variables && *variables; variables++) {
                fprintf(f, " %.*s = ", (int) strcspn(*variables, "="), *variables);
                print_string(f, strchr(*variables, '=') + 1);
                fputc(';', f);
        }
        fputs(" }", f);
}

/* Everything else is a string to libconfig. */
static bool is_bare(const Config *c, const ConfigKey *k) {
        const void *member = config_value_member(c, k);

        return k->type == CONFIG_BOOL || k->type == CONFIG_UINT ||
               (k->type == CONFIG_COUNT && *(const unsigned *) member > 0);
}

static void print_value(const Config *c, const ConfigKey *k, FILE *f) {
        const void *member = config_value_member(c, k);
        char buf[CONFIG_VALUE_MAX];

        if (k->type == CONFIG_STRINGS)
                print_strings(f, *(char **const *) member);
        else if (k->type == CONFIG_VARIABLES)
                print_variables(f, *(char **const *) member);
        else if (is_bare(c, k))
                fputs(config_value_to_string(c, k, buf), f);
        else
                print_string(f, config_value_to_string(c, k, buf));
}

static void print_agent(const Config *c, const char *separator, FILE *f) {
        fprintf(f, "%s\n  { name = ", separator);
        print_string(f, c->agent_name);
        for (const ConfigKey *k = c->table->keys; k < c->table->keys + c->table->n; k++) {
                fprintf(f, ";\n    %s = ", k->name);
                print_value(c, k, f);
        }
        fputs("; }", f);
}

void config_print(const Config *c, FILE *f) {
        const char *group = "";

        for (const ConfigKey *k = config_keys; k < config_keys + n_config_keys; k++) {
                if (strcmp(group, k->group) != 0) {
                        fputs(*group ? "};\n" : "", f);
                        if (*k->group)
                                fprintf(f, "%s: {\n", k->group);
                        group = k->group;
                }
                fprintf(f, "%s%s = ", *group ? "  " : "", k->name);
                print_value(c, k, f);
                fputs(";\n", f);
        }
        fputs(*group ? "};\n" : "", f);
        fputs("listen: (", f);
        for (size_t i = 0; i < c->n_listen; i++) {
                fputs(i == 0 ? "\n  { address = " : ",\n  { address = ", f);
                print_string(f, c->listen[i].address);
                fputs("; name = ", f);
                print_string(f, c->listen[i].name);
                fputs("; }", f);
        }
        fputs(c->n_listen ? "\n);\n" : ");\n", f);
        fputs("agents: (", f);
        for (size_t i = 0; i < c->n_agents; i++)
                print_agent(c->agents[i], i == 0 ? "" : ",", f);
        fputs(c->n_agents ? "\n);\n" : ");\n", f);
}
