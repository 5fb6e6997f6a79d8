/* SPDX-License-Identifier: MIT */
/* Reading a configuration file with libconfig and checking it against the schema; see config.h.
 *
 * The reader goes through what the file holds and looks each key up in the table, so nothing unknown is
 * passed over. The first error ends it. */

#include "master/config.h"

#include <errno.h>
#include <inttypes.h>
#include <libconfig.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "basic/clock.h"
#include "basic/parse.h"
#include "basic/text.h"
#include "master/address.h"
#include "master/config-schema.h"

/* Leaves the text for the user and returns the outcome. */
#define invalid(ret_error, ...) text_outcome(CONFIG_INVALID, ret_error, __VA_ARGS__)

#define LISTEN_MAX      64
#define SOCKET_NAME_MAX 255 /* sd_listen_fds(3) */

Config *config_free(Config *c) {
        if (!c)
                return NULL;
        for (size_t i = 0; i < c->n_listen; i++) {
                free(c->listen[i].address);
                free(c->listen[i].name);
        }
        free(c->listen);
        free(c->app_directory);
        free(c->path);
        free(c);
        return NULL;
}

static void *member_of(const Config *c, const ConfigKey *k) {
        return (char *) c + k->offset;
}

static const char *setting_file(const Config *c, const config_setting_t *s) {
        const char *file = config_setting_source_file(s);

        return file ? file : c->path; /* set only for what came by @include */
}

/* A string in quotes, on one line whatever it holds, and cut where it is too long for a message. */
static void quote(const char *s, char buf[static CONFIG_TEXT_MAX]) {
        char text[CONFIG_TEXT_MAX - 8];
        int n = snprintf(text, sizeof(text), "%s", s);

        text_make_printable(text);
        snprintf(buf, CONFIG_TEXT_MAX, "\"%s%s\"", text, n >= (int) sizeof(text) ? "…" : "");
}

/* The value as the user wrote it, more or less. */
static const char *setting_found(const config_setting_t *s, char buf[static CONFIG_TEXT_MAX]) {
        switch (config_setting_type(s)) {
        case CONFIG_TYPE_INT:
        case CONFIG_TYPE_INT64:
                snprintf(buf, CONFIG_TEXT_MAX, "%lld", config_setting_get_int64(s));
                break;
        case CONFIG_TYPE_FLOAT:
                snprintf(buf, CONFIG_TEXT_MAX, "%g", config_setting_get_float(s));
                break;
        case CONFIG_TYPE_STRING:
                quote(config_setting_get_string(s), buf);
                break;
        case CONFIG_TYPE_BOOL:
                strcpy(buf, config_setting_get_bool(s) ? "true" : "false");
                break;
        case CONFIG_TYPE_GROUP:
                strcpy(buf, "a group { … }");
                break;
        case CONFIG_TYPE_ARRAY:
                strcpy(buf, "an array [ … ]");
                break;
        case CONFIG_TYPE_LIST:
                strcpy(buf, "a list ( … )");
                break;
        default:
                strcpy(buf, "nothing");
        }
        return buf;
}

static int invalid_setting(const Config *c, const config_setting_t *s, const char *key, const char *expected,
                char **ret_error) {
        char found[CONFIG_TEXT_MAX];

        return invalid(ret_error, "%s:%u: %s: found %s, expected %s", setting_file(c, s),
                        config_setting_source_line(s), key, setting_found(s, found), expected);
}

/* Readers of one value each. They return 0, -ENOMEM, or -EINVAL and -ERANGE for "not what the key takes". */

static int read_choice(const ConfigKey *k, const char *text, unsigned *ret) {
        for (unsigned i = 0; k->choices[i]; i++)
                if (strcmp(text, k->choices[i]) == 0) {
                        *ret = i;
                        return 0;
                }
        return -EINVAL;
}

static int read_path(const char *text, char **ret) {
        if (text[0] != '/')
                return -EINVAL;

        char *copy = strdup(text);
        if (!copy)
                return -ENOMEM;
        free(*ret);
        *ret = copy;
        return 0;
}

static int read_ranged(const ConfigKey *k, uint64_t v, uint64_t *ret) {
        if (v < k->min || v > k->max)
                return -ERANGE;
        *ret = v;
        return 0;
}

static int read_text(const ConfigKey *k, const char *text, void *member) {
        uint64_t v;
        int r;

        switch (k->type) {
        case CONFIG_CHOICE:
                return read_choice(k, text, member);
        case CONFIG_PATH:
                return read_path(text, member);
        case CONFIG_DURATION:
                r = parse_duration(text, &v);
                return r < 0 ? r : read_ranged(k, v, member);
        case CONFIG_SIZE:
                r = parse_size(text, &v);
                return r < 0 ? r : read_ranged(k, v, member);
        case CONFIG_COUNT:
                if (strcmp(text, "auto") != 0)
                        return -EINVAL;
                *(unsigned *) member = 0;
                return 0;
        default:
                return -EINVAL;
        }
}

static int read_number(const ConfigKey *k, long long n, void *member) {
        uint64_t v;
        int r;

        if (n < 0)
                return -ERANGE;
        r = read_ranged(k, (uint64_t) n, &v);
        if (r < 0)
                return r;

        switch (k->type) {
        case CONFIG_UINT:
        case CONFIG_COUNT:
                *(unsigned *) member = (unsigned) v;
                return 0;
        case CONFIG_SIZE: /* bytes; a duration without its unit would be a guess */
                if (config_key_is_quoted(k))
                        return -EINVAL;
                *(uint64_t *) member = v;
                return 0;
        default:
                return -EINVAL;
        }
}

static int read_value(const ConfigKey *k, const config_setting_t *s, void *member) {
        switch (config_setting_type(s)) {
        case CONFIG_TYPE_STRING:
                return read_text(k, config_setting_get_string(s), member);
        case CONFIG_TYPE_INT:
        case CONFIG_TYPE_INT64:
                return read_number(k, config_setting_get_int64(s), member);
        case CONFIG_TYPE_BOOL:
                if (k->type != CONFIG_BOOL)
                        return -EINVAL;
                *(bool *) member = config_setting_get_bool(s);
                return 0;
        default:
                return -EINVAL;
        }
}

static int set_default(Config *c, const ConfigKey *k) {
        void *member = member_of(c, k);
        uint64_t n;
        int r;

        switch (k->type) {
        case CONFIG_BOOL:
                *(bool *) member = strcmp(k->fallback, "true") == 0;
                return 0;
        case CONFIG_UINT:
                r = parse_uint64(k->fallback, &n);
                assert(r == 0);
                return read_number(k, (long long) n, member);
        default:
                return read_text(k, k->fallback, member);
        }
}

/* NULL: there is none. At the top level the group is "". */
static const ConfigKey *find_key(const char *group, const char *name) {
        for (const ConfigKey *k = config_keys; k < config_keys + n_config_keys; k++)
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
static void known_names(const char *group, char buf[static CONFIG_TEXT_MAX]) {
        const char *previous = "";
        size_t n = 0;

        for (const ConfigKey *k = config_keys; k < config_keys + n_config_keys; k++) {
                const char *name = group || !*k->group ? k->name : k->group;

                if ((group && strcmp(group, k->group) != 0) || strcmp(name, previous) == 0)
                        continue;
                n += (size_t) snprintf(buf + n, CONFIG_TEXT_MAX - n, "%s%s", n ? ", " : "", name);
                previous = name;
        }
        if (!group)
                snprintf(buf + n, CONFIG_TEXT_MAX - n, ", listen");
}

static int read_key(Config *c, const ConfigKey *k, const config_setting_t *s, const char *key,
                char **ret_error) {
        char expected[CONFIG_TEXT_MAX];
        int r;

        r = read_value(k, s, member_of(c, k));
        if (r == -ENOMEM)
                return r;
        return r < 0 ? invalid_setting(c, s, key, config_key_expected(k, expected), ret_error) : 0;
}

static int read_group(Config *c, const config_setting_t *group, char **ret_error) {
        const char *name = config_setting_name(group);
        char key[CONFIG_TEXT_MAX], text[CONFIG_TEXT_MAX];
        int r;

        if (!config_setting_is_group(group))
                return invalid_setting(c, group, name, "a group { … }", ret_error);
        for (int i = 0; i < config_setting_length(group); i++) {
                const config_setting_t *s = config_setting_get_elem(group, (unsigned) i);
                const ConfigKey *k = find_key(name, config_setting_name(s));

                snprintf(key, sizeof(key), "%s.%s", name, config_setting_name(s));
                if (!k) {
                        known_names(name, text);
                        return invalid(ret_error, "%s:%u: %s: found an unknown key, expected one of: %s",
                                        setting_file(c, s), config_setting_source_line(s), key, text);
                }
                r = read_key(c, k, s, key, ret_error);
                if (r != 0)
                        return r;
        }
        return 0;
}

#define EXPECTED_ADDRESS "PORT, IPV4:PORT, [IPV6]:PORT or /PATH"
#define EXPECTED_NAME    "1 to " STRINGIFY(SOCKET_NAME_MAX) " printable ASCII characters, none of them ':'"

static int read_listen_address(Config *c, const config_setting_t *s, char **ret, char **ret_error) {
        const char *text = config_setting_get_string(s);
        Address address;

        if (!text || address_parse(text, &address) < 0)
                return invalid_setting(c, s, "listen.address", EXPECTED_ADDRESS, ret_error);
        *ret = strdup(text);
        return *ret ? 0 : -ENOMEM;
}

/* As systemd wants FileDescriptorName=: a ':' would part it in LISTEN_FDNAMES. */
static bool socket_name_is_valid(const char *s) {
        size_t n = strlen(s);

        for (size_t i = 0; i < n; i++)
                if (s[i] < 0x20 || s[i] > 0x7E || s[i] == ':')
                        return false;
        return n >= 1 && n <= SOCKET_NAME_MAX;
}

static int read_listen_name(Config *c, const config_setting_t *s, char **ret, char **ret_error) {
        const char *text = config_setting_get_string(s);

        if (!text || !socket_name_is_valid(text))
                return invalid_setting(c, s, "listen.name", EXPECTED_NAME, ret_error);
        *ret = strdup(text);
        return *ret ? 0 : -ENOMEM;
}

static int read_listen_entry(Config *c, const config_setting_t *entry, ListenConfig *l, char **ret_error) {
        int r;

        l->line = config_setting_source_line(entry);
        if (!config_setting_is_group(entry))
                return invalid_setting(
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
                                        setting_file(c, s), config_setting_source_line(s), name);
                if (r != 0)
                        return r;
        }
        if (!l->address)
                return invalid(ret_error, "%s:%u: listen.address: found nothing, expected " EXPECTED_ADDRESS,
                                setting_file(c, entry), l->line);
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
                return invalid_setting(c, list, "listen",
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

static int read_top(Config *c, const config_setting_t *s, char **ret_error) {
        const char *name = config_setting_name(s);
        const ConfigKey *k = find_key("", name);
        char text[CONFIG_TEXT_MAX];

        if (strcmp(name, "listen") == 0)
                return read_listen(c, s, ret_error);
        if (k)
                return read_key(c, k, s, name, ret_error);
        if (is_group(name))
                return read_group(c, s, ret_error);
        known_names(NULL, text);
        return invalid(ret_error, "%s:%u: %s: found an unknown name, expected one of: %s",
                        setting_file(c, s), config_setting_source_line(s), name, text);
}

static int read_root(Config *c, const config_setting_t *root, char **ret_error) {
        int r = 0;

        for (int i = 0; r == 0 && i < config_setting_length(root); i++)
                r = read_top(c, config_setting_get_elem(root, (unsigned) i), ret_error);
        return r;
}

/* A machine that is only busy delays any process by some milliseconds. */
#define WATCHDOG_MIN_USEC (100 * USEC_PER_MSEC)

/* What a single key's range cannot say. */
static int check_relations(const Config *c, char **ret_error) {
        char a[DURATION_STRING_MAX], b[DURATION_STRING_MAX];

        if (c->workers_watchdog_usec > 0 && c->workers_watchdog_usec < WATCHDOG_MIN_USEC)
                return invalid(ret_error, "%s: workers.watchdog: found %s, expected 0 or at least %s",
                                c->path, duration_to_string(c->workers_watchdog_usec, a),
                                duration_to_string(WATCHDOG_MIN_USEC, b));
        if (c->restart_backoff_min_usec > c->restart_backoff_max_usec)
                return invalid(ret_error,
                                "%s: restart.backoff_min: found %s, expected at most restart.backoff_max (%s)",
                                c->path, duration_to_string(c->restart_backoff_min_usec, a),
                                duration_to_string(c->restart_backoff_max_usec, b));
        return 0;
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

int config_load(const char *path, Config **ret, char **ret_error) {
        _cleanup_(config_freep) Config *c = calloc(1, sizeof(*c));
        int r;

        if (!c)
                return -ENOMEM;
        c->path = strdup(path);
        if (!c->path)
                return -ENOMEM;
        for (const ConfigKey *k = config_keys; k < config_keys + n_config_keys; k++) {
                r = set_default(c, k);
                if (r == -ENOMEM)
                        return r;
                assert(r == 0);
        }

        r = read_file(c, ret_error);
        if (r == 0)
                r = check_relations(c, ret_error);
        if (r != 0)
                return r;

        *ret = TAKE_PTR(c);
        return 0;
}

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

static void print_value(const Config *c, const ConfigKey *k, FILE *f) {
        const void *member = member_of(c, k);
        char buf[DURATION_STRING_MAX];

        switch (k->type) {
        case CONFIG_CHOICE:
                print_string(f, k->choices[*(const unsigned *) member]);
                break;
        case CONFIG_PATH:
                print_string(f, *(char *const *) member);
                break;
        case CONFIG_BOOL:
                fputs(*(const bool *) member ? "true" : "false", f);
                break;
        case CONFIG_COUNT:
                if (*(const unsigned *) member == 0) {
                        fputs("\"auto\"", f);
                        break;
                }
                fprintf(f, "%u", *(const unsigned *) member);
                break;
        case CONFIG_UINT:
                fprintf(f, "%u", *(const unsigned *) member);
                break;
        case CONFIG_DURATION:
                fprintf(f, "\"%s\"", duration_to_string(*(const uint64_t *) member, buf));
                break;
        case CONFIG_SIZE:
                fprintf(f, "\"%s\"", size_to_string(*(const uint64_t *) member, buf));
                break;
        case _CONFIG_TYPE_MAX:
                assert(0);
        }
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
}
