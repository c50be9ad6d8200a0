/* Big-endian words, a barrier that keeps a mask a mask, and what is to be inlined. */
#ifndef SM2CURVE_BYTES_H
#define SM2CURVE_BYTES_H

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* Left to itself the compiler calls what is a few hundred instructions long, and passes vectors through memory. The
 * reverse, one copy for all of the code that is not in a loop, keeps that code in the instruction cache. */
#define INLINE static inline __attribute__((always_inline))
#define CALLED static __attribute__((noinline))

static inline uint32_t load_be32(const uint8_t *from)
{
    return (uint32_t)from[0] << 24 | (uint32_t)from[1] << 16 | (uint32_t)from[2] << 8 | from[3];
}

static inline uint64_t load_be64(const uint8_t *from)
{
    return (uint64_t)load_be32(from) << 32 | load_be32(from + 4);
}

static inline void store_be32(uint8_t *to, uint32_t value)
{
    to[0] = (uint8_t)(value >> 24), to[1] = (uint8_t)(value >> 16);
    to[2] = (uint8_t)(value >> 8), to[3] = (uint8_t)value;
}

static inline void store_be64(uint8_t *to, uint64_t value)
{
    store_be32(to, (uint32_t)(value >> 32));
    store_be32(to + 4, (uint32_t)value);
}

/* Hide a value from the optimiser, which might otherwise turn the use of a mask into a branch. */
static inline uint64_t opaque(uint64_t value)
{
    __asm__("" : "+r"(value));
    return value;
}

#endif
