/* The fastest instruction set of the processor that runs. */
#include "kernels.h"

#include <stdlib.h>
#include <string.h>

#if defined(__x86_64__) || defined(_M_X64)
extern const Loops loops_avx512, loops_avx2, loops_portable;
#define X86 1
#elif defined(__aarch64__)
extern const Loops loops_neon, loops_portable;
#else
extern const Loops loops_portable;
#endif

static int runs_here(const char *name) {
#ifdef X86
    __builtin_cpu_init();
    if (!strcmp(name, "avx512")) return __builtin_cpu_supports("avx512f");
    if (!strcmp(name, "avx2")) return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#endif
    (void)name;
    return 1;
}

const Loops *best_loops(void) {
    static const Loops *const known[] = { /* the fastest first */
#ifdef X86
        &loops_avx512, &loops_avx2,
#elif defined(__aarch64__)
        &loops_neon,
#endif
        &loops_portable,
    };
    const char *asked = getenv("ONNXPRUNE_KERNELS_ISA");
    const Loops *best = NULL;
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        if (!runs_here(known[i]->name)) continue;
        if (asked && !strcmp(asked, known[i]->name)) return known[i];
        if (!best) best = known[i];
    }
    return best;
}
