"""A score card: points for every applicant, and how many are in each band."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa


def run(tables: dict[str, pa.Table], params: dict[str, Any]) -> dict[str, pa.Table]:
    """Return the points and the bands."""
    rows = tables["applicants"]
    income, debt, months = (rows[name].to_numpy() for name in ("income", "debt", "months_insured"))
    burden = debt / np.maximum(income, 1)
    points = params["base"] + 45 * np.log(np.maximum(income, 1) / 7000) + 0.35 * (months - 180) - 7 * (burden - 8)
    points = np.clip(np.rint(points / 5) * 5, 300, 900).astype(np.int64)
    names = ["low", "middle", "high"]
    counts = np.bincount(np.digitize(points, [560, 640]), minlength=len(names))
    return {
        "scores": pa.table({"id_no": rows["id_no"], "points": points}),
        "bands": pa.table({"band": names, "applicants": counts}),
    }
