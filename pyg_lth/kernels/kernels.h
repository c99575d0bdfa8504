/* What the kernels share: vectors of sixteen floats, compiled for each width of register. */
#include <stdint.h>
#include <string.h>

#if defined(__x86_64__)
#define EVERY_REGISTER_WIDTH __attribute__((target_clones("avx512f", "fma", "default")))
#else
#define EVERY_REGISTER_WIDTH
#endif

enum { LANES = 16 };
typedef float lanes __attribute__((vector_size(LANES * sizeof(float)), aligned(4), may_alias));
