"""The parts that need a C compiler. Everything else about the package is in ``pyproject.toml``.

``optional``: without a compiler the installation goes on, and what these do is done more slowly by others, who say so:

* SM2 intersections by libcrypto (``sandbox.crypto.sm2curve.BACKEND`` says which it is, and why),
* Paillier by GMP (``sandbox.crypto.modexp.BACKEND``),
* SM4 by OpenSSL (``sandbox.crypto.sm4.BACKEND``),
* the loops over rows of intersections by numpy (``sandbox.psi.native``).
"""

from pathlib import Path

from setuptools import Extension, setup


def extension(package: str, sources: tuple[str, ...]) -> Extension:
    """Return the extension ``_native`` of a package below ``sandbox``."""
    folder = Path("sandbox") / package
    return Extension(
        f"sandbox.{package.replace('/', '.')}._native",
        sources=[str(folder / name) for name in sources],
        depends=sorted(str(header) for header in folder.glob("*.h")),
        # Not -O3: with gcc 12 the AVX512 back end of the curve is 15 % slower with it.
        extra_compile_args=["-std=c11", "-O2", "-fvisibility=hidden", "-g0"],
        py_limited_api=True,
        optional=True,
    )


setup(
    ext_modules=[
        extension("crypto/_sm2curve", ("module.c", "scalar.c", "portable.c", "ifma.c")),
        extension("crypto/_modexp", ("module.c", "modulus.c", "ifma.c")),
        extension("crypto/_sm4", ("module.c", "gfni.c")),
        extension("psi/_rows", ("module.c", "rows.c")),
    ],
    options={"bdist_wheel": {"py_limited_api": "cp311"}},
)
