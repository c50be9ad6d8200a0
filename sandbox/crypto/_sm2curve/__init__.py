"""Arithmetic on the SM2 curve in batches: the C sources, their Python declaration and the way without a compiler.

* ``module.c``                   the extension ``_native``; ``backend.h`` is the seam behind it
* ``scalar.c``                   the secret scalar: range, digits, wiping
* ``portable.c``, ``ifma.c``     the two back ends: what a field product is; all else they take from the templates
  ``field.h`` ``point.h`` ``map.h`` ``sm3.h`` ``batch.h``
* ``fallback``                   the same through libcrypto, where the extension was not built

Only ``sandbox.crypto.sm2curve`` imports from here.
"""
