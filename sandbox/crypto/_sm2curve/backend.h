/* What the Python face calls: one table of functions a back end, both made from the same templates.
 *
 * Points are 33 bytes, 02 or 03 and x (SEC 1, compressed). An element that is no point is worked on as the base point
 * so that it cannot spoil the others, its 33 bytes of output are zero, and its byte in `bad` is 1.
 * All functions return 0, or -1 if there is no memory for the work space. None touches the Python interpreter.
 */
#ifndef SM2CURVE_BACKEND_H
#define SM2CURVE_BACKEND_H

#include <stddef.h>
#include <stdint.h>

enum { SCALAR_BYTES = 32, POINT_BYTES = 33, UNIFORM_BYTES = 96, MAX_TAG = 255, MAX_MESSAGE = 65535 };
enum { DIGITS = 51 };

/* A scalar as 51 signed odd digits in base 32 under a leading 1: k = 32^51 + sum of digits[i] 32^i. */
struct recoded {
    uint64_t magnitude[DIGITS]; /* (|digit| - 1) / 2: 0 .. 15 */
    uint64_t negative[DIGITS];  /* all ones where the digit is negative */
    uint64_t flip;              /* all ones where the product has to be negated, since n - k was recoded */
};

struct backend {
    const char *name;
    int (*multiply)(const struct recoded *scalar, const uint8_t *points, size_t count, uint8_t *out, uint8_t *bad);
    /* Two field elements of 48 bytes (RFC 9380, 5.2) an item, mapped and added; bad where the sum is at infinity. */
    int (*map)(const uint8_t *uniform, size_t count, uint8_t *out, uint8_t *bad);
    /* The products of what map gives. */
    int (*multiply_mapped)(const struct recoded *scalar, const uint8_t *uniform, size_t count, uint8_t *out,
                           uint8_t *bad);
    /* expand_message_xmd with SM3 to 96 bytes; message i is data[offsets[i]] up to data[offsets[i + 1]]. */
    int (*expand)(const uint8_t *data, const int64_t *offsets, size_t count, const uint8_t *tag, size_t tag_size,
                  uint8_t *out);
};

extern const struct backend sm2curve_portable;
#if defined(__x86_64__) && defined(__GNUC__)
#define SM2CURVE_HAS_IFMA 1
extern const struct backend sm2curve_ifma;
#endif

/* Recode a big-endian scalar; return -1 unless 1 <= k < n. Constant time in a scalar that is in range. */
int sm2curve_recode(struct recoded *out, const uint8_t scalar[SCALAR_BYTES]);

/* Overwrite memory in a way that the compiler may not leave out. */
void sm2curve_wipe(void *memory, size_t size);

#endif
