/* SPDX-License-Identifier: MIT */
/* Reading a configuration file with libconfig and checking it against the schema; see config.h.
 *
 * The reader goes through what the file holds and looks each key up in the table, so nothing unknown is
 * passed over. The first error ends it. */

#include "master/config.h"

#include <errno.h>
#include <libconfig.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "basic/strv.h"
#include "basic/text.h"
#include "master/activation.h"
#include "master/address.h"
#include "master/config-check.h"
#include "master/config-schema.h"
#include "master/config-value.h"
#include "master/state-setting.h"

/* Leaves the text for the user and returns the outcome. */
#define invalid(ret_error, ...) text_outcome(CONFIG_INVALID, ret_error, __VA_ARGS__)

#define LISTEN_MAX 64

Config *config_free(Config *c) {
        if (!c)
                return NULL;
        for (size_t i = 0; i < c->n_listen; i++) {
                free(c->listen[i].address);
                free(c->listen[i].name);
        }
        free(c->listen);
        for (size_t i = 0; i < c->n_agents; i++)
                config_free(c->agents[i]);
        free(c->agents);
        for (size_t i = 0; i < c->table->n; i++) {
                config_value_done(c, c->table->keys + i);
                if (c->places)
                        free(c->places[i].file);
        }
        free(c->agent_name);
        state_setting_free(c->state);
        free(c->places);
        strv_free(c->app_environment_of_file);
        free(c->path);
        free(c);
        return NULL;
}

static Config *config_new(const char *path, const ConfigTable *table) {
        _cleanup_(config_freep) Config *c = calloc(1, sizeof(*c));

        if (!c)
                return NULL;
        c->table = table;
        c->path = strdup(path);
        c->places = calloc(table->n, sizeof(ConfigPlace));
        if (!c->path || !c->places)
                return NULL;
        for (const ConfigKey *k = table->keys; k < table->keys + table->n; k++)
                if (config_value_set_default(c, k) < 0)
                        return NULL;
        return TAKE_PTR(c);
}

int config_refuse(const Config *c, size_t member, char **ret_error, const char *format, ...) {
        _cleanup_free_ char *message = NULL;
        const ConfigKey *k = c->table->keys;
        char line[16] = "";
        va_list ap;

        while (k->offset != member)
                k++;
        va_start(ap, format);
        if (vasprintf(&message, format, ap) < 0)
                message = NULL;
        va_end(ap);
        if (!message) {
                *ret_error = NULL;
                return -ENOMEM;
        }
        text_make_printable(message); /* there may be a path in it */

        const ConfigPlace *place = c->places + (k - c->table->keys);
        if (place->line > 0)
                snprintf(line, sizeof(line), ":%u", place->line);
        return invalid(ret_error, "%s%s: %s%s%s: %s", place->file ? place->file : c->path, line, k->group,
                        *k->group ? "." : "", k->name, message);
}

/* NULL: there is none. At the top level the group is "". */
static const ConfigKey *find_key(const ConfigTable *table, const char *group, const char *name) {
        for (const ConfigKey *k = table->keys; k < table->keys + table->n; k++)
                if (strcmp(k->group, group) == 0 && strcmp(k->name, name) == 0)
                        return k;
        return NULL;
}

static bool is_group(const char *name) {
        for (const ConfigKey *k = config_keys; k < config_keys + n_config_keys; k++)
                if (strcmp(k->group, name) == 0)
                        return true;
        return false;
}

/* Appends the names of all keys in @group (of all at the top level if NULL), for "expected one of". */
static void known_names(const ConfigTable *table, const char *group, char buf[static CONFIG_TEXT_MAX]) {
        const char *previous = "";
        size_t n = 0;

        for (const ConfigKey *k = table->keys; k < table->keys + table->n; k++) {
                const char *name = group || !*k->group ? k->name : k->group;

                if ((group && strcmp(group, k->group) != 0) || strcmp(name, previous) == 0)
                        continue;
                n += (size_t) snprintf(buf + n, CONFIG_TEXT_MAX - n, "%s%s", n ? ", " : "", name);
                previous = name;
        }
        if (!group)
                snprintf(buf + n, CONFIG_TEXT_MAX - n, ", listen, agents");
}

static int remember_place(Config *c, const ConfigKey *k, const config_setting_t *s) {
        ConfigPlace *place = c->places + (k - c->table->keys);
        const char *file = config_setting_source_file(s); /* set only for what came by @include */

        place->line = config_setting_source_line(s);
        free(TAKE_PTR(place->file));
        if (file)
                place->file = strdup(file);
        return file && !place->file ? -ENOMEM : 0;
}

static int read_key(Config *c, const ConfigKey *k, const config_setting_t *s, const char *name,
                char **ret_error) {
        int r;

        r = remember_place(c, k, s);
        return r < 0 ? r : config_value_read(c, k, s, name, ret_error);
}

static int read_group(Config *c, const config_setting_t *group, char **ret_error) {
        const char *name = config_setting_name(group);
        char key[CONFIG_TEXT_MAX], text[CONFIG_TEXT_MAX];
        int r;

        if (!config_setting_is_group(group))
                return config_value_refuse(c, group, name, "a group { … }", ret_error);
        for (int i = 0; i < config_setting_length(group); i++) {
                const config_setting_t *s = config_setting_get_elem(group, (unsigned) i);
                const ConfigKey *k = find_key(c->table, name, config_setting_name(s));

                snprintf(key, sizeof(key), "%s.%s", name, config_setting_name(s));
                if (!k) {
                        known_names(c->table, name, text);
                        return invalid(ret_error, "%s:%u: %s: found an unknown key, expected one of: %s",
                                        config_value_file(c, s), config_setting_source_line(s), key, text);
                }
                r = read_key(c, k, s, key, ret_error);
                if (r != 0)
                        return r;
        }
        return 0;
}

#define EXPECTED_ADDRESS "PORT, IPV4:PORT, [IPV6]:PORT or /PATH"
#define EXPECTED_NAME    "1 to " STRINGIFY(ACTIVATION_NAME_MAX) " printable ASCII characters, none of them ':'"

static int read_listen_address(Config *c, const config_setting_t *s, char **ret, char **ret_error) {
        const char *text = config_setting_get_string(s);
        Address address;

        if (!text || address_parse(text, &address) < 0)
                return config_value_refuse(c, s, "listen.address", EXPECTED_ADDRESS, ret_error);
        *ret = strdup(text);
        return *ret ? 0 : -ENOMEM;
}

/* As systemd wants FileDescriptorName=: a ':' would part it in LISTEN_FDNAMES. */
static bool socket_name_is_valid(const char *s) {
        size_t n = strlen(s);

        for (size_t i = 0; i < n; i++)
                if (s[i] < 0x20 || s[i] > 0x7E || s[i] == ':')
                        return false;
        return n >= 1 && n <= ACTIVATION_NAME_MAX;
}

static int read_listen_name(Config *c, const config_setting_t *s, char **ret, char **ret_error) {
        const char *text = config_setting_get_string(s);

        if (!text || !socket_name_is_valid(text))
                return config_value_refuse(c, s, "listen.name", EXPECTED_NAME, ret_error);
        *ret = strdup(text);
        return *ret ? 0 : -ENOMEM;
}

static int read_listen_entry(Config *c, const config_setting_t *entry, ListenConfig *l, char **ret_error) {
        int r;

        l->line = config_setting_source_line(entry);
        if (!config_setting_is_group(entry))
                return config_value_refuse(
                                c, entry, "listen", "{ address = \"8080\"; name = \"http\"; }", ret_error);

        for (int i = 0; i < config_setting_length(entry); i++) {
                const config_setting_t *s = config_setting_get_elem(entry, (unsigned) i);
                const char *name = config_setting_name(s);

                if (strcmp(name, "address") == 0)
                        r = read_listen_address(c, s, &l->address, ret_error);
                else if (strcmp(name, "name") == 0)
                        r = read_listen_name(c, s, &l->name, ret_error);
                else
                        r = invalid(ret_error,
                                        "%s:%u: listen.%s: found an unknown key, expected one of: address, name",
                                        config_value_file(c, s), config_setting_source_line(s), name);
                if (r != 0)
                        return r;
        }
        if (!l->address)
                return invalid(ret_error, "%s:%u: listen.address: found nothing, expected " EXPECTED_ADDRESS,
                                config_value_file(c, entry), l->line);
        if (!l->name) {
                l->name = strdup("http");
                if (!l->name)
                        return -ENOMEM;
        }
        return 0;
}

static int read_listen(Config *c, const config_setting_t *list, char **ret_error) {
        int n = config_setting_length(list), r;

        if (!config_setting_is_list(list) || n > LISTEN_MAX)
                return config_value_refuse(c, list, "listen",
                                "a list of at most " STRINGIFY(LISTEN_MAX) " sockets: ( { address = "
                                                                           "\"8080\"; name = \"http\"; } )",
                                ret_error);

        c->listen = calloc((size_t) MAX(n, 1), sizeof(ListenConfig));
        if (!c->listen)
                return -ENOMEM;
        for (int i = 0; i < n; i++) {
                r = read_listen_entry(c, config_setting_get_elem(list, (unsigned) i),
                                c->listen + c->n_listen++, ret_error);
                if (r != 0)
                        return r;
        }
        return 0;
}

#define EXPECTED_AGENT "{ name = \"redis\"; command = [ \"/usr/bin/redis-server\" ]; }"
#define EXPECTED_AGENT_NAME \
        "1 to " STRINGIFY(AGENT_NAME_MAX) " of a-z, 0-9, _ and -, the first a letter, of no other agent"

static bool agent_name_is_valid(const char *s) {
        size_t n = strspn(s, "abcdefghijklmnopqrstuvwxyz0123456789_-");

        return n >= 1 && n <= AGENT_NAME_MAX && !s[n] && s[0] >= 'a';
}

static bool agent_name_is_used(const Config *c, const char *s) {
        for (size_t i = 0; i < c->n_agents; i++)
                if (c->agents[i]->agent_name && strcmp(c->agents[i]->agent_name, s) == 0)
                        return true;
        return false;
}

static int read_agent_name(const Config *c, const config_setting_t *s, char **ret, char **ret_error) {
        const char *text = config_setting_get_string(s);

        if (!text || !agent_name_is_valid(text) || agent_name_is_used(c, text))
                return config_value_refuse(c, s, "agents.name", EXPECTED_AGENT_NAME, ret_error);
        *ret = strdup(text);
        return *ret ? 0 : -ENOMEM;
}

static int read_agent_key(const Config *c, const config_setting_t *s, Config *agent, char **ret_error) {
        const char *name = config_setting_name(s);
        const ConfigKey *k = find_key(agent->table, "agents", name);
        char key[CONFIG_TEXT_MAX], text[CONFIG_TEXT_MAX];

        if (strcmp(name, "name") == 0)
                return read_agent_name(c, s, &agent->agent_name, ret_error);
        snprintf(key, sizeof(key), "agents.%s", name);
        if (k)
                return read_key(agent, k, s, key, ret_error);
        known_names(agent->table, "agents", text);
        return invalid(ret_error, "%s:%u: %s: found an unknown key, expected one of: name, %s",
                        config_value_file(c, s), config_setting_source_line(s), key, text);
}

static int read_agent(Config *c, const config_setting_t *entry, Config *agent, char **ret_error) {
        int r = 0;

        if (!config_setting_is_group(entry))
                return config_value_refuse(c, entry, "agents", EXPECTED_AGENT, ret_error);
        /* What is not set is missing here. */
        for (size_t i = 0; i < agent->table->n && r == 0; i++)
                r = remember_place(agent, agent->table->keys + i, entry);
        for (int i = 0; r == 0 && i < config_setting_length(entry); i++)
                r = read_agent_key(c, config_setting_get_elem(entry, (unsigned) i), agent, ret_error);
        if (r == 0 && !agent->agent_name)
                return invalid(ret_error, "%s:%u: agents.name: found nothing, expected " EXPECTED_AGENT_NAME,
                                config_value_file(c, entry), config_setting_source_line(entry));
        return r;
}

static int read_agents(Config *c, const config_setting_t *list, char **ret_error) {
        int n = config_setting_length(list), r;

        if (!config_setting_is_list(list) || n > AGENTS_MAX)
                return config_value_refuse(c, list, "agents",
                                "a list of at most " STRINGIFY(AGENTS_MAX) " agents: ( " EXPECTED_AGENT " )",
                                ret_error);
        c->agents = calloc((size_t) MAX(n, 1), sizeof(Config *));
        if (!c->agents)
                return -ENOMEM;
        for (int i = 0; i < n; i++) {
                Config *agent = config_new(c->path, &config_agent_table);
                if (!agent)
                        return -ENOMEM;
                agent->app_kind = APP_PROGRAM;
                agent->app = c;
                c->agents[c->n_agents++] = agent;
                r = read_agent(c, config_setting_get_elem(list, (unsigned) i), agent, ret_error);
                if (r != 0)
                        return r;
        }
        return 0;
}

static int read_top(Config *c, const config_setting_t *s, char **ret_error) {
        const char *name = config_setting_name(s);
        const ConfigKey *k = find_key(c->table, "", name);
        char text[CONFIG_TEXT_MAX];

        if (strcmp(name, "listen") == 0)
                return read_listen(c, s, ret_error);
        if (strcmp(name, "agents") == 0)
                return read_agents(c, s, ret_error);
        if (k)
                return read_key(c, k, s, name, ret_error);
        if (is_group(name))
                return read_group(c, s, ret_error);
        known_names(c->table, NULL, text);
        return invalid(ret_error, "%s:%u: %s: found an unknown name, expected one of: %s",
                        config_value_file(c, s), config_setting_source_line(s), name, text);
}

static int read_root(Config *c, const config_setting_t *root, char **ret_error) {
        int r = 0;

        for (int i = 0; r == 0 && i < config_setting_length(root); i++)
                r = read_top(c, config_setting_get_elem(root, (unsigned) i), ret_error);
        return r;
}

/* The name at the start of a line of the file, for messages of the parser, which names none. */
static void name_in_line(const char *path, int line, char buf[static CONFIG_TEXT_MAX]) {
        FILE *f = fopen(path, "re");
        char text[CONFIG_TEXT_MAX] = "";

        buf[0] = '\0';
        if (!f)
                return;
        for (int i = 0; i < line && fgets(text, sizeof(text), f);)
                if (strchr(text, '\n') || feof(f))
                        i++;
        fclose(f);
        sscanf(text, " %200[A-Za-z0-9_*-]", buf);
}

static int invalid_syntax(const Config *c, const config_t *lc, char **ret_error) {
        const char *file = config_error_file(lc), *text = config_error_text(lc);
        char name[CONFIG_TEXT_MAX];

        if (!file)
                file = c->path;
        if (strstr(text, "include"))
                return invalid(ret_error, "%s:%d: @include: %s", file, config_error_line(lc), text);
        name_in_line(file, config_error_line(lc), name);
        if (strstr(text, "duplicate"))
                return invalid(ret_error, "%s:%d: %s: found it a second time, expected each key once", file,
                                config_error_line(lc), *name ? name : "?");
        return invalid(ret_error, "%s:%d: %s%sfound a %s, expected KEY = VALUE; or GROUP: { … };", file,
                        config_error_line(lc), name, *name ? ": " : "", text);
}

static int parse_file(Config *c, FILE *f, char **ret_error) {
        config_t lc;
        int r;

        config_init(&lc);
        if (!config_read(&lc, f))
                r = ferror(f) ? invalid(ret_error, "%s: cannot read: %s", c->path, strerror(EIO))
                              : invalid_syntax(c, &lc, ret_error);
        else
                r = read_root(c, config_root_setting(&lc), ret_error);
        config_destroy(&lc);
        return r;
}

static int read_file(Config *c, char **ret_error) {
        FILE *f = fopen(c->path, "re");
        struct stat st;
        int r;

        if (!f)
                return invalid(ret_error, "%s: cannot open: %s", c->path, strerror(errno));
        if (fstat(fileno(f), &st) < 0 || S_ISDIR(st.st_mode))
                r = invalid(ret_error, "%s: found a directory, expected a configuration file", c->path);
        else
                r = parse_file(c, f, ret_error);
        fclose(f);
        return r;
}

bool config_is_set(const Config *c, size_t member) {
        for (size_t i = 0; i < c->table->n; i++)
                if (c->table->keys[i].offset == member)
                        return c->places[i].line > 0;
        return false;
}

int config_resolve(Config *c, const char *app, char **ret_error) {
        c->state = state_setting_free(c->state);
        return state_setting_new(c, app, &c->state, ret_error);
}

bool config_agent_is_same(const Config *a, const Config *b) {
        if (strcmp(a->agent_name, b->agent_name) != 0)
                return false;
        for (const ConfigKey *k = config_agent_table.keys;
                        k < config_agent_table.keys + config_agent_table.n; k++)
                if (!config_value_is_same(a, b, k))
                        return false;
        return true;
}

int config_load(const char *path, Config **ret, char **ret_error) {
        _cleanup_(config_freep) Config *c = config_new(path, &config_table);
        int r;

        if (!c)
                return -ENOMEM;
        r = read_file(c, ret_error);
        if (r == 0)
                r = config_check(c, ret_error);
        if (r != 0)
                return r;

        *ret = TAKE_PTR(c);
        return 0;
}
