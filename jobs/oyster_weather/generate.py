"""What the stations of an ocean bureau measured in half a year. All of it is generated.

    python -m jobs.oyster_weather.generate DIR [--seed 1]

Shapes:    ``stations``: one row a station and day, of twelve stations in four sea areas, 1 January to 30 June 2025. It
           rains more from April on, and rain makes the water less salty for a while, near the river mouth most.
Units:     degrees Celsius; practical salinity units (psu); millimetres a day; metres a second.
Security:  there are no people in it, and no such stations.
"""

from __future__ import annotations

import sys
from typing import Final

import numpy as np
import pyarrow as pa

from jobs.generated import SEED, decimals, field, key_field, run
from sandbox.catalog.schema import Field, FieldType, Grade, Schema, Valid

AREAS: Final = ("River Mouth", "Inner Bay", "Outer Bay", "North Strait")
STATIONS: Final = tuple(f"{area.split()[0]}-{n}" for area in AREAS for n in (1, 2, 3))
MONTHS: Final = tuple(f"2025-{month:02d}" for month in range(1, 7))
FIRST: Final = np.datetime64("2025-01-01")
DAYS: Final = 181
KEYS: Final = "there are no such stations, and all numbers"

_MET: Final = (0.9, 0.5, 0.25, 0.3)  # how much of the rain an area's salinity feels


def _measured(name: str, meaning: str, unit: str, low: str, high: str) -> Field:
    valid = Valid(low, high)
    return field(name, FieldType.DECIMAL, meaning, unit, Grade.L2, valid=valid, price="0.3")


SCHEMAS: Final = {
    "stations": Schema(
        fields=(
            key_field("station", "made-up station", grade=Grade.L1, masking="", valid=Valid(values=STATIONS)),
            field(
                "day",
                FieldType.DATE,
                "day of the measurement",
                grade=Grade.L1,
                valid=Valid("2025-01-01", "2025-06-30"),
                price="0.1",
            ),
            field("sea_area", FieldType.STRING, "where the station is", grade=Grade.L1, valid=Valid(values=AREAS)),
            field("month", FieldType.STRING, "month of the day", grade=Grade.L1, valid=Valid(values=MONTHS)),
            _measured("water", "temperature of the water at one metre", "degree Celsius", "0", "36"),
            _measured("salinity", "salinity at one metre, on average", "psu", "0", "40"),
            _measured("rain", "rain of the day", "mm", "0", "400"),
            _measured("gust", "strongest gust of the day", "m/s", "0", "70"),
        ),
        key=("station", "day"),
    )
}


def generate(seed: int = SEED) -> dict[str, pa.Table]:
    """Return the measurements; the same seed, the same rows."""
    random = np.random.default_rng(seed)
    day = np.arange(DAYS)
    wet = np.where(day < 90, 0.25, 0.45)
    rain = np.where(random.random(DAYS) < wet, random.gamma(0.8, np.where(day < 90, 8.0, 28.0)), 0.0)
    fresh = np.convolve(rain, 0.8 ** np.arange(10))[:DAYS]  # what has come down lately
    dates = FIRST + day
    parts = []
    for n, station in enumerate(STATIONS):
        area = n // 3
        here = np.clip(rain * random.uniform(0.6, 1.4, DAYS), 0, 399)
        salinity = 31.0 - 0.06 * _MET[area] * fresh * random.uniform(0.8, 1.2, DAYS) + random.normal(0, 0.3, DAYS)
        water = 19 - 7 * np.cos(2 * np.pi * (day - 30) / 365) + random.normal(0, 1, DAYS)
        made = {
            "station": [station] * DAYS,
            "day": dates,
            "sea_area": [AREAS[area]] * DAYS,
            "month": np.datetime_as_string(dates, unit="M").tolist(),
            "water": decimals(np.clip(water, 4, 35), 1),
            "salinity": decimals(np.clip(salinity, 3, 36), 1),
            "rain": decimals(here, 1),
            "gust": decimals(np.clip(random.gamma(6, 1.8, DAYS), 1, 60), 1),
        }
        parts.append(pa.table(made))
    return {"stations": pa.concat_tables(parts)}


def main(arguments: list[str]) -> int:
    """Write the file of the bureau."""
    return run(arguments, "jobs.oyster_weather.generate", generate, SCHEMAS, KEYS)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
