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

/* The first place from `begin` on at which an ascending array of any integers is not below a value;
 * `end` where there is none. */
#define FIRST_NOT_BELOW(ascending, begin, end, value)                                              \
    ({                                                                                             \
        int64_t low_ = (begin), high_ = (end), value_ = (value);                                   \
        while (low_ < high_) {                                                                     \
            int64_t middle_ = low_ + (high_ - low_) / 2;                                           \
            if ((ascending)[middle_] < value_)                                                     \
                low_ = middle_ + 1;                                                                \
            else                                                                                   \
                high_ = middle_;                                                                   \
        }                                                                                          \
        low_;                                                                                      \
    })
