"""SM4-GCM with vector instructions: the C sources and their Python declaration.

* ``module.c``   the extension ``_native``; ``backend.h`` is the seam behind it
* ``gfni.c``     the cipher, the hash, and the two together

Only ``sandbox.crypto.sm4`` imports from here. ADR 16 says why this is ours and how it is checked.
"""
