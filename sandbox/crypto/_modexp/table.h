/* Template: powers of one base, by a table of what each window of an exponent can ask for.
 *
 * Source: fixed-base windowing as in Brickell, Gordon, McCurley and Wilson, EUROCRYPT '92, without their buckets.
 */

enum { GROUPS = 16 }; /* of eight exponents, for which a window of the table is read once from far away */

static uint64_t *row_of(const struct table *t, size_t window)
{
    return t->powers + window * t->modulus.limbs * t->digits;
}

struct filling {
    struct columns columns;
    limb base[MAX_LIMBS], step[MAX_LIMBS], power[MAX_LIMBS];
};

/* Eight windows side by side. */
static void fill_rows(const struct table *t, size_t first, size_t count, struct filling *work)
{
    const struct modulus *m = &t->modulus;

    set_same(work->power, m->one, m);
    for (size_t digit = 0; digit < t->digits; digit++) {
        for (size_t i = 0; i < m->limbs; i++) {
            size_t place = ((i / BLOCK * (t->digits / LANES) + digit / LANES) * BLOCK + i % BLOCK) * LANES;

            for (size_t lane = 0; lane < count; lane++)
                row_of(t, first + lane)[place + digit % LANES] = work->power[i][lane];
        }
        multiply(work->power, work->power, work->step, m, &work->columns);
    }
}

int modexp_fill(struct table *t, const uint8_t *base)
{
    const struct modulus *m = &t->modulus;
    struct filling *work = new_work(sizeof *work);

    if (work == NULL)
        return -1;
    load_row(work->base, base, 1, m);
    set_same(work->step, m->square, m);
    multiply(work->base, work->base, work->step, m, &work->columns);
    for (size_t first = 0; first < t->windows; first += LANES) {
        size_t here = at_most(t->windows - first, LANES);

        for (size_t lane = 0; lane < here; lane++) {
            for (size_t i = 0; i < m->limbs; i++)
                work->step[i] = (limb)_mm512_mask_mov_epi64((__m512i)work->step[i], (__mmask8)(1 << lane),
                                                            (__m512i)work->base[i]);
            for (size_t i = 0; i < t->window; i++)
                square(work->base, work->base, m, &work->columns);
        }
        fill_rows(t, first, here, work);
    }
    end_work(work, sizeof *work);
    return 0;
}

struct look_up {
    struct columns columns;
    limb powers[GROUPS][MAX_LIMBS], chosen[GROUPS][MAX_LIMBS];
};

/* Ten limbs of the powers that the lanes of two groups ask for: all are read, and a permutation takes eight lanes'
 * limbs out of eight digits'. */
static void scan(limb out0[BLOCK], limb out1[BLOCK], const limb *powers, size_t octets, limb digit0, limb digit1)
{
    __m512i inside0 = (__m512i)(digit0 % LANES), inside1 = (__m512i)(digit1 % LANES);
    __m512i octet0 = (__m512i)(digit0 / LANES), octet1 = (__m512i)(digit1 / LANES);
    __m512i sum0[BLOCK], sum1[BLOCK];

    UNROLL(BLOCK) for (size_t k = 0; k < BLOCK; k++)
        sum0[k] = sum1[k] = (__m512i)zeros[0];
    for (size_t i = 0; i < octets; i++, powers += BLOCK) {
        __mmask8 here0 = _mm512_cmpeq_epi64_mask(octet0, (__m512i)broadcast(i));
        __mmask8 here1 = _mm512_cmpeq_epi64_mask(octet1, (__m512i)broadcast(i));

        UNROLL(BLOCK) for (size_t k = 0; k < BLOCK; k++)
        {
            __m512i eight = (__m512i)powers[k];

            sum0[k] = _mm512_mask_permutexvar_epi64(sum0[k], here0, inside0, eight);
            sum1[k] = _mm512_mask_permutexvar_epi64(sum1[k], here1, inside1, eight);
        }
    }
    UNROLL(BLOCK) for (size_t k = 0; k < BLOCK; k++)
    {
        out0[k] = (limb)sum0[k];
        out1[k] = (limb)sum1[k];
    }
}

/* Up to GROUPS groups. */
static void look_up(const struct table *t, const uint8_t *exponents, size_t count, uint8_t *out, struct look_up *work)
{
    const struct modulus *m = &t->modulus;
    size_t size = (t->bits + 7) / 8, groups = (count + LANES - 1) / LANES, octets = t->digits / LANES;
    size_t share = m->limbs * t->digits * sizeof(uint64_t) / groups; /* of a window's row, to ask for */
    limb digits[GROUPS] = {{0}};

    for (size_t window = 0; window < t->windows; window++) {
        for (size_t i = 0; i < groups * LANES; i++)
            digits[i / LANES][i % LANES] =
                i < count ? digit_at(exponents + size * i, size, window * t->window, t->window) : 0;
        for (size_t first = 0; first < m->limbs; first += BLOCK) {
            const limb *powers = (const limb *)row_of(t, window) + first * octets;

            for (size_t group = 0; group < groups; group += 2)
                scan(work->chosen[group] + first, work->chosen[group + 1] + first, powers, octets, digits[group],
                     digits[group + 1]);
        }
        for (size_t group = 0; group < groups; group++) {
            if (window + 1 < t->windows)
                FETCH((const char *)row_of(t, window + 1) + group * share, share, _MM_HINT_T1);
            if (window)
                multiply(work->powers[group], work->powers[group], work->chosen[group], m, &work->columns);
            else
                memcpy(work->powers[group], work->chosen[group], m->limbs * sizeof(limb));
        }
    }
    for (size_t group = 0; group < groups; group++)
        give_out(out + m->size * LANES * group, work->powers[group], at_most(count - LANES * group, LANES), m,
                 work->chosen[group], &work->columns);
    modexp_wipe(digits, sizeof digits);
}

int modexp_look_up(const struct table *t, const uint8_t *exponents, size_t count, uint8_t *out)
{
    struct look_up *work = new_work(sizeof *work);
    size_t size = (t->bits + 7) / 8;

    if (work == NULL)
        return -1;
    for (size_t done = 0; done < count; done += GROUPS * LANES)
        look_up(t, exponents + size * done, at_most(count - done, GROUPS * LANES), out + t->modulus.size * done, work);
    end_work(work, sizeof *work);
    return 0;
}
