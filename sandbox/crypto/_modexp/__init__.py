"""Arithmetic modulo large numbers in batches: the C sources, their Python declaration and the way without them.

* ``slices``, ``groups``   how work is cut up, for every back end
* ``fallback``             one slice through GMP
* ``lanes``                one slice through the extension ``_native``
* ``module.c``             its Python face; ``backend.h`` is the seam behind it
* ``modulus.c``            what is done once a modulus
* ``ifma.c``               eight numbers at a time, from the templates ``columns.h`` (multiplication), ``lanes.h``
  (bytes), ``batch.h`` (products, powers) and ``table.h`` (powers of a fixed base)

Only ``sandbox.crypto.modexp`` imports from here.
"""
