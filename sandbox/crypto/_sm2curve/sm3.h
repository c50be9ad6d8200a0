/* Template: SM3 on SM3_LANES messages at once, and expand_message_xmd on it.
 *
 * Source: GB/T 32905-2016; RFC 9380, 5.3.1. The time depends on the lengths of the messages, not on what is in them.
 */

typedef uint32_t word __attribute__((vector_size(4 * SM3_LANES)));

enum { SM3_BLOCK = 64, SM3_WORDS = 8, SM3_DIGEST = 4 * SM3_WORDS, NUMBERED = SM3_DIGEST + 1 };
enum { TAG_BLOCKS = (NUMBERED + MAX_TAG + 1 + 9 + SM3_BLOCK - 1) / SM3_BLOCK };

#define ROTATE(x, n) ((x) << (n) | (x) >> (32 - (n)))

/* The constants of the rounds, already rotated. */
#define TURNED(t, j) ((uint32_t)((uint64_t)(t) << (j) % 32 | (uint64_t)(t) >> (32 - (j) % 32)))
#define EIGHT(t, j)                                                                                                    \
    TURNED(t, j), TURNED(t, j + 1), TURNED(t, j + 2), TURNED(t, j + 3), TURNED(t, j + 4), TURNED(t, j + 5),            \
        TURNED(t, j + 6), TURNED(t, j + 7)
#define EARLY 0x79cc4519u
#define LATE 0x7a879d8au
static const uint32_t round_constants[64] = {EIGHT(EARLY, 0), EIGHT(EARLY, 8), EIGHT(LATE, 16), EIGHT(LATE, 24),
                                             EIGHT(LATE, 32), EIGHT(LATE, 40), EIGHT(LATE, 48), EIGHT(LATE, 56)};

#define PARITY(x, y, z) ((x) ^ (y) ^ (z))
#define MAJORITY(x, y, z) (((x) & (y)) | ((z) & ((x) | (y))))
#define CHOICE(x, y, z) ((((y) ^ (z)) & (x)) ^ (z))

/* One round; the words are not moved but named anew, four rounds in turn. */
#define ROUND(FF, GG, a, b, c, d, e, f, g, h, j)                                                                       \
    do {                                                                                                               \
        word a12 = ROTATE(a, 12), ss1 = a12 + (e + round_constants[j]);                                                \
        ss1 = ROTATE(ss1, 7);                                                                                          \
        d += FF(a, b, c) + (w[j] ^ w[(j) + 4]);                                                                        \
        d += ss1 ^ a12;                                                                                                \
        h += GG(e, f, g) + w[j];                                                                                       \
        h += ss1;                                                                                                      \
        h ^= ROTATE(h, 9) ^ ROTATE(h, 17);                                                                             \
        b = ROTATE(b, 9);                                                                                              \
        f = ROTATE(f, 19);                                                                                             \
    } while (0)

#define FOUR_ROUNDS(FF, GG, j)                                                                                         \
    ROUND(FF, GG, a, b, c, d, e, f, g, h, j);                                                                          \
    ROUND(FF, GG, d, a, b, c, h, e, f, g, (j) + 1);                                                                    \
    ROUND(FF, GG, c, d, a, b, g, h, e, f, (j) + 2);                                                                    \
    ROUND(FF, GG, b, c, d, a, f, g, h, e, (j) + 3)

static inline void extend_words(word w[68], int from)
{
#pragma GCC unroll 4
    for (int j = from; j < from + 4; j++) {
        word x = w[j - 16] ^ w[j - 9] ^ ROTATE(w[j - 3], 15);

        w[j] = x ^ ROTATE(x, 15) ^ ROTATE(x, 23) ^ ROTATE(w[j - 13], 7) ^ w[j - 6];
    }
}

static void compress(word state[SM3_WORDS], const word block[16])
{
    word w[68], a = state[0], b = state[1], c = state[2], d = state[3];
    word e = state[4], f = state[5], g = state[6], h = state[7];

    memcpy(w, block, 16 * sizeof w[0]);
    for (int j = 0; j < 16; j += 4) {
        if (j == 12)
            extend_words(w, 16);
        FOUR_ROUNDS(PARITY, PARITY, j);
    }
    for (int j = 16; j < 64; j += 4) {
        extend_words(w, j + 4);
        FOUR_ROUNDS(MAJORITY, CHOICE, j);
    }
    state[0] ^= a, state[1] ^= b, state[2] ^= c, state[3] ^= d;
    state[4] ^= e, state[5] ^= f, state[6] ^= g, state[7] ^= h;
}

static void start(word state[SM3_WORDS])
{
    static const uint32_t initial[SM3_WORDS] = {0x7380166f, 0x4914b2b9, 0x172442d7, 0xda8a0600,
                                                0xa96f30bc, 0x163138aa, 0xe38dee4d, 0xb0fb0e4e};

    for (int i = 0; i < SM3_WORDS; i++)
        state[i] = (word){0} + initial[i];
}

/* Take in padded messages of blocks[lane] blocks each; a lane that has ended keeps its state. */
static void absorb(word state[SM3_WORDS], uint8_t *const messages[SM3_LANES], const size_t blocks[SM3_LANES])
{
    size_t most = 0;

    for (int lane = 0; lane < SM3_LANES; lane++)
        most = blocks[lane] > most ? blocks[lane] : most;
    for (size_t at = 0; at < most; at++) {
        word block[16], next[SM3_WORDS], going;
        uint32_t rows[16][SM3_LANES], goes[SM3_LANES];

        for (int lane = 0; lane < SM3_LANES; lane++) {
            const uint8_t *from = messages[lane] + SM3_BLOCK * (at < blocks[lane] ? at : 0);

            goes[lane] = at < blocks[lane] ? UINT32_MAX : 0;
            for (int i = 0; i < 16; i++)
                rows[i][lane] = load_be32(from + 4 * i);
        }
        memcpy(block, rows, sizeof block);
        memcpy(&going, goes, sizeof going);
        memcpy(next, state, sizeof next);
        compress(next, block);
        for (int i = 0; i < SM3_WORDS; i++)
            state[i] ^= (state[i] ^ next[i]) & going;
    }
}

/* Put the padding after `size` bytes of a message of which `before` bytes have been taken in already; return blocks. */
static size_t pad(uint8_t *message, size_t size, size_t before)
{
    size_t blocks = (size + 9 + SM3_BLOCK - 1) / SM3_BLOCK;

    message[size] = 0x80;
    memset(message + size + 1, 0, SM3_BLOCK * blocks - size - 9);
    store_be64(message + SM3_BLOCK * blocks - 8, 8 * (uint64_t)(before + size));
    return blocks;
}

/* What all messages have in common. */
struct expansion {
    word padded[SM3_WORDS];    /* the state after Z_pad, a block of zeros */
    word tag[TAG_BLOCKS][16];  /* number || tag, padded, behind the digest that goes before; the number is 0 */
    size_t tag_blocks;
    uint8_t suffix[3 + MAX_TAG + 1]; /* how much is asked for || 0 || tag, behind the message */
    size_t suffix_size;
    uint8_t *messages[SM3_LANES];
};

static void prepare(struct expansion *with, const uint8_t *tag, size_t tag_size)
{
    uint8_t bytes[SM3_BLOCK * TAG_BLOCKS] = {0};

    start(with->padded);
    compress(with->padded, (word[16]){{0}});
    memcpy(with->suffix, "\0\x60\0", 3); /* 96 bytes */
    memcpy(with->suffix + 3, tag, tag_size);
    with->suffix[3 + tag_size] = (uint8_t)tag_size;
    with->suffix_size = 3 + tag_size + 1;
    memcpy(bytes + NUMBERED, with->suffix + 3, tag_size + 1);
    with->tag_blocks = pad(bytes, NUMBERED + tag_size + 1, 0);
    for (size_t i = 0; i < 16 * with->tag_blocks; i++)
        with->tag[i / 16][i % 16] = (word){0} + load_be32(bytes + 4 * i);
}

static void expand_group(const struct expansion *with, const uint8_t *data, const int64_t *offsets, int count,
                         uint8_t *out)
{
    word first[SM3_WORDS], state[SM3_WORDS] = {{0}}, block[16];
    size_t blocks[SM3_LANES];

    for (int lane = 0; lane < SM3_LANES; lane++) {
        int item = lane < count ? lane : count - 1;
        size_t size = (size_t)(offsets[item + 1] - offsets[item]);
        uint8_t *message = with->messages[lane];

        if (size)
            memcpy(message, data + offsets[item], size);
        memcpy(message + size, with->suffix, with->suffix_size);
        blocks[lane] = pad(message, size + with->suffix_size, SM3_BLOCK);
    }
    memcpy(first, with->padded, sizeof first);
    absorb(first, with->messages, blocks); /* b_0 */
    for (uint32_t number = 1; number <= UNIFORM_BYTES / SM3_DIGEST; number++) {
        uint32_t rows[SM3_WORDS][SM3_LANES];

        memcpy(block, with->tag[0], sizeof block);
        for (int i = 0; i < SM3_WORDS; i++)
            block[i] = first[i] ^ state[i];
        block[SM3_WORDS] |= (word){0} + (number << 24);
        start(state);
        compress(state, block);
        for (size_t at = 1; at < with->tag_blocks; at++)
            compress(state, with->tag[at]);
        memcpy(rows, state, sizeof rows);
        for (int lane = 0; lane < count; lane++)
            for (int i = 0; i < SM3_WORDS; i++)
                store_be32(out + UNIFORM_BYTES * lane + SM3_DIGEST * (number - 1) + 4 * (uint32_t)i, rows[i][lane]);
    }
}

static int expand(const uint8_t *data, const int64_t *offsets, size_t count, const uint8_t *tag, size_t tag_size,
                  uint8_t *out)
{
    struct expansion with;
    int64_t longest = 0;

    for (size_t i = 0; i < count; i++)
        longest = offsets[i + 1] - offsets[i] > longest ? offsets[i + 1] - offsets[i] : longest;
    prepare(&with, tag, tag_size);
    size_t room = ((size_t)longest + with.suffix_size + 9 + SM3_BLOCK - 1) / SM3_BLOCK * SM3_BLOCK;
    uint8_t *work = malloc(room * SM3_LANES);
    if (work == NULL)
        return -1;
    for (int lane = 0; lane < SM3_LANES; lane++)
        with.messages[lane] = work + room * (size_t)lane;
    for (size_t at = 0; at < count; at += SM3_LANES) {
        size_t left = count - at;

        expand_group(&with, data, offsets + at, (int)(left < SM3_LANES ? left : SM3_LANES), out + UNIFORM_BYTES * at);
    }
    sm2curve_wipe(work, room * SM3_LANES);
    free(work);
    return 0;
}
