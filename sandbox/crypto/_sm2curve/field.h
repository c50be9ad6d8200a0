/* Template: arithmetic modulo p on WIDTH = LANES * UNITS elements at once.
 *
 * The including file defines LANES, UNITS, `limb` (LANES 64-bit numbers), SAR (shift right, keeping the sign),
 * FACTORS_ARE_CARRIED, and products that are divided by 2^260 (Montgomery): multiply_unit a b, square_unit a^2,
 * square_minus_unit a^2 - 2 b + an even multiple of p, multiply_square_unit 2 a b + c^2, multiply_multiply_unit
 * 2 a b + 2 c d.
 *
 * Forms. An element is five limbs of 52 bits, and its value an integer from 0 up to 16 p = 2^260; [k] in a comment says
 *   that it is below k p. What the limbs may be depends on what the element is good for:
 *     plain   everything: limbs in [0, 2^52), or where factors are not carried signed and below 2^57;
 *     loose   sums only: limbs signed and below 2^60;
 *     factor  products only: where FACTORS_ARE_CARRIED, only the lower 52 bits of the four lower limbs count;
 *     tight   everything: limbs in [0, 2^52), [1.1]. A product of two of these is one again, if it is plain.
 * Bounds. A product of [j] and [k] is [j k / 16 + 1]; what is added to it before the division counts in full. A sum is
 *   written limb by limb, in SUM, FACTOR or TIGHT, together with a multiple of p that keeps it from being negative.
 *   None of its limbs may reach 2^63.
 * Constant time: no branch and no address depends on an element.
 */

enum { WIDTH = LANES * UNITS, LIMBS = 5 };

typedef struct {
    limb v[LIMBS * UNITS];
} element;

typedef struct {
    limb v[UNITS]; /* all ones or zero in each lane */
} mask;

#define EACH_UNIT _Pragma("GCC unroll 2") for (int unit = 0; unit < UNITS; unit++)
#define OF(e) ((e)->v + LIMBS * unit)

INLINE limb broadcast(uint64_t value)
{
    return (limb){0} + value;
}

INLINE void carry_unit(limb r[LIMBS])
{
#pragma GCC unroll 4
    for (int i = 0; i < LIMBS - 1; i++) {
        r[i + 1] += SAR(r[i], LIMB_BITS);
        r[i] &= LIMB_MASK;
    }
}

/* Carry, and leave in the limb what was carried: a factor. */
INLINE void carry_factor_unit(limb r[LIMBS])
{
#pragma GCC unroll 4
    for (int i = 0; FACTORS_ARE_CARRIED && i < LIMBS - 1; i++)
        r[i + 1] += SAR(r[i], LIMB_BITS);
}

/* Take multiples of p off a number that is at least keep p, down to between keep p and (keep + 1.1) p. */
INLINE void fold_unit(limb r[LIMBS], uint64_t keep)
{
    limb high = SAR(r[4], TOP_BITS) - keep; /* 2^256 = 2^224 + 2^96 - 2^64 + 1 modulo p */

    r[4] = ((r[4] & ((UINT64_C(1) << TOP_BITS) - 1)) | keep << TOP_BITS) + (high << 16);
    r[1] += (high << 44) - (high << 12);
    r[0] += high;
}

INLINE void fold(element *out, uint64_t keep)
{
    EACH_UNIT fold_unit(OF(out), keep);
}

INLINE void carry_factor(element *out)
{
    EACH_UNIT carry_factor_unit(OF(out));
}

/* Limb i of a factor, as a part of a sum. */
#define LIMB(factor) (FACTORS_ARE_CARRIED && i % LIMBS < LIMBS - 1 ? (factor).v[i] & LIMB_MASK : (factor).v[i])

/* Set `out` to an expression, in which i stands for the limb, and a multiple of p: loose. */
#define SUM(out, multiple, expression)                                                                                 \
    _Pragma("GCC unroll 10") for (int i = 0; i < LIMBS * UNITS; i++)                                                   \
        (out)->v[i] = (multiple) ? (expression) + (multiple) * sm2_prime[i % LIMBS] : (expression)

#define FACTOR(out, multiple, expression)                                                                              \
    do {                                                                                                               \
        SUM(out, multiple, expression);                                                                                \
        carry_factor(out);                                                                                             \
    } while (0)

/* The expression may be anything above -16 p. */
#define TIGHT(out, expression)                                                                                         \
    do {                                                                                                               \
        element sum_of;                                                                                                \
        SUM(&sum_of, 16, expression);                                                                                  \
        EACH_UNIT {                                                                                                    \
            fold_unit(OF(&sum_of), 0);                                                                                 \
            carry_unit(OF(&sum_of));                                                                                   \
        }                                                                                                              \
        *(out) = sum_of;                                                                                               \
    } while (0)

INLINE void multiply_loose(element *out, const element *a, const element *b)
{
    EACH_UNIT multiply_unit(OF(out), OF(a), OF(b));
}

INLINE void square_loose(element *out, const element *a)
{
    EACH_UNIT square_unit(OF(out), OF(a));
}

/* a^2 - 2 b + an even multiple of p: loose */
INLINE void square_minus(element *out, const element *a, const element *b, uint64_t multiple)
{
    EACH_UNIT square_minus_unit(OF(out), OF(a), OF(b), multiple);
}

INLINE void multiply_factor(element *out, const element *a, const element *b)
{
    EACH_UNIT {
        multiply_unit(OF(out), OF(a), OF(b));
        carry_factor_unit(OF(out));
    }
}

INLINE void square_factor(element *out, const element *a)
{
    EACH_UNIT {
        square_unit(OF(out), OF(a));
        carry_factor_unit(OF(out));
    }
}

/* 2 a b + c^2: a factor */
INLINE void multiply_square(element *out, const element *a, const element *b, const element *c)
{
    EACH_UNIT {
        multiply_square_unit(OF(out), OF(a), OF(b), OF(c));
        carry_factor_unit(OF(out));
    }
}

/* 2 a b + 2 c d: a factor */
INLINE void multiply_multiply(element *out, const element *a, const element *b, const element *c, const element *d)
{
    EACH_UNIT {
        multiply_multiply_unit(OF(out), OF(a), OF(b), OF(c), OF(d));
        carry_factor_unit(OF(out));
    }
}

/* Plain products, for all that is not in the innermost loops. */
CALLED void multiply(element *out, const element *a, const element *b)
{
    EACH_UNIT {
        multiply_unit(OF(out), OF(a), OF(b));
        if (FACTORS_ARE_CARRIED)
            carry_unit(OF(out));
    }
}

CALLED void square(element *out, const element *a)
{
    EACH_UNIT {
        square_unit(OF(out), OF(a));
        if (FACTORS_ARE_CARRIED)
            carry_unit(OF(out));
    }
}

/* Square a number of times, at least once: a factor. */
CALLED void square_times(element *out, const element *a, int times)
{
    element t = *a;

    for (int i = 0; i < times; i++)
        square_factor(&t, &t);
    *out = t;
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

/* Bring a factor out of Montgomery form and into [0, p). */
CALLED void leave(element *out, const element *a)
{
    element one, t;

    set_constant(&one, sm2_unit);
    multiply(&t, a, &one); /* at most p */
    EACH_UNIT {
        limb r[LIMBS];

        for (int i = 0; i < LIMBS; i++)
            r[i] = OF(&t)[i] - sm2_prime[i];
        carry_unit(r);
        limb below = SAR(r[4], 63);
        for (int i = 0; i < LIMBS; i++)
            OF(out)[i] = r[i] ^ ((r[i] ^ OF(&t)[i]) & below);
    }
}

CALLED mask is_zero(const element *factor)
{
    element t;
    mask out;

    leave(&t, factor);
    EACH_UNIT {
        const limb *r = OF(&t);
        limb any = r[0] | r[1] | r[2] | r[3] | r[4];

        out.v[unit] = ~SAR(any | (0 - any), 63);
    }
    return out;
}

static mask is_equal(const element *a, const element *b)
{
    element difference;

    TIGHT(&difference, a->v[i] - b->v[i]);
    return is_zero(&difference);
}

/* All ones where an element that has left Montgomery form is odd. */
static mask is_odd(const element *left)
{
    mask out;

    EACH_UNIT out.v[unit] = 0 - (OF(left)[0] & 1);
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

/* Invert `count` non-zero factors in place with one inversion: P. L. Montgomery's trick. */
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
