/* SPDX-License-Identifier: MIT */
/* Stands in for libFuzzer: runs a fuzz target on the files that are named, so that a corpus is an ordinary
 * test. */

#include <stdio.h>
#include <stdlib.h>

#include "fuzz.h"

static int run_file(const char *path) {
        FILE *f = fopen(path, "rbe");
        uint8_t *data = NULL;
        size_t size = 0, n;

        if (!f) {
                perror(path);
                return -1;
        }
        do {
                uint8_t *p = realloc(data, size + 4096);
                if (!p)
                        abort();
                data = p;
                n = fread(data + size, 1, 4096, f);
                size += n;
        } while (n > 0);
        fclose(f);

        /* An allocation of the very size, so that a sanitizer sees a read beyond it. */
        uint8_t *exact = realloc(data, size > 0 ? size : 1);
        LLVMFuzzerTestOneInput(exact ? exact : data, size);
        free(exact ? exact : data);
        return 0;
}

int main(int argc, char *argv[]) {
        for (int i = 1; i < argc; i++)
                if (run_file(argv[i]) < 0)
                        return EXIT_FAILURE;
        printf("%d inputs\n", argc - 1);
        return argc > 1 ? EXIT_SUCCESS : 77;
}
