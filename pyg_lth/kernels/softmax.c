/* Softmax of each user's item against negatives that the batch shares, loss and gradient at once. */
#include "kernels.h"

#include <math.h>

enum { ROWS_AT_ONCE = 16 };

typedef int32_t integers __attribute__((vector_size(LANES * sizeof(int32_t)), may_alias));

/* e^x of numbers not above zero; 0 below the smallest normal number. With x = n ln 2 + r, 2^n is made
 * from its exponent and e^r is its Taylor series, which at |r| <= ln(2) / 2 ends below rounding. */
static inline __attribute__((always_inline)) void exponential(lanes *x)
{
    const float up = 12582912; /* 1.5 * 2^23: adding it rounds to a whole number */
    lanes scaled = *x * 1.44269504f + up, n = scaled - up;
    lanes r = (*x - n * 0.693359375f) + n * 2.12194440e-4f;
    lanes sum = r * (1.0f / 5040) + 1.0f / 720;
    sum = sum * r + 1.0f / 120;
    sum = sum * r + 1.0f / 24;
    sum = sum * r + 1.0f / 6;
    sum = sum * r + 0.5f;
    sum = sum * r + 1;
    sum = sum * r + 1;
    integers exponent = __builtin_convertvector(n, integers) + 127;
    lanes power = (lanes)(exponent << 23);
    integers tiny = *x < -87.0f;
    *x = (lanes)((integers)(sum * power) & ~tiny);
}

static inline __attribute__((always_inline)) float largest(
    const float *row, int64_t size, float first)
{
    lanes most = (lanes){0} + first;
    int64_t c = 0;
    for (; c + LANES <= size; c += LANES) {
        lanes value = *(const lanes *)(row + c);
        integers more = value > most;
        most = (lanes)(((integers)value & more) | ((integers)most & ~more));
    }
    for (int lane = 0; lane < LANES; lane++)
        first = most[lane] > first ? most[lane] : first;
    for (; c < size; c++)
        first = row[c] > first ? row[c] : first;
    return first;
}

EVERY_REGISTER_WIDTH
void softmax_of(
    float *row, int64_t size, float own, float *loss, float *own_slope)
{
    float most = largest(row, size, own);
    lanes sums = {0}, value;
    int64_t c = 0;
    for (; c < size; c += LANES) {
        int64_t width = size - c < LANES ? size - c : LANES;
        value = (lanes){0} - INFINITY;
        if (width == LANES)
            value = *(const lanes *)(row + c);
        else
            memcpy(&value, row + c, width * sizeof(float));
        value -= most;
        exponential(&value);
        sums += value;
        if (width == LANES)
            *(lanes *)(row + c) = value;
        else
            memcpy(row + c, &value, width * sizeof(float));
    }
    float others = 0, mine = expf(own - most);
    for (int lane = 0; lane < LANES; lane++)
        others += sums[lane];
    float factor = 1 / (others + mine);
    for (c = 0; c + LANES <= size; c += LANES)
        *(lanes *)(row + c) *= factor;
    for (; c < size; c++)
        row[c] *= factor;
    *loss = logf(others + mine) + (most - own);
    /* Not mine / (others + mine) - 1, which loses all digits where that is nearly one. */
    *own_slope = -others * factor;
}

/* The scores of each user against the negatives become the derivatives of the user's loss by them, and
 * `own_slope` is that by the score of the user's own item. */
void softmax_rows(
    float *scores, int64_t num_rows, int64_t size, const float *own, float *loss,
    float *own_slope)
{
#pragma omp parallel for schedule(static, ROWS_AT_ONCE)
    for (int64_t i = 0; i < num_rows; i++)
        softmax_of(scores + i * size, size, own[i], loss + i, own_slope + i);
}
