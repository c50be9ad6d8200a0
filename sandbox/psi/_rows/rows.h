/* What the Python face calls: the loops over rows of an intersection, in plain C. No function touches the Python
 * interpreter, branches are on what rows are, and nothing here is a secret of the node's: digests travel to the engine.
 */
#ifndef PSI_ROWS_H
#define PSI_ROWS_H

#include <stddef.h>
#include <stdint.h>

enum { LANES = 4, DIGEST = 2 /* words */, LINE = 42 /* bytes */, MOST_ROWS = 100000000 };

/* Digests of keys: key i is at data[offsets[i]] up to data[offsets[i + 1]], at most 4 * words bytes. The factors are
 * those of sandbox/psi/keys.py: LANES for the start, for the length, and for each word. */
void rows_digest(const int64_t *offsets, size_t count, const uint8_t *data, const uint64_t *factors, uint64_t *out);

/* The positions that sort digests by the first word and then the second; `kept` is room for 2 * count words. Return
 * whether two are equal. */
int rows_order(const uint64_t *digests, size_t count, uint64_t *kept, int64_t *out);

/* A random permutation of 0 .. count - 1 from as many random words, each of which decides one place. */
void rows_shuffle(const uint64_t *random, size_t count, int64_t *out);

/* The lines of sandbox/psi/table.py for digests, the first of which stands in row `first`. */
void rows_write(const uint64_t *digests, size_t count, uint32_t first, uint8_t *out);

/* The positions that lines of an answer name; `seen` is of as many zeros as there are digests. */
enum rows_wrong { ROWS_SOUND, ROWS_FORM, ROWS_NUMBER, ROWS_UNKNOWN, ROWS_TWICE, ROWS_OTHER };
enum rows_wrong rows_read(const uint8_t *lines, size_t count, const uint64_t *digests, size_t digest_count,
                          uint8_t *seen, int64_t *out);

/* The digests of lines of an answer, added up: four sums, of 32 bits each of the number that the digits say, the least
 * significant first. */
enum rows_wrong rows_sum(const uint8_t *lines, size_t count, uint64_t *sums);

#endif
