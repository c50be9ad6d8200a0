/* Template: from field elements to points.
 *
 * Source: RFC 9380: simplified SWU for AB != 0 (6.6.2, straight-line in F.2) with Z = -9, found by the rule of H.2;
 *         sqrt_ratio for p = 3 modulo 4 (F.2.1.2), whose constant sqrt(-Z) is 3 here; hash_to_field (5.2) with
 *         48 bytes an element; SEC 1, 2.3.4 for compressed points.
 */

/* Lanes of plain numbers, at most 2^256 - 1 each, to limbs: four 64-bit words an element, least significant first. */
static void load_words(element *out, uint64_t words[WIDTH][4])
{
    uint64_t lanes[LIMBS * UNITS][LANES];

    for (int at = 0; at < WIDTH; at++) {
        const uint64_t *w = words[at];
        int unit = at / LANES, lane = at % LANES;

        lanes[LIMBS * unit + 0][lane] = w[0] & LIMB_MASK;
        lanes[LIMBS * unit + 1][lane] = (w[0] >> 52 | w[1] << 12) & LIMB_MASK;
        lanes[LIMBS * unit + 2][lane] = (w[1] >> 40 | w[2] << 24) & LIMB_MASK;
        lanes[LIMBS * unit + 3][lane] = (w[2] >> 28 | w[3] << 36) & LIMB_MASK;
        lanes[LIMBS * unit + 4][lane] = w[3] >> 16;
    }
    memcpy(out, lanes, sizeof lanes);
}

static void store_words(uint64_t words[WIDTH][4], const element *plain)
{
    uint64_t lanes[LIMBS * UNITS][LANES];

    memcpy(lanes, plain, sizeof lanes);
    for (int at = 0; at < WIDTH; at++) {
        uint64_t v[LIMBS];

        for (int i = 0; i < LIMBS; i++)
            v[i] = lanes[LIMBS * (at / LANES) + i][at % LANES];
        words[at][0] = v[0] | v[1] << 52;
        words[at][1] = v[1] >> 12 | v[2] << 40;
        words[at][2] = v[2] >> 24 | v[3] << 28;
        words[at][3] = v[3] >> 36 | v[4] << 16;
    }
}

/* Masks from, and to, one byte an element. */
static mask load_mask(const uint8_t set[WIDTH])
{
    uint64_t lanes[WIDTH];
    mask out;

    for (int at = 0; at < WIDTH; at++)
        lanes[at] = 0 - (uint64_t)(set[at] & 1);
    memcpy(&out, lanes, sizeof out);
    return out;
}

static void store_mask(uint8_t set[WIDTH], const mask *from)
{
    uint64_t lanes[WIDTH];

    memcpy(lanes, from, sizeof lanes);
    for (int at = 0; at < WIDTH; at++)
        set[at] = (uint8_t)(lanes[at] & 1);
}

/* x^3 - 3x + b */
static void right_side(element *out, const element *x)
{
    element one, b, t;

    set_constant(&one, sm2_one);
    set_constant(&b, sm2_b);
    square(&t, x);
    TIGHT(&t, t.v[i] - 3 * one.v[i]);
    multiply(&t, &t, x);
    TIGHT(out, t.v[i] + b.v[i]);
}

/* Put the base point where the mask is set. */
static void replace_by_base(affine *p, const mask *where)
{
    element t;

    set_constant(&t, sm2_base_x);
    replace(&p->x, &t, where);
    set_constant(&t, sm2_base_y);
    TIGHT(&t, 2 * t.v[i]);
    replace(&p->y, &t, where);
}

/* Points from x (below p, not yet in Montgomery form) and the parity of y. Where there is no point, or `bad` is set
 * already, the base point is put in its place and `bad` set. */
static void decompress(affine *p, const element *x, const uint8_t parity[WIDTH], uint8_t bad[WIDTH])
{
    element enter, w, t, plain;
    mask negate = load_mask(parity), wrong = load_mask(bad), sound, odd;

    set_constant(&enter, sm2_enter);
    multiply(&p->x, x, &enter);
    right_side(&w, &p->x);
    power(&t, &w);
    multiply(&p->y, &t, &w); /* w^((p + 1) / 4) */
    square(&t, &p->y);
    sound = is_equal(&t, &w);
    leave(&plain, &p->y);
    odd = is_odd(&plain);
    EACH_UNIT {
        wrong.v[unit] |= ~sound.v[unit];
        negate.v[unit] ^= odd.v[unit];
    }
    TIGHT(&t, 0 - p->y.v[i]);
    replace(&p->y, &t, &negate);
    TIGHT(&p->y, 2 * p->y.v[i]);
    replace_by_base(p, &wrong);
    store_mask(bad, &wrong);
}

/* A Jacobian point, given 1 / Z, in affine form; where it is none, the base point. */
static void to_affine(affine *out, const jacobian *p, const element *inverse, const uint8_t bad[WIDTH])
{
    element square_of, t;
    mask wrong = load_mask(bad);

    square(&square_of, inverse);
    FACTOR(&t, 0, p->x.v[i]);
    multiply(&t, &t, &square_of);
    TIGHT(&out->x, t.v[i]);
    multiply(&t, &square_of, inverse);
    multiply(&t, &p->y, &t);
    TIGHT(&out->y, t.v[i]);
    replace_by_base(out, &wrong);
}

/* 48 bytes, big-endian, to an element in Montgomery form. */
static void field_element(element *u, const uint8_t *uniform, size_t stride)
{
    uint64_t low[WIDTH][4], high[WIDTH][4] = {{0}};
    element t, enter;

    for (int at = 0; at < WIDTH; at++) {
        const uint8_t *from = uniform + stride * (size_t)at;

        high[at][1] = load_be64(from);
        high[at][0] = load_be64(from + 8);
        for (int i = 0; i < 4; i++)
            low[at][3 - i] = load_be64(from + 16 + 8 * i);
    }
    load_words(&t, high);
    set_constant(&enter, sm2_enter_high);
    multiply(u, &t, &enter);
    load_words(&t, low); /* below 2^256 < 1.1 p */
    set_constant(&enter, sm2_enter);
    multiply(&t, &t, &enter);
    TIGHT(u, u->v[i] + t.v[i]);
}

/* The simplified SWU map; the point comes out with Z = the denominator of x. */
static void map_to_curve(jacobian *p, const element *u)
{
    element one, b, zu2, n, d, t, n2, d2, d3, w, v, y1, y, other, plain;
    mask zero, is_square, negate, odd;

    set_constant(&one, sm2_one);
    set_constant(&b, sm2_b);
    square(&t, u);
    TIGHT(&zu2, 0 - 9 * t.v[i]);
    square(&t, &zu2);
    TIGHT(&t, t.v[i] + zu2.v[i]); /* Z^2 u^4 + Z u^2 */
    TIGHT(&w, t.v[i] + one.v[i]);
    multiply(&n, &b, &w); /* numerator of x1 */
    zero = is_zero(&t);
    TIGHT(&d, 3 * t.v[i]); /* denominator A * -t, with A = -3 */
    TIGHT(&other, 27 * one.v[i]); /* A Z, where t = 0 */
    replace(&d, &other, &zero);

    square(&n2, &n);
    square(&d2, &d);
    multiply(&d3, &d2, &d);
    TIGHT(&t, n2.v[i] - 3 * d2.v[i]);
    multiply(&t, &t, &n);
    multiply(&w, &b, &d3);
    TIGHT(&w, w.v[i] + t.v[i]); /* g(x1) = w / d3 */

    square(&t, &d3);
    multiply(&v, &w, &d3);
    multiply(&t, &t, &v); /* w d3^3 */
    power(&y1, &t);
    multiply(&y1, &y1, &v);
    square(&t, &y1);
    multiply(&t, &t, &d3);
    is_square = is_equal(&t, &w);

    multiply(&y, &zu2, u); /* where g(x1) is no square: x2 = Z u^2 x1 and y2 = Z u^3 sqrt(Z g(x1)) */
    multiply(&t, &y, &y1);
    TIGHT(&y, 3 * t.v[i]);
    replace(&y, &y1, &is_square);
    multiply(&other, &zu2, &n);
    replace(&other, &n, &is_square);

    leave(&plain, u);
    negate = is_odd(&plain);
    leave(&plain, &y);
    odd = is_odd(&plain);
    EACH_UNIT negate.v[unit] ^= odd.v[unit];
    TIGHT(&t, 0 - y.v[i]);
    replace(&y, &t, &negate);

    multiply(&p->x, &other, &d);
    multiply(&t, &y, &d3);
    TIGHT(&p->y, 2 * t.v[i]);
    p->z = d;
}
