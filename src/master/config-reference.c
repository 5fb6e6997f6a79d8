/* SPDX-License-Identifier: MIT */
/* Copies a manual page's source from stdin to stdout, with the lines @REFERENCE@ and @AGENTS@ replaced by
 * what the schema says. */

#include <stdio.h>
#include <string.h>

#include "master/config-schema.h"

int main(void) {
        char line[4096];

        while (fgets(line, sizeof(line), stdin))
                if (strcmp(line, "@REFERENCE@\n") == 0)
                        config_schema_print_reference(stdout);
                else if (strcmp(line, "@AGENTS@\n") == 0)
                        config_schema_print_agent_reference(stdout);
                else
                        fputs(line, stdout);
        return fflush(stdout) == 0 ? 0 : 1;
}
