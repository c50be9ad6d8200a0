/* Template: from bytes to bytes, a block of BLOCK * WIDTH elements at a time so that one inversion serves them all.
 *
 * An element that is no point is replaced by the base point (1 <= k < n, so its product is finite, too); so is what
 * fills up the last group. The work space has been near the secret scalar, or a party's keys: it is wiped.
 */

/* The work space of one block. */
struct multiplication {
    affine multiples[BLOCK][16];
    element steps[BLOCK][16], last[BLOCK], prefixes[BLOCK];
    jacobian products[BLOCK];
    uint8_t bad[BLOCK][WIDTH];
};

enum { MAP_BLOCK = 64 }; /* less memory an element: more of them */

struct mapping {
    element last[MAP_BLOCK], prefixes[MAP_BLOCK];
    jacobian sums[MAP_BLOCK];
    uint8_t bad[MAP_BLOCK][WIDTH];
};

static void *new_work(size_t size)
{
    size_t alignment = _Alignof(struct multiplication) > 64 ? _Alignof(struct multiplication) : 64;

    return aligned_alloc(alignment, (size + alignment - 1) / alignment * alignment);
}

/* Read up to WIDTH points. What is malformed or missing is marked; nobody reads the marks of what is missing. */
static void read_points(affine *p, const uint8_t *points, size_t count, uint8_t bad[WIDTH])
{
    uint64_t words[WIDTH][4];
    uint8_t parity[WIDTH] = {0};
    element x;

    for (size_t at = 0; at < WIDTH; at++) {
        const uint8_t *from = points + POINT_BYTES * at;
        unsigned __int128 difference = 0;

        memset(words[at], 0, sizeof words[at]);
        bad[at] = at >= count;
        if (at >= count)
            continue;
        for (int i = 0; i < 4; i++)
            words[at][3 - i] = load_be64(from + 1 + 8 * i);
        for (int i = 0; i < 4; i++)
            difference = (unsigned __int128)words[at][i] - sm2_prime_words[i] - ((uint64_t)(difference >> 64) & 1);
        parity[at] = from[0] & 1;
        bad[at] = (from[0] != 2 && from[0] != 3) || !(difference >> 64);
        if (bad[at])
            memset(words[at], 0, sizeof words[at]);
    }
    load_words(&x, words);
    decompress(p, &x, parity, bad);
}

/* Write points of which x and y are given; `flip` is odd where y has been negated, which only its parity shows. */
static void write_points(uint8_t *out, uint8_t *bad_out, size_t count, const element *x, const element *y,
                         uint64_t flip, const uint8_t bad[WIDTH])
{
    uint64_t words[WIDTH][4];
    uint8_t odd[WIDTH];
    mask parity = is_odd(y);

    store_words(words, x);
    store_mask(odd, &parity);
    for (size_t at = 0; at < count; at++) {
        uint8_t *to = out + POINT_BYTES * at;

        bad_out[at] = bad[at];
        if (bad[at]) {
            memset(to, 0, POINT_BYTES);
            continue;
        }
        to[0] = 2 + (odd[at] ^ (flip & 1));
        for (int i = 0; i < 4; i++)
            store_be64(to + 1 + 8 * i, words[at][3 - i]);
    }
}

static size_t at_most(size_t count, size_t limit)
{
    return count < limit ? count : limit;
}

/* The sum of both maps (RFC 9380, 3: hash_to_curve; the cofactor is 1). */
static void map_group(jacobian *sum, const uint8_t *uniform, size_t count, uint8_t bad[WIDTH])
{
    uint8_t padded[WIDTH][UNIFORM_BYTES];
    element u, one;
    jacobian other;
    mask infinite;

    for (size_t at = 0; at < WIDTH; at++)
        memcpy(padded[at], uniform + UNIFORM_BYTES * at_most(at, count - 1), UNIFORM_BYTES);
    field_element(&u, padded[0], UNIFORM_BYTES);
    map_to_curve(sum, &u);
    field_element(&u, padded[0] + UNIFORM_BYTES / 2, UNIFORM_BYTES);
    map_to_curve(&other, &u);
    point_add(sum, &other, &infinite);
    set_constant(&one, sm2_one);
    replace(&sum->z, &one, &infinite);
    store_mask(bad, &infinite);
    sm2curve_wipe(padded, sizeof padded);
}

static int map_items(const uint8_t *uniform, size_t count, uint8_t *out, uint8_t *bad)
{
    struct mapping *work = new_work(sizeof *work);
    element x, y;

    if (work == NULL)
        return -1;
    for (size_t done = 0; done < count; done += MAP_BLOCK * WIDTH) {
        size_t here = at_most(count - done, MAP_BLOCK * WIDTH), groups = (here + WIDTH - 1) / WIDTH;

        for (size_t g = 0; g < groups; g++) {
            map_group(&work->sums[g], uniform + UNIFORM_BYTES * (done + g * WIDTH), at_most(here - g * WIDTH, WIDTH),
                      work->bad[g]);
            work->last[g] = work->sums[g].z;
        }
        invert_all(work->last, work->prefixes, groups);
        for (size_t g = 0; g < groups; g++) {
            size_t first = done + g * WIDTH;

            to_plain(&x, &y, &work->sums[g], &work->last[g]);
            write_points(out + POINT_BYTES * first, bad + first, at_most(here - g * WIDTH, WIDTH), &x, &y, 1,
                         work->bad[g]);
        }
    }
    sm2curve_wipe(work, sizeof *work);
    free(work);
    return 0;
}

/* Multiply the points that stand first among their multiples, and are marked where they were none. */
static void multiply_block(struct multiplication *work, const struct recoded *scalar, uint64_t flip, size_t count,
                           uint8_t *out, uint8_t *bad)
{
    size_t groups = (count + WIDTH - 1) / WIDTH;
    element x, y;

    for (size_t g = 0; g < groups; g++) {
        affine point = work->multiples[g][0];

        odd_multiples(work->multiples[g], work->steps[g], &point);
        work->last[g] = work->steps[g][0];
        for (int k = 1; k < 16; k++)
            multiply(&work->last[g], &work->last[g], &work->steps[g][k]);
    }
    invert_all(work->last, work->prefixes, groups);
    for (size_t g = 0; g < groups; g++) {
        odd_multiples_affine(work->multiples[g], work->steps[g], &work->last[g]);
        ladder(&work->products[g], work->multiples[g], scalar);
        work->last[g] = work->products[g].z;
    }
    invert_all(work->last, work->prefixes, groups);
    for (size_t g = 0; g < groups; g++) {
        to_plain(&x, &y, &work->products[g], &work->last[g]);
        write_points(out + POINT_BYTES * g * WIDTH, bad + g * WIDTH, at_most(count - g * WIDTH, WIDTH), &x, &y, flip,
                     work->bad[g]);
    }
}

static int multiply_points(const struct recoded *scalar, const uint8_t *points, size_t count, uint8_t *out,
                           uint8_t *bad)
{
    struct multiplication *work = new_work(sizeof *work);

    if (work == NULL)
        return -1;
    for (size_t done = 0; done < count; done += BLOCK * WIDTH) {
        size_t here = at_most(count - done, BLOCK * WIDTH);

        for (size_t g = 0; g * WIDTH < here; g++)
            read_points(&work->multiples[g][0], points + POINT_BYTES * (done + g * WIDTH),
                        at_most(here - g * WIDTH, WIDTH), work->bad[g]);
        multiply_block(work, scalar, scalar->flip, here, out + POINT_BYTES * done, bad + done);
    }
    sm2curve_wipe(work, sizeof *work);
    free(work);
    return 0;
}

/* The same from what map_items takes: what it leaves is multiplied without being written and read. */
static int multiply_items(const struct recoded *scalar, const uint8_t *uniform, size_t count, uint8_t *out,
                          uint8_t *bad)
{
    struct multiplication *work = new_work(sizeof *work);

    if (work == NULL)
        return -1;
    for (size_t done = 0; done < count; done += BLOCK * WIDTH) {
        size_t here = at_most(count - done, BLOCK * WIDTH), groups = (here + WIDTH - 1) / WIDTH;

        for (size_t g = 0; g < groups; g++) {
            map_group(&work->products[g], uniform + UNIFORM_BYTES * (done + g * WIDTH),
                      at_most(here - g * WIDTH, WIDTH), work->bad[g]);
            work->last[g] = work->products[g].z;
        }
        invert_all(work->last, work->prefixes, groups);
        for (size_t g = 0; g < groups; g++)
            to_affine(&work->multiples[g][0], &work->products[g], &work->last[g], work->bad[g]);
        /* The maps' sum is the negative of theirs. */
        multiply_block(work, scalar, ~scalar->flip, here, out + POINT_BYTES * done, bad + done);
    }
    sm2curve_wipe(work, sizeof *work);
    free(work);
    return 0;
}

const struct backend BACKEND = {BACKEND_NAME, multiply_points, map_items, multiply_items, expand};
