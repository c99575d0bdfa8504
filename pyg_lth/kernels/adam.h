/* Adam (Kingma and Ba, 2015) on one row of a table, the steps it has missed made up for first.
 *
 * A step without a gradient still moves a weight, because the moments decay. `done` counts the steps
 * that a row has had, and `step_size` and `root` hold learning rate / (1 - beta1^t) and
 * sqrt(1 - beta2^t) of each step. The operations of a step and their order are those of torch's fused
 * Adam.
 *
 * Steps missed from `exact` on, when `root` hardly changes any more, are made up for all at once:
 * with m and v the moments at step d, and b the square root of beta2, step k moves a weight by
 *     m size_k root_k (beta1 / b)^(k - d + 1) / (sqrt(v) + epsilon root_k b^(d - k - 1)).
 * Only the small second term of the denominator depends on k. A series about its mean, weighted by
 * the rest, with its variance as the last term, is the sum over k to the rounding of a float.
 */
#include "kernels.h"

#include <math.h>

typedef struct {
    float momentum, decay, growth, epsilon; /* 1 - beta1, beta2, 1 - beta2 */
    const float *step_size, *root;
    int64_t steps, exact;
    const float *made_up; /* [steps][MADE_UP], from the first missed step to now */
} adam;

/* Rows between the one at work and the one that is already fetched. */
enum { ROWS_AHEAD = 8 };

/* Ask for a row of three tables before its turn: most of the time of a step is waiting for memory. */
static inline void prefetch_row(
    const float *first, const float *second, const float *third, int64_t row, int64_t dim)
{
    for (int64_t at = row * dim; at < (row + 1) * dim; at += LANES) {
        __builtin_prefetch(first + at);
        __builtin_prefetch(second + at);
        __builtin_prefetch(third + at);
    }
}

/* Of the missed steps: the sum of the weights, mean and variance of the small term, and what is left
 * of the moments. */
enum { TOTAL, MEAN, VARIANCE, MEAN_LEFT, SQUARE_LEFT, MADE_UP };

static inline void sum_missed_steps(adam rule, float *made_up)
{
    double beta1 = 1 - (double)rule.momentum, left1 = 1, left2 = 1;
    double b = sqrt(rule.decay), ratio = beta1 / b, total = 0, first = 0, second = 0;
    for (int64_t k = rule.steps - 1; k >= 0; k--) {
        double small = rule.epsilon * (double)rule.root[k];
        double weight = (double)rule.step_size[k] * rule.root[k];
        total = ratio * (total + weight);
        first = ratio / b * (first + weight * small);
        second = ratio / (b * b) * (second + weight * small * small);
        left1 *= beta1;
        left2 *= rule.decay;
        double mean = first / total;
        float *mine = made_up + k * MADE_UP;
        mine[TOTAL] = total;
        mine[MEAN] = mean;
        mine[VARIANCE] = second / total - mean * mean;
        mine[MEAN_LEFT] = left1 < 1e-30 ? 0 : left1;
        mine[SQUARE_LEFT] = left2;
    }
}

static inline __attribute__((always_inline)) void take_step(
    adam rule, int64_t step, const float *gradient, float *weight, float *mean, float *square)
{
    float size = rule.step_size[step], root = rule.root[step];
    for (int c = 0; c < LANES; c++) {
        float g = gradient[c];
        mean[c] = fmaf(rule.momentum, g - mean[c], mean[c]);
        square[c] = fmaf(rule.growth * g, g, square[c] * rule.decay);
        weight[c] += -size * mean[c] / (sqrtf(square[c]) / root + rule.epsilon);
    }
}

/* Bring LANES columns of a row that has had `done` steps up to date. */
static inline __attribute__((always_inline)) void make_up(
    adam rule, int64_t done, float *weight, float *mean, float *square)
{
    const float nothing[LANES] = {0}, *sum = rule.made_up + done * MADE_UP;
    if (done < rule.exact) {
        for (; done < rule.steps; done++)
            take_step(rule, done, nothing, weight, mean, square);
        return;
    }
    if (done == rule.steps)
        return;
    float total = sum[TOTAL], middle = sum[MEAN], variance = sum[VARIANCE];
    float mean_left = sum[MEAN_LEFT], square_left = sum[SQUARE_LEFT];
    for (int c = 0; c < LANES; c++) {
        float inverse = 1 / (sqrtf(square[c]) + middle);
        weight[c] -= total * mean[c] * inverse * fmaf(variance * inverse, inverse, 1);
        mean[c] *= mean_left;
        square[c] *= square_left;
    }
}
