/* The distinct nodes of a batch, in time that does not depend on the number of nodes there are. */
#include "kernels.h"

/* Lists the distinct nodes as they appear, and the place of each node in that list. `slot` has an
 * entry for each of the `total` nodes there are, -1 before and after. The count of distinct nodes is
 * -1 where a node is none of them. */
void distinct(
    const int64_t *nodes, int64_t num_nodes, int64_t total, int32_t *slot, int64_t *listed,
    int64_t *place, int64_t *count)
{
    int64_t found = 0, i = 0;
    for (; i < num_nodes && nodes[i] >= 0 && nodes[i] < total; i++) {
        int32_t *mine = slot + nodes[i];
        if (*mine < 0) {
            *mine = found;
            listed[found++] = nodes[i];
        }
        place[i] = *mine;
    }
    *count = i == num_nodes ? found : -1;
    while (found > 0)
        slot[listed[--found]] = -1;
}

/* out[place[i]] += x[i], from zero. */
EVERY_REGISTER_WIDTH
void add_up(
    const int64_t *place, int64_t num_rows, const float *x, int64_t dim, int64_t count, float *out)
{
    memset(out, 0, count * dim * sizeof(float));
    for (int64_t i = 0; i < num_rows; i++)
        for (int64_t c = 0; c < dim; c++)
            out[place[i] * dim + c] += x[i * dim + c];
}
