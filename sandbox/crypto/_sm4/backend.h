/* What the Python face calls: SM4-GCM with a nonce of 12 bytes and a tag of 16, in one piece. No function touches the
 * Python interpreter.
 */
#ifndef SM4_BACKEND_H
#define SM4_BACKEND_H

#include <stddef.h>
#include <stdint.h>

enum { SM4_KEY = 16, SM4_NONCE = 12, SM4_TAG = 16 }; /* bytes */

/* SP 800-38D, 5.2.1.1: the counter of 32 bits starts at 2. */
#define SM4_MOST_BYTES ((UINT64_C(1) << 36) - 32)

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define SM4_HAS_GFNI 1

struct bytes {
    const uint8_t *at;
    size_t size;
};

/* Write the ciphertext and, behind it, the tag. */
void sm4_seal(const uint8_t *key, const uint8_t *nonce, struct bytes plaintext, struct bytes aad, uint8_t *out);

/* Write the plaintext and return 0; return -1, with nothing written, if the tag is not the ciphertext's. */
int sm4_open(const uint8_t *key, const uint8_t *nonce, struct bytes ciphertext, const uint8_t *tag, struct bytes aad,
             uint8_t *out);
#endif

#endif
