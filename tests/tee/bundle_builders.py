"""Bundles for the tests: directories, and archives that ``pack`` would never make."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterable, Mapping
from pathlib import Path

MANIFEST = """
name = "small"
form = "python"
entry = "model.py"
libraries = ["numpy", "pyarrow"]

[inputs]
people = ["id", "income"]

[params]
factor = "number"

[outputs.scores]
class = "row"
rows = 100
of = "people"
key = ["id"]
columns = [
  { name = "id", type = "string" },
  { name = "score", type = "number", places = 1, low = 0, high = 1000 },
]

[outputs.totals]
class = "aggregate"
rows = 3
columns = [
  { name = "band", type = "string", values = ["low", "high"] },
  { name = "people", type = "integer" },
  { name = "mean", type = "number", places = 2, optional = true },
  { name = "full", type = "boolean", optional = true },
  { name = "day", type = "date", optional = true },
]
"""
CODE = """
import pyarrow as pa


def run(tables, params):
    people = tables["people"]
    return {
        "scores": pa.table({"id": people["id"], "score": [params["factor"] * v for v in people["income"].to_pylist()]}),
        "totals": pa.table(
            {
                "band": ["low", "high"],
                "people": [1, 2],
                "mean": pa.array([0.5, None], pa.float64()),
                "full": pa.array([True, None], pa.bool_()),
                "day": pa.array([None, None], pa.date32()),
            }
        ),
    }
"""
FILES = {"bundle.toml": MANIFEST.encode(), "model.py": CODE.encode(), "data/weights.csv": b"a,1\n"}


def write_files(directory: Path, files: Mapping[str, bytes] = FILES) -> Path:
    """Write files into a new directory."""
    for name, content in files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return directory


def entry(name: str, content: bytes = b"", **fields: object) -> bytes:
    """Return one file of an archive as Python's own module writes it; ``fields`` override what packing fixes."""
    info = tarfile.TarInfo(name)
    info.mode, info.size = 0o644, len(content)
    for field, value in fields.items():
        setattr(info, field, value)
    padding = bytes(-len(content) % 512)
    return info.tobuf(tarfile.USTAR_FORMAT, "utf-8", "strict") + content + padding


def archive(entries: Iterable[bytes]) -> bytes:
    """Return an archive of such files."""
    return b"".join(entries) + bytes(1024)


def contents(bundle: bytes) -> list[tuple[str, bytes]]:
    """Return names and contents of an archive, read by Python's own module."""
    with tarfile.open(fileobj=io.BytesIO(bundle), mode="r:") as opened:
        found = [(member.name, opened.extractfile(member)) for member in opened]
        return [(name, file.read() if file else b"") for name, file in found]
