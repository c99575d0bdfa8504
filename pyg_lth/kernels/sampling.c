/* Training triplets from uniform numbers; see TripletSampler, whose names these are. */
#include "kernels.h"

void draw(
    const double *uniform, int64_t size, const int64_t *users, int64_t num_users,
    const int64_t *start, const int64_t *item, const int64_t *missing_before, int64_t num_items,
    int64_t *user, int64_t *positive, int64_t *negative)
{
#pragma omp parallel for
    for (int64_t i = 0; i < size; i++) {
        int64_t mine = users[(int64_t)(uniform[i] * num_users)];
        int64_t first = start[mine], degree = start[mine + 1] - first;
        int64_t rank = uniform[2 * size + i] * (num_items - degree);
        int64_t below = FIRST_NOT_BELOW(
            missing_before, first, first + degree, mine * num_items + rank + 1);
        user[i] = mine;
        positive[i] = item[first + (int64_t)(uniform[size + i] * degree)];
        negative[i] = rank + below - first;
    }
}
