/* The distinct nodes of a batch, in time that does not depend on the number of nodes there are, and
 * without memory that outlives the call: several threads may ask at once. */
#include "kernels.h"

/* Lists the distinct nodes as they appear, and the place of each node in that list. `slot` is a hash
 * table of places, a power of two of them, more than there are nodes, all -1. The count of distinct
 * nodes is -1 where a node is not below `total`. */
void distinct(
    const int64_t *nodes, int64_t num_nodes, int64_t total, int32_t *slot, int64_t num_slots,
    int64_t *listed, int64_t *place, int64_t *count)
{
    int64_t found = 0, i = 0;
    int shift = 64 - __builtin_ctzll(num_slots);
    for (; i < num_nodes && nodes[i] >= 0 && nodes[i] < total; i++) {
        /* Multiplied by 2^64 over the golden ratio, neighbours spread over the table. */
        int64_t at = (uint64_t)nodes[i] * UINT64_C(0x9e3779b97f4a7c15) >> shift;
        while (slot[at] >= 0 && listed[slot[at]] != nodes[i])
            at = (at + 1) & (num_slots - 1);
        if (slot[at] < 0) {
            listed[found] = nodes[i];
            slot[at] = found++;
        }
        place[i] = slot[at];
    }
    *count = i == num_nodes ? found : -1;
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
