/* SPDX-License-Identifier: MIT */
#pragma once

/* Arrays of strings that end with NULL, as argv and environ. */

/* A copy, array and strings in one block, which free() frees. Returns 0 or -ENOMEM. */
int string_list_copy(char *const *from, char ***ret);

/* The arguments that this process was started with (proc(5): /proc/self/cmdline); as above. */
int string_list_of_arguments(char ***ret);
