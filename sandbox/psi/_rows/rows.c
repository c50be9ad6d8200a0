#include "rows.h"

#include <stdlib.h>
#include <string.h>

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
#define LITTLE32(value) __builtin_bswap32(value)
#define LITTLE64(value) __builtin_bswap64(value)
#else
#define LITTLE32(value) (value)
#define LITTLE64(value) (value)
#endif

/* Words are little-endian on every machine, as in Python. */
static inline uint32_t word(const uint8_t *at)
{
    uint32_t value;

    memcpy(&value, at, sizeof value);
    return LITTLE32(value);
}

static inline uint64_t scatter(uint64_t x)
{
    x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
    return x ^ x >> 31;
}

void rows_digest(const int64_t *offsets, size_t count, const uint8_t *data, const uint64_t *factors, uint64_t *out)
{
    for (size_t i = 0; i < count; i++, out += DIGEST) {
        const uint8_t *key = data + offsets[i];
        size_t size = (size_t)(offsets[i + 1] - offsets[i]);
        const uint64_t *factor = factors + 2 * LANES;
        uint64_t sums[LANES];

        for (int lane = 0; lane < LANES; lane++)
            sums[lane] = factors[lane] + factors[LANES + lane] * (uint64_t)size;
        for (; size >= 4; key += 4, size -= 4, factor += LANES)
            for (int lane = 0; lane < LANES; lane++)
                sums[lane] += word(key) * factor[lane];
        if (size > 0) {
            uint32_t last = key[0] | (size > 1 ? (uint32_t)key[1] << 8 : 0) | (size > 2 ? (uint32_t)key[2] << 16 : 0);

            for (int lane = 0; lane < LANES; lane++)
                sums[lane] += last * factor[lane];
        }
        uint64_t second = sums[2] >> 32 << 32 | sums[3] >> 32;
        out[0] = (sums[0] >> 32 << 32 | sums[1] >> 32) ^ scatter(second);
        out[1] = second;
    }
}

/* --- order ----------------------------------------------------------------------------------------------------------
 *
 * Digests are as good as random: dealt by their leading bits into as many heaps as there are of them, a heap has about
 * one, and a heap of many, which somebody must have made, is still sorted in time.
 */
struct entry {
    uint64_t first;
    uint64_t place;
};

enum { FEW = 24 };

static int later(const uint64_t *digests, const struct entry *a, const struct entry *b)
{
    if (a->first != b->first)
        return a->first > b->first;
    return digests[DIGEST * a->place + 1] > digests[DIGEST * b->place + 1];
}

/* Sift down in a heap whose greatest entry is its root. */
static void sift(const uint64_t *digests, struct entry *heap, size_t root, size_t count)
{
    for (size_t child; (child = 2 * root + 1) < count; root = child) {
        struct entry held = heap[root];

        if (child + 1 < count && later(digests, &heap[child + 1], &heap[child]))
            child++;
        if (!later(digests, &heap[child], &held))
            return;
        heap[root] = heap[child];
        heap[child] = held;
    }
}

static void sort(const uint64_t *digests, struct entry *entries, size_t count)
{
    if (count <= FEW) {
        for (size_t i = 1; i < count; i++) {
            struct entry held = entries[i];
            size_t j = i;

            for (; j > 0 && later(digests, &entries[j - 1], &held); j--)
                entries[j] = entries[j - 1];
            entries[j] = held;
        }
        return;
    }
    for (size_t root = count / 2; root-- > 0;)
        sift(digests, entries, root, count);
    for (size_t last = count; last-- > 1;) {
        struct entry held = entries[0];

        entries[0] = entries[last];
        entries[last] = held;
        sift(digests, entries, 0, last);
    }
}

int rows_order(const uint64_t *digests, size_t count, uint64_t *kept, int64_t *out)
{
    struct entry *entries = (struct entry *)kept;
    uint64_t least = UINT64_MAX, most = 0;
    int shift = 0, twice = 0;

    if (count == 0)
        return 0;
    for (size_t i = 0; i < count; i++) {
        uint64_t first = digests[DIGEST * i];
        least = first < least ? first : least;
        most = first > most ? first : most;
    }
    while (((most - least) >> shift) >= count)
        shift++;
    /* `out` counts, then says where each heap begins, then is written. */
    memset(out, 0, count * sizeof *out);
    for (size_t i = 0; i < count; i++)
        out[(digests[DIGEST * i] - least) >> shift]++;
    int64_t before = 0;
    for (size_t i = 0; i < count; i++) {
        int64_t size = out[i];
        out[i] = before;
        before += size;
    }
    for (size_t i = 0; i < count; i++) {
        uint64_t first = digests[DIGEST * i];
        struct entry *at = &entries[out[(first - least) >> shift]++];
        at->first = first, at->place = i;
    }
    for (size_t i = 0, begin = 0; i < count; begin = (size_t)out[i], i++)
        if ((size_t)out[i] - begin > 1)
            sort(digests, entries + begin, (size_t)out[i] - begin);
    for (size_t i = 0; i < count; i++) {
        if (i > 0 && entries[i].first == entries[i - 1].first)
            twice |= digests[DIGEST * entries[i].place + 1] == digests[DIGEST * entries[i - 1].place + 1];
        out[i] = (int64_t)entries[i].place;
    }
    return twice;
}

void rows_shuffle(const uint64_t *random, size_t count, int64_t *out)
{
    for (size_t i = 0; i < count; i++) {
        /* Uniform below i + 1, but for one part in 2^64 / count. */
        size_t other = (size_t)((unsigned __int128)random[i] * (i + 1) >> 64);

        out[i] = out[other];
        out[other] = (int64_t)i;
    }
}

/* --- the engine's files --------------------------------------------------------------------------------------------- */

/* Eight digits of four bytes, the first byte first. */
static inline uint64_t digits(uint32_t bytes)
{
    const uint64_t each = UINT64_C(0x0101010101010101);
    uint64_t x = bytes;

    x = (x | x << 16) & UINT64_C(0x0000ffff0000ffff);
    x = (x | x << 8) & UINT64_C(0x00ff00ff00ff00ff);
    x = (x >> 4 | x << 8) & 15 * each;
    return x + '0' * each + ((x + 6 * each) >> 4 & each) * ('a' - '0' - 10);
}

static inline void hexadecimal(const uint64_t *digest, uint8_t *out)
{
    for (int i = 0; i < 4; i++) {
        uint64_t text = LITTLE64(digits((uint32_t)(digest[i / 2] >> 32 * (i % 2))));
        memcpy(out + 8 * i, &text, sizeof text);
    }
}

void rows_write(const uint64_t *digests, size_t count, uint32_t first, uint8_t *out)
{
    for (size_t i = 0; i < count; i++, out += LINE) {
        uint32_t number = first + (uint32_t)i;

        hexadecimal(digests + DIGEST * i, out);
        out[32] = ',';
        for (int place = 40; place > 32; place--, number /= 10)
            out[place] = (uint8_t)('0' + number % 10);
        out[41] = '\n';
    }
}

enum rows_wrong rows_read(const uint8_t *lines, size_t count, const uint64_t *digests, size_t digest_count,
                          uint8_t *seen, int64_t *out)
{
    uint8_t wanted[32];

    for (size_t i = 0; i < count; i++, lines += LINE) {
        uint32_t number = 0;

        if (lines[32] != ',' || lines[41] != '\n')
            return ROWS_FORM;
        for (int place = 33; place < 41; place++) {
            if (lines[place] < '0' || lines[place] > '9')
                return ROWS_NUMBER;
            number = 10 * number + (uint32_t)(lines[place] - '0');
        }
        if (number >= digest_count)
            return ROWS_UNKNOWN;
        if (seen[number])
            return ROWS_TWICE;
        seen[number] = 1;
        hexadecimal(digests + DIGEST * number, wanted);
        if (memcmp(wanted, lines, sizeof wanted) != 0)
            return ROWS_OTHER;
        out[i] = number;
    }
    return ROWS_SOUND;
}

/* The number that eight digits say; what are none give some other number. */
static inline uint32_t value(uint64_t text)
{
    const uint64_t each = UINT64_C(0x0101010101010101);
    uint64_t x = __builtin_bswap64((text & 15 * each) + (text >> 6 & each) * 9);

    x = (x | x >> 4) & UINT64_C(0x00ff00ff00ff00ff);
    x = (x | x >> 8) & UINT64_C(0x0000ffff0000ffff);
    return (uint32_t)(x | x >> 16);
}

enum rows_wrong rows_sum(const uint8_t *lines, size_t count, uint64_t *sums)
{
    uint64_t differing = 0;

    memset(sums, 0, 4 * sizeof *sums);
    for (size_t i = 0; i < count; i++, lines += LINE)
        for (int part = 0; part < 4; part++) {
            uint64_t text;

            memcpy(&text, lines + 8 * part, sizeof text);
            uint32_t number = value(LITTLE64(text));
            sums[3 - part] += number;
            differing |= digits(__builtin_bswap32(number)) ^ LITTLE64(text);
        }
    return differing ? ROWS_FORM : ROWS_SOUND;
}
