/* Template: SM3 on SM3_LANES messages at once, and expand_message_xmd on it.
 *
 * Source: GB/T 32905-2016; RFC 9380, 5.3.1. The time depends on the lengths of the messages, not on what is in them.
 */

typedef uint32_t word __attribute__((vector_size(4 * SM3_LANES)));

enum { SM3_BLOCK = 64, SM3_DIGEST = 32 };

#define ROTATE(x, n) ((x) << (n) | (x) >> (32 - (n)))

static void compress(word state[8], const word block[16])
{
    word w[68], a = state[0], b = state[1], c = state[2], d = state[3];
    word e = state[4], f = state[5], g = state[6], h = state[7];

    for (int j = 0; j < 16; j++)
        w[j] = block[j];
    for (int j = 16; j < 68; j++) {
        word x = w[j - 16] ^ w[j - 9] ^ ROTATE(w[j - 3], 15);

        w[j] = x ^ ROTATE(x, 15) ^ ROTATE(x, 23) ^ ROTATE(w[j - 13], 7) ^ w[j - 6];
    }
    for (int j = 0; j < 64; j++) {
        uint32_t t = j < 16 ? 0x79cc4519u : 0x7a879d8au;
        int by = j % 32;
        word a12 = ROTATE(a, 12), sum = a12 + e + (by ? ROTATE(t, by) : t);
        word ss1 = ROTATE(sum, 7), ss2 = ss1 ^ a12;
        word ff = j < 16 ? a ^ b ^ c : (a & b) | (a & c) | (b & c);
        word gg = j < 16 ? e ^ f ^ g : (e & f) | (~e & g);
        word tt1 = ff + d + ss2 + (w[j] ^ w[j + 4]), tt2 = gg + h + ss1 + w[j];

        d = c;
        c = ROTATE(b, 9);
        b = a;
        a = tt1;
        h = g;
        g = ROTATE(f, 19);
        f = e;
        e = tt2 ^ ROTATE(tt2, 9) ^ ROTATE(tt2, 17);
    }
    state[0] ^= a, state[1] ^= b, state[2] ^= c, state[3] ^= d;
    state[4] ^= e, state[5] ^= f, state[6] ^= g, state[7] ^= h;
}

static void start(word state[8])
{
    static const uint32_t initial[8] = {0x7380166f, 0x4914b2b9, 0x172442d7, 0xda8a0600,
                                        0xa96f30bc, 0x163138aa, 0xe38dee4d, 0xb0fb0e4e};

    for (int i = 0; i < 8; i++)
        state[i] = (word){0} + initial[i];
}

/* Take in padded messages of blocks[lane] blocks each; a lane that has ended keeps its state. */
static void absorb(word state[8], uint8_t *const messages[SM3_LANES], const size_t blocks[SM3_LANES])
{
    size_t most = 0;

    for (int lane = 0; lane < SM3_LANES; lane++)
        most = blocks[lane] > most ? blocks[lane] : most;
    for (size_t at = 0; at < most; at++) {
        word block[16], next[8], going;
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
        for (int i = 0; i < 8; i++)
            state[i] ^= (state[i] ^ next[i]) & going;
    }
}

/* Put the padding after `size` bytes of a message of which `before` bytes have been taken in already; return blocks. */
static size_t pad(uint8_t *message, size_t size, size_t before)
{
    size_t blocks = (size + 9 + SM3_BLOCK - 1) / SM3_BLOCK;
    uint64_t bits = 8 * (uint64_t)(before + size);

    message[size] = 0x80;
    memset(message + size + 1, 0, SM3_BLOCK * blocks - size - 1);
    for (int i = 0; i < 8; i++)
        message[SM3_BLOCK * blocks - 1 - (size_t)i] = (uint8_t)(bits >> (8 * i));
    return blocks;
}

static void squeeze(uint8_t digest[SM3_LANES][SM3_DIGEST], const word state[8])
{
    uint32_t rows[8][SM3_LANES];

    memcpy(rows, state, sizeof rows);
    for (int lane = 0; lane < SM3_LANES; lane++)
        for (int i = 0; i < SM3_DIGEST; i++)
            digest[lane][i] = (uint8_t)(rows[i / 4][lane] >> (24 - 8 * (i % 4)));
}

/* The tag with its length; room for what is hashed in one lane. */
struct expansion {
    uint8_t tag[MAX_TAG + 1];
    size_t tag_size, room;
    uint8_t *messages[SM3_LANES];
};

static void expand_group(const struct expansion *with, const uint8_t *data, const int64_t *offsets, int count,
                         uint8_t *out)
{
    word first[8], state[8];
    size_t blocks[SM3_LANES];
    uint8_t b0[SM3_LANES][SM3_DIGEST], b[SM3_LANES][SM3_DIGEST] = {{0}};

    start(first);
    compress(first, (word[16]){{0}}); /* Z_pad: one block of zeros */
    for (int lane = 0; lane < SM3_LANES; lane++) {
        int item = lane < count ? lane : count - 1;
        size_t size = (size_t)(offsets[item + 1] - offsets[item]);
        uint8_t *message = with->messages[lane];

        if (size)
            memcpy(message, data + offsets[item], size);
        memcpy(message + size, "\0\x60\0", 3); /* 96 bytes are asked for */
        memcpy(message + size + 3, with->tag, with->tag_size);
        blocks[lane] = pad(message, size + 3 + with->tag_size, SM3_BLOCK);
    }
    absorb(first, with->messages, blocks);
    squeeze(b0, first);
    for (uint8_t number = 1; number <= UNIFORM_BYTES / SM3_DIGEST; number++) {
        for (int lane = 0; lane < SM3_LANES; lane++) {
            uint8_t *message = with->messages[lane];

            for (int i = 0; i < SM3_DIGEST; i++)
                message[i] = b0[lane][i] ^ b[lane][i];
            message[SM3_DIGEST] = number;
            memcpy(message + SM3_DIGEST + 1, with->tag, with->tag_size);
            blocks[lane] = pad(message, SM3_DIGEST + 1 + with->tag_size, 0);
        }
        start(state);
        absorb(state, with->messages, blocks);
        squeeze(b, state);
        for (int lane = 0; lane < count; lane++)
            memcpy(out + UNIFORM_BYTES * lane + SM3_DIGEST * (number - 1), b[lane], SM3_DIGEST);
    }
}

static int expand(const uint8_t *data, const int64_t *offsets, size_t count, const uint8_t *tag, size_t tag_size,
                  uint8_t *out)
{
    struct expansion with = {.tag_size = tag_size + 1};
    int64_t longest = SM3_DIGEST;

    for (size_t i = 0; i < count; i++)
        longest = offsets[i + 1] - offsets[i] > longest ? offsets[i + 1] - offsets[i] : longest;
    memcpy(with.tag, tag, tag_size);
    with.tag[tag_size] = (uint8_t)tag_size;
    with.room = ((size_t)longest + 3 + with.tag_size + 9 + SM3_BLOCK) / SM3_BLOCK * SM3_BLOCK;
    uint8_t *work = malloc(with.room * SM3_LANES);
    if (work == NULL)
        return -1;
    for (int lane = 0; lane < SM3_LANES; lane++)
        with.messages[lane] = work + with.room * (size_t)lane;
    for (size_t at = 0; at < count; at += SM3_LANES) {
        size_t left = count - at;

        expand_group(&with, data, offsets + at, (int)(left < SM3_LANES ? left : SM3_LANES), out + UNIFORM_BYTES * at);
    }
    sm2curve_wipe(work, with.room * SM3_LANES);
    free(work);
    return 0;
}
