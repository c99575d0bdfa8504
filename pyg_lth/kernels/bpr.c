/* A whole step of matrix factorisation with Bayesian personalised ranking: the batch's rows brought
 * up to date, scores, loss, gradient, Adam.
 *
 * A batch has `parts` rows of `size` places: users, a positive item of each, then negatives. `place`
 * says which of the batch's distinct rows stands there. The rows are read where they are, brought up
 * to date into `ego`, and not written before their gradients are known. Every sum is over the places
 * in ascending order, whatever the number of threads.
 */
#include "adam.h"

enum { ROWS_AT_ONCE = 64, TRIPLETS_AT_ONCE = 128 };

/* The places of each row, one row after the other: row i has those from start[i] to start[i + 1]. */
static void sort_places(
    const int64_t *place, int64_t num_places, int64_t num_rows, int32_t *start, int32_t *sorted)
{
    memset(start, 0, (num_rows + 1) * sizeof(int32_t));
    for (int64_t p = 0; p < num_places; p++)
        start[place[p] + 1]++;
    for (int64_t i = 0; i < num_rows; i++)
        start[i + 1] += start[i];
    /* Each start moves to its end, which is the start of the next. */
    for (int64_t p = 0; p < num_places; p++)
        sorted[start[place[p]]++] = p;
    for (int64_t i = num_rows; i > 0; i--)
        start[i] = start[i - 1];
    start[0] = 0;
}

static inline __attribute__((always_inline)) void fetch_columns(
    adam rule, int64_t done, const float *weight, const float *mean, const float *square,
    float *ego, int64_t width)
{
    float w[LANES] = {0}, m[LANES] = {0}, v[LANES] = {0};
    memcpy(w, weight, width * sizeof(float));
    memcpy(m, mean, width * sizeof(float));
    memcpy(v, square, width * sizeof(float));
    make_up(rule, done, w, m, v);
    memcpy(ego, w, width * sizeof(float));
}

EVERY_REGISTER_WIDTH
void fetch(
    adam rule, const int64_t *rows, int64_t first, int64_t last, int64_t dim, const float *weight,
    const float *mean, const float *square, const int32_t *done, float *ego)
{
    for (int64_t i = first; i < last; i++) {
        if (i + ROWS_AHEAD < last)
            prefetch_row(weight, mean, square, rows[i + ROWS_AHEAD], dim);
        for (int64_t c = 0, at = rows[i] * dim; c < dim; c += LANES, at += LANES) {
            float *out = ego + i * dim + c;
            if (dim - c >= LANES)
                fetch_columns(
                    rule, done[rows[i]], weight + at, mean + at, square + at, out, LANES);
            else
                fetch_columns(
                    rule, done[rows[i]], weight + at, mean + at, square + at, out, dim - c);
        }
    }
}

static inline __attribute__((always_inline)) float dot(
    const float *x, const float *y, int64_t dim)
{
    lanes sums = {0};
    int64_t c = 0;
    for (; c + LANES <= dim; c += LANES)
        sums += *(const lanes *)(x + c) * *(const lanes *)(y + c);
    float rest[LANES] = {0};
    for (; c < dim; c++)
        rest[c % LANES] = x[c] * y[c];
    sums += *(const lanes *)rest;
    float sum = 0;
    for (int lane = 0; lane < LANES; lane++)
        sum += sums[lane];
    return sum;
}

/* Per negative of a positive: its loss, and the derivative of the mean loss by its score. */
EVERY_REGISTER_WIDTH
void score(
    const int64_t *place, int32_t parts, int32_t size, int32_t first, int32_t last,
    const float *ego, int64_t dim, float *loss, float *slope)
{
    float share = 1.0f / ((parts - 2) * (float)size);
    for (int32_t t = first; t < last; t++) {
        const float *user = ego + place[t] * dim;
        float positive = dot(user, ego + place[size + t] * dim, dim);
        for (int64_t n = t; n < (parts - 2) * (int64_t)size; n += size) {
            float x = dot(user, ego + place[2 * size + n] * dim, dim) - positive;
            float small = expf(-fabsf(x));
            loss[n] = fmaxf(x, 0) + log1pf(small);
            slope[n] = (x < 0 ? small : 1) / (1 + small) * share;
        }
    }
}

typedef struct {
    const int64_t *place;
    int32_t parts, size;
    const float *ego, *slope;
    int64_t dim;
    float decay;
} batch;

/* How much L2 a place asks for: negatives are averaged. */
static inline float decay_at(batch given, int32_t at)
{
    return at < 2 * given.size ? given.decay : given.decay / (given.parts - 2);
}

/* The gradient of the scores by up to LANES columns from `c` on of a row that stands at `places`. */
static inline __attribute__((always_inline)) void gradient_of(
    batch given, const int32_t *places, int32_t num_places, int64_t c, int64_t width, lanes *out)
{
    lanes sum = {0};
    for (int32_t i = 0; i < num_places; i++) {
        int32_t part = places[i] / given.size, t = places[i] % given.size;
        int32_t first = part < 2 ? 2 : part, last = part < 2 ? given.parts : part + 1;
        lanes positive = {0}, other = {0};
        if (part == 0)
            memcpy(&positive, given.ego + given.place[given.size + t] * given.dim + c,
                   width * sizeof(float));
        for (int32_t negative = first; negative < last; negative++) {
            int64_t at = part == 0 ? negative * (int64_t)given.size + t : t;
            float slope = given.slope[(negative - 2) * (int64_t)given.size + t];
            memcpy(&other, given.ego + given.place[at] * given.dim + c, width * sizeof(float));
            if (part == 1)
                slope = -slope;
            sum += slope * (other - positive);
        }
    }
    *out = sum;
}

static inline __attribute__((always_inline)) void change_columns(
    adam rule, int64_t done, batch given, const int32_t *places, int32_t num_places, float decay,
    const float *ego, int64_t c, float *weight, float *mean, float *square, const float *living,
    int64_t width)
{
    float w[LANES] = {0}, m[LANES] = {0}, v[LANES] = {0}, g[LANES] = {0}, alive[LANES] = {0};
    lanes sum;
    gradient_of(given, places, num_places, c, width, &sum);
    memcpy(m, mean, width * sizeof(float));
    memcpy(v, square, width * sizeof(float));
    make_up(rule, done, w, m, v);
    memcpy(w, ego, width * sizeof(float));
    memcpy(alive, living, width * sizeof(float));
    for (int lane = 0; lane < LANES; lane++)
        g[lane] = (sum[lane] + decay * w[lane]) * alive[lane];
    take_step(rule, rule.steps, g, w, m, v);
    memcpy(weight, w, width * sizeof(float));
    memcpy(mean, m, width * sizeof(float));
    memcpy(square, v, width * sizeof(float));
}

EVERY_REGISTER_WIDTH
void change(
    adam rule, batch given, const int64_t *rows, const int32_t *start, const int32_t *sorted,
    int64_t first, int64_t last, float *weight, float *mean, float *square, int32_t *done,
    const float *living, double *penalty)
{
    int64_t dim = given.dim;
    for (int64_t i = first; i < last; i++) {
        int64_t row = rows[i];
        if (i + ROWS_AHEAD < last)
            prefetch_row(mean, square, living, rows[i + ROWS_AHEAD], dim);
        const int32_t *places = sorted + start[i];
        int32_t num_places = start[i + 1] - start[i];
        const float *ego = given.ego + i * dim;
        float decay = 0;
        for (int32_t place = 0; place < num_places; place++)
            decay += decay_at(given, places[place]);
        penalty[i] = decay / 2 * (double)dot(ego, ego, dim);
        for (int64_t c = 0, at = row * dim; c < dim; c += LANES, at += LANES)
            if (dim - c >= LANES)
                change_columns(
                    rule, done[row], given, places, num_places, decay, ego + c, c, weight + at,
                    mean + at, square + at, living + at, LANES);
            else
                change_columns(
                    rule, done[row], given, places, num_places, decay, ego + c, c, weight + at,
                    mean + at, square + at, living + at, dim - c);
        done[row] = rule.steps + 1;
    }
}

/* Take the step of `rows`, the distinct ones of the batch; `total` is the loss before it, the mean
 * over the scores and `reg` times the L2 term. The rest is room to work in. */
void bpr_step(
    float momentum, float decay, float growth, float epsilon, const float *step_size,
    const float *root, int64_t exact, int64_t steps, const int64_t *place, int64_t parts,
    int64_t size, const int64_t *rows, int64_t num_rows, float reg, int64_t dim, float *weight,
    float *mean, float *square, int32_t *done, const float *living, double *total,
    float *made_up, float *ego, float *loss, float *slope, double *penalty, int32_t *start,
    int32_t *sorted)
{
    adam rule = {momentum, decay, growth, epsilon, step_size, root, steps, exact, made_up};
    batch given = {place, parts, size, ego, slope, dim, reg / size};
    sum_missed_steps(rule, made_up);
#pragma omp parallel
    {
#pragma omp single nowait
        sort_places(place, parts * size, num_rows, start, sorted);
#pragma omp for schedule(dynamic)
        for (int64_t first = 0; first < num_rows; first += ROWS_AT_ONCE) {
            int64_t last = first + ROWS_AT_ONCE < num_rows ? first + ROWS_AT_ONCE : num_rows;
            fetch(rule, rows, first, last, dim, weight, mean, square, done, ego);
        }
#pragma omp for schedule(dynamic)
        for (int64_t first = 0; first < size; first += TRIPLETS_AT_ONCE) {
            int64_t last = first + TRIPLETS_AT_ONCE < size ? first + TRIPLETS_AT_ONCE : size;
            score(place, parts, size, first, last, ego, dim, loss, slope);
        }
#pragma omp for schedule(dynamic)
        for (int64_t first = 0; first < num_rows; first += ROWS_AT_ONCE) {
            int64_t last = first + ROWS_AT_ONCE < num_rows ? first + ROWS_AT_ONCE : num_rows;
            change(rule, given, rows, start, sorted, first, last, weight, mean, square, done,
                   living, penalty);
        }
    }
    double scores = 0, penalties = 0;
    for (int64_t n = 0; n < (parts - 2) * size; n++)
        scores += loss[n];
    for (int64_t i = 0; i < num_rows; i++)
        penalties += penalty[i];
    *total = scores / ((parts - 2) * size) + penalties;
}
