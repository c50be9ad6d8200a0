/* The back end for x86-64 with AVX512-IFMA: eight elements a vector, two vectors side by side to hide latency.
 *
 * The target is set here and not on the command line, so that one build carries both back ends; nothing in this file
 * may run before the processor has been asked (module.c).
 */
#include "backend.h"
#include "bytes.h"

#ifdef SM2CURVE_HAS_IFMA

#pragma GCC target("avx2,bmi2,avx512f,avx512vl,avx512bw,avx512dq,avx512ifma")

#include "constants.h"

#include <immintrin.h>

#define LANES 8
#define UNITS 2
#define SM3_LANES 16
#define BLOCK 8
#define PRODUCTS_ARE_LOOSE 1
#define BACKEND sm2curve_ifma
#define BACKEND_NAME "ifma"

typedef unsigned long long limb __attribute__((vector_size(64)));
typedef long long signed_limb __attribute__((vector_size(64)));

#define SAR(value, bits) ((limb)((signed_limb)(value) >> (bits)))
/* Sum plus the lower, or upper, 52 bits of the product of the lower 52 bits of a and b. */
#define ADD_LOW(sum, a, b) ((limb)_mm512_madd52lo_epu64((__m512i)(sum), (__m512i)(a), (__m512i)(b)))
#define ADD_HIGH(sum, a, b) ((limb)_mm512_madd52hi_epu64((__m512i)(sum), (__m512i)(a), (__m512i)(b)))

/* Montgomery's reduction of ten columns below 2^57: q p = q (2^208 D - 2^52 C - 1), C = 2^44 - 2^12, D = 2^48 - 2^16.
 * The columns are signed from the first subtraction on. The result is loose. */
static inline void reduce_columns(limb r[5], limb t[10])
{
    const limb zero = {0}, c = zero + ((UINT64_C(1) << 44) - (UINT64_C(1) << 12)),
               d = zero + ((UINT64_C(1) << 48) - (UINT64_C(1) << 16));

#pragma GCC unroll 5
    for (int i = 0; i < 5; i++) {
        limb q = t[i] & LIMB_MASK;

        t[i + 1] += SAR(t[i], LIMB_BITS) - ADD_LOW(zero, q, c);
        t[i + 2] -= ADD_HIGH(zero, q, c);
        t[i + 4] = ADD_LOW(t[i + 4], q, d);
        t[i + 5] = ADD_HIGH(t[i + 5], q, d);
    }
#pragma GCC unroll 5
    for (int i = 0; i < 5; i++)
        r[i] = t[i + 5];
}

static inline void multiply_unit(limb r[5], const limb a[5], const limb b[5])
{
    limb t[10] = {{0}};

#pragma GCC unroll 5
    for (int i = 0; i < 5; i++) {
#pragma GCC unroll 5
        for (int j = 0; j < 5; j++) {
            t[i + j] = ADD_LOW(t[i + j], a[i], b[j]);
            t[i + j + 1] = ADD_HIGH(t[i + j + 1], a[i], b[j]);
        }
    }
    reduce_columns(r, t);
}

static inline void square_unit(limb r[5], const limb a[5])
{
    limb t[10] = {{0}};

#pragma GCC unroll 5
    for (int i = 0; i < 5; i++) {
#pragma GCC unroll 5
        for (int j = i + 1; j < 5; j++) {
            t[i + j] = ADD_LOW(t[i + j], a[i], a[j]);
            t[i + j + 1] = ADD_HIGH(t[i + j + 1], a[i], a[j]);
        }
    }
#pragma GCC unroll 10
    for (int i = 0; i < 10; i++)
        t[i] += t[i];
#pragma GCC unroll 5
    for (int i = 0; i < 5; i++) {
        t[2 * i] = ADD_LOW(t[2 * i], a[i], a[i]);
        t[2 * i + 1] = ADD_HIGH(t[2 * i + 1], a[i], a[i]);
    }
    reduce_columns(r, t);
}

#include "field.h"
#include "point.h"
#include "map.h"
#include "sm3.h"
#include "batch.h"

#endif
