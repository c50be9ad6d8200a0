/* Template: between big-endian bytes, number after number, and limbs, eight numbers side by side.
 *
 * Eight limbs are 52 bytes, and eight numbers of eight limbs a square that is turned over.
 */
enum { CHUNK = LIMB_BITS * LANES / 8 };

static const uint8_t LIMBS_FROM_BYTES[64] __attribute__((aligned(64))) = {
#define LIMB(end) end, end - 1, end - 2, end - 3, end - 4, end - 5, end - 6
    /* 63 is past the chunk: zero */
    LIMB(51), 44, LIMB(45), 38, LIMB(38), 31, LIMB(32), 25, LIMB(25), 18, LIMB(19), 12, LIMB(12), 5, LIMB(6), 63,
#undef LIMB
};
static const uint8_t BYTES_FROM_PAIRS[64] __attribute__((aligned(64))) = {
#define PAIR(end) end, end - 1, end - 2, end - 3, end - 4, end - 5, end - 6, end - 7, end - 8, end - 9, end - 10,      \
                  end - 11, end - 12
    PAIR(60), PAIR(44), PAIR(28), PAIR(12),
#undef PAIR
};

static void transpose(limb row[LANES])
{
    __m512i pairs[LANES], fours[LANES];

    UNROLL(LANES) for (int i = 0; i < LANES; i += 2)
    {
        pairs[i] = _mm512_unpacklo_epi64((__m512i)row[i], (__m512i)row[i + 1]);
        pairs[i + 1] = _mm512_unpackhi_epi64((__m512i)row[i], (__m512i)row[i + 1]);
    }
    UNROLL(2) for (int i = 0; i < 2; i++)
    {
        fours[i] = _mm512_shuffle_i64x2(pairs[i], pairs[i + 2], 0x88);
        fours[i + 2] = _mm512_shuffle_i64x2(pairs[i], pairs[i + 2], 0xdd);
        fours[i + 4] = _mm512_shuffle_i64x2(pairs[i + 4], pairs[i + 6], 0x88);
        fours[i + 6] = _mm512_shuffle_i64x2(pairs[i + 4], pairs[i + 6], 0xdd);
    }
    UNROLL(4) for (int i = 0; i < 4; i++)
    {
        row[i] = (limb)_mm512_shuffle_i64x2(fours[i], fours[i + 4], 0x88);
        row[i + 4] = (limb)_mm512_shuffle_i64x2(fours[i], fours[i + 4], 0xdd);
    }
}

/* The limbs of a chunk that lies in memory as a whole. */
static inline limb load_chunk(const uint8_t *from)
{
    const limb shifts = {0, 4, 0, 4, 0, 4, 0, 4};
    __m512i bytes = _mm512_maskz_loadu_epi8((UINT64_C(1) << CHUNK) - 1, from);
    limb spread = (limb)_mm512_permutexvar_epi8(_mm512_load_si512(LIMBS_FROM_BYTES), bytes);

    return (spread >> shifts) & LIMB_MASK;
}

static inline void store_chunk(uint8_t *to, limb limbs)
{
    __m512i odd = _mm512_unpackhi_epi64((__m512i)limbs, (__m512i)limbs);
    __m512i low = _mm512_or_si512((__m512i)limbs, _mm512_slli_epi64(odd, LIMB_BITS));
    __m512i pairs = _mm512_mask_srli_epi64(low, 0xaa, odd, 64 - LIMB_BITS);
    __m512i bytes = _mm512_permutexvar_epi8(_mm512_load_si512(BYTES_FROM_PAIRS), pairs);

    _mm512_mask_storeu_epi8(to, (UINT64_C(1) << CHUNK) - 1, bytes);
}

/* One number a lane, each from its own place. The chunk with the first byte may have less, the last may have none. */
static void load_numbers(limb *out, const uint8_t *const from[LANES], const struct modulus *m)
{
    size_t left = m->size;

    for (size_t at = 0; at < m->limbs; at += LANES) {
        uint8_t padded[LANES][CHUNK];
        limb row[LANES];

        if (left >= CHUNK) {
            left -= CHUNK;
            UNROLL(LANES) for (size_t lane = 0; lane < LANES; lane++)
                row[lane] = load_chunk(from[lane] + left);
        } else {
            memset(padded, 0, sizeof padded);
            for (size_t lane = 0; lane < LANES; lane++) {
                memcpy(padded[lane] + CHUNK - left, from[lane], left);
                row[lane] = load_chunk(padded[lane]);
            }
            left = 0;
        }
        transpose(row);
        for (size_t i = 0; i < LANES && at + i < m->limbs; i++)
            out[at + i] = row[i];
    }
}

/* The first `count` lanes, one number after another. */
static void store_numbers(uint8_t *to, const limb *numbers, size_t count, const struct modulus *m)
{
    size_t left = m->size;

    for (size_t at = 0; left > 0; at += LANES) {
        uint8_t padded[CHUNK];
        limb row[LANES];

        for (size_t i = 0; i < LANES; i++)
            row[i] = at + i < m->limbs ? numbers[at + i] : zeros[0];
        transpose(row);
        if (left >= CHUNK) {
            left -= CHUNK;
            for (size_t lane = 0; lane < count; lane++)
                store_chunk(to + m->size * lane + left, row[lane]);
        } else {
            for (size_t lane = 0; lane < count; lane++) {
                store_chunk(padded, row[lane]);
                memcpy(to + m->size * lane, padded + CHUNK - left, left);
            }
            left = 0;
        }
    }
}
