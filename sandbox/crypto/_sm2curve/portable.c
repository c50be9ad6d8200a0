/* The back end for every 64-bit machine: one element at a time, 128-bit products. */
#include "backend.h"
#include "bytes.h"
#include "constants.h"

#ifndef __SIZEOF_INT128__
#error "the extension needs a 128-bit integer type (a 64-bit target with gcc or clang)"
#endif

#define LANES 1
#define UNITS 1
#define SM3_LANES 4
#define BLOCK 64
#define PRODUCTS_ARE_LOOSE 0
#define BACKEND sm2curve_portable
#define BACKEND_NAME "portable"

typedef uint64_t limb;
typedef __int128 wide;

/* gcc and clang shift signed numbers arithmetically. */
#define SAR(value, bits) ((limb)((int64_t)(value) >> (bits)))
#define PRODUCT(a, b) ((wide)((unsigned __int128)(a) * (b)))

/* Montgomery's reduction, column by column: q p = q (2^208 D - 2^52 C - 1) with C = 2^44 - 2^12 and D = 2^48 - 2^16, so
 * that the lowest limb cancels by itself. Columns are below 2^107; the running sum is signed. */
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
        (r)[0] = r0, (r)[1] = r1, (r)[2] = r2, (r)[3] = r3, (r)[4] = (uint64_t)sum;                                     \
    } while (0)

static inline void multiply_unit(limb r[5], const limb a[5], const limb b[5])
{
    REDUCE(r, PRODUCT(a[0], b[0]), /* */
           PRODUCT(a[0], b[1]) + PRODUCT(a[1], b[0]),
           PRODUCT(a[0], b[2]) + PRODUCT(a[1], b[1]) + PRODUCT(a[2], b[0]),
           PRODUCT(a[0], b[3]) + PRODUCT(a[1], b[2]) + PRODUCT(a[2], b[1]) + PRODUCT(a[3], b[0]),
           PRODUCT(a[0], b[4]) + PRODUCT(a[1], b[3]) + PRODUCT(a[2], b[2]) + PRODUCT(a[3], b[1]) + PRODUCT(a[4], b[0]),
           PRODUCT(a[1], b[4]) + PRODUCT(a[2], b[3]) + PRODUCT(a[3], b[2]) + PRODUCT(a[4], b[1]),
           PRODUCT(a[2], b[4]) + PRODUCT(a[3], b[3]) + PRODUCT(a[4], b[2]),
           PRODUCT(a[3], b[4]) + PRODUCT(a[4], b[3]),
           PRODUCT(a[4], b[4]));
}

static inline void square_unit(limb r[5], const limb a[5])
{
    limb a0 = 2 * a[0], a1 = 2 * a[1], a2 = 2 * a[2], a3 = 2 * a[3];

    REDUCE(r, PRODUCT(a[0], a[0]),
           PRODUCT(a0, a[1]),
           PRODUCT(a0, a[2]) + PRODUCT(a[1], a[1]),
           PRODUCT(a0, a[3]) + PRODUCT(a1, a[2]),
           PRODUCT(a0, a[4]) + PRODUCT(a1, a[3]) + PRODUCT(a[2], a[2]),
           PRODUCT(a1, a[4]) + PRODUCT(a2, a[3]),
           PRODUCT(a2, a[4]) + PRODUCT(a[3], a[3]),
           PRODUCT(a3, a[4]),
           PRODUCT(a[4], a[4]));
}

#include "field.h"
#include "point.h"
#include "map.h"
#include "sm3.h"
#include "batch.h"
