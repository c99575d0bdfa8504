/* A loss of each user's item against negatives that the whole batch shares, with its gradients.
 *
 * Scores are cosines times `scale`. Users are taken in blocks, negatives in panels of LANES; what the
 * scores of a block become, panel by panel, are the derivatives of its losses by them. All three
 * products (scores, and of their derivatives the gradients of users and of negatives) are made of
 * tiles that stay in registers. Every sum has one order, whatever the number of threads.
 */
#include "kernels.h"

#include <math.h>

/* Users in a block, those whose scores are kept at once, and rows of a tile. */
enum { USERS = 48, SPAN = 43 * USERS, ROWS = 8 };

#define INLINE static inline __attribute__((always_inline))

typedef int32_t integers __attribute__((vector_size(LANES * sizeof(int32_t)), may_alias));
typedef double doubles __attribute__((vector_size(LANES * sizeof(double))));

/* Embeddings of a batch, and room to lay them out at length one, users' multiplied by `scale`. */
typedef struct {
    int64_t size, negatives, panels;
    float scale;
    const float *user, *positive, *shared;
    int64_t dim, width; /* `width`: `dim` up to the next whole register */
    float *unit;        /* users, [size][dim] */
    float *across;      /* negatives, [panels][dim][LANES] */
    float *rows;        /* the same, [panels][LANES][width] */
    float *scores;      /* of a span, [blocks][panels][USERS][LANES] */
} batch;

/* What is known of the users of a block one by one. */
typedef struct {
    float own[USERS], loss[USERS], slope[USERS];
} items;

/* Add a product to `rows` rows of LANES columns: entry k of row r of one factor lies at
 * a[r * a_row + k * a_step], row k of the other at b + k * b_step. */
INLINE void tile(
    const int rows, int64_t depth, const float *a, int64_t a_row, int64_t a_step, const float *b,
    int64_t b_step, float *c, int64_t c_row, const int fresh)
{
    lanes sum[ROWS];
    for (int r = 0; r < rows; r++)
        sum[r] = fresh ? (lanes){0} : *(const lanes *)(c + r * c_row);
    for (int64_t k = 0; k < depth; k++) {
        lanes other = *(const lanes *)(b + k * b_step);
        for (int r = 0; r < rows; r++)
            sum[r] += a[r * a_row + k * a_step] * other;
    }
    for (int r = 0; r < rows; r++)
        *(lanes *)(c + r * c_row) = sum[r];
}

INLINE void product(
    int64_t rows, int64_t depth, const float *a, int64_t a_row, int64_t a_step, const float *b,
    int64_t b_step, float *c, int64_t c_row, const int fresh)
{
    int64_t r = 0;
    for (; r + ROWS <= rows; r += ROWS)
        tile(ROWS, depth, a + r * a_row, a_row, a_step, b, b_step, c + r * c_row, c_row, fresh);
    for (; r < rows; r++)
        tile(1, depth, a + r * a_row, a_row, a_step, b, b_step, c + r * c_row, c_row, fresh);
}

/* Scores of the users from `first` on. */
INLINE float *block_of(batch given, int64_t first)
{
    return given.scores + first % SPAN * given.panels * LANES;
}

/* The product of x with y, which is divided by `length` first. */
INLINE float dot(const float *x, const float *y, float length, int64_t dim)
{
    lanes sums = {0};
    int64_t c = 0;
    float sum = 0;
    for (; c + LANES <= dim; c += LANES)
        sums += *(const lanes *)(x + c) * (*(const lanes *)(y + c) / length);
    for (; c < dim; c++)
        sum += x[c] * (y[c] / length);
    for (int lane = 0; lane < LANES; lane++)
        sum += sums[lane];
    return sum;
}

/* In double, so that a row of one entry comes to exactly one and gets a gradient of exactly zero. */
INLINE float length_of(const float *row, int64_t dim)
{
    doubles squares = {0};
    int64_t c = 0;
    double sum = 0;
    for (; c + LANES <= dim; c += LANES) {
        doubles value = __builtin_convertvector(*(const lanes *)(row + c), doubles);
        squares += value * value;
    }
    for (; c < dim; c++)
        sum += (double)row[c] * row[c];
    for (int lane = 0; lane < LANES; lane++)
        sum += squares[lane];
    return sum > 0 ? sqrt(sum) : 1;
}

/* The gradient by a row from that by the row at length one, which it overwrites. */
INLINE void through_length(float *gradient, const float *row, float length, int64_t dim)
{
    float along = dot(gradient, row, length, dim);
    for (int64_t c = 0; c < dim; c++)
        gradient[c] = (gradient[c] - row[c] / length * along) / length;
}

/* e^x of numbers not above zero; 0 below the smallest normal number. With x = n ln 2 + r, 2^n is made
 * from its exponent and e^r is its Taylor series, which at |r| <= ln(2) / 2 ends below rounding. */
INLINE void exponential(lanes *x)
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

/* The scores of one user against a panel, none where the last has no negatives any more. */
INLINE void against(const float *scores, int64_t left, lanes *value)
{
    *value = *(const lanes *)scores;
    for (int64_t lane = left; lane < LANES; lane++)
        (*value)[lane] = -INFINITY;
}

EVERY_REGISTER_WIDTH
void lay_out_panel(batch given, int64_t panel)
{
    int64_t dim = given.dim, width = given.width, first = panel * LANES;
    float *across = given.across + first * dim, *rows = given.rows + first * width;
    memset(across, 0, LANES * dim * sizeof(float));
    memset(rows, 0, LANES * width * sizeof(float));
    for (int64_t j = 0; j < LANES && first + j < given.negatives; j++) {
        const float *row = given.shared + (first + j) * dim;
        float length = length_of(row, dim);
        for (int64_t c = 0; c < dim; c++)
            across[c * LANES + j] = rows[j * width + c] = row[c] / length;
    }
}

/* The scores of up to USERS users from `first` on: `own` against their item, the others as laid out. */
EVERY_REGISTER_WIDTH
void score_block(batch given, int64_t first, int64_t users, float *own)
{
    int64_t dim = given.dim;
    float *unit = given.unit + first * dim;
    for (int64_t u = 0; u < users; u++) {
        const float *user = given.user + (first + u) * dim;
        const float *positive = given.positive + (first + u) * dim;
        float length = length_of(user, dim);
        for (int64_t c = 0; c < dim; c++)
            unit[u * dim + c] = user[c] / length * given.scale;
        own[u] = dot(unit + u * dim, positive, length_of(positive, dim), dim);
    }
    float *scores = block_of(given, first);
    for (int64_t p = 0; p < given.panels; p++)
        product(
            users, dim, unit, dim, 1, given.across + p * dim * LANES, LANES,
            scores + p * USERS * LANES, LANES, 1);
}

/* Scores become probabilities, and `slope` that of the item less one. */
EVERY_REGISTER_WIDTH
void softmax_block(float *scores, int64_t negatives, int64_t users, items *of)
{
    lanes most[USERS], sums[USERS];
    float factor[USERS];
    for (int64_t u = 0; u < users; u++) {
        most[u] = (lanes){0} + of->own[u];
        sums[u] = (lanes){0};
    }
    float *panel = scores;
    for (int64_t left = negatives; left > 0; left -= LANES, panel += USERS * LANES)
        for (int64_t u = 0; u < users; u++) {
            lanes value;
            against(panel + u * LANES, left, &value);
            integers more = value > most[u];
            most[u] = (lanes)(((integers)value & more) | ((integers)most[u] & ~more));
        }
    for (int64_t u = 0; u < users; u++) {
        float highest = most[u][0];
        for (int lane = 1; lane < LANES; lane++)
            highest = most[u][lane] > highest ? most[u][lane] : highest;
        most[u] = (lanes){0} + highest;
    }
    panel = scores;
    for (int64_t left = negatives; left > 0; left -= LANES, panel += USERS * LANES)
        for (int64_t u = 0; u < users; u++) {
            lanes value;
            against(panel + u * LANES, left, &value);
            value -= most[u];
            exponential(&value);
            *(lanes *)(panel + u * LANES) = value;
            sums[u] += value;
        }
    for (int64_t u = 0; u < users; u++) {
        float others = 0, mine = expf(of->own[u] - most[u][0]);
        for (int lane = 0; lane < LANES; lane++)
            others += sums[u][lane];
        factor[u] = 1 / (others + mine);
        of->loss[u] = logf(others + mine) + (most[u][0] - of->own[u]);
        /* Not mine / (others + mine) - 1, which loses all digits where that is nearly one. */
        of->slope[u] = -others * factor[u];
    }
    panel = scores;
    for (int64_t left = negatives; left > 0; left -= LANES, panel += USERS * LANES)
        for (int64_t u = 0; u < users; u++)
            *(lanes *)(panel + u * LANES) *= factor[u];
}

/* As softmax_block, of whose targets a teacher has a share: its probabilities. */
EVERY_REGISTER_WIDTH
void distil_block(
    batch given, batch taught, int64_t first, int64_t users, float share, items *of)
{
    float *scores = block_of(given, first), *target = block_of(taught, first), expected[USERS];
    items by;
    score_block(taught, first, users, by.own);
    softmax_block(target, given.negatives, users, &by);
    for (int64_t u = 0; u < users; u++) {
        lanes sums = {0};
        for (int64_t at = u * LANES; at < given.panels * USERS * LANES; at += USERS * LANES)
            sums += *(const lanes *)(scores + at) * *(const lanes *)(target + at);
        /* The slope of a teacher is its probability of the item less one. */
        expected[u] = (1 + by.slope[u]) * of->own[u];
        for (int lane = 0; lane < LANES; lane++)
            expected[u] += sums[lane];
    }
    softmax_block(scores, given.negatives, users, of);
    for (int64_t p = 0; p < given.panels; p++)
        for (int64_t at = p * USERS * LANES; at < (p * USERS + users) * LANES; at += LANES)
            *(lanes *)(scores + at) -= share * *(const lanes *)(target + at);
    for (int64_t u = 0; u < users; u++) {
        of->loss[u] += share * (of->own[u] - expected[u]);
        of->slope[u] -= share * by.slope[u];
    }
}

EVERY_REGISTER_WIDTH
void ccl_block(
    float *scores, int64_t negatives, int64_t users, float margin, float weight, items *of)
{
    float share = weight / negatives;
    for (int64_t u = 0; u < users; u++) {
        float *at = scores + u * LANES, sum = 0;
        for (int64_t left = negatives; left > 0; left -= LANES, at += USERS * LANES) {
            lanes above;
            against(at, left, &above);
            above -= margin;
            integers counts = ~(above <= 0);
            above = (lanes)((integers)above & counts);
            for (int lane = 0; lane < LANES; lane++)
                sum += above[lane];
            *(lanes *)at = (lanes)((integers)((lanes){0} + share) & counts);
        }
        of->loss[u] = 1 - of->own[u] + share * sum;
        of->slope[u] = -1;
    }
}

/* The gradients of users and of their items from the derivatives of the sum of losses. */
EVERY_REGISTER_WIDTH
void descend_block(
    batch given, int64_t first, int64_t users, const float *slope, float *of_user,
    float *of_positive)
{
    int64_t dim = given.dim, width = given.width;
    const float *scores = block_of(given, first);
    of_user += first * width;
    memset(of_user, 0, users * width * sizeof(float));
    for (int64_t p = 0; p < given.panels; p++)
        for (int64_t c = 0; c < width; c += LANES)
            product(
                users, LANES, scores + p * USERS * LANES, LANES, 1,
                given.rows + p * LANES * width + c, width, of_user + c, width, 0);
    for (int64_t u = 0; u < users; u++) {
        int64_t at = (first + u) * dim;
        const float *user = given.user + at, *positive = given.positive + at;
        float length = length_of(positive, dim);
        for (int64_t c = 0; c < dim; c++) {
            float *own = of_user + u * width + c;
            *own = (*own + positive[c] / length * slope[u]) * given.scale;
            of_positive[at + c] = given.unit[at + c] * slope[u];
        }
        through_length(of_user + u * width, user, length_of(user, dim), dim);
        through_length(of_positive + at, positive, length, dim);
    }
}

/* What users from `begin` to `end` add to the gradients of a panel of negatives. */
EVERY_REGISTER_WIDTH
void descend_panel(
    batch given, int64_t panel, int64_t begin, int64_t end, float *sums, float *of_shared)
{
    int64_t dim = given.dim;
    sums += panel * dim * LANES;
    for (int64_t first = begin; first < end; first += USERS) {
        int64_t users = end - first < USERS ? end - first : USERS;
        product(
            dim, users, given.unit + first * dim, 1, dim,
            block_of(given, first) + panel * USERS * LANES, LANES, sums, LANES, first == 0);
    }
    if (end < given.size)
        return;
    for (int64_t j = panel * LANES; j < given.negatives && j < (panel + 1) * LANES; j++) {
        const float *row = given.shared + j * dim;
        for (int64_t c = 0; c < dim; c++)
            of_shared[j * dim + c] = sums[c * LANES + j % LANES];
        through_length(of_shared + j * dim, row, length_of(row, dim), dim);
    }
}

/* The loss of each user, and the gradients of their sum. A softmax where `contrastive` is 0, of whose
 * targets a teacher has a `share` if there is one; then the cosine contrastive loss. */
void shared_negatives(
    int64_t size, int64_t negatives, float scale, const float *user, const float *positive,
    const float *shared, int64_t dim, float *unit, float *across, float *rows, float *scores,
    const float *taught_user, const float *taught_positive, const float *taught_shared,
    int64_t taught_dim, float *taught_unit, float *taught_across, float *taught_rows,
    float *taught_scores, float share, int64_t contrastive, float margin, float weight,
    float *loss, float *of_user, float *of_positive, float *sums, float *of_shared)
{
    int64_t panels = (negatives + LANES - 1) / LANES;
    batch given = {size, negatives, panels, scale, user, positive, shared, dim,
                   (dim + LANES - 1) / LANES * LANES, unit, across, rows, scores};
    batch taught = {size, negatives, panels, scale, taught_user, taught_positive, taught_shared,
                    taught_dim, (taught_dim + LANES - 1) / LANES * LANES, taught_unit,
                    taught_across, taught_rows, taught_scores};
#pragma omp parallel
    {
#pragma omp for
        for (int64_t p = 0; p < panels; p++) {
            lay_out_panel(given, p);
            if (taught_user)
                lay_out_panel(taught, p);
        }
        for (int64_t begin = 0; begin < size; begin += SPAN) {
            int64_t end = size - begin < SPAN ? size : begin + SPAN;
#pragma omp for schedule(dynamic)
            for (int64_t first = begin; first < end; first += USERS) {
                int64_t users = end - first < USERS ? end - first : USERS;
                items of;
                score_block(given, first, users, of.own);
                if (contrastive)
                    ccl_block(block_of(given, first), negatives, users, margin, weight, &of);
                else if (taught_user)
                    distil_block(given, taught, first, users, share, &of);
                else
                    softmax_block(block_of(given, first), negatives, users, &of);
                memcpy(loss + first, of.loss, users * sizeof(float));
                descend_block(given, first, users, of.slope, of_user, of_positive);
            }
#pragma omp for
            for (int64_t p = 0; p < panels; p++)
                descend_panel(given, p, begin, end, sums, of_shared);
        }
    }
}
