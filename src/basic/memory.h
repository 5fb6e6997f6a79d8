/* SPDX-License-Identifier: MIT */
#pragma once

/* Gives back to the system what only the start needed: free pages of the heap, and the pages of programs and
 * libraries that were mapped while they were linked and set up. They come back from the page cache if they
 * are needed again. */
void memory_trim(void);
