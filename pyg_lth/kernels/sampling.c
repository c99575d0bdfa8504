/* Training batches from uniform numbers; see TripletSampler, whose names these are. */
#include "kernels.h"

void draw_batch(
    const double *uniform, int64_t num_rows, int64_t size, const int64_t *users, int64_t num_users,
    const int64_t *start, const int64_t *item, const int64_t *missing_before, int64_t num_items,
    int64_t *drawn)
{
#pragma omp parallel for
    for (int64_t i = 0; i < size; i++) {
        int64_t mine = users[(int64_t)(uniform[i] * num_users)];
        int64_t first = start[mine], degree = start[mine + 1] - first;
        drawn[i] = mine;
        drawn[size + i] = item[first + (int64_t)(uniform[size + i] * degree)];
        for (int64_t place = 2 * size + i; place < num_rows * size; place += size) {
            int64_t rank = uniform[place] * (num_items - degree);
            int64_t below = FIRST_NOT_BELOW(
                missing_before, first, first + degree, mine * num_items + rank + 1);
            drawn[place] = rank + below - first;
        }
    }
}
