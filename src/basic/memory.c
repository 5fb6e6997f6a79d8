/* SPDX-License-Identifier: MIT */
/* Memory that is no longer needed; see memory.h. */

#include "basic/memory.h"

#include <link.h>
#include <malloc.h>
#include <stdint.h>
#include <sys/mman.h>
#include <unistd.h>

/* Only segments that are never writable: what was relocated or written is private to this process, and
 * dropping it would lose it. */
static int trim_object(struct dl_phdr_info *info, size_t size, void *userdata) {
        uintptr_t page = (uintptr_t) sysconf(_SC_PAGESIZE);

        for (unsigned i = 0; i < info->dlpi_phnum; i++) {
                const ElfW(Phdr) *p = info->dlpi_phdr + i;

                if (p->p_type != PT_LOAD || (p->p_flags & PF_W))
                        continue;

                uintptr_t begin = (info->dlpi_addr + p->p_vaddr) & ~(page - 1);
                uintptr_t end = (info->dlpi_addr + p->p_vaddr + p->p_memsz + page - 1) & ~(page - 1);
                (void) madvise((void *) begin, end - begin, MADV_DONTNEED); /* EINVAL: the vDSO */
        }
        return 0;
}

void memory_trim(void) {
        (void) malloc_trim(0);
        (void) dl_iterate_phdr(trim_object, NULL);
}
