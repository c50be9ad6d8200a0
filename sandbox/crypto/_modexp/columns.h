/* Template: multiplication modulo n of numbers of `limbs` limbs, a multiple of BLOCK, one number a lane.
 *
 * Source: Montgomery, Math. Comp. 44 (1985); Karatsuba and Ofman, 1962.
 *
 * A number has limbs of 52 bits and is below 2 n. A product is a row of columns of 64 bits, signed, that are carried
 * only at the end. An instruction adds less than 2^52. A column of a product by rows gets 2 * MAX_LIMBS of them; one by
 * Karatsuba stays below that of 8 * 60 (two levels above 30 limbs) or 32 * 20 (three above 10), a level having at most
 * four times what the one below has; and the reduction adds 2 * MAX_LIMBS. So all stay below 2^62.
 *
 * Ten limbs of one factor stay in registers while the other factor is swept over, with a window of ten columns that
 * moves along: each limb that is loaded serves twenty instructions, so that the multiplier alone sets the pace.
 */

static const limb zeros[BLOCK];

static inline limb broadcast(uint64_t value)
{
    return (limb)_mm512_set1_epi64((long long)value);
}

static inline limb same(limb value)
{
    return value;
}

/* Add ten limbs times `count` to the columns from t[0] on; columns from t[known] on are not there yet. */
#define SWEEP(NAME, OTHER, LOAD)                                                                                       \
    __attribute__((noinline)) static void NAME(limb *t, const limb ten[BLOCK], const OTHER *other, size_t count,       \
                                               size_t known)                                                           \
    {                                                                                                                  \
        const limb *next = known ? t : zeros;                                                                          \
        limb factor[BLOCK], sum[BLOCK];                                                                                \
                                                                                                                       \
        UNROLL(BLOCK) for (size_t k = 0; k < BLOCK; k++)                                                               \
        {                                                                                                              \
            factor[k] = ten[k];                                                                                        \
            sum[k] = next[k];                                                                                          \
        }                                                                                                              \
        for (size_t j = 0; j < count; j += BLOCK) {                                                                    \
            next = j + BLOCK < known ? t + j + BLOCK : zeros;                                                          \
            UNROLL(BLOCK) for (size_t s = 0; s < BLOCK; s++)                                                           \
            {                                                                                                          \
                limb swept = LOAD(other[j + s]);                                                                       \
                                                                                                                       \
                UNROLL(BLOCK) for (size_t k = 0; k < BLOCK; k++)                                                       \
                    sum[(s + k) % BLOCK] = ADD_LOW(sum[(s + k) % BLOCK], factor[k], swept);                            \
                t[j + s] = sum[s];                                                                                     \
                sum[s] = next[s];                                                                                      \
                UNROLL(BLOCK) for (size_t k = 0; k < BLOCK; k++)                                                       \
                    sum[(s + 1 + k) % BLOCK] = ADD_HIGH(sum[(s + 1 + k) % BLOCK], factor[k], swept);                   \
            }                                                                                                          \
        }                                                                                                              \
        UNROLL(BLOCK) for (size_t k = 0; k < BLOCK; k++)                                                               \
            t[count + k] = sum[k];                                                                                     \
    }

SWEEP(sweep, limb, same)
SWEEP(sweep_modulus, uint64_t, broadcast)

/* The columns of half + half limbs of a, carried; what does not fit is returned as 0 or all ones. */
static inline limb add_halves(limb *sum, const limb *a, size_t half)
{
    limb carry = zeros[0];

    for (size_t i = 0; i < half; i++) {
        limb column = a[i] + a[half + i] + carry;

        carry = column >> LIMB_BITS;
        sum[i] = column & LIMB_MASK;
    }
    return zeros[0] - carry;
}

/* Karatsuba's middle part, in place: t is low product and high product, middle the product of the sums without what
 * did not fit them; `corrections` are added to its upper half. */
#define COMBINE(t, middle, half, correction)                                                                           \
    for (size_t i = 0; i < (half); i++) {                                                                              \
        limb low0 = (t)[i], low1 = (t)[(half) + i], high0 = (t)[2 * (half) + i], high1 = (t)[3 * (half) + i];          \
                                                                                                                       \
        (t)[(half) + i] = low1 + (middle)[i] - low0 - high0;                                                           \
        (t)[2 * (half) + i] = high0 + (middle)[(half) + i] - low1 - high1 + (correction);                              \
    }

/* t[0 .. 2 limbs) = a b. The space is of 4 limbs. */
static void multiply_columns(limb *t, const limb *a, const limb *b, size_t limbs, limb *space)
{
    if (limbs % (2 * BLOCK)) {
        for (size_t i = 0; i < limbs; i += BLOCK)
            sweep(t + i, a + i, b, limbs, i ? limbs : 0);
        return;
    }
    size_t half = limbs / 2;
    limb *of_a = space, *of_b = space + half, *middle = space + limbs;

    multiply_columns(t, a, b, half, space);
    multiply_columns(t + limbs, a + half, b + half, half, space);
    limb over_a = add_halves(of_a, a, half), over_b = add_halves(of_b, b, half);
    multiply_columns(middle, of_a, of_b, half, space + 2 * limbs);
    COMBINE(t, middle, half, (over_a & of_b[i]) + (over_b & of_a[i]))
    t[limbs + half] += over_a & over_b & 1;
}

/* Add the products of different limbs of the same ten. */
__attribute__((noinline)) static void triangle(limb *t, const limb a[BLOCK])
{
    limb sum[2 * BLOCK - 1];

    UNROLL(2 * BLOCK) for (size_t k = 0; k < 2 * BLOCK - 1; k++)
        sum[k] = t[k];
    UNROLL(BLOCK) for (size_t k = 0; k < BLOCK; k++)
    {
        UNROLL(BLOCK) for (size_t j = k + 1; j < BLOCK; j++)
        {
            sum[k + j] = ADD_LOW(sum[k + j], a[k], a[j]);
            sum[k + j + 1] = ADD_HIGH(sum[k + j + 1], a[k], a[j]);
        }
    }
    UNROLL(2 * BLOCK) for (size_t k = 0; k < 2 * BLOCK - 1; k++)
        t[k] = sum[k];
}

/* t[0 .. 2 limbs) = a a. The space is of 4 limbs. */
static void square_columns(limb *t, const limb *a, size_t limbs, limb *space)
{
    if (limbs < SQUARES_SPLIT || limbs % (2 * BLOCK)) {
        for (size_t k = 0; k < BLOCK; k++)
            t[k] = t[2 * limbs - BLOCK + k] = zeros[0];
        for (size_t i = 0; i + BLOCK < limbs; i += BLOCK)
            sweep(t + 2 * i + BLOCK, a + i, a + i + BLOCK, limbs - i - BLOCK, i ? limbs - i - BLOCK : 0);
        for (size_t i = 0; i < limbs; i += BLOCK)
            triangle(t + 2 * i, a + i);
        for (size_t i = 0; i < limbs; i++) {
            t[2 * i] = ADD_LOW(t[2 * i] + t[2 * i], a[i], a[i]);
            t[2 * i + 1] = ADD_HIGH(t[2 * i + 1] + t[2 * i + 1], a[i], a[i]);
        }
        return;
    }
    size_t half = limbs / 2;
    limb *sum = space, *middle = space + limbs;

    square_columns(t, a, half, space);
    square_columns(t + limbs, a + half, half, space);
    limb over = add_halves(sum, a, half);
    square_columns(middle, sum, half, space + 2 * limbs);
    COMBINE(t, middle, half, (over & sum[i]) << 1)
    t[limbs + half] += over & 1;
}

/* Find ten limbs of the quotient and add quotient times ten limbs of n to twenty columns, of which the first ten are
 * then multiples of 2^520 together: they are carried into the eleventh and not needed any more. The dependent steps of
 * a quotient's limb are fewer than the instructions for its row, which hide them. */
__attribute__((noinline)) static void find_quotient(limb *t, limb quotient[BLOCK], const uint64_t *n, uint64_t inverse)
{
    limb sum[2 * BLOCK];

    UNROLL(2 * BLOCK) for (size_t k = 0; k < 2 * BLOCK; k++)
        sum[k] = t[k];
    UNROLL(BLOCK) for (size_t k = 0; k < BLOCK; k++)
    {
        limb q = ADD_LOW(zeros[0], sum[k], broadcast(inverse));
        /* The low 52 bits, if not zero, become 2^52. */
        limb carry = SAR(sum[k] + LIMB_MASK, LIMB_BITS);

        quotient[k] = q;
        UNROLL(BLOCK) for (size_t j = 0; j < BLOCK; j++)
        {
            if (j)
                sum[k + j] = ADD_LOW(sum[k + j], q, broadcast(n[j]));
            sum[k + j + 1] = ADD_HIGH(sum[k + j + 1], q, broadcast(n[j]));
        }
        sum[k + 1] += carry;
    }
    UNROLL(BLOCK) for (size_t k = BLOCK; k < 2 * BLOCK; k++)
        t[k] = sum[k];
}

/* r = t / R modulo n, below 2 n if t is below 4 n^2. */
static void reduce_columns(limb *r, limb *t, const struct modulus *m)
{
    limb quotient[BLOCK], carry = zeros[0];

    for (size_t i = 0; i < m->limbs; i += BLOCK) {
        find_quotient(t + i, quotient, m->n, m->inverse);
        sweep_modulus(t + i + BLOCK, quotient, m->n + BLOCK, m->limbs - BLOCK, m->limbs);
    }
    t += m->limbs;
    for (size_t i = 0; i < m->limbs; i++) {
        limb column = t[i] + carry;

        carry = SAR(column, LIMB_BITS);
        r[i] = column & LIMB_MASK;
    }
}

/* Work space of a multiplication. */
struct columns {
    limb t[2 * MAX_LIMBS], space[4 * MAX_LIMBS];
};

/* r = a b / R; r may be a or b. */
static void multiply(limb *r, const limb *a, const limb *b, const struct modulus *m, struct columns *work)
{
    multiply_columns(work->t, a, b, m->limbs, work->space);
    reduce_columns(r, work->t, m);
}

/* r = a a / R */
static void square(limb *r, const limb *a, const struct modulus *m, struct columns *work)
{
    square_columns(work->t, a, m->limbs, work->space);
    reduce_columns(r, work->t, m);
}

/* r = a / R: out of Montgomery's form */
static void leave(limb *r, const limb *a, const struct modulus *m, struct columns *work)
{
    memcpy(work->t, a, m->limbs * sizeof(limb));
    memset(work->t + m->limbs, 0, m->limbs * sizeof(limb));
    reduce_columns(r, work->t, m);
}

/* Subtract n where that leaves something: from below 2 n to below n. */
static void subtract_modulus(limb *r, const struct modulus *m, limb *less)
{
    limb borrow = zeros[0];

    for (size_t i = 0; i < m->limbs; i++) {
        limb column = r[i] - m->n[i] + borrow;

        borrow = SAR(column, LIMB_BITS);
        less[i] = column & LIMB_MASK;
    }
    for (size_t i = 0; i < m->limbs; i++)
        r[i] = (less[i] & ~borrow) | (r[i] & borrow);
}
