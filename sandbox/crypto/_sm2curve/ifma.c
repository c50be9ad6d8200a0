/* The back end for x86-64 with AVX512-IFMA: eight elements a vector, two vectors side by side to hide latency.
 *
 * The target is set here and not on the command line, so that one build carries both back ends; nothing in this file
 * may run before the processor has been asked (module.c).
 */
#include "backend.h"
#include "bytes.h"

#ifdef SM2CURVE_HAS_IFMA

#include <immintrin.h>

#ifdef __clang__
#pragma clang attribute push(__attribute__((target("avx2,bmi2,avx512f,avx512vl,avx512bw,avx512dq,avx512ifma"))),       \
                             apply_to = function)
#else
#pragma GCC target("avx2,bmi2,avx512f,avx512vl,avx512bw,avx512dq,avx512ifma")
#endif

#include "constants.h"

#define LANES 8
#define UNITS 2
#define SM3_LANES 16
#define BLOCK 16
#define FACTORS_ARE_CARRIED 1
#define BACKEND sm2curve_ifma
#define BACKEND_NAME "ifma"

typedef unsigned long long limb __attribute__((vector_size(64)));
typedef long long signed_limb __attribute__((vector_size(64)));

#define SAR(value, bits) ((limb)((signed_limb)(value) >> (bits)))
/* Sum plus the lower, or upper, 52 bits of the product of the lower 52 bits of a and b. */
#define ADD_LOW(sum, a, b) ((limb)_mm512_madd52lo_epu64((__m512i)(sum), (__m512i)(a), (__m512i)(b)))
#define ADD_HIGH(sum, a, b) ((limb)_mm512_madd52hi_epu64((__m512i)(sum), (__m512i)(a), (__m512i)(b)))

/* A product is ten columns, each at most twice the sum of twenty halves of products: below 2^58.
 *
 * Montgomery's reduction takes the lower five away: q p = q (2^208 D - 2^52 C - 1), where q is the lower 52 bits of the
 * lowest column, C = 2^44 - 2^12 and D = 16 C. So what is subtracted from one column is added, times 16, to the third
 * above. Columns are signed from the first subtraction on, and below 2^59 at the end. A column is taken away while the
 * next row of the product is added, so that there is something to do until it is known. */
struct columns {
    limb t[10], taken; /* taken: the part of the last q C that belongs to the next column but one */
};

INLINE void reduce_column(struct columns *s, int i)
{
    const limb zero = {0}, c = zero + ((UINT64_C(1) << 44) - (UINT64_C(1) << 12));

    s->taken = ADD_LOW(s->taken, s->t[i], c);
    s->t[i + 1] += SAR(s->t[i], LIMB_BITS);
    s->t[i + 1] -= s->taken;
    s->t[i + 4] += s->taken << 4;
    s->taken = ADD_HIGH(zero, s->t[i], c);
}

/* Take away the last column; what remains is loose. */
INLINE void finish(limb r[5], struct columns *s)
{
    reduce_column(s, 4);
    s->t[6] -= s->taken;
    s->t[9] += s->taken << 4;
#pragma GCC unroll 5
    for (int i = 0; i < 5; i++)
        r[i] = s->t[i + 5];
}

INLINE void add_row(struct columns *s, int i, limb a, const limb b[5])
{
#pragma GCC unroll 5
    for (int j = 0; j < 5; j++) {
        s->t[i + j] = ADD_LOW(s->t[i + j], a, b[j]);
        s->t[i + j + 1] = ADD_HIGH(s->t[i + j + 1], a, b[j]);
    }
}

/* Row i of a square. The two columns that get nothing from the rows below are doubled, then the square of the limb is
 * added: everything that was in the columns 1 to 8 before counts twice. */
INLINE void add_square_row(struct columns *s, int i, const limb a[5])
{
#pragma GCC unroll 5
    for (int j = i + 1; j < 5; j++) {
        s->t[i + j] = ADD_LOW(s->t[i + j], a[i], a[j]);
        s->t[i + j + 1] = ADD_HIGH(s->t[i + j + 1], a[i], a[j]);
    }
    if (i < 4) {
        s->t[2 * i + 1] += s->t[2 * i + 1];
        s->t[2 * i + 2] += s->t[2 * i + 2];
    }
    s->t[2 * i] = ADD_LOW(s->t[2 * i], a[i], a[i]);
    s->t[2 * i + 1] = ADD_HIGH(s->t[2 * i + 1], a[i], a[i]);
}

INLINE void add_square(struct columns *s, const limb a[5])
{
#pragma GCC unroll 5
    for (int i = 0; i < 5; i++) {
        add_square_row(s, i, a);
        if (i > 0)
            reduce_column(s, i - 1);
    }
}

INLINE void multiply_unit(limb r[5], const limb a[5], const limb b[5])
{
    struct columns s = {0};

#pragma GCC unroll 5
    for (int i = 0; i < 5; i++) {
        add_row(&s, i, a[i], b);
        if (i > 0)
            reduce_column(&s, i - 1);
    }
    finish(r, &s);
}

INLINE void square_unit(limb r[5], const limb a[5])
{
    struct columns s = {0};

    add_square(&s, a);
    finish(r, &s);
}

/* b and the multiple of p are put where they need not be added, and where all but the highest limb is doubled. */
INLINE void square_minus_unit(limb r[5], const limb a[5], const limb b[5], uint64_t multiple)
{
    struct columns s = {0};

#pragma GCC unroll 4
    for (int i = 0; i < 4; i++)
        s.t[5 + i] = multiple / 2 * sm2_prime[i] - b[i];
    s.t[9] = multiple * sm2_prime[4] - 2 * b[4];
    add_square(&s, a);
    finish(r, &s);
}

INLINE void multiply_square_unit(limb r[5], const limb a[5], const limb b[5], const limb c[5])
{
    struct columns s = {0};

#pragma GCC unroll 5
    for (int i = 0; i < 5; i++)
        add_row(&s, i, a[i], b);
    s.t[0] += s.t[0];
    s.t[9] += s.t[9];
    add_square(&s, c);
    finish(r, &s);
}

INLINE void multiply_multiply_unit(limb r[5], const limb a[5], const limb b[5], const limb c[5], const limb d[5])
{
    struct columns s = {0};

#pragma GCC unroll 5
    for (int i = 0; i < 5; i++) {
        add_row(&s, i, a[i], b);
        add_row(&s, i, c[i], d);
    }
#pragma GCC unroll 10
    for (int i = 0; i < 10; i++)
        s.t[i] += s.t[i];
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++)
        reduce_column(&s, i);
    finish(r, &s);
}

#include "field.h"
#include "point.h"
#include "map.h"
#include "sm3.h"
#include "batch.h"

#ifdef __clang__
#pragma clang attribute pop
#endif
#endif
