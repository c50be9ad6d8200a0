/* Template: products and powers of batches. */

static size_t at_most(size_t count, size_t limit)
{
    return count < limit ? count : limit;
}

static void *new_work(size_t size)
{
    return aligned_alloc(sizeof(limb), (size + sizeof(limb) - 1) / sizeof(limb) * sizeof(limb));
}

static void end_work(void *work, size_t size)
{
    modexp_wipe(work, size);
    free(work);
}

/* Ask for memory while there is something else to do. A macro: gcc drops calls of a function that does no more. */
#define FETCH(from, size, nearness)                                                                                    \
    for (size_t at = 0; at < (size); at += sizeof(limb))                                                               \
    _mm_prefetch((const char *)(from) + at, nearness)

/* Up to eight numbers that lie one after another; the last one again where there are less. */
static void load_row(limb *out, const uint8_t *from, size_t count, const struct modulus *m)
{
    const uint8_t *places[LANES];

    for (size_t lane = 0; lane < LANES; lane++)
        places[lane] = from + m->size * at_most(lane, count - 1);
    load_numbers(out, places, m);
}

/* The same number in all lanes. */
static void set_same(limb *out, const uint64_t *number, const struct modulus *m)
{
    for (size_t i = 0; i < m->limbs; i++)
        out[i] = broadcast(number[i]);
}

struct product {
    struct columns columns;
    limb left[MAX_LIMBS], right[MAX_LIMBS], square[MAX_LIMBS];
};

int modexp_multiply(const struct modulus *m, const uint8_t *left, const uint8_t *right, size_t count, uint8_t *out)
{
    struct product *work = new_work(sizeof *work);

    if (work == NULL)
        return -1;
    set_same(work->square, m->square, m);
    for (size_t done = 0; done < count; done += LANES) {
        size_t here = at_most(count - done, LANES);

        load_row(work->left, left + m->size * done, here, m);
        load_row(work->right, right + m->size * done, here, m);
        if (count - done > LANES) {
            size_t next = m->size * at_most(count - done - LANES, LANES);

            FETCH(left + m->size * (done + LANES), next, _MM_HINT_T0);
            FETCH(right + m->size * (done + LANES), next, _MM_HINT_T0);
        }
        multiply(work->left, work->left, work->right, m, &work->columns);
        multiply(work->left, work->left, work->square, m, &work->columns);
        subtract_modulus(work->left, m, work->right);
        store_numbers(out + m->size * done, work->left, here, m);
    }
    end_work(work, sizeof *work);
    return 0;
}

/* A multiplication takes a factor R away. So a product of k elements begins with R^k, and a lane whose run has ended
 * goes on with R, which changes nothing. */
int modexp_chains(const struct modulus *m, const uint8_t *powers, const uint8_t *elements, const int64_t *order,
                  const int64_t *starts, size_t runs, uint8_t *out)
{
    struct product *work = new_work(sizeof *work);

    if (work == NULL)
        return -1;
    for (size_t done = 0; done < runs; done += LANES) {
        size_t here = at_most(runs - done, LANES), longest = 0, lengths[LANES];
        const uint8_t *places[LANES];
        const int64_t *run[LANES];

        for (size_t lane = 0; lane < LANES; lane++) {
            const int64_t *start = starts + done + at_most(lane, here - 1);

            run[lane] = order + start[0];
            lengths[lane] = (size_t)(start[1] - start[0]);
            longest = lengths[lane] > longest ? lengths[lane] : longest;
            places[lane] = powers + m->size * lengths[lane];
        }
        load_numbers(work->left, places, m);
        for (size_t step = 0; step < longest; step++) {
            for (size_t lane = 0; lane < LANES; lane++)
                places[lane] = step < lengths[lane] ? elements + m->size * (size_t)run[lane][step] : powers + m->size;
            load_numbers(work->right, places, m);
            for (size_t lane = 0; lane < LANES; lane++)
                if (step + 1 < lengths[lane])
                    FETCH(elements + m->size * (size_t)run[lane][step + 1], m->size, _MM_HINT_T0);
            multiply(work->left, work->left, work->right, m, &work->columns);
        }
        subtract_modulus(work->left, m, work->right);
        store_numbers(out + m->size * done, work->left, here, m);
    }
    end_work(work, sizeof *work);
    return 0;
}

/* `width` bits of a big-endian number, from bit `at` on. Which bytes are read depends on the place only. */
static uint64_t digit_at(const uint8_t *number, size_t size, size_t at, size_t width)
{
    uint64_t bits = 0;

    for (size_t i = 0; i < 3 && at / 8 + i < size; i++)
        bits |= (uint64_t)number[size - 1 - at / 8 - i] << (8 * i);
    return bits >> (at % 8) & ((UINT64_C(1) << width) - 1);
}

enum { POWER_WINDOW = 5, POWERS = 1 << POWER_WINDOW };

struct exponentiation {
    struct columns columns;
    limb result[MAX_LIMBS], chosen[MAX_LIMBS], powers[POWERS][MAX_LIMBS];
};

/* The power that the digit, the same for all lanes, asks for: all of them are read. */
static void choose(struct exponentiation *work, uint64_t digit, size_t limbs)
{
    for (size_t first = 0; first < limbs; first += BLOCK) {
        limb sum[BLOCK] = {{0}};

        for (uint64_t i = 0; i < POWERS; i++) {
            limb mask = broadcast(0 - opaque(((i ^ digit) - 1) >> 63));

            UNROLL(BLOCK) for (size_t k = 0; k < BLOCK; k++)
                sum[k] |= work->powers[i][first + k] & mask;
        }
        memcpy(work->chosen + first, sum, sizeof sum);
    }
}

/* Out of Montgomery's form, and out. */
static void give_out(uint8_t *out, limb *numbers, size_t count, const struct modulus *m, limb *space,
                     struct columns *columns)
{
    leave(numbers, numbers, m, columns);
    subtract_modulus(numbers, m, space);
    store_numbers(out, numbers, count, m);
}

int modexp_power(const struct modulus *m, const uint8_t *elements, size_t count, const uint8_t *exponent,
                 size_t exponent_size, uint8_t *out)
{
    struct exponentiation *work = new_work(sizeof *work);

    if (work == NULL)
        return -1;
    for (size_t done = 0; done < count; done += LANES) {
        size_t here = at_most(count - done, LANES);

        load_row(work->chosen, elements + m->size * done, here, m);
        set_same(work->powers[0], m->one, m);
        set_same(work->result, m->square, m);
        multiply(work->powers[1], work->chosen, work->result, m, &work->columns);
        for (size_t i = 2; i < POWERS; i += 2) {
            square(work->powers[i], work->powers[i / 2], m, &work->columns);
            multiply(work->powers[i + 1], work->powers[i], work->powers[1], m, &work->columns);
        }
        memcpy(work->result, work->powers[0], sizeof work->result);
        for (size_t left = (8 * exponent_size + POWER_WINDOW - 1) / POWER_WINDOW, first = left; left-- > 0;) {
            choose(work, digit_at(exponent, exponent_size, POWER_WINDOW * left, POWER_WINDOW), m->limbs);
            if (left + 1 == first) {
                memcpy(work->result, work->chosen, m->limbs * sizeof(limb));
                continue;
            }
            for (int i = 0; i < POWER_WINDOW; i++)
                square(work->result, work->result, m, &work->columns);
            multiply(work->result, work->result, work->chosen, m, &work->columns);
        }
        give_out(out + m->size * done, work->result, here, m, work->chosen, &work->columns);
    }
    end_work(work, sizeof *work);
    return 0;
}
