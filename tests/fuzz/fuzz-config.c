/* SPDX-License-Identifier: MIT */
/* Configuration files of any content.
 *
 * Beyond not crashing: what is refused is told in one printable line that begins with the file's name; what
 * is taken prints as something that is taken again and prints the same. */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "basic/fd.h"
#include "basic/macro.h"
#include "basic/text.h"
#include "fuzz.h"
#include "master/config.h"

/* libconfig itself loses a string of some broken files. */
__attribute__((visibility("default"))) const char *__lsan_default_suppressions(void);
const char *__lsan_default_suppressions(void) {
        return "leak:libconfig";
}

static void check(bool condition) {
        if (!condition)
                abort();
}

static Config *load(const void *data, size_t size) {
        _cleanup_close_ int fd = memfd_create("fuzz-config", MFD_CLOEXEC);
        _cleanup_free_ char *error = NULL;
        Config *c = NULL;
        char path[64];
        int r;

        check(fd >= 0 && write(fd, data, size) == (ssize_t) size);
        snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
        r = config_load(path, &c, &error);
        check(r == 0 || r == CONFIG_INVALID);
        check((r == 0) == (c != NULL) && (r == 0) == (error == NULL));
        if (error) {
                _cleanup_free_ char *printable = strdup(error);

                check(printable && strncmp(error, path, strlen(path)) == 0);
                text_make_printable(printable);
                check(strcmp(error, printable) == 0);
        }
        return c;
}

static char *print(const Config *c, size_t *ret_size) {
        char *text = NULL;
        FILE *f = open_memstream(&text, ret_size);

        check(f);
        config_print(c, f);
        check(fclose(f) == 0);
        return text;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
        _cleanup_(config_freep) Config *first = NULL, *second = NULL;
        _cleanup_free_ char *a = NULL, *b = NULL;
        size_t a_size, b_size;

        /* These would read any file of the machine. */
        if (memmem(data, size, "@include", strlen("@include")) ||
                        memmem(data, size, "environment_file", strlen("environment_file")))
                return 0;
        first = load(data, size);
        if (!first)
                return 0;

        a = print(first, &a_size);
        second = load(a, a_size);
        check(second);
        b = print(second, &b_size);
        check(a_size == b_size && memcmp(a, b, a_size) == 0);
        return 0;
}
