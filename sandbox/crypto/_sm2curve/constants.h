/* The SM2 curve of GB/T 32918.5: y^2 = x^3 - 3x + b over p = 2^256 - 2^224 - 2^96 + 2^64 - 1; the order is in scalar.c.
 *
 * Field elements are five limbs of 52 bits, least significant first; "Montgomery" means times 2^260 modulo p.
 * tests/crypto/test_sm2curve.py compares what is computed from these with OpenSSL's own constants.
 */
#ifndef SM2CURVE_CONSTANTS_H
#define SM2CURVE_CONSTANTS_H

#include <stdint.h>

#define LIMB_BITS 52
#define LIMB_MASK ((UINT64_C(1) << LIMB_BITS) - 1)
#define TOP_BITS 48 /* of the prime's fifth limb */

static const uint64_t sm2_prime[5] = {0xfffffffffffff, 0xff00000000fff, 0xfffffffffffff, 0xfffffffffffff, 0x0fffffffeffff};
static const uint64_t sm2_one[5] = {0x0000000000010, 0x0ffffffff0000, 0, 0, 0x0000000100000};
static const uint64_t sm2_half[5] = {0x0000000000008, 0x07fffffff8000, 0x0000000000000, 0x0000000000000, 0x0000000080000};
static const uint64_t sm2_b[5] = {0x30632bc0dd422, 0xb09b537ab70d2, 0xa51c3c71cf379, 0x2c8527981505e, 0x040fe188da20e};
static const uint64_t sm2_base_x[5] = {0x8990f418029e9, 0xe6ca6c04fd132, 0x24c3c33e7981e, 0xb05d6a1ed99ac, 0x01167a5f71c13};
static const uint64_t sm2_base_y[5] = {0x4e593c2d0ddd6, 0x8ed3295fa6135, 0x2a48f8c1f5e57, 0x5bd8d4cfb066e, 0x03cd65d4e1d73};
static const uint64_t sm2_prime_words[4] = {0xffffffffffffffff, 0xffffffff00000000, 0xffffffffffffffff, 0xfffffffeffffffff};
/* Not Montgomery: 1, and what brings a number, or its part above 2^256, into Montgomery form by one multiplication. */
static const uint64_t sm2_unit[5] = {1, 0, 0, 0, 0};
static const uint64_t sm2_enter[5] = {0x0020000000300, 0xffffffff00000, 0x0000100000002, 0x0200000001000, 0x0000004000000};
static const uint64_t sm2_enter_high[5] = {0x0120000001600, 0xfffffff800000, 0x0000c0000000e, 0x090000000a000, 0x000001b000000};

#endif
