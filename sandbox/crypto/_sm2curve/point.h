/* Template: points of y^2 = x^3 - 3x + b. Twice y is kept instead of y, which takes factors out of the formulas: affine
 * points are (x, 2y); Jacobian points are (X, Y, Z) with x = X / Z^2 and 2y = Y / Z^3.
 *
 * Doubling and adding give the NEGATIVE of the result: then Y3 is a sum of two products, which one reduction is enough
 * for. The numbers in brackets are bounds in multiples of p, see field.h.
 *
 * Sources: D. Bernstein and T. Lange, Explicit-Formulas Database, dbl-2001-b and madd-2007-bl with a = -3;
 *          N. Meloni, "New point addition formulae for ECC applications", WAIFI 2007 (points with a common Z).
 * The additions are incomplete. Who calls them says why equal or opposite points cannot meet, or asks for Z3 = 0.
 */

typedef struct {
    element x, y;
} affine;

/* X is loose, from 2 p to 3.1 p; Y and Z are factors, [7] and [2.8], and [5] and [1.8] after two doublings. */
typedef struct {
    element x, y, z;
} jacobian;

/* p = -2p, with 4M + 4S and seven reductions. The order of the products is the one that was fastest. */
CALLED void point_double(jacobian *p)
{
    element a, b, x, delta, sum, difference, alpha, w;

    square_loose(&delta, &p->z);                          /* [1.5] */
    FACTOR(&sum, 0, p->x.v[i] + delta.v[i]);              /* [4.6] */
    FACTOR(&difference, 0, 3 * (p->x.v[i] - delta.v[i])); /* [9.3], at least 1.5 p */
    square_factor(&a, &p->y);                             /* [4.1] */
    FACTOR(&x, 0, p->x.v[i]);
    multiply_factor(&alpha, &sum, &difference);           /* [3.7] */
    multiply_factor(&p->z, &p->y, &p->z);                 /* Z3 = Y Z [2.3] */
    multiply_loose(&b, &x, &a);                           /* [1.8] */
    square_minus(&x, &alpha, &b, 6);                      /* X3 = alpha^2 - 2 B, from 2.4 p to 7.9 p */
    FACTOR(&w, 0, x.v[i] - b.v[i]);                       /* [7.9], at least 0.6 p */
    fold(&x, 2);
    multiply_square(&p->y, &alpha, &w, &a);               /* -Y3 = 2 alpha (X3 - B) + A^2 [5.8] */
    p->x = x;
}

/* p = -(p + q), or -(p - q) where `negative` says so, with 8M + 3S and ten reductions, where Y is [5] and Z [1.8].
 * Z3 = 2 Z1 H is zero where the sum is a doubling or at infinity. */
CALLED void point_add_affine(jacobian *p, const affine *q, limb negative)
{
    element zz, zzz, u, s, h, i4, r, j, v, x, w;

    square_factor(&zz, &p->z);                                  /* [1.3] */
    multiply_factor(&zzz, &p->z, &zz);                          /* [1.2] */
    multiply_loose(&u, &q->x, &zz);                             /* [1.2] */
    FACTOR(&h, 4, u.v[i] - p->x.v[i]);                          /* [3.2], at least 0.9 p */
    square_loose(&i4, &h);                                      /* [1.7] */
    multiply_loose(&s, &q->y, &zzz);                            /* [1.2] */
    FACTOR(&i4, 0, 4 * i4.v[i]);                                /* I [6.8] */
    multiply_loose(&w, &p->z, &h);                              /* [1.4] */
    FACTOR(&x, 0, p->x.v[i]);
    multiply_loose(&j, &h, &i4);                                /* [2.4] */
    FACTOR(&r, 7, (s.v[i] ^ negative) - negative - LIMB(p->y)); /* [8.2], at least 0.8 p */
    FACTOR(&p->z, 0, 2 * w.v[i]);                               /* Z3 [2.8] */
    multiply_loose(&v, &x, &i4);                                /* [2.4] */
    square_minus(&x, &r, &v, 8);
    SUM(&x, 0, x.v[i] - j.v[i]);                                /* X3 = r^2 - J - 2 V, from 0.8 p to 13.3 p */
    fold(&x, 2);
    carry_factor(&j);
    FACTOR(&w, 1, x.v[i] - v.v[i]);                             /* [4.1], at least 0.6 p */
    multiply_multiply(&p->y, &r, &w, &j, &p->y);                /* -Y3 = 2 r (X3 - V) + 2 J Y1 [6.7] */
    p->x = x;
}

/* p = -(p + q), with 12M + 4S, for any two finite points with tight coordinates: where they are equal it doubles;
 * `infinite` says where they cancel out, and the result there is worthless. */
CALLED void point_add(jacobian *p, const jacobian *q, mask *infinite)
{
    element zz1, zz2, u1, s1, t, h, r, hh, j, v, x, w;
    jacobian twice = *p;
    mask same_x, same_y;

    SUM(&twice.x, 2, p->x.v[i]);
    point_double(&twice);
    square(&zz1, &p->z);
    square(&zz2, &q->z);
    multiply(&u1, &p->x, &zz2);
    multiply(&t, &q->x, &zz1);
    TIGHT(&h, t.v[i] - u1.v[i]);
    multiply(&zz2, &zz2, &q->z);
    multiply(&s1, &p->y, &zz2);
    multiply(&zz1, &zz1, &p->z);
    multiply(&t, &q->y, &zz1);
    TIGHT(&r, t.v[i] - s1.v[i]);
    same_x = is_zero(&h);
    same_y = is_zero(&r);
    square(&hh, &h);
    TIGHT(&hh, 4 * hh.v[i]);
    multiply(&j, &h, &hh);
    multiply(&v, &u1, &hh);
    square(&x, &r);
    SUM(&x, 6, x.v[i] - j.v[i] - 2 * v.v[i]);
    fold(&x, 2);
    FACTOR(&w, 0, x.v[i] - v.v[i]);
    multiply_multiply(&p->y, &r, &w, &j, &s1);
    p->x = x;
    multiply(&t, &p->z, &q->z);
    multiply(&t, &t, &h);
    FACTOR(&p->z, 0, 2 * t.v[i]);
    EACH_UNIT {
        infinite->v[unit] = same_x.v[unit] & ~same_y.v[unit];
        same_x.v[unit] &= same_y.v[unit];
    }
    replace(&p->x, &twice.x, &same_x);
    replace(&p->y, &twice.y, &same_x);
    replace(&p->z, &twice.z, &same_x);
}

/* The multiples 1, 3, ... 31 of a tight affine point, all but the first over their own Z: steps[0] is the first Z,
 * steps[i] the quotient of one Z and the one before. No two of 2P, 3P, ... 31P are equal or opposite in a group of
 * order n. */
CALLED void odd_multiples(affine multiples[16], element steps[16], const affine *point)
{
    affine twice, current;
    element one, m, t, c, d, w, x;

    /* 2P over Z = 2y, and P over the same */
    multiples[0] = *point;
    steps[0] = point->y;
    set_constant(&one, sm2_one);
    square(&t, &point->x);
    TIGHT(&m, 3 * (t.v[i] - one.v[i]));
    square(&t, &point->y);
    multiply(&current.x, &point->x, &t);
    square(&current.y, &t);
    square(&t, &m);
    TIGHT(&twice.x, t.v[i] - 2 * current.x.v[i]);
    FACTOR(&d, 3, 2 * (current.x.v[i] - twice.x.v[i]));
    multiply(&t, &m, &d);
    TIGHT(&twice.y, t.v[i] - current.y.v[i]);

    for (int k = 1; k < 16; k++) { /* 5M + 2S; what comes in is [1.6] */
        FACTOR(&steps[k], 4, 2 * (twice.x.v[i] - current.x.v[i])); /* [7.2] */
        square_factor(&c, &steps[k]);                              /* [4.3] */
        multiply(&w, &twice.x, &c);                                /* [1.5] */
        multiply_loose(&t, &current.x, &c);                        /* [1.5] */
        FACTOR(&d, 2, twice.y.v[i] - current.y.v[i]);              /* [3.6] */
        square_loose(&x, &d);
        TIGHT(&x, x.v[i] - w.v[i] - t.v[i]);
        FACTOR(&t, 3, 2 * (w.v[i] - t.v[i]));                      /* [6] */
        multiply(&c, &twice.y, &t);                                /* [1.6] */
        FACTOR(&t, 3, 2 * (w.v[i] - x.v[i]));                      /* [6] */
        multiply_loose(&t, &d, &t);
        TIGHT(&current.y, t.v[i] - c.v[i]);
        current.x = x;
        twice.x = w;
        twice.y = c;
        multiples[k] = current;
    }
}

/* Bring the multiples to affine form, as factors [1.1], given the inverse of the last Z. */
CALLED void odd_multiples_affine(affine multiples[16], const element steps[16], const element *inverse_of_last)
{
    element inverse = *inverse_of_last, square_of, t;

    for (int k = 15; k > 0; k--) {
        square_factor(&square_of, &inverse);
        multiply_factor(&t, &square_of, &inverse);
        multiply_factor(&multiples[k].x, &multiples[k].x, &square_of);
        multiply_factor(&inverse, &inverse, &steps[k]);
        multiply_factor(&multiples[k].y, &multiples[k].y, &t);
    }
}

/* Read all entries and keep one, so that the addresses do not depend on the digit. */
CALLED void look_up(affine *out, const affine multiples[16], uint64_t magnitude)
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
 * Before an addition the accumulator is -32 m P with m = (k >> 5 (digit + 1)) | 1, and 32 m P = +-d P only if n divides
 * 32 m +- d. Before the last addition these numbers lie between 0 and n. There 32 m + d = k is not 0 modulo n, but
 * 32 m - d = k - 2d = n for one odd k, n - 6 (d = -3, since n = 3 modulo 32): then the points are equal and the sum is
 * the double, which is therefore computed as well and chosen where Z3 = 0.
 */
static void ladder(jacobian *out, const affine multiples[16], const struct recoded *scalar)
{
    affine term;
    jacobian p, twice;
    mask equal;

    SUM(&p.x, 2, multiples[0].x.v[i]);
    p.y = multiples[0].y;
    set_constant(&p.z, sm2_one);
    for (int digit = DIGITS - 1; digit >= 0; digit--) {
        for (int i = 0; i < 5; i++) /* an odd number of negatives: what is added is -d P */
            point_double(&p);
        if (digit == 0)
            twice = p;
        look_up(&term, multiples, scalar->magnitude[digit]);
        point_add_affine(&p, &term, broadcast(~scalar->negative[digit]));
    }
    point_double(&twice); /* what the accumulator was before the last addition */
    equal = is_zero(&p.z);
    replace(&p.x, &twice.x, &equal);
    replace(&p.y, &twice.y, &equal);
    replace(&p.z, &twice.z, &equal);
    *out = p;
    sm2curve_wipe(&p, sizeof p);
    sm2curve_wipe(&twice, sizeof twice);
    sm2curve_wipe(&term, sizeof term);
}

/* x and y of a Jacobian point, out of Montgomery form and in [0, p), given 1 / Z. */
static void to_plain(element *x, element *y, const jacobian *p, const element *inverse)
{
    element half, square_of, t;

    set_constant(&half, sm2_half);
    square(&square_of, inverse);
    FACTOR(&t, 0, p->x.v[i]);
    multiply(&t, &t, &square_of);
    leave(x, &t);
    multiply(&t, &square_of, inverse);
    multiply(&t, &p->y, &t);
    multiply(&t, &t, &half);
    leave(y, &t);
}
