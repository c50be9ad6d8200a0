"""The extension with the loops over rows: it keeps memory safe itself. What it computes is in test_psi_keys."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import numpy as np
import pytest

from sandbox.psi import native, table

SOURCES = Path(native.__file__).parent / "_rows"
pytestmark = pytest.mark.skipif(native.ROWS is None, reason="the C extension is not built")


def test_the_extension_refuses_arrays_that_do_not_fit():
    rows = native.ROWS
    digests, places, words = (
        np.random.default_rng(7).integers(0, 2**64, (3, 2), np.uint64),
        np.zeros(3, np.int64),
        np.zeros((4, 4), np.uint64),
    )
    offsets, text = np.array([0, 2, 4], np.int64), np.zeros(4, np.uint8)
    out = np.zeros((2, 2), np.uint64)
    rows.digest(offsets, text, words, out)
    for wrong in (
        (np.array([0, 2, 5], np.int64), text, words, out),  # beyond the data
        (np.array([0, 3, 2], np.int64), text, words, out),  # backwards
        (np.array([-1, 2, 4], np.int64), text, words, out),
        (np.array([0, 0, 9], np.int64), np.zeros(9, np.uint8), words, out),  # longer than there are factors
        (offsets, text, words, np.zeros((3, 2), np.uint64)),
        (offsets[:0], text, words, out[:0]),
    ):
        with pytest.raises(ValueError):
            rows.digest(*wrong)
    lines = np.zeros((3, table.LINE), np.uint8)
    for call, wrong in (
        (rows.order, (digests, places[:2])),
        (rows.shuffle, (places[:2], places)),
        (rows.write, (digests, 0, lines[:2])),
        (rows.write, (digests, 10**8 - 2, lines)),
        (rows.read, (lines, digests, places[:2])),
        (rows.sum, (lines.tobytes()[:-1],)),
        (rows.sum, (lines,)),
    ):
        with pytest.raises(ValueError):
            call(*wrong)
    with pytest.raises((TypeError, BufferError)):
        rows.order(digests, bytes(24))  # not to be written to


EXERCISE = """
import random, struct, sys
sys.path.insert(0, sys.argv[1])
import _native as rows
draw = random.Random(1)
for count in (0, 1, 2, 23, 24, 25, 1000):
    keys = [draw.randbytes(draw.randrange(0, 30)) for _ in range(count)]
    ends = [0]
    for key in keys:
        ends.append(ends[-1] + len(key))
    out = bytearray(16 * count)
    rows.digest(struct.pack(f"{count + 1}q", *ends), b"".join(keys), draw.randbytes(8 * 4 * 10), out)
    for digests in (out, draw.randbytes(16 * count), bytes(16 * count)):
        places, lines, found = bytearray(8 * count), bytearray(42 * count), bytearray(8 * count)
        rows.order(digests, places)
        rows.shuffle(draw.randbytes(8 * count), found)
        assert sorted(struct.unpack(f"{count}q", places)) == sorted(struct.unpack(f"{count}q", found))
        rows.write(digests, 0, lines)
        assert rows.read(lines, digests, found) == 0
        assert len(rows.sum(lines)) == 4
print("done")
"""


@pytest.mark.slow
def test_sanitizers_find_nothing(tmp_path):
    gcc = shutil.which("gcc")
    if gcc is None:
        pytest.skip("no gcc")
    library = subprocess.run([gcc, "-print-file-name=libasan.so"], capture_output=True, text=True, check=True).stdout
    if not Path(library.strip()).is_absolute():
        pytest.skip("gcc without libasan")
    include = sysconfig.get_paths()["include"]
    subprocess.run(
        [
            gcc, "-std=c11", "-O2", "-g", "-Wall", "-Wextra", "-Werror", "-fPIC", "-shared",
            "-fsanitize=address,undefined", "-fno-sanitize-recover=all", f"-I{include}",
            *map(str, sorted(SOURCES.glob("*.c"))), "-o", str(tmp_path / "_native.so"),
        ],
        check=True,
    )  # fmt: skip
    watched = os.environ | {"LD_PRELOAD": library.strip(), "ASAN_OPTIONS": "detect_leaks=0", "PYTHONMALLOC": "malloc"}
    done = subprocess.run(
        [sys.executable, "-c", EXERCISE, str(tmp_path)], capture_output=True, text=True, env=watched, timeout=250
    )
    assert done.returncode == 0 and done.stdout.startswith("done") and not done.stderr, done.stderr[-3000:]
