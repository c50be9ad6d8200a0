/* Template: arithmetic modulo p on WIDTH = LANES * UNITS elements at once.
 *
 * The including file defines LANES, UNITS, `limb` (LANES unsigned 64-bit numbers), SAR (shift right, keeping the sign),
 * PRODUCTS_ARE_LOOSE, and multiply_unit and square_unit, which return a b / 2^260 modulo p.
 *
 * Bounds. "Tight": limbs in [0, 2^52) and the value below 1.1 p. Operands of products are tight. A product is below
 *   (1.1 p)^2 / 2^260 + p < 1.1 p; it may be "loose", which means that its limbs are not carried yet: signed, below
 *   2^57. Sums and differences are written limb by limb with COMBINE, which then adds 16 p, folds what is above 2^256
 *   and carries: the result is tight if the sum was above -16 p and below 2^8 p and its limbs below 2^62.
 * Constant time: no branch and no address depends on an element.
 */

enum { WIDTH = LANES * UNITS, LIMBS = 5 };

typedef struct {
    limb v[LIMBS * UNITS];
} element;

typedef struct {
    limb v[UNITS]; /* all ones or zero in each lane */
} mask;

static inline limb broadcast(uint64_t value)
{
    return (limb){0} + value;
}

static inline void carry_unit(limb r[LIMBS])
{
#pragma GCC unroll 4
    for (int i = 0; i < LIMBS - 1; i++) {
        r[i + 1] += SAR(r[i], LIMB_BITS);
        r[i] &= LIMB_MASK;
    }
}

static inline void reduce_unit(limb r[LIMBS])
{
#pragma GCC unroll 5
    for (int i = 0; i < LIMBS; i++)
        r[i] += 16 * sm2_prime[i];
    limb high = SAR(r[4], TOP_BITS); /* 2^256 = 2^224 + 2^96 - 2^64 + 1 modulo p */
    r[4] = (r[4] & ((UINT64_C(1) << TOP_BITS) - 1)) + (high << 16);
    r[1] += (high << 44) - (high << 12);
    r[0] += high;
    carry_unit(r);
}

/* Set `out` to the expression, in which i stands for the limb, and make it tight. */
#define COMBINE(out, expression)                                                                                       \
    do {                                                                                                               \
        element combined;                                                                                              \
        _Pragma("GCC unroll 10") for (int i = 0; i < LIMBS * UNITS; i++)                                                                        \
            combined.v[i] = (expression);                                                                              \
        _Pragma("GCC unroll 2") for (int unit = 0; unit < UNITS; unit++)                                               \
            reduce_unit(combined.v + LIMBS * unit);                                                                    \
        *(out) = combined;                                                                                             \
    } while (0)

static inline void multiply_loose(element *out, const element *a, const element *b)
{
#pragma GCC unroll 2
    for (int unit = 0; unit < UNITS; unit++)
        multiply_unit(out->v + LIMBS * unit, a->v + LIMBS * unit, b->v + LIMBS * unit);
}

static inline void square_loose(element *out, const element *a)
{
#pragma GCC unroll 2
    for (int unit = 0; unit < UNITS; unit++)
        square_unit(out->v + LIMBS * unit, a->v + LIMBS * unit);
}

static inline void carry(element *out)
{
#pragma GCC unroll 2
    for (int unit = 0; PRODUCTS_ARE_LOOSE && unit < UNITS; unit++)
        carry_unit(out->v + LIMBS * unit);
}

static inline void multiply(element *out, const element *a, const element *b)
{
    multiply_loose(out, a, b);
    carry(out);
}

static inline void square(element *out, const element *a)
{
    square_loose(out, a);
    carry(out);
}

static void square_times(element *out, const element *a, int times)
{
    *out = *a;
    for (int i = 0; i < times; i++)
        square(out, out);
}

static inline void set_constant(element *out, const uint64_t constant[LIMBS])
{
    for (int i = 0; i < LIMBS * UNITS; i++)
        out->v[i] = broadcast(constant[i % LIMBS]);
}

/* out = when ? a : out */
static inline void replace(element *out, const element *a, const mask *when)
{
    for (int i = 0; i < LIMBS * UNITS; i++)
        out->v[i] ^= (out->v[i] ^ a->v[i]) & when->v[i / LIMBS];
}

/* Bring a tight element into [0, p), still in Montgomery form if it was. */
static void canonical(element *out, const element *a)
{
    for (int unit = 0; unit < UNITS; unit++) {
        limb t[LIMBS];

        for (int i = 0; i < LIMBS; i++)
            t[i] = a->v[LIMBS * unit + i] - sm2_prime[i];
        carry_unit(t);
        limb below = SAR(t[4], 63);
        for (int i = 0; i < LIMBS; i++)
            out->v[LIMBS * unit + i] = t[i] ^ ((t[i] ^ a->v[LIMBS * unit + i]) & below);
    }
}

static mask is_zero(const element *a)
{
    element t;
    mask out;

    canonical(&t, a);
    for (int unit = 0; unit < UNITS; unit++) {
        const limb *r = t.v + LIMBS * unit;
        limb any = r[0] | r[1] | r[2] | r[3] | r[4];

        out.v[unit] = ~SAR(any | (0 - any), 63);
    }
    return out;
}

static mask is_equal(const element *a, const element *b)
{
    element difference;

    COMBINE(&difference, a->v[i] - b->v[i]);
    return is_zero(&difference);
}

/* Leave Montgomery form; the result is canonical. */
static void leave(element *out, const element *a)
{
    element one, t;

    set_constant(&one, sm2_unit);
    multiply(&t, a, &one);
    canonical(out, &t);
}

/* All ones where a canonical element outside Montgomery form is odd. */
static mask is_odd(const element *plain)
{
    mask out;

    for (int unit = 0; unit < UNITS; unit++)
        out.v[unit] = 0 - (plain->v[LIMBS * unit] & 1);
    return out;
}

/* a^((p - 3) / 4), the power that inverses, square roots and ratios share: 254 squarings, 14 products.
 * (p - 3) / 4 is, from the top: 31 ones, a zero, 128 ones, 32 zeros, 62 ones. */
static void power(element *out, const element *a)
{
    element x2, x3, x6, x15, x31, x32, t;

    square(&t, a);
    multiply(&x2, &t, a);
    square(&t, &x2);
    multiply(&x3, &t, a);
    square_times(&t, &x3, 3);
    multiply(&x6, &t, &x3);
    square_times(&t, &x6, 6);
    multiply(&t, &t, &x6);
    square_times(&t, &t, 3);
    multiply(&x15, &t, &x3);
    square_times(&t, &x15, 15);
    multiply(&t, &t, &x15);
    square(&t, &t);
    multiply(&x31, &t, a);
    square(&t, &x31);
    multiply(&x32, &t, a);
    square_times(&t, &x31, 33);
    multiply(&t, &t, &x32);
    for (int i = 0; i < 3; i++) {
        square_times(&t, &t, 32);
        multiply(&t, &t, &x32);
    }
    square_times(&t, &t, 63);
    multiply(&t, &t, &x31);
    square_times(&t, &t, 31);
    multiply(out, &t, &x31);
}

/* 1 / a; zero stays zero. */
static void invert(element *out, const element *a)
{
    element t;

    power(&t, a);
    square_times(&t, &t, 2);
    multiply(out, &t, a);
}

/* Invert `count` non-zero elements in place with one inversion: P. L. Montgomery's trick. */
static void invert_all(element *values, element *prefixes, size_t count)
{
    element inverse, t;

    prefixes[0] = values[0];
    for (size_t i = 1; i < count; i++)
        multiply(&prefixes[i], &prefixes[i - 1], &values[i]);
    invert(&inverse, &prefixes[count - 1]);
    for (size_t i = count - 1; i > 0; i--) {
        multiply(&t, &inverse, &prefixes[i - 1]);
        multiply(&inverse, &inverse, &values[i]);
        values[i] = t;
    }
    values[0] = inverse;
}
