"""What use costs: the published public-data tariff of Fujian, in exact decimals.

Source:   Fujian's charging standard for public-data products and services: cumulative tiers, upper limits.
Units:    a unit is one field of one row in one call (项 × 条 × 次); yuan to the fen, rounded half up once at the end.
"""

from __future__ import annotations

from decimal import ROUND_HALF_UP, Decimal

TIERS: tuple[tuple[int | None, Decimal], ...] = (
    (3_000_000, Decimal("0.10")),
    (30_000_000, Decimal("0.08")),
    (None, Decimal("0.06")),
)
FEN = Decimal("0.01")


def units(fields: int, rows: int, calls: int = 1) -> int:
    """Return fields × rows × calls."""
    return fields * rows * calls


def price(count: int, before: int = 0, coefficient: Decimal = Decimal(1), public_good: bool = False) -> Decimal:
    """Return what ``count`` units cost after ``before`` units were used already."""
    if public_good:
        return Decimal("0.00")
    total = _cumulative(before + count) - _cumulative(before)
    return (total * coefficient).quantize(FEN, ROUND_HALF_UP)


def _cumulative(count: int) -> Decimal:
    cost, floor = Decimal(0), 0
    for ceiling, rate in TIERS:
        top = count if ceiling is None else min(count, ceiling)
        if top > floor:
            cost += (top - floor) * rate
        if ceiling is None or count <= ceiling:
            break
        floor = ceiling
    return cost
