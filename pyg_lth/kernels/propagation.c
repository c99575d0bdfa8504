/* Products of a sparse matrix in CSR form with a dense one, by rows of the result.
 *
 * `x` and `out` are row-major with `dim` columns; `col` has `ahead` more entries than edges, any
 * valid ones, so that a prefetch never reads past it. Every entry of a result is summed in the
 * order of the edges, whatever the number of threads.
 */
#include "kernels.h"

#include <omp.h>

/* The second level of the cache keeps more reads under way than the first: beyond the caches a
 * product takes two thirds of the time. */
enum { ROWS_AT_ONCE = 256, TO_SECOND_LEVEL = 2, CACHED_ENTRIES = 1 << 22 };

/* out[0:vectors * LANES] = sum over the edges of weight * x[col], held in registers. */
static inline __attribute__((always_inline)) void sum_edges(
    const int32_t *col, const float *weight, int64_t begin, int64_t end,
    const float *x, int64_t dim, int64_t ahead, float *out, int vectors)
{
    lanes sum[2] = {{0}, {0}};
    for (int64_t e = begin; e < end; e++) {
        const float *row = x + col[e] * dim, *later = x + col[e + ahead] * dim;
        for (int v = 0; v < vectors; v++) {
            __builtin_prefetch(later + v * LANES, 0, TO_SECOND_LEVEL);
            sum[v] += weight[e] * *(const lanes *)(row + v * LANES);
        }
    }
    for (int v = 0; v < vectors; v++)
        *(lanes *)(out + v * LANES) = sum[v];
}

static inline __attribute__((always_inline)) void sum_edges_narrow(
    const int32_t *col, const float *weight, int64_t begin, int64_t end,
    const float *x, int64_t dim, float *out, int64_t width)
{
    float sum[LANES] = {0};
    for (int64_t e = begin; e < end; e++)
        for (int64_t c = 0; c < width; c++)
            sum[c] += weight[e] * x[col[e] * dim + c];
    memcpy(out, sum, width * sizeof(float));
}

EVERY_REGISTER_WIDTH
void gather_rows(
    const int64_t *rowptr, const int32_t *col, const float *weight, const int64_t *rows,
    int64_t first, int64_t last, const float *x, int64_t dim, int64_t ahead, float *out)
{
    for (int64_t i = first; i < last; i++) {
        int64_t row = rows ? rows[i] : i, begin = rowptr[row], end = rowptr[row + 1], c = 0;
        for (; c + 2 * LANES <= dim; c += 2 * LANES)
            sum_edges(col, weight, begin, end, x + c, dim, ahead, out + i * dim + c, 2);
        for (; c + LANES <= dim; c += LANES)
            sum_edges(col, weight, begin, end, x + c, dim, ahead, out + i * dim + c, 1);
        if (c < dim)
            sum_edges_narrow(col, weight, begin, end, x + c, dim, out + i * dim + c, dim - c);
    }
}

/* out = (matrix @ x)[rows], or all of matrix @ x where rows is null. */
void gather(
    const int64_t *rowptr, const int32_t *col, const float *weight, const int64_t *rows,
    int64_t num_rows, const float *x, int64_t dim, int64_t ahead, float *out)
{
#pragma omp parallel for schedule(dynamic)
    for (int64_t first = 0; first < num_rows; first += ROWS_AT_ONCE) {
        int64_t last = first + ROWS_AT_ONCE;
        if (last > num_rows)
            last = num_rows;
        gather_rows(rowptr, col, weight, rows, first, last, x, dim, ahead, out);
    }
}

EVERY_REGISTER_WIDTH
void scatter_to(
    const int64_t *rowptr, const int32_t *col, const float *weight, const int64_t *rows,
    int64_t num_rows, int64_t first, int64_t last, const float *x, int64_t dim, int64_t ahead,
    int beyond_cache, float *out)
{
    memset(out + first * dim, 0, (last - first) * dim * sizeof(float));
    for (int64_t i = 0; i < num_rows; i++) {
        int64_t end = rowptr[rows[i] + 1];
        int64_t e = FIRST_NOT_BELOW(col, rowptr[rows[i]], end, first);
        const float *row = x + i * dim;
        for (; e < end && col[e] < last; e++) {
            float *sum = out + col[e] * dim;
            int64_t c = 0;
            for (; beyond_cache && c < dim; c += LANES)
                __builtin_prefetch(out + col[e + ahead] * dim + c, 1, TO_SECOND_LEVEL);
            for (c = 0; c + LANES <= dim; c += LANES)
                *(lanes *)(sum + c) += weight[e] * *(const lanes *)(row + c);
            for (; c < dim; c++)
                sum[c] += weight[e] * row[c];
        }
    }
}

/* out = transpose(matrix[rows]) @ x; each thread owns a run of rows of `out` with as many edges. */
void scatter(
    const int64_t *rowptr, const int32_t *col, const float *weight, const int64_t *rows,
    int64_t num_rows, int64_t num_nodes, const float *x, int64_t dim, int64_t ahead, float *out)
{
    int beyond_cache = num_nodes * dim > CACHED_ENTRIES;
#pragma omp parallel
    {
        int64_t parts = omp_get_num_threads(), part = omp_get_thread_num(), bounds[2];
        for (int side = 0; side < 2; side++) {
            int64_t edges = rowptr[num_nodes] / parts * (part + side);
            int64_t row = FIRST_NOT_BELOW(rowptr, 0, num_nodes, edges);
            bounds[side] = part + side == parts ? num_nodes : row;
        }
        scatter_to(
            rowptr, col, weight, rows, num_rows, bounds[0], bounds[1], x, dim, ahead, beyond_cache,
            out);
    }
}
