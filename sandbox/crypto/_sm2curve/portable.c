/* The back end for every 64-bit machine: 128-bit products, two elements side by side to hide latency. */
#include "backend.h"
#include "bytes.h"
#include "constants.h"

#ifndef __SIZEOF_INT128__
#error "the extension needs a 128-bit integer type (a 64-bit target with gcc or clang)"
#endif

#define LANES 1
#define UNITS 2
#define SM3_LANES 4
#define BLOCK 32
#define FACTORS_ARE_CARRIED 0
#define BACKEND sm2curve_portable
#define BACKEND_NAME "portable"

typedef uint64_t limb;
typedef __int128 wide;

/* gcc and clang shift signed numbers arithmetically. */
#define SAR(value, bits) ((limb)((int64_t)(value) >> (bits)))
/* Limbs are signed here: sums are not carried. */
#define PRODUCT(a, b) ((wide)(int64_t)(a) * (int64_t)(b))

/* Montgomery's reduction, column by column: q p = q (2^208 D - 2^52 C - 1) with C = 2^44 - 2^12 and D = 2^48 - 2^16, so
 * that the lowest limb cancels by itself. A column is at most 20 products of limbs below 2^57: 2^119; the running sum
 * is signed. What comes out has limbs in [0, 2^52), the highest excepted, which has the sign. */
#define TIMES_C(q) PRODUCT(q, (UINT64_C(1) << 44) - (UINT64_C(1) << 12))
#define TIMES_D(q) PRODUCT(q, (UINT64_C(1) << 48) - (UINT64_C(1) << 16))
#define NEXT_COLUMN(limb_below)                                                                                        \
    (limb_below) = (uint64_t)sum & LIMB_MASK;                                                                          \
    sum >>= LIMB_BITS

#define REDUCE(r, c0, c1, c2, c3, c4, c5, c6, c7, c8)                                                                  \
    do {                                                                                                               \
        uint64_t q0, q1, q2, q3, q4, r0, r1, r2, r3;                                                                   \
        wide sum = (c0);                                                                                               \
        NEXT_COLUMN(q0);                                                                                               \
        sum += (c1) - TIMES_C(q0);                                                                                     \
        NEXT_COLUMN(q1);                                                                                               \
        sum += (c2) - TIMES_C(q1);                                                                                     \
        NEXT_COLUMN(q2);                                                                                               \
        sum += (c3) - TIMES_C(q2);                                                                                     \
        NEXT_COLUMN(q3);                                                                                               \
        sum += (c4) - TIMES_C(q3) + TIMES_D(q0);                                                                       \
        NEXT_COLUMN(q4);                                                                                               \
        sum += (c5) - TIMES_C(q4) + TIMES_D(q1);                                                                       \
        NEXT_COLUMN(r0);                                                                                               \
        sum += (c6) + TIMES_D(q2);                                                                                     \
        NEXT_COLUMN(r1);                                                                                               \
        sum += (c7) + TIMES_D(q3);                                                                                     \
        NEXT_COLUMN(r2);                                                                                               \
        sum += (c8) + TIMES_D(q4);                                                                                     \
        NEXT_COLUMN(r3);                                                                                               \
        (r)[0] = r0, (r)[1] = r1, (r)[2] = r2, (r)[3] = r3, (r)[4] = (uint64_t)sum;                                    \
    } while (0)

/* Columns of a b, and of a^2 with d = 2 a. */
#define AB0(a, b) (PRODUCT(a[0], b[0]))
#define AB1(a, b) (PRODUCT(a[0], b[1]) + PRODUCT(a[1], b[0]))
#define AB2(a, b) (PRODUCT(a[0], b[2]) + PRODUCT(a[1], b[1]) + PRODUCT(a[2], b[0]))
#define AB3(a, b) (PRODUCT(a[0], b[3]) + PRODUCT(a[1], b[2]) + PRODUCT(a[2], b[1]) + PRODUCT(a[3], b[0]))
#define AB4(a, b) (PRODUCT(a[0], b[4]) + PRODUCT(a[1], b[3]) + PRODUCT(a[2], b[2]) + PRODUCT(a[3], b[1]) +             \
    PRODUCT(a[4], b[0]))
#define AB5(a, b) (PRODUCT(a[1], b[4]) + PRODUCT(a[2], b[3]) + PRODUCT(a[3], b[2]) + PRODUCT(a[4], b[1]))
#define AB6(a, b) (PRODUCT(a[2], b[4]) + PRODUCT(a[3], b[3]) + PRODUCT(a[4], b[2]))
#define AB7(a, b) (PRODUCT(a[3], b[4]) + PRODUCT(a[4], b[3]))
#define AB8(a, b) (PRODUCT(a[4], b[4]))
#define AA0(a, d) PRODUCT(a[0], a[0])
#define AA1(a, d) PRODUCT(d[0], a[1])
#define AA2(a, d) (PRODUCT(d[0], a[2]) + PRODUCT(a[1], a[1]))
#define AA3(a, d) (PRODUCT(d[0], a[3]) + PRODUCT(d[1], a[2]))
#define AA4(a, d) (PRODUCT(d[0], a[4]) + PRODUCT(d[1], a[3]) + PRODUCT(a[2], a[2]))
#define AA5(a, d) (PRODUCT(d[1], a[4]) + PRODUCT(d[2], a[3]))
#define AA6(a, d) (PRODUCT(d[2], a[4]) + PRODUCT(a[3], a[3]))
#define AA7(a, d) PRODUCT(d[3], a[4])
#define AA8(a, d) PRODUCT(a[4], a[4])
#define TWICE(a) {2 * (a)[0], 2 * (a)[1], 2 * (a)[2], 2 * (a)[3], 2 * (a)[4]}

static inline void multiply_unit(limb r[5], const limb a[5], const limb b[5])
{
    REDUCE(r, AB0(a, b), AB1(a, b), AB2(a, b), AB3(a, b), AB4(a, b), AB5(a, b), AB6(a, b), AB7(a, b), AB8(a, b));
}

INLINE void square_unit(limb r[5], const limb a[5])
{
    const limb d[5] = TWICE(a);

    REDUCE(r, AA0(a, d), AA1(a, d), AA2(a, d), AA3(a, d), AA4(a, d), AA5(a, d), AA6(a, d), AA7(a, d), AA8(a, d));
}

static inline void square_minus_unit(limb r[5], const limb a[5], const limb b[5], uint64_t multiple)
{
    square_unit(r, a);
    for (int i = 0; i < 5; i++)
        r[i] += multiple * sm2_prime[i] - 2 * b[i];
}

static inline void multiply_square_unit(limb r[5], const limb a[5], const limb b[5], const limb c[5])
{
    const limb d[5] = TWICE(c), e[5] = TWICE(b);

    REDUCE(r, AB0(a, e) + AA0(c, d), AB1(a, e) + AA1(c, d), AB2(a, e) + AA2(c, d), AB3(a, e) + AA3(c, d),
           AB4(a, e) + AA4(c, d), AB5(a, e) + AA5(c, d), AB6(a, e) + AA6(c, d), AB7(a, e) + AA7(c, d),
           AB8(a, e) + AA8(c, d));
}

static inline void multiply_multiply_unit(limb r[5], const limb a[5], const limb b[5], const limb c[5],
                                          const limb d[5])
{
    const limb e[5] = TWICE(b), f[5] = TWICE(d);

    REDUCE(r, AB0(a, e) + AB0(c, f), AB1(a, e) + AB1(c, f), AB2(a, e) + AB2(c, f), AB3(a, e) + AB3(c, f),
           AB4(a, e) + AB4(c, f), AB5(a, e) + AB5(c, f), AB6(a, e) + AB6(c, f), AB7(a, e) + AB7(c, f),
           AB8(a, e) + AB8(c, f));
}

#include "field.h"
#include "point.h"
#include "map.h"
#include "sm3.h"
#include "batch.h"
