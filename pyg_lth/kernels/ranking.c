/* The best items of every user by inner product; no score is kept but those of the best so far.
 *
 * `items` comes in panels of LANES of them, [panel][dim][LANES], longest first; `index` and `norm`
 * have an entry for each of their places. The last panel is filled up with NaN, which is never
 * ranked. Every score is summed in the order of the dimensions, whatever the tiles and threads.
 */
#include "kernels.h"

/* Tiles of users by panels stay in a core's cache, the scores in registers. */
enum { USERS_AT_ONCE = 4, USERS_PER_TILE = 96, PANELS_PER_TILE = 8 };

typedef int64_t signs __attribute__((vector_size(sizeof(lanes)), may_alias));

static inline __attribute__((always_inline)) int all_negative(const signs *values)
{
    int64_t every = -1;
    for (unsigned i = 0; i < sizeof(signs) / sizeof(int64_t); i++)
        every &= (*values)[i];
    return (every | INT64_C(0x7fffffff7fffffff)) == -1;
}

static int is_seen(const int64_t *seen, int64_t begin, int64_t end, int64_t item)
{
    int64_t place = FIRST_NOT_BELOW(seen, begin, end, item);
    return place < end && seen[place] == item;
}

/* Whether an item comes before another: by its score, and where they are equal by its index. */
static inline int precedes(float score, int64_t item, float other_score, int64_t other)
{
    return score > other_score || (score == other_score && item < other);
}

/* Take the unseen items of a panel that are good enough into the list of a user. */
static void insert(
    const lanes *score, const int64_t *index, const int64_t *seen, int64_t begin, int64_t end,
    int64_t k, float *best, int64_t *ranked)
{
    for (int lane = 0; lane < LANES; lane++) {
        float new = (*score)[lane];
        int64_t item = index[lane], place = k - 1;
        if (!precedes(new, item, best[place], ranked[place]) || is_seen(seen, begin, end, item))
            continue;
        for (; place > 0 && precedes(new, item, best[place - 1], ranked[place - 1]); place--) {
            best[place] = best[place - 1];
            ranked[place] = ranked[place - 1];
        }
        best[place] = new;
        ranked[place] = item;
    }
}

static inline __attribute__((always_inline)) void rank_group(
    const float *users, const float *user_norm, int64_t user, const float *items,
    const int64_t *index, const float *norm, int64_t first, int64_t last, int64_t dim,
    const int64_t *rowptr, const int64_t *seen, int64_t k, float *best, int64_t *ranked, int group)
{
    /* No score is above the product of the norms (Cauchy-Schwarz), and no later item is longer. */
    int hopeless = 1;
    for (int64_t i = user; i < user + group; i++)
        hopeless &= user_norm[i] * norm[first * LANES] < best[i * k + k - 1];
    if (hopeless)
        return;
    for (int64_t panel = first; panel < last; panel++) {
        lanes score[USERS_AT_ONCE] = {{0}};
        for (int64_t c = 0; c < dim; c++)
            for (int i = 0; i < group; i++)
                score[i] += users[(user + i) * dim + c]
                            * *(const lanes *)(items + (panel * dim + c) * LANES);
        /* A score below the k-th best leaves a negative difference: nearly all of them do. */
        signs below[USERS_AT_ONCE], all_below = ~(signs){0};
        for (int i = 0; i < group; i++)
            all_below &= below[i] = (signs)(score[i] - best[(user + i) * k + k - 1]);
        if (all_negative(&all_below))
            continue;
        for (int i = 0; i < group; i++)
            if (!all_negative(below + i))
                insert(score + i, index + panel * LANES, seen, rowptr[user + i],
                       rowptr[user + i + 1], k, best + (user + i) * k, ranked + (user + i) * k);
    }
}

EVERY_REGISTER_WIDTH
void rank_tile(
    const float *users, const float *user_norm, int64_t begin, int64_t end, const float *items,
    const int64_t *index, const float *norm, int64_t first, int64_t last, int64_t dim,
    const int64_t *rowptr, const int64_t *seen, int64_t k, float *best, int64_t *ranked)
{
    int64_t user = begin;
    for (; user + USERS_AT_ONCE <= end; user += USERS_AT_ONCE)
        rank_group(users, user_norm, user, items, index, norm, first, last, dim, rowptr, seen, k,
                   best, ranked, USERS_AT_ONCE);
    for (; user < end; user++)
        rank_group(users, user_norm, user, items, index, norm, first, last, dim, rowptr, seen, k,
                   best, ranked, 1);
}

/* Rank into the rows of `ranked`, whose scores are `best`; a place still free holds the lowest. */
void rank_items(
    const float *users, const float *user_norm, int64_t num_users, const float *items,
    const int64_t *index, const float *norm, int64_t panels, int64_t dim,
    const int64_t *rowptr, const int64_t *seen, int64_t k, float *best, int64_t *ranked)
{
#pragma omp parallel for schedule(dynamic)
    for (int64_t begin = 0; begin < num_users; begin += USERS_PER_TILE) {
        int64_t end = begin + USERS_PER_TILE < num_users ? begin + USERS_PER_TILE : num_users;
        for (int64_t first = 0; first < panels; first += PANELS_PER_TILE) {
            int64_t last = first + PANELS_PER_TILE < panels ? first + PANELS_PER_TILE : panels;
            rank_tile(users, user_norm, begin, end, items, index, norm, first, last, dim, rowptr,
                      seen, k, best, ranked);
        }
    }
}
