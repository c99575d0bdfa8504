/* Rows of a compact table: the entries that are stored at their columns, zeros at the others. */
#include "kernels.h"

enum { FLOAT32, FLOAT16, BFLOAT16, INT8, INT4, ROWS_PER_TASK = 512, AHEAD = 16 };

static inline float from_bits(uint32_t bits)
{
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* Of a finite half: its bits are those of a float whose exponent is 112 too low. */
static inline float from_half(uint16_t half)
{
    float size = from_bits((uint32_t)(half & 0x7fff) << 13) * 0x1p112f;
    uint32_t bits;
    memcpy(&bits, &size, sizeof bits);
    return from_bits(bits | (uint32_t)(half & 0x8000) << 16);
}

static inline __attribute__((always_inline)) float value_at(const void *values, int64_t i, int kind)
{
    switch (kind) {
    case FLOAT32:
        return ((const float *)values)[i];
    case FLOAT16:
        return from_half(((const uint16_t *)values)[i]);
    case BFLOAT16:
        return from_bits((uint32_t)((const uint16_t *)values)[i] << 16);
    case INT8:
        return ((const int8_t *)values)[i];
    default:
        return ((((const uint8_t *)values)[i >> 1] >> (4 * (i & 1)) & 15) ^ 8) - 8;
    }
}

static inline int bits_of(int kind)
{
    return kind == FLOAT32 ? 32 : kind == INT8 ? 8 : kind == INT4 ? 4 : 16;
}

/* Rows lie anywhere, so what a later one needs is fetched while an earlier one is written. */
static inline __attribute__((always_inline)) void take(
    const int64_t *rows, int64_t begin, int64_t end, const int64_t *offsets, const void *columns,
    int wide, const void *values, int kind, const float *scales, int64_t dim, float *out)
{
    for (int64_t i = begin; i < end; i++) {
        int64_t row = rows[i];
        if ((i - begin) % AHEAD == 0)
            memset(out + i * dim, 0, (i + AHEAD < end ? AHEAD : end - i) * dim * sizeof(float));
        if (i + 2 * AHEAD < end)
            __builtin_prefetch(offsets + rows[i + 2 * AHEAD]);
        if (i + AHEAD < end) {
            int64_t next = offsets[rows[i + AHEAD]];
            __builtin_prefetch((const char *)columns + (next << (wide != 0)));
            __builtin_prefetch((const char *)values + (next * bits_of(kind) >> 3));
        }
        float scale = scales ? scales[row] : 1.0f;
        float *mine = out + i * dim;
        int64_t last = offsets[row + 1];
        for (int64_t e = offsets[row]; e < last; e++) {
            int64_t column = wide ? ((const uint16_t *)columns)[e] : ((const uint8_t *)columns)[e];
            mine[column] = value_at(values, e, kind) * scale;
        }
    }
}

/* out = the rows, of `dim` columns each. Whether rows and columns are in range is the caller's to
 * check. `wide`: whether a column takes two bytes. */
void take_rows(
    const int64_t *rows, int64_t num_rows, const int64_t *offsets, const void *columns, int64_t wide,
    const void *values, int64_t kind, const float *scales, int64_t dim, float *out)
{
#pragma omp parallel for schedule(static) if (num_rows > ROWS_PER_TASK)
    for (int64_t begin = 0; begin < num_rows; begin += ROWS_PER_TASK) {
        int64_t end = begin + ROWS_PER_TASK < num_rows ? begin + ROWS_PER_TASK : num_rows;
        switch (kind * 2 + (wide != 0)) {
#define CASE(KIND)                                                                                 \
        case KIND * 2:                                                                             \
            take(rows, begin, end, offsets, columns, 0, values, KIND, scales, dim, out);           \
            break;                                                                                 \
        case KIND * 2 + 1:                                                                         \
            take(rows, begin, end, offsets, columns, 1, values, KIND, scales, dim, out);           \
            break;
        CASE(FLOAT32)
        CASE(FLOAT16)
        CASE(BFLOAT16)
        CASE(INT8)
        CASE(INT4)
#undef CASE
        }
    }
}
