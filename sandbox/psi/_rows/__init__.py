"""The loops over rows of an intersection in C: the sources and their Python declaration.

* ``module.c``   the extension ``_native``
* ``rows.c``     digests, order, shuffling, and the lines of the RR22 engine's files; ``rows.h`` is the seam

Only ``sandbox.psi.native`` imports from here.
"""
