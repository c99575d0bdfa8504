/* Adam on some rows of a table, see adam.h. */
#include "adam.h"

enum { ROWS_AT_ONCE = 64 };

/* The first `width` of up to LANES columns of one row. */
static inline __attribute__((always_inline)) void step_columns(
    adam rule, int64_t done, float *weight, float *mean, float *square, const float *gradient,
    int64_t width)
{
    float w[LANES] = {0}, m[LANES] = {0}, v[LANES] = {0}, g[LANES] = {0};
    memcpy(w, weight, width * sizeof(float));
    memcpy(m, mean, width * sizeof(float));
    memcpy(v, square, width * sizeof(float));
    make_up(rule, done, w, m, v);
    if (gradient) {
        memcpy(g, gradient, width * sizeof(float));
        take_step(rule, rule.steps, g, w, m, v);
    }
    memcpy(weight, w, width * sizeof(float));
    memcpy(mean, m, width * sizeof(float));
    memcpy(square, v, width * sizeof(float));
}

EVERY_REGISTER_WIDTH
void adam_to(
    adam rule, const int64_t *rows, int64_t first, int64_t last, int64_t dim, float *weight,
    float *mean, float *square, int32_t *done, const float *gradient)
{
    for (int64_t i = first; i < last; i++) {
        int64_t row = rows ? rows[i] : i, c = 0;
        if (rows && i + ROWS_AHEAD < last)
            prefetch_row(weight, mean, square, rows[i + ROWS_AHEAD], dim);
        for (int64_t width; c < dim; c += width) {
            int64_t at = row * dim + c;
            const float *g = gradient ? gradient + i * dim + c : 0;
            width = dim - c < LANES ? dim - c : LANES;
            if (width == LANES)
                step_columns(rule, done[row], weight + at, mean + at, square + at, g, LANES);
            else
                step_columns(rule, done[row], weight + at, mean + at, square + at, g, width);
        }
        done[row] = rule.steps + (gradient != 0);
    }
}

/* Bring the rows (all where `rows` is null) to `steps` steps, then take one with their gradient,
 * where there is one. No row comes twice. */
void adam_rows(
    float momentum, float decay, float growth, float epsilon, const float *step_size,
    const float *root, int64_t exact, const int64_t *rows, int64_t num_rows, int64_t dim,
    float *weight, float *mean, float *square, int32_t *done, int64_t steps, const float *gradient,
    float *made_up)
{
    adam rule = {momentum, decay, growth, epsilon, step_size, root, steps, exact, made_up};
    sum_missed_steps(rule, made_up);
#pragma omp parallel for schedule(dynamic)
    for (int64_t first = 0; first < num_rows; first += ROWS_AT_ONCE) {
        int64_t last = first + ROWS_AT_ONCE;
        adam_to(
            rule, rows, first, last < num_rows ? last : num_rows, dim, weight, mean, square, done,
            gradient);
    }
}
