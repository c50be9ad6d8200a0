/* Big-endian words, and a barrier that keeps a mask a mask. */
#ifndef SM2CURVE_BYTES_H
#define SM2CURVE_BYTES_H

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

static inline uint32_t load_be32(const uint8_t *from)
{
    return (uint32_t)from[0] << 24 | (uint32_t)from[1] << 16 | (uint32_t)from[2] << 8 | from[3];
}

static inline uint64_t load_be64(const uint8_t *from)
{
    return (uint64_t)load_be32(from) << 32 | load_be32(from + 4);
}

/* Hide a value from the optimiser, which might otherwise turn the use of a mask into a branch. */
static inline uint64_t opaque(uint64_t value)
{
    __asm__("" : "+r"(value));
    return value;
}

#endif
