"""Makes and seals a twin, in a worker: the rows are opened here and nowhere else, and measured if they never were.

    order (JSON) + measurements, or none  --make-->  report (JSON) + measurements

Not here:  who may ask, and the account of the budget (twinning), what a twin is (twin).
"""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sandbox.catalog import vault
from sandbox.catalog.schema import DatasetVersion, parse_schema
from sandbox.catalog.twin import Measurements, measure, synthesise


def make(order: dict[str, Any], known: bytes) -> bytes:
    """Seal the rows of a twin and return what was sealed, with the measurements it was made from.

    Args:
        order: code, version, schema, directory and key of the rows, place and key of twins, epsilon_milli, rows.
        known: measurements of an earlier time; empty to measure now.
    """
    schema = parse_schema(base64.b64decode(order["schema"]))
    directory, key = Path(order["directory"]), bytes.fromhex(order["key"])
    if known:
        measured = Measurements.from_json(known)
    else:
        measured = measure(lambda: vault.open_version(directory, key), schema, order["epsilon_milli"])
    code, version = order["code"], order["version"]
    rows = synthesise(measured, schema, code, order["rows"], str(version).encode())
    meta = DatasetVersion(code, version, "", schema, 0, b"", datetime.now(UTC), "", 0)
    sealed = vault.seal_version(Path(order["place"]), bytes.fromhex(order["test_key"]), meta, rows)
    report = {
        "rows": sealed.manifest.rows,
        "content_hash": sealed.content_hash.hex(),
        "wrapped_key": sealed.wrapped_key.hex(),
    }
    head = json.dumps(report).encode()
    return len(head).to_bytes(4, "big") + head + measured.to_json()


def unpacked(body: bytes) -> tuple[dict[str, Any], bytes]:
    """Return report and measurements from what :func:`make` returned."""
    end = 4 + int.from_bytes(body[:4], "big")
    report: dict[str, Any] = json.loads(body[4:end])
    return report, body[end:]
