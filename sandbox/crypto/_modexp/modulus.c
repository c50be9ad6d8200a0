/* What is done once a modulus, one number at a time. */
#include "backend.h"

#include <string.h>

/* The limbs of a big-endian number. */
static void limbs_of(uint64_t out[MAX_LIMBS], const uint8_t *from, size_t size)
{
    memset(out, 0, MAX_LIMBS * sizeof out[0]);
    for (size_t i = 0; i < size; i++) {
        uint64_t byte = from[size - 1 - i];
        size_t limb = 8 * i / LIMB_BITS, shift = 8 * i % LIMB_BITS;

        out[limb] |= byte << shift & LIMB_MASK;
        if (shift > LIMB_BITS - 8)
            out[limb + 1] |= byte >> (LIMB_BITS - shift);
    }
}

int modexp_prepare(struct modulus *out, const uint8_t *n, const uint8_t *one, const uint8_t *square, size_t size)
{
    if (size < MIN_BITS / 8 || size > MAX_BITS / 8 || n[0] == 0 || !(n[size - 1] & 1) ||
        (size == MIN_BITS / 8 && n[0] < 0x80))
        return -1;
    /* Two bits more than the modulus: numbers may then be anything below 2 n between multiplications. */
    size_t bits = 8 * size + 2;
    out->size = size;
    out->limbs = (bits + LIMB_BITS * BLOCK - 1) / (LIMB_BITS * BLOCK) * BLOCK;
    limbs_of(out->n, n, size);
    limbs_of(out->one, one, size);
    limbs_of(out->square, square, size);
    out->inverse = 1; /* right modulo 2; each step doubles the number of bits */
    for (int step = 0; step < 6; step++)
        out->inverse *= 2 - out->n[0] * out->inverse;
    out->inverse = (0 - out->inverse) & LIMB_MASK;
    return 0;
}

void modexp_wipe(void *memory, size_t size)
{
    memset(memory, 0, size);
    __asm__ __volatile__("" : : "r"(memory) : "memory");
}
