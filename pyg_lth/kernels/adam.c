/* Adam (Kingma and Ba, 2015) on some rows of a table, the steps they have missed made up for first.
 *
 * A step without a gradient still moves a weight, because the moments decay. `done[row]` counts the
 * steps that a row has had, and `step_size` and `root` hold learning rate / (1 - beta1^t) and
 * sqrt(1 - beta2^t) of each. The operations and their order are those of torch's fused Adam.
 */
#include "kernels.h"

#include <math.h>

enum { ROWS_AT_ONCE = 64 };

typedef struct {
    float momentum, decay, growth, epsilon; /* 1 - beta1, beta2, 1 - beta2 */
} adam;

static inline __attribute__((always_inline)) void take_step(
    adam rule, float step_size, float root, const float *gradient,
    float *weight, float *mean, float *square)
{
    for (int c = 0; c < LANES; c++) {
        float g = gradient[c];
        mean[c] = fmaf(rule.momentum, g - mean[c], mean[c]);
        square[c] = fmaf(rule.growth * g, g, square[c] * rule.decay);
        weight[c] += -step_size * mean[c] / (sqrtf(square[c]) / root + rule.epsilon);
    }
}

/* The first `width` of up to LANES columns of one row. */
static inline __attribute__((always_inline)) void step_columns(
    adam rule, const float *step_size, const float *root, int64_t done, int64_t steps,
    float *weight, float *mean, float *square, const float *gradient, int64_t width)
{
    float w[LANES] = {0}, m[LANES] = {0}, v[LANES] = {0}, g[LANES] = {0};
    memcpy(w, weight, width * sizeof(float));
    memcpy(m, mean, width * sizeof(float));
    memcpy(v, square, width * sizeof(float));
    for (; done < steps; done++)
        take_step(rule, step_size[done], root[done], g, w, m, v);
    if (gradient) {
        memcpy(g, gradient, width * sizeof(float));
        take_step(rule, step_size[steps], root[steps], g, w, m, v);
    }
    memcpy(weight, w, width * sizeof(float));
    memcpy(mean, m, width * sizeof(float));
    memcpy(square, v, width * sizeof(float));
}

EVERY_REGISTER_WIDTH
void adam_to(
    adam rule, const float *step_size, const float *root, const int64_t *rows, int64_t first,
    int64_t last, int64_t dim, float *weight, float *mean, float *square, int32_t *done,
    int64_t steps, const float *gradient)
{
    for (int64_t i = first; i < last; i++) {
        int64_t row = rows ? rows[i] : i, c = 0;
        for (int64_t width; c < dim; c += width) {
            int64_t at = row * dim + c;
            const float *g = gradient ? gradient + i * dim + c : 0;
            width = dim - c < LANES ? dim - c : LANES;
            if (width == LANES)
                step_columns(
                    rule, step_size, root, done[row], steps, weight + at, mean + at, square + at,
                    g, LANES);
            else
                step_columns(
                    rule, step_size, root, done[row], steps, weight + at, mean + at, square + at,
                    g, width);
        }
        done[row] = steps + (gradient != 0);
    }
}

/* Bring the rows (all where `rows` is null) to `steps` steps, then take one with their gradient,
 * where there is one. No row comes twice. */
void adam_rows(
    float momentum, float decay, float growth, float epsilon, const float *step_size,
    const float *root, const int64_t *rows, int64_t num_rows, int64_t dim, float *weight,
    float *mean, float *square, int32_t *done, int64_t steps, const float *gradient)
{
    adam rule = {momentum, decay, growth, epsilon};
#pragma omp parallel for schedule(dynamic)
    for (int64_t first = 0; first < num_rows; first += ROWS_AT_ONCE) {
        int64_t last = first + ROWS_AT_ONCE;
        adam_to(
            rule, step_size, root, rows, first, last < num_rows ? last : num_rows, dim, weight,
            mean, square, done, steps, gradient);
    }
}
