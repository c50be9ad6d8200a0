/* Template: points of y^2 = x^3 - 3x + b, Jacobian (X / Z^2, Y / Z^3) or affine, all coordinates tight.
 *
 * Sources: D. Bernstein and T. Lange, Explicit-Formulas Database, dbl-2001-b with Z3 = 2YZ and madd-2008-g with a = -3;
 *          N. Meloni, "New point addition formulae for ECC applications", WAIFI 2007 (points with a common Z).
 * The additions are incomplete. Who calls them says why equal or opposite points cannot meet, or asks for H = 0.
 */

typedef struct {
    element x, y;
} affine;

typedef struct {
    element x, y, z;
} jacobian;

/* 4M + 4S; in place. */
static void point_double(jacobian *p)
{
    element delta, gamma, beta, sum, difference, alpha, t, x, y;

    square_loose(&delta, &p->z);
    square(&gamma, &p->y);
    multiply_loose(&beta, &p->x, &gamma);
    COMBINE(&sum, p->x.v[i] + delta.v[i]);
    COMBINE(&difference, 3 * (p->x.v[i] - delta.v[i]));
    multiply(&alpha, &sum, &difference);
    square_loose(&t, &alpha);
    COMBINE(&x, t.v[i] - (beta.v[i] << 3));
    COMBINE(&y, 12 * beta.v[i] - t.v[i]); /* 4 beta - X3 */
    multiply_loose(&t, &p->y, &p->z);
    COMBINE(&p->z, t.v[i] + t.v[i]);
    multiply_loose(&y, &alpha, &y);
    square_loose(&t, &gamma);
    COMBINE(&p->y, y.v[i] - (t.v[i] << 3));
    p->x = x;
}

/* 8M + 3S; in place. q is negated where `negative` says so. Z3 = Z1 H is zero where p = q or p = -q. */
static void point_add_affine(jacobian *p, const affine *q, limb negative)
{
    element zz, zzz, t, u, h, r, hh, hhh, v, rr;

    square(&zz, &p->z);
    multiply(&zzz, &zz, &p->z);
    multiply_loose(&t, &q->x, &zz);
    COMBINE(&h, t.v[i] - p->x.v[i]);
    multiply_loose(&t, &q->y, &zzz);
    COMBINE(&r, (t.v[i] ^ negative) - negative - p->y.v[i]);
    square(&hh, &h);
    multiply(&hhh, &hh, &h);
    multiply_loose(&v, &p->x, &hh);
    square_loose(&rr, &r);
    multiply_loose(&u, &p->y, &hhh);
    COMBINE(&p->x, rr.v[i] - hhh.v[i] - 2 * v.v[i]);
    COMBINE(&v, 3 * v.v[i] + hhh.v[i] - rr.v[i]); /* V - X3 */
    multiply_loose(&t, &r, &v);
    COMBINE(&p->y, t.v[i] - u.v[i]);
    multiply(&t, &p->z, &h);
    p->z = t;
}

/* 12M + 4S; in place, of any two finite points: where they are equal it doubles; `infinite` says where they cancel
 * out, and the result there is worthless. */
static void point_add(jacobian *p, const jacobian *q, mask *infinite)
{
    element zz1, zz2, u1, s1, t, h, r, hh, hhh, v, rr;
    jacobian twice = *p;
    mask same_x, same_y;

    point_double(&twice);
    square(&zz1, &p->z);
    square(&zz2, &q->z);
    multiply(&u1, &p->x, &zz2);
    multiply_loose(&t, &q->x, &zz1);
    COMBINE(&h, t.v[i] - u1.v[i]);
    multiply(&zz2, &zz2, &q->z);
    multiply(&s1, &p->y, &zz2);
    multiply(&zz1, &zz1, &p->z);
    multiply_loose(&t, &q->y, &zz1);
    COMBINE(&r, t.v[i] - s1.v[i]);
    same_x = is_zero(&h);
    same_y = is_zero(&r);
    square(&hh, &h);
    multiply(&hhh, &hh, &h);
    multiply_loose(&v, &u1, &hh);
    square_loose(&rr, &r);
    COMBINE(&p->x, rr.v[i] - hhh.v[i] - 2 * v.v[i]);
    COMBINE(&v, 3 * v.v[i] + hhh.v[i] - rr.v[i]);
    multiply_loose(&t, &r, &v);
    multiply_loose(&rr, &s1, &hhh);
    COMBINE(&p->y, t.v[i] - rr.v[i]);
    multiply(&t, &p->z, &q->z);
    multiply(&p->z, &t, &h);
    for (int unit = 0; unit < UNITS; unit++) {
        infinite->v[unit] = same_x.v[unit] & ~same_y.v[unit];
        same_x.v[unit] &= same_y.v[unit];
    }
    replace(&p->x, &twice.x, &same_x);
    replace(&p->y, &twice.y, &same_x);
    replace(&p->z, &twice.z, &same_x);
}

/* The multiples 1, 3, ... 31 of an affine point, all but the first over their own Z: steps[0] is the first Z, steps[i]
 * the quotient of one Z and the one before. No two of 2P, 3P, ... 31P are equal or opposite in a group of order n. */
static void odd_multiples(affine multiples[16], element steps[16], const affine *point)
{
    affine twice, current;
    element one, xx, yy, m, t, c, d, w;

    set_constant(&one, sm2_one);
    multiples[0] = *point;
    COMBINE(&steps[0], 2 * point->y.v[i]);
    square_loose(&xx, &point->x);
    COMBINE(&m, 3 * (xx.v[i] - one.v[i]));
    square(&yy, &point->y);
    multiply_loose(&t, &point->x, &yy);
    COMBINE(&current.x, t.v[i] << 2);
    square_loose(&t, &yy);
    COMBINE(&current.y, t.v[i] << 3);
    square_loose(&t, &m);
    COMBINE(&twice.x, t.v[i] - 2 * current.x.v[i]);
    COMBINE(&d, current.x.v[i] - twice.x.v[i]);
    multiply_loose(&t, &m, &d);
    COMBINE(&twice.y, t.v[i] - current.y.v[i]);

    for (int k = 1; k < 16; k++) { /* 5M + 2S */
        COMBINE(&steps[k], twice.x.v[i] - current.x.v[i]);
        square(&c, &steps[k]);
        multiply(&w, &twice.x, &c);
        multiply(&t, &current.x, &c);
        COMBINE(&d, twice.y.v[i] - current.y.v[i]);
        square_loose(&c, &d);
        COMBINE(&current.x, c.v[i] - w.v[i] - t.v[i]);
        COMBINE(&t, w.v[i] - t.v[i]);
        multiply(&c, &twice.y, &t);
        twice.x = w;
        twice.y = c;
        COMBINE(&t, w.v[i] - current.x.v[i]);
        multiply_loose(&t, &d, &t);
        COMBINE(&current.y, t.v[i] - c.v[i]);
        multiples[k] = current;
    }
}

/* Bring the multiples to affine form, given the inverse of the last Z. */
static void odd_multiples_affine(affine multiples[16], const element steps[16], const element *inverse_of_last)
{
    element inverse = *inverse_of_last, square_of, t;

    for (int k = 15; k > 0; k--) {
        square(&square_of, &inverse);
        multiply(&multiples[k].x, &multiples[k].x, &square_of);
        multiply(&t, &square_of, &inverse);
        multiply(&multiples[k].y, &multiples[k].y, &t);
        multiply(&inverse, &inverse, &steps[k]);
    }
}

/* Read all entries and keep one, so that the addresses do not depend on the digit. */
static inline void look_up(affine *out, const affine multiples[16], uint64_t magnitude)
{
    affine found;

#pragma GCC unroll 10
    for (int i = 0; i < LIMBS * UNITS; i++)
        found.x.v[i] = found.y.v[i] = (limb){0};
    for (uint64_t k = 0; k < 16; k++) {
        limb wanted = broadcast(opaque(0 - (((k ^ magnitude) - 1) >> 63)));

#pragma GCC unroll 10
        for (int i = 0; i < LIMBS * UNITS; i++) {
            found.x.v[i] |= multiples[k].x.v[i] & wanted;
            found.y.v[i] |= multiples[k].y.v[i] & wanted;
        }
    }
    *out = found;
}

/* Multiply the point whose odd multiples are given by the scalar: 255 doublings and 51 additions, whatever it is.
 *
 * Before an addition the accumulator is 32 m P with m = (k >> 5 (digit + 1)) | 1, and 32 m P = +-d P only if n divides
 * 32 m +- d. Before the last addition these numbers lie between 0 and n. There 32 m + d = k is not 0 modulo n, but
 * 32 m - d = k - 2d = n for one odd k, n - 6 (d = -3, since n = 3 modulo 32): then the points are equal and the sum is
 * the double, which is therefore computed as well and chosen where Z3 = 0.
 */
static void ladder(jacobian *p, const affine multiples[16], const struct recoded *scalar)
{
    affine term;
    jacobian twice;
    mask equal;

    p->x = multiples[0].x;
    p->y = multiples[0].y;
    set_constant(&p->z, sm2_one);
    for (int digit = DIGITS - 1; digit >= 0; digit--) {
        for (int i = 0; i < 5; i++)
            point_double(p);
        twice = *p;
        look_up(&term, multiples, scalar->magnitude[digit]);
        point_add_affine(p, &term, broadcast(scalar->negative[digit]));
    }
    point_double(&twice); /* what the accumulator was before the last addition */
    equal = is_zero(&p->z);
    replace(&p->x, &twice.x, &equal);
    replace(&p->y, &twice.y, &equal);
    replace(&p->z, &twice.z, &equal);
    sm2curve_wipe(&twice, sizeof twice);
    sm2curve_wipe(&term, sizeof term);
}

/* x and y of a Jacobian point, out of Montgomery form and canonical, given 1 / Z. */
static void to_plain(element *x, element *y, const jacobian *p, const element *inverse)
{
    element square_of, t;

    square(&square_of, inverse);
    multiply(&t, &p->x, &square_of);
    leave(x, &t);
    multiply(&t, &square_of, inverse);
    multiply(&t, &p->y, &t);
    leave(y, &t);
}
