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
/* q p = q (2^208 D + 2^52 C - 1) with C = 2^12 - 2^44 and D = 2^48 - 2^16: the lowest limb cancels by itself. */
#define TIMES_C(q) ((wide)(q) * (-((INT64_C(1) << 44) - (INT64_C(1) << 12))))
#define TIMES_D(q) ((wide)(q) * ((INT64_C(1) << 48) - (INT64_C(1) << 16)))

/* Montgomery's reduction of nine columns; sums stay below 2^110. */
static inline void reduce_columns(limb r[5], const wide column[9])
{
    wide sum = column[0];
    uint64_t q[5];

    q[0] = (uint64_t)sum & LIMB_MASK;
    for (int i = 1; i < 4; i++) {
        sum = (sum >> LIMB_BITS) + column[i] + TIMES_C(q[i - 1]);
        q[i] = (uint64_t)sum & LIMB_MASK;
    }
    sum = (sum >> LIMB_BITS) + column[4] + TIMES_C(q[3]) + TIMES_D(q[0]);
    q[4] = (uint64_t)sum & LIMB_MASK;
    sum = (sum >> LIMB_BITS) + column[5] + TIMES_C(q[4]) + TIMES_D(q[1]);
    r[0] = (uint64_t)sum & LIMB_MASK;
    for (int i = 1; i < 4; i++) {
        sum = (sum >> LIMB_BITS) + column[5 + i] + TIMES_D(q[1 + i]);
        r[i] = (uint64_t)sum & LIMB_MASK;
    }
    r[4] = (uint64_t)(sum >> LIMB_BITS);
}

static inline void multiply_unit(limb r[5], const limb a[5], const limb b[5])
{
    wide column[9] = {
        PRODUCT(a[0], b[0]),
        PRODUCT(a[0], b[1]) + PRODUCT(a[1], b[0]),
        PRODUCT(a[0], b[2]) + PRODUCT(a[1], b[1]) + PRODUCT(a[2], b[0]),
        PRODUCT(a[0], b[3]) + PRODUCT(a[1], b[2]) + PRODUCT(a[2], b[1]) + PRODUCT(a[3], b[0]),
        PRODUCT(a[0], b[4]) + PRODUCT(a[1], b[3]) + PRODUCT(a[2], b[2]) + PRODUCT(a[3], b[1]) + PRODUCT(a[4], b[0]),
        PRODUCT(a[1], b[4]) + PRODUCT(a[2], b[3]) + PRODUCT(a[3], b[2]) + PRODUCT(a[4], b[1]),
        PRODUCT(a[2], b[4]) + PRODUCT(a[3], b[3]) + PRODUCT(a[4], b[2]),
        PRODUCT(a[3], b[4]) + PRODUCT(a[4], b[3]),
        PRODUCT(a[4], b[4]),
    };
    reduce_columns(r, column);
}

static inline void square_unit(limb r[5], const limb a[5])
{
    limb a0 = 2 * a[0], a1 = 2 * a[1], a2 = 2 * a[2], a3 = 2 * a[3];
    wide column[9] = {
        PRODUCT(a[0], a[0]),
        PRODUCT(a0, a[1]),
        PRODUCT(a0, a[2]) + PRODUCT(a[1], a[1]),
        PRODUCT(a0, a[3]) + PRODUCT(a1, a[2]),
        PRODUCT(a0, a[4]) + PRODUCT(a1, a[3]) + PRODUCT(a[2], a[2]),
        PRODUCT(a1, a[4]) + PRODUCT(a2, a[3]),
        PRODUCT(a2, a[4]) + PRODUCT(a[3], a[3]),
        PRODUCT(a3, a[4]),
        PRODUCT(a[4], a[4]),
    };
    reduce_columns(r, column);
}

#include "field.h"
#include "point.h"
#include "map.h"
#include "sm3.h"
#include "batch.h"
