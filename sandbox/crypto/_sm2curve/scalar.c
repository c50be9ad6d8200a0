/* The secret scalar: range check, recoding, wiping. Nothing here branches on it but the refusal itself.
 *
 * Source: M. Joye and M. Tunstall, "Exponent recoding and regular exponentiation algorithms", AFRICACRYPT 2009: an odd
 *         k becomes digits d = (k mod 64) - 32, k = (k - d) / 32, all odd, never zero. After 51 digits a 1 is left for
 *         every k < 2^256. The order n is odd, so exactly one of k and n - k is odd; the other's product differs in
 *         the sign of y.
 */
#include "backend.h"
#include "bytes.h"

static const uint64_t order[4] = {0x53bbf40939d54123u, 0x7203df6b21c6052bu, 0xffffffffffffffffu, 0xfffffffeffffffffu};

int sm2curve_recode(struct recoded *out, const uint8_t scalar[SCALAR_BYTES])
{
    uint64_t k[5] = {0}, rest[4], borrow = 0, any = 0;

    for (int i = 0; i < SCALAR_BYTES; i++)
        k[i / 8] |= (uint64_t)scalar[SCALAR_BYTES - 1 - i] << (8 * (i % 8));
    for (int i = 0; i < 4; i++) {
        unsigned __int128 difference = (unsigned __int128)order[i] - k[i] - borrow;

        rest[i] = (uint64_t)difference;
        borrow = (uint64_t)(difference >> 64) & 1;
        any |= k[i];
    }
    uint64_t left = rest[0] | rest[1] | rest[2] | rest[3];
    /* k > n, k = 0, or k = n */
    int refused = (int)opaque(borrow | ~(any | (0 - any)) >> 63 | ~(left | (0 - left)) >> 63);

    out->flip = opaque((k[0] & 1) - 1);
    for (int i = 0; i < 4; i++)
        k[i] ^= (k[i] ^ rest[i]) & out->flip;
    for (int digit = 0; digit < DIGITS; digit++) {
        uint64_t low = k[0] & 63, negative = opaque((low >> 5) - 1);

        /* |low - 32| without a branch, then its half: both are odd. */
        out->negative[digit] = negative;
        out->magnitude[digit] = (((low - 32) ^ negative) - negative) >> 1;
        for (int i = 0; i < 4; i++)
            k[i] = k[i] >> 5 | k[i + 1] << 59;
        k[0] |= 1;
    }
    sm2curve_wipe(k, sizeof k);
    sm2curve_wipe(rest, sizeof rest);
    return refused ? -1 : 0;
}

void sm2curve_wipe(void *memory, size_t size)
{
    memset(memory, 0, size);
    __asm__ __volatile__("" : : "r"(memory) : "memory");
}
