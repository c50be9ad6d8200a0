"""A few rows as they may be shown outside production: masked, in a worker, and never more than ``ROWS``.

    order (JSON)  --make-->  Parquet

Not here:  who may look (api), what a mask hides (masking).
"""

from __future__ import annotations

import base64
import secrets
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from sandbox.catalog import vault
from sandbox.catalog.masking import Masker
from sandbox.catalog.schema import parse_schema

ROWS: Final = 20


def make(order: dict[str, Any], _body: bytes) -> bytes:
    """Return rows drawn from the first chunk of a version, masked by the rules of its schema."""
    schema = parse_schema(base64.b64decode(order["schema"]))
    masker = Masker(schema, bytes.fromhex(order["secret"]))
    chunk = next(vault.open_version(Path(order["directory"]), bytes.fromhex(order["key"])))
    drawn = np.random.default_rng(secrets.randbits(128)).permutation(chunk.num_rows)[:ROWS]
    shown = masker.apply(chunk.take(pa.array(np.sort(drawn))))
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_batches([shown]), sink)
    sampled: bytes = sink.getvalue().to_pybytes()
    return sampled
