/* SM4-GCM for x86-64 with AVX512, GFNI and VPCLMULQDQ: 64 blocks at a time.
 *
 * The target is set here and not on the command line, so that the extension loads everywhere; nothing in this file may
 * run before the processor has been asked (module.c).
 *
 * No branch and no address depends on a key, a plaintext or a tag: there is no table, the S-box is computed.
 */
#include "backend.h"

#ifdef SM4_HAS_GFNI

#pragma GCC target("avx2,avx512f,avx512bw,avx512vl,gfni,pclmul,vpclmulqdq")

#include <immintrin.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))

enum { BLOCK = 16, LANES = 16, WIDE = 4, GROUP = BLOCK * LANES, ROUNDS = 32 };

struct keys {
    uint32_t rounds[ROUNDS];
    __m512i powers[4]; /* of the hash key: the 16th to the first, four a vector, each times x */
    uint8_t mask[BLOCK]; /* what hides the tag: the block under counter 1 */
    uint32_t nonce[3];
};

/* Overwrite memory in a way that the compiler may not leave out. */
static void wipe(void *memory, size_t size)
{
    memset(memory, 0, size);
    __asm__ volatile("" : : "r"(memory) : "memory");
}

INLINE uint32_t big_endian(const uint8_t *at)
{
    uint32_t value;

    memcpy(&value, at, sizeof value);
    return __builtin_bswap32(value);
}

/* --- the cipher: GB/T 32907-2016 -------------------------------------------------------------------------------------
 *
 * The S-box is x -> A I(A x + c) + c, with I the inverse modulo x^8+x^7+x^6+x^5+x^4+x^2+1. The processor inverts modulo
 * x^8+x^4+x^3+x+1. 0x23 is a root of the first polynomial in the second field, so that u: x -> 0x23 is an isomorphism
 * of the fields; with it, the S-box is x -> (A u^-1) inverse((u A) x + u(c)) + c.
 */
#define BEFORE 0x4c287db91a22505d /* u A */
#define BEFORE_PLUS 0x3e          /* u(c) */
#define AFTER 0xf3ab34a974a6b589  /* A u^-1 */
#define AFTER_PLUS 0xd3           /* c */

INLINE __m512i substitute(__m512i x)
{
    x = _mm512_gf2p8affine_epi64_epi8(x, _mm512_set1_epi64((long long)BEFORE), BEFORE_PLUS);
    return _mm512_gf2p8affineinv_epi64_epi8(x, _mm512_set1_epi64((long long)AFTER), AFTER_PLUS);
}

INLINE __m512i xor3(__m512i a, __m512i b, __m512i c)
{
    return _mm512_ternarylogic_epi32(a, b, c, 0x96);
}

INLINE __m512i change(__m512i a, __m512i b, __m512i c, __m512i d, uint32_t key)
{
    __m512i s = substitute(xor3(b, _mm512_xor_si512(c, d), _mm512_set1_epi32((int)key)));

    return xor3(xor3(a, s, _mm512_rol_epi32(s, 2)), _mm512_rol_epi32(s, 10),
                _mm512_xor_si512(_mm512_rol_epi32(s, 18), _mm512_rol_epi32(s, 24)));
}

static void expand(const uint8_t *key, uint32_t *rounds)
{
    static const uint32_t system[4] = {0xa3b1bac6, 0x56aa3350, 0x677d9197, 0xb27022dc};
    uint32_t k[4];

    for (int i = 0; i < 4; i++)
        k[i] = big_endian(key + 4 * i) ^ system[i];
    for (uint32_t i = 0; i < ROUNDS; i++) {
        uint32_t fixed = 0;

        for (uint32_t j = 0; j < 4; j++)
            fixed = fixed << 8 | ((4 * i + j) * 7 & 0xff);
        __m512i x = _mm512_castsi128_si512(_mm_cvtsi32_si128((int)(k[1] ^ k[2] ^ k[3] ^ fixed)));
        uint32_t s = (uint32_t)_mm_cvtsi128_si32(_mm512_castsi512_si128(substitute(x)));
        uint32_t next = k[0] ^ s ^ (s << 13 | s >> 19) ^ (s << 23 | s >> 9);
        k[0] = k[1], k[1] = k[2], k[2] = k[3];
        rounds[i] = k[3] = next;
    }
    wipe(k, sizeof k);
}

/* Encrypt 16 blocks a group. In: word j of all blocks in x[j], the block with number 4 k + l in the k-th place of lane l.
 * Out: blocks 4 k to 4 k + 3 in x[k], as bytes. */
INLINE void encrypt(const uint32_t *rounds, __m512i (*x)[4], int groups)
{
    const __m512i order = _mm512_broadcast_i32x4(_mm_set_epi64x(0x0c0d0e0f08090a0b, 0x0405060700010203));

    for (int i = 0; i < ROUNDS; i += 4) {
#pragma GCC unroll 4
        for (int g = 0; g < groups; g++)
            x[g][0] = change(x[g][0], x[g][1], x[g][2], x[g][3], rounds[i]);
#pragma GCC unroll 4
        for (int g = 0; g < groups; g++)
            x[g][1] = change(x[g][1], x[g][2], x[g][3], x[g][0], rounds[i + 1]);
#pragma GCC unroll 4
        for (int g = 0; g < groups; g++)
            x[g][2] = change(x[g][2], x[g][3], x[g][0], x[g][1], rounds[i + 2]);
#pragma GCC unroll 4
        for (int g = 0; g < groups; g++)
            x[g][3] = change(x[g][3], x[g][0], x[g][1], x[g][2], rounds[i + 3]);
    }
#pragma GCC unroll 4
    for (int g = 0; g < groups; g++) {
        /* The words come out in reverse. */
        __m512i a = _mm512_unpacklo_epi32(x[g][3], x[g][2]), b = _mm512_unpackhi_epi32(x[g][3], x[g][2]);
        __m512i c = _mm512_unpacklo_epi32(x[g][1], x[g][0]), d = _mm512_unpackhi_epi32(x[g][1], x[g][0]);

        x[g][0] = _mm512_shuffle_epi8(_mm512_unpacklo_epi64(a, c), order);
        x[g][1] = _mm512_shuffle_epi8(_mm512_unpackhi_epi64(a, c), order);
        x[g][2] = _mm512_shuffle_epi8(_mm512_unpacklo_epi64(b, d), order);
        x[g][3] = _mm512_shuffle_epi8(_mm512_unpackhi_epi64(b, d), order);
    }
}

/* The key stream of blocks `counter` and following. */
INLINE void stream(const struct keys *keys, uint32_t counter, __m512i (*x)[4], int groups)
{
    const __m512i numbers = _mm512_set_epi32(15, 11, 7, 3, 14, 10, 6, 2, 13, 9, 5, 1, 12, 8, 4, 0);

#pragma GCC unroll 4
    for (int g = 0; g < groups; g++) {
        for (int j = 0; j < 3; j++)
            x[g][j] = _mm512_set1_epi32((int)keys->nonce[j]);
        x[g][3] = _mm512_add_epi32(_mm512_set1_epi32((int)(counter + (uint32_t)(LANES * g))), numbers);
    }
    encrypt(keys->rounds, x, groups);
}

/* --- the hash: NIST SP 800-38D, with blocks reversed --------------------------------------------------------------- */

/* Of a product of two reversed elements, one of them times x: the rest modulo the field's polynomial. */
INLINE __m128i reduce(__m128i low, __m128i middle, __m128i high)
{
    const __m128i polynomial = _mm_set_epi64x(0, (long long)0xc200000000000000);

    low = _mm_xor_si128(low, _mm_slli_si128(middle, 8));
    high = _mm_xor_si128(high, _mm_srli_si128(middle, 8));
    low = _mm_xor_si128(_mm_shuffle_epi32(low, 0x4e), _mm_clmulepi64_si128(low, polynomial, 0x00));
    low = _mm_xor_si128(_mm_shuffle_epi32(low, 0x4e), _mm_clmulepi64_si128(low, polynomial, 0x00));
    return _mm_xor_si128(high, low);
}

INLINE __m128i multiply(__m128i a, __m128i b)
{
    __m128i middle = _mm_xor_si128(_mm_clmulepi64_si128(a, b, 0x01), _mm_clmulepi64_si128(a, b, 0x10));

    return reduce(_mm_clmulepi64_si128(a, b, 0x00), middle, _mm_clmulepi64_si128(a, b, 0x11));
}

INLINE __m128i sum_of_lanes(__m512i x)
{
    __m256i half = _mm256_xor_si256(_mm512_castsi512_si256(x), _mm512_extracti64x4_epi64(x, 1));

    return _mm_xor_si128(_mm256_castsi256_si128(half), _mm256_extracti128_si256(half, 1));
}

INLINE __m512i reversed(const uint8_t *at)
{
    const __m512i order = _mm512_broadcast_i32x4(_mm_set_epi64x(0x0001020304050607, 0x08090a0b0c0d0e0f));

    return _mm512_shuffle_epi8(_mm512_loadu_si512(at), order);
}

/* Take 16 blocks into the hash. */
INLINE __m128i absorb(const struct keys *keys, __m128i hash, const uint8_t *blocks)
{
    __m512i low = _mm512_setzero_si512(), middle = low, high = low;

#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        __m512i x = reversed(blocks + 64 * i), h = keys->powers[i];

        if (i == 0)
            x = _mm512_xor_si512(x, _mm512_zextsi128_si512(hash));
        low = _mm512_xor_si512(low, _mm512_clmulepi64_epi128(x, h, 0x00));
        middle = xor3(middle, _mm512_clmulepi64_epi128(x, h, 0x01), _mm512_clmulepi64_epi128(x, h, 0x10));
        high = _mm512_xor_si512(high, _mm512_clmulepi64_epi128(x, h, 0x11));
    }
    return reduce(sum_of_lanes(low), sum_of_lanes(middle), sum_of_lanes(high));
}

INLINE __m128i swapped(__m128i x)
{
    return _mm_shuffle_epi8(x, _mm_set_epi64x(0x0001020304050607, 0x08090a0b0c0d0e0f));
}

/* Take in bytes, filled up with zeros to whole blocks. */
static __m128i absorb_bytes(const struct keys *keys, __m128i hash, const uint8_t *at, size_t size)
{
    uint8_t last[GROUP] = {0};

    for (; size >= GROUP; at += GROUP, size -= GROUP)
        hash = absorb(keys, hash, at);
    if (size == 0)
        return hash;
    /* Fewer blocks stand at the end of sixteen: those before them are zero and add nothing. */
    uint8_t *from = last + (GROUP - (size + BLOCK - 1) / BLOCK * BLOCK);
    memcpy(from, at, size);
    hash = _mm_xor_si128(swapped(hash), _mm_loadu_si128((const __m128i *)from));
    _mm_storeu_si128((__m128i *)from, hash);
    hash = absorb(keys, _mm_setzero_si128(), last);
    wipe(last, sizeof last);
    return hash;
}

/* --- the two together ---------------------------------------------------------------------------------------------- */

static void prepare(struct keys *keys, const uint8_t *key, const uint8_t *nonce)
{
    __m512i x[1][4];
    uint8_t blocks[GROUP];
    __m128i powers[LANES];

    expand(key, keys->rounds);
    for (int j = 0; j < 3; j++)
        keys->nonce[j] = big_endian(nonce + 4 * j);
    /* Block 0 is of zeros, its encryption is the hash key; block 1 has the counter 1. */
    for (int j = 0; j < 3; j++)
        x[0][j] = _mm512_maskz_set1_epi32(1 << 4, (int)keys->nonce[j]);
    x[0][3] = _mm512_maskz_set1_epi32(1 << 4, 1);
    encrypt(keys->rounds, x, 1);
    _mm512_storeu_si512(blocks, x[0][0]);
    memcpy(keys->mask, blocks + BLOCK, BLOCK);

    __m128i h = swapped(_mm_loadu_si128((const __m128i *)blocks));
    /* Times x: all bits one to the left, and the one that falls out comes back as the polynomial. */
    __m128i out = _mm_shuffle_epi32(_mm_srai_epi32(h, 31), 0xff);
    __m128i carry = _mm_slli_si128(_mm_srli_epi64(h, 63), 8);
    h = _mm_or_si128(_mm_slli_epi64(h, 1), carry);
    powers[LANES - 1] = _mm_xor_si128(h, _mm_and_si128(out, _mm_set_epi64x((long long)0xc200000000000000, 1)));
    for (int i = LANES - 2; i >= 0; i--)
        powers[i] = multiply(powers[i + 1], powers[LANES - 1]);
    memcpy(keys->powers, powers, sizeof powers);
    wipe(x, sizeof x);
    wipe(blocks, sizeof blocks);
    wipe(powers, sizeof powers);
}

static void finish(const struct keys *keys, __m128i hash, size_t aad, size_t size, uint8_t *tag)
{
    uint8_t lengths[BLOCK];

    for (int i = 0; i < 8; i++) {
        lengths[i] = (uint8_t)((uint64_t)aad * 8 >> (56 - 8 * i));
        lengths[8 + i] = (uint8_t)((uint64_t)size * 8 >> (56 - 8 * i));
    }
    hash = swapped(absorb_bytes(keys, hash, lengths, sizeof lengths));
    hash = _mm_xor_si128(hash, _mm_loadu_si128((const __m128i *)keys->mask));
    _mm_storeu_si128((__m128i *)tag, hash);
}

INLINE void hide(const uint8_t *in, const __m512i *x, uint8_t *out)
{
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++)
        _mm512_storeu_si512(out + 64 * i, _mm512_xor_si512(_mm512_loadu_si512(in + 64 * i), x[i]));
}

/* Add the key stream, from counter 2 on, to `in`; with `hash`, take in what comes out. */
INLINE void add_stream(const struct keys *keys, const uint8_t *in, size_t size, uint8_t *out, __m128i *hash)
{
    uint32_t counter = 2;
    uint8_t last[GROUP];
    __m512i x[WIDE][4];

    for (; size >= WIDE * GROUP; size -= WIDE * GROUP, counter += WIDE * LANES) {
        stream(keys, counter, x, WIDE);
#pragma GCC unroll 4
        for (int g = 0; g < WIDE; g++, in += GROUP, out += GROUP) {
            hide(in, x[g], out);
            if (hash)
                *hash = absorb(keys, *hash, out);
        }
    }
    for (; size > 0; counter += LANES) {
        size_t now = size < GROUP ? size : GROUP;

        stream(keys, counter, x, 1);
        memcpy(last, in, now);
        hide(last, x[0], last);
        memcpy(out, last, now);
        if (hash)
            *hash = absorb_bytes(keys, *hash, out, now);
        size -= now, in += now, out += now;
    }
    wipe(last, sizeof last);
    wipe(x, sizeof x);
}

void sm4_seal(const uint8_t *key, const uint8_t *nonce, struct bytes plaintext, struct bytes aad, uint8_t *out)
{
    struct keys keys;

    prepare(&keys, key, nonce);
    __m128i hash = absorb_bytes(&keys, _mm_setzero_si128(), aad.at, aad.size);
    add_stream(&keys, plaintext.at, plaintext.size, out, &hash);
    finish(&keys, hash, aad.size, plaintext.size, out + plaintext.size);
    wipe(&keys, sizeof keys);
}

int sm4_open(const uint8_t *key, const uint8_t *nonce, struct bytes ciphertext, const uint8_t *tag, struct bytes aad,
             uint8_t *out)
{
    struct keys keys;
    uint8_t wanted[SM4_TAG], differing = 0;

    prepare(&keys, key, nonce);
    __m128i hash = absorb_bytes(&keys, _mm_setzero_si128(), aad.at, aad.size);
    hash = absorb_bytes(&keys, hash, ciphertext.at, ciphertext.size);
    finish(&keys, hash, aad.size, ciphertext.size, wanted);
    for (int i = 0; i < SM4_TAG; i++)
        differing |= wanted[i] ^ tag[i];
    if (differing == 0)
        add_stream(&keys, ciphertext.at, ciphertext.size, out, NULL);
    wipe(&keys, sizeof keys);
    wipe(wanted, sizeof wanted);
    return differing == 0 ? 0 : -1;
}

#endif
