/* The back end for x86-64 with AVX512-IFMA: eight numbers a vector.
 *
 * The target is set here and not on the command line, so that the extension loads everywhere; nothing in this file may
 * run before the processor has been asked (module.c). VBMI came with IFMA in every processor so far.
 */
#include "backend.h"

#ifdef MODEXP_HAS_IFMA

#pragma GCC target("avx2,bmi2,avx512f,avx512vl,avx512bw,avx512dq,avx512ifma,avx512vbmi")

#include <immintrin.h>
#include <stdlib.h>
#include <string.h>

typedef unsigned long long limb __attribute__((vector_size(64)));
typedef long long signed_limb __attribute__((vector_size(64)));

#define PRAGMA(text) _Pragma(#text)
#define UNROLL(times) UNROLLED(times)
#define UNROLLED(times) PRAGMA(GCC unroll times)

#define SAR(value, bits) ((limb)((signed_limb)(value) >> (bits)))
/* Sum plus the lower, or upper, 52 bits of the product of the lower 52 bits of a and b. */
#define ADD_LOW(sum, a, b) ((limb)_mm512_madd52lo_epu64((__m512i)(sum), (__m512i)(a), (__m512i)(b)))
#define ADD_HIGH(sum, a, b) ((limb)_mm512_madd52hi_epu64((__m512i)(sum), (__m512i)(a), (__m512i)(b)))

/* From this many limbs on, halves are squared. Products are split down to an odd number of blocks. Both measured. */
enum { SQUARES_SPLIT = 80 };

/* Hide a value from the optimiser, which might otherwise turn the use of a mask into a branch. */
static inline uint64_t opaque(uint64_t value)
{
    __asm__("" : "+r"(value));
    return value;
}

#include "columns.h"
#include "lanes.h"
#include "batch.h"
#include "table.h"

#endif
