/* What the Python face calls. Eight numbers at a time, one a lane of AVX512-IFMA; what does not fill eight lanes is
 * filled up.
 *
 * Numbers are `size` bytes, big-endian, less than the modulus, one after another. All functions return 0, or -1 if
 * there is no memory for the work space, which is wiped. None touches the Python interpreter.
 */
#ifndef MODEXP_BACKEND_H
#define MODEXP_BACKEND_H

#include <stddef.h>
#include <stdint.h>

enum { LIMB_BITS = 52, BLOCK = 10, LANES = 8 };
enum { MIN_BITS = 1024, MAX_BITS = 6144, MAX_LIMBS = 120, MAX_EXPONENT = 1024 /* bytes */, MAX_WINDOW = 12 };

#define LIMB_MASK ((UINT64_C(1) << LIMB_BITS) - 1)

/* Montgomery's form with R = 2^(52 limbs). `limbs` is the least multiple of BLOCK that leaves two bits: of 1024 bits
 * each the modulus needs 19.7 limbs, so for the lengths in use next to nothing is lost. */
struct modulus {
    size_t size, limbs;
    uint64_t inverse;                          /* -1/n modulo 2^52 */
    uint64_t n[MAX_LIMBS];
    uint64_t one[MAX_LIMBS], square[MAX_LIMBS]; /* R and R^2 modulo n */
};

/* Powers of one base: for window i and digit d, base^(d 2^(i window)) in Montgomery's form. They lie as the scan reads
 * them: window, block of limbs, eight digits, limb, digit. */
struct table {
    struct modulus modulus;
    size_t bits, window, windows, digits; /* digits: 2^window, at least LANES */
    uint64_t *powers;
    size_t powers_size; /* bytes */
};

/* Take in a modulus, R and R^2 modulo it, all of the same size; return -1 unless it is odd and its length in range. */
int modexp_prepare(struct modulus *out, const uint8_t *n, const uint8_t *one, const uint8_t *square, size_t size);

/* Overwrite memory in a way that the compiler may not leave out. */
void modexp_wipe(void *memory, size_t size);

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define MODEXP_HAS_IFMA 1

/* Products of pairs. */
int modexp_multiply(const struct modulus *m, const uint8_t *left, const uint8_t *right, size_t count, uint8_t *out);

/* Products of runs: run i is of the elements order[starts[i]] up to order[starts[i + 1]]. powers[k] is R^k, for
 * k = 0 up to the length of the longest run. */
int modexp_chains(const struct modulus *m, const uint8_t *powers, const uint8_t *elements, const int64_t *order,
                  const int64_t *starts, size_t runs, uint8_t *out);

/* Every element to the same power. No branch and no address depends on the exponent but for its size in bytes. */
int modexp_power(const struct modulus *m, const uint8_t *elements, size_t count, const uint8_t *exponent,
                 size_t exponent_size, uint8_t *out);

/* Fill `powers` of a table whose other fields are set. */
int modexp_fill(struct table *t, const uint8_t *base);

/* The base to each power; an exponent is (bits + 7) / 8 bytes, big-endian. No branch and no address depends on an
 * exponent: each window is read whole. */
int modexp_look_up(const struct table *t, const uint8_t *exponents, size_t count, uint8_t *out);
#endif

#endif
