"""The one part that needs a C compiler. Everything else about the package is in ``pyproject.toml``.

``optional``: without a compiler the installation goes on, and SM2 intersections take the slower way through libcrypto
(``sandbox.crypto.sm2curve.BACKEND`` says which it is, and why).
"""

from pathlib import Path

from setuptools import Extension, setup

SOURCES = Path("sandbox/crypto/_sm2curve")

setup(
    ext_modules=[
        Extension(
            "sandbox.crypto._sm2curve._native",
            sources=[str(SOURCES / name) for name in ("module.c", "scalar.c", "portable.c", "ifma.c")],
            depends=sorted(str(header) for header in SOURCES.glob("*.h")),
            # Not -O3: with gcc 12 the AVX512 back end is 15 % slower with it.
            extra_compile_args=["-std=c11", "-O2", "-fvisibility=hidden", "-g0"],
            py_limited_api=True,
            optional=True,
        )
    ],
    options={"bdist_wheel": {"py_limited_api": "cp311"}},
)
